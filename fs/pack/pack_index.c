/* SPDX-License-Identifier: MIT */
/* Collects the parts of an index, each as the bytes that it has in the file. */
#include "fs/pack/pack_index.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/array.h"
#include "fs/format/index_writer.h"

/* A segment's content, by which a later one with the same is recognised. */
struct content {
	uint64_t bytes, checksum, offset;
	uint32_t segment;
};

/* Appends bytes, for the caller to write; NULL if there is no memory. */
static uint8_t *append(struct wcx_pack_index *index, enum wcx_index_part number, size_t bytes)
{
	struct wcx_index_bytes *part = &index->parts[number];
	uint8_t *grown = wcx_array_reserve(part->data, &part->capacity, part->bytes + bytes, 1);

	if (!grown)
		return NULL;
	part->data = grown;
	part->bytes += bytes;
	return grown + part->bytes - bytes;
}

static size_t segment_count(const struct wcx_pack_index *index)
{
	return index->parts[WCX_INDEX_SEGMENTS].bytes / WCX_SEGMENT_BYTES;
}

static int compare_contents(const void *a, const void *b)
{
	const struct content *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? -1 : 1;
	return (x->checksum > y->checksum) - (x->checksum < y->checksum);
}

int wcx_pack_index_find_same(struct wcx_pack_index *index, uint64_t offset, uint64_t bytes, uint64_t checksum,
			     uint32_t *same_as_ret, uint64_t *same_offset_ret)
{
	struct content *content = malloc(sizeof *content), **found = NULL;

	if (content) {
		*content = (struct content){ bytes, checksum, offset, (uint32_t)segment_count(index) };
		found = tsearch(content, &index->contents, compare_contents);
	}
	if (found) {
		*same_as_ret = *found == content ? 0 : (*found)->segment;
		*same_offset_ret = (*found)->offset;
	}
	if (!found || *found != content)
		free(content);
	return found ? 0 : -ENOMEM;
}

static int add_tables(struct wcx_pack_index *index, const struct wcx_field *field)
{
	for (uint32_t t = 0; t < field->table_count; t++) {
		uint8_t written[WCX_FREQ_TABLE_MAX_BYTES], *dst;
		const size_t bytes = wcx_freq_table_write(&field->tables[t], written);

		dst = append(index, WCX_INDEX_TABLES, bytes);
		if (!dst)
			return -ENOMEM;
		memcpy(dst, written, bytes);
	}
	wcx_table_library_add(&index->library, field);
	return 0;
}

/* Adds the fields of a plan, and their tables where these are new. */
static int add_fields(struct wcx_pack_index *index, const struct wcx_tensor_plan *plan,
		      const uint32_t first_table[WCX_FIELDS_MAX])
{
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++) {
		uint8_t *dst = append(index, WCX_INDEX_FIELDS, WCX_FIELD_BYTES);

		if (!dst)
			return -ENOMEM;
		wcx_field_write(&plan->fields[f], first_table[f], dst);
		index->features |= wcx_field_features(&plan->segment.recipe, &plan->fields[f]);
		if (plan->fields[f].table_count && first_table[f] == index->library.table_count &&
		    add_tables(index, &plan->fields[f]) < 0)
			return -ENOMEM;
	}
	return 0;
}

int wcx_pack_index_add_segment(struct wcx_pack_index *index, struct wcx_tensor_plan *plan)
{
	uint32_t first_table[WCX_FIELDS_MAX];
	uint8_t *dst;

	if (!plan->segment.same_as) {
		wcx_tensor_plan_finish(plan, &index->library, first_table);
		if (add_fields(index, plan, first_table) < 0)
			return -ENOMEM;
	}
	dst = append(index, WCX_INDEX_SEGMENTS, WCX_SEGMENT_BYTES);
	if (dst)
		wcx_segment_write(&plan->segment, dst);
	return dst ? 0 : -ENOMEM;
}

static uint32_t base_count(const struct wcx_pack_index *index)
{
	return (uint32_t)(index->parts[WCX_INDEX_BASES].bytes / WCX_BASE_BYTES);
}

int wcx_pack_index_add_base(struct wcx_pack_index *index, const struct wcx_base *base)
{
	const size_t name_bytes = strlen(base->name);
	uint8_t *entry, *name;

	if (base_count(index) == WCX_BASES_MAX)
		return -E2BIG;
	if (name_bytes > WCX_BASE_NAME_MAX_BYTES)
		return -ENAMETOOLONG;
	entry = append(index, WCX_INDEX_BASES, WCX_BASE_BYTES);
	name = name_bytes ? append(index, WCX_INDEX_BASE_NAMES, name_bytes) : entry;
	if (!name || !entry)
		return -ENOMEM;
	if (name_bytes)
		memcpy(name, base->name, name_bytes);
	wcx_base_write(base, entry);
	return 0;
}

int wcx_pack_index_add_tiles(struct wcx_pack_index *index, const struct wcx_tile_info *tiles, size_t tile_count)
{
	uint8_t *dst = append(index, WCX_INDEX_ENTRIES, tile_count * WCX_TILE_ENTRY_BYTES);

	for (size_t i = 0; i < tile_count && dst; i++)
		wcx_tile_entry_write(&tiles[i], dst + i * WCX_TILE_ENTRY_BYTES);
	index->tile_count += tile_count;
	return dst ? 0 : -ENOMEM;
}

int wcx_pack_index_join(const struct wcx_pack_index *index, struct wcx_superblock *sb, uint8_t **ret)
{
	uint8_t *joined, *end;

	sb->segment_count = (uint32_t)segment_count(index);
	sb->field_count = (uint32_t)(index->parts[WCX_INDEX_FIELDS].bytes / WCX_FIELD_BYTES);
	sb->table_count = index->library.table_count;
	sb->tile_count = index->tile_count;
	sb->table_bytes = index->parts[WCX_INDEX_TABLES].bytes;
	sb->base_count = base_count(index);
	sb->base_name_bytes = (uint32_t)index->parts[WCX_INDEX_BASE_NAMES].bytes;
	sb->features |= (sb->base_count ? WCX_FEATURE_BASES : 0) | index->features;
	sb->index_bytes = 0;
	for (size_t i = 0; i < WCX_INDEX_PARTS; i++)
		sb->index_bytes += index->parts[i].bytes;
	if (sb->index_bytes > WCX_MAX_INDEX_BYTES)
		return -EFBIG;
	joined = end = malloc(sb->index_bytes);
	if (!joined)
		return -ENOMEM;
	for (size_t i = 0; i < WCX_INDEX_PARTS; i++) {
		if (index->parts[i].bytes)
			memcpy(end, index->parts[i].data, index->parts[i].bytes);
		end += index->parts[i].bytes;
	}
	sb->packed_bytes = sb->index_offset + sb->index_bytes;
	sb->index_checksum = wcx_checksum64(joined, sb->index_bytes);
	*ret = joined;
	return 0;
}

void wcx_pack_index_free(struct wcx_pack_index *index)
{
	for (size_t i = 0; i < WCX_INDEX_PARTS; i++)
		free(index->parts[i].data);
	tdestroy(index->contents, free);
}
