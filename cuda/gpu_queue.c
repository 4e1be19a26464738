/* SPDX-License-Identifier: MIT */
/* Takes batches of tiles to the GPU. */
#include "cuda/gpu_queue.h"

#include <string.h>

static const struct wcx_batch_limits *queue_limits(const struct wcx_kernels *kernels, struct wcx_batch_limits *ret)
{
	*ret = (struct wcx_batch_limits){
		.items = WCX_QUEUE_ITEMS,
		.kinds = 256,
		.tables = 512,
		.places = 2 * WCX_QUEUE_ITEMS,
		.blocks = kernels->blocks,
	};
	return ret;
}

/* Where the control is in upload. */
static size_t control_offset(size_t src_bytes)
{
	return (src_bytes + WCX_BATCH_SRC_SLACK + 15) / 16 * 16;
}

enum wcx_result wcx_gpu_queue_open(struct wcx_gpu_queue *queue, const struct wcx_kernels *kernels, size_t src_bytes,
				   size_t dst_bytes, cudaError_t *error_ret)
{
	struct wcx_batch_limits limits;
	const size_t upload_bytes = control_offset(src_bytes) + wcx_tile_batch_capacity(queue_limits(kernels, &limits));
	const size_t download_bytes = WCX_QUEUE_STATUS_BYTES + dst_bytes;

	queue->kernels = kernels;
	queue->src_bytes = src_bytes;
	queue->batch = wcx_tile_batch_create(&limits);
	*error_ret = queue->batch ? cudaSuccess : cudaErrorMemoryAllocation;
	if (!*error_ret)
		*error_ret = cudaMallocHost((void **)&queue->upload, upload_bytes);
	if (!*error_ret)
		*error_ret = cudaMallocHost((void **)&queue->download, download_bytes);
	if (*error_ret)
		return *error_ret == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
	wcx_tile_batch_clear(queue->batch);
	*error_ret = cudaMalloc((void **)&queue->upload_dev, upload_bytes);
	if (!*error_ret)
		*error_ret = cudaMalloc((void **)&queue->download_dev, download_bytes);
	if (!*error_ret)
		*error_ret = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking);
	/*
	 * What is read behind the last packed tile, and the gaps between decoded ones, which come back too: not what
	 * somebody else left in the device's memory.  In the queue's stream, so that this is over before the first batch.
	 */
	if (!*error_ret)
		*error_ret = cudaMemsetAsync(queue->upload_dev, 0, upload_bytes, queue->stream);
	if (!*error_ret)
		*error_ret = cudaMemsetAsync(queue->download_dev, 0, download_bytes, queue->stream);
	if (!*error_ret)
		*error_ret = cudaEventCreateWithFlags(&queue->done, cudaEventBlockingSync | cudaEventDisableTiming);
	return *error_ret ? WCX_DEVICE_FAILED : WCX_OK;
}

void wcx_gpu_queue_close(struct wcx_gpu_queue *queue)
{
	if (queue->done)
		cudaEventDestroy(queue->done);
	if (queue->stream)
		cudaStreamDestroy(queue->stream);
	cudaFree(queue->upload_dev);
	cudaFree(queue->download_dev);
	cudaFreeHost(queue->upload);
	cudaFreeHost(queue->download);
	wcx_tile_batch_free(queue->batch);
	*queue = (struct wcx_gpu_queue){ .kernels = NULL };
}

cudaError_t wcx_gpu_queue_submit(struct wcx_gpu_queue *queue, size_t src_bytes, uint8_t *dst, size_t dst_bytes)
{
	const size_t control = control_offset(src_bytes);
	cudaError_t error;

	queue->layout = wcx_tile_batch_finish(queue->batch);
	queue->mark += WCX_STATUS_MARK;
	memset(queue->upload + src_bytes, 0, control - src_bytes);
	wcx_tile_batch_write(queue->batch, queue->upload + control);
	error = cudaMemcpyAsync(queue->upload_dev, queue->upload, control + queue->layout->control_bytes,
				cudaMemcpyHostToDevice, queue->stream);
	if (!error)
		error = wcx_kernels_decode(queue->kernels, queue->upload_dev + control, queue->layout, queue->upload_dev,
					   dst, (uint32_t *)(void *)queue->download_dev, queue->mark, queue->stream);
	if (!error)
		error = cudaMemcpyAsync(queue->download, queue->download_dev,
					dst_bytes ? WCX_QUEUE_STATUS_BYTES + dst_bytes
						  : queue->layout->items * sizeof(uint32_t),
					cudaMemcpyDeviceToHost, queue->stream);
	return error;
}

cudaError_t wcx_gpu_queue_wait(struct wcx_gpu_queue *queue)
{
	cudaError_t error = queue->layout ? cudaEventRecord(queue->done, queue->stream) : cudaSuccess;

	if (queue->layout && !error)
		error = cudaEventSynchronize(queue->done);

	queue->layout = NULL;
	wcx_tile_batch_clear(queue->batch);
	return error;
}
