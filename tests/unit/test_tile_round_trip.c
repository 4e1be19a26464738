/* SPDX-License-Identifier: MIT */
/* Tiles of all kinds of recipes and sizes: what is encoded decodes to the same bytes with every variant. */
#include "tests/fixtures/codec_samples.h"

/* How many tiles whose last field is coded as pairs were seen to have what. */
struct seen_pairs {
	unsigned all, many_lines, runs, exceptions, scarce, without_words, ragged, odd, exceptions_carried;
};

/* What tiles of random recipes were seen to have, so that the test cannot pass without it. */
struct seen {
	uint64_t raw_widths, coded_widths, constant_widths; /* sets of widths; */
	uint64_t planes[4];                                 /* of planes, for each size of an element; */
	uint64_t table_counts, pair_table_counts, transforms, predictors, modes, exception_bytes;
	unsigned plane_carried, exceptions_carried, exceptions_stored, none_carried, without_coded, most_coded, with_base,
		ragged;
	/* Fields of ZERO that have both zeros and others, at a base above 0. */
	unsigned zero;
	struct seen_pairs fused, pairs; /* with FOLD, four raw bits and nothing else; otherwise */
};

static int has_both_zeros_and_others(const struct tile *tile, uint32_t f)
{
	size_t zeros = 0;

	for (size_t i = 0; i < tile->n; i++)
		zeros += value_at(tile, f, i) == 0;
	return zeros > 0 && zeros < tile->n;
}

/* What a tile has whose last field is coded as pairs. */
static void note_pairs(const struct tile *tile, const struct wcx_tile_layout *layout, struct seen *seen)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	const struct wcx_coded_field *coded = &layout->coded[layout->coded_count - 1];
	const size_t lines = (tile->n + 127) / 128;
	int fused = recipe->transform == WCX_TRANSFORM_FOLD && recipe->field_count == 2 && recipe->fields[0].width == 4 &&
		    coding_of(tile, 0) == WCX_FIELD_RAW;
	struct seen_pairs *pairs = fused ? &seen->fused : &seen->pairs;

	seen->pair_table_counts |= UINT64_C(1) << recipe->fields[coded->field].table_count;
	pairs->all++;
	/* More words than the last lines can take: many are decoded in the fast loops. */
	pairs->many_lines += lines > 100 && coded->words_bytes > 4096;
	pairs->runs += recipe->fields[coded->field].table_count > 1 && tile->n > 2 * (size_t)recipe->run_elems;
	pairs->exceptions += layout->exception_count > 0;
	/* Those loops end where 256 bytes are left, with many lines to go; or they do not start. */
	pairs->scarce += coded->words_bytes > 256 && coded->words_bytes < 16 * lines;
	pairs->without_words += coded->words_bytes < 128 && lines > 8;
	pairs->ragged += tile->n % 128 != 0;
	pairs->odd += tile->n % 2 != 0;
	pairs->exceptions_carried += layout->exception_carried > 0;
}

static void note_field(const struct tile *tile, uint32_t f, struct seen *seen)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	const struct wcx_field *field = &recipe->fields[f];
	uint64_t *widths[] = { &seen->raw_widths, &seen->coded_widths, &seen->constant_widths };

	*widths[coding_of(tile, f)] |= UINT64_C(1) << field->width;
	if (coding_of(tile, f) == WCX_FIELD_RAW)
		seen->planes[__builtin_ctz(recipe->elem_bytes)] |= field->width;
	if (coding_of(tile, f) == WCX_FIELD_RANS) {
		seen->table_counts |= UINT64_C(1) << field->table_count;
		seen->with_base += field->base != 0 && !field->has_zero;
		seen->zero += field->base != 0 && field->has_zero && has_both_zeros_and_others(tile, f);
	}
}

static void note_seen(const struct tile *tile, struct seen *seen)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	const uint32_t size = (uint32_t)__builtin_ctz(recipe->elem_bytes);
	struct wcx_tile_layout layout;

	seen->modes |= UINT64_C(1) << tile->mode;
	if (tile->mode != WCX_TILE_CODED)
		return;
	layout = layout_of(tile);
	seen->transforms |= UINT64_C(1) << (4 * recipe->transform + size);
	seen->predictors |= UINT64_C(1) << (4 * recipe->predictor + size);
	seen->plane_carried += layout.plane_carried != 0;
	seen->exceptions_carried += layout.exception_carried != 0;
	seen->exceptions_stored += layout.exception_count && !layout.exception_carried;
	seen->none_carried += layout.coded_count && !layout.plane_carried && !layout.exception_carried;
	if (layout.exception_count)
		seen->exception_bytes |= UINT64_C(1)
					 << (recipe->fields[layout.coded[layout.coded_count - 1].field].width > 8);
	seen->without_coded += layout.coded_count == 0;
	seen->ragged += tile->n % 128 != 0;
	if (layout.coded_count > seen->most_coded)
		seen->most_coded = layout.coded_count;
	if (layout.coded_count && recipe->fields[layout.coded[layout.coded_count - 1].field].is_pair)
		note_pairs(tile, &layout, seen);
	for (uint32_t f = 0; f < recipe->field_count; f++)
		note_field(tile, f, seen);
}

/* A number of elements at the edge of something, or any; often many of a byte. */
static uint32_t draw_elems(struct sample_random *random, uint32_t elem_bytes)
{
	static const uint32_t edges[] = {
		1, 2, 31, 32, 33, 64, 127, 128, 129, 255, 256, 257, 384, 1024, 16384, 65535, 65536
	};

	if (sample_below(random, 4) == 0)
		return edges[sample_below(random, WCX_ARRAY_COUNT(edges))];
	if (elem_bytes == 1 && sample_below(random, 6) == 0)
		return 1 + (uint32_t)sample_below(random, WCX_TILE_MAX_ELEMS);
	return 1 + (uint32_t)sample_below(random, 6000);
}

static void tiles_of_random_recipes_come_back(void)
{
	struct sample_random random = { 1 };
	struct seen seen = { 0 };

	for (uint64_t round = 0; round < 2000; round++) {
		uint32_t elems, rows;
		struct model model;
		struct tile tile;

		draw_model(&model, &random);
		elems = draw_elems(&random, model.recipe.elem_bytes);
		rows = 1 + (uint32_t)sample_below(&random, elems < 300 ? elems : 300);
		tile_alloc(&tile, &model, rows, elems / rows);
		tile_draw(&tile, round);
		model_learn(&model, &tile, sample_below(&random, 2));
		for (uint32_t f = 0; f < model.recipe.field_count && round % 2; f++)
			model.outliers[f] = model.source[f] == BELL && sample_below(&random, 2) ? 0.01 : 0;
		tile_draw(&tile, round + 2000 * (round % 4 / 2));
		check_round_trip(&tile);
		note_seen(&tile, &seen);
		tile_free(&tile);
	}
	CHECK(seen.raw_widths == 0x1FFFFFFFE);
	CHECK(seen.coded_widths == 0x1FFFE);
	CHECK(seen.constant_widths >> 24 && (seen.constant_widths & 0x1FFFE) == 0x1FFFE);
	/* All planes but those that would be the whole element, which no coded tile can have. */
	CHECK(seen.planes[0] == 0x7 && seen.planes[1] == 0xF && seen.planes[2] == 0x1F && seen.planes[3] == 0x3F);
	CHECK(seen.table_counts == (1 << 1 | 1 << 2 | 1 << 4) && seen.pair_table_counts == seen.table_counts);
	CHECK(seen.transforms == 0x1FF && seen.predictors == 0xFFFF && seen.modes == 0x7);
	CHECK(seen.plane_carried > 50 && seen.none_carried > 50 && seen.without_coded > 10);
	CHECK(seen.exceptions_carried > 10 && seen.exceptions_stored > 10 && seen.exception_bytes == 3);
	CHECK(seen.most_coded > 4 && seen.with_base > 50 && seen.zero > 50 && seen.ragged > 50);
	CHECK(seen.fused.all > 60 && seen.fused.many_lines > 8 && seen.fused.runs > 15 && seen.fused.exceptions > 20);
	CHECK(seen.fused.scarce > 4 && seen.fused.without_words > 4 && seen.fused.ragged > 50 && seen.fused.odd > 10);
	CHECK(seen.pairs.all > 100 && seen.pairs.many_lines > 10 && seen.pairs.runs > 25 && seen.pairs.exceptions > 30);
	CHECK(seen.pairs.scarce > 8 && seen.pairs.without_words > 10 && seen.pairs.ragged > 80 && seen.pairs.odd > 30);
	CHECK(seen.pairs.exceptions_carried > 5);
}

static void small_tiles_of_all_dims_come_back(void)
{
	unsigned modes[WCX_TILE_MODE_COUNT] = { 0 };

	for (uint32_t kind = 0; kind < WEIGHTS_COUNT * WCX_PREDICTOR_COUNT; kind++) {
		struct model model;
		struct tile tile;

		make_weight_model(&model, (enum weights)(kind % WEIGHTS_COUNT), (enum wcx_predictor)(kind / WEIGHTS_COUNT));
		tile_alloc(&tile, &model, 40, 50);
		tile_draw(&tile, 3);
		model_learn(&model, &tile, 1);
		tile_free(&tile);
		for (uint32_t elems = 1; elems <= 300; elems++) {
			for (uint32_t rows = 1; rows <= elems; rows++) {
				if (elems % rows)
					continue;
				tile_alloc(&tile, &model, rows, elems / rows);
				tile_draw(&tile, elems);
				check_round_trip(&tile);
				modes[tile.mode]++;
				tile_free(&tile);
			}
		}
	}
	/* A lone element is constant, and a few are too few to be coded, whatever they are. */
	CHECK(modes[WCX_TILE_CONSTANT] > 0 && modes[WCX_TILE_STORED] > 0 && modes[WCX_TILE_CODED] > 0);
}

/* From a line or two on, each with some elements more than another: words, pairs, lanes and units are cut at every place. */
static void tiles_of_every_number_of_elements_come_back(void)
{
	for (uint32_t weights = 0; weights < WEIGHTS_COUNT; weights++) {
		unsigned coded = 0;
		struct model model;
		struct tile tile;

		make_weight_model(&model, (enum weights)weights, WCX_PREDICT_NONE);
		tile_alloc(&tile, &model, 40, 50);
		tile_draw(&tile, 3);
		model_learn(&model, &tile, 1);
		tile_free(&tile);
		for (uint32_t elems = 500; elems < 1050; elems++) {
			tile_alloc(&tile, &model, 1, elems);
			tile_draw(&tile, elems);
			check_round_trip(&tile);
			coded += tile.mode == WCX_TILE_CODED;
			tile_free(&tile);
		}
		CHECK(coded > 400);
	}
}

static void large_tiles_come_back(void)
{
	static const uint32_t sides[][2] = {
		{ 256, 256 }, { 1, 65536 }, { 65536, 1 }, { 255, 257 }, { 3, 21845 }, { 129, 508 },
	};

	for (uint32_t i = 0; i < WCX_ARRAY_COUNT(sides); i++) {
		for (uint32_t weights = 0; weights < WEIGHTS_COUNT; weights++) {
			struct model model;
			struct tile tile;

			make_weight_model(&model, (enum weights)weights,
					  (enum wcx_predictor)((weights + i) % WCX_PREDICTOR_COUNT));
			tile_alloc(&tile, &model, sides[i][0], sides[i][1]);
			tile_draw(&tile, i);
			model_learn(&model, &tile, 0);
			check_round_trip(&tile);
			CHECK(tile.mode == WCX_TILE_CODED &&
			      coding_of(&tile, model.recipe.field_count - 1u) == WCX_FIELD_RANS);
			tile_free(&tile);
		}
	}
}

/* Ten fields of an element of eight bytes, nine of them with the bytes of a payload in the header. */
static void tile_of_ten_coded_fields_comes_back(void)
{
	static const uint32_t widths[] = { 4, 4, 4, 8, 8, 8, 8, 8, 6, 6 };
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	size_t end;

	model_start(&model, 8, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 128);
	for (uint32_t f = 0; f < 10; f++)
		model_add(&model, widths[f], 1u << f % 3, 0, BELL, 0.5 + f / 8.0);
	tile_alloc(&tile, &model, 1, 1999);
	tile_draw(&tile, 61);
	model_learn(&model, &tile, 0);
	check_round_trip(&tile);
	layout = layout_of(&tile);
	CHECK(layout.coded_count == 10 && layout.plane_count == 0);
	CHECK(wcx_le32_read(tile.packed) == 0x55555); /* and no exceptions */
	end = 4 + 9 * 4;
	for (uint32_t i = 0; i < 10; i++) {
		size_t choices = plain_choices_bytes(&model.recipe, &model.fields[i], tile.n);
		size_t bytes = choices + layout.coded[i].states_bytes + layout.coded[i].words_bytes;

		CHECK(layout.coded[i].field == i && layout.coded[i].offset == padded(end, 4) + choices);
		CHECK(i == 9 || bytes == wcx_le32_read(tile.packed + 4 + 4 * i));
		end = padded(end, 4) + bytes;
	}
	CHECK(end == tile.packed_bytes);
	tile_free(&tile);
}

/* The same tables, first for a field of 4 bits, then for one of 8, where a symbol has no frequency, and then for pairs. */
static void scratch_serves_one_recipe_after_the_other(void)
{
	struct model narrow, wide, pairs;
	struct tile tile;

	model_start(&narrow, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&narrow, 4, 1, 0, BELL, 2);
	model_add(&narrow, 4, 0, 0, NOISE, 0);
	tile_alloc(&tile, &narrow, 20, 50);
	tile_draw(&tile, 91);
	model_learn(&narrow, &tile, 0);
	check_round_trip(&tile);
	CHECK(coding_of(&tile, 0) == WCX_FIELD_RANS);
	tile_free(&tile);

	model_start(&wide, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&wide, 8, 1, 0, BELL, 2);
	wide.tables[0][0] = narrow.tables[0][0];
	tile_alloc(&tile, &wide, 20, 50);
	tile_draw(&tile, 92);
	for (size_t i = 0; i < tile.n; i++)
		tile.data[i] &= 3;
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	tile.data[777] = 200;
	check_round_trip(&tile);
	CHECK(layout_of(&tile).exception_count == 1);
	tile_free(&tile);

	for (uint32_t is_pair = 0; is_pair < 4; is_pair++) {
		model_start(&pairs, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model_add(&pairs, 4, 0, 0, NOISE, 0);
		model_add(&pairs, 4, 1, 0, BELL, 1)->is_pair = is_pair % 2;
		pairs.tables[1][0] = narrow.tables[0][0];
		tile_alloc(&tile, &pairs, 20, 50);
		tile_draw(&tile, 93);
		check_round_trip(&tile);
		CHECK(coding_of(&tile, 1) == WCX_FIELD_RANS);
		tile_free(&tile);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(tiles_of_random_recipes_come_back),
		CHECK_TEST(small_tiles_of_all_dims_come_back),
		CHECK_TEST(tiles_of_every_number_of_elements_come_back),
		CHECK_TEST(large_tiles_come_back),
		CHECK_TEST(tile_of_ten_coded_fields_comes_back),
		CHECK_TEST(scratch_serves_one_recipe_after_the_other),
	};

	return codec_samples_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
