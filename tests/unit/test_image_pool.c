/* SPDX-License-Identifier: MIT */
/* The indexes of all open images together stay within their budget, whoever opens files at once; idle images make space. */
#include "fs/mount/image_pool.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "fs/mount/file_counts.h"
#include "tests/fixtures/sample_image.h"
#include "tests/unit/check.h"

enum { FILES = 24, FITTING = 4, BASES = 20 }; /* more bases than there may be idle images that are none */

/* Files of one content, which the pool tells apart by their ids, and a budget for the indexes of a few. */
struct fixture {
	struct sample_bytes original, packed;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_file_counts *counts;
	struct wcx_closer *closer;
	struct wcx_image_pool *pool;
	struct wcx_pooled_image *images[FILES];
	struct wcx_error errors[FILES];
	int results[FILES];
	struct wcx_superblock superblock;
};

static int open_file(struct fixture *fixture, size_t i)
{
	const struct wcx_file_id id = { .dev = 1, .ino = 100 + i };

	fixture->images[i] = NULL;
	fixture->results[i] =
		wcx_image_pool_open(fixture->pool, sample_open(fixture->packed.data, fixture->packed.bytes), "sample", &id,
				    &fixture->superblock, &fixture->images[i], &fixture->errors[i]);
	return fixture->results[i];
}

static void release_file(struct fixture *fixture, size_t i)
{
	wcx_image_pool_release(fixture->pool, fixture->images[i]);
	fixture->images[i] = NULL;
}

static void open_fixture_for(struct fixture *fixture, uint64_t fitting)
{
	const size_t parts = WCX_ARRAY_COUNT(sample_small_parts);
	struct wcx_error err = { "" };

	memset(fixture, 0, sizeof *fixture);
	fixture->original = sample_original(sample_small_parts, parts);
	fixture->packed = sample_image(fixture->original, sample_small_parts, parts);
	fixture->cache = wcx_tile_cache_create(1 << 20);
	sample_require(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &fixture->decoder, &err) == 0, err.text);
	sample_require(
		wcx_superblock_parse("sample", fixture->packed.data, fixture->packed.bytes, &fixture->superblock, &err) == 0,
		err.text);
	fixture->counts = wcx_file_counts_create();
	fixture->closer = wcx_closer_create();
	fixture->pool = wcx_image_pool_create(fixture->cache, fixture->decoder, fixture->counts, fixture->closer,
					      wcx_container_memory_bytes(&fixture->superblock) * (2 * fitting + 1) / 2);
}

static void close_fixture(struct fixture *fixture)
{
	wcx_closer_free(fixture->closer);
	wcx_image_pool_free(fixture->pool);
	wcx_file_counts_free(fixture->counts);
	wcx_decoder_free(fixture->decoder);
	wcx_tile_cache_free(fixture->cache);
	free(fixture->original.data);
	free(fixture->packed.data);
}

static void what_is_in_use_is_refused_beyond_the_budget(void)
{
	struct fixture fixture;

	open_fixture_for(&fixture, FITTING);
	for (size_t i = 0; i < FILES; i++) {
		CHECK(open_file(&fixture, i) == (i < FITTING ? 0 : -ENFILE));
		CHECK(i < FITTING || strstr(fixture.errors[i].text, "sample: the indexes of open files would take more"));
	}
	CHECK(open_file(&fixture, FITTING - 1) == 0); /* it is open already, so it takes no more */
	release_file(&fixture, FITTING - 1);
	close_fixture(&fixture);
}

static void idle_images_make_space(void)
{
	struct fixture fixture;

	open_fixture_for(&fixture, FITTING);
	for (size_t i = 0; i < FITTING; i++)
		CHECK(open_file(&fixture, i) == 0);
	release_file(&fixture, 1);
	for (size_t i = FITTING; i < FILES; i++) {
		CHECK(open_file(&fixture, i) == 0);
		CHECK(open_file(&fixture, 1) == -ENFILE); /* those in use take all there is */
		release_file(&fixture, i);
	}
	close_fixture(&fixture);
}

/* A base is held by the images that need it; it is idle while nobody reads it for itself. */
static void bases_are_counted_as_long_as_they_are_held(void)
{
	struct wcx_image *held[BASES];
	struct fixture fixture;

	open_fixture_for(&fixture, BASES);
	for (size_t i = 0; i < BASES; i++) {
		CHECK(open_file(&fixture, i) == 0);
		held[i] = wcx_image_get(fixture.images[i]->image);
		release_file(&fixture, i);
	}
	CHECK(open_file(&fixture, BASES) == -ENFILE);
	wcx_image_pool_release_unused(fixture.pool);
	CHECK(open_file(&fixture, BASES) == -ENFILE);
	for (size_t i = 0; i < BASES; i++)
		wcx_image_put(held[i]);
	for (size_t i = BASES; i < FILES; i++)
		CHECK(open_file(&fixture, i) == 0);
	close_fixture(&fixture);
}

struct opener {
	struct fixture *fixture;
	size_t file;
};

static void *run_opener(void *arg)
{
	const struct opener *opener = arg;

	open_file(opener->fixture, opener->file);
	return NULL;
}

static void files_opened_at_once_stay_within_the_budget(void)
{
	for (int round = 0; round < 20; round++) {
		struct opener openers[FILES];
		pthread_t threads[FILES];
		struct fixture fixture;
		size_t opened = 0;

		open_fixture_for(&fixture, FITTING);
		for (size_t i = 0; i < FILES; i++) {
			openers[i] = (struct opener){ &fixture, i };
			sample_require(pthread_create(&threads[i], NULL, run_opener, &openers[i]) == 0, "pthread_create");
		}
		for (size_t i = 0; i < FILES; i++) {
			pthread_join(threads[i], NULL);
			CHECK(fixture.results[i] == 0 || fixture.results[i] == -ENFILE);
			opened += fixture.results[i] == 0;
		}
		CHECK(opened == FITTING);
		close_fixture(&fixture);
	}
}

static void *open_first(void *arg)
{
	struct opener *opener = arg;
	const struct wcx_file_id id = { .dev = 1, .ino = 100 };
	struct fixture *fixture = opener->fixture;
	const size_t i = opener->file;

	fixture->results[i] =
		wcx_image_pool_open(fixture->pool, sample_open(fixture->packed.data, fixture->packed.bytes), "sample", &id,
				    &fixture->superblock, &fixture->images[i], &fixture->errors[i]);
	return NULL;
}

static void a_file_that_many_open_at_once_takes_the_space_of_one(void)
{
	for (int round = 0; round < 20; round++) {
		struct opener openers[FILES];
		pthread_t threads[FILES];
		struct fixture fixture;

		open_fixture_for(&fixture, 1);
		for (size_t i = 0; i < FILES; i++) {
			openers[i] = (struct opener){ &fixture, i };
			sample_require(pthread_create(&threads[i], NULL, open_first, &openers[i]) == 0, "pthread_create");
		}
		for (size_t i = 0; i < FILES; i++) {
			pthread_join(threads[i], NULL);
			CHECK(fixture.results[i] == 0 && fixture.images[i] == fixture.images[0]);
		}
		close_fixture(&fixture);
	}
}

/* A file of zeros beyond its superblock costs nothing on disk. */
static void space_is_taken_before_an_index_is_read_and_given_back(void)
{
	struct fixture fixture;

	open_fixture_for(&fixture, 1);
	CHECK(open_file(&fixture, 0) == 0);
	fixture.packed.data[fixture.packed.bytes - 1] ^= 1;
	CHECK(open_file(&fixture, 1) == -ENFILE);
	release_file(&fixture, 0);
	for (size_t i = 1; i < FILES; i++)
		CHECK(open_file(&fixture, i) == -EBADMSG);
	fixture.packed.data[fixture.packed.bytes - 1] ^= 1;
	CHECK(open_file(&fixture, 1) == 0);
	close_fixture(&fixture);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(what_is_in_use_is_refused_beyond_the_budget),
		CHECK_TEST(idle_images_make_space),
		CHECK_TEST(bases_are_counted_as_long_as_they_are_held),
		CHECK_TEST(files_opened_at_once_stay_within_the_budget),
		CHECK_TEST(a_file_that_many_open_at_once_takes_the_space_of_one),
		CHECK_TEST(space_is_taken_before_an_index_is_read_and_given_back),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
