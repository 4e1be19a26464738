/* SPDX-License-Identifier: MIT */
/* First step of a tensor plan: statistics of its samples under a predictor. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fs/pack/plan_steps.h"
#include "fs/pack/run_clusters.h"

void wcx_study_close(struct wcx_study *study)
{
	free(study->elements[0]);
	free(study->elements[1]);
	free(study->values);
	free(study->symbols);
	free(study->histogram);
	free(study->runs);
}

bool wcx_study_open(struct wcx_study *study, struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned count)
{
	const uint32_t elem_bytes = plan->segment.recipe.elem_bytes;

	*study = (struct wcx_study){
		.plan = plan, .samples = samples, .sample_count = count, .ops = wcx_element_ops(elem_bytes)
	};
	for (unsigned i = 0; i < count; i++)
		study->elems += (size_t)samples[i].dims.rows * samples[i].dims.cols;
	for (int i = 0; i < 2; i++)
		study->elements[i] = malloc(study->elems * elem_bytes);
	study->values = malloc(study->elems * sizeof *study->values);
	study->symbols = malloc(study->elems);
	study->histogram = malloc((1u << WCX_CODED_MAX_WIDTH) * sizeof *study->histogram);
	study->runs = malloc(sizeof *study->runs);
	return study->elements[0] && study->elements[1] && study->values && study->symbols && study->histogram &&
	       study->runs;
}

void wcx_study_predict(struct wcx_study *study, enum wcx_predictor predictor, unsigned stride)
{
	const struct wcx_recipe *recipe = &study->plan->segment.recipe;
	size_t used = 0;

	study->elems = 0;
	for (unsigned i = 0; i < study->sample_count; i += stride) {
		const struct wcx_tile_dims *dims = &study->samples[i].dims;
		const size_t elems = (size_t)dims->rows * dims->cols;

		if (recipe->transform == WCX_TRANSFORM_ROTATE)
			study->ops->rotate(study->samples[i].src, elems, 0, study->elements[0] + used);
		else
			memcpy(study->elements[0] + used, study->samples[i].src, elems * recipe->elem_bytes);
		if (predictor != WCX_PREDICT_NONE)
			study->ops->make_residuals(predictor, dims->rows, dims->cols, study->elements[0] + used,
						   study->elements[1] + used);
		used += elems * recipe->elem_bytes;
		study->elems += elems;
	}
	study->scale = (double)wcx_plan_elems(study->plan) / (double)study->elems;
	study->current = study->elements[predictor != WCX_PREDICT_NONE];
}

bool wcx_study_may_predict(const struct wcx_study *study, enum wcx_predictor predictor)
{
	return !study->plan->is_pool && study->plan->segment.recipe.transform == WCX_TRANSFORM_NONE &&
	       (predictor != WCX_PREDICT_UP || study->samples[0].dims.rows > 1);
}

void wcx_study_histogram(struct wcx_study *study, uint32_t shift, uint32_t width)
{
	memset(study->histogram, 0, ((size_t)1 << width) * sizeof *study->histogram);
	study->ops->get16(study->current, study->elems, shift, width, study->values);
	for (size_t i = 0; i < study->elems; i++)
		study->histogram[study->values[i]]++;
}

double wcx_study_entropy(struct wcx_study *study, uint32_t shift, uint32_t width)
{
	double bits = 0;

	wcx_study_histogram(study, shift, width);
	for (size_t v = 0; v < (size_t)1 << width; v++)
		if (study->histogram[v])
			bits += (double)study->histogram[v] * log2((double)study->elems / (double)study->histogram[v]);
	return bits;
}
