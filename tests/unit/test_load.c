/* SPDX-License-Identifier: MIT */
/*
 * Loading packed files into a GPU's memory, on a GPU that is made up of the CPU's decoder and ordinary memory: any ranges to
 * any places, what damage and failures of all kinds do, and that the rules of cuda/gpu_load.h are kept.
 *
 * The linker has to be told to --wrap each function that is WRAPPED or FAKED below.
 */
#include "fs/lib/wcx.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "codec/tile_layout.h"
#include "cuda/gpu_load.h"
#include "fs/base/file_io.h"
#include "fs/format/safetensors.h"
#include "fs/pack/pack.h"
#include "tests/fixtures/sample_image.h"
#include "tests/unit/check.h"

enum { ERROR_BYTES = 700 };

static uint64_t seed = 2026; /* of all that is drawn here but the files; the first argument replaces it */

/* --- what fails, and when --- */

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
 * Calls are counted from rearm on.  Call number `at` of the kind `failing` fails or, if there is something to meddle with,
 * has that done and goes on.  Atomics are relaxed here and in the GPU, so that they hide no race from a checker.
 */
static struct {
	atomic_uint calls[CALL_COUNT];
	enum call failing;
	unsigned at;
	enum wcx_result result; /* of the failed call */
	void (*meddle)(void);
} trap = { .at = UINT_MAX };

static void rearm(enum call failing, unsigned at, enum wcx_result result, void (*meddle)(void))
{
	for (int i = 0; i < CALL_COUNT; i++)
		atomic_store_explicit(&trap.calls[i], 0, memory_order_relaxed);
	trap.failing = failing;
	trap.at = at;
	trap.result = result;
	trap.meddle = meddle;
}

static void disarm(void)
{
	rearm(CALL_OPEN, UINT_MAX, WCX_OK, NULL);
}

static unsigned calls_of(enum call call)
{
	return atomic_load_explicit(&trap.calls[call], memory_order_relaxed);
}

static int fails(enum call call)
{
	unsigned number = atomic_fetch_add_explicit(&trap.calls[call], 1, memory_order_relaxed);

	if (trap.at == UINT_MAX || call != trap.failing || number != trap.at)
		return 0;
	if (!trap.meddle)
		return 1;
	trap.meddle();
	return 0;
}

/* Declarations and the definition behind them, because nothing else declares what the linker makes. */
#define FAKED(type, name, ...)                                                                                              \
	type __wrap_##name(__VA_ARGS__);                                                                                    \
	type __wrap_##name(__VA_ARGS__)
#define WRAPPED(type, name, ...)                                                                                            \
	type __real_##name(__VA_ARGS__);                                                                                    \
	FAKED(type, name, __VA_ARGS__)

/* What our code has allocated and not freed; only differences mean something, as other memory is freed, too. */
static atomic_long alive;

static void *counted(void *memory)
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

/* An errno that nothing else here gives. */
enum { READ_ERRNO = ENOLINK };

WRAPPED(ssize_t, wcx_read_at, int fd, void *dst, size_t bytes, uint64_t offset)
{
	return fails(CALL_READ) ? -READ_ERRNO : __real_wcx_read_at(fd, dst, bytes, offset);
}

static long made_up_cores; /* 0: those that there are */

WRAPPED(long, sysconf, int name)
{
	return name == _SC_NPROCESSORS_ONLN && made_up_cores ? made_up_cores : __real_sysconf(name);
}

/* --- a GPU --- */

/*
 * Work is noted when it is handed in and done when it is waited for, or at any earlier call of the thread that has the lane,
 * all of it or the first part; so one lane may be far ahead of another.
 */
struct item {
	struct wcx_tile_job job;
	size_t src; /* in the buffer */
	uint64_t dst;
};

/* What comes behind the batch of items: a copy, or a fill of copy.row_bytes. */
struct step {
	struct wcx_load_copy copy;
	int is_fill;
	uint8_t value;
};

struct lane {
	uint8_t *buffer, *sent; /* pinned, and the device's copy */
	uint8_t *stage;         /* NULL until it is asked for */
	size_t stage_bytes;     /* that have been used */
	struct wcx_decode_scratch *scratch;
	struct item *items;
	uint32_t item_count, failed; /* failed: the first item that did not decode, or item_count */
	struct step *steps;
	size_t step_count, step_room, steps_done;
	int is_under_way, is_decoded;
	size_t src_bytes;
	uint64_t checksum; /* of what was submitted */
	atomic_uint is_busy, owner;
	struct sample_random random;
};

struct wcx_gpu_loader {
	unsigned lane_count;
	struct lane lanes[];
};

/* What is in a stream when a load begins: bytes that are written. */
struct stream {
	uint8_t *dst;
	const uint8_t *src;
	size_t bytes;
	int is_done;
};

enum { ITEMS_MAX = 2048, MEMORIES = 8 };

static struct {
	uint32_t items_max; /* that a batch takes */
	atomic_uint loaders, threads;
	atomic_uint lane_count;        /* of the loader opened last */
	atomic_uint added, overlapped; /* items; batches submitted while the thread had another one under way */
	struct {
		atomic_uintptr_t start, end;
	} memories[MEMORIES]; /* that loads may write to */
} gpu = { .items_max = ITEMS_MAX };

static _Thread_local struct wcx_gpu_loader *last_loader; /* of a load that this thread began */
static _Thread_local unsigned thread_number;

/* Like CHECK, but touches nothing that threads share as long as all is well. */
#define RULE(condition) ((condition) ? 1 : CHECK(!"a rule of cuda/gpu_load.h: " #condition))

static unsigned this_thread(void)
{
	if (!thread_number)
		thread_number = atomic_fetch_add_explicit(&gpu.threads, 1, memory_order_relaxed) + 1;
	return thread_number;
}

static void scribble(struct sample_random *random, uint8_t *dst, size_t bytes)
{
	for (; bytes >= 8; bytes -= 8, dst += 8)
		wcx_le64_write(dst, sample_next(random));
	for (; bytes > 0; bytes--)
		*dst++ = (uint8_t)sample_next(random);
}

static int is_within(uint64_t at, uint64_t bytes, uint64_t start, uint64_t size)
{
	return at >= start && bytes <= size && at - start <= size - bytes;
}

/* Whether bytes of the device's memory are the test's. */
static int is_in_memory(uint64_t at, uint64_t bytes)
{
	for (int i = 0; i < MEMORIES; i++) {
		const uintptr_t start = atomic_load_explicit(&gpu.memories[i].start, memory_order_relaxed);
		const uintptr_t end = atomic_load_explicit(&gpu.memories[i].end, memory_order_relaxed);

		if (is_within(at, bytes, start, end - start))
			return 1;
	}
	return 0;
}

static int is_in_stage(const struct lane *lane, uint64_t at, uint64_t bytes)
{
	return lane->stage && is_within(at, bytes, (uintptr_t)lane->stage, WCX_LOAD_STAGE_BYTES);
}

static void *pointer(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static void decode_items(struct lane *lane)
{
	memcpy(lane->sent, lane->buffer, lane->src_bytes);
	if (lane->stage)
		scribble(&lane->random, lane->stage, lane->stage_bytes);
	lane->failed = lane->item_count;
	for (uint32_t i = lane->item_count; i-- > 0;) {
		struct item *item = &lane->items[i];

		item->job.src = lane->sent + item->src;
		item->job.dst = pointer(item->dst);
		if (wcx_tile_decode(&item->job, lane->scratch) != WCX_OK)
			lane->failed = i;
	}
	lane->is_decoded = 1;
}

static void do_step(const struct lane *lane, const struct step *step)
{
	const struct wcx_load_copy *copy = &step->copy;
	const uint8_t *src = (copy->staged ? lane->stage : lane->sent) + copy->src;

	if (step->is_fill) {
		memset(pointer(copy->dst), step->value, copy->row_bytes);
		return;
	}
	for (size_t y = 0; y < copy->rows; y++)
		memcpy(pointer(copy->dst + y * copy->dst_pitch), src + y * copy->src_pitch, copy->row_bytes);
}

static void do_steps(struct lane *lane, size_t most)
{
	if (!lane->is_decoded)
		decode_items(lane);
	for (; lane->steps_done < lane->step_count && most > 0; most--)
		do_step(lane, &lane->steps[lane->steps_done++]);
}

/* Begins a call for a lane, and lets lanes of this thread get on with what they have. */
static struct lane *enter(struct wcx_gpu_loader *loader, unsigned number)
{
	struct lane *lane = &loader->lanes[number];

	sample_require(number < loader->lane_count, "a lane that there is");
	RULE(!atomic_exchange_explicit(&lane->is_busy, 1, memory_order_relaxed));
	for (unsigned i = 0; i < loader->lane_count; i++) {
		struct lane *its = &loader->lanes[i];

		if (atomic_load_explicit(&its->owner, memory_order_relaxed) != this_thread() || !its->is_under_way)
			continue;
		if (sample_below(&its->random, 16) == 0)
			do_steps(its, (size_t)sample_below(&its->random, 4));
	}
	return lane;
}

static void leave(struct lane *lane)
{
	atomic_store_explicit(&lane->is_busy, 0, memory_order_relaxed);
}

/* The batch is this thread's, which has waited for the one before. */
static int is_owned(struct lane *lane)
{
	return atomic_load_explicit(&lane->owner, memory_order_relaxed) == this_thread();
}

static void end_batch(struct lane *lane)
{
	lane->item_count = 0;
	lane->step_count = lane->steps_done = 0;
	lane->is_under_way = lane->is_decoded = 0;
}

static int is_idle(const struct wcx_gpu_loader *loader)
{
	for (unsigned i = 0; i < loader->lane_count; i++)
		if (loader->lanes[i].is_under_way || loader->lanes[i].item_count || loader->lanes[i].is_busy)
			return 0;
	return 1;
}

static void open_lane(struct lane *lane, unsigned number)
{
	const unsigned at = trap.at;

	lane->buffer = __real_aligned_alloc(4096, WCX_LOAD_BUFFER_BYTES);
	lane->sent = __real_aligned_alloc(4096, WCX_LOAD_BUFFER_BYTES);
	trap.at = UINT_MAX; /* nor is this memory that may fail */
	lane->scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	trap.at = at;
	lane->items = __real_calloc(ITEMS_MAX, sizeof *lane->items);
	sample_require(lane->buffer && lane->sent && lane->scratch && lane->items, "memory for a lane");
	lane->random.state = seed + number;
	scribble(&lane->random, lane->buffer, 1 << 16);
	scribble(&lane->random, lane->sent, 1 << 16);
}

FAKED(enum wcx_result, wcx_gpu_loader_open, int device, unsigned lane_count, struct wcx_gpu_loader **ret,
      char reason[WCX_GPU_NAME_BYTES])
{
	struct wcx_gpu_loader *loader;

	if (fails(CALL_OPEN) || device < 0) {
		snprintf(reason, WCX_GPU_NAME_BYTES, "made to fail");
		return device < 0 ? WCX_NO_DEVICE : trap.result;
	}
	loader = __real_calloc(1, sizeof *loader + lane_count * sizeof *loader->lanes);
	sample_require(loader != NULL, "memory for a loader");
	loader->lane_count = lane_count;
	for (unsigned i = 0; i < lane_count; i++)
		open_lane(&loader->lanes[i], i);
	atomic_fetch_add_explicit(&gpu.loaders, 1, memory_order_relaxed);
	atomic_store_explicit(&gpu.lane_count, lane_count, memory_order_relaxed);
	*ret = loader;
	return WCX_OK;
}

FAKED(void, wcx_gpu_loader_free, struct wcx_gpu_loader *loader)
{
	if (!loader)
		return;
	RULE(is_idle(loader));
	for (unsigned i = 0; i < loader->lane_count; i++) {
		free(loader->lanes[i].buffer);
		free(loader->lanes[i].sent);
		free(loader->lanes[i].stage);
		free(loader->lanes[i].items);
		free(loader->lanes[i].steps);
		wcx_decode_scratch_free(loader->lanes[i].scratch);
	}
	free(loader);
	atomic_fetch_sub_explicit(&gpu.loaders, 1, memory_order_relaxed);
}

static void finish_stream(struct stream *stream)
{
	if (stream && !stream->is_done)
		memcpy(stream->dst, stream->src, stream->bytes);
	if (stream)
		stream->is_done = 1;
}

FAKED(enum wcx_result, wcx_gpu_load_follow, struct wcx_gpu_loader *loader, void *stream)
{
	RULE(is_idle(loader));
	for (unsigned i = 0; i < loader->lane_count; i++)
		atomic_store_explicit(&loader->lanes[i].owner, 0, memory_order_relaxed);
	last_loader = loader;
	if (fails(CALL_FOLLOW))
		return trap.result;
	finish_stream(stream);
	return WCX_OK;
}

FAKED(uint8_t *, wcx_gpu_load_buffer, struct wcx_gpu_loader *loader, unsigned number)
{
	sample_require(number < loader->lane_count, "a lane that there is");
	return loader->lanes[number].buffer;
}

FAKED(uint64_t, wcx_gpu_load_stage, struct wcx_gpu_loader *loader, unsigned number)
{
	struct lane *lane = enter(loader, number);
	const int failed = fails(CALL_STAGE);

	RULE(is_owned(lane));
	if (!lane->stage && !failed)
		lane->stage = __real_aligned_alloc(4096, WCX_LOAD_STAGE_BYTES);
	leave(lane);
	return failed ? 0 : (uintptr_t)lane->stage;
}

/* What add asks of a tile. */
static int is_sound_item(const struct lane *lane, const struct wcx_tile_job *job, uint64_t dst)
{
	const uintptr_t src = (uintptr_t)job->src, buffer = (uintptr_t)lane->buffer;

	return RULE(job->mode == WCX_TILE_CODED) && RULE(job->recipe->elem_bytes == job->dims.elem_bytes) &&
	       RULE(job->dst_bytes == wcx_tile_dims_bytes(&job->dims)) && RULE(src % 4 == 0) &&
	       RULE(is_within(src, job->src_bytes, buffer, WCX_LOAD_BUFFER_BYTES)) &&
	       RULE(dst % (job->dims.elem_bytes == 8 ? 8 : 4) == 0) &&
	       RULE(is_in_memory(dst, job->dst_bytes) || is_in_stage(lane, dst, job->dst_bytes));
}

static enum wcx_result add_item(struct lane *lane, const struct wcx_tile_job *job, uint64_t dst, int *added_ret)
{
	const size_t stage_end = (size_t)(dst + job->dst_bytes - (uintptr_t)lane->stage);
	struct wcx_tile_layout layout;
	enum wcx_result result;

	RULE(is_owned(lane) && !lane->is_under_way);
	if (!is_sound_item(lane, job, dst))
		return WCX_DEVICE_FAILED;
	result = wcx_tile_parse(&job->dims, job->recipe, job->src, job->src_bytes, &layout);
	if (result != WCX_OK)
		return result;
	*added_ret = lane->item_count < gpu.items_max;
	if (!*added_ret)
		return WCX_OK;
	if (is_in_stage(lane, dst, 1) && stage_end > lane->stage_bytes)
		lane->stage_bytes = stage_end;
	lane->items[lane->item_count++] = (struct item){ *job, (size_t)(job->src - lane->buffer), dst };
	atomic_fetch_add_explicit(&gpu.added, 1, memory_order_relaxed);
	return WCX_OK;
}

FAKED(enum wcx_result, wcx_gpu_load_add, struct wcx_gpu_loader *loader, unsigned number, const struct wcx_tile_job *job,
      uint64_t dst, int *added_ret)
{
	struct lane *lane = enter(loader, number);
	const enum wcx_result result = fails(CALL_ADD) ? trap.result : add_item(lane, job, dst, added_ret);

	leave(lane);
	return result;
}

/* After a failure, too, the device may be reading the buffer. */
FAKED(enum wcx_result, wcx_gpu_load_submit, struct wcx_gpu_loader *loader, unsigned number, size_t src_bytes)
{
	struct lane *lane = enter(loader, number);
	const int failed = fails(CALL_SUBMIT);
	size_t behind = WCX_LOAD_BUFFER_BYTES - src_bytes;

	RULE(is_owned(lane) && !lane->is_under_way);
	sample_require(RULE(src_bytes <= WCX_LOAD_BUFFER_BYTES), "src_bytes");
	for (uint32_t i = 0; i < lane->item_count; i++)
		RULE(is_within(lane->items[i].src, lane->items[i].job.src_bytes, 0, src_bytes));
	for (unsigned i = 0; i < loader->lane_count; i++)
		if (is_owned(&loader->lanes[i]) && loader->lanes[i].is_under_way)
			atomic_fetch_add_explicit(&gpu.overlapped, 1, memory_order_relaxed);
	/* It is for the GPU's own use. */
	scribble(&lane->random, lane->buffer + src_bytes, behind < 256 ? behind : 256);
	lane->src_bytes = src_bytes;
	lane->checksum = wcx_checksum64(lane->buffer, src_bytes);
	lane->is_under_way = 1;
	lane->is_decoded = failed;
	lane->failed = lane->item_count;
	sched_yield();
	leave(lane);
	return failed ? trap.result : WCX_OK;
}

static void add_step(struct lane *lane, const struct step *step)
{
	if (lane->step_count == lane->step_room) {
		lane->step_room = lane->step_room ? 2 * lane->step_room : 64;
		lane->steps = __real_realloc(lane->steps, lane->step_room * sizeof *lane->steps);
		sample_require(lane->steps != NULL, "memory for steps");
	}
	lane->steps[lane->step_count++] = *step;
}

/* What copy asks: a lane under way, and rows that are there and lie where they may. */
static int is_sound_copy(struct lane *lane, const struct wcx_load_copy *copy)
{
	const size_t above = copy->rows - 1, src_bytes = copy->staged ? WCX_LOAD_STAGE_BYTES : lane->src_bytes;

	if (!RULE(is_owned(lane) && lane->is_under_way) || !RULE(copy->rows > 0 && copy->row_bytes > 0) ||
	    !RULE(!copy->staged || lane->stage))
		return 0;
	if (above &&
	    !RULE(copy->src_pitch >= copy->row_bytes && copy->dst_pitch >= copy->row_bytes && copy->dst_pitch <= INT32_MAX))
		return 0;
	return RULE(is_within(copy->src, above * copy->src_pitch + copy->row_bytes, 0, src_bytes)) &&
	       RULE(is_in_memory(copy->dst, above * copy->dst_pitch + copy->row_bytes));
}

FAKED(enum wcx_result, wcx_gpu_load_copy, struct wcx_gpu_loader *loader, unsigned number, const struct wcx_load_copy *copy)
{
	struct lane *lane = enter(loader, number);
	const int failed = fails(CALL_COPY);

	if (is_sound_copy(lane, copy) && !failed)
		add_step(lane, &(struct step){ .copy = *copy });
	leave(lane);
	return failed ? trap.result : WCX_OK;
}

FAKED(enum wcx_result, wcx_gpu_load_fill, struct wcx_gpu_loader *loader, unsigned number, uint64_t dst, uint8_t value,
      size_t bytes)
{
	struct lane *lane = enter(loader, number);
	const int failed = fails(CALL_FILL);

	if (RULE(is_owned(lane) && lane->is_under_way) && RULE(bytes > 0 && is_in_memory(dst, bytes)) && !failed)
		add_step(lane, &(struct step){ .copy = { .dst = dst, .row_bytes = bytes }, .is_fill = 1, .value = value });
	leave(lane);
	return failed ? trap.result : WCX_OK;
}

/* Of items that were added and not submitted nobody knows what their statuses say. */
FAKED(enum wcx_result, wcx_gpu_load_wait, struct wcx_gpu_loader *loader, unsigned number, uint32_t *failed_ret)
{
	struct lane *lane = enter(loader, number);
	enum wcx_result result = fails(CALL_WAIT) ? trap.result : WCX_OK;

	if (lane->is_under_way) {
		do_steps(lane, SIZE_MAX);
		RULE(wcx_checksum64(lane->buffer, lane->src_bytes) == lane->checksum);
		scribble(&lane->random, lane->buffer, lane->src_bytes);
	} else {
		lane->failed = 0;
	}
	if (result == WCX_OK && lane->failed < lane->item_count) {
		*failed_ret = lane->failed;
		result = WCX_BAD_DATA;
	}
	end_batch(lane);
	atomic_store_explicit(&lane->owner, this_thread(), memory_order_relaxed);
	leave(lane);
	return result;
}

/* --- files --- */

/* Too small for tiles to be coded, and for reading every range of it; no tile is as wide as its matrix. */
static const struct sample_part small_parts[] = {
	{ { "grid", "I16", "[13,11]", 286, SAMPLE_UNIFORM, 0 }, 11, 4, 3, &sample_2_bytes, 0, 0 },
	{ { "flat", "F32", "[9]", 36, SAMPLE_UNIFORM, 0 }, 9, 1, 4, &sample_4_bytes, 0, 0 },
	{ { "constant", "U8", "[5,5]", 25, SAMPLE_CONSTANT, 0 }, 5, 3, 2, &sample_1_byte, 0, 0 },
	{ { "column", "I64", "[7]", 56, SAMPLE_UNIFORM, 0 }, 1, 2, 3, &sample_8_bytes, 0, 0 },
	{ { "zipped", "I8", "[4,50]", 200, SAMPLE_GAUSSIAN, 0.4 }, 50, 3, 40, &sample_1_byte_plain, 1, 0 },
	{ { "again", "I16", "[143]", 286, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 1 },
	{ { "pool.a", "I8", "[7]", 7, SAMPLE_UNIFORM, 0 }, 21, 1, 5, &sample_1_byte_left, 0, 0 },
	{ { "pool.b", "I8", "[9]", 9, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 0 },
	{ { "pool.c", "I8", "[5]", 5, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 0 },
	{ { "alike.i32", "I32", "[3,5]", 60, SAMPLE_UNIFORM, 0 }, 5, 2, 3, &sample_4_bytes, 0, 0 },
	{ { "alike.i16", "I16", "[30]", 60, SAMPLE_UNIFORM, 0 }, 30, 1, 7, &sample_2_bytes, 0, 0 },
	{ { "byte", "U8", "[1]", 1, SAMPLE_UNIFORM, 0 }, 1, 1, 1, &sample_1_byte, 0, 0 },
};

/* Tiles of all modes, by all recipes: of parts of rows, of whole rows, and of rows that are one. */
static const struct sample_part mixed_parts[] = {
	{ { "squares", "I8", "[130,170]", 22100, SAMPLE_GAUSSIAN, 20 }, 170, 40, 50, &sample_1_byte, 0, 0 },
	{ { "left", "I8", "[90,301]", 27090, SAMPLE_STUDENT, 9 }, 301, 32, 70, &sample_1_byte_left, 0, 0 },
	{ { "wide", "F64", "[5,1100]", 44000, SAMPLE_GAUSSIAN, 2 }, 5500, 1, 1500, &sample_8_bytes, 0, 0 },
	{ { "again", "I8", "[22100]", 22100, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 1 },
	{ { "above", "I16", "[70,201]", 28140, SAMPLE_GAUSSIAN, 4 }, 201, 13, 201, &sample_2_bytes_split, 0, 0 },
	{ { "both", "I32", "[57,129]", 29412, SAMPLE_STUDENT, 3 }, 129, 30, 50, &sample_4_bytes_left2, 0, 0 },
	{ { "folded", "I8", "[80,251]", 20080, SAMPLE_GAUSSIAN, 9 }, 251, 15, 251, &sample_1_byte_pairs, 0, 0 },
	{ { "odd", "I8", "[59,133]", 7847, SAMPLE_STUDENT, 5 }, 133, 23, 61, &sample_1_byte_pairs, 0, 0 },
	{ { "sparse", "F16", "[100,150]", 30000, SAMPLE_GAUSSIAN, 0.4 }, 150, 33, 150, &sample_2_bytes_zero, 0, 0 },
	{ { "zipped", "I8", "[4,3001]", 12004, SAMPLE_GAUSSIAN, 3 }, 3001, 2, 1000, &sample_1_byte_plain, 1, 0 },
	{ { "zipped.rows", "I8", "[9001]", 9001, SAMPLE_GAUSSIAN, 3 }, 9001, 1, 2001, &sample_1_byte_plain, 1, 0 },
	{ { "noise", "U8", "[50,90]", 4500, SAMPLE_UNIFORM, 0 }, 90, 20, 40, &sample_1_byte, 0, 0 },
	{ { "noise.rows", "U32", "[999]", 3996, SAMPLE_UNIFORM, 0 }, 999, 1, 300, &sample_4_bytes, 0, 0 },
	{ { "constant", "U8", "[50,60]", 3000, SAMPLE_CONSTANT, 0 }, 60, 20, 60, &sample_1_byte, 0, 0 },
	{ { "constant.f32", "F32", "[30,60]", 7200, SAMPLE_CONSTANT, 0 }, 60, 20, 60, &sample_4_bytes, 0, 0 },
	{ { "constant.grid", "U8", "[50,60]", 3000, SAMPLE_CONSTANT, 0 }, 60, 20, 17, &sample_1_byte, 0, 0 },
	{ { "alike.i16", "I16", "[30,60]", 3600, SAMPLE_UNIFORM, 0 }, 60, 7, 60, &sample_2_bytes, 0, 0 },
	{ { "alike.i32", "I32", "[30,60]", 7200, SAMPLE_UNIFORM, 0 }, 60, 7, 25, &sample_4_bytes, 0, 0 },
	{ { "alike.i64", "I64", "[300]", 2400, SAMPLE_UNIFORM, 0 }, 300, 1, 80, &sample_8_bytes, 0, 0 },
	{ { "zero.i64", "I64", "[300]", 2400, SAMPLE_UNIFORM, 0 }, 300, 1, 90, &sample_8_bytes, 0, 0 },
	{ { "pool.a", "I8", "[777]", 777, SAMPLE_GAUSSIAN, 5 }, 3000, 1, 500, &sample_1_byte_left, 0, 0 },
	{ { "pool.b", "I8", "[900]", 900, SAMPLE_GAUSSIAN, 5 }, 0, 0, 0, NULL, 0, 0 },
	{ { "pool.c", "I8", "[1323]", 1323, SAMPLE_GAUSSIAN, 5 }, 0, 0, 0, NULL, 0, 0 },
};

/* What a batch cannot take in one go: too many tiles, and Zstandard's with what they become. */
static const struct sample_part long_parts[] = {
	{ { "many", "I8", "[70,60]", 4200, SAMPLE_GAUSSIAN, 30 }, 60, 1, 3, &sample_1_byte, 0, 0 },
	{ { "zipped", "I8", "[43,65000]", 2795000, SAMPLE_GAUSSIAN, 40 }, 65000, 1, 65000, &sample_1_byte_plain, 1, 0 },
	{ { "coded", "I8", "[500,4000]", 2000000, SAMPLE_GAUSSIAN, 12 }, 4000, 16, 4000, &sample_1_byte, 0, 0 },
};

/* For the packer: all dtypes, and the sizes that make it choose one kind of segment or the other. */
static const struct sample_tensor packed_tensors[] = {
	{ "q.weight", "I8", "[2200,2000]", 4400000, SAMPLE_GAUSSIAN, 20 },
	{ "q.scale", "F32", "[2200,1]", 8800, SAMPLE_GAUSSIAN, 1 },
	{ "bf16", "BF16", "[700,901]", 1261400, SAMPLE_GAUSSIAN, 1 },
	{ "f16", "F16", "[301,500]", 301000, SAMPLE_GAUSSIAN, 1 },
	{ "f32", "F32", "[200,501]", 400800, SAMPLE_GAUSSIAN, 1 },
	{ "f64", "F64", "[50,333]", 133200, SAMPLE_GAUSSIAN, 1 },
	{ "c64", "C64", "[50,99]", 39600, SAMPLE_STUDENT, 9 },
	{ "e4m3", "F8_E4M3", "[300,400]", 120000, SAMPLE_GAUSSIAN, 12 },
	{ "e5m2", "F8_E5M2", "[300,401]", 120300, SAMPLE_STUDENT, 9 },
	{ "e8m0", "F8_E8M0", "[3000]", 3000, SAMPLE_GAUSSIAN, 2 },
	{ "f4", "F4", "[1000,31]", 15500, SAMPLE_STUDENT, 40 },
	{ "f6", "F6_E2M3", "[400,50]", 15000, SAMPLE_STUDENT, 40 },
	{ "bool", "BOOL", "[1000,70]", 70000, SAMPLE_UNIFORM, 0 },
	{ "u8", "U8", "[70001]", 70001, SAMPLE_UNIFORM, 0 },
	{ "i16", "I16", "[170,131]", 44540, SAMPLE_GAUSSIAN, 3 },
	{ "u16", "U16", "[22270]", 44540, SAMPLE_STUDENT, 3 },
	{ "i32", "I32", "[170,131]", 89080, SAMPLE_GAUSSIAN, 1 },
	{ "u32", "U32", "[22270]", 89080, SAMPLE_STUDENT, 1 },
	{ "i64", "I64", "[9001]", 72008, SAMPLE_UNIFORM, 0 },
	{ "u64", "U64", "[9001]", 72008, SAMPLE_STUDENT, 1 },
	{ "constant", "F32", "[40001]", 160004, SAMPLE_CONSTANT, 0 },
	{ "one", "BF16", "[1]", 2, SAMPLE_GAUSSIAN, 1 },
	{ "empty", "F32", "[0,5]", 0, SAMPLE_GAUSSIAN, 1 },
	{ "scalar", "I64", "[]", 8, SAMPLE_UNIFORM, 0 },
	{ "norm.0", "BF16", "[500]", 1000, SAMPLE_GAUSSIAN, 1 },
	{ "norm.1", "BF16", "[30,100]", 6000, SAMPLE_GAUSSIAN, 1 },
	{ "e4m3.twin", "F8_E4M3", "[120000]", 120000, SAMPLE_CONSTANT, 0 },
};

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

enum { SMALL, MIXED, LONG, PACKED, REFERENCE, FILES };

/* A packed file, open; container and st are the test's own view of it. */
static struct sample {
	char *path;
	struct sample_bytes original, packed;
	struct wcx_file *file;
	struct wcx_container *container;
	struct wcx_safetensors *st;
} samples[FILES];

static char *dir;

/* Numbers with a bell curve of the width 0.02, as the dtype has them. */
static void fill_floats(const char *dtype, struct sample_random *random, uint8_t *dst, size_t bytes)
{
	const size_t elem_bytes = strcmp(dtype, "F64") == 0 ? 8 : strcmp(dtype, "F32") == 0 ? 4 : 2;

	for (size_t at = 0; at < bytes; at += elem_bytes) {
		const double value = 0.02 * sample_normal(random);
		const float narrow = (float)value;
		uint32_t bits;

		memcpy(&bits, &narrow, 4);
		if (elem_bytes == 8)
			memcpy(dst + at, &value, 8);
		else if (elem_bytes == 4)
			memcpy(dst + at, &bits, 4);
		else if (strcmp(dtype, "BF16") == 0)
			wcx_le16_write(dst + at, bits >> 16);
		else /* as the numbers that are not subnormal are */
			wcx_le16_write(dst + at, (bits >> 16 & 0x8000) | (((bits >> 13) - (112u << 10)) & 0x7FFF));
	}
}

/* Truth values, of which one in ten is set; and numbers of words in a list of 50,000. */
static void fill_integers(const char *dtype, struct sample_random *random, uint8_t *dst, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += strcmp(dtype, "BOOL") == 0 ? 1 : 8) {
		if (strcmp(dtype, "BOOL") == 0)
			dst[at] = sample_below(random, 10) == 0;
		else
			wcx_le64_write(dst + at, sample_below(random, 50000));
	}
}

/* Gives tensors of some dtypes what they have in models. */
static void fill_as_models_do(struct sample_bytes original)
{
	struct sample_random random = { 12 };
	uint8_t *dst = original.data + 8 + wcx_le64_read(original.data), *e4m3 = NULL;

	for (size_t i = 0; i < COUNT_OF(packed_tensors); dst += packed_tensors[i++].bytes) {
		const struct sample_tensor *tensor = &packed_tensors[i];

		if (strcmp(tensor->name, "e4m3") == 0)
			e4m3 = dst;
		if (strcmp(tensor->name, "e4m3.twin") == 0)
			memcpy(dst, e4m3, tensor->bytes);
		else if (tensor->kind == SAMPLE_GAUSSIAN && strstr("F64 F32 F16 BF16", tensor->dtype))
			fill_floats(tensor->dtype, &random, dst, tensor->bytes);
		else if (strstr("BOOL I64", tensor->dtype))
			fill_integers(tensor->dtype, &random, dst, tensor->bytes);
	}
}

/* Gives the elements of tensors a value that is the same for all, with bytes that differ. */
static void fill_alike(struct sample_bytes original, const struct sample_part *parts, size_t count)
{
	static const struct {
		const char *name;
		uint64_t value;
		size_t elem_bytes;
	} alike[] = { { "alike.i16", 0x2517, 2 },
		      { "alike.i32", 0x5A5A5B5A, 4 },
		      { "alike.i64", 0x5A5A5A5A, 8 },
		      { "zero.i64", 0, 8 } };
	uint8_t *dst = original.data + 8 + wcx_le64_read(original.data), value[8];

	for (size_t i = 0; i < count; dst += parts[i++].tensor.bytes) {
		for (size_t a = 0; a < COUNT_OF(alike); a++) {
			if (strcmp(parts[i].tensor.name, alike[a].name) != 0)
				continue;
			wcx_le64_write(value, alike[a].value);
			for (size_t at = 0; at < parts[i].tensor.bytes; at += alike[a].elem_bytes)
				memcpy(dst + at, value, alike[a].elem_bytes);
		}
	}
}

/* Opens a file whose original and path are there, all three ways. */
static void open_sample(struct sample *sample)
{
	char error[ERROR_BYTES] = "";
	struct wcx_error err = { "" };
	int fd = open(sample->path, O_RDONLY | O_CLOEXEC);

	sample_require(wcx_file_open(sample->path, &sample->file, error, sizeof error) == 0, error);
	sample_require(wcx_container_open(fd, sample->path, &sample->container, &err) == 0, err.text);
	sample_require(wcx_safetensors_parse(sample->path, (const char *)sample->original.data + 8,
					     wcx_le64_read(sample->original.data), sample->original.bytes, &sample->st,
					     &err) == 0,
		       err.text);
}

static void close_sample(struct sample *sample)
{
	wcx_safetensors_free(sample->st);
	wcx_container_free(sample->container);
	wcx_file_close(sample->file);
	free(sample->path);
	free(sample->original.data);
	free(sample->packed.data);
}

static void make_by_hand(struct sample *sample, const char *name, const struct sample_part *parts, size_t count)
{
	sample->path = sample_path(dir, name);
	sample->original = sample_original(parts, count);
	fill_alike(sample->original, parts, count);
	sample->packed = sample_image(sample->original, parts, count);
	sample_write(sample->path, sample->packed);
	open_sample(sample);
}

static void make_with_packer(struct sample *sample, const char *name, int is_reference)
{
	struct wcx_pack_options options = { .job.thread_count = 2, .is_reference = is_reference };
	char *src_path = sample_path(dir, "model.safetensors");
	struct wcx_pack_result result;
	struct wcx_error err = { "" };

	sample->path = sample_path(dir, name);
	sample->original = sample_safetensors(packed_tensors, COUNT_OF(packed_tensors));
	fill_as_models_do(sample->original);
	sample_write(src_path, sample->original);
	sample_require(wcx_pack(src_path, sample->path, &options, &result, &err) == 0, err.text);
	sample->packed = sample_read(sample->path);
	unlink(src_path);
	free(src_path);
	open_sample(sample);
}

static void make_samples(void)
{
	dir = sample_dir_create();
	make_by_hand(&samples[SMALL], "small.wcx", small_parts, COUNT_OF(small_parts));
	make_by_hand(&samples[MIXED], "mixed.wcx", mixed_parts, COUNT_OF(mixed_parts));
	make_by_hand(&samples[LONG], "long.wcx", long_parts, COUNT_OF(long_parts));
	make_with_packer(&samples[PACKED], "packed.wcx", 0);
	make_with_packer(&samples[REFERENCE], "reference.wcx", 1);
}

/* Makes the checksums of superblock and index right. */
static void seal(struct sample_bytes packed)
{
	uint64_t index = wcx_le64_read(packed.data + 40);

	wcx_le64_write(packed.data + 80, wcx_checksum64(packed.data + index, packed.bytes - index));
	wcx_le64_write(packed.data + 120, wcx_checksum64(packed.data, 120));
}

/* --- loads --- */

struct range {
	uint64_t offset, bytes;
	size_t shift; /* how far its place is behind a multiple of 8 */
};

/* The device's memory with places for ranges, as far apart as they come; expected is what the right load makes of it. */
struct memory {
	uint8_t *bytes, *expected, *before;
	size_t size;
	struct wcx_target *targets;
	size_t count;
	struct stream stream;
	int slot;
};

static int take_slot(const uint8_t *bytes, size_t size)
{
	for (int i = 0; i < MEMORIES; i++) {
		uintptr_t none = 0;

		if (!atomic_compare_exchange_strong(&gpu.memories[i].start, &none, (uintptr_t)bytes))
			continue;
		atomic_store(&gpu.memories[i].end, (uintptr_t)bytes + size);
		return i;
	}
	sample_require(0, "a slot for memory");
	return 0;
}

/* Places are in an order of their own.  The last ends where the memory does, so that a checker sees what goes beyond. */
static void make_memory(struct memory *memory, const struct sample *sample, const struct range *ranges, size_t count,
			struct sample_random *random)
{
	size_t at = 0, *order = malloc((count + 1) * sizeof *order);

	*memory = (struct memory){ .targets = calloc(count + 1, sizeof *memory->targets), .count = count };
	for (size_t i = 0; i < count; i++) {
		size_t other = (size_t)sample_below(random, i + 1);

		order[i] = order[other];
		order[other] = i;
		memory->size += (size_t)ranges[i].bytes + 48;
	}
	memory->size += 8;
	memory->bytes = malloc(memory->size);
	memory->expected = malloc(memory->size);
	memory->before = malloc(memory->size);
	sample_require(memory->bytes && memory->expected && memory->before, "malloc");
	scribble(random, memory->bytes, memory->size);
	scribble(random, memory->before, memory->size);
	memcpy(memory->expected, memory->before, memory->size);
	for (size_t i = 0; i < count; i++) {
		const struct range *range = &ranges[order[i]];

		at += 8 + (size_t)sample_below(random, 32);
		at = (at + 7) / 8 * 8 + range->shift - ((uintptr_t)memory->bytes & 7);
		memory->targets[order[i]] = (struct wcx_target){ range->offset, range->bytes, memory->bytes + at };
		if (range->offset <= sample->original.bytes && range->bytes <= sample->original.bytes - range->offset)
			memcpy(memory->expected + at, sample->original.data + range->offset, (size_t)range->bytes);
		at += (size_t)range->bytes;
	}
	memory->stream = (struct stream){ memory->bytes, memory->before, memory->size, 0 };
	memory->slot = take_slot(memory->bytes, memory->size);
	free(order);
}

static void free_memory(struct memory *memory)
{
	atomic_store(&gpu.memories[memory->slot].end, 0);
	atomic_store(&gpu.memories[memory->slot].start, 0);
	free(memory->bytes);
	free(memory->expected);
	free(memory->before);
	free(memory->targets);
}

static int load_into(struct wcx_loader *loader, const struct sample *sample, struct memory *memory, char *error,
		     size_t error_bytes)
{
	int r;

	last_loader = NULL;
	r = wcx_load(loader, sample->file, memory->targets, memory->count, &memory->stream, error, error_bytes);
	finish_stream(&memory->stream);
	CHECK(!last_loader || is_idle(last_loader));
	return r;
}

/* After an error, when the contents of targets are undefined. */
static int rest_is_untouched(struct memory *memory)
{
	for (size_t i = 0; i < memory->count; i++) {
		const uint8_t *dst = memory->targets[i].dst;

		memcpy(memory->expected + (dst - memory->bytes), dst, (size_t)memory->targets[i].bytes);
	}
	return memcmp(memory->bytes, memory->expected, memory->size) == 0;
}

/* Whether loading ranges gives what the original has there, and nothing beside it. */
static int loads_right(struct wcx_loader *loader, const struct sample *sample, const struct range *ranges, size_t count,
		       struct sample_random *random)
{
	char error[ERROR_BYTES] = "";
	struct memory memory;
	int is_right;

	make_memory(&memory, sample, ranges, count, random);
	is_right = load_into(loader, sample, &memory, error, sizeof error) == 0 &&
		   memcmp(memory.bytes, memory.expected, memory.size) == 0;
	if (error[0])
		fprintf(stderr, "\t%s\n", error);
	free_memory(&memory);
	return is_right;
}

/* Loads what is to fail, and returns the result; writes nothing but to the targets. */
static int failure_of(struct wcx_loader *loader, const struct sample *sample, const struct range *ranges, size_t count,
		      struct sample_random *random, char error[ERROR_BYTES])
{
	struct memory memory;
	int r;

	error[0] = '\0';
	make_memory(&memory, sample, ranges, count, random);
	r = load_into(loader, sample, &memory, error, ERROR_BYTES);
	CHECK(rest_is_untouched(&memory));
	if (r < 0 && !CHECK(strncmp(error, sample->path, strlen(sample->path)) == 0 && !strchr(error, '\n')))
		fprintf(stderr, "\t\"%s\"\n", error);
	free_memory(&memory);
	return r;
}

static struct wcx_loader *open_loader(unsigned threads)
{
	struct wcx_loader *loader = NULL;
	char error[ERROR_BYTES] = "";

	sample_require(wcx_loader_open(0, threads, &loader, error, sizeof error) == 0, error);
	return loader;
}

static struct range whole(const struct sample *sample, size_t shift)
{
	return (struct range){ 0, sample->original.bytes, shift };
}

static size_t ranges_of_tensors(const struct sample *sample, struct range *ranges, struct sample_random *random)
{
	for (size_t i = 0; i < sample->st->tensor_count; i++)
		ranges[i] = (struct range){ sample->st->tensors[i].offset, sample->st->tensors[i].bytes,
					    random ? (size_t)sample_below(random, 8) : 0 };
	return sample->st->tensor_count;
}

static int is_touched(const struct wcx_segment *seg, const struct wcx_tile_info *info, const struct range *ranges,
		      size_t count)
{
	const uint64_t row_bytes = (uint64_t)info->dims.cols * info->dims.elem_bytes;

	for (size_t i = 0; i < count; i++)
		for (uint32_t y = 0; y < info->dims.rows; y++) {
			const uint64_t from = wcx_tile_row_offset(seg, info, y);

			if (ranges[i].bytes && from < ranges[i].offset + ranges[i].bytes &&
			    from + row_bytes > ranges[i].offset)
				return 1;
		}
	return 0;
}

/* Coded tiles that have bytes of the ranges, those of segments with the same content for each by itself. */
static unsigned coded_tiles(const struct sample *sample, const struct range *ranges, size_t count)
{
	unsigned tiles = 0;

	for (size_t s = 0; s < wcx_container_superblock(sample->container)->segment_count; s++) {
		const struct wcx_segment *seg = wcx_container_segment(sample->container, s);

		for (uint64_t t = 0; t < seg->tile_count; t++) {
			struct wcx_tile_info info;

			wcx_container_tile(sample->container, seg, seg->first_tile + t, &info);
			tiles += info.mode == WCX_TILE_CODED && is_touched(seg, &info, ranges, count);
		}
	}
	return tiles;
}

/* --- files and what they say --- */

static void files_are_opened_read_and_described(void)
{
	for (int f = 0; f < FILES; f++) {
		const struct sample *sample = &samples[f];
		const struct wcx_safetensors *st = sample->st;
		struct wcx_tensor_info info, untouched;

		CHECK(wcx_file_bytes(sample->file) == sample->original.bytes);
		CHECK(wcx_file_header_bytes(sample->file) == 8 + wcx_le64_read(sample->original.data));
		if (!CHECK(wcx_file_tensor_count(sample->file) == st->tensor_count))
			continue;
		for (size_t i = 0; i < st->tensor_count; i++) {
			const struct wcx_tensor *tensor = &st->tensors[i];

			CHECK(wcx_file_tensor(sample->file, i, &info) == 0);
			CHECK_TEXT(info.name, tensor->name);
			CHECK_TEXT(info.dtype, tensor->dtype);
			CHECK(info.dim_count == tensor->dim_count && info.offset == tensor->offset &&
			      info.bytes == tensor->bytes);
			CHECK(!info.dim_count ||
			      memcmp(info.shape, tensor->shape, info.dim_count * sizeof *info.shape) == 0);
		}
		untouched = info;
		CHECK(wcx_file_tensor(sample->file, st->tensor_count, &info) == -EINVAL);
		CHECK(wcx_file_tensor(sample->file, SIZE_MAX, &info) == -EINVAL);
		CHECK(memcmp(&info, &untouched, sizeof info) == 0);
	}
}

static void file_read_gives_the_originals_bytes(void)
{
	struct sample_random random = { seed };

	for (int f = 0; f < FILES; f++) {
		const struct sample *sample = &samples[f];
		const uint64_t total = sample->original.bytes;
		uint8_t *dst = malloc(total);

		CHECK(wcx_file_read(sample->file, dst, total, 0, NULL, 0) == (ssize_t)total);
		CHECK(memcmp(dst, sample->original.data, total) == 0);
		for (int i = 0; i < 30; i++) {
			const uint64_t offset = sample_below(&random, total + 1), bytes = sample_below(&random, 5000);
			const uint64_t expected = bytes < total - offset ? bytes : total - offset;

			CHECK(wcx_file_read(sample->file, dst, bytes < total ? bytes : total, offset, NULL, 0) ==
			      (ssize_t)(expected < total ? expected : total));
			CHECK(memcmp(dst, sample->original.data + offset, expected) == 0);
		}
		CHECK(wcx_file_read(sample->file, dst, 1, total, NULL, 0) == 0);
		CHECK(wcx_file_read(sample->file, dst, 1, UINT64_MAX, NULL, 0) == 0);
		free(dst);
	}
}

/* Opens a file that must be refused; returns the -errno. */
static int refusal_of(const char *path)
{
	struct wcx_file *file = NULL;
	char error[ERROR_BYTES] = "";
	int r = wcx_file_open(path, &file, error, sizeof error);

	CHECK(r < 0 && file == NULL);
	CHECK(strncmp(error, path, strlen(path)) == 0 && strlen(error) > strlen(path));
	CHECK(wcx_file_open(path, &file, NULL, 0) == r && file == NULL);
	return r;
}

static void files_that_are_missing_damaged_or_too_new_are_refused(void)
{
	const struct sample_bytes *packed = &samples[SMALL].packed;
	struct sample_bytes copy = { malloc(packed->bytes), packed->bytes };
	char *path = sample_path(dir, "refused.wcx");

	CHECK(refusal_of(path) == -ENOENT);
	CHECK(refusal_of(dir) < 0);
	memcpy(copy.data, packed->data, packed->bytes);
	sample_write(path, (struct sample_bytes){ copy.data, copy.bytes - 1 });
	CHECK(refusal_of(path) == -EBADMSG);
	sample_write(path, (struct sample_bytes){ copy.data, 0 });
	CHECK(refusal_of(path) == -EBADMSG);
	copy.data[copy.bytes - 3] ^= 4;
	sample_write(path, copy);
	CHECK(refusal_of(path) == -EBADMSG);
	copy.data[copy.bytes - 3] ^= 4;
	copy.data[8]++; /* the version */
	seal(copy);
	sample_write(path, copy);
	CHECK(refusal_of(path) == -ENOTSUP);
	copy.data[8]--;
	seal(copy);
	copy.data[WCX_SUPERBLOCK_BYTES + 10] ^= 4; /* the header's first tile */
	sample_write(path, copy);
	CHECK(refusal_of(path) == -EBADMSG);
	unlink(path);
	free(path);
	free(copy.data);
	wcx_file_close(NULL);
}

/* What the tests below stand on. */
static void sample_files_have_tiles_of_every_kind(void)
{
	unsigned modes[WCX_TILE_MODE_COUNT] = { 0 }, predictors[WCX_PREDICTOR_COUNT] = { 0 },
		 transforms[WCX_TRANSFORM_COUNT] = { 0 };
	unsigned exceptions = 0, planes = 0, pairs = 0, zeros = 0, tables[5] = { 0 }, elems[9] = { 0 }, narrow = 0;

	for (size_t s = 0; s < wcx_container_superblock(samples[MIXED].container)->segment_count; s++) {
		const struct wcx_segment *seg = wcx_container_segment(samples[MIXED].container, s);
		const struct wcx_recipe *recipe = &seg->recipe;

		for (uint64_t t = seg->first_tile; t < seg->first_tile + seg->tile_count; t++) {
			struct wcx_tile_layout layout;
			struct wcx_tile_info info;

			wcx_container_tile(samples[MIXED].container, seg, t, &info);
			modes[info.mode]++;
			if (info.mode != WCX_TILE_CODED)
				continue;
			CHECK(wcx_tile_parse(&info.dims, recipe, samples[MIXED].packed.data + info.packed_offset,
					     info.packed_bytes, &layout) == WCX_OK);
			predictors[recipe->predictor]++;
			transforms[recipe->transform]++;
			elems[recipe->elem_bytes]++;
			exceptions += layout.exception_count > 0;
			planes += layout.plane_count > 0;
			narrow += info.dims.rows > 1 && info.dims.cols < seg->cols;
			for (uint32_t f = 0; f < recipe->field_count; f++) {
				tables[recipe->fields[f].table_count]++;
				pairs += recipe->fields[f].is_pair;
				zeros += recipe->fields[f].has_zero;
			}
		}
	}
	for (int i = 0; i < WCX_TILE_MODE_COUNT; i++)
		CHECK(modes[i] > 4);
	for (int i = 0; i < WCX_PREDICTOR_COUNT; i++)
		CHECK(predictors[i] > 4);
	for (int i = 0; i < WCX_TRANSFORM_COUNT; i++)
		CHECK(transforms[i] > 2);
	CHECK(exceptions > 2 && planes > 4 && pairs > 4 && zeros > 2 && narrow > 4);
	CHECK(tables[1] > 0 && tables[2] > 0 && tables[4] > 0);
	CHECK(elems[1] > 0 && elems[2] > 0 && elems[4] > 0 && elems[8] > 0);
}

/* --- sound loads --- */

static const unsigned thread_counts[] = { 1, 2, 5 };

static void the_whole_file_is_loaded_to_any_address_by_any_number_of_threads(void)
{
	struct sample_random random = { seed };

	for (size_t t = 0; t < COUNT_OF(thread_counts); t++) {
		struct wcx_loader *loader = open_loader(thread_counts[t]);

		for (int f = 0; f < FILES; f++) {
			for (size_t shift = 0; shift < 8; shift += f == MIXED || f == SMALL ? 1 : 5) {
				struct range range = whole(&samples[f], shift);

				atomic_store(&gpu.added, 0);
				CHECK(loads_right(loader, &samples[f], &range, 1, &random));
				CHECK(atomic_load(&gpu.added) == coded_tiles(&samples[f], &range, 1));
			}
		}
		wcx_loader_close(loader);
	}
}

static void each_tensor_is_loaded_by_itself(void)
{
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(3);

	for (int f = 0; f < FILES; f++) {
		for (size_t i = 0; i < samples[f].st->tensor_count; i++) {
			const struct wcx_tensor *tensor = &samples[f].st->tensors[i];

			for (size_t shift = 0; shift < 8; shift += f == MIXED ? 1 : 5) {
				struct range range = { tensor->offset, tensor->bytes, shift };

				if (!CHECK(loads_right(loader, &samples[f], &range, 1, &random)))
					fprintf(stderr, "\t%s of %s\n", tensor->name, samples[f].path);
			}
		}
	}
	wcx_loader_close(loader);
}

static void all_tensors_go_to_scattered_places_and_each_tile_is_decoded_once(void)
{
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];

	for (size_t t = 0; t < COUNT_OF(thread_counts); t++) {
		struct wcx_loader *loader = open_loader(thread_counts[t]);

		for (int f = 0; f < FILES; f++) {
			size_t count = ranges_of_tensors(&samples[f], ranges, t == 1 ? NULL : &random);

			atomic_store(&gpu.added, 0);
			CHECK(loads_right(loader, &samples[f], ranges, count, &random));
			CHECK(atomic_load(&gpu.added) == coded_tiles(&samples[f], ranges, count));
		}
		wcx_loader_close(loader);
	}
}

/* "Fastest at a multiple of 8": such tensors take no copies of what is decoded. */
static void tensors_of_the_packer_at_multiples_of_8_are_decoded_in_place(void)
{
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };

	for (size_t i = 0; i < samples[PACKED].st->tensor_count; i++) {
		struct range range = { samples[PACKED].st->tensors[i].offset, samples[PACKED].st->tensors[i].bytes, 0 };

		if (strncmp(samples[PACKED].st->tensors[i].name, "norm.", 5) == 0)
			continue; /* they share tiles */
		disarm();
		CHECK(loads_right(loader, &samples[PACKED], &range, 1, &random));
		CHECK(calls_of(CALL_STAGE) == 0);
	}
	wcx_loader_close(loader);
}

/* A constant tile of one byte value that goes to one place is filled there. */
static void constants_are_filled_in_place(void)
{
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };

	for (size_t i = 0; i < samples[MIXED].st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &samples[MIXED].st->tensors[i];
		struct range range = { tensor->offset, tensor->bytes, 3 };

		if (strcmp(tensor->name, "constant") != 0 && strcmp(tensor->name, "constant.f32") != 0 &&
		    strcmp(tensor->name, "zero.i64") != 0)
			continue;
		disarm();
		CHECK(loads_right(loader, &samples[MIXED], &range, 1, &random));
		CHECK(calls_of(CALL_FILL) > 1 && calls_of(CALL_COPY) == 0);
	}
	wcx_loader_close(loader);
}

static void every_range_of_a_small_file_is_loaded(void)
{
	struct wcx_loader *loader = open_loader(1);
	const size_t total = samples[SMALL].original.bytes;
	struct sample_random random = { seed };
	size_t wrong = 0;

	for (size_t offset = 0; offset <= total; offset++) {
		for (size_t bytes = offset % 29; offset + bytes <= total; bytes += 29) {
			struct range range = { offset, bytes, (offset + bytes) % 8 };

			wrong += !loads_right(loader, &samples[SMALL], &range, 1, &random);
		}
	}
	CHECK(wrong == 0);
	wcx_loader_close(loader);
}

static uint64_t clip(uint64_t offset, int64_t delta, uint64_t least, uint64_t most)
{
	if (delta < 0 && offset < least + (uint64_t)-delta)
		return least;
	offset += (uint64_t)delta;
	return offset < least ? least : offset > most ? most : offset;
}

/* An offset in a segment, at or near where a row of a tile begins or ends, or anywhere. */
static uint64_t draw_offset(const struct sample *sample, const struct wcx_segment *seg, struct sample_random *random)
{
	struct wcx_tile_info info;
	uint64_t offset;

	if (sample_below(random, 4) == 0)
		return seg->offset + sample_below(random, seg->bytes + 1);
	wcx_container_tile(sample->container, seg, seg->first_tile + sample_below(random, seg->tile_count), &info);
	offset = wcx_tile_row_offset(seg, &info, (uint32_t)sample_below(random, info.dims.rows));
	offset += sample_below(random, 2) * info.dims.cols * info.dims.elem_bytes;
	return clip(offset, (int64_t)sample_below(random, 7) - 3, seg->offset, seg->offset + seg->bytes);
}

static int compare_offsets(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

enum { RANGES_MAX = 12 };

/* Some ranges in one segment or in all, that may touch or be empty, in any order. */
static size_t draw_ranges(const struct sample *sample, struct range ranges[RANGES_MAX], struct sample_random *random)
{
	const size_t segments = wcx_container_superblock(sample->container)->segment_count;
	const size_t count = 1 + (size_t)sample_below(random, RANGES_MAX), cuts = 2 * count;
	const int in_one = sample_below(random, 3) > 0, are_aligned = sample_below(random, 3) == 0;
	size_t segment = (size_t)sample_below(random, segments);
	uint64_t offsets[2 * RANGES_MAX];

	for (size_t i = 0; i < cuts; i++) {
		if (!in_one)
			segment = (size_t)sample_below(random, segments);
		offsets[i] = draw_offset(sample, wcx_container_segment(sample->container, segment), random);
		if (i % 2 && sample_below(random, 3) == 0)
			offsets[i] = clip(offsets[i - 1], (int64_t)sample_below(random, 60), 0, sample->original.bytes);
	}
	qsort(offsets, cuts, sizeof *offsets, compare_offsets);
	for (size_t i = 0; i < count; i++) {
		const size_t other = (size_t)sample_below(random, i + 1);

		ranges[i] = ranges[other];
		ranges[other] = (struct range){ offsets[2 * i], offsets[2 * i + 1] - offsets[2 * i],
						are_aligned ? 0 : (size_t)sample_below(random, 8) };
	}
	return count;
}

/* A tile with bytes of several of them is decoded once all the same. */
static void load_random_ranges(const struct sample *sample, unsigned threads, unsigned times)
{
	struct wcx_loader *loader = open_loader(threads);
	struct sample_random random = { seed + threads };
	struct range ranges[RANGES_MAX];
	unsigned wrong = 0, repeated = 0;

	for (unsigned i = 0; i < times; i++) {
		const size_t count = draw_ranges(sample, ranges, &random);
		const int is_right = (atomic_store(&gpu.added, 0), loads_right(loader, sample, ranges, count, &random));

		repeated += atomic_load(&gpu.added) != coded_tiles(sample, ranges, count);
		if (is_right || wrong++)
			continue;
		for (size_t k = 0; k < count; k++)
			fprintf(stderr, "\t%s: number %u, wrong among offset %llu, %llu bytes\n", sample->path, i,
				(unsigned long long)ranges[k].offset, (unsigned long long)ranges[k].bytes);
	}
	CHECK(wrong == 0);
	CHECK(repeated == 0);
	wcx_loader_close(loader);
}

static void ranges_that_cut_elements_rows_and_tiles_are_loaded(void)
{
	load_random_ranges(&samples[SMALL], 1, 3000);
	load_random_ranges(&samples[SMALL], 3, 200);
	load_random_ranges(&samples[MIXED], 1, 400);
	load_random_ranges(&samples[MIXED], 3, 200);
	load_random_ranges(&samples[REFERENCE], 2, 40);
	load_random_ranges(&samples[PACKED], 2, 40);
}

/*
 * Two ranges in the same row of tiles, of which the second one begins lower in the matrix and further left: what has been
 * taken for the first is no prefix of the row.
 */
static void ranges_in_one_row_of_tiles_are_loaded(void)
{
	const struct wcx_segment *seg = wcx_container_segment(samples[MIXED].container, 1); /* 170 wide, tiles of 40 by 50 */
	const uint64_t start = seg->offset;
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	const struct range cases[][3] = {
		{ { start + 160, 5, 0 }, { start + 170 + 3, 20, 0 }, { 0, 0, 0 } },
		{ { start + 160, 5, 0 }, { start + 3 * 170 + 3, 20, 0 }, { start + 5 * 170 + 110, 20, 0 } },
		{ { start + 160, 5, 0 }, { start + 170 + 3, 60 * 170, 0 }, { 0, 0, 0 } },
		{ { start + 3, 5, 0 }, { start + 110, 5, 0 }, { start + 2 * 170 + 60, 5, 0 } },
		{ { start + 3, 170, 0 }, { start + 3 * 170 + 60, 5, 0 }, { start + 41 * 170 + 60, 5, 0 } },
	};

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		atomic_store(&gpu.added, 0);
		CHECK(loads_right(loader, &samples[MIXED], cases[i], 3, &random));
		CHECK(atomic_load(&gpu.added) == coded_tiles(&samples[MIXED], cases[i], 3));
	}
	wcx_loader_close(loader);
}

static void the_header_is_loaded_like_the_rest(void)
{
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };

	for (int f = 0; f < FILES; f++) {
		const uint64_t bytes = wcx_file_header_bytes(samples[f].file);
		const struct range ranges[] = { { 0, 8, 1 }, { 8, bytes - 10, 2 }, { bytes - 2, 5, 3 } };

		CHECK(loads_right(loader, &samples[f], ranges, COUNT_OF(ranges), &random));
	}
	wcx_loader_close(loader);
}

/* A GPU that takes few tiles at a time. */
static void batches_that_are_cut_short_are_continued(void)
{
	static const uint32_t limits[] = { 1, 2, 3, 7, 100 };
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];

	for (size_t i = 0; i < COUNT_OF(limits); i++) {
		struct wcx_loader *loader = open_loader(1 + (unsigned)i % 3);
		size_t count = ranges_of_tensors(&samples[MIXED], ranges, &random);

		gpu.items_max = limits[i];
		CHECK(loads_right(loader, &samples[MIXED], ranges, count, &random));
		CHECK(loads_right(loader, &samples[LONG], (struct range[]){ whole(&samples[LONG], i) }, 1, &random));
		CHECK(loads_right(loader, &samples[PACKED], (struct range[]){ whole(&samples[PACKED], 4 * i) }, 1, &random));
		wcx_loader_close(loader);
	}
	gpu.items_max = ITEMS_MAX;
}

static void a_batch_is_submitted_while_the_one_before_is_under_way(void)
{
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	const struct range range = whole(&samples[MIXED], 0);

	disarm();
	atomic_store(&gpu.overlapped, 0);
	CHECK(loads_right(loader, &samples[MIXED], &range, 1, &random));
	CHECK(calls_of(CALL_SUBMIT) > 10 && atomic_load(&gpu.overlapped) == calls_of(CALL_SUBMIT) - 1);
	wcx_loader_close(loader);
}

static void a_loader_takes_one_file_after_the_other(void)
{
	struct wcx_loader *loader = open_loader(3);
	struct sample_random random = { seed };

	for (int i = 0; i < 20; i++) {
		const struct sample *sample = &samples[i % 2 ? MIXED : SMALL];
		struct wcx_file *file = NULL;
		struct sample again = *sample;
		struct range range = whole(sample, (size_t)i % 8);

		CHECK(wcx_file_open(sample->path, &file, NULL, 0) == 0);
		again.file = file;
		CHECK(loads_right(loader, &again, &range, 1, &random));
		wcx_file_close(file);
	}
	wcx_loader_close(loader);
}

static void empty_targets_and_no_targets_are_fine(void)
{
	struct wcx_loader *loader = open_loader(2);
	const uint64_t total = samples[MIXED].original.bytes;
	const struct range ranges[] = { { 0, 0, 0 }, { 5000, 0, 3 }, { 5000, 0, 1 }, { total, 0, 1 }, { 4000, 2000, 0 } };
	struct sample_random random = { seed };
	struct memory memory;

	disarm();
	CHECK(wcx_load(loader, samples[MIXED].file, NULL, 0, NULL, NULL, 0) == 0);
	CHECK(loads_right(loader, &samples[MIXED], ranges, 4, &random));
	CHECK(calls_of(CALL_SUBMIT) == 0);
	CHECK(loads_right(loader, &samples[MIXED], ranges, 5, &random));
	make_memory(&memory, &samples[MIXED], ranges, 4, &random);
	for (size_t i = 0; i < 4; i++)
		memory.targets[i].dst = NULL;
	CHECK(load_into(loader, &samples[MIXED], &memory, NULL, 0) == 0);
	free_memory(&memory);
	wcx_loader_close(loader);
}

static void the_default_stream_will_do(void)
{
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };
	const struct range range = whole(&samples[MIXED], 0);
	struct memory memory;

	make_memory(&memory, &samples[MIXED], &range, 1, &random);
	finish_stream(&memory.stream);
	CHECK(wcx_load(loader, samples[MIXED].file, memory.targets, 1, NULL, NULL, 0) == 0);
	CHECK(memcmp(memory.bytes, memory.expected, memory.size) == 0);
	free_memory(&memory);
	wcx_loader_close(loader);
}

static void *load_and_read(void *arg)
{
	struct sample_random random = { seed + *(unsigned *)arg };
	struct wcx_loader *loader = open_loader(2);
	struct range ranges[RANGES_MAX];
	unsigned wrong = 0;

	for (int i = 0; i < 16; i++) {
		const struct sample *sample = &samples[i % 8 ? MIXED : REFERENCE];
		const size_t count = i % 2 ? draw_ranges(sample, ranges, &random) : 1;
		uint8_t bytes[600];

		if (i % 2 == 0)
			ranges[0] = whole(sample, (size_t)i % 8);
		wrong += !loads_right(loader, sample, ranges, count, &random);
		wrong += wcx_file_read(sample->file, bytes, sizeof bytes, ranges[0].offset / 2, NULL, 0) != sizeof bytes ||
			 memcmp(bytes, sample->original.data + ranges[0].offset / 2, sizeof bytes) != 0;
	}
	CHECK(wrong == 0);
	wcx_loader_close(loader);
	return NULL;
}

static void several_loaders_take_the_same_file_at_once(void)
{
	unsigned numbers[3] = { 0, 1, 2 };
	pthread_t threads[3];

	for (int i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, load_and_read, &numbers[i]) == 0);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

/* --- what is refused --- */

static void check_refused(const struct range *ranges, size_t count)
{
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };
	struct range placed[3]; /* the same, but of sizes for which there is memory */
	char error[ERROR_BYTES] = "";
	struct memory memory;

	disarm();
	for (size_t i = 0; i < count; i++)
		placed[i] = (struct range){ ranges[i].offset, ranges[i].bytes < 1 << 20 ? ranges[i].bytes : 0, 0 };
	make_memory(&memory, &samples[MIXED], placed, count, &random);
	for (size_t i = 0; i < count; i++)
		memory.targets[i].bytes = ranges[i].bytes;
	CHECK(load_into(loader, &samples[MIXED], &memory, error, sizeof error) == -EINVAL);
	CHECK(memcmp(memory.bytes, memory.before, memory.size) == 0);
	CHECK(calls_of(CALL_SUBMIT) == 0);
	CHECK(strncmp(error, samples[MIXED].path, strlen(samples[MIXED].path)) == 0 && strstr(error, "offset"));
	free_memory(&memory);
	wcx_loader_close(loader);
}

static void ranges_that_overlap_are_refused(void)
{
	check_refused((struct range[]){ { 100, 50, 0 }, { 149, 50, 0 } }, 2);
	check_refused((struct range[]){ { 100, 50, 0 }, { 51, 50, 0 } }, 2);
	check_refused((struct range[]){ { 100, 50, 0 }, { 100, 50, 0 } }, 2);
	check_refused((struct range[]){ { 900, 50, 0 }, { 120, 1, 0 }, { 100, 50, 0 } }, 3);
	check_refused((struct range[]){ { 0, 5000, 0 }, { 9000, 1, 0 }, { 4999, 2, 0 } }, 3);
}

static void ranges_that_are_not_within_the_file_are_refused(void)
{
	const uint64_t total = samples[MIXED].original.bytes;

	check_refused((struct range[]){ { 0, total + 1, 0 } }, 1);
	check_refused((struct range[]){ { total, 1, 0 } }, 1);
	check_refused((struct range[]){ { total + 1, 0, 0 } }, 1);
	check_refused((struct range[]){ { 5, total - 4, 0 } }, 1);
	check_refused((struct range[]){ { 0, 4, 0 }, { 5, UINT64_MAX - 3, 0 } }, 2);
	check_refused((struct range[]){ { UINT64_MAX, 1, 0 } }, 1);
	check_refused((struct range[]){ { UINT64_MAX - 3, 4, 0 } }, 1);
}

/* --- damage --- */

/* A packed file of which a test changes bytes; it is the same again when it is closed. */
static void change_byte(const struct sample *sample, uint64_t at, uint8_t mask)
{
	int fd = open(sample->path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	sample_require(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1, sample->path);
	byte ^= mask;
	sample_require(pwrite(fd, &byte, 1, (off_t)at) == 1, sample->path);
	close(fd);
}

/* What is said of a tile of which bytes of a tensor, or of the header, are wanted. */
static void tile_text(const struct sample *sample, const char *tensor, const struct wcx_segment *seg,
		      const struct wcx_tile_info *info, const char *why, char text[ERROR_BYTES])
{
	char name[80] = "the header";

	if (tensor)
		snprintf(name, sizeof name, "tensor `%s`", tensor);
	snprintf(text, ERROR_BYTES, "%s: %s, tile %llu (offset %llu of the original, packed at %llu): %s", sample->path,
		 name, (unsigned long long)(info->tile_index - seg->first_tile),
		 (unsigned long long)wcx_tile_row_offset(seg, info, 0), (unsigned long long)info->packed_offset, why);
}

/* The tensor that a byte belongs to; NULL for the header. */
static const char *tensor_at(const struct sample *sample, uint64_t offset)
{
	const char *name = NULL;

	for (size_t i = 0; i < sample->st->tensor_count; i++)
		if (offset >= sample->st->tensors[i].offset)
			name = sample->st->tensors[i].name;
	return name;
}

/* Loads a file with a damaged tile: whole, which fails, and all but the tile, which does not. */
static void check_damaged_tile(struct wcx_loader *loader, const struct sample *sample, const struct wcx_segment *seg,
			       const struct wcx_tile_info *info, struct sample_random *random)
{
	const uint64_t row_bytes = (uint64_t)info->dims.cols * info->dims.elem_bytes;
	const uint64_t from = wcx_tile_row_offset(seg, info, 0);
	const uint64_t to = wcx_tile_row_offset(seg, info, info->dims.rows - 1) + row_bytes;
	const struct range touching[] = { { from + row_bytes - 1, 1, 1 } };
	const struct range others[] = { { 0, from, 0 }, { to, sample->original.bytes - to, 1 } };
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct range range = whole(sample, (size_t)sample_below(random, 8));
	uint8_t byte;

	tile_text(sample, tensor_at(sample, from), seg, info, "damaged", text);
	CHECK(failure_of(loader, sample, &range, 1, random, error) == -EBADMSG);
	CHECK_TEXT(error, text);
	CHECK(failure_of(loader, sample, touching, 1, random, error) == -EBADMSG);
	CHECK(strstr(error, strstr(text, ", tile ")) != NULL);
	CHECK(wcx_file_read(sample->file, &byte, 1, from, error, sizeof error) == -EBADMSG);
	CHECK_TEXT(error, text);
	CHECK(loads_right(loader, sample, others, 2, random));
}

static void a_damaged_tile_is_named_and_harms_no_other(void)
{
	const struct sample *sample = &samples[MIXED];
	struct sample_random random = { seed };
	struct wcx_loader *loaders[] = { open_loader(1), open_loader(3) };

	for (size_t s = 1; s < wcx_container_superblock(sample->container)->segment_count; s++) {
		const struct wcx_segment *seg = wcx_container_segment(sample->container, s);
		uint64_t step = seg->tile_count > 6 ? seg->tile_count / 4 : 1;

		for (uint64_t t = 0; t < seg->tile_count && !seg->same_as; t += step) {
			struct wcx_tile_info info;
			uint64_t at;

			wcx_container_tile(sample->container, seg, seg->first_tile + t, &info);
			if (info.mode == WCX_TILE_CONSTANT || s == 1) /* of the first there is a twin */
				continue;
			at = info.packed_offset + sample_below(&random, info.packed_bytes);
			change_byte(sample, at, 0x10);
			check_damaged_tile(loaders[t % 2], sample, seg, &info, &random);
			change_byte(sample, at, 0x10);
		}
	}
	for (int i = 0; i < 2; i++) {
		CHECK(loads_right(loaders[i], sample, (struct range[]){ whole(sample, 0) }, 1, &random));
		wcx_loader_close(loaders[i]);
	}
}

static const struct wcx_tensor *tensor_named(const struct sample *sample, const char *name)
{
	for (size_t i = 0; i < sample->st->tensor_count; i++)
		if (strcmp(sample->st->tensors[i].name, name) == 0)
			return &sample->st->tensors[i];
	sample_require(0, name);
	return NULL;
}

static const struct wcx_segment *segment_of(const struct sample *sample, const char *tensor)
{
	return wcx_container_segment(sample->container,
				     wcx_container_segment_at(sample->container, tensor_named(sample, tensor)->offset));
}

/* Of a tile with bytes of two tensors, and of tiles that two tensors have, the one that is wanted. */
static void damage_names_the_tensor_that_is_wanted(void)
{
	static const char *const wanted[] = { "pool.a", "pool.b", "squares", "again" };
	const struct sample *sample = &samples[MIXED];
	struct wcx_loader *loader = open_loader(2);
	struct sample_random random = { seed };

	for (size_t i = 0; i < COUNT_OF(wanted); i++) {
		const struct wcx_tensor *tensor = tensor_named(sample, wanted[i]);
		const struct wcx_segment *seg = segment_of(sample, wanted[i]);
		struct range range = { tensor->offset, tensor->bytes, 0 };
		char text[ERROR_BYTES], error[ERROR_BYTES];
		struct wcx_tile_info info;

		wcx_container_tile(sample->container, seg, seg->first_tile + 1, &info); /* 277 of pool.a, 223 of pool.b */
		tile_text(sample, wanted[i], seg, &info, "damaged", text);
		change_byte(sample, info.packed_offset + 7, 1);
		CHECK(failure_of(loader, sample, &range, 1, &random, error) == -EBADMSG);
		CHECK_TEXT(error, text);
		change_byte(sample, info.packed_offset + 7, 1);
	}
	wcx_loader_close(loader);
}

/* Changes a byte of a tile, counted from its end if negative, in such a way that the checksums are right. */
static void forge_tile(struct sample_bytes packed, const struct wcx_container *c, const struct wcx_tile_info *info, int at)
{
	const struct wcx_superblock *sb = wcx_container_superblock(c);
	uint8_t *tile = packed.data + info->packed_offset;
	uint8_t *entry = packed.data + sb->index_offset + sb->segment_count * WCX_SEGMENT_BYTES +
			 sb->field_count * WCX_FIELD_BYTES + info->tile_index * WCX_TILE_ENTRY_BYTES;
	struct wcx_tile_info forged = *info;

	tile[at < 0 ? (int)info->packed_bytes + at : at] ^= 0x3F;
	forged.checksum = wcx_checksum32(tile, info->packed_bytes);
	wcx_tile_entry_write(&forged, entry);
	seal(packed);
}

/* A copy of a file in which tiles of a tensor are forged; the caller closes it. */
static struct sample forge(const struct sample *sample, const char *tensor, const uint64_t *tiles, size_t count, int at)
{
	const struct wcx_segment *seg = segment_of(sample, tensor);
	struct sample forged = { .path = sample_path(dir, "forged.wcx") };

	forged.original = (struct sample_bytes){ malloc(sample->original.bytes), sample->original.bytes };
	memcpy(forged.original.data, sample->original.data, sample->original.bytes);
	forged.packed = (struct sample_bytes){ malloc(sample->packed.bytes), sample->packed.bytes };
	memcpy(forged.packed.data, sample->packed.data, sample->packed.bytes);
	for (size_t i = 0; i < count; i++) {
		struct wcx_tile_info info;

		wcx_container_tile(sample->container, seg, seg->first_tile + tiles[i], &info);
		forge_tile(forged.packed, sample->container, &info, at);
	}
	sample_write(forged.path, forged.packed);
	open_sample(&forged);
	return forged;
}

/* What only the decoder sees: in the head of a tile, in its payload, or in a frame of Zstandard. */
static void tiles_that_do_not_decode_are_named(void)
{
	static const struct {
		const char *tensor;
		uint64_t tiles[2];
		int at;
	} cases[] = {
		{ "squares", { 5, 6 }, -1 },    { "squares", { 0, 3 }, 0 }, { "left", { 9, 12 }, -1 },
		{ "wide", { 1, 3 }, -2 },       { "both", { 4, 5 }, -1 },   { "folded", { 1, 4 }, -1 },
		{ "odd", { 2, 8 }, 0 },         { "sparse", { 0, 2 }, -1 }, { "zipped", { 1, 2 }, 0 },
		{ "zipped.rows", { 2, 3 }, 1 }, { "above", { 3, 4 }, -1 },
	};
	struct sample_random random = { seed };

	for (size_t i = 0; i < 4 * COUNT_OF(cases); i++) {
		const char *tensor = cases[i / 4].tensor;
		struct sample forged = forge(&samples[MIXED], tensor, cases[i / 4].tiles, 2, cases[i / 4].at);
		const struct wcx_segment *seg = segment_of(&forged, tensor);
		const struct range ranges[] = { { 0, seg->offset, 0 },
						{ seg->offset, seg->bytes, i % 2 },
						{ seg->offset + seg->bytes, 30000, 0 } };
		struct wcx_loader *loader = open_loader(i % 4 < 2 ? 1 : 2);
		char text[ERROR_BYTES], error[ERROR_BYTES];
		struct wcx_tile_info info;
		uint8_t byte;

		wcx_container_tile(forged.container, seg, seg->first_tile + cases[i / 4].tiles[0], &info);
		tile_text(&forged, tensor, seg, &info, "damaged", text);
		CHECK(wcx_file_read(forged.file, &byte, 1, wcx_tile_row_offset(seg, &info, 0), NULL, 0) == -EBADMSG);
		CHECK(failure_of(loader, &forged, ranges + 1, 1, &random, error) == -EBADMSG);
		CHECK_TEXT(error, text);
		if (strcmp(tensor, "squares") != 0) { /* which is there twice */
			CHECK(failure_of(loader, &forged, ranges, 3, &random, error) == -EBADMSG);
			CHECK_TEXT(error, text);
			CHECK(loads_right(loader, &forged, ranges, 1, &random));
		}
		wcx_loader_close(loader);
		close_sample(&forged);
	}
}

/* The first in the order of adding, although what is no coded tile stands in front of it. */
static void of_two_tiles_in_a_batch_that_do_not_decode_the_first_is_named(void)
{
	static const struct sample_part parts[] = {
		{ { "a", "I8", "[40,1000]", 40000, SAMPLE_GAUSSIAN, 9 }, 1000, 1, 1000, &sample_1_byte, 0, 0 },
	};
	static const uint64_t tiles[] = { 17, 15, 30 };
	struct sample sample = { .path = sample_path(dir, "batch.wcx"), .original = sample_original(parts, 1) };
	struct sample_random random = { seed };
	struct wcx_loader *loader = open_loader(1);
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct wcx_tile_info info;
	struct sample forged;

	for (size_t i = 0; i < 20; i++) { /* constants and noise, which is stored; coded are 10 to 19, 30 to 39 */
		uint8_t *row = sample.original.data + 8 + wcx_le64_read(sample.original.data) + 1000 * (i + i / 10 * 10);

		sample_fill(&random, i % 2 ? SAMPLE_CONSTANT : SAMPLE_UNIFORM, 0, row, 1000);
	}
	sample.packed = sample_image(sample.original, parts, 1);
	sample_write(sample.path, sample.packed);
	open_sample(&sample);
	forged = forge(&sample, "a", tiles, COUNT_OF(tiles), -1);
	const struct wcx_segment *seg = segment_of(&forged, "a");
	const struct range range = { seg->offset, seg->bytes, 0 };

	wcx_container_tile(forged.container, seg, seg->first_tile + 15, &info);
	tile_text(&forged, "a", seg, &info, "damaged", text);
	CHECK(info.mode == WCX_TILE_CODED);
	CHECK(failure_of(loader, &forged, &range, 1, &random, error) == -EBADMSG);
	CHECK_TEXT(error, text);
	wcx_loader_close(loader);
	close_sample(&forged);
	close_sample(&sample);
}

/* --- files that change while they are read --- */

static const struct sample *victim;

static void cut_victim(void)
{
	sample_require(truncate(victim->path, (off_t)victim->packed.bytes / 3) == 0, victim->path);
}

static void mend_victim(void)
{
	sample_write(victim->path, victim->packed);
}

static void overwrite_victim(void)
{
	struct sample_random random = { seed };
	int fd = open(victim->path, O_RDWR | O_CLOEXEC);
	uint8_t *bytes = malloc(victim->packed.bytes);

	scribble(&random, bytes, victim->packed.bytes);
	sample_require(pwrite(fd, bytes, victim->packed.bytes, 0) == (ssize_t)victim->packed.bytes, victim->path);
	close(fd);
	free(bytes);
}

static void file_that_is_cut_or_overwritten_while_it_is_read_is_damaged(void)
{
	static void (*const meddle[])(void) = { cut_victim, overwrite_victim };
	struct sample_random random = { seed };

	victim = &samples[MIXED];
	for (unsigned i = 0; i < 24; i++) {
		struct wcx_loader *loader = open_loader(1 + i / 2 % 2 * 2);
		struct range range = whole(victim, i % 8);
		char error[ERROR_BYTES];

		rearm(i / 4 % 2 ? CALL_SUBMIT : CALL_READ, i / 8 * 3, WCX_OK, meddle[i % 2]);
		CHECK(failure_of(loader, victim, &range, 1, &random, error) == -EBADMSG);
		CHECK(strstr(error, ": damaged") && strstr(error, ", tile ") && strstr(error, "(offset "));
		disarm();
		mend_victim();
		CHECK(loads_right(loader, victim, &range, 1, &random));
		wcx_loader_close(loader);
	}
}

/* The tile that is missing is read because it stands beside those that are wanted, the last of which are in front of it. */
static void file_that_is_cut_names_a_tensor_of_the_tile(void)
{
	const struct sample *sample = &samples[MIXED];
	const struct wcx_segment *seg = segment_of(sample, "left"); /* 301 wide, tiles of 32 by 70 */
	const struct range ranges[] = { { seg->offset, 32 * 301 + 75, 0 }, { sample->original.bytes - 9, 9, 0 } };
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct wcx_tile_info info;

	wcx_container_tile(sample->container, seg, seg->first_tile + 5 + 3, &info);
	tile_text(sample, "left", seg, &info, "damaged", text);
	sample_require(truncate(sample->path, (off_t)info.packed_offset) == 0, sample->path);
	CHECK(failure_of(loader, sample, ranges, 2, &random, error) == -EBADMSG);
	CHECK_TEXT(error, text);
	sample_write(sample->path, sample->packed);
	wcx_loader_close(loader);
}

/* --- failures --- */

/* Tensors at odd and at even places: all calls that there are. */
static size_t ranges_with_all_calls(struct range ranges[SAMPLE_PARTS_MAX])
{
	const size_t count = ranges_of_tensors(&samples[MIXED], ranges, NULL);

	for (size_t i = 0; i < count; i++)
		ranges[i].shift = i % 3 ? 0 : i % 8;
	return count;
}

/* Lets a call fail in turn, from the first to the last; each time nothing is left, and the loader is as good as before. */
static void fail_in_turn(enum call call, enum wcx_result result, int errnum, unsigned threads)
{
	struct wcx_loader *loader = open_loader(threads);
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];
	const size_t count = ranges_with_all_calls(ranges);
	char error[ERROR_BYTES];
	unsigned calls, step;
	long before;

	disarm();
	CHECK(loads_right(loader, &samples[MIXED], ranges, count, &random));
	calls = calls_of(call);
	before = atomic_load(&alive);
	CHECK(calls > 0);
	step = calls > 24 ? calls / 12 : 1;
	for (unsigned i = 0; i < calls; i += i < 6 || i + 4 >= calls ? 1 : step) {
		rearm(call, i, result, NULL);
		if (!CHECK(failure_of(loader, &samples[MIXED], ranges, count, &random, error) == errnum))
			fprintf(stderr, "\tcall %d failed, number %u of %u: %s\n", (int)call, i, calls, error);
		disarm();
		CHECK(loads_right(loader, &samples[MIXED], ranges, count, &random));
		CHECK(threads > 1 || atomic_load(&alive) == before); /* several may need more scratch than they did before */
	}
	wcx_loader_close(loader);
}

static void every_call_of_the_gpu_may_fail(void)
{
	for (unsigned threads = 1; threads <= 3; threads += 2) {
		fail_in_turn(CALL_FOLLOW, WCX_DEVICE_FAILED, -EIO, threads);
		fail_in_turn(CALL_STAGE, WCX_OK, -ENOMEM, threads);
		fail_in_turn(CALL_ADD, WCX_BAD_DATA, -EBADMSG, threads);
		fail_in_turn(CALL_SUBMIT, WCX_DEVICE_FAILED, -EIO, threads);
		fail_in_turn(CALL_COPY, WCX_DEVICE_FAILED, -EIO, threads);
		fail_in_turn(CALL_FILL, WCX_DEVICE_FAILED, -EIO, threads);
		fail_in_turn(CALL_WAIT, WCX_DEVICE_FAILED, -EIO, threads);
	}
}

static void every_read_may_fail_with_its_errno(void)
{
	fail_in_turn(CALL_READ, WCX_OK, -READ_ERRNO, 1);
	fail_in_turn(CALL_READ, WCX_OK, -READ_ERRNO, 3);
}

static void a_failed_read_is_named(void)
{
	const struct sample *sample = &samples[MIXED];
	const struct wcx_segment *seg = segment_of(sample, "folded");
	const struct range range = { seg->offset, seg->bytes, 0 };
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct wcx_tile_info info;

	wcx_container_tile(sample->container, seg, seg->first_tile, &info);
	tile_text(sample, "folded", seg, &info, strerror(READ_ERRNO), text);
	rearm(CALL_READ, 0, WCX_OK, NULL);
	CHECK(failure_of(loader, sample, &range, 1, &random, error) == -READ_ERRNO);
	CHECK_TEXT(error, text);
	disarm();
	wcx_loader_close(loader);
}

static void every_allocation_of_a_load_may_fail(void)
{
	struct wcx_loader *loader = open_loader(3);
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];
	const size_t count = ranges_with_all_calls(ranges);
	struct memory memory;
	unsigned failed = 0;
	int r = -1;

	for (unsigned i = 0; r < 0 && i < 1000; i++) {
		char error[ERROR_BYTES] = "";

		make_memory(&memory, &samples[MIXED], ranges, count, &random);
		rearm(CALL_ALLOCATE, i, WCX_OK, NULL);
		r = load_into(loader, &samples[MIXED], &memory, error, sizeof error);
		disarm();
		if (r < 0)
			CHECK(rest_is_untouched(&memory));
		else
			CHECK(memcmp(memory.bytes, memory.expected, memory.size) == 0);
		free_memory(&memory);
		failed += r < 0;
		/* The text names the file that the memory was for; threads are for none. */
		if (!CHECK(r == 0 || (r == -ENOMEM && (strstr(error, samples[MIXED].path) == error ||
						       strcmp(error, "no memory for threads") == 0))))
			fprintf(stderr, "\tallocation %u: \"%s\"\n", i, error);
	}
	CHECK(r == 0 && failed >= 4);
	wcx_loader_close(loader);
}

static void every_allocation_of_opening_may_fail(void)
{
	struct wcx_file *file = NULL;
	struct wcx_loader *loader = NULL;
	unsigned failed = 0;

	for (unsigned i = 0; !file && i < 1000; i++) {
		char error[ERROR_BYTES] = "";
		int r;

		rearm(CALL_ALLOCATE, i, WCX_OK, NULL);
		r = wcx_file_open(samples[SMALL].path, &file, error, sizeof error);
		disarm();
		CHECK(r == 0 ? file != NULL : r == -ENOMEM && !file && strlen(error) > 0);
		failed += r < 0;
	}
	CHECK(file && failed >= 4);
	wcx_file_close(file);
	for (unsigned i = 0; !loader && i < 1000; i++) {
		char error[ERROR_BYTES] = "";
		int r;

		rearm(CALL_ALLOCATE, i, WCX_OK, NULL);
		r = wcx_loader_open(0, 2, &loader, error, sizeof error);
		disarm();
		CHECK(r == 0 ? loader != NULL : r == -ENOMEM && !loader && strlen(error) > 0);
	}
	CHECK(loader != NULL);
	wcx_loader_close(loader);
}

static void opening_a_loader_fails_as_the_gpu_does(void)
{
	static const struct {
		enum wcx_result result;
		int errnum;
	} cases[] = { { WCX_NO_DEVICE, -ENODEV }, { WCX_NO_MEMORY, -ENOMEM }, { WCX_DEVICE_FAILED, -EIO } };
	struct wcx_loader *loader = NULL;
	char error[ERROR_BYTES];

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		rearm(CALL_OPEN, 0, cases[i].result, NULL);
		CHECK(wcx_loader_open(3, 2, &loader, error, sizeof error) == cases[i].errnum && !loader);
		CHECK(strstr(error, "3") && strstr(error, "made to fail"));
		disarm();
	}
	CHECK(wcx_loader_open(-1, 2, &loader, NULL, 0) == -ENODEV && !loader);
	wcx_loader_close(NULL);
}

/* --- sizes of things --- */

static void no_threads_stand_for_as_many_as_there_are_cores_up_to_16(void)
{
	static const struct {
		long cores;
		unsigned threads;
	} cases[] = { { 1, 1 }, { 7, 7 }, { 15, 15 }, { 16, 16 }, { 17, 16 }, { 200, 16 } };

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct wcx_loader *loader;

		made_up_cores = cases[i].cores;
		loader = open_loader(0);
		CHECK(atomic_load(&gpu.lane_count) == 2 * cases[i].threads);
		wcx_loader_close(loader);
	}
	made_up_cores = 2;
	for (unsigned threads = 0; threads <= 40; threads += 20) {
		struct wcx_loader *loader = open_loader(threads);
		struct sample_random random = { seed };
		struct range range = whole(&samples[MIXED], 0);

		CHECK(atomic_load(&gpu.lane_count) == (threads ? 2 * threads : 4));
		CHECK(loads_right(loader, &samples[MIXED], &range, 1, &random));
		wcx_loader_close(loader);
	}
	made_up_cores = 0;
}

static void more_than_256_threads_are_refused(void)
{
	static const unsigned counts[] = { 257, UINT_MAX / 2 + 1, UINT_MAX };
	struct wcx_loader *loader = NULL;
	char error[ERROR_BYTES];

	for (size_t i = 0; i < COUNT_OF(counts); i++) {
		error[0] = '\0';
		CHECK(wcx_loader_open(0, counts[i], &loader, error, sizeof error) == -EINVAL && !loader);
		CHECK(strlen(error) > 0);
	}
}

/* Fills buffers of every size with an error, by one of the functions that have one. */
static int fail_into(int way, struct wcx_loader *loader, char *error, size_t error_bytes)
{
	const struct wcx_target target = { samples[SMALL].original.bytes, 1, NULL };
	struct wcx_loader *none = NULL;
	struct wcx_file *file = NULL;
	uint8_t byte;
	int r;

	switch (way) {
	case 0:
		return wcx_load(loader, samples[SMALL].file, &target, 1, NULL, error, error_bytes);
	case 1:
		return wcx_file_open("/nowhere/is.wcx", &file, error, error_bytes);
	case 2:
		return wcx_loader_open(-1, 1, &none, error, error_bytes);
	}
	change_byte(&samples[SMALL], WCX_SUPERBLOCK_BYTES + 20, 1);
	r = (int)wcx_file_read(samples[SMALL].file, &byte, 1, 20, error, error_bytes);
	change_byte(&samples[SMALL], WCX_SUPERBLOCK_BYTES + 20, 1);
	return r;
}

static void errors_fit_buffers_of_any_size(void)
{
	static const int errnums[] = { -EINVAL, -ENOENT, -ENODEV, -EBADMSG };
	struct wcx_loader *loader = open_loader(1);

	for (int way = 0; way < 4; way++) {
		char text[ERROR_BYTES] = "", error[ERROR_BYTES];

		CHECK(fail_into(way, loader, text, sizeof text) == errnums[way] && strlen(text) > 20);
		CHECK(fail_into(way, loader, NULL, 0) == errnums[way]);
		CHECK(fail_into(way, loader, NULL, 100) == errnums[way]);
		for (size_t bytes = 0; bytes < 20; bytes++) {
			memset(error, 'x', sizeof error);
			CHECK(fail_into(way, loader, error, bytes) == errnums[way]);
			CHECK(error[bytes] == 'x' && (bytes == 0 || strlen(error) == bytes - 1));
			CHECK(bytes == 0 || strncmp(error, text, bytes - 1) == 0);
		}
	}
	wcx_loader_close(loader);
}

int main(int argc, char **argv)
{
	const unsigned files = sample_dir_count("/proc/self/fd");
	int r;

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	make_samples();
	files_are_opened_read_and_described();
	file_read_gives_the_originals_bytes();
	files_that_are_missing_damaged_or_too_new_are_refused();
	sample_files_have_tiles_of_every_kind();
	the_whole_file_is_loaded_to_any_address_by_any_number_of_threads();
	each_tensor_is_loaded_by_itself();
	all_tensors_go_to_scattered_places_and_each_tile_is_decoded_once();
	tensors_of_the_packer_at_multiples_of_8_are_decoded_in_place();
	constants_are_filled_in_place();
	every_range_of_a_small_file_is_loaded();
	ranges_that_cut_elements_rows_and_tiles_are_loaded();
	ranges_in_one_row_of_tiles_are_loaded();
	the_header_is_loaded_like_the_rest();
	batches_that_are_cut_short_are_continued();
	a_batch_is_submitted_while_the_one_before_is_under_way();
	a_loader_takes_one_file_after_the_other();
	empty_targets_and_no_targets_are_fine();
	the_default_stream_will_do();
	several_loaders_take_the_same_file_at_once();
	ranges_that_overlap_are_refused();
	ranges_that_are_not_within_the_file_are_refused();
	a_damaged_tile_is_named_and_harms_no_other();
	damage_names_the_tensor_that_is_wanted();
	tiles_that_do_not_decode_are_named();
	of_two_tiles_in_a_batch_that_do_not_decode_the_first_is_named();
	file_that_is_cut_or_overwritten_while_it_is_read_is_damaged();
	file_that_is_cut_names_a_tensor_of_the_tile();
	every_call_of_the_gpu_may_fail();
	every_read_may_fail_with_its_errno();
	a_failed_read_is_named();
	every_allocation_of_a_load_may_fail();
	every_allocation_of_opening_may_fail();
	opening_a_loader_fails_as_the_gpu_does();
	no_threads_stand_for_as_many_as_there_are_cores_up_to_16();
	more_than_256_threads_are_refused();
	errors_fit_buffers_of_any_size();
	for (int i = 0; i < FILES; i++)
		close_sample(&samples[i]);
	sample_dir_remove(dir);
	CHECK(atomic_load(&gpu.loaders) == 0);
	CHECK(sample_dir_count("/proc/self/fd") == files);
	r = check_report();
	if (r)
		fprintf(stderr, "the seed is %llu\n", (unsigned long long)seed);
	return r;
}
