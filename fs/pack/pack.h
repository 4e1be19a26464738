/* SPDX-License-Identifier: MIT */
/* Packing a safetensors file into a .wcx file. */
#ifndef WCX_PACK_H
#define WCX_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/job.h"

struct wcx_pack_options {
	struct wcx_job_options job;
	bool is_reference; /* in the scheme of docs/format.md, section 4, that ours is compared with */
};

struct wcx_pack_result {
	uint64_t original_bytes, packed_bytes;
};

/*
 * wcx_pack - pack the safetensors file src_path into dst_path
 *
 * Writes to a temporary name beside dst_path, reads all of it back through the decoder and compares the SHA-256 with the
 * source's, syncs, and only then renames.  src_path is only ever read.  Memory is bounded whatever the file's size.
 *
 * Returns 0, or -errno with err: -EINVAL for what is no safetensors file, -EEXIST when dst_path exists and replace is 0,
 * -EINTR, -ENOSPC and the like.  After a failure there is no temporary file, and an existing output is as it was.
 */
int wcx_pack(const char *src_path, const char *dst_path, const struct wcx_pack_options *options, struct wcx_pack_result *ret,
	     struct wcx_error *err);

#endif
