/* SPDX-License-Identifier: MIT */
/*
 * The bases of an image: found when a read first needs them, kept, and read for the tiles that are differences from them.
 *
 * All functions are thread-safe.  No lock is held while a base is looked for or read.
 */
#ifndef WCX_IMAGE_BASES_H
#define WCX_IMAGE_BASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/container.h"

struct wcx_image;
struct wcx_image_bases;

/* Finds the bases of images. */
struct wcx_base_finder {
	/*
	 * Gives an image with one reference, which has the SHA-256 and the size of the base and no bases of its own; or
	 * -ENOENT, -EACCES and others with a message that names the base.  Any thread may call it, for several at a time. It
	 * may wait for the disk, and for others that look for bases, but for nobody who decodes.  NULL: no base can be
	 * found.
	 */
	int (*find)(void *user, const struct wcx_container *dependent, const struct wcx_base *base, struct wcx_image **ret,
		    struct wcx_error *err);
	void *user;
};

enum { WCX_BASE_RETRY_MS = 1000 };

struct wcx_image_bases *wcx_image_bases_create(void);     /* NULL: no memory */
void wcx_image_bases_free(struct wcx_image_bases *bases); /* NULL is fine */

/* Both are for before the bases are shared: the container that has them, which must outlive them, and the finder. */
void wcx_image_bases_set(struct wcx_image_bases *bases, const struct wcx_container *container);
void wcx_image_bases_use_finder(struct wcx_image_bases *bases, const struct wcx_base_finder *finder);

/*
 * wcx_image_bases_get - get the image of a base, by number from 1
 *
 * The caller puts *ret.  A base that could not be found is looked for again, at most once in WCX_BASE_RETRY_MS; until then
 * the result is that of the last search.
 */
int wcx_image_bases_get(struct wcx_image_bases *bases, uint32_t number, struct wcx_image **ret, struct wcx_error *err);

/* wcx_image_bases_peek - the image of a base if it has been found, which the caller puts; else NULL */
struct wcx_image *wcx_image_bases_peek(struct wcx_image_bases *bases, uint32_t number);

/*
 * wcx_image_bases_read - read original bytes of a base
 *
 * If the base that was found cannot be read, another one is looked for, as seldom as after a search that failed: somebody
 * may have replaced a damaged file.  Returns 0, or -errno with a message that names the base.
 */
int wcx_image_bases_read(struct wcx_image_bases *bases, uint32_t number, uint8_t *dst, size_t bytes, uint64_t offset,
			 struct wcx_error *err);

/* wcx_tile_needs_base - whether a tile of a segment is decoded from bytes of a base */
static inline bool wcx_tile_needs_base(const struct wcx_segment *segment, const struct wcx_tile_info *tile)
{
	return segment->recipe.difference != WCX_DIFFERENCE_NONE &&
	       (tile->mode == WCX_TILE_CODED || tile->mode == WCX_TILE_CONSTANT);
}

/* wcx_tile_base_offset - where in the original of the base the bytes of such a tile are, which is contiguous */
static inline uint64_t wcx_tile_base_offset(const struct wcx_segment *segment, const struct wcx_tile_info *tile)
{
	return segment->base_offset + (wcx_tile_row_offset(segment, tile, 0) - segment->offset);
}

/* A tile of a base that holds all that a tile of a dependent needs of it. */
struct wcx_base_tile {
	const struct wcx_segment *segment;
	struct wcx_tile_info info;
	size_t offset; /* in it, of the bytes that are needed */
};

/*
 * wcx_tile_find_base - find the tile of a base that a GPU can decode for a tile that needs the base
 *
 * Returns whether there is one: coded, contiguous, and with all bytes that are needed, at an offset that suits words of the
 * elements.  wcx pack makes tiles so that there mostly is.
 */
bool wcx_tile_find_base(const struct wcx_container *base, const struct wcx_segment *segment,
			const struct wcx_tile_info *tile, struct wcx_base_tile *ret);

#endif
