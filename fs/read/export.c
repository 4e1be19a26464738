/* SPDX-License-Identifier: MIT */
/* Decodes the chunks of an image on all threads, and passes them on in order. */
#include "fs/read/export.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "fs/base/parallel.h"

enum { CHUNK_BYTES = 2 << 20 };

struct exporter {
	struct wcx_image *image;
	const struct wcx_export_ops *ops;
	void *user;
	const atomic_bool *stop;
	uint8_t **chunks; /* one for each worker */
	/* What follows belongs to the item in its ordered section. */
	EVP_MD_CTX *digest;
	uint64_t damaged_tiles;
	uint64_t checked_to; /* tiles below this have been checked for damage */
};

/*
 * Reports the damaged tiles of a segment, but for those that were checked with an earlier segment.  Returns 0, or an error
 * other than damage.
 */
static int check_segment(struct exporter *x, const struct wcx_segment *seg, struct wcx_error *err)
{
	uint64_t tile = WCX_MAX(seg->first_tile, x->checked_to);

	for (; tile < seg->first_tile + seg->tile_count; tile++) {
		int r;

		if (x->stop && *x->stop) /* a segment can be as large as the file */
			return wcx_fail(err, EINTR, "interrupted");
		r = wcx_image_check_tile(x->image, tile, err);
		if (r == -EBADMSG) {
			x->damaged_tiles++;
			x->ops->damaged(x->user, tile, err);
		} else if (r < 0) {
			return r;
		}
	}
	x->checked_to = tile;
	return 0;
}

/* Reports the damaged tiles of all segments of a chunk.  Returns like check_segment. */
static int report_damage(struct exporter *x, uint64_t start, uint64_t end, struct wcx_error *err)
{
	const struct wcx_container *c = wcx_image_container(x->image);
	size_t last = wcx_container_segment_at(c, end - 1);
	int r = 0;

	for (size_t i = wcx_container_segment_at(c, start); r == 0 && i <= last; i++)
		r = check_segment(x, wcx_container_segment(c, i), err);
	return r;
}

/* Passes on a chunk; n is the result of reading it. */
static int pass_on(struct exporter *x, const uint8_t *chunk, ssize_t n, uint64_t start, uint64_t end, struct wcx_error *err)
{
	int r = 0;

	if (n == -EBADMSG && x->ops->damaged)
		r = report_damage(x, start, end, err);
	else if (n < 0)
		r = (int)n;
	else if (EVP_DigestUpdate(x->digest, chunk, (size_t)n) != 1)
		r = wcx_fail(err, ENOMEM, "SHA-256 failed");
	else if (x->ops->write)
		r = x->ops->write(x->user, chunk, (size_t)n, err);
	if (r == 0 && x->ops->progress)
		x->ops->progress(x->user, end, wcx_image_bytes(x->image));
	return r;
}

static int export_chunk(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct exporter *x = user;
	const uint64_t start = item * CHUNK_BYTES, end = WCX_MIN(start + CHUNK_BYTES, wcx_image_bytes(x->image));
	ssize_t n;
	int r;

	n = wcx_image_read(x->image, x->chunks[worker], (size_t)(end - start), start, err);
	r = wcx_parallel_enter(loop, item);
	if (r < 0)
		return r;
	r = pass_on(x, x->chunks[worker], n, start, end, err);
	if (r == 0)
		wcx_parallel_leave(loop);
	return r;
}

static int allocate(struct exporter *x, unsigned thread_count)
{
	x->digest = EVP_MD_CTX_new();
	x->chunks = calloc(thread_count, sizeof *x->chunks);
	if (!x->digest || !x->chunks || EVP_DigestInit_ex(x->digest, EVP_sha256(), NULL) != 1)
		return -ENOMEM;
	for (unsigned i = 0; i < thread_count; i++) {
		x->chunks[i] = malloc(CHUNK_BYTES);
		if (!x->chunks[i])
			return -ENOMEM;
	}
	return 0;
}

int wcx_export(struct wcx_image *image, unsigned thread_count, const struct wcx_export_ops *ops, void *user,
	       const atomic_bool *stop, struct wcx_export_result *ret, struct wcx_error *err)
{
	struct exporter x = { .image = image, .ops = ops, .user = user, .stop = stop };
	uint64_t chunk_count = WCX_DIV_UP(wcx_image_bytes(image), CHUNK_BYTES);
	int r = allocate(&x, thread_count);

	if (r < 0)
		wcx_fail(err, ENOMEM, "%s: no memory to decode with", wcx_container_path(wcx_image_container(image)));
	else
		r = wcx_parallel_for_shared(ops->share, thread_count, chunk_count, export_chunk, &x, stop, err);
	if (r == 0) {
		ret->damaged_tiles = x.damaged_tiles;
		EVP_DigestFinal_ex(x.digest, ret->sha256, NULL);
	}
	for (unsigned i = 0; x.chunks && i < thread_count; i++)
		free(x.chunks[i]);
	free(x.chunks);
	EVP_MD_CTX_free(x.digest);
	return r;
}

int wcx_verify(struct wcx_image *image, unsigned thread_count, const struct wcx_export_ops *ops, void *user,
	       const atomic_bool *stop, struct wcx_error *err)
{
	const struct wcx_container *c = wcx_image_container(image);
	struct wcx_export_ops without_write = *ops;
	struct wcx_export_result result;
	struct wcx_safetensors *st = NULL;
	int r;

	without_write.write = NULL;
	r = wcx_export(image, thread_count, &without_write, user, stop, &result, err);
	if (r < 0)
		return r;
	if (result.damaged_tiles)
		return wcx_fail(err, EBADMSG, "%s: %llu of %llu tiles damaged", wcx_container_path(c),
				(unsigned long long)result.damaged_tiles,
				(unsigned long long)wcx_container_superblock(c)->tile_count);
	if (memcmp(result.sha256, wcx_container_superblock(c)->sha256, WCX_SHA256_BYTES) != 0)
		return wcx_fail(err, EBADMSG, "%s: damaged: the SHA-256 of the original differs", wcx_container_path(c));
	r = wcx_image_header(image, &st, err);
	wcx_safetensors_free(st);
	return r;
}
