/* SPDX-License-Identifier: MIT */
/*
 * Lines: how the elements of a tile are distributed over the 32 lanes of a decoder, and how raw bits are arranged
 * (docs/format.md, section 3.1).
 *
 * A tile in tile order is a sequence of lines of 32 words; word l of each line belongs to lane l.  A word has 4 bytes, or 8
 * if elements have 8: a line of 4-byte words is 128 bytes, which a warp or a few SIMD registers write at once.
 *
 * A raw plane is a sequence of units of 32 four-byte words, again one per lane.  A unit holds the bits of a few lines.  Bits
 * keep their positions in the elements; the words of successive lines are rotated to interlock.  A rotation and a mask
 * restore four bytes of elements at a time.
 */
#ifndef WCX_LINE_H
#define WCX_LINE_H

#include <stdint.h>

#include "codec/arith.h"

enum {
	WCX_LANES = 32,
	WCX_PLANE_UNIT_BYTES = WCX_LANES * 4,
};

static inline uint32_t wcx_word_bytes(uint32_t elem_bytes)
{
	return elem_bytes == 8 ? 8 : 4;
}

/* wcx_word_elems - elements in a word: 4, 2, 1, 1 */
static inline uint32_t wcx_word_elems(uint32_t elem_bytes)
{
	return wcx_word_bytes(elem_bytes) / elem_bytes;
}

static inline uint32_t wcx_line_bytes(uint32_t elem_bytes)
{
	return WCX_LANES * wcx_word_bytes(elem_bytes);
}

/* wcx_line_elems - elements in a line: 128, 64, 32, 32 */
static inline uint32_t wcx_line_elems(uint32_t elem_bytes)
{
	return WCX_LANES * wcx_word_elems(elem_bytes);
}

/* wcx_line_count - lines of a tile; the last one may be partial */
static inline uint32_t wcx_line_count(uint32_t elems, uint32_t elem_bytes)
{
	return WCX_DIV_UP(elems, wcx_line_elems(elem_bytes));
}

/* wcx_unit_lines - lines per unit of a raw plane; width is at most 32 and at most 8 * elem_bytes */
static inline uint32_t wcx_unit_lines(uint32_t width, uint32_t elem_bytes)
{
	return 32 / (width * wcx_word_elems(elem_bytes));
}

/* wcx_plane_units - units of a raw plane in a tile of so many lines */
static inline uint32_t wcx_plane_units(uint32_t lines, uint32_t width, uint32_t elem_bytes)
{
	return WCX_DIV_UP(lines, wcx_unit_lines(width, elem_bytes));
}

/* wcx_plane_width - width of the widest plane of a raw field of at least one bit */
static inline uint32_t wcx_plane_width(uint32_t field_width)
{
	uint32_t width = 32;

	while (width > field_width)
		width /= 2;
	return width;
}

static inline uint32_t wcx_rotate_left32(uint32_t value, uint32_t bits)
{
	return value << (bits & 31) | value >> (-bits & 31);
}

/* wcx_repeat - a word in which every element has these bits */
static inline uint64_t wcx_repeat(uint64_t element, uint32_t elem_bytes)
{
	return elem_bytes == 1 ? element * 0x01010101 : elem_bytes == 2 ? element * 0x00010001 : element;
}

#endif
