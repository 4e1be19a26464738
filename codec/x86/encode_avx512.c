/* SPDX-License-Identifier: MIT */
/*
 * The AVX-512 variant of the encoder's loops: sixteen lanes per register.  Compiled with AVX-512 F, BW, DQ and VL, BMI2 and
 * POPCNT.
 */
#include <immintrin.h>

#include "codec/encode_variant.h"
#include "codec/inline.h"

#include "codec/encode_template.h"

#define INLINE WCX_INLINE

enum { REGISTER_LANES = 16, REGISTERS = WCX_LANES / REGISTER_LANES };

/* The symbols of sixteen lanes, those of two neighbouring lanes in each 64 bits. */
INLINE __m512i load_symbols(const uint8_t *symbols, uint32_t steps)
{
	if (steps == 4)
		return _mm512_loadu_si512(symbols);
	if (steps == 2)
		return _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)(const void *)symbols));
	return _mm512_cvtepu16_epi64(_mm_loadu_si128((const __m128i *)(const void *)symbols));
}

/* The entries of the symbols that start at a bit of each 64. */
INLINE __m512i fetch(const uint64_t *entry, __m512i symbols, unsigned bit)
{
	return _mm512_i64gather_epi64(_mm512_and_si512(_mm512_srli_epi64(symbols, bit), _mm512_set1_epi64(0xFF)), entry, 8);
}

/* The entries of eight keyed symbols that are `stride` apart. */
INLINE __m512i fetch_keyed(const uint64_t *entry, const uint16_t *keyed, uint32_t stride)
{
	return _mm512_set_epi64((int64_t)entry[keyed[7 * stride]], (int64_t)entry[keyed[6 * stride]],
				(int64_t)entry[keyed[5 * stride]], (int64_t)entry[keyed[4 * stride]],
				(int64_t)entry[keyed[3 * stride]], (int64_t)entry[keyed[2 * stride]],
				(int64_t)entry[keyed[stride]], (int64_t)entry[keyed[0]]);
}

/* Encodes a symbol of sixteen lanes, as wcx_rans_encode_symbol does of one; their words are stored below words. */
INLINE __m512i encode(__m512i x, __m512i even, __m512i odd, uint16_t **words)
{
	const __m512i entries = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
	const __m512i freq = _mm512_and_si512(entries, _mm512_set1_epi32(0xFFFF));
	const __mmask16 emits = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(x, 20), freq);
	const unsigned count = (unsigned)__builtin_popcount(emits);
	const __m256i low = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(emits, x));
	__m512i product_even, product_odd, quotient, rest;

	*words -= count;
	_mm256_mask_storeu_epi16(*words, (__mmask16)((1u << count) - 1), low);
	x = _mm512_mask_srli_epi32(x, emits, x, 16);
	product_even = _mm512_mul_epu32(x, _mm512_srli_epi64(even, 32));
	product_odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(odd, 32));
	quotient = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(product_even, 32), product_odd);
	rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, freq));
	x = _mm512_add_epi32(_mm512_slli_epi32(quotient, WCX_PROB_BITS), rest);
	x = _mm512_add_epi32(x, _mm512_srli_epi32(entries, 16));
	return _mm512_mask_add_epi32(x, _mm512_cmpge_epu32_mask(rest, freq), x,
				     _mm512_sub_epi32(_mm512_set1_epi32(WCX_PROB_SCALE), freq));
}

INLINE void encode_line(const uint64_t *entry, const uint8_t *src, uint32_t steps, __m512i state[REGISTERS],
			uint16_t **words)
{
	__m512i symbols[REGISTERS];

#pragma GCC unroll 2
	for (int r = 0; r < REGISTERS; r++)
		symbols[r] = load_symbols(src + (uint32_t)r * REGISTER_LANES * steps, steps);
#pragma GCC unroll 4
	for (uint32_t k = steps; k-- > 0;)
#pragma GCC unroll 2
		for (uint32_t r = REGISTERS; r-- > 0;)
			state[r] = encode(state[r], fetch(entry, symbols[r], 8 * k),
					  fetch(entry, symbols[r], 8 * (steps + k)), words);
}

INLINE void encode_keyed_line(const uint64_t *entry, const uint16_t *keyed, uint32_t steps, __m512i state[REGISTERS],
			      uint16_t **words)
{
#pragma GCC unroll 4
	for (uint32_t k = steps; k-- > 0;)
#pragma GCC unroll 2
		for (uint32_t r = REGISTERS; r-- > 0;) {
			const uint16_t *s = keyed + r * REGISTER_LANES * steps + k;

			state[r] = encode(state[r], fetch_keyed(entry, s, 2 * steps),
					  fetch_keyed(entry, s + steps, 2 * steps), words);
		}
}

INLINE size_t encode_steps(const struct wcx_rans_lines *lines, uint32_t steps, bool is_keyed)
{
	const uint64_t *entry = lines->table->symbol;
	uint16_t *words = lines->words + lines->left;
	__m512i state[REGISTERS];

	for (int r = 0; r < REGISTERS; r++)
		state[r] = _mm512_loadu_si512(lines->state + r * REGISTER_LANES);
	for (uint32_t line = lines->lines; line-- > 0;) {
		const size_t first = (size_t)line * WCX_LANES * steps;

		if (is_keyed)
			encode_keyed_line(entry, lines->keyed + first, steps, state, &words);
		else
			encode_line(entry, lines->symbols + first, steps, state, &words);
	}
	for (int r = 0; r < REGISTERS; r++)
		_mm512_storeu_si512(lines->state + r * REGISTER_LANES, state[r]);
	return (size_t)(words - lines->words);
}

/* Counts symbols by comparing. */
INLINE void count_few(const uint8_t *symbols, uint32_t registers, uint32_t symbol_count, uint32_t *ret)
{
	for (uint32_t i = 0; i < registers; i++) {
		const __m512i v = _mm512_loadu_si512(symbols + 64 * i);

		for (uint32_t s = 0; s < symbol_count; s++)
			ret[s] += (uint32_t)__builtin_popcountll(_mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8((char)s)));
	}
}

static void count(const uint8_t *symbols, uint32_t count, uint32_t symbol_count, uint32_t *ret)
{
	if (symbol_count > 16) {
		count_any(symbols, count, symbol_count, ret);
		return;
	}
	memset(ret, 0, 16 * sizeof *ret);
	count_few(symbols, count / 64, 16, ret);
	for (uint32_t i = count / 64 * 64; i < count; i++)
		ret[symbols[i]]++;
}

const struct wcx_encode_variant wcx_encode_variant_avx512 = {
	.name = "avx512",
	.elements = { &ops_8, &ops_16, &ops_32, &ops_64 },
	.encode_lines = encode_lines,
	.count = count,
	.count_keyed = count_keyed,
	.key_symbols = key_symbols,
	.key_fitting = key_fitting,
	.join_pairs = join_pairs,
	.add_plane = add_plane,
};
