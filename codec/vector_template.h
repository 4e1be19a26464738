/* SPDX-License-Identifier: MIT */
/*
 * Template of the rANS decoding loops of a variant with SIMD registers.  Each variant includes this file once, after
 * defining with its instructions:
 *
 *	vector, VECTOR_LANES	a register and how many 32-bit words it holds
 *	load, store		unaligned
 *	step			decodes one symbol of every lane; e receives the table entries, with symbols in bits 12 to
 *19; at, if not NULL, has the first slot of the table of each lane
 *	place_contexts		the slots where tables begin whose numbers start at a given bit
 *	either			bitwise or
 *	place_symbols		the symbols of entries, moved to start at a given bit, and zeros beside them
 *	finish_pairs		words of elements from the entries of their two steps and their raw bits
 *	finish_half_pairs	the same of two-byte elements, which have one step, and the base of a word
 *	rotate_right		by 0, 4 or 8 bits
 */
#include <assert.h>

enum { REGISTERS = WCX_LANES / VECTOR_LANES, PREFETCH_BYTES = 2048 };

INLINE void load_states(const struct wcx_rans_reader *reader, vector state[REGISTERS])
{
	for (int r = 0; r < REGISTERS; r++)
		state[r] = load(reader->state + r * VECTOR_LANES);
}

INLINE void store_states(struct wcx_rans_reader *reader, const vector state[REGISTERS])
{
	for (int r = 0; r < REGISTERS; r++)
		store(reader->state + r * VECTOR_LANES, state[r]);
}

INLINE void decode_line(const uint32_t *entry, vector state[REGISTERS], const uint8_t **word, uint32_t steps,
			const uint32_t *contexts, bool by_context, uint32_t *words, bool gather)
{
	vector w[REGISTERS] = { 0 }, e[REGISTERS], at[REGISTERS];

	for (uint32_t k = 0; k < steps; k++) {
		for (int r = 0; by_context && r < REGISTERS; r++)
			at[r] = place_contexts(load(contexts + r * VECTOR_LANES), 32 / steps * k);
		step(entry, by_context ? at : NULL, state, word, e, gather);
		for (int r = 0; r < REGISTERS; r++) {
			vector symbols = place_symbols(e[r], 32 / steps * k);

			w[r] = k ? either(w[r], symbols) : symbols;
		}
	}
	for (int r = 0; r < REGISTERS; r++)
		store(words + r * VECTOR_LANES, w[r]);
}

INLINE uint32_t decode_steps(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
			     uint32_t end, uint32_t steps, uint32_t *words, bool gather)
{
	const uint8_t *word = reader->word;
	vector state[REGISTERS];

	load_states(reader, state);
	while (line < end && reader->end - word >= reader->reserve) {
		const struct wcx_rans_run run = wcx_rans_run_at(stream, line, end);

		for (; line < run.end && reader->end - word >= reader->reserve; line++, words += WCX_LANES)
			decode_line(run.entry, state, &word, steps, NULL, false, words, gather);
	}
	store_states(reader, state);
	reader->word = word;
	return line;
}

INLINE uint32_t decode_any_steps(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				 uint32_t end, uint32_t *words, bool gather)
{
	if (stream->steps == 4)
		return decode_steps(stream, reader, line, end, 4, words, gather);
	if (stream->steps == 2)
		return decode_steps(stream, reader, line, end, 2, words, gather);
	assert(stream->steps == 1);
	return decode_steps(stream, reader, line, end, 1, words, gather);
}

INLINE uint32_t decode_steps_by_context(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
					uint32_t end, uint32_t steps, const uint32_t *contexts, uint32_t *words, bool gather)
{
	const uint8_t *word = reader->word;
	vector state[REGISTERS];

	load_states(reader, state);
	for (; line < end && reader->end - word >= reader->reserve; line++, contexts += WCX_LANES, words += WCX_LANES)
		decode_line(stream->tables[0]->entry, state, &word, steps, contexts, true, words, gather);
	store_states(reader, state);
	reader->word = word;
	return line;
}

INLINE uint32_t decode_any_steps_by_context(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader,
					    uint32_t line, uint32_t end, const uint32_t *contexts, uint32_t *words,
					    bool gather)
{
	if (stream->steps == 4)
		return decode_steps_by_context(stream, reader, line, end, 4, contexts, words, gather);
	if (stream->steps == 2)
		return decode_steps_by_context(stream, reader, line, end, 2, contexts, words, gather);
	assert(stream->steps == 1);
	return decode_steps_by_context(stream, reader, line, end, 1, contexts, words, gather);
}

/* A unit holds the raw bits of two lines; those of the second line are rotated by as many bits as an element has. */
INLINE void decode_pair_line(const uint32_t *entry, vector state[REGISTERS], const uint8_t **word,
			     const struct wcx_pair_sink *sink, uint32_t line, bool are_bytes, bool gather)
{
	const uint8_t *unit = sink->raw + (size_t)line / 2 * WCX_PLANE_UNIT_BYTES;
	uint8_t *dst = sink->dst + (size_t)line * WCX_LANES * 4;
	const int rotation = line % 2 ? (are_bytes ? 4 : 8) : 0;
	vector first[REGISTERS], second[REGISTERS];

	/* Hardware prefetchers stop at page boundaries, which each of the three streams crosses every few lines. */
	__builtin_prefetch(*word + PREFETCH_BYTES);
	__builtin_prefetch(unit + PREFETCH_BYTES);
	__builtin_prefetch(dst + PREFETCH_BYTES, 1);
	__builtin_prefetch(dst + PREFETCH_BYTES + 64, 1);
	step(entry, NULL, state, word, first, gather);
	if (are_bytes)
		step(entry, NULL, state, word, second, gather);
	for (int r = 0; r < REGISTERS; r++) {
		const vector raw = rotate_right(load(unit + r * (int)sizeof(vector)), rotation);

		store(dst + r * (int)sizeof(vector),
		      are_bytes ? finish_pairs(first[r], second[r], raw) : finish_half_pairs(first[r], raw, sink->base));
	}
}

INLINE uint32_t decode_pair_lines(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				  uint32_t end, const struct wcx_pair_sink *sink, bool are_bytes, bool gather)
{
	const uint8_t *word = reader->word;
	vector state[REGISTERS];

	load_states(reader, state);
	while (line < end && reader->end - word >= reader->reserve) {
		const struct wcx_rans_run run = wcx_rans_run_at(stream, line, end);

		for (; line < run.end && reader->end - word >= reader->reserve; line++)
			decode_pair_line(run.entry, state, &word, sink, line, are_bytes, gather);
	}
	store_states(reader, state);
	reader->word = word;
	return line;
}

INLINE uint32_t decode_any_pairs(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				 uint32_t end, const struct wcx_pair_sink *sink, bool gather)
{
	if (stream->steps == 2)
		return decode_pair_lines(stream, reader, line, end, sink, true, gather);
	assert(stream->steps == 1);
	return decode_pair_lines(stream, reader, line, end, sink, false, gather);
}
