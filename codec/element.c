/* SPDX-License-Identifier: MIT */
/* Instantiates element_template.h for the four element sizes. */
#include "codec/element_loops.h"

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
	if (!wcx_field_is_wide(field)) {
		ops->get8(elements, count, shift, field->width, symbols);
		return 0;
	}
	ops->get16(elements, count, shift, field->width, values);
	return ops->map_symbols(values, count, field, symbols);
}
