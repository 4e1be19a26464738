/* SPDX-License-Identifier: MIT */
/* Reads the state of threads from /proc. */
#include "fs/mount/task_state.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"

enum { PF_EXITING = 4 }; /* of the flags, in all kernels */

/* By default these end the process, but only once a thread takes them: the kernel first dumps core. */
static const int dumping_signals[] = {
	SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, SIGXCPU, SIGXFSZ
};

/* Reads a file that /proc has of a thread, as a string; empty if there is none. */
static void read_of_task(pid_t task, const char *name, char *text, size_t text_bytes)
{
	char path[48];
	ssize_t bytes;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)task, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	bytes = fd < 0 ? 0 : read(fd, text, text_bytes - 1);
	if (fd >= 0)
		close(fd);
	text[bytes < 0 ? 0 : bytes] = '\0';
}

/* proc(5): fields 9 and 31.  What is killed by another signal than those above has SIGKILL pending for each thread. */
static bool is_exiting(pid_t task)
{
	unsigned long flags, pending;
	const char *after_name;
	char text[1024];

	read_of_task(task, "stat", text, sizeof text);
	after_name = strrchr(text, ')');
	if (!after_name ||
	    sscanf(after_name,
		   ") %*s %*s %*s %*s %*s %*s %lu %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
		   "%*s %*s %*s %*s %*s %*s %lu",
		   &flags, &pending) != 2)
		return false;
	return flags & PF_EXITING || pending & 1UL << (SIGKILL - 1);
}

static unsigned long signals_of(const char *status, const char *label)
{
	const char *at = strstr(status, label);

	return at ? strtoul(at + strlen(label), NULL, 16) : 0;
}

static bool is_to_dump(pid_t task)
{
	unsigned long deadly = 0;
	char text[4096];

	read_of_task(task, "status", text, sizeof text);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(dumping_signals); i++)
		deadly |= 1UL << (dumping_signals[i] - 1);
	deadly &= signals_of(text, "\nSigPnd:") | signals_of(text, "\nShdPnd:");
	return deadly & ~(signals_of(text, "\nSigBlk:") | signals_of(text, "\nSigIgn:") | signals_of(text, "\nSigCgt:"));
}

bool wcx_task_is_dying(pid_t task)
{
	return is_exiting(task) || is_to_dump(task);
}
