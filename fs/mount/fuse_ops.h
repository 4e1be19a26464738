/* SPDX-License-Identifier: MIT */
/* The callbacks that serve a store, read-only, through FUSE's low-level interface. */
#ifndef WCX_FUSE_OPS_H
#define WCX_FUSE_OPS_H

#include <stdbool.h>

#include "fs/mount/prefetch.h"
#include "fs/mount/store.h"

/*
 * The largest request; also set as -o max_read.  The kernel sends the parts of a larger O_DIRECT read at once, and each is
 * answered by a thread of its own: copying is most of an answer.  Smaller parts cost more than they gain.
 */
enum { WCX_FUSE_READ_BYTES = 512 << 10 };

struct fuse_lowlevel_ops;
struct fuse_session;
struct wcx_fuse;
struct wcx_page_asker;

/* For fuse_session_new, with a struct wcx_fuse as user data. */
extern const struct fuse_lowlevel_ops wcx_fuse_ops;

/* Makes the status of the mount, as the attribute user.wcx.status of directories: a string to be freed, or NULL. */
typedef char *wcx_status_fn(void *user);

/* wcx_fuse_create - make what the callbacks need; the store must outlive it.  Returns 0 or -errno. */
int wcx_fuse_create(struct wcx_store *store, struct wcx_fuse **ret);
void wcx_fuse_free(struct wcx_fuse *fuse); /* after the session's loop and wcx_fuse_stop; NULL is fine */

struct wcx_fuse_options {
	struct fuse_session *session; /* mounted */
	void (*unmount)(void *user);  /* called from another thread, before the process is killed */
	void *unmount_user;
	unsigned threads;          /* of its loop */
	unsigned timeout_ms;       /* after which requests that wait for the store get EIO; 0: never */
	unsigned prefetch_threads; /* 0: no prefetching */
	unsigned pieces, decoded_pieces, file_pieces, direct_pieces, file_pushers; /* as of struct wcx_prefetch_options */
	uint64_t window_bytes; /* how far to prefetch ahead of each reader */
	uint64_t piece_bytes;  /* how much of that is decoded together, at most */
	bool drop_packed;
	struct wcx_page_asker *asker; /* the caller's; NULL: pages are pushed */
};

/* wcx_fuse_start - get ready to serve, before the session's loop; returns 0 or -ENOMEM */
int wcx_fuse_start(struct wcx_fuse *fuse, const struct wcx_fuse_options *options);

/* wcx_fuse_end - tell that the session is being taken down (wcx_calls_end); begun or not */
void wcx_fuse_end(struct wcx_fuse *fuse);

/*
 * wcx_fuse_stop - end what wcx_fuse_start began, after the session's loop and before its descriptor is closed
 *
 * Returns 0, or -ETIMEDOUT if a thread still waits for a page that only a reply, or the end of the connection, unlocks:
 * cause one of them and call again.
 */
int wcx_fuse_stop(struct wcx_fuse *fuse, unsigned timeout_ms);

/* wcx_fuse_set_status - set who makes the status, before the session's loop; until then there is none */
void wcx_fuse_set_status(struct wcx_fuse *fuse, wcx_status_fn *status, void *user);

/* wcx_fuse_error_count - how many requests failed for a reason that the log tells, whether or not it did each time */
uint64_t wcx_fuse_error_count(const struct wcx_fuse *fuse);

/* wcx_fuse_get_stats - get the counters of prefetching; after wcx_fuse_start */
void wcx_fuse_get_stats(struct wcx_fuse *fuse, struct wcx_prefetch_stats *ret);

#endif
