/* SPDX-License-Identifier: MIT */
/* A process that ends a mount's connection when the daemon has been killed. */
#include "fs/mount/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/mount/connection.h"

enum { KEPT_FD = 3 };

/* What the daemon's end is told by: nobody sends that by mistake, as SIGUSR1 to all that are called wcxfs. */
#define DEATH_SIGNAL (SIGRTMIN + 7)

/* Keeps nothing of the daemon's: not its terminal, its directory or its files. */
static void let_go(int fd)
{
	wcx_child_let_go_of_terminal();
	if (fd == KEPT_FD)
		fcntl(fd, F_SETFD, 0); /* which dup2 does otherwise */
	else
		dup2(fd, KEPT_FD);
	close_range(KEPT_FD + 1, UINT_MAX, 0);
	if (chdir("/"))
		_exit(EXIT_FAILURE);
}

/* What the guard is told. */
struct watched {
	pid_t daemon;
	char mountpoint[PATH_MAX];
};

static void become_guard(void *user, int fd, pid_t parent)
{
	sigset_t all;

	(void)user;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	let_go(fd);
	/* Comes when the thread that forked us has ended, whether or not others have. */
	prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL);
	if (getppid() == parent)
		execl("/proc/self/exe", WCX_GUARD_NAME, (char *)NULL); /* a name, and memory, of its own */
}

int wcx_guard_main(void)
{
	struct wcx_connection connection;
	struct watched watched;
	sigset_t death;
	size_t done = 0;
	ssize_t n;
	int number;

	prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL); /* which a program with privileges of its own does not inherit */
	while (done < sizeof watched && (n = read(KEPT_FD, (char *)&watched + done, sizeof watched - done)) > 0)
		done += (size_t)n;
	if (done < sizeof watched)
		return EXIT_SUCCESS; /* there was no mount */
	wcx_connection_find(watched.mountpoint, &connection);
	sigemptyset(&death);
	sigaddset(&death, DEATH_SIGNAL);
	while (getppid() == watched.daemon && sigwait(&death, &number))
		;
	wcx_connection_abort(&connection, watched.mountpoint);
	return EXIT_SUCCESS;
}

int wcx_guard_fork(struct wcx_child *ret)
{
	return wcx_child_fork(become_guard, NULL, ret);
}

static volatile pid_t guard_of_signals; /* a handler has nothing else to go by */

static void tell_guard(int number)
{
	if (guard_of_signals)
		kill(guard_of_signals, DEATH_SIGNAL);
	raise(number); /* now with what it does by default */
}

static void watch_signals(pid_t guard)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT, SIGSYS };
	struct sigaction action = { .sa_handler = tell_guard, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER) };

	guard_of_signals = guard;
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		sigaction(signals[i], &action, NULL);
}

void wcx_guard_watch(struct wcx_child *guard, const char *mountpoint)
{
	struct watched watched = { .daemon = getpid() };

	snprintf(watched.mountpoint, sizeof watched.mountpoint, "%s", mountpoint);
	/* It reads it, or is gone: then there is none. */
	if (wcx_child_tell(guard, &watched, sizeof watched))
		wcx_guard_end(guard);
	if (guard->pid)
		watch_signals(guard->pid);
}

void wcx_guard_end(struct wcx_child *guard)
{
	const pid_t pid = guard->pid;

	if (!pid)
		return;
	guard_of_signals = 0;
	wcx_child_kill(guard, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}
