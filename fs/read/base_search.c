/* SPDX-License-Identifier: MIT */
/* Finds bases for commands and libwcx: by the hint, and by SHA-256 in a directory tree. */
#include "fs/read/base_search.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/ancestors.h"
#include "fs/base/array.h"
#include "fs/base/path.h"
#include "fs/read/base_rules.h"
#include "fs/read/packed_index.h"
#include "fs/read/store_walk.h"

enum { FOUND_MAX = 32 }; /* bases that stay open for the next file that needs them: each takes a descriptor and its index */

/* A tree that is searched, or what is around it. */
struct root {
	bool is_around;
	struct wcx_store_walk walk; /* its names are for scans of the index alone */
	struct wcx_packed_index *index;
};

/* A base that was found. */
struct found {
	struct wcx_image *image;
	struct stat st;
	bool is_public;
};

struct wcx_base_search {
	char *store; /* NULL: the directory of each dependent */
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	const atomic_bool *stop;
	const char *advice;   /* after the name of the place where a base was not found */
	pthread_mutex_t lock; /* protects the lists; roots themselves stay as they are */
	struct root **roots;
	size_t root_count, root_capacity;
	struct found found[FOUND_MAX]; /* the oldest first */
	size_t found_count;
};

/* A search for one base. */
struct quest {
	struct wcx_base_search *search;
	struct root *root;
	bool stays; /* in the store, where a hint may lead out of it */
	struct wcx_base_check check;
	struct wcx_image *image; /* the result */
};

/* --- trees --- */

static void free_root(struct root *root)
{
	if (!root)
		return;
	wcx_packed_index_free(root->index);
	wcx_store_walk_free(&root->walk);
	free(root);
}

static int open_in_root(void *user, const char *path, int flags, struct stat *st_ret)
{
	struct root *root = user;

	return wcx_open_below(&root->walk.fd, path, flags, st_ret);
}

/* Calls a function for each packed file around a tree; what is below is another root's. */
static int visit_around(void *user, const atomic_bool *stop, int (*visit)(void *visitor, const char *path), void *visitor)
{
	struct root *root = user;
	int r = wcx_store_walk_refresh(&root->walk, stop);

	for (size_t i = 0; i < root->walk.count && r == 0; i++)
		if (!root->walk.names[i].errnum && wcx_is_around(root->walk.names[i].path))
			r = stop && *stop ? -EINTR : visit(visitor, root->walk.names[i].path);
	return r;
}

static struct root *make_root(const struct wcx_base_search *search, const char *path, bool is_around)
{
	struct root *root = calloc(1, sizeof *root);
	const struct wcx_tree_access access = { open_in_root, is_around ? visit_around : NULL, root };

	if (!root)
		return NULL;
	root->is_around = is_around;
	if (wcx_store_walk_open(&root->walk, path, is_around) == 0)
		root->index = wcx_packed_index_create(&access, search->stop);
	if (root->index)
		return root;
	free_root(root);
	return NULL;
}

static struct root *known_root_locked(const struct wcx_base_search *search, const char *path, bool is_around)
{
	for (size_t i = 0; i < search->root_count; i++)
		if (search->roots[i]->is_around == is_around && strcmp(search->roots[i]->walk.start, path) == 0)
			return search->roots[i];
	return NULL;
}

static struct root *add_root_locked(struct wcx_base_search *search, struct root *fresh)
{
	struct root **grown =
		wcx_array_reserve(search->roots, &search->root_capacity, search->root_count + 1, sizeof(struct root *));

	if (!grown)
		return NULL;
	search->roots = grown;
	return grown[search->root_count++] = fresh;
}

/* The tree at a path, or what is around it, for good; NULL: it cannot be opened. */
static struct root *get_root(struct wcx_base_search *search, const char *path, bool is_around)
{
	struct root *root, *fresh;

	pthread_mutex_lock(&search->lock);
	root = known_root_locked(search, path, is_around);
	pthread_mutex_unlock(&search->lock);
	fresh = root ? NULL : make_root(search, path, is_around);
	if (!fresh)
		return root;
	pthread_mutex_lock(&search->lock);
	root = known_root_locked(search, path, is_around); /* another thread may have made it meanwhile */
	if (!root)
		root = add_root_locked(search, fresh);
	pthread_mutex_unlock(&search->lock);
	if (root != fresh)
		free_root(fresh);
	return root;
}

/* --- candidates --- */

/* Whether nothing but the file's own permission bits keeps anybody from it: its directories, by their present names. */
static bool is_public(int fd)
{
	char link[32], path[PATH_MAX];
	ssize_t bytes;

	if (wcx_has_acl(fd))
		return false;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	bytes = readlink(link, path, sizeof path - 1);
	if (bytes <= 0 || *path != '/')
		return false;
	path[bytes] = '\0';
	for (char *slash; (slash = strrchr(path, '/'));) {
		struct stat st;
		int directory;
		bool is_open;

		slash[slash == path ? 1 : 0] = '\0';
		directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		is_open = directory >= 0 && fstat(directory, &st) == 0 && st.st_mode & S_IXOTH && !wcx_has_acl(directory);
		if (directory >= 0)
			close(directory);
		if (!is_open)
			return false;
		if (slash == path)
			return true;
	}
	return false;
}

/* Keeps what was found for others that need it; after many more they find it again. */
static void keep_found(struct wcx_base_search *search, struct wcx_image *image, const struct stat *st, bool public)
{
	struct wcx_image *oldest = NULL;

	pthread_mutex_lock(&search->lock);
	if (search->found_count == FOUND_MAX) {
		oldest = search->found[0].image;
		memmove(search->found, search->found + 1, --search->found_count * sizeof search->found[0]);
	}
	search->found[search->found_count++] = (struct found){ wcx_image_get(image), *st, public };
	pthread_mutex_unlock(&search->lock);
	wcx_image_put(oldest);
}

/* Takes a file if it will do; owns fd. */
static bool try_file(struct quest *quest, int fd, const char *path)
{
	struct wcx_superblock sb;
	struct wcx_error why = { "" };
	struct stat st;
	bool public;
	int r;

	if (fstat(fd, &st) < 0) {
		close(fd);
		return false;
	}
	public = quest->check.for_others && is_public(fd);
	if (!wcx_base_check_file(&quest->check, fd, path, &st, public, &sb)) {
		close(fd);
		return false;
	}
	r = wcx_image_open(fd, path, quest->search->cache, quest->search->decoder, &quest->image, &why);
	if (r < 0) {
		close(fd);
		wcx_base_check_refuse(&quest->check, r, &why);
		return false;
	}
	keep_found(quest->search, quest->image, &st, public);
	return true;
}

int wcx_base_open_hint(int directory_fd, const char *path, struct stat *st_ret)
{
	int fd;

	if (fstatat(directory_fd, path, st_ret, 0) < 0)
		return -errno;
	if (!S_ISREG(st_ret->st_mode))
		return -EINVAL;
	fd = openat(directory_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || (fstat(fd, st_ret) == 0 && S_ISREG(st_ret->st_mode)))
		return fd < 0 ? -errno : fd;
	close(fd);
	return -EINVAL;
}

static bool try_path(struct quest *quest, const char *path)
{
	struct wcx_error why;
	struct stat st;
	int fd;

	if (quest->stays && !wcx_is_below(path, quest->search->store))
		return false;
	fd = wcx_base_open_hint(AT_FDCWD, path, &st);
	/* Something may be there, but cannot be read: for want of permission, or of descriptors. */
	if (fd < 0 && fd != -ENOENT && fd != -ENOTDIR && fd != -EINVAL && !quest->check.is_there) {
		wcx_fail(&why, -fd, "%s: %s", path, strerror(-fd));
		wcx_base_check_refuse(&quest->check, fd, &why);
	}
	return fd >= 0 && try_file(quest, fd, path);
}

static bool try_in_root(void *user, const char *path)
{
	struct quest *quest = user;
	struct stat st;
	const int fd = open_in_root(quest->root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &st);
	char *shown = fd < 0 ? NULL : wcx_store_walk_shown(&quest->root->walk, path);
	bool is_found = false;

	if (shown)
		is_found = try_file(quest, fd, shown);
	else if (fd >= 0)
		close(fd);
	free(shown);
	return is_found;
}

/* --- the search --- */

/* A base that was found before, if it will do for this dependent too, and still has a name. */
static bool find_open(struct quest *quest)
{
	struct wcx_base_search *search = quest->search;

	for (size_t i = 0;; i++) {
		struct wcx_superblock sb;
		struct found found = { NULL };
		struct stat st;
		bool will_do;
		int fd;

		pthread_mutex_lock(&search->lock);
		if (i < search->found_count) {
			found = search->found[i];
			wcx_image_get(found.image);
		}
		pthread_mutex_unlock(&search->lock);
		if (!found.image)
			return false;
		fd = wcx_container_fd(wcx_image_container(found.image));
		will_do = memcmp(wcx_container_superblock(wcx_image_container(found.image))->sha256,
				 quest->check.base->sha256, WCX_SHA256_BYTES) == 0 &&
			  fstat(fd, &st) == 0 && st.st_nlink > 0 &&
			  wcx_base_check_file(&quest->check, fd, wcx_container_path(wcx_image_container(found.image)), &st,
					      found.is_public, &sb);
		if (will_do) {
			quest->image = found.image;
			return true;
		}
		wcx_image_put(found.image);
	}
}

/* Follows the hint from the directory of the dependent, also to where the base is kept if another file has taken its name.
 */
static bool follow_hint_from(struct quest *quest, const char *dependent_path)
{
	char path[PATH_MAX], kept[PATH_MAX];

	if (wcx_base_hint_join(dependent_path, quest->check.base->name, path) < 0)
		return false;
	return try_path(quest, path) ||
	       (wcx_base_kept_path(path, quest->check.base->sha256, kept) == 0 && try_path(quest, kept));
}

static bool follow_hint(struct quest *quest, const char *dependent_path)
{
	char target[PATH_MAX];

	return follow_hint_from(quest, dependent_path) ||
	       (realpath(dependent_path, target) && follow_hint_from(quest, target));
}

static bool find_in(struct quest *quest, const char *root_path, bool is_around)
{
	const struct wcx_base *base = quest->check.base;

	quest->root = get_root(quest->search, root_path, is_around);
	return quest->root && wcx_packed_index_find(quest->root->index, base->sha256, base->original_bytes,
						    WCX_INDEX_REFRESH_MS, try_in_root, quest) == 0;
}

static int find(void *user, const struct wcx_container *dependent, const struct wcx_base *base, struct wcx_image **ret,
		struct wcx_error *err)
{
	struct wcx_base_search *search = user;
	const char *path = wcx_container_path(dependent);
	struct quest quest = { .search = search, .check = { .base = base, .reader = geteuid() } };
	bool is_found;
	char *directory, where[PATH_MAX + 64];
	int r = 0;

	if (fstat(wcx_container_fd(dependent), &quest.check.dependent) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	directory = search->store ? strdup(search->store) : wcx_directory_of(path);
	if (!directory)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	/* What root unpacks for others is theirs to read. */
	quest.check.for_others = quest.check.reader == 0 && quest.check.dependent.st_uid != 0;
	quest.stays = search->store != NULL;
	is_found = find_open(&quest) || follow_hint(&quest, path) || find_in(&quest, directory, false);
	quest.stays = false;
	if (!is_found && !(search->store ? follow_hint(&quest, path) : find_in(&quest, directory, true))) {
		snprintf(where, sizeof where, "%s%s%s", directory, search->store ? "" : " and around it", search->advice);
		r = wcx_base_check_fail(&quest.check, where, err);
	}
	free(directory);
	if (r == 0)
		*ret = quest.image;
	return r;
}

struct wcx_base_search *wcx_base_search_create(const char *store, struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
					       const atomic_bool *stop)
{
	struct wcx_base_search *search = calloc(1, sizeof *search);

	if (!search)
		return NULL;
	if (store)
		search->store = strdup(store);
	if (store && !search->store) {
		free(search);
		return NULL;
	}
	search->cache = cache;
	search->decoder = decoder;
	search->stop = stop;
	search->advice = "";
	pthread_mutex_init(&search->lock, NULL);
	return search;
}

void wcx_base_search_advise(struct wcx_base_search *search, const char *advice)
{
	search->advice = advice;
}

void wcx_base_search_free(struct wcx_base_search *search)
{
	if (!search)
		return;
	for (size_t i = 0; i < search->found_count; i++)
		wcx_image_put(search->found[i].image);
	for (size_t i = 0; i < search->root_count; i++)
		free_root(search->roots[i]);
	free(search->roots);
	pthread_mutex_destroy(&search->lock);
	free(search->store);
	free(search);
}

void wcx_base_search_use(struct wcx_base_search *search, struct wcx_image *image)
{
	const struct wcx_base_finder finder = { find, search };

	wcx_image_use_finder(image, &finder);
}
