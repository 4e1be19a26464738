/* SPDX-License-Identifier: MIT */
/* Clusters runs by the bits that they take in each other's code. */
#include "fs/pack/run_clusters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"

enum {
	ROUNDS = 4, /* more change the result by less than 0.1 % */
	PARTS = 4,  /* of a histogram */
	STRIDE = 8, /* independent sums, which the compiler vectorises; divides WCX_SYMBOL_COUNT */
};

/* The cluster of each run; the sums of each cluster and the bits of its code, by index in symbols. */
struct clustering {
	uint8_t cluster[WCX_CLUSTER_RUNS_MAX];
	float sums[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	float bits[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
};

static uint32_t padded_count(const struct wcx_run_counts *runs)
{
	return WCX_ALIGN_UP(runs->symbol_count, STRIDE);
}

/* Counts symbols in several histograms: an increment waits for an earlier one of the same counter. */
static void count_symbols(const uint8_t *symbols, size_t count, uint32_t ret[WCX_SYMBOL_COUNT])
{
	uint32_t partial[PARTS][WCX_SYMBOL_COUNT] = { { 0 } };
	size_t i = 0;

	for (; i + PARTS <= count; i += PARTS)
		for (uint32_t p = 0; p < PARTS; p++)
			partial[p][symbols[i + p]]++;
	for (; i < count; i++)
		partial[0][symbols[i]]++;
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		ret[s] = 0;
		for (uint32_t p = 0; p < PARTS; p++)
			ret[s] += partial[p][s];
	}
}

void wcx_run_counts_make(const uint8_t *symbols, size_t symbol_count, uint32_t run, struct wcx_run_counts *ret)
{
	uint32_t occur[WCX_SYMBOL_COUNT];
	const uint32_t count = (uint32_t)WCX_DIV_UP(symbol_count, run);

	count_symbols(symbols, symbol_count, occur);
	ret->symbol_count = 0;
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		if (occur[s])
			ret->symbols[ret->symbol_count++] = (uint8_t)s;
	ret->run_count = WCX_MIN(count, WCX_CLUSTER_RUNS_MAX);
	for (uint32_t r = 0; r < ret->run_count; r++) {
		const size_t first = (size_t)((uint64_t)r * count / ret->run_count) * run;

		if (count > 1)
			count_symbols(symbols + first, WCX_MIN(symbol_count - first, run), occur);
		for (uint32_t i = 0; i < ret->symbol_count; i++)
			ret->counts[r][i] = (float)occur[ret->symbols[i]];
		for (uint32_t i = ret->symbol_count; i < padded_count(ret); i++)
			ret->counts[r][i] = 0;
	}
}

static void sum_clusters(const struct wcx_run_counts *runs, struct clustering *c, uint32_t cluster_count)
{
	memset(c->sums, 0, cluster_count * sizeof *c->sums);
	for (uint32_t r = 0; r < runs->run_count; r++)
		for (uint32_t i = 0; i < padded_count(runs); i++)
			c->sums[c->cluster[r]][i] += runs->counts[r][i];
}

/* Makes the code of a cluster.  A little is added to each sum, so that every symbol has a code. */
static void make_code(const struct wcx_run_counts *runs, struct clustering *c, uint32_t cluster)
{
	const float little = 0.05F;
	float sum = 0;

	for (uint32_t i = 0; i < runs->symbol_count; i++)
		sum += c->sums[cluster][i] + little;
	memset(c->bits[cluster], 0, sizeof c->bits[cluster]);
	for (uint32_t i = 0; i < runs->symbol_count; i++)
		c->bits[cluster][i] = log2f(sum / (c->sums[cluster][i] + little));
}

static float run_bits(const struct wcx_run_counts *runs, uint32_t run, const float bits[WCX_SYMBOL_COUNT])
{
	float sums[STRIDE] = { 0 }, sum = 0;

	for (uint32_t i = 0; i < padded_count(runs); i += STRIDE)
		for (uint32_t j = 0; j < STRIDE; j++)
			sums[j] += runs->counts[run][i + j] * bits[i + j];
	for (uint32_t j = 0; j < STRIDE; j++)
		sum += sums[j];
	return sum;
}

static int compare_floats(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

/* Sorts the runs by bits per symbol, and gives each cluster the same number of them. */
static void start(const struct wcx_run_counts *runs, struct clustering *c, uint32_t cluster_count)
{
	float width[WCX_CLUSTER_RUNS_MAX], sorted[WCX_CLUSTER_RUNS_MAX];

	memset(c->cluster, 0, sizeof c->cluster);
	sum_clusters(runs, c, 1);
	if (cluster_count == 1)
		return;
	make_code(runs, c, 0);
	for (uint32_t r = 0; r < runs->run_count; r++) {
		float count = 0;

		for (uint32_t i = 0; i < runs->symbol_count; i++)
			count += runs->counts[r][i];
		sorted[r] = width[r] = run_bits(runs, r, c->bits[0]) / count;
	}
	qsort(sorted, runs->run_count, sizeof *sorted, compare_floats);
	for (uint32_t r = 0; r < runs->run_count; r++)
		while (c->cluster[r] + 1u < cluster_count &&
		       width[r] > sorted[(c->cluster[r] + 1) * runs->run_count / cluster_count])
			c->cluster[r]++;
	sum_clusters(runs, c, cluster_count);
}

/* Moves each run to the cluster whose code takes the fewest bits for it. */
static void move_runs(const struct wcx_run_counts *runs, struct clustering *c, uint32_t cluster_count)
{
	for (uint32_t k = 0; k < cluster_count; k++)
		make_code(runs, c, k);
	for (uint32_t r = 0; r < runs->run_count; r++) {
		float least = INFINITY;

		for (uint32_t k = 0; k < cluster_count; k++) {
			float bits = run_bits(runs, r, c->bits[k]);

			if (bits < least) {
				least = bits;
				c->cluster[r] = (uint8_t)k;
			}
		}
	}
	sum_clusters(runs, c, cluster_count);
}

void wcx_run_clusters_make(const struct wcx_run_counts *runs, uint32_t cluster_count,
			   uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT])
{
	struct clustering c;

	start(runs, &c, cluster_count);
	for (int round = 0; round < ROUNDS && cluster_count > 1; round++)
		move_runs(runs, &c, cluster_count);
	memset(clusters, 0, cluster_count * sizeof *clusters);
	for (uint32_t k = 0; k < cluster_count; k++)
		for (uint32_t i = 0; i < runs->symbol_count; i++)
			clusters[k][runs->symbols[i]] = (uint64_t)c.sums[k][i];
}
