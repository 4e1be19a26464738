/* SPDX-License-Identifier: MIT */
/*
 * AVX2: eight lanes to a register, four registers of states.  Compiled with AVX2, BMI2 and POPCNT.
 *
 * Entries of the table are fetched one by one or with a gather; which is faster differs from CPU to CPU.  Words are handed
 * out to the lanes that want one by a shuffle for each of the 256 sets of lanes that there are.
 */
#include <immintrin.h>
#include <stddef.h>

#include "codec/cpu.h"
#include "codec/line_loops.h"

enum { REGISTERS = WCX_LANES / 8 };

/* Where each 16-bit word of a lane comes from: the words in a row go to the lanes of the set; 0x80 makes a zero. */
#define WORD(set, lane)                                                                                                     \
	((set) >> (lane)&1 ? 2 * __builtin_popcount((set) & ((1 << (lane)) - 1)) : 0x80),                                   \
		((set) >> (lane)&1 ? 2 * __builtin_popcount((set) & ((1 << (lane)) - 1)) + 1 : 0x80)
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

/* One by one: from the index in the lower half of a 64-bit element, then from that in its upper half. */
static inline __attribute__((always_inline)) __m128i fetch_four(const uint32_t *entry, uint64_t low, uint64_t high)
{
	__m128i e = _mm_cvtsi32_si128((int)entry[(uint32_t)low]);

	e = _mm_insert_epi32(e, (int)entry[low >> 32], 1);
	e = _mm_insert_epi32(e, (int)entry[(uint32_t)high], 2);
	return _mm_insert_epi32(e, (int)entry[high >> 32], 3);
}

static inline __attribute__((always_inline)) __m256i fetch(const uint32_t *entry, __m256i slots, int gather)
{
	__m128i low, high;

	if (gather)
		return _mm256_i32gather_epi32((const int *)entry, slots, 4);
	low = fetch_four(entry, (uint64_t)_mm256_extract_epi64(slots, 0), (uint64_t)_mm256_extract_epi64(slots, 1));
	high = fetch_four(entry, (uint64_t)_mm256_extract_epi64(slots, 2), (uint64_t)_mm256_extract_epi64(slots, 3));
	return _mm256_set_m128i(high, low);
}

/* A step of eight lanes; the entries, which have the symbols in bits 12 to 19.  Reads 16 bytes at *word. */
static inline __attribute__((always_inline)) __m256i step(const uint32_t *entry, __m256i *state, const uint8_t **word,
							  int gather)
{
	const __m256i low_bits = _mm256_set1_epi32(WCX_PROB_SCALE - 1);
	__m256i e = fetch(entry, _mm256_and_si256(*state, low_bits), gather);
	__m256i x = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(e, 20), _mm256_srli_epi32(*state, WCX_PROB_BITS)),
				     _mm256_and_si256(e, low_bits));
	__m256i wanting = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
	unsigned set = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(wanting));
	__m128i words = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)*word),
					 _mm_load_si128((const __m128i *)word_shuffles[set]));

	*state = _mm256_or_si256(_mm256_sllv_epi32(x, _mm256_and_si256(wanting, _mm256_set1_epi32(16))),
				 _mm256_cvtepu16_epi32(words));
	*word += 2 * (unsigned)__builtin_popcount(set);
	return e;
}

static inline __attribute__((always_inline)) void load_states(const struct wcx_rans_reader *reader, __m256i state[REGISTERS])
{
	for (int r = 0; r < REGISTERS; r++)
		state[r] = _mm256_loadu_si256((const __m256i *)reader->state + r);
}

static inline __attribute__((always_inline)) void store_states(struct wcx_rans_reader *reader,
							       const __m256i state[REGISTERS])
{
	for (int r = 0; r < REGISTERS; r++)
		_mm256_storeu_si256((__m256i *)reader->state + r, state[r]);
}

/* Whether a line cannot lack a word: its loads stay in the words then, too. */
static inline __attribute__((always_inline)) int has_line(const struct wcx_rans_reader *reader, uint32_t steps)
{
	return reader->end - reader->word >= 2 * WCX_LANES * (ptrdiff_t)steps;
}

static inline __attribute__((always_inline)) uint32_t decode_steps(const struct wcx_rans_decode_table *table,
								   struct wcx_rans_reader *reader, uint32_t lines,
								   uint32_t steps, uint32_t *words, int gather)
{
	const __m256i symbol = _mm256_set1_epi32(0xFF);
	__m256i state[REGISTERS];
	uint32_t line = 0;

	load_states(reader, state);
	for (; line < lines && has_line(reader, steps); line++) {
		__m256i w[REGISTERS] = { _mm256_setzero_si256() };

		for (uint32_t k = 0; k < steps; k++) {
			for (int r = 0; r < REGISTERS; r++) {
				__m256i e = step(table->entry, &state[r], &reader->word, gather);

				e = _mm256_and_si256(_mm256_srli_epi32(e, 12), symbol);
				w[r] = k ? _mm256_or_si256(w[r], _mm256_slli_epi32(e, (int)(32 / steps * k))) : e;
			}
		}
		for (int r = 0; r < REGISTERS; r++, words += 8)
			_mm256_storeu_si256((__m256i *)words, w[r]);
	}
	store_states(reader, state);
	return line;
}

static inline __attribute__((always_inline)) uint32_t decode_any_steps(const struct wcx_rans_decode_table *table,
								       struct wcx_rans_reader *reader, uint32_t lines,
								       uint32_t steps, uint32_t *words, int gather)
{
	if (steps == 4)
		return decode_steps(table, reader, lines, 4, words, gather);
	if (steps == 2)
		return decode_steps(table, reader, lines, 2, words, gather);
	return decode_steps(table, reader, lines, 1, words, gather);
}

/*
 * Eight lanes' words of a line from the entries of their two steps and from their raw bits, rotated to where they belong:
 * sign and three low bits of each weight.  The bits in between are the symbols' halves, inverted where the sign is set:
 * they are inverted here first, and then by a shuffle that gives zeros where its index has the highest bit.
 */
static inline __attribute__((always_inline)) __m256i finish_pairs(__m256i first, __m256i second, __m256i raw)
{
	__m256i symbols = _mm256_blend_epi16(_mm256_srli_epi32(first, 12), _mm256_slli_epi32(second, 4), 0xAA);
	__m256i even = _mm256_andnot_si256(_mm256_slli_epi32(symbols, 3), _mm256_set1_epi32(0x00780078));
	__m256i odd = _mm256_andnot_si256(_mm256_slli_epi32(symbols, 7), _mm256_set1_epi32(0x78007800));
	__m256i positive = _mm256_shuffle_epi8(_mm256_set1_epi8(0x78), raw);

	return _mm256_or_si256(_mm256_xor_si256(_mm256_or_si256(even, odd), positive),
			       _mm256_and_si256(raw, _mm256_set1_epi32((int)0x87878787)));
}

/* A line of pairs whose raw bits are rotated by so many bits. */
static inline __attribute__((always_inline)) void decode_pair_line(const uint32_t *entry, __m256i state[REGISTERS],
								   const uint8_t **word, const uint8_t *unit, int rotated,
								   uint8_t *dst, int gather)
{
	__m256i first[REGISTERS], second[REGISTERS];

	for (int r = 0; r < REGISTERS; r++)
		first[r] = step(entry, &state[r], word, gather);
	for (int r = 0; r < REGISTERS; r++)
		second[r] = step(entry, &state[r], word, gather);
	for (int r = 0; r < REGISTERS; r++) {
		__m256i raw = _mm256_loadu_si256((const __m256i *)unit + r);

		if (rotated)
			raw = _mm256_or_si256(_mm256_srli_epi32(raw, 4), _mm256_slli_epi32(raw, 28));
		_mm256_storeu_si256((__m256i *)dst + r, finish_pairs(first[r], second[r], raw));
	}
}

static inline __attribute__((always_inline)) uint32_t decode_pair_lines(const struct wcx_rans_decode_table *table,
									struct wcx_rans_reader *reader, uint32_t first_line,
									uint32_t lines, const struct wcx_pair_sink *sink,
									int gather)
{
	const uint8_t *word = reader->word, *unit = sink->nibbles + (size_t)first_line / 2 * WCX_PLANE_UNIT_BYTES;
	uint8_t *dst = sink->dst + (size_t)first_line * WCX_LANES * 4;
	uint32_t line = first_line, end = first_line + lines;
	__m256i state[REGISTERS];

	load_states(reader, state);
	/* As long as a line's words are there; what a turn of two lines needs is asked for at once. */
	while (line < end && reader->end - word >= 2 * 2 * 2 * WCX_LANES) {
		if (line % 2 == 0) {
			decode_pair_line(table->entry, state, &word, unit, 0, dst, gather);
			dst += WCX_LANES * 4;
			line++;
		}
		if (line == end)
			break;
		decode_pair_line(table->entry, state, &word, unit, 1, dst, gather);
		dst += WCX_LANES * 4;
		unit += WCX_PLANE_UNIT_BYTES;
		line++;
	}
	store_states(reader, state);
	reader->word = word;
	return line - first_line;
}

static uint32_t lines_one_by_one(const struct wcx_rans_decode_table *table, struct wcx_rans_reader *reader, uint32_t lines,
				 uint32_t steps, uint32_t *words)
{
	return decode_any_steps(table, reader, lines, steps, words, 0);
}

static uint32_t lines_gathered(const struct wcx_rans_decode_table *table, struct wcx_rans_reader *reader, uint32_t lines,
			       uint32_t steps, uint32_t *words)
{
	return decode_any_steps(table, reader, lines, steps, words, 1);
}

static uint32_t pairs_one_by_one(const struct wcx_rans_decode_table *table, struct wcx_rans_reader *reader,
				 uint32_t first_line, uint32_t lines, const struct wcx_pair_sink *sink)
{
	return decode_pair_lines(table, reader, first_line, lines, sink, 0);
}

static uint32_t pairs_gathered(const struct wcx_rans_decode_table *table, struct wcx_rans_reader *reader,
			       uint32_t first_line, uint32_t lines, const struct wcx_pair_sink *sink)
{
	return decode_pair_lines(table, reader, first_line, lines, sink, 1);
}

const struct wcx_cpu wcx_cpu_avx2 = {
	.name = "avx2",
	.decode_lines = lines_one_by_one,
	.decode_pairs = pairs_one_by_one,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.fold = fold,
};

const struct wcx_cpu wcx_cpu_avx2_gather = {
	.name = "avx2-gather",
	.decode_lines = lines_gathered,
	.decode_pairs = pairs_gathered,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.fold = fold,
};
