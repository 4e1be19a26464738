/* SPDX-License-Identifier: MIT */
/* Instantiates element_template.h for the four element sizes.  Included once by each source that has a set of the loops. */
#include <string.h>

#include "codec/difference_loops.h"
#include "codec/element.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "elements are read in the byte order of the file, which is little-endian"
#endif

/* Unaligned, and may alias memory of any type. */
typedef uint16_t __attribute__((aligned(1), may_alias)) uint16_any;
typedef uint32_t __attribute__((aligned(1), may_alias)) uint32_any;
typedef uint64_t __attribute__((aligned(1), may_alias)) uint64_any;

/* Bytes go eight at a time, ten times as fast: the mask drops what a shift moves into the neighbouring byte. */
#define EIGHT 8
#define EIGHT_ONES UINT64_C(0x0101010101010101)

/* All in 16 bits, which compilers vectorise; blocks are so short that misfits fit in 16 bits too. */
static uint32_t map_symbols(const void *values, size_t count, const struct wcx_field *field, uint8_t *symbols)
{
	enum { BLOCK = 4096 };
	const uint16_any *from = values;
	const uint16_t zero = field->has_zero, base = field->base, span = (uint16_t)(wcx_field_symbols_max(field) - zero);
	const uint16_t unfit = zero ? 0 : UINT16_MAX;
	uint32_t misfits = 0;

	for (size_t first = 0; first < count; first += BLOCK) {
		const size_t end = WCX_MIN(first + BLOCK, count);
		uint16_t block_misfits = 0;

		for (size_t i = first; i < end; i++) {
			const uint16_t above = (uint16_t)(from[i] - base);
			const uint16_t fits = (uint16_t)(above - zero) < span ? UINT16_MAX : 0;

			symbols[i] = (uint8_t)(above & fits);
			block_misfits = (uint16_t)(block_misfits + (~fits & (unfit | (from[i] ? UINT16_MAX : 0)) & 1));
		}
		misfits += block_misfits;
	}
	return misfits;
}

#define ELEM_BITS 8
#include "codec/element_template.h"
#define ELEM_BITS 16
#include "codec/element_template.h"
#define ELEM_BITS 32
#include "codec/element_template.h"
#define ELEM_BITS 64
#include "codec/element_template.h"
