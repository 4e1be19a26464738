/* SPDX-License-Identifier: MIT */
/* Checks recipes against the rules of the format. */
#include "codec/recipe.h"

static const char *check_field(const struct wcx_field *field)
{
	if (field->width == 0 || field->width > WCX_FIELD_MAX_WIDTH)
		return "bad width of a field";
	if (field->table_count == 0)
		return field->base || field->is_pair || field->has_zero || field->by_context || field->set_bits ||
				       field->has_escapes
			       ? "symbols of a field without frequency tables"
			       : NULL;
	if (!field->by_context && field->table_count != 1 && field->table_count != 2 && field->table_count != 4)
		return "bad number of frequency tables of a field";
	if (field->width > WCX_CODED_MAX_WIDTH)
		return "frequency tables for a field that is too wide";
	if (field->is_pair && field->has_zero)
		return "ZERO in a field of pairs";
	if (wcx_field_is_wide(field))
		return field->base > (1u << field->width) - wcx_field_symbols_max(field) ? "base of a field too large"
											 : NULL;
	return field->base || field->has_zero ? "base of a narrow field" : NULL;
}

/* Rules on where in an element a field of pairs, or one with escapes, may be. */
static const char *check_place(const struct wcx_recipe *recipe, uint32_t number)
{
	const struct wcx_field *field = &recipe->fields[number];
	const bool differs = recipe->difference != WCX_DIFFERENCE_NONE;
	const bool fits = recipe->elem_bytes == 1   ? field->width == (differs ? 8 : WCX_PAIR_WIDTH)
			  : recipe->elem_bytes == 2 ? field->width >= WCX_PAIR_WIDTH && !differs
						    : false;

	if (field->is_pair && (!fits || number + 1u != recipe->field_count || (differs && field->base)))
		return "pairs in a field that cannot have them";
	if (field->has_escapes && (recipe->difference == WCX_DIFFERENCE_NONE || recipe->field_count != 1 ||
				   recipe->elem_bytes != 2 || field->base))
		return "escapes in a field that cannot have them";
	return NULL;
}

/* Rules on the tables of a field, which may depend on contexts only in a difference. */
static const char *check_tables(const struct wcx_recipe *recipe, const struct wcx_field *field)
{
	if (field->by_context)
		return field->set_bits > 2 ? "too many sets of frequency tables"
		       : recipe->context_count == 0 || field->table_count != recipe->context_count << field->set_bits
			       ? "not a frequency table for each context"
		       : field->is_pair || field->has_zero ? "pairs or ZERO in a difference with contexts"
							   : NULL;
	if (field->set_bits)
		return "sets of frequency tables without contexts";
	if (recipe->difference != WCX_DIFFERENCE_NONE && (field->table_count > 1 || field->has_zero))
		return "choices of tables or ZERO in a difference";
	return NULL;
}

static const char *check_contexts(const struct wcx_recipe *recipe)
{
	const uint32_t count = recipe->context_count;

	if (count == 1 || count > WCX_CONTEXTS_MAX)
		return "bad number of contexts";
	for (uint32_t t = 0; t < WCX_CONTEXTS_MAX - 1; t++)
		if (t + 1 < count ? recipe->thresholds[t] <= (t ? recipe->thresholds[t - 1] : 0) : recipe->thresholds[t])
			return "thresholds of contexts that do not ascend";
	return NULL;
}

static const char *check_difference(const struct wcx_recipe *recipe)
{
	if (recipe->difference >= WCX_DIFFERENCE_COUNT)
		return "unknown difference";
	if (recipe->difference == WCX_DIFFERENCE_NONE && recipe->context_count)
		return "contexts without a difference";
	if (recipe->difference != WCX_DIFFERENCE_NONE &&
	    (recipe->transform != WCX_TRANSFORM_NONE || recipe->predictor != WCX_PREDICT_NONE))
		return "transform or predictor of a difference";
	return check_contexts(recipe);
}

static const char *check_transform(const struct wcx_recipe *recipe)
{
	if (recipe->transform >= WCX_TRANSFORM_COUNT)
		return "unknown transform";
	if (recipe->predictor >= WCX_PREDICTOR_COUNT)
		return "unknown predictor";
	if (recipe->transform != WCX_TRANSFORM_NONE && recipe->predictor != WCX_PREDICT_NONE)
		return "transform and predictor at once";
	if (recipe->transform == WCX_TRANSFORM_FOLD &&
	    (recipe->elem_bytes != 1 || recipe->field_count < 2 || recipe->fields[0].table_count))
		return "elements that cannot be folded";
	return NULL;
}

const char *wcx_recipe_check_fields(const struct wcx_recipe *recipe)
{
	uint32_t width = 0, planes = 0, tables = 0, choice_bits = 0;
	const char *wrong;

	if (!wcx_elem_bytes_are_known(recipe->elem_bytes))
		return "bad element size";
	if (recipe->field_count == 0 || recipe->field_count > WCX_FIELDS_MAX)
		return "bad number of fields";
	wrong = check_transform(recipe);
	if (!wrong)
		wrong = check_difference(recipe);
	for (uint32_t f = 0; f < recipe->field_count && !wrong; f++) {
		wrong = check_field(&recipe->fields[f]);
		if (!wrong)
			wrong = check_place(recipe, f);
		if (!wrong)
			wrong = check_tables(recipe, &recipe->fields[f]);
		width += recipe->fields[f].width;
		planes += (uint32_t)__builtin_popcount(recipe->fields[f].width);
		tables += recipe->fields[f].table_count;
		choice_bits = WCX_MAX(choice_bits, wcx_choice_bits(&recipe->fields[f]));
	}
	if (wrong)
		return wrong;
	if (width != 8u * recipe->elem_bytes)
		return "fields do not make up an element";
	if (planes > WCX_RAW_PLANES_MAX)
		return "fields of too many raw planes";
	if (tables > WCX_RECIPE_TABLES_MAX)
		return "too many frequency tables";
	if (choice_bits
		    ? recipe->run_elems == 0 || recipe->run_elems % WCX_RUN_ELEMS || recipe->run_elems > WCX_TILE_MAX_ELEMS
		    : recipe->run_elems != 0)
		return "bad run";
	return NULL;
}

const char *wcx_recipe_check(const struct wcx_recipe *recipe)
{
	const char *wrong = wcx_recipe_check_fields(recipe);

	for (uint32_t f = 0; f < recipe->field_count && !wrong; f++)
		for (uint32_t t = 0; t < recipe->fields[f].table_count && !wrong; t++)
			wrong = wcx_field_check_table(&recipe->fields[f],
						      wcx_freq_table_facts(&recipe->fields[f].tables[t]));
	return wrong;
}
