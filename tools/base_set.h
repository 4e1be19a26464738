/* SPDX-License-Identifier: MIT */
/* Packed files that others are packed against: opened, and locked against removal. */
#ifndef WCX_BASE_SET_H
#define WCX_BASE_SET_H

#include <sys/stat.h>

#include "fs/pack/pack_base.h"
#include "tools/command.h"

/* Zeroed at first. */
struct wcx_base_set {
	struct wcx_base_file {
		struct wcx_image *image;
		struct wcx_safetensors *st;
		char *path; /* absolute, without links */
		struct stat stat;
	} * files;
	size_t count, capacity;
};

/*
 * wcx_base_set_add - open a packed file as a base
 *
 * Uses the cache and the decoder of the command.  The file has a shared lock (flock) until the set is freed, so that it is
 * not removed before an output that refers to it is there.  Returns 0; -EBUSY if it is being removed; -EINVAL if it refers
 * to a base itself; or another -errno.
 */
int wcx_base_set_add(struct wcx_base_set *set, const struct command *command, const char *path, struct wcx_error *err);

void wcx_base_set_drop_last(struct wcx_base_set *set);

/*
 * wcx_base_set_add_path - add a packed file, or all packed files of a tree that refer to no base
 *
 * Returns 0, -ENOENT if a tree has none, or another -errno.
 */
int wcx_base_set_add_path(struct wcx_base_set *set, const struct command *command, const char *path, struct wcx_error *err);

/*
 * wcx_base_file_suits - whether a mount will read a base for all who may read a dependent of that owner, group and mode
 *
 * Directories are not looked at: those of an output get their modes when a run ends.
 */
bool wcx_base_file_suits(const struct wcx_base_file *file, const struct stat *dependent);

/* wcx_base_set_holds - whether a file is one of the set */
bool wcx_base_set_holds(const struct wcx_base_set *set, const struct stat *st);

/*
 * wcx_base_set_list - the bases for an output in a directory, whose absolute path this is; NULL: unknown, without hints
 *
 * Returns set->count bases, which the set must outlive; the caller frees them with wcx_base_list_free.  NULL: no memory.
 */
struct wcx_pack_base *wcx_base_set_list(const struct wcx_base_set *set, const char *directory);
void wcx_base_list_free(struct wcx_pack_base *list, size_t count); /* NULL is fine */

void wcx_base_set_free(struct wcx_base_set *set); /* but not the struct itself */

#endif
