/* SPDX-License-Identifier: MIT */
/*
 * The kernel's requests with their arguments, which may be served later than they are received, and the replies.
 *
 * A reply function returns 0, or -errno if the kernel did not get this reply: because the caller has gone, or because the
 * request was answered before its time (requests.h).  Then what the kernel would have owned is still the server's.
 */
#ifndef WCX_FUSE_CALLS_H
#define WCX_FUSE_CALLS_H

#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "fs/base/error.h"
#include "fs/mount/log_limiter.h"
#include "fs/mount/node_table.h"
#include "fs/mount/requests.h"

struct wcx_prefetch_file;

/* What all calls of a session have in common. */
struct wcx_calls {
	struct wcx_requests *requests; /* NULL until wcx_calls_start */
	struct wcx_node_table *nodes;
	struct fuse_session *session;
	void (*unmount)(void *user);
	void *unmount_user;
	struct wcx_log_limiter logged;
	_Atomic uint64_t error_count; /* messages, logged or not */
	unsigned timeout_ms;
};

/* What an open handle begins with.  The kernel has one reference, and calls that were answered before their time have one.
 */
struct wcx_handle {
	atomic_uint refs;
	atomic_bool is_broken; /* such a call may still change it, so that no other one may */
	void (*close)(void *user, fuse_ino_t ino, struct wcx_handle *handle);
};

struct wcx_call {
	struct wcx_request request;
	struct wcx_calls *calls;
	fuse_req_t req; /* libfuse's; gone with the reply */
	void *user;     /* that of req */
	void (*serve)(struct wcx_call *call);
	void (*finish)(struct wcx_call *call); /* after the reply, and serve if there was memory; NULL: nothing to do */
	fuse_ino_t ino;
	const char *name; /* copied; NULL: none */
	size_t bytes;
	off_t offset;
	struct fuse_file_info fi;
	struct wcx_handle *handle;         /* NULL: none is open */
	struct wcx_prefetch_file *watched; /* what finish has to tell of the answer */
	bool is_retained;                  /* ino and handle are kept beyond the reply */
};

/* A node's inode number is its address; the root, which has no node, is FUSE_ROOT_ID. */
static inline struct wcx_node *wcx_ino_node(fuse_ino_t ino)
{
	return (struct wcx_node *)(uintptr_t)ino;
}

static inline const char *wcx_ino_path(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? "" : wcx_node_path(wcx_ino_node(ino));
}

void wcx_calls_init(struct wcx_calls *calls, struct wcx_node_table *nodes);
void wcx_calls_destroy(struct wcx_calls *calls);

/*
 * wcx_calls_start - get ready to serve on so many threads, with -EIO after timeout_ms without an answer of the store
 *
 * The caller sets unmount and unmount_user before.  Returns 0 or -ENOMEM.  wcx_calls_stop: when no call is left.
 */
int wcx_calls_start(struct wcx_calls *calls, struct fuse_session *session, unsigned threads, unsigned timeout_ms);
void wcx_calls_stop(struct wcx_calls *calls);

/* wcx_calls_end - tell that the session is being taken down: unmounts, and kills the process, if a store makes that hang */
void wcx_calls_end(struct wcx_calls *calls);

/* wcx_calls_report - log why a request for a path failed, if there is a message, and not too often */
void wcx_calls_report(struct wcx_calls *calls, const char *path, const struct wcx_error *err);

/*
 * wcx_call_start - have a call served, now or later
 *
 * call has serve, ino and the arguments.  is_for_file: it counts for the share of ino.  If memory runs out, it is answered
 * with ENOMEM, and finished.
 */
void wcx_call_start(struct wcx_calls *calls, fuse_req_t req, bool is_for_file, const struct wcx_call *call);

/* wcx_handle_put - drop a reference, and close with the last one; user is the requests' */
void wcx_handle_put(void *user, fuse_ino_t ino, struct wcx_handle *handle);

bool wcx_call_should_stop(void *call); /* a wcx_should_stop_fn */

int wcx_call_reply_err(struct wcx_call *call, int errnum);
int wcx_call_reply_entry(struct wcx_call *call, const struct fuse_entry_param *entry);
int wcx_call_reply_attr(struct wcx_call *call, const struct stat *attr, double valid_s);
int wcx_call_reply_open(struct wcx_call *call); /* with its fi */
int wcx_call_reply_buf(struct wcx_call *call, const void *bytes, size_t count);
int wcx_call_reply_iov(struct wcx_call *call, const struct iovec *slices, size_t count);
int wcx_call_reply_readlink(struct wcx_call *call, const char *target);
int wcx_call_reply_statfs(struct wcx_call *call, const struct statvfs *st);
int wcx_call_reply_xattr(struct wcx_call *call, size_t bytes);

#endif
