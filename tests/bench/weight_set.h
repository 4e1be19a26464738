/* SPDX-License-Identifier: MIT */
/*
 * Weights to measure with: generated ones, and the tensors of a safetensors file, those of a dtype together.  Plans and
 * tiles are the packer's own, but that every tensor has its own tables.
 *
 * What goes wrong ends the program.
 */
#ifndef WCX_WEIGHT_SET_H
#define WCX_WEIGHT_SET_H

#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"
#include "fs/format/safetensors.h"
#include "fs/pack/tensor_plan.h"

struct weight_tile {
	const struct wcx_tensor_plan *plan;
	const uint8_t *original;
	struct wcx_tile_job job; /* src and dst are places of its own */
};

/* Weights that are measured together. */
struct weight_set {
	char name[128];
	struct wcx_tensor *tensors;
	const uint8_t *base; /* where the file begins; to stay as long as the set does */
	struct wcx_tensor_plan *plans;
	struct weight_tile *tiles;
	size_t tensor_count, tile_count, bytes, packed_bytes;
	double limit_bits; /* of a code for the bytes of an element one by one */
	uint8_t *packed, *decoded;
};

/* weight_set_draft - look at samples of a tensor and draft its recipe; the caller frees the plan */
void weight_set_draft(struct wcx_tensor_plan *plan, const struct wcx_tensor *tensor, const uint8_t *base);

/* weight_set_encode, weight_set_decode - pack one tile of a set, and unpack it again */
void weight_set_encode(struct weight_set *set, struct weight_tile *tile, struct wcx_encode_scratch *scratch);
void weight_set_decode(const struct weight_set *set, size_t tile, struct wcx_decode_scratch *scratch);

/* weight_set_check - compare all decoded bytes with the original's, and wipe them */
void weight_set_check(struct weight_set *set, const char *decoder);

/* The sets of one run.  Zeroed at first. */
struct weight_sets {
	struct weight_set *sets;
	size_t count;
};

/*
 * weight_sets_generate - add three: INT8 with one scale and with a width a row, and BF16, 64 MiB each
 *
 * weight_sets_add_file - add those of a file's dtypes that have a MiB
 */
void weight_sets_generate(struct weight_sets *sets);
void weight_sets_add_file(struct weight_sets *sets, const char *path);

/* weight_sets_free - free them; what they were made of stays until the program ends */
void weight_sets_free(struct weight_sets *sets);

#endif
