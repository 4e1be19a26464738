/* SPDX-License-Identifier: MIT */
/* The callbacks that show a store through FUSE's low-level interface, read-only. */
#ifndef WCX_FUSE_OPS_H
#define WCX_FUSE_OPS_H

#include "fs/mount/prefetch.h"
#include "fs/mount/store.h"

enum { WCX_FUSE_READ_BYTES = 1 << 20 }; /* the largest read: what libfuse before 3.17 can take; goes to -o max_read too */

struct fuse_lowlevel_ops;
struct wcx_fuse;

/* What to give fuse_session_new, with a struct wcx_fuse as user data. */
extern const struct fuse_lowlevel_ops wcx_fuse_ops;

/* wcx_fuse_create - everything the callbacks need; the store must outlive it.  Returns 0 or -errno. */
int wcx_fuse_create(struct wcx_store *store, struct wcx_fuse **ret);

/*
 * wcx_fuse_start - start to prefetch, on so many threads, at most so many bytes ahead of each reader
 *
 * Once the session is mounted, and before its loop.  Returns 0 or -ENOMEM.
 */
int wcx_fuse_start(struct wcx_fuse *fuse, int session_fd, unsigned threads, uint64_t window_bytes, int drop_packed);

/*
 * wcx_fuse_stop - end prefetching, after the loop and before the session's descriptor is closed
 *
 * Returns 0, or -ETIMEDOUT: a thread waits for a page that nobody answers for any more; ending the connection frees it.
 */
int wcx_fuse_stop(struct wcx_fuse *fuse, unsigned timeout_ms);

/* wcx_fuse_get_stats - what prefetching has done by now; after wcx_fuse_start */
void wcx_fuse_get_stats(struct wcx_fuse *fuse, struct wcx_prefetch_stats *ret);
void wcx_fuse_free(struct wcx_fuse *fuse); /* after the session's loop has ended; NULL is fine */

#endif
