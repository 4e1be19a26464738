/* SPDX-License-Identifier: MIT */
/*
 * Checks the GPU's decoding against the CPU's, and times it.
 *
 *	gpu_check [--bench | --one-thread] [FILE.wcx ...]
 *
 * Without files: generated tiles of all shapes and kinds, the same damaged, many threads, and a device that fails.  With
 * files: every tile of theirs.  With --bench: times instead of checks.  With --one-thread: leaves out what takes many.
 * Without a GPU: exit status 77, which ctest counts as skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "codec/tile.h"
#include "cuda/gpu_bench.h"
#include "cuda/gpu_decode.h"
#include "fs/container.h"
#include "tests/check.h"

enum {
	EXIT_SKIPPED = 77,
	GUARD_BYTES = 64, /* around every decoded tile */
	GUARD_VALUE = 0xA5,
	FILE_BATCH = 512, /* tiles of a file that are compared at a time */
	THREAD_COUNT = 8,
	THREAD_CALLS = 6,
	BENCH_BYTES = 1 << 27, /* of a set: packed, still more than the 60 MB cache of an H200 */
	BENCH_REPEATS = 8,
	BENCH_DRAWN = 64, /* tiles of a set that are drawn; the others are copies in places of their own */
	BENCH_ROUNDS = 20,
	BENCH_MAX_THREADS = 16,
};

/* xorshift64*, seeded the same in every run. */
struct rng {
	uint64_t state;
};

static uint32_t rng_bits(struct rng *rng)
{
	rng->state ^= rng->state >> 12;
	rng->state ^= rng->state << 25;
	rng->state ^= rng->state >> 27;
	return (uint32_t)(rng->state * UINT64_C(0x2545F4914F6CDD1D) >> 32);
}

static uint32_t rng_below(struct rng *rng, uint32_t limit)
{
	return (uint32_t)((uint64_t)rng_bits(rng) * limit >> 32);
}

/* Standard normal, by Box and Muller. */
static double rng_gauss(struct rng *rng)
{
	double radius = sqrt(-2 * log((rng_bits(rng) + 1.0) / 4294967296.0));

	return radius * cos(6.283185307179586 * rng_bits(rng) / 4294967296.0);
}

/* Student's t with 5 degrees of freedom: heavy tails. */
static double rng_student(struct rng *rng)
{
	double squares = 0;

	for (int i = 0; i < 5; i++)
		squares += pow(rng_gauss(rng), 2);
	return rng_gauss(rng) / sqrt(squares / 5);
}

/* Integers are as wide as the element, so that the upper planes of wide ones hold nothing but the sign. */
enum content { GAUSS_INT, STUDENT_INT, GAUSS_FLOAT, UNIFORM, CONSTANT, CONTENT_COUNT };

static int64_t clamped_int8(double value)
{
	return lrint(fmax(-128, fmin(127, value)));
}

/* The bits of a float of that many bytes: BF16 is the upper half of a single; for one byte, an INT8 of sigma 20. */
static int64_t float_bits(double value, uint32_t elem_bytes)
{
	float single = (float)value;
	int32_t single_bits;
	int64_t bits;

	memcpy(&bits, &value, sizeof bits);
	memcpy(&single_bits, &single, sizeof single_bits);
	switch (elem_bytes) {
	case 1:
		return clamped_int8(1000 * value);
	case 2:
		return single_bits >> 16;
	case 4:
		return single_bits;
	}
	return bits;
}

static void element_write(struct rng *rng, enum content content, uint32_t elem_bytes, uint8_t *dst)
{
	int64_t bits = 0x0102030405060708; /* of a constant tile */

	switch (content) {
	case GAUSS_INT:
		bits = clamped_int8(33.6 * rng_gauss(rng));
		break;
	case STUDENT_INT:
		bits = clamped_int8(10 * rng_student(rng));
		break;
	case GAUSS_FLOAT:
		bits = float_bits(0.02 * rng_gauss(rng), elem_bytes);
		break;
	case UNIFORM:
		bits = (int64_t)((uint64_t)rng_bits(rng) << 32 | rng_bits(rng));
		break;
	case CONSTANT:
	case CONTENT_COUNT:
		break;
	}
	for (uint32_t p = 0; p < elem_bytes; p++)
		dst[p] = (uint8_t)(bits >> 8 * p);
}

/* A tile, what it was encoded to, and the tables for that; job describes it to a decoder and lacks only dst. */
struct sample {
	uint8_t *original, *packed;
	struct wcx_freq_table tables[WCX_PLANES_MAX];
	struct wcx_tile_job job;
};

static void *must_alloc(size_t bytes)
{
	void *memory = malloc(bytes ? bytes : 1);

	if (!memory) {
		fprintf(stderr, "gpu_check: out of memory\n");
		exit(1);
	}
	return memory;
}

static void sample_free(struct sample *sample)
{
	free(sample->original);
	free(sample->packed);
}

static void sample_make(struct sample *sample, struct rng *rng, struct wcx_tile_shape shape, enum content content,
			enum wcx_predictor predictor, struct wcx_encode_scratch *scratch)
{
	const size_t bytes = wcx_tile_shape_bytes(&shape);
	struct wcx_plane_plan plan[WCX_PLANES_MAX];

	memset(sample, 0, sizeof *sample);
	sample->original = must_alloc(bytes);
	sample->packed = must_alloc(bytes);
	for (size_t i = 0; i < bytes; i += shape.elem_bytes)
		element_write(rng, content, shape.elem_bytes, sample->original + i);
	for (uint32_t p = 0; p < shape.elem_bytes; p++) {
		uint64_t count[WCX_SYMBOL_COUNT] = { 0 };

		wcx_tile_count_residuals(&shape, sample->original, p, predictor, scratch, count);
		wcx_freq_table_build(count, &plan[p].table);
		plan[p].coding = WCX_PLANE_RANS;
		plan[p].predictor = predictor;
		sample->tables[p] = plan[p].table;
		sample->job.tables[p] = &sample->tables[p];
	}
	sample->job.shape = shape;
	sample->job.src = sample->packed;
	sample->job.dst_bytes = bytes;
	CHECK(wcx_tile_encode(&shape, sample->original, plan, scratch, sample->packed, &sample->job.mode,
			      &sample->job.src_bytes, &sample->job.constant) == WCX_OK);
}

/* All the tiles that the checks share: freed at the end of the program. */
struct samples {
	struct sample *all;
	size_t count;
};

/*
 * Rows x columns of one tile of each kind: the whole sizes, ragged ones, single rows and columns, and 1 to 300
 * elements.  Small tiles are stored whatever they hold unless their elements are wide.
 */
static struct wcx_tile_shape sample_shape(struct rng *rng, size_t number)
{
	static const uint32_t sides[][2] = {
		{ 256, 256 }, { 1, 65536 }, { 65536, 1 }, { 16, 4096 },
		{ 4096, 16 }, { 33, 1985 }, { 1927, 34 }, { 5, 13107 },
	};
	struct wcx_tile_shape shape = { 1, 1, 1u << rng_below(rng, 4) };

	if (number < sizeof sides / sizeof *sides) {
		shape.rows = sides[number][0];
		shape.cols = sides[number][1];
	} else if (number < 308) {
		shape.cols = (uint32_t)number - 7;
	} else {
		shape.cols = 1 + rng_below(rng, 700);
		shape.rows = 1 + rng_below(rng, 90);
	}
	return shape;
}

/* Each content with each predictor in each large shape, then the small ones with whatever comes. */
static struct samples samples_make(void)
{
	enum { LARGE = 8 * CONTENT_COUNT * WCX_PREDICTOR_COUNT, SMALL = 600 };
	struct rng rng = { 0x5EED };
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	struct samples samples = { must_alloc((LARGE + SMALL) * sizeof(struct sample)), LARGE + SMALL };

	if (!CHECK(scratch != NULL))
		exit(1);
	for (size_t i = 0; i < samples.count; i++) {
		size_t kind = i < LARGE ? i / 8 : rng_bits(&rng);
		struct wcx_tile_shape shape = sample_shape(&rng, i < LARGE ? i % 8 : i - LARGE + 8);

		sample_make(&samples.all[i], &rng, shape, (enum content)(kind % CONTENT_COUNT),
			    (enum wcx_predictor)(kind / CONTENT_COUNT % WCX_PREDICTOR_COUNT), scratch);
	}
	wcx_encode_scratch_free(scratch);
	return samples;
}

static void samples_free(struct samples *samples)
{
	for (size_t i = 0; i < samples->count; i++)
		sample_free(&samples->all[i]);
	free(samples->all);
}

/* Gives each job a place in one guarded area, which the caller frees; the places and the guards hold the same value. */
static uint8_t *place_jobs(struct wcx_tile_job *jobs, size_t job_count, size_t *bytes_ret)
{
	size_t bytes = GUARD_BYTES;
	uint8_t *area;

	for (size_t i = 0; i < job_count; i++)
		bytes += jobs[i].dst_bytes + GUARD_BYTES;
	area = must_alloc(bytes);
	memset(area, GUARD_VALUE, bytes);
	*bytes_ret = bytes;
	bytes = GUARD_BYTES;
	for (size_t i = 0; i < job_count; i++) {
		jobs[i].dst = area + bytes;
		bytes += jobs[i].dst_bytes + GUARD_BYTES;
	}
	return area;
}

static bool guard_is_whole(const uint8_t *guard)
{
	for (size_t i = 0; i < GUARD_BYTES; i++)
		if (guard[i] != GUARD_VALUE)
			return false;
	return true;
}

/*
 * Decodes the jobs on the GPU and on the CPU: results, bytes and the memory in between must agree.  Returns how many
 * were sound.
 */
static size_t compare_decoders(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create();
	size_t area_bytes, sound = 0;
	uint8_t *area = place_jobs(jobs, job_count, &area_bytes), *expected = must_alloc(WCX_TILE_MAX_BYTES);

	CHECK(guard_is_whole(area));
	CHECK(wcx_gpu_decode(gpu, jobs, job_count) == WCX_OK);
	for (size_t i = 0; i < job_count && scratch; i++) {
		struct wcx_tile_job reference = jobs[i];

		reference.dst = expected;
		wcx_tile_decode(&reference, scratch);
		CHECK(jobs[i].result == reference.result);
		if (reference.result == WCX_OK) {
			CHECK(memcmp(jobs[i].dst, expected, jobs[i].dst_bytes) == 0);
			sound++;
		}
		CHECK(guard_is_whole(jobs[i].dst - GUARD_BYTES) && guard_is_whole(jobs[i].dst + jobs[i].dst_bytes));
	}
	CHECK(scratch != NULL);
	free(expected);
	free(area);
	wcx_decode_scratch_free(scratch);
	return sound;
}

static void check_valid_tiles(struct wcx_gpu *gpu, const struct samples *samples)
{
	struct wcx_tile_job *jobs = must_alloc(samples->count * sizeof *jobs);
	size_t area_bytes;
	uint8_t *area;

	for (size_t i = 0; i < samples->count; i++)
		jobs[i] = samples->all[i].job;
	CHECK(compare_decoders(gpu, jobs, samples->count) == samples->count);

	area = place_jobs(jobs, samples->count, &area_bytes);
	CHECK(wcx_gpu_decode(gpu, jobs, samples->count) == WCX_OK);
	for (size_t i = 0; i < samples->count; i++)
		CHECK(memcmp(jobs[i].dst, samples->all[i].original, jobs[i].dst_bytes) == 0);
	free(area);
	free(jobs);
}

static void check_wrong_sizes_are_refused(struct wcx_gpu *gpu, const struct samples *samples)
{
	struct wcx_tile_job jobs[4] = { samples->all[0].job, samples->all[0].job, samples->all[0].job, samples->all[0].job };

	jobs[0].dst_bytes--;
	jobs[1].shape.rows = 0;
	jobs[2].shape.elem_bytes = 3;
	jobs[3].tables[0] = NULL;
	compare_decoders(gpu, jobs, 4);
	CHECK(jobs[0].result == WCX_WRONG_SIZE && jobs[3].result == WCX_BAD_DATA);
}

/* Moves the end of a plane's payload by some bytes (of a tile with one plane), and tells the header so. */
static void resize_payload(uint8_t *packed, size_t *bytes, int by)
{
	size_t payload = (size_t)((long)(packed[1] | packed[2] << 8 | packed[3] << 16) + by);

	for (int i = 0; i < 3; i++)
		packed[1 + i] = (uint8_t)(payload >> 8 * i);
	*bytes = 4 + (payload + 3) / 4 * 4;
}

/* packed has room for 8 bytes more than *bytes. */
static void damage(struct rng *rng, const struct wcx_tile_shape *shape, uint8_t *packed, size_t *bytes)
{
	const size_t head = 4 * (size_t)shape->elem_bytes;
	const uint32_t kind = rng_below(rng, 8);

	switch (kind) {
	case 0: /* flipped bits */
	case 1:
	case 2:
		for (uint32_t flips = 1 + rng_below(rng, 3); flips > 0; flips--)
			packed[rng_below(rng, (uint32_t)*bytes)] ^= (uint8_t)(1u << rng_below(rng, 8));
		break;
	case 3: /* cut off */
		*bytes = rng_below(rng, (uint32_t)*bytes);
		break;
	case 4: /* random payloads */
		for (size_t i = head; i < *bytes; i++)
			packed[i] = (uint8_t)rng_bits(rng);
		break;
	case 5: /* payloads all of one value: always, or never, a lane wants a word */
		memset(packed + head, rng_below(rng, 2) ? 0xFF : 0, *bytes - head);
		break;
	case 6: /* words left over, or missing */
	case 7:
		memset(packed + *bytes, 0, 8);
		if (shape->elem_bytes == 1)
			resize_payload(packed, bytes, kind == 6 ? 2 : -2 * (1 + (int)rng_below(rng, 64)));
		break;
	}
}

static void check_damaged_tiles(struct wcx_gpu *gpu, const struct samples *samples)
{
	enum { COPIES = 12, LARGEST = 20000 };
	struct rng rng = { 0xBAD };
	struct wcx_tile_job *jobs = must_alloc(samples->count * COPIES * sizeof *jobs);
	size_t count = 0, sound;

	for (size_t i = 0; i < samples->count * COPIES; i++) {
		const struct sample *sample = &samples->all[i / COPIES];
		uint8_t *packed;

		if (sample->job.mode != WCX_TILE_CODED || sample->job.src_bytes > LARGEST)
			continue;
		packed = must_alloc(sample->job.src_bytes + 8);
		memcpy(packed, sample->packed, sample->job.src_bytes);
		jobs[count] = sample->job;
		damage(&rng, &jobs[count].shape, packed, &jobs[count].src_bytes);
		jobs[count++].src = packed;
	}
	CHECK(count >= 100);
	sound = compare_decoders(gpu, jobs, count);
	CHECK(sound < count / 2);
	printf("%zu damaged tiles, of which %zu still decode\n", count, sound);
	for (size_t i = 0; i < count; i++)
		free((void *)(uintptr_t)jobs[i].src);
	free(jobs);
}

struct decoding_thread {
	pthread_t thread;
	struct wcx_gpu *gpu;
	const struct samples *samples;
	size_t first;
};

/* Calls with one tile, some tiles and, once around, all of them. */
static void *decoding_thread(void *argument)
{
	const struct decoding_thread *self = argument;
	const struct samples *samples = self->samples;
	struct wcx_tile_job *jobs = must_alloc(samples->count * sizeof *jobs);

	for (size_t call = 0; call < THREAD_CALLS; call++) {
		size_t count = call == 0 ? samples->count : 1 + 37 * call, area_bytes;
		uint8_t *area;

		for (size_t i = 0; i < count; i++)
			jobs[i] = samples->all[(self->first + 5 * call + i) % samples->count].job;
		area = place_jobs(jobs, count, &area_bytes);
		CHECK(wcx_gpu_decode(self->gpu, jobs, count) == WCX_OK);
		for (size_t i = 0; i < count; i++) {
			const struct sample *sample = &samples->all[(self->first + 5 * call + i) % samples->count];

			CHECK(jobs[i].result == WCX_OK && memcmp(jobs[i].dst, sample->original, jobs[i].dst_bytes) == 0);
		}
		free(area);
	}
	free(jobs);
	return NULL;
}

static void check_many_threads(struct wcx_gpu *gpu, const struct samples *samples)
{
	struct decoding_thread threads[THREAD_COUNT];

	for (size_t i = 0; i < THREAD_COUNT; i++) {
		threads[i] = (struct decoding_thread){ .gpu = gpu, .samples = samples, .first = 101 * i };
		if (!CHECK(pthread_create(&threads[i].thread, NULL, decoding_thread, &threads[i]) == 0))
			exit(1);
	}
	for (size_t i = 0; i < THREAD_COUNT; i++)
		pthread_join(threads[i].thread, NULL);
}

static void check_lost_device_is_reported(const struct samples *samples)
{
	char name[WCX_GPU_NAME_BYTES];
	struct wcx_tile_job job = samples->all[0].job;
	struct wcx_gpu *gpu = NULL;

	setenv("WCX_GPU_FAIL_AFTER", "2", 1);
	CHECK(wcx_gpu_open(&gpu, name) == WCX_OK);
	unsetenv("WCX_GPU_FAIL_AFTER");
	job.dst = must_alloc(job.dst_bytes);
	for (int call = 0; gpu && call < 5; call++) {
		enum wcx_result expected = call < 2 ? WCX_OK : WCX_DEVICE_FAILED;

		CHECK(wcx_gpu_decode(gpu, &job, 1) == expected);
		CHECK(job.result == expected);
	}
	free(job.dst);
	wcx_gpu_free(gpu);
}

/* Reads a tile's packed bytes and describes it; its tables are those of its segment. */
static bool file_job_read(const struct wcx_container *container, const struct wcx_segment *segment, uint64_t tile_index,
			  const struct wcx_freq_table tables[WCX_PLANES_MAX], struct wcx_tile_job *job)
{
	struct wcx_tile_info tile;
	uint8_t *packed = NULL;

	wcx_container_tile(container, segment, tile_index, &tile);
	*job = (struct wcx_tile_job){ .shape = tile.shape, .mode = tile.mode, .constant = tile.constant };
	for (uint32_t p = 0; p < tile.shape.elem_bytes; p++)
		job->tables[p] = segment->table_mask >> p & 1 ? &tables[p] : NULL;
	job->dst_bytes = wcx_tile_shape_bytes(&tile.shape);
	if (tile.mode == WCX_TILE_CONSTANT)
		return true;
	packed = must_alloc(tile.packed_bytes);
	job->src = packed;
	job->src_bytes = tile.packed_bytes;
	return pread(wcx_container_fd(container), packed, tile.packed_bytes, (off_t)tile.packed_offset) == tile.packed_bytes;
}

static size_t check_segment(struct wcx_gpu *gpu, const struct wcx_container *container, const struct wcx_segment *segment)
{
	struct wcx_freq_table tables[WCX_PLANES_MAX];
	struct wcx_tile_job *jobs = must_alloc(FILE_BATCH * sizeof *jobs);
	size_t sound = 0;

	wcx_container_tables(container, segment, tables);
	for (uint64_t done = 0, count; done < segment->tile_count; done += count) {
		count = segment->tile_count - done < FILE_BATCH ? segment->tile_count - done : FILE_BATCH;
		for (size_t i = 0; i < count; i++)
			CHECK(file_job_read(container, segment, segment->first_tile + done + i, tables, &jobs[i]));
		sound += compare_decoders(gpu, jobs, count);
		for (size_t i = 0; i < count; i++)
			free((void *)(uintptr_t)jobs[i].src);
	}
	free(jobs);
	return sound;
}

static void check_file(struct wcx_gpu *gpu, const char *path)
{
	struct wcx_container *container = NULL;
	struct wcx_error err = { "" };
	uint64_t tile_count, sound = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (!CHECK(fd >= 0 && wcx_container_open(fd, path, &container, &err) == 0)) {
		fprintf(stderr, "%s: %s\n", path, fd < 0 ? strerror(errno) : err.text);
		if (fd >= 0)
			close(fd);
		return;
	}
	tile_count = wcx_container_superblock(container)->tile_count;
	for (size_t i = 0; i < wcx_container_superblock(container)->segment_count; i++)
		sound += check_segment(gpu, container, wcx_container_segment(container, i));
	CHECK(sound == tile_count);
	printf("%s: %llu of %llu tiles are the same on CPU and GPU\n", path, (unsigned long long)sound,
	       (unsigned long long)tile_count);
	wcx_container_free(container);
}

/* A set of tiles that share their tables, as those of one large tensor do. */
struct bench_set {
	const char *name;
	struct wcx_tile_shape shape;
	enum content content;
	struct wcx_plane_plan plan[WCX_PLANES_MAX];
	size_t tile_count, tile_bytes, packed_bytes;
	uint8_t *original, *packed, *decoded;
	struct wcx_tile_job *jobs;
};

static void bench_set_make(struct bench_set *set)
{
	struct rng rng = { 0xBE7C4 };
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();

	set->tile_bytes = wcx_tile_shape_bytes(&set->shape);
	set->tile_count = BENCH_BYTES / set->tile_bytes;
	set->original = must_alloc(set->tile_count * set->tile_bytes);
	set->packed = must_alloc(set->tile_count * set->tile_bytes);
	set->decoded = must_alloc(set->tile_count * set->tile_bytes);
	set->jobs = must_alloc(set->tile_count * sizeof *set->jobs);
	if (!CHECK(scratch != NULL))
		exit(1);
	for (size_t i = 0; i < BENCH_DRAWN * set->tile_bytes; i += set->shape.elem_bytes)
		element_write(&rng, set->content, set->shape.elem_bytes, set->original + i);
	for (size_t i = BENCH_DRAWN; i < set->tile_count; i++)
		memcpy(set->original + i * set->tile_bytes, set->original + i % BENCH_DRAWN * set->tile_bytes,
		       set->tile_bytes);
	for (uint32_t p = 0; p < set->shape.elem_bytes; p++) {
		uint64_t count[WCX_SYMBOL_COUNT] = { 0 };

		for (size_t i = 0; i < set->tile_count; i++)
			wcx_tile_count_residuals(&set->shape, set->original + i * set->tile_bytes, p, WCX_PREDICT_NONE,
						 scratch, count);
		wcx_freq_table_build(count, &set->plan[p].table);
		set->plan[p].coding = WCX_PLANE_RANS;
	}
	for (size_t i = 0; i < set->tile_count; i++) {
		struct wcx_tile_job *job = &set->jobs[i];
		uint8_t *packed = set->packed + i * set->tile_bytes;

		*job = (struct wcx_tile_job){ .shape = set->shape, .src = packed, .dst_bytes = set->tile_bytes };
		job->dst = set->decoded + i * set->tile_bytes;
		for (uint32_t p = 0; p < set->shape.elem_bytes; p++)
			job->tables[p] = &set->plan[p].table;
		CHECK(wcx_tile_encode(&set->shape, set->original + i * set->tile_bytes, set->plan, scratch, packed,
				      &job->mode, &job->src_bytes, &job->constant) == WCX_OK);
		set->packed_bytes += job->src_bytes;
	}
	wcx_encode_scratch_free(scratch);
}

static void bench_set_free(struct bench_set *set)
{
	free(set->original);
	free(set->packed);
	free(set->decoded);
	free(set->jobs);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Prints the median rate and, as the spread, the slowest and the fastest. */
static void print_rates(const char *what, double *seconds, size_t count, double bytes)
{
	qsort(seconds, count, sizeof *seconds, compare_doubles);
	printf("  %-28s %8.1f GB/s (%.1f to %.1f)\n", what, bytes / seconds[count / 2] / 1e9,
	       bytes / seconds[count - 1] / 1e9, bytes / seconds[0] / 1e9);
}

static bool bench_set_is_decoded(struct bench_set *set)
{
	size_t bytes = set->tile_count * set->tile_bytes;
	bool equal = memcmp(set->decoded, set->original, bytes) == 0;

	memset(set->decoded, GUARD_VALUE, bytes);
	return equal;
}

struct bench_thread {
	pthread_t thread;
	struct wcx_gpu *gpu;
	struct wcx_tile_job *jobs;
	size_t job_count;
};

static void *bench_thread(void *argument)
{
	struct bench_thread *self = argument;

	CHECK(wcx_gpu_decode(self->gpu, self->jobs, self->job_count) == WCX_OK);
	return NULL;
}

/* Seconds for the whole set, dealt out to so many threads. */
static double bench_pass(struct wcx_gpu *gpu, struct bench_set *set, size_t thread_count)
{
	struct bench_thread threads[BENCH_MAX_THREADS];
	const size_t share = set->tile_count / thread_count;
	struct timespec start, stop;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (size_t i = 0; i < thread_count; i++) {
		threads[i] = (struct bench_thread){ .gpu = gpu, .jobs = set->jobs + i * share, .job_count = share };
		if (!CHECK(pthread_create(&threads[i].thread, NULL, bench_thread, &threads[i]) == 0))
			exit(1);
	}
	for (size_t i = 0; i < thread_count; i++)
		pthread_join(threads[i].thread, NULL);
	clock_gettime(CLOCK_MONOTONIC, &stop);
	return (double)(stop.tv_sec - start.tv_sec) + (double)(stop.tv_nsec - start.tv_nsec) / 1e9;
}

static void bench_set_run(struct wcx_gpu *gpu, struct bench_set *set)
{
	double seconds[BENCH_ROUNDS];
	uint64_t bytes = 0;
	char what[64];

	bench_set_make(set);
	printf("%s, %zu tiles of %zu bytes, ratio %.4f, decoded bytes a second:\n", set->name, set->tile_count,
	       set->tile_bytes, (double)(set->tile_count * set->tile_bytes) / (double)set->packed_bytes);
	memset(set->decoded, GUARD_VALUE, set->tile_count * set->tile_bytes);
	if (CHECK(wcx_gpu_time_decode(gpu, set->jobs, set->tile_count, BENCH_REPEATS, BENCH_ROUNDS, seconds, &bytes) ==
		  WCX_OK)) {
		CHECK(bench_set_is_decoded(set));
		for (size_t round = 0; round < BENCH_ROUNDS; round++)
			seconds[round] /= 1e3;
		print_rates("device to device", seconds, BENCH_ROUNDS, (double)bytes);
	}
	for (size_t threads = 1; threads <= BENCH_MAX_THREADS; threads *= 2) {
		bench_pass(gpu, set, threads);
		CHECK(bench_set_is_decoded(set));
		for (size_t round = 0; round < BENCH_ROUNDS; round++)
			seconds[round] = bench_pass(gpu, set, threads);
		snprintf(what, sizeof what, "host to host, %2zu thread%s", threads, threads > 1 ? "s" : "");
		print_rates(what, seconds, BENCH_ROUNDS, (double)(set->tile_count * set->tile_bytes));
	}
	bench_set_free(set);
}

static void bench_all(struct wcx_gpu *gpu)
{
	struct bench_set int8 = {
		.name = "INT8, Gaussian sigma 33.6",
		.shape = { 1, 65536, 1 },
		.content = GAUSS_INT,
	};
	struct bench_set bf16 = {
		.name = "BF16, Gaussian sigma 0.02",
		.shape = { 1, 65536, 2 },
		.content = GAUSS_FLOAT,
	};

	bench_set_run(gpu, &int8);
	bench_set_run(gpu, &bf16);
}

static void check_generated(struct wcx_gpu *gpu, bool one_thread)
{
	struct samples samples = samples_make();

	check_valid_tiles(gpu, &samples);
	check_wrong_sizes_are_refused(gpu, &samples);
	check_damaged_tiles(gpu, &samples);
	if (!one_thread)
		check_many_threads(gpu, &samples);
	check_lost_device_is_reported(&samples);
	samples_free(&samples);
}

int main(int argc, char **argv)
{
	char name[WCX_GPU_NAME_BYTES];
	struct wcx_gpu *gpu = NULL;
	bool bench = argc > 1 && strcmp(argv[1], "--bench") == 0;
	bool one_thread = argc > 1 && strcmp(argv[1], "--one-thread") == 0;
	int first_file = bench || one_thread ? 2 : 1;
	enum wcx_result result = wcx_gpu_open(&gpu, name);

	printf("%s: %s\n", result == WCX_NO_DEVICE ? "skipped" : "GPU", name);
	if (result == WCX_NO_DEVICE)
		return EXIT_SKIPPED;
	if (!CHECK(result == WCX_OK))
		return check_report();
	for (int i = first_file; i < argc; i++)
		check_file(gpu, argv[i]);
	if (bench)
		bench_all(gpu);
	else if (first_file == argc)
		check_generated(gpu, one_thread);
	wcx_gpu_free(gpu);
	return check_report();
}
