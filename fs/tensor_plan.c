/* SPDX-License-Identifier: MIT */
/* Chooses tiles, predictors and tables by what they cost on the tensor at hand. */
#include "fs/tensor_plan.h"

#include <stdlib.h>
#include <string.h>

#include "codec/rans.h"

enum {
	MATRIX_MIN_COLS = 64,       /* trailing dimensions are taken as one row until it is this long */
	TILE_MAX_BYTES = 128 << 10, /* a small read should not decode much more than it asks for */
};

/* A predictor has to save this share of the bits: it costs decoding time, and less is within the samples' noise. */
static const double PREDICTOR_MIN_GAIN = 0.005;

static uint64_t elems_of(const struct wcx_tensor_plan *plan)
{
	return plan->segment.bytes / plan->segment.elem_bytes;
}

/* Elements of a tile at most. */
static uint32_t tile_elems(const struct wcx_tensor_plan *plan)
{
	uint32_t most = TILE_MAX_BYTES / plan->segment.elem_bytes;

	return most < WCX_TILE_MAX_ELEMS ? most : WCX_TILE_MAX_ELEMS;
}

/* The length of a row: the elements divided by as many leading dimensions as leave it long enough. */
static uint64_t matrix_cols(const struct wcx_tensor *tensor, uint64_t elems)
{
	uint64_t rows = 1, cols = elems;

	for (size_t i = 0; i + 1 < tensor->dim_count; i++) {
		uint64_t dim = tensor->shape[i];

		if (dim == 0 || cols % dim || cols / dim < MATRIX_MIN_COLS)
			break;
		rows *= dim;
		cols /= dim;
	}
	return elems / rows;
}

void wcx_tensor_plan_init(struct wcx_tensor_plan *plan, uint64_t offset, uint64_t bytes, const struct wcx_tensor *tensor)
{
	memset(plan, 0, sizeof *plan);
	plan->segment.offset = offset;
	plan->segment.bytes = bytes;
	plan->segment.elem_bytes = tensor ? (uint8_t)tensor->elem_bytes : 1;
	/* The library lets no known dtype get here; an unknown one is bytes. */
	if (bytes % plan->segment.elem_bytes)
		plan->segment.elem_bytes = 1;
	plan->matrix_cols = tensor ? matrix_cols(tensor, elems_of(plan)) : elems_of(plan);
}

/* Whether tiles can be runs of whole rows, so that there is a row above. */
static int has_rows(const struct wcx_tensor_plan *plan)
{
	return plan->matrix_cols < elems_of(plan) && plan->matrix_cols <= tile_elems(plan) / 2;
}

unsigned wcx_tensor_plan_samples(const struct wcx_tensor_plan *plan, struct wcx_sample samples[WCX_SAMPLES_MAX])
{
	uint64_t cols = has_rows(plan) ? plan->matrix_cols : 1, rows = elems_of(plan) / cols;
	uint64_t sample_rows = tile_elems(plan) / cols, places;
	unsigned count;

	if (sample_rows > rows)
		sample_rows = rows;
	places = rows / sample_rows;
	count = places < WCX_SAMPLES_MAX ? (unsigned)places : WCX_SAMPLES_MAX;
	for (unsigned i = 0; i < count; i++) {
		uint64_t first_row = places * i / count * sample_rows;

		samples[i] = (struct wcx_sample){
			.offset = plan->segment.offset + first_row * cols * plan->segment.elem_bytes,
			.shape = { .rows = (uint32_t)sample_rows,
				   .cols = (uint32_t)cols,
				   .elem_bytes = plan->segment.elem_bytes },
		};
		if (!has_rows(plan)) /* one flat run, not a column */
			samples[i].shape = (struct wcx_tile_shape){ 1, (uint32_t)sample_rows, plan->segment.elem_bytes };
	}
	return count;
}

/* With one row there is nothing above: UP is NONE, and AVG half of LEFT. */
static int predictor_applies(enum wcx_predictor predictor, uint32_t rows)
{
	return rows > 1 || predictor == WCX_PREDICT_NONE || predictor == WCX_PREDICT_LEFT;
}

void wcx_trial_add(struct wcx_predictor_trial *trial, const struct wcx_sample *sample, const uint8_t *src,
		   struct wcx_encode_scratch *scratch)
{
	for (uint32_t p = 0; p < sample->shape.elem_bytes; p++)
		for (int predictor = 0; predictor < WCX_PREDICTOR_COUNT; predictor++)
			if (predictor_applies((enum wcx_predictor)predictor, sample->shape.rows))
				wcx_tile_count_residuals(&sample->shape, src, p, (enum wcx_predictor)predictor, scratch,
							 trial->counts[p][predictor]);
}

static enum wcx_predictor best_predictor(const struct wcx_tensor_plan *plan, const struct wcx_predictor_trial *trial,
					 uint32_t plane)
{
	double least = wcx_counts_entropy(trial->counts[plane][WCX_PREDICT_NONE]) * (1 - PREDICTOR_MIN_GAIN);
	enum wcx_predictor best = WCX_PREDICT_NONE;

	for (int predictor = WCX_PREDICT_LEFT; predictor < WCX_PREDICTOR_COUNT; predictor++) {
		double bits = wcx_counts_entropy(trial->counts[plane][predictor]);

		if (predictor_applies((enum wcx_predictor)predictor, has_rows(plan) ? 2 : 1) && bits < least) {
			least = bits;
			best = (enum wcx_predictor)predictor;
		}
	}
	return best;
}

static void choose_tiles(struct wcx_tensor_plan *plan, int looks_up)
{
	struct wcx_segment *seg = &plan->segment;

	seg->cols = looks_up ? plan->matrix_cols : elems_of(plan);
	seg->tile_cols = looks_up ? (uint32_t)seg->cols : tile_elems(plan);
	seg->tile_rows = looks_up ? tile_elems(plan) / seg->tile_cols : 1;
	wcx_segment_grid(seg);
}

enum wcx_result wcx_tensor_plan_choose(struct wcx_tensor_plan *plan, const struct wcx_predictor_trial *trial)
{
	uint32_t elem_bytes = plan->segment.elem_bytes;
	int looks_up = 0;

	for (uint32_t p = 0; p < elem_bytes; p++) {
		plan->planes[p].predictor = best_predictor(plan, trial, p);
		looks_up |= plan->planes[p].predictor == WCX_PREDICT_UP || plan->planes[p].predictor == WCX_PREDICT_AVG;
	}
	choose_tiles(plan, looks_up);
	plan->residuals = calloc(elem_bytes, sizeof *plan->residuals);
	plan->originals = calloc(elem_bytes, sizeof *plan->originals);
	return plan->residuals && plan->originals ? WCX_OK : WCX_NO_MEMORY;
}

void wcx_tensor_plan_tile(const struct wcx_tensor_plan *plan, uint64_t tile, struct wcx_tile_shape *shape_ret,
			  uint64_t *offset_ret)
{
	const struct wcx_segment *seg = &plan->segment;
	struct wcx_tile_info place;

	wcx_segment_place(seg, tile, &place);
	*shape_ret = place.shape;
	*offset_ret = seg->offset + (place.row * seg->cols + place.col) * seg->elem_bytes;
}

void wcx_tensor_plan_count(const struct wcx_tensor_plan *plan, const struct wcx_tile_shape *shape, const uint8_t *src,
			   struct wcx_encode_scratch *scratch, uint64_t (*residuals)[WCX_SYMBOL_COUNT],
			   uint64_t (*originals)[WCX_SYMBOL_COUNT])
{
	for (uint32_t p = 0; p < shape->elem_bytes; p++) {
		wcx_tile_count_residuals(shape, src, p, WCX_PREDICT_NONE, scratch, originals[p]);
		if (plan->planes[p].predictor != WCX_PREDICT_NONE)
			wcx_tile_count_residuals(shape, src, p, plan->planes[p].predictor, scratch, residuals[p]);
	}
}

/* Whether coding a plane saves more than its table and the lanes' states in every tile cost. */
static int coding_pays(const struct wcx_tensor_plan *plan, const struct wcx_freq_table *table,
		       const uint64_t counts[WCX_SYMBOL_COUNT])
{
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
	double bytes = wcx_freq_table_cost(table, counts) / 8;

	bytes += (double)wcx_freq_table_write(table, written) + WCX_RANS_STATE_BYTES * (double)plan->segment.tile_count;
	return bytes < (double)elems_of(plan);
}

void wcx_tensor_plan_finish(struct wcx_tensor_plan *plan)
{
	double entropy = 0;

	for (uint32_t p = 0; p < plan->segment.elem_bytes; p++) {
		struct wcx_plane_plan *plane = &plan->planes[p];
		const uint64_t *counts = plane->predictor == WCX_PREDICT_NONE ? plan->originals[p] : plan->residuals[p];

		entropy += wcx_counts_entropy(plan->originals[p]);
		wcx_freq_table_build(counts, &plane->table);
		plane->coding = WCX_PLANE_STORED;
		if (coding_pays(plan, &plane->table, counts)) {
			plane->coding = WCX_PLANE_RANS;
			plan->segment.table_mask |= (uint8_t)(1u << p);
		}
	}
	plan->segment.entropy_millibits = (uint32_t)(entropy * 1000 / (double)elems_of(plan));
	wcx_tensor_plan_free(plan);
}

void wcx_tensor_plan_free(struct wcx_tensor_plan *plan)
{
	free(plan->residuals);
	free(plan->originals);
	plan->residuals = plan->originals = NULL;
}
