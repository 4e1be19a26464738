/* SPDX-License-Identifier: MIT */
/* The steps of a tensor plan, called one by one: its samples, its counts, and the tables it shares. */
#include "fs/pack/tensor_plan.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fixtures/sample_weights.h"
#include "tests/unit/check.h"

static void check_samples(const char *dtype, uint64_t elem_bytes, uint64_t rows, uint64_t cols)
{
	const uint64_t offset = 1000, shape[2] = { rows, cols }, bytes = rows * cols * elem_bytes;
	const struct wcx_tensor tensor = { "w", dtype, (uint32_t)elem_bytes, shape, 2, offset, bytes, 1 };
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	struct wcx_tensor_plan plan;
	uint64_t sum = 0;
	unsigned count;

	wcx_tensor_plan_init(&plan, offset, bytes, &tensor, false, false);
	count = wcx_tensor_plan_samples(&plan, samples);
	CHECK(count >= 1 && count <= WCX_SAMPLES_MAX);
	for (unsigned i = 0; i < count; i++) {
		uint64_t sample_bytes = wcx_tile_dims_bytes(&samples[i].dims);

		sum += sample_bytes;
		CHECK(sample_bytes > 0 && samples[i].dims.elem_bytes == elem_bytes);
		CHECK(samples[i].offset >= offset && samples[i].offset + sample_bytes <= offset + bytes);
		CHECK((samples[i].offset - offset) % elem_bytes == 0);
		if (samples[i].dims.rows > 1)
			CHECK(samples[i].dims.cols == cols && (samples[i].offset - offset) % (cols * elem_bytes) == 0);
	}
	CHECK(sum <= WCX_SAMPLES_MAX_BYTES && (bytes < 1 << 20 || sum >= 1 << 16));
}

static void samples_of_any_tensor_are_few_and_within_it(void)
{
	static const uint64_t sides[] = { 1, 3, 63, 127, 128, 1000, 16384, 16385, 65536, 65537, 1 << 20, 1 << 25 };
	enum { SIDES = sizeof sides / sizeof sides[0] };

	for (size_t y = 0; y < SIDES; y++)
		for (size_t x = 0; x < SIDES; x++) {
			check_samples("I8", 1, sides[y], sides[x]);
			check_samples("BF16", 2, sides[y], sides[x]);
			check_samples("I32", 4, sides[y], sides[x]);
			check_samples("F64", 8, sides[y], sides[x]);
		}
}

/* Plans Gaussian INT8 weights and counts all tiles, so that the plan can be finished; the caller frees it. */
static void plan_weights(struct wcx_tensor_plan *plan)
{
	enum { ROWS = 100, COLS = 1000 };
	static uint8_t data[ROWS * COLS];
	static struct wcx_plan_counts counts;
	const uint64_t shape[2] = { ROWS, COLS };
	const struct wcx_tensor tensor = { "w", "I8", 1, shape, 2, 0, sizeof data, 1 };
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	unsigned count;

	sample_fill_int8(sample_normal, 0, 3, ROWS, COLS, data);
	wcx_tensor_plan_init(plan, 0, sizeof data, &tensor, false, false);
	count = wcx_tensor_plan_samples(plan, samples);
	for (unsigned i = 0; i < count; i++)
		samples[i].src = data + samples[i].offset;
	sample_require(scratch && wcx_tensor_plan_choose(plan, samples, count) == WCX_OK, "wcx_tensor_plan_choose");
	memset(&counts, 0, sizeof counts);
	for (uint64_t t = 0; t < plan->segment.tile_count; t++) {
		struct wcx_tile_dims tile;
		uint64_t offset;

		wcx_tensor_plan_tile(plan, t, &tile, &offset);
		CHECK(wcx_tensor_plan_count(plan, &tile, data + offset, NULL, scratch, &counts) == WCX_OK);
	}
	wcx_plan_counts_add(plan, &counts);
	wcx_encode_scratch_free(scratch);
}

static void unknown_predictors_and_transforms_are_refused(void)
{
	static const uint8_t src[1000];
	static struct wcx_plan_counts counts;
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	const struct wcx_tile_dims dims = { 1, sizeof src, 1 };
	struct wcx_tensor_plan plan;

	plan_weights(&plan);
	plan.segment.recipe.predictor = WCX_PREDICTOR_COUNT;
	CHECK(wcx_tensor_plan_count(&plan, &dims, src, NULL, scratch, &counts) == WCX_BAD_DATA);
	plan.segment.recipe.predictor = WCX_PREDICT_NONE;
	plan.segment.recipe.transform = WCX_TRANSFORM_COUNT;
	CHECK(wcx_tensor_plan_count(&plan, &dims, src, NULL, scratch, &counts) == WCX_BAD_DATA);
	wcx_encode_scratch_free(scratch);
	wcx_tensor_plan_free(&plan);
}

static void no_table_is_added_beyond_the_formats_limit(void)
{
	static struct wcx_table_library library;

	for (uint32_t more = 0; more <= 1; more++) {
		uint32_t first_table[WCX_FIELDS_MAX], coded = 0;
		struct wcx_tensor_plan plan;

		library.table_count = WCX_MAX_TABLES - more;
		plan_weights(&plan);
		wcx_tensor_plan_finish(&plan, &library, first_table);
		CHECK(wcx_recipe_check(&plan.segment.recipe) == NULL);
		for (uint32_t f = 0; f < plan.segment.recipe.field_count; f++) {
			coded += plan.fields[f].table_count;
			CHECK(first_table[f] + plan.fields[f].table_count <= WCX_MAX_TABLES);
		}
		CHECK(coded == more);
		wcx_tensor_plan_free(&plan);
	}
}

/* The tables of a field, each halfway to a uniform one. */
static void flatten_tables(const struct wcx_field *field, struct wcx_freq_table *ret)
{
	for (uint32_t t = 0; t < field->table_count; t++) {
		uint64_t counts[WCX_SYMBOL_COUNT] = { 0 };

		for (uint32_t s = 0; s < 1u << field->width; s++)
			counts[s] = field->tables[t].freq[s] + ((uint64_t)WCX_PROB_SCALE >> field->width);
		wcx_freq_table_build(counts, &ret[t]);
	}
}

/* They cost the same with every table, so they are no reason to take a worse table from the library. */
static void values_without_a_symbol_make_no_shared_table_cheaper(void)
{
	static struct wcx_table_library library;
	struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX];
	uint32_t first_table[WCX_FIELDS_MAX];
	struct wcx_tensor_plan plan;
	struct wcx_field field;

	for (uint32_t misfits = 0; misfits <= 2000; misfits += 2000) {
		plan_weights(&plan);
		plan.counts->misfits[1] = misfits;
		wcx_tensor_plan_finish(&plan, &library, first_table);
		field = plan.fields[1];
		CHECK(plan.segment.recipe.field_count == 2 && field.table_count && field.width < 8);
		CHECK(first_table[1] == library.table_count);
		flatten_tables(&field, tables);
		wcx_tensor_plan_free(&plan);
		field.tables = tables;
		if (!misfits)
			wcx_table_library_add(&library, &field);
	}
}

static void library_keeps_the_latest_tables(void)
{
	static struct wcx_table_library library;
	struct wcx_freq_table tables[2] = { { { 0 } } };
	struct wcx_field field = { .width = 8, .table_count = 2, .tables = tables };
	enum { SETS = sizeof library.sets / sizeof library.sets[0] };

	for (uint16_t i = 1; i <= SETS + 3; i++) {
		tables[0].freq[0] = i;
		wcx_table_library_add(&library, &field);
	}
	tables[0].freq[0] = 0;
	CHECK(library.set_count == SETS && library.table_count == 2 * (SETS + 3));
	for (uint16_t i = 0; i < SETS; i++) {
		uint16_t number = (uint16_t)(i < 3 ? SETS + i : i);

		CHECK(library.sets[i].first_table == 2u * number);
		CHECK(library.sets[i].field.tables[0].freq[0] == number + 1);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(samples_of_any_tensor_are_few_and_within_it),
		CHECK_TEST(unknown_predictors_and_transforms_are_refused),
		CHECK_TEST(no_table_is_added_beyond_the_formats_limit),
		CHECK_TEST(values_without_a_symbol_make_no_shared_table_cheaper),
		CHECK_TEST(library_keeps_the_latest_tables),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
