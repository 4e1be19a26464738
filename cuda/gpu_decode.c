/* SPDX-License-Identifier: MIT */
/* Decodes tiles from host memory to host memory, with a fixed set of queues that callers take turns at (docs/gpu.md). */
#include "cuda/gpu_decode.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "cuda/gpu_queue.h"

enum {
	/*
	 * Copying the tiles of a queue to and from pinned memory takes a CPU core several times as long as decoding them
	 * takes the GPU: about 8 threads with a queue each keep a GPU busy.  From 4 MiB on, copies come close to the full
	 * speed of PCIe.
	 */
	QUEUE_COUNT = 8,
	QUEUE_DST_BYTES = 4 << 20,
	QUEUE_SRC_BYTES = 4 << 20, /* a coded tile is smaller than the decoded one */
	SRC_ALIGN = 16,
	DST_ALIGN = 128, /* stores fill cache lines */
};

/* A tile of the batch in a queue, and its offset in the download. */
struct taken_job {
	struct wcx_tile_job *job;
	uint32_t dst_offset;
};

struct decode_queue {
	struct wcx_gpu_queue queue;
	struct decode_queue *next_free;
	bool taken;
	uint32_t job_count, src_bytes, dst_bytes; /* of the batch */
	struct taken_job jobs[WCX_QUEUE_ITEMS];
};

struct wcx_gpu {
	struct wcx_kernels kernels;
	pthread_mutex_t lock; /* protects everything below; a taken queue belongs to its taker */
	pthread_cond_t queue_freed;
	struct decode_queue *free_queues;
	bool failed;     /* permanently: the device is not used any more */
	long calls_left; /* until a simulated failure; negative: never */
	struct decode_queue queues[QUEUE_COUNT];
};

/* Returns the runtime's error if there is no driver, no device, or no code for it. */
static cudaError_t find_device(struct wcx_kernels *kernels, char name[WCX_GPU_NAME_BYTES])
{
	struct cudaDeviceProp device;
	int number;
	cudaError_t error = cudaGetDevice(&number);

	if (!error)
		error = cudaGetDeviceProperties(&device, number);
	if (!error)
		error = wcx_kernels_open(kernels);
	if (!error)
		snprintf(name, WCX_GPU_NAME_BYTES, "%s", device.name);
	return error;
}

/* The test hook of docs/gpu.md. */
static long calls_until_failure(void)
{
	const char *text = getenv("WCX_GPU_FAIL_AFTER");

	return text ? strtol(text, NULL, 10) : -1;
}

enum wcx_result wcx_gpu_open(struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES])
{
	struct wcx_kernels kernels;
	struct wcx_gpu *gpu = NULL;
	enum wcx_result result = WCX_NO_DEVICE;
	cudaError_t error = find_device(&kernels, name);

	static_assert((int)QUEUE_SRC_BYTES >= (int)WCX_TILE_MAX_BYTES && (int)QUEUE_DST_BYTES >= (int)WCX_TILE_MAX_BYTES,
		      "any tile fits, so every batch makes progress");
	if (error)
		goto out;
	result = WCX_NO_MEMORY;
	error = cudaErrorMemoryAllocation;
	gpu = calloc(1, sizeof *gpu);
	if (!gpu)
		goto out;
	gpu->kernels = kernels;
	pthread_mutex_init(&gpu->lock, NULL);
	pthread_cond_init(&gpu->queue_freed, NULL);
	gpu->calls_left = calls_until_failure();
	for (size_t i = 0; i < QUEUE_COUNT; i++) {
		struct decode_queue *queue = &gpu->queues[i];

		result = wcx_gpu_queue_open(&queue->queue, &gpu->kernels, QUEUE_SRC_BYTES, QUEUE_DST_BYTES, &error);
		if (result != WCX_OK)
			goto out;
		queue->next_free = gpu->free_queues;
		gpu->free_queues = queue;
	}
	*ret = gpu;
	return WCX_OK;
out:
	snprintf(name, WCX_GPU_NAME_BYTES, "%s", cudaGetErrorString(error));
	wcx_gpu_free(gpu);
	return result;
}

void wcx_gpu_free(struct wcx_gpu *gpu)
{
	size_t taken = 0;

	if (!gpu)
		return;
	for (size_t i = 0; i < QUEUE_COUNT; i++) {
		taken += gpu->queues[i].taken;
		wcx_gpu_queue_close(&gpu->queues[i].queue);
	}
	assert(taken == 0);
	pthread_cond_destroy(&gpu->queue_freed);
	pthread_mutex_destroy(&gpu->lock);
	free(gpu);
}

/* For the test hook: counts a call, or makes it fail. */
static void begin_call(struct wcx_gpu *gpu)
{
	pthread_mutex_lock(&gpu->lock);
	if (gpu->calls_left == 0)
		gpu->failed = true;
	else if (gpu->calls_left > 0)
		gpu->calls_left--;
	pthread_mutex_unlock(&gpu->lock);
}

/* NULL if the GPU has failed or, without wait, if all queues are taken. */
static struct decode_queue *take_queue(struct wcx_gpu *gpu, bool wait)
{
	struct decode_queue *queue = NULL;

	pthread_mutex_lock(&gpu->lock);
	while (wait && !gpu->failed && !gpu->free_queues)
		pthread_cond_wait(&gpu->queue_freed, &gpu->lock);
	if (!gpu->failed && gpu->free_queues) {
		queue = gpu->free_queues;
		gpu->free_queues = queue->next_free;
		queue->taken = true;
	}
	pthread_mutex_unlock(&gpu->lock);
	return queue;
}

/*
 * Returns a queue once the device no longer uses its buffers, which after a failure it may still do.  If an empty stream
 * still reports an error, the device does not recover.
 */
static void give_queue(struct wcx_gpu *gpu, struct decode_queue *queue)
{
	cudaError_t error;

	if (!queue)
		return;
	cudaGetLastError();
	error = cudaStreamSynchronize(queue->queue.stream);
	wcx_gpu_queue_wait(&queue->queue, false);
	pthread_mutex_lock(&gpu->lock);
	gpu->failed |= error != cudaSuccess;
	queue->next_free = gpu->free_queues;
	queue->taken = false;
	gpu->free_queues = queue;
	if (gpu->failed)
		pthread_cond_broadcast(&gpu->queue_freed);
	else
		pthread_cond_signal(&gpu->queue_freed);
	pthread_mutex_unlock(&gpu->lock);
}

/* Adds a coded job to the batch; false if it is full.  A job that cannot be decoded gets its result at once. */
static bool add_job(struct decode_queue *queue, struct wcx_tile_job *job)
{
	const uint32_t src = WCX_ALIGN_UP(queue->src_bytes, SRC_ALIGN), dst = WCX_ALIGN_UP(queue->dst_bytes, DST_ALIGN);
	enum wcx_result result;
	bool added;

	if (job->src_bytes >= job->dst_bytes) {
		job->result = WCX_BAD_DATA; /* the result of wcx_tile_parse, but such a tile may not fit the buffer */
		return true;
	}
	if (src > QUEUE_SRC_BYTES || job->src_bytes > QUEUE_SRC_BYTES - src || dst > QUEUE_DST_BYTES ||
	    job->dst_bytes > QUEUE_DST_BYTES - dst)
		return false;
	result = wcx_tile_batch_add(queue->queue.batch, job, src, dst, &added);
	if (result != WCX_OK) {
		job->result = result;
		return true;
	}
	if (!added)
		return false;
	memcpy(queue->queue.upload + src, job->src, job->src_bytes);
	queue->jobs[queue->job_count++] = (struct taken_job){ job, dst };
	queue->src_bytes = src + (uint32_t)job->src_bytes;
	queue->dst_bytes = dst + (uint32_t)job->dst_bytes;
	return true;
}

/*
 * Submits a batch of the first jobs.  Constant and stored tiles are restored here at once: that costs less than moving them
 * over PCIe and back.  *done_ret is the number of jobs that are submitted or have a result.
 */
static cudaError_t submit_jobs(struct decode_queue *queue, struct wcx_tile_job *jobs, size_t job_count, size_t *done_ret)
{
	size_t i;

	queue->job_count = queue->src_bytes = queue->dst_bytes = 0;
	for (i = 0; i < job_count; i++) {
		const size_t tile_bytes = wcx_tile_dims_bytes(&jobs[i].dims);

		if (jobs[i].mode != WCX_TILE_CODED || !tile_bytes || jobs[i].dst_bytes != tile_bytes)
			wcx_tile_decode(&jobs[i], NULL); /* needs no scratch for these */
		else if (!add_job(queue, &jobs[i]))
			break;
	}
	*done_ret = i;
	if (!queue->job_count)
		return cudaSuccess;
	return wcx_gpu_queue_submit(&queue->queue, queue->src_bytes, queue->queue.download_dev + WCX_QUEUE_STATUS_BYTES,
				    queue->dst_bytes);
}

/* Waits for the batch and passes results and bytes on to its jobs. */
static cudaError_t collect_jobs(struct decode_queue *queue)
{
	cudaError_t error = wcx_gpu_queue_wait(&queue->queue, false);

	for (uint32_t i = 0; i < queue->job_count && !error; i++) {
		struct wcx_tile_job *job = queue->jobs[i].job;

		job->result = wcx_gpu_queue_status(&queue->queue, i);
		if (job->result == WCX_OK)
			memcpy(job->dst, queue->queue.download + WCX_QUEUE_STATUS_BYTES + queue->jobs[i].dst_offset,
			       job->dst_bytes);
	}
	return error;
}

/*
 * Runs the jobs with one queue or, whenever another is free, with two: one batch is copied in and out while the other is on
 * the device.  Never waits for the second queue, so callers cannot deadlock.
 */
static cudaError_t run_jobs(struct wcx_gpu *gpu, struct decode_queue *idle, struct wcx_tile_job *jobs, size_t job_count)
{
	struct decode_queue *busy = NULL, *swap;
	size_t next = 0, done;
	cudaError_t error = cudaSuccess;

	while (!error && (next < job_count || busy)) {
		if (next < job_count && !idle)
			idle = take_queue(gpu, false);
		if (next < job_count && idle) {
			error = submit_jobs(idle, jobs + next, job_count - next, &done);
			next += done;
			if (idle->job_count == 0)
				continue;
			swap = busy;
			busy = idle;
			idle = swap;
			if (!error && idle)
				error = collect_jobs(idle);
		} else {
			error = collect_jobs(busy);
			give_queue(gpu, idle);
			idle = busy;
			busy = NULL;
		}
	}
	give_queue(gpu, idle);
	give_queue(gpu, busy);
	return error;
}

enum wcx_result wcx_gpu_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count)
{
	struct decode_queue *queue;

	for (size_t i = 0; i < job_count; i++)
		jobs[i].result = WCX_DEVICE_FAILED;
	begin_call(gpu);
	queue = take_queue(gpu, true);
	if (!queue || run_jobs(gpu, queue, jobs, job_count))
		return WCX_DEVICE_FAILED;
	return WCX_OK;
}
