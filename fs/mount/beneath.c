/* SPDX-License-Identifier: MIT */
/* Opens paths within a directory. */
#include "fs/mount/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/read/base_search.h"

enum {
	WITHIN = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	RACES_MAX = 16,   /* the kernel gives up a ".." when something is renamed meanwhile */
	DETOURS_MAX = 40, /* links and ".."; the kernel's limit of links */
};

static int open_at(int dir_fd, const char *path, int flags, int resolve)
{
	const struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = (unsigned)resolve,
	};
	int fd = -1;

	for (int i = 0; fd < 0 && (i == 0 || errno == EAGAIN) && i < RACES_MAX; i++)
		fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
	/* A link in the place of a directory is none: as behind any other file there, nothing is behind it. */
	return fd >= 0 ? fd : errno == ELOOP && (resolve & RESOLVE_NO_SYMLINKS) ? -ENOTDIR : -errno;
}

/* Asks for what the kernel knows without asking the file system, which may be our own. */
static bool is_own(const struct wcx_beneath *beneath, int fd)
{
	const uint64_t own = beneath->own_device;
	struct statx stx;

	return own && statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) == 0 &&
	       makedev(stx.stx_dev_major, stx.stx_dev_minor) == own;
}

/* Puts the text of a link, or nothing, in the place of a part of a path. */
static int replace(char path[PATH_MAX], size_t start, size_t end, int link_fd)
{
	char text[PATH_MAX], rest[PATH_MAX];
	const ssize_t bytes = link_fd < 0 ? 0 : readlinkat(link_fd, "", text, sizeof text);

	if (bytes < 0)
		return -errno;
	if (bytes && text[0] == '/')
		return -EXDEV;
	strcpy(rest, path + end);
	if (start + (size_t)bytes + strlen(rest) >= PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(path + start, text, (size_t)bytes);
	strcpy(path + start + bytes, rest);
	return 0;
}

static bool is_link(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISLNK(st.st_mode);
}

/*
 * Goes one component at a time, looking where each leads before it goes on.  At a ".." or a link on the way, writes the path
 * without it and sets *again_ret: what is in front of them has no links by then, so that a ".." takes a component away.
 */
static int walk_once(const struct wcx_beneath *beneath, char path[PATH_MAX], int flags, bool through_links, bool *again_ret)
{
	const int resolve = WITHIN | RESOLVE_NO_SYMLINKS;
	size_t before = 0, start = strspn(path, "/");
	int fd = open_at(beneath->dir_fd, ".", O_PATH, resolve);

	while (fd >= 0 && path[start]) {
		const size_t bytes = strcspn(path + start, "/"), end = start + bytes + strspn(path + start + bytes, "/");
		char name[NAME_MAX + 1];
		int next = -ENAMETOOLONG;

		if (bytes < sizeof name) {
			memcpy(name, path + start, bytes);
			name[bytes] = '\0';
			*again_ret = strcmp(name, "..") == 0;
			next = *again_ret ? (start ? replace(path, before, end, -1) : -EXDEV)
					  : open_at(fd, name, O_PATH, resolve);
		}
		if (next >= 0 && !*again_ret && is_own(beneath, next)) {
			close(next);
			next = -ELOOP;
		}
		if (next >= 0 && !*again_ret && path[end] && through_links && is_link(next)) {
			const int r = replace(path, start, start + bytes, next);

			close(next);
			next = r;
			*again_ret = true;
		}
		if (next >= 0 && !*again_ret && !path[end] && flags != O_PATH) {
			close(next);
			next = open_at(fd, name, flags, resolve);
		}
		close(fd);
		if (*again_ret)
			return next;
		fd = next;
		before = start;
		start = end;
	}
	return fd;
}

/* Goes across mount points. */
static int walk(const struct wcx_beneath *beneath, const char *path, int flags, bool through_links)
{
	char rest[PATH_MAX];
	int r = -ENAMETOOLONG;

	if (strlen(path) >= sizeof rest)
		return r;
	strcpy(rest, path);
	for (int i = 0; i < DETOURS_MAX; i++) {
		bool again = false;

		r = walk_once(beneath, rest, flags, through_links, &again);
		if (!again || r < 0)
			return r;
	}
	return -ELOOP;
}

int wcx_beneath_open(const struct wcx_beneath *beneath, const char *path, int flags, bool through_links, struct stat *st_ret)
{
	const int resolve = WITHIN | RESOLVE_NO_XDEV | (through_links ? 0 : RESOLVE_NO_SYMLINKS);
	int fd = open_at(beneath->dir_fd, path, flags, resolve), r;

	if (fd == -EXDEV)
		fd = walk(beneath, path, flags, through_links);
	if (fd < 0 || fstat(fd, st_ret) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

static bool is_passable(const struct wcx_beneath *beneath, const char *directory)
{
	struct stat st;
	const int fd = wcx_beneath_open(beneath, directory, O_RDONLY | O_DIRECTORY, false, &st);
	const bool is_open = fd >= 0 && st.st_mode & S_IXOTH && !wcx_has_acl(fd);

	if (fd >= 0)
		close(fd);
	return is_open;
}

bool wcx_beneath_is_passable(const struct wcx_beneath *beneath, const char *path)
{
	char directory[PATH_MAX];

	if (!is_passable(beneath, ".") || strlen(path) >= sizeof directory)
		return false;
	strcpy(directory, path);
	for (char *slash; (slash = strrchr(directory, '/'));) {
		*slash = '\0';
		if (!is_passable(beneath, directory))
			return false;
	}
	return true;
}
