/* SPDX-License-Identifier: MIT */
/*
 * Tiles: the unit of coding and of random access (docs/format.md, section 3).
 *
 * A tile is rows x cols elements of elem_bytes bytes, row by row.  The recipe of its tensor says how elements are cut into
 * fields and which of these are coded.  Only the two functions that create scratch memory allocate.  Every function may run
 * on any number of threads at a time, each with its own scratch.
 */
#ifndef WCX_TILE_H
#define WCX_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/decode_variant.h"
#include "codec/recipe.h"
#include "codec/result.h"

enum {
	WCX_TILE_MAX_BYTES = WCX_TILE_MAX_ELEMS * WCX_ELEM_MAX_BYTES,
	WCX_CARRIED_BYTES = 64,  /* of the last raw plane or the exceptions, in the final states of the last coded field */
	WCX_EXCEPTION_BITS = 30, /* approximate cost of an exception: position, value, and the symbol in its place */
	WCX_ESCAPE_BITS = 16,    /* of an escape, beside the symbol */
};

/* wcx_field_misfit_bits - approximate cost of a value of a field that no symbol stands for */
static inline int wcx_field_misfit_bits(const struct wcx_field *field)
{
	return field->has_escapes ? WCX_ESCAPE_BITS : WCX_EXCEPTION_BITS;
}

/* The values are those of the format.  The codec treats WCX_TILE_ZSTD as unknown: fs decodes such tiles. */
enum wcx_tile_mode { WCX_TILE_STORED, WCX_TILE_CODED, WCX_TILE_CONSTANT, WCX_TILE_ZSTD, WCX_TILE_MODE_COUNT };

struct wcx_tile_dims {
	uint32_t rows, cols; /* each at least 1, rows * cols at most WCX_TILE_MAX_ELEMS */
	uint32_t elem_bytes; /* 1, 2, 4 or 8 */
};

/* wcx_tile_dims_bytes - the size of the decoded tile, or 0 if the dims break a limit */
size_t wcx_tile_dims_bytes(const struct wcx_tile_dims *dims);

/*
 * One tile to decode.  The caller fills in everything but result and owns all memory pointed to.  src is untrusted; the
 * other members come from the container's validated index.
 */
struct wcx_tile_job {
	struct wcx_tile_dims dims;
	enum wcx_tile_mode mode;
	uint32_t constant;               /* the element, for WCX_TILE_CONSTANT; with a difference every residual */
	const struct wcx_recipe *recipe; /* for WCX_TILE_CODED and _CONSTANT; checked, with the elem_bytes of dims */
	const uint8_t *src;
	size_t src_bytes;
	const uint8_t *base; /* dst_bytes of the base's elements in tile order, if the recipe has a difference; else NULL */
	uint8_t *dst;
	size_t dst_bytes;       /* must be rows * cols * elem_bytes */
	enum wcx_result result; /* set by the decoder */
};

/* Scratch memory of a decoder, which uses the given variant.  Reusable for any tiles, by one thread at a time. */
struct wcx_decode_scratch;
struct wcx_decode_scratch *wcx_decode_scratch_create(const struct wcx_decode_variant *variant); /* NULL: no memory */
void wcx_decode_scratch_free(struct wcx_decode_scratch *scratch);

/*
 * wcx_tile_decode - restore one tile on the CPU
 *
 * Reads exactly job->src_bytes from job->src and writes job->dst_bytes to job->dst.  Verifying the container's checksum is
 * up to the caller.  Returns, and stores in job->result, WCX_OK, WCX_BAD_DATA (malformed, an unknown mode, transform,
 * predictor or difference, or no base for a difference) or WCX_WRONG_SIZE (dst_bytes is not the tile's size).  After an
 * error dst is undefined and scratch remains usable.  scratch may be NULL if the mode is not WCX_TILE_CODED, and recipe too
 * if that is STORED, or CONSTANT without a difference.
 */
enum wcx_result wcx_tile_decode(struct wcx_tile_job *job, struct wcx_decode_scratch *scratch);

/*
 * wcx_tiles_decode - restore several tiles as wcx_tile_decode does, each with a result of its own
 *
 * Faster than one by one where neighbours belong to one tensor and have one size: a core decodes two such tiles at once.
 */
void wcx_tiles_decode(struct wcx_tile_job *jobs, size_t count, struct wcx_decode_scratch *scratch);

/* Scratch memory of an encoder: reusable for any tiles, by one thread at a time. */
struct wcx_encode_scratch;
struct wcx_encode_scratch *wcx_encode_scratch_create(void); /* NULL: no memory */
/* Uses a variant of codec/encode_variant.h instead of the one that is chosen for this CPU; all write the same bytes. */
struct wcx_encode_variant;
void wcx_encode_scratch_use(struct wcx_encode_scratch *scratch, const struct wcx_encode_variant *variant);
void wcx_encode_scratch_free(struct wcx_encode_scratch *scratch);

/* What the encoder chose for a tile. */
struct wcx_encoded_tile {
	enum wcx_tile_mode mode;
	uint32_t constant; /* the element, or the residual of all, for WCX_TILE_CONSTANT; else 0 */
	size_t bytes;      /* written to dst */
};

/*
 * wcx_tile_encode - pack one tile
 *
 * src holds the tile's elements in tile order; recipe is checked and has the elem_bytes of dims.  dst must have space for
 * the decoded size.  Chooses the cheapest of constant, coded (each field rANS, constant, or raw if coding does not pay) and
 * stored, and for each run the table that takes the fewest bits.  Returns WCX_OK, WCX_WRONG_SIZE (dims out of limits, or not
 * the recipe's elem_bytes) or WCX_BAD_DATA (unknown transform or predictor, or a difference); after an error *ret and dst
 * are undefined.
 */
enum wcx_result wcx_tile_encode(const struct wcx_tile_dims *dims, const uint8_t *src, const struct wcx_recipe *recipe,
				struct wcx_encode_scratch *scratch, uint8_t *dst, struct wcx_encoded_tile *ret);

/*
 * wcx_tile_encode_against - the same for a recipe with a difference
 *
 * base holds as many elements of the base in tile order, from which those of src are coded as differences.  The tile is
 * constant if all residuals are equal.  Without a difference, base is not looked at and may be NULL.
 */
enum wcx_result wcx_tile_encode_against(const struct wcx_tile_dims *dims, const uint8_t *src, const uint8_t *base,
					const struct wcx_recipe *recipe, struct wcx_encode_scratch *scratch, uint8_t *dst,
					struct wcx_encoded_tile *ret);

/* Counts of a field of tiles. */
struct wcx_field_counts {
	uint64_t (*symbols)[WCX_SYMBOL_COUNT]; /* by table of the field; NULL: is not counted */
	uint64_t misfits; /* values that no symbol stands for, which have no count but that of the escape, if there is one */
};

/*
 * wcx_tile_count - add the statistics of a tile to counts, one for each field of the recipe
 *
 * Counts how often each symbol (of pairs: each half) occurs, by context where the field has tables for each.  A run whose
 * field has a choice of tables, or of sets of them, counts for the one that takes the fewest bits at WCX_EXCEPTION_BITS for
 * a symbol without a frequency; otherwise tables need not be made yet.  base is as of wcx_tile_encode_against.  Returns
 * WCX_OK, or WCX_BAD_DATA (unknown transform, predictor or difference, or no base for a difference), with nothing counted.
 */
enum wcx_result wcx_tile_count(const struct wcx_tile_dims *dims, const uint8_t *src, const uint8_t *base,
			       const struct wcx_recipe *recipe, struct wcx_encode_scratch *scratch,
			       struct wcx_field_counts counts[WCX_FIELDS_MAX]);

#endif
