/* SPDX-License-Identifier: MIT */
/*
 * The AVX-512 variant: sixteen lanes per register, two registers of states.  Compiled with AVX-512 F, BW, DQ and VL, BMI2
 * and POPCNT.  Words reach the lanes that renormalise by an expanding move.
 */
#include <immintrin.h>
#include <stddef.h>

#include "codec/decode_variant.h"
#include "codec/line_template.h"

typedef __m512i vector;
enum { VECTOR_LANES = 16 };

/* The next states of sixteen lanes, whose words start at *word; reads 32 bytes there. */
INLINE __m512i next_state(__m512i state, __m512i e, const uint8_t **word)
{
	__m512i x = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(e, 20), _mm512_srli_epi32(state, WCX_PROB_BITS)),
				     _mm512_and_si512(e, _mm512_set1_epi32(WCX_PROB_SCALE - 1)));
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

#include "codec/vector_template.h"

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

const struct wcx_decode_variant wcx_decode_variant_avx512 = {
	.name = "avx512",
	.parts_max = PARTS_MAX,
	.parts_max_with_choices = PARTS_MAX,
	.decode_lines = decode_lines,
	.decode_by_context = decode_by_context,
	.decode_pairs = decode_pairs,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.make_lines = make_lines,
	.fold = fold,
	.find_contexts = find_contexts,
	.undo_difference = undo_difference,
};
