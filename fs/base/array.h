/* SPDX-License-Identifier: MIT */
/* Growing arrays. */
#ifndef WCX_ARRAY_H
#define WCX_ARRAY_H

#include <stddef.h>

/*
 * wcx_array_reserve - make an array hold at least count items
 *
 * items was allocated here, or is NULL; it may move.  *capacity, in items, at least doubles when the array grows, so that
 * adding items one by one takes linear time.  Returns the array, or NULL when there is no memory; then items and *capacity
 * are unchanged.  To be used as
 *
 *	grown = wcx_array_reserve(list->items, &list->capacity, list->count + 1, sizeof *list->items);
 */
void *wcx_array_reserve(void *items, size_t *capacity, size_t count, size_t item_bytes);

#endif
