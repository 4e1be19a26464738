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

enum { WITHIN = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };

static int open_at(int dir_fd, const char *path, int flags, int resolve)
{
	const struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = (unsigned)resolve,
	};
	const int fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof how);

	return fd < 0 ? -errno : fd;
}

/* Asks for what the kernel knows without asking the file system, which may be our own. */
static bool is_own(const struct wcx_beneath *beneath, int fd)
{
	const uint64_t own = beneath->own_device;
	struct statx stx;

	return own && statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &stx) == 0 &&
	       makedev(stx.stx_dev_major, stx.stx_dev_minor) == own;
}

/* Goes across mount points one component at a time, looking where each leads before it goes on. */
static int walk(const struct wcx_beneath *beneath, const char *path, int flags)
{
	const int resolve = WITHIN | RESOLVE_NO_SYMLINKS;
	char name[NAME_MAX + 1];
	int fd = open_at(beneath->dir_fd, ".", O_PATH, resolve);

	while (fd >= 0 && *path) {
		const size_t bytes = strcspn(path, "/");
		int next = -ENAMETOOLONG;

		if (bytes < sizeof name) {
			memcpy(name, path, bytes);
			name[bytes] = '\0';
			next = open_at(fd, name, O_PATH, resolve);
		}
		path += bytes;
		path += strspn(path, "/");
		if (next >= 0 && is_own(beneath, next)) {
			close(next);
			next = -ELOOP;
		}
		if (next >= 0 && !*path && flags != O_PATH) {
			close(next);
			next = open_at(fd, name, flags, resolve);
		}
		close(fd);
		fd = next;
	}
	return fd;
}

int wcx_beneath_open(const struct wcx_beneath *beneath, const char *path, int flags, bool through_links, struct stat *st_ret)
{
	const int resolve = WITHIN | RESOLVE_NO_XDEV | (through_links ? 0 : RESOLVE_NO_SYMLINKS);
	int fd = open_at(beneath->dir_fd, path, flags, resolve), r;

	if (fd == -EXDEV)
		fd = walk(beneath, path, flags);
	if (fd < 0 || fstat(fd, st_ret) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}
