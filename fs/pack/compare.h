/* SPDX-License-Identifier: MIT */
/* What others would make of a tensor, to see what ours is worth.  Safe from any number of threads. */
#ifndef WCX_COMPARE_H
#define WCX_COMPARE_H

#include <stdatomic.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/safetensors.h"
#include "fs/read/image.h"

enum { WCX_COMPARE_ZSTD_LEVEL = 19 };

struct wcx_comparison {
	uint64_t zstd_bytes;      /* by Zstandard, the tensor alone */
	uint64_t reference_bytes; /* of the tiles that the reference's scheme makes (docs/format.md, section 4) */
};

/*
 * wcx_compare_tensor - pack a tensor of an image in other ways, and keep nothing but the sizes
 *
 * *stop, which a signal handler may set, ends it with -EINTR; it may be NULL.  Takes some 100 MiB, and a second for each 3
 * MB.  Returns 0 or -errno.
 */
int wcx_compare_tensor(struct wcx_image *image, const struct wcx_tensor *tensor, const atomic_bool *stop,
		       struct wcx_comparison *ret, struct wcx_error *err);

#endif
