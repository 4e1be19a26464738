/* SPDX-License-Identifier: MIT */
/* The kernel's side of a mount, as others than its server can get at it.  None of this asks the mount for anything. */
#ifndef WCX_CONNECTION_H
#define WCX_CONNECTION_H

/* wcx_connection_number - the number of what is mounted at an absolute path: its device's, minor; -1 if there is nothing */
int wcx_connection_number(const char *mountpoint);

/*
 * wcx_connection_abort - end a connection: all that wait for its server, and it itself, go on
 *
 * By its number, or by its path as long as that is mounted there; the latter takes root.  Returns 0 or -errno.
 */
int wcx_connection_abort(int number, const char *mountpoint);

#endif
