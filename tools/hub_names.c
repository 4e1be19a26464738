/* SPDX-License-Identifier: MIT */
/* Reads the snapshots of a repository in a Hugging Face cache. */
#include "tools/hub_names.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/path.h"
#include "fs/base/walk.h"

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add(struct wcx_hub_names *names, const char *link_path)
{
	char text[PATH_MAX];
	const ssize_t bytes = readlink(link_path, text, sizeof text - 1);
	const char *slash;
	char **grown;

	if (bytes < 0)
		return errno == ENOENT ? 0 : -errno;
	text[bytes] = '\0';
	slash = strrchr(text, '/');
	grown = wcx_array_reserve(names->names, &names->capacity, names->count + 1, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	names->names = grown;
	grown[names->count] = strdup(slash ? slash + 1 : text);
	if (!grown[names->count])
		return -ENOMEM;
	names->count++;
	return 0;
}

/* Nothing is known of what a link to a directory leads to. */
static bool leads_to_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int wcx_hub_names_read(struct wcx_hub_names *names, const char *cache, const char *repository)
{
	char path[PATH_MAX];
	struct wcx_walk walk;
	int r = 0;

	*names = (struct wcx_hub_names){ 0 };
	if (snprintf(path, sizeof path, "%s/%s/snapshots", cache, repository) >= (int)sizeof path)
		return -ENAMETOOLONG;
	wcx_walk_begin(&walk, path, WCX_WALK_TYPES);
	while (r == 0 && wcx_walk_next(&walk)) {
		if (walk.kind == WCX_WALK_LINK)
			r = leads_to_directory(walk.path) ? -ELOOP : add(names, walk.path);
		else if (walk.kind == WCX_WALK_PROBLEM)
			r = -walk.errnum;
	}
	wcx_walk_end(&walk);
	if (names->count)
		qsort(names->names, names->count, sizeof *names->names, compare);
	return r;
}

void wcx_hub_names_free(struct wcx_hub_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->names[i]);
	free(names->names);
	*names = (struct wcx_hub_names){ 0 };
}

bool wcx_hub_names_has(const struct wcx_hub_names *names, const char *blob)
{
	return names->count && bsearch(&blob, names->names, names->count, sizeof *names->names, compare) != NULL;
}

int wcx_hub_open_lock(const char *path)
{
	const int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666), r = fd < 0 ? -errno : fd;
	char *directory = wcx_directory_of(path);
	struct stat st, above;

	/* A file with contents or other names is no lock: the cache's owner may have linked it there to own it. */
	if (fd >= 0 && geteuid() == 0 && fstat(fd, &st) == 0 && st.st_uid == 0 && !st.st_size && st.st_nlink == 1 &&
	    directory && stat(directory, &above) == 0 && fchown(fd, above.st_uid, above.st_gid) < 0)
		errno = 0; /* it is a lock all the same */
	free(directory);
	return r;
}

int wcx_hub_lock(const char *cache, const char *repository, const char *blob)
{
	char path[2 * PATH_MAX];
	int fd;

	snprintf(path, sizeof path, "%s/.locks/%s/%s.lock", cache, repository, blob);
	fd = wcx_hub_open_lock(path);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
		const int errnum = errno;

		close(fd);
		return -errnum;
	}
	return fd;
}
