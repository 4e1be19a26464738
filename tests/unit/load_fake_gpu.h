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
#include <sys/mman.h>
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
	CALL_BEGIN,
	CALL_BUFFER,
	CALL_STAGE,
	CALL_ADD,
	CALL_SEND,
	CALL_SEND_PINNED,
	CALL_SUBMIT,
	CALL_COPY,
	CALL_FILL,
	CALL_WAIT,
	CALL_PIN,
	CALL_READ,
	CALL_MAP,
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

WRAPPED(void *, mmap64, void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return fails(CALL_MAP) ? MAP_FAILED : counted(__real_mmap64(address, bytes, protection, flags, fd, offset));
}

WRAPPED(int, munmap, void *address, size_t bytes)
{
	atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
	return __real_munmap(address, bytes);
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
 * A queue records what it is told to do, and does it when it is waited for or, in part, at any earlier call of the thread
 * that owns the queue.  So one queue may be far ahead of another.
 */
struct item {
	struct wcx_tile_job job;
	struct wcx_load_places places;
};

/* Packed bytes in the queue's memory whose checksum is compared. */
struct check {
	size_t at, bytes;
	uint32_t checksum;
};

enum { NO_BUFFER = -1, TRANSFERS_MAX = 2 * 1024 };

/* A copy to the queue's memory. */
struct transfer {
	const uint8_t *src;
	size_t bytes, at;
	int buffer;        /* from which it is, or NO_BUFFER */
	uint64_t checksum; /* of what was sent */
};

/* What follows a batch of items: a copy, or a fill of copy.row_bytes. */
struct step {
	struct wcx_load_copy copy;
	bool is_fill;
	uint8_t value;
};

struct buffer {
	uint8_t *bytes;
	atomic_uint is_pending; /* a copy from it has not been done */
	atomic_uint owner;      /* the thread that got it last */
};

struct queue {
	uint8_t *sent; /* the queue's memory */
	struct transfer *transfers;
	size_t transfer_count, transfers_done;
	uint8_t *stage;     /* NULL until first used */
	size_t stage_bytes; /* used so far */
	struct wcx_decode_scratch *scratch;
	struct item *items;
	uint32_t item_count, failed; /* failed: the first item that did not decode, or item_count */
	struct check *checks;
	uint32_t check_count, failed_check; /* in the same way */
	struct step *steps;
	size_t step_count, step_capacity, steps_done;
	bool is_in_flight, is_decoded; /* is_in_flight: submitted */
	size_t sent_end;               /* of what was sent */
	atomic_uint is_busy, owner;
	struct sample_random random;
};

struct wcx_gpu_loader {
	unsigned queue_count, buffer_count;
	unsigned used_queues; /* by the last load, with memory of queue_bytes */
	size_t queue_bytes;
	struct buffer *buffers;
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
	atomic_uint differences;       /* of the items */
	bool takes_no_differences;
	struct {
		atomic_uintptr_t start, end;
	} memories[MEMORIES]; /* where loads may write */
	struct {
		atomic_uintptr_t start, end;
	} pinned[MEMORIES];
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

static inline bool is_pinned(uint64_t at, uint64_t bytes)
{
	for (int i = 0; i < MEMORIES; i++) {
		const uintptr_t start = atomic_load_explicit(&gpu.pinned[i].start, memory_order_relaxed);
		const uintptr_t end = atomic_load_explicit(&gpu.pinned[i].end, memory_order_relaxed);

		if (start && is_within(at, bytes, start, end - start))
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

/* Does the next transfer of a queue.  Nobody may have changed the source since it was sent. */
static inline void do_transfer(struct wcx_gpu_loader *loader, struct queue *queue)
{
	struct transfer *transfer = &queue->transfers[queue->transfers_done++];

	memcpy(queue->sent + transfer->at, transfer->src, transfer->bytes);
	RULE(wcx_checksum64(queue->sent + transfer->at, transfer->bytes) == transfer->checksum);
	if (transfer->buffer != NO_BUFFER)
		atomic_store_explicit(&loader->buffers[transfer->buffer].is_pending, 0, memory_order_relaxed);
}

static inline void do_transfers(struct wcx_gpu_loader *loader, struct queue *queue)
{
	while (queue->transfers_done < queue->transfer_count)
		do_transfer(loader, queue);
}

/* Decodes the items of a queue that are differences, or the others. */
static inline void decode_some(struct queue *queue, bool differences)
{
	for (uint32_t i = queue->item_count; i-- > 0;) {
		struct item *item = &queue->items[i];

		if ((item->job.recipe->difference != WCX_DIFFERENCE_NONE) != differences)
			continue;
		item->job.src = queue->sent + item->places.at;
		item->job.dst = pointer(item->places.dst);
		item->job.base = pointer(item->places.base);
		if (wcx_tile_decode(&item->job, queue->scratch) != WCX_OK)
			queue->failed = WCX_MIN(queue->failed, i);
	}
}

static inline void decode_items(struct wcx_gpu_loader *loader, struct queue *queue)
{
	do_transfers(loader, queue);
	if (queue->stage)
		scribble(&queue->random, queue->stage, queue->stage_bytes);
	queue->failed = queue->item_count;
	decode_some(queue, false);
	decode_some(queue, true);
	queue->failed_check = 0;
	while (queue->failed_check < queue->check_count) {
		const struct check *check = &queue->checks[queue->failed_check];

		if (wcx_checksum32(queue->sent + check->at, check->bytes) != check->checksum)
			break;
		queue->failed_check++;
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

static inline void do_steps(struct wcx_gpu_loader *loader, struct queue *queue, size_t most)
{
	if (!queue->is_decoded)
		decode_items(loader, queue);
	for (; queue->steps_done < queue->step_count && most > 0; most--)
		do_step(queue, &queue->steps[queue->steps_done++]);
}

/* Begins a call for a queue.  Lets queues of this thread do some of their work. */
static inline struct queue *enter(struct wcx_gpu_loader *loader, unsigned number)
{
	struct queue *queue = &loader->queues[number];

	sample_require(number < loader->used_queues, "the number of a queue that is used");
	RULE(!atomic_exchange_explicit(&queue->is_busy, 1, memory_order_relaxed));
	for (unsigned i = 0; i < loader->queue_count; i++) {
		struct queue *its = &loader->queues[i];

		if (atomic_load_explicit(&its->owner, memory_order_relaxed) != this_thread())
			continue;
		if (its->transfers_done < its->transfer_count && sample_below(&its->random, 16) == 0)
			do_transfer(loader, its);
		if (its->is_in_flight && sample_below(&its->random, 16) == 0)
			do_steps(loader, its, (size_t)sample_below(&its->random, 4));
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
	queue->item_count = queue->check_count = 0;
	queue->step_count = queue->steps_done = 0;
	queue->transfer_count = queue->transfers_done = queue->sent_end = 0;
	queue->is_in_flight = queue->is_decoded = false;
}

static inline bool is_idle(const struct wcx_gpu_loader *loader)
{
	for (unsigned i = 0; i < loader->queue_count; i++)
		if (loader->queues[i].is_in_flight || loader->queues[i].item_count || loader->queues[i].transfer_count ||
		    loader->queues[i].is_busy)
			return false;
	return true;
}

static inline void open_queue(struct queue *queue, unsigned number)
{
	is_exempt = true;
	queue->scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	is_exempt = false;
	queue->items = __real_calloc(ITEMS_MAX, sizeof *queue->items);
	queue->checks = __real_calloc(ITEMS_MAX, sizeof *queue->checks);
	queue->transfers = __real_calloc(TRANSFERS_MAX, sizeof *queue->transfers);
	sample_require(queue->scratch && queue->items && queue->checks && queue->transfers, "memory for a queue");
	queue->random.state = seed + number;
}

static inline void open_buffer(struct buffer *buffer, unsigned number)
{
	struct sample_random random = { seed - number };

	buffer->bytes = __real_aligned_alloc(4096, WCX_LOAD_BUFFER_BYTES);
	sample_require(buffer->bytes != NULL, "memory for a buffer");
	scribble(&random, buffer->bytes, 1 << 16);
}

FAKED(enum wcx_result, wcx_gpu_loader_open, int device, unsigned buffer_count, unsigned queue_count,
      struct wcx_gpu_loader **ret, char reason[WCX_GPU_NAME_BYTES])
{
	struct wcx_gpu_loader *loader;

	if (fails(CALL_OPEN) || device < 0) {
		snprintf(reason, WCX_GPU_NAME_BYTES, "made to fail");
		return device < 0 ? WCX_NO_DEVICE : trap.result;
	}
	loader = __real_calloc(1, sizeof *loader + queue_count * sizeof *loader->queues);
	sample_require(loader != NULL, "memory for a loader");
	loader->buffers = __real_calloc(buffer_count, sizeof *loader->buffers);
	sample_require(loader->buffers != NULL, "memory for a loader");
	loader->buffer_count = buffer_count;
	for (unsigned i = 0; i < buffer_count; i++)
		open_buffer(&loader->buffers[i], i);
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
		free(loader->queues[i].sent);
		free(loader->queues[i].transfers);
		free(loader->queues[i].stage);
		free(loader->queues[i].items);
		free(loader->queues[i].checks);
		free(loader->queues[i].steps);
		wcx_decode_scratch_free(loader->queues[i].scratch);
	}
	for (unsigned i = 0; i < loader->buffer_count; i++)
		free(loader->buffers[i].bytes);
	free(loader->buffers);
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

FAKED(size_t, wcx_gpu_load_queue_bytes, const struct wcx_gpu_loader *loader, unsigned queue_count)
{
	sample_require(queue_count > 0 && queue_count <= loader->queue_count, "a number of queues within the loader");
	return (size_t)WCX_LOAD_QUEUE_BYTES * loader->queue_count / queue_count;
}

FAKED(enum wcx_result, wcx_gpu_load_begin, struct wcx_gpu_loader *loader, unsigned queue_count, void *stream)
{
	const size_t bytes = __wrap_wcx_gpu_load_queue_bytes(loader, queue_count);

	RULE(is_idle(loader));
	last_loader = loader;
	for (unsigned i = 0; i < loader->queue_count; i++) {
		struct queue *queue = &loader->queues[i];

		atomic_store_explicit(&queue->owner, 0, memory_order_relaxed);
		if (loader->used_queues == queue_count)
			continue;
		free(queue->sent);
		queue->sent =
			i < queue_count ? counted(__real_aligned_alloc(4096, WCX_ALIGN_UP(bytes, (size_t)4096))) : NULL;
		sample_require(i >= queue_count || queue->sent, "memory for a queue");
	}
	loader->used_queues = queue_count;
	loader->queue_bytes = bytes;
	if (fails(CALL_BEGIN))
		return trap.result;
	finish_stream(stream);
	return WCX_OK;
}

/* Queues of this thread do what they must until the buffer's last copy is done. */
FAKED(uint8_t *, wcx_gpu_load_buffer, struct wcx_gpu_loader *loader, unsigned number)
{
	struct buffer *buffer = &loader->buffers[number];
	const bool failed = fails(CALL_BUFFER);
	struct sample_random random = { seed };

	sample_require(number < loader->buffer_count, "a buffer number within the loader");
	for (unsigned i = 0; i < loader->queue_count; i++) {
		struct queue *its = &loader->queues[i];

		if (atomic_load_explicit(&its->owner, memory_order_relaxed) != this_thread())
			continue;
		while (its->transfers_done < its->transfer_count &&
		       atomic_load_explicit(&buffer->is_pending, memory_order_relaxed))
			do_transfer(loader, its);
	}
	RULE(!atomic_load_explicit(&buffer->is_pending, memory_order_relaxed));
	atomic_store_explicit(&buffer->owner, this_thread(), memory_order_relaxed);
	if (failed)
		return NULL;
	scribble(&random, buffer->bytes, 1 << 12);
	return buffer->bytes;
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

/* Whether an item that is no difference decodes all of [at, at + bytes). */
static inline bool is_decoded_by_an_item(const struct queue *queue, uint64_t at, uint64_t bytes)
{
	for (uint32_t i = queue->item_count; i-- > 0;) {
		const struct item *item = &queue->items[i];

		if (item->job.recipe->difference == WCX_DIFFERENCE_NONE &&
		    is_within(at, bytes, item->places.dst, item->job.dst_bytes))
			return true;
	}
	return false;
}

static inline bool is_decoded_by_the_last_item(const struct queue *queue, uint64_t at, uint64_t bytes)
{
	const struct item *last = queue->item_count ? &queue->items[queue->item_count - 1] : NULL;

	return last && last->job.recipe->difference == WCX_DIFFERENCE_NONE &&
	       is_within(at, bytes, last->places.dst, last->job.dst_bytes);
}

/* The rules for a tile that is added. */
static inline bool is_sound_item(const struct queue *queue, const struct wcx_tile_job *job,
				 const struct wcx_load_places *places)
{
	const uint64_t align = job->dims.elem_bytes == 8 ? 8 : 4;

	return RULE(job->mode == WCX_TILE_CODED) && RULE(job->recipe->elem_bytes == job->dims.elem_bytes) &&
	       RULE(job->dst_bytes == wcx_tile_dims_bytes(&job->dims)) && RULE(places->dst % align == 0) &&
	       RULE(is_in_memory(places->dst, job->dst_bytes) || is_in_stage(queue, places->dst, job->dst_bytes)) &&
	       RULE(job->recipe->difference == WCX_DIFFERENCE_NONE ||
		    (places->base % align == 0 && is_decoded_by_an_item(queue, places->base, job->dst_bytes))) &&
	       RULE(!places->takes_base || is_decoded_by_the_last_item(queue, places->base, job->dst_bytes));
}

static inline enum wcx_result add_item(struct queue *queue, const struct wcx_tile_job *job,
				       const struct wcx_load_places *places, bool *added_ret)
{
	const size_t stage_end = (size_t)(places->dst + job->dst_bytes - (uintptr_t)queue->stage);
	struct wcx_tile_layout layout;
	enum wcx_result result;

	RULE(is_owned(queue) && !queue->is_in_flight && places->at % 4 == 0);
	if (!is_sound_item(queue, job, places))
		return WCX_DEVICE_FAILED;
	result = wcx_tile_parse(&job->dims, job->recipe, job->src, job->src_bytes, &layout);
	if (result != WCX_OK)
		return result;
	*added_ret = queue->item_count < gpu.items_max;
	if (!*added_ret)
		return WCX_OK;
	if (is_in_stage(queue, places->dst, 1) && stage_end > queue->stage_bytes)
		queue->stage_bytes = stage_end;
	queue->items[queue->item_count++] = (struct item){ *job, *places };
	atomic_fetch_add_explicit(&gpu.added, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&gpu.differences, job->recipe->difference != WCX_DIFFERENCE_NONE, memory_order_relaxed);
	return WCX_OK;
}

FAKED(bool, wcx_gpu_load_takes, const struct wcx_gpu_loader *loader, const struct wcx_recipe *recipe)
{
	RULE(loader && recipe->difference != WCX_DIFFERENCE_NONE);
	return !gpu.takes_no_differences;
}

FAKED(enum wcx_result, wcx_gpu_load_add, struct wcx_gpu_loader *loader, unsigned number, const struct wcx_tile_job *job,
      const struct wcx_load_places *places, bool *added_ret)
{
	struct queue *queue = enter(loader, number);
	const enum wcx_result result = fails(CALL_ADD) ? trap.result : add_item(queue, job, places, added_ret);

	leave(queue);
	return result;
}

/* What is sent to one batch does not overlap.  A copy that was not started has failed. */
static inline void add_transfer(const struct wcx_gpu_loader *loader, struct queue *queue, const struct transfer *transfer)
{
	RULE(is_owned(queue) && !queue->is_in_flight);
	sample_require(RULE(is_within(transfer->at, transfer->bytes, 0, loader->queue_bytes)) &&
			       RULE(transfer->at >= queue->sent_end && transfer->bytes > 0) &&
			       RULE(queue->transfer_count < TRANSFERS_MAX),
		       "what is sent");
	queue->sent_end = transfer->at + transfer->bytes;
	queue->transfers[queue->transfer_count] = *transfer;
	queue->transfers[queue->transfer_count++].checksum = wcx_checksum64(transfer->src, transfer->bytes);
}

FAKED(enum wcx_result, wcx_gpu_load_send, struct wcx_gpu_loader *loader, unsigned number, unsigned from, size_t bytes,
      size_t at)
{
	struct queue *queue = enter(loader, number);
	struct buffer *buffer = &loader->buffers[from];
	const bool failed = fails(CALL_SEND);

	sample_require(RULE(from < loader->buffer_count && bytes <= WCX_LOAD_BUFFER_BYTES), "a buffer and a size");
	RULE(atomic_load_explicit(&buffer->owner, memory_order_relaxed) == this_thread() && !buffer->is_pending);
	if (!failed) {
		add_transfer(loader, queue, &(struct transfer){ .src = buffer->bytes, bytes, at, .buffer = (int)from });
		atomic_store_explicit(&buffer->is_pending, 1, memory_order_relaxed);
	}
	leave(queue);
	return failed ? trap.result : WCX_OK;
}

FAKED(enum wcx_result, wcx_gpu_load_send_pinned, struct wcx_gpu_loader *loader, unsigned number, const uint8_t *src,
      size_t bytes, size_t at)
{
	struct queue *queue = enter(loader, number);
	const bool failed = fails(CALL_SEND_PINNED);

	RULE(is_pinned((uintptr_t)src, bytes));
	if (!failed)
		add_transfer(loader, queue, &(struct transfer){ .src = src, bytes, at, .buffer = NO_BUFFER });
	leave(queue);
	return failed ? trap.result : WCX_OK;
}

FAKED(void, wcx_gpu_load_check, struct wcx_gpu_loader *loader, unsigned number, size_t at, size_t bytes, uint32_t checksum)
{
	struct queue *queue = enter(loader, number);

	RULE(is_owned(queue) && !queue->is_in_flight);
	sample_require(RULE(queue->check_count < ITEMS_MAX) && RULE(is_within(at, bytes, 0, loader->queue_bytes)),
		       "a check");
	queue->checks[queue->check_count++] = (struct check){ at, bytes, checksum };
	leave(queue);
}

/* The transfer that contains bytes of the queue's memory, or NULL. */
static inline const struct transfer *find_transfer(const struct queue *queue, size_t at, size_t bytes)
{
	for (size_t t = 0; t < queue->transfer_count; t++)
		if (is_within(at, bytes, queue->transfers[t].at, queue->transfers[t].bytes))
			return &queue->transfers[t];
	return NULL;
}

/* Whether the bytes of all items and checks were sent. */
static inline bool has_items_bytes(const struct queue *queue)
{
	for (uint32_t i = 0; i < queue->item_count; i++) {
		const struct item *item = &queue->items[i];

		if (!find_transfer(queue, item->places.at, item->job.src_bytes))
			return false;
	}
	for (uint32_t i = 0; i < queue->check_count; i++)
		RULE(find_transfer(queue, queue->checks[i].at, queue->checks[i].bytes));
	return true;
}

/* Counts batches that overlap with another one of the same thread.  The last batch of a thread is submitted by another. */
FAKED(enum wcx_result, wcx_gpu_load_submit, struct wcx_gpu_loader *loader, unsigned number)
{
	struct queue *queue = enter(loader, number);
	const bool failed = fails(CALL_SUBMIT);

	RULE(atomic_load_explicit(&queue->owner, memory_order_relaxed) && !queue->is_in_flight && has_items_bytes(queue));
	for (unsigned i = 0; i < loader->queue_count; i++)
		if (is_owned(&loader->queues[i]) && loader->queues[i].is_in_flight)
			atomic_fetch_add_explicit(&gpu.overlapped, 1, memory_order_relaxed);
	atomic_store_explicit(&queue->owner, this_thread(), memory_order_relaxed);
	queue->is_in_flight = true;
	queue->is_decoded = failed;
	queue->failed = queue->item_count;
	queue->failed_check = queue->check_count;
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
	const size_t above = copy->rows - 1, src_bytes = copy->staged ? WCX_LOAD_STAGE_BYTES : queue->sent_end;

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
FAKED(enum wcx_result, wcx_gpu_load_wait, struct wcx_gpu_loader *loader, unsigned number,
      struct wcx_load_failure *failed_ret)
{
	struct queue *queue = enter(loader, number);
	enum wcx_result result = fails(CALL_WAIT) ? trap.result : WCX_OK;

	do_transfers(loader, queue);
	if (queue->is_in_flight)
		do_steps(loader, queue, SIZE_MAX);
	else
		queue->failed = queue->item_count, queue->failed_check = queue->check_count;
	if (result == WCX_OK && (queue->failed_check < queue->check_count || queue->failed < queue->item_count)) {
		const bool is_check = queue->failed_check < queue->check_count;

		*failed_ret = (struct wcx_load_failure){ is_check, is_check ? queue->failed_check : queue->failed };
		result = WCX_BAD_DATA;
	}
	scribble(&queue->random, queue->sent, queue->sent_end < 1 << 14 ? queue->sent_end : 1 << 14);
	end_batch(queue);
	atomic_store_explicit(&queue->owner, this_thread(), memory_order_relaxed);
	leave(queue);
	return result;
}

/* --- pinned memory --- */

FAKED(enum wcx_result, wcx_gpu_pin, int device, void *memory, size_t bytes, char reason[WCX_GPU_NAME_BYTES])
{
	RULE(device >= 0 && bytes > 0);
	if (fails(CALL_PIN)) {
		snprintf(reason, WCX_GPU_NAME_BYTES, "made to fail");
		return trap.result;
	}
	for (int i = 0; i < MEMORIES; i++) {
		uintptr_t none = 0;

		if (!atomic_compare_exchange_strong(&gpu.pinned[i].start, &none, (uintptr_t)memory))
			continue;
		atomic_store(&gpu.pinned[i].end, (uintptr_t)memory + bytes);
		return WCX_OK;
	}
	sample_require(0, "a slot for pinned memory");
	return WCX_NO_MEMORY;
}

FAKED(void, wcx_gpu_unpin, int device, void *memory)
{
	int i = 0;

	RULE(device >= 0);
	while (i < MEMORIES && atomic_load(&gpu.pinned[i].start) != (uintptr_t)memory)
		i++;
	if (RULE(i < MEMORIES))
		atomic_store(&gpu.pinned[i].start, 0);
}

static inline unsigned pinned_memories(void)
{
	unsigned count = 0;

	for (int i = 0; i < MEMORIES; i++)
		count += atomic_load(&gpu.pinned[i].start) != 0;
	return count;
}

#endif
