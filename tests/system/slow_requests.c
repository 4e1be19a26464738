/* SPDX-License-Identifier: MIT */
/*
 * For LD_PRELOAD: delays each read request that a FUSE server receives by 30 ms.  During that time the kernel has locked the
 * pages, and the server does not know it yet.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdint.h>
#include <unistd.h>

enum { DELAY_US = 30000, LARGE_BYTES = 100000 };

ssize_t read(int fd, void *dst, size_t bytes)
{
	ssize_t (*real)(int, void *, size_t) = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
	const ssize_t n = real(fd, dst, bytes);
	const struct fuse_in_header *header = dst;

	if (bytes > LARGE_BYTES && n >= (ssize_t)sizeof *header && header->opcode == FUSE_READ)
		usleep(DELAY_US);
	return n;
}

/* The same for requests that arrive through a pipe. */
ssize_t splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t bytes, unsigned flags)
{
	ssize_t (*real)(int, off64_t *, int, off64_t *, size_t, unsigned) =
		(ssize_t(*)(int, off64_t *, int, off64_t *, size_t, unsigned))dlsym(RTLD_NEXT, "splice");
	const ssize_t n = real(from, from_offset, to, to_offset, bytes, flags);

	if (n == (ssize_t)(sizeof(struct fuse_in_header) + sizeof(struct fuse_read_in)))
		usleep(DELAY_US);
	return n;
}
