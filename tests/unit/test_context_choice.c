/* SPDX-License-Identifier: MIT */
/* Contexts against all ways to divide the bins, and entropies against logarithms. */
#include "fs/pack/context_choice.h"

#include <math.h>

#include "tests/fixtures/sample_data.h"
#include "tests/unit/check.h"

enum { BINS = 7 };

static double entropy_of(const uint32_t counts[WCX_SYMBOL_COUNT], uint32_t *used)
{
	double sum = 0, bits = 0;

	*used = 0;
	for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
		sum += counts[s];
		*used += counts[s] > 0;
	}
	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		bits += counts[s] ? counts[s] * log2(sum / counts[s]) : 0;
	return bits;
}

static void entropies_are_those_of_logarithms(void)
{
	struct sample_random random = { 7 };

	for (int i = 0; i < 200; i++) {
		const uint64_t limit = UINT64_C(1) << (1 + i % 20);
		uint32_t counts[WCX_SYMBOL_COUNT] = { 0 }, used, expected_used;
		double bits, expected;

		for (int s = 0; s < 1 + i; s++)
			counts[s] = (uint32_t)sample_below(&random, limit);
		bits = wcx_symbols_bits(counts, &used);
		expected = entropy_of(counts, &expected_used);
		CHECK(used == expected_used);
		CHECK(fabs(bits - expected) <= 1 + 0.001 * expected);
	}
}

/* Symbols that are the wider the higher the bin, as residuals are; the same from bin to bin in places. */
static void draw_counts(struct wcx_bin_counts *counts, uint64_t seed)
{
	struct sample_random random = { seed };

	memset(counts, 0, sizeof *counts);
	for (uint32_t bin = 0; bin < BINS; bin++) {
		const double width = exp(0.5 * (double)sample_below(&random, 10)) - 0.9;
		const uint64_t draws = sample_below(&random, 3000);

		for (uint64_t i = 0; i < draws; i++)
			counts->counts[bin][(uint32_t)fmin(255, fabs(width * sample_normal(&random)))]++;
	}
}

/* The bits of the contexts that begin at the bins of a mask, of which the lowest is one. */
static double division_bits(const struct wcx_bin_counts *fields, uint32_t field_count, uint32_t mask, double symbol_bits)
{
	double bits = 0;

	for (uint32_t f = 0; f < field_count; f++)
		for (uint32_t bin = 0, end; bin < BINS; bin = end) {
			uint32_t sums[WCX_SYMBOL_COUNT] = { 0 }, used;

			end = bin;
			do
				for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
					sums[s] += fields[f].counts[end][s];
			while (++end < BINS && !(mask >> end & 1));
			bits += entropy_of(sums, &used);
			bits += symbol_bits * used;
		}
	return bits;
}

static void no_other_division_takes_fewer_bits(void)
{
	static struct wcx_bin_counts fields[2];
	uint32_t counts_seen = 0;

	for (uint64_t seed = 0; seed < 60; seed++) {
		const uint32_t field_count = 1 + seed % 2, most = 1 + (uint32_t)seed % 5;
		const double symbol_bits = (double)(seed % 7) * 3;
		const struct wcx_key_bins bins = { .count = BINS };
		struct wcx_context_choice choice;
		double least = INFINITY;
		uint32_t mask = 0;

		draw_counts(&fields[0], seed);
		draw_counts(&fields[1], seed + 1000);
		wcx_contexts_choose(fields, field_count, &bins, symbol_bits, most, 0, &choice);
		for (uint32_t other = 1; other < 1u << BINS; other += 2)
			if ((uint32_t)__builtin_popcount(other) <= most)
				least = fmin(least, division_bits(fields, field_count, other, symbol_bits));
		CHECK(choice.count >= 1 && choice.count <= most && choice.first[0] == 0);
		for (uint32_t c = 0; c < choice.count; c++) {
			CHECK(c == 0 || choice.first[c] > choice.first[c - 1]);
			mask |= 1u << choice.first[c];
		}
		CHECK(division_bits(fields, field_count, mask, symbol_bits) <= 1.001 * least + 1);
		CHECK(fabs(choice.bits - least) <= 0.001 * least + 1);
		counts_seen |= 1u << choice.count;
	}
	CHECK(counts_seen == 0x3E); /* 1 to 5 */
}

/* With keys 0, 10, 11, 12, …: any but the first two may follow each other. */
static void consecutive_thresholds_are_taken_where_they_cost_little(void)
{
	static struct wcx_bin_counts fields[1];
	struct wcx_key_bins bins = { .count = BINS };
	uint32_t moved = 0, kept = 0;

	for (uint8_t b = 1; b < BINS; b++)
		bins.first[b] = 9 + b;
	for (uint64_t seed = 0; seed < 60; seed++) {
		const uint32_t most = 2 + (uint32_t)seed % 4;
		struct wcx_context_choice best, choice;
		bool is_consecutive = true;

		draw_counts(&fields[0], seed);
		wcx_contexts_choose(fields, 1, &bins, 3, most, 0, &best);
		wcx_contexts_choose(fields, 1, &bins, 3, most, seed % 2 ? 0.02 : 10, &choice);
		CHECK(choice.count == best.count && choice.bits <= best.bits * (seed % 2 ? 1.021 : 11));
		for (uint32_t c = 2; c < choice.count; c++)
			is_consecutive &= choice.first[c] == choice.first[c - 1] + 1;
		CHECK(is_consecutive || seed % 2);
		CHECK(is_consecutive || memcmp(choice.first, best.first, choice.count) == 0);
		moved += memcmp(choice.first, best.first, choice.count) != 0;
		kept += !is_consecutive;
	}
	CHECK(moved && kept);
}

static void bins_are_ranges_of_about_as_many_elements(void)
{
	struct sample_random random = { 3 };

	for (int i = 0; i < 100; i++) {
		uint32_t counts[WCX_CONTEXT_KEYS] = { 0 }, used = 0, most = 1 + (uint32_t)i % WCX_BINS_MAX;
		struct wcx_key_bins bins;

		for (int k = i; k < 256; k += 1 + i % 5)
			counts[k] = (uint32_t)sample_below(&random, 1 + (uint64_t)k * 10);
		for (int k = 0; k < WCX_CONTEXT_KEYS; k++)
			used += counts[k] > 0;
		wcx_key_bins_make(counts, most, &bins);
		CHECK(bins.count == (used < most ? used : most) && bins.first[0] == 0);
		for (uint32_t k = 0, bin = 0; k < WCX_CONTEXT_KEYS; k++) {
			bin += bin + 1 < bins.count && bins.first[bin + 1] == k;
			CHECK(bins.of_key[k] == bin);
		}
	}
}

static void a_file_without_elements_has_one_bin(void)
{
	const uint32_t counts[WCX_CONTEXT_KEYS] = { 0 };
	struct wcx_key_bins bins;

	wcx_key_bins_make(counts, WCX_BINS_MAX, &bins);
	CHECK(bins.count == 1 && bins.of_key[255] == 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(entropies_are_those_of_logarithms),
		CHECK_TEST(no_other_division_takes_fewer_bits),
		CHECK_TEST(consecutive_thresholds_are_taken_where_they_cost_little),
		CHECK_TEST(bins_are_ranges_of_about_as_many_elements),
		CHECK_TEST(a_file_without_elements_has_one_bin),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
