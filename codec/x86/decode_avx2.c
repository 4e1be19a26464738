/* SPDX-License-Identifier: MIT */
/*
 * The AVX2 variants: eight lanes per register, four registers of states.  Compiled with AVX2, BMI2 and POPCNT.
 *
 * Table entries are loaded one by one or with a gather; which is faster depends on the CPU.  Words reach the lanes that
 * renormalise by a byte shuffle, precomputed for each of the 256 sets of such lanes.
 */
#include <immintrin.h>
#include <stddef.h>

#include "codec/decode_variant.h"
#include "codec/difference.h"
#include "codec/line_template.h"

typedef __m256i vector;
enum { VECTOR_LANES = 8 };

struct two_bases {
	__m256i ordered, contexts;
};

/* The source of each byte of eight lanes: the next 16-bit word for each lane of the set; 0x80 yields a zero. */
#define WORD(set, lane)                                                                                                     \
	((set) >> (lane)&1 ? 2 * __builtin_popcount((set) & ((1 << (lane)) - 1)) : 0x80),                                   \
		((set) >> (lane)&1 ? 2 * __builtin_popcount((set) & ((1 << (lane)) - 1)) + 1 : 0x80), 0x80, 0x80
#define SET(set)                                                                                                            \
	{                                                                                                                   \
		WORD(set, 0), WORD(set, 1), WORD(set, 2), WORD(set, 3), WORD(set, 4), WORD(set, 5), WORD(set, 6),           \
			WORD(set, 7)                                                                                        \
	}
#define SETS4(set) SET(set), SET((set) + 1), SET((set) + 2), SET((set) + 3)
#define SETS16(set) SETS4(set), SETS4((set) + 4), SETS4((set) + 8), SETS4((set) + 12)
#define SETS64(set) SETS16(set), SETS16((set) + 16), SETS16((set) + 32), SETS16((set) + 48)

static const uint8_t word_shuffles[256][32]
	__attribute__((aligned(32))) = { SETS64(0), SETS64(64), SETS64(128), SETS64(192) };

/* Each of low and high holds two indices. */
INLINE __m128i fetch_four(const uint32_t *entry, uint64_t low, uint64_t high)
{
	__m128i e = _mm_cvtsi32_si128((int)entry[(uint32_t)low]);

	e = _mm_insert_epi32(e, (int)entry[low >> 32], 1);
	e = _mm_insert_epi32(e, (int)entry[(uint32_t)high], 2);
	return _mm_insert_epi32(e, (int)entry[high >> 32], 3);
}

INLINE __m128i fetch_four_coarse(const uint8_t *entries, const uint32_t offsets[4])
{
	__m128i e = _mm_cvtsi32_si128(*(const int *)(const void *)(entries + offsets[0]));

	e = _mm_insert_epi32(e, *(const int *)(const void *)(entries + offsets[1]), 1);
	e = _mm_insert_epi32(e, *(const int *)(const void *)(entries + offsets[2]), 2);
	return _mm_insert_epi32(e, *(const int *)(const void *)(entries + offsets[3]), 3);
}

/* Offsets go through memory: here so many registers are in use that the time until they are there is filled. */
INLINE __m256i fetch_coarse(const uint32_t *entry, __m256i offsets, bool gather)
{
	const uint8_t *entries = (const uint8_t *)entry;
	uint32_t at[8] __attribute__((aligned(32)));

	if (gather)
		return _mm256_i32gather_epi32((const int *)entry, offsets, 1);
	_mm256_store_si256((__m256i *)(void *)at, offsets);
	return _mm256_set_m128i(fetch_four_coarse(entries, at + 4), fetch_four_coarse(entries, at));
}

INLINE __m256i fetch(const uint32_t *entry, __m256i slots, bool gather)
{
	__m128i low, high;

	if (gather)
		return _mm256_i32gather_epi32((const int *)entry, slots, 4);
	low = fetch_four(entry, (uint64_t)_mm256_extract_epi64(slots, 0), (uint64_t)_mm256_extract_epi64(slots, 1));
	high = fetch_four(entry, (uint64_t)_mm256_extract_epi64(slots, 2), (uint64_t)_mm256_extract_epi64(slots, 3));
	return _mm256_set_m128i(high, low);
}

/* The next states of eight lanes, whose words start at *word; reads 16 bytes there. */
INLINE __m256i next_state(__m256i state, __m256i e, const uint8_t **word, bool is_coarse)
{
	__m256i x = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(e, 20), _mm256_srli_epi32(state, WCX_PROB_BITS)),
				     _mm256_and_si256(e, _mm256_set1_epi32(WCX_PROB_SCALE - 1)));

	if (is_coarse)
		x = _mm256_sub_epi32(state, x);

	__m256i renormalises = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
	unsigned set = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(renormalises));
	__m256i words = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)*word)),
					    _mm256_load_si256((const __m256i *)word_shuffles[set]));

	*word += 2 * (unsigned)__builtin_popcount(set);
	return _mm256_or_si256(_mm256_sllv_epi32(x, _mm256_and_si256(renormalises, _mm256_set1_epi32(16))), words);
}

INLINE __m256i find_slots(__m256i state)
{
	return _mm256_and_si256(state, _mm256_set1_epi32(WCX_PROB_SCALE - 1));
}

INLINE __m256i find_coarse_slots(__m256i state)
{
	return _mm256_and_si256(state, _mm256_set1_epi32((WCX_COARSE_SLOTS - 1) << WCX_COARSE_BITS));
}

INLINE __m256i load(const void *src)
{
	return _mm256_loadu_si256(src);
}

INLINE void store(void *dst, __m256i v)
{
	_mm256_storeu_si256(dst, v);
}

INLINE __m256i either(__m256i a, __m256i b)
{
	return _mm256_or_si256(a, b);
}

INLINE __m256i place_symbols(__m256i entries, uint32_t at)
{
	__m256i moved = at < 12 ? _mm256_srli_epi32(entries, 12 - (int)at) : _mm256_slli_epi32(entries, (int)at - 12);

	return _mm256_and_si256(moved, _mm256_set1_epi32((int)(0xFFu << at)));
}

INLINE __m256i place_contexts(__m256i contexts, uint32_t at)
{
	__m256i moved = at < WCX_PROB_BITS ? _mm256_slli_epi32(contexts, WCX_PROB_BITS - (int)at)
					   : _mm256_srli_epi32(contexts, (int)at - WCX_PROB_BITS);

	return _mm256_and_si256(moved, _mm256_set1_epi32((WCX_CONTEXTS_MAX - 1) << WCX_PROB_BITS));
}

INLINE __m256i rotate_right(__m256i v, int bits)
{
	return _mm256_or_si256(_mm256_srl_epi32(v, _mm_cvtsi32_si128(bits)),
			       _mm256_sll_epi32(v, _mm_cvtsi32_si128(32 - bits)));
}

/*
 * The words of eight lanes from the entries of their two steps and their raw bits: the sign and the three low bits of each
 * weight.  The four bits between are halves of symbols, inverted where the sign is set.  They are inverted here first, then
 * again where the weight is positive: a shuffle yields zero where the highest bit of its index is set.
 */
INLINE __m256i finish_pairs(__m256i first, __m256i second, __m256i raw)
{
	__m256i symbols = _mm256_blend_epi16(_mm256_srli_epi32(first, 12), _mm256_slli_epi32(second, 4), 0xAA);
	__m256i even = _mm256_andnot_si256(_mm256_slli_epi32(symbols, 3), _mm256_set1_epi32(0x00780078));
	__m256i odd = _mm256_andnot_si256(_mm256_slli_epi32(symbols, 7), _mm256_set1_epi32(0x78007800));
	__m256i positive = _mm256_shuffle_epi8(_mm256_set1_epi8(0x78), raw);

	return _mm256_or_si256(_mm256_xor_si256(_mm256_or_si256(even, odd), positive),
			       _mm256_and_si256(raw, _mm256_set1_epi32((int)0x87878787)));
}

/* The exponents of two-byte elements from a pair; the sign and seven bits of the mantissa are raw. */
INLINE __m256i finish_half_pairs(__m256i entries, __m256i raw, uint32_t base)
{
	__m256i first = _mm256_and_si256(_mm256_srli_epi32(entries, 5), _mm256_set1_epi32(0x00000780));
	__m256i second = _mm256_and_si256(_mm256_slli_epi32(entries, 7), _mm256_set1_epi32(0x07800000));
	__m256i exponents = _mm256_add_epi32(_mm256_or_si256(first, second), _mm256_set1_epi32((int)base));

	return _mm256_or_si256(exponents, _mm256_and_si256(raw, _mm256_set1_epi32((int)0x807F807F)));
}

struct map_vectors {
	__m256i order, first, table;
	const struct wcx_context_map *map;
	bool has_table;
};

INLINE struct map_vectors load_map(const struct wcx_context_map *map)
{
	return (struct map_vectors){
		.order = _mm256_set1_epi16((short)map->order),
		.first = _mm256_set1_epi16((short)map->first),
		.table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)map->table)),
		.map = map,
		.has_table = map->has_table,
	};
}

/* The upper bytes of what the shuffle yields, and all but the lowest bits of the lower bytes, are shifted out. */
INLINE __m256i find_two_contexts(const struct map_vectors *map, __m256i keys)
{
	__m256i contexts = _mm256_setzero_si256();

	if (map->has_table) {
		contexts = _mm256_shuffle_epi8(map->table, _mm256_min_epu16(_mm256_subs_epu16(keys, map->first),
									    _mm256_set1_epi16(WCX_CONTEXT_TABLE_KEYS - 1)));
	} else {
		for (int t = 0; t < WCX_CONTEXTS_MAX - 1; t++)
			contexts =
				_mm256_sub_epi16(contexts, _mm256_cmpgt_epi16(keys, _mm256_set1_epi16(map->map->below[t])));
	}
	return _mm256_slli_epi16(contexts, WCX_PROB_BITS);
}

INLINE struct two_bases read_two_bases(const struct map_vectors *map, __m256i base)
{
	const __m256i signs = _mm256_srai_epi16(base, 15);
	const __m256i ordered = _mm256_xor_si256(base, _mm256_and_si256(signs, map->order));

	return (struct two_bases){ ordered, find_two_contexts(map, _mm256_srli_epi16(_mm256_xor_si256(ordered, signs), 7)) };
}

INLINE __m256i take_context(__m256i contexts, uint32_t shift)
{
	return shift ? _mm256_srli_epi32(contexts, 16)
		     : _mm256_and_si256(contexts, _mm256_set1_epi32((WCX_CONTEXTS_MAX - 1) << WCX_PROB_BITS));
}

/* Differences are moved to the upper bytes, from where a shift extends their signs. */
INLINE __m256i join_differences(__m256i first, __m256i second)
{
	return _mm256_srai_epi16(_mm256_blend_epi16(_mm256_srli_epi32(first, 4), _mm256_slli_epi32(second, 12), 0xAA), 8);
}

INLINE __m256i add_differences(const struct map_vectors *map, __m256i ordered, __m256i differences)
{
	const __m256i sum = _mm256_add_epi16(ordered, differences);

	return _mm256_xor_si256(sum, _mm256_and_si256(_mm256_srai_epi16(sum, 15), map->order));
}

enum { ESCAPE_REGISTERS = 2 };

INLINE uint64_t find_escapes(const __m256i *differences)
{
	const __m256i escape = _mm256_set1_epi16(WCX_ESCAPE_DIFFERENCE);
	const __m256i found =
		_mm256_packs_epi16(_mm256_cmpeq_epi16(differences[0], escape), _mm256_cmpeq_epi16(differences[1], escape));

	return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(found, 0xD8));
}

#include "codec/vector_template.h"

static uint32_t lines_one_by_one(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_steps(parts, count, line, end, false);
}

static uint32_t lines_gathered(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_steps(parts, count, line, end, true);
}

static uint32_t contexts_one_by_one(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				    uint32_t end, const uint32_t *contexts, uint32_t *words)
{
	return decode_any_steps_by_context(stream, reader, line, end, contexts, words, false);
}

static uint32_t contexts_gathered(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				  uint32_t end, const uint32_t *contexts, uint32_t *words)
{
	return decode_any_steps_by_context(stream, reader, line, end, contexts, words, true);
}

static uint32_t pairs_one_by_one(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_pairs(parts, count, line, end, false);
}

static uint32_t pairs_gathered(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_pairs(parts, count, line, end, true);
}

static uint32_t differences_one_by_one(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_differences(parts, count, line, end, false);
}

static uint32_t differences_gathered(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	return decode_any_differences(parts, count, line, end, true);
}

const struct wcx_decode_variant wcx_decode_variant_avx2 = {
	.name = "avx2",
	.parts_max = PARTS_MAX,
	.parts_max_with_choices = 1,
	.decode_lines = lines_one_by_one,
	.decode_by_context = contexts_one_by_one,
	.decode_pairs = pairs_one_by_one,
	.decode_differences = differences_one_by_one,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.make_lines = make_lines,
	.fold = fold,
	.find_contexts = find_contexts,
	.list_escapes = list_escapes,
	.undo_difference = undo_difference,
};

const struct wcx_decode_variant wcx_decode_variant_avx2_gather = {
	.name = "avx2-gather",
	.parts_max = PARTS_MAX,
	.parts_max_with_choices = PARTS_MAX,
	.decode_lines = lines_gathered,
	.decode_by_context = contexts_gathered,
	.decode_pairs = pairs_gathered,
	.decode_differences = differences_gathered,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.make_lines = make_lines,
	.fold = fold,
	.find_contexts = find_contexts,
	.list_escapes = list_escapes,
	.undo_difference = undo_difference,
};
