/* SPDX-License-Identifier: MIT */
/*
 * Plans how a tensor is coded: predictor, fields of an element, frequency tables, dimensions of tiles.  Works on samples and
 * counts, and reads only through a function of the caller.
 *
 * The steps, in this order: init; samples, choose_view (optional), choose and, with a base, choose_base, or draft, which
 * does them; count tiles, all of them or one in wcx_tensor_plan_stride, and add up the counts; finish.  Then the tiles are
 * encoded with the plan's recipe.  Functions that take a const plan may run in any number of threads at once; the others
 * need the plan to themselves.
 */
#ifndef WCX_TENSOR_PLAN_H
#define WCX_TENSOR_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "codec/tile.h"
#include "fs/base/error.h"
#include "fs/format/container.h"
#include "fs/format/dtype.h"
#include "fs/format/safetensors.h"

/* Statistics of tiles.  The layout is the same for every plan. */
struct wcx_plan_counts {
	uint64_t symbols[WCX_RECIPE_TABLES_MAX][WCX_SYMBOL_COUNT]; /* by table of the plan */
	uint64_t misfits[WCX_FIELDS_MAX];                          /* values without a symbol */
	uint64_t bytes[WCX_ELEM_MAX_BYTES][WCX_SYMBOL_COUNT];      /* of the original elements */
	uint64_t elems;                                            /* counted */
};

/* The bytes of a base that are as many as those of a segment. */
struct wcx_base_range {
	uint32_t base;       /* number of the base, from 1; 0: none */
	uint64_t offset;     /* in its original */
	uint32_t tile_elems; /* so many consecutive elements are a tile of the base, from the first on; 0: unknown */
};

struct wcx_tensor_plan {
	struct wcx_segment segment; /* init sets offset and bytes, later steps the tiles and the recipe */
	enum wcx_elem_kind kind;
	struct wcx_base_range base; /* what the caller allows it to be coded against, before the draft */
	double draft_bits;          /* what the draft takes, by its samples */
	uint64_t matrix_cols;       /* elements in a row of the tensor, viewed as a matrix */
	uint64_t byte_cols;         /* the same if its bytes are the elements */
	bool is_pool;               /* several small tensors */
	bool is_reference;          /* in the reference's scheme */
	bool for_speed;             /* may take a little more space to decode faster; set by the caller before the draft */
	bool tries_zstd;            /* tiles may be smaller as Zstandard frames */
	struct wcx_field fields[WCX_FIELDS_MAX];
	struct wcx_freq_table *tables;  /* WCX_RECIPE_TABLES_MAX; the coded fields point to theirs */
	struct wcx_plan_counts *counts; /* of all tiles counted so far */
};

/* Part of a tensor that is studied before the rest is read: whole rows where tiles may be whole rows. */
struct wcx_sample {
	uint64_t offset; /* in the original file */
	struct wcx_tile_dims dims;
	const uint8_t *src; /* filled in and owned by the caller */
};

enum {
	WCX_SAMPLES_MAX = 16,
	WCX_SAMPLES_MAX_BYTES = 2 << 20, /* of all samples of a plan */
};

/* The latest tables of a file, which later small segments may share.  Zeroed at first; the caller owns it. */
struct wcx_table_library {
	struct wcx_table_set {
		struct wcx_field field; /* its tables point into this set */
		struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX];
		uint32_t first_table; /* number in the file */
	} sets[32];
	uint32_t set_count, next;
	uint32_t table_count; /* of the file so far */
};

/* How a plan reads the original and, by number, the originals of bases: all of bytes, or -errno and a message. */
struct wcx_plan_reader {
	int (*read)(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err);
	int (*read_base)(const void *user, uint32_t base, uint8_t *dst, size_t bytes, uint64_t offset,
			 struct wcx_error *err); /* NULL where no plan has a base */
	const void *user;
};

/*
 * wcx_tensor_plan_init - start the plan of one segment
 *
 * tensor is NULL for the file's header and the first one for a pool; bytes are those of the whole segment.  Makes only the
 * decisions that follow from the dtype.
 */
void wcx_tensor_plan_init(struct wcx_tensor_plan *plan, uint64_t offset, uint64_t bytes, const struct wcx_tensor *tensor,
			  bool is_pool, bool is_reference);

/* wcx_tensor_plan_samples - the parts to study; returns how many (at least one) */
unsigned wcx_tensor_plan_samples(const struct wcx_tensor_plan *plan, struct wcx_sample samples[WCX_SAMPLES_MAX]);

/*
 * wcx_tensor_plan_choose_view - make integers of several bytes bytes where these take fewer bits, as packed INT4 does
 *
 * Changes the plan and the dims of the samples alike.  Returns WCX_OK or WCX_NO_MEMORY.
 */
enum wcx_result wcx_tensor_plan_choose_view(struct wcx_tensor_plan *plan, struct wcx_sample *samples, unsigned sample_count);

/*
 * wcx_tensor_plan_choose - choose predictor, fields, numbers of tables and tiles
 *
 * Leaves a draft of the recipe: every field that might be worth coding is coded, with tables made from the samples.  Every
 * tile is a contiguous range of bytes, except in the reference's scheme.  Allocates; returns WCX_OK or WCX_NO_MEMORY.
 */
enum wcx_result wcx_tensor_plan_choose(struct wcx_tensor_plan *plan, const struct wcx_sample *samples,
				       unsigned sample_count);

/*
 * wcx_tensor_plan_choose_base - replace the draft by one that codes differences from the base, if that takes fewer bits
 *
 * base has the bytes of plan->base at the places of the samples, one after another.  Results as of choose.
 */
enum wcx_result wcx_tensor_plan_choose_base(struct wcx_tensor_plan *plan, const struct wcx_sample *samples,
					    unsigned sample_count, const uint8_t *base);

/*
 * wcx_tensor_plan_draft - read the samples and choose the view and the rest, alone or against the base if there is one
 *
 * buffer has WCX_SAMPLES_MAX_BYTES, and so has base_buffer, which only a plan with a base needs.  Returns 0, what the reader
 * returned, or -ENOMEM without a message.
 */
int wcx_tensor_plan_draft(struct wcx_tensor_plan *plan, const struct wcx_plan_reader *reader, uint8_t *buffer,
			  uint8_t *base_buffer, struct wcx_error *err);

/* wcx_tensor_plan_tile - the dims of a tile, numbered from 0 within the segment, and the file offset of its first element */
void wcx_tensor_plan_tile(const struct wcx_tensor_plan *plan, uint64_t tile, struct wcx_tile_dims *dims_ret,
			  uint64_t *offset_ret);

/* wcx_tensor_plan_read_tile - read the rows of a tile, one by one, to dst; returns 0 or what the reader returned */
int wcx_tensor_plan_read_tile(const struct wcx_tensor_plan *plan, uint64_t tile, const struct wcx_plan_reader *reader,
			      uint8_t *dst, struct wcx_error *err);

/*
 * wcx_tensor_plan_stride - one in so many tiles is enough to count, spread evenly; 1 if all have to be
 *
 * Of a large tensor whose only coded field is the highest, which may have exceptions: a value that was not counted is rarer
 * than one in a million, and costs no more than an exception.
 */
uint64_t wcx_tensor_plan_stride(const struct wcx_tensor_plan *plan);

/* wcx_tensor_plan_has_difference - whether the plan codes differences from its base */
static inline bool wcx_tensor_plan_has_difference(const struct wcx_tensor_plan *plan)
{
	return plan->segment.recipe.difference != WCX_DIFFERENCE_NONE;
}

/*
 * wcx_tensor_plan_count - add the statistics of one tile to counts; returns as wcx_tile_count does
 *
 * base is the bytes of the base for this tile; NULL for a plan without a difference.
 */
enum wcx_result wcx_tensor_plan_count(const struct wcx_tensor_plan *plan, const struct wcx_tile_dims *dims,
				      const uint8_t *src, const uint8_t *base, struct wcx_encode_scratch *scratch,
				      struct wcx_plan_counts *counts);

/* wcx_plan_counts_add - add counts to those of the plan */
void wcx_plan_counts_add(struct wcx_tensor_plan *plan, const struct wcx_plan_counts *counts);

/*
 * wcx_tensor_plan_finish - make the final tables from the counts, and free these
 *
 * Where not all tiles were counted, the counts stand for the others too.
 *
 * Fields for which coding does not pay become raw.  A small segment may take tables of the library.  first_table[f] is the
 * number in the file of the first table of field f of the final recipe.  New tables are numbered from
 * library->table_count on, in the order of the fields; the caller writes them to the file and calls wcx_table_library_add.
 */
void wcx_tensor_plan_finish(struct wcx_tensor_plan *plan, const struct wcx_table_library *library,
			    uint32_t first_table[WCX_FIELDS_MAX]);

/* wcx_table_library_add - note the tables of a field, which have just been added to the file */
void wcx_table_library_add(struct wcx_table_library *library, const struct wcx_field *field);

/* wcx_tensor_plan_free - free what choose allocated, but not the plan itself */
void wcx_tensor_plan_free(struct wcx_tensor_plan *plan);

#endif
