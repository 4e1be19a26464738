/* SPDX-License-Identifier: MIT */
/* Launches the kernels. */
#include "cuda/tile_kernel.h"

#include "cuda/block_shape.h"
#include "cuda/block_warps.h"
#include "cuda/tile_lines.cuh"

static struct wcx_block_shape wcx_block_shape(uint32_t kernel, uint32_t base_table_count, uint32_t table_count)
{
	if (kernel == WCX_KERNEL_FUSED_BYTES || kernel == WCX_KERNEL_FUSED_BYTE_PAIRS)
		return wcx_fused_byte_shape(kernel, base_table_count, table_count);
	if (kernel >= WCX_KERNEL_FUSED_FIRST)
		return wcx_fused_shape(kernel, base_table_count, table_count);
	if (kernel == WCX_KERNEL_DIFFERENCE_ESCAPES)
		return wcx_escape_shape(table_count);
	if (kernel == WCX_KERNEL_DIFFERENCE_BYTES || kernel == WCX_KERNEL_DIFFERENCE_BYTE_PAIRS)
		return wcx_byte_difference_shape(kernel, table_count);
	if (kernel >= WCX_KERNEL_DIFFERENCE_FIRST)
		return wcx_difference_shape(kernel, table_count);
	return wcx_alone_shape(kernel, table_count);
}

static uint32_t wcx_block_warps(const struct wcx_kernels *kernels, const struct wcx_block_shape *shape, uint32_t kernel,
				uint32_t table_count)
{
	if (shape->tables_bytes > kernels->shared_bytes)
		return 0;
	return WCX_MIN((kernels->shared_bytes - shape->tables_bytes) / shape->warp_bytes,
		       wcx_block_warps_max(kernel, table_count));
}

/* The most tables of the differences that a kernel decodes, or of its tiles; 0 if batches for the device never use it. */
static uint32_t wcx_tables_max(const struct wcx_kernels *kernels, uint32_t kernel)
{
	if (kernel < WCX_KERNEL_DIFFERENCE_FIRST)
		return WCX_FIELD_TABLES_MAX;
	if (kernel == WCX_KERNEL_DIFFERENCE_BYTE_PAIRS)
		return 1;
	if (kernel < WCX_KERNEL_DIFFERENCE_TWO)
		return kernels->carrier_tables;
	if (kernels->carrier_tables < WCX_CARRIER_TABLES_MAX)
		return 0;
	switch (kernel) {
	case WCX_KERNEL_DIFFERENCE_ESCAPES:
		return WCX_SET_TABLES_MAX;
	case WCX_KERNEL_FUSED_BYTES:
	case WCX_KERNEL_FUSED_BYTE_PAIRS:
		return 1;
	}
	return WCX_CONTEXTS_MAX;
}

/* The smallest launch of a kernel, or the largest, which may be another version of it; without a function if there is none.
 */
static struct wcx_block_shape wcx_extreme_shape(const struct wcx_kernels *kernels, uint32_t kernel, bool is_largest,
						uint32_t *warps_ret)
{
	const uint32_t most = wcx_tables_max(kernels, kernel);
	const uint32_t least = kernel >= WCX_KERNEL_DIFFERENCE_ESCAPES ? WCX_MIN((uint32_t)WCX_CONTEXTS_MAX, most) : 1u;
	const uint32_t tables = is_largest ? most : least;
	struct wcx_block_shape shape = { NULL, 0, 0 };

	*warps_ret = 0;
	if (most) {
		shape = wcx_block_shape(kernel, is_largest ? (uint32_t)WCX_FIELD_TABLES_MAX : 1u, tables);
		*warps_ret = wcx_block_warps(kernels, &shape, kernel, tables);
	}
	return shape;
}

/*
 * Lets a kernel have all shared memory, in the versions of its smallest and its largest launch.  Not only what these take:
 * warps are rounded down, so that a launch with a table fewer may take more.
 */
static cudaError_t wcx_kernel_prepare(const struct wcx_kernels *kernels, uint32_t kernel)
{
	cudaError_t error = cudaSuccess;

	for (int i = 0; i < 2 && !error; i++) {
		uint32_t warps;
		const struct wcx_block_shape shape = wcx_extreme_shape(kernels, kernel, i == 1, &warps);

		if (shape.function)
			error = cudaFuncSetAttribute(shape.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
						     (int)kernels->shared_bytes);
	}
	return error;
}

/* Shared memory of the smallest blocks that work on kinds of so many tables. */
static uint32_t wcx_least_shared_bytes(uint32_t table_count)
{
	const struct wcx_block_shape alone = wcx_block_shape(0, 0, WCX_FIELD_TABLES_MAX);
	const struct wcx_block_shape differs = wcx_block_shape(WCX_KERNEL_DIFFERENCE_FIRST, 0, table_count);

	return WCX_MAX(alone.tables_bytes + WCX_LEAST_WARPS * alone.warp_bytes,
		       differs.tables_bytes + WCX_LEAST_WARPS * differs.warp_bytes);
}

extern "C" bool wcx_kernels_fit(uint32_t shared_bytes, struct wcx_kernels *ret)
{
	/* Of fused kernels, as the compiler lays it out. */
	const uint32_t static_bytes = WCX_ALIGN_UP(2 * sizeof(struct wcx_batch_kind) + 2 * sizeof(uint32_t), 64);

	*ret = { 0, shared_bytes - static_bytes, WCX_CARRIER_TABLES_MAX, false };
	while (wcx_least_shared_bytes(ret->carrier_tables) > ret->shared_bytes)
		if (ret->carrier_tables-- == WCX_FIELD_TABLES_MAX)
			return false;
	return true;
}

extern "C" uint32_t wcx_kernels_least_warps(const struct wcx_kernels *kernels)
{
	uint32_t least = UINT32_MAX, warps;

	for (uint32_t kernel = 0; kernel < WCX_KERNEL_COUNT; kernel++)
		for (int i = 0; i < 2; i++)
			if (wcx_extreme_shape(kernels, kernel, i == 1, &warps).function)
				least = WCX_MIN(least, warps);
	return least;
}

extern "C" cudaError_t wcx_kernels_open(struct wcx_kernels *ret)
{
	struct cudaFuncAttributes attributes;
	int device, multiprocessors, shared_bytes;
	cudaError_t error = cudaGetDevice(&device);

	if (!error)
		error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
	if (!error)
		error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
	if (error)
		return error;
	if (!wcx_kernels_fit((uint32_t)shared_bytes, ret))
		return cudaErrorNoKernelImageForDevice;
	ret->blocks = 2 * (uint32_t)multiprocessors;
	error = cudaFuncGetAttributes(&attributes, wcx_block_shape(0, 0, 1).function);
	if (error)
		return error;
	/* ptxVersion is the __CUDA_ARCH__ of the code, even if the driver compiled it for a newer device. */
	ret->overlap = attributes.ptxVersion >= 90;
	for (uint32_t kernel = 0; kernel < WCX_KERNEL_COUNT && !error; kernel++)
		error = wcx_kernel_prepare(ret, kernel);
	return error;
}

extern "C" cudaError_t wcx_kernels_decode(const struct wcx_kernels *kernels, const struct wcx_kernel_job *job,
					  cudaStream_t stream)
{
	const struct wcx_batch_layout *layout = job->layout;
	struct wcx_batch_dev batch;
	cudaLaunchAttribute early;
	cudaLaunchConfig_t config = {};
	cudaError_t error = cudaSuccess;

	early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
	early.val.programmaticStreamSerializationAllowed = 1;
	config.stream = stream;
	config.attrs = &early;
	batch.items = (const struct wcx_tile_item *)job->control;
	batch.places = (const struct wcx_payload_place *)(job->control + layout->places_offset);
	batch.kinds = (const struct wcx_batch_kind *)(job->control + layout->kinds_offset);
	batch.tables = (const struct wcx_batch_table *)(job->control + layout->tables_offset);
	batch.left = (int *)(job->control + layout->left_offset);
	batch.src = job->src;
	batch.dst = job->dst;
	batch.status = job->status;
	batch.mark = job->mark;
	batch.factors = { 1u << 20, 1u << 16, 1u << 12, 4 };
	for (uint32_t i = 0; i < layout->launch_count && !error; i++) {
		const struct wcx_batch_launch &launch = layout->launches[i];
		const struct wcx_block_shape shape =
			wcx_block_shape(launch.kernel, launch.base_table_count, launch.table_count);
		const uint32_t warps = wcx_block_warps(kernels, &shape, launch.kernel, launch.table_count);
		void *arguments[] = { &batch };

		batch.blocks = (const uint32_t *)(job->control + layout->blocks_offset) + launch.first_block;
		batch.launch = launch;
		config.gridDim = dim3(launch.block_count);
		config.blockDim = dim3(warps * WCX_LANES);
		config.dynamicSmemBytes = shape.tables_bytes + warps * shape.warp_bytes;
		config.numAttrs = i > 0 && !launch.waits && kernels->overlap;
		error = cudaLaunchKernelExC(&config, shape.function, arguments);
	}
	return error;
}
