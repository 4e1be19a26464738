/* SPDX-License-Identifier: MIT */
/*
 * Files of format version 3, the last draft before version 1, which is the stable one: only `wcx convert' reads them.
 *
 * Packed tiles, fields, tile entries and frequency tables are the same in both; superblock and segments have grown.
 */
#ifndef WCX_VERSION3_H
#define WCX_VERSION3_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/container.h"

enum { WCX_VERSION3_SUPERBLOCK_BYTES = 128 };

/*
 * wcx_version3_is - whether a file has an intact superblock of version 3
 *
 * src holds the first min(WCX_SUPERBLOCK_BYTES, file_bytes) bytes of the file.
 */
bool wcx_version3_is(const uint8_t *src, uint64_t file_bytes);

/*
 * wcx_version3_read - read superblock and index of an open file of version 3 as those of version 1
 *
 * *sb_ret and *index_ret, of sb_ret->index_bytes, are what version 1 has; the caller frees the index.  The packed tiles are
 * to be moved from WCX_VERSION3_SUPERBLOCK_BYTES to WCX_SUPERBLOCK_BYTES.  Only sizes and checksums are checked: the rest is
 * for wcx_container_open to check in the new file.  path is for messages.
 *
 * Returns 0; -EMEDIUMTYPE for a file of another version or kind, without a message; -EBADMSG for a damaged one, -EFBIG for
 * one whose index would be too large, -ENOMEM, or the errno of a failed read.  On failure *index_ret is not touched.
 */
int wcx_version3_read(int fd, const char *path, struct wcx_superblock *sb_ret, uint8_t **index_ret, struct wcx_error *err);

#endif
