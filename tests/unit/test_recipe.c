/* SPDX-License-Identifier: MIT */
/* Recipes: which ones the rules of docs/format.md accept. */
#include <stddef.h>

#include "tests/fixtures/codec_samples.h"

/* Eight bytes an element: 5 and 32 raw bits, and 3, 8 and 16 coded ones. */
static void make_sound_recipe(struct model *model)
{
	model_start(model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT2, 384);
	model_add(model, 5, 0, 0, NOISE, 0);
	model_add(model, 32, 0, 0, NOISE, 0);
	model_add(model, 3, 2, 0, BELL, 1);
	model_add(model, 8, 1, 0, BELL, 1);
	model_add(model, 16, 4, 65280, BELL, 1)->has_zero = 1;
}

/* A byte an element: four raw bits and pairs, folded. */
static void make_folded_recipe(struct model *model)
{
	model_start(model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 128);
	model_add(model, 4, 0, 0, NOISE, 0);
	model_add(model, 4, 2, 0, BELL, 1)->is_pair = 1;
}

/* Four bytes an element as differences of floats: 8 raw bits, and three coded bytes, two of them by three contexts. */
static void make_difference_recipe(struct model *model)
{
	model_start(model, 4, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model->recipe.difference = WCX_DIFFERENCE_FLOAT;
	model->recipe.context_count = 3;
	model->recipe.thresholds[0] = 1;
	model->recipe.thresholds[1] = 255;
	model_add(model, 8, 0, 0, NOISE, 0);
	model_add(model, 8, 3, 0, BELL, 1)->by_context = 1;
	model_add(model, 8, 1, 0, BELL, 1);
	model_add(model, 8, 3, 0, BELL, 1)->by_context = 1;
}

/* The same with a choice of two sets in one of these two, and of four in the other. */
static void make_recipe_with_sets(struct model *model)
{
	make_difference_recipe(model);
	model->recipe.run_elems = 128;
	model->fields[1].set_bits = 1;
	model->fields[1].table_count = 6;
	model->fields[3].set_bits = 2;
	model->fields[3].table_count = 12;
}

/* A single field with escapes. */
static void make_recipe_with_escapes(struct model *model)
{
	model_start(model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model->recipe.difference = WCX_DIFFERENCE_INTEGER;
	model->recipe.context_count = 2;
	model->recipe.thresholds[0] = 7;
	model_add(model, 16, 2, 0, BELL, 1);
	model->fields[0].by_context = model->fields[0].has_escapes = 1;
	for (uint32_t t = 0; t < 2; t++)
		model->tables[0][t] = (struct wcx_freq_table){ .freq = { [0] = 4092, [255] = 4 } };
}

/* A difference of bytes in pairs. */
static void make_recipe_with_difference_pairs(struct model *model)
{
	model_start(model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model->recipe.difference = WCX_DIFFERENCE_INTEGER;
	model_add(model, 8, 1, 0, BELL, 1);
	model->fields[0].is_pair = true;
	model->tables[0][0] = (struct wcx_freq_table){ .freq = { [0] = 4000, [15] = 96 } };
}

/* What a case changes of a sound recipe: integers of one, two or four bytes of the model. */
struct poke {
	size_t at, bytes;
	uint32_t value;
};

struct recipe_case {
	const char *why;
	struct poke pokes[4];
};

#define POKE(member, value)                                                                                                 \
	{                                                                                                                   \
		offsetof(struct model, member), sizeof((struct model *)NULL)->member, value                                 \
	}
#define WIDTH(f, value) POKE(fields[f].width, value)

static void check_recipe_cases(void (*make)(struct model *model), const struct recipe_case *cases, size_t count)
{
	for (size_t c = 0; c < count; c++) {
		struct model model;

		make(&model);
		CHECK(wcx_recipe_check(&model.recipe) == NULL && wcx_recipe_check_fields(&model.recipe) == NULL);
		for (size_t i = 0; i < WCX_ARRAY_COUNT(cases[c].pokes) && cases[c].pokes[i].bytes; i++)
			memcpy((uint8_t *)&model + cases[c].pokes[i].at, &cases[c].pokes[i].value, cases[c].pokes[i].bytes);
		if (!CHECK(wcx_recipe_check(&model.recipe) != NULL))
			fprintf(stderr, "\t%s was accepted\n", cases[c].why);
	}
}

static void recipes_that_break_a_rule_are_refused(void)
{
	static const struct recipe_case cases[] = {
		{ "elements of no bytes", { POKE(recipe.elem_bytes, 0) } },
		{ "elements of three bytes", { POKE(recipe.elem_bytes, 3) } },
		{ "elements of 16 bytes", { POKE(recipe.elem_bytes, 16) } },
		{ "unknown transform", { POKE(recipe.transform, 3), POKE(recipe.predictor, 0) } },
		{ "rotation and predictor", { POKE(recipe.transform, WCX_TRANSFORM_ROTATE) } },
		{ "folded elements of eight bytes",
		  { POKE(recipe.transform, WCX_TRANSFORM_FOLD), POKE(recipe.predictor, 0) } },
		{ "unknown predictor", { POKE(recipe.predictor, 4) } },
		{ "no fields", { POKE(recipe.field_count, 0) } },
		{ "a field too few", { POKE(recipe.field_count, 4) } },
		{ "63 bits", { WIDTH(0, 4) } },
		{ "65 bits", { WIDTH(0, 6) } },
		{ "width 0", { WIDTH(2, 0), WIDTH(0, 8) } },
		{ "width 33", { WIDTH(1, 33), WIDTH(0, 4) } },
		{ "three tables", { POKE(fields[2].table_count, 3) } },
		{ "eight tables", { POKE(fields[2].table_count, 8) } },
		{ "tables for 17 bits", { WIDTH(4, 17), WIDTH(0, 4) } },
		{ "base without tables", { POKE(fields[0].base, 1) } },
		{ "base of eight bits", { POKE(fields[3].base, 1) } },
		{ "base of 16 bits too large", { POKE(fields[4].base, 65281) } },
		{ "ZERO without tables", { POKE(fields[1].has_zero, 1) } },
		{ "ZERO in eight bits", { POKE(fields[3].has_zero, 1) } },
		{ "ZERO in three bits", { POKE(fields[2].has_zero, 1) } },
		{ "pairs in elements of eight bytes", { WIDTH(4, 4), WIDTH(0, 17), POKE(fields[4].is_pair, 1) } },
		{ "symbol of four bits in three", { POKE(tables[2][1].freq[8], 1) } },
		{ "symbol of eight bits in three", { POKE(tables[2][0].freq[255], 1) } },
		{ "choices without a run", { POKE(recipe.run_elems, 0) } },
		{ "run of half a line", { POKE(recipe.run_elems, 64) } },
		{ "run of broken lines", { POKE(recipe.run_elems, 200) } },
		{ "run longer than a tile", { POKE(recipe.run_elems, 65536 + 128) } },
		{ "run without choices", { POKE(fields[2].table_count, 1), POKE(fields[4].table_count, 1) } },
	};
	static const struct recipe_case folded[] = {
		{ "folding and LEFT", { POKE(recipe.predictor, WCX_PREDICT_LEFT) } },
		{ "folding and UP", { POKE(recipe.predictor, WCX_PREDICT_UP) } },
		{ "rotation and UP",
		  { POKE(recipe.transform, WCX_TRANSFORM_ROTATE), POKE(recipe.predictor, WCX_PREDICT_UP) } },
		{ "unknown transform", { POKE(recipe.transform, 255) } },
		{ "folding above a coded field", { POKE(fields[0].table_count, 1), POKE(fields[0].tables, 0) } },
		{ "folding of one raw field", { POKE(recipe.field_count, 1), WIDTH(0, 8), POKE(recipe.run_elems, 0) } },
		{ "folded elements of two bytes", { POKE(recipe.elem_bytes, 2), WIDTH(1, 12), POKE(fields[1].is_pair, 0) } },
		{ "pairs of three bits", { WIDTH(1, 3), WIDTH(0, 5) } },
		{ "pairs of five bits", { WIDTH(1, 5), WIDTH(0, 3) } },
		{ "pairs of eight bits", { WIDTH(1, 8), POKE(recipe.field_count, 2) } },
		{ "pairs of three bits in elements of two bytes",
		  { POKE(recipe.elem_bytes, 2), WIDTH(0, 13), WIDTH(1, 3) } },
		{ "pairs without tables", { POKE(fields[1].table_count, 0), POKE(recipe.run_elems, 0) } },
		{ "pairs of a field that is not the last", { WIDTH(0, 2), WIDTH(2, 2), POKE(recipe.field_count, 3) } },
		{ "pairs in a raw field", { POKE(fields[0].is_pair, 1) } },
		{ "ZERO in pairs", { POKE(fields[1].has_zero, 1) } },
		{ "base in pairs", { POKE(fields[1].base, 1) } },
		{ "half a pair of five bits", { POKE(tables[1][0].freq[16], 1) } },
		{ "half a pair of eight bits", { POKE(tables[1][1].freq[255], 1) } },
	};

	static const struct recipe_case differences[] = {
		{ "unknown difference", { POKE(recipe.difference, 3) } },
		{ "contexts without a difference", { POKE(recipe.difference, 0) } },
		{ "rotation in a difference", { POKE(recipe.transform, WCX_TRANSFORM_ROTATE) } },
		{ "LEFT in a difference", { POKE(recipe.predictor, WCX_PREDICT_LEFT) } },
		{ "a context too few", { POKE(recipe.context_count, 2), POKE(recipe.thresholds[1], 0) } },
		{ "a context too many", { POKE(recipe.context_count, 4), POKE(recipe.thresholds[1], 3) } },
		{ "no contexts",
		  { POKE(recipe.context_count, 0), POKE(recipe.thresholds[0], 0), POKE(recipe.thresholds[1], 0) } },
		{ "one context", { POKE(recipe.context_count, 1) } },
		{ "nine contexts", { POKE(recipe.context_count, 9) } },
		{ "threshold 0", { POKE(recipe.thresholds[0], 0) } },
		{ "equal thresholds", { POKE(recipe.thresholds[0], 255) } },
		{ "a threshold too many", { POKE(recipe.thresholds[2], 255) } },
		{ "three tables without contexts", { POKE(fields[1].by_context, 0) } },
		{ "two tables for three contexts", { POKE(fields[1].table_count, 2) } },
		{ "a choice of tables", { POKE(fields[2].table_count, 2), POKE(recipe.run_elems, 128) } },
		{ "run without choices", { POKE(recipe.run_elems, 128) } },
		{ "contexts of a raw field", { POKE(fields[0].by_context, 1) } },
		{ "ZERO", { WIDTH(0, 4), WIDTH(1, 12), POKE(fields[1].has_zero, 1) } },
		{ "ZERO without contexts", { WIDTH(0, 4), WIDTH(2, 12), POKE(fields[2].has_zero, 1) } },
		{ "sets without contexts",
		  { POKE(fields[2].set_bits, 1), POKE(fields[2].table_count, 2), POKE(recipe.run_elems, 128) } },
		{ "sets of a raw field", { POKE(fields[0].set_bits, 1), POKE(recipe.run_elems, 128) } },
		{ "a set too many", { POKE(fields[1].set_bits, 1), POKE(recipe.run_elems, 128) } },
	};
	static const struct recipe_case sets[] = {
		{ "sets without a run", { POKE(recipe.run_elems, 0) } },
		{ "run of half a line", { POKE(recipe.run_elems, 64) } },
		{ "tables of one set", { POKE(fields[1].table_count, 3) } },
		{ "tables of four sets", { POKE(fields[1].table_count, 12) } },
		{ "eight sets", { POKE(fields[1].table_count, 24), POKE(fields[1].set_bits, 3) } },
		{ "256 sets", { POKE(fields[1].table_count, 0), POKE(fields[1].set_bits, 8) } },
		{ "sets where contexts are none", { POKE(fields[1].by_context, 0) } },
		{ "symbols of sets in a raw field", { POKE(fields[1].table_count, 0) } },
	};

	static const struct recipe_case escapes[] = {
		{ "escapes without a difference",
		  { POKE(recipe.difference, 0), POKE(recipe.context_count, 0), POKE(recipe.thresholds[0], 0) } },
		{ "escapes in elements of four bytes", { POKE(recipe.elem_bytes, 4) } },
		{ "escapes below a raw field", { POKE(recipe.field_count, 2), WIDTH(0, 9), WIDTH(1, 7) } },
		{ "escapes with a base", { POKE(fields[0].base, 1) } },
		{ "escapes in a raw field", { POKE(fields[0].table_count, 0), POKE(fields[0].by_context, 0) } },
		{ "fine frequencies with escapes", { POKE(tables[0][1].freq[0], 4090), POKE(tables[0][1].freq[255], 6) } },
		{ "one frequency that is fine", { POKE(tables[0][0].freq[0], 4091), POKE(tables[0][0].freq[1], 1) } },
	};

	static const struct recipe_case pairs[] = {
		{ "pairs of eight bits without a difference", { POKE(recipe.difference, 0) } },
		{ "pairs of two bytes in a difference", { POKE(recipe.elem_bytes, 2), WIDTH(0, 16) } },
		{ "pairs of four bits in a difference", { POKE(recipe.field_count, 2), WIDTH(0, 4), WIDTH(1, 4) } },
		{ "pairs with a base in a difference", { POKE(fields[0].base, 1) } },
		{ "pairs with ZERO in a difference", { POKE(fields[0].has_zero, 1) } },
		{ "two tables of pairs in a difference", { POKE(fields[0].table_count, 2), POKE(recipe.run_elems, 128) } },
		{ "pairs by context in a difference",
		  { POKE(recipe.context_count, 2), POKE(recipe.thresholds[0], 7), POKE(fields[0].by_context, 1),
		    POKE(fields[0].table_count, 2) } },
		{ "a half of 16 in a difference", { POKE(tables[0][0].freq[15], 95), POKE(tables[0][0].freq[16], 1) } },
	};

	check_recipe_cases(make_recipe_with_difference_pairs, pairs, WCX_ARRAY_COUNT(pairs));
	check_recipe_cases(make_recipe_with_escapes, escapes, WCX_ARRAY_COUNT(escapes));
	check_recipe_cases(make_difference_recipe, differences, WCX_ARRAY_COUNT(differences));
	check_recipe_cases(make_recipe_with_sets, sets, WCX_ARRAY_COUNT(sets));
	check_recipe_cases(make_sound_recipe, cases, WCX_ARRAY_COUNT(cases));
	check_recipe_cases(make_folded_recipe, folded, WCX_ARRAY_COUNT(folded));
}

static void recipes_at_the_edge_of_a_rule_are_accepted(void)
{
	struct model model;

	make_sound_recipe(&model);
	model.recipe.run_elems = 128;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.recipe.run_elems = 65536;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.fields[4].base = 0;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.fields[4].width = 9;
	model.fields[0].width = 12;
	model.fields[4].base = 256;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.fields[4].has_zero = 0;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.tables[2][1].freq[7] = 1;
	model.tables[3][0].freq[255] = 1;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.recipe.predictor = WCX_PREDICT_NONE;
	model.recipe.transform = WCX_TRANSFORM_ROTATE;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
}

static void folds_and_pairs_at_the_edge_of_a_rule_are_accepted(void)
{
	for (uint32_t tables = 1; tables <= 4; tables *= 2) {
		for (uint32_t transform = 0; transform < WCX_TRANSFORM_COUNT; transform++) {
			struct model model;

			/* Pairs with every transform, and with a predictor where there is none. */
			make_folded_recipe(&model);
			model.recipe.transform = (uint8_t)transform;
			model.recipe.run_elems = tables > 1 ? 128 : 0;
			model.fields[1].table_count = (uint8_t)tables;
			model.tables[1][tables - 1].freq[15] = 1;
			CHECK(wcx_recipe_check(&model.recipe) == NULL);
			model.recipe.predictor = WCX_PREDICT_LEFT2;
			CHECK((wcx_recipe_check(&model.recipe) == NULL) == (transform == WCX_TRANSFORM_NONE));
		}
	}
	/* Folding where the first field, of any width, has no tables, whatever the others have. */
	for (uint32_t width = 1; width < 8; width++) {
		struct model model;

		model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
		model_add(&model, width, 0, 0, NOISE, 0);
		model_add(&model, 8 - width, width % 2, 0, BELL, 0);
		CHECK(wcx_recipe_check(&model.recipe) == NULL);
	}
}

/* Fields of the widths given, which make up eight bytes. */
static const char *check_widths(const uint8_t *widths)
{
	struct model model;

	model_start(&model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	for (; *widths; widths++)
		model_add(&model, *widths, 0, 0, NOISE, 0);
	return wcx_recipe_check(&model.recipe);
}

static void recipes_have_10_fields_and_16_planes_at_most(void)
{
	CHECK(check_widths((uint8_t[]){ 4, 4, 4, 4, 4, 4, 8, 8, 8, 16, 0 }) == NULL);
	CHECK(check_widths((uint8_t[]){ 4, 4, 4, 4, 4, 4, 4, 4, 8, 8, 16, 0 }) != NULL);
	CHECK(check_widths((uint8_t[]){ 7, 7, 7, 7, 18, 2, 16, 0 }) == NULL);
	CHECK(check_widths((uint8_t[]){ 7, 7, 7, 7, 17, 3, 16, 0 }) != NULL);
}

/* Five fields of eight contexts are as many as there may be, or one with four sets of them and another one. */
static void differences_have_40_tables_at_most(void)
{
	for (uint32_t fields = 2; fields <= 6; fields++) {
		const bool has_sets = fields < 5;
		struct model model;

		model_start(&model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model.recipe.difference = WCX_DIFFERENCE_INTEGER;
		model.recipe.context_count = 8;
		for (uint32_t t = 0; t < 7; t++)
			model.recipe.thresholds[t] = (uint8_t)(1 + t);
		for (uint32_t f = 0; f < fields; f++)
			model_add(&model, 8, 8, 0, BELL, 1)->by_context = 1;
		model.fields[0].table_count = has_sets ? 32 : 8;
		model.fields[0].set_bits = has_sets ? 2 : 0;
		model.recipe.run_elems = has_sets ? 128 : 0;
		model_add(&model, 32, 0, 0, NOISE, 0);
		if (fields < 4)
			model_add(&model, 32 - 8 * fields, 0, 0, NOISE, 0);
		else
			model.fields[fields].width = (uint8_t)(64 - 8 * fields);
		CHECK((wcx_recipe_check(&model.recipe) == NULL) == (fields == 2 || fields == 5));
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(recipes_that_break_a_rule_are_refused),
		CHECK_TEST(recipes_at_the_edge_of_a_rule_are_accepted),
		CHECK_TEST(folds_and_pairs_at_the_edge_of_a_rule_are_accepted),
		CHECK_TEST(recipes_have_10_fields_and_16_planes_at_most),
		CHECK_TEST(differences_have_40_tables_at_most),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
