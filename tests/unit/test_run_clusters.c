/* SPDX-License-Identifier: MIT */
/* Clusters of runs: which runs share one, and that no symbol is lost. */
#include "fs/pack/run_clusters.h"

#include <string.h>

#include "tests/fixtures/sample_data.h"
#include "tests/unit/check.h"

enum { RUN = 256 };

/* Runs of Gaussian symbols, every third of them twelve times as wide. */
static void fill_runs(uint8_t *symbols, size_t run_count)
{
	struct sample_random random = { 5 };

	for (size_t r = 0; r < run_count; r++)
		sample_fill(&random, SAMPLE_GAUSSIAN, r % 3 == 2 ? 36 : 3, symbols + r * RUN, RUN);
}

static void runs_of_two_widths_fall_into_two_clusters(void)
{
	static uint8_t symbols[300 * RUN];
	static struct wcx_run_counts runs;
	uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], expected[2][WCX_SYMBOL_COUNT] = { 0 };

	fill_runs(symbols, 300);
	for (size_t i = 0; i < sizeof symbols; i++)
		expected[i / RUN % 3 == 2][symbols[i]]++;
	wcx_run_counts_make(symbols, sizeof symbols, RUN, &runs);
	CHECK(runs.run_count == 300);
	wcx_run_clusters_make(&runs, 2, clusters);
	CHECK(memcmp(clusters, expected, sizeof expected) == 0);
}

static void clusters_add_up_to_all_symbols(void)
{
	static uint8_t symbols[300 * RUN + 77]; /* the last run is shorter */
	static struct wcx_run_counts runs;
	struct sample_random random = { 6 };

	fill_runs(symbols, 300);
	sample_fill(&random, SAMPLE_UNIFORM, 0, symbols + 300 * RUN, 77);
	wcx_run_counts_make(symbols, sizeof symbols, RUN, &runs);
	CHECK(runs.run_count == 301);
	for (uint32_t count = 1; count <= WCX_FIELD_TABLES_MAX; count *= 2) {
		uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], left[WCX_SYMBOL_COUNT] = { 0 };

		wcx_run_clusters_make(&runs, count, clusters);
		for (size_t i = 0; i < sizeof symbols; i++)
			left[symbols[i]]++;
		for (uint32_t t = 0; t < count; t++)
			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				left[s] -= clusters[t][s];
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			CHECK(left[s] == 0);
	}
}

static void equal_runs_are_one_cluster(void)
{
	static uint8_t symbols[8 * RUN];
	static struct wcx_run_counts runs;
	uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	unsigned used = 0;

	memset(symbols, 200, sizeof symbols);
	wcx_run_counts_make(symbols, sizeof symbols, RUN, &runs);
	CHECK(runs.symbol_count == 1 && runs.symbols[0] == 200);
	wcx_run_clusters_make(&runs, WCX_FIELD_TABLES_MAX, clusters);
	for (uint32_t t = 0; t < WCX_FIELD_TABLES_MAX; t++)
		used += clusters[t][200] == sizeof symbols;
	CHECK(used == 1);
}

static void runs_beyond_the_limit_are_spread_over_all_symbols(void)
{
	enum { ALL = 5000 };
	static uint8_t symbols[ALL * RUN];
	static struct wcx_run_counts runs;
	uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];

	/* Symbols count up from the first run to the last. */
	for (size_t i = 0; i < sizeof symbols; i++)
		symbols[i] = (uint8_t)(i / RUN * 256 / ALL);
	wcx_run_counts_make(symbols, sizeof symbols, RUN, &runs);
	CHECK(runs.run_count == WCX_CLUSTER_RUNS_MAX && runs.symbol_count == 256);
	wcx_run_clusters_make(&runs, 1, clusters);
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		CHECK(clusters[0][s] >= 3 * RUN && clusters[0][s] <= 5 * RUN);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(runs_of_two_widths_fall_into_two_clusters),
		CHECK_TEST(clusters_add_up_to_all_symbols),
		CHECK_TEST(equal_runs_are_one_cluster),
		CHECK_TEST(runs_beyond_the_limit_are_spread_over_all_symbols),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
