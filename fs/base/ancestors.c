/* SPDX-License-Identifier: MIT */
/* Goes from a directory up to the root. */
#include "fs/base/ancestors.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "fs/base/path.h"
#include "fs/base/same_file.h"

/* Opens what is above an open directory, or at it. */
static bool step(struct wcx_ancestor *at, int fd, const char *path)
{
	at->fd = openat(fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at->fd >= 0 && fstat(at->fd, &at->st) == 0)
		return true;
	wcx_ancestor_end(at);
	return false;
}

bool wcx_ancestor_first(struct wcx_ancestor *at, int fd)
{
	at->level = 0;
	return step(at, fd, ".");
}

bool wcx_ancestor_next(struct wcx_ancestor *at)
{
	const struct stat below = at->st;
	const int fd = at->fd;
	const bool is_there = step(at, fd, "..");

	close(fd);
	at->level++;
	if (!is_there || !wcx_is_same_file(&at->st, &below))
		return is_there;
	wcx_ancestor_end(at);
	return false;
}

void wcx_ancestor_end(struct wcx_ancestor *at)
{
	if (at->fd >= 0)
		close(at->fd);
	at->fd = -1;
}

int wcx_levels_above(int fd, const struct stat *above)
{
	struct wcx_ancestor at;

	for (bool is_there = wcx_ancestor_first(&at, fd); is_there; is_there = wcx_ancestor_next(&at)) {
		if (!wcx_is_same_file(&at.st, above))
			continue;
		wcx_ancestor_end(&at);
		return (int)at.level;
	}
	return -1;
}

bool wcx_is_below(const char *path, const char *directory)
{
	char *own = wcx_directory_of(path);
	const int fd = own ? open(own, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	struct stat st;
	const bool is_below = fd >= 0 && stat(directory, &st) == 0 && wcx_levels_above(fd, &st) >= 0;

	if (fd >= 0)
		close(fd);
	free(own);
	return is_below;
}
