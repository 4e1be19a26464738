/* SPDX-License-Identifier: MIT */
/* Reads byte ranges of the original file: pins their tiles in the cache, decodes those that are missing, and copies. */
#include "fs/read/image.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "codec/arith.h"
#include "fs/format/safetensors.h"
#include "fs/read/packed_tiles.h"

enum {
	ADVISED_TIMES = 4,                /* packed bytes at most per byte of the original: a tile of one byte, aligned */
	NAMES_MAX_HEADER_BYTES = 1 << 20, /* larger headers are not parsed just to name a tensor in a message */
};

struct wcx_image {
	atomic_uint refs;
	struct wcx_container *container;
	struct wcx_image_bases *bases;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	uint64_t cache_owner;
	struct wcx_image_counts own_counts, *counts;
	pthread_mutex_t names_lock;    /* protects the two below; never held while the header is read */
	struct wcx_safetensors *names; /* of the tensors, for messages: the header once a read has failed, or NULL */
	bool has_no_names;             /* the header has been found to give none */
};

/* The tiles of one batch, in the order that wcx_tile_iter finds them. */
struct tile_set {
	size_t count, bytes; /* bytes of all tiles, decoded */
	struct wcx_tile_info info[WCX_BATCH_TILES];
	const struct wcx_segment *segment[WCX_BATCH_TILES];
	struct wcx_cache_item item[WCX_BATCH_TILES];
};

/* Tiles that the decoder has together. */
struct piece {
	struct wcx_decode_batch *batch;
	size_t job_count, job_of[WCX_BATCH_TILES]; /* job_of[j]: the number of the tile of job j */
	uint32_t checksums[WCX_BATCH_TILES];       /* of each job, which the decoder compares if the tile is coded */
};

/* Tiles of a set that fell to us to fill. */
struct missing_tiles {
	size_t count, set_index[WCX_BATCH_TILES];
	struct wcx_image_tile tiles[WCX_BATCH_TILES];
};

struct wcx_image_opening {
	struct wcx_image *image;
	uint64_t offset;
	size_t bytes;
	int r; /* of pinning the tiles */
	struct tile_set set;
	struct missing_tiles missing;
	struct piece piece;
	wcx_decoded_fn *opened;
	void *user;
};

int wcx_image_open_as(int fd, const char *path, const struct wcx_superblock *superblock, struct wcx_tile_cache *cache,
		      struct wcx_decoder *decoder, struct wcx_image **ret, struct wcx_error *err)
{
	struct wcx_image *image = calloc(1, sizeof *image);
	int r;

	if (!image)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	image->bases = wcx_image_bases_create();
	r = image->bases ? wcx_container_open_as(fd, path, superblock, &image->container, err)
			 : wcx_fail(err, ENOMEM, "%s: no memory", path);
	if (r < 0) {
		wcx_image_bases_free(image->bases);
		free(image);
		return r;
	}
	wcx_image_bases_set(image->bases, image->container);
	image->cache = cache;
	image->decoder = decoder;
	image->cache_owner = wcx_tile_cache_owner(cache);
	pthread_mutex_init(&image->names_lock, NULL);
	image->counts = &image->own_counts;
	atomic_init(&image->refs, 1);
	*ret = image;
	return 0;
}

int wcx_image_open(int fd, const char *path, struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
		   struct wcx_image **ret, struct wcx_error *err)
{
	struct wcx_superblock superblock;
	const int r = wcx_superblock_read(fd, path, &superblock, err);

	return r < 0 ? r : wcx_image_open_as(fd, path, &superblock, cache, decoder, ret, err);
}

void wcx_image_count_into(struct wcx_image *image, struct wcx_image_counts *counts)
{
	image->counts = counts;
}

struct wcx_image_counts *wcx_image_counts(const struct wcx_image *image)
{
	return image->counts;
}

void wcx_image_use_finder(struct wcx_image *image, const struct wcx_base_finder *finder)
{
	wcx_image_bases_use_finder(image->bases, finder);
}

struct wcx_decoder *wcx_image_decoder(const struct wcx_image *image)
{
	return image->decoder;
}

struct wcx_image_bases *wcx_image_bases(const struct wcx_image *image)
{
	return image->bases;
}

int wcx_image_find_bases(struct wcx_image *image, struct wcx_error *err)
{
	const uint32_t count = wcx_container_base_count(image->container);
	struct wcx_error why = { "" };

	for (uint32_t number = 1; number <= count; number++) {
		struct wcx_image *base;

		if (wcx_image_bases_get(image->bases, number, &base, &why) < 0)
			return wcx_fail(err, EIO, "%s: %s", wcx_container_path(image->container), why.text);
		wcx_image_put(base);
	}
	return 0;
}

bool wcx_image_is_shared(struct wcx_image *image)
{
	return atomic_load(&image->refs) > 1;
}

struct wcx_image *wcx_image_get(struct wcx_image *image)
{
	atomic_fetch_add(&image->refs, 1);
	return image;
}

void wcx_image_put(struct wcx_image *image)
{
	if (!image || atomic_fetch_sub(&image->refs, 1) != 1)
		return;
	wcx_image_bases_free(image->bases);
	wcx_container_free(image->container);
	wcx_safetensors_free(image->names);
	pthread_mutex_destroy(&image->names_lock);
	free(image);
}

const struct wcx_container *wcx_image_container(const struct wcx_image *image)
{
	return image->container;
}

uint64_t wcx_image_bytes(const struct wcx_image *image)
{
	return wcx_container_superblock(image->container)->original_bytes;
}

/* Starts with the first tile of [start, end). */
static struct wcx_tile_iter tiles_of_range(const struct wcx_image *image, uint64_t start, uint64_t end)
{
	const struct wcx_container *c = image->container;
	struct wcx_tile_iter iter;

	wcx_tile_iter_start(&iter, wcx_container_segment(c, 0), wcx_container_superblock(c)->segment_count, start, end);
	return iter;
}

/* Copies what the tile holds of [start, end) to dst, where start lies. */
static void copy_tile(const struct wcx_segment *seg, const struct wcx_tile_info *tile, const uint8_t *data, uint64_t start,
		      uint64_t end, uint8_t *dst)
{
	struct wcx_extent extent;

	for (uint64_t at = start; wcx_tile_extent(seg, tile, at, end, &extent); at = extent.offset + extent.bytes)
		memcpy(dst + (extent.offset - start), data + extent.tile_offset, extent.bytes);
}

/*
 * The header, or NULL if it is too large or gives no names.  What was parsed first is kept: a reader that goes on after
 * failed reads must not cost more than one that reads.
 */
static const struct wcx_safetensors *names_of(struct wcx_image *image)
{
	const struct wcx_safetensors *names;
	struct wcx_safetensors *parsed = NULL;
	bool is_known;
	int r;

	if (wcx_container_segment(image->container, 0)->bytes > NAMES_MAX_HEADER_BYTES)
		return NULL;
	pthread_mutex_lock(&image->names_lock);
	names = image->names;
	is_known = names || image->has_no_names;
	pthread_mutex_unlock(&image->names_lock);
	if (is_known)
		return names;
	r = wcx_image_header(image, &parsed, NULL);
	pthread_mutex_lock(&image->names_lock);
	image->has_no_names |= r == -EBADMSG || r == -EINVAL; /* other errors may pass */
	if (!image->names) {
		image->names = parsed;
		parsed = NULL;
	}
	names = image->names;
	pthread_mutex_unlock(&image->names_lock);
	wcx_safetensors_free(parsed);
	return names;
}

/* Writes "tensor `name`" for the tensor that holds a byte of a segment, or else the number of the segment. */
static void describe_byte(struct wcx_image *image, const struct wcx_segment *seg, uint64_t offset, char *dst,
			  size_t dst_bytes)
{
	const struct wcx_segment *header = wcx_container_segment(image->container, 0);
	const struct wcx_safetensors *names;

	if (seg == header) {
		snprintf(dst, dst_bytes, "the header");
		return;
	}
	names = names_of(image);
	if (names)
		snprintf(dst, dst_bytes, "tensor `%s`", wcx_image_tensor_at(names, offset)->name);
	else
		snprintf(dst, dst_bytes, "segment number %td", seg - header);
}

/* Finds out why a tile could not have the bytes of its base; what was read then has left no message. */
static void explain_base(struct wcx_image *image, const struct wcx_segment *seg, const struct wcx_tile_info *tile,
			 struct wcx_error *why)
{
	const size_t bytes = wcx_tile_dims_bytes(&tile->dims);
	uint8_t *dst = malloc(bytes);

	if (!dst)
		wcx_fail(why, ENOMEM, "no memory to read its base");
	else if (wcx_image_bases_read(image->bases, seg->base, dst, bytes, wcx_tile_base_offset(seg, tile), why) == 0)
		wcx_fail(why, EIO, "its base could not be read just now");
	free(dst);
}

int wcx_image_fail_tile(struct wcx_image *image, const struct wcx_segment *seg, const struct wcx_tile_info *tile,
			uint64_t start, int r, struct wcx_error *err)
{
	uint64_t from = wcx_tile_row_offset(seg, tile, 0);
	const bool has_no_base = r == -WCX_NO_BASE;
	struct wcx_error why = { "" };
	char name[256];

	r = has_no_base ? -EIO : r;
	if (!err)
		return r;
	if (has_no_base)
		explain_base(image, seg, tile, &why);
	wcx_count(&image->counts->errors, 1);
	describe_byte(image, seg, WCX_MAX(from, start), name, sizeof name);
	return wcx_fail(err, -r, "%s: %s, tile %llu (offset %llu of the original, packed at %llu): %s",
			wcx_container_path(image->container), name, (unsigned long long)(tile->tile_index - seg->first_tile),
			(unsigned long long)from, (unsigned long long)tile->packed_offset,
			has_no_base     ? why.text
			: r == -EBADMSG ? "damaged"
					: strerror(-r));
}

void wcx_image_read_tiles(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count, uint8_t *buffer)
{
	wcx_packed_fetch_tiles(image->container, tiles, count);
	wcx_packed_read_tiles(image->container, tiles, count, buffer);
}

/* Reads what a tile needs of its base to the buffer. */
static void read_base(const struct wcx_image *image, struct wcx_image_tile *tile, uint8_t *buffer)
{
	if (wcx_image_bases_read(image->bases, tile->segment->base, buffer, wcx_tile_dims_bytes(&tile->info->dims),
				 wcx_tile_base_offset(tile->segment, tile->info), NULL) == 0)
		tile->base = buffer;
}

/*
 * Reads what tiles need of their bases to the buffer: in one go what is consecutive, or, if that fails, tile by tile, so
 * that only those fail that must.
 */
static void read_bases(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count, uint8_t *buffer)
{
	for (size_t first = 0, after; first < count; first = after) {
		const struct wcx_segment *seg = tiles[first].segment;
		const uint64_t start = wcx_tile_base_offset(seg, tiles[first].info);
		uint64_t end = start;
		bool is_read;

		for (after = first; after < count && wcx_tile_needs_base(tiles[after].segment, tiles[after].info) &&
				    tiles[after].segment->base == seg->base &&
				    wcx_tile_base_offset(tiles[after].segment, tiles[after].info) == end;
		     after++)
			end += wcx_tile_dims_bytes(&tiles[after].info->dims);
		if (after == first) {
			after++;
			continue;
		}
		is_read = after - first > 1 &&
			  wcx_image_bases_read(image->bases, seg->base, buffer, (size_t)(end - start), start, NULL) == 0;
		for (size_t i = first; i < after; i++) {
			if (is_read)
				tiles[i].base = buffer;
			else
				read_base(image, &tiles[i], buffer);
			buffer += wcx_tile_dims_bytes(&tiles[i].info->dims);
		}
	}
}

/* Makes jobs of the tiles that were read. */
static void make_jobs(struct piece *piece, struct wcx_image_tile *tiles, size_t count)
{
	piece->job_count = 0;
	for (size_t i = 0; i < count; i++) {
		const struct wcx_tile_info *info = tiles[i].info;

		if (tiles[i].r)
			continue;
		if (info->mode != WCX_TILE_CONSTANT && info->mode != WCX_TILE_CODED &&
		    wcx_checksum32(tiles[i].packed, info->packed_bytes) != info->checksum) {
			tiles[i].r = -EBADMSG;
			continue;
		}
		if (wcx_tile_needs_base(tiles[i].segment, info) && !tiles[i].base) {
			tiles[i].r = -WCX_NO_BASE;
			continue;
		}
		piece->batch->jobs[piece->job_count] = (struct wcx_tile_job){
			.dims = info->dims,
			.mode = info->mode,
			.constant = info->constant,
			.recipe = &tiles[i].segment->recipe,
			.src = tiles[i].packed,
			.src_bytes = info->packed_bytes,
			.base = tiles[i].base,
			.dst = tiles[i].dst,
			.dst_bytes = wcx_tile_dims_bytes(&info->dims),
		};
		piece->checksums[piece->job_count] = info->checksum;
		piece->job_of[piece->job_count++] = i;
	}
}

/* Reads tiles that have what they need of bases, and makes jobs of them. */
static void read_piece(const struct wcx_image *image, struct piece *piece, struct wcx_image_tile *tiles, size_t count)
{
	wcx_packed_read_tiles(image->container, tiles, count, piece->batch->packed);
	make_jobs(piece, tiles, count);
}

/* Gives tiles the results of their jobs, and counts what was decoded. */
static void take_results(const struct wcx_image *image, const struct piece *piece, struct wcx_image_tile *tiles)
{
	uint64_t bytes = 0;

	for (size_t j = 0; j < piece->job_count; j++) {
		tiles[piece->job_of[j]].r = wcx_result_errno(piece->batch->jobs[j].result);
		bytes += piece->batch->jobs[j].dst_bytes;
	}
	wcx_count(&image->counts->decoded_bytes, bytes);
}

/* How many of the tiles, at least one, have at most so many decoded bytes together. */
static size_t piece_count(const struct wcx_image_tile *tiles, size_t count, size_t piece_bytes)
{
	size_t bytes = wcx_tile_dims_bytes(&tiles[0].info->dims), n = 1;

	while (n < count && bytes + wcx_tile_dims_bytes(&tiles[n].info->dims) <= piece_bytes)
		bytes += wcx_tile_dims_bytes(&tiles[n++].info->dims);
	return n;
}

/* Reads and decodes tiles piece by piece. */
static void decode_tiles(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count)
{
	struct piece piece = { .batch = wcx_decoder_borrow(image->decoder) };
	const size_t piece_bytes = wcx_decoder_piece_bytes(image->decoder, piece.batch);

	for (size_t i = 0; i < count && !piece.batch; i++)
		tiles[i].r = -ENOMEM;
	if (!piece.batch)
		return;
	wcx_packed_fetch_tiles(image->container, tiles, count);
	for (size_t i = 0, n; i < count; i += n) {
		n = piece_count(tiles + i, count - i, piece_bytes);
		read_piece(image, &piece, tiles + i, n);
		wcx_decoder_run(image->decoder, piece.batch, piece.job_count, piece.checksums);
		take_results(image, &piece, tiles + i);
	}
	wcx_decoder_return(image->decoder, piece.batch);
}

void wcx_image_decode_apart(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count)
{
	uint8_t *buffer = NULL;
	bool needs_bases = false;

	for (size_t i = 0; i < count; i++) {
		tiles[i].base = NULL;
		needs_bases |= wcx_tile_needs_base(tiles[i].segment, tiles[i].info);
	}
	if (needs_bases) {
		buffer = wcx_decoder_borrow_bytes(image->decoder);
		if (!buffer) {
			for (size_t i = 0; i < count; i++)
				tiles[i].r = -ENOMEM;
			return;
		}
		read_bases(image, tiles, count, buffer);
	}
	decode_tiles(image, tiles, count);
	if (buffer)
		wcx_decoder_return_bytes(image->decoder, buffer);
}

/* Pins the next tiles of the range, as many as a batch holds. */
static int acquire_tiles(struct wcx_image *image, struct wcx_tile_iter *iter, struct tile_set *set)
{
	const size_t most = wcx_decoder_batch_bytes(image->decoder) - WCX_TILE_MAX_BYTES;

	set->count = set->bytes = 0;
	while (set->count < WCX_BATCH_TILES && set->bytes <= most) {
		struct wcx_tile_info *info = &set->info[set->count];
		struct wcx_cache_item *item = &set->item[set->count];

		if (!wcx_tile_iter_next(iter))
			break;
		wcx_container_tile(image->container, iter->segment, iter->tile_index, info);
		set->segment[set->count] = iter->segment;
		item->tile_index = info->tile_index;
		item->bytes = wcx_tile_dims_bytes(&info->dims);
		set->bytes += item->bytes;
		set->count++;
	}
	return set->count ? wcx_tile_cache_acquire(image->cache, image->cache_owner, set->item, set->count) : 0;
}

/* Finds the tiles that this thread has to fill. */
static void find_missing(struct tile_set *set, struct missing_tiles *missing)
{
	missing->count = 0;
	for (size_t i = 0; i < set->count; i++) {
		if (set->item[i].outcome != WCX_CACHE_FILL)
			continue;
		missing->tiles[missing->count] = (struct wcx_image_tile){
			.info = &set->info[i],
			.segment = set->segment[i],
			.dst = set->item[i].data,
		};
		missing->set_index[missing->count++] = i;
	}
}

/* Publishes them with their results.  Others may wait for them, even if our read has failed. */
static void publish_missing(struct wcx_image *image, struct tile_set *set, const struct missing_tiles *missing)
{
	for (size_t m = 0; m < missing->count; m++)
		set->item[missing->set_index[m]].r = missing->tiles[m].r;
	wcx_tile_cache_publish(image->cache, set->item, set->count);
}

static void fill_missing(struct wcx_image *image, struct tile_set *set, struct missing_tiles *missing)
{
	if (!missing->count)
		return;
	wcx_image_decode_tiles(image, missing->tiles, missing->count);
	publish_missing(image, set, missing);
}

/* Makes a view of what the pinned tiles hold of [start, end); -E2BIG when a tile is not contiguous. */
static int show_tiles(const struct tile_set *set, uint64_t start, uint64_t end, struct wcx_image_view *view)
{
	view->count = view->bytes = 0;
	for (size_t i = 0; i < set->count; i++) {
		struct wcx_extent extent;

		if (!wcx_tile_is_contiguous(set->segment[i], &set->info[i]) ||
		    !wcx_tile_extent(set->segment[i], &set->info[i], start, end, &extent) ||
		    extent.offset != start + view->bytes)
			return -E2BIG;
		view->slices[view->count] = (struct iovec){
			.iov_base = set->item[i].data + extent.tile_offset,
			.iov_len = extent.bytes,
		};
		view->tiles[view->count++] = set->item[i];
		view->bytes += extent.bytes;
	}
	return 0;
}

static void begin_opening(struct wcx_image_opening *opening, struct wcx_image *image, uint64_t offset, size_t bytes)
{
	struct wcx_tile_iter iter = tiles_of_range(image, offset, offset + bytes);

	opening->image = image;
	opening->offset = offset;
	opening->bytes = bytes;
	opening->r = acquire_tiles(image, &iter, &opening->set);
	find_missing(&opening->set, &opening->missing);
}

int wcx_image_view_open(struct wcx_image *image, uint64_t offset, size_t bytes, struct wcx_image_view *view,
			struct wcx_error *err)
{
	struct wcx_image_opening opening;

	begin_opening(&opening, image, offset, bytes);
	fill_missing(image, &opening.set, &opening.missing);
	return wcx_image_view_finish(&opening, view, err);
}

struct wcx_image_opening *wcx_image_opening_create(void)
{
	return malloc(sizeof(struct wcx_image_opening));
}

void wcx_image_opening_free(struct wcx_image_opening *opening)
{
	free(opening);
}

/* Publishes what the decoder has decoded, and gives the batch back. */
static void end_piece(struct wcx_image_opening *opening)
{
	struct wcx_image *image = opening->image;

	take_results(image, &opening->piece, opening->missing.tiles);
	wcx_decoder_return(image->decoder, opening->piece.batch);
	publish_missing(image, &opening->set, &opening->missing);
}

/* Told by the decoder. */
static void end_later(void *user)
{
	struct wcx_image_opening *opening = user;

	end_piece(opening);
	opening->opened(opening->user);
}

/* Whether a GPU can have all missing tiles at once, and then be left alone with them; borrows the batch. */
static bool is_one_piece(struct wcx_image_opening *opening)
{
	const struct missing_tiles *missing = &opening->missing;
	struct wcx_decoder *decoder = opening->image->decoder;
	struct wcx_decode_batch *batch;

	for (size_t m = 0; m < missing->count; m++)
		if (wcx_tile_needs_base(missing->tiles[m].segment, missing->tiles[m].info))
			return false;
	batch = wcx_decoder_borrow(decoder);
	if (batch && wcx_decoder_piece_bytes(decoder, batch) == WCX_BATCH_BYTES) {
		opening->piece.batch = batch;
		return true;
	}
	if (batch)
		wcx_decoder_return(decoder, batch);
	return false;
}

bool wcx_image_view_start(struct wcx_image *image, uint64_t offset, size_t bytes, struct wcx_image_opening *opening,
			  wcx_decoded_fn *opened, void *user)
{
	struct missing_tiles *missing = &opening->missing;
	struct piece *piece = &opening->piece;

	begin_opening(opening, image, offset, bytes);
	if (!missing->count || !is_one_piece(opening)) {
		fill_missing(image, &opening->set, missing);
		return false;
	}
	opening->opened = opened;
	opening->user = user;
	wcx_packed_fetch_tiles(image->container, missing->tiles, missing->count);
	read_piece(image, piece, missing->tiles, missing->count);
	if (wcx_decoder_start(image->decoder, piece->batch, piece->job_count, piece->checksums, end_later, opening))
		return true;
	end_piece(opening);
	return false;
}

int wcx_image_view_finish(struct wcx_image_opening *opening, struct wcx_image_view *view, struct wcx_error *err)
{
	struct wcx_image *image = opening->image;
	struct tile_set *set = &opening->set;
	int r = opening->r;

	if (r < 0 && err)
		wcx_fail(err, ENOMEM, "%s: no memory for tiles", wcx_container_path(image->container));
	view->was_cached = true;
	for (size_t i = 0; i < set->count; i++)
		view->was_cached &= set->item[i].outcome == WCX_CACHE_READY;
	wcx_tile_cache_wait(image->cache, set->item, set->count);
	for (size_t i = 0; i < set->count && r == 0; i++)
		if (set->item[i].r < 0)
			r = wcx_image_fail_tile(image, set->segment[i], &set->info[i], opening->offset, set->item[i].r, err);
	if (r == 0)
		r = show_tiles(set, opening->offset, opening->offset + opening->bytes, view);
	if (r < 0)
		wcx_tile_cache_release(image->cache, set->item, set->count, false);
	return r;
}

void wcx_image_view_close(struct wcx_image *image, struct wcx_image_view *view, enum wcx_view_drop drop)
{
	/* The tiles before begin stay, and the last one. */
	const size_t begin = drop == WCX_VIEW_DROP_READ ? 0 : 1;
	const size_t dropped = drop != WCX_VIEW_KEEP && view->count > begin + 1 ? view->count - begin - 1 : 0;

	wcx_tile_cache_release(image->cache, view->tiles, dropped ? begin : view->count, false);
	if (dropped) {
		wcx_tile_cache_release(image->cache, view->tiles + begin, dropped, true);
		wcx_tile_cache_release(image->cache, view->tiles + begin + dropped, 1, false);
	}
	view->count = view->bytes = 0;
}

/* The tile that holds a byte of the original. */
static struct wcx_tile_info tile_at(const struct wcx_image *image, uint64_t offset)
{
	const struct wcx_container *c = image->container;
	const struct wcx_segment *seg = wcx_container_segment(c, wcx_container_segment_at(c, offset));
	struct wcx_tile_info info;

	wcx_container_tile(c, seg, wcx_segment_tile_at(seg, offset), &info);
	return info;
}

/* Has the kernel fetch what a range needs of the bases that have been found. */
static void fetch_bases(struct wcx_image *image, uint64_t start, uint64_t end)
{
	const struct wcx_container *c = image->container;
	const size_t last = wcx_container_segment_at(c, end - 1);

	for (size_t i = wcx_container_segment_at(c, start); i <= last; i++) {
		const struct wcx_segment *seg = wcx_container_segment(c, i);
		const uint64_t from = WCX_MAX(start, seg->offset), to = WCX_MIN(end, seg->offset + seg->bytes);
		struct wcx_image *base = seg->base ? wcx_image_bases_peek(image->bases, seg->base) : NULL;

		if (base)
			wcx_image_advise(base, seg->base_offset + (from - seg->offset), to - from, POSIX_FADV_WILLNEED);
		wcx_image_put(base);
	}
}

void wcx_image_advise(struct wcx_image *image, uint64_t offset, uint64_t bytes, int advice)
{
	struct wcx_tile_info first, last;
	uint64_t packed_bytes;

	if (offset >= wcx_image_bytes(image) || bytes == 0 || bytes > wcx_image_bytes(image) - offset)
		return;
	if (advice == POSIX_FADV_WILLNEED)
		fetch_bases(image, offset, offset + bytes);
	first = tile_at(image, offset);
	last = tile_at(image, offset + bytes - 1);
	if (last.packed_offset < first.packed_offset)
		return;
	packed_bytes = last.packed_offset + last.packed_bytes - first.packed_offset;
	/* 0 bytes would mean the rest of the file.  Where tensors share tiles, the bytes may be far apart. */
	if (!packed_bytes || packed_bytes > ADVISED_TIMES * bytes + 2 * WCX_TILE_MAX_BYTES)
		return;
	if (advice == POSIX_FADV_WILLNEED)
		wcx_packed_fetch(image->container, first.packed_offset, first.packed_offset + packed_bytes);
	else
		posix_fadvise(wcx_container_fd(image->container), (off_t)first.packed_offset, (off_t)packed_bytes, advice);
}

/* Waits for the pinned tiles, copies from them unless r is an error, and unpins them.  Returns the first error. */
static int use_tiles(struct wcx_image *image, struct tile_set *set, uint8_t *dst, uint64_t start, uint64_t end, int r,
		     struct wcx_error *err)
{
	size_t failed = set->count;

	wcx_tile_cache_wait(image->cache, set->item, set->count);
	for (size_t i = 0; i < set->count && r == 0; i++) {
		r = set->item[i].r;
		if (r < 0)
			failed = i;
		else
			copy_tile(set->segment[i], &set->info[i], set->item[i].data, start, end, dst);
	}
	wcx_tile_cache_release(image->cache, set->item, set->count, false);
	return failed < set->count ? wcx_image_fail_tile(image, set->segment[failed], &set->info[failed], start, r, err) : r;
}

ssize_t wcx_image_read_until(struct wcx_image *image, void *dst, size_t bytes, uint64_t offset,
			     wcx_should_stop_fn *should_stop, void *user, struct wcx_error *err)
{
	uint64_t image_bytes = wcx_image_bytes(image), end;
	struct wcx_tile_iter iter;
	struct missing_tiles missing;
	struct tile_set set;

	if (offset >= image_bytes || bytes == 0)
		return 0;
	end = offset + WCX_MIN(bytes, image_bytes - offset);
	iter = tiles_of_range(image, offset, end);
	do {
		int r = acquire_tiles(image, &iter, &set);

		find_missing(&set, &missing);
		fill_missing(image, &set, &missing);
		r = use_tiles(image, &set, dst, offset, end, r, err);
		if (r == -ENOMEM && err)
			wcx_fail(err, ENOMEM, "%s: no memory for tiles", wcx_container_path(image->container));
		if (r == 0 && set.count && should_stop(user))
			r = -EINTR;
		if (r < 0)
			return r;
	} while (set.count);
	return (ssize_t)(end - offset);
}

static bool never_stop(void *user)
{
	(void)user;
	return false;
}

ssize_t wcx_image_read(struct wcx_image *image, void *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	return wcx_image_read_until(image, dst, bytes, offset, never_stop, NULL, err);
}

bool wcx_image_copy_cached(struct wcx_image *image, const struct wcx_tile_info *tile, uint8_t *dst)
{
	struct wcx_cache_item item = { .tile_index = tile->tile_index, .bytes = wcx_tile_dims_bytes(&tile->dims) };

	if (!wcx_tile_cache_acquire_ready(image->cache, image->cache_owner, &item))
		return false;
	memcpy(dst, item.data, item.bytes);
	wcx_tile_cache_release(image->cache, &item, 1, false);
	return true;
}

int wcx_image_check_tile(struct wcx_image *image, uint64_t tile_index, struct wcx_error *err)
{
	size_t segment_index = wcx_container_segment_of_tile(image->container, tile_index);
	const struct wcx_segment *seg = wcx_container_segment(image->container, segment_index);
	struct wcx_tile_info info;
	struct wcx_image_tile tile = { .info = &info, .segment = seg };

	wcx_container_tile(image->container, seg, tile_index, &info);
	tile.dst = malloc(wcx_tile_dims_bytes(&info.dims));
	if (!tile.dst)
		return wcx_fail(err, ENOMEM, "%s: no memory for a tile", wcx_container_path(image->container));
	wcx_image_decode_tiles(image, &tile, 1);
	free(tile.dst);
	return tile.r ? wcx_image_fail_tile(image, seg, &info, 0, tile.r, err) : 0;
}
