/* SPDX-License-Identifier: MIT */
/* Sets of tables by context: runs with unlike distributions are told apart, and each costs least in its own set. */
#include "fs/pack/set_choice.h"

#include <math.h>
#include <string.h>

#include "codec/arith.h"
#include "tests/fixtures/sample_data.h"
#include "tests/unit/check.h"

enum { RUN = 256, RUNS = 240, CONTEXTS = 3 };

/*
 * Keys of runs whose symbols have a geometric distribution, of which context c has c + 1 times the width of the first, and
 * kind k 4^k times; run r has kind r % kinds.
 */
static void draw_keys(uint16_t keys[RUNS * RUN], uint32_t kinds)
{
	struct sample_random random = { 41 };

	for (uint32_t i = 0; i < RUNS * RUN; i++) {
		const uint32_t context = (uint32_t)sample_below(&random, CONTEXTS), kind = i / RUN % kinds;
		const double width = 0.3 * (context + 1) * pow(4, kind),
			     symbol = floor(-log(1 - sample_unit(&random)) * width);

		keys[i] = (uint16_t)(symbol < WCX_SYMBOL_COUNT ? context << 8 | (uint32_t)symbol
							       : (uint32_t)WCX_SET_KEY_MISFIT);
	}
}

static struct wcx_keyed_runs runs_of(const uint16_t *keys)
{
	return (struct wcx_keyed_runs){ .keys = keys, .elems = RUNS * RUN, .run = RUN, .context_count = CONTEXTS };
}

static void runs_of_unlike_distributions_are_told_apart(void)
{
	static uint16_t keys[RUNS * RUN];
	static struct wcx_set_counts counts;
	static struct wcx_set_costs costs;

	for (uint32_t kinds = 2; kinds <= 4; kinds += 2) {
		const struct wcx_keyed_runs runs = runs_of(keys);
		uint32_t set_of_kind[4], sum = 0;

		draw_keys(keys, kinds);
		wcx_set_counts_make(&runs, kinds, &counts);
		for (uint32_t t = 0; t < kinds * CONTEXTS; t++)
			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				sum += counts.counts[t][s];
		for (uint32_t i = 0; i < RUNS * RUN; i++)
			sum += keys[i] == WCX_SET_KEY_MISFIT;
		CHECK(sum == RUNS * RUN);
		wcx_set_costs_make(&counts, CONTEXTS, kinds, &costs);
		for (uint32_t r = 0; r < RUNS; r++) {
			const uint32_t set = wcx_set_costs_best(&costs, keys + (size_t)r * RUN, RUN, kinds, NULL);

			if (r < kinds)
				set_of_kind[r] = set;
			CHECK(set == set_of_kind[r % kinds]);
		}
		for (uint32_t k = 1; k < kinds; k++)
			for (uint32_t other = 0; other < k; other++)
				CHECK(set_of_kind[k] != set_of_kind[other]);
	}
}

static void deviation_is_that_of_the_runs(void)
{
	static uint16_t keys[RUNS * RUN];
	const struct wcx_keyed_runs runs = runs_of(keys);
	double alike, unlike;

	draw_keys(keys, 1);
	alike = wcx_runs_deviation(&runs);
	draw_keys(keys, 4);
	unlike = wcx_runs_deviation(&runs);
	CHECK(alike > 0.02 && alike < 0.2); /* of 256 elements, a sixteenth of the deviation of one */
	CHECK(unlike > 1);
	memset(keys, 0, sizeof keys);
	CHECK(wcx_runs_deviation(&runs) == 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(runs_of_unlike_distributions_are_told_apart),
		CHECK_TEST(deviation_is_that_of_the_runs),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
