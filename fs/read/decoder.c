/* SPDX-License-Identifier: MIT */
/* Sends batches of tiles to the GPU or the CPU, and falls back to the CPU when the GPU fails. */
#include "fs/read/decoder.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec/arith.h"
#include "codec/trial_tile.h"
#include "codec/le.h"
#include "cuda/gpu_decode.h"
#include "fs/base/clock.h"

enum { TRIAL_ROUNDS = 5 };

/* A batch with the decoder's private part. */
struct owned_batch {
	struct wcx_decode_batch batch; /* first: a pointer to it is cast back */
	struct wcx_decode_scratch *scratch;
	ZSTD_DCtx *zstd;
	struct owned_batch *next;
};

/* WCX_BATCH_BYTES that nobody has borrowed. */
union idle_bytes {
	union idle_bytes *next;
	uint8_t bytes[WCX_BATCH_BYTES];
};

/* Like struct wcx_decoder_work, for any number of threads: added to once a batch, so sharing the line costs nothing. */
struct work {
	_Atomic uint64_t bytes, batches, ns;
};

struct wcx_decoder {
	const struct wcx_decode_variant *cpu;
	struct wcx_gpu *gpu;  /* NULL: CPU only */
	size_t gpu_bytes;     /* batches of at least so many decoded bytes go to the GPU */
	atomic_bool gpu_lost; /* set at the first failure, for good */
	struct work cpu_work, gpu_work;
	char name[WCX_GPU_NAME_BYTES + 64];
	wcx_notice_fn *notice;
	void *notice_user;
	pthread_mutex_t lock; /* protects everything below, and the lists at idle and idle_bytes */
	struct owned_batch *idle;
	unsigned lent, lent_max;
	pthread_cond_t returned; /* signals that lent is below lent_max */
	union idle_bytes *idle_bytes;
	unsigned bytes_lent; /* also at most lent_max */
	pthread_cond_t bytes_returned;
};

int wcx_decoder_kind_parse(const char *name, enum wcx_decoder_kind *ret)
{
	static const char *const names[] = {
		[WCX_DECODER_AUTO] = "auto",
		[WCX_DECODER_CPU] = "cpu",
		[WCX_DECODER_CUDA] = "cuda",
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(names); i++) {
		if (strcmp(name, names[i]) == 0) {
			*ret = (enum wcx_decoder_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

static void send_notice(const struct wcx_decoder *decoder, const char *text)
{
	if (decoder->notice)
		decoder->notice(decoder->notice_user, text);
}

static int choose_cpu(struct wcx_decoder *decoder, struct wcx_error *err)
{
	const char *name = getenv("WCX_CPU");

	decoder->cpu = name && *name ? wcx_decode_variant_find(name) : wcx_decode_variant_choose();
	if (!decoder->cpu)
		return wcx_fail(err, EINVAL, "WCX_CPU=%s: this CPU has no such variant", name);
	snprintf(decoder->name, sizeof decoder->name, "cpu (%s)", decoder->cpu->name);
	return 0;
}

static int open_gpu(struct wcx_decoder *decoder, enum wcx_decoder_kind kind, struct wcx_error *err)
{
	char name[WCX_GPU_NAME_BYTES], text[WCX_GPU_NAME_BYTES + 32];
	enum wcx_result result = wcx_gpu_open(&decoder->gpu, name);

	if (result == WCX_OK) {
		snprintf(decoder->name, sizeof decoder->name, "cuda (%s)", name);
		return 0;
	}
	if (kind == WCX_DECODER_CUDA)
		return wcx_fail(err, ENODEV, "no GPU to decode on: %s", name);
	snprintf(text, sizeof text, "decoding on the CPU: %s", name);
	send_notice(decoder, text);
	return 0;
}

/* --- measuring what a batch costs --- */

/* The shortest of several times for decoding tiles on the GPU, or on this thread's core; -1 when it fails. */
static int64_t time_tiles(const struct wcx_decoder *decoder, bool on_gpu, struct wcx_decode_scratch *scratch,
			  struct wcx_tile_job *jobs, size_t count)
{
	int64_t least = INT64_MAX;

	for (int round = 0; round < TRIAL_ROUNDS; round++) {
		const uint64_t start = wcx_now_ns();
		int64_t taken;

		if (on_gpu && wcx_gpu_decode(decoder->gpu, jobs, count) != WCX_OK)
			return -1;
		for (size_t i = 0; i < count && !on_gpu; i++)
			wcx_tile_decode(&jobs[i], scratch);
		taken = (int64_t)(wcx_now_ns() - start);
		least = WCX_MIN(taken, least);
		for (size_t i = 0; i < count; i++)
			if (jobs[i].result != WCX_OK)
				return -1;
	}
	return least;
}

/*
 * The smallest batch, in decoded bytes, that is worth sending to the GPU.  There a batch has a fixed cost, for copying and
 * waiting, and a cost per byte, including the copies; on a core there is only a cost per byte.  The GPU must be a quarter
 * cheaper: we measure one batch alone, but several threads share the GPU's queues, and copying takes CPU time too.
 */
static size_t find_gpu_bytes(const struct wcx_decoder *decoder, struct wcx_decode_scratch *scratch,
			     struct wcx_tile_job jobs[WCX_BATCH_TILES])
{
	const size_t tile_bytes = jobs[0].dst_bytes, fit = WCX_BATCH_BYTES / tile_bytes;
	const size_t count = WCX_MIN(fit, WCX_BATCH_TILES);
	const int64_t cpu_all = time_tiles(decoder, false, scratch, jobs, count);
	const int64_t gpu_one = time_tiles(decoder, true, NULL, jobs, 1);
	const int64_t gpu_all = time_tiles(decoder, true, NULL, jobs, count);
	const int64_t gpu_more = (gpu_all - gpu_one) / (int64_t)(count - 1), may_take = cpu_all / (int64_t)count * 3 / 4;

	if (cpu_all < 0 || gpu_one < 0 || gpu_all < 0 || (gpu_one > may_take && gpu_more >= may_take))
		return SIZE_MAX;
	if (gpu_one <= may_take)
		return 0;
	/* Break-even at n tiles: gpu_one + (n - 1) gpu_more = n may_take. */
	return ((size_t)((gpu_one - gpu_more) / (may_take - gpu_more)) + 1) * tile_bytes;
}

/* Measures which batches are the GPU's.  Without memory to measure, all are. */
static void measure_gpu(struct wcx_decoder *decoder)
{
	struct wcx_trial_tile *trial = wcx_trial_tile_create();
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(decoder->cpu);
	uint8_t *dst = malloc(WCX_BATCH_BYTES);
	struct wcx_tile_job jobs[WCX_BATCH_TILES];
	char gpu[sizeof decoder->name];

	if (trial && scratch && dst) {
		for (size_t i = 0; i < WCX_BATCH_TILES; i++) {
			jobs[i] = wcx_trial_tile_job(trial);
			jobs[i].dst = dst + i * jobs[i].dst_bytes % WCX_BATCH_BYTES;
		}
		decoder->gpu_bytes = find_gpu_bytes(decoder, scratch, jobs);
		memcpy(gpu, decoder->name, sizeof gpu);
		if (decoder->gpu_bytes > WCX_BATCH_BYTES)
			snprintf(decoder->name, sizeof decoder->name, "cpu (%s), which beats %.200s", decoder->cpu->name,
				 gpu);
		else
			snprintf(decoder->name, sizeof decoder->name, "cpu (%s), from %zu KiB on %.200s", decoder->cpu->name,
				 decoder->gpu_bytes >> 10, gpu);
	}
	wcx_decode_scratch_free(scratch);
	wcx_trial_tile_free(trial);
	free(dst);
}

int wcx_decoder_create(enum wcx_decoder_kind kind, wcx_notice_fn *notice, void *user, struct wcx_decoder **ret,
		       struct wcx_error *err)
{
	struct wcx_decoder *decoder = calloc(1, sizeof *decoder);
	int r;

	if (!decoder)
		return wcx_fail(err, ENOMEM, "no memory for a decoder");
	decoder->notice = notice;
	decoder->notice_user = user;
	decoder->lent_max = UINT_MAX;
	pthread_mutex_init(&decoder->lock, NULL);
	pthread_cond_init(&decoder->returned, NULL);
	pthread_cond_init(&decoder->bytes_returned, NULL);
	r = choose_cpu(decoder, err);
	if (r == 0 && kind != WCX_DECODER_CPU)
		r = open_gpu(decoder, kind, err);
	if (r == 0 && kind == WCX_DECODER_AUTO && decoder->gpu)
		measure_gpu(decoder);
	if (r == 0)
		*ret = decoder;
	else
		wcx_decoder_free(decoder);
	return r;
}

static void free_batch(struct owned_batch *owned)
{
	wcx_decode_scratch_free(owned->scratch);
	ZSTD_freeDCtx(owned->zstd);
	free(owned->batch.packed);
	free(owned);
}

void wcx_decoder_free(struct wcx_decoder *decoder)
{
	if (!decoder)
		return;
	while (decoder->idle) {
		struct owned_batch *owned = decoder->idle;

		decoder->idle = owned->next;
		free_batch(owned);
	}
	while (decoder->idle_bytes) {
		union idle_bytes *idle = decoder->idle_bytes;

		decoder->idle_bytes = idle->next;
		free(idle);
	}
	wcx_gpu_free(decoder->gpu);
	pthread_cond_destroy(&decoder->bytes_returned);
	pthread_cond_destroy(&decoder->returned);
	pthread_mutex_destroy(&decoder->lock);
	free(decoder);
}

const char *wcx_decoder_name(const struct wcx_decoder *decoder)
{
	return decoder->name;
}

static struct wcx_decoder_work read_work(const struct work *work)
{
	return (struct wcx_decoder_work){ atomic_load(&work->bytes), atomic_load(&work->batches), atomic_load(&work->ns) };
}

void wcx_decoder_get_stats(const struct wcx_decoder *decoder, struct wcx_decoder_stats *ret)
{
	*ret = (struct wcx_decoder_stats){ read_work(&decoder->cpu_work), read_work(&decoder->gpu_work),
					   atomic_load(&decoder->gpu_lost) };
}

void wcx_decoder_limit(struct wcx_decoder *decoder, unsigned batches)
{
	decoder->lent_max = batches;
}

static struct owned_batch *create_batch(const struct wcx_decoder *decoder)
{
	struct owned_batch *owned = calloc(1, sizeof *owned);

	if (!owned)
		return NULL;
	owned->scratch = wcx_decode_scratch_create(decoder->cpu);
	owned->zstd = ZSTD_createDCtx();
	owned->batch.packed = malloc(WCX_BATCH_PACKED_BYTES);
	if (owned->scratch && owned->zstd && owned->batch.packed)
		return owned;
	free_batch(owned);
	return NULL;
}

/* Ends a loan; owned, unless NULL, becomes idle. */
static void take_back(struct wcx_decoder *decoder, struct owned_batch *owned)
{
	pthread_mutex_lock(&decoder->lock);
	decoder->lent--;
	if (owned) {
		owned->next = decoder->idle;
		decoder->idle = owned;
	}
	pthread_cond_signal(&decoder->returned);
	pthread_mutex_unlock(&decoder->lock);
}

struct wcx_decode_batch *wcx_decoder_borrow(struct wcx_decoder *decoder)
{
	struct owned_batch *owned;

	pthread_mutex_lock(&decoder->lock);
	while (decoder->lent >= decoder->lent_max)
		pthread_cond_wait(&decoder->returned, &decoder->lock);
	decoder->lent++;
	owned = decoder->idle;
	if (owned)
		decoder->idle = owned->next;
	pthread_mutex_unlock(&decoder->lock);
	if (!owned)
		owned = create_batch(decoder);
	if (!owned) {
		take_back(decoder, NULL);
		return NULL;
	}
	return &owned->batch;
}

void wcx_decoder_return(struct wcx_decoder *decoder, struct wcx_decode_batch *batch)
{
	take_back(decoder, (struct owned_batch *)batch);
}

uint8_t *wcx_decoder_borrow_bytes(struct wcx_decoder *decoder)
{
	union idle_bytes *idle;

	pthread_mutex_lock(&decoder->lock);
	while (decoder->bytes_lent >= decoder->lent_max)
		pthread_cond_wait(&decoder->bytes_returned, &decoder->lock);
	decoder->bytes_lent++;
	idle = decoder->idle_bytes;
	if (idle)
		decoder->idle_bytes = idle->next;
	pthread_mutex_unlock(&decoder->lock);
	if (!idle)
		idle = malloc(sizeof *idle);
	if (idle)
		return idle->bytes;
	wcx_decoder_return_bytes(decoder, NULL);
	return NULL;
}

void wcx_decoder_return_bytes(struct wcx_decoder *decoder, uint8_t *bytes)
{
	union idle_bytes *idle = (union idle_bytes *)(void *)bytes;

	pthread_mutex_lock(&decoder->lock);
	decoder->bytes_lent--;
	if (idle) {
		idle->next = decoder->idle_bytes;
		decoder->idle_bytes = idle;
	}
	pthread_cond_signal(&decoder->bytes_returned);
	pthread_mutex_unlock(&decoder->lock);
}

static void run_on_gpu(struct wcx_decoder *decoder, struct wcx_tile_job *jobs, size_t job_count)
{
	if (wcx_gpu_decode(decoder->gpu, jobs, job_count) != WCX_DEVICE_FAILED)
		return;
	if (!atomic_exchange(&decoder->gpu_lost, true))
		send_notice(decoder, "the GPU failed; decoding on the CPU from now on");
}

/*
 * Decompresses a tile of mode ZSTD, which must be one frame of the current format; the library may accept older ones.
 * Decompression in one call uses dst as its window, so the window size of a hostile frame costs no memory.
 */
static enum wcx_result decompress(ZSTD_DCtx *zstd, const struct wcx_tile_job *job)
{
	if (job->src_bytes < 4 || wcx_le32_read(job->src) != ZSTD_MAGICNUMBER ||
	    ZSTD_getFrameContentSize(job->src, job->src_bytes) != job->dst_bytes ||
	    ZSTD_findFrameCompressedSize(job->src, job->src_bytes) != job->src_bytes ||
	    ZSTD_decompressDCtx(zstd, job->dst, job->dst_bytes, job->src, job->src_bytes) != job->dst_bytes)
		return WCX_BAD_DATA;
	return WCX_OK;
}

static void decode_on_cpu(struct owned_batch *owned, struct wcx_tile_job *job)
{
	if (job->mode == WCX_TILE_ZSTD)
		job->result = decompress(owned->zstd, job);
	else
		wcx_tile_decode(job, owned->scratch);
}

/* Counts what was done since start_ns, unless it was nothing. */
static void add_work(struct work *work, uint64_t bytes, uint64_t start_ns)
{
	if (!bytes)
		return;
	atomic_fetch_add_explicit(&work->bytes, bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&work->batches, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&work->ns, wcx_now_ns() - start_ns, memory_order_relaxed);
}

/* The bytes of the jobs that have succeeded. */
static uint64_t done_bytes(const struct wcx_tile_job *jobs, size_t job_count)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < job_count; i++)
		bytes += jobs[i].result == WCX_OK ? jobs[i].dst_bytes : 0;
	return bytes;
}

void wcx_decoder_run(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count)
{
	struct owned_batch *owned = (struct owned_batch *)batch;
	uint64_t start_ns = wcx_now_ns(), gpu_bytes = 0;
	size_t coded_bytes = 0;

	for (size_t i = 0; i < job_count; i++) {
		batch->jobs[i].result = WCX_DEVICE_FAILED;
		coded_bytes += batch->jobs[i].mode == WCX_TILE_CODED ? batch->jobs[i].dst_bytes : 0;
	}
	if (decoder->gpu && coded_bytes >= decoder->gpu_bytes && !atomic_load(&decoder->gpu_lost)) {
		run_on_gpu(decoder, batch->jobs, job_count);
		gpu_bytes = done_bytes(batch->jobs, job_count);
		add_work(&decoder->gpu_work, gpu_bytes, start_ns);
		start_ns = wcx_now_ns();
	}
	/* The CPU has the last word on a damaged tile, as the reference; and the GPU does not know the mode ZSTD. */
	for (size_t i = 0; i < job_count; i++)
		if (batch->jobs[i].result != WCX_OK)
			decode_on_cpu(owned, &batch->jobs[i]);
	add_work(&decoder->cpu_work, done_bytes(batch->jobs, job_count) - gpu_bytes, start_ns);
}
