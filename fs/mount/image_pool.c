/* SPDX-License-Identifier: MIT */
/* Shares open images by file, and keeps the most recently used idle ones open. */
#include "fs/mount/image_pool.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <search.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/clock.h"

enum {
	IDLE_IMAGES_MAX = 16, /* but bases of others; enough for a model's shards in turn, far below 1024 descriptors */
	IDLE_MS = 60 * 1000,  /* loaders open a file again within seconds */
};

TAILQ_HEAD(pooled_images, wcx_pooled_image);

struct wcx_image_pool {
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_file_counts *counts;
	struct wcx_closer *closer;
	struct wcx_base_finder finder;
	uint64_t budget_bytes; /* of index_bytes */

	pthread_mutex_t lock;      /* protects the rest, and all of every image but id and image */
	pthread_cond_t opened;     /* signals that an image is open, or cannot be opened */
	uint64_t index_bytes;      /* of all images, and of those that are being opened */
	void *images;              /* tsearch(3) tree: libc's balanced tree */
	struct pooled_images idle; /* images without users, least recently used first */
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

static void close_image(struct wcx_closing *closing)
{
	image_free((char *)closing - offsetof(struct wcx_pooled_image, closing));
}

/* Has images closed that are in no other list. */
static void close_all(struct wcx_image_pool *pool, struct pooled_images *images)
{
	struct wcx_pooled_image *image;

	while ((image = TAILQ_FIRST(images))) {
		TAILQ_REMOVE(images, image, link);
		image->closing.close = close_image;
		wcx_closer_give(pool->closer, &image->closing);
	}
}

/*
 * Adds a user to the image of a file, for which it waits while another thread opens it: all at once would take the memory of
 * each.  NULL if the file has none.
 */
static struct wcx_pooled_image *image_take_locked(struct wcx_image_pool *pool, const struct wcx_file_id *id)
{
	const struct wcx_pooled_image key = { .id = *id };
	struct wcx_pooled_image *image;

	for (;;) {
		void *found = tfind(&key, &pool->images, compare_images);

		image = found ? *(struct wcx_pooled_image **)found : NULL;
		if (!image || image->image)
			break;
		pthread_cond_wait(&pool->opened, &pool->lock);
	}
	if (image && image->user_count++ == 0)
		TAILQ_REMOVE(&pool->idle, image, link);
	return image;
}

/* Has nobody find an image any more. */
static void unlist_locked(struct wcx_image_pool *pool, struct wcx_pooled_image *image)
{
	tdelete(image, &pool->images, compare_images);
	pool->index_bytes -= image->index_bytes;
}

/* Moves an idle image out of the pool to a list of victims, for the caller to close. */
static void evict_locked(struct wcx_image_pool *pool, struct wcx_pooled_image *image, struct pooled_images *victims)
{
	unlist_locked(pool, image);
	TAILQ_REMOVE(&pool->idle, image, link);
	TAILQ_INSERT_TAIL(victims, image, link);
}

/*
 * The idle image that was used least recently and is no base that other images have; NULL if there is none.  Evicting such a
 * base would free nothing, and its index would be counted no more.  *count_ret: how many there are.
 */
static struct wcx_pooled_image *first_unshared_locked(struct wcx_image_pool *pool, size_t *count_ret)
{
	struct wcx_pooled_image *image, *first = NULL;

	*count_ret = 0;
	TAILQ_FOREACH(image, &pool->idle, link)
	{
		if (wcx_image_is_shared(image->image))
			continue;
		if (!first)
			first = image;
		++*count_ret;
	}
	return first;
}

/* Evicts idle images until there is space for an index, and takes it; 0, or -ENFILE if those in use take all there is. */
static int take_space(struct wcx_image_pool *pool, uint64_t index_bytes)
{
	struct pooled_images victims = TAILQ_HEAD_INITIALIZER(victims);
	struct wcx_pooled_image *image;
	size_t count;
	int r;

	pthread_mutex_lock(&pool->lock);
	while (pool->index_bytes + index_bytes > pool->budget_bytes && (image = first_unshared_locked(pool, &count)))
		evict_locked(pool, image, &victims);
	/* One file alone may be as large as the format allows. */
	r = pool->index_bytes && pool->index_bytes + index_bytes > pool->budget_bytes ? -ENFILE : 0;
	if (!r)
		pool->index_bytes += index_bytes;
	pthread_mutex_unlock(&pool->lock);
	close_all(pool, &victims);
	return r;
}

/* Opens an image, with space for what it takes. */
static int image_open(struct wcx_image_pool *pool, int fd, const char *path, const struct wcx_superblock *superblock,
		      struct wcx_pooled_image *fresh, struct wcx_image **ret, struct wcx_error *err)
{
	const uint64_t index_bytes = wcx_container_memory_bytes(superblock);
	int r = take_space(pool, index_bytes);

	if (r)
		return wcx_fail(err, -r, "%s: the indexes of open files would take more than %" PRIu64 " MiB", path,
				pool->budget_bytes >> 20);
	fresh->index_bytes = index_bytes;
	r = wcx_image_open_as(fd, path, superblock, pool->cache, pool->decoder, ret, err);
	if (r)
		return r;
	wcx_image_count_into(*ret, wcx_file_counts_get(pool->counts, &fresh->id));
	wcx_image_use_finder(*ret, &pool->finder);
	return 0;
}

int wcx_image_pool_open(struct wcx_image_pool *pool, int fd, const char *path, const struct wcx_file_id *id,
			const struct wcx_superblock *superblock, struct wcx_pooled_image **ret, struct wcx_error *err)
{
	struct wcx_pooled_image *fresh = calloc(1, sizeof *fresh), *found;
	struct wcx_image *image = NULL;
	int r = fresh ? 0 : -ENOMEM;

	pthread_mutex_lock(&pool->lock);
	found = image_take_locked(pool, id);
	if (!found && fresh) {
		fresh->id = *id;
		fresh->user_count = 1;
		r = tsearch(fresh, &pool->images, compare_images) ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&pool->lock);
	if (found || r) {
		free(fresh);
		close(fd);
		*ret = found;
		return found ? 0 : r;
	}
	r = image_open(pool, fd, path, superblock, fresh, &image, err);
	if (r)
		close(fd);
	pthread_mutex_lock(&pool->lock);
	fresh->image = image;
	if (r)
		unlist_locked(pool, fresh);
	pthread_cond_broadcast(&pool->opened);
	pthread_mutex_unlock(&pool->lock);
	if (r)
		free(fresh);
	else
		*ret = fresh;
	return r;
}

void wcx_image_pool_release(struct wcx_image_pool *pool, struct wcx_pooled_image *image)
{
	struct pooled_images victims = TAILQ_HEAD_INITIALIZER(victims);
	struct wcx_pooled_image *victim;
	size_t count;

	pthread_mutex_lock(&pool->lock);
	if (--image->user_count == 0) {
		while ((victim = first_unshared_locked(pool, &count)) && count >= IDLE_IMAGES_MAX)
			evict_locked(pool, victim, &victims);
		image->idle_since_ms = wcx_now_ms();
		TAILQ_INSERT_TAIL(&pool->idle, image, link);
	}
	pthread_mutex_unlock(&pool->lock);
	close_all(pool, &victims);
}

/* Whether an image has no name any more: its disk space is free once it is closed. */
static bool is_deleted(const struct wcx_pooled_image *image)
{
	struct stat st;

	return fstat(wcx_container_fd(wcx_image_container(image->image)), &st) == 0 && st.st_nlink == 0;
}

void wcx_image_pool_release_unused(struct wcx_image_pool *pool)
{
	struct pooled_images asked = TAILQ_HEAD_INITIALIZER(asked), victims = TAILQ_HEAD_INITIALIZER(victims);
	const uint64_t now_ms = wcx_now_ms();
	struct wcx_pooled_image *image;

	/* Asked without the lock: the file system may take its time.  They are in use meanwhile. */
	pthread_mutex_lock(&pool->lock);
	TAILQ_CONCAT(&asked, &pool->idle, link);
	TAILQ_FOREACH(image, &asked, link)
	image->user_count++;
	pthread_mutex_unlock(&pool->lock);
	TAILQ_FOREACH(image, &asked, link)
	image->is_unwanted =
		!wcx_image_is_shared(image->image) && (now_ms - image->idle_since_ms > IDLE_MS || is_deleted(image));
	pthread_mutex_lock(&pool->lock);
	while ((image = TAILQ_FIRST(&asked))) {
		TAILQ_REMOVE(&asked, image, link);
		if (--image->user_count > 0)
			continue; /* opened meanwhile; who closes it makes it idle again */
		if (image->is_unwanted) {
			unlist_locked(pool, image);
			TAILQ_INSERT_TAIL(&victims, image, link);
		} else {
			TAILQ_INSERT_TAIL(&pool->idle, image, link);
		}
	}
	pthread_mutex_unlock(&pool->lock);
	close_all(pool, &victims);
}

struct wcx_image_pool *wcx_image_pool_create(struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
					     struct wcx_file_counts *counts, struct wcx_closer *closer,
					     uint64_t budget_bytes)
{
	struct wcx_image_pool *pool = calloc(1, sizeof *pool);

	if (!pool)
		return NULL;
	pool->cache = cache;
	pool->decoder = decoder;
	pool->counts = counts;
	pool->closer = closer;
	pool->budget_bytes = budget_bytes;
	TAILQ_INIT(&pool->idle);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->opened, NULL);
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
	pthread_cond_destroy(&pool->opened);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}
