/* SPDX-License-Identifier: MIT */
/* Makes a tile to time decoders with. */
#include "codec/decode_trial.h"

#include <stdlib.h>

enum {
	ROWS = 64,
	COLS = 1024,
	RAW_BITS = 4,
	LEVELS = 16, /* of the coded half of a weight */
};

struct wcx_decode_trial {
	struct wcx_freq_table table;
	struct wcx_field fields[2];
	struct wcx_recipe recipe;
	struct wcx_encoded_tile encoded;
	uint8_t original[ROWS * COLS], packed[ROWS * COLS];
};

/* The number of ones in 64 random bits is near enough to a bell: with a standard deviation of 4, here times 8. */
static void draw_weights(struct wcx_decode_trial *trial)
{
	uint64_t random = 1;

	for (size_t i = 0; i < sizeof trial->original; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		trial->original[i] = (uint8_t)(8 * (__builtin_popcountll(random ^ random >> 29) - 32) + (int)(random >> 61));
	}
}

/* How the packer codes such weights: pairs of four bits above the sign and three bits that are kept. */
static void make_recipe(struct wcx_decode_trial *trial)
{
	uint64_t counts[WCX_SYMBOL_COUNT] = { 0 };

	for (size_t i = 0; i < sizeof trial->original; i++) {
		const uint8_t weight = trial->original[i];

		counts[(weight & 0x80 ? (uint8_t)~weight : weight) >> 3 & (LEVELS - 1)]++;
	}
	for (size_t level = 0; level < LEVELS; level++)
		counts[level]++;
	wcx_freq_table_build(counts, &trial->table);
	trial->fields[0] = (struct wcx_field){ .width = RAW_BITS };
	trial->fields[1] = (struct wcx_field){ .width = RAW_BITS, .table_count = 1, .is_pair = 1, .tables = &trial->table };
	trial->recipe = (struct wcx_recipe){
		.elem_bytes = 1,
		.transform = WCX_TRANSFORM_FOLD,
		.predictor = WCX_PREDICT_NONE,
		.field_count = 2,
		.fields = trial->fields,
	};
}

static const struct wcx_tile_dims dims = { .rows = ROWS, .cols = COLS, .elem_bytes = 1 };

struct wcx_decode_trial *wcx_decode_trial_create(void)
{
	struct wcx_decode_trial *trial = calloc(1, sizeof *trial);
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();

	if (trial && scratch) {
		draw_weights(trial);
		make_recipe(trial);
		if (wcx_tile_encode(&dims, trial->original, &trial->recipe, scratch, trial->packed, &trial->encoded) ==
		    WCX_OK) {
			wcx_encode_scratch_free(scratch);
			return trial;
		}
	}
	wcx_encode_scratch_free(scratch);
	free(trial);
	return NULL;
}

void wcx_decode_trial_free(struct wcx_decode_trial *trial)
{
	free(trial);
}

struct wcx_tile_job wcx_decode_trial_job(const struct wcx_decode_trial *trial)
{
	return (struct wcx_tile_job){
		.dims = dims,
		.mode = trial->encoded.mode,
		.recipe = &trial->recipe,
		.src = trial->packed,
		.src_bytes = trial->encoded.bytes,
		.dst_bytes = sizeof trial->original,
	};
}
