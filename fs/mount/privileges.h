/* SPDX-License-Identifier: MIT */
/* Gives up the privileges that a process of the daemon has no use for once it is set up. */
#ifndef WCX_PRIVILEGES_H
#define WCX_PRIVILEGES_H

enum wcx_privileges {
	WCX_PRIVILEGES_READ,    /* files that root may read */
	WCX_PRIVILEGES_UNMOUNT, /* these, and mount and unmount */
};

/*
 * wcx_privileges_drop - keep these capabilities, and gain none by executing a program
 *
 * For the calling thread and those that it creates later.  Keeps nothing that the process does not have.  With
 * WCX_PRIVILEGES_UNMOUNT, a process that is not root's can still gain those of fusermount3, through which it unmounts.
 * Returns 0 or -errno.
 */
int wcx_privileges_drop(enum wcx_privileges keep);

#endif
