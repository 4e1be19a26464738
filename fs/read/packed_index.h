/* SPDX-License-Identifier: MIT */
/*
 * The packed files of a directory tree that may be bases, by the SHA-256 of their originals.
 *
 * A scan reads the superblocks of all files that are named *.wcx, without following a link.  It happens when something is
 * looked for that the last scan has not found, at most every few seconds.  All functions are thread-safe; the index's lock
 * is not held while files are read.
 */
#ifndef WCX_PACKED_INDEX_H
#define WCX_PACKED_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct wcx_packed_index;

/* How the files of a tree are opened. */
struct wcx_tree_access {
	/*
	 * Opens a path relative to the tree, "." for the tree itself: a directory for listing (O_DIRECTORY), a file for
	 * reading (O_NONBLOCK), or either just to look at it (O_PATH).  A link as the last component is not followed.
	 * Returns a descriptor, with its attributes, or -errno.
	 */
	int (*open)(void *user, const char *path, int flags, struct stat *st_ret);
	/* Calls a function for each path that an index is to have, as wcx_packed_paths does.  NULL: all below the tree. */
	int (*paths)(void *user, const atomic_bool *stop, int (*visit)(void *visitor, const char *path), void *visitor);
	void *user;
};

/* wcx_open_below - the open function for a tree by its descriptor, which user points to; no link is followed */
int wcx_open_below(void *directory_fd, const char *path, int flags, struct stat *st_ret);

enum { WCX_INDEX_REFRESH_MS = 3000 };

/*
 * wcx_packed_index_create - make an index that has not been scanned
 *
 * stop, which may be NULL, ends a scan early once it is true.  Returns NULL when out of memory.
 */
struct wcx_packed_index *wcx_packed_index_create(const struct wcx_tree_access *access, const atomic_bool *stop);
void wcx_packed_index_free(struct wcx_packed_index *index); /* NULL is fine */

/* Looks at a file that the index has found; the path is relative to the tree.  Returns whether the search is over. */
typedef bool wcx_packed_index_fn(void *user, const char *path);

/*
 * wcx_packed_index_find - call a function for the files with an original, until it says that the search is over
 *
 * Scans if no file was good enough and the last scan is older than refresh_ms, and then goes over the files once more.
 * Returns 0, -ENOENT (none was good enough) or -ENOMEM.
 */
int wcx_packed_index_find(struct wcx_packed_index *index, const uint8_t sha256[32], uint64_t original_bytes,
			  uint64_t refresh_ms, wcx_packed_index_fn *look, void *user);

/*
 * wcx_packed_paths - call a function for each path in a tree that is named *.wcx and no directory, and another for each
 * directory that cannot be listed, which may be NULL
 *
 * Returns 0, -EINTR, -ENOMEM, or what a function returns but 0, which ends the walk.
 */
int wcx_packed_paths(const struct wcx_tree_access *access, const atomic_bool *stop,
		     int (*visit)(void *user, const char *path), int (*skipped)(void *user, const char *path, int errnum),
		     void *user);

/* What a listing of a directory finds: paths relative to the tree.  Not 0 ends it. */
struct wcx_packed_visitor {
	int (*file)(void *user, const char *path); /* a regular file that is named *.wcx */
	int (*directory)(void *user, const char *path);
	/* What cannot be listed or has too long a path, and is passed over.  NULL: nobody is told. */
	int (*skipped)(void *user, const char *path, int errnum);
	void *user;
	/* The names that may still be looked at: those that were are subtracted, and one too many is -E2BIG.  NULL: any. */
	size_t *names_left;
};

/*
 * wcx_packed_list - list one directory, which is open and has that path in its tree; closes fd
 *
 * Returns 0, -E2BIG, or what the visitor returns but 0.
 */
int wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor);

#endif
