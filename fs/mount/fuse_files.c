/* SPDX-License-Identifier: MIT */
/* The callbacks for files: opening, reading, and pushing pages ahead of readers. */
#define FUSE_USE_VERSION 314

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/mount/fuse_server.h"

/* An open file.  prefetch is NULL unless the file is packed. */
struct open_file {
	struct wcx_handle handle;
	struct wcx_store_file *file;
	struct wcx_prefetch_file *prefetch;
	bool is_own; /* opened by the page asker: who reads it is not watched, and reads it once */
};

static struct open_file *file_of(const struct fuse_file_info *fi)
{
	return (struct open_file *)(uintptr_t)fi->fh;
}

/* --- read-ahead --- */

/* Pushes pages into the page cache.  Unlike fuse_lowlevel_notify_store, does not first copy several segments into one. */
int wcx_fuse_push(void *user, uint64_t target, uint64_t offset, const struct iovec *segments, size_t count)
{
	struct wcx_fuse *fuse = user;
	struct fuse_out_header header = { .error = FUSE_NOTIFY_STORE };
	struct fuse_notify_store_out store = { .nodeid = target, .offset = offset };
	struct iovec message[2 + WCX_VIEW_SLICES_MAX] = { { &header, sizeof header }, { &store, sizeof store } };

	for (size_t i = 0; i < count; i++) {
		message[2 + i] = segments[i];
		store.size += (uint32_t)segments[i].iov_len;
	}
	header.len = (uint32_t)(sizeof header + sizeof store) + store.size;
	return writev(fuse->push_fd, message, (int)(2 + count)) < 0 ? -errno : 0;
}

/* Has the kernel ask for pages, of which all tiles are cached. */
int wcx_fuse_ask(void *user, uint64_t target, uint64_t offset, uint64_t bytes)
{
	struct wcx_fuse *fuse = user;

	return wcx_page_asker_ask(fuse->asker, target, wcx_ino_path(target), offset, bytes);
}

static void unpin_node(void *user, uint64_t target, bool is_watched)
{
	struct wcx_fuse *fuse = user;

	if (!is_watched) /* otherwise, others have pages asked for */
		wcx_page_asker_close(fuse->asker, target);
	wcx_node_unpin(fuse->nodes, wcx_ino_node(target));
}

/*
 * Has requests for a packed file observed.  Pins the node: while pages may be pushed to it, its number must not be reused,
 * even if the kernel forgets it.
 */
static struct wcx_prefetch_file *watch(struct wcx_fuse *fuse, fuse_ino_t ino, const struct wcx_store_file *file)
{
	struct wcx_image *image = wcx_store_file_image(file);

	if (!image || !fuse->prefetcher)
		return NULL;
	wcx_node_pin(fuse->nodes, wcx_ino_node(ino));
	return wcx_prefetch_open(fuse->prefetcher, image, ino, unpin_node);
}

/* --- files --- */

/* Has the kernel ask for a file's attributes before it relies on them again.  Its pages stay, so this waits for nobody. */
static void forget_attributes(struct wcx_fuse *fuse, fuse_ino_t ino)
{
	struct fuse_out_header header = { .error = FUSE_NOTIFY_INVAL_INODE };
	struct fuse_notify_inval_inode_out inval = { .ino = ino, .off = -1 };
	const struct iovec message[] = { { &header, sizeof header }, { &inval, sizeof inval } };

	header.len = sizeof header + sizeof inval;
	if (writev(fuse->push_fd, message, WCX_ARRAY_COUNT(message)) < 0)
		fuse_log(FUSE_LOG_DEBUG, "attributes are kept: %s\n", strerror(errno));
}

/* Opens what is at the path of a node, or what others have open of it. */
static int open_node(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_file **ret, bool *keep_cache_ret)
{
	struct wcx_store_file *file = NULL, *unused = NULL;
	struct wcx_store_entry now;
	struct wcx_error err;
	const int open_r = wcx_store_open(fuse->store, wcx_ino_path(ino), &now, &file, &err);
	const struct wcx_store_entry *found = open_r ? NULL : wcx_fuse_followed(fuse, ino, &now);
	bool keep_size = true;
	int r = -EAGAIN;

	for (int waited_ms = 0; r == -EAGAIN && waited_ms < WCX_PUSHED_WAIT_MS; waited_ms += WCX_PUSHED_POLL_MS) {
		if (waited_ms)
			poll(NULL, 0, WCX_PUSHED_POLL_MS);
		r = wcx_node_open(fuse->nodes, wcx_ino_node(ino), found, &file, &unused, keep_cache_ret, &keep_size);
	}
	if (r == -EAGAIN)
		r = -ESTALE;
	if (r == -ESTALE && open_r && open_r != -ENOENT && open_r != -ENOTDIR) {
		wcx_calls_report(&fuse->calls, wcx_ino_path(ino), &err);
		return open_r;
	}
	wcx_store_close(fuse->store, r ? file : unused);
	if (r || !keep_size)
		forget_attributes(fuse, ino);
	*ret = file;
	return r;
}

static void close_file(void *user, fuse_ino_t ino, struct wcx_handle *handle)
{
	struct open_file *open = (struct open_file *)handle;
	struct wcx_fuse *fuse = user;

	wcx_prefetch_close(fuse->prefetcher, open->prefetch);
	wcx_store_close_later(fuse->store, wcx_node_close(fuse->nodes, wcx_ino_node(ino)));
	free(open);
}

static int open_file(struct wcx_fuse *fuse, fuse_ino_t ino, pid_t task, struct open_file **ret, bool *keep_cache_ret)
{
	struct open_file *open = calloc(1, sizeof *open);
	int r = open ? open_node(fuse, ino, &open->file, keep_cache_ret) : -ENOMEM;

	if (r) {
		free(open);
		return r;
	}
	open->handle.refs = 1;
	open->handle.close = close_file;
	open->is_own = wcx_page_asker_is_own(fuse->asker, ino, task);
	if (!open->is_own)
		open->prefetch = watch(fuse, ino, open->file);
	*ret = open;
	return 0;
}

static void serve_open(struct wcx_call *call)
{
	struct open_file *open = NULL;
	bool keep_cache = false;
	const int r = open_file(call->user, call->ino, call->request.task, &open, &keep_cache);

	if (r) {
		wcx_call_reply_err(call, -r);
		return;
	}
	call->fi.fh = (uintptr_t)open;
	call->fi.keep_cache = keep_cache;
	call->fi.noflush = open->is_own; /* whoever closes it must not wait */
	if (wcx_call_reply_open(call))
		wcx_handle_put(call->user, call->ino, &open->handle); /* no release follows */
}

void wcx_fuse_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	if ((fi->flags & O_ACCMODE) != O_RDONLY)
		fuse_reply_err(req, EROFS);
	else
		wcx_call_start(&wcx_fuse_of(req)->calls, req, true,
			       &(struct wcx_call){ .serve = serve_open, .ino = ino, .fi = *fi });
}

void wcx_fuse_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	wcx_handle_put(wcx_fuse_of(req), ino, &file_of(fi)->handle);
	fuse_reply_err(req, 0);
}

static void reply_from_buffer(struct wcx_call *call, struct wcx_store_file *file, void *buffer, size_t bytes)
{
	struct wcx_error err = { .text = "" };
	ssize_t n = -ENOMEM;

	if (buffer)
		n = wcx_store_file_read(file, buffer, bytes, (uint64_t)call->offset, wcx_call_should_stop, call, &err);
	if (n < 0) {
		wcx_calls_report(call->calls, wcx_ino_path(call->ino), &err);
		wcx_call_reply_err(call, (int)-n);
	} else {
		wcx_call_reply_buf(call, buffer, (size_t)n);
	}
}

static bool is_direct(const struct wcx_call *call)
{
	return (call->fi.flags & O_DIRECT) != 0;
}

/* Tells read-ahead that what a request wants was not all cached, or may not have been. */
static void note_missed(const struct wcx_call *call)
{
	const struct wcx_fuse *fuse = call->user;

	if (is_direct(call))
		wcx_prefetch_missed(fuse->prefetcher, call->watched);
}

/* Replies from a buffer, which works for all tiles. */
static void read_copied(struct wcx_call *call, struct wcx_store_file *file, size_t bytes)
{
	struct wcx_fuse *fuse = call->user;
	void *buffer = wcx_reply_buffer_take(&fuse->buffers);

	note_missed(call);
	reply_from_buffer(call, file, buffer, bytes);
	wcx_reply_buffer_give_back(&fuse->buffers, buffer);
}

/*
 * Copies too: a reply spliced from the file would hand the lower file system's errors through, and would be short, which
 * means end of file, after an error in its middle.
 */
static void serve_plain(struct wcx_call *call)
{
	const struct open_file *open = (const struct open_file *)call->handle;
	void *buffer = malloc(call->bytes);

	reply_from_buffer(call, open->file, buffer, call->bytes);
	free(buffer);
}

/* Replies straight from the tile cache, without a copy in the daemon, if one view covers the request. */
static void serve_packed(struct wcx_call *call)
{
	const struct open_file *open = (const struct open_file *)call->handle;
	struct wcx_store_file *file = open->file;
	struct wcx_image *image = wcx_store_file_image(file);
	const uint64_t start = (uint64_t)call->offset, file_bytes = wcx_image_bytes(image);
	const bool is_own = open->is_own;
	const size_t bytes = (size_t)WCX_MIN(call->bytes, start < file_bytes ? file_bytes - start : 0);
	struct wcx_image_view view;

	if (bytes == 0 || wcx_image_view_open(image, start, bytes, &view, NULL) < 0) {
		read_copied(call, file, bytes); /* reports the error, too */
		return;
	}
	if (view.bytes < bytes) {
		wcx_image_view_close(image, &view, WCX_VIEW_KEEP);
		read_copied(call, file, bytes);
		return;
	}
	if (!view.was_cached)
		note_missed(call);
	wcx_image_get(image); /* the file may be closed as soon as the reply is sent */
	wcx_call_reply_iov(call, view.slices, view.count);
	wcx_image_view_close(image, &view, is_own ? WCX_VIEW_DROP_READ : WCX_VIEW_KEEP);
	wcx_image_put(image);
}

/* The file may be closed by now; what watches it stays until this. */
static void finish_packed(struct wcx_call *call)
{
	struct wcx_fuse *fuse = call->user;

	wcx_prefetch_answered(fuse->prefetcher, call->watched, (uint64_t)call->offset, call->bytes, is_direct(call));
}

void wcx_fuse_op_read(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *fi)
{
	struct open_file *open = file_of(fi);
	struct wcx_call call = {
		.serve = serve_plain,
		.ino = ino,
		.bytes = bytes,
		.offset = offset,
		.fi = *fi,
		.handle = &open->handle,
	};

	if (wcx_store_file_fd(open->file) < 0) {
		if (bytes > WCX_FUSE_READ_BYTES) {
			fuse_reply_err(req, EINVAL); /* over max_read; a short reply would mean end of file */
			return;
		}
		call.serve = serve_packed;
		call.finish = finish_packed;
		call.watched = open->prefetch;
		wcx_prefetch_note(wcx_fuse_of(req)->prefetcher, call.watched, (uint64_t)offset, bytes, is_direct(&call));
	}
	wcx_call_start(&wcx_fuse_of(req)->calls, req, true, &call);
}
