/* SPDX-License-Identifier: MIT */
/*
 * Loops over the elements of a tile, for each size of an element: transforms, prediction, and bits taken out
 * (docs/format.md, sections 3.4 and 3.5).  Elements may lie at any address.  No function allocates; all are safe from any
 * number of threads.
 */
#ifndef WCX_ELEMENT_H
#define WCX_ELEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"

/* The loops for one size.  Arrays of elements are void here; count is in elements, shift and width in bits. */
struct wcx_element_ops {
	/* dst = src transformed; fold_bits are those that FOLD inverts, or 0 */
	void (*rotate)(const void *src, size_t count, uint64_t fold_bits, void *dst);

	/* residual = element - prediction, and the reverse in place; the predictor is not NONE */
	void (*make_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const void *src, void *dst);
	void (*undo_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, void *elements);

	/* values = width bits from shift on: up to 8, 16 and 32 of them, in integers of that size at any address */
	void (*get8)(const void *elements, size_t count, uint32_t shift, uint32_t width, uint8_t *values);
	void (*get16)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values);
	void (*get32)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values);

	/* Puts bits in the place of those that mask shows, of one element; inverted if `signs` and its highest bit is set.
	 */
	void (*replace)(void *elements, size_t index, uint64_t mask, uint64_t bits, int signs);

	void (*fill)(void *elements, size_t count, uint64_t element);
};

/*
 * wcx_symbols_take - the symbols of a field of transformed elements, in whose bits it starts at shift
 *
 * values is working memory for count values of 16 bits; it holds those of a field of more than 8 bits afterwards.  Of pairs
 * the halves are taken.  Returns how many values no symbol stands for; they become symbol 0.
 */
uint32_t wcx_symbols_take(const struct wcx_element_ops *ops, const struct wcx_field *field, const void *elements,
			  uint32_t count, uint32_t shift, void *values, uint8_t *symbols);

/* wcx_element_ops - the loops for elements of elem_bytes: 1, 2, 4 or 8 */
const struct wcx_element_ops *wcx_element_ops(uint32_t elem_bytes);

#endif
