/* SPDX-License-Identifier: MIT */
/* Before the first step of a tensor plan: whether integers of several bytes are better coded byte by byte. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec/arith.h"
#include "codec/freq_table.h"
#include "codec/rans.h"
#include "fs/pack/plan_steps.h"

enum {
	TABLE_SYMBOL_BITS = 8, /* of a written table, about */
	ZSTD_TRIAL_LEVEL = 1,
};

/* The bits of the bytes in the histogram as a coded field of the whole tensor, or as a raw one if that is less. */
static double bytes_bits(const struct wcx_study *study)
{
	const struct wcx_tensor_plan *plan = study->plan;
	const double tile_bytes = (double)wcx_plan_tile_elems(plan) * plan->segment.recipe.elem_bytes;
	double bits = wcx_counts_entropy(study->histogram) * study->scale;

	if (bits == 0)
		return 0; /* a constant */
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		bits += TABLE_SYMBOL_BITS * (study->histogram[s] > 0);
	bits += CHAR_BIT * WCX_RANS_STATES_BYTES * ceil((double)plan->segment.bytes / tile_bytes);
	return fmin(bits, CHAR_BIT * (double)wcx_plan_elems(plan));
}

/* The bits of the elements if each of their bytes is a field, under the best predictor. */
static double view_bits(struct wcx_study *study)
{
	static const enum wcx_predictor predictors[] = { WCX_PREDICT_NONE, WCX_PREDICT_LEFT, WCX_PREDICT_UP };
	double least = INFINITY;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(predictors); i++) {
		double bits = 0;

		if (!wcx_study_may_predict(study, predictors[i]))
			continue;
		wcx_study_predict(study, predictors[i], 1);
		for (uint32_t shift = 0; shift < wcx_plan_elem_bits(study->plan); shift += CHAR_BIT) {
			wcx_study_histogram(study, shift, CHAR_BIT);
			bits += bytes_bits(study);
		}
		least = fmin(least, bits);
	}
	return least;
}

/* The bits of the tensor if all of it were like the samples as Zstandard frames.  Returns false if there is no memory. */
static bool weigh_zstd(const struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned sample_count,
		       double *bits_ret)
{
	const size_t capacity = ZSTD_compressBound(WCX_SAMPLES_MAX_BYTES);
	uint8_t *frame = malloc(capacity);
	ZSTD_CCtx *zstd = ZSTD_createCCtx();
	bool has_memory = frame && zstd;
	double plain = 0, frames = 0;

	for (unsigned i = 0; i < sample_count && has_memory; i++) {
		const size_t bytes = wcx_tile_dims_bytes(&samples[i].dims);
		const size_t packed = ZSTD_compressCCtx(zstd, frame, capacity, samples[i].src, bytes, ZSTD_TRIAL_LEVEL);

		has_memory = !ZSTD_isError(packed);
		plain += (double)bytes;
		frames += (double)packed;
	}
	ZSTD_freeCCtx(zstd);
	free(frame);
	*bits_ret = CHAR_BIT * (double)plan->segment.bytes * frames / plain;
	return has_memory;
}

/* Makes bytes the elements, and whole rows of them the samples. */
static void view_bytes(struct wcx_tensor_plan *plan, struct wcx_sample *samples, unsigned sample_count)
{
	plan->segment.recipe.elem_bytes = 1;
	plan->kind = WCX_KIND_BYTES;
	plan->matrix_cols = plan->byte_cols;
	for (unsigned i = 0; i < sample_count; i++) {
		const size_t bytes = wcx_tile_dims_bytes(&samples[i].dims);
		const bool has_rows = wcx_plan_has_rows(plan) && bytes >= plan->byte_cols;
		const size_t cols = has_rows ? plan->byte_cols : bytes;

		samples[i].dims = (struct wcx_tile_dims){ (uint32_t)(bytes / cols), (uint32_t)cols, 1 };
	}
}

/* Weighs a view.  Returns false if there is no memory. */
static bool weigh_view(struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned sample_count,
		       double *bits_ret)
{
	struct wcx_study study;
	const bool is_open = wcx_study_open(&study, plan, samples, sample_count);

	if (is_open)
		*bits_ret = view_bits(&study);
	wcx_study_close(&study);
	return is_open;
}

/* Bytes that are alike in all places of a word, as those of packed INT4, share one table and one set of states. */
enum wcx_result wcx_tensor_plan_choose_view(struct wcx_tensor_plan *plan, struct wcx_sample *samples, unsigned sample_count)
{
	struct wcx_tensor_plan as_bytes = *plan;
	struct wcx_sample byte_samples[WCX_SAMPLES_MAX];
	double words, bytes, frames;

	if (plan->kind != WCX_KIND_INTEGER || plan->segment.recipe.elem_bytes == 1)
		return WCX_OK;
	memcpy(byte_samples, samples, sample_count * sizeof *samples);
	view_bytes(&as_bytes, byte_samples, sample_count);
	if (!weigh_view(plan, samples, sample_count, &words) || !weigh_view(&as_bytes, byte_samples, sample_count, &bytes))
		return WCX_NO_MEMORY;
	if (bytes >= words)
		return WCX_OK;
	if (!weigh_zstd(plan, samples, sample_count, &frames))
		return WCX_NO_MEMORY;
	as_bytes.tries_zstd = frames < bytes;
	*plan = as_bytes;
	memcpy(samples, byte_samples, sample_count * sizeof *samples);
	return WCX_OK;
}
