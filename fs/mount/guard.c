/* SPDX-License-Identifier: MIT */
/* Waits for the daemon's death and aborts its connection. */
#include "fs/mount/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/mount/connection.h"
#include "fs/mount/daemonize.h"
#include "fs/mount/privileges.h"

enum { KEPT_FD = 3 };

/* Announces the daemon's death.  Nobody sends it by mistake, unlike SIGUSR1, which users send to everything named wcxfs. */
#define DEATH_SIGNAL (SIGRTMIN + 7)

/* Gives up everything inherited from the daemon but fd: terminal, working directory, descriptors. */
static void detach(int fd)
{
	if (wcx_daemon_detach(false))
		_exit(EXIT_FAILURE);
	if (fd == KEPT_FD)
		fcntl(fd, F_SETFD, 0); /* clear close-on-exec, as dup2 would */
	else
		dup2(fd, KEPT_FD);
	close_range(KEPT_FD + 1, UINT_MAX, 0);
}

/* The message that the guard reads from its pipe. */
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
	detach(fd);
	/* Sent when the thread that forked us exits, even if others remain. */
	prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL);
	if (getppid() == parent)
		execl("/proc/self/exe", WCX_GUARD_NAME, (char *)NULL); /* gives it its own name and memory */
}

int wcx_guard_main(void)
{
	struct wcx_connection connection;
	struct watched watched;
	sigset_t death;
	size_t done = 0;
	ssize_t n;
	int number;

	prctl(PR_SET_PDEATHSIG, DEATH_SIGNAL);       /* a setuid program does not inherit it */
	wcx_privileges_drop(WCX_PRIVILEGES_UNMOUNT); /* if that fails, the guard is still of use */
	while (done < sizeof watched && (n = read(KEPT_FD, (char *)&watched + done, sizeof watched - done)) > 0)
		done += (size_t)n;
	if (done < sizeof watched)
		return EXIT_SUCCESS; /* the daemon failed to mount */
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

static _Atomic pid_t signalled_guard; /* for the handler, which gets no argument */

static void tell_guard(int number)
{
	const pid_t guard = signalled_guard;

	if (guard)
		kill(guard, DEATH_SIGNAL);
	raise(number); /* the default action, because of SA_RESETHAND */
}

static void watch_signals(pid_t guard)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT, SIGSYS };
	struct sigaction action = { .sa_handler = tell_guard, .sa_flags = (int)(SA_RESETHAND | SA_NODEFER) };

	signalled_guard = guard;
	for (size_t i = 0; i < WCX_ARRAY_COUNT(signals); i++)
		sigaction(signals[i], &action, NULL);
}

void wcx_guard_watch(struct wcx_child *guard, const char *mountpoint)
{
	struct watched watched = { .daemon = getpid() };

	snprintf(watched.mountpoint, sizeof watched.mountpoint, "%s", mountpoint);
	if (wcx_child_tell(guard, &watched, sizeof watched))
		wcx_guard_end(guard); /* it is gone already */
	if (guard->pid)
		watch_signals(guard->pid);
}

void wcx_guard_end(struct wcx_child *guard)
{
	const pid_t pid = guard->pid;

	if (!pid)
		return;
	signalled_guard = 0;
	wcx_child_kill(guard, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}
