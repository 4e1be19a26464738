/* SPDX-License-Identifier: MIT */
/*
 * Packs values of less than a byte, eight at a time in a 64-bit word: each step moves the upper half of every group of
 * values next to the lower half.
 */
#include "codec/raw_plane.h"

#include <string.h>

#include "codec/le.h"

enum { BLOCK = 8 }; /* values in a 64-bit word, a byte each */

/* Eight values to 8 * width bits. */
static inline uint64_t squeeze(uint64_t x, uint32_t width)
{
	switch (width) {
	case 1: /* all steps at once: bit 8 i moves to 56 + i, and none to where another is */
		return x * 0x0102040810204080 >> 56;
	case 2:
		x = (x | x >> 6) & 0x000F000F000F000F;
		x = (x | x >> 12) & 0x000000FF000000FF;
		return (x | x >> 24) & 0xFFFF;
	case 4:
		x = (x | x >> 4) & 0x00FF00FF00FF00FF;
		x = (x | x >> 8) & 0x0000FFFF0000FFFF;
		return (x | x >> 16) & 0xFFFFFFFF;
	}
	return x;
}

/* The reverse, step by step. */
static inline uint64_t spread(uint64_t x, uint32_t width)
{
	switch (width) {
	case 1:
		x = (x | x << 28) & 0x0000000F0000000F;
		x = (x | x << 14) & 0x0003000300030003;
		return (x | x << 7) & 0x0101010101010101;
	case 2:
		x = (x | x << 24) & 0x000000FF000000FF;
		x = (x | x << 12) & 0x000F000F000F000F;
		return (x | x << 6) & 0x0303030303030303;
	case 4:
		x = (x | x << 16) & 0x0000FFFF0000FFFF;
		x = (x | x << 8) & 0x00FF00FF00FF00FF;
		return (x | x << 4) & 0x0F0F0F0F0F0F0F0F;
	}
	return x;
}

static inline void pack_blocks(const uint8_t *values, size_t blocks, uint32_t width, uint8_t *dst)
{
	for (size_t i = 0; i < blocks; i++) {
		uint64_t packed = squeeze(wcx_le64_read(values + BLOCK * i), width);

		memcpy(dst + width * i, &packed, width);
	}
}

static inline void unpack_blocks(const uint8_t *src, size_t blocks, uint32_t width, uint8_t *values)
{
	for (size_t i = 0; i < blocks; i++) {
		uint64_t packed = 0;

		memcpy(&packed, src + width * i, width);
		wcx_le64_write(values + BLOCK * i, spread(packed, width));
	}
}

void wcx_raw_plane_pack(const uint8_t *values, size_t count, uint32_t width, uint8_t *dst)
{
	uint8_t last[BLOCK] = { 0 }, packed[BLOCK];
	size_t blocks = count / BLOCK, rest = count % BLOCK;

	/* A width that the compiler knows makes the loops twice as fast. */
	if (width == 1)
		pack_blocks(values, blocks, 1, dst);
	else if (width == 2)
		pack_blocks(values, blocks, 2, dst);
	else if (width == 4)
		pack_blocks(values, blocks, 4, dst);
	else
		memcpy(dst, values, blocks * BLOCK);
	memcpy(last, values + blocks * BLOCK, rest);
	pack_blocks(last, 1, width, packed);
	memcpy(dst + blocks * width, packed, wcx_raw_plane_bytes((uint32_t)rest, width));
}

void wcx_raw_plane_unpack(const uint8_t *src, size_t count, uint32_t width, uint8_t *values)
{
	uint8_t last[BLOCK], packed[BLOCK] = { 0 };
	size_t blocks = count / BLOCK, rest = count % BLOCK;

	if (width == 1)
		unpack_blocks(src, blocks, 1, values);
	else if (width == 2)
		unpack_blocks(src, blocks, 2, values);
	else if (width == 4)
		unpack_blocks(src, blocks, 4, values);
	else
		memcpy(values, src, blocks * BLOCK);
	memcpy(packed, src + blocks * width, wcx_raw_plane_bytes((uint32_t)rest, width));
	unpack_blocks(packed, 1, width, last);
	memcpy(values + blocks * BLOCK, last, rest);
}
