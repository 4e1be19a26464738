/* SPDX-License-Identifier: MIT */
/*
 * The names of packed files in a store, and in the directories around it.
 *
 * That is where the dependents of a packed file are looked for before it is replaced or removed: in the directory that
 * --store names, or else from the one that the command line names upwards.  The base of a single file is looked for there
 * too.  The way up ends after a few levels (but goes at least to the working directory, if that is above); before another
 * file system, the root directory, the user's home directory and a directory such as /tmp, where everybody may write; and
 * where there would be too many names to look at.
 */
#ifndef WCX_STORE_WALK_H
#define WCX_STORE_WALK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* A regular file that is named *.wcx, or something that could not be listed. */
struct wcx_store_name {
	char *path; /* relative to where the walk began: "../" leads to the directories around that */
	struct stat st;
	int errnum; /* why it could not be listed; 0: a file */
};

struct wcx_store_directory;

struct wcx_store_walk {
	char *start;
	int fd;
	struct stat st; /* of start */
	bool climbs;    /* not only what is below start */
	/* What was seen. */
	unsigned level_count; /* of directories above start */
	struct stat top;      /* the highest of these, or start */
	struct wcx_store_name *names;
	size_t count, capacity;
	struct wcx_store_directory *directories;
	size_t directory_count, directory_capacity;
};

/* wcx_store_walk_open - begin at a directory, which must be there; 0 or -errno.  *walk is to be freed in either case */
int wcx_store_walk_open(struct wcx_store_walk *walk, const char *start, bool climbs);

/*
 * wcx_store_walk_refresh - find what is there now
 *
 * From the second time on, only directories whose times have changed are listed again.  So a file that was given a name, as
 * all outputs are when they are complete, is seen; one that was written to is not.  Once *stop is true, ends with -EINTR.
 * Returns 0 or -errno, after which there are no names.
 */
int wcx_store_walk_refresh(struct wcx_store_walk *walk, const atomic_bool *stop);
void wcx_store_walk_free(struct wcx_store_walk *walk);

/* wcx_store_walk_shown - what messages call a path of the walk, or with NULL the highest directory; the caller frees it */
char *wcx_store_walk_shown(const struct wcx_store_walk *walk, const char *path);

/* wcx_store_walk_reaches - whether a walk that begins at an open directory, and climbs, may come to a file */
bool wcx_store_walk_reaches(int fd, const char *path);

/* wcx_is_around - whether a path of a walk leads out of the directory where it began */
bool wcx_is_around(const char *path);

#endif
