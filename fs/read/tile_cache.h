/* SPDX-License-Identifier: MIT */
/*
 * The cache of decoded tiles: least recently used out first, within a budget of bytes.
 *
 * Whoever finds a tile missing fills it, and everyone else who wants it meanwhile waits for that one fill.  A reader takes
 * all the tiles in hand that it wants at a time, fills and publishes those that are its own to fill, and only then waits for
 * the others: so nobody waits in a circle.  A tile in hand stays valid until it is released, evicted or not.
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
	WCX_CACHE_READY,     /* the bytes are there */
	WCX_CACHE_FILL,      /* the caller must write the data and publish */
	WCX_CACHE_PENDING,   /* another thread is filling it: wait before looking */
	WCX_CACHE_NO_MEMORY, /* not in hand */
};

/* A tile that is wanted, and then in hand. */
struct wcx_cache_item {
	uint64_t tile_index; /* these two are the caller's to set */
	size_t bytes;        /* the same in every call with this key */
	struct wcx_cached_tile *tile;
	uint8_t *data; /* for the filler to write, and once ready for everyone to read */
	enum wcx_cache_outcome outcome;
	int errnum; /* 0, or the negative errno of a fill that failed: set before publishing, valid after waiting */
};

struct wcx_tile_cache_stats {
	uint64_t hits, misses, waits, evictions;
	uint64_t bytes, peak_bytes; /* of all tiles alive, also those evicted but still in hand */
};

/*
 * wcx_tile_cache_create - make an empty cache
 *
 * Tiles that nobody holds are dropped as soon as all tiles together pass budget_bytes; those in hand may pass it for as long
 * as they are held.  A budget of 0 keeps nothing.  Memory that tiles had stays for others, up to the budget and 8 MiB.
 * Returns NULL when there is no memory.
 */
struct wcx_tile_cache *wcx_tile_cache_create(uint64_t budget_bytes);
void wcx_tile_cache_free(struct wcx_tile_cache *cache); /* NULL is fine; no tile may be in hand */

/* wcx_tile_cache_owner - a number that no earlier caller got: half of a tile's key; what it leaves behind ages out */
uint64_t wcx_tile_cache_owner(struct wcx_tile_cache *cache);

/*
 * wcx_tile_cache_acquire - take tiles in hand
 *
 * Sets the rest of each item.  Of a tile that is among them twice the second is pending until the caller publishes.  Returns
 * 0 or, when there is no memory for all, -ENOMEM; what is in hand then has to be published and released all the same, for
 * which the other functions pass over the rest.
 */
int wcx_tile_cache_acquire(struct wcx_tile_cache *cache, uint64_t owner, struct wcx_cache_item *items, size_t count);

/* wcx_tile_cache_publish - end the fills among the items, with what errnum says of each.  A failed tile is not kept. */
void wcx_tile_cache_publish(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count);

/* wcx_tile_cache_wait - wait for the fills of others among the items, and set errnum of all */
void wcx_tile_cache_wait(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count);

/*
 * wcx_tile_cache_release - let go of tiles
 *
 * passed: nobody will want them soon, so that they leave once nobody has them in hand.
 */
void wcx_tile_cache_release(struct wcx_tile_cache *cache, struct wcx_cache_item *items, size_t count, int passed);

void wcx_tile_cache_get_stats(struct wcx_tile_cache *cache, struct wcx_tile_cache_stats *ret);

#endif
