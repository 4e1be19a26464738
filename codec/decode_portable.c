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
INLINE const uint8_t *decode_line(const uint32_t *entries, uint32_t state[WCX_LANES], const uint8_t *word, uint32_t steps,
				  uint32_t *words)
{
	uint32_t line[WCX_LANES] = { 0 };

	for (uint32_t k = 0; k < steps; k++) {
		for (uint32_t lane = 0; lane < WCX_LANES; lane++) {
			uint32_t x = state[lane], entry = entries[x & (WCX_PROB_SCALE - 1)], renormalises;

			x = (entry >> 20) * (x >> WCX_PROB_BITS) + (entry & 0xFFF);
			renormalises = x < WCX_RANS_LOW;
			state[lane] = x << (renormalises << 4) | (wcx_le16_read(word) & (0 - renormalises));
			word += 2 * renormalises;
			line[lane] |= (entry >> 12 & 0xFF) << 32 / steps * k % 32;
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
		reader->word = decode_line(run.entry, state, reader->word, steps, words);
	}
	memcpy(reader->state, state, sizeof state);
	return line;
}

/* A copy of the loops per number of steps, which is then a constant. */
static uint32_t decode_lines(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
			     uint32_t end, uint32_t *words)
{
	if (stream->steps == 4)
		return decode_steps(stream, reader, line, end, 4, words);
	if (stream->steps == 2)
		return decode_steps(stream, reader, line, end, 2, words);
	assert(stream->steps == 1);
	return decode_steps(stream, reader, line, end, 1, words);
}

const struct wcx_decode_variant wcx_decode_variant_portable = {
	.name = "portable",
	.decode_lines = decode_lines,
	.fill = fill,
	.put_symbols = put_symbols,
	.put_plane = put_plane,
	.fold = fold,
};
