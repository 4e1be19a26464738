/* SPDX-License-Identifier: MIT */
/*
 * Planning of a load: which tiles the targets need, in which portions threads take them, and how each tile gets there.
 *
 * Everything here is a pure function of indexes and targets: nothing reads tiles or gives the GPU work.  A plan does not
 * change once it is made, so any number of threads may use it.
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
#include "fs/read/image.h"

enum {
	WCX_LOAD_BATCH_TILES = 1024,
	WCX_LOAD_BATCH_PIECES = 64,
};

/* Bytes [from, to) of the original go to the device address dst. */
struct wcx_load_span {
	uint64_t from, to, dst;
};

/* Consecutive tiles of a segment, which one thread loads. */
struct wcx_load_task {
	const struct wcx_segment *segment;
	uint64_t first_tile, tile_count;
	const struct wcx_container *base; /* of the segment, if the GPU decodes its differences; else NULL */
};

struct wcx_load_plan {
	const struct wcx_container *container;
	bool is_pinned;              /* all packed bytes are in pinned memory already: buffers are for literals alone */
	size_t queue_bytes;          /* memory of a queue */
	uint64_t task_bytes;         /* the most of a task, decoded, unless packed bytes are pinned */
	struct wcx_load_span *spans; /* the targets with bytes, sorted; they do not overlap */
	size_t span_count;
	struct wcx_load_task *tasks; /* each tile that has bytes of a span is in exactly one */
	size_t task_count, task_capacity;
	struct wcx_image **bases; /* of the file, by number from 0; NULL: not needed, or not found */
};

/*
 * wcx_load_plan_make - plan the loading of targets
 *
 * pinned_queue_bytes is the memory of a queue if the packed bytes are pinned, which makes larger tasks, and otherwise 0. The
 * container must outlive the plan; the targets need not.  Returns 0, -EINVAL (a target beyond the end of the original, or
 * two that overlap) or -ENOMEM.  The caller frees *plan in any case.
 */
int wcx_load_plan_make(const struct wcx_container *container, size_t pinned_queue_bytes, const struct wcx_target *targets,
		       size_t target_count, struct wcx_load_plan *plan, struct wcx_error *err);
void wcx_load_plan_free(struct wcx_load_plan *plan);

/*
 * wcx_load_plan_use_bases - plan to decode on the GPU what is a difference from a base
 *
 * Otherwise the host does, as it does where a base cannot be found, whose tiles then fail.  image is that of the container.
 * Returns 0 or -ENOMEM.
 */
int wcx_load_plan_use_bases(struct wcx_load_plan *plan, struct wcx_image *image, const struct wcx_gpu_loader *gpu,
			    struct wcx_error *err);

/* How the bytes of a tile get to their targets. */
enum wcx_load_way {
	WCX_LOAD_SKIP,    /* no byte is wanted; the tile is only read with its neighbours */
	WCX_LOAD_DIRECT,  /* decoded by the GPU at `whole` */
	WCX_LOAD_STAGED,  /* decoded by the GPU to the stage, and copied from there: from `at` */
	WCX_LOAD_STORED,  /* copied from the packed tile, which is sent to `at` */
	WCX_LOAD_LITERAL, /* restored by the host, sent to `at`, and copied from there */
	WCX_LOAD_FILL,    /* filled by the GPU at `whole`, with the lowest byte of the constant */
};

struct wcx_load_tile {
	struct wcx_tile_info info;
	enum wcx_load_way way;
	uint64_t whole; /* device address, if all of the tile goes to consecutive bytes; 0 otherwise */
	size_t at;      /* in the stage, or in the queue's memory: of the packed tile, unless `way` says otherwise */
	/*
	 * A tile that the GPU decodes from a base: the base's tile is sent to base_at and decoded to the stage, at
	 * base_staged_at.  Of a constant tile, which is the base's, nothing else is decoded; and that goes to `whole` at
	 * once if is_base.
	 */
	bool has_base, is_base;
	struct wcx_base_tile base;
	size_t base_at, base_staged_at;
};

/*
 * Consecutive tiles of a segment that are sent together.  The queue's memory gets their packed bytes as they are in the
 * file, then the literals and the packed tiles of bases, in the order of the tiles that need them.  So does the buffer, but
 * without the packed bytes of the file if these are pinned.
 */
struct wcx_load_piece {
	const struct wcx_segment *segment;
	const struct wcx_container *base; /* that has the base tiles */
	uint32_t first, count;            /* of the batch's tiles */
	uint64_t packed_offset;
	size_t packed_bytes;
	size_t at;                  /* in the queue's memory */
	size_t literals_at, end_at; /* the same, of literals and base tiles, and of what follows them */
};

/* Pieces that are decoded together, by one queue. */
struct wcx_load_batch {
	struct wcx_load_tile tiles[WCX_LOAD_BATCH_TILES];
	struct wcx_load_piece pieces[WCX_LOAD_BATCH_PIECES];
	uint32_t tile_count, piece_count;
	size_t sent_bytes, stage_bytes; /* used in the queue's memory and in the stage */
};

/* wcx_load_batch_clear - start an empty batch */
void wcx_load_batch_clear(struct wcx_load_batch *batch);

/*
 * wcx_load_batch_extend - add a piece of as many tiles as fit, from number `first` of the task on
 *
 * Returns the piece, which is the last of the batch, or NULL if the batch is full.  An empty batch always has space.
 */
const struct wcx_load_piece *wcx_load_batch_extend(const struct wcx_load_plan *plan, const struct wcx_load_task *task,
						   uint64_t first, struct wcx_load_batch *batch);

/* wcx_load_batch_cut - drop all but the first `count` tiles of the last piece, which becomes no piece if that is 0 */
void wcx_load_batch_cut(struct wcx_load_batch *batch, uint32_t count);

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
