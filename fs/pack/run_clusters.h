/* SPDX-License-Identifier: MIT */
/*
 * Clusters runs of symbols by their statistics, so that each run can choose from a few frequency tables.  Safe from any
 * number of threads, each with its own runs.
 */
#ifndef WCX_RUN_CLUSTERS_H
#define WCX_RUN_CLUSTERS_H

#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"

enum { WCX_CLUSTER_RUNS_MAX = 1024 };

/* How often each symbol occurs in each run. */
struct wcx_run_counts {
	uint32_t run_count;    /* 1 to WCX_CLUSTER_RUNS_MAX */
	uint32_t symbol_count; /* of the symbols that occur in any run */
	uint8_t symbols[WCX_SYMBOL_COUNT];
	float counts[WCX_CLUSTER_RUNS_MAX][WCX_SYMBOL_COUNT]; /* by run and index in symbols; then zeros */
};

/* wcx_run_counts_make - count the symbols of all runs, or of WCX_CLUSTER_RUNS_MAX spread evenly; run is the symbols of one
 */
void wcx_run_counts_make(const uint8_t *symbols, size_t symbol_count, uint32_t run, struct wcx_run_counts *ret);

/*
 * wcx_run_clusters_make - assign each run to one of cluster_count clusters, and sum the counts of each cluster
 *
 * cluster_count is 1 to WCX_FIELD_TABLES_MAX.  A cluster may end up empty.  Method: S. Lloyd, "Least squares quantization in
 * PCM", where the distance is the bits that a run takes in the code of a cluster instead of a square.
 */
void wcx_run_clusters_make(const struct wcx_run_counts *runs, uint32_t cluster_count,
			   uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT]);

#endif
