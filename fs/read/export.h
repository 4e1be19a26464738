/* SPDX-License-Identifier: MIT */
/* Reading a whole image in order with all cores decoding, for unpacking and verifying. */
#ifndef WCX_EXPORT_H
#define WCX_EXPORT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/parallel.h"
#include "fs/read/image.h"

/* Receives the results of an export, and may limit its threads: one call at a time, in order, from any of its threads.  Each
 * function may be NULL. */
struct wcx_export_ops {
	const struct wcx_core_share *share; /* which other exports have a part of; NULL: none */
	/* The next bytes of the original file, without gaps.  Returns 0, or -errno to end the export with that error. */
	int (*write)(void *user, const void *src, size_t src_bytes, struct wcx_error *err);
	/* done of total bytes of the original file have been read. */
	void (*progress)(void *user, uint64_t done, uint64_t total);
	/* A tile is damaged.  Without this function, the first damaged tile ends the export. */
	void (*damaged)(void *user, uint64_t tile_index, const struct wcx_error *why);
};

struct wcx_export_result {
	uint64_t damaged_tiles;
	uint8_t sha256[WCX_SHA256_BYTES]; /* of the original; meaningless if any tile was damaged */
};

/*
 * wcx_export - decode an image from start to end
 *
 * Uses thread_count threads, with a few MiB of memory each.  When a chunk is damaged and ops has a damaged function, the
 * chunk is left out, all tiles of its tensors are checked one by one, and the export goes on.  Once *stop is true, which a
 * signal handler may set, the export ends with -EINTR; stop may be NULL.  Returns 0, even if there were damaged tiles, or
 * -errno.
 */
int wcx_export(struct wcx_image *image, unsigned thread_count, const struct wcx_export_ops *ops, void *user,
	       const atomic_bool *stop, struct wcx_export_result *ret, struct wcx_error *err);

/*
 * wcx_verify - check a whole image: checksum and coding of every tile, the SHA-256 of the original, and the header
 *
 * Progress and damaged tiles go to ops, whose write is not used.  Returns 0; -EBADMSG when anything is damaged, with err
 * saying what, or how many tiles; or another -errno.
 */
int wcx_verify(struct wcx_image *image, unsigned thread_count, const struct wcx_export_ops *ops, void *user,
	       const atomic_bool *stop, struct wcx_error *err);

#endif
