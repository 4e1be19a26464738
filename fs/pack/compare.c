/* SPDX-License-Identifier: MIT */
/* Packs a tensor with Zstandard and in the reference's scheme, for their sizes. */
#include "fs/pack/compare.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "codec/arith.h"
#include "fs/pack/tensor_plan.h"

enum { BUFFER_BYTES = WCX_SAMPLES_MAX_BYTES };

/* A tensor on its way, with working memory for either way. */
struct comparer {
	struct wcx_image *image;
	const struct wcx_tensor *tensor;
	const atomic_bool *stop;
	uint8_t *src, *dst; /* BUFFER_BYTES: a piece of the tensor, a tile, or the samples */
	struct wcx_encode_scratch *scratch;
	struct wcx_plan_counts *counts;
};

static int no_memory(struct wcx_error *err)
{
	return wcx_fail(err, ENOMEM, "no memory to compare with others");
}

static int read_image(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const struct comparer *c = user;
	ssize_t n;

	if (c->stop && *c->stop)
		return wcx_fail(err, EINTR, "interrupted");
	n = wcx_image_read(c->image, dst, bytes, offset, err);
	return n < 0 ? (int)n : 0;
}

/* Feeds a piece to the compressor, which may have more to say than dst holds. */
static int feed_zstd(const struct comparer *c, ZSTD_CCtx *zstd, size_t bytes, bool is_last, uint64_t *total)
{
	ZSTD_inBuffer in = { c->src, bytes, 0 };
	size_t left;

	do {
		ZSTD_outBuffer out = { c->dst, BUFFER_BYTES, 0 };

		left = ZSTD_compressStream2(zstd, &out, &in, is_last ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return -ENOMEM;
		*total += out.pos;
	} while (is_last ? left > 0 : in.pos < in.size);
	return 0;
}

static int measure_zstd(const struct comparer *c, uint64_t *bytes_ret, struct wcx_error *err)
{
	ZSTD_CCtx *zstd = ZSTD_createCCtx();
	uint64_t done = 0;
	int r = 0;

	*bytes_ret = 0;
	if (!zstd || ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, WCX_COMPARE_ZSTD_LEVEL)) ||
	    ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(zstd, c->tensor->bytes)))
		r = no_memory(err);
	while (r == 0 && done < c->tensor->bytes) {
		uint64_t left = c->tensor->bytes - done;
		size_t bytes = WCX_MIN(left, BUFFER_BYTES);

		r = read_image(c, c->src, bytes, c->tensor->offset + done, err);
		done += bytes;
		if (r == 0 && feed_zstd(c, zstd, bytes, done == c->tensor->bytes, bytes_ret) < 0)
			r = no_memory(err);
	}
	ZSTD_freeCCtx(zstd);
	return r;
}

static int measure_reference(const struct comparer *c, uint64_t *bytes_ret, struct wcx_error *err)
{
	static const struct wcx_table_library no_library;
	const struct wcx_plan_reader reader = { read_image, c };
	uint32_t first_table[WCX_FIELDS_MAX];
	struct wcx_tile_dims dims;
	struct wcx_tensor_plan plan;
	uint64_t offset;
	int r;

	*bytes_ret = 0;
	memset(c->counts, 0, sizeof *c->counts);
	wcx_tensor_plan_init(&plan, c->tensor->offset, c->tensor->bytes, c->tensor, false, true);
	r = wcx_tensor_plan_draft(&plan, &reader, c->src, err);
	if (r == -ENOMEM)
		no_memory(err);
	for (uint64_t tile = 0; r == 0 && tile < plan.segment.tile_count; tile++) {
		r = wcx_tensor_plan_read_tile(&plan, tile, &reader, c->src, err);
		wcx_tensor_plan_tile(&plan, tile, &dims, &offset);
		if (r == 0)
			wcx_tensor_plan_count(&plan, &dims, c->src, c->scratch, c->counts);
	}
	if (r == 0) {
		wcx_plan_counts_add(&plan, c->counts);
		wcx_tensor_plan_finish(&plan, &no_library, first_table);
	}
	for (uint64_t tile = 0; r == 0 && tile < plan.segment.tile_count; tile++) {
		struct wcx_encoded_tile encoded;

		r = wcx_tensor_plan_read_tile(&plan, tile, &reader, c->src, err);
		if (r < 0)
			break;
		wcx_tensor_plan_tile(&plan, tile, &dims, &offset);
		wcx_tile_encode(&dims, c->src, &plan.segment.recipe, c->scratch, c->dst, &encoded);
		*bytes_ret += encoded.bytes;
	}
	wcx_tensor_plan_free(&plan);
	return r;
}

int wcx_compare_tensor(struct wcx_image *image, const struct wcx_tensor *tensor, const atomic_bool *stop,
		       struct wcx_comparison *ret, struct wcx_error *err)
{
	struct comparer c = { .image = image, .tensor = tensor, .stop = stop };
	int r = 0;

	*ret = (struct wcx_comparison){ 0 };
	if (!tensor->bytes)
		return 0;
	c.src = malloc(BUFFER_BYTES);
	c.dst = malloc(BUFFER_BYTES);
	c.scratch = wcx_encode_scratch_create();
	c.counts = malloc(sizeof *c.counts);
	if (!c.src || !c.dst || !c.scratch || !c.counts)
		r = no_memory(err);
	if (r == 0)
		r = measure_zstd(&c, &ret->zstd_bytes, err);
	if (r == 0)
		r = measure_reference(&c, &ret->reference_bytes, err);
	free(c.src);
	free(c.dst);
	wcx_encode_scratch_free(c.scratch);
	free(c.counts);
	return r;
}
