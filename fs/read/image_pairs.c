/* SPDX-License-Identifier: MIT */
/*
 * Decodes tiles of an image.  If a GPU decodes, it gets differences in pairs: the packed tile of the base, and the packed
 * tile of the image, so that no decoded byte of the base exists on the host.
 */

#include "codec/arith.h"
#include "cuda/gpu_decode.h"
#include "fs/read/image.h"

enum { BASE_ALIGN = 128 };

/* A tile that is a difference, and the tile of its base. */
struct pair {
	struct wcx_image_tile *tile;
	bool is_same; /* the tile is the base's, which is decoded in its place */
	struct wcx_base_tile base;
	size_t base_at;               /* in the memory for bases */
	struct wcx_image *base_image; /* with a reference */
};

/* Pairs that are read, and decoded together.  All base tiles are of one image. */
struct group {
	size_t count, job_count, packed_bytes, base_bytes;
	struct wcx_image_tile of_base[WCX_BATCH_TILES], of_image[WCX_BATCH_TILES];
	size_t image_count; /* of of_image: without those that are the base's */
};

/* Whether a tile may be decoded in a pair.  One whose bytes the caller has read has another reader in mind. */
static bool may_pair(const struct wcx_image *image, const struct wcx_image_tile *tile)
{
	const bool is_coded = tile->info->mode == WCX_TILE_CODED;

	return !tile->is_read && wcx_tile_needs_base(tile->segment, tile->info) && (is_coded || !tile->info->constant) &&
	       wcx_decoder_has_kernel(wcx_image_decoder(image), &tile->segment->recipe);
}

/* Finds the base's tile for such a tile. */
static bool find_pair(const struct wcx_image *image, struct wcx_image_tile *tile, struct pair *pair)
{
	const bool is_same = tile->info->mode != WCX_TILE_CODED;
	bool is_found;

	if (!may_pair(image, tile) ||
	    wcx_image_bases_get(wcx_image_bases(image), tile->segment->base, &pair->base_image, NULL) < 0)
		return false;
	is_found = wcx_tile_find_base(wcx_image_container(pair->base_image), tile->segment, tile->info, &pair->base) &&
		   (!is_same || wcx_tile_dims_bytes(&tile->info->dims) == wcx_tile_dims_bytes(&pair->base.info.dims));
	pair->tile = tile;
	pair->is_same = is_same;
	if (!is_found)
		wcx_image_put(pair->base_image);
	return is_found;
}

/* Adds pairs from number first on to an empty group, as many as fit; returns the number after the last. */
static size_t fill_group(struct group *group, struct pair *pairs, size_t first, size_t count)
{
	size_t i;

	group->count = group->job_count = group->packed_bytes = group->base_bytes = group->image_count = 0;
	for (i = first; i < count && pairs[i].base_image == pairs[first].base_image; i++) {
		struct pair *pair = &pairs[i];
		const size_t packed_bytes =
			wcx_tile_align_up(pair->base.info.packed_bytes) + wcx_tile_align_up(pair->tile->info->packed_bytes);
		const size_t base_bytes = WCX_ALIGN_UP(wcx_tile_dims_bytes(&pair->base.info.dims), (size_t)BASE_ALIGN);

		if (group->job_count + 2 > WCX_BATCH_TILES || group->packed_bytes + packed_bytes > WCX_BATCH_PACKED_BYTES ||
		    group->base_bytes + base_bytes > WCX_GPU_BASE_BYTES)
			break;
		pair->base_at = group->base_bytes;
		group->of_base[group->count++] =
			(struct wcx_image_tile){ .info = &pair->base.info, .segment = pair->base.segment };
		if (!pair->is_same)
			group->of_image[group->image_count++] = *pair->tile;
		group->job_count += pair->is_same ? 1 : 2;
		group->packed_bytes += packed_bytes;
		group->base_bytes += base_bytes;
	}
	return i;
}

/* Adds the job of a tile that was read; false if its bytes are not what they should be. */
static bool add_job(struct wcx_decode_batch *batch, size_t number, const struct wcx_image_tile *tile, uint8_t *dst,
		    const uint8_t *base)
{
	if (tile->r || wcx_checksum32(tile->packed, tile->info->packed_bytes) != tile->info->checksum)
		return false;
	batch->jobs[number] = (struct wcx_tile_job){
		.dims = tile->info->dims,
		.mode = tile->info->mode,
		.recipe = &tile->segment->recipe,
		.src = tile->packed,
		.src_bytes = tile->info->packed_bytes,
		.base = base,
		.dst = dst,
		.dst_bytes = wcx_tile_dims_bytes(&tile->info->dims),
	};
	return true;
}

/* Makes jobs of the pairs of a group; returns how many.  ends[i] is the number after the last job of pair i, or 0. */
static size_t make_jobs(const struct group *group, const struct pair *pairs, struct wcx_decode_batch *batch, uint8_t *bases,
			size_t ends[WCX_BATCH_TILES])
{
	const struct wcx_image_tile *next = group->of_image;
	size_t job_count = 0;

	for (size_t i = 0; i < group->count; i++) {
		const struct pair *pair = &pairs[i];
		const struct wcx_image_tile *own = pair->is_same ? NULL : next++;
		uint8_t *base = bases + pair->base_at;

		ends[i] = 0;
		if (!add_job(batch, job_count, &group->of_base[i], own ? base : pair->tile->dst, NULL) ||
		    (own && !add_job(batch, job_count + 1, own, own->dst, base + pair->base.offset)))
			continue;
		job_count += own ? 2 : 1;
		ends[i] = job_count;
	}
	return job_count;
}

/* Reads and decodes a group.  Pairs that fail, in whatever way, keep the r of their tiles. */
static void run_group(const struct wcx_image *image, struct group *group, const struct pair *pairs, uint8_t *bases)
{
	struct wcx_decode_batch *batch = wcx_decoder_borrow(wcx_image_decoder(image));
	size_t ends[WCX_BATCH_TILES], own_bytes = 0, job_count;

	if (!batch)
		return;
	for (size_t i = 0; i < group->image_count; i++)
		own_bytes += wcx_tile_align_up(group->of_image[i].info->packed_bytes);
	wcx_image_read_tiles(image, group->of_image, group->image_count, batch->packed);
	wcx_image_read_tiles(pairs->base_image, group->of_base, group->count, batch->packed + own_bytes);
	job_count = make_jobs(group, pairs, batch, bases, ends);
	wcx_decoder_run_pairs(wcx_image_decoder(image), batch, job_count, bases);
	for (size_t i = 0; i < group->count; i++) {
		const struct wcx_tile_info *info = pairs[i].tile->info;

		if (!ends[i] || batch->jobs[ends[i] - 1].result != WCX_OK)
			continue;
		pairs[i].tile->r = 0;
		wcx_count(&wcx_image_counts(image)->decoded_bytes, wcx_tile_dims_bytes(&info->dims));
		wcx_count(&wcx_image_counts(pairs[i].base_image)->decoded_bytes,
			  wcx_tile_dims_bytes(&pairs[i].base.info.dims));
	}
	wcx_decoder_return(wcx_image_decoder(image), batch);
}

/* Has the GPU decode what it can of the differences, if it is to: these get an r of 0, other tiles of 1. */
static void decode_pairs(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count)
{
	struct pair pairs[WCX_BATCH_TILES];
	size_t pair_count = 0, coded_bytes = 0;
	struct group group;
	uint8_t *bases = NULL;

	for (size_t i = 0; i < count; i++) {
		tiles[i].r = 1;
		if (!find_pair(image, &tiles[i], &pairs[pair_count]))
			continue;
		coded_bytes += wcx_tile_dims_bytes(&pairs[pair_count].base.info.dims);
		coded_bytes += pairs[pair_count].is_same ? 0 : wcx_tile_dims_bytes(&tiles[i].info->dims);
		pair_count++;
	}
	if (pair_count && wcx_decoder_takes_pairs(wcx_image_decoder(image), coded_bytes))
		bases = wcx_decoder_borrow_bytes(wcx_image_decoder(image));
	for (size_t first = 0, after; first < pair_count && bases; first = after) {
		after = fill_group(&group, pairs, first, pair_count);
		run_group(image, &group, pairs + first, bases);
	}
	for (size_t i = 0; i < pair_count; i++)
		wcx_image_put(pairs[i].base_image);
	if (bases)
		wcx_decoder_return_bytes(wcx_image_decoder(image), bases);
}

/* What the GPU leaves, damaged tiles among them, is decoded as without it. */
void wcx_image_decode_tiles(const struct wcx_image *image, struct wcx_image_tile *tiles, size_t count)
{
	struct wcx_image_tile rest[WCX_BATCH_TILES];
	size_t rest_of[WCX_BATCH_TILES], rest_count = 0;

	decode_pairs(image, tiles, count);
	for (size_t i = 0; i < count; i++) {
		if (!tiles[i].r)
			continue;
		rest[rest_count] = tiles[i];
		rest_of[rest_count++] = i;
	}
	if (rest_count)
		wcx_image_decode_apart(image, rest, rest_count);
	for (size_t i = 0; i < rest_count; i++)
		tiles[rest_of[i]].r = rest[i].r;
}
