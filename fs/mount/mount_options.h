/* SPDX-License-Identifier: MIT */
/* The command line of wcxfs. */
#ifndef WCX_MOUNT_OPTIONS_H
#define WCX_MOUNT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/host_limits.h"
#include "fs/mount/log_output.h"
#include "fs/read/decoder.h"

struct wcx_mount_options {
	bool show_help, show_version; /* if either is set, nothing else is checked */
	bool foreground, drop_packed, set_readahead;
	bool remount; /* to be refused */
	char *store, *mountpoint;
	int fuse_fd; /* of /dev/fuse, already mounted at mountpoint by who gave /dev/fd/N; -1: to be mounted */
	enum wcx_log_kind log_kind;
	char *log_path; /* for WCX_LOG_FILE */
	char *pid_file; /* NULL: none */
	char *warm;     /* what to read into the page cache; NULL: nothing */
	uint64_t cache_bytes, prefetch_bytes;
	uint64_t readahead_bytes; /* with set_readahead */
	unsigned store_timeout_s; /* after which requests that wait for the store get EIO; 0: never */
	enum wcx_decoder_kind decoder;
	struct wcx_host_limits host; /* what the defaults are made from */
	int libfuse_argc;            /* the arguments for libfuse */
	char **libfuse_argv;
};

extern const char wcx_mount_help[];

/*
 * wcx_mount_options_parse - parse the command line and fill in the defaults
 *
 * The caller frees *opts, also after an error.  Returns 0 or -EINVAL with a message in err; err->text is empty if libfuse
 * has already logged one.
 */
int wcx_mount_options_parse(int argc, char **argv, struct wcx_mount_options *opts, struct wcx_error *err);

/*
 * wcx_mount_options_check - check the directories, and complete the options
 *
 * Afterwards store and mountpoint are absolute, because the daemon changes its working directory, and warm is a path in the
 * mount.  Returns 0 or -errno with a message in err.
 */
int wcx_mount_options_check(struct wcx_mount_options *opts, struct wcx_error *err);
void wcx_mount_options_free(struct wcx_mount_options *opts);

#endif
