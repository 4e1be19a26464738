/* SPDX-License-Identifier: MIT */
/* Reads superblock and index of format version 3. */
#include "fs/format/version3.h"

#include <string.h>

#include "codec/le.h"
#include "fs/format/container.h"

enum { CHECKSUM_AT = WCX_VERSION3_SUPERBLOCK_BYTES - 8 };

bool wcx_version3_is(const uint8_t *src, uint64_t file_bytes)
{
	return file_bytes >= WCX_VERSION3_SUPERBLOCK_BYTES && memcmp(src, WCX_MAGIC, WCX_MAGIC_BYTES) == 0 &&
	       wcx_le32_read(src + 8) == 3 && wcx_le64_read(src + CHECKSUM_AT) == wcx_checksum64(src, CHECKSUM_AT);
}
