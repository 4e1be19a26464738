/* SPDX-License-Identifier: MIT */
/* Binary search in any ordered sequence. */
#ifndef WCX_SEARCH_H
#define WCX_SEARCH_H

#include <stdbool.h>
#include <stddef.h>

/* Whether item i comes before the place sought: true for a first part of the items, false for the rest. */
typedef bool wcx_is_before_fn(const void *user, size_t i);

/* wcx_count_before - how many of count items come before the place sought */
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
