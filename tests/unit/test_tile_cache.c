/* SPDX-License-Identifier: MIT */
/*
 * The tile cache: what is kept and for how long, fills by one of many threads, failed fills, and memory.
 *
 * Must be linked with --wrap for each function that is WRAPPED below.
 */
#include "fs/read/tile_arena.h"
#include "fs/read/tile_cache.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/fixtures/sample_data.h"
#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

enum {
	TILE_BYTES = 1000,
	THREADS = 16,
	STRESS_TILES = 40,
	STRESS_ROUNDS = 20000,
};

static atomic_long alive, alive_bytes; /* allocated and not freed */
static atomic_bool has_no_heap;        /* aligned_alloc fails */
static atomic_bool has_no_addresses;   /* mmap fails */

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
	return has_no_heap ? NULL : counted(__real_aligned_alloc(align, bytes));
}

WRAPPED(void *, mmap64, void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
	return has_no_addresses ? MAP_FAILED : __real_mmap64(address, bytes, protection, flags, fd, offset);
}

WRAPPED(void, free, void *memory)
{
	if (memory) {
		atomic_fetch_sub_explicit(&alive, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&alive_bytes, (long)malloc_usable_size(memory), memory_order_relaxed);
	}
	__real_free(memory);
}

/* One tile at a time. */
static enum wcx_cache_outcome acquire(struct wcx_tile_cache *cache, uint64_t owner, uint64_t index, size_t bytes,
				      struct wcx_cache_item *ret)
{
	int r;

	*ret = (struct wcx_cache_item){ .tile_index = index, .bytes = bytes, .r = -1 };
	r = wcx_tile_cache_acquire(cache, owner, ret, 1);
	CHECK((ret->outcome == WCX_CACHE_NO_MEMORY) == (r == -ENOMEM) && (r == 0 || r == -ENOMEM));
	return ret->outcome;
}

static void publish(struct wcx_tile_cache *cache, struct wcx_cache_item *tile, int r)
{
	tile->r = r;
	wcx_tile_cache_publish(cache, tile, 1);
}

static int wait_for(struct wcx_tile_cache *cache, struct wcx_cache_item *tile)
{
	wcx_tile_cache_wait(cache, tile, 1);
	return tile->r;
}

static void release(struct wcx_tile_cache *cache, struct wcx_cache_item *tile, bool drop_behind)
{
	wcx_tile_cache_release(cache, tile, 1, drop_behind);
}

/* What a tile of TILE_BYTES takes of the budget. */
static uint64_t tile_weight(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_tile_cache_stats stats;
	struct wcx_cache_item tile;

	CHECK(acquire(cache, 0, 0, TILE_BYTES, &tile) == WCX_CACHE_FILL);
	wcx_tile_cache_get_stats(cache, &stats);
	publish(cache, &tile, 0);
	release(cache, &tile, 0);
	wcx_tile_cache_free(cache);
	return stats.bytes;
}

/* Pins and unpins a tile, filling it with its number if it is missing; returns the outcome of acquire. */
static enum wcx_cache_outcome take(struct wcx_tile_cache *cache, uint64_t owner, uint64_t index, struct wcx_cache_item *ret)
{
	enum wcx_cache_outcome outcome = acquire(cache, owner, index, TILE_BYTES, ret);

	if (outcome == WCX_CACHE_FILL) {
		memset(ret->data, (int)index, TILE_BYTES);
		publish(cache, ret, 0);
	}
	CHECK(wait_for(cache, ret) == 0);
	return outcome;
}

static int holds_its_bytes(struct wcx_cache_item tile, uint64_t index)
{
	const uint8_t *data = tile.data;
	size_t wrong = 0;

	for (size_t i = 0; i < TILE_BYTES; i++)
		wrong += data[i] != (uint8_t)index;
	return wrong == 0;
}

static enum wcx_cache_outcome touch(struct wcx_tile_cache *cache, uint64_t index)
{
	struct wcx_cache_item tile;
	enum wcx_cache_outcome outcome = take(cache, 1, index, &tile);

	CHECK(holds_its_bytes(tile, index));
	release(cache, &tile, 0);
	return outcome;
}

static void least_recently_used_tile_goes_first(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(3 * tile_weight());
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 3; i++)
		CHECK(touch(cache, i) == WCX_CACHE_FILL);
	CHECK(touch(cache, 0) == WCX_CACHE_READY);
	CHECK(touch(cache, 3) == WCX_CACHE_FILL); /* evicts 1 */
	CHECK(touch(cache, 2) == WCX_CACHE_READY);
	CHECK(touch(cache, 0) == WCX_CACHE_READY);
	CHECK(touch(cache, 3) == WCX_CACHE_READY);
	CHECK(touch(cache, 1) == WCX_CACHE_FILL); /* evicts 2 */
	CHECK(touch(cache, 2) == WCX_CACHE_FILL); /* evicts 0 */
	CHECK(touch(cache, 3) == WCX_CACHE_READY);
	CHECK(touch(cache, 1) == WCX_CACHE_READY);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.hits == 6 && stats.misses == 6 && stats.waits == 0 && stats.evictions == 3);
	wcx_tile_cache_free(cache);
}

static void unpinned_tiles_stay_within_the_budget(void)
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
	CHECK(stats.peak_bytes == 6 * tile_weight()); /* a sixth was added before one of the five was evicted */
	CHECK(stats.evictions == 95);
	wcx_tile_cache_free(cache);
}

static void pinned_tiles_may_exceed_the_budget_and_keep_their_bytes(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(2 * tile_weight());
	struct wcx_cache_item tiles[8];
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 8; i++)
		CHECK(take(cache, 1, i, &tiles[i]) == WCX_CACHE_FILL);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 8 * tile_weight());
	for (uint64_t i = 100; i < 120; i++) /* pressure */
		touch(cache, i);
	for (uint64_t i = 0; i < 8; i++) {
		CHECK(holds_its_bytes(tiles[i], i));
		release(cache, &tiles[i], 0);
	}
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 2 * tile_weight());
	CHECK(touch(cache, 7) == WCX_CACHE_READY && touch(cache, 6) == WCX_CACHE_READY);
	wcx_tile_cache_free(cache);
}

static void budget_of_nothing_keeps_nothing(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(0);
	struct wcx_cache_item first, second;
	struct wcx_tile_cache_stats stats;

	CHECK(take(cache, 1, 5, &first) == WCX_CACHE_FILL);
	CHECK(take(cache, 1, 5, &second) == WCX_CACHE_READY);
	CHECK(first.tile == second.tile);
	release(cache, &first, 0);
	CHECK(holds_its_bytes(second, 5));
	release(cache, &second, 0);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 0);
	CHECK(touch(cache, 5) == WCX_CACHE_FILL);
	wcx_tile_cache_free(cache);
}

static void owners_do_not_see_each_others_tiles(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	uint64_t a = wcx_tile_cache_owner(cache), b = wcx_tile_cache_owner(cache);
	struct wcx_cache_item of_a, of_b;

	CHECK(a != b);
	CHECK(take(cache, a, 7, &of_a) == WCX_CACHE_FILL);
	CHECK(take(cache, b, 7, &of_b) == WCX_CACHE_FILL);
	CHECK(of_a.tile != of_b.tile);
	release(cache, &of_a, 0);
	release(cache, &of_b, 0);
	wcx_tile_cache_free(cache);
}

/* Sixteen threads ask for one tile at the same time; the filler waits until all others wait for it. */
struct crowd {
	struct wcx_tile_cache *cache;
	pthread_barrier_t start;
	int r; /* what the filler publishes */
	atomic_uint fills, pending, right;
};

static void *join_crowd(void *arg)
{
	struct crowd *crowd = arg;
	struct wcx_cache_item tile;
	struct wcx_tile_cache_stats stats;

	pthread_barrier_wait(&crowd->start);
	switch (acquire(crowd->cache, 1, 3, TILE_BYTES, &tile)) {
	case WCX_CACHE_FILL:
		atomic_fetch_add(&crowd->fills, 1);
		memset(tile.data, 3, TILE_BYTES);
		do {
			sched_yield();
			wcx_tile_cache_get_stats(crowd->cache, &stats);
		} while (stats.waits < THREADS - 1);
		publish(crowd->cache, &tile, crowd->r);
		break;
	case WCX_CACHE_PENDING:
		atomic_fetch_add(&crowd->pending, 1);
		break;
	case WCX_CACHE_READY:
	case WCX_CACHE_NO_MEMORY:
		CHECK(0);
		return NULL;
	}
	if (wait_for(crowd->cache, &tile) == crowd->r && (crowd->r || holds_its_bytes(tile, 3)))
		atomic_fetch_add(&crowd->right, 1);
	release(crowd->cache, &tile, 0);
	return NULL;
}

static void run_crowd(struct crowd *crowd, int r)
{
	pthread_t threads[THREADS];

	*crowd = (struct crowd){ .cache = wcx_tile_cache_create(1 << 20), .r = r };
	pthread_barrier_init(&crowd->start, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, join_crowd, crowd) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&crowd->start);
}

static void tile_is_filled_once_for_sixteen_threads_at_once(void)
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

static void failed_fill_reaches_all_waiting_threads_and_is_tried_again(void)
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

static void pinned_failed_tile_does_not_prevent_the_next_fill(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cache_item failed, good;

	CHECK(acquire(cache, 1, 9, TILE_BYTES, &failed) == WCX_CACHE_FILL);
	publish(cache, &failed, -EIO);
	CHECK(take(cache, 1, 9, &good) == WCX_CACHE_FILL);
	CHECK(wait_for(cache, &failed) == -EIO);
	CHECK(holds_its_bytes(good, 9));
	release(cache, &good, 0);
	release(cache, &failed, 0);
	CHECK(touch(cache, 9) == WCX_CACHE_READY);
	wcx_tile_cache_free(cache);
}

/* --- drop-behind --- */

/* Like touch, with drop_behind. */
static enum wcx_cache_outcome pass(struct wcx_tile_cache *cache, uint64_t index)
{
	struct wcx_cache_item tile;
	enum wcx_cache_outcome outcome = take(cache, 1, index, &tile);

	CHECK(holds_its_bytes(tile, index));
	release(cache, &tile, 1);
	return outcome;
}

static void dropped_tile_leaves_and_the_others_stay(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_tile_cache_stats stats;

	for (uint64_t i = 0; i < 6; i++)
		CHECK(touch(cache, i) == WCX_CACHE_FILL);
	CHECK(pass(cache, 2) == WCX_CACHE_READY); /* from the cache */
	CHECK(pass(cache, 5) == WCX_CACHE_READY);
	CHECK(pass(cache, 0) == WCX_CACHE_READY);
	CHECK(pass(cache, 9) == WCX_CACHE_FILL); /* and a new one */
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 3 * tile_weight() && stats.peak_bytes == 6 * tile_weight());
	CHECK(stats.hits == 3 && stats.misses == 7 && stats.waits == 0 && stats.evictions == 0);
	CHECK(touch(cache, 1) == WCX_CACHE_READY && touch(cache, 3) == WCX_CACHE_READY);
	CHECK(touch(cache, 4) == WCX_CACHE_READY);
	CHECK(touch(cache, 2) == WCX_CACHE_FILL && touch(cache, 5) == WCX_CACHE_FILL);
	CHECK(touch(cache, 0) == WCX_CACHE_FILL && touch(cache, 9) == WCX_CACHE_FILL);
	wcx_tile_cache_free(cache);
}

static void dropped_tile_stays_while_others_have_it_pinned(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cache_item first, second, third;
	struct wcx_tile_cache_stats stats;

	CHECK(take(cache, 1, 5, &first) == WCX_CACHE_FILL);
	CHECK(take(cache, 1, 5, &second) == WCX_CACHE_READY);
	release(cache, &first, 1);
	CHECK(take(cache, 1, 5, &third) == WCX_CACHE_READY && third.tile == second.tile);
	for (uint64_t i = 20; i < 30; i++)
		pass(cache, i);
	CHECK(holds_its_bytes(second, 5));
	release(cache, &second, 0);
	CHECK(holds_its_bytes(third, 5));
	release(cache, &third, 1);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 0);
	CHECK(touch(cache, 5) == WCX_CACHE_FILL);
	wcx_tile_cache_free(cache);
}

static void failed_tile_may_be_dropped(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cache_item failed, good;
	struct wcx_tile_cache_stats stats;

	CHECK(acquire(cache, 1, 9, TILE_BYTES, &failed) == WCX_CACHE_FILL);
	publish(cache, &failed, -EIO);
	CHECK(take(cache, 1, 9, &good) == WCX_CACHE_FILL);
	release(cache, &failed, 1);
	CHECK(holds_its_bytes(good, 9));
	release(cache, &good, 0);
	CHECK(pass(cache, 9) == WCX_CACHE_READY);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 0);
	wcx_tile_cache_free(cache);
}

static void memory_of_a_dropped_tile_serves_the_next_of_its_size(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cache_item tile;
	const uint8_t *data;

	for (uint64_t i = 0; i < 20; i++) {
		CHECK(take(cache, 1, i, &tile) == WCX_CACHE_FILL);
		CHECK(i == 0 || tile.data == data);
		CHECK(holds_its_bytes(tile, i));
		data = tile.data;
		release(cache, &tile, 1);
	}
	wcx_tile_cache_free(cache);
}

/* --- several at a time --- */

static void each_tile_of_a_batch_is_ready_missing_or_pending(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cache_item others, items[4] = { { .tile_index = 1, .bytes = TILE_BYTES },
						   { .tile_index = 2, .bytes = 5000 },
						   { .tile_index = 3, .bytes = TILE_BYTES },
						   { .tile_index = 4, .bytes = TILE_BYTES } };
	struct wcx_tile_cache_stats stats;

	touch(cache, 3);
	CHECK(acquire(cache, 1, 4, TILE_BYTES, &others) == WCX_CACHE_FILL);
	CHECK(wcx_tile_cache_acquire(cache, 1, items, 4) == 0);
	CHECK(items[0].outcome == WCX_CACHE_FILL && items[1].outcome == WCX_CACHE_FILL);
	CHECK(items[2].outcome == WCX_CACHE_READY && items[3].outcome == WCX_CACHE_PENDING);
	CHECK(holds_its_bytes(items[2], 3));
	memset(items[0].data, 1, TILE_BYTES);
	memset(items[1].data, 2, 5000);
	items[1].r = -EIO;
	wcx_tile_cache_publish(cache, items, 4);
	memset(others.data, 4, TILE_BYTES);
	publish(cache, &others, 0);
	wcx_tile_cache_wait(cache, items, 4);
	CHECK(items[0].r == 0 && items[1].r == -EIO && items[2].r == 0 && items[3].r == 0);
	CHECK(items[3].data == others.data && holds_its_bytes(items[3], 4));
	wcx_tile_cache_release(cache, items, 4, 0);
	release(cache, &others, 0);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.misses == 4 && stats.hits == 1 && stats.waits == 1 && stats.bytes == 3 * tile_weight());
	CHECK(touch(cache, 1) == WCX_CACHE_READY && touch(cache, 3) == WCX_CACHE_READY &&
	      touch(cache, 4) == WCX_CACHE_READY);
	wcx_tile_cache_free(cache);
}

/* Tied tensors share their tiles. */
static void tile_may_be_listed_twice(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);

	for (int fails = 1; fails >= 0; fails--) {
		struct wcx_cache_item items[3] = { { .tile_index = 5, .bytes = TILE_BYTES },
						   { .tile_index = 6, .bytes = TILE_BYTES },
						   { .tile_index = 5, .bytes = TILE_BYTES } };
		struct wcx_tile_cache_stats stats;

		CHECK(wcx_tile_cache_acquire(cache, 1, items, 3) == 0);
		CHECK(items[0].outcome == WCX_CACHE_FILL && items[2].outcome == WCX_CACHE_PENDING);
		memset(items[0].data, 5, TILE_BYTES);
		memset(items[1].data, 6, TILE_BYTES);
		items[0].r = fails ? -EIO : 0;
		wcx_tile_cache_publish(cache, items, 3);
		wcx_tile_cache_wait(cache, items, 3);
		CHECK(items[0].r == items[2].r && items[0].data == items[2].data);
		CHECK(items[2].r == (fails ? -EIO : 0) && holds_its_bytes(items[2], 5));
		wcx_tile_cache_release(cache, items, 3, 1);
		wcx_tile_cache_get_stats(cache, &stats);
		CHECK(stats.bytes == 0);
	}
	wcx_tile_cache_free(cache);
}

/* --- memory --- */

enum { SLAB_BYTES = 512 << 10, SLOT_BYTES = 4096 };

/* A size of a tile; most are small. */
static size_t sample_size(struct sample_random *random)
{
	return 1 + sample_below(random, sample_below(random, 4) ? 40 << 10 : SLAB_BYTES);
}

static void arena_gives_memory_that_is_not_taken(void)
{
	enum { SLABS = 40, HELD_MAX = 400, ROUNDS = 40000 };
	struct wcx_tile_arena *arena = wcx_tile_arena_create(SLABS * (uint64_t)SLAB_BYTES - 5);
	struct sample_random random = { 11 };
	struct {
		uint32_t *memory, value;
		size_t bytes;
	} held[HELD_MAX];
	size_t count = 0, refused = 0, wrong = 0;

	for (int i = 0; i < ROUNDS; i++) {
		if (count < HELD_MAX && sample_below(&random, 100) < 51) {
			const size_t bytes = sample_size(&random);
			uint32_t *memory = wcx_tile_arena_take(arena, bytes, NULL);

			refused += !memory;
			wrong += (uintptr_t)memory % SLOT_BYTES != 0;
			if (!memory)
				continue;
			for (size_t at = 0; at < (bytes + 3) / 4; at += SLOT_BYTES / 4)
				memory[at] = (uint32_t)i;
			held[count].memory = memory;
			held[count].value = (uint32_t)i;
			held[count++].bytes = bytes;
		} else if (count) {
			const size_t n = sample_below(&random, (uint32_t)count);

			for (size_t at = 0; at < (held[n].bytes + 3) / 4; at += SLOT_BYTES / 4)
				wrong += held[n].memory[at] != held[n].value;
			wcx_tile_arena_give(arena, held[n].memory, held[n].bytes);
			held[n] = held[--count];
		}
	}
	CHECK(wrong == 0);
	CHECK(refused > 100); /* the arena was full at times */
	while (count--)
		wcx_tile_arena_give(arena, held[count].memory, held[count].bytes);
	/* All of the arena is free again, for any size. */
	for (size_t bytes = SLAB_BYTES; bytes >= SLOT_BYTES; bytes /= 8) {
		const size_t all = SLABS * (SLAB_BYTES / bytes);
		void **taken = malloc(all * sizeof(void *));

		for (size_t i = 0; i < all; i++)
			CHECK((taken[i] = wcx_tile_arena_take(arena, bytes, NULL)));
		CHECK(!wcx_tile_arena_take(arena, 1, NULL));
		for (size_t i = 0; i < all; i++)
			wcx_tile_arena_give(arena, taken[i], bytes);
		free(taken);
	}
	wcx_tile_arena_free(arena);
}

/* Slabs are taken one by one; what is handed out beside them has to be whole huge pages that nobody uses, each once. */
static void memory_is_handed_out_ahead_of_its_first_use(void)
{
	enum { SLABS = 600, HUGE_BYTES = 2 << 20, AHEAD_MAX_BYTES = 32 << 20 };
	struct wcx_tile_arena *arena = wcx_tile_arena_create(SLABS * (uint64_t)SLAB_BYTES);
	void *memory, *again, *start = NULL;
	size_t handed_out = 0, most_ahead = 0;
	uintptr_t first, front = 0;

	CHECK(wcx_tile_arena_memory(arena, &memory) == SLABS * (size_t)SLAB_BYTES);
	first = front = (uintptr_t)memory;
	CHECK(wcx_tile_arena_ahead(arena, &start) == 0 && !start);
	for (size_t i = 1; i <= SLABS; i++) {
		const uintptr_t used = first + i * SLAB_BYTES;
		size_t bytes;

		CHECK((uintptr_t)wcx_tile_arena_take(arena, SLAB_BYTES, NULL) + SLAB_BYTES == used);
		bytes = wcx_tile_arena_ahead(arena, &start);
		if (!bytes)
			continue;
		CHECK((uintptr_t)start >= used && (uintptr_t)start >= front);
		CHECK((uintptr_t)start % HUGE_BYTES == 0 && bytes % HUGE_BYTES == 0);
		front = (uintptr_t)start + bytes;
		CHECK(front - used <= (used - first) / 4 && front <= first + SLABS * (size_t)SLAB_BYTES);
		most_ahead = front - used > most_ahead ? front - used : most_ahead;
		handed_out += bytes;
		CHECK(wcx_tile_arena_ahead(arena, &start) == 0);
	}
	CHECK(handed_out > (SLABS - 20) * (size_t)SLAB_BYTES);
	CHECK(most_ahead <= AHEAD_MAX_BYTES && most_ahead > AHEAD_MAX_BYTES - HUGE_BYTES);
	wcx_tile_arena_give(arena, memory, SLAB_BYTES); /* what was used before is not fresh */
	again = wcx_tile_arena_take(arena, SLAB_BYTES, NULL);
	CHECK(again == memory && wcx_tile_arena_ahead(arena, &start) == 0);
	wcx_tile_arena_free(arena);
}

/* Whether a page of the process is resident. */
static bool is_resident(uint8_t *page)
{
	unsigned char state = 0;

	return mincore(page, 4096, &state) == 0 && (state & 1);
}

static void a_growing_cache_makes_fresh_memory_resident(void)
{
	enum { TILES = 128, BYTES = SLAB_BYTES };
	struct wcx_tile_cache *cache = wcx_tile_cache_create(TILES * (uint64_t)BYTES);
	uint8_t *probe = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const bool has_populate = madvise(probe, 4096, MADV_POPULATE_WRITE) == 0;
	size_t resident_count = 0;

	for (uint64_t i = 0; i < TILES - 1; i++) {
		struct wcx_cache_item item = { .tile_index = i, .bytes = BYTES };

		CHECK(wcx_tile_cache_acquire(cache, 0, &item, 1) == 0 && item.outcome == WCX_CACHE_FILL);
		resident_count += is_resident(item.data);
		wcx_tile_cache_publish(cache, &item, 1);
		wcx_tile_cache_release(cache, &item, 1, false);
	}
	CHECK(resident_count > TILES / 2 || !has_populate);
	munmap(probe, 4096);
	wcx_tile_cache_free(cache);
}

static void arena_refuses_more_than_a_slab_and_may_be_empty(void)
{
	struct wcx_tile_arena *arena = wcx_tile_arena_create(3 * (uint64_t)SLAB_BYTES), *empty = wcx_tile_arena_create(0);
	struct wcx_tile_arena *too_large = wcx_tile_arena_create(UINT64_MAX);
	void *memory = wcx_tile_arena_take(arena, 0, NULL);

	CHECK(memory);
	wcx_tile_arena_give(arena, memory, 0);
	CHECK(!wcx_tile_arena_take(arena, SLAB_BYTES + 1, NULL));
	memory = wcx_tile_arena_take(arena, SLAB_BYTES, NULL);
	CHECK(memory && (uintptr_t)memory % SLAB_BYTES == 0);
	memset(memory, 1, SLAB_BYTES);
	CHECK(empty && !wcx_tile_arena_take(empty, 1, NULL));
	CHECK(too_large && !wcx_tile_arena_take(too_large, 1, NULL));
	wcx_tile_arena_free(arena);
	wcx_tile_arena_free(empty);
	wcx_tile_arena_free(too_large);
	wcx_tile_arena_free(NULL);
}

static void slab_lists_its_owners(void)
{
	enum { SLABS = 3, BYTES = 40000, SLOTS = SLAB_BYTES / (12 * SLOT_BYTES) };
	static const struct {
		size_t bytes, units;
	} sizes[] = { { 0, 1 },      { 4096, 1 },    { 4097, 2 },     { 9000, 3 },     { 13000, 4 },       { 16385, 6 },
		      { 24576, 6 },  { 24577, 8 },   { 32768, 8 },    { BYTES, 12 },   { 65536, 16 },      { 98304, 24 },
		      { 98305, 32 }, { 131073, 64 }, { 393216, 128 }, { 393217, 128 }, { SLAB_BYTES, 128 } };
	struct wcx_tile_arena *arena = wcx_tile_arena_create(SLABS * (uint64_t)SLAB_BYTES);
	int numbers[SLABS * SLOTS];
	void *taken[SLABS * SLOTS], *owners[WCX_ARENA_SLOTS_MAX];

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		CHECK(wcx_tile_arena_slot_bytes(sizes[i].bytes) == sizes[i].units * SLOT_BYTES);
	for (int i = 0; i < SLABS * SLOTS; i++)
		CHECK((taken[i] = wcx_tile_arena_take(arena, BYTES, &numbers[i])));
	for (int i = 0; i < SLABS * SLOTS; i += 3)
		wcx_tile_arena_give(arena, taken[i], BYTES);
	for (int i = 0; i < SLABS * SLOTS; i++) {
		size_t count, expected = 0;

		if (i % 3 == 0)
			continue;
		count = wcx_tile_arena_slab(arena, taken[i], owners);
		for (int other = 0; other < SLABS * SLOTS; other++) {
			size_t found = 0;

			for (size_t n = 0; n < count; n++)
				found += owners[n] == &numbers[other];
			CHECK(found == (other % 3 != 0 && other / SLOTS == i / SLOTS));
			expected += found;
		}
		CHECK(count == expected);
	}
	wcx_tile_arena_free(arena);
}

static void tiles_beyond_the_arena_are_in_the_heap_until_they_leave(void)
{
	enum { COUNT = 24, BYTES = 512 << 10 }; /* the arena has the budget and 2 MiB */
	const long before = atomic_load(&alive_bytes);
	struct wcx_tile_cache *cache = wcx_tile_cache_create(BYTES);
	struct wcx_cache_item tiles[COUNT], large;
	struct wcx_tile_cache_stats stats;
	long empty;

	CHECK(acquire(cache, 1, 99, BYTES + 1, &large) == WCX_CACHE_FILL);
	memset(large.data, 9, BYTES + 1);
	publish(cache, &large, 0);
	release(cache, &large, 1);
	empty = atomic_load(&alive_bytes);
	for (int i = 0; i < COUNT; i++) {
		CHECK(acquire(cache, 1, (uint64_t)i, BYTES, &tiles[i]) == WCX_CACHE_FILL);
		memset(tiles[i].data, i, BYTES);
		publish(cache, &tiles[i], 0);
	}
	CHECK(atomic_load(&alive_bytes) - empty >= (COUNT - 5) * (long)BYTES);
	for (int i = 0; i < COUNT; i++) {
		CHECK(tiles[i].data[0] == i && tiles[i].data[BYTES - 1] == i);
		release(cache, &tiles[i], i % 2);
	}
	CHECK(atomic_load(&alive_bytes) == empty);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes <= BYTES);
	/* The heap memory has been freed, and the arena's is used again. */
	for (int i = 0; i < 4; i++)
		CHECK(acquire(cache, 2, (uint64_t)i, BYTES, &tiles[i]) == WCX_CACHE_FILL);
	wcx_tile_cache_publish(cache, tiles, 4);
	wcx_tile_cache_release(cache, tiles, 4, 0);
	CHECK(acquire(cache, 3, 0, BYTES + 100, &large) == WCX_CACHE_FILL);
	publish(cache, &large, 0);
	release(cache, &large, 0);
	wcx_tile_cache_free(cache);
	CHECK(atomic_load(&alive_bytes) == before);
}

static void without_memory_for_one_tile_the_others_stay_pinned(void)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_cache_item items[3] = { { .tile_index = 1, .bytes = TILE_BYTES },
					   { .tile_index = 2, .bytes = SLAB_BYTES + 1 },
					   { .tile_index = 3, .bytes = TILE_BYTES } };
	struct wcx_tile_cache_stats stats;

	has_no_heap = 1;
	CHECK(wcx_tile_cache_acquire(cache, 1, items, 3) == -ENOMEM);
	CHECK(items[0].outcome == WCX_CACHE_FILL && items[1].outcome == WCX_CACHE_NO_MEMORY &&
	      items[2].outcome == WCX_CACHE_FILL);
	memset(items[0].data, 1, TILE_BYTES);
	memset(items[2].data, 3, TILE_BYTES);
	wcx_tile_cache_publish(cache, items, 3);
	wcx_tile_cache_wait(cache, items, 3);
	wcx_tile_cache_release(cache, items, 3, 0);
	has_no_heap = 0;
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 2 * tile_weight());
	CHECK(touch(cache, 1) == WCX_CACHE_READY && touch(cache, 3) == WCX_CACHE_READY);
	CHECK(acquire(cache, 1, 2, SLAB_BYTES + 1, &items[1]) == WCX_CACHE_FILL);
	publish(cache, &items[1], 0);
	release(cache, &items[1], 0);
	wcx_tile_cache_free(cache);
}

static void tiles_are_evicted_early_when_slots_run_out(void)
{
	/* Tiles of one byte take all slots of the arena, and little of the budget. */
	enum { BUDGET = 16 << 20, SLABS = (BUDGET + (2 << 20)) / SLAB_BYTES, SLOTS = SLAB_BYTES / SLOT_BYTES };
	struct wcx_tile_cache *cache = wcx_tile_cache_create(BUDGET);
	struct wcx_tile_cache_stats stats;
	struct wcx_cache_item tile;
	const long heap = atomic_load(&alive_bytes);
	long with_tiles;

	for (uint64_t i = 0; i < SLABS * SLOTS; i++) {
		CHECK(acquire(cache, 1, i, 1, &tile) == WCX_CACHE_FILL);
		tile.data[0] = (uint8_t)i;
		publish(cache, &tile, 0);
		release(cache, &tile, 0);
	}
	with_tiles = atomic_load(&alive_bytes);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.evictions == 0 && stats.bytes < BUDGET && with_tiles - heap < 4 << 20);
	CHECK(acquire(cache, 2, 0, SLAB_BYTES, &tile) == WCX_CACHE_FILL);
	memset(tile.data, 1, SLAB_BYTES);
	publish(cache, &tile, 0);
	release(cache, &tile, 0);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.evictions == SLOTS);                          /* the oldest tiles, in one slab */
	CHECK(atomic_load(&alive_bytes) - with_tiles < 64 << 10); /* not in the heap */
	for (uint64_t i = SLOTS; i < SLABS * SLOTS; i++) {
		CHECK(acquire(cache, 1, i, 1, &tile) == WCX_CACHE_READY && tile.data[0] == (uint8_t)i);
		release(cache, &tile, 0);
	}
	wcx_tile_cache_free(cache);
}

/* When no addresses can be reserved, all tiles are in the heap. */
static void cache_without_an_arena_keeps_to_its_budget(void)
{
	struct wcx_tile_cache *cache;
	struct wcx_tile_cache_stats stats;
	long before, after;

	has_no_addresses = 1;
	cache = wcx_tile_cache_create(20 * tile_weight());
	has_no_addresses = 0;
	before = atomic_load(&alive_bytes);
	for (uint64_t i = 0; i < 20; i++)
		CHECK(touch(cache, i) == WCX_CACHE_FILL);
	for (uint64_t i = 0; i < 20; i++)
		CHECK(touch(cache, i) == WCX_CACHE_READY);
	after = atomic_load(&alive_bytes);
	CHECK(after - before >= 20 * TILE_BYTES);
	for (uint64_t i = 20; i < 100; i++)
		CHECK(touch(cache, i) == WCX_CACHE_FILL);
	CHECK(atomic_load(&alive_bytes) <= after + TILE_BYTES);
	wcx_tile_cache_get_stats(cache, &stats);
	CHECK(stats.bytes == 20 * tile_weight() && stats.evictions == 80);
	wcx_tile_cache_free(cache);
}

/* Random reads of a model's large tiles, and of small ones of many sizes among them. */
static void tiles_of_many_sizes_do_not_empty_the_cache(void)
{
	enum { BUDGET = 64 << 20, LARGE = 128 << 10, LARGE_COUNT = 2 * BUDGET / LARGE, ODD_COUNT = 500, ROUNDS = 60000 };
	struct wcx_tile_cache *cache = wcx_tile_cache_create(BUDGET);
	struct sample_random random = { 3 };
	uint64_t most = 0, least = UINT64_MAX;

	for (int i = 0; i < ROUNDS; i++) {
		const int is_odd = sample_below(&random, 20) == 0;
		const uint64_t index =
			is_odd ? LARGE_COUNT + sample_below(&random, ODD_COUNT) : sample_below(&random, LARGE_COUNT);
		const size_t bytes = is_odd ? SLOT_BYTES * (1 + index % 31) : LARGE;
		struct wcx_tile_cache_stats before, after;
		struct wcx_cache_item tile;

		wcx_tile_cache_get_stats(cache, &before);
		if (acquire(cache, 1, index, bytes, &tile) == WCX_CACHE_FILL) {
			tile.data[0] = (uint8_t)index;
			tile.data[bytes - 1] = (uint8_t)(index >> 8);
			publish(cache, &tile, 0);
		}
		if (tile.data[0] != (uint8_t)index || tile.data[bytes - 1] != (uint8_t)(index >> 8))
			CHECK(0);
		release(cache, &tile, 0);
		wcx_tile_cache_get_stats(cache, &after);
		if (i < ROUNDS / 4)
			continue;
		most = after.evictions - before.evictions > most ? after.evictions - before.evictions : most;
		least = after.bytes < least ? after.bytes : least;
	}
	if (!CHECK(most <= 2 * 128 && least >= BUDGET / 4 * 3))
		fprintf(stderr, "at most %llu evictions at once, at least %llu bytes\n", (unsigned long long)most,
			(unsigned long long)least);
	wcx_tile_cache_free(cache);
}

static void dropped_tiles_make_no_space_that_is_not_there(void)
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
	/* Tiles that will be dropped evict others while they are pinned. */
	CHECK(stats.evictions + 2 == 50 && stats.bytes == 2 * tile_weight());
	wcx_tile_cache_free(cache);
}

struct stress {
	struct wcx_tile_cache *cache;
	atomic_uint seed;
	atomic_uint acquired, filled;
};

/* Pins several tiles at a time, like a read: acquire all, fill one's own, then wait for the others. */
static void stress_round(struct stress *stress, struct sample_random *random)
{
	struct wcx_cache_item tiles[4];
	uint64_t first = sample_below(random, STRESS_TILES), count = 1 + sample_below(random, 4);
	int fails = sample_below(random, 8) == 0;

	for (uint64_t i = 0; i < count; i++)
		tiles[i] = (struct wcx_cache_item){ .tile_index = first + i, .bytes = TILE_BYTES };
	CHECK(wcx_tile_cache_acquire(stress->cache, 1, tiles, count) == 0);
	for (uint64_t i = 0; i < count; i++) {
		if (tiles[i].outcome != WCX_CACHE_FILL)
			continue;
		memset(tiles[i].data, (int)(first + i), TILE_BYTES);
		tiles[i].r = fails ? -EIO : 0;
		atomic_fetch_add(&stress->filled, 1);
	}
	wcx_tile_cache_publish(stress->cache, tiles, count);
	wcx_tile_cache_wait(stress->cache, tiles, count);
	for (uint64_t i = 0; i < count; i++) {
		if (tiles[i].r != -EIO && (tiles[i].r != 0 || !holds_its_bytes(tiles[i], first + i)))
			CHECK(0);
		release(stress->cache, &tiles[i], sample_below(random, 3) == 0);
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

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(least_recently_used_tile_goes_first),
		CHECK_TEST(unpinned_tiles_stay_within_the_budget),
		CHECK_TEST(pinned_tiles_may_exceed_the_budget_and_keep_their_bytes),
		CHECK_TEST(budget_of_nothing_keeps_nothing),
		CHECK_TEST(owners_do_not_see_each_others_tiles),
		CHECK_TEST(tile_is_filled_once_for_sixteen_threads_at_once),
		CHECK_TEST(failed_fill_reaches_all_waiting_threads_and_is_tried_again),
		CHECK_TEST(pinned_failed_tile_does_not_prevent_the_next_fill),
		CHECK_TEST(dropped_tile_leaves_and_the_others_stay),
		CHECK_TEST(dropped_tile_stays_while_others_have_it_pinned),
		CHECK_TEST(failed_tile_may_be_dropped),
		CHECK_TEST(memory_of_a_dropped_tile_serves_the_next_of_its_size),
		CHECK_TEST(each_tile_of_a_batch_is_ready_missing_or_pending),
		CHECK_TEST(tile_may_be_listed_twice),
		CHECK_TEST(arena_gives_memory_that_is_not_taken),
		CHECK_TEST(memory_is_handed_out_ahead_of_its_first_use),
		CHECK_TEST(a_growing_cache_makes_fresh_memory_resident),
		CHECK_TEST(arena_refuses_more_than_a_slab_and_may_be_empty),
		CHECK_TEST(slab_lists_its_owners),
		CHECK_TEST(tiles_beyond_the_arena_are_in_the_heap_until_they_leave),
		CHECK_TEST(cache_without_an_arena_keeps_to_its_budget),
		CHECK_TEST(tiles_of_many_sizes_do_not_empty_the_cache),
		CHECK_TEST(without_memory_for_one_tile_the_others_stay_pinned),
		CHECK_TEST(tiles_are_evicted_early_when_slots_run_out),
		CHECK_TEST(dropped_tiles_make_no_space_that_is_not_there),
		CHECK_TEST(tiles_are_right_when_sixteen_threads_fight_for_a_small_budget),
	};

	wcx_tile_cache_free(NULL);
	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
