/* SPDX-License-Identifier: MIT */
/*
 * A directory that appears under its name only when all that is in it is complete.
 *
 * Until then it stands beside its name, called .wcx-tmp- and 16 letters and digits, locked by its process.  One that nobody
 * has locked was left by a process that was killed: the next tree made in the same directory removes it.
 */
#ifndef WCX_OUTPUT_TREE_H
#define WCX_OUTPUT_TREE_H

#include <stdbool.h>

#include "fs/base/error.h"

struct wcx_output_tree {
	const char *path;
	char *temporary; /* where files are made now */
	int fd;          /* of that directory, with the lock */
	bool replace;
};

/*
 * wcx_output_tree_create - begin a directory; path stays the caller's
 *
 * The parent must exist.  path must not, or be an empty directory, or with replace a directory that holds a file called
 * `mark`, so that no other directory is lost by mistake.  Returns 0, after which the tree is to be committed or discarded,
 * or -errno: -EEXIST, -ENOENT and others.
 */
int wcx_output_tree_create(struct wcx_output_tree *tree, const char *path, bool replace, const char *mark,
			   struct wcx_error *err);

/*
 * wcx_output_tree_commit - give the directory its name, and owner, permissions and ACL of what has it, or else of
 * source_path
 *
 * What is replaced is exchanged in one step where the file system can, and removed once that is on the disk.  Directories in
 * the new one are the caller's to sync.  Returns 0, or -errno, after which the tree is still to be discarded.
 */
int wcx_output_tree_commit(struct wcx_output_tree *tree, const char *source_path, struct wcx_error *err);

/* wcx_output_tree_discard - remove all that was made */
void wcx_output_tree_discard(struct wcx_output_tree *tree);

#endif
