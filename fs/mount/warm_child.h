/* SPDX-License-Identifier: MIT */
/*
 * A process that reads a part of the mount into the page cache, once that stands: `wcx warm'.
 *
 * It is one of its own because whoever reads the mount waits for the daemon.  It ends when it is done, or with the daemon.
 */
#ifndef WCX_WARM_CHILD_H
#define WCX_WARM_CHILD_H

#include "fs/mount/child.h"

/*
 * wcx_warm_child_fork - make the process, which waits to be started
 *
 * For before there are threads, with signals not blocked.  Runs the program wcx beside this one or, if there is none, that
 * on the path.  shows_progress: what it has to say goes to stderr; otherwise it lets go of the terminal.  Returns 0 or
 * -errno.
 */
int wcx_warm_child_fork(const char *path, int shows_progress, struct wcx_child *ret);
void wcx_warm_child_start(struct wcx_child *child); /* with SIGPIPE ignored, before anybody reaps */

/*
 * wcx_warm_child_reap - look whether it has ended: 1 if it has, with its status as waitpid(2) has it; then there is none
 *
 * For whoever gets SIGCHLD.
 */
int wcx_warm_child_reap(struct wcx_child *child, int *status_ret);

#endif
