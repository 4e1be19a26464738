/* SPDX-License-Identifier: MIT */
/* Restores tiles on the CPU. */
#include "codec/tile.h"

#include <stdlib.h>
#include <string.h>

#include "codec/le.h"
#include "codec/predict.h"
#include "codec/rans.h"

struct wcx_decode_scratch {
	struct wcx_freq_table freqs; /* what table was built from: neighbouring tiles mostly share it */
	struct wcx_rans_decode_table table;
	uint8_t plane[WCX_TILE_MAX_ELEMS];
};

struct wcx_decode_scratch *wcx_decode_scratch_create(void)
{
	return calloc(1, sizeof(struct wcx_decode_scratch));
}

void wcx_decode_scratch_free(struct wcx_decode_scratch *scratch)
{
	free(scratch);
}

size_t wcx_tile_shape_bytes(const struct wcx_tile_shape *shape)
{
	uint64_t elems = (uint64_t)shape->rows * shape->cols;
	uint32_t elem_bytes = shape->elem_bytes;

	if (elems == 0 || elems > WCX_TILE_MAX_ELEMS ||
	    (elem_bytes != 1 && elem_bytes != 2 && elem_bytes != 4 && elem_bytes != 8))
		return 0;
	return (size_t)elems * elem_bytes;
}

uint32_t wcx_tile_has_table(const struct wcx_tile_job *job)
{
	uint32_t has_table = 0;

	for (uint32_t p = 0; p < job->shape.elem_bytes; p++)
		has_table |= (uint32_t)(job->tables[p] != NULL) << p;
	return has_table;
}

static int plane_is_sound(const struct wcx_plane *plane, uint32_t elems, int has_table)
{
	switch (plane->coding) {
	case WCX_PLANE_STORED:
		return plane->predictor == WCX_PREDICT_NONE && plane->bytes == elems;
	case WCX_PLANE_CONSTANT:
		return plane->predictor == WCX_PREDICT_NONE && plane->bytes == 1;
	case WCX_PLANE_RANS:
		return has_table && plane->bytes >= WCX_RANS_STATE_BYTES && plane->bytes % 2 == 0;
	}
	return 0;
}

enum wcx_result wcx_tile_parse(const struct wcx_tile_shape *shape, uint32_t has_table, const uint8_t *src, size_t src_bytes,
			       struct wcx_plane planes[WCX_PLANES_MAX])
{
	size_t tile_bytes = wcx_tile_shape_bytes(shape);
	size_t offset = 4 * (size_t)shape->elem_bytes;

	if (!tile_bytes)
		return WCX_WRONG_SIZE;
	if (src_bytes < offset || src_bytes >= tile_bytes)
		return WCX_BAD_DATA;
	for (uint32_t p = 0; p < shape->elem_bytes; p++) {
		uint32_t header = wcx_le32_read(src + 4 * p);
		uint32_t coding = header & 3, bytes = header >> 8;

		if (coding > WCX_PLANE_CONSTANT || (header >> 4 & 15) != 0 || bytes > src_bytes - offset)
			return WCX_BAD_DATA;
		planes[p] = (struct wcx_plane){
			.coding = (enum wcx_plane_coding)coding,
			.predictor = (enum wcx_predictor)(header >> 2 & 3),
			.offset = (uint32_t)offset,
			.bytes = bytes,
		};
		if (!plane_is_sound(&planes[p], shape->rows * shape->cols, has_table >> p & 1))
			return WCX_BAD_DATA;
		offset += (bytes + 3) & ~3u;
		if (offset > src_bytes)
			return WCX_BAD_DATA;
	}
	return offset == src_bytes ? WCX_OK : WCX_BAD_DATA;
}

static enum wcx_result decode_rans_plane(const struct wcx_tile_job *job, const struct wcx_plane *plane,
					 const struct wcx_freq_table *freqs, struct wcx_decode_scratch *scratch,
					 uint8_t *dst)
{
	const struct wcx_tile_shape *shape = &job->shape;
	enum wcx_result result;

	if (memcmp(&scratch->freqs, freqs, sizeof *freqs) != 0) {
		wcx_rans_decode_table_build(freqs, &scratch->table);
		scratch->freqs = *freqs;
	}
	result = wcx_rans_decode(&scratch->table, job->src + plane->offset, plane->bytes, dst,
				 (size_t)shape->rows * shape->cols);
	if (result == WCX_OK)
		wcx_residuals_undo(plane->predictor, shape->rows, shape->cols, dst);
	return result;
}

/* Spreads a plane over the elements; with one byte an element the plane already is the tile. */
static void merge_plane(const uint8_t *plane, uint8_t *dst, size_t elems, size_t elem_bytes)
{
	for (size_t i = 0; i < elems; i++)
		dst[i * elem_bytes] = plane[i];
}

static enum wcx_result decode_coded(const struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	struct wcx_plane planes[WCX_PLANES_MAX];
	const uint32_t elem_bytes = job->shape.elem_bytes;
	const size_t elems = job->dst_bytes / elem_bytes;
	enum wcx_result result = wcx_tile_parse(&job->shape, wcx_tile_has_table(job), job->src, job->src_bytes, planes);

	for (uint32_t p = 0; p < elem_bytes && result == WCX_OK; p++) {
		const uint8_t *payload = job->src + planes[p].offset;
		uint8_t *target = elem_bytes == 1 ? job->dst : scratch->plane;

		switch (planes[p].coding) {
		case WCX_PLANE_STORED:
			merge_plane(payload, job->dst + p, elems, elem_bytes);
			continue;
		case WCX_PLANE_CONSTANT:
			memset(target, payload[0], elems);
			break;
		case WCX_PLANE_RANS:
			result = decode_rans_plane(job, &planes[p], job->tables[p], scratch, target);
			break;
		}
		if (elem_bytes > 1)
			merge_plane(target, job->dst + p, elems, elem_bytes);
	}
	return result;
}

static enum wcx_result decode_constant(const struct wcx_tile_job *job)
{
	uint8_t element[WCX_PLANES_MAX];
	size_t done = job->shape.elem_bytes;

	wcx_le64_write(element, job->constant);
	memcpy(job->dst, element, done);
	while (done < job->dst_bytes) { /* doubling what is there: many times faster than one by one */
		size_t more = done < job->dst_bytes - done ? done : job->dst_bytes - done;

		memcpy(job->dst + done, job->dst, more);
		done += more;
	}
	return WCX_OK;
}

enum wcx_result wcx_tile_decode(struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	size_t tile_bytes = wcx_tile_shape_bytes(&job->shape);

	job->result = WCX_BAD_DATA;
	if (!tile_bytes || job->dst_bytes != tile_bytes) {
		job->result = WCX_WRONG_SIZE;
		return job->result;
	}
	switch (job->mode) {
	case WCX_TILE_STORED:
		if (job->src_bytes == tile_bytes) {
			memcpy(job->dst, job->src, tile_bytes);
			job->result = WCX_OK;
		}
		break;
	case WCX_TILE_CODED:
		job->result = decode_coded(job, scratch);
		break;
	case WCX_TILE_CONSTANT:
		job->result = decode_constant(job);
		break;
	}
	return job->result;
}
