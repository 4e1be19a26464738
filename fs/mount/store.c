/* SPDX-License-Identifier: MIT */
/* Shows a directory tree with packed files as the originals: attributes, listings, and opening files. */
#include "fs/mount/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/base/output_file.h"
#include "fs/base/search.h"
#include "fs/format/container.h"
#include "fs/mount/beneath.h"
#include "fs/mount/closer.h"
#include "fs/mount/image_pool.h"
#include "fs/mount/inode_numbers.h"
#include "fs/mount/shown_names.h"
#include "fs/mount/store_bases.h"

enum {
	SUFFIX_BYTES = sizeof ".wcx" - 1,
	WRITE_BITS = S_IWUSR | S_IWGRP | S_IWOTH,
	/* File systems stamp times by a tick of up to 10 ms: a change this soon after the last may not show. */
	TIME_GRAIN_MS = 100,
};

struct wcx_store {
	struct wcx_beneath beneath;
	struct wcx_inode_numbers *numbers;
	struct wcx_closer *closer;
	struct wcx_image_pool *images;
	struct wcx_store_bases *bases;
	struct wcx_file_counts *counts;
	_Atomic uint64_t plain_requests, plain_bytes;
};

struct wcx_store_file {
	int fd;                         /* -1 for a packed file */
	struct wcx_pooled_image *image; /* NULL for any other */
	struct wcx_store *store;
	struct wcx_closing closing;
};

/* A path to pass to the kernel: with the suffix for a packed file. */
struct stored_path {
	char text[PATH_MAX];
};

/* A packed file that was found. */
struct packed {
	int fd; /* -1: something else was found */
	struct stored_path path;
	struct wcx_superblock superblock;
};

static int stored_path_set(struct stored_path *stored, const char *path, bool packed)
{
	const size_t bytes = strlen(path);

	if (bytes + SUFFIX_BYTES >= sizeof stored->text)
		return -ENAMETOOLONG;
	snprintf(stored->text, sizeof stored->text, "%s%s", bytes || packed ? path : ".", packed ? ".wcx" : "");
	return 0;
}

/* Opens what is stored for a path and gets its attributes; returns a descriptor or -errno. */
static int open_stored(const struct wcx_store *store, const char *path, bool packed, int flags,
		       struct stored_path *stored_ret, struct stat *st_ret)
{
	const int r = stored_path_set(stored_ret, path, packed);

	return r ? r : wcx_beneath_open(&store->beneath, stored_ret->text, flags, false, st_ret);
}

/* The path by which an open file is reached, or opened again. */
static void descriptor_path(int fd, char path[32])
{
	snprintf(path, 32, "/proc/self/fd/%d", fd);
}

/* Opens a file for reading, if it is a regular one, and waits as long as open(2) does. */
static int open_regular(const struct wcx_store *store, const char *path, bool packed, struct stored_path *stored_ret,
			struct stat *st_ret)
{
	const int found = open_stored(store, path, packed, O_PATH, stored_ret, st_ret);
	char fd_path[32];
	int fd = -ENXIO;

	if (found < 0)
		return found;
	if (S_ISREG(st_ret->st_mode)) {
		descriptor_path(found, fd_path);
		fd = open(fd_path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
	}
	close(found);
	return fd;
}

/* Opens a regular file for reading.  O_NONBLOCK: the path may have become a FIFO since it was looked at. */
static int open_bytes(const struct wcx_store *store, const char *path, bool packed, struct stored_path *stored_ret,
		      struct stat *st_ret)
{
	const int fd = open_stored(store, path, packed, O_RDONLY | O_NONBLOCK | O_NOCTTY, stored_ret, st_ret);

	if (fd ==
	    -EAGAIN) /* somebody has a lease on it, as file servers do for their clients, who are told to give it back */
		return open_regular(store, path, packed, stored_ret, st_ret);
	if (fd >= 0 && !S_ISREG(st_ret->st_mode)) {
		close(fd);
		return -ENXIO;
	}
	return fd;
}

/*
 * Translates an error to what readers of the mount get; the message in err has the details.  A lower network file system
 * that dies must not look like a dead wcxfs.
 */
static int shown_errno(int errnum)
{
	switch (errnum) {
	case -EBADMSG:
	case -ENOTSUP:
	case -ENOTCONN:
	case -ECONNABORTED:
	case -ECONNRESET:
	case -ESHUTDOWN:
		return -EIO;
	case -EMFILE: /* the daemon has too many, not the reader */
		return -ENFILE;
	default:
		return errnum;
	}
}

/* A message for the log where the reader's errno hides the cause. */
static int fail_stored(const struct stored_path *stored, int errnum, struct wcx_error *err)
{
	const int shown = shown_errno(errnum);

	if (shown != errnum)
		wcx_fail(err, -errnum, "%s: %s", stored->text, strerror(-errnum));
	return shown;
}

static uint64_t nanoseconds(int64_t s, uint64_t ns)
{
	return (uint64_t)s * 1000000000 + ns;
}

/* The version in the id of what is not a packed file. */
static uint64_t version_of(int fd, const struct stat *st)
{
	struct statx stx;
	struct statfs fs;

	if (S_ISLNK(st->st_mode))
		return nanoseconds(st->st_ctim.tv_sec, (uint64_t)st->st_ctim.tv_nsec);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) || !(stx.stx_mask & STATX_BTIME))
		return 0;
	/* There, what is copied up has another time of birth, and its old number. */
	if (fstatfs(fd, &fs) || fs.f_type == OVERLAYFS_SUPER_MAGIC)
		return 0;
	return nanoseconds(stx.stx_btime.tv_sec, stx.stx_btime.tv_nsec);
}

/* Whether what was opened is what an entry tells of, as far as that shows without a look at the bytes of a packed file. */
static bool is_of(int fd, const struct stat *st, const struct wcx_store_entry *entry)
{
	return st->st_dev == entry->id.dev && st->st_ino == entry->id.ino &&
	       ((entry->packed && S_ISREG(st->st_mode)) || version_of(fd, st) == entry->id.version);
}

static void fill_entry(const struct wcx_store *store, const struct stat *st, uint64_t version, bool packed,
		       struct wcx_store_entry *ret)
{
	ret->attr = *st;
	ret->attr.st_ino = wcx_inode_number(store->numbers, st->st_dev, st->st_ino, packed);
	if (!S_ISLNK(st->st_mode))
		ret->attr.st_mode &= ~(mode_t)WRITE_BITS;
	ret->id = (struct wcx_file_id){ st->st_dev, st->st_ino, version };
	ret->packed = packed;
}

static void fill_packed_entry(const struct wcx_store *store, const struct stat *st, const struct wcx_superblock *sb,
			      struct wcx_store_entry *ret)
{
	fill_entry(store, st, wcx_file_id_of_packed(st, sb).version, true, ret);
	ret->attr.st_size = (off_t)sb->original_bytes;
	ret->attr.st_nlink = WCX_MIN(st->st_nlink, 1u); /* others may be shown with the packed bytes */
}

/* The text of a link decides its size. */
static int fill_link_entry(const struct wcx_store *store, const struct stored_path *stored, const struct stat *st,
			   bool packed, struct wcx_store_entry *ret)
{
	char text[PATH_MAX];
	const int r = wcx_shown_target(&store->beneath, stored->text, text, sizeof text);

	fill_entry(store, st, version_of(-1, st), packed, ret);
	ret->attr.st_size = (off_t)strlen(text);
	ret->attr.st_nlink = 1;
	return r;
}

/* Whether a plain file has the bytes of a packed one, of which hard links may be shown as the original. */
static bool has_packed_bytes(int fd)
{
	uint8_t magic[WCX_MAGIC_BYTES];
	const ssize_t n = pread(fd, magic, sizeof magic, 0);

	return n < 0 || (n == sizeof magic && memcmp(magic, WCX_MAGIC, sizeof magic) == 0);
}

/* The same of a path, which is only looked up: nobody waits for a lease, and such a file counts as none. */
static bool path_has_packed_bytes(const struct wcx_store *store, const char *path)
{
	struct stored_path stored;
	struct stat st;
	const int fd = open_stored(store, path, false, O_RDONLY | O_NONBLOCK | O_NOCTTY, &stored, &st);
	const bool is_packed = fd >= 0 && has_packed_bytes(fd);

	if (fd >= 0)
		close(fd);
	return is_packed;
}

/* Looks up a path without the suffix: -ENOENT if nothing is there, or if what is there is shown under another name. */
static int lookup_plain(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err)
{
	struct stored_path stored;
	struct stat st;
	const int fd = open_stored(store, path, false, O_PATH, &stored, &st);
	uint64_t version;

	if (fd < 0)
		return fail_stored(&stored, fd, err);
	version = version_of(fd, &st);
	close(fd);
	if (wcx_is_temporary_name(wcx_last_component(path)) ||
	    wcx_is_shown_stripped(&store->beneath, stored.text, st.st_mode))
		return -ENOENT;
	if (S_ISLNK(st.st_mode))
		return wcx_leads_to_itself(&store->beneath, stored.text) ? -ENOENT
									 : fill_link_entry(store, &stored, &st, false, ret);
	fill_entry(store, &st, version, false, ret);
	if (S_ISREG(st.st_mode) && st.st_nlink > 1 && path_has_packed_bytes(store, path))
		ret->attr.st_nlink = 1;
	return 0;
}

/* Opens a packed file and reads its superblock. */
static int open_packed(const struct wcx_store *store, const char *path, struct wcx_store_entry *entry_ret,
		       struct packed *packed_ret, struct wcx_error *err)
{
	struct stat st;
	const int fd = open_bytes(store, path, true, &packed_ret->path, &st);
	int r;

	if (fd < 0)
		return fail_stored(&packed_ret->path, fd, err);
	r = wcx_superblock_read(fd, packed_ret->path.text, &packed_ret->superblock, err);
	if (r) {
		close(fd);
		return shown_errno(r);
	}
	fill_packed_entry(store, &st, &packed_ret->superblock, entry_ret);
	packed_ret->fd = fd;
	return 0;
}

static int lookup_packed(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret,
			 struct packed *packed_ret, struct wcx_error *err)
{
	struct stored_path stored;
	struct stat st;
	const int fd = open_stored(store, path, true, O_PATH, &stored, &st);

	if (fd < 0) /* a name of 255 bytes is legal but has no packed form */
		return fd == -ENAMETOOLONG ? -ENOENT : fail_stored(&stored, fd, err);
	close(fd);
	if (!wcx_is_shown_stripped(&store->beneath, stored.text, st.st_mode))
		return -ENOENT;
	return S_ISLNK(st.st_mode) ? fill_link_entry(store, &stored, &st, true, ret)
				   : open_packed(store, path, ret, packed_ret, err);
}

/* Finds what is shown at a path. */
static int find_shown(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret,
		      struct packed *packed_ret, struct wcx_error *err)
{
	int r;

	err->text[0] = '\0';
	packed_ret->fd = -1;
	r = lookup_plain(store, path, ret, err);
	return r == -ENOENT ? lookup_packed(store, path, ret, packed_ret, err) : r;
}

int wcx_store_lookup(struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err)
{
	struct packed packed;
	const int r = find_shown(store, path, ret, &packed, err);

	if (packed.fd >= 0)
		close(packed.fd);
	return r;
}

int wcx_store_packed_get(struct wcx_store *store, const char *path, const struct wcx_file_id *id,
			 struct wcx_store_packed *ret)
{
	struct wcx_store_entry entry;
	struct stored_path stored;
	struct wcx_superblock sb;
	struct wcx_error err;
	struct stat st;
	int fd = open_bytes(store, path, true, &stored, &st), r;

	if (fd < 0)
		return shown_errno(fd);
	r = wcx_superblock_read(fd, stored.text, &sb, &err);
	close(fd);
	if (r)
		return shown_errno(r);
	fill_packed_entry(store, &st, &sb, &entry);
	if (wcx_file_id_compare(&entry.id, id))
		return -ESTALE;
	ret->packed_bytes = sb.packed_bytes;
	ret->original_bytes = sb.original_bytes;
	memcpy(ret->sha256, sb.sha256, sizeof ret->sha256);
	ret->counts = wcx_file_counts_find(store->counts, &entry.id);
	return 0;
}

void wcx_store_set_own_device(struct wcx_store *store, dev_t device)
{
	store->beneath.own_device = device;
}

bool wcx_store_is_passable(const struct wcx_store *store, const char *path)
{
	return wcx_beneath_is_passable(&store->beneath, path);
}

int wcx_store_readlink(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, char *dst,
		       size_t dst_bytes)
{
	struct stored_path stored;
	struct stat st;
	const int fd = open_stored(store, path, entry->packed, O_PATH, &stored, &st);
	bool is_same;

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : shown_errno(fd);
	is_same = is_of(fd, &st, entry);
	close(fd);
	return is_same ? wcx_shown_target(&store->beneath, stored.text, dst, dst_bytes) : -ESTALE;
}

/* Linux keeps an ACL as a version and entries of 8 bytes: tag, permissions, id (linux/posix_acl_xattr.h). */
static void clear_write_permissions(uint8_t *acl, size_t bytes)
{
	enum { VERSION_BYTES = 4, ENTRY_BYTES = 8, PERMISSIONS_OFFSET = 2, WRITE = 2 };

	for (size_t at = VERSION_BYTES; at + ENTRY_BYTES <= bytes; at += ENTRY_BYTES)
		acl[at + PERMISSIONS_OFFSET] &= (uint8_t)~WRITE;
}

static ssize_t get_acl(int fd, const char *name, void *dst, size_t dst_bytes)
{
	char fd_path[32];
	ssize_t r;

	descriptor_path(fd, fd_path); /* an O_PATH descriptor alone will not do */
	r = getxattr(fd_path, name, dst, dst_bytes);
	r = r < 0 ? -errno : r;
	if (r > 0 && dst_bytes)
		clear_write_permissions(dst, (size_t)r);
	return r == -EOPNOTSUPP ? -ENODATA : r;
}

ssize_t wcx_store_get_acl(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, const char *name,
			  void *dst, size_t dst_bytes)
{
	struct stored_path stored;
	struct stat st;
	const int fd = open_stored(store, path, entry->packed, O_PATH, &stored, &st);
	ssize_t r = -ESTALE;

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : shown_errno(fd);
	if (is_of(fd, &st, entry))
		r = get_acl(fd, name, dst, dst_bytes);
	close(fd);
	return r;
}

/* --- listings --- */

static const char *item_name(const struct wcx_dir_list *list, const struct wcx_dir_item *item)
{
	return list->names + item->name_offset;
}

static int compare_items(const void *a, const void *b, void *list)
{
	return strcmp(item_name(list, a), item_name(list, b));
}

static int list_add(struct wcx_dir_list *list, const struct dirent *de)
{
	const size_t bytes = strlen(de->d_name) + 1;
	struct wcx_dir_item *items = wcx_array_reserve(list->items, &list->capacity, list->count + 1, sizeof *items);
	char *names = wcx_array_reserve(list->names, &list->name_capacity, list->name_bytes + bytes, 1);

	list->items = items ? items : list->items;
	list->names = names ? names : list->names;
	if (!items || !names || list->name_bytes + bytes > UINT32_MAX)
		return -ENOMEM;
	items[list->count++] = (struct wcx_dir_item){ (uint32_t)list->name_bytes, DTTOIF(de->d_type), de->d_ino };
	memcpy(names + list->name_bytes, de->d_name, bytes);
	list->name_bytes += bytes;
	return 0;
}

static int list_read(DIR *dir, struct wcx_dir_list *list)
{
	for (;;) {
		const struct dirent *de;
		int r;

		errno = 0;
		de = readdir(dir);
		if (!de)
			return -errno;
		if (wcx_is_temporary_name(de->d_name))
			continue;
		r = list_add(list, de);
		if (r)
			return r;
	}
}

static bool item_path_set(const char *dir_path, const struct wcx_dir_list *list, const struct wcx_dir_item *item,
			  struct stored_path *ret)
{
	return snprintf(ret->text, sizeof ret->text, "%s%s%s", dir_path, *dir_path ? "/" : "", item_name(list, item)) <
	       (int)sizeof ret->text;
}

/* Whether an item of a directory is shown without its suffix; finds out its type if need be. */
static bool item_is_stripped(const struct wcx_store *store, const char *dir_path, const struct wcx_dir_list *list,
			     struct wcx_dir_item *item)
{
	struct stored_path path;
	struct stat st;
	int fd;

	if (!wcx_stem_bytes(item_name(list, item)) || !item_path_set(dir_path, list, item, &path))
		return false;
	if (!item->type) {
		fd = wcx_beneath_open(&store->beneath, path.text, O_PATH, false, &st);
		if (fd < 0)
			return false;
		close(fd);
		item->type = st.st_mode & S_IFMT;
	}
	return wcx_is_shown_stripped(&store->beneath, path.text, item->type);
}

struct namesake_search {
	struct wcx_dir_list *list;
	const struct wcx_dir_item *packed;
};

static bool comes_before(const void *user, size_t i)
{
	const struct namesake_search *search = user;

	return compare_items(&search->list->items[i], search->packed, search->list) < 0;
}

/* The plain item with the name that a packed item would be shown as, or NULL.  A shorter name comes before a longer one. */
static struct wcx_dir_item *find_namesake(struct wcx_dir_list *list, const char *packed, const struct wcx_dir_item *item)
{
	char *suffix = list->names + item->name_offset + wcx_stem_bytes(item_name(list, item));
	const struct namesake_search search = { list, item };
	struct wcx_dir_item *plain;
	bool is_namesake;

	*suffix = '\0'; /* until it is found, the name is the shown one */
	plain = &list->items[wcx_count_before((size_t)(item - list->items), comes_before, &search)];
	is_namesake = plain < item && compare_items(plain, item, list) == 0;
	*suffix = '.';
	return is_namesake && !packed[plain - list->items] ? plain : NULL;
}

/* Whether of a packed item and its namesake it is the plain one that is not shown. */
static bool hides_namesake(const struct wcx_store *store, const char *dir_path, const struct wcx_dir_list *list,
			   const struct wcx_dir_item *namesake)
{
	struct stored_path path;

	return (namesake->type == S_IFLNK || !namesake->type) && item_path_set(dir_path, list, namesake, &path) &&
	       wcx_leads_to_itself(&store->beneath, path.text);
}

/* Turns stored names into shown ones, and numbers.  Sorts the items, so that finding shadowed ones takes n log n. */
static int list_map(const struct wcx_store *store, const char *dir_path, struct wcx_dir_list *list)
{
	/* One of these per item. */
	enum { PLAIN, PACKED, SHADOWED };
	size_t kept = 0;
	char *shown_as = calloc(list->count + 1, 1);

	if (!shown_as)
		return -ENOMEM;
	qsort_r(list->items, list->count, sizeof *list->items, compare_items, list);
	for (size_t i = 0; i < list->count; i++)
		shown_as[i] = item_is_stripped(store, dir_path, list, &list->items[i]) ? PACKED : PLAIN;
	for (size_t i = 0; i < list->count; i++) {
		const struct wcx_dir_item *plain =
			shown_as[i] == PACKED ? find_namesake(list, shown_as, &list->items[i]) : NULL;

		if (plain)
			shown_as[hides_namesake(store, dir_path, list, plain) ? (size_t)(plain - list->items) : i] =
				SHADOWED;
	}
	for (size_t i = 0; i < list->count; i++) {
		struct wcx_dir_item item = list->items[i];

		if (shown_as[i] == SHADOWED)
			continue;
		if (shown_as[i] == PACKED)
			list->names[item.name_offset + wcx_stem_bytes(item_name(list, &item))] = '\0';
		item.ino = wcx_inode_number(store->numbers, list->dir.st_dev, item.ino, shown_as[i] == PACKED);
		list->items[kept++] = item;
	}
	list->count = kept;
	free(shown_as);
	return 0;
}

int wcx_store_list(struct wcx_store *store, const char *path, struct wcx_dir_list **ret)
{
	struct wcx_dir_list *list = calloc(1, sizeof *list);
	struct stored_path stored;
	DIR *dir;
	int fd, r;

	if (!list)
		return -ENOMEM;
	clock_gettime(CLOCK_REALTIME, &list->at);
	fd = open_stored(store, path, false, O_RDONLY | O_DIRECTORY, &stored, &list->dir);
	list->version = fd < 0 ? 0 : version_of(fd, &list->dir);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		r = fd < 0 ? shown_errno(fd) : -errno;
		if (fd >= 0)
			close(fd);
		free(list);
		return r;
	}
	r = list_read(dir, list);
	closedir(dir);
	if (!r)
		r = list_map(store, path, list);
	if (r)
		wcx_dir_list_free(list);
	else
		*ret = list;
	return r;
}

void wcx_dir_list_free(struct wcx_dir_list *list)
{
	if (!list)
		return;
	free(list->items);
	free(list->names);
	free(list);
}

bool wcx_dir_list_is_of(const struct wcx_dir_list *list, const struct wcx_store_entry *dir)
{
	const struct wcx_file_id id = { list->dir.st_dev, list->dir.st_ino, list->version };

	return wcx_file_id_compare(&id, &dir->id) == 0;
}

/* Quiet by the time of the inode's change, which nobody can set, to a time to come for instance. */
bool wcx_dir_list_is_current(const struct wcx_dir_list *list, const struct wcx_store_entry *dir)
{
	const struct timespec *changed = &dir->attr.st_ctim;
	const int64_t quiet_ms =
		(list->at.tv_sec - changed->tv_sec) * INT64_C(1000) + (list->at.tv_nsec - changed->tv_nsec) / 1000000;

	return wcx_dir_list_is_of(list, dir) && quiet_ms > TIME_GRAIN_MS && wcx_file_is_unchanged(&dir->attr, &list->dir);
}

/* --- files --- */

static int open_shown(struct wcx_store *store, const char *path, struct wcx_store_entry *entry_ret,
		      struct wcx_store_file *file, struct wcx_error *err)
{
	struct stored_path stored;
	struct packed packed;
	struct stat st;
	const int r = find_shown(store, path, entry_ret, &packed, err);

	if (r)
		return r;
	if (packed.fd >= 0)
		return shown_errno(wcx_image_pool_open(store->images, packed.fd, packed.path.text, &entry_ret->id,
						       &packed.superblock, &file->image, err));
	if (entry_ret->packed)
		return -ENXIO;
	file->fd = open_bytes(store, path, false, &stored, &st);
	if (file->fd < 0)
		return fail_stored(&stored, file->fd, err);
	if (!is_of(file->fd, &st, entry_ret)) {
		const nlink_t links = entry_ret->attr.st_nlink;

		fill_entry(store, &st, version_of(file->fd, &st), false, entry_ret); /* replaced since it was looked up */
		entry_ret->attr.st_nlink = WCX_MIN(links, st.st_nlink);
	}
	return 0;
}

int wcx_store_open(struct wcx_store *store, const char *path, struct wcx_store_entry *entry_ret, struct wcx_store_file **ret,
		   struct wcx_error *err)
{
	struct wcx_store_file *file = malloc(sizeof *file);
	int r;

	err->text[0] = '\0';
	if (!file)
		return -ENOMEM;
	*file = (struct wcx_store_file){ .fd = -1, .store = store };
	r = open_shown(store, path, entry_ret, file, err);
	if (r) {
		free(file);
		return r;
	}
	*ret = file;
	return 0;
}

void wcx_store_close(struct wcx_store *store, struct wcx_store_file *file)
{
	if (!file)
		return;
	if (file->image)
		wcx_image_pool_release(store->images, file->image);
	else
		close(file->fd);
	free(file);
}

static void close_plain(struct wcx_closing *closing)
{
	void *file = (char *)closing - offsetof(struct wcx_store_file, closing);

	wcx_store_close(((struct wcx_store_file *)file)->store, file);
}

void wcx_store_close_later(struct wcx_store *store, struct wcx_store_file *file)
{
	if (!file || file->image) {
		wcx_store_close(store, file); /* an image is the pool's, which closes it later, if at all */
		return;
	}
	file->closing.close = close_plain;
	wcx_closer_give(store->closer, &file->closing);
}

void wcx_store_release_unused(struct wcx_store *store)
{
	wcx_image_pool_release_unused(store->images);
}

int wcx_store_file_fd(const struct wcx_store_file *file)
{
	return file->fd;
}

struct wcx_image *wcx_store_file_image(const struct wcx_store_file *file)
{
	return file->image ? file->image->image : NULL;
}

/* The descriptor of what is stored. */
static int stored_fd(const struct wcx_store_file *file)
{
	return file->image ? wcx_container_fd(wcx_image_container(file->image->image)) : file->fd;
}

int wcx_store_file_stat(const struct wcx_store_file *file, struct wcx_store_entry *ret)
{
	struct stat st;

	if (fstat(stored_fd(file), &st))
		return shown_errno(-errno);
	if (file->image) {
		fill_packed_entry(file->store, &st, wcx_container_superblock(wcx_image_container(file->image->image)), ret);
		return 0;
	}
	fill_entry(file->store, &st, version_of(file->fd, &st), false, ret);
	if (st.st_nlink > 1 && has_packed_bytes(file->fd))
		ret->attr.st_nlink = 1;
	return 0;
}

ssize_t wcx_store_file_get_acl(const struct wcx_store_file *file, const char *name, void *dst, size_t dst_bytes)
{
	return get_acl(stored_fd(file), name, dst, dst_bytes);
}

/* Reads to the end of the file, if that comes first: after an error in between there is no result. */
static ssize_t read_plain(int fd, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	char link[32], path[PATH_MAX] = "";
	size_t done = 0;
	ssize_t n = 1;
	int errnum;

	while (done < bytes && n > 0) {
		n = pread(fd, dst + done, bytes - done, (off_t)(offset + done));
		done += n > 0 ? (size_t)n : 0;
	}
	if (n >= 0)
		return (ssize_t)done;
	errnum = errno;
	descriptor_path(fd, link);
	if (readlink(link, path, sizeof path - 1) < 0)
		path[0] = '\0';
	return wcx_fail(err, errnum, "%s: %s", path, strerror(errnum));
}

ssize_t wcx_store_file_read(struct wcx_store_file *file, void *dst, size_t bytes, uint64_t offset,
			    wcx_should_stop_fn *should_stop, void *user, struct wcx_error *err)
{
	ssize_t n;

	err->text[0] = '\0';
	if (!file->image) {
		wcx_count(&file->store->plain_requests, 1);
		wcx_count(&file->store->plain_bytes, bytes);
	}
	n = file->image ? wcx_image_read_until(file->image->image, dst, bytes, offset, should_stop, user, err)
			: read_plain(file->fd, dst, bytes, offset, err);
	return n < 0 ? shown_errno((int)n) : n;
}

void wcx_store_get_stats(const struct wcx_store *store, struct wcx_store_stats *ret)
{
	ret->requests = wcx_count_get(&store->plain_requests);
	ret->bytes = wcx_count_get(&store->plain_bytes);
}

int wcx_store_statvfs(struct wcx_store *store, struct statvfs *ret)
{
	return fstatvfs(store->beneath.dir_fd, ret) ? shown_errno(-errno) : 0;
}

int wcx_store_create(const char *dir, struct wcx_tile_cache *cache, struct wcx_decoder *decoder, struct wcx_store **ret,
		     struct wcx_error *err)
{
	struct wcx_store *store = calloc(1, sizeof *store);
	struct stored_path root;
	struct stat st;
	int r, fd, errnum;

	if (!store)
		return wcx_fail(err, ENOMEM, "%s: %s", dir, strerror(ENOMEM));
	store->counts = wcx_file_counts_create();
	store->closer = wcx_closer_create();
	if (store->counts && store->closer)
		store->images = wcx_image_pool_create(cache, decoder, store->counts, store->closer, WCX_INDEX_BUDGET_BYTES);
	if (store->images)
		store->bases = wcx_store_bases_create(&store->beneath, store->images);
	store->numbers = wcx_inode_numbers_create();
	store->beneath.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	errnum = store->beneath.dir_fd < 0 ? errno : 0;
	store->beneath.dir_path = realpath(dir, NULL);
	if (!store->bases || !store->numbers)
		errnum = ENOMEM;
	if (errnum) {
		r = wcx_fail(err, errnum, "%s: %s", dir, strerror(errnum));
		goto out;
	}
	fd = open_stored(store, "", false, O_PATH, &root, &st);
	if (fd < 0) {
		r = wcx_fail(err, -fd, "%s: openat2: %s", dir, strerror(-fd));
		goto out;
	}
	close(fd);
	*ret = store;
	return 0;
out:
	wcx_store_free(store);
	return r;
}

void wcx_store_free(struct wcx_store *store)
{
	if (!store)
		return;
	wcx_closer_free(store->closer);
	wcx_image_pool_free(store->images);
	wcx_store_bases_free(store->bases);
	wcx_file_counts_free(store->counts);
	wcx_inode_numbers_free(store->numbers);
	if (store->beneath.dir_fd >= 0)
		close(store->beneath.dir_fd);
	free(store->beneath.dir_path);
	free(store);
}
