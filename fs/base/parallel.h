/* SPDX-License-Identifier: MIT */
/* A loop whose items run on several threads, with a place where they pass one by one in their order. */
#ifndef WCX_PARALLEL_H
#define WCX_PARALLEL_H

#include <stdatomic.h>
#include <stdint.h>

#include "fs/base/error.h"

struct wcx_parallel;

/*
 * One item of a loop.  worker is 0 to thread_count - 1, and no two items have the same at a time.  Returns 0, or -errno,
 * which ends the loop; err is the thread's own.
 */
typedef int wcx_parallel_fn(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err);

/*
 * wcx_parallel_for - run items 0 to item_count - 1
 *
 * Items are begun in their order.  *stop, which a signal handler may set, ends the loop with -EINTR; it may be NULL.  Runs
 * with fewer threads when no more can be had.  Returns 0 when all items have run, otherwise the error of the first that
 * failed, after all threads have ended.
 */
int wcx_parallel_for(unsigned thread_count, uint64_t item_count, wcx_parallel_fn *fn, void *user, const atomic_bool *stop,
		     struct wcx_error *err);

/*
 * wcx_parallel_enter, wcx_parallel_leave - do something in the order of the items
 *
 * enter waits until all items below have left; what follows until leave is done by one item at a time.  Every item of a loop
 * that uses this has to enter and leave once.  Returns 0, or -ECANCELED when the loop is ending: then the item returns that
 * without leaving.
 */
int wcx_parallel_enter(struct wcx_parallel *loop, uint64_t item);
void wcx_parallel_leave(struct wcx_parallel *loop);

#endif
