/* SPDX-License-Identifier: MIT */
/*
 * Deciding how a tensor is coded: the shape of its tiles, a predictor for each byte plane, the frequency tables, and whether
 * coding pays at all.  Works from statistics that the packer gathers, and never reads a file itself.  A function that takes
 * a plan as const may run on it in many threads at a time, the others in one.
 */
#ifndef WCX_TENSOR_PLAN_H
#define WCX_TENSOR_PLAN_H

#include <stdint.h>

#include "codec/tile.h"
#include "fs/container.h"
#include "fs/safetensors.h"

struct wcx_tensor_plan {
	struct wcx_segment segment; /* offset, bytes and shape at first; tiles and table_mask as they are decided */
	uint64_t matrix_cols;       /* elements in a row of the tensor seen as a matrix */
	struct wcx_plane_plan planes[WCX_PLANES_MAX];
	uint64_t (*residuals)[WCX_SYMBOL_COUNT]; /* by plane: how often each residual of the chosen predictor occurs */
	uint64_t (*originals)[WCX_SYMBOL_COUNT]; /* by plane: the same for the bytes as they are */
};

/* Part of a tensor that the predictors are tried on: whole rows where they look at the row above. */
struct wcx_sample {
	uint64_t offset; /* in the original file */
	struct wcx_tile_shape shape;
};

enum { WCX_SAMPLES_MAX = 4 };

/* How the predictors did on the samples: counts of residuals by plane and predictor. */
struct wcx_predictor_trial {
	uint64_t counts[WCX_PLANES_MAX][WCX_PREDICTOR_COUNT][WCX_SYMBOL_COUNT];
};

/*
 * wcx_tensor_plan_init - start the plan of one segment of a file
 *
 * tensor is NULL for the header, whose bytes are then given.  Decides matrix_cols and nothing else.
 */
void wcx_tensor_plan_init(struct wcx_tensor_plan *plan, uint64_t offset, uint64_t bytes, const struct wcx_tensor *tensor);

/* wcx_tensor_plan_samples - where to try the predictors; returns how many places (at least one) */
unsigned wcx_tensor_plan_samples(const struct wcx_tensor_plan *plan, struct wcx_sample samples[WCX_SAMPLES_MAX]);

/* wcx_trial_add - try every predictor on a sample; src holds its bytes */
void wcx_trial_add(struct wcx_predictor_trial *trial, const struct wcx_sample *sample, const uint8_t *src,
		   struct wcx_encode_scratch *scratch);

/*
 * wcx_tensor_plan_choose - choose predictors and tiles
 *
 * Every tile is a contiguous range of bytes.  Allocates the counts; returns WCX_OK or WCX_NO_MEMORY.
 */
enum wcx_result wcx_tensor_plan_choose(struct wcx_tensor_plan *plan, const struct wcx_predictor_trial *trial);

/* The plan's tile number tile (from 0 within the segment): its shape, and its offset in the file. */
void wcx_tensor_plan_tile(const struct wcx_tensor_plan *plan, uint64_t tile, struct wcx_tile_shape *shape_ret,
			  uint64_t *offset_ret);

/* wcx_tensor_plan_count - add one tile's bytes to the statistics given, which are laid out as residuals and originals are */
void wcx_tensor_plan_count(const struct wcx_tensor_plan *plan, const struct wcx_tile_shape *shape, const uint8_t *src,
			   struct wcx_encode_scratch *scratch, uint64_t (*residuals)[WCX_SYMBOL_COUNT],
			   uint64_t (*originals)[WCX_SYMBOL_COUNT]);

/* wcx_tensor_plan_finish - once all tiles are counted: build the tables, drop those that do not pay, free the counts */
void wcx_tensor_plan_finish(struct wcx_tensor_plan *plan);

/* wcx_tensor_plan_free - free what choose allocated; the plan itself is the caller's */
void wcx_tensor_plan_free(struct wcx_tensor_plan *plan);

#endif
