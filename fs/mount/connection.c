/* SPDX-License-Identifier: MIT */
/* Finds and aborts the connection of a FUSE mount. */
#include "fs/mount/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000U /* since Linux 6.8; before, the id of a later mount may be the same */
#endif

/* Undoes mountinfo's \ooo escapes of white space. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++, to++) {
		unsigned code;

		if (*text == '\\' && sscanf(text + 1, "%3o", &code) == 1) {
			*to = (char)code;
			text += 3;
		} else {
			*to = *text;
		}
	}
	*to = '\0';
}

int wcx_connection_number(const char *mountpoint)
{
	FILE *mounts = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *path = NULL;
	size_t capacity = 0;
	int found = -1, major, minor;

	while (mounts && getline(&line, &capacity, mounts) >= 0) {
		if (sscanf(line, "%*d %*d %d:%d %*s %ms", &major, &minor, &path) != 3)
			continue;
		unescape(path);
		if (strcmp(path, mountpoint) == 0)
			found = major == 0 ? minor : -1; /* the last match is the topmost */
		free(path);
		path = NULL;
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return found;
}

/* The id of the mount at an absolute path, or with "" of that of a descriptor; 0 if it is not told.  Makes no request. */
static uint64_t mount_id_of(int fd, const char *path)
{
	const int flags = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC;
	struct statx stat_buf;

	return statx(fd, path, flags, STATX_MNT_ID_UNIQUE, &stat_buf) ? 0 : stat_buf.stx_mnt_id;
}

/* Opens what is mounted at a path, without a request to it. */
static int open_mount(const char *mountpoint)
{
	return open(mountpoint, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Unmounts what was opened, whatever is at its path by now: 0 or -errno. */
static int unmount_opened(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return umount2(path, flags) ? -errno : 0;
}

void wcx_connection_find(const char *mountpoint, struct wcx_connection *ret)
{
	char path[64];

	ret->number = wcx_connection_number(mountpoint);
	ret->mount_id = mount_id_of(AT_FDCWD, mountpoint);
	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%d/abort", ret->number);
	ret->abort_fd = ret->number >= 0 ? open(path, O_WRONLY | O_CLOEXEC) : -1;
}

void wcx_connection_abort(const struct wcx_connection *connection, const char *mountpoint)
{
	int fd;

	if (connection->abort_fd >= 0 && write(connection->abort_fd, "1", 1) == 1)
		return;
	if (connection->abort_fd >= 0 || connection->number < 0)
		return;
	/* A forced unmount first aborts the connection; this descriptor then keeps the mount busy. */
	fd = open_mount(mountpoint);
	if (fd < 0)
		return;
	if (mount_id_of(fd, "") == connection->mount_id && wcx_connection_number(mountpoint) == connection->number)
		unmount_opened(fd, MNT_FORCE);
	close(fd);
}

/* The number of the connection behind a descriptor of /dev/fuse, or -1. */
static int number_of(int fuse_fd)
{
	char path[64], line[128];
	int number = -1;
	FILE *info;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fuse_fd);
	info = fopen(path, "re");
	while (info && number < 0 && fgets(line, sizeof line, info))
		if (sscanf(line, "fuse_connection: %d", &number) != 1)
			number = -1;
	if (info)
		fclose(info);
	return number;
}

int wcx_connection_mountpoint(int fuse_fd, char **path_ret)
{
	const int number = number_of(fuse_fd);
	FILE *mounts = number < 0 ? NULL : fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *path = NULL;
	size_t capacity = 0;
	int major, minor, r = -ENOENT;

	while (mounts && r == -ENOENT && getline(&line, &capacity, mounts) >= 0) {
		if (sscanf(line, "%*d %*d %d:%d %*s %ms", &major, &minor, &path) == 3 && major == 0 && minor == number) {
			unescape(path);
			*path_ret = path;
			path = NULL;
			r = strstr(line, "allow_other") && !strstr(line, "default_permissions") ? -EPERM : 0;
		}
		free(path);
		path = NULL;
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return r;
}

bool wcx_connection_is_alive(int fuse_fd)
{
	struct pollfd pollfd = { .fd = fuse_fd, .events = POLLIN };

	return fuse_fd >= 0 && poll(&pollfd, 1, 0) >= 0 && !(pollfd.revents & (POLLERR | POLLNVAL));
}

int wcx_connection_unmount_at(int fuse_fd, const char *mountpoint, int number)
{
	const int fd = open_mount(mountpoint);
	struct statx stat_buf;
	int r = fd < 0 ? -errno : 0;

	/* Who asks for nothing learns the device, without a request. */
	if (!r && statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &stat_buf))
		r = -errno;
	/* In this order: what is held keeps its number, and nothing else has it while the connection is alive. */
	if (!r && (stat_buf.stx_dev_major || (int)stat_buf.stx_dev_minor != number || !wcx_connection_is_alive(fuse_fd)))
		r = -ENOENT;
	if (!r)
		r = unmount_opened(fd, MNT_DETACH);
	if (fd >= 0)
		close(fd);
	return r;
}

void wcx_connection_unmount(int fuse_fd)
{
	char *path = NULL;

	wcx_connection_mountpoint(fuse_fd, &path);
	if (path)
		wcx_connection_unmount_at(fuse_fd, path, number_of(fuse_fd));
	free(path);
}

bool wcx_connection_exists(const char *mountpoint)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *entry;
	bool found = false;

	while (mounts && !found && (entry = getmntent(mounts)))
		found = !strcmp(entry->mnt_type, "fuse.wcxfs") && !strcmp(entry->mnt_dir, mountpoint);
	if (mounts)
		endmntent(mounts);
	return found;
}

bool wcx_connection_is_dead(const char *path)
{
	struct statfs statfs_buf;

	return statfs(path, &statfs_buf) && (errno == ENOTCONN || errno == ECONNABORTED);
}
