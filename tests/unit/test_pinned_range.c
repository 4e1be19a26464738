/* SPDX-License-Identifier: MIT */
/* Memory pinned chunk by chunk, with a fake GPU driver: what is pinned and when, the budget, and refusals. */
#include "fs/read/pinned_range.h"

#include <pthread.h>
#include <stdatomic.h>

#include "fs/read/tile_arena.h"
#include "fs/read/tile_cache.h"
#include "tests/unit/check.h"

enum { CHUNK = WCX_PINNED_CHUNK_BYTES, TILE = 32 << 10, CHUNKS = 4, THREADS = 8 };

/* Addresses that nobody touches. */
static uint8_t *const memory = (uint8_t *)(UINT64_C(1) << 40);

struct driver {
	struct wcx_pinned_range *range;
	atomic_uint pins, unpins, refusals;
	_Atomic uint64_t bytes; /* pinned and not unpinned */
	unsigned pins_max;      /* it refuses more */
	bool was_waiting;       /* another who wanted the chunk that is being pinned was not told that it is not */
};

/* A time at which the next chunk may be pinned. */
static uint64_t later(void)
{
	static _Atomic uint64_t now_ns;

	return atomic_fetch_add(&now_ns, WCX_PINNED_EVERY_NS) + WCX_PINNED_EVERY_NS;
}

static bool pin(void *user, void *start, size_t bytes)
{
	struct driver *driver = user;

	driver->was_waiting |= wcx_pinned_range_pin(driver->range, start, 1, later()); /* the same chunk, and another */
	if (driver->pins == 0)
		driver->was_waiting |= wcx_pinned_range_pin(driver->range, memory + 3 * (size_t)CHUNK, 1, later());
	if (driver->pins >= driver->pins_max) {
		driver->refusals++;
		return false;
	}
	driver->pins++;
	driver->bytes += bytes;
	return true;
}

static void unpin(void *user, void *start, size_t bytes)
{
	struct driver *driver = user;

	CHECK(((uint8_t *)start - memory) % CHUNK == 0);
	driver->unpins++;
	driver->bytes -= bytes;
}

static const struct wcx_pin_calls calls = { pin, unpin };

static struct wcx_pinned_range *make_range(struct driver *driver, size_t bytes, uint64_t budget_bytes, unsigned pins_max)
{
	*driver = (struct driver){ .pins_max = pins_max };
	driver->range = wcx_pinned_range_create(memory, bytes, budget_bytes, &calls, driver);
	CHECK(driver->range && wcx_pinned_range_bytes(driver->range) == 0);
	return driver->range;
}

static void a_chunk_is_pinned_when_bytes_of_it_are_first_wanted(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, (size_t)CHUNKS * CHUNK, UINT64_MAX, CHUNKS);

	CHECK(driver.pins == 0);
	CHECK(wcx_pinned_range_pin(range, memory + CHUNK, TILE, later()) && driver.pins == 1 && driver.bytes == CHUNK);
	CHECK(wcx_pinned_range_pin(range, memory + 2 * (size_t)CHUNK - TILE, TILE, later()) && driver.pins == 1);
	CHECK(wcx_pinned_range_pin(range, memory + CHUNK - 1, 1, later()) && driver.pins == 2);
	CHECK(wcx_pinned_range_bytes(range) == 2 * (size_t)CHUNK && !driver.was_waiting);
	wcx_pinned_range_free(range);
	CHECK(driver.unpins == 2);
	wcx_pinned_range_free(NULL);
	CHECK(wcx_pinned_range_bytes(NULL) == 0);
}

static void what_is_outside_or_in_two_chunks_is_not_pinned(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, 2 * (size_t)CHUNK + TILE, UINT64_MAX, CHUNKS);

	CHECK(!wcx_pinned_range_pin(range, memory - 1, 1, later()) && !wcx_pinned_range_pin(range, memory - 1, 2, later()));
	CHECK(!wcx_pinned_range_pin(range, memory + CHUNK - 1, 2, later()));
	CHECK(!wcx_pinned_range_pin(range, memory, 0, later()));
	CHECK(!wcx_pinned_range_pin(range, memory + 2 * (size_t)CHUNK, TILE + 1, later()));
	CHECK(!wcx_pinned_range_pin(range, memory + 2 * (size_t)CHUNK + TILE, 1, later()));
	CHECK(!wcx_pinned_range_pin(range, memory + CHUNK, SIZE_MAX, later()) && driver.pins == 0);
	CHECK(wcx_pinned_range_pin(range, memory + 2 * (size_t)CHUNK, TILE, later()) && driver.bytes == TILE);
	wcx_pinned_range_free(range);
	CHECK(driver.unpins == 1 && driver.bytes == 0);
}

static void no_more_is_pinned_than_the_budget(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, (size_t)CHUNKS * CHUNK, 2 * (size_t)CHUNK + TILE, CHUNKS);

	for (size_t i = 0; i < CHUNKS; i++)
		CHECK(wcx_pinned_range_pin(range, memory + i * CHUNK, TILE, later()) == (i < 2));
	CHECK(driver.pins == 2 && driver.refusals == 0 && wcx_pinned_range_bytes(range) == 2 * (size_t)CHUNK);
	CHECK(wcx_pinned_range_pin(range, memory + TILE, TILE, later()));
	wcx_pinned_range_free(range);
}

static void after_a_refusal_nothing_more_is_tried(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, (size_t)CHUNKS * CHUNK, UINT64_MAX, 1);

	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < CHUNKS; i++)
			CHECK(wcx_pinned_range_pin(range, memory + i * CHUNK, TILE, later()) == (i == 0));
	CHECK(driver.refusals == 1 && wcx_pinned_range_bytes(range) == CHUNK);
	wcx_pinned_range_free(range);
	CHECK(driver.pins == 1 && driver.unpins == 1);
}

static void chunks_are_pinned_at_intervals(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, (size_t)CHUNKS * CHUNK, UINT64_MAX, CHUNKS);
	const uint64_t now_ns = later();

	CHECK(wcx_pinned_range_pin(range, memory, TILE, now_ns));
	CHECK(!wcx_pinned_range_pin(range, memory + CHUNK, TILE, now_ns + WCX_PINNED_EVERY_NS - 1) && driver.pins == 1);
	CHECK(wcx_pinned_range_pin(range, memory, TILE, now_ns));
	CHECK(wcx_pinned_range_pin(range, memory + CHUNK, TILE, now_ns + WCX_PINNED_EVERY_NS) && driver.pins == 2);
	wcx_pinned_range_free(range);
}

/* The driver wants a byte of the last chunk while the first is pinned, so all before the last are whole. */
static void what_was_wanted_too_soon_is_pinned_afterwards(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, (size_t)CHUNKS * CHUNK, UINT64_MAX, CHUNKS);
	const uint64_t now_ns = later();

	CHECK(!wcx_pinned_range_pin_ahead(range) && driver.pins == 0);
	CHECK(wcx_pinned_range_pin(range, memory + CHUNK, TILE, now_ns) &&
	      !wcx_pinned_range_pin(range, memory, TILE, now_ns));
	CHECK(wcx_pinned_range_pin_ahead(range) && driver.pins == 2);
	CHECK(wcx_pinned_range_pin(range, memory, TILE, now_ns));
	CHECK(wcx_pinned_range_pin_ahead(range) && driver.pins == 3);
	CHECK(!wcx_pinned_range_pin_ahead(range) && driver.pins == 3 && !driver.was_waiting);
	wcx_pinned_range_free(range);
	range = make_range(&driver, (size_t)CHUNKS * CHUNK, UINT64_MAX, 1);
	CHECK(wcx_pinned_range_pin(range, memory, TILE, later()));
	for (int i = 0; i < 2; i++)
		CHECK(!wcx_pinned_range_pin_ahead(range) && driver.refusals == 1);
	wcx_pinned_range_free(range);
}

static void the_start_is_pinned_at_once_within_the_budget(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, (size_t)CHUNKS * CHUNK, 3 * (size_t)CHUNK, CHUNKS);

	wcx_pinned_range_start(range, CHUNK + 1);
	CHECK(driver.pins == 2 && wcx_pinned_range_bytes(range) == 2 * (size_t)CHUNK);
	CHECK(wcx_pinned_range_pin(range, memory + CHUNK, TILE, 0) && driver.pins == 2);
	wcx_pinned_range_free(range);
	range = make_range(&driver, (size_t)CHUNKS * CHUNK, 3 * (size_t)CHUNK, CHUNKS);
	wcx_pinned_range_start(range, SIZE_MAX);
	CHECK(driver.pins == 3);
	wcx_pinned_range_free(range);
	range = make_range(&driver, (size_t)CHUNKS * CHUNK, UINT64_MAX, 1);
	wcx_pinned_range_start(range, SIZE_MAX);
	CHECK(driver.pins == 1 && driver.refusals == 1);
	wcx_pinned_range_free(range);
}

static void as_much_as_at_the_start_is_pinned_behind_what_is_used(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, 3 * (size_t)CHUNK, UINT64_MAX, CHUNKS);

	wcx_pinned_range_start(range, CHUNK);
	wcx_pinned_range_start(range, CHUNK);
	CHECK(driver.pins == 1 && !wcx_pinned_range_pin_ahead(range));
	CHECK(wcx_pinned_range_pin(range, memory + CHUNK, TILE, later()) && driver.pins == 2);
	CHECK(!wcx_pinned_range_pin_ahead(range));                    /* no whole chunk behind the tile */
	CHECK(wcx_pinned_range_pin(range, memory + CHUNK, CHUNK, 0)); /* pinned, and used */
	CHECK(wcx_pinned_range_pin_ahead(range) && driver.pins == 3);
	CHECK(!wcx_pinned_range_pin_ahead(range) && driver.pins == 3);
	wcx_pinned_range_free(range);
}

static void *pin_all(void *user)
{
	struct driver *driver = user;

	for (size_t at = 0; at < (size_t)CHUNKS * CHUNK; at += TILE)
		wcx_pinned_range_pin(driver->range, memory + at, TILE, later());
	return NULL;
}

static void many_threads_pin_each_chunk_once(void)
{
	struct driver driver;
	struct wcx_pinned_range *range = make_range(&driver, (size_t)CHUNKS * CHUNK, UINT64_MAX, UINT32_MAX);
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, pin_all, &driver) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK(driver.pins <= CHUNKS && !driver.was_waiting);
	pin_all(&driver); /* those that were refused since another was being pinned */
	CHECK(driver.pins == CHUNKS && driver.bytes == (uint64_t)CHUNKS * CHUNK);
	wcx_pinned_range_free(range);
	CHECK(driver.unpins == CHUNKS);
}

/* The range that a mount gives to its decoder. */
static void tiles_in_the_cache_are_in_its_memory(void)
{
	struct wcx_tile_arena *empty = wcx_tile_arena_create(UINT64_MAX); /* more than there are addresses */
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	void *start = NULL, *nothing;
	const size_t bytes = wcx_tile_cache_memory(cache, &start);
	struct wcx_cache_item tile = { .bytes = TILE };

	CHECK(bytes >= 1 << 20 && (uintptr_t)start % (2 << 20) == 0);
	CHECK(wcx_tile_cache_acquire(cache, 0, &tile, 1) == 0 && tile.outcome == WCX_CACHE_FILL);
	CHECK(tile.data >= (uint8_t *)start && tile.data + TILE <= (uint8_t *)start + bytes);
	wcx_tile_cache_publish(cache, &tile, 1);
	wcx_tile_cache_release(cache, &tile, 1, false);
	CHECK(wcx_tile_arena_memory(empty, &nothing) == 0);
	wcx_tile_arena_free(empty);
	wcx_tile_cache_free(cache);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_chunk_is_pinned_when_bytes_of_it_are_first_wanted),
		CHECK_TEST(what_is_outside_or_in_two_chunks_is_not_pinned),
		CHECK_TEST(no_more_is_pinned_than_the_budget),
		CHECK_TEST(after_a_refusal_nothing_more_is_tried),
		CHECK_TEST(chunks_are_pinned_at_intervals),
		CHECK_TEST(what_was_wanted_too_soon_is_pinned_afterwards),
		CHECK_TEST(the_start_is_pinned_at_once_within_the_budget),
		CHECK_TEST(as_much_as_at_the_start_is_pinned_behind_what_is_used),
		CHECK_TEST(many_threads_pin_each_chunk_once),
		CHECK_TEST(tiles_in_the_cache_are_in_its_memory),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
