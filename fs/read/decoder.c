/* SPDX-License-Identifier: MIT */
/* Sends batches of tiles to the GPU or the CPU, and to the CPU when the GPU lets go. */
#include "fs/read/decoder.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zstd.h>

#include "codec/decode_trial.h"
#include "codec/le.h"
#include "cuda/gpu_decode.h"

enum { TRIAL_ROUNDS = 5 };

/* A batch with what is the decoder's own about it. */
struct bench {
	struct wcx_decode_batch batch; /* first, so that the one is found from the other */
	struct wcx_decode_scratch *scratch;
	ZSTD_DCtx *zstd;
	struct bench *next;
};

struct wcx_decoder {
	const struct wcx_decode_variant *cpu;
	struct wcx_gpu *gpu;  /* NULL: CPU only */
	size_t gpu_bytes;     /* decoded bytes of a batch from which on the GPU gets it */
	atomic_bool gpu_lost; /* set once, at the first failure */
	char name[WCX_GPU_NAME_BYTES + 64];
	wcx_notice_fn *notice;
	void *notice_user;
	pthread_mutex_t lock; /* protects everything below, and the list behind idle */
	struct bench *idle;
	unsigned lent, lent_max;
	pthread_cond_t returned; /* lent is below lent_max */
};

int wcx_decoder_kind_parse(const char *name, enum wcx_decoder_kind *ret)
{
	static const char *const names[] = {
		[WCX_DECODER_AUTO] = "auto",
		[WCX_DECODER_CPU] = "cpu",
		[WCX_DECODER_CUDA] = "cuda",
	};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
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

/* --- what a batch costs --- */

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* The least time for a number of tiles on the GPU, or on this thread's core; -1 when it fails. */
static int64_t time_tiles(const struct wcx_decoder *decoder, bool on_gpu, struct wcx_decode_scratch *scratch,
			  struct wcx_tile_job *jobs, size_t count)
{
	int64_t least = INT64_MAX;

	for (int round = 0; round < TRIAL_ROUNDS; round++) {
		int64_t start = now_ns(), taken;

		if (on_gpu && wcx_gpu_decode(decoder->gpu, jobs, count) != WCX_OK)
			return -1;
		for (size_t i = 0; i < count && !on_gpu; i++)
			wcx_tile_decode(&jobs[i], scratch);
		taken = now_ns() - start;
		least = taken < least ? taken : least;
		for (size_t i = 0; i < count; i++)
			if (jobs[i].result != WCX_OK)
				return -1;
	}
	return least;
}

/*
 * The size of a batch from which on it is the GPU's.  There a batch has a price of its own, for copying and waiting, and one
 * for each byte, for copying too; on a core it is the bytes alone.  The GPU has to take a quarter less: one batch is
 * measured, but several threads' share its lanes, and copying takes a core, too.
 */
static size_t find_gpu_bytes(const struct wcx_decoder *decoder, struct wcx_decode_scratch *scratch,
			     struct wcx_tile_job jobs[WCX_BATCH_TILES])
{
	const size_t tile_bytes = jobs[0].dst_bytes, fit = WCX_BATCH_BYTES / tile_bytes;
	const size_t count = fit < WCX_BATCH_TILES ? fit : WCX_BATCH_TILES;
	const int64_t cpu_all = time_tiles(decoder, false, scratch, jobs, count);
	const int64_t gpu_one = time_tiles(decoder, true, NULL, jobs, 1);
	const int64_t gpu_all = time_tiles(decoder, true, NULL, jobs, count);
	const int64_t gpu_more = (gpu_all - gpu_one) / (int64_t)(count - 1), may_take = cpu_all / (int64_t)count * 3 / 4;

	if (cpu_all < 0 || gpu_one < 0 || gpu_all < 0 || (gpu_one > may_take && gpu_more >= may_take))
		return SIZE_MAX;
	if (gpu_one <= may_take)
		return 0;
	/* Of n tiles: gpu_one + (n - 1) gpu_more = n may_take. */
	return ((size_t)((gpu_one - gpu_more) / (may_take - gpu_more)) + 1) * tile_bytes;
}

/* Where there is no memory to measure with, all goes to the GPU. */
static void weigh_gpu(struct wcx_decoder *decoder)
{
	struct wcx_decode_trial *trial = wcx_decode_trial_create();
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(decoder->cpu);
	uint8_t *dst = malloc(WCX_BATCH_BYTES);
	struct wcx_tile_job jobs[WCX_BATCH_TILES];
	char gpu[sizeof decoder->name];

	if (trial && scratch && dst) {
		for (size_t i = 0; i < WCX_BATCH_TILES; i++) {
			jobs[i] = wcx_decode_trial_job(trial);
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
	wcx_decode_trial_free(trial);
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
	r = choose_cpu(decoder, err);
	if (r == 0 && kind != WCX_DECODER_CPU)
		r = open_gpu(decoder, kind, err);
	if (r == 0 && kind == WCX_DECODER_AUTO && decoder->gpu)
		weigh_gpu(decoder);
	if (r == 0)
		*ret = decoder;
	else
		wcx_decoder_free(decoder);
	return r;
}

static void free_bench(struct bench *bench)
{
	wcx_decode_scratch_free(bench->scratch);
	ZSTD_freeDCtx(bench->zstd);
	free(bench->batch.packed);
	free(bench);
}

void wcx_decoder_free(struct wcx_decoder *decoder)
{
	if (!decoder)
		return;
	while (decoder->idle) {
		struct bench *bench = decoder->idle;

		decoder->idle = bench->next;
		free_bench(bench);
	}
	wcx_gpu_free(decoder->gpu);
	pthread_cond_destroy(&decoder->returned);
	pthread_mutex_destroy(&decoder->lock);
	free(decoder);
}

const char *wcx_decoder_name(const struct wcx_decoder *decoder)
{
	return decoder->name;
}

void wcx_decoder_limit(struct wcx_decoder *decoder, unsigned batches)
{
	decoder->lent_max = batches;
}

static struct bench *make_bench(const struct wcx_decoder *decoder)
{
	struct bench *bench = calloc(1, sizeof *bench);

	if (!bench)
		return NULL;
	bench->scratch = wcx_decode_scratch_create(decoder->cpu);
	bench->zstd = ZSTD_createDCtx();
	bench->batch.packed = malloc(WCX_BATCH_PACKED_BYTES);
	if (bench->scratch && bench->zstd && bench->batch.packed)
		return bench;
	free_bench(bench);
	return NULL;
}

/* A bench, if there is one, is idle from now on. */
static void take_back(struct wcx_decoder *decoder, struct bench *bench)
{
	pthread_mutex_lock(&decoder->lock);
	decoder->lent--;
	if (bench) {
		bench->next = decoder->idle;
		decoder->idle = bench;
	}
	pthread_cond_signal(&decoder->returned);
	pthread_mutex_unlock(&decoder->lock);
}

struct wcx_decode_batch *wcx_decoder_borrow(struct wcx_decoder *decoder)
{
	struct bench *bench;

	pthread_mutex_lock(&decoder->lock);
	while (decoder->lent >= decoder->lent_max)
		pthread_cond_wait(&decoder->returned, &decoder->lock);
	decoder->lent++;
	bench = decoder->idle;
	if (bench)
		decoder->idle = bench->next;
	pthread_mutex_unlock(&decoder->lock);
	if (!bench)
		bench = make_bench(decoder);
	if (!bench) {
		take_back(decoder, NULL);
		return NULL;
	}
	return &bench->batch;
}

void wcx_decoder_return(struct wcx_decoder *decoder, struct wcx_decode_batch *batch)
{
	take_back(decoder, (struct bench *)batch);
}

static void run_on_gpu(struct wcx_decoder *decoder, struct wcx_tile_job *jobs, size_t job_count)
{
	if (wcx_gpu_decode(decoder->gpu, jobs, job_count) != WCX_DEVICE_FAILED)
		return;
	if (!atomic_exchange(&decoder->gpu_lost, true))
		send_notice(decoder, "the GPU failed; decoding on the CPU from now on");
}

/*
 * Restores a tile of mode ZSTD.  Older formats, which the library may know too, are none of ours.  Decompressing in one
 * piece takes no window but dst, whatever size the frame asks for.
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

static void decode_on_cpu(struct bench *bench, struct wcx_tile_job *job)
{
	if (job->mode == WCX_TILE_ZSTD)
		job->result = decompress(bench->zstd, job);
	else
		wcx_tile_decode(job, bench->scratch);
}

void wcx_decoder_run(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count)
{
	struct bench *bench = (struct bench *)batch;
	size_t coded_bytes = 0;

	for (size_t i = 0; i < job_count; i++) {
		batch->jobs[i].result = WCX_DEVICE_FAILED;
		coded_bytes += batch->jobs[i].mode == WCX_TILE_CODED ? batch->jobs[i].dst_bytes : 0;
	}
	if (decoder->gpu && coded_bytes >= decoder->gpu_bytes && !atomic_load(&decoder->gpu_lost))
		run_on_gpu(decoder, batch->jobs, job_count);
	/* That a tile is damaged is for the CPU to say, as the reference; and the GPU does not know the mode ZSTD. */
	for (size_t i = 0; i < job_count; i++)
		if (batch->jobs[i].result != WCX_OK)
			decode_on_cpu(bench, &batch->jobs[i]);
}
