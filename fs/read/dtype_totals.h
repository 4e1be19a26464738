/* SPDX-License-Identifier: MIT */
/* How many bytes the tensors of each dtype have, and how many are left of them when packed. */
#ifndef WCX_DTYPE_TOTALS_H
#define WCX_DTYPE_TOTALS_H

#include <stddef.h>
#include <stdint.h>

#include "fs/format/container.h"
#include "fs/format/safetensors.h"

enum { WCX_DTYPE_TOTALS_MAX = 48, WCX_DTYPE_TEXT_BYTES = 16 };

struct wcx_dtype_total {
	char dtype[WCX_DTYPE_TEXT_BYTES]; /* as the header writes it, cut if it is long */
	uint64_t tensors, bytes, packed_bytes;
};

/* In the order of appearance; zeroed at first.  A file with more dtypes than fit is counted under "other" for the rest. */
struct wcx_dtype_totals {
	struct wcx_dtype_total items[WCX_DTYPE_TOTALS_MAX];
	size_t count;
};

/*
 * wcx_dtype_totals_add - add the tensors of a packed file
 *
 * Tensors that share tiles share their bytes by size; those that have the tiles of an earlier one count as 0 bytes packed.
 * The safetensors header and the index belong to no dtype.
 */
void wcx_dtype_totals_add(struct wcx_dtype_totals *totals, const struct wcx_container *container,
			  const struct wcx_safetensors *st);

/* wcx_dtype_totals_merge - add the totals of other files */
void wcx_dtype_totals_merge(struct wcx_dtype_totals *totals, const struct wcx_dtype_totals *more);

#endif
