/* SPDX-License-Identifier: MIT */
/* The kernels of tiles that stand alone, and the launches of all. */
#include "cuda/tile_kernel.h"

#include "cuda/elem_format.cuh"
#include "cuda/tile_decode.cuh"

/* --- Launches --- */

/* NULL for an unknown kernel, which makes the CUDA runtime report an error. */
template <bool multi> static const void *wcx_kernel_of(uint32_t kernel)
{
	static void (*const kernels[])(const struct wcx_batch_dev) = {
		/* in the order of enum wcx_tile_kernel */
		wcx_decode_tiles<wcx_any_format<1>, true>,           wcx_decode_tiles<wcx_any_format<2>, true>,
		wcx_decode_tiles<wcx_any_format<4>, true>,           wcx_decode_tiles<wcx_any_format<8>, true>,
		wcx_decode_tiles<wcx_pairs_format, multi>,           wcx_decode_tiles<wcx_bytes_format<0, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<1, false>, multi>, wcx_decode_tiles<wcx_bytes_format<2, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<3, false>, multi>, wcx_decode_tiles<wcx_bytes_format<4, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<1, true>, multi>,  wcx_decode_tiles<wcx_bytes_format<2, true>, multi>,
		wcx_decode_tiles<wcx_bytes_format<3, true>, multi>,  wcx_decode_tiles<wcx_bytes_format<4, true>, multi>,
		wcx_decode_tiles<wcx_halves_format<5>, multi>,       wcx_decode_tiles<wcx_halves_format<6>, multi>,
		wcx_decode_tiles<wcx_halves_format<7>, multi>,       wcx_decode_tiles<wcx_halves_format<8>, multi>,
		wcx_decode_tiles<wcx_halves_format<9>, multi>,       wcx_decode_tiles<wcx_half_pairs_format<8>, multi>,
		wcx_decode_tiles<wcx_half_pairs_format<11>, multi>,  wcx_decode_tiles<wcx_singles_format<20>, multi>,
		wcx_decode_tiles<wcx_singles_format<21>, multi>,     wcx_decode_tiles<wcx_singles_format<22>, multi>,
		wcx_decode_tiles<wcx_singles_format<23>, multi>,     wcx_decode_tiles<wcx_singles_format<24>, multi>,
	};

	static_assert(WCX_ARRAY_COUNT(kernels) == WCX_KERNEL_DIFFERENCE_FIRST, "one for each");
	return kernel < WCX_KERNEL_DIFFERENCE_FIRST ? (const void *)kernels[kernel] : NULL;
}

static struct wcx_block_shape wcx_block_shape(uint32_t kernel, uint32_t table_count)
{
	if (kernel == WCX_KERNEL_DIFFERENCE_BYTES)
		return wcx_byte_difference_shape(table_count);
	if (kernel >= WCX_KERNEL_DIFFERENCE_FIRST)
		return wcx_difference_shape(kernel, table_count);
	return { table_count > 1 ? wcx_kernel_of<true>(kernel) : wcx_kernel_of<false>(kernel), table_count * WCX_TABLE_BYTES,
		 WCX_WARP_SHARED_BYTES };
}

static uint32_t wcx_block_warps(const struct wcx_kernels *kernels, const struct wcx_block_shape *shape, uint32_t kernel,
				uint32_t table_count)
{
	const uint32_t fit = (kernels->shared_bytes - shape->tables_bytes) / shape->warp_bytes;

	return WCX_MIN(fit, wcx_block_warps_max(kernel, table_count));
}

/* Lets a kernel have the shared memory that its launches with one table, and with the most, take. */
static cudaError_t wcx_kernel_prepare(const struct wcx_kernels *kernels, uint32_t kernel)
{
	const bool differs = kernel >= WCX_KERNEL_DIFFERENCE_FIRST;
	const uint32_t counts[] = { 1, differs ? kernels->carrier_tables : (uint32_t)WCX_FIELD_TABLES_MAX };
	cudaError_t error = cudaSuccess;

	for (uint32_t i = 0; i < WCX_ARRAY_COUNT(counts) && !error; i++) {
		const struct wcx_block_shape shape = wcx_block_shape(kernel, counts[i]);
		const uint32_t warps = wcx_block_warps(kernels, &shape, kernel, counts[i]);

		error = cudaFuncSetAttribute(shape.function, cudaFuncAttributeMaxDynamicSharedMemorySize,
					     (int)(shape.tables_bytes + warps * shape.warp_bytes));
	}
	return error;
}

/* Shared memory of the smallest blocks that work on kinds of so many tables. */
static uint32_t wcx_least_shared_bytes(uint32_t table_count)
{
	const struct wcx_block_shape alone = wcx_block_shape(0, WCX_FIELD_TABLES_MAX);
	const struct wcx_block_shape differs = wcx_block_shape(WCX_KERNEL_DIFFERENCE_FIRST, table_count);

	return WCX_MAX(alone.tables_bytes + WCX_LEAST_WARPS * alone.warp_bytes,
		       differs.tables_bytes + WCX_LEAST_WARPS * differs.warp_bytes);
}

extern "C" cudaError_t wcx_kernels_open(struct wcx_kernels *ret)
{
	const uint32_t static_bytes = sizeof(struct wcx_batch_kind) + sizeof(uint32_t);
	struct cudaFuncAttributes attributes;
	int device, multiprocessors, shared_bytes;
	cudaError_t error = cudaGetDevice(&device);

	if (!error)
		error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
	if (!error)
		error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
	if (error)
		return error;
	*ret = { 2 * (uint32_t)multiprocessors, (uint32_t)shared_bytes - static_bytes, WCX_CARRIER_TABLES_MAX, false };
	while (wcx_least_shared_bytes(ret->carrier_tables) > (uint32_t)shared_bytes - static_bytes)
		if (ret->carrier_tables-- == WCX_FIELD_TABLES_MAX)
			return cudaErrorNoKernelImageForDevice;
	error = cudaFuncGetAttributes(&attributes, wcx_block_shape(0, 1).function);
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
		const struct wcx_block_shape shape = wcx_block_shape(launch.kernel, launch.table_count);
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
