/* SPDX-License-Identifier: MIT */
/*
 * A process that aborts a mount's connection when the daemon is killed.
 *
 * A thread that pushes pages can block in the kernel, immune to signals, on a page that a reader has locked; the reader
 * waits for the daemon's reply.  If the daemon is killed at that moment, both block forever: the kernel closes the
 * connection only when the last thread has exited.  So another process has to abort it.
 */
#ifndef WCX_GUARD_H
#define WCX_GUARD_H

#include "fs/mount/child.h"

#define WCX_GUARD_NAME "wcxfs-guard"

/*
 * wcx_guard_fork - start the guard
 *
 * Call it before there are threads, from the thread that lives longest.  The guard executes this program again with
 * WCX_GUARD_NAME as its only argument; main must then call wcx_guard_main and nothing else.  Returns 0 or -errno.
 */
int wcx_guard_fork(struct wcx_child *ret);
int wcx_guard_main(void); /* returns an exit status */

/*
 * wcx_guard_watch - tell the guard the mount's absolute path, with SIGPIPE ignored
 *
 * From then on, signals that dump core are reported to the guard as well, because the kernel writes the core only after all
 * threads have exited.
 */
void wcx_guard_watch(struct wcx_child *guard, const char *mountpoint);

/* wcx_guard_end - kill the guard and wait for it; no guard is fine */
void wcx_guard_end(struct wcx_child *guard);

#endif
