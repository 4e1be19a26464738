/* SPDX-License-Identifier: MIT */
/*
 * Turns tile jobs into what the GPU works on: items, one a coded tile, and one image to upload with all that they need.
 *
 * This is host code without CUDA.  A batch is for one thread at a time.
 *
 * Uploaded:    items | slots, by launch and carrier's tables | tables | packed tiles
 * Downloaded:  one status an item | tiles
 */
#ifndef WCX_TILE_BATCH_H
#define WCX_TILE_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"

enum {
	WCX_BATCH_DST_ALIGN = 128, /* of a decoded tile: what a warp stores at a time is whole lines of the cache */
	WCX_BATCH_SRC_SLACK = 768, /* behind the last packed tile: how far the kernel loads words ahead of a payload's end */
	WCX_BLOCK_MAX_ITEMS = 24,
	WCX_TILE_TABLES_MAX = WCX_FIELDS_MAX * WCX_FIELD_TABLES_MAX,
	WCX_BATCH_LAUNCHES_MAX = 12, /* one for each element size and table count of the carrier */
};

#define WCX_NO_ITEM UINT32_MAX
#define WCX_NOT_LOW UINT8_MAX

/*
 * A frequency table as the kernel wants it: start[s] is the sum of the frequencies below s, for s up to WCX_SYMBOL_COUNT;
 * the last number is padding.
 */
struct wcx_batch_table {
	uint16_t start[WCX_SYMBOL_COUNT + 2];
};

/* What the layout does not say of a coded field. */
struct wcx_item_field {
	uint32_t table; /* the first one's number in the batch */
	uint16_t base;
	uint8_t width;
	uint8_t choice_bits; /* 0, 1, 2: there are 1, 2, 4 tables */
};

/* A coded tile.  All but what is in payloads and planes has been checked. */
struct wcx_tile_item {
	struct wcx_tile_layout layout;
	struct wcx_item_field coded[WCX_FIELDS_MAX]; /* in the order of layout.coded */
	uint32_t src_offset;                         /* of the tile, from the first packed tile; a multiple of 4 */
	uint32_t dst_offset;                         /* of the tile, from the first decoded tile */
	uint32_t rows, cols;
	uint32_t run_groups;   /* groups of 128 elements that share a choice of table */
	uint32_t whole_groups; /* at the tile's start: groups with symbols for all elements, and all raw bits in planes */
	uint8_t rotation, predictor;
	/*
	 * Where elements are nothing but raw bits, if any, in the planes of one field, and above them the carrier, as most
	 * are: how many raw bits they have.  WCX_NOT_LOW where they are anything else.
	 */
	uint8_t low_bits;
};

/*
 * What a batch holds at most; tables counts groups of items with the same tables too.  Any one tile must fit: an item,
 * WCX_TILE_TABLES_MAX tables, WCX_TILE_MAX_BYTES of either kind.
 */
struct wcx_batch_limits {
	uint32_t items, tables;
	uint32_t src_bytes, dst_bytes; /* with the gaps that alignment leaves */
};

/* The slots that one launch of a kernel takes: of tiles whose elements have that size, and carriers that many tables. */
struct wcx_batch_launch {
	uint32_t first_slot, slots;
	uint8_t elem_bytes, table_count; /* table_count is 1 too where there is no carrier */
};

/* Where the parts of the two images lie, and how large these are. */
struct wcx_batch_layout {
	uint32_t items;
	uint32_t slots; /* items, and fillers up to whole blocks; a block's first slot always has an item */
	uint32_t launch_count;
	struct wcx_batch_launch launches[WCX_BATCH_LAUNCHES_MAX];
	size_t slots_offset, tables_offset, src_offset, upload_bytes;
	size_t dst_offset, download_bytes;
};

/*
 * wcx_block_items - items in a thread block, which share the decoding tables in the block's shared memory
 *
 * With 16 KiB a table and 1 KiB an item, there is room for 48 items on a multiprocessor: for so many there are registers.
 */
static inline uint32_t wcx_block_items(uint32_t table_count)
{
	return table_count > 2 ? (uint32_t)WCX_BLOCK_MAX_ITEMS : 8 * table_count;
}

struct wcx_tile_batch;

struct wcx_tile_batch *wcx_tile_batch_create(const struct wcx_batch_limits *limits); /* NULL when there is no memory */
void wcx_tile_batch_free(struct wcx_tile_batch *batch);                              /* NULL is fine */

/* wcx_tile_batch_capacity - the layout of the largest batch within limits, but for launches */
struct wcx_batch_layout wcx_tile_batch_capacity(const struct wcx_batch_limits *limits);

/*
 * wcx_tile_batch_fill - start a new batch with the first of these jobs
 *
 * Takes as many jobs as there is room for, at least one if there are any, and returns how many.  Jobs that need no GPU
 * get their result at once: constant and stored tiles, whose copy costs less than the way to the GPU and back, and
 * those that are refused.  The others must live until the batch is finished or filled anew.
 */
size_t wcx_tile_batch_fill(struct wcx_tile_batch *batch, struct wcx_tile_job *jobs, size_t job_count);

/* wcx_tile_batch_layout - the layout of what the batch holds; without items there is nothing to do for the GPU */
struct wcx_batch_layout wcx_tile_batch_layout(const struct wcx_tile_batch *batch);

/* wcx_tile_batch_write - write the image to upload: upload_bytes at upload, which is aligned like a struct wcx_tile_item */
void wcx_tile_batch_write(const struct wcx_tile_batch *batch, uint8_t *upload);

/*
 * wcx_tile_batch_finish - give the jobs their results, and their tiles to those that went well
 *
 * status[item] is an enum wcx_result: WCX_OK or WCX_BAD_DATA.  dst is the first decoded tile.
 */
void wcx_tile_batch_finish(struct wcx_tile_batch *batch, const uint32_t *status, const uint8_t *dst);

#endif
