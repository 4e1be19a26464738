/* SPDX-License-Identifier: MIT */
/* wcxfs, the daemon: mounts a store of packed files, shown as the originals.  Also mount.wcxfs, for mount(8). */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fuse_lowlevel.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/host_limits.h"
#include "fs/base/version.h"
#include "fs/mount/connection.h"
#include "fs/mount/daemonize.h"
#include "fs/mount/guard.h"
#include "fs/mount/log_output.h"
#include "fs/mount/mount_helper.h"
#include "fs/mount/mount_options.h"
#include "fs/mount/mount_warnings.h"
#include "fs/mount/named_file.h"
#include "fs/mount/notify.h"
#include "fs/mount/session.h"

enum { EXIT_USAGE = 2, MALLOC_ARENAS = 2 };

/* Prints a message, if there is one, and returns the exit status. */
static int fail(const struct wcx_error *err, int status)
{
	if (err->text[0])
		fprintf(stderr, "wcxfs: %s\n", err->text);
	return status;
}

/* --- the process that serves --- */

struct service {
	const struct wcx_mount_options *opts;
	struct wcx_named_file pid_file;
};

/* Called once the store is mounted. */
static int on_mounted(void *user)
{
	struct service *service = user;
	const struct wcx_mount_options *opts = service->opts;
	struct wcx_error state; /* one line, whatever the paths hold */
	int r = service->pid_file.fd < 0 ? 0 : wcx_pid_file_write(&service->pid_file);

	if (r)
		fuse_log(FUSE_LOG_ERR, "%s: %s\n", opts->pid_file, strerror(-r));
	if (!r && !opts->foreground)
		r = wcx_daemon_detach(wcx_log_keeps_stderr());
	if (r)
		return r;
	wcx_log_settle();
	wcx_fail(&state, 0, "%s mounted at %s", opts->store, opts->mountpoint);
	r = wcx_notify("READY=1\nMAINPID=%d\nSTATUS=%s", (int)getpid(), state.text);
	if (r)
		fuse_log(FUSE_LOG_WARNING, "cannot tell the service manager: %s\n", strerror(-r));
	return opts->foreground ? 0 : wcx_daemon_report_ready();
}

static void log_warning(void *user, const char *text)
{
	(void)user;
	fuse_log(FUSE_LOG_WARNING, "warning: %s\n", text);
}

static int serve(const struct wcx_mount_options *opts)
{
	struct service service = { opts, WCX_NAMED_FILE_INIT };
	struct wcx_error err;
	int r;

#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, MALLOC_ARENAS); /* with an arena per thread, half of the heap would be free memory */
#endif
	wcx_host_raise_fd_limit();
	r = wcx_log_open(opts->log_kind, opts->log_path, opts->foreground, &err);
	if (!r && opts->pid_file)
		r = wcx_pid_file_open(&service.pid_file, opts->pid_file, &err);
	if (r)
		return fail(&err, EXIT_FAILURE);
	wcx_mount_warn(opts, log_warning, NULL);
	r = wcx_session_run(opts, on_mounted, &service);
	wcx_pid_file_remove(&service.pid_file);
	return r ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* --- the command --- */

static int mount_checked(const struct wcx_mount_options *opts)
{
	struct wcx_error err;
	pid_t pid = 0;
	int ready_fd;

	if (!opts->foreground)
		pid = wcx_daemon_fork(&ready_fd, opts->fuse_fd, &err);
	if (pid < 0)
		return fail(&err, EXIT_FAILURE);
	return pid ? fail(&err, wcx_daemon_wait(pid, ready_fd, &err)) : serve(opts);
}

static int run(int argc, char **argv, const struct wcx_mount_helper *helper, struct wcx_mount_options *opts)
{
	struct wcx_error err;
	int status;

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
	if ((helper && helper->namespace && wcx_mount_helper_enter(helper->namespace, &err)) ||
	    wcx_mount_options_check(opts, &err))
		return fail(&err, EXIT_FAILURE);
	status = helper && helper->is_fake ? EXIT_SUCCESS : mount_checked(opts);
	if (!status && helper && helper->is_verbose)
		printf("wcxfs: %s %s at %s\n", opts->store, helper->is_fake ? "could be mounted" : "mounted",
		       opts->mountpoint);
	return status;
}

static int run_helper(int argc, char **argv, struct wcx_mount_options *opts)
{
	struct wcx_mount_helper helper;
	struct wcx_error err;
	int status;

	if (wcx_mount_helper_parse(argc, argv, &helper, &err))
		status = fail(&err, EXIT_USAGE);
	else
		status = run(helper.argc, helper.argv, &helper, opts);
	if (status == EXIT_SUCCESS)
		return status;
	return status == EXIT_USAGE ? WCX_MOUNT_EXIT_USAGE : WCX_MOUNT_EXIT_FAILED;
}

int main(int argc, char **argv)
{
	struct wcx_mount_options opts = { .fuse_fd = -1 };
	int status;

	if (argc == 1 && !strcmp(argv[0], WCX_GUARD_NAME))
		return wcx_guard_main();
	if (wcx_daemon_fill_standard_fds())
		return EXIT_FAILURE;
	signal(SIGCHLD, SIG_DFL); /* a parent that ignores it passes that on */
	wcx_log_to_stderr();
	if (wcx_mount_helper_is(argv[0]))
		status = run_helper(argc, argv, &opts);
	else
		status = run(argc, argv, NULL, &opts);
	if (status && opts.fuse_fd >= 0)
		wcx_connection_unmount(opts.fuse_fd); /* nobody serves it */
	wcx_mount_options_free(&opts);
	return status;
}
