/* SPDX-License-Identifier: MIT */
/* Decodes tiles from host memory to host memory, with a fixed set of queues that callers take turns at (docs/gpu.md). */
#include "cuda/gpu_decode.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "codec/arith.h"
#include "codec/stream_copy.h"
#include "cuda/gpu_queue.h"

enum {
	AGAIN_BYTES = 1 << 20,                  /* tiles that kernels read again after storing are few */
	LANDING_BYTES = WCX_GPU_PACKED_BYTES,   /* as many tiles as a batch has */
	QUEUE_SRC_BYTES = WCX_GPU_PACKED_BYTES, /* a coded tile is smaller than the decoded one; each may be aligned; bases
						   come on top */
	SRC_ALIGN = 16,
	SRC_UNIT = 4,      /* that packed tiles are aligned to in files */
	DST_ALIGN = 128,   /* stores fill cache lines */
	DIRECT_ALIGN = 16, /* that kernels can store to */
};

/* A tile of the batch in a queue. */
struct taken_job {
	struct wcx_tile_job *job;
	bool follows_base; /* the job before is its base */
	const uint8_t
		*landed; /* where the GPU writes it on the host; NULL: to the job's dst, or it is the base of the next job */
};

struct decode_queue {
	struct wcx_gpu *gpu; /* its owner */
	struct wcx_gpu_queue queue;
	struct decode_queue *next_free;
	uint8_t *bases_dev;     /* stands for the bases of a batch */
	uint8_t *again_dev;     /* where kernels store tiles that they read again, from its end downwards */
	bool taken, is_checked; /* is_checked: each tile of the batch has a check */
	/* Of the batch: src_first and src_bytes are the extent of the packed tiles, in upload or in the caller's memory. */
	uint32_t job_count, src_first, src_bytes;
	uint32_t again_bytes, landed_bytes; /* of again_dev; of the landing, besides */
	/*
	 * Pinned memory for tiles that cannot be stored to their dst, or NULL: from its start on what kernels write there
	 * themselves, and at its end what is copied from again_dev.
	 */
	uint8_t *landing;
	int64_t landed_ns; /* when a batch last used it, by the clock */
	cudaError_t error; /* of the device, while the batch was made */
	struct taken_job jobs[WCX_QUEUE_ITEMS];
};

struct wcx_gpu {
	int device;
	struct wcx_kernels kernels;
	atomic_ullong device_bytes, pinned_bytes;
	atomic_long pins_left; /* until a simulated refusal to pin memory; negative: never */
	pthread_mutex_t lock;  /* protects everything below; a taken queue belongs to its taker */
	pthread_cond_t queue_freed;
	struct decode_queue *free_queues;
	bool failed;     /* permanently: the device is not used any more */
	long calls_left; /* until a simulated failure; negative: never */
	unsigned queue_count;
	struct decode_queue queues[WCX_GPU_CALLS_MAX];
};

/* Returns the runtime's error if there is no driver, no device, or no code for it. */
static cudaError_t find_device(int number, struct wcx_kernels *kernels, char name[WCX_GPU_NAME_BYTES])
{
	struct cudaDeviceProp device;
	cudaError_t error = cudaSetDevice(number);

	if (!error)
		error = cudaGetDeviceProperties(&device, number);
	if (!error)
		error = wcx_kernels_open(kernels);
	if (!error)
		snprintf(name, WCX_GPU_NAME_BYTES, "%s", device.name);
	return error;
}

/* A test hook of docs/gpu.md: how many calls succeed; negative: all. */
static long calls_until_failure(const char *variable)
{
	const char *text = getenv(variable);

	return text ? strtol(text, NULL, 10) : -1;
}

/* Opens a queue, which must be closed even after failure. */
static enum wcx_result open_queue(struct wcx_gpu *gpu, struct decode_queue *queue, cudaError_t *error_ret)
{
	enum wcx_result result;

	queue->gpu = gpu;
	queue->queue.statuses_to_host = queue->queue.upload_is_pageable = queue->queue.is_timed = true;
	result = wcx_gpu_queue_open(&queue->queue, &gpu->kernels, QUEUE_SRC_BYTES, error_ret);
	if (result != WCX_OK)
		return result;
	*error_ret = cudaMalloc((void **)&queue->bases_dev, WCX_GPU_BASE_BYTES);
	if (!*error_ret)
		*error_ret = cudaMalloc((void **)&queue->again_dev, AGAIN_BYTES);
	/* What is copied from there includes gaps between tiles, which may not show what others left. */
	if (!*error_ret)
		*error_ret = cudaMemsetAsync(queue->again_dev, 0, AGAIN_BYTES, queue->queue.stream);
	if (*error_ret)
		return *error_ret == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
	queue->landing = wcx_gpu_alloc(gpu, LANDING_BYTES); /* on failure, a batch that needs it tries again */
	queue->landed_ns = wcx_gpu_clock_now();
	gpu->device_bytes += queue->queue.device_bytes + WCX_GPU_BASE_BYTES + AGAIN_BYTES;
	gpu->pinned_bytes += queue->queue.pinned_bytes;
	return WCX_OK;
}

enum wcx_result wcx_gpu_open(int device, unsigned calls, struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES])
{
	struct wcx_kernels kernels;
	struct wcx_gpu *gpu = NULL;
	enum wcx_result result = WCX_NO_DEVICE;
	cudaError_t error = find_device(device, &kernels, name);

	static_assert((int)QUEUE_SRC_BYTES >= 2 * (int)WCX_TILE_MAX_BYTES + (int)SRC_ALIGN &&
			      (int)AGAIN_BYTES >= (int)WCX_TILE_MAX_BYTES &&
			      (int)WCX_GPU_CALL_BYTES >= (int)LANDING_BYTES + (int)WCX_QUEUE_STATUS_BYTES,
		      "any tile fits, so every batch makes progress");
	if (error)
		goto out;
	result = WCX_NO_MEMORY;
	error = cudaErrorMemoryAllocation;
	gpu = calloc(1, sizeof *gpu);
	if (!gpu)
		goto out;
	gpu->device = device;
	gpu->kernels = kernels;
	pthread_mutex_init(&gpu->lock, NULL);
	pthread_cond_init(&gpu->queue_freed, NULL);
	gpu->calls_left = calls_until_failure("WCX_GPU_FAIL_AFTER");
	gpu->pins_left = calls_until_failure("WCX_GPU_PIN_FAIL_AFTER");
	while (gpu->queue_count < WCX_CLAMP(calls, 1U, (unsigned)WCX_GPU_CALLS_MAX)) {
		struct decode_queue *queue = &gpu->queues[gpu->queue_count++];

		result = open_queue(gpu, queue, &error);
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
	for (unsigned i = 0; i < gpu->queue_count; i++) {
		taken += gpu->queues[i].taken;
		cudaFree(gpu->queues[i].bases_dev);
		cudaFree(gpu->queues[i].again_dev);
		wcx_gpu_dealloc(gpu, gpu->queues[i].landing, LANDING_BYTES);
		wcx_gpu_queue_close(&gpu->queues[i].queue);
	}
	assert(taken == 0);
	pthread_cond_destroy(&gpu->queue_freed);
	pthread_mutex_destroy(&gpu->lock);
	free(gpu);
}

void wcx_gpu_unmap(struct wcx_gpu *gpu, void *memory, size_t bytes)
{
	cudaSetDevice(gpu->device);
	cudaHostUnregister(memory);
	cudaGetLastError();
	gpu->pinned_bytes -= bytes;
}

/* Whether pinning fails for a test. */
static bool is_refused(struct wcx_gpu *gpu)
{
	long left = gpu->pins_left;

	while (left > 0 && !atomic_compare_exchange_weak(&gpu->pins_left, &left, left - 1))
		;
	return left == 0;
}

bool wcx_gpu_map(struct wcx_gpu *gpu, void *memory, size_t bytes)
{
	void *seen_dev = NULL;

	/* The driver would touch the pages too, but for one thread at a time, and launches would wait for it. */
	madvise(memory, bytes, MADV_POPULATE_WRITE);
	if (is_refused(gpu) || cudaSetDevice(gpu->device) ||
	    cudaHostRegister(memory, bytes, cudaHostRegisterPortable | cudaHostRegisterMapped)) {
		cudaGetLastError();
		return false;
	}
	gpu->pinned_bytes += bytes;
	/* The kernels use the host's addresses. */
	if (cudaHostGetDevicePointer(&seen_dev, memory, 0) || seen_dev != memory) {
		wcx_gpu_unmap(gpu, memory, bytes);
		return false;
	}
	return true;
}

void *wcx_gpu_alloc(struct wcx_gpu *gpu, size_t bytes)
{
	void *memory = NULL;

	if (cudaSetDevice(gpu->device) || cudaHostAlloc(&memory, bytes, cudaHostAllocPortable | cudaHostAllocMapped)) {
		cudaGetLastError();
		return NULL;
	}
	gpu->pinned_bytes += bytes;
	return memory;
}

void wcx_gpu_dealloc(struct wcx_gpu *gpu, void *memory, size_t bytes)
{
	if (!memory)
		return;
	cudaSetDevice(gpu->device);
	cudaFreeHost(memory);
	cudaGetLastError();
	gpu->pinned_bytes -= bytes;
}

struct wcx_gpu_memory wcx_gpu_get_memory(struct wcx_gpu *gpu)
{
	return (struct wcx_gpu_memory){ gpu->device_bytes, gpu->pinned_bytes };
}

void wcx_gpu_release_idle(struct wcx_gpu *gpu, uint64_t idle_ms)
{
	const int64_t until_ns = wcx_gpu_clock_now() - (int64_t)idle_ms * 1000000;
	uint8_t *idle[WCX_GPU_CALLS_MAX];
	unsigned count = 0;

	pthread_mutex_lock(&gpu->lock);
	for (struct decode_queue *queue = gpu->free_queues; queue; queue = queue->next_free) {
		if (!queue->landing || queue->landed_ns > until_ns)
			continue;
		idle[count++] = queue->landing;
		queue->landing = NULL;
	}
	pthread_mutex_unlock(&gpu->lock);
	while (count)
		wcx_gpu_dealloc(gpu, idle[--count], LANDING_BYTES);
}

bool wcx_gpu_takes(const struct wcx_gpu *gpu, const struct wcx_recipe *recipe)
{
	const struct wcx_batch_limits limits = { .carrier_tables = gpu->kernels.carrier_tables };

	return wcx_tile_batch_takes(&limits, recipe);
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
 * Returns a queue once the device no longer uses its buffers and the memory of its jobs, which after a failure it may still
 * do.  If an empty stream still reports an error, the device does not recover.
 */
static void give_queue(struct wcx_gpu *gpu, struct decode_queue *queue, bool after_failure)
{
	cudaError_t error = cudaSuccess;

	if (!queue)
		return;
	if (after_failure) {
		cudaGetLastError();
		error = cudaStreamSynchronize(queue->queue.stream);
		wcx_gpu_queue_wait(&queue->queue);
	}
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

/*
 * Whether the kernels read little of what they have written of a tile: PCIe is too slow for reading back.  A predictor works
 * on stored residuals, and further coded fields are added to stored elements.  Kernels for differences of one format decode
 * two fields at once; the general ones undo the difference last.
 */
static bool is_written_once(const struct wcx_recipe *recipe)
{
	unsigned coded = 0;
	bool has_sets = false;

	for (unsigned f = 0; f < recipe->field_count; f++) {
		coded += recipe->fields[f].table_count != 0;
		has_sets |= recipe->fields[f].set_bits && !recipe->fields[f].has_escapes;
	}
	if (recipe->difference == WCX_DIFFERENCE_NONE)
		return coded <= 1 && recipe->predictor == WCX_PREDICT_NONE;
	return !has_sets && (recipe->elem_bytes == 1 || (recipe->elem_bytes == 2 && recipe->field_count <= 2 &&
							 recipe->difference == WCX_DIFFERENCE_FLOAT));
}

/* Whether the tile that was added last is the base of a job. */
static bool follows_base(const struct decode_queue *queue, const struct wcx_gpu_batch *batch, const struct wcx_tile_job *job)
{
	const struct wcx_tile_job *last = queue->job_count ? queue->jobs[queue->job_count - 1].job : NULL;

	return last && wcx_gpu_is_among_bases(batch, last->dst) && job->base >= last->dst &&
	       job->base + job->dst_bytes <= last->dst + last->dst_bytes;
}

enum place_kind {
	ON_DEVICE, /* among the bases */
	DIRECT,    /* at its dst */
	LANDING,
	AGAIN_DEV, /* and at the end of the landing */
};

static enum place_kind kind_of_place(const struct wcx_gpu_batch *batch, size_t number)
{
	const struct wcx_tile_job *job = &batch->jobs[number];
	const bool is_pinned = batch->dst_is_pinned && batch->dst_is_pinned[number];

	if (wcx_gpu_is_among_bases(batch, job->dst))
		return ON_DEVICE;
	if (!is_written_once(job->recipe))
		return AGAIN_DEV;
	return is_pinned && (uintptr_t)job->dst % DIRECT_ALIGN == 0 ? DIRECT : LANDING;
}

/*
 * Whether the queue has a landing.  If it was freed, it is allocated again, which takes as long as several batches.  If
 * that fails because of the device, the queue gets an error.
 */
static bool has_landing(struct decode_queue *queue)
{
	if (queue->landing)
		return true;
	queue->landing = wcx_gpu_alloc(queue->gpu, LANDING_BYTES);
	if (!queue->landing) {
		const cudaError_t error = cudaStreamQuery(queue->queue.stream);

		queue->error = error == cudaErrorNotReady ? cudaSuccess : error;
	}
	return queue->landing;
}

/* Where a tile is decoded to. */
struct place {
	const uint8_t *dst_dev, *landed;    /* for the kernels, and as in struct taken_job */
	uint32_t again_bytes, landed_bytes; /* of the queue, with this tile */
};

/* False if the queue is full. */
static bool find_place(const struct decode_queue *queue, const struct wcx_gpu_batch *batch, const struct wcx_tile_job *job,
		       enum place_kind kind, struct place *ret)
{
	const uint32_t aligned_bytes = (uint32_t)WCX_ALIGN_UP(job->dst_bytes, (size_t)DST_ALIGN);

	*ret = (struct place){ job->dst, NULL, queue->again_bytes, queue->landed_bytes };
	if (kind == ON_DEVICE) {
		ret->dst_dev = queue->bases_dev + (job->dst - batch->bases);
	} else if (kind == AGAIN_DEV) {
		ret->again_bytes += aligned_bytes;
		ret->dst_dev = queue->again_dev + AGAIN_BYTES - ret->again_bytes;
		ret->landed = queue->landing + LANDING_BYTES - ret->again_bytes;
	} else if (kind == LANDING) {
		ret->dst_dev = ret->landed = queue->landing + queue->landed_bytes;
		ret->landed_bytes += aligned_bytes;
	}
	return ret->again_bytes <= AGAIN_BYTES && ret->again_bytes + ret->landed_bytes <= LANDING_BYTES;
}

/* Adds a coded job to the batch; false if it is full.  A job that cannot be decoded gets its result at once. */
static bool add_job(struct decode_queue *queue, const struct wcx_gpu_batch *batch, size_t number)
{
	struct wcx_tile_job *job = &batch->jobs[number];
	const bool differs = job->recipe->difference != WCX_DIFFERENCE_NONE;
	const bool follows = differs && follows_base(queue, batch, job), brings_base = differs && !follows;
	const size_t src = batch->packed ? (size_t)(job->src - batch->packed) : WCX_ALIGN_UP(queue->src_bytes, SRC_ALIGN);
	const size_t base = WCX_ALIGN_UP(src + job->src_bytes, SRC_ALIGN);
	const uint8_t *base_dev = follows ? queue->bases_dev + (job->base - batch->bases) : queue->queue.upload_dev + base;
	struct wcx_tile_places places = {
		.src = (uint32_t)src,
		.base = (uint64_t)(uintptr_t)base_dev,
		.takes_base = follows, /* what is decoded as a base is for the next job alone */
	};
	const enum place_kind kind = kind_of_place(batch, number);
	struct place place;
	enum wcx_result result;
	bool added;

	/* The result of wcx_tile_parse, but such a tile may not fit the buffer; nor is there space for bases in packed. */
	if (job->src_bytes >= job->dst_bytes ||
	    (brings_base && (!job->base || batch->packed || wcx_gpu_is_among_bases(batch, job->base)))) {
		job->result = WCX_BAD_DATA;
		return true;
	}
	if ((kind == LANDING || kind == AGAIN_DEV) && !has_landing(queue)) {
		job->result = WCX_NO_MEMORY;
		return true;
	}
	if (base + (brings_base ? job->dst_bytes : 0) > QUEUE_SRC_BYTES)
		return false;
	if (!find_place(queue, batch, job, kind, &place))
		return false;
	places.dst = (uint64_t)(uintptr_t)place.dst_dev;
	result = wcx_tile_batch_add(queue->queue.batch, job, &places, &added);
	if (result != WCX_OK) {
		job->result = result;
		return true;
	}
	if (!added)
		return false;
	if (!batch->packed)
		memcpy(queue->queue.upload + src, job->src, job->src_bytes);
	if (batch->checksums) /* of every item, so both have the same numbers */
		wcx_gpu_queue_check(&queue->queue, (uint32_t)src, (uint32_t)job->src_bytes, batch->checksums[number]);
	if (!queue->job_count || src < queue->src_first)
		queue->src_first = (uint32_t)src;
	queue->jobs[queue->job_count++] = (struct taken_job){ job, follows, place.landed };
	queue->src_bytes = WCX_MAX(queue->src_bytes, (uint32_t)(src + job->src_bytes));
	queue->again_bytes = place.again_bytes;
	queue->landed_bytes = place.landed_bytes;
	if (brings_base) {
		memcpy(queue->queue.upload + base, job->base, job->dst_bytes);
		queue->src_bytes = (uint32_t)(base + job->dst_bytes);
	}
	return true;
}

/*
 * Submits a batch of the next jobs of a call.  Constant and stored tiles are restored here at once: that costs less than
 * moving them over PCIe and back.
 */
static cudaError_t submit_jobs(struct decode_queue *queue, struct wcx_gpu_call *call)
{
	const struct wcx_gpu_batch *batch = &call->batch;
	const size_t first = call->next;
	struct wcx_packed_tiles packed = { .pinned = batch->packed };
	struct wcx_returned_tiles returned = { .bytes = 0 };
	size_t src_bytes, i;
	cudaError_t error;

	queue->job_count = queue->src_first = queue->src_bytes = queue->again_bytes = queue->landed_bytes = 0;
	queue->error = cudaSuccess;
	queue->is_checked = batch->checksums != NULL;
	for (i = first; i < batch->job_count; i++) {
		struct wcx_tile_job *job = &batch->jobs[i];
		const size_t tile_bytes = wcx_tile_dims_bytes(&job->dims);

		if (job->mode != WCX_TILE_CODED || !tile_bytes || job->dst_bytes != tile_bytes)
			wcx_tile_decode(job, NULL); /* needs no scratch for these */
		else if (!add_job(queue, batch, i))
			break;
	}
	if (i < batch->job_count && queue->job_count && follows_base(queue, batch, &batch->jobs[i])) {
		queue->job_count--; /* decodes a base for the next batch, which does so again */
		i--;
	}
	call->next = i;
	if (queue->error || !queue->job_count)
		return queue->error;
	src_bytes = queue->src_bytes;
	packed.first = queue->src_first;
	if (batch->packed && first == 0 && i == batch->job_count) { /* only one control fits behind the tiles */
		src_bytes = call->packed_bytes;
		packed.bytes = WCX_GPU_PACKED_ROOM;
	}
	if (queue->again_bytes)
		returned = (struct wcx_returned_tiles){ queue->landing + LANDING_BYTES - queue->again_bytes,
							queue->again_dev + AGAIN_BYTES - queue->again_bytes,
							queue->again_bytes };
	error = wcx_gpu_queue_submit(&queue->queue, batch->packed ? &packed : NULL, src_bytes, &returned);
	if (!call->submitted_ns)
		call->submitted_ns = queue->queue.submitted_ns;
	return error;
}

/* Waits for the batch and passes results and bytes on to its jobs. */
static cudaError_t collect_jobs(struct decode_queue *queue, struct wcx_gpu_call *call)
{
	cudaError_t error = wcx_gpu_queue_wait(&queue->queue);

	call->done_ns = WCX_MAX(call->done_ns, queue->queue.done_ns);
	if (queue->again_bytes || queue->landed_bytes)
		queue->landed_ns = queue->queue.done_ns;
	for (uint32_t i = 0; i < queue->job_count && !error; i++) {
		const struct taken_job *taken = &queue->jobs[i];

		taken->job->result = wcx_gpu_queue_status(&queue->queue, i);
		if (taken->job->result == WCX_OK && queue->is_checked)
			taken->job->result = wcx_gpu_queue_check_status(&queue->queue, i);
		if (taken->job->result == WCX_OK && taken->follows_base)
			taken->job->result = queue->jobs[i - 1].job->result;
		if (taken->job->result == WCX_OK && taken->landed)
			wcx_stream_copy(taken->job->dst, taken->landed, taken->job->dst_bytes);
	}
	return error;
}

/*
 * Takes what has been submitted of a call, and runs the rest with its queue or, whenever another is free, with two: one
 * batch is copied in and out while the other is on the device.  Never waits for the second queue, so callers cannot
 * deadlock.
 */
static cudaError_t run_jobs(struct wcx_gpu *gpu, struct wcx_gpu_call *call)
{
	const bool is_submitted = call->queue && call->queue->job_count;
	struct decode_queue *busy = is_submitted ? call->queue : NULL, *idle = is_submitted ? NULL : call->queue, *swap;
	const size_t job_count = call->batch.job_count;
	cudaError_t error = call->has_failed ? cudaErrorUnknown : cudaSuccess;

	while (!error && (call->next < job_count || busy)) {
		if (call->next < job_count && !idle)
			idle = take_queue(gpu, false);
		if (call->next < job_count && idle) {
			error = submit_jobs(idle, call);
			if (idle->job_count == 0)
				continue;
			swap = busy;
			busy = idle;
			idle = swap;
			if (!error && idle)
				error = collect_jobs(idle, call);
		} else {
			error = collect_jobs(busy, call);
			if (error)
				break;
			give_queue(gpu, idle, false);
			idle = busy;
			busy = NULL;
		}
	}
	give_queue(gpu, idle, error != cudaSuccess);
	give_queue(gpu, busy, error != cudaSuccess);
	return error;
}

/*
 * How much of the caller's packed memory the tiles use.  SIZE_MAX if a coded one is not in it, or not where the kernels can
 * read it.
 */
static size_t used_bytes(const struct wcx_gpu_batch *batch)
{
	size_t used = 0;

	for (size_t i = 0; i < batch->job_count; i++) {
		const struct wcx_tile_job *job = &batch->jobs[i];
		const uintptr_t offset = (uintptr_t)job->src - (uintptr_t)batch->packed;

		if (offset < WCX_GPU_PACKED_BYTES && offset % SRC_UNIT == 0 &&
		    job->src_bytes <= WCX_GPU_PACKED_BYTES - offset)
			used = WCX_MAX(used, offset + job->src_bytes);
		else if (job->mode == WCX_TILE_CODED)
			return SIZE_MAX;
	}
	return used;
}

void wcx_gpu_start(struct wcx_gpu *gpu, const struct wcx_gpu_batch *batch, struct wcx_gpu_call *call)
{
	*call = (struct wcx_gpu_call){ *batch, batch->packed ? used_bytes(batch) : SIZE_MAX, .has_failed = true };
	if (call->packed_bytes == SIZE_MAX)
		call->batch.packed = NULL;
	for (size_t i = 0; i < batch->job_count; i++)
		batch->jobs[i].result = WCX_DEVICE_FAILED;
	begin_call(gpu);
	if (cudaSetDevice(gpu->device))
		return;
	call->queue = take_queue(gpu, true);
	if (call->queue)
		call->has_failed = submit_jobs(call->queue, call) != cudaSuccess;
}

bool wcx_gpu_wait(struct wcx_gpu *gpu, struct wcx_gpu_call *call)
{
	const struct decode_queue *queue = call->queue;

	call->has_failed |= cudaSetDevice(gpu->device) != cudaSuccess;
	if (!call->has_failed && queue->job_count)
		call->has_failed = wcx_gpu_queue_sleep(&queue->queue) != cudaSuccess;
	return call->has_failed || call->next < call->batch.job_count || queue->again_bytes || queue->landed_bytes;
}

enum wcx_result wcx_gpu_finish(struct wcx_gpu *gpu, struct wcx_gpu_call *call)
{
	call->has_failed |= cudaSetDevice(gpu->device) != cudaSuccess;
	if (run_jobs(gpu, call))
		return WCX_DEVICE_FAILED;
	if (call->batch.device_ns_ret)
		*call->batch.device_ns_ret = (uint64_t)WCX_MAX(call->done_ns - call->submitted_ns, 0);
	return WCX_OK;
}
