/* SPDX-License-Identifier: MIT */
/* Reads of an image that leave nothing in the cache: what a relative needs of its base. */
#include <errno.h>

#include "codec/arith.h"
#include "fs/read/image.h"

/* Whole tiles of the range, which are decoded straight to where their bytes are wanted. */
struct whole_tiles {
	size_t count, bytes;
	struct wcx_tile_info info[WCX_BATCH_TILES];
	struct wcx_image_tile tiles[WCX_BATCH_TILES];
};

static int decode(struct wcx_image *image, struct whole_tiles *whole, uint64_t start, struct wcx_error *err)
{
	int r = 0;

	if (whole->count)
		wcx_image_decode_tiles(image, whole->tiles, whole->count);
	for (size_t i = 0; i < whole->count && r == 0; i++)
		if (whole->tiles[i].r < 0)
			r = wcx_image_fail_tile(image, whole->tiles[i].segment, &whole->info[i], start, whole->tiles[i].r,
						err);
	whole->count = whole->bytes = 0;
	return r;
}

static int read_rest(struct wcx_image *image, uint8_t *dst, uint64_t start, uint64_t end, struct wcx_error *err)
{
	const ssize_t n = wcx_image_read(image, dst, (size_t)(end - start), start, err);

	return n < 0 ? (int)n : 0;
}

ssize_t wcx_image_read_once(struct wcx_image *image, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const struct wcx_container *c = wcx_image_container(image);
	const uint64_t image_bytes = wcx_image_bytes(image);
	const uint64_t end = offset + WCX_MIN(bytes, image_bytes - WCX_MIN(offset, image_bytes));
	struct whole_tiles whole = { .count = 0 };
	struct wcx_tile_iter iter;
	int r = 0;

	if (offset >= end)
		return 0;
	wcx_tile_iter_start(&iter, wcx_container_segment(c, 0), wcx_container_superblock(c)->segment_count, offset, end);
	while (r == 0 && wcx_tile_iter_next(&iter)) {
		struct wcx_tile_info *info = &whole.info[whole.count];
		uint64_t from, to;
		uint8_t *at;

		wcx_container_tile(c, iter.segment, iter.tile_index, info);
		if (!wcx_tile_is_contiguous(iter.segment, info)) {
			r = read_rest(image, dst, offset, end, err); /* rows of several tiles lie between each other */
			return r < 0 ? r : (ssize_t)(end - offset);
		}
		from = wcx_tile_row_offset(iter.segment, info, 0);
		to = from + wcx_tile_dims_bytes(&info->dims);
		at = (uint8_t *)dst + (WCX_MAX(from, offset) - offset);
		if (from < offset || to > end) {
			r = read_rest(image, at, WCX_MAX(from, offset), WCX_MIN(to, end), err);
		} else if (!wcx_image_copy_cached(image, info, at)) {
			whole.tiles[whole.count++] =
				(struct wcx_image_tile){ .info = info, .segment = iter.segment, .dst = at };
			whole.bytes += to - from;
		}
		if (whole.count == WCX_BATCH_TILES || whole.bytes > WCX_CPU_BATCH_BYTES - WCX_TILE_MAX_BYTES)
			r = decode(image, &whole, offset, err);
	}
	if (r == 0)
		r = decode(image, &whole, offset, err);
	return r < 0 ? r : (ssize_t)(end - offset);
}
