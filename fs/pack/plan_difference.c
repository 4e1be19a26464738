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
#include "fs/pack/set_choice.h"

enum {
	TRIAL_ELEMS = 16384, /* elements that the cuts are compared on */
	TRIAL_PARTS = 16,    /* consecutive ones */
	TRIAL_BINS = 4,
	TABLE_SYMBOL_BITS = 10, /* of a written table, about */
	COUNT_ELEMS = 8192,     /* counted at a time */
	TRIAL_RUNS = 64,        /* that sets of tables are tried on first */
	SET_FIELDS_MAX = 2,     /* fields with sets */
	FLAT_RUN = 256,         /* elements of a run where tiles do not divide into rows */
};

/* A difference has to save this share of the bits: it costs decoding the base. */
static const double DIFFERENCE_MIN_GAIN = 0.01;
/* One more coded field has to save this share over fewer: it costs decoding time. */
static const double FIELD_MIN_GAIN = 0.005;
/*
 * What any other cut has to save over a single field with escapes, which CPUs decode in less than half the time of two
 * fields.
 */
static const double ESCAPES_MAX_LOSS = 0.03;
/*
 * Where escapes take less than this share of the bits, no other cut saves that, since it has more tables and states; unless
 * the tensor is so small that fewer symbols in a table save as much.
 */
static const double ESCAPES_FEW_SHARE = 0.06;
/* Tables by context have to save this share over a single one: they cost decoding time, and of few samples always save some.
 */
static const double CONTEXTS_MIN_GAIN = 0.005;
/* Sets of these have to save this share over a single one: their tables take more of the CPU's cache. */
static const double SETS_MIN_GAIN = 0.03;
/* Where runs in a single set deviate by less than this share of all bits, sets save less than that. */
static const double SETS_MIN_DEVIATION = 0.2;
/* Pairs of bytes may take this share more bits than single symbols: they decode in half as many steps. */
static const double PAIRS_MAX_LOSS = 0.005;
/* Loss for which thresholds of two-byte elements are consecutive keys: then a GPU decodes them with their base at once. */
static const double CONSECUTIVE_MAX_LOSS = 0.002;
/* Tables by context have to save this share over pairs. */
static const double CONTEXTS_MIN_GAIN_OVER_PAIRS = 0.01;
/* Low bits whose entropy is more than this share of their number count as random. */
static const double RANDOM_MIN_SHARE = 0.99;

/* The residuals of the samples, and what they are classified by. */
struct residual_study {
	const struct wcx_tensor_plan *plan;
	const struct wcx_element_ops *ops;
	enum wcx_difference difference;
	uint8_t *residuals, *keys; /* of the elements */
	size_t elems;
	uint16_t *values;                             /* room for a field of each element */
	double scale;                                 /* elements of the tensor for each one here */
	struct wcx_set_counts drafts[SET_FIELDS_MAX]; /* of the fields with sets of tables, in order */
	struct wcx_bin_counts counts[WCX_FIELDS_MAX];
	uint64_t misfits[WCX_FIELDS_MAX];
};

/* How elements are cut, with the bits that this takes for the whole tensor. */
struct cut {
	struct wcx_field fields[WCX_FIELDS_MAX];
	uint32_t field_count, coded;
	double bits;
	struct wcx_context_choice contexts;
	uint32_t run_elems; /* 0 without sets of tables */
};

/* --- counting --- */

/* The counts of a field of the residuals [first, first + count), by the bin of the base's element. */
static void count_field(struct residual_study *study, const struct wcx_field *field, uint32_t shift, size_t first,
			size_t count, const struct wcx_key_bins *bins, struct wcx_bin_counts *ret, uint64_t *misfits)
{
	const uint8_t *residuals = study->residuals + first * study->plan->segment.recipe.elem_bytes;
	const uint8_t *keys = study->keys + first;
	const uint32_t symbols = wcx_fitting_symbols(field);

	study->ops->get16(residuals, count, shift, field->width, study->values);
	for (size_t i = 0; i < count; i++) {
		const uint32_t value = study->values[i];
		const bool fits = value < symbols;

		if (fits || field->has_escapes)
			ret->counts[bins->of_key[keys[i]]][WCX_MIN(value, symbols)]++;
		*misfits += !fits;
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

/*
 * Cuts elements below a top field of this width into bytes, of which the lowest may have less.  A field of two bytes alone
 * has escapes.
 */
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
	ret->fields[0].has_escapes = elem_bits == 16 && top == 16;
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
	const double bits = weight->symbols + weight->tables + wcx_field_misfit_bits(field) * misfits + states;

	if (bits < raw * (is_top ? 1 : RANDOM_MIN_SHARE))
		return bits;
	field->table_count = 0;
	field->by_context = field->has_escapes = false;
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

/* The share of the bits that a cut has to save over the best so far. */
static double min_gain(const struct cut *best, const struct cut *cut)
{
	if (best->fields[0].has_escapes)
		return ESCAPES_MAX_LOSS;
	return cut->coded > best->coded ? FIELD_MIN_GAIN : 0;
}

/* Whether a cut that has just been tried is a single field whose escapes cost little. */
static bool has_few_escapes(const struct residual_study *study, const struct cut *cut)
{
	const double elems = (double)WCX_MIN(study->elems, TRIAL_ELEMS);
	const double escapes = (double)study->misfits[0] / elems * (double)wcx_plan_elems(study->plan);

	return study->elems >= TRIAL_ELEMS && cut->fields[0].has_escapes &&
	       WCX_ESCAPE_BITS * escapes < ESCAPES_FEW_SHARE * cut->bits;
}

/*
 * Chooses the cut.  The widest top field has a symbol for the 256 lowest values, and exceptions for the others; with fields
 * below it, the symbols reach further.
 */
static void choose_cut(struct residual_study *study, const struct wcx_key_bins *bins, struct cut *best)
{
	static const uint8_t tops[] = { 16, 14, 12, 10, 8 };
	const uint32_t elem_bits = wcx_plan_elem_bits(study->plan);

	*best = (struct cut){ .bits = INFINITY };
	for (size_t i = 0; i < WCX_ARRAY_COUNT(tops); i++) {
		struct cut cut;

		if (tops[i] > elem_bits)
			continue;
		cut_below(elem_bits, tops[i], &cut);
		try_cut(study, bins, &cut);
		if (has_few_escapes(study, &cut)) {
			*best = cut;
			return;
		}
		if (cut.bits < best->bits * (1 - min_gain(best, &cut)))
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

/*
 * Codes integers of a byte in pairs if that costs little more than `singles`, the bits of one table for all symbols; returns
 * the bits that it then takes.
 */
static double try_pairs(const struct residual_study *study, const uint32_t counts[WCX_SYMBOL_COUNT], double singles,
			struct wcx_field *field)
{
	struct wcx_field pairs = *field;
	struct wcx_freq_table table;
	uint64_t halves[WCX_SYMBOL_COUNT] = { 0 }, misfits = 0;
	double bits;

	pairs.is_pair = true;
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		if (s < wcx_field_symbols_max(&pairs))
			halves[s] = counts[s];
		else
			misfits += counts[s];
	halves[0]++; /* a table needs a symbol */
	wcx_field_build_table(&pairs, halves, &table);
	bits = (wcx_plan_pairs_bits(&table, halves) + wcx_field_misfit_bits(&pairs) * (double)misfits) * study->scale;
	if (bits > singles * (1 + PAIRS_MAX_LOSS))
		return singles;
	*field = pairs;
	return bits;
}

/* Weighs the coded field f with a table for each context, or with one for all. */
static double weigh_contexts(struct residual_study *study, struct cut *cut, uint32_t f, struct wcx_bin_counts *counts,
			     uint32_t bin_count)
{
	static const struct wcx_context_choice one = { .count = 1 };
	const bool may_be_pairs = cut->field_count == 1 && study->plan->segment.recipe.elem_bytes == 1 &&
				  study->difference == WCX_DIFFERENCE_INTEGER;
	struct wcx_field *field = &cut->fields[f];
	struct field_weight many, all;
	double min_gain = CONTEXTS_MIN_GAIN;

	join_bins(counts, &cut->contexts, bin_count);
	many = weigh_classes(counts, cut->contexts.count, study->scale);
	join_bins(counts, &one, cut->contexts.count);
	all = weigh_classes(counts, 1, study->scale);
	if (may_be_pairs)
		all.symbols = try_pairs(study, counts->counts[0], all.symbols, field);
	if (field->is_pair)
		min_gain = CONTEXTS_MIN_GAIN_OVER_PAIRS;
	field->by_context = many.symbols + many.tables < (all.symbols + all.tables) * (1 - min_gain);
	field->table_count = field->by_context ? (uint8_t)cut->contexts.count : 1;
	field->is_pair = field->is_pair && !field->by_context;
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
		wcx_contexts_choose(counts, coded, bins, TABLE_SYMBOL_BITS / study->scale,
				    WCX_MIN(WCX_CONTEXTS_MAX, WCX_RECIPE_TABLES_MAX / coded),
				    study->plan->segment.recipe.elem_bytes == 2 ? CONSECUTIVE_MAX_LOSS : 0, &cut->contexts);
	cut->bits = 0;
	for (uint32_t f = 0; f < cut->field_count; f++)
		if (cut->fields[f].table_count)
			cut->bits += weigh_contexts(study, cut, f, counts++, bins->count);
		else
			cut->bits += (double)wcx_plan_elems(study->plan) * cut->fields[f].width;
}

/* --- sets of tables --- */

/* The most elements of a tile, which needs one tile of the base where that has tiles of our sizes. */
static uint32_t tile_elems(const struct wcx_tensor_plan *plan)
{
	const uint32_t most = wcx_plan_tile_elems(plan), base = plan->base.tile_elems;

	return base > most / 2 && base <= most ? base : most;
}

/* A run is as much of a row as divides tiles evenly, too, and is counted at a time. */
static uint32_t choose_run(const struct wcx_tensor_plan *plan)
{
	uint64_t a = plan->matrix_cols, b = tile_elems(plan);

	while (b) {
		const uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	while (a > COUNT_ELEMS && a % 2 == 0)
		a /= 2;
	return a % WCX_RUN_ELEMS || a > COUNT_ELEMS ? (uint32_t)FLAT_RUN : (uint32_t)a;
}

/* A value with its context as a key; in a field with escapes there are no misfits. */
static uint32_t make_key(const struct wcx_field *field, uint32_t value, uint32_t context)
{
	const uint32_t symbols = wcx_fitting_symbols(field);

	return value < symbols || field->has_escapes ? WCX_MIN(value, symbols) | context << CHAR_BIT : WCX_SET_KEY_MISFIT;
}

/* Keys the values of a field in up to most_runs runs, spread evenly, by their contexts; to study->values. */
static void take_runs(struct residual_study *study, const struct cut *cut, uint32_t f, const struct wcx_key_bins *bins,
		      uint32_t most_runs, struct wcx_keyed_runs *ret)
{
	const uint32_t run = choose_run(study->plan), elem_bytes = study->plan->segment.recipe.elem_bytes;
	const size_t runs = study->elems / run, used = WCX_MIN(runs, most_runs);
	uint8_t context_of[WCX_CONTEXT_KEYS];
	uint32_t shift = 0;

	*ret = (struct wcx_keyed_runs){ study->values, used * run, run, cut->contexts.count };
	for (uint32_t k = 0, context = 0; k < WCX_CONTEXT_KEYS; k++) {
		context += context + 1 < cut->contexts.count && bins->of_key[k] >= cut->contexts.first[context + 1];
		context_of[k] = (uint8_t)context;
	}
	for (uint32_t below = 0; below < f; below++)
		shift += cut->fields[below].width;
	for (size_t r = 0; r < used; r++) {
		const size_t first = r * runs / used * run;
		uint16_t *to = study->values + r * run;

		study->ops->get16(study->residuals + first * elem_bytes, run, shift, cut->fields[f].width, to);
		for (size_t i = 0; i < run; i++) {
			to[i] = (uint16_t)make_key(&cut->fields[f], to[i], context_of[study->keys[first + i]]);
		}
	}
}

/* The bits of the whole tensor's symbols in a field with so many sets; misfits cost nothing. */
static double weigh_sets(const struct residual_study *study, const struct wcx_keyed_runs *runs, uint32_t set_bits,
			 struct wcx_set_counts *counts)
{
	const double elems = (double)wcx_plan_elems(study->plan);
	double symbols = 0, tables = 0;

	wcx_set_counts_make(runs, 1u << set_bits, counts);
	for (uint32_t t = 0; t < runs->context_count << set_bits; t++) {
		uint32_t used;

		symbols += wcx_symbols_bits(counts->counts[t], &used);
		tables += TABLE_SYMBOL_BITS * used;
	}
	return symbols * elems / (double)runs->elems + tables + set_bits * elems / runs->run;
}

/*
 * Gives a field that has tables by context several sets of them, of which each run chooses one, if that takes fewer bits.
 * Up to most_tables of them, whose draft is left in *draft.
 */
static void try_sets(struct residual_study *study, struct cut *cut, uint32_t f, const struct wcx_key_bins *bins,
		     uint32_t most_tables, struct wcx_set_counts *draft)
{
	struct wcx_keyed_runs runs;
	double one;

	take_runs(study, cut, f, bins, TRIAL_RUNS, &runs);
	if (runs.elems < 2 * (size_t)runs.run ||
	    wcx_runs_deviation(&runs) * (double)wcx_plan_elems(study->plan) < SETS_MIN_DEVIATION * cut->bits)
		return;
	take_runs(study, cut, f, bins, WCX_SET_RUNS_MAX, &runs);
	one = weigh_sets(study, &runs, 0, draft);
	for (uint32_t set_bits = 2; set_bits; set_bits--) {
		double bits;

		if (runs.context_count << set_bits > most_tables)
			continue;
		bits = weigh_sets(study, &runs, set_bits, draft);
		if (bits >= one * (1 - SETS_MIN_GAIN))
			continue;
		cut->bits -= one - bits;
		cut->fields[f].set_bits = (uint8_t)set_bits;
		cut->fields[f].table_count = (uint8_t)(runs.context_count << set_bits);
		cut->run_elems = runs.run;
		return;
	}
}

static void choose_sets(struct residual_study *study, const struct wcx_key_bins *bins, struct cut *cut)
{
	uint32_t tables = 0, sets = 0;

	cut->run_elems = 0;
	for (uint32_t f = 0; f < cut->field_count; f++)
		tables += cut->fields[f].table_count;
	for (uint32_t f = 0; f < cut->field_count; f++) {
		tables -= cut->fields[f].table_count;
		if (cut->fields[f].by_context && sets < SET_FIELDS_MAX)
			try_sets(study, cut, f, bins, WCX_RECIPE_TABLES_MAX - tables, &study->drafts[sets]);
		sets += cut->fields[f].set_bits != 0;
		tables += cut->fields[f].table_count;
	}
}

/* Makes the tables of which the runs that are counted choose, with a frequency for each symbol: the samples may lack some.
 */
static void draft_tables(const struct wcx_set_counts *draft, const struct wcx_field *field, struct wcx_freq_table *tables)
{
	const uint32_t symbols = wcx_field_symbols_max(field);

	for (uint32_t t = 0; t < field->table_count; t++) {
		uint64_t counts[WCX_SYMBOL_COUNT] = { 0 };

		for (uint32_t s = 0; s < symbols; s++)
			counts[s] = 64 * (uint64_t)draft->counts[t][s] + 1;
		wcx_field_build_table(field, counts, &tables[t]);
	}
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
static void use_cut(const struct residual_study *study, struct wcx_tensor_plan *plan, const struct wcx_key_bins *bins,
		    const struct cut *cut)
{
	struct wcx_recipe *recipe = &plan->segment.recipe;
	struct wcx_freq_table *tables = plan->tables;
	bool has_contexts = false;
	uint32_t sets = 0;

	recipe->transform = WCX_TRANSFORM_NONE;
	recipe->predictor = WCX_PREDICT_NONE;
	recipe->run_elems = cut->run_elems;
	recipe->difference = (uint8_t)study->difference;
	recipe->field_count = (uint8_t)cut->field_count;
	memcpy(plan->fields, cut->fields, sizeof plan->fields);
	for (uint32_t f = 0; f < cut->field_count; f++) {
		plan->fields[f].tables = plan->fields[f].table_count ? tables : NULL;
		if (plan->fields[f].set_bits)
			draft_tables(&study->drafts[sets++], &plan->fields[f], tables);
		tables += plan->fields[f].table_count;
		has_contexts |= plan->fields[f].by_context;
	}
	recipe->context_count = has_contexts ? (uint8_t)cut->contexts.count : 0;
	for (uint32_t c = 1; c < recipe->context_count; c++)
		recipe->thresholds[c - 1] = bins->first[cut->contexts.first[c]];
	plan->draft_bits = cut->bits;
	wcx_plan_flat_tiles(plan, tile_elems(plan));
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
		choose_sets(study, &bins, &cut);
		if (cut.bits < plan->draft_bits * (1 - DIFFERENCE_MIN_GAIN))
			use_cut(study, plan, &bins, &cut);
		result = WCX_OK;
	}
	free(study->residuals);
	free(study->keys);
	free(study->values);
	free(study);
	return result;
}
