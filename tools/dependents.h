/* SPDX-License-Identifier: MIT */
/* Whether a packed file may be replaced or removed: not while another is packed against it. */
#ifndef WCX_DEPENDENTS_H
#define WCX_DEPENDENTS_H

#include <sys/stat.h>

#include "fs/base/error.h"
#include "tools/store_scope.h"
#include "tools/tree_run.h"

struct wcx_family;
struct wcx_superblock;

/* A packed file, by its name in an open directory. */
struct wcx_packed_name {
	int directory_fd, fd;
	const struct wcx_superblock *sb;
	struct stat st;
	bool with_tree; /* all that the command line names goes with it: dependents in that do not matter */
};

/*
 * wcx_dependents_find - whether others need a packed file
 *
 * start is where a scope begins to be looked for.  The caller has locked the file for removal.  Returns 0 with *why NULL:
 * none does; 0 with *why: a clause that names one, or says that there are some which were not found, to be freed; or -errno,
 * also if something cannot be read that the command line named.
 */
int wcx_dependents_find(const struct command *command, const char *start, const struct wcx_packed_name *file, char **why,
			struct wcx_error *err);

/*
 * wcx_dependents_unknown - what the marks of a file say of those that a scan of a scope has not found
 *
 * Returns 0 with *why NULL or a clause that the caller frees; or -ENOMEM.
 */
int wcx_dependents_unknown(const struct wcx_store_scope *scope, const struct wcx_family *family,
			   const struct wcx_packed_name *file, char **why);

/*
 * wcx_tree_guard_begin - before a whole directory is replaced: -EBUSY if a file outside of it needs one in it
 *
 * Locks its packed files until wcx_tree_guard_end, which is due in either case.
 */
struct wcx_tree_guard {
	int *fds;
	size_t count, capacity;
};
int wcx_tree_guard_begin(struct wcx_tree_guard *guard, const struct command *command, const char *path,
			 struct wcx_error *err);
void wcx_tree_guard_end(struct wcx_tree_guard *guard);

/*
 * wcx_task_guard_begin - before an output of a task is replaced: see to it that nobody loses a base
 *
 * What is there under that name in the output's directory may be anything.  If others need it, that is an error, or, with
 * --force, it gets a second name.  Locks it until wcx_task_guard_end is called, which is due in either case.
 */
struct wcx_task_guard {
	int fd;     /* of what was there; -1: nothing that others can need */
	char *kept; /* its second name; NULL: it has none */
	char *why;  /* who needs it */
	char *path; /* of the output, for messages */
	uint8_t sha256[32];
	uint64_t original_bytes;
};
int wcx_task_guard_begin(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, const char *path,
			 struct wcx_error *err);

/*
 * wcx_task_guard_end - once an output has been written (r 0) or not (r negative): unlock what was there
 *
 * A second name stays only if the output is another file than what was there, and is told of.
 */
void wcx_task_guard_end(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, int r);

/* wcx_directory_of - the directory that a path is in, or "."; the caller frees it.  NULL: no memory */
char *wcx_directory_of(const char *path);

#endif
