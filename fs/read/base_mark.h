/* SPDX-License-Identifier: MIT */
/*
 * Marks of packed files that others are packed against.
 *
 * A mark is an empty extended attribute of the base, user.wcx.base.N.  N is the inode number of the nearest directory that
 * has both the base and the dependent below it, or 0 if these are not on one device.  So whoever replaces or removes the
 * base can tell whether the place where it looked for dependents is large enough.  Marks stay when dependents go; they are
 * not copied to other files, but move with the file.  Setting one needs permission to write to the base and a file system
 * with such attributes; without these there is no mark.
 */
#ifndef WCX_BASE_MARK_H
#define WCX_BASE_MARK_H

#include <stddef.h>
#include <sys/types.h>

/*
 * wcx_base_mark - mark an open base, whose directory this is, for a dependent in another directory, and sync the mark
 *
 * Comes before the dependent gets its name, so that no crash leaves a dependent without the mark.  A descriptor of a
 * directory may be -1: it is not known where it is.
 */
void wcx_base_mark(int fd, int directory_fd, int dependent_directory_fd);

/* wcx_base_copy_marks - give the marks of a file to one that takes its place, and sync them */
void wcx_base_copy_marks(int src_fd, int dst_fd);

/*
 * wcx_base_marks - read the marks of a file: the inode number of each
 *
 * Returns 0, with an array that the caller frees (NULL: no marks), or -errno if there may be marks that cannot be read.
 */
int wcx_base_marks(int fd, ino_t **ret, size_t *count_ret);

#endif
