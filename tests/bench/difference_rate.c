/* SPDX-License-Identifier: MIT */
/*
 * Measures tiles of differences from a base on one core, beside tiles of the same weights without a base.
 *
 *	difference_rate [DRIFT [PART]]
 *
 * The base's weights are normally distributed; those that are packed are off by DRIFT of their deviation (0.01), normally
 * distributed as well.  PART of a row's name leaves out those without it.  Tiles are those of the packer, 32 KiB.  Prints
 *bits per element, and GB of the original per second of CPU time for the encoder and for every decoding variant that this
 *CPU can run.  All that is decoded is compared.
 */
#include <math.h>

#include "codec/difference.h"
#include "codec/tile.h"
#include "tests/bench/measure.h"
#include "tests/bench/must.h"
#include "tests/fixtures/sample_data.h"

enum { TILE_BYTES = 32 << 10, TILES = 256, ROUNDS = 9, VARIANTS_MAX = 8, ROWS_MAX = 16 };

static const size_t set_bytes = (size_t)TILE_BYTES * TILES;

/* A base and what is packed, of the same dtype. */
struct weights {
	uint32_t elem_bytes;
	enum wcx_difference difference;
	uint8_t *base, *tuned;
};

/* A way to pack weights, and what was measured. */
struct row {
	const char *name;
	const struct weights *weights;
	struct wcx_recipe recipe;
	struct wcx_field fields[2];
	struct wcx_freq_table tables[2][WCX_CONTEXTS_MAX];
	struct wcx_encoded_tile encoded[TILES];
	uint8_t *packed, *decoded;
	bool is_left_out;
	double encode[ROUNDS], decode[VARIANTS_MAX][ROUNDS];
};

struct tools {
	struct wcx_encode_scratch *encode;
	struct wcx_decode_scratch *decode[VARIANTS_MAX];
	unsigned variant_count;
};

static double cpu_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static uint16_t bf16_of(double value)
{
	const float narrow = (float)value;
	uint32_t bits;

	memcpy(&bits, &narrow, sizeof bits);
	return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static void draw(struct weights *weights, uint32_t elem_bytes, double drift)
{
	struct sample_random random = { 1 };

	*weights = (struct weights){ elem_bytes, elem_bytes == 2 ? WCX_DIFFERENCE_FLOAT : WCX_DIFFERENCE_INTEGER,
				     must_alloc(set_bytes), must_alloc(set_bytes) };
	for (size_t i = 0; i < set_bytes / elem_bytes; i++) {
		const double weight = sample_normal(&random), tuned = weight + drift * sample_normal(&random);

		if (elem_bytes == 1) {
			weights->base[i] = sample_clip(30 * weight);
			weights->tuned[i] = sample_clip(30 * tuned);
		} else {
			((uint16_t *)(void *)weights->base)[i] = bf16_of(0.02 * weight);
			((uint16_t *)(void *)weights->tuned)[i] = bf16_of(0.02 * tuned);
		}
	}
}

/* How often a residual below 256 occurs beside an element of the base with this key. */
struct counts {
	uint64_t elems, of[WCX_CONTEXT_KEYS][WCX_SYMBOL_COUNT], keys[WCX_CONTEXT_KEYS];
};

static void count(const struct weights *weights, struct counts *counts)
{
	const size_t elems = set_bytes / weights->elem_bytes;
	uint8_t *residuals = must_alloc(set_bytes), *keys = must_alloc(elems);

	*counts = (struct counts){ .elems = elems };
	wcx_difference_residuals(weights->difference, weights->elem_bytes, weights->tuned, weights->base, elems, residuals);
	wcx_difference_keys(weights->difference, weights->elem_bytes, weights->base, elems, keys);
	for (size_t i = 0; i < elems; i++) {
		const uint8_t *e = residuals + i * weights->elem_bytes;

		counts->keys[keys[i]]++;
		if (weights->elem_bytes == 1 || e[1] == 0)
			counts->of[keys[i]][e[0]]++;
	}
	free(residuals);
	free(keys);
}

/* Contexts with equal shares of the elements, as far as the keys allow. */
static void choose_thresholds(struct wcx_recipe *recipe, const struct counts *counts, uint32_t contexts)
{
	uint64_t below = 0;
	uint32_t t = 0;

	recipe->context_count = (uint8_t)contexts;
	for (uint32_t key = 0; key < WCX_CONTEXT_KEYS && t + 1 < contexts; key++) {
		if (key > 0 && (below * contexts >= counts->elems * (t + 1) || WCX_CONTEXT_KEYS - key < contexts))
			recipe->thresholds[t++] = (uint8_t)key;
		below += counts->keys[key];
	}
}

/* One field of whole residuals: those from 256 on are exceptions. */
static void plan_difference(struct row *row, uint32_t contexts)
{
	const struct weights *weights = row->weights;
	static struct counts counts;

	count(weights, &counts);
	row->recipe.difference = (uint8_t)weights->difference;
	if (contexts)
		choose_thresholds(&row->recipe, &counts, contexts);
	row->recipe.field_count = 1;
	row->fields[0] = (struct wcx_field){ .width = (uint8_t)(8 * weights->elem_bytes),
					     .table_count = (uint8_t)WCX_MAX(contexts, 1),
					     .by_context = contexts > 0,
					     .tables = row->tables[0] };
	for (uint32_t t = 0; t < row->fields[0].table_count; t++) {
		const uint32_t first = t ? row->recipe.thresholds[t - 1] : 0;
		const uint32_t end = t + 1 < contexts ? row->recipe.thresholds[t] : (uint32_t)WCX_CONTEXT_KEYS;
		uint64_t sum[WCX_SYMBOL_COUNT] = { 1 };

		for (uint32_t key = first; key < end; key++)
			for (uint32_t e = 0; e < WCX_SYMBOL_COUNT; e++)
				sum[e] += counts.of[key][e];
		wcx_freq_table_build(sum, &row->tables[0][t]);
	}
}

/* The same with pairs: residuals from 16 on are exceptions. */
static void plan_pairs(struct row *row)
{
	static struct counts counts;
	uint64_t sum[WCX_SYMBOL_COUNT] = { 1 };

	plan_difference(row, 0);
	count(row->weights, &counts);
	for (uint32_t key = 0; key < WCX_CONTEXT_KEYS; key++)
		for (uint32_t e = 0; e < 16; e++)
			sum[e] += counts.of[key][e];
	row->fields[0].is_pair = true;
	wcx_freq_table_build(sum, &row->tables[0][0]);
}

/* The packer's fields without a base: raw low bits below what is coded. */
static void plan_alone(struct row *row, uint32_t raw, struct wcx_encode_scratch *scratch)
{
	const uint32_t elem_bytes = row->weights->elem_bytes;
	uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT] = { { 0 } };
	struct wcx_field_counts counts[WCX_FIELDS_MAX] = { [1] = { count, 0 } };

	row->recipe.transform = elem_bytes == 1 ? WCX_TRANSFORM_FOLD : WCX_TRANSFORM_ROTATE;
	row->recipe.field_count = 2;
	row->fields[0] = (struct wcx_field){ .width = (uint8_t)raw };
	row->fields[1] = (struct wcx_field){ .width = (uint8_t)(8 * elem_bytes - raw),
					     .table_count = 1,
					     .is_pair = elem_bytes == 1,
					     .tables = row->tables[1] };
	for (uint32_t s = 0; s < (elem_bytes == 1 ? 16 : 256); s++)
		count[0][s] = 1;
	for (int learns = 0; learns < 2; learns++) {
		wcx_freq_table_build(count[0], &row->tables[1][0]);
		for (size_t i = 0; i < TILES && !learns; i++)
			wcx_tile_count(&(struct wcx_tile_dims){ 1, TILE_BYTES / elem_bytes, elem_bytes },
				       row->weights->tuned + i * TILE_BYTES, NULL, &row->recipe, scratch, counts);
	}
}

static void encode_all(struct row *row, struct wcx_encode_scratch *scratch)
{
	const uint32_t elem_bytes = row->weights->elem_bytes;
	const struct wcx_tile_dims dims = { 1, TILE_BYTES / elem_bytes, elem_bytes };

	for (size_t i = 0, at = 0; i < TILES; i++, at += TILE_BYTES)
		if (wcx_tile_encode_against(&dims, row->weights->tuned + at, row->weights->base + at, &row->recipe, scratch,
					    row->packed + at, &row->encoded[i]) != WCX_OK)
			must_not(row->name, "a tile was not encoded");
}

static void decode_all(struct row *row, struct wcx_decode_scratch *scratch)
{
	const uint32_t elem_bytes = row->weights->elem_bytes;

	for (size_t i = 0, at = 0; i < TILES; i++, at += TILE_BYTES) {
		struct wcx_tile_job job = {
			.dims = { 1, TILE_BYTES / elem_bytes, elem_bytes },
			.mode = row->encoded[i].mode,
			.constant = row->encoded[i].constant,
			.recipe = &row->recipe,
			.src = row->packed + at,
			.src_bytes = row->encoded[i].bytes,
			.base = row->weights->base + at,
			.dst = row->decoded + at,
			.dst_bytes = TILE_BYTES,
		};

		if (wcx_tile_decode(&job, scratch) != WCX_OK)
			must_not(row->name, "a tile was not decoded");
	}
}

static void check(struct row *row)
{
	if (memcmp(row->decoded, row->weights->tuned, set_bytes) != 0)
		must_not(row->name, "a tile was decoded to something else");
	memset(row->decoded, 0, set_bytes);
}

static struct row *add_row(struct row *rows, size_t *count, const char *name, const struct weights *weights)
{
	struct row *row = &rows[(*count)++];

	*row = (struct row){ .name = name, .weights = weights };
	row->recipe = (struct wcx_recipe){ .elem_bytes = (uint8_t)weights->elem_bytes, .fields = row->fields };
	row->packed = must_alloc(set_bytes);
	row->decoded = must_alloc(set_bytes);
	return row;
}

/* Rows take turns, so that other load on the machine affects all of them. */
static void measure(struct row *rows, size_t count, const struct tools *tools)
{
	for (int round = 0; round < ROUNDS; round++)
		for (size_t r = 0; r < count; r++) {
			double start = cpu_now_s();

			if (rows[r].is_left_out)
				continue;
			encode_all(&rows[r], tools->encode);
			rows[r].encode[round] = (double)set_bytes / (cpu_now_s() - start) * 1e-9;
			for (unsigned v = 0; v < tools->variant_count; v++) {
				start = cpu_now_s();
				decode_all(&rows[r], tools->decode[v]);
				rows[r].decode[v][round] = (double)set_bytes / (cpu_now_s() - start) * 1e-9;
				check(&rows[r]);
			}
		}
}

static void print(struct row *rows, size_t count, const struct tools *tools)
{
	printf("| weights | bits per element | encode |");
	for (unsigned v = 0; v < tools->variant_count; v++)
		printf(" %s |", wcx_decode_variant_at(v)->name);
	printf("\n|---|---|---|");
	for (unsigned v = 0; v < tools->variant_count; v++)
		printf("---|");
	for (size_t r = 0; r < count; r++) {
		size_t bytes = 0;

		if (rows[r].is_left_out)
			continue;
		for (size_t i = 0; i < TILES; i++)
			bytes += rows[r].encoded[i].bytes;
		printf("\n| %s | %.2f | %.2f |", rows[r].name,
		       8.0 * (double)bytes * rows[r].weights->elem_bytes / (double)set_bytes,
		       measure_spread_of(rows[r].encode, ROUNDS).median);
		for (unsigned v = 0; v < tools->variant_count; v++)
			printf(" %.2f |", measure_spread_of(rows[r].decode[v], ROUNDS).median);
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	const double drift = argc > 1 ? atof(argv[1]) : 0.01;
	static struct row rows[ROWS_MAX];
	struct weights bf16, int8;
	struct tools tools = { .encode = wcx_encode_scratch_create() };
	size_t count = 0;

	measure_print_origin(argc, argv);
	while (tools.variant_count < VARIANTS_MAX && wcx_decode_variant_at(tools.variant_count)) {
		tools.decode[tools.variant_count] = wcx_decode_scratch_create(wcx_decode_variant_at(tools.variant_count));
		if (!tools.decode[tools.variant_count++])
			must_not("memory", strerror(ENOMEM));
	}
	if (!tools.encode)
		must_not("memory", strerror(ENOMEM));
	draw(&bf16, 2, drift);
	draw(&int8, 1, drift);
	plan_alone(add_row(rows, &count, "BF16, alone", &bf16), 7, tools.encode);
	plan_difference(add_row(rows, &count, "BF16, differences", &bf16), 0);
	plan_difference(add_row(rows, &count, "BF16, differences, 2 contexts", &bf16), 2);
	plan_difference(add_row(rows, &count, "BF16, differences, 8 contexts", &bf16), 8);
	plan_alone(add_row(rows, &count, "INT8, alone", &int8), 4, tools.encode);
	plan_difference(add_row(rows, &count, "INT8, differences", &int8), 0);
	plan_pairs(add_row(rows, &count, "INT8, differences in pairs", &int8));
	plan_difference(add_row(rows, &count, "INT8, differences, 8 contexts", &int8), 8);
	for (size_t r = 0; r < count; r++)
		rows[r].is_left_out = argc > 2 && !strstr(rows[r].name, argv[2]);
	measure(rows, count, &tools);
	print(rows, count, &tools);
	for (size_t r = 0; r < count; r++) {
		free(rows[r].packed);
		free(rows[r].decoded);
	}
	for (unsigned v = 0; v < tools.variant_count; v++)
		wcx_decode_scratch_free(tools.decode[v]);
	wcx_encode_scratch_free(tools.encode);
	free(bf16.base);
	free(bf16.tuned);
	free(int8.base);
	free(int8.tuned);
	return 0;
}
