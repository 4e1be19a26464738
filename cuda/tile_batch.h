/* SPDX-License-Identifier: MIT */
/*
 * Turns tile jobs into what the GPU works on: the *control* of a batch, an image that describes its coded tiles.  The packed
 * tiles lie beside it, where the caller has put them.
 *
 * This is host code without CUDA.  A batch is for one thread at a time.
 *
 * Control:  items | places | kinds | tables | blocks | left
 */
#ifndef WCX_TILE_BATCH_H
#define WCX_TILE_BATCH_H

#include <stddef.h>
#include <stdint.h>

#include "codec/rans.h"
#include "codec/tile.h"

enum {
	WCX_BATCH_SRC_SLACK = 512, /* what a kernel may read behind the last packed tile, and uses nothing of */
	WCX_TILE_TABLES_MAX = WCX_FIELDS_MAX * WCX_FIELD_TABLES_MAX,
	WCX_RUN_FACTOR_BITS = 20, /* exact for the 512 groups that a tile may have */
	/*
	 * Warps of a thread block, which share tables: with one or two of these, two blocks fit on a multiprocessor of
	 * 228 KiB, and one is at work while the other makes tables; with four it is one larger block.  Where there is less
	 * shared memory, there are fewer.
	 */
	WCX_BLOCK_WARPS = 16,
	WCX_LARGE_BLOCK_WARPS = 32,
};

/*
 * A frequency table as the kernel wants it: start[s] is the sum of the frequencies below s, for s up to WCX_SYMBOL_COUNT;
 * the last number is padding.
 */
struct wcx_batch_table {
	uint16_t start[WCX_SYMBOL_COUNT + 2];
};

/* How a field is coded, in all tiles of a kind. */
struct wcx_batch_field {
	uint32_t table; /* the first one's number in the batch */
	uint16_t base;
	uint8_t width, shift; /* bits, in the transformed element */
	uint8_t choice_bits;  /* 0, 1, 2: there are 1, 2, 4 tables */
	uint8_t steps;        /* symbols of a lane in a line */
	uint8_t is_pair, has_zero;
};

struct wcx_batch_plane {
	uint64_t mask;      /* its bits in a word of elements */
	uint32_t width;     /* bits */
	uint32_t unit_bits; /* a unit has the bits of 2^unit_bits lines */
};

/* What tiles have in common that are of one recipe and have their fields coded alike. */
struct wcx_batch_kind {
	uint32_t fold_mask;  /* the bits of a word that FOLD inverts */
	uint32_t first_item; /* of its items, which follow each other; how many stands under left in the control */
	uint32_t run_factor; /* group g of 128 elements is in run g * run_factor >> WCX_RUN_FACTOR_BITS */
	uint8_t transform, predictor;
	uint8_t plane_count, coded_count, constant_count;
	struct wcx_batch_field coded[WCX_FIELDS_MAX]; /* the carrier is the last */
	struct wcx_batch_plane planes[WCX_RAW_PLANES_MAX];
	/* A constant field's number in the tile's header, and where in the transformed element its bits go. */
	struct {
		uint8_t number, shift;
	} constants[WCX_FIELDS_MAX];
};

/* Where the payload of a coded field is, from the start of its tile; all but words_bytes are multiples of 2, states of 4. */
struct wcx_payload_place {
	uint32_t choices, states, words, words_bytes;
};

/* A coded tile.  All but what is in payloads, planes and exceptions has been checked. */
struct wcx_tile_item {
	uint64_t dst; /* of the tile, from the batch's dst; aligned like a word of elements */
	uint32_t src; /* of the packed tile, from the batch's src; a multiple of 4 */
	uint32_t elems, cols;
	uint32_t planes;     /* of the first raw plane, from the start of the tile; the others follow it */
	uint32_t exceptions; /* likewise */
	uint16_t exception_count;
	uint8_t plane_carried, exceptions_carried; /* whether the final states have part of them */
	uint32_t number;                           /* in the order in which items were added */
	uint32_t kind;                             /* number in the batch, until this is finished */
	uint32_t others;                           /* the place of the first coded field that is not the carrier */
	struct wcx_payload_place carrier;
};

/*
 * The kernels: one for each format of elements that is common, with widths and shifts known, and one for each element size
 * that takes whatever comes.
 */
enum wcx_tile_kernel {
	WCX_KERNEL_ANY_1,
	WCX_KERNEL_ANY_2,
	WCX_KERNEL_ANY_4,
	WCX_KERNEL_ANY_8,
	WCX_KERNEL_PAIRS_FOLD, /* bytes, folded: pairs above four raw bits */
	WCX_KERNEL_BYTES_0,    /* bytes: one symbol each, above so many raw bits */
	WCX_KERNEL_BYTES_1,
	WCX_KERNEL_BYTES_2,
	WCX_KERNEL_BYTES_3,
	WCX_KERNEL_BYTES_4,
	WCX_KERNEL_BYTES_FOLD_1, /* the same, folded */
	WCX_KERNEL_BYTES_FOLD_2,
	WCX_KERNEL_BYTES_FOLD_3,
	WCX_KERNEL_BYTES_FOLD_4,
	WCX_KERNEL_HALVES_5, /* two bytes, rotated: one symbol each, above so many raw bits */
	WCX_KERNEL_HALVES_6,
	WCX_KERNEL_HALVES_7,
	WCX_KERNEL_HALVES_8,
	WCX_KERNEL_HALVES_9,
	WCX_KERNEL_COUNT
};

/*
 * What one launch decodes: kinds of one kernel, whose carriers have so many tables; 1 too where there is no carrier.  A
 * block begins with the kind that it is given; once all items of that have been taken, it goes on with the next that has
 * some.
 */
struct wcx_batch_launch {
	uint32_t first_kind, kind_count, first_block, block_count;
	uint32_t block_warps; /* that take items: small batches are spread over blocks */
	uint8_t kernel, table_count;
};

enum { WCX_BATCH_LAUNCHES_MAX = WCX_KERNEL_COUNT };

/* What a batch holds at most.  Any one tile must fit: WCX_TILE_TABLES_MAX tables, WCX_FIELDS_MAX places. */
struct wcx_batch_limits {
	uint32_t items, kinds, tables, places;
	uint32_t blocks; /* of WCX_BLOCK_WARPS, that the device can run at a time */
};

/* Where the parts of the control are, and how large it is. */
struct wcx_batch_layout {
	uint32_t items;
	uint32_t launch_count;
	struct wcx_batch_launch launches[WCX_BATCH_LAUNCHES_MAX];
	size_t places_offset, kinds_offset, tables_offset, blocks_offset, left_offset, control_bytes;
};

struct wcx_tile_batch;

struct wcx_tile_batch *wcx_tile_batch_create(const struct wcx_batch_limits *limits); /* NULL when there is no memory */
void wcx_tile_batch_free(struct wcx_tile_batch *batch);                              /* NULL is fine */

/* wcx_tile_batch_capacity - the most that a control takes within limits */
size_t wcx_tile_batch_capacity(const struct wcx_batch_limits *limits);

/* wcx_tile_batch_clear - start a new batch */
void wcx_tile_batch_clear(struct wcx_tile_batch *batch);

/*
 * wcx_tile_batch_add - add a coded tile, as the next item
 *
 * The packed tile, which job->src shows to the host, will be at src in the device's memory, and its bytes go to dst.
 * *added_ret is 0 when there is no room for it; then, and after an error, the batch is as it was.  Returns WCX_OK or what
 * wcx_tile_parse says.  job->recipe must live until the control is written.
 */
enum wcx_result wcx_tile_batch_add(struct wcx_tile_batch *batch, const struct wcx_tile_job *job, uint32_t src, uint64_t dst,
				   int *added_ret);

/* wcx_tile_batch_finish - once all tiles are added: deal them out to blocks; the layout of the control */
const struct wcx_batch_layout *wcx_tile_batch_finish(struct wcx_tile_batch *batch);

/* wcx_tile_batch_write - write, once, the control of a finished batch: control_bytes, aligned to 8 */
void wcx_tile_batch_write(struct wcx_tile_batch *batch, uint8_t *control);

#endif
