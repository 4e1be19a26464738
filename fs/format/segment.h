/* SPDX-License-Identifier: MIT */
/*
 * Segments and their tiles: which tiles hold a byte range of the original file, and where in them its bytes are.
 *
 * A segment is a range of the original file, seen as a matrix of elements (docs/format.md, section 2.2) and cut into tiles,
 * which are numbered row by row.  Everything here is arithmetic on the geometry: nothing is read, allocated or locked, and
 * nothing can fail.  Offsets without another name are offsets in the original file; ranges are [start, end).
 */
#ifndef WCX_SEGMENT_H
#define WCX_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/tile.h"

/* A segment with the content of an earlier one has that one's values in all fields but offset and same_as. */
struct wcx_segment {
	uint64_t offset, bytes; /* in the original file */
	uint64_t rows, cols;    /* of the matrix, in elements */
	uint64_t first_tile, tile_count;
	uint64_t tiles_across;
	uint32_t tile_rows, tile_cols; /* tiles at the right and lower edge may have less */
	uint32_t same_as;              /* index of the segment whose tiles these are; 0: the tiles are this one's own */
	uint32_t entropy_millibits;    /* per element, order 0; informative */
	struct wcx_recipe recipe;
	uint32_t base;        /* number of the base, from 1; 0: none */
	uint64_t base_offset; /* in the base's original, of this segment's first byte */
};

/* One tile: its place in the segment's matrix, and its entry in the index. */
struct wcx_tile_info {
	uint64_t tile_index; /* in the file */
	uint64_t row, col;   /* of its first element */
	struct wcx_tile_dims dims;
	enum wcx_tile_mode mode;
	uint32_t constant;      /* the element, for WCX_TILE_CONSTANT */
	uint64_t packed_offset; /* in the packed file, also of a tile without packed bytes */
	uint32_t packed_bytes;  /* 0 for WCX_TILE_CONSTANT */
	uint32_t checksum;      /* XXH3-32 of the packed bytes; 0 for WCX_TILE_CONSTANT */
};

/* Consecutive bytes of the original that are also consecutive in a decoded tile. */
struct wcx_extent {
	uint64_t offset;
	size_t tile_offset; /* of the first byte within the decoded tile */
	size_t bytes;
};

/* wcx_segment_grid - compute rows, tiles_across and tile_count from bytes, recipe.elem_bytes, cols and the tile size */
void wcx_segment_grid(struct wcx_segment *segment);

/* wcx_segment_place - set row, col and dims of tile `number`, counted from 0 within the segment */
void wcx_segment_place(const struct wcx_segment *segment, uint64_t number, struct wcx_tile_info *ret);

/* wcx_segment_find - the index of the segment that holds an offset: not before the first; the last one if behind all */
size_t wcx_segment_find(const struct wcx_segment *segments, size_t count, uint64_t offset);

/* wcx_segment_tile_at - the index (in the file) of the tile that holds an offset within the segment */
uint64_t wcx_segment_tile_at(const struct wcx_segment *segment, uint64_t offset);

/*
 * wcx_segment_tiles - the tiles from *first_ret up to but not including *end_ret may hold bytes of [start, end)
 *
 * The range must overlap the segment, and is clipped to it.  The result is exact for tiles with one row of elements, and
 * whole rows of tiles otherwise.  Hence it is monotone: for a range that starts (ends) further on, *first_ret (*end_ret) is
 * not less, and ranges in ascending order can be served without taking a tile twice.  wcx_tile_iter_next is exact.
 */
void wcx_segment_tiles(const struct wcx_segment *segment, uint64_t start, uint64_t end, uint64_t *first_ret,
		       uint64_t *end_ret);

/* wcx_tile_row_offset - where row y of a tile, counted from the tile's first, begins */
static inline uint64_t wcx_tile_row_offset(const struct wcx_segment *segment, const struct wcx_tile_info *tile, uint32_t y)
{
	return segment->offset + ((tile->row + y) * segment->cols + tile->col) * tile->dims.elem_bytes;
}

/* wcx_tile_is_contiguous - whether the whole tile is one extent */
static inline bool wcx_tile_is_contiguous(const struct wcx_segment *segment, const struct wcx_tile_info *tile)
{
	return tile->dims.rows == 1 || tile->dims.cols == segment->cols;
}

/*
 * wcx_tile_extent - the first extent of a tile within [start, end)
 *
 * A contiguous tile has one extent, any other tile one for each row.  Returns false when the tile holds no byte of the
 * range.  To go over all extents, continue behind the one that was found:
 *
 *	for (at = start; wcx_tile_extent(segment, tile, at, end, &extent); at = extent.offset + extent.bytes)
 */
bool wcx_tile_extent(const struct wcx_segment *segment, const struct wcx_tile_info *tile, uint64_t start, uint64_t end,
		     struct wcx_extent *ret);

/* Goes over the tiles that hold bytes of a range, segment by segment, in the order of their indices in each. */
struct wcx_tile_iter {
	const struct wcx_segment *segment; /* of the tile that next found */
	uint64_t tile_index;               /* in the file */
	/* What follows is private. */
	const struct wcx_segment *segments_end;
	uint64_t start, end;           /* what is left of the range behind the current row of tiles */
	uint64_t next_tile, tiles_end; /* what is left of that row */
	uint64_t gap, gap_end;         /* tiles in the middle of it that hold no byte of the range */
};

/* wcx_tile_iter_start - begin with the first tile of [start, end); the segments must be consecutive and outlive iter */
void wcx_tile_iter_start(struct wcx_tile_iter *iter, const struct wcx_segment *segments, size_t count, uint64_t start,
			 uint64_t end);

/* wcx_tile_iter_next - find the next tile; false when there is none, also for an empty range and behind the last segment */
bool wcx_tile_iter_next(struct wcx_tile_iter *iter);

#endif
