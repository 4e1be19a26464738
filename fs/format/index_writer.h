/* SPDX-License-Identifier: MIT */
/*
 * Writing the records of superblock and index (docs/format.md, section 2): the reverse of what the container parses.
 *
 * dst has the size of the record.  Nothing is checked or allocated; the caller puts the records in their order.  Frequency
 * tables are written by wcx_freq_table_write.
 */
#ifndef WCX_INDEX_WRITER_H
#define WCX_INDEX_WRITER_H

#include "fs/format/container.h"

/* wcx_superblock_write - includes the superblock's own checksum; that of the index must be set */
void wcx_superblock_write(const struct wcx_superblock *sb, uint8_t dst[WCX_SUPERBLOCK_BYTES]);

/* wcx_segment_write - only bytes and same_as count for a segment with the content of an earlier one */
void wcx_segment_write(const struct wcx_segment *segment, uint8_t dst[WCX_SEGMENT_BYTES]);

/* wcx_field_write - first_table is the index of the field's first table in the file; 0 for a field without tables */
void wcx_field_write(const struct wcx_field *field, uint32_t first_table, uint8_t dst[WCX_FIELD_BYTES]);

/* wcx_tile_entry_write - mode, packed_bytes, and checksum or constant */
void wcx_tile_entry_write(const struct wcx_tile_info *tile, uint8_t dst[WCX_TILE_ENTRY_BYTES]);

/* wcx_base_write - the entry without the name, which is at most WCX_BASE_NAME_MAX_BYTES long; names follow all entries */
void wcx_base_write(const struct wcx_base *base, uint8_t dst[WCX_BASE_BYTES]);

#endif
