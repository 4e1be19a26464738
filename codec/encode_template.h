/* SPDX-License-Identifier: MIT */
/*
 * Template of the encoder's loops that compilers vectorise.  Each variant includes this file once, in a source compiled for
 * its CPU features, and defines the loop of its rANS encoder behind it: encode_steps.
 */
#include <assert.h>
#include <string.h>

#include "codec/element_loops.h"
#include "codec/encode_variant.h"
#include "codec/inline.h"
#include "codec/line.h"

/* Encodes lines of `steps` symbols a lane, keyed or not; returns what the variant's encode_lines does. */
WCX_INLINE size_t encode_steps(const struct wcx_rans_lines *lines, uint32_t steps, bool is_keyed);

/* A copy of the loop per number of steps, which is then a constant. */
WCX_INLINE size_t encode_any_steps(const struct wcx_rans_lines *lines, bool is_keyed)
{
	if (lines->steps == 4)
		return encode_steps(lines, 4, is_keyed);
	if (lines->steps == 2)
		return encode_steps(lines, 2, is_keyed);
	assert(lines->steps == 1);
	return encode_steps(lines, 1, is_keyed);
}

static size_t encode_lines(const struct wcx_rans_lines *lines)
{
	return lines->keyed ? encode_any_steps(lines, true) : encode_any_steps(lines, false);
}

static void key_symbols(const uint8_t *symbols, const uint8_t *contexts, size_t count, uint16_t *keyed)
{
	for (size_t i = 0; i < count; i++)
		keyed[i] = (uint16_t)(symbols[i] | contexts[i] << 8);
}

static void key_fitting(const uint16_t *values, uint32_t base, const uint8_t *symbols, const uint8_t *contexts, size_t count,
			uint16_t *keyed)
{
	for (size_t i = 0; i < count; i++) {
		const uint16_t fits = values[i] == (uint16_t)(base + symbols[i]) ? UINT16_MAX : 0;
		const uint16_t fitting = (uint16_t)(symbols[i] | contexts[i] << 8);

		keyed[i] = (uint16_t)((fitting & fits) | ((WCX_KEY_MISFIT | contexts[i]) & ~fits));
	}
}

static void join_pairs(const uint8_t *symbols, size_t pair_count, uint8_t *pairs)
{
	const uint16_any *from = (const uint16_any *)symbols;

	for (size_t i = 0; i < pair_count; i++)
		pairs[i] = (uint8_t)(from[i] | from[i] >> 4);
}

/*
 * Eight histograms: an increment waits for an earlier one of the same counter, and neighbours are often equal.  Eight
 * symbols are loaded at a time.
 */
static void count_any(const uint8_t *symbols, uint32_t count, uint32_t symbol_count, uint32_t *ret)
{
	uint32_t partial[8][WCX_SYMBOL_COUNT];
	uint32_t i = 0;

	for (uint32_t j = 0; j < 8; j++)
		memset(partial[j], 0, symbol_count * sizeof partial[j][0]);
	for (; i + 8 <= count; i += 8) {
		const uint64_t eight = *(const uint64_any *)(symbols + i);

		partial[0][eight & 0xFF]++;
		partial[1][eight >> 8 & 0xFF]++;
		partial[2][eight >> 16 & 0xFF]++;
		partial[3][eight >> 24 & 0xFF]++;
		partial[4][eight >> 32 & 0xFF]++;
		partial[5][eight >> 40 & 0xFF]++;
		partial[6][eight >> 48 & 0xFF]++;
		partial[7][eight >> 56]++;
	}
	for (; i < count; i++)
		partial[0][symbols[i]]++;
	for (uint32_t s = 0; s < symbol_count; s++) {
		ret[s] = 0;
		for (uint32_t j = 0; j < 8; j++)
			ret[s] += partial[j][s];
	}
}

WCX_INLINE void add_parts(const uint16_t *partial, uint32_t parts, uint32_t stride, uint32_t count, uint32_t *ret)
{
	for (uint32_t s = 0; s < count; s++) {
		uint32_t sum = 0;

		for (uint32_t j = 0; j < parts; j++)
			sum += partial[j * stride + s];
		ret[s] = sum;
	}
}

/*
 * The same with a table of counts per context.  Four symbols are loaded at a time.  The histograms are not 4096 bytes apart,
 * where a load would wait for a store to another one.
 */
static void count_keyed(const uint16_t *keyed, uint32_t count, uint32_t context_count, uint32_t *ret)
{
	enum { PARTS = 8, PADDING = 64 };
	uint16_t partial[PARTS][WCX_KEY_COUNT + PADDING];
	const uint32_t counters = context_count * WCX_SYMBOL_COUNT;
	uint32_t i = 0;

	assert(count <= UINT16_MAX);
	for (uint32_t j = 0; j < PARTS; j++) {
		memset(partial[j], 0, counters * sizeof partial[j][0]);
		memset(partial[j] + WCX_KEY_MISFIT, 0, WCX_CONTEXTS_MAX * sizeof partial[j][0]);
	}
	for (; i + PARTS <= count; i += PARTS)
#pragma GCC unroll 2
		for (uint32_t j = 0; j < PARTS; j += 4) {
			const uint64_t four = *(const uint64_any *)(keyed + i + j);

			partial[j][four & 0xFFFF]++;
			partial[j + 1][four >> 16 & 0xFFFF]++;
			partial[j + 2][four >> 32 & 0xFFFF]++;
			partial[j + 3][four >> 48]++;
		}
	for (; i < count; i++)
		partial[0][keyed[i]]++;
	add_parts(partial[0], PARTS, WCX_KEY_COUNT + PADDING, counters, ret);
	add_parts(partial[0] + WCX_KEY_MISFIT, PARTS, WCX_KEY_COUNT + PADDING, WCX_CONTEXTS_MAX, ret + WCX_KEY_MISFIT);
}

/* Adds a line to a unit, its words rotated left. */
WCX_INLINE void add_words(const struct wcx_plane_lines *plane, const uint8_t *src, uint32_t rotation, bool folds,
			  uint32_t *unit)
{
	const uint32_any *from = (const uint32_any *)src;
	const uint32_t mask = (uint32_t)plane->mask, folded = (uint32_t)plane->folded;

	for (uint32_t l = 0; l < WCX_LANES; l++) {
		uint32_t word = from[l];

		if (folds) {
			const uint32_t signs = word & 0x80808080;

			word ^= ((signs << 1) - (signs >> 7)) & folded;
		}
		unit[l] |= wcx_rotate_left32(word & mask, rotation);
	}
}

static void add_long_words(const struct wcx_plane_lines *plane, const uint8_t *src, uint32_t rotation, uint32_t *unit)
{
	const uint64_any *from = (const uint64_any *)src;

	for (uint32_t l = 0; l < WCX_LANES; l++) {
		const uint64_t word = from[l] & plane->mask;

		unit[l] |= wcx_rotate_left32((uint32_t)(word | word >> 32), rotation);
	}
}

static void add_plane(const struct wcx_plane_lines *plane)
{
	const uint32_t unit_lines = wcx_unit_lines(plane->width, plane->elem_bytes);
	const uint8_t *src = plane->src;
	uint32_t *unit = plane->units, turn = 0;

	for (uint32_t line = 0; line < plane->lines; line++, src += wcx_line_bytes(plane->elem_bytes)) {
		if (plane->elem_bytes == 8)
			add_long_words(plane, src, turn * plane->width, unit);
		else if (plane->folded)
			add_words(plane, src, turn * plane->width, true, unit);
		else
			add_words(plane, src, turn * plane->width, false, unit);
		if (++turn == unit_lines) {
			turn = 0;
			unit += WCX_LANES;
		}
	}
}
