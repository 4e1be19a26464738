/* SPDX-License-Identifier: MIT */
/*
 * A process that ends a mount's connection when the daemon has been killed.
 *
 * A thread that pushes pages may wait, in the kernel and beyond the reach of signals, for a page that a reader has locked;
 * the reader waits for the daemon's answer.  If the daemon is killed at that moment, neither ends: the connection would end
 * with the last thread.  So somebody else has to end it.
 */
#ifndef WCX_GUARD_H
#define WCX_GUARD_H

#include "fs/mount/child.h"

#define WCX_GUARD_NAME "wcxfs-guard"

/*
 * wcx_guard_fork - make the process
 *
 * For before there are threads, by the one that lives longest.  Runs this program again, under the name of WCX_GUARD_NAME,
 * as which it has to do nothing but wcx_guard_main.  Returns 0 or -errno.
 */
int wcx_guard_fork(struct wcx_child *ret);
int wcx_guard_main(void); /* returns an exit status */

/*
 * wcx_guard_watch - tell it where the mount is, by an absolute path
 *
 * With SIGPIPE ignored.  From then on it is also told of signals that would end the process with a core, which is written
 * once all threads have ended.
 */
void wcx_guard_watch(struct wcx_child *guard, const char *mountpoint);

/* wcx_guard_end - end the process; none is fine */
void wcx_guard_end(struct wcx_child *guard);

#endif
