/* SPDX-License-Identifier: MIT */
/*
 * Where the dependents of a packed file are looked for before it is replaced or removed.
 *
 * That is what --store says.  Otherwise it is found: from the directory or tree that the command line names upwards, the
 * highest directory that has packed files elsewhere below it too.  The way up ends after a few levels (but goes at least to
 * the working directory, if that is above); before another file system, the root directory, the user's home directory and a
 * directory such as /tmp, where everybody may write; and where there would be too many names to look at.
 */
#ifndef WCX_STORE_SCOPE_H
#define WCX_STORE_SCOPE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

struct wcx_store_scope {
	char *path;    /* the directory */
	char *named;   /* what the command line names of it, relative to it; NULL: all of it */
	bool is_given; /* --store names it: who is not in it needs nothing */
	struct stat
		top; /* the highest directory that was seen whole, in which there are no packed files but those in path */
};

/*
 * wcx_store_scope_find - find the scope of what the command line names
 *
 * given is the value of --store, or NULL; start is the directory where the way up begins.  A start that is not there is the
 * scope by itself.  Returns 0, -ENOMEM, or -EINTR once *stop is true.
 */
int wcx_store_scope_find(struct wcx_store_scope *ret, const char *given, const char *start, const atomic_bool *stop);
void wcx_store_scope_free(struct wcx_store_scope *scope);

#endif
