/* SPDX-License-Identifier: MIT */
/*
 * Deciding how a tensor is coded: a predictor, the fields of an element and which of them are coded, how many frequency
 * tables its runs choose from, the tables, and the shape of its tiles.  Works on samples and statistics that the packer
 * gathers, and never reads a file itself.  A function that takes a plan as const may run on it in many threads at a time,
 * the others in one.
 *
 * A plan goes through init, samples, choose; then all its tiles are counted; then finish gives the recipe that they are
 * encoded with.
 */
#ifndef WCX_TENSOR_PLAN_H
#define WCX_TENSOR_PLAN_H

#include <stdint.h>

#include "codec/tile.h"
#include "fs/format/container.h"
#include "fs/format/safetensors.h"

/* What the bits of an element mean. */
enum wcx_elem_kind {
	WCX_KIND_BYTES,
	WCX_KIND_INTEGER,
	WCX_KIND_FP8,
	WCX_KIND_FP16,
	WCX_KIND_BF16,
	WCX_KIND_FP32,
	WCX_KIND_FP64
};

/* What tiles of a segment add up to.  Laid out alike for every plan. */
struct wcx_plan_counts {
	uint64_t symbols[WCX_FIELDS_MAX][WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT]; /* of the coded fields, by table */
	uint64_t misfits[WCX_FIELDS_MAX];                                         /* values without a symbol */
	uint64_t bytes[WCX_ELEM_MAX_BYTES][WCX_SYMBOL_COUNT];                     /* of elements as they are */
};

struct wcx_tensor_plan {
	struct wcx_segment segment; /* offset and bytes at first; tiles and recipe as they are decided */
	enum wcx_elem_kind kind;
	uint64_t matrix_cols; /* elements in a row of the tensor seen as a matrix */
	int is_pool;          /* several small tensors */
	int is_reference;     /* the reference's scheme */
	int tries_zstd;       /* its tiles may be smaller as Zstandard frames */
	struct wcx_field fields[WCX_FIELDS_MAX];
	struct wcx_freq_table (*tables)[WCX_FIELD_TABLES_MAX]; /* by field */
	struct wcx_plan_counts *counts;                        /* of the tiles counted so far */
};

/* Part of a tensor that is looked at before the rest: whole rows where there are any. */
struct wcx_sample {
	uint64_t offset; /* in the original file */
	struct wcx_tile_dims dims;
	const uint8_t *src; /* its bytes: the caller's to fill in */
};

enum {
	WCX_SAMPLES_MAX = 16,
	WCX_SAMPLES_MAX_BYTES = 2 << 20, /* of all samples of a plan */
};

/* Tables that segments of a file have already, for small ones to share.  Zeroed at first; the packer owns it. */
struct wcx_table_library {
	struct wcx_table_set {
		struct wcx_field field; /* its tables point into this set */
		struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX];
		uint32_t first_table; /* number in the file */
	} sets[32];
	uint32_t set_count, next;
	uint32_t table_count; /* of the file so far */
};

/*
 * wcx_tensor_plan_init - start the plan of one segment of a file
 *
 * tensor is NULL for the header, and the first one for a pool, which has `bytes` in all.  Of the decisions it makes only
 * those that follow from the type.
 */
void wcx_tensor_plan_init(struct wcx_tensor_plan *plan, uint64_t offset, uint64_t bytes, const struct wcx_tensor *tensor,
			  int is_pool, int is_reference);

/* wcx_tensor_plan_samples - what to look at first; returns how many places (at least one) */
unsigned wcx_tensor_plan_samples(const struct wcx_tensor_plan *plan, struct wcx_sample samples[WCX_SAMPLES_MAX]);

/*
 * wcx_tensor_plan_choose - choose predictor, fields, numbers of tables and tiles
 *
 * The recipe is a draft then: every field that might be worth coding is coded, with tables made from the samples.  Every
 * tile is a contiguous range of bytes (but for the reference's).  Allocates; returns WCX_OK or WCX_NO_MEMORY.
 */
enum wcx_result wcx_tensor_plan_choose(struct wcx_tensor_plan *plan, const struct wcx_sample *samples,
				       unsigned sample_count);

/* The plan's tile number tile (from 0 within the segment): its dims, and the offset of its first element in the file. */
void wcx_tensor_plan_tile(const struct wcx_tensor_plan *plan, uint64_t tile, struct wcx_tile_dims *dims_ret,
			  uint64_t *offset_ret);

/* wcx_tensor_plan_count - add one tile's bytes to the statistics given */
void wcx_tensor_plan_count(const struct wcx_tensor_plan *plan, const struct wcx_tile_dims *dims, const uint8_t *src,
			   struct wcx_encode_scratch *scratch, struct wcx_plan_counts *counts);

/* wcx_plan_counts_add - add statistics to those of a plan */
void wcx_plan_counts_add(struct wcx_tensor_plan *plan, const struct wcx_plan_counts *counts);

/*
 * wcx_tensor_plan_finish - once all tiles are counted: make the tables, drop what does not pay, free the counts
 *
 * A small segment may get tables that the library has.  first_table[f] tells for each field of the final recipe where its
 * tables are in the file: library->table_count and up for those that are new, in the order of the fields; the caller adds
 * them to the file and to library->table_count with wcx_table_library_add.
 */
void wcx_tensor_plan_finish(struct wcx_tensor_plan *plan, const struct wcx_table_library *library,
			    uint32_t first_table[WCX_FIELDS_MAX]);

/* wcx_table_library_add - note the tables of a field that have just been added to the file */
void wcx_table_library_add(struct wcx_table_library *library, const struct wcx_field *field);

/* wcx_tensor_plan_free - free what choose allocated; the plan itself is the caller's */
void wcx_tensor_plan_free(struct wcx_tensor_plan *plan);

#endif
