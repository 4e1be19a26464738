/* SPDX-License-Identifier: MIT */
/* What is probably a mistake on the command line, although it can be mounted. */
#ifndef WCX_MOUNT_WARNINGS_H
#define WCX_MOUNT_WARNINGS_H

#include "fs/mount/mount_options.h"

/* Receives one line without a newline. */
typedef void wcx_mount_warn_fn(void *user, const char *text);

/*
 * wcx_mount_warn - tell of a store without packed files, or exchanged for the mount point; of files whose base is not in the
 * store; of a mount point that is not empty; and of a cache that the memory of the machine or the control group cannot hold
 *
 * Call it with checked options, before mounting.  A directory with more than 10,000 entries without a packed file among them
 * is not searched to its end, and not told of; and bases are not looked for among more than 500 packed files.
 */
void wcx_mount_warn(const struct wcx_mount_options *opts, wcx_mount_warn_fn *warn, void *user);

#endif
