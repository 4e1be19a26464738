/* SPDX-License-Identifier: MIT */
/* rANS streams: every decoding variant and the encoder against the plain ones, by hand, damaged, and into a sink. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/encode_variant.h"
#include "tests/fixtures/codec_samples.h"

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
	size_t bytes = 0, plain_bytes = plain_rans_encode(s, symbols, carried, plain);

	for (uint32_t t = 0; t < 1u << s->choice_bits; t++) {
		wcx_rans_encode_table_build(&s->tables[t], &built[t]);
		tables[t] = &built[t];
	}
	exact[dst_bytes] = GUARD;
	for (unsigned i = 0; wcx_encode_variant_at(i); i++) {
		memset(exact, 0, dst_bytes);
		bytes = wcx_rans_encode(wcx_encode_variant_at(i), &source, words, exact, dst_bytes);
		CHECK(exact[dst_bytes] == GUARD);
		CHECK(bytes == (plain_bytes <= dst_bytes ? plain_bytes : 0));
		CHECK(memcmp(exact, plain, bytes) == 0);
	}
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
	static const uint32_t *tables[WCX_FIELD_TABLES_MAX];

	for (uint32_t t = 0; t < 1u << s->choice_bits; t++) {
		wcx_rans_decode_table_build(&s->tables[t], &built[t]);
		tables[t] = built[t].entry;
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

/* States for which a quotient could come out wrong: next to multiples of the frequency, and the largest. */
static uint32_t draw_state(struct sample_random *random, uint32_t freq, uint32_t lane)
{
	const uint64_t end = UINT64_C(1) << 32, most = (uint64_t)freq << 20;
	uint64_t state = lane % 2 ? most : sample_below(random, 1 << 20) * freq;

	state += lane % 8 / 2;
	state -= WCX_MIN(2, state);
	state = lane % 4 == 3 ? sample_below(random, end) : state;
	return (uint32_t)WCX_MIN(WCX_MAX(state, WCX_RANS_LOW), end - 1);
}

static void every_variant_divides_exactly_by_every_frequency(void)
{
	struct sample_random random = { 7 };

	for (uint32_t freq = 1; freq < WCX_PROB_SCALE; freq++) {
		/* Symbol 9 has the frequency, between two others where there is room. */
		const uint32_t start = freq % 3 * (WCX_PROB_SCALE - freq) / 2;
		const struct wcx_freq_table freqs = { .freq = { [3] = (uint16_t)start,
								[9] = (uint16_t)freq,
								[200] = (uint16_t)(WCX_PROB_SCALE - freq - start) } };
		struct wcx_rans_encode_table table;
		uint32_t states[WCX_LANES], after[WCX_LANES];
		uint16_t emitted[WCX_LANES];
		uint8_t symbols[WCX_LANES];
		size_t left = WCX_LANES;

		wcx_rans_encode_table_build(&freqs, &table);
		memset(symbols, 9, sizeof symbols);
		for (uint32_t lane = WCX_LANES; lane-- > 0;) {
			uint32_t x = states[lane] = draw_state(&random, freq, lane);

			if (x >= (uint64_t)freq << 20) {
				emitted[--left] = (uint16_t)x;
				x >>= 16;
			}
			after[lane] = (x / freq << 12) + x % freq + start;
		}
		for (unsigned i = 0; wcx_encode_variant_at(i); i++) {
			uint32_t state[WCX_LANES];
			uint16_t words[WCX_LANES];
			const struct wcx_rans_lines lines = { &table, symbols, NULL, 1, 1, state, words, WCX_LANES };

			memcpy(state, states, sizeof state);
			CHECK(wcx_encode_variant_at(i)->encode_lines(&lines) == left);
			CHECK(memcmp(state, after, sizeof state) == 0);
			CHECK(memcmp(words + left, emitted + left, (WCX_LANES - left) * sizeof *words) == 0);
		}
	}
}

/* Symbols with the probabilities that the tables give them. */
static void draw_symbols(const struct plain_stream *s, struct sample_random *random, uint8_t *symbols)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct wcx_freq_table *table = plain_table(s, i / s->steps / 32, i);
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

	for (size_t c = 0; c < WCX_ARRAY_COUNT(cases); c++) {
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
static void streams_of_every_kind_come_back(void)
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

	for (size_t c = 0; c < 3 * WCX_ARRAY_COUNT(counts); c++) {
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

/* Pairs that are coded, and the units of the raw plane beside them. */
struct coded_pairs {
	struct plain_stream stream;
	const uint8_t *symbols, *encoded, *units;
};

/*
 * Decodes pairs, from the first `bytes` of the stream, with one variant: lines up to sink_lines into a sink of just the
 * size, the others into words of just the size, by as many at a time as a draw says; and checks all of it.
 */
static enum wcx_result decode_into_sink(const struct wcx_decode_variant *variant, const struct coded_pairs *pairs,
					size_t bytes, uint32_t sink_lines, struct sample_random *random)
{
	const struct plain_stream *s = &pairs->stream;
	const uint32_t lines = (uint32_t)plain_line_count(s);
	size_t words_bytes = 128 * (size_t)(lines - sink_lines), dst_bytes = (size_t)sink_lines * 128;
	uint8_t *nibbles_memory, *memory, *dst = guarded_alloc(dst_bytes);
	struct wcx_rans_stream stream = stream_of(s, copy_exactly(pairs->encoded, bytes, &memory), bytes);
	struct wcx_pair_sink sink = { copy_exactly(pairs->units, padded(sink_lines, 2) * 64, &nibbles_memory), dst, 0 };
	uint32_t *words = malloc(words_bytes + GUARD_BYTES), *expected = expected_words(s, pairs->symbols), line = 0, next;
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
			wrong += dst[4 * i + t] != folded_weight(sink.raw, i / 32, i % 32, t,
								 pairs->symbols[2 * i + t / 2] >> 4 * (t % 2) & 15);
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
		const struct coded_pairs pairs = { s, symbols, encoded, units };
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

			CHECK(decode_into_sink(variant, &pairs, bytes, here, &random) == WCX_OK);
			CHECK(decode_into_sink(variant, &pairs, bytes - 2, here, &random) == WCX_BAD_DATA);
		}
		free(symbols);
		free(encoded);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(known_rans_bytes_decode_to_known_symbols),
		CHECK_TEST(coding_takes_the_bits_that_the_table_says),
		CHECK_TEST(symbols_of_every_frequency_come_back),
		CHECK_TEST(streams_of_every_kind_come_back),
		CHECK_TEST(start_states_take_what_their_widths_say),
		CHECK_TEST(streams_that_are_cut_or_lengthened_or_end_in_another_state_are_refused),
		CHECK_TEST(every_variant_divides_exactly_by_every_frequency),
		CHECK_TEST(pairs_are_finished_in_a_sink_as_they_are_in_words),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
