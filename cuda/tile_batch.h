/* SPDX-License-Identifier: MIT */
/*
 * Batches of coded tiles for the GPU.  A batch turns tile jobs into its *control*: one block of memory that describes them
 *to the kernels.  The caller puts the packed tiles beside it.
 *
 * An *item* is a coded tile.  A *kind* is a set of items that share recipe and coding of fields, and with it tables, planes
 * and positions of bits: a thread block works on one kind at a time.  A *kernel* is code for one element format, and handles
 * all kinds of that format in one launch.
 *
 *	launches   |        kernel BYTES_4         | kernel ANY_2 |
 *	kinds      |    kind 0     | kind 1 |kind 2|    kind 3    |
 *	items      | 0  1  2  3  4 | 5  6   |  7   |  8   9   10  |
 *	blocks       ^0       ^1     ^2               ^3              begin with kinds 0, 0, 1, 3
 *
 * Control:  items | places | kinds | tables | blocks | left
 *
 * This is host code without CUDA.  A batch is for one thread at a time.
 */
#ifndef WCX_TILE_BATCH_H
#define WCX_TILE_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/rans.h"
#include "codec/tile.h"

enum {
	WCX_BATCH_SRC_SLACK = 1024, /* bytes behind the last packed tile that a kernel may read, but does not use */
	WCX_TILE_TABLES_MAX = WCX_FIELDS_MAX * WCX_FIELD_TABLES_MAX,
	WCX_RUN_FACTOR_BITS = 20, /* exact for the 512 groups that a tile may have */
	/*
	 * Warps of a thread block, which share tables.  With one or two tables, two blocks fit on a multiprocessor of
	 * 228 KiB, and one decodes while the other builds tables; with four tables there is one larger block.  Devices with
	 * less shared memory run fewer warps.
	 */
	WCX_BLOCK_WARPS = 16,
	WCX_SLIM_BLOCK_WARPS = 20, /* the same with one table, of kernels that fit 48 registers */
	WCX_LARGE_BLOCK_WARPS = 32,
	WCX_CARRIER_TABLES_MAX = WCX_MAX(WCX_FIELD_TABLES_MAX, WCX_CONTEXTS_MAX),
};

/* A cumulative frequency table: start[s] is the sum of the frequencies below symbol s, for s up to WCX_SYMBOL_COUNT. */
struct wcx_batch_table {
	uint16_t start[WCX_SYMBOL_COUNT + 2]; /* the last one is padding */
};

/* How a field is coded in all tiles of a kind. */
struct wcx_batch_field {
	uint32_t table; /* number of the first table in the batch */
	uint16_t base;
	uint8_t width, shift; /* bits, in the transformed element */
	uint8_t table_count;
	uint8_t choice_bits; /* 0, 1 or 2, for 1, 2 or 4 tables, or sets of tables, that runs choose from */
	uint8_t steps;       /* symbols of a lane in a line */
	bool is_pair, has_zero, by_context;
};

struct wcx_batch_plane {
	uint64_t mask;      /* its bits in a word of elements */
	uint32_t width;     /* bits */
	uint32_t unit_bits; /* a unit contains the bits of 2^unit_bits lines */
};

struct wcx_batch_kind {
	uint32_t fold_mask;  /* the bits of a word that FOLD inverts */
	uint32_t first_item; /* the kind's items are contiguous; the control's `left` has their number */
	uint32_t base_kind;  /* of a fused kind: that of the bases, which is in no launch or also in another one */
	uint32_t run_factor; /* group g of WCX_RUN_ELEMS elements is in run g * run_factor >> WCX_RUN_FACTOR_BITS */
	uint8_t transform, predictor, difference;
	uint8_t thresholds[WCX_CONTEXTS_MAX - 1]; /* of the contexts; 0 behind the last */
	uint8_t plane_count, coded_count, constant_count;
	bool has_sets; /* runs of the carrier choose a set of tables, of which there are too many for decoding tables */
	struct wcx_batch_field coded[WCX_FIELDS_MAX]; /* the carrier is the last */
	struct wcx_batch_plane planes[WCX_RAW_PLANES_MAX];
	/* Number of a constant field in the tile's header, and position of its bits in the transformed element. */
	struct {
		uint8_t number, shift;
	} constants[WCX_FIELDS_MAX];
};

/* Offsets in a tile of the payload of a coded field: even, and states a multiple of 4. */
struct wcx_payload_place {
	uint32_t choices, states, words, words_bytes;
};

/* A coded tile.  Everything is checked, but payloads, planes and exceptions are untrusted. */
struct wcx_tile_item {
	uint64_t dst;  /* offset from the batch's dst; aligned to words of elements */
	uint64_t base; /* the same of the base's elements, for a difference; may wrap around */
	uint32_t src;  /* offset of the packed tile from the batch's src; a multiple of 4 */
	uint32_t elems, cols;
	uint32_t planes;     /* offset in the tile of the first raw plane; the others follow */
	uint32_t exceptions; /* offset in the tile */
	uint16_t exception_count;
	bool plane_carried, exceptions_carried; /* the final states contain a part of them */
	uint32_t number;                        /* in the order of adding */
	uint32_t kind;                          /* number in the order of adding; only used by the host */
	uint32_t base_item;                     /* of a fused item: that of the base, in the control's order */
	uint32_t others;                        /* number of the first place of coded fields other than the carrier */
	struct wcx_payload_place carrier;
};

/* One kernel for each common element format, with constant widths and shifts, and one for each element size. */
enum wcx_tile_kernel {
	WCX_KERNEL_ANY_1,
	WCX_KERNEL_ANY_2,
	WCX_KERNEL_ANY_4,
	WCX_KERNEL_ANY_8,
	WCX_KERNEL_PAIRS_FOLD, /* bytes, folded: pairs above four raw bits */
	WCX_KERNEL_BYTES_0,    /* bytes: one symbol above this many raw bits */
	WCX_KERNEL_BYTES_1,
	WCX_KERNEL_BYTES_2,
	WCX_KERNEL_BYTES_3,
	WCX_KERNEL_BYTES_4,
	WCX_KERNEL_BYTES_FOLD_1, /* the same, folded */
	WCX_KERNEL_BYTES_FOLD_2,
	WCX_KERNEL_BYTES_FOLD_3,
	WCX_KERNEL_BYTES_FOLD_4,
	WCX_KERNEL_HALVES_5, /* two bytes, rotated: one symbol above this many raw bits */
	WCX_KERNEL_HALVES_6,
	WCX_KERNEL_HALVES_7,
	WCX_KERNEL_HALVES_8,
	WCX_KERNEL_HALVES_9,
	WCX_KERNEL_HALVES_PAIRS_8, /* two bytes, rotated: pairs above this many raw bits, as of BF16 and FP16 */
	WCX_KERNEL_HALVES_PAIRS_11,
	WCX_KERNEL_SINGLES_20, /* four bytes, rotated: one symbol above this many raw bits */
	WCX_KERNEL_SINGLES_21,
	WCX_KERNEL_SINGLES_22,
	WCX_KERNEL_SINGLES_23,
	WCX_KERNEL_SINGLES_24,
	WCX_KERNEL_DIFFERENCE_ANY_1, /* differences from a base, from here on */
	WCX_KERNEL_DIFFERENCE_ANY_2,
	WCX_KERNEL_DIFFERENCE_ANY_4,
	WCX_KERNEL_DIFFERENCE_ANY_8,
	WCX_KERNEL_DIFFERENCE_BYTES,      /* bytes: one symbol */
	WCX_KERNEL_DIFFERENCE_BYTE_PAIRS, /* bytes, in the order of integers: pairs */
	WCX_KERNEL_DIFFERENCE_HALVES_0,   /* two bytes, in the order of floats: one symbol above this many raw bits */
	WCX_KERNEL_DIFFERENCE_HALVES_2,
	WCX_KERNEL_DIFFERENCE_HALVES_4,
	WCX_KERNEL_DIFFERENCE_TWO,       /* two bytes, in the order of floats: two coded fields */
	WCX_KERNEL_DIFFERENCE_ESCAPES,   /* the same: one field with escapes */
	WCX_KERNEL_FUSED_BYTES,          /* differences with their bases, from here on: DIFFERENCE_BYTES from PAIRS_FOLD */
	WCX_KERNEL_FUSED_BYTE_PAIRS,     /* DIFFERENCE_BYTE_PAIRS from PAIRS_FOLD */
	WCX_KERNEL_FUSED_HALVES_PAIRS_8, /* DIFFERENCE_ESCAPES from HALVES_PAIRS_8 */
	WCX_KERNEL_COUNT,
	WCX_KERNEL_DIFFERENCE_FIRST = WCX_KERNEL_DIFFERENCE_ANY_1,
	WCX_KERNEL_FUSED_FIRST = WCX_KERNEL_FUSED_BYTES,
};

/* The kinds of one kernel.  When all items of a block's kind are taken, the block continues with another one. */
struct wcx_batch_launch {
	uint32_t first_kind, kind_count, first_block, block_count;
	uint32_t block_warps;     /* that take items: fewer in small batches, which are spread over blocks */
	uint8_t kernel;           /* enum wcx_tile_kernel */
	uint8_t table_count;      /* the most tables of a carrier; at least 1 */
	uint8_t base_table_count; /* the same of the bases, in a fused launch; else 0 */
	bool waits;               /* for all earlier launches, which may decode bases; others overlap the one before */
};

enum { WCX_BATCH_LAUNCHES_MAX = WCX_KERNEL_COUNT };

/* Capacity of a batch.  Any one tile must fit: WCX_TILE_TABLES_MAX tables, WCX_FIELDS_MAX places. */
struct wcx_batch_limits {
	uint32_t items, kinds, tables, places;
	uint32_t blocks;         /* of WCX_BLOCK_WARPS, that the device runs concurrently; at least 2 */
	uint32_t carrier_tables; /* that a thread block has space for; WCX_FIELD_TABLES_MAX to WCX_CARRIER_TABLES_MAX */
};

/* Size of the control and offsets of its parts. */
struct wcx_batch_layout {
	uint32_t items;
	uint32_t launch_count;
	struct wcx_batch_launch launches[WCX_BATCH_LAUNCHES_MAX];
	size_t places_offset, kinds_offset, tables_offset, blocks_offset, left_offset, control_bytes;
};

struct wcx_tile_batch;

struct wcx_tile_batch *wcx_tile_batch_create(const struct wcx_batch_limits *limits); /* NULL when out of memory */
void wcx_tile_batch_free(struct wcx_tile_batch *batch);                              /* NULL is fine */

/* wcx_tile_batch_capacity - the largest control within limits, in bytes */
size_t wcx_tile_batch_capacity(const struct wcx_batch_limits *limits);

/* wcx_tile_batch_clear - start a new batch */
void wcx_tile_batch_clear(struct wcx_tile_batch *batch);

/* wcx_tile_batch_takes - whether there is a kernel for all coded tiles of a recipe, with these limits */
bool wcx_tile_batch_takes(const struct wcx_batch_limits *limits, const struct wcx_recipe *recipe);

/* Where a tile will be in device memory: offsets of the packed tile from the batch's src, and of the others from its dst. */
struct wcx_tile_places {
	uint32_t src;
	uint64_t dst;
	uint64_t base;   /* of a difference: the base's elements, which must not overlap the tile; aligned as dst */
	bool takes_base; /* the item added last decodes base, for this tile alone: it need not be there afterwards */
};

/*
 * wcx_tile_batch_add - add a coded tile as the next item
 *
 * job->src is the packed tile in host memory; job->base is not looked at.  The elements of the base of a difference must be
 * in place before the batch, or be those of other items of the batch that are no differences.  job->recipe must live until
 * the control is written.  *added_ret is false if the batch is full.  Returns WCX_OK, an error of wcx_tile_parse, or
 * WCX_BAD_DATA if there is no kernel for the tile.  A tile that is not added leaves the batch unchanged.
 */
enum wcx_result wcx_tile_batch_add(struct wcx_tile_batch *batch, const struct wcx_tile_job *job,
				   const struct wcx_tile_places *places, bool *added_ret);

/* wcx_tile_batch_finish - assign the items added to launches and blocks; the layout is valid until the next clear */
const struct wcx_batch_layout *wcx_tile_batch_finish(struct wcx_tile_batch *batch);

/* wcx_tile_batch_write - write the control of a finished batch: control_bytes, aligned to 8 */
void wcx_tile_batch_write(struct wcx_tile_batch *batch, uint8_t *control);

#endif
