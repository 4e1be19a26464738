/* SPDX-License-Identifier: MIT */
/* Packs a safetensors file into a .wcx file. */
#ifndef WCX_PACK_H
#define WCX_PACK_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/job.h"
#include "fs/format/container.h"
#include "fs/pack/pack_base.h"

struct wcx_pack_options {
	struct wcx_job_options job;
	const char *shown_src; /* what messages call the source; NULL: its path */
	bool is_reference;     /* use the scheme of docs/format.md, section 4, which ours is compared with */
	bool for_speed;        /* take a little more space where that decodes faster */
	/*
	 * Files that tensors may be coded against, where that takes fewer bits; at most WCX_BASES_MAX.  The output names
	 * those that it needs.  They must stay in the store until the output is there.
	 */
	const struct wcx_pack_base *bases;
	size_t base_count;
	/* Told of each base that the output names, by its place in bases, before the output gets its name; may be NULL. */
	void (*needs)(void *needs_user, size_t base);
	void *needs_user;
};

struct wcx_pack_result {
	uint64_t original_bytes, packed_bytes;
	uint64_t based_bytes;             /* of the original, in tensors that are coded against a base */
	uint32_t base_count;              /* of the bases that the output needs */
	uint8_t sha256[WCX_SHA256_BYTES]; /* of the original */
};

/*
 * wcx_pack - pack the safetensors file src_path into dst_path
 *
 * Writes a temporary file beside dst_path and renames it only when it is verified and synced: every tile was decoded from
 * its packed bytes and compared with the source's, in memory; the file was then read back (wcx_pack_check).  src_path is
 * only read; -EBUSY if it changes meanwhile.  Memory is bounded for files of any size.
 *
 * Returns 0 or -errno with err: -EMEDIUMTYPE if src_path is another kind of file, -EINVAL for a malformed
 * safetensors file, -EEXIST if dst_path exists and replace is
 * false, -EINTR, -ENOSPC and others.  After a failure no temporary file is left, and an existing output is unchanged.
 */
int wcx_pack(const char *src_path, const char *dst_path, const struct wcx_pack_options *options, struct wcx_pack_result *ret,
	     struct wcx_error *err);

#endif
