/* SPDX-License-Identifier: MIT */
/* Writes a file under a temporary name, and renames it when it is complete. */
#include "fs/base/output_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/file_io.h"

static int fail(const struct wcx_output_file *file, struct wcx_error *err)
{
	return wcx_fail(err, errno, "%s: %s", file->path, strerror(errno));
}

/* The directory of path; the caller frees it. */
static char *directory_of(const char *path)
{
	char *copy = strdup(path), *directory = copy ? strdup(dirname(copy)) : NULL;

	free(copy);
	return directory;
}

static int check_path(const struct wcx_output_file *file, struct wcx_error *err)
{
	struct stat st;

	if (stat(file->path, &st) == 0) {
		if (st.st_dev == file->source->st_dev && st.st_ino == file->source->st_ino)
			return wcx_fail(err, EINVAL, "%s: is the source", file->path);
		if (S_ISDIR(st.st_mode))
			return wcx_fail(err, EISDIR, "%s: is a directory", file->path);
		if (!S_ISREG(st.st_mode)) /* even with replace: never a device */
			return wcx_fail(err, EINVAL, "%s: not a regular file", file->path);
	}
	if (!file->replace && lstat(file->path, &st) == 0)
		return wcx_fail(err, EEXIST, "%s: exists already", file->path);
	return 0;
}

int wcx_output_create(struct wcx_output_file *file, const char *path, const struct stat *source, bool replace,
		      struct wcx_error *err)
{
	char *directory = directory_of(path);
	int r;

	*file = (struct wcx_output_file){ .fd = -1, .path = path, .source = source, .replace = replace };
	r = check_path(file, err);
	if (r == 0 && (!directory || asprintf(&file->temporary_path, "%s/.wcx-XXXXXX", directory) < 0)) {
		file->temporary_path = NULL;
		r = wcx_fail(err, ENOMEM, "%s: no memory", path);
	}
	free(directory);
	if (r < 0)
		return r;
	file->fd = mkostemp(file->temporary_path, O_CLOEXEC);
	if (file->fd < 0) {
		r = fail(file, err);
		free(file->temporary_path);
		file->temporary_path = NULL;
	}
	return r;
}

int wcx_output_write(const struct wcx_output_file *file, const void *src, size_t bytes, uint64_t offset,
		     struct wcx_error *err)
{
	int r = wcx_write_at(file->fd, src, bytes, offset);

	return r < 0 ? wcx_fail(err, -r, "%s: %s", file->path, strerror(-r)) : 0;
}

/* Renames the temporary file.  Without replace, a file that has appeared under the name meanwhile is an error. */
static int rename_output(const struct wcx_output_file *file)
{
	if (file->replace)
		return rename(file->temporary_path, file->path);
	if (renameat2(AT_FDCWD, file->temporary_path, AT_FDCWD, file->path, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL)
		return -1;
	/* The file system has no RENAME_NOREPLACE.  A link replaces nothing either. */
	if (link(file->temporary_path, file->path) < 0)
		return -1;
	unlink(file->temporary_path);
	return 0;
}

/*
 * Makes the new name durable.  Cuts path to its directory.  Failure is no error: not every file system can sync a directory,
 * and the data are synced.
 */
static void sync_directory(char *path)
{
	int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
}

int wcx_output_commit(struct wcx_output_file *file, struct wcx_error *err)
{
	const struct timespec times[2] = { file->source->st_atim, file->source->st_mtim };

	if (fchmod(file->fd, file->source->st_mode & 0777) < 0 || futimens(file->fd, times) < 0 || fsync(file->fd) < 0 ||
	    rename_output(file) < 0)
		return fail(file, err);
	sync_directory(file->temporary_path); /* the same directory */
	close(file->fd);
	free(file->temporary_path);
	return 0;
}

void wcx_output_discard(struct wcx_output_file *file)
{
	unlink(file->temporary_path);
	close(file->fd);
	free(file->temporary_path);
}
