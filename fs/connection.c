/* SPDX-License-Identifier: MIT */
/* The kernel's side of a mount. */
#include "fs/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

/* Undoes the \ooo that mountinfo has in the place of blanks. */
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
	size_t room = 0;
	int found = -1, minor;

	while (mounts && getline(&line, &room, mounts) >= 0) {
		if (sscanf(line, "%*d %*d 0:%d %*s %ms", &minor, &path) != 2)
			continue;
		unescape(path);
		if (strcmp(path, mountpoint) == 0)
			found = minor; /* the last one is on top */
		free(path);
		path = NULL;
	}
	free(line);
	if (mounts)
		fclose(mounts);
	return found;
}

int wcx_connection_abort(int number, const char *mountpoint)
{
	char path[64];
	int fd, ret;

	snprintf(path, sizeof path, "/sys/fs/fuse/connections/%d/abort", number);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ret = fd >= 0 && write(fd, "1", 1) == 1 ? 0 : -errno;
	if (fd >= 0)
		close(fd);
	/* That file system need not be mounted.  Forcing an unmounting aborts first, whether or not there are users. */
	if (ret && number >= 0 && wcx_connection_number(mountpoint) == number)
		ret = umount2(mountpoint, MNT_FORCE) && errno != EBUSY ? -errno : 0;
	return ret;
}
