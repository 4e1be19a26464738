/* SPDX-License-Identifier: MIT */
/* Turns tile jobs into what the GPU works on. */
#include "cuda/tile_batch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "codec/rans.h"
#include "codec/raw_plane.h"

enum { WCX_BATCH_SRC_ALIGN = 16 };

/* The tables of one or more fields. */
struct wcx_table_set {
	const struct wcx_freq_table *tables;
	uint32_t table_count;
	uint32_t first; /* number in the batch */
};

/* Tiles whose elements have the same size and whose carriers have the same tables: only they share blocks. */
struct wcx_item_group {
	uint32_t first_table; /* WCX_NO_TABLE where there is no carrier */
	uint8_t elem_bytes, table_count;
	uint32_t items, first_slot;
};

#define WCX_NO_TABLE UINT32_MAX

struct wcx_batch_tile {
	struct wcx_tile_job *job;
	uint32_t group, number; /* which of the group's items */
};

struct wcx_tile_batch {
	struct wcx_batch_limits limits;
	struct wcx_batch_layout layout;
	uint32_t item_count, set_count, table_count, group_count, src_bytes, dst_bytes;
	struct wcx_batch_tile *tiles; /* one for each item */
	struct wcx_tile_item *items;
	struct wcx_table_set *sets;
	struct wcx_item_group *groups;
	struct wcx_decode_scratch *scratch;
};

static uint32_t align_up(uint32_t value, uint32_t align)
{
	return (value + align - 1) / align * align;
}

static void place_parts(uint32_t tables, uint32_t src_bytes, uint32_t dst_bytes, struct wcx_batch_layout *layout)
{
	layout->slots_offset = layout->items * sizeof(struct wcx_tile_item);
	layout->tables_offset = layout->slots_offset + layout->slots * sizeof(uint32_t);
	layout->src_offset = layout->tables_offset + tables * sizeof(struct wcx_batch_table);
	layout->src_offset = (layout->src_offset + WCX_BATCH_SRC_ALIGN - 1) / WCX_BATCH_SRC_ALIGN * WCX_BATCH_SRC_ALIGN;
	layout->upload_bytes = layout->src_offset + src_bytes + WCX_BATCH_SRC_SLACK;
	layout->dst_offset = align_up(layout->items * (uint32_t)sizeof(uint32_t), WCX_BATCH_DST_ALIGN);
	layout->download_bytes = layout->dst_offset + dst_bytes;
}

struct wcx_batch_layout wcx_tile_batch_capacity(const struct wcx_batch_limits *limits)
{
	struct wcx_batch_layout layout = { .items = limits->items };

	layout.slots = limits->items + limits->tables * (WCX_BLOCK_MAX_ITEMS - 1);
	place_parts(limits->tables, limits->src_bytes, limits->dst_bytes, &layout);
	return layout;
}

struct wcx_tile_batch *wcx_tile_batch_create(const struct wcx_batch_limits *limits)
{
	struct wcx_tile_batch *batch = calloc(1, sizeof *batch);

	if (!batch)
		return NULL;
	batch->limits = *limits;
	batch->tiles = calloc(limits->items, sizeof *batch->tiles);
	batch->items = calloc(limits->items, sizeof *batch->items);
	batch->sets = calloc(limits->tables, sizeof *batch->sets);
	batch->groups = calloc(limits->tables, sizeof *batch->groups);
	batch->scratch = wcx_decode_scratch_create();
	if (batch->tiles && batch->items && batch->sets && batch->groups && batch->scratch)
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
	free(batch->sets);
	free(batch->groups);
	wcx_decode_scratch_free(batch->scratch);
	free(batch);
}

/* The number of a field's first table.  From the latest set backwards, since neighbouring tiles mostly share theirs. */
static uint32_t first_table(struct wcx_tile_batch *batch, const struct wcx_field *field)
{
	struct wcx_table_set *set;

	for (uint32_t i = batch->set_count; i > 0; i--) {
		set = &batch->sets[i - 1];
		if (set->tables == field->tables && set->table_count == field->table_count)
			return set->first;
	}
	set = &batch->sets[batch->set_count++];
	*set = (struct wcx_table_set){ field->tables, field->table_count, batch->table_count };
	batch->table_count += field->table_count;
	return set->first;
}

static uint32_t group_number(struct wcx_tile_batch *batch, const struct wcx_item_group *wanted)
{
	for (uint32_t i = batch->group_count; i > 0; i--) {
		const struct wcx_item_group *group = &batch->groups[i - 1];

		if (group->first_table == wanted->first_table && group->elem_bytes == wanted->elem_bytes)
			return i - 1;
	}
	batch->groups[batch->group_count] = *wanted;
	return batch->group_count++;
}

/* The group is that of the carrier, the last coded field. */
static void add_fields(struct wcx_tile_batch *batch, const struct wcx_recipe *recipe, struct wcx_tile_item *item,
		       struct wcx_batch_tile *tile)
{
	struct wcx_item_group group = { .first_table = WCX_NO_TABLE, .elem_bytes = recipe->elem_bytes, .table_count = 1 };

	for (uint32_t i = 0; i < item->layout.coded_count; i++) {
		const struct wcx_field *field = &recipe->fields[item->layout.coded[i].field];

		group.first_table = first_table(batch, field);
		group.table_count = field->table_count;
		item->coded[i].table = group.first_table;
		item->coded[i].base = field->base;
		item->coded[i].width = field->width;
		item->coded[i].choice_bits = (uint8_t)wcx_choice_bits(field);
	}
	tile->group = group_number(batch, &group);
	tile->number = batch->groups[tile->group].items++;
}

static uint8_t low_bits_of(const struct wcx_tile_layout *layout)
{
	uint32_t bits = 0, last_width = UINT32_MAX;

	for (uint32_t p = 0; p < layout->plane_count; p++) {
		if (layout->planes[p].shift != bits || layout->planes[p].width >= last_width)
			return WCX_NOT_LOW;
		last_width = layout->planes[p].width;
		bits += last_width;
	}
	if (!layout->coded_count || layout->constant_bits || layout->coded[layout->coded_count - 1].shift != bits)
		return WCX_NOT_LOW;
	return (uint8_t)bits;
}

static uint32_t whole_groups_of(const struct wcx_tile_layout *layout, uint32_t elems)
{
	uint32_t groups = layout->coded_count ? elems / WCX_RANS_GROUP : 0;

	if (layout->plane_carried) {
		uint32_t width = layout->planes[layout->plane_count - 1].width;
		uint32_t stored = wcx_raw_plane_bytes(elems, width) - layout->plane_carried;
		uint32_t stored_groups = stored / wcx_raw_plane_bytes(WCX_RANS_GROUP, width);

		groups = stored_groups < groups ? stored_groups : groups;
	}
	return groups;
}

/* False when there is no room left for the job's tile, which is smaller packed than decoded. */
static bool add_coded_job(struct wcx_tile_batch *batch, struct wcx_tile_job *job)
{
	const struct wcx_batch_limits *limits = &batch->limits;
	uint32_t src_bytes, dst_bytes = align_up((uint32_t)job->dst_bytes, WCX_BATCH_DST_ALIGN);
	struct wcx_tile_item *item = &batch->items[batch->item_count];
	enum wcx_result result;

	if (limits->items == batch->item_count || limits->tables - batch->table_count < WCX_TILE_TABLES_MAX ||
	    limits->tables == batch->group_count || limits->dst_bytes - batch->dst_bytes < dst_bytes)
		return false;
	result = wcx_tile_parse(&job->shape, job->recipe, job->src, job->src_bytes, &item->layout);
	if (result != WCX_OK) {
		job->result = result;
		return true;
	}
	src_bytes = align_up((uint32_t)job->src_bytes, WCX_BATCH_SRC_ALIGN);
	if (limits->src_bytes - batch->src_bytes < src_bytes)
		return false;
	item->src_offset = batch->src_bytes;
	item->dst_offset = batch->dst_bytes;
	item->rows = job->shape.rows;
	item->cols = job->shape.cols;
	item->run_groups = (job->recipe->run ? job->recipe->run : (uint32_t)WCX_TILE_MAX_ELEMS) / WCX_RANS_GROUP;
	item->whole_groups = whole_groups_of(&item->layout, item->rows * item->cols);
	item->rotation = job->recipe->rotation;
	item->predictor = job->recipe->predictor;
	item->low_bits = low_bits_of(&item->layout);
	batch->tiles[batch->item_count].job = job;
	add_fields(batch, job->recipe, item, &batch->tiles[batch->item_count++]);
	batch->src_bytes += src_bytes;
	batch->dst_bytes += dst_bytes;
	return true;
}

/* Gives the groups of one launch their slots, each group at the start of a block. */
static void place_launch(struct wcx_tile_batch *batch, uint8_t elem_bytes, uint8_t table_count)
{
	struct wcx_batch_layout *layout = &batch->layout;
	struct wcx_batch_launch launch = { .first_slot = layout->slots,
					   .elem_bytes = elem_bytes,
					   .table_count = table_count };

	for (uint32_t i = 0; i < batch->group_count; i++) {
		struct wcx_item_group *group = &batch->groups[i];

		if (group->elem_bytes != elem_bytes || group->table_count != table_count)
			continue;
		group->first_slot = launch.first_slot + launch.slots;
		launch.slots += align_up(group->items, wcx_block_items(table_count));
	}
	if (launch.slots == 0)
		return;
	layout->slots += launch.slots;
	layout->launches[layout->launch_count++] = launch;
}

size_t wcx_tile_batch_fill(struct wcx_tile_batch *batch, struct wcx_tile_job *jobs, size_t job_count)
{
	size_t i;

	batch->item_count = batch->set_count = batch->table_count = batch->group_count = batch->src_bytes =
		batch->dst_bytes = 0;
	for (i = 0; i < job_count; i++) {
		size_t tile_bytes = wcx_tile_shape_bytes(&jobs[i].shape);

		if (jobs[i].mode != WCX_TILE_CODED || !tile_bytes || jobs[i].dst_bytes != tile_bytes)
			wcx_tile_decode(&jobs[i], batch->scratch);
		else if (!add_coded_job(batch, &jobs[i]))
			break;
	}
	batch->layout = (struct wcx_batch_layout){ .items = batch->item_count };
	for (uint8_t elem_bytes = 1; elem_bytes <= WCX_ELEM_MAX_BYTES; elem_bytes *= 2)
		for (uint8_t table_count = 1; table_count <= WCX_FIELD_TABLES_MAX; table_count *= 2)
			place_launch(batch, elem_bytes, table_count);
	place_parts(batch->table_count, batch->src_bytes, batch->dst_bytes, &batch->layout);
	return i;
}

struct wcx_batch_layout wcx_tile_batch_layout(const struct wcx_tile_batch *batch)
{
	return batch->layout;
}

static void write_table(const struct wcx_freq_table *freqs, struct wcx_batch_table *ret)
{
	uint32_t sum = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		ret->start[s] = (uint16_t)sum;
		sum += freqs->freq[s];
	}
	ret->start[WCX_SYMBOL_COUNT] = ret->start[WCX_SYMBOL_COUNT + 1] = (uint16_t)sum;
}

void wcx_tile_batch_write(const struct wcx_tile_batch *batch, uint8_t *upload)
{
	const struct wcx_batch_layout *layout = &batch->layout;
	uint32_t *slots = (uint32_t *)(void *)(upload + layout->slots_offset);
	struct wcx_batch_table *tables = (struct wcx_batch_table *)(void *)(upload + layout->tables_offset);

	memcpy(upload, batch->items, batch->item_count * sizeof *batch->items);
	for (uint32_t slot = 0; slot < layout->slots; slot++)
		slots[slot] = WCX_NO_ITEM;
	for (uint32_t i = 0; i < batch->item_count; i++) {
		const struct wcx_batch_tile *tile = &batch->tiles[i];

		slots[batch->groups[tile->group].first_slot + tile->number] = i;
		memcpy(upload + layout->src_offset + batch->items[i].src_offset, tile->job->src, tile->job->src_bytes);
	}
	for (uint32_t i = 0; i < batch->set_count; i++)
		for (uint32_t t = 0; t < batch->sets[i].table_count; t++)
			write_table(&batch->sets[i].tables[t], &tables[batch->sets[i].first + t]);
	memset(upload + layout->upload_bytes - WCX_BATCH_SRC_SLACK, 0, WCX_BATCH_SRC_SLACK);
}

void wcx_tile_batch_finish(struct wcx_tile_batch *batch, const uint32_t *status, const uint8_t *dst)
{
	for (uint32_t i = 0; i < batch->item_count; i++) {
		struct wcx_tile_job *job = batch->tiles[i].job;

		job->result = status[i] == WCX_OK ? WCX_OK : WCX_BAD_DATA;
		if (job->result == WCX_OK)
			memcpy(job->dst, dst + batch->items[i].dst_offset, job->dst_bytes);
	}
}
