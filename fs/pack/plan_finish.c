/* SPDX-License-Identifier: MIT */
/* Last step of a tensor plan: final tables from the counts of tiles, and raw fields where coding gains nothing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/rans.h"
#include "fs/pack/plan_steps.h"

enum {
	SHARE_MAX_BYTES = 8 << 20, /* larger segments always gain from tables of their own */
};

/* Pairs may take this share more bits than single symbols: they decode in half the time. */
static const double PAIRS_MAX_LOSS = 0.002, PAIRS_MAX_LOSS_FOR_SPEED = 0.01;
/* What an exception takes if the states carry it. */
static const double CARRIED_EXCEPTION_BITS = 12;

static void set_entropy(struct wcx_tensor_plan *plan)
{
	double bits = 0;

	if (wcx_plan_symbols_are_bytes(plan))
		for (uint32_t t = 0; t < plan->fields[0].table_count; t++)
			wcx_plan_add_all(plan->counts->bytes[0], plan->counts->symbols[t], WCX_SYMBOL_COUNT);
	for (uint32_t b = 0; b < plan->segment.recipe.elem_bytes; b++)
		bits += wcx_counts_entropy(plan->counts->bytes[b]);
	plan->segment.entropy_millibits = (uint32_t)(bits * 1000 / (double)wcx_plan_elems(plan));
}

/* --- tables of a field --- */

/*
 * Removes the symbols that are too rare for a slot of a table, which is worth more to the others: their elements become
 * exceptions of `price` bits each.  Returns how many elements that are.
 */
static uint64_t drop_rare(uint64_t counts[WCX_SYMBOL_COUNT], double price)
{
	uint64_t sum = 0, dropped = 0;
	double worth;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		sum += counts[s];
	worth = (double)sum * log2(1 + 1.0 / WCX_PROB_SCALE);
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		if ((double)counts[s] * price >= worth)
			continue;
		dropped += counts[s];
		counts[s] = 0;
	}
	return dropped;
}

/* The bits that symbols take with a table; those without a frequency are exceptions. */
static double singles_bits(const struct wcx_freq_table *table, const uint64_t counts[WCX_SYMBOL_COUNT])
{
	uint64_t kept[WCX_SYMBOL_COUNT], exceptions = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		kept[s] = table->freq[s] ? counts[s] : 0;
		exceptions += counts[s] - kept[s];
	}
	return wcx_freq_table_cost(table, kept) + WCX_EXCEPTION_BITS * (double)exceptions;
}

/* Takes neighbours for independent. */
double wcx_plan_pairs_bits(const struct wcx_freq_table *table, const uint64_t counts[WCX_SYMBOL_COUNT])
{
	struct wcx_freq_table pairs;
	double sum = 0, bits = 0;

	wcx_freq_table_pair(table, &pairs);
	for (uint32_t s = 0; s < WCX_PAIR_SYMBOLS; s++)
		sum += (double)counts[s];
	for (uint32_t p = 0; p < WCX_SYMBOL_COUNT && sum > 0; p++) {
		double occur = (double)counts[p % WCX_PAIR_SYMBOLS] * (double)counts[p / WCX_PAIR_SYMBOLS] / sum / 2;

		bits += occur * (pairs.freq[p] ? WCX_PROB_BITS - log2(pairs.freq[p]) : WCX_EXCEPTION_BITS);
	}
	return bits;
}

static double symbols_bits(const struct wcx_field *field, const struct wcx_freq_table *table,
			   const uint64_t counts[WCX_SYMBOL_COUNT])
{
	return field->is_pair ? wcx_plan_pairs_bits(table, counts) : singles_bits(table, counts);
}

/*
 * Makes tables for the counts of a field; returns the bits that symbols and tables take together.
 *
 * If price, the bits of an exception, is not 0, rare symbols become exceptions, *exceptions_ret of them.  Rare pairs become
 * exceptions in any case.
 */
static double build_tables(const struct wcx_field *field, uint64_t (*counts)[WCX_SYMBOL_COUNT], double price,
			   struct wcx_freq_table *tables, uint64_t *exceptions_ret)
{
	uint64_t all[WCX_SYMBOL_COUNT] = { 0 };
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
	double bits = 0;

	*exceptions_ret = 0;
	for (uint32_t t = 0; t < field->table_count; t++)
		wcx_plan_add_all(all, counts[t], WCX_SYMBOL_COUNT);
	all[0] += wcx_counts_entropy(all) == 0; /* a table needs a symbol even if all values are misfits */
	for (uint32_t t = 0; t < field->table_count; t++) {
		uint64_t kept[WCX_SYMBOL_COUNT], sum = 0;

		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			sum += counts[t][s];
		memcpy(kept, sum ? counts[t] : all, sizeof kept);
		if (price > 0 && !field->is_pair && !field->has_escapes)
			*exceptions_ret += drop_rare(kept, price);
		wcx_field_build_table(field, kept, &tables[t]);
		bits += symbols_bits(field, &tables[t], counts[t]);
		bits += CHAR_BIT * (double)wcx_freq_table_write(&tables[t], written);
	}
	return bits;
}

/* --- elements of a byte: raw low bits and coded high ones --- */

/* The ways to split a byte.  Of two that cost the same, the first is taken. */
static const struct byte_split {
	uint8_t raw; /* low bits */
	bool folds, is_pair;
} byte_splits[] = {
	/* clang-format off */
	{ 0, false, false }, { 1, false, false }, { 2, false, false }, { 3, false, false }, { 4, false, false },
	{ 1, true, false }, { 2, true, false }, { 3, true, false }, { 4, true, false },
	{ 4, false, true }, { 4, true, true },
	/* clang-format on */
};

struct weighed_split {
	const struct byte_split *split;
	struct wcx_field field; /* of the high bits */
	uint64_t counts[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	double weight; /* the bits of all elements, less what pairs may lose */
};

/* The symbol of a byte that has the draft's transform. */
static uint32_t split_symbol(const struct byte_split *split, uint32_t byte)
{
	if (split->folds) {
		byte = (byte << 1 | byte >> 7) & 0xFF;
		byte ^= byte & 1 ? 0xFFu << split->raw & 0xFF : 0;
	}
	return byte >> split->raw;
}

/*
 * The bits that the states could carry but do not where there are no raw bits: they carry only exceptions, if a tile has
 * more than one.
 */
static double uncarried_bits(const struct wcx_tensor_plan *plan, uint64_t exceptions)
{
	double tiles = (double)plan->segment.tile_count, bytes = 3 * (double)exceptions / tiles;

	return CHAR_BIT * tiles * (bytes < 6 ? WCX_CARRIED_BYTES : fmax(0, WCX_CARRIED_BYTES - bytes));
}

static void weigh_split(const struct wcx_tensor_plan *plan, const struct byte_split *split, struct weighed_split *ret)
{
	struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX];
	uint64_t exceptions;

	*ret = (struct weighed_split){
		.split = split,
		.field = {
			.width = (uint8_t)(CHAR_BIT - split->raw),
			.table_count = plan->fields[0].table_count,
			.is_pair = split->is_pair,
		},
	};
	for (uint32_t t = 0; t < ret->field.table_count; t++)
		for (uint32_t byte = 0; byte < WCX_SYMBOL_COUNT; byte++)
			ret->counts[t][split_symbol(split, byte)] += plan->counts->symbols[t][byte];
	ret->weight = build_tables(&ret->field, ret->counts, split->raw ? WCX_EXCEPTION_BITS : CARRIED_EXCEPTION_BITS,
				   tables, &exceptions);
	ret->weight += split->raw ? (double)split->raw * (double)wcx_plan_elems(plan) : uncarried_bits(plan, exceptions);
	if (split->is_pair)
		ret->weight /= 1 + (plan->for_speed ? PAIRS_MAX_LOSS_FOR_SPEED : PAIRS_MAX_LOSS);
}

/* Splits the elements in the way of the least weight. */
static void split_byte(struct wcx_tensor_plan *plan)
{
	struct wcx_recipe *recipe = &plan->segment.recipe;
	const bool may_fold = recipe->transform == WCX_TRANSFORM_NONE && recipe->predictor == WCX_PREDICT_NONE;
	struct weighed_split best = { .weight = INFINITY }, weighed;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(byte_splits); i++) {
		if ((byte_splits[i].folds || byte_splits[i].is_pair) && !may_fold)
			continue;
		weigh_split(plan, &byte_splits[i], &weighed);
		if (weighed.weight < best.weight)
			best = weighed;
	}
	if (!best.split->raw)
		return;
	memcpy(plan->counts->symbols[WCX_FIELD_TABLES_MAX], best.counts, sizeof best.counts);
	plan->fields[0] = (struct wcx_field){ .width = best.split->raw };
	plan->fields[1] = best.field;
	plan->fields[1].tables = plan->tables + WCX_FIELD_TABLES_MAX;
	if (best.split->folds)
		recipe->transform = WCX_TRANSFORM_FOLD;
	recipe->field_count = 2;
}

/* --- fields: raw, with tables of their own, or with shared ones --- */

/* The bits that a field takes in each of these ways, for all elements. */
struct field_weights {
	double raw;
	double own, shared;     /* symbols with new tables, and these; symbols with tables of the library */
	double misfits, states; /* what coding adds: values without a symbol; states and choices of tables */
	struct wcx_freq_table own_tables[WCX_SET_TABLES_MAX];
	const struct wcx_table_set *shared_set; /* NULL if the library has none for this field */
};

/* The bits that the symbols of a field take if each cluster has the best table of a set. */
static double shared_bits(const struct wcx_table_set *set, uint64_t counts[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT])
{
	double bits = 0;

	for (uint32_t t = 0; t < set->field.table_count; t++) {
		double least = INFINITY;

		for (uint32_t other = 0; other < set->field.table_count; other++)
			least = fmin(least, symbols_bits(&set->field, &set->tables[other], counts[t]));
		bits += least;
	}
	return bits;
}

static bool has_same_symbols(const struct wcx_field *a, const struct wcx_field *b)
{
	return a->width == b->width && a->base == b->base && a->is_pair == b->is_pair && a->has_zero == b->has_zero &&
	       a->has_escapes == b->has_escapes && a->table_count == b->table_count;
}

/* Only the highest field may share tables, and only that of a small segment. */
static bool may_share(const struct wcx_tensor_plan *plan, uint32_t number)
{
	return !plan->is_reference && plan->segment.bytes <= SHARE_MAX_BYTES && !plan->fields[number].by_context &&
	       number + 1 == plan->segment.recipe.field_count;
}

/* Only the highest field has exceptions, and they are cheap where the states have nothing else to carry. */
static double exception_price(const struct wcx_tensor_plan *plan, uint32_t number)
{
	if (number + 1 < plan->segment.recipe.field_count)
		return 0;
	return number ? WCX_EXCEPTION_BITS : CARRIED_EXCEPTION_BITS;
}

static void weigh_field(const struct wcx_tensor_plan *plan, uint32_t number, const struct wcx_table_library *library,
			struct field_weights *ret)
{
	const struct wcx_field *field = &plan->fields[number];
	const double elems = (double)wcx_plan_elems(plan);
	uint64_t(*counts)[WCX_SYMBOL_COUNT] = plan->counts->symbols + wcx_plan_first_table(plan, number), exceptions;

	*ret = (struct field_weights){ .raw = field->width * elems, .shared = INFINITY };
	ret->own = build_tables(field, counts, exception_price(plan, number), ret->own_tables, &exceptions);
	for (uint32_t i = 0; i < library->set_count && may_share(plan, number); i++) {
		const struct wcx_table_set *set = &library->sets[i];
		const double bits = has_same_symbols(&set->field, field) ? shared_bits(set, counts) : INFINITY;

		if (bits < ret->shared) {
			ret->shared = bits;
			ret->shared_set = set;
		}
	}
	ret->misfits = wcx_field_misfit_bits(field) * (double)plan->counts->misfits[number];
	ret->states = (WCX_RANS_STATES_BYTES - WCX_CARRIED_BYTES) * (double)plan->segment.tile_count * CHAR_BIT;
	if (wcx_choice_bits(field))
		ret->states += wcx_choice_bits(field) * (elems / plan->segment.recipe.run_elems);
}

/* Ends a field in the cheapest way.  *next_table is the number that a new table gets in the file. */
static void finish_field(struct wcx_tensor_plan *plan, uint32_t number, const struct wcx_table_library *library,
			 uint32_t *next_table, uint32_t *first_table)
{
	struct wcx_field *field = &plan->fields[number];
	struct wcx_freq_table *tables = plan->tables + wcx_plan_first_table(plan, number);
	struct field_weights weights;

	weigh_field(plan, number, library, &weights);
	if (*next_table + field->table_count > WCX_MAX_TABLES)
		weights.own = INFINITY;
	if (fmin(weights.own, weights.shared) + weights.misfits + weights.states >= weights.raw) {
		*field = (struct wcx_field){ .width = field->width };
	} else if (weights.shared < weights.own) {
		memcpy(tables, weights.shared_set->tables, field->table_count * sizeof *tables);
		*first_table = weights.shared_set->first_table;
	} else {
		memcpy(tables, weights.own_tables, field->table_count * sizeof *tables);
		*first_table = *next_table;
		*next_table += field->table_count;
	}
}

/* Joins neighbouring raw fields; the others move up, and with them the numbers of their tables. */
static void join_raw_fields(struct wcx_tensor_plan *plan, uint32_t first_table[WCX_FIELDS_MAX])
{
	struct wcx_recipe *recipe = &plan->segment.recipe;
	uint32_t kept = 0;

	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const struct wcx_field field = plan->fields[f];
		struct wcx_field *last = kept ? &plan->fields[kept - 1] : NULL;

		if (last && !last->table_count && !field.table_count && last->width + field.width <= WCX_FIELD_MAX_WIDTH) {
			last->width = (uint8_t)(last->width + field.width);
			continue;
		}
		first_table[kept] = first_table[f];
		plan->fields[kept++] = field;
	}
	memset(first_table + kept, 0, (WCX_FIELDS_MAX - kept) * sizeof *first_table);
	recipe->field_count = (uint8_t)kept;
	if (recipe->transform == WCX_TRANSFORM_FOLD && kept == 1)
		recipe->transform = WCX_TRANSFORM_NONE; /* raw bits alone */
}

/* Makes counts of a part those of all elements. */
static void scale_counts(const struct wcx_tensor_plan *plan)
{
	const struct wcx_recipe *recipe = &plan->segment.recipe;
	struct wcx_plan_counts *counts = plan->counts;
	const double scale = (double)wcx_plan_elems(plan) / (double)counts->elems;

	if (!counts->elems || counts->elems >= wcx_plan_elems(plan))
		return;
	for (uint32_t f = 0; f < recipe->field_count; f++) {
		/* A value that was not counted must have a symbol below the highest field, which alone has exceptions. */
		const uint64_t least = wcx_tensor_plan_has_difference(plan) && f + 1u < recipe->field_count;
		uint64_t *symbols = counts->symbols[wcx_plan_first_table(plan, f)];

		counts->misfits[f] = (uint64_t)((double)counts->misfits[f] * scale + 0.5);
		for (size_t s = 0; s < (size_t)plan->fields[f].table_count * WCX_SYMBOL_COUNT; s++)
			symbols[s] = (uint64_t)((double)symbols[s] * scale + 0.5) +
				     (s % WCX_SYMBOL_COUNT >> WCX_MIN(plan->fields[f].width, CHAR_BIT) ? 0 : least);
	}
	for (uint32_t b = 0; b < recipe->elem_bytes; b++)
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			counts->bytes[b][s] = (uint64_t)((double)counts->bytes[b][s] * scale + 0.5);
}

/* Contexts that no field has tables for leave the recipe. */
static void drop_contexts(struct wcx_tensor_plan *plan)
{
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++)
		if (plan->fields[f].by_context)
			return;
	plan->segment.recipe.context_count = 0;
	memset(plan->segment.recipe.thresholds, 0, sizeof plan->segment.recipe.thresholds);
}

void wcx_tensor_plan_finish(struct wcx_tensor_plan *plan, const struct wcx_table_library *library,
			    uint32_t first_table[WCX_FIELDS_MAX])
{
	const uint32_t run = plan->segment.recipe.run_elems;
	uint32_t next_table = library->table_count;

	memset(first_table, 0, WCX_FIELDS_MAX * sizeof *first_table);
	scale_counts(plan);
	set_entropy(plan);
	if (plan->segment.recipe.elem_bytes == 1 && !plan->is_reference && !wcx_tensor_plan_has_difference(plan))
		split_byte(plan);
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++)
		if (plan->fields[f].table_count)
			finish_field(plan, f, library, &next_table, &first_table[f]);
	join_raw_fields(plan, first_table);
	wcx_plan_set_run(plan, run);
	drop_contexts(plan);
	free(plan->counts);
	plan->counts = NULL;
}

void wcx_table_library_add(struct wcx_table_library *library, const struct wcx_field *field)
{
	struct wcx_table_set *set = &library->sets[library->next];

	if (field->by_context) { /* contexts differ from tensor to tensor */
		library->table_count += field->table_count;
		return;
	}
	set->field = *field;
	memcpy(set->tables, field->tables, field->table_count * sizeof *field->tables);
	set->field.tables = set->tables;
	set->first_table = library->table_count;
	library->table_count += field->table_count;
	library->next = (library->next + 1) % WCX_ARRAY_COUNT(library->sets);
	library->set_count = WCX_MIN(library->set_count + 1, (uint32_t)WCX_ARRAY_COUNT(library->sets));
}
