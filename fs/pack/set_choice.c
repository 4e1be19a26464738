/* SPDX-License-Identifier: MIT */
/* Clusters runs by the bits that they take in each other's code, which has a table for each context. */
#include "fs/pack/set_choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"

enum {
	ROUNDS = 4,      /* more change the result by less than 0.1 % */
	COST_SCALE = 32, /* costs are in units of 1/32 bit */
	COST_BITS = 16,  /* of each set in a word of costs: holds those of BLOCK keys */
	BLOCK = 32,
	COST_MAX = ((1 << COST_BITS) - 1) / BLOCK,
};

/* Added to each count, so that every symbol has a code. */
static const float LITTLE = 0.05F;

static uint32_t run_count(const struct wcx_keyed_runs *runs)
{
	return (uint32_t)WCX_DIV_UP(runs->elems, runs->run);
}

static const uint16_t *run_at(const struct wcx_keyed_runs *runs, uint32_t number, uint32_t *length_ret)
{
	const size_t first = (size_t)number * runs->run;

	*length_ret = (uint32_t)WCX_MIN(runs->elems - first, runs->run);
	return runs->keys + first;
}

static void put_cost(struct wcx_set_costs *costs, uint32_t key, uint32_t set, float bits)
{
	const uint32_t cost = (uint32_t)(bits * COST_SCALE + 0.5F);

	costs->cost[key] |= (uint64_t)WCX_MIN(cost, (uint32_t)COST_MAX) << set * COST_BITS;
}

void wcx_set_costs_make(const struct wcx_set_counts *counts, uint32_t context_count, uint32_t set_count,
			struct wcx_set_costs *ret)
{
	memset(ret, 0, sizeof *ret);
	for (uint32_t c = 0; c < context_count; c++) {
		uint8_t occurs[WCX_SYMBOL_COUNT] = { 0 };
		uint32_t symbols = 0;

		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
			for (uint32_t set = 0; set < set_count; set++)
				occurs[s] |= counts->counts[set * context_count + c][s] != 0;
			symbols += occurs[s];
		}
		for (uint32_t set = 0; set < set_count; set++) {
			const uint32_t *count = counts->counts[set * context_count + c];
			float sum = LITTLE * (float)symbols, all;

			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				sum += (float)count[s];
			all = log2f(sum);
			for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				if (occurs[s])
					put_cost(ret, c * WCX_SYMBOL_COUNT + s, set, all - log2f((float)count[s] + LITTLE));
		}
	}
}

uint32_t wcx_set_costs_best(const struct wcx_set_costs *costs, const uint16_t *keys, size_t count, uint32_t set_count,
			    uint64_t *cost_ret)
{
	uint64_t sums[WCX_SETS_MAX] = { 0 };
	uint32_t best = 0;

	for (size_t first = 0; first < count; first += BLOCK) {
		const size_t end = WCX_MIN(count, first + BLOCK);
		uint64_t block = 0;

		for (size_t i = first; i < end; i++)
			block += costs->cost[keys[i]];
		for (uint32_t set = 0; set < set_count; set++)
			sums[set] += block >> set * COST_BITS & ((1u << COST_BITS) - 1);
	}
	for (uint32_t set = 1; set < set_count; set++)
		if (sums[set] < sums[best])
			best = set;
	if (cost_ret)
		*cost_ret = sums[best];
	return best;
}

static void count_runs(const struct wcx_keyed_runs *runs, uint32_t set_count, const uint8_t *set_of,
		       struct wcx_set_counts *ret)
{
	memset(ret->counts, 0, (size_t)set_count * runs->context_count * sizeof *ret->counts);
	for (uint32_t r = 0; r < run_count(runs); r++) {
		uint32_t length;
		const uint16_t *keys = run_at(runs, r, &length);
		uint32_t *counts = ret->counts[set_of[r] * runs->context_count];

		for (uint32_t i = 0; i < length; i++)
			if (keys[i] != WCX_SET_KEY_MISFIT)
				counts[keys[i]]++;
	}
}

static int compare_floats(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* What the elements of each run cost in the code of all, on average; leaves the counts of all in *counts. */
static void weigh_runs(const struct wcx_keyed_runs *runs, struct wcx_set_counts *counts, float width[WCX_SET_RUNS_MAX])
{
	static const uint8_t one[WCX_SET_RUNS_MAX];
	struct wcx_set_costs costs;

	count_runs(runs, 1, one, counts);
	wcx_set_costs_make(counts, runs->context_count, 1, &costs);
	for (uint32_t r = 0; r < run_count(runs); r++) {
		uint32_t length;
		uint64_t cost;
		const uint16_t *keys = run_at(runs, r, &length);

		wcx_set_costs_best(&costs, keys, length, 1, &cost);
		width[r] = (float)cost / (float)length;
	}
}

double wcx_runs_deviation(const struct wcx_keyed_runs *runs)
{
	float width[WCX_SET_RUNS_MAX];
	double sum = 0, squares = 0;
	struct wcx_set_counts counts;

	weigh_runs(runs, &counts, width);
	for (uint32_t r = 0; r < run_count(runs); r++) {
		sum += (double)width[r];
		squares += (double)width[r] * (double)width[r];
	}
	return sqrt(fmax(squares / run_count(runs) - sum / run_count(runs) * (sum / run_count(runs)), 0)) / COST_SCALE;
}

/* Sorts the runs by bits per symbol, and gives each set the same number of them. */
static void start(const struct wcx_keyed_runs *runs, const float *width, uint32_t set_count, uint8_t *set_of)
{
	const uint32_t count = run_count(runs);
	float sorted[WCX_SET_RUNS_MAX];

	memcpy(sorted, width, count * sizeof *sorted);
	qsort(sorted, count, sizeof *sorted, compare_floats);
	for (uint32_t r = 0; r < count; r++)
		while (set_of[r] + 1u < set_count && width[r] > sorted[(set_of[r] + 1) * count / set_count])
			set_of[r]++;
}

void wcx_set_counts_make(const struct wcx_keyed_runs *runs, uint32_t set_count, struct wcx_set_counts *ret)
{
	uint8_t set_of[WCX_SET_RUNS_MAX] = { 0 };
	float width[WCX_SET_RUNS_MAX];
	struct wcx_set_costs costs;

	weigh_runs(runs, ret, width);
	if (set_count == 1)
		return;
	start(runs, width, set_count, set_of);
	for (int round = 0; round < ROUNDS; round++) {
		count_runs(runs, set_count, set_of, ret);
		wcx_set_costs_make(ret, runs->context_count, set_count, &costs);
		for (uint32_t r = 0; r < run_count(runs); r++) {
			uint32_t length;
			const uint16_t *keys = run_at(runs, r, &length);

			set_of[r] = (uint8_t)wcx_set_costs_best(&costs, keys, length, set_count, NULL);
		}
	}
	count_runs(runs, set_count, set_of, ret);
}
