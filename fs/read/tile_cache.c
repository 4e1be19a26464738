/* SPDX-License-Identifier: MIT */
/* The LRU cache of decoded tiles. */
#include "fs/read/tile_cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "codec/arith.h"
#include "fs/read/tile_arena.h"

enum {
	MIN_BUCKETS = 64,
	BYTES_PER_BUCKET = 32 << 10, /* most tiles have 32 or 64 KiB */
	DATA_ALIGN = 64,
	/* For slabs that are partly used.  When these take more, tiles are evicted a little earlier. */
	ARENA_SPARE_BYTES = 2 << 20,
	/*
	 * Some 250 KiB.  A block makes the process's addresses grow, for which the kernel lets all other threads finish what
	 * they do there, such as clearing pages, and holds up those that come later.
	 */
	BLOCK_TILES = 2048,
	LINE_BYTES = 64,
	MAKE_SPACE_TRIES = 2,
};

enum tile_state { FILLING, READY, FAILED };

struct wcx_cached_tile {
	uint64_t owner, tile_index;
	size_t bytes;
	uint8_t *data;
	struct wcx_cached_tile *next;          /* in its bucket or in the free list */
	struct wcx_cached_tile *newer, *older; /* in the LRU list, which holds the unpinned tiles */
	unsigned pins;
	bool in_table;
	bool in_heap; /* data is not in the arena */
	bool is_done; /* released with drop_behind while others had it pinned: the last of them drops it */
	enum tile_state state;
	int r;                 /* of the fill */
	pthread_cond_t filled; /* signals that state is no longer FILLING */
};

/* Tiles are allocated in blocks, which are freed with the cache. */
struct tile_block {
	struct tile_block *next;
	struct wcx_cached_tile tiles[BLOCK_TILES];
};

struct wcx_tile_cache {
	uint64_t budget_bytes;
	size_t bucket_mask;
	pthread_mutex_t lock; /* protects everything below and the tiles, but not the bytes of data */
	struct wcx_cached_tile **buckets;
	struct wcx_cached_tile *newest, *oldest;
	struct wcx_tile_arena *arena;
	struct tile_block *blocks;
	struct wcx_cached_tile *free_list;
	size_t free_count;
	uint64_t next_owner;
	struct wcx_tile_cache_stats stats;
};

struct wcx_tile_cache *wcx_tile_cache_create(uint64_t budget_bytes)
{
	struct wcx_tile_cache *cache = calloc(1, sizeof *cache);
	size_t buckets = MIN_BUCKETS;

	if (!cache)
		return NULL;
	while (buckets < budget_bytes / BYTES_PER_BUCKET)
		buckets *= 2;
	cache->buckets = calloc(buckets, sizeof(struct wcx_cached_tile *));
	cache->arena = wcx_tile_arena_create(WCX_MIN(budget_bytes, UINT64_MAX - ARENA_SPARE_BYTES) + ARENA_SPARE_BYTES);
	cache->bucket_mask = buckets - 1;
	cache->budget_bytes = budget_bytes;
	pthread_mutex_init(&cache->lock, NULL);
	if (cache->buckets && cache->arena)
		return cache;
	wcx_tile_cache_free(cache);
	return NULL;
}

void wcx_tile_cache_free(struct wcx_tile_cache *cache)
{
	if (!cache)
		return;
	for (struct wcx_cached_tile *tile = cache->newest; tile; tile = tile->older)
		if (tile->in_heap)
			free(tile->data);
	while (cache->blocks) {
		struct tile_block *block = cache->blocks;

		cache->blocks = block->next;
		for (size_t i = 0; i < BLOCK_TILES; i++)
			pthread_cond_destroy(&block->tiles[i].filled);
		free(block);
	}
	pthread_mutex_destroy(&cache->lock);
	wcx_tile_arena_free(cache->arena);
	free(cache->buckets);
	free(cache);
}

size_t wcx_tile_cache_memory(const struct wcx_tile_cache *cache, void **start_ret)
{
	return wcx_tile_arena_memory(cache->arena, start_ret);
}

uint64_t wcx_tile_cache_owner(struct wcx_tile_cache *cache)
{
	uint64_t owner;

	pthread_mutex_lock(&cache->lock);
	owner = cache->next_owner++;
	pthread_mutex_unlock(&cache->lock);
	return owner;
}

static struct wcx_cached_tile **bucket_of(struct wcx_tile_cache *cache, uint64_t owner, uint64_t tile_index)
{
	/* Fibonacci hashing; neighbouring tiles of a file land in different buckets. */
	uint64_t mixed = (owner * UINT64_C(0xD6E8FEB86659FD93) ^ tile_index) * UINT64_C(0x9E3779B97F4A7C15);

	return &cache->buckets[mixed >> 32 & cache->bucket_mask];
}

static void lru_remove(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile)
{
	*(tile->newer ? &tile->newer->older : &cache->newest) = tile->older;
	*(tile->older ? &tile->older->newer : &cache->oldest) = tile->newer;
	tile->newer = tile->older = NULL;
}

static void lru_add(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile)
{
	tile->newer = NULL;
	tile->older = cache->newest;
	*(cache->newest ? &cache->newest->newer : &cache->oldest) = tile;
	cache->newest = tile;
}

static void table_remove(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile)
{
	struct wcx_cached_tile **at = bucket_of(cache, tile->owner, tile->tile_index);

	while (*at != tile)
		at = &(*at)->next;
	*at = tile->next;
	tile->in_table = false;
}

/* What a tile takes of the budget: a small one takes more for its bookkeeping than for its bytes. */
static uint64_t weight_of(const struct wcx_cached_tile *tile)
{
	return tile->bytes + sizeof *tile;
}

static void add_free(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile)
{
	tile->next = cache->free_list;
	cache->free_list = tile;
	cache->free_count++;
}

/* Frees a tile, unlisted and unpinned.  Its heap memory is chained to *heap, to be freed without the lock. */
static void retire(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile, void **heap)
{
	cache->stats.bytes -= weight_of(tile);
	if (tile->in_heap) {
		*(void **)(void *)tile->data = *heap;
		*heap = tile->data;
	} else if (tile->data) {
		wcx_tile_arena_give(cache->arena, tile->data, tile->bytes);
	}
	add_free(cache, tile);
}

static void free_heap(void *heap)
{
	while (heap) {
		void *next = *(void **)heap;

		free(heap);
		heap = next;
	}
}

static void evict_tile(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile, void **heap)
{
	lru_remove(cache, tile);
	table_remove(cache, tile);
	cache->stats.evictions++;
	retire(cache, tile, heap);
}

/* Evicts the least recently used tiles until the cache is within budget. */
static void evict(struct wcx_tile_cache *cache, void **heap)
{
	while (cache->stats.bytes > cache->budget_bytes && cache->oldest)
		evict_tile(cache, cache->oldest, heap);
}

/* Has a tile's description fetched into the core's cache; NULL is fine. */
static void fetch_tile(const struct wcx_cached_tile *tile)
{
	__builtin_prefetch(tile, 1);
	__builtin_prefetch((const void *)((uintptr_t)tile + LINE_BYTES), 1);
}

/* The same for the buckets of tiles that will be looked up. */
static void fetch_buckets(struct wcx_tile_cache *cache, uint64_t owner, const struct wcx_cache_item *items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		__builtin_prefetch(bucket_of(cache, owner, items[i].tile_index));
}

static struct wcx_cached_tile *find_tile(struct wcx_tile_cache *cache, uint64_t owner, uint64_t tile_index)
{
	struct wcx_cached_tile *tile = *bucket_of(cache, owner, tile_index);

	while (tile && (tile->owner != owner || tile->tile_index != tile_index))
		tile = tile->next;
	return tile;
}

/* Locks the cache with at least count free tiles; or returns -ENOMEM, unlocked. */
static int lock_with_free_tiles(struct wcx_tile_cache *cache, size_t count)
{
	pthread_mutex_lock(&cache->lock);
	while (cache->free_count < count) {
		struct tile_block *block;

		pthread_mutex_unlock(&cache->lock);
		block = calloc(1, sizeof *block);
		if (!block)
			return -ENOMEM;
		for (size_t i = 0; i < BLOCK_TILES; i++)
			pthread_cond_init(&block->tiles[i].filled, NULL);
		pthread_mutex_lock(&cache->lock);
		block->next = cache->blocks;
		cache->blocks = block;
		for (size_t i = 0; i < BLOCK_TILES; i++)
			add_free(cache, &block->tiles[i]);
	}
	return 0;
}

/*
 * Makes space in an arena whose free slots, if any, have other sizes: evicts the oldest tile and, if its slot has another
 * size too, all unpinned tiles of its slab.  Evicting more is not worth it.
 */
static void make_space(struct wcx_tile_cache *cache, size_t bytes, void **heap)
{
	void *owners[WCX_ARENA_SLOTS_MAX];
	const struct wcx_cached_tile *oldest = cache->oldest;
	size_t count;

	if (oldest->in_heap || wcx_tile_arena_slot_bytes(oldest->bytes) == wcx_tile_arena_slot_bytes(bytes)) {
		evict_tile(cache, cache->oldest, heap);
		return;
	}
	count = wcx_tile_arena_slab(cache->arena, oldest->data, owners);
	for (size_t i = 0; i < count; i++) {
		struct wcx_cached_tile *tile = owners[i];

		if (tile->pins == 0)
			evict_tile(cache, tile, heap);
	}
}

static uint8_t *take_memory(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile, void **heap)
{
	uint8_t *data = wcx_tile_arena_take(cache->arena, tile->bytes, tile);

	for (int i = 0; !data && i < MAKE_SPACE_TRIES && cache->oldest && !wcx_tile_arena_is_empty(cache->arena); i++) {
		make_space(cache, tile->bytes, heap);
		data = wcx_tile_arena_take(cache->arena, tile->bytes, tile);
	}
	return data;
}

static struct wcx_cached_tile *add_tile(struct wcx_tile_cache *cache, uint64_t owner, const struct wcx_cache_item *item,
					void **heap)
{
	struct wcx_cached_tile **bucket = bucket_of(cache, owner, item->tile_index), *tile = cache->free_list;

	cache->free_list = tile->next;
	cache->free_count--;
	tile->owner = owner;
	tile->tile_index = item->tile_index;
	tile->bytes = item->bytes;
	tile->next = *bucket;
	tile->pins = 1;
	tile->is_done = false;
	tile->in_table = true;
	tile->in_heap = false;
	tile->state = FILLING;
	tile->r = 0;
	*bucket = tile;
	cache->stats.bytes += weight_of(tile);
	if (cache->stats.bytes > cache->stats.peak_bytes)
		cache->stats.peak_bytes = cache->stats.bytes;
	evict(cache, heap);
	tile->data = take_memory(cache, tile, heap);
	return tile;
}

static void acquire_one(struct wcx_tile_cache *cache, uint64_t owner, struct wcx_cache_item *item, void **heap)
{
	struct wcx_cached_tile *tile = find_tile(cache, owner, item->tile_index);

	item->r = 0;
	if (!tile) {
		tile = add_tile(cache, owner, item, heap);
		item->outcome = WCX_CACHE_FILL;
		cache->stats.misses++;
	} else {
		if (tile->pins++ == 0)
			lru_remove(cache, tile);
		item->outcome = tile->state == FILLING ? WCX_CACHE_PENDING : WCX_CACHE_READY;
		*(tile->state == FILLING ? &cache->stats.waits : &cache->stats.hits) += 1;
	}
	item->tile = tile;
	/* Of a pending tile, the filler may not have the memory yet. */
	item->data = item->outcome == WCX_CACHE_PENDING ? NULL : tile->data;
}

/* Allocates memory from the heap for tiles that the arena had none for. */
static int use_heap(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count)
{
	int r = 0;

	for (size_t i = 0; i < count; i++) {
		const size_t bytes = WCX_MAX(items[i].bytes, 1);

		if (items[i].outcome != WCX_CACHE_FILL || items[i].data)
			continue;
		items[i].data = aligned_alloc(DATA_ALIGN, WCX_ALIGN_UP(bytes, DATA_ALIGN));
		if (items[i].data) {
			items[i].tile->data = items[i].data;
			items[i].tile->in_heap = true;
			continue;
		}
		r = items[i].r = -ENOMEM;
		wcx_tile_cache_publish(cache, &items[i], 1);
		wcx_tile_cache_release(cache, &items[i], 1, false);
		items[i].outcome = WCX_CACHE_NO_MEMORY;
	}
	return r;
}

int wcx_tile_cache_acquire(struct wcx_tile_cache *cache, uint64_t owner, struct wcx_cache_item *items, size_t count)
{
	void *heap = NULL;

	/* Else each look-up would wait for memory, with the lock held. */
	fetch_buckets(cache, owner, items, count);
	if (lock_with_free_tiles(cache, count) < 0) {
		for (size_t i = 0; i < count; i++)
			items[i].outcome = WCX_CACHE_NO_MEMORY;
		return -ENOMEM;
	}
	for (size_t i = 0; i < count; i++)
		fetch_tile(*bucket_of(cache, owner, items[i].tile_index));
	for (size_t i = 0; i < count; i++)
		acquire_one(cache, owner, &items[i], &heap);
	pthread_mutex_unlock(&cache->lock);
	free_heap(heap);
	return use_heap(cache, items, count);
}

bool wcx_tile_cache_acquire_ready(struct wcx_tile_cache *cache, uint64_t owner, struct wcx_cache_item *item)
{
	struct wcx_cached_tile *tile;
	bool is_ready;

	pthread_mutex_lock(&cache->lock);
	tile = find_tile(cache, owner, item->tile_index);
	is_ready = tile && tile->state != FILLING;
	if (is_ready)
		acquire_one(cache, owner, item, NULL);
	pthread_mutex_unlock(&cache->lock);
	return is_ready;
}

void wcx_tile_cache_publish(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count)
{
	pthread_mutex_lock(&cache->lock);
	for (size_t i = 0; i < count; i++) {
		struct wcx_cached_tile *tile = items[i].tile;

		if (items[i].outcome != WCX_CACHE_FILL)
			continue;
		tile->state = items[i].r ? FAILED : READY;
		tile->r = items[i].r;
		if (items[i].r)
			table_remove(cache, tile); /* so that the next reader tries again */
	}
	pthread_mutex_unlock(&cache->lock);
	for (size_t i = 0; i < count; i++)
		if (items[i].outcome == WCX_CACHE_FILL)
			pthread_cond_broadcast(&items[i].tile->filled);
}

void wcx_tile_cache_wait(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count)
{
	size_t i = 0;

	while (i < count && items[i].outcome != WCX_CACHE_PENDING)
		i++;
	if (i == count)
		return;
	pthread_mutex_lock(&cache->lock);
	for (; i < count; i++) {
		struct wcx_cached_tile *tile = items[i].tile;

		if (items[i].outcome != WCX_CACHE_PENDING)
			continue;
		while (tile->state == FILLING)
			pthread_cond_wait(&tile->filled, &cache->lock);
		items[i].r = tile->r;
		items[i].data = tile->data;
	}
	pthread_mutex_unlock(&cache->lock);
}

void wcx_tile_cache_release(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count, bool drop_behind)
{
	void *heap = NULL, *ahead = NULL;
	size_t ahead_bytes;

	for (size_t i = 0; i < count; i++)
		if (items[i].outcome != WCX_CACHE_NO_MEMORY)
			fetch_tile(items[i].tile);
	pthread_mutex_lock(&cache->lock);
	for (size_t i = 0; i < count; i++) {
		struct wcx_cached_tile *tile = items[i].tile;

		if (items[i].outcome == WCX_CACHE_NO_MEMORY)
			continue;
		tile->is_done |= drop_behind;
		if (--tile->pins > 0)
			continue;
		/* The arena keeps its memory in any case; tiles in the heap would come on top, so they are not kept. */
		if (tile->in_table && !tile->is_done && !(tile->in_heap && !wcx_tile_arena_is_empty(cache->arena))) {
			lru_add(cache, tile);
			continue;
		}
		if (tile->in_table)
			table_remove(cache, tile);
		retire(cache, tile, &heap);
	}
	evict(cache, &heap);
	ahead_bytes = wcx_tile_arena_ahead(cache->arena, &ahead);
	pthread_mutex_unlock(&cache->lock);
	free_heap(heap);
	/* Here, where nobody waits for the tiles; else pages come when they are touched. */
	if (ahead_bytes)
		madvise(ahead, ahead_bytes, MADV_POPULATE_WRITE);
}

void wcx_tile_cache_get_stats(struct wcx_tile_cache *cache, struct wcx_tile_cache_stats *ret)
{
	pthread_mutex_lock(&cache->lock);
	*ret = cache->stats;
	pthread_mutex_unlock(&cache->lock);
}
