/* SPDX-License-Identifier: MIT */
/* Writes a file without a name, or under a temporary one, and names it when it is whole. */
#include "fs/base/output_file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/base/file_io.h"
#include "fs/base/same_file.h"

enum { NAME_TRIES = 100 };

static const char prefix[] = ".wcx-tmp-";
static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";

static const char *shown(const struct wcx_output_file *file)
{
	return file->options.shown_path ? file->options.shown_path : file->options.path;
}

static int fail(const struct wcx_output_file *file, int errnum, struct wcx_error *err)
{
	return wcx_fail(err, errnum, "%s: %s", shown(file), strerror(errnum));
}

/* The directory does not exist, or cannot be opened: names it, not the output. */
static int fail_directory(const struct wcx_output_file *file, int errnum, struct wcx_error *err)
{
	const char *path = shown(file), *slash = strrchr(path, '/');
	const int bytes = slash ? (int)(slash - path) : 0;

	if (errnum == ENOENT && bytes)
		return wcx_fail(err, errnum, "%s: output directory %.*s does not exist", path, bytes, path);
	return fail(file, errnum, err);
}

bool wcx_is_temporary_name(const char *name)
{
	const size_t bytes = sizeof prefix - 1;

	return strncmp(name, prefix, bytes) == 0 && strlen(name) == WCX_TEMPORARY_NAME_BYTES - 1 &&
	       strspn(name + bytes, letters) == WCX_TEMPORARY_NAME_BYTES - 1 - bytes;
}

void wcx_make_temporary_name(char name[WCX_TEMPORARY_NAME_BYTES])
{
	unsigned char random[WCX_TEMPORARY_NAME_BYTES - sizeof prefix];

	if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
		memset(random, 0, sizeof random); /* a name in use is found out by O_EXCL */
	memcpy(name, prefix, sizeof prefix - 1);
	for (size_t i = 0; i < sizeof random; i++)
		name[sizeof prefix - 1 + i] = letters[random[i] % (sizeof letters - 1)];
	name[WCX_TEMPORARY_NAME_BYTES - 1] = '\0';
}

bool wcx_output_folds_case(int directory_fd)
{
	char name[WCX_TEMPORARY_NAME_BYTES], other[WCX_TEMPORARY_NAME_BYTES];
	struct stat st;
	bool ret;
	int fd;

	wcx_make_temporary_name(name);
	for (size_t i = 0; i < sizeof name; i++)
		other[i] = (char)toupper((unsigned char)name[i]);
	fd = openat(directory_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return false;
	ret = fstatat(directory_fd, other, &st, AT_SYMLINK_NOFOLLOW) == 0;
	unlinkat(directory_fd, name, 0);
	close(fd);
	return ret;
}

/* Whether a path is a link to a descriptor, as /dev has: what would be replaced is the link, for everybody. */
static bool is_descriptor(const char *path)
{
	static const char process[] = "/proc/";
	char text[sizeof process];

	return readlink(path, text, sizeof text) == (ssize_t)sizeof text && memcmp(text, process, strlen(process)) == 0;
}

static int check_path(const struct wcx_output_file *file, struct wcx_error *err)
{
	const char *path = file->options.path;
	struct stat source, st;

	if (fstat(file->options.source_fd, &source) < 0)
		return fail(file, errno, err);
	if (!*path || path[strlen(path) - 1] == '/')
		return wcx_fail(err, EISDIR, "%s: is a directory", shown(file));
	if (stat(path, &st) == 0) {
		if (!file->options.replaces_source && wcx_is_same_file(&st, &source))
			return wcx_fail(err, EINVAL, "%s: is the source", shown(file));
		if (S_ISDIR(st.st_mode))
			return wcx_fail(err, EISDIR, "%s: is a directory", shown(file));
		if (!S_ISREG(st.st_mode) || is_descriptor(path)) /* even if forced: not a device for a file of its name */
			return wcx_fail(err, EINVAL, "%s: not a regular file", shown(file));
	}
	if (!file->options.replace && lstat(path, &st) == 0)
		return wcx_fail(err, EEXIST, "%s: exists already", shown(file));
	return 0;
}

/* Opens the directory that the path is in, and finds the name there. */
static int open_directory(struct wcx_output_file *file, struct wcx_error *err)
{
	char *copy = strdup(file->options.path);
	int r = 0;

	file->path_copy = strdup(file->options.path);
	if (!copy || !file->path_copy) {
		r = fail(file, ENOMEM, err);
	} else {
		file->name = basename(file->path_copy);
		file->directory_fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (file->directory_fd < 0)
			r = fail_directory(file, errno, err);
	}
	free(copy);
	return r;
}

/* Whoever writes a file with a temporary name holds a lock on it, which ends with the process. */
void wcx_output_tidy(int directory_fd)
{
	const int copy = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = copy < 0 ? NULL : fdopendir(copy);
	const struct dirent *entry;

	if (!directory) {
		if (copy >= 0)
			close(copy);
		return;
	}
	while ((entry = readdir(directory))) {
		int fd = -1;

		if (wcx_is_temporary_name(entry->d_name))
			fd = openat(directory_fd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			unlinkat(directory_fd, entry->d_name, 0);
		close(fd);
	}
	closedir(directory);
}

/* A file with a temporary name and a lock; again if another process took it for abandoned in between. */
static int create_named(struct wcx_output_file *file)
{
	int errnum = EEXIST;

	for (int i = 0; i < NAME_TRIES; i++) {
		struct stat by_fd, by_name;
		int fd;

		wcx_make_temporary_name(file->temporary_name);
		fd = openat(file->directory_fd, file->temporary_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 && errno == EEXIST)
			continue;
		errnum = errno;
		if (fd < 0)
			break;
		/* Some network file systems have no locks: there nobody takes it for abandoned. */
		if ((flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) && fstat(fd, &by_fd) == 0 &&
		    fstatat(file->directory_fd, file->temporary_name, &by_name, 0) == 0 && by_fd.st_ino == by_name.st_ino) {
			file->fd = fd;
			return 0;
		}
		close(fd);
	}
	file->temporary_name[0] = '\0';
	return -errnum;
}

/* The path by which an unnamed file can be linked. */
static void descriptor_path(int fd, char path[32])
{
	snprintf(path, 32, "/proc/self/fd/%d", fd);
}

/* A file without a name that can be given one later; -1 where there is no such thing. */
static int create_unnamed(int directory_fd)
{
	const int fd = openat(directory_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char path[32];

	if (fd < 0)
		return -1;
	descriptor_path(fd, path);
	if (access(path, F_OK) == 0)
		return fd;
	close(fd);
	return -1;
}

static void release(struct wcx_output_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->directory_fd >= 0)
		close(file->directory_fd);
	free(file->path_copy);
	file->fd = file->directory_fd = -1;
	file->path_copy = NULL;
}

int wcx_output_create(struct wcx_output_file *file, const struct wcx_output_options *options, struct wcx_error *err)
{
	int r;

	*file = (struct wcx_output_file){ .fd = -1, .directory_fd = -1, .options = *options };
	r = check_path(file, err);
	if (r == 0)
		r = open_directory(file, err);
	if (r == 0) {
		if (!options->is_tidy)
			wcx_output_tidy(file->directory_fd);
		file->fd = create_unnamed(file->directory_fd);
		if (file->fd < 0) {
			r = create_named(file);
			r = r < 0 ? fail(file, -r, err) : 0;
		}
	}
	if (r < 0)
		release(file);
	return r;
}

uint64_t wcx_free_bytes(int fd)
{
	struct statvfs fs;

	if (fstatvfs(fd, &fs) < 0 || fs.f_blocks == 0)
		return UINT64_MAX;
	return (uint64_t)(geteuid() == 0 ? fs.f_bfree : fs.f_bavail) * fs.f_frsize;
}

int wcx_output_check_space(const struct wcx_output_file *file, uint64_t bytes, struct wcx_error *err)
{
	const uint64_t free_bytes = wcx_free_bytes(file->fd);

	if (bytes <= free_bytes)
		return 0;
	return wcx_fail(err, ENOSPC, "%s: needs %llu bytes, %llu are free", shown(file), (unsigned long long)bytes,
			(unsigned long long)free_bytes);
}

int wcx_output_write(const struct wcx_output_file *file, const void *src, size_t bytes, uint64_t offset,
		     struct wcx_error *err)
{
	const int r = wcx_write_at(file->fd, src, bytes, offset);

	return r < 0 ? fail(file, -r, err) : 0;
}

void wcx_output_start_sync(const struct wcx_output_file *file, uint64_t bytes, uint64_t offset)
{
	sync_file_range(file->fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE); /* commit tells of errors */
}

/* Links an unnamed file to a name that must not exist; 0 or -errno. */
static int link_unnamed(const struct wcx_output_file *file, const char *name)
{
	char path[32];

	descriptor_path(file->fd, path);
	return linkat(AT_FDCWD, path, file->directory_fd, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

/*
 * Gives the file a temporary name, since a link cannot replace anything.  Locked before that, or another output in this
 * directory takes it for abandoned.
 */
static int name_temporarily(struct wcx_output_file *file)
{
	int r = -EEXIST;

	flock(file->fd, LOCK_EX | LOCK_NB); /* where there are no locks, nobody takes it for abandoned */
	for (int i = 0; i < NAME_TRIES && r == -EEXIST; i++) {
		wcx_make_temporary_name(file->temporary_name);
		r = link_unnamed(file, file->temporary_name);
	}
	if (r < 0)
		file->temporary_name[0] = '\0';
	return r;
}

static int move_named(const struct wcx_output_file *file)
{
	return renameat(file->directory_fd, file->temporary_name, file->directory_fd, file->name) == 0 ? 0 : -errno;
}

/* The same, but without replacing anything: by whichever of three ways the file system has. */
static int move_named_to_new(const struct wcx_output_file *file)
{
	const int directory_fd = file->directory_fd;
	struct stat st;

	if (renameat2(directory_fd, file->temporary_name, directory_fd, file->name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (linkat(directory_fd, file->temporary_name, directory_fd, file->name, 0) == 0) {
		unlinkat(directory_fd, file->temporary_name, 0);
		return 0;
	}
	if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
		return -errno;
	/* A file that appears between the look and the renaming would be replaced: nothing prevents that here. */
	if (fstatat(directory_fd, file->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return move_named(file);
}

static int name_output(struct wcx_output_file *file)
{
	int r = 0;

	if (!file->options.replace)
		return file->temporary_name[0] ? move_named_to_new(file) : link_unnamed(file, file->name);
	if (!file->temporary_name[0])
		r = name_temporarily(file);
	return r < 0 ? r : move_named(file);
}

int wcx_output_commit(struct wcx_output_file *file, struct wcx_error *err)
{
	const struct wcx_output_options *options = &file->options;
	int r = wcx_file_metadata_copy(options->source_fd, file->fd, shown(file), options->warn, options->user);

	if (r == 0 && fsync(file->fd) < 0)
		r = -errno;
	if (r == 0)
		r = name_output(file);
	if (r < 0)
		return fail(file, -r, err);
	fsync(file->directory_fd); /* not every file system can, and the data are safe already */
	release(file);
	return 0;
}

void wcx_output_discard(struct wcx_output_file *file)
{
	if (file->temporary_name[0])
		unlinkat(file->directory_fd, file->temporary_name, 0);
	release(file);
}
