/* SPDX-License-Identifier: MIT */
/*
 * Differences of elements from those of a base, and the contexts that the base gives them (docs/format.md, section 3.6).
 *
 * The residual of an element is its distance from the element of the base in the order of `difference`, as an unsigned
 * number: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4.  A key tells the magnitude of an element of the base; thresholds divide the
 * keys into contexts.  Elements have elem_bytes, 1, 2, 4 or 8, and may be unaligned; difference is not NONE.
 *
 * No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_DIFFERENCE_H
#define WCX_DIFFERENCE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/recipe.h"

enum { WCX_CONTEXT_KEYS = 256 };

/* wcx_difference_residuals - the residuals of count elements of src, to dst, which may be src */
void wcx_difference_residuals(enum wcx_difference difference, uint32_t elem_bytes, const void *src, const void *base,
			      size_t count, void *dst);

/* wcx_difference_undo - the reverse in place */
void wcx_difference_undo(enum wcx_difference difference, uint32_t elem_bytes, const void *base, size_t count,
			 void *elements);

/* wcx_difference_contexts - the context of each element of the base; all 0 if the recipe has no contexts */
void wcx_difference_contexts(const struct wcx_recipe *recipe, const void *base, size_t count, uint8_t *contexts);

/* wcx_difference_keys - the key of each element of the base */
void wcx_difference_keys(enum wcx_difference difference, uint32_t elem_bytes, const void *base, size_t count, uint8_t *keys);

#endif
