/* SPDX-License-Identifier: MIT */
/*
 * Sets of frequency tables, one table for each context, of which every run of a difference chooses one: clusters runs, such
 * as the rows of an embedding, which have moved more or less than others.
 *
 * Elements are given as keys: context << 8 | symbol.  Pure functions, for any thread.
 */
#ifndef WCX_SET_CHOICE_H
#define WCX_SET_CHOICE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/recipe.h"

enum {
	WCX_SET_KEY_MISFIT = WCX_CONTEXTS_MAX * WCX_SYMBOL_COUNT, /* a value without a symbol: costs the same in all sets */
	WCX_SET_KEYS,
	WCX_SET_RUNS_MAX = 512,
};

struct wcx_keyed_runs {
	const uint16_t *keys;
	size_t elems;
	uint32_t run;           /* elements of each but the last; at most WCX_SET_RUNS_MAX runs */
	uint32_t context_count; /* 2 to WCX_CONTEXTS_MAX */
};

/* How often each symbol occurs, by table: those of the first set, then those of the next. */
struct wcx_set_counts {
	uint32_t counts[WCX_SET_TABLES_MAX][WCX_SYMBOL_COUNT];
};

/* What a key costs, in 16 bits for each set. */
struct wcx_set_costs {
	uint64_t cost[WCX_SET_KEYS];
};

/* wcx_runs_deviation - the standard deviation of runs in the bits that an element takes in the code of all of them */
double wcx_runs_deviation(const struct wcx_keyed_runs *runs);

/*
 * wcx_set_counts_make - assign each run to one of set_count sets, and count the symbols of each
 *
 * set_count is 1 to WCX_SETS_MAX; a set may end up empty.  Only the tables of these sets are counted.  Method: as of
 * wcx_run_clusters_make.
 */
void wcx_set_counts_make(const struct wcx_keyed_runs *runs, uint32_t set_count, struct wcx_set_counts *ret);

/* wcx_set_costs_make - what keys cost with tables made from these counts; symbols without a count cost a little more */
void wcx_set_costs_make(const struct wcx_set_counts *counts, uint32_t context_count, uint32_t set_count,
			struct wcx_set_costs *ret);

/* wcx_set_costs_best - the set in which these keys cost least, and in *cost_ret, if not NULL, how much, in 1/32 bit */
uint32_t wcx_set_costs_best(const struct wcx_set_costs *costs, const uint16_t *keys, size_t count, uint32_t set_count,
			    uint64_t *cost_ret);

#endif
