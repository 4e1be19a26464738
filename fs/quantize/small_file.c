/* SPDX-License-Identifier: MIT */
/* Reads whole small files. */
#include "fs/quantize/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/file_io.h"

static int read_open(int fd, const char *path, size_t max_bytes, char **ret, size_t *bytes_ret, struct wcx_error *err)
{
	struct stat st;
	char *text;
	int r;

	if (fstat(fd, &st) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return wcx_fail(err, EINVAL, "%s: not a regular file", path);
	if ((uint64_t)st.st_size > max_bytes)
		return wcx_fail(err, EFBIG, "%s: has more than %zu bytes", path, max_bytes);
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	r = wcx_read_exact(fd, text, (size_t)st.st_size, 0);
	if (r < 0) {
		free(text);
		return wcx_fail(err, -r, "%s: %s", path, strerror(-r));
	}
	text[st.st_size] = '\0';
	*ret = text;
	*bytes_ret = (size_t)st.st_size;
	return 0;
}

int wcx_small_file_read(const char *directory, const char *name, size_t max_bytes, char **ret, size_t *bytes_ret,
			struct wcx_error *err)
{
	char *path;
	int fd, r;

	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return wcx_fail(err, ENOMEM, "%s: no memory", directory);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	r = fd < 0 ? wcx_fail(err, errno, "%s: %s", path, strerror(errno))
		   : read_open(fd, path, max_bytes, ret, bytes_ret, err);
	if (fd >= 0)
		close(fd);
	free(path);
	return r;
}
