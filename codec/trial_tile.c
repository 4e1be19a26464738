/* SPDX-License-Identifier: MIT */
/* Makes a tile for timing decoders. */
#include "codec/trial_tile.h"

#include <stdlib.h>

enum {
	ROWS = 32,
	COLS = 1024,
	RAW_BITS = 4,
	LEVELS = 16, /* values of the coded half of a weight */
};

struct wcx_trial_tile {
	struct wcx_freq_table table;
	struct wcx_field fields[2];
	struct wcx_recipe recipe;
	struct wcx_encoded_tile encoded;
	uint8_t original[ROWS * COLS], packed[ROWS * COLS];
};

/* The number of ones among 64 random bits is nearly normal, with a standard deviation of 4; weights are 8 times that. */
static void draw_weights(struct wcx_trial_tile *tile)
{
	uint64_t random = 1;

	for (size_t i = 0; i < sizeof tile->original; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		tile->original[i] = (uint8_t)(8 * (__builtin_popcountll(random ^ random >> 29) - 32) + (int)(random >> 61));
	}
}

/* The packer's recipe for such weights: sign and three low bits raw, the four bits above coded as pairs. */
static void make_recipe(struct wcx_trial_tile *tile)
{
	uint64_t counts[WCX_SYMBOL_COUNT] = { 0 };

	for (size_t i = 0; i < sizeof tile->original; i++) {
		const uint8_t weight = tile->original[i];

		counts[(weight & 0x80 ? (uint8_t)~weight : weight) >> 3 & (LEVELS - 1)]++;
	}
	for (size_t level = 0; level < LEVELS; level++)
		counts[level]++;
	wcx_freq_table_build(counts, &tile->table);
	tile->fields[0] = (struct wcx_field){ .width = RAW_BITS };
	tile->fields[1] = (struct wcx_field){ .width = RAW_BITS, .table_count = 1, .is_pair = true, .tables = &tile->table };
	tile->recipe = (struct wcx_recipe){
		.elem_bytes = 1,
		.transform = WCX_TRANSFORM_FOLD,
		.predictor = WCX_PREDICT_NONE,
		.field_count = 2,
		.fields = tile->fields,
	};
}

static const struct wcx_tile_dims dims = { .rows = ROWS, .cols = COLS, .elem_bytes = 1 };

struct wcx_trial_tile *wcx_trial_tile_create(void)
{
	struct wcx_trial_tile *tile = calloc(1, sizeof *tile);
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	enum wcx_result result = WCX_NO_MEMORY;

	if (tile && scratch) {
		draw_weights(tile);
		make_recipe(tile);
		result = wcx_tile_encode(&dims, tile->original, &tile->recipe, scratch, tile->packed, &tile->encoded);
	}
	wcx_encode_scratch_free(scratch);
	if (result == WCX_OK)
		return tile;
	free(tile);
	return NULL;
}

void wcx_trial_tile_free(struct wcx_trial_tile *tile)
{
	free(tile);
}

struct wcx_tile_job wcx_trial_tile_job(const struct wcx_trial_tile *tile)
{
	return (struct wcx_tile_job){
		.dims = dims,
		.mode = tile->encoded.mode,
		.recipe = &tile->recipe,
		.src = tile->packed,
		.src_bytes = tile->encoded.bytes,
		.dst_bytes = sizeof tile->original,
	};
}
