/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a .wcx file.  Sizes and checksums of the input are corrected first, so that the fuzzer reaches all other
 * rules of docs/format.md.  An image that opens is read and compared tile by tile.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codec/le.h"
#include "fs/format/index_writer.h"
#include "fs/read/export.h"
#include "fs/read/image.h"

enum {
	CACHE_BYTES = 1 << 20,
	READ_MAX_BYTES = 128, /* each byte may be in another tile, of 64 Ki elements */
	WHOLE_MAX_BYTES = 64 << 10,
	FILL_MAX_BYTES = 1 << 16, /* of zeros, instead of missing packed bytes */
};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

/* A file in memory. */
struct file {
	uint8_t *data;
	size_t bytes;
};

static uint64_t sum_segments(const uint8_t *index, uint32_t count)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < count; i++)
		sum += wcx_le64_read(index + (size_t)i * WCX_SEGMENT_BYTES);
	return sum;
}

static uint64_t tile_bytes(const uint8_t *entry)
{
	return wcx_le32_read(entry) & 0xFFFFFF;
}

/* The offset after these tiles. */
static uint64_t tiles_end(const uint8_t *entries, uint64_t count)
{
	uint64_t end = WCX_SUPERBLOCK_BYTES;

	for (uint64_t t = 0; t < count; t++)
		end = wcx_tile_align_up(end + tile_bytes(entries + t * WCX_TILE_ENTRY_BYTES));
	return end;
}

/* Corrects the checksums of the tiles. */
static void sign_tiles(const uint8_t *file, uint8_t *entries, uint64_t count)
{
	uint64_t offset = WCX_SUPERBLOCK_BYTES;

	for (uint8_t *entry = entries; entry < entries + count * WCX_TILE_ENTRY_BYTES; entry += WCX_TILE_ENTRY_BYTES) {
		if (entry[3] != WCX_TILE_CONSTANT)
			wcx_le32_write(entry + 4, wcx_checksum32(file + offset, tile_bytes(entry)));
		offset = wcx_tile_align_up(offset + tile_bytes(entry));
	}
}

/*
 * The input with everything corrected that follows from its other bytes; the part between superblock and index is cut, or
 * extended with zeros, to the size of the tiles.  Or the input unchanged, if that is not possible.
 */
static struct file make_file(const uint8_t *input, size_t input_bytes)
{
	struct file file = { calloc(1, input_bytes + FILL_MAX_BYTES), input_bytes };
	struct wcx_superblock sb;
	uint64_t head_bytes, entries_at;

	require(file.data != NULL);
	memcpy(file.data, input, input_bytes);
	if (input_bytes < WCX_SUPERBLOCK_BYTES)
		return file;
	sb = (struct wcx_superblock){
		.segment_count = wcx_le32_read(input + 56) & 0xFFFF,
		.field_count = wcx_le32_read(input + 12) & 0xFFFF,
		.table_count = wcx_le32_read(input + 60),
		.tile_count = wcx_le64_read(input + 64) & 0xFFFF,
		.table_bytes = wcx_le64_read(input + 72) & 0xFFFF,
		.base_count = wcx_le32_read(input + 128) & 0x1FF,
		.base_name_bytes = wcx_le32_read(input + 132) & 0xFFFF,
	};
	sb.features = sb.base_count ? WCX_FEATURE_BASES : 0;
	memcpy(sb.sha256, input + 88, sizeof sb.sha256);
	entries_at = (uint64_t)sb.segment_count * WCX_SEGMENT_BYTES + (uint64_t)sb.field_count * WCX_FIELD_BYTES;
	sb.index_bytes = entries_at + sb.tile_count * WCX_TILE_ENTRY_BYTES + sb.table_bytes +
			 (uint64_t)sb.base_count * WCX_BASE_BYTES + sb.base_name_bytes;
	if (sb.index_bytes > input_bytes - WCX_SUPERBLOCK_BYTES)
		return file;
	head_bytes = input_bytes - sb.index_bytes;
	sb.index_offset = tiles_end(input + head_bytes + entries_at, sb.tile_count);
	if (sb.index_offset > head_bytes + FILL_MAX_BYTES)
		return file;
	sb.packed_bytes = file.bytes = sb.index_offset + sb.index_bytes;

	uint8_t *index = file.data + sb.index_offset;

	if (sb.index_offset > head_bytes)
		memset(file.data + head_bytes, 0, sb.index_offset - head_bytes);
	memcpy(index, input + head_bytes, sb.index_bytes);
	sb.original_bytes = sum_segments(index, sb.segment_count);
	sign_tiles(file.data, index + entries_at, sb.tile_count);
	sb.index_checksum = wcx_checksum64(index, sb.index_bytes);
	wcx_superblock_write(&sb, file.data);
	return file;
}

/*
 * Checks the byte at offset against its tile by docs/format.md, if that can be read without decoding.  Returns whether it
 * could.
 */
static bool check_byte(const struct wcx_container *c, const struct file *file, uint64_t offset, uint8_t byte)
{
	const struct wcx_segment *seg = wcx_container_segment(c, wcx_container_segment_at(c, offset));
	uint64_t elem_bytes = seg->recipe.elem_bytes, elem = (offset - seg->offset) / elem_bytes;
	uint64_t row = elem / seg->cols, col = elem % seg->cols, part = (offset - seg->offset) % elem_bytes;
	uint64_t down = row / seg->tile_rows, across = col / seg->tile_cols;
	uint64_t width = seg->cols - across * seg->tile_cols;
	struct wcx_tile_info tile;

	width = width < seg->tile_cols ? width : seg->tile_cols;
	wcx_container_tile(c, seg, seg->first_tile + down * seg->tiles_across + across, &tile);
	require(tile.dims.cols == width && tile.row <= row && row - tile.row < tile.dims.rows);
	if (tile.mode == WCX_TILE_CONSTANT && !seg->base)
		require((uint8_t)((uint64_t)tile.constant >> 8 * part) == byte);
	if (tile.mode == WCX_TILE_STORED)
		require(file->data[tile.packed_offset + (row % seg->tile_rows * width + col % seg->tile_cols) * elem_bytes +
				   part] == byte);
	return (tile.mode == WCX_TILE_CONSTANT && !seg->base) || tile.mode == WCX_TILE_STORED;
}

/* Errors of a read: damage, or a base that is not there. */
static bool is_expected(ssize_t r)
{
	return r == -EBADMSG || r == -EIO;
}

static void check_read(struct wcx_image *image, const struct file *file, uint64_t offset, size_t bytes)
{
	const struct wcx_container *c = wcx_image_container(image);
	uint64_t left = wcx_image_bytes(image) - offset;
	uint8_t *dst = malloc(bytes), one;
	struct wcx_error err = { "" };
	ssize_t n = wcx_image_read(image, dst, bytes, offset, &err);

	require(is_expected(n) ? err.text[0] != '\0' : (uint64_t)n == (left < bytes ? left : bytes));
	for (ssize_t i = 0; i < n; i++)
		if (!check_byte(c, file, offset + (uint64_t)i, dst[i]) && i % 32 == 0)
			require(wcx_image_read(image, &one, 1, offset + (uint64_t)i, NULL) == 1 && one == dst[i]);
	free(dst);
}

/* Reads at both ends of segments, and at offsets taken from the bytes of the file. */
static void read_image(struct wcx_image *image, const struct file *file)
{
	const struct wcx_container *c = wcx_image_container(image);
	uint64_t total = wcx_image_bytes(image), random = wcx_container_superblock(c)->index_checksum;

	for (uint32_t i = 0; i < wcx_container_superblock(c)->segment_count && i < 8; i++) {
		const struct wcx_segment *seg = wcx_container_segment(c, i);

		check_read(image, file, seg->offset, READ_MAX_BYTES);
		check_read(image, file, seg->offset + seg->bytes - 1, READ_MAX_BYTES);
	}
	for (int i = 0; i < 8; i++) {
		random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
		check_read(image, file, (random >> 3) % total, 1 + random % READ_MAX_BYTES);
	}
	if (total <= WHOLE_MAX_BYTES)
		check_read(image, file, 0, (size_t)total);
}

static void count_damage(void *user, uint64_t tile_index, const struct wcx_error *why)
{
	uint64_t *damaged_tiles = user;

	(void)tile_index;
	require(why->text[0] != '\0');
	(*damaged_tiles)++;
}

/* Parses the header and verifies the image; neither has to succeed. */
static void look_closer(struct wcx_image *image)
{
	static const struct wcx_export_ops ops = { .damaged = count_damage };
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };
	uint64_t damaged_tiles = 0;
	int r;

	if (wcx_image_bytes(image) > WHOLE_MAX_BYTES)
		return;
	require((wcx_image_header(image, &st, &err) == 0) == (st != NULL));
	require((st == NULL) == (err.text[0] != '\0'));
	wcx_safetensors_free(st);
	r = wcx_verify(image, 1, &ops, &damaged_tiles, NULL, &err);
	require(r == 0 ? damaged_tiles == 0 : is_expected(r) || r == -EINVAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
	struct file file = make_file(input, input_bytes);
	struct wcx_tile_cache *cache = wcx_tile_cache_create(CACHE_BYTES);
	struct wcx_decoder *decoder = NULL;
	struct wcx_image *image = NULL;
	struct wcx_error err = { "" };
	int fd = memfd_create("fuzz", MFD_CLOEXEC), r;

	require(fd >= 0 && write(fd, file.data, file.bytes) == (ssize_t)file.bytes);
	require(cache && wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, &err) == 0);
	r = wcx_image_open(fd, "fuzz", cache, decoder, &image, &err);
	require(r == 0 || r == -EBADMSG || r == -ENOTSUP);
	require((r == 0) == (image != NULL) && (r == 0) == (err.text[0] == '\0'));
	if (image) {
		read_image(image, &file);
		look_closer(image);
	} else {
		close(fd);
	}
	wcx_image_put(image);
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	free(file.data);
	return 0;
}
