/* SPDX-License-Identifier: MIT */
/* Finds where the dependents of a packed file are looked for. */
#include "tools/store_scope.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/same_file.h"
#include "fs/read/packed_index.h"

enum {
	LEVELS_MAX = 4,     /* STORE/OWNER/MODEL/snapshots/REVISION */
	NAMES_MAX = 100000, /* that are looked at on the way up: a second or less once they are in memory */
};

/* A look at a directory, without one in it. */
struct look {
	int fd;
	struct stat st, left_out;
	bool has_packed, is_partial;
};

static int open_for_look(void *user, const char *path, int flags, struct stat *st_ret)
{
	struct look *look = user;
	const int fd = wcx_open_below(&look->fd, path, flags, st_ret);

	if (fd < 0 || !(flags & O_DIRECTORY) ||
	    (st_ret->st_dev == look->st.st_dev && !wcx_is_same_file(st_ret, &look->left_out)))
		return fd;
	close(fd);
	return -EXDEV;
}

static int see_packed(void *user, const char *path)
{
	struct look *look = user;

	(void)path;
	look->has_packed = true;
	return 0;
}

static void see_unlisted(void *user, const char *path, int errnum)
{
	struct look *look = user;

	look->is_partial |= errnum != EXDEV && errnum != ENOENT && strcmp(path, "lost+found") != 0;
}

/* Whether the way up ends below a directory. */
static bool is_barred(const struct stat *st, const struct stat *below)
{
	const char *home = getenv("HOME");
	struct stat other;

	return st->st_dev != below->st_dev || ((st->st_mode & S_ISVTX) && (st->st_mode & S_IWOTH)) ||
	       (stat("/", &other) == 0 && wcx_is_same_file(st, &other)) ||
	       (home && stat(home, &other) == 0 && (wcx_is_same_file(st, &other) || wcx_is_same_file(below, &other)));
}

/* How many levels above a directory the working directory is; 0: it is not above it. */
static unsigned levels_to_work(int fd)
{
	int at = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	unsigned level = 0, ret = 0;
	struct stat work, st, last = { 0 };

	if (stat(".", &work) < 0)
		work = last;
	for (; at >= 0 && fstat(at, &st) == 0 && !wcx_is_same_file(&st, &last); level++, last = st) {
		const int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		if (wcx_is_same_file(&st, &work))
			ret = level;
		close(at);
		at = up;
	}
	if (at >= 0)
		close(at);
	return ret;
}

/* How many levels above an open directory the scope is; -errno.  Sets scope->top. */
static int climb(struct wcx_store_scope *scope, int fd, const atomic_bool *stop)
{
	const unsigned work = levels_to_work(fd), levels = work > LEVELS_MAX ? work : LEVELS_MAX;
	size_t names_left = NAMES_MAX;
	struct look look = { .fd = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
	const struct wcx_tree_access access = { open_for_look, &look, see_unlisted, &names_left };
	int r = look.fd >= 0 && fstat(look.fd, &look.st) == 0 ? 0 : -ENOENT;
	unsigned ret = 0;

	scope->top = look.st;
	for (unsigned level = 1; r == 0 && level <= levels; level++) {
		const int up = openat(look.fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		close(look.fd);
		look.fd = up;
		look.left_out = look.st;
		look.has_packed = false;
		if (up < 0 || fstat(up, &look.st) < 0 || is_barred(&look.st, &look.left_out))
			break;
		r = wcx_packed_paths(&access, stop, see_packed, &look);
		if (r == 0 && look.has_packed)
			ret = level;
		if (r == 0 && !look.is_partial)
			scope->top = look.st;
	}
	if (look.fd >= 0)
		close(look.fd);
	return r == -ENOMEM || r == -EINTR ? r : (int)ret;
}

/* A path without links, or below the working directory if it is there; the caller frees it. */
static char *shown_path(char *absolute)
{
	char *work = realpath(".", NULL), *ret;
	const size_t bytes = work ? strlen(work) : 0;
	const bool is_below = bytes > 1 && strncmp(absolute, work, bytes) == 0;

	if (is_below && !absolute[bytes])
		ret = strdup(".");
	else
		ret = strdup(is_below && absolute[bytes] == '/' ? absolute + bytes + 1 : absolute);
	free(work);
	return ret;
}

/* Sets the scope to a directory so many levels above another. */
static int set_above(struct wcx_store_scope *scope, const char *start, int levels)
{
	char *path = realpath(start, NULL), *end = path;

	if (!path)
		return -ENOMEM;
	for (end += strlen(path); levels && end > path; levels--)
		do
			end--;
		while (end > path && *end != '/');
	scope->named = strdup(end + 1);
	*end = '\0';
	scope->path = shown_path(path);
	free(path);
	return scope->named && scope->path ? 0 : -ENOMEM;
}

int wcx_store_scope_find(struct wcx_store_scope *ret, const char *given, const char *start, const atomic_bool *stop)
{
	const int fd = given ? -1 : open(start, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int levels = 0, r = 0;

	*ret = (struct wcx_store_scope){ .is_given = given != NULL };
	if (fd >= 0) {
		levels = climb(ret, fd, stop);
		close(fd);
	}
	if (levels > 0)
		return set_above(ret, start, levels);
	ret->path = strdup(given ? given : start);
	r = levels < 0 ? levels : ret->path ? 0 : -ENOMEM;
	return r;
}

void wcx_store_scope_free(struct wcx_store_scope *scope)
{
	free(scope->path);
	free(scope->named);
	*scope = (struct wcx_store_scope){ 0 };
}
