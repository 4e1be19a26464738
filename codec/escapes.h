/* SPDX-License-Identifier: MIT */
/*
 * Elements without a value of their own: those of two bytes whose symbol is WCX_ESCAPE (docs/format.md, section 3.3).
 *
 * A decoder notes them with a bit for each element of a line, and lists them when all lines are decoded
 * (codec/decode_variant.h).
 */
#ifndef WCX_ESCAPES_H
#define WCX_ESCAPES_H

#include <stdint.h>

#include "codec/line.h"

enum {
	WCX_ESCAPES_AT_ONCE = 4, /* listed without a branch */
	/* Room for positions beyond their number: those of a line, and what is written ahead. */
	WCX_ESCAPES_MARGIN = 2 * WCX_LANES + WCX_ESCAPES_AT_ONCE,
};

/* wcx_escapes_note - set the bits of lines from their words, 32 each, which hold symbols in their halves */
void wcx_escapes_note(const uint32_t *words, uint32_t lines, uint64_t *bits);

#endif
