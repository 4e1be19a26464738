/* SPDX-License-Identifier: MIT */
/*
 * Memory for decoded tiles: one stretch of addresses, which becomes memory as it is used, in huge pages where the system has
 * them.  A fresh page costs a fault, and many threads' faults wait for each other; what was a tile a moment ago is in a
 * core's cache.  So memory that was used once stays, and goes from tile to tile.
 *
 * Not safe from several threads at a time: the caller's lock protects an arena.  None of the functions but create and free
 * asks the system for anything.
 */
#ifndef WCX_TILE_ARENA_H
#define WCX_TILE_ARENA_H

#include <stddef.h>
#include <stdint.h>

struct wcx_tile_arena;

enum {
	WCX_ARENA_MAX_BYTES = 512 << 10, /* as the largest tiles have */
	WCX_ARENA_SLOTS_MAX = 128,       /* in a slab */
};

/*
 * wcx_tile_arena_create - reserve addresses for so many bytes, rounded up to whole slabs of 512 KiB
 *
 * Where there are not so many to be had the arena is an empty one.  Returns NULL when there is no memory.
 */
struct wcx_tile_arena *wcx_tile_arena_create(uint64_t bytes);
void wcx_tile_arena_free(struct wcx_tile_arena *arena); /* with all that is in it; NULL is fine */

int wcx_tile_arena_is_empty(const struct wcx_tile_arena *arena); /* whether it has no addresses at all */

/*
 * wcx_tile_arena_take - get memory for an owner, aligned to a page
 *
 * Returns NULL when there is none in one piece, or for more than WCX_ARENA_MAX_BYTES.
 */
void *wcx_tile_arena_take(struct wcx_tile_arena *arena, size_t bytes, void *owner);

/* wcx_tile_arena_give - give memory back that was taken for so many bytes */
void wcx_tile_arena_give(struct wcx_tile_arena *arena, void *memory, size_t bytes);

/*
 * wcx_tile_arena_slab - the owners of all memory that is taken in the slab of a piece of it; returns how many
 *
 * Once they have given it back, the slab may take other sizes.
 */
size_t wcx_tile_arena_slab(const struct wcx_tile_arena *arena, const void *memory, void *owners[WCX_ARENA_SLOTS_MAX]);

/* wcx_tile_arena_slot_bytes - the memory that so many bytes take: of what has the same, one may replace the other */
size_t wcx_tile_arena_slot_bytes(size_t bytes);

#endif
