/* SPDX-License-Identifier: MIT */
/*
 * A store: a directory tree with packed files in it, shown as the originals (shown_names.h has the rules for names and
 * links).
 *
 * If a directory has both NAME and NAME.wcx, it shows NAME.  Unfinished outputs (wcx_is_temporary_name) are not shown.
 *
 * Paths are paths as shown, relative to the store, without a leading slash; "" is the store itself.  No function leaves
 * the store, follows a symlink on the way or enters the mount that shows it.  All functions are safe from any number of
 * threads, and hold no lock during I/O.  They return 0 or -errno.  err gets a message only if the errno alone does not
 * explain the failure (-EIO for a damaged file), and is the empty string otherwise.
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

/*
 * attr is as shown: the original's size, the packed file's blocks, no write permission, an inode number of the mount's own
 * (inode_numbers.h), and one link where hard links of the file may be shown with other bytes.
 */
struct wcx_store_entry {
	struct stat attr;
	struct wcx_file_id id;
	bool packed; /* stored as NAME.wcx */
};

struct wcx_dir_item {
	uint32_t name_offset; /* in the names of the list */
	mode_t type;          /* the S_IFMT bits; 0 if the file system does not tell */
	uint64_t ino;
};

/* A directory as it was at one time.  Shared by those who read it, and immutable. */
struct wcx_dir_list {
	struct wcx_dir_item *items;
	char *names;
	size_t count, capacity, name_bytes, name_capacity;
	struct stat dir;    /* the directory before it was read */
	uint64_t version;   /* in its id */
	struct timespec at; /* when that was, by the clock of files' times */
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

/* wcx_store_is_passable - whether everybody may go through all directories of a path */
bool wcx_store_is_passable(const struct wcx_store *store, const char *path);

/* wcx_store_set_own_device - tell the device of the mount that shows the store, which is not entered from now on */
void wcx_store_set_own_device(struct wcx_store *store, dev_t device);

/* wcx_store_readlink - get the target of a symlink as shown; 0, -ESTALE if it is not this link, or another -errno */
int wcx_store_readlink(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, char *dst,
		       size_t dst_bytes);

/*
 * wcx_store_get_acl - read a POSIX ACL of what is stored for a path, without permission to write
 *
 * name is system.posix_acl_access or system.posix_acl_default.  Returns the bytes of the value, which is copied to dst
 * unless dst_bytes is 0; -ENODATA if there is none, -ESTALE if what entry tells of is gone, -ERANGE, or another -errno.
 */
ssize_t wcx_store_get_acl(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, const char *name,
			  void *dst, size_t dst_bytes);

/* What the superblock of a packed file tells, and what was read of the file; counts is NULL if it was never opened. */
struct wcx_store_packed {
	uint64_t packed_bytes, original_bytes;
	uint8_t sha256[WCX_SHA256_BYTES];
	const struct wcx_image_counts *counts;
};

/*
 * wcx_store_packed_get - read the superblock of the packed file that is shown at a path
 *
 * Returns 0, -ESTALE if it is not the file with this id, or an error of a lookup.
 */
int wcx_store_packed_get(struct wcx_store *store, const char *path, const struct wcx_file_id *id,
			 struct wcx_store_packed *ret);

/*
 * wcx_store_list - list a directory, with "." and "..", sorted by stored name
 *
 * The caller frees *ret.  Returns 0, or -errno.
 */
int wcx_store_list(struct wcx_store *store, const char *path, struct wcx_dir_list **ret);
void wcx_dir_list_free(struct wcx_dir_list *list); /* NULL is fine */

/* wcx_dir_list_is_of - whether a list is of this directory, as it was at some time */
bool wcx_dir_list_is_of(const struct wcx_dir_list *list, const struct wcx_store_entry *dir);

/* wcx_dir_list_is_current - whether it is, and the directory cannot have changed since it was listed */
bool wcx_dir_list_is_current(const struct wcx_dir_list *list, const struct wcx_store_entry *dir);

/*
 * wcx_store_open - open the regular file that is shown at a path
 *
 * *entry_ret tells what was opened, as a lookup does.  Checks the whole index of a packed file.  Opens of one packed file
 * share an image (image_pool.h).  The caller closes *ret.  Returns 0, -ENOENT, -EIO for a damaged index, -ENXIO if it is not
 * a regular file, -EAGAIN if it keeps changing, or another -errno.
 */
int wcx_store_open(struct wcx_store *store, const char *path, struct wcx_store_entry *entry_ret, struct wcx_store_file **ret,
		   struct wcx_error *err);

/* wcx_store_close, wcx_store_close_later - close a file; NULL is fine.  The first may wait for the store, the other does
 * not. */
void wcx_store_close(struct wcx_store *store, struct wcx_store_file *file);
void wcx_store_close_later(struct wcx_store *store, struct wcx_store_file *file);

/* wcx_store_release_unused - close packed files that nobody has open and that are deleted, or were not used for a while */
void wcx_store_release_unused(struct wcx_store *store);

/* wcx_store_file_fd - the descriptor of a file that is not packed, owned by the file; -1 for a packed file */
int wcx_store_file_fd(const struct wcx_store_file *file);

/* wcx_store_file_image - the image of a packed file, owned by the file; NULL for any other */
struct wcx_image *wcx_store_file_image(const struct wcx_store_file *file);

/* wcx_store_file_stat - tell of an open file what a lookup would, whatever name it has by now; 0 or -errno */
int wcx_store_file_stat(const struct wcx_store_file *file, struct wcx_store_entry *ret);

/* wcx_store_file_get_acl - read an ACL of an open file, as wcx_store_get_acl does */
ssize_t wcx_store_file_get_acl(const struct wcx_store_file *file, const char *name, void *dst, size_t dst_bytes);

/* wcx_store_file_read - read like wcx_image_read_until; -EIO for a damaged tile, and when the file system below died */
ssize_t wcx_store_file_read(struct wcx_store_file *file, void *dst, size_t bytes, uint64_t offset,
			    wcx_should_stop_fn *should_stop, void *user, struct wcx_error *err);

/* Reads of files that are not packed. */
struct wcx_store_stats {
	uint64_t requests, bytes;
};

void wcx_store_get_stats(const struct wcx_store *store, struct wcx_store_stats *ret);

/* wcx_store_statvfs - what statvfs(3) tells of the file system that the store's directory is on */
int wcx_store_statvfs(struct wcx_store *store, struct statvfs *ret);

#endif
