/* SPDX-License-Identifier: MIT */
/* Makes a directory beside its name, and renames it when it is whole. */
#include "fs/base/output_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/file_io.h"
#include "fs/base/output_file.h"
#include "fs/base/path.h"
#include "fs/base/walk.h"

enum { NAME_TRIES = 100 };

static int fail_on(struct wcx_error *err, const char *path, int errnum)
{
	return wcx_fail(err, errnum, "%s: %s", path, strerror(errnum));
}

static bool is_mount_point(const char *path)
{
	struct statx st;

	return statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 0, &st) == 0 &&
	       st.stx_attributes & st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT; /* since Linux 5.8 */
}

/* Goes through a tree to what is mounted in it or to what cannot be listed, if there is any. */
static bool find_mount(struct wcx_walk *walk, const char *path)
{
	wcx_walk_begin(walk, path, WCX_WALK_TYPES);
	while (wcx_walk_next(walk))
		if (walk->kind == WCX_WALK_PROBLEM || (walk->kind != WCX_WALK_END && is_mount_point(walk->path)))
			return true;
	return false;
}

static int is_shown(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* By descriptors, so that a directory which somebody exchanges for a link meanwhile leads to nothing else. */
static void remove_entry(int directory_fd, const char *name, dev_t device)
{
	struct dirent **entries = NULL;
	int fd, count = 0;
	struct stat st;

	if (unlinkat(directory_fd, name, 0) == 0)
		return;
	fd = openat(directory_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == device)
		count = scandirat(fd, ".", &entries, is_shown, alphasort);
	for (int i = 0; i < count; i++) {
		remove_entry(fd, entries[i]->d_name, device); /* what stays makes its directory stay, too */
		free(entries[i]);
	}
	free(entries);
	if (fd >= 0)
		close(fd);
	unlinkat(directory_fd, name, AT_REMOVEDIR);
}

/* A tree in which something is mounted stays: a device number does not tell a bind mount of the same file system. */
static void remove_tree(const char *path)
{
	struct wcx_walk walk;
	const bool stays = find_mount(&walk, path);
	struct stat st;

	wcx_walk_end(&walk);
	if (!stays && lstat(path, &st) == 0)
		remove_entry(AT_FDCWD, path, st.st_dev);
}

/* Removes trees in a directory that no process holds. */
static void remove_abandoned(const char *parent)
{
	DIR *directory = opendir(parent);
	const struct dirent *entry;
	char *path;

	while (directory && (entry = readdir(directory))) {
		int fd;

		if (!wcx_is_temporary_name(entry->d_name) || asprintf(&path, "%s/%s", parent, entry->d_name) < 0)
			continue;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			remove_tree(path);
		if (fd >= 0)
			close(fd);
		free(path);
	}
	if (directory)
		closedir(directory);
}

static bool is_empty(const char *path)
{
	DIR *directory = opendir(path);
	size_t count = 0;

	while (directory && readdir(directory))
		count++;
	if (directory)
		closedir(directory);
	return directory && count == 2; /* . and .. */
}

/* What is replaced is removed with all that is in it. */
static int check_mounts(const char *path, struct wcx_error *err)
{
	struct wcx_walk walk;
	int r = 0;

	if (find_mount(&walk, path))
		r = walk.kind == WCX_WALK_PROBLEM
			    ? wcx_fail(err, walk.errnum, "%s: not replaced, since it cannot be listed: %s", walk.path,
				       strerror(walk.errnum))
			    : wcx_fail(err, EBUSY, "%s: is not replaced, as something is mounted at %s", path, walk.path);
	wcx_walk_end(&walk);
	return r;
}

static int check_path(const char *path, bool replace, const char *mark, struct wcx_error *err)
{
	struct stat st;
	char *marked;
	int r = 0;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : fail_on(err, path, errno);
	if (!S_ISDIR(st.st_mode))
		return wcx_fail(err, ENOTDIR, "%s: exists and is no directory", path);
	if (is_empty(path))
		return 0;
	if (!replace)
		return wcx_fail(err, EEXIST, "%s: exists already; --force replaces it", path);
	if (asprintf(&marked, "%s/%s", path, mark) < 0)
		return fail_on(err, path, ENOMEM);
	if (access(marked, F_OK) < 0)
		r = wcx_fail(err, EEXIST, "%s: is not replaced, as it has no %s", path, mark);
	free(marked);
	return r ? r : check_mounts(path, err);
}

/* Locks a directory that was just made; false: another process took it for abandoned before. */
static bool lock(const char *path, int fd)
{
	struct stat by_fd, by_name;

	/* Some network file systems have no locks: there nobody takes it for abandoned. */
	return (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) && fstat(fd, &by_fd) == 0 &&
	       lstat(path, &by_name) == 0 && by_fd.st_ino == by_name.st_ino;
}

/* The temporary name of a tree in a directory, which exists then, with a lock. */
static int make_beside(struct wcx_output_tree *tree, const char *parent, struct wcx_error *err)
{
	char name[WCX_TEMPORARY_NAME_BYTES];
	int errnum = EEXIST;

	for (int i = 0; i < NAME_TRIES; i++) {
		wcx_make_temporary_name(name);
		free(tree->temporary);
		if (asprintf(&tree->temporary, "%s/%s", parent, name) < 0) {
			tree->temporary = NULL;
			return fail_on(err, tree->path, ENOMEM);
		}
		if (mkdir(tree->temporary, S_IRWXU) < 0) {
			errnum = errno;
			if (errnum == EEXIST)
				continue;
			break;
		}
		tree->fd = open(tree->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (tree->fd >= 0 && lock(tree->temporary, tree->fd))
			return 0;
		if (tree->fd >= 0)
			close(tree->fd);
		else if (errno != ENOENT)
			return fail_on(err, tree->temporary, errno);
		tree->fd = -1;
	}
	free(tree->temporary);
	tree->temporary = NULL;
	if (errnum == ENOENT)
		return wcx_fail(err, ENOENT, "%s: output directory %s does not exist", tree->path, parent);
	return fail_on(err, parent, errnum);
}

int wcx_output_tree_create(struct wcx_output_tree *tree, const char *path, bool replace, const char *mark,
			   struct wcx_error *err)
{
	char *parent = wcx_directory_of(path);
	int r;

	*tree = (struct wcx_output_tree){ .path = path, .fd = -1, .replace = replace };
	r = parent ? check_path(path, replace, mark, err) : fail_on(err, path, ENOMEM);
	if (r == 0) {
		remove_abandoned(parent);
		r = make_beside(tree, parent, err);
	}
	free(parent);
	if (r < 0 && tree->temporary)
		wcx_output_tree_discard(tree);
	return r;
}

static void release(struct wcx_output_tree *tree)
{
	if (tree->fd >= 0)
		close(tree->fd);
	free(tree->temporary);
	*tree = (struct wcx_output_tree){ .fd = -1 };
}

/* What a directory has besides its contents, but for its times: that of the one that is replaced, or of the source. */
static int copy_metadata(const struct wcx_output_tree *tree, const char *source_path)
{
	int fd = open(tree->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		fd = open(source_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = wcx_file_metadata_copy(fd, tree->fd, tree->path, NULL, NULL);
	close(fd);
	return r == 0 && futimens(tree->fd, NULL) < 0 ? -errno : r;
}

static int sync_parent(const struct wcx_output_tree *tree)
{
	char *parent = wcx_directory_of(tree->path);
	const int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	const int r = fd < 0 ? -errno : wcx_sync_directory(fd);

	if (fd >= 0)
		close(fd);
	free(parent);
	return r;
}

/* Renames in up to two steps; afterwards the old directory, if there was one, has the temporary name. */
static int exchange(const struct wcx_output_tree *tree)
{
	char *aside;
	int r = 0;

	if (rename(tree->temporary, tree->path) == 0) /* also over an empty directory */
		return 0;
	if ((errno != ENOTEMPTY && errno != EEXIST) || !tree->replace)
		return -errno;
	if (renameat2(AT_FDCWD, tree->temporary, AT_FDCWD, tree->path, RENAME_EXCHANGE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (asprintf(&aside, "%s.old", tree->temporary) < 0)
		return -ENOMEM;
	if (rename(tree->path, aside) < 0) {
		r = -errno;
	} else if (rename(tree->temporary, tree->path) < 0) {
		r = -errno;
		rename(aside, tree->path);
	} else {
		rename(aside, tree->temporary);
	}
	free(aside);
	return r;
}

int wcx_output_tree_commit(struct wcx_output_tree *tree, const char *source_path, struct wcx_error *err)
{
	int r = copy_metadata(tree, source_path);

	if (r == 0)
		r = wcx_sync_directory(tree->fd);
	if (r == 0)
		r = exchange(tree);
	if (r < 0)
		return fail_on(err, tree->path, -r);
	if (sync_parent(tree) == 0 && tree->replace)
		remove_tree(tree->temporary); /* what was replaced */
	release(tree);
	return 0;
}

void wcx_output_tree_discard(struct wcx_output_tree *tree)
{
	if (tree->temporary)
		remove_tree(tree->temporary);
	release(tree);
}
