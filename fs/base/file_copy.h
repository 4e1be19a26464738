/* SPDX-License-Identifier: MIT */
/* Copies files and links as they are, with their owner, permissions and times. */
#ifndef WCX_FILE_COPY_H
#define WCX_FILE_COPY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "fs/base/error.h"
#include "fs/base/output_file.h"

enum wcx_copy_kind {
	WCX_COPY_DATA,
	WCX_COPY_REFLINK, /* share the blocks where the file system can (ioctl_ficlone(2)), otherwise copy */
};

/*
 * wcx_file_copy - copy a regular file, open as output->source_fd
 *
 * Holes stay holes.  The copy appears as outputs do: complete, synced and with the source's metadata.  Returns 0 or -errno:
 * -EBUSY if the source changed meanwhile, -EINTR once *stop is true, which may be NULL; then an existing output is
 * unchanged.
 */
int wcx_file_copy(const struct wcx_output_options *output, enum wcx_copy_kind kind, const atomic_bool *stop,
		  struct wcx_error *err);

/*
 * wcx_file_link - give a file another name; with replace in place of what is there, but for a directory
 *
 * Returns 0 or -errno without a message: -EXDEV where only a copy can be made.
 */
int wcx_file_link(int src_directory_fd, const char *src_name, int dst_directory_fd, const char *dst_name, bool replace);

/*
 * wcx_symlink_copy - make a symbolic link with this text, and the owner and times of st
 *
 * A link with this text stays as it is but for owner and times.  Another link is replaced if it is older than st, or if
 * replace says so; anything else is -EEXIST.  Returns 0 or -errno without a message.  An owner that cannot be set stays the
 * caller's.
 */
int wcx_symlink_copy(const char *text, const struct stat *st, bool replace, int directory_fd, const char *name);

/* wcx_same_version - whether two looks at a file saw the same contents: the same file, size and time of modification */
bool wcx_same_version(const struct stat *a, const struct stat *b);

/*
 * wcx_has_time_of - whether a copy has the time of its source, as far as its file system keeps it
 *
 * Some keep times to 100 ns (SMB, NTFS), others to a second (SFTP).  How far one does shows in the time of the last change,
 * which is its own: that is a multiple of what it keeps, and on others hardly ever one of much.
 */
bool wcx_has_time_of(const struct stat *copy, const struct stat *source);

/* wcx_is_older - whether a was modified before b */
bool wcx_is_older(const struct stat *a, const struct stat *b);

#endif
