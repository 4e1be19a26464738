/* SPDX-License-Identifier: MIT */
/*
 * The tile cache: what is kept and for how long, that a tile is filled once, and what happens when that fails.
 *
 * The linker has to be told to --wrap each function that is WRAPPED below.
 */
#include "fs/tile_cache.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/sample_data.h"

enum {
	TILE_BYTES = 1000,
	THREADS = 16,
	STRESS_TILES = 40,
	STRESS_ROUNDS = 20000,
};

/* Declarations and the definition behind them, because nothing else declares what the linker makes. */
#define WRAPPED(type, name, ...)                                                                                            \
	type __real_##name(__VA_ARGS__);                                                                                    \
	type __wrap_##name(__VA_ARGS__);                                                                                    \
	type __wrap_##name(__VA_ARGS__)

static atomic_long alive, alive_bytes; /* allocated and not freed */

static void *counted(void *memory)
{
	if (memory) {
		atomic_fetch_add_explicit(&alive, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&alive_bytes, (long)malloc_usable_size(memory), memory_order_relaxed);
	}
	return memory;
}

WRAPPED(void *, calloc, size_t count, size_t bytes)
{
	return counted(__real_calloc(count, bytes));
}

WRAPPED(void *, aligned_alloc, size_t align, size_t bytes)
{
	return counted(__real_aligned_alloc(align, bytes));
}

WRAPPED(void, free, void *memory)
{
	if (memory) {
		atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&alive_bytes, (long)malloc_usable_size(memory), memory_order_relaxed);
	}
	__real_free(memory);
}

/* What one tile of TILE_BYTES takes of a budget. */
static uint64_t tile_weight(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_tile_cache_stats stats;
	struct wcx_cached_tile *tile;

	CHECK(wcx_tile_cache_acquire(cache, 0, 0, TILE_BYTES, &tile) == WCX_CACHE_FILL);
	wcx_tile_cache_get_stats(cache, &stats);
	wcx_tile_cache_publish(cache, tile, 0);
	wcx_tile_cache_release(cache, tile, 0);
	wcx_tile_cache_free(cache);
	return stats.bytes;
}

/* Takes a tile in hand, filling it with its own number if it is not there; returns what acquire did. */
static enum wcx_cache_outcome take(struct wcx_tile_cache *cache, uint64_t owner, uint64_t index,
				   struct wcx_cached_tile **ret)
{
	enum wcx_cache_outcome outcome = wcx_tile_cache_acquire(cache, owner, index, TILE_BYTES, ret);

	if (outcome == WCX_CACHE_FILL) {
		memset(wcx_cached_tile_data(*ret), (int)index, TILE_BYTES);
		wcx_tile_cache_publish(cache, *ret, 0);
	}
	CHECK(wcx_tile_cache_wait(cache, *ret) == 0);
	return outcome;
}

static int holds_its_bytes(struct wcx_cached_tile *tile, uint64_t index)
{
	const uint8_t *data = wcx_cached_tile_data(tile);
	size_t wrong = 0;

	for (size_t i = 0; i < TILE_BYTES; i++)
		wrong += data[i] != (uint8_t)index;
	return wrong == 0;
}

static enum wcx_cache_outcome touch(struct wcx_tile_cache *cache, uint64_t index)
{
	struct wcx_cached_tile *tile;
	enum wcx_cache_outcome outcome = take(cache, 1, index, &tile);

	CHECK(holds_its_bytes(tile, index));
	wcx_tile_cache_release(cache, tile, 0);
	return outcome;
}

static void least_recently_used_tile_goes_first(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(3 * tile_weight());
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 3; i++)
		CHECK(touch(cache, i) == WCX_CACHE_FILL);
	CHECK(touch(cache, 0) == WCX_CACHE_READY);
	CHECK(touch(cache, 3) == WCX_CACHE_FILL); /* drops 1 */
	CHECK(touch(cache, 2) == WCX_CACHE_READY);
	CHECK(touch(cache, 0) == WCX_CACHE_READY);
	CHECK(touch(cache, 3) == WCX_CACHE_READY);
	CHECK(touch(cache, 1) == WCX_CACHE_FILL); /* drops 2 */
	CHECK(touch(cache, 2) == WCX_CACHE_FILL); /* drops 0 */
	CHECK(touch(cache, 3) == WCX_CACHE_READY);
	CHECK(touch(cache, 1) == WCX_CACHE_READY);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.hits == 6 && stats.misses == 6 && stats.waits == 0 && stats.evictions == 3);
	wcx_tile_cache_free(cache);
}

static void unused_tiles_stay_within_the_budget(void)
{
	uint64_t budget = 5 * tile_weight() + tile_weight() / 2;
	struct wcx_tile_cache *cache = wcx_tile_cache_create(budget);
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 100; i++) {
		touch(cache, i);
		wcx_tile_cache_get_stats(cache, &stats);
		CHECK(stats.bytes <= budget);
	}
	CHECK(stats.bytes == 5 * tile_weight());
	CHECK(stats.peak_bytes == 6 * tile_weight()); /* the sixth came before one of the five went */
	CHECK(stats.evictions == 95);
	wcx_tile_cache_free(cache);
}

static void tiles_in_hand_outlast_the_budget_and_keep_their_bytes(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(2 * tile_weight());
	struct wcx_cached_tile *tiles[8];
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 8; i++)
		CHECK(take(cache, 1, i, &tiles[i]) == WCX_CACHE_FILL);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 8 * tile_weight());
	for (uint64_t i = 100; i < 120; i++) /* pressure */
		touch(cache, i);
	for (uint64_t i = 0; i < 8; i++) {
		CHECK(holds_its_bytes(tiles[i], i));
		wcx_tile_cache_release(cache, tiles[i], 0);
	}
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 2 * tile_weight());
	CHECK(touch(cache, 7) == WCX_CACHE_READY && touch(cache, 6) == WCX_CACHE_READY);
	wcx_tile_cache_free(cache);
}

static void budget_of_nothing_keeps_nothing(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(0);
	struct wcx_cached_tile *first, *second;
	struct wcx_tile_cache_stats stats;

	CHECK(take(cache, 1, 5, &first) == WCX_CACHE_FILL);
	CHECK(take(cache, 1, 5, &second) == WCX_CACHE_READY);
	CHECK(first == second);
	wcx_tile_cache_release(cache, first, 0);
	CHECK(holds_its_bytes(second, 5));
	wcx_tile_cache_release(cache, second, 0);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 0);
	CHECK(touch(cache, 5) == WCX_CACHE_FILL);
	wcx_tile_cache_free(cache);
}

static void owners_do_not_see_each_others_tiles(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	uint64_t a = wcx_tile_cache_owner(cache), b = wcx_tile_cache_owner(cache);
	struct wcx_cached_tile *of_a, *of_b;

	CHECK(a != b);
	CHECK(take(cache, a, 7, &of_a) == WCX_CACHE_FILL);
	CHECK(take(cache, b, 7, &of_b) == WCX_CACHE_FILL);
	CHECK(of_a != of_b);
	wcx_tile_cache_release(cache, of_a, 0);
	wcx_tile_cache_release(cache, of_b, 0);
	wcx_tile_cache_free(cache);
}

/* Sixteen threads ask for one tile at the same time; whoever is to fill it waits until all others wait for it. */
struct crowd {
	struct wcx_tile_cache *cache;
	pthread_barrier_t start;
	int errnum; /* what the filler publishes */
	atomic_uint fills, pending, right;
};

static void *join_crowd(void *arg)
{
	struct crowd *crowd = arg;
	struct wcx_cached_tile *tile;
	struct wcx_tile_cache_stats stats;

	pthread_barrier_wait(&crowd->start);
	switch (wcx_tile_cache_acquire(crowd->cache, 1, 3, TILE_BYTES, &tile)) {
	case WCX_CACHE_FILL:
		atomic_fetch_add(&crowd->fills, 1);
		memset(wcx_cached_tile_data(tile), 3, TILE_BYTES);
		do {
			sched_yield();
			wcx_tile_cache_get_stats(crowd->cache, &stats);
		} while (stats.waits < THREADS - 1);
		wcx_tile_cache_publish(crowd->cache, tile, crowd->errnum);
		break;
	case WCX_CACHE_PENDING:
		atomic_fetch_add(&crowd->pending, 1);
		break;
	case WCX_CACHE_READY:
	case WCX_CACHE_NO_MEMORY:
		CHECK(0);
		return NULL;
	}
	if (wcx_tile_cache_wait(crowd->cache, tile) == crowd->errnum && (crowd->errnum || holds_its_bytes(tile, 3)))
		atomic_fetch_add(&crowd->right, 1);
	wcx_tile_cache_release(crowd->cache, tile, 0);
	return NULL;
}

static void run_crowd(struct crowd *crowd, int errnum)
{
	pthread_t threads[THREADS];

	*crowd = (struct crowd){ .cache = wcx_tile_cache_create(1 << 20), .errnum = errnum };
	pthread_barrier_init(&crowd->start, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, join_crowd, crowd) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd->start);
}

static void tile_is_filled_once_for_sixteen_who_ask_at_once(void)
{
	struct wcx_tile_cache_stats stats;
	struct crowd crowd;

	run_crowd(&crowd, 0);
	CHECK(crowd.fills == 1 && crowd.pending == THREADS - 1 && crowd.right == THREADS);
	wcx_tile_cache_get_stats(crowd.cache, &stats);
	CHECK(stats.misses == 1 && stats.waits == THREADS - 1 && stats.hits == 0);
	CHECK(touch(crowd.cache, 3) == WCX_CACHE_READY);
	wcx_tile_cache_free(crowd.cache);
}

static void failed_fill_reaches_all_who_wait_and_is_tried_again(void)
{
	struct wcx_tile_cache_stats stats;
	struct crowd crowd;

	run_crowd(&crowd, -EBADMSG);
	CHECK(crowd.fills == 1 && crowd.right == THREADS);
	wcx_tile_cache_get_stats(crowd.cache, &stats);
	CHECK(stats.bytes == 0);
	CHECK(touch(crowd.cache, 3) == WCX_CACHE_FILL);
	CHECK(touch(crowd.cache, 3) == WCX_CACHE_READY);
	wcx_tile_cache_free(crowd.cache);
}

static void failed_tile_in_hand_does_not_stand_in_the_way_of_the_next_fill(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cached_tile *failed, *good;

	CHECK(wcx_tile_cache_acquire(cache, 1, 9, TILE_BYTES, &failed) == WCX_CACHE_FILL);
	wcx_tile_cache_publish(cache, failed, -EIO);
	CHECK(take(cache, 1, 9, &good) == WCX_CACHE_FILL);
	CHECK(wcx_tile_cache_wait(cache, failed) == -EIO);
	CHECK(holds_its_bytes(good, 9));
	wcx_tile_cache_release(cache, good, 0);
	wcx_tile_cache_release(cache, failed, 0);
	CHECK(touch(cache, 9) == WCX_CACHE_READY);
	wcx_tile_cache_free(cache);
}

/* --- tiles that nobody will want soon --- */

/* As touch, but passed. */
static enum wcx_cache_outcome pass(struct wcx_tile_cache *cache, uint64_t index)
{
	struct wcx_cached_tile *tile;
	enum wcx_cache_outcome outcome = take(cache, 1, index, &tile);

	CHECK(holds_its_bytes(tile, index));
	wcx_tile_cache_release(cache, tile, 1);
	return outcome;
}

static void passed_tile_leaves_and_the_others_stay(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 6; i++)
		CHECK(touch(cache, i) == WCX_CACHE_FILL);
	CHECK(pass(cache, 2) == WCX_CACHE_READY); /* of those that are in the cache */
	CHECK(pass(cache, 5) == WCX_CACHE_READY);
	CHECK(pass(cache, 0) == WCX_CACHE_READY);
	CHECK(pass(cache, 9) == WCX_CACHE_FILL); /* and one that was not */
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 3 * tile_weight() && stats.peak_bytes == 6 * tile_weight());
	CHECK(stats.hits == 3 && stats.misses == 7 && stats.waits == 0 && stats.evictions == 0);
	CHECK(touch(cache, 1) == WCX_CACHE_READY && touch(cache, 3) == WCX_CACHE_READY);
	CHECK(touch(cache, 4) == WCX_CACHE_READY);
	CHECK(touch(cache, 2) == WCX_CACHE_FILL && touch(cache, 5) == WCX_CACHE_FILL);
	CHECK(touch(cache, 0) == WCX_CACHE_FILL && touch(cache, 9) == WCX_CACHE_FILL);
	wcx_tile_cache_free(cache);
}

static void passed_tile_stays_for_others_who_have_it_in_hand(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cached_tile *first, *second, *third;
	struct wcx_tile_cache_stats stats;

	CHECK(take(cache, 1, 5, &first) == WCX_CACHE_FILL);
	CHECK(take(cache, 1, 5, &second) == WCX_CACHE_READY);
	wcx_tile_cache_release(cache, first, 1);
	CHECK(take(cache, 1, 5, &third) == WCX_CACHE_READY && third == second);
	for (uint64_t i = 20; i < 30; i++)
		pass(cache, i);
	CHECK(holds_its_bytes(second, 5));
	wcx_tile_cache_release(cache, second, 0);
	CHECK(holds_its_bytes(third, 5));
	wcx_tile_cache_release(cache, third, 1);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 0);
	CHECK(touch(cache, 5) == WCX_CACHE_FILL);
	wcx_tile_cache_free(cache);
}

static void failed_tile_may_be_passed(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cached_tile *failed, *good;
	struct wcx_tile_cache_stats stats;

	CHECK(wcx_tile_cache_acquire(cache, 1, 9, TILE_BYTES, &failed) == WCX_CACHE_FILL);
	wcx_tile_cache_publish(cache, failed, -EIO);
	CHECK(take(cache, 1, 9, &good) == WCX_CACHE_FILL);
	wcx_tile_cache_release(cache, failed, 1);
	CHECK(holds_its_bytes(good, 9));
	wcx_tile_cache_release(cache, good, 0);
	CHECK(pass(cache, 9) == WCX_CACHE_READY);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 0);
	wcx_tile_cache_free(cache);
}

static void memory_of_a_passed_tile_serves_the_next_of_its_size(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cached_tile *tiles[3], *tile;
	const uint8_t *data[3];
	long before;

	for (uint64_t i = 0; i < 3; i++) {
		CHECK(take(cache, 1, i, &tiles[i]) == WCX_CACHE_FILL);
		data[i] = wcx_cached_tile_data(tiles[i]);
	}
	for (uint64_t i = 0; i < 3; i++)
		wcx_tile_cache_release(cache, tiles[i], 1);
	for (uint64_t i = 3; i-- > 0;) { /* the one that left last comes first */
		before = atomic_load(&alive_bytes);
		CHECK(take(cache, 1, 10 + i, &tile) == WCX_CACHE_FILL);
		CHECK(wcx_cached_tile_data(tile) == data[i] && holds_its_bytes(tile, 10 + i));
		CHECK(atomic_load(&alive_bytes) == before);
		wcx_tile_cache_release(cache, tile, 0);
	}
	/* Of another size it does not. */
	pass(cache, 0);
	CHECK(wcx_tile_cache_acquire(cache, 1, 77, TILE_BYTES + 500, &tile) == WCX_CACHE_FILL);
	memset(wcx_cached_tile_data(tile), 7, TILE_BYTES + 500);
	wcx_tile_cache_publish(cache, tile, 0);
	wcx_tile_cache_release(cache, tile, 1);
	CHECK(wcx_tile_cache_acquire(cache, 1, 78, 10, &tile) == WCX_CACHE_FILL);
	memset(wcx_cached_tile_data(tile), 7, 10);
	wcx_tile_cache_publish(cache, tile, 0);
	wcx_tile_cache_release(cache, tile, 0);
	wcx_tile_cache_free(cache);
}

/* Has many tiles in hand at once, and then lets go of them as passed. */
static void pass_many(struct wcx_tile_cache *cache, size_t count, size_t bytes)
{
	struct wcx_cached_tile **tiles = malloc(count * sizeof(struct wcx_cached_tile *));

	for (size_t i = 0; i < count; i++) {
		CHECK(wcx_tile_cache_acquire(cache, 1, i, bytes, &tiles[i]) == WCX_CACHE_FILL);
		wcx_tile_cache_publish(cache, tiles[i], 0);
	}
	for (size_t i = 0; i < count; i++)
		wcx_tile_cache_release(cache, tiles[i], 1);
	free(tiles);
}

static void spare_memory_is_bounded_and_freed_at_the_end(void)
{
	static const struct {
		size_t count, bytes;
	} cases[] = { { 300, 64 << 10 }, { 50, 512 << 10 }, { 3, 5 << 20 }, { 60000, 1 }, { 2000, 8000 } };

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const long objects = atomic_load(&alive), memory = atomic_load(&alive_bytes);
		struct wcx_tile_cache *cache = wcx_tile_cache_create(64 << 20);
		const long empty = atomic_load(&alive_bytes);
		struct wcx_tile_cache_stats stats;
		size_t kept = 0;

		pass_many(cache, cases[i].count, cases[i].bytes);
		wcx_tile_cache_get_stats(cache, &stats);
		CHECK(stats.bytes == 0 && stats.evictions == 0);
		CHECK(stats.peak_bytes == cases[i].count * (cases[i].bytes + tile_weight() - TILE_BYTES));
		/* Of 4 MiB, and what memory costs beside. */
		CHECK(atomic_load(&alive_bytes) - empty <= 8 << 20);
		CHECK(cases[i].bytes > 1 << 20 || atomic_load(&alive_bytes) - empty >= 3 << 20);
		/* Each serves once, and then there is none. */
		for (uint64_t n = 0; n < 10; n++) {
			const long before = atomic_load(&alive);
			struct wcx_cached_tile *tile;

			CHECK(wcx_tile_cache_acquire(cache, 2, n, cases[i].bytes, &tile) == WCX_CACHE_FILL);
			kept += atomic_load(&alive) == before;
			wcx_tile_cache_publish(cache, tile, 0);
			wcx_tile_cache_release(cache, tile, 0);
		}
		CHECK(cases[i].bytes > 1 << 20 ? kept == 0 : kept >= 7);
		wcx_tile_cache_get_stats(cache, &stats);
		CHECK(stats.bytes <= 64 << 20);
		wcx_tile_cache_free(cache);
		CHECK(atomic_load(&alive) <= objects && atomic_load(&alive_bytes) <= memory);
	}
}

static void passed_tiles_make_no_room_that_is_not_there(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(3 * tile_weight());
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 50; i++) {
		touch(cache, i);
		pass(cache, 1000 + i);
		wcx_tile_cache_get_stats(cache, &stats);
		CHECK(stats.bytes <= 3 * tile_weight());
	}
	CHECK(stats.peak_bytes == 4 * tile_weight());
	CHECK(stats.misses == 100 && stats.hits == 0);
	/* Those who are passed drive others out while they are in hand. */
	CHECK(stats.evictions + 2 == 50 && stats.bytes == 2 * tile_weight());
	wcx_tile_cache_free(cache);
}

struct stress {
	struct wcx_tile_cache *cache;
	atomic_uint seed;
	atomic_uint acquired, filled;
};

/* Several tiles in hand at a time, as a read has them: acquire all, fill one's own, then wait for the others. */
static void stress_round(struct stress *stress, struct sample_random *random)
{
	struct wcx_cached_tile *tiles[4];
	uint64_t first = sample_below(random, STRESS_TILES), count = 1 + sample_below(random, 4);
	enum wcx_cache_outcome outcomes[4];
	int fails = sample_below(random, 8) == 0;

	for (uint64_t i = 0; i < count; i++)
		outcomes[i] = wcx_tile_cache_acquire(stress->cache, 1, first + i, TILE_BYTES, &tiles[i]);
	for (uint64_t i = 0; i < count; i++) {
		if (outcomes[i] != WCX_CACHE_FILL)
			continue;
		memset(wcx_cached_tile_data(tiles[i]), (int)(first + i), TILE_BYTES);
		wcx_tile_cache_publish(stress->cache, tiles[i], fails ? -EIO : 0);
		atomic_fetch_add(&stress->filled, 1);
	}
	for (uint64_t i = 0; i < count; i++) {
		int errnum = wcx_tile_cache_wait(stress->cache, tiles[i]);

		if (errnum != -EIO && (errnum != 0 || !holds_its_bytes(tiles[i], first + i)))
			CHECK(0);
		wcx_tile_cache_release(stress->cache, tiles[i], sample_below(random, 3) == 0);
	}
	atomic_fetch_add(&stress->acquired, (unsigned)count);
}

static void *run_stress(void *arg)
{
	struct stress *stress = arg;
	struct sample_random random = { atomic_fetch_add(&stress->seed, 1) };

	for (int i = 0; i < STRESS_ROUNDS / THREADS; i++)
		stress_round(stress, &random);
	return NULL;
}

static void tiles_are_right_when_sixteen_threads_fight_for_a_small_budget(void)
{
	struct stress stress = { .cache = wcx_tile_cache_create(10 * tile_weight()) };
	struct wcx_tile_cache_stats stats;
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, run_stress, &stress) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	wcx_tile_cache_get_stats(stress.cache, &stats);
	CHECK(stats.hits + stats.misses + stats.waits == stress.acquired);
	CHECK(stats.misses == stress.filled);
	CHECK(stats.bytes <= 10 * tile_weight());
	CHECK(stats.bytes % tile_weight() == 0);
	CHECK(stats.peak_bytes <= (10 + 4 * THREADS) * tile_weight());
	wcx_tile_cache_free(stress.cache);
}

int main(void)
{
	least_recently_used_tile_goes_first();
	unused_tiles_stay_within_the_budget();
	tiles_in_hand_outlast_the_budget_and_keep_their_bytes();
	budget_of_nothing_keeps_nothing();
	owners_do_not_see_each_others_tiles();
	tile_is_filled_once_for_sixteen_who_ask_at_once();
	failed_fill_reaches_all_who_wait_and_is_tried_again();
	failed_tile_in_hand_does_not_stand_in_the_way_of_the_next_fill();
	passed_tile_leaves_and_the_others_stay();
	passed_tile_stays_for_others_who_have_it_in_hand();
	failed_tile_may_be_passed();
	memory_of_a_passed_tile_serves_the_next_of_its_size();
	spare_memory_is_bounded_and_freed_at_the_end();
	passed_tiles_make_no_room_that_is_not_there();
	tiles_are_right_when_sixteen_threads_fight_for_a_small_budget();
	wcx_tile_cache_free(NULL);
	return check_report();
}
