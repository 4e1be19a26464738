/* SPDX-License-Identifier: MIT */
/* Arrays that grow. */
#ifndef WCX_ARRAY_H
#define WCX_ARRAY_H

#include <stddef.h>

/*
 * wcx_array_reserve - have room for a number of items in all
 *
 * items is what malloc gave, or NULL; it may move.  *capacity, in items, at least doubles where it grows, so that adding
 * one by one takes linear time.  Returns the array, or NULL when there is no memory: then items and *capacity are as they
 * were.  To be used as
 *
 *	grown = wcx_array_reserve(list->items, &list->capacity, list->count + 1, sizeof *list->items);
 */
void *wcx_array_reserve(void *items, size_t *capacity, size_t count, size_t item_bytes);

#endif
