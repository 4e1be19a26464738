/* SPDX-License-Identifier: MIT */
/*
 * Files of format version 3, the last one before version 1, which is the stable one: only `wcx convert' reads them.
 *
 * Packed tiles, fields, tile entries and tables are the same in both; superblock and segments have grown.
 */
#ifndef WCX_VERSION3_H
#define WCX_VERSION3_H

#include <stdbool.h>
#include <stdint.h>

enum { WCX_VERSION3_SUPERBLOCK_BYTES = 128 };

/*
 * wcx_version3_is - whether a file has an intact superblock of version 3
 *
 * src holds the first min(WCX_SUPERBLOCK_BYTES, file_bytes) bytes of the file.
 */
bool wcx_version3_is(const uint8_t *src, uint64_t file_bytes);

#endif
