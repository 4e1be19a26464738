/* SPDX-License-Identifier: MIT */
/*
 * The AVX-512 variant: sixteen lanes per register, two registers of states.  Compiled with AVX-512 F, BW, DQ and VL, BMI2
 * and POPCNT.  Words reach the lanes that renormalise by an expanding move.
 */
#include <immintrin.h>
#include <stddef.h>

#include "codec/decode_variant.h"
#include "codec/difference.h"
#include "codec/line_template.h"

typedef __m512i vector;
enum { VECTOR_LANES = 16 };

struct two_bases {
	__m512i ordered, contexts;
};

/* The next states of sixteen lanes, whose words start at *word; reads 32 bytes there. */
INLINE __m512i next_state(__m512i state, __m512i e, const uint8_t **word, bool is_coarse)
{
	__m512i x = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(e, 20), _mm512_srli_epi32(state, WCX_PROB_BITS)),
				     _mm512_and_si512(e, _mm512_set1_epi32(WCX_PROB_SCALE - 1)));

	if (is_coarse)
		x = _mm512_sub_epi32(state, x);

	__mmask16 renormalises = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(WCX_RANS_LOW));
	__m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)*word));

	*word += 2 * (unsigned)__builtin_popcount(renormalises);
	return _mm512_mask_or_epi32(x, renormalises, _mm512_slli_epi32(x, 16),
				    _mm512_maskz_expand_epi32(renormalises, words));
}

INLINE __m512i find_slots(__m512i state)
{
	return _mm512_and_si512(state, _mm512_set1_epi32(WCX_PROB_SCALE - 1));
}

INLINE __m512i fetch(const uint32_t *entry, __m512i slots, bool gather)
{
	(void)gather; /* always */
	return _mm512_i32gather_epi32(slots, entry, 4);
}

INLINE __m512i fetch_coarse(const uint32_t *entry, __m512i offsets, bool gather)
{
	(void)gather;
	return _mm512_i32gather_epi32(offsets, entry, 1);
}

INLINE __m512i find_coarse_slots(__m512i state)
{
	return _mm512_and_si512(state, _mm512_set1_epi32((WCX_COARSE_SLOTS - 1) << WCX_COARSE_BITS));
}

INLINE __m512i load(const void *src)
{
	return _mm512_loadu_si512(src);
}

INLINE void store(void *dst, __m512i v)
{
	_mm512_storeu_si512(dst, v);
}

INLINE __m512i either(__m512i a, __m512i b)
{
	return _mm512_or_si512(a, b);
}

INLINE __m512i place_symbols(__m512i entries, uint32_t at)
{
	__m512i moved = at < 12 ? _mm512_srli_epi32(entries, 12 - at) : _mm512_slli_epi32(entries, at - 12);

	return _mm512_and_si512(moved, _mm512_set1_epi32((int)(0xFFu << at)));
}

INLINE __m512i place_contexts(__m512i contexts, uint32_t at)
{
	__m512i moved = at < WCX_PROB_BITS ? _mm512_slli_epi32(contexts, WCX_PROB_BITS - at)
					   : _mm512_srli_epi32(contexts, at - WCX_PROB_BITS);

	return _mm512_and_si512(moved, _mm512_set1_epi32((WCX_CONTEXTS_MAX - 1) << WCX_PROB_BITS));
}

INLINE __m512i rotate_right(__m512i v, int bits)
{
	return _mm512_rorv_epi32(v, _mm512_set1_epi32(bits));
}

/* See the AVX2 variant. */
INLINE __m512i finish_pairs(__m512i first, __m512i second, __m512i raw)
{
	__m512i symbols = _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(first, 12), _mm512_slli_epi32(second, 4));
	__m512i even = _mm512_andnot_si512(_mm512_slli_epi32(symbols, 3), _mm512_set1_epi32(0x00780078));
	__m512i odd = _mm512_andnot_si512(_mm512_slli_epi32(symbols, 7), _mm512_set1_epi32(0x78007800));
	__m512i positive = _mm512_shuffle_epi8(_mm512_set1_epi8(0x78), raw);

	return _mm512_or_si512(_mm512_xor_si512(_mm512_or_si512(even, odd), positive),
			       _mm512_and_si512(raw, _mm512_set1_epi32((int)0x87878787)));
}

/* See the AVX2 variant. */
INLINE __m512i finish_half_pairs(__m512i entries, __m512i raw, uint32_t base)
{
	__m512i first = _mm512_and_si512(_mm512_srli_epi32(entries, 5), _mm512_set1_epi32(0x00000780));
	__m512i second = _mm512_and_si512(_mm512_slli_epi32(entries, 7), _mm512_set1_epi32(0x07800000));
	__m512i exponents = _mm512_add_epi32(_mm512_or_si512(first, second), _mm512_set1_epi32((int)base));

	return _mm512_or_si512(exponents, _mm512_and_si512(raw, _mm512_set1_epi32((int)0x807F807F)));
}

struct map_vectors {
	__m512i order, first, table;
	const struct wcx_context_map *map;
	bool has_table;
};

INLINE struct map_vectors load_map(const struct wcx_context_map *map)
{
	return (struct map_vectors){
		.order = _mm512_set1_epi16((short)map->order),
		.first = _mm512_set1_epi16((short)map->first),
		.table = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)map->table)),
		.map = map,
		.has_table = map->has_table,
	};
}

/* See the AVX2 variant. */
INLINE __m512i find_two_contexts(const struct map_vectors *map, __m512i keys)
{
	__m512i contexts = _mm512_setzero_si512();

	if (map->has_table) {
		contexts = _mm512_shuffle_epi8(map->table, _mm512_min_epu16(_mm512_subs_epu16(keys, map->first),
									    _mm512_set1_epi16(WCX_CONTEXT_TABLE_KEYS - 1)));
	} else {
		for (int t = 0; t < WCX_CONTEXTS_MAX - 1; t++) {
			const __mmask32 above = _mm512_cmpgt_epi16_mask(keys, _mm512_set1_epi16(map->map->below[t]));

			contexts = _mm512_mask_add_epi16(contexts, above, contexts, _mm512_set1_epi16(1));
		}
	}
	return _mm512_slli_epi16(contexts, WCX_PROB_BITS);
}

INLINE struct two_bases read_two_bases(const struct map_vectors *map, __m512i base)
{
	const __m512i signs = _mm512_srai_epi16(base, 15);
	const __m512i ordered = _mm512_xor_si512(base, _mm512_and_si512(signs, map->order));

	return (struct two_bases){ ordered, find_two_contexts(map, _mm512_srli_epi16(_mm512_xor_si512(ordered, signs), 7)) };
}

INLINE __m512i take_context(__m512i contexts, uint32_t shift)
{
	return shift ? _mm512_srli_epi32(contexts, 16)
		     : _mm512_and_si512(contexts, _mm512_set1_epi32((WCX_CONTEXTS_MAX - 1) << WCX_PROB_BITS));
}

/* See the AVX2 variant. */
INLINE __m512i join_differences(__m512i first, __m512i second)
{
	return _mm512_srai_epi16(
		_mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(first, 4), _mm512_slli_epi32(second, 12)), 8);
}

INLINE __m512i add_differences(const struct map_vectors *map, __m512i ordered, __m512i differences)
{
	const __m512i sum = _mm512_add_epi16(ordered, differences);

	return _mm512_xor_si512(sum, _mm512_and_si512(_mm512_srai_epi16(sum, 15), map->order));
}

enum { ESCAPE_REGISTERS = 1 };

INLINE uint64_t find_escapes(const __m512i *differences)
{
	return _mm512_cmpeq_epi16_mask(*differences, _mm512_set1_epi16(WCX_ESCAPE_DIFFERENCE));
}

#include "codec/vector_template.h"

/* What lines of two-byte elements consist of (struct wcx_line_recipe). */
struct half_vectors {
	__m512i base, constant, mask[WCX_LINE_PLANES_MAX];
	__m128i shift;
	__mmask32 always; /* have the base: all, unless symbol 0 is a zero */
};

INLINE struct half_vectors load_half_recipe(const struct wcx_line_recipe *recipe)
{
	struct half_vectors ret = {
		.base = _mm512_set1_epi16((short)recipe->place.base),
		.constant = _mm512_set1_epi32((int)recipe->constant),
		.shift = _mm_cvtsi32_si128((int)recipe->place.shift),
		.always = recipe->place.has_zero ? 0 : (__mmask32)-1,
	};

	for (uint32_t i = 0; i < recipe->plane_count; i++)
		ret.mask[i] = _mm512_set1_epi32((int)recipe->planes[i].mask);
	return ret;
}

INLINE __m512i finish_halves(const struct half_vectors *recipe, __m512i first, __m512i second)
{
	const __m512i symbols = _mm512_and_si512(
		_mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(first, 12), _mm512_slli_epi32(second, 4)),
		_mm512_set1_epi16(0xFF));
	const __mmask32 counted = _mm512_test_epi16_mask(symbols, symbols) | recipe->always;

	return _mm512_or_si512(
		recipe->constant,
		_mm512_sll_epi16(_mm512_mask_add_epi16(symbols, counted, symbols, recipe->base), recipe->shift));
}

INLINE __m512i add_plane(__m512i words, __m512i raw, __m512i mask)
{
	enum { FIRST_OR_BOTH_OTHERS = 0xF8 };

	return _mm512_ternarylogic_epi32(words, raw, mask, FIRST_OR_BOTH_OTHERS);
}

/* Where the raw bits of a line begin: in which unit of a plane, and at which of its bits. */
struct plane_place {
	size_t unit_at;
	uint32_t turn, unit_lines;
};

INLINE void find_places(const struct wcx_line_recipe *recipe, uint32_t line, struct plane_place places[WCX_LINE_PLANES_MAX])
{
	for (uint32_t i = 0; i < recipe->plane_count; i++) {
		const uint32_t unit_lines = wcx_unit_lines(recipe->planes[i].width, 2);

		places[i] = (struct plane_place){ (size_t)(line / unit_lines) * WCX_PLANE_UNIT_BYTES, line % unit_lines,
						  unit_lines };
	}
}

INLINE void next_places(uint32_t plane_count, struct plane_place places[WCX_LINE_PLANES_MAX])
{
	for (uint32_t i = 0; i < plane_count; i++)
		if (++places[i].turn == places[i].unit_lines) {
			places[i].turn = 0;
			places[i].unit_at += WCX_PLANE_UNIT_BYTES;
		}
}

INLINE void finish_half_line(const struct wcx_half_sink *sink, const struct half_vectors *vectors,
			     const struct plane_place places[WCX_LINE_PLANES_MAX], uint32_t line,
			     const vector first[REGISTERS], const vector second[REGISTERS])
{
	const struct wcx_line_recipe *recipe = sink->recipe;
	uint8_t *dst = sink->dst + (size_t)line * WCX_LANES * 4;
	vector words[REGISTERS];

	__builtin_prefetch(dst + PREFETCH_BYTES, 1);
	__builtin_prefetch(dst + PREFETCH_BYTES + 64, 1);
	for (int r = 0; r < REGISTERS; r++)
		words[r] = finish_halves(vectors, first[r], second[r]);
	for (uint32_t i = 0; i < recipe->plane_count; i++) {
		const uint8_t *unit = recipe->planes[i].units + places[i].unit_at;
		const int right = (int)(places[i].turn * recipe->planes[i].width);

		__builtin_prefetch(unit + PREFETCH_BYTES);
		__builtin_prefetch(unit + PREFETCH_BYTES + 64);
		for (int r = 0; r < REGISTERS; r++)
			words[r] = add_plane(words[r], rotate_right(load(unit + r * (int)sizeof(vector)), right),
					     vectors->mask[i]);
	}
	for (int r = 0; r < REGISTERS; r++)
		store(dst + r * (int)sizeof(vector), words[r]);
}

INLINE uint32_t decode_half_lines(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	const struct wcx_line_recipe *recipe = parts[0].halves->recipe;
	const struct half_vectors vectors = load_half_recipe(recipe);
	vector first[PARTS_MAX][REGISTERS], second[PARTS_MAX][REGISTERS];
	struct plane_place places[WCX_LINE_PLANES_MAX];
	const uint32_t *entry[PARTS_MAX];
	struct lanes lanes;

	find_places(recipe, line, places);
	load_lanes(parts, count, &lanes);
	while (line < end && have_reserves(parts, count, &lanes)) {
		const uint32_t run_end = find_runs(parts, count, line, end, entry);

		for (; line < run_end && have_reserves(parts, count, &lanes); line++) {
			for (unsigned p = 0; p < count; p++)
				__builtin_prefetch(lanes.word[p] + PREFETCH_BYTES);
			step(entry, NULL, count, &lanes, first, true);
			step(entry, NULL, count, &lanes, second, true);
#pragma GCC unroll 4
			for (unsigned p = 0; p < count; p++)
				finish_half_line(parts[p].halves, &vectors, places, line, first[p], second[p]);
			next_places(recipe->plane_count, places);
		}
	}
	store_lanes(parts, count, &lanes);
	return line;
}

static uint32_t decode_lines(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_steps(parts, count, line, end, true);
}

static uint32_t decode_by_context(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				  uint32_t end, const uint32_t *contexts, uint32_t *words)
{
	return decode_any_steps_by_context(stream, reader, line, end, contexts, words, true);
}

static uint32_t decode_pairs(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_pairs(parts, count, line, end, true);
}

static uint32_t decode_halves(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	if (count == 1)
		return decode_half_lines(parts, 1, line, end);
	assert(count == PARTS_MAX);
	return decode_half_lines(parts, PARTS_MAX, line, end);
}

static uint32_t decode_differences(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_differences(parts, count, line, end, true);
}

const struct wcx_decode_variant wcx_decode_variant_avx512 = {
	.name = "avx512",
	.parts_max = PARTS_MAX,
	.parts_max_with_choices = PARTS_MAX,
	.decode_lines = decode_lines,
	.decode_by_context = decode_by_context,
	.decode_pairs = decode_pairs,
	.decode_halves = decode_halves,
	.decode_differences = decode_differences,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.make_lines = make_lines,
	.fold = fold,
	.find_contexts = find_contexts,
	.list_escapes = list_escapes,
	.undo_difference = undo_difference,
};
