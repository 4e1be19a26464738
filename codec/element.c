/* SPDX-License-Identifier: MIT */
/* Instantiates element_template.h for the four element sizes. */
#include "codec/element.h"

#include <string.h>

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

#define ELEM_BITS 8
#include "codec/element_template.h"
#define ELEM_BITS 16
#include "codec/element_template.h"
#define ELEM_BITS 32
#include "codec/element_template.h"
#define ELEM_BITS 64
#include "codec/element_template.h"

const struct wcx_element_ops *wcx_element_ops(uint32_t elem_bytes)
{
	switch (elem_bytes) {
	case 1:
		return &ops_8;
	case 2:
		return &ops_16;
	case 4:
		return &ops_32;
	case 8:
		return &ops_64;
	}
	return NULL;
}

uint32_t wcx_symbols_take(const struct wcx_element_ops *ops, const struct wcx_field *field, const void *elements,
			  uint32_t count, uint32_t shift, void *values, uint8_t *symbols)
{
	const uint16_any *from = values;
	const uint16_t base = field->base, zero = field->has_zero, span = WCX_SYMBOL_COUNT - zero;
	uint32_t misfits = 0;

	if (field->width <= 8) {
		ops->get8(elements, count, shift, field->width, symbols);
		return 0;
	}
	ops->get16(elements, count, shift, field->width, values);
	for (uint32_t i = 0; i < count; i++) {
		uint16_t above = (uint16_t)(from[i] - base), fits = (uint16_t)(above - zero) < span;

		symbols[i] = (uint8_t)(fits ? above : 0);
		misfits += !fits && (!zero || from[i] != 0);
	}
	return misfits;
}
