/* SPDX-License-Identifier: MIT */
/* Reading a whole image in order, with every core decoding: what unpacking and verifying stand on. */
#ifndef WCX_EXPORT_H
#define WCX_EXPORT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/read/image.h"

/* What an export reports to: one call at a time, in order, but from any of its threads.  Each function may be NULL. */
struct wcx_export_ops {
	/* Bytes of the original file, in order, without gaps; returns 0, or -errno to stop the export with that error. */
	int (*write)(void *user, const void *src, size_t src_bytes, struct wcx_error *err);
	/* done bytes of the original file out of total have been passed on. */
	void (*progress)(void *user, uint64_t done, uint64_t total);
	/* A tile of the next bytes is damaged.  Without this function the first damaged tile ends the export. */
	void (*damaged)(void *user, uint64_t tile_index, const struct wcx_error *why);
};

struct wcx_export_result {
	uint64_t damaged_tiles;
	uint8_t sha256[WCX_SHA256_BYTES]; /* of the bytes passed on; meaningless if any tile was damaged */
};

/*
 * wcx_export - decode an image from start to end
 *
 * thread_count threads decode ahead, with a few MiB of memory each.  With a damaged function, a chunk that holds damaged
 * tiles is not passed on; instead all tiles of its tensors are checked one by one, and the export goes on.  *stop, which a
 * signal handler may set, ends the export with -EINTR; it may be NULL.  Returns 0 when everything that could be read was
 * passed on, or -errno.
 */
int wcx_export(struct wcx_image *image, unsigned thread_count, const struct wcx_export_ops *ops, void *user,
	       const atomic_bool *stop, struct wcx_export_result *ret, struct wcx_error *err);

/*
 * wcx_verify - check a whole image: every tile's checksum and coding, and the SHA-256 of the original
 *
 * Damaged tiles and progress go to ops (whose write is not used).  Returns 0, -EBADMSG when anything is damaged, with err
 * saying what or how much, or another -errno.
 */
int wcx_verify(struct wcx_image *image, unsigned thread_count, const struct wcx_export_ops *ops, void *user,
	       const atomic_bool *stop, struct wcx_error *err);

#endif
