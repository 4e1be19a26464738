/* SPDX-License-Identifier: MIT */
/* Frequency tables: how they are built, priced, written and parsed, and the tables of pairs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fixtures/codec_samples.h"

enum { COUNT_KINDS = 9 };

/* Counts of different distributions: bells, steps, a lone symbol, counts near the limit. */
static void make_counts(int kind, uint64_t count[WCX_SYMBOL_COUNT])
{
	struct sample_random random = { .state = (uint64_t)kind };

	memset(count, 0, WCX_SYMBOL_COUNT * sizeof *count);
	for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
		double x = s - 128;

		switch (kind) {
		case 0: /* a bell whose tails are below one slot */
			count[s] = 1 + (uint64_t)(1e6 * exp(-x * x / 200));
			break;
		case 1: /* a bell of INT8 weights */
			count[s] = (uint64_t)(1e9 * exp(-x * x / (2 * 33.6 * 33.6)));
			break;
		case 2:
			count[s] = s == 255;
			break;
		case 3:
			count[s] = s == 0 ? UINT64_C(1) << 55 : s == 200;
			break;
		case 4:
			count[s] = 17;
			break;
		case 5:
			count[s] = sample_below(&random, 1000);
			break;
		case 6: /* few symbols far apart */
			count[s] = s % 50 == 7 ? sample_below(&random, 1 << 20) + 1 : 0;
			break;
		case 7: /* each twice as frequent as the one before */
			count[s] = s >= 200 && s < 248 ? UINT64_C(1) << (s - 200) : 0;
			break;
		default: /* one symbol and all the others once */
			count[s] = s == 3 ? 1 << 30 : 1;
			break;
		}
	}
}

/*
 * The least cost of any table with a slot for each symbol counted: cost is convex in every frequency, so giving out slots
 * one by one to whom they help most is exact.
 */
static double least_cost(const uint64_t count[WCX_SYMBOL_COUNT])
{
	struct wcx_freq_table table;
	unsigned left = WCX_PROB_SCALE;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
		table.freq[s] = count[s] != 0;
		left -= table.freq[s];
	}
	for (; left; left--) {
		double most = -1;
		int best = 0;

		for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
			double gain = table.freq[s] ? (double)count[s] * log2(1 + 1.0 / table.freq[s]) : -1;

			if (gain > most) {
				most = gain;
				best = s;
			}
		}
		table.freq[best]++;
	}
	return wcx_freq_table_cost(&table, count);
}

static int count_symbols(const uint64_t count[WCX_SYMBOL_COUNT])
{
	int symbols = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		symbols += count[s] != 0;
	return symbols;
}

static void built_tables_sum_to_the_scale_and_cover_what_was_counted(void)
{
	for (int kind = 0; kind < COUNT_KINDS; kind++) {
		uint64_t count[WCX_SYMBOL_COUNT];
		struct wcx_freq_table table;
		unsigned sum = 0;
		int covered = 1, used = 0;

		make_counts(kind, count);
		wcx_freq_table_build(count, &table);
		for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
			sum += table.freq[s];
			covered &= !count[s] || table.freq[s];
			used += table.freq[s] != 0;
		}
		CHECK(sum == WCX_PROB_SCALE);
		CHECK(covered);
		CHECK(used == (count_symbols(count) > 1 ? count_symbols(count) : 2));
	}
}

static void built_tables_cost_hardly_more_than_the_best_and_than_the_entropy(void)
{
	for (int kind = 0; kind < COUNT_KINDS; kind++) {
		uint64_t count[WCX_SYMBOL_COUNT];
		struct wcx_freq_table table;
		double cost, entropy;

		make_counts(kind, count);
		wcx_freq_table_build(count, &table);
		cost = wcx_freq_table_cost(&table, count);
		entropy = wcx_counts_entropy(count);
		CHECK(cost >= entropy * (1 - 1e-9));
		if (count_symbols(count) > 1)
			CHECK(cost <= least_cost(count) * 1.0001);
		if (kind == 1) /* the loss of 12 bits of probability on INT8 weights */
			CHECK(cost <= entropy * 1.003);
	}
}

static void costs_and_entropies_are_known_ones(void)
{
	uint64_t count[WCX_SYMBOL_COUNT] = { [3] = 1024, [4] = 512, [9] = 512 };
	struct wcx_freq_table table = { .freq = { [3] = 2048, [4] = 1024, [9] = 1024 } };

	CHECK(fabs(wcx_counts_entropy(count) - 3072) < 1e-6);
	CHECK(fabs(wcx_freq_table_cost(&table, count) - 3072) < 1e-6);
	table = (struct wcx_freq_table){ .freq = { [3] = 1024, [4] = 1024, [9] = 2048 } };
	CHECK(fabs(wcx_freq_table_cost(&table, count) - 3584) < 1e-6);
	count[5] = 1;
	CHECK(isinf(wcx_freq_table_cost(&table, count)));
}

/* Each byte of a frequency table's encoding, by hand from docs/format.md, section 2.6. */
static void known_table_bytes_are_what_they_were(void)
{
	static const uint8_t bytes[] = { 0x00, 0x09, 0x05, 0x80, 0x80, 0x7F, 0x8E, 0xFB, 0x00, 0xF0, 0x01 };
	static const struct wcx_freq_table expected = {
		.freq = { [10] = 5, [11] = 128, [12] = 127, [13] = 3835, [255] = 1 },
	};
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
	struct wcx_freq_table table;
	size_t used;

	CHECK(wcx_freq_table_parse(bytes, sizeof bytes, &table, &used) == WCX_OK);
	CHECK(used == sizeof bytes);
	CHECK(memcmp(&table, &expected, sizeof table) == 0);
	CHECK(wcx_freq_table_write(&expected, written) == sizeof bytes);
	CHECK(memcmp(written, bytes, sizeof bytes) == 0);
}

/* Parses a copy of exact size: the address sanitizer then catches reads past its end. */
static enum wcx_result parse_exactly(const uint8_t *src, size_t bytes, struct wcx_freq_table *ret, size_t *used_ret)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);
	enum wcx_result result;

	memcpy(copy, src, bytes);
	result = wcx_freq_table_parse(copy, bytes, ret, used_ret);
	free(copy);
	return result;
}

/* Each table has a single encoding: what parses is written back as the same bytes. */
static int parse_is_refused_or_canonical(const uint8_t *src, size_t bytes)
{
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
	struct wcx_freq_table table;
	unsigned sum = 0;
	size_t used;

	if (parse_exactly(src, bytes, &table, &used) == WCX_BAD_DATA)
		return 1;
	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		sum += table.freq[s];
	return sum == WCX_PROB_SCALE && used <= bytes && wcx_freq_table_write(&table, written) == used &&
	       memcmp(written, src, used) == 0;
}

static void tables_survive_writing_and_every_change_is_refused_or_canonical(void)
{
	for (int kind = 0; kind < COUNT_KINDS; kind++) {
		uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
		uint64_t count[WCX_SYMBOL_COUNT];
		struct wcx_freq_table table, again;
		size_t bytes, used = 0;
		unsigned accepted = 0;

		make_counts(kind, count);
		wcx_freq_table_build(count, &table);
		bytes = wcx_freq_table_write(&table, written);
		CHECK(bytes <= sizeof written);
		CHECK(parse_exactly(written, bytes, &again, &used) == WCX_OK && used == bytes);
		CHECK(memcmp(&table, &again, sizeof table) == 0);
		for (size_t cut = 0; cut < bytes; cut++)
			CHECK(parse_exactly(written, cut, &again, &used) == WCX_BAD_DATA);
		for (size_t i = 0; i < bytes; i++) {
			for (unsigned change = 1; change < 256; change++) {
				written[i] ^= (uint8_t)change;
				accepted += !parse_is_refused_or_canonical(written, bytes);
				written[i] ^= (uint8_t)change;
			}
		}
		CHECK(accepted == 0);
	}
}

/* Encodings that break one rule of section 2.6 each, though the frequencies that one could read from them sum to 4096. */
static void tables_that_break_a_rule_are_refused(void)
{
	static const struct {
		uint8_t bytes[12];
		size_t count;
		const char *why;
	} cases[] = {
		{ { 0x88, 0x00, 0x88, 0x00, 0x00, 0xFD }, 6, NULL }, /* sound: 2048, 2048, nothing */
		{ { 0x88, 0x00, 0x88, 0x00, 0x00, 0x00, 0x00, 0xFC }, 8, "a gap after a gap" },
		{ { 0x88, 0x00, 0x88, 0x00, 0x00, 0xFE }, 6, "a gap past symbol 255" },
		{ { 0x80, 0x7F, 0x8F, 0x81, 0x00, 0xFD }, 6, "two bytes for 127" },
		{ { 0x80, 0x00, 0x88, 0x00, 0x88, 0x00, 0x00, 0xFC }, 8, "two bytes for 0" },
		{ { 0x90, 0x00, 0x00, 0xFE }, 4, "a frequency of 4096" },
		{ { 0x88, 0x00, 0x87, 0xFF, 0x00, 0xFD }, 6, "a sum of 4095" },
		{ { 0x88, 0x00, 0x88, 0x01, 0x00, 0xFD }, 6, "a sum of 4097" },
		{ { 0x00, 0xFF }, 2, "no symbols" },
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		struct wcx_freq_table table;
		size_t used;

		if (!CHECK((parse_exactly(cases[i].bytes, cases[i].count, &table, &used) == WCX_OK) == !cases[i].why))
			fprintf(stderr, "\t%s\n", cases[i].why ? cases[i].why : "a sound table");
	}
}

/* The same by trying every K. */
static void plainest_pairs(const struct wcx_freq_table *single, struct wcx_freq_table *ret)
{
	uint64_t freq[256], largest = 0;

	for (uint64_t k = 0; k < 1 << 18; k++)
		if (plain_scale(single, k, freq) <= 4096)
			largest = k;
	plain_pairs_of(single, largest, ret);
}

/*
 * Three symbols of 1366, 1366 and 1364: shares of 1865956, four times; 1863224, four times; and 1860496.  Up to K = 65599,
 * the first eight are 455 (the share times K above 28 bits) and the last is 454; from 65600 on, the first four are 456,
 * which makes 4098.  So two are missing, which the first pair gets.
 *
 * Four symbols of 4048, 16, 15 and 17: of the pairs without the first symbol, 16 and 16, 16 and 17, and 17 and 17 have
 * shares of 256, 272 and 289, and frequencies of 1; those with 15 are 255 at most, and have none.  The others have 15, 14
 * and 16 with the first symbol, each twice, which makes 94 with the four of 1; the first symbol twice, of a share of
 * 16386304, is 4002 from K = 65560 on and 4003 from 65576 on, so that nothing is missing.
 */
static void known_tables_make_known_tables_of_pairs(void)
{
	static const struct {
		struct wcx_freq_table single, pairs;
	} cases[] = {
		{ { { 1366, 1366, 1364 } }, { { [0] = 457, 455, 455, [16] = 455, 455, 455, [32] = 455, 455, 454 } } },
		{ { { 4048, 16, 15, 17 } },
		  { { [0] = 4002, 15, 14, 16, [16] = 15, 1, 0, 1, [32] = 14, [48] = 16, 1, 0, 1 } } },
		{ { { [3] = 2048, [15] = 2048 } }, { { [0x33] = 1024, [0x3F] = 1024, [0xF3] = 1024, [0xFF] = 1024 } } },
		/* The most lopsided one: both mixed pairs have a frequency, and the pair of two rare ones has none. */
		{ { { 1, 4095 } }, { { [1] = 1, [16] = 1, 4094 } } },
	};

	for (size_t c = 0; c < WCX_ARRAY_COUNT(cases); c++) {
		struct wcx_freq_table made;

		wcx_freq_table_pair(&cases[c].single, &made);
		CHECK(memcmp(&made, &cases[c].pairs, sizeof made) == 0);
		plainest_pairs(&cases[c].single, &made);
		CHECK(memcmp(&made, &cases[c].pairs, sizeof made) == 0);
	}
}

static void tables_of_pairs_have_the_largest_scale_of_all(void)
{
	struct sample_random random = { 4 };

	for (uint32_t symbols = 2; symbols <= 16; symbols += 2) {
		struct wcx_freq_table single, made, plainest, halved;

		draw_single(&random, symbols, &single);
		wcx_freq_table_pair(&single, &made);
		plainest_pairs(&single, &plainest);
		plain_pairs(&single, &halved);
		CHECK(memcmp(&made, &plainest, sizeof made) == 0);
		CHECK(memcmp(&halved, &plainest, sizeof halved) == 0);
	}
}

static void tables_of_pairs_are_tables_whatever_they_are_made_from(void)
{
	struct sample_random random = { 7 };
	unsigned rare = 0, filled = 0;

	for (int round = 0; round < 2000; round++) {
		uint32_t symbols = 2 + (uint32_t)sample_below(&random, 15), sum = 0;
		struct wcx_freq_table single, made, plain;
		uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
		size_t used;

		draw_single(&random, symbols, &single);
		wcx_freq_table_pair(&single, &made);
		filled += plain_pairs(&single, &plain) != 0;
		CHECK(memcmp(&made, &plain, sizeof made) == 0);
		for (uint32_t p = 0; p < 256; p++) {
			sum += made.freq[p];
			rare += plain_share(&single, p) && !made.freq[p];
		}
		CHECK(sum == 4096);
		/* Nothing that could not be a table of a container. */
		CHECK(wcx_freq_table_parse(written, wcx_freq_table_write(&made, written), &plain, &used) == WCX_OK);
	}
	CHECK(rare > 1000 && filled > 100 && filled < 1900);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(built_tables_sum_to_the_scale_and_cover_what_was_counted),
		CHECK_TEST(built_tables_cost_hardly_more_than_the_best_and_than_the_entropy),
		CHECK_TEST(costs_and_entropies_are_known_ones),
		CHECK_TEST(known_table_bytes_are_what_they_were),
		CHECK_TEST(tables_survive_writing_and_every_change_is_refused_or_canonical),
		CHECK_TEST(tables_that_break_a_rule_are_refused),
		CHECK_TEST(known_tables_make_known_tables_of_pairs),
		CHECK_TEST(tables_of_pairs_have_the_largest_scale_of_all),
		CHECK_TEST(tables_of_pairs_are_tables_whatever_they_are_made_from),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
