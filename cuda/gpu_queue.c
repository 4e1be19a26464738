/* SPDX-License-Identifier: MIT */
/* Runs batches of tiles on the GPU. */
#include "cuda/gpu_queue.h"

#include <string.h>

#include "codec/arith.h"

/* Offset of the control in upload. */
static size_t control_offset(size_t src_bytes)
{
	return WCX_ALIGN_UP(src_bytes + WCX_BATCH_SRC_SLACK, 16);
}

enum wcx_result wcx_gpu_queue_open(struct wcx_gpu_queue *queue, const struct wcx_kernels *kernels, size_t src_bytes,
				   size_t dst_bytes, cudaError_t *error_ret)
{
	const struct wcx_batch_limits limits = {
		.items = WCX_QUEUE_ITEMS,
		.kinds = 256,
		.tables = 512,
		.places = 2 * WCX_QUEUE_ITEMS,
		.blocks = kernels->blocks,
	};
	const size_t upload_bytes = control_offset(src_bytes) + wcx_tile_batch_capacity(&limits);
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
	 * Kernels read behind the last packed tile, and downloads include the gaps between decoded tiles: neither may show
	 * what others left in device memory.  The queue's stream orders this before the first batch.
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
	const struct wcx_kernel_job job = {
		.layout = wcx_tile_batch_finish(queue->batch),
		.control = queue->upload_dev + control,
		.src = queue->upload_dev,
		.dst = dst,
		.status = (uint32_t *)(void *)queue->download_dev,
		.mark = queue->mark + WCX_STATUS_MARK,
	};
	cudaError_t error;

	queue->layout = job.layout;
	queue->mark = job.mark;
	memset(queue->upload + src_bytes, 0, control - src_bytes);
	wcx_tile_batch_write(queue->batch, queue->upload + control);
	error = cudaMemcpyAsync(queue->upload_dev, queue->upload, control + job.layout->control_bytes,
				cudaMemcpyHostToDevice, queue->stream);
	if (!error)
		error = wcx_kernels_decode(queue->kernels, &job, queue->stream);
	if (!error)
		error = cudaMemcpyAsync(queue->download, queue->download_dev,
					dst_bytes ? WCX_QUEUE_STATUS_BYTES + dst_bytes
						  : job.layout->items * sizeof(uint32_t),
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
