/* SPDX-License-Identifier: MIT */
/* Restoring the safetensors file that a .wcx file holds. */
#ifndef WCX_UNPACK_H
#define WCX_UNPACK_H

#include "fs/base/error.h"
#include "fs/base/job.h"
#include "fs/read/image.h"

/*
 * wcx_unpack - write an image's original file to dst_path
 *
 * As careful as wcx_pack: a temporary name first, and the SHA-256 checked before it becomes dst_path.   Returns 0 or -errno
 * with err: -EBADMSG for a damaged file, -EEXIST, -ENOSPC and the like.
 */
int wcx_unpack(struct wcx_image *image, const char *dst_path, const struct wcx_job_options *options, struct wcx_error *err);

#endif
