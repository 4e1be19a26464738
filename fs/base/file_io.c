/* SPDX-License-Identifier: MIT */
/* Loops around pread and pwrite. */
#include "fs/base/file_io.h"

#include <errno.h>
#include <unistd.h>

ssize_t wcx_read_at(int fd, void *dst, size_t bytes, uint64_t offset)
{
	size_t done = 0;

	while (done < bytes) {
		ssize_t n = pread(fd, (char *)dst + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int wcx_read_exact(int fd, void *dst, size_t bytes, uint64_t offset)
{
	const ssize_t n = wcx_read_at(fd, dst, bytes, offset);

	if (n < 0)
		return (int)n;
	return (size_t)n < bytes ? -ENODATA : 0;
}

int wcx_write_at(int fd, const void *src, size_t bytes, uint64_t offset)
{
	for (size_t done = 0; done < bytes;) {
		ssize_t n = pwrite(fd, (const char *)src + done, bytes - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int wcx_sync_directory(int fd)
{
	return fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
}
