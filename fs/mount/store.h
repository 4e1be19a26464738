/* SPDX-License-Identifier: MIT */
/*
 * A store is a directory of files, some of them packed, shown as the originals.
 *
 *   a regular file NAME.wcx                                 is shown as NAME, with the original's bytes
 *   a symlink NAME.wcx to a relative target ending in .wcx  is shown as a symlink NAME to the target without .wcx
 *   everything else                                         is shown as it is
 *
 * A NAME that stands in the directory itself hides NAME.wcx.  Links are told by their text alone: links between packed
 * files, as in a Hugging Face cache, become links between the originals, wherever they lead.
 *
 * Paths are relative to the store, without a slash in front, "" being the store itself; they are paths as shown, not as
 * stored.  No function leaves the store or follows a symlink.  Everything is safe from any number of threads, and no lock
 * is held during I/O.  Functions return 0 or -errno; err gets text only where the errno alone does not explain the failure
 * (a damaged file is -EIO), and is the empty string otherwise.
 */
#ifndef WCX_STORE_H
#define WCX_STORE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "fs/base/error.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"
#include "fs/read/tile_cache.h"

struct wcx_store;
struct wcx_store_file;

/* One state of a stored file: one that was replaced or written to has another.  A directory's has no mtime and size. */
struct wcx_file_id {
	dev_t dev;
	ino_t ino;
	struct timespec mtime;
	off_t size;
};

struct wcx_store_entry {
	struct stat attr; /* as shown: the original's size, no write permission */
	struct wcx_file_id id;
	int packed; /* nonzero: stored as NAME.wcx */
};

struct wcx_dir_item {
	char *name;
	ino_t ino;
	mode_t type; /* the S_IFMT bits; 0 when the file system does not tell */
};

struct wcx_dir_list {
	struct wcx_dir_item *items;
	size_t count;
};

/*
 * wcx_store_create - open a store
 *
 * dir stays open for the store's life, so a mount over it changes nothing.  cache and decoder must outlive the store.
 * Returns 0, -ENOENT, -ENOTDIR, -EACCES, -ENOSYS (a kernel before 5.6) and the like, always with err.
 */
int wcx_store_create(const char *dir, struct wcx_tile_cache *cache, struct wcx_decoder *decoder, struct wcx_store **ret,
		     struct wcx_error *err);
void wcx_store_free(struct wcx_store *store); /* NULL is fine; files still open are lost */

/*
 * wcx_store_lookup - what is shown under a path
 *
 * Reads a packed file's superblock.  Returns 0, -ENOENT, -EIO for a damaged superblock, or another -errno.
 */
int wcx_store_lookup(struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err);

/* wcx_file_id_compare - order file states: 0 for the same state */
int wcx_file_id_compare(const struct wcx_file_id *a, const struct wcx_file_id *b);

/*
 * wcx_store_readlink - the target of a symlink, as shown, ended by a zero byte
 *
 * entry is what a look-up of path gave.  Returns 0, -ESTALE when another file is there by now, -ENAMETOOLONG, or another
 * -errno.
 */
int wcx_store_readlink(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, char *dst,
		       size_t dst_bytes);

/*
 * wcx_store_list - everything in a directory, "." and ".." included, ordered by stored name
 *
 * entry is what a look-up of path gave.  The caller frees *ret.  Returns 0, -ESTALE when another directory is there by now,
 * or another -errno.
 */
int wcx_store_list(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		   struct wcx_dir_list **ret);
void wcx_dir_list_free(struct wcx_dir_list *list); /* NULL is fine */

/*
 * wcx_store_open - open a regular file
 *
 * entry is what a look-up of path gave.  A packed file's index is checked in full.  Opens of one file share an image, and
 * the last few images that were closed stay open, because loaders open a file again for each tensor.
 * Returns 0, -ESTALE when another file is there by now or none, -EIO for a damaged index, -ENXIO for no regular file,
 * or another -errno.  The caller closes *ret.
 */
int wcx_store_open(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		   struct wcx_store_file **ret, struct wcx_error *err);
void wcx_store_close(struct wcx_store *store, struct wcx_store_file *file);

/* wcx_store_file_fd - a descriptor with the bytes of a file that is not packed; -1 for a packed one.  The file keeps it. */
int wcx_store_file_fd(const struct wcx_store_file *file);

/* wcx_store_file_image - the image of a packed file, NULL for one that is not; the file keeps it */
struct wcx_image *wcx_store_file_image(const struct wcx_store_file *file);

/* wcx_store_file_read - read a packed file, as wcx_image_read does, but with -EIO for a damaged tile */
ssize_t wcx_store_file_read(struct wcx_store_file *file, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err);

int wcx_store_statvfs(struct wcx_store *store, struct statvfs *ret);

#endif
