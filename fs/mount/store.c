/* SPDX-License-Identifier: MIT */
/* Shows a directory tree with packed files as the originals: names, attributes, links, listings, and opening files. */
#include "fs/mount/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/format/container.h"
#include "fs/mount/image_pool.h"

enum {
	SUFFIX_BYTES = sizeof ".wcx" - 1,
	STAT_BLOCK_BYTES = 512, /* the unit of st_blocks */
	WRITE_BITS = S_IWUSR | S_IWGRP | S_IWOTH,
	READ_FLAGS = O_RDONLY | O_NONBLOCK | O_NOCTTY, /* a regular file may have become a FIFO or a terminal */
};

static const char suffix[] = ".wcx";

struct wcx_store {
	int dir_fd;
	struct wcx_image_pool *images;
};

struct wcx_store_file {
	int fd;                         /* -1 for a packed file */
	struct wcx_pooled_image *image; /* NULL for any other */
};

/* A path to pass to the kernel: with the suffix for a packed file. */
struct stored_path {
	char text[PATH_MAX];
};

/* The bytes of name before .wcx, or 0 if the name is shown unchanged: no suffix, or no usable name before it. */
static size_t stem_bytes(const char *name)
{
	size_t bytes = strlen(name);

	if (bytes <= SUFFIX_BYTES || strcmp(name + bytes - SUFFIX_BYTES, suffix) != 0)
		return 0;
	bytes -= SUFFIX_BYTES;
	if ((bytes == 1 && name[0] == '.') || (bytes == 2 && name[0] == '.' && name[1] == '.'))
		return 0;
	return bytes;
}

static const char *last_component(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static bool is_packed_target(const char *target)
{
	return target[0] != '/' && stem_bytes(last_component(target)) != 0;
}

static int stored_path_set(struct stored_path *stored, const char *path, bool packed)
{
	size_t bytes = strlen(path);

	if (bytes + SUFFIX_BYTES >= sizeof stored->text)
		return -ENAMETOOLONG;
	memcpy(stored->text, path, bytes + 1);
	if (packed)
		memcpy(stored->text + bytes, suffix, sizeof suffix);
	else if (bytes == 0)
		memcpy(stored->text, ".", sizeof ".");
	return 0;
}

/*
 * Opens what is stored for a path and gets its attributes.  The kernel refuses to leave the store, even if links are added
 * meanwhile.  O_PATH has no side effects on devices and FIFOs.  Returns a descriptor or -errno.
 */
static int open_stored(const struct wcx_store *store, const char *path, bool packed, int flags,
		       struct stored_path *stored_ret, struct stat *st_ret)
{
	const struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int r = stored_path_set(stored_ret, path, packed), fd;

	if (r)
		return r;
	fd = (int)syscall(SYS_openat2, store->dir_fd, stored_ret->text, &how, sizeof how);
	if (fd >= 0 && !fstat(fd, st_ret))
		return fd;
	r = -errno;
	if (fd >= 0)
		close(fd);
	return r;
}

/* Reads the link dir_fd/name as a string.  name is "" if dir_fd is the link itself. */
static int link_text(int dir_fd, const char *name, char *dst, size_t dst_bytes)
{
	ssize_t bytes = readlinkat(dir_fd, name, dst, dst_bytes);

	if (bytes < 0)
		return -errno;
	if ((size_t)bytes >= dst_bytes)
		return -ENAMETOOLONG;
	dst[bytes] = '\0';
	return 0;
}

/* Whether an entry of dir_fd is shown without the suffix.  name is "" if dir_fd is the entry itself, stored as stored_name.
 */
static bool is_packed(int dir_fd, const char *name, const char *stored_name, mode_t mode)
{
	char target[PATH_MAX];

	if (!stem_bytes(stored_name))
		return false;
	if (S_ISREG(mode))
		return true;
	return S_ISLNK(mode) && !link_text(dir_fd, name, target, sizeof target) && is_packed_target(target);
}

/* Opens the file that a lookup of path found.  Returns a descriptor, -ESTALE if it is no longer there, or -errno. */
static int open_entry(const struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, int flags,
		      struct stored_path *stored_ret)
{
	struct stat st;
	struct wcx_file_id id;
	int fd = open_stored(store, path, entry->packed, flags, stored_ret, &st);

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? -ESTALE : fd;
	id = wcx_file_id_of(&st);
	if (!wcx_file_id_compare(&id, &entry->id))
		return fd;
	close(fd);
	return -ESTALE;
}

static void fill_entry(const struct stat *st, bool packed, off_t shown_bytes, struct wcx_store_entry *ret)
{
	ret->attr = *st;
	ret->id = wcx_file_id_of(st);
	ret->packed = packed;
	if (!S_ISLNK(st->st_mode))
		ret->attr.st_mode &= ~(mode_t)WRITE_BITS;
	if (packed) {
		ret->attr.st_size = shown_bytes;
		if (S_ISREG(st->st_mode))
			ret->attr.st_blocks = WCX_DIV_UP(shown_bytes, STAT_BLOCK_BYTES);
	}
}

/* Translates an error of fs/read to what readers of the mount get; the message in err has the details. */
static int shown_errno(int errnum)
{
	return errnum == -EBADMSG || errnum == -ENOTSUP ? -EIO : errnum;
}

/* Looks up a path without the suffix: -ENOENT if nothing is there, or if what is there is shown under another name. */
static int lookup_plain(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret)
{
	struct stored_path stored;
	struct stat st;
	bool renamed;
	int fd = open_stored(store, path, false, O_PATH, &stored, &st);

	if (fd < 0)
		return fd;
	renamed = is_packed(fd, "", last_component(path), st.st_mode);
	close(fd);
	if (renamed)
		return -ENOENT;
	fill_entry(&st, false, 0, ret);
	return 0;
}

static int lookup_packed_file(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret,
			      struct wcx_error *err)
{
	struct wcx_superblock sb;
	struct stored_path stored;
	struct stat st;
	int fd = open_stored(store, path, true, READ_FLAGS, &stored, &st), r;

	if (fd < 0)
		return wcx_fail(err, -fd, "%s: %s", stored.text, strerror(-fd));
	r = wcx_superblock_read(fd, stored.text, &sb, err);
	close(fd);
	if (r)
		return shown_errno(r);
	fill_entry(&st, true, (off_t)sb.original_bytes, ret);
	return 0;
}

static int lookup_packed(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err)
{
	struct stored_path stored;
	struct stat st;
	bool packed;
	int fd = open_stored(store, path, true, O_PATH, &stored, &st);

	if (fd < 0)
		return fd == -ENAMETOOLONG ? -ENOENT : fd; /* a name of 255 bytes is legal but has no packed form */
	packed = is_packed(fd, "", last_component(stored.text), st.st_mode);
	close(fd);
	if (!packed)
		return -ENOENT;
	if (S_ISREG(st.st_mode))
		return lookup_packed_file(store, path, ret, err);
	fill_entry(&st, true, st.st_size - SUFFIX_BYTES, ret);
	return 0;
}

int wcx_store_lookup(struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err)
{
	int r = lookup_plain(store, path, ret);

	err->text[0] = '\0';
	return r == -ENOENT ? lookup_packed(store, path, ret, err) : r;
}

int wcx_store_readlink(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, char *dst,
		       size_t dst_bytes)
{
	struct stored_path stored;
	int fd = open_entry(store, path, entry, O_PATH, &stored), r;

	if (fd < 0)
		return fd;
	r = link_text(fd, "", dst, dst_bytes);
	close(fd);
	if (!r && entry->packed)
		dst[strlen(dst) - SUFFIX_BYTES] = '\0';
	return r;
}

static int compare_items(const void *a, const void *b)
{
	return strcmp(((const struct wcx_dir_item *)a)->name, ((const struct wcx_dir_item *)b)->name);
}

static int list_add(struct wcx_dir_list *list, size_t *capacity, const struct dirent *de)
{
	struct wcx_dir_item *items = wcx_array_reserve(list->items, capacity, list->count + 1, sizeof *items);
	struct wcx_dir_item *item;

	if (!items)
		return -ENOMEM;
	list->items = items;
	item = &items[list->count];
	item->name = strdup(de->d_name);
	if (!item->name)
		return -ENOMEM;
	item->ino = de->d_ino;
	item->type = DTTOIF(de->d_type);
	list->count++;
	return 0;
}

static int list_read(DIR *dir, struct wcx_dir_list *list)
{
	size_t capacity = 0;

	for (;;) {
		const struct dirent *de;
		int r;

		errno = 0;
		de = readdir(dir);
		if (!de)
			return -errno;
		r = list_add(list, &capacity, de);
		if (r)
			return r;
	}
}

static bool item_is_packed(int dir_fd, const struct wcx_dir_item *item)
{
	struct stat st;
	mode_t type = item->type;

	if (!type && !fstatat(dir_fd, item->name, &st, AT_SYMLINK_NOFOLLOW))
		type = st.st_mode & S_IFMT;
	return is_packed(dir_fd, item->name, item->name, type);
}

/* Whether the directory has a plain item with the name that this packed item would be shown as. */
static bool item_is_shadowed(const struct wcx_dir_list *list, const char *packed, const struct wcx_dir_item *item)
{
	char stem[NAME_MAX + 1];
	const struct wcx_dir_item key = { .name = stem };
	const struct wcx_dir_item *plain;
	size_t bytes = stem_bytes(item->name);

	memcpy(stem, item->name, bytes);
	stem[bytes] = '\0';
	plain = bsearch(&key, list->items, list->count, sizeof *list->items, compare_items);
	return plain && !packed[plain - list->items];
}

/* Turns stored names into shown ones.  Sorts the items, so that finding shadowed ones takes n log n. */
static int list_map_names(int dir_fd, struct wcx_dir_list *list)
{
	enum { PLAIN, PACKED, SHADOWED };
	size_t kept = 0;
	char *packed = calloc(list->count, 1);

	if (!packed)
		return -ENOMEM;
	qsort(list->items, list->count, sizeof *list->items, compare_items);
	for (size_t i = 0; i < list->count; i++)
		packed[i] = item_is_packed(dir_fd, &list->items[i]) ? PACKED : PLAIN;
	for (size_t i = 0; i < list->count; i++)
		if (packed[i] && item_is_shadowed(list, packed, &list->items[i]))
			packed[i] = SHADOWED;
	for (size_t i = 0; i < list->count; i++) {
		if (packed[i] == SHADOWED) {
			free(list->items[i].name);
			continue;
		}
		if (packed[i] == PACKED)
			list->items[i].name[stem_bytes(list->items[i].name)] = '\0';
		list->items[kept++] = list->items[i];
	}
	list->count = kept;
	free(packed);
	return 0;
}

int wcx_store_list(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, struct wcx_dir_list **ret)
{
	struct wcx_dir_list *list;
	struct stored_path stored;
	DIR *dir;
	int fd = open_entry(store, path, entry, O_RDONLY | O_DIRECTORY, &stored), r;

	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	list = calloc(1, sizeof *list);
	r = list ? list_read(dir, list) : -ENOMEM;
	if (!r)
		r = list_map_names(fd, list);
	closedir(dir);
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
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i].name);
	free(list->items);
	free(list);
}

static int file_open(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		     struct wcx_store_file *file, struct wcx_error *err)
{
	struct wcx_store_entry plain;
	struct stored_path stored;
	int fd;

	if (!S_ISREG(entry->attr.st_mode))
		return -ENXIO;
	if (entry->packed && lookup_plain(store, path, &plain) != -ENOENT)
		return -ESTALE; /* a plain file was added, and hides the packed one */
	fd = open_entry(store, path, entry, READ_FLAGS, &stored);
	if (fd < 0)
		return fd;
	if (entry->packed)
		return shown_errno(wcx_image_pool_open(store->images, fd, stored.text, &entry->id, &file->image, err));
	file->fd = fd;
	return 0;
}

int wcx_store_open(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		   struct wcx_store_file **ret, struct wcx_error *err)
{
	struct wcx_store_file *file = malloc(sizeof *file);
	int r;

	err->text[0] = '\0';
	if (!file)
		return -ENOMEM;
	*file = (struct wcx_store_file){ .fd = -1 };
	r = file_open(store, path, entry, file, err);
	if (r) {
		free(file);
		return r;
	}
	*ret = file;
	return 0;
}

void wcx_store_close(struct wcx_store *store, struct wcx_store_file *file)
{
	if (file->image)
		wcx_image_pool_release(store->images, file->image);
	else
		close(file->fd);
	free(file);
}

int wcx_store_file_fd(const struct wcx_store_file *file)
{
	return file->fd;
}

struct wcx_image *wcx_store_file_image(const struct wcx_store_file *file)
{
	return file->image ? file->image->image : NULL;
}

ssize_t wcx_store_file_read(struct wcx_store_file *file, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	ssize_t n;

	err->text[0] = '\0';
	n = wcx_image_read(file->image->image, dst, bytes, offset, err);
	return n < 0 ? shown_errno((int)n) : n;
}

int wcx_store_statvfs(struct wcx_store *store, struct statvfs *ret)
{
	return fstatvfs(store->dir_fd, ret) ? -errno : 0;
}

int wcx_store_create(const char *dir, struct wcx_tile_cache *cache, struct wcx_decoder *decoder, struct wcx_store **ret,
		     struct wcx_error *err)
{
	struct wcx_store *store = malloc(sizeof *store);
	struct stored_path root;
	struct stat st;
	int r, fd, errnum;

	if (!store)
		return wcx_fail(err, ENOMEM, "%s: %s", dir, strerror(ENOMEM));
	store->images = wcx_image_pool_create(cache, decoder);
	store->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	errnum = !store->images ? ENOMEM : store->dir_fd < 0 ? errno : 0;
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
	wcx_image_pool_free(store->images);
	if (store->dir_fd >= 0)
		close(store->dir_fd);
	free(store);
}
