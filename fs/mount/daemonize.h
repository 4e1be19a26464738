/* SPDX-License-Identifier: MIT */
/* Turns a command into a daemon: a forked child goes on, and the parent returns to the shell once the child is ready. */
#ifndef WCX_DAEMONIZE_H
#define WCX_DAEMONIZE_H

#include <stdbool.h>
#include <sys/types.h>

#include "fs/base/error.h"

/*
 * wcx_daemon_fill_standard_fds - open /dev/null for standard streams that the caller closed; 0 or -errno
 *
 * Otherwise other files get these numbers, and wcx_daemon_detach replaces them.
 */
int wcx_daemon_fill_standard_fds(void);

/*
 * wcx_daemon_fork - fork, before anything that does not survive it, such as threads and GPUs
 *
 * Returns the child's pid in the parent, for wcx_daemon_wait with *ready_fd_ret; 0 in the child, with only its standard
 * streams and kept_fd (-1: none) open; or -errno with a message in err, in either.  The child still writes to the terminal,
 * so that the command shows why it fails.
 */
pid_t wcx_daemon_fork(int *ready_fd_ret, int kept_fd, struct wcx_error *err);

/* wcx_daemon_wait - for the parent: wait until the child is ready or dead.  Returns an exit status, maybe with err. */
int wcx_daemon_wait(pid_t pid, int ready_fd, struct wcx_error *err);

/* wcx_daemon_detach - for any child: let go of terminal and working directory, maybe not of the error output; 0 or -errno */
int wcx_daemon_detach(bool keep_stderr);
int wcx_daemon_report_ready(void); /* lets wcx_daemon_wait return; 0 or -errno */

#endif
