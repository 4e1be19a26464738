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

#include <stdbool.h>
#include <sys/stat.h>

/* wcx_base_mark - mark an open base, whose directory this is, for a dependent in another directory */
void wcx_base_mark(int fd, int directory_fd, int dependent_directory_fd);

/* wcx_base_copy_marks - give the marks of a file to one that takes its place */
void wcx_base_copy_marks(int src_fd, int dst_fd);

enum wcx_base_marks {
	WCX_MARKS_NONE,
	WCX_MARKS_INSIDE, /* all dependents that left a mark were packed below a certain directory */
	WCX_MARKS_BEYOND, /* one was packed elsewhere, or that is not known any more */
};

/* wcx_base_marks - what the marks of a file, whose directory this is, say of the directory top, in which it is */
enum wcx_base_marks wcx_base_marks(int fd, int directory_fd, const struct stat *top);

#endif
