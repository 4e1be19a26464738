/* SPDX-License-Identifier: MIT */
/*
 * A file that the daemon keeps open for writing, and finds again by its name: the log and the pid file.
 *
 * The directory stays open, so that the name leads to the same place after the daemon has left its working directory, and
 * never through a mount that was made above it since: a daemon that opens a file of its own mount waits for itself.
 */
#ifndef WCX_NAMED_FILE_H
#define WCX_NAMED_FILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "fs/base/error.h"

struct wcx_named_file {
	int dir_fd, fd; /* -1: not open */
	char *name;     /* in the directory */
	bool is_new;    /* it did not exist */
};

#define WCX_NAMED_FILE_INIT                                                                                                 \
	{                                                                                                                   \
		-1, -1, NULL, false                                                                                         \
	}

/*
 * wcx_named_file_open - open a file for writing, creating it if need be
 *
 * flags are more flags of open(2).  Only a regular file, a device or a FIFO that has a reader will do: it never waits.
 * Returns 0, or -errno with a message in err and nothing open.
 */
int wcx_named_file_open(struct wcx_named_file *file, const char *path, int flags, mode_t mode, struct wcx_error *err);

/* wcx_named_file_reopen - replace the open file by what has its name now, under the same descriptor; 0 or -errno */
int wcx_named_file_reopen(struct wcx_named_file *file, int flags, mode_t mode);
void wcx_named_file_close(struct wcx_named_file *file); /* one that is not open is fine */

/*
 * wcx_pid_file_open, write, remove - a file with the number of the daemon's process
 *
 * Opened, and not changed, while it can still be reported that this fails and privileges are there; written once the store
 * is mounted; removed at the end, if it still holds this process's number, or if it is new and was never written.  Where the
 * privileges to remove it are gone, it is left empty.
 */
int wcx_pid_file_open(struct wcx_named_file *file, const char *path, struct wcx_error *err); /* 0 or -errno with err */
int wcx_pid_file_write(struct wcx_named_file *file);                                         /* 0 or -errno */
void wcx_pid_file_remove(struct wcx_named_file *file); /* and closes it; one that is not open is fine */

#endif
