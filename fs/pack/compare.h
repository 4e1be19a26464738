/* SPDX-License-Identifier: MIT */
/* The sizes that other methods pack a tensor to, for comparison with ours.  Safe from any number of threads. */
#ifndef WCX_COMPARE_H
#define WCX_COMPARE_H

#include <stdatomic.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/safetensors.h"
#include "fs/read/image.h"

enum { WCX_COMPARE_ZSTD_LEVEL = 19 };

struct wcx_comparison {
	uint64_t zstd_bytes;      /* Zstandard, the tensor by itself */
	uint64_t reference_bytes; /* tiles of the reference's scheme (docs/format.md, section 4) */
};

/*
 * wcx_compare_tensor - pack a tensor of an image by the other methods, and keep only the sizes
 *
 * Takes some 100 MiB of memory, and a second for 3 MB.  A signal handler may set *stop, which ends this with -EINTR; stop
 * may be NULL.  Returns 0 or -errno.
 */
int wcx_compare_tensor(struct wcx_image *image, const struct wcx_tensor *tensor, const atomic_bool *stop,
		       struct wcx_comparison *ret, struct wcx_error *err);

#endif
