/* SPDX-License-Identifier: MIT */
/*
 * The container: a .wcx file's superblock and index (docs/format.md, section 2), validated in full before use.
 *
 * A container never changes once open, so all functions but open and free are safe from any number of threads.
 */
#ifndef WCX_CONTAINER_H
#define WCX_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/format/segment.h"

enum {
	WCX_VERSION = 3,
	WCX_SUPERBLOCK_BYTES = 128,
	WCX_SEGMENT_BYTES = 40,
	WCX_FIELD_BYTES = 8,
	WCX_TILE_ENTRY_BYTES = 8,
	WCX_TILE_ALIGN = 4,
	WCX_TILE_MAX_ROWS = 256, /* of a tile narrower than its matrix; bounds what a read decodes beyond its bytes */
	WCX_HEADER_MIN_BYTES = 8,
	WCX_SHA256_BYTES = 32,
	WCX_MAX_INDEX_BYTES = 1 << 28, /* some 32 million tiles: a TiB of INT8 weights */
	WCX_MAX_TABLES = 1 << 17,      /* 64 MiB when parsed */
};
#define WCX_MAX_ORIGINAL_BYTES (UINT64_C(1) << 60)

struct wcx_superblock {
	uint64_t features, packed_bytes, original_bytes, index_offset, index_bytes;
	uint32_t segment_count, field_count, table_count;
	uint64_t tile_count, table_bytes, index_checksum;
	uint8_t sha256[WCX_SHA256_BYTES];
};

struct wcx_container;

/* wcx_tile_align_up - where the next packed tile may start, at or after an offset */
static inline uint64_t wcx_tile_align_up(uint64_t offset)
{
	return (offset + WCX_TILE_ALIGN - 1) / WCX_TILE_ALIGN * WCX_TILE_ALIGN;
}

/*
 * The two ends of a superblock's life.  parse checks all of section 2.1 but the checksum of the index and, as it says
 * nothing of the segments, their sum; src holds min(128, file_bytes) bytes.  It returns as wcx_container_open does.
 */
void wcx_superblock_write(const struct wcx_superblock *sb, uint8_t dst[WCX_SUPERBLOCK_BYTES]);
int wcx_superblock_parse(const char *path, const uint8_t *src, uint64_t file_bytes, struct wcx_superblock *ret,
			 struct wcx_error *err);

/* wcx_superblock_read - read and check the superblock of an open file: one pread.  Returns as wcx_container_open does. */
int wcx_superblock_read(int fd, const char *path, struct wcx_superblock *ret, struct wcx_error *err);

/*
 * wcx_container_open - read and check superblock and index: two preads
 *
 * path is only for messages.  The container keeps fd and closes it when freed; on failure fd stays the caller's.
 * Returns 0; -EBADMSG for a damaged file, -ENOTSUP for a version or feature that is not known, -ENOMEM, or the errno of a
 * failed read.
 */
int wcx_container_open(int fd, const char *path, struct wcx_container **ret, struct wcx_error *err);
void wcx_container_free(struct wcx_container *container); /* NULL is fine */

int wcx_container_fd(const struct wcx_container *container);
const char *wcx_container_path(const struct wcx_container *container);
const struct wcx_superblock *wcx_container_superblock(const struct wcx_container *container);
const struct wcx_segment *wcx_container_segment(const struct wcx_container *container, size_t segment_index);

/* wcx_container_segment_at - index of the segment that holds a byte of the original file; offset must be inside it */
size_t wcx_container_segment_at(const struct wcx_container *container, uint64_t offset);

/* wcx_container_segment_of_tile - index of the segment that a tile belongs to: of several with the same content the first */
size_t wcx_container_segment_of_tile(const struct wcx_container *container, uint64_t tile_index);

/* wcx_container_tile - describe one tile of a segment */
void wcx_container_tile(const struct wcx_container *container, const struct wcx_segment *segment, uint64_t tile_index,
			struct wcx_tile_info *ret);

/* What the packer needs to write an index: the reverse of the parsing, into buffers of the sizes named above. */
void wcx_segment_write(const struct wcx_segment *segment, uint8_t dst[WCX_SEGMENT_BYTES]);
void wcx_field_write(const struct wcx_field *field, uint32_t first_table, uint8_t dst[WCX_FIELD_BYTES]);
void wcx_tile_entry_write(const struct wcx_tile_info *tile, uint8_t dst[WCX_TILE_ENTRY_BYTES]);
uint64_t wcx_checksum64(const void *src, size_t src_bytes);
uint32_t wcx_checksum32(const void *src, size_t src_bytes);

#endif
