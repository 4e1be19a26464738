/* SPDX-License-Identifier: MIT */
/*
 * Template of the loops over elements of a decoding variant (codec/decode_variant.h): plain C that compilers vectorise. Each
 * variant includes this file once, in a source compiled for its CPU features.
 */
#include <assert.h>

#include "codec/difference_loops.h"
#include "codec/escapes.h"
#include "codec/inline.h"
#include "codec/line.h"

#define INLINE WCX_INLINE

/* Unaligned, and may alias memory of any type. */
typedef uint32_t __attribute__((aligned(1), may_alias)) word32;
typedef uint64_t __attribute__((aligned(1), may_alias)) word64;

static void fill(uint32_t lines, uint64_t word, uint32_t elem_bytes, void *out)
{
	const size_t count = (size_t)lines * WCX_LANES;
	word64 *out64 = out;
	word32 *out32 = out;

	for (size_t i = 0; elem_bytes == 8 && i < count; i++)
		out64[i] = word;
	for (size_t i = 0; elem_bytes < 8 && i < count; i++)
		out32[i] = (uint32_t)word;
}

static void put_bytes(const uint32_t *words, size_t count, uint32_t shift, bool rotate, word32 *out)
{
	for (size_t i = 0; i < count; i++) {
		uint32_t w = words[i] << shift;

		out[i] |= rotate ? (w >> 1 & 0x7F7F7F7F) | (w << 7 & 0x80808080) : w;
	}
}

/* The lower half of a pair belongs to the first of its two elements. */
static void put_pairs(const uint32_t *words, size_t count, uint32_t shift, bool rotate, word32 *out)
{
	for (size_t i = 0; i < count; i++) {
		uint32_t w = ((words[i] & 0x000F000F) | (words[i] & 0x00F000F0) << 4) << shift;

		out[i] |= rotate ? (w >> 1 & 0x7F7F7F7F) | (w << 7 & 0x80808080) : w;
	}
}

/* Adding 255 carries into bit 8 for every symbol but 0, which needs no branch. */
static void put_halves(const uint32_t *words, size_t count, const struct wcx_symbol_place *place, word32 *out)
{
	const uint32_t shift = place->shift, base = place->base;
	const bool has_zero = place->has_zero, rotate = place->rotate;

	for (size_t i = 0; i < count; i++) {
		uint32_t counts = has_zero ? (words[i] + 0x00FF00FF) >> 8 & 0x00010001 : 0x00010001;
		uint32_t w = (words[i] + counts * base) << shift;

		out[i] |= rotate ? (w >> 1 & 0x7FFF7FFF) | (w << 15 & 0x80008000) : w;
	}
}

/* Exponents of two floats, say: half h of a pair stands for base + h. */
static void put_half_pairs(const uint32_t *words, size_t count, const struct wcx_symbol_place *place, word32 *out)
{
	const uint32_t shift = place->shift, base = place->base * 0x00010001u;
	const bool rotate = place->rotate;

	for (size_t i = 0; i < count; i++) {
		uint32_t w = ((words[i] & 0x0F) + ((words[i] & 0xF0) << 12) + base) << shift;

		out[i] |= rotate ? (w >> 1 & 0x7FFF7FFF) | (w << 15 & 0x80008000) : w;
	}
}

static void put_words(const uint32_t *words, size_t count, const struct wcx_symbol_place *place, word32 *out)
{
	const uint32_t shift = place->shift, base = place->base;
	const bool has_zero = place->has_zero, rotate = place->rotate;

	for (size_t i = 0; i < count; i++) {
		uint32_t w = (words[i] + (has_zero && !words[i] ? 0 : base)) << shift;

		out[i] |= rotate ? w >> 1 | w << 31 : w;
	}
}

static void put_longs(const uint32_t *words, size_t count, const struct wcx_symbol_place *place, word64 *out)
{
	const uint32_t shift = place->shift, base = place->base;
	const bool has_zero = place->has_zero, rotate = place->rotate;

	for (size_t i = 0; i < count; i++) {
		uint64_t w = (uint64_t)(words[i] + (has_zero && !words[i] ? 0 : base)) << shift;

		out[i] |= rotate ? w >> 1 | w << 63 : w;
	}
}

static void put_symbols(const uint32_t *words, uint32_t lines, const struct wcx_symbol_place *place, void *out)
{
	const size_t count = (size_t)lines * WCX_LANES;

	switch (place->elem_bytes) {
	case 1:
		(place->is_pair ? put_pairs : put_bytes)(words, count, place->shift, place->rotate, out);
		break;
	case 2:
		(place->is_pair ? put_half_pairs : put_halves)(words, count, place, out);
		break;
	case 4:
		put_words(words, count, place, out);
		break;
	case 8:
		put_longs(words, count, place, out);
		break;
	default:
		assert(!"element size");
	}
}

INLINE void put_plane_line(const word32 *unit, uint32_t right, uint32_t mask, word32 *out)
{
	for (uint32_t l = 0; l < WCX_LANES; l++)
		out[l] |= (unit[l] >> right | unit[l] << (-right & 31)) & mask;
}

INLINE void put_plane_long_line(const word32 *unit, uint32_t right, uint64_t mask, word64 *out)
{
	for (uint32_t l = 0; l < WCX_LANES; l++) {
		uint64_t bits = unit[l] >> right | unit[l] << (-right & 31);

		out[l] |= (bits << 32 | bits) & mask;
	}
}

static void put_plane(const uint8_t *units, uint32_t first_line, uint32_t lines, uint32_t width, uint64_t mask,
		      uint32_t elem_bytes, void *out)
{
	const uint32_t unit_lines = wcx_unit_lines(width, elem_bytes);
	uint32_t turn = first_line % unit_lines;
	const word32 *unit = (const word32 *)units;
	uint8_t *to = out;

	for (uint32_t line = 0; line < lines; line++) {
		if (elem_bytes == 8)
			put_plane_long_line(unit, turn * width, mask, (word64 *)to);
		else
			put_plane_line(unit, turn * width, (uint32_t)mask, (word32 *)to);
		to += wcx_line_bytes(elem_bytes);
		if (++turn == unit_lines) {
			turn = 0;
			unit += WCX_LANES;
		}
	}
}

static void fold(uint32_t lines, uint32_t mask, void *out)
{
	const size_t count = (size_t)lines * WCX_LANES;
	word32 *out32 = out;

	for (size_t i = 0; i < count; i++) {
		uint32_t signs = out32[i] & 0x80808080;

		out32[i] ^= ((signs << 1) - (signs >> 7)) & mask;
	}
}

/* The place of a plane's next line. */
struct plane_walk {
	const word32 *unit;
	uint32_t turn, unit_lines;
};

/* Hardware prefetchers stop at page boundaries. */
enum { LINE_PREFETCH_BYTES = 2048 };

enum line_kind { LINES_OF_BYTES, LINES_OF_HALVES, LINES_OF_HALF_PAIRS };

INLINE uint32_t place_word(const struct wcx_symbol_place *place, enum line_kind kind, uint32_t word)
{
	if (kind == LINES_OF_HALF_PAIRS)
		word = (word & 0x0F) + ((word & 0xF0) << 12) + place->base * 0x00010001u;
	else if (kind == LINES_OF_HALVES) /* adding 255 carries into bit 8 for every symbol but 0 */
		word += place->has_zero ? ((word + 0x00FF00FF) >> 8 & 0x00010001) * place->base : place->base * 0x00010001u;
	return word << place->shift;
}

/* The recipe's members are read before the loop, since the compiler cannot know that out is no part of it. */
INLINE void make_line(const struct wcx_line_recipe *recipe, enum line_kind kind, uint32_t planes,
		      const struct plane_walk walk[WCX_LINE_PLANES_MAX], const uint32_t *restrict words,
		      word32 *restrict out)
{
	const struct wcx_symbol_place place = recipe->place;
	const uint32_t constant = recipe->constant, fold_mask = recipe->fold_mask;
	uint32_t right[WCX_LINE_PLANES_MAX], mask[WCX_LINE_PLANES_MAX];

	for (uint32_t p = 0; p < planes; p++) {
		right[p] = walk[p].turn * recipe->planes[p].width;
		mask[p] = recipe->planes[p].mask;
	}
	for (uint32_t l = 0; l < WCX_LANES; l++) {
		uint32_t word = constant | place_word(&place, kind, words[l]), signs;

		for (uint32_t p = 0; p < planes; p++)
			word |= (walk[p].unit[l] >> right[p] | walk[p].unit[l] << (-right[p] & 31)) & mask[p];
		signs = word & 0x80808080;
		out[l] = kind == LINES_OF_BYTES ? word ^ (((signs << 1) - (signs >> 7)) & fold_mask) : word;
	}
}

INLINE void make_lines_of(const struct wcx_line_recipe *recipe, enum line_kind kind, uint32_t planes, const uint32_t *words,
			  uint32_t first_line, uint32_t lines, void *out)
{
	struct plane_walk walk[WCX_LINE_PLANES_MAX];

	for (uint32_t p = 0; p < planes; p++) {
		walk[p].unit_lines = wcx_unit_lines(recipe->planes[p].width, recipe->place.elem_bytes);
		walk[p].turn = first_line % walk[p].unit_lines;
		walk[p].unit =
			(const word32 *)recipe->planes[p].units + (size_t)(first_line / walk[p].unit_lines) * WCX_LANES;
	}
	for (uint32_t line = 0; line < lines; line++) {
		word32 *to = (word32 *)out + (size_t)line * WCX_LANES;

		__builtin_prefetch((const uint8_t *)to + LINE_PREFETCH_BYTES, 1);
		__builtin_prefetch((const uint8_t *)to + LINE_PREFETCH_BYTES + 64, 1);
		make_line(recipe, kind, planes, walk, words + (size_t)line * WCX_LANES, to);
		for (uint32_t p = 0; p < planes; p++) {
			if (++walk[p].turn == walk[p].unit_lines) {
				walk[p].turn = 0;
				walk[p].unit += WCX_LANES;
				__builtin_prefetch((const uint8_t *)walk[p].unit + LINE_PREFETCH_BYTES);
				__builtin_prefetch((const uint8_t *)walk[p].unit + LINE_PREFETCH_BYTES + 64);
			}
		}
	}
}

INLINE void make_lines_in_planes(const struct wcx_line_recipe *recipe, enum line_kind kind, const uint32_t *words,
				 uint32_t first_line, uint32_t lines, void *out)
{
	switch (recipe->plane_count) {
	case 0:
		make_lines_of(recipe, kind, 0, words, first_line, lines, out);
		break;
	case 1:
		make_lines_of(recipe, kind, 1, words, first_line, lines, out);
		break;
	case 2:
		make_lines_of(recipe, kind, 2, words, first_line, lines, out);
		break;
	default:
		assert(recipe->plane_count == WCX_LINE_PLANES_MAX);
		make_lines_of(recipe, kind, WCX_LINE_PLANES_MAX, words, first_line, lines, out);
	}
}

static void make_lines(const struct wcx_line_recipe *recipe, const uint32_t *words, uint32_t first_line, uint32_t lines,
		       void *out)
{
	if (recipe->place.elem_bytes == 1)
		make_lines_in_planes(recipe, LINES_OF_BYTES, words, first_line, lines, out);
	else if (recipe->place.is_pair)
		make_lines_in_planes(recipe, LINES_OF_HALF_PAIRS, words, first_line, lines, out);
	else
		make_lines_in_planes(recipe, LINES_OF_HALVES, words, first_line, lines, out);
}

static void find_contexts(const struct wcx_recipe *recipe, const void *base, uint32_t lines, uint32_t *contexts)
{
	const size_t count = (size_t)lines * wcx_line_elems(recipe->elem_bytes);

	switch (recipe->elem_bytes) {
	case 1:
		context_words_8(recipe, base, count, contexts);
		break;
	case 2:
		context_words_16(recipe, base, count, contexts);
		break;
	case 4:
		context_words_32(recipe, base, count, contexts);
		break;
	case 8:
		context_words_64(recipe, base, count, contexts);
		break;
	default:
		assert(!"element size");
	}
}

static void undo_difference(const struct wcx_recipe *recipe, const void *base, uint32_t lines, void *out)
{
	const enum wcx_difference difference = (enum wcx_difference)recipe->difference;
	const size_t count = (size_t)lines * wcx_line_elems(recipe->elem_bytes);

	switch (recipe->elem_bytes) {
	case 1:
		undo_differences_8(difference, base, count, out);
		break;
	case 2:
		undo_differences_16(difference, base, count, out);
		break;
	case 4:
		undo_differences_32(difference, base, count, out);
		break;
	case 8:
		undo_differences_64(difference, base, count, out);
		break;
	default:
		assert(!"element size");
	}
}

/* CPUs have an instruction for it, but some sources are compiled for those without. */
INLINE uint32_t count_bits(uint64_t x)
{
#ifdef __POPCNT__
	return (uint32_t)__builtin_popcountll(x);
#else
	x -= x >> 1 & 0x5555555555555555;
	x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
	x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
	return (uint32_t)(x * 0x0101010101010101 >> 56);
#endif
}

/* A branch for each element, or for each line unless nearly all have none, would mostly be mispredicted. */
static bool list_escapes(const uint64_t *bits, uint32_t lines, uint32_t count, uint16_t *positions)
{
	const bool are_rare = count < lines / 8;
	uint32_t listed = 0;

	for (uint32_t line = 0; line < lines && listed <= count; line++) {
		const uint32_t first = line * 2 * WCX_LANES;
		uint64_t left = bits[line];
		uint32_t end;

		if (are_rare && !left)
			continue;
		end = listed + count_bits(left);
		do {
			for (uint32_t i = 0; i < WCX_ESCAPES_AT_ONCE; i++, left &= left - 1)
				positions[listed + i] =
					(uint16_t)(first + (uint32_t)__builtin_ctzll(left | UINT64_C(1) << 63));
			listed += WCX_ESCAPES_AT_ONCE;
		} while (left);
		listed = end;
	}
	return listed == count;
}
