/* SPDX-License-Identifier: MIT */
/*
 * Lines: how the elements of a tile are dealt to the 32 lanes of a decoder, and how raw bits lie beside them
 * (docs/format.md, section 3.1).
 *
 * A tile in tile order is a row of lines of 32 words; word l of each line is lane l's.  A word has 4 bytes, or 8 where
 * elements have 8, so that a line of 4-byte words is 128 bytes, which a warp or a few SIMD registers write at once.  A raw
 * plane of so many bits is a row of units of 32 words of 4 bytes, again one a lane, which has those bits of a few lines:
 * they stay where they are in the elements, and the words of one line after the other are rotated so that they interlock.  A
 * rotation and a mask bring them back, four bytes of elements at a time.
 */
#ifndef WCX_LINE_H
#define WCX_LINE_H

#include <stdint.h>

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

/* wcx_line_count - lines of a tile, the last of which may be part of one */
static inline uint32_t wcx_line_count(uint32_t elems, uint32_t elem_bytes)
{
	return (elems + wcx_line_elems(elem_bytes) - 1) / wcx_line_elems(elem_bytes);
}

/* wcx_unit_lines - lines that a unit of a raw plane of so many bits has the bits of; width is at most 8 elem_bytes and 32 */
static inline uint32_t wcx_unit_lines(uint32_t width, uint32_t elem_bytes)
{
	return 32 / (width * wcx_word_elems(elem_bytes));
}

/* wcx_plane_units - units of the raw plane of a tile of so many lines */
static inline uint32_t wcx_plane_units(uint32_t lines, uint32_t width, uint32_t elem_bytes)
{
	uint32_t unit_lines = wcx_unit_lines(width, elem_bytes);

	return (lines + unit_lines - 1) / unit_lines;
}

/* wcx_plane_width - the widest plane of a raw field of so many bits, at least 1 */
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

/* wcx_repeat - an element's bits in every element of a word */
static inline uint64_t wcx_repeat(uint64_t element, uint32_t elem_bytes)
{
	return elem_bytes == 1 ? element * 0x01010101 : elem_bytes == 2 ? element * 0x00010001 : element;
}

#endif
