/* SPDX-License-Identifier: MIT */
/* Sends batches of tiles to the GPU or the CPU, and falls back to the CPU when the GPU fails. */
#include "fs/read/decoder.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zstd.h>

#include "codec/arith.h"
#include "codec/le.h"
#include "cuda/gpu_decode.h"
#include "fs/base/clock.h"
#include "fs/base/parallel.h"
#include "fs/format/container.h"
#include "fs/read/gpu_choice.h"
#include "fs/read/gpu_crew.h"
#include "fs/read/gpu_trial.h"
#include "fs/read/pinned_range.h"

enum {
	PAGE_BYTES = 4096,
	CPU_PIECE_BYTES = 256 << 10, /* in the second-level cache, with what it was packed to and decoding tables */
	/* Of the memory for tiles, what is pinned before there are readers: what a reader in order takes, or the share that
	 * many O_DIRECT readers fill in a tenth of a second, half of which they would spend on clearing fresh memory.
	 */
	PINNED_AT_START = 64 << 20,
	PINNED_SHARE = 4,
	PIN_AHEAD_CHUNKS = 512, /* 1 GiB in some 70 ms, or 250 if it is fresh */
	CREW_THREADS = 3,       /* what they copy, where tiles are in fresh memory, is more than one can */
	CALL_BUFFER_BYTES = WCX_GPU_CALL_BYTES + WCX_GPU_PACKED_ROOM,
};
_Static_assert((int)WCX_BATCH_PACKED_BYTES <= (int)WCX_GPU_PACKED_BYTES, "a batch fits what the GPU reads itself");
_Static_assert((int)WCX_BATCH_BYTES >= (int)WCX_GPU_BASE_BYTES, "lent bytes can stand for the bases of a batch");

/* A batch with the decoder's private part. */
struct owned_batch {
	struct wcx_decode_batch batch; /* first: a pointer to it is cast back */
	struct wcx_decode_scratch *scratch;
	ZSTD_DCtx *zstd;
	bool is_pinned; /* batch.packed, so that the GPU reads it itself */
	uint64_t idle_since_ms;
	struct owned_batch *next;

	/* While it is decoded. */
	struct wcx_decoder *decoder;
	size_t job_count, coded_bytes; /* coded_bytes: of the jobs that a GPU decodes */
	const uint32_t *checksums;
	uint64_t start_ns, device_ns;
	bool is_dst_pinned[WCX_BATCH_TILES];
	struct wcx_gpu_call call;
	struct wcx_gpu_work work; /* of the crew, which tells decoded */
	wcx_decoded_fn *decoded;
	void *user;
};

/* WCX_BATCH_BYTES that nobody has borrowed. */
union idle_bytes {
	struct {
		union idle_bytes *next;
		uint64_t since_ms;
	} idle;
	uint8_t bytes[WCX_BATCH_BYTES];
};

/* Like struct wcx_decoder_work, for any number of threads: added to once a batch, so sharing the line costs nothing. */
struct work {
	_Atomic uint64_t bytes, batches, ns;
};

struct wcx_decoder {
	const struct wcx_decode_variant *cpu;
	struct wcx_gpu *gpu; /* NULL: CPU only */
	bool chooses;        /* between both, for each batch; else all are the GPU's */
	struct wcx_gpu_choice choice;
	unsigned gpu_calls_max;
	atomic_uint gpu_calls;     /* under way */
	atomic_bool gpu_lost;      /* set at the first failure, for good */
	struct wcx_gpu_crew *crew; /* that finishes batches which were started; or NULL */
	struct work cpu_work, gpu_work;
	struct wcx_pinned_range *range; /* where the GPU writes tiles itself; NULL: nowhere */
	atomic_bool has_refused;        /* to pin memory; set at the first failure */
	atomic_uint pinned_batch_count; /* as many as the GPU can work on; those of small reads need not be */
	char name[WCX_GPU_NAME_BYTES + 192];
	wcx_notice_fn *notice;
	void *notice_user;
	pthread_mutex_t lock;     /* protects everything below, and the lists at idle and idle_bytes */
	struct owned_batch *idle; /* those that are not pinned come last; of each kind, the one that was used last first */
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
	char digits[3];
	int chars = 0;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(names); i++) {
		if (strcmp(name, names[i]) == 0) {
			*ret = (enum wcx_decoder_kind)i;
			return 0;
		}
	}
	if (sscanf(name, "cuda:%2[0-9]%n", digits, &chars) != 1 || name[chars])
		return -EINVAL;
	*ret = (enum wcx_decoder_kind)(WCX_DECODER_CUDA + strtoul(digits, NULL, 10));
	return 0;
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
	const int device = kind == WCX_DECODER_AUTO ? 0 : (int)kind - WCX_DECODER_CUDA;
	enum wcx_result result = wcx_gpu_open(device, decoder->gpu_calls_max, &decoder->gpu, name);

	if (result == WCX_OK) {
		snprintf(decoder->name, sizeof decoder->name, "cuda (%s)", name);
		return 0;
	}
	if (kind != WCX_DECODER_AUTO)
		return wcx_fail(err, ENODEV, "no GPU to decode on: %s", name);
	snprintf(text, sizeof text, "decoding on the CPU: %s", name);
	send_notice(decoder, text);
	return 0;
}

static void add_costs(struct wcx_decoder *decoder, const struct wcx_gpu_costs *costs)
{
	const size_t used = strlen(decoder->name);

	snprintf(decoder->name + used, sizeof decoder->name - used,
		 "; 4 MiB: %lld us of a core here, %lld and %lld us later there (a tile: %lld and %lld)",
		 (long long)costs->cpu_all.core / 1000, (long long)costs->gpu_all.core / 1000,
		 (long long)costs->gpu_all.wall / 1000, (long long)costs->gpu_one.core / 1000,
		 (long long)costs->gpu_one.wall / 1000);
}

/* Measures which batches are the GPU's, and says so in the decoder's name.  If that fails, none are. */
static void measure_gpu(struct wcx_decoder *decoder)
{
	struct wcx_gpu_costs costs;
	char gpu[sizeof decoder->name];
	const bool is_measured = wcx_gpu_trial_run(decoder->gpu, decoder->cpu, &costs);

	decoder->choice.least_bytes = SIZE_MAX;
	memcpy(gpu, decoder->name, sizeof gpu);
	if (is_measured)
		wcx_gpu_choice_init(&decoder->choice, &costs);
	if (!is_measured)
		snprintf(decoder->name, sizeof decoder->name, "cpu (%s); not measured: %.200s", decoder->cpu->name, gpu);
	else if (decoder->choice.least_bytes > WCX_BATCH_BYTES)
		snprintf(decoder->name, sizeof decoder->name, "cpu (%s), which beats %.200s", decoder->cpu->name, gpu);
	else
		snprintf(decoder->name, sizeof decoder->name, "cpu (%s), from %zu KiB on %.200s", decoder->cpu->name,
			 decoder->choice.least_bytes >> 10, gpu);
	if (is_measured)
		add_costs(decoder, &costs);
	if (decoder->choice.least_bytes > WCX_BATCH_BYTES) {
		wcx_gpu_free(decoder->gpu);
		decoder->gpu = NULL;
	}
}

int wcx_decoder_create_within(enum wcx_decoder_kind kind, uint64_t buffers_max, wcx_notice_fn *notice, void *user,
			      struct wcx_decoder **ret, struct wcx_error *err)
{
	struct wcx_decoder *decoder = calloc(1, sizeof *decoder);
	int r;

	if (!decoder)
		return wcx_fail(err, ENOMEM, "no memory for a decoder");
	decoder->notice = notice;
	decoder->notice_user = user;
	decoder->lent_max = UINT_MAX;
	decoder->gpu_calls_max = (unsigned)WCX_CLAMP(buffers_max / CALL_BUFFER_BYTES, 1U, (unsigned)WCX_GPU_CALLS_MAX);
	pthread_mutex_init(&decoder->lock, NULL);
	pthread_cond_init(&decoder->returned, NULL);
	pthread_cond_init(&decoder->bytes_returned, NULL);
	r = choose_cpu(decoder, err);
	if (r == 0 && kind != WCX_DECODER_CPU)
		r = open_gpu(decoder, kind, err);
	decoder->chooses = kind == WCX_DECODER_AUTO && decoder->gpu;
	if (r == 0 && decoder->chooses)
		measure_gpu(decoder);
	if (r == 0)
		*ret = decoder;
	else
		wcx_decoder_free(decoder);
	return r;
}

int wcx_decoder_create(enum wcx_decoder_kind kind, wcx_notice_fn *notice, void *user, struct wcx_decoder **ret,
		       struct wcx_error *err)
{
	return wcx_decoder_create_within(kind, UINT64_MAX, notice, user, ret, err);
}

/* --- pinned memory --- */

static bool pin(void *user, void *memory, size_t bytes)
{
	struct wcx_decoder *decoder = user;
	const bool is_pinned = wcx_gpu_map(decoder->gpu, memory, bytes);

	if (!is_pinned && !atomic_exchange(&decoder->has_refused, true))
		send_notice(decoder, "no more memory can be pinned for the GPU; what is not is copied");
	return is_pinned;
}

static void unpin(void *user, void *memory, size_t bytes)
{
	struct wcx_decoder *decoder = user;

	wcx_gpu_unmap(decoder->gpu, memory, bytes);
}

/* --- batches --- */

static void free_batch(struct wcx_decoder *decoder, struct owned_batch *owned)
{
	wcx_decode_scratch_free(owned->scratch);
	ZSTD_freeDCtx(owned->zstd);
	if (owned->is_pinned) {
		wcx_gpu_dealloc(decoder->gpu, owned->batch.packed, WCX_GPU_PACKED_ROOM);
		atomic_fetch_sub(&decoder->pinned_batch_count, 1);
	} else {
		free(owned->batch.packed);
	}
	free(owned);
}

static void free_batches(struct wcx_decoder *decoder, struct owned_batch *list)
{
	while (list) {
		struct owned_batch *next = list->next;

		free_batch(decoder, list);
		list = next;
	}
}

static void free_bytes(union idle_bytes *list)
{
	while (list) {
		union idle_bytes *next = list->idle.next;

		free(list);
		list = next;
	}
}

/* Takes what has been idle since until_ms or longer out of the list. */
static struct owned_batch *take_old_batches(struct owned_batch **list, uint64_t until_ms)
{
	struct owned_batch *old = NULL;

	while (*list) {
		struct owned_batch *owned = *list;

		if (owned->idle_since_ms > until_ms) {
			list = &owned->next;
			continue;
		}
		*list = owned->next;
		owned->next = old;
		old = owned;
	}
	return old;
}

/* The same of memory for bases, of which the first was used last. */
static union idle_bytes *take_old_bytes(union idle_bytes **list, uint64_t until_ms)
{
	union idle_bytes *old;

	while (*list && (*list)->idle.since_ms > until_ms)
		list = &(*list)->idle.next;
	old = *list;
	*list = NULL;
	return old;
}

void wcx_decoder_pin_ahead(struct wcx_decoder *decoder)
{
	for (unsigned i = 0; i < PIN_AHEAD_CHUNKS && decoder->range; i++)
		if (atomic_load(&decoder->gpu_calls) || atomic_load(&decoder->gpu_lost) ||
		    !wcx_pinned_range_pin_ahead(decoder->range))
			break;
}

void wcx_decoder_release_idle(struct wcx_decoder *decoder, uint64_t idle_ms)
{
	const uint64_t now_ms = wcx_now_ms(), until_ms = now_ms - WCX_MIN(idle_ms, now_ms);
	struct owned_batch *batches;
	union idle_bytes *bytes;

	pthread_mutex_lock(&decoder->lock);
	batches = take_old_batches(&decoder->idle, until_ms);
	bytes = take_old_bytes(&decoder->idle_bytes, until_ms);
	pthread_mutex_unlock(&decoder->lock);
	free_batches(decoder, batches);
	free_bytes(bytes);
	if (decoder->gpu)
		wcx_gpu_release_idle(decoder->gpu, idle_ms);
}

void wcx_decoder_free(struct wcx_decoder *decoder)
{
	if (!decoder)
		return;
	wcx_gpu_crew_free(decoder->crew);
	free_batches(decoder, decoder->idle);
	free_bytes(decoder->idle_bytes);
	wcx_pinned_range_free(decoder->range);
	wcx_gpu_free(decoder->gpu);
	pthread_cond_destroy(&decoder->bytes_returned);
	pthread_cond_destroy(&decoder->returned);
	pthread_mutex_destroy(&decoder->lock);
	free(decoder);
}

uint64_t wcx_decoder_buffer_bytes(const struct wcx_decoder *decoder)
{
	return (uint64_t)wcx_decoder_gpu_calls(decoder) * CALL_BUFFER_BYTES;
}

size_t wcx_decoder_batch_bytes(const struct wcx_decoder *decoder)
{
	return decoder->gpu ? WCX_BATCH_BYTES : WCX_CPU_BATCH_BYTES;
}

size_t wcx_decoder_piece_bytes(const struct wcx_decoder *decoder, const struct wcx_decode_batch *batch)
{
	const struct owned_batch *owned = (const struct owned_batch *)batch;
	const bool is_for_cpu =
		!decoder->gpu || atomic_load(&decoder->gpu_lost) || (decoder->chooses && !(owned && owned->is_pinned));

	return is_for_cpu ? CPU_PIECE_BYTES : WCX_BATCH_BYTES;
}

unsigned wcx_decoder_gpu_calls(const struct wcx_decoder *decoder)
{
	return decoder->gpu ? decoder->gpu_calls_max : 0;
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
	struct wcx_gpu_memory memory = { 0, 0 };

	if (decoder->gpu)
		memory = wcx_gpu_get_memory(decoder->gpu);
	*ret = (struct wcx_decoder_stats){
		.cpu = read_work(&decoder->cpu_work),
		.gpu = read_work(&decoder->gpu_work),
		.gpu_lost = atomic_load(&decoder->gpu_lost),
		.gpu_device_bytes = memory.device_bytes,
		.gpu_pinned_bytes = memory.pinned_bytes,
	};
}

void wcx_decoder_limit(struct wcx_decoder *decoder, unsigned batches)
{
	decoder->lent_max = batches;
}

static struct owned_batch *create_batch(struct wcx_decoder *decoder)
{
	struct owned_batch *owned = calloc(1, sizeof *owned);

	if (!owned)
		return NULL;
	owned->scratch = wcx_decode_scratch_create(decoder->cpu);
	owned->zstd = ZSTD_createDCtx();
	if (decoder->gpu && atomic_fetch_add(&decoder->pinned_batch_count, 1) < decoder->gpu_calls_max)
		owned->batch.packed = wcx_gpu_alloc(decoder->gpu, WCX_GPU_PACKED_ROOM);
	owned->is_pinned = owned->batch.packed;
	if (decoder->gpu && !owned->is_pinned)
		atomic_fetch_sub(&decoder->pinned_batch_count, 1);
	if (!owned->is_pinned)
		owned->batch.packed = malloc(WCX_BATCH_PACKED_BYTES);
	if (owned->scratch && owned->zstd && owned->batch.packed)
		return owned;
	free_batch(decoder, owned);
	return NULL;
}

static void add_idle_locked(struct wcx_decoder *decoder, struct owned_batch *owned)
{
	struct owned_batch **at = &decoder->idle;

	while (!owned->is_pinned && *at && (*at)->is_pinned)
		at = &(*at)->next;
	owned->idle_since_ms = wcx_now_ms();
	owned->next = *at;
	*at = owned;
}

/* Clears a chunk of memory, which pinning would do on one thread.  On failure it does. */
static int make_resident(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	(void)loop;
	(void)worker;
	(void)err;
	madvise((uint8_t *)user + item * WCX_PINNED_CHUNK_BYTES, WCX_PINNED_CHUNK_BYTES, MADV_POPULATE_WRITE);
	return 0;
}

/* Pins the start of the memory for tiles.  One chunk comes first: where nothing can be pinned, nothing is made resident. */
static void pin_start(struct wcx_pinned_range *range, uint8_t *memory, size_t bytes, unsigned threads)
{
	wcx_pinned_range_start(range, WCX_MIN(bytes, (size_t)WCX_PINNED_CHUNK_BYTES));
	if (!wcx_pinned_range_bytes(range))
		return;
	wcx_parallel_for(threads, bytes / WCX_PINNED_CHUNK_BYTES, make_resident, memory, NULL, NULL);
	wcx_pinned_range_start(range, bytes);
}

/* Pinned memory takes long to allocate, so what read-ahead needs is allocated before there are readers. */
void wcx_decoder_use_memory(struct wcx_decoder *decoder, void *memory, size_t bytes, uint64_t pinned_max, unsigned threads)
{
	static const struct wcx_pin_calls calls = { pin, unpin };
	const uint64_t buffer_bytes = wcx_decoder_buffer_bytes(decoder);
	const uint64_t tiles_max = pinned_max - WCX_MIN(buffer_bytes, pinned_max);
	const size_t at_start = WCX_MIN(WCX_MAX(bytes / PINNED_SHARE, (size_t)PINNED_AT_START), bytes);

	if (!decoder->gpu)
		return;
	if (bytes)
		decoder->range = wcx_pinned_range_create(memory, bytes, tiles_max, &calls, decoder);
	if (decoder->range)
		pin_start(decoder->range, memory, (size_t)WCX_MIN(at_start, tiles_max), threads);
	for (unsigned i = 0; i < decoder->gpu_calls_max; i++) {
		struct owned_batch *owned = create_batch(decoder);

		if (!owned)
			return;
		add_idle_locked(decoder, owned); /* nobody else knows the decoder yet */
	}
}

void wcx_decoder_start_crew(struct wcx_decoder *decoder)
{
	if (decoder->gpu)
		decoder->crew = wcx_gpu_crew_create(CREW_THREADS);
}

/* Ends a loan; owned, unless NULL, becomes idle. */
static void take_back(struct wcx_decoder *decoder, struct owned_batch *owned)
{
	pthread_mutex_lock(&decoder->lock);
	decoder->lent--;
	if (owned)
		add_idle_locked(decoder, owned);
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
		decoder->idle_bytes = idle->idle.next;
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
		idle->idle.next = decoder->idle_bytes;
		idle->idle.since_ms = wcx_now_ms();
		decoder->idle_bytes = idle;
	}
	pthread_cond_signal(&decoder->bytes_returned);
	pthread_mutex_unlock(&decoder->lock);
}

/* Makes memory resident, so that copying to it later, with a queue of the GPU taken, meets no page faults. */
static void touch(uint8_t *dst, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += PAGE_BYTES)
		((volatile uint8_t *)dst)[at] = 0;
}

/* Finds out which jobs have a dst that is pinned, or can be pinned now.  Prepares the others, if there are any, for copies.
 */
static void pin_jobs(struct wcx_decoder *decoder, const struct wcx_gpu_batch *batch, bool is_pinned[WCX_BATCH_TILES])
{
	const uint64_t now_ns = wcx_now_ns();

	for (size_t i = 0; i < batch->job_count; i++) {
		const struct wcx_tile_job *job = &batch->jobs[i];

		is_pinned[i] = decoder->range && wcx_pinned_range_pin(decoder->range, job->dst, job->dst_bytes, now_ns);
		if (is_pinned[i] || wcx_gpu_is_among_bases(batch, job->dst))
			continue;
		touch(job->dst, job->dst_bytes);
	}
}

/* bases is NULL, or as of wcx_decoder_run_pairs. */
static void start_gpu(struct wcx_decoder *decoder, struct owned_batch *owned, size_t job_count, const uint32_t *checksums,
		      const uint8_t *bases)
{
	const struct wcx_gpu_batch batch = {
		.jobs = owned->batch.jobs,
		.job_count = job_count,
		.dst_is_pinned = owned->is_dst_pinned,
		.packed = owned->is_pinned ? owned->batch.packed : NULL,
		.checksums = checksums,
		.bases = bases,
		.device_ns_ret = &owned->device_ns,
	};

	owned->device_ns = 0;
	pin_jobs(decoder, &batch, owned->is_dst_pinned);
	atomic_fetch_add(&decoder->gpu_calls, 1);
	wcx_gpu_start(decoder->gpu, &batch, &owned->call);
}

static void finish_gpu(struct wcx_decoder *decoder, struct owned_batch *owned)
{
	const enum wcx_result result = wcx_gpu_finish(decoder->gpu, &owned->call);

	atomic_fetch_sub(&decoder->gpu_calls, 1);
	if (result == WCX_DEVICE_FAILED && !atomic_exchange(&decoder->gpu_lost, true))
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

/* Whether a job's packed bytes have the right checksum, as far as the caller has not compared it. */
static bool is_intact(const struct wcx_tile_job *job, const uint32_t *checksum)
{
	return !checksum || job->mode != WCX_TILE_CODED || wcx_checksum32(job->src, job->src_bytes) == *checksum;
}

/* Decodes the first jobs unless they are decoded already; returns how many, at least one.  checksums: NULL, or of each job.
 */
static size_t decode_on_cpu(struct owned_batch *owned, struct wcx_tile_job *jobs, const uint32_t *checksums,
			    size_t job_count)
{
	size_t count = 0;

	if (jobs->result == WCX_OK)
		return 1;
	if (jobs->mode == WCX_TILE_ZSTD) {
		jobs->result = decompress(owned->zstd, jobs);
		return 1;
	}
	while (count < job_count && jobs[count].result != WCX_OK && jobs[count].mode != WCX_TILE_ZSTD &&
	       is_intact(&jobs[count], checksums ? &checksums[count] : NULL))
		count++;
	if (!count) {
		jobs->result = WCX_BAD_DATA;
		return 1;
	}
	wcx_tiles_decode(jobs, count, owned->scratch);
	return count;
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

/* Whether the GPU decodes a tile of a batch; of differences it does so in pairs alone. */
static bool is_coded_alone(const struct wcx_tile_job *job)
{
	return job->mode == WCX_TILE_CODED && job->recipe->difference == WCX_DIFFERENCE_NONE;
}

/* Whether the GPU gets a batch.  With a choice, nobody waits for others to finish theirs. */
static bool is_for_gpu(struct wcx_decoder *decoder, const struct owned_batch *owned, size_t coded_bytes)
{
	if (!decoder->gpu || !coded_bytes || atomic_load(&decoder->gpu_lost))
		return false;
	return !decoder->chooses ||
	       ((!owned || owned->is_pinned) && atomic_load(&decoder->gpu_calls) < decoder->gpu_calls_max &&
		wcx_gpu_choice_takes(&decoder->choice, coded_bytes, wcx_now_ns()));
}

/* Begins a batch, and starts the GPU if it gets it, which is returned. */
static bool begin_batch(struct wcx_decoder *decoder, struct owned_batch *owned, size_t job_count, const uint32_t *checksums)
{
	struct wcx_tile_job *jobs = owned->batch.jobs;

	owned->job_count = job_count;
	owned->checksums = checksums;
	owned->coded_bytes = 0;
	owned->start_ns = wcx_now_ns();
	for (size_t i = 0; i < job_count; i++) {
		jobs[i].result = WCX_DEVICE_FAILED;
		owned->coded_bytes += is_coded_alone(&jobs[i]) ? jobs[i].dst_bytes : 0;
	}
	if (!is_for_gpu(decoder, owned, owned->coded_bytes))
		return false;
	start_gpu(decoder, owned, job_count, checksums, NULL);
	return true;
}

/* The CPU has the last word on a damaged tile, as the reference; and the GPU does not know the mode ZSTD. */
static void end_batch(struct wcx_decoder *decoder, struct owned_batch *owned, bool is_on_gpu)
{
	struct wcx_tile_job *jobs = owned->batch.jobs;
	const size_t job_count = owned->job_count;
	uint64_t gpu_bytes = 0, start_ns = owned->start_ns;

	if (is_on_gpu) {
		finish_gpu(decoder, owned);
		wcx_gpu_choice_note(&decoder->choice, owned->coded_bytes, owned->device_ns);
		gpu_bytes = done_bytes(jobs, job_count);
		add_work(&decoder->gpu_work, gpu_bytes, start_ns);
		start_ns = wcx_now_ns();
	}
	for (size_t i = 0, count; i < job_count; i += count)
		count = decode_on_cpu(owned, &jobs[i], owned->checksums ? &owned->checksums[i] : NULL, job_count - i);
	add_work(&decoder->cpu_work, done_bytes(jobs, job_count) - gpu_bytes, start_ns);
}

void wcx_decoder_run(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count,
		     const uint32_t *checksums)
{
	struct owned_batch *owned = (struct owned_batch *)batch;

	end_batch(decoder, owned, begin_batch(decoder, owned, job_count, checksums));
}

static struct owned_batch *batch_of(struct wcx_gpu_work *work)
{
	return (struct owned_batch *)(void *)((uint8_t *)work - offsetof(struct owned_batch, work));
}

static bool sleep_for_batch(struct wcx_gpu_work *work)
{
	struct owned_batch *owned = batch_of(work);

	return wcx_gpu_wait(owned->decoder->gpu, &owned->call);
}

static void finish_batch(struct wcx_gpu_work *work)
{
	struct owned_batch *owned = batch_of(work);

	end_batch(owned->decoder, owned, true);
	owned->decoded(owned->user);
}

bool wcx_decoder_start(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count,
		       const uint32_t *checksums, wcx_decoded_fn *decoded, void *user)
{
	struct owned_batch *owned = (struct owned_batch *)batch;
	const bool is_on_gpu = begin_batch(decoder, owned, job_count, checksums);

	if (!is_on_gpu || !decoder->crew) {
		end_batch(decoder, owned, is_on_gpu);
		return false;
	}
	owned->decoder = decoder;
	owned->decoded = decoded;
	owned->user = user;
	owned->work = (struct wcx_gpu_work){ .sleep = sleep_for_batch, .finish = finish_batch };
	wcx_gpu_crew_add(decoder->crew, &owned->work);
	return true;
}

bool wcx_decoder_has_kernel(const struct wcx_decoder *decoder, const struct wcx_recipe *recipe)
{
	return decoder->gpu && wcx_gpu_takes(decoder->gpu, recipe);
}

bool wcx_decoder_takes_pairs(struct wcx_decoder *decoder, size_t bytes)
{
	return is_for_gpu(decoder, NULL, bytes);
}

void wcx_decoder_run_pairs(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count,
			   const uint8_t *bases)
{
	struct owned_batch *owned = (struct owned_batch *)batch;
	const uint64_t start_ns = wcx_now_ns();
	uint64_t coded_bytes = 0;

	for (size_t i = 0; i < job_count; i++)
		coded_bytes += batch->jobs[i].dst_bytes;
	start_gpu(decoder, owned, job_count, NULL, bases);
	finish_gpu(decoder, owned);
	if (owned->device_ns)
		wcx_gpu_choice_note_pairs(&decoder->choice, coded_bytes, owned->device_ns);
	add_work(&decoder->gpu_work, done_bytes(batch->jobs, job_count), start_ns);
}
