/* SPDX-License-Identifier: MIT */
/*
 * The index of a .wcx file while it grows: segments with their fields and tables, entries of tiles, and the search for
 * segments with the same content.
 */
#ifndef WCX_PACK_INDEX_H
#define WCX_PACK_INDEX_H

#include <stdint.h>

#include "fs/format/container.h"
#include "fs/pack/tensor_plan.h"

enum wcx_index_part {
	WCX_INDEX_SEGMENTS,
	WCX_INDEX_FIELDS,
	WCX_INDEX_ENTRIES,
	WCX_INDEX_TABLES,
	WCX_INDEX_BASES,
	WCX_INDEX_BASE_NAMES,
	WCX_INDEX_PARTS
};

/* Zeroed at first.  Segments are added in the order of the file, by one thread; so are entries. */
struct wcx_pack_index {
	struct wcx_index_bytes {
		uint8_t *data;
		size_t bytes, capacity;
	} parts[WCX_INDEX_PARTS]; /* in the order of the file */
	struct wcx_table_library library;
	void *contents; /* tree of the segments that may recur */
	uint64_t tile_count;
	uint64_t features; /* that fields need */
};

/*
 * wcx_pack_index_find_same - find an earlier segment by its size and checksum, or remember the one that is added next
 *
 * offset is where that one begins in the original.  *same_as_ret is the number of the earlier segment, which begins at
 * *same_offset_ret, or 0 if there is none.  This and the functions below that add return 0 or -ENOMEM, without a message.
 */
int wcx_pack_index_find_same(struct wcx_pack_index *index, uint64_t offset, uint64_t bytes, uint64_t checksum,
			     uint32_t *same_as_ret, uint64_t *same_offset_ret);

/* wcx_pack_index_add_segment - finish the plan, unless its same_as names another segment, and add its segment */
int wcx_pack_index_add_segment(struct wcx_pack_index *index, struct wcx_tensor_plan *plan);

/*
 * wcx_pack_index_add_base - add a base; the first has number 1 in the segments, the next 2, and so on
 *
 * May come before or after the segments.  Returns 0, -ENOMEM, or without a change -E2BIG beyond WCX_BASES_MAX bases or
 * -ENAMETOOLONG for a name beyond WCX_BASE_NAME_MAX_BYTES.
 */
int wcx_pack_index_add_base(struct wcx_pack_index *index, const struct wcx_base *base);

int wcx_pack_index_add_tiles(struct wcx_pack_index *index, const struct wcx_tile_info *tiles, size_t tile_count);

/*
 * wcx_pack_index_join - make the bytes of the whole index, which the caller frees
 *
 * sb has original_bytes and index_offset; the rest is filled in but for the SHA-256: features, too, where there are bases.
 * Returns 0, -EFBIG for an index beyond the limit, or -ENOMEM, without a message.
 */
int wcx_pack_index_join(const struct wcx_pack_index *index, struct wcx_superblock *sb, uint8_t **ret);

void wcx_pack_index_free(struct wcx_pack_index *index); /* but not the struct itself */

#endif
