/* SPDX-License-Identifier: MIT */
/* What the callbacks share: the state of a mounted store, and the callbacks for files, which fuse_ops.c lists. */
#ifndef WCX_FUSE_SERVER_H
#define WCX_FUSE_SERVER_H

#include <fuse_lowlevel.h>

#include "fs/mount/fuse_calls.h"
#include "fs/mount/fuse_ops.h"
#include "fs/mount/listings.h"
#include "fs/mount/node_table.h"
#include "fs/mount/page_asker.h"
#include "fs/mount/prefetch.h"
#include "fs/mount/reply_buffers.h"
#include "fs/mount/store.h"

struct wcx_fuse {
	struct wcx_store *store;
	struct wcx_prefetcher *prefetcher; /* NULL until wcx_fuse_start */
	int push_fd;                       /* the session's */
	struct wcx_page_asker *asker;      /* NULL: pages are pushed */
	struct wcx_node_table *nodes;
	struct wcx_calls calls;
	struct wcx_store_entry root; /* the store itself, when it was opened */
	struct wcx_reply_buffers buffers;
	struct wcx_listings listings;
	wcx_status_fn *status; /* NULL: none */
	void *status_user;
};

/*
 * Who opened a file last may have closed it while pages of it were still being pushed, and pages of another file cannot
 * follow before these.  That is a matter of milliseconds, and no push waits for a request that waits for it.
 */
enum { WCX_PUSHED_POLL_MS = 2, WCX_PUSHED_WAIT_MS = 2000 };

static inline struct wcx_fuse *wcx_fuse_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/*
 * wcx_fuse_followed - what was found at the path of a node, or NULL if the node may not lead there
 *
 * Who has a node need not have come by its path: a descriptor, a bind mount.  To another file than the node stands for it
 * leads only if everybody may pass the directories; else the kernel has to look the path up, and checks them.
 */
const struct wcx_store_entry *wcx_fuse_followed(struct wcx_fuse *fuse, fuse_ino_t ino, const struct wcx_store_entry *found);

/* wcx_fuse_push - a wcx_push_fn */
int wcx_fuse_push(void *user, uint64_t target, uint64_t offset, const struct iovec *segments, size_t count);

/* wcx_fuse_ask - a wcx_ask_fn, with an asker */
int wcx_fuse_ask(void *user, uint64_t target, uint64_t offset, uint64_t bytes);

void wcx_fuse_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void wcx_fuse_op_read(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *fi);
void wcx_fuse_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

#endif
