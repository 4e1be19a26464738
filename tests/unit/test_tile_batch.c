/* SPDX-License-Identifier: MIT */
/* Batches of tiles for the GPU: which kernel takes a tile, and the order of launches.  Runs no kernel. */
#include "cuda/tile_batch.h"

#include <stdlib.h>
#include <string.h>

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

/* Packs elements with the tile's recipe, against a base if it is a difference. */
static void pack(struct tile *tile, const uint8_t *elements, const uint8_t *base)
{
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	struct wcx_encoded_tile encoded;

	if (!CHECK(scratch && wcx_recipe_check(&tile->recipe) == NULL))
		exit(1);
	CHECK(wcx_tile_encode_against(&tile->job.dims, elements, base, &tile->recipe, scratch, tile->packed, &encoded) ==
	      WCX_OK);
	CHECK(encoded.mode == WCX_TILE_CODED);
	tile->job.src_bytes = encoded.bytes;
	wcx_encode_scratch_free(scratch);
}

/* With top < 8 * elem_bytes there is a field below; all are coded by `contexts` tables. */
static struct tile *tile_make(uint32_t elem_bytes, enum wcx_difference difference, uint32_t top, uint32_t contexts)
{
	struct tile *tile = calloc(1, sizeof *tile);
	uint8_t *elements = calloc(2, ELEMS), *base = calloc(2, ELEMS);
	const struct wcx_tile_dims dims = { 1, ELEMS / elem_bytes, elem_bytes };
	const uint32_t low = 8 * elem_bytes - top;
	uint64_t count[WCX_SYMBOL_COUNT] = { 1000, 1, 1, 1 };

	if (!CHECK(tile && elements && base))
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
	tile->job = (struct wcx_tile_job){
		.dims = dims, .mode = WCX_TILE_CODED, .recipe = &tile->recipe, .src = tile->packed, .dst_bytes = ELEMS
	};
	pack(tile, elements, base);
	free(elements);
	free(base);
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

static void add_at(struct wcx_tile_batch *batch, const struct tile *tile, struct wcx_tile_places places)
{
	bool added = false;

	CHECK(wcx_tile_batch_add(batch, &tile->job, &places, &added) == WCX_OK && added);
}

static void add(struct wcx_tile_batch *batch, const struct tile *tile, uint64_t dst, uint64_t base)
{
	add_at(batch, tile, (struct wcx_tile_places){ .dst = dst, .base = base });
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
	CHECK(wcx_tile_batch_add(batch, &tile->job, &(struct wcx_tile_places){ .base = ELEMS }, &added) == WCX_BAD_DATA);
	CHECK(!added && wcx_tile_batch_finish(batch)->items == 0);
	wcx_tile_batch_free(batch);
	free(tile);
}

/* Packs zeros and other elements, against zeros if it is a difference, by a recipe that was changed. */
static void pack_again(struct tile *tile)
{
	uint8_t *elements = calloc(2, ELEMS), *base = elements + ELEMS;

	if (!CHECK(elements != NULL))
		exit(1);
	for (uint32_t i = 0; i < ELEMS; i += 128) /* 2 in both fields, or a residual of 2 */
		elements[i] = tile->recipe.difference == WCX_DIFFERENCE_NONE ? 0x81 : 1;
	pack(tile, elements, base);
	free(elements);
}

/* A tile of two-byte elements with one field, in 2^set_bits sets of tables for each context. */
static struct tile *sets_make(enum wcx_difference difference, uint32_t contexts, uint32_t set_bits, bool has_escapes)
{
	static struct wcx_freq_table tables[WCX_SET_TABLES_MAX];
	const uint64_t count[WCX_SYMBOL_COUNT] = { 1000, 1, 1, 1 };
	struct tile *tile = tile_make(2, difference, 16, contexts);

	for (uint32_t t = 0; t < WCX_SET_TABLES_MAX; t++)
		wcx_freq_table_build_escapes(count, &tables[t]);
	tile->fields[0].has_escapes = has_escapes;
	tile->fields[0].set_bits = (uint8_t)set_bits;
	tile->fields[0].table_count = (uint8_t)(contexts << set_bits);
	tile->fields[0].tables = tables;
	tile->recipe.run_elems = set_bits ? 128 : 0;
	pack_again(tile);
	return tile;
}

static void escapes_have_a_kernel_for_floats(void)
{
	struct wcx_batch_limits small = limits;
	struct tile *tile = sets_make(WCX_DIFFERENCE_FLOAT, 8, 2, true);
	uint32_t tables;

	small.carrier_tables = 7;
	CHECK(wcx_tile_batch_takes(&limits, &tile->recipe) && !wcx_tile_batch_takes(&small, &tile->recipe));
	CHECK(kernel_of(tile, &limits, &tables) == WCX_KERNEL_DIFFERENCE_ESCAPES && tables == 32);
	CHECK(kernel_of(sets_make(WCX_DIFFERENCE_FLOAT, 1, 0, true), &limits, &tables) == WCX_KERNEL_DIFFERENCE_ESCAPES);
	CHECK(tables == 1);
	tile = sets_make(WCX_DIFFERENCE_INTEGER, 8, 0, true);
	CHECK(!wcx_tile_batch_takes(&limits, &tile->recipe));
	free(tile);
}

/* It searches tables in device memory, whatever their number. */
static void sets_of_tables_have_the_general_kernel(void)
{
	struct tile *tile = sets_make(WCX_DIFFERENCE_FLOAT, 8, 2, false);
	struct wcx_batch_limits small = limits;
	uint32_t count;

	small.carrier_tables = WCX_FIELD_TABLES_MAX;
	CHECK(wcx_tile_batch_takes(&small, &tile->recipe));
	CHECK(kernel_of(tile, &small, &count) == WCX_KERNEL_DIFFERENCE_ANY_2 && count == 1);
}

/* A tile that stands alone: pairs above four raw bits a byte, as of INT8 (folded) and of BF16 packed for speed (rotated). */
static struct tile *alone_make(uint32_t elem_bytes, enum wcx_transform transform)
{
	struct tile *tile = tile_make(elem_bytes, WCX_DIFFERENCE_NONE, 4 * elem_bytes, 1);

	tile->recipe.transform = (uint8_t)transform;
	tile->fields[0].table_count = 0;
	tile->fields[0].tables = NULL;
	tile->fields[1].is_pair = true;
	pack_again(tile);
	return tile;
}

/* A difference of bytes in pairs. */
static struct tile *byte_pairs_make(enum wcx_difference difference)
{
	struct tile *tile = tile_make(1, difference, 8, 1);

	tile->fields[0].is_pair = true;
	pack_again(tile);
	return tile;
}

/* Adds a difference that takes the tile before as its base. */
static void add_taking(struct wcx_tile_batch *batch, const struct tile *tile, uint64_t dst, uint64_t base)
{
	add_at(batch, tile, (struct wcx_tile_places){ .dst = dst, .base = base, .takes_base = true });
}

static void a_difference_is_decoded_with_the_base_that_it_takes(void)
{
	struct tile *base = alone_make(2, WCX_TRANSFORM_ROTATE), *tile = sets_make(WCX_DIFFERENCE_FLOAT, 8, 0, true);
	struct wcx_tile_batch *batch = batch_make(&limits);
	const struct wcx_batch_layout *layout;
	const struct wcx_tile_item *items;
	const struct wcx_batch_kind *kinds;
	uint8_t *control;

	add(batch, base, 9 * ELEMS, 0); /* stands alone */
	for (uint64_t i = 0; i < 3; i++) {
		add(batch, base, (4 + i) * ELEMS, 0);
		add_taking(batch, tile, i * ELEMS, (4 + i) * ELEMS);
	}
	layout = wcx_tile_batch_finish(batch);
	control = calloc(1, layout->control_bytes);
	if (!CHECK(control && layout->launch_count == 2 && layout->items == 7))
		exit(1);
	CHECK(layout->launches[0].kernel == WCX_KERNEL_FUSED_HALVES_PAIRS_8 && !layout->launches[0].waits);
	CHECK(layout->launches[0].table_count == 8 && layout->launches[0].base_table_count == 1);
	CHECK(layout->launches[1].kernel == WCX_KERNEL_HALVES_PAIRS_8 && layout->launches[1].kind_count == 1);
	wcx_tile_batch_write(batch, control);
	items = (const struct wcx_tile_item *)(const void *)control;
	kinds = (const struct wcx_batch_kind *)(const void *)(control + layout->kinds_offset);
	CHECK(((const uint32_t *)(const void *)(control + layout->left_offset))[0] == 3);
	CHECK(kinds[0].difference == WCX_DIFFERENCE_FLOAT && kinds[kinds[0].base_kind].plane_count == 1);
	for (uint32_t i = 0; i < 3; i++) {
		const struct wcx_tile_item *item = &items[kinds[0].first_item + i];

		CHECK(item->number == 2 * i + 2 && item->dst == i * ELEMS);
		CHECK(items[item->base_item].number == 2 * i + 1 && items[item->base_item].dst == (4 + i) * ELEMS);
	}
	CHECK(items[kinds[layout->launches[1].first_kind].first_item].number == 0);
	free(control);
	wcx_tile_batch_free(batch);
	free(base);
	free(tile);
}

static void other_differences_are_decoded_after_their_bases(void)
{
	struct tile *base = alone_make(2, WCX_TRANSFORM_ROTATE), *sets = sets_make(WCX_DIFFERENCE_FLOAT, 2, 1, true);
	struct tile *bytes = tile_make(1, WCX_DIFFERENCE_NONE, 8, 1), *of_bytes = tile_make(1, WCX_DIFFERENCE_INTEGER, 8, 1);
	struct wcx_tile_batch *batch = batch_make(&limits);
	const struct wcx_batch_layout *layout;

	add(batch, base, 4 * ELEMS, 0);
	add_taking(batch, sets, 0, 4 * ELEMS); /* has too many tables */
	add(batch, bytes, 5 * ELEMS, 0);
	add_taking(batch, of_bytes, ELEMS, 5 * ELEMS); /* from a format of bases that no kernel has */
	layout = wcx_tile_batch_finish(batch);
	CHECK(layout->launch_count == 4 && layout->launches[2].waits);
	CHECK(layout->launches[3].kernel == WCX_KERNEL_DIFFERENCE_ESCAPES ||
	      layout->launches[2].kernel == WCX_KERNEL_DIFFERENCE_ESCAPES);
	wcx_tile_batch_free(batch);
	free(base);
	free(sets);
	free(bytes);
	free(of_bytes);
}

/* With pairs in the order of integers and without; others go the ways that any bytes do. */
static void differences_of_bytes_have_kernels_for_one_order(void)
{
	struct tile *base = alone_make(1, WCX_TRANSFORM_FOLD), *of_base[] = {
		byte_pairs_make(WCX_DIFFERENCE_INTEGER),
		tile_make(1, WCX_DIFFERENCE_INTEGER, 8, 1),
		byte_pairs_make(WCX_DIFFERENCE_FLOAT),
		tile_make(1, WCX_DIFFERENCE_FLOAT, 8, 1),
	};
	static const uint8_t kernels[] = { WCX_KERNEL_FUSED_BYTE_PAIRS, WCX_KERNEL_FUSED_BYTES, WCX_KERNEL_DIFFERENCE_ANY_1,
					   WCX_KERNEL_DIFFERENCE_BYTES };
	uint32_t tables;

	for (uint32_t i = 0; i < WCX_ARRAY_COUNT(of_base); i++) {
		struct wcx_tile_batch *batch = batch_make(&limits);
		const struct wcx_batch_layout *layout;

		add(batch, base, ELEMS, 0);
		add_taking(batch, of_base[i], 0, ELEMS);
		layout = wcx_tile_batch_finish(batch);
		CHECK(layout->launch_count == (i < 2 ? 1 : 2));
		CHECK(layout->launches[layout->launch_count - 1].kernel == kernels[i]);
		wcx_tile_batch_free(batch);
		free(of_base[i]);
	}
	free(base);
	CHECK(kernel_of(byte_pairs_make(WCX_DIFFERENCE_INTEGER), &limits, &tables) == WCX_KERNEL_DIFFERENCE_BYTE_PAIRS);
	CHECK(tables == 1);
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
		CHECK_TEST(escapes_have_a_kernel_for_floats),
		CHECK_TEST(sets_of_tables_have_the_general_kernel),
		CHECK_TEST(a_difference_is_decoded_with_the_base_that_it_takes),
		CHECK_TEST(other_differences_are_decoded_after_their_bases),
		CHECK_TEST(differences_of_bytes_have_kernels_for_one_order),
		CHECK_TEST(differences_are_launched_last_and_the_first_waits),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
