/* SPDX-License-Identifier: MIT */
/*
 * rANS with 32 interleaved lanes: a GPU warp, or a few SIMD registers of 32-bit states (docs/format.md, section 3.2).
 *
 * Symbols stand in lines: in each line a lane has `steps` symbols, 1, 2 or 4, one behind the other.  Here they are bytes in
 * the order of lines, in a line of lanes, in a lane of steps.  Source of the method: J. Duda, "Asymmetric numeral systems"
 * (arXiv:1311.2540); interleaving: F. Giesen (arXiv:1402.3392).
 *
 * No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_RANS_H
#define WCX_RANS_H

#include <stddef.h>
#include <stdint.h>

#include "codec/freq_table.h"
#include "codec/line.h"
#include "codec/result.h"

enum {
	WCX_RANS_STEPS_MAX = 4,
	WCX_RANS_LINE_WORDS_BYTES = WCX_RANS_STEPS_MAX * WCX_LANES * 2, /* the most that a line takes */
	WCX_RANS_LOW = 1 << 16,                 /* states live in [LOW, 2^32): below it, a lane takes a word of 16 bits */
	WCX_RANS_CARRIED_BYTES = WCX_LANES * 2, /* that the final states take along */
	WCX_RANS_WIDTHS_BYTES = WCX_LANES / 2,  /* before the start states: a nibble each for how long it is */
	WCX_RANS_STATES_MIN_BYTES = WCX_RANS_WIDTHS_BYTES + WCX_LANES * 2,
	WCX_RANS_STATES_MAX_BYTES = WCX_RANS_WIDTHS_BYTES + (WCX_LANES * 31 + 15) / 16 * 2,
	/* What they take on average: a state's length is as likely to be one as another. */
	WCX_RANS_STATES_BYTES = WCX_RANS_WIDTHS_BYTES + WCX_LANES * 47 / 16,
};

/*
 * What a slot decodes to:
 *
 *	 31        20 19      12 11         0
 *	| frequency  |  symbol  | slot-start |
 */
struct wcx_rans_decode_table {
	uint32_t entry[WCX_PROB_SCALE];
};

/* What it takes to encode a symbol without a division. */
struct wcx_rans_encode_table {
	struct {
		uint64_t reciprocal; /* 2^44 / frequency, rounded up */
		uint32_t limit;      /* a state from here on emits a word first (2^20 times the frequency) */
		uint16_t start;      /* sum of the frequencies of the symbols below */
		uint16_t complement; /* WCX_PROB_SCALE - frequency */
	} symbol[WCX_SYMBOL_COUNT];
};

void wcx_rans_decode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_decode_table *ret);
void wcx_rans_encode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_encode_table *ret);

/*
 * Which of several tables the symbols are coded with: the same for a run of lines.  With bits 0 there is but one table; else
 * run r has the one that bits [r * bits, (r + 1) * bits) of packed say.
 */
struct wcx_rans_choices {
	const uint8_t *packed;
	uint32_t bits;      /* 0, 1 or 2 */
	uint32_t run_lines; /* not looked at when bits is 0 */
};

/* wcx_rans_choice - the choice of run r, 0 with bits 0 */
static inline uint32_t wcx_rans_choice(const struct wcx_rans_choices *choices, size_t r)
{
	size_t bit = r * choices->bits;

	return choices->bits ? (uint32_t)choices->packed[bit / 8] >> bit % 8 & ((1u << choices->bits) - 1) : 0;
}

/* wcx_rans_states_bytes - what the start states take at the head of src, which is untrusted; 0 if src is too short */
size_t wcx_rans_states_bytes(const uint8_t *src, size_t src_bytes);

/* What is decoded, all of it the caller's. */
struct wcx_rans_stream {
	const struct wcx_rans_decode_table *const *tables; /* 2^choices.bits of them */
	struct wcx_rans_choices choices;
	const uint8_t *src; /* states and words; untrusted */
	size_t src_bytes;
	uint32_t symbol_count;
	uint32_t steps;
};

/*
 * Where a decoder stands.  As long as `reserve` bytes of words are left, a line of full lanes may take, and look at, as many
 * as it can want: so many are there, or, near the end of the stream, they are in tail, which has zeros behind them; reserve
 * is 0 then.
 */
struct wcx_rans_reader {
	uint32_t state[WCX_LANES];
	const uint8_t *word, *end; /* the next word, at any address; behind the last one */
	ptrdiff_t reserve;
	uint8_t tail[2 * WCX_RANS_LINE_WORDS_BYTES];
};

/*
 * What pairs may become at once: four raw bits are added below to each of the two elements that a symbol stands for, as FOLD
 * has it.  nibbles is that raw plane, dst the tile.
 */
struct wcx_pair_sink {
	const uint8_t *nibbles;
	uint8_t *dst;
};

struct wcx_decode_variant;

/*
 * wcx_rans_open - begin with a stream
 *
 * Returns WCX_OK, or WCX_BAD_DATA when the states are not there in full.  The stream must outlive the reader's use.
 */
enum wcx_result wcx_rans_open(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader);

/*
 * wcx_rans_decode_lines - decode lines [first, end), which follow those that were decoded before
 *
 * The lines must be the stream's.  words gets 32 words for each, also for one that is not full: symbol k of a lane has bits
 * [32 / steps * k, 32 / steps * k + 8) of its word, and the others are 0.  Returns WCX_OK, or WCX_BAD_DATA when words of the
 * stream are missing; it may not notice until wcx_rans_close.
 */
enum wcx_result wcx_rans_decode_lines(const struct wcx_decode_variant *variant, const struct wcx_rans_stream *stream,
				      struct wcx_rans_reader *reader, uint32_t first, uint32_t end, uint32_t *words);

/* wcx_rans_decode_pairs - the same for full lines of pairs, into a sink; for a variant that has decode_pairs */
enum wcx_result wcx_rans_decode_pairs(const struct wcx_decode_variant *variant, const struct wcx_rans_stream *stream,
				      struct wcx_rans_reader *reader, uint32_t first, uint32_t end,
				      const struct wcx_pair_sink *sink);

/*
 * wcx_rans_close - once all lines are decoded
 *
 * carried gets the low halves of the final states; where it is NULL they must be 0.  Returns WCX_OK, or WCX_BAD_DATA when
 * words are left over or were missing, or a final state is not what it must be: then nothing decoded was right.
 */
enum wcx_result wcx_rans_close(const struct wcx_rans_reader *reader, uint8_t carried[WCX_RANS_CARRIED_BYTES]);

/* Input of the encoder; the caller owns all of it.  Every symbol must have a frequency in the table chosen for it. */
struct wcx_rans_source {
	const struct wcx_rans_encode_table *const *tables; /* 2^choices.bits of them */
	struct wcx_rans_choices choices;
	const uint8_t *symbols;
	uint32_t symbol_count;
	uint32_t steps;
	const uint8_t *carried; /* WCX_RANS_CARRIED_BYTES for the final states to carry, or NULL */
};

/*
 * wcx_rans_encode - write the start states and words from which the symbols decode
 *
 * words is scratch space for symbol_count words.  Returns the bytes written to dst, or 0 if they exceed dst_bytes.
 */
size_t wcx_rans_encode(const struct wcx_rans_source *source, uint16_t *words, uint8_t *dst, size_t dst_bytes);

#endif
