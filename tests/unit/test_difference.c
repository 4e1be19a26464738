/* SPDX-License-Identifier: MIT */
/* Differences from a base: tiles of them come back, and residuals, contexts and counts are those of the document. */
#include "codec/difference.h"
#include "tests/fixtures/codec_samples.h"

/* Elements of a model's weights, normally distributed with sigma 0.02 or, in INT8, 30; or random bytes. */
enum kind {
	BF16,
	BF16_ESCAPES,
	F16,
	F32,
	F64,
	INT8,
	INT8_PAIRS,
	INT16,
	INT16_ESCAPES,
	RANDOM_8,
	RANDOM_8_PAIRS,
	RANDOM_16,
	RANDOM_32,
	RANDOM_64,
	KIND_COUNT
};

static const struct {
	uint32_t elem_bytes;
	enum wcx_difference difference;
	uint32_t raw, widths[4], base;
	bool escapes, pairs;
} kinds[KIND_COUNT] = {
	[BF16] = { 2, WCX_DIFFERENCE_FLOAT, 0, { 16 }, 0, false, false },
	[BF16_ESCAPES] = { 2, WCX_DIFFERENCE_FLOAT, 0, { 16 }, 0, true, false },
	[F16] = { 2, WCX_DIFFERENCE_FLOAT, 0, { 8, 8 }, 0, false, false },
	[F32] = { 4, WCX_DIFFERENCE_FLOAT, 8, { 8, 8, 8 }, 0, false, false },
	[F64] = { 8, WCX_DIFFERENCE_FLOAT, 32, { 8, 8, 8, 8 }, 0, false, false },
	[INT8] = { 1, WCX_DIFFERENCE_INTEGER, 0, { 8 }, 0, false, false },
	[INT8_PAIRS] = { 1, WCX_DIFFERENCE_INTEGER, 0, { 8 }, 0, false, true },
	[INT16] = { 2, WCX_DIFFERENCE_INTEGER, 3, { 13 }, 0, false, false },
	[INT16_ESCAPES] = { 2, WCX_DIFFERENCE_INTEGER, 0, { 16 }, 0, true, false },
	[RANDOM_8] = { 1, WCX_DIFFERENCE_FLOAT, 0, { 8 }, 0, false, false },
	[RANDOM_8_PAIRS] = { 1, WCX_DIFFERENCE_FLOAT, 0, { 8 }, 0, false, true },
	[RANDOM_16] = { 2, WCX_DIFFERENCE_INTEGER, 5, { 11 }, 700, false, false },
	[RANDOM_32] = { 4, WCX_DIFFERENCE_INTEGER, 16, { 16 }, 0, false, false },
	[RANDOM_64] = { 8, WCX_DIFFERENCE_INTEGER, 32, { 16, 16 }, 3, false, false },
};

static uint64_t float_bits(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof bits);
	return bits;
}

/* A weight as an element; halves are cut off, not rounded, which makes no difference here. */
static uint64_t element_of(enum kind kind, double weight, struct sample_random *random)
{
	uint64_t bits;

	switch (kind) {
	case BF16:
	case BF16_ESCAPES:
		return float_bits((float)weight) >> 16;
	case F16: /* without subnormals */
		bits = float_bits((float)weight);
		if ((bits & 0x7FFFFFFF) >> 13 < 0x1C000)
			return bits >> 16 & 0x8000;
		return (bits >> 16 & 0x8000) | (((bits & 0x7FFFFFFF) >> 13) - 0x1C000);
	case F32:
		return float_bits((float)weight);
	case F64:
		memcpy(&bits, &weight, sizeof bits);
		return bits;
	case INT8:
	case INT8_PAIRS:
		return sample_clip(1500 * weight);
	case INT16:
	case INT16_ESCAPES:
		return (uint16_t)(int16_t)lrint(100000 * weight);
	default:
		return sample_next(random);
	}
}

static void put_element(uint8_t *elements, uint32_t elem_bytes, size_t i, uint64_t element)
{
	for (uint32_t b = 0; b < elem_bytes; b++)
		elements[i * elem_bytes + b] = (uint8_t)(element >> 8 * b);
}

/*
 * Weights of a base, and those of a tuned model, which are off by `drift` of their deviation; three times as much in the
 * runs of each set of tables as in those of the one before.
 */
static void draw_weights(struct tile *tile, enum kind kind, double drift, uint64_t seed)
{
	struct sample_random random = { seed };

	for (size_t i = 0; i < tile->n; i++) {
		const uint32_t set = table_meant(tile->model, tile->model->recipe.field_count - 1u, i);
		const double weight = 0.02 * sample_normal(&random);
		const double tuned = weight + 0.02 * drift * pow(3, set) * sample_normal(&random);

		put_element(tile->base, tile->dims.elem_bytes, i, element_of(kind, weight, &random));
		put_element(tile->data, tile->dims.elem_bytes, i, element_of(kind, tuned, &random));
	}
}

/* Thresholds at equal parts of the keys of the base, as far as they are distinct. */
static void draw_thresholds(struct model *model, const struct tile *tile, uint32_t context_count)
{
	uint32_t counts[WCX_CONTEXT_KEYS] = { 0 }, t = 0, below = 0;

	model->recipe.context_count = (uint8_t)context_count;
	for (size_t i = 0; i < tile->n; i++)
		counts[plain_key(&model->recipe, plain_element(&model->recipe, tile->base, i))]++;
	for (uint32_t key = 1; key < WCX_CONTEXT_KEYS && t + 1 < context_count; key++) {
		below += counts[key - 1];
		if ((size_t)below * context_count >= tile->n * (t + 1) || WCX_CONTEXT_KEYS - key < context_count)
			model->recipe.thresholds[t++] = (uint8_t)key;
	}
}

/* The recipe for a kind; its fields have a table for each context if there are any. */
static void make_difference_model(struct model *model, enum kind kind, uint32_t context_count)
{
	model_start(model, kinds[kind].elem_bytes, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model->recipe.difference = (uint8_t)kinds[kind].difference;
	if (kinds[kind].raw)
		model_add(model, kinds[kind].raw, 0, 0, NOISE, 0);
	for (uint32_t f = 0; f < 4 && kinds[kind].widths[f]; f++) {
		const uint32_t width = kinds[kind].widths[f];
		const bool by_context = context_count > 0 && !kinds[kind].pairs;
		struct wcx_field *field =
			model_add(model, width, by_context ? context_count : 1, width > 8 ? kinds[kind].base : 0, BELL, 8);

		field->by_context = by_context;
		field->has_escapes = kinds[kind].escapes;
		field->is_pair = kinds[kind].pairs;
	}
}

/* Gives the fields 2^set_bits sets of tables, as long as they have at most 40 tables in all. */
static void add_sets(struct model *model, uint32_t set_bits, uint32_t run)
{
	uint32_t tables = 0;

	for (uint32_t f = 0; f < model->recipe.field_count; f++)
		tables += model->fields[f].table_count;
	for (uint32_t f = model->recipe.field_count; f-- > 0;) {
		struct wcx_field *field = &model->fields[f];
		const uint32_t more = field->table_count * ((1u << set_bits) - 1);

		if (!field->by_context || tables + more > WCX_RECIPE_TABLES_MAX)
			continue;
		tables += more;
		field->set_bits = (uint8_t)set_bits;
		field->table_count = (uint8_t)(field->table_count << set_bits);
		model->recipe.run_elems = run;
	}
}

static void change_some(struct tile *tile, uint32_t one_in, uint64_t seed)
{
	struct sample_random random = { seed };

	for (size_t i = 0; i < tile->n; i++)
		if (sample_below(&random, one_in) == 0)
			put_element(tile->data, tile->dims.elem_bytes, i, sample_next(&random));
}

/* What tiles were seen to have, so that the tests cannot pass without it. */
struct seen {
	uint64_t modes, contexts, widths;
	unsigned sets[WCX_SETS_MAX], coded, exceptions, exceptions_carried, planes_carried, ragged;
};

/* The set that a run of a field has chosen. */
static uint32_t chosen_set(const struct tile *tile, const struct wcx_coded_field *coded, size_t run)
{
	const struct wcx_field *field = &tile->model->fields[coded->field];
	const uint32_t bytes = wcx_choices_bytes(&tile->model->recipe, field, (uint32_t)tile->n);

	return bits_at(tile->packed + coded->offset - bytes, run * field->set_bits, field->set_bits);
}

static void note_seen(const struct tile *tile, struct seen *seen)
{
	struct wcx_tile_layout layout;

	seen->modes |= UINT64_C(1) << tile->mode;
	if (tile->mode != WCX_TILE_CODED)
		return;
	layout = layout_of(tile);
	seen->coded++;
	seen->exceptions += layout.exception_count > 0;
	seen->exceptions_carried += layout.exception_carried > 0;
	seen->planes_carried += layout.plane_carried > 0;
	seen->ragged += tile->n % 128 != 0;
	for (uint32_t i = 0; i < layout.coded_count; i++) {
		const struct wcx_field *field = &tile->model->fields[layout.coded[i].field];

		seen->contexts |= UINT64_C(1) << (field->by_context ? wcx_set_tables(field) : 0);
		for (size_t first = 0; first < tile->n && field->set_bits; first += tile->model->recipe.run_elems)
			seen->sets[chosen_set(tile, &layout.coded[i], first / tile->model->recipe.run_elems)]++;
		seen->widths |= UINT64_C(1) << field->width;
	}
}

static const uint32_t context_counts[] = { 0, 2, 5, 8 };

static void tuned_weights_come_back(void)
{
	static const double drifts[] = { 1e-5, 1e-4, 1e-3, 1e-2, 1e-1 };
	struct seen seen = { 0 };

	for (uint32_t kind = 0; kind < KIND_COUNT; kind++)
		for (uint32_t c = 0; c < WCX_ARRAY_COUNT(context_counts); c++)
			for (uint32_t d = 0; d < WCX_ARRAY_COUNT(drifts); d++) {
				struct model model;
				struct tile tile;

				make_difference_model(&model, (enum kind)kind, context_counts[c]);
				tile_alloc(&tile, &model, 1, d == 0 ? 65536 : 3000 + 977 * d);
				draw_weights(&tile, (enum kind)kind, drifts[d], 100 * kind + d);
				if (context_counts[c])
					draw_thresholds(&model, &tile, context_counts[c]);
				model_learn(&model, &tile, d % 2);
				check_round_trip(&tile);
				note_seen(&tile, &seen);
				change_some(&tile, 20u << 2 * d, d);
				check_round_trip(&tile);
				note_seen(&tile, &seen);
				tile_free(&tile);
			}
	CHECK(seen.contexts == (1 << 0 | 1 << 2 | 1 << 5 | 1 << 8));
	CHECK(seen.modes == (1 << WCX_TILE_STORED | 1 << WCX_TILE_CODED));
	CHECK((seen.widths & (1 << 8 | 1 << 13 | 1 << 16)) == (1 << 8 | 1 << 13 | 1 << 16));
	CHECK(seen.coded > 150 && seen.exceptions > 60 && seen.exceptions_carried > 20 && seen.planes_carried > 40);
	CHECK(seen.ragged > 100);
}

/* Runs choose sets, in one field or in several, with runs of one line to those of a tile. */
static void runs_with_sets_of_tables_come_back(void)
{
	static const uint32_t runs[] = { 128, 384, 1024, 65536 }, contexts[] = { 2, 3, 8 };
	struct seen seen = { 0 };

	for (uint32_t kind = 0; kind < KIND_COUNT; kind++)
		for (uint32_t c = 0; c < WCX_ARRAY_COUNT(contexts); c++)
			for (uint32_t r = 0; r < WCX_ARRAY_COUNT(runs); r++) {
				const uint32_t bits = 1 + (kind + c + r) % 2;
				struct model model;
				struct tile tile;

				make_difference_model(&model, (enum kind)kind, contexts[c]);
				add_sets(&model, bits, runs[r]);
				tile_alloc(&tile, &model, 1, 5000 + 61 * kind);
				draw_weights(&tile, (enum kind)kind, 3e-3, 100 * kind + c);
				draw_thresholds(&model, &tile, contexts[c]);
				model_learn(&model, &tile, r % 2);
				check_round_trip(&tile);
				note_seen(&tile, &seen);
				change_some(&tile, 50, r);
				check_round_trip(&tile);
				note_seen(&tile, &seen);
				tile_free(&tile);
			}
	for (uint32_t set = 0; set < WCX_SETS_MAX; set++)
		CHECK(seen.sets[set] > (set < 2 ? 400 : 100));
	CHECK(seen.coded > 150 && seen.exceptions > 60 && seen.exceptions_carried > 20 && seen.planes_carried > 40);
	CHECK(seen.contexts & 1 << 8 && seen.contexts & 1 << 3 && seen.contexts & 1 << 2);
}

/* Eight fields, each with tables for two contexts: more than the decoder caches as sets. */
static void many_fields_with_contexts_come_back(void)
{
	for (uint32_t set_bits = 0; set_bits <= 1; set_bits++) {
		struct seen seen = { 0 };
		struct model model;
		struct tile tile;

		model_start(&model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model.recipe.difference = WCX_DIFFERENCE_FLOAT;
		for (uint32_t f = 0; f < 8; f++)
			model_add(&model, 8, 2, 0, BELL, 8)->by_context = true;
		if (set_bits)
			add_sets(&model, set_bits, 128);
		tile_alloc(&tile, &model, 1, 3000);
		draw_weights(&tile, F64, 1e-9, 3);
		draw_thresholds(&model, &tile, 2);
		model_learn(&model, &tile, 0);
		for (unsigned again = 0; again < 2; again++) {
			check_round_trip(&tile);
			note_seen(&tile, &seen);
			change_some(&tile, 500, 7);
			model_learn(&model, &tile, 0);
		}
		CHECK(seen.coded == 2 && seen.contexts == 1 << 2 && (seen.sets[1] > 0) == (set_bits > 0));
		tile_free(&tile);
	}
}

/* A run takes the set that costs least: with tables for weights that drift by more or less, their own. */
static void runs_choose_the_set_that_fits_them(void)
{
	unsigned right = 0, all = 0;
	struct model model;
	struct tile tile;

	make_difference_model(&model, BF16, 8);
	add_sets(&model, 2, 256);
	tile_alloc(&tile, &model, 1, 16384);
	draw_weights(&tile, BF16, 3e-3, 5);
	draw_thresholds(&model, &tile, 8);
	model_learn(&model, &tile, 1);
	check_round_trip(&tile);
	for (size_t run = 0; run < tile.n / 256; run++, all++) {
		const struct wcx_tile_layout layout = layout_of(&tile);

		right += chosen_set(&tile, &layout.coded[0], run) == run % 4;
	}
	CHECK(all == 64 && right == all);
	tile_free(&tile);
}

/* Words, lanes and lines are cut at every place. */
static void tiles_of_every_number_of_elements_come_back(void)
{
	struct seen seen = { 0 };

	for (uint32_t kind = 0; kind < RANDOM_8; kind++) {
		struct model model;
		struct tile tile;

		make_difference_model(&model, (enum kind)kind, 5);
		tile_alloc(&tile, &model, 1, 4000);
		draw_weights(&tile, (enum kind)kind, 1e-3, 7);
		draw_thresholds(&model, &tile, 5);
		model_learn(&model, &tile, 1);
		tile_free(&tile);
		for (uint32_t elems = 1; elems < 700; elems += elems < 140 ? 1 : 11) {
			tile_alloc(&tile, &model, 1, elems);
			draw_weights(&tile, (enum kind)kind, 1e-3, elems);
			check_round_trip(&tile);
			note_seen(&tile, &seen);
			tile_free(&tile);
		}
	}
	CHECK(seen.coded > 400);
}

/* A tile of one residual takes no bytes, whatever it is: 0 if the tile is the base's. */
static void tiles_of_one_residual_are_constant(void)
{
	static const uint32_t residuals[] = { 0, 1, 2, 200, 255 };

	for (uint32_t kind = 0; kind < KIND_COUNT; kind++)
		for (uint32_t r = 0; r < WCX_ARRAY_COUNT(residuals); r++) {
			struct model model;
			struct tile tile;

			make_difference_model(&model, (enum kind)kind, 0);
			tile_alloc(&tile, &model, 1, 1000);
			draw_weights(&tile, (enum kind)kind, 0, r);
			model_learn(&model, &tile, 1);
			for (size_t i = 0; i < tile.n; i++)
				put_element(
					tile.data, tile.dims.elem_bytes, i,
					plain_undo(&model.recipe, residuals[r], plain_element(&model.recipe, tile.base, i)));
			check_round_trip(&tile);
			CHECK(tile.mode == WCX_TILE_CONSTANT && tile.constant == residuals[r]);
			tile_free(&tile);
		}
}

/* Residuals above 32 bits do not fit in a tile entry. */
static void constant_residuals_of_more_than_32_bits_are_coded(void)
{
	struct model model;
	struct tile tile;

	make_difference_model(&model, F64, 2);
	tile_alloc(&tile, &model, 1, 1000);
	draw_weights(&tile, F64, 0, 1);
	draw_thresholds(&model, &tile, 2);
	model_learn(&model, &tile, 1);
	for (size_t i = 0; i < tile.n; i++)
		put_element(tile.data, 8, i,
			    plain_undo(&model.recipe, UINT64_C(1) << 32, plain_element(&model.recipe, tile.base, i)));
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	tile_free(&tile);
}

static void differences_without_a_base_are_refused(void)
{
	struct wcx_encoded_tile encoded;
	struct model model;
	struct tile tile;
	struct wcx_tile_job job;
	uint8_t *dst;

	make_difference_model(&model, BF16, 2);
	tile_alloc(&tile, &model, 1, 1000);
	draw_weights(&tile, BF16, 1e-3, 1);
	draw_thresholds(&model, &tile, 2);
	model_learn(&model, &tile, 1);
	check_round_trip(&tile);
	dst = malloc(tile.bytes);
	CHECK(tile.mode == WCX_TILE_CODED);
	CHECK(wcx_tile_encode(&tile.dims, tile.data, &model.recipe, encode_scratch, dst, &encoded) == WCX_BAD_DATA);
	for (enum wcx_tile_mode mode = WCX_TILE_CODED; mode <= WCX_TILE_CONSTANT; mode++) {
		job = (struct wcx_tile_job){ .dims = tile.dims,
					     .mode = mode,
					     .recipe = &model.recipe,
					     .src = tile.packed,
					     .src_bytes = tile.packed_bytes,
					     .dst = dst,
					     .dst_bytes = tile.bytes };
		for (unsigned i = 0; wcx_decode_variant_at(i); i++)
			CHECK(wcx_tile_decode(&job, decode_scratch[i]) == WCX_BAD_DATA);
	}
	/* A stored tile is itself. */
	job.mode = WCX_TILE_STORED;
	job.src = tile.data;
	job.src_bytes = tile.bytes;
	CHECK(wcx_tile_decode(&job, NULL) == WCX_OK && memcmp(dst, tile.data, tile.bytes) == 0);
	free(dst);
	tile_free(&tile);
}

/* Against the plain functions, element by element. */
static void residuals_keys_and_contexts_are_those_of_the_document(void)
{
	for (uint32_t kind = 0; kind < KIND_COUNT; kind++) {
		const uint32_t elem_bytes = kinds[kind].elem_bytes;
		struct model model;
		struct tile tile;
		uint8_t *residuals, contexts[3001], keys[3001];

		make_difference_model(&model, (enum kind)kind, 8);
		tile_alloc(&tile, &model, 1, 3001);
		draw_weights(&tile, (enum kind)kind, 1e-2, kind);
		change_some(&tile, 10, kind);
		draw_thresholds(&model, &tile, 8);
		residuals = malloc(tile.bytes);
		wcx_difference_residuals(kinds[kind].difference, elem_bytes, tile.data, tile.base, tile.n, residuals);
		wcx_difference_contexts(&model.recipe, tile.base, tile.n, contexts);
		wcx_difference_keys(kinds[kind].difference, elem_bytes, tile.base, tile.n, keys);
		for (size_t i = 0; i < tile.n; i++) {
			const uint64_t x = plain_element(&model.recipe, tile.data, i);
			const uint64_t b = plain_element(&model.recipe, tile.base, i);
			const uint64_t e = plain_residual(&model.recipe, x, b);

			CHECK(plain_undo(&model.recipe, e, b) == x);
			CHECK(plain_element(&model.recipe, residuals, i) == e);
			CHECK(contexts[i] == plain_context(&model.recipe, b));
			CHECK(keys[i] == plain_key(&model.recipe, b));
		}
		wcx_difference_undo(kinds[kind].difference, elem_bytes, tile.base, tile.n, residuals);
		CHECK(memcmp(residuals, tile.data, tile.bytes) == 0);
		free(residuals);
		tile_free(&tile);
	}
}

/* Compares the counts of all fields with plain ones; runs of a coded field count for the set that the encoder chose. */
static void check_counts(const struct tile *tile)
{
	enum { COUNTED_TILES = 2 };
	static uint64_t count[WCX_FIELDS_MAX][WCX_SET_TABLES_MAX][WCX_SYMBOL_COUNT],
		plain[WCX_SET_TABLES_MAX][WCX_SYMBOL_COUNT];
	const struct wcx_recipe *recipe = &tile->model->recipe;
	const struct wcx_tile_layout layout = layout_of(tile);
	struct wcx_field_counts counts[WCX_FIELDS_MAX] = { { 0 } };
	uint32_t shift = 0;

	memset(count, 0, sizeof count);
	for (uint32_t f = 0; f < recipe->field_count; f++)
		counts[f].symbols = recipe->fields[f].table_count ? count[f] : NULL;
	for (int tiles = 0; tiles < COUNTED_TILES; tiles++) { /* symbols add up, misfits are told for each */
		for (uint32_t f = 0; f < recipe->field_count; f++)
			counts[f].misfits = 0;
		CHECK(wcx_tile_count(&tile->dims, tile->data, tile->base, recipe, encode_scratch, counts) == WCX_OK);
	}
	for (uint32_t f = 0; f < recipe->field_count; shift += recipe->fields[f++].width) {
		const struct wcx_field *field = &recipe->fields[f];
		const struct wcx_coded_field *coded = NULL;
		uint64_t misfits = 0;

		for (uint32_t i = 0; i < layout.coded_count; i++)
			coded = layout.coded[i].field == f ? &layout.coded[i] : coded;
		if (!field->table_count || (field->set_bits && !coded))
			continue;
		memset(plain, 0, sizeof plain);
		for (size_t i = 0; i < tile->n; i++) {
			const uint64_t b = plain_element(recipe, tile->base, i);
			const uint64_t e = plain_residual(recipe, plain_element(recipe, tile->data, i), b);
			const uint64_t s = (e >> shift & ((UINT64_C(1) << field->width) - 1)) - field->base;
			const uint32_t set = field->set_bits ? chosen_set(tile, coded, i / recipe->run_elems) : 0;
			const uint32_t context = field->by_context ? plain_context(recipe, b) : 0;

			const uint32_t symbols = field->is_pair ? 16 : field->has_escapes ? 255 : 256;

			if (s < symbols || field->has_escapes)
				plain[set * wcx_set_tables(field) + context][s < symbols ? s : 255] += COUNTED_TILES;
			misfits += s >= symbols;
		}
		CHECK(memcmp(count[f], plain, sizeof plain) == 0 && counts[f].misfits == misfits);
	}
}

static void counts_are_those_of_the_elements(void)
{
	for (uint32_t kind = 0; kind < KIND_COUNT; kind++)
		for (uint32_t c = 0; c < 2 * WCX_ARRAY_COUNT(context_counts); c++) {
			const uint32_t contexts = context_counts[c / 2];
			struct model model;
			struct tile tile;

			make_difference_model(&model, (enum kind)kind, contexts);
			if (c % 2)
				add_sets(&model, 1 + kind % 2, 384);
			tile_alloc(&tile, &model, 1, c % 2 ? 20000 : 5003);
			draw_weights(&tile, (enum kind)kind, 3e-3, kind);
			if (contexts)
				draw_thresholds(&model, &tile, contexts);
			model_learn(&model, &tile, 1);
			check_round_trip(&tile);
			if (tile.mode == WCX_TILE_CODED)
				check_counts(&tile);
			tile_free(&tile);
		}
}

/* Every BF16 against a few others: order is that of numbers, and neighbours differ by one. */
static void floats_are_ordered_by_size(void)
{
	const struct wcx_recipe recipe = { .elem_bytes = 2, .difference = WCX_DIFFERENCE_FLOAT };
	const uint16_t zero = 0, minus_zero = 0x8000;
	uint16_t e;

	wcx_difference_residuals(WCX_DIFFERENCE_FLOAT, 2, &minus_zero, &zero, 1, &e);
	CHECK(e == 1); /* one below */
	for (uint32_t b = 0; b < 65536; b++) {
		const uint16_t base = (uint16_t)b, next = (uint16_t)(b == 0x8000 ? 0 : b & 0x8000 ? b - 1 : b + 1);

		wcx_difference_residuals(WCX_DIFFERENCE_FLOAT, 2, &next, &base, 1, &e);
		CHECK(e == 2 || b == 0x7FFF);
		CHECK(plain_key(&recipe, base) == (b >> 7 & 0xFF)); /* the exponent */
	}
}

/* A tile of weights that are off by `drift`, whose tables have escapes. */
static void make_tile_with_escapes(struct model *model, struct tile *tile, uint32_t elems, double drift, uint32_t contexts)
{
	make_difference_model(model, BF16_ESCAPES, contexts);
	tile_alloc(tile, model, 1, elems);
	draw_weights(tile, BF16, drift, elems);
	if (contexts)
		draw_thresholds(model, tile, contexts);
	model_learn(model, tile, 0);
}

/* None, one, as many as are not carried and as are, and too many to be coded. */
static void any_number_of_escapes_comes_back(void)
{
	static const uint32_t counts[] = { 0, 1, 31, 32, 33, 400, WCX_EXCEPTIONS_MAX, WCX_EXCEPTIONS_MAX + 1 };

	for (size_t c = 0; c < WCX_ARRAY_COUNT(counts); c++)
		for (uint32_t contexts = 0; contexts <= 8; contexts += 4) {
			struct model model;
			struct tile tile;

			make_tile_with_escapes(&model, &tile, 16384 + 77, 0, contexts);
			for (size_t i = 0; i < tile.n; i += 8)
				put_element(tile.data, 2, i,
					    plain_undo(&model.recipe, 2, plain_element(&model.recipe, tile.base, i)));
			model_learn(&model, &tile, 1);
			for (uint32_t i = 0; i < counts[c]; i++) {
				const uint64_t b = plain_element(&model.recipe, tile.base, 4 * i + 1);

				put_element(tile.data, 2, 4 * i + 1, plain_undo(&model.recipe, 255 + 15 * i, b));
			}
			check_round_trip(&tile);
			CHECK(tile.mode == (counts[c] > WCX_EXCEPTIONS_MAX ? WCX_TILE_STORED : WCX_TILE_CODED));
			if (tile.mode == WCX_TILE_CODED) {
				const struct wcx_tile_layout layout = layout_of(&tile);

				CHECK(layout.exception_count == counts[c] && layout.exception_bytes == 2 * counts[c]);
				CHECK(layout.exception_carried == (counts[c] >= 32 ? 64 : 0));
			}
			tile_free(&tile);
		}
}

/* Symbols that are too rare for a frequency, and residual 255, which has no symbol, are escapes too. */
static void what_has_no_symbol_escapes(void)
{
	struct wcx_freq_table *table;
	struct model model;
	struct tile tile;

	make_tile_with_escapes(&model, &tile, 1000, 0, 0);
	table = &model.tables[0][0];
	*table = (struct wcx_freq_table){ .freq = { [0] = 4080, [1] = 8, [255] = 8 } };
	for (uint32_t i = 0; i < 10; i++)
		put_element(tile.data, 2, 90 * i + 7,
			    plain_undo(&model.recipe, i < 5 ? 2 : 255, plain_element(&model.recipe, tile.base, 90 * i + 7)));
	check_round_trip(&tile);
	CHECK(layout_of(&tile).exception_count == 10);
	*table = (struct wcx_freq_table){ .freq = { [0] = 4088, [1] = 8 } }; /* no escape */
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_STORED);
	tile_free(&tile);
}

/* One or more bits of every byte, by every variant and the plain decoder. */
static void damaged_escapes_are_noticed(void)
{
	for (uint32_t elems = 700; elems < 720; elems += 13) {
		struct model model;
		struct tile tile;
		uint8_t *decoded;
		uint32_t head;

		make_tile_with_escapes(&model, &tile, elems, 0.1, 5);
		check_round_trip(&tile);
		CHECK(layout_of(&tile).exception_count > 40);
		decoded = malloc(tile.bytes);
		for (size_t bit = 0; bit < 8 * tile.packed_bytes; bit += 1 + bit / 8 % 7) {
			tile.packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
			decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded);
			tile.packed[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		head = wcx_le32_read(tile.packed);
		for (int32_t more = -1; more <= 1; more += 2) {
			wcx_le32_write(tile.packed, head + ((uint32_t)more << 20));
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		}
		wcx_le32_write(tile.packed, head);
		free(decoded);
		tile_free(&tile);
	}
}

/* Tiles of a tensor decode together as alone, also if one of them is damaged. */
static void differences_decode_together_as_alone(void)
{
	enum { TILES = 5 };

	for (uint32_t round = 0; round < 24; round++) {
		const enum kind kind = round % 3 == 0 ? BF16 : round % 3 == 1 ? BF16_ESCAPES : INT16_ESCAPES;
		struct model model;
		struct tile tiles[TILES];

		make_difference_model(&model, kind, 8);
		if (round % 2)
			add_sets(&model, 2, 384);
		for (uint32_t t = 0; t < TILES; t++) {
			tile_alloc(&tiles[t], &model, 1, 6000 + (t == 3 ? 100 : 0));
			draw_weights(&tiles[t], kind, 3e-3 * (t + 1), 100 * round + t);
			if (t == 0) {
				draw_thresholds(&model, &tiles[t], 8);
				model_learn(&model, &tiles[t], 1);
			}
			encode_tile(&tiles[t]);
			if (round >= 12 && t % 2)
				tiles[t].packed[round * 7 % tiles[t].packed_bytes] ^= 4;
		}
		for (unsigned v = 0; wcx_decode_variant_at(v); v++) {
			struct wcx_tile_job jobs[TILES];
			uint8_t *alone = malloc(tiles[3].bytes);

			for (uint32_t t = 0; t < TILES; t++)
				jobs[t] = (struct wcx_tile_job){ .dims = tiles[t].dims,
								 .mode = tiles[t].mode,
								 .recipe = &model.recipe,
								 .src = tiles[t].packed,
								 .src_bytes = tiles[t].packed_bytes,
								 .base = tiles[t].base,
								 .dst = guarded_alloc(tiles[t].bytes),
								 .dst_bytes = tiles[t].bytes };
			wcx_tiles_decode(jobs, TILES, decode_scratch[v]);
			for (uint32_t t = 0; t < TILES; t++) {
				CHECK(jobs[t].result ==
				      decode_exactly(&tiles[t], tiles[t].packed, tiles[t].packed_bytes, alone));
				CHECK(jobs[t].result != WCX_OK || memcmp(jobs[t].dst, alone, tiles[t].bytes) == 0);
				CHECK(guards_are_whole(jobs[t].dst, tiles[t].bytes));
				CHECK(round >= 12 || jobs[t].result == WCX_OK);
				guarded_free(jobs[t].dst);
			}
			free(alone);
		}
		for (uint32_t t = 0; t < TILES; t++)
			tile_free(&tiles[t]);
	}
}

/* A field with one table for all contexts, which the segment has for another field, or for none. */
static void contexts_that_a_field_does_not_use_are_ignored(void)
{
	for (uint32_t kind = BF16; kind <= BF16_ESCAPES; kind++) {
		struct model model;
		struct tile tile;

		make_difference_model(&model, (enum kind)kind, 0);
		tile_alloc(&tile, &model, 1, 5000);
		draw_weights(&tile, (enum kind)kind, 3e-3, kind);
		draw_thresholds(&model, &tile, 8);
		model_learn(&model, &tile, 1);
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED);
		tile_free(&tile);
	}
}

/* Thresholds so far apart that vectors compare keys with each of them. */
static void thresholds_far_apart_make_contexts(void)
{
	static const uint8_t lasts[] = { 102, 131, 132, 133, 134, 200, 255 }; /* spans around that of a table */

	for (size_t l = 0; l < WCX_ARRAY_COUNT(lasts); l++)
		for (uint32_t kind = BF16; kind <= BF16_ESCAPES; kind++) {
			struct sample_random random = { l };
			struct model model;
			struct tile tile;

			make_difference_model(&model, (enum kind)kind, 3);
			tile_alloc(&tile, &model, 1, 5000);
			for (size_t i = 0; i < tile.n; i++) {
				const uint64_t b = sample_next(&random) & 0xFFFF;

				put_element(tile.base, 2, i, b);
				put_element(tile.data, 2, i, plain_undo(&model.recipe, sample_below(&random, 9), b));
			}
			model.recipe.context_count = 3;
			model.recipe.thresholds[0] = 101;
			model.recipe.thresholds[1] = lasts[l];
			model_learn(&model, &tile, 0);
			check_round_trip(&tile);
			CHECK(tile.mode == WCX_TILE_CODED);
			tile_free(&tile);
		}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(tuned_weights_come_back),
		CHECK_TEST(runs_with_sets_of_tables_come_back),
		CHECK_TEST(many_fields_with_contexts_come_back),
		CHECK_TEST(runs_choose_the_set_that_fits_them),
		CHECK_TEST(tiles_of_every_number_of_elements_come_back),
		CHECK_TEST(tiles_of_one_residual_are_constant),
		CHECK_TEST(constant_residuals_of_more_than_32_bits_are_coded),
		CHECK_TEST(differences_without_a_base_are_refused),
		CHECK_TEST(any_number_of_escapes_comes_back),
		CHECK_TEST(what_has_no_symbol_escapes),
		CHECK_TEST(damaged_escapes_are_noticed),
		CHECK_TEST(differences_decode_together_as_alone),
		CHECK_TEST(contexts_that_a_field_does_not_use_are_ignored),
		CHECK_TEST(thresholds_far_apart_make_contexts),
		CHECK_TEST(residuals_keys_and_contexts_are_those_of_the_document),
		CHECK_TEST(counts_are_those_of_the_elements),
		CHECK_TEST(floats_are_ordered_by_size),
	};

	return codec_samples_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
