/* SPDX-License-Identifier: MIT */
/* Notes and lists elements without a value. */
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

/* CPUs have an instruction for it, but this source is compiled for those without. */
static uint32_t count_bits(uint64_t x)
{
	x -= x >> 1 & 0x5555555555555555;
	x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
	x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
	return (uint32_t)(x * 0x0101010101010101 >> 56);
}

/* A branch for each element, or for each line unless nearly all have none, would mostly be mispredicted. */
bool wcx_escapes_list(const uint64_t *bits, uint32_t lines, uint32_t count, uint16_t *positions)
{
	const bool are_rare = count < lines / 8;
	uint32_t listed = 0;

	for (uint32_t line = 0; line < lines && listed <= count; line++) {
		const uint32_t first = line * 2 * WCX_LANES;
		uint64_t left = bits[line];
		uint32_t end;

		if (are_rare && !left)
			continue;
		end = listed + count_bits(left);
		do {
			for (uint32_t i = 0; i < WCX_ESCAPES_AT_ONCE; i++, left &= left - 1)
				positions[listed + i] =
					(uint16_t)(first + (uint32_t)__builtin_ctzll(left | UINT64_C(1) << 63));
			listed += WCX_ESCAPES_AT_ONCE;
		} while (left);
		listed = end;
	}
	return listed == count;
}
