/* SPDX-License-Identifier: MIT */
/* The LRU cache of decoded tiles. */
#include "fs/tile_cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum {
	MIN_BUCKETS = 64,
	BYTES_A_BUCKET = 32 << 10, /* with tiles of 64 KiB, two buckets a tile */
	DATA_ALIGN = 64,
	SPARE_BYTES = 4 << 20, /* some batches */
};

enum tile_state { FILLING, READY, FAILED };

struct wcx_cached_tile {
	uint64_t owner, tile_index;
	size_t bytes;
	uint8_t *data;
	struct wcx_cached_tile *next_in_bucket;
	struct wcx_cached_tile *newer, *older; /* in the LRU list, which holds the tiles that nobody has in hand */
	unsigned refs;
	int in_table;
	enum tile_state state;
	int errnum;            /* when FAILED */
	pthread_cond_t filled; /* state is no longer FILLING */
};

struct wcx_tile_cache {
	uint64_t budget_bytes;
	size_t bucket_mask;
	pthread_mutex_t lock; /* protects everything below and in the tiles, but not the bytes that data points to */
	struct wcx_cached_tile **buckets;
	struct wcx_cached_tile *newest, *oldest;
	/* Tiles that have left, whose memory waits for others: what was decoded to a moment ago is in a core's cache. */
	struct wcx_cached_tile *spare; /* chained by `older` */
	uint64_t spare_bytes;          /* as the budget counts */
	uint64_t next_owner;
	struct wcx_tile_cache_stats stats;
};

struct wcx_tile_cache *wcx_tile_cache_create(uint64_t budget_bytes)
{
	struct wcx_tile_cache *cache = calloc(1, sizeof *cache);
	size_t buckets = MIN_BUCKETS;

	if (!cache)
		return NULL;
	while (buckets < budget_bytes / BYTES_A_BUCKET)
		buckets *= 2;
	cache->buckets = calloc(buckets, sizeof(struct wcx_cached_tile *));
	if (!cache->buckets) {
		free(cache);
		return NULL;
	}
	cache->bucket_mask = buckets - 1;
	cache->budget_bytes = budget_bytes;
	pthread_mutex_init(&cache->lock, NULL);
	return cache;
}

static void free_tile(struct wcx_cached_tile *tile)
{
	pthread_cond_destroy(&tile->filled);
	free(tile->data);
	free(tile);
}

void wcx_tile_cache_free(struct wcx_tile_cache *cache)
{
	if (!cache)
		return;
	while (cache->newest) {
		struct wcx_cached_tile *tile = cache->newest;

		cache->newest = tile->older;
		free_tile(tile);
	}
	while (cache->spare) {
		struct wcx_cached_tile *tile = cache->spare;

		cache->spare = tile->older;
		free_tile(tile);
	}
	pthread_mutex_destroy(&cache->lock);
	free(cache->buckets);
	free(cache);
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
		at = &(*at)->next_in_bucket;
	*at = tile->next_in_bucket;
	tile->in_table = 0;
}

/* What a tile costs the budget: small ones cost more for their bookkeeping than for their bytes. */
static uint64_t weight_of(const struct wcx_cached_tile *tile)
{
	return tile->bytes + sizeof *tile;
}

/* Puts a tile that has left aside, unless there are enough. */
static int keep_spare(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile)
{
	if (cache->spare_bytes + weight_of(tile) > SPARE_BYTES)
		return 0;
	cache->spare_bytes += weight_of(tile);
	tile->older = cache->spare;
	cache->spare = tile;
	return 1;
}

/* Takes the spare tile that was put aside last. */
static struct wcx_cached_tile *take_spare(struct wcx_tile_cache *cache)
{
	struct wcx_cached_tile *tile = cache->spare;

	if (!tile)
		return NULL;
	cache->spare = tile->older;
	cache->spare_bytes -= weight_of(tile);
	return tile;
}

/* Takes the oldest tiles that nobody holds out of the cache until it is within budget; they are chained by `older`. */
static struct wcx_cached_tile *evict(struct wcx_tile_cache *cache)
{
	struct wcx_cached_tile *evicted = NULL;

	while (cache->stats.bytes > cache->budget_bytes && cache->oldest) {
		struct wcx_cached_tile *tile = cache->oldest;

		lru_remove(cache, tile);
		table_remove(cache, tile);
		cache->stats.bytes -= weight_of(tile);
		cache->stats.evictions++;
		tile->older = evicted;
		evicted = tile;
	}
	return evicted;
}

/* Frees evicted tiles, but gives back the memory of one that has just the size wanted: fresh memory costs page faults. */
static uint8_t *recycle(struct wcx_cached_tile *evicted, size_t bytes)
{
	uint8_t *data = NULL;

	while (evicted) {
		struct wcx_cached_tile *tile = evicted;

		evicted = tile->older;
		if (!data && tile->bytes == bytes) {
			data = tile->data;
			tile->data = NULL;
		}
		free_tile(tile);
	}
	return data;
}

static struct wcx_cached_tile *find_tile(struct wcx_tile_cache *cache, uint64_t owner, uint64_t tile_index)
{
	struct wcx_cached_tile *tile = *bucket_of(cache, owner, tile_index);

	while (tile && (tile->owner != owner || tile->tile_index != tile_index))
		tile = tile->next_in_bucket;
	return tile;
}

static struct wcx_cached_tile *add_tile(struct wcx_tile_cache *cache, uint64_t owner, uint64_t tile_index, size_t bytes)
{
	struct wcx_cached_tile **bucket = bucket_of(cache, owner, tile_index);
	struct wcx_cached_tile *tile = calloc(1, sizeof *tile);

	if (!tile)
		return NULL;
	*tile = (struct wcx_cached_tile){
		.owner = owner,
		.tile_index = tile_index,
		.bytes = bytes,
		.next_in_bucket = *bucket,
		.refs = 1,
		.in_table = 1,
	};
	pthread_cond_init(&tile->filled, NULL);
	*bucket = tile;
	cache->stats.bytes += weight_of(tile);
	if (cache->stats.bytes > cache->stats.peak_bytes)
		cache->stats.peak_bytes = cache->stats.bytes;
	return tile;
}

enum wcx_cache_outcome wcx_tile_cache_acquire(struct wcx_tile_cache *cache, uint64_t owner, uint64_t tile_index,
					      size_t bytes, struct wcx_cached_tile **ret)
{
	enum wcx_cache_outcome outcome = WCX_CACHE_READY;
	struct wcx_cached_tile *tile, *spare, *evicted;

	pthread_mutex_lock(&cache->lock);
	tile = find_tile(cache, owner, tile_index);
	if (tile) {
		if (tile->refs++ == 0)
			lru_remove(cache, tile);
		if (tile->state == FILLING) {
			outcome = WCX_CACHE_PENDING;
			cache->stats.waits++;
		} else {
			cache->stats.hits++;
		}
		pthread_mutex_unlock(&cache->lock);
		*ret = tile;
		return outcome;
	}
	tile = add_tile(cache, owner, tile_index, bytes);
	if (!tile) {
		pthread_mutex_unlock(&cache->lock);
		return WCX_CACHE_NO_MEMORY;
	}
	cache->stats.misses++;
	evicted = evict(cache);
	spare = take_spare(cache);
	if (spare) {
		spare->older = evicted;
		evicted = spare;
	}
	pthread_mutex_unlock(&cache->lock);

	tile->data = recycle(evicted, bytes);
	if (!tile->data)
		tile->data = aligned_alloc(DATA_ALIGN, (bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN);
	if (!tile->data) {
		wcx_tile_cache_publish(cache, tile, -ENOMEM);
		wcx_tile_cache_release(cache, tile, 0);
		return WCX_CACHE_NO_MEMORY;
	}
	*ret = tile;
	return WCX_CACHE_FILL;
}

void wcx_tile_cache_publish(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile, int errnum)
{
	pthread_mutex_lock(&cache->lock);
	tile->state = errnum ? FAILED : READY;
	tile->errnum = errnum;
	if (errnum)
		table_remove(cache, tile); /* so that the next one who asks tries again */
	pthread_cond_broadcast(&tile->filled);
	pthread_mutex_unlock(&cache->lock);
}

int wcx_tile_cache_wait(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile)
{
	int errnum;

	pthread_mutex_lock(&cache->lock);
	while (tile->state == FILLING)
		pthread_cond_wait(&tile->filled, &cache->lock);
	errnum = tile->errnum;
	pthread_mutex_unlock(&cache->lock);
	return errnum;
}

void wcx_tile_cache_release(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile, int passed)
{
	struct wcx_cached_tile *evicted = NULL;

	pthread_mutex_lock(&cache->lock);
	if (--tile->refs == 0) {
		if (tile->in_table && !passed) {
			lru_add(cache, tile);
			evicted = evict(cache);
		} else {
			if (tile->in_table)
				table_remove(cache, tile);
			cache->stats.bytes -= weight_of(tile);
			tile->older = NULL;
			if (!passed || !keep_spare(cache, tile))
				evicted = tile;
		}
	}
	pthread_mutex_unlock(&cache->lock);
	recycle(evicted, 0);
}

uint8_t *wcx_cached_tile_data(struct wcx_cached_tile *tile)
{
	return tile->data;
}

void wcx_tile_cache_get_stats(struct wcx_tile_cache *cache, struct wcx_tile_cache_stats *ret)
{
	pthread_mutex_lock(&cache->lock);
	*ret = cache->stats;
	pthread_mutex_unlock(&cache->lock);
}
