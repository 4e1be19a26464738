/* SPDX-License-Identifier: MIT */
/* Chooses how the fields of a tile are coded, and the table for each run. */
#include "codec/tile_choose.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "codec/inline.h"

enum {
	COST_SCALE = 32, /* costs are in units of 1/32 bit */
	COST_EXCEPTION = WCX_EXCEPTION_BITS * COST_SCALE,
	/* As much as the widest field takes raw, and more than all symbols with a frequency in a tile can cost. */
	COST_IMPOSSIBLE = WCX_TILE_MAX_ELEMS * WCX_CODED_MAX_WIDTH * COST_SCALE,
	PIECE_ELEMS = 16384,     /* counted at a time: counts then fit 16 bits and sums of costs 32 */
	FEW_SYMBOLS = 16,        /* that variants count faster than their costs are added up */
	CONSTANT_PROBE = 64,     /* elements that are compared first */
	SUSPECT_BLOCK = 32,      /* elements that are looked at together */
	CHOICE_COST_BITS = 16,   /* of each choice in a word of costs: holds those of SUSPECT_BLOCK elements */
	COST_IS_EXCEPTION = 512, /* the bit of a cost that only an exception's has */
};
static_assert(WCX_PROB_BITS * COST_SCALE < COST_IS_EXCEPTION && (COST_EXCEPTION & COST_IS_EXCEPTION) != 0,
	      "symbols cost less");
static_assert((uint64_t)COST_EXCEPTION * SUSPECT_BLOCK < 1u << CHOICE_COST_BITS, "costs of a block fit");

static int16_t symbol_cost(uint32_t freq)
{
	return (int16_t)((WCX_PROB_BITS - log2(freq)) * COST_SCALE + 0.5);
}

/* Marks the symbols, or pairs, of table t whose elements have to be looked at one by one. */
static void mark_suspects(const struct wcx_field *field, uint32_t t, struct wcx_field_coder *coder)
{
	const struct wcx_freq_table *coded = field->is_pair ? &coder->pairs[t] : &coder->freqs[t];
	const uint32_t set = t / wcx_set_tables(field), first = t % wcx_set_tables(field) * WCX_SYMBOL_COUNT;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		coder->suspect[set][first + s] = coded->freq[s] == 0 || (field->has_escapes && s == WCX_ESCAPE);
}

/* How many tables, or sets of tables, a run of a field chooses from. */
static uint32_t choice_count(const struct wcx_field *field)
{
	return field->by_context ? 1u << field->set_bits : field->table_count;
}

/* Notes for each key, without contexts each symbol, what it costs by each choice; what that cannot code is an exception. */
static void add_choice_costs(const struct wcx_field *field, struct wcx_field_coder *coder)
{
	const uint32_t tables = field->by_context ? wcx_set_tables(field) : 1;

	for (uint32_t key = 0; key < WCX_KEY_COUNT; key++)
		coder->choice_costs[key] = 0;
	for (uint32_t choice = 0; choice < choice_count(field); choice++)
		for (uint32_t key = 0; key < WCX_KEY_COUNT; key++) {
			const uint32_t table = choice * tables + key / WCX_SYMBOL_COUNT, s = key % WCX_SYMBOL_COUNT;
			uint64_t bits = COST_EXCEPTION;

			if (key < tables * WCX_SYMBOL_COUNT && !coder->missing[table][s])
				bits = (uint64_t)coder->cost[table][s];
			coder->choice_costs[key] |= bits << choice * CHOICE_COST_BITS;
		}
}

static const struct wcx_field_coder *field_coder(const struct wcx_field *field, uint32_t number,
						 struct wcx_encode_scratch *scratch)
{
	struct wcx_field_coder *coder = &scratch->coders[number];
	size_t bytes = field->table_count * sizeof *field->tables;

	coder->symbol_count = wcx_field_symbols_max(field);
	if (coder->table_count == field->table_count && coder->set_bits == field->set_bits &&
	    coder->by_context == field->by_context && coder->is_pair == field->is_pair &&
	    coder->has_escapes == field->has_escapes && memcmp(coder->freqs, field->tables, bytes) == 0)
		return coder;
	coder->table_count = field->table_count;
	coder->set_bits = field->set_bits;
	coder->by_context = field->by_context;
	coder->is_pair = field->is_pair;
	coder->has_escapes = field->has_escapes;
	memcpy(coder->freqs, field->tables, bytes);
	memset(coder->suspect, 1, sizeof coder->suspect); /* misfits too */
	for (uint32_t t = 0; t < field->table_count; t++) {
		wcx_rans_encode_table_build(wcx_field_table(field, t, &coder->pairs[field->is_pair ? t : 0]),
					    &coder->encode[t]);
		mark_suspects(field, t, coder);
		coder->cheapest[t] = 0;
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
			uint32_t freq = field->tables[t].freq[s];

			coder->cost[t][s] = freq ? symbol_cost(freq) : 0;
			coder->missing[t][s] = freq == 0 || (field->has_escapes && s == WCX_ESCAPE);
			if (freq > field->tables[t].freq[coder->cheapest[t]])
				coder->cheapest[t] = (uint8_t)s;
		}
	}
	for (uint32_t t = 0; t < field->table_count && field->has_escapes; t++)
		coder->cheapest[t] = WCX_ESCAPE;
	add_choice_costs(field, coder);
	return coder;
}

void wcx_encoding_start(const struct wcx_tile_dims *dims, const uint8_t *src, const uint8_t *base,
			const struct wcx_recipe *recipe, struct wcx_encode_scratch *scratch, struct wcx_encoding *ret)
{
	*ret = (struct wcx_encoding){
		.recipe = recipe,
		.ops = wcx_variant_elements(scratch->variant, recipe->elem_bytes),
		.elems = dims->rows * dims->cols,
		.plain = src,
		.transformed = src,
		.scratch = scratch,
	};
	if (recipe->difference != WCX_DIFFERENCE_NONE) {
		ret->ops->make_differences((enum wcx_difference)recipe->difference, src, base, ret->elems,
					   scratch->elements);
		ret->plain = (const uint8_t *)scratch->elements;
		ret->transformed = scratch->elements;
		if (recipe->context_count)
			ret->ops->context_bytes(recipe, base, ret->elems, scratch->contexts);
	} else if (recipe->transform != WCX_TRANSFORM_NONE) {
		ret->ops->rotate(src, ret->elems, wcx_fold_bits(recipe), scratch->elements);
		ret->transformed = scratch->elements;
	} else if (recipe->predictor != WCX_PREDICT_NONE) {
		ret->ops->make_residuals((enum wcx_predictor)recipe->predictor, dims->rows, dims->cols, src,
					 scratch->elements);
		ret->plain = (const uint8_t *)scratch->elements;
		ret->transformed = scratch->elements;
	}
}

/* Whether all elements have the same value in a field. */
static bool field_is_constant(const struct wcx_encoding *e, uint32_t shift, uint32_t width, uint32_t *value_ret)
{
	uint32_t *values = e->scratch->values, probe = WCX_MIN(e->elems, CONSTANT_PROBE), last = 1;

	e->ops->get32(e->transformed, probe, shift, width, values);
	while (last < probe && values[last] == values[0])
		last++;
	if (last < probe)
		return false;
	*value_ret = values[0];
	e->ops->get32(e->transformed, e->elems, shift, width, values);
	return memcmp(values, values + 1, (e->elems - 1) * sizeof *values) == 0;
}

/* --- runs --- */

struct run {
	uint32_t first, length; /* elements */
	uint32_t misfits;       /* values that no symbol stands for, of a field without contexts */
	bool has_missing;       /* some other element has no frequency, or with contexts no symbol, */
	uint32_t table;         /* in the best table, or set, for the run; */
	uint64_t cost;          /* what the run takes with that, exceptions included */
};

/* With 16-bit factors and a 32-bit sum, one instruction handles eight products. */
static uint32_t dot_product(const int16_t *a, const int16_t *b, uint32_t count)
{
	int32_t sum = 0;

	for (uint32_t i = 0; i < count; i++)
		sum += a[i] * b[i];
	return (uint32_t)sum;
}

/* Finds the best table of a run at a price for exceptions from how often each symbol occurs. */
static void weigh_counts(const struct wcx_encode_variant *variant, const struct wcx_field_coder *coder,
			 const uint8_t *symbols, uint32_t price, struct run *run)
{
	uint64_t cost[WCX_FIELD_TABLES_MAX] = { 0 };
	uint32_t missing[WCX_FIELD_TABLES_MAX] = { 0 }, symbol_count = coder->symbol_count;

	for (uint32_t first = 0; first < run->length; first += PIECE_ELEMS) {
		uint32_t wide[WCX_SYMBOL_COUNT];
		int16_t counts[WCX_SYMBOL_COUNT];

		variant->count(symbols + first, WCX_MIN(run->length - first, PIECE_ELEMS), symbol_count, wide);
		for (uint32_t s = 0; s < symbol_count; s++)
			counts[s] = (int16_t)wide[s];
		for (uint32_t t = 0; t < coder->table_count; t++) {
			cost[t] += dot_product(counts, coder->cost[t], symbol_count);
			missing[t] += dot_product(counts, coder->missing[t], symbol_count);
		}
	}
	run->cost = UINT64_MAX;
	for (uint32_t t = 0; t < coder->table_count; t++) {
		/* Misfits have symbol 0 but do not count as such. */
		cost[t] -= (uint64_t)run->misfits * (uint16_t)coder->cost[t][0];
		missing[t] -= run->misfits * (uint16_t)coder->missing[t][0];
		cost[t] += ((uint64_t)missing[t] + run->misfits) * price;
		if (cost[t] < run->cost) {
			run->cost = cost[t];
			run->table = t;
			run->has_missing = missing[t] != 0;
		}
	}
}

/* What a choice costs in a block. */
static uint32_t choice_cost(uint64_t block, uint32_t choice)
{
	return block >> choice * CHOICE_COST_BITS & ((1u << CHOICE_COST_BITS) - 1);
}

/*
 * Adds up what symbols, or keys if these are not NULL, cost by each choice; returns all bits of their costs.  The words of a
 * block are added up: their parts do not overflow.
 */
WCX_INLINE uint64_t sum_costs(const struct wcx_field_coder *coder, const uint8_t *symbols, const uint16_t *keyed,
			      uint32_t length, uint64_t sums[WCX_CHOICES_MAX])
{
	uint64_t seen = 0;

	for (uint32_t choice = 0; choice < WCX_CHOICES_MAX; choice++)
		sums[choice] = 0;
	for (uint32_t first = 0; first < length; first += SUSPECT_BLOCK) {
		const uint32_t end = WCX_MIN(length, first + SUSPECT_BLOCK);
		uint64_t block = 0;

#pragma GCC unroll 8
		for (uint32_t i = first; i < end; i++) {
			const uint64_t costs = coder->choice_costs[keyed ? keyed[i] : symbols[i]];

			block += costs;
			seen |= costs;
		}
		for (uint32_t choice = 0; choice < WCX_CHOICES_MAX; choice++)
			sums[choice] += choice_cost(block, choice);
	}
	return seen;
}

/*
 * Takes the cheapest choice for the run from these sums.  Where exceptions have another price than in the sums, that is more
 * than anything else costs, and one of them is enough.
 */
static void choose_cheapest(const uint64_t sums[WCX_CHOICES_MAX], uint64_t seen, uint32_t choices, uint32_t price,
			    struct run *run)
{
	run->cost = UINT64_MAX;
	for (uint32_t choice = 0; choice < choices; choice++) {
		const bool has_missing = choice_cost(seen, choice) & COST_IS_EXCEPTION;
		const uint64_t cost = sums[choice] + (has_missing ? price - COST_EXCEPTION : 0);

		if (cost < run->cost) {
			run->cost = cost;
			run->table = choice;
			run->has_missing = has_missing;
		}
	}
}

/* The same as weigh_counts, faster for few symbols; misfits may count as missing, too. */
static void weigh_symbols(const struct wcx_field_coder *coder, const uint8_t *symbols, uint32_t price, struct run *run)
{
	uint64_t sums[WCX_CHOICES_MAX];
	const uint64_t seen = sum_costs(coder, symbols, NULL, run->length, sums);

	for (uint32_t t = 0; t < coder->table_count; t++) /* misfits have symbol 0 */
		sums[t] += run->misfits * ((uint64_t)price - choice_cost(coder->choice_costs[0], t));
	choose_cheapest(sums, seen, coder->table_count, price, run);
}

/* Takes and weighs the next run, or the first one if *run is all zeros; false after the last one. */
static bool next_run(const struct wcx_encoding *e, uint32_t number, const struct wcx_field_coder *coder, uint32_t price,
		     struct run *run)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	struct wcx_field_choice *choice = &e->scratch->fields[number];
	uint16_t *values = (uint16_t *)e->scratch->values;

	run->first += run->length;
	if (run->first == e->elems)
		return false;
	run->length = WCX_MIN(e->elems - run->first, wcx_run_elems(e, field));
	run->misfits =
		wcx_symbols_take(e->ops, field, (const uint8_t *)e->transformed + (size_t)run->first * e->recipe->elem_bytes,
				 run->length, choice->shift, values + run->first, choice->symbols + run->first);
	if (coder->table_count > 1 && coder->symbol_count > FEW_SYMBOLS)
		weigh_symbols(coder, choice->symbols + run->first, price, run);
	else
		weigh_counts(e->scratch->variant, coder, choice->symbols + run->first, price, run);
	return true;
}

/* --- misfits --- */

/* Whether a value of a block is not that of its symbol.  Compilers vectorise this. */
static inline bool block_has_misfit(const struct wcx_field *field, const uint16_t *values, const uint8_t *symbols)
{
	const uint16_t base = field->base, zero = field->has_zero ? base : 0;
	uint16_t found = 0;

	for (uint32_t i = 0; i < SUSPECT_BLOCK; i++) {
		const uint16_t without_base = symbols[i] ? 0 : zero;

		found |= (uint16_t)(values[i] ^ (uint16_t)(symbols[i] + base - without_base));
	}
	return found != 0;
}

/* --- contexts --- */

/* Takes the symbols of a field and keys them by context. */
static void take_keyed(const struct wcx_encoding *e, uint32_t number)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_encode_variant *variant = e->scratch->variant;
	struct wcx_field_choice *choice = &e->scratch->fields[number];
	const uint8_t *contexts = e->scratch->contexts;
	uint16_t *values = (uint16_t *)e->scratch->values, *keyed = e->scratch->keyed;

	wcx_symbols_take(e->ops, field, e->transformed, e->elems, choice->shift, values, choice->symbols);
	if (field->width <= 8)
		variant->key_symbols(choice->symbols, contexts, e->elems, keyed);
	else
		variant->key_fitting(values, field->base, choice->symbols, contexts, e->elems, keyed);
}

/* Finds the best set of tables for the next run, whose elements are keyed; false after the last one. */
static bool next_keyed_run(const struct wcx_encoding *e, uint32_t number, const struct wcx_field_coder *coder,
			   uint32_t price, struct run *run)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	uint64_t sums[WCX_CHOICES_MAX], seen;

	run->first += run->length;
	if (run->first == e->elems)
		return false;
	run->length = WCX_MIN(e->elems - run->first, wcx_run_elems(e, field));
	seen = sum_costs(coder, NULL, e->scratch->keyed + run->first, run->length, sums);
	choose_cheapest(sums, seen, choice_count(field), price, run);
	return true;
}

/* --- exceptions --- */

static void add_exception(struct wcx_exceptions *exceptions, uint32_t position, uint32_t value)
{
	exceptions->positions[exceptions->count] = (uint16_t)position;
	exceptions->values[exceptions->count++] = (uint16_t)value;
}

/* Whether some symbol of a block has no frequency.  Eight symbols are loaded at a time. */
static inline bool block_is_suspect(const uint8_t suspect[WCX_SYMBOL_COUNT], bool is_pair, const uint8_t *symbols)
{
	uint32_t found = 0;

#pragma GCC unroll 8
	for (uint32_t i = 0; i < SUSPECT_BLOCK; i += 8) {
		uint64_t eight;

		memcpy(&eight, symbols + i, sizeof eight);
		if (is_pair)
			eight |= eight >> WCX_PAIR_WIDTH; /* every other byte is a pair now */
		found |= suspect[eight & 0xFF] | suspect[eight >> 16 & 0xFF] | suspect[eight >> 32 & 0xFF] |
			 suspect[eight >> 48 & 0xFF];
		if (!is_pair)
			found |= suspect[eight >> 8 & 0xFF] | suspect[eight >> 24 & 0xFF] | suspect[eight >> 40 & 0xFF] |
				 suspect[eight >> 56];
	}
	return found;
}

/* The same for symbols with their contexts. */
static inline bool keyed_block_is_suspect(const uint8_t suspect[WCX_KEY_COUNT], const uint16_t *keyed)
{
	uint32_t found = 0;

#pragma GCC unroll 8
	for (uint32_t i = 0; i < SUSPECT_BLOCK; i++)
		found |= suspect[keyed[i]];
	return found;
}

/* Whether some element of the block at `first` may be an exception. */
static bool may_except(const struct wcx_encoding *e, uint32_t number, const struct wcx_run_choice *run, uint32_t first)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_field_coder *coder = &e->scratch->coders[number];
	const uint16_t *values = (const uint16_t *)e->scratch->values;
	const uint8_t *symbols = e->scratch->fields[number].symbols + first;
	const uint8_t *suspect = coder->suspect[0] + run->table * WCX_SYMBOL_COUNT;

	if (field->by_context)
		return keyed_block_is_suspect(coder->suspect[run->table], e->scratch->keyed + first);
	if (run->has_misfits && block_has_misfit(field, values + first, symbols))
		return true;
	return field->is_pair ? block_is_suspect(suspect, true, symbols)
			      : run->has_missing && block_is_suspect(suspect, false, symbols);
}

/*
 * The end of the first block of elements from `first` on in which some element may be an exception, and in *begin_ret its
 * begin; or end.  Nearly all blocks have none.
 */
static uint32_t find_suspects(const struct wcx_encoding *e, uint32_t number, const struct wcx_run_choice *run,
			      uint32_t first, uint32_t end, uint32_t *begin_ret)
{
	while (end - first >= SUSPECT_BLOCK && !may_except(e, number, run, first))
		first += SUSPECT_BLOCK;
	*begin_ret = first;
	return WCX_MIN(end, first + SUSPECT_BLOCK);
}

/* The value of an element in a field whose symbols were taken. */
static uint32_t field_value(const struct wcx_encoding *e, uint32_t number, uint32_t i)
{
	const uint16_t *values = (const uint16_t *)e->scratch->values; /* set if the field is wide */

	return wcx_field_is_wide(&e->recipe->fields[number]) ? values[i] : e->scratch->fields[number].symbols[i];
}

/* Makes exceptions of the elements of [first, end) that a table cannot code. */
static void except_values(const struct wcx_encoding *e, uint32_t number, uint32_t table, uint32_t first, uint32_t end)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_field_coder *coder = &e->scratch->coders[number];
	uint8_t *symbols = e->scratch->fields[number].symbols;

	for (uint32_t i = first; i < end; i++) {
		const uint32_t value = field_value(e, number, i);

		if (coder->freqs[table].freq[symbols[i]] && value == wcx_symbol_value(field, symbols[i]) &&
		    !(field->has_escapes && value == WCX_ESCAPE))
			continue;
		add_exception(&e->scratch->exceptions, i, value);
		symbols[i] = coder->cheapest[table];
	}
}

/* The same for a set of tables by context. */
static void except_keyed(const struct wcx_encoding *e, uint32_t number, uint32_t set, uint32_t first, uint32_t end)
{
	const uint32_t tables = set * wcx_set_tables(&e->recipe->fields[number]);
	const struct wcx_field_coder *coder = &e->scratch->coders[number];
	uint8_t *symbols = e->scratch->fields[number].symbols;

	for (uint32_t i = first; i < end; i++) {
		if (!coder->suspect[set][e->scratch->keyed[i]])
			continue;
		add_exception(&e->scratch->exceptions, i, field_value(e, number, i));
		symbols[i] = coder->cheapest[tables + e->scratch->contexts[i]];
	}
}

/*
 * The same for pairs.  The cheapest symbol replaces halves whose value has no symbol, then the second half of a pair without
 * a frequency; if that does not help, the first half, or both.  Only at the end of the tile may a run have an odd length:
 * the cheapest symbol then completes the pair.
 */
static void except_pairs(const struct wcx_encoding *e, uint32_t number, uint32_t table, uint32_t first, uint32_t end)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_field_coder *coder = &e->scratch->coders[number];
	const uint16_t *freq = coder->pairs[table].freq;
	const uint8_t cheapest = coder->cheapest[table];
	uint8_t *symbols = e->scratch->fields[number].symbols;

	for (uint32_t i = first; i < end; i += 2) {
		const bool has_b = i + 1 < end;
		bool keeps_a = field_value(e, number, i) == wcx_symbol_value(field, symbols[i]);
		bool keeps_b = has_b && field_value(e, number, i + 1) == wcx_symbol_value(field, symbols[i + 1]);
		const uint32_t a = keeps_a ? symbols[i] : cheapest, b = keeps_b ? symbols[i + 1] : cheapest;

		if (!freq[a | b << WCX_PAIR_WIDTH]) {
			keeps_a = keeps_a && freq[a | cheapest << WCX_PAIR_WIDTH];
			keeps_b = keeps_b && !keeps_a && freq[cheapest | b << WCX_PAIR_WIDTH];
		}
		if (!keeps_a) {
			add_exception(&e->scratch->exceptions, i, field_value(e, number, i));
			symbols[i] = cheapest;
		}
		if (has_b && !keeps_b) {
			add_exception(&e->scratch->exceptions, i + 1, field_value(e, number, i + 1));
			symbols[i + 1] = cheapest;
		}
	}
}

/*
 * Makes exceptions of all elements that the table of their run cannot code; false if they are too many, or if a table lacks
 * the escape.
 */
static bool except_uncodable(const struct wcx_encoding *e, uint32_t number)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_field_choice *choice = &e->scratch->fields[number];
	const uint32_t run_elems = wcx_run_elems(e, field);

	for (uint32_t t = 0; t < field->table_count && field->has_escapes; t++)
		if (!field->tables[t].freq[WCX_ESCAPE])
			return false;
	for (uint32_t first = 0, r = 0; first < e->elems; first += run_elems, r++) {
		const struct wcx_run_choice *run = &choice->runs[r];
		const uint32_t end = WCX_MIN(e->elems, first + run_elems);

		if (!field->is_pair && !run->has_misfits && !run->has_missing)
			continue;
		for (uint32_t begin, after = first; after < end;) {
			after = find_suspects(e, number, run, after, end, &begin);
			if (field->by_context)
				except_keyed(e, number, run->table, begin, after);
			else
				(field->is_pair ? except_pairs : except_values)(e, number, run->table, begin, after);
		}
	}
	return e->scratch->exceptions.count <= WCX_EXCEPTIONS_MAX;
}

/* --- the choice for each field --- */

static void note_run(const struct run *run, struct wcx_run_choice *ret)
{
	*ret = (struct wcx_run_choice){ (uint8_t)run->table, run->misfits != 0, run->has_missing };
}

/* Costs of a field. */
struct weight {
	uint64_t coded, raw;
};

/*
 * Weighs coding a field against keeping it raw, and stores its symbols and the table of each run.  Stops at the run with
 * which coding becomes too expensive.
 */
static struct weight weigh_field(const struct wcx_encoding *e, uint32_t number, uint32_t price)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_field_coder *coder = field_coder(field, number, e->scratch);
	struct wcx_field_choice *choice = &e->scratch->fields[number];
	const uint32_t overhead = WCX_RANS_STATES_BYTES - WCX_CARRIED_BYTES + wcx_choices_bytes(e->recipe, field, e->elems);
	struct weight weight = { UINT64_C(8) * COST_SCALE * overhead, (uint64_t)COST_SCALE * field->width * e->elems };
	struct run run = { 0 };

	if (field->by_context)
		take_keyed(e, number);
	for (uint32_t r = 0;
	     weight.coded < weight.raw && (field->by_context ? next_keyed_run : next_run)(e, number, coder, price, &run);
	     r++) {
		note_run(&run, &choice->runs[r]);
		weight.coded += run.cost;
	}
	return weight;
}

/* The coding of a field.  Only the carrier, the highest coded field, may have exceptions. */
static enum wcx_field_coding choose_coding(const struct wcx_encoding *e, uint32_t number, bool may_be_carrier)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	struct wcx_field_choice *choice = &e->scratch->fields[number];
	struct weight weight;

	if (field_is_constant(e, choice->shift, field->width, &choice->constant))
		return WCX_FIELD_CONSTANT;
	if (!field->table_count)
		return WCX_FIELD_RAW;
	weight = weigh_field(e, number, may_be_carrier ? COST_EXCEPTION : COST_IMPOSSIBLE);
	if (weight.coded >= weight.raw)
		return WCX_FIELD_RAW;
	if (!may_be_carrier)
		return WCX_FIELD_RANS;
	e->scratch->exceptions.count = 0;
	return except_uncodable(e, number) ? WCX_FIELD_RANS : WCX_FIELD_RAW;
}

uint32_t wcx_encoding_choose(const struct wcx_encoding *e)
{
	const uint32_t none = e->recipe->field_count;
	uint32_t carrier = none, shift = 8u * e->recipe->elem_bytes;

	for (uint32_t f = e->recipe->field_count; f-- > 0;) {
		struct wcx_field_choice *choice = &e->scratch->fields[f];

		shift -= e->recipe->fields[f].width;
		choice->shift = shift;
		choice->coding = choose_coding(e, f, carrier == none);
		if (choice->coding == WCX_FIELD_RANS && carrier == none)
			carrier = f;
	}
	return carrier;
}

/* --- statistics --- */

/* Adds how often symbols occur to counts. */
static void add_symbols(const struct wcx_encode_variant *variant, const uint8_t *symbols, uint32_t length,
			uint32_t symbol_count, uint64_t counts[WCX_SYMBOL_COUNT])
{
	uint32_t wide[WCX_SYMBOL_COUNT];

	variant->count(symbols, length, symbol_count, wide);
	for (uint32_t s = 0; s < symbol_count; s++)
		counts[s] += wide[s];
}

/* Counts a run of a field, whose symbols have been taken. */
static void count_run(const struct wcx_encoding *e, uint32_t number, const struct run *run, struct wcx_field_counts *ret)
{
	const uint8_t *symbols = e->scratch->fields[number].symbols + run->first;

	const struct wcx_field *field = &e->recipe->fields[number];
	uint64_t *counts = ret->symbols[run->table];
	const uint64_t escapes = counts[WCX_ESCAPE];

	add_symbols(e->scratch->variant, symbols, run->length, wcx_field_symbols_max(field), counts);
	counts[0] -= run->misfits; /* which have that symbol */
	if (field->has_escapes) {
		counts[WCX_ESCAPE] += run->misfits;
		ret->misfits += counts[WCX_ESCAPE] - escapes;
	} else {
		ret->misfits += run->misfits;
	}
}

/* Counts a field without contexts. */
static void count_field(const struct wcx_encoding *e, uint32_t number, struct wcx_field_counts *ret)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	struct wcx_field_choice *choice = &e->scratch->fields[number];
	struct run run = { 0 };

	if (field->table_count > 1) {
		const struct wcx_field_coder *coder = field_coder(field, number, e->scratch);

		while (next_run(e, number, coder, COST_EXCEPTION, &run))
			count_run(e, number, &run, ret);
		return;
	}
	run.length = e->elems;
	run.misfits = wcx_symbols_take(e->ops, field, e->transformed, e->elems, choice->shift, e->scratch->values,
				       choice->symbols);
	count_run(e, number, &run, ret);
}

/* Counts a field with one set of tables by context. */
static void count_by_context(const struct wcx_encoding *e, const struct wcx_field *field, struct wcx_field_counts *ret)
{
	static_assert(PIECE_ELEMS <= UINT16_MAX, "see count_keyed");
	uint32_t wide[WCX_KEY_COUNT];

	for (uint32_t first = 0; first < e->elems; first += PIECE_ELEMS) {
		e->scratch->variant->count_keyed(e->scratch->keyed + first, WCX_MIN(e->elems - first, PIECE_ELEMS),
						 field->table_count, wide);
		for (uint32_t key = 0; key < field->table_count * WCX_SYMBOL_COUNT; key++)
			ret->symbols[key / WCX_SYMBOL_COUNT][key % WCX_SYMBOL_COUNT] += wide[key];
		for (uint32_t c = 0; c < WCX_CONTEXTS_MAX; c++)
			ret->misfits += wide[WCX_KEY_MISFIT + c];
		for (uint32_t c = 0; c < field->table_count && field->has_escapes; c++) {
			ret->misfits += wide[c * WCX_SYMBOL_COUNT + WCX_ESCAPE];
			ret->symbols[c][WCX_ESCAPE] += wide[WCX_KEY_MISFIT + c];
		}
	}
}

/* The same with several sets, of which each run has the best. */
static void count_sets(const struct wcx_encoding *e, uint32_t number, struct wcx_field_counts *ret)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_field_coder *coder = field_coder(field, number, e->scratch);
	struct run run = { 0 };

	while (next_keyed_run(e, number, coder, COST_EXCEPTION, &run)) {
		const uint16_t *keyed = e->scratch->keyed + run.first;
		uint64_t *counts = ret->symbols[run.table * wcx_set_tables(field)];

		for (uint32_t i = 0; i < run.length; i++) {
			const bool is_misfit = keyed[i] >= WCX_KEY_MISFIT;
			const uint32_t escape = ((uint32_t)keyed[i] - WCX_KEY_MISFIT) * WCX_SYMBOL_COUNT + WCX_ESCAPE;

			if (!is_misfit)
				counts[keyed[i]]++;
			else if (field->has_escapes)
				counts[escape]++;
			ret->misfits += is_misfit || (field->has_escapes && keyed[i] % WCX_SYMBOL_COUNT == WCX_ESCAPE);
		}
	}
}

enum wcx_result wcx_tile_count(const struct wcx_tile_dims *dims, const uint8_t *src, const uint8_t *base,
			       const struct wcx_recipe *recipe, struct wcx_encode_scratch *scratch,
			       struct wcx_field_counts counts[WCX_FIELDS_MAX])
{
	struct wcx_encoding encoding;
	uint32_t shift = 0;

	if (!wcx_recipe_is_known(recipe) || (recipe->difference != WCX_DIFFERENCE_NONE && !base))
		return WCX_BAD_DATA;
	wcx_encoding_start(dims, src, base, recipe, scratch, &encoding);
	for (uint32_t f = 0; f < recipe->field_count; shift += recipe->fields[f++].width) {
		if (!counts[f].symbols)
			continue;
		scratch->fields[f].shift = shift;
		if (recipe->fields[f].by_context)
			take_keyed(&encoding, f);
		if (recipe->fields[f].set_bits)
			count_sets(&encoding, f, &counts[f]);
		else if (recipe->fields[f].by_context)
			count_by_context(&encoding, &recipe->fields[f], &counts[f]);
		else
			count_field(&encoding, f, &counts[f]);
	}
	return WCX_OK;
}
