/* SPDX-License-Identifier: MIT */
/* Decodes tiles from pinned buffers into device memory. */
#include "cuda/gpu_load.h"

#include <stdio.h>
#include <stdlib.h>

#include "cuda/gpu_queue.h"

enum {
	QUEUE_ALIGN = 256,
	QUEUE_SLACK = (int)WCX_BATCH_SRC_SLACK + QUEUE_ALIGN, /* behind the packed tiles of a queue */
};

_Static_assert((int)QUEUE_SLACK - (int)QUEUE_ALIGN >= (int)WCX_BATCH_SRC_SLACK, "kernels may read this much");

struct load_queue {
	struct wcx_gpu_queue queue;
	uint8_t *stage_dev; /* NULL until first used */
	uint32_t items;     /* of the batch being filled or in flight */
	bool is_submitted;
};

struct load_buffer {
	uint8_t *bytes;
	cudaEvent_t sent; /* the last copy from it */
};

struct wcx_gpu_loader {
	int device;
	struct wcx_kernels kernels;
	cudaEvent_t begun;   /* the caller's stream has reached the start of the load */
	uint8_t *memory_dev; /* for the packed tiles of all queues */
	size_t memory_bytes;
	unsigned queue_count, buffer_count;
	struct load_queue *queues;
	struct load_buffer *buffers;
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

	for (; loader->queue_count < queue_count && result == WCX_OK; loader->queue_count++) {
		struct wcx_gpu_queue *queue = &loader->queues[loader->queue_count].queue;

		result = wcx_gpu_queue_open(queue, &loader->kernels, 0, error_ret);
	}
	if (result != WCX_OK)
		return result;
	loader->memory_bytes = (size_t)queue_count * (WCX_LOAD_QUEUE_BYTES + QUEUE_SLACK);
	*error_ret = cudaMalloc((void **)&loader->memory_dev, loader->memory_bytes);
	if (!*error_ret) /* kernels read behind the last packed tile: not what others left */
		*error_ret = cudaMemset(loader->memory_dev, 0, loader->memory_bytes);
	if (!*error_ret) /* the queues' streams do not wait for the default stream */
		*error_ret = cudaStreamSynchronize(NULL);
	return *error_ret ? WCX_DEVICE_FAILED : WCX_OK;
}

static enum wcx_result open_buffers(struct wcx_gpu_loader *loader, unsigned buffer_count, cudaError_t *error_ret)
{
	for (; loader->buffer_count < buffer_count && !*error_ret; loader->buffer_count++) {
		struct load_buffer *buffer = &loader->buffers[loader->buffer_count];

		*error_ret = cudaMallocHost((void **)&buffer->bytes, WCX_LOAD_BUFFER_BYTES);
		if (!*error_ret)
			*error_ret = cudaEventCreateWithFlags(&buffer->sent, cudaEventDisableTiming);
	}
	if (!*error_ret)
		return WCX_OK;
	return *error_ret == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
}

static enum wcx_result open_device(struct wcx_gpu_loader *loader, unsigned buffer_count, unsigned queue_count,
				   cudaError_t *error_ret)
{
	enum wcx_result result;

	*error_ret = cudaSetDevice(loader->device);
	if (!*error_ret)
		*error_ret = wcx_kernels_open(&loader->kernels);
	if (*error_ret)
		return WCX_NO_DEVICE;
	*error_ret = cudaEventCreateWithFlags(&loader->begun, cudaEventDisableTiming);
	if (*error_ret)
		return WCX_DEVICE_FAILED;
	result = open_queues(loader, queue_count, error_ret);
	return result == WCX_OK ? open_buffers(loader, buffer_count, error_ret) : result;
}

enum wcx_result wcx_gpu_loader_open(int device, unsigned buffer_count, unsigned queue_count, struct wcx_gpu_loader **ret,
				    char reason[WCX_GPU_NAME_BYTES])
{
	struct wcx_gpu_loader *loader = calloc(1, sizeof *loader);
	enum wcx_result result = WCX_NO_MEMORY;
	cudaError_t error = cudaErrorMemoryAllocation;

	if (loader) {
		loader->device = device;
		loader->queues = calloc(queue_count, sizeof *loader->queues);
		loader->buffers = calloc(buffer_count, sizeof *loader->buffers);
	}
	if (loader && loader->queues && loader->buffers) {
		const int before = enter(loader);

		result = open_device(loader, buffer_count, queue_count, &error);
		leave(loader, before, error);
	}
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
	for (unsigned i = 0; i < loader->buffer_count; i++) {
		if (loader->buffers[i].sent)
			cudaEventDestroy(loader->buffers[i].sent);
		cudaFreeHost(loader->buffers[i].bytes);
	}
	cudaFree(loader->memory_dev);
	if (loader->begun)
		cudaEventDestroy(loader->begun);
	leave(loader, before, cudaSuccess);
	free(loader->queues);
	free(loader->buffers);
	free(loader);
}

size_t wcx_gpu_load_queue_bytes(const struct wcx_gpu_loader *loader, unsigned queue_count)
{
	return loader->memory_bytes / queue_count / QUEUE_ALIGN * QUEUE_ALIGN - QUEUE_SLACK;
}

enum wcx_result wcx_gpu_load_begin(struct wcx_gpu_loader *loader, unsigned queue_count, void *stream)
{
	const size_t pitch = wcx_gpu_load_queue_bytes(loader, queue_count) + QUEUE_SLACK;
	const int before = enter(loader);
	cudaError_t error = cudaEventRecord(loader->begun, (cudaStream_t)stream);

	for (unsigned i = 0; i < queue_count && !error; i++) {
		loader->queues[i].queue.src_dev = loader->memory_dev + i * pitch;
		error = cudaStreamWaitEvent(loader->queues[i].queue.stream, loader->begun, 0);
	}
	return leave(loader, before, error);
}

uint8_t *wcx_gpu_load_buffer(struct wcx_gpu_loader *loader, unsigned buffer)
{
	const int before = enter(loader);
	const cudaError_t error = wcx_gpu_event_poll(loader->buffers[buffer].sent);

	return leave(loader, before, error) == WCX_OK ? loader->buffers[buffer].bytes : NULL;
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

bool wcx_gpu_load_takes(const struct wcx_gpu_loader *loader, const struct wcx_recipe *recipe)
{
	const struct wcx_batch_limits limits = { .carrier_tables = loader->kernels.carrier_tables };

	return wcx_tile_batch_takes(&limits, recipe);
}

enum wcx_result wcx_gpu_load_add(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_tile_job *job,
				 const struct wcx_load_places *places, bool *added_ret)
{
	struct load_queue *its = &loader->queues[queue];
	const struct wcx_tile_places of_batch = { (uint32_t)places->at, places->dst, places->base, places->takes_base };
	const enum wcx_result result = wcx_tile_batch_add(its->queue.batch, job, &of_batch, added_ret);

	its->items += result == WCX_OK && *added_ret;
	return result;
}

void wcx_gpu_load_check(struct wcx_gpu_loader *loader, unsigned queue, size_t at, size_t bytes, uint32_t checksum)
{
	wcx_gpu_queue_check(&loader->queues[queue].queue, (uint32_t)at, (uint32_t)bytes, checksum);
}

static cudaError_t send(struct load_queue *its, const uint8_t *src, size_t bytes, size_t at)
{
	its->queue.is_used = true;
	return cudaMemcpyAsync(its->queue.src_dev + at, src, bytes, cudaMemcpyHostToDevice, its->queue.stream);
}

enum wcx_result wcx_gpu_load_send(struct wcx_gpu_loader *loader, unsigned queue, unsigned buffer, size_t bytes, size_t at)
{
	const int before = enter(loader);
	struct load_queue *its = &loader->queues[queue];
	struct load_buffer *from = &loader->buffers[buffer];
	cudaError_t error = send(its, from->bytes, bytes, at);

	if (!error)
		error = cudaEventRecord(from->sent, its->queue.stream);
	return leave(loader, before, error);
}

enum wcx_result wcx_gpu_load_send_pinned(struct wcx_gpu_loader *loader, unsigned queue, const uint8_t *src, size_t bytes,
					 size_t at)
{
	const int before = enter(loader);

	return leave(loader, before, send(&loader->queues[queue], src, bytes, at));
}

enum wcx_result wcx_gpu_load_submit(struct wcx_gpu_loader *loader, unsigned queue)
{
	struct load_queue *its = &loader->queues[queue];
	const int before = enter(loader);

	its->is_submitted = true;
	return leave(loader, before, wcx_gpu_queue_submit(&its->queue, NULL, 0, NULL));
}

enum wcx_result wcx_gpu_load_copy(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_load_copy *copy)
{
	struct load_queue *its = &loader->queues[queue];
	const uint8_t *src = (copy->staged ? its->stage_dev : its->queue.src_dev) + copy->src;
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

enum wcx_result wcx_gpu_load_wait(struct wcx_gpu_loader *loader, unsigned queue, struct wcx_load_failure *failed_ret)
{
	struct load_queue *its = &loader->queues[queue];
	const int before = enter(loader);
	const uint32_t items = its->is_submitted ? its->items : 0;
	const uint32_t checks = its->is_submitted ? its->queue.check_count : 0;
	enum wcx_result result = leave(loader, before, wcx_gpu_queue_wait(&its->queue));

	its->items = 0;
	its->is_submitted = false;
	for (uint32_t i = 0; i < checks && result == WCX_OK; i++) {
		result = wcx_gpu_queue_check_status(&its->queue, i);
		*failed_ret = (struct wcx_load_failure){ true, i };
	}
	for (uint32_t i = 0; i < items && result == WCX_OK; i++) {
		result = wcx_gpu_queue_status(&its->queue, i);
		*failed_ret = (struct wcx_load_failure){ false, i };
	}
	return result;
}

/* --- pinned memory --- */

enum wcx_result wcx_gpu_pin(int device, void *memory, size_t bytes, char reason[WCX_GPU_NAME_BYTES])
{
	const struct wcx_gpu_loader on = { .device = device };
	const int before = enter(&on);
	cudaError_t error = cudaSetDevice(device);
	enum wcx_result result = error ? WCX_NO_DEVICE : WCX_OK;

	if (!error)
		error = cudaHostRegister(memory, bytes, cudaHostRegisterPortable);
	leave(&on, before, error);
	if (!error)
		return WCX_OK;
	snprintf(reason, WCX_GPU_NAME_BYTES, "%s", cudaGetErrorString(error));
	return result == WCX_OK ? WCX_NO_MEMORY : result;
}

void wcx_gpu_unpin(int device, void *memory)
{
	const struct wcx_gpu_loader on = { .device = device };
	const int before = enter(&on);

	leave(&on, before, cudaHostUnregister(memory));
}
