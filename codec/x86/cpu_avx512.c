/* SPDX-License-Identifier: MIT */
/*
 * AVX-512: sixteen lanes to a register, two registers of states.  Compiled with AVX-512 F, BW, DQ and VL, BMI2 and POPCNT.
 * Words reach the lanes that want one by an expanding move.
 */
#include <immintrin.h>
#include <stddef.h>

#include "codec/cpu.h"
#include "codec/line_loops.h"

enum { REGISTERS = WCX_LANES / 16 };

/* A step of sixteen lanes; the entries, which have the symbols in bits 12 to 19.  Reads 32 bytes at *word. */
static inline __attribute__((always_inline)) __m512i step(const uint32_t *entry, __m512i *state, const uint8_t **word)
{
	const __m512i low_bits = _mm512_set1_epi32(WCX_PROB_SCALE - 1);
	__m512i e = _mm512_i32gather_epi32(_mm512_and_si512(*state, low_bits), entry, 4);
	__m512i x = _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(e, 20), _mm512_srli_epi32(*state, WCX_PROB_BITS)),
				     _mm512_and_si512(e, low_bits));
	__mmask16 wanting = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(WCX_RANS_LOW));
	__m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)*word));

	*state = _mm512_mask_or_epi32(x, wanting, _mm512_slli_epi32(x, 16), _mm512_maskz_expand_epi32(wanting, words));
	*word += 2 * (unsigned)__builtin_popcount(wanting);
	return e;
}

static inline __attribute__((always_inline)) void load_states(const struct wcx_rans_reader *reader, __m512i state[REGISTERS])
{
	for (int r = 0; r < REGISTERS; r++)
		state[r] = _mm512_loadu_si512(reader->state + 16 * r);
}

static inline __attribute__((always_inline)) void store_states(struct wcx_rans_reader *reader,
							       const __m512i state[REGISTERS])
{
	for (int r = 0; r < REGISTERS; r++)
		_mm512_storeu_si512(reader->state + 16 * r, state[r]);
}

static inline __attribute__((always_inline)) uint32_t decode_steps(const struct wcx_rans_decode_table *table,
								   struct wcx_rans_reader *reader, uint32_t lines,
								   uint32_t steps, uint32_t *words)
{
	const __m512i symbol = _mm512_set1_epi32(0xFF);
	__m512i state[REGISTERS];
	uint32_t line = 0;

	load_states(reader, state);
	for (; line < lines && reader->end - reader->word >= 2 * WCX_LANES * (ptrdiff_t)steps; line++) {
		__m512i w[REGISTERS] = { _mm512_setzero_si512() };

		for (uint32_t k = 0; k < steps; k++) {
			for (int r = 0; r < REGISTERS; r++) {
				__m512i e = step(table->entry, &state[r], &reader->word);

				e = _mm512_and_si512(_mm512_srli_epi32(e, 12), symbol);
				w[r] = k ? _mm512_or_si512(w[r], _mm512_slli_epi32(e, 32 / steps * k)) : e;
			}
		}
		for (int r = 0; r < REGISTERS; r++, words += 16)
			_mm512_storeu_si512(words, w[r]);
	}
	store_states(reader, state);
	return line;
}

static uint32_t decode_lines(const struct wcx_rans_decode_table *table, struct wcx_rans_reader *reader, uint32_t lines,
			     uint32_t steps, uint32_t *words)
{
	if (steps == 4)
		return decode_steps(table, reader, lines, 4, words);
	if (steps == 2)
		return decode_steps(table, reader, lines, 2, words);
	return decode_steps(table, reader, lines, 1, words);
}

/* See the AVX2 variant. */
static inline __attribute__((always_inline)) __m512i finish_pairs(__m512i first, __m512i second, __m512i raw)
{
	__m512i symbols = _mm512_mask_blend_epi16(0xAAAAAAAA, _mm512_srli_epi32(first, 12), _mm512_slli_epi32(second, 4));
	__m512i even = _mm512_andnot_si512(_mm512_slli_epi32(symbols, 3), _mm512_set1_epi32(0x00780078));
	__m512i odd = _mm512_andnot_si512(_mm512_slli_epi32(symbols, 7), _mm512_set1_epi32(0x78007800));
	__m512i positive = _mm512_shuffle_epi8(_mm512_set1_epi8(0x78), raw);

	return _mm512_or_si512(_mm512_xor_si512(_mm512_or_si512(even, odd), positive),
			       _mm512_and_si512(raw, _mm512_set1_epi32((int)0x87878787)));
}

static inline __attribute__((always_inline)) void decode_pair_line(const uint32_t *entry, __m512i state[REGISTERS],
								   const uint8_t **word, const uint8_t *unit, int rotated,
								   uint8_t *dst)
{
	__m512i first[REGISTERS], second[REGISTERS];

	for (int r = 0; r < REGISTERS; r++)
		first[r] = step(entry, &state[r], word);
	for (int r = 0; r < REGISTERS; r++)
		second[r] = step(entry, &state[r], word);
	for (int r = 0; r < REGISTERS; r++) {
		__m512i raw = _mm512_loadu_si512(unit + 64 * r);

		if (rotated)
			raw = _mm512_ror_epi32(raw, 4);
		_mm512_storeu_si512(dst + 64 * r, finish_pairs(first[r], second[r], raw));
	}
}

static uint32_t decode_pairs(const struct wcx_rans_decode_table *table, struct wcx_rans_reader *reader, uint32_t first_line,
			     uint32_t lines, const struct wcx_pair_sink *sink)
{
	const uint8_t *word = reader->word, *unit = sink->nibbles + (size_t)first_line / 2 * WCX_PLANE_UNIT_BYTES;
	uint8_t *dst = sink->dst + (size_t)first_line * WCX_LANES * 4;
	uint32_t line = first_line, end = first_line + lines;
	__m512i state[REGISTERS];

	load_states(reader, state);
	while (line < end && reader->end - word >= 2 * 2 * 2 * WCX_LANES) {
		if (line % 2 == 0) {
			decode_pair_line(table->entry, state, &word, unit, 0, dst);
			dst += WCX_LANES * 4;
			line++;
		}
		if (line == end)
			break;
		decode_pair_line(table->entry, state, &word, unit, 1, dst);
		dst += WCX_LANES * 4;
		unit += WCX_PLANE_UNIT_BYTES;
		line++;
	}
	store_states(reader, state);
	reader->word = word;
	return line - first_line;
}

const struct wcx_cpu wcx_cpu_avx512 = {
	.name = "avx512",
	.decode_lines = decode_lines,
	.decode_pairs = decode_pairs,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.fold = fold,
};
