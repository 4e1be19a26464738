/* SPDX-License-Identifier: MIT */
/* Shares open images by file, and keeps the most recently used idle ones open. */
#include "fs/mount/image_pool.h"

#include <errno.h>
#include <pthread.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { IDLE_IMAGES_MAX = 16 }; /* enough for a model's shards in turn, and far below a limit of 1024 descriptors */

struct wcx_image_pool {
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;

	pthread_mutex_t lock;                           /* protects the fields below, and user_count of every image */
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
 * Finds the image of a file or, if the pool has none and fresh is not NULL, adds fresh.  The caller becomes a user of the
 * returned image: fresh, or one that is there already.  NULL: neither, or out of memory.
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
	pthread_mutex_unlock(&pool->lock);
	return image;
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
	fresh->id = *id;
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

void wcx_image_pool_release(struct wcx_image_pool *pool, struct wcx_pooled_image *image)
{
	struct wcx_pooled_image *victim = NULL;

	pthread_mutex_lock(&pool->lock);
	if (--image->user_count == 0) {
		if (pool->idle_count == IDLE_IMAGES_MAX) {
			victim = pool->idle[0];
			tdelete(victim, &pool->images, compare_images);
			idle_remove_locked(pool, 0);
		}
		pool->idle[pool->idle_count++] = image;
	}
	pthread_mutex_unlock(&pool->lock);
	if (victim)
		image_free(victim);
}

struct wcx_image_pool *wcx_image_pool_create(struct wcx_tile_cache *cache, struct wcx_decoder *decoder)
{
	struct wcx_image_pool *pool = calloc(1, sizeof *pool);

	if (!pool)
		return NULL;
	pool->cache = cache;
	pool->decoder = decoder;
	pthread_mutex_init(&pool->lock, NULL);
	return pool;
}

void wcx_image_pool_free(struct wcx_image_pool *pool)
{
	if (!pool)
		return;
	tdestroy(pool->images, image_free);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
