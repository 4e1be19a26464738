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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/recipe.h"

enum { WCX_CONTEXT_KEYS = 256, WCX_CONTEXT_TABLE_KEYS = 16 };

/*
 * How vectors of two-byte elements of a base get their contexts: an element in order is one with the bits
 * of `order` inverted if its sign is set, its magnitude has all bits of that inverted then.  Keys from `first` on are looked
 * up in a table, unless the thresholds span more.  A context is the number of values below that a key exceeds.
 */
struct wcx_context_map {
	uint16_t order, first;
	bool has_table;
	uint8_t table[WCX_CONTEXT_TABLE_KEYS]; /* the last one is also for all keys after it */
	int16_t below[WCX_CONTEXTS_MAX - 1];
};

/* wcx_context_map_make - the map of a recipe with a difference of two-byte elements, with its contexts or with one for all
 */
void wcx_context_map_make(const struct wcx_recipe *recipe, bool by_context, struct wcx_context_map *ret);

/* wcx_difference_residuals - the residuals of count elements of src, to dst, which may be src */
void wcx_difference_residuals(enum wcx_difference difference, uint32_t elem_bytes, const void *src, const void *base,
			      size_t count, void *dst);

/* wcx_difference_undo - the reverse in place */
void wcx_difference_undo(enum wcx_difference difference, uint32_t elem_bytes, const void *base, size_t count,
			 void *elements);

/*
 * wcx_difference_scatter16 - the elements of two bytes at so many positions, from their residuals, which lie side by side
 */
void wcx_difference_scatter16(enum wcx_difference difference, const void *residuals, const uint16_t *positions, size_t count,
			      const void *base, void *elements);

/* wcx_difference_contexts - the context of each element of the base; all 0 if the recipe has no contexts */
void wcx_difference_contexts(const struct wcx_recipe *recipe, const void *base, size_t count, uint8_t *contexts);

/* wcx_difference_keys - the key of each element of the base */
void wcx_difference_keys(enum wcx_difference difference, uint32_t elem_bytes, const void *base, size_t count, uint8_t *keys);

#endif
