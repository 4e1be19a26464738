/* SPDX-License-Identifier: MIT */
/* Reads back a .wcx file that has just been written. */
#ifndef WCX_PACK_CHECK_H
#define WCX_PACK_CHECK_H

#include "fs/pack/pack.h"
#include "fs/pack/tensor_plan.h"

/*
 * wcx_pack_check - check a written file whose tiles have been verified in memory
 *
 * Opens it as a reader does, with the bases of the options, which checks the index, and reads the checksum of every tile.
 * What the index says about a segment is tried out: its first and last bytes are decoded and compared with the source, and
 * all bytes of a segment that refers to another one.  fd stays the caller's; path is for messages.
 *
 * Returns 0; -EBADMSG where anything differs; or another -errno, such as -EINTR.
 */
int wcx_pack_check(int fd, const char *path, const struct wcx_plan_reader *source, const struct wcx_pack_options *options,
		   struct wcx_error *err);

#endif
