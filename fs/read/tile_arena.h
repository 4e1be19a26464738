/* SPDX-License-Identifier: MIT */
/*
 * An allocator for decoded tiles: one reserved range of addresses, backed by huge pages where the system has them.
 *
 * Memory that was used once is never returned to the system but reused for other tiles: a fresh page costs a page fault,
 * where threads contend, and memory used a moment ago is in a core's cache.
 *
 * Not thread-safe: the caller's lock must protect an arena.  Only create and free make system calls.
 */
#ifndef WCX_TILE_ARENA_H
#define WCX_TILE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wcx_tile_arena;

enum {
	WCX_ARENA_MAX_BYTES = 512 << 10, /* the largest tiles */
	WCX_ARENA_SLOTS_MAX = 128,       /* in a slab */
};

/*
 * wcx_tile_arena_create - reserve addresses for a number of bytes, rounded up to whole slabs of 512 KiB
 *
 * When they cannot be reserved, the arena is empty and every take fails.  Returns NULL when there is no memory.
 */
struct wcx_tile_arena *wcx_tile_arena_create(uint64_t bytes);
void wcx_tile_arena_free(struct wcx_tile_arena *arena); /* and all memory taken from it; NULL is fine */

/* wcx_tile_arena_memory - the reserved addresses, aligned to 2 MiB; returns how many bytes */
size_t wcx_tile_arena_memory(const struct wcx_tile_arena *arena, void **start_ret);

bool wcx_tile_arena_is_empty(const struct wcx_tile_arena *arena); /* whether no addresses are reserved */

/*
 * wcx_tile_arena_take - allocate memory, aligned to a page
 *
 * owner is what wcx_tile_arena_slab returns for it.  Returns NULL when no slot of the size is free, and for more than
 * WCX_ARENA_MAX_BYTES.
 */
void *wcx_tile_arena_take(struct wcx_tile_arena *arena, size_t bytes, void *owner);

/* wcx_tile_arena_give - give back memory that was taken, with the same number of bytes */
void wcx_tile_arena_give(struct wcx_tile_arena *arena, void *memory, size_t bytes);

/*
 * wcx_tile_arena_ahead - memory that will be taken soon for the first time; returns how many bytes: a huge page, or 0
 *
 * The caller should make it resident, and needs no lock for that; each huge page is returned once.  Two threads that touch
 * different slots of a huge page at the same time would both clear one, and the kernel would throw one away.  A single page
 * at a time, since whoever wants to change the process's addresses waits for the end of the call that clears, and then all
 * other such calls wait for that.
 */
size_t wcx_tile_arena_ahead(struct wcx_tile_arena *arena, void **start_ret);

/*
 * wcx_tile_arena_slab - list the owners of all memory taken from the slab that memory is in; returns their number
 *
 * Once all of it is given back, the slab can serve other sizes.
 */
size_t wcx_tile_arena_slab(const struct wcx_tile_arena *arena, const void *memory, void *owners[WCX_ARENA_SLOTS_MAX]);

/* wcx_tile_arena_slot_bytes - the size of the slot for so many bytes: tiles with equal slots can replace each other */
size_t wcx_tile_arena_slot_bytes(size_t bytes);

#endif
