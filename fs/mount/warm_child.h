/* SPDX-License-Identifier: MIT */
/*
 * A process that runs `wcx warm', which reads part of the mount into the page cache.
 *
 * It is a separate process because readers of the mount wait for the daemon.  It exits when it is done, or with the daemon.
 */
#ifndef WCX_WARM_CHILD_H
#define WCX_WARM_CHILD_H

#include <stdbool.h>

#include "fs/mount/child.h"

/*
 * wcx_warm_child_fork - fork the process, which waits for wcx_warm_child_start
 *
 * Call it before there are threads, with no signals blocked.  Runs the program wcx in this program's directory or, if there
 * is none, in $PATH.  With shows_progress it writes to stderr; otherwise it detaches from the terminal.  Returns 0 or
 * -errno.
 */
int wcx_warm_child_fork(const char *path, bool shows_progress, struct wcx_child *ret);
void wcx_warm_child_start(struct wcx_child *child); /* with SIGPIPE ignored, before any wcx_warm_child_reap */

/*
 * wcx_warm_child_reap - on SIGCHLD, check whether the child has exited
 *
 * Returns true if it has, with its wait status; the child is then no child.
 */
bool wcx_warm_child_reap(struct wcx_child *child, int *status_ret);

#endif
