/* SPDX-License-Identifier: MIT */
/* Runs `wcx warm' in a child process. */
#include "fs/mount/warm_child.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mount/daemonize.h"
#include "fs/mount/privileges.h"

enum { EXIT_NO_PROGRAM = 127 };

/* The path of the program wcx if it is in the same directory as this one, otherwise its name. */
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
	strcpy(slash, "/wcx"); /* fits: see the size above */
	return access(path, X_OK) ? "wcx" : path;
}

struct warming {
	const char *path;
	bool shows_progress;
};

static void run(void *user, int start_fd, pid_t parent)
{
	const struct warming *warming = user;
	char program[PATH_MAX], byte;
	ssize_t n;

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		return;
	if (!warming->shows_progress)
		wcx_daemon_detach(false);
	do
		n = read(start_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1 || wcx_privileges_drop(WCX_PRIVILEGES_READ))
		return;
	execlp(find_program(program), "wcx", "warm", "--", warming->path, (char *)NULL);
	_exit(EXIT_NO_PROGRAM);
}

int wcx_warm_child_fork(const char *path, bool shows_progress, struct wcx_child *ret)
{
	struct warming warming = { path, shows_progress };

	return wcx_child_fork(run, &warming, ret);
}

void wcx_warm_child_start(struct wcx_child *child)
{
	wcx_child_tell(child, "", 1); /* if it is already gone, wcx_warm_child_reap reports it */
}

bool wcx_warm_child_reap(struct wcx_child *child, int *status_ret)
{
	if (!child->pid || waitpid(child->pid, status_ret, WNOHANG) != child->pid)
		return false;
	close(child->fd);
	child->pid = 0;
	return true;
}
