/* SPDX-License-Identifier: MIT */
/* The kernel's side of a mount, as others than its server can get at it.  None of this asks the mount for anything. */
#ifndef WCX_CONNECTION_H
#define WCX_CONNECTION_H

struct wcx_connection {
	int number;   /* of the mount's device, minor; -1: there is none.  Once it is gone another mount may get it */
	int abort_fd; /* to end this connection and no later one; -1: the kernel's directory of them is not there */
};

/* wcx_connection_find - look for what is mounted at an absolute path; abort_fd is the caller's to close */
void wcx_connection_find(const char *mountpoint, struct wcx_connection *ret);

/*
 * wcx_connection_abort - end a connection: all that wait for its server, and it itself, go on
 *
 * Where there is no abort_fd, by its path, as long as it is still what is mounted there; that takes root.
 */
void wcx_connection_abort(const struct wcx_connection *connection, const char *mountpoint);

#endif
