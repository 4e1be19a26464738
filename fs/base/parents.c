/* SPDX-License-Identifier: MIT */
/* Makes and removes the directories above an output. */
#include "fs/base/parents.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The bytes of a path in front of its last name and the slashes there; 0: it is one name, or the root. */
static size_t parent_bytes(const char *path, size_t bytes)
{
	while (bytes && path[bytes - 1] == '/')
		bytes--;
	while (bytes && path[bytes - 1] != '/')
		bytes--;
	while (bytes && path[bytes - 1] == '/')
		bytes--;
	return bytes;
}

int wcx_parents_make(const char *path, size_t *made_ret)
{
	char *copy = strdup(path);
	const size_t whole = copy ? parent_bytes(path, strlen(path)) : 0;
	size_t first = whole;
	struct stat st;
	int r = copy ? 0 : -ENOMEM;

	*made_ret = 0;
	/* From the deepest on, to the first that is there. */
	for (; first; first = parent_bytes(path, first)) {
		copy[first] = '\0';
		if (stat(copy, &st) == 0 || errno != ENOENT)
			break;
		copy[first] = '/';
	}
	if (copy)
		strcpy(copy, path);
	for (size_t end = first; r == 0 && end < whole;) {
		do
			end++;
		while (end < whole && (path[end] != '/' || path[end - 1] == '/'));
		if (path[end - 1] == '/')
			continue;
		copy[end] = '\0';
		if (mkdir(copy, 0777) == 0)
			*made_ret = *made_ret ? *made_ret : end;
		else if (errno != EEXIST)
			r = -errno;
		copy[end] = '/';
	}
	free(copy);
	return r;
}

void wcx_parents_remove(const char *path, size_t made)
{
	char *copy = made ? strdup(path) : NULL;
	size_t end = copy ? parent_bytes(path, strlen(path)) : 0;

	for (; end >= made && end; end = parent_bytes(path, end)) {
		copy[end] = '\0';
		if (rmdir(copy) < 0)
			break;
	}
	free(copy);
}

int wcx_parents_nearest(const char *path)
{
	char *copy = strdup(path);
	size_t end = copy ? parent_bytes(path, strlen(path)) : 0;
	int fd;

	if (!copy)
		return -ENOMEM;
	do {
		copy[end] = '\0';
		fd = open(end ? copy : *path == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
		if (fd != -ENOENT || !end)
			break;
		end = parent_bytes(path, end);
	} while (true);
	free(copy);
	return fd;
}
