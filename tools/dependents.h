/* SPDX-License-Identifier: MIT */
/* Whether a packed file may be replaced or removed: not while another is packed against it. */
#ifndef WCX_DEPENDENTS_H
#define WCX_DEPENDENTS_H

#include <sys/stat.h>

#include "fs/base/error.h"
#include "tools/family.h"

/* What a command knows of the stores where it looks for dependents, so that it walks through each once.  Thread-safe. */
struct wcx_dependents;

/* wcx_dependents_create - store is where to look, or NULL: only where files are, and around that.  NULL: no memory */
struct wcx_dependents *wcx_dependents_create(const char *store);
void wcx_dependents_free(struct wcx_dependents *dependents); /* NULL is fine */

/*
 * wcx_dependents_open - wcx_base_open_for_removal, for a file that may have other names which the command replaces or
 * removes
 *
 * What it has locked itself is not in its way.  wcx_dependents_close closes it; with -1 it does nothing.
 */
int wcx_dependents_open(struct wcx_dependents *dependents, int directory_fd, const char *name, struct stat *st_ret);
void wcx_dependents_close(struct wcx_dependents *dependents, int fd);

/*
 * wcx_dependents_lock_ahead - lock a packed file that others may be packed against, if nobody uses it and there are locks
 *
 * It stays locked until wcx_dependents_open opens it, which takes the lock over, and what that returns is closed; or until
 * wcx_dependents_unlock_ahead.  wcx_dependents_find looks for what needs a file anew only if it was locked after it looked
 * last.
 */
void wcx_dependents_lock_ahead(struct wcx_dependents *dependents, int directory_fd, const char *name);
void wcx_dependents_unlock_ahead(struct wcx_dependents *dependents);

/*
 * wcx_dependents_find - whether others need a packed file
 *
 * start is the directory that the command line names.  The search begins there, and in a store that was given, which is
 * enough for a file in that, unless its marks tell of more.  The caller has locked the file for removal,
 * with wcx_dependents_open, so that what is packed against it has its name already, and is seen.  Returns 0 with *why NULL:
 * none does; 0 with *why: a clause that names one, or says that there may be some which were not found, to be freed; or
 * -errno, also if something in the store cannot be read.
 */
int wcx_dependents_find(struct wcx_dependents *dependents, const char *start, const struct wcx_packed_name *file, char **why,
			struct wcx_error *err);

/*
 * wcx_dependents_read - the files of the store that was given, or else of such a place, as they are now
 *
 * *ret is valid until the next call.  For one thread.
 */
int wcx_dependents_read(struct wcx_dependents *dependents, const char *start, const struct wcx_family **ret,
			struct wcx_error *err);

/*
 * wcx_dependents_unknown - whether the marks of a file tell of dependents that may be where nobody has looked
 *
 * Returns 0 with *why NULL or a clause that the caller frees; or -ENOMEM.
 */
int wcx_dependents_unknown(const struct wcx_family *family, const struct wcx_packed_name *file, char **why);

/*
 * wcx_dependents_lock - open a packed file that is to go, and keep others from packing against it until it is closed
 *
 * path and what are for the message "PATH: WHAT, since ...".  Returns a descriptor for wcx_dependents_close; -ENOENT without
 * a message if there is no such file; or -errno with one: others need it, or may.
 */
int wcx_dependents_lock(struct wcx_dependents *dependents, const char *start, int directory_fd, const char *name,
			const char *path, const char *what, struct stat *st_ret, struct wcx_error *err);

/* --- a whole directory --- */

/*
 * wcx_tree_guard_begin - before a whole directory is replaced: -EBUSY if a file outside of it needs one in it
 *
 * Locks its packed files until wcx_tree_guard_end, which is due in either case.
 */
struct wcx_tree_guard {
	struct wcx_dependents *dependents;
	struct wcx_guarded_file *files;
	size_t count, capacity;
};
int wcx_tree_guard_begin(struct wcx_tree_guard *guard, struct wcx_dependents *dependents, const char *path,
			 struct wcx_error *err);
void wcx_tree_guard_end(struct wcx_tree_guard *guard);

#endif
