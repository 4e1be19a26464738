/* SPDX-License-Identifier: MIT */
/* Finds the bases of an image, keeps them, and reads them. */
#include "fs/read/image_bases.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "codec/line.h"
#include "fs/base/clock.h"
#include "fs/read/base_rules.h"
#include "fs/read/image.h"

/* A base, or why it is not there. */
struct slot {
	struct wcx_image *image; /* NULL: not found */
	uint64_t searched_ms;    /* when the last search ended; 0: never */
	int r;                   /* of that search */
	struct wcx_error why;
};

struct wcx_image_bases {
	const struct wcx_container *container;
	struct wcx_base_finder finder;
	pthread_mutex_t lock; /* protects the slots */
	struct slot *slots;   /* one for each base; NULL until one is needed */
};

struct wcx_image_bases *wcx_image_bases_create(void)
{
	struct wcx_image_bases *bases = calloc(1, sizeof *bases);

	if (bases)
		pthread_mutex_init(&bases->lock, NULL);
	return bases;
}

void wcx_image_bases_free(struct wcx_image_bases *bases)
{
	if (!bases)
		return;
	for (uint32_t i = 0; bases->slots && i < wcx_container_base_count(bases->container); i++)
		wcx_image_put(bases->slots[i].image);
	pthread_mutex_destroy(&bases->lock);
	free(bases->slots);
	free(bases);
}

void wcx_image_bases_set(struct wcx_image_bases *bases, const struct wcx_container *container)
{
	bases->container = container;
}

void wcx_image_bases_use_finder(struct wcx_image_bases *bases, const struct wcx_base_finder *finder)
{
	bases->finder = *finder;
}

/* Whether the finder has given what was asked for; a base may have none itself, so that nobody waits in a circle. */
static bool is_base(const struct wcx_base *base, const struct wcx_image *image)
{
	const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(image));

	return memcmp(sb->sha256, base->sha256, sizeof sb->sha256) == 0 && sb->original_bytes == base->original_bytes &&
	       sb->base_count == 0;
}

static int find(const struct wcx_image_bases *bases, const struct wcx_base *base, struct wcx_image **ret,
		struct wcx_error *why)
{
	char name[WCX_BASE_TEXT_BYTES];
	int r = -ENOENT;

	wcx_base_describe(base, name);
	*ret = NULL;
	wcx_fail(why, ENOENT, "%s: not looked for", name);
	if (bases->finder.find)
		r = bases->finder.find(bases->finder.user, bases->container, base, ret, why);
	if (r == 0 && !is_base(base, *ret)) {
		wcx_image_put(*ret);
		*ret = NULL;
		r = wcx_fail(why, ENOENT, "%s: another file was found", name);
	}
	return r;
}

static bool may_search_locked(const struct slot *slot)
{
	const uint64_t now_ms = wcx_now_ms();

	return !slot->searched_ms || now_ms - slot->searched_ms >= WCX_BASE_RETRY_MS;
}

/* Looks for a base.  If it is found, it takes the place of what was found before. */
static void search(struct wcx_image_bases *bases, uint32_t number)
{
	struct slot *slot = &bases->slots[number - 1];
	struct wcx_image *image, *old = NULL;
	struct wcx_error why = { "" };
	const int r = find(bases, wcx_container_base(bases->container, number), &image, &why);

	pthread_mutex_lock(&bases->lock);
	slot->searched_ms = wcx_now_ms();
	slot->r = r;
	slot->why = why;
	if (r == 0) {
		old = slot->image;
		slot->image = image;
	}
	pthread_mutex_unlock(&bases->lock);
	wcx_image_put(old);
}

struct wcx_image *wcx_image_bases_peek(struct wcx_image_bases *bases, uint32_t number)
{
	struct wcx_image *image;

	pthread_mutex_lock(&bases->lock);
	image = bases->slots ? bases->slots[number - 1].image : NULL;
	if (image)
		wcx_image_get(image);
	pthread_mutex_unlock(&bases->lock);
	return image;
}

int wcx_image_bases_get(struct wcx_image_bases *bases, uint32_t number, struct wcx_image **ret, struct wcx_error *err)
{
	struct slot *slot;
	bool may_search;
	int r = 0;

	*ret = wcx_image_bases_peek(bases, number);
	if (*ret)
		return 0;
	pthread_mutex_lock(&bases->lock);
	if (!bases->slots)
		bases->slots = calloc(wcx_container_base_count(bases->container), sizeof *bases->slots);
	slot = bases->slots ? &bases->slots[number - 1] : NULL;
	may_search = slot && may_search_locked(slot);
	pthread_mutex_unlock(&bases->lock);
	if (!slot)
		return wcx_fail(err, ENOMEM, "no memory for its bases");
	if (may_search)
		search(bases, number);
	pthread_mutex_lock(&bases->lock);
	*ret = slot->image ? wcx_image_get(slot->image) : NULL;
	if (!*ret) {
		r = slot->r ? slot->r : -ENOENT;
		if (err)
			*err = slot->why;
	}
	pthread_mutex_unlock(&bases->lock);
	return r;
}

static int read_found(struct wcx_image *image, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const ssize_t n = wcx_image_read_once(image, dst, bytes, offset, err);

	if (n < 0)
		return (int)n;
	return (size_t)n == bytes ? 0 : wcx_fail(err, EBADMSG, "ends before the bytes that are needed");
}

/* Looks for another file in place of one that could not be read; NULL: it is too soon, or there is none. */
static struct wcx_image *replace(struct wcx_image_bases *bases, uint32_t number, const struct wcx_image *bad)
{
	struct slot *slot = &bases->slots[number - 1];
	struct wcx_image *image;
	bool may_search;

	pthread_mutex_lock(&bases->lock);
	may_search = slot->image == bad && may_search_locked(slot);
	pthread_mutex_unlock(&bases->lock);
	if (may_search)
		search(bases, number);
	image = wcx_image_bases_peek(bases, number);
	if (image != bad)
		return image;
	wcx_image_put(image);
	return NULL;
}

int wcx_image_bases_read(struct wcx_image_bases *bases, uint32_t number, uint8_t *dst, size_t bytes, uint64_t offset,
			 struct wcx_error *err)
{
	struct wcx_error why = { "" };
	struct wcx_image *image, *other;
	char name[WCX_BASE_TEXT_BYTES];
	int r = wcx_image_bases_get(bases, number, &image, err);

	if (r < 0)
		return r;
	r = read_found(image, dst, bytes, offset, &why);
	if (r < 0) {
		other = replace(bases, number, image);
		if (other)
			r = read_found(other, dst, bytes, offset, &why);
		wcx_image_put(other);
	}
	wcx_image_put(image);
	if (r == 0)
		return 0;
	wcx_base_describe(wcx_container_base(bases->container, number), name);
	return wcx_fail(err, -r, "%s: %s", name, why.text);
}

bool wcx_tile_find_base(const struct wcx_container *base, const struct wcx_segment *segment,
			const struct wcx_tile_info *tile, struct wcx_base_tile *ret)
{
	const uint64_t offset = wcx_tile_base_offset(segment, tile);
	const struct wcx_segment *from = wcx_container_segment(base, wcx_container_segment_at(base, offset));
	uint64_t start;

	wcx_container_tile(base, from, wcx_segment_tile_at(from, offset), &ret->info);
	if (ret->info.mode != WCX_TILE_CODED || !wcx_tile_is_contiguous(from, &ret->info))
		return false;
	start = wcx_tile_row_offset(from, &ret->info, 0);
	ret->segment = from;
	ret->offset = (size_t)(offset - start);
	return ret->offset % wcx_word_bytes(tile->dims.elem_bytes) == 0 &&
	       ret->offset + wcx_tile_dims_bytes(&tile->dims) <= wcx_tile_dims_bytes(&ret->info.dims);
}
