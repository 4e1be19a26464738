/* SPDX-License-Identifier: MIT */
/* Tiles that are decoded together get the bytes and the results that each gets alone. */
#include "tests/fixtures/codec_samples.h"

enum { TILES_MAX = 9 };

/* Tiles of a model, their copies that may be damaged, and what each decodes to alone. */
struct group {
	struct model model;
	size_t count;
	struct tile tiles[TILES_MAX];
	uint8_t *copies[TILES_MAX], *copy_memory[TILES_MAX], *alone[TILES_MAX];
	enum wcx_result results[TILES_MAX];
};

/* Gives a field without tables one value in all elements of a tile, every second time. */
static void make_even(struct tile *tile, uint32_t f, struct sample_random *random)
{
	const uint32_t width = tile->model->fields[f].width;
	const uint32_t value = (uint32_t)sample_below(random, (uint64_t)1 << width);

	if (tile->model->fields[f].table_count || sample_below(random, 2))
		return;
	for (size_t i = 0; i < tile->n; i++)
		change_value(tile, i, f, value);
}

/*
 * Draws tiles: some are smaller, some constant; they share tables, which leave exceptions to most of them.  With evens,
 * fields without tables are constant in some tiles.
 */
static void draw_group(struct group *group, uint64_t seed, uint32_t rows, uint32_t cols, bool evens,
		       struct sample_random *random)
{
	group->count = 1 + (size_t)sample_below(random, TILES_MAX);
	for (size_t t = 0; t < group->count; t++) {
		const bool is_small = rows > 1 && sample_below(random, 8) == 0;
		struct tile *tile = &group->tiles[t];

		tile_alloc(tile, &group->model, is_small ? rows / 2 : rows, cols);
		tile_draw(tile, seed + t);
		if (t == 0)
			model_learn(&group->model, tile, sample_below(random, 2));
		if (sample_below(random, 8) == 0)
			memset(tile->data, 0, tile->bytes);
		for (uint32_t f = 0; evens && f < group->model.recipe.field_count; f++)
			make_even(tile, f, random);
		encode_tile(tile);
		group->copies[t] = copy_exactly(tile->packed, tile->packed_bytes, &group->copy_memory[t]);
		group->alone[t] = guarded_alloc(tile->bytes);
	}
}

static void free_group(struct group *group)
{
	for (size_t t = 0; t < group->count; t++) {
		tile_free(&group->tiles[t]);
		free(group->copy_memory[t]);
		guarded_free(group->alone[t]);
	}
}

/* Changes a bit of each tile with a probability of 1 / 2^rarity. */
static void damage_some(struct group *group, unsigned rarity, struct sample_random *random)
{
	for (size_t t = 0; t < group->count; t++)
		if (group->tiles[t].packed_bytes && sample_below(random, 1u << rarity) == 0)
			group->copies[t][sample_below(random, group->tiles[t].packed_bytes)] ^=
				(uint8_t)(1u << sample_below(random, 8));
}

static struct wcx_tile_job job_of(const struct group *group, size_t t, uint8_t *dst)
{
	return (struct wcx_tile_job){
		.dims = group->tiles[t].dims,
		.mode = group->tiles[t].mode,
		.constant = group->tiles[t].constant,
		.recipe = &group->model.recipe,
		.src = group->copies[t],
		.src_bytes = group->tiles[t].packed_bytes,
		.dst = dst,
		.dst_bytes = group->tiles[t].bytes,
		.result = WCX_DEVICE_FAILED,
	};
}

/* Decodes all together with one variant, and compares. */
static void check_together(const struct group *group, unsigned variant)
{
	struct wcx_tile_job jobs[TILES_MAX];

	for (size_t t = 0; t < group->count; t++)
		jobs[t] = job_of(group, t, guarded_alloc(group->tiles[t].bytes));
	wcx_tiles_decode(jobs, group->count, decode_scratch[variant]);
	for (size_t t = 0; t < group->count; t++) {
		CHECK(jobs[t].result == group->results[t]);
		CHECK(jobs[t].result != WCX_OK || memcmp(jobs[t].dst, group->alone[t], jobs[t].dst_bytes) == 0);
		CHECK(guards_are_whole(jobs[t].dst, jobs[t].dst_bytes));
		guarded_free(jobs[t].dst);
	}
}

/* Decodes each alone with the reference, and all together with every variant. */
static void check_group(struct group *group)
{
	for (size_t t = 0; t < group->count; t++) {
		struct wcx_tile_job job = job_of(group, t, group->alone[t]);

		group->results[t] = wcx_tile_decode(&job, decode_scratch[0]);
	}
	for (unsigned v = 0; wcx_decode_variant_at(v); v++)
		check_together(group, v);
}

static void check_whole_and_damaged(struct group *group, struct sample_random *random)
{
	check_group(group);
	for (size_t t = 0; t < group->count; t++)
		CHECK(group->results[t] == WCX_OK &&
		      memcmp(group->alone[t], group->tiles[t].data, group->tiles[t].bytes) == 0);
	damage_some(group, (unsigned)sample_below(random, 4), random);
	check_group(group);
}

static void tiles_of_any_recipe_decode_together_as_alone(void)
{
	struct sample_random random = { 31 };

	for (uint64_t round = 0; round < 150; round++) {
		static struct group group;

		draw_model(&group.model, &random);
		draw_group(&group, 1000 * round, 1 + (uint32_t)sample_below(&random, 12),
			   1 + (uint32_t)sample_below(&random, 500), false, &random);
		check_whole_and_damaged(&group, &random);
		free_group(&group);
	}
}

static void tiles_of_weights_decode_together_as_alone(void)
{
	struct sample_random random = { 32 };

	for (uint64_t round = 0; round < 12 * WEIGHTS_COUNT; round++) {
		static struct group group;

		make_weight_model(&group.model, (enum weights)(round % WEIGHTS_COUNT), WCX_PREDICT_NONE);
		draw_group(&group, 1000 * round, 8 + 8 * (uint32_t)sample_below(&random, 4), 256 + (round % 3 == 0), false,
			   &random);
		check_whole_and_damaged(&group, &random);
		free_group(&group);
	}
}

/* Such as powers of two, or weights of one sign: each tile has the constants and planes of its own. */
static void tiles_with_other_constants_decode_together_as_alone(void)
{
	struct sample_random random = { 33 };

	for (uint64_t round = 0; round < 60; round++) {
		static struct group group;

		model_start(&group.model, 2, round % 2 ? WCX_TRANSFORM_ROTATE : WCX_TRANSFORM_NONE, WCX_PREDICT_NONE,
			    round % 3 ? 256 : 0);
		model_add(&group.model, 1 + round % 4, 0, 0, NOISE, 0);
		model_add(&group.model, 7 - round % 4, 0, 0, NOISE, 0);
		model_add(&group.model, 8, round % 3 ? 2 : 1, 0, BELL, 3);
		draw_group(&group, 1000 * round, 8 + 8 * (uint32_t)sample_below(&random, 4), 256, true, &random);
		check_whole_and_damaged(&group, &random);
		free_group(&group);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(tiles_of_any_recipe_decode_together_as_alone),
		CHECK_TEST(tiles_of_weights_decode_together_as_alone),
		CHECK_TEST(tiles_with_other_constants_decode_together_as_alone),
	};

	return codec_samples_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
