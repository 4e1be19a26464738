/* SPDX-License-Identifier: MIT */
/* The destination of a run on a tree: its root, directories and links. */
#ifndef WCX_TREE_OUTPUT_H
#define WCX_TREE_OUTPUT_H

#include <stdatomic.h>

#include "tools/tree_run.h"

/* What a run remembers of an entry of its tree. */
struct tree_mark {
	size_t leader;          /* of a file with several names: the one that is worked on; otherwise the entry itself */
	bool is_finished;       /* of a leader: it was the file that was listed, and was worked on without an error */
	atomic_bool is_touched; /* of a directory: something in it was replaced, in place; by any thread */
	enum wcx_name_change change;
};

/* wcx_tree_output_open - open the destination's root, and make it if it is missing; refuses one inside the source */
int wcx_tree_output_open(struct wcx_tree_run *run, struct wcx_error *err);

/* wcx_tree_output_tidy - remove what earlier runs left that were killed, once, and not before each of many files */
void wcx_tree_output_tidy(const struct wcx_tree_run *run);

/* wcx_tree_output_make_directories - make all directories; failures are told */
void wcx_tree_output_make_directories(struct wcx_tree_run *run);

/* wcx_tree_output_copy_links - make the symbolic links, and tell of special files; failures are told */
void wcx_tree_output_copy_links(struct wcx_tree_run *run);

/*
 * wcx_tree_output_link_names - give files with several names the further ones
 *
 * Where that is not possible, the name's mark says so by being its own leader, and it is to be worked on as a file.
 */
void wcx_tree_output_link_names(struct wcx_tree_run *run);

/* wcx_tree_output_finish - give directories the source's metadata; in place, their times back */
void wcx_tree_output_finish(struct wcx_tree_run *run);

/* wcx_tree_output_remove_empty - after a run that failed: remove what was made of the root and above it, if it is empty */
void wcx_tree_output_remove_empty(const struct wcx_tree_run *run);

/* wcx_tree_output_check_names - refuse names that are one in the destination, if case does not count there: 0 or -EEXIST */
int wcx_tree_output_check_names(struct wcx_tree_run *run, struct wcx_error *err);

/* wcx_tree_output_check_space - tell before the work when there is too little space for it: 0 or -ENOSPC */
int wcx_tree_output_check_space(struct wcx_tree_run *run, struct wcx_error *err);

#endif
