/* SPDX-License-Identifier: MIT */
/* Reads and writes superblock and index, and checks every number in them before anything relies on it. */
#include "fs/container.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "codec/le.h"
#include "fs/file_io.h"

enum { TABLE_MIN_BYTES = 5 }; /* two symbols, one of them with a frequency of two bytes, and a run of those without */

static const uint8_t magic[8] = { 0x89, 'W', 'C', 'X', '\r', '\n', 0x1A, '\n' };

struct wcx_container {
	int fd;
	char *path;
	struct wcx_superblock superblock;
	struct wcx_segment *segments;
	uint8_t *index;          /* as it stands in the file */
	const uint8_t *entries;  /* of the tiles, within index */
	const uint8_t *tables;   /* within index */
	uint32_t *table_offsets; /* table_count of them, from tables */
};

uint64_t wcx_checksum64(const void *src, size_t src_bytes)
{
	return XXH3_64bits(src, src_bytes);
}

uint32_t wcx_checksum32(const void *src, size_t src_bytes)
{
	return (uint32_t)XXH3_64bits(src, src_bytes);
}

void wcx_superblock_write(const struct wcx_superblock *sb, uint8_t dst[WCX_SUPERBLOCK_BYTES])
{
	memcpy(dst, magic, sizeof magic);
	wcx_le32_write(dst + 8, WCX_VERSION);
	wcx_le32_write(dst + 12, 0);
	wcx_le64_write(dst + 16, sb->features);
	wcx_le64_write(dst + 24, sb->packed_bytes);
	wcx_le64_write(dst + 32, sb->original_bytes);
	wcx_le64_write(dst + 40, sb->index_offset);
	wcx_le64_write(dst + 48, sb->index_bytes);
	wcx_le32_write(dst + 56, sb->segment_count);
	wcx_le32_write(dst + 60, sb->table_count);
	wcx_le64_write(dst + 64, sb->tile_count);
	wcx_le64_write(dst + 72, sb->table_bytes);
	wcx_le64_write(dst + 80, sb->index_checksum);
	memcpy(dst + 88, sb->sha256, WCX_SHA256_BYTES);
	wcx_le64_write(dst + 120, wcx_checksum64(dst, 120));
}

static int bad_superblock(struct wcx_error *err, const char *path, int offset, const char *what)
{
	return wcx_fail(err, EBADMSG, "%s: damaged superblock, offset %d: %s", path, offset, what);
}

/* What a damaged or foreign file shows first: it says what the file is not. */
static int check_identity(const char *path, const uint8_t *src, uint64_t file_bytes, struct wcx_error *err)
{
	if (file_bytes < sizeof magic || memcmp(src, magic, sizeof magic) != 0)
		return wcx_fail(err, EBADMSG, "%s: not a .wcx file", path);
	if (file_bytes < WCX_SUPERBLOCK_BYTES)
		return wcx_fail(err, EBADMSG, "%s: truncated: %llu bytes, a superblock has %d", path,
				(unsigned long long)file_bytes, WCX_SUPERBLOCK_BYTES);
	if (wcx_le64_read(src + 120) != wcx_checksum64(src, 120))
		return bad_superblock(err, path, 120, "checksum differs");
	if (wcx_le32_read(src + 8) != WCX_VERSION)
		return wcx_fail(err, ENOTSUP, "%s: format version %lu, this program reads version %d", path,
				(unsigned long)wcx_le32_read(src + 8), WCX_VERSION);
	if (wcx_le64_read(src + 16) != 0)
		return wcx_fail(err, ENOTSUP, "%s: needs features that this program does not have (flags %#llx)", path,
				(unsigned long long)wcx_le64_read(src + 16));
	return 0;
}

/* What the parts of the index take together; their counts must be within limits. */
static uint64_t index_parts(const struct wcx_superblock *sb)
{
	return (uint64_t)sb->segment_count * WCX_SEGMENT_BYTES + sb->tile_count * WCX_TILE_ENTRY_BYTES + sb->table_bytes;
}

int wcx_superblock_parse(const char *path, const uint8_t *src, uint64_t file_bytes, struct wcx_superblock *ret,
			 struct wcx_error *err)
{
	int r = check_identity(path, src, file_bytes, err);

	if (r < 0)
		return r;
	struct wcx_superblock sb = {
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

	memcpy(sb.sha256, src + 88, WCX_SHA256_BYTES);
	if (wcx_le32_read(src + 12) != 0)
		return bad_superblock(err, path, 12, "reserved bytes are not zero");
	if (sb.packed_bytes != file_bytes)
		return wcx_fail(err, EBADMSG, "%s: %s: %llu bytes, should have %llu", path,
				file_bytes < sb.packed_bytes ? "truncated" : "damaged", (unsigned long long)file_bytes,
				(unsigned long long)sb.packed_bytes);
	if (sb.original_bytes == 0 || sb.original_bytes > WCX_MAX_ORIGINAL_BYTES)
		return bad_superblock(err, path, 32, "size of the original out of limits");
	if (sb.index_bytes > WCX_MAX_INDEX_BYTES)
		return bad_superblock(err, path, 48, "index over the size limit");
	if (sb.index_offset % WCX_TILE_ALIGN || sb.index_offset < WCX_SUPERBLOCK_BYTES || sb.index_offset > file_bytes ||
	    sb.index_bytes != file_bytes - sb.index_offset)
		return bad_superblock(err, path, 40, "index is not where it should be");
	if (sb.segment_count == 0 || sb.tile_count == 0 || sb.tile_count > WCX_MAX_INDEX_BYTES ||
	    sb.table_bytes > WCX_MAX_INDEX_BYTES || sb.index_bytes != index_parts(&sb))
		return bad_superblock(err, path, 56, "counts contradict the size of the index");
	if (sb.table_count > sb.table_bytes / TABLE_MIN_BYTES)
		return bad_superblock(err, path, 60, "more frequency tables than bytes for them");
	*ret = sb;
	return 0;
}

/* A file that ends too early is damaged. */
static int read_exactly(int fd, const char *path, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	ssize_t n = wcx_read_at(fd, dst, bytes, offset);

	if (n < 0)
		return wcx_fail(err, (int)-n, "%s: offset %llu: %s", path, (unsigned long long)offset, strerror((int)-n));
	if ((size_t)n < bytes)
		return wcx_fail(err, EBADMSG, "%s: truncated at offset %llu", path,
				(unsigned long long)(offset + (uint64_t)n));
	return 0;
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
	int r = read_exactly(fd, path, block, file_bytes < sizeof block ? (size_t)file_bytes : sizeof block, 0, err);

	return r < 0 ? r : wcx_superblock_parse(path, block, file_bytes, ret, err);
}

static int bad_index(const struct wcx_container *c, struct wcx_error *err, const uint8_t *at, const char *what)
{
	return wcx_fail(err, EBADMSG, "%s: damaged index, offset %llu: %s", c->path,
			(unsigned long long)(c->superblock.index_offset + (uint64_t)(at - c->index)), what);
}

static int parse_tables(struct wcx_container *c, struct wcx_error *err)
{
	size_t bytes = (size_t)c->superblock.table_bytes, offset = 0;

	for (uint32_t i = 0; i < c->superblock.table_count; i++) {
		size_t used;

		if (wcx_freq_table_parse(c->tables + offset, bytes - offset, NULL, &used) != WCX_OK)
			return bad_index(c, err, c->tables + offset, "bad frequency table");
		c->table_offsets[i] = (uint32_t)offset;
		offset += used;
	}
	if (offset != bytes)
		return bad_index(c, err, c->tables + offset, "bytes behind the last frequency table");
	return 0;
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

void wcx_segment_grid(struct wcx_segment *seg)
{
	seg->rows = seg->bytes / seg->elem_bytes / seg->cols;
	seg->tiles_across = divide_up(seg->cols, seg->tile_cols);
	seg->tile_count = seg->tiles_across * divide_up(seg->rows, seg->tile_rows);
}

void wcx_segment_place(const struct wcx_segment *seg, uint64_t number, struct wcx_tile_info *ret)
{
	ret->row = number / seg->tiles_across * seg->tile_rows;
	ret->col = number % seg->tiles_across * seg->tile_cols;
	ret->shape = (struct wcx_tile_shape){
		.rows = seg->rows - ret->row < seg->tile_rows ? (uint32_t)(seg->rows - ret->row) : seg->tile_rows,
		.cols = seg->cols - ret->col < seg->tile_cols ? (uint32_t)(seg->cols - ret->col) : seg->tile_cols,
		.elem_bytes = seg->elem_bytes,
	};
}

/* Reads a segment; offset and first_tile, which follow from those before it, are the caller's. */
static const char *parse_segment(const uint8_t *src, uint32_t table_count, struct wcx_segment *seg)
{
	static const uint8_t reserved[6];
	uint32_t tables = 0;

	seg->bytes = wcx_le64_read(src);
	seg->cols = wcx_le64_read(src + 8);
	seg->tile_rows = wcx_le32_read(src + 16);
	seg->tile_cols = wcx_le32_read(src + 20);
	seg->first_table = wcx_le32_read(src + 24);
	seg->entropy_millibits = wcx_le32_read(src + 28);
	seg->elem_bytes = src[32];
	seg->table_mask = src[33];
	if (memcmp(src + 34, reserved, sizeof reserved) != 0)
		return "reserved bytes of a segment are not zero";
	if (seg->elem_bytes != 1 && seg->elem_bytes != 2 && seg->elem_bytes != 4 && seg->elem_bytes != 8)
		return "bad element size";
	if (seg->bytes == 0 || seg->bytes > WCX_MAX_ORIGINAL_BYTES || seg->bytes % seg->elem_bytes)
		return "bad segment size";
	uint64_t elems = seg->bytes / seg->elem_bytes;

	if (seg->cols == 0 || seg->cols > elems || elems % seg->cols)
		return "bad number of columns";
	if (seg->tile_rows == 0 || seg->tile_cols == 0 || (uint64_t)seg->tile_rows * seg->tile_cols > WCX_TILE_MAX_ELEMS)
		return "bad tile size";
	if (seg->tile_cols < seg->cols && seg->tile_rows > WCX_TILE_MAX_ROWS)
		return "narrow tiles that are too tall";
	if (seg->table_mask >> seg->elem_bytes)
		return "frequency table for a byte plane that is not there";
	for (uint32_t mask = seg->table_mask; mask; mask &= mask - 1)
		tables++;
	if (tables && (uint64_t)seg->first_table + tables > table_count)
		return "frequency table that is not there";
	wcx_segment_grid(seg);
	return NULL;
}

static int parse_segments(struct wcx_container *c, struct wcx_error *err)
{
	uint64_t offset = 0, tile = 0;

	for (uint32_t i = 0; i < c->superblock.segment_count; i++) {
		const uint8_t *src = c->index + (size_t)i * WCX_SEGMENT_BYTES;
		struct wcx_segment *seg = &c->segments[i];
		const char *wrong = parse_segment(src, c->superblock.table_count, seg);

		if (wrong)
			return bad_index(c, err, src, wrong);
		if (seg->bytes > c->superblock.original_bytes - offset || seg->tile_count > c->superblock.tile_count - tile)
			return bad_index(c, err, src, "segment is larger than the file");
		seg->offset = offset;
		seg->first_tile = tile;
		offset += seg->bytes;
		tile += seg->tile_count;
	}
	if (c->segments[0].bytes < WCX_HEADER_MIN_BYTES)
		return bad_index(c, err, c->index, "first segment is too small for a header");
	if (offset != c->superblock.original_bytes || tile != c->superblock.tile_count)
		return bad_index(c, err, c->entries, "segments do not make up the file");
	return 0;
}

void wcx_container_tile(const struct wcx_container *c, const struct wcx_segment *seg, uint64_t tile_index,
			struct wcx_tile_info *ret)
{
	const uint8_t *entry = c->entries + tile_index * WCX_TILE_ENTRY_BYTES;
	uint32_t size_and_mode = wcx_le32_read(entry + 8);

	*ret = (struct wcx_tile_info){
		.tile_index = tile_index,
		.mode = (enum wcx_tile_mode)(size_and_mode >> 24),
		.constant = wcx_le64_read(entry),
		.packed_offset = wcx_le64_read(entry),
		.packed_bytes = size_and_mode & 0xFFFFFF,
		.checksum = wcx_le32_read(entry + 12),
	};
	wcx_segment_place(seg, tile_index - seg->first_tile, ret);
}

static const char *check_tile(const struct wcx_tile_info *tile, uint64_t index_offset)
{
	size_t tile_bytes = wcx_tile_shape_bytes(&tile->shape);

	if (tile->mode > WCX_TILE_CONSTANT)
		return "unknown tile mode";
	if (tile->mode == WCX_TILE_CONSTANT) {
		if (tile->packed_bytes || tile->checksum)
			return "constant tile with a size or checksum";
		if (tile->shape.elem_bytes < 8 && tile->constant >> (8 * tile->shape.elem_bytes))
			return "constant tile whose element is too large";
		return NULL;
	}
	if (tile->mode == WCX_TILE_STORED ? tile->packed_bytes != tile_bytes : tile->packed_bytes >= tile_bytes)
		return "packed size contradicts the tile mode";
	if (tile->packed_offset % WCX_TILE_ALIGN || tile->packed_offset < WCX_SUPERBLOCK_BYTES ||
	    tile->packed_offset > index_offset || tile->packed_bytes > index_offset - tile->packed_offset)
		return "packed tile lies outside its area";
	return NULL;
}

static int check_tiles(const struct wcx_container *c, struct wcx_error *err)
{
	for (uint32_t i = 0; i < c->superblock.segment_count; i++) {
		const struct wcx_segment *seg = &c->segments[i];

		for (uint64_t t = seg->first_tile; t < seg->first_tile + seg->tile_count; t++) {
			struct wcx_tile_info tile;
			const char *wrong;

			wcx_container_tile(c, seg, t, &tile);
			wrong = check_tile(&tile, c->superblock.index_offset);
			if (wrong)
				return bad_index(c, err, c->entries + t * WCX_TILE_ENTRY_BYTES, wrong);
		}
	}
	return 0;
}

static int read_index(struct wcx_container *c, struct wcx_error *err)
{
	const struct wcx_superblock *sb = &c->superblock;
	int r;

	c->index = malloc((size_t)sb->index_bytes);
	c->segments = calloc(sb->segment_count, sizeof *c->segments);
	c->table_offsets = calloc(sb->table_count ? sb->table_count : 1, sizeof *c->table_offsets);
	if (!c->index || !c->segments || !c->table_offsets)
		return wcx_fail(err, ENOMEM, "%s: no memory for the index", c->path);
	c->entries = c->index + (size_t)sb->segment_count * WCX_SEGMENT_BYTES;
	c->tables = c->entries + sb->tile_count * WCX_TILE_ENTRY_BYTES;
	r = read_exactly(c->fd, c->path, c->index, (size_t)sb->index_bytes, sb->index_offset, err);
	if (r < 0)
		return r;
	if (wcx_checksum64(c->index, (size_t)sb->index_bytes) != sb->index_checksum)
		return bad_index(c, err, c->index, "checksum differs");
	r = parse_tables(c, err);
	if (r == 0)
		r = parse_segments(c, err);
	if (r == 0)
		r = check_tiles(c, err);
	return r;
}

int wcx_container_open(int fd, const char *path, struct wcx_container **ret, struct wcx_error *err)
{
	struct wcx_container *c = calloc(1, sizeof *c);
	int r = -ENOMEM;

	if (c)
		c->path = strdup(path);
	if (!c || !c->path) {
		wcx_fail(err, ENOMEM, "%s: no memory", path);
		goto out;
	}
	c->fd = fd;
	r = wcx_superblock_read(fd, path, &c->superblock, err);
	if (r == 0)
		r = read_index(c, err);
	if (r == 0)
		*ret = c;
out:
	if (r < 0 && c) {
		c->fd = -1;
		wcx_container_free(c);
	}
	return r;
}

void wcx_container_free(struct wcx_container *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c->path);
	free(c->segments);
	free(c->index);
	free(c->table_offsets);
	free(c);
}

int wcx_container_fd(const struct wcx_container *c)
{
	return c->fd;
}

const char *wcx_container_path(const struct wcx_container *c)
{
	return c->path;
}

const struct wcx_superblock *wcx_container_superblock(const struct wcx_container *c)
{
	return &c->superblock;
}

const struct wcx_segment *wcx_container_segment(const struct wcx_container *c, size_t segment_index)
{
	return &c->segments[segment_index];
}

static uint64_t offset_of(const struct wcx_segment *seg)
{
	return seg->offset;
}

static uint64_t first_tile_of(const struct wcx_segment *seg)
{
	return seg->first_tile;
}

/* The last segment whose key, which grows from one to the next, is at most value. */
static size_t last_upto(const struct wcx_container *c, uint64_t (*key)(const struct wcx_segment *), uint64_t value)
{
	size_t low = 0, high = c->superblock.segment_count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (key(&c->segments[middle]) <= value)
			low = middle;
		else
			high = middle;
	}
	return low;
}

size_t wcx_container_segment_at(const struct wcx_container *c, uint64_t offset)
{
	return last_upto(c, offset_of, offset);
}

size_t wcx_container_segment_of_tile(const struct wcx_container *c, uint64_t tile_index)
{
	return last_upto(c, first_tile_of, tile_index);
}

void wcx_container_tables(const struct wcx_container *c, const struct wcx_segment *seg,
			  struct wcx_freq_table tables[WCX_PLANES_MAX])
{
	uint32_t number = seg->first_table;

	for (uint32_t p = 0; p < seg->elem_bytes; p++) {
		size_t used;

		if (!(seg->table_mask >> p & 1))
			continue;
		uint32_t offset = c->table_offsets[number++];

		/* Cannot fail: the same bytes were parsed when the container was opened. */
		wcx_freq_table_parse(c->tables + offset, (size_t)c->superblock.table_bytes - offset, &tables[p], &used);
	}
}

void wcx_segment_write(const struct wcx_segment *seg, uint8_t dst[WCX_SEGMENT_BYTES])
{
	memset(dst, 0, WCX_SEGMENT_BYTES);
	wcx_le64_write(dst, seg->bytes);
	wcx_le64_write(dst + 8, seg->cols);
	wcx_le32_write(dst + 16, seg->tile_rows);
	wcx_le32_write(dst + 20, seg->tile_cols);
	wcx_le32_write(dst + 24, seg->first_table);
	wcx_le32_write(dst + 28, seg->entropy_millibits);
	dst[32] = seg->elem_bytes;
	dst[33] = seg->table_mask;
}

void wcx_tile_entry_write(const struct wcx_tile_info *tile, uint8_t dst[WCX_TILE_ENTRY_BYTES])
{
	wcx_le64_write(dst, tile->mode == WCX_TILE_CONSTANT ? tile->constant : tile->packed_offset);
	wcx_le32_write(dst + 8, tile->packed_bytes | (uint32_t)tile->mode << 24);
	wcx_le32_write(dst + 12, tile->checksum);
}
