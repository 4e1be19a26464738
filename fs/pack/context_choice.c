/* SPDX-License-Identifier: MIT */
/* Chooses classes of keys by dynamic programming over the ranges of bins. */
#include "fs/pack/context_choice.h"

#include <math.h>
#include <string.h>

#include "codec/arith.h"

enum { LANES = 8 }; /* sums side by side, which compilers turn into vectors */

void wcx_key_bins_make(const uint32_t key_counts[WCX_CONTEXT_KEYS], uint32_t max_count, struct wcx_key_bins *ret)
{
	uint64_t counts[WCX_CONTEXT_KEYS];
	uint8_t first[WCX_CONTEXT_KEYS];
	uint32_t count = 0;

	for (uint32_t k = 0; k < WCX_CONTEXT_KEYS; k++)
		if (key_counts[k]) {
			first[count] = (uint8_t)k;
			counts[count++] = key_counts[k];
		}
	for (; count > max_count; count--) {
		uint32_t rarest = 1; /* the second of the two that are rarest together */

		for (uint32_t i = 2; i < count; i++)
			if (counts[i - 1] + counts[i] < counts[rarest - 1] + counts[rarest])
				rarest = i;
		counts[rarest - 1] += counts[rarest];
		memmove(counts + rarest, counts + rarest + 1, (count - rarest - 1) * sizeof *counts);
		memmove(first + rarest, first + rarest + 1, (count - rarest - 1) * sizeof *first);
	}
	first[0] = 0;
	ret->count = WCX_MAX(count, 1);
	memcpy(ret->first, first, ret->count);
	for (uint32_t k = 0, bin = 0; k < WCX_CONTEXT_KEYS; k++) {
		bin += bin + 1 < ret->count && k == first[bin + 1];
		ret->of_key[k] = (uint8_t)bin;
	}
}

/* n * log2(n), 0 for 0: the logarithm of the mantissa is a polynomial with an error below 0.00002. */
static inline float n_log2_n(uint32_t n)
{
	union {
		float value;
		uint32_t bits;
	} number = { .value = (float)n };
	const float exponent = (float)((int32_t)(number.bits >> 23) - 127);
	float m, log2_m;

	number.bits = (number.bits & 0x7FFFFF) | 0x3F800000;
	m = number.value - 1;
	log2_m = m * (1.44183587F + m * (-0.70837215F + m * (0.41355505F + m * (-0.19126251F + m * 0.04424374F))));
	return (float)n * (exponent + log2_m);
}

/* wcx_symbols_bits of symbols below `end`, a multiple of LANES; the others do not occur. */
static double weigh_symbols(const uint32_t counts[WCX_SYMBOL_COUNT], uint32_t end, uint32_t *used_ret)
{
	float logs[LANES] = { 0 };
	uint32_t used[LANES] = { 0 }, sums[LANES] = { 0 }, sum = 0;
	double bits = 0;

	for (uint32_t s = 0; s < end; s += LANES)
		for (uint32_t lane = 0; lane < LANES; lane++) {
			const uint32_t n = counts[s + lane];

			logs[lane] += n_log2_n(n);
			sums[lane] += n;
			used[lane] += n > 0;
		}
	*used_ret = 0;
	for (uint32_t lane = 0; lane < LANES; lane++) {
		bits -= (double)logs[lane];
		sum += sums[lane];
		*used_ret += used[lane];
	}
	bits += sum ? (double)sum * log2(sum) : 0;
	return bits > 0 ? bits : 0;
}

double wcx_symbols_bits(const uint32_t counts[WCX_SYMBOL_COUNT], uint32_t *used_ret)
{
	return weigh_symbols(counts, WCX_SYMBOL_COUNT, used_ret);
}

/* The end of the symbols that occur in any bin, as a multiple of LANES. */
static uint32_t symbols_end(const struct wcx_bin_counts *counts, uint32_t bin_count)
{
	uint32_t end = WCX_SYMBOL_COUNT;

	for (uint32_t any = 0; end; end -= LANES) {
		for (uint32_t bin = 0; bin < bin_count; bin++)
			for (uint32_t lane = 1; lane <= LANES; lane++)
				any |= counts->counts[bin][end - lane];
		if (any)
			return end;
	}
	return end;
}

/* costs[i][j] of the class of bins i to j. */
static void weigh_classes(const struct wcx_bin_counts *fields, uint32_t field_count, uint32_t bin_count, double symbol_bits,
			  double costs[WCX_BINS_MAX][WCX_BINS_MAX])
{
	memset(costs, 0, WCX_BINS_MAX * sizeof *costs);
	for (uint32_t f = 0; f < field_count; f++) {
		const uint32_t end = symbols_end(&fields[f], bin_count);

		for (uint32_t i = 0; i < bin_count; i++) {
			uint32_t sums[WCX_SYMBOL_COUNT] = { 0 };

			for (uint32_t j = i; j < bin_count; j++) {
				uint32_t used;

				for (uint32_t s = 0; s < end; s++)
					sums[s] += fields[f].counts[j][s];
				costs[i][j] += weigh_symbols(sums, end, &used);
				costs[i][j] += symbol_bits * used;
			}
		}
	}
}

/* Takes thresholds that are consecutive keys, as many as there are, where that costs at most max_loss of the bits. */
static void prefer_consecutive(const struct wcx_key_bins *bins, double costs[WCX_BINS_MAX][WCX_BINS_MAX], double max_loss,
			       struct wcx_context_choice *choice)
{
	const uint32_t thresholds = choice->count - 1, last = bins->count - 1;
	double least = choice->bits * (1 + max_loss);
	uint32_t best = 0;

	for (uint32_t i = 1; i + thresholds <= bins->count && thresholds; i++) {
		double bits = costs[0][i - 1] + costs[i + thresholds - 1][last];

		if (bins->first[i + thresholds - 1] != bins->first[i] + thresholds - 1)
			continue;
		for (uint32_t t = 0; t + 1 < thresholds; t++)
			bits += costs[i + t][i + t];
		if (bits <= least) {
			least = bits;
			best = i;
		}
	}
	for (uint32_t c = 1; c < WCX_CONTEXTS_MAX && c <= thresholds && best; c++)
		choice->first[c] = (uint8_t)(best + c - 1);
	if (best)
		choice->bits = least;
}

void wcx_contexts_choose(const struct wcx_bin_counts *fields, uint32_t field_count, const struct wcx_key_bins *bins,
			 double symbol_bits, uint32_t max_count, double max_loss, struct wcx_context_choice *ret)
{
	const uint32_t bin_count = bins->count, last = bin_count - 1;
	double costs[WCX_BINS_MAX][WCX_BINS_MAX];
	double least[WCX_CONTEXTS_MAX][WCX_BINS_MAX];  /* of the bins up to that one, in so many classes and one more */
	uint8_t first[WCX_CONTEXTS_MAX][WCX_BINS_MAX]; /* of the last of these classes */

	weigh_classes(fields, field_count, bin_count, symbol_bits, costs);
	*ret = (struct wcx_context_choice){ .bits = INFINITY };
	for (uint32_t k = 0; k < WCX_MIN(max_count, bin_count); k++) {
		for (uint32_t j = k; j < bin_count; j++) {
			least[k][j] = k ? INFINITY : costs[0][j];
			first[k][j] = 0;
			for (uint32_t i = k; i <= j && k; i++) {
				const double bits = least[k - 1][i - 1] + costs[i][j];

				if (bits < least[k][j]) {
					least[k][j] = bits;
					first[k][j] = (uint8_t)i;
				}
			}
		}
		if (least[k][last] < ret->bits) {
			ret->bits = least[k][last];
			ret->count = k + 1;
		}
	}
	for (uint32_t k = ret->count, j = last; k--; j = first[k][j] - 1u)
		ret->first[k] = first[k][j];
	if (max_loss > 0)
		prefer_consecutive(bins, costs, max_loss, ret);
}
