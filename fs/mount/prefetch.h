/* SPDX-License-Identifier: MIT */
/*
 * Has decoded what a reader will want next, and hands it on before the reader asks.
 *
 * A prefetcher watches the requests for files.  Where they go through a file in order, forwards or backwards, it works ahead
 * of the reader by a window, which grows with what has been read in this way and begins anew when the reader goes elsewhere.
 * Several readers of a file are told apart by where they are.  Threads of its own decode; what they have decoded goes to the
 * push function, which puts it where the reader will look (a FUSE server: into the kernel's page cache), or stays in the
 * tile cache, for readers that go past whatever that is.
 *
 * A reader that finds everything there asks for nothing.  So that the window can follow it, one page in half a
 * window is not pushed: the request for it says where the reader is.
 *
 * All functions are safe from any number of threads.  None but the free functions waits for anything.
 */
#ifndef WCX_PREFETCH_H
#define WCX_PREFETCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "fs/read/image.h"

enum { WCX_PREFETCH_PAGE_BYTES = 4096 };

struct wcx_prefetcher;
struct wcx_prefetch_file;

/*
 * Puts bytes at an offset, which is a multiple of WCX_PREFETCH_PAGE_BYTES, where readers will look; the size is one, too,
 * but at the end of the file.  target is the file's.  Called by several threads at a time, without a lock.  Returns 0, or
 * -errno when the target takes no more.
 */
typedef int wcx_push_fn(void *user, uint64_t target, uint64_t offset, const struct iovec *segments, size_t count);

struct wcx_prefetch_options {
	unsigned threads;      /* 0: nothing is ever done */
	uint64_t window_bytes; /* at most, of each reader */
	int drop_packed;       /* have the kernel forget the packed bytes of what was pushed */
	wcx_push_fn *push;
	void *user;
};

struct wcx_prefetch_stats {
	uint64_t pushed_bytes, decoded_bytes; /* to the target; for the cache alone */
	uint64_t requests, requested_bytes;   /* that readers sent */
	uint64_t windows, given_up;           /* readers followed, and those that went elsewhere */
};

/* wcx_prefetcher_create - start the threads; fewer where there are no more to be had.  NULL when there is no memory. */
struct wcx_prefetcher *wcx_prefetcher_create(const struct wcx_prefetch_options *options);

/*
 * wcx_prefetcher_stop - end the threads
 *
 * Returns 0 once they have ended, or -ETIMEDOUT when that takes more than timeout_ms, because a push hangs: then the caller
 * may do what lets it go on, and call again.
 */
int wcx_prefetcher_stop(struct wcx_prefetcher *prefetcher, unsigned timeout_ms);
void wcx_prefetcher_free(struct wcx_prefetcher *prefetcher); /* after it was stopped, and all files closed; NULL is fine */

/*
 * wcx_prefetch_open - begin to watch a file, for one of those that have it open
 *
 * All opens of an image with the same target share what is known of its readers; release is called with user and target, by
 * whatever thread it happens in, once nothing will be pushed to it any more.  The image is kept open.  NULL when there is no
 * memory: the file is not watched then, and release has been called.
 */
typedef void wcx_prefetch_release_fn(void *user, uint64_t target);
struct wcx_prefetch_file *wcx_prefetch_open(struct wcx_prefetcher *prefetcher, struct wcx_image *image, uint64_t target,
					    wcx_prefetch_release_fn *release);
void wcx_prefetch_close(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file); /* NULL is fine */

/*
 * wcx_prefetch_note - tell of a request; direct: of a reader that does not look where things are pushed.  NULL is fine.
 *
 * Until wcx_prefetch_answered is called for the same range, once the answer has been given, nothing is pushed there: whoever
 * asks may keep the place locked.
 */
void wcx_prefetch_note(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
		       int direct);
void wcx_prefetch_answered(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
			   int direct);

void wcx_prefetcher_get_stats(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_stats *ret);

#endif
