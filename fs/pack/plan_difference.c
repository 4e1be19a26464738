/* SPDX-License-Identifier: MIT */
/*
 * Plans a tensor as differences from a base: fields of the residuals, contexts, and whether that takes fewer bits than the
 * tensor alone, all by what it costs on the samples.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/rans.h"
#include "fs/pack/context_choice.h"
#include "fs/pack/plan_steps.h"

enum {
	TRIAL_ELEMS = 16384, /* elements that the cuts are compared on */
	TRIAL_PARTS = 16,    /* consecutive ones */
	TRIAL_BINS = 4,
	TABLE_SYMBOL_BITS = 10, /* of a written table, about */
	COUNT_ELEMS = 4096,     /* counted at a time */
};

/* A difference has to save this share of the bits: it costs decoding the base. */
static const double DIFFERENCE_MIN_GAIN = 0.01;
/* One more coded field has to save this share over fewer: it costs decoding time. */
static const double FIELD_MIN_GAIN = 0.005;
/* Tables by context have to save this share over a single one: they cost decoding time, and of few samples always save some.
 */
static const double CONTEXTS_MIN_GAIN = 0.005;
/* Low bits whose entropy is more than this share of their number count as random. */
static const double RANDOM_MIN_SHARE = 0.99;

/* The residuals of the samples, and what they are classified by. */
struct residual_study {
	const struct wcx_tensor_plan *plan;
	const struct wcx_element_ops *ops;
	enum wcx_difference difference;
	uint8_t *residuals, *keys; /* of the elements */
	size_t elems;
	uint16_t *values; /* room for a field of each element */
	double scale;     /* elements of the tensor for each one here */
	struct wcx_bin_counts counts[WCX_FIELDS_MAX];
	uint64_t misfits[WCX_FIELDS_MAX];
};

/* How elements are cut, with the bits that this takes for the whole tensor. */
struct cut {
	struct wcx_field fields[WCX_FIELDS_MAX];
	uint32_t field_count, coded;
	double bits;
	struct wcx_context_choice contexts;
};

/* --- counting --- */

/* The counts of a field of the residuals [first, first + count), by the bin of the base's element. */
static void count_field(struct residual_study *study, const struct wcx_field *field, uint32_t shift, size_t first,
			size_t count, const struct wcx_key_bins *bins, struct wcx_bin_counts *ret, uint64_t *misfits)
{
	const uint8_t *residuals = study->residuals + first * study->plan->segment.recipe.elem_bytes;
	const uint8_t *keys = study->keys + first;

	study->ops->get16(residuals, count, shift, field->width, study->values);
	for (size_t i = 0; i < count; i++) {
		const uint32_t value = study->values[i];

		if (value < WCX_SYMBOL_COUNT)
			ret->counts[bins->of_key[keys[i]]][value]++;
		else
			++*misfits;
	}
}

/* Counts all fields that may be coded, of the whole samples or of parts that are spread over them. */
static size_t count_fields(struct residual_study *study, const struct cut *cut, const struct wcx_key_bins *bins,
			   bool is_trial)
{
	const size_t parts = is_trial && study->elems > TRIAL_ELEMS ? TRIAL_PARTS : 1;
	const size_t part = parts > 1 ? TRIAL_ELEMS / TRIAL_PARTS : study->elems;
	uint32_t shift = 0;

	memset(study->counts, 0, cut->field_count * sizeof *study->counts);
	memset(study->misfits, 0, sizeof study->misfits);
	for (uint32_t f = 0; f < cut->field_count; shift += cut->fields[f++].width)
		for (size_t p = 0; p < parts && cut->fields[f].table_count; p++)
			count_field(study, &cut->fields[f], shift, parts > 1 ? (study->elems - part) * p / (parts - 1) : 0,
				    part, bins, &study->counts[f], &study->misfits[f]);
	return parts * part;
}

/* --- fields --- */

/* Cuts elements below a top field of this width into bytes, of which the lowest may have less. */
static void cut_below(uint32_t elem_bits, uint32_t top, struct cut *ret)
{
	uint32_t left = elem_bits - top;

	*ret = (struct cut){ .field_count = 0 };
	if (left % CHAR_BIT)
		ret->fields[ret->field_count++] =
			(struct wcx_field){ .width = (uint8_t)(left % CHAR_BIT), .table_count = 1 };
	for (left -= left % CHAR_BIT; left; left -= CHAR_BIT)
		ret->fields[ret->field_count++] = (struct wcx_field){ .width = CHAR_BIT, .table_count = 1 };
	ret->fields[ret->field_count++] = (struct wcx_field){ .width = (uint8_t)top, .table_count = 1 };
	ret->coded = ret->field_count;
}

/* What a field takes for the whole tensor, in bits. */
struct field_weight {
	double symbols, tables;
};

/* Weighs the symbols of a field with a table for each class; scale is elements of the tensor for each one counted. */
static struct field_weight weigh_classes(const struct wcx_bin_counts *counts, uint32_t class_count, double scale)
{
	struct field_weight ret = { 0 };

	for (uint32_t c = 0; c < class_count; c++) {
		uint32_t used;

		ret.symbols += wcx_symbols_bits(counts->counts[c], &used) * scale;
		ret.tables += TABLE_SYMBOL_BITS * used;
	}
	return ret;
}

/* The bits of a field in all; it becomes raw if that is better, or if it is a low one and random. */
static double finish_field(const struct residual_study *study, struct wcx_field *field, const struct field_weight *weight,
			   double misfits, bool is_top)
{
	const double raw = (double)wcx_plan_elems(study->plan) * field->width;
	const double tiles = (double)study->plan->segment.tile_count;
	/* A tile where the field has one value has no states for it. */
	const double states =
		(WCX_RANS_STATES_BYTES - WCX_CARRIED_BYTES) * CHAR_BIT * fmin(tiles, weight->symbols + misfits);
	const double bits = weight->symbols + weight->tables + WCX_EXCEPTION_BITS * misfits + states;

	if (bits < raw * (is_top ? 1 : RANDOM_MIN_SHARE))
		return bits;
	field->table_count = 0;
	field->by_context = false;
	return raw;
}

/* Weighs a cut on part of the samples, and finds the fields that are not worth coding. */
static void try_cut(struct residual_study *study, const struct wcx_key_bins *bins, struct cut *cut)
{
	const size_t counted = count_fields(study, cut, bins, true);
	const double scale = (double)wcx_plan_elems(study->plan) / (double)counted;

	cut->bits = 0;
	cut->coded = 0;
	for (uint32_t f = 0; f < cut->field_count; f++) {
		const struct field_weight weight = weigh_classes(&study->counts[f], bins->count, scale);

		cut->bits += finish_field(study, &cut->fields[f], &weight, scale * (double)study->misfits[f],
					  f + 1 == cut->field_count);
		cut->coded += cut->fields[f].table_count > 0;
	}
}

/*
 * Chooses the cut.  The widest top field has a symbol for the 256 lowest values, and exceptions for the others; with fields
 * below it, the symbols reach further.
 */
static void choose_cut(struct residual_study *study, const struct wcx_key_bins *bins, struct cut *best)
{
	static const uint8_t tops[] = { 16, 14, 12, 10, 8 };
	const uint32_t elem_bits = wcx_plan_elem_bits(study->plan);

	best->bits = INFINITY;
	for (size_t i = 0; i < WCX_ARRAY_COUNT(tops); i++) {
		struct cut cut;

		if (tops[i] > elem_bits)
			continue;
		cut_below(elem_bits, tops[i], &cut);
		try_cut(study, bins, &cut);
		if (cut.bits < best->bits * (cut.coded > best->coded ? 1 - FIELD_MIN_GAIN : 1))
			*best = cut;
	}
}

/* --- contexts --- */

/* Adds up the bins of each context in the place of the context's number. */
static void join_bins(struct wcx_bin_counts *counts, const struct wcx_context_choice *contexts, uint32_t bin_count)
{
	for (uint32_t c = 0; c < contexts->count; c++) {
		const uint32_t end = c + 1 < contexts->count ? contexts->first[c + 1] : bin_count;

		if (contexts->first[c] != c)
			memcpy(counts->counts[c], counts->counts[contexts->first[c]], sizeof counts->counts[c]);
		for (uint32_t bin = contexts->first[c] + 1u; bin < end; bin++)
			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				counts->counts[c][s] += counts->counts[bin][s];
	}
}

/* Weighs the coded field f with a table for each context, or with one for all. */
static double weigh_contexts(struct residual_study *study, struct cut *cut, uint32_t f, struct wcx_bin_counts *counts,
			     uint32_t bin_count)
{
	static const struct wcx_context_choice one = { .count = 1 };
	struct wcx_field *field = &cut->fields[f];
	struct field_weight many, all;

	join_bins(counts, &cut->contexts, bin_count);
	many = weigh_classes(counts, cut->contexts.count, study->scale);
	join_bins(counts, &one, cut->contexts.count);
	all = weigh_classes(counts, 1, study->scale);
	field->by_context = many.symbols + many.tables < (all.symbols + all.tables) * (1 - CONTEXTS_MIN_GAIN);
	field->table_count = field->by_context ? (uint8_t)cut->contexts.count : 1;
	return finish_field(study, field, field->by_context ? &many : &all, study->scale * (double)study->misfits[f],
			    f + 1 == cut->field_count);
}

/* Chooses the contexts, and for each coded field whether it has a table for each; weighs the cut with them. */
static void choose_contexts(struct residual_study *study, const struct wcx_key_bins *bins, struct cut *cut)
{
	struct wcx_bin_counts *counts = study->counts;
	uint32_t coded = 0;

	count_fields(study, cut, bins, false);
	for (uint32_t f = 0; f < cut->field_count; f++)
		if (cut->fields[f].table_count && coded++ != f)
			counts[coded - 1] = counts[f];
	cut->contexts = (struct wcx_context_choice){ .count = 1 };
	if (coded)
		wcx_contexts_choose(counts, coded, bins->count, TABLE_SYMBOL_BITS / study->scale,
				    WCX_MIN(WCX_CONTEXTS_MAX, WCX_RECIPE_TABLES_MAX / coded), &cut->contexts);
	cut->bits = 0;
	for (uint32_t f = 0; f < cut->field_count; f++)
		if (cut->fields[f].table_count)
			cut->bits += weigh_contexts(study, cut, f, counts++, bins->count);
		else
			cut->bits += (double)wcx_plan_elems(study->plan) * cut->fields[f].width;
}

/* --- the whole plan --- */

static bool study_residuals(struct residual_study *study, const struct wcx_sample *samples, unsigned sample_count,
			    const uint8_t *base)
{
	const uint32_t elem_bytes = study->plan->segment.recipe.elem_bytes;
	size_t used = 0;

	for (unsigned i = 0; i < sample_count; i++)
		study->elems += (size_t)samples[i].dims.rows * samples[i].dims.cols;
	study->residuals = malloc(study->elems * elem_bytes);
	study->keys = malloc(study->elems);
	study->values = malloc(study->elems * sizeof *study->values);
	if (!study->residuals || !study->keys || !study->values)
		return false;
	for (unsigned i = 0; i < sample_count; i++) {
		const size_t elems = (size_t)samples[i].dims.rows * samples[i].dims.cols;

		wcx_difference_residuals(study->difference, elem_bytes, samples[i].src, base + used * elem_bytes, elems,
					 study->residuals + used * elem_bytes);
		used += elems;
	}
	wcx_difference_keys(study->difference, elem_bytes, base, study->elems, study->keys);
	study->scale = (double)wcx_plan_elems(study->plan) / (double)study->elems;
	return true;
}

/* Makes the cut the recipe of the plan. */
static void use_cut(struct wcx_tensor_plan *plan, enum wcx_difference difference, const struct wcx_key_bins *bins,
		    const struct cut *cut)
{
	struct wcx_recipe *recipe = &plan->segment.recipe;
	const uint32_t most = wcx_plan_tile_elems(plan);
	struct wcx_freq_table *tables = plan->tables;
	bool has_contexts = false;

	recipe->transform = WCX_TRANSFORM_NONE;
	recipe->predictor = WCX_PREDICT_NONE;
	recipe->run_elems = 0;
	recipe->difference = (uint8_t)difference;
	recipe->field_count = (uint8_t)cut->field_count;
	memcpy(plan->fields, cut->fields, sizeof plan->fields);
	for (uint32_t f = 0; f < cut->field_count; f++) {
		plan->fields[f].tables = plan->fields[f].table_count ? tables : NULL;
		tables += plan->fields[f].table_count;
		has_contexts |= plan->fields[f].by_context;
	}
	recipe->context_count = has_contexts ? (uint8_t)cut->contexts.count : 0;
	for (uint32_t c = 1; c < recipe->context_count; c++)
		recipe->thresholds[c - 1] = bins->first[cut->contexts.first[c]];
	plan->draft_bits = cut->bits;
	/* A tile needs one tile of the base where that has tiles of our sizes. */
	wcx_plan_flat_tiles(plan, plan->base.tile_elems > most / 2 && plan->base.tile_elems <= most ? plan->base.tile_elems
												    : most);
}

enum wcx_result wcx_tensor_plan_choose_base(struct wcx_tensor_plan *plan, const struct wcx_sample *samples,
					    unsigned sample_count, const uint8_t *base)
{
	struct residual_study *study = calloc(1, sizeof *study);
	enum wcx_result result = WCX_NO_MEMORY;

	if (!study)
		return WCX_NO_MEMORY;
	study->plan = plan;
	study->ops = wcx_element_ops(plan->segment.recipe.elem_bytes);
	study->difference = wcx_plan_is_float(plan) ? WCX_DIFFERENCE_FLOAT : WCX_DIFFERENCE_INTEGER;
	if (study_residuals(study, samples, sample_count, base)) {
		uint32_t key_counts[WCX_CONTEXT_KEYS] = { 0 };
		struct wcx_key_bins bins;
		struct cut cut;

		for (size_t i = 0; i < study->elems; i++)
			key_counts[study->keys[i]]++;
		wcx_key_bins_make(key_counts, TRIAL_BINS, &bins);
		choose_cut(study, &bins, &cut);
		wcx_key_bins_make(key_counts, WCX_BINS_MAX, &bins);
		choose_contexts(study, &bins, &cut);
		if (cut.bits < plan->draft_bits * (1 - DIFFERENCE_MIN_GAIN))
			use_cut(plan, study->difference, &bins, &cut);
		result = WCX_OK;
	}
	free(study->residuals);
	free(study->keys);
	free(study->values);
	free(study);
	return result;
}

/* --- counting tiles --- */

/* Counts of a part of a tile: by context, symbols and at the end misfits. */
struct context_counts {
	uint32_t counts[WCX_CONTEXTS_MAX][WCX_SYMBOL_COUNT + 1];
};

static void count_values(const struct wcx_field *field, const uint16_t *values, const uint8_t *contexts, size_t count,
			 struct context_counts *ret)
{
	for (size_t i = 0; i < count; i++) {
		const uint32_t context = field->by_context ? contexts[i] : 0;

		ret->counts[context][WCX_MIN(values[i], WCX_SYMBOL_COUNT)]++;
	}
}

void wcx_plan_count_difference(const struct wcx_tensor_plan *plan, size_t elems, const uint8_t *src, const uint8_t *base,
			       struct wcx_plan_counts *counts)
{
	const struct wcx_recipe *recipe = &plan->segment.recipe;
	const struct wcx_element_ops *ops = wcx_element_ops(recipe->elem_bytes);
	uint64_t residuals[COUNT_ELEMS];
	uint16_t values[COUNT_ELEMS];
	uint8_t contexts[COUNT_ELEMS];

	for (size_t part; elems; elems -= part) {
		uint32_t shift = 0;

		part = WCX_MIN(elems, COUNT_ELEMS);
		wcx_difference_residuals((enum wcx_difference)recipe->difference, recipe->elem_bytes, src, base, part,
					 residuals);
		wcx_difference_contexts(recipe, base, part, contexts);
		for (uint32_t f = 0; f < recipe->field_count; shift += plan->fields[f++].width) {
			uint64_t(*symbols)[WCX_SYMBOL_COUNT] = counts->symbols + wcx_plan_first_table(plan, f);
			struct context_counts seen = { 0 };

			if (!plan->fields[f].table_count)
				continue;
			ops->get16(residuals, part, shift, plan->fields[f].width, values);
			count_values(&plan->fields[f], values, contexts, part, &seen);
			for (uint32_t t = 0; t < plan->fields[f].table_count; t++) {
				for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
					symbols[t][s] += seen.counts[t][s];
				counts->misfits[f] += seen.counts[t][WCX_SYMBOL_COUNT];
			}
		}
		src += part * recipe->elem_bytes;
		base += part * recipe->elem_bytes;
	}
}
