/* SPDX-License-Identifier: MIT */
/*
 * The codec: frequency tables, rANS, recipes and tiles, against what docs/format.md says, known bytes, a plain decoder and
 * plain counts, and on bytes that are damaged.
 */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "codec/freq_table.h"
#include "codec/le.h"
#include "codec/rans.h"
#include "codec/tile.h"
#include "tests/check.h"
#include "tests/sample_data.h"

enum {
	GUARD_BYTES = 64,
	GUARD = 0xA7,
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

/* --- rANS --- */

static const struct wcx_rans_choices no_choices = { NULL, 0, 0 };

/* Codes with one table, and working memory of just the size. */
static size_t rans_encode(const struct wcx_freq_table *freqs, const uint8_t *symbols, size_t count, const uint8_t *carried,
			  uint8_t *dst, size_t dst_bytes)
{
	static struct wcx_rans_encode_table table;
	const struct wcx_rans_encode_table *tables[] = { &table };
	uint16_t *words = malloc(count * sizeof *words);
	size_t bytes;

	wcx_rans_encode_table_build(freqs, &table);
	bytes = wcx_rans_encode(tables, &no_choices, symbols, count, carried, words, dst, dst_bytes);
	free(words);
	return bytes;
}

/* Decodes a copy that has nothing behind its end. */
static enum wcx_result rans_decode(const struct wcx_freq_table *freqs, const uint8_t *src, size_t bytes, uint8_t *dst,
				   size_t count, uint8_t *carried)
{
	static struct wcx_rans_decode_table table;
	const struct wcx_rans_decode_table *tables[] = { &table };
	uint8_t *copy = malloc(bytes ? bytes : 1);
	enum wcx_result result;

	memcpy(copy, src, bytes);
	wcx_rans_decode_table_build(freqs, &table);
	result = wcx_rans_decode(tables, &no_choices, copy, bytes, dst, count, carried);
	free(copy);
	return result;
}

/*
 * Five symbols by hand from docs/format.md, section 3.2, with frequencies 2048 and 2048.  A step backwards doubles what the
 * state has above its low 11 bits, which stay, and adds 2048 for symbol 1.  Lane 0, symbols 0 1 1 0: 10000 -> 20000 -> 40800
 * -> 81800 -> 103000.  Lane 1, symbol 1: 20800.  Carrying 0x1234 in lane 0, of which the low 11 bits are 0x234: 11234 ->
 * 22234 -> 44A34 -> 89A34 -> 113234; in lane 2, which has no symbol, it stays 11234.
 */
static void known_rans_bytes_decode_to_known_symbols(void)
{
	static const uint8_t symbols[] = { 0, 1, 1, 0, 1 };
	static const struct wcx_freq_table freqs = { .freq = { 2048, 2048 } };
	uint8_t stream[WCX_RANS_STATE_BYTES], decoded[sizeof symbols], encoded[WCX_RANS_STATE_BYTES];
	uint8_t carried[WCX_RANS_CARRIED_BYTES] = { 0 }, again[WCX_RANS_CARRIED_BYTES];

	for (int lane = 0; lane < WCX_RANS_LANES; lane++)
		wcx_le32_write(stream + 4 * lane, 0x10000);
	wcx_le32_write(stream, 0x103000);
	wcx_le32_write(stream + 4, 0x20800);
	CHECK(rans_decode(&freqs, stream, sizeof stream, decoded, sizeof decoded, NULL) == WCX_OK);
	CHECK(memcmp(decoded, symbols, sizeof symbols) == 0);
	CHECK(rans_encode(&freqs, symbols, sizeof symbols, NULL, encoded, sizeof encoded) == sizeof encoded);
	CHECK(memcmp(encoded, stream, sizeof stream) == 0);

	wcx_le16_write(carried, 0x1234);
	wcx_le16_write(carried + 4, 0x1234);
	wcx_le32_write(stream, 0x113234);
	wcx_le32_write(stream + 8, 0x11234);
	CHECK(rans_decode(&freqs, stream, sizeof stream, decoded, sizeof decoded, again) == WCX_OK);
	CHECK(memcmp(decoded, symbols, sizeof symbols) == 0 && memcmp(again, carried, sizeof carried) == 0);
	CHECK(rans_decode(&freqs, stream, sizeof stream, decoded, sizeof decoded, NULL) == WCX_BAD_DATA);
	CHECK(rans_encode(&freqs, symbols, sizeof symbols, carried, encoded, sizeof encoded) == sizeof encoded);
	CHECK(memcmp(encoded, stream, sizeof stream) == 0);
}

static void coding_takes_the_bits_that_the_table_says(void)
{
	enum { N = 50000 };
	static uint8_t symbols[N], encoded[2 * N], decoded[N];
	struct sample_random random = { 5 };

	for (int kind = 0; kind < SAMPLE_CONSTANT; kind++) {
		uint64_t count[WCX_SYMBOL_COUNT] = { 0 };
		struct wcx_freq_table table;
		size_t bytes;
		double bits;

		sample_fill(&random, (enum sample_kind)kind, 20, symbols, N);
		for (size_t i = 0; i < N; i++)
			count[symbols[i]]++;
		wcx_freq_table_build(count, &table);
		bytes = rans_encode(&table, symbols, N, NULL, encoded, sizeof encoded);
		/* All that is coded came on top of 16 bits in each lane's first state. */
		bits = 16.0 * (double)(bytes - WCX_RANS_STATE_BYTES) / 2;
		for (size_t lane = 0; lane < WCX_RANS_LANES; lane++)
			bits += log2(wcx_le32_read(encoded + 4 * lane)) - 16;
		CHECK(fabs(bits / wcx_freq_table_cost(&table, count) - 1) < 1e-4);
		CHECK(rans_encode(&table, symbols, N, NULL, encoded, bytes) == bytes);
		CHECK(rans_encode(&table, symbols, N, NULL, decoded, bytes - 1) == 0);
		CHECK(rans_decode(&table, encoded, bytes, decoded, N, NULL) == WCX_OK);
		CHECK(memcmp(decoded, symbols, N) == 0);
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
		uint8_t symbols[N], encoded[3 * N], decoded[N];
		size_t bytes;

		for (size_t i = 0; i < N; i++)
			symbols[i] = sample_below(&random, 2) ? 7 : 201;
		bytes = rans_encode(&table, symbols, N, NULL, encoded, sizeof encoded);
		wrong += bytes == 0 || rans_decode(&table, encoded, bytes, decoded, N, NULL) != WCX_OK ||
			 memcmp(decoded, symbols, N) != 0;
	}
	CHECK(wrong == 0);
}

/* 300 symbols leave some lanes with fewer than the others, 30 leave most without any. */
static void streams_that_are_cut_or_lengthened_or_end_in_another_state_are_refused(void)
{
	static const size_t counts[] = { 300, 30 };
	static const struct wcx_freq_table table = { .freq = { [250] = 1000, [3] = 1596, [2] = 1500 } };
	uint8_t symbols[300], stream[1000] = { 0 }, decoded[300], again[1000];
	struct sample_random random = { 17 };

	for (size_t i = 0; i < sizeof symbols; i++)
		symbols[i] = (uint8_t[]){ 250, 3, 2 }[sample_below(&random, 3)];
	for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
		size_t count = counts[c];
		size_t bytes = rans_encode(&table, symbols, count, NULL, stream, sizeof stream - 4);

		CHECK(rans_decode(&table, stream, bytes, decoded, count, NULL) == WCX_OK);
		for (size_t cut = 0; cut < bytes; cut++)
			CHECK(rans_decode(&table, stream, cut, decoded, count, NULL) == WCX_BAD_DATA);
		for (size_t more = 1; more <= 4; more++)
			CHECK(rans_decode(&table, stream, bytes + more, decoded, count, NULL) == WCX_BAD_DATA);
		for (size_t bit = 0; bit < 8 * bytes; bit++) {
			stream[bit / 8] ^= (uint8_t)(1u << bit % 8);
			/* What decodes all the same must be the coding of other symbols. */
			if (rans_decode(&table, stream, bytes, decoded, count, NULL) == WCX_OK) {
				CHECK(rans_encode(&table, decoded, count, NULL, again, sizeof again) == bytes);
				CHECK(memcmp(again, stream, bytes) == 0);
			}
			stream[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		memset(stream, 0, sizeof stream);
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

static void model_start(struct model *model, uint32_t elem_bytes, uint32_t rotation, enum wcx_predictor predictor,
			uint32_t run)
{
	memset(model, 0, sizeof *model);
	model->recipe = (struct wcx_recipe){
		.elem_bytes = (uint8_t)elem_bytes,
		.rotation = (uint8_t)rotation,
		.predictor = (uint8_t)predictor,
		.run = run,
		.fields = model->fields,
	};
}

static void model_add(struct model *model, uint32_t width, uint32_t table_count, uint32_t base, enum source source,
		      double sigma)
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
}

/* The symbol for a value, or -1. */
static int plain_symbol(const struct wcx_field *field, uint32_t value)
{
	if (field->width <= 8 || value == 0)
		return (int)value;
	return value > field->base && value - field->base < WCX_SYMBOL_COUNT ? (int)(value - field->base) : -1;
}

static uint32_t plain_value(const struct wcx_field *field, uint32_t symbol)
{
	return field->width <= 8 || symbol == 0 ? symbol : field->base + symbol;
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

	switch (model->outliers[f] && sample_unit(random) < model->outliers[f] ? NOISE : model->source[f]) {
	case NOISE:
		return (uint32_t)(sample_next(random) >> (64 - field->width));
	case BELL:
		symbol = floor(fabs(sample_normal(random)) * model->sigma[f] * (1 + table_meant(model, f, i)));
		return plain_value(field, (uint32_t)fmin(top, symbol));
	case EQUAL:
		break;
	}
	return (uint32_t)(UINT64_C(0xA5C3A5) & ((UINT64_C(1) << field->width) - 1));
}

/* --- section 3 of docs/format.md, taken word by word --- */

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

/* Bytes that the choices of a field take. */
static size_t plain_choices_bytes(const struct wcx_recipe *recipe, const struct wcx_field *field, size_t n)
{
	size_t bits = field->table_count == 4 ? 2 : 1;

	return field->table_count > 1 ? padded(((n + recipe->run - 1) / recipe->run * bits + 7) / 8, 4) : 0;
}

/* Section 3.2, one step: the symbols of the lanes, then the words that they want; false when one is missing. */
static int plain_step(const struct wcx_freq_table *table, size_t first, size_t n, uint32_t state[32], const uint8_t **word,
		      const uint8_t *end, uint8_t *symbols)
{
	for (size_t l = 0; l < 32 && first + 4 * l < n; l++) {
		uint32_t slot = state[l] & 4095, below = 0, s = 0;

		for (; slot >= below + table->freq[s]; s++)
			below += table->freq[s];
		state[l] = table->freq[s] * (state[l] >> 12) + slot - below;
		symbols[first + 4 * l] = (uint8_t)s;
	}
	for (size_t l = 0; l < 32 && first + 4 * l < n; l++) {
		if (state[l] >= 1 << 16)
			continue;
		if (*word == end)
			return 0;
		state[l] = state[l] << 16 | bits_at(*word, 0, 16);
		*word += 2;
	}
	return 1;
}

/* Section 3.2; false when the payload breaks a rule.  low gets what the final states have in their low halves. */
static int plain_rans(const struct wcx_recipe *recipe, const struct wcx_field *field, size_t n, const uint8_t *payload,
		      size_t bytes, uint8_t *symbols, uint8_t low[64])
{
	size_t choices_bytes = plain_choices_bytes(recipe, field, n);
	const uint8_t *word = payload + choices_bytes + 128, *end = payload + bytes;
	uint32_t state[32];

	if (bytes % 2 || bytes < choices_bytes + 128)
		return 0;
	for (size_t l = 0; l < 32; l++)
		state[l] = bits_at(payload + choices_bytes, 32 * l, 32);
	for (size_t g = 0; g < n; g += 128) {
		uint32_t choice = 0;

		if (field->table_count > 1)
			choice = field->table_count == 4 ? bits_at(payload, g / recipe->run * 2, 2)
							 : bits_at(payload, g / recipe->run, 1);
		for (size_t k = 0; k < 4; k++)
			if (!plain_step(&field->tables[choice], g + k, n, state, &word, end, symbols))
				return 0;
	}
	for (size_t l = 0; l < 32; l++) {
		if (state[l] >> 16 != 1)
			return 0;
		low[2 * l] = (uint8_t)state[l];
		low[2 * l + 1] = (uint8_t)(state[l] >> 8);
	}
	return word == end;
}

/* A coded tile as it is taken apart. */
struct plain {
	const struct wcx_recipe *recipe;
	size_t n;
	uint32_t coding[WCX_FIELDS_MAX];
	uint32_t constant[WCX_FIELDS_MAX], payload_bytes[WCX_FIELDS_MAX], exceptions[WCX_FIELDS_MAX];
	uint32_t shift[WCX_FIELDS_MAX];
	int carrier;             /* a field, or -1 */
	int has_carried;         /* whether a part has been left out that the states carry */
	uint8_t carried[64];     /* that part */
	size_t exceptions_at;    /* where they start */
	size_t exceptions_bytes; /* with what is carried */
	int exceptions_are_carried;
	uint64_t *residuals;
};

/* The headers; false when one breaks a rule. */
static int plain_headers(struct plain *plain, const uint8_t *src)
{
	uint32_t shift = 0;

	plain->carrier = -1;
	for (uint32_t f = 0; f < plain->recipe->field_count; f++) {
		const struct wcx_field *field = &plain->recipe->fields[f];
		const uint8_t *header = src + 4 * f;

		plain->shift[f] = shift;
		shift += field->width;
		plain->coding[f] = bits_at(header, 0, 2);
		plain->exceptions[f] = bits_at(header, 2, 12);
		plain->payload_bytes[f] = bits_at(header, 14, 18);
		plain->constant[f] = bits_at(header, 8, 24);
		if (plain->coding[f] == 3 || (plain->coding[f] == 0 && bits_at(header, 2, 30)))
			return 0;
		if (plain->coding[f] == 1) {
			if (!field->table_count || (plain->carrier >= 0 && plain->exceptions[plain->carrier]))
				return 0;
			plain->carrier = (int)f;
		}
		if (plain->coding[f] == 2 && (bits_at(header, 2, 6) || plain->constant[f] >= UINT64_C(1) << field->width))
			return 0;
	}
	return 1;
}

/* What is stored of a part that may be carried. */
static size_t plain_stored(struct plain *plain, size_t bytes)
{
	if (plain->carrier < 0 || plain->has_carried || bytes < 64)
		return bytes;
	plain->has_carried = 1;
	return bytes - 64;
}

/* A part as it was before its end was left out. */
static uint8_t *plain_whole(const struct plain *plain, const uint8_t *stored, size_t stored_bytes)
{
	uint8_t *whole = malloc(stored_bytes + 64);

	memcpy(whole, stored, stored_bytes);
	memcpy(whole + stored_bytes, plain->carried, 64);
	return whole;
}

/* Section 3.1.  Goes through the raw planes behind `at`, and returns where they end; takes their bits if `takes`. */
static size_t plain_planes(struct plain *plain, const uint8_t *src, size_t at, int takes)
{
	uint32_t left = 0;

	for (uint32_t f = 0; f < plain->recipe->field_count; f++)
		for (uint32_t b = 32; b && plain->coding[f] == 0; b /= 2)
			left += (plain->recipe->fields[f].width & b) != 0;
	plain->has_carried = 0;
	for (uint32_t f = 0; f < plain->recipe->field_count; f++) {
		uint32_t shift = plain->shift[f];

		for (uint32_t b = 32; b && plain->coding[f] == 0; b /= 2) {
			size_t bytes = (plain->n * b + 7) / 8;
			uint8_t *whole;

			if (!(plain->recipe->fields[f].width & b))
				continue;
			at = padded(at, 4);
			bytes = --left == 0 ? plain_stored(plain, bytes) : bytes;
			if (takes) {
				whole = plain_whole(plain, src + at, bytes);
				for (size_t i = 0; i < plain->n; i++)
					plain->residuals[i] |= (uint64_t)bits_at(whole, i * b, b) << shift;
				free(whole);
			}
			shift += b;
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
	size_t stored;

	if (plain->carrier < 0 || plain->exceptions[plain->carrier] == 0)
		return at;
	plain->exceptions_at = padded(at, 4);
	plain->exceptions_bytes = padded(plain->exceptions[plain->carrier] * (2 + plain_value_bytes(plain)), 2);
	stored = plain_stored(plain, plain->exceptions_bytes);
	plain->exceptions_are_carried = stored < plain->exceptions_bytes;
	return plain->exceptions_at + stored;
}

/* Puts the exceptions in the place of values; false when one breaks a rule. */
static int plain_take_exceptions(struct plain *plain, const uint8_t *src)
{
	uint32_t c = plain->carrier < 0 ? 0 : plain->exceptions[plain->carrier];
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

/* The fields that have no raw planes; the payloads start behind `at`, and with the last one the tile must end. */
static int plain_others(struct plain *plain, const uint8_t *src, size_t at, size_t src_bytes)
{
	uint8_t *symbols = malloc(plain->n), low[64];
	int sound = 1;

	for (uint32_t f = 0; f < plain->recipe->field_count && sound; f++) {
		const struct wcx_field *field = &plain->recipe->fields[f];
		size_t i;

		for (i = 0; plain->coding[f] == 2 && i < plain->n; i++)
			plain->residuals[i] |= (uint64_t)plain->constant[f] << plain->shift[f];
		if (plain->coding[f] != 1)
			continue;
		at = padded(at, 4);
		sound = at + plain->payload_bytes[f] <= src_bytes &&
			plain_rans(plain->recipe, field, plain->n, src + at, plain->payload_bytes[f], symbols, low);
		at += plain->payload_bytes[f];
		for (i = 0; sound && i < plain->n; i++)
			plain->residuals[i] |= (uint64_t)plain_value(field, symbols[i]) << plain->shift[f];
		if ((int)f == plain->carrier && plain->has_carried)
			memcpy(plain->carried, low, 64);
		else
			for (i = 0; i < 64 && sound; i++)
				sound = low[i] == 0;
	}
	free(symbols);
	return sound && at == src_bytes;
}

/* Sections 3.4 and 3.5: residuals to elements. */
static void plain_finish(const struct wcx_tile_shape *shape, const struct wcx_recipe *recipe, uint64_t *u, uint8_t *dst)
{
	const uint32_t bits = 8 * recipe->elem_bytes;
	const uint64_t mask = UINT64_MAX >> (64 - bits);

	for (size_t y = 0, i = 0; y < shape->rows; y++) {
		for (size_t x = 0; x < shape->cols; x++, i++) {
			uint64_t left = x >= 1 ? u[i - 1] : 0, before = x >= 2 ? u[i - 2] : 0,
				 up = y ? u[i - shape->cols] : 0;
			uint64_t prediction[] = { 0, left, up, 2 * left - before }, element;

			u[i] = (prediction[recipe->predictor] + u[i]) & mask;
			element = recipe->rotation ? u[i] >> 1 | (u[i] & 1) << (bits - 1) : u[i];
			for (uint32_t b = 0; b < recipe->elem_bytes; b++)
				dst[i * recipe->elem_bytes + b] = (uint8_t)(element >> 8 * b);
		}
	}
}

/* A coded tile; false when it breaks a rule. */
static int plain_decode(const struct wcx_tile_shape *shape, const struct wcx_recipe *recipe, const uint8_t *src,
			size_t src_bytes, uint8_t *dst)
{
	struct plain plain = { .recipe = recipe, .n = (size_t)shape->rows * shape->cols };
	size_t planes = 4u * recipe->field_count, payloads;
	int sound = 0;

	plain.residuals = calloc(plain.n, sizeof *plain.residuals);
	if (src_bytes < plain.n * recipe->elem_bytes && src_bytes >= planes && plain_headers(&plain, src)) {
		payloads = plain_find_exceptions(&plain, plain_planes(&plain, src, planes, 0));
		sound = payloads <= src_bytes && plain_others(&plain, src, payloads, src_bytes) &&
			plain_take_exceptions(&plain, src);
	}
	if (sound) {
		plain_planes(&plain, src, planes, 1);
		plain_finish(shape, recipe, plain.residuals, dst);
	}
	free(plain.residuals);
	return sound;
}

/* --- tiles --- */

/* Memory with guards on both sides: of what is written there, nothing may lie outside. */
static uint8_t *guarded_alloc(size_t bytes)
{
	uint8_t *memory = malloc(bytes + 2 * GUARD_BYTES);

	memset(memory, GUARD, bytes + 2 * GUARD_BYTES);
	return memory + GUARD_BYTES;
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
	free(at - GUARD_BYTES);
}

/* A tile, and what coding it gave. */
struct tile {
	struct wcx_tile_shape shape;
	const struct model *model;
	uint8_t *data, *packed; /* of the tile's size; packed by encode_tile */
	size_t n, bytes, packed_bytes;
	enum wcx_tile_mode mode;
	uint32_t constant;
};

static struct wcx_encode_scratch *encode_scratch;
static struct wcx_decode_scratch *decode_scratch;

static void tile_alloc(struct tile *tile, const struct model *model, uint32_t rows, uint32_t cols)
{
	memset(tile, 0, sizeof *tile);
	tile->shape = (struct wcx_tile_shape){ rows, cols, model->recipe.elem_bytes };
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
	plain_finish(&tile->shape, &tile->model->recipe, residuals, tile->data);
	free(residuals);
}

/* An element as it is predicted from; 0 outside the tile. */
static uint64_t rotated_at(const struct tile *tile, int64_t y, int64_t x)
{
	const uint32_t bits = 8 * tile->shape.elem_bytes;
	uint64_t element = 0;

	if (y < 0 || x < 0)
		return 0;
	for (uint32_t b = 0; b < tile->shape.elem_bytes; b++)
		element |= (uint64_t)tile->data[((size_t)y * tile->shape.cols + (size_t)x) * tile->shape.elem_bytes + b]
			   << 8 * b;
	if (tile->model->recipe.rotation)
		element = (element << 1 | element >> (bits - 1)) & UINT64_MAX >> (64 - bits);
	return element;
}

/* The value of a field of element i, from the element. */
static uint32_t value_at(const struct tile *tile, uint32_t f, size_t i)
{
	int64_t y = (int64_t)(i / tile->shape.cols), x = (int64_t)(i % tile->shape.cols);
	uint64_t residual = rotated_at(tile, y, x);
	uint32_t shift = 0;

	if (tile->model->recipe.predictor == WCX_PREDICT_UP)
		residual -= rotated_at(tile, y - 1, x);
	else if (tile->model->recipe.predictor == WCX_PREDICT_LEFT)
		residual -= rotated_at(tile, y, x - 1);
	else if (tile->model->recipe.predictor == WCX_PREDICT_LEFT2)
		residual -= 2 * rotated_at(tile, y, x - 1) - rotated_at(tile, y, x - 2);
	for (uint32_t below = 0; below < f; below++)
		shift += tile->model->fields[below].width;
	return (uint32_t)(residual >> shift & ((UINT64_C(1) << tile->model->fields[f].width) - 1));
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
	enum wcx_result result = wcx_tile_encode(&tile->shape, tile->data, &tile->model->recipe, encode_scratch,
						 tile->packed, &tile->mode, &tile->packed_bytes, &tile->constant);

	CHECK(result == WCX_OK);
	CHECK(guards_are_whole(tile->packed, tile->bytes));
}

/* Decodes bytes into dst, which has guards, from a copy of just their size; coded ones as the plain decoder does. */
static enum wcx_result decode_exactly(const struct tile *tile, const uint8_t *src, size_t src_bytes, uint8_t *dst)
{
	uint8_t *copy = malloc(src_bytes ? src_bytes : 1), *plainly = malloc(tile->bytes);
	struct wcx_tile_job job = {
		.shape = tile->shape,
		.mode = tile->mode,
		.constant = tile->constant,
		.recipe = &tile->model->recipe,
		.src = copy,
		.src_bytes = src_bytes,
		.dst = dst,
		.dst_bytes = tile->bytes,
	};
	enum wcx_result result;

	if (src_bytes)
		memcpy(copy, src, src_bytes);
	result = wcx_tile_decode(&job, decode_scratch);
	CHECK(result == job.result);
	CHECK(result == WCX_OK || result == WCX_BAD_DATA);
	CHECK(guards_are_whole(dst, tile->bytes));
	if (tile->mode == WCX_TILE_CODED) {
		int sound = plain_decode(&tile->shape, &tile->model->recipe, copy, src_bytes, plainly);

		CHECK(sound == (result == WCX_OK));
		CHECK(!sound || memcmp(plainly, dst, tile->bytes) == 0);
	}
	free(copy);
	free(plainly);
	return result;
}

static void check_round_trip(struct tile *tile)
{
	uint8_t *decoded = guarded_alloc(tile->bytes);

	encode_tile(tile);
	if (tile->mode == WCX_TILE_STORED)
		CHECK(tile->packed_bytes == tile->bytes && memcmp(tile->packed, tile->data, tile->bytes) == 0);
	else if (tile->mode == WCX_TILE_CONSTANT)
		CHECK(tile->packed_bytes == 0);
	else
		CHECK(tile->mode == WCX_TILE_CODED && tile->packed_bytes < tile->bytes);
	CHECK(decode_exactly(tile, tile->packed, tile->packed_bytes, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile->data, tile->bytes) == 0);
	guarded_free(decoded);
}

static struct wcx_tile_layout layout_of(const struct tile *tile)
{
	struct wcx_tile_layout layout = { 0 };

	CHECK(tile->mode == WCX_TILE_CODED);
	CHECK(wcx_tile_parse(&tile->shape, &tile->model->recipe, tile->packed, tile->packed_bytes, &layout) == WCX_OK);
	return layout;
}

static enum wcx_field_coding coding_of(const struct tile *tile, uint32_t f)
{
	return (enum wcx_field_coding)(tile->packed[4 * f] & 3);
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

/* What tiles of random recipes were seen to have, so that the test cannot pass without it. */
struct seen {
	uint64_t raw_widths, coded_widths, constant_widths, table_counts, elem_bytes, predictors, modes, exception_bytes;
	unsigned plane_carried, exceptions_carried, exceptions_stored, none_carried, without_coded, most_coded, with_base,
		ragged;
};

static void note_seen(const struct tile *tile, struct seen *seen)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	struct wcx_tile_layout layout;

	seen->modes |= UINT64_C(1) << tile->mode;
	if (tile->mode != WCX_TILE_CODED)
		return;
	layout = layout_of(tile);
	seen->elem_bytes |= UINT64_C(1) << recipe->elem_bytes;
	seen->predictors |= UINT64_C(1) << recipe->predictor;
	seen->plane_carried += layout.plane_carried != 0;
	seen->exceptions_carried += layout.exception_carried != 0;
	seen->exceptions_stored += layout.exception_count && !layout.exception_carried;
	seen->none_carried += layout.coded_count && layout.plane_count && !layout.plane_carried && !layout.exception_carried;
	if (layout.exception_count)
		seen->exception_bytes |= UINT64_C(1)
					 << (recipe->fields[layout.coded[layout.coded_count - 1].field].width > 8);
	seen->without_coded += layout.coded_count == 0;
	seen->ragged += tile->n % 128 != 0;
	if (layout.coded_count > seen->most_coded)
		seen->most_coded = layout.coded_count;
	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const struct wcx_field *field = &recipe->fields[f];
		uint64_t *widths[] = { &seen->raw_widths, &seen->coded_widths, &seen->constant_widths };

		*widths[coding_of(tile, f)] |= UINT64_C(1) << field->width;
		if (coding_of(tile, f) == WCX_FIELD_RANS) {
			seen->table_counts |= UINT64_C(1) << field->table_count;
			seen->with_base += field->base != 0;
		}
	}
}

/* Fields of random widths; false when they are too many, or have too many planes. */
static int add_random_fields(struct model *model, struct sample_random *random)
{
	uint32_t left = 8u * model->recipe.elem_bytes, planes = 0;

	while (left && model->recipe.field_count < WCX_FIELDS_MAX) {
		uint32_t width = 1 + (uint32_t)sample_below(random, left < 32 ? left : 32), tables = 0, base = 0,
			 source = NOISE;
		double sigma = ldexp(0.02 + sample_unit(random) / 4, width < 8 ? (int)width : 8);

		if (width <= 16 && sample_below(random, 4)) {
			tables = 1u << sample_below(random, 3);
			base = width > 8 ? (uint32_t)sample_below(random, (1u << width) - 255) : 0;
			source = sample_below(random, 6) ? BELL : NOISE;
		}
		if (sample_below(random, 8) == 0)
			source = EQUAL;
		model_add(model, width, tables, base, (enum source)source, sigma);
		left -= width;
		for (; width; width &= width - 1)
			planes++;
	}
	return left == 0 && planes <= WCX_RAW_PLANES_MAX;
}

static void draw_model(struct model *model, struct sample_random *random)
{
	uint32_t elem_bytes = 1u << sample_below(random, 4), most_tables = 0;

	do {
		model_start(model, elem_bytes, (uint32_t)sample_below(random, 2),
			    (enum wcx_predictor)sample_below(random, WCX_PREDICTOR_COUNT),
			    128 << sample_below(random, 10) | 128 * (uint32_t)sample_below(random, 3));
	} while (!add_random_fields(model, random));
	for (uint32_t f = 0; f < model->recipe.field_count; f++)
		if (model->fields[f].table_count > most_tables)
			most_tables = model->fields[f].table_count;
	if (most_tables <= 1)
		model->recipe.run = 0;
	else if (model->recipe.run > WCX_TILE_MAX_ELEMS)
		model->recipe.run = WCX_TILE_MAX_ELEMS;
}

/* A number of elements at the edge of something, or any. */
static uint32_t draw_elems(struct sample_random *random)
{
	static const uint32_t edges[] = { 1, 2, 127, 128, 129, 255, 256, 257, 1024, 65535, 65536 };

	if (sample_below(random, 4) == 0)
		return edges[sample_below(random, sizeof edges / sizeof edges[0])];
	return 1 + (uint32_t)sample_below(random, 6000);
}

static void tiles_of_random_recipes_come_back(void)
{
	struct sample_random random = { 1 };
	struct seen seen = { 0 };

	for (uint64_t round = 0; round < 1500; round++) {
		uint32_t elems = draw_elems(&random), rows = 1 + (uint32_t)sample_below(&random, elems < 300 ? elems : 300);
		struct model model;
		struct tile tile;

		draw_model(&model, &random);
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
	CHECK(seen.constant_widths >> 24 && (seen.constant_widths & 0xFFFE) == 0xFFFE);
	CHECK(seen.table_counts == (1 << 1 | 1 << 2 | 1 << 4));
	CHECK(seen.elem_bytes == (1 << 1 | 1 << 2 | 1 << 4 | 1 << 8));
	CHECK(seen.predictors == 0xF && seen.modes == 0x7);
	CHECK(seen.plane_carried > 50 && seen.none_carried > 10 && seen.without_coded > 10);
	CHECK(seen.exceptions_carried > 10 && seen.exceptions_stored > 10 && seen.exception_bytes == 3);
	CHECK(seen.most_coded > 4 && seen.with_base > 50 && seen.ragged > 50);
}

/* The fields of INT8, BF16, FP32 and FP64 weights, for the sizes 1, 2, 4 and 8. */
static void make_weight_model(struct model *model, uint32_t elem_bytes, enum wcx_predictor predictor)
{
	model_start(model, elem_bytes, elem_bytes > 1, predictor, 256);
	if (elem_bytes == 1)
		model_add(model, 3, 0, 0, NOISE, 0);
	else if (elem_bytes == 2)
		model_add(model, 6, 0, 0, NOISE, 0);
	else if (elem_bytes == 4)
		model_add(model, 22, 0, 0, NOISE, 0);
	else
		model_add(model, 32, 0, 0, NOISE, 0);
	if (elem_bytes == 8)
		model_add(model, 19, 0, 0, NOISE, 0);
	if (elem_bytes == 1)
		model_add(model, 5, 4, 0, BELL, 2);
	else
		model_add(model, elem_bytes == 8 ? 13 : 10, 2, 300, BELL, 6);
}

static void small_tiles_of_every_shape_come_back(void)
{
	unsigned modes[WCX_TILE_MODE_COUNT] = { 0 };

	for (uint32_t kind = 0; kind < 4 * WCX_PREDICTOR_COUNT; kind++) {
		struct model model;
		struct tile tile;

		make_weight_model(&model, 1u << kind % 4, (enum wcx_predictor)(kind / 4));
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

static void large_tiles_come_back(void)
{
	static const uint32_t sides[][2] = {
		{ 256, 256 }, { 1, 65536 }, { 65536, 1 }, { 255, 257 }, { 3, 21845 }, { 129, 508 },
	};

	for (uint32_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
		for (uint32_t elem_bytes = 1; elem_bytes <= WCX_ELEM_MAX_BYTES; elem_bytes *= 2) {
			struct model model;
			struct tile tile;

			make_weight_model(&model, elem_bytes, (enum wcx_predictor)((elem_bytes + i) % WCX_PREDICTOR_COUNT));
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

static void bytes_are_carried_from_a_last_plane_of_64_bytes_on(void)
{
	for (uint32_t width = 1; width <= 8; width *= 2) {
		for (uint32_t bytes = 63; bytes <= 65; bytes++) {
			struct wcx_tile_layout layout;
			struct model model;
			struct tile tile;

			model_start(&model, 4, 0, WCX_PREDICT_NONE, 0);
			model_add(&model, 16, 1, 1000, BELL, 0.7);
			model_add(&model, 16 - width, 0, 0, EQUAL, 0);
			model_add(&model, width, 0, 0, NOISE, 0);
			tile_alloc(&tile, &model, 1, 8 * bytes / width);
			tile_draw(&tile, bytes);
			model_learn(&model, &tile, 0);
			check_round_trip(&tile);
			layout = layout_of(&tile);
			CHECK(layout.plane_count == 1 && layout.coded_count == 1);
			CHECK(layout.planes[0].offset == 12 && layout.planes[0].width == width &&
			      layout.planes[0].shift == 32 - width);
			CHECK(layout.plane_carried == (bytes < 64 ? 0 : 64) && layout.exception_carried == 0);
			CHECK(layout.coded[0].offset == padded(12 + bytes - layout.plane_carried, 4));
			tile_free(&tile);
		}
	}
}

static void tile_that_does_not_pay_is_stored(void)
{
	struct model model;
	struct tile tile;

	model_start(&model, 2, 0, WCX_PREDICT_LEFT, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	tile_alloc(&tile, &model, 64, 64);
	tile_draw(&tile, 31);
	model_learn(&model, &tile, 0);
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_STORED);
	tile_free(&tile);
}

static void field_that_does_not_pay_is_raw_beside_one_that_does(void)
{
	struct model model;
	struct tile tile;

	model_start(&model, 2, 0, WCX_PREDICT_UP, 0);
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

		model_start(&model, cases[c].elem_bytes, 1, WCX_PREDICT_NONE, 0);
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
			CHECK(tile.packed_bytes == 32); /* eight headers */
		tile_free(&tile);
	}
}

/* A header holds 24 bits: a wide field without tables is constant in a tile below that, and raw above. */
static void wide_field_of_one_value_is_constant_if_its_header_holds_it(void)
{
	static const uint32_t values[] = { 0, 0xFFFFFF, 0x1000000, 0xFFFFFFFF };

	for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
		struct model model;
		struct tile tile;

		model_start(&model, 8, 0, WCX_PREDICT_NONE, 0);
		model_add(&model, 32, 0, 0, EQUAL, 0);
		model_add(&model, 24, 0, 0, NOISE, 0);
		model_add(&model, 8, 0, 0, EQUAL, 0);
		tile_alloc(&tile, &model, 10, 10);
		tile_draw(&tile, v);
		for (size_t i = 0; i < tile.n; i++)
			wcx_le32_write(tile.data + 8 * i, values[v]);
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED);
		CHECK(coding_of(&tile, 0) == (values[v] < 1 << 24 ? WCX_FIELD_CONSTANT : WCX_FIELD_RAW));
		CHECK(coding_of(&tile, 1) == WCX_FIELD_RAW && coding_of(&tile, 2) == WCX_FIELD_CONSTANT);
		tile_free(&tile);
	}
}

/*
 * Tiles of two coded fields, the lower of 10 bits above base 500 and the upper of 6 bits, which is the carrier; their tables
 * have the symbols that occur in the tile.
 */
static void make_two_field_tile(struct model *model, struct tile *tile, uint32_t tables)
{
	model_start(model, 2, 0, WCX_PREDICT_NONE, tables > 1 ? 256 : 0);
	model_add(model, 10, tables, 500, BELL, 4);
	model_add(model, 6, tables, 0, BELL, 1);
	tile_alloc(tile, model, 1, 2100);
	tile_draw(tile, 71);
	model_learn(model, tile, 0);
	check_round_trip(tile);
	CHECK(coding_of(tile, 0) == WCX_FIELD_RANS && coding_of(tile, 1) == WCX_FIELD_RANS);
	CHECK(layout_of(tile).exception_count == 0);
}

static void change_value(struct tile *tile, size_t i, uint32_t f, uint32_t value)
{
	uint32_t element = wcx_le16_read(tile->data + 2 * i);

	element = f ? (element & 0x3FF) | value << 10 : (element & 0xFC00) | value;
	wcx_le16_write(tile->data + 2 * i, element);
}

static void value_without_a_symbol_or_a_frequency_is_an_exception_of_the_carrier(void)
{
	/* No symbols: below the base, at it, and beyond the last one; 700 and 50 are symbols that no table has. */
	static const struct {
		uint32_t field, value;
	} cases[] = { { 0, 1 }, { 0, 499 }, { 0, 500 }, { 0, 756 }, { 0, 1023 }, { 0, 700 }, { 1, 50 }, { 1, 63 } };

	for (uint32_t tables = 1; tables <= 4; tables *= 2) {
		for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
			uint32_t f = cases[c].field;
			struct model model;
			struct tile tile;

			make_two_field_tile(&model, &tile, tables);
			change_value(&tile, 2099, f, cases[c].value);
			check_round_trip(&tile);
			/* Below the carrier, there are no exceptions: the field is raw. */
			CHECK(coding_of(&tile, 0) == (f ? WCX_FIELD_RANS : WCX_FIELD_RAW));
			CHECK(coding_of(&tile, 1) == WCX_FIELD_RANS && layout_of(&tile).exception_count == f);
			/* With the upper field constant, the lower one is the carrier. */
			for (size_t i = 0; i < tile.n && f == 0; i++)
				change_value(&tile, i, 1, 33);
			check_round_trip(&tile);
			CHECK(coding_of(&tile, 1) == (f ? WCX_FIELD_RANS : WCX_FIELD_CONSTANT));
			CHECK(coding_of(&tile, f) == WCX_FIELD_RANS && layout_of(&tile).exception_count == 1);
			tile_free(&tile);
		}
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

			make_two_field_tile(&model, &tile, 1);
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

static void exceptions_are_4095_at_most(void)
{
	for (uint32_t count = 4095; count <= 4096; count++) {
		struct model model;
		struct tile tile;

		model_start(&model, 2, 0, WCX_PREDICT_NONE, 0);
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

			model_start(&model, 2, 0, WCX_PREDICT_NONE, 384);
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

/* The same tables, first for a field of 4 bits, then for one of 8, where a symbol has no frequency. */
static void scratch_serves_one_recipe_after_the_other(void)
{
	struct model narrow, wide;
	struct tile tile;

	model_start(&narrow, 1, 0, WCX_PREDICT_NONE, 0);
	model_add(&narrow, 4, 1, 0, BELL, 2);
	model_add(&narrow, 4, 0, 0, NOISE, 0);
	tile_alloc(&tile, &narrow, 20, 50);
	tile_draw(&tile, 91);
	model_learn(&narrow, &tile, 0);
	check_round_trip(&tile);
	CHECK(coding_of(&tile, 0) == WCX_FIELD_RANS);
	tile_free(&tile);

	model_start(&wide, 1, 0, WCX_PREDICT_NONE, 0);
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
}

/*
 * A tile of 200 elements of a byte: four raw bits, and four coded with the frequencies 2048 and 2048.  Made from the text of
 * the format alone:
 *
 *	el = [(7 * i ^ i * i // 5) & 15 | (i * i // 3 & 1) << 4 for i in range(200)]
 *	plane = bytes(el[i] & 15 | (el[i + 1] & 15) << 4 for i in range(0, 200, 2))
 *	state = [0x10000 | int.from_bytes(plane[36 + 2 * l:38 + 2 * l], "little") for l in range(32)]
 *	for i in sorted(range(200), key=lambda i: (i // 128, i % 4, i), reverse=True):
 *		l = i % 128 // 4
 *		state[l] = state[l] // 2048 << 12 | state[l] % 2048 + 2048 * (el[i] >> 4)
 *	tile = bytes(4) + (1 | 128 << 14).to_bytes(4, "little") + plane[:36]
 *	tile += b"".join(x.to_bytes(4, "little") for x in state)
 */
static const uint8_t known_tile[] = {
	0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x20, 0x00, 0x70, 0x4E, 0x6F, 0x8D, 0xF4, 0x52, 0xA8, 0x45, 0xE3, 0xDE,
	0xBC, 0x8A, 0x2B, 0xC1, 0x38, 0x96, 0xEC, 0x09, 0x2F, 0x1A, 0xF8, 0xC6, 0xE7, 0x05, 0x7C, 0xDA, 0x20, 0xCD,
	0x6B, 0x56, 0x34, 0x02, 0xA3, 0x49, 0xB0, 0x1E, 0x64, 0xE1, 0x83, 0x01, 0xA7, 0x0A, 0x96, 0x01, 0x70, 0xBE,
	0x48, 0x01, 0x6F, 0xE5, 0x8B, 0x01, 0xF4, 0x0A, 0x56, 0x01, 0xA8, 0xBD, 0x40, 0x01, 0xE3, 0xE6, 0xDB, 0x01,
	0xBC, 0x0A, 0x8E, 0x01, 0x2B, 0xB9, 0xC0, 0x01, 0x38, 0xE6, 0x93, 0x01, 0xEC, 0x09, 0x0E, 0x01, 0x2F, 0xBA,
	0x18, 0x01, 0xF8, 0xE6, 0xC3, 0x01, 0xE7, 0x0D, 0x06, 0x01, 0x7C, 0xBA, 0xD8, 0x01, 0x20, 0xE5, 0xCB, 0x01,
	0x6B, 0x0E, 0x56, 0x01, 0x34, 0xBA, 0x00, 0x01, 0xA3, 0xE1, 0x14, 0x00, 0xB0, 0x8E, 0x11, 0x00, 0x64, 0x39,
	0x18, 0x00, 0xA7, 0x62, 0x19, 0x00, 0x70, 0x8E, 0x14, 0x00, 0x6F, 0xBD, 0x18, 0x00, 0xF4, 0x62, 0x15, 0x00,
	0xA8, 0x0D, 0x14, 0x00, 0xE3, 0xBE, 0x1D, 0x00, 0xBC, 0xE2, 0x18, 0x00, 0x2B, 0x09, 0x1C, 0x00, 0x38, 0x3E,
	0x19, 0x00, 0xEC, 0xE1, 0x10, 0x00, 0x2F, 0x8A, 0x11, 0x00,
};

static void known_tile_decodes_to_known_elements_and_back(void)
{
	uint8_t *decoded;
	struct model model;
	struct tile tile;

	model_start(&model, 1, 0, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 1, 0, BELL, 0);
	model.tables[1][0] = (struct wcx_freq_table){ .freq = { 2048, 2048 } };
	tile_alloc(&tile, &model, 8, 25);
	for (unsigned i = 0; i < 200; i++)
		tile.data[i] = (uint8_t)(((7 * i ^ i * i / 5) & 15) | (i * i / 3 & 1) << 4);
	tile.mode = WCX_TILE_CODED;
	decoded = guarded_alloc(tile.bytes);
	CHECK(decode_exactly(&tile, known_tile, sizeof known_tile, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
	encode_tile(&tile);
	CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == sizeof known_tile);
	CHECK(memcmp(tile.packed, known_tile, sizeof known_tile) == 0);
	guarded_free(decoded);
	tile_free(&tile);
}

/* --- sizes, choices and counts --- */

/* Bytes that a tile must not exceed, all of whose fields with tables are coded and the others raw; *bits_ret: without
 * overhead. */
static double most_bytes(const struct tile *tile, double *bits_ret)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	double overhead = 4.0 * recipe->field_count - (recipe->fields[0].table_count ? 0 : 64);

	*bits_ret = 0;
	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const struct wcx_field *field = &recipe->fields[f];
		size_t run = field->table_count > 1 ? recipe->run : tile->n;

		if (!field->table_count) {
			*bits_ret += (double)tile->n * field->width;
			overhead += 4 * __builtin_popcount(field->width);
			continue;
		}
		for (size_t first = 0; first < tile->n; first += run) {
			uint64_t count[WCX_SYMBOL_COUNT] = { 0 };
			double margin;

			count_plainly(tile, f, first, first + run < tile->n ? first + run : tile->n, count);
			*bits_ret += plain_cost(&field->tables[plain_choice(field, count, &margin)], count);
		}
		/* States, a bit in each where it carries something, padding. */
		overhead += (double)plain_choices_bytes(recipe, field, tile->n) + 128 + 32 / 8 + 4;
	}
	return *bits_ret * 1.0001 / 8 + overhead;
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
	for (uint32_t elem_bytes = 1; elem_bytes <= 8; elem_bytes *= 2) {
		struct model model;
		struct tile tile;

		make_weight_model(&model, elem_bytes, WCX_PREDICT_NONE);
		tile_alloc(&tile, &model, 1, 50001);
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
	if (tile->shape.elem_bytes == 1) {
		sample_fill(random, SAMPLE_GAUSSIAN, 33.6, tile->data, tile->bytes);
		return;
	}
	for (size_t i = 0; i < tile->n; i++) {
		float weight = (float)(0.02 * sample_normal(random));
		uint32_t bits;

		memcpy(&bits, &weight, sizeof bits);
		if (tile->shape.elem_bytes == 2)
			wcx_le16_write(tile->data + 2 * i, bits >> 16);
		else
			wcx_le32_write(tile->data + 4 * i, bits);
	}
}

/*
 * Tiles of 65536 weights take the entropy of what they were drawn from and 0.5 % more: 0.05 % are the overhead of one tile,
 * the rest is what bits cost that are kept though they are not quite random.
 */
static void gaussian_weights_take_hardly_more_than_their_entropy(void)
{
	/* An FP32 mantissa has 16 bits below those of BF16, and these are random. */
	const double entropies[] = { int8_entropy(33.6), int8_entropy(33.6), float_entropy(0.02, 7),
				     float_entropy(0.02, 7) + 16 };
	struct sample_random random = { 111 };

	for (int kind = 0; kind < 4; kind++) {
		struct model model;
		struct tile tile;
		double bits;

		model_start(&model, (uint32_t[]){ 1, 1, 2, 4 }[kind], kind >= 2, WCX_PREDICT_NONE, 0);
		if (kind != 1)
			model_add(&model, (uint32_t[]){ 3, 0, 6, 22 }[kind], 0, 0, NOISE, 0);
		/* The exponents of such floats are below 127, and two bits of the mantissa are coded with them. */
		model_add(&model, (uint32_t[]){ 5, 8, 10, 10 }[kind], 1, kind >= 2 ? 127 * 4 - 256 : 0, BELL, 0);
		tile_alloc(&tile, &model, 1, 65536);
		fill_weights(&tile, &random);
		model_learn(&model, &tile, 0);
		check_size(&tile);
		bits = 8.0 * (double)tile.packed_bytes / (double)tile.n;
		if (!CHECK(bits < entropies[kind] * 1.005 && bits > entropies[kind] * 0.995))
			fprintf(stderr, "\tkind %d: %f bits, entropy %f\n", kind, bits, entropies[kind]);
		tile_free(&tile);
	}
}

static void runs_take_the_table_that_takes_the_fewest_bits(void)
{
	for (uint32_t tables = 2; tables <= 4; tables += 2) {
		unsigned chosen[WCX_FIELD_TABLES_MAX] = { 0 }, wrong = 0;
		struct model model;
		struct tile tile;

		model_start(&model, 2, 0, WCX_PREDICT_LEFT, 256);
		model_add(&model, 10, tables, 77, BELL, 5);
		model_add(&model, 6, tables, 0, BELL, 2);
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
	wcx_tile_count(&tile->shape, tile->data, &tile->model->recipe, f, encode_scratch, count, &misfits);
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
	unsigned clear[WCX_FIELD_TABLES_MAX + 1] = { 0 };
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
		tile_free(&tile);
	}
	CHECK(clear[1] > 50 && clear[2] > 50 && clear[4] > 20);
}

/* --- damage --- */

/*
 * Four bytes an element: a raw field of two planes, a coded one with two tables, a constant one, and a wide coded one with
 * some exceptions.
 */
static void make_mixed_tile(struct model *model, struct tile *tile, uint32_t cols)
{
	model_start(model, 4, 1, WCX_PREDICT_UP, 128);
	model_add(model, 3, 0, 0, NOISE, 0);
	model_add(model, 5, 2, 0, BELL, 2);
	model_add(model, 8, 0, 0, EQUAL, 0);
	model_add(model, 16, 1, 40000, BELL, 3);
	tile_alloc(tile, model, 20, cols);
	tile_draw(tile, 41);
	model_learn(model, tile, 0);
	model->outliers[3] = 0.02;
	tile_draw(tile, 41);
	encode_tile(tile);
	CHECK(tile->mode == WCX_TILE_CODED);
}

/* The last plane has 75 bytes, which are carried; and 63, with which exceptions are. */
static const uint32_t mixed_cols[] = { 30, 25 };

static void fields_lie_where_the_format_says(void)
{
	for (size_t c = 0; c < 2; c++) {
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;
		size_t n = 20 * mixed_cols[c], at;

		make_mixed_tile(&model, &tile, mixed_cols[c]);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(layout.plane_count == 2 && layout.coded_count == 2);
		CHECK(layout.plane_carried == (c == 0 ? 64 : 0) && layout.exception_carried == (c == 1 ? 64 : 0));
		CHECK(layout.constant_bits == 0xA5 << 8);
		CHECK(layout.planes[0].offset == 16 && layout.planes[0].width == 2 && layout.planes[0].shift == 0);
		at = padded(16 + (n + 3) / 4, 4);
		CHECK(layout.planes[1].offset == at && layout.planes[1].width == 1 && layout.planes[1].shift == 2);
		at = padded(at + (n + 7) / 8 - layout.plane_carried, 4);
		CHECK(layout.exception_offset == at && layout.exception_bytes == 4 * layout.exception_count);
		CHECK(layout.exception_count > 1 && layout.exception_count == bits_at(tile.packed + 12, 2, 12));
		at += layout.exception_bytes - layout.exception_carried;
		CHECK(layout.coded[0].offset == at + 4 && layout.coded[0].field == 1 && layout.coded[0].shift == 3);
		CHECK(layout.coded[0].bytes + 4 == wcx_le32_read(tile.packed + 4) >> 14);
		at = padded(at + layout.coded[0].bytes + 4, 4);
		CHECK(layout.coded[1].offset == at && layout.coded[1].field == 3 && layout.coded[1].shift == 16);
		CHECK(at + layout.coded[1].bytes == tile.packed_bytes);
		tile_free(&tile);
	}
}

static void tile_cut_or_lengthened_is_refused(void)
{
	for (size_t c = 0; c < 2; c++) {
		struct model model;
		struct tile tile;
		uint8_t *decoded;

		make_mixed_tile(&model, &tile, mixed_cols[c]);
		memset(tile.packed + tile.packed_bytes, 0, tile.bytes - tile.packed_bytes);
		decoded = guarded_alloc(tile.bytes);
		for (size_t bytes = 0; bytes <= tile.bytes; bytes++)
			if (bytes != tile.packed_bytes)
				CHECK(decode_exactly(&tile, tile.packed, bytes, decoded) == WCX_BAD_DATA);
		tile.mode = WCX_TILE_STORED;
		CHECK(decode_exactly(&tile, tile.data, tile.bytes - 1, decoded) == WCX_BAD_DATA);
		CHECK(decode_exactly(&tile, tile.data, tile.bytes, decoded) == WCX_OK);
		tile.mode = WCX_TILE_ZSTD;
		CHECK(decode_exactly(&tile, tile.data, tile.bytes, decoded) == WCX_BAD_DATA);
		guarded_free(decoded);
		tile_free(&tile);
	}
}

/* Two fields of four bits, both raw or the upper one constant: sound but for the size where nothing is saved. */
static void coded_tile_that_saves_nothing_is_refused(void)
{
	for (uint32_t n = 1; n <= 64; n++) {
		for (uint32_t constant = 0; constant < 2; constant++) {
			const struct wcx_tile_shape shape = { 1, n, 1 };
			const size_t plane_bytes = (n + 1) / 2;
			size_t bytes = 8 + plane_bytes;
			struct wcx_tile_layout layout;
			uint8_t packed[80] = { [4] = constant ? WCX_FIELD_CONSTANT : WCX_FIELD_RAW };
			struct model model;

			if (!constant)
				bytes = padded(bytes, 4) + plane_bytes;
			model_start(&model, 1, 0, WCX_PREDICT_NONE, 0);
			model_add(&model, 4, 0, 0, NOISE, 0);
			model_add(&model, 4, 0, 0, NOISE, 0);
			CHECK((wcx_tile_parse(&shape, &model.recipe, packed, bytes, &layout) == WCX_OK) == (bytes < n));
		}
	}
}

static void damaged_bytes_are_refused_or_decode_as_the_format_says(void)
{
	for (size_t c = 0; c < 2; c++) {
		unsigned accepted = 0, refused = 0;
		struct model model;
		struct tile tile;
		uint8_t *decoded;

		make_mixed_tile(&model, &tile, mixed_cols[c]);
		decoded = guarded_alloc(tile.bytes);
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
		guarded_free(decoded);
		tile_free(&tile);
	}
}

/* Damage of many bytes at once, and tiles of nothing but noise behind sound headers. */
static void noise_is_never_written_outside_the_tile(void)
{
	struct sample_random random = { 51 };
	struct model model;
	struct tile tile;
	uint8_t *decoded, *noise;

	make_mixed_tile(&model, &tile, mixed_cols[0]);
	decoded = guarded_alloc(tile.bytes);
	noise = malloc(tile.packed_bytes);
	for (int round = 0; round < 2000; round++) {
		memcpy(noise, tile.packed, tile.packed_bytes);
		if (round % 2)
			sample_fill(&random, SAMPLE_UNIFORM, 0, noise + 16, tile.packed_bytes - 16);
		for (int i = 0; i < 8; i++)
			noise[sample_below(&random, tile.packed_bytes)] = (uint8_t)sample_next(&random);
		decode_exactly(&tile, noise, tile.packed_bytes, decoded);
	}
	free(noise);
	guarded_free(decoded);
	tile_free(&tile);
}

static void field_headers_that_break_a_rule_are_refused(void)
{
	/* Changes of a field's header in make_mixed_tile: field, bits that change. */
	static const struct {
		uint32_t field, change;
		const char *why;
	} cases[] = {
		{ 0, 0x04, "bit 2 of a raw field" },
		{ 0, 0x100, "bit 8 of a raw field" },
		{ 0, 0x80000000, "bit 31 of a raw field" },
		{ 2, 0x04, "bit 2 of a constant field" },
		{ 2, 0x80, "bit 7 of a constant field" },
		{ 0, 0x03, "coding 3" },
		{ 1, 0x02, "coding 3" },
		{ 2, 0x01, "coding 3" },
		{ 0, 0x01, "rANS without a table" },
		{ 2, 0x03, "rANS without a table" },
		{ 2, 0x10000, "constant beyond the field's width" },
		{ 2, 0x80000000, "constant beyond the field's width" },
		{ 0, 0x802, "constant beyond the field's width" },
		{ 1, 0x04, "exceptions of a field that is not the carrier" },
		{ 1, 0x2000, "exceptions of a field that is not the carrier" },
		{ 3, 0x2000, "exceptions behind the end" },
		{ 1, 0x4000, "odd payload" },
		{ 3, 0x4000, "odd payload" },
		{ 1, 0x80000000, "payload behind the end" },
		{ 3, 0x80000000, "payload behind the end" },
		{ 3, 0x01, "raw field where a payload was" },
	};
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	uint8_t *decoded;

	make_mixed_tile(&model, &tile, mixed_cols[0]);
	decoded = guarded_alloc(tile.bytes);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint8_t *header = tile.packed + 4 * cases[i].field;
		uint32_t sound = wcx_le32_read(header);

		wcx_le32_write(header, sound ^ cases[i].change);
		if (!CHECK(wcx_tile_parse(&tile.shape, &model.recipe, tile.packed, tile.packed_bytes, &layout) ==
			   WCX_BAD_DATA))
			fprintf(stderr, "\t%s was accepted\n", cases[i].why);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		wcx_le32_write(header, sound);
	}
	guarded_free(decoded);
	tile_free(&tile);
}

/* Exceptions of the mixed tile without carried ones, changed in turn. */
static void exceptions_that_break_a_rule_are_refused(void)
{
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	uint8_t *decoded, *positions, *values;

	make_mixed_tile(&model, &tile, mixed_cols[0]);
	decoded = guarded_alloc(tile.bytes);
	layout = layout_of(&tile);
	positions = tile.packed + layout.exception_offset;
	values = positions + 2 * layout.exception_count;
	for (uint32_t i = 0; i < layout.exception_count; i++) {
		uint32_t last = i + 1 == layout.exception_count, position = wcx_le16_read(positions + 2 * i);
		uint32_t next = last ? (uint32_t)tile.n : wcx_le16_read(positions + 2 * i + 2);

		wcx_le16_write(positions + 2 * i, next);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		wcx_le16_write(positions + 2 * i, next - 1);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		wcx_le16_write(positions + 2 * i, 0xFFFF);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		wcx_le16_write(positions + 2 * i, position);
		/* In 16 bits, any value is one. */
		wcx_le16_write(values + 2 * i, 0xFFFF);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
	}
	guarded_free(decoded);
	tile_free(&tile);
}

/* Beyond the width of fields of 6 and 10 bits, whose one exception the tile has at the end of what precedes the payloads. */
static void exception_beyond_its_field_is_refused(void)
{
	for (uint32_t f = 0; f < 2; f++) {
		uint8_t *decoded, *value;
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;

		make_two_field_tile(&model, &tile, 1);
		for (size_t i = 0; i < tile.n && f == 0; i++)
			change_value(&tile, i, 1, 33);
		change_value(&tile, 17, f, f ? 63 : 1023);
		encode_tile(&tile);
		layout = layout_of(&tile);
		CHECK(layout.exception_count == 1);
		decoded = guarded_alloc(tile.bytes);
		value = tile.packed + layout.exception_offset + 2;
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		value[1 - f]++; /* 1023 + 256, 63 + 1 */
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		guarded_free(decoded);
		tile_free(&tile);
	}
}

/* Payloads from nothing to more than the choices and states, in tiles that have the size for them. */
static void payload_that_is_odd_or_too_short_for_its_states_is_refused(void)
{
	static const uint32_t least[] = { 128, 132 };

	for (uint32_t tables = 1; tables <= 2; tables++) {
		const struct wcx_tile_shape shape = { 1, 200, 1 };
		struct wcx_tile_layout layout;
		uint8_t packed[4 + 140] = { 0 };
		struct model model;

		model_start(&model, 1, 0, WCX_PREDICT_NONE, tables > 1 ? 128 : 0);
		model_add(&model, 8, tables, 0, BELL, 0);
		for (uint32_t bytes = 0; bytes <= 140; bytes++) {
			wcx_le32_write(packed, WCX_FIELD_RANS | bytes << 14);
			CHECK((wcx_tile_parse(&shape, &model.recipe, packed, 4 + bytes, &layout) == WCX_OK) ==
			      (bytes >= least[tables - 1] && bytes % 2 == 0));
		}
	}
}

static void shapes_out_of_limits_and_wrong_sizes_are_refused(void)
{
	static const struct wcx_tile_shape bad[] = {
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

	model_start(&model, 1, 0, WCX_PREDICT_NONE, 0);
	model_add(&model, 8, 0, 0, NOISE, 0);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct wcx_tile_job job = {
			.shape = bad[i],
			.mode = WCX_TILE_CODED,
			.recipe = &model.recipe,
			.src = src,
			.src_bytes = 16,
			.dst = dst,
			.dst_bytes = i + 1 < sizeof bad / sizeof bad[0] ? 64 : 16,
		};
		enum wcx_tile_mode mode;
		uint32_t constant;
		size_t bytes;

		CHECK((wcx_tile_shape_bytes(&bad[i]) == 0) == (i + 1 < sizeof bad / sizeof bad[0]));
		CHECK(wcx_tile_decode(&job, decode_scratch) == WCX_WRONG_SIZE && job.result == WCX_WRONG_SIZE);
		CHECK(wcx_tile_parse(&bad[i], &model.recipe, src, 16, &layout) == WCX_WRONG_SIZE);
		CHECK(wcx_tile_encode(&bad[i], src, &model.recipe, encode_scratch, dst, &mode, &bytes, &constant) ==
		      WCX_WRONG_SIZE);
	}
	for (size_t dst_bytes = 0; dst_bytes < 64; dst_bytes++) {
		struct wcx_tile_job job = {
			.shape = { 4, 2, 8 },
			.mode = WCX_TILE_CONSTANT,
			.dst = dst,
			.dst_bytes = dst_bytes,
		};

		CHECK(wcx_tile_decode(&job, decode_scratch) == WCX_WRONG_SIZE && job.result == WCX_WRONG_SIZE);
	}
	CHECK(wcx_tile_shape_bytes(&(struct wcx_tile_shape){ 256, 256, 8 }) == WCX_TILE_MAX_BYTES);
}

/* --- recipes --- */

/* Eight bytes an element: 5 and 32 raw bits, and 3, 8 and 16 coded ones. */
static void make_sound_recipe(struct model *model)
{
	model_start(model, 8, 1, WCX_PREDICT_LEFT2, 384);
	model_add(model, 5, 0, 0, NOISE, 0);
	model_add(model, 32, 0, 0, NOISE, 0);
	model_add(model, 3, 2, 0, BELL, 1);
	model_add(model, 8, 1, 0, BELL, 1);
	model_add(model, 16, 4, 65280, BELL, 1);
}

/* What a case changes of the sound recipe: integers of one, two or four bytes of the model. */
struct poke {
	size_t at, bytes;
	uint32_t value;
};

#define POKE(member, value)                                                                                                 \
	{                                                                                                                   \
		offsetof(struct model, member), sizeof((struct model *)NULL)->member, value                                 \
	}
#define WIDTH(f, value) POKE(fields[f].width, value)

static void recipes_that_break_a_rule_are_refused(void)
{
	static const struct {
		const char *why;
		struct poke pokes[2];
	} cases[] = {
		{ "elements of no bytes", { POKE(recipe.elem_bytes, 0) } },
		{ "elements of three bytes", { POKE(recipe.elem_bytes, 3) } },
		{ "elements of 16 bytes", { POKE(recipe.elem_bytes, 16) } },
		{ "rotation by two", { POKE(recipe.rotation, 2) } },
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
		{ "symbol of four bits in three", { POKE(tables[2][1].freq[8], 1) } },
		{ "symbol of eight bits in three", { POKE(tables[2][0].freq[255], 1) } },
		{ "choices without a run", { POKE(recipe.run, 0) } },
		{ "run of half a group", { POKE(recipe.run, 64) } },
		{ "run of broken groups", { POKE(recipe.run, 200) } },
		{ "run longer than a tile", { POKE(recipe.run, 65536 + 128) } },
		{ "run without choices", { POKE(fields[2].table_count, 1), POKE(fields[4].table_count, 1) } },
	};

	for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
		struct model model;

		make_sound_recipe(&model);
		CHECK(wcx_recipe_check(&model.recipe) == NULL);
		for (size_t i = 0; i < 2 && cases[c].pokes[i].bytes; i++)
			memcpy((uint8_t *)&model + cases[c].pokes[i].at, &cases[c].pokes[i].value, cases[c].pokes[i].bytes);
		if (!CHECK(wcx_recipe_check(&model.recipe) != NULL))
			fprintf(stderr, "\t%s was accepted\n", cases[c].why);
	}
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
	model.tables[2][1].freq[7] = 1;
	model.tables[3][0].freq[255] = 1;
	CHECK(wcx_recipe_check(&model.recipe) == NULL);
}

/* Fields of the widths given, which make up eight bytes. */
static const char *check_widths(const uint8_t *widths)
{
	struct model model;

	model_start(&model, 8, 0, WCX_PREDICT_NONE, 0);
	for (; *widths; widths++)
		model_add(&model, *widths, 0, 0, NOISE, 0);
	return wcx_recipe_check(&model.recipe);
}

static void recipes_have_12_fields_and_16_planes_at_most(void)
{
	CHECK(check_widths((uint8_t[]){ 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 8, 16, 0 }) == NULL);
	CHECK(check_widths((uint8_t[]){ 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 16, 0 }) != NULL);
	CHECK(check_widths((uint8_t[]){ 7, 7, 7, 7, 18, 2, 16, 0 }) == NULL);
	CHECK(check_widths((uint8_t[]){ 7, 7, 7, 7, 17, 3, 16, 0 }) != NULL);
}

int main(void)
{
	encode_scratch = wcx_encode_scratch_create();
	decode_scratch = wcx_decode_scratch_create();
	if (!CHECK(encode_scratch && decode_scratch))
		return check_report();

	built_tables_sum_to_the_scale_and_cover_what_was_counted();
	built_tables_cost_hardly_more_than_the_best_and_than_the_entropy();
	costs_and_entropies_are_known_ones();
	known_table_bytes_are_what_they_were();
	tables_survive_writing_and_every_change_is_refused_or_canonical();
	tables_that_break_a_rule_are_refused();
	known_rans_bytes_decode_to_known_symbols();
	coding_takes_the_bits_that_the_table_says();
	symbols_of_every_frequency_come_back();
	streams_that_are_cut_or_lengthened_or_end_in_another_state_are_refused();
	tiles_of_random_recipes_come_back();
	small_tiles_of_every_shape_come_back();
	large_tiles_come_back();
	bytes_are_carried_from_a_last_plane_of_64_bytes_on();
	tile_that_does_not_pay_is_stored();
	field_that_does_not_pay_is_raw_beside_one_that_does();
	tile_of_equal_elements_is_constant_if_they_fit_in_its_entry();
	wide_field_of_one_value_is_constant_if_its_header_holds_it();
	value_without_a_symbol_or_a_frequency_is_an_exception_of_the_carrier();
	exceptions_are_carried_where_no_plane_is();
	exceptions_are_4095_at_most();
	run_below_the_carrier_takes_a_table_that_has_all_its_symbols();
	scratch_serves_one_recipe_after_the_other();
	known_tile_decodes_to_known_elements_and_back();
	drawn_tiles_take_what_their_tables_say();
	gaussian_weights_take_hardly_more_than_their_entropy();
	runs_take_the_table_that_takes_the_fewest_bits();
	counts_are_plain_ones();
	fields_lie_where_the_format_says();
	tile_cut_or_lengthened_is_refused();
	coded_tile_that_saves_nothing_is_refused();
	damaged_bytes_are_refused_or_decode_as_the_format_says();
	noise_is_never_written_outside_the_tile();
	field_headers_that_break_a_rule_are_refused();
	exceptions_that_break_a_rule_are_refused();
	exception_beyond_its_field_is_refused();
	payload_that_is_odd_or_too_short_for_its_states_is_refused();
	shapes_out_of_limits_and_wrong_sizes_are_refused();
	recipes_that_break_a_rule_are_refused();
	recipes_at_the_edge_of_a_rule_are_accepted();
	recipes_have_12_fields_and_16_planes_at_most();

	wcx_encode_scratch_free(encode_scratch);
	wcx_decode_scratch_free(decode_scratch);
	return check_report();
}
