/* SPDX-License-Identifier: MIT */
/* An output file that gets its name only when it is complete, and a temporary name in the same directory until then. */
#ifndef WCX_OUTPUT_FILE_H
#define WCX_OUTPUT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/base/error.h"

/* wcx_output_write may run in several threads at a time, the other functions in one. */
struct wcx_output_file {
	int fd;           /* open for reading and writing */
	const char *path; /* the caller's; must stay until the file is committed or discarded, like source */
	char *temporary_path;
	const struct stat *source; /* the caller's: what the file is made from */
	bool replace;
};

/*
 * wcx_output_create - begin a file that gets the name path when it is committed
 *
 * Refuses a path that is the source itself, is not a regular file or, unless replace is set, exists.  On success the file
 * must be committed or discarded; on failure there is nothing to discard.  Returns 0 or -errno.
 */
int wcx_output_create(struct wcx_output_file *file, const char *path, const struct stat *source, bool replace,
		      struct wcx_error *err);

/* wcx_output_write - write all bytes at an offset; 0 or -errno */
int wcx_output_write(const struct wcx_output_file *file, const void *src, size_t bytes, uint64_t offset,
		     struct wcx_error *err);

/*
 * wcx_output_commit - give the file the source's permissions and times, sync it, and rename it to its path
 *
 * Returns 0, and the file is closed; or -errno, and the caller must still discard it.
 */
int wcx_output_commit(struct wcx_output_file *file, struct wcx_error *err);

/* wcx_output_discard - close and remove a file that was not committed */
void wcx_output_discard(struct wcx_output_file *file);

#endif
