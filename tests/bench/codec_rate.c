/* SPDX-License-Identifier: MIT */
/*
 * Times the codec on one core of the CPU, and tells what it saves.
 *
 *	codec_rate [FILE.safetensors ...]
 *
 * Generated weights first, then the tensors of each file, those of a dtype together if they have a MiB.  Plans and tiles
 * are the packer's own.  Every tile is decoded and compared before and after the timing.  Exit status 1 when something
 * differs.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/tile.h"
#include "fs/safetensors.h"
#include "fs/tensor_plan.h"
#include "tests/bench/measure.h"

enum {
	ROUNDS = 7,
	GENERATED_BYTES = 64 << 20, /* more than the caches hold, together with what is made of them */
	GENERATED_COLS = 4096,
	SET_MIN_BYTES = 1 << 20, /* less takes too little time to be measured */
	PACKED_ALIGN = 16,       /* as in a container */
};

/* What the packer does to a tensor and twice to its tiles, what a reader does, and a yardstick. */
enum operation { CHOOSE, COUNT, ENCODE, DECODE, COPY, OPERATION_COUNT };

struct bench_tile {
	const struct wcx_tensor_plan *plan;
	const uint8_t *original;
	struct wcx_tile_job job;
};

/* Weights that are measured together. */
struct bench_set {
	char name[128];
	struct wcx_tensor *tensors;
	const uint8_t *base; /* where the file begins */
	struct wcx_tensor_plan *plans;
	struct bench_tile *tiles;
	size_t plan_count, tile_count, bytes, packed_bytes;
	double limit_bits;
	uint8_t *packed, *decoded;
	double rate[OPERATION_COUNT][ROUNDS]; /* GB/s of decoded bytes */
};

/* Working memory of all operations. */
struct scratch {
	struct wcx_encode_scratch *encode;
	struct wcx_decode_scratch *decode;
	struct wcx_plan_counts counts;
};

static void fail(const char *name, const char *what)
{
	fprintf(stderr, "codec_rate: %s: %s\n", name, what);
	exit(1);
}

static void *must_alloc(size_t bytes)
{
	void *memory = malloc(bytes ? bytes : 1);

	if (!memory)
		fail("memory", strerror(errno));
	return memory;
}

/* xorshift64*, and from it the normal distribution by Box and Muller's method. */
static double uniform_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return ((double)(*state * UINT64_C(0x2545F4914F6CDD1D) >> 11) + 0.5) / (double)(UINT64_C(1) << 53);
}

static double normal_next(uint64_t *state)
{
	double radius = sqrt(-2 * log(uniform_next(state)));

	return radius * cos(2 * acos(-1) * uniform_next(state));
}

/* INT8 with a width for each row; ln of the widths is spread by row_spread. */
static void generate_int8(uint8_t *dst, double sigma, double row_spread)
{
	uint64_t state = 0x1F83D9ABFB41BD6B;

	for (size_t row = 0; row < GENERATED_BYTES / GENERATED_COLS; row++) {
		double width = sigma * exp(row_spread * normal_next(&state));

		for (size_t col = 0; col < GENERATED_COLS; col++)
			dst[row * GENERATED_COLS + col] =
				(uint8_t)(int8_t)lrint(fmax(-127, fmin(127, width * normal_next(&state))));
	}
}

static void generate_bf16(uint8_t *dst, double sigma)
{
	uint64_t state = 0x9B05688C2B3E6C1F;

	for (size_t i = 0; i < GENERATED_BYTES / 2; i++) {
		float value = (float)(sigma * normal_next(&state));
		uint32_t bits;

		memcpy(&bits, &value, sizeof bits);
		bits += 0x7FFF + (bits >> 16 & 1); /* to the nearest, ties to even */
		dst[2 * i] = (uint8_t)(bits >> 16);
		dst[2 * i + 1] = (uint8_t)(bits >> 24);
	}
}

/* Looks at samples of a tensor and drafts its recipe, as the packer does. */
static void draft_tensor(struct wcx_tensor_plan *plan, const struct wcx_tensor *tensor, const uint8_t *base)
{
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	unsigned sample_count;

	wcx_tensor_plan_init(plan, tensor->offset, tensor->bytes, tensor, 0, 0);
	sample_count = wcx_tensor_plan_samples(plan, samples);
	for (unsigned i = 0; i < sample_count; i++)
		samples[i].src = base + samples[i].offset;
	if (wcx_tensor_plan_choose(plan, samples, sample_count) != WCX_OK)
		fail(tensor->name, "no memory");
}

/* Plans a tensor as the packer does, with tables of its own. */
static void plan_tensor(struct wcx_tensor_plan *plan, const struct wcx_tensor *tensor, const uint8_t *base,
			struct scratch *scratch)
{
	static const struct wcx_table_library no_library;
	uint32_t first_table[WCX_FIELDS_MAX];

	draft_tensor(plan, tensor, base);
	memset(&scratch->counts, 0, sizeof scratch->counts);
	for (uint64_t t = 0; t < plan->segment.tile_count; t++) {
		struct wcx_tile_shape shape;
		uint64_t offset;

		wcx_tensor_plan_tile(plan, t, &shape, &offset);
		wcx_tensor_plan_count(plan, &shape, base + offset, scratch->encode, &scratch->counts);
	}
	wcx_plan_counts_add(plan, &scratch->counts);
	wcx_tensor_plan_finish(plan, &no_library, first_table);
}

/* Lists the tiles of a plan from number first on; their places are not known yet. */
static void list_tiles(struct bench_set *set, const struct wcx_tensor_plan *plan, const uint8_t *base, size_t first)
{
	for (uint64_t t = 0; t < plan->segment.tile_count; t++) {
		struct bench_tile *tile = &set->tiles[first + t];
		uint64_t offset;

		*tile = (struct bench_tile){ .plan = plan };
		wcx_tensor_plan_tile(plan, t, &tile->job.shape, &offset);
		tile->original = base + offset;
		tile->job.dst_bytes = wcx_tile_shape_bytes(&tile->job.shape);
		tile->job.recipe = &plan->segment.recipe;
	}
}

/* Gives every tile a place for its packed and one for its decoded bytes. */
static void place_tiles(struct bench_set *set)
{
	size_t at = 0;

	set->packed = must_alloc(set->bytes + PACKED_ALIGN * set->tile_count);
	set->decoded = must_alloc(set->bytes + PACKED_ALIGN * set->tile_count);
	memset(set->packed, 0, set->bytes + PACKED_ALIGN * set->tile_count);
	for (size_t i = 0; i < set->tile_count; i++) {
		struct wcx_tile_job *job = &set->tiles[i].job;

		job->src = set->packed + at;
		job->dst = set->decoded + at;
		at += (job->dst_bytes + PACKED_ALIGN - 1) / PACKED_ALIGN * PACKED_ALIGN;
	}
}

static void bench_set_plan(struct bench_set *set, const struct wcx_tensor *tensors, size_t tensor_count, const uint8_t *base,
			   struct scratch *scratch)
{
	size_t first = 0;

	set->tensors = must_alloc(tensor_count * sizeof *set->tensors);
	memcpy(set->tensors, tensors, tensor_count * sizeof *set->tensors);
	set->base = base;
	set->plans = must_alloc(tensor_count * sizeof *set->plans);
	set->plan_count = tensor_count;
	for (size_t i = 0; i < tensor_count; i++) {
		const struct wcx_segment *seg = &set->plans[i].segment;

		plan_tensor(&set->plans[i], &tensors[i], base, scratch);
		set->bytes += seg->bytes;
		set->tile_count += seg->tile_count;
		set->limit_bits += (double)seg->entropy_millibits / 1000 * (double)(seg->bytes / seg->recipe.elem_bytes);
	}
	set->tiles = must_alloc(set->tile_count * sizeof *set->tiles);
	for (size_t i = 0; i < tensor_count; i++) {
		list_tiles(set, &set->plans[i], base, first);
		first += set->plans[i].segment.tile_count;
	}
	place_tiles(set);
}

static void bench_set_free(struct bench_set *set)
{
	for (size_t i = 0; i < set->plan_count; i++)
		wcx_tensor_plan_free(&set->plans[i]);
	free(set->tensors);
	free(set->plans);
	free(set->tiles);
	free(set->packed);
	free(set->decoded);
}

static void encode_tile(struct bench_set *set, struct bench_tile *tile, struct scratch *scratch)
{
	struct wcx_tile_job *job = &tile->job;
	uint8_t *packed = set->packed + (job->src - set->packed);

	if (wcx_tile_encode(&job->shape, tile->original, job->recipe, scratch->encode, packed, &job->mode, &job->src_bytes,
			    &job->constant) != WCX_OK)
		fail(set->name, "a tile was not encoded");
}

static void decode_tile(struct bench_set *set, struct bench_tile *tile, struct scratch *scratch)
{
	if (wcx_tile_decode(&tile->job, scratch->decode) != WCX_OK)
		fail(set->name, "a tile was not decoded");
}

static void choose(struct bench_set *set)
{
	for (size_t i = 0; i < set->plan_count; i++) {
		struct wcx_tensor_plan plan;

		draft_tensor(&plan, &set->tensors[i], set->base);
		wcx_tensor_plan_free(&plan);
	}
}

static void operate(struct bench_set *set, enum operation operation, struct scratch *scratch)
{
	if (operation == CHOOSE)
		choose(set);
	for (size_t i = 0; i < set->tile_count; i++) {
		struct bench_tile *tile = &set->tiles[i];

		switch (operation) {
		case CHOOSE:
			break;
		case COUNT:
			wcx_tensor_plan_count(tile->plan, &tile->job.shape, tile->original, scratch->encode,
					      &scratch->counts);
			break;
		case ENCODE:
			encode_tile(set, tile, scratch);
			break;
		case DECODE:
			decode_tile(set, tile, scratch);
			break;
		case COPY:
			memcpy(tile->job.dst, tile->original, tile->job.dst_bytes);
			break;
		case OPERATION_COUNT:
			break;
		}
	}
}

/* Encodes and decodes everything, compares, and leaves the decoded bytes wiped. */
static void verify(struct bench_set *set, struct scratch *scratch)
{
	set->packed_bytes = 0;
	operate(set, ENCODE, scratch);
	operate(set, DECODE, scratch);
	for (size_t i = 0; i < set->tile_count; i++) {
		struct wcx_tile_job *job = &set->tiles[i].job;

		if (memcmp(job->dst, set->tiles[i].original, job->dst_bytes) != 0)
			fail(set->name, "a tile was decoded to other bytes");
		memset(job->dst, 0, job->dst_bytes);
		set->packed_bytes += job->src_bytes;
	}
}

/* Sets and operations take turns, so that what else the machine does meets all of them. */
static void measure(struct bench_set *sets, size_t set_count, struct scratch *scratch)
{
	for (int round = 0; round < ROUNDS; round++)
		for (size_t s = 0; s < set_count; s++)
			for (int operation = 0; operation < OPERATION_COUNT; operation++) {
				double start = measure_now_s();

				operate(&sets[s], (enum operation)operation, scratch);
				sets[s].rate[operation][round] = (double)sets[s].bytes / (measure_now_s() - start) * 1e-9;
			}
}

static void print_rate(double rate[ROUNDS])
{
	struct measure_spread spread = measure_spread_of(rate, ROUNDS);

	printf(" %.3f (%.3f–%.3f) |", spread.median, spread.min, spread.max);
}

static void print_set(struct bench_set *set)
{
	double packing[ROUNDS];

	printf("| %s | %.1f | %.4f | %.4f |", set->name, (double)set->bytes / (1 << 20),
	       (double)set->bytes / (double)set->packed_bytes, 8 * (double)set->bytes / set->limit_bits);
	for (int round = 0; round < ROUNDS; round++)
		packing[round] =
			1 / (1 / set->rate[CHOOSE][round] + 1 / set->rate[COUNT][round] + 1 / set->rate[ENCODE][round]);
	for (int operation = CHOOSE; operation <= ENCODE; operation++)
		print_rate(set->rate[operation]);
	print_rate(packing);
	print_rate(set->rate[DECODE]);
	print_rate(set->rate[COPY]);
	printf("\n");
}

/* Sets that are measured in one run, and the files that they point into. */
struct bench {
	struct bench_set *sets;
	size_t set_count;
	struct scratch *scratch;
};

static struct bench_set *bench_add(struct bench *bench)
{
	bench->sets = realloc(bench->sets, (bench->set_count + 1) * sizeof *bench->sets);
	if (!bench->sets)
		fail("memory", strerror(errno));
	bench->sets[bench->set_count] = (struct bench_set){ 0 };
	return &bench->sets[bench->set_count++];
}

static void add_generated(struct bench *bench, const char *name, const char *dtype, uint32_t elem_bytes, const uint8_t *src)
{
	const uint64_t shape[2] = { GENERATED_BYTES / elem_bytes / GENERATED_COLS, GENERATED_COLS };
	const struct wcx_tensor tensor = {
		.name = name,
		.dtype = dtype,
		.elem_bytes = elem_bytes,
		.shape = shape,
		.dim_count = 2,
		.bytes = GENERATED_BYTES,
	};
	struct bench_set *set = bench_add(bench);

	snprintf(set->name, sizeof set->name, "%s", name);
	bench_set_plan(set, &tensor, 1, src, bench->scratch);
}

static const uint8_t *map_file(const char *path, size_t *bytes_ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	void *bytes;

	if (fd < 0 || fstat(fd, &st) < 0)
		fail(path, strerror(errno));
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (bytes == MAP_FAILED)
		fail(path, strerror(errno));
	close(fd);
	*bytes_ret = (size_t)st.st_size;
	return bytes;
}

static struct wcx_safetensors *parse_header(const char *path, const uint8_t *file, size_t file_bytes)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error err;
	uint64_t json_bytes;

	if (wcx_safetensors_json_bytes(path, file, file_bytes, &json_bytes, &err) < 0 ||
	    wcx_safetensors_parse(path, (const char *)file + WCX_SAFETENSORS_LENGTH_BYTES, json_bytes, file_bytes, &st,
				  &err) < 0) {
		fprintf(stderr, "codec_rate: %s\n", err.text);
		exit(1);
	}
	return st;
}

/* The tensors with data of one dtype, copied one behind the other to dst; returns how many, and in *bytes_ret how large. */
static size_t select_tensors(const struct wcx_safetensors *st, const char *dtype, struct wcx_tensor *dst,
			     uint64_t *bytes_ret)
{
	size_t count = 0;

	*bytes_ret = 0;
	for (size_t i = 0; i < st->tensor_count; i++)
		if (st->tensors[i].bytes && strcmp(st->tensors[i].dtype, dtype) == 0) {
			*bytes_ret += st->tensors[i].bytes;
			dst[count++] = st->tensors[i];
		}
	return count;
}

static bool is_first_of_dtype(const struct wcx_safetensors *st, size_t tensor_index)
{
	for (size_t i = 0; i < tensor_index; i++)
		if (strcmp(st->tensors[i].dtype, st->tensors[tensor_index].dtype) == 0)
			return false;
	return true;
}

/* The mapping stays until the program ends: the sets point into it. */
static void add_file(struct bench *bench, const char *path)
{
	size_t file_bytes;
	const uint8_t *file = map_file(path, &file_bytes);
	struct wcx_safetensors *st = parse_header(path, file, file_bytes);
	struct wcx_tensor *tensors = must_alloc(st->tensor_count * sizeof *tensors);

	for (size_t i = 0; i < st->tensor_count; i++) {
		const char *dtype = st->tensors[i].dtype, *slash = strrchr(path, '/');
		size_t count;
		uint64_t bytes;
		struct bench_set *set;

		if (!is_first_of_dtype(st, i))
			continue;
		count = select_tensors(st, dtype, tensors, &bytes);
		if (bytes < SET_MIN_BYTES)
			continue;
		set = bench_add(bench);
		snprintf(set->name, sizeof set->name, "%s, %s", slash ? slash + 1 : path, dtype);
		bench_set_plan(set, tensors, count, file, bench->scratch);
	}
	free(tensors);
	wcx_safetensors_free(st);
}

static void bench_run(struct bench *bench)
{
	for (size_t s = 0; s < bench->set_count; s++)
		verify(&bench->sets[s], bench->scratch);
	measure(bench->sets, bench->set_count, bench->scratch);
	for (size_t s = 0; s < bench->set_count; s++)
		verify(&bench->sets[s], bench->scratch);
	printf("One core, GB/s of decoded bytes: median of %d rounds (slowest–fastest); all tiles verified.\n\n", ROUNDS);
	printf("| data | MiB | ratio | order-0 limit | choose | count | encode | all three | decode | memcpy |\n"
	       "|---|---|---|---|---|---|---|---|---|---|\n");
	for (size_t s = 0; s < bench->set_count; s++)
		print_set(&bench->sets[s]);
}

int main(int argc, char **argv)
{
	uint8_t *generated[3];
	struct bench bench = { .scratch = must_alloc(sizeof *bench.scratch) };

	measure_print_origin(argc, argv);
	bench.scratch->encode = wcx_encode_scratch_create();
	bench.scratch->decode = wcx_decode_scratch_create();
	if (!bench.scratch->encode || !bench.scratch->decode)
		fail("memory", strerror(ENOMEM));
	for (size_t i = 0; i < 3; i++)
		generated[i] = must_alloc(GENERATED_BYTES);
	generate_int8(generated[0], 33.6, 0);
	generate_int8(generated[1], 20, 0.3);
	generate_bf16(generated[2], 0.02);
	add_generated(&bench, "INT8, Gaussian σ 33.6", "I8", 1, generated[0]);
	add_generated(&bench, "INT8, Gaussian σ 20·e^(0.3 N) by row", "I8", 1, generated[1]);
	add_generated(&bench, "BF16, Gaussian σ 0.02", "BF16", 2, generated[2]);
	for (int i = 1; i < argc; i++)
		add_file(&bench, argv[i]);
	bench_run(&bench);

	for (size_t s = 0; s < bench.set_count; s++)
		bench_set_free(&bench.sets[s]);
	for (size_t i = 0; i < 3; i++)
		free(generated[i]);
	wcx_encode_scratch_free(bench.scratch->encode);
	wcx_decode_scratch_free(bench.scratch->decode);
	free(bench.scratch);
	free(bench.sets);
	return 0;
}
