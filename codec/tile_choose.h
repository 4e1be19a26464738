/* SPDX-License-Identifier: MIT */
/* How the fields of a tile are to be coded: decided by tile_choose.c, written by tile_encode.c, private to both. */
#ifndef WCX_TILE_CHOOSE_H
#define WCX_TILE_CHOOSE_H

#include "codec/element.h"
#include "codec/encode_variant.h"
#include "codec/rans.h"
#include "codec/tile_layout.h"

enum {
	WCX_TILE_MAX_RUNS = WCX_TILE_MAX_ELEMS / WCX_RUN_ELEMS,
	WCX_CHOICES_MAX = WCX_SETS_MAX,                   /* of a run: sets, or as many tables */
	WCX_TILE_PART_MAX_BYTES = WCX_TILE_MAX_ELEMS * 4, /* a plane of 32 bits; exceptions are smaller */
};
_Static_assert((int)WCX_CHOICES_MAX == (int)WCX_FIELD_TABLES_MAX, "as many tables");

/*
 * Coding data derived from the tables of a field alone: those that runs choose from, or one for each context.  For pairs,
 * symbols and costs are those of one half.
 */
struct wcx_field_coder {
	struct wcx_freq_table freqs[WCX_SET_TABLES_MAX]; /* cache key, with the next five: tiles of a tensor share tables */
	uint32_t table_count, set_bits;
	bool by_context, is_pair, has_escapes;
	uint32_t symbol_count;                             /* symbols that the field can have */
	struct wcx_freq_table pairs[WCX_FIELD_TABLES_MAX]; /* tables for coding pairs */
	struct wcx_rans_encode_table encode[WCX_SET_TABLES_MAX];
	int16_t cost[WCX_SET_TABLES_MAX][WCX_SYMBOL_COUNT];    /* of a symbol; 0 without a frequency */
	int16_t missing[WCX_SET_TABLES_MAX][WCX_SYMBOL_COUNT]; /* 1 without a frequency, else 0 */
	/*
	 * For each table of a set by symbol, for pairs by pair: 1 without a frequency, so that an element must be an
	 * exception.  The keys of misfits follow.
	 */
	uint8_t suspect[WCX_SETS_MAX][WCX_KEY_COUNT];
	uint64_t choice_costs[WCX_KEY_COUNT]; /* of a key or symbol, exceptions included, in 16 bits for each set or table */
	uint8_t cheapest[WCX_SET_TABLES_MAX]; /* what takes the place of exceptions: the most frequent symbol, or the escape
					       */
};

/* Elements whose carrier value has no symbol, or one without a frequency in the table of its run; positions ascend. */
struct wcx_exceptions {
	uint32_t count;
	uint16_t positions[WCX_TILE_MAX_ELEMS], values[WCX_TILE_MAX_ELEMS];
};

/* How a run is coded. */
struct wcx_run_choice {
	uint8_t table;                 /* or set of tables */
	bool has_misfits, has_missing; /* values without a symbol; symbols without a frequency */
};

/* How a field of the tile is coded.  runs and symbols are set for RANS. */
struct wcx_field_choice {
	enum wcx_field_coding coding;
	uint32_t constant;
	uint32_t shift;
	struct wcx_run_choice runs[WCX_TILE_MAX_RUNS];
	uint8_t symbols[WCX_TILE_MAX_ELEMS];
};

struct wcx_encode_scratch {
	const struct wcx_encode_variant *variant;
	struct wcx_field_coder coders[WCX_FIELDS_MAX];
	struct wcx_field_choice fields[WCX_FIELDS_MAX];
	uint64_t elements[WCX_TILE_MAX_ELEMS]; /* of any size: transformed, or residuals */
	uint32_t values[WCX_TILE_MAX_ELEMS];
	uint8_t part[WCX_TILE_PART_MAX_BYTES];
	uint8_t pairs[WCX_TILE_MAX_ELEMS / 2];
	uint8_t contexts[WCX_TILE_MAX_ELEMS];
	uint16_t keyed[WCX_TILE_MAX_ELEMS]; /* symbols with their contexts */
	uint16_t words[WCX_TILE_MAX_ELEMS];
	struct wcx_exceptions exceptions;
};

/* The tile being encoded. */
struct wcx_encoding {
	const struct wcx_recipe *recipe; /* with a known transform and predictor */
	const struct wcx_element_ops *ops;
	uint32_t elems;
	const uint8_t *plain;    /* elements or residuals, from which raw planes are made */
	const void *transformed; /* elements or residuals, from which symbols are taken */
	struct wcx_encode_scratch *scratch;
};

/*
 * wcx_encoding_start - transform or predict the elements, or subtract those of the base; src must outlive *ret
 *
 * base may be NULL if the recipe has no difference.
 */
void wcx_encoding_start(const struct wcx_tile_dims *dims, const uint8_t *src, const uint8_t *base,
			const struct wcx_recipe *recipe, struct wcx_encode_scratch *scratch, struct wcx_encoding *ret);

/* wcx_encoding_choose - choose the coding of every field, in e->scratch; returns the carrier, or field_count if none */
uint32_t wcx_encoding_choose(const struct wcx_encoding *e);

/* wcx_run_elems - elements per run of a field; all elements if it has a single table */
static inline uint32_t wcx_run_elems(const struct wcx_encoding *e, const struct wcx_field *field)
{
	return wcx_choice_bits(field) ? e->recipe->run_elems : e->elems;
}

#endif
