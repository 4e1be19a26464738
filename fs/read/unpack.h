/* SPDX-License-Identifier: MIT */
/* Unpacking: restoring the safetensors file that a .wcx file holds. */
#ifndef WCX_UNPACK_H
#define WCX_UNPACK_H

#include "fs/base/error.h"
#include "fs/base/job.h"
#include "fs/base/output_file.h"
#include "fs/read/image.h"

/*
 * wcx_unpack - write an image's original file to dst_path
 *
 * The file gets its name only when it is complete and its SHA-256 is right.  Returns 0 or -errno: -EBADMSG for a damaged
 * image, -EEXIST, -ENOSPC and the like.
 */
int wcx_unpack(struct wcx_image *image, const char *dst_path, const struct wcx_job_options *options, struct wcx_error *err);

/* wcx_unpack_into - the same into an output that was created, which the caller commits or discards */
int wcx_unpack_into(const struct wcx_output_file *output, struct wcx_image *image, const struct wcx_job_options *options,
		    struct wcx_error *err);

#endif
