/* SPDX-License-Identifier: MIT */
/* Lists a directory tree, and opens its directories, without following a link. */
#include "fs/base/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/output_file.h"

/* A listing on its way. */
struct listing {
	struct wcx_tree *tree;
	wcx_tree_problem_fn *problem;
	void *user;
};

/* name is that of an entry of the directory, or empty for the directory itself. */
static void tell_problem(const struct listing *listing, size_t directory, const char *name, int errnum)
{
	char *path = wcx_tree_path(listing->tree, directory, listing->tree->root_path, *name ? "/" : "");
	struct wcx_error err;

	wcx_fail(&err, errnum, "%s%s: %s", path ? path : "", name, strerror(errnum));
	free(path);
	listing->problem(listing->user, &err);
}

static int add_entry(struct wcx_tree *tree, size_t directory, const char *name, const struct stat *st)
{
	struct wcx_tree_entry *grown =
		wcx_array_reserve(tree->entries, &tree->capacity, tree->count + 1, sizeof *tree->entries);
	char *copy = strdup(name);

	if (grown)
		tree->entries = grown;
	if (!grown || !copy) {
		free(copy);
		return -ENOMEM;
	}
	tree->entries[tree->count] = (struct wcx_tree_entry){
		.name = copy,
		.directory = directory,
		.depth = *name ? tree->entries[directory].depth + 1 : 0,
		.st = *st,
	};
	tree->count++;
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	const struct wcx_tree_entry *x = a, *y = b;

	return strcmp(x->name, y->name);
}

/* Adds what an open directory holds; closes the stream. */
static int list_directory(const struct listing *listing, size_t directory, DIR *stream)
{
	struct wcx_tree *tree = listing->tree;
	const size_t first = tree->count;
	const struct dirent *entry;
	int r = 0;

	while (r == 0 && (errno = 0, entry = readdir(stream))) {
		const char *name = entry->d_name;
		struct stat st;

		if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || wcx_is_temporary_name(name))
			continue;
		if (fstatat(dirfd(stream), name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			r = add_entry(tree, directory, name, &st);
		else if (errno != ENOENT) /* it was removed meanwhile */
			tell_problem(listing, directory, name, errno);
	}
	if (r == 0 && errno)
		tell_problem(listing, directory, "", errno);
	closedir(stream);
	if (tree->count > first)
		qsort(tree->entries + first, tree->count - first, sizeof *tree->entries, compare_names);
	return r;
}

static int visit(const struct listing *listing, size_t entry)
{
	struct wcx_tree *tree = listing->tree;
	DIR *stream = NULL;
	int fd;

	if (!S_ISDIR(tree->entries[entry].st.st_mode))
		return 0;
	if (tree->entries[entry].depth >= WCX_TREE_MAX_DEPTH) {
		tell_problem(listing, entry, "", ENAMETOOLONG);
		return 0;
	}
	fd = wcx_tree_open_directory(tree, entry, tree->root_fd);
	if (fd >= 0)
		stream = fdopendir(fd);
	if (stream)
		return list_directory(listing, entry, stream);
	tell_problem(listing, entry, "", fd < 0 ? -fd : errno);
	if (fd >= 0)
		close(fd);
	return 0;
}

int wcx_tree_list(struct wcx_tree *tree, const char *path, wcx_tree_problem_fn *problem, void *user, const atomic_bool *stop,
		  struct wcx_error *err)
{
	const struct listing listing = { tree, problem, user };
	struct stat st;
	int r;

	*tree = (struct wcx_tree){ .root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .root_path = strdup(path) };
	if (tree->root_fd < 0 || fstat(tree->root_fd, &st) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	r = tree->root_path ? add_entry(tree, 0, "", &st) : -ENOMEM;
	for (size_t i = 0; i < tree->count && r == 0; i++)
		r = stop && *stop ? -EINTR : visit(&listing, i);
	return r < 0 ? wcx_fail(err, -r, "%s: %s", path, r == -EINTR ? "interrupted" : strerror(-r)) : 0;
}

void wcx_tree_free(struct wcx_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++)
		free(tree->entries[i].name);
	free(tree->entries);
	free(tree->root_path);
	if (tree->root_fd >= 0)
		close(tree->root_fd);
	*tree = (struct wcx_tree){ .root_fd = -1 };
}

/* One name after the other. */
static int open_by_steps(int directory_fd, const char *path, int flags)
{
	int fd = fcntl(directory_fd, F_DUPFD_CLOEXEC, 0), r = fd < 0 ? -errno : fd;
	char name[NAME_MAX + 1];

	for (size_t bytes; r >= 0 && *path; path += bytes + strspn(path + bytes, "/")) {
		const int above = r;
		bool is_last;

		bytes = strcspn(path, "/");
		is_last = !path[bytes + strspn(path + bytes, "/")];
		r = -ENAMETOOLONG;
		if (bytes && snprintf(name, sizeof name, "%.*s", (int)bytes, path) < (int)sizeof name) {
			fd = openat(above, name, (is_last ? flags : O_PATH | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC);
			r = fd < 0 ? -errno : fd;
		}
		close(above);
	}
	return r;
}

int wcx_open_without_links(int directory_fd, const char *path, int flags)
{
	const struct open_how how = { .flags = (unsigned)(flags | O_NOFOLLOW | O_CLOEXEC), .resolve = RESOLVE_NO_SYMLINKS };
	const int fd = (int)syscall(SYS_openat2, directory_fd, path, &how, sizeof how);

	/* A kernel before 5.6, or a sandbox that does not know the call. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		return open_by_steps(directory_fd, path, flags);
	return fd < 0 ? -errno : fd;
}

/* Opens a directory below fd, by names with slashes between them, if no name is a link; closes fd.  -errno. */
static int descend(int fd, const char *names)
{
	const int r = wcx_open_without_links(fd, names, O_RDONLY | O_DIRECTORY);

	close(fd);
	return r == -ELOOP ? -ENOTDIR : r; /* as openat says of a link */
}

int wcx_tree_open_directory(const struct wcx_tree *tree, size_t entry, int root_fd)
{
	size_t way[WCX_TREE_MAX_DEPTH + 1];
	const unsigned depth = tree->entries[entry].depth;
	char names[PATH_MAX];
	size_t bytes = 0;
	int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (unsigned i = depth; i > 0; i--, entry = tree->entries[entry].directory)
		way[i] = entry;
	for (unsigned i = 1; i <= depth && fd >= 0; i++) {
		const char *name = tree->entries[way[i]].name;

		bytes += (size_t)sprintf(names + bytes, "%s%s", bytes ? "/" : "", name);
		/* As many names at a time as make a path. */
		if (i == depth || bytes + 1 + NAME_MAX >= sizeof names) {
			fd = descend(fd, names);
			bytes = 0;
		}
	}
	return fd;
}

char *wcx_tree_path(const struct wcx_tree *tree, size_t entry, const char *root_path, const char *end)
{
	size_t bytes = strlen(root_path) + strlen(end) + 1;
	char *path, *at;

	for (size_t i = entry; i > 0; i = tree->entries[i].directory)
		bytes += strlen(tree->entries[i].name) + 1;
	path = malloc(bytes);
	if (!path)
		return NULL;
	at = path + bytes - strlen(end) - 1;
	strcpy(at, end);
	for (size_t i = entry; i > 0; i = tree->entries[i].directory) {
		const size_t name_bytes = strlen(tree->entries[i].name);

		at -= name_bytes;
		memcpy(at, tree->entries[i].name, name_bytes);
		*--at = '/';
	}
	memcpy(path, root_path, strlen(root_path));
	return path;
}
