/* SPDX-License-Identifier: MIT */
/* Turns tile jobs into what the GPU works on. */
#include "cuda/tile_batch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { WCX_BATCH_SRC_ALIGN = 16 };

struct wcx_batch_tile {
	struct wcx_tile_job *job;
	uint32_t src_offset, dst_offset;
};

struct wcx_tile_batch {
	struct wcx_batch_limits limits;
	uint32_t tile_count, item_count, table_count, src_bytes, dst_bytes;
	struct wcx_batch_tile *tiles;
	struct wcx_plane_item *items; /* in the order of the tiles */
	uint32_t *slot;               /* of an item; set by write */
	const struct wcx_freq_table **tables;
	uint32_t *group_items; /* how many items each group has; those without a table are group 0 */
	uint32_t *group_slot;  /* working memory of write */
	struct wcx_decode_scratch *scratch;
};

/* Items with the same table, and those without one, form a group; its number is what WCX_NO_TABLE + 1 wraps round to. */
static uint32_t group_of(const struct wcx_plane_item *item)
{
	return item->table + 1;
}

static uint32_t align_up(uint32_t value, uint32_t align)
{
	return (value + align - 1) / align * align;
}

static struct wcx_batch_layout layout_of(uint32_t slots, uint32_t tables, uint32_t src_bytes, uint32_t dst_bytes)
{
	struct wcx_batch_layout layout;

	layout.slots = slots;
	layout.tables_offset = slots * sizeof(struct wcx_plane_item);
	layout.src_offset = layout.tables_offset + tables * sizeof(struct wcx_freq_table);
	layout.upload_bytes = layout.src_offset + src_bytes;
	layout.dst_offset = align_up(slots * (uint32_t)sizeof(uint32_t), WCX_BATCH_DST_ALIGN);
	layout.download_bytes = layout.dst_offset + dst_bytes;
	return layout;
}

struct wcx_batch_layout wcx_tile_batch_capacity(const struct wcx_batch_limits *limits)
{
	uint32_t slots = limits->items + (limits->tables + 1) * (WCX_BLOCK_ITEMS - 1);

	return layout_of(align_up(slots, WCX_BLOCK_ITEMS), limits->tables, limits->src_bytes, limits->dst_bytes);
}

struct wcx_tile_batch *wcx_tile_batch_create(const struct wcx_batch_limits *limits)
{
	struct wcx_tile_batch *batch = calloc(1, sizeof *batch);

	if (!batch)
		return NULL;
	batch->limits = *limits;
	batch->tiles = calloc(limits->items, sizeof *batch->tiles);
	batch->items = calloc(limits->items, sizeof *batch->items);
	batch->slot = calloc(limits->items, sizeof *batch->slot);
	batch->tables = calloc(limits->tables, sizeof *batch->tables);
	batch->group_items = calloc((size_t)limits->tables + 1, sizeof *batch->group_items);
	batch->group_slot = calloc((size_t)limits->tables + 1, sizeof *batch->group_slot);
	batch->scratch = wcx_decode_scratch_create();
	if (batch->tiles && batch->items && batch->slot && batch->tables && batch->group_items && batch->group_slot &&
	    batch->scratch)
		return batch;
	wcx_tile_batch_free(batch);
	return NULL;
}

void wcx_tile_batch_free(struct wcx_tile_batch *batch)
{
	if (!batch)
		return;
	free(batch->tiles);
	free(batch->items);
	free(batch->slot);
	free(batch->tables);
	free(batch->group_items);
	free(batch->group_slot);
	wcx_decode_scratch_free(batch->scratch);
	free(batch);
}

/* From the latest table backwards, since neighbouring tiles mostly share theirs. */
static uint32_t table_number(struct wcx_tile_batch *batch, const struct wcx_freq_table *table)
{
	for (uint32_t number = batch->table_count; number > 0; number--)
		if (batch->tables[number - 1] == table)
			return number - 1;
	batch->tables[batch->table_count] = table;
	batch->group_items[batch->table_count + 1] = 0;
	return batch->table_count++;
}

static void add_plane(struct wcx_tile_batch *batch, const struct wcx_tile_job *job, uint32_t p,
		      const struct wcx_plane *plane)
{
	struct wcx_plane_item *item = &batch->items[batch->item_count++];

	item->src_offset = batch->src_bytes + plane->offset;
	item->src_bytes = plane->bytes;
	item->dst_offset = batch->dst_bytes;
	item->rows = job->shape.rows;
	item->cols = job->shape.cols;
	item->table = plane->coding == WCX_PLANE_RANS ? table_number(batch, job->tables[p]) : WCX_NO_TABLE;
	item->tile = batch->tile_count;
	item->elem_bytes = (uint8_t)job->shape.elem_bytes;
	item->plane = (uint8_t)p;
	item->coding = (uint8_t)plane->coding;
	item->predictor = (uint8_t)plane->predictor;
	batch->group_items[group_of(item)]++;
}

/* False when there is no room left for the job's tile, which is smaller packed than decoded. */
static bool add_coded_job(struct wcx_tile_batch *batch, struct wcx_tile_job *job)
{
	const struct wcx_batch_limits *limits = &batch->limits;
	const uint32_t elem_bytes = job->shape.elem_bytes;
	struct wcx_plane planes[WCX_PLANES_MAX];
	uint32_t src_bytes, dst_bytes;
	enum wcx_result result = wcx_tile_parse(&job->shape, wcx_tile_has_table(job), job->src, job->src_bytes, planes);

	if (result != WCX_OK) {
		job->result = result;
		return true;
	}
	src_bytes = align_up((uint32_t)job->src_bytes, WCX_BATCH_SRC_ALIGN);
	dst_bytes = align_up((uint32_t)job->dst_bytes, WCX_BATCH_DST_ALIGN);
	if (limits->items - batch->item_count < elem_bytes || limits->tables - batch->table_count < elem_bytes ||
	    limits->src_bytes - batch->src_bytes < src_bytes || limits->dst_bytes - batch->dst_bytes < dst_bytes)
		return false;
	for (uint32_t p = 0; p < elem_bytes; p++)
		add_plane(batch, job, p, &planes[p]);
	batch->tiles[batch->tile_count++] = (struct wcx_batch_tile){ job, batch->src_bytes, batch->dst_bytes };
	batch->src_bytes += src_bytes;
	batch->dst_bytes += dst_bytes;
	return true;
}

size_t wcx_tile_batch_fill(struct wcx_tile_batch *batch, struct wcx_tile_job *jobs, size_t job_count)
{
	size_t i;

	batch->tile_count = batch->item_count = batch->table_count = batch->src_bytes = batch->dst_bytes = 0;
	batch->group_items[0] = 0;
	for (i = 0; i < job_count; i++) {
		size_t tile_bytes = wcx_tile_shape_bytes(&jobs[i].shape);

		if (jobs[i].mode != WCX_TILE_CODED || !tile_bytes || jobs[i].dst_bytes != tile_bytes)
			wcx_tile_decode(&jobs[i], batch->scratch);
		else if (!add_coded_job(batch, &jobs[i]))
			break;
	}
	return i;
}

struct wcx_batch_layout wcx_tile_batch_layout(const struct wcx_tile_batch *batch)
{
	uint32_t slots = 0;

	for (uint32_t group = 0; group <= batch->table_count; group++)
		slots += align_up(batch->group_items[group], WCX_BLOCK_ITEMS);
	return layout_of(slots, batch->table_count, batch->src_bytes, batch->dst_bytes);
}

/* Sorts the items by group, each group at the start of a block; slots in between stay without rows. */
static void write_items(struct wcx_tile_batch *batch, uint32_t slots, struct wcx_plane_item *dst)
{
	uint32_t start = 0;

	memset(dst, 0, slots * sizeof *dst);
	for (uint32_t group = 0; group <= batch->table_count; group++) {
		batch->group_slot[group] = start;
		start += align_up(batch->group_items[group], WCX_BLOCK_ITEMS);
	}
	for (uint32_t i = 0; i < batch->item_count; i++) {
		batch->slot[i] = batch->group_slot[group_of(&batch->items[i])]++;
		dst[batch->slot[i]] = batch->items[i];
	}
}

void wcx_tile_batch_write(struct wcx_tile_batch *batch, uint8_t *upload)
{
	struct wcx_batch_layout layout = wcx_tile_batch_layout(batch);

	write_items(batch, layout.slots, (struct wcx_plane_item *)(void *)upload);
	for (uint32_t t = 0; t < batch->table_count; t++)
		memcpy(upload + layout.tables_offset + t * sizeof **batch->tables, batch->tables[t], sizeof **batch->tables);
	for (uint32_t t = 0; t < batch->tile_count; t++) {
		const struct wcx_batch_tile *tile = &batch->tiles[t];

		memcpy(upload + layout.src_offset + tile->src_offset, tile->job->src, tile->job->src_bytes);
	}
}

void wcx_tile_batch_finish(struct wcx_tile_batch *batch, const uint32_t *status, const uint8_t *dst)
{
	for (uint32_t t = 0; t < batch->tile_count; t++)
		batch->tiles[t].job->result = WCX_OK;
	for (uint32_t i = 0; i < batch->item_count; i++)
		if (status[batch->slot[i]] != WCX_OK)
			batch->tiles[batch->items[i].tile].job->result = WCX_BAD_DATA;
	for (uint32_t t = 0; t < batch->tile_count; t++) {
		const struct wcx_batch_tile *tile = &batch->tiles[t];

		if (tile->job->result == WCX_OK)
			memcpy(tile->job->dst, dst + tile->dst_offset, tile->job->dst_bytes);
	}
}
