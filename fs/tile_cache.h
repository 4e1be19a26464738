/* SPDX-License-Identifier: MIT */
/*
 * The cache of decoded tiles: least recently used out first, within a budget of bytes.
 *
 * Whoever finds a tile missing fills it, and everyone else who wants it meanwhile waits for that one fill.  To be free of
 * deadlock, a thread that wants several tiles acquires them all, fills and publishes those that are its own to fill, and
 * only then waits for the others.  A tile in hand stays valid until it is released, evicted or not.
 *
 * Every function is safe from any number of threads; none does I/O or decodes, and only wcx_tile_cache_wait blocks.
 */
#ifndef WCX_TILE_CACHE_H
#define WCX_TILE_CACHE_H

#include <stddef.h>
#include <stdint.h>

struct wcx_tile_cache;
struct wcx_cached_tile;

enum wcx_cache_outcome {
	WCX_CACHE_READY,   /* the bytes are there */
	WCX_CACHE_FILL,    /* the caller must write wcx_cached_tile_data and publish */
	WCX_CACHE_PENDING, /* another thread is filling it: wait before looking */
	WCX_CACHE_NO_MEMORY,
};

struct wcx_tile_cache_stats {
	uint64_t hits, misses, waits, evictions;
	uint64_t bytes, peak_bytes; /* of all tiles alive, also those evicted but still in hand */
};

/*
 * wcx_tile_cache_create - make an empty cache
 *
 * Tiles that nobody holds are dropped as soon as all tiles together pass budget_bytes; those in hand may pass it for as long
 * as they are held.  A budget of 0 keeps nothing.  Returns NULL when there is no memory.
 */
struct wcx_tile_cache *wcx_tile_cache_create(uint64_t budget_bytes);
void wcx_tile_cache_free(struct wcx_tile_cache *cache); /* NULL is fine; no tile may be in hand */

/* wcx_tile_cache_owner - a number that no earlier caller got: half of a tile's key; what it leaves behind ages out */
uint64_t wcx_tile_cache_owner(struct wcx_tile_cache *cache);

/*
 * wcx_tile_cache_acquire - take a tile in hand
 *
 * Unless the outcome is WCX_CACHE_NO_MEMORY, *ret must be released.  bytes must be the same for every call with this key.
 */
enum wcx_cache_outcome wcx_tile_cache_acquire(struct wcx_tile_cache *cache, uint64_t owner, uint64_t tile_index,
					      size_t bytes, struct wcx_cached_tile **ret);

/* wcx_tile_cache_publish - end a fill: errnum 0 when the bytes are there, or the negative errno that waiters get */
void wcx_tile_cache_publish(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile, int errnum);

/* wcx_tile_cache_wait - wait for the fill of a tile in hand; returns what was published.  A failed tile is not kept. */
int wcx_tile_cache_wait(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile);

/* wcx_tile_cache_release - let go of a tile; passed: nobody will want it soon, so that it leaves once nobody has it in hand */
void wcx_tile_cache_release(struct wcx_tile_cache *cache, struct wcx_cached_tile *tile, int passed);

/* The bytes of a tile in hand: for its filler to write, and once ready for everyone to read. */
uint8_t *wcx_cached_tile_data(struct wcx_cached_tile *tile);

void wcx_tile_cache_get_stats(struct wcx_tile_cache *cache, struct wcx_tile_cache_stats *ret);

#endif
