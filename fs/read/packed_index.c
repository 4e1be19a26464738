/* SPDX-License-Identifier: MIT */
/* Scans a directory tree for packed files, and finds them by the SHA-256 of their originals. */
#include "fs/read/packed_index.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/clock.h"
#include "fs/base/output_file.h"
#include "fs/base/search.h"
#include "fs/base/tree.h"
#include "fs/format/container.h"

enum { SCAN_PAUSES = 10 }; /* the share of the time that scans may take */

static const char suffix[] = ".wcx";

int wcx_open_below(void *directory_fd, const char *path, int flags, struct stat *st_ret)
{
	const int fd = wcx_open_without_links(*(const int *)directory_fd, path, flags);
	int r;

	if (fd < 0 || fstat(fd, st_ret) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* --- the walk --- */

static int skip(const struct wcx_packed_visitor *visitor, const char *path, int errnum)
{
	return visitor->skipped ? visitor->skipped(visitor->user, path, errnum) : 0;
}

static mode_t type_of(int fd, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type != DT_UNKNOWN)
		return DTTOIF(entry->d_type);
	return fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? st.st_mode & S_IFMT : 0;
}

static int see(const struct wcx_packed_visitor *visitor, const char *directory, int fd, const struct dirent *entry)
{
	const size_t bytes = strlen(entry->d_name), suffix_bytes = strlen(suffix);
	const bool is_named = bytes > suffix_bytes && strcmp(entry->d_name + bytes - suffix_bytes, suffix) == 0;
	const bool is_top = strcmp(directory, ".") == 0;
	char path[PATH_MAX];

	if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || wcx_is_temporary_name(entry->d_name))
		return 0;
	if (snprintf(path, sizeof path, "%s%s%s", is_top ? "" : directory, is_top ? "" : "/", entry->d_name) >=
	    (int)sizeof path)
		return skip(visitor, directory, ENAMETOOLONG);
	switch (type_of(fd, entry)) {
	case S_IFDIR:
		return visitor->directory(visitor->user, path);
	case S_IFREG:
		return is_named ? visitor->file(visitor->user, path) : 0;
	default:
		return 0;
	}
}

int wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor)
{
	DIR *directory = fdopendir(fd);
	const struct dirent *entry;
	int r = 0;

	if (!directory) {
		r = skip(visitor, path, errno);
		close(fd);
		return r;
	}
	while (r == 0 && (errno = 0, entry = readdir(directory))) {
		if (visitor->names_left && !(*visitor->names_left)--)
			r = -E2BIG;
		else
			r = see(visitor, path, fd, entry);
	}
	if (r == 0 && errno)
		r = skip(visitor, path, errno);
	closedir(directory);
	return r;
}

/* Directories that are still to be listed. */
struct walk {
	int (*visit)(void *user, const char *path);
	int (*skipped)(void *user, const char *path, int errnum);
	void *user;
	char **paths;
	size_t count, capacity;
};

static int push(void *user, const char *path)
{
	struct walk *walk = user;
	char **grown = wcx_array_reserve(walk->paths, &walk->capacity, walk->count + 1, sizeof *grown);
	char *copy = grown ? strdup(path) : NULL;

	walk->paths = grown ? grown : walk->paths;
	if (!copy)
		return -ENOMEM;
	walk->paths[walk->count++] = copy;
	return 0;
}

static int visit_file(void *user, const char *path)
{
	const struct walk *walk = user;

	return walk->visit(walk->user, path);
}

static int pass_over(void *user, const char *path, int errnum)
{
	const struct walk *walk = user;

	return walk->skipped ? walk->skipped(walk->user, path, errnum) : 0;
}

int wcx_packed_paths(const struct wcx_tree_access *access, const atomic_bool *stop,
		     int (*visit)(void *user, const char *path), int (*skipped)(void *user, const char *path, int errnum),
		     void *user)
{
	struct walk walk = { .visit = visit, .skipped = skipped, .user = user };
	const struct wcx_packed_visitor visitor = {
		.file = visit_file, .directory = push, .skipped = pass_over, .user = &walk
	};
	int r = push(&walk, ".");

	while (walk.count && r == 0) {
		char *path = walk.paths[--walk.count];
		struct stat st;
		int fd;

		if (stop && *stop) {
			r = -EINTR;
		} else {
			fd = access->open(access->user, path, O_RDONLY | O_DIRECTORY, &st);
			r = fd < 0 ? pass_over(&walk, path, -fd) : wcx_packed_list(fd, path, &visitor);
		}
		free(path);
	}
	while (walk.count)
		free(walk.paths[--walk.count]);
	free(walk.paths);
	return r;
}

/* --- the index --- */

struct packed_file {
	uint8_t sha256[WCX_SHA256_BYTES];
	uint64_t original_bytes;
	char *path;
};

/* The result of a scan, sorted. */
struct packed_files {
	const struct wcx_tree_access *access;
	struct packed_file *items;
	size_t count, capacity;
};

struct wcx_packed_index {
	struct wcx_tree_access access;
	const atomic_bool *stop;
	pthread_mutex_t lock; /* protects the rest */
	pthread_cond_t scanned;
	bool is_scanning;
	uint64_t scanned_ms; /* when the last scan ended; 0: never */
	uint64_t scan_ms;    /* how long it took */
	struct packed_files files;
};

static void free_files(struct packed_files *files)
{
	for (size_t i = 0; i < files->count; i++)
		free(files->items[i].path);
	free(files->items);
	*files = (struct packed_files){ .access = files->access };
}

static int compare_files(const void *a, const void *b)
{
	const struct packed_file *x = a, *y = b;
	const int r = memcmp(x->sha256, y->sha256, sizeof x->sha256);

	if (r || x->original_bytes != y->original_bytes)
		return r ? r : x->original_bytes < y->original_bytes ? -1 : 1;
	return x->path && y->path ? strcmp(x->path, y->path) : !y->path - !x->path;
}

/* Adds a file that can be read and is a base's kind: one without bases of its own. */
static int add_file(void *user, const char *path)
{
	struct packed_files *files = user;
	struct packed_file *grown;
	struct wcx_superblock sb;
	struct stat st;
	const int fd = files->access->open(files->access->user, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &st);
	int r = -EINVAL;

	if (fd >= 0) {
		r = S_ISREG(st.st_mode) ? wcx_superblock_read(fd, path, &sb, NULL) : -EINVAL;
		close(fd);
	}
	if (r < 0 || sb.base_count)
		return 0;
	grown = wcx_array_reserve(files->items, &files->capacity, files->count + 1, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	files->items = grown;
	grown += files->count;
	memcpy(grown->sha256, sb.sha256, sizeof grown->sha256);
	grown->original_bytes = sb.original_bytes;
	grown->path = strdup(path);
	files->count += grown->path != NULL;
	return grown->path ? 0 : -ENOMEM;
}

/*
 * Scans unless a scan has ended less than refresh_ms ago, or less than SCAN_PAUSES times as long ago as it took: a large
 * store is not scanned all the time for a base that is missing.  Waits for a scan that is going on.  A scan that ends early
 * counts as far as it came.
 */
static void refresh(struct wcx_packed_index *index, uint64_t refresh_ms)
{
	struct packed_files files = { .access = &index->access }, old;
	uint64_t now_ms;

	pthread_mutex_lock(&index->lock);
	while (index->is_scanning)
		pthread_cond_wait(&index->scanned, &index->lock);
	now_ms = wcx_now_ms();
	if (index->scanned_ms && now_ms - index->scanned_ms < WCX_MAX(refresh_ms, SCAN_PAUSES * index->scan_ms)) {
		pthread_mutex_unlock(&index->lock);
		return;
	}
	index->is_scanning = true;
	pthread_mutex_unlock(&index->lock);
	if (index->access.paths)
		index->access.paths(index->access.user, index->stop, add_file, &files);
	else
		wcx_packed_paths(&index->access, index->stop, add_file, NULL, &files);
	if (files.count)
		qsort(files.items, files.count, sizeof *files.items, compare_files);
	pthread_mutex_lock(&index->lock);
	old = index->files;
	index->files = files;
	index->scanned_ms = wcx_now_ms();
	index->scan_ms = index->scanned_ms - now_ms;
	index->is_scanning = false;
	pthread_cond_broadcast(&index->scanned);
	pthread_mutex_unlock(&index->lock);
	free_files(&old);
}

struct place {
	const struct packed_files *files;
	const struct packed_file *sought;
};

static bool comes_before(const void *user, size_t i)
{
	const struct place *place = user;

	return compare_files(&place->files->items[i], place->sought) < 0;
}

/* Gets the path of the next file with an original, after sought->path if there is one; -ENOENT, or -ENOMEM. */
static int next_path(struct wcx_packed_index *index, const struct packed_file *sought, char **path_ret)
{
	const struct place place = { &index->files, sought };
	const struct packed_file *found;
	size_t i;
	int r = -ENOENT;

	*path_ret = NULL;
	pthread_mutex_lock(&index->lock);
	i = wcx_count_before(index->files.count, comes_before, &place);
	if (i < index->files.count && sought->path && compare_files(&index->files.items[i], sought) == 0)
		i++;
	found = i < index->files.count ? &index->files.items[i] : NULL;
	if (found && memcmp(found->sha256, sought->sha256, sizeof found->sha256) == 0 &&
	    found->original_bytes == sought->original_bytes) {
		*path_ret = strdup(found->path);
		r = *path_ret ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&index->lock);
	return r;
}

static int look_at_all(struct wcx_packed_index *index, const uint8_t sha256[32], uint64_t original_bytes,
		       wcx_packed_index_fn *look, void *user)
{
	struct packed_file sought = { .original_bytes = original_bytes };
	bool is_over = false;
	int r = 0;

	memcpy(sought.sha256, sha256, sizeof sought.sha256);
	while (r == 0 && !is_over) {
		char *path;

		r = next_path(index, &sought, &path);
		free(sought.path);
		sought.path = path;
		if (r == 0)
			is_over = look(user, path);
	}
	free(sought.path);
	return r;
}

int wcx_packed_index_find(struct wcx_packed_index *index, const uint8_t sha256[32], uint64_t original_bytes,
			  uint64_t refresh_ms, wcx_packed_index_fn *look, void *user)
{
	int r = look_at_all(index, sha256, original_bytes, look, user);

	if (r == -ENOENT) {
		refresh(index, refresh_ms);
		r = look_at_all(index, sha256, original_bytes, look, user);
	}
	return r;
}

struct wcx_packed_index *wcx_packed_index_create(const struct wcx_tree_access *access, const atomic_bool *stop)
{
	struct wcx_packed_index *index = calloc(1, sizeof *index);

	if (!index)
		return NULL;
	index->access = *access;
	index->stop = stop;
	pthread_mutex_init(&index->lock, NULL);
	pthread_cond_init(&index->scanned, NULL);
	return index;
}

void wcx_packed_index_free(struct wcx_packed_index *index)
{
	if (!index)
		return;
	free_files(&index->files);
	pthread_cond_destroy(&index->scanned);
	pthread_mutex_destroy(&index->lock);
	free(index);
}
