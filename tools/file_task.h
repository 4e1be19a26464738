/* SPDX-License-Identifier: MIT */
/* Steps of the work on a file that commands share. */
#ifndef WCX_FILE_TASK_H
#define WCX_FILE_TASK_H

#include <limits.h>

#include "fs/base/job.h"
#include "fs/format/container.h"
#include "fs/read/image.h"
#include "tools/tree_run.h"

enum { WCX_FD_PATH_BYTES = 32 + NAME_MAX + 1 };

/*
 * wcx_fd_path - a path that names an entry of an open directory, or, with name NULL, an open file
 *
 * It leads there whatever becomes of the directories above, and however long their path is.  Without /proc, as in a bare
 * chroot, it is the path that is shown, and neither holds.
 */
const char *wcx_fd_path(int fd, const char *name, const char *shown, char path[WCX_FD_PATH_BYTES]);

/* wcx_task_job - the options for wcx_pack or wcx_unpack */
struct wcx_job_options wcx_task_job(struct wcx_file_task *task, bool replace, const char *shown_output);

/* wcx_bytes_on_disk - what a file takes there, without holes */
uint64_t wcx_bytes_on_disk(const struct stat *st);

/* wcx_task_fail - fail with "PATH: strerror" */
int wcx_task_fail(const struct wcx_file_task *task, int errnum, struct wcx_error *err);

/*
 * wcx_task_check_replaceable - whether what is there, in another tree, may be replaced; path is its own, for messages
 *
 * What an earlier run made of the source has the time that the source had then: it is older now, or, if it was damaged
 * since, of the same time and size.  Returns 0, also with --force, or -EEXIST.
 */
int wcx_task_check_replaceable(const struct wcx_file_task *task, const char *path, const struct stat *there, bool same_size,
			       struct wcx_error *err);

/* wcx_is_beginning - whether an open file has only what another begins with; false also if one cannot be read */
bool wcx_is_beginning(int fd, int whole_fd);

/* wcx_task_copy - copy the file as it is, reflink or link it as the options say, unless it is there already */
int wcx_task_copy(struct wcx_file_task *task, struct wcx_error *err);

/*
 * wcx_task_remove_source - when the output is complete: sync it and its directory, and remove the source
 *
 * output_st is the status of the output when it was found to be complete.  One that was there already may be as another
 * program left it, in memory alone.  If source or output was changed or replaced meanwhile, the source stays, and so does a
 * packed file that others are packed against; that is an error.
 */
int wcx_task_remove_source(struct wcx_file_task *task, const char *output, const struct stat *output_st,
			   struct wcx_error *err);

/* wcx_task_open_output - open a regular file in the output's directory for reading: a descriptor or -errno */
int wcx_task_open_output(const struct wcx_file_task *task, const char *name, struct stat *st_ret);

/* wcx_is_packed_name - whether a name ends in .wcx, with a name before it */
bool wcx_is_packed_name(const char *name);

/* wcx_is_packed_file - whether an open file begins like a packed one, or cannot be read, of which whoever opens it tells */
bool wcx_is_packed_file(int fd);

/* wcx_fail_without_packed - -ENOENT, since no file below a directory is packed: it may be a mount */
int wcx_fail_without_packed(const char *path, struct wcx_error *err);

/* wcx_explain_read_only - add to the message of -EROFS that the directory is in a mount, if it is; returns r */
int wcx_explain_read_only(int directory_fd, int r, struct wcx_error *err);

/* wcx_task_open_image - open the file as a packed one; the caller puts *ret */
int wcx_task_open_image(struct wcx_file_task *task, struct wcx_image **ret, struct wcx_error *err);

/* wcx_task_add_dtypes - add the tensors and the bases of an image to the result */
int wcx_task_add_dtypes(struct wcx_file_task *task, struct wcx_image *image, struct wcx_error *err);

#endif
