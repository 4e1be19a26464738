/* SPDX-License-Identifier: MIT */
/*
 * The container: superblock and index of a .wcx file (docs/format.md, section 2), validated in full before use.
 *
 * An open container is immutable, so all functions but open and free are safe from any number of threads.
 */
#ifndef WCX_CONTAINER_H
#define WCX_CONTAINER_H

#include <stddef.h>
#include <stdint.h>

#include "codec/arith.h"
#include "fs/base/error.h"
#include "fs/format/segment.h"

enum {
	WCX_VERSION = 1,
	WCX_SUPERBLOCK_BYTES = 192,
	WCX_SEGMENT_BYTES = 64,
	WCX_FIELD_BYTES = 8,
	WCX_TILE_ENTRY_BYTES = 8,
	WCX_BASE_BYTES = 48,
	WCX_TILE_ALIGN = 4,
	/* Limits of a tile narrower than its matrix, which bound the work per byte read: tests/bench/worst_read.c. */
	WCX_TILE_MAX_ROWS = 256,
	WCX_TILE_MAX_SLENDERNESS = 8, /* rows per column */
	/* Of a segment with a base, whose tiles may be far apart there: bounds what a read decodes of the base. */
	WCX_BASED_SEGMENT_MIN_BYTES = WCX_TILE_MAX_BYTES / 256,
	WCX_ZSTD_TILE_MAX_BYTES = 64 << 10, /* decoded: a crafted frame decodes at 6 MB/s */
	WCX_TILE_MAX_FIELD_ROWS = 512,      /* rows times fields */
	WCX_HEADER_MIN_BYTES = 8,
	WCX_SHA256_BYTES = 32,
	WCX_MAX_INDEX_BYTES = 1 << 28, /* about 32 million tiles: 1 TiB of INT8 weights */
	WCX_MAX_TABLES = 1 << 17,      /* 64 MiB when parsed */
	WCX_BASES_MAX = 256,
	WCX_BASE_NAME_MAX_BYTES = 4095,
	/* Features that a reader must know. */
	WCX_FEATURE_BASES = 1 << 0,
	WCX_FEATURE_SETS = 1 << 1,
	WCX_FEATURE_ESCAPES = 1 << 2,
	WCX_FEATURE_DIFFERENCE_PAIRS = 1 << 3,
	WCX_FEATURES_KNOWN = WCX_FEATURE_BASES | WCX_FEATURE_SETS | WCX_FEATURE_ESCAPES | WCX_FEATURE_DIFFERENCE_PAIRS,
	/* The flags of a field: the number of its tables or that there is one for each context, three bits, and set_bits. */
	WCX_FIELD_TABLES = 7,
	WCX_FIELD_BY_CONTEXT = 7,
	WCX_FIELD_PAIRS = 1 << 3,
	WCX_FIELD_ZERO = 1 << 4,
	WCX_FIELD_SETS_UNIT = 1 << 5,
	WCX_FIELD_SETS = 3 * WCX_FIELD_SETS_UNIT,
	WCX_FIELD_ESCAPES = 1 << 7,
};

/* wcx_field_features - the features, by their flags, that a field of a recipe needs */
uint64_t wcx_field_features(const struct wcx_recipe *recipe, const struct wcx_field *field);
#define WCX_MAGIC "\x89WCX\r\n\x1A\n"
enum { WCX_MAGIC_BYTES = sizeof WCX_MAGIC - 1 };
#define WCX_MAX_ORIGINAL_BYTES (UINT64_C(1) << 60)

struct wcx_superblock {
	uint64_t features, packed_bytes, original_bytes, index_offset, index_bytes;
	uint32_t segment_count, field_count, table_count;
	uint64_t tile_count, table_bytes, index_checksum;
	uint8_t sha256[WCX_SHA256_BYTES];
	uint64_t optional_features; /* that a reader may ignore */
	uint32_t base_count, base_name_bytes;
	uint64_t extra_bytes; /* at the end of the index, which a reader ignores */
};

/* Another safetensors file, from which segments are coded as differences. */
struct wcx_base {
	uint8_t sha256[WCX_SHA256_BYTES]; /* of the base's original */
	uint64_t original_bytes;
	/* Where its packed file was, seen from the directory of this one; may be empty.  A hint from an untrusted file. */
	const char *name;
};

struct wcx_container;

/* wcx_tile_align_up - the first place at or after an offset where a packed tile may start */
static inline uint64_t wcx_tile_align_up(uint64_t offset)
{
	return WCX_ALIGN_UP(offset, WCX_TILE_ALIGN);
}

/*
 * wcx_superblock_parse - check a superblock against all of docs/format.md, section 2.1, that it can show by itself
 *
 * The checksum of the index and the sum of the segments are wcx_container_open's to check.  src holds the first
 * min(WCX_SUPERBLOCK_BYTES, file_bytes) bytes of the file; path is only for messages.  Results as of wcx_container_open.
 */
int wcx_superblock_parse(const char *path, const uint8_t *src, uint64_t file_bytes, struct wcx_superblock *ret,
			 struct wcx_error *err);

/* wcx_superblock_read - read and parse the superblock of an open file, with one pread */
int wcx_superblock_read(int fd, const char *path, struct wcx_superblock *ret, struct wcx_error *err);

/* wcx_packed_read - read bytes of a packed file, which is damaged (-EBADMSG) if it ends before them; else like pread */
int wcx_packed_read(int fd, const char *path, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err);

/*
 * wcx_container_open - read and check superblock and index, with two preads
 *
 * path is only for messages.  On success the container owns fd; on failure fd stays the caller's, open, and *ret is not
 * touched.  Returns 0; -EBADMSG for a damaged file, -ENOTSUP for an unknown version or feature, -ENOMEM, or the errno of a
 * failed read.
 */
int wcx_container_open(int fd, const char *path, struct wcx_container **ret, struct wcx_error *err);

/* wcx_container_open_as - the same with a superblock that was read before: takes no more memory than that tells */
int wcx_container_open_as(int fd, const char *path, const struct wcx_superblock *superblock, struct wcx_container **ret,
			  struct wcx_error *err);
void wcx_container_free(struct wcx_container *container); /* NULL is fine; closes fd */

int wcx_container_fd(const struct wcx_container *container);
const char *wcx_container_path(const struct wcx_container *container);

/* wcx_container_memory_bytes - what a container with this superblock takes as long as it is open, and while it is opened */
uint64_t wcx_container_memory_bytes(const struct wcx_superblock *superblock);

const struct wcx_superblock *wcx_container_superblock(const struct wcx_container *container);

/* wcx_container_segment - the segment of that index, followed by the others in memory as in the file */
const struct wcx_segment *wcx_container_segment(const struct wcx_container *container, size_t segment_index);

/* wcx_container_segment_at - the index of the segment that holds a byte of the original file; offset must be inside it */
size_t wcx_container_segment_at(const struct wcx_container *container, uint64_t offset);

/* wcx_container_segment_of_tile - the index of a tile's segment; of several with the same content, the first */
size_t wcx_container_segment_of_tile(const struct wcx_container *container, uint64_t tile_index);

/* wcx_container_tile - describe a tile of a segment */
void wcx_container_tile(const struct wcx_container *container, const struct wcx_segment *segment, uint64_t tile_index,
			struct wcx_tile_info *ret);

/* wcx_container_base_count, wcx_container_base - the bases that segments name by number, from 1 up to the count */
uint32_t wcx_container_base_count(const struct wcx_container *container);
const struct wcx_base *wcx_container_base(const struct wcx_container *container, uint32_t number);

/* XXH3 of tiles and of the index; the short one is its lower half. */
uint64_t wcx_checksum64(const void *src, size_t src_bytes);
uint32_t wcx_checksum32(const void *src, size_t src_bytes);

#endif
