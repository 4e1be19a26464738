/* SPDX-License-Identifier: MIT */
/* rANS without the loops that have CPU variants: tables, start and final states, ends of streams, and the encoder. */
#include "codec/rans.h"

#include <assert.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/decode_variant.h"
#include "codec/encode_variant.h"
#include "codec/le.h"

void wcx_rans_decode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_decode_table *ret)
{
	uint32_t slot = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		uint32_t freq = freqs->freq[s];

		for (uint32_t bias = 0; bias < freq; bias++)
			ret->entry[slot++] = freq << 20 | s << 12 | bias;
	}
}

void wcx_rans_coarse_table_build(const struct wcx_freq_table *freqs, uint32_t entry[WCX_COARSE_SLOTS])
{
	uint32_t slot = 0, start = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		const uint32_t freq = freqs->freq[s], difference = (s >> 1 ^ (0 - (s & 1))) & 0xFF;

		for (uint32_t bias = 0; bias < freq; bias += 1 << WCX_COARSE_BITS)
			entry[slot++] = (WCX_PROB_SCALE - freq) << 20 | difference << 12 | start;
		start += freq;
	}
}

void wcx_rans_encode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_encode_table *ret)
{
	uint32_t start = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		const uint32_t freq = freqs->freq[s];
		const uint64_t reciprocal = freq > 1 ? (UINT64_C(1) << 32) / freq : UINT32_MAX;

		ret->symbol[s] = freq ? reciprocal << 32 | start << 16 | freq : 0;
		start += freq;
	}
}

/* --- start states: a nibble for each is the number of bits below its highest one, minus 16 --- */

static uint32_t state_width(const uint8_t *widths, uint32_t lane)
{
	return 16 + (widths[lane / 2] >> 4 * (lane % 2) & 15);
}

size_t wcx_rans_states_bytes(const uint8_t *src, size_t src_bytes)
{
	uint32_t bits = 0;
	size_t bytes;

	if (src_bytes < WCX_RANS_STATES_MIN_BYTES)
		return 0;
	for (uint32_t lane = 0; lane < WCX_LANES; lane++)
		bits += state_width(src, lane);
	bytes = WCX_RANS_WIDTHS_BYTES + (bits + 15) / 16 * 2;
	return bytes <= src_bytes ? bytes : 0;
}

/* Reads the states, whose size has been checked. */
static void read_states(const uint8_t *src, uint32_t state[WCX_LANES])
{
	const uint8_t *bits = src + WCX_RANS_WIDTHS_BYTES;
	uint64_t ahead = 0;
	uint32_t ahead_bits = 0;

	for (uint32_t lane = 0; lane < WCX_LANES; lane++) {
		uint32_t width = state_width(src, lane);

		for (; ahead_bits < width; ahead_bits += 16, bits += 2)
			ahead |= (uint64_t)wcx_le16_read(bits) << ahead_bits;
		state[lane] = 1u << width | (uint32_t)(ahead & ((1u << width) - 1));
		ahead >>= width;
		ahead_bits -= width;
	}
}

/* Returns the bytes written, at most WCX_RANS_STATES_MAX_BYTES. */
static size_t write_states(const uint32_t state[WCX_LANES], uint8_t *dst)
{
	uint8_t *bits = dst + WCX_RANS_WIDTHS_BYTES;
	uint64_t behind = 0;
	uint32_t behind_bits = 0;

	memset(dst, 0, WCX_RANS_WIDTHS_BYTES);
	for (uint32_t lane = 0; lane < WCX_LANES; lane++) {
		uint32_t width = 31u - (uint32_t)__builtin_clz(state[lane]);

		dst[lane / 2] |= (uint8_t)((width - 16) << 4 * (lane % 2));
		behind |= (uint64_t)(state[lane] ^ 1u << width) << behind_bits;
		for (behind_bits += width; behind_bits >= 16; behind_bits -= 16, bits += 2, behind >>= 16)
			wcx_le16_write(bits, (uint32_t)behind & 0xFFFF);
	}
	if (behind_bits) {
		wcx_le16_write(bits, (uint32_t)behind);
		bits += 2;
	}
	return (size_t)(bits - dst);
}

/* Extracts the low halves of the final states; false if a state is wrong. */
static bool finish_states(const uint32_t state[WCX_LANES], uint8_t *carried)
{
	uint32_t off = 0;

	for (unsigned lane = 0; lane < WCX_LANES; lane++) {
		off |= carried ? state[lane] >> 16 ^ 1 : state[lane] ^ WCX_RANS_LOW;
		if (carried)
			wcx_le16_write(carried + 2 * lane, state[lane]);
	}
	return off == 0;
}

/* The number of lanes with a symbol in step k of a line, at whose start `left` symbols are left. */
static uint32_t lanes_of_step(size_t left, uint32_t k, uint32_t steps)
{
	if (left >= WCX_LANES * steps)
		return WCX_LANES;
	return left > k ? (uint32_t)((left - k - 1) / steps) + 1 : 0;
}

enum wcx_result wcx_rans_open(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader)
{
	const size_t states_bytes = wcx_rans_states_bytes(stream->src, stream->src_bytes);

	if (!states_bytes || stream->src_bytes % 2)
		return WCX_BAD_DATA;
	read_states(stream->src, reader->state);
	reader->word = stream->src + states_bytes;
	reader->end = stream->src + stream->src_bytes;
	reader->reserve = stream->steps * WCX_LANES * 2;
	return WCX_OK;
}

/*
 * Moves the remaining words to the tail, where lines need not check for the end: reading beyond it is detected afterwards.
 * False if that has happened already.
 */
static bool enter_tail(struct wcx_rans_reader *reader)
{
	const size_t left = (size_t)(reader->end - reader->word);

	if (!reader->reserve)
		return false;
	memcpy(reader->tail, reader->word, left);
	memset(reader->tail + left, 0, sizeof reader->tail - left);
	reader->word = reader->tail;
	reader->end = reader->tail + left;
	reader->reserve = 0;
	return true;
}

/* Decodes a partial line, with its contexts or NULL; false if a word is missing. */
static bool decode_last(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
			const uint32_t *contexts, uint32_t words[WCX_LANES])
{
	const struct wcx_rans_choices *choices = &stream->choices;
	const uint32_t choice = choices->bits ? wcx_rans_choice(choices, line / choices->run_lines) : 0;
	const size_t left = stream->symbol_count - (size_t)line * WCX_LANES * stream->steps;
	const uint32_t shift = stream->slot_shift;

	memset(words, 0, WCX_LANES * sizeof *words);
	for (uint32_t k = 0; k < stream->steps; k++) {
		uint32_t lanes = lanes_of_step(left, k, stream->steps);

		for (uint32_t lane = 0; lane < lanes; lane++) {
			const uint32_t context = contexts ? contexts[lane] >> 32 / stream->steps * k % 32 & 0xFF : 0;
			const uint32_t *table = stream->tables[choice] + ((size_t)context << (WCX_PROB_BITS - shift));
			uint32_t x = reader->state[lane], entry = table[(x & (WCX_PROB_SCALE - 1)) >> shift];

			x = wcx_rans_next_state(x, entry, shift != 0);
			if (x < WCX_RANS_LOW) {
				if (reader->word >= reader->end)
					return false;
				x = x << 16 | wcx_le16_read(reader->word);
				reader->word += 2;
			}
			reader->state[lane] = x;
			words[lane] |= wcx_rans_entry_symbol(entry, shift != 0) << 32 / stream->steps * k % 32;
		}
	}
	return true;
}

/* Moves those readers to their tails that have no more reserve; false if words are missing. */
static bool enter_tails(const struct wcx_rans_part *parts, unsigned count)
{
	for (unsigned p = 0; p < count; p++) {
		struct wcx_rans_reader *reader = parts[p].reader;

		if (reader->end - reader->word < reader->reserve && !enter_tail(reader))
			return false;
	}
	return true;
}

/* Parts whose words, unless NULL, start so many lines later. */
static void skip_lines(const struct wcx_rans_part *parts, unsigned count, uint32_t lines, struct wcx_rans_part *ret)
{
	for (unsigned p = 0; p < count; p++) {
		ret[p] = parts[p];
		if (ret[p].words)
			ret[p].words += (size_t)lines * WCX_LANES;
	}
}

static uint32_t decode_some(const struct wcx_decode_variant *variant, const struct wcx_rans_part *parts, unsigned count,
			    uint32_t first, uint32_t line, uint32_t end)
{
	const struct wcx_rans_stream *stream = parts[0].stream;
	struct wcx_rans_part rest[WCX_RANS_PARTS_MAX];

	skip_lines(parts, count, line - first, rest);
	if (rest[0].differences)
		return variant->decode_differences(rest, count, line, end);
	if (rest[0].halves)
		return variant->decode_halves(rest, count, line, end);
	if (stream->contexts)
		return variant->decode_by_context(stream, rest[0].reader, line, end,
						  stream->contexts + (size_t)(line - first) * WCX_LANES, rest[0].words);
	return (rest[0].sink ? variant->decode_pairs : variant->decode_lines)(rest, count, line, end);
}

enum wcx_result wcx_rans_decode_parts(const struct wcx_decode_variant *variant, const struct wcx_rans_part *parts,
				      unsigned count, uint32_t first, uint32_t end)
{
	const uint32_t full = parts[0].stream->symbol_count / (WCX_LANES * parts[0].stream->steps);
	const uint32_t full_end = WCX_MIN(full, end);
	uint32_t line = first;

	assert(count >= 1 && count <= variant->parts_max);
	while (line < full_end) {
		line = decode_some(variant, parts, count, first, line, full_end);
		if (line < full_end && !enter_tails(parts, count))
			return WCX_BAD_DATA;
	}
	for (unsigned p = 0; p < count && line < end; p++) {
		const struct wcx_rans_stream *stream = parts[p].stream;
		const size_t at = (size_t)(line - first) * WCX_LANES;

		if (!decode_last(stream, parts[p].reader, line, stream->contexts ? stream->contexts + at : NULL,
				 parts[p].words + at))
			return WCX_BAD_DATA;
	}
	return WCX_OK;
}

enum wcx_result wcx_rans_decode_lines(const struct wcx_decode_variant *variant, const struct wcx_rans_stream *stream,
				      struct wcx_rans_reader *reader, uint32_t first, uint32_t end, uint32_t *words)
{
	const struct wcx_rans_part part = { .stream = stream, .reader = reader, .words = words };

	return wcx_rans_decode_parts(variant, &part, 1, first, end);
}

enum wcx_result wcx_rans_decode_pairs(const struct wcx_decode_variant *variant, const struct wcx_rans_stream *stream,
				      struct wcx_rans_reader *reader, uint32_t first, uint32_t end,
				      const struct wcx_pair_sink *sink)
{
	const struct wcx_rans_part part = { .stream = stream, .reader = reader, .sink = sink };

	return wcx_rans_decode_parts(variant, &part, 1, first, end);
}

enum wcx_result wcx_rans_close(const struct wcx_rans_reader *reader, uint8_t carried[WCX_RANS_CARRIED_BYTES])
{
	return finish_states(reader->state, carried) && reader->word == reader->end ? WCX_OK : WCX_BAD_DATA;
}

/* Encodes the last line, which is partial and has `count` symbols; returns the new left. */
static size_t encode_last(const struct wcx_rans_lines *last, size_t count)
{
	const uint64_t *entry = last->table->symbol;
	size_t left = last->left;

	for (uint32_t k = last->steps; k-- > 0;)
		for (uint32_t lane = lanes_of_step(count, k, last->steps); lane-- > 0;) {
			const uint32_t i = last->steps * lane + k, symbol = last->keyed ? last->keyed[i] : last->symbols[i];

			left = wcx_rans_encode_symbol(entry[symbol], &last->state[lane], last->words, left);
		}
	return left;
}

/* With contexts, all tables are neighbours, and symbols go through them as through a single one. */
static const struct wcx_rans_encode_table *table_of_line(const struct wcx_rans_source *source, uint32_t line)
{
	const struct wcx_rans_choices *choices = &source->choices;

	return source->tables[choices->bits ? wcx_rans_choice(choices, line / choices->run_lines) : 0];
}

/* Moves on to lines that share a table. */
static void take_lines(const struct wcx_rans_source *source, uint32_t first, uint32_t count, struct wcx_rans_lines *lines)
{
	const size_t symbols = (size_t)first * WCX_LANES * source->steps;

	lines->table = table_of_line(source, first);
	lines->symbols = source->keyed ? NULL : source->symbols + symbols;
	lines->keyed = source->keyed ? source->keyed + symbols : NULL;
	lines->lines = count;
}

/* Encodes all symbols, from the last to the first; returns the new left. */
static size_t encode_all(const struct wcx_encode_variant *variant, const struct wcx_rans_source *source,
			 uint32_t state[WCX_LANES], uint16_t *words)
{
	const uint32_t line_symbols = WCX_LANES * source->steps;
	uint32_t line = source->symbol_count / line_symbols;
	const size_t full = (size_t)line * line_symbols;
	struct wcx_rans_lines lines = {
		.steps = source->steps, .state = state, .words = words, .left = source->symbol_count
	};

	if (full < source->symbol_count) {
		take_lines(source, line, 1, &lines);
		lines.left = encode_last(&lines, source->symbol_count - full);
	}
	while (line > 0) {
		const uint32_t run_lines = source->choices.bits ? source->choices.run_lines : line;
		const uint32_t first = (line - 1) / run_lines * run_lines;

		take_lines(source, first, line - first, &lines);
		lines.left = variant->encode_lines(&lines);
		line = first;
	}
	return lines.left;
}

size_t wcx_rans_encode(const struct wcx_encode_variant *variant, const struct wcx_rans_source *source, uint16_t *words,
		       uint8_t *dst, size_t dst_bytes)
{
	uint8_t states[WCX_RANS_STATES_MAX_BYTES];
	uint32_t state[WCX_LANES];
	size_t left, bytes, words_bytes;

	for (unsigned lane = 0; lane < WCX_LANES; lane++)
		state[lane] = WCX_RANS_LOW | (source->carried ? wcx_le16_read(source->carried + 2 * lane) : 0);
	left = encode_all(variant, source, state, words);
	words_bytes = 2 * (source->symbol_count - left);
	bytes = write_states(state, states);
	if (bytes + words_bytes > dst_bytes)
		return 0;
	memcpy(dst, states, bytes);
	memcpy(dst + bytes, words + left, words_bytes); /* little-endian, as element_loops.h requires */
	return bytes + words_bytes;
}
