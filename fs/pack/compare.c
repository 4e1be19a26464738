/* SPDX-License-Identifier: MIT */
/* Packs a tensor with Zstandard and in the reference's scheme, for their sizes. */
#include "fs/pack/compare.h"

#include <errno.h>
#include <stdbool.h>
#include <zstd.h>

#include "codec/arith.h"
#include "fs/pack/pack_worker.h"

/* A tensor and the memory to pack it in either way. */
struct comparer {
	struct wcx_image *image;
	const struct wcx_tensor *tensor;
	const atomic_bool *stop;
	struct wcx_pack_worker worker;
};

static int no_memory(struct wcx_error *err)
{
	return wcx_fail(err, ENOMEM, "no memory for the comparison");
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

/* Feeds worker.src to the compressor, whose output may be larger than dst, and adds the size of that to *total. */
static int feed_zstd(struct wcx_pack_worker *worker, size_t bytes, bool is_last, uint64_t *total)
{
	ZSTD_inBuffer in = { worker->src, bytes, 0 };
	size_t left;

	do {
		ZSTD_outBuffer out = { worker->dst, WCX_UNIT_BYTES, 0 };

		left = ZSTD_compressStream2(worker->zstd, &out, &in, is_last ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return -ENOMEM;
		*total += out.pos;
	} while (is_last ? left > 0 : in.pos < in.size);
	return 0;
}

static int measure_zstd(struct comparer *c, uint64_t *bytes_ret, struct wcx_error *err)
{
	ZSTD_CCtx *zstd = c->worker.zstd;
	int r = 0;

	if (ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, WCX_COMPARE_ZSTD_LEVEL)) ||
	    ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(zstd, c->tensor->bytes)))
		return no_memory(err);
	for (uint64_t done = 0; r == 0 && done < c->tensor->bytes;) {
		size_t bytes = WCX_MIN(c->tensor->bytes - done, WCX_UNIT_BYTES);

		r = read_image(c, c->worker.src, bytes, c->tensor->offset + done, err);
		done += bytes;
		if (r == 0 && feed_zstd(&c->worker, bytes, done == c->tensor->bytes, bytes_ret) < 0)
			r = no_memory(err);
	}
	return r;
}

/* Reads and counts or encodes every tile: a unit of the reference's scheme. */
static int pass_tiles(struct comparer *c, struct wcx_tensor_plan *plan, bool encodes, uint64_t *bytes, struct wcx_error *err)
{
	const struct wcx_plan_reader reader = { .read = read_image, .user = c };
	int r = 0;

	for (uint64_t tile = 0; r == 0 && tile < plan->segment.tile_count; tile++) {
		struct wcx_pack_unit unit = wcx_pack_unit_make(plan, tile);
		uint64_t aligned_bytes;

		r = wcx_pack_unit_read(&unit, &reader, c->worker.src, err);
		if (r < 0)
			break;
		if (encodes) {
			r = wcx_result_errno(wcx_pack_worker_encode(&c->worker, &unit, c->worker.src, &aligned_bytes));
			*bytes += c->worker.tiles[0].packed_bytes;
		} else {
			r = wcx_result_errno(wcx_pack_worker_count(&c->worker, &unit, c->worker.src));
			wcx_plan_counts_add(plan, &c->worker.counts);
		}
		if (r < 0)
			wcx_fail(err, -r, "the plan of a tensor is not valid");
	}
	return r;
}

static int measure_reference(struct comparer *c, uint64_t *bytes_ret, struct wcx_error *err)
{
	static const struct wcx_table_library no_library;
	uint32_t first_table[WCX_FIELDS_MAX];
	struct wcx_tensor_plan plan;
	int r;

	wcx_tensor_plan_init(&plan, c->tensor->offset, c->tensor->bytes, c->tensor, false, true);
	r = wcx_tensor_plan_draft(&plan, &(struct wcx_plan_reader){ .read = read_image, .user = c }, c->worker.src, NULL,
				  err);
	if (r == -ENOMEM)
		no_memory(err);
	if (r == 0)
		r = pass_tiles(c, &plan, false, bytes_ret, err);
	if (r == 0) {
		wcx_tensor_plan_finish(&plan, &no_library, first_table);
		r = pass_tiles(c, &plan, true, bytes_ret, err);
	}
	wcx_tensor_plan_free(&plan);
	return r;
}

int wcx_compare_tensor(struct wcx_image *image, const struct wcx_tensor *tensor, const atomic_bool *stop,
		       struct wcx_comparison *ret, struct wcx_error *err)
{
	const struct wcx_pack_variants variants = wcx_pack_variants_choose();
	struct comparer c = { .image = image, .tensor = tensor, .stop = stop };
	int r = 0;

	*ret = (struct wcx_comparison){ 0 };
	if (!tensor->bytes)
		return 0;
	if (!wcx_pack_worker_open(&c.worker, &variants))
		r = no_memory(err);
	if (r == 0)
		r = measure_zstd(&c, &ret->zstd_bytes, err);
	if (r == 0)
		r = measure_reference(&c, &ret->reference_bytes, err);
	wcx_pack_worker_close(&c.worker);
	return r;
}
