/* SPDX-License-Identifier: MIT */
/* Shares open images by file, and keeps the most recently used idle ones open. */
#include "fs/mount/image_pool.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/clock.h"

enum {
	IDLE_IMAGES_MAX = 16, /* enough for a model's shards in turn, and far below a limit of 1024 descriptors */
	IDLE_MS = 60 * 1000,  /* loaders open a file again within seconds */
};

struct wcx_image_pool {
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_file_counts *counts;
	struct wcx_base_finder finder;
	uint64_t budget_bytes; /* of index_bytes */

	pthread_mutex_t lock;                           /* protects the rest, and all of every image but id and image */
	uint64_t index_bytes;                           /* of all images, and of those that are about to be added */
	void *images;                                   /* tsearch(3) tree: libc's balanced tree */
	struct wcx_pooled_image *idle[IDLE_IMAGES_MAX]; /* images without users, least recently used first */
	size_t idle_count;
};

static int compare_images(const void *a, const void *b)
{
	return wcx_file_id_compare(&((const struct wcx_pooled_image *)a)->id, &((const struct wcx_pooled_image *)b)->id);
}

static void image_free(void *image)
{
	wcx_image_put(((struct wcx_pooled_image *)image)->image);
	free(image);
}

static void idle_remove_locked(struct wcx_image_pool *pool, size_t i)
{
	pool->idle_count--;
	memmove(&pool->idle[i], &pool->idle[i + 1], (pool->idle_count - i) * sizeof pool->idle[0]);
}

/* Adds a user to the open image of a file; NULL if the file has none. */
static struct wcx_pooled_image *image_take_locked(struct wcx_image_pool *pool, const struct wcx_file_id *id)
{
	const struct wcx_pooled_image key = { .id = *id };
	void *found = tfind(&key, &pool->images, compare_images);
	struct wcx_pooled_image *image;

	if (!found)
		return NULL;
	image = *(struct wcx_pooled_image **)found;
	if (image->user_count++ == 0) {
		size_t i = 0;

		while (pool->idle[i] != image)
			i++;
		idle_remove_locked(pool, i);
	}
	return image;
}

/*
 * Finds the image of a file or, if the pool has none and fresh is not NULL, adds fresh, for which there is space.  The
 * caller becomes a user of the returned image: fresh, or one that is there already.  NULL: neither, or out of memory.
 */
static struct wcx_pooled_image *find_or_add(struct wcx_image_pool *pool, const struct wcx_file_id *id,
					    struct wcx_pooled_image *fresh)
{
	struct wcx_pooled_image *image;

	pthread_mutex_lock(&pool->lock);
	image = image_take_locked(pool, id);
	if (!image && fresh && tsearch(fresh, &pool->images, compare_images)) {
		fresh->user_count = 1;
		image = fresh;
	}
	if (fresh && image != fresh)
		pool->index_bytes -= fresh->index_bytes;
	pthread_mutex_unlock(&pool->lock);
	return image;
}

/* Has nobody find an image any more. */
static void unlist_locked(struct wcx_image_pool *pool, struct wcx_pooled_image *image)
{
	tdelete(image, &pool->images, compare_images);
	pool->index_bytes -= image->index_bytes;
}

/* Takes the idle image at a place out of the pool, for the caller to free. */
static struct wcx_pooled_image *evict_locked(struct wcx_image_pool *pool, size_t i)
{
	struct wcx_pooled_image *victim = pool->idle[i];

	unlist_locked(pool, victim);
	idle_remove_locked(pool, i);
	return victim;
}

/*
 * The place of the idle image that was used least recently and is no base that other images have; idle_count if there is
 * none.  Evicting such a base would free nothing.
 */
static size_t first_unshared_locked(const struct wcx_image_pool *pool)
{
	size_t i = 0;

	while (i < pool->idle_count && wcx_image_is_shared(pool->idle[i]->image))
		i++;
	return i;
}

/* Evicts idle images until there is space for an index, and takes it; 0, or -ENFILE if those in use take all there is. */
static int take_space(struct wcx_image_pool *pool, uint64_t index_bytes)
{
	struct wcx_pooled_image *victims[IDLE_IMAGES_MAX];
	size_t count = 0, i;
	int r;

	pthread_mutex_lock(&pool->lock);
	while ((i = first_unshared_locked(pool)) < pool->idle_count && pool->index_bytes + index_bytes > pool->budget_bytes)
		victims[count++] = evict_locked(pool, i);
	/* One file alone may be as large as the format allows. */
	r = pool->index_bytes && pool->index_bytes + index_bytes > pool->budget_bytes ? -ENFILE : 0;
	if (!r)
		pool->index_bytes += index_bytes;
	pthread_mutex_unlock(&pool->lock);
	while (count)
		image_free(victims[--count]);
	return r;
}

static int image_open(struct wcx_image_pool *pool, int fd, const char *path, const struct wcx_file_id *id,
		      struct wcx_pooled_image **ret, struct wcx_error *err)
{
	struct wcx_pooled_image *fresh = calloc(1, sizeof *fresh), *image;
	int r = -ENOMEM;

	if (fresh)
		r = wcx_image_open(fd, path, pool->cache, pool->decoder, &fresh->image, err);
	if (r) {
		close(fd);
		free(fresh);
		return r;
	}
	wcx_image_count_into(fresh->image, wcx_file_counts_get(pool->counts, id));
	wcx_image_use_finder(fresh->image, &pool->finder);
	fresh->id = *id;
	fresh->index_bytes = wcx_container_memory_bytes(wcx_image_container(fresh->image));
	r = take_space(pool, fresh->index_bytes);
	if (r) {
		wcx_fail(err, -r, "%s: the indexes of open files would take more than %" PRIu64 " MiB", path,
			 pool->budget_bytes >> 20);
		image_free(fresh);
		return r;
	}
	image = find_or_add(pool, id, fresh); /* another thread may have opened the file meanwhile */
	if (image != fresh)
		image_free(fresh);
	if (!image)
		return -ENOMEM;
	*ret = image;
	return 0;
}

int wcx_image_pool_open(struct wcx_image_pool *pool, int fd, const char *path, const struct wcx_file_id *id,
			struct wcx_pooled_image **ret, struct wcx_error *err)
{
	struct wcx_pooled_image *image = find_or_add(pool, id, NULL);

	if (!image)
		return image_open(pool, fd, path, id, ret, err);
	close(fd);
	*ret = image;
	return 0;
}

bool wcx_pooled_image_has_id(const struct wcx_pooled_image *image)
{
	const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(image->image));
	const struct stat st = { .st_dev = image->id.dev, .st_ino = image->id.ino };

	return wcx_file_id_of_packed(&st, sb).version == image->id.version;
}

void wcx_image_pool_release(struct wcx_image_pool *pool, struct wcx_pooled_image *image)
{
	struct wcx_pooled_image *victim = NULL;

	pthread_mutex_lock(&pool->lock);
	if (--image->user_count == 0) {
		if (pool->idle_count == IDLE_IMAGES_MAX)
			victim = evict_locked(pool, first_unshared_locked(pool) % IDLE_IMAGES_MAX);
		image->idle_since_ms = wcx_now_ms();
		pool->idle[pool->idle_count++] = image;
	}
	pthread_mutex_unlock(&pool->lock);
	if (victim)
		image_free(victim);
}

void wcx_image_pool_discard(struct wcx_image_pool *pool, struct wcx_pooled_image *image)
{
	bool is_last;

	pthread_mutex_lock(&pool->lock);
	is_last = --image->user_count == 0;
	if (is_last)
		unlist_locked(pool, image);
	pthread_mutex_unlock(&pool->lock);
	if (is_last)
		image_free(image);
}

/* Whether an image has no name any more: its disk space is free once it is closed. */
static bool is_deleted(const struct wcx_pooled_image *image)
{
	struct stat st;

	return fstat(wcx_container_fd(wcx_image_container(image->image)), &st) == 0 && st.st_nlink == 0;
}

void wcx_image_pool_release_unused(struct wcx_image_pool *pool)
{
	struct wcx_pooled_image *victims[IDLE_IMAGES_MAX], *idle[IDLE_IMAGES_MAX];
	size_t count = 0, idle_count;
	const uint64_t now_ms = wcx_now_ms();

	/* Asked without the lock: the file system may take its time.  They are in use meanwhile. */
	pthread_mutex_lock(&pool->lock);
	idle_count = pool->idle_count;
	memcpy(idle, pool->idle, idle_count * sizeof idle[0]);
	pool->idle_count = 0;
	for (size_t i = 0; i < idle_count; i++)
		idle[i]->user_count++;
	pthread_mutex_unlock(&pool->lock);
	for (size_t i = 0; i < idle_count; i++)
		idle[i]->is_unwanted = !wcx_image_is_shared(idle[i]->image) &&
				       (now_ms - idle[i]->idle_since_ms > IDLE_MS || is_deleted(idle[i]));
	pthread_mutex_lock(&pool->lock);
	for (size_t i = 0; i < idle_count; i++) {
		if (--idle[i]->user_count > 0)
			continue; /* opened meanwhile; who closes it makes it idle again */
		if (idle[i]->is_unwanted || pool->idle_count == IDLE_IMAGES_MAX) {
			unlist_locked(pool, idle[i]);
			victims[count++] = idle[i];
		} else {
			pool->idle[pool->idle_count++] = idle[i];
		}
	}
	pthread_mutex_unlock(&pool->lock);
	while (count)
		image_free(victims[--count]);
}

struct wcx_image_pool *wcx_image_pool_create(struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
					     struct wcx_file_counts *counts, uint64_t budget_bytes)
{
	struct wcx_image_pool *pool = calloc(1, sizeof *pool);

	if (!pool)
		return NULL;
	pool->cache = cache;
	pool->decoder = decoder;
	pool->counts = counts;
	pool->budget_bytes = budget_bytes;
	pthread_mutex_init(&pool->lock, NULL);
	return pool;
}

void wcx_image_pool_use_finder(struct wcx_image_pool *pool, const struct wcx_base_finder *finder)
{
	pool->finder = *finder;
}

void wcx_image_pool_free(struct wcx_image_pool *pool)
{
	if (!pool)
		return;
	tdestroy(pool->images, image_free);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
