/* SPDX-License-Identifier: MIT */
/*
 * A walk through a directory tree by paths, in the order of names, a directory before what is in it.
 *
 * As fts(3), but that of glibc passes over errors of readdir(3) and shows what it has read as if it were all.
 */
#ifndef WCX_WALK_H
#define WCX_WALK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

enum wcx_walk_kind {
	WCX_WALK_DIRECTORY,
	WCX_WALK_END, /* all that is in the directory has been shown */
	WCX_WALK_FILE,
	WCX_WALK_LINK, /* that is not followed, or leads nowhere */
	WCX_WALK_OTHER,
	WCX_WALK_LOOP,    /* a link to a directory that it is in */
	WCX_WALK_PROBLEM, /* errnum says why the entry, or what is in it, cannot be shown */
};

enum wcx_walk_flags {
	WCX_WALK_FOLLOW = 1,     /* what links lead to, not links */
	WCX_WALK_ONE_DEVICE = 2, /* nothing below a directory of another file system */
	WCX_WALK_TYPES = 4,      /* only directories need an st */
};

struct wcx_walk {
	/* The entry, after wcx_walk_next. */
	enum wcx_walk_kind kind;
	int errnum;
	char path[PATH_MAX];
	const char *name; /* the end of path */
	unsigned depth;   /* of the root: 0 */
	struct stat st;
	/* The rest is the walk's own. */
	unsigned flags;
	bool has_begun, enters;
	dev_t device;
	struct wcx_walk_level *levels;
	size_t level_count, level_capacity;
};

/* wcx_walk_begin - begin at a path, which is the first entry whatever it is; to be ended with wcx_walk_end */
void wcx_walk_begin(struct wcx_walk *walk, const char *path, unsigned flags);
void wcx_walk_end(struct wcx_walk *walk);

/* wcx_walk_next - go to the next entry; false: there are no more.  What is removed meanwhile is no problem. */
bool wcx_walk_next(struct wcx_walk *walk);

/* wcx_walk_skip - do not show what is in the directory that is the entry */
void wcx_walk_skip(struct wcx_walk *walk);

#endif
