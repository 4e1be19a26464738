/* SPDX-License-Identifier: MIT */
/*
 * The locks that keep a base from being removed while something is packed against it.
 *
 * Both are flock(2) locks of the packed file, without waiting.  Whoever packs takes the shared one before the first byte of
 * the base is used, and has it until the output has its name.  Whoever removes takes the exclusive one, and looks for
 * dependents only then: so the output is either seen or not begun.  Where a file system has no such locks, as NFS for files
 * that are open only for reading, nothing keeps the two apart.
 */
#ifndef WCX_BASE_LOCK_H
#define WCX_BASE_LOCK_H

#include <stdbool.h>
#include <sys/stat.h>

/*
 * wcx_base_lock - keep a packed file from being removed until fd, and what was duplicated from it, is closed
 *
 * Returns 0, also where there are no locks; -EWOULDBLOCK if somebody removes it, or -ENOENT if it has been removed already.
 */
int wcx_base_lock(int fd);

/*
 * wcx_base_open_for_removal - open a regular file by its name, and keep others from packing against it until it is closed
 *
 * The name leads to the file once it is locked, so that what is removed or replaced under that name is what was locked.
 * Returns a descriptor; -EWOULDBLOCK, with *st_ret, if somebody packs against it or removes it; -ELOOP for a link, -EINVAL
 * for what is no regular file either, which is not even opened; or another -errno.
 */
int wcx_base_open_for_removal(int directory_fd, const char *name, struct stat *st_ret);

/* wcx_base_is_locked - whether what was opened for removal is locked: false where the file system has no locks */
bool wcx_base_is_locked(int fd);

#endif
