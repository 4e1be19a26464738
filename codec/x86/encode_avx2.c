/* SPDX-License-Identifier: MIT */
/* The AVX2 variant of the encoder's loops: eight lanes per register.  Compiled with AVX2, BMI2 and POPCNT. */
#include <immintrin.h>

#include "codec/encode_variant.h"
#include "codec/inline.h"

#include "codec/encode_template.h"

#define INLINE WCX_INLINE

enum { REGISTER_LANES = 8, REGISTERS = WCX_LANES / REGISTER_LANES };

/*
 * Where each 16-bit word of a register comes from, so that the words of a set of eight lanes end up behind each other at its
 * end: word p is that of the lane in the set above which there are 7 - p others.
 */
#define ABOVE(set, lane) __builtin_popcount((set) >> (lane) >> 1)
#define HAS(set, lane, p) ((set) >> (lane)&1 && ABOVE(set, lane) == 7 - (p) ? (lane) + 1 : 0)
#define LANE(set, p)                                                                                                        \
	(HAS(set, 0, p) + HAS(set, 1, p) + HAS(set, 2, p) + HAS(set, 3, p) + HAS(set, 4, p) + HAS(set, 5, p) +              \
	 HAS(set, 6, p) + HAS(set, 7, p))
/* The low halves of lanes 0 to 3 are in bytes 0 to 7, those of lanes 4 to 7 in bytes 8 to 15. */
#define WORD(set, p) (LANE(set, p) ? 2 * (LANE(set, p) - 1) : 0), (LANE(set, p) ? 2 * (LANE(set, p) - 1) + 1 : 0)
#define SET(set)                                                                                                            \
	{                                                                                                                   \
		WORD(set, 0), WORD(set, 1), WORD(set, 2), WORD(set, 3), WORD(set, 4), WORD(set, 5), WORD(set, 6),           \
			WORD(set, 7)                                                                                        \
	}
#define SETS4(set) SET(set), SET((set) + 1), SET((set) + 2), SET((set) + 3)
#define SETS16(set) SETS4(set), SETS4((set) + 4), SETS4((set) + 8), SETS4((set) + 12)
#define SETS64(set) SETS16(set), SETS16((set) + 16), SETS16((set) + 32), SETS16((set) + 48)

static const uint8_t word_shuffles[256][16]
	__attribute__((aligned(16))) = { SETS64(0), SETS64(64), SETS64(128), SETS64(192) };

INLINE int64_t entry_at(const struct wcx_rans_lines *lines, size_t i, bool is_keyed)
{
	const uint64_t *entry = lines->table->symbol; /* with contexts, of all tables */

	return (int64_t)entry[is_keyed ? lines->keyed[i] : lines->symbols[i]];
}

/* The entries of four symbols from number i on, `stride` apart.  Loads and shuffles are faster here than a gather. */
INLINE __m256i fetch(const struct wcx_rans_lines *lines, size_t i, uint32_t stride, bool is_keyed)
{
	return _mm256_set_epi64x(entry_at(lines, i + 3 * stride, is_keyed), entry_at(lines, i + 2 * stride, is_keyed),
				 entry_at(lines, i + stride, is_keyed), entry_at(lines, i, is_keyed));
}

/* Encodes a symbol of eight lanes, as wcx_rans_encode_symbol does of one; their words are stored below words. */
INLINE __m256i encode(__m256i x, __m256i even, __m256i odd, uint16_t **words)
{
	const __m256i entries = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
	const __m256i freq = _mm256_and_si256(entries, _mm256_set1_epi32(0xFFFF));
	const __m256i keeps = _mm256_cmpgt_epi32(freq, _mm256_srli_epi32(x, 20));
	const unsigned set = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(keeps)) & 0xFF;
	const __m256i halves =
		_mm256_shuffle_epi8(x, _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5,
							8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1));
	const __m128i low = _mm_unpacklo_epi64(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
	const __m128i shuffle = _mm_load_si128((const __m128i *)(const void *)word_shuffles[set]);
	__m256i product_even, product_odd, quotient, rest, exact;

	_mm_storeu_si128((__m128i *)(void *)(*words - REGISTER_LANES), _mm_shuffle_epi8(low, shuffle));
	*words -= __builtin_popcount(set);
	x = _mm256_srlv_epi32(x, _mm256_andnot_si256(keeps, _mm256_set1_epi32(16)));
	product_even = _mm256_mul_epu32(x, _mm256_srli_epi64(even, 32));
	product_odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(odd, 32));
	quotient = _mm256_blend_epi32(_mm256_srli_epi64(product_even, 32), product_odd, 0xAA);
	rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, freq));
	exact = _mm256_cmpgt_epi32(freq, rest);
	x = _mm256_add_epi32(_mm256_slli_epi32(quotient, WCX_PROB_BITS), rest);
	x = _mm256_add_epi32(x, _mm256_srli_epi32(entries, 16));
	return _mm256_add_epi32(x, _mm256_andnot_si256(exact, _mm256_sub_epi32(_mm256_set1_epi32(WCX_PROB_SCALE), freq)));
}

INLINE size_t encode_steps(const struct wcx_rans_lines *lines, uint32_t steps, bool is_keyed)
{
	uint16_t *words = lines->words + lines->left;
	__m256i state[REGISTERS];

#pragma GCC unroll 4
	for (int r = 0; r < REGISTERS; r++)
		state[r] = _mm256_loadu_si256((const __m256i *)(const void *)(lines->state + r * REGISTER_LANES));
	for (uint32_t line = lines->lines; line-- > 0;) {
		const size_t first = (size_t)line * WCX_LANES * steps;

#pragma GCC unroll 4
		for (uint32_t k = steps; k-- > 0;)
#pragma GCC unroll 4
			for (uint32_t r = REGISTERS; r-- > 0;) {
				const size_t i = first + r * REGISTER_LANES * steps + k;

				state[r] = encode(state[r], fetch(lines, i, 2 * steps, is_keyed),
						  fetch(lines, i + steps, 2 * steps, is_keyed), &words);
			}
	}
#pragma GCC unroll 4
	for (int r = 0; r < REGISTERS; r++)
		_mm256_storeu_si256((__m256i *)(void *)(lines->state + r * REGISTER_LANES), state[r]);
	return (size_t)(words - lines->words);
}

/* Adds up the bytes of a register. */
INLINE uint32_t sum_bytes(__m256i bytes)
{
	const __m256i sums = _mm256_sad_epu8(bytes, _mm256_setzero_si256());

	return (uint32_t)(_mm256_extract_epi64(sums, 0) + _mm256_extract_epi64(sums, 1) + _mm256_extract_epi64(sums, 2) +
			  _mm256_extract_epi64(sums, 3));
}

/* Counts symbols first to first + 7 by comparing; blocks are so short that counts fit bytes. */
INLINE void count_eight(const uint8_t *symbols, uint32_t registers, uint8_t first, uint32_t *ret)
{
	enum { BLOCK = 255 };

	for (uint32_t begin = 0; begin < registers; begin += BLOCK) {
		const uint32_t end = WCX_MIN(registers, begin + BLOCK);
		__m256i counts[8] = { 0 };

		for (uint32_t i = begin; i < end; i++) {
			const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(symbols + 32 * i));

#pragma GCC unroll 8
			for (int s = 0; s < 8; s++)
				counts[s] = _mm256_sub_epi8(counts[s],
							    _mm256_cmpeq_epi8(v, _mm256_set1_epi8((char)(first + s))));
		}
#pragma GCC unroll 8
		for (int s = 0; s < 8; s++)
			ret[first + s] += sum_bytes(counts[s]);
	}
}

static void count(const uint8_t *symbols, uint32_t count, uint32_t symbol_count, uint32_t *ret)
{
	if (symbol_count > 16 || count < 256) {
		count_any(symbols, count, symbol_count, ret);
		return;
	}
	memset(ret, 0, 16 * sizeof *ret);
	count_eight(symbols, count / 32, 0, ret);
	if (symbol_count > 8)
		count_eight(symbols, count / 32, 8, ret);
	for (uint32_t i = count / 32 * 32; i < count; i++)
		ret[symbols[i]]++;
}

const struct wcx_encode_variant wcx_encode_variant_avx2 = {
	.name = "avx2",
	.elements = { &ops_8, &ops_16, &ops_32, &ops_64 },
	.encode_lines = encode_lines,
	.count = count,
	.count_keyed = count_keyed,
	.key_symbols = key_symbols,
	.key_fitting = key_fitting,
	.join_pairs = join_pairs,
	.add_plane = add_plane,
};
