/* SPDX-License-Identifier: MIT */
/* Which batches a GPU gets, by what it and a core take. */
#include "fs/read/gpu_choice.h"

#include "tests/unit/check.h"

enum { TILE_BYTES = 32 << 10, TILES = 64, US = 1000, MS = 1000 * US, MIB = 1 << 20 };

/* A core that takes 26 us a tile: 0.8 ms a MiB. */
static struct wcx_gpu_choice choice_of(int64_t one_wall, int64_t one_core, int64_t all_wall, int64_t all_core)
{
	const struct wcx_gpu_costs costs = {
		.cpu_all = { TILES * 26 * US, TILES * 26 * US },
		.gpu_one = { one_wall * US, one_core * US },
		.gpu_all = { all_wall * US, all_core * US },
		.tile_count = TILES,
		.tile_bytes = TILE_BYTES,
	};
	struct wcx_gpu_choice choice;

	wcx_gpu_choice_init(&choice, &costs);
	return choice;
}

static void large_batches_are_the_gpus(void)
{
	static const struct {
		int64_t one_wall, one_core, all_wall, all_core;
		size_t tiles; /* of the smallest batch for the GPU; 0: there is none */
	} cases[] = {
		{ 80, 30, 200, 60, 4 },    /* 80 + 2 * 1.9 us are more than 3 * 26 */
		{ 80, 130, 200, 250, 8 },  /* by the core's time: 130 + 7 * 1.9 <= 8 * 19.5 */
		{ 20, 15, 100, 30, 1 },    /* faster even for one */
		{ 80, 30, 1800, 60, 0 },   /* slower, however large */
		{ 80, 30, 200, 1300, 0 },  /* copying takes a core more than three quarters of decoding */
		{ 80, 30, 1680, 60, 0 },   /* would pay, but for more tiles than a batch has */
		{ 3000, 30, 2000, 60, 0 }, /* the first batch is slower than all: noise */
		{ 200, 100, 200, 100, 8 }, /* one takes as long as all */
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		struct wcx_gpu_choice choice =
			choice_of(cases[i].one_wall, cases[i].one_core, cases[i].all_wall, cases[i].all_core);
		const size_t least = cases[i].tiles * TILE_BYTES;

		CHECK(choice.least_bytes == (least ? least : SIZE_MAX));
		CHECK(!wcx_gpu_choice_takes(&choice, 0, 0) &&
		      wcx_gpu_choice_takes(&choice, (size_t)TILES * TILE_BYTES, 0) == (least != 0));
		if (least)
			CHECK(!wcx_gpu_choice_takes(&choice, least - 1, 0) && wcx_gpu_choice_takes(&choice, least, 0));
	}
}

/* How many batches of a second's it gets, one a millisecond. */
static unsigned taken_of(struct wcx_gpu_choice *choice, uint64_t *now_ns)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < 1000; i++)
		taken += wcx_gpu_choice_takes(choice, MIB, *now_ns += MS);
	return taken;
}

static void a_gpu_that_others_use_gets_hardly_any_batch_until_it_is_free_again(void)
{
	struct wcx_gpu_choice choice = choice_of(80, 30, 200, 60);
	uint64_t now_ns = 5 * (uint64_t)MS;

	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note(&choice, MIB, 150 * US);
	CHECK(taken_of(&choice, &now_ns) == 1000);
	wcx_gpu_choice_note(&choice, MIB, 5 * MS); /* one that was late does not matter */
	CHECK(taken_of(&choice, &now_ns) == 1000);
	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note(&choice, MIB, 5 * MS);
	CHECK(taken_of(&choice, &now_ns) == 10);
	for (int i = 0; i < 16; i++)
		wcx_gpu_choice_note(&choice, MIB, 150 * US);
	CHECK(taken_of(&choice, &now_ns) == 1000);
	wcx_gpu_choice_note(&choice, 0, 1);
	CHECK(taken_of(&choice, &now_ns) == 1000);
	for (int i = 0; i < 4; i++)
		wcx_gpu_choice_note(&choice, 1, UINT64_MAX); /* no overflow that makes it free */
	CHECK(taken_of(&choice, &now_ns) == 10);
}

/* As beside matrix products: 3 ms for one batch in five, of those that it gets, and the others in time. */
static void batches_in_gaps_do_not_make_a_shared_gpu_free(void)
{
	struct wcx_gpu_choice choice = choice_of(80, 30, 200, 60);
	uint64_t now_ns = 5 * (uint64_t)MS;
	unsigned taken = 0;

	for (unsigned i = 0; i < 5000; i++) {
		if (wcx_gpu_choice_takes(&choice, MIB, now_ns += MS))
			wcx_gpu_choice_note(&choice, MIB, taken++ % 5 < 4 ? 150 * US : 4 * MS);
	}
	CHECK(taken >= 50 && taken < 100); /* a probe each 100 ms, after those that showed it */
}

static void a_large_batch_may_take_longer(void)
{
	struct wcx_gpu_choice choice = choice_of(80, 30, 2000, 60); /* 1.95 ms for 2 MiB: 0.98 a MiB */
	uint64_t now_ns = 0;

	choice.least_bytes = MIB; /* as if a core took long enough */
	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note(&choice, 4 * (size_t)MIB, 4 * MS + 300 * US);
	CHECK(taken_of(&choice, &now_ns) == 1000);
	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note(&choice, MIB, 4 * MS + 300 * US);
	CHECK(taken_of(&choice, &now_ns) == 10);
}

/* Pairs that take three times as long as other tiles on an idle GPU. */
static void pairs_show_that_others_use_the_gpu(void)
{
	struct wcx_gpu_choice choice = choice_of(80, 30, 200, 60);
	uint64_t now_ns = 5 * (uint64_t)MS;
	unsigned taken = 0;

	for (int i = 0; i < 200; i++)
		wcx_gpu_choice_note_pairs(&choice, MIB, 450 * US + (unsigned)i % 4 * 50 * US);
	CHECK(taken_of(&choice, &now_ns) == 1000);
	for (unsigned i = 0; i < 5000; i++) {
		if (wcx_gpu_choice_takes(&choice, MIB, now_ns += MS))
			wcx_gpu_choice_note_pairs(&choice, MIB, taken++ % 2 ? 450 * US : 5 * MS);
	}
	CHECK(taken < 100);
	for (int i = 0; i < 20; i++) /* only pairs are read when the other program ends */
		wcx_gpu_choice_note_pairs(&choice, MIB, 450 * US);
	CHECK(taken_of(&choice, &now_ns) == 1000);
}

/* Of an F32, for example, whose differences no kernel of their own decodes. */
static void slower_pairs_are_late_for_a_while_only(void)
{
	struct wcx_gpu_choice choice = choice_of(80, 30, 200, 60);
	unsigned late = 0;

	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note_pairs(&choice, MIB, 300 * US);
	for (uint64_t i = 0; i < 200; i++) {
		late += !wcx_gpu_choice_takes(&choice, MIB, 0);
		wcx_gpu_choice_note_pairs(&choice, MIB, 1200 * US);
	}
	CHECK(late > 0 && late < 100 && wcx_gpu_choice_takes(&choice, MIB, 0));
	wcx_gpu_choice_note_pairs(&choice, 0, UINT64_MAX);
	wcx_gpu_choice_note_pairs(&choice, SIZE_MAX >> 24, 1);
	CHECK(choice.pair_ratio > 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(large_batches_are_the_gpus),
		CHECK_TEST(a_gpu_that_others_use_gets_hardly_any_batch_until_it_is_free_again),
		CHECK_TEST(batches_in_gaps_do_not_make_a_shared_gpu_free),
		CHECK_TEST(a_large_batch_may_take_longer),
		CHECK_TEST(pairs_show_that_others_use_the_gpu),
		CHECK_TEST(slower_pairs_are_late_for_a_while_only),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
