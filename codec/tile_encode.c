/* SPDX-License-Identifier: MIT */
/* Packs tiles. */
#include "codec/tile.h"

#include <stdlib.h>
#include <string.h>

#include "codec/le.h"
#include "codec/predict.h"
#include "codec/rans.h"

struct wcx_encode_scratch {
	struct {
		struct wcx_freq_table freqs; /* what table was built from: the tiles of a tensor share it */
		struct wcx_rans_encode_table table;
	} planes[WCX_PLANES_MAX];
	uint8_t plane[WCX_TILE_MAX_ELEMS];
	uint8_t residual[WCX_TILE_MAX_ELEMS];
	uint16_t words[WCX_TILE_MAX_ELEMS];
};

struct wcx_encode_scratch *wcx_encode_scratch_create(void)
{
	return calloc(1, sizeof(struct wcx_encode_scratch));
}

void wcx_encode_scratch_free(struct wcx_encode_scratch *scratch)
{
	free(scratch);
}

/* The plane's bytes: where they lie if an element is one byte, else gathered into scratch. */
static const uint8_t *gather_plane(const struct wcx_tile_shape *shape, const uint8_t *src, uint32_t plane,
				   struct wcx_encode_scratch *scratch)
{
	size_t elems = (size_t)shape->rows * shape->cols;

	if (shape->elem_bytes == 1)
		return src;
	for (size_t i = 0; i < elems; i++)
		scratch->plane[i] = src[i * shape->elem_bytes + plane];
	return scratch->plane;
}

static const uint8_t *residuals_of(const struct wcx_tile_shape *shape, const uint8_t *plane, enum wcx_predictor predictor,
				   struct wcx_encode_scratch *scratch)
{
	if (predictor == WCX_PREDICT_NONE)
		return plane;
	wcx_residuals_make(predictor, shape->rows, shape->cols, plane, scratch->residual);
	return scratch->residual;
}

void wcx_tile_count_residuals(const struct wcx_tile_shape *shape, const uint8_t *src, uint32_t plane,
			      enum wcx_predictor predictor, struct wcx_encode_scratch *scratch,
			      uint64_t count[WCX_SYMBOL_COUNT])
{
	/* Four histograms, since equal bytes in a row would wait for each other's increment. */
	uint32_t partial[4][WCX_SYMBOL_COUNT] = { { 0 } };
	size_t elems = (size_t)shape->rows * shape->cols, i = 0;
	const uint8_t *symbols = residuals_of(shape, gather_plane(shape, src, plane, scratch), predictor, scratch);

	for (; i + 4 <= elems; i += 4)
		for (size_t j = 0; j < 4; j++)
			partial[j][symbols[i + j]]++;
	for (; i < elems; i++)
		partial[0][symbols[i]]++;
	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		count[s] += (uint64_t)partial[0][s] + partial[1][s] + partial[2][s] + partial[3][s];
}

/* Whether all of bytes repeat the first `period` of them. */
static int is_periodic(const uint8_t *src, size_t bytes, size_t period)
{
	return memcmp(src, src + period, bytes - period) == 0;
}

static size_t encode_rans_plane(const struct wcx_tile_shape *shape, const uint8_t *plane, const struct wcx_plane_plan *plan,
				uint32_t p, struct wcx_encode_scratch *scratch, uint8_t *dst, size_t room)
{
	const uint8_t *symbols = residuals_of(shape, plane, plan->predictor, scratch);

	if (memcmp(&scratch->planes[p].freqs, &plan->table, sizeof plan->table) != 0) {
		wcx_rans_encode_table_build(&plan->table, &scratch->planes[p].table);
		scratch->planes[p].freqs = plan->table;
	}
	return wcx_rans_encode(&scratch->planes[p].table, symbols, (size_t)shape->rows * shape->cols, scratch->words, dst,
			       room);
}

/* Writes one plane's payload into room bytes at dst; returns its size with padding, or 0 when it does not fit. */
static size_t encode_plane(const struct wcx_tile_shape *shape, const uint8_t *src, const struct wcx_plane_plan *plan,
			   uint32_t p, struct wcx_encode_scratch *scratch, uint8_t *header, uint8_t *dst, size_t room)
{
	size_t elems = (size_t)shape->rows * shape->cols, bytes = 0, padded;
	const uint8_t *plane = gather_plane(shape, src, p, scratch);
	enum wcx_plane_coding coding = WCX_PLANE_STORED;
	enum wcx_predictor predictor = WCX_PREDICT_NONE;

	if (is_periodic(plane, elems, 1)) {
		coding = WCX_PLANE_CONSTANT;
		bytes = 1;
	} else if (plan[p].coding == WCX_PLANE_RANS) {
		bytes = encode_rans_plane(shape, plane, &plan[p], p, scratch, dst, elems - 1 < room ? elems - 1 : room);
		if (bytes) {
			coding = WCX_PLANE_RANS;
			predictor = plan[p].predictor;
		}
	}
	if (coding == WCX_PLANE_STORED)
		bytes = elems;
	padded = (bytes + 3) & ~(size_t)3;
	if (padded > room)
		return 0;
	if (coding != WCX_PLANE_RANS)
		memcpy(dst, plane, bytes);
	memset(dst + bytes, 0, padded - bytes);
	wcx_le32_write(header, (uint32_t)coding | (uint32_t)predictor << 2 | (uint32_t)bytes << 8);
	return padded;
}

/* The size of the coded tile, or 0 when it would not be smaller than the tile as it is. */
static size_t encode_coded(const struct wcx_tile_shape *shape, const uint8_t *src, size_t tile_bytes,
			   const struct wcx_plane_plan *plan, struct wcx_encode_scratch *scratch, uint8_t *dst)
{
	size_t used = 4 * (size_t)shape->elem_bytes;

	for (uint32_t p = 0; p < shape->elem_bytes; p++) {
		size_t plane_bytes = 0;

		if (used < tile_bytes - 1)
			plane_bytes =
				encode_plane(shape, src, plan, p, scratch, dst + 4 * p, dst + used, tile_bytes - 1 - used);
		if (!plane_bytes)
			return 0;
		used += plane_bytes;
	}
	return used;
}

enum wcx_result wcx_tile_encode(const struct wcx_tile_shape *shape, const uint8_t *src,
				const struct wcx_plane_plan plan[WCX_PLANES_MAX], struct wcx_encode_scratch *scratch,
				uint8_t *dst, enum wcx_tile_mode *mode_ret, size_t *bytes_ret, uint64_t *constant_ret)
{
	size_t tile_bytes = wcx_tile_shape_bytes(shape), coded_bytes;
	uint8_t element[WCX_PLANES_MAX] = { 0 };

	if (!tile_bytes)
		return WCX_WRONG_SIZE;
	*constant_ret = 0;
	if (is_periodic(src, tile_bytes, shape->elem_bytes)) {
		memcpy(element, src, shape->elem_bytes);
		*constant_ret = wcx_le64_read(element);
		*mode_ret = WCX_TILE_CONSTANT;
		*bytes_ret = 0;
		return WCX_OK;
	}
	coded_bytes = encode_coded(shape, src, tile_bytes, plan, scratch, dst);
	if (coded_bytes) {
		*mode_ret = WCX_TILE_CODED;
		*bytes_ret = coded_bytes;
	} else {
		memcpy(dst, src, tile_bytes);
		*mode_ret = WCX_TILE_STORED;
		*bytes_ret = tile_bytes;
	}
	return WCX_OK;
}
