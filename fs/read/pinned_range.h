/* SPDX-License-Identifier: MIT */
/*
 * A range of addresses whose memory is pinned for a GPU, a chunk at a time, when it is first wanted.
 *
 * Pinning a chunk makes all of it resident.  Once pinning has failed it is not tried again; what is pinned stays so until
 * the range is freed.  All functions are thread-safe.  A chunk is pinned at most every WCX_PINNED_EVERY_NS: drivers pin for
 * one thread at a time and let everything else that asks them for something wait.  Nobody waits here: who wants an unpinned
 * chunk meanwhile is told that it is not pinned.
 */
#ifndef WCX_PINNED_RANGE_H
#define WCX_PINNED_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WCX_PINNED_CHUNK_BYTES = 2 << 20, /* a huge page */
	/* A chunk takes the driver 130 us.  Eight readers of fresh memory who pinned all of it had half the rate of a CPU.
	 */
	WCX_PINNED_EVERY_NS = 4000000,
};

struct wcx_pinned_range;

struct wcx_pin_calls {
	bool (*pin)(void *user, void *memory, size_t bytes); /* whether the memory is pinned now */
	void (*unpin)(void *user, void *memory, size_t bytes);
};

/*
 * wcx_pinned_range_create - describe a range, of which nothing is pinned yet
 *
 * Chunks begin at memory and have WCX_PINNED_CHUNK_BYTES, but for a shorter one at the end.  At most budget_bytes will be
 * pinned.  calls must outlive the range.  Returns NULL when there is no memory.
 */
struct wcx_pinned_range *wcx_pinned_range_create(void *memory, size_t bytes, uint64_t budget_bytes,
						 const struct wcx_pin_calls *calls, void *user);
void wcx_pinned_range_free(struct wcx_pinned_range *range); /* unpins; NULL is fine */

/*
 * wcx_pinned_range_start - pin the first bytes of the range at once, within the budget; before others use the range
 *
 * May be called again with more.  As much is kept pinned behind what is wanted: see wcx_pinned_range_pin_ahead.
 */
void wcx_pinned_range_start(struct wcx_pinned_range *range, size_t bytes);

/*
 * wcx_pinned_range_pin - whether these bytes are pinned, after trying to pin their chunk if one may be pinned now
 *
 * False for bytes outside the range or of two chunks.  now_ns: of any clock that goes forwards.
 */
bool wcx_pinned_range_pin(struct wcx_pinned_range *range, const void *memory, size_t bytes, uint64_t now_ns);

/*
 * wcx_pinned_range_pin_ahead - pin one more chunk of what has been wanted or may be next, for times when nobody wants any
 *
 * These are all chunks up to the last bytes that were wanted, since a cache uses its memory from the start on, and
 * behind them as many bytes as were pinned at the start.  Returns whether a chunk was pinned; false too while another thread
 * pins one.
 */
bool wcx_pinned_range_pin_ahead(struct wcx_pinned_range *range);

uint64_t wcx_pinned_range_bytes(const struct wcx_pinned_range *range); /* pinned now; 0 for NULL */

#endif
