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

enum {
	WCX_CONTEXT_KEYS = 256,
	WCX_DIFFERENCE_WINDOW = 256, /* the lowest residuals, which are counted one by one */
};

/* wcx_difference_residuals - the residuals of count elements of src, to dst, which may be src */
void wcx_difference_residuals(enum wcx_difference difference, uint32_t elem_bytes, const void *src, const void *base,
			      size_t count, void *dst);

/* wcx_difference_undo - the reverse in place */
void wcx_difference_undo(enum wcx_difference difference, uint32_t elem_bytes, const void *base, size_t count,
			 void *elements);

/* wcx_difference_contexts - the context of each element of the base; all 0 if the recipe has no contexts */
void wcx_difference_contexts(const struct wcx_recipe *recipe, const void *base, size_t count, uint8_t *contexts);

/* Statistics of residuals by the key of the base's element.  The caller owns them and zeroes them at first. */
struct wcx_difference_counts {
	uint64_t elems, unchanged; /* all; those with a residual of 0 */
	uint64_t window[WCX_CONTEXT_KEYS]
		       [WCX_DIFFERENCE_WINDOW + 1]; /* of each residual; the last is of all that are higher */
	uint64_t bytes[][WCX_CONTEXT_KEYS][256];    /* of each byte of residuals, the lowest first */
};

/* wcx_difference_counts_bytes - what to allocate for statistics of such elements */
static inline size_t wcx_difference_counts_bytes(uint32_t elem_bytes)
{
	return sizeof(struct wcx_difference_counts) + elem_bytes * sizeof(uint64_t[WCX_CONTEXT_KEYS][256]);
}

/* wcx_difference_count - add the statistics of count elements to *counts */
void wcx_difference_count(enum wcx_difference difference, uint32_t elem_bytes, const void *src, const void *base,
			  size_t count, struct wcx_difference_counts *counts);

#endif
