/* SPDX-License-Identifier: MIT */
/* Marks packed files that others are packed against, by extended attributes. */
#include "fs/read/base_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/base/same_file.h"

enum { DEPTH_MAX = 512 };

static const char prefix[] = "user.wcx.base.";

/* A directory and those above it, the nearest first. */
struct ancestors {
	struct stat items[DEPTH_MAX];
	size_t count;
};

/* Lists them up to the root, or to top, which may be NULL.  Returns whether the list ends with top. */
static bool list_ancestors(struct ancestors *list, int fd, const struct stat *top)
{
	int at = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	bool is_top = false, is_root = false;

	list->count = 0;
	while (at >= 0 && !is_top && !is_root && list->count < DEPTH_MAX && fstat(at, &list->items[list->count]) == 0) {
		const struct stat *own = &list->items[list->count++];
		const int up = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

		is_top = top && wcx_is_same_file(own, top);
		is_root = list->count > 1 && wcx_is_same_file(own, own - 1);
		close(at);
		at = up;
	}
	if (at >= 0)
		close(at);
	return is_top;
}

static bool has(const struct ancestors *list, const struct stat *st)
{
	for (size_t i = 0; i < list->count; i++)
		if (wcx_is_same_file(&list->items[i], st))
			return true;
	return false;
}

void wcx_base_mark(int fd, int directory_fd, int dependent_directory_fd)
{
	struct ancestors *lists = calloc(2, sizeof *lists), *dependent = lists ? lists + 1 : NULL;
	char name[sizeof prefix + 20];
	size_t common = 0;
	ino_t inode = 0;

	if (lists) {
		list_ancestors(lists, directory_fd, NULL);
		list_ancestors(dependent, dependent_directory_fd, NULL);
		while (common < lists->count && !has(dependent, &lists->items[common]))
			common++;
		if (common < lists->count && dependent->count && lists->items[common].st_dev == lists->items[0].st_dev &&
		    lists->items[common].st_dev == dependent->items[0].st_dev)
			inode = lists->items[common].st_ino;
	}
	free(lists);
	snprintf(name, sizeof name, "%s%llu", prefix, (unsigned long long)inode);
	fsetxattr(fd, name, "", 0, 0);
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

void wcx_base_copy_marks(int src_fd, int dst_fd)
{
	size_t bytes;
	char *names;

	list_names(src_fd, &names, &bytes);
	for (const char *name = names; name && name < names + bytes; name += strlen(name) + 1)
		if (strncmp(name, prefix, strlen(prefix)) == 0)
			fsetxattr(dst_fd, name, "", 0, 0);
	free(names);
}

enum wcx_base_marks wcx_base_marks(int fd, int directory_fd, const struct stat *top)
{
	struct ancestors *list = calloc(1, sizeof *list);
	const bool is_below = list && list_ancestors(list, directory_fd, top);
	size_t bytes;
	char *names;
	/* Marks that cannot be read may be there. */
	enum wcx_base_marks ret = list_names(fd, &names, &bytes) < 0 ? WCX_MARKS_BEYOND : WCX_MARKS_NONE;

	for (const char *name = names; name && name < names + bytes; name += strlen(name) + 1) {
		unsigned long long inode;
		bool is_inside = false;

		if (strncmp(name, prefix, strlen(prefix)) != 0)
			continue;
		inode = strtoull(name + strlen(prefix), NULL, 10);
		for (size_t i = 0; is_below && inode && i < list->count; i++)
			is_inside |= list->items[i].st_dev == list->items[0].st_dev && list->items[i].st_ino == inode;
		if (!is_inside)
			ret = WCX_MARKS_BEYOND;
		else if (ret == WCX_MARKS_NONE)
			ret = WCX_MARKS_INSIDE;
	}
	free(names);
	free(list);
	return ret;
}
