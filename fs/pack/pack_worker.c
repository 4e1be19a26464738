/* SPDX-License-Identifier: MIT */
/* Reads, counts, encodes and verifies the units of a file that is packed. */
#include "fs/pack/pack_worker.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec/arith.h"

enum {
	ZSTD_HEADER_LEVEL = 19, /* headers are small; but a million tensors have one of 68 MB, for which this takes 40 s */
	ZSTD_LARGE_HEADER_LEVEL = 6, /* of which a 60th, for tiles of about the same size */
	LARGE_HEADER_BYTES = 1 << 20,
	ZSTD_TENSOR_LEVEL = 9,
	VERIFIED_BYTES = 128 << 10, /* of tiles that are decoded together: they stay in a core's cache */
};

_Static_assert((int)WCX_TILE_MAX_BYTES >= (int)VERIFIED_BYTES, "worker->decoded holds them");
_Static_assert((int)WCX_SAMPLES_MAX_BYTES >= (int)WCX_UNIT_BYTES, "src holds a unit");

struct wcx_pack_variants wcx_pack_variants_choose(void)
{
	const char *name = getenv("WCX_CPU");
	struct wcx_pack_variants ret = { .encoder = name ? wcx_encode_variant_find(name) : NULL,
					 .decoder = name ? wcx_decode_variant_find(name) : NULL };

	if (!ret.encoder)
		ret.encoder = wcx_encode_variant_choose();
	if (!ret.decoder)
		ret.decoder = wcx_decode_variant_choose();
	return ret;
}

bool wcx_pack_worker_open(struct wcx_pack_worker *worker, const struct wcx_pack_variants *variants)
{
	worker->src = malloc(WCX_SAMPLES_MAX_BYTES);
	worker->base = malloc(WCX_SAMPLES_MAX_BYTES);
	worker->dst = malloc(WCX_UNIT_BYTES + WCX_UNIT_TILES * WCX_TILE_ALIGN);
	worker->zstd_dst = malloc(WCX_UNIT_BYTES);
	worker->zstd = ZSTD_createCCtx();
	worker->scratch = wcx_encode_scratch_create();
	worker->decoded = malloc(WCX_TILE_MAX_BYTES);
	worker->unzstd = ZSTD_createDCtx();
	worker->decode_scratch = wcx_decode_scratch_create(variants->decoder);
	if (worker->scratch)
		wcx_encode_scratch_use(worker->scratch, variants->encoder);
	return worker->src && worker->base && worker->dst && worker->zstd_dst && worker->zstd && worker->scratch &&
	       worker->decoded && worker->unzstd && worker->decode_scratch;
}

void wcx_pack_worker_close(struct wcx_pack_worker *worker)
{
	free(worker->src);
	free(worker->base);
	free(worker->dst);
	free(worker->zstd_dst);
	ZSTD_freeCCtx(worker->zstd);
	wcx_encode_scratch_free(worker->scratch);
	wcx_decode_scratch_free(worker->decode_scratch);
	free(worker->decoded);
	ZSTD_freeDCtx(worker->unzstd);
}

struct wcx_pack_unit wcx_pack_unit_make(struct wcx_tensor_plan *plan, uint64_t first_tile)
{
	struct wcx_pack_unit unit = { .plan = plan, .first_tile = first_tile };
	const uint64_t left = plan->segment.tile_count - first_tile;
	uint64_t end = plan->segment.offset + plan->segment.bytes;
	struct wcx_tile_dims dims;

	wcx_tensor_plan_tile(plan, first_tile, &dims, &unit.offset);
	unit.bytes = wcx_tile_dims_bytes(&dims);
	/* The reference's tiles are not ranges of bytes, and are taken one by one. */
	unit.tile_count = plan->is_reference ? 1 : WCX_MIN(left, WCX_MIN(WCX_UNIT_BYTES / unit.bytes, WCX_UNIT_TILES));
	if (plan->is_reference)
		return unit;
	if (unit.tile_count < left)
		wcx_tensor_plan_tile(plan, first_tile + unit.tile_count, &dims, &end);
	unit.bytes = end - unit.offset;
	return unit;
}

struct wcx_pack_unit wcx_pack_unit_counted(const struct wcx_pack_unit *unit)
{
	const uint64_t stride = wcx_tensor_plan_stride(unit->plan);
	struct wcx_pack_unit part = *unit;
	struct wcx_tile_dims dims;
	uint64_t end;

	part.tile_count = WCX_DIV_UP(unit->tile_count, stride);
	if (part.tile_count == unit->tile_count)
		return part;
	wcx_tensor_plan_tile(unit->plan, unit->first_tile + part.tile_count, &dims, &end);
	part.bytes = end - unit->offset;
	return part;
}

int wcx_pack_unit_read(const struct wcx_pack_unit *unit, const struct wcx_plan_reader *reader, uint8_t *src,
		       struct wcx_error *err)
{
	if (!unit->plan->is_reference)
		return reader->read(reader->user, src, unit->bytes, unit->offset, err);
	return wcx_tensor_plan_read_tile(unit->plan, unit->first_tile, reader, src, err);
}

int wcx_pack_unit_read_base(const struct wcx_pack_unit *unit, const struct wcx_plan_reader *reader, uint8_t *base,
			    struct wcx_error *err)
{
	const struct wcx_tensor_plan *plan = unit->plan;

	if (!wcx_tensor_plan_has_difference(plan))
		return 0;
	return reader->read_base(reader->user, plan->base.base, base, unit->bytes,
				 plan->base.offset + (unit->offset - plan->segment.offset), err);
}

/* The base's elements for a tile that begins at an offset; NULL for a plan without a difference. */
static const uint8_t *tile_base(const struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit, uint64_t offset)
{
	return wcx_tensor_plan_has_difference(unit->plan) ? worker->base + (offset - unit->offset) : NULL;
}

/* How many tiles of the unit are equal to its first one: all of full size, or only that one. */
static uint64_t equal_tiles(const struct wcx_pack_unit *unit, const uint8_t *src)
{
	struct wcx_tile_dims dims;
	uint64_t offset, full, tile_bytes;

	wcx_tensor_plan_tile(unit->plan, unit->first_tile, &dims, &offset);
	tile_bytes = wcx_tile_dims_bytes(&dims);
	full = unit->bytes / tile_bytes;
	return full && memcmp(src, src + tile_bytes, (full - 1) * tile_bytes) == 0 ? full : 1;
}

/* Makes counts of one tile those of several. */
static void multiply_counts(struct wcx_plan_counts *counts, uint64_t factor)
{
	uint64_t *count = (void *)counts;

	_Static_assert(sizeof *counts % sizeof *count == 0, "counts and nothing else");
	for (size_t i = 0; i < sizeof *counts / sizeof *count; i++)
		count[i] *= factor;
}

enum wcx_result wcx_pack_worker_count(struct wcx_pack_worker *worker, struct wcx_pack_unit *unit, const uint8_t *src)
{
	const uint64_t equal = wcx_tensor_plan_has_difference(unit->plan) ? 1 : equal_tiles(unit, src);
	enum wcx_result result = WCX_OK;

	memset(&worker->counts, 0, sizeof worker->counts);
	for (uint64_t i = 0; i < unit->tile_count && result == WCX_OK; i += i ? 1 : equal) {
		struct wcx_tile_dims dims;
		uint64_t offset;

		wcx_tensor_plan_tile(unit->plan, unit->first_tile + i, &dims, &offset);
		result = wcx_tensor_plan_count(unit->plan, &dims, src + (offset - unit->offset),
					       tile_base(worker, unit, offset), worker->scratch, &worker->counts);
		if (i == 0 && equal > 1)
			multiply_counts(&worker->counts, equal);
	}
	unit->checksum = wcx_checksum64(src, unit->bytes);
	return result;
}

static int zstd_level(const struct wcx_segment *seg)
{
	if (seg->offset > 0)
		return ZSTD_TENSOR_LEVEL;
	return seg->bytes > LARGE_HEADER_BYTES ? ZSTD_LARGE_HEADER_LEVEL : ZSTD_HEADER_LEVEL;
}

/* Replaces a packed tile by a Zstandard frame if that is smaller. */
static void try_zstd(struct wcx_pack_worker *worker, int level, const uint8_t *src, uint8_t *dst, struct wcx_tile_info *tile)
{
	size_t bytes = ZSTD_compressCCtx(worker->zstd, worker->zstd_dst, WCX_UNIT_BYTES, src,
					 wcx_tile_dims_bytes(&tile->dims), level);

	if (ZSTD_isError(bytes) || bytes >= tile->packed_bytes)
		return;
	memcpy(dst, worker->zstd_dst, bytes);
	tile->mode = WCX_TILE_ZSTD;
	tile->packed_bytes = (uint32_t)bytes;
}

enum wcx_result wcx_pack_worker_encode(struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit, const uint8_t *src,
				       uint64_t *bytes_ret)
{
	const struct wcx_tensor_plan *plan = unit->plan;
	const int level = zstd_level(&plan->segment);
	uint64_t used = 0;

	for (uint64_t i = 0; i < unit->tile_count; i++) {
		struct wcx_tile_info *tile = &worker->tiles[i];
		const uint8_t *plain;
		uint8_t *dst = worker->dst + used;
		struct wcx_encoded_tile encoded;
		enum wcx_result result;
		uint64_t offset, end;

		wcx_tensor_plan_tile(plan, unit->first_tile + i, &tile->dims, &offset);
		plain = src + (offset - unit->offset);
		result = wcx_tile_encode_against(&tile->dims, plain, tile_base(worker, unit, offset), &plan->segment.recipe,
						 worker->scratch, dst, &encoded);
		if (result != WCX_OK)
			return result;
		tile->mode = encoded.mode;
		tile->constant = encoded.constant;
		tile->packed_bytes = (uint32_t)encoded.bytes;
		tile->checksum = 0;
		if (tile->mode != WCX_TILE_CONSTANT) {
			if (plan->tries_zstd)
				try_zstd(worker, level, plain, dst, tile);
			tile->checksum = wcx_checksum32(dst, tile->packed_bytes);
		}
		end = used + tile->packed_bytes;
		used = wcx_tile_align_up(end);
		memset(worker->dst + end, 0, used - end);
	}
	*bytes_ret = used;
	return WCX_OK;
}

/*
 * Decodes as many tiles from number `first` on as worker->decoded holds, at most VERIFIED_BYTES if there are several, and
 * returns how many: cores decode some tiles two at a time.  jobs have their results.
 */
static uint64_t decode_tiles(struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit, uint64_t first,
			     const uint8_t *packed, struct wcx_tile_job jobs[WCX_UNIT_TILES])
{
	uint64_t count = 0, bytes = 0, tile_bytes;

	for (; first + count < unit->tile_count; count++, bytes += tile_bytes) {
		const struct wcx_tile_info *tile = &worker->tiles[first + count];
		struct wcx_tile_dims dims;
		uint64_t offset;

		wcx_tensor_plan_tile(unit->plan, unit->first_tile + first + count, &dims, &offset);
		tile_bytes = wcx_tile_dims_bytes(&dims);
		if (count && bytes + tile_bytes > VERIFIED_BYTES)
			break;
		jobs[count] = (struct wcx_tile_job){
			.dims = tile->dims,
			.mode = tile->mode,
			.constant = tile->constant,
			.recipe = &unit->plan->segment.recipe,
			.src = packed,
			.src_bytes = tile->packed_bytes,
			.base = tile_base(worker, unit, offset),
			.dst = worker->decoded + bytes,
			.dst_bytes = tile_bytes,
		};
		packed += wcx_tile_align_up(tile->packed_bytes);
	}
	wcx_tiles_decode(jobs, count, worker->decode_scratch);
	return count;
}

/* Whether a decoded tile has these bytes. */
static bool tile_is_right(struct wcx_pack_worker *worker, struct wcx_tile_job *job, const uint8_t *src)
{
	if (job->mode == WCX_TILE_ZSTD) /* which the codec does not know */
		job->result = ZSTD_decompressDCtx(worker->unzstd, job->dst, job->dst_bytes, job->src, job->src_bytes) ==
					      job->dst_bytes
				      ? WCX_OK
				      : WCX_BAD_DATA;
	return job->result == WCX_OK && memcmp(job->dst, src, job->dst_bytes) == 0;
}

void wcx_pack_worker_verify(struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit, const uint8_t *src,
			    uint64_t *bad_tile_ret)
{
	struct wcx_tile_job jobs[WCX_UNIT_TILES];
	const uint8_t *packed = worker->dst;

	*bad_tile_ret = 0;
	while (*bad_tile_ret < unit->tile_count) {
		const uint64_t count = decode_tiles(worker, unit, *bad_tile_ret, packed, jobs);

		for (uint64_t i = 0; i < count; i++, ++*bad_tile_ret) {
			if (!tile_is_right(worker, &jobs[i], src))
				return;
			packed += wcx_tile_align_up(jobs[i].src_bytes);
			src += jobs[i].dst_bytes; /* the tiles of a unit follow each other there */
		}
	}
}
