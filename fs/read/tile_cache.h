/* SPDX-License-Identifier: MIT */
/*
 * An LRU cache of decoded tiles, within a budget of bytes.
 *
 * The thread that finds a tile missing fills it; other threads that want the tile meanwhile wait for that fill.  A reader
 * pins all tiles of a batch at once, fills and publishes those that fell to it, and only then waits for the others; hence
 * readers cannot deadlock.  A pinned tile is never evicted.
 *
 * All functions are thread-safe.  None does I/O or decodes, and only wcx_tile_cache_wait blocks.
 */
#ifndef WCX_TILE_CACHE_H
#define WCX_TILE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wcx_tile_cache;
struct wcx_cached_tile;

enum wcx_cache_outcome {
	WCX_CACHE_READY,     /* data is valid */
	WCX_CACHE_FILL,      /* the caller must fill data and publish */
	WCX_CACHE_PENDING,   /* another thread is filling it: wait before reading data */
	WCX_CACHE_NO_MEMORY, /* not pinned */
};

/* A tile to pin, and then a pinned one. */
struct wcx_cache_item {
	uint64_t tile_index; /* set by the caller, like bytes */
	size_t bytes;        /* the same in every call for this tile */
	struct wcx_cached_tile *tile;
	uint8_t *data; /* the filler's to write; once ready, read-only for all */
	enum wcx_cache_outcome outcome;
	int r; /* 0, or the -errno of a failed fill: set by the filler before publishing, valid after waiting */
};

struct wcx_tile_cache_stats {
	uint64_t hits, misses, waits, evictions;
	uint64_t bytes, peak_bytes; /* of all tiles in memory, including pinned ones that have left the cache */
};

/*
 * wcx_tile_cache_create - create an empty cache
 *
 * Unpinned tiles are evicted while all tiles together exceed budget_bytes; pinned tiles may exceed it.  A budget of 0 keeps
 * nothing.  Memory of evicted tiles is kept for others, up to the budget plus 2 MiB.  Returns NULL when there is no memory.
 */
struct wcx_tile_cache *wcx_tile_cache_create(uint64_t budget_bytes);
void wcx_tile_cache_free(struct wcx_tile_cache *cache); /* NULL is fine; no tile may be pinned */

/* wcx_tile_cache_memory - the addresses where most tiles are, aligned to 2 MiB; returns how many bytes, which may be 0 */
size_t wcx_tile_cache_memory(const struct wcx_tile_cache *cache, void **start_ret);

/* wcx_tile_cache_owner - a new owner number, which with tile_index is a tile's key; tiles of a closed owner age out */
uint64_t wcx_tile_cache_owner(struct wcx_tile_cache *cache);

/*
 * wcx_tile_cache_acquire - pin tiles
 *
 * Sets all of an item but tile_index and bytes.  When a tile is listed twice, its second item is pending until the caller
 * publishes.  Returns 0; or -ENOMEM when there was no memory for some tiles: the others are pinned all the same and must be
 * published and released, for which the other functions skip the items without memory.
 */
int wcx_tile_cache_acquire(struct wcx_tile_cache *cache, uint64_t owner, struct wcx_cache_item *items, size_t count);

/* wcx_tile_cache_acquire_ready - pin a tile if it is there and ready, as of acquire; returns whether it was */
bool wcx_tile_cache_acquire_ready(struct wcx_tile_cache *cache, uint64_t owner, struct wcx_cache_item *item);

/* wcx_tile_cache_publish - end the caller's fills with the result r of each item; a failed tile leaves the cache */
void wcx_tile_cache_publish(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count);

/* wcx_tile_cache_wait - wait for the fills of other threads, and set r and data of their items */
void wcx_tile_cache_wait(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count);

/*
 * wcx_tile_cache_release - unpin tiles
 *
 * With drop_behind, tiles whose last pin this is leave the cache at once, since they will not be wanted soon.
 */
void wcx_tile_cache_release(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count, bool drop_behind);

void wcx_tile_cache_get_stats(struct wcx_tile_cache *cache, struct wcx_tile_cache_stats *ret);

#endif
