/* SPDX-License-Identifier: MIT */
/*
 * .wcx files to test with, put together from tensors that are tiled and coded as a test says; the packer makes neither tiles
 * that are parts of rows nor most of the combinations here.
 */
#ifndef WCX_SAMPLE_IMAGE_H
#define WCX_SAMPLE_IMAGE_H

#include <zstd.h>

#include "fs/container.h"
#include "tests/sample_files.h"

enum { SAMPLE_HEADER_TILE_COLS = 100, SAMPLE_PARTS_MAX = 32, SAMPLE_TABLES = 12 };

/* Four tables each for symbols of 8, of 6 and of 4 bits: Cauchy distributions that get wider. */
static struct wcx_freq_table sample_tables[SAMPLE_TABLES];

static const struct wcx_field sample_bytes_fields[8] = {
	{ .width = 8, .table_count = 4, .tables = sample_tables }, { .width = 8, .table_count = 1, .tables = sample_tables },
	{ .width = 8, .table_count = 2, .tables = sample_tables }, { .width = 8, .table_count = 1, .tables = sample_tables },
	{ .width = 8, .table_count = 1, .tables = sample_tables }, { .width = 8, .table_count = 1, .tables = sample_tables },
	{ .width = 8, .table_count = 1, .tables = sample_tables }, { .width = 8, .table_count = 1, .tables = sample_tables },
};
static const struct wcx_field sample_split_fields[3] = {
	{ .width = 2 },
	{ .width = 6, .table_count = 2, .tables = sample_tables + 4 },
	{ .width = 8, .table_count = 1, .tables = sample_tables },
};
static const struct wcx_field sample_pair_fields[2] = {
	{ .width = 4 },
	{ .width = 4, .table_count = 2, .is_pair = 1, .tables = sample_tables + 8 },
};
/* Symbols for 0 and for what lies below it. */
static const struct wcx_field sample_zero_fields[2] = {
	{ .width = 4 },
	{ .width = 12, .table_count = 1, .has_zero = 1, .base = (1 << 12) - WCX_SYMBOL_COUNT, .tables = sample_tables },
};

/* How elements are coded: byte by byte, or with raw bits at the bottom; as they are, rotated or folded. */
static const struct wcx_recipe sample_1_byte = { 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 1, 256, sample_bytes_fields };
static const struct wcx_recipe sample_1_byte_left = { 1, WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT, 1, 128, sample_bytes_fields };
static const struct wcx_recipe sample_1_byte_plain = {
	1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 1, 0, sample_bytes_fields + 7
};
static const struct wcx_recipe sample_1_byte_pairs = { 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 2, 256, sample_pair_fields };
static const struct wcx_recipe sample_2_bytes = { 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 2, 128, sample_bytes_fields };
static const struct wcx_recipe sample_2_bytes_split = { 2, WCX_TRANSFORM_NONE, WCX_PREDICT_UP, 3, 384, sample_split_fields };
static const struct wcx_recipe sample_2_bytes_zero = { 2, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 2, 0, sample_zero_fields };
static const struct wcx_recipe sample_4_bytes = { 4, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 4, 128, sample_bytes_fields };
static const struct wcx_recipe sample_4_bytes_left2 = { 4,    WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT2, 4,
							1024, sample_bytes_fields };
static const struct wcx_recipe sample_8_bytes = { 8, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 8, 65536, sample_bytes_fields };

/* A tensor, and the segment that it starts. */
struct sample_part {
	struct sample_tensor tensor;
	uint64_t cols;
	uint32_t tile_rows, tile_cols;
	const struct wcx_recipe *recipe; /* NULL: the tensor belongs to the segment of the one before */
	int is_zstd;                     /* tiles that Zstandard makes smaller are of that mode */
	uint32_t same_as;                /* number of an earlier segment, of one tensor, with the same content; or 0 */
};

/* A .wcx file as it grows, in pieces. */
struct sample_builder {
	FILE *pieces[5]; /* packed tiles, segments, fields, entries, tables */
	struct wcx_encode_scratch *scratch;
	struct wcx_superblock superblock; /* its counts */
};

static inline void sample_make_tables(void)
{
	for (int i = 0; i < SAMPLE_TABLES; i++) {
		int symbols = 256 >> 2 * (i / 4);
		uint64_t count[WCX_SYMBOL_COUNT] = { 0 };

		for (int s = 0; s < symbols; s++) {
			int distance = s < symbols / 2 ? s : symbols - s;

			count[s] = 1 + (1 << 20) / (1 + ((uint64_t)(distance * distance) >> (4 * (i % 4))));
		}
		wcx_freq_table_build(count, &sample_tables[i]);
	}
}

/* Gathers tile number t of the segment, by the rule of docs/format.md, section 2.2, into dst. */
static inline struct wcx_tile_shape sample_gather(const struct wcx_segment *seg, const uint8_t *src, uint64_t t,
						  uint8_t *dst)
{
	uint64_t y = t / seg->tiles_across * seg->tile_rows, x = t % seg->tiles_across * seg->tile_cols;
	struct wcx_tile_shape shape = {
		.rows = (uint32_t)(seg->rows - y < seg->tile_rows ? seg->rows - y : seg->tile_rows),
		.cols = (uint32_t)(seg->cols - x < seg->tile_cols ? seg->cols - x : seg->tile_cols),
		.elem_bytes = seg->recipe.elem_bytes,
	};
	size_t row_bytes = (size_t)shape.cols * shape.elem_bytes;

	for (uint64_t row = y; row < y + shape.rows; row++, dst += row_bytes)
		memcpy(dst, src + (row * seg->cols + x) * shape.elem_bytes, row_bytes);
	return shape;
}

static inline void sample_add_tile(struct sample_builder *builder, const struct wcx_segment *seg,
				   const struct wcx_tile_shape *shape, const uint8_t *tile, int is_zstd)
{
	size_t tile_bytes = wcx_tile_shape_bytes(shape), bytes, room = ZSTD_compressBound(tile_bytes) + WCX_TILE_ALIGN;
	uint8_t *packed = malloc(room), entry[WCX_TILE_ENTRY_BYTES];
	struct wcx_tile_info info = { .mode = WCX_TILE_ZSTD };

	bytes = is_zstd ? ZSTD_compress(packed, room, tile, tile_bytes, 19) : tile_bytes;
	if (bytes >= tile_bytes)
		sample_require(wcx_tile_encode(shape, tile, &seg->recipe, builder->scratch, packed, &info.mode, &bytes,
					       &info.constant) == WCX_OK,
			       "wcx_tile_encode");
	info.packed_bytes = (uint32_t)bytes;
	info.checksum = bytes ? wcx_checksum32(packed, bytes) : 0;
	wcx_tile_entry_write(&info, entry);
	fwrite(entry, 1, sizeof entry, builder->pieces[3]);
	for (; bytes % WCX_TILE_ALIGN; bytes++)
		packed[bytes] = 0;
	fwrite(packed, 1, bytes, builder->pieces[0]);
	builder->superblock.tile_count++;
	free(packed);
}

/* Adds a segment whose bytes, cols, tile size and recipe are set. */
static inline void sample_add_segment(struct sample_builder *builder, struct wcx_segment *seg, const uint8_t *src,
				      int is_zstd)
{
	uint8_t written[WCX_SEGMENT_BYTES], *tile = malloc(WCX_TILE_MAX_BYTES);

	wcx_segment_write(seg, written);
	fwrite(written, 1, sizeof written, builder->pieces[1]);
	builder->superblock.segment_count++;
	for (uint32_t f = 0; !seg->same_as && f < seg->recipe.field_count; f++) {
		const struct wcx_field *field = &seg->recipe.fields[f];

		wcx_field_write(field, field->table_count ? (uint32_t)(field->tables - sample_tables) : 0, written);
		fwrite(written, 1, WCX_FIELD_BYTES, builder->pieces[2]);
		builder->superblock.field_count++;
	}
	if (!seg->same_as)
		wcx_segment_grid(seg);
	for (uint64_t t = 0; t < seg->tile_count; t++) {
		struct wcx_tile_shape shape = sample_gather(seg, src, t, tile);

		sample_add_tile(builder, seg, &shape, tile, is_zstd);
	}
	free(tile);
}

/* The safetensors file of these parts. */
static inline struct sample_bytes sample_original(const struct sample_part *parts, size_t count)
{
	struct sample_tensor tensors[SAMPLE_PARTS_MAX];
	uint8_t *segments[SAMPLE_PARTS_MAX + 1] = { NULL }, *data;
	struct sample_bytes file;
	size_t segment = 0;

	for (size_t i = 0; i < count; i++)
		tensors[i] = parts[i].tensor;
	file = sample_safetensors(tensors, count);
	data = file.data + 8 + wcx_le64_read(file.data);
	for (size_t i = 0; i < count; data += tensors[i++].bytes) {
		if (parts[i].recipe || parts[i].same_as)
			segments[++segment] = data;
		if (parts[i].same_as)
			memcpy(data, segments[parts[i].same_as], tensors[i].bytes);
	}
	return file;
}

/* Puts the pieces together. */
static inline struct sample_bytes sample_finish(struct sample_builder *builder, char *pieces[5], const size_t bytes[5])
{
	struct wcx_superblock *sb = &builder->superblock;
	struct sample_bytes file = { NULL, WCX_SUPERBLOCK_BYTES };

	file.data = malloc(WCX_SUPERBLOCK_BYTES + bytes[0] + bytes[1] + bytes[2] + bytes[3] + bytes[4]);
	sample_require(file.data != NULL, "malloc");
	sb->index_offset = WCX_SUPERBLOCK_BYTES + bytes[0];
	for (int i = 0; i < 5; i++) {
		memcpy(file.data + file.bytes, pieces[i], bytes[i]);
		file.bytes += bytes[i];
		free(pieces[i]);
	}
	sb->packed_bytes = file.bytes;
	sb->index_bytes = file.bytes - sb->index_offset;
	sb->table_bytes = bytes[4];
	sb->index_checksum = wcx_checksum64(file.data + sb->index_offset, sb->index_bytes);
	wcx_superblock_write(sb, file.data);
	return file;
}

/* The .wcx file of these parts, which share all tables; the SHA-256 is left out. */
static inline struct sample_bytes sample_image(struct sample_bytes original, const struct sample_part *parts, size_t count)
{
	struct sample_builder builder = { .scratch = wcx_encode_scratch_create() };
	uint64_t at = 8 + wcx_le64_read(original.data);
	struct wcx_segment header = {
		.bytes = at,
		.cols = at,
		.tile_rows = 1,
		.tile_cols = SAMPLE_HEADER_TILE_COLS,
		.recipe = sample_1_byte_plain,
	};
	uint8_t table[WCX_FREQ_TABLE_MAX_BYTES];
	char *pieces[5];
	size_t bytes[5];

	for (int i = 0; i < 5; i++)
		builder.pieces[i] = open_memstream(&pieces[i], &bytes[i]);
	sample_make_tables();
	for (int i = 0; i < SAMPLE_TABLES; i++)
		fwrite(table, 1, wcx_freq_table_write(&sample_tables[i], table), builder.pieces[4]);
	builder.superblock.table_count = SAMPLE_TABLES;
	builder.superblock.original_bytes = original.bytes;
	sample_add_segment(&builder, &header, original.data, 0);
	for (size_t i = 0, next; i < count; i = next) {
		struct wcx_segment seg = {
			.cols = parts[i].cols,
			.tile_rows = parts[i].tile_rows,
			.tile_cols = parts[i].tile_cols,
			.same_as = parts[i].same_as,
		};

		if (!seg.same_as)
			seg.recipe = *parts[i].recipe;
		seg.bytes = parts[i].tensor.bytes;
		for (next = i + 1; next < count && !parts[next].recipe && !parts[next].same_as; next++)
			seg.bytes += parts[next].tensor.bytes;
		sample_add_segment(&builder, &seg, original.data + at, parts[i].is_zstd);
		at += seg.bytes;
	}
	sample_require(at == original.bytes, "segments that make up the file");
	for (int i = 0; i < 5; i++)
		fclose(builder.pieces[i]);
	wcx_encode_scratch_free(builder.scratch);
	return sample_finish(&builder, pieces, bytes);
}

#endif
