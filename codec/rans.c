/* SPDX-License-Identifier: MIT */
/* The portable rANS coder: the reference for every faster variant. */
#include "codec/rans.h"

#include <string.h>

#include "codec/le.h"

void wcx_rans_decode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_decode_table *ret)
{
	uint32_t slot = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		uint32_t freq = freqs->freq[s];

		for (uint32_t bias = 0; bias < freq; bias++)
			ret->entry[slot++] = bias << 20 | freq << 8 | s;
	}
}

/*
 * With q = x / f, the new state is (q << 12) + x % f + start = x + start + q * (4096 - f).  q is x * r >> 44 with r = 2^44 /
 * f rounded up: for all x < 2^20 f the product is below 2^64, and the error, at most x / 2^44, below 1 / f, as f is below
 * 2^12.
 */
void wcx_rans_encode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_encode_table *ret)
{
	uint32_t start = 0;

	memset(ret, 0, sizeof *ret);
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		uint32_t freq = freqs->freq[s];

		if (!freq)
			continue;
		ret->symbol[s].reciprocal = ((UINT64_C(1) << 44) + freq - 1) / freq;
		ret->symbol[s].limit = freq << 20;
		ret->symbol[s].start = (uint16_t)start;
		ret->symbol[s].complement = (uint16_t)(WCX_PROB_SCALE - freq);
		start += freq;
	}
}

/* How many lanes have a symbol in step k of a group, when left symbols are left at its start. */
static unsigned lanes_of_step(size_t left, unsigned k)
{
	if (left >= WCX_RANS_GROUP)
		return WCX_RANS_LANES;
	return left > k ? (unsigned)((left - k - 1) / WCX_RANS_LANE_SYMBOLS) + 1 : 0;
}

/* A step of one lane but for the word that it may want: the symbol is the low byte of the entry. */
static inline uint32_t decode_slot(const struct wcx_rans_decode_table *table, uint32_t x, uint32_t *entry_ret)
{
	uint32_t entry = table->entry[x & (WCX_PROB_SCALE - 1)];

	*entry_ret = entry;
	return (entry >> 8 & 0xFFF) * (x >> WCX_PROB_BITS) + (entry >> 20);
}

/*
 * A whole group, when there are words for every lane and step.  Who wants a word is a coin toss to the processor, so it is
 * done with masks: a branch here costs half of the speed.
 */
static const uint8_t *decode_group(const struct wcx_rans_decode_table *table, uint32_t state[WCX_RANS_LANES],
				   const uint8_t *word, uint8_t *dst)
{
	for (unsigned k = 0; k < WCX_RANS_LANE_SYMBOLS; k++) {
		for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++) {
			uint32_t entry, x = decode_slot(table, state[lane], &entry);
			uint32_t wanting = x < WCX_RANS_LOW;

			state[lane] = x << (wanting << 4) | (wcx_le16_read(word) & (0 - wanting));
			word += 2 * wanting;
			dst[WCX_RANS_LANE_SYMBOLS * lane + k] = (uint8_t)entry;
		}
	}
	return word;
}

/* A group that may be short of symbols or of words; NULL when a word is missing. */
static const uint8_t *decode_some(const struct wcx_rans_decode_table *table, uint32_t state[WCX_RANS_LANES],
				  const uint8_t *word, const uint8_t *end, uint8_t *dst, size_t left)
{
	for (unsigned k = 0; k < WCX_RANS_LANE_SYMBOLS; k++) {
		unsigned lanes = lanes_of_step(left, k);

		for (unsigned lane = 0; lane < lanes; lane++) {
			uint32_t entry, x = decode_slot(table, state[lane], &entry);

			if (x < WCX_RANS_LOW) {
				if (word == end)
					return NULL;
				x = x << 16 | wcx_le16_read(word);
				word += 2;
			}
			state[lane] = x;
			dst[WCX_RANS_LANE_SYMBOLS * lane + k] = (uint8_t)entry;
		}
	}
	return word;
}

/* Symbols first to end, all with one table; NULL when a word is missing. */
static const uint8_t *decode_run(const struct wcx_rans_decode_table *table, uint32_t state[WCX_RANS_LANES],
				 const uint8_t *word, const uint8_t *word_end, uint8_t *dst, size_t count)
{
	for (size_t group = 0; group < count && word; group += WCX_RANS_GROUP) {
		size_t left = count - group;

		if (left >= WCX_RANS_GROUP && word_end - word >= 2 * WCX_RANS_GROUP)
			word = decode_group(table, state, word, dst + group);
		else
			word = decode_some(table, state, word, word_end, dst + group, left);
	}
	return word;
}

/* Takes the low halves of the final states; false when the states are not what they must be. */
static int finish_states(const uint32_t state[WCX_RANS_LANES], uint8_t *carried)
{
	uint32_t off = 0;

	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++) {
		off |= carried ? state[lane] >> 16 ^ 1 : state[lane] ^ WCX_RANS_LOW;
		if (carried)
			wcx_le16_write(carried + 2 * lane, state[lane]);
	}
	return off == 0;
}

/* How many symbols the run that starts at symbol `first` has. */
static size_t run_length(const struct wcx_rans_choices *choices, size_t first, size_t symbol_count)
{
	size_t left = symbol_count - first;

	return choices->bits && choices->run < left ? choices->run : left;
}

enum wcx_result wcx_rans_decode(const struct wcx_rans_decode_table *const tables[], const struct wcx_rans_choices *choices,
				const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t symbol_count,
				uint8_t carried[WCX_RANS_CARRIED_BYTES])
{
	uint32_t state[WCX_RANS_LANES];
	const uint8_t *word = src + WCX_RANS_STATE_BYTES, *end = src + src_bytes;

	if (src_bytes < WCX_RANS_STATE_BYTES || src_bytes % 2)
		return WCX_BAD_DATA;
	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++)
		state[lane] = wcx_le32_read(src + 4 * lane);
	for (size_t first = 0, r = 0; first < symbol_count; r++) {
		size_t count = run_length(choices, first, symbol_count);

		word = decode_run(tables[wcx_rans_choice(choices, r)], state, word, end, dst + first, count);
		if (!word)
			return WCX_BAD_DATA;
		first += count;
	}
	return finish_states(state, carried) && word == end ? WCX_OK : WCX_BAD_DATA;
}

/*
 * The symbols of one step, backwards.  words[left] is the last word emitted: they fill from the end, as it is the first one
 * read.  There is always room for one more, since no symbol takes more than one.  Written so that a compiler makes no branch
 * of who emits a word; returns the new left.
 */
static inline size_t encode_step(const struct wcx_rans_encode_table *table, uint32_t state[WCX_RANS_LANES], uint16_t *words,
				 size_t left, const uint8_t *symbols, size_t lanes)
{
	/* Unrolled, it is a tenth faster. */
#pragma GCC unroll 4
	for (size_t lane = lanes; lane-- > 0;) {
		uint8_t s = symbols[WCX_RANS_LANE_SYMBOLS * lane];
		uint32_t x = state[lane], limit = table->symbol[s].limit, shifted = x >> 16, quotient;

		words[left - 1] = (uint16_t)x;
		left = left - 1 + (x < limit);
		x = x < limit ? x : shifted;
		quotient = (uint32_t)(x * table->symbol[s].reciprocal >> 44);
		state[lane] = x + table->symbol[s].start + quotient * table->symbol[s].complement;
	}
	return left;
}

size_t wcx_rans_encode(const struct wcx_rans_encode_table *const tables[], const struct wcx_rans_choices *choices,
		       const uint8_t *symbols, size_t symbol_count, const uint8_t *carried, uint16_t *words, uint8_t *dst,
		       size_t dst_bytes)
{
	uint32_t state[WCX_RANS_LANES];
	size_t left = symbol_count, groups = (symbol_count + WCX_RANS_GROUP - 1) / WCX_RANS_GROUP, bytes;

	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++)
		state[lane] = WCX_RANS_LOW | (carried ? wcx_le16_read(carried + 2 * lane) : 0);
	while (groups-- > 0) {
		size_t first = groups * WCX_RANS_GROUP;
		const struct wcx_rans_encode_table *table =
			tables[choices->bits ? wcx_rans_choice(choices, first / choices->run) : 0];

		for (unsigned k = WCX_RANS_LANE_SYMBOLS; k-- > 0;)
			left = encode_step(table, state, words, left, symbols + first + k,
					   lanes_of_step(symbol_count - first, k));
	}
	bytes = WCX_RANS_STATE_BYTES + 2 * (symbol_count - left);
	if (bytes > dst_bytes)
		return 0;
	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++, dst += 4)
		wcx_le32_write(dst, state[lane]);
	for (; left < symbol_count; left++, dst += 2)
		wcx_le16_write(dst, words[left]);
	return bytes;
}
