/* SPDX-License-Identifier: MIT */
/* Finds and aborts the connection of a FUSE mount. */
#include "fs/mount/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

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

/* The minor device number of the topmost mount at a path, or -1 if there is none or it has a major number, unlike FUSE. */
static int find_number(const char *mountpoint)
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

void wcx_connection_find(const char *mountpoint, struct wcx_connection *ret)
{
	char path[64];

	ret->number = find_number(mountpoint);
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
	fd = open(mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (find_number(mountpoint) == connection->number)
		umount2(mountpoint, MNT_FORCE);
	close(fd);
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
