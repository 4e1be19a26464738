/* SPDX-License-Identifier: MIT */
/* Reads superblock and index of format version 3. */
#include "fs/format/version3.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "codec/le.h"

enum { CHECKSUM_AT = WCX_VERSION3_SUPERBLOCK_BYTES - 8, SEGMENT_BYTES = 40 };

bool wcx_version3_is(const uint8_t *src, uint64_t file_bytes)
{
	return file_bytes >= WCX_VERSION3_SUPERBLOCK_BYTES && memcmp(src, WCX_MAGIC, WCX_MAGIC_BYTES) == 0 &&
	       wcx_le32_read(src + 8) == 3 && wcx_le64_read(src + CHECKSUM_AT) == wcx_checksum64(src, CHECKSUM_AT);
}

static void read_superblock(const uint8_t *src, struct wcx_superblock *sb)
{
	*sb = (struct wcx_superblock){
		.field_count = wcx_le32_read(src + 12),
		.features = wcx_le64_read(src + 16),
		.packed_bytes = wcx_le64_read(src + 24),
		.original_bytes = wcx_le64_read(src + 32),
		.index_offset = wcx_le64_read(src + 40),
		.index_bytes = wcx_le64_read(src + 48),
		.segment_count = wcx_le32_read(src + 56),
		.table_count = wcx_le32_read(src + 60),
		.tile_count = wcx_le64_read(src + 64),
		.table_bytes = wcx_le64_read(src + 72),
		.index_checksum = wcx_le64_read(src + 80),
	};
	memcpy(sb->sha256, src + 88, WCX_SHA256_BYTES);
}

/* Checks what reading the index relies on. */
static int check_superblock(const char *path, const struct wcx_superblock *sb, uint64_t file_bytes, struct wcx_error *err)
{
	if (sb->features)
		return wcx_fail(err, ENOTSUP, "%s: format version 3 with unknown features", path);
	if (sb->packed_bytes != file_bytes)
		return wcx_fail(err, EBADMSG, "%s: %s: %llu bytes, should have %llu", path,
				file_bytes < sb->packed_bytes ? "truncated" : "damaged", (unsigned long long)file_bytes,
				(unsigned long long)sb->packed_bytes);
	if (sb->index_bytes > WCX_MAX_INDEX_BYTES || sb->index_offset % WCX_TILE_ALIGN ||
	    sb->index_offset < WCX_VERSION3_SUPERBLOCK_BYTES || sb->index_offset > file_bytes ||
	    sb->index_bytes != file_bytes - sb->index_offset)
		return wcx_fail(err, EBADMSG, "%s: damaged superblock, offset 40: index is not where it should be", path);
	if (sb->segment_count > sb->index_bytes / SEGMENT_BYTES)
		return wcx_fail(err, EBADMSG, "%s: damaged superblock, offset 56: more segments than bytes for them", path);
	return 0;
}

/* Makes the index of version 1: the segments get zeros behind them. */
static uint8_t *grow_index(const uint8_t *src, const struct wcx_superblock *sb, size_t *bytes_ret)
{
	const size_t rest_bytes = sb->index_bytes - (size_t)sb->segment_count * SEGMENT_BYTES;
	const size_t bytes = (size_t)sb->segment_count * WCX_SEGMENT_BYTES + rest_bytes;
	uint8_t *index = calloc(bytes ? bytes : 1, 1), *dst = index;

	for (uint32_t i = 0; index && i < sb->segment_count; i++, src += SEGMENT_BYTES, dst += WCX_SEGMENT_BYTES)
		memcpy(dst, src, SEGMENT_BYTES);
	if (index)
		memcpy(dst, src, rest_bytes);
	*bytes_ret = bytes;
	return index;
}

static int read_index(int fd, const char *path, struct wcx_superblock *sb, uint8_t **ret, struct wcx_error *err)
{
	uint8_t *old = malloc(sb->index_bytes ? sb->index_bytes : 1), *index = NULL;
	size_t bytes = 0;
	int r = old ? wcx_packed_read(fd, path, old, (size_t)sb->index_bytes, sb->index_offset, err) : -ENOMEM;

	if (r == 0 && wcx_checksum64(old, (size_t)sb->index_bytes) != sb->index_checksum)
		r = wcx_fail(err, EBADMSG, "%s: damaged index, offset %llu: checksum differs", path,
			     (unsigned long long)sb->index_offset);
	if (r == 0) {
		index = grow_index(old, sb, &bytes);
		r = index ? 0 : -ENOMEM;
	}
	free(old);
	if (r == 0 && bytes > WCX_MAX_INDEX_BYTES) {
		free(index);
		return wcx_fail(err, EFBIG, "%s: too many segments for one .wcx file of version %d", path, WCX_VERSION);
	}
	if (r == -ENOMEM)
		wcx_fail(err, ENOMEM, "%s: no memory for the index", path);
	if (r < 0)
		return r;
	sb->index_offset += WCX_SUPERBLOCK_BYTES - WCX_VERSION3_SUPERBLOCK_BYTES;
	sb->index_bytes = bytes;
	sb->packed_bytes = sb->index_offset + bytes;
	sb->index_checksum = wcx_checksum64(index, bytes);
	*ret = index;
	return 0;
}

int wcx_version3_read(int fd, const char *path, struct wcx_superblock *sb_ret, uint8_t **index_ret, struct wcx_error *err)
{
	uint8_t block[WCX_VERSION3_SUPERBLOCK_BYTES];
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size < WCX_VERSION3_SUPERBLOCK_BYTES)
		return -EMEDIUMTYPE;
	r = wcx_packed_read(fd, path, block, sizeof block, 0, err);
	if (r == 0 && !wcx_version3_is(block, (uint64_t)st.st_size))
		return -EMEDIUMTYPE;
	if (r < 0)
		return r;
	read_superblock(block, sb_ret);
	r = check_superblock(path, sb_ret, (uint64_t)st.st_size, err);
	return r < 0 ? r : read_index(fd, path, sb_ret, index_ret, err);
}
