/* SPDX-License-Identifier: MIT */
/* Keeps the arguments of requests, and replies to each once. */
#define FUSE_USE_VERSION 314

#include "fs/mount/fuse_calls.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/clock.h"

static struct wcx_call *call_of(struct wcx_request *request)
{
	return (struct wcx_call *)request; /* its first member */
}

void wcx_calls_report(struct wcx_calls *calls, const char *path, const struct wcx_error *err)
{
	struct wcx_error more; /* without what a path may have for a terminal */
	uint64_t suppressed = 0;

	if (err->text[0])
		atomic_fetch_add_explicit(&calls->error_count, 1, memory_order_relaxed);
	if (!err->text[0] || !wcx_log_limiter_admit(&calls->logged, path, err->text, wcx_now_ms(), &suppressed))
		return;
	fuse_log(FUSE_LOG_ERR, "%s\n", err->text);
	if (!suppressed)
		return;
	wcx_fail(&more, 0, "%s: %" PRIu64 " further messages were not logged", path, suppressed);
	fuse_log(FUSE_LOG_ERR, "%s\n", more.text);
}

/* --- handles --- */

void wcx_handle_put(void *user, fuse_ino_t ino, struct wcx_handle *handle)
{
	if (atomic_fetch_sub(&handle->refs, 1) == 1)
		handle->close(user, ino, handle);
}

/* --- what requests.h asks for --- */

static void serve(void *user, struct wcx_request *request)
{
	(void)user;
	call_of(request)->serve(call_of(request));
}

static void fail(void *user, struct wcx_request *request, int r)
{
	struct wcx_calls *calls = user;
	struct wcx_call *call = call_of(request);
	const char *path = wcx_ino_path(call->ino); /* before the reply, after which a queued call's node may go */
	struct wcx_error err = { .text = "" };

	if (r == -EIO) {
		wcx_fail(&err, EIO, "%s: the store has not answered for %u seconds", *path ? path : ".",
			 calls->timeout_ms / 1000);
		wcx_calls_report(calls, path, &err);
	}
	fuse_reply_err(call->req, -r);
}

static void retain(void *user, struct wcx_request *request)
{
	struct wcx_calls *calls = user;
	struct wcx_call *call = call_of(request);

	call->is_retained = true;
	if (call->handle) {
		call->handle->is_broken = true;
		atomic_fetch_add(&call->handle->refs, 1);
	}
	if (call->ino != FUSE_ROOT_ID) /* which an open handle needs too */
		wcx_node_pin(calls->nodes, wcx_ino_node(call->ino));
}

static void free_call(void *user, struct wcx_request *request)
{
	struct wcx_calls *calls = user;
	struct wcx_call *call = call_of(request);

	if (call->finish)
		call->finish(call);
	if (call->is_retained && call->handle)
		wcx_handle_put(call->user, call->ino, call->handle);
	if (call->is_retained && call->ino != FUSE_ROOT_ID)
		wcx_node_unpin(calls->nodes, wcx_ino_node(call->ino));
	free(call);
}

static bool has_ended(void *user)
{
	const struct wcx_calls *calls = user;

	return fuse_session_exited(calls->session);
}

/* Whatever is under way waits for the store, perhaps for ever.  Readers must not: the guard sees to them. */
static void give_up(void *user)
{
	struct wcx_calls *calls = user;

	fuse_log(FUSE_LOG_ERR, "the store does not answer: ending without waiting for it\n");
	calls->unmount(calls->unmount_user);
	kill(getpid(), SIGKILL);
}

static const struct wcx_request_calls request_calls = {
	.serve = serve,
	.fail = fail,
	.retain = retain,
	.free = free_call,
	.has_ended = has_ended,
	.give_up = give_up,
};

/* --- sessions and calls --- */

void wcx_calls_init(struct wcx_calls *calls, struct wcx_node_table *nodes)
{
	*calls = (struct wcx_calls){ .nodes = nodes };
	wcx_log_limiter_init(&calls->logged);
}

void wcx_calls_destroy(struct wcx_calls *calls)
{
	wcx_log_limiter_destroy(&calls->logged);
}

int wcx_calls_start(struct wcx_calls *calls, struct fuse_session *session, unsigned threads, unsigned timeout_ms)
{
	const struct wcx_request_options options = {
		.threads = threads,
		.timeout_ms = timeout_ms,
		.calls = &request_calls,
		.user = calls,
	};

	calls->session = session;
	calls->timeout_ms = timeout_ms;
	calls->requests = wcx_requests_create(&options);
	return calls->requests ? 0 : -ENOMEM;
}

void wcx_calls_end(struct wcx_calls *calls)
{
	if (calls->requests)
		wcx_requests_end(calls->requests);
}

void wcx_calls_stop(struct wcx_calls *calls)
{
	wcx_requests_free(calls->requests);
	calls->requests = NULL;
}

void wcx_call_start(struct wcx_calls *calls, fuse_req_t req, bool is_for_file, const struct wcx_call *call)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);
	const size_t name_bytes = call->name ? strlen(call->name) + 1 : 0;
	struct wcx_call *copy = malloc(sizeof *copy + name_bytes);

	if (!copy) {
		struct wcx_call failed = *call;

		failed.user = fuse_req_userdata(req);
		fuse_reply_err(req, ENOMEM);
		if (failed.finish)
			failed.finish(&failed);
		return;
	}
	*copy = *call;
	copy->calls = calls;
	copy->req = req;
	copy->user = fuse_req_userdata(req);
	copy->request.task = caller->pid;
	copy->request.ticket.user = caller->uid;
	copy->request.ticket.file = is_for_file ? call->ino : 0;
	if (call->name)
		copy->name = memcpy(copy + 1, call->name, name_bytes);
	wcx_request_submit(calls->requests, &copy->request);
}

bool wcx_call_should_stop(void *user)
{
	struct wcx_call *call = user;

	return wcx_request_should_stop(call->calls->requests, &call->request);
}

/* --- replies --- */

static bool claim(struct wcx_call *call)
{
	return wcx_request_claim(call->calls->requests, &call->request);
}

int wcx_call_reply_err(struct wcx_call *call, int errnum)
{
	return claim(call) ? fuse_reply_err(call->req, errnum) : -EALREADY;
}

int wcx_call_reply_entry(struct wcx_call *call, const struct fuse_entry_param *entry)
{
	return claim(call) ? fuse_reply_entry(call->req, entry) : -EALREADY;
}

int wcx_call_reply_attr(struct wcx_call *call, const struct stat *attr, double valid_s)
{
	return claim(call) ? fuse_reply_attr(call->req, attr, valid_s) : -EALREADY;
}

int wcx_call_reply_open(struct wcx_call *call)
{
	return claim(call) ? fuse_reply_open(call->req, &call->fi) : -EALREADY;
}

int wcx_call_reply_buf(struct wcx_call *call, const void *bytes, size_t count)
{
	return claim(call) ? fuse_reply_buf(call->req, bytes, count) : -EALREADY;
}

int wcx_call_reply_iov(struct wcx_call *call, const struct iovec *slices, size_t count)
{
	return claim(call) ? fuse_reply_iov(call->req, slices, (int)count) : -EALREADY;
}

int wcx_call_reply_readlink(struct wcx_call *call, const char *target)
{
	return claim(call) ? fuse_reply_readlink(call->req, target) : -EALREADY;
}

int wcx_call_reply_statfs(struct wcx_call *call, const struct statvfs *st)
{
	return claim(call) ? fuse_reply_statfs(call->req, st) : -EALREADY;
}

int wcx_call_reply_xattr(struct wcx_call *call, size_t bytes)
{
	return claim(call) ? fuse_reply_xattr(call->req, bytes) : -EALREADY;
}
