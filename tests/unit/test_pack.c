/* SPDX-License-Identifier: MIT */
/*
 * Packing and unpacking: the output does not depend on the number of threads, and a failure leaves everything as it was.
 */
#include "fs/pack/pack.h"

#include <errno.h>
#include <string.h>

#include "fs/read/export.h"
#include "fs/read/image.h"
#include "fs/read/unpack.h"
#include "tests/fixtures/sample_files.h"
#include "tests/unit/check.h"

/* Several units of every kind.  `rows` and `twin`, which are equal, are filled below. */
static const struct sample_tensor large[] = {
	{ "a.weight", "I8", "[2000,1000]", 2000000, SAMPLE_GAUSSIAN, 20 },
	{ "a.scale", "F32", "[2000,1]", 8000, SAMPLE_STUDENT, 4 },
	{ "b.weight", "BF16", "[900,1100]", 1980000, SAMPLE_GAUSSIAN, 3 },
	{ "constant", "F32", "[400000]", 1600000, SAMPLE_CONSTANT, 0 },
	{ "rows", "I8", "[1000,300]", 300000, SAMPLE_UNIFORM, 0 },
	{ "noise", "U8", "[700000]", 700000, SAMPLE_UNIFORM, 0 },
	{ "wide", "F64", "[77,999]", 615384, SAMPLE_STUDENT, 2 },
	{ "norm", "F16", "[1]", 2, SAMPLE_UNIFORM, 0 },
	{ "twin", "I8", "[1000,300]", 300000, SAMPLE_CONSTANT, 0 },
	{ "pool.0", "BF16", "[500]", 1000, SAMPLE_GAUSSIAN, 3 },
	{ "pool.1", "BF16", "[30,100]", 6000, SAMPLE_GAUSSIAN, 3 },
	{ "steps", "I64", "[20000]", 160000, SAMPLE_GAUSSIAN, 1 },
};
enum { LARGE_COUNT = sizeof large / sizeof large[0] };

static char *dir, *src_path, *dst_path, *back_path;
static struct sample_bytes original;

/* The offset of a tensor's data in the file. */
static size_t large_offset(const char *name)
{
	size_t at = 8 + wcx_le64_read(original.data);

	for (size_t i = 0; strcmp(large[i].name, name) != 0; i++)
		at += large[i].bytes;
	return at;
}

/* Makes each row of `rows` the one above plus small numbers, for which UP is the best predictor. */
static void make_rows_alike(void)
{
	struct sample_random random = { 7 };
	uint8_t *rows = original.data + large_offset("rows");

	for (size_t i = 300; i < 300000; i++)
		rows[i] = (uint8_t)(rows[i - 300] + sample_below(&random, 3));
	memcpy(original.data + large_offset("twin"), rows, 300000);
}

static void make_source(void)
{
	dir = sample_dir_create();
	src_path = sample_path(dir, "model.safetensors");
	dst_path = sample_path(dir, "model.wcx");
	back_path = sample_path(dir, "back.safetensors");
	original = sample_safetensors(large, LARGE_COUNT);
	make_rows_alike();
	sample_write(src_path, original);
}

static struct wcx_image *open_image(const char *path, struct wcx_tile_cache *cache, struct wcx_decoder *decoder)
{
	struct wcx_image *image = NULL;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct wcx_error err = { "" };

	sample_require(wcx_image_open(fd, path, cache, decoder, &image, &err) == 0, err.text);
	return image;
}

static int unpack(const char *path, const struct wcx_pack_options *options, struct wcx_error *err)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_decoder *decoder = NULL;
	struct wcx_image *image;
	int r;

	CHECK(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, err) == 0);
	image = open_image(path, cache, decoder);
	r = wcx_unpack(image, back_path, &options->job, err);
	wcx_image_put(image);
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	return r;
}

static void check_output_for_any_number_of_threads(int is_reference)
{
	static const unsigned thread_counts[] = { 1, 2, 5 };
	struct sample_bytes first = { 0 };

	for (size_t i = 0; i < 3; i++) {
		struct wcx_pack_options options = { .job.thread_count = thread_counts[i], .is_reference = is_reference };
		struct wcx_pack_result result = { 0 };
		struct sample_bytes packed, back;
		struct wcx_error err = { "" };

		CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0);
		CHECK_TEXT(err.text, "");
		packed = sample_read(dst_path);
		CHECK(result.original_bytes == original.bytes && result.packed_bytes == packed.bytes);
		CHECK(packed.bytes < original.bytes);
		CHECK(unpack(dst_path, &options, &err) == 0);
		back = sample_read(back_path);
		CHECK(sample_equal(back, original));
		CHECK(sample_dir_count(dir) == 3);
		free(back.data);
		if (i == 0)
			first = packed;
		else
			CHECK(sample_equal(packed, first));
		if (i > 0)
			free(packed.data);
		unlink(dst_path);
		unlink(back_path);
	}
	free(first.data);
}

static void output_is_the_same_for_any_number_of_threads_in_either_mode(void)
{
	check_output_for_any_number_of_threads(0);
	check_output_for_any_number_of_threads(1);
}

/* Packs the source, opens the output and unlinks it. */
static struct wcx_container *pack_and_open(int is_reference)
{
	struct wcx_pack_options options = { .job.thread_count = 2, .is_reference = is_reference };
	struct wcx_pack_result result;
	struct wcx_container *c = NULL;
	struct wcx_error err = { "" };

	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0);
	sample_require(wcx_container_open(open(dst_path, O_RDONLY | O_CLOEXEC), dst_path, &c, &err) == 0, err.text);
	unlink(dst_path);
	return c;
}

/* They get the predictor UP, and tiles of at most 32 KiB. */
static void rows_that_are_alike_get_tiles_of_whole_rows(void)
{
	struct wcx_container *c = pack_and_open(0);
	const struct wcx_segment *rows = wcx_container_segment(c, 5), *noise = wcx_container_segment(c, 6);

	CHECK(rows->bytes == 300000 && rows->cols == 300 && rows->recipe.predictor == WCX_PREDICT_UP);
	CHECK(rows->tile_cols == 300 && rows->tile_rows == 32768 / 300);
	CHECK(noise->bytes == 700000 && noise->cols == 700000 && noise->recipe.predictor == WCX_PREDICT_NONE);
	CHECK(noise->recipe.field_count == 1 && noise->recipe.fields[0].table_count == 0);
	wcx_container_free(c);
}

static void twins_and_pools_are_segments(void)
{
	struct wcx_container *c = pack_and_open(0);

	CHECK(wcx_container_superblock(c)->segment_count == 1 + LARGE_COUNT - 1);
	CHECK(wcx_container_segment(c, 9)->bytes == 300000 && wcx_container_segment(c, 9)->same_as == 5);
	CHECK(wcx_container_segment(c, 10)->bytes == 7000);
	wcx_container_free(c);
}

/* One tensor has two tiles side by side, the other has them one above the other: equal tiles, but other bytes. */
static void tensors_of_the_same_tiles_are_no_twins_in_the_reference_mode(void)
{
	static const struct sample_tensor tensors[] = { { "tall", "I8", "[512,256]", 131072, SAMPLE_GAUSSIAN, 20 },
							{ "wide", "I8", "[256,512]", 131072, SAMPLE_CONSTANT, 0 } };
	struct wcx_pack_options options = { .job.thread_count = 1, .is_reference = 1 };
	struct sample_bytes file = sample_safetensors(tensors, 2);
	uint8_t *tall = file.data + file.bytes - 262144, *wide = tall + 131072;
	char *path = sample_path(dir, "tiles.safetensors");
	struct wcx_pack_result result;
	struct wcx_error err = { "" };

	for (size_t y = 0; y < 256; y++)
		for (size_t tile = 0; tile < 2; tile++)
			memcpy(wide + 512 * y + 256 * tile, tall + 65536 * tile + 256 * y, 256);
	sample_write(path, file);
	CHECK(wcx_pack(path, dst_path, &options, &result, &err) == 0);
	CHECK_TEXT(err.text, "");
	unlink(dst_path);
	unlink(path);
	free(path);
	free(file.data);
}

/* Every tensor is a segment of bytes; equal content is stored once, as in the other mode. */
static void the_reference_mode_has_tiles_of_256_by_256_bytes_with_left2(void)
{
	static const uint64_t cols[LARGE_COUNT] = {
		1000, 8000, 2200, 1600000, 300, 700000, 7992, 2, 300, 1000, 200, 160000
	};
	struct wcx_container *c = pack_and_open(1);

	if (CHECK(wcx_container_superblock(c)->segment_count == 1 + LARGE_COUNT))
		for (size_t i = 0; i < LARGE_COUNT; i++) {
			const struct wcx_segment *seg = wcx_container_segment(c, 1 + i);

			CHECK(seg->bytes == large[i].bytes && seg->cols == cols[i]);
			CHECK(seg->tile_rows == 256 && seg->tile_cols == 256);
			CHECK(seg->same_as == (strcmp(large[i].name, "twin") == 0 ? 5 : 0));
			CHECK(seg->recipe.elem_bytes == 1 && seg->recipe.transform == WCX_TRANSFORM_NONE);
			CHECK(seg->recipe.predictor == WCX_PREDICT_LEFT2 && seg->recipe.field_count == 1);
			CHECK(seg->recipe.fields[0].table_count <= 1 && seg->recipe.run_elems == 0);
		}
	wcx_container_free(c);
}

static void permissions_and_times_are_the_sources(void)
{
	const struct timespec times[2] = { { .tv_sec = 1000000001, .tv_nsec = 5 }, { .tv_sec = 1000000002, .tv_nsec = 7 } };
	struct wcx_pack_options options = { .job.thread_count = 2 };
	struct wcx_pack_result result;
	struct wcx_error err;
	struct stat st;

	CHECK(chmod(src_path, 0640) == 0 && utimensat(AT_FDCWD, src_path, times, 0) == 0);
	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0 && unpack(dst_path, &options, &err) == 0);
	for (int i = 0; i < 2; i++) {
		CHECK(stat(i ? back_path : dst_path, &st) == 0 && (st.st_mode & 07777) == 0640);
		CHECK(st.st_mtim.tv_sec == times[1].tv_sec && st.st_mtim.tv_nsec == times[1].tv_nsec);
	}
	unlink(dst_path);
	unlink(back_path);
}

/* --- existing outputs --- */

static void check_kept(const char *path, const char *text)
{
	struct sample_bytes file = sample_read(path);

	CHECK(file.bytes == strlen(text) && memcmp(file.data, text, file.bytes) == 0);
	free(file.data);
}

static void never(void *user, const char *what, uint64_t done, uint64_t total)
{
	(void)user;
	(void)done;
	(void)total;
	CHECK_TEXT(what, "");
}

static void existing_output_is_only_replaced_on_demand(void)
{
	static char text[] = "precious";
	struct wcx_pack_options options = { .job.thread_count = 2 };
	struct wcx_pack_result result;
	struct wcx_error err;

	sample_write(dst_path, (struct sample_bytes){ (uint8_t *)text, strlen(text) });
	options.job.progress = never; /* must be refused before any work */
	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == -EEXIST);
	options.job.progress = NULL;
	CHECK(strncmp(err.text, dst_path, strlen(dst_path)) == 0);
	check_kept(dst_path, text);
	options.job.replace = 1;
	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0);
	options.job.replace = 0;
	sample_write(back_path, (struct sample_bytes){ (uint8_t *)text, strlen(text) });
	CHECK(unpack(dst_path, &options, &err) == -EEXIST);
	check_kept(back_path, text);
	options.job.replace = 1;
	CHECK(unpack(dst_path, &options, &err) == 0);
	CHECK(sample_dir_count(dir) == 3);
	unlink(dst_path);
	unlink(back_path);
}

static void output_that_is_the_source_or_a_directory_is_refused(void)
{
	struct wcx_pack_options options = { .job.thread_count = 1, .job.replace = 1 };
	struct wcx_pack_result result;
	struct sample_bytes after;
	struct wcx_error err;

	CHECK(wcx_pack(src_path, src_path, &options, &result, &err) == -EINVAL);
	CHECK(link(src_path, dst_path) == 0);
	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == -EINVAL);
	unlink(dst_path);
	CHECK(symlink(src_path, dst_path) == 0);
	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == -EINVAL);
	unlink(dst_path);
	CHECK(wcx_pack(src_path, dir, &options, &result, &err) == -EISDIR);
	CHECK(wcx_pack(dir, dst_path, &options, &result, &err) == -EINVAL);
	CHECK(wcx_pack(back_path, dst_path, &options, &result, &err) == -ENOENT);
	after = sample_read(src_path);
	CHECK(sample_equal(after, original));
	CHECK(sample_dir_count(dir) == 1);
	free(after.data);
}

/* --- interruptions, timed by progress reports --- */

struct meddler {
	const char *when; /* "packing", "verifying" or "unpacking" */
	void (*meddle)(struct meddler *meddler);
	atomic_bool stop;
	unsigned calls;
	uint64_t done, total;
	char last[16];
};

static void on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
	struct meddler *meddler = user;

	if (strcmp(meddler->last, what) != 0)
		meddler->done = 0;
	CHECK(done > meddler->done && done <= total && total == original.bytes);
	meddler->done = done;
	meddler->total = total;
	snprintf(meddler->last, sizeof meddler->last, "%s", what);
	if (meddler->meddle && strcmp(what, meddler->when) == 0 && meddler->calls++ == 0)
		meddler->meddle(meddler);
}

static void set_stop(struct meddler *meddler)
{
	meddler->stop = 1;
}

static void shorten_source(struct meddler *meddler)
{
	(void)meddler;
	CHECK(truncate(src_path, (off_t)original.bytes / 2) == 0);
}

static void touch_source(struct meddler *meddler)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 5 } };

	(void)meddler;
	CHECK(utimensat(AT_FDCWD, src_path, times, 0) == 0);
}

static void progress_goes_from_start_to_end(void)
{
	struct meddler meddler = { 0 };
	struct wcx_pack_options options = { .job.thread_count = 2, .job.progress = on_progress, .job.user = &meddler };
	struct wcx_pack_result result;
	struct wcx_error err;

	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0);
	CHECK_TEXT(meddler.last, "verifying");
	CHECK(meddler.done == original.bytes);
	CHECK(unpack(dst_path, &options, &err) == 0);
	CHECK_TEXT(meddler.last, "unpacking");
	CHECK(meddler.done == original.bytes);
	unlink(dst_path);
	unlink(back_path);
}

static void check_interrupted(unsigned threads, const char *when, void (*meddle)(struct meddler *), int errnum)
{
	struct meddler meddler = { .when = when, .meddle = meddle };
	struct wcx_pack_options options = {
		.job.thread_count = threads,
		.job.replace = 1,
		.job.stop = &meddler.stop,
		.job.progress = on_progress,
		.job.user = &meddler,
	};
	struct wcx_pack_result result;
	struct wcx_error err = { "" };

	if (strcmp(when, "unpacking") == 0)
		CHECK(unpack(dst_path, &options, &err) == -errnum);
	else
		CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == -errnum);
	CHECK(meddler.calls > 0 && err.text[0]);
	CHECK(sample_dir_count(dir) == 2);
	check_kept(strcmp(when, "unpacking") == 0 ? back_path : dst_path, "before");
}

static void failures_on_the_way_leave_what_was_there(void)
{
	static char text[] = "before";
	struct sample_bytes before = { (uint8_t *)text, strlen(text) };

	sample_write(dst_path, before);
	for (unsigned threads = 1; threads <= 3; threads += 2) {
		check_interrupted(threads, "packing", set_stop, EINTR);
		check_interrupted(threads, "verifying", set_stop, EINTR);
		check_interrupted(threads, "verifying", touch_source, EBUSY);
		check_interrupted(threads, "packing", shorten_source, EIO);
		sample_write(src_path, original);
	}
	unlink(dst_path);
}

static void interrupted_unpacking_leaves_what_was_there(void)
{
	static char text[] = "before";
	struct wcx_pack_options options = { .job.thread_count = 2 };
	struct wcx_pack_result result;
	struct wcx_error err;

	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0);
	unlink(src_path);
	sample_write(back_path, (struct sample_bytes){ (uint8_t *)text, strlen(text) });
	check_interrupted(2, "unpacking", set_stop, EINTR);
	unlink(dst_path);
	unlink(back_path);
	sample_write(src_path, original);
}

/* --- damage that verifying finds --- */

struct damage_report {
	uint64_t tiles[16];
	unsigned count;
	char text[WCX_ERROR_TEXT_BYTES]; /* the last message */
};

static void on_damage(void *user, uint64_t tile_index, const struct wcx_error *why)
{
	struct damage_report *report = user;

	if (report->count < 16)
		report->tiles[report->count] = tile_index;
	report->count++;
	snprintf(report->text, sizeof report->text, "%s", why->text);
}

/* Flips a bit of a tile that has packed bytes. */
static void damage(const struct wcx_image *image, uint64_t tile)
{
	const struct wcx_container *c = wcx_image_container(image);
	struct wcx_tile_info info;
	uint8_t byte;

	wcx_container_tile(c, wcx_container_segment(c, wcx_container_segment_of_tile(c, tile)), tile, &info);
	CHECK(info.mode != WCX_TILE_CONSTANT);
	CHECK(pread(wcx_container_fd(c), &byte, 1, (off_t)info.packed_offset + 140) == 1);
	byte ^= 1;
	CHECK(pwrite(wcx_container_fd(c), &byte, 1, (off_t)info.packed_offset + 140) == 1);
}

static void check_damage_reports(unsigned threads)
{
	/* Two tiles of a.weight, which is read in one piece with other tensors; two of b.weight, which is read in two
	 * pieces. */
	static const struct {
		size_t segment;
		uint64_t tile;
	} damaged[] = { { 1, 0 }, { 1, 30 }, { 3, 0 }, { 3, 15 }, { 7, 1 } };
	enum { DAMAGED = sizeof damaged / sizeof damaged[0] };
	static const struct wcx_export_ops ops = { .damaged = on_damage };
	uint64_t tiles[DAMAGED];
	struct wcx_tile_cache *cache = wcx_tile_cache_create(0);
	struct damage_report report = { 0 };
	struct wcx_decoder *decoder = NULL;
	struct wcx_image *image;
	struct wcx_error err;

	CHECK(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, NULL) == 0);
	image = open_image(dst_path, cache, decoder);
	CHECK(wcx_verify(image, threads, &ops, &report, NULL, &err) == 0 && report.count == 0);
	for (size_t i = 0; i < DAMAGED; i++) {
		const struct wcx_segment *seg = wcx_container_segment(wcx_image_container(image), damaged[i].segment);

		tiles[i] = seg->first_tile + damaged[i].tile;
		damage(image, tiles[i]);
	}
	CHECK(wcx_verify(image, threads, &ops, &report, NULL, &err) == -EBADMSG);
	CHECK(report.count == DAMAGED && memcmp(report.tiles, tiles, sizeof tiles) == 0);
	CHECK(strstr(report.text, "`wide`, tile 1 (offset ") && strstr(report.text, dst_path));
	CHECK(strstr(err.text, ": 5 of ") != NULL);
	for (size_t i = 0; i < DAMAGED; i++)
		damage(image, tiles[i]);
	wcx_image_put(image);
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
}

static void verifying_reports_every_damaged_tile_once_and_in_order(void)
{
	struct wcx_pack_options options = { .job.thread_count = 2 };
	struct wcx_pack_result result;
	struct wcx_error err;

	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0);
	check_damage_reports(1);
	check_damage_reports(4);
	unlink(dst_path);
}

static void unpacking_a_damaged_file_leaves_nothing(void)
{
	struct wcx_pack_options options = { .job.thread_count = 2 };
	struct wcx_pack_result result;
	struct sample_bytes packed;
	struct wcx_error err;

	CHECK(wcx_pack(src_path, dst_path, &options, &result, &err) == 0);
	packed = sample_read(dst_path);
	packed.data[packed.bytes / 2] ^= 1;
	sample_write(dst_path, packed);
	CHECK(unpack(dst_path, &options, &err) == -EBADMSG);
	packed.data[packed.bytes / 2] ^= 1;
	/* The tiles are intact, but the SHA-256 is another. */
	packed.data[88] ^= 1;
	wcx_le64_write(packed.data + WCX_SUPERBLOCK_BYTES - 8, wcx_checksum64(packed.data, WCX_SUPERBLOCK_BYTES - 8));
	sample_write(dst_path, packed);
	CHECK(unpack(dst_path, &options, &err) == -EBADMSG);
	CHECK(strstr(err.text, "SHA-256") != NULL);
	CHECK(sample_dir_count(dir) == 2);
	free(packed.data);
	unlink(dst_path);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(output_is_the_same_for_any_number_of_threads_in_either_mode),
		CHECK_TEST(rows_that_are_alike_get_tiles_of_whole_rows),
		CHECK_TEST(twins_and_pools_are_segments),
		CHECK_TEST(tensors_of_the_same_tiles_are_no_twins_in_the_reference_mode),
		CHECK_TEST(the_reference_mode_has_tiles_of_256_by_256_bytes_with_left2),
		CHECK_TEST(permissions_and_times_are_the_sources),
		CHECK_TEST(existing_output_is_only_replaced_on_demand),
		CHECK_TEST(output_that_is_the_source_or_a_directory_is_refused),
		CHECK_TEST(progress_goes_from_start_to_end),
		CHECK_TEST(failures_on_the_way_leave_what_was_there),
		CHECK_TEST(interrupted_unpacking_leaves_what_was_there),
		CHECK_TEST(verifying_reports_every_damaged_tile_once_and_in_order),
		CHECK_TEST(unpacking_a_damaged_file_leaves_nothing),
	};
	int status;

	make_source();
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	sample_dir_remove(dir);
	free(src_path);
	free(dst_path);
	free(back_path);
	free(original.data);
	return status;
}
