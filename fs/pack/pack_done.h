/* SPDX-License-Identifier: MIT */
/* Whether a file has been packed already. */
#ifndef WCX_PACK_DONE_H
#define WCX_PACK_DONE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/base/error.h"
#include "fs/format/container.h"

/*
 * wcx_pack_is_current - whether a packed file is that of a source, by what can be told without reading contents
 *
 * The sizes must agree: the source's and the one in the superblock.  Then either the times of modification do, to the
 * nanosecond, since a packed file has its source's; or the source is named by its SHA-256, as a blob of a hub cache is, and
 * the superblock has the same.
 */
bool wcx_pack_is_current(const char *src_name, const struct stat *src, const struct stat *packed,
			 const struct wcx_superblock *sb);

/* wcx_name_sha256 - the SHA-256 that a name spells, as 64 lower-case hexadecimal digits; false if it is no such name */
bool wcx_name_sha256(const char *name, uint8_t ret[WCX_SHA256_BYTES]);

/* wcx_file_sha256 - hash an open file from its start; path is only for messages.  0, -EINTR once *stop is true, or -errno */
int wcx_file_sha256(int fd, const char *path, const atomic_bool *stop, uint8_t ret[WCX_SHA256_BYTES], struct wcx_error *err);

#endif
