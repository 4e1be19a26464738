/* SPDX-License-Identifier: MIT */
/*
 * The FUSE callbacks: each translates one request to the store and replies exactly once.
 *
 * A node stands for one state of one file, and its attributes never change their size.  When the file behind a path turns
 * out to be another one, the answer is ESTALE, on which the kernel looks the path up again and gets a new node with a page
 * cache of its own.  So files may be cached for long, and old pages never mix with new ones.
 */
#define FUSE_USE_VERSION 314

#include "fs/mount/fuse_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/mount/node_table.h"
#include "fs/mount/prefetch.h"

enum {
	PAGE_BYTES = 4096,
	BACKGROUND_REQUESTS = 64, /* the kernel's 12 leave readahead of several files waiting for each other */
	CONGESTED_REQUESTS = 48,  /* three quarters, as the kernel does by default */
	REPORTS_MAX = 1000,
	READ_BUFFERS = 8, /* for answers that have to be put together: others wait for one */
};

static const double cache_s = 3600;
static const double dir_attr_s = 1;       /* a directory's mtime and link count change when files are added */
static const double negative_entry_s = 1; /* a file that was not there may be any moment */
static const double link_entry_s = 1;     /* a link is never opened, so ESTALE would never tell that it was replaced */

struct wcx_fuse {
	struct wcx_store *store;
	struct wcx_prefetcher *prefetcher; /* NULL until wcx_fuse_start */
	int push_fd;                       /* the session's */
	struct wcx_node_table *nodes;
	struct wcx_store_entry root; /* what the store itself looked like when it was opened */
	pthread_mutex_t buffer_lock; /* protects the next four */
	pthread_cond_t buffer_given;
	void *buffers[READ_BUFFERS]; /* WCX_FUSE_READ_BYTES each, those that nobody has first */
	unsigned buffer_count, buffers_out;

	pthread_mutex_t report_lock; /* protects what follows */
	void *reports;               /* tsearch(3) tree of lines already logged */
	size_t report_count;
};

static int compare_lines(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* Remembers a line; returns how many there are with it, or 0 for a line that needs no logging: known, or one too many. */
static size_t remember_line(struct wcx_fuse *fuse, const char *line)
{
	size_t count = 0;
	char *copy;

	pthread_mutex_lock(&fuse->report_lock);
	if (fuse->report_count < REPORTS_MAX && !tfind(line, &fuse->reports, compare_lines)) {
		copy = strdup(line);
		if (copy && tsearch(copy, &fuse->reports, compare_lines))
			count = ++fuse->report_count;
		else
			free(copy);
	}
	pthread_mutex_unlock(&fuse->report_lock);
	return count;
}

/* Logs why something failed, where the store says so: each file or tile once, for a reader may try a thousand times. */
static void report(struct wcx_fuse *fuse, const struct wcx_error *err)
{
	size_t count;

	if (!err->text[0])
		return;
	count = remember_line(fuse, err->text);
	if (count)
		fuse_log(FUSE_LOG_ERR, "%s\n", err->text);
	if (count == REPORTS_MAX)
		fuse_log(FUSE_LOG_ERR, "%d different errors reported; no more will be\n", REPORTS_MAX);
}

static struct wcx_fuse *fuse_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* libfuse's names for nodes are numbers; the root's is 1, and the others' are their addresses. */
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

/* An open file; of one that is not packed, prefetch is NULL. */
struct open_file {
	struct wcx_store_file *file;
	struct wcx_prefetch_file *prefetch;
};

static struct open_file *file_of(const struct fuse_file_info *fi)
{
	return (struct open_file *)(uintptr_t)fi->fh;
}

/* Who has a buffer waits for tiles, and who decodes those for no buffer. */
static void *take_buffer(struct wcx_fuse *fuse)
{
	void *buffer = NULL;

	pthread_mutex_lock(&fuse->buffer_lock);
	while (fuse->buffers_out == READ_BUFFERS)
		pthread_cond_wait(&fuse->buffer_given, &fuse->buffer_lock);
	fuse->buffers_out++;
	if (fuse->buffer_count)
		buffer = fuse->buffers[--fuse->buffer_count];
	pthread_mutex_unlock(&fuse->buffer_lock);
	return buffer ? buffer : aligned_alloc(PAGE_BYTES, WCX_FUSE_READ_BYTES);
}

/* NULL, where there was no memory, is given back too. */
static void give_buffer(struct wcx_fuse *fuse, void *buffer)
{
	pthread_mutex_lock(&fuse->buffer_lock);
	fuse->buffers_out--;
	if (buffer)
		fuse->buffers[fuse->buffer_count++] = buffer;
	pthread_cond_signal(&fuse->buffer_given);
	pthread_mutex_unlock(&fuse->buffer_lock);
}

static void op_init(void *user, struct fuse_conn_info *conn)
{
	(void)user;
	/* Both, and -o max_read: libfuse compares that with max_read, and makes the page limit of max_write. */
	conn->max_read = WCX_FUSE_READ_BYTES;
	conn->max_write = WCX_FUSE_READ_BYTES;
	/* max_readahead stays: it holds as much as the kernel allows, and a server can only lower it. */
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
	int ret = child_path(parent, name, path);

	if (ret) {
		fuse_reply_err(req, -ret);
		return;
	}
	ret = wcx_store_lookup(fuse->store, path, &entry, &err);
	if (ret == -ENOENT) {
		param.entry_timeout = negative_entry_s;
		fuse_reply_entry(req, &param);
		return;
	}
	if (ret) {
		report(fuse, &err);
		fuse_reply_err(req, -ret);
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
		wcx_node_drop(fuse->nodes, node, 1); /* the kernel never heard of it */
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
 * A file's attributes are those it was looked up with, as its pages are: whoever still has a replaced file open goes on
 * seeing the old size.  A directory's are looked at afresh.
 */
static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct wcx_fuse *fuse = fuse_of(req);
	struct wcx_store_entry entry, now;
	struct wcx_error err;
	int ret;

	(void)fi;
	entry_of(fuse, ino, &entry);
	if (S_ISDIR(entry.attr.st_mode)) {
		ret = wcx_store_lookup(fuse->store, path_of(ino), &now, &err);
		if (!ret && wcx_file_id_compare(&now.id, &entry.id))
			ret = -ESTALE;
		if (ret) {
			fuse_reply_err(req, ret == -ENOENT ? ESTALE : -ret);
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
	int ret;

	entry_of(fuse, ino, &entry);
	ret = wcx_store_readlink(fuse->store, path_of(ino), &entry, target, sizeof target);
	if (ret)
		fuse_reply_err(req, -ret);
	else
		fuse_reply_readlink(req, target);
}

/* --- prefetching --- */

/*
 * Hands pages to the kernel, as fuse_lowlevel_notify_store does; but that copies what is in more than one segment to a
 * buffer of its own first.
 */
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

/* Nothing will be pushed to a node any more. */
static void let_go(void *user, uint64_t target)
{
	struct wcx_fuse *fuse = user;

	wcx_node_drop(fuse->nodes, node_of(target), 1);
}

/*
 * As long as something may be pushed to a node its number must not become another's, which the kernel's forgetting it would
 * allow: so it is counted once more.
 */
static struct wcx_prefetch_file *watch(struct wcx_fuse *fuse, fuse_ino_t ino, const struct wcx_store_file *file)
{
	struct wcx_image *image = wcx_store_file_image(file);

	if (!image || !fuse->prefetcher)
		return NULL;
	wcx_node_keep(fuse->nodes, node_of(ino));
	return wcx_prefetch_open(fuse->prefetcher, image, ino, let_go);
}

/* --- files --- */

static int open_file(struct wcx_fuse *fuse, fuse_ino_t ino, struct open_file **ret)
{
	struct open_file *open = calloc(1, sizeof *open);
	struct wcx_store_entry entry;
	struct wcx_error err;
	int result;

	if (!open)
		return -ENOMEM;
	entry_of(fuse, ino, &entry);
	result = wcx_store_open(fuse->store, path_of(ino), &entry, &open->file, &err);
	if (result) {
		report(fuse, &err);
		free(open);
		return result;
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
	int ret;

	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	ret = open_file(fuse, ino, &open);
	if (ret) {
		fuse_reply_err(req, -ret);
		return;
	}
	fi->fh = (uintptr_t)open;
	fi->keep_cache = 1; /* the node's file has not changed, so its pages have not either */
	if (fuse_reply_open(req, fi))
		close_file(fuse, open); /* the open was interrupted: no release will come */
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	close_file(fuse_of(req), file_of(fi));
	fuse_reply_err(req, 0);
}

/* Reads by way of a buffer, which serves any tiles. */
static void read_copied(fuse_req_t req, struct wcx_store_file *file, size_t bytes, off_t offset)
{
	struct wcx_fuse *fuse = fuse_of(req);
	void *buffer = take_buffer(fuse);
	struct wcx_error err = { .text = "" };
	ssize_t done = -ENOMEM;

	if (buffer)
		done = wcx_store_file_read(file, buffer, bytes, (uint64_t)offset, &err);
	if (done < 0) {
		report(fuse, &err);
		fuse_reply_err(req, (int)-done);
	} else {
		fuse_reply_buf(req, buffer, (size_t)done);
	}
	give_buffer(fuse, buffer);
}

/* Answers from the tiles in the cache, which the kernel copies once, where a batch of them has all that is wanted. */
static void read_packed(fuse_req_t req, struct wcx_store_file *file, size_t bytes, off_t offset)
{
	struct wcx_image *image = wcx_store_file_image(file);
	const uint64_t start = (uint64_t)offset, file_bytes = wcx_image_bytes(image);
	const uint64_t left = start < file_bytes ? file_bytes - start : 0;
	struct wcx_image_view view;

	if (bytes > left)
		bytes = (size_t)left;
	if (bytes == 0 || wcx_image_view_open(image, start, bytes, &view, NULL) < 0) {
		read_copied(req, file, bytes, offset); /* says what is wrong, too */
		return;
	}
	if (view.bytes < bytes) {
		wcx_image_view_close(image, &view, 0);
		read_copied(req, file, bytes, offset);
		return;
	}
	wcx_image_get(image); /* once there is an answer, the file may be closed */
	fuse_reply_iov(req, view.segments, (int)view.count);
	wcx_image_view_close(image, &view, 0);
	wcx_image_put(image);
}

/* Reads a file whose readers are followed, which may be closed once there is an answer. */
static void read_watched(fuse_req_t req, struct wcx_store_file *file, struct wcx_prefetch_file *watched, size_t bytes,
			 off_t offset, int direct)
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
		fuse_reply_err(req, EINVAL); /* more than was agreed; a short answer would mean the end of the file */
		return;
	}
	if (fd < 0) {
		read_watched(req, open->file, open->prefetch, bytes, offset, fi->flags & O_DIRECT);
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
	int ret;

	entry_of(fuse, ino, &entry);
	ret = wcx_store_list(fuse->store, path_of(ino), &entry, &list);
	if (ret) {
		fuse_reply_err(req, -ret);
		return;
	}
	fi->fh = (uintptr_t)list;
	if (fuse_reply_open(req, fi))
		wcx_dir_list_free(list);
}

/* Offsets count entries: offset n is what follows the first n. */
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
	int ret = wcx_store_statvfs(fuse_of(req)->store, &st);

	(void)ino;
	if (ret)
		fuse_reply_err(req, -ret);
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
	int result = -ENOMEM;

	if (!fuse)
		return result;
	fuse->store = store;
	fuse->nodes = wcx_node_table_create();
	if (!fuse->nodes)
		goto out;
	result = wcx_store_lookup(store, "", &fuse->root, &err);
	if (result)
		goto out;
	pthread_mutex_init(&fuse->buffer_lock, NULL);
	pthread_cond_init(&fuse->buffer_given, NULL);
	pthread_mutex_init(&fuse->report_lock, NULL);
	*ret = fuse;
	return 0;
out:
	wcx_node_table_free(fuse->nodes);
	free(fuse);
	return result;
}

int wcx_fuse_start(struct wcx_fuse *fuse, int session_fd, unsigned threads, uint64_t window_bytes, int drop_packed)
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
	tdestroy(fuse->reports, free);
	while (fuse->buffer_count)
		free(fuse->buffers[--fuse->buffer_count]);
	pthread_cond_destroy(&fuse->buffer_given);
	pthread_mutex_destroy(&fuse->buffer_lock);
	pthread_mutex_destroy(&fuse->report_lock);
	free(fuse);
}
