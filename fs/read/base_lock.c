/* SPDX-License-Identifier: MIT */
/* Locks of bases, for packing against them and for removing them. */
#include "fs/read/base_lock.h"

#include <errno.h>
#include <sys/file.h>
#include <sys/stat.h>

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

int wcx_base_lock_for_removal(int fd)
{
	return lock(fd, LOCK_EX);
}
