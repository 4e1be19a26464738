/* SPDX-License-Identifier: MIT */
/* Which batches a GPU gets, by what it and a core take. */
#include "fs/read/gpu_choice.h"

#include "tests/unit/check.h"

enum { TILE_BYTES = 32 << 10, TILES = 64, US = 1000, MIB = 1 << 20 };

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
		CHECK(!wcx_gpu_choice_takes(&choice, 0) &&
		      wcx_gpu_choice_takes(&choice, (size_t)TILES * TILE_BYTES) == (least != 0));
		if (least)
			CHECK(!wcx_gpu_choice_takes(&choice, least - 1) && wcx_gpu_choice_takes(&choice, least));
	}
}

static unsigned taken_of(struct wcx_gpu_choice *choice, unsigned batches)
{
	unsigned taken = 0;

	for (unsigned i = 0; i < batches; i++)
		taken += wcx_gpu_choice_takes(choice, MIB);
	return taken;
}

static void a_gpu_that_others_use_gets_few_batches_until_it_is_fast_again(void)
{
	struct wcx_gpu_choice choice = choice_of(80, 30, 200, 60);

	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note(&choice, MIB, 150 * US);
	CHECK(taken_of(&choice, 160) == 160);
	wcx_gpu_choice_note(&choice, MIB, 5000 * US); /* one that was late does not matter */
	CHECK(taken_of(&choice, 160) == 160);
	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note(&choice, MIB, 5000 * US); /* a core takes 832 us */
	CHECK(taken_of(&choice, 160) == 10);
	for (int i = 0; i < 8; i++)
		wcx_gpu_choice_note(&choice, MIB, 150 * US);
	CHECK(taken_of(&choice, 160) == 160);
	wcx_gpu_choice_note(&choice, 0, 1);
	wcx_gpu_choice_note(&choice, 1, UINT64_MAX / 1024); /* no overflow that makes it fast for ever */
	CHECK(taken_of(&choice, 16) <= 16);
}

static void time_is_counted_by_bytes(void)
{
	struct wcx_gpu_choice choice = choice_of(80, 30, 200, 60);

	for (int i = 0; i < 50; i++)
		wcx_gpu_choice_note(&choice, 2 * MIB, 5000 * US);
	CHECK(taken_of(&choice, 160) == 160);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(large_batches_are_the_gpus),
		CHECK_TEST(a_gpu_that_others_use_gets_few_batches_until_it_is_fast_again),
		CHECK_TEST(time_is_counted_by_bytes),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
