/* SPDX-License-Identifier: MIT */
/* A process that reads a part of the mount into the page cache. */
#include "fs/warm_child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_NO_PROGRAM = 127 };

/* Where the program wcx is, if it lies beside this one; otherwise its name. */
static const char *find_program(char path[PATH_MAX])
{
	ssize_t chars = readlink("/proc/self/exe", path, PATH_MAX - sizeof "/wcx");
	char *slash;

	if (chars <= 0)
		return "wcx";
	path[chars] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return "wcx";
	strcpy(slash, "/wcx"); /* for which there is room */
	return access(path, X_OK) ? "wcx" : path;
}

static void let_go_of_terminal(void)
{
	int null_fd = open("/dev/null", O_RDWR);

	setsid();
	if (null_fd >= 0) {
		dup2(null_fd, STDIN_FILENO);
		dup2(null_fd, STDOUT_FILENO);
		dup2(null_fd, STDERR_FILENO);
	}
}

static _Noreturn void run(const char *path, int start_fd, pid_t parent, int shows_progress)
{
	char program[PATH_MAX], byte;
	ssize_t n;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	if (!shows_progress)
		let_go_of_terminal();
	do
		n = read(start_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(EXIT_FAILURE);
	execlp(find_program(program), "wcx", "warm", "--", path, (char *)NULL);
	_exit(EXIT_NO_PROGRAM);
}

int wcx_warm_child_fork(const char *path, int shows_progress, struct wcx_warm_child *ret)
{
	const pid_t self = getpid();
	int start[2];
	pid_t pid;

	if (pipe2(start, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0) {
		close(start[1]);
		run(path, start[0], self, shows_progress);
	}
	close(start[0]);
	if (pid < 0) {
		close(start[1]);
		return -EAGAIN;
	}
	*ret = (struct wcx_warm_child){ .pid = pid, .start_fd = start[1] };
	return 0;
}

void wcx_warm_child_start(struct wcx_warm_child *child)
{
	/* One that is gone already is reaped as one that was done. */
	const ssize_t written = child->pid ? write(child->start_fd, "", 1) : 0;

	(void)written;
}

int wcx_warm_child_reap(struct wcx_warm_child *child, int *status_ret)
{
	if (!child->pid || waitpid(child->pid, status_ret, WNOHANG) != child->pid)
		return 0;
	close(child->start_fd);
	child->pid = 0;
	return 1;
}

void wcx_warm_child_end(struct wcx_warm_child *child)
{
	if (!child->pid)
		return;
	kill(child->pid, SIGTERM);
	close(child->start_fd);
	child->pid = 0;
}
