/* SPDX-License-Identifier: MIT */
/*
 * Images: any range of the original file, from tiles of any geometry, by one thread or many, and what a damaged tile does to
 * reads of it and of its neighbours.
 *
 * The images are put together here, because the packer makes no tiles that are parts of rows.
 */
#include "fs/image.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/check.h"
#include "tests/sample_files.h"

enum { THREADS = 16, HEADER_TILE_COLS = 100 };

static const char path[] = "store/image.wcx"; /* as messages have it; the files have no name */

/* How a tensor is tiled. */
struct part {
	struct sample_tensor tensor;
	uint64_t cols;
	uint32_t tile_rows, tile_cols, elem_bytes;
	enum wcx_predictor predictor;
};

/* Small enough to read every range of it; every tile but one is stored or constant, and none is as wide as its matrix. */
static const struct part small_parts[] = {
	{ { "grid", "I16", "[13,11]", 286, SAMPLE_UNIFORM, 0 }, 11, 4, 3, 2, WCX_PREDICT_NONE },
	{ { "flat", "F32", "[9]", 36, SAMPLE_UNIFORM, 0 }, 9, 1, 4, 4, WCX_PREDICT_NONE },
	{ { "constant", "U8", "[5,5]", 25, SAMPLE_CONSTANT, 0 }, 5, 3, 2, 1, WCX_PREDICT_NONE },
	{ { "column", "I64", "[7]", 56, SAMPLE_UNIFORM, 0 }, 1, 2, 3, 8, WCX_PREDICT_NONE },
	{ { "byte", "U8", "[1]", 1, SAMPLE_UNIFORM, 0 }, 1, 1, 1, 1, WCX_PREDICT_NONE },
};
enum { SMALL_PARTS = sizeof small_parts / sizeof small_parts[0] };

/* Coded tiles: squares that leave a rim, rows of tiles longer than a batch, and tiles of the largest size. */
static const struct part large_parts[] = {
	{ { "squares", "I8", "[700,900]", 630000, SAMPLE_GAUSSIAN, 20 }, 900, 256, 256, 1, WCX_PREDICT_NONE },
	{ { "left", "I8", "[300,3000]", 900000, SAMPLE_STUDENT, 9 }, 3000, 64, 70, 1, WCX_PREDICT_LEFT },
	{ { "wide", "F64", "[90,1100]", 792000, SAMPLE_GAUSSIAN, 2 }, 99000, 1, 65536, 8, WCX_PREDICT_NONE },
	{ { "above", "I16", "[300,500]", 300000, SAMPLE_GAUSSIAN, 4 }, 500, 100, 500, 2, WCX_PREDICT_UP },
	{ { "both", "I32", "[257,129]", 132612, SAMPLE_STUDENT, 3 }, 129, 30, 50, 4, WCX_PREDICT_AVG },
};
enum { LARGE_PARTS = sizeof large_parts / sizeof large_parts[0] };

/* --- making an image --- */

/* A .wcx file as it grows, in four pieces. */
struct builder {
	FILE *packed, *segments, *entries, *tables;
	struct wcx_encode_scratch *scratch;
	uint64_t packed_bytes;
	uint32_t segment_count, table_count;
	uint64_t tile_count;
};

/* Gathers tile number t of the segment, by the rule of docs/format.md, section 2.2, into dst. */
static void gather_tile(const struct wcx_segment *seg, const uint8_t *src, uint64_t t, struct wcx_tile_shape *shape,
			uint8_t *dst)
{
	uint64_t y = t / seg->tiles_across * seg->tile_rows, x = t % seg->tiles_across * seg->tile_cols;

	shape->rows = (uint32_t)(seg->rows - y < seg->tile_rows ? seg->rows - y : seg->tile_rows);
	shape->cols = (uint32_t)(seg->cols - x < seg->tile_cols ? seg->cols - x : seg->tile_cols);
	shape->elem_bytes = seg->elem_bytes;
	for (uint64_t row = y; row < y + shape->rows; row++, dst += (size_t)shape->cols * shape->elem_bytes)
		memcpy(dst, src + (row * seg->cols + x) * seg->elem_bytes, (size_t)shape->cols * shape->elem_bytes);
}

static void make_plan(const struct builder *builder, const struct wcx_segment *seg, const uint8_t *src,
		      enum wcx_predictor predictor, uint8_t *tile, struct wcx_plane_plan plan[WCX_PLANES_MAX])
{
	for (uint32_t p = 0; p < seg->elem_bytes; p++) {
		uint64_t count[WCX_SYMBOL_COUNT] = { 0 };

		for (uint64_t t = 0; t < seg->tile_count; t++) {
			struct wcx_tile_shape shape;

			gather_tile(seg, src, t, &shape, tile);
			wcx_tile_count_residuals(&shape, tile, p, predictor, builder->scratch, count);
		}
		plan[p] = (struct wcx_plane_plan){ .coding = WCX_PLANE_RANS, .predictor = predictor };
		wcx_freq_table_build(count, &plan[p].table);
	}
}

static void add_tile(struct builder *builder, const struct wcx_tile_shape *shape, const uint8_t *tile,
		     const struct wcx_plane_plan plan[WCX_PLANES_MAX], uint8_t *packed)
{
	struct wcx_tile_info info = { .packed_offset = WCX_SUPERBLOCK_BYTES + builder->packed_bytes };
	uint8_t entry[WCX_TILE_ENTRY_BYTES];
	size_t bytes;

	CHECK(wcx_tile_encode(shape, tile, plan, builder->scratch, packed, &info.mode, &bytes, &info.constant) == WCX_OK);
	info.packed_bytes = (uint32_t)bytes;
	info.checksum = bytes ? wcx_checksum32(packed, bytes) : 0;
	wcx_tile_entry_write(&info, entry);
	fwrite(entry, 1, sizeof entry, builder->entries);
	memset(packed + bytes, 0, -bytes & (WCX_TILE_ALIGN - 1));
	bytes += -bytes & (WCX_TILE_ALIGN - 1);
	fwrite(packed, 1, bytes, builder->packed);
	builder->packed_bytes += bytes;
	builder->tile_count++;
}

/* Adds a segment whose bytes, cols, tile size and element size are set. */
static void add_segment(struct builder *builder, struct wcx_segment *seg, const uint8_t *src, enum wcx_predictor predictor)
{
	uint8_t written[WCX_SEGMENT_BYTES], table[WCX_FREQ_TABLE_MAX_BYTES];
	uint8_t *tile = malloc(WCX_TILE_MAX_BYTES), *packed = malloc(WCX_TILE_MAX_BYTES + WCX_TILE_ALIGN);
	struct wcx_plane_plan plan[WCX_PLANES_MAX];
	struct wcx_tile_shape shape;

	seg->rows = seg->bytes / seg->elem_bytes / seg->cols;
	seg->tiles_across = (seg->cols + seg->tile_cols - 1) / seg->tile_cols;
	seg->tile_count = seg->tiles_across * ((seg->rows + seg->tile_rows - 1) / seg->tile_rows);
	seg->table_mask = (uint8_t)((1u << seg->elem_bytes) - 1);
	seg->first_table = builder->table_count;
	make_plan(builder, seg, src, predictor, tile, plan);
	for (uint32_t p = 0; p < seg->elem_bytes; p++)
		fwrite(table, 1, wcx_freq_table_write(&plan[p].table, table), builder->tables);
	builder->table_count += seg->elem_bytes;
	for (uint64_t t = 0; t < seg->tile_count; t++) {
		gather_tile(seg, src, t, &shape, tile);
		add_tile(builder, &shape, tile, plan, packed);
	}
	wcx_segment_write(seg, written);
	fwrite(written, 1, sizeof written, builder->segments);
	builder->segment_count++;
	free(tile);
	free(packed);
}

static void append(struct sample_bytes *file, const char *piece, size_t bytes)
{
	memcpy(file->data + file->bytes, piece, bytes);
	file->bytes += bytes;
}

/* An image of the original, whose tensors are tiled as parts say. */
static struct sample_bytes build_image(struct sample_bytes original, const struct part *parts, size_t part_count)
{
	char *pieces[4];
	size_t bytes[4], index;
	struct builder builder = { .scratch = wcx_encode_scratch_create() };
	uint64_t at = 8 + wcx_le64_read(original.data);
	struct wcx_segment header = {
		.bytes = at,
		.cols = at,
		.tile_rows = 1,
		.tile_cols = HEADER_TILE_COLS,
		.elem_bytes = 1,
	};
	struct sample_bytes file = { 0 };

	builder.packed = open_memstream(&pieces[0], &bytes[0]);
	builder.segments = open_memstream(&pieces[1], &bytes[1]);
	builder.entries = open_memstream(&pieces[2], &bytes[2]);
	builder.tables = open_memstream(&pieces[3], &bytes[3]);
	add_segment(&builder, &header, original.data, WCX_PREDICT_NONE);
	for (size_t i = 0; i < part_count; at += parts[i++].tensor.bytes) {
		struct wcx_segment seg = {
			.bytes = parts[i].tensor.bytes,
			.cols = parts[i].cols,
			.tile_rows = parts[i].tile_rows,
			.tile_cols = parts[i].tile_cols,
			.elem_bytes = (uint8_t)parts[i].elem_bytes,
		};

		add_segment(&builder, &seg, original.data + at, parts[i].predictor);
	}
	CHECK(at == original.bytes);
	fclose(builder.packed);
	fclose(builder.segments);
	fclose(builder.entries);
	fclose(builder.tables);
	wcx_encode_scratch_free(builder.scratch);

	file.data = calloc(1, WCX_SUPERBLOCK_BYTES + bytes[0] + bytes[1] + bytes[2] + bytes[3]);
	file.bytes = WCX_SUPERBLOCK_BYTES;
	append(&file, pieces[0], bytes[0]);
	index = file.bytes;
	for (int i = 1; i < 4; i++)
		append(&file, pieces[i], bytes[i]);
	for (int i = 0; i < 4; i++)
		free(pieces[i]);
	struct wcx_superblock sb = {
		.packed_bytes = file.bytes,
		.original_bytes = original.bytes,
		.index_offset = index,
		.index_bytes = file.bytes - index,
		.segment_count = builder.segment_count,
		.table_count = builder.table_count,
		.tile_count = builder.tile_count,
		.table_bytes = bytes[3],
		.index_checksum = wcx_checksum64(file.data + index, file.bytes - index),
	};
	wcx_superblock_write(&sb, file.data);
	return file;
}

/* --- what every test here has --- */

struct fixture {
	struct sample_bytes original, packed;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_image *image;
	int fd; /* of the packed file, which tests may change */
};

static void open_fixture(struct fixture *fixture, const struct part *parts, size_t count, uint64_t cache_bytes)
{
	struct sample_tensor tensors[8];
	struct wcx_error err = { "" };
	int fd;

	for (size_t i = 0; i < count; i++)
		tensors[i] = parts[i].tensor;
	fixture->original = sample_safetensors(tensors, count);
	fixture->packed = build_image(fixture->original, parts, count);
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
	uint64_t elem = (at - seg->offset) / seg->elem_bytes;

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

/* Changes a byte in the middle of a packed tile; a second time changes it back. */
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

/* A read gives just the original's bytes in this range, and nothing is written beside them. */
static int range_is_right(const struct fixture *fixture, uint64_t offset, size_t bytes, uint8_t *buffer)
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
		size_t total, wrong = 0, step = budgets[b] == 1 << 20 ? 1 : 13; /* every range once is enough */

		open_fixture(&fixture, small_parts, SMALL_PARTS, budgets[b]);
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

	open_fixture(&fixture, small_parts, SMALL_PARTS, 0);
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
	unsigned modes[3] = { 0 };

	for (uint64_t t = 0; t < sb->tile_count; t++)
		modes[tile_info(fixture, t).mode]++;
	CHECK(modes[WCX_TILE_CODED] > 200);
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

static void header_lists_the_tensors(void)
{
	struct wcx_safetensors *st = NULL;
	struct fixture fixture;

	open_fixture(&fixture, small_parts, SMALL_PARTS, 0);
	CHECK(wcx_image_header(fixture.image, &st, NULL) == 0);
	if (CHECK(st && st->tensor_count == SMALL_PARTS)) {
		CHECK_TEXT(st->tensors[1].name, "flat");
		CHECK(st->tensors[1].bytes == 36 && st->tensors[1].elem_bytes == 4);
	}
	wcx_safetensors_free(st);
	close_fixture(&fixture);
}

static void index_that_contradicts_the_header_is_refused(void)
{
	struct part swapped[SMALL_PARTS], fewer[SMALL_PARTS];
	struct wcx_safetensors *st = NULL;
	struct fixture fixture;
	struct wcx_error err;

	memcpy(swapped, small_parts, sizeof swapped);
	swapped[1] = small_parts[2];
	swapped[2] = small_parts[1];
	memcpy(fewer, small_parts, sizeof fewer);
	fewer[3].tensor.bytes = 57; /* takes the last tensor's byte */
	fewer[3].elem_bytes = 1;
	for (int i = 0; i < 2; i++) {
		int fd;

		open_fixture(&fixture, small_parts, SMALL_PARTS, 0);
		wcx_image_put(fixture.image);
		free(fixture.packed.data);
		fixture.packed = build_image(fixture.original, i ? fewer : swapped, i ? SMALL_PARTS - 1 : SMALL_PARTS);
		fd = sample_open(fixture.packed.data, fixture.packed.bytes);
		CHECK(wcx_image_open(fd, path, fixture.cache, fixture.decoder, &fixture.image, &err) == 0);
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

	open_fixture(&fixture, small_parts, SMALL_PARTS, 1 << 20);
	CHECK(wcx_image_get(fixture.image) == fixture.image);
	wcx_image_put(fixture.image);
	CHECK(range_is_right(&fixture, 3, 50, buffer));
	wcx_image_put(NULL);
	close_fixture(&fixture);
}

/* --- many readers --- */

struct readers {
	const struct fixture *fixture;
	pthread_barrier_t start;
	int whole; /* read from start to end, all at once; otherwise at random */
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

static void run_readers(const struct fixture *fixture, int whole)
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
	run_readers(&fixture, 1);
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
		run_readers(&fixture, 0);
		wcx_tile_cache_get_stats(fixture.cache, &stats);
		CHECK(stats.bytes <= budgets[i] && stats.evictions > 0);
		close_fixture(&fixture);
	}
}

/* --- damage --- */

/* How many bytes in front of each of the original's lie in the tile. */
static size_t *count_bytes_of_tile(const struct fixture *fixture, uint64_t tile)
{
	size_t *before = malloc((fixture->original.bytes + 1) * sizeof *before);

	before[0] = 0;
	for (size_t i = 0; i < fixture->original.bytes; i++)
		before[i + 1] = before[i] + (tile_of_byte(wcx_image_container(fixture->image), i) == tile);
	return before;
}

/* Reads all ranges, or only some lengths, while a tile is damaged: those that touch it fail, all others are right. */
static void check_ranges_around(const struct fixture *fixture, uint64_t tile, size_t step)
{
	size_t *before = count_bytes_of_tile(fixture, tile), total = fixture->original.bytes, wrong = 0;
	uint8_t buffer[4096];

	CHECK(before[total] > 0);
	for (size_t offset = 0; offset < total; offset++) {
		for (size_t bytes = 1; offset + bytes <= total; bytes += step) {
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

	open_fixture(&fixture, small_parts, SMALL_PARTS, 1 << 20);
	for (uint64_t t = 0; t < wcx_container_superblock(wcx_image_container(fixture.image))->tile_count; t++) {
		struct fixture again = fixture;

		if (tile_info(&fixture, t).mode == WCX_TILE_CONSTANT)
			continue;
		damage_tile(&fixture, t);
		CHECK(wcx_image_open(dup(fixture.fd), path, fixture.cache, fixture.decoder, &again.image, NULL) == 0);
		check_ranges_around(&again, t, t == 8 ? 1 : 37); /* 8 is in the middle of the grid */
		wcx_image_put(again.image);
		damage_tile(&fixture, t);
	}
	close_fixture(&fixture);
}

static void damage_is_named_by_file_tensor_tile_and_offset(void)
{
	const struct wcx_container *c;
	const struct wcx_segment *grid;
	struct fixture fixture;
	struct wcx_error err;
	char expected[200];
	uint8_t buffer[64];
	uint64_t offset;

	open_fixture(&fixture, small_parts, SMALL_PARTS, 0);
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

	/* With the header gone, there is a number in place of the name. */
	damage_tile(&fixture, 0);
	CHECK(wcx_image_read(fixture.image, buffer, 1, offset, &err) == -EBADMSG);
	CHECK(strstr(err.text, ": tensor number 1, tile 5 (") != NULL);
	CHECK(wcx_image_read(fixture.image, buffer, 1, 0, &err) == -EBADMSG);
	CHECK(strstr(err.text, ": the header, tile 0 (") != NULL);
	close_fixture(&fixture);
}

static void failed_read_is_tried_again(void)
{
	struct fixture fixture;
	uint8_t buffer[64];

	open_fixture(&fixture, small_parts, SMALL_PARTS, 1 << 20);
	damage_tile(&fixture, 0);
	CHECK(wcx_image_read(fixture.image, buffer, 20, 5, NULL) == -EBADMSG);
	damage_tile(&fixture, 0);
	CHECK(range_is_right(&fixture, 5, 20, buffer));
	/* What is in the cache stays right, and check_tile looks at the file. */
	damage_tile(&fixture, 0);
	CHECK(range_is_right(&fixture, 5, 20, buffer));
	CHECK(wcx_image_check_tile(fixture.image, 0, NULL) == -EBADMSG);
	close_fixture(&fixture);
}

static void file_that_became_shorter_is_damaged_where_it_ends(void)
{
	struct fixture fixture;
	uint8_t buffer[64];
	uint64_t last;

	open_fixture(&fixture, small_parts, SMALL_PARTS, 0);
	last = fixture.original.bytes - 10; /* behind it are tiles of one element: constants, which have no packed bytes */
	CHECK(ftruncate(fixture.fd, (off_t)tile_info(&fixture, 1).packed_offset) == 0);
	CHECK(range_is_right(&fixture, 0, 50, buffer));
	CHECK(wcx_image_read(fixture.image, buffer, 1, last, NULL) == -EBADMSG);
	CHECK(wcx_image_read(fixture.image, buffer, 10, HEADER_TILE_COLS - 5, NULL) == -EBADMSG);
	close_fixture(&fixture);
}

int main(void)
{
	every_range_of_a_small_image_is_the_original();
	reads_behind_the_end_are_empty();
	random_ranges_of_coded_tiles_are_the_original();
	header_lists_the_tensors();
	index_that_contradicts_the_header_is_refused();
	image_lives_until_its_last_reference_goes();
	sixteen_readers_at_once_decode_each_tile_once();
	sixteen_readers_with_little_memory_read_the_original();
	damaged_tile_fails_reads_of_it_and_no_others();
	damage_is_named_by_file_tensor_tile_and_offset();
	failed_read_is_tried_again();
	file_that_became_shorter_is_damaged_where_it_ends();
	return check_report();
}
