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

/*
 * wcx_tile_arena_create - reserve addresses for so many bytes, rounded up to whole slabs of 2 MiB
 *
 * Where there are not so many to be had the arena is an empty one.  Returns NULL when there is no memory.
 */
struct wcx_tile_arena *wcx_tile_arena_create(uint64_t bytes);
void wcx_tile_arena_free(struct wcx_tile_arena *arena); /* with all that is in it; NULL is fine */

/* wcx_tile_arena_take - get memory, aligned to a page; NULL when there is none in one piece, or for more than 2 MiB */
void *wcx_tile_arena_take(struct wcx_tile_arena *arena, size_t bytes);

/* wcx_tile_arena_give - give memory back that was taken for so many bytes */
void wcx_tile_arena_give(struct wcx_tile_arena *arena, void *memory, size_t bytes);

#endif
