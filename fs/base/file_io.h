/* SPDX-License-Identifier: MIT */
/* Reading and writing at an offset.  Interrupted and partial calls are continued. */
#ifndef WCX_FILE_IO_H
#define WCX_FILE_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* wcx_read_at - like pread: returns the bytes read, fewer only at the end of the file, or -errno */
ssize_t wcx_read_at(int fd, void *dst, size_t bytes, uint64_t offset);

/* wcx_read_exact - read all of bytes: returns 0, -errno, or -ENODATA when the file ends before them */
int wcx_read_exact(int fd, void *dst, size_t bytes, uint64_t offset);

/* wcx_write_at - like pwrite: returns 0 when all is written, or -errno */
int wcx_write_at(int fd, const void *src, size_t bytes, uint64_t offset);

/* wcx_sync_directory - sync an open directory, unless its file system has no such thing, as some on networks: 0 or -errno */
int wcx_sync_directory(int fd);

#endif
