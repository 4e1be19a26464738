/* SPDX-License-Identifier: MIT */
/*
 * Tiles: the unit of coding and of random access (docs/format.md, section 3).
 *
 * A tile is rows x cols elements of elem_bytes bytes, in tile order (row by row).  An element is cut into fields of
 * bits, some of them coded with rANS and the others kept as they are; the recipe of a tensor says which.  Nothing here
 * allocates but the two functions that create scratch; every function may run on any number of threads at a time, each with
 * a scratch of its own.
 */
#ifndef WCX_TILE_H
#define WCX_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/decode_variant.h"
#include "codec/freq_table.h"
#include "codec/line.h"
#include "codec/result.h"

enum {
	WCX_ELEM_MAX_BYTES = 8,
	WCX_TILE_MAX_ELEMS = 65536,
	WCX_TILE_MAX_BYTES = WCX_TILE_MAX_ELEMS * WCX_ELEM_MAX_BYTES,
	WCX_FIELDS_MAX = 10,       /* in an element: a tile's header has two bits for each */
	WCX_FIELD_MAX_WIDTH = 32,  /* bits of a field */
	WCX_CODED_MAX_WIDTH = 16,  /* bits of one that may be coded */
	WCX_PAIR_WIDTH = 4,        /* bits of one of which two neighbours are a symbol */
	WCX_FIELD_TABLES_MAX = 4,  /* frequency tables that a field chooses from */
	WCX_RUN_ELEMS = 128,       /* runs that share a choice are a multiple of this: whole lines, whatever the elements */
	WCX_RAW_PLANES_MAX = 16,   /* in a tile */
	WCX_CARRIED_BYTES = 64,    /* of the last raw plane or of the exceptions, in the states of the last coded field */
	WCX_EXCEPTIONS_MAX = 4095, /* in a tile */
	WCX_EXCEPTION_BITS = 30,   /* what one takes, about: position, value, and the symbol in its place */
	WCX_TILE_PART_ALIGN = 4,   /* of everything that a packed tile consists of, from its start */
};

/*
 * The numbers of the next four are those of the format.  WCX_TILE_ZSTD is for fs to decode: here it is an unknown mode.
 */
enum wcx_tile_mode { WCX_TILE_STORED, WCX_TILE_CODED, WCX_TILE_CONSTANT, WCX_TILE_ZSTD, WCX_TILE_MODE_COUNT };
enum wcx_field_coding { WCX_FIELD_RAW, WCX_FIELD_RANS, WCX_FIELD_CONSTANT };
enum wcx_predictor { WCX_PREDICT_NONE, WCX_PREDICT_LEFT, WCX_PREDICT_UP, WCX_PREDICT_LEFT2, WCX_PREDICTOR_COUNT };

/*
 * What becomes of an element before it is cut: nothing; its highest bit, the sign, becomes the lowest one; and with FOLD the
 * bits above the first field are inverted, too, where the sign is set, which makes magnitudes of them.
 */
enum wcx_transform { WCX_TRANSFORM_NONE, WCX_TRANSFORM_ROTATE, WCX_TRANSFORM_FOLD, WCX_TRANSFORM_COUNT };

struct wcx_tile_dims {
	uint32_t rows, cols; /* each at least 1, rows * cols at most WCX_TILE_MAX_ELEMS */
	uint32_t elem_bytes; /* 1, 2, 4 or 8 */
};

/*
 * Bits of an element.  Symbol s stands for value s in up to 8 bits, and for base + s in more; but if has_zero for 0 where s
 * is 0.  If is_pair, a symbol is the values of two neighbouring elements, the first one in the lower half, and tables has
 * the frequencies of either.
 */
struct wcx_field {
	uint8_t width;       /* bits */
	uint8_t table_count; /* 0, 1, 2 or 4 */
	uint8_t is_pair, has_zero;
	uint16_t base;
	const struct wcx_freq_table *tables; /* table_count of them; NULL if none */
};

/* How the elements of a tensor are cut and coded.  The fields are the owner's, and outlive it. */
struct wcx_recipe {
	uint8_t elem_bytes, transform, predictor, field_count;
	uint32_t run;                   /* elements that share a choice of table; 0 when no field has more than one */
	const struct wcx_field *fields; /* from the lowest bits up */
};

/*
 * wcx_recipe_check - whether a recipe keeps the rules of the format (sections 2.2 and 2.3), tables included
 *
 * Returns NULL, or what is wrong with it.  Nothing else here checks a recipe again.
 */
const char *wcx_recipe_check(const struct wcx_recipe *recipe);

/*
 * The two halves of it: all but the tables; and whether a field, which has passed that, may have a table with this last
 * symbol.  For many recipes with the same tables, whose last symbols need not be looked for each time.
 */
const char *wcx_recipe_check_fields(const struct wcx_recipe *recipe);
static inline const char *wcx_field_check_table(const struct wcx_field *field, uint32_t last_symbol)
{
	return last_symbol >> field->width ? "frequency of a symbol that a field cannot have" : NULL;
}

/* wcx_symbol_value - the value of a field that a symbol, or its half of a pair, stands for */
static inline uint32_t wcx_symbol_value(const struct wcx_field *field, uint32_t symbol)
{
	return field->has_zero && symbol == 0 ? 0 : field->base + symbol;
}

/* wcx_choice_bits - bits that a field's choice of a table takes for a run */
static inline uint32_t wcx_choice_bits(const struct wcx_field *field)
{
	return field->table_count >> 1;
}

/* wcx_choices_bytes - what the choices of a field take in a tile of elems elements, with padding */
static inline uint32_t wcx_choices_bytes(const struct wcx_recipe *recipe, const struct wcx_field *field, uint32_t elems)
{
	uint32_t bits = wcx_choice_bits(field);

	return bits ? ((elems + recipe->run - 1) / recipe->run * bits + 31) / 32 * 4 : 0;
}

/* wcx_field_steps - symbols of a field that a lane has in a line */
static inline uint32_t wcx_field_steps(const struct wcx_field *field, uint32_t elem_bytes)
{
	return wcx_word_elems(elem_bytes) >> field->is_pair;
}

/* wcx_field_symbols - symbols of a field in a tile of elems elements: of a pair one half may be missing */
static inline uint32_t wcx_field_symbols(const struct wcx_field *field, uint32_t elems)
{
	return (elems + field->is_pair) >> field->is_pair;
}

/* wcx_field_table - a table that symbols of the field are coded with: made in room for a field of pairs */
static inline const struct wcx_freq_table *wcx_field_table(const struct wcx_field *field, uint32_t table,
							   struct wcx_freq_table *room)
{
	if (!field->is_pair)
		return &field->tables[table];
	wcx_freq_table_pair(&field->tables[table], room);
	return room;
}

/* wcx_place_bits - where bits of a transformed element are in the element, but for FOLD's inversion */
static inline uint64_t wcx_place_bits(const struct wcx_recipe *recipe, uint64_t bits)
{
	return recipe->transform == WCX_TRANSFORM_NONE ? bits : bits >> 1 | (bits & 1) << (8 * recipe->elem_bytes - 1);
}

/*
 * One tile to decode.  The caller fills everything but result, and owns all that is pointed to; src is untrusted, the
 * rest is what the container's validated index says.
 */
struct wcx_tile_job {
	struct wcx_tile_dims dims;
	enum wcx_tile_mode mode;
	uint32_t constant;               /* the element, for WCX_TILE_CONSTANT */
	const struct wcx_recipe *recipe; /* for WCX_TILE_CODED; checked, with the shape's elem_bytes */
	const uint8_t *src;
	size_t src_bytes;
	uint8_t *dst;
	size_t dst_bytes;       /* must be rows * cols * elem_bytes */
	enum wcx_result result; /* set by the decoder */
};

/* What a coded tile consists of, as its header describes it, checked against the tile's size. */
struct wcx_raw_plane {
	uint32_t offset;      /* from the start of the packed tile; a multiple of 4 */
	uint8_t width, shift; /* bits: a power of two up to 32; where in the transformed element they are */
};
struct wcx_coded_field {
	uint32_t offset; /* of the states, from the start of the packed tile; a multiple of 4.  The choices end there. */
	uint32_t states_bytes, words_bytes; /* both even */
	uint8_t field, shift;
};
struct wcx_tile_layout {
	uint64_t constant_bits; /* of the CONSTANT fields, where they are in the transformed element */
	uint32_t plane_count, coded_count;
	uint32_t exception_count;  /* elements whose value in the last coded field stands in the exceptions */
	uint32_t exception_offset; /* from the start of the packed tile; a multiple of 4 */
	uint32_t exception_bytes;  /* of all exceptions, whether carried or not; even */
	uint32_t plane_carried, exception_carried; /* bytes that the final states of the last coded field have; one is 0 */
	struct wcx_raw_plane planes[WCX_RAW_PLANES_MAX];
	struct wcx_coded_field coded[WCX_FIELDS_MAX]; /* the carrier is the last */
};

/* wcx_tile_coding - how a coded tile, whose first four bytes these are, has a field; an enum wcx_field_coding or, if
 * damaged, 3 */
static inline uint32_t wcx_tile_coding(uint32_t head, uint32_t field)
{
	return head >> 2 * field & 3;
}

/* wcx_exception_value_bytes - what the value of an exception takes in a field of so many bits */
static inline uint32_t wcx_exception_value_bytes(uint32_t width)
{
	return width <= 8 ? 1 : 2;
}

/* wcx_exceptions_bytes - what so many exceptions take in a field of so many bits; even */
static inline uint32_t wcx_exceptions_bytes(uint32_t count, uint32_t width)
{
	return (count * (2 + wcx_exception_value_bytes(width)) + 1) / 2 * 2;
}

/* wcx_tile_dims_bytes - the size of the decoded tile, or 0 if they break a limit */
size_t wcx_tile_dims_bytes(const struct wcx_tile_dims *dims);

/*
 * wcx_tile_parse - read the header of a coded tile
 *
 * Fills *ret so that every plane (but the bytes carried) and payload lies within src_bytes.  Returns WCX_OK, WCX_BAD_DATA or
 * WCX_WRONG_SIZE (a shape out of limits, or not the recipe's); after an error *ret is undefined.
 */
enum wcx_result wcx_tile_parse(const struct wcx_tile_dims *dims, const struct wcx_recipe *recipe, const uint8_t *src,
			       size_t src_bytes, struct wcx_tile_layout *ret);

/* Working memory for decoding: reusable without end, by one thread at a time.  It decodes with the variant that it is given.
 */
struct wcx_decode_scratch;
struct wcx_decode_scratch *
wcx_decode_scratch_create(const struct wcx_decode_variant *cpu); /* NULL when there is no memory */
void wcx_decode_scratch_free(struct wcx_decode_scratch *scratch);

/*
 * wcx_tile_decode - restore one tile on the CPU
 *
 * Reads exactly job->src_bytes from job->src and writes job->dst_bytes to job->dst.  Does not look at the container's
 * checksum: that is the caller's.  Returns, and leaves in job->result, WCX_OK, WCX_BAD_DATA (malformed, or a mode that is
 * not known here) or WCX_WRONG_SIZE (dst_bytes is not the tile's size).  After an error dst is undefined and scratch remains
 * usable.  scratch may be NULL where the mode is not WCX_TILE_CODED.
 */
enum wcx_result wcx_tile_decode(struct wcx_tile_job *job, struct wcx_decode_scratch *scratch);

struct wcx_encode_scratch;
struct wcx_encode_scratch *wcx_encode_scratch_create(void); /* NULL when there is no memory */
void wcx_encode_scratch_free(struct wcx_encode_scratch *scratch);

/*
 * wcx_tile_encode - pack one tile
 *
 * src holds the tile's elements in tile order, recipe is checked and has the shape's elem_bytes.  Chooses the cheapest of
 * constant, coded (with each field coded, constant, or raw when coding it does not pay) and stored, and for each run the
 * table that takes the fewest bits.  dst must have room for the decoded size.  *mode_ret, *bytes_ret and, for
 * WCX_TILE_CONSTANT, *constant_ret tell what was made.  Returns WCX_OK or WCX_WRONG_SIZE (a shape out of limits, or not the
 * recipe's).
 */
enum wcx_result wcx_tile_encode(const struct wcx_tile_dims *dims, const uint8_t *src, const struct wcx_recipe *recipe,
				struct wcx_encode_scratch *scratch, uint8_t *dst, enum wcx_tile_mode *mode_ret,
				size_t *bytes_ret, uint32_t *constant_ret);

/*
 * wcx_tile_count - statistics of one field of a tile
 *
 * Counts how often each symbol (of pairs, either half) occurs in field number `field` of the recipe, and adds that to
 * count[t][s] for table t: the one that takes the fewest bits for the run at hand, with WCX_EXCEPTION_BITS for a symbol
 * without a frequency.  A value that no symbol stands for counts as *misfits_ret, which is added to as well.
 */
void wcx_tile_count(const struct wcx_tile_dims *dims, const uint8_t *src, const struct wcx_recipe *recipe, uint32_t field,
		    struct wcx_encode_scratch *scratch, uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT],
		    uint64_t *misfits_ret);

#endif
