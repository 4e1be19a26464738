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

#include <errno.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "fs/mount/attributes.h"
#include "fs/mount/fuse_server.h"

enum {
	/*
	 * Direct reads and read-ahead.  Beyond the first number those of all users wait in the kernel, in order of arrival:
	 * so as many as can be, since here they wait by user and file.  Beyond the second the kernel omits what nobody waits
	 * for.
	 */
	BACKGROUND_REQUESTS = 65535,
	CONGESTED_REQUESTS = 48,
	XATTR_BYTES = 1 << 16,     /* the kernel's limit */
	STATUS_GROWTH_BYTES = 256, /* its numbers may have more digits when it is read than when its size was asked for */
};

/* How long the kernel may rely on what it was told: changes of files and of permissions show within this time. */
static const double valid_s = 1;

static void entry_of(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_entry *ret)
{
	if (ino == FUSE_ROOT_ID)
		*ret = fuse->root;
	else
		wcx_node_entry(fuse->nodes, wcx_ino_node(ino), ret);
}

static int child_path(fuse_ino_t parent, const char *name, char dst[PATH_MAX])
{
	const char *dir = wcx_ino_path(parent);
	int bytes = snprintf(dst, PATH_MAX, "%s%s%s", dir, *dir ? "/" : "", name);

	return bytes < PATH_MAX ? 0 : -ENAMETOOLONG;
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

static void serve_lookup(struct wcx_call *call)
{
	struct fuse_entry_param param = { 0 };
	struct wcx_fuse *fuse = call->user;
	struct wcx_store_entry entry;
	struct wcx_node *node;
	struct wcx_error err;
	char path[PATH_MAX];
	int r = child_path(call->ino, call->name, path);

	if (r) {
		wcx_call_reply_err(call, -r);
		return;
	}
	r = wcx_store_lookup(fuse->store, path, &entry, &err);
	if (r == -ENOTDIR) /* the parent's path leads elsewhere by now, such as by a link: the kernel looks it up again */
		r = -ESTALE;
	if (r == -ENOENT) {
		param.entry_timeout = valid_s;
		wcx_call_reply_entry(call, &param);
		return;
	}
	if (r) {
		wcx_calls_report(&fuse->calls, path, &err);
		wcx_call_reply_err(call, -r);
		return;
	}
	node = wcx_node_take(fuse->nodes, path, &entry);
	if (!node) {
		wcx_call_reply_err(call, ENOMEM);
		return;
	}
	param.ino = (fuse_ino_t)(uintptr_t)node;
	param.attr = entry.attr;
	param.generation = wcx_node_generation(node); /* its address may have been another node's before */
	param.attr_timeout = param.entry_timeout = valid_s;
	if (wcx_call_reply_entry(call, &param))
		wcx_node_drop(fuse->nodes, node, 1); /* the kernel did not get it */
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	wcx_call_start(&wcx_fuse_of(req)->calls, req, false,
		       &(struct wcx_call){ .serve = serve_lookup, .ino = parent, .name = name });
}

static void forget(struct wcx_fuse *fuse, fuse_ino_t ino, uint64_t count)
{
	if (ino != FUSE_ROOT_ID)
		wcx_node_drop(fuse->nodes, wcx_ino_node(ino), count);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	forget(wcx_fuse_of(req), ino, count);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(wcx_fuse_of(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

const struct wcx_store_entry *wcx_fuse_followed(struct wcx_fuse *fuse, fuse_ino_t ino, const struct wcx_store_entry *found)
{
	struct wcx_store_entry known;

	wcx_node_entry(fuse->nodes, wcx_ino_node(ino), &known);
	return wcx_file_id_compare(&known.id, &found->id) == 0 || wcx_store_is_passable(fuse->store, wcx_ino_path(ino))
		       ? found
		       : NULL;
}

/*
 * Looks at the file that a node has open, if there is one, when its path does not lead there: it may grow, and have another
 * name.  Returns whether that told what the node stands for.
 */
static bool refresh_open(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_entry *ret)
{
	struct wcx_node *node = wcx_ino_node(ino);
	struct wcx_store_file *file = ino == FUSE_ROOT_ID ? NULL : wcx_node_reopen(fuse->nodes, node);
	struct wcx_store_entry now;
	bool is_told;

	if (!file)
		return false;
	is_told = wcx_store_file_stat(file, &now) == 0 && wcx_node_update(fuse->nodes, node, &now, ret) == 0;
	wcx_store_close(fuse->store, wcx_node_close(fuse->nodes, node));
	return is_told;
}

static int update_node(struct wcx_fuse *fuse, fuse_ino_t ino, const struct wcx_store_entry *now, struct wcx_store_entry *ret)
{
	int r = wcx_node_update(fuse->nodes, wcx_ino_node(ino), now, ret);

	for (int waited_ms = 0; r == -EAGAIN && waited_ms < WCX_PUSHED_WAIT_MS; waited_ms += WCX_PUSHED_POLL_MS) {
		poll(NULL, 0, WCX_PUSHED_POLL_MS);
		r = wcx_node_update(fuse->nodes, wcx_ino_node(ino), now, ret);
	}
	return r == -EAGAIN ? 0 : r;
}

/* What a node stands for, after a look at its path. */
static int refresh(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_entry *ret)
{
	struct wcx_store_entry now;
	struct wcx_error err;
	int r = wcx_store_lookup(fuse->store, wcx_ino_path(ino), &now, &err);

	if (r && r != -ENOENT && r != -ENOTDIR) {
		if (refresh_open(fuse, ino, ret))
			return 0;
		wcx_calls_report(&fuse->calls, wcx_ino_path(ino), &err);
		return r;
	}
	if (ino != FUSE_ROOT_ID) {
		r = update_node(fuse, ino, r ? NULL : wcx_fuse_followed(fuse, ino, &now), ret);
		if (!r && !ret->attr.st_nlink)
			refresh_open(fuse, ino, ret);
	} else if (!r) {
		*ret = now;
	}
	return r;
}

static void serve_getattr(struct wcx_call *call)
{
	struct wcx_store_entry entry;
	const int r = refresh(call->user, call->ino, &entry);

	if (r)
		wcx_call_reply_err(call, -r);
	else
		wcx_call_reply_attr(call, &entry.attr, valid_s);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	wcx_call_start(&wcx_fuse_of(req)->calls, req, true, &(struct wcx_call){ .serve = serve_getattr, .ino = ino });
}

static ssize_t get_status(struct wcx_fuse *fuse, char *dst, size_t dst_bytes)
{
	char *text = fuse->status ? fuse->status(fuse->status_user) : NULL;
	ssize_t n = text ? (ssize_t)strlen(text) : -ENODATA;

	if (n > (ssize_t)dst_bytes)
		n = -ERANGE;
	if (n > 0)
		memcpy(dst, text, (size_t)n);
	free(text);
	return n;
}

/* The ACL of what a node stands for, which its path may not hold any more. */
static ssize_t get_acl(struct wcx_fuse *fuse, fuse_ino_t ino, struct wcx_store_entry *entry, const char *name, void *dst,
		       size_t dst_bytes)
{
	ssize_t n = wcx_store_get_acl(fuse->store, wcx_ino_path(ino), entry, name, dst, dst_bytes);
	struct wcx_store_file *file = NULL;

	if (n != -ESTALE || ino == FUSE_ROOT_ID)
		return n;
	file = wcx_node_reopen(fuse->nodes, wcx_ino_node(ino));
	if (file) {
		n = wcx_store_file_get_acl(file, name, dst, dst_bytes);
		wcx_store_close(fuse->store, wcx_node_close(fuse->nodes, wcx_ino_node(ino)));
		return n;
	}
	n = refresh(fuse, ino, entry);
	return n ? n : wcx_store_get_acl(fuse->store, wcx_ino_path(ino), entry, name, dst, dst_bytes);
}

/* The kernel asks for ACLs, to decide on access by them.  Attributes of ours are made; what else is stored is not shown. */
static void serve_getxattr(struct wcx_call *call)
{
	struct wcx_fuse *fuse = call->user;
	const char *name = call->name;
	const size_t bytes = call->bytes;
	struct wcx_store_entry entry;
	char value[XATTR_BYTES];
	ssize_t n = -ENODATA;

	entry_of(fuse, call->ino, &entry);
	if (strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0)
		n = get_acl(fuse, call->ino, &entry, name, value, bytes ? sizeof value : 0);
	else if (strcmp(name, WCX_ATTRIBUTE_STATUS) == 0 && S_ISDIR(entry.attr.st_mode))
		n = get_status(fuse, value, sizeof value);
	else
		n = wcx_attribute_get(fuse->store, wcx_ino_path(call->ino), &entry, name, value, sizeof value);
	if (n == -ENOENT || n == -ENOTDIR)
		n = -ESTALE;
	if (n >= 0 && !bytes && strcmp(name, WCX_ATTRIBUTE_STATUS) == 0)
		n += STATUS_GROWTH_BYTES;
	if (n >= 0 && bytes && (size_t)n > bytes)
		n = -ERANGE;
	if (n < 0)
		wcx_call_reply_err(call, (int)-n);
	else if (bytes)
		wcx_call_reply_buf(call, value, (size_t)n);
	else
		wcx_call_reply_xattr(call, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t bytes)
{
	wcx_call_start(&wcx_fuse_of(req)->calls, req, true,
		       &(struct wcx_call){ .serve = serve_getxattr, .ino = ino, .name = name, .bytes = bytes });
}

static void serve_listxattr(struct wcx_call *call)
{
	static const char names[][sizeof "system.posix_acl_default"] = { "system.posix_acl_access",
									 "system.posix_acl_default" };
	struct wcx_fuse *fuse = call->user;
	const fuse_ino_t ino = call->ino;
	const size_t bytes = call->bytes;
	struct wcx_store_entry entry;
	char list[sizeof names + WCX_ATTRIBUTE_LIST_BYTES];
	size_t used = 0;

	entry_of(fuse, ino, &entry);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(names); i++)
		if (get_acl(fuse, ino, &entry, names[i], NULL, 0) >= 0)
			used += (size_t)snprintf(list + used, sizeof list - used, "%s", names[i]) + 1;
	used += wcx_attribute_list(&entry, list + used);
	if (!bytes)
		wcx_call_reply_xattr(call, used);
	else if (used > bytes)
		wcx_call_reply_err(call, ERANGE);
	else
		wcx_call_reply_buf(call, list, used);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t bytes)
{
	wcx_call_start(&wcx_fuse_of(req)->calls, req, true,
		       &(struct wcx_call){ .serve = serve_listxattr, .ino = ino, .bytes = bytes });
}

static void serve_readlink(struct wcx_call *call)
{
	struct wcx_fuse *fuse = call->user;
	const fuse_ino_t ino = call->ino;
	struct wcx_store_entry entry;
	char target[PATH_MAX];
	int r;

	entry_of(fuse, ino, &entry);
	r = wcx_store_readlink(fuse->store, wcx_ino_path(ino), &entry, target, sizeof target);
	if (r)
		wcx_call_reply_err(call, -r);
	else
		wcx_call_reply_readlink(call, target);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	wcx_call_start(&wcx_fuse_of(req)->calls, req, true, &(struct wcx_call){ .serve = serve_readlink, .ino = ino });
}

/* --- directories --- */

/* An open directory.  The listing is of when it was opened, or rewound. */
struct open_dir {
	struct wcx_handle handle;
	struct wcx_listing *listing;
	bool was_read;
};

static struct open_dir *dir_of(const struct fuse_file_info *fi)
{
	return (struct open_dir *)(uintptr_t)fi->fh;
}

/* Lists what is at the path of a node: when it is listed again, only the same directory, which others may not be allowed. */
static int list_dir(struct wcx_fuse *fuse, fuse_ino_t ino, struct open_dir *dir)
{
	struct wcx_listing *listing;
	struct wcx_store_entry entry;
	int r = refresh(fuse, ino, &entry);

	if (!r && dir->listing && !wcx_dir_list_is_of(dir->listing->list, &entry))
		r = -ESTALE;
	if (!r)
		r = wcx_listing_get(&fuse->listings, fuse->store, wcx_ino_path(ino), &entry, &listing);
	if (r)
		return r;
	wcx_listing_put(&fuse->listings, dir->listing);
	dir->listing = listing;
	dir->was_read = false;
	return 0;
}

static void close_dir(void *user, fuse_ino_t ino, struct wcx_handle *handle)
{
	struct open_dir *dir = (struct open_dir *)handle;
	struct wcx_fuse *fuse = user;

	(void)ino;
	wcx_listing_put(&fuse->listings, dir->listing);
	free(dir);
}

static void serve_opendir(struct wcx_call *call)
{
	struct open_dir *dir = calloc(1, sizeof *dir);
	const int r = dir ? list_dir(call->user, call->ino, dir) : -ENOMEM;

	if (r) {
		free(dir);
		wcx_call_reply_err(call, -r);
		return;
	}
	dir->handle.refs = 1;
	dir->handle.close = close_dir;
	call->fi.fh = (uintptr_t)dir;
	if (wcx_call_reply_open(call))
		wcx_handle_put(call->user, call->ino, &dir->handle);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	wcx_call_start(&wcx_fuse_of(req)->calls, req, false,
		       &(struct wcx_call){ .serve = serve_opendir, .ino = ino, .fi = *fi });
}

/* Offsets count entries: offset n continues after the first n.  The kernel sends one such request for a handle at a time. */
static void serve_readdir(struct wcx_call *call)
{
	struct open_dir *dir = (struct open_dir *)call->handle;
	const size_t bytes = call->bytes;
	char *buffer = malloc(bytes);
	int r = buffer ? 0 : -ENOMEM;
	const struct wcx_dir_list *list;
	size_t used = 0;

	if (!r && dir->handle.is_broken)
		r = -EIO;
	if (!r && call->offset == 0 && dir->was_read) /* rewinddir(3): what was added meanwhile shows */
		r = list_dir(call->user, call->ino, dir);
	if (r) {
		wcx_call_reply_err(call, -r);
		free(buffer);
		return;
	}
	dir->was_read = true;
	list = dir->listing->list;
	for (uint64_t i = (uint64_t)call->offset; i < list->count; i++) {
		const struct wcx_dir_item *item = &list->items[i];
		const struct stat st = { .st_ino = item->ino, .st_mode = item->type };
		size_t item_bytes = fuse_add_direntry(NULL, buffer + used, bytes - used, list->names + item->name_offset,
						      &st, (off_t)i + 1);

		if (item_bytes > bytes - used)
			break;
		used += item_bytes;
	}
	wcx_call_reply_buf(call, buffer, used);
	free(buffer);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t bytes, off_t offset, struct fuse_file_info *fi)
{
	wcx_call_start(&wcx_fuse_of(req)->calls, req, false,
		       &(struct wcx_call){
			       .serve = serve_readdir,
			       .ino = ino,
			       .bytes = bytes,
			       .offset = offset,
			       .handle = &dir_of(fi)->handle,
		       });
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	wcx_handle_put(wcx_fuse_of(req), ino, &dir_of(fi)->handle);
	fuse_reply_err(req, 0);
}

static void serve_statfs(struct wcx_call *call)
{
	struct wcx_fuse *fuse = call->user;
	struct statvfs st;
	const int r = wcx_store_statvfs(fuse->store, &st);

	if (r)
		wcx_call_reply_err(call, -r);
	else
		wcx_call_reply_statfs(call, &st);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	wcx_call_start(&wcx_fuse_of(req)->calls, req, false, &(struct wcx_call){ .serve = serve_statfs, .ino = ino });
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
	.open = wcx_fuse_op_open,
	.read = wcx_fuse_op_read,
	.release = wcx_fuse_op_release,
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
	wcx_calls_init(&fuse->calls, fuse->nodes);
	wcx_listings_init(&fuse->listings);
	*ret = fuse;
	return 0;
out:
	wcx_node_table_free(fuse->nodes);
	free(fuse);
	return r;
}

int wcx_fuse_start(struct wcx_fuse *fuse, const struct wcx_fuse_options *opts)
{
	const struct wcx_prefetch_options options = {
		.threads = opts->prefetch_threads,
		.pieces = opts->pieces,
		.decoded_pieces = opts->decoded_pieces,
		.file_pieces = opts->file_pieces,
		.direct_pieces = opts->direct_pieces,
		.file_pushers = opts->file_pushers,
		.window_bytes = opts->window_bytes,
		.piece_bytes = opts->piece_bytes,
		.drop_packed = opts->drop_packed,
		.push = wcx_fuse_push,
		.ask = opts->asker ? wcx_fuse_ask : NULL,
		.user = fuse,
	};
	int r;

	fuse->calls.unmount = opts->unmount;
	fuse->calls.unmount_user = opts->unmount_user;
	r = wcx_calls_start(&fuse->calls, opts->session, opts->threads, opts->timeout_ms);
	if (r)
		return r;
	fuse->push_fd = fuse_session_fd(opts->session);
	fuse->asker = opts->asker;
	fuse->prefetcher = wcx_prefetcher_create(&options);
	if (!fuse->prefetcher)
		wcx_calls_stop(&fuse->calls);
	return fuse->prefetcher ? 0 : -ENOMEM;
}

void wcx_fuse_set_status(struct wcx_fuse *fuse, wcx_status_fn *status, void *user)
{
	fuse->status = status;
	fuse->status_user = user;
}

uint64_t wcx_fuse_error_count(const struct wcx_fuse *fuse)
{
	return wcx_count_get(&fuse->calls.error_count);
}

void wcx_fuse_get_stats(struct wcx_fuse *fuse, struct wcx_prefetch_stats *ret)
{
	wcx_prefetcher_get_stats(fuse->prefetcher, ret);
}

void wcx_fuse_end(struct wcx_fuse *fuse)
{
	if (fuse)
		wcx_calls_end(&fuse->calls);
}

int wcx_fuse_stop(struct wcx_fuse *fuse, unsigned timeout_ms)
{
	const int r = fuse->prefetcher ? wcx_prefetcher_stop(fuse->prefetcher, timeout_ms) : 0;

	if (!r)
		wcx_calls_stop(&fuse->calls);
	return r;
}

void wcx_fuse_free(struct wcx_fuse *fuse)
{
	if (!fuse)
		return;
	wcx_prefetcher_free(fuse->prefetcher);
	wcx_node_table_free(fuse->nodes);
	wcx_listings_destroy(&fuse->listings);
	wcx_calls_destroy(&fuse->calls);
	wcx_reply_buffers_destroy(&fuse->buffers);
	free(fuse);
}
