/* SPDX-License-Identifier: MIT */
/* Marks packed files that others are packed against, by extended attributes. */
#include "fs/read/base_mark.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/base/ancestors.h"

static const char prefix[] = "user.wcx.base.";

/* The inode of the nearest directory above both (or one of them); 0: it is on another device than either. */
static ino_t nearest_above(int directory_fd, int other_fd)
{
	struct wcx_ancestor at;
	struct stat own, other;
	ino_t ret = 0;

	if (fstat(directory_fd, &own) < 0 || fstat(other_fd, &other) < 0 || own.st_dev != other.st_dev)
		return 0;
	for (bool is_there = wcx_ancestor_first(&at, directory_fd); is_there; is_there = wcx_ancestor_next(&at)) {
		if (wcx_levels_above(other_fd, &at.st) < 0)
			continue;
		ret = at.st.st_dev == own.st_dev ? at.st.st_ino : 0;
		wcx_ancestor_end(&at);
		break;
	}
	return ret;
}

void wcx_base_mark(int fd, int directory_fd, int dependent_directory_fd)
{
	char name[sizeof prefix + 20];

	snprintf(name, sizeof name, "%s%llu", prefix,
		 (unsigned long long)nearest_above(directory_fd, dependent_directory_fd));
	if (fsetxattr(fd, name, "", 0, 0) == 0)
		fsync(fd);
}

/* Lists the names of a file's extended attributes, each with its end; NULL: there are none.  Returns 0 or -errno. */
static int list_names(int fd, char **names_ret, size_t *bytes_ret)
{
	ssize_t bytes = flistxattr(fd, NULL, 0);
	const size_t room = bytes > 0 ? (size_t)bytes : 0;

	*names_ret = NULL;
	*bytes_ret = 0;
	if (bytes <= 0)
		return bytes == 0 || errno == ENOTSUP ? 0 : -errno;
	*names_ret = malloc(room);
	bytes = *names_ret ? flistxattr(fd, *names_ret, room) : -1;
	if (bytes < 0)
		return *names_ret ? -errno : -ENOMEM;
	*bytes_ret = (size_t)bytes;
	return 0;
}

static bool is_mark(const char *name)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

void wcx_base_copy_marks(int src_fd, int dst_fd)
{
	size_t bytes;
	char *names;

	list_names(src_fd, &names, &bytes);
	for (const char *name = names; name && name < names + bytes; name += strlen(name) + 1)
		if (is_mark(name))
			fsetxattr(dst_fd, name, "", 0, 0);
	fsync(dst_fd);
	free(names);
}

int wcx_base_marks(int fd, ino_t **ret, size_t *count_ret)
{
	size_t bytes;
	char *names;
	int r = list_names(fd, &names, &bytes);

	*count_ret = 0;
	*ret = bytes ? calloc(bytes, sizeof **ret) : NULL; /* a name takes a byte at least */
	if (r == 0 && bytes && !*ret)
		r = -ENOMEM;
	for (const char *name = names; r == 0 && name && name < names + bytes; name += strlen(name) + 1)
		if (is_mark(name))
			(*ret)[(*count_ret)++] = (ino_t)strtoull(name + strlen(prefix), NULL, 10);
	free(names);
	return r;
}
