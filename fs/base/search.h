/* SPDX-License-Identifier: MIT */
/* Binary search in anything that is in order. */
#ifndef WCX_SEARCH_H
#define WCX_SEARCH_H

#include <stdbool.h>
#include <stddef.h>

/* Whether item i lies before the place that is looked for.  Must be true for the first items and false for the rest. */
typedef bool wcx_is_before_fn(const void *user, size_t i);

/* wcx_count_before - of count items, how many lie before the place that is looked for */
static inline size_t wcx_count_before(size_t count, wcx_is_before_fn *is_before, const void *user)
{
	size_t low = 0, high = count;

	while (low < high) {
		const size_t middle = low + (high - low) / 2;

		if (is_before(user, middle))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

#endif
