/* SPDX-License-Identifier: MIT */
/* Reads the state of threads from /proc. */
#include "fs/mount/task_state.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PF_EXITING = 4 }; /* of the flags, in all kernels */

bool wcx_task_is_dying(pid_t task)
{
	unsigned long flags, pending;
	char path[32], text[1024];
	const char *after_name;
	ssize_t bytes;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/stat", (int)task);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bytes = read(fd, text, sizeof text - 1);
	close(fd);
	text[bytes < 0 ? 0 : bytes] = '\0';
	after_name = strrchr(text, ')');
	/* proc(5): fields 9 and 31.  A process that is killed by whatever signal has SIGKILL pending for each of its
	 * threads. */
	if (!after_name ||
	    sscanf(after_name,
		   ") %*s %*s %*s %*s %*s %*s %lu %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
		   "%*s %*s %*s %*s %*s %*s %lu",
		   &flags, &pending) != 2)
		return false;
	return flags & PF_EXITING || pending & 1UL << (SIGKILL - 1);
}
