/* SPDX-License-Identifier: MIT */
/* Opens the log and the pid file, and opens or removes them again by name. */
#include "fs/mount/named_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/same_file.h"

enum { PID_FILE_MODE = 0644 };

static int open_name(const struct wcx_named_file *file, int flags, mode_t mode)
{
	const int fd = openat(file->dir_fd, file->name, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags, mode);

	return fd < 0 ? -errno : fd;
}

int wcx_named_file_open(struct wcx_named_file *file, const char *path, int flags, mode_t mode, struct wcx_error *err)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int r = -ENOMEM;

	*file = (struct wcx_named_file)WCX_NAMED_FILE_INIT;
	file->name = strdup(slash ? slash + 1 : path);
	if (dir && file->name) {
		file->dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		r = file->dir_fd < 0 ? -errno : open_name(file, flags | O_CREAT | O_EXCL, mode);
		file->is_new = r >= 0;
	}
	if (r == -EEXIST)
		r = open_name(file, flags, mode);
	if (r >= 0) {
		file->fd = r;
		r = 0;
	} else {
		wcx_fail(err, -r, "%s: %s", path, strerror(-r));
		wcx_named_file_close(file);
	}
	free(dir);
	return r;
}

int wcx_named_file_reopen(struct wcx_named_file *file, int flags, mode_t mode)
{
	const int fd = open_name(file, flags | O_CREAT, mode);
	int r;

	if (fd < 0)
		return fd;
	r = dup3(fd, file->fd, O_CLOEXEC) < 0 ? -errno : 0;
	close(fd);
	return r;
}

void wcx_named_file_close(struct wcx_named_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->dir_fd >= 0)
		close(file->dir_fd);
	free(file->name);
	*file = (struct wcx_named_file)WCX_NAMED_FILE_INIT;
}

int wcx_pid_file_open(struct wcx_named_file *file, const char *path, struct wcx_error *err)
{
	return wcx_named_file_open(file, path, 0, PID_FILE_MODE, err);
}

int wcx_pid_file_write(struct wcx_named_file *file)
{
	char text[16];
	const int chars = snprintf(text, sizeof text, "%d\n", (int)getpid());

	if (ftruncate(file->fd, 0) || pwrite(file->fd, text, (size_t)chars, 0) != chars)
		return errno ? -errno : -EIO;
	file->is_new = false;
	return 0;
}

/* Whether the file of that name is ours, and not one that another daemon has made or written since. */
static bool is_own(const struct wcx_named_file *file)
{
	const int fd = openat(file->dir_fd, file->name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	char text[16] = "";
	struct stat st, open_st;
	bool own = fd >= 0 && !fstat(fd, &st) && !fstat(file->fd, &open_st) && S_ISREG(st.st_mode) &&
		   wcx_is_same_file(&st, &open_st);

	if (own && !file->is_new)
		own = read(fd, text, sizeof text - 1) > 0 && strtol(text, NULL, 10) == getpid();
	else if (own)
		own = st.st_size == 0;
	if (fd >= 0)
		close(fd);
	return own;
}

void wcx_pid_file_remove(struct wcx_named_file *file)
{
	if (file->fd >= 0 && is_own(file) && unlinkat(file->dir_fd, file->name, 0) && ftruncate(file->fd, 0))
		errno = 0; /* the number of a process that is gone stays */
	wcx_named_file_close(file);
}
