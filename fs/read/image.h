/* SPDX-License-Identifier: MIT */
/*
 * An image is an open .wcx file, read as the safetensors file that it holds.
 *
 * Images share a tile cache and a decoder.  All functions are thread-safe.
 */
#ifndef WCX_IMAGE_H
#define WCX_IMAGE_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "fs/base/error.h"
#include "fs/format/container.h"
#include "fs/format/safetensors.h"
#include "fs/read/decoder.h"
#include "fs/read/image_bases.h"
#include "fs/read/tile_cache.h"

struct wcx_image;

/* What was done with a file.  Any thread may count and read at any time, without a lock. */
struct wcx_image_counts {
	_Atomic uint64_t requests, requested_bytes; /* of readers, as whoever serves them counts */
	_Atomic uint64_t pushed_bytes;              /* the same */
	_Atomic uint64_t decoded_bytes;
	_Atomic uint64_t errors; /* reads that failed and were to be reported */
};

static inline void wcx_count(_Atomic uint64_t *counter, uint64_t more)
{
	atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

static inline uint64_t wcx_count_get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/*
 * wcx_image_open - open a .wcx file
 *
 * path is only for messages.  On success the image owns fd and has one reference; cache and decoder must outlive it.  On
 * failure fd stays the caller's, open.  Errors are those of wcx_container_open.
 */
int wcx_image_open(int fd, const char *path, struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
		   struct wcx_image **ret, struct wcx_error *err);

/* wcx_image_open_as - the same with a superblock that was read before: takes no more memory than that tells */
int wcx_image_open_as(int fd, const char *path, const struct wcx_superblock *superblock, struct wcx_tile_cache *cache,
		      struct wcx_decoder *decoder, struct wcx_image **ret, struct wcx_error *err);
struct wcx_image *wcx_image_get(struct wcx_image *image); /* add a reference; returns image */
void wcx_image_put(struct wcx_image *image);              /* drop a reference; the last one closes.  NULL is fine */

/*
 * wcx_image_count_into - count into counters of the caller's, which outlive the image, instead of the image's own
 *
 * To be called before the image is shared.
 */
void wcx_image_count_into(struct wcx_image *image, struct wcx_image_counts *counts);
struct wcx_image_counts *wcx_image_counts(const struct wcx_image *image); /* the counters in use */

/*
 * wcx_image_use_finder - have the image find its bases with this
 *
 * To be called before the image is shared; what finder->user is must outlive the image.  An image is opened without its
 * bases.  A read that needs a base looks for it and fails with -EIO if it cannot be found or read, with a message that names
 * it; everything else can be read.
 */
void wcx_image_use_finder(struct wcx_image *image, const struct wcx_base_finder *finder);

struct wcx_decoder *wcx_image_decoder(const struct wcx_image *image);

/* wcx_image_bases - the bases of the image, which may be none */
struct wcx_image_bases *wcx_image_bases(const struct wcx_image *image);

/*
 * wcx_image_find_bases - find all bases of the image
 *
 * Returns 0, also if there are none; or -EIO with a message that names the file and the first base that cannot be found.
 */
int wcx_image_find_bases(struct wcx_image *image, struct wcx_error *err);

/* wcx_image_is_shared - whether others have references too */
bool wcx_image_is_shared(struct wcx_image *image);

const struct wcx_container *wcx_image_container(const struct wcx_image *image);
uint64_t wcx_image_bytes(const struct wcx_image *image); /* size of the original file */

/*
 * wcx_image_read - read bytes of the original file
 *
 * Like pread: returns the number of bytes read, fewer only at the end of the file; or -EBADMSG when a tile in the range is
 * damaged (err names it), -EIO when a base that it needs is missing or damaged (err names both), -ENOMEM, or the errno of a
 * failed read of the packed file.  After an error dst is undefined.
 */
ssize_t wcx_image_read(struct wcx_image *image, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err);

/*
 * wcx_image_read_once - wcx_image_read for bytes that are not expected to be wanted again
 *
 * Takes tiles from the cache that are there, but decodes others straight to dst, past the cache, unless it needs only a
 * part.
 */
ssize_t wcx_image_read_once(struct wcx_image *image, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err);

/*
 * wcx_image_read_until - wcx_image_read, or -EINTR as soon as should_stop says so
 *
 * should_stop is asked between batches of up to 64 tiles; then there is no message in err.
 */
typedef bool wcx_should_stop_fn(void *user);
ssize_t wcx_image_read_until(struct wcx_image *image, void *dst, size_t bytes, uint64_t offset,
			     wcx_should_stop_fn *should_stop, void *user, struct wcx_error *err);

/* Bytes of the original file in the cache, where the view pins them. */
enum { WCX_VIEW_SLICES_MAX = WCX_BATCH_TILES };
struct wcx_image_view {
	struct iovec slices[WCX_VIEW_SLICES_MAX]; /* consecutive bytes, a tile each */
	size_t count;                             /* of slices */
	size_t bytes;                             /* of all slices */
	bool was_cached;                          /* all of it, before the view was opened */
	struct wcx_cache_item tiles[WCX_VIEW_SLICES_MAX];
};

/*
 * wcx_image_view_open - decode a range, and show it in the cache without a copy
 *
 * The range must not be empty, and must lie in the file.  The view starts at its first byte but may be shorter: it ends
 * where a batch of tiles does.  Returns 0; -E2BIG when tiles of the range are not contiguous, so that only wcx_image_read
 * can serve it; or an error like wcx_image_read, also when only a later tile is damaged.  On failure there is nothing to
 * close.
 */
int wcx_image_view_open(struct wcx_image *image, uint64_t offset, size_t bytes, struct wcx_image_view *view,
			struct wcx_error *err);

/* A view that is being opened: memory for one at a time, for any image.  NULL when there is no memory; free takes NULL. */
struct wcx_image_opening;
struct wcx_image_opening *wcx_image_opening_create(void);
void wcx_image_opening_free(struct wcx_image_opening *opening);

/*
 * wcx_image_view_start - start to open a view, without waiting for a GPU
 *
 * In two parts, wcx_image_view_open: wcx_image_view_finish must follow, at once if this returns false.  Else a GPU decodes,
 * and a thread of the decoder's crew calls opened once the tiles have been, maybe before this returns.  opened must wait for
 * nothing.
 */
bool wcx_image_view_start(struct wcx_image *image, uint64_t offset, size_t bytes, struct wcx_image_opening *opening,
			  wcx_decoded_fn *opened, void *user);

/* wcx_image_view_finish - wait for tiles that other threads decode, and return what wcx_image_view_open does */
int wcx_image_view_finish(struct wcx_image_opening *opening, struct wcx_image_view *view, struct wcx_error *err);

/* What becomes of a view's tiles that will not be wanted soon: they leave the cache at once. */
enum wcx_view_drop {
	WCX_VIEW_KEEP,       /* all may be wanted */
	WCX_VIEW_DROP_INNER, /* neighbours may want the first and the last */
	WCX_VIEW_DROP_READ,  /* only what follows is yet to be read: the last */
};

/* wcx_image_view_close - unpin the tiles of a view */
void wcx_image_view_close(struct wcx_image *image, struct wcx_image_view *view, enum wcx_view_drop drop);

/*
 * wcx_image_advise - call posix_fadvise for the packed bytes of a range of the original
 *
 * advice is POSIX_FADV_WILLNEED, which is skipped when the page cache has the first of these bytes, or POSIX_FADV_DONTNEED.
 * Does nothing when the range does not lie in the file, or when its packed bytes are not together.  WILLNEED also goes to
 * the bases that have been found.
 */
void wcx_image_advise(struct wcx_image *image, uint64_t offset, uint64_t bytes, int advice);

enum { WCX_NO_BASE = ENOANO }; /* the negative result of a tile whose base is missing or damaged */

/* A tile to decode. */
struct wcx_image_tile {
	const struct wcx_tile_info *info;
	const struct wcx_segment *segment;
	uint8_t *dst;          /* gets the decoded tile, rows * cols * elem_bytes bytes */
	const uint8_t *packed; /* with is_read the packed bytes, which the caller has read; else used while decoding */
	int r;                 /* set to 0, -EBADMSG, -WCX_NO_BASE or another -errno */
	const uint8_t *base;   /* used while decoding */
	bool is_read;
};

/*
 * wcx_image_decode_tiles - read, check and decode tiles, bypassing the cache
 *
 * At most WCX_BATCH_TILES tiles of at most WCX_BATCH_BYTES decoded bytes.  After an error the dst of that tile is undefined.
 * What tiles need of bases is read first, through the bases' cache, and without a batch of the decoder: so nobody who has
 * one waits for another.
 */
void wcx_image_decode_tiles(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count);

/*
 * Parts of it: wcx_image_read_tiles reads the packed bytes of tiles to a buffer, and sets r; wcx_image_decode_apart leaves
 * no differences to the GPU.
 */
void wcx_image_read_tiles(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count, uint8_t *buffer);
void wcx_image_decode_apart(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count);

/* wcx_image_copy_cached - copy a decoded tile to dst if the cache has it */
bool wcx_image_copy_cached(struct wcx_image *image, const struct wcx_tile_info *tile, uint8_t *dst);

/*
 * wcx_image_fail_tile - report a damaged or unreadable tile of a segment
 *
 * r is the -errno to report and to return, but for -WCX_NO_BASE it returns -EIO.  A tile may hold several tensors: the
 * message names the one with the first byte of the tile at or after start.
 */
int wcx_image_fail_tile(struct wcx_image *image, const struct wcx_segment *segment, const struct wcx_tile_info *tile,
			uint64_t start, int r, struct wcx_error *err);

/*
 * wcx_image_check_tile - read and decode one tile, bypassing the cache
 *
 * Returns 0 or an error like wcx_image_read, which names the first segment that has the tile.
 */
int wcx_image_check_tile(struct wcx_image *image, uint64_t tile_index, struct wcx_error *err);

/*
 * wcx_image_header - read and parse the safetensors header
 *
 * Checks that every tensor lies within one of the container's segments.  Returns 0 with *ret, which the caller frees with
 * wcx_safetensors_free; or -EBADMSG, -EINVAL or another error.
 */
int wcx_image_header(struct wcx_image *image, struct wcx_safetensors **ret, struct wcx_error *err);

/* wcx_image_tensor_at - the tensor that holds a byte of the file; offset must be inside the data */
const struct wcx_tensor *wcx_image_tensor_at(const struct wcx_safetensors *st, uint64_t offset);

#endif
