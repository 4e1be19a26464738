/* SPDX-License-Identifier: MIT */
/* A mounted store, from the first child process to the last free. */
#ifndef WCX_SESSION_H
#define WCX_SESSION_H

#include "fs/mount/mount_options.h"

typedef int wcx_mounted_fn(void *user); /* returns 0 or -errno */

/*
 * wcx_session_run - mount a store, serve it until it is unmounted or a signal ends it, and take everything down
 *
 * Call it in the main thread before there are others: it forks, and then blocks signals.  on_mounted is called once the
 * mount stands, before requests are served; its error ends the session.  opts must be checked and outlive the call.  Logs
 * its own errors with fuse_log.  Returns 0 or -errno.  A store that does not answer at the end is not waited for: the
 * process is killed once it has unmounted.
 */
int wcx_session_run(const struct wcx_mount_options *opts, wcx_mounted_fn *on_mounted, void *user);

#endif
