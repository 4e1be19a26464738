/* SPDX-License-Identifier: MIT */
/* Takes batches of tiles to the GPU. */
#include "cuda/gpu_lane.h"

#include <string.h>

static const struct wcx_batch_limits *lane_limits(const struct wcx_kernels *kernels, struct wcx_batch_limits *ret)
{
	*ret = (struct wcx_batch_limits){
		.items = WCX_LANE_ITEMS,
		.shapes = 256,
		.tables = 512,
		.places = 2 * WCX_LANE_ITEMS,
		.blocks = kernels->blocks,
	};
	return ret;
}

/* Where the control is in upload. */
static size_t control_offset(size_t src_bytes)
{
	return (src_bytes + WCX_BATCH_SRC_SLACK + 15) / 16 * 16;
}

enum wcx_result wcx_lane_open(struct wcx_gpu_lane *lane, const struct wcx_kernels *kernels, size_t src_bytes,
			      size_t dst_bytes, cudaError_t *error_ret)
{
	struct wcx_batch_limits limits;
	const size_t upload_bytes = control_offset(src_bytes) + wcx_tile_batch_capacity(lane_limits(kernels, &limits));
	const size_t download_bytes = WCX_LANE_STATUS_BYTES + dst_bytes;

	lane->kernels = kernels;
	lane->src_bytes = src_bytes;
	lane->batch = wcx_tile_batch_create(&limits);
	*error_ret = lane->batch ? cudaSuccess : cudaErrorMemoryAllocation;
	if (!*error_ret)
		*error_ret = cudaMallocHost((void **)&lane->upload, upload_bytes);
	if (!*error_ret)
		*error_ret = cudaMallocHost((void **)&lane->download, download_bytes);
	if (*error_ret)
		return *error_ret == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
	wcx_tile_batch_clear(lane->batch);
	*error_ret = cudaMalloc((void **)&lane->upload_dev, upload_bytes);
	if (!*error_ret)
		*error_ret = cudaMalloc((void **)&lane->download_dev, download_bytes);
	if (!*error_ret)
		*error_ret = cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking);
	/*
	 * What is read behind the last packed tile, and the gaps between decoded ones, which come back too: not what
	 * somebody else left in the device's memory.  In the lane's stream, so that this is over before the first batch.
	 */
	if (!*error_ret)
		*error_ret = cudaMemsetAsync(lane->upload_dev, 0, upload_bytes, lane->stream);
	if (!*error_ret)
		*error_ret = cudaMemsetAsync(lane->download_dev, 0, download_bytes, lane->stream);
	if (!*error_ret)
		*error_ret = cudaEventCreateWithFlags(&lane->done, cudaEventBlockingSync | cudaEventDisableTiming);
	return *error_ret ? WCX_DEVICE_FAILED : WCX_OK;
}

void wcx_lane_close(struct wcx_gpu_lane *lane)
{
	if (lane->done)
		cudaEventDestroy(lane->done);
	if (lane->stream)
		cudaStreamDestroy(lane->stream);
	cudaFree(lane->upload_dev);
	cudaFree(lane->download_dev);
	cudaFreeHost(lane->upload);
	cudaFreeHost(lane->download);
	wcx_tile_batch_free(lane->batch);
	*lane = (struct wcx_gpu_lane){ .kernels = NULL };
}

cudaError_t wcx_lane_submit(struct wcx_gpu_lane *lane, size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
	const size_t control = control_offset(src_bytes);
	cudaError_t error;

	lane->layout = wcx_tile_batch_finish(lane->batch);
	lane->mark += WCX_STATUS_MARK;
	memset(lane->upload + src_bytes, 0, control - src_bytes);
	wcx_tile_batch_write(lane->batch, lane->upload + control);
	error = cudaMemcpyAsync(lane->upload_dev, lane->upload, control + lane->layout->control_bytes,
				cudaMemcpyHostToDevice, lane->stream);
	if (!error)
		error = wcx_kernels_decode(lane->kernels, lane->upload_dev + control, lane->layout, lane->upload_dev, dst,
					   (uint32_t *)(void *)lane->download_dev, lane->mark, lane->stream);
	if (!error)
		error = cudaMemcpyAsync(lane->download, lane->download_dev,
					dst_bytes ? WCX_LANE_STATUS_BYTES + dst_bytes
						  : lane->layout->items * sizeof(uint32_t),
					cudaMemcpyDeviceToHost, lane->stream);
	return error;
}

cudaError_t wcx_lane_wait(struct wcx_gpu_lane *lane)
{
	cudaError_t error = lane->layout ? cudaEventRecord(lane->done, lane->stream) : cudaSuccess;

	if (lane->layout && !error)
		error = cudaEventSynchronize(lane->done);

	lane->layout = NULL;
	wcx_tile_batch_clear(lane->batch);
	return error;
}
