/* SPDX-License-Identifier: MIT */
/* Writes the records of superblock and index. */
#include "fs/format/index_writer.h"

#include <string.h>

#include "codec/le.h"

enum { CHECKSUM_AT = WCX_SUPERBLOCK_BYTES - 8 };

void wcx_superblock_write(const struct wcx_superblock *sb, uint8_t dst[WCX_SUPERBLOCK_BYTES])
{
	memcpy(dst, WCX_MAGIC, WCX_MAGIC_BYTES);
	wcx_le32_write(dst + 8, WCX_VERSION);
	wcx_le32_write(dst + 12, sb->field_count);
	wcx_le64_write(dst + 16, sb->features);
	wcx_le64_write(dst + 24, sb->packed_bytes);
	wcx_le64_write(dst + 32, sb->original_bytes);
	wcx_le64_write(dst + 40, sb->index_offset);
	wcx_le64_write(dst + 48, sb->index_bytes);
	wcx_le32_write(dst + 56, sb->segment_count);
	wcx_le32_write(dst + 60, sb->table_count);
	wcx_le64_write(dst + 64, sb->tile_count);
	wcx_le64_write(dst + 72, sb->table_bytes);
	wcx_le64_write(dst + 80, sb->index_checksum);
	memcpy(dst + 88, sb->sha256, WCX_SHA256_BYTES);
	wcx_le64_write(dst + 120, sb->optional_features);
	wcx_le32_write(dst + 128, sb->base_count);
	wcx_le32_write(dst + 132, sb->base_name_bytes);
	wcx_le64_write(dst + 136, sb->extra_bytes);
	memset(dst + 144, 0, CHECKSUM_AT - 144);
	wcx_le64_write(dst + CHECKSUM_AT, wcx_checksum64(dst, CHECKSUM_AT));
}

void wcx_segment_write(const struct wcx_segment *seg, uint8_t dst[WCX_SEGMENT_BYTES])
{
	memset(dst, 0, WCX_SEGMENT_BYTES);
	wcx_le64_write(dst, seg->bytes);
	wcx_le32_write(dst + 28, seg->same_as);
	if (seg->same_as)
		return;
	wcx_le64_write(dst + 8, seg->cols);
	wcx_le32_write(dst + 16, seg->tile_rows);
	wcx_le32_write(dst + 20, seg->tile_cols);
	wcx_le32_write(dst + 24, seg->recipe.run_elems);
	wcx_le32_write(dst + 32, seg->entropy_millibits);
	dst[36] = seg->recipe.elem_bytes;
	dst[37] = seg->recipe.transform;
	dst[38] = seg->recipe.predictor;
	dst[39] = seg->recipe.field_count;
	wcx_le32_write(dst + 40, seg->base);
	dst[44] = seg->recipe.difference;
	dst[45] = (uint8_t)(seg->recipe.context_count ? seg->recipe.context_count - 1 : 0);
	wcx_le64_write(dst + 48, seg->base_offset);
	memcpy(dst + 56, seg->recipe.thresholds, dst[45]);
}

void wcx_field_write(const struct wcx_field *field, uint32_t first_table, uint8_t dst[WCX_FIELD_BYTES])
{
	dst[0] = field->width;
	dst[1] = (uint8_t)((field->by_context ? WCX_FIELD_BY_CONTEXT : field->table_count) |
			   (field->is_pair ? WCX_FIELD_PAIRS : 0) | (field->has_zero ? WCX_FIELD_ZERO : 0) |
			   (field->has_escapes ? WCX_FIELD_ESCAPES : 0) | field->set_bits * WCX_FIELD_SETS_UNIT);
	wcx_le16_write(dst + 2, field->base);
	wcx_le32_write(dst + 4, first_table);
}

void wcx_tile_entry_write(const struct wcx_tile_info *tile, uint8_t dst[WCX_TILE_ENTRY_BYTES])
{
	wcx_le32_write(dst, tile->packed_bytes | (uint32_t)tile->mode << 24);
	wcx_le32_write(dst + 4, tile->mode == WCX_TILE_CONSTANT ? tile->constant : tile->checksum);
}

void wcx_base_write(const struct wcx_base *base, uint8_t dst[WCX_BASE_BYTES])
{
	memcpy(dst, base->sha256, WCX_SHA256_BYTES);
	wcx_le64_write(dst + 32, base->original_bytes);
	wcx_le32_write(dst + 40, (uint32_t)strlen(base->name));
	wcx_le32_write(dst + 44, 0);
}
