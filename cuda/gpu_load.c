/* SPDX-License-Identifier: MIT */
/* Decodes tiles from pinned buffers into device memory. */
#include "cuda/gpu_load.h"

#include <stdio.h>
#include <stdlib.h>

#include "cuda/gpu_queue.h"

struct load_queue {
	struct wcx_gpu_queue queue;
	uint8_t *stage_dev; /* NULL until first used */
	uint32_t items;     /* of the batch being filled or in flight */
};

struct wcx_gpu_loader {
	int device;
	struct wcx_kernels kernels;
	cudaEvent_t begun; /* the caller's stream has reached the start of the load */
	unsigned queue_count;
	struct load_queue queues[];
};

/* Makes the loader's device current for the thread; returns the device for leave() to restore. */
static int enter(const struct wcx_gpu_loader *loader)
{
	int before = loader->device;

	cudaGetDevice(&before);
	if (before != loader->device)
		cudaSetDevice(loader->device);
	return before;
}

static enum wcx_result leave(const struct wcx_gpu_loader *loader, int before, cudaError_t error)
{
	if (before != loader->device)
		cudaSetDevice(before);
	if (!error)
		return WCX_OK;
	cudaGetLastError();
	return WCX_DEVICE_FAILED;
}

static enum wcx_result open_queues(struct wcx_gpu_loader *loader, unsigned queue_count, cudaError_t *error_ret)
{
	enum wcx_result result = WCX_OK;

	for (; loader->queue_count < queue_count && result == WCX_OK; loader->queue_count++)
		result = wcx_gpu_queue_open(&loader->queues[loader->queue_count].queue, &loader->kernels,
					    WCX_LOAD_BUFFER_BYTES, 0, error_ret);
	return result;
}

enum wcx_result wcx_gpu_loader_open(int device, unsigned queue_count, struct wcx_gpu_loader **ret,
				    char reason[WCX_GPU_NAME_BYTES])
{
	struct wcx_gpu_loader *loader = calloc(1, sizeof *loader + queue_count * sizeof *loader->queues);
	enum wcx_result result = WCX_NO_MEMORY;
	cudaError_t error = cudaErrorMemoryAllocation;
	int before;

	if (!loader)
		goto out;
	loader->device = device;
	before = enter(loader);
	result = WCX_NO_DEVICE;
	error = cudaSetDevice(device);
	if (!error)
		error = wcx_kernels_open(&loader->kernels);
	if (!error) {
		result = WCX_DEVICE_FAILED;
		error = cudaEventCreateWithFlags(&loader->begun, cudaEventDisableTiming);
	}
	if (!error)
		result = open_queues(loader, queue_count, &error);
	leave(loader, before, error);
out:
	if (result == WCX_OK) {
		*ret = loader;
		return WCX_OK;
	}
	snprintf(reason, WCX_GPU_NAME_BYTES, "%s", cudaGetErrorString(error));
	wcx_gpu_loader_free(loader);
	return result;
}

void wcx_gpu_loader_free(struct wcx_gpu_loader *loader)
{
	int before;

	if (!loader)
		return;
	before = enter(loader);
	for (unsigned i = 0; i < loader->queue_count; i++) {
		cudaFree(loader->queues[i].stage_dev);
		wcx_gpu_queue_close(&loader->queues[i].queue);
	}
	if (loader->begun)
		cudaEventDestroy(loader->begun);
	leave(loader, before, cudaSuccess);
	free(loader);
}

enum wcx_result wcx_gpu_load_follow(struct wcx_gpu_loader *loader, void *stream)
{
	const int before = enter(loader);
	cudaError_t error = cudaEventRecord(loader->begun, (cudaStream_t)stream);

	for (unsigned i = 0; i < loader->queue_count && !error; i++)
		error = cudaStreamWaitEvent(loader->queues[i].queue.stream, loader->begun, 0);
	return leave(loader, before, error);
}

uint8_t *wcx_gpu_load_buffer(struct wcx_gpu_loader *loader, unsigned queue)
{
	return loader->queues[queue].queue.upload;
}

uint64_t wcx_gpu_load_stage(struct wcx_gpu_loader *loader, unsigned queue)
{
	struct load_queue *its = &loader->queues[queue];
	const int before = enter(loader);
	cudaError_t error = cudaSuccess;

	if (!its->stage_dev)
		error = cudaMalloc((void **)&its->stage_dev, WCX_LOAD_STAGE_BYTES);
	leave(loader, before, error);
	return error ? 0 : (uint64_t)(uintptr_t)its->stage_dev;
}

enum wcx_result wcx_gpu_load_add(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_tile_job *job, uint64_t dst,
				 bool *added_ret)
{
	struct load_queue *its = &loader->queues[queue];
	const enum wcx_result result =
		wcx_tile_batch_add(its->queue.batch, job, (uint32_t)(job->src - its->queue.upload), dst, added_ret);

	its->items += result == WCX_OK && *added_ret;
	return result;
}

enum wcx_result wcx_gpu_load_submit(struct wcx_gpu_loader *loader, unsigned queue, size_t src_bytes)
{
	const int before = enter(loader);

	return leave(loader, before, wcx_gpu_queue_submit(&loader->queues[queue].queue, src_bytes, NULL, 0));
}

enum wcx_result wcx_gpu_load_copy(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_load_copy *copy)
{
	struct load_queue *its = &loader->queues[queue];
	const uint8_t *src = (copy->staged ? its->stage_dev : its->queue.upload_dev) + copy->src;
	void *dst = (void *)(uintptr_t)copy->dst;
	const int before = enter(loader);
	cudaError_t error;

	if (copy->rows == 1)
		error = cudaMemcpyAsync(dst, src, copy->row_bytes, cudaMemcpyDeviceToDevice, its->queue.stream);
	else
		error = cudaMemcpy2DAsync(dst, copy->dst_pitch, src, copy->src_pitch, copy->row_bytes, copy->rows,
					  cudaMemcpyDeviceToDevice, its->queue.stream);
	return leave(loader, before, error);
}

enum wcx_result wcx_gpu_load_fill(struct wcx_gpu_loader *loader, unsigned queue, uint64_t dst, uint8_t value, size_t bytes)
{
	struct wcx_gpu_queue *its = &loader->queues[queue].queue;
	const int before = enter(loader);
	cudaError_t error = cudaMemsetAsync((void *)(uintptr_t)dst, value, bytes, its->stream);

	return leave(loader, before, error);
}

enum wcx_result wcx_gpu_load_wait(struct wcx_gpu_loader *loader, unsigned queue, uint32_t *failed_ret)
{
	struct load_queue *its = &loader->queues[queue];
	const int before = enter(loader);
	const uint32_t items = its->items;
	enum wcx_result result = leave(loader, before, wcx_gpu_queue_wait(&its->queue));

	its->items = 0;
	for (uint32_t i = 0; i < items && result == WCX_OK; i++) {
		result = wcx_gpu_queue_status(&its->queue, i);
		*failed_ret = i;
	}
	return result;
}
