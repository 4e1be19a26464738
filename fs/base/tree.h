/* SPDX-License-Identifier: MIT */
/*
 * The entries of a directory tree, listed without following a link, and opened the same way.
 *
 * Every directory on the way to an entry is opened by itself, from the root's descriptor on, and never through a link.  So
 * nobody who exchanges a directory for a link leads a reader or a writer out of the tree, and paths may be longer than
 * PATH_MAX.
 */
#ifndef WCX_TREE_H
#define WCX_TREE_H

#include <stdatomic.h>
#include <stddef.h>
#include <sys/stat.h>

#include "fs/base/error.h"

enum { WCX_TREE_MAX_DEPTH = 512 }; /* directories in each other; below, nothing is listed */

struct wcx_tree_entry {
	char *name;       /* in its directory; the root's is empty */
	size_t directory; /* the entry that holds it, which is listed before it; the root's own number is 0 */
	unsigned depth;   /* of the root: 0 */
	struct stat st;   /* of the entry itself, also for a link, when it was listed */
};

/* The root comes first, and each directory before its entries; entries of a directory are sorted by the bytes of their
 * names. */
struct wcx_tree {
	int root_fd;
	char *root_path; /* for messages */
	struct wcx_tree_entry *entries;
	size_t count, capacity;
};

/* Told of what cannot be listed; the rest is. */
typedef void wcx_tree_problem_fn(void *user, const struct wcx_error *why);

/*
 * wcx_tree_list - list the tree below a directory
 *
 * path may be a link to a directory.  Unfinished outputs (wcx_is_temporary_name) are left out.  Takes some 250 bytes of
 * memory an entry.  Once *stop is true, which may be NULL, ends with -EINTR.  Returns 0 or -errno; *tree is to be freed in
 * either case.
 */
int wcx_tree_list(struct wcx_tree *tree, const char *path, wcx_tree_problem_fn *problem, void *user, const atomic_bool *stop,
		  struct wcx_error *err);
void wcx_tree_free(struct wcx_tree *tree);

/*
 * wcx_tree_open_directory - open directory `entry` below root_fd: this tree's root, or that of a tree with the same names
 *
 * Returns a descriptor or -errno.
 */
int wcx_tree_open_directory(const struct wcx_tree *tree, size_t entry, int root_fd);

/*
 * wcx_open_without_links - open a path below a directory, with the flags of open(2), if no name in it is a link
 *
 * Returns a descriptor or -errno: -ELOOP for a link, in some cases -ENOTDIR.
 */
int wcx_open_without_links(int directory_fd, const char *path, int flags);

/*
 * wcx_tree_path - the path that an entry has below a root, for messages: end is what follows its name, such as ".wcx"
 *
 * Returns a string that the caller frees, or NULL when there is no memory.
 */
char *wcx_tree_path(const struct wcx_tree *tree, size_t entry, const char *root_path, const char *end);

#endif
