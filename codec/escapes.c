/* SPDX-License-Identifier: MIT */
/* Notes elements without a value. */
#include "codec/escapes.h"

#include "codec/freq_table.h"

void wcx_escapes_note(const uint32_t *words, uint32_t lines, uint64_t *bits)
{
	for (uint32_t line = 0; line < lines; line++, words += WCX_LANES) {
		bits[line] = 0;
		for (uint32_t lane = 0; lane < WCX_LANES; lane++) {
			bits[line] |= (uint64_t)((words[lane] & 0xFFFF) == WCX_ESCAPE) << 2 * lane;
			bits[line] |= (uint64_t)(words[lane] >> 16 == WCX_ESCAPE) << (2 * lane + 1);
		}
	}
}
