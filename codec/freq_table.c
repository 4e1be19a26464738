/* SPDX-License-Identifier: MIT */
/* Builds, prices, writes and reads frequency tables. */
#include "codec/freq_table.h"

#include <math.h>
#include <string.h>

enum {
	ONE_BYTE_LIMIT = 128, /* frequencies below take one byte */
	TWO_BYTE_TAG = 0x80,
	TWO_BYTE_HIGH_MAX = 0x0F, /* what the tag leaves for the bits above the low byte */

	/* Below a probability of 2^-16 a pair is cheaper as an exception: its slot of 4096 is worth more to others. */
	PAIR_MIN_SHARE = 256,
	/*
	 * A slot of 1024 costs all other symbols together 1.4 bits for each 1024 of them; an escape costs about 12 bits more
	 * than a symbol with one slot.  So a symbol rarer than an eighth of a slot is cheaper as an escape.
	 */
	ESCAPE_RARITY = 8,

	PAIR_SCALE_BITS = 18,
	PAIR_SCALE_SHIFT = 28, /* shares have 24 bits: at scale 2^16, frequencies add up to 4096 before rounding */
};

static uint64_t sum_counts(const uint64_t count[WCX_SYMBOL_COUNT])
{
	uint64_t sum = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		sum += count[s];
	return sum;
}

/* The bits that one slot more saves over all occurrences of a symbol. */
static double slot_worth(uint64_t count, unsigned freq)
{
	return (double)count * log2(1.0 + 1.0 / freq);
}

/* Rounds every share to the nearest integer, but at least 1; returns the sum. */
static unsigned round_shares(const uint64_t count[WCX_SYMBOL_COUNT], unsigned slots, struct wcx_freq_table *table)
{
	double scale = slots / (double)sum_counts(count);
	unsigned sum = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
		unsigned freq = (unsigned)((double)count[s] * scale + 0.5);

		if (freq == 0 && count[s])
			freq = 1;
		if (freq > slots - 1)
			freq = slots - 1;
		table->freq[s] = (uint16_t)freq;
		sum += freq;
	}
	return sum;
}

/* The symbols that may get or lose slots, and what a slot is worth to each. */
struct candidates {
	unsigned count;
	uint8_t symbols[WCX_SYMBOL_COUNT];
	double worth[WCX_SYMBOL_COUNT];
};

static void add_candidate(struct candidates *candidates, int symbol, double worth)
{
	candidates->symbols[candidates->count] = (uint8_t)symbol;
	candidates->worth[candidates->count++] = worth;
}

/* Takes away excess slots, each from the symbol that loses least. */
static void take_slots(const uint64_t count[WCX_SYMBOL_COUNT], struct wcx_freq_table *table, unsigned excess)
{
	struct candidates of = { .count = 0 };

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		if (table->freq[s] > 1)
			add_candidate(&of, s, slot_worth(count[s], table->freq[s] - 1u));
	for (; excess; excess--) {
		unsigned least = 0;
		uint16_t *freq;

		for (unsigned i = 1; i < of.count; i++)
			if (of.worth[i] < of.worth[least])
				least = i;
		freq = &table->freq[of.symbols[least]];
		--*freq;
		of.worth[least] = *freq > 1 ? slot_worth(count[of.symbols[least]], *freq - 1u) : INFINITY;
	}
}

/* Hands out missing slots, each to the symbol that gains most. */
static void give_slots(const uint64_t count[WCX_SYMBOL_COUNT], unsigned slots, struct wcx_freq_table *table,
		       unsigned missing)
{
	struct candidates of = { .count = 0 };

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		if (count[s] && table->freq[s] < slots - 1)
			add_candidate(&of, s, slot_worth(count[s], table->freq[s]));
	for (; missing; missing--) {
		unsigned most = 0;
		uint16_t *freq;

		for (unsigned i = 1; i < of.count; i++)
			if (of.worth[i] > of.worth[most])
				most = i;
		freq = &table->freq[of.symbols[most]];
		++*freq;
		of.worth[most] = *freq < slots - 1 ? slot_worth(count[of.symbols[most]], *freq) : -1;
	}
}

/* Shares out `slots` among the symbols. */
static void share_slots(const uint64_t count[WCX_SYMBOL_COUNT], unsigned slots, struct wcx_freq_table *ret)
{
	unsigned sum = round_shares(count, slots, ret);

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		if (ret->freq[s] == slots - 1 && sum == slots - 1) {
			/* A lone symbol: the last slot goes to a neighbour that never occurs. */
			ret->freq[s ^ 1] = 1;
			return;
		}
	if (sum > slots)
		take_slots(count, ret, sum - slots);
	else
		give_slots(count, slots, ret, slots - sum);
}

void wcx_freq_table_build(const uint64_t count[WCX_SYMBOL_COUNT], struct wcx_freq_table *ret)
{
	share_slots(count, WCX_PROB_SCALE, ret);
}

void wcx_freq_table_build_escapes(const uint64_t count[WCX_SYMBOL_COUNT], struct wcx_freq_table *ret)
{
	const uint64_t sum = sum_counts(count);
	uint64_t kept[WCX_SYMBOL_COUNT];

	memcpy(kept, count, sizeof kept);
	for (int s = 0; s < WCX_ESCAPE; s++)
		if ((double)count[s] * WCX_COARSE_SLOTS * ESCAPE_RARITY < (double)sum) {
			kept[WCX_ESCAPE] += kept[s];
			kept[s] = 0;
		}
	kept[WCX_ESCAPE] = kept[WCX_ESCAPE] ? kept[WCX_ESCAPE] : 1;
	share_slots(kept, WCX_COARSE_SLOTS, ret);
	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		ret->freq[s] = (uint16_t)(ret->freq[s] << WCX_COARSE_BITS);
}

/* Scales the shares of pairs to frequencies, at least 1 for pairs that are not too rare; returns the sum. */
static uint32_t scale_pairs(const uint32_t share[WCX_SYMBOL_COUNT], uint32_t scale, struct wcx_freq_table *ret)
{
	uint32_t sum = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
		uint32_t freq = (uint32_t)((uint64_t)share[s] * scale >> PAIR_SCALE_SHIFT);

		if (share[s] >= PAIR_MIN_SHARE && freq == 0)
			freq = 1;
		ret->freq[s] = share[s] < PAIR_MIN_SHARE ? 0 : (uint16_t)freq;
		sum += ret->freq[s];
	}
	return sum;
}

/*
 * Finds bit by bit the largest scale with a sum of at most 4096, which works because the sum grows with the scale.  The few
 * slots left go to the most frequent pair.
 */
void wcx_freq_table_pair(const struct wcx_freq_table *single, struct wcx_freq_table *ret)
{
	uint32_t share[WCX_SYMBOL_COUNT], scale = 0, sum;
	int most = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
		share[s] = (uint32_t)single->freq[s % WCX_PAIR_SYMBOLS] * single->freq[s / WCX_PAIR_SYMBOLS];
		if (share[s] > share[most])
			most = s;
	}
	for (uint32_t bit = 1u << (PAIR_SCALE_BITS - 1); bit; bit >>= 1)
		if (scale_pairs(share, scale + bit, ret) <= WCX_PROB_SCALE)
			scale += bit;
	sum = scale_pairs(share, scale, ret);
	ret->freq[most] = (uint16_t)(ret->freq[most] + WCX_PROB_SCALE - sum);
}

double wcx_freq_table_cost(const struct wcx_freq_table *table, const uint64_t count[WCX_SYMBOL_COUNT])
{
	double bits = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
		if (!count[s])
			continue;
		if (!table->freq[s])
			return INFINITY;
		bits += (double)count[s] * (WCX_PROB_BITS - log2(table->freq[s]));
	}
	return bits;
}

double wcx_counts_entropy(const uint64_t count[WCX_SYMBOL_COUNT])
{
	double sum = (double)sum_counts(count), bits = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		if (count[s])
			bits += (double)count[s] * log2(sum / (double)count[s]);
	return bits;
}

struct wcx_freq_table_facts wcx_freq_table_facts(const struct wcx_freq_table *table)
{
	unsigned bits = 0, last = 0;

	for (unsigned s = 0; s < WCX_SYMBOL_COUNT; s++) {
		bits |= table->freq[s];
		last = table->freq[s] ? s : last;
	}
	return (struct wcx_freq_table_facts){ (uint8_t)last, bits % (1 << WCX_COARSE_BITS) == 0 };
}

size_t wcx_freq_table_write(const struct wcx_freq_table *table, uint8_t dst[WCX_FREQ_TABLE_MAX_BYTES])
{
	size_t n = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT;) {
		unsigned freq = table->freq[s];
		int first = s;

		if (freq >= ONE_BYTE_LIMIT) {
			dst[n++] = (uint8_t)(TWO_BYTE_TAG | freq >> 8);
			dst[n++] = (uint8_t)freq;
			s++;
		} else if (freq) {
			dst[n++] = (uint8_t)freq;
			s++;
		} else {
			while (s < WCX_SYMBOL_COUNT && !table->freq[s])
				s++;
			dst[n++] = 0;
			dst[n++] = (uint8_t)(s - first - 1);
		}
	}
	return n;
}

enum wcx_result wcx_freq_table_parse(const uint8_t *src, size_t src_bytes, struct wcx_freq_table *ret, size_t *used_ret)
{
	struct wcx_freq_table table = { { 0 } };
	unsigned sum = 0, symbol = 0;
	bool after_gap = false; /* the previous symbols had no frequency */
	size_t n = 0;

	while (symbol < WCX_SYMBOL_COUNT) {
		if (n == src_bytes)
			return WCX_BAD_DATA;
		unsigned byte = src[n++], freq = byte;

		if (byte == 0 || byte >= TWO_BYTE_TAG) {
			if (n == src_bytes)
				return WCX_BAD_DATA;
			unsigned next = src[n++];

			if (byte == 0) {
				if (after_gap || symbol + next + 1 > WCX_SYMBOL_COUNT)
					return WCX_BAD_DATA;
				symbol += next + 1;
				after_gap = true;
				continue;
			}
			if (byte - TWO_BYTE_TAG > TWO_BYTE_HIGH_MAX)
				return WCX_BAD_DATA;
			freq = (byte - TWO_BYTE_TAG) << 8 | next;
			if (freq < ONE_BYTE_LIMIT)
				return WCX_BAD_DATA;
		}
		table.freq[symbol++] = (uint16_t)freq;
		sum += freq;
		after_gap = false;
	}
	if (sum != WCX_PROB_SCALE)
		return WCX_BAD_DATA;
	if (ret)
		*ret = table;
	*used_ret = n;
	return WCX_OK;
}
