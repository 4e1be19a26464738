/* SPDX-License-Identifier: MIT */
/*
 * rANS with 32 interleaved lanes, which fit a GPU warp or a few SIMD registers of 32-bit states (docs/format.md,
 * section 3.2).
 *
 * Symbols are arranged in lines: each lane has `steps` consecutive symbols per line, 1, 2 or 4.  Arrays of symbols are
 * ordered by line, then lane, then step.  Method: J. Duda, "Asymmetric numeral systems" (arXiv:1311.2540); interleaving: F.
 * Giesen (arXiv:1402.3392).
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
	WCX_RANS_LINE_WORDS_BYTES = WCX_RANS_STEPS_MAX * WCX_LANES * 2, /* of a line, at most */
	WCX_RANS_LOW = 1 << 16,       /* states are in [LOW, 2^32); a lane below LOW renormalises with a word of 16 bits */
	WCX_ESCAPE_DIFFERENCE = -128, /* what WCX_ESCAPE stands for in a coarse table */
	WCX_RANS_CARRIED_BYTES = WCX_LANES * 2, /* in the low halves of the final states */
	WCX_RANS_WIDTHS_BYTES = WCX_LANES / 2,  /* ahead of the start states: a nibble for the length of each */
	WCX_RANS_STATES_MIN_BYTES = WCX_RANS_WIDTHS_BYTES + WCX_LANES * 2,
	WCX_RANS_STATES_MAX_BYTES = WCX_RANS_WIDTHS_BYTES + (WCX_LANES * 31 + 15) / 16 * 2,
	/* Expected size, assuming that all 16 lengths are equally likely. */
	WCX_RANS_STATES_BYTES = WCX_RANS_WIDTHS_BYTES + WCX_LANES * 47 / 16,
};

/*
 * What each slot decodes to:
 *
 *	 31        20 19      12 11         0
 *	| frequency  |  symbol  | slot-start |
 */
struct wcx_rans_decode_table {
	uint32_t entry[WCX_PROB_SCALE];
};

/*
 * Constants that encode symbols without division, in one word each:
 *
 *	 63            32 31     16 15        0
 *	|  reciprocal    |  start  | frequency |
 *
 * start is the sum of the frequencies of lower symbols; the reciprocal is 2^32 / frequency, rounded down (for 1: 2^32 - 1).
 */
struct wcx_rans_encode_table {
	uint64_t symbol[WCX_SYMBOL_COUNT];
};

void wcx_rans_decode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_decode_table *ret);

/*
 * wcx_rans_coarse_table_build - the same for a coarse table of residuals, with one entry for 2^WCX_COARSE_BITS slots
 *
 *	 31            20 19        12 11         0
 *	| 4096-frequency |  difference |   start   |
 *
 * start is the sum of the frequencies of lower symbols.  The difference, a signed byte, is what the symbol stands for as a
 * residual, so that loops need not work it out; it tells the symbol.
 */
void wcx_rans_coarse_table_build(const struct wcx_freq_table *freqs, uint32_t entry[WCX_COARSE_SLOTS]);
void wcx_rans_encode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_encode_table *ret);

/* wcx_rans_next_state - the state after a symbol, by the entry of its slot, before it is renormalised */
static inline uint32_t wcx_rans_next_state(uint32_t state, uint32_t entry, bool is_coarse)
{
	const uint32_t sum = (entry >> 20) * (state >> WCX_PROB_BITS) + (entry & (WCX_PROB_SCALE - 1));

	return is_coarse ? state - sum : sum;
}

/* wcx_rans_entry_symbol - the symbol of an entry */
static inline uint32_t wcx_rans_entry_symbol(uint32_t entry, bool is_coarse)
{
	const uint32_t bits = entry >> 12 & 0xFF;

	return is_coarse ? (bits << 1 ^ (0 - (bits >> 7))) & 0xFF : bits;
}

/*
 * The table that each run of lines is coded with: the number in bits [r * bits, (r + 1) * bits) of packed for run r.  If
 * bits is 0, there is a single table.
 */
struct wcx_rans_choices {
	const uint8_t *packed;
	uint32_t bits;      /* 0, 1 or 2 */
	uint32_t run_lines; /* unused if bits is 0 */
};

/* wcx_rans_choice - the table number of run r */
static inline uint32_t wcx_rans_choice(const struct wcx_rans_choices *choices, size_t r)
{
	size_t bit = r * choices->bits;

	return choices->bits ? (uint32_t)choices->packed[bit / 8] >> bit % 8 & ((1u << choices->bits) - 1) : 0;
}

/* wcx_rans_states_bytes - size of the start states at the head of untrusted src; 0 if src is too short for them */
size_t wcx_rans_states_bytes(const uint8_t *src, size_t src_bytes);

/*
 * Input of the decoder; the caller owns all of it.  Tables are the entries of struct wcx_rans_decode_table, or those of a
 * coarse one.  With contexts, which there are for as many lines as are decoded at a
 * time, every symbol has a table of its own: that number of the array that the run chooses.  They are placed in words as
 * symbols are.
 */
struct wcx_rans_stream {
	const uint32_t *const *tables; /* 2^choices.bits of them, or arrays */
	uint32_t slot_shift;           /* an entry stands for 2^slot_shift slots: 0 or WCX_COARSE_BITS */
	const uint32_t *contexts;      /* below WCX_CONTEXTS_MAX; NULL without contexts */
	struct wcx_rans_choices choices;
	const uint8_t *src; /* states and words; untrusted */
	size_t src_bytes;
	uint32_t symbol_count;
	uint32_t steps;
};

/*
 * Position of a decoder in a stream.  While at least `reserve` bytes of words are left, a full line can be decoded without
 * bounds checks.  Near the end of the stream the remaining words are moved to tail, padded with zeros, and reserve becomes
 * 0: reading too many is detected at the end.
 */
struct wcx_rans_reader {
	uint32_t state[WCX_LANES];
	const uint8_t *word, *end; /* the next word, unaligned; the end of the words */
	ptrdiff_t reserve;
	uint8_t tail[2 * WCX_RANS_LINE_WORDS_BYTES];
};

/*
 * Where a variant may write pairs as finished elements: bytes of two steps a line, with four raw bits each, of which it
 * undoes FOLD; or two-byte elements of one step a line, with eight raw bits each, of which it undoes ROTATE.
 */
struct wcx_pair_sink {
	const uint8_t *raw; /* the plane */
	uint8_t *dst;       /* the tile */
	uint32_t base;      /* what to add to a word of two-byte elements; else unused */
};

struct wcx_line_recipe;

/*
 * Where a variant may write symbols, each in a half of a word, as finished elements of two bytes.  The recipe has no pairs;
 * those of parts that are decoded at once differ in the places of the planes alone.
 */
struct wcx_half_sink {
	const struct wcx_line_recipe *recipe;
	uint8_t *dst; /* the tile */
};

/*
 * Where a variant may write residuals, the symbols of two-byte elements, as finished elements: it finds their contexts and
 * undoes the difference, in one loop.
 */
struct wcx_difference_sink {
	const struct wcx_context_map *map;
	const uint8_t *base; /* the base's tile */
	uint8_t *dst;        /* the tile */
	uint64_t *escapes;   /* for each line, a bit for each element with symbol WCX_ESCAPE */
};

/* A stream that is being decoded, and where its next line goes. */
struct wcx_rans_part {
	const struct wcx_rans_stream *stream;
	struct wcx_rans_reader *reader;
	uint32_t *words;                               /* as wcx_rans_decode_lines says; unused with a sink */
	const struct wcx_pair_sink *sink;              /* NULL for words */
	const struct wcx_half_sink *halves;            /* NULL for words; not beside another sink */
	const struct wcx_difference_sink *differences; /* NULL for words; not beside a sink */
};

enum { WCX_RANS_PARTS_MAX = 2 };

struct wcx_decode_variant;

/*
 * wcx_rans_open - start decoding a stream
 *
 * Returns WCX_OK, or WCX_BAD_DATA if the states are incomplete or the size is odd.  The stream must outlive the reader.
 */
enum wcx_result wcx_rans_open(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader);

/*
 * wcx_rans_decode_lines - decode lines [first, end) of the stream, the next ones after those already decoded
 *
 * words receives 32 words per line, even for a partial one: symbol k of a lane has bits [32 / steps * k, 32 / steps * k + 8)
 * of its word; all other bits are 0.  Returns WCX_OK, or WCX_BAD_DATA if the stream is too short, which may also be noticed
 * only by wcx_rans_close.
 */
enum wcx_result wcx_rans_decode_lines(const struct wcx_decode_variant *variant, const struct wcx_rans_stream *stream,
				      struct wcx_rans_reader *reader, uint32_t first, uint32_t end, uint32_t *words);

/* wcx_rans_decode_pairs - the same for full lines of pairs, into a sink; the variant must have decode_pairs */
enum wcx_result wcx_rans_decode_pairs(const struct wcx_decode_variant *variant, const struct wcx_rans_stream *stream,
				      struct wcx_rans_reader *reader, uint32_t first, uint32_t end,
				      const struct wcx_pair_sink *sink);

/*
 * wcx_rans_decode_parts - the same for several streams at once, line by line
 *
 * A step waits for the one before it, and cores can decode another stream while it waits.  There are 1 to variant->parts_max
 * parts, all with a sink or none.  Their streams have the same number of symbols and steps, and runs of the same length;
 * with contexts there is one part, unless they are decoded to differences.  After WCX_BAD_DATA any of them may be the one
 * that is damaged.
 */
enum wcx_result wcx_rans_decode_parts(const struct wcx_decode_variant *variant, const struct wcx_rans_part *parts,
				      unsigned count, uint32_t first, uint32_t end);

/*
 * wcx_rans_close - check the stream after its last line
 *
 * carried receives the low halves of the final states; if it is NULL, they must be 0.  Returns WCX_OK, or WCX_BAD_DATA if
 * words are left over or missing, or a final state is wrong: then none of the decoded symbols can be trusted.
 */
enum wcx_result wcx_rans_close(const struct wcx_rans_reader *reader, uint8_t carried[WCX_RANS_CARRIED_BYTES]);

/*
 * Input of the encoder; the caller owns all of it.  Every symbol must have a frequency in the table chosen for it.  With
 * contexts, keyed has the symbols instead, each with its context above its eight bits, which is the number of its table in
 * the array tables[0].
 */
struct wcx_rans_source {
	const struct wcx_rans_encode_table *const *tables; /* 2^choices.bits of them */
	struct wcx_rans_choices choices;
	const uint8_t *symbols;
	const uint16_t *keyed; /* NULL without contexts */
	uint32_t symbol_count;
	uint32_t steps;
	const uint8_t *carried; /* WCX_RANS_CARRIED_BYTES for the final states to carry, or NULL */
};

struct wcx_encode_variant;

/*
 * wcx_rans_encode - write the start states and words from which the symbols decode
 *
 * words is scratch space for symbol_count words.  Returns the bytes written to dst, or 0 if they exceed dst_bytes.
 */
size_t wcx_rans_encode(const struct wcx_encode_variant *variant, const struct wcx_rans_source *source, uint16_t *words,
		       uint8_t *dst, size_t dst_bytes);

#endif
