/* SPDX-License-Identifier: MIT */
/* Grows arrays. */
#include "fs/base/array.h"

#include <stdlib.h>

#include "codec/arith.h"

enum { FIRST_CAPACITY = 16 };

void *wcx_array_reserve(void *items, size_t *capacity, size_t count, size_t item_bytes)
{
	size_t wanted = WCX_MAX(count, WCX_MAX(2 * *capacity, (size_t)FIRST_CAPACITY)), bytes;

	if (items && count <= *capacity)
		return items;
	if (__builtin_mul_overflow(wanted, item_bytes, &bytes))
		return NULL;
	items = realloc(items, bytes);
	if (items)
		*capacity = wanted;
	return items;
}
