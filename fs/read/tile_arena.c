/* SPDX-License-Identifier: MIT */
/*
 * A slab allocator.
 *
 * A slab of 512 KiB is divided into slots of one size: a power of two or, if small, three quarters of one.  There are few
 * sizes because each can leave one slab partly used.  An empty slab can serve any size next.  The owners of taken slots are
 * recorded so that the cache can empty a slab.
 */
#include "fs/read/tile_arena.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "codec/arith.h"

enum {
	SLAB_BYTES = WCX_ARENA_MAX_BYTES,
	HUGE_BYTES = 2 << 20,
	SLOT_UNIT = 4096,
	UNITS = WCX_ARENA_SLOTS_MAX, /* in a slab */
	BITS = 64,
	/* What is made resident before it is taken: a share of what is in use, so that little of it is never used. */
	AHEAD_SHARE = 4,
	AHEAD_MAX_BYTES = 32 << 20, /* a page is zeroed in 0.4 ms, while 16 threads take 4 MiB more */
};
_Static_assert(UNITS *SLOT_UNIT == SLAB_BYTES, "the smallest slots fill a slab");

struct slab {
	struct slab *next, *previous; /* in with_space or empty */
	uint32_t units;               /* size of a slot */
	uint32_t slot_count, free_count;
	uint64_t is_free[UNITS / BITS]; /* one bit per slot */
};

struct wcx_tile_arena {
	uint8_t *memory; /* aligned to a huge page */
	void *reserved;
	size_t reserved_bytes;
	size_t slab_count, used_count; /* used_count: slabs that were ever used */
	size_t ahead_bytes;            /* end of what wcx_tile_arena_ahead has handed out */
	struct slab *empty;
	struct slab *with_space[UNITS + 1]; /* slabs with taken and free slots, by units */
	/* Of taken slots: slot 0 of every slab, then slot 1 of every slab, and so on, so that slabs with few slots touch
	 * little of it. */
	void **owners;
	struct slab slabs[];
};

static void list_remove(struct slab **list, struct slab *slab)
{
	*(slab->previous ? &slab->previous->next : list) = slab->next;
	if (slab->next)
		slab->next->previous = slab->previous;
}

static void list_add(struct slab **list, struct slab *slab)
{
	slab->previous = NULL;
	slab->next = *list;
	if (slab->next)
		slab->next->previous = slab;
	*list = slab;
}

/* Reserves addresses.  On failure the arena has no slabs. */
static void reserve(struct wcx_tile_arena *arena, size_t slab_count)
{
	size_t bytes = slab_count * SLAB_BYTES + HUGE_BYTES; /* for alignment */
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return;
	arena->reserved = memory;
	arena->reserved_bytes = bytes;
	arena->memory = (uint8_t *)memory + (HUGE_BYTES - (uintptr_t)memory % HUGE_BYTES) % HUGE_BYTES;
	arena->slab_count = slab_count;
	madvise(arena->memory, slab_count * SLAB_BYTES, MADV_HUGEPAGE); /* on failure, pages are small */
}

struct wcx_tile_arena *wcx_tile_arena_create(uint64_t bytes)
{
	const uint64_t slabs = bytes / SLAB_BYTES + (bytes % SLAB_BYTES != 0); /* bytes may be UINT64_MAX */
	const uint64_t slabs_max = SIZE_MAX / 2 / SLAB_BYTES;
	const size_t slab_count = slabs < slabs_max ? (size_t)slabs : 0;
	struct wcx_tile_arena *arena = calloc(1, sizeof *arena + slab_count * sizeof arena->slabs[0]);

	if (!arena || !slab_count)
		return arena;
	arena->owners = calloc(slab_count, UNITS * sizeof *arena->owners);
	if (!arena->owners) {
		free(arena);
		return NULL;
	}
	reserve(arena, slab_count);
	return arena;
}

void wcx_tile_arena_free(struct wcx_tile_arena *arena)
{
	if (!arena)
		return;
	if (arena->reserved)
		munmap(arena->reserved, arena->reserved_bytes);
	free(arena->owners);
	free(arena);
}

size_t wcx_tile_arena_memory(const struct wcx_tile_arena *arena, void **start_ret)
{
	*start_ret = arena->memory;
	return arena->slab_count * SLAB_BYTES;
}

bool wcx_tile_arena_is_empty(const struct wcx_tile_arena *arena)
{
	return arena->slab_count == 0;
}

/* An empty slab, preferably one used before; NULL when the arena is full. */
static struct slab *take_empty(struct wcx_tile_arena *arena)
{
	struct slab *slab = arena->empty;

	if (slab)
		list_remove(&arena->empty, slab);
	else if (arena->used_count < arena->slab_count)
		slab = &arena->slabs[arena->used_count++];
	return slab;
}

static void divide(struct slab *slab, uint32_t units)
{
	slab->units = units;
	slab->slot_count = slab->free_count = UNITS / units;
	for (uint32_t i = 0; i < UNITS / BITS; i++) {
		const uint32_t left = slab->slot_count > i * BITS ? slab->slot_count - i * BITS : 0;

		slab->is_free[i] = left >= BITS ? UINT64_MAX : (UINT64_C(1) << left) - 1;
	}
}

static uint32_t take_slot(struct slab *slab)
{
	uint32_t word = 0, bit;

	while (!slab->is_free[word])
		word++;
	bit = (uint32_t)__builtin_ctzll(slab->is_free[word]);
	slab->is_free[word] &= slab->is_free[word] - 1;
	slab->free_count--;
	return word * BITS + bit;
}

static void **owner_of(const struct wcx_tile_arena *arena, const struct slab *slab, uint32_t slot)
{
	return &arena->owners[slot * arena->slab_count + (size_t)(slab - arena->slabs)];
}

/* The size of the slot for so many bytes, in units. */
static uint32_t units_of(size_t bytes)
{
	const uint32_t units = bytes ? (uint32_t)((bytes - 1) / SLOT_UNIT + 1) : 1;
	uint32_t power = 1;

	while (power < units)
		power *= 2;
	/* Three quarters of a larger power would leave a slab with no more slots than the power itself. */
	return power > 2 && power <= UNITS / 4 && units <= power / 4 * 3 ? power / 4 * 3 : power;
}

void *wcx_tile_arena_take(struct wcx_tile_arena *arena, size_t bytes, void *owner)
{
	struct slab **list, *slab;
	uint32_t units, slot;

	if (bytes > SLAB_BYTES)
		return NULL;
	units = units_of(bytes);
	list = &arena->with_space[units];
	slab = *list;
	if (!slab) {
		slab = take_empty(arena);
		if (!slab)
			return NULL;
		divide(slab, units);
		list_add(list, slab);
	}
	slot = take_slot(slab);
	*owner_of(arena, slab, slot) = owner;
	if (!slab->free_count)
		list_remove(list, slab);
	return arena->memory + (size_t)(slab - arena->slabs) * SLAB_BYTES + (size_t)slot * units * SLOT_UNIT;
}

void wcx_tile_arena_give(struct wcx_tile_arena *arena, void *memory, size_t bytes)
{
	const size_t offset = (size_t)((uint8_t *)memory - arena->memory);
	struct slab *slab = &arena->slabs[offset / SLAB_BYTES];
	const uint32_t slot = (uint32_t)(offset % SLAB_BYTES / SLOT_UNIT) / slab->units;
	struct slab **list = &arena->with_space[units_of(bytes)];

	/* To the front: memory used last is taken first. */
	if (slab->free_count)
		list_remove(list, slab);
	slab->is_free[slot / BITS] |= UINT64_C(1) << slot % BITS;
	list_add(++slab->free_count == slab->slot_count ? &arena->empty : list, slab);
}

size_t wcx_tile_arena_ahead(struct wcx_tile_arena *arena, void **start_ret)
{
	const size_t used = arena->used_count * SLAB_BYTES, all = arena->slab_count * SLAB_BYTES;
	const size_t ahead = WCX_MIN(used / AHEAD_SHARE, (size_t)AHEAD_MAX_BYTES);
	const size_t start = WCX_MAX(arena->ahead_bytes, WCX_ALIGN_UP(used, (size_t)HUGE_BYTES));
	const size_t end = WCX_ALIGN_DOWN(WCX_MIN(used + ahead, all), (size_t)HUGE_BYTES);

	if (start >= end)
		return 0;
	arena->ahead_bytes = start + HUGE_BYTES;
	*start_ret = arena->memory + start;
	return HUGE_BYTES;
}

size_t wcx_tile_arena_slab(const struct wcx_tile_arena *arena, const void *memory, void *owners[WCX_ARENA_SLOTS_MAX])
{
	const size_t offset = (size_t)((const uint8_t *)memory - arena->memory);
	const struct slab *slab = &arena->slabs[offset / SLAB_BYTES];
	size_t count = 0;

	for (uint32_t slot = 0; slot < slab->slot_count; slot++)
		if (!(slab->is_free[slot / BITS] >> slot % BITS & 1))
			owners[count++] = *owner_of(arena, slab, slot);
	return count;
}

size_t wcx_tile_arena_slot_bytes(size_t bytes)
{
	return (size_t)units_of(bytes) * SLOT_UNIT;
}
