/* SPDX-License-Identifier: MIT */
/* Runs batches of tiles on the GPU. */
#include "cuda/gpu_queue.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "codec/arith.h"

enum {
	POLL_NS = 2000000, /* longer than the copies of all threads take together */
	PAUSE_NS = 50000,
	NAP_NS = 20000, /* and 35 for a KiB of packed tiles: less than a batch takes */
	NAP_NS_PER_KIB = 35,
	NAP_AGAIN_NS = 25000, /* a sixteenth longer each time */
	NAP_MAX_NS = 1000000,
	BASE_MAX_MS = 100000, /* as old may the base of the clock be: CUDA tells such times as floats */
};

/* Offset of the control in upload. */
static size_t control_offset(size_t src_bytes)
{
	return WCX_ALIGN_UP(src_bytes + WCX_BATCH_SRC_SLACK, 16);
}

/* The same of the checks, behind the control. */
static size_t checks_offset(size_t control_end)
{
	return WCX_ALIGN_UP(control_end, 16);
}

static cudaError_t start_clock(struct wcx_gpu_queue *queue)
{
	cudaError_t error = cudaEventCreate(&queue->base);

	if (!error)
		error = cudaEventRecord(queue->base, queue->stream);
	if (!error)
		error = cudaEventSynchronize(queue->base);
	queue->clock.base_ns = queue->clock.seen_ns = wcx_gpu_clock_now();
	return error;
}

enum wcx_result wcx_gpu_queue_open(struct wcx_gpu_queue *queue, const struct wcx_kernels *kernels, size_t src_bytes,
				   cudaError_t *error_ret)
{
	const struct wcx_batch_limits limits = {
		.items = WCX_QUEUE_ITEMS,
		.kinds = 256,
		.tables = 512,
		.places = 2 * WCX_QUEUE_ITEMS,
		.blocks = kernels->blocks,
		.carrier_tables = kernels->carrier_tables,
	};
	const size_t upload_bytes = checks_offset(control_offset(src_bytes) + wcx_tile_batch_capacity(&limits)) +
				    WCX_QUEUE_ITEMS * sizeof *queue->checks;
	const size_t statuses_dev_bytes = queue->statuses_to_host ? 0 : WCX_QUEUE_STATUS_BYTES;

	queue->kernels = kernels;
	queue->src_bytes = src_bytes;
	queue->device_bytes = upload_bytes + statuses_dev_bytes;
	queue->pinned_bytes = (queue->upload_is_pageable ? 0 : upload_bytes) + WCX_QUEUE_STATUS_BYTES;
	queue->batch = wcx_tile_batch_create(&limits);
	queue->checks = calloc(WCX_QUEUE_ITEMS, sizeof *queue->checks);
	if (queue->upload_is_pageable)
		queue->upload = malloc(upload_bytes);
	*error_ret = queue->batch && queue->checks && (queue->upload || !queue->upload_is_pageable)
			     ? cudaSuccess
			     : cudaErrorMemoryAllocation;
	if (!*error_ret && !queue->upload)
		*error_ret = cudaMallocHost((void **)&queue->upload, upload_bytes);
	if (!*error_ret)
		*error_ret = cudaMallocHost((void **)&queue->statuses, WCX_QUEUE_STATUS_BYTES);
	if (*error_ret)
		return *error_ret == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
	wcx_tile_batch_clear(queue->batch);
	*error_ret = cudaMalloc((void **)&queue->upload_dev, upload_bytes);
	queue->src_dev = queue->upload_dev;
	if (!*error_ret && statuses_dev_bytes)
		*error_ret = cudaMalloc((void **)&queue->statuses_dev, statuses_dev_bytes);
	if (!*error_ret)
		*error_ret = cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking); /* of the lowest priority */
	/* Kernels read behind the last packed tile.  The queue's stream orders this before the first batch. */
	if (!*error_ret)
		*error_ret = cudaMemsetAsync(queue->upload_dev, 0, upload_bytes, queue->stream);
	if (!*error_ret && statuses_dev_bytes)
		*error_ret = cudaMemsetAsync(queue->statuses_dev, 0, statuses_dev_bytes, queue->stream);
	if (!*error_ret)
		*error_ret =
			cudaEventCreateWithFlags(&queue->done, queue->is_timed ? cudaEventDefault : cudaEventDisableTiming);
	if (!*error_ret && queue->is_timed)
		*error_ret = start_clock(queue);
	return *error_ret ? WCX_DEVICE_FAILED : WCX_OK;
}

void wcx_gpu_queue_close(struct wcx_gpu_queue *queue)
{
	if (queue->base)
		cudaEventDestroy(queue->base);
	if (queue->done)
		cudaEventDestroy(queue->done);
	if (queue->stream)
		cudaStreamDestroy(queue->stream);
	cudaFree(queue->upload_dev);
	cudaFree(queue->statuses_dev);
	if (queue->upload_is_pageable)
		free(queue->upload);
	else
		cudaFreeHost(queue->upload);
	cudaFreeHost(queue->statuses);
	wcx_tile_batch_free(queue->batch);
	free(queue->checks);
	*queue = (struct wcx_gpu_queue){ .kernels = NULL };
}

/* Copies [first, end) of the host's memory to the same place of upload_dev. */
static cudaError_t upload(const struct wcx_gpu_queue *queue, const uint8_t *host, size_t first, size_t end)
{
	return cudaMemcpyAsync(queue->upload_dev + first, host + first, end - first, cudaMemcpyHostToDevice, queue->stream);
}

/* Starts the checks, which may run beside the kernels that decode: they write other statuses. */
static cudaError_t check(const struct wcx_gpu_queue *queue, const struct wcx_kernel_job *decode, const uint8_t *checks_dev)
{
	const struct wcx_checksum_job job = {
		.checks = (const struct wcx_tile_check *)(const void *)checks_dev,
		.count = queue->check_count,
		.src = decode->src,
		.status = decode->status + decode->layout->items,
		.mark = decode->mark,
		.overlaps = queue->kernels->overlap && decode->layout->launch_count > 0,
	};

	return wcx_checksums_compute(&job, queue->stream);
}

cudaError_t wcx_gpu_queue_submit(struct wcx_gpu_queue *queue, const struct wcx_packed_tiles *packed, size_t src_bytes,
				 const struct wcx_returned_tiles *returned)
{
	const size_t control = control_offset(src_bytes);
	const struct wcx_kernel_job job = {
		.layout = wcx_tile_batch_finish(queue->batch),
		.control = queue->upload_dev + control,
		.src = queue->src_dev,
		.status = (uint32_t *)(void *)(queue->statuses_to_host ? queue->statuses : queue->statuses_dev),
		.mark = queue->mark + WCX_STATUS_MARK,
	};
	const size_t checks = checks_offset(control + job.layout->control_bytes);
	const size_t end = checks + queue->check_count * sizeof *queue->checks;
	const bool is_one_copy = packed && end <= packed->bytes;
	uint8_t *host = is_one_copy ? packed->pinned : queue->upload;
	cudaError_t error = cudaSuccess;

	queue->is_used = true;
	queue->submitted_bytes = src_bytes;
	queue->mark = job.mark;
	queue->first_check = job.layout->items;
	memset(host + src_bytes, 0, control - src_bytes);
	wcx_tile_batch_write(queue->batch, host + control);
	memcpy(host + checks, queue->checks, end - checks);
	if (packed && !is_one_copy)
		error = upload(queue, packed->pinned, packed->first, src_bytes);
	if (!error)
		error = upload(queue, host, !packed ? 0 : is_one_copy ? packed->first : src_bytes, end);
	if (!error)
		error = wcx_kernels_decode(queue->kernels, &job, queue->stream);
	if (!error)
		error = check(queue, &job, queue->upload_dev + checks);
	if (!error && !queue->statuses_to_host)
		error = cudaMemcpyAsync(queue->statuses, queue->statuses_dev,
					(job.layout->items + queue->check_count) * sizeof(uint32_t), cudaMemcpyDeviceToHost,
					queue->stream);
	if (!error && returned && returned->bytes)
		error = cudaMemcpyAsync(returned->host, returned->dev, returned->bytes, cudaMemcpyDeviceToHost,
					queue->stream);
	if (!error && queue->is_timed) {
		error = cudaEventRecord(queue->done, queue->stream);
		queue->submitted_ns = wcx_gpu_clock_now();
	}
	return error;
}

static void sleep_ns(long ns)
{
	const struct timespec pause = { .tv_nsec = ns };

	nanosleep(&pause, NULL);
}

cudaError_t wcx_gpu_event_poll(cudaEvent_t event)
{
	cudaError_t error = cudaEventQuery(event);
	const int64_t begin = error == cudaErrorNotReady ? wcx_gpu_clock_now() : 0;

	while (error == cudaErrorNotReady) {
		if (wcx_gpu_clock_now() - begin < POLL_NS)
			sched_yield(); /* another thread may have more to do than this one */
		else
			sleep_ns(PAUSE_NS);
		error = cudaEventQuery(event);
	}
	if (begin)
		cudaGetLastError(); /* "not ready" is remembered like an error */
	return error;
}

/*
 * With few wake-ups.  An event that wakes the thread (cudaEventBlockingSync) costs an interrupt, and of sixteen threads that
 * wait for their own, each learns of it 1.4 ms late on average; by asking, half a millisecond.
 */
cudaError_t wcx_gpu_queue_sleep(const struct wcx_gpu_queue *queue)
{
	static _Thread_local bool is_punctual;
	const int64_t expected_ns = queue->submitted_ns + NAP_NS + (int64_t)(queue->submitted_bytes >> 10) * NAP_NS_PER_KIB;
	const int64_t early_ns = expected_ns - wcx_gpu_clock_now();
	cudaError_t error;

	if (!is_punctual)
		prctl(PR_SET_TIMERSLACK, 1000UL); /* else sleeps take 50 us longer */
	is_punctual = true;
	if (early_ns > 0)
		sleep_ns((long)WCX_MIN(early_ns, (int64_t)NAP_MAX_NS));
	error = cudaEventQuery(queue->done);
	for (long ns = NAP_AGAIN_NS; error == cudaErrorNotReady; ns = WCX_MIN(ns + ns / 16, NAP_MAX_NS)) {
		cudaGetLastError(); /* "not ready" is remembered like an error */
		sleep_ns(ns);
		error = cudaEventQuery(queue->done);
	}
	return error;
}

/* Notes when the device was done, for which the thread has just waited.  A done event takes the place of an old base. */
static void note_done(struct wcx_gpu_queue *queue)
{
	const int64_t now_ns = wcx_gpu_clock_now();
	const cudaEvent_t base = queue->base;
	float since_base_ms;

	queue->done_ns = now_ns;
	if (cudaEventElapsedTime(&since_base_ms, base, queue->done)) {
		cudaGetLastError();
		return;
	}
	queue->done_ns = wcx_gpu_clock_reached(&queue->clock, (int64_t)((double)since_base_ms * 1e6), now_ns);
	if (since_base_ms < BASE_MAX_MS)
		return;
	queue->base = queue->done;
	queue->done = base;
	queue->clock.base_ns = queue->done_ns;
}

cudaError_t wcx_gpu_queue_wait(struct wcx_gpu_queue *queue)
{
	cudaError_t error = queue->is_used && !queue->is_timed ? cudaEventRecord(queue->done, queue->stream) : cudaSuccess;

	if (queue->is_used && !error)
		error = queue->is_timed ? wcx_gpu_queue_sleep(queue) : wcx_gpu_event_poll(queue->done);
	if (queue->is_used && !error && queue->is_timed)
		note_done(queue);
	queue->is_used = false;
	wcx_tile_batch_clear(queue->batch);
	queue->check_count = 0;
	return error;
}
