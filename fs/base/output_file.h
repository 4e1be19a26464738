/* SPDX-License-Identifier: MIT */
/*
 * A file that appears under its name only when it is complete.
 *
 * Until then it has no name at all (O_TMPFILE), so that a process that is killed leaves nothing behind.  On file systems
 * without unnamed files it is called .wcx-tmp- and 16 letters and digits; such files that no process is writing to are
 * removed when the next output in the directory is created, or by wcx_output_tidy.
 */
#ifndef WCX_OUTPUT_FILE_H
#define WCX_OUTPUT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/file_metadata.h"

enum { WCX_TEMPORARY_NAME_BYTES = 26 }; /* with the zero byte */

/* What an output is to be.  The strings and the descriptor are the caller's, and stay until it is committed or discarded. */
struct wcx_output_options {
	const char *path;
	const char *shown_path; /* what messages call it; NULL: as path does */
	int source_fd;          /* of the file it is made from: gives owner, permissions and times */
	bool replace;           /* an existing regular file, in one step; otherwise that is an error */
	bool replaces_source;   /* the path may be the source's; replace is set then */
	bool is_tidy;           /* the caller has called wcx_output_tidy for the directory, for many outputs in it */
	wcx_warn_fn *warn;      /* told what a file system cannot keep; may be NULL */
	void *user;
};

/* Several threads may write at a time; the rest is for one. */
struct wcx_output_file {
	int fd; /* open for reading and writing */
	int directory_fd;
	struct wcx_output_options options;
	char *path_copy;
	const char *name;                              /* in the directory */
	char temporary_name[WCX_TEMPORARY_NAME_BYTES]; /* empty: it has none */
};

/* wcx_output_tidy - remove from a directory what processes left that were killed */
void wcx_output_tidy(int directory_fd);

/*
 * wcx_output_create - begin a file
 *
 * Refuses a path that is the source itself, anything but a regular file or, without options->replace, there already.  On
 * success the file has to be committed or discarded; on failure there is nothing to discard.  Returns 0 or -errno.
 */
int wcx_output_create(struct wcx_output_file *file, const struct wcx_output_options *options, struct wcx_error *err);

/* wcx_free_bytes - what the file system of an open file has free for the caller; UINT64_MAX where it does not tell */
uint64_t wcx_free_bytes(int fd);

/*
 * wcx_output_check_space - whether the file system has space for so many bytes
 *
 * Returns 0, also where the file system does not tell, or -ENOSPC with a message that has both numbers.
 */
int wcx_output_check_space(const struct wcx_output_file *file, uint64_t bytes, struct wcx_error *err);

/* wcx_output_write - like pwrite, but whole; 0 or -errno */
int wcx_output_write(const struct wcx_output_file *file, const void *src, size_t bytes, uint64_t offset,
		     struct wcx_error *err);

/* wcx_output_start_sync - have the disk start on a range that has been written, so that commit waits for little */
void wcx_output_start_sync(const struct wcx_output_file *file, uint64_t bytes, uint64_t offset);

/*
 * wcx_output_commit - sync the file, give it the source's metadata (wcx_file_metadata_copy), and name it
 *
 * Returns 0, after which the file is closed, or -errno, after which it is still to be discarded.
 */
int wcx_output_commit(struct wcx_output_file *file, struct wcx_error *err);

/* wcx_output_discard - close and remove a file that was not committed */
void wcx_output_discard(struct wcx_output_file *file);

/* wcx_output_folds_case - whether names in a directory, which may be written to, are the same in upper and lower case */
bool wcx_output_folds_case(int directory_fd);

/* wcx_make_temporary_name - a name, at random, for something that will be renamed */
void wcx_make_temporary_name(char name[WCX_TEMPORARY_NAME_BYTES]);

/*
 * wcx_is_temporary_name - whether a name in a directory is that of an output which is not complete
 *
 * What has such a name may be removed with all that is in it, so it is one that nobody else gives.
 */
bool wcx_is_temporary_name(const char *name);

#endif
