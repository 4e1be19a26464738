/* SPDX-License-Identifier: MIT */
/* Pins memory for a GPU, chunk by chunk. */
#include "fs/read/pinned_range.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "codec/arith.h"

enum chunk_state { UNPINNED, PINNED };

struct wcx_pinned_range {
	uint8_t *memory;
	size_t bytes, chunk_count;
	uint64_t budget_bytes;
	const struct wcx_pin_calls *calls;
	void *user;
	_Atomic uint64_t pinned_bytes, next_ns; /* next_ns: when a chunk may be pinned again */
	_Atomic size_t used_bytes;              /* all that was wanted lies in the first so many bytes */
	size_t ahead_bytes;                     /* pinned at the start; as much is pinned behind what was wanted */
	atomic_bool has_failed, is_pinning;
	size_t next_chunk;              /* those before are pinned; for the thread that is_pinning admits */
	_Atomic unsigned char states[]; /* enum chunk_state */
};

struct wcx_pinned_range *wcx_pinned_range_create(void *memory, size_t bytes, uint64_t budget_bytes,
						 const struct wcx_pin_calls *calls, void *user)
{
	const size_t chunk_count = WCX_DIV_UP(bytes, (size_t)WCX_PINNED_CHUNK_BYTES);
	struct wcx_pinned_range *range = calloc(1, sizeof *range + chunk_count * sizeof range->states[0]);

	if (!range)
		return NULL;
	range->memory = memory;
	range->bytes = bytes;
	range->chunk_count = chunk_count;
	range->budget_bytes = budget_bytes;
	range->calls = calls;
	range->user = user;
	return range;
}

static size_t chunk_bytes(const struct wcx_pinned_range *range, size_t chunk)
{
	return WCX_MIN(range->bytes - chunk * WCX_PINNED_CHUNK_BYTES, (size_t)WCX_PINNED_CHUNK_BYTES);
}

void wcx_pinned_range_free(struct wcx_pinned_range *range)
{
	if (!range)
		return;
	for (size_t i = 0; i < range->chunk_count; i++)
		if (atomic_load(&range->states[i]) == PINNED)
			range->calls->unpin(range->user, range->memory + i * WCX_PINNED_CHUNK_BYTES, chunk_bytes(range, i));
	free(range);
}

/* Pins a chunk, on the one thread that is_pinning admits. */
static bool pin_chunk(struct wcx_pinned_range *range, size_t chunk)
{
	const size_t bytes = chunk_bytes(range, chunk);

	if (atomic_load(&range->pinned_bytes) + bytes > range->budget_bytes)
		return false;
	if (!range->calls->pin(range->user, range->memory + chunk * WCX_PINNED_CHUNK_BYTES, bytes)) {
		atomic_store(&range->has_failed, true);
		return false;
	}
	atomic_fetch_add(&range->pinned_bytes, bytes);
	atomic_store(&range->states[chunk], PINNED);
	return true;
}

void wcx_pinned_range_start(struct wcx_pinned_range *range, size_t bytes)
{
	range->is_pinning = true;
	range->ahead_bytes = WCX_MIN(bytes, range->bytes);
	for (size_t chunk = 0; chunk * WCX_PINNED_CHUNK_BYTES < range->ahead_bytes; chunk++)
		if (atomic_load(&range->states[chunk]) != PINNED && !pin_chunk(range, chunk))
			break;
	range->is_pinning = false;
}

/* Two threads at once may lose one of their values, which later calls make good. */
static void note_used(struct wcx_pinned_range *range, size_t end)
{
	if (end > atomic_load_explicit(&range->used_bytes, memory_order_relaxed))
		atomic_store_explicit(&range->used_bytes, end, memory_order_relaxed);
}

bool wcx_pinned_range_pin_ahead(struct wcx_pinned_range *range)
{
	const size_t wanted = WCX_MIN(atomic_load(&range->used_bytes) + range->ahead_bytes, range->bytes);
	const size_t chunk_count = wanted / WCX_PINNED_CHUNK_BYTES;
	bool is_pinned = false;

	if (atomic_load(&range->has_failed) || atomic_exchange(&range->is_pinning, true))
		return false;
	while (range->next_chunk < chunk_count && atomic_load(&range->states[range->next_chunk]) == PINNED)
		range->next_chunk++;
	if (range->next_chunk < chunk_count)
		is_pinned = pin_chunk(range, range->next_chunk);
	atomic_store(&range->is_pinning, false);
	return is_pinned;
}

bool wcx_pinned_range_pin(struct wcx_pinned_range *range, const void *memory, size_t bytes, uint64_t now_ns)
{
	const uintptr_t start = (uintptr_t)range->memory, at = (uintptr_t)memory;
	const size_t offset = at - start; /* checked below */
	bool is_pinned;
	size_t chunk;

	if (at < start || offset >= range->bytes || bytes == 0 || bytes > range->bytes - offset)
		return false;
	chunk = offset / WCX_PINNED_CHUNK_BYTES;
	if (chunk != (offset + bytes - 1) / WCX_PINNED_CHUNK_BYTES)
		return false;
	note_used(range, offset + bytes);
	if (atomic_load_explicit(&range->states[chunk], memory_order_acquire) == PINNED)
		return true;
	if (atomic_load(&range->has_failed) || atomic_load(&range->pinned_bytes) >= range->budget_bytes ||
	    now_ns < atomic_load_explicit(&range->next_ns, memory_order_relaxed) ||
	    atomic_exchange(&range->is_pinning, true))
		return false;
	atomic_store(&range->next_ns, now_ns + WCX_PINNED_EVERY_NS);
	is_pinned = atomic_load(&range->states[chunk]) == PINNED || pin_chunk(range, chunk);
	atomic_store(&range->is_pinning, false);
	return is_pinned;
}

uint64_t wcx_pinned_range_bytes(const struct wcx_pinned_range *range)
{
	return range ? atomic_load(&range->pinned_bytes) : 0;
}
