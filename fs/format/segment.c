/* SPDX-License-Identifier: MIT */
/* The geometry of segments and tiles. */
#include "fs/format/segment.h"

#include "codec/arith.h"
#include "fs/base/search.h"

void wcx_segment_grid(struct wcx_segment *seg)
{
	seg->rows = seg->bytes / seg->recipe.elem_bytes / seg->cols;
	seg->tiles_across = WCX_DIV_UP(seg->cols, seg->tile_cols);
	seg->tile_count = seg->tiles_across * WCX_DIV_UP(seg->rows, seg->tile_rows);
}

void wcx_segment_place(const struct wcx_segment *seg, uint64_t number, struct wcx_tile_info *ret)
{
	ret->row = number / seg->tiles_across * seg->tile_rows;
	ret->col = number % seg->tiles_across * seg->tile_cols;
	ret->dims = (struct wcx_tile_dims){
		.rows = (uint32_t)WCX_MIN(seg->rows - ret->row, seg->tile_rows),
		.cols = (uint32_t)WCX_MIN(seg->cols - ret->col, seg->tile_cols),
		.elem_bytes = seg->recipe.elem_bytes,
	};
}

struct offset_search {
	const struct wcx_segment *segments;
	uint64_t offset;
};

static bool starts_upto(const void *user, size_t i)
{
	const struct offset_search *search = user;

	return search->segments[i].offset <= search->offset;
}

size_t wcx_segment_find(const struct wcx_segment *segments, size_t count, uint64_t offset)
{
	const struct offset_search search = { segments, offset };

	return wcx_count_before(count, starts_upto, &search) - 1;
}

/* Elements first to last, both included, of one row of tiles or more. */
struct elements {
	uint64_t first_row, first_col, last_row, last_col;
};

/* The elements that have bytes of [start, end), which lies within the segment. */
static struct elements elements_of(const struct wcx_segment *seg, uint64_t start, uint64_t end)
{
	const uint64_t first = (start - seg->offset) / seg->recipe.elem_bytes;
	const uint64_t last = (end - 1 - seg->offset) / seg->recipe.elem_bytes;

	return (struct elements){ first / seg->cols, first % seg->cols, last / seg->cols, last % seg->cols };
}

uint64_t wcx_segment_tile_at(const struct wcx_segment *seg, uint64_t offset)
{
	const struct elements e = elements_of(seg, offset, offset + 1);

	return seg->first_tile + e.first_row / seg->tile_rows * seg->tiles_across + e.first_col / seg->tile_cols;
}

void wcx_segment_tiles(const struct wcx_segment *seg, uint64_t start, uint64_t end, uint64_t *first_ret, uint64_t *end_ret)
{
	const bool is_exact = seg->rows == 1 || seg->tile_rows == 1;
	const struct elements e = elements_of(seg, WCX_MAX(start, seg->offset), WCX_MIN(end, seg->offset + seg->bytes));
	const uint64_t left = is_exact ? e.first_col / seg->tile_cols : 0;
	const uint64_t right = is_exact ? e.last_col / seg->tile_cols + 1 : seg->tiles_across;

	*first_ret = seg->first_tile + e.first_row / seg->tile_rows * seg->tiles_across + left;
	*end_ret = seg->first_tile + e.last_row / seg->tile_rows * seg->tiles_across + right;
}

bool wcx_tile_extent(const struct wcx_segment *seg, const struct wcx_tile_info *tile, uint64_t start, uint64_t end,
		     struct wcx_extent *ret)
{
	const uint64_t pitch = seg->cols * tile->dims.elem_bytes;
	const bool is_whole = wcx_tile_is_contiguous(seg, tile);
	const uint64_t piece_bytes = (uint64_t)tile->dims.cols * tile->dims.elem_bytes * (is_whole ? tile->dims.rows : 1);
	const uint64_t piece_count = is_whole ? 1 : tile->dims.rows;
	uint64_t from = wcx_tile_row_offset(seg, tile, 0), piece = 0, skipped = 0;

	if (start > from) {
		piece = is_whole ? 0 : (start - from) / pitch;
		from += piece * pitch;
		skipped = start - from;
	}
	if (skipped >= piece_bytes) { /* in what lies between this row and the next one */
		piece++;
		from += pitch;
		skipped = 0;
	}
	if (piece >= piece_count || from + skipped >= end)
		return false;
	*ret = (struct wcx_extent){
		.offset = from + skipped,
		.tile_offset = (size_t)(piece * piece_bytes + skipped),
		.bytes = (size_t)(WCX_MIN(from + piece_bytes, end) - (from + skipped)),
	};
	return true;
}

void wcx_tile_iter_start(struct wcx_tile_iter *iter, const struct wcx_segment *segments, size_t count, uint64_t start,
			 uint64_t end)
{
	*iter = (struct wcx_tile_iter){
		.segment = segments + wcx_segment_find(segments, count, start),
		.segments_end = segments + count,
		.start = start,
		.end = end,
	};
}

/*
 * Goes on to the next row of tiles with bytes of the range.  Where the range is the end of one row of elements and the
 * beginning of the next one, it lies in tiles at the right and at the left, and maybe in none between them.
 */
static bool enter_row_of_tiles(struct wcx_tile_iter *iter)
{
	const struct wcx_segment *seg = iter->segment;

	for (; seg < iter->segments_end && iter->start >= seg->offset + seg->bytes; seg++)
		;
	iter->segment = seg;
	if (seg == iter->segments_end || iter->start >= iter->end)
		return false;

	const uint64_t row_bytes = seg->cols * seg->recipe.elem_bytes; /* of a row of elements */
	const uint64_t tiles_row = (iter->start - seg->offset) / row_bytes / seg->tile_rows;
	const uint64_t row_end = seg->offset + WCX_MIN((tiles_row + 1) * seg->tile_rows, seg->rows) * row_bytes;
	const struct elements e = elements_of(seg, iter->start, WCX_MIN(iter->end, row_end));
	const uint64_t first = seg->first_tile + tiles_row * seg->tiles_across;
	const uint64_t left = first + e.first_col / seg->tile_cols, right = first + e.last_col / seg->tile_cols + 1;

	iter->next_tile = e.first_row == e.last_row ? left : first;
	iter->tiles_end = e.first_row == e.last_row ? right : first + seg->tiles_across;
	iter->gap = e.first_row + 1 == e.last_row ? right : left;
	iter->gap_end = left;
	iter->start = row_end;
	return true;
}

bool wcx_tile_iter_next(struct wcx_tile_iter *iter)
{
	if (iter->next_tile == iter->tiles_end && !enter_row_of_tiles(iter))
		return false;
	iter->tile_index = iter->next_tile++;
	if (iter->next_tile == iter->gap)
		iter->next_tile = WCX_MAX(iter->gap, iter->gap_end);
	return true;
}
