/* SPDX-License-Identifier: MIT */
/*
 * Checks that GPU and CPU decode tiles alike.
 *
 *	gpu_check [--one-thread] [FILE.wcx ...]
 *
 * Without files: generated tiles of all sizes and formats, valid and damaged, from many threads, and a device that fails.
 * With files: all their tiles.  --one-thread skips the check with many threads.  Without a GPU the exit status is 77, which
 * ctest counts as skipped.
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
#include <unistd.h>

#include "codec/arith.h"
#include "codec/difference.h"
#include "codec/tile_layout.h"
#include "cuda/gpu_decode.h"
#include "fs/format/container.h"
#include "tests/unit/check.h"

enum {
	EXIT_SKIPPED = 77,
	GUARD_BYTES = 64, /* around every decoded tile */
	GUARD_VALUE = 0xA5,
	PAGE_BYTES = 4096,
	PINNED_JOBS = 64, /* decoded at a time from and to pinned memory */
	FILE_BATCH = 512, /* tiles of a file compared at a time */
	THREAD_COUNT = 8,
	THREAD_CALLS = 6,
	VARIED_RUN = 640,
};

/* xorshift64*, with the same seed in every run. */
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

/* Standard normal (Box-Muller). */
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

/*
 * Integers fill the element: upper bytes of wide elements only repeat the sign.  VARIED content changes its width every
 * VARIED_RUN elements.  LOW_UNIFORM is uniform in the lower half of the element's bits and 0 above.
 */
enum content {
	GAUSS_INT,
	VARIED_INT,
	STUDENT_INT,
	GAUSS_FLOAT,
	VARIED_FLOAT,
	UNIFORM,
	LOW_UNIFORM,
	CONSTANT,
	CONTENT_COUNT
};

static int64_t clamped_int8(double value)
{
	return lrint(WCX_CLAMP(value, -128, 127));
}

/* The bits of a float of elem_bytes: BF16 is the upper half of a single.  One byte is an integer, value * 1000. */
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

/* 1, 2, 4 or 8, drawn anew every VARIED_RUN elements. */
static double varied_width(size_t number)
{
	return 1 << ((uint32_t)(number / VARIED_RUN) * 2654435761u >> 30);
}

static void element_write(struct rng *rng, enum content content, uint32_t elem_bytes, size_t number, uint8_t *dst)
{
	int64_t bits = 0x0102030405060708; /* of a constant tile */

	switch (content) {
	case GAUSS_INT:
		bits = clamped_int8(33.6 * rng_gauss(rng));
		break;
	case VARIED_INT:
		bits = clamped_int8(4 * varied_width(number) * rng_gauss(rng));
		break;
	case STUDENT_INT:
		bits = clamped_int8(10 * rng_student(rng));
		break;
	case GAUSS_FLOAT:
		bits = float_bits(0.02 * rng_gauss(rng), elem_bytes);
		break;
	case VARIED_FLOAT:
		bits = float_bits(0.01 * varied_width(number) * rng_gauss(rng), elem_bytes);
		break;
	case UNIFORM:
	case LOW_UNIFORM:
		bits = (int64_t)((uint64_t)rng_bits(rng) << 32 | rng_bits(rng));
		if (content == LOW_UNIFORM)
			bits &= (INT64_C(1) << 4 * elem_bytes) - 1;
		break;
	case CONSTANT:
	case CONTENT_COUNT:
		break;
	}
	for (uint32_t p = 0; p < elem_bytes; p++)
		dst[p] = (uint8_t)(bits >> 8 * p);
}

static void *must_alloc(size_t bytes)
{
	void *memory = malloc(bytes ? bytes : 1);

	if (!memory) {
		fprintf(stderr, "gpu_check: out of memory\n");
		exit(1);
	}
	return memory;
}

enum { NONE = WCX_TRANSFORM_NONE, ROTATE = WCX_TRANSFORM_ROTATE, FOLD = WCX_TRANSFORM_FOLD };
enum { TABLES = 7, PAIRS = 8, ZERO = 16 }; /* bits of a field's coding; TABLES masks their number */

/* How elements are cut into fields, the lowest first. */
struct cut {
	uint8_t elem_bytes, transform, field_count;
	struct {
		uint8_t width, coding;
	} fields[WCX_FIELDS_MAX];
};

static const struct cut CUTS[] = {
	/* bytes: each format that has a kernel of its own, with one table and with several */
	{ 1, FOLD, 2, { { 4, 0 }, { 4, 1 | PAIRS } } },
	{ 1, FOLD, 2, { { 4, 0 }, { 4, 2 | PAIRS } } },
	{ 1, FOLD, 2, { { 4, 0 }, { 4, 4 | PAIRS } } },
	{ 1, NONE, 1, { { 8, 1 } } },
	{ 1, NONE, 1, { { 8, 4 } } },
	{ 1, NONE, 2, { { 1, 0 }, { 7, 1 } } },
	{ 1, NONE, 2, { { 2, 0 }, { 6, 2 } } },
	{ 1, NONE, 2, { { 3, 0 }, { 5, 4 } } },
	{ 1, NONE, 2, { { 4, 0 }, { 4, 1 } } },
	{ 1, ROTATE, 2, { { 1, 0 }, { 7, 4 } } },
	{ 1, ROTATE, 2, { { 2, 0 }, { 6, 1 } } },
	{ 1, ROTATE, 2, { { 3, 0 }, { 5, 1 } } },
	{ 1, ROTATE, 2, { { 4, 0 }, { 4, 2 } } },
	{ 1, FOLD, 2, { { 1, 0 }, { 7, 1 } } },
	{ 1, FOLD, 2, { { 2, 0 }, { 6, 4 } } },
	{ 1, FOLD, 2, { { 3, 0 }, { 5, 1 } } },
	{ 1, FOLD, 2, { { 4, 0 }, { 4, 2 } } },
	/* other formats: raw bits above, in the middle, in several fields; other pairs; several coded fields; none */
	{ 1, ROTATE, 1, { { 8, 1 } } },
	{ 1, NONE, 2, { { 5, 1 }, { 3, 0 } } },
	{ 1, ROTATE, 3, { { 2, 1 }, { 3, 0 }, { 3, 4 } } },
	{ 1, FOLD, 3, { { 2, 0 }, { 3, 1 }, { 3, 2 } } },
	{ 1, FOLD, 3, { { 1, 0 }, { 3, 0 }, { 4, 1 | PAIRS } } },
	{ 1, NONE, 3, { { 1, 0 }, { 4, 0 }, { 3, 1 } } },
	{ 1, NONE, 2, { { 4, 0 }, { 4, 1 | PAIRS } } },
	{ 1, NONE, 2, { { 4, 1 }, { 4, 2 | PAIRS } } },
	{ 1, ROTATE, 2, { { 4, 0 }, { 4, 4 | PAIRS } } },
	{ 1, NONE, 2, { { 4, 0 }, { 4, 0 } } },
	{ 1, FOLD, 2, { { 4, 0 }, { 4, 0 } } },
	{ 1, NONE, 8, { { 1, 1 }, { 1, 0 }, { 1, 2 }, { 1, 0 }, { 1, 1 }, { 1, 4 }, { 1, 0 }, { 1, 1 } } },
	/* two bytes, for floats and integers: the same */
	{ 2, ROTATE, 2, { { 5, 0 }, { 11, 1 } } },
	{ 2, ROTATE, 2, { { 6, 0 }, { 10, 2 } } },
	{ 2, ROTATE, 2, { { 6, 0 }, { 10, 1 } } },
	{ 2, ROTATE, 2, { { 7, 0 }, { 9, 1 } } },
	{ 2, ROTATE, 2, { { 7, 0 }, { 9, 4 } } },
	{ 2, ROTATE, 2, { { 8, 0 }, { 8, 4 } } },
	{ 2, ROTATE, 2, { { 9, 0 }, { 7, 1 } } },
	{ 2, ROTATE, 2, { { 4, 0 }, { 12, 1 } } },
	{ 2, ROTATE, 2, { { 6, 0 }, { 10, 1 | ZERO } } },
	{ 2, NONE, 2, { { 9, 0 }, { 7, 1 } } },
	{ 2, ROTATE, 2, { { 11, 0 }, { 5, 1 } } },
	{ 2, ROTATE, 2, { { 3, 0 }, { 13, 1 } } },
	{ 2, NONE, 1, { { 16, 1 } } },
	{ 2, NONE, 1, { { 16, 1 | ZERO } } },
	{ 2, NONE, 2, { { 8, 1 }, { 8, 2 } } },
	{ 2, ROTATE, 3, { { 1, 0 }, { 7, 0 }, { 8, 1 } } },
	/* two bytes, in pairs: with kernels of their own, and without */
	{ 2, ROTATE, 2, { { 8, 0 }, { 8, 1 | PAIRS } } },
	{ 2, ROTATE, 2, { { 8, 0 }, { 8, 2 | PAIRS } } },
	{ 2, ROTATE, 2, { { 8, 0 }, { 8, 4 | PAIRS } } },
	{ 2, ROTATE, 2, { { 11, 0 }, { 5, 1 | PAIRS } } },
	{ 2, ROTATE, 2, { { 11, 0 }, { 5, 4 | PAIRS } } },
	{ 2, NONE, 2, { { 8, 1 }, { 8, 2 | PAIRS } } },
	{ 2, ROTATE, 2, { { 7, 0 }, { 9, 1 | PAIRS } } },
	{ 2, NONE, 2, { { 12, 0 }, { 4, 1 | PAIRS } } },
	{ 2, ROTATE, 3, { { 1, 0 }, { 7, 1 }, { 8, 4 | PAIRS } } },
	/* four and eight: planes of all widths, many of them, and several coded fields */
	{ 4, ROTATE, 2, { { 22, 0 }, { 10, 1 } } },
	{ 4, ROTATE, 2, { { 24, 0 }, { 8, 1 } } },
	{ 4, ROTATE, 3, { { 16, 0 }, { 7, 0 }, { 9, 2 | ZERO } } },
	{ 4, ROTATE, 5, { { 1, 0 }, { 8, 1 }, { 8, 1 }, { 5, 0 }, { 10, 4 } } },
	{ 4, NONE, 4, { { 8, 1 }, { 8, 1 }, { 8, 2 }, { 8, 1 } } },
	{ 4, NONE, 2, { { 16, 0 }, { 16, 0 } } },
	{ 8, ROTATE, 3, { { 32, 0 }, { 21, 0 }, { 11, 1 } } },
	{ 8, ROTATE, 3, { { 31, 0 }, { 20, 0 }, { 13, 2 | ZERO } } },
	{ 8, NONE, 8, { { 8, 1 }, { 8, 1 }, { 8, 1 }, { 8, 1 }, { 8, 1 }, { 8, 1 }, { 8, 1 }, { 8, 4 } } },
	{ 8, NONE, 2, { { 32, 0 }, { 32, 0 } } },
	{ 8, ROTATE, 4, { { 15, 0 }, { 12, 1 }, { 27, 0 }, { 10, 1 } } },
};
enum { CUT_COUNT = WCX_ARRAY_COUNT(CUTS) };

/* Any cut, valid or not: it may have too many planes, or fold where that is not allowed. */
static struct cut random_cut(struct rng *rng)
{
	struct cut cut = { .elem_bytes = (uint8_t)(1 << rng_below(rng, 4)) };
	uint32_t left = 8u * cut.elem_bytes;

	cut.transform = (uint8_t)rng_below(rng, cut.elem_bytes == 1 ? WCX_TRANSFORM_COUNT : FOLD);
	while (left) {
		uint32_t width = 1 + rng_below(rng, WCX_MIN(left, WCX_FIELD_MAX_WIDTH));
		uint32_t tables = rng_below(rng, 4) == 0 ? 0 : 1u << rng_below(rng, 3);
		uint32_t f = cut.field_count;

		if (f == WCX_FIELDS_MAX)
			return CUTS[0];
		cut.fields[f].width = (uint8_t)width;
		if (tables && width <= WCX_CODED_MAX_WIDTH)
			cut.fields[f].coding = (uint8_t)(tables | (width > 8 && rng_below(rng, 2) ? ZERO : 0));
		cut.field_count++;
		left -= width;
	}
	return cut;
}

/* A recipe and everything it points to. */
struct coder {
	struct wcx_field fields[WCX_FIELDS_MAX];
	struct wcx_freq_table tables[WCX_FIELDS_MAX][WCX_CONTEXTS_MAX];
	struct wcx_freq_table sets[WCX_SET_TABLES_MAX]; /* of a field of which runs choose one */
	struct wcx_recipe recipe;
};

/* The largest value of a field of unpredicted elements. */
static uint32_t largest_value(const uint8_t *elements, size_t bytes, const struct cut *cut, uint32_t shift, uint32_t width)
{
	const uint32_t elem_bits = 8u * cut->elem_bytes;
	uint32_t largest = 0;

	for (size_t i = 0; i < bytes; i += cut->elem_bytes) {
		uint64_t element = 0;
		uint32_t value;

		memcpy(&element, elements + i, cut->elem_bytes);
		if (cut->transform != NONE)
			element = element << 1 | element >> (elem_bits - 1);
		value = (uint32_t)(element >> shift & ((UINT64_C(1) << width) - 1));
		largest = WCX_MAX(largest, value);
	}
	return largest;
}

/* A first guess at table t: a peak at symbol 0, wider for larger t. */
static void first_table_make(uint32_t t, uint32_t symbols, struct wcx_freq_table *ret)
{
	uint64_t count[WCX_SYMBOL_COUNT] = { 0 };

	for (uint32_t s = 0; s < symbols; s++) {
		uint32_t distance = WCX_MIN(s, symbols - s);

		count[s] = 1 + (1u << 20) / (1 + distance * distance / (16u << 2 * t));
	}
	wcx_freq_table_build(count, ret);
}

/* Fields with first guesses of their tables. */
static void fields_make(struct coder *coder, const struct cut *cut, const uint8_t *elements, size_t bytes)
{
	for (uint32_t f = 0, shift = 0; f < cut->field_count; shift += cut->fields[f++].width) {
		const uint32_t width = cut->fields[f].width;
		struct wcx_field *field = &coder->fields[f];
		uint32_t symbols, largest;

		*field = (struct wcx_field){
			.width = cut->fields[f].width,
			.table_count = cut->fields[f].coding & TABLES,
			.is_pair = (cut->fields[f].coding & PAIRS) != 0,
			.has_zero = (cut->fields[f].coding & ZERO) != 0,
		};
		if (!field->table_count)
			continue;
		field->tables = coder->tables[f];
		symbols = wcx_field_symbols_max(field);
		for (uint32_t t = 0; t < field->table_count; t++)
			first_table_make(t, symbols, &coder->tables[f][t]);
		largest = wcx_field_is_wide(field) ? largest_value(elements, bytes, cut, shift, width) : 0;
		field->base = (uint16_t)(largest >= symbols ? largest + 1 - symbols : 0);
	}
}

/* Fits each table to the runs that choose it.  Symbols that make up less than `rare` of them get no frequency. */
static void tables_make(struct coder *coder, double rare, const struct wcx_tile_dims *dims, const uint8_t *tiles,
			size_t tile_count, struct wcx_encode_scratch *scratch)
{
	for (uint32_t f = 0; f < coder->recipe.field_count; f++) {
		uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT] = { 0 };
		struct wcx_field_counts counts[WCX_FIELDS_MAX] = { { 0 } };

		counts[f].symbols = count;
		for (size_t i = 0; i < tile_count && coder->fields[f].tables; i++)
			wcx_tile_count(dims, tiles + i * wcx_tile_dims_bytes(dims), NULL, &coder->recipe, scratch, counts);
		for (uint32_t t = 0; t < coder->fields[f].table_count; t++) {
			uint64_t sum = 0;

			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				sum += count[t][s];
			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				if ((double)count[t][s] < rare * (double)sum)
					count[t][s] = 0;
			if (sum)
				wcx_freq_table_build(count[t], &coder->tables[f][t]);
		}
	}
}

/* How to make a recipe from a cut.  Symbols rarer than `rare` become exceptions. */
struct coder_options {
	const struct cut *cut;
	enum wcx_predictor predictor;
	uint32_t run; /* for fields of several tables */
	double rare;
};

/* Makes a recipe for tiles of these dims, which follow each other; false if the options give no valid one. */
static bool coder_make(struct coder *coder, const struct coder_options *options, const struct wcx_tile_dims *dims,
		       const uint8_t *tiles, size_t tile_count, struct wcx_encode_scratch *scratch)
{
	const struct cut *cut = options->cut;

	coder->recipe = (struct wcx_recipe){ .elem_bytes = cut->elem_bytes,
					     .transform = cut->transform,
					     .predictor = (uint8_t)options->predictor,
					     .field_count = cut->field_count,
					     .fields = coder->fields };
	fields_make(coder, cut, tiles, tile_count * wcx_tile_dims_bytes(dims));
	for (uint32_t f = 0; f < cut->field_count; f++)
		if ((cut->fields[f].coding & TABLES) > 1)
			coder->recipe.run_elems = options->run;
	if (wcx_recipe_check(&coder->recipe))
		return false;
	tables_make(coder, options->rare, dims, tiles, tile_count, scratch);
	return CHECK(wcx_recipe_check(&coder->recipe) == NULL);
}

/* A tile, plain and encoded.  job describes it to a decoder, except for dst. */
struct sample {
	uint8_t *original, *packed, *base; /* base: of a difference, else NULL */
	struct coder coder;
	struct wcx_tile_job job;
};

static void sample_free(struct sample *sample)
{
	free(sample->original);
	free(sample->packed);
	free(sample->base);
}

/* False, with nothing to free, if the cut gives no valid recipe. */
static bool sample_make(struct sample *sample, struct rng *rng, struct wcx_tile_dims dims, enum content content,
			const struct cut *cut, enum wcx_predictor predictor, struct wcx_encode_scratch *scratch)
{
	/* The shortest run, the longest, that of the content, any. */
	const uint32_t runs[] = { 128, 65536, VARIED_RUN, 128 * (1 + rng_below(rng, 40)) };
	struct coder_options options = { .cut = cut, .predictor = predictor, .rare = rng_below(rng, 2) ? 0.003 : 0 };
	const size_t bytes = wcx_tile_dims_bytes(&dims);
	struct wcx_encoded_tile encoded;

	memset(sample, 0, sizeof *sample);
	sample->original = must_alloc(bytes);
	sample->packed = must_alloc(bytes);
	for (size_t i = 0; i < bytes; i += dims.elem_bytes)
		element_write(rng, content, dims.elem_bytes, i / dims.elem_bytes, sample->original + i);
	options.run = runs[rng_below(rng, 4)];
	if (!coder_make(&sample->coder, &options, &dims, sample->original, 1, scratch)) {
		sample_free(sample);
		return false;
	}
	sample->job.dims = dims;
	sample->job.recipe = &sample->coder.recipe;
	sample->job.src = sample->packed;
	sample->job.dst_bytes = bytes;
	CHECK(wcx_tile_encode(&dims, sample->original, &sample->coder.recipe, scratch, sample->packed, &encoded) == WCX_OK);
	sample->job.mode = encoded.mode;
	sample->job.constant = encoded.constant;
	sample->job.src_bytes = encoded.bytes;
	return true;
}

/* The tiles that all checks share. */
struct samples {
	struct sample *all;
	size_t count;
};

/*
 * Dims number 0 to 7 are large, whole and ragged, with single rows and columns; then come 1 to 300 elements, then any. Small
 * tiles end up stored unless their elements are wide.
 */
static struct wcx_tile_dims sample_dims(struct rng *rng, size_t number, uint32_t elem_bytes)
{
	static const uint32_t sides[][2] = {
		{ 256, 256 }, { 1, 65536 }, { 65536, 1 }, { 16, 4096 },
		{ 4096, 16 }, { 33, 1985 }, { 1927, 34 }, { 5, 13107 },
	};
	struct wcx_tile_dims dims = { 1, 1, elem_bytes };

	if (number < WCX_ARRAY_COUNT(sides)) {
		dims.rows = sides[number][0];
		dims.cols = sides[number][1];
	} else if (number < 308) {
		dims.cols = (uint32_t)number - 7;
	} else {
		dims.cols = 1 + rng_below(rng, 700);
		dims.rows = 1 + rng_below(rng, 90);
	}
	return dims;
}

/* --- differences from a base --- */

/*
 * Cuts of residuals; a coding of CONTEXTS is a table for each context, with SETS two or four sets of them.  With ESCAPES the
 * field has these.
 */
enum { CONTEXTS = 7, SETS = 32, ESCAPES = 64 };
static const struct cut DIFFERENCE_CUTS[] = {
	/* formats that have a kernel of their own */
	{ 1, NONE, 1, { { 8, 1 } } },
	{ 1, NONE, 1, { { 8, CONTEXTS } } },
	{ 1, NONE, 1, { { 8, 1 | PAIRS } } },
	{ 2, NONE, 1, { { 16, 1 } } },
	{ 2, NONE, 1, { { 16, CONTEXTS } } },
	{ 2, NONE, 2, { { 2, 0 }, { 14, CONTEXTS } } },
	{ 2, NONE, 2, { { 2, 0 }, { 14, 1 } } },
	{ 2, NONE, 2, { { 4, 0 }, { 12, CONTEXTS } } },
	{ 2, NONE, 2, { { 4, 0 }, { 12, 1 } } },
	{ 2, NONE, 1, { { 16, 1 | ESCAPES } } },
	{ 2, NONE, 1, { { 16, CONTEXTS | ESCAPES } } },
	{ 2, NONE, 1, { { 16, CONTEXTS | ESCAPES | SETS } } },
	/* several coded fields, with and without contexts; other raw bits; wide elements */
	{ 2, NONE, 2, { { 8, CONTEXTS }, { 8, CONTEXTS } } },
	{ 2, NONE, 2, { { 2, CONTEXTS }, { 14, CONTEXTS } } },
	{ 2, NONE, 2, { { 4, CONTEXTS }, { 12, 1 } } },
	{ 2, NONE, 2, { { 6, 0 }, { 10, CONTEXTS } } },
	{ 2, NONE, 2, { { 8, 0 }, { 8, CONTEXTS } } },
	{ 2, NONE, 2, { { 11, CONTEXTS }, { 5, 0 } } },
	{ 2, NONE, 2, { { 9, 0 }, { 7, 0 } } },
	{ 1, NONE, 2, { { 3, 0 }, { 5, CONTEXTS } } },
	{ 1, NONE, 2, { { 4, CONTEXTS }, { 4, 1 } } },
	{ 1, NONE, 2, { { 4, 0 }, { 4, 0 } } },
	{ 4, NONE, 3, { { 8, 0 }, { 8, CONTEXTS }, { 16, CONTEXTS } } },
	{ 4, NONE, 2, { { 20, 0 }, { 12, CONTEXTS } } },
	{ 4, NONE, 4, { { 8, 1 }, { 8, 1 }, { 8, CONTEXTS }, { 8, 1 } } },
	{ 8, NONE, 3, { { 32, 0 }, { 16, 0 }, { 16, CONTEXTS } } },
	{ 8, NONE, 4, { { 32, 0 }, { 10, CONTEXTS }, { 6, 1 }, { 16, CONTEXTS } } },
	/* sets of tables */
	{ 1, NONE, 1, { { 8, CONTEXTS | SETS } } },
	{ 2, NONE, 1, { { 16, CONTEXTS | SETS } } },
	{ 2, NONE, 2, { { 8, CONTEXTS }, { 8, CONTEXTS | SETS } } },
	{ 2, NONE, 2, { { 8, CONTEXTS | SETS }, { 8, CONTEXTS } } },
	{ 4, NONE, 2, { { 20, 0 }, { 12, CONTEXTS | SETS } } },
};
enum { DIFFERENCE_CUT_COUNT = WCX_ARRAY_COUNT(DIFFERENCE_CUTS) };

/* Thresholds at keys of the base's elements, which ascend: in half of all cases one by one. */
static void thresholds_make(struct rng *rng, struct wcx_recipe *recipe, uint32_t contexts, const uint8_t *keys, size_t count)
{
	const bool one_by_one = rng_below(rng, 2);
	uint32_t least = 1;

	recipe->context_count = (uint8_t)contexts;
	for (uint32_t t = 0; t + 1 < contexts; t++) {
		uint32_t key = 0, most = WCX_CONTEXT_KEYS + 1 - contexts + t;

		for (int tries = 0; tries < 20 && key < least && !(one_by_one && t); tries++)
			key = keys[rng_below(rng, (uint32_t)count)];
		recipe->thresholds[t] = (uint8_t)WCX_CLAMP(key, least, most);
		least = recipe->thresholds[t] + 1u;
	}
}

/*
 * Residuals as those of small steps up or down, larger in higher contexts and in some runs; a few of any size, or all.
 */
static void residuals_write(struct rng *rng, const struct wcx_recipe *recipe, const uint8_t *contexts, size_t count,
			    uint8_t *dst)
{
	const uint32_t elem_bytes = recipe->elem_bytes;
	static const double narrow[] = { 0.2, 1, 4 }, widths[] = { 0.2, 1, 20, 3000, 0 };
	const bool has_few_escapes = recipe->fields[0].has_escapes && rng_below(rng, 8);
	const double width = has_few_escapes ? narrow[rng_below(rng, 3)] : widths[rng_below(rng, WCX_ARRAY_COUNT(widths))];
	const uint32_t any = rng_below(rng, 2) ? 1u << 24 : 0;

	for (size_t i = 0; i < count; i++) {
		const uint32_t set = recipe->run_elems ? (uint32_t)(i / recipe->run_elems) % WCX_SETS_MAX : 0;
		int64_t d = llrint(width * (1 + contexts[i]) * (1 + 3 * set) * rng_gauss(rng));
		uint64_t residual = (uint64_t)d << 1 ^ (uint64_t)(d >> 63);

		if (width == 0 || rng_bits(rng) < any)
			residual = (uint64_t)rng_bits(rng) << 32 | rng_bits(rng);
		memcpy(dst + i * elem_bytes, &residual, elem_bytes);
	}
}

/* Fits the tables to the residuals; symbols rarer than `rare` get no frequency.  Sets are those of runs in turn. */
static void difference_tables_make(struct coder *coder, double rare, const uint8_t *residuals, const uint8_t *contexts,
				   size_t count)
{
	const uint32_t elem_bytes = coder->recipe.elem_bytes;

	for (uint32_t f = 0, shift = 0; f < coder->recipe.field_count; shift += coder->fields[f++].width) {
		const struct wcx_field *field = &coder->fields[f];
		const uint32_t set_tables = wcx_set_tables(field);
		static uint64_t seen[WCX_SET_TABLES_MAX][WCX_SYMBOL_COUNT];
		uint64_t sums[WCX_SET_TABLES_MAX] = { 0 };

		memset(seen, 0, sizeof seen);
		for (size_t i = 0; i < count && field->tables; i++) {
			const uint32_t run = field->set_bits ? (uint32_t)i / coder->recipe.run_elems : 0;
			const uint32_t set = run % (1u << field->set_bits);
			const uint32_t t = set * set_tables + (field->by_context ? contexts[i] : 0);
			uint64_t residual = 0, value;

			memcpy(&residual, residuals + i * elem_bytes, elem_bytes);
			value = (residual >> shift & ((UINT64_C(1) << field->width) - 1)) - field->base;
			if (value < wcx_field_symbols_max(field)) {
				seen[t][value]++;
				sums[t]++;
			}
		}
		for (uint32_t t = 0; t < field->table_count; t++) {
			struct wcx_freq_table *table = field->set_bits ? &coder->sets[t] : &coder->tables[f][t];

			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				if ((double)seen[t][s] < rare * (double)sums[t])
					seen[t][s] = 0;
			seen[t][0] += sums[t] == 0;
			wcx_field_build_table(field, seen[t], table);
		}
	}
}

/* How a field of residuals is coded. */
static struct wcx_field difference_field(struct rng *rng, struct coder *coder, uint32_t f, const struct cut *cut,
					 uint32_t contexts, bool has_base)
{
	const uint32_t coding = cut->fields[f].coding;
	const bool by_context = (coding & TABLES) == CONTEXTS && contexts > 1;
	const uint32_t set_bits = by_context && coding & SETS ? 1 + rng_below(rng, 2) : 0;
	struct wcx_field field = { .width = cut->fields[f].width };

	if (!coding)
		return field;
	field.by_context = by_context;
	field.set_bits = (uint8_t)set_bits;
	field.table_count = (uint8_t)((by_context ? contexts : 1) << set_bits);
	field.has_escapes = (coding & ESCAPES) != 0;
	field.is_pair = (coding & PAIRS) != 0;
	field.base = field.width > 8 && has_base && !field.has_escapes ? 3 : 0;
	field.tables = set_bits ? coder->sets : coder->tables[f];
	return field;
}

/*
 * A tile of differences from `base`, or from a base of its own if that is NULL.  Fields of more than eight bits have a base
 * of their own now and then.
 */
static void difference_make(struct sample *sample, struct rng *rng, struct wcx_tile_dims dims, const struct cut *cut,
			    uint32_t contexts, const uint8_t *base, struct wcx_encode_scratch *scratch)
{
	const size_t bytes = wcx_tile_dims_bytes(&dims), count = bytes / dims.elem_bytes;
	const bool is_float = rng_below(rng, 2) || cut->fields[0].coding & ESCAPES; /* no kernel has integers with escapes */
	const enum wcx_difference difference = is_float ? WCX_DIFFERENCE_FLOAT : WCX_DIFFERENCE_INTEGER;
	const enum content content = rng_below(rng, 8) ? GAUSS_FLOAT : UNIFORM;
	const bool has_base = rng_below(rng, 4) == 0;
	uint8_t *keys = must_alloc(count), *of = must_alloc(count), *residuals = must_alloc(bytes);
	struct coder *coder = &sample->coder;
	struct wcx_encoded_tile encoded;

	memset(sample, 0, sizeof *sample);
	sample->original = must_alloc(bytes);
	sample->packed = must_alloc(bytes);
	sample->base = must_alloc(bytes);
	for (size_t i = 0; i < bytes && !base; i += dims.elem_bytes)
		element_write(rng, content, dims.elem_bytes, i / dims.elem_bytes, sample->base + i);
	if (base)
		memcpy(sample->base, base, bytes);
	coder->recipe = (struct wcx_recipe){ .elem_bytes = cut->elem_bytes,
					     .difference = (uint8_t)difference,
					     .field_count = cut->field_count,
					     .fields = coder->fields };
	wcx_difference_keys(difference, dims.elem_bytes, sample->base, count, keys);
	if (contexts > 1)
		thresholds_make(rng, &coder->recipe, contexts, keys, count);
	wcx_difference_contexts(&coder->recipe, sample->base, count, of);
	for (uint32_t f = 0; f < cut->field_count; f++) {
		coder->fields[f] = difference_field(rng, coder, f, cut, contexts, has_base);
		if (coder->fields[f].set_bits)
			coder->recipe.run_elems = 128u << rng_below(rng, 5);
	}
	residuals_write(rng, &coder->recipe, of, count, residuals);
	memcpy(sample->original, residuals, bytes);
	wcx_difference_undo(difference, dims.elem_bytes, sample->base, count, sample->original);
	difference_tables_make(coder, rng_below(rng, 2) ? 0.003 : 0, residuals, of, count);
	CHECK(wcx_recipe_check(&coder->recipe) == NULL);
	CHECK(wcx_tile_encode_against(&dims, sample->original, sample->base, &coder->recipe, scratch, sample->packed,
				      &encoded) == WCX_OK);
	sample->job = (struct wcx_tile_job){
		.dims = dims,
		.mode = encoded.mode,
		.constant = encoded.constant,
		.recipe = &coder->recipe,
		.src = sample->packed,
		.src_bytes = encoded.bytes,
		.base = sample->base,
		.dst_bytes = bytes,
	};
	free(keys);
	free(of);
	free(residuals);
}

/* Each cut in all large dims, with any predictor where one is allowed; then small dims with known and random cuts. */
static struct samples samples_make(void)
{
	enum {
		LARGE = 8 * CUT_COUNT,
		SMALL = 1200,
		DIFFERENCES = DIFFERENCE_CUT_COUNT * WCX_CONTEXTS_MAX,
		SMALL_DIFFERENCES = 700,
		ALL = LARGE + SMALL + DIFFERENCES + SMALL_DIFFERENCES,
	};
	struct rng rng = { 0x5EED };
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	struct samples samples = { must_alloc(ALL * sizeof(struct sample)), ALL };

	if (!CHECK(scratch != NULL))
		exit(1);
	for (size_t i = 0; i < LARGE + SMALL;) {
		const size_t dims_number = i < LARGE ? i % 8 : i - LARGE + 8;
		const enum content content = (enum content)rng_below(&rng, CONTENT_COUNT);
		struct cut cut = i < LARGE ? CUTS[i / 8] : CUTS[rng_below(&rng, CUT_COUNT)];
		enum wcx_predictor predictor = WCX_PREDICT_NONE;

		if (i >= LARGE && rng_below(&rng, 2))
			cut = random_cut(&rng);
		if (cut.transform == NONE)
			predictor = (enum wcx_predictor)rng_below(&rng, WCX_PREDICTOR_COUNT);
		if (sample_make(&samples.all[i], &rng, sample_dims(&rng, dims_number, cut.elem_bytes), content, &cut,
				predictor, scratch))
			i++;
	}
	/* Each cut with 1 to 8 contexts, in large dims; then small dims. */
	for (size_t i = 0; i < DIFFERENCES + SMALL_DIFFERENCES; i++) {
		const bool is_large = i < DIFFERENCES;
		const struct cut *cut =
			&DIFFERENCE_CUTS[is_large ? i / WCX_CONTEXTS_MAX : rng_below(&rng, DIFFERENCE_CUT_COUNT)];
		const uint32_t contexts = is_large ? 1 + i % WCX_CONTEXTS_MAX : 1 + rng_below(&rng, WCX_CONTEXTS_MAX);
		const size_t dims_number = is_large ? (i + i / WCX_CONTEXTS_MAX) % 8 : i - DIFFERENCES + 8;

		difference_make(&samples.all[LARGE + SMALL + i], &rng, sample_dims(&rng, dims_number, cut->elem_bytes), cut,
				contexts, NULL, scratch);
	}
	wcx_encode_scratch_free(scratch);
	return samples;
}

/* Numbers of coded samples with each property. */
struct census {
	size_t elem_bytes[WCX_ELEM_MAX_BYTES + 1], predictor[WCX_PREDICTOR_COUNT];
	size_t plane_width[WCX_FIELD_MAX_WIDTH + 1], plane_count[WCX_RAW_PLANES_MAX + 1];
	size_t coded_count[WCX_FIELDS_MAX + 1], table_count[WCX_FIELD_TABLES_MAX + 1]; /* tables of the carrier */
	size_t transform[WCX_TRANSFORM_COUNT], pairs, wide_pairs, zeros;
	size_t constant_bits, plane_carried, exceptions, exceptions_carried, none_carried;
	size_t difference[WCX_DIFFERENCE_COUNT], context_count[WCX_CONTEXTS_MAX + 1]; /* of the carrier's tables */
	size_t differing_exceptions, differing_planes, differing_carried, differing_others, escapes, carried_escapes, sets,
		differing_bytes[WCX_ELEM_MAX_BYTES + 1];
};

static void census_add_difference(struct census *census, const struct wcx_tile_job *job,
				  const struct wcx_tile_layout *layout)
{
	const struct wcx_field *carrier;

	census->difference[job->recipe->difference]++;
	if (job->recipe->difference == WCX_DIFFERENCE_NONE || !layout->coded_count)
		return;
	carrier = &job->recipe->fields[layout->coded[layout->coded_count - 1].field];
	census->differing_bytes[job->dims.elem_bytes]++;
	census->context_count[carrier->by_context ? wcx_set_tables(carrier) : 1]++;
	census->escapes += carrier->has_escapes && layout->exception_count;
	census->carried_escapes += carrier->has_escapes && layout->exception_carried;
	census->sets += carrier->set_bits != 0;
	census->differing_exceptions += layout->exception_count != 0;
	census->differing_planes += layout->plane_carried != 0;
	census->differing_carried += layout->exception_carried != 0;
	census->differing_others += layout->coded_count > 1;
}

static void census_add(struct census *census, const struct wcx_tile_job *job)
{
	struct wcx_tile_layout layout;
	const struct wcx_field *carrier;

	if (!CHECK(wcx_tile_parse(&job->dims, job->recipe, job->src, job->src_bytes, &layout) == WCX_OK))
		return;
	census->elem_bytes[job->dims.elem_bytes]++;
	census->predictor[job->recipe->predictor]++;
	census->plane_count[layout.plane_count]++;
	for (uint32_t p = 0; p < layout.plane_count; p++)
		census->plane_width[layout.planes[p].width]++;
	census->coded_count[layout.coded_count]++;
	census->constant_bits += layout.constant_bits != 0;
	census->transform[job->recipe->transform]++;
	census_add_difference(census, job, &layout);
	if (!layout.coded_count)
		return;
	carrier = &job->recipe->fields[layout.coded[layout.coded_count - 1].field];
	census->pairs += carrier->is_pair;
	census->wide_pairs += carrier->is_pair && wcx_field_is_wide(carrier);
	census->zeros += carrier->has_zero;
	census->plane_carried += layout.plane_carried != 0;
	census->exceptions += layout.exception_count != 0;
	census->exceptions_carried += layout.exception_carried != 0;
	census->none_carried += layout.plane_carried + layout.exception_carried == 0;
	if (!carrier->by_context)
		census->table_count[carrier->table_count]++;
}

static void check_samples_cover_the_format(const struct samples *samples)
{
	struct census census = { .constant_bits = 0 };

	for (size_t i = 0; i < samples->count; i++)
		if (samples->all[i].job.mode == WCX_TILE_CODED)
			census_add(&census, &samples->all[i].job);
	for (uint32_t bytes = 1; bytes <= WCX_ELEM_MAX_BYTES; bytes *= 2)
		CHECK(census.elem_bytes[bytes] >= 30);
	for (uint32_t predictor = 0; predictor < WCX_PREDICTOR_COUNT; predictor++)
		CHECK(census.predictor[predictor] >= 30);
	for (uint32_t width = 1; width <= WCX_FIELD_MAX_WIDTH; width *= 2)
		CHECK(census.plane_width[width] >= 10);
	for (uint32_t count = 0; count <= 5; count++)
		CHECK(census.plane_count[count] >= 10);
	for (uint32_t count = 0; count <= 4; count++)
		CHECK(census.coded_count[count] >= 5);
	for (uint32_t count = 1; count <= WCX_FIELD_TABLES_MAX; count *= 2)
		CHECK(census.table_count[count] >= 30);
	for (uint32_t transform = 0; transform < WCX_TRANSFORM_COUNT; transform++)
		CHECK(census.transform[transform] >= 30);
	CHECK(census.pairs >= 30 && census.wide_pairs >= 30 && census.zeros >= 10);
	CHECK(census.constant_bits >= 10 && census.exceptions >= 30);
	CHECK(census.plane_carried >= 50 && census.exceptions_carried >= 5 && census.none_carried >= 40);
	CHECK(census.difference[WCX_DIFFERENCE_INTEGER] >= 50 && census.difference[WCX_DIFFERENCE_FLOAT] >= 50);
	for (uint32_t contexts = 1; contexts <= WCX_CONTEXTS_MAX; contexts++)
		CHECK(census.context_count[contexts] >= 10);
	for (uint32_t bytes = 1; bytes <= WCX_ELEM_MAX_BYTES; bytes *= 2)
		CHECK(census.differing_bytes[bytes] >= 8);
	CHECK(census.differing_exceptions >= 20 && census.differing_planes >= 20 && census.differing_carried >= 5);
	CHECK(census.differing_others >= 20);
	CHECK(census.escapes >= 10 && census.carried_escapes >= 5 && census.sets >= 5);
}

static void samples_free(struct samples *samples)
{
	for (size_t i = 0; i < samples->count; i++)
		sample_free(&samples->all[i]);
	free(samples->all);
}

/*
 * Allocates dst of all jobs in one area, filled with GUARD_VALUE and with guards in between.  Most begin at multiples of 16
 * bytes, but every fifth does not.  The caller frees the area.
 */
static uint8_t *place_jobs(struct wcx_tile_job *jobs, size_t job_count, size_t *bytes_ret)
{
	size_t bytes = 2 * GUARD_BYTES;
	uint8_t *area;

	for (size_t i = 0; i < job_count; i++)
		bytes += WCX_ALIGN_UP(jobs[i].dst_bytes, 16) + 2 * GUARD_BYTES;
	area = aligned_alloc(PAGE_BYTES, WCX_ALIGN_UP(bytes, PAGE_BYTES));
	if (!area)
		exit(1);
	memset(area, GUARD_VALUE, bytes);
	*bytes_ret = WCX_ALIGN_UP(bytes, PAGE_BYTES);
	bytes = 2 * GUARD_BYTES;
	for (size_t i = 0; i < job_count; i++) {
		jobs[i].dst = area + bytes - (i % 5 == 4);
		bytes += WCX_ALIGN_UP(jobs[i].dst_bytes, 16) + 2 * GUARD_BYTES;
	}
	return area;
}

static enum wcx_result decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count)
{
	return wcx_gpu_decode(gpu, &(struct wcx_gpu_batch){ .jobs = jobs, .job_count = job_count });
}

/* Decodes to dst that are pinned, but for every seventh, from pinned memory: as a mount does it, with up to 2 MiB a call. */
static enum wcx_result decode_pinned(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count, uint8_t *packed)
{
	bool is_pinned[PINNED_JOBS];
	enum wcx_result result = WCX_OK;

	for (size_t first = 0, after; first < job_count && result == WCX_OK; first = after) {
		const uint8_t *src[PINNED_JOBS];
		size_t bytes = 0;

		for (after = first; after < job_count && after < first + PINNED_JOBS; after++) {
			if (bytes + jobs[after].src_bytes + 4 > WCX_GPU_PACKED_BYTES)
				break;
			if (jobs[after].src_bytes)
				memcpy(packed + bytes, jobs[after].src, jobs[after].src_bytes);
			src[after - first] = jobs[after].src;
			jobs[after].src = packed + bytes;
			bytes += WCX_ALIGN_UP(jobs[after].src_bytes, 4);
			is_pinned[after - first] = after % 7 != 0;
		}
		if (!CHECK(after > first))
			return WCX_WRONG_SIZE;
		result = wcx_gpu_decode(gpu, &(struct wcx_gpu_batch){
						     .jobs = jobs + first,
						     .job_count = after - first,
						     .dst_is_pinned = is_pinned,
						     .packed = packed,
					     });
		for (size_t i = first; i < after; i++) {
			CHECK(jobs[i].src_bytes == 0 || memcmp(jobs[i].src, src[i - first], jobs[i].src_bytes) == 0);
			jobs[i].src = src[i - first];
		}
	}
	return result;
}

static bool guard_is_whole(const uint8_t *guard)
{
	for (size_t i = 0; i < GUARD_BYTES; i++)
		if (guard[i] != GUARD_VALUE)
			return false;
	return true;
}

/* Decodes the jobs on GPU and CPU: results, bytes and guards must agree.  Returns the number of valid tiles. */
static size_t compare_in(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count, bool pinned)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	size_t area_bytes, valid = 0;
	uint8_t *area = place_jobs(jobs, job_count, &area_bytes), *expected = must_alloc(WCX_TILE_MAX_BYTES);
	uint8_t *packed = pinned ? wcx_gpu_alloc(gpu, WCX_GPU_PACKED_ROOM) : NULL;

	CHECK(guard_is_whole(area));
	if (pinned) {
		CHECK(packed && wcx_gpu_map(gpu, area, area_bytes));
		CHECK(decode_pinned(gpu, jobs, job_count, packed) == WCX_OK);
		wcx_gpu_unmap(gpu, area, area_bytes);
		wcx_gpu_dealloc(gpu, packed, WCX_GPU_PACKED_ROOM);
	} else {
		CHECK(decode(gpu, jobs, job_count) == WCX_OK);
	}
	for (size_t i = 0; i < job_count && scratch; i++) {
		struct wcx_tile_job reference = jobs[i];

		reference.dst = expected;
		wcx_tile_decode(&reference, scratch);
		CHECK(jobs[i].result == reference.result);
		if (reference.result == WCX_OK) {
			CHECK(memcmp(jobs[i].dst, expected, jobs[i].dst_bytes) == 0);
			valid++;
		}
		CHECK(guard_is_whole(jobs[i].dst - GUARD_BYTES) && guard_is_whole(jobs[i].dst + jobs[i].dst_bytes));
	}
	CHECK(scratch != NULL);
	free(expected);
	free(area);
	wcx_decode_scratch_free(scratch);
	return valid;
}

static size_t compare_decoders(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count)
{
	const size_t valid = compare_in(gpu, jobs, job_count, false);
	struct wcx_tile_job *alone = must_alloc(job_count * sizeof *alone);
	size_t count = 0, alone_valid = 0;

	/* Pinned packed memory has no space for bases: differences in it are left to the CPU. */
	for (size_t i = 0; i < job_count; i++) {
		if (jobs[i].recipe && jobs[i].recipe->difference != WCX_DIFFERENCE_NONE)
			continue;
		alone_valid += jobs[i].result == WCX_OK;
		alone[count++] = jobs[i];
	}
	CHECK(compare_in(gpu, alone, count, true) == alone_valid);
	free(alone);
	return valid;
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
	CHECK(decode(gpu, jobs, samples->count) == WCX_OK);
	for (size_t i = 0; i < samples->count; i++)
		CHECK(memcmp(jobs[i].dst, samples->all[i].original, jobs[i].dst_bytes) == 0);
	free(area);
	free(jobs);
}

static void check_wrong_jobs_are_refused(struct wcx_gpu *gpu, const struct samples *samples)
{
	struct wcx_tile_job jobs[5];

	for (size_t i = 0; i < 5; i++)
		jobs[i] = samples->all[0].job;
	jobs[0].dst_bytes--;
	jobs[1].dims.rows = 0;
	jobs[2].dims.elem_bytes = 3;
	jobs[3].dims.elem_bytes = 2; /* not the recipe's */
	jobs[3].dst_bytes *= 2;
	jobs[4].mode = WCX_TILE_ZSTD;
	compare_decoders(gpu, jobs, 5);
	for (size_t i = 0; i < 4; i++)
		CHECK(jobs[i].result == WCX_WRONG_SIZE);
	CHECK(jobs[4].result == WCX_BAD_DATA);
}

/* Damages a packed tile in one of 12 ways.  packed has a capacity of 8 bytes more than *bytes. */
static void damage(struct rng *rng, const struct wcx_tile_job *job, uint8_t *packed, size_t *bytes)
{
	const uint32_t head = 4;
	struct wcx_tile_layout layout;
	const struct wcx_coded_field *last;
	uint32_t way = rng_below(rng, 12);

	if (!CHECK(wcx_tile_parse(&job->dims, job->recipe, packed, *bytes, &layout) == WCX_OK))
		return;
	if ((way > 6 && !layout.coded_count) || (way > 9 && !layout.exception_count))
		way = 0;
	last = &layout.coded[layout.coded_count ? layout.coded_count - 1 : 0];
	switch (way) {
	case 0: /* flipped bits */
	case 1:
	case 2:
		for (uint32_t flips = 1 + rng_below(rng, 3); flips > 0; flips--)
			packed[rng_below(rng, (uint32_t)*bytes)] ^= (uint8_t)(1u << rng_below(rng, 8));
		break;
	case 3: /* truncated */
		*bytes = rng_below(rng, (uint32_t)*bytes);
		break;
	case 4: /* random planes and payloads, and possibly header numbers */
		for (size_t i = head; i < *bytes; i++)
			packed[i] = (uint8_t)rng_bits(rng);
		break;
	case 5: /* all bytes equal: lanes need words in every step, or in none */
		memset(packed + head, rng_below(rng, 2) ? 0xFF : 0, *bytes - head);
		break;
	case 6: /* the coding of a field, or the number of exceptions */
		packed[rng_below(rng, head)] ^= (uint8_t)(1u << rng_below(rng, 8));
		break;
	case 7: /* one word too many */
		memset(packed + *bytes, 0, 8);
		*bytes += 2;
		break;
	case 8: /* missing words */
		if (last->words_bytes)
			*bytes -= 2 * (1 + rng_below(rng, last->words_bytes / 2));
		break;
	case 9: /* choices, if any, and states */
		packed[last->offset - 4 + rng_below(rng, last->states_bytes + 4)] ^= (uint8_t)(1u << rng_below(rng, 8));
		break;
	case 10: /* exceptions, or what follows them */
		packed[layout.exception_offset + rng_below(rng, 64)] ^= (uint8_t)(1u << rng_below(rng, 8));
		break;
	case 11: /* the position of the last exception, unless a state carries it */
		if (2 * layout.exception_count <= layout.exception_bytes - layout.exception_carried)
			memset(packed + layout.exception_offset + 2 * (layout.exception_count - 1), 0xFF, 2);
		break;
	}
}

/* Copies a job's packed tile and damages it, or not. */
static uint8_t *copy_packed(struct rng *rng, struct wcx_tile_job *job, bool is_damaged)
{
	uint8_t *packed = must_alloc(job->src_bytes + 8);

	memcpy(packed, job->src, job->src_bytes);
	if (is_damaged)
		damage(rng, job, packed, &job->src_bytes);
	job->src = packed;
	return packed;
}

static void check_damaged_tiles(struct wcx_gpu *gpu, const struct samples *samples)
{
	enum { COPIES = 12, LARGEST = 20000 };
	struct rng rng = { 0xBAD };
	struct wcx_tile_job *jobs = must_alloc(samples->count * COPIES * sizeof *jobs);
	size_t count = 0, valid;

	for (size_t i = 0; i < samples->count * COPIES; i++) {
		const struct sample *sample = &samples->all[i / COPIES];

		if (sample->job.mode != WCX_TILE_CODED || sample->job.src_bytes > LARGEST)
			continue;
		jobs[count] = sample->job;
		copy_packed(&rng, &jobs[count++], true);
	}
	CHECK(count >= 100);
	valid = compare_decoders(gpu, jobs, count);
	CHECK(valid < count / 2);
	printf("%zu damaged tiles, of which %zu still decode\n", count, valid);
	for (size_t i = 0; i < count; i++)
		free((void *)(uintptr_t)jobs[i].src);
	free(jobs);
}

/* --- differences with their bases --- */

/* A tile and a difference from it. */
struct pair {
	struct sample base, tile;
};

/* Cuts of bases: those that are decoded together with a difference, with one table and several, and one that is not. */
static const struct cut BASE_CUTS[] = {
	{ 2, ROTATE, 2, { { 6, 0 }, { 10, 1 } } },        { 2, ROTATE, 2, { { 6, 0 }, { 10, 4 } } },
	{ 2, ROTATE, 2, { { 8, 0 }, { 8, 1 | PAIRS } } }, { 2, ROTATE, 2, { { 8, 0 }, { 8, 4 | PAIRS } } },
	{ 2, ROTATE, 2, { { 7, 0 }, { 9, 2 } } },         { 1, FOLD, 2, { { 4, 0 }, { 4, 1 | PAIRS } } },
	{ 1, FOLD, 2, { { 4, 0 }, { 4, 2 | PAIRS } } },   { 1, NONE, 2, { { 3, 0 }, { 5, 4 } } },
};
static const struct cut CUTS_FROM_BASES[] = {
	{ 2, NONE, 1, { { 16, CONTEXTS | ESCAPES } } },
	{ 2, NONE, 1, { { 16, 1 | ESCAPES } } },
	{ 2, NONE, 1, { { 16, CONTEXTS | ESCAPES | SETS } } },
	{ 2, NONE, 2, { { 8, CONTEXTS }, { 8, CONTEXTS } } },
	{ 1, NONE, 1, { { 8, 1 } } },
	{ 1, NONE, 1, { { 8, CONTEXTS } } },
	{ 1, NONE, 1, { { 8, 1 | PAIRS } } },
	{ 1, NONE, 1, { { 8, 1 | PAIRS } } },
};
enum {
	BASE_CUT_COUNT = WCX_ARRAY_COUNT(BASE_CUTS),
	CUT_FROM_BASE_COUNT = WCX_ARRAY_COUNT(CUTS_FROM_BASES),
	PAIR_COUNT = 8 * BASE_CUT_COUNT * CUT_FROM_BASE_COUNT,
	PAIRS_A_CALL = 8,
	PAIR_BYTES = WCX_GPU_BASE_BYTES / PAIRS_A_CALL,
};

/* Each cut of a base with each cut of a difference in large dims, then with one of its size in small ones. */
static bool pair_make(struct pair *pair, struct rng *rng, size_t number, struct wcx_encode_scratch *scratch)
{
	const struct cut *of_base = &BASE_CUTS[number / CUT_FROM_BASE_COUNT % BASE_CUT_COUNT];
	const struct cut *cut = &CUTS_FROM_BASES[number % CUT_FROM_BASE_COUNT];
	const bool is_large = number < PAIR_COUNT / 2;
	const enum content content = of_base->elem_bytes == 1 ? GAUSS_INT : rng_below(rng, 2) ? GAUSS_FLOAT : VARIED_FLOAT;
	const struct wcx_tile_dims dims = sample_dims(rng, is_large ? number % 8 : 308, of_base->elem_bytes);

	if (of_base->elem_bytes != cut->elem_bytes ||
	    !sample_make(&pair->base, rng, dims, content, of_base, WCX_PREDICT_NONE, scratch))
		return false;
	difference_make(&pair->tile, rng, dims, cut, 1 + rng_below(rng, WCX_CONTEXTS_MAX), pair->base.original, scratch);
	return true;
}

/* Decodes pairs as a mount does: packed tiles in pinned memory, and no decoded byte of a base on the host. */
static void decode_pairs(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t pair_count, uint8_t *packed)
{
	bool is_pinned[2 * PAIRS_A_CALL] = { false };
	uint8_t *bases = must_alloc(WCX_GPU_BASE_BYTES);
	size_t bytes = 0;

	for (size_t i = 0; i < 2 * pair_count; i++) {
		memcpy(packed + bytes, jobs[i].src, jobs[i].src_bytes);
		jobs[i].src = packed + bytes;
		bytes += WCX_ALIGN_UP(jobs[i].src_bytes, 4);
		if (i % 2 == 0)
			jobs[i].dst = bases + i / 2 * PAIR_BYTES;
		else
			jobs[i].base = jobs[i - 1].dst;
	}
	CHECK(bytes <= WCX_GPU_PACKED_BYTES);
	CHECK(wcx_gpu_decode(gpu, &(struct wcx_gpu_batch){ .jobs = jobs,
							   .job_count = 2 * pair_count,
							   .dst_is_pinned = is_pinned,
							   .packed = packed,
							   .bases = bases }) == WCX_OK);
	free(bases);
}

/* Compares results and bytes of some pairs with the CPU's; returns how many decode. */
static size_t compare_pairs(struct wcx_gpu *gpu, const struct wcx_tile_job *of, size_t pair_count, uint8_t *packed)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	struct wcx_tile_job jobs[2 * PAIRS_A_CALL];
	uint8_t *base = must_alloc(WCX_TILE_MAX_BYTES), *expected = must_alloc(WCX_TILE_MAX_BYTES), *area;
	size_t area_bytes, valid = 0;

	memcpy(jobs, of, 2 * pair_count * sizeof *jobs);
	area = place_jobs(jobs, 2 * pair_count, &area_bytes);
	decode_pairs(gpu, jobs, pair_count, packed);
	for (size_t i = 0; i < pair_count && CHECK(scratch != NULL); i++) {
		struct wcx_tile_job base_job = of[2 * i], job = of[2 * i + 1];
		const struct wcx_tile_job *done = &jobs[2 * i + 1];

		base_job.dst = base;
		wcx_tile_decode(&base_job, scratch);
		job.base = base;
		job.dst = expected;
		job.result = WCX_BAD_DATA;
		if (base_job.result == WCX_OK)
			wcx_tile_decode(&job, scratch);
		CHECK(jobs[2 * i].result == base_job.result && done->result == job.result);
		if (job.result == WCX_OK) {
			CHECK(memcmp(done->dst, expected, job.dst_bytes) == 0);
			valid++;
		}
		CHECK(guard_is_whole(done->dst - GUARD_BYTES) && guard_is_whole(done->dst + done->dst_bytes));
	}
	free(base);
	free(expected);
	free(area);
	wcx_decode_scratch_free(scratch);
	return valid;
}

static uint32_t exception_count(const struct wcx_tile_job *job)
{
	struct wcx_tile_layout layout;

	CHECK(wcx_tile_parse(&job->dims, job->recipe, job->src, job->src_bytes, &layout) == WCX_OK);
	return layout.exception_count;
}

/* Whole pairs, then such of which the base, the difference or both are damaged. */
static void check_pairs(struct wcx_gpu *gpu)
{
	enum { COPIES = 6 };
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	uint8_t *packed = wcx_gpu_alloc(gpu, WCX_GPU_PACKED_ROOM);
	struct rng rng = { 0xBA5E };
	size_t coded = 0, damaged = 0, valid = 0, many = 0;

	if (!CHECK(scratch && packed))
		exit(1);
	for (size_t i = 0; i < PAIR_COUNT; i++) {
		struct pair pair;
		struct wcx_tile_job jobs[2 * COPIES];

		if (!pair_make(&pair, &rng, i, scratch))
			continue;
		jobs[0] = pair.base.job;
		jobs[1] = pair.tile.job;
		if (jobs[0].mode == WCX_TILE_CODED && jobs[1].mode == WCX_TILE_CODED) {
			CHECK(compare_pairs(gpu, jobs, 1, packed) == 1);
			coded++;
			many += exception_count(&jobs[0]) > WCX_LANES;
			for (size_t c = 0; c < COPIES; c++) {
				jobs[2 * c] = pair.base.job;
				jobs[2 * c + 1] = pair.tile.job;
				copy_packed(&rng, &jobs[2 * c], c % 3 != 0);
				copy_packed(&rng, &jobs[2 * c + 1], c % 3 != 1);
			}
			valid += compare_pairs(gpu, jobs, COPIES, packed);
			damaged += COPIES;
			for (size_t c = 0; c < 2 * COPIES; c++)
				free((void *)(uintptr_t)jobs[c].src);
		}
		sample_free(&pair.base);
		sample_free(&pair.tile);
	}
	printf("%zu pairs of a base and a difference, %zu with more than %d exceptions, and %zu damaged ones, of which %zu "
	       "still decode\n",
	       coded, many, WCX_LANES, damaged, valid);
	CHECK(coded >= 30 && many >= 30 && valid < damaged / 2);
	wcx_gpu_dealloc(gpu, packed, WCX_GPU_PACKED_ROOM);
	wcx_encode_scratch_free(scratch);
}

struct decoding_thread {
	pthread_t thread;
	struct wcx_gpu *gpu;
	const struct samples *samples;
	size_t first;
};

/* Calls with all tiles, then with more and more of them. */
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
		CHECK(decode(self->gpu, jobs, count) == WCX_OK);
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

/* Pinned memory for decoded tiles is given back when it was idle, and allocated again when a call needs it. */
static void check_pinned_memory_comes_and_goes(const struct samples *samples)
{
	char name[WCX_GPU_NAME_BYTES];
	struct wcx_tile_job job = { .mode = WCX_TILE_STORED };
	struct wcx_gpu *gpu = NULL;
	uint64_t before;

	for (size_t i = 0; job.mode != WCX_TILE_CODED || job.recipe->difference != WCX_DIFFERENCE_NONE; i++)
		job = samples->all[i].job;
	CHECK(wcx_gpu_open(0, 1, &gpu, name) == WCX_OK);
	job.dst = must_alloc(job.dst_bytes);
	if (gpu)
		wcx_gpu_release_idle(gpu, 0);
	before = gpu ? wcx_gpu_get_memory(gpu).pinned_bytes : 0;
	if (gpu && CHECK(wcx_gpu_map(gpu, job.dst, job.dst_bytes))) {
		CHECK(wcx_gpu_get_memory(gpu).pinned_bytes == before + job.dst_bytes);
		wcx_gpu_unmap(gpu, job.dst, job.dst_bytes);
		CHECK(wcx_gpu_get_memory(gpu).pinned_bytes == before);
	}
	for (int call = 0; gpu && call < 3; call++) {
		CHECK(decode(gpu, &job, 1) == WCX_OK && job.result == WCX_OK);
		CHECK(wcx_gpu_get_memory(gpu).pinned_bytes > before);
		CHECK(wcx_gpu_get_memory(gpu).pinned_bytes <= WCX_GPU_CALL_BYTES);
		wcx_gpu_release_idle(gpu, 3600000);
		CHECK(wcx_gpu_get_memory(gpu).pinned_bytes > before);
		wcx_gpu_release_idle(gpu, 0);
		CHECK(wcx_gpu_get_memory(gpu).pinned_bytes == before);
	}
	free(job.dst);
	wcx_gpu_free(gpu);
}

enum { STARTED_CALLS = 4 };

/* A call that another thread finishes. */
struct started_call {
	struct wcx_gpu *gpu;
	struct wcx_tile_job job;
	struct wcx_gpu_call call;
	uint8_t *expected;
};

/* The last first. */
static void *finish_calls(void *user)
{
	struct started_call *calls = user;

	for (size_t i = STARTED_CALLS; i-- > 0;) {
		wcx_gpu_wait(calls[i].gpu, &calls[i].call);
		CHECK(wcx_gpu_finish(calls[i].gpu, &calls[i].call) == WCX_OK && calls[i].job.result == WCX_OK);
		CHECK(memcmp(calls[i].job.dst, calls[i].expected, calls[i].job.dst_bytes) == 0);
	}
	return NULL;
}

static void check_calls_are_finished_by_others(const struct samples *samples)
{
	struct started_call calls[STARTED_CALLS];
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	char name[WCX_GPU_NAME_BYTES];
	struct wcx_gpu *gpu = NULL;
	size_t next = 0;
	pthread_t thread;

	CHECK(wcx_gpu_open(0, STARTED_CALLS, &gpu, name) == WCX_OK);
	for (size_t i = 0; gpu && i < STARTED_CALLS;) {
		struct started_call *started = &calls[i];

		started->job = samples->all[next++].job;
		if (started->job.mode != WCX_TILE_CODED || started->job.recipe->difference != WCX_DIFFERENCE_NONE)
			continue;
		started->gpu = gpu;
		started->expected = started->job.dst = must_alloc(started->job.dst_bytes);
		wcx_tile_decode(&started->job, scratch);
		started->job.dst = must_alloc(started->job.dst_bytes);
		if (started->job.result == WCX_OK) {
			wcx_gpu_start(gpu, &(struct wcx_gpu_batch){ .jobs = &started->job, .job_count = 1 }, &started->call);
			i++;
			continue;
		}
		free(started->expected);
		free(started->job.dst);
	}
	if (gpu && CHECK(pthread_create(&thread, NULL, finish_calls, calls) == 0))
		pthread_join(thread, NULL);
	for (size_t i = 0; gpu && i < STARTED_CALLS; i++) {
		free(calls[i].expected);
		free(calls[i].job.dst);
	}
	wcx_decode_scratch_free(scratch);
	wcx_gpu_free(gpu);
}

static void check_lost_device_is_reported(const struct samples *samples)
{
	char name[WCX_GPU_NAME_BYTES];
	struct wcx_tile_job job = samples->all[0].job;
	struct wcx_gpu *gpu = NULL;

	setenv("WCX_GPU_FAIL_AFTER", "2", 1);
	CHECK(wcx_gpu_open(0, WCX_GPU_CALLS_MAX, &gpu, name) == WCX_OK);
	unsetenv("WCX_GPU_FAIL_AFTER");
	job.dst = must_alloc(job.dst_bytes);
	for (int call = 0; gpu && call < 5; call++) {
		enum wcx_result expected = call < 2 ? WCX_OK : WCX_DEVICE_FAILED;

		CHECK(decode(gpu, &job, 1) == expected);
		CHECK(job.result == expected);
	}
	free(job.dst);
	wcx_gpu_free(gpu);
}

/* Describes a tile of a file and reads its packed bytes. */
static bool file_job_read(const struct wcx_container *container, const struct wcx_segment *segment,
			  const struct wcx_tile_info *tile, struct wcx_tile_job *job)
{
	uint8_t *packed = NULL;

	*job = (struct wcx_tile_job){ .dims = tile->dims, .mode = tile->mode, .constant = tile->constant };
	job->recipe = &segment->recipe;
	job->dst_bytes = wcx_tile_dims_bytes(&tile->dims);
	if (tile->mode == WCX_TILE_CONSTANT)
		return true;
	packed = must_alloc(tile->packed_bytes);
	job->src = packed;
	job->src_bytes = tile->packed_bytes;
	return pread(wcx_container_fd(container), packed, tile->packed_bytes, (off_t)tile->packed_offset) ==
	       tile->packed_bytes;
}

/* Numbers of tiles of a file that are valid, and that Zstandard has packed: the GPU never gets those. */
struct file_tiles {
	uint64_t valid, zstd;
};

static void check_segment(struct wcx_gpu *gpu, const struct wcx_container *container, const struct wcx_segment *segment,
			  struct file_tiles *tiles)
{
	struct wcx_tile_job *jobs = must_alloc(FILE_BATCH * sizeof *jobs);

	for (uint64_t next = 0; next < segment->tile_count;) {
		size_t count = 0;

		for (; count < FILE_BATCH && next < segment->tile_count; next++) {
			struct wcx_tile_info tile;

			wcx_container_tile(container, segment, segment->first_tile + next, &tile);
			if (tile.mode == WCX_TILE_ZSTD)
				tiles->zstd++;
			else
				CHECK(file_job_read(container, segment, &tile, &jobs[count++]));
		}
		tiles->valid += compare_decoders(gpu, jobs, count);
		for (size_t i = 0; i < count; i++)
			free((void *)(uintptr_t)jobs[i].src);
	}
	free(jobs);
}

static void check_file(struct wcx_gpu *gpu, const char *path)
{
	struct wcx_container *container = NULL;
	struct wcx_error err = { "" };
	struct file_tiles tiles = { 0, 0 };
	uint64_t tile_count;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (!CHECK(fd >= 0 && wcx_container_open(fd, path, &container, &err) == 0)) {
		fprintf(stderr, "%s: %s\n", path, fd < 0 ? strerror(errno) : err.text);
		if (fd >= 0)
			close(fd);
		return;
	}
	tile_count = wcx_container_superblock(container)->tile_count;
	for (size_t i = 0; i < wcx_container_superblock(container)->segment_count; i++) {
		const struct wcx_segment *segment = wcx_container_segment(container, i);

		if (!segment->same_as)
			check_segment(gpu, container, segment, &tiles);
	}
	CHECK(tiles.valid + tiles.zstd == tile_count);
	printf("%s: %llu of %llu tiles decode alike on CPU and GPU, %llu are packed by Zstandard\n", path,
	       (unsigned long long)tiles.valid, (unsigned long long)tile_count, (unsigned long long)tiles.zstd);
	wcx_container_free(container);
}

static void check_generated(struct wcx_gpu *gpu, bool one_thread)
{
	struct samples samples = samples_make();

	check_samples_cover_the_format(&samples);
	check_valid_tiles(gpu, &samples);
	check_wrong_jobs_are_refused(gpu, &samples);
	check_damaged_tiles(gpu, &samples);
	check_pairs(gpu);
	if (!one_thread)
		check_many_threads(gpu, &samples);
	check_calls_are_finished_by_others(&samples);
	check_lost_device_is_reported(&samples);
	check_pinned_memory_comes_and_goes(&samples);
	samples_free(&samples);
}

int main(int argc, char **argv)
{
	char name[WCX_GPU_NAME_BYTES];
	struct wcx_gpu *gpu = NULL;
	bool one_thread = argc > 1 && strcmp(argv[1], "--one-thread") == 0;
	int first_file = one_thread ? 2 : 1;
	enum wcx_result result = wcx_gpu_open(0, WCX_GPU_CALLS_MAX, &gpu, name);

	printf("%s: %s\n", result == WCX_NO_DEVICE ? "skipped" : "GPU", name);
	if (result == WCX_NO_DEVICE)
		return EXIT_SKIPPED;
	if (!CHECK(result == WCX_OK))
		return check_report();
	for (int i = first_file; i < argc; i++)
		check_file(gpu, argv[i]);
	if (first_file == argc)
		check_generated(gpu, one_thread);
	wcx_gpu_free(gpu);
	return check_report();
}
