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
 * With q = x / f, the new state is (q << 12) + x % f + start = x + start + q * (4096 - f).  q is the high half of x times
 * the rounded-up reciprocal: its error, below f / 2^64 for each unit of x, stays below 1 / f for all x < 2^20 f.  For f = 1
 * the reciprocal does not fit; with 2^64 - 1 instead, q comes out one too small, and bias makes up for it.
 */
void wcx_rans_encode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_encode_table *ret)
{
	uint32_t start = 0;

	memset(ret, 0, sizeof *ret);
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		uint32_t freq = freqs->freq[s];

		if (!freq)
			continue;
		ret->symbol[s].limit = freq << 20;
		ret->symbol[s].complement = WCX_PROB_SCALE - freq;
		ret->symbol[s].reciprocal = UINT64_MAX / freq + (freq > 1);
		ret->symbol[s].bias = freq > 1 ? start : start + WCX_PROB_SCALE - 1;
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

enum wcx_result wcx_rans_decode(const struct wcx_rans_decode_table *table, const uint8_t *src, size_t src_bytes,
				uint8_t *dst, size_t symbol_count)
{
	uint32_t state[WCX_RANS_LANES], off = 0;
	const uint8_t *word = src + WCX_RANS_STATE_BYTES, *end = src + src_bytes;

	if (src_bytes < WCX_RANS_STATE_BYTES || src_bytes % 2)
		return WCX_BAD_DATA;
	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++)
		state[lane] = wcx_le32_read(src + 4 * lane);
	for (size_t group = 0; group < symbol_count; group += WCX_RANS_GROUP) {
		size_t left = symbol_count - group;

		if (left >= WCX_RANS_GROUP && end - word >= 2 * WCX_RANS_GROUP)
			word = decode_group(table, state, word, dst + group);
		else
			word = decode_some(table, state, word, end, dst + group, left);
		if (!word)
			return WCX_BAD_DATA;
	}
	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++)
		off |= state[lane] ^ WCX_RANS_LOW;
	return off || word != end ? WCX_BAD_DATA : WCX_OK;
}

size_t wcx_rans_encode(const struct wcx_rans_encode_table *table, const uint8_t *symbols, size_t symbol_count,
		       uint16_t *words, uint8_t *dst, size_t dst_bytes)
{
	uint32_t state[WCX_RANS_LANES], without_frequency = 0;
	size_t word = symbol_count; /* words fill from the end, as the last one emitted is the first one read */

	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++)
		state[lane] = WCX_RANS_LOW;
	for (size_t after = (symbol_count + WCX_RANS_GROUP - 1) / WCX_RANS_GROUP; after > 0; after--) {
		size_t group = (after - 1) * WCX_RANS_GROUP;

		for (unsigned k = WCX_RANS_LANE_SYMBOLS; k-- > 0;) {
			for (unsigned lane = lanes_of_step(symbol_count - group, k); lane-- > 0;) {
				uint8_t s = symbols[group + WCX_RANS_LANE_SYMBOLS * lane + k];
				uint32_t x = state[lane], limit = table->symbol[s].limit, full = x >= limit;

				without_frequency |= limit == 0;
				/* word is at least 1 here: no symbol takes more than one word. */
				words[word - 1] = (uint16_t)x;
				word -= full;
				x >>= 16 * full;
				uint32_t quotient = (uint32_t)((unsigned __int128)x * table->symbol[s].reciprocal >> 64);

				state[lane] = x + table->symbol[s].bias + quotient * table->symbol[s].complement;
			}
		}
	}
	size_t bytes = WCX_RANS_STATE_BYTES + 2 * (symbol_count - word);

	if (without_frequency || bytes > dst_bytes)
		return 0;
	for (unsigned lane = 0; lane < WCX_RANS_LANES; lane++, dst += 4)
		wcx_le32_write(dst, state[lane]);
	for (; word < symbol_count; word++, dst += 2)
		wcx_le16_write(dst, words[word]);
	return bytes;
}
