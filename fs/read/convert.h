/* SPDX-License-Identifier: MIT */
/* Brings a packed file of format version 3 to version 1, the stable one. */
#ifndef WCX_CONVERT_H
#define WCX_CONVERT_H

#include "fs/base/job.h"
#include "fs/read/image.h"

/*
 * wcx_convert - replace a file of version 3 by one of version 1
 *
 * Copies the packed tiles as they are, with a new superblock and index, decodes the result completely, and then puts it in
 * the place of the source in one step, with owner, permissions and times.  fd is the source, open, and path a name that it
 * has and that is no link; options->shown_dst is for messages.  *sb_ret is of the new file.
 *
 * Returns 0; -EMEDIUMTYPE for a file that is not of version 3, without a message; -EBADMSG for a damaged one; -EBUSY if the
 * source changed meanwhile; -EINTR once *options->stop is true; or another -errno.  On failure the source is as it was.
 */
int wcx_convert(int fd, const char *path, const struct wcx_job_options *options, struct wcx_tile_cache *cache,
		struct wcx_decoder *decoder, struct wcx_superblock *sb_ret, struct wcx_error *err);

#endif
