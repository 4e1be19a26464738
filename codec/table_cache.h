/* SPDX-License-Identifier: MIT */
/* Keeps the decoding tables that tiles have needed: neighbouring tiles mostly share theirs, and building one takes long. */
#ifndef WCX_TABLE_CACHE_H
#define WCX_TABLE_CACHE_H

#include "codec/rans.h"
#include "codec/recipe.h"

enum {
	WCX_CACHED_TABLES = WCX_RECIPE_TABLES_MAX, /* a tile's most */
	WCX_CACHED_SETS =
		5, /* of tables for contexts, up to WCX_CONTEXTS_MAX of a field; further ones of a tile go to `many` */
};

/* What a tile uses of a cache: bit sets, and a number.  All zeros for a new tile. */
struct wcx_tables_in_use {
	uint64_t single, sets;
	uint32_t many;
};

/* All zeros when it is new.  For one thread at a time. */
struct wcx_table_cache {
	/* The field that began the last tile with tables by context, and what it got; NULL once a table has been made since.
	 */
	const struct wcx_field *last;
	const uint32_t *last_tables;
	struct wcx_tables_in_use last_in_use;
	struct wcx_cached_table {
		struct wcx_freq_table freqs; /* key: the field's table and whether it is one of pairs, or coarse */
		bool is_pair, is_coarse;
		struct wcx_rans_decode_table table;
	} single[WCX_CACHED_TABLES];
	uint32_t next_victim;
	struct wcx_cached_set {
		struct wcx_freq_table freqs[WCX_CONTEXTS_MAX]; /* key, with their number */
		uint32_t count;
		bool is_coarse;
		struct wcx_rans_decode_table tables[WCX_CONTEXTS_MAX];
	} sets[WCX_CACHED_SETS];
	uint32_t next_set_victim;
	struct {
		struct wcx_freq_table freqs[WCX_RECIPE_TABLES_MAX]; /* keys, with whether all are coarse */
		bool are_coarse;
		struct wcx_rans_decode_table tables[WCX_RECIPE_TABLES_MAX];
	} many; /* of the tile's fields that find no place among the sets, one after another */
};

/* wcx_table_cache_forget - to be called when fields may have changed: one that asks again is recognised by its address */
static inline void wcx_table_cache_forget(struct wcx_table_cache *cache)
{
	cache->last = NULL;
}

/*
 * wcx_table_cache_get - find or make the decoding tables of a field, coarse ones if it has escapes
 *
 * With tables by context, which follow each other, tables_ret gets the first table of each set.  What is in *in_use, to
 * which the field's are added, stays until the cache is asked for another tile's.  The fields of a tile have at most
 * WCX_RECIPE_TABLES_MAX tables in all.
 */
void wcx_table_cache_get(struct wcx_table_cache *cache, const struct wcx_field *field, struct wcx_tables_in_use *in_use,
			 const uint32_t *tables_ret[WCX_FIELD_TABLES_MAX]);

#endif
