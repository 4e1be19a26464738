/* SPDX-License-Identifier: MIT */
/*
 * rANS with 32 interleaved lanes: a GPU warp, or four AVX2 registers of 32-bit states (docs/format.md, section 3.1).
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

/* What it takes to encode a symbol without a division; a symbol without a frequency has limit 0. */
struct wcx_rans_encode_table {
	struct {
		uint64_t reciprocal; /* 2^64 / frequency, rounded up */
		uint32_t limit;      /* a state from here on emits a word first (2^20 times the frequency) */
		uint32_t bias;
		uint32_t complement; /* WCX_PROB_SCALE - frequency */
	} symbol[WCX_SYMBOL_COUNT];
};

void wcx_rans_decode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_decode_table *ret);
void wcx_rans_encode_table_build(const struct wcx_freq_table *freqs, struct wcx_rans_encode_table *ret);

/*
 * wcx_rans_decode - decode symbol_count symbols
 *
 * Reads exactly src_bytes of untrusted bytes from src and writes symbol_count bytes to dst.  Returns WCX_OK, or WCX_BAD_DATA
 * when words are missing or left over or a final state is not WCX_RANS_LOW; dst is then undefined.
 */
enum wcx_result wcx_rans_decode(const struct wcx_rans_decode_table *table, const uint8_t *src, size_t src_bytes,
				uint8_t *dst, size_t symbol_count);

/*
 * wcx_rans_encode - encode symbol_count symbols
 *
 * words is working memory for symbol_count words of 16 bits.  Returns the bytes written to dst, or 0 when they would be more
 * than dst_bytes or a symbol has no frequency.
 */
size_t wcx_rans_encode(const struct wcx_rans_encode_table *table, const uint8_t *symbols, size_t symbol_count,
		       uint16_t *words, uint8_t *dst, size_t dst_bytes);

#endif
