/* SPDX-License-Identifier: MIT */
/*
 * rANS with 32 interleaved lanes: a GPU warp, or four AVX2 registers of 32-bit states (docs/format.md, section 3.2).
 *
 * Each lane codes four neighbouring symbols in a row, so that a decoder collects them in one 32-bit word a lane, and 32
 * such words are 128 consecutive bytes of output: no transposition on either machine.  Source of the method: J. Duda,
 * "Asymmetric numeral systems" (arXiv:1311.2540); interleaving: F. Giesen (arXiv:1402.3392).
 *
 * No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_RANS_H
#define WCX_RANS_H

#include <stddef.h>
#include <stdint.h>

#include "codec/freq_table.h"
#include "codec/result.h"

enum {
	WCX_RANS_LANES = 32,
	WCX_RANS_LANE_SYMBOLS = 4, /* neighbouring symbols of one lane in a group */
	WCX_RANS_GROUP = WCX_RANS_LANES * WCX_RANS_LANE_SYMBOLS,
	WCX_RANS_STATE_BYTES = WCX_RANS_LANES * 4,
	WCX_RANS_CARRIED_BYTES = WCX_RANS_LANES * 2, /* that the states can take along */
	WCX_RANS_LOW = 1 << 16, /* states live in [LOW, 2^32): below it, a lane takes a word of 16 bits */
};

/*
 * What a slot decodes to:
 *
 *	 31        20 19         8 7       0
 *	| slot-start | frequency  | symbol  |
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
 * Which of several tables the symbols are coded with: the same for a run of them, a multiple of WCX_RANS_GROUP.  With bits 0
 * there is but one table; else run r has the one that bits [r * bits, (r + 1) * bits) of packed say.
 */
struct wcx_rans_choices {
	const uint8_t *packed;
	uint32_t bits; /* 0, 1 or 2 */
	uint32_t run;  /* not looked at when bits is 0 */
};

/*
 * wcx_rans_decode - decode symbol_count symbols
 *
 * tables holds 2^bits tables.  Reads exactly src_bytes of untrusted bytes from src, states and words, and writes
 * symbol_count bytes to dst.  carried gets the low halves of the final states; where it is NULL they must be 0.  Returns
 * WCX_OK, or WCX_BAD_DATA when words are missing or left over or a final state is not what it must be; dst and carried are
 * then undefined.
 */
enum wcx_result wcx_rans_decode(const struct wcx_rans_decode_table *const tables[], const struct wcx_rans_choices *choices,
				const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t symbol_count,
				uint8_t carried[WCX_RANS_CARRIED_BYTES]);

/*
 * wcx_rans_encode - encode symbol_count symbols
 *
 * The reverse: carried is what the states take along, or NULL.  Every symbol must have a frequency in the table chosen for
 * it; else what is written is not the symbols.  words is working memory for symbol_count words of 16 bits.  Returns the
 * bytes written to dst, or 0 when they would be more than dst_bytes.
 */
size_t wcx_rans_encode(const struct wcx_rans_encode_table *const tables[], const struct wcx_rans_choices *choices,
		       const uint8_t *symbols, size_t symbol_count, const uint8_t *carried, uint16_t *words, uint8_t *dst,
		       size_t dst_bytes);

/* wcx_rans_choice - the choice of run r */
static inline uint32_t wcx_rans_choice(const struct wcx_rans_choices *choices, size_t r)
{
	size_t bit = r * choices->bits;

	return choices->bits ? (uint32_t)choices->packed[bit / 8] >> bit % 8 & ((1u << choices->bits) - 1) : 0;
}

#endif
