/* SPDX-License-Identifier: MIT */
/* A loop whose items run on several threads, with a section that they enter one at a time, in order. */
#ifndef WCX_PARALLEL_H
#define WCX_PARALLEL_H

#include <stdatomic.h>
#include <stdint.h>

#include "fs/base/error.h"

struct wcx_parallel;

/*
 * Cores that several pieces of work share, such as files that are packed side by side.  Each has as many threads as there
 * are cores for one; when a piece ends and is not followed by another, the loops of the others start more.
 */
struct wcx_core_share {
	unsigned cores;      /* in all, at least 1 */
	atomic_uint workers; /* pieces of work that run, at least 1; must not grow */
};

/* wcx_core_share_threads - how many threads a piece of work may have now: up to thread_count; all of them if share is NULL
 */
unsigned wcx_core_share_threads(const struct wcx_core_share *share, unsigned thread_count);

/*
 * Runs one item of a loop.  worker is 0 to thread_count - 1; no two items running at the same time have the same.  Returns
 * 0, or -errno to end the loop.  err is the thread's own.
 */
typedef int wcx_parallel_fn(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err);

/*
 * wcx_parallel_for, wcx_parallel_for_shared - run items 0 to item_count - 1
 *
 * Items start in order.  Once *stop is true, which a signal handler may set, the loop ends with -EINTR; stop may be NULL.
 * share, which may be NULL, limits the threads to a part of the cores.  When threads cannot be created, fewer are used.
 * Returns after all threads have ended: 0 when all items have run, otherwise the error of the first item that failed.
 */
int wcx_parallel_for(unsigned thread_count, uint64_t item_count, wcx_parallel_fn *fn, void *user, const atomic_bool *stop,
		     struct wcx_error *err);
int wcx_parallel_for_shared(const struct wcx_core_share *share, unsigned thread_count, uint64_t item_count,
			    wcx_parallel_fn *fn, void *user, const atomic_bool *stop, struct wcx_error *err);

/*
 * wcx_parallel_enter, wcx_parallel_leave - the ordered section of an item
 *
 * enter waits until all items before this one have left.  In a loop that uses this, every item must enter and leave exactly
 * once.  enter returns 0; or -ECANCELED when the loop is ending, which the item must return without leaving.
 */
int wcx_parallel_enter(struct wcx_parallel *loop, uint64_t item);
void wcx_parallel_leave(struct wcx_parallel *loop);

#endif
