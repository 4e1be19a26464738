/* SPDX-License-Identifier: MIT */
/*
 * Loops over the elements of a tile for each element size: transforms, prediction and extracted bits (docs/format.md,
 * sections 3.4 and 3.5).  Elements may be unaligned.  No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_ELEMENT_H
#define WCX_ELEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "codec/recipe.h"

/* The loops for one element size.  Elements are passed as void; count is in elements, shift and width in bits. */
struct wcx_element_ops {
	/* dst = src rotated; fold_bits are those that FOLD inverts, or 0 for ROTATE */
	void (*rotate)(const void *src, size_t count, uint64_t fold_bits, void *dst);

	/* residual = element - prediction, and the reverse in place; false if the predictor is unknown */
	bool (*make_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const void *src, void *dst);
	bool (*undo_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, void *elements);

	/* The same for differences from a base, and the contexts of its elements; see codec/difference.h. */
	void (*make_differences)(enum wcx_difference difference, const void *src, const void *base, size_t count, void *dst);
	void (*context_bytes)(const struct wcx_recipe *recipe, const void *base, size_t count, uint8_t *contexts);

	/* values = `width` bits from `shift` on: at most 8, 16 and 32 of them, in unaligned integers of that size */
	void (*get8)(const void *elements, size_t count, uint32_t shift, uint32_t width, uint8_t *values);
	void (*get16)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values);
	void (*get32)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values);

	/* The symbols of values of 16 bits, for wcx_symbols_take. */
	uint32_t (*map_symbols)(const void *values, size_t count, const struct wcx_field *field, uint8_t *symbols);

	/* Replaces the bits of one element that mask selects.  If folded, bits are inverted where its highest bit is set. */
	void (*replace)(void *elements, size_t index, uint64_t mask, uint64_t bits, bool folded);

	void (*fill)(void *elements, size_t count, uint64_t element);
};

/* wcx_element_ops - the loops for elements of elem_bytes, 1, 2, 4 or 8; NULL for other sizes */
const struct wcx_element_ops *wcx_element_ops(uint32_t elem_bytes);

/*
 * wcx_symbols_take - the symbols of a field that starts at bit `shift` of transformed elements
 *
 * In a field of pairs, the symbols are halves of pairs.  values is scratch space for count values of 16 bits; it receives
 * the values of a field that is wide.  Returns how many values no symbol stands for; their symbol becomes 0.
 */
uint32_t wcx_symbols_take(const struct wcx_element_ops *ops, const struct wcx_field *field, const void *elements,
			  uint32_t count, uint32_t shift, void *values, uint8_t *symbols);

#endif
