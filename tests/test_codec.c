/* SPDX-License-Identifier: MIT */
/*
 * The codec: frequency tables, rANS, predictors and tiles, against what docs/format.md says, known bytes and plain
 * references, and on bytes that are damaged.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/freq_table.h"
#include "codec/le.h"
#include "codec/predict.h"
#include "codec/rans.h"
#include "codec/tile.h"
#include "tests/check.h"
#include "tests/sample_data.h"

enum {
	SMALL_ELEMS = 300,
	GUARD_BYTES = 64,
	GUARD = 0xA7,
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

/* Each byte of a frequency table's encoding, by hand from docs/format.md, section 2.4. */
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

/* Encodings that break one rule of section 2.4 each, though the frequencies that one could read from them sum to 4096. */
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

/*
 * Five symbols by hand from docs/format.md, section 3.1, with frequencies 2048 and 2048.  A step backwards doubles the
 * state, and adds 2048 for symbol 1.  Lane 0, symbols 0 1 1 0: 10000 -> 20000 -> 40800 -> 81800 -> 103000.  Lane 1,
 * symbol 1: 20800.
 */
static void known_rans_bytes_decode_to_known_symbols(void)
{
	static const uint8_t symbols[] = { 0, 1, 1, 0, 1 };
	static const struct wcx_freq_table freqs = { .freq = { 2048, 2048 } };
	static struct wcx_rans_decode_table decode_table;
	static struct wcx_rans_encode_table encode_table;
	uint8_t stream[WCX_RANS_STATE_BYTES], decoded[sizeof symbols], encoded[WCX_RANS_STATE_BYTES];
	uint16_t words[sizeof symbols];

	wcx_le32_write(stream, 0x103000);
	wcx_le32_write(stream + 4, 0x20800);
	for (int lane = 2; lane < WCX_RANS_LANES; lane++)
		wcx_le32_write(stream + 4 * lane, 0x10000);
	wcx_rans_decode_table_build(&freqs, &decode_table);
	wcx_rans_encode_table_build(&freqs, &encode_table);
	CHECK(wcx_rans_decode(&decode_table, stream, sizeof stream, decoded, sizeof decoded) == WCX_OK);
	CHECK(memcmp(decoded, symbols, sizeof symbols) == 0);
	CHECK(wcx_rans_encode(&encode_table, symbols, sizeof symbols, words, encoded, sizeof encoded) == sizeof encoded);
	CHECK(memcmp(encoded, stream, sizeof stream) == 0);
}

static void coding_takes_the_bits_that_the_table_says(void)
{
	enum { N = 50000 };
	static uint8_t symbols[N], encoded[2 * N], decoded[N];
	static uint16_t words[N];
	static struct wcx_rans_decode_table decode_table;
	static struct wcx_rans_encode_table encode_table;
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
		wcx_rans_encode_table_build(&table, &encode_table);
		wcx_rans_decode_table_build(&table, &decode_table);
		bytes = wcx_rans_encode(&encode_table, symbols, N, words, encoded, sizeof encoded);
		/* All that is coded came on top of 16 bits in each lane's first state. */
		bits = 16.0 * (double)(bytes - WCX_RANS_STATE_BYTES) / 2;
		for (size_t lane = 0; lane < WCX_RANS_LANES; lane++)
			bits += log2(wcx_le32_read(encoded + 4 * lane)) - 16;
		CHECK(fabs(bits / wcx_freq_table_cost(&table, count) - 1) < 1e-4);
		CHECK(wcx_rans_encode(&encode_table, symbols, N, words, encoded, bytes) == bytes);
		CHECK(wcx_rans_encode(&encode_table, symbols, N, words, decoded, bytes - 1) == 0);
		CHECK(wcx_rans_decode(&decode_table, encoded, bytes, decoded, N) == WCX_OK);
		CHECK(memcmp(decoded, symbols, N) == 0);
	}
}

/* Decodes a copy that has nothing behind its end. */
static enum wcx_result rans_decode_exactly(const struct wcx_rans_decode_table *table, const uint8_t *src, size_t bytes,
					   uint8_t *dst, size_t count)
{
	uint8_t *copy = malloc(bytes ? bytes : 1);
	enum wcx_result result;

	memcpy(copy, src, bytes);
	result = wcx_rans_decode(table, copy, bytes, dst, count);
	free(copy);
	return result;
}

/* 300 symbols leave some lanes with fewer than the others, 30 leave most without any. */
static void streams_that_are_cut_or_lengthened_or_end_in_another_state_are_refused(void)
{
	static const size_t counts[] = { 300, 30 };
	static struct wcx_rans_decode_table decode_table;
	static struct wcx_rans_encode_table encode_table;
	struct wcx_freq_table table = { .freq = { [250] = 1000, [3] = 1596, [2] = 1500 } };
	uint8_t symbols[300], stream[1000] = { 0 }, decoded[300], again[1000];
	struct sample_random random = { 17 };
	uint16_t words[300];

	wcx_rans_encode_table_build(&table, &encode_table);
	wcx_rans_decode_table_build(&table, &decode_table);
	for (size_t i = 0; i < sizeof symbols; i++)
		symbols[i] = (uint8_t[]){ 250, 3, 2 }[sample_below(&random, 3)];
	for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
		size_t count = counts[c];
		size_t bytes = wcx_rans_encode(&encode_table, symbols, count, words, stream, sizeof stream - 4);

		CHECK(rans_decode_exactly(&decode_table, stream, bytes, decoded, count) == WCX_OK);
		for (size_t cut = 0; cut < bytes; cut++)
			CHECK(rans_decode_exactly(&decode_table, stream, cut, decoded, count) == WCX_BAD_DATA);
		for (size_t more = 1; more <= 4; more++)
			CHECK(rans_decode_exactly(&decode_table, stream, bytes + more, decoded, count) == WCX_BAD_DATA);
		for (size_t bit = 0; bit < 8 * bytes; bit++) {
			stream[bit / 8] ^= (uint8_t)(1u << bit % 8);
			/* What decodes all the same must be the coding of other symbols. */
			if (rans_decode_exactly(&decode_table, stream, bytes, decoded, count) == WCX_OK) {
				CHECK(wcx_rans_encode(&encode_table, decoded, count, words, again, sizeof again) == bytes);
				CHECK(memcmp(again, stream, bytes) == 0);
			}
			stream[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
		memset(stream, 0, sizeof stream);
	}
}

static void symbol_without_frequency_cannot_be_encoded(void)
{
	static const struct wcx_freq_table freqs = { .freq = { 4095, 1 } };
	static struct wcx_rans_encode_table table;
	uint8_t symbols[200] = { [120] = 2 }, encoded[1000];
	uint16_t words[200];

	wcx_rans_encode_table_build(&freqs, &table);
	CHECK(wcx_rans_encode(&table, symbols, sizeof symbols, words, encoded, sizeof encoded) == 0);
	symbols[120] = 1;
	CHECK(wcx_rans_encode(&table, symbols, sizeof symbols, words, encoded, sizeof encoded) >= WCX_RANS_STATE_BYTES);
}

/* --- predictors --- */

static int floor_half(int sum)
{
	return sum >= 0 ? sum / 2 : -((1 - sum) / 2);
}

/* docs/format.md, section 3.2, said for one byte. */
static uint8_t prediction(enum wcx_predictor predictor, uint32_t cols, const uint8_t *plane, uint32_t y, uint32_t x)
{
	uint8_t left = x ? plane[y * cols + x - 1] : 0, up = y ? plane[(y - 1) * cols + x] : 0;
	int a = left < 128 ? left : left - 256, b = up < 128 ? up : up - 256;

	switch (predictor) {
	case WCX_PREDICT_LEFT:
		return left;
	case WCX_PREDICT_UP:
		return up;
	case WCX_PREDICT_AVG:
		return (uint8_t)floor_half(a + b);
	case WCX_PREDICT_NONE:
	case WCX_PREDICTOR_COUNT:
		break;
	}
	return 0;
}

static void check_predictor(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const uint8_t *plane)
{
	uint8_t *residual = malloc((size_t)rows * cols);
	unsigned wrong = 0;

	wcx_residuals_make(predictor, rows, cols, plane, residual);
	for (uint32_t y = 0; y < rows; y++)
		for (uint32_t x = 0; x < cols; x++)
			wrong += (uint8_t)(residual[y * cols + x] + prediction(predictor, cols, plane, y, x)) !=
				 plane[y * cols + x];
	wcx_residuals_undo(predictor, rows, cols, residual);
	CHECK(wrong == 0);
	CHECK(memcmp(residual, plane, (size_t)rows * cols) == 0);
	free(residual);
}

static void predictors_do_what_the_format_says(void)
{
	struct sample_random random = { 8 };
	uint8_t plane[33 * 33];

	for (uint32_t rows = 1; rows <= 33; rows += rows < 4 ? 1 : 7) {
		for (uint32_t cols = 1; cols <= 33; cols++) {
			sample_fill(&random, SAMPLE_UNIFORM, 0, plane, rows * cols);
			for (int predictor = 0; predictor < WCX_PREDICTOR_COUNT; predictor++)
				check_predictor((enum wcx_predictor)predictor, rows, cols, plane);
		}
	}
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

/* A tile and all that coding it takes. */
struct tile {
	struct wcx_tile_shape shape;
	struct wcx_plane_plan plan[WCX_PLANES_MAX];
	uint8_t *data, *packed; /* of the tile's size; packed by encode_tile */
	size_t bytes, packed_bytes;
	enum wcx_tile_mode mode;
	uint64_t constant;
};

static struct wcx_encode_scratch *encode_scratch;
static struct wcx_decode_scratch *decode_scratch;

static void tile_alloc(struct tile *tile, uint32_t rows, uint32_t cols, uint32_t elem_bytes)
{
	memset(tile, 0, sizeof *tile);
	tile->shape = (struct wcx_tile_shape){ rows, cols, elem_bytes };
	tile->bytes = (size_t)rows * cols * elem_bytes;
	tile->data = malloc(tile->bytes);
	tile->packed = guarded_alloc(tile->bytes);
}

static void tile_free(struct tile *tile)
{
	free(tile->data);
	guarded_free(tile->packed);
}

/* Plans a plane for rANS with a table made from the tile itself. */
static void plan_plane(struct tile *tile, uint32_t plane, enum wcx_predictor predictor)
{
	uint64_t count[WCX_SYMBOL_COUNT] = { 0 };

	wcx_tile_count_residuals(&tile->shape, tile->data, plane, predictor, encode_scratch, count);
	tile->plan[plane] = (struct wcx_plane_plan){ .coding = WCX_PLANE_RANS, .predictor = predictor };
	wcx_freq_table_build(count, &tile->plan[plane].table);
}

static void encode_tile(struct tile *tile)
{
	enum wcx_result result = wcx_tile_encode(&tile->shape, tile->data, tile->plan, encode_scratch, tile->packed,
						 &tile->mode, &tile->packed_bytes, &tile->constant);

	CHECK(result == WCX_OK);
	CHECK(guards_are_whole(tile->packed, tile->bytes));
}

static struct wcx_tile_job job_of(const struct tile *tile, const uint8_t *src, size_t src_bytes, uint8_t *dst)
{
	struct wcx_tile_job job = {
		.shape = tile->shape,
		.mode = tile->mode,
		.constant = tile->constant,
		.src = src,
		.src_bytes = src_bytes,
		.dst = dst,
		.dst_bytes = tile->bytes,
	};

	for (uint32_t p = 0; p < tile->shape.elem_bytes; p++)
		job.tables[p] = tile->plan[p].coding == WCX_PLANE_RANS ? &tile->plan[p].table : NULL;
	return job;
}

/* Decodes bytes into dst, which has guards, from a copy of just their size. */
static enum wcx_result decode_exactly(const struct tile *tile, const uint8_t *src, size_t src_bytes, uint8_t *dst)
{
	uint8_t *copy = malloc(src_bytes ? src_bytes : 1);
	struct wcx_tile_job job = job_of(tile, copy, src_bytes, dst);
	enum wcx_result result;

	if (src_bytes)
		memcpy(copy, src, src_bytes);
	result = wcx_tile_decode(&job, decode_scratch);
	CHECK(result == job.result);
	CHECK(guards_are_whole(dst, tile->bytes));
	free(copy);
	return result;
}

static void check_round_trip(struct tile *tile)
{
	uint8_t *decoded = guarded_alloc(tile->bytes);

	encode_tile(tile);
	CHECK(tile->mode == WCX_TILE_STORED ? tile->packed_bytes == tile->bytes : tile->packed_bytes < tile->bytes);
	CHECK(decode_exactly(tile, tile->packed, tile->packed_bytes, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile->data, tile->bytes) == 0);
	guarded_free(decoded);
}

/* A plan in which every symbol has a frequency, from plenty of data, so that no tile of this kind needs one of its own. */
static void plan_for_kind(enum sample_kind kind, enum wcx_predictor predictor, struct wcx_plane_plan *ret)
{
	struct wcx_tile_shape shape = { 100, 100, 1 };
	uint64_t count[WCX_SYMBOL_COUNT];
	struct sample_random random = { 3 };
	uint8_t data[100 * 100];

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		count[s] = 1;
	sample_fill(&random, kind, 6, data, sizeof data);
	wcx_tile_count_residuals(&shape, data, 0, predictor, encode_scratch, count);
	*ret = (struct wcx_plane_plan){ .coding = WCX_PLANE_RANS, .predictor = predictor };
	wcx_freq_table_build(count, &ret->table);
}

static void check_small_shapes(enum sample_kind kind, uint32_t elem_bytes, enum wcx_predictor predictor, unsigned modes[3])
{
	struct sample_random random = { 11 };
	struct wcx_plane_plan plan;

	plan_for_kind(kind, predictor, &plan);
	for (uint32_t elems = 1; elems <= SMALL_ELEMS; elems++) {
		for (uint32_t rows = 1; rows <= elems; rows++) {
			struct tile tile;

			if (elems % rows)
				continue;
			tile_alloc(&tile, rows, elems / rows, elem_bytes);
			sample_fill(&random, kind, 6, tile.data, tile.bytes);
			for (uint32_t p = 0; p < elem_bytes; p++)
				tile.plan[p] = plan;
			check_round_trip(&tile);
			modes[tile.mode]++;
			tile_free(&tile);
		}
	}
}

static void small_tiles_of_every_shape_come_back(void)
{
	for (int kind = 0; kind < SAMPLE_KIND_COUNT; kind++) {
		unsigned modes[3] = { 0 };

		for (uint32_t elem_bytes = 1; elem_bytes <= WCX_PLANES_MAX; elem_bytes *= 2)
			for (int predictor = 0; predictor < WCX_PREDICTOR_COUNT; predictor++)
				check_small_shapes((enum sample_kind)kind, elem_bytes, (enum wcx_predictor)predictor, modes);
		/* A lone element is constant, and a few are too few to be coded, whatever they are. */
		CHECK(modes[WCX_TILE_CONSTANT] > 0);
		CHECK((modes[WCX_TILE_STORED] > 0) == (kind != SAMPLE_CONSTANT));
		CHECK((modes[WCX_TILE_CODED] > 0) == (kind == SAMPLE_GAUSSIAN || kind == SAMPLE_STUDENT));
	}
}

static void large_tiles_come_back(void)
{
	static const uint32_t sides[][2] = {
		{ 256, 256 }, { 1, 65536 }, { 65536, 1 }, { 255, 257 }, { 3, 21845 }, { 129, 508 },
	};
	struct sample_random random = { 21 };

	for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
		for (uint32_t elem_bytes = 1; elem_bytes <= WCX_PLANES_MAX; elem_bytes *= 2) {
			struct tile tile;

			tile_alloc(&tile, sides[i][0], sides[i][1], elem_bytes);
			sample_fill(&random, i % 2 ? SAMPLE_STUDENT : SAMPLE_GAUSSIAN, 20, tile.data, tile.bytes);
			for (uint32_t p = 0; p < elem_bytes; p++)
				plan_plane(&tile, p, (enum wcx_predictor)((p + i) % WCX_PREDICTOR_COUNT));
			check_round_trip(&tile);
			CHECK(tile.mode == WCX_TILE_CODED);
			tile_free(&tile);
		}
	}
}

static void tile_that_does_not_pay_is_stored(void)
{
	struct sample_random random = { 31 };
	struct tile tile;

	tile_alloc(&tile, 64, 64, 2);
	sample_fill(&random, SAMPLE_UNIFORM, 0, tile.data, tile.bytes);
	plan_plane(&tile, 0, WCX_PREDICT_NONE);
	plan_plane(&tile, 1, WCX_PREDICT_LEFT);
	encode_tile(&tile);
	CHECK(tile.mode == WCX_TILE_STORED);
	CHECK(tile.packed_bytes == tile.bytes && memcmp(tile.packed, tile.data, tile.bytes) == 0);
	tile_free(&tile);
}

static void plane_that_does_not_pay_is_stored_beside_one_that_does(void)
{
	struct wcx_plane planes[WCX_PLANES_MAX];
	struct sample_random random = { 32 };
	struct tile tile;

	tile_alloc(&tile, 20, 50, 2);
	for (size_t i = 0; i < tile.bytes; i++)
		sample_fill(&random, i % 2 ? SAMPLE_GAUSSIAN : SAMPLE_UNIFORM, 2, tile.data + i, 1);
	plan_plane(&tile, 0, WCX_PREDICT_UP);
	plan_plane(&tile, 1, WCX_PREDICT_NONE);
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	CHECK(wcx_tile_parse(&tile.shape, 3, tile.packed, tile.packed_bytes, planes) == WCX_OK);
	CHECK(planes[0].coding == WCX_PLANE_STORED && planes[0].predictor == WCX_PREDICT_NONE);
	CHECK(planes[1].coding == WCX_PLANE_RANS);
	tile_free(&tile);
}

static void tile_of_equal_elements_is_constant(void)
{
	static const uint8_t element[8] = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88 };

	for (uint32_t elem_bytes = 1; elem_bytes <= WCX_PLANES_MAX; elem_bytes *= 2) {
		uint64_t value = UINT64_C(0x8877665544332211) & UINT64_MAX >> (64 - 8 * elem_bytes);
		struct tile tile;

		tile_alloc(&tile, 5, 7, elem_bytes);
		for (size_t i = 0; i < tile.bytes; i++)
			tile.data[i] = element[i % elem_bytes];
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CONSTANT);
		CHECK(tile.constant == value);
		tile_free(&tile);
	}
}

/* A tile of 4-byte elements with a plane of each kind: stored, rANS with UP, constant, rANS without a predictor. */
static void make_mixed_tile(struct tile *tile)
{
	struct sample_random random = { 41 };

	tile_alloc(tile, 20, 30, 4);
	sample_fill(&random, SAMPLE_GAUSSIAN, 3, tile->data, tile->bytes);
	for (size_t i = 0; i < tile->bytes; i += 4) {
		sample_fill(&random, SAMPLE_UNIFORM, 0, tile->data + i, 1);
		tile->data[i + 2] = 0x3F;
	}
	plan_plane(tile, 1, WCX_PREDICT_UP);
	plan_plane(tile, 3, WCX_PREDICT_NONE);
	encode_tile(tile);
	CHECK(tile->mode == WCX_TILE_CODED);
}

static void planes_are_coded_each_in_its_way(void)
{
	struct wcx_plane planes[WCX_PLANES_MAX];
	struct tile tile;

	make_mixed_tile(&tile);
	check_round_trip(&tile);
	CHECK(wcx_tile_parse(&tile.shape, 0xA, tile.packed, tile.packed_bytes, planes) == WCX_OK);
	CHECK(planes[0].coding == WCX_PLANE_STORED && planes[0].offset == 16 && planes[0].bytes == 600);
	CHECK(planes[1].coding == WCX_PLANE_RANS && planes[1].offset == 616 && planes[1].predictor == WCX_PREDICT_UP);
	CHECK(planes[2].coding == WCX_PLANE_CONSTANT && planes[2].bytes == 1 && tile.packed[planes[2].offset] == 0x3F);
	CHECK(planes[3].coding == WCX_PLANE_RANS && planes[3].predictor == WCX_PREDICT_NONE);
	tile_free(&tile);
}

static void plane_with_a_residual_without_frequency_is_stored(void)
{
	struct wcx_plane planes[WCX_PLANES_MAX];
	struct tile tile;

	make_mixed_tile(&tile);
	tile.data[3] = 0x80;
	CHECK(tile.plan[3].table.freq[0x80] == 0);
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	CHECK(wcx_tile_parse(&tile.shape, 0xA, tile.packed, tile.packed_bytes, planes) == WCX_OK);
	CHECK(planes[3].coding == WCX_PLANE_STORED && planes[1].coding == WCX_PLANE_RANS);
	tile_free(&tile);
}

/*
 * A tile of 12 x 25 elements of two bytes that wcx_encode.py made, an encoder written from docs/format.md alone:
 *
 *	low, high = ...                               # the planes, as known_element has them
 *	f = [normalise(np.bincount(list(residuals(plane, how)), minlength=256)) for plane, how in ((low, AVG), (high, UP))]
 *	encode_table(f[0]), encode_table(f[1])
 *	assemble([Plane(P_RANS, rans_encode(residuals(low, AVG), f[0]), AVG),
 *		  Plane(P_RANS, rans_encode(residuals(high, UP), f[1]), UP)])
 */
static const uint8_t known_tables[] = {
	0x83, 0x17, 0x82, 0x74, 0x81, 0x7E, 0x82, 0x14, 0x83, 0x3C, 0x80, 0x88, 0x00, 0x36, 0x0D, 0x28, 0x28, 0x28, 0x1B,
	0x00, 0x35, 0x0D, 0x00, 0x06, 0x1B, 0x00, 0x01, 0x0D, 0x0D, 0x00, 0x3B, 0x0D, 0x28, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D,
	0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x0D, 0x00, 0x28, 0x81, 0x11, 0x86,
	0xA0, 0x00, 0x05, 0x83, 0x69, 0x00, 0x05, 0x81, 0xB4, 0x00, 0xE2, 0x81, 0x47, 0x00, 0x05, 0x82, 0xFC, 0x00, 0x05,
};

static const uint8_t known_tile[] = {
	0x0D, 0xE0, 0x00, 0x00, 0x09, 0xB8, 0x00, 0x00, 0x88, 0x3D, 0x03, 0x00, 0x78, 0xBD, 0x17, 0x00, 0x16, 0xAE, 0x49,
	0x00, 0x52, 0xFE, 0x96, 0x00, 0x85, 0x1E, 0xC3, 0x05, 0xB4, 0x6E, 0xC3, 0x06, 0xE2, 0xEE, 0x0F, 0x08, 0xC0, 0xBA,
	0x35, 0x81, 0xF3, 0xC8, 0xBF, 0x55, 0xE8, 0xD7, 0x56, 0x7E, 0xD9, 0x52, 0xA0, 0x81, 0xEA, 0xFA, 0xC0, 0x01, 0xD2,
	0x29, 0x01, 0x00, 0x5F, 0x5B, 0xBB, 0x00, 0x51, 0x07, 0xC8, 0x00, 0xB5, 0xA1, 0x27, 0x01, 0xE6, 0x56, 0x85, 0x00,
	0xB3, 0xFF, 0x51, 0x02, 0xC9, 0x7B, 0x06, 0x00, 0x45, 0x9A, 0xBC, 0x01, 0xCE, 0x53, 0x77, 0x04, 0x9E, 0x32, 0x48,
	0x02, 0x71, 0x3C, 0x6F, 0x03, 0x1A, 0xAF, 0x3E, 0x0D, 0xC2, 0x5A, 0x08, 0x3B, 0x3B, 0x7D, 0x05, 0x75, 0x08, 0x95,
	0x51, 0x00, 0xBB, 0x82, 0x1D, 0x00, 0xB1, 0x15, 0x3F, 0x00, 0xBE, 0x1A, 0x3C, 0x00, 0x1D, 0xD3, 0xDC, 0x01, 0x21,
	0x75, 0x08, 0x00, 0xEE, 0xEC, 0xF4, 0xFD, 0x1F, 0x6E, 0x5D, 0x3E, 0x23, 0x1A, 0x9B, 0x4E, 0xD3, 0xBE, 0xD9, 0xB8,
	0xAA, 0x76, 0x0C, 0xA6, 0x60, 0xD4, 0x90, 0xFD, 0x4C, 0xFD, 0x07, 0x5E, 0x45, 0x2E, 0x6E, 0xAE, 0xD8, 0x21, 0x1B,
	0x96, 0x31, 0xBB, 0xC4, 0xD7, 0x2F, 0x91, 0xCA, 0x7B, 0xC3, 0x36, 0xAE, 0x73, 0x87, 0xE5, 0x60, 0x05, 0xBF, 0x83,
	0x91, 0xE7, 0xCC, 0xAF, 0x5D, 0x0C, 0x19, 0x9F, 0x64, 0x95, 0x25, 0x82, 0x3E, 0x71, 0xBE, 0x39, 0xA1, 0x0B, 0xC3,
	0x2D, 0xE1, 0x85, 0x3B, 0x49, 0xEF, 0x7A, 0xB4, 0x87, 0x8B, 0xA8, 0x8C, 0xB1, 0x45, 0xB6, 0x5C, 0x55, 0xF4, 0x13,
	0x19, 0x87, 0x6C, 0xA2, 0xF9, 0x51, 0x13, 0x00, 0x39, 0x35, 0x49, 0x00, 0xDB, 0xD3, 0xA9, 0x00, 0xF9, 0x51, 0x13,
	0x00, 0x44, 0xE0, 0x24, 0x00, 0xB1, 0x04, 0x3B, 0x00, 0x08, 0x02, 0x63, 0x04, 0x86, 0x76, 0xDD, 0x00, 0x3B, 0xD7,
	0x66, 0x11, 0x25, 0x7A, 0x10, 0x11, 0x86, 0x76, 0xDD, 0x00, 0x72, 0xF7, 0x02, 0x00, 0xDD, 0xFA, 0x01, 0x00, 0xFB,
	0xFE, 0x04, 0x00, 0xE4, 0x21, 0xF9, 0x91, 0xB9, 0x29, 0x02, 0x00, 0xFB, 0xFE, 0x04, 0x00, 0xE4, 0x21, 0xF9, 0x91,
	0x10, 0xF9, 0x80, 0x53, 0xD8, 0xEB, 0x08, 0x00, 0xE7, 0x5D, 0x04, 0x00, 0x53, 0xD6, 0xF0, 0xDE, 0xD8, 0xEB, 0x08,
	0x00, 0xE7, 0x5D, 0x04, 0x00, 0x82, 0x53, 0x02, 0x00, 0xD7, 0x82, 0x01, 0x00, 0xC7, 0x77, 0x0F, 0x00, 0x5A, 0x1A,
	0x0D, 0x00, 0xD7, 0x82, 0x01, 0x00, 0xC7, 0x77, 0x0F, 0x00, 0xA6, 0x3B, 0x02, 0x00, 0xDB, 0x35, 0x02, 0x00, 0x7D,
	0x6A, 0x51, 0x72, 0x8A, 0x86, 0xA1, 0xBF, 0x8A, 0x86, 0xC7, 0x0D, 0x6E, 0xC6, 0xC7, 0x0D, 0x6E, 0xC6, 0xCB, 0xDB,
	0x26, 0x28, 0x26, 0x28, 0x63, 0xE0, 0x8A, 0x86, 0x66, 0xC6, 0xEF, 0x36, 0x66, 0xC6, 0xE4, 0x21, 0xE4, 0x21, 0x53,
	0xD6, 0x53, 0xD6, 0xA1, 0xBF, 0x8A, 0x86, 0x38, 0x5F, 0x63, 0x56, 0x6E, 0xC6, 0xC7, 0x0D, 0x6E, 0xC6,
};

static uint16_t known_element(unsigned y, unsigned x)
{
	return (uint16_t)(((120 + y + 2 * x + y * x % 5) & 255) | 7 * (x * y % 3) << 8);
}

static void known_tile_decodes_to_known_elements_and_back(void)
{
	size_t used = 0, second;
	uint8_t *decoded;
	struct tile tile;

	tile_alloc(&tile, 12, 25, 2);
	for (unsigned i = 0; i < 300; i++)
		wcx_le16_write(tile.data + 2 * i, known_element(i / 25, i % 25));
	tile.plan[0] = (struct wcx_plane_plan){ .coding = WCX_PLANE_RANS, .predictor = WCX_PREDICT_AVG };
	tile.plan[1] = (struct wcx_plane_plan){ .coding = WCX_PLANE_RANS, .predictor = WCX_PREDICT_UP };
	CHECK(wcx_freq_table_parse(known_tables, sizeof known_tables, &tile.plan[0].table, &used) == WCX_OK);
	CHECK(wcx_freq_table_parse(known_tables + used, sizeof known_tables - used, &tile.plan[1].table, &second) == WCX_OK);
	CHECK(used + second == sizeof known_tables);

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

/* --- damage --- */

static void tile_cut_or_lengthened_is_refused(void)
{
	struct tile tile;
	uint8_t *decoded;

	make_mixed_tile(&tile);
	decoded = guarded_alloc(tile.bytes);
	for (size_t bytes = 0; bytes < tile.bytes; bytes++)
		if (bytes != tile.packed_bytes)
			CHECK(decode_exactly(&tile, tile.packed, bytes, decoded) == WCX_BAD_DATA);
	tile.mode = WCX_TILE_STORED;
	CHECK(decode_exactly(&tile, tile.data, tile.bytes - 1, decoded) == WCX_BAD_DATA);
	CHECK(decode_exactly(&tile, tile.data, tile.bytes, decoded) == WCX_OK);
	guarded_free(decoded);
	tile_free(&tile);
}

static void coded_tile_that_saves_nothing_is_refused(void)
{
	/* The header of a stored plane of 8 bytes, and the plane: sound but for its size. */
	static const uint8_t packed[] = { WCX_PLANE_STORED, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8 };
	struct tile tile;
	uint8_t *decoded;

	tile_alloc(&tile, 2, 4, 1);
	tile.mode = WCX_TILE_CODED;
	decoded = guarded_alloc(tile.bytes);
	CHECK(decode_exactly(&tile, packed, sizeof packed, decoded) == WCX_BAD_DATA);
	guarded_free(decoded);
	tile_free(&tile);
}

/* The plane whose header or payload holds this byte; padding belongs to none. */
static int plane_of_byte(const struct tile *tile, const struct wcx_plane *planes, size_t at)
{
	for (uint32_t p = 0; p < tile->shape.elem_bytes; p++)
		if (at / 4 == p || (at >= planes[p].offset && at < planes[p].offset + planes[p].bytes))
			return (int)p;
	return -1;
}

/* Planes other than `damaged` are as they were. */
static int other_planes_are_whole(const struct tile *tile, const uint8_t *decoded, int damaged)
{
	size_t wrong = 0;

	for (size_t i = 0; i < tile->bytes; i++)
		wrong += (int)(i % tile->shape.elem_bytes) != damaged && decoded[i] != tile->data[i];
	return wrong == 0;
}

static void every_changed_byte_is_refused_or_stays_in_its_plane(void)
{
	struct wcx_plane planes[WCX_PLANES_MAX];
	unsigned accepted = 0, refused = 0;
	struct tile tile;
	uint8_t *decoded;

	make_mixed_tile(&tile);
	CHECK(wcx_tile_parse(&tile.shape, 0xA, tile.packed, tile.packed_bytes, planes) == WCX_OK);
	decoded = guarded_alloc(tile.bytes);
	for (size_t at = 0; at < tile.packed_bytes; at++) {
		int damaged = plane_of_byte(&tile, planes, at);

		for (unsigned change = 1; change < 256; change += change < 128 ? change : 127) { /* each bit, and all */
			enum wcx_result result;

			tile.packed[at] ^= (uint8_t)change;
			result = decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded);
			tile.packed[at] ^= (uint8_t)change;
			CHECK(result == WCX_OK || result == WCX_BAD_DATA);
			if (result == WCX_OK)
				CHECK(other_planes_are_whole(&tile, decoded, damaged));
			if (damaged >= 0 && planes[damaged].coding != WCX_PLANE_RANS && at >= 4 * tile.shape.elem_bytes)
				CHECK(result == WCX_OK); /* any byte is a byte of a stored or constant plane */
			accepted += result == WCX_OK;
			refused += result != WCX_OK;
		}
	}
	CHECK(accepted > 0 && refused > 0);
	guarded_free(decoded);
	tile_free(&tile);
}

static void plane_headers_that_break_a_rule_are_refused(void)
{
	/* Changes of a plane's header in make_mixed_tile: plane, mask. */
	static const struct {
		uint32_t plane, change;
		const char *why;
	} cases[] = {
		{ 0, 0x10, "reserved bit 4" },
		{ 1, 0x20, "reserved bit 5" },
		{ 2, 0x40, "reserved bit 6" },
		{ 3, 0x80, "reserved bit 7" },
		{ 0, 0x03, "coding 3" },
		{ 1, 0x02, "coding 3" },
		{ 0, 0x04, "predictor of a stored plane" },
		{ 2, 0x08, "predictor of a constant plane" },
		{ 0, 0x01, "rANS without a table" },
		{ 2, 0x03, "rANS without a table" },
		{ 1, 0x100, "odd payload" },
		{ 2, 0x100, "empty constant" },
		{ 0, 0x100, "stored plane too long" },
		{ 3, 0x80000000, "payload behind the end" },
	};
	struct tile tile;
	uint8_t *decoded;

	make_mixed_tile(&tile);
	decoded = guarded_alloc(tile.bytes);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint8_t *header = tile.packed + 4 * cases[i].plane;

		wcx_le32_write(header, wcx_le32_read(header) ^ cases[i].change);
		if (!CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA))
			fprintf(stderr, "\t%s was accepted\n", cases[i].why);
		wcx_le32_write(header, wcx_le32_read(header) ^ cases[i].change);
	}
	guarded_free(decoded);
	tile_free(&tile);
}

/* Damage of many bytes at once, and tiles of nothing but noise behind sound headers. */
static void noise_is_never_written_outside_the_tile(void)
{
	struct sample_random random = { 51 };
	struct tile tile;
	uint8_t *decoded, *noise;

	make_mixed_tile(&tile);
	decoded = guarded_alloc(tile.bytes);
	noise = malloc(tile.packed_bytes);
	for (int round = 0; round < 2000; round++) {
		enum wcx_result result;

		memcpy(noise, tile.packed, tile.packed_bytes);
		if (round % 2)
			sample_fill(&random, SAMPLE_UNIFORM, 0, noise + 16, tile.packed_bytes - 16);
		for (int i = 0; i < 8; i++)
			noise[sample_below(&random, tile.packed_bytes)] = (uint8_t)sample_next(&random);
		result = decode_exactly(&tile, noise, tile.packed_bytes, decoded);
		CHECK(result == WCX_OK || result == WCX_BAD_DATA);
	}
	free(noise);
	guarded_free(decoded);
	tile_free(&tile);
}

static void shapes_out_of_limits_and_wrong_sizes_are_refused(void)
{
	static const struct wcx_tile_shape bad[] = {
		{ 0, 1, 1 },     { 1, 0, 1 },        { 1, 1, 0 },
		{ 1, 1, 3 },     { 1, 1, 16 },       { 1, 65537, 1 },
		{ 257, 256, 1 }, { 1u << 31, 2, 1 }, { UINT32_MAX, UINT32_MAX, 8 },
	};
	uint8_t src[64] = { 0 }, dst[64];
	struct wcx_plane planes[WCX_PLANES_MAX];

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct wcx_tile_job job = { .shape = bad[i], .src = src, .src_bytes = 64, .dst = dst, .dst_bytes = 64 };
		struct wcx_plane_plan plan[WCX_PLANES_MAX] = { 0 };
		enum wcx_tile_mode mode;
		uint64_t constant;
		size_t bytes;

		CHECK(wcx_tile_shape_bytes(&bad[i]) == 0);
		CHECK(wcx_tile_decode(&job, decode_scratch) == WCX_WRONG_SIZE);
		CHECK(wcx_tile_parse(&bad[i], 0, src, 64, planes) == WCX_WRONG_SIZE);
		CHECK(wcx_tile_encode(&bad[i], src, plan, encode_scratch, dst, &mode, &bytes, &constant) == WCX_WRONG_SIZE);
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
	streams_that_are_cut_or_lengthened_or_end_in_another_state_are_refused();
	symbol_without_frequency_cannot_be_encoded();
	predictors_do_what_the_format_says();
	small_tiles_of_every_shape_come_back();
	large_tiles_come_back();
	tile_that_does_not_pay_is_stored();
	plane_that_does_not_pay_is_stored_beside_one_that_does();
	tile_of_equal_elements_is_constant();
	planes_are_coded_each_in_its_way();
	plane_with_a_residual_without_frequency_is_stored();
	known_tile_decodes_to_known_elements_and_back();
	tile_cut_or_lengthened_is_refused();
	coded_tile_that_saves_nothing_is_refused();
	every_changed_byte_is_refused_or_stays_in_its_plane();
	plane_headers_that_break_a_rule_are_refused();
	noise_is_never_written_outside_the_tile();
	shapes_out_of_limits_and_wrong_sizes_are_refused();

	wcx_encode_scratch_free(encode_scratch);
	wcx_decode_scratch_free(decode_scratch);
	return check_report();
}
