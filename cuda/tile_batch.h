/* SPDX-License-Identifier: MIT */
/*
 * Turns tile jobs into what the GPU works on: items, one a byte plane, and one image to upload with all that they need.
 *
 * This is host code without CUDA.  A batch is for one thread at a time.
 *
 * Uploaded:    items, by table | tables | packed tiles
 * Downloaded:  one status an item | tiles
 */
#ifndef WCX_TILE_BATCH_H
#define WCX_TILE_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"

enum {
	/*
	 * Items in a thread block, which share the decoding table in the block's shared memory: 16 KiB for 8 warps let 64
	 * warps, all that there may be, live on a multiprocessor.
	 */
	WCX_BLOCK_ITEMS = 8,
	WCX_BATCH_DST_ALIGN = 128, /* of a decoded tile: what a warp stores at a time is one line of the cache */
};

#define WCX_NO_TABLE UINT32_MAX

/* One plane of a coded tile.  All but the payload's bytes has been checked. */
struct wcx_plane_item {
	uint32_t src_offset; /* of the payload, from the first packed tile; a multiple of 4 */
	uint32_t src_bytes;  /* of the payload, as in struct wcx_plane */
	uint32_t dst_offset; /* of the tile, from the first decoded tile */
	uint32_t rows, cols; /* no rows: a slot that is not used */
	uint32_t table;      /* number in the batch; WCX_NO_TABLE where the coding needs none */
	uint32_t tile;       /* number in the batch */
	uint8_t elem_bytes, plane, coding, predictor;
};

/* What a batch holds at most.  Any one tile must fit: WCX_PLANES_MAX items and tables, WCX_TILE_MAX_BYTES of either kind. */
struct wcx_batch_limits {
	uint32_t items, tables;
	uint32_t src_bytes, dst_bytes; /* with the gaps that alignment leaves */
};

/* Where the parts of the two images lie, and how large these are. */
struct wcx_batch_layout {
	uint32_t slots; /* items, and fillers up to whole blocks; a block's first slot is always used */
	size_t tables_offset, src_offset, upload_bytes;
	size_t dst_offset, download_bytes;
};

struct wcx_tile_batch;

struct wcx_tile_batch *wcx_tile_batch_create(const struct wcx_batch_limits *limits); /* NULL when there is no memory */
void wcx_tile_batch_free(struct wcx_tile_batch *batch);                              /* NULL is fine */

/* wcx_tile_batch_capacity - the layout of the largest batch within limits */
struct wcx_batch_layout wcx_tile_batch_capacity(const struct wcx_batch_limits *limits);

/*
 * wcx_tile_batch_fill - start a new batch with the first of these jobs
 *
 * Takes as many jobs as there is room for, at least one if there are any, and returns how many.  Jobs that need no GPU
 * get their result at once: constant and stored tiles, whose copy costs less than the way to the GPU and back, and
 * those that are refused.  The others must live until the batch is finished or filled anew.
 */
size_t wcx_tile_batch_fill(struct wcx_tile_batch *batch, struct wcx_tile_job *jobs, size_t job_count);

/* wcx_tile_batch_layout - the layout of what the batch holds; without slots there is nothing to do for the GPU */
struct wcx_batch_layout wcx_tile_batch_layout(const struct wcx_tile_batch *batch);

/* wcx_tile_batch_write - write the image to upload: upload_bytes at upload, which is aligned like a struct wcx_plane_item */
void wcx_tile_batch_write(struct wcx_tile_batch *batch, uint8_t *upload);

/*
 * wcx_tile_batch_finish - give the jobs their results, and their tiles to those that went well
 *
 * status[slot] is an enum wcx_result: WCX_OK or WCX_BAD_DATA.  dst is the first decoded tile.  Comes after write.
 */
void wcx_tile_batch_finish(struct wcx_tile_batch *batch, const uint32_t *status, const uint8_t *dst);

#endif
