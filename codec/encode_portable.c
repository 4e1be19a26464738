/* SPDX-License-Identifier: MIT */
/* The portable variant of the encoder's loops, the reference for all others. */
#include "codec/encode_variant.h"
#include "codec/inline.h"

#include "codec/encode_template.h"

/* Unrolled, 32 independent divisions overlap. */
WCX_INLINE size_t encode_steps(const struct wcx_rans_lines *lines, uint32_t steps, bool is_keyed)
{
	const uint64_t *entry = lines->table->symbol;
	uint32_t state[WCX_LANES];
	size_t left = lines->left;

	memcpy(state, lines->state, sizeof state);
	for (uint32_t line = lines->lines; line-- > 0;) {
		const size_t first = (size_t)line * WCX_LANES * steps;

		for (uint32_t k = steps; k-- > 0;)
#pragma GCC unroll 8
			for (uint32_t lane = WCX_LANES; lane-- > 0;) {
				const size_t i = first + steps * lane + k;
				const uint32_t symbol = is_keyed ? lines->keyed[i] : lines->symbols[i];

				left = wcx_rans_encode_symbol(entry[symbol], &state[lane], lines->words, left);
			}
	}
	memcpy(lines->state, state, sizeof state);
	return left;
}

const struct wcx_encode_variant wcx_encode_variant_portable = {
	.name = "portable",
	.elements = { &ops_8, &ops_16, &ops_32, &ops_64 },
	.encode_lines = encode_lines,
	.count = count_any,
	.count_keyed = count_keyed,
	.key_symbols = key_symbols,
	.key_fitting = key_fitting,
	.join_pairs = join_pairs,
	.add_plane = add_plane,
};
