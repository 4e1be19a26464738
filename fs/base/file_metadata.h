/* SPDX-License-Identifier: MIT */
/* Gives a file that was made from another one the other's owner, permissions and times. */
#ifndef WCX_FILE_METADATA_H
#define WCX_FILE_METADATA_H

#include <sys/stat.h>

/* Tells of something that was done, but not as well as wanted; one line without a newline. */
typedef void wcx_warn_fn(void *user, const char *text);

/*
 * wcx_file_metadata_copy - copy owner, group, permission bits, POSIX ACL, security labels and times from src_fd to dst_fd
 *
 * dst_fd must be a regular file, or both a directory, that only its owner can access, and is accessible to nobody at any
 * moment who could not access the source.  Where something cannot be set, permissions are narrowed: without the owner or the
 * group, nobody gets more through another class than the class that was lost had; without the ACL only the owner has access.
 * What was lost is told to warn, which may be NULL; path is for its text.  Labels (security.*) that cannot be set are left
 * to the system's policy without a word, as cp -p does; capabilities and signatures of contents are not copied.
 *
 * Returns 0, or -errno if src_fd cannot be asked or if even narrowed permissions cannot be set on a file system that has
 * them.
 *
 * Source: acl(5); the value of system.posix_acl_access is Linux's include/uapi/linux/posix_acl_xattr.h.
 */
int wcx_file_metadata_copy(int src_fd, int dst_fd, const char *path, wcx_warn_fn *warn, void *user);

#endif
