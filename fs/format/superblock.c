/* SPDX-License-Identifier: MIT */
/* Reads the superblock of a .wcx file, and checks what it shows by itself. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "codec/le.h"
#include "fs/base/file_io.h"
#include "fs/format/container.h"
#include "fs/format/version3.h"

enum {
	CHECKSUM_AT = WCX_SUPERBLOCK_BYTES - 8,
	RESERVED_AT = 144,
	TABLE_MIN_BYTES = 5, /* two symbols, one with a frequency of two bytes, and a count of absent symbols */
};

static int bad_superblock(struct wcx_error *err, const char *path, int offset, const char *what)
{
	return wcx_fail(err, EBADMSG, "%s: damaged superblock, offset %d: %s", path, offset, what);
}

/* Refuses features that this program does not have, with the number of each. */
static int check_features(const char *path, uint64_t features, struct wcx_error *err)
{
	char flags[64 * sizeof ", 63"] = "";
	uint64_t unknown = features & ~(uint64_t)WCX_FEATURES_KNOWN;
	size_t at = 0;

	if (!unknown)
		return 0;
	for (int bit = 0; bit < 64; bit++)
		if (unknown >> bit & 1)
			at += (size_t)snprintf(flags + at, sizeof flags - at, "%s%d", at ? ", " : "", bit);
	return wcx_fail(err, ENOTSUP, "%s: needs features that this program does not have: flag%s %s of the superblock",
			path, unknown & (unknown - 1) ? "s" : "", flags);
}

/* Checks what tells a .wcx file from others, an intact superblock from a damaged one, and a known version from others. */
static int check_identity(const char *path, const uint8_t *src, uint64_t file_bytes, struct wcx_error *err)
{
	if (file_bytes < WCX_MAGIC_BYTES || memcmp(src, WCX_MAGIC, WCX_MAGIC_BYTES) != 0)
		return wcx_fail(err, EBADMSG, "%s: not a .wcx file", path);
	if (wcx_version3_is(src, file_bytes))
		return wcx_fail(err, ENOTSUP, "%s: format version 3: run `wcx convert' to bring it to version %d", path,
				WCX_VERSION);
	if (file_bytes < WCX_SUPERBLOCK_BYTES)
		return wcx_fail(err, EBADMSG, "%s: truncated: %llu bytes, a superblock has %d", path,
				(unsigned long long)file_bytes, WCX_SUPERBLOCK_BYTES);
	if (wcx_le64_read(src + CHECKSUM_AT) != wcx_checksum64(src, CHECKSUM_AT))
		return bad_superblock(err, path, CHECKSUM_AT, "checksum differs");
	if (wcx_le32_read(src + 8) != WCX_VERSION)
		return wcx_fail(err, ENOTSUP, "%s: format version %lu, this program reads version %d", path,
				(unsigned long)wcx_le32_read(src + 8), WCX_VERSION);
	return check_features(path, wcx_le64_read(src + 16), err);
}

static void read_fields(const uint8_t *src, struct wcx_superblock *sb)
{
	*sb = (struct wcx_superblock){
		.features = wcx_le64_read(src + 16),
		.packed_bytes = wcx_le64_read(src + 24),
		.original_bytes = wcx_le64_read(src + 32),
		.index_offset = wcx_le64_read(src + 40),
		.index_bytes = wcx_le64_read(src + 48),
		.segment_count = wcx_le32_read(src + 56),
		.field_count = wcx_le32_read(src + 12),
		.table_count = wcx_le32_read(src + 60),
		.tile_count = wcx_le64_read(src + 64),
		.table_bytes = wcx_le64_read(src + 72),
		.index_checksum = wcx_le64_read(src + 80),
		.optional_features = wcx_le64_read(src + 120),
		.base_count = wcx_le32_read(src + 128),
		.base_name_bytes = wcx_le32_read(src + 132),
		.extra_bytes = wcx_le64_read(src + 136),
	};
	memcpy(sb->sha256, src + 88, WCX_SHA256_BYTES);
}

/* The sum of the sizes of the index's parts; the counts must be within limits. */
static uint64_t sum_of_parts(const struct wcx_superblock *sb)
{
	return (uint64_t)sb->segment_count * WCX_SEGMENT_BYTES + (uint64_t)sb->field_count * WCX_FIELD_BYTES +
	       sb->tile_count * WCX_TILE_ENTRY_BYTES + sb->table_bytes + (uint64_t)sb->base_count * WCX_BASE_BYTES +
	       sb->base_name_bytes + sb->extra_bytes;
}

static int check_bases(const char *path, const uint8_t *src, const struct wcx_superblock *sb, struct wcx_error *err)
{
	static const uint8_t zeros[CHECKSUM_AT - RESERVED_AT];

	if (!(sb->features & WCX_FEATURE_BASES) != !sb->base_count)
		return bad_superblock(err, path, 128,
				      sb->base_count ? "bases without the flag BASES" : "flag BASES without bases");
	if (sb->base_count > WCX_BASES_MAX)
		return bad_superblock(err, path, 128, "too many bases");
	if (sb->extra_bytes && !sb->optional_features)
		return bad_superblock(err, path, 136, "bytes of optional features without any");
	if (memcmp(src + RESERVED_AT, zeros, sizeof zeros) != 0)
		return bad_superblock(err, path, RESERVED_AT, "reserved bytes are not zero");
	return 0;
}

static int check_counts(const char *path, const struct wcx_superblock *sb, struct wcx_error *err)
{
	if (sb->original_bytes == 0 || sb->original_bytes > WCX_MAX_ORIGINAL_BYTES)
		return bad_superblock(err, path, 32, "size of the original out of limits");
	if (sb->index_bytes > WCX_MAX_INDEX_BYTES)
		return bad_superblock(err, path, 48, "index over the size limit");
	if (sb->index_offset % WCX_TILE_ALIGN || sb->index_offset < WCX_SUPERBLOCK_BYTES ||
	    sb->index_offset > sb->packed_bytes || sb->index_bytes != sb->packed_bytes - sb->index_offset)
		return bad_superblock(err, path, 40, "index is not where it should be");
	if (sb->segment_count == 0 || sb->tile_count == 0 || sb->tile_count > WCX_MAX_INDEX_BYTES ||
	    sb->table_bytes > WCX_MAX_INDEX_BYTES || sb->extra_bytes > WCX_MAX_INDEX_BYTES ||
	    sb->index_bytes != sum_of_parts(sb))
		return bad_superblock(err, path, 56, "counts contradict the size of the index");
	if (sb->table_count > sb->table_bytes / TABLE_MIN_BYTES)
		return bad_superblock(err, path, 60, "more frequency tables than bytes for them");
	if (sb->table_count > WCX_MAX_TABLES)
		return bad_superblock(err, path, 60, "too many frequency tables");
	return 0;
}

int wcx_superblock_parse(const char *path, const uint8_t *src, uint64_t file_bytes, struct wcx_superblock *ret,
			 struct wcx_error *err)
{
	struct wcx_superblock sb;
	int r = check_identity(path, src, file_bytes, err);

	if (r < 0)
		return r;
	read_fields(src, &sb);
	if (sb.packed_bytes != file_bytes)
		return wcx_fail(err, EBADMSG, "%s: %s: %llu bytes, should have %llu", path,
				file_bytes < sb.packed_bytes ? "truncated" : "damaged", (unsigned long long)file_bytes,
				(unsigned long long)sb.packed_bytes);
	r = check_bases(path, src, &sb, err);
	if (r == 0)
		r = check_counts(path, &sb, err);
	if (r == 0)
		*ret = sb;
	return r;
}

int wcx_packed_read(int fd, const char *path, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const int r = wcx_read_exact(fd, dst, bytes, offset);

	if (r == -ENODATA)
		return wcx_fail(err, EBADMSG, "%s: truncated: ends within the %zu bytes from offset %llu on", path, bytes,
				(unsigned long long)offset);
	return r < 0 ? wcx_fail(err, -r, "%s: offset %llu: %s", path, (unsigned long long)offset, strerror(-r)) : 0;
}

int wcx_superblock_read(int fd, const char *path, struct wcx_superblock *ret, struct wcx_error *err)
{
	uint8_t block[WCX_SUPERBLOCK_BYTES] = { 0 };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return wcx_fail(err, EBADMSG, "%s: not a regular file", path);
	uint64_t file_bytes = (uint64_t)st.st_size;
	int r = wcx_packed_read(fd, path, block, (size_t)WCX_MIN(file_bytes, sizeof block), 0, err);

	return r < 0 ? r : wcx_superblock_parse(path, block, file_bytes, ret, err);
}
