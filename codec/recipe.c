/* SPDX-License-Identifier: MIT */
/* Checks recipes against the rules of the format. */
#include "codec/recipe.h"

static const char *check_field(const struct wcx_field *field)
{
	if (field->width == 0 || field->width > WCX_FIELD_MAX_WIDTH)
		return "bad width of a field";
	if (field->table_count == 0)
		return field->base || field->is_pair || field->has_zero ? "symbols of a field without frequency tables"
									: NULL;
	if (field->table_count != 1 && field->table_count != 2 && field->table_count != 4)
		return "bad number of frequency tables of a field";
	if (field->width > WCX_CODED_MAX_WIDTH)
		return "frequency tables for a field that is too wide";
	if (field->width > 8)
		return field->base > (1u << field->width) - WCX_SYMBOL_COUNT ? "base of a field too large" : NULL;
	return field->base || field->has_zero ? "base of a narrow field" : NULL;
}

/* Rules on where in an element a field of pairs may be. */
static const char *check_place(const struct wcx_recipe *recipe, uint32_t number)
{
	const struct wcx_field *field = &recipe->fields[number];

	if (field->is_pair &&
	    (recipe->elem_bytes != 1 || field->width != WCX_PAIR_WIDTH || number + 1u != recipe->field_count))
		return "pairs in a field that cannot have them";
	return NULL;
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
	uint32_t width = 0, planes = 0, most_tables = 0;
	const char *wrong;

	if (!wcx_elem_bytes_are_known(recipe->elem_bytes))
		return "bad element size";
	if (recipe->field_count == 0 || recipe->field_count > WCX_FIELDS_MAX)
		return "bad number of fields";
	wrong = check_transform(recipe);
	for (uint32_t f = 0; f < recipe->field_count && !wrong; f++) {
		wrong = check_field(&recipe->fields[f]);
		if (!wrong)
			wrong = check_place(recipe, f);
		width += recipe->fields[f].width;
		planes += (uint32_t)__builtin_popcount(recipe->fields[f].width);
		most_tables = WCX_MAX(most_tables, recipe->fields[f].table_count);
	}
	if (wrong)
		return wrong;
	if (width != 8u * recipe->elem_bytes)
		return "fields do not make up an element";
	if (planes > WCX_RAW_PLANES_MAX)
		return "fields of too many raw planes";
	if (most_tables > 1
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
			wrong = wcx_field_check_table(&recipe->fields[f], wcx_freq_table_last(&recipe->fields[f].tables[t]));
	return wrong;
}
