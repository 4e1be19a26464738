/* SPDX-License-Identifier: MIT */
/*
 * Clusters runs of symbols by their statistics, so that each run can choose from a handful of frequency tables.  Safe from
 * any number of threads, each with runs of its own.
 */
#ifndef WCX_RUN_CLUSTERS_H
#define WCX_RUN_CLUSTERS_H

#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"

enum { WCX_CLUSTER_RUNS_MAX = 1024 };

/* How often each symbol occurs in each of some runs. */
struct wcx_run_counts {
	uint32_t run_count;    /* 1 to WCX_CLUSTER_RUNS_MAX */
	uint32_t symbol_count; /* those that occur in any run */
	uint8_t symbols[WCX_SYMBOL_COUNT];
	float counts[WCX_CLUSTER_RUNS_MAX][WCX_SYMBOL_COUNT]; /* by run, and by place in symbols; zeros behind the last */
};

/* wcx_run_counts_make - count the symbols of runs: all runs, or as many as there may be, spread over the symbols given */
void wcx_run_counts_make(const uint8_t *symbols, size_t symbol_count, uint32_t run, struct wcx_run_counts *ret);

/*
 * wcx_run_clusters_make - cluster runs
 *
 * Adds up the counts of the runs that fall to each of cluster_count clusters, 1 to WCX_FIELD_TABLES_MAX; a cluster may come
 * out empty.  Source of the method: S. Lloyd, "Least squares quantization in PCM", with the bits that a run takes in a
 * cluster's code in the place of the squares.
 */
void wcx_run_clusters_make(const struct wcx_run_counts *runs, uint32_t cluster_count,
			   uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT]);

#endif
