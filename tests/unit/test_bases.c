/* SPDX-License-Identifier: MIT */
/*
 * Images with a base: every range reads as the original, by one thread or many; a base that is missing, damaged or replaced
 * fails what needs it and nothing else; and searches are rare.  On the CPU, and with a fake GPU.
 *
 * Must be linked with --wrap=clock_gettime, so that a second passes when a test says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "fs/read/image.h"
#include "tests/fixtures/fake_gpu_decode.h"
#include "tests/fixtures/sample_family.h"
#include "tests/unit/check.h"

enum { THREADS = 8, SECOND_MS = 1000 };

static enum wcx_decoder_kind decoder_kind = WCX_DECODER_CPU;
static _Atomic uint64_t passed_ms; /* what tests have added to the clock, which stands still else, however slow they are */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	(void)clock;
	*ret = (struct timespec){ .tv_sec = (time_t)(passed_ms / SECOND_MS) };
	return 0;
}

/* --- fixture --- */

struct fixture {
	struct sample_family family;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_image *image, *base; /* what the finder gives; NULL: nothing is found */
	int base_fd;                    /* of the packed base, which tests damage */
	atomic_uint searches;
};

static struct wcx_image *open_image(struct fixture *fixture, int fd, const char *path)
{
	struct wcx_error err = { "" };
	struct wcx_image *image;

	sample_require(wcx_image_open(fd, path, fixture->cache, fixture->decoder, &image, &err) == 0, err.text);
	return image;
}

static int find(void *user, const struct wcx_container *dependent, const struct wcx_base *base, struct wcx_image **ret,
		struct wcx_error *err)
{
	struct fixture *fixture = user;

	fixture->searches++;
	CHECK(strcmp(wcx_container_path(dependent), "store/tuned.wcx") == 0);
	CHECK(memcmp(base->sha256, fixture->family.entry.sha256, WCX_SHA256_BYTES) == 0);
	CHECK_TEXT(base->name, "../base.wcx");
	if (!fixture->base)
		return wcx_fail(err, ENOENT, "base ba5e01000000 (%s): nowhere", base->name);
	*ret = wcx_image_get(fixture->base);
	return 0;
}

static void open_fixture(struct fixture *fixture, uint64_t cache_bytes, unsigned decoder_limit)
{
	struct wcx_error err = { "" };

	*fixture = (struct fixture){ .family = sample_family_make("../base.wcx") };
	fixture->cache = wcx_tile_cache_create(cache_bytes);
	sample_require(wcx_decoder_create(decoder_kind, NULL, NULL, &fixture->decoder, &err) == 0, err.text);
	if (decoder_limit)
		wcx_decoder_limit(fixture->decoder, decoder_limit);
	fixture->base_fd = sample_open(fixture->family.base.data, fixture->family.base.bytes);
	fixture->base = open_image(fixture, dup(fixture->base_fd), "store/base.wcx");
	fixture->image =
		open_image(fixture, sample_open(fixture->family.tuned.data, fixture->family.tuned.bytes), "store/tuned.wcx");
	wcx_image_use_finder(fixture->image, &(struct wcx_base_finder){ find, fixture });
}

static void close_fixture(struct fixture *fixture)
{
	wcx_image_put(fixture->image);
	wcx_image_put(fixture->base);
	wcx_decoder_free(fixture->decoder);
	wcx_tile_cache_free(fixture->cache);
	close(fixture->base_fd);
	sample_family_free(&fixture->family);
}

/* Whether a range reads as the original has it. */
static bool reads_right(struct fixture *fixture, uint64_t offset, size_t bytes)
{
	uint8_t *dst = malloc(bytes);
	const ssize_t n = wcx_image_read(fixture->image, dst, bytes, offset, NULL);
	const bool is_right = n == (ssize_t)bytes && memcmp(dst, fixture->family.tuned_original.data + offset, bytes) == 0;

	free(dst);
	return is_right;
}

static ssize_t read_tensor(struct fixture *fixture, const char *name, struct wcx_error *err)
{
	const uint64_t at = family_offset(fixture->family.tuned_original, family_tuned_parts, FAMILY_TUNED_PARTS, name);
	uint8_t byte;

	return wcx_image_read(fixture->image, &byte, 1, at, err);
}

/* --- tests --- */

static void tiles_of_all_modes_are_there(void)
{
	static const struct {
		size_t segment;
		enum wcx_tile_mode mode;
	} cases[] = {
		{ FAMILY_TUNED, WCX_TILE_CODED }, { FAMILY_EXACT, WCX_TILE_CODED },   { FAMILY_SAME, WCX_TILE_CONSTANT },
		{ FAMILY_BYTES, WCX_TILE_CODED }, { FAMILY_STORED, WCX_TILE_STORED }, { FAMILY_ALONE, WCX_TILE_CODED },
	};
	struct fixture fixture;

	open_fixture(&fixture, 0, 0);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		const struct wcx_container *c = wcx_image_container(fixture.image);
		const struct wcx_segment *seg = wcx_container_segment(c, cases[i].segment);
		struct wcx_tile_info info;

		wcx_container_tile(c, seg, seg->first_tile, &info);
		CHECK(info.mode == cases[i].mode);
	}
	CHECK(fixture.family.tuned.bytes < fixture.family.tuned_original.bytes / 2);
	close_fixture(&fixture);
}

static void every_range_reads_as_the_original(void)
{
	struct fixture fixture;
	const size_t lengths[] = { 1, 2, 3, 100, 699, 1400, 5000, 65537, 300000 };

	open_fixture(&fixture, 1 << 20, 0);
	const uint64_t end = fixture.family.tuned_original.bytes;

	CHECK(reads_right(&fixture, 0, end));
	for (size_t l = 0; l < WCX_ARRAY_COUNT(lengths); l++)
		for (uint64_t at = 0; at + lengths[l] <= end; at += 17 * lengths[l] + 4099)
			if (!CHECK(reads_right(&fixture, at, lengths[l])))
				break;
	CHECK(fixture.searches == 1);
	for (uint64_t tile = 0; tile < wcx_container_superblock(wcx_image_container(fixture.image))->tile_count; tile++)
		CHECK(wcx_image_check_tile(fixture.image, tile, NULL) == 0);
	close_fixture(&fixture);
}

static void views_show_the_original(void)
{
	struct fixture fixture;
	const uint64_t at = 0;
	struct wcx_image_view view;

	open_fixture(&fixture, 8 << 20, 0);
	for (uint64_t offset = at; offset < fixture.family.tuned_original.bytes - 10000 - 420000;) {
		const int r = wcx_image_view_open(fixture.image, offset, 400000, &view, NULL);

		if (r == -E2BIG) /* the tensor that is packed alone has narrow tiles */
			break;
		if (!CHECK(r == 0))
			break;
		for (size_t i = 0, done = 0; i < view.count; done += view.slices[i++].iov_len)
			CHECK(memcmp(view.slices[i].iov_base, fixture.family.tuned_original.data + offset + done,
				     view.slices[i].iov_len) == 0);
		offset += view.bytes;
		wcx_image_view_close(fixture.image, &view, false);
	}
	close_fixture(&fixture);
}

struct reader {
	pthread_t thread;
	struct fixture *fixture;
	unsigned number;
	bool is_right;
};

static void *read_all(void *user)
{
	struct reader *reader = user;
	const uint64_t end = reader->fixture->family.tuned_original.bytes;
	const size_t part = 150001;

	reader->is_right = true;
	for (unsigned i = 0; i < 12; i++) {
		const uint64_t at = (uint64_t)(i * 7 + reader->number * 3) * 61000 % (end - part);

		reader->is_right &= reads_right(reader->fixture, at, part);
	}
	return NULL;
}

/* With one batch in all, and nothing that stays in the cache, every wait of one for another happens. */
static void readers_do_not_wait_in_a_circle(void)
{
	struct fixture fixture;
	struct reader readers[THREADS];

	open_fixture(&fixture, 0, 1);
	for (unsigned i = 0; i < THREADS; i++) {
		readers[i] = (struct reader){ .fixture = &fixture, .number = i };
		pthread_create(&readers[i].thread, NULL, read_all, &readers[i]);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(readers[i].thread, NULL);
		CHECK(readers[i].is_right);
	}
	close_fixture(&fixture);
}

/* Tiles of the base do not take space in the cache from those that are read, but those that were there stay, unless the heap
 * has them. */
static void tiles_of_the_base_are_not_kept(void)
{
	struct wcx_tile_cache_stats before, after;
	struct fixture fixture;
	uint64_t tuned, base;
	uint8_t byte;

	open_fixture(&fixture, 16 << 20, 0);
	tuned = fixture.family.tuned_original.bytes;
	base = fixture.family.base_original.bytes;
	CHECK(reads_right(&fixture, 0, tuned));
	wcx_tile_cache_get_stats(fixture.cache, &after);
	CHECK(after.bytes >= tuned && after.bytes < tuned + base / 4);
	close_fixture(&fixture);

	open_fixture(&fixture, 16 << 20, 0);
	for (uint64_t at = 0; at < base; at += 100)
		CHECK(wcx_image_read(fixture.base, &byte, 1, at, NULL) == 1);
	wcx_tile_cache_get_stats(fixture.cache, &before);
	CHECK(before.bytes >= base);
	CHECK(reads_right(&fixture, 0, tuned));
	wcx_tile_cache_get_stats(fixture.cache, &after);
	CHECK(after.bytes >= tuned + base / 4);
	close_fixture(&fixture);
}

static void without_its_base_only_what_needs_it_fails(void)
{
	struct fixture fixture;
	struct wcx_image *base;
	struct wcx_error err;

	open_fixture(&fixture, 0, 0);
	base = fixture.base;
	fixture.base = NULL;
	for (int i = 0; i < 3; i++) {
		CHECK(read_tensor(&fixture, "tuned", &err) == -EIO);
		CHECK(strstr(err.text, "store/tuned.wcx: tensor `tuned`, tile 0 (offset ") == err.text);
		CHECK(strstr(err.text, "): base ba5e01000000 (../base.wcx): nowhere") != NULL);
		CHECK(read_tensor(&fixture, "same", &err) == -EIO && strstr(err.text, "`same`"));
		CHECK(read_tensor(&fixture, "again", &err) == -EIO && strstr(err.text, "`again`"));
		CHECK(read_tensor(&fixture, "stored", &err) == 1);
		CHECK(read_tensor(&fixture, "alone", &err) == 1);
		CHECK(reads_right(&fixture, 0, 300)); /* the header */
	}
	CHECK(fixture.searches == 1);
	CHECK(wcx_image_find_bases(fixture.image, &err) == -EIO);
	CHECK_TEXT(err.text, "store/tuned.wcx: base ba5e01000000 (../base.wcx): nowhere");
	fixture.base = base;
	CHECK(read_tensor(&fixture, "tuned", &err) == -EIO); /* it is too soon to look again */
	passed_ms += SECOND_MS;
	CHECK(read_tensor(&fixture, "tuned", &err) == 1);
	CHECK(reads_right(&fixture, 0, fixture.family.tuned_original.bytes));
	CHECK(fixture.searches == 2 && wcx_image_find_bases(fixture.image, &err) == 0);
	close_fixture(&fixture);
}

static void without_a_finder_there_is_a_message_too(void)
{
	struct fixture fixture;
	struct wcx_error err;

	open_fixture(&fixture, 0, 0);
	wcx_image_use_finder(fixture.image, &(struct wcx_base_finder){ NULL, NULL });
	CHECK(read_tensor(&fixture, "tuned", &err) == -EIO &&
	      strstr(err.text, "base ba5e01000000 (../base.wcx): not looked for"));
	CHECK(read_tensor(&fixture, "alone", &err) == 1);
	close_fixture(&fixture);
}

/* Flips a bit in the packed tile of the base that holds a byte of its original. */
static void damage_base(const struct fixture *fixture, uint64_t at)
{
	const struct wcx_container *c = wcx_image_container(fixture->base);
	const struct wcx_segment *seg = wcx_container_segment(c, wcx_container_segment_at(c, at));
	struct wcx_tile_info info;
	uint8_t byte;

	wcx_container_tile(c, seg, wcx_segment_tile_at(seg, at), &info);
	sample_require(pread(fixture->base_fd, &byte, 1, (off_t)info.packed_offset + 20) == 1, "pread");
	byte ^= 1;
	sample_require(pwrite(fixture->base_fd, &byte, 1, (off_t)info.packed_offset + 20) == 1, "pwrite");
}

static void damage_in_the_base_fails_what_needs_those_tiles(void)
{
	const size_t rows = 300, row_bytes = 1400, damaged_row = 150;
	struct fixture fixture;
	struct wcx_error err;
	uint64_t at, base_at;
	uint8_t byte;

	open_fixture(&fixture, 0, 0);
	at = family_offset(fixture.family.tuned_original, family_tuned_parts, FAMILY_TUNED_PARTS, "tuned");
	base_at = family_offset(fixture.family.base_original, family_base_parts, FAMILY_BASE_PARTS, "tuned");
	damage_base(&fixture, base_at + damaged_row * row_bytes); /* its tile has rows 100 to 199 */
	for (size_t row = 0; row < rows; row++) {
		/* The dependent's tiles have 13 rows: those from 91 to 208 have rows of the damaged one. */
		const bool fails = row >= 91 && row < 208;
		const ssize_t n = wcx_image_read(fixture.image, &byte, 1, at + row * row_bytes, &err);

		if (!CHECK(n == (fails ? -EIO : 1)))
			break;
		if (fails) {
			CHECK(strstr(err.text, "store/tuned.wcx: tensor `tuned`, tile ") == err.text);
			CHECK(strstr(err.text, "base ba5e01000000 (../base.wcx): store/base.wcx: tensor `tuned`, tile 8 ("));
		} else {
			CHECK(reads_right(&fixture, at + row * row_bytes, 1));
		}
	}
	CHECK(read_tensor(&fixture, "exact", &err) == 1 && read_tensor(&fixture, "bytes", &err) == 1);
	close_fixture(&fixture);
}

static void a_damaged_base_that_was_replaced_is_found_again(void)
{
	struct fixture fixture;
	struct wcx_image *damaged;
	struct wcx_error err;
	uint64_t base_at;

	open_fixture(&fixture, 0, 0);
	base_at = family_offset(fixture.family.base_original, family_base_parts, FAMILY_BASE_PARTS, "tuned");
	damage_base(&fixture, base_at);
	CHECK(read_tensor(&fixture, "tuned", &err) == -EIO);
	damaged = fixture.base;
	fixture.base =
		open_image(&fixture, sample_open(fixture.family.base.data, fixture.family.base.bytes), "store/good.wcx");
	CHECK(read_tensor(&fixture, "tuned", &err) == -EIO);
	CHECK(read_tensor(&fixture, "exact", &err) == 1); /* what was found stays */
	passed_ms += SECOND_MS;
	CHECK(read_tensor(&fixture, "tuned", &err) == 1);
	CHECK(reads_right(&fixture, 0, fixture.family.tuned_original.bytes));
	wcx_image_put(damaged);
	close_fixture(&fixture);
}

static void what_is_no_base_is_not_used(void)
{
	struct fixture fixture;
	struct wcx_error err;
	struct wcx_image *base;
	const uint8_t other[WCX_SHA256_BYTES] = { 1 };

	open_fixture(&fixture, 0, 0);
	base = fixture.base;
	sample_set_sha256(fixture.family.base, other);
	fixture.base = open_image(&fixture, sample_open(fixture.family.base.data, fixture.family.base.bytes), "other.wcx");
	CHECK(read_tensor(&fixture, "tuned", &err) == -EIO && strstr(err.text, "another file was found"));
	wcx_image_put(fixture.base);
	/* One with bases of its own could need this one. */
	sample_set_sha256(fixture.family.tuned, fixture.family.entry.sha256);
	fixture.base =
		open_image(&fixture, sample_open(fixture.family.tuned.data, fixture.family.tuned.bytes), "store/tuned.wcx");
	passed_ms += SECOND_MS;
	CHECK(read_tensor(&fixture, "tuned", &err) == -EIO && strstr(err.text, "another file was found"));
	wcx_image_put(fixture.base);
	fixture.base = base;
	close_fixture(&fixture);
}

/* --- with a GPU --- */

static void open_with_gpu(struct fixture *fixture)
{
	fake_gpu.fails = fake_gpu.has_no_kernel = fake_gpu.refuses = false;
	fake_gpu.pairs = fake_gpu.base_tiles = 0;
	decoder_kind = WCX_DECODER_CUDA;
	open_fixture(fixture, 0, 0);
	decoder_kind = WCX_DECODER_CPU;
}

static void a_gpu_decodes_pairs_and_tiles_that_are_the_bases(void)
{
	struct fixture fixture;

	open_with_gpu(&fixture);
	CHECK(reads_right(&fixture, 0, fixture.family.tuned_original.bytes));
	/* halves has 8 tiles, as its base; quarters 20, four for each of the base's; kept 8, which are the base's. */
	CHECK(fake_gpu.pairs == 8 + 20 && fake_gpu.base_tiles == 8 + 20 + 8);
	close_fixture(&fixture);
}

static void what_a_gpu_cannot_decode_is_decoded_without_it(void)
{
	struct fixture fixture;

	open_with_gpu(&fixture);
	fake_gpu.has_no_kernel = true;
	CHECK(reads_right(&fixture, 0, fixture.family.tuned_original.bytes) && fake_gpu.base_tiles == 0);
	fake_gpu.has_no_kernel = false;
	fake_gpu.refuses = true;
	CHECK(reads_right(&fixture, 0, fixture.family.tuned_original.bytes));
	CHECK(fake_gpu.pairs == 0 && fake_gpu.base_tiles > 0);
	close_fixture(&fixture);
	open_with_gpu(&fixture);
	fake_gpu.fails = true;
	CHECK(reads_right(&fixture, 0, fixture.family.tuned_original.bytes) && fake_gpu.base_tiles == 0);
	close_fixture(&fixture);
}

/* Of each tensor whose tiles the GPU decodes with those of the base, one byte of a base tile is damaged. */
static void damage_in_the_base_of_a_pair_fails_that(void)
{
	static const char *const names[] = { "halves", "kept" };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(names); i++) {
		const size_t tile_bytes = i ? 2048 : 8192;
		struct fixture fixture;
		struct wcx_error err;
		uint64_t at, base_at;
		uint8_t byte;

		open_with_gpu(&fixture);
		at = family_offset(fixture.family.tuned_original, family_tuned_parts, FAMILY_TUNED_PARTS, names[i]);
		base_at = family_offset(fixture.family.base_original, family_base_parts, FAMILY_BASE_PARTS, names[i]);
		damage_base(&fixture, base_at + 3 * tile_bytes);
		CHECK(wcx_image_read(fixture.image, &byte, 1, at + 3 * tile_bytes, &err) == -EIO);
		CHECK(strstr(err.text, names[i]) && strstr(err.text, "tile 3 ") && strstr(err.text, "store/base.wcx: "));
		CHECK(reads_right(&fixture, 0, at + 3 * tile_bytes));
		CHECK(reads_right(&fixture, at + 4 * tile_bytes, fixture.family.tuned_original.bytes - at - 4 * tile_bytes));
		close_fixture(&fixture);
	}
}

static const struct check_test of_bases[] = {
	CHECK_TEST(tiles_of_all_modes_are_there),
	CHECK_TEST(every_range_reads_as_the_original),
	CHECK_TEST(views_show_the_original),
	CHECK_TEST(readers_do_not_wait_in_a_circle),
	CHECK_TEST(tiles_of_the_base_are_not_kept),
	CHECK_TEST(without_its_base_only_what_needs_it_fails),
	CHECK_TEST(without_a_finder_there_is_a_message_too),
	CHECK_TEST(damage_in_the_base_fails_what_needs_those_tiles),
	CHECK_TEST(a_damaged_base_that_was_replaced_is_found_again),
	CHECK_TEST(what_is_no_base_is_not_used),
};

static void all_is_so_with_a_gpu_too(void)
{
	fake_gpu.fails = fake_gpu.has_no_kernel = fake_gpu.refuses = false;
	decoder_kind = WCX_DECODER_CUDA;
	for (size_t i = 0; i < WCX_ARRAY_COUNT(of_bases); i++)
		of_bases[i].run();
	decoder_kind = WCX_DECODER_CPU;
}

int main(int argc, char **argv)
{
	static const struct check_test with_gpu[] = {
		CHECK_TEST(all_is_so_with_a_gpu_too),
		CHECK_TEST(a_gpu_decodes_pairs_and_tiles_that_are_the_bases),
		CHECK_TEST(what_a_gpu_cannot_decode_is_decoded_without_it),
		CHECK_TEST(damage_in_the_base_of_a_pair_fails_that),
	};
	struct check_test tests[WCX_ARRAY_COUNT(of_bases) + WCX_ARRAY_COUNT(with_gpu)];

	memcpy(tests, of_bases, sizeof of_bases);
	memcpy(tests + WCX_ARRAY_COUNT(of_bases), with_gpu, sizeof with_gpu);
	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
