/* SPDX-License-Identifier: MIT */
/*
 * An image is an open .wcx file, read as the safetensors file that it holds, through a tile cache and a decoder that it
 * shares with other images.  Safe from any number of threads.
 */
#ifndef WCX_IMAGE_H
#define WCX_IMAGE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "fs/base/error.h"
#include "fs/format/container.h"
#include "fs/format/safetensors.h"
#include "fs/read/decoder.h"
#include "fs/read/tile_cache.h"

struct wcx_image;

/*
 * wcx_image_open - open a .wcx file
 *
 * path is only for messages.  On success the image owns fd; cache and decoder must outlive it.  The image starts with one
 * reference.  Errors are those of wcx_container_open.
 */
int wcx_image_open(int fd, const char *path, struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
		   struct wcx_image **ret, struct wcx_error *err);
struct wcx_image *wcx_image_get(struct wcx_image *image); /* one more reference; returns image */
void wcx_image_put(struct wcx_image *image);              /* one less; the last one closes.  NULL is fine */

const struct wcx_container *wcx_image_container(const struct wcx_image *image);
uint64_t wcx_image_bytes(const struct wcx_image *image); /* size of the original file */

/*
 * wcx_image_read - read bytes of the original file
 *
 * Like pread: returns the bytes read, fewer only at the end of the file, or -EBADMSG when a tile in the range is
 * damaged (err names it), -ENOMEM, or the errno of a failed read of the packed file.  After an error dst is undefined.
 */
ssize_t wcx_image_read(struct wcx_image *image, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err);

/* Bytes of the original file where they are in the cache, which keeps them as long as the view is open. */
enum { WCX_VIEW_SEGMENTS_MAX = WCX_BATCH_TILES };
struct wcx_image_view {
	struct iovec segments[WCX_VIEW_SEGMENTS_MAX]; /* one behind the other */
	size_t count;                                 /* of segments */
	size_t bytes;                                 /* of all together */
	struct wcx_cache_item tiles[WCX_VIEW_SEGMENTS_MAX];
};

/*
 * wcx_image_view_open - have a range decoded, and see it without a copy
 *
 * Shows at least one byte, but maybe not all: as much as one batch of tiles has.  Returns 0; -E2BIG when the range is in
 * tiles of another form than runs of whole rows, which wcx_image_read serves; or an error as wcx_image_read gives it, also
 * when a tile is damaged that is not the first: then the bytes before are shown to nobody.  The range must lie in the file.
 */
int wcx_image_view_open(struct wcx_image *image, uint64_t offset, size_t bytes, struct wcx_image_view *view,
			struct wcx_error *err);

/* wcx_image_view_close - let go of the tiles; passed: nobody will want the inner ones soon, so they leave the cache */
void wcx_image_view_close(struct wcx_image *image, struct wcx_image_view *view, int passed);

/*
 * wcx_image_advise - tell the kernel what becomes of the packed bytes of a range of the original
 *
 * POSIX_FADV_WILLNEED, unless it has the first of them, or POSIX_FADV_DONTNEED.
 */
void wcx_image_advise(struct wcx_image *image, uint64_t offset, uint64_t bytes, int advice);

/*
 * wcx_image_fail_tile - say what is wrong with a tile of a segment, of which bytes from an offset on were wanted
 *
 * A tile may hold several tensors: the one that is named is the first of which bytes were wanted.  errnum is negative;
 * returns it.
 */
int wcx_image_fail_tile(struct wcx_image *image, const struct wcx_segment *segment, const struct wcx_tile_info *tile,
			uint64_t start, int errnum, struct wcx_error *err);

/*
 * wcx_image_check_tile - read and decode one tile past the cache, as one of the first segment that has it
 *
 * Returns 0 or the error as wcx_image_read gives it.
 */
int wcx_image_check_tile(struct wcx_image *image, uint64_t tile_index, struct wcx_error *err);

/*
 * wcx_image_header - read and parse the safetensors header
 *
 * Checks that each tensor with data lies within one of the container's segments other than the first.  Returns 0 with *ret,
 * which the caller frees with wcx_safetensors_free; -EBADMSG, -EINVAL or another error otherwise.
 */
int wcx_image_header(struct wcx_image *image, struct wcx_safetensors **ret, struct wcx_error *err);

/* wcx_image_tensor_at - the tensor that a byte of the file belongs to; offset must be inside the data */
const struct wcx_tensor *wcx_image_tensor_at(const struct wcx_safetensors *st, uint64_t offset);

#endif
