/* SPDX-License-Identifier: MIT */
/*
 * Weights for benchmarks: generated ones, and the tensors of safetensors files, one set per dtype.  Planned and cut into
 * tiles as the packer does, except that no tensor shares tables with another.
 *
 * An error ends the program.
 */
#ifndef WCX_WEIGHT_SET_H
#define WCX_WEIGHT_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"
#include "fs/format/safetensors.h"
#include "fs/pack/tensor_plan.h"

struct weight_tile {
	const struct wcx_tensor_plan *plan;
	const uint8_t *original;
	struct wcx_tile_job job; /* src and dst are in packed and decoded of the set */
};

/* Weights that are measured together. */
struct weight_set {
	char name[128];
	struct wcx_tensor *tensors;
	const uint8_t *base; /* start of the file; must outlive the set */
	struct wcx_tensor_plan *plans;
	struct weight_tile *tiles;
	size_t tensor_count, tile_count, bytes, packed_bytes;
	double limit_bits; /* order-0 entropy of each byte of an element, one table per tensor */
	uint8_t *packed, *decoded;
};

extern bool weight_sets_are_for_speed;     /* how tensors are planned, as wcx pack --for=speed does; false at first */
extern size_t weight_sets_generated_bytes; /* of each generated set; 64 MiB at first */

/* weight_set_draft - draft the plan of a tensor from its samples; the caller frees it */
void weight_set_draft(struct wcx_tensor_plan *plan, const struct wcx_tensor *tensor, const uint8_t *base);

/* weight_set_encode, weight_set_decode - pack one tile of a set, and unpack tiles [first, end) together */
void weight_set_encode(struct weight_set *set, struct weight_tile *tile, struct wcx_encode_scratch *scratch);
void weight_set_decode(const struct weight_set *set, size_t first, size_t end, struct wcx_decode_scratch *scratch);

/* weight_set_check - compare all decoded bytes with the original, and clear them */
void weight_set_check(struct weight_set *set, const char *decoder);

/* The sets of a benchmark.  Zeroed at first. */
struct weight_sets {
	struct weight_set *sets;
	size_t count, capacity;
};

/*
 * weight_sets_generate - add three sets: INT8 with one width, INT8 with a width per row, BF16
 *
 * weight_sets_add_file - add a set for each dtype of which the file has at least 1 MiB
 */
void weight_sets_generate(struct weight_sets *sets);
void weight_sets_add_file(struct weight_sets *sets, const char *path);

/* weight_sets_free - free the sets; their original bytes stay until the program ends */
void weight_sets_free(struct weight_sets *sets);

#endif
