/* SPDX-License-Identifier: MIT */
/*
 * A GPU for the tests of loading, made of the CPU's decoder and ordinary memory, which checks the rules of cuda/gpu_load.h;
 * and calls that can be made to fail.
 *
 * The linker must be told to --wrap each function that is WRAPPED or FAKED here.
 */
#ifndef WCX_LOAD_FAKE_GPU_H
#define WCX_LOAD_FAKE_GPU_H

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "codec/arith.h"
#include "codec/tile_layout.h"
#include "cuda/gpu_load.h"
#include "fs/base/host_limits.h"
#include "fs/base/file_io.h"
#include "tests/fixtures/sample_image.h"
#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

static uint64_t seed = 2026; /* of everything random but the files; WCX_SEED replaces it */

/* --- calls that fail --- */

enum call {
	CALL_OPEN,
	CALL_FOLLOW,
	CALL_STAGE,
	CALL_ADD,
	CALL_SUBMIT,
	CALL_COPY,
	CALL_FILL,
	CALL_WAIT,
	CALL_READ,
	CALL_ALLOCATE,
	CALL_COUNT
};

/*
 * Calls are counted since rearm.  Call number `at` of the kind `failing` fails or, if meddle is set, calls that and goes on.
 * Atomics are relaxed here and in the GPU, so that they hide no race from a thread sanitizer.
 */
static struct {
	atomic_uint calls[CALL_COUNT];
	enum call failing;
	unsigned at;
	enum wcx_result result; /* of the failed call */
	void (*meddle)(void);
} trap = { .at = UINT_MAX };

static _Thread_local bool is_exempt; /* calls of this thread do not fail */

static inline void rearm(enum call failing, unsigned at, enum wcx_result result, void (*meddle)(void))
{
	for (int i = 0; i < CALL_COUNT; i++)
		atomic_store_explicit(&trap.calls[i], 0, memory_order_relaxed);
	trap.failing = failing;
	trap.at = at;
	trap.result = result;
	trap.meddle = meddle;
}

static inline void disarm(void)
{
	rearm(CALL_OPEN, UINT_MAX, WCX_OK, NULL);
}

static inline unsigned calls_of(enum call call)
{
	return atomic_load_explicit(&trap.calls[call], memory_order_relaxed);
}

static inline bool fails(enum call call)
{
	unsigned number = atomic_fetch_add_explicit(&trap.calls[call], 1, memory_order_relaxed);

	if (is_exempt || trap.at == UINT_MAX || call != trap.failing || number != trap.at)
		return false;
	if (!trap.meddle)
		return true;
	trap.meddle();
	return false;
}

/* Allocated and not freed.  Only differences count, because memory that was allocated elsewhere is freed here too. */
static atomic_long alive;

static inline void *counted(void *memory)
{
	if (memory)
		atomic_fetch_add_explicit(&alive, 1, memory_order_relaxed);
	return memory;
}

WRAPPED(void *, malloc, size_t bytes)
{
	return fails(CALL_ALLOCATE) ? NULL : counted(__real_malloc(bytes));
}

WRAPPED(void *, calloc, size_t count, size_t bytes)
{
	return fails(CALL_ALLOCATE) ? NULL : counted(__real_calloc(count, bytes));
}

WRAPPED(void *, aligned_alloc, size_t align, size_t bytes)
{
	return fails(CALL_ALLOCATE) ? NULL : counted(__real_aligned_alloc(align, bytes));
}

WRAPPED(void *, realloc, void *old, size_t bytes)
{
	void *memory = fails(CALL_ALLOCATE) ? NULL : __real_realloc(old, bytes);

	return old ? memory : counted(memory);
}

WRAPPED(void, free, void *memory)
{
	if (memory)
		atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
	__real_free(memory);
}

/* An errno that nothing else here returns. */
enum { READ_ERRNO = ENOLINK };

WRAPPED(ssize_t, wcx_read_at, int fd, void *dst, size_t bytes, uint64_t offset)
{
	return fails(CALL_READ) ? -READ_ERRNO : __real_wcx_read_at(fd, dst, bytes, offset);
}

static unsigned made_up_cores; /* 0: the real number */

WRAPPED(void, wcx_host_limits_get, struct wcx_host_limits *ret)
{
	__real_wcx_host_limits_get(ret);
	if (made_up_cores)
		ret->cores = made_up_cores;
}

/* --- the GPU --- */

/*
 * A queue records work when it is submitted, and does it when it is waited for or, in part, at any earlier call of the
 * thread that owns the queue.  So one queue may be far ahead of another.
 */
struct item {
	struct wcx_tile_job job;
	size_t src; /* in the buffer */
	uint64_t dst;
};

/* What follows a batch of items: a copy, or a fill of copy.row_bytes. */
struct step {
	struct wcx_load_copy copy;
	bool is_fill;
	uint8_t value;
};

struct queue {
	uint8_t *buffer, *sent; /* pinned, and the device's copy */
	uint8_t *stage;         /* NULL until first used */
	size_t stage_bytes;     /* used so far */
	struct wcx_decode_scratch *scratch;
	struct item *items;
	uint32_t item_count, failed; /* failed: the first item that did not decode, or item_count */
	struct step *steps;
	size_t step_count, step_capacity, steps_done;
	bool is_in_flight, is_decoded;
	size_t src_bytes;
	uint64_t checksum; /* of what was submitted */
	atomic_uint is_busy, owner;
	struct sample_random random;
};

struct wcx_gpu_loader {
	unsigned queue_count;
	struct queue queues[];
};

/* Work that is in a stream when a load begins: a copy of bytes. */
struct stream {
	uint8_t *dst;
	const uint8_t *src;
	size_t bytes;
	bool is_done;
};

enum { ITEMS_MAX = 2048, MEMORIES = 8 };

static struct {
	uint32_t items_max; /* capacity of a batch */
	atomic_uint loaders, threads;
	atomic_uint queue_count;       /* of the loader that was opened last */
	atomic_uint added, overlapped; /* items; batches submitted while the thread had another one in flight */
	struct {
		atomic_uintptr_t start, end;
	} memories[MEMORIES]; /* where loads may write */
} gpu = { .items_max = ITEMS_MAX };

static _Thread_local struct wcx_gpu_loader *last_loader; /* of the load that this thread began last */
static _Thread_local unsigned thread_number;

/* Like CHECK, but as long as the condition holds it touches no state that threads share. */
#define RULE(condition) ((condition) ? 1 : CHECK(!"a rule of cuda/gpu_load.h: " #condition))

static inline unsigned this_thread(void)
{
	if (!thread_number)
		thread_number = atomic_fetch_add_explicit(&gpu.threads, 1, memory_order_relaxed) + 1;
	return thread_number;
}

static inline void scribble(struct sample_random *random, uint8_t *dst, size_t bytes)
{
	for (; bytes >= 8; bytes -= 8, dst += 8)
		wcx_le64_write(dst, sample_next(random));
	for (; bytes > 0; bytes--)
		*dst++ = (uint8_t)sample_next(random);
}

static inline bool is_within(uint64_t at, uint64_t bytes, uint64_t start, uint64_t size)
{
	return at >= start && bytes <= size && at - start <= size - bytes;
}

/* Whether a test has registered this memory as a destination. */
static inline bool is_in_memory(uint64_t at, uint64_t bytes)
{
	for (int i = 0; i < MEMORIES; i++) {
		const uintptr_t start = atomic_load_explicit(&gpu.memories[i].start, memory_order_relaxed);
		const uintptr_t end = atomic_load_explicit(&gpu.memories[i].end, memory_order_relaxed);

		if (is_within(at, bytes, start, end - start))
			return true;
	}
	return false;
}

static inline bool is_in_stage(const struct queue *queue, uint64_t at, uint64_t bytes)
{
	return queue->stage && is_within(at, bytes, (uintptr_t)queue->stage, WCX_LOAD_STAGE_BYTES);
}

static inline void *pointer(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static inline void decode_items(struct queue *queue)
{
	memcpy(queue->sent, queue->buffer, queue->src_bytes);
	if (queue->stage)
		scribble(&queue->random, queue->stage, queue->stage_bytes);
	queue->failed = queue->item_count;
	for (uint32_t i = queue->item_count; i-- > 0;) {
		struct item *item = &queue->items[i];

		item->job.src = queue->sent + item->src;
		item->job.dst = pointer(item->dst);
		if (wcx_tile_decode(&item->job, queue->scratch) != WCX_OK)
			queue->failed = i;
	}
	queue->is_decoded = true;
}

static inline void do_step(const struct queue *queue, const struct step *step)
{
	const struct wcx_load_copy *copy = &step->copy;
	const uint8_t *src = (copy->staged ? queue->stage : queue->sent) + copy->src;

	if (step->is_fill) {
		memset(pointer(copy->dst), step->value, copy->row_bytes);
		return;
	}
	for (size_t y = 0; y < copy->rows; y++)
		memcpy(pointer(copy->dst + y * copy->dst_pitch), src + y * copy->src_pitch, copy->row_bytes);
}

static inline void do_steps(struct queue *queue, size_t most)
{
	if (!queue->is_decoded)
		decode_items(queue);
	for (; queue->steps_done < queue->step_count && most > 0; most--)
		do_step(queue, &queue->steps[queue->steps_done++]);
}

/* Begins a call for a queue.  Lets queues of this thread do some of their work. */
static inline struct queue *enter(struct wcx_gpu_loader *loader, unsigned number)
{
	struct queue *queue = &loader->queues[number];

	sample_require(number < loader->queue_count, "a queue number within the loader");
	RULE(!atomic_exchange_explicit(&queue->is_busy, 1, memory_order_relaxed));
	for (unsigned i = 0; i < loader->queue_count; i++) {
		struct queue *its = &loader->queues[i];

		if (atomic_load_explicit(&its->owner, memory_order_relaxed) != this_thread() || !its->is_in_flight)
			continue;
		if (sample_below(&its->random, 16) == 0)
			do_steps(its, (size_t)sample_below(&its->random, 4));
	}
	return queue;
}

static inline void leave(struct queue *queue)
{
	atomic_store_explicit(&queue->is_busy, 0, memory_order_relaxed);
}

/* Whether this thread has waited for the queue's last batch, and so owns the next one. */
static inline bool is_owned(struct queue *queue)
{
	return atomic_load_explicit(&queue->owner, memory_order_relaxed) == this_thread();
}

static inline void end_batch(struct queue *queue)
{
	queue->item_count = 0;
	queue->step_count = queue->steps_done = 0;
	queue->is_in_flight = queue->is_decoded = false;
}

static inline bool is_idle(const struct wcx_gpu_loader *loader)
{
	for (unsigned i = 0; i < loader->queue_count; i++)
		if (loader->queues[i].is_in_flight || loader->queues[i].item_count || loader->queues[i].is_busy)
			return false;
	return true;
}

static inline void open_queue(struct queue *queue, unsigned number)
{
	queue->buffer = __real_aligned_alloc(4096, WCX_LOAD_BUFFER_BYTES);
	queue->sent = __real_aligned_alloc(4096, WCX_LOAD_BUFFER_BYTES);
	is_exempt = true;
	queue->scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	is_exempt = false;
	queue->items = __real_calloc(ITEMS_MAX, sizeof *queue->items);
	sample_require(queue->buffer && queue->sent && queue->scratch && queue->items, "memory for a queue");
	queue->random.state = seed + number;
	scribble(&queue->random, queue->buffer, 1 << 16);
	scribble(&queue->random, queue->sent, 1 << 16);
}

FAKED(enum wcx_result, wcx_gpu_loader_open, int device, unsigned queue_count, struct wcx_gpu_loader **ret,
      char reason[WCX_GPU_NAME_BYTES])
{
	struct wcx_gpu_loader *loader;

	if (fails(CALL_OPEN) || device < 0) {
		snprintf(reason, WCX_GPU_NAME_BYTES, "made to fail");
		return device < 0 ? WCX_NO_DEVICE : trap.result;
	}
	loader = __real_calloc(1, sizeof *loader + queue_count * sizeof *loader->queues);
	sample_require(loader != NULL, "memory for a loader");
	loader->queue_count = queue_count;
	for (unsigned i = 0; i < queue_count; i++)
		open_queue(&loader->queues[i], i);
	atomic_fetch_add_explicit(&gpu.loaders, 1, memory_order_relaxed);
	atomic_store_explicit(&gpu.queue_count, queue_count, memory_order_relaxed);
	*ret = loader;
	return WCX_OK;
}

FAKED(void, wcx_gpu_loader_free, struct wcx_gpu_loader *loader)
{
	if (!loader)
		return;
	RULE(is_idle(loader));
	for (unsigned i = 0; i < loader->queue_count; i++) {
		free(loader->queues[i].buffer);
		free(loader->queues[i].sent);
		free(loader->queues[i].stage);
		free(loader->queues[i].items);
		free(loader->queues[i].steps);
		wcx_decode_scratch_free(loader->queues[i].scratch);
	}
	free(loader);
	atomic_fetch_sub_explicit(&gpu.loaders, 1, memory_order_relaxed);
}

static inline void finish_stream(struct stream *stream)
{
	if (stream && !stream->is_done)
		memcpy(stream->dst, stream->src, stream->bytes);
	if (stream)
		stream->is_done = true;
}

FAKED(enum wcx_result, wcx_gpu_load_follow, struct wcx_gpu_loader *loader, void *stream)
{
	RULE(is_idle(loader));
	for (unsigned i = 0; i < loader->queue_count; i++)
		atomic_store_explicit(&loader->queues[i].owner, 0, memory_order_relaxed);
	last_loader = loader;
	if (fails(CALL_FOLLOW))
		return trap.result;
	finish_stream(stream);
	return WCX_OK;
}

FAKED(uint8_t *, wcx_gpu_load_buffer, struct wcx_gpu_loader *loader, unsigned number)
{
	sample_require(number < loader->queue_count, "a queue number within the loader");
	return loader->queues[number].buffer;
}

FAKED(uint64_t, wcx_gpu_load_stage, struct wcx_gpu_loader *loader, unsigned number)
{
	struct queue *queue = enter(loader, number);
	const bool failed = fails(CALL_STAGE);

	RULE(is_owned(queue));
	if (!queue->stage && !failed)
		queue->stage = __real_aligned_alloc(4096, WCX_LOAD_STAGE_BYTES);
	leave(queue);
	return failed ? 0 : (uintptr_t)queue->stage;
}

/* The rules for a tile that is added. */
static inline bool is_sound_item(const struct queue *queue, const struct wcx_tile_job *job, uint64_t dst)
{
	const uintptr_t src = (uintptr_t)job->src, buffer = (uintptr_t)queue->buffer;

	return RULE(job->mode == WCX_TILE_CODED) && RULE(job->recipe->difference == WCX_DIFFERENCE_NONE) &&
	       RULE(job->recipe->elem_bytes == job->dims.elem_bytes) &&
	       RULE(job->dst_bytes == wcx_tile_dims_bytes(&job->dims)) && RULE(src % 4 == 0) &&
	       RULE(is_within(src, job->src_bytes, buffer, WCX_LOAD_BUFFER_BYTES)) &&
	       RULE(dst % (job->dims.elem_bytes == 8 ? 8 : 4) == 0) &&
	       RULE(is_in_memory(dst, job->dst_bytes) || is_in_stage(queue, dst, job->dst_bytes));
}

static inline enum wcx_result add_item(struct queue *queue, const struct wcx_tile_job *job, uint64_t dst, bool *added_ret)
{
	const size_t stage_end = (size_t)(dst + job->dst_bytes - (uintptr_t)queue->stage);
	struct wcx_tile_layout layout;
	enum wcx_result result;

	RULE(is_owned(queue) && !queue->is_in_flight);
	if (!is_sound_item(queue, job, dst))
		return WCX_DEVICE_FAILED;
	result = wcx_tile_parse(&job->dims, job->recipe, job->src, job->src_bytes, &layout);
	if (result != WCX_OK)
		return result;
	*added_ret = queue->item_count < gpu.items_max;
	if (!*added_ret)
		return WCX_OK;
	if (is_in_stage(queue, dst, 1) && stage_end > queue->stage_bytes)
		queue->stage_bytes = stage_end;
	queue->items[queue->item_count++] = (struct item){ *job, (size_t)(job->src - queue->buffer), dst };
	atomic_fetch_add_explicit(&gpu.added, 1, memory_order_relaxed);
	return WCX_OK;
}

FAKED(enum wcx_result, wcx_gpu_load_add, struct wcx_gpu_loader *loader, unsigned number, const struct wcx_tile_job *job,
      uint64_t dst, bool *added_ret)
{
	struct queue *queue = enter(loader, number);
	const enum wcx_result result = fails(CALL_ADD) ? trap.result : add_item(queue, job, dst, added_ret);

	leave(queue);
	return result;
}

/* The device may be reading the buffer even after a failure. */
FAKED(enum wcx_result, wcx_gpu_load_submit, struct wcx_gpu_loader *loader, unsigned number, size_t src_bytes)
{
	struct queue *queue = enter(loader, number);
	const bool failed = fails(CALL_SUBMIT);
	size_t behind = WCX_LOAD_BUFFER_BYTES - src_bytes;

	RULE(is_owned(queue) && !queue->is_in_flight);
	sample_require(RULE(src_bytes <= WCX_LOAD_BUFFER_BYTES), "src_bytes");
	for (uint32_t i = 0; i < queue->item_count; i++)
		RULE(is_within(queue->items[i].src, queue->items[i].job.src_bytes, 0, src_bytes));
	for (unsigned i = 0; i < loader->queue_count; i++)
		if (is_owned(&loader->queues[i]) && loader->queues[i].is_in_flight)
			atomic_fetch_add_explicit(&gpu.overlapped, 1, memory_order_relaxed);
	/* The GPU may use this part. */
	scribble(&queue->random, queue->buffer + src_bytes, behind < 256 ? behind : 256);
	queue->src_bytes = src_bytes;
	queue->checksum = wcx_checksum64(queue->buffer, src_bytes);
	queue->is_in_flight = true;
	queue->is_decoded = failed;
	queue->failed = queue->item_count;
	sched_yield();
	leave(queue);
	return failed ? trap.result : WCX_OK;
}

static inline void add_step(struct queue *queue, const struct step *step)
{
	if (queue->step_count == queue->step_capacity) {
		queue->step_capacity = queue->step_capacity ? 2 * queue->step_capacity : 64;
		queue->steps = __real_realloc(queue->steps, queue->step_capacity * sizeof *queue->steps);
		sample_require(queue->steps != NULL, "memory for steps");
	}
	queue->steps[queue->step_count++] = *step;
}

/* The rules for a copy: the queue's batch is submitted, and source and destination are valid. */
static inline bool is_sound_copy(struct queue *queue, const struct wcx_load_copy *copy)
{
	const size_t above = copy->rows - 1, src_bytes = copy->staged ? WCX_LOAD_STAGE_BYTES : queue->src_bytes;

	if (!RULE(is_owned(queue) && queue->is_in_flight) || !RULE(copy->rows > 0 && copy->row_bytes > 0) ||
	    !RULE(!copy->staged || queue->stage))
		return false;
	if (above &&
	    !RULE(copy->src_pitch >= copy->row_bytes && copy->dst_pitch >= copy->row_bytes && copy->dst_pitch <= INT32_MAX))
		return false;
	return RULE(is_within(copy->src, above * copy->src_pitch + copy->row_bytes, 0, src_bytes)) &&
	       RULE(is_in_memory(copy->dst, above * copy->dst_pitch + copy->row_bytes));
}

FAKED(enum wcx_result, wcx_gpu_load_copy, struct wcx_gpu_loader *loader, unsigned number, const struct wcx_load_copy *copy)
{
	struct queue *queue = enter(loader, number);
	const bool failed = fails(CALL_COPY);

	if (is_sound_copy(queue, copy) && !failed)
		add_step(queue, &(struct step){ .copy = *copy });
	leave(queue);
	return failed ? trap.result : WCX_OK;
}

FAKED(enum wcx_result, wcx_gpu_load_fill, struct wcx_gpu_loader *loader, unsigned number, uint64_t dst, uint8_t value,
      size_t bytes)
{
	struct queue *queue = enter(loader, number);
	const bool failed = fails(CALL_FILL);

	if (RULE(is_owned(queue) && queue->is_in_flight) && RULE(bytes > 0 && is_in_memory(dst, bytes)) && !failed)
		add_step(queue,
			 &(struct step){ .copy = { .dst = dst, .row_bytes = bytes }, .is_fill = true, .value = value });
	leave(queue);
	return failed ? trap.result : WCX_OK;
}

/* The statuses of items that were added but not submitted are undefined. */
FAKED(enum wcx_result, wcx_gpu_load_wait, struct wcx_gpu_loader *loader, unsigned number, uint32_t *failed_ret)
{
	struct queue *queue = enter(loader, number);
	enum wcx_result result = fails(CALL_WAIT) ? trap.result : WCX_OK;

	if (queue->is_in_flight) {
		do_steps(queue, SIZE_MAX);
		RULE(wcx_checksum64(queue->buffer, queue->src_bytes) == queue->checksum);
		scribble(&queue->random, queue->buffer, queue->src_bytes);
	} else {
		queue->failed = 0;
	}
	if (result == WCX_OK && queue->failed < queue->item_count) {
		*failed_ret = queue->failed;
		result = WCX_BAD_DATA;
	}
	end_batch(queue);
	atomic_store_explicit(&queue->owner, this_thread(), memory_order_relaxed);
	leave(queue);
	return result;
}

#endif
