/* SPDX-License-Identifier: MIT */
/* Decoders: lending batches, counting what was decoded where, and tiles of mode ZSTD. */
#include "fs/read/decoder.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "codec/decode_variant.h"
#include "codec/trial_tile.h"
#include "cuda/gpu_decode.h"
#include "fs/format/container.h"
#include "fs/read/pinned_range.h"
#include "tests/fixtures/sample_image.h"
#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

/* --- lending --- */

enum { LENT_MAX = 3, BORROWERS = 12, BORROWINGS = 300 };

struct lending {
	struct wcx_decoder *decoder;
	atomic_uint lent, most, served;
};

static void *borrow_often(void *user)
{
	struct lending *lending = user;

	for (int i = 0; i < BORROWINGS; i++) {
		struct wcx_decode_batch *batch = wcx_decoder_borrow(lending->decoder);
		const unsigned lent = atomic_fetch_add(&lending->lent, 1) + 1;
		unsigned most = atomic_load(&lending->most);

		while (lent > most && !atomic_compare_exchange_weak(&lending->most, &most, lent))
			;
		memset(batch->packed, i, 1000); /* no other thread may see this */
		sched_yield();
		atomic_fetch_add(&lending->served, batch->packed[0] == (uint8_t)i && batch->packed[999] == (uint8_t)i);
		atomic_fetch_sub(&lending->lent, 1);
		wcx_decoder_return(lending->decoder, batch);
	}
	return NULL;
}

static void no_more_batches_are_lent_than_the_limit(void)
{
	struct lending lending = { .decoder = NULL };
	pthread_t threads[BORROWERS];

	sample_require(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &lending.decoder, NULL) == 0, "wcx_decoder_create");
	wcx_decoder_limit(lending.decoder, LENT_MAX);
	for (int i = 0; i < BORROWERS; i++)
		CHECK(pthread_create(&threads[i], NULL, borrow_often, &lending) == 0);
	for (int i = 0; i < BORROWERS; i++)
		pthread_join(threads[i], NULL);
	CHECK(lending.served == BORROWERS * BORROWINGS && lending.most <= LENT_MAX);
	wcx_decoder_free(lending.decoder);
}

/* --- what was decoded where: a fake GPU, which decodes on the CPU, or fails --- */

static bool gpu_exists, gpu_fails, gpu_is_fast, gpu_refuses; /* to pin memory */
static int gpu_device;
static unsigned gpu_calls, release_count;
static atomic_uint pin_count, pinned_dst_count, pinned_packed_count, allocated_count, checked_count;

WRAPPED(enum wcx_result, wcx_gpu_open, int device, unsigned calls, struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES])
{
	gpu_device = device;
	gpu_calls = calls;
	*ret = (struct wcx_gpu *)(void *)&gpu_exists;
	snprintf(name, WCX_GPU_NAME_BYTES, "fake");
	return gpu_exists ? WCX_OK : WCX_NO_DEVICE;
}

WRAPPED(void, wcx_gpu_free, struct wcx_gpu *gpu)
{
	(void)gpu;
}

WRAPPED(bool, wcx_gpu_map, struct wcx_gpu *gpu, void *memory, size_t bytes)
{
	(void)gpu, (void)memory, (void)bytes;
	pin_count++;
	return !gpu_refuses;
}

WRAPPED(void, wcx_gpu_unmap, struct wcx_gpu *gpu, void *memory, size_t bytes)
{
	(void)gpu, (void)memory, (void)bytes;
	pin_count--;
}

WRAPPED(void *, wcx_gpu_alloc, struct wcx_gpu *gpu, size_t bytes)
{
	(void)gpu;
	if (gpu_refuses)
		return NULL;
	allocated_count++;
	return malloc(bytes);
}

WRAPPED(void, wcx_gpu_dealloc, struct wcx_gpu *gpu, void *memory, size_t bytes)
{
	(void)gpu;
	(void)bytes;
	allocated_count -= memory != NULL;
	free(memory);
}

WRAPPED(void, wcx_gpu_release_idle, struct wcx_gpu *gpu, uint64_t idle_ms)
{
	(void)gpu, (void)idle_ms;
	release_count++;
}

WRAPPED(struct wcx_gpu_memory, wcx_gpu_get_memory, struct wcx_gpu *gpu)
{
	(void)gpu;
	return (struct wcx_gpu_memory){ 5, 7 };
}

WRAPPED(void, wcx_gpu_start, struct wcx_gpu *gpu, const struct wcx_gpu_batch *batch, struct wcx_gpu_call *call)
{
	(void)gpu;
	*call = (struct wcx_gpu_call){ .batch = *batch };
}

WRAPPED(bool, wcx_gpu_wait, struct wcx_gpu *gpu, struct wcx_gpu_call *call)
{
	(void)gpu, (void)call;
	return false;
}

WRAPPED(enum wcx_result, wcx_gpu_finish, struct wcx_gpu *gpu, struct wcx_gpu_call *call)
{
	const struct wcx_gpu_batch *batch = &call->batch;
	struct wcx_tile_job *jobs = batch->jobs;
	const size_t job_count = batch->job_count;
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_find("portable"));

	(void)gpu;
	/* Like a real one, it overwrites the packed memory behind the last tile. */
	for (size_t i = 0; i < job_count && gpu_is_fast; i++)
		jobs[i].result = jobs[i].src[0] || jobs[i].src[1] || jobs[i].src[2] ? WCX_OK : WCX_BAD_DATA;
	if (gpu_is_fast) {
		if (batch->packed)
			memset(batch->packed + (jobs[job_count - 1].src - batch->packed) + jobs[job_count - 1].src_bytes, 0,
			       512);
		wcx_decode_scratch_free(scratch);
		return WCX_OK;
	}
	pinned_packed_count += batch->packed != NULL;
	for (size_t i = 0; i < job_count; i++)
		pinned_dst_count += batch->dst_is_pinned && batch->dst_is_pinned[i];
	for (size_t i = 0; i < job_count && !gpu_fails; i++)
		if (jobs[i].mode == WCX_TILE_CODED)
			wcx_tile_decode(&jobs[i], scratch);
	checked_count += batch->checksums ? job_count : 0;
	for (size_t i = 0; i < job_count && !gpu_fails && batch->checksums; i++)
		if (jobs[i].mode == WCX_TILE_CODED && wcx_checksum32(jobs[i].src, jobs[i].src_bytes) != batch->checksums[i])
			jobs[i].result = WCX_BAD_DATA;
	wcx_decode_scratch_free(scratch);
	return gpu_fails ? WCX_DEVICE_FAILED : WCX_OK;
}

static size_t make_frame(uint8_t *tile, uint8_t *frame);

/* Decodes a batch of two coded tiles, one of mode ZSTD and a damaged one, and tells what was counted. */
static struct wcx_decoder_stats count_batch(enum wcx_decoder_kind kind, size_t *coded_bytes_ret, size_t *zstd_bytes_ret)
{
	enum { ZSTD_BYTES = 3000, JOBS = 4 };
	struct wcx_trial_tile *trial = wcx_trial_tile_create();
	static uint8_t tile[ZSTD_BYTES], frame[2 * ZSTD_BYTES], dst[JOBS][WCX_TILE_MAX_BYTES];
	struct wcx_decoder_stats stats;
	struct wcx_decoder *decoder;
	struct wcx_decode_batch *batch;

	sample_require(wcx_decoder_create(kind, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	batch = wcx_decoder_borrow(decoder);
	for (size_t i = 0; i < JOBS; i++) {
		batch->jobs[i] = wcx_trial_tile_job(trial);
		batch->jobs[i].dst = dst[i];
	}
	*coded_bytes_ret = batch->jobs[0].dst_bytes;
	*zstd_bytes_ret = ZSTD_BYTES;
	batch->jobs[2] = (struct wcx_tile_job){
		.dims = { 1, ZSTD_BYTES, 1 },
		.mode = WCX_TILE_ZSTD,
		.recipe = &sample_1_byte_plain,
		.src = frame,
		.src_bytes = make_frame(tile, frame),
		.dst = dst[2],
		.dst_bytes = ZSTD_BYTES,
	};
	batch->jobs[3].src_bytes -= 4;
	wcx_decoder_run(decoder, batch, JOBS, NULL);
	CHECK(batch->jobs[1].result == WCX_OK && batch->jobs[2].result == WCX_OK && batch->jobs[3].result != WCX_OK);
	wcx_decoder_return(decoder, batch);
	wcx_decoder_get_stats(decoder, &stats);
	wcx_decoder_free(decoder);
	wcx_trial_tile_free(trial);
	return stats;
}

static void decoded_bytes_count_for_whoever_decoded_them(void)
{
	struct wcx_decoder_stats stats;
	size_t coded, zstd;

	stats = count_batch(WCX_DECODER_CPU, &coded, &zstd);
	CHECK(stats.cpu.bytes == 2 * coded + zstd && stats.cpu.batches == 1 && stats.cpu.ns > 0);
	CHECK(stats.gpu.bytes == 0 && stats.gpu.batches == 0 && stats.gpu.ns == 0 && !stats.gpu_lost);
	gpu_exists = true;
	stats = count_batch(WCX_DECODER_CUDA, &coded, &zstd);
	CHECK(stats.gpu.bytes == 2 * coded && stats.gpu.batches == 1 && stats.gpu.ns > 0 && !stats.gpu_lost);
	CHECK(stats.gpu_device_bytes == 5 && stats.gpu_pinned_bytes == 7);
	CHECK(stats.cpu.bytes == zstd && stats.cpu.batches == 1);
	gpu_fails = true;
	stats = count_batch(WCX_DECODER_CUDA, &coded, &zstd);
	CHECK(stats.gpu.bytes == 0 && stats.gpu_lost && stats.cpu.bytes == 2 * coded + zstd);
	gpu_exists = gpu_fails = false;
}

/* Decodes three tiles of which one has another checksum, and tells how many have the right result. */
static unsigned right_results(enum wcx_decoder_kind kind)
{
	enum { JOBS = 3 };
	struct wcx_trial_tile *trial = wcx_trial_tile_create();
	static uint8_t dst[JOBS][WCX_TILE_MAX_BYTES];
	struct wcx_decode_batch *batch;
	struct wcx_decoder *decoder;
	uint32_t checksums[JOBS];
	unsigned right = 0;

	sample_require(wcx_decoder_create(kind, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	batch = wcx_decoder_borrow(decoder);
	for (size_t i = 0; i < JOBS; i++) {
		batch->jobs[i] = wcx_trial_tile_job(trial);
		batch->jobs[i].dst = dst[i];
		checksums[i] = wcx_checksum32(batch->jobs[i].src, batch->jobs[i].src_bytes);
	}
	checksums[1] ^= 1;
	wcx_decoder_run(decoder, batch, JOBS, checksums);
	for (size_t i = 0; i < JOBS; i++)
		right += batch->jobs[i].result == (i == 1 ? WCX_BAD_DATA : WCX_OK);
	wcx_decoder_return(decoder, batch);
	wcx_decoder_free(decoder);
	wcx_trial_tile_free(trial);
	return right;
}

static void a_tile_with_another_checksum_is_damaged(void)
{
	CHECK(right_results(WCX_DECODER_CPU) == 3 && checked_count == 0);
	gpu_exists = true;
	CHECK(right_results(WCX_DECODER_CUDA) == 3 && checked_count == 3);
	gpu_fails = true;
	CHECK(right_results(WCX_DECODER_CUDA) == 3);
	gpu_exists = gpu_fails = false;
}

/* --- batches that are started, and finished by others --- */

struct ending {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned ended;
};

static void note_end(void *user)
{
	struct ending *ending = user;

	pthread_mutex_lock(&ending->lock);
	ending->ended++;
	pthread_cond_signal(&ending->changed);
	pthread_mutex_unlock(&ending->lock);
}

/* Starts batches of a good tile and a damaged one at once; returns how many were handed over. */
static unsigned start_batches(enum wcx_decoder_kind kind, bool has_crew)
{
	enum { BATCHES = 6, JOBS = 2, BYTES = 4 << 20 };
	struct ending ending = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0 };
	struct wcx_trial_tile *trial = wcx_trial_tile_create();
	struct wcx_tile_job expected = wcx_trial_tile_job(trial);
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_find("portable"));
	static uint8_t dst[BATCHES][JOBS][WCX_TILE_MAX_BYTES], expected_dst[WCX_TILE_MAX_BYTES];
	struct wcx_decode_batch *batches[BATCHES];
	uint32_t checksums[JOBS];
	uint8_t *memory = aligned_alloc(4096, BYTES);
	struct wcx_decoder *decoder;
	unsigned handed_over = 0;

	sample_require(wcx_decoder_create(kind, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	wcx_decoder_use_memory(decoder, memory, BYTES, UINT64_MAX, 1);
	if (has_crew)
		wcx_decoder_start_crew(decoder);
	expected.dst = expected_dst;
	wcx_tile_decode(&expected, scratch);
	memset(dst, 0, sizeof dst);
	checksums[0] = wcx_checksum32(expected.src, expected.src_bytes);
	checksums[1] = checksums[0] ^ 1;
	for (size_t b = 0; b < BATCHES; b++) {
		batches[b] = wcx_decoder_borrow(decoder);
		for (size_t i = 0; i < JOBS; i++) {
			batches[b]->jobs[i] = wcx_trial_tile_job(trial);
			batches[b]->jobs[i].dst = dst[b][i];
		}
		handed_over += wcx_decoder_start(decoder, batches[b], JOBS, checksums, note_end, &ending);
	}
	pthread_mutex_lock(&ending.lock);
	while (ending.ended < handed_over)
		pthread_cond_wait(&ending.changed, &ending.lock);
	pthread_mutex_unlock(&ending.lock);
	for (size_t b = 0; b < BATCHES; b++) {
		CHECK(batches[b]->jobs[0].result == WCX_OK && batches[b]->jobs[1].result == WCX_BAD_DATA);
		CHECK(memcmp(dst[b][0], expected_dst, expected.dst_bytes) == 0);
		wcx_decoder_return(decoder, batches[b]);
	}
	CHECK(ending.ended == handed_over);
	wcx_decoder_free(decoder);
	wcx_decode_scratch_free(scratch);
	wcx_trial_tile_free(trial);
	free(memory);
	return handed_over;
}

/* A GPU that has failed gets the first batches at most: how many were started before it failed. */
static void batches_of_a_gpu_are_finished_by_threads_of_the_decoder(void)
{
	CHECK(start_batches(WCX_DECODER_CPU, true) == 0);
	gpu_exists = true;
	CHECK(start_batches(WCX_DECODER_CUDA, false) == 0); /* the crew comes later: the mount has more privileges before */
	CHECK(start_batches(WCX_DECODER_CUDA, true) == 6);
	gpu_fails = true;
	CHECK(start_batches(WCX_DECODER_CUDA, true) >= 1);
	gpu_exists = gpu_fails = false;
}

/* --- memory that the GPU writes itself --- */

static unsigned notice_count;

static void count_notice(void *user, const char *text)
{
	(void)user;
	notice_count += strstr(text, "pinned") != NULL;
}

/* Decodes two tiles in the memory of a tile cache, and one elsewhere. */
static void decode_in_cache(void)
{
	enum { BYTES = 32 << 20, JOBS = 3 };
	struct wcx_trial_tile *trial = wcx_trial_tile_create();
	static uint8_t elsewhere[WCX_TILE_MAX_BYTES];
	uint8_t *memory = aligned_alloc(4096, BYTES);
	struct wcx_decode_batch *batch;
	struct wcx_decoder *decoder;

	sample_require(memory != NULL, "memory");
	sample_require(wcx_decoder_create(WCX_DECODER_CUDA, count_notice, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	wcx_decoder_use_memory(decoder, memory, BYTES, UINT64_MAX, 2);
	batch = wcx_decoder_borrow(decoder);
	for (int call = 0; call < 2; call++) {
		for (size_t i = 0; i < JOBS; i++)
			batch->jobs[i] = wcx_trial_tile_job(trial);
		batch->jobs[0].dst = memory;
		batch->jobs[1].dst = memory + BYTES / 2;
		batch->jobs[2].dst = elsewhere;
		wcx_decoder_run(decoder, batch, JOBS, NULL);
		for (size_t i = 0; i < JOBS; i++)
			CHECK(batch->jobs[i].result == WCX_OK);
		CHECK(memcmp(memory, elsewhere, batch->jobs[0].dst_bytes) == 0);
	}
	wcx_decoder_return(decoder, batch);
	wcx_decoder_free(decoder);
	wcx_trial_tile_free(trial);
	free(memory);
}

static void the_gpu_gets_pinned_memory(void)
{
	gpu_exists = true;
	notice_count = 0;
	pin_count = 0;
	pinned_dst_count = 0;
	pinned_packed_count = 0;
	decode_in_cache();
	CHECK(pinned_dst_count == 2 * 2 && pinned_packed_count == 2 && notice_count == 0);
	CHECK(pin_count == 0 && allocated_count == 0); /* all were given back */
	gpu_exists = false;
}

static void a_gpu_that_cannot_pin_memory_decodes_all_the_same(void)
{
	gpu_exists = gpu_refuses = true;
	notice_count = 0;
	pin_count = 0;
	pinned_dst_count = 0;
	pinned_packed_count = 0;
	decode_in_cache();
	CHECK(pinned_dst_count == 0 && pinned_packed_count == 0 && notice_count == 1 && pin_count == 1);
	gpu_exists = gpu_refuses = false;
}

/* Each of two loops decodes to the end of a memory whose start is pinned: the GPU fails in the second. */
static void what_was_used_is_pinned_later_unless_the_gpu_is_lost(void)
{
	enum { BYTES = 80 << 20, CHUNKS = BYTES / WCX_PINNED_CHUNK_BYTES };
	struct wcx_trial_tile *trial = wcx_trial_tile_create();
	uint8_t *memory = aligned_alloc(4096, BYTES);

	sample_require(memory != NULL, "memory");
	gpu_exists = true;
	for (int is_lost = 0; is_lost < 2; is_lost++) {
		struct wcx_decode_batch *batch;
		struct wcx_decoder *decoder;
		unsigned at_start;

		pin_count = 0;
		sample_require(wcx_decoder_create(WCX_DECODER_CUDA, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
		wcx_decoder_use_memory(decoder, memory, BYTES, UINT64_MAX, 2);
		at_start = pin_count;
		batch = wcx_decoder_borrow(decoder);
		batch->jobs[0] = wcx_trial_tile_job(trial);
		batch->jobs[0].dst = memory + BYTES - batch->jobs[0].dst_bytes;
		gpu_fails = is_lost;
		wcx_decoder_run(decoder, batch, 1, NULL);
		CHECK(pin_count == at_start + 1 && pin_count < CHUNKS);
		wcx_decoder_pin_ahead(decoder);
		CHECK(pin_count == (is_lost ? at_start + 1 : CHUNKS));
		wcx_decoder_return(decoder, batch);
		wcx_decoder_free(decoder);
	}
	gpu_exists = gpu_fails = false;
	free(memory);
	wcx_trial_tile_free(trial);
}

/* How many calls the GPU is opened for within a budget, and as many batches are pinned. */
static unsigned calls_within(uint64_t buffers_max)
{
	struct wcx_decoder *decoder;
	unsigned calls;

	sample_require(wcx_decoder_create_within(WCX_DECODER_CUDA, buffers_max, NULL, NULL, &decoder, NULL) == 0,
		       "wcx_decoder_create_within");
	wcx_decoder_use_memory(decoder, NULL, 0, 0, 2);
	calls = gpu_calls;
	CHECK(allocated_count == calls);
	CHECK(calls == 1 || wcx_decoder_buffer_bytes(decoder) <= buffers_max);
	CHECK(wcx_decoder_buffer_bytes(decoder) >= calls * (uint64_t)(WCX_GPU_CALL_BYTES + WCX_GPU_PACKED_ROOM));
	wcx_decoder_free(decoder);
	return calls;
}

/* How much is pinned for tiles at the start with a cache for which the buffers of one call may be too large. */
static uint64_t pinned_within(uint64_t cache_bytes)
{
	const size_t bytes = 64 << 20;
	uint8_t *memory = aligned_alloc(4096, bytes);
	struct wcx_decoder *decoder;
	uint64_t pinned;

	sample_require(memory != NULL, "memory");
	sample_require(wcx_decoder_create_within(WCX_DECODER_CUDA, cache_bytes / 4, NULL, NULL, &decoder, NULL) == 0,
		       "wcx_decoder_create_within");
	pin_count = 0;
	wcx_decoder_use_memory(decoder, memory, bytes, cache_bytes, 2);
	pinned = (uint64_t)pin_count * WCX_PINNED_CHUNK_BYTES;
	CHECK(pinned == 0 || pinned + wcx_decoder_buffer_bytes(decoder) <= cache_bytes);
	wcx_decoder_free(decoder);
	free(memory);
	return pinned;
}

static void pinned_memory_keeps_to_the_size_of_a_cache(void)
{
	gpu_exists = true;
	CHECK(pinned_within(0) == 0 && pinned_within(8 << 20) == 0);
	CHECK(pinned_within(16 << 20) == 6 << 20 && pinned_within(36 << 20) == 26 << 20);
	CHECK(pinned_within(64 << 20) == 54 << 20);
	gpu_exists = false;
}

static void pinned_buffers_keep_to_a_budget(void)
{
	struct wcx_decoder *decoder;

	gpu_exists = true;
	CHECK(calls_within(0) == 1 && calls_within(8 << 20) == 1 && calls_within(16 << 20) == 1);
	CHECK(calls_within(32 << 20) == 3);
	CHECK(calls_within(128 << 20) == WCX_GPU_CALLS_MAX && calls_within(UINT64_MAX) == WCX_GPU_CALLS_MAX);
	gpu_exists = false;
	sample_require(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	CHECK(wcx_decoder_buffer_bytes(decoder) == 0);
	wcx_decoder_free(decoder);
}

static void idle_memory_is_given_back_and_allocated_again(void)
{
	enum { LONG_MS = 3600000 };
	struct wcx_decoder *decoder;
	struct wcx_decode_batch *batch, *other;
	uint8_t *bytes;

	gpu_exists = true;
	release_count = 0;
	sample_require(wcx_decoder_create(WCX_DECODER_CUDA, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	wcx_decoder_use_memory(decoder, NULL, 0, 0, 2);
	batch = wcx_decoder_borrow(decoder);
	bytes = wcx_decoder_borrow_bytes(decoder);
	wcx_decoder_return_bytes(decoder, bytes);
	wcx_decoder_release_idle(decoder, LONG_MS);
	CHECK(allocated_count == WCX_GPU_CALLS_MAX && release_count == 1);
	wcx_decoder_release_idle(decoder, 0);
	CHECK(allocated_count == 1 && release_count == 2); /* what is lent stays */
	other = wcx_decoder_borrow(decoder);
	CHECK(allocated_count == 2);
	batch->packed[0] = other->packed[0] = 1;
	wcx_decoder_return(decoder, batch);
	wcx_decoder_return(decoder, other);
	wcx_decoder_release_idle(decoder, 0);
	CHECK(allocated_count == 0);
	wcx_decoder_free(decoder);
	gpu_exists = false;
}

static void a_fast_gpu_is_chosen(void)
{
	struct wcx_decoder *decoder;

	gpu_exists = gpu_is_fast = true;
	sample_require(wcx_decoder_create(WCX_DECODER_AUTO, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	CHECK(strstr(wcx_decoder_name(decoder), " KiB on cuda (fake)") != NULL);
	wcx_decoder_free(decoder);
	gpu_exists = gpu_is_fast = false;
}

/* --- names --- */

static void decoders_are_parsed(void)
{
	static const char *const wrong[] = { "",          "tpu",     "cuda:",   "cuda:x", "cuda:-1",
					     "cuda:1000", "cuda: 1", "cuda:1x", "cpu:0" };
	enum wcx_decoder_kind kind;
	struct wcx_decoder *decoder;

	CHECK(wcx_decoder_kind_parse("auto", &kind) == 0 && kind == WCX_DECODER_AUTO);
	CHECK(wcx_decoder_kind_parse("cpu", &kind) == 0 && kind == WCX_DECODER_CPU);
	CHECK(wcx_decoder_kind_parse("cuda", &kind) == 0 && kind == WCX_DECODER_CUDA);
	CHECK(wcx_decoder_kind_parse("cuda:0", &kind) == 0 && kind == WCX_DECODER_CUDA);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(wrong); i++)
		CHECK(wcx_decoder_kind_parse(wrong[i], &kind) == -EINVAL);
	CHECK(wcx_decoder_kind_parse("cuda:3", &kind) == 0);
	gpu_exists = true;
	sample_require(wcx_decoder_create(kind, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	CHECK(gpu_device == 3);
	wcx_decoder_free(decoder);
	gpu_exists = false;
	CHECK(wcx_decoder_create(kind, NULL, NULL, &decoder, NULL) == -ENODEV);
}

/* --- tiles of mode ZSTD --- */

enum { ZSTD_TILE_BYTES = 3000 };

static struct wcx_decoder *create_decoder(void)
{
	struct wcx_decoder *decoder = NULL;

	sample_require(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	return decoder;
}

/* Decodes a frame as a tile of dst_bytes elements of one byte. */
static enum wcx_result decode_frame_with(struct wcx_decoder *decoder, const uint8_t *frame, size_t frame_bytes, uint8_t *dst,
					 uint32_t dst_bytes)
{
	struct wcx_decode_batch *batch;
	uint8_t *copy = malloc(frame_bytes ? frame_bytes : 1),
		*tile = malloc(dst_bytes); /* allocated separately, so that sanitizers see the ends */
	enum wcx_result result;

	memcpy(copy, frame, frame_bytes);
	batch = wcx_decoder_borrow(decoder);
	batch->jobs[0] = (struct wcx_tile_job){
		.dims = { 1, dst_bytes, 1 },
		.mode = WCX_TILE_ZSTD,
		.recipe = &sample_1_byte_plain,
		.src = copy,
		.src_bytes = frame_bytes,
		.dst = tile,
		.dst_bytes = dst_bytes,
	};
	wcx_decoder_run(decoder, batch, 1, NULL);
	result = batch->jobs[0].result;
	wcx_decoder_return(decoder, batch);
	memcpy(dst, tile, dst_bytes);
	free(tile);
	free(copy);
	return result;
}

static enum wcx_result decode_frame(const uint8_t *frame, size_t frame_bytes, uint8_t *dst, uint32_t dst_bytes)
{
	struct wcx_decoder *decoder = create_decoder();
	enum wcx_result result = decode_frame_with(decoder, frame, frame_bytes, dst, dst_bytes);

	wcx_decoder_free(decoder);
	return result;
}

/* Makes a tile and its frame, with space for more after it; returns the size of the frame. */
static size_t make_frame(uint8_t *tile, uint8_t *frame)
{
	struct sample_random random = { 7 };

	sample_fill(&random, SAMPLE_GAUSSIAN, 3, tile, ZSTD_TILE_BYTES);
	return ZSTD_compress(frame, 2 * ZSTD_TILE_BYTES, tile, ZSTD_TILE_BYTES, 19);
}

static void zstd_tile_is_one_frame_of_its_size(void)
{
	uint8_t tile[ZSTD_TILE_BYTES], frame[2 * ZSTD_TILE_BYTES], decoded[ZSTD_TILE_BYTES + 1];
	static const uint8_t skipped[] = { 0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 9 };
	struct wcx_decoder *decoder = create_decoder();
	size_t bytes = make_frame(tile, frame);

	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_OK);
	CHECK(memcmp(decoded, tile, ZSTD_TILE_BYTES) == 0);
	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES - 1) == WCX_BAD_DATA);
	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES + 1) == WCX_BAD_DATA);
	for (size_t cut = 0; cut < bytes; cut++)
		CHECK(decode_frame_with(decoder, frame, cut, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
	wcx_decoder_free(decoder);
	frame[bytes] = 0;
	CHECK(decode_frame(frame, bytes + 1, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
	memcpy(frame + bytes, skipped, sizeof skipped);
	CHECK(decode_frame(frame, bytes + sizeof skipped, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
	CHECK(decode_frame(skipped, sizeof skipped, decoded, 1) == WCX_BAD_DATA);
	/* Two frames of half a tile each. */
	bytes = ZSTD_compress(frame, sizeof frame, tile, ZSTD_TILE_BYTES / 2, 19);
	bytes += ZSTD_compress(frame + bytes, sizeof frame - bytes, tile + ZSTD_TILE_BYTES / 2, ZSTD_TILE_BYTES / 2, 19);
	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
}

/*
 * Frames by RFC 8878: magic, descriptor, window of 2 GiB, size, and a block of one repeated byte; and one of the last format
 * before it, which libraries may still decode.
 */
static void zstd_frames_made_by_hand_are_understood(void)
{
	static const uint8_t large_window[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x40, 0xA8, 44, 0, 0x63, 0x09, 0, 0x5A };
	static const uint8_t without_size[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x23, 0x03, 0, 0x5A };
	static const uint8_t block_too_short[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x20, 100, 0x1B, 0x03, 0, 0x5A };
	static const uint8_t with_size[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x20, 100, 0x23, 0x03, 0, 0x5A };
	static const uint8_t with_dictionary[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x21, 7, 100, 0x23, 0x03, 0, 0x5A };
	static const uint8_t version_7[] = { 0x27, 0xB5, 0x2F, 0xFD, 0x20, 100, 0x80, 0, 100, 0x5A, 0xC0, 0, 0 };
	uint8_t decoded[300], expected[300];

	memset(expected, 0x5A, sizeof expected);
	CHECK(decode_frame(large_window, sizeof large_window, decoded, 300) == WCX_OK);
	CHECK(memcmp(decoded, expected, 300) == 0);
	CHECK(decode_frame(without_size, sizeof without_size, decoded, 100) == WCX_BAD_DATA);
	CHECK(decode_frame(block_too_short, sizeof block_too_short, decoded, 100) == WCX_BAD_DATA);
	CHECK(decode_frame(with_size, sizeof with_size, decoded, 100) == WCX_OK);
	CHECK(memcmp(decoded, expected, 100) == 0);
	CHECK(decode_frame(with_dictionary, sizeof with_dictionary, decoded, 100) == WCX_BAD_DATA);
	CHECK(decode_frame(version_7, sizeof version_7, decoded, 100) == WCX_BAD_DATA);
}

static void damaged_zstd_frames_do_no_harm(void)
{
	uint8_t tile[ZSTD_TILE_BYTES], frame[2 * ZSTD_TILE_BYTES], decoded[ZSTD_TILE_BYTES];
	struct wcx_decoder *decoder = create_decoder();
	size_t bytes = make_frame(tile, frame);
	unsigned refused = 0;

	for (size_t bit = 0; bit < 8 * bytes; bit++) {
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
		refused += decode_frame_with(decoder, frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA;
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	CHECK(refused > 0);
	CHECK(decode_frame_with(decoder, frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_OK);
	wcx_decoder_free(decoder);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(no_more_batches_are_lent_than_the_limit),
		CHECK_TEST(decoded_bytes_count_for_whoever_decoded_them),
		CHECK_TEST(a_tile_with_another_checksum_is_damaged),
		CHECK_TEST(batches_of_a_gpu_are_finished_by_threads_of_the_decoder),
		CHECK_TEST(the_gpu_gets_pinned_memory),
		CHECK_TEST(a_gpu_that_cannot_pin_memory_decodes_all_the_same),
		CHECK_TEST(what_was_used_is_pinned_later_unless_the_gpu_is_lost),
		CHECK_TEST(pinned_memory_keeps_to_the_size_of_a_cache),
		CHECK_TEST(pinned_buffers_keep_to_a_budget),
		CHECK_TEST(idle_memory_is_given_back_and_allocated_again),
		CHECK_TEST(a_fast_gpu_is_chosen),
		CHECK_TEST(decoders_are_parsed),
		CHECK_TEST(zstd_tile_is_one_frame_of_its_size),
		CHECK_TEST(zstd_frames_made_by_hand_are_understood),
		CHECK_TEST(damaged_zstd_frames_do_no_harm),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
