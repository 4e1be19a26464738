/* SPDX-License-Identifier: MIT */
/* What the steps of a tensor plan share: the study of its samples, and sizes that follow from the plan. */
#ifndef WCX_PLAN_STEPS_H
#define WCX_PLAN_STEPS_H

#include <limits.h>

#include "codec/element.h"
#include "fs/pack/tensor_plan.h"

enum {
	/*
	 * A small read should decode little more than it asks for, and a GPU needs many tiles at once, each of which takes
	 * it a while: 512 steps where a symbol is a pair of bytes or one element of two bytes.
	 */
	WCX_PLAN_NARROW_TILE_BYTES = 32 << 10, /* for elements of one or two bytes */
	WCX_PLAN_WIDE_TILE_BYTES = 64 << 10,
	WCX_PLAN_POOL_RUN = 128, /* small tensors are short */
};

static inline uint64_t wcx_plan_elems(const struct wcx_tensor_plan *plan)
{
	return plan->segment.bytes / plan->segment.recipe.elem_bytes;
}

static inline uint32_t wcx_plan_elem_bits(const struct wcx_tensor_plan *plan)
{
	return CHAR_BIT * plan->segment.recipe.elem_bytes;
}

/* The most elements of a tile. */
static inline uint32_t wcx_plan_tile_elems(const struct wcx_tensor_plan *plan)
{
	const uint32_t elem_bytes = plan->segment.recipe.elem_bytes;

	return (elem_bytes <= 2 ? WCX_PLAN_NARROW_TILE_BYTES : WCX_PLAN_WIDE_TILE_BYTES) / elem_bytes;
}

/* Whether tiles can be whole rows. */
static inline bool wcx_plan_has_rows(const struct wcx_tensor_plan *plan)
{
	return plan->matrix_cols < wcx_plan_elems(plan) && plan->matrix_cols <= wcx_plan_tile_elems(plan);
}

static inline bool wcx_plan_is_float(const struct wcx_tensor_plan *plan)
{
	return plan->kind != WCX_KIND_BYTES && plan->kind != WCX_KIND_INTEGER;
}

/* Whether the symbols of the draft are the bytes of the elements, which then need not be counted too. */
static inline bool wcx_plan_symbols_are_bytes(const struct wcx_tensor_plan *plan)
{
	return plan->segment.recipe.elem_bytes == 1 && plan->segment.recipe.predictor == WCX_PREDICT_NONE &&
	       !wcx_tensor_plan_has_difference(plan);
}

static inline void wcx_plan_add_all(uint64_t *to, const uint64_t *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		to[i] += from[i];
}

/* The number of a field's first table among those of the plan, and among its counts. */
static inline size_t wcx_plan_first_table(const struct wcx_tensor_plan *plan, uint32_t field)
{
	return plan->fields[field].tables ? (size_t)(plan->fields[field].tables - plan->tables) : 0;
}

/* wcx_plan_pairs_bits - the bits that halves take in pairs, coded with the table for pairs that this one gives */
double wcx_plan_pairs_bits(const struct wcx_freq_table *table, const uint64_t counts[WCX_SYMBOL_COUNT]);

/* Cuts the tensor into tiles of so many consecutive elements. */
void wcx_plan_flat_tiles(struct wcx_tensor_plan *plan, uint32_t tile_elems);

/* wcx_tensor_plan_choose with up to most_tables for a field */
enum wcx_result wcx_plan_choose_with(struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned sample_count,
				     uint32_t most_tables);

/* Sets the length of a run, which the recipe has only if a field has tables to choose from. */
void wcx_plan_set_run(struct wcx_tensor_plan *plan, uint32_t run);

/* The samples of a tensor as they are coded, rotated and predicted, with the buffers for choosing. */
struct wcx_study {
	struct wcx_tensor_plan *plan;
	const struct wcx_sample *samples;
	unsigned sample_count;
	const struct wcx_element_ops *ops;
	uint8_t *elements[2];   /* of all samples, one after the other: rotated, and as residuals */
	const uint8_t *current; /* one of these */
	size_t elems;
	double scale; /* elements of the tensor for each one here */
	uint16_t *values;
	uint8_t *symbols;
	uint64_t *histogram; /* of 2^16 values */
	struct wcx_run_counts *runs;
};

/* wcx_study_open - allocate; false if there is no memory.  close is needed in either case. */
bool wcx_study_open(struct wcx_study *study, struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned count);
void wcx_study_close(struct wcx_study *study);

/* wcx_study_predict - look at every stride-th sample under a predictor from now on */
void wcx_study_predict(struct wcx_study *study, enum wcx_predictor predictor, unsigned stride);

/* wcx_study_may_predict - whether LEFT or UP may be tried: in one tensor without a transform, UP only where rows are seen */
bool wcx_study_may_predict(const struct wcx_study *study, enum wcx_predictor predictor);

/* wcx_study_histogram - count the values of width bits, up to 16, from shift on */
void wcx_study_histogram(struct wcx_study *study, uint32_t shift, uint32_t width);

/* wcx_study_entropy - the order-0 entropy of these bits, for all elements; leaves their histogram */
double wcx_study_entropy(struct wcx_study *study, uint32_t shift, uint32_t width);

#endif
