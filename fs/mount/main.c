/* SPDX-License-Identifier: MIT */
/* wcxfs, the daemon: mounts a store of packed files, shown as the originals. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fuse_lowlevel.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "fs/base/version.h"
#include "fs/mount/connection.h"
#include "fs/mount/daemonize.h"
#include "fs/mount/guard.h"
#include "fs/mount/mount_options.h"
#include "fs/mount/session.h"

enum { EXIT_USAGE = 2, MALLOC_ARENAS = 2 };

static void log_to_stderr(enum fuse_log_level level, const char *format, va_list args)
{
	flockfile(stderr);
	if (level < FUSE_LOG_DEBUG) /* the trace of requests comes in parts of lines */
		fputs("wcxfs: ", stderr);
	vfprintf(stderr, format, args);
	funlockfile(stderr);
}

static void log_to_syslog(enum fuse_log_level level, const char *format, va_list args)
{
	vsyslog((int)level, format, args); /* libfuse's levels have syslog's numbers */
}

/* Prints a message, if there is one, and returns the exit status. */
static int fail(const struct wcx_error *err, int status)
{
	if (err->text[0])
		fprintf(stderr, "wcxfs: %s\n", err->text);
	return status;
}

/* Called once the store is mounted. */
static int go_to_background(void)
{
	int r = wcx_daemon_detach();

	if (r)
		return r;
	openlog("wcxfs", LOG_PID, LOG_DAEMON);
	fuse_set_log_func(log_to_syslog);
	return wcx_daemon_report_ready();
}

static int serve(const struct wcx_mount_options *opts)
{
	int r;

#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, MALLOC_ARENAS); /* with an arena per thread, half of the heap would be free memory */
#endif
	wcx_daemon_raise_fd_limit();
	r = wcx_session_run(opts, opts->foreground ? NULL : go_to_background);
	if (r == -ETIMEDOUT)
		_exit(EXIT_FAILURE); /* a thread may still be running */
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run(int argc, char **argv, struct wcx_mount_options *opts)
{
	struct wcx_error err;
	pid_t pid = 0;
	int ready_fd;

	if (wcx_mount_options_parse(argc, argv, opts, &err))
		return fail(&err, EXIT_USAGE);
	if (opts->show_help) {
		fputs(wcx_mount_help, stdout);
		return EXIT_SUCCESS;
	}
	if (opts->show_version) {
		printf("wcxfs %s, libfuse %s\n", WCX_VERSION_TEXT, fuse_pkgversion());
		return EXIT_SUCCESS;
	}
	if (wcx_mount_options_check(opts, &err))
		return fail(&err, EXIT_FAILURE);
	if (!opts->foreground)
		pid = wcx_daemon_fork(&ready_fd, opts->fuse_fd, &err);
	if (pid < 0)
		return fail(&err, EXIT_FAILURE);
	return pid ? fail(&err, wcx_daemon_wait(pid, ready_fd, &err)) : serve(opts);
}

int main(int argc, char **argv)
{
	struct wcx_mount_options opts;
	int status;

	if (argc == 1 && !strcmp(argv[0], WCX_GUARD_NAME))
		return wcx_guard_main();
	if (wcx_daemon_fill_standard_fds())
		return EXIT_FAILURE;
	signal(SIGCHLD, SIG_DFL); /* a parent that ignores it passes that on */
	fuse_set_log_func(log_to_stderr);
	status = run(argc, argv, &opts);
	if (status && opts.fuse_fd >= 0)
		wcx_connection_unmount(opts.fuse_fd); /* nobody serves it */
	wcx_mount_options_free(&opts);
	return status;
}
