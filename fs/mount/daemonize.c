/* SPDX-License-Identifier: MIT */
/* Forks into the background, reports that the daemon is ready, and detaches from the terminal. */
#include "fs/mount/daemonize.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY_FD = 3 }; /* the child's end of the pipe to the parent */

int wcx_daemon_fill_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	return fd < 0 ? -errno : close(fd);
}

/* Moves the pipe to READY_FD, and closes what the caller had open: a daemon must not keep it. */
static int keep_ready_fd(int fd, int kept_fd)
{
	if (fd != READY_FD && dup3(fd, READY_FD, O_CLOEXEC) < 0)
		return -errno;
	if (kept_fd > READY_FD + 1 && close_range(READY_FD + 1, (unsigned)kept_fd - 1, 0))
		return -errno;
	return close_range(kept_fd > READY_FD ? (unsigned)kept_fd + 1 : READY_FD + 1, UINT_MAX, 0) ? -errno : 0;
}

pid_t wcx_daemon_fork(int *ready_fd_ret, int kept_fd, struct wcx_error *err)
{
	int ready[2], r;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC))
		return wcx_fail(err, errno, "pipe: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return wcx_fail(err, errno, "fork: %s", strerror(errno));
	if (pid > 0) {
		close(ready[1]);
		*ready_fd_ret = ready[0];
		return pid;
	}
	r = keep_ready_fd(ready[1], kept_fd);
	return r ? wcx_fail(err, -r, "cannot close descriptors: %s", strerror(-r)) : 0;
}

int wcx_daemon_wait(pid_t pid, int ready_fd, struct wcx_error *err)
{
	ssize_t n;
	int status;
	char byte;

	err->text[0] = '\0';
	do
		n = read(ready_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return EXIT_SUCCESS;
	if (waitpid(pid, &status, 0) != pid)
		return EXIT_FAILURE;
	if (WIFSIGNALED(status))
		wcx_fail(err, EINTR, "killed by signal %d before the store was mounted", WTERMSIG(status));
	return WIFEXITED(status) && WEXITSTATUS(status) != EXIT_SUCCESS ? WEXITSTATUS(status) : EXIT_FAILURE;
}

int wcx_daemon_detach(bool keep_stderr)
{
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null_fd < 0)
		return -errno;
	if (setsid() < 0 || chdir("/") || dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 ||
	    (!keep_stderr && dup2(null_fd, 2) < 0))
		return -errno;
	close(null_fd);
	return 0;
}

int wcx_daemon_report_ready(void)
{
	if (write(READY_FD, "", 1) != 1)
		return -errno;
	close(READY_FD);
	return 0;
}
