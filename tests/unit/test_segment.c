/* SPDX-License-Identifier: MIT */
/* Segments: every range of small ones, of all geometries, against a model that places byte by byte. */
#include "fs/format/segment.h"

#include "codec/arith.h"
#include "tests/unit/check.h"

enum { SEGMENTS_MAX = 8, FILE_MAX_BYTES = 1000 };

/* A file's segments, and for each byte of it the tile and the place in the decoded tile: docs/format.md, section 2.2. */
struct model {
	struct wcx_segment segments[SEGMENTS_MAX];
	size_t segment_count, bytes;
	struct {
		size_t segment;
		uint64_t tile;
		size_t tile_offset;
	} at[FILE_MAX_BYTES];
};

/* cols, then a tile's rows and columns. */
struct geometry {
	const char *name;
	uint64_t bytes, cols;
	uint32_t elem_bytes, tile_rows, tile_cols;
};

static const struct geometry geometries[] = {
	{ "one element", 8, 1, 8, 1, 1 },
	{ "one tile", 60, 6, 2, 5, 6 },
	{ "flat", 41, 41, 1, 1, 7 },
	{ "flat, last tile full", 48, 12, 4, 1, 4 },
	{ "whole rows", 11 * 6, 6, 1, 4, 6 },
	{ "whole rows in a tile that is too large", 8 * 2 * 7, 7, 2, 256, 300 },
	{ "single rows in parts", 5 * 10 * 2, 10, 2, 1, 3 },
	{ "narrow", 9 * 12, 12, 1, 3, 4 },
	{ "narrow with edges", 13 * 11 * 2, 11, 2, 4, 3 },
	{ "one column wide", 6 * 5 * 4, 5, 4, 4, 1 },
	{ "a matrix of one column", 7 * 8, 1, 8, 2, 3 },
	{ "last row of tiles of one row", 7 * 9, 9, 1, 3, 2 },
	{ "eight across", 4 * 32, 32, 1, 2, 4 },
};

static void add_segment(struct model *model, const struct geometry *g)
{
	struct wcx_segment *seg = &model->segments[model->segment_count];

	*seg = (struct wcx_segment){
		.offset = model->bytes,
		.bytes = g->bytes,
		.cols = g->cols,
		.tile_rows = g->tile_rows,
		.tile_cols = g->tile_cols,
		.recipe.elem_bytes = (uint8_t)g->elem_bytes,
	};
	if (model->segment_count)
		seg->first_tile = seg[-1].first_tile + seg[-1].tile_count;
	wcx_segment_grid(seg);
	for (uint64_t i = 0; i < g->bytes; i++) {
		const uint64_t row = i / g->elem_bytes / g->cols, col = i / g->elem_bytes % g->cols;
		const uint64_t down = row / g->tile_rows, across = col / g->tile_cols;
		const uint64_t width = WCX_MIN(g->tile_cols, g->cols - across * g->tile_cols);
		const uint64_t all_across = (g->cols + g->tile_cols - 1) / g->tile_cols;

		model->at[model->bytes].segment = model->segment_count;
		model->at[model->bytes].tile = seg->first_tile + down * all_across + across;
		model->at[model->bytes++].tile_offset =
			(size_t)((row % g->tile_rows * width + col % g->tile_cols) * g->elem_bytes + i % g->elem_bytes);
	}
	model->segment_count++;
}

/* Adds a segment with the content and the tiles of an earlier one. */
static void add_copy(struct model *model, size_t same_as)
{
	const struct wcx_segment *original = &model->segments[same_as];
	struct wcx_segment *seg = &model->segments[model->segment_count];

	*seg = *original;
	seg->offset = model->bytes;
	seg->same_as = (uint32_t)same_as;
	for (uint64_t i = 0; i < seg->bytes; i++) {
		model->at[model->bytes] = model->at[original->offset + i];
		model->at[model->bytes++].segment = model->segment_count;
	}
	model->segment_count++;
}

static struct wcx_tile_info place(const struct wcx_segment *seg, uint64_t tile)
{
	struct wcx_tile_info info = { .tile_index = tile };

	wcx_segment_place(seg, tile - seg->first_tile, &info);
	return info;
}

/* Whether the extents of a tile are its bytes of the range, in order and as few as can be; counts the bytes. */
static bool extents_are_right(const struct model *model, size_t segment, uint64_t tile, size_t start, size_t end,
			      size_t *bytes_ret)
{
	const struct wcx_segment *seg = &model->segments[segment];
	const struct wcx_tile_info info = place(seg, tile);
	struct wcx_extent extent, last = { 0 };
	bool is_right = true;
	size_t bytes = 0;

	for (uint64_t at = start; wcx_tile_extent(seg, &info, at, end, &extent); at = extent.offset + extent.bytes) {
		is_right = is_right && extent.bytes && extent.offset >= at && extent.offset + extent.bytes <= end;
		for (size_t i = 0; i < extent.bytes && is_right; i++)
			is_right = model->at[extent.offset + i].segment == segment &&
				   model->at[extent.offset + i].tile == tile &&
				   model->at[extent.offset + i].tile_offset == extent.tile_offset + i;
		is_right = is_right && (!last.bytes || last.offset + last.bytes < extent.offset);
		bytes += extent.bytes;
		last = extent;
	}
	*bytes_ret += bytes;
	return is_right && bytes > 0;
}

/* Whether the tiles that hold bytes of the range come in order, each once and with all their bytes. */
static bool range_is_right(const struct model *model, size_t start, size_t end)
{
	const struct wcx_segment *last_segment = NULL;
	struct wcx_tile_iter iter;
	uint64_t last_tile = 0;
	bool is_right = true;
	size_t bytes = 0;

	wcx_tile_iter_start(&iter, model->segments, model->segment_count, start, end);
	while (wcx_tile_iter_next(&iter) && is_right) {
		is_right = iter.segment > last_segment || (iter.segment == last_segment && iter.tile_index > last_tile);
		is_right = is_right && extents_are_right(model, (size_t)(iter.segment - model->segments), iter.tile_index,
							 start, end, &bytes);
		last_segment = iter.segment;
		last_tile = iter.tile_index;
	}
	return is_right && bytes == end - start && !wcx_tile_iter_next(&iter);
}

static size_t wrong_ranges(const struct model *model)
{
	size_t wrong = 0;

	for (size_t start = 0; start < model->bytes; start++)
		for (size_t end = start; end <= model->bytes; end++)
			wrong += !range_is_right(model, start, end);
	return wrong;
}

static void every_range_of_every_geometry_is_found(void)
{
	static const struct geometry header = { "header", 10, 10, 1, 1, 4 }, end = { "end", 3, 3, 1, 1, 2 };

	for (size_t g = 0; g < WCX_ARRAY_COUNT(geometries); g++) {
		struct model model = { .bytes = 0 };

		add_segment(&model, &header);
		add_segment(&model, &geometries[g]);
		add_segment(&model, &end);
		if (!CHECK(wrong_ranges(&model) == 0))
			fprintf(stderr, "\tin \"%s\"\n", geometries[g].name);
	}
}

static void ranges_over_many_segments_are_found(void)
{
	struct model model = { .bytes = 0 };

	for (size_t g = 0; g < 5; g++)
		add_segment(&model, &geometries[2 * g]);
	add_copy(&model, 4);
	add_segment(&model, &geometries[3]);
	CHECK(wrong_ranges(&model) == 0);
}

static void nothing_is_found_outside_the_segments(void)
{
	struct model model = { .bytes = 0 };
	struct wcx_tile_iter iter;
	struct wcx_extent extent;

	add_segment(&model, &geometries[8]);
	wcx_tile_iter_start(&iter, model.segments, 1, model.bytes, UINT64_MAX);
	CHECK(!wcx_tile_iter_next(&iter) && !wcx_tile_iter_next(&iter));
	wcx_tile_iter_start(&iter, model.segments, 1, 20, 10);
	CHECK(!wcx_tile_iter_next(&iter));
	/* The rest of the file is more than there is of it. */
	wcx_tile_iter_start(&iter, model.segments, 1, model.bytes - 1, UINT64_MAX);
	CHECK(wcx_tile_iter_next(&iter) && iter.tile_index == model.segments[0].tile_count - 1);
	CHECK(!wcx_tile_iter_next(&iter));
	for (uint64_t tile = 0; tile < model.segments[0].tile_count; tile++) {
		const struct wcx_tile_info info = place(&model.segments[0], tile);

		CHECK(!wcx_tile_extent(&model.segments[0], &info, model.bytes, UINT64_MAX, &extent));
		CHECK(!wcx_tile_extent(&model.segments[0], &info, UINT64_MAX - 1, UINT64_MAX, &extent));
		CHECK(!wcx_tile_extent(&model.segments[0], &info, 30, 30, &extent));
	}
}

static void all_of_a_contiguous_tile_is_one_extent(void)
{
	for (size_t g = 0; g < WCX_ARRAY_COUNT(geometries); g++) {
		struct model model = { .bytes = 0 };

		add_segment(&model, &geometries[g]);
		for (uint64_t tile = 0; tile < model.segments[0].tile_count; tile++) {
			const struct wcx_tile_info info = place(&model.segments[0], tile);
			const size_t tile_bytes = wcx_tile_dims_bytes(&info.dims);
			struct wcx_extent extent;

			CHECK(wcx_tile_extent(&model.segments[0], &info, 0, UINT64_MAX, &extent));
			CHECK(extent.offset == wcx_tile_row_offset(&model.segments[0], &info, 0) && extent.tile_offset == 0);
			CHECK((extent.bytes == tile_bytes) == wcx_tile_is_contiguous(&model.segments[0], &info));
		}
	}
}

static void every_byte_has_its_segment_and_tile(void)
{
	struct model model = { .bytes = 0 };

	for (size_t g = 0; g < SEGMENTS_MAX - 1; g++)
		add_segment(&model, &geometries[g + 4]);
	add_copy(&model, 2);
	for (size_t at = 0; at < model.bytes; at++) {
		CHECK(wcx_segment_find(model.segments, model.segment_count, at) == model.at[at].segment);
		CHECK(wcx_segment_tile_at(&model.segments[model.at[at].segment], at) == model.at[at].tile);
	}
	CHECK(wcx_segment_find(model.segments, model.segment_count, model.bytes + 5) == model.segment_count - 1);
}

/* Whether all tiles of the range are among those from first to before end, and the outer ones of single rows are needed. */
static bool tiles_are_right(const struct model *model, const struct geometry *g, size_t start, size_t end, uint64_t first,
			    uint64_t tiles_end)
{
	uint64_t lowest = UINT64_MAX, highest = 0;

	for (size_t at = start; at < end; at++) {
		lowest = WCX_MIN(lowest, model->at[at].tile);
		highest = WCX_MAX(highest, model->at[at].tile);
	}
	if (g->tile_rows == 1)
		return lowest == first && highest + 1 == tiles_end;
	return first <= lowest && highest < tiles_end && tiles_end <= model->segments[0].tile_count;
}

static void tiles_of_later_ranges_are_later_ones(void)
{
	for (size_t g = 0; g < WCX_ARRAY_COUNT(geometries); g++) {
		uint64_t last_end[FILE_MAX_BYTES + 1] = { 0 }, last_first = 0;
		struct model model = { .bytes = 0 };
		size_t wrong = 0;

		add_segment(&model, &geometries[g]);
		for (size_t start = 0; start < model.bytes; start++) {
			for (size_t end = start + 1; end <= model.bytes; end++) {
				uint64_t first, tiles_end;

				wcx_segment_tiles(&model.segments[0], start, end, &first, &tiles_end);
				wrong += !tiles_are_right(&model, &geometries[g], start, end, first, tiles_end);
				wrong += first < last_first || tiles_end < last_end[end - 1] ||
					 (last_end[end] && tiles_end != last_end[end]);
				last_first = first;
				last_end[end] = tiles_end;
			}
		}
		if (!CHECK(wrong == 0))
			fprintf(stderr, "\tin \"%s\"\n", geometries[g].name);
	}
}

static void tiles_of_a_range_are_those_in_the_segment(void)
{
	struct model model = { .bytes = 0 };
	uint64_t first, end;

	add_segment(&model, &geometries[2]);
	add_segment(&model, &geometries[2]);
	wcx_segment_tiles(&model.segments[1], 0, UINT64_MAX, &first, &end);
	CHECK(first == model.segments[1].first_tile && end == first + model.segments[1].tile_count);
}

int main(void)
{
	every_range_of_every_geometry_is_found();
	ranges_over_many_segments_are_found();
	nothing_is_found_outside_the_segments();
	all_of_a_contiguous_tile_is_one_extent();
	every_byte_has_its_segment_and_tile();
	tiles_of_later_ranges_are_later_ones();
	tiles_of_a_range_are_those_in_the_segment();
	return check_report();
}
