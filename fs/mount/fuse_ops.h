/* SPDX-License-Identifier: MIT */
/* The callbacks that serve a store, read-only, through FUSE's low-level interface. */
#ifndef WCX_FUSE_OPS_H
#define WCX_FUSE_OPS_H

#include <stdbool.h>

#include "fs/mount/prefetch.h"
#include "fs/mount/store.h"

enum { WCX_FUSE_READ_BYTES = 1 << 20 }; /* the largest read: libfuse before 3.17 takes no more; also set as -o max_read */

struct fuse_lowlevel_ops;
struct wcx_fuse;

/* For fuse_session_new, with a struct wcx_fuse as user data. */
extern const struct fuse_lowlevel_ops wcx_fuse_ops;

/* wcx_fuse_create - make what the callbacks need; the store must outlive it.  Returns 0 or -errno. */
int wcx_fuse_create(struct wcx_store *store, struct wcx_fuse **ret);
void wcx_fuse_free(struct wcx_fuse *fuse); /* after the session's loop and wcx_fuse_stop; NULL is fine */

/*
 * wcx_fuse_start - start prefetching with this many threads, at most window_bytes ahead of each reader
 *
 * Call it when the session is mounted, before its loop.  0 threads: no prefetching.  Returns 0 or -ENOMEM.
 */
int wcx_fuse_start(struct wcx_fuse *fuse, int session_fd, unsigned threads, uint64_t window_bytes, bool drop_packed);

/*
 * wcx_fuse_stop - end prefetching, after the session's loop and before its descriptor is closed
 *
 * Returns 0, or -ETIMEDOUT if a thread still waits for a page that only a reply, or the end of the connection, unlocks:
 * cause one of them and call again.
 */
int wcx_fuse_stop(struct wcx_fuse *fuse, unsigned timeout_ms);

/* wcx_fuse_get_stats - get the counters of prefetching; after wcx_fuse_start */
void wcx_fuse_get_stats(struct wcx_fuse *fuse, struct wcx_prefetch_stats *ret);

#endif
