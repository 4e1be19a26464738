/* SPDX-License-Identifier: MIT */
/*
 * Loops over the elements of a tile, for each size of an element: rotation, prediction, and bits taken out and put in
 * (docs/format.md, sections 3.4 and 3.5).  Elements may lie at any address.  No function allocates; all are safe from any
 * number of threads.
 */
#ifndef WCX_ELEMENT_H
#define WCX_ELEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"

/* The loops for one size.  Arrays of elements are void here; count is in elements, shift and rotation in bits. */
struct wcx_element_ops {
	/* dst = src rotated to the left, and elements rotated to the right in place; rotation is 0 or 1 */
	void (*rotate)(const void *src, size_t count, uint32_t rotation, void *dst);
	void (*rotate_back)(void *elements, size_t count, uint32_t rotation);

	/* residual = element - prediction, and the reverse in place; the predictor is not NONE */
	void (*make_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const void *src, void *dst);
	void (*undo_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, void *elements);

	/* values = width bits from shift on: up to 8, 16 and 32 of them, in integers of that size at any address */
	void (*get8)(const void *elements, size_t count, uint32_t shift, uint32_t width, uint8_t *values);
	void (*get16)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values);
	void (*get32)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values);

	/* The reverse: elements |= values << shift.  put_symbols adds base to symbols that are not 0. */
	void (*put8)(const uint8_t *values, size_t count, uint32_t shift, void *elements);
	void (*put16)(const void *values, size_t count, uint32_t shift, void *elements);
	void (*put32)(const void *values, size_t count, uint32_t shift, void *elements);
	void (*put_symbols)(const uint8_t *symbols, size_t count, uint32_t base, uint32_t shift, void *elements);

	/* Puts value in the place of width bits from shift on of one element. */
	void (*replace)(void *elements, size_t index, uint32_t shift, uint32_t width, uint32_t value);

	void (*fill)(void *elements, size_t count, uint64_t element);
};

/*
 * wcx_symbols_take - the symbols of a field of elements, in whose bits it starts at shift
 *
 * values is working memory for count values of 16 bits; it holds those of a field of more than 8 bits afterwards.  Returns
 * how many values no symbol stands for; they become symbol 0.
 */
uint32_t wcx_symbols_take(const struct wcx_element_ops *ops, const struct wcx_field *field, const void *elements,
			  uint32_t count, uint32_t shift, void *values, uint8_t *symbols);

/* wcx_element_ops - the loops for elements of elem_bytes: 1, 2, 4 or 8 */
const struct wcx_element_ops *wcx_element_ops(uint32_t elem_bytes);

#endif
