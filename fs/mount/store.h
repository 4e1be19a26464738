/* SPDX-License-Identifier: MIT */
/*
 * A store is a directory tree with packed files in it, shown as the originals:
 *
 *   a regular file NAME.wcx                                 is shown as NAME, with the original's bytes
 *   a symlink NAME.wcx to a relative target ending in .wcx  is shown as a symlink NAME to the target without .wcx
 *   everything else                                         is shown unchanged
 *
 * If a directory has both NAME and NAME.wcx, it shows NAME.  The text of a symlink alone decides how it is shown: links
 * between packed files, as in a Hugging Face cache, become links between the originals, wherever they lead.
 *
 * Paths are paths as shown, relative to the store, without a leading slash; "" is the store itself.  No function leaves
 * the store or follows a symlink.  All functions are safe from any number of threads, and hold no lock during I/O.
 * They return 0 or -errno.  err gets a message only if the errno alone does not explain the failure (-EIO for a damaged
 * file), and is the empty string otherwise.
 */
#ifndef WCX_STORE_H
#define WCX_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "fs/base/error.h"
#include "fs/mount/file_id.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"
#include "fs/read/tile_cache.h"

struct wcx_store;
struct wcx_store_file;

struct wcx_store_entry {
	struct stat attr; /* as shown: the original's size, no write permission */
	struct wcx_file_id id;
	bool packed; /* stored as NAME.wcx */
};

struct wcx_dir_item {
	char *name;
	ino_t ino;
	mode_t type; /* the S_IFMT bits; 0 if the file system does not tell */
};

struct wcx_dir_list {
	struct wcx_dir_item *items;
	size_t count;
};

/*
 * wcx_store_create - open a store
 *
 * The store keeps dir open, so a mount over dir does not affect it.  cache and decoder must outlive the store.  Returns 0,
 * -ENOENT, -ENOTDIR, -EACCES, -ENOSYS (kernel older than 5.6) or another -errno, always with a message in err.
 */
int wcx_store_create(const char *dir, struct wcx_tile_cache *cache, struct wcx_decoder *decoder, struct wcx_store **ret,
		     struct wcx_error *err);
void wcx_store_free(struct wcx_store *store); /* NULL is fine; close all files first */

/*
 * wcx_store_lookup - find what is shown at a path
 *
 * Reads the superblock of a packed file.  Returns 0, -ENOENT, -EIO for a damaged superblock, or another -errno.
 */
int wcx_store_lookup(struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err);

/*
 * wcx_store_readlink - get the target of a symlink as shown, as a string
 *
 * entry comes from a lookup of path.  Returns 0, -ESTALE if path now holds another file, -ENAMETOOLONG, or another -errno.
 */
int wcx_store_readlink(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, char *dst,
		       size_t dst_bytes);

/*
 * wcx_store_list - list a directory, with "." and "..", sorted by stored name
 *
 * entry comes from a lookup of path.  The caller frees *ret.  Returns 0, -ESTALE if path now holds another directory or
 * none, or another -errno.
 */
int wcx_store_list(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		   struct wcx_dir_list **ret);
void wcx_dir_list_free(struct wcx_dir_list *list); /* NULL is fine */

/*
 * wcx_store_open - open a regular file
 *
 * entry comes from a lookup of path.  Checks the whole index of a packed file.  Opens of one packed file share an image
 * (image_pool.h).  The caller closes *ret.  Returns 0, -ESTALE if path now holds another file or none, -EIO for a damaged
 * index, -ENXIO if entry is not a regular file, or another -errno.
 */
int wcx_store_open(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		   struct wcx_store_file **ret, struct wcx_error *err);
void wcx_store_close(struct wcx_store *store, struct wcx_store_file *file);

/* wcx_store_file_fd - the descriptor of a file that is not packed, owned by the file; -1 for a packed file */
int wcx_store_file_fd(const struct wcx_store_file *file);

/* wcx_store_file_image - the image of a packed file, owned by the file; NULL for any other */
struct wcx_image *wcx_store_file_image(const struct wcx_store_file *file);

/* wcx_store_file_read - read a packed file like wcx_image_read, but return -EIO for a damaged tile */
ssize_t wcx_store_file_read(struct wcx_store_file *file, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err);

int wcx_store_statvfs(struct wcx_store *store, struct statvfs *ret);

#endif
