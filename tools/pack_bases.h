/* SPDX-License-Identifier: MIT */
/* What the files of a run of wcx pack are packed against. */
#ifndef WCX_PACK_BASES_H
#define WCX_PACK_BASES_H

#include "tools/base_set.h"
#include "tools/tree_run.h"

/* wcx_pack_bases_begin, wcx_pack_bases_end - open what was given, or look for what may be found; struct wcx_tree_ops */
int wcx_pack_bases_begin(struct wcx_tree_run *run, struct wcx_error *err);
void wcx_pack_bases_end(struct wcx_tree_run *run);

/* The bases of a file, for wcx_pack; locked against removal until they are freed. */
struct wcx_task_bases {
	const struct wcx_file_task *task;
	struct wcx_pack_base *list;
	size_t count;
	const struct wcx_base_set *set; /* of which these are */
	struct wcx_base_set found;      /* those that are this file's alone */
};

/*
 * wcx_task_bases_find - the bases of a file that is about to be packed
 *
 * replaced is what is there under the output's name, or NULL: a file that is replaced cannot be a base.  Returns 0, or
 * -errno with a message; *ret is to be freed in either case.
 */
int wcx_task_bases_find(struct wcx_task_bases *ret, struct wcx_file_task *task, const struct stat *replaced,
			struct wcx_error *err);
void wcx_task_bases_free(struct wcx_task_bases *bases);

/* wcx_task_bases_mark - note on a base, by its place in the list, that the output needs it; the bases are user */
void wcx_task_bases_mark(void *user, size_t base);

/* wcx_task_check_gain - warn if a file, which has been packed against what was named, has next to nothing from that */
void wcx_task_check_gain(struct wcx_file_task *task);

/* wcx_task_check_given - -EINVAL if what a file would replace was named as its base */
int wcx_task_check_given(const struct wcx_file_task *task, const struct stat *replaced, struct wcx_error *err);

/* wcx_task_bases_note - note a file that has been packed, for the files of the run that follow it */
void wcx_task_bases_note(struct wcx_file_task *task, const char *output_path);

#endif
