/* SPDX-License-Identifier: MIT */
/* Batches of tiles for the GPU: which kernel takes a tile, and the order of launches.  Runs no kernel. */
#include "cuda/tile_batch.h"

#include <stdlib.h>

#include "codec/difference.h"
#include "tests/unit/check.h"

enum { ELEMS = 16384 };

static const struct wcx_batch_limits limits = {
	.items = 64, .kinds = 16, .tables = 512, .places = 256, .blocks = 4, .carrier_tables = WCX_CARRIER_TABLES_MAX
};

/* A packed tile of small residuals, or of small elements without a base. */
struct tile {
	struct wcx_freq_table tables[WCX_CONTEXTS_MAX];
	struct wcx_field fields[2];
	struct wcx_recipe recipe;
	uint8_t packed[ELEMS * 2];
	struct wcx_tile_job job;
};

/* With top < 8 * elem_bytes there is a field below; all are coded by `contexts` tables. */
static struct tile *tile_make(uint32_t elem_bytes, enum wcx_difference difference, uint32_t top, uint32_t contexts)
{
	struct tile *tile = calloc(1, sizeof *tile);
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	uint8_t *elements = calloc(2, ELEMS), *base = calloc(2, ELEMS);
	const struct wcx_tile_dims dims = { 1, ELEMS / elem_bytes, elem_bytes };
	const uint32_t low = 8 * elem_bytes - top;
	uint64_t count[WCX_SYMBOL_COUNT] = { 1000, 1, 1, 1 };
	struct wcx_encoded_tile encoded;

	if (!CHECK(tile && scratch && elements && base))
		exit(1);
	for (uint32_t t = 0; t < contexts; t++)
		wcx_freq_table_build(count, &tile->tables[t]);
	tile->recipe = (struct wcx_recipe){ .elem_bytes = (uint8_t)elem_bytes,
					    .difference = (uint8_t)difference,
					    .context_count = (uint8_t)(contexts > 1 ? contexts : 0),
					    .fields = tile->fields };
	for (uint32_t t = 0; t + 1 < contexts; t++)
		tile->recipe.thresholds[t] = (uint8_t)(t + 1);
	for (uint32_t width = low ? low : top; tile->recipe.field_count < (low ? 2 : 1); width = top)
		tile->fields[tile->recipe.field_count++] = (struct wcx_field){ .width = (uint8_t)width,
									       .table_count = (uint8_t)contexts,
									       .by_context = contexts > 1,
									       .tables = tile->tables };
	for (uint32_t i = 0; i < ELEMS; i += 64 * elem_bytes) { /* a residual of 1 in the field, 3 in the one above */
		elements[i] = 1;
		if (low)
			elements[i + low / 8] |= (uint8_t)(1u << low % 8);
	}
	if (difference != WCX_DIFFERENCE_NONE)
		wcx_difference_undo(difference, elem_bytes, base, ELEMS / elem_bytes, elements);
	CHECK(wcx_recipe_check(&tile->recipe) == NULL);
	CHECK(wcx_tile_encode_against(&dims, elements, base, &tile->recipe, scratch, tile->packed, &encoded) == WCX_OK);
	CHECK(encoded.mode == WCX_TILE_CODED);
	tile->job = (struct wcx_tile_job){ .dims = dims,
					   .mode = WCX_TILE_CODED,
					   .recipe = &tile->recipe,
					   .src = tile->packed,
					   .src_bytes = encoded.bytes,
					   .dst_bytes = ELEMS };
	free(elements);
	free(base);
	wcx_encode_scratch_free(scratch);
	return tile;
}

static struct wcx_tile_batch *batch_make(const struct wcx_batch_limits *of)
{
	struct wcx_tile_batch *batch = wcx_tile_batch_create(of);

	if (!CHECK(batch != NULL))
		exit(1);
	wcx_tile_batch_clear(batch);
	return batch;
}

static void add(struct wcx_tile_batch *batch, const struct tile *tile, uint64_t dst, uint64_t base)
{
	const struct wcx_tile_places places = { .src = 0, .dst = dst, .base = base };
	bool added = false;

	CHECK(wcx_tile_batch_add(batch, &tile->job, &places, &added) == WCX_OK && added);
}

/* The kernel of the only launch of a tile. */
static uint32_t kernel_of(struct tile *tile, const struct wcx_batch_limits *of, uint32_t *table_count_ret)
{
	struct wcx_tile_batch *batch = batch_make(of);
	const struct wcx_batch_layout *layout;
	uint32_t kernel;

	add(batch, tile, 0, ELEMS);
	layout = wcx_tile_batch_finish(batch);
	CHECK(layout->launch_count == 1);
	kernel = layout->launches[0].kernel;
	*table_count_ret = layout->launches[0].table_count;
	wcx_tile_batch_free(batch);
	free(tile);
	return kernel;
}

static void differences_have_kernels_of_their_own(void)
{
	struct wcx_batch_limits small = limits;
	uint32_t tables;

	small.carrier_tables = 5;
	CHECK(kernel_of(tile_make(1, WCX_DIFFERENCE_INTEGER, 8, 1), &limits, &tables) == WCX_KERNEL_DIFFERENCE_BYTES);
	CHECK(tables == 1);
	CHECK(kernel_of(tile_make(1, WCX_DIFFERENCE_FLOAT, 8, 3), &limits, &tables) == WCX_KERNEL_DIFFERENCE_BYTES);
	CHECK(tables == 3);
	CHECK(kernel_of(tile_make(2, WCX_DIFFERENCE_FLOAT, 16, 8), &limits, &tables) == WCX_KERNEL_DIFFERENCE_HALVES_0);
	CHECK(tables == 8);
	CHECK(kernel_of(tile_make(2, WCX_DIFFERENCE_INTEGER, 16, 8), &limits, &tables) == WCX_KERNEL_DIFFERENCE_ANY_2);
	CHECK(kernel_of(tile_make(2, WCX_DIFFERENCE_FLOAT, 8, 5), &limits, &tables) == WCX_KERNEL_DIFFERENCE_TWO);
	CHECK(kernel_of(tile_make(2, WCX_DIFFERENCE_FLOAT, 8, 5), &small, &tables) == WCX_KERNEL_DIFFERENCE_ANY_2);
	CHECK(kernel_of(tile_make(1, WCX_DIFFERENCE_NONE, 8, 1), &limits, &tables) == WCX_KERNEL_BYTES_0);
}

static void more_tables_than_fit_are_refused(void)
{
	struct tile *tile = tile_make(2, WCX_DIFFERENCE_FLOAT, 16, 8);
	struct wcx_batch_limits small = limits;
	struct wcx_tile_batch *batch;
	bool added = true;

	small.carrier_tables = 7;
	batch = batch_make(&small);
	CHECK(wcx_tile_batch_takes(&limits, &tile->recipe) && !wcx_tile_batch_takes(&small, &tile->recipe));
	CHECK(wcx_tile_batch_add(batch, &tile->job, &(struct wcx_tile_places){ 0, 0, ELEMS }, &added) == WCX_BAD_DATA);
	CHECK(!added && wcx_tile_batch_finish(batch)->items == 0);
	wcx_tile_batch_free(batch);
	free(tile);
}

/* Kernels know one table for each context, whatever room there is, and exceptions with positions. */
static void sets_of_tables_and_escapes_are_refused(void)
{
	struct tile *tile = tile_make(2, WCX_DIFFERENCE_FLOAT, 16, 4);
	struct wcx_field field = tile->recipe.fields[0];

	CHECK(wcx_tile_batch_takes(&limits, &tile->recipe));
	field.set_bits = 1;
	field.table_count = 8;
	tile->recipe.fields = &field;
	CHECK(!wcx_tile_batch_takes(&limits, &tile->recipe));
	field = tile->recipe.fields[0];
	field.set_bits = 0;
	field.table_count = 2;
	field.has_escapes = true;
	CHECK(!wcx_tile_batch_takes(&limits, &tile->recipe));
	free(tile);
}

/* Whatever the order of adding: bases may be decoded in the same batch. */
static void differences_are_launched_last_and_the_first_waits(void)
{
	struct tile *alone = tile_make(1, WCX_DIFFERENCE_NONE, 8, 1), *bytes = tile_make(1, WCX_DIFFERENCE_INTEGER, 8, 1);
	struct tile *halves = tile_make(2, WCX_DIFFERENCE_FLOAT, 16, 2);
	struct wcx_tile_batch *batch = batch_make(&limits);
	const struct wcx_batch_layout *layout;
	struct wcx_tile_item *items;
	uint8_t *control;

	add(batch, bytes, 0, 3 * ELEMS);
	add(batch, halves, ELEMS, 4 * ELEMS);
	add(batch, halves, 2 * ELEMS, 5 * ELEMS);
	for (uint64_t i = 3; i < 6; i++)
		add(batch, alone, i * ELEMS, 0);
	layout = wcx_tile_batch_finish(batch);
	control = calloc(1, layout->control_bytes);
	if (!CHECK(control && layout->launch_count == 3))
		exit(1);
	CHECK(layout->launches[0].kernel == WCX_KERNEL_BYTES_0 && !layout->launches[0].waits);
	CHECK(layout->launches[1].kernel == WCX_KERNEL_DIFFERENCE_BYTES && layout->launches[1].waits);
	CHECK(layout->launches[2].kernel == WCX_KERNEL_DIFFERENCE_HALVES_0 && !layout->launches[2].waits);
	wcx_tile_batch_write(batch, control);
	items = (struct wcx_tile_item *)(void *)control;
	CHECK(items[3].number == 0 && items[3].dst == 0 && items[3].base == 3 * ELEMS);
	CHECK(items[5].number == 2 && items[5].dst == 2 * ELEMS && items[5].base == 5 * ELEMS);
	free(control);
	wcx_tile_batch_free(batch);
	free(alone);
	free(bytes);
	free(halves);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(differences_have_kernels_of_their_own),
		CHECK_TEST(more_tables_than_fit_are_refused),
		CHECK_TEST(sets_of_tables_and_escapes_are_refused),
		CHECK_TEST(differences_are_launched_last_and_the_first_waits),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
