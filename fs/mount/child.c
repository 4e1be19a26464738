/* SPDX-License-Identifier: MIT */
/* Forks and signals child processes. */
#include "fs/mount/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

int wcx_child_fork(wcx_child_fn *run, void *user, struct wcx_child *ret)
{
	const pid_t self = getpid();
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0) {
		close(ends[1]);
		run(user, ends[0], self);
		_exit(EXIT_FAILURE);
	}
	close(ends[0]);
	if (pid < 0) {
		close(ends[1]);
		return -EAGAIN;
	}
	*ret = (struct wcx_child){ .pid = pid, .fd = ends[1] };
	return 0;
}

int wcx_child_tell(const struct wcx_child *child, const void *src, size_t bytes)
{
	return !child->pid || write(child->fd, src, bytes) == (ssize_t)bytes ? 0 : -EPIPE;
}

void wcx_child_kill(struct wcx_child *child, int signal_number)
{
	if (!child->pid)
		return;
	kill(child->pid, signal_number);
	close(child->fd);
	child->pid = 0;
}
