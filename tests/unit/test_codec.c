/* SPDX-License-Identifier: MIT */
/*
 * The codec: frequency tables, rANS, recipes and tiles, against what docs/format.md says, known bytes, a plain decoder and
 * plain counts, and on bytes that are damaged; whatever is decoded is so by each variant for the CPU that this one can run.
 */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "codec/decode_variant.h"
#include "codec/freq_table.h"
#include "codec/le.h"
#include "codec/rans.h"
#include "codec/tile_layout.h"
#include "tests/fixtures/sample_data.h"
#include "tests/unit/check.h"

enum {
	GUARD_BYTES = 64,
	GUARD = 0xA7,
	CPUS_MAX = 8,
	FIELDS_ROOM = WCX_FIELDS_MAX + 1, /* for a recipe with one too many */
};

/* --- frequency tables --- */

enum { COUNT_KINDS = 9 };

/* Counts of many shapes: bells, steps, a lone symbol, counts near the limit. */
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

/* Parses a copy that has nothing behind its end, so that the address sanitizer sees a byte too many. */
static enum wcx_result parse_exactly(const uint8_t *src, size_t bytes, struct wcx_freq_table *ret, size_t *used_ret)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);
	enum wcx_result result;

	memcpy(copy, src, bytes);
	result = wcx_freq_table_parse(copy, bytes, ret, used_ret);
	free(copy);
	return result;
}

/* A table that parses is the only way to write its frequencies. */
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
		{ { 0x88, 0x00, 0x88, 0x00, 0x00, 0x00, 0x00, 0xFC }, 8, "a run behind a run" },
		{ { 0x88, 0x00, 0x88, 0x00, 0x00, 0xFE }, 6, "a run beyond symbol 255" },
		{ { 0x80, 0x7F, 0x8F, 0x81, 0x00, 0xFD }, 6, "two bytes for 127" },
		{ { 0x80, 0x00, 0x88, 0x00, 0x88, 0x00, 0x00, 0xFC }, 8, "two bytes for 0" },
		{ { 0x90, 0x00, 0x00, 0xFE }, 4, "a frequency of 4096" },
		{ { 0x88, 0x00, 0x87, 0xFF, 0x00, 0xFD }, 6, "a sum of 4095" },
		{ { 0x88, 0x00, 0x88, 0x01, 0x00, 0xFD }, 6, "a sum of 4097" },
		{ { 0x00, 0xFF }, 2, "no symbols" },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct wcx_freq_table table;
		size_t used;

		if (!CHECK((parse_exactly(cases[i].bytes, cases[i].count, &table, &used) == WCX_OK) == !cases[i].why))
			fprintf(stderr, "\t%s\n", cases[i].why ? cases[i].why : "a sound table");
	}
}

/* --- section 2.7 of docs/format.md, taken word by word --- */

static uint64_t plain_share(const struct wcx_freq_table *single, uint32_t p)
{
	return (uint64_t)single->freq[p % 16] * single->freq[p / 16];
}

/* The frequencies of pairs for a K; returns their sum. */
static uint64_t plain_scale(const struct wcx_freq_table *single, uint64_t k, uint64_t freq[256])
{
	uint64_t sum = 0;

	for (uint32_t p = 0; p < 256; p++) {
		uint64_t share = plain_share(single, p), scaled = share * k >> 28;

		freq[p] = share < 256 ? 0 : scaled > 1 ? scaled : 1;
		sum += freq[p];
	}
	return sum;
}

/* The table of pairs for a K: what is missing goes to the first pair of the largest share.  Returns how much that is. */
static uint64_t plain_pairs_of(const struct wcx_freq_table *single, uint64_t k, struct wcx_freq_table *ret)
{
	uint64_t freq[256], missing = 4096 - plain_scale(single, k, freq);
	uint32_t most = 0;

	for (uint32_t p = 0; p < 256; p++)
		if (plain_share(single, p) > plain_share(single, most))
			most = p;
	freq[most] += missing;
	for (uint32_t p = 0; p < 256; p++)
		ret->freq[p] = (uint16_t)freq[p];
	return missing;
}

/* The largest K is found by halving: no frequency falls as K grows. */
static uint64_t plain_pairs(const struct wcx_freq_table *single, struct wcx_freq_table *ret)
{
	uint64_t freq[256], fits = 0, end = 1 << 18;

	while (end - fits > 1) {
		uint64_t middle = (fits + end) / 2;

		if (plain_scale(single, middle, freq) <= 4096)
			fits = middle;
		else
			end = middle;
	}
	return plain_pairs_of(single, fits, ret);
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

/* A table for half a pair: of `symbols` symbols, which from the first on become rarer by a factor that is drawn. */
static void draw_single(struct sample_random *random, uint32_t symbols, struct wcx_freq_table *ret)
{
	uint64_t count[WCX_SYMBOL_COUNT] = { 0 };
	double factor = sample_unit(random), weight = 1e9;

	for (uint32_t s = 0; s < symbols; s++, weight *= factor)
		count[s] = 1 + (uint64_t)weight;
	wcx_freq_table_build(count, ret);
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

	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
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

/* --- section 3.2 of docs/format.md, taken word by word --- */

static size_t padded(size_t bytes, size_t align)
{
	return (bytes + align - 1) / align * align;
}

/* Bits first .. first + count of bytes taken as one little-endian number. */
static uint32_t bits_at(const uint8_t *src, uint64_t first, uint32_t count)
{
	uint32_t value = 0;

	for (uint32_t b = 0; b < count; b++)
		value |= (uint32_t)(src[(first + b) / 8] >> (first + b) % 8 & 1) << b;
	return value;
}

/* Sets such bits, where there were zeros. */
static void put_bits(uint8_t *dst, uint64_t first, uint32_t count, uint32_t value)
{
	for (uint32_t b = 0; b < count; b++)
		dst[(first + b) / 8] |= (uint8_t)((value >> b & 1) << (first + b) % 8);
}

/* Symbols as lanes have them: in each line `steps`.  Symbol `step` of lane `lane` of line `line` is number (32 line + lane)
 * * steps + step. */
struct plain_stream {
	const struct wcx_freq_table *tables; /* that symbols are coded with */
	uint32_t steps;
	size_t count;
	const uint8_t *choices;
	uint32_t choice_bits; /* 0 with one table */
	size_t run_lines;
};

static size_t plain_line_count(const struct plain_stream *s)
{
	return (s->count + 32 * s->steps - 1) / (32 * s->steps);
}

static const struct wcx_freq_table *plain_table(const struct plain_stream *s, size_t line)
{
	return s->tables + (s->choice_bits ? bits_at(s->choices, line / s->run_lines * s->choice_bits, s->choice_bits) : 0);
}

static uint32_t plain_sum_below(const struct wcx_freq_table *table, uint32_t symbol)
{
	uint32_t sum = 0;

	for (uint32_t s = 0; s < symbol; s++)
		sum += table->freq[s];
	return sum;
}

/* One step: the symbols of the lanes, then the words that they want; false when one is missing. */
static int plain_step(const struct plain_stream *stream, size_t line, uint32_t step, uint32_t state[32],
		      const uint8_t **word, const uint8_t *end, uint8_t *symbols)
{
	const struct wcx_freq_table *table = plain_table(stream, line);
	const size_t first = 32 * line * stream->steps + step;

	for (size_t l = 0; l < 32 && first + l * stream->steps < stream->count; l++) {
		uint32_t slot = state[l] & 4095, below = 0, s = 0;

		for (; slot >= below + table->freq[s]; s++)
			below += table->freq[s];
		state[l] = table->freq[s] * (state[l] >> 12) + slot - below;
		symbols[first + l * stream->steps] = (uint8_t)s;
	}
	for (size_t l = 0; l < 32 && first + l * stream->steps < stream->count; l++) {
		if (state[l] >= 1 << 16)
			continue;
		if (end - *word < 2)
			return 0;
		state[l] = state[l] << 16 | bits_at(*word, 0, 16);
		*word += 2;
	}
	return 1;
}

/* The start states; returns where the words start, or 0 when the states are not all there. */
static size_t plain_states(const uint8_t *src, size_t bytes, uint32_t state[32])
{
	size_t at = 8 * 16;

	for (size_t l = 0; l < 32 && bytes >= 16; l++) {
		uint32_t width = 16 + bits_at(src, 4 * l, 4);

		if (at + width > 8 * bytes)
			return 0;
		state[l] = 1u << width | bits_at(src, at, width);
		at += width;
	}
	return bytes >= 16 && bytes >= padded((at + 7) / 8, 2) ? padded((at + 7) / 8, 2) : 0;
}

/* False when a rule is broken.  low gets what the final states have in their low halves. */
static int plain_rans(const struct plain_stream *stream, const uint8_t *src, size_t bytes, uint8_t *symbols, uint8_t low[64])
{
	const uint8_t *word = src, *end = src + bytes;
	uint32_t state[32];

	word += plain_states(src, bytes, state);
	if (bytes % 2 || word == src)
		return 0;
	for (size_t line = 0; line < plain_line_count(stream); line++)
		for (uint32_t step = 0; step < stream->steps; step++)
			if (!plain_step(stream, line, step, state, &word, end, symbols))
				return 0;
	for (size_t l = 0; l < 32; l++) {
		if (state[l] >> 16 != 1)
			return 0;
		low[2 * l] = (uint8_t)state[l];
		low[2 * l + 1] = (uint8_t)(state[l] >> 8);
	}
	return word == end;
}

/* What the encoder that the section describes makes, the start states ahead of the words; returns the bytes. */
static size_t plain_rans_encode(const struct plain_stream *stream, const uint8_t *symbols, const uint8_t *low, uint8_t *dst)
{
	const size_t steps = stream->steps;
	uint16_t *emitted = malloc((stream->count + 1) * sizeof *emitted);
	size_t words = 0, at = 8 * 16, bytes;
	uint32_t state[32];

	for (size_t l = 0; l < 32; l++)
		state[l] = 1 << 16 | (low ? bits_at(low, 16 * l, 16) : 0);
	for (size_t k = plain_line_count(stream) * steps; k-- > 0;) {
		const struct wcx_freq_table *table = plain_table(stream, k / steps);

		for (size_t l = 32; l-- > 0;) {
			size_t i = (32 * (k / steps) + l) * steps + k % steps;
			uint32_t freq = i < stream->count ? table->freq[symbols[i]] : 0;

			if (i >= stream->count)
				continue;
			if (state[l] >= (uint64_t)freq << 20) {
				emitted[words++] = (uint16_t)state[l];
				state[l] >>= 16;
			}
			state[l] = (state[l] / freq) << 12 | (state[l] % freq + plain_sum_below(table, symbols[i]));
		}
	}
	memset(dst, 0, 16 + 32 * 31 / 8);
	for (size_t l = 0; l < 32; l++) {
		uint32_t width = 31;

		while (!(state[l] >> width))
			width--;
		put_bits(dst, 4 * l, 4, width - 16);
		put_bits(dst, at, width, state[l] ^ 1u << width);
		at += width;
	}
	bytes = padded((at + 7) / 8, 2);
	for (; words > 0; bytes += 2)
		wcx_le16_write(dst + bytes, emitted[--words]);
	free(emitted);
	return bytes;
}

/* --- memory with guards --- */

/* Guards on both sides: of what is written there, nothing may lie outside.  It starts at one address after the other. */
static uint8_t *guarded_alloc(size_t bytes)
{
	static unsigned turn;
	unsigned off = turn++ % 8;
	uint8_t *memory = malloc(1 + bytes + 2 * GUARD_BYTES + off);

	memset(memory, GUARD, 1 + bytes + 2 * GUARD_BYTES + off);
	memory[off] = (uint8_t)off;
	return memory + off + 1 + GUARD_BYTES;
}

static int guards_are_whole(const uint8_t *at, size_t bytes)
{
	int whole = 1;

	for (size_t i = 0; i < GUARD_BYTES; i++)
		whole &= at[bytes + i] == GUARD && *(at - 1 - i) == GUARD;
	return whole;
}

static void guarded_free(uint8_t *at)
{
	uint8_t *start = at - GUARD_BYTES - 1;

	free(start - *start);
}

/* A copy that has nothing behind its end, so that the address sanitizer sees a byte too many; it starts at one address after
 * the other, too.  *memory_ret is what to free. */
static uint8_t *copy_exactly(const uint8_t *src, size_t bytes, uint8_t **memory_ret)
{
	static unsigned turn;
	unsigned off = turn++ % 8;

	*memory_ret = malloc(off + bytes + (off + bytes == 0));
	if (bytes)
		memcpy(*memory_ret + off, src, bytes);
	return *memory_ret + off;
}

/* --- variants for the CPU --- */

static void every_variant_is_found_by_its_name_and_no_other(void)
{
	static const char *const names[] = { "portable", "avx2", "avx2-gather", "avx512" };
	static const char *const others[] = { "", "avx", "avx2 ", "AVX2", "avx2-gathe", "avx5122", "neon" };
	const struct wcx_decode_variant *variant;
	unsigned count = 0, known = 0;

	for (; (variant = wcx_decode_variant_at(count)); count++) {
		CHECK(wcx_decode_variant_find(variant->name) == variant);
		CHECK(variant->decode_lines && variant->fill && variant->put_symbols && variant->put_plane && variant->fold);
	}
	CHECK(count >= 1 && count < CPUS_MAX && wcx_decode_variant_at(0) == &wcx_decode_variant_portable);
	for (unsigned i = count; i < count + 10; i++)
		CHECK(wcx_decode_variant_at(i) == NULL);
	CHECK(wcx_decode_variant_at((unsigned)-1) == NULL);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		variant = wcx_decode_variant_find(names[i]);
		known += variant != NULL;
		if (variant)
			CHECK_TEXT(variant->name, names[i]);
	}
	CHECK(known == count);
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		CHECK(wcx_decode_variant_find(others[i]) == NULL);
#ifdef __x86_64__
	CHECK((wcx_decode_variant_find("avx2") != NULL) ==
	      (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")));
	CHECK((wcx_decode_variant_find("avx2-gather") != NULL) == (wcx_decode_variant_find("avx2") != NULL));
	CHECK(wcx_decode_variant_find("avx512") == NULL || __builtin_cpu_supports("avx512bw"));
#endif
}

static void chosen_variant_is_one_that_this_cpu_can_run(void)
{
	for (int round = 0; round < 5; round++) {
		const struct wcx_decode_variant *chosen = wcx_decode_variant_choose();
		unsigned listed = 0;

		for (unsigned i = 0; wcx_decode_variant_at(i); i++)
			listed += wcx_decode_variant_at(i) == chosen;
		CHECK(listed == 1);
	}
}

/* --- rANS --- */

/* Codes with working memory of just the size; what comes out must be what the plain encoder makes. */
static size_t rans_encode(const struct plain_stream *s, const uint8_t *symbols, const uint8_t *carried, uint8_t *dst,
			  size_t dst_bytes)
{
	static struct wcx_rans_encode_table built[WCX_FIELD_TABLES_MAX];
	const struct wcx_rans_encode_table *tables[WCX_FIELD_TABLES_MAX];
	const struct wcx_rans_source source = {
		.tables = tables,
		.choices = { s->choices, s->choice_bits, (uint32_t)s->run_lines },
		.symbols = symbols,
		.symbol_count = (uint32_t)s->count,
		.steps = s->steps,
		.carried = carried,
	};
	uint8_t *plain = malloc(WCX_RANS_STATES_MAX_BYTES + 2 * s->count), *exact = malloc(dst_bytes + 1);
	uint16_t *words = malloc(s->count ? s->count * sizeof *words : 1);
	size_t bytes, plain_bytes = plain_rans_encode(s, symbols, carried, plain);

	for (uint32_t t = 0; t < 1u << s->choice_bits; t++) {
		wcx_rans_encode_table_build(&s->tables[t], &built[t]);
		tables[t] = &built[t];
	}
	exact[dst_bytes] = GUARD;
	bytes = wcx_rans_encode(&source, words, exact, dst_bytes);
	CHECK(exact[dst_bytes] == GUARD);
	CHECK(bytes == (plain_bytes <= dst_bytes ? plain_bytes : 0));
	CHECK(memcmp(exact, plain, bytes) == 0);
	memcpy(dst, exact, bytes);
	free(plain);
	free(exact);
	free(words);
	return bytes;
}

/* What a decoder must make of the symbols: a word for each lane of each line, with nothing but them. */
static uint32_t *expected_words(const struct plain_stream *s, const uint8_t *symbols)
{
	uint32_t *words = calloc(32 * plain_line_count(s) + 1, sizeof *words);

	for (size_t i = 0; i < s->count; i++)
		words[i / s->steps] |= (uint32_t)symbols[i] << 32 / s->steps * (i % s->steps) % 32;
	return words;
}

/* The stream that a decoder is given, with the tables it takes, which stay until the next call. */
static struct wcx_rans_stream stream_of(const struct plain_stream *s, const uint8_t *src, size_t bytes)
{
	static struct wcx_rans_decode_table built[WCX_FIELD_TABLES_MAX];
	static const struct wcx_rans_decode_table *tables[WCX_FIELD_TABLES_MAX];

	for (uint32_t t = 0; t < 1u << s->choice_bits; t++) {
		wcx_rans_decode_table_build(&s->tables[t], &built[t]);
		tables[t] = &built[t];
	}
	return (struct wcx_rans_stream){
		.tables = tables,
		.choices = { s->choices, s->choice_bits, (uint32_t)s->run_lines },
		.src = src,
		.src_bytes = bytes,
		.symbol_count = (uint32_t)s->count,
		.steps = s->steps,
	};
}

/* Decodes all of a stream, from opening to closing. */
static enum wcx_result decode_whole(const struct wcx_decode_variant *variant, const struct wcx_rans_stream *stream,
				    uint32_t *words, uint8_t carried[WCX_RANS_CARRIED_BYTES])
{
	const uint32_t line_symbols = WCX_LANES * stream->steps;
	const uint32_t lines = (stream->symbol_count + line_symbols - 1) / line_symbols;
	struct wcx_rans_reader reader;
	enum wcx_result result = wcx_rans_open(stream, &reader);

	if (result == WCX_OK)
		result = wcx_rans_decode_lines(variant, stream, &reader, 0, lines, words);
	return result == WCX_OK ? wcx_rans_close(&reader, carried) : result;
}

/*
 * Decodes with every variant: all must do as the plain decoder does, whose symbols and carried bytes are given back.  Where
 * carried is NULL nothing is.
 */
static enum wcx_result rans_decode(const struct plain_stream *s, const uint8_t *src, size_t bytes, uint8_t *symbols,
				   uint8_t *carried)
{
	size_t words_bytes = 32 * plain_line_count(s) * sizeof(uint32_t);
	uint8_t low[64], again[64], *memory, *copy = copy_exactly(src, bytes, &memory);
	int sound = plain_rans(s, copy, bytes, symbols, low);
	struct wcx_rans_stream stream = stream_of(s, copy, bytes);
	uint32_t *expected = NULL;
	const struct wcx_decode_variant *variant;

	for (size_t i = 0; i < sizeof low && sound && !carried; i++)
		sound = low[i] == 0;
	expected = sound ? expected_words(s, symbols) : NULL;
	for (unsigned i = 0; (variant = wcx_decode_variant_at(i)); i++) {
		uint32_t *words = malloc(words_bytes + GUARD_BYTES);
		enum wcx_result result;
		int whole = 1;

		memset(words, GUARD, words_bytes + GUARD_BYTES);
		result = decode_whole(variant, &stream, words, carried ? again : NULL);
		CHECK(result == (sound ? WCX_OK : WCX_BAD_DATA));
		CHECK(!sound || memcmp(words, expected, words_bytes) == 0);
		CHECK(!sound || !carried || memcmp(again, low, sizeof low) == 0);
		for (size_t b = 0; b < GUARD_BYTES; b++)
			whole &= ((uint8_t *)words)[words_bytes + b] == GUARD;
		CHECK(whole);
		free(words);
	}
	if (carried && sound)
		memcpy(carried, low, sizeof low);
	free(expected);
	free(memory);
	return sound ? WCX_OK : WCX_BAD_DATA;
}

/* Symbols with the probabilities that the tables give them. */
static void draw_symbols(const struct plain_stream *s, struct sample_random *random, uint8_t *symbols)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct wcx_freq_table *table = plain_table(s, i / s->steps / 32);
		uint32_t slot = (uint32_t)sample_below(random, 4096), symbol = 0;

		for (; slot >= table->freq[symbol]; symbol++)
			slot -= table->freq[symbol];
		symbols[i] = (uint8_t)symbol;
	}
}

/*
 * Five symbols by hand from docs/format.md, section 3.2, with frequencies 2048 and 2048.  A step backwards doubles what the
 * state has above its low 11 bits, which stay, and adds 2048 for symbol 1.
 *
 * Four steps: lane 0, symbols 0 1 1 0: 10000 -> 20000 -> 40800 -> 81800 -> 103000, of 4 bits more than 17.  Lane 1, symbol
 * 1: 20800, 1 bit more.  Below their highest bits, 20 bits of 03000, 17 of 00800 from bit 20 on, and 16 zeros for each of
 * the others, from bit 37 on: 517 bits, which take 66 bytes.  Carrying 0x1234 in lane 0, of which the low 11 bits are 0x234:
 * 11234 -> 22234 -> 44A34 -> 89A34 -> 113234; in lane 2, which has no symbol, it stays 11234.
 *
 * Two steps: lane 0, symbols 0 1: 10000 -> 20800 -> 41000, 2 bits more.  Lane 1, symbols 1 0: -> 20000 -> 40800.  Lane 2,
 * symbol 1: 20800.  One step: 20000 for symbol 0 and 20800 for symbol 1.
 */
static void known_rans_bytes_decode_to_known_symbols(void)
{
	static const uint8_t symbols[] = { 0, 1, 1, 0, 1 };
	static const struct wcx_freq_table freqs = { .freq = { 2048, 2048 } };
	static const struct {
		uint32_t steps;
		uint16_t carried[3]; /* of the first lanes */
		uint8_t bytes[82];
	} cases[] = {
		{ 4, { 0 }, { 0x14, [16] = 0x00, 0x30, 0x00, 0x80 } },
		{ 4, { 0x1234, 0, 0x1234 }, { 0x14, [16] = 0x34, 0x32, 0x01, 0x80, 0x80, 0x46, 0x02 } },
		{ 2, { 0 }, { 0x22, 0x01, [16] = 0x00, 0x10, 0x00, 0x20, 0x00, 0x80 } },
		{ 1, { 0 }, { 0x11, 0x11, 0x01, [16] = 0x00, 0x00, 0x00, 0x10, 0x00, 0x20, 0x00, 0x00, 0x00, 0x80 } },
	};

	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		const struct plain_stream s = { .tables = &freqs, .steps = cases[c].steps, .count = sizeof symbols };
		const size_t bytes = sizeof cases[c].bytes;
		uint8_t decoded[sizeof symbols], encoded[2 * sizeof cases[c].bytes], carried[64] = { 0 }, again[64];
		int carries = cases[c].carried[0] != 0;

		for (size_t l = 0; l < 3; l++)
			wcx_le16_write(carried + 2 * l, cases[c].carried[l]);
		CHECK(wcx_rans_states_bytes(cases[c].bytes, bytes) == bytes);
		CHECK(rans_decode(&s, cases[c].bytes, bytes, decoded, again) == WCX_OK);
		CHECK(memcmp(decoded, symbols, sizeof symbols) == 0 && memcmp(again, carried, sizeof carried) == 0);
		CHECK(rans_decode(&s, cases[c].bytes, bytes, decoded, NULL) == (carries ? WCX_BAD_DATA : WCX_OK));
		CHECK(rans_encode(&s, symbols, carries ? carried : NULL, encoded, sizeof encoded) == bytes);
		CHECK(memcmp(encoded, cases[c].bytes, bytes) == 0);
	}
}

static void coding_takes_the_bits_that_the_table_says(void)
{
	enum { N = 50000 };
	static uint8_t symbols[N], encoded[2 * N], decoded[N];
	struct sample_random random = { 5 };

	for (int kind = 0; kind < SAMPLE_CONSTANT; kind++) {
		for (uint32_t steps = 1; steps <= WCX_RANS_STEPS_MAX; steps *= 2) {
			uint64_t count[WCX_SYMBOL_COUNT] = { 0 };
			struct wcx_freq_table table;
			const struct plain_stream s = { .tables = &table, .steps = steps, .count = N };
			uint32_t state[32];
			size_t bytes;
			double bits;

			sample_fill(&random, (enum sample_kind)kind, 20, symbols, N);
			for (size_t i = 0; i < N; i++)
				count[symbols[i]]++;
			wcx_freq_table_build(count, &table);
			bytes = rans_encode(&s, symbols, NULL, encoded, sizeof encoded);
			/* All that is coded came on top of 16 bits in each lane's first state. */
			bits = 8.0 * (double)(bytes - plain_states(encoded, bytes, state));
			for (size_t lane = 0; lane < 32; lane++)
				bits += log2(state[lane]) - 16;
			CHECK(fabs(bits / wcx_freq_table_cost(&table, count) - 1) < 1e-4);
			CHECK(rans_encode(&s, symbols, NULL, encoded, bytes) == bytes);
			CHECK(rans_encode(&s, symbols, NULL, decoded, bytes - 1) == 0);
			CHECK(rans_decode(&s, encoded, bytes, decoded, NULL) == WCX_OK);
			CHECK(memcmp(decoded, symbols, N) == 0);
		}
	}
}

/* Every frequency, from the most lopsided table to the other: each has a reciprocal of its own. */
static void symbols_of_every_frequency_come_back(void)
{
	enum { N = 1000 };
	struct sample_random random = { 6 };
	unsigned wrong = 0;

	for (uint32_t freq = 1; freq < WCX_PROB_SCALE; freq++) {
		struct wcx_freq_table table = { .freq = {
							[7] = (uint16_t)freq, [201] = (uint16_t)(WCX_PROB_SCALE - freq) } };
		const struct plain_stream s = { .tables = &table, .steps = 1u << freq % 3, .count = N };
		uint8_t symbols[N], encoded[3 * N], decoded[N];
		size_t bytes;

		for (size_t i = 0; i < N; i++)
			symbols[i] = sample_below(&random, 2) ? 7 : 201;
		bytes = rans_encode(&s, symbols, NULL, encoded, sizeof encoded);
		wrong += bytes == 0 || rans_decode(&s, encoded, bytes, decoded, NULL) != WCX_OK ||
			 memcmp(decoded, symbols, N) != 0;
	}
	CHECK(wrong == 0);
}

/* Tables of bells whose sigma is anything from far below one symbol, which takes hardly any words, to noise. */
static void draw_tables(struct sample_random *random, uint32_t tables, struct wcx_freq_table *ret)
{
	for (uint32_t t = 0; t < tables; t++) {
		double sigma = exp2(8 * sample_unit(random) - 3), middle = 255 * sample_unit(random);
		uint64_t count[WCX_SYMBOL_COUNT];

		for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
			count[s] = (uint64_t)(1e6 * exp(-(s - middle) * (s - middle) / (2 * sigma * sigma)) + 0.5);
		count[(int)middle]++;
		wcx_freq_table_build(count, &ret[t]);
	}
}

/* Every number of steps, with and without choices and what is carried; all of the 16 widths of a start state occur. */
static void streams_of_every_shape_come_back(void)
{
	struct sample_random random = { 8 };
	unsigned shapes = 0, carries = 0, ragged = 0, without_words = 0, widths[16] = { 0 };
	size_t least = SIZE_MAX, most = 0;

	for (uint32_t round = 0; round < 600; round++) {
		struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX];
		uint8_t choices[512], carried[64], again[64];
		struct plain_stream s = {
			.tables = tables,
			.steps = 1u << round % 3,
			.count = (size_t)sample_below(&random, round % 2 ? 300 : 6000),
			.choices = choices,
			.choice_bits = round / 3 % 3,
			.run_lines = 1 + (size_t)sample_below(&random, 20),
		};
		uint8_t *symbols = malloc(s.count + 1), *decoded = malloc(s.count + 1), *encoded = malloc(2 * s.count + 140);
		size_t bytes, states_bytes;

		sample_fill(&random, SAMPLE_UNIFORM, 0, choices, sizeof choices);
		sample_fill(&random, SAMPLE_UNIFORM, 0, carried, sizeof carried);
		draw_tables(&random, 1u << s.choice_bits, tables);
		draw_symbols(&s, &random, symbols);
		bytes = rans_encode(&s, symbols, round % 5 ? carried : NULL, encoded, 2 * s.count + 140);
		CHECK(rans_decode(&s, encoded, bytes, decoded, round % 5 ? again : NULL) == WCX_OK);
		CHECK(memcmp(decoded, symbols, s.count) == 0);
		CHECK(round % 5 == 0 || memcmp(again, carried, sizeof carried) == 0);
		states_bytes = wcx_rans_states_bytes(encoded, bytes);
		for (uint32_t l = 0; l < 32; l++)
			widths[bits_at(encoded, 4 * l, 4)]++;
		least = states_bytes < least ? states_bytes : least;
		most = states_bytes > most ? states_bytes : most;
		shapes |= 1u << round % 3 << 4 * s.choice_bits;
		carries += round % 5 != 0;
		ragged += s.count % (32 * s.steps) != 0;
		without_words += bytes == states_bytes;
		free(symbols);
		free(decoded);
		free(encoded);
	}
	for (uint32_t k = 0; k < 16; k++)
		CHECK(widths[k] > 100);
	CHECK(shapes == 0x777 && carries > 100 && ragged > 100 && without_words > 20 && without_words < 580);
	CHECK(least >= WCX_RANS_STATES_MIN_BYTES && most > 110 && most <= WCX_RANS_STATES_MAX_BYTES);
}

/* Widths of any kind, with none of the bytes behind them, some, all, and some more. */
static void start_states_take_what_their_widths_say(void)
{
	struct sample_random random = { 9 };
	uint64_t sizes[3] = { 0 };

	CHECK(WCX_RANS_STATES_MIN_BYTES == 16 + 32 * 16 / 8 && WCX_RANS_STATES_MAX_BYTES == 16 + 32 * 31 / 8);
	for (int round = 0; round < 500; round++) {
		uint8_t src[WCX_RANS_STATES_MAX_BYTES + 10];
		size_t bits = 0, bytes;
		uint32_t state[32];

		sample_fill(&random, SAMPLE_UNIFORM, 0, src, sizeof src);
		if (round < 2)
			memset(src, round ? 0xFF : 0, 16);
		else if (round % 2)
			for (int i = 0; i < 16; i++)
				src[i] &= 0x11;
		for (uint32_t l = 0; l < 32; l++)
			bits += 16u + (l % 2 ? src[l / 2] >> 4 : src[l / 2] & 15);
		bytes = 16 + (bits + 15) / 16 * 2;
		sizes[bytes / 64] |= UINT64_C(1) << bytes % 64;
		for (size_t there = 0; there <= sizeof src; there++) {
			uint8_t *memory, *copy = copy_exactly(src, there, &memory);

			CHECK(wcx_rans_states_bytes(copy, there) == (there < bytes ? 0 : bytes));
			CHECK(plain_states(copy, there, state) == (there < bytes ? 0 : bytes));
			free(memory);
		}
	}
	CHECK(sizes[80 / 64] >> 80 % 64 & 1);
	CHECK(sizes[140 / 64] >> 140 % 64 & 1);
	CHECK(sizes[110 / 64] >> 110 % 64 & 1);
}

/* A start state is read to its last bit: a change of any of them is another state, and other symbols. */
static void streams_that_are_cut_or_lengthened_or_end_in_another_state_are_refused(void)
{
	/* 300 symbols leave some lanes with fewer than the others, 30 leave most without any. */
	static const size_t counts[] = { 300, 30 };
	static const struct wcx_freq_table table = { .freq = { [250] = 1000, [3] = 1596, [2] = 1500 } };
	uint8_t symbols[300], stream[1000], decoded[300], again[1000];
	struct sample_random random = { 17 };

	for (size_t c = 0; c < 3 * sizeof counts / sizeof counts[0]; c++) {
		const struct plain_stream s = { .tables = &table, .steps = 1u << c % 3, .count = counts[c / 3] };
		uint32_t state[32], state_bits = 0;
		unsigned accepted = 0;
		size_t bytes;

		memset(stream, 0, sizeof stream);
		draw_symbols(&s, &random, symbols);
		bytes = rans_encode(&s, symbols, NULL, stream, sizeof stream - 4);
		CHECK(rans_decode(&s, stream, bytes, decoded, NULL) == WCX_OK);
		for (size_t cut = 0; cut < bytes; cut++)
			CHECK(rans_decode(&s, stream, cut, decoded, NULL) == WCX_BAD_DATA);
		for (size_t more = 1; more <= 4; more++)
			CHECK(rans_decode(&s, stream, bytes + more, decoded, NULL) == WCX_BAD_DATA);
		for (uint32_t l = 0; l < 32; l++)
			state_bits += 16 + bits_at(stream, 4 * l, 4);
		for (size_t bit = 0; bit < 8 * bytes; bit++) {
			int pads = bit >= 8 * 16 + state_bits && bit < 8 * plain_states(stream, bytes, state);

			stream[bit / 8] ^= (uint8_t)(1u << bit % 8);
			/* What decodes all the same must be the coding of other symbols, but for padding. */
			if (rans_decode(&s, stream, bytes, decoded, NULL) == WCX_OK) {
				accepted++;
				CHECK(rans_encode(&s, decoded, NULL, again, sizeof again) == bytes);
				again[bit / 8] ^= (uint8_t)(pads ? 1u << bit % 8 : 0);
				CHECK(memcmp(again, stream, bytes) == 0);
				CHECK((memcmp(decoded, symbols, s.count) == 0) == pads);
			} else {
				CHECK(!pads);
			}
			stream[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		CHECK(accepted > 0);
	}
}

/* A weight of a pair by hand from sections 3.1 and 3.4: four raw bits as they lie in the plane, and half a symbol. */
static uint8_t folded_weight(const uint8_t *nibbles, size_t line, size_t lane, size_t t, uint32_t magnitude)
{
	const uint8_t *unit = nibbles + line / 2 * 128 + 4 * lane;
	uint32_t bit[8] = { 0 };

	for (uint32_t x = 0; x < 8; x++)
		if (x < 3 || x == 7)
			bit[x] = bits_at(unit, (8 * t + x + 4 * (line % 2)) % 32, 1);
	for (uint32_t x = 3; x < 7; x++)
		bit[x] = (magnitude >> (x - 3) & 1) ^ bit[7];
	return (uint8_t)(bit[0] | bit[1] << 1 | bit[2] << 2 | bit[3] << 3 | bit[4] << 4 | bit[5] << 5 | bit[6] << 6 |
			 bit[7] << 7);
}

/*
 * Decodes pairs with one variant: lines up to sink_lines into a sink of just the size, the others into words of just the
 * size, by as many at a time as a draw says; and checks all of it.
 */
static enum wcx_result decode_into_sink(const struct wcx_decode_variant *variant, const struct plain_stream *s,
					const uint8_t *src, size_t bytes, const uint8_t *symbols, const uint8_t *units,
					uint32_t sink_lines, struct sample_random *random)
{
	const uint32_t lines = (uint32_t)plain_line_count(s);
	size_t words_bytes = 128 * (size_t)(lines - sink_lines), dst_bytes = (size_t)sink_lines * 128;
	uint8_t *nibbles_memory, *memory, *dst = guarded_alloc(dst_bytes);
	struct wcx_rans_stream stream = stream_of(s, copy_exactly(src, bytes, &memory), bytes);
	struct wcx_pair_sink sink = { copy_exactly(units, padded(sink_lines, 2) * 64, &nibbles_memory), dst };
	uint32_t *words = malloc(words_bytes + GUARD_BYTES), *expected = expected_words(s, symbols), line = 0, next;
	struct wcx_rans_reader reader;
	enum wcx_result result = wcx_rans_open(&stream, &reader);
	unsigned wrong = 0;

	memset(words, GUARD, words_bytes + GUARD_BYTES);
	for (; line < sink_lines && result == WCX_OK; line = next) {
		next = line + 1 + (uint32_t)sample_below(random, sink_lines - line);
		result = wcx_rans_decode_pairs(variant, &stream, &reader, line, next, &sink);
	}
	for (; line < lines && result == WCX_OK; line = next) {
		next = line + 1 + (uint32_t)sample_below(random, lines - line);
		result = wcx_rans_decode_lines(variant, &stream, &reader, line, next,
					       words + 32 * (size_t)(line - sink_lines));
	}
	if (result == WCX_OK)
		result = wcx_rans_close(&reader, NULL);
	CHECK(guards_are_whole(dst, dst_bytes));
	for (size_t i = 0; i < GUARD_BYTES; i++)
		wrong += ((uint8_t *)words)[words_bytes + i] != GUARD;
	for (size_t i = 0; i < 32 * (size_t)sink_lines && result == WCX_OK; i++)
		for (size_t t = 0; t < 4; t++)
			wrong += dst[4 * i + t] !=
				 folded_weight(sink.nibbles, i / 32, i % 32, t, symbols[2 * i + t / 2] >> 4 * (t % 2) & 15);
	CHECK(result != WCX_OK || memcmp(words, expected + 32 * (size_t)sink_lines, words_bytes) == 0);
	CHECK(wrong == 0);
	guarded_free(dst);
	free(nibbles_memory);
	free(memory);
	free(words);
	free(expected);
	return result;
}

static void pairs_are_finished_in_a_sink_as_they_are_in_words(void)
{
	struct sample_random random = { 18 };
	const struct wcx_decode_variant *variant;

	for (uint32_t round = 0; round < 400; round++) {
		struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX], single;
		uint8_t choices[64], units[64 * 128];
		struct plain_stream s = {
			.tables = tables,
			.steps = 2,
			.count = 1 + (size_t)sample_below(&random, 64 * 60),
			.choices = choices,
			.choice_bits = round % 3,
			.run_lines = 1 + (size_t)sample_below(&random, 12),
		};
		uint8_t *symbols = malloc(s.count), *encoded = malloc(2 * s.count + 140);
		uint32_t full_lines = (uint32_t)(s.count / 64), sink_lines;
		size_t bytes;

		sample_fill(&random, SAMPLE_UNIFORM, 0, choices, sizeof choices);
		sample_fill(&random, SAMPLE_UNIFORM, 0, units, sizeof units);
		for (uint32_t t = 0; t < 1u << s.choice_bits; t++) {
			draw_single(&random, 2 + (uint32_t)sample_below(&random, 15), &single);
			plain_pairs(&single, &tables[t]);
		}
		draw_symbols(&s, &random, symbols);
		bytes = rans_encode(&s, symbols, NULL, encoded, 2 * s.count + 140);
		sink_lines = round % 2 ? full_lines : (uint32_t)sample_below(&random, full_lines + 1);
		for (unsigned i = 0; (variant = wcx_decode_variant_at(i)); i++) {
			uint32_t here = variant->decode_pairs ? sink_lines : 0;

			CHECK(decode_into_sink(variant, &s, encoded, bytes, symbols, units, here, &random) == WCX_OK);
			CHECK(decode_into_sink(variant, &s, encoded, bytes - 2, symbols, units, here, &random) ==
			      WCX_BAD_DATA);
		}
		free(symbols);
		free(encoded);
	}
}

/* --- recipes and what is coded with them --- */

/* What the fields of an element are drawn from. */
enum source {
	NOISE, /* all values alike */
	BELL,  /* symbols from half of a normal distribution, with a sigma for each table: one, two, three and four times the
		  first */
	EQUAL, /* one value */
};

/* A recipe with its tables, and what its fields are drawn from. */
struct model {
	struct wcx_recipe recipe;
	struct wcx_field fields[FIELDS_ROOM];
	struct wcx_freq_table tables[FIELDS_ROOM][WCX_FIELD_TABLES_MAX];
	enum source source[FIELDS_ROOM];
	double sigma[FIELDS_ROOM];
	double outliers[FIELDS_ROOM]; /* probability of noise instead */
};

static void model_start(struct model *model, uint32_t elem_bytes, enum wcx_transform transform, enum wcx_predictor predictor,
			uint32_t run)
{
	memset(model, 0, sizeof *model);
	model->recipe = (struct wcx_recipe){
		.elem_bytes = (uint8_t)elem_bytes,
		.transform = (uint8_t)transform,
		.predictor = (uint8_t)predictor,
		.run = run,
		.fields = model->fields,
	};
}

static struct wcx_field *model_add(struct model *model, uint32_t width, uint32_t table_count, uint32_t base,
				   enum source source, double sigma)
{
	uint32_t f = model->recipe.field_count++;

	model->fields[f] = (struct wcx_field){
		.width = (uint8_t)width,
		.table_count = (uint8_t)table_count,
		.base = (uint16_t)base,
		.tables = table_count ? model->tables[f] : NULL,
	};
	model->source[f] = source;
	model->sigma[f] = sigma;
	return &model->fields[f];
}

/* The symbol for a value, or -1. */
static int plain_symbol(const struct wcx_field *field, uint32_t value)
{
	if (field->has_zero && value == 0)
		return 0;
	if (value < field->base || value - field->base >= WCX_SYMBOL_COUNT || (field->has_zero && value == field->base))
		return -1;
	return (int)(value - field->base);
}

static uint32_t plain_value(const struct wcx_field *field, uint32_t symbol)
{
	return field->has_zero && symbol == 0 ? 0 : field->base + symbol;
}

/* The table that the distribution of element i belongs to. */
static uint32_t table_meant(const struct model *model, uint32_t f, size_t i)
{
	return model->fields[f].table_count > 1 ? (uint32_t)(i / model->recipe.run % model->fields[f].table_count) : 0;
}

static uint32_t draw_value(const struct model *model, uint32_t f, size_t i, struct sample_random *random)
{
	const struct wcx_field *field = &model->fields[f];
	double top = field->width < 8 ? (1u << field->width) - 1 : 255, symbol;

	switch (model->outliers[f] > 0 && sample_unit(random) < model->outliers[f] ? NOISE : model->source[f]) {
	case NOISE:
		return (uint32_t)(sample_next(random) >> (64 - field->width));
	case BELL:
		symbol = floor(fabs(sample_normal(random)) * model->sigma[f] * (1 + table_meant(model, f, i)));
		return plain_value(field, (uint32_t)fmin(top, symbol));
	case EQUAL:
		break;
	}
	return (uint32_t)(UINT64_C(0x5AA5C3A5) & ((UINT64_C(1) << field->width) - 1));
}

/* --- section 3 of docs/format.md, taken word by word --- */

/* Section 3.1: elements in a word. */
static size_t plain_word_elems(const struct wcx_recipe *recipe)
{
	return recipe->elem_bytes == 8 ? 1 : 4u / recipe->elem_bytes;
}

/* Section 3.4: a transformed element to the element. */
static uint64_t plain_untransform(const struct wcx_recipe *recipe, uint64_t u)
{
	const uint32_t bits = 8 * recipe->elem_bytes;
	const uint64_t all = UINT64_MAX >> (64 - bits), first = (UINT64_C(1) << recipe->fields[0].width) - 1;

	if (recipe->transform == 0)
		return u;
	if (recipe->transform == 2 && u & 1)
		u ^= all & ~first;
	return u >> 1 | (u & 1) << (bits - 1);
}

/* The reverse: what is inverted does not change which elements are. */
static uint64_t plain_transform(const struct wcx_recipe *recipe, uint64_t element)
{
	const uint32_t bits = 8 * recipe->elem_bytes;
	const uint64_t all = UINT64_MAX >> (64 - bits), first = (UINT64_C(1) << recipe->fields[0].width) - 1;
	uint64_t u = (element << 1 | element >> (bits - 1)) & all;

	if (recipe->transform == 0)
		return element;
	return recipe->transform == 2 && u & 1 ? u ^ (all & ~first) : u;
}

/* Section 3.1: where a bit of transformed elements is in elements. */
static uint32_t plain_place(const struct wcx_recipe *recipe, uint32_t bit)
{
	if (recipe->transform == 0)
		return bit;
	return bit == 0 ? 8u * recipe->elem_bytes - 1 : bit - 1;
}

/* Bytes of a whole raw plane. */
static size_t plain_plane_bytes(const struct wcx_recipe *recipe, size_t n, size_t width)
{
	size_t p = plain_word_elems(recipe), lines = (n + 32 * p - 1) / (32 * p);

	return (lines * width * p + 31) / 32 * 128;
}

/* Bytes that the choices of a field take. */
static size_t plain_choices_bytes(const struct wcx_recipe *recipe, const struct wcx_field *field, size_t n)
{
	size_t bits = field->table_count == 4 ? 2 : 1;

	return field->table_count > 1 ? padded(((n + recipe->run - 1) / recipe->run * bits + 7) / 8, 4) : 0;
}

/* A coded tile as it is taken apart. */
struct plain {
	const struct wcx_recipe *recipe;
	size_t n;
	uint32_t coding[WCX_FIELDS_MAX], number[WCX_FIELDS_MAX], shift[WCX_FIELDS_MAX];
	uint32_t exceptions;
	int carrier;             /* a field, or -1 */
	int has_carried;         /* whether a part has been left out that the states carry */
	uint8_t carried[64];     /* that part */
	size_t exceptions_at;    /* where they start */
	size_t exceptions_bytes; /* with what is carried */
	int exceptions_are_carried;
	uint64_t *residuals;
};

/* The first word of the header; false when it breaks a rule. */
static int plain_head(struct plain *plain, const uint8_t *src, size_t src_bytes)
{
	plain->carrier = -1;
	if (src_bytes < 4)
		return 0;
	for (uint32_t f = 0; f < 10; f++) {
		uint32_t coding = bits_at(src, 2 * f, 2);

		if (coding == 3 || (coding && f >= plain->recipe->field_count))
			return 0;
		if (coding == 1 && !plain->recipe->fields[f].table_count)
			return 0;
		if (coding == 1)
			plain->carrier = (int)f;
		plain->coding[f] = coding;
	}
	plain->exceptions = bits_at(src, 20, 12);
	return plain->carrier >= 0 || plain->exceptions == 0;
}

/* The header; returns where it ends, or 0 when it breaks a rule. */
static size_t plain_header(struct plain *plain, const uint8_t *src, size_t src_bytes)
{
	uint32_t shift = 0;
	size_t at = 4;

	if (!plain_head(plain, src, src_bytes))
		return 0;
	for (uint32_t f = 0; f < plain->recipe->field_count; f++) {
		const uint32_t width = plain->recipe->fields[f].width;

		plain->shift[f] = shift;
		shift += width;
		if (plain->coding[f] == 0 || (int)f == plain->carrier)
			continue;
		if (src_bytes < at + 4)
			return 0;
		plain->number[f] = bits_at(src + at, 0, 32);
		at += 4;
		if (plain->coding[f] == 2 && plain->number[f] >= UINT64_C(1) << width)
			return 0;
	}
	return at;
}

/* A part as it was before its end was left out. */
static uint8_t *plain_whole(const struct plain *plain, const uint8_t *stored, size_t stored_bytes)
{
	uint8_t *whole = malloc(stored_bytes + 64);

	if (stored_bytes)
		memcpy(whole, stored, stored_bytes);
	memcpy(whole + stored_bytes, plain->carried, 64);
	return whole;
}

/* Section 3.1: takes the bits of a whole plane, which are those from shift on. */
static void plain_take_plane(struct plain *plain, const uint8_t *plane, uint32_t width, uint32_t shift)
{
	const size_t p = plain_word_elems(plain->recipe), unit_lines = 32 / (width * p);

	for (size_t i = 0; i < plain->n; i++) {
		size_t line = i / (32 * p), lane = i / p % 32, t = i % p;
		const uint8_t *word = plane + line / unit_lines * 128 + 4 * lane;

		for (uint32_t b = shift; b < shift + width; b++) {
			size_t x = plain_place(plain->recipe, b),
			       at = (8 * plain->recipe->elem_bytes * t + x + width * (line % unit_lines)) % 32;

			plain->residuals[i] |= (uint64_t)(word[at / 8] >> at % 8 & 1) << b;
		}
	}
}

/* Goes through the raw planes behind `at`, and returns where they end; takes their bits if `takes`. */
static size_t plain_planes(struct plain *plain, const uint8_t *src, size_t at, int takes)
{
	uint32_t left = 0;

	for (uint32_t f = 0; f < plain->recipe->field_count; f++)
		for (uint32_t w = 32; w && plain->coding[f] == 0; w /= 2)
			left += (plain->recipe->fields[f].width & w) != 0;
	plain->has_carried = left && plain->carrier >= 0;
	for (uint32_t f = 0; f < plain->recipe->field_count; f++) {
		uint32_t shift = plain->shift[f];

		for (uint32_t w = 32; w && plain->coding[f] == 0; w /= 2) {
			size_t bytes = plain_plane_bytes(plain->recipe, plain->n, w);
			uint8_t *whole;

			if (!(plain->recipe->fields[f].width & w))
				continue;
			at = padded(at, 4);
			bytes -= --left == 0 && plain->has_carried ? 64 : 0;
			if (takes) {
				whole = plain_whole(plain, src + at, bytes);
				plain_take_plane(plain, whole, w, shift);
				free(whole);
			}
			shift += w;
			at += bytes;
		}
	}
	return at;
}

/* Bytes of an exception's value. */
static size_t plain_value_bytes(const struct plain *plain)
{
	return plain->recipe->fields[plain->carrier].width <= 8 ? 1 : 2;
}

/* Section 3.3: where the exceptions lie, behind `at`; returns where they end. */
static size_t plain_find_exceptions(struct plain *plain, size_t at)
{
	if (plain->exceptions == 0)
		return at;
	plain->exceptions_at = padded(at, 4);
	plain->exceptions_bytes = padded(plain->exceptions * (2 + plain_value_bytes(plain)), 2);
	plain->exceptions_are_carried = !plain->has_carried && plain->exceptions_bytes >= 64;
	plain->has_carried |= plain->exceptions_are_carried;
	return plain->exceptions_at + plain->exceptions_bytes - (plain->exceptions_are_carried ? 64 : 0);
}

/* Puts the exceptions in the place of values; false when one breaks a rule. */
static int plain_take_exceptions(struct plain *plain, const uint8_t *src)
{
	uint32_t c = plain->exceptions;
	size_t stored = plain->exceptions_bytes - (plain->exceptions_are_carried ? 64 : 0);
	uint8_t *whole = plain_whole(plain, src + plain->exceptions_at, stored);
	int64_t before = -1;
	int sound = 1;

	for (uint32_t i = 0; i < c && sound; i++) {
		const uint32_t width = plain->recipe->fields[plain->carrier].width, shift = plain->shift[plain->carrier];
		uint32_t value_bits = 8 * (uint32_t)plain_value_bytes(plain), position = bits_at(whole, 16 * i, 16);
		uint64_t value = bits_at(whole + 2 * c, value_bits * i, value_bits), mask = (UINT64_C(1) << width) - 1;

		sound = position > before && position < plain->n && value <= mask;
		if (sound)
			plain->residuals[position] = (plain->residuals[position] & ~(mask << shift)) | value << shift;
		before = position;
	}
	free(whole);
	return sound;
}

/* The tables of pairs of a field, which the next tile mostly shares; they stay until the next call. */
static const struct wcx_freq_table *plain_pair_tables(const struct wcx_field *field)
{
	static struct wcx_freq_table singles[4], pairs[4];

	for (uint32_t t = 0; t < field->table_count; t++) {
		if (memcmp(&singles[t], &field->tables[t], sizeof singles[t]) != 0)
			plain_pairs(&field->tables[t], &pairs[t]);
		singles[t] = field->tables[t];
	}
	return pairs;
}

/* Section 3.2: the payload of field f, of so many bytes; false when it breaks a rule. */
static int plain_payload(struct plain *plain, uint32_t f, const uint8_t *src, size_t bytes)
{
	const struct wcx_field *field = &plain->recipe->fields[f];
	const size_t choices_bytes = plain_choices_bytes(plain->recipe, field, plain->n),
		     p = plain_word_elems(plain->recipe);
	const uint32_t per_symbol = field->is_pair ? 2 : 1;
	const struct plain_stream stream = {
		.tables = field->is_pair ? plain_pair_tables(field) : field->tables,
		.steps = (uint32_t)p / per_symbol,
		.count = (plain->n + per_symbol - 1) / per_symbol,
		.choices = src,
		.choice_bits = field->table_count == 4   ? 2
			       : field->table_count == 2 ? 1
							 : 0,
		.run_lines = plain->recipe->run / (32 * p),
	};
	uint8_t *symbols = malloc(stream.count), low[64];
	int sound = bytes % 2 == 0 && bytes >= choices_bytes;

	sound = sound && plain_rans(&stream, src + choices_bytes, bytes - choices_bytes, symbols, low);
	for (size_t i = 0; sound && i < plain->n; i++) {
		uint32_t symbol = field->is_pair ? (uint32_t)symbols[i / 2] >> 4 * (i % 2) & 15 : symbols[i];

		plain->residuals[i] |= (uint64_t)plain_value(field, symbol) << plain->shift[f];
	}
	if (sound && (int)f == plain->carrier && plain->has_carried)
		memcpy(plain->carried, low, 64);
	else
		for (size_t i = 0; i < 64 && sound; i++)
			sound = low[i] == 0;
	free(symbols);
	return sound;
}

/* The fields that have no raw planes; the payloads start behind `at`, and with the last one the tile must end. */
static int plain_others(struct plain *plain, const uint8_t *src, size_t at, size_t src_bytes)
{
	for (uint32_t f = 0; f < plain->recipe->field_count; f++) {
		size_t bytes;

		for (size_t i = 0; plain->coding[f] == 2 && i < plain->n; i++)
			plain->residuals[i] |= (uint64_t)plain->number[f] << plain->shift[f];
		if (plain->coding[f] != 1)
			continue;
		at = padded(at, 4);
		if (at > src_bytes)
			return 0;
		bytes = (int)f == plain->carrier ? src_bytes - at : plain->number[f];
		if (bytes > src_bytes - at || !plain_payload(plain, f, src + at, bytes))
			return 0;
		at += bytes;
	}
	return at == src_bytes;
}

/* Sections 3.5 and 3.4: residuals to elements. */
static void plain_finish(const struct wcx_tile_dims *dims, const struct wcx_recipe *recipe, uint64_t *u, uint8_t *dst)
{
	const uint64_t mask = UINT64_MAX >> (64 - 8 * recipe->elem_bytes);

	for (size_t y = 0, i = 0; y < dims->rows; y++) {
		for (size_t x = 0; x < dims->cols; x++, i++) {
			uint64_t left = x >= 1 ? u[i - 1] : 0, before = x >= 2 ? u[i - 2] : 0,
				 up = y ? u[i - dims->cols] : 0;
			uint64_t prediction[] = { 0, left, up, 2 * left - before }, element;

			u[i] = (prediction[recipe->predictor] + u[i]) & mask;
			element = plain_untransform(recipe, u[i]);
			for (uint32_t b = 0; b < recipe->elem_bytes; b++)
				dst[i * recipe->elem_bytes + b] = (uint8_t)(element >> 8 * b);
		}
	}
}

/* A coded tile; false when it breaks a rule. */
static int plain_decode(const struct wcx_tile_dims *dims, const struct wcx_recipe *recipe, const uint8_t *src,
			size_t src_bytes, uint8_t *dst)
{
	struct plain plain = { .recipe = recipe, .n = (size_t)dims->rows * dims->cols };
	size_t planes = 0, payloads;
	int sound = 0;

	plain.residuals = calloc(plain.n, sizeof *plain.residuals);
	if (src_bytes < plain.n * recipe->elem_bytes)
		planes = plain_header(&plain, src, src_bytes);
	if (planes) {
		payloads = plain_find_exceptions(&plain, plain_planes(&plain, src, planes, 0));
		sound = payloads <= src_bytes && plain_others(&plain, src, payloads, src_bytes) &&
			(plain.exceptions == 0 || plain_take_exceptions(&plain, src));
	}
	if (sound) {
		plain_planes(&plain, src, planes, 1);
		plain_finish(dims, recipe, plain.residuals, dst);
	}
	free(plain.residuals);
	return sound;
}

/* --- tiles --- */

/* A tile, and what coding it gave. */
struct tile {
	struct wcx_tile_dims dims;
	const struct model *model;
	uint8_t *data, *packed; /* of the tile's size; packed by encode_tile */
	size_t n, bytes, packed_bytes;
	enum wcx_tile_mode mode;
	uint32_t constant;
};

static struct wcx_encode_scratch *encode_scratch;
static struct wcx_decode_scratch *decode_scratch[CPUS_MAX]; /* one for each variant, in the order of wcx_decode_variant_at */

static void tile_alloc(struct tile *tile, const struct model *model, uint32_t rows, uint32_t cols)
{
	memset(tile, 0, sizeof *tile);
	tile->dims = (struct wcx_tile_dims){ rows, cols, model->recipe.elem_bytes };
	tile->model = model;
	tile->n = (size_t)rows * cols;
	tile->bytes = tile->n * model->recipe.elem_bytes;
	tile->data = malloc(tile->bytes);
	tile->packed = guarded_alloc(tile->bytes);
}

static void tile_free(struct tile *tile)
{
	free(tile->data);
	guarded_free(tile->packed);
}

/* Elements whose residuals are drawn as the model says. */
static void tile_draw(struct tile *tile, uint64_t seed)
{
	struct sample_random random = { seed };
	uint64_t *residuals = calloc(tile->n, sizeof *residuals);
	uint32_t shift = 0;

	for (uint32_t f = 0; f < tile->model->recipe.field_count; f++) {
		for (size_t i = 0; i < tile->n; i++)
			residuals[i] |= (uint64_t)draw_value(tile->model, f, i, &random) << shift;
		shift += tile->model->fields[f].width;
	}
	plain_finish(&tile->dims, &tile->model->recipe, residuals, tile->data);
	free(residuals);
}

/* An element as it is predicted from; 0 outside the tile. */
static uint64_t transformed_at(const struct tile *tile, int64_t y, int64_t x)
{
	uint64_t element = 0;

	if (y < 0 || x < 0)
		return 0;
	for (uint32_t b = 0; b < tile->dims.elem_bytes; b++)
		element |= (uint64_t)tile->data[((size_t)y * tile->dims.cols + (size_t)x) * tile->dims.elem_bytes + b]
			   << 8 * b;
	return plain_transform(&tile->model->recipe, element);
}

/* The value of a field of element i, from the element. */
static uint32_t value_at(const struct tile *tile, uint32_t f, size_t i)
{
	int64_t y = (int64_t)(i / tile->dims.cols), x = (int64_t)(i % tile->dims.cols);
	uint64_t residual = transformed_at(tile, y, x);
	uint32_t shift = 0;

	if (tile->model->recipe.predictor == WCX_PREDICT_UP)
		residual -= transformed_at(tile, y - 1, x);
	else if (tile->model->recipe.predictor == WCX_PREDICT_LEFT)
		residual -= transformed_at(tile, y, x - 1);
	else if (tile->model->recipe.predictor == WCX_PREDICT_LEFT2)
		residual -= 2 * transformed_at(tile, y, x - 1) - transformed_at(tile, y, x - 2);
	for (uint32_t below = 0; below < f; below++)
		shift += tile->model->fields[below].width;
	return (uint32_t)(residual >> shift & ((UINT64_C(1) << tile->model->fields[f].width) - 1));
}

/* Changes the value of a field of element i, where elements are not predicted. */
static void change_value(struct tile *tile, size_t i, uint32_t f, uint32_t value)
{
	const struct model *model = tile->model;
	uint64_t u = transformed_at(tile, (int64_t)(i / tile->dims.cols), (int64_t)(i % tile->dims.cols)), mask;
	uint32_t shift = 0;

	for (uint32_t below = 0; below < f; below++)
		shift += model->fields[below].width;
	mask = ((UINT64_C(1) << model->fields[f].width) - 1) << shift;
	u = plain_untransform(&model->recipe, (u & ~mask) | (uint64_t)value << shift);
	for (uint32_t b = 0; b < tile->dims.elem_bytes; b++)
		tile->data[i * tile->dims.elem_bytes + b] = (uint8_t)(u >> 8 * b);
}

/* Adds how often symbols occur in elements first to end of a field; returns how many values are none. */
static uint64_t count_plainly(const struct tile *tile, uint32_t f, size_t first, size_t end,
			      uint64_t count[WCX_SYMBOL_COUNT])
{
	uint64_t misfits = 0;

	for (size_t i = first; i < end; i++) {
		int symbol = plain_symbol(&tile->model->fields[f], value_at(tile, f, i));

		if (symbol >= 0)
			count[symbol]++;
		else
			misfits++;
	}
	return misfits;
}

/*
 * Makes the model's tables from a tile of it, each from the runs meant for it.  `least` is what is counted for every symbol
 * that there can be: with 0, only those that occur have a frequency.
 */
static void model_learn(struct model *model, const struct tile *tile, uint64_t least)
{
	for (uint32_t f = 0; f < model->recipe.field_count; f++) {
		uint32_t tables = model->fields[f].table_count,
			 symbols = model->fields[f].width < 8 ? 1u << model->fields[f].width : 256;
		uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT] = { { 0 } };

		for (uint32_t t = 0; t < tables; t++)
			for (uint32_t s = 0; s < symbols; s++)
				count[t][s] =
					s == 0 && least == 0 ? 1 : least; /* one that is never chosen has symbols too */
		for (size_t i = 0; tables && i < tile->n; i++)
			count_plainly(tile, f, i, i + 1, count[table_meant(model, f, i)]);
		for (uint32_t t = 0; t < tables; t++)
			wcx_freq_table_build(count[t], &model->tables[f][t]);
	}
	CHECK(wcx_recipe_check(&model->recipe) == NULL);
}

static void encode_tile(struct tile *tile)
{
	struct wcx_encoded_tile encoded;
	enum wcx_result result =
		wcx_tile_encode(&tile->dims, tile->data, &tile->model->recipe, encode_scratch, tile->packed, &encoded);

	tile->mode = encoded.mode;
	tile->constant = encoded.constant;
	tile->packed_bytes = encoded.bytes;
	CHECK(result == WCX_OK);
	CHECK(guards_are_whole(tile->packed, tile->bytes));
}

/* Decodes with one variant, into dst, which has guards; src has nothing behind its end. */
static enum wcx_result decode_with(unsigned variant, const struct tile *tile, const uint8_t *src, size_t src_bytes,
				   uint8_t *dst)
{
	struct wcx_tile_job job = {
		.dims = tile->dims,
		.mode = tile->mode,
		.constant = tile->constant,
		.recipe = &tile->model->recipe,
		.src = src,
		.src_bytes = src_bytes,
		.dst = dst,
		.dst_bytes = tile->bytes,
	};
	enum wcx_result result = wcx_tile_decode(&job, decode_scratch[variant]);

	CHECK(result == job.result);
	CHECK(result == WCX_OK || result == WCX_BAD_DATA);
	CHECK(guards_are_whole(dst, tile->bytes));
	return result;
}

/* Decodes bytes into dst with every variant; all must do alike, and with coded ones as the plain decoder does. */
static enum wcx_result decode_exactly(const struct tile *tile, const uint8_t *src, size_t src_bytes, uint8_t *dst)
{
	uint8_t *memory, *copy = copy_exactly(src, src_bytes, &memory), *plainly = malloc(tile->bytes);
	enum wcx_result result = WCX_BAD_DATA;

	if (tile->mode == WCX_TILE_CODED)
		result = plain_decode(&tile->dims, &tile->model->recipe, copy, src_bytes, plainly) ? WCX_OK : WCX_BAD_DATA;
	for (unsigned i = 0; wcx_decode_variant_at(i); i++) {
		uint8_t *decoded = guarded_alloc(tile->bytes);
		enum wcx_result with = decode_with(i, tile, copy, src_bytes, decoded);

		if (i == 0 && tile->mode != WCX_TILE_CODED) {
			result = with;
			memcpy(plainly, decoded, tile->bytes);
		}
		if (!CHECK(with == result) || !CHECK(result != WCX_OK || memcmp(decoded, plainly, tile->bytes) == 0))
			fprintf(stderr, "\tvariant %s\n", wcx_decode_variant_at(i)->name);
		guarded_free(decoded);
	}
	if (result == WCX_OK)
		memcpy(dst, plainly, tile->bytes);
	free(memory);
	free(plainly);
	return result;
}

static void check_round_trip(struct tile *tile)
{
	uint8_t *decoded = malloc(tile->bytes);

	encode_tile(tile);
	if (tile->mode == WCX_TILE_STORED)
		CHECK(tile->packed_bytes == tile->bytes && memcmp(tile->packed, tile->data, tile->bytes) == 0);
	else if (tile->mode == WCX_TILE_CONSTANT)
		CHECK(tile->packed_bytes == 0);
	else
		CHECK(tile->mode == WCX_TILE_CODED && tile->packed_bytes < tile->bytes);
	if (CHECK(decode_exactly(tile, tile->packed, tile->packed_bytes, decoded) == WCX_OK))
		CHECK(memcmp(decoded, tile->data, tile->bytes) == 0);
	free(decoded);
}

static struct wcx_tile_layout layout_of(const struct tile *tile)
{
	struct wcx_tile_layout layout = { 0 };

	CHECK(tile->mode == WCX_TILE_CODED);
	CHECK(wcx_tile_parse(&tile->dims, &tile->model->recipe, tile->packed, tile->packed_bytes, &layout) == WCX_OK);
	return layout;
}

static enum wcx_field_coding coding_of(const struct tile *tile, uint32_t f)
{
	return (enum wcx_field_coding)bits_at(tile->packed, 2 * f, 2);
}

/* The table that a run of the field is coded with. */
static uint32_t choice_of(const struct tile *tile, uint32_t f, size_t run)
{
	const struct wcx_field *field = &tile->model->fields[f];
	struct wcx_tile_layout layout = layout_of(tile);
	uint32_t i = 0, bits = field->table_count == 4 ? 2 : 1;

	while (i + 1 < layout.coded_count && layout.coded[i].field != f)
		i++;
	if (!CHECK(i < layout.coded_count && layout.coded[i].field == f))
		return 0;
	return bits_at(tile->packed + layout.coded[i].offset - plain_choices_bytes(&tile->model->recipe, field, tile->n),
		       run * bits, bits);
}

/* --- what comes back --- */

/* How many tiles whose last field is coded as pairs were seen to have what. */
struct seen_pairs {
	unsigned all, many_lines, runs, exceptions, scarce, without_words, ragged, odd, exceptions_carried;
};

/* What tiles of random recipes were seen to have, so that the test cannot pass without it. */
struct seen {
	uint64_t raw_widths, coded_widths, constant_widths; /* sets of widths; */
	uint64_t planes[4];                                 /* of planes, for each size of an element; */
	uint64_t table_counts, pair_table_counts, transforms, predictors, modes, exception_bytes;
	unsigned plane_carried, exceptions_carried, exceptions_stored, none_carried, without_coded, most_coded, with_base,
		ragged;
	/* Fields of ZERO that have both zeros and others, at a base above 0. */
	unsigned zero;
	struct seen_pairs fused, pairs; /* with FOLD, four raw bits and nothing else; otherwise */
};

static int has_both_zeros_and_others(const struct tile *tile, uint32_t f)
{
	size_t zeros = 0;

	for (size_t i = 0; i < tile->n; i++)
		zeros += value_at(tile, f, i) == 0;
	return zeros > 0 && zeros < tile->n;
}

/* What a tile has whose last field is coded as pairs. */
static void note_pairs(const struct tile *tile, const struct wcx_tile_layout *layout, struct seen *seen)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	const struct wcx_coded_field *coded = &layout->coded[layout->coded_count - 1];
	const size_t lines = (tile->n + 127) / 128;
	int fused = recipe->transform == WCX_TRANSFORM_FOLD && recipe->field_count == 2 && recipe->fields[0].width == 4 &&
		    coding_of(tile, 0) == WCX_FIELD_RAW;
	struct seen_pairs *pairs = fused ? &seen->fused : &seen->pairs;

	seen->pair_table_counts |= UINT64_C(1) << recipe->fields[coded->field].table_count;
	pairs->all++;
	/* More words than the last lines can take: many are decoded in the fast loops. */
	pairs->many_lines += lines > 100 && coded->words_bytes > 4096;
	pairs->runs += recipe->fields[coded->field].table_count > 1 && tile->n > 2 * (size_t)recipe->run;
	pairs->exceptions += layout->exception_count > 0;
	/* Those loops end where 256 bytes are left, with many lines to go; or they do not start. */
	pairs->scarce += coded->words_bytes > 256 && coded->words_bytes < 16 * lines;
	pairs->without_words += coded->words_bytes < 128 && lines > 8;
	pairs->ragged += tile->n % 128 != 0;
	pairs->odd += tile->n % 2 != 0;
	pairs->exceptions_carried += layout->exception_carried > 0;
}

static void note_field(const struct tile *tile, uint32_t f, struct seen *seen)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	const struct wcx_field *field = &recipe->fields[f];
	uint64_t *widths[] = { &seen->raw_widths, &seen->coded_widths, &seen->constant_widths };

	*widths[coding_of(tile, f)] |= UINT64_C(1) << field->width;
	if (coding_of(tile, f) == WCX_FIELD_RAW)
		seen->planes[__builtin_ctz(recipe->elem_bytes)] |= field->width;
	if (coding_of(tile, f) == WCX_FIELD_RANS) {
		seen->table_counts |= UINT64_C(1) << field->table_count;
		seen->with_base += field->base != 0 && !field->has_zero;
		seen->zero += field->base != 0 && field->has_zero && has_both_zeros_and_others(tile, f);
	}
}

static void note_seen(const struct tile *tile, struct seen *seen)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	const uint32_t size = (uint32_t)__builtin_ctz(recipe->elem_bytes);
	struct wcx_tile_layout layout;

	seen->modes |= UINT64_C(1) << tile->mode;
	if (tile->mode != WCX_TILE_CODED)
		return;
	layout = layout_of(tile);
	seen->transforms |= UINT64_C(1) << (4 * recipe->transform + size);
	seen->predictors |= UINT64_C(1) << (4 * recipe->predictor + size);
	seen->plane_carried += layout.plane_carried != 0;
	seen->exceptions_carried += layout.exception_carried != 0;
	seen->exceptions_stored += layout.exception_count && !layout.exception_carried;
	seen->none_carried += layout.coded_count && !layout.plane_carried && !layout.exception_carried;
	if (layout.exception_count)
		seen->exception_bytes |= UINT64_C(1)
					 << (recipe->fields[layout.coded[layout.coded_count - 1].field].width > 8);
	seen->without_coded += layout.coded_count == 0;
	seen->ragged += tile->n % 128 != 0;
	if (layout.coded_count > seen->most_coded)
		seen->most_coded = layout.coded_count;
	if (layout.coded_count && recipe->fields[layout.coded[layout.coded_count - 1].field].is_pair)
		note_pairs(tile, &layout, seen);
	for (uint32_t f = 0; f < recipe->field_count; f++)
		note_field(tile, f, seen);
}

/* Bits that are coded, or could be. */
static void add_random_field(struct model *model, uint32_t width, int is_pair, struct sample_random *random)
{
	uint32_t tables = 0, base = 0, source = NOISE;
	double sigma = ldexp(0.02 + sample_unit(random) / 4, width < 8 ? (int)width : 8);
	struct wcx_field *field;

	if (is_pair || (width <= 16 && sample_below(random, 4))) {
		tables = 1u << sample_below(random, 3);
		base = width > 8 ? (uint32_t)sample_below(random, (1u << width) - 255) : 0;
		source = sample_below(random, 6) ? BELL : NOISE;
		sigma /= sample_below(random, 4) ? 1 : 8;
	}
	if (sample_below(random, 8) == 0)
		source = EQUAL;
	field = model_add(model, width, tables, base, (enum source)source, sigma);
	field->is_pair = (uint8_t)is_pair;
	field->has_zero = tables && width > 8 && sample_below(random, 2);
}

/* Fields of random widths, among them those of weights in a byte; false when they are too many, or have too many planes. */
static int add_random_fields(struct model *model, struct sample_random *random)
{
	const uint32_t pair_bits = model->recipe.elem_bytes == 1 && sample_below(random, 2) ? 4 : 0;
	uint32_t left = 8u * model->recipe.elem_bytes - pair_bits, planes = 0;

	if (pair_bits && sample_below(random, 2)) {
		model_add(model, left, 0, 0, NOISE, 0);
		left = 0;
	}
	while (left && model->recipe.field_count < WCX_FIELDS_MAX) {
		uint32_t width = 1 + (uint32_t)sample_below(random, left < 32 ? left : 32);

		add_random_field(model, width, 0, random);
		left -= width;
	}
	if (pair_bits && model->recipe.field_count < WCX_FIELDS_MAX)
		add_random_field(model, pair_bits, 1, random);
	else
		left += pair_bits;
	for (uint32_t f = 0; f < model->recipe.field_count; f++)
		planes += (uint32_t)__builtin_popcount(model->fields[f].width);
	return left == 0 && planes <= WCX_RAW_PLANES_MAX;
}

/* Any transform that the elements may have, or, without one, any predictor. */
static int draw_transform(struct model *model, struct sample_random *random)
{
	struct wcx_recipe *recipe = &model->recipe;

	recipe->transform = (uint8_t)sample_below(random, WCX_TRANSFORM_COUNT);
	if (recipe->elem_bytes == 1 && sample_below(random, 2))
		recipe->transform = WCX_TRANSFORM_FOLD;
	if (recipe->transform == WCX_TRANSFORM_NONE)
		recipe->predictor = (uint8_t)sample_below(random, WCX_PREDICTOR_COUNT);
	return recipe->transform != WCX_TRANSFORM_FOLD ||
	       (recipe->elem_bytes == 1 && recipe->field_count >= 2 && !model->fields[0].table_count);
}

static void draw_model(struct model *model, struct sample_random *random)
{
	static const uint8_t sizes[] = { 1, 1, 1, 1, 2, 4, 8, 8 };
	uint32_t elem_bytes = sizes[sample_below(random, sizeof sizes)], most_tables = 0;

	do {
		model_start(model, elem_bytes, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE,
			    128u << sample_below(random, 10) | 128 * (uint32_t)sample_below(random, 3));
	} while (!add_random_fields(model, random));
	while (!draw_transform(model, random))
		;
	for (uint32_t f = 0; f < model->recipe.field_count; f++)
		if (model->fields[f].table_count > most_tables)
			most_tables = model->fields[f].table_count;
	if (most_tables <= 1)
		model->recipe.run = 0;
	else if (model->recipe.run > WCX_TILE_MAX_ELEMS)
		model->recipe.run = WCX_TILE_MAX_ELEMS;
}

/* A number of elements at the edge of something, or any; often many of a byte. */
static uint32_t draw_elems(struct sample_random *random, uint32_t elem_bytes)
{
	static const uint32_t edges[] = {
		1, 2, 31, 32, 33, 64, 127, 128, 129, 255, 256, 257, 384, 1024, 16384, 65535, 65536
	};

	if (sample_below(random, 4) == 0)
		return edges[sample_below(random, sizeof edges / sizeof edges[0])];
	if (elem_bytes == 1 && sample_below(random, 6) == 0)
		return 1 + (uint32_t)sample_below(random, WCX_TILE_MAX_ELEMS);
	return 1 + (uint32_t)sample_below(random, 6000);
}

static void tiles_of_random_recipes_come_back(void)
{
	struct sample_random random = { 1 };
	struct seen seen = { 0 };

	for (uint64_t round = 0; round < 2000; round++) {
		uint32_t elems, rows;
		struct model model;
		struct tile tile;

		draw_model(&model, &random);
		elems = draw_elems(&random, model.recipe.elem_bytes);
		rows = 1 + (uint32_t)sample_below(&random, elems < 300 ? elems : 300);
		tile_alloc(&tile, &model, rows, elems / rows);
		tile_draw(&tile, round);
		model_learn(&model, &tile, sample_below(&random, 2));
		for (uint32_t f = 0; f < model.recipe.field_count && round % 2; f++)
			model.outliers[f] = model.source[f] == BELL && sample_below(&random, 2) ? 0.01 : 0;
		tile_draw(&tile, round + 2000 * (round % 4 / 2));
		check_round_trip(&tile);
		note_seen(&tile, &seen);
		tile_free(&tile);
	}
	CHECK(seen.raw_widths == 0x1FFFFFFFE);
	CHECK(seen.coded_widths == 0x1FFFE);
	CHECK(seen.constant_widths >> 24 && (seen.constant_widths & 0x1FFFE) == 0x1FFFE);
	/* All planes but those that would be the whole element, which no coded tile can have. */
	CHECK(seen.planes[0] == 0x7 && seen.planes[1] == 0xF && seen.planes[2] == 0x1F && seen.planes[3] == 0x3F);
	CHECK(seen.table_counts == (1 << 1 | 1 << 2 | 1 << 4) && seen.pair_table_counts == seen.table_counts);
	CHECK(seen.transforms == 0x1FF && seen.predictors == 0xFFFF && seen.modes == 0x7);
	CHECK(seen.plane_carried > 50 && seen.none_carried > 50 && seen.without_coded > 10);
	CHECK(seen.exceptions_carried > 10 && seen.exceptions_stored > 10 && seen.exception_bytes == 3);
	CHECK(seen.most_coded > 4 && seen.with_base > 50 && seen.zero > 50 && seen.ragged > 50);
	CHECK(seen.fused.all > 60 && seen.fused.many_lines > 8 && seen.fused.runs > 15 && seen.fused.exceptions > 20);
	CHECK(seen.fused.scarce > 4 && seen.fused.without_words > 4 && seen.fused.ragged > 50 && seen.fused.odd > 10);
	CHECK(seen.pairs.all > 100 && seen.pairs.many_lines > 10 && seen.pairs.runs > 25 && seen.pairs.exceptions > 30);
	CHECK(seen.pairs.scarce > 8 && seen.pairs.without_words > 10 && seen.pairs.ragged > 80 && seen.pairs.odd > 30);
	CHECK(seen.pairs.exceptions_carried > 5);
}

/* The fields of weights. */
enum weights { INT8_WEIGHTS, BF16_WEIGHTS, FP32_WEIGHTS, FP64_WEIGHTS, FOLDED_WEIGHTS, WEIGHTS_COUNT };

/* With a predictor, elements are not transformed. */
static void make_weight_model(struct model *model, enum weights weights, enum wcx_predictor predictor)
{
	static const struct {
		uint32_t elem_bytes;
		enum wcx_transform transform;
		uint32_t raw[2], width, tables, base;
		uint8_t is_pair, has_zero;
		double sigma;
	} kinds[] = {
		[INT8_WEIGHTS] = { 1, WCX_TRANSFORM_NONE, { 3 }, 5, 4, 0, 0, 0, 2 },
		[BF16_WEIGHTS] = { 2, WCX_TRANSFORM_ROTATE, { 6 }, 10, 2, 300, 0, 1, 6 },
		[FP32_WEIGHTS] = { 4, WCX_TRANSFORM_ROTATE, { 22 }, 10, 2, 300, 0, 0, 6 },
		[FP64_WEIGHTS] = { 8, WCX_TRANSFORM_ROTATE, { 32, 19 }, 13, 2, 300, 0, 1, 6 },
		[FOLDED_WEIGHTS] = { 1, WCX_TRANSFORM_FOLD, { 4 }, 4, 2, 0, 1, 0, 2 },
	};
	struct wcx_field *field;

	model_start(model, kinds[weights].elem_bytes, predictor ? WCX_TRANSFORM_NONE : kinds[weights].transform, predictor,
		    256);
	for (int i = 0; i < 2 && kinds[weights].raw[i]; i++)
		model_add(model, kinds[weights].raw[i], 0, 0, NOISE, 0);
	field = model_add(model, kinds[weights].width, kinds[weights].tables, kinds[weights].base, BELL,
			  kinds[weights].sigma);
	field->is_pair = kinds[weights].is_pair;
	field->has_zero = kinds[weights].has_zero;
}

static void small_tiles_of_every_shape_come_back(void)
{
	unsigned modes[WCX_TILE_MODE_COUNT] = { 0 };

	for (uint32_t kind = 0; kind < WEIGHTS_COUNT * WCX_PREDICTOR_COUNT; kind++) {
		struct model model;
		struct tile tile;

		make_weight_model(&model, (enum weights)(kind % WEIGHTS_COUNT), (enum wcx_predictor)(kind / WEIGHTS_COUNT));
		tile_alloc(&tile, &model, 40, 50);
		tile_draw(&tile, 3);
		model_learn(&model, &tile, 1);
		tile_free(&tile);
		for (uint32_t elems = 1; elems <= 300; elems++) {
			for (uint32_t rows = 1; rows <= elems; rows++) {
				if (elems % rows)
					continue;
				tile_alloc(&tile, &model, rows, elems / rows);
				tile_draw(&tile, elems);
				check_round_trip(&tile);
				modes[tile.mode]++;
				tile_free(&tile);
			}
		}
	}
	/* A lone element is constant, and a few are too few to be coded, whatever they are. */
	CHECK(modes[WCX_TILE_CONSTANT] > 0 && modes[WCX_TILE_STORED] > 0 && modes[WCX_TILE_CODED] > 0);
}

/* From a line or two on, each with some elements more than another: words, pairs, lanes and units are cut at every place. */
static void tiles_of_every_number_of_elements_come_back(void)
{
	for (uint32_t weights = 0; weights < WEIGHTS_COUNT; weights++) {
		unsigned coded = 0;
		struct model model;
		struct tile tile;

		make_weight_model(&model, (enum weights)weights, WCX_PREDICT_NONE);
		tile_alloc(&tile, &model, 40, 50);
		tile_draw(&tile, 3);
		model_learn(&model, &tile, 1);
		tile_free(&tile);
		for (uint32_t elems = 500; elems < 1050; elems++) {
			tile_alloc(&tile, &model, 1, elems);
			tile_draw(&tile, elems);
			check_round_trip(&tile);
			coded += tile.mode == WCX_TILE_CODED;
			tile_free(&tile);
		}
		CHECK(coded > 400);
	}
}

static void large_tiles_come_back(void)
{
	static const uint32_t sides[][2] = {
		{ 256, 256 }, { 1, 65536 }, { 65536, 1 }, { 255, 257 }, { 3, 21845 }, { 129, 508 },
	};

	for (uint32_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
		for (uint32_t weights = 0; weights < WEIGHTS_COUNT; weights++) {
			struct model model;
			struct tile tile;

			make_weight_model(&model, (enum weights)weights,
					  (enum wcx_predictor)((weights + i) % WCX_PREDICTOR_COUNT));
			tile_alloc(&tile, &model, sides[i][0], sides[i][1]);
			tile_draw(&tile, i);
			model_learn(&model, &tile, 0);
			check_round_trip(&tile);
			CHECK(tile.mode == WCX_TILE_CODED &&
			      coding_of(&tile, model.recipe.field_count - 1u) == WCX_FIELD_RANS);
			tile_free(&tile);
		}
	}
}

/* Ten fields of an element of eight bytes, nine of them with the bytes of a payload in the header. */
static void tile_of_ten_coded_fields_comes_back(void)
{
	static const uint32_t widths[] = { 4, 4, 4, 8, 8, 8, 8, 8, 6, 6 };
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	size_t end;

	model_start(&model, 8, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 128);
	for (uint32_t f = 0; f < 10; f++)
		model_add(&model, widths[f], 1u << f % 3, 0, BELL, 0.5 + f / 8.0);
	tile_alloc(&tile, &model, 1, 1999);
	tile_draw(&tile, 61);
	model_learn(&model, &tile, 0);
	check_round_trip(&tile);
	layout = layout_of(&tile);
	CHECK(layout.coded_count == 10 && layout.plane_count == 0);
	CHECK(wcx_le32_read(tile.packed) == 0x55555); /* and no exceptions */
	end = 4 + 9 * 4;
	for (uint32_t i = 0; i < 10; i++) {
		size_t choices = plain_choices_bytes(&model.recipe, &model.fields[i], tile.n);
		size_t bytes = choices + layout.coded[i].states_bytes + layout.coded[i].words_bytes;

		CHECK(layout.coded[i].field == i && layout.coded[i].offset == padded(end, 4) + choices);
		CHECK(i == 9 || bytes == wcx_le32_read(tile.packed + 4 + 4 * i));
		end = padded(end, 4) + bytes;
	}
	CHECK(end == tile.packed_bytes);
	tile_free(&tile);
}

/* However few bits the last plane has, it is a unit at least. */
static void last_plane_is_carried_whatever_its_size(void)
{
	for (uint32_t width = 1; width <= 8; width *= 2) {
		const uint32_t unit = 32 * 32 / width; /* elements */

		for (uint32_t elems = unit - 1; elems <= unit + 1; elems++) {
			const size_t whole = elems > unit ? 256 : 128;
			struct wcx_tile_layout layout;
			struct model model;
			struct tile tile;

			model_start(&model, 4, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
			model_add(&model, 16, 1, 1000, BELL, 0.7);
			model_add(&model, 16 - width, 0, 0, EQUAL, 0);
			model_add(&model, width, 0, 0, NOISE, 0);
			tile_alloc(&tile, &model, 1, elems);
			tile_draw(&tile, elems);
			model_learn(&model, &tile, 0);
			check_round_trip(&tile);
			layout = layout_of(&tile);
			CHECK(layout.plane_count == 1 && layout.coded_count == 1);
			CHECK(layout.planes[0].offset == 8 && layout.planes[0].width == width &&
			      layout.planes[0].shift == 32 - width);
			CHECK(layout.plane_carried == 64 && layout.exception_carried == 0);
			CHECK(layout.coded[0].offset == 8 + whole - 64);
			tile_free(&tile);
		}
	}
}

static void tile_that_does_not_pay_is_stored(void)
{
	struct model model;
	struct tile tile;

	model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	tile_alloc(&tile, &model, 64, 64);
	tile_draw(&tile, 31);
	model_learn(&model, &tile, 0);
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_STORED);
	tile_free(&tile);
}

/* Whether what they are decoded from is right or of another size, or of a mode that is fs's to decode. */
static void tiles_that_are_not_coded_need_no_scratch(void)
{
	struct sample_random random = { 33 };
	uint8_t src[600], *dst = guarded_alloc(sizeof src);
	struct wcx_tile_job job = {
		.dims = { 10, 20, 3 },
		.src = src,
		.src_bytes = sizeof src,
		.dst = dst,
		.dst_bytes = sizeof src,
	};

	sample_fill(&random, SAMPLE_GAUSSIAN, 30, src, sizeof src);
	CHECK(wcx_tile_decode(&job, NULL) == WCX_WRONG_SIZE);
	job.dims = (struct wcx_tile_dims){ 6, 50, 2 };
	CHECK(wcx_tile_decode(&job, NULL) == WCX_OK && memcmp(dst, src, sizeof src) == 0);
	job.src_bytes--;
	CHECK(wcx_tile_decode(&job, NULL) == WCX_BAD_DATA);
	job.mode = WCX_TILE_ZSTD;
	CHECK(wcx_tile_decode(&job, NULL) == WCX_BAD_DATA);
	job.mode = WCX_TILE_CONSTANT;
	job.constant = 0xFEDC;
	CHECK(wcx_tile_decode(&job, NULL) == WCX_OK);
	for (size_t i = 0; i < sizeof src; i++)
		src[i] = i % 2 ? 0xFE : 0xDC;
	CHECK(memcmp(dst, src, sizeof src) == 0 && guards_are_whole(dst, sizeof src));
	guarded_free(dst);
}

static void field_that_does_not_pay_is_raw_beside_one_that_does(void)
{
	struct model model;
	struct tile tile;

	model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_UP, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	model_add(&model, 8, 1, 0, BELL, 2);
	tile_alloc(&tile, &model, 20, 50);
	tile_draw(&tile, 32);
	model_learn(&model, &tile, 0);
	check_round_trip(&tile);
	CHECK(layout_of(&tile).plane_count == 1);
	CHECK(coding_of(&tile, 0) == WCX_FIELD_RAW && coding_of(&tile, 1) == WCX_FIELD_RANS);
	tile_free(&tile);
}

static void tile_of_equal_elements_is_constant_if_they_fit_in_its_entry(void)
{
	static const struct {
		uint64_t element;
		uint32_t elem_bytes;
		enum wcx_tile_mode mode;
	} cases[] = {
		{ 0, 1, WCX_TILE_CONSTANT },
		{ 0x81, 1, WCX_TILE_CONSTANT },
		{ 0xFEDC, 2, WCX_TILE_CONSTANT },
		{ 0xFEDCBA98, 4, WCX_TILE_CONSTANT },
		{ 0xFEDCBA98, 8, WCX_TILE_CONSTANT },
		{ UINT64_C(0x1FEDCBA98), 8, WCX_TILE_CODED },
		{ UINT64_C(0x8877665544332211), 8, WCX_TILE_CODED },
	};

	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		struct model model;
		struct tile tile;

		model_start(&model, cases[c].elem_bytes, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 0);
		for (uint32_t f = 0; f < cases[c].elem_bytes; f++)
			model_add(&model, 8, 0, 0, NOISE, 0);
		tile_alloc(&tile, &model, 5, 7);
		for (size_t i = 0; i < tile.bytes; i++)
			tile.data[i] = (uint8_t)(cases[c].element >> 8 * (i % cases[c].elem_bytes));
		check_round_trip(&tile);
		CHECK(tile.mode == cases[c].mode);
		if (tile.mode == WCX_TILE_CONSTANT)
			CHECK(tile.constant == cases[c].element);
		else
			CHECK(tile.packed_bytes == 36); /* a header with eight numbers */
		tile_free(&tile);
	}
}

/* Whether it has tables or not, and up to its highest bit; the numbers stand in the order of the fields. */
static void field_of_one_value_is_constant_whatever_it_is(void)
{
	static const uint32_t values[] = { 0, 0xFFFFFF, 0x1000000, 0x80000000, 0xFFFFFFFF };

	for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
		struct model model;
		struct tile tile;

		model_start(&model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model_add(&model, 32, 0, 0, EQUAL, 0);
		model_add(&model, 16, 0, 0, NOISE, 0);
		model_add(&model, 8, 0, 0, EQUAL, 0);
		model_add(&model, 8, 1, 0, EQUAL, 0);
		tile_alloc(&tile, &model, 10, 10);
		tile_draw(&tile, v);
		model_learn(&model, &tile, 1);
		for (size_t i = 0; i < tile.n; i++)
			wcx_le32_write(tile.data + 8 * i, values[v]);
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED);
		CHECK(wcx_le32_read(tile.packed) ==
		      (WCX_FIELD_CONSTANT | WCX_FIELD_CONSTANT << 4 | WCX_FIELD_CONSTANT << 6));
		CHECK(wcx_le32_read(tile.packed + 4) == values[v]);
		CHECK(wcx_le32_read(tile.packed + 8) == 0xA5 && wcx_le32_read(tile.packed + 12) == 0xA5);
		CHECK(tile.packed_bytes == 16 + plain_plane_bytes(&model.recipe, 100, 16));
		tile_free(&tile);
	}
}

/*
 * Tiles of two coded fields, the lower of 10 bits above base 500 and the upper of 6 bits, which is the carrier; their tables
 * have the symbols that occur in the tile.
 */
static void make_two_field_tile(struct model *model, struct tile *tile, uint32_t tables, uint32_t has_zero)
{
	model_start(model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, tables > 1 ? 256 : 0);
	model_add(model, 10, tables, 500, BELL, 4)->has_zero = (uint8_t)has_zero;
	model_add(model, 6, tables, 0, BELL, 1);
	tile_alloc(tile, model, 1, 2100);
	tile_draw(tile, 71);
	model_learn(model, tile, 0);
	check_round_trip(tile);
	CHECK(coding_of(tile, 0) == WCX_FIELD_RANS && coding_of(tile, 1) == WCX_FIELD_RANS);
	CHECK(layout_of(tile).exception_count == 0);
}

static void value_without_a_symbol_or_a_frequency_is_an_exception_of_the_carrier(void)
{
	/* No symbols: below the base, and beyond the last one; at it, if 0 is a symbol, and 0, if not.  700 and 50 are
	 * symbols that no table has. */
	static const struct {
		uint32_t field, value;
		int excepted[2]; /* without ZERO, and with it */
	} cases[] = {
		{ 0, 0, { 1, 0 } },   { 0, 1, { 1, 1 } },   { 0, 499, { 1, 1 } }, { 0, 500, { 0, 1 } },
		{ 0, 501, { 0, 0 } }, { 0, 755, { 1, 1 } }, { 0, 756, { 1, 1 } }, { 0, 1023, { 1, 1 } },
		{ 0, 700, { 1, 1 } }, { 1, 50, { 1, 1 } },  { 1, 63, { 1, 1 } },
	};

	for (uint32_t tables = 1; tables <= 4; tables *= 2) {
		for (size_t c = 0; c < 2 * sizeof cases / sizeof cases[0]; c++) {
			uint32_t f = cases[c / 2].field, excepted = (uint32_t)cases[c / 2].excepted[c % 2];
			struct model model;
			struct tile tile;

			make_two_field_tile(&model, &tile, tables, c % 2);
			change_value(&tile, 2099, f, cases[c / 2].value);
			check_round_trip(&tile);
			/* Below the carrier, there are no exceptions: the field is raw. */
			CHECK(coding_of(&tile, 0) == (f || !excepted ? WCX_FIELD_RANS : WCX_FIELD_RAW));
			CHECK(coding_of(&tile, 1) == WCX_FIELD_RANS && layout_of(&tile).exception_count == (f & excepted));
			/* With the upper field constant, the lower one is the carrier. */
			for (size_t i = 0; i < tile.n && f == 0; i++)
				change_value(&tile, i, 1, 33);
			check_round_trip(&tile);
			CHECK(coding_of(&tile, 1) == (f ? WCX_FIELD_RANS : WCX_FIELD_CONSTANT));
			CHECK(coding_of(&tile, f) == WCX_FIELD_RANS && layout_of(&tile).exception_count == excepted);
			tile_free(&tile);
		}
	}
}

/*
 * A tile of folded weights with magnitudes of 0, and of 1 once in 64; their table has 4048, 16, 15 and 17 for 0 to 3, so
 * that pairs of 2 with 1, 2 and 3 have no frequency, nor has any with 4 or more.
 */
static void make_pair_tile(struct model *model, struct tile *tile, uint32_t elems)
{
	struct sample_random random = { 75 };

	model_start(model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
	model_add(model, 4, 0, 0, NOISE, 0);
	model_add(model, 4, 1, 0, EQUAL, 0)->is_pair = 1;
	model->tables[1][0] = (struct wcx_freq_table){ .freq = { 4048, 16, 15, 17 } };
	tile_alloc(tile, model, 1, elems);
	tile_draw(tile, 76);
	for (size_t i = 0; i < elems; i++)
		change_value(tile, i, 1, sample_below(&random, 64) == 0);
}

/* As few halves as possible are exceptions: their place is taken by a value that goes with the other half. */
static void half_of_a_pair_without_a_frequency_is_an_exception(void)
{
	static const struct {
		uint32_t halves[2];
		uint32_t count;
	} cases[] = {
		{ { 0, 1 }, 0 }, { { 1, 1 }, 0 }, { { 1, 3 }, 0 }, { { 3, 3 }, 0 }, { { 0, 2 }, 0 },  { { 2, 0 }, 0 },
		{ { 1, 2 }, 1 }, { { 2, 1 }, 1 }, { { 2, 2 }, 1 }, { { 2, 3 }, 1 }, { { 0, 4 }, 1 },  { { 4, 0 }, 1 },
		{ { 4, 1 }, 1 }, { { 2, 9 }, 1 }, { { 9, 2 }, 1 }, { { 4, 4 }, 2 }, { { 15, 9 }, 2 }, { { 5, 15 }, 2 },
	};
	/* In the first line, in one in the middle, in the last unit, and in a pair of which one half is missing. */
	static const size_t places[] = { 0, 6 * 128 + 78, 2100, 2200 };

	for (size_t c = 0; c < 4 * sizeof cases / sizeof cases[0]; c++) {
		const size_t at = places[c % 4];
		const uint32_t *halves = cases[c / 4].halves;
		uint32_t count = at == 2200 ? halves[0] > 3 : cases[c / 4].count;
		struct wcx_tile_layout layout;
		const uint8_t *exceptions;
		struct model model;
		struct tile tile;

		make_pair_tile(&model, &tile, 2201);
		change_value(&tile, at, 1, halves[0]);
		if (at < 2200)
			change_value(&tile, at + 1, 1, halves[1]);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(coding_of(&tile, 1) == WCX_FIELD_RANS && layout.exception_count == count);
		exceptions = tile.packed + layout.exception_offset;
		for (uint32_t i = 0; i < layout.exception_count; i++) {
			uint32_t position = bits_at(exceptions, 16 * i, 16);

			CHECK(position == at || position == at + 1);
			CHECK(exceptions[2 * count + i] == halves[position - at]);
		}
		tile_free(&tile);
	}
}

/* The states carry 64 bytes of exceptions for nothing: two or more are made so many, if no raw plane is carried. */
static void exceptions_are_carried_where_no_plane_is(void)
{
	for (uint32_t narrow = 0; narrow < 2; narrow++) {
		const uint32_t each = narrow ? 3 : 4, enough = narrow ? 21 : 16;

		for (uint32_t count = 0; count <= 40; count++) {
			struct wcx_tile_layout layout;
			struct model model;
			struct tile tile;
			uint32_t made;

			make_two_field_tile(&model, &tile, 1, count % 2);
			for (size_t i = 0; i < tile.n && !narrow; i++)
				change_value(&tile, i, 1, 33);
			for (uint32_t i = 0; i < count; i++)
				change_value(&tile, i == 1 ? 3 : 50 * i, narrow, narrow ? 40 : 400);
			check_round_trip(&tile);
			layout = layout_of(&tile);
			made = count < 2 || count > enough ? count : enough;
			CHECK(layout.exception_count == made);
			CHECK(layout.exception_bytes == padded(made * each, 2));
			CHECK(layout.exception_carried == (made >= enough ? 64 : 0) && layout.plane_carried == 0);
			tile_free(&tile);
		}
	}
}

/* Beside a raw plane, which is carried, exceptions are no more than there must be, and all stored. */
static void exceptions_are_stored_where_a_plane_is_carried(void)
{
	for (uint32_t count = 1; count <= 40; count++) {
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;

		make_pair_tile(&model, &tile, 2000);
		for (uint32_t i = 0; i < count; i++)
			change_value(&tile, 50 * i, 1, 4 + i % 12);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(layout.exception_count == count && layout.exception_bytes == padded(3 * count, 2));
		CHECK(layout.exception_carried == 0 && layout.plane_carried == 64);
		CHECK(layout.exception_offset == 4 + 8 * 128 - 64);
		CHECK(layout.coded[0].offset == padded(layout.exception_offset + layout.exception_bytes, 4));
		tile_free(&tile);
	}
}

static void exceptions_are_4095_at_most(void)
{
	for (uint32_t count = 4095; count <= 4096; count++) {
		struct model model;
		struct tile tile;

		model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model_add(&model, 8, 1, 0, BELL, 3);
		model_add(&model, 8, 1, 0, BELL, 3);
		tile_alloc(&tile, &model, 256, 256);
		tile_draw(&tile, 72);
		model_learn(&model, &tile, 0);
		for (size_t i = 0; i < count; i++)
			tile.data[2 * (65535 - 16 * i) + 1] = 111;
		tile.data[8] = 111;
		check_round_trip(&tile);
		/* Else the field is raw, and the one below it is the carrier. */
		CHECK(coding_of(&tile, 1) == (count == 4095 ? WCX_FIELD_RANS : WCX_FIELD_RAW));
		CHECK(coding_of(&tile, 0) == (count == 4095 ? WCX_FIELD_RAW : WCX_FIELD_RANS));
		CHECK(layout_of(&tile).exception_count == (count == 4095 ? count : 1));
		tile_free(&tile);

		make_pair_tile(&model, &tile, 65536);
		for (uint32_t i = 0; i < count; i++)
			change_value(&tile, 65535 - 16 * i, 1, 4 + i % 12);
		check_round_trip(&tile);
		CHECK(tile.mode == (count == 4095 ? WCX_TILE_CODED : WCX_TILE_STORED));
		CHECK(count != 4095 || layout_of(&tile).exception_count == count);
		tile_free(&tile);
	}
}

/* Bits for a run with a table; for a symbol without a frequency, those of an exception and of the symbol in its place. */
static double plain_cost(const struct wcx_freq_table *table, const uint64_t count[WCX_SYMBOL_COUNT])
{
	double bits = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		bits += (double)count[s] * (table->freq[s] ? 12 - log2(table->freq[s]) : 30);
	return bits;
}

/* The table that takes the fewest bits; *margin_ret is by how many. */
static uint32_t plain_choice(const struct wcx_field *field, const uint64_t count[WCX_SYMBOL_COUNT], double *margin_ret)
{
	double least = INFINITY;
	uint32_t choice = 0;

	*margin_ret = INFINITY;
	for (uint32_t t = 0; t < field->table_count; t++) {
		double cost = plain_cost(&field->tables[t], count);

		*margin_ret = fmin(*margin_ret, fabs(cost - least));
		if (cost < least) {
			least = cost;
			choice = t;
		}
	}
	return choice;
}

/*
 * Runs of symbols 0 and 1, but two have one more, which only a table has that is bad for the others.  In the carrier that
 * symbol is an exception; in a field below, the run must take that table.
 */
static void run_below_the_carrier_takes_a_table_that_has_all_its_symbols(void)
{
	for (uint32_t tables = 2; tables <= 4; tables += 2) {
		for (uint32_t f = 0; f < 2; f++) {
			struct model model;
			struct tile tile;

			model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 384);
			model_add(&model, 8, tables, 0, BELL, 0.3);
			model_add(&model, 8, tables, 0, BELL, 0.3);
			tile_alloc(&tile, &model, 1, 384 * 7 + 5);
			tile_draw(&tile, 81);
			for (size_t i = 0; i < tile.bytes; i++)
				tile.data[i] &= 1;
			model_learn(&model, &tile, 0);
			for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
				model.tables[f][tables - 1].freq[s] = 16;
			tile.data[2 * (384 * 3 + 11) + f] = 99;
			tile.data[2 * (tile.n - 1) + f] = 99;
			check_round_trip(&tile);
			CHECK(coding_of(&tile, 0) == WCX_FIELD_RANS && coding_of(&tile, 1) == WCX_FIELD_RANS);
			CHECK((layout_of(&tile).exception_count > 0) == f);
			for (size_t run = 0; run < 7; run++)
				CHECK((choice_of(&tile, f, run) == tables - 1) == (f == 0 && run == 3));
			tile_free(&tile);
		}
	}
}

/* The same tables, first for a field of 4 bits, then for one of 8, where a symbol has no frequency, and then for pairs. */
static void scratch_serves_one_recipe_after_the_other(void)
{
	struct model narrow, wide, pairs;
	struct tile tile;

	model_start(&narrow, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&narrow, 4, 1, 0, BELL, 2);
	model_add(&narrow, 4, 0, 0, NOISE, 0);
	tile_alloc(&tile, &narrow, 20, 50);
	tile_draw(&tile, 91);
	model_learn(&narrow, &tile, 0);
	check_round_trip(&tile);
	CHECK(coding_of(&tile, 0) == WCX_FIELD_RANS);
	tile_free(&tile);

	model_start(&wide, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&wide, 8, 1, 0, BELL, 2);
	wide.tables[0][0] = narrow.tables[0][0];
	tile_alloc(&tile, &wide, 20, 50);
	tile_draw(&tile, 92);
	for (size_t i = 0; i < tile.n; i++)
		tile.data[i] &= 3;
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	tile.data[777] = 200;
	check_round_trip(&tile);
	CHECK(layout_of(&tile).exception_count == 1);
	tile_free(&tile);

	for (uint32_t is_pair = 0; is_pair < 4; is_pair++) {
		model_start(&pairs, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model_add(&pairs, 4, 0, 0, NOISE, 0);
		model_add(&pairs, 4, 1, 0, BELL, 1)->is_pair = is_pair % 2;
		pairs.tables[1][0] = narrow.tables[0][0];
		tile_alloc(&tile, &pairs, 20, 50);
		tile_draw(&tile, 93);
		check_round_trip(&tile);
		CHECK(coding_of(&tile, 1) == WCX_FIELD_RANS);
		tile_free(&tile);
	}
}

/* --- known bytes --- */

/*
 * A tile of 200 weights of a byte: folded, four raw bits, and four coded as pairs, of which only 0 and 1 occur, alike often:
 * pairs have a frequency of 1024 each.  Made from the text of the format alone:
 *
 *	u = [(7 * i ^ i * i // 5) & 15 | (i * i // 3 & 1) << 4 for i in range(200)]
 *	el = [(x ^ 0xF0 * (x & 1)) >> 1 | (x & 1) << 7 for x in u]
 *	unit = [0] * 32
 *	for i in range(200):
 *		raw = (el[i] & 0x87) << 8 * (i % 4) << 4 * (i // 128)
 *		unit[i % 128 // 4] |= (raw | raw >> 32) & 0xFFFFFFFF
 *	plane = b"".join(x.to_bytes(4, "little") for x in unit)
 *	state = [0x10000 | int.from_bytes(plane[64 + 2 * l:66 + 2 * l], "little") for l in range(32)]
 *	for i in sorted(range(0, 200, 2), key=lambda i: (i // 128, i % 4, i), reverse=True):
 *		l = i % 128 // 4
 *		pair = (u[i] >> 4) + 2 * (u[i + 1] >> 4)
 *		state[l] = state[l] // 1024 << 12 | state[l] % 1024 + 1024 * pair
 *	widths = sum(x.bit_length() - 17 << 4 * l for l, x in enumerate(state)).to_bytes(16, "little")
 *	bits = "".join(f"{x:b}"[1:] for x in reversed(state))
 *	starts = int(bits, 2).to_bytes((len(bits) + 15) // 16 * 2, "little")
 *	tile = (1 << 2).to_bytes(4, "little") + plane[:64] + widths + starts
 */
static const uint8_t known_tile[] = {
	0x04, 0x00, 0x00, 0x00, 0x68, 0xB3, 0x5F, 0x62, 0x87, 0x13, 0xE6, 0x6C, 0x5A, 0xBF, 0x31, 0xA2, 0x24, 0x15,
	0x9A, 0x02, 0x91, 0x5F, 0x47, 0xAE, 0x0E, 0xD5, 0x7D, 0x04, 0xA5, 0x31, 0x80, 0x4E, 0x3C, 0xD9, 0x13, 0xC4,
	0x06, 0x37, 0xFC, 0x20, 0xF7, 0x39, 0x65, 0xC8, 0x2C, 0xF7, 0x1B, 0x26, 0xC3, 0x57, 0xA2, 0x28, 0x1E, 0xFB,
	0x75, 0xE6, 0x60, 0x51, 0xDE, 0x46, 0xD5, 0x1B, 0x03, 0xEA, 0x4A, 0x91, 0x39, 0x40, 0x88, 0x88, 0x88, 0x88,
	0x88, 0x88, 0x88, 0x88, 0x88, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0xE1, 0xF1, 0x75, 0xC4, 0x06, 0x0B,
	0x78, 0x5D, 0x9C, 0x57, 0xF0, 0x81, 0x02, 0x07, 0x03, 0x80, 0x5C, 0x04, 0x83, 0xF1, 0x05, 0x01, 0x04, 0x87,
	0x00, 0x5F, 0x80, 0x07, 0xF2, 0x01, 0x87, 0x07, 0x03, 0x86, 0x5C, 0x04, 0x02, 0xF3, 0x85, 0x01, 0x06, 0x83,
	0x04, 0x5D, 0x04, 0x82, 0xF2, 0x01, 0x81, 0x07, 0x07, 0x07, 0x5E, 0x84, 0x06, 0x71, 0x58, 0x40, 0x04, 0x85,
	0x1D, 0x00, 0x28, 0x07, 0x04, 0x05, 0x38, 0xC0, 0x85, 0x06, 0x73, 0x40, 0x48, 0x00, 0x87, 0x1D, 0x50, 0x00,
	0x83, 0x04, 0x47, 0x38, 0xE0, 0x05, 0x83, 0x73, 0x20, 0x48, 0x00, 0x00,
};

static void known_tile_decodes_to_known_elements_and_back(void)
{
	uint8_t *decoded;
	struct model model;
	struct tile tile;

	model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 1, 0, BELL, 0)->is_pair = 1;
	model.tables[1][0] = (struct wcx_freq_table){ .freq = { 2048, 2048 } };
	tile_alloc(&tile, &model, 8, 25);
	for (unsigned i = 0; i < 200; i++) {
		unsigned u = ((7 * i ^ i * i / 5) & 15) | (i * i / 3 & 1) << 4;

		u ^= u & 1 ? 0xF0 : 0;
		tile.data[i] = (uint8_t)(u >> 1 | (u & 1) << 7);
	}
	tile.mode = WCX_TILE_CODED;
	decoded = malloc(tile.bytes);
	CHECK(decode_exactly(&tile, known_tile, sizeof known_tile, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
	encode_tile(&tile);
	CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == sizeof known_tile);
	CHECK(memcmp(tile.packed, known_tile, sizeof known_tile) == 0);
	free(decoded);
	tile_free(&tile);
}

/* CRC-32 as in zlib, bit by bit. */
static uint32_t crc32_of(const uint8_t *src, size_t bytes)
{
	uint32_t crc = 0xFFFFFFFF;

	for (size_t i = 0; i < 8 * bytes; i++) {
		crc ^= (uint32_t)(src[i / 8] >> i % 8 & 1);
		crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
	}
	return ~crc;
}

/*
 * Tiles of 2500 elements of each size, too large to stand here: of each the size and the CRC-32.  Their lowest bits are raw
 * noise, and the symbols above are the numbers of heads of four or of ten coins, which change places every 256 elements, so
 * that of two tables each takes its turn.  Made from the text of the format alone, for each by known(elem_bytes, transform,
 * bits that are raw, base, ZERO, PAIRS), in half a minute:
 *
 *	import math, zlib
 *
 *	def number(values, widths):
 *	    bits = "".join(f"{v:0{w}b}" for v, w in reversed(list(zip(values, widths))))
 *	    return int(bits, 2), len(bits)
 *
 *	def pair_freqs(m):
 *	    q = [m[p % 16] * m[p // 16] for p in range(256)]
 *	    f = lambda k: [max(1, x * k >> 28) if x >= 256 else 0 for x in q]
 *	    freqs = f(max(k for k in range(2**18) if sum(f(k)) <= 4096))
 *	    freqs[q.index(max(q))] += 4096 - sum(freqs)
 *	    return freqs
 *
 *	def known(e, transform, raw, base, zero, pair):
 *	    bits, p, seed, u, symbols = 8 * e, max(4 // e, 1), e, [], []
 *	    for i in range(2500):
 *	        seed = seed + 0x9E3779B97F4A7C15 & 2**64 - 1
 *	        z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & 2**64 - 1
 *	        z = (z ^ z >> 27) * 0x94D049BB133111EB & 2**64 - 1
 *	        z ^= z >> 31
 *	        symbols.append(bin(z & (1023 if i // 256 % 2 else 15)).count("1"))
 *	        u.append(z >> 64 - raw | (0 if zero and not symbols[i] else base + symbols[i]) << raw)
 *	    planes, shift = [], 0
 *	    for w in (w for w in (32, 16, 8, 4, 2, 1) if raw & w):
 *	        lines = 32 // (w * p)
 *	        unit = [0] * (math.ceil(2500 / (32 * p * lines)) * 32)
 *	        for i, t, b in ((i, i % p, b) for i in range(2500) for b in range(shift, shift + w)):
 *	            line, x = i // (32 * p), b if transform == 0 else (b - 1) % bits
 *	            at = (bits * t + x + w * (line % lines)) % 32
 *	            unit[line // lines * 32 + i // p % 32] |= (u[i] >> b & 1) << at
 *	        planes.append(b"".join(x.to_bytes(4, "little") for x in unit))
 *	        shift += w
 *	    freqs = [[math.comb(c, s) << 12 - c for s in range(256)] for c in (4, 10)]
 *	    steps, run = p, 256
 *	    if pair:
 *	        symbols = [symbols[i] + 16 * symbols[i + 1] for i in range(0, 2500, 2)]
 *	        freqs, steps, run = [pair_freqs(m) for m in freqs], p // 2, 128
 *	    state = [0x10000 | int.from_bytes(planes[-1][2 * l - 64:][:2], "little") for l in range(32)]
 *	    words = b""
 *	    for j in sorted(range(len(symbols)), key=lambda j: (j // (32 * steps), j % steps, j))[::-1]:
 *	        f, l, s = freqs[j // run % 2], j // steps % 32, symbols[j]
 *	        if state[l] >= f[s] << 20:
 *	            words, state[l] = (state[l] & 0xFFFF).to_bytes(2, "little") + words, state[l] >> 16
 *	        state[l] = state[l] // f[s] << 12 | state[l] % f[s] + sum(f[:s])
 *	    k = [x.bit_length() - 1 for x in state]
 *	    widths, _ = number([w - 16 for w in k], [4] * 32)
 *	    starts, length = number([x - 2**w for x, w in zip(state, k)], k)
 *	    choices, _ = number([r % 2 for r in range(10)], [1] * 10)
 *	    tile = (1 << (2 if raw <= 32 else 4)).to_bytes(4, "little") + b"".join(planes)[:-64]
 *	    tile += choices.to_bytes(4, "little") + widths.to_bytes(16, "little")
 *	    tile += starts.to_bytes(math.ceil(length / 16) * 2, "little") + words
 *	    return len(tile), hex(zlib.crc32(tile))
 */
static void known_large_tiles_are_what_they_were(void)
{
	static const struct {
		uint32_t elem_bytes;
		enum wcx_transform transform;
		uint32_t raw, width, base, has_zero, is_pair;
		size_t bytes;
		uint32_t crc;
	} cases[] = {
		{ 1, WCX_TRANSFORM_FOLD, 4, 4, 0, 0, 1, 2042, 0xC836B3E5 },
		{ 2, WCX_TRANSFORM_ROTATE, 6, 10, 100, 1, 0, 2674, 0xE5CDF439 },
		{ 4, WCX_TRANSFORM_ROTATE, 22, 10, 500, 0, 0, 7804, 0xBE0B196D },
		{ 8, WCX_TRANSFORM_NONE, 51, 13, 3000, 1, 0, 17022, 0x6AFC4E55 },
	};
	static const struct wcx_freq_table coins[] = {
		{ { 256, 1024, 1536, 1024, 256 } },
		{ { 4, 40, 180, 480, 840, 1008, 840, 480, 180, 40, 4 } },
	};

	CHECK(crc32_of((const uint8_t *)"123456789", 9) == 0xCBF43926);
	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		struct sample_random random = { cases[c].elem_bytes };
		struct model model;
		struct tile tile;
		struct wcx_field *field;

		model_start(&model, cases[c].elem_bytes, cases[c].transform, WCX_PREDICT_NONE, 256);
		/* Fields have 32 bits at most; two neighbours have the planes of one. */
		if (cases[c].raw > 32)
			model_add(&model, 32, 0, 0, NOISE, 0);
		model_add(&model, cases[c].raw > 32 ? cases[c].raw - 32 : cases[c].raw, 0, 0, NOISE, 0);
		field = model_add(&model, cases[c].width, 2, cases[c].base, BELL, 0);
		field->has_zero = (uint8_t)cases[c].has_zero;
		field->is_pair = (uint8_t)cases[c].is_pair;
		memcpy(model.tables[model.recipe.field_count - 1], coins, sizeof coins);
		tile_alloc(&tile, &model, 1, 2500);
		for (uint32_t i = 0; i < 2500; i++) {
			uint64_t noise = sample_next(&random), u;
			uint32_t heads = (uint32_t)__builtin_popcountll(noise & (i / 256 % 2 ? 1023 : 15));

			u = plain_untransform(&model.recipe, noise >> (64 - cases[c].raw) |
								     (uint64_t)plain_value(field, heads) << cases[c].raw);
			for (uint32_t b = 0; b < cases[c].elem_bytes; b++)
				tile.data[i * cases[c].elem_bytes + b] = (uint8_t)(u >> 8 * b);
		}
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == cases[c].bytes);
		CHECK(crc32_of(tile.packed, tile.packed_bytes) == cases[c].crc);
		tile_free(&tile);
	}
}

/*
 * Nibbles 0 to 15 under a field of the one value 2, folded, by hand: an even one is positive, and the element is 16 and half
 * of it.  An odd one is negative: 2 becomes 0xD, and nibble 1 the element 0xD1 rotated to the right, which is 0xE8.
 */
static void folded_elements_are_known_ones(void)
{
	static const uint8_t expected[16] = { 0x10, 0xE8, 0x11, 0xE9, 0x12, 0xEA, 0x13, 0xEB,
					      0x14, 0xEC, 0x15, 0xED, 0x16, 0xEE, 0x17, 0xEF };
	struct sample_random random = { 95 };
	struct model model;
	struct tile tile;
	uint8_t *decoded, nibbles[256];

	model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 0, 0, EQUAL, 0);
	tile_alloc(&tile, &model, 1, 256);
	decoded = malloc(tile.bytes);
	memset(tile.packed, 0, tile.bytes);
	wcx_le32_write(tile.packed, WCX_FIELD_CONSTANT << 2);
	wcx_le32_write(tile.packed + 4, 2);
	for (uint32_t i = 0; i < 256; i++) {
		uint8_t *unit = tile.packed + 8 + i % 128 / 4 * 4;
		uint32_t n = nibbles[i] = (uint8_t)sample_below(&random, 16), first = 8 * (i % 4) + 4 * (i / 128);

		for (uint32_t b = 0; b < 4; b++)
			put_bits(unit, (first + (b ? b - 1 : 7)) % 32, 1, n >> b & 1);
		tile.data[i] = expected[n];
	}
	tile.mode = WCX_TILE_CODED;
	CHECK(decode_exactly(&tile, tile.packed, 8 + 128, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
	for (uint32_t i = 0; i < 256; i++)
		CHECK(value_at(&tile, 0, i) == nibbles[i] && value_at(&tile, 1, i) == 2);
	check_round_trip(&tile);
	CHECK(tile.packed_bytes == 8 + 128);
	free(decoded);
	tile_free(&tile);
}

/*
 * The same where the upper field is the raw one: what is raw of it is a magnitude, too, in bits 3 to 6 of each byte, and so
 * is what is packed.  Under it, nibble 6 is positive with 3 in the three lowest bits, and 7 is negative with the same.
 */
static void raw_field_above_the_first_is_folded_too(void)
{
	for (uint32_t nibble = 6; nibble < 8; nibble++) {
		struct sample_random random = { 96 };
		struct model model;
		struct tile tile;
		uint8_t *decoded, *packed;

		model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
		model_add(&model, 4, 0, 0, EQUAL, 0);
		model_add(&model, 4, 1, 0, NOISE, 0)->is_pair = 1;
		model.tables[1][0] = (struct wcx_freq_table){ .freq = { 2048, 2048 } };
		tile_alloc(&tile, &model, 1, 256);
		decoded = malloc(tile.bytes);
		packed = calloc(1, 8 + 128);
		wcx_le32_write(packed, WCX_FIELD_CONSTANT);
		wcx_le32_write(packed + 4, nibble);
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t magnitude = (uint32_t)sample_below(&random, 16), at = 8 * (i % 4) + 3 + 4 * (i / 128);

			for (uint32_t b = 0; b < 4; b++)
				put_bits(packed + 8 + i % 128 / 4 * 4, (at + b) % 32, 1, magnitude >> b & 1);
			tile.data[i] = (uint8_t)(nibble == 6 ? magnitude << 3 | 3 : 0x80 | (15 - magnitude) << 3 | 3);
		}
		tile.mode = WCX_TILE_CODED;
		CHECK(decode_exactly(&tile, packed, 8 + 128, decoded) == WCX_OK);
		CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == 8 + 128);
		CHECK(memcmp(tile.packed, packed, 8 + 128) == 0);
		free(decoded);
		free(packed);
		tile_free(&tile);
	}
}

/*
 * Where a bit of an element is in the plane of its field, by hand from section 3.1: its place in the word of the lane, and
 * so much to the left for each line that the unit has before.  Lines have 128, 64, 32 and 32 elements.
 */
static void raw_bits_lie_where_the_format_says(void)
{
	static const struct {
		uint32_t elem_bytes, rotates, shift, width; /* the field */
		uint32_t elems, element, bit;
		uint32_t byte, bit_of_byte;
	} cases[] = {
		/* Two lines in a unit.  Element 131 is the last of lane 0 in the second: 24 + 2 + 4.  135 is that of lane 1:
		 * 24 + 6 + 4, less 32. */
		{ 1, 0, 0, 4, 600, 0, 0, 0, 0 },
		{ 1, 0, 0, 4, 600, 131, 2, 3, 6 },
		{ 1, 0, 4, 4, 600, 135, 6, 4, 2 },
		{ 1, 0, 4, 4, 600, 512, 7, 256, 7 },
		/* The sign is the lowest bit of what is rotated, and the highest where it lies: 7, and 7 + 4 in line 1. */
		{ 1, 1, 0, 4, 600, 0, 7, 0, 7 },
		{ 1, 1, 0, 4, 600, 128, 7, 1, 3 },
		{ 1, 1, 4, 4, 600, 1, 3, 1, 3 },
		/* Four lines: the third element of lane 31 in the last, 16 + 7 + 6; the next element starts a unit. */
		{ 1, 1, 0, 2, 600, 510, 7, 127, 5 },
		{ 1, 1, 0, 2, 600, 510, 0, 126, 6 },
		{ 1, 1, 0, 2, 600, 512, 0, 128, 0 },
		/* Eight lines: the second element of lane 0 in the last, 8 + 5 + 7. */
		{ 1, 0, 5, 1, 1100, 897, 5, 2, 4 },
		/* Two lines: the second element of lane 1 in the second, 16 + 7 + 8; and 16 + 15 + 8, less 32. */
		{ 2, 0, 0, 8, 200, 67, 7, 7, 7 },
		{ 2, 0, 8, 8, 200, 67, 15, 4, 7 },
		/* Four lines: the first element of lane 5 in the last, 15 + 12. */
		{ 2, 1, 0, 4, 300, 202, 15, 23, 3 },
		{ 2, 1, 0, 4, 300, 256, 1, 128, 1 },
		/* Two lines: lane 9 in the second, 31 + 16, less 32. */
		{ 4, 0, 16, 16, 100, 41, 31, 37, 7 },
		{ 4, 1, 15, 16, 100, 41, 14, 39, 6 },
		/* 32 lines: lane 30 in the last, 31 + 31, less 32. */
		{ 4, 1, 0, 1, 1100, 1022, 31, 123, 6 },
		{ 4, 1, 0, 1, 1100, 1024, 31, 131, 7 },
		/* One line: lane 1 in the second unit. */
		{ 8, 0, 32, 32, 100, 33, 63, 135, 7 },
		{ 8, 0, 32, 32, 100, 33, 32, 132, 0 },
		/* Four lines: lane 31 in the last, 63 + 24, less 64; and 6 + 24. */
		{ 8, 1, 0, 8, 200, 127, 63, 126, 7 },
		{ 8, 1, 0, 8, 200, 127, 6, 127, 6 },
		/* Bits of both halves of a word: lane 4 in the second line, 35 + 8, less 32; and 30 + 8, less 32. */
		{ 8, 0, 28, 8, 200, 36, 35, 17, 3 },
		{ 8, 0, 28, 8, 200, 36, 30, 16, 6 },
	};

	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		const uint32_t elem_bytes = cases[c].elem_bytes, above = 8 * elem_bytes - cases[c].shift - cases[c].width;
		const size_t at = cases[c].element * elem_bytes + cases[c].bit / 8;
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;
		uint8_t *decoded;

		model_start(&model, elem_bytes, cases[c].rotates ? WCX_TRANSFORM_ROTATE : WCX_TRANSFORM_NONE,
			    WCX_PREDICT_NONE, 0);
		if (cases[c].shift)
			model_add(&model, cases[c].shift, 0, 0, EQUAL, 0);
		model_add(&model, cases[c].width, 0, 0, NOISE, 0);
		if (above)
			model_add(&model, above < 32 ? above : above / 2, 0, 0, EQUAL, 0);
		if (above >= 32)
			model_add(&model, above - above / 2, 0, 0, EQUAL, 0);
		tile_alloc(&tile, &model, 1, cases[c].elems);
		tile_draw(&tile, c);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(layout.plane_count == 1 && layout.planes[0].offset == 4u + 4u * (model.recipe.field_count - 1u));
		decoded = malloc(tile.bytes);
		tile.packed[layout.planes[0].offset + cases[c].byte] ^= (uint8_t)(1u << cases[c].bit_of_byte);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		decoded[at] ^= (uint8_t)(1u << cases[c].bit % 8);
		if (!CHECK(memcmp(decoded, tile.data, tile.bytes) == 0))
			fprintf(stderr, "\tcase %zu\n", c);
		free(decoded);
		tile_free(&tile);
	}
}

/* --- sizes, choices and counts --- */

/* Bits that a run takes with the table that its symbols choose; of a pair both halves must be there. */
static double run_bits(const struct tile *tile, uint32_t f, size_t first, size_t end)
{
	const struct wcx_field *field = &tile->model->fields[f];
	uint64_t count[WCX_SYMBOL_COUNT] = { 0 }, pair_count[WCX_SYMBOL_COUNT] = { 0 };
	struct wcx_freq_table pairs;
	double margin;
	uint32_t choice;

	count_plainly(tile, f, first, end, count);
	choice = plain_choice(field, count, &margin);
	if (!field->is_pair)
		return plain_cost(&field->tables[choice], count);
	for (size_t i = first; i + 1 < end; i += 2)
		pair_count[value_at(tile, f, i) | value_at(tile, f, i + 1) << 4]++;
	plain_pairs(&field->tables[choice], &pairs);
	return plain_cost(&pairs, pair_count);
}

/* Bytes that a tile must not exceed, all of whose fields with tables are coded and the others raw; *bits_ret: without
 * overhead. */
static double most_bytes(const struct tile *tile, double *bits_ret)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	double overhead = 4.0 * recipe->field_count - (recipe->fields[0].table_count ? 0 : 64);
	double coded_bits = 0, raw_bits = 0, raw_bytes = 0;

	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const struct wcx_field *field = &recipe->fields[f];
		size_t run = field->table_count > 1 ? recipe->run : tile->n;

		raw_bits += field->table_count ? 0 : (double)tile->n * field->width;
		for (uint32_t w = 1; w <= field->width && !field->table_count; w *= 2)
			raw_bytes += field->width & w ? (double)plain_plane_bytes(recipe, tile->n, w) : 0;
		if (!field->table_count)
			continue;
		for (size_t first = 0; first < tile->n; first += run)
			coded_bits += run_bits(tile, f, first, first + run < tile->n ? first + run : tile->n);
		/* 16 bits of each state that are there at first, one in each where it carries something, widths, padding. */
		overhead += (double)plain_choices_bytes(recipe, field, tile->n) + 64 + 32 / 8 + 16 + 4;
	}
	*bits_ret = coded_bits + raw_bits;
	return coded_bits * 1.0001 / 8 + raw_bytes + overhead;
}

static void check_size(struct tile *tile)
{
	double bits, most = most_bytes(tile, &bits);

	check_round_trip(tile);
	CHECK(layout_of(tile).plane_carried == (layout_of(tile).plane_count ? 64 : 0));
	CHECK((double)tile->packed_bytes <= most);
	CHECK((double)tile->packed_bytes >= bits / 8);
}

static void drawn_tiles_take_what_their_tables_say(void)
{
	for (uint32_t weights = 0; weights < WEIGHTS_COUNT; weights++) {
		struct model model;
		struct tile tile;

		make_weight_model(&model, (enum weights)weights, WCX_PREDICT_NONE);
		tile_alloc(&tile, &model, 1, 50000);
		tile_draw(&tile, 101);
		model_learn(&model, &tile, 0);
		check_size(&tile);
		tile_free(&tile);
	}
}

/* Bits that a value of this probability adds to an entropy. */
static double entropy_part(double probability)
{
	return probability > 0 ? -probability * log2(probability) : 0;
}

/* Entropy of an INT8 weight: a normal distribution, rounded and clipped at 127. */
static double int8_entropy(double sigma)
{
	double bits = 0;

	for (int k = -127; k <= 127; k++) {
		double low = k == -127 ? -INFINITY : (k - 0.5) / (sigma * sqrt(2));
		double high = k == 127 ? INFINITY : (k + 0.5) / (sigma * sqrt(2));

		bits += entropy_part((erf(high) - erf(low)) / 2);
	}
	return bits;
}

/* Entropy of a weight in float format with so many bits of mantissa: a normal distribution, rounded towards zero. */
static double float_entropy(double sigma, int mantissa_bits)
{
	double bits = 1; /* the sign */

	for (int exponent = -60; exponent < 10; exponent++) {
		for (int m = 0; m < 1 << mantissa_bits; m++) {
			double low = ldexp(1 + ldexp(m, -mantissa_bits), exponent);
			double high = ldexp(1 + ldexp(m + 1, -mantissa_bits), exponent);

			bits += entropy_part(erf(high / (sigma * sqrt(2))) - erf(low / (sigma * sqrt(2))));
		}
	}
	return bits;
}

/* Gaussian weights: INT8 of sigma 33.6, and floats of sigma 0.02 cut off behind the sizes' bits. */
static void fill_weights(struct tile *tile, struct sample_random *random)
{
	if (tile->dims.elem_bytes == 1) {
		sample_fill(random, SAMPLE_GAUSSIAN, 33.6, tile->data, tile->bytes);
		return;
	}
	for (size_t i = 0; i < tile->n; i++) {
		float weight = (float)(0.02 * sample_normal(random));
		uint32_t bits;

		memcpy(&bits, &weight, sizeof bits);
		if (tile->dims.elem_bytes == 2)
			wcx_le16_write(tile->data + 2 * i, bits >> 16);
		else
			wcx_le32_write(tile->data + 4 * i, bits);
	}
}

/*
 * Tiles of 65536 weights take the entropy of what they were drawn from and 0.5 % more: 0.05 % are the overhead of one tile,
 * the rest is what bits cost that are kept though they are not quite random, and of pairs what rounding their frequencies
 * costs.
 */
static void gaussian_weights_take_hardly_more_than_their_entropy(void)
{
	/* Exponents of such floats are below 127, and two bits of the mantissa are coded with them.  An FP32 mantissa has 16
	 * bits below those of BF16, and these are random. */
	const struct {
		uint32_t elem_bytes;
		enum wcx_transform transform;
		uint32_t raw, base;
		double entropy;
	} kinds[] = {
		{ 1, WCX_TRANSFORM_NONE, 3, 0, int8_entropy(33.6) },
		{ 1, WCX_TRANSFORM_NONE, 0, 0, int8_entropy(33.6) },
		{ 1, WCX_TRANSFORM_FOLD, 4, 0, int8_entropy(33.6) },
		{ 2, WCX_TRANSFORM_ROTATE, 6, 127 * 4 - 256, float_entropy(0.02, 7) },
		{ 4, WCX_TRANSFORM_ROTATE, 22, 127 * 4 - 256, float_entropy(0.02, 7) + 16 },
	};
	struct sample_random random = { 111 };

	for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
		struct model model;
		struct tile tile;
		double bits;

		model_start(&model, kinds[kind].elem_bytes, kinds[kind].transform, WCX_PREDICT_NONE, 0);
		if (kinds[kind].raw)
			model_add(&model, kinds[kind].raw, 0, 0, NOISE, 0);
		model_add(&model, 8 * kinds[kind].elem_bytes - kinds[kind].raw, 1, kinds[kind].base, BELL, 0)->is_pair =
			kinds[kind].transform == WCX_TRANSFORM_FOLD;
		tile_alloc(&tile, &model, 1, 65536);
		fill_weights(&tile, &random);
		model_learn(&model, &tile, 0);
		check_size(&tile);
		bits = 8.0 * (double)tile.packed_bytes / (double)tile.n;
		if (!CHECK(bits < kinds[kind].entropy * 1.005 && bits > kinds[kind].entropy * 0.995))
			fprintf(stderr, "\tkind %zu: %f bits, entropy %f\n", kind, bits, kinds[kind].entropy);
		tile_free(&tile);
	}
}

/* Of pairs, both halves count as one symbol each. */
static void runs_take_the_table_that_takes_the_fewest_bits(void)
{
	for (uint32_t kind = 0; kind < 4; kind++) {
		const uint32_t tables = kind % 2 ? 4 : 2;
		unsigned chosen[WCX_FIELD_TABLES_MAX] = { 0 }, wrong = 0;
		struct model model;
		struct tile tile;

		if (kind < 2) {
			model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT, 256);
			model_add(&model, 10, tables, 77, BELL, 5)->has_zero = 1;
			model_add(&model, 6, tables, 0, BELL, 2);
		} else {
			model_start(&model, 1, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 256);
			model_add(&model, 4, tables, 0, BELL, 0.7);
			model_add(&model, 4, tables, 0, BELL, 0.7)->is_pair = 1;
		}
		tile_alloc(&tile, &model, 1, 256 * 40 + 77);
		tile_draw(&tile, 121);
		model_learn(&model, &tile, 1);
		check_round_trip(&tile);
		for (uint32_t f = 0; f < 2; f++) {
			for (size_t run = 0; run < 41; run++) {
				uint64_t count[WCX_SYMBOL_COUNT] = { 0 };
				size_t end = run < 40 ? 256 * (run + 1) : tile.n;
				double margin;
				uint32_t choice;

				count_plainly(&tile, f, 256 * run, end, count);
				choice = plain_choice(&model.fields[f], count, &margin);
				/* Costs are rounded to 1/32 bit: half of that for each symbol, in each of two tables. */
				wrong += choice_of(&tile, f, run) != choice && margin > 256.0 / 32;
				chosen[choice]++;
			}
		}
		CHECK(wrong == 0);
		for (uint32_t t = 0; t < tables; t++)
			CHECK(chosen[t] > 5);
		tile_free(&tile);
	}
}

/* Compares the counts of a field with plain ones, table by table where no choice is close; returns whether none was. */
static int check_counts(const struct tile *tile, uint32_t f)
{
	const struct wcx_field *field = &tile->model->fields[f];
	uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], plain[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	uint64_t misfits = 1000, plain_misfits = 1000;
	size_t run = field->table_count > 1 ? tile->model->recipe.run : tile->n;
	int clear = 1, equal = 1;

	for (uint32_t t = 0; t < WCX_FIELD_TABLES_MAX; t++)
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			count[t][s] = plain[t][s] = UINT64_C(1) << 40; /* what was there is added to */
	wcx_tile_count(&tile->dims, tile->data, &tile->model->recipe, f, encode_scratch, count, &misfits);
	for (size_t first = 0; first < tile->n; first += run) {
		uint64_t of_run[WCX_SYMBOL_COUNT] = { 0 };
		double margin;
		uint32_t choice;

		plain_misfits += count_plainly(tile, f, first, first + run < tile->n ? first + run : tile->n, of_run);
		choice = plain_choice(field, of_run, &margin);
		clear &= margin > (double)run / 32;
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			plain[choice][s] += of_run[s];
	}
	CHECK(misfits == plain_misfits);
	if (clear) {
		CHECK(memcmp(count, plain, sizeof count) == 0);
		return 1;
	}
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		equal &= count[0][s] + count[1][s] + count[2][s] + count[3][s] ==
			 plain[0][s] + plain[1][s] + plain[2][s] + plain[3][s];
	CHECK(equal);
	return 0;
}

static void counts_are_plain_ones(void)
{
	unsigned clear[WCX_FIELD_TABLES_MAX + 1] = { 0 }, pairs = 0;
	struct sample_random random = { 131 };

	for (uint64_t round = 0; round < 300; round++) {
		uint32_t rows = 1 + (uint32_t)sample_below(&random, 20);
		struct model model;
		struct tile tile;

		draw_model(&model, &random);
		tile_alloc(&tile, &model, rows, 1 + (uint32_t)sample_below(&random, 5000) / rows);
		tile_draw(&tile, round);
		model_learn(&model, &tile, sample_below(&random, 2));
		/* Another tile has values that are no symbols, and symbols that some tables or all of them lack. */
		if (round % 2)
			tile_draw(&tile, round + 1000);
		if (round % 4 == 3)
			sample_fill(&random, SAMPLE_UNIFORM, 0, tile.data, tile.bytes / 2);
		for (uint32_t f = 0; f < model.recipe.field_count; f++)
			if (model.fields[f].table_count)
				clear[model.fields[f].table_count] += (unsigned)check_counts(&tile, f);
		pairs += model.fields[model.recipe.field_count - 1].is_pair;
		tile_free(&tile);
	}
	CHECK(clear[1] > 50 && clear[2] > 50 && clear[4] > 20 && pairs > 20);
}

/* --- damage --- */

/*
 * Tiles of three kinds, all with a choice of tables and some exceptions.  Kinds 0 and 1 have four bytes an element: a raw
 * field of two planes, which in kind 1 is of one value; a coded one with two tables; a constant one; and a wide coded one,
 * whose states carry what is raw, or exceptions.  Kind 2 is folded weights, an odd number, in enough lines to be finished as
 * they are decoded.
 */
enum { MIXED_KINDS = 3 };

static void make_mixed_tile(struct model *model, struct tile *tile, uint32_t kind)
{
	if (kind < 2) {
		model_start(model, 4, kind ? WCX_TRANSFORM_NONE : WCX_TRANSFORM_ROTATE,
			    kind ? WCX_PREDICT_UP : WCX_PREDICT_NONE, 128);
		model_add(model, 3, 0, 0, kind ? EQUAL : NOISE, 0);
		model_add(model, 5, 2, 0, BELL, 2);
		model_add(model, 8, 0, 0, EQUAL, 0);
		model_add(model, 16, 1, 40000, BELL, 3)->has_zero = kind == 0;
		tile_alloc(tile, model, 20, 30);
	} else {
		model_start(model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 384);
		model_add(model, 4, 0, 0, NOISE, 0);
		model_add(model, 4, 2, 0, BELL, 1.5)->is_pair = 1;
		tile_alloc(tile, model, 21, 135);
	}
	tile_draw(tile, 41);
	model_learn(model, tile, 0);
	model->outliers[model->recipe.field_count - 1] = kind < 2 ? 0.05 : 0.02;
	tile_draw(tile, 41);
	encode_tile(tile);
	CHECK(tile->mode == WCX_TILE_CODED);
}

static void fields_lie_where_the_format_says(void)
{
	for (uint32_t kind = 0; kind < 2; kind++) {
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;
		size_t at = kind ? 16 : 12;
		uint32_t exceptions;

		make_mixed_tile(&model, &tile, kind);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(layout.plane_count == (kind ? 0 : 2) && layout.coded_count == 2);
		CHECK(layout.plane_carried == (kind ? 0 : 64) && layout.exception_carried == (kind ? 64 : 0));
		CHECK(layout.constant_bits == (0xA5 << 8 | (kind ? 5 : 0)));
		CHECK(bits_at(tile.packed, 0, 20) == (kind ? 0x66 : 0x64)); /* 1, 2, 1, and raw or constant */
		CHECK(!kind || wcx_le32_read(tile.packed + 4) == 5);
		CHECK(wcx_le32_read(tile.packed + at - 4) == 0xA5);
		if (!kind) {
			/* 19 lines: 16 or 32 of them in a unit. */
			CHECK(layout.planes[0].offset == at && layout.planes[0].width == 2 && layout.planes[0].shift == 0);
			at += 2 * 128;
			CHECK(layout.planes[1].offset == at && layout.planes[1].width == 1 && layout.planes[1].shift == 2);
			at += 128 - 64;
		}
		exceptions = bits_at(tile.packed, 20, 12);
		CHECK(layout.exception_offset == at && layout.exception_bytes == 4 * exceptions);
		CHECK(layout.exception_count == exceptions && exceptions > 16);
		at += 4 * exceptions - layout.exception_carried;
		/* 4 bytes of choices for 5 runs. */
		CHECK(layout.coded[0].offset == at + 4 && layout.coded[0].field == 1 && layout.coded[0].shift == 3);
		CHECK(layout.coded[0].states_bytes == wcx_rans_states_bytes(tile.packed + at + 4, 140));
		CHECK(4 + layout.coded[0].states_bytes + layout.coded[0].words_bytes ==
		      wcx_le32_read(tile.packed + (kind ? 8 : 4)));
		at = padded(at + 4 + layout.coded[0].states_bytes + layout.coded[0].words_bytes, 4);
		CHECK(layout.coded[1].offset == at && layout.coded[1].field == 3 && layout.coded[1].shift == 16);
		CHECK(layout.coded[1].states_bytes == wcx_rans_states_bytes(tile.packed + at, 140));
		CHECK(at + layout.coded[1].states_bytes + layout.coded[1].words_bytes == tile.packed_bytes);
		tile_free(&tile);
	}
}

static void folded_weights_lie_where_the_format_says(void)
{
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	uint32_t exceptions;
	size_t at;

	make_mixed_tile(&model, &tile, 2);
	check_round_trip(&tile);
	layout = layout_of(&tile);
	exceptions = bits_at(tile.packed, 20, 12);
	CHECK(layout.plane_count == 1 && layout.coded_count == 1 && layout.constant_bits == 0);
	CHECK(bits_at(tile.packed, 0, 20) == 0x4);
	/* 23 lines, two in a unit. */
	CHECK(layout.planes[0].offset == 4 && layout.planes[0].width == 4 && layout.planes[0].shift == 0);
	CHECK(layout.plane_carried == 64 && layout.exception_carried == 0);
	at = 4 + 12 * 128 - 64;
	CHECK(exceptions > 2 && layout.exception_count == exceptions && layout.exception_offset == at);
	CHECK(layout.exception_bytes == padded(3 * exceptions, 2));
	/* 4 bytes of choices for 8 runs; then more words than the fast loops leave to others. */
	at = padded(at + layout.exception_bytes, 4) + 4;
	CHECK(layout.coded[0].offset == at && layout.coded[0].field == 1 && layout.coded[0].shift == 4);
	CHECK(at + layout.coded[0].states_bytes + layout.coded[0].words_bytes == tile.packed_bytes);
	CHECK(layout.coded[0].words_bytes > 2 * 256);
	tile_free(&tile);
}

static void tile_cut_or_lengthened_is_refused(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind++) {
		struct model model;
		struct tile tile;
		uint8_t *decoded;

		make_mixed_tile(&model, &tile, kind);
		memset(tile.packed + tile.packed_bytes, 0, tile.bytes - tile.packed_bytes);
		decoded = malloc(tile.bytes);
		for (size_t bytes = 0; bytes <= tile.bytes; bytes++)
			if (bytes != tile.packed_bytes)
				CHECK(decode_exactly(&tile, tile.packed, bytes, decoded) == WCX_BAD_DATA);
		tile.mode = WCX_TILE_STORED;
		CHECK(decode_exactly(&tile, tile.data, tile.bytes - 1, decoded) == WCX_BAD_DATA);
		CHECK(decode_exactly(&tile, tile.data, tile.bytes, decoded) == WCX_OK);
		tile.mode = WCX_TILE_ZSTD;
		CHECK(decode_exactly(&tile, tile.data, tile.bytes, decoded) == WCX_BAD_DATA);
		free(decoded);
		tile_free(&tile);
	}
}

/* Without a carrier, which takes whatever is there, it is the header alone that says where the tile ends. */
static void tile_without_a_carrier_cut_or_lengthened_is_refused(void)
{
	struct model model;
	struct tile tile;
	uint8_t *decoded;

	model_start(&model, 2, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 0);
	model_add(&model, 3, 0, 0, NOISE, 0);
	model_add(&model, 13, 0, 0, EQUAL, 0);
	tile_alloc(&tile, &model, 20, 25);
	tile_draw(&tile, 42);
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == 8 + 2 * 128);
	memset(tile.packed + tile.packed_bytes, 0, tile.bytes - tile.packed_bytes);
	decoded = malloc(tile.bytes);
	for (size_t bytes = 0; bytes <= tile.bytes; bytes++)
		CHECK(decode_exactly(&tile, tile.packed, bytes, decoded) ==
		      (bytes == tile.packed_bytes ? WCX_OK : WCX_BAD_DATA));
	free(decoded);
	tile_free(&tile);
}

/* Two fields of four bits, of which none, the upper one or both are constant: sound but for the size where nothing is saved.
 */
static void coded_tile_that_saves_nothing_is_refused(void)
{
	for (uint32_t n = 1; n <= 300; n++) {
		for (uint32_t constants = 0; constants <= 2; constants++) {
			const struct wcx_tile_dims dims = { 1, n, 1 };
			const uint32_t units = (n + 255) / 256;
			const size_t bytes = 4 + 4 * constants + (2 - constants) * units * 128;
			uint8_t packed[4 + 4 * 128] = { 0 };
			struct wcx_tile_layout layout;
			struct model model;

			if (constants > 0)
				packed[0] |= WCX_FIELD_CONSTANT << 2;
			if (constants > 1)
				packed[0] |= WCX_FIELD_CONSTANT;
			model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
			model_add(&model, 4, 0, 0, NOISE, 0);
			model_add(&model, 4, 0, 0, NOISE, 0);
			CHECK((wcx_tile_parse(&dims, &model.recipe, packed, bytes, &layout) == WCX_OK) == (bytes < n));
		}
	}
}

static void damaged_bytes_are_refused_or_decode_as_the_format_says(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind++) {
		unsigned accepted = 0, refused = 0;
		struct model model;
		struct tile tile;
		uint8_t *decoded;

		make_mixed_tile(&model, &tile, kind);
		decoded = malloc(tile.bytes);
		for (size_t at = 0; at < tile.packed_bytes; at++) {
			for (unsigned change = 1; change < 256;
			     change += change < 128 ? change : 127) { /* each bit, and all */
				enum wcx_result result;

				tile.packed[at] ^= (uint8_t)change;
				result = decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded);
				tile.packed[at] ^= (uint8_t)change;
				accepted += result == WCX_OK;
				refused += result != WCX_OK;
			}
		}
		CHECK(accepted > 0 && refused > 0);
		free(decoded);
		tile_free(&tile);
	}
}

/* Bits that belong to no element, symbol or state: what is there is the same tile. */
static void what_is_written_as_zero_and_not_checked_may_be_anything(void)
{
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	size_t places[8], count = 0, state_bits = 0;
	uint8_t *decoded;

	make_mixed_tile(&model, &tile, 0);
	layout = layout_of(&tile);
	/* The unit of lines 16 to 18 shows bits 31 and 0 of each rotated by 0, 2 and 4: 31 and 0 to 4.  In that of bit 1,
	 * which lies at 1, 19 lines show 1 to 19. */
	places[count++] = 8 * (layout.planes[0].offset + 128) + 5;
	places[count++] = 8 * (layout.planes[0].offset + 128 + 4 * 31) + 30;
	places[count++] = 8 * layout.planes[1].offset + 20;
	/* Two elements of lane 24 and of those above are missing in the last line. */
	places[count++] = 8 * (layout.planes[0].offset + 128 + 4 * 24) + 4;
	/* Five choices have a bit each. */
	places[count++] = 8 * (layout.coded[0].offset - 4) + 5;
	places[count++] = 8 * (layout.coded[0].offset - 4) + 31;
	/* The last bit of the start states, if it is none. */
	for (uint32_t i = 0; i < 2; i++) {
		state_bits = 8 * 16;
		for (uint32_t l = 0; l < 32; l++)
			state_bits += 16 + bits_at(tile.packed + layout.coded[i].offset, 4 * l, 4);
		if (state_bits < 8 * layout.coded[i].states_bytes)
			places[count++] = 8 * (layout.coded[i].offset + layout.coded[i].states_bytes) - 1;
	}
	CHECK(count > 6);
	decoded = malloc(tile.bytes);
	for (size_t i = 0; i < count; i++) {
		CHECK(bits_at(tile.packed, places[i], 1) == 0);
		tile.packed[places[i] / 8] ^= (uint8_t)(1u << places[i] % 8);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
		tile.packed[places[i] / 8] ^= (uint8_t)(1u << places[i] % 8);
	}
	free(decoded);
	tile_free(&tile);

	/* The byte that makes three exceptions of three bytes even. */
	make_pair_tile(&model, &tile, 2000);
	for (uint32_t i = 0; i < 3; i++)
		change_value(&tile, 600 * i, 1, 9);
	encode_tile(&tile);
	layout = layout_of(&tile);
	CHECK(layout.exception_count == 3 && layout.exception_bytes == 10);
	decoded = malloc(tile.bytes);
	tile.packed[layout.exception_offset + 9] ^= 0xFF;
	CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
	free(decoded);
	tile_free(&tile);
}

/* Damage of many bytes at once, and tiles of nothing but noise behind sound headers. */
static void noise_is_never_written_outside_the_tile(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind++) {
		struct sample_random random = { 51 };
		const size_t header = kind < 2 ? 16 : 4;
		struct model model;
		struct tile tile;
		uint8_t *decoded, *noise;

		make_mixed_tile(&model, &tile, kind);
		decoded = malloc(tile.bytes);
		noise = malloc(tile.packed_bytes);
		for (int round = 0; round < 1000; round++) {
			memcpy(noise, tile.packed, tile.packed_bytes);
			if (round % 2)
				sample_fill(&random, SAMPLE_UNIFORM, 0, noise + header, tile.packed_bytes - header);
			for (int i = 0; i < 8; i++)
				noise[sample_below(&random, tile.packed_bytes)] = (uint8_t)sample_next(&random);
			decode_exactly(&tile, noise, tile.packed_bytes, decoded);
		}
		free(noise);
		free(decoded);
		tile_free(&tile);
	}
}

/* Changes the header of a mixed tile, in turn, by bits of one of its words; each must be refused. */
struct header_change {
	uint32_t word, change;
	enum wcx_result parsed; /* what can be told before anything is decoded */
	const char *why;
};

static void check_header_changes(uint32_t kind, const struct header_change *changes, size_t count)
{
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	uint8_t *decoded;

	make_mixed_tile(&model, &tile, kind);
	decoded = malloc(tile.bytes);
	for (size_t i = 0; i < count; i++) {
		uint8_t *word = tile.packed + 4 * changes[i].word;
		uint32_t sound = wcx_le32_read(word);

		wcx_le32_write(word, sound ^ changes[i].change);
		if (!CHECK(wcx_tile_parse(&tile.dims, &model.recipe, tile.packed, tile.packed_bytes, &layout) ==
			   changes[i].parsed))
			fprintf(stderr, "\t%s\n", changes[i].why);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		wcx_le32_write(word, sound);
	}
	/* Without any change it is sound. */
	CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
	free(decoded);
	tile_free(&tile);
}

static void headers_that_break_a_rule_are_refused(void)
{
	/* Fields 0 to 3 are raw, coded, constant and coded; a number has the bytes of 1, and another the value of 2. */
	static const struct header_change mixed[] = {
		{ 0, 3 << 0, WCX_BAD_DATA, "coding 3" },
		{ 0, 2 << 2, WCX_BAD_DATA, "coding 3" },
		{ 0, 1 << 4, WCX_BAD_DATA, "coding 3" },
		{ 0, 2 << 6, WCX_BAD_DATA, "coding 3" },
		{ 0, 1 << 8, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 2 << 8, WCX_BAD_DATA, "a constant field that there is not" },
		{ 0, 3 << 8, WCX_BAD_DATA, "coding 3 of a field that there is not" },
		{ 0, 1 << 14, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 1 << 18, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 2 << 18, WCX_BAD_DATA, "a constant field that there is not" },
		{ 0, 3 << 18, WCX_BAD_DATA, "coding 3 of a field that there is not" },
		{ 0, 1 << 0, WCX_BAD_DATA, "rANS without a table" },
		{ 0, 3 << 4, WCX_BAD_DATA, "rANS without a table" },
		{ 0, 1 << 6, WCX_BAD_DATA, "raw field where a payload was" },
		{ 0, 1 << 2, WCX_BAD_DATA, "raw field where a payload was" },
		{ 0, 2 << 4, WCX_BAD_DATA, "raw field where one was constant" },
		{ 0, 2 << 0, WCX_BAD_DATA, "constant field where one was raw" },
		{ 0, 1u << 31, WCX_BAD_DATA, "exceptions behind the end" },
		{ 1, 1, WCX_BAD_DATA, "odd payload" },
		{ 1, 2, WCX_OK, "payload that takes a word of the next" },
		{ 1, 4, WCX_OK, "payload that takes words of the next" },
		{ 1, 1u << 12, WCX_BAD_DATA, "payload behind the end" },
		{ 1, 1u << 31, WCX_BAD_DATA, "payload behind the end" },
		{ 2, 1 << 8, WCX_BAD_DATA, "constant beyond the field's width" },
		{ 2, 1u << 31, WCX_BAD_DATA, "constant beyond the field's width" },
	};
	/* Fields 0 and 1 are raw and coded, and there is no number. */
	static const struct header_change folded[] = {
		{ 0, 3 << 0, WCX_BAD_DATA, "coding 3" },
		{ 0, 2 << 2, WCX_BAD_DATA, "coding 3" },
		{ 0, 1 << 0, WCX_BAD_DATA, "rANS without a table" },
		{ 0, 2 << 0, WCX_BAD_DATA, "constant field where one was raw" },
		{ 0, 3 << 2, WCX_BAD_DATA, "constant field where pairs were" },
		{ 0, 1 << 2, WCX_BAD_DATA, "raw field where pairs were" },
		{ 0, 1 << 4, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 1u << 31, WCX_BAD_DATA, "exceptions behind the end" },
	};

	check_header_changes(0, mixed, sizeof mixed / sizeof mixed[0]);
	check_header_changes(2, folded, sizeof folded / sizeof folded[0]);
}

/* A tile of nothing but a constant and a payload without words, sound if the field of the payload has tables. */
static void coded_field_without_tables_is_refused(void)
{
	static const uint32_t table_counts[] = { 0, 1, 2, 4 };

	for (uint32_t i = 0; i < 8; i++) {
		const uint32_t f = i / 4, tables = table_counts[i % 4];
		uint8_t packed[8 + 4 + 80] = { 0 }, dst[400];
		const size_t bytes = 8 + (tables > 1 ? 4 : 0) + 80;
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;

		model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, tables > 1 ? 128 : 0);
		model_add(&model, 4, f == 0 ? tables : 0, 0, BELL, 0);
		model_add(&model, 4, f == 1 ? tables : 0, 0, BELL, 0);
		tile_alloc(&tile, &model, 1, sizeof dst);
		tile.mode = WCX_TILE_CODED;
		wcx_le32_write(packed, (uint32_t)WCX_FIELD_RANS << 2 * f | (uint32_t)WCX_FIELD_CONSTANT << 2 * (1 - f));
		CHECK(wcx_tile_parse(&tile.dims, &model.recipe, packed, bytes, &layout) == (tables ? WCX_OK : WCX_BAD_DATA));
		if (!tables)
			CHECK(decode_exactly(&tile, packed, bytes, dst) == WCX_BAD_DATA);
		tile_free(&tile);
	}
}

/* Any number of them, in a tile of a raw and a constant field that is sound without. */
static void exceptions_without_a_carrier_are_refused(void)
{
	const struct wcx_tile_dims dims = { 1, 1000, 1 };
	uint8_t packed[8 + 4 * 128] = { [0] = WCX_FIELD_CONSTANT << 2 };
	struct sample_random random = { 56 };
	struct wcx_tile_layout layout;
	struct model model;

	sample_fill(&random, SAMPLE_UNIFORM, 0, packed + 8, sizeof packed - 8);
	model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 1, 0, BELL, 0)->is_pair = 1;
	for (uint32_t exceptions = 0; exceptions <= WCX_EXCEPTIONS_MAX; exceptions++) {
		wcx_le32_write(packed, WCX_FIELD_CONSTANT << 2 | exceptions << 20);
		CHECK((wcx_tile_parse(&dims, &model.recipe, packed, sizeof packed, &layout) == WCX_OK) == (exceptions == 0));
	}
}

/* Exceptions of the tiles that store them, changed in turn. */
static void exceptions_that_break_a_rule_are_refused(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind += 2) {
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;
		uint8_t *decoded, *positions, *values;

		make_mixed_tile(&model, &tile, kind);
		decoded = malloc(tile.bytes);
		layout = layout_of(&tile);
		positions = tile.packed + layout.exception_offset;
		values = positions + 2 * layout.exception_count;
		for (uint32_t i = 0; i < layout.exception_count; i++) {
			uint32_t last = i + 1 == layout.exception_count, position = wcx_le16_read(positions + 2 * i);
			uint32_t next = last ? (uint32_t)tile.n : wcx_le16_read(positions + 2 * i + 2);
			uint8_t *value = kind ? values + i : values + 2 * i, before = *value;

			wcx_le16_write(positions + 2 * i, next);
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
			wcx_le16_write(positions + 2 * i, next - 1);
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
			wcx_le16_write(positions + 2 * i, 0xFFFF);
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
			wcx_le16_write(positions + 2 * i, position);
			/* In 16 bits, any value is one; in four, those up to 15. */
			*value = kind ? 15 : 0xFF;
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
			*value = 16;
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) ==
			      (kind ? WCX_BAD_DATA : WCX_OK));
			*value = before;
		}
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
		free(decoded);
		tile_free(&tile);
	}
}

/* Beyond the width of fields of 6 and 10 bits, whose one exception the tile has at the end of what precedes the payloads. */
static void exception_beyond_its_field_is_refused(void)
{
	for (uint32_t f = 0; f < 2; f++) {
		uint8_t *decoded, *value;
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;

		make_two_field_tile(&model, &tile, 1, 0);
		for (size_t i = 0; i < tile.n && f == 0; i++)
			change_value(&tile, i, 1, 33);
		change_value(&tile, 17, f, f ? 63 : 1023);
		encode_tile(&tile);
		layout = layout_of(&tile);
		CHECK(layout.exception_count == 1);
		decoded = malloc(tile.bytes);
		value = tile.packed + layout.exception_offset + 2;
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		value[1 - f]++; /* 1023 + 256, 63 + 1 */
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		free(decoded);
		tile_free(&tile);
	}
}

/*
 * Payloads from nothing to more than the choices and states, which take 16 bytes and 16 to 31 bits each, as their widths
 * say; of the carrier, which ends the tile, and of a field before it, whose bytes the header has.
 */
static void payload_that_is_odd_or_too_short_for_its_states_is_refused(void)
{
	static const struct {
		uint32_t tables;
		uint8_t widths; /* a byte of them */
		uint32_t least;
	} cases[] = {
		{ 1, 0x00, 16 + 32 * 16 / 8 },
		{ 2, 0x00, 4 + 16 + 32 * 16 / 8 },
		{ 4, 0x00, 4 + 16 + 32 * 16 / 8 },
		{ 1, 0xFF, 16 + 32 * 31 / 8 },
		{ 2, 0xFF, 4 + 16 + 32 * 31 / 8 },
		{ 1, 0x01, 16 + (16 * 17 + 16 * 16) / 8 },
		{ 1, 0x80, 16 + (16 * 24 + 16 * 16) / 8 },
	};
	const struct wcx_tile_dims dims = { 1, 400, 2 };
	struct wcx_tile_layout layout;

	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		const uint32_t states_at = cases[c].tables > 1 ? 4 : 0, least = cases[c].least;

		for (uint32_t bytes = 0; bytes <= 160; bytes++) {
			uint8_t alone[8 + 160] = { 0 }, first[8 + 160 + 2 + 80] = { 0 };
			int sound = bytes >= least && bytes % 2 == 0;
			struct model model;

			model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, cases[c].tables > 1 ? 128 : 0);
			model_add(&model, 8, cases[c].tables, 0, BELL, 0);
			model_add(&model, 8, 1, 0, BELL, 0);
			memset(alone + 8 + states_at, cases[c].widths, bytes < 16 ? bytes : 16);
			wcx_le32_write(alone, WCX_FIELD_RANS | WCX_FIELD_CONSTANT << 2);
			CHECK((wcx_tile_parse(&dims, &model.recipe, alone, 8 + bytes, &layout) == WCX_OK) == sound);

			memset(first + 8 + states_at, cases[c].widths, bytes < 16 ? bytes : 16);
			wcx_le32_write(first, WCX_FIELD_RANS | WCX_FIELD_RANS << 2);
			wcx_le32_write(first + 4, bytes);
			/* The carrier's, of 80 bytes, starts at a multiple of 4. */
			memset(first + 8 + padded(bytes, 4), 0, 80);
			CHECK((wcx_tile_parse(&dims, &model.recipe, first, 8 + padded(bytes, 4) + 80, &layout) == WCX_OK) ==
			      sound);
		}
	}
}

static void shapes_out_of_limits_and_wrong_sizes_are_refused(void)
{
	static const struct wcx_tile_dims bad[] = {
		{ 0, 1, 1 },
		{ 1, 0, 1 },
		{ 1, 1, 0 },
		{ 1, 1, 3 },
		{ 1, 1, 16 },
		{ 1, 65537, 1 },
		{ 257, 256, 1 },
		{ 1u << 31, 2, 1 },
		{ UINT32_MAX, UINT32_MAX, 8 },
		{ 1, 8, 2 } /* not the recipe's */,
	};
	uint8_t src[64] = { 0 }, dst[64];
	struct wcx_tile_layout layout;
	struct model model;

	model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&model, 8, 0, 0, NOISE, 0);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct wcx_tile_job job = {
			.dims = bad[i],
			.mode = WCX_TILE_CODED,
			.recipe = &model.recipe,
			.src = src,
			.src_bytes = 16,
			.dst = dst,
			.dst_bytes = i + 1 < sizeof bad / sizeof bad[0] ? 64 : 16,
		};
		struct wcx_encoded_tile encoded;

		CHECK((wcx_tile_dims_bytes(&bad[i]) == 0) == (i + 1 < sizeof bad / sizeof bad[0]));
		for (unsigned v = 0; wcx_decode_variant_at(v); v++) {
			job.result = WCX_OK;
			CHECK(wcx_tile_decode(&job, decode_scratch[v]) == WCX_WRONG_SIZE && job.result == WCX_WRONG_SIZE);
		}
		CHECK(wcx_tile_parse(&bad[i], &model.recipe, src, 16, &layout) == WCX_WRONG_SIZE);
		CHECK(wcx_tile_encode(&bad[i], src, &model.recipe, encode_scratch, dst, &encoded) == WCX_WRONG_SIZE);
	}
	for (size_t dst_bytes = 0; dst_bytes < 64; dst_bytes++) {
		struct wcx_tile_job job = {
			.dims = { 4, 2, 8 },
			.mode = WCX_TILE_CONSTANT,
			.dst = dst,
			.dst_bytes = dst_bytes,
		};

		CHECK(wcx_tile_decode(&job, decode_scratch[0]) == WCX_WRONG_SIZE && job.result == WCX_WRONG_SIZE);
	}
	CHECK(wcx_tile_dims_bytes(&(struct wcx_tile_dims){ 256, 256, 8 }) == WCX_TILE_MAX_BYTES);
}

static void unknown_transforms_and_predictors_are_refused(void)
{
	static const struct {
		uint8_t transform, predictor;
	} cases[] = { { 3, 0 }, { 4, 0 }, { 128, 0 }, { 255, 0 }, { 0, 4 }, { 0, 5 }, { 0, 128 }, { 0, 255 }, { 3, 4 } };
	struct model model;
	struct tile tile;

	model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 1, 0, BELL, 1);
	tile_alloc(&tile, &model, 64, 64);
	tile_draw(&tile, 20);
	model_learn(&model, &tile, 0);
	encode_tile(&tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint8_t *decoded = guarded_alloc(tile.bytes), dst[64 * 64];
		uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT] = { { 0 } }, misfits = 0, counted = 0;
		struct wcx_encoded_tile encoded;
		struct wcx_tile_layout layout;

		model.recipe.transform = cases[i].transform;
		model.recipe.predictor = cases[i].predictor;
		for (unsigned v = 0; wcx_decode_variant_at(v); v++)
			CHECK(decode_with(v, &tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		CHECK(wcx_tile_parse(&tile.dims, &model.recipe, tile.packed, tile.packed_bytes, &layout) == WCX_BAD_DATA);
		CHECK(wcx_tile_encode(&tile.dims, tile.data, &model.recipe, encode_scratch, dst, &encoded) == WCX_BAD_DATA);
		CHECK(wcx_tile_count(&tile.dims, tile.data, &model.recipe, 1, encode_scratch, count, &misfits) ==
		      WCX_BAD_DATA);
		for (size_t t = 0; t < WCX_FIELD_TABLES_MAX; t++)
			for (size_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				counted += count[t][s];
		CHECK(counted + misfits == 0);
		guarded_free(decoded);
	}
	tile_free(&tile);
}

/* --- recipes --- */

/* Eight bytes an element: 5 and 32 raw bits, and 3, 8 and 16 coded ones. */
static void make_sound_recipe(struct model *model)
{
	model_start(model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT2, 384);
	model_add(model, 5, 0, 0, NOISE, 0);
	model_add(model, 32, 0, 0, NOISE, 0);
	model_add(model, 3, 2, 0, BELL, 1);
	model_add(model, 8, 1, 0, BELL, 1);
	model_add(model, 16, 4, 65280, BELL, 1)->has_zero = 1;
}

/* A byte an element: four raw bits and pairs, folded. */
static void make_folded_recipe(struct model *model)
{
	model_start(model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 128);
	model_add(model, 4, 0, 0, NOISE, 0);
	model_add(model, 4, 2, 0, BELL, 1)->is_pair = 1;
}

/* What a case changes of a sound recipe: integers of one, two or four bytes of the model. */
struct poke {
	size_t at, bytes;
	uint32_t value;
};

struct recipe_case {
	const char *why;
	struct poke pokes[3];
};

#define POKE(member, value)                                                                                                 \
	{                                                                                                                   \
		offsetof(struct model, member), sizeof((struct model *)NULL)->member, value                                 \
	}
#define WIDTH(f, value) POKE(fields[f].width, value)

static void check_recipe_cases(void (*make)(struct model *model), const struct recipe_case *cases, size_t count)
{
	for (size_t c = 0; c < count; c++) {
		struct model model;

		make(&model);
		CHECK(wcx_recipe_check(&model.recipe) == NULL && wcx_recipe_check_fields(&model.recipe) == NULL);
		for (size_t i = 0; i < 3 && cases[c].pokes[i].bytes; i++)
			memcpy((uint8_t *)&model + cases[c].pokes[i].at, &cases[c].pokes[i].value, cases[c].pokes[i].bytes);
		if (!CHECK(wcx_recipe_check(&model.recipe) != NULL))
			fprintf(stderr, "\t%s was accepted\n", cases[c].why);
	}
}

static void recipes_that_break_a_rule_are_refused(void)
{
	static const struct recipe_case cases[] = {
		{ "elements of no bytes", { POKE(recipe.elem_bytes, 0) } },
		{ "elements of three bytes", { POKE(recipe.elem_bytes, 3) } },
		{ "elements of 16 bytes", { POKE(recipe.elem_bytes, 16) } },
		{ "unknown transform", { POKE(recipe.transform, 3), POKE(recipe.predictor, 0) } },
		{ "rotation and predictor", { POKE(recipe.transform, WCX_TRANSFORM_ROTATE) } },
		{ "folded elements of eight bytes",
		  { POKE(recipe.transform, WCX_TRANSFORM_FOLD), POKE(recipe.predictor, 0) } },
		{ "unknown predictor", { POKE(recipe.predictor, 4) } },
		{ "no fields", { POKE(recipe.field_count, 0) } },
		{ "a field too few", { POKE(recipe.field_count, 4) } },
		{ "63 bits", { WIDTH(0, 4) } },
		{ "65 bits", { WIDTH(0, 6) } },
		{ "width 0", { WIDTH(2, 0), WIDTH(0, 8) } },
		{ "width 33", { WIDTH(1, 33), WIDTH(0, 4) } },
		{ "three tables", { POKE(fields[2].table_count, 3) } },
		{ "eight tables", { POKE(fields[2].table_count, 8) } },
		{ "tables for 17 bits", { WIDTH(4, 17), WIDTH(0, 4) } },
		{ "base without tables", { POKE(fields[0].base, 1) } },
		{ "base of eight bits", { POKE(fields[3].base, 1) } },
		{ "base of 16 bits too large", { POKE(fields[4].base, 65281) } },
		{ "ZERO without tables", { POKE(fields[1].has_zero, 1) } },
		{ "ZERO in eight bits", { POKE(fields[3].has_zero, 1) } },
		{ "ZERO in three bits", { POKE(fields[2].has_zero, 1) } },
		{ "pairs in elements of eight bytes", { WIDTH(4, 4), WIDTH(0, 17), POKE(fields[4].is_pair, 1) } },
		{ "symbol of four bits in three", { POKE(tables[2][1].freq[8], 1) } },
		{ "symbol of eight bits in three", { POKE(tables[2][0].freq[255], 1) } },
		{ "choices without a run", { POKE(recipe.run, 0) } },
		{ "run of half a line", { POKE(recipe.run, 64) } },
		{ "run of broken lines", { POKE(recipe.run, 200) } },
		{ "run longer than a tile", { POKE(recipe.run, 65536 + 128) } },
		{ "run without choices", { POKE(fields[2].table_count, 1), POKE(fields[4].table_count, 1) } },
	};
	static const struct recipe_case folded[] = {
		{ "folding and LEFT", { POKE(recipe.predictor, WCX_PREDICT_LEFT) } },
		{ "folding and UP", { POKE(recipe.predictor, WCX_PREDICT_UP) } },
		{ "rotation and UP",
		  { POKE(recipe.transform, WCX_TRANSFORM_ROTATE), POKE(recipe.predictor, WCX_PREDICT_UP) } },
		{ "unknown transform", { POKE(recipe.transform, 255) } },
		{ "folding above a coded field", { POKE(fields[0].table_count, 1), POKE(fields[0].tables, 0) } },
		{ "folding of one raw field", { POKE(recipe.field_count, 1), WIDTH(0, 8), POKE(recipe.run, 0) } },
		{ "folded elements of two bytes", { POKE(recipe.elem_bytes, 2), WIDTH(1, 12), POKE(fields[1].is_pair, 0) } },
		{ "pairs of three bits", { WIDTH(1, 3), WIDTH(0, 5) } },
		{ "pairs of five bits", { WIDTH(1, 5), WIDTH(0, 3) } },
		{ "pairs of eight bits", { WIDTH(1, 8), POKE(recipe.field_count, 2) } },
		{ "pairs in elements of two bytes",
		  { POKE(recipe.elem_bytes, 2), WIDTH(0, 12), POKE(recipe.transform, WCX_TRANSFORM_NONE) } },
		{ "pairs without tables", { POKE(fields[1].table_count, 0), POKE(recipe.run, 0) } },
		{ "pairs of a field that is not the last", { WIDTH(0, 2), WIDTH(2, 2), POKE(recipe.field_count, 3) } },
		{ "pairs in a raw field", { POKE(fields[0].is_pair, 1) } },
		{ "ZERO in pairs", { POKE(fields[1].has_zero, 1) } },
		{ "base in pairs", { POKE(fields[1].base, 1) } },
		{ "half a pair of five bits", { POKE(tables[1][0].freq[16], 1) } },
		{ "half a pair of eight bits", { POKE(tables[1][1].freq[255], 1) } },
	};

	check_recipe_cases(make_sound_recipe, cases, sizeof cases / sizeof cases[0]);
	check_recipe_cases(make_folded_recipe, folded, sizeof folded / sizeof folded[0]);
}

static void recipes_at_the_edge_of_a_rule_are_accepted(void)
{
	struct model model;

	make_sound_recipe(&model);
	model.recipe.run = 128;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.recipe.run = 65536;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.fields[4].base = 0;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.fields[4].width = 9;
	model.fields[0].width = 12;
	model.fields[4].base = 256;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.fields[4].has_zero = 0;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.tables[2][1].freq[7] = 1;
	model.tables[3][0].freq[255] = 1;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
	model.recipe.predictor = WCX_PREDICT_NONE;
	model.recipe.transform = WCX_TRANSFORM_ROTATE;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
}

static void folds_and_pairs_at_the_edge_of_a_rule_are_accepted(void)
{
	for (uint32_t tables = 1; tables <= 4; tables *= 2) {
		for (uint32_t transform = 0; transform < WCX_TRANSFORM_COUNT; transform++) {
			struct model model;

			/* Pairs with every transform, and with a predictor where there is none. */
			make_folded_recipe(&model);
			model.recipe.transform = (uint8_t)transform;
			model.recipe.run = tables > 1 ? 128 : 0;
			model.fields[1].table_count = (uint8_t)tables;
			model.tables[1][tables - 1].freq[15] = 1;
			CHECK(wcx_recipe_check(&model.recipe) == NULL);
			model.recipe.predictor = WCX_PREDICT_LEFT2;
			CHECK((wcx_recipe_check(&model.recipe) == NULL) == (transform == WCX_TRANSFORM_NONE));
		}
	}
	/* Folding where the first field, of any width, has no tables, whatever the others have. */
	for (uint32_t width = 1; width < 8; width++) {
		struct model model;

		model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
		model_add(&model, width, 0, 0, NOISE, 0);
		model_add(&model, 8 - width, width % 2, 0, BELL, 0);
		CHECK(wcx_recipe_check(&model.recipe) == NULL);
	}
}

/* Fields of the widths given, which make up eight bytes. */
static const char *check_widths(const uint8_t *widths)
{
	struct model model;

	model_start(&model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	for (; *widths; widths++)
		model_add(&model, *widths, 0, 0, NOISE, 0);
	return wcx_recipe_check(&model.recipe);
}

static void recipes_have_10_fields_and_16_planes_at_most(void)
{
	CHECK(check_widths((uint8_t[]){ 4, 4, 4, 4, 4, 4, 8, 8, 8, 16, 0 }) == NULL);
	CHECK(check_widths((uint8_t[]){ 4, 4, 4, 4, 4, 4, 4, 4, 8, 8, 16, 0 }) != NULL);
	CHECK(check_widths((uint8_t[]){ 7, 7, 7, 7, 18, 2, 16, 0 }) == NULL);
	CHECK(check_widths((uint8_t[]){ 7, 7, 7, 7, 17, 3, 16, 0 }) != NULL);
}

int main(void)
{
	encode_scratch = wcx_encode_scratch_create();
	if (!CHECK(encode_scratch != NULL))
		return check_report();
	for (unsigned i = 0; wcx_decode_variant_at(i) && CHECK(i < CPUS_MAX); i++) {
		decode_scratch[i] = wcx_decode_scratch_create(wcx_decode_variant_at(i));
		if (!CHECK(decode_scratch[i] != NULL))
			return check_report();
	}

	built_tables_sum_to_the_scale_and_cover_what_was_counted();
	built_tables_cost_hardly_more_than_the_best_and_than_the_entropy();
	costs_and_entropies_are_known_ones();
	known_table_bytes_are_what_they_were();
	tables_survive_writing_and_every_change_is_refused_or_canonical();
	tables_that_break_a_rule_are_refused();
	known_tables_make_known_tables_of_pairs();
	tables_of_pairs_have_the_largest_scale_of_all();
	tables_of_pairs_are_tables_whatever_they_are_made_from();
	every_variant_is_found_by_its_name_and_no_other();
	chosen_variant_is_one_that_this_cpu_can_run();
	known_rans_bytes_decode_to_known_symbols();
	coding_takes_the_bits_that_the_table_says();
	symbols_of_every_frequency_come_back();
	streams_of_every_shape_come_back();
	start_states_take_what_their_widths_say();
	streams_that_are_cut_or_lengthened_or_end_in_another_state_are_refused();
	pairs_are_finished_in_a_sink_as_they_are_in_words();
	tiles_of_random_recipes_come_back();
	small_tiles_of_every_shape_come_back();
	tiles_of_every_number_of_elements_come_back();
	large_tiles_come_back();
	tile_of_ten_coded_fields_comes_back();
	last_plane_is_carried_whatever_its_size();
	tile_that_does_not_pay_is_stored();
	tiles_that_are_not_coded_need_no_scratch();
	field_that_does_not_pay_is_raw_beside_one_that_does();
	tile_of_equal_elements_is_constant_if_they_fit_in_its_entry();
	field_of_one_value_is_constant_whatever_it_is();
	value_without_a_symbol_or_a_frequency_is_an_exception_of_the_carrier();
	half_of_a_pair_without_a_frequency_is_an_exception();
	exceptions_are_carried_where_no_plane_is();
	exceptions_are_stored_where_a_plane_is_carried();
	exceptions_are_4095_at_most();
	run_below_the_carrier_takes_a_table_that_has_all_its_symbols();
	scratch_serves_one_recipe_after_the_other();
	known_tile_decodes_to_known_elements_and_back();
	known_large_tiles_are_what_they_were();
	folded_elements_are_known_ones();
	raw_field_above_the_first_is_folded_too();
	raw_bits_lie_where_the_format_says();
	drawn_tiles_take_what_their_tables_say();
	gaussian_weights_take_hardly_more_than_their_entropy();
	runs_take_the_table_that_takes_the_fewest_bits();
	counts_are_plain_ones();
	fields_lie_where_the_format_says();
	folded_weights_lie_where_the_format_says();
	tile_cut_or_lengthened_is_refused();
	tile_without_a_carrier_cut_or_lengthened_is_refused();
	coded_tile_that_saves_nothing_is_refused();
	damaged_bytes_are_refused_or_decode_as_the_format_says();
	what_is_written_as_zero_and_not_checked_may_be_anything();
	noise_is_never_written_outside_the_tile();
	headers_that_break_a_rule_are_refused();
	coded_field_without_tables_is_refused();
	exceptions_without_a_carrier_are_refused();
	exceptions_that_break_a_rule_are_refused();
	exception_beyond_its_field_is_refused();
	payload_that_is_odd_or_too_short_for_its_states_is_refused();
	shapes_out_of_limits_and_wrong_sizes_are_refused();
	unknown_transforms_and_predictors_are_refused();
	recipes_that_break_a_rule_are_refused();
	recipes_at_the_edge_of_a_rule_are_accepted();
	folds_and_pairs_at_the_edge_of_a_rule_are_accepted();
	recipes_have_10_fields_and_16_planes_at_most();

	wcx_encode_scratch_free(encode_scratch);
	for (unsigned i = 0; i < CPUS_MAX; i++)
		wcx_decode_scratch_free(decode_scratch[i]);
	return check_report();
}
