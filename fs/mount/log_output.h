/* SPDX-License-Identifier: MIT */
/*
 * Where the daemon's messages go: standard error, syslog or a file.
 *
 * Receives what is logged with fuse_log, libfuse's own messages included.  The state is the process's, because libfuse gives
 * the function that it calls no argument.  Until the mount stands, messages also go to standard error, so that the command
 * shows them.
 */
#ifndef WCX_LOG_OUTPUT_H
#define WCX_LOG_OUTPUT_H

#include <stdbool.h>

#include "fs/base/error.h"

enum wcx_log_kind {
	WCX_LOG_DEFAULT, /* standard error in the foreground, otherwise syslog */
	WCX_LOG_STDERR,
	WCX_LOG_SYSLOG,
	WCX_LOG_FILE,
};

/* wcx_log_kind_parse - "stderr", "syslog", or anything else for a file of that name */
enum wcx_log_kind wcx_log_kind_parse(const char *text);

/* wcx_log_to_stderr - before wcx_log_open: send messages to standard error alone */
void wcx_log_to_stderr(void);

/*
 * wcx_log_open - open the log, before threads are created and the working directory is left
 *
 * path is for WCX_LOG_FILE: the file is created with mode 0640 (less the umask) and appended to.  Where there is no syslog,
 * standard error takes its place, and a warning says so; only if that is a pipe whose end the caller may be waiting for is
 * the log dropped, which the warning says too.  Returns 0, or -errno with a message in err.
 */
int wcx_log_open(enum wcx_log_kind kind, const char *path, bool in_foreground, struct wcx_error *err);

/* wcx_log_keeps_stderr - whether the log is standard error, which a daemon then must not close */
bool wcx_log_keeps_stderr(void);

/* wcx_log_settle - from now on, messages go to the log alone */
void wcx_log_settle(void);

/* wcx_log_can_reopen - whether the log is a file */
bool wcx_log_can_reopen(void);

/*
 * wcx_log_reopen - open the log's file again by its name, as after a rotation
 *
 * In the directory that was opened first, so that it does not lead into the mount.  No message is lost: if it fails, the old
 * file stays and gets a message.  Does nothing for other logs.  Safe while other threads log.
 */
void wcx_log_reopen(void);

#endif
