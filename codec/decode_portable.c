/* SPDX-License-Identifier: MIT */
/* The portable variant of the decoding loops, the reference for all others. */
#include "codec/decode_variant.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "codec/le.h"
#include "codec/line_template.h"

/*
 * Decodes a line for which the reader has its reserve.  Which lanes renormalise is unpredictable: masks instead of a branch
 * double the speed.
 */
INLINE const uint8_t *decode_line(const uint32_t *entries, uint32_t shift, const uint32_t *contexts, bool by_context,
				  uint32_t state[WCX_LANES], const uint8_t *word, uint32_t steps, uint32_t *words)
{
	uint32_t line[WCX_LANES] = { 0 };

	for (uint32_t k = 0; k < steps; k++) {
		for (uint32_t lane = 0; lane < WCX_LANES; lane++) {
			const uint32_t context = by_context ? contexts[lane] >> 32 / steps * k % 32 & 0xFF : 0;
			uint32_t x = state[lane], renormalises;
			const uint32_t entry = entries[(context << WCX_PROB_BITS | (x & (WCX_PROB_SCALE - 1))) >> shift];

			x = wcx_rans_next_state(x, entry, shift != 0);
			renormalises = x < WCX_RANS_LOW;
			state[lane] = x << (renormalises << 4) | (wcx_le16_read(word) & (0 - renormalises));
			word += 2 * renormalises;
			line[lane] |= wcx_rans_entry_symbol(entry, shift != 0) << 32 / steps * k % 32;
		}
	}
	memcpy(words, line, sizeof line);
	return word;
}

INLINE uint32_t decode_steps(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
			     uint32_t end, uint32_t steps, uint32_t *words)
{
	struct wcx_rans_run run = { NULL, line };
	uint32_t state[WCX_LANES];

	memcpy(state, reader->state, sizeof state);
	for (; line < end && reader->end - reader->word >= reader->reserve; line++, words += WCX_LANES) {
		if (line == run.end)
			run = wcx_rans_run_at(stream, line, end);
		reader->word = decode_line(run.entry, stream->slot_shift, NULL, false, state, reader->word, steps, words);
	}
	memcpy(reader->state, state, sizeof state);
	return line;
}

/* A copy of the loops per number of steps, which is then a constant. */
static uint32_t decode_lines(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end)
{
	const struct wcx_rans_stream *stream = parts[0].stream;
	struct wcx_rans_reader *reader = parts[0].reader;
	uint32_t *words = parts[0].words;

	assert(count == 1);
	(void)count;
	if (stream->steps == 4)
		return decode_steps(stream, reader, line, end, 4, words);
	if (stream->steps == 2)
		return decode_steps(stream, reader, line, end, 2, words);
	assert(stream->steps == 1);
	return decode_steps(stream, reader, line, end, 1, words);
}

INLINE uint32_t decode_steps_by_context(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
					uint32_t end, uint32_t steps, const uint32_t *contexts, uint32_t *words)
{
	struct wcx_rans_run run = { NULL, line };
	uint32_t state[WCX_LANES];

	memcpy(state, reader->state, sizeof state);
	for (; line < end && reader->end - reader->word >= reader->reserve;
	     line++, contexts += WCX_LANES, words += WCX_LANES) {
		if (line == run.end)
			run = wcx_rans_run_at(stream, line, end);
		reader->word = decode_line(run.entry, stream->slot_shift, contexts, true, state, reader->word, steps, words);
	}
	memcpy(reader->state, state, sizeof state);
	return line;
}

static uint32_t decode_by_context(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				  uint32_t end, const uint32_t *contexts, uint32_t *words)
{
	if (stream->steps == 4)
		return decode_steps_by_context(stream, reader, line, end, 4, contexts, words);
	if (stream->steps == 2)
		return decode_steps_by_context(stream, reader, line, end, 2, contexts, words);
	assert(stream->steps == 1);
	return decode_steps_by_context(stream, reader, line, end, 1, contexts, words);
}

const struct wcx_decode_variant wcx_decode_variant_portable = {
	.name = "portable",
	.parts_max = 1,
	.parts_max_with_choices = 1,
	.decode_lines = decode_lines,
	.decode_by_context = decode_by_context,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.make_lines = make_lines,
	.fold = fold,
	.find_contexts = find_contexts,
	.list_escapes = list_escapes,
	.undo_difference = undo_difference,
};
