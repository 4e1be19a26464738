/* SPDX-License-Identifier: MIT */
/*
 * The program as a helper of mount(8), under the name mount.wcxfs:
 *
 *	mount.wcxfs STORE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
 */
#ifndef WCX_MOUNT_HELPER_H
#define WCX_MOUNT_HELPER_H

#include <stdbool.h>

#include "fs/base/error.h"

#define WCX_MOUNT_HELPER_NAME "mount.wcxfs"

/* Exit statuses of mount(8), which passes on those of its helpers. */
enum { WCX_MOUNT_EXIT_USAGE = 1, WCX_MOUNT_EXIT_FAILED = 32 };

struct wcx_mount_helper {
	char *argv[8]; /* the command line of wcxfs that says the same, and NULL; strings of the caller's and constant ones
			*/
	int argc;
	bool is_fake, is_verbose; /* check, but mount nothing; say what was done */
	const char *namespace;    /* a path or a process, to mount in its mount namespace; NULL: in this one */
};

/* wcx_mount_helper_is - whether the program was started under that name, with or without directories */
bool wcx_mount_helper_is(const char *program);

/*
 * wcx_mount_helper_parse - translate a command line of the helper
 *
 * -n (no mtab) and -t say nothing new.  -s, to ignore unknown options, is ignored: which are unknown, only libfuse knows.
 * Returns 0, or -EINVAL with a message in err.
 */
int wcx_mount_helper_parse(int argc, char **argv, struct wcx_mount_helper *ret, struct wcx_error *err);

/* wcx_mount_helper_enter - enter a mount namespace; 0 or -errno with a message in err */
int wcx_mount_helper_enter(const char *namespace, struct wcx_error *err);

/*
 * wcx_mount_option_is_ignored - whether an option of /etc/fstab is for others, such as nofail, _netdev and x-systemd.*
 *
 * mount(8) keeps most of them from its helpers, mount.fuse3 does not; and which depends on their versions.
 */
bool wcx_mount_option_is_ignored(const char *option);

#endif
