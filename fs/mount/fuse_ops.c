/* SPDX-License-Identifier: MIT */
/*
 * The FUSE callbacks: each translates one request to the store and replies exactly once.
 *
 * The kernel decides on access (default_permissions) by attributes and ACLs that are at most a second old.  It keeps pages
 * longer: a node of a packed file stands for the same bytes as long as it is open, and node_table.h knows whether the pages
 * of a file that is opened are right.  If a path holds another file than the kernel thinks, the reply is ESTALE, and the
 * kernel looks the path up again.
 */
#define FUSE_USE_VERSION 314

#include "fs/mount/fuse_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/clock.h"
#include "fs/mount/listings.h"
#include "fs/mount/log_limiter.h"
#include "fs/mount/node_table.h"
#include "fs/mount/reply_buffers.h"

enum {
	BACKGROUND_REQUESTS = 64, /* with the kernel's default of 12, read-ahead of several files queues up */
	CONGESTED_REQUESTS = 48,  /* three quarters, like the kernel's default */
	XATTR_BYTES = 1 << 16,    /* the kernel's limit */
};

/* How long the kernel may rely on what it was told: changes of files and of permissions show within this time. */
static const double valid_s = 1;

struct wcx_fuse {
	struct wcx_store *store;
	struct wcx_prefetcher *prefetcher; /* NULL until wcx_fuse_start */
	int push_fd;                       /* the session's */
	struct wcx_node_table *nodes;
	struct wcx_store_entry root; /* the store itself, when it was opened */
	struct wcx_reply_buffers buffers;
	struct wcx_log_limiter logged;
	struct wcx_listings listings;
};

/* Logs why a request failed, if the store has a message. */
static void report(struct wcx_fuse *fuse, const char *path, const struct wcx_error *err)
{
	uint64_t suppressed = 0;

	if (!err->text[0] || !wcx_log_limiter_admit(&fuse->logged, path, err->text, wcx_now_ms(), &suppressed))
		return;
	fuse_log(FUSE_LOG_ERR, "%s\n", err->text);
	if (suppressed)
		fuse_log(FUSE_LOG_ERR, "%s: %" PRIu64 " further messages were not logged\n", path, suppressed);
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
	/* A plain file that changes is told by its size and time, and the pages of what it was are dropped. */
	conn->want |= conn->capable &
		      (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_POSIX_ACL);
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
		param.entry_timeout = valid_s;
		fuse_reply_entry(req, &param);
		return;
	}
	if (r) {
		report(fuse, path, &err);
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
	param.generation = wcx_node_generation(node); /* its address may have been another node's before */
	param.attr_timeout = param.entry_timeout = valid_s;
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

/* What a node stands for, after a look at its path. */
static int refresh(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_entry *ret)
{
	struct wcx_store_entry now;
	struct wcx_error err;
	int r = wcx_store_lookup(fuse->store, path_of(ino), &now, &err);

	if (r && r != -ENOENT && r != -ENOTDIR) {
		report(fuse, path_of(ino), &err);
		return r;
	}
	if (ino != FUSE_ROOT_ID)
		return wcx_node_update(fuse->nodes, node_of(ino), r ? NULL : &now, ret);
	if (!r)
		*ret = now;
	return r;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct wcx_store_entry entry;
	const int r = refresh(fuse_of(req), ino, &entry);

	(void)fi;
	if (r)
		fuse_reply_err(req, -r);
	else
		fuse_reply_attr(req, &entry.attr, valid_s);
}

/* The kernel asks for ACLs, to decide on access by them; other attributes are not shown. */
static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t bytes)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct wcx_store_entry entry;
	char value[XATTR_BYTES];
	ssize_t n = -ENODATA;

	if (strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0) {
		entry_of(fuse, ino, &entry);
		n = wcx_store_get_acl(fuse->store, path_of(ino), &entry, name, value, bytes ? sizeof value : 0);
	}
	if (n >= 0 && bytes && (size_t)n > bytes)
		n = -ERANGE;
	if (n < 0)
		fuse_reply_err(req, (int)-n);
	else if (bytes)
		fuse_reply_buf(req, value, (size_t)n);
	else
		fuse_reply_xattr(req, (size_t)n);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t bytes)
{
	static const char names[][sizeof "system.posix_acl_default"] = { "system.posix_acl_access",
									 "system.posix_acl_default" };
	struct wcx_fuse *fuse = fuse_of(req);
	struct wcx_store_entry entry;
	char list[sizeof names];
	size_t used = 0;

	entry_of(fuse, ino, &entry);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(names); i++)
		if (wcx_store_get_acl(fuse->store, path_of(ino), &entry, names[i], NULL, 0) >= 0)
			used += (size_t)snprintf(list + used, sizeof list - used, "%s", names[i]) + 1;
	if (!bytes)
		fuse_reply_xattr(req, used);
	else if (used > bytes)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, list, used);
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
	struct iovec message[2 + WCX_VIEW_SLICES_MAX] = { { &header, sizeof header }, { &store, sizeof store } };

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

	wcx_node_unpin(fuse->nodes, node_of(target));
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
	wcx_node_pin(fuse->nodes, node_of(ino));
	return wcx_prefetch_open(fuse->prefetcher, image, ino, unpin_node);
}

/* --- files --- */

/* Opens what is at the path of a node, or what others have open of it. */
static int open_node(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_file **ret, bool *keep_cache_ret)
{
	struct wcx_store_file *file = NULL, *unused = NULL;
	struct wcx_store_entry now;
	struct wcx_error err;
	const int open_r = wcx_store_open(fuse->store, path_of(ino), &now, &file, &err);
	const int r = wcx_node_open(fuse->nodes, node_of(ino), open_r ? NULL : &now, &file, &unused, keep_cache_ret);

	if (r == -ESTALE && open_r && open_r != -ENOENT && open_r != -ENOTDIR) {
		report(fuse, path_of(ino), &err);
		return open_r;
	}
	wcx_store_close(fuse->store, r ? file : unused);
	*ret = file;
	return r;
}

static int open_file(struct wcx_fuse *fuse, fuse_ino_t ino, struct open_file **ret, bool *keep_cache_ret)
{
	struct open_file *open = calloc(1, sizeof *open);
	int r = open ? open_node(fuse, ino, &open->file, keep_cache_ret) : -ENOMEM;

	if (r) {
		free(open);
		return r;
	}
	open->prefetch = watch(fuse, ino, open->file);
	*ret = open;
	return 0;
}

static void close_file(struct wcx_fuse *fuse, fuse_ino_t ino, struct open_file *open)
{
	wcx_prefetch_close(fuse->prefetcher, open->prefetch);
	wcx_store_close(fuse->store, wcx_node_close(fuse->nodes, node_of(ino)));
	free(open);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct open_file *open = NULL;
	bool keep_cache = false;
	int r;

	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	r = open_file(fuse, ino, &open, &keep_cache);
	if (r) {
		fuse_reply_err(req, -r);
		return;
	}
	fi->fh = (uintptr_t)open;
	fi->keep_cache = keep_cache;
	if (fuse_reply_open(req, fi))
		close_file(fuse, ino, open); /* the open was interrupted, so no release follows */
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	close_file(fuse_of(req), ino, file_of(fi));
	fuse_reply_err(req, 0);
}

/* Whether the reader has got a signal, so that a long read ends here. */
static bool is_interrupted(void *req)
{
	return fuse_req_interrupted(req);
}

static void reply_from_buffer(fuse_req_t req, fuse_ino_t ino, struct wcx_store_file *file, void *buffer, size_t bytes,
			      off_t offset)
{
	struct wcx_error err = { .text = "" };
	ssize_t n = -ENOMEM;

	if (buffer)
		n = wcx_store_file_read(file, buffer, bytes, (uint64_t)offset, is_interrupted, req, &err);
	if (n < 0) {
		report(fuse_of(req), path_of(ino), &err);
		fuse_reply_err(req, (int)-n);
	} else {
		fuse_reply_buf(req, buffer, (size_t)n);
	}
}

/* Replies from a buffer, which works for all tiles. */
static void read_copied(fuse_req_t req, fuse_ino_t ino, struct wcx_store_file *file, size_t bytes, off_t offset)
{
	struct wcx_fuse *fuse = fuse_of(req);
	void *buffer = wcx_reply_buffer_take(&fuse->buffers);

	reply_from_buffer(req, ino, file, buffer, bytes, offset);
	wcx_reply_buffer_give_back(&fuse->buffers, buffer);
}

/*
 * Copies too: a reply spliced from the file would hand the lower file system's errors through, and would be short, which
 * means end of file, after an error in its middle.
 */
static void read_plain(fuse_req_t req, fuse_ino_t ino, struct wcx_store_file *file, size_t bytes, off_t offset)
{
	void *buffer = malloc(bytes);

	reply_from_buffer(req, ino, file, buffer, bytes, offset);
	free(buffer);
}

/* Replies straight from the tile cache, without a copy in the daemon, if one view covers the request. */
static void read_packed(fuse_req_t req, fuse_ino_t ino, struct wcx_store_file *file, size_t bytes, off_t offset)
{
	struct wcx_image *image = wcx_store_file_image(file);
	const uint64_t start = (uint64_t)offset, file_bytes = wcx_image_bytes(image);
	const uint64_t left = start < file_bytes ? file_bytes - start : 0;
	struct wcx_image_view view;

	bytes = (size_t)WCX_MIN(bytes, left);
	if (bytes == 0 || wcx_image_view_open(image, start, bytes, &view, NULL) < 0) {
		read_copied(req, ino, file, bytes, offset); /* reports the error, too */
		return;
	}
	if (view.bytes < bytes) {
		wcx_image_view_close(image, &view, false);
		read_copied(req, ino, file, bytes, offset);
		return;
	}
	wcx_image_get(image); /* the file may be closed as soon as the reply is sent */
	fuse_reply_iov(req, view.slices, (int)view.count);
	wcx_image_view_close(image, &view, false);
	wcx_image_put(image);
}

/* Reads a packed file that the prefetcher watches.  After the reply, file may be closed; watched stays until answered. */
static void read_watched(fuse_req_t req, fuse_ino_t ino, struct wcx_store_file *file, struct wcx_prefetch_file *watched,
			 size_t bytes, off_t offset, bool direct)
{
	struct wcx_prefetcher *prefetcher = fuse_of(req)->prefetcher;

	wcx_prefetch_note(prefetcher, watched, (uint64_t)offset, bytes, direct);
	read_packed(req, ino, file, bytes, offset);
	wcx_prefetch_answered(prefetcher, watched, (uint64_t)offset, bytes, direct);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *fi)
{
	struct open_file *open = file_of(fi);
	const int fd = wcx_store_file_fd(open->file);

	if (fd < 0 && bytes > WCX_FUSE_READ_BYTES) {
		fuse_reply_err(req, EINVAL); /* over max_read; a short reply would mean end of file */
		return;
	}
	if (fd < 0) {
		read_watched(req, ino, open->file, open->prefetch, bytes, offset, (fi->flags & O_DIRECT) != 0);
		return;
	}
	read_plain(req, ino, open->file, bytes, offset);
}

/* --- directories --- */

/* An open directory.  The listing is of when it was opened, or rewound. */
struct open_dir {
	struct wcx_listing *listing;
	bool was_read;
};

static struct open_dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct open_dir *)(uintptr_t)fi->fh;
}

static int list_dir(struct wcx_fuse *fuse, fuse_ino_t ino, struct open_dir *dir)
{
	struct wcx_listing *listing;
	struct wcx_store_entry entry;
	int r = refresh(fuse, ino, &entry);

	if (!r)
		r = wcx_listing_get(&fuse->listings, fuse->store, path_of(ino), &entry, &listing);
	if (r)
		return r;
	wcx_listing_put(&fuse->listings, dir->listing);
	dir->listing = listing;
	dir->was_read = false;
	return 0;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct open_dir *dir = calloc(1, sizeof *dir);
	int r = dir ? list_dir(fuse, ino, dir) : -ENOMEM;

	if (r) {
		free(dir);
		fuse_reply_err(req, -r);
		return;
	}
	fi->fh = (uintptr_t)dir;
	if (fuse_reply_open(req, fi)) {
		wcx_listing_put(&fuse->listings, dir->listing);
		free(dir);
	}
}

/* Offsets count entries: offset n continues after the first n.  The kernel sends one such request for a handle at a time. */
static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *fi)
{
	struct open_dir *dir = dir_of(fi);
	char *buffer = malloc(bytes);
	int r = buffer ? 0 : -ENOMEM;
	const struct wcx_dir_list *list;
	size_t used = 0;

	if (!r && offset == 0 && dir->was_read) /* rewinddir(3): what was added meanwhile shows */
		r = list_dir(fuse_of(req), ino, dir);
	if (r) {
		fuse_reply_err(req, -r);
		free(buffer);
		return;
	}
	dir->was_read = true;
	list = dir->listing->list;
	for (uint64_t i = (uint64_t)offset; i < list->count; i++) {
		const struct wcx_dir_item *item = &list->items[i];
		const struct stat st = { .st_ino = item->ino, .st_mode = item->type };
		size_t item_bytes = fuse_add_direntry(req, buffer + used, bytes - used, list->names + item->name_offset, &st,
						      (off_t)i + 1);

		if (item_bytes > bytes - used)
			break;
		used += item_bytes;
	}
	fuse_reply_buf(req, buffer, used);
	free(buffer);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct open_dir *dir = dir_of(fi);

	(void)ino;
	wcx_listing_put(&fuse_of(req)->listings, dir->listing);
	free(dir);
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
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
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
	wcx_listings_init(&fuse->listings);
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
	wcx_listings_destroy(&fuse->listings);
	wcx_log_limiter_destroy(&fuse->logged);
	wcx_reply_buffers_destroy(&fuse->buffers);
	free(fuse);
}
