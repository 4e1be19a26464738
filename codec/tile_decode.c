/* SPDX-License-Identifier: MIT */
/* Restores tiles on the CPU. */
#include "codec/tile.h"

#include <stdlib.h>
#include <string.h>

#include "codec/element.h"
#include "codec/le.h"
#include "codec/rans.h"
#include "codec/raw_plane.h"

enum { CACHED_TABLES = 8 }; /* WCX_FIELD_TABLES_MAX at least; neighbouring tiles mostly share theirs */

struct wcx_decode_scratch {
	struct {
		struct wcx_freq_table freqs; /* what table was built from */
		struct wcx_rans_decode_table table;
	} cached[CACHED_TABLES];
	uint32_t next_victim;
	uint8_t carried[WCX_CARRIED_BYTES];
	uint8_t values[WCX_TILE_MAX_ELEMS];
	uint8_t part[WCX_TILE_MAX_ELEMS * 4]; /* that ends with what was carried */
};

struct wcx_decode_scratch *wcx_decode_scratch_create(void)
{
	return calloc(1, sizeof(struct wcx_decode_scratch));
}

void wcx_decode_scratch_free(struct wcx_decode_scratch *scratch)
{
	free(scratch);
}

/* The decoding table of these frequencies; those in use, a bit each, stay as they are. */
static const struct wcx_rans_decode_table *cached_table(struct wcx_decode_scratch *scratch,
							const struct wcx_freq_table *freqs, uint32_t *in_use)
{
	uint32_t i = 0;

	while (i < CACHED_TABLES && memcmp(&scratch->cached[i].freqs, freqs, sizeof *freqs) != 0)
		i++;
	if (i == CACHED_TABLES) {
		do {
			i = scratch->next_victim;
			scratch->next_victim = (i + 1) % CACHED_TABLES;
		} while (*in_use >> i & 1);
		scratch->cached[i].freqs = *freqs;
		wcx_rans_decode_table_build(freqs, &scratch->cached[i].table);
	}
	*in_use |= 1u << i;
	return &scratch->cached[i].table;
}

static enum wcx_result decode_field(const struct wcx_tile_job *job, const struct wcx_coded_field *coded, uint32_t elems,
				    uint8_t *carried, struct wcx_decode_scratch *scratch)
{
	const struct wcx_recipe *recipe = job->recipe;
	const struct wcx_field *field = &recipe->fields[coded->field];
	const struct wcx_rans_decode_table *tables[WCX_FIELD_TABLES_MAX];
	struct wcx_rans_choices choices = {
		.packed = job->src + coded->offset - wcx_choices_bytes(recipe, field, elems),
		.bits = wcx_choice_bits(field),
		.run = recipe->run,
	};
	uint32_t in_use = 0;
	enum wcx_result result;

	for (uint32_t t = 0; t < field->table_count; t++)
		tables[t] = cached_table(scratch, &field->tables[t], &in_use);
	result = wcx_rans_decode(tables, &choices, job->src + coded->offset, coded->bytes, scratch->values, elems, carried);
	if (result == WCX_OK) {
		const struct wcx_element_ops *ops = wcx_element_ops(recipe->elem_bytes);

		if (field->width <= 8)
			ops->put8(scratch->values, elems, coded->shift, job->dst);
		else
			ops->put_symbols(scratch->values, elems, field->base, coded->shift, job->dst);
	}
	return result;
}

/* Puts a raw plane into the elements; src has all of it. */
static void merge_plane(const struct wcx_raw_plane *plane, const uint8_t *src, uint32_t elems,
			const struct wcx_element_ops *ops, struct wcx_decode_scratch *scratch, uint8_t *dst)
{
	switch (plane->width) {
	case 32:
		ops->put32(src, elems, plane->shift, dst);
		break;
	case 16:
		ops->put16(src, elems, plane->shift, dst);
		break;
	case 8:
		ops->put8(src, elems, plane->shift, dst);
		break;
	default:
		wcx_raw_plane_unpack(src, elems, plane->width, scratch->values);
		ops->put8(scratch->values, elems, plane->shift, dst);
	}
}

/* A part of the tile with what the states carry of it at its end: bytes in all. */
static const uint8_t *whole_part(const uint8_t *part, uint32_t bytes, uint32_t carried, struct wcx_decode_scratch *scratch)
{
	if (!carried)
		return part;
	memcpy(scratch->part, part, bytes - carried);
	memcpy(scratch->part + bytes - carried, scratch->carried, carried);
	return scratch->part;
}

static void merge_planes(const struct wcx_tile_job *job, const struct wcx_tile_layout *layout, uint32_t elems,
			 struct wcx_decode_scratch *scratch)
{
	const struct wcx_element_ops *ops = wcx_element_ops(job->recipe->elem_bytes);

	for (uint32_t i = 0; i < layout->plane_count; i++) {
		const struct wcx_raw_plane *plane = &layout->planes[i];
		uint32_t carried = i + 1 == layout->plane_count ? layout->plane_carried : 0;
		const uint8_t *src =
			whole_part(job->src + plane->offset, wcx_raw_plane_bytes(elems, plane->width), carried, scratch);

		merge_plane(plane, src, elems, ops, scratch, job->dst);
	}
}

/* Puts the exceptions in the place of what the carrier's symbols have left; positions must ascend. */
static enum wcx_result put_exceptions(const struct wcx_tile_job *job, const struct wcx_tile_layout *layout, uint32_t elems,
				      struct wcx_decode_scratch *scratch)
{
	const struct wcx_coded_field *carrier = &layout->coded[layout->coded_count - 1];
	const uint32_t width = job->recipe->fields[carrier->field].width;
	const uint8_t *positions =
		whole_part(job->src + layout->exception_offset, layout->exception_bytes, layout->exception_carried, scratch);
	const uint8_t *values = positions + 2 * layout->exception_count;
	uint32_t after = 0;

	for (uint32_t i = 0; i < layout->exception_count; i++) {
		uint32_t position = wcx_le16_read(positions + 2 * i);
		uint32_t value = width <= 8 ? values[i] : wcx_le16_read(values + 2 * i);

		if (position < after || position >= elems || value >> width)
			return WCX_BAD_DATA;
		wcx_element_ops(job->recipe->elem_bytes)->replace(job->dst, position, carrier->shift, width, value);
		after = position + 1;
	}
	return WCX_OK;
}

static enum wcx_result decode_coded(const struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	const struct wcx_recipe *recipe = job->recipe;
	const struct wcx_element_ops *ops = wcx_element_ops(recipe->elem_bytes);
	const uint32_t elems = job->shape.rows * job->shape.cols;
	struct wcx_tile_layout layout;
	enum wcx_result result = wcx_tile_parse(&job->shape, recipe, job->src, job->src_bytes, &layout);

	if (result != WCX_OK)
		return result;
	ops->fill(job->dst, elems, layout.constant_bits);
	for (uint32_t i = 0; i < layout.coded_count && result == WCX_OK; i++) {
		int carries = i + 1 == layout.coded_count && layout.plane_carried + layout.exception_carried > 0;

		result = decode_field(job, &layout.coded[i], elems, carries ? scratch->carried : NULL, scratch);
	}
	if (result == WCX_OK && layout.exception_count)
		result = put_exceptions(job, &layout, elems, scratch);
	if (result != WCX_OK)
		return result;
	merge_planes(job, &layout, elems, scratch);
	if (recipe->predictor != WCX_PREDICT_NONE)
		ops->undo_residuals((enum wcx_predictor)recipe->predictor, job->shape.rows, job->shape.cols, job->dst);
	ops->rotate_back(job->dst, elems, recipe->rotation);
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
		wcx_element_ops(job->shape.elem_bytes)->fill(job->dst, tile_bytes / job->shape.elem_bytes, job->constant);
		job->result = WCX_OK;
		break;
	case WCX_TILE_ZSTD:
	case WCX_TILE_MODE_COUNT:
		break;
	}
	return job->result;
}
