/* SPDX-License-Identifier: MIT */
/*
 * Images: reads and views of any range of the original file, from tiles of any geometry and mode, by one thread or many;
 * damaged tiles; and the advice that the kernel gets about packed bytes.
 *
 * Must be linked with --wrap=posix_fadvise64 and --wrap=preadv64v2, the names of posix_fadvise and preadv2 for large files.
 */
#include "fs/read/image.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "fs/read/export.h"
#include "tests/fixtures/sample_image.h"
#include "tests/unit/check.h"

enum { THREADS = 16 };

static const char path[] = "store/image.wcx"; /* in messages; the files have no name */

/* Coded tiles: squares with smaller tiles at the edges, rows of tiles longer than a batch, and tiles of the largest size. */
static const struct sample_part large_parts[] = {
	{ { "squares", "I8", "[700,900]", 630000, SAMPLE_GAUSSIAN, 20 }, 900, 256, 256, &sample_1_byte, 0, 0 },
	{ { "left", "I8", "[300,3000]", 900000, SAMPLE_STUDENT, 9 }, 3000, 64, 70, &sample_1_byte_left, 0, 0 },
	{ { "wide", "F64", "[90,1100]", 792000, SAMPLE_GAUSSIAN, 2 }, 99000, 1, 65536, &sample_8_bytes, 0, 0 },
	{ { "again", "I8", "[630000]", 630000, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 1 },
	{ { "above", "I16", "[300,500]", 300000, SAMPLE_GAUSSIAN, 4 }, 500, 100, 500, &sample_2_bytes_split, 0, 0 },
	{ { "both", "I32", "[257,129]", 132612, SAMPLE_STUDENT, 3 }, 129, 30, 50, &sample_4_bytes_left2, 0, 0 },
	{ { "folded", "I8", "[400,510]", 204000, SAMPLE_GAUSSIAN, 9 }, 510, 60, 510, &sample_1_byte_pairs, 0, 0 },
	{ { "odd", "I8", "[99,333]", 32967, SAMPLE_STUDENT, 5 }, 333, 33, 111, &sample_1_byte_pairs, 0, 0 },
	{ { "sparse", "F16", "[200,300]", 120000, SAMPLE_GAUSSIAN, 0.4 }, 300, 70, 300, &sample_2_bytes_zero, 0, 0 },
	{ { "zipped", "I8", "[130000]", 130000, SAMPLE_GAUSSIAN, 3 }, 130000, 1, 65536, &sample_1_byte_plain, 1, 0 },
};
enum { LARGE_PARTS = sizeof large_parts / sizeof large_parts[0] };

/* Contiguous tiles of all sizes, small and large enough to reach both limits of a batch. */
static const struct sample_part contiguous_parts[] = {
	{ { "rows", "I8", "[900,700]", 630000, SAMPLE_GAUSSIAN, 20 }, 700, 30, 700, &sample_1_byte, 0, 0 },
	{ { "again", "I8", "[630000]", 630000, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 1 },
	{ { "bytes", "I8", "[400]", 400, SAMPLE_UNIFORM, 0 }, 400, 1, 3, &sample_1_byte_left, 0, 0 },
	{ { "wide", "F64", "[400000]", 3200000, SAMPLE_GAUSSIAN, 2 }, 400000, 1, 65536, &sample_8_bytes, 0, 0 },
	{ { "constant", "U8", "[200,1000]", 200000, SAMPLE_CONSTANT, 0 }, 1000, 7, 1000, &sample_1_byte, 0, 0 },
	{ { "parts", "I16", "[3,5000]", 30000, SAMPLE_STUDENT, 9 }, 5000, 1, 999, &sample_2_bytes, 0, 0 },
	{ { "zipped", "I8", "[130000]", 130000, SAMPLE_GAUSSIAN, 3 }, 130000, 1, 65536, &sample_1_byte_plain, 1, 0 },
	{ { "pool.a", "I8", "[7]", 7, SAMPLE_UNIFORM, 0 }, 21, 1, 5, &sample_1_byte_left, 0, 0 },
	{ { "pool.b", "I8", "[14]", 14, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 0 },
	{ { "short", "I8", "[64]", 64, SAMPLE_UNIFORM, 0 }, 64, 1, 64, &sample_1_byte, 0, 0 },
	{ { "short2", "I8", "[64]", 64, SAMPLE_UNIFORM, 0 }, 0, 0, 0, NULL, 0, 9 },
	{ { "end", "U8", "[1]", 1, SAMPLE_UNIFORM, 0 }, 1, 1, 1, &sample_1_byte, 0, 0 },
};
enum { CONTIGUOUS_PARTS = sizeof contiguous_parts / sizeof contiguous_parts[0] };

/* --- fixture --- */

struct fixture {
	struct sample_bytes original, packed;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_image *image;
	int fd; /* of the packed file, which tests modify */
};

static void open_fixture(struct fixture *fixture, const struct sample_part *parts, size_t count, uint64_t cache_bytes)
{
	struct wcx_error err = { "" };
	int fd;

	fixture->original = sample_original(parts, count);
	fixture->packed = sample_image(fixture->original, parts, count);
	fixture->cache = wcx_tile_cache_create(cache_bytes);
	sample_require(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &fixture->decoder, &err) == 0, err.text);
	fixture->fd = sample_open(fixture->packed.data, fixture->packed.bytes);
	fd = dup(fixture->fd);
	sample_require(wcx_image_open(fd, path, fixture->cache, fixture->decoder, &fixture->image, &err) == 0, err.text);
}

static void close_fixture(struct fixture *fixture)
{
	wcx_image_put(fixture->image);
	wcx_decoder_free(fixture->decoder);
	wcx_tile_cache_free(fixture->cache);
	close(fixture->fd);
	free(fixture->original.data);
	free(fixture->packed.data);
}

/* The tile that holds a byte of the original, by the rule of docs/format.md, section 2.2. */
static uint64_t tile_of_byte(const struct wcx_container *c, uint64_t at)
{
	size_t i = 0;

	while (at >= wcx_container_segment(c, i)->offset + wcx_container_segment(c, i)->bytes)
		i++;
	const struct wcx_segment *seg = wcx_container_segment(c, i);
	uint64_t elem = (at - seg->offset) / seg->recipe.elem_bytes;

	return seg->first_tile + elem / seg->cols / seg->tile_rows * ((seg->cols + seg->tile_cols - 1) / seg->tile_cols) +
	       elem % seg->cols / seg->tile_cols;
}

static struct wcx_tile_info tile_info(const struct fixture *fixture, uint64_t tile)
{
	const struct wcx_container *c = wcx_image_container(fixture->image);
	struct wcx_tile_info info;

	wcx_container_tile(c, wcx_container_segment(c, wcx_container_segment_of_tile(c, tile)), tile, &info);
	return info;
}

/* Flips a bit in the middle of a packed tile; a second call flips it back. */
static void damage_tile(const struct fixture *fixture, uint64_t tile)
{
	struct wcx_tile_info info = tile_info(fixture, tile);
	off_t at = (off_t)(info.packed_offset + info.packed_bytes / 2);
	uint8_t byte;

	CHECK(info.mode != WCX_TILE_CONSTANT);
	CHECK(pread(fixture->fd, &byte, 1, at) == 1);
	byte ^= 0x40;
	CHECK(pwrite(fixture->fd, &byte, 1, at) == 1);
}

/* Whether a read gives the original's bytes of a range, and writes no others. */
static bool range_is_right(const struct fixture *fixture, uint64_t offset, size_t bytes, uint8_t *buffer)
{
	size_t left = offset < fixture->original.bytes ? fixture->original.bytes - (size_t)offset : 0;
	size_t expected = bytes < left ? bytes : left;
	ssize_t n;

	buffer[0] = buffer[bytes + 1] = 0xC3;
	if (expected < bytes)
		buffer[expected + 1] = 0xC3;
	n = wcx_image_read(fixture->image, buffer + 1, bytes, offset, NULL);
	return n == (ssize_t)expected && (!n || memcmp(buffer + 1, fixture->original.data + offset, expected) == 0) &&
	       buffer[0] == 0xC3 && buffer[expected + 1] == 0xC3;
}

/* --- sound images --- */

static void every_range_of_a_small_image_is_the_original(void)
{
	static const uint64_t budgets[] = { 0, 3000, 1 << 20 };
	struct fixture fixture;
	uint8_t buffer[4096];

	for (size_t b = 0; b < sizeof budgets / sizeof budgets[0]; b++) {
		const size_t step = CHECK_STEP * (budgets[b] == 1 << 20 ? 1 : 13); /* every range once is enough */
		size_t total, wrong = 0;

		open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, budgets[b]);
		total = fixture.original.bytes;
		CHECK(wcx_image_bytes(fixture.image) == total && total + 16 < sizeof buffer);
		for (size_t offset = 0; offset <= total + 1; offset++)
			for (size_t bytes = offset % step; offset + bytes <= total + 3; bytes += step)
				wrong += !range_is_right(&fixture, offset, bytes, buffer);
		CHECK(wrong == 0);
		close_fixture(&fixture);
	}
}

static void reads_behind_the_end_are_empty(void)
{
	struct fixture fixture;
	uint8_t byte = 0xC3;

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 0);
	CHECK(wcx_image_read(fixture.image, &byte, 1, fixture.original.bytes, NULL) == 0);
	CHECK(wcx_image_read(fixture.image, &byte, 1, UINT64_MAX, NULL) == 0);
	CHECK(wcx_image_read(fixture.image, &byte, SIZE_MAX / 2, UINT64_MAX - 5, NULL) == 0);
	CHECK(wcx_image_read(fixture.image, &byte, SIZE_MAX / 2, fixture.original.bytes - 1, NULL) == 1);
	CHECK(byte == fixture.original.data[fixture.original.bytes - 1]);
	close_fixture(&fixture);
}

static void large_image_is_tiled_as_meant(const struct fixture *fixture)
{
	const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(fixture->image));
	unsigned modes[WCX_TILE_MODE_COUNT] = { 0 };

	for (uint64_t t = 0; t < sb->tile_count; t++)
		modes[tile_info(fixture, t).mode]++;
	CHECK(modes[WCX_TILE_CODED] > 200 && modes[WCX_TILE_ZSTD] == 2);
}

static void random_ranges_of_coded_tiles_are_the_original(void)
{
	struct sample_random random = { 61 };
	struct fixture fixture;
	uint8_t *buffer;

	open_fixture(&fixture, large_parts, LARGE_PARTS, 1 << 20);
	large_image_is_tiled_as_meant(&fixture);
	buffer = malloc(fixture.original.bytes + 2);
	for (int i = 0; i < 300; i++) {
		size_t offset = (size_t)sample_below(&random, fixture.original.bytes);
		size_t bytes = (size_t)sample_below(&random, i % 10 ? 5000 : fixture.original.bytes);

		CHECK(range_is_right(&fixture, offset, bytes, buffer));
	}
	CHECK(range_is_right(&fixture, 0, fixture.original.bytes, buffer));
	free(buffer);
	close_fixture(&fixture);
}

/* Packed bytes are decoded soon after they are read, in pieces that fit a core's cache; a single tile may be larger. */
static void a_batch_for_a_core_is_decoded_in_pieces(void)
{
	enum { READ_BYTES = 1600000, PIECE_MAX_BYTES = 512 << 10 };
	struct fixture fixture;
	struct wcx_decoder_stats stats;
	uint8_t *buffer = malloc(READ_BYTES + 2);

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 64 << 20);
	CHECK(range_is_right(&fixture, 0, READ_BYTES, buffer));
	wcx_decoder_get_stats(fixture.decoder, &stats);
	CHECK(stats.cpu.bytes >= READ_BYTES / 2 && stats.cpu.batches >= stats.cpu.bytes / PIECE_MAX_BYTES + 2);
	close_fixture(&fixture);
	free(buffer);
}

static void header_lists_the_tensors(void)
{
	struct wcx_safetensors *st = NULL;
	struct fixture fixture;

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 0);
	CHECK(wcx_image_header(fixture.image, &st, NULL) == 0);
	if (CHECK(st && st->tensor_count == SAMPLE_SMALL_PARTS)) {
		CHECK_TEXT(st->tensors[1].name, "flat");
		CHECK(st->tensors[1].bytes == 36 && st->tensors[1].elem_bytes == 4);
		for (size_t i = 0; i < st->tensor_count; i++) {
			const struct wcx_tensor *tensor = &st->tensors[i];

			CHECK(wcx_image_tensor_at(st, tensor->offset) == tensor);
			CHECK(wcx_image_tensor_at(st, tensor->offset + tensor->bytes - 1) == tensor);
		}
	}
	wcx_safetensors_free(st);
	close_fixture(&fixture);
}

/* Opens a fixture of the small parts whose packed file has other segments. */
static void open_with_segments(struct fixture *fixture, const struct sample_part *parts)
{
	open_fixture(fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 0);
	wcx_image_put(fixture->image);
	free(fixture->packed.data);
	fixture->packed = sample_image(fixture->original, parts, SAMPLE_SMALL_PARTS);
	CHECK(wcx_image_open(sample_open(fixture->packed.data, fixture->packed.bytes), path, fixture->cache,
			     fixture->decoder, &fixture->image, NULL) == 0);
}

static void tensor_that_is_not_within_one_segment_is_refused(void)
{
	struct sample_part swapped[SAMPLE_SMALL_PARTS], shifted[SAMPLE_SMALL_PARTS];
	const struct sample_part *const cases[] = { swapped, shifted };
	struct wcx_safetensors *st = NULL;
	struct fixture fixture;
	struct wcx_error err;

	memcpy(swapped, sample_small_parts, sizeof swapped);
	swapped[1] = sample_small_parts[2];
	swapped[2] = sample_small_parts[1];
	memcpy(shifted, sample_small_parts, sizeof shifted);
	shifted[2].tensor.bytes += 1; /* takes a byte of the column */
	shifted[2].cols = shifted[3].cols = 1;
	shifted[3].tensor.bytes -= 1;
	shifted[3].recipe = &sample_1_byte;
	for (int i = 0; i < 2; i++) {
		open_with_segments(&fixture, cases[i]);
		CHECK(wcx_image_header(fixture.image, &st, &err) == -EBADMSG);
		CHECK(st == NULL);
		CHECK(strstr(err.text, path) && strstr(err.text, i ? "`column`" : "`flat`"));
		close_fixture(&fixture);
	}
}

static void image_lives_until_its_last_reference_goes(void)
{
	struct fixture fixture;
	uint8_t buffer[64];

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 1 << 20);
	CHECK(wcx_image_get(fixture.image) == fixture.image);
	wcx_image_put(fixture.image);
	CHECK(range_is_right(&fixture, 3, 50, buffer));
	wcx_image_put(NULL);
	close_fixture(&fixture);
}

/* --- views --- */

/* Whether the tile of a byte is contiguous, as wcx_image_view_open requires. */
static bool is_contiguous_at(const struct fixture *fixture, uint64_t at)
{
	const struct wcx_container *c = wcx_image_container(fixture->image);
	const struct wcx_segment *seg = wcx_container_segment(c, wcx_container_segment_at(c, at));

	return seg->tile_cols >= seg->cols || tile_info(fixture, tile_of_byte(c, at)).dims.rows == 1;
}

/* Whether a view has one tile per slice, the original's bytes, and all of the range that fits into a batch. */
static bool view_is_right(const struct fixture *fixture, const struct wcx_image_view *view, uint64_t offset, size_t bytes)
{
	const struct wcx_container *c = wcx_image_container(fixture->image);
	size_t decoded = 0, shown = 0;
	struct wcx_tile_info info;

	for (size_t i = 0; i < view->count; shown += view->slices[i++].iov_len) {
		const uint64_t tile = tile_of_byte(c, offset + shown);
		const struct iovec *slice = &view->slices[i];

		if (!slice->iov_len || memcmp(slice->iov_base, fixture->original.data + offset + shown, slice->iov_len))
			return false;
		if (tile_of_byte(c, offset + shown + slice->iov_len - 1) != tile)
			return false;
		info = tile_info(fixture, tile);
		decoded += wcx_tile_dims_bytes(&info.dims);
	}
	if (shown != view->bytes || shown == 0 || shown > bytes)
		return false;
	return shown == bytes || view->count == WCX_BATCH_TILES || decoded > WCX_CPU_BATCH_BYTES - WCX_TILE_MAX_BYTES;
}

/* Opens a view of a range, and tells whether that is right or was rightly refused. */
static bool range_shows_right(const struct fixture *fixture, uint64_t offset, size_t bytes, bool *is_shown)
{
	struct wcx_image_view view;
	int r = wcx_image_view_open(fixture->image, offset, bytes, &view, NULL);
	bool is_right;

	*is_shown = r == 0;
	if (r < 0)
		return r == -E2BIG;
	is_right = is_contiguous_at(fixture, offset) && view_is_right(fixture, &view, offset, bytes);
	wcx_image_view_close(fixture->image, &view, bytes % 2);
	return is_right && view.count == 0 && view.bytes == 0;
}

static void every_view_of_a_small_image_is_the_original(void)
{
	static const uint64_t budgets[] = { 0, 3000, 1 << 20 };
	struct fixture fixture;

	for (size_t b = 0; b < sizeof budgets / sizeof budgets[0]; b++) {
		size_t total, wrong = 0, shown = 0, refused = 0;
		bool is_shown;

		open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, budgets[b]);
		total = fixture.original.bytes;
		for (size_t offset = 0; offset < total; offset++) {
			for (size_t bytes = 1 + offset % 29; offset + bytes <= total; bytes += 29) {
				wrong += !range_shows_right(&fixture, offset, bytes, &is_shown);
				shown += is_shown != 0;
				refused += !is_shown;
				/* A single byte is refused only in a tile that is not contiguous. */
				if (bytes == 1)
					wrong += is_shown != is_contiguous_at(&fixture, offset);
			}
		}
		CHECK(wrong == 0 && shown > 1000 && refused > 1000);
		close_fixture(&fixture);
	}
}

static void views_of_large_images_are_the_original(void)
{
	static const struct {
		const struct sample_part *parts;
		size_t count;
	} images[] = { { contiguous_parts, CONTIGUOUS_PARTS }, { large_parts, LARGE_PARTS } };
	struct sample_random random = { 62 };

	for (size_t m = 0; m < 2; m++) {
		struct fixture fixture;
		size_t wrong = 0, shown = 0;

		open_fixture(&fixture, images[m].parts, images[m].count, 1 << 20);
		for (int i = 0; i < 600; i++) {
			const size_t offset = (size_t)sample_below(&random, fixture.original.bytes);
			const size_t left = fixture.original.bytes - offset;
			const size_t most = i % 10 ? 5000 : left,
				     bytes = 1 + (size_t)sample_below(&random, most < left ? most : left);
			bool is_shown;

			wrong += !range_shows_right(&fixture, offset, bytes, &is_shown);
			shown += is_shown != 0;
		}
		CHECK(wrong == 0 && (m == 0 ? shown == 600 : shown > 100 && shown < 500));
		close_fixture(&fixture);
	}
}

/* Consecutive views show the whole file, each as much as fits into a batch. */
static void views_go_on_where_a_batch_ends(void)
{
	uint64_t at = 0, views_by_count = 0, views_by_bytes = 0;
	struct wcx_image_view view;
	struct fixture fixture;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 64 << 20);
	while (at < fixture.original.bytes) {
		const size_t left = fixture.original.bytes - (size_t)at;

		if (!CHECK(wcx_image_view_open(fixture.image, at, left, &view, NULL) == 0))
			break;
		CHECK(view_is_right(&fixture, &view, at, left));
		views_by_count += view.bytes < left && view.count == WCX_BATCH_TILES;
		views_by_bytes += view.bytes < left && view.count < WCX_BATCH_TILES;
		at += view.bytes;
		wcx_image_view_close(fixture.image, &view, false);
	}
	CHECK(at == fixture.original.bytes && views_by_count > 0 && views_by_bytes > 0);
	close_fixture(&fixture);
}

static void tiles_of_an_open_view_stay_when_they_are_evicted(void)
{
	struct wcx_image_view views[3];
	struct wcx_tile_cache_stats stats;
	struct fixture fixture;
	uint8_t *buffer;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 0);
	buffer = malloc(fixture.original.bytes + 2);
	for (size_t i = 0; i < 3; i++)
		CHECK(wcx_image_view_open(fixture.image, i * 10000, 300000, &views[i], NULL) == 0);
	CHECK(range_is_right(&fixture, 0, fixture.original.bytes, buffer));
	for (size_t i = 0; i < 3; i++) {
		CHECK(view_is_right(&fixture, &views[i], i * 10000, 300000));
		wcx_image_view_close(fixture.image, &views[i], i == 1);
		CHECK(range_is_right(&fixture, 0, fixture.original.bytes, buffer));
	}
	wcx_tile_cache_get_stats(fixture.cache, &stats);
	CHECK(stats.bytes == 0);
	free(buffer);
	close_fixture(&fixture);
}

/* Opens and closes a view of the first tiles of "rows"; returns how many of them had to be decoded. */
static uint64_t show_rows(const struct fixture *fixture, size_t tiles, bool drop_behind)
{
	const struct wcx_segment *rows = wcx_container_segment(wcx_image_container(fixture->image), 1);
	struct wcx_tile_cache_stats before, after;
	struct wcx_image_view view;

	wcx_tile_cache_get_stats(fixture->cache, &before);
	CHECK(wcx_image_view_open(fixture->image, rows->offset + 5, tiles * 21000 - 10, &view, NULL) == 0);
	CHECK(view.count == tiles);
	wcx_image_view_close(fixture->image, &view, drop_behind);
	wcx_tile_cache_get_stats(fixture->cache, &after);
	return after.misses - before.misses;
}

static void inner_tiles_are_dropped_behind(void)
{
	struct fixture fixture;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 64 << 20);
	CHECK(show_rows(&fixture, 10, false) == 10);
	CHECK(show_rows(&fixture, 10, false) == 0);
	CHECK(show_rows(&fixture, 10, true) == 0);
	CHECK(show_rows(&fixture, 10, true) == 8);
	CHECK(show_rows(&fixture, 1, false) == 0); /* the first and last have stayed */
	CHECK(show_rows(&fixture, 10, false) == 8);
	CHECK(show_rows(&fixture, 2, true) == 0 && show_rows(&fixture, 1, true) == 0);
	CHECK(show_rows(&fixture, 10, false) == 0);
	CHECK(show_rows(&fixture, 3, true) == 0 && show_rows(&fixture, 10, false) == 1);
	close_fixture(&fixture);
}

/* A view of damaged tiles fails, twice, so no failed tile stays in the cache. */
static void check_damaged_view(const struct fixture *fixture, uint64_t offset, size_t bytes, const char *text)
{
	struct wcx_image_view view;
	struct wcx_error err = { "" };

	CHECK(wcx_image_view_open(fixture->image, offset, bytes, &view, &err) == -EBADMSG);
	if (!CHECK(strstr(err.text, text) != NULL))
		fprintf(stderr, "\t\"%s\"\n\tshould have \"%s\"\n", err.text, text);
	CHECK(wcx_image_view_open(fixture->image, offset, bytes, &view, NULL) == -EBADMSG);
}

static void damaged_tile_fails_views_of_it_and_no_others(void)
{
	struct wcx_tile_cache_stats stats;
	struct wcx_image_view view;
	struct fixture fixture;
	char text[2][160];
	uint64_t rows;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 0);
	const struct wcx_segment *seg = wcx_container_segment(wcx_image_container(fixture.image), 1);

	rows = seg->offset;
	for (int i = 0; i < 2; i++) {
		snprintf(text[i], sizeof text[i],
			 "%s: tensor `rows`, tile %d (offset %llu of the original, packed at %llu): damaged", path,
			 4 + 3 * i, (unsigned long long)rows + (unsigned)(4 + 3 * i) * 21000,
			 (unsigned long long)tile_info(&fixture, seg->first_tile + 4 + 3 * (unsigned)i).packed_offset);
		damage_tile(&fixture, seg->first_tile + 4 + 3 * (unsigned)i);
	}
	check_damaged_view(&fixture, rows + 4 * 21000 + 7, 10, text[0]);
	check_damaged_view(&fixture, rows + 4 * 21000 + 7, 30000, text[0]);
	check_damaged_view(&fixture, rows + 100, 21000 * 6, text[0]); /* the first of two */
	check_damaged_view(&fixture, rows + 5 * 21000, 21000 * 9, text[1]);
	check_damaged_view(&fixture, rows + 630000 + 5 * 21000, 21000 * 9, "tensor `again`, tile 7 (");
	wcx_tile_cache_get_stats(fixture.cache, &stats);
	CHECK(stats.bytes == 0);
	CHECK(wcx_image_view_open(fixture.image, rows, 4 * 21000, &view, NULL) == 0);
	CHECK(view_is_right(&fixture, &view, rows, 4 * 21000));
	wcx_image_view_close(fixture.image, &view, false);
	CHECK(wcx_image_view_open(fixture.image, rows + 5 * 21000, 2 * 21000, &view, NULL) == 0);
	wcx_image_view_close(fixture.image, &view, false);
	damage_tile(&fixture, seg->first_tile + 4);
	damage_tile(&fixture, seg->first_tile + 7);
	CHECK(wcx_image_view_open(fixture.image, rows, 10 * 21000, &view, NULL) == 0);
	wcx_image_view_close(fixture.image, &view, false);
	close_fixture(&fixture);
}

/* --- advice --- */

enum {
	FETCH_BYTES = 128 << 10, /* the kernel's read-ahead, by default */
	PAGE_BYTES = 4096,
};

int __wrap_posix_fadvise64(int fd, off_t offset, off_t bytes, int advice);

/* Calls for adjoining bytes count as one.  The lock is for readers at once; tests look when there are none. */
static pthread_mutex_t advised_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	unsigned calls;
	int fd, advice;
	off_t offset, bytes, longest;
} advised;

int __wrap_posix_fadvise64(int fd, off_t offset, off_t bytes, int advice)
{
	bool adjoins;

	pthread_mutex_lock(&advised_lock);
	adjoins = advised.calls && fd == advised.fd && advice == advised.advice && offset == advised.offset + advised.bytes;
	advised.calls += !adjoins;
	advised.fd = fd;
	advised.offset = adjoins ? advised.offset : offset;
	advised.bytes = adjoins ? advised.bytes + bytes : bytes;
	advised.advice = advice;
	advised.longest = WCX_MAX(advised.longest, bytes);
	pthread_mutex_unlock(&advised_lock);
	return 0;
}

ssize_t __wrap_preadv64v2(int fd, const struct iovec *segments, int count, off_t offset, int flags);

/* The image calls this to ask for one byte without waiting: the page cache has [in_cache.start, end), and [again, end of
 * file). */
static struct {
	off_t start, end, again;
} in_cache = { 0, 0, INT64_MAX };

ssize_t __wrap_preadv64v2(int fd, const struct iovec *segments, int count, off_t offset, int flags)
{
	CHECK(fd >= 0 && segments->iov_len == 1 && count == 1 && flags == RWF_NOWAIT);
	if ((offset >= in_cache.start && offset < in_cache.end) || offset >= in_cache.again)
		return 1;
	errno = EAGAIN;
	return -1;
}

/* The page in which a range begins was mostly read with what is before it. */
static void what_is_cached_at_the_ends_of_a_range_does_not_hide_the_rest(void)
{
	struct fixture fixture;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 0);
	const struct wcx_container *c = wcx_image_container(fixture.image);
	const uint64_t total = fixture.original.bytes, offset = total / 3;
	const off_t start = (off_t)tile_info(&fixture, tile_of_byte(c, offset)).packed_offset,
		    page = (start + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	const struct wcx_tile_info last = tile_info(&fixture, tile_of_byte(c, total - 1));
	const off_t end = (off_t)(last.packed_offset + last.packed_bytes);
	const off_t cached[][3] = {
		{ 0, page, INT64_MAX }, { 0, end - 1, INT64_MAX }, { 0, page, end - 1 }, { 0, end, INT64_MAX }
	};

	CHECK(start % PAGE_BYTES && page + 2 * PAGE_BYTES < end);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(cached); i++) {
		memset(&advised, 0, sizeof advised);
		in_cache.start = cached[i][0];
		in_cache.end = cached[i][1];
		in_cache.again = cached[i][2];
		wcx_image_advise(fixture.image, offset, total - offset, POSIX_FADV_WILLNEED);
		CHECK(advised.calls == (i < WCX_ARRAY_COUNT(cached) - 1));
	}
	in_cache.end = 0;
	close_fixture(&fixture);
}

static void advice_is_for_the_packed_bytes_of_a_range(void)
{
	struct sample_random random = { 63 };
	struct fixture fixture;
	unsigned wrong = 0, given = 0;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 0);
	const struct wcx_container *c = wcx_image_container(fixture.image);

	for (unsigned i = 0; i < 2000; i++) {
		const uint64_t offset = sample_below(&random, fixture.original.bytes),
			       left = fixture.original.bytes - offset;
		const uint64_t bytes = 1 + sample_below(&random, i % 3 && left > 30000 ? 30000 : left);
		const struct wcx_tile_info first = tile_info(&fixture, tile_of_byte(c, offset));
		const struct wcx_tile_info last = tile_info(&fixture, tile_of_byte(c, offset + bytes - 1));
		const off_t start = (off_t)first.packed_offset, end = (off_t)(last.packed_offset + last.packed_bytes);
		const int advice = i % 2 ? POSIX_FADV_DONTNEED : POSIX_FADV_WILLNEED;

		memset(&advised, 0, sizeof advised);
		wcx_image_advise(fixture.image, offset, bytes, advice);
		given += advised.calls;
		if (end > start) /* 0 bytes would mean the rest of the file */
			wrong += advised.calls != 1 || advised.fd != wcx_container_fd(c) || advised.offset != start ||
				 advised.bytes != end - start || advised.advice != advice ||
				 (advice == POSIX_FADV_WILLNEED && advised.longest > FETCH_BYTES);
		else
			wrong += advised.calls != 0;
	}
	CHECK(wrong == 0 && given > 1000);
	close_fixture(&fixture);
}

/* The kernel would fetch a piece at a time, each a round trip on a network. */
static void a_large_read_asks_for_all_packed_bytes_at_once(void)
{
	struct fixture fixture;
	uint8_t *dst;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 0);
	dst = malloc((size_t)fixture.original.bytes);
	memset(&advised, 0, sizeof advised);
	CHECK(wcx_image_read(fixture.image, dst, (size_t)fixture.original.bytes, 0, NULL) ==
	      (ssize_t)fixture.original.bytes);
	CHECK(advised.advice == POSIX_FADV_WILLNEED && advised.bytes > FETCH_BYTES && advised.longest <= FETCH_BYTES);
	free(dst);
	close_fixture(&fixture);
}

static void there_is_no_advice_for_what_has_no_packed_bytes(void)
{
	struct fixture fixture;

	open_fixture(&fixture, contiguous_parts, CONTIGUOUS_PARTS, 0);
	const struct wcx_container *c = wcx_image_container(fixture.image);
	const uint64_t total = fixture.original.bytes, constant = wcx_container_segment(c, 5)->offset;

	memset(&advised, 0, sizeof advised);
	wcx_image_advise(fixture.image, constant, 200000, POSIX_FADV_DONTNEED);
	wcx_image_advise(fixture.image, constant + 1000, 1, POSIX_FADV_WILLNEED);
	CHECK(advised.calls == 0);
	wcx_image_advise(fixture.image, 0, 0, POSIX_FADV_DONTNEED);
	wcx_image_advise(fixture.image, total, 1, POSIX_FADV_DONTNEED);
	wcx_image_advise(fixture.image, UINT64_MAX, 1, POSIX_FADV_DONTNEED);
	wcx_image_advise(fixture.image, total - 1, 2, POSIX_FADV_DONTNEED);
	CHECK(advised.calls == 0);
	close_fixture(&fixture);
}

/* --- many readers --- */

struct readers {
	const struct fixture *fixture;
	pthread_barrier_t start;
	bool whole; /* read the file from start to end; otherwise at random */
	atomic_uint seed, wrong;
};

static void *run_reader(void *arg)
{
	struct readers *readers = arg;
	struct sample_random random = { atomic_fetch_add(&readers->seed, 1) };
	size_t total = readers->fixture->original.bytes;
	uint8_t *buffer = malloc(total + 2);

	pthread_barrier_wait(&readers->start);
	for (size_t at = 0; readers->whole && at < total; at += 128 << 10)
		atomic_fetch_add(&readers->wrong, !range_is_right(readers->fixture, at, 128 << 10, buffer));
	for (int i = 0; !readers->whole && i < 100; i++) {
		size_t offset = (size_t)sample_below(&random, total);
		size_t bytes = (size_t)sample_below(&random, i % 20 ? 3000 : 400000);

		atomic_fetch_add(&readers->wrong, !range_is_right(readers->fixture, offset, bytes, buffer));
	}
	free(buffer);
	return NULL;
}

static void run_readers(const struct fixture *fixture, bool whole)
{
	struct readers readers = { .fixture = fixture, .whole = whole };
	pthread_t threads[THREADS];

	pthread_barrier_init(&readers.start, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, run_reader, &readers) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&readers.start);
	CHECK(readers.wrong == 0);
}

static void sixteen_readers_at_once_decode_each_tile_once(void)
{
	struct wcx_tile_cache_stats stats;
	struct fixture fixture;

	open_fixture(&fixture, large_parts, LARGE_PARTS, 64 << 20);
	run_readers(&fixture, true);
	wcx_tile_cache_get_stats(fixture.cache, &stats);
	CHECK(stats.misses == wcx_container_superblock(wcx_image_container(fixture.image))->tile_count);
	CHECK(stats.evictions == 0 && stats.hits + stats.waits > 0);
	close_fixture(&fixture);
}

static void sixteen_readers_with_little_memory_read_the_original(void)
{
	static const uint64_t budgets[] = { 0, 600 << 10 };
	struct fixture fixture;

	for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
		struct wcx_tile_cache_stats stats;

		open_fixture(&fixture, large_parts, LARGE_PARTS, budgets[i]);
		run_readers(&fixture, false);
		wcx_tile_cache_get_stats(fixture.cache, &stats);
		CHECK(stats.bytes <= budgets[i] && stats.evictions > 0);
		close_fixture(&fixture);
	}
}

/* --- damage --- */

/* For each offset in the original, the number of bytes before it that lie in the tile. */
static size_t *count_bytes_of_tile(const struct fixture *fixture, uint64_t tile)
{
	size_t *before = malloc((fixture->original.bytes + 1) * sizeof *before);

	before[0] = 0;
	for (size_t i = 0; i < fixture->original.bytes; i++)
		before[i + 1] = before[i] + (tile_of_byte(wcx_image_container(fixture->image), i) == tile);
	return before;
}

/* Reads ranges, of a step-th of all lengths, while a tile is damaged: those that overlap it fail, all others are right. */
static void check_ranges_around(const struct fixture *fixture, uint64_t tile, size_t step)
{
	size_t *before = count_bytes_of_tile(fixture, tile), total = fixture->original.bytes, wrong = 0;
	uint8_t buffer[4096];

	CHECK(before[total] > 0);
	for (size_t offset = 0; offset < total; offset++) {
		for (size_t bytes = 1 + offset % step; offset + bytes <= total; bytes += step) {
			if (before[offset + bytes] > before[offset])
				wrong += wcx_image_read(fixture->image, buffer, bytes, offset, NULL) != -EBADMSG;
			else
				wrong += !range_is_right(fixture, offset, bytes, buffer);
		}
	}
	CHECK(wrong == 0);
	free(before);
}

static void damaged_tile_fails_reads_of_it_and_no_others(void)
{
	struct fixture fixture;
	uint64_t middle; /* of the grid: read with all lengths */

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 1 << 20);
	middle = wcx_container_segment(wcx_image_container(fixture.image), 1)->first_tile + 5;
	for (uint64_t t = 0; t < wcx_container_superblock(wcx_image_container(fixture.image))->tile_count; t++) {
		struct fixture again = fixture;

		if (tile_info(&fixture, t).mode == WCX_TILE_CONSTANT)
			continue;
		damage_tile(&fixture, t);
		CHECK(wcx_image_open(dup(fixture.fd), path, fixture.cache, fixture.decoder, &again.image, NULL) == 0);
		check_ranges_around(&again, t, t == middle ? CHECK_STEP : CHECK_STEP * 37);
		wcx_image_put(again.image);
		damage_tile(&fixture, t);
	}
	close_fixture(&fixture);
}

static void damage_is_named_by_file_tensor_tile_and_offset(void)
{
	const struct wcx_container *c;
	const struct wcx_segment *grid;
	struct fixture fixture, again;
	struct wcx_error err;
	char expected[200];
	uint8_t buffer[64];
	uint64_t offset;

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 0);
	c = wcx_image_container(fixture.image);
	grid = wcx_container_segment(c, 1);
	damage_tile(&fixture, grid->first_tile + 5);
	offset = grid->offset + 2 * (4 * 11 + 3); /* tile 5 of 4 across begins at row 4, column 3 */
	snprintf(expected, sizeof expected,
		 "%s: tensor `grid`, tile 5 (offset %llu of the original, packed at %llu): damaged", path,
		 (unsigned long long)offset, (unsigned long long)tile_info(&fixture, grid->first_tile + 5).packed_offset);
	CHECK(wcx_image_read(fixture.image, buffer, 1, offset, &err) == -EBADMSG);
	CHECK_TEXT(err.text, expected);
	CHECK(wcx_image_check_tile(fixture.image, grid->first_tile + 5, &err) == -EBADMSG);
	CHECK_TEXT(err.text, expected);
	CHECK(wcx_image_check_tile(fixture.image, grid->first_tile + 4, &err) == 0);

	/* The names are remembered.  Without a header, the message has a number in place of the name. */
	damage_tile(&fixture, 0);
	again = fixture;
	CHECK(wcx_image_open(dup(fixture.fd), path, fixture.cache, fixture.decoder, &again.image, NULL) == 0);
	CHECK(wcx_image_read(fixture.image, buffer, 1, offset, &err) == -EBADMSG);
	CHECK_TEXT(err.text, expected);
	for (int i = 0; i < 2; i++) {
		CHECK(wcx_image_read(again.image, buffer, 1, offset, &err) == -EBADMSG);
		CHECK(strstr(err.text, ": segment number 1, tile 5 (") != NULL);
		CHECK(wcx_image_read(again.image, buffer, 1, 0, &err) == -EBADMSG);
		CHECK(strstr(err.text, ": the header, tile 0 (") != NULL);
	}
	wcx_image_put(again.image);
	close_fixture(&fixture);
}

/* Damages the tile that holds a byte of a segment, reads that byte, and checks that the message has the text. */
static void check_damage_text(const struct fixture *fixture, size_t segment, uint64_t at, const char *text)
{
	const struct wcx_container *c = wcx_image_container(fixture->image);
	uint64_t offset = wcx_container_segment(c, segment)->offset + at, tile = tile_of_byte(c, offset);
	struct wcx_error err = { "" };
	uint8_t byte;

	damage_tile(fixture, tile);
	CHECK(wcx_image_read(fixture->image, &byte, 1, offset, &err) == -EBADMSG);
	if (!CHECK(strstr(err.text, text) != NULL))
		fprintf(stderr, "\t\"%s\"\n\tshould have \"%s\"\n", err.text, text);
	damage_tile(fixture, tile);
}

static void damage_names_the_tensor_that_was_read(void)
{
	struct fixture fixture;
	char text[100];
	uint64_t pool;

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 0);
	pool = wcx_container_segment(wcx_image_container(fixture.image), 7)->offset;
	/* Tiles of five bytes: the second has the last two of pool.a and the first three of pool.b. */
	snprintf(text, sizeof text, ": tensor `pool.a`, tile 1 (offset %llu ", (unsigned long long)pool + 5);
	check_damage_text(&fixture, 7, 6, text);
	snprintf(text, sizeof text, ": tensor `pool.b`, tile 1 (offset %llu ", (unsigned long long)pool + 5);
	check_damage_text(&fixture, 7, 7, text);
	check_damage_text(&fixture, 7, 19, ": tensor `pool.c`, tile 3 (");
	check_damage_text(&fixture, 1, 8, ": tensor `grid`, tile 1 (");
	check_damage_text(&fixture, 6, 8, ": tensor `again`, tile 1 (");
	check_damage_text(&fixture, 5, 1, ": tensor `zipped`, tile 0 (");
	close_fixture(&fixture);
}

/* What wcx_verify reports. */
struct damage {
	unsigned count;
	uint64_t last_tile;
	char text[WCX_ERROR_TEXT_BYTES];
};

static void note_damage(void *user, uint64_t tile_index, const struct wcx_error *why)
{
	struct damage *damage = user;

	damage->count++;
	damage->last_tile = tile_index;
	strcpy(damage->text, why->text);
}

static void verify_counts_a_tile_of_two_segments_once(void)
{
	static const struct wcx_export_ops ops = { .damaged = note_damage };
	struct damage damage = { 0 };
	struct fixture fixture;
	struct wcx_error err;

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 1 << 20);
	const struct wcx_container *c = wcx_image_container(fixture.image);
	uint64_t tile = wcx_container_segment(c, 6)->first_tile + 3;
	char text[100];

	snprintf(text, sizeof text, "1 of %llu tiles damaged", (unsigned long long)wcx_container_superblock(c)->tile_count);
	damage_tile(&fixture, tile);
	CHECK(wcx_verify(fixture.image, 2, &ops, &damage, NULL, &err) == -EBADMSG);
	CHECK(strstr(err.text, text) != NULL);
	CHECK(damage.count == 1 && damage.last_tile == tile);
	CHECK(strstr(damage.text, "tensor `grid`, tile 3 (") != NULL);
	close_fixture(&fixture);
}

static void failed_read_is_tried_again(void)
{
	struct fixture fixture;
	uint8_t buffer[64];

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 1 << 20);
	damage_tile(&fixture, 0);
	CHECK(wcx_image_read(fixture.image, buffer, 20, 5, NULL) == -EBADMSG);
	damage_tile(&fixture, 0);
	CHECK(range_is_right(&fixture, 5, 20, buffer));
	/* Cached tiles stay valid, but check_tile reads the file. */
	damage_tile(&fixture, 0);
	CHECK(range_is_right(&fixture, 5, 20, buffer));
	CHECK(wcx_image_check_tile(fixture.image, 0, NULL) == -EBADMSG);
	close_fixture(&fixture);
}

static bool stops_after(void *user)
{
	int *batches = user;

	return --*batches == 0;
}

static void reads_can_be_stopped_between_batches(void)
{
	/* 250 tiles beside each other, so that a row of the matrix takes two batches. */
	static const struct sample_part part = {
		{ "narrow", "I8", "[16,2000]", 32000, SAMPLE_GAUSSIAN, 20 }, 2000, 16, 8, &sample_1_byte, 0, 0
	};
	struct wcx_error err = { "" };
	struct fixture fixture;
	uint8_t buffer[2000];
	int batches;

	open_fixture(&fixture, &part, 1, 1 << 20);
	batches = 1;
	CHECK(wcx_image_read_until(fixture.image, buffer, 2000, 2000, stops_after, &batches, &err) == -EINTR);
	CHECK(batches == 0 && !err.text[0]);
	batches = 100;
	CHECK(wcx_image_read_until(fixture.image, buffer, 2000, 2000, stops_after, &batches, &err) == 2000);
	CHECK(batches == 98 && memcmp(buffer, fixture.original.data + 2000, 2000) == 0);
	close_fixture(&fixture);
}

static void file_that_became_shorter_is_damaged_where_it_ends(void)
{
	struct fixture fixture;
	uint8_t buffer[64];
	uint64_t last;

	open_fixture(&fixture, sample_small_parts, SAMPLE_SMALL_PARTS, 0);
	last = fixture.original.bytes - 10; /* in a tile with packed bytes: the last tile, of one element, is constant */
	CHECK(ftruncate(fixture.fd, (off_t)tile_info(&fixture, 1).packed_offset) == 0);
	CHECK(range_is_right(&fixture, 0, 50, buffer));
	CHECK(wcx_image_read(fixture.image, buffer, 1, last, NULL) == -EBADMSG);
	CHECK(wcx_image_read(fixture.image, buffer, 10, SAMPLE_HEADER_TILE_COLS - 5, NULL) == -EBADMSG);
	close_fixture(&fixture);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(every_range_of_a_small_image_is_the_original),
		CHECK_TEST(reads_behind_the_end_are_empty),
		CHECK_TEST(random_ranges_of_coded_tiles_are_the_original),
		CHECK_TEST(a_batch_for_a_core_is_decoded_in_pieces),
		CHECK_TEST(header_lists_the_tensors),
		CHECK_TEST(tensor_that_is_not_within_one_segment_is_refused),
		CHECK_TEST(image_lives_until_its_last_reference_goes),
		CHECK_TEST(every_view_of_a_small_image_is_the_original),
		CHECK_TEST(views_of_large_images_are_the_original),
		CHECK_TEST(views_go_on_where_a_batch_ends),
		CHECK_TEST(tiles_of_an_open_view_stay_when_they_are_evicted),
		CHECK_TEST(inner_tiles_are_dropped_behind),
		CHECK_TEST(damaged_tile_fails_views_of_it_and_no_others),
		CHECK_TEST(advice_is_for_the_packed_bytes_of_a_range),
		CHECK_TEST(a_large_read_asks_for_all_packed_bytes_at_once),
		CHECK_TEST(there_is_no_advice_for_what_has_no_packed_bytes),
		CHECK_TEST(what_is_cached_at_the_ends_of_a_range_does_not_hide_the_rest),
		CHECK_TEST(sixteen_readers_at_once_decode_each_tile_once),
		CHECK_TEST(sixteen_readers_with_little_memory_read_the_original),
		CHECK_TEST(damaged_tile_fails_reads_of_it_and_no_others),
		CHECK_TEST(damage_is_named_by_file_tensor_tile_and_offset),
		CHECK_TEST(damage_names_the_tensor_that_was_read),
		CHECK_TEST(verify_counts_a_tile_of_two_segments_once),
		CHECK_TEST(failed_read_is_tried_again),
		CHECK_TEST(reads_can_be_stopped_between_batches),
		CHECK_TEST(file_that_became_shorter_is_damaged_where_it_ends),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
