/* SPDX-License-Identifier: MIT */
/* A file that appears under its name only when it is complete: until then it has a temporary name in the same directory. */
#ifndef WCX_OUTPUT_FILE_H
#define WCX_OUTPUT_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/base/error.h"

/* Writing may go on from several threads at a time; the rest is for one. */
struct wcx_output_file {
	int fd;           /* open for reading and writing */
	const char *path; /* the caller's */
	char *temporary_path;
	const struct stat *source; /* the caller's: what the file is made from */
	int replace;
};

/*
 * wcx_output_create - begin a file that is to be path
 *
 * Refuses a path that is the source itself, anything but a regular file or, unless replace is nonzero, there already.  On
 * success the file has to be committed or discarded, and path and source must stay until then; on failure there is nothing
 * to discard.  Returns 0 or -errno.
 */
int wcx_output_create(struct wcx_output_file *file, const char *path, const struct stat *source, int replace,
		      struct wcx_error *err);

/* wcx_output_write - like pwrite, but whole; 0 or -errno */
int wcx_output_write(const struct wcx_output_file *file, const void *src, size_t bytes, uint64_t offset,
		     struct wcx_error *err);

/*
 * wcx_output_commit - sync the file, give it the source's permissions and times, and rename it to its path
 *
 * Returns 0, after which the file is closed, or -errno, after which it is still to be discarded.
 */
int wcx_output_commit(struct wcx_output_file *file, struct wcx_error *err);

/* wcx_output_discard - close and remove a file that was not committed */
void wcx_output_discard(struct wcx_output_file *file);

#endif
