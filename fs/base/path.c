/* SPDX-License-Identifier: MIT */
/* Takes paths apart, and shortens them. */
#include "fs/base/path.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char *wcx_directory_of(const char *path)
{
	char *copy = strdup(path), *ret = copy ? strdup(dirname(copy)) : NULL;

	free(copy);
	return ret;
}

bool wcx_path_is_in(const char *path, const char *directory)
{
	const size_t bytes = strlen(directory);

	/* The root directory alone ends in a slash. */
	return strncmp(path, directory, bytes) == 0 && (bytes == 1 || path[bytes] == '/' || !path[bytes]);
}

const char *wcx_last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Whether a path ends in a name that ".." takes back: not "..", and not a link. */
static bool can_go_back(const char *path)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	struct stat st;

	return *name && strcmp(name, "..") != 0 && strcmp(name, ".") != 0 && lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *wcx_plain_path(const char *path)
{
	char *ret = malloc(strlen(path) + sizeof "."), *last;
	size_t bytes = 0, name_bytes;

	if (!ret)
		return NULL;
	if (*path == '/')
		ret[bytes++] = '/';
	for (path += strspn(path, "/"); *path; path += name_bytes + strspn(path + name_bytes, "/")) {
		name_bytes = strcspn(path, "/");
		ret[bytes] = '\0';
		if (name_bytes == 2 && memcmp(path, "..", 2) == 0 && can_go_back(ret)) {
			last = strrchr(ret, '/');
			bytes = last ? (size_t)(last - ret) + (last == ret) : 0;
			continue;
		}
		if (bytes && ret[bytes - 1] != '/')
			ret[bytes++] = '/';
		memcpy(ret + bytes, path, name_bytes);
		bytes += name_bytes;
	}
	if (!bytes)
		ret[bytes++] = '.';
	ret[bytes] = '\0';
	return ret;
}
