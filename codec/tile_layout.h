/* SPDX-License-Identifier: MIT */
/*
 * The parts of a coded tile and where they lie (docs/format.md, section 3).  Shared by the decoders for CPU and GPU.
 *
 * No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_TILE_LAYOUT_H
#define WCX_TILE_LAYOUT_H

#include "codec/tile.h"

enum {
	WCX_EXCEPTIONS_MAX = 4095, /* per tile */
	WCX_TILE_PART_ALIGN = 4,   /* of every part, from the start of the packed tile */
};

/* The values are those of the format. */
enum wcx_field_coding { WCX_FIELD_RAW, WCX_FIELD_RANS, WCX_FIELD_CONSTANT };

/* Offsets count from the start of the packed tile and are multiples of 4; shifts are bits of the transformed element. */
struct wcx_raw_plane {
	uint32_t offset;
	uint8_t width, shift; /* the width is a power of two up to 32 */
};
struct wcx_coded_field {
	uint32_t offset;                    /* of the start states, which follow the choices */
	uint32_t states_bytes, words_bytes; /* both even */
	uint8_t field, shift;
};
struct wcx_tile_layout {
	uint64_t constant_bits; /* of the CONSTANT fields, at their place in the transformed element */
	uint32_t plane_count, coded_count;
	uint32_t exception_count; /* elements whose value in the last coded field is stored as an exception */
	uint32_t exception_offset;
	uint32_t exception_bytes;                  /* of all exceptions, carried or not; even */
	uint32_t plane_carried, exception_carried; /* bytes in the final states of the last coded field; at least one is 0 */
	struct wcx_raw_plane planes[WCX_RAW_PLANES_MAX];
	struct wcx_coded_field coded[WCX_FIELDS_MAX]; /* the last one is the carrier */
};

/*
 * wcx_tile_parse - read the header of a coded tile
 *
 * Fills in *ret so that every part (except carried bytes) lies within src_bytes.  Returns WCX_OK, WCX_BAD_DATA (a rule of
 * the format is broken, or the recipe's transform or predictor is unknown) or WCX_WRONG_SIZE (dims out of limits, or not the
 * recipe's elem_bytes); after an error *ret is undefined.
 */
enum wcx_result wcx_tile_parse(const struct wcx_tile_dims *dims, const struct wcx_recipe *recipe, const uint8_t *src,
			       size_t src_bytes, struct wcx_tile_layout *ret);

/* wcx_tile_coding - the coding of a field according to the first four bytes of a coded tile: an enum wcx_field_coding or,
 * if damaged, 3 */
static inline uint32_t wcx_tile_coding(uint32_t head, uint32_t field)
{
	return head >> 2 * field & 3;
}

/* wcx_exception_value_bytes - bytes of an exception's value in a field of this width */
static inline uint32_t wcx_exception_value_bytes(uint32_t width)
{
	return width <= 8 ? 1 : 2;
}

/* wcx_exceptions_bytes - bytes of so many exceptions, or escapes, in a field; even */
static inline uint32_t wcx_exceptions_bytes(uint32_t count, const struct wcx_field *field)
{
	const uint32_t position_bytes = field->has_escapes ? 0 : 2;

	return WCX_ALIGN_UP(count * (position_bytes + wcx_exception_value_bytes(field->width)), 2);
}

#endif
