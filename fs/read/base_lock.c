/* SPDX-License-Identifier: MIT */
/* Locks of bases, for packing against them and for removing them. */
#include "fs/read/base_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "fs/base/same_file.h"

static int lock(int fd, int operation)
{
	int r;

	do {
		r = flock(fd, operation | LOCK_NB);
	} while (r < 0 && errno == EINTR);
	return r < 0 && errno == EWOULDBLOCK ? -EWOULDBLOCK : 0;
}

int wcx_base_lock(int fd)
{
	const int r = lock(fd, LOCK_SH);
	struct stat st;

	if (r < 0)
		return r;
	return fstat(fd, &st) == 0 && st.st_nlink == 0 ? -ENOENT : 0;
}

int wcx_base_open_for_removal(int directory_fd, const char *name, struct stat *st_ret)
{
	int r = 0;

	while (r == 0) {
		struct stat now;
		int fd;

		if (fstatat(directory_fd, name, st_ret, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		if (!S_ISREG(st_ret->st_mode))
			return S_ISLNK(st_ret->st_mode) ? -ELOOP : -EINVAL;
		fd = openat(directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, st_ret) < 0)
			r = -errno;
		else
			r = lock(fd, LOCK_EX);
		if (r == 0 && fstatat(directory_fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0 && wcx_is_same_file(&now, st_ret))
			return fd;
		if (fd >= 0)
			close(fd); /* replaced in between: what is there now */
	}
	return r;
}

bool wcx_base_is_locked(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) == 0; /* once more, which changes nothing */
}
