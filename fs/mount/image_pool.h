/* SPDX-License-Identifier: MIT */
/*
 * The open images of a store's packed files, one per file, shared by everyone who has the file open.
 *
 * The last few images to lose their users stay open, because loaders open a file again for each tensor.  So do bases that
 * other images have, for as long as these are open: whoever opens a base then shares its image.  All functions are
 * safe from any number of threads.  The pool's lock is never held during I/O; who wants a file that another thread is
 * opening waits for that thread.
 */
#ifndef WCX_IMAGE_POOL_H
#define WCX_IMAGE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "fs/base/error.h"
#include "fs/mount/closer.h"
#include "fs/mount/file_counts.h"
#include "fs/mount/file_id.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"
#include "fs/read/tile_cache.h"

struct wcx_image_pool;

struct wcx_pooled_image {
	struct wcx_file_id id;   /* first: the key in the pool's tree */
	struct wcx_image *image; /* NULL while a thread opens it, which only the pool sees */
	uint64_t index_bytes;    /* memory of its index */
	/* The pool's: */
	size_t user_count;
	uint64_t idle_since_ms;
	bool is_unwanted;
	TAILQ_ENTRY(wcx_pooled_image) link; /* of the idle ones */
	struct wcx_closing closing;
};

/*
 * The indexes of all open images together.  A model of 1 TiB of INT8 weights needs 600 MB; a file made to cost memory, 120
 * MB for 40 MB on disk.
 */
#define WCX_INDEX_BUDGET_BYTES (UINT64_C(1) << 30)

/*
 * wcx_image_pool_create - make an empty pool; cache, decoder, counts and closer must outlive it
 *
 * closer closes what makes space, or is not used any more.  The indexes of its images take at most budget_bytes, unless a
 * single one takes more.  Returns NULL when out of memory.
 */
struct wcx_image_pool *wcx_image_pool_create(struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
					     struct wcx_file_counts *counts, struct wcx_closer *closer,
					     uint64_t budget_bytes);
/* wcx_image_pool_use_finder - have all images find their bases with this; to be called before the first is opened */
void wcx_image_pool_use_finder(struct wcx_image_pool *pool, const struct wcx_base_finder *finder);
void wcx_image_pool_free(struct wcx_image_pool *pool); /* NULL is fine; images still in use are freed too, at once */

/*
 * wcx_image_pool_open - get the image of a packed file, opening it if the pool does not have it
 *
 * fd is a descriptor of the file, which the pool closes in every case; id and superblock are the file's.  path is only for
 * messages.  The caller releases *ret.  Returns 0, -ENOMEM without err, -ENFILE if the images in use leave no space for the
 * index, or an error of wcx_image_open: -EBADMSG if the file was rewritten since its superblock was read.
 */
int wcx_image_pool_open(struct wcx_image_pool *pool, int fd, const char *path, const struct wcx_file_id *id,
			const struct wcx_superblock *superblock, struct wcx_pooled_image **ret, struct wcx_error *err);
void wcx_image_pool_release(struct wcx_image_pool *pool, struct wcx_pooled_image *image);

/* wcx_image_pool_release_unused - close idle images whose files are deleted, or that nobody used for a minute */
void wcx_image_pool_release_unused(struct wcx_image_pool *pool);

#endif
