/* SPDX-License-Identifier: MIT */
/* The way from a directory up to the root. */
#ifndef WCX_ANCESTORS_H
#define WCX_ANCESTORS_H

#include <stdbool.h>
#include <sys/stat.h>

/* A directory on the way, the first being the one where it begins. */
struct wcx_ancestor {
	int fd; /* O_PATH */
	struct stat st;
	unsigned level; /* so many steps above the first */
};

/*
 * wcx_ancestor_first, wcx_ancestor_next - begin at an open directory; go one up
 *
 * Return whether there is such a directory: the root has none above it, and to go up needs permission to search.  Once one
 * returns false, or wcx_ancestor_end is called, nothing is left open.
 */
bool wcx_ancestor_first(struct wcx_ancestor *at, int fd);
bool wcx_ancestor_next(struct wcx_ancestor *at);
void wcx_ancestor_end(struct wcx_ancestor *at);

/* wcx_levels_above - how many levels above an open directory another one is; 0: it is that itself; -1: it is not above */
int wcx_levels_above(int fd, const struct stat *above);

/* wcx_is_below - whether a path leads to an entry of a directory, or of one below it */
bool wcx_is_below(const char *path, const char *directory);

#endif
