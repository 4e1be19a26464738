/* SPDX-License-Identifier: MIT */
/* Reads back all tiles of a packed file, and decodes what shows that its index is right. */
#include "fs/pack/pack_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"
#include "fs/read/image.h"

enum {
	CACHE_BYTES = 16 << 20,
	ITEM_TILES = 32,
	BUFFER_BYTES = 1 << 20, /* at least a tile */
	ENDS_BYTES = 16 << 10,  /* decoded at each end of a segment: in most, one tile */
};

_Static_assert((int)BUFFER_BYTES >= (int)WCX_TILE_MAX_BYTES, "a packed tile is not larger than an original one");

struct checker {
	const struct wcx_job_options *job;
	const struct wcx_plan_reader *source;
	struct wcx_image *image;
	const struct wcx_container *container;
	uint64_t tile_count, original_bytes;
	uint8_t *(*buffers)[2]; /* of each worker: bytes of the file or decoded ones, and of the source */
};

/* Where the packed bytes of a tile begin and end; a constant one has none. */
struct place {
	uint64_t begin, end;
	uint32_t checksum;
};

static struct place place_of(const struct checker *c, uint64_t tile)
{
	const struct wcx_segment *seg =
		wcx_container_segment(c->container, wcx_container_segment_of_tile(c->container, tile));
	struct wcx_tile_info info;

	wcx_container_tile(c->container, seg, tile, &info);
	return (struct place){ info.packed_offset, info.packed_offset + info.packed_bytes, info.checksum };
}

static int fail_tile(const struct checker *c, uint64_t tile, struct wcx_error *err)
{
	return wcx_fail(err, EBADMSG, "%s: tile %llu was read back with other bytes than were written",
			wcx_container_path(c->container), (unsigned long long)tile);
}

/* Reads the tiles of [first, end) with one call and compares their checksums; they fit the buffer, one after another. */
static int check_read(const struct checker *c, const struct place *places, uint64_t first, uint64_t count, uint8_t *buffer,
		      struct wcx_error *err)
{
	const uint64_t begin = places[0].begin;
	const int r = wcx_read_exact(wcx_container_fd(c->container), buffer, (size_t)(places[count - 1].end - begin), begin);

	if (r < 0)
		return wcx_fail(err, r == -ENODATA ? EIO : -r, "%s: cannot be read back: %s",
				wcx_container_path(c->container), strerror(r == -ENODATA ? EIO : -r));
	for (uint64_t i = 0; i < count; i++)
		if (places[i].end > places[i].begin && wcx_checksum32(buffer + (places[i].begin - begin),
								      places[i].end - places[i].begin) != places[i].checksum)
			return fail_tile(c, first + i, err);
	return 0;
}

static int check_tiles(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct checker *c = user;
	const uint64_t first = item * ITEM_TILES, count = WCX_MIN(c->tile_count - first, ITEM_TILES);
	const uint64_t after = first + count;
	struct place places[ITEM_TILES];
	int r = 0;

	for (uint64_t i = 0; i < count; i++)
		places[i] = place_of(c, first + i);
	for (uint64_t i = 0, next; i < count && r == 0; i = next) {
		for (next = i + 1; next < count && places[next].begin >= places[next - 1].end &&
				   places[next].end - places[i].begin <= BUFFER_BYTES;)
			next++;
		r = check_read(c, places + i, first + i, next - i, c->buffers[worker][0], err);
	}
	if (r == 0)
		r = wcx_parallel_enter(loop, item);
	if (r < 0)
		return r;
	if (c->job->progress)
		c->job->progress(c->job->user, "verifying",
				 after == c->tile_count
					 ? c->original_bytes
					 : (uint64_t)((double)c->original_bytes * (double)after / (double)c->tile_count),
				 c->original_bytes);
	wcx_parallel_leave(loop);
	return 0;
}

/* Decodes a range of the original and compares it with the source. */
static int check_range(const struct checker *c, unsigned worker, uint64_t begin, uint64_t end, struct wcx_error *err)
{
	uint8_t *decoded = c->buffers[worker][0], *source = c->buffers[worker][1];
	ssize_t n;
	int r = 0;

	for (size_t bytes; begin < end && r == 0; begin += bytes) {
		bytes = (size_t)WCX_MIN(end - begin, BUFFER_BYTES);
		if (c->job->stop && *c->job->stop)
			return wcx_fail(err, EINTR, "interrupted");
		r = c->source->read(c->source->user, source, bytes, begin, err);
		if (r < 0)
			return r;
		n = wcx_image_read(c->image, decoded, bytes, begin, err);
		if (n < 0)
			r = (int)n;
		else if ((size_t)n != bytes || memcmp(decoded, source, bytes) != 0)
			r = wcx_fail(err, EBADMSG, "%s: does not decode to the source, offset %llu",
				     wcx_container_path(c->container), (unsigned long long)begin);
	}
	return r;
}

static int check_segment(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct checker *c = user;
	const struct wcx_segment *seg = wcx_container_segment(c->container, item);
	const uint64_t begin = seg->offset, end = seg->offset + seg->bytes;
	int r;

	(void)loop;
	if (seg->same_as || seg->bytes <= 2 * ENDS_BYTES)
		return check_range(c, worker, begin, end, err);
	r = check_range(c, worker, begin, begin + ENDS_BYTES, err);
	return r < 0 ? r : check_range(c, worker, end - ENDS_BYTES, end, err);
}

static bool allocate(struct checker *c)
{
	c->buffers = calloc(c->job->thread_count, sizeof *c->buffers);
	for (unsigned i = 0; c->buffers && i < c->job->thread_count; i++)
		for (unsigned j = 0; j < 2; j++) {
			c->buffers[i][j] = malloc(BUFFER_BYTES);
			if (!c->buffers[i][j])
				return false;
		}
	return c->buffers != NULL;
}

static int check_all(struct checker *c, struct wcx_error *err)
{
	const struct wcx_superblock *sb = wcx_container_superblock(c->container);
	const unsigned threads = c->job->thread_count;
	const atomic_bool *stop = c->job->stop;
	struct wcx_safetensors *st = NULL;
	int r;

	c->tile_count = sb->tile_count;
	c->original_bytes = sb->original_bytes;
	r = wcx_parallel_for_shared(c->job->share, threads, WCX_DIV_UP(c->tile_count, ITEM_TILES), check_tiles, c, stop,
				    err);
	if (r == 0)
		r = wcx_parallel_for_shared(c->job->share, threads, sb->segment_count, check_segment, c, stop, err);
	if (r == 0)
		r = wcx_image_header(c->image, &st, err);
	wcx_safetensors_free(st);
	return r;
}

/* Finds the bases of the file among those that it was packed against. */
static int find_base(void *user, const struct wcx_container *dependent, const struct wcx_base *base, struct wcx_image **ret,
		     struct wcx_error *err)
{
	const struct wcx_pack_options *options = user;

	for (size_t i = 0; i < options->base_count; i++) {
		struct wcx_image *image = options->bases[i].image;
		const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(image));

		if (sb->original_bytes == base->original_bytes && memcmp(sb->sha256, base->sha256, sizeof sb->sha256) == 0) {
			*ret = wcx_image_get(image);
			return 0;
		}
	}
	return wcx_fail(err, ENOENT, "%s: names a base that it was not packed against", wcx_container_path(dependent));
}

int wcx_pack_check(int fd, const char *path, const struct wcx_plan_reader *source, const struct wcx_pack_options *options,
		   struct wcx_error *err)
{
	const struct wcx_base_finder finder = { find_base, (void *)(uintptr_t)options };
	const struct wcx_job_options *job = &options->job;
	struct wcx_tile_cache *cache = wcx_tile_cache_create(CACHE_BYTES);
	struct checker c = { .job = job, .source = source };
	struct wcx_decoder *decoder = NULL;
	const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int r = 0;

	if (copy < 0)
		r = wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	else if (!cache || !allocate(&c))
		r = wcx_fail(err, ENOMEM, "%s: %s", path, strerror(ENOMEM));
	if (r == 0)
		r = wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, err);
	if (r == 0)
		r = wcx_image_open(copy, path, cache, decoder, &c.image, err);
	if (r == 0) {
		wcx_image_use_finder(c.image, &finder);
		c.container = wcx_image_container(c.image);
		r = check_all(&c, err);
	}
	if (!c.image && copy >= 0)
		close(copy);
	wcx_image_put(c.image);
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	for (unsigned i = 0; c.buffers && i < job->thread_count; i++) {
		free(c.buffers[i][0]);
		free(c.buffers[i][1]);
	}
	free(c.buffers);
	return r;
}
