/* SPDX-License-Identifier: MIT */
/* The kernel's end of a FUSE mount, for use beside the server.  Only wcx_connection_is_dead makes a request to the mount. */
#ifndef WCX_CONNECTION_H
#define WCX_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

/*
 * wcx_connection_number - the minor number of the device of the topmost mount at an absolute path
 *
 * -1 if there is no mount, or its device has a major number, unlike those of FUSE.
 */
int wcx_connection_number(const char *mountpoint);

struct wcx_connection {
	int number;        /* minor number of the mount's device, reused by later mounts; -1: no connection */
	uint64_t mount_id; /* also reused before Linux 6.8 */
	int abort_fd;      /* aborts this connection and no later one; -1: /sys/fs/fuse/connections is not available */
};

/* wcx_connection_find - find what is mounted at an absolute path; the caller closes abort_fd */
void wcx_connection_find(const char *mountpoint, struct wcx_connection *ret);

/*
 * wcx_connection_abort - abort a connection, so that its server and everyone who waits for the server go on
 *
 * The mount stays and gives ENOTCONN: unmounted, it would leave a directory that looks like an empty store.  Without
 * abort_fd, only root can do it, and only while this connection is what is mounted at the path.
 */
void wcx_connection_abort(const struct wcx_connection *connection, const char *mountpoint);

/*
 * wcx_connection_mountpoint - find where a descriptor of /dev/fuse is mounted
 *
 * The caller frees *path_ret.  Returns 0; -ENOENT if that is unknown, as with kernels that do not tell it; -EPERM for a
 * mount that others may use without the kernel checking permissions; or -ENOMEM.
 */
int wcx_connection_mountpoint(int fuse_fd, char **path_ret);

/* wcx_connection_is_alive - whether what was mounted with a descriptor of /dev/fuse is neither unmounted nor aborted */
bool wcx_connection_is_alive(int fuse_fd);

/*
 * wcx_connection_unmount_at - unmount the topmost mount at an absolute path, if it is that of a descriptor of /dev/fuse
 *
 * number: of the mount that was made with the descriptor.  The kernel gives it to the next mount as soon as this one has
 * ended, so it alone does not tell them apart.  Starts no program and makes no request.  Returns 0; -ENOENT if the
 * connection has ended or something else is mounted there; -EPERM for users; or another -errno.
 */
int wcx_connection_unmount_at(int fuse_fd, const char *mountpoint, int number);

/* wcx_connection_unmount - unmount what a descriptor of /dev/fuse is mounted at, so that no dead mount remains, if allowed
 */
void wcx_connection_unmount(int fuse_fd);

bool wcx_connection_exists(const char *mountpoint); /* whether a store is mounted at an absolute path, dead or alive */

/*
 * wcx_connection_is_dead - whether a path leads into a FUSE mount whose server has gone
 *
 * Asks for the figures of the file system, which the kernel never caches: stat() succeeds as long as it may rely on the
 * attributes that it has.  Waits for the server, like stat().
 */
bool wcx_connection_is_dead(const char *path);

#endif
