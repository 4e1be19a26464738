/* SPDX-License-Identifier: MIT */
/*
 * Planning of a load: which tiles the targets need, in which portions threads take them, and how each tile gets there.
 *
 * Everything here is a pure function of index and targets: nothing reads the file or calls the GPU.  A plan does not change
 * once it is made, so any number of threads may use it.
 */
#ifndef WCX_LOAD_PLAN_H
#define WCX_LOAD_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda/gpu_load.h"
#include "fs/base/error.h"
#include "fs/format/container.h"
#include "fs/format/segment.h"
#include "fs/lib/wcx.h"

enum { WCX_LOAD_BATCH_TILES = 1024 };

/* Bytes [from, to) of the original go to the device address dst. */
struct wcx_load_span {
	uint64_t from, to, dst;
};

/* Consecutive tiles of a segment, which one thread loads. */
struct wcx_load_task {
	const struct wcx_segment *segment;
	uint64_t first_tile, tile_count;
};

struct wcx_load_plan {
	const struct wcx_container *container;
	struct wcx_load_span *spans; /* the targets with bytes, sorted; they do not overlap */
	size_t span_count;
	struct wcx_load_task *tasks; /* each tile that has bytes of a span is in exactly one */
	size_t task_count, task_capacity;
};

/*
 * wcx_load_plan_make - plan the loading of targets
 *
 * The container must outlive the plan; the targets need not.  Returns 0, -EINVAL (a target beyond the end of the original,
 * or two that overlap) or -ENOMEM.  The caller frees *plan in any case.
 */
int wcx_load_plan_make(const struct wcx_container *container, const struct wcx_target *targets, size_t target_count,
		       struct wcx_load_plan *plan, struct wcx_error *err);
void wcx_load_plan_free(struct wcx_load_plan *plan);

/* How the bytes of a tile get to their targets. */
enum wcx_load_way {
	WCX_LOAD_SKIP,    /* no byte is wanted; the tile is only read with its neighbours */
	WCX_LOAD_DIRECT,  /* decoded by the GPU at `whole` */
	WCX_LOAD_STAGED,  /* decoded by the GPU to the stage, at `at`, and copied from there */
	WCX_LOAD_STORED,  /* copied from the packed tile, which is in the buffer, at `at` */
	WCX_LOAD_LITERAL, /* restored by the host to the buffer, at `at`, and copied from there */
	WCX_LOAD_FILL,    /* filled by the GPU at `whole`, with the lowest byte of the constant */
};

struct wcx_load_tile {
	struct wcx_tile_info info;
	enum wcx_load_way way;
	uint64_t whole; /* device address, if all of the tile goes to consecutive bytes; 0 otherwise */
	size_t at;
};

/* Consecutive tiles that are submitted together.  The buffer holds the packed tiles, as in the file, then the literals. */
struct wcx_load_batch {
	const struct wcx_segment *segment;
	struct wcx_load_tile tiles[WCX_LOAD_BATCH_TILES];
	uint32_t count;
	size_t packed_bytes, buffer_bytes; /* of the packed tiles; with the literals */
};

/* wcx_load_batch_fill - plan a batch of as many tiles as fit, at least one, from number `first` of the task on */
void wcx_load_batch_fill(const struct wcx_load_plan *plan, const struct wcx_load_task *task, uint64_t first,
			 struct wcx_load_batch *batch);

/* A walk over the wanted bytes of a tile, in the order of the original. */
struct wcx_load_walk {
	const struct wcx_load_plan *plan;
	const struct wcx_segment *segment;
	const struct wcx_tile_info *tile;
	size_t span;         /* index of the span to look at next */
	uint64_t from, next; /* offsets in the original: where the last rectangle starts; everything before next is done */
};

void wcx_load_walk_start(struct wcx_load_walk *walk, const struct wcx_load_plan *plan, const struct wcx_segment *segment,
			 const struct wcx_tile_info *tile);

/*
 * wcx_load_walk_next - get the next rectangle of wanted bytes, as the copy that brings it to its target
 *
 * In *ret, src counts from the start of the decoded tile, and staged is false.  walk->from tells where the rectangle starts
 * in the original.  Returns false when there is no more.
 */
bool wcx_load_walk_next(struct wcx_load_walk *walk, struct wcx_load_copy *ret);

/*
 * wcx_load_first_wanted - offset in the original of the first wanted byte of a tile
 *
 * 0 if none is wanted, of a tile that was only read with its neighbours.
 */
uint64_t wcx_load_first_wanted(const struct wcx_load_plan *plan, const struct wcx_segment *segment,
			       const struct wcx_tile_info *tile);

#endif
