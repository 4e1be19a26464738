/* SPDX-License-Identifier: MIT */
/*
 * Decodes ahead of readers on threads of its own, and pushes the pages to where readers look for them.
 *
 * The policy is in readahead.h: which readers are followed, and how far.  For readers of the page cache, the push function
 * puts pages there.  For direct readers, which bypass the page cache, tiles are decoded into the tile cache.
 *
 * All functions are safe from any thread.  Only wait_idle and stop block.
 */
#ifndef WCX_PREFETCH_H
#define WCX_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "fs/read/image.h"

struct wcx_prefetcher;
struct wcx_prefetch_file;

/*
 * Puts whole pages at an offset of a target's page cache; only the last page of the file is pushed short.  Called from
 * several threads at once, without a lock.  Returns 0, or -errno when the target takes no more.
 */
typedef int wcx_push_fn(void *user, uint64_t target, uint64_t offset, const struct iovec *segments, size_t count);

/*
 * Has a target ask for whole pages that are cached, without waiting, as a reader would who asks for them once.  Returns 0;
 * -EAGAIN when it cannot now, or another -errno when it never can: then they have to be pushed.
 */
typedef int wcx_ask_fn(void *user, uint64_t target, uint64_t offset, uint64_t bytes);

struct wcx_prefetch_options {
	unsigned threads; /* 0: nothing is ever done */
	/* Pieces in hand, at most: in all, and of these, not decoded yet; for the page cache of a file; for O_DIRECT. */
	unsigned pieces, decoded_pieces, file_pieces, direct_pieces;
	unsigned file_pushers; /* of file_pieces, pushed: more only wait for the lock of the file's page cache */
	uint64_t window_bytes; /* largest window of one reader */
	uint64_t piece_bytes;  /* the most that is decoded together, as of struct wcx_readahead */
	bool drop_packed;      /* evict packed bytes from the page cache once their pages were pushed */
	wcx_push_fn *push;
	wcx_ask_fn *ask; /* tried first, if it is not NULL */
	void *user;
};

struct wcx_prefetch_stats {
	uint64_t pushed_bytes, decoded_bytes; /* handed to push; decoded for direct readers */
	uint64_t requests, requested_bytes;   /* sent by readers */
	uint64_t followed, given_up;          /* readers followed, and those that then went elsewhere */
};

/*
 * wcx_prefetch_missed - tell that tiles of an O_DIRECT request were not cached
 *
 * Once all of a piece for O_DIRECT readers was cached before it was decoded, no more of the file are until this is called:
 * readers of a cached file need none.  file may be NULL.
 */
void wcx_prefetch_missed(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file);

/* wcx_prefetcher_create - start the threads, or as many as the system allows; NULL when there is no memory */
struct wcx_prefetcher *wcx_prefetcher_create(const struct wcx_prefetch_options *options);

/*
 * wcx_prefetcher_wait_idle - wait until all work that requests have caused so far is done
 *
 * For measurements and tests; not after wcx_prefetcher_stop.  Returns 0, or -ETIMEDOUT after timeout_ms.
 */
int wcx_prefetcher_wait_idle(struct wcx_prefetcher *prefetcher, unsigned timeout_ms);

/*
 * wcx_prefetcher_stop - end the threads
 *
 * Returns 0 once all have ended, or -ETIMEDOUT after timeout_ms, when a push, the store or a GPU hangs: the caller may then
 * do what makes a push return, and call again.  Called by one thread at a time.
 */
int wcx_prefetcher_stop(struct wcx_prefetcher *prefetcher, unsigned timeout_ms);

/* wcx_prefetcher_free - after stop; files that are still open are closed.  NULL is fine. */
void wcx_prefetcher_free(struct wcx_prefetcher *prefetcher);

/*
 * wcx_prefetch_open - start to watch the readers of a file
 *
 * All opens of an image with the same target share one file.  The file keeps the image open.  Each open calls release with
 * user and target exactly once, from any thread: at once if the file was open already, which is_watched tells, else after
 * the last push to it.  Returns NULL when there is no memory: the file is not watched then, and release has been called.
 */
typedef void wcx_prefetch_release_fn(void *user, uint64_t target, bool is_watched);
struct wcx_prefetch_file *wcx_prefetch_open(struct wcx_prefetcher *prefetcher, struct wcx_image *image, uint64_t target,
					    wcx_prefetch_release_fn *release);
void wcx_prefetch_close(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file); /* NULL is fine */

/*
 * wcx_prefetch_note - tell of a request before it is answered
 *
 * is_direct: the reader bypasses the page cache.  A NULL file is fine.  Nothing is pushed to the pages of the request, which
 * the kernel keeps locked, until wcx_prefetch_answered is called with the same arguments.  The file may be closed between.
 */
void wcx_prefetch_note(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
		       bool is_direct);
void wcx_prefetch_answered(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_file *file, uint64_t offset, size_t bytes,
			   bool is_direct);

void wcx_prefetcher_get_stats(struct wcx_prefetcher *prefetcher, struct wcx_prefetch_stats *ret);

#endif
