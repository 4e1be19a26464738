/* SPDX-License-Identifier: MIT */
/* Shows a directory with packed files as the originals: names, attributes, and images shared between opens. */
#include "fs/mount/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/format/container.h"
#include "fs/read/image.h"

enum {
	SUFFIX_BYTES = sizeof ".wcx" - 1,
	IDLE_IMAGES_MAX = 16, /* a model's shards, opened in turn, while a store of thousands still fits 1024 descriptors */
	WRITE_BITS = S_IWUSR | S_IWGRP | S_IWOTH,
};

static const char suffix[] = ".wcx";

struct open_image {
	struct wcx_file_id id; /* first: the key in the tree of images */
	struct wcx_image *image;
	size_t user_count; /* open files */
};

struct wcx_store {
	int dir_fd;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;

	pthread_mutex_t image_lock; /* protects what follows, and user_count of every open image */
	void *images;               /* tsearch(3) tree of struct open_image: a balanced tree that libc has ready */
	struct open_image *idle[IDLE_IMAGES_MAX]; /* images without users, the longest unused first */
	size_t idle_count;
};

struct wcx_store_file {
	int fd;                   /* -1 for a packed file */
	struct open_image *image; /* NULL for any other */
};

/* A path on its way to the kernel: as shown, or with the suffix. */
struct stored_path {
	char text[PATH_MAX];
};

/* Bytes of name without .wcx; 0 for a name that stays: without the suffix, or with nothing usable in front of it. */
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

static int is_packed_target(const char *target)
{
	return target[0] != '/' && stem_bytes(last_component(target)) != 0;
}

static int stored_path_set(struct stored_path *stored, const char *path, int packed)
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

/* Opens without ever leaving the store, whatever links are put into it meanwhile; returns a descriptor or -errno. */
static int open_beneath(const struct wcx_store *store, const struct stored_path *stored, int flags)
{
	const struct open_how how = {
		.flags = (unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, store->dir_fd, stored->text, &how, sizeof how);

	return fd < 0 ? -errno : (int)fd;
}

/* A handle that touches no device and wakes no FIFO, with its attributes; returns a descriptor or -errno. */
static int open_handle(const struct wcx_store *store, const struct stored_path *stored, struct stat *st_ret)
{
	int fd = open_beneath(store, stored, O_PATH);

	if (fd >= 0 && fstat(fd, st_ret)) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	return fd;
}

/* O_NONBLOCK: what was a regular file a moment ago may be a FIFO now, and must not stop a thread. */
static int open_bytes(const struct wcx_store *store, const struct stored_path *stored, struct stat *st_ret)
{
	int fd = open_beneath(store, stored, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	int ret;

	if (fd < 0)
		return fd;
	ret = fstat(fd, st_ret) ? -errno : S_ISREG(st_ret->st_mode) ? 0 : -ENXIO;
	if (ret) {
		close(fd);
		return ret;
	}
	return fd;
}

/* The text of the link at dir_fd, name (name may be "" when dir_fd is the link), ended by a zero byte. */
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

/* Whether an entry whose name ends in .wcx stands for another name. */
static int is_packed(int dir_fd, const char *name, mode_t mode)
{
	char target[PATH_MAX];

	if (S_ISREG(mode))
		return 1;
	return S_ISLNK(mode) && !link_text(dir_fd, name, target, sizeof target) && is_packed_target(target);
}

static struct wcx_file_id file_id(const struct stat *st)
{
	struct wcx_file_id id = { .dev = st->st_dev, .ino = st->st_ino };

	if (!S_ISDIR(st->st_mode)) {
		id.mtime = st->st_mtim;
		id.size = st->st_size;
	}
	return id;
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

int wcx_file_id_compare(const struct wcx_file_id *a, const struct wcx_file_id *b)
{
	int order = compare_u64(a->ino, b->ino);

	if (!order)
		order = compare_u64(a->dev, b->dev);
	if (!order)
		order = compare_u64((uint64_t)a->size, (uint64_t)b->size);
	if (!order)
		order = compare_u64((uint64_t)a->mtime.tv_sec, (uint64_t)b->mtime.tv_sec);
	if (!order)
		order = compare_u64((uint64_t)a->mtime.tv_nsec, (uint64_t)b->mtime.tv_nsec);
	return order;
}

static int same_file(const struct stat *st, const struct wcx_store_entry *entry)
{
	struct wcx_file_id id = file_id(st);

	return !wcx_file_id_compare(&id, &entry->id);
}

static void fill_entry(const struct stat *st, int packed, off_t shown_bytes, struct wcx_store_entry *ret)
{
	ret->attr = *st;
	ret->id = file_id(st);
	ret->packed = packed;
	if (!S_ISLNK(st->st_mode))
		ret->attr.st_mode &= ~(mode_t)WRITE_BITS;
	if (packed) {
		ret->attr.st_size = shown_bytes;
		if (S_ISREG(st->st_mode))
			ret->attr.st_blocks = (shown_bytes + 511) / 512;
	}
}

/* What a reader sees of an error of the core; the text in err says more. */
static int shown_errno(int errnum)
{
	return errnum == -EBADMSG || errnum == -ENOTSUP ? -EIO : errnum;
}

/* Looks up a path under its own name: -ENOENT when nothing is there, or what is there is shown under another name. */
static int lookup_plain(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret)
{
	struct stored_path stored;
	struct stat st;
	int fd, hidden;
	int err = stored_path_set(&stored, path, 0);

	if (err)
		return err;
	fd = open_handle(store, &stored, &st);
	if (fd < 0)
		return fd;
	hidden = stem_bytes(last_component(path)) && is_packed(fd, "", st.st_mode);
	close(fd);
	if (hidden)
		return -ENOENT;
	fill_entry(&st, 0, 0, ret);
	return 0;
}

static int lookup_image(const struct wcx_store *store, const struct stored_path *stored, struct wcx_store_entry *ret,
			struct wcx_error *err)
{
	struct wcx_superblock sb;
	struct stat st;
	int result;
	int fd = open_bytes(store, stored, &st);

	if (fd < 0)
		return wcx_fail(err, -fd, "%s: %s", stored->text, strerror(-fd));
	result = wcx_superblock_read(fd, stored->text, &sb, err);
	close(fd);
	if (result)
		return shown_errno(result);
	fill_entry(&st, 1, (off_t)sb.original_bytes, ret);
	return 0;
}

static int lookup_packed(const struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err)
{
	struct stored_path stored;
	struct stat st;
	int fd, packed;
	int result = stored_path_set(&stored, path, 1);

	if (result)
		return result;
	if (!stem_bytes(last_component(stored.text)))
		return -ENOENT;
	fd = open_handle(store, &stored, &st);
	if (fd < 0)
		return fd == -ENAMETOOLONG ? -ENOENT : fd; /* a name of 255 bytes is legal, and has no packed form */
	packed = is_packed(fd, "", st.st_mode);
	close(fd);
	if (!packed)
		return -ENOENT;
	if (S_ISREG(st.st_mode))
		return lookup_image(store, &stored, ret, err);
	fill_entry(&st, 1, st.st_size - SUFFIX_BYTES, ret);
	return 0;
}

int wcx_store_lookup(struct wcx_store *store, const char *path, struct wcx_store_entry *ret, struct wcx_error *err)
{
	int result = lookup_plain(store, path, ret);

	err->text[0] = '\0';
	return result == -ENOENT ? lookup_packed(store, path, ret, err) : result;
}

int wcx_store_readlink(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry, char *dst,
		       size_t dst_bytes)
{
	struct stored_path stored;
	struct stat st;
	int fd;
	int ret = stored_path_set(&stored, path, entry->packed);

	if (ret)
		return ret;
	fd = open_handle(store, &stored, &st);
	if (fd < 0)
		return fd == -ENOENT ? -ESTALE : fd;
	ret = same_file(&st, entry) ? link_text(fd, "", dst, dst_bytes) : -ESTALE;
	close(fd);
	if (!ret && entry->packed)
		dst[strlen(dst) - SUFFIX_BYTES] = '\0';
	return ret;
}

static int compare_items(const void *a, const void *b)
{
	return strcmp(((const struct wcx_dir_item *)a)->name, ((const struct wcx_dir_item *)b)->name);
}

static int list_add(struct wcx_dir_list *list, size_t *room, const struct dirent *de)
{
	struct wcx_dir_item *item;

	if (list->count == *room) {
		size_t new_room = *room ? 2 * *room : 64;
		struct wcx_dir_item *items = realloc(list->items, new_room * sizeof *items);

		if (!items)
			return -ENOMEM;
		list->items = items;
		*room = new_room;
	}
	item = &list->items[list->count];
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
	size_t room = 0;

	for (;;) {
		const struct dirent *de;
		int ret;

		errno = 0;
		de = readdir(dir);
		if (!de)
			return -errno;
		ret = list_add(list, &room, de);
		if (ret)
			return ret;
	}
}

static int item_is_packed(int dir_fd, const struct wcx_dir_item *item)
{
	struct stat st;
	mode_t type = item->type;

	if (!stem_bytes(item->name))
		return 0;
	if (!type && !fstatat(dir_fd, item->name, &st, AT_SYMLINK_NOFOLLOW))
		type = st.st_mode & S_IFMT;
	return is_packed(dir_fd, item->name, type);
}

/* Whether the directory itself has the name that a packed item stands for, and shows it. */
static int item_is_shadowed(const struct wcx_dir_list *list, const char *packed, const struct wcx_dir_item *item)
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

/* Turns stored names into shown ones; sorted, so that a directory of n files costs n log n. */
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
	struct wcx_dir_list *list = NULL;
	struct stored_path stored;
	struct stat st;
	DIR *dir = NULL;
	int fd = -1;
	int result = stored_path_set(&stored, path, 0);

	if (result)
		return result;
	fd = open_beneath(store, &stored, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
	if (fstat(fd, &st)) {
		result = -errno;
		goto out;
	}
	if (!same_file(&st, entry)) {
		result = -ESTALE;
		goto out;
	}
	result = -ENOMEM;
	list = calloc(1, sizeof *list);
	if (!list)
		goto out;
	dir = fdopendir(fd);
	if (!dir)
		goto out;
	result = list_read(dir, list);
	if (!result)
		result = list_map_names(fd, list);
	if (!result) {
		*ret = list;
		list = NULL;
	}
out:
	if (dir)
		closedir(dir);
	else
		close(fd);
	wcx_dir_list_free(list);
	return result;
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

static int compare_images(const void *a, const void *b)
{
	return wcx_file_id_compare(&((const struct open_image *)a)->id, &((const struct open_image *)b)->id);
}

/* Takes an image that is open already; NULL when there is none.  The caller holds image_lock. */
static struct open_image *image_take_locked(struct wcx_store *store, const struct wcx_file_id *id)
{
	const struct open_image key = { .id = *id };
	void *found = tfind(&key, &store->images, compare_images);
	struct open_image *image;

	if (!found)
		return NULL;
	image = *(struct open_image **)found;
	if (image->user_count++ > 0)
		return image;
	for (size_t i = 0; i < store->idle_count; i++) {
		if (store->idle[i] == image) {
			store->idle_count--;
			memmove(&store->idle[i], &store->idle[i + 1], (store->idle_count - i) * sizeof store->idle[0]);
			break;
		}
	}
	return image;
}

static struct open_image *image_take(struct wcx_store *store, const struct wcx_file_id *id)
{
	struct open_image *image;

	pthread_mutex_lock(&store->image_lock);
	image = image_take_locked(store, id);
	pthread_mutex_unlock(&store->image_lock);
	return image;
}

/* Shares a freshly opened image, unless another thread was faster: then that one's is taken, and fresh is the caller's. */
static struct open_image *image_share(struct wcx_store *store, struct open_image *fresh)
{
	struct open_image *image;

	pthread_mutex_lock(&store->image_lock);
	image = image_take_locked(store, &fresh->id);
	if (!image && tsearch(fresh, &store->images, compare_images)) {
		fresh->user_count = 1;
		image = fresh;
	}
	pthread_mutex_unlock(&store->image_lock);
	return image;
}

static void image_free(void *image)
{
	wcx_image_put(((struct open_image *)image)->image);
	free(image);
}

static void image_release(struct wcx_store *store, struct open_image *image)
{
	struct open_image *victim = NULL;

	pthread_mutex_lock(&store->image_lock);
	if (--image->user_count == 0) {
		if (store->idle_count == IDLE_IMAGES_MAX) {
			victim = store->idle[0];
			tdelete(victim, &store->images, compare_images);
			store->idle_count--;
			memmove(&store->idle[0], &store->idle[1], store->idle_count * sizeof store->idle[0]);
		}
		store->idle[store->idle_count++] = image;
	}
	pthread_mutex_unlock(&store->image_lock);
	if (victim)
		image_free(victim);
}

/* Opens an image and shares it; fd is used up.  Of two threads that get here with one file, the later one's work is lost. */
static int image_open(struct wcx_store *store, int fd, const char *path, const struct wcx_file_id *id,
		      struct open_image **ret, struct wcx_error *err)
{
	struct open_image *fresh = calloc(1, sizeof *fresh);
	int result = -ENOMEM;

	if (!fresh)
		goto out;
	fresh->id = *id;
	result = wcx_image_open(fd, path, store->cache, store->decoder, &fresh->image, err);
	if (result) {
		result = shown_errno(result);
		goto out;
	}
	fd = -1;
	*ret = image_share(store, fresh);
	if (*ret == fresh)
		return 0;
	if (!*ret)
		result = -ENOMEM;
	image_free(fresh);
	fresh = NULL;
out:
	if (fd >= 0)
		close(fd);
	free(fresh);
	return result;
}

static int file_open(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		     struct wcx_store_file *file, struct wcx_error *err)
{
	struct wcx_store_entry plain;
	struct stored_path stored;
	struct stat st;
	int ret, fd;

	ret = stored_path_set(&stored, path, entry->packed);
	if (ret)
		return ret;
	if (entry->packed && lookup_plain(store, path, &plain) != -ENOENT)
		return -ESTALE; /* what hides it came later */
	fd = open_bytes(store, &stored, &st);
	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? -ESTALE : fd;
	if (!same_file(&st, entry)) {
		close(fd);
		return -ESTALE;
	}
	if (!entry->packed) {
		file->fd = fd;
		return 0;
	}
	file->image = image_take(store, &entry->id);
	if (file->image) {
		close(fd);
		return 0;
	}
	return image_open(store, fd, stored.text, &entry->id, &file->image, err);
}

int wcx_store_open(struct wcx_store *store, const char *path, const struct wcx_store_entry *entry,
		   struct wcx_store_file **ret, struct wcx_error *err)
{
	struct wcx_store_file *file = malloc(sizeof *file);
	int result;

	err->text[0] = '\0';
	if (!file)
		return -ENOMEM;
	*file = (struct wcx_store_file){ .fd = -1 };
	result = file_open(store, path, entry, file, err);
	if (result) {
		free(file);
		return result;
	}
	*ret = file;
	return 0;
}

void wcx_store_close(struct wcx_store *store, struct wcx_store_file *file)
{
	if (file->image)
		image_release(store, file->image);
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
	ssize_t done;

	err->text[0] = '\0';
	done = wcx_image_read(file->image->image, dst, bytes, offset, err);
	return done < 0 ? shown_errno((int)done) : done;
}

int wcx_store_statvfs(struct wcx_store *store, struct statvfs *ret)
{
	return fstatvfs(store->dir_fd, ret) ? -errno : 0;
}

int wcx_store_create(const char *dir, struct wcx_tile_cache *cache, struct wcx_decoder *decoder, struct wcx_store **ret,
		     struct wcx_error *err)
{
	static const struct stored_path root = { "." };
	struct wcx_store *store = calloc(1, sizeof *store);
	int result, fd;

	if (!store)
		return wcx_fail(err, ENOMEM, "%s: %s", dir, strerror(ENOMEM));
	store->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir_fd < 0) {
		result = wcx_fail(err, errno, "%s: %s", dir, strerror(errno));
		goto out;
	}
	fd = open_beneath(store, &root, O_PATH);
	if (fd < 0) {
		result = wcx_fail(err, -fd, "%s: openat2: %s", dir, strerror(-fd));
		close(store->dir_fd);
		goto out;
	}
	close(fd);
	store->cache = cache;
	store->decoder = decoder;
	pthread_mutex_init(&store->image_lock, NULL);
	*ret = store;
	return 0;
out:
	free(store);
	return result;
}

void wcx_store_free(struct wcx_store *store)
{
	if (!store)
		return;
	tdestroy(store->images, image_free);
	pthread_mutex_destroy(&store->image_lock);
	close(store->dir_fd);
	free(store);
}
