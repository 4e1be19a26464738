/* SPDX-License-Identifier: MIT */
/* Reading the packed bytes of tiles from their file.  All functions are thread-safe. */
#ifndef WCX_PACKED_TILES_H
#define WCX_PACKED_TILES_H

#include "fs/format/container.h"
#include "fs/read/image.h"

/*
 * wcx_packed_fetch - have the kernel fetch [start, end) of the packed file, without waiting
 *
 * Does nothing if the kernel has the first whole page and the last byte.
 */
void wcx_packed_fetch(const struct wcx_container *container, uint64_t start, uint64_t end);

/* wcx_packed_fetch_tiles - the same for the packed bytes of tiles, where enough of them are adjacent */
void wcx_packed_fetch_tiles(const struct wcx_container *container, const struct wcx_image_tile *tiles, size_t count);

/*
 * wcx_packed_read_tiles - read the packed bytes of tiles into a buffer, but for those with is_read
 *
 * With one pread for tiles that are adjacent in the file.  Sets packed and r: 0, -EBADMSG where the file ends too early, or
 * another -errno.
 */
void wcx_packed_read_tiles(const struct wcx_container *container, struct wcx_image_tile *tiles, size_t count,
			   uint8_t *buffer);

#endif
