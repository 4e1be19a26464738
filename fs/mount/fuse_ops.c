/* SPDX-License-Identifier: MIT */
/*
 * The FUSE callbacks: each translates one request to the store and replies exactly once.
 *
 * A node stands for one state of one file, so its size never changes.  If the file at a path has been replaced, the reply
 * is ESTALE; the kernel then looks the path up again and gets a new node with its own page cache.  So the kernel may cache
 * files for a long time, and old pages never mix with new ones.
 */
#define FUSE_USE_VERSION 314

#include "fs/mount/fuse_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/mount/log_limiter.h"
#include "fs/mount/node_table.h"
#include "fs/mount/reply_buffers.h"

enum {
	BACKGROUND_REQUESTS = 64, /* with the kernel's default of 12, read-ahead of several files queues up */
	CONGESTED_REQUESTS = 48,  /* three quarters, like the kernel's default */
};

/* How long the kernel may cache what a lookup found. */
static const double cache_s = 3600;
static const double dir_attr_s = 1;       /* adding files changes a directory's mtime and link count */
static const double negative_entry_s = 1; /* a missing file may be created at any time */
static const double link_entry_s = 1;     /* links are never opened, so ESTALE cannot reveal a replaced one */

struct wcx_fuse {
	struct wcx_store *store;
	struct wcx_prefetcher *prefetcher; /* NULL until wcx_fuse_start */
	int push_fd;                       /* the session's */
	struct wcx_node_table *nodes;
	struct wcx_store_entry root; /* the store itself, when it was opened */
	struct wcx_reply_buffers buffers;
	struct wcx_log_limiter logged;
};

/* Logs why a request failed, if the store has a message: once per file or tile. */
static void report(struct wcx_fuse *fuse, const struct wcx_error *err)
{
	size_t count = err->text[0] ? wcx_log_limiter_admit(&fuse->logged, err->text) : 0;

	if (count)
		fuse_log(FUSE_LOG_ERR, "%s\n", err->text);
	if (count == WCX_LOG_LINES_MAX)
		fuse_log(FUSE_LOG_ERR, "%d different errors logged; further ones are not logged\n", WCX_LOG_LINES_MAX);
}

static struct wcx_fuse *fuse_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* A node's inode number is its address; the root, which has no node, is FUSE_ROOT_ID. */
static struct wcx_node *node_of(fuse_ino_t ino)
{
	return (struct wcx_node *)(uintptr_t)ino;
}

static const char *path_of(fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? "" : wcx_node_path(node_of(ino));
}

static void entry_of(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_entry *ret)
{
	if (ino == FUSE_ROOT_ID)
		*ret = fuse->root;
	else
		wcx_node_entry(fuse->nodes, node_of(ino), ret);
}

static double attr_timeout(const struct stat *attr)
{
	return S_ISDIR(attr->st_mode) ? dir_attr_s : cache_s;
}

static double entry_timeout(const struct stat *attr)
{
	return S_ISLNK(attr->st_mode) ? link_entry_s : cache_s;
}

static int child_path(fuse_ino_t parent, const char *name, char dst[PATH_MAX])
{
	const char *dir = path_of(parent);
	int bytes = snprintf(dst, PATH_MAX, "%s%s%s", dir, *dir ? "/" : "", name);

	return bytes < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* An open file.  prefetch is NULL unless the file is packed. */
struct open_file {
	struct wcx_store_file *file;
	struct wcx_prefetch_file *prefetch;
};

static struct open_file *file_of(const struct fuse_file_info *fi)
{
	return (struct open_file *)(uintptr_t)fi->fh;
}

static void op_init(void *user, struct fuse_conn_info *conn)
{
	(void)user;
	/* Both, and -o max_read: libfuse checks that option against max_read, and derives the page limit from max_write. */
	conn->max_read = WCX_FUSE_READ_BYTES;
	conn->max_write = WCX_FUSE_READ_BYTES;
	/* max_readahead holds what the kernel allows.  A server could only lower it. */
	conn->max_background = BACKGROUND_REQUESTS;
	conn->congestion_threshold = CONGESTED_REQUESTS;
	conn->want &= ~(unsigned)FUSE_CAP_AUTO_INVAL_DATA;
	conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param param = { 0 };
	struct wcx_fuse *fuse = fuse_of(req);
	struct wcx_store_entry entry;
	struct wcx_node *node;
	struct wcx_error err;
	char path[PATH_MAX];
	int r = child_path(parent, name, path);

	if (r) {
		fuse_reply_err(req, -r);
		return;
	}
	r = wcx_store_lookup(fuse->store, path, &entry, &err);
	if (r == -ENOENT) {
		param.entry_timeout = negative_entry_s;
		fuse_reply_entry(req, &param);
		return;
	}
	if (r) {
		report(fuse, &err);
		fuse_reply_err(req, -r);
		return;
	}
	node = wcx_node_take(fuse->nodes, path, &entry);
	if (!node) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	param.ino = (fuse_ino_t)(uintptr_t)node;
	param.attr = entry.attr;
	param.attr_timeout = attr_timeout(&entry.attr);
	param.entry_timeout = entry_timeout(&entry.attr);
	if (fuse_reply_entry(req, &param))
		wcx_node_drop(fuse->nodes, node, 1); /* the kernel did not get it */
}

static void forget(struct wcx_fuse *fuse, fuse_ino_t ino, uint64_t count)
{
	if (ino != FUSE_ROOT_ID)
		wcx_node_drop(fuse->nodes, node_of(ino), count);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	forget(fuse_of(req), ino, count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(fuse_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

/*
 * A file keeps the attributes of its lookup, like its pages: a process that has a replaced file open still sees the old
 * size.  A directory's attributes are read again.
 */
static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct wcx_store_entry entry, now;
	struct wcx_error err;
	int r;

	(void)fi;
	entry_of(fuse, ino, &entry);
	if (S_ISDIR(entry.attr.st_mode)) {
		r = wcx_store_lookup(fuse->store, path_of(ino), &now, &err);
		if (!r && wcx_file_id_compare(&now.id, &entry.id))
			r = -ESTALE;
		if (r) {
			fuse_reply_err(req, r == -ENOENT ? ESTALE : -r);
			return;
		}
		entry = now;
	}
	fuse_reply_attr(req, &entry.attr, attr_timeout(&entry.attr));
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct wcx_store_entry entry;
	char target[PATH_MAX];
	int r;

	entry_of(fuse, ino, &entry);
	r = wcx_store_readlink(fuse->store, path_of(ino), &entry, target, sizeof target);
	if (r)
		fuse_reply_err(req, -r);
	else
		fuse_reply_readlink(req, target);
}

/* --- read-ahead --- */

/* Pushes pages into the page cache.  Unlike fuse_lowlevel_notify_store, does not first copy several segments into one. */
static int push_pages(void *user, uint64_t target, uint64_t offset, const struct iovec *segments, size_t count)
{
	struct wcx_fuse *fuse = user;
	struct fuse_out_header header = { .error = FUSE_NOTIFY_STORE };
	struct fuse_notify_store_out store = { .nodeid = target, .offset = offset };
	struct iovec message[2 + WCX_VIEW_SEGMENTS_MAX] = { { &header, sizeof header }, { &store, sizeof store } };

	for (size_t i = 0; i < count; i++) {
		message[2 + i] = segments[i];
		store.size += (uint32_t)segments[i].iov_len;
	}
	header.len = (uint32_t)(sizeof header + sizeof store) + store.size;
	return writev(fuse->push_fd, message, (int)(2 + count)) < 0 ? -errno : 0;
}

static void unpin_node(void *user, uint64_t target)
{
	struct wcx_fuse *fuse = user;

	wcx_node_drop(fuse->nodes, node_of(target), 1);
}

/*
 * Has requests for a packed file observed.  Takes a lookup of the node: while pages may be pushed to it, its inode number
 * must not be reused, even if the kernel forgets the node.
 */
static struct wcx_prefetch_file *watch(struct wcx_fuse *fuse, fuse_ino_t ino, const struct wcx_store_file *file)
{
	struct wcx_image *image = wcx_store_file_image(file);

	if (!image || !fuse->prefetcher)
		return NULL;
	wcx_node_keep(fuse->nodes, node_of(ino));
	return wcx_prefetch_open(fuse->prefetcher, image, ino, unpin_node);
}

/* --- files --- */

static int open_file(struct wcx_fuse *fuse, fuse_ino_t ino, struct open_file **ret)
{
	struct open_file *open = calloc(1, sizeof *open);
	struct wcx_store_entry entry;
	struct wcx_error err;
	int r;

	if (!open)
		return -ENOMEM;
	entry_of(fuse, ino, &entry);
	r = wcx_store_open(fuse->store, path_of(ino), &entry, &open->file, &err);
	if (r) {
		report(fuse, &err);
		free(open);
		return r;
	}
	open->prefetch = watch(fuse, ino, open->file);
	*ret = open;
	return 0;
}

static void close_file(struct wcx_fuse *fuse, struct open_file *open)
{
	wcx_prefetch_close(fuse->prefetcher, open->prefetch);
	wcx_store_close(fuse->store, open->file);
	free(open);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct open_file *open = NULL;
	int r;

	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	r = open_file(fuse, ino, &open);
	if (r) {
		fuse_reply_err(req, -r);
		return;
	}
	fi->fh = (uintptr_t)open;
	fi->keep_cache = 1; /* the node's file has not changed, so its cached pages are valid */
	if (fuse_reply_open(req, fi))
		close_file(fuse, open); /* the open was interrupted, so no release follows */
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	close_file(fuse_of(req), file_of(fi));
	fuse_reply_err(req, 0);
}

/* Replies from a buffer, which works for all tiles. */
static void read_copied(fuse_req_t req, struct wcx_store_file *file, size_t bytes, off_t offset)
{
	struct wcx_fuse *fuse = fuse_of(req);
	void *buffer = wcx_reply_buffer_take(&fuse->buffers);
	struct wcx_error err = { .text = "" };
	ssize_t n = -ENOMEM;

	if (buffer)
		n = wcx_store_file_read(file, buffer, bytes, (uint64_t)offset, &err);
	if (n < 0) {
		report(fuse, &err);
		fuse_reply_err(req, (int)-n);
	} else {
		fuse_reply_buf(req, buffer, (size_t)n);
	}
	wcx_reply_buffer_give_back(&fuse->buffers, buffer);
}

/* Replies straight from the tile cache, without a copy in the daemon, if one view covers the request. */
static void read_packed(fuse_req_t req, struct wcx_store_file *file, size_t bytes, off_t offset)
{
	struct wcx_image *image = wcx_store_file_image(file);
	const uint64_t start = (uint64_t)offset, file_bytes = wcx_image_bytes(image);
	const uint64_t left = start < file_bytes ? file_bytes - start : 0;
	struct wcx_image_view view;

	bytes = (size_t)WCX_MIN(bytes, left);
	if (bytes == 0 || wcx_image_view_open(image, start, bytes, &view, NULL) < 0) {
		read_copied(req, file, bytes, offset); /* reports the error, too */
		return;
	}
	if (view.bytes < bytes) {
		wcx_image_view_close(image, &view, false);
		read_copied(req, file, bytes, offset);
		return;
	}
	wcx_image_get(image); /* the file may be closed as soon as the reply is sent */
	fuse_reply_iov(req, view.segments, (int)view.count);
	wcx_image_view_close(image, &view, false);
	wcx_image_put(image);
}

/* Reads a packed file that the prefetcher watches.  After the reply, file may be closed; watched stays until answered. */
static void read_watched(fuse_req_t req, struct wcx_store_file *file, struct wcx_prefetch_file *watched, size_t bytes,
			 off_t offset, bool direct)
{
	struct wcx_prefetcher *prefetcher = fuse_of(req)->prefetcher;

	wcx_prefetch_note(prefetcher, watched, (uint64_t)offset, bytes, direct);
	read_packed(req, file, bytes, offset);
	wcx_prefetch_answered(prefetcher, watched, (uint64_t)offset, bytes, direct);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *fi)
{
	struct open_file *open = file_of(fi);
	struct fuse_bufvec vec = FUSE_BUFVEC_INIT(bytes);
	int fd = wcx_store_file_fd(open->file);

	(void)ino;
	if (fd < 0 && bytes > WCX_FUSE_READ_BYTES) {
		fuse_reply_err(req, EINVAL); /* over max_read; a short reply would mean end of file */
		return;
	}
	if (fd < 0) {
		read_watched(req, open->file, open->prefetch, bytes, offset, (fi->flags & O_DIRECT) != 0);
		return;
	}
	vec.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
	vec.buf[0].fd = fd;
	vec.buf[0].pos = offset;
	fuse_reply_data(req, &vec, 0);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct wcx_dir_list *list;
	struct wcx_store_entry entry;
	int r;

	entry_of(fuse, ino, &entry);
	r = wcx_store_list(fuse->store, path_of(ino), &entry, &list);
	if (r) {
		fuse_reply_err(req, -r);
		return;
	}
	fi->fh = (uintptr_t)list;
	if (fuse_reply_open(req, fi))
		wcx_dir_list_free(list);
}

/* Offsets count entries: offset n continues after the first n. */
static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *fi)
{
	const struct wcx_dir_list *list = (const struct wcx_dir_list *)(uintptr_t)fi->fh;
	char *buffer = malloc(bytes);
	size_t used = 0;

	(void)ino;
	if (!buffer) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	for (uint64_t i = (uint64_t)offset; i < list->count; i++) {
		const struct wcx_dir_item *item = &list->items[i];
		const struct stat st = { .st_ino = item->ino, .st_mode = item->type };
		size_t item_bytes = fuse_add_direntry(req, buffer + used, bytes - used, item->name, &st, (off_t)i + 1);

		if (item_bytes > bytes - used)
			break;
		used += item_bytes;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	wcx_dir_list_free((struct wcx_dir_list *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	int r = wcx_store_statvfs(fuse_of(req)->store, &st);

	(void)ino;
	if (r)
		fuse_reply_err(req, -r);
	else
		fuse_reply_statfs(req, &st);
}

const struct fuse_lowlevel_ops wcx_fuse_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.readlink = op_readlink,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.statfs = op_statfs,
};

int wcx_fuse_create(struct wcx_store *store, struct wcx_fuse **ret)
{
	struct wcx_fuse *fuse = calloc(1, sizeof *fuse);
	struct wcx_error err;
	int r = -ENOMEM;

	if (!fuse)
		return r;
	fuse->store = store;
	fuse->nodes = wcx_node_table_create();
	if (!fuse->nodes)
		goto out;
	r = wcx_store_lookup(store, "", &fuse->root, &err);
	if (r)
		goto out;
	wcx_reply_buffers_init(&fuse->buffers, WCX_FUSE_READ_BYTES);
	wcx_log_limiter_init(&fuse->logged);
	*ret = fuse;
	return 0;
out:
	wcx_node_table_free(fuse->nodes);
	free(fuse);
	return r;
}

int wcx_fuse_start(struct wcx_fuse *fuse, int session_fd, unsigned threads, uint64_t window_bytes, bool drop_packed)
{
	const struct wcx_prefetch_options options = {
		.threads = threads,
		.window_bytes = window_bytes,
		.drop_packed = drop_packed,
		.push = push_pages,
		.user = fuse,
	};

	fuse->push_fd = session_fd;
	fuse->prefetcher = wcx_prefetcher_create(&options);
	return fuse->prefetcher ? 0 : -ENOMEM;
}

void wcx_fuse_get_stats(struct wcx_fuse *fuse, struct wcx_prefetch_stats *ret)
{
	wcx_prefetcher_get_stats(fuse->prefetcher, ret);
}

int wcx_fuse_stop(struct wcx_fuse *fuse, unsigned timeout_ms)
{
	return fuse->prefetcher ? wcx_prefetcher_stop(fuse->prefetcher, timeout_ms) : 0;
}

void wcx_fuse_free(struct wcx_fuse *fuse)
{
	if (!fuse)
		return;
	wcx_prefetcher_free(fuse->prefetcher);
	wcx_node_table_free(fuse->nodes);
	wcx_log_limiter_destroy(&fuse->logged);
	wcx_reply_buffers_destroy(&fuse->buffers);
	free(fuse);
}
