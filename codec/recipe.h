/* SPDX-License-Identifier: MIT */
/*
 * Recipes: how the elements of a tensor are cut into fields of bits and coded (docs/format.md, sections 2.2 and 2.3).
 *
 * No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_RECIPE_H
#define WCX_RECIPE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec/arith.h"
#include "codec/freq_table.h"
#include "codec/line.h"

enum {
	WCX_ELEM_MAX_BYTES = 8,
	WCX_TILE_MAX_ELEMS = 65536,
	WCX_FIELDS_MAX = 10,      /* per element: the header of a tile has two bits for each */
	WCX_FIELD_MAX_WIDTH = 32, /* bits of a field */
	WCX_CODED_MAX_WIDTH = 16, /* bits of a field that may be coded */
	WCX_PAIR_WIDTH = 4,       /* bits of half a pair */
	WCX_FIELD_TABLES_MAX = 4, /* frequency tables that a field chooses from */
	WCX_CONTEXTS_MAX = 8,     /* classes of elements of the base, with a table for each */
	WCX_SETS_MAX = 4,         /* sets with a table for each context, of which every run chooses one */
	WCX_SET_TABLES_MAX = WCX_SETS_MAX * WCX_CONTEXTS_MAX,          /* of a field with contexts */
	WCX_RECIPE_TABLES_MAX = WCX_FIELDS_MAX * WCX_FIELD_TABLES_MAX, /* of all fields together */
	WCX_RUN_ELEMS = 128,     /* run lengths are multiples of this: whole lines for every element size */
	WCX_RAW_PLANES_MAX = 16, /* per tile */
};

/* The values of both enums are those of the format. */
enum wcx_predictor { WCX_PREDICT_NONE, WCX_PREDICT_LEFT, WCX_PREDICT_UP, WCX_PREDICT_LEFT2, WCX_PREDICTOR_COUNT };

/*
 * Applied to an element before it is cut.  ROTATE moves the highest bit, the sign, below the others.  FOLD also inverts the
 * bits above the first field where the sign is set, which turns them into a magnitude.
 */
enum wcx_transform { WCX_TRANSFORM_NONE, WCX_TRANSFORM_ROTATE, WCX_TRANSFORM_FOLD, WCX_TRANSFORM_COUNT };

/*
 * Whether the elements are coded as differences from those of a base, and in which order numbers follow each other: as
 * integers in two's complement, or as floats, whose bits are a sign and a magnitude.  The values are those of the format.
 */
enum wcx_difference { WCX_DIFFERENCE_NONE, WCX_DIFFERENCE_INTEGER, WCX_DIFFERENCE_FLOAT, WCX_DIFFERENCE_COUNT };

/*
 * A range of bits of an element.  In a field of up to 8 bits symbol s stands for the value s, in a wider one for base + s;
 * with has_zero, symbol 0 stands for 0.  With is_pair, a symbol has a half for each of two neighbouring elements, the first
 * one in its lower half; in elements of two bytes half h stands for base + h, whatever the width.  tables then has the
 * frequencies of halves.  With by_context there is a table for each context, and every element takes that of its own; or
 * there are 2^set_bits sets of such tables, one after another, and every run chooses a set.  With has_escapes, symbol
 * WCX_ESCAPE stands for no value: the tile has those of its elements in their order, in place of exceptions with positions.
 */
struct wcx_field {
	uint8_t width;       /* bits */
	uint8_t table_count; /* 0, 1, 2 or 4; with by_context the recipe's context_count for each set */
	uint8_t set_bits;    /* 0 to 2; 0 without by_context */
	bool is_pair, has_zero, by_context, has_escapes;
	uint16_t base;
	const struct wcx_freq_table *tables; /* table_count of them, or NULL */
};

/* How the elements of a tensor are cut and coded.  The caller owns the fields, which must outlive the recipe. */
struct wcx_recipe {
	uint8_t elem_bytes, transform, predictor, field_count;
	uint32_t run_elems;             /* elements that share a choice of table; 0 when no field has more than one */
	const struct wcx_field *fields; /* from the lowest bits up */
	uint8_t difference;             /* from the base's elements; if not NONE, transform and predictor are */
	uint8_t context_count; /* classes of the base's elements, which choose the table of an element; 0 without classes */
	uint8_t thresholds[WCX_CONTEXTS_MAX -
			   1]; /* of the classes but the first, ascending, as codec/difference.h says; then 0 */
};

/* wcx_field_symbols_max - how many symbols (of pairs: halves) a field may have */
static inline uint32_t wcx_field_symbols_max(const struct wcx_field *field)
{
	const uint32_t width = field->is_pair ? (uint32_t)WCX_PAIR_WIDTH : field->width;

	return width < 8 ? 1u << width : (uint32_t)WCX_SYMBOL_COUNT;
}

/* wcx_field_build_table - build a table for a field from counts, as wcx_freq_table_build or wcx_freq_table_build_escapes */
static inline void wcx_field_build_table(const struct wcx_field *field, const uint64_t count[WCX_SYMBOL_COUNT],
					 struct wcx_freq_table *ret)
{
	if (field->has_escapes)
		wcx_freq_table_build_escapes(count, ret);
	else
		wcx_freq_table_build(count, ret);
}

/*
 * wcx_recipe_check - check a recipe and its tables against the rules of the format
 *
 * Returns NULL, or the rule that is broken.  Coding and decoding rely on this check; of its rules they repeat only those on
 * the transform, the predictor and the difference.
 */
const char *wcx_recipe_check(const struct wcx_recipe *recipe);

/*
 * wcx_recipe_check_fields, wcx_field_check_table - wcx_recipe_check in two halves
 *
 * The first checks everything but the tables, the second whether a field may have a table of which this is so.  Where many
 * recipes share tables, each is then looked at once.
 */
const char *wcx_recipe_check_fields(const struct wcx_recipe *recipe);
static inline const char *wcx_field_check_table(const struct wcx_field *field, struct wcx_freq_table_facts facts)
{
	if (field->has_escapes && !facts.is_coarse)
		return "fine frequencies in a field with escapes";
	return facts.last_symbol >= wcx_field_symbols_max(field) ? "frequency of a symbol that a field cannot have" : NULL;
}

/* wcx_elem_bytes_are_known - whether elements may have this size: 1, 2, 4 or 8 */
static inline bool wcx_elem_bytes_are_known(uint32_t elem_bytes)
{
	return elem_bytes == 1 || elem_bytes == 2 || elem_bytes == 4 || elem_bytes == 8;
}

/* wcx_recipe_is_known - whether transform, predictor and difference are ones that this version implements */
static inline bool wcx_recipe_is_known(const struct wcx_recipe *recipe)
{
	return recipe->transform < WCX_TRANSFORM_COUNT && recipe->predictor < WCX_PREDICTOR_COUNT &&
	       recipe->difference < WCX_DIFFERENCE_COUNT;
}

/* wcx_fitting_symbols - symbols from 0 on that stand for values of a coded field: without the escape, if there is one */
static inline uint32_t wcx_fitting_symbols(const struct wcx_field *field)
{
	return field->has_escapes ? WCX_ESCAPE : WCX_SYMBOL_COUNT;
}

/* wcx_field_is_wide - whether a field has more values than symbols, which then stand for those from its base on */
static inline bool wcx_field_is_wide(const struct wcx_field *field)
{
	return field->width > (field->is_pair ? WCX_PAIR_WIDTH : 8);
}

/* wcx_symbol_value - the field value that a symbol (of a pair: its half) stands for */
static inline uint32_t wcx_symbol_value(const struct wcx_field *field, uint32_t symbol)
{
	return field->has_zero && symbol == 0 ? 0 : field->base + symbol;
}

/* wcx_choice_bits - bits of a run's choice of a table or of a set of them */
static inline uint32_t wcx_choice_bits(const struct wcx_field *field)
{
	return field->by_context ? field->set_bits : field->table_count >> 1;
}

/* wcx_set_tables - the tables of a set: one for each context; without contexts all of a field */
static inline uint32_t wcx_set_tables(const struct wcx_field *field)
{
	return field->table_count >> field->set_bits;
}

/* wcx_choices_bytes - bytes of a field's choices in a tile of elems elements, with padding */
static inline uint32_t wcx_choices_bytes(const struct wcx_recipe *recipe, const struct wcx_field *field, uint32_t elems)
{
	uint32_t bits = wcx_choice_bits(field);

	return bits ? WCX_DIV_UP(WCX_DIV_UP(elems, recipe->run_elems) * bits, 32) * 4 : 0;
}

/* wcx_field_steps - symbols of a field per lane and line */
static inline uint32_t wcx_field_steps(const struct wcx_field *field, uint32_t elem_bytes)
{
	return wcx_word_elems(elem_bytes) >> field->is_pair;
}

/* wcx_field_symbols - symbols of a field in a tile of elems elements; the last pair may be half empty */
static inline uint32_t wcx_field_symbols(const struct wcx_field *field, uint32_t elems)
{
	return (elems + field->is_pair) >> field->is_pair;
}

/* wcx_field_table - the table that symbols are coded with: the field's own, or for pairs the one built in *pairs */
static inline const struct wcx_freq_table *wcx_field_table(const struct wcx_field *field, uint32_t table,
							   struct wcx_freq_table *pairs)
{
	if (!field->is_pair)
		return &field->tables[table];
	wcx_freq_table_pair(&field->tables[table], pairs);
	return pairs;
}

/* wcx_bit_range - the bits of an element from shift on, width of them: at most WCX_FIELD_MAX_WIDTH */
static inline uint64_t wcx_bit_range(uint32_t shift, uint32_t width)
{
	return ((UINT64_C(1) << width) - 1) << shift;
}

/* wcx_place_bits - move bits of a transformed element to where the element has them; FOLD's inversion is not undone */
static inline uint64_t wcx_place_bits(const struct wcx_recipe *recipe, uint64_t bits)
{
	assert(recipe->transform < WCX_TRANSFORM_COUNT);
	return recipe->transform == WCX_TRANSFORM_NONE ? bits : bits >> 1 | (bits & 1) << (8 * recipe->elem_bytes - 1);
}

/* wcx_fold_bits - the bits of a transformed element that FOLD inverts; 0 for other transforms */
static inline uint64_t wcx_fold_bits(const struct wcx_recipe *recipe)
{
	return recipe->transform == WCX_TRANSFORM_FOLD ? 0xFFu << recipe->fields[0].width & 0xFF : 0;
}

#endif
