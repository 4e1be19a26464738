/* SPDX-License-Identifier: MIT */
/* Finds or makes the decoding tables of a tile's fields. */
#include "codec/table_cache.h"

#include <string.h>

/* Makes the table, which the entries have room for. */
static void build(struct wcx_table_cache *cache, const struct wcx_field *field, const struct wcx_freq_table *freqs,
		  uint32_t *entry)
{
	wcx_table_cache_forget(cache);
	if (field->has_escapes)
		wcx_rans_coarse_table_build(freqs, entry);
	else
		wcx_rans_decode_table_build(freqs, (struct wcx_rans_decode_table *)(void *)entry);
}

/* The decoding table for one of a field's tables.  Never evicts those in the bit set *in_use, to which it is added. */
static const uint32_t *cached_table(struct wcx_table_cache *cache, const struct wcx_field *field, uint32_t number,
				    uint64_t *in_use)
{
	const struct wcx_freq_table *freqs = &field->tables[number];
	struct wcx_freq_table pairs;
	uint32_t i = 0;

	while (i < WCX_CACHED_TABLES &&
	       (cache->single[i].is_pair != field->is_pair || cache->single[i].is_coarse != field->has_escapes ||
		memcmp(&cache->single[i].freqs, freqs, sizeof *freqs) != 0))
		i++;
	if (i == WCX_CACHED_TABLES) {
		do {
			i = cache->next_victim;
			cache->next_victim = (i + 1) % WCX_CACHED_TABLES;
		} while (*in_use >> i & 1);
		cache->single[i].freqs = *freqs;
		cache->single[i].is_pair = field->is_pair;
		cache->single[i].is_coarse = field->has_escapes;
		build(cache, field, wcx_field_table(field, number, &pairs), cache->single[i].table.entry);
	}
	*in_use |= UINT64_C(1) << i;
	return cache->single[i].table.entry;
}

/* Slots of a table. */
static size_t table_slots(const struct wcx_field *field)
{
	return field->has_escapes ? WCX_COARSE_SLOTS : WCX_PROB_SCALE;
}

/* Where table number t begins among those that follow each other. */
static uint32_t *table_at(const struct wcx_field *field, struct wcx_rans_decode_table *tables, uint32_t t)
{
	return (uint32_t *)(void *)tables + t * table_slots(field);
}

/* The same for all tables of a field with contexts, which are neighbours in memory. */
static const uint32_t *cached_many(struct wcx_table_cache *cache, const struct wcx_field *field,
				   struct wcx_tables_in_use *in_use)
{
	struct wcx_rans_decode_table *tables = &cache->many.tables[in_use->many];
	struct wcx_freq_table *freqs = &cache->many.freqs[in_use->many];

	if (cache->many.are_coarse != field->has_escapes) {
		memset(cache->many.freqs, 0, sizeof cache->many.freqs);
		cache->many.are_coarse = field->has_escapes;
	}
	for (uint32_t t = 0; t < field->table_count; t++) {
		if (memcmp(&freqs[t], &field->tables[t], sizeof *freqs) == 0)
			continue;
		freqs[t] = field->tables[t];
		build(cache, field, &freqs[t], table_at(field, tables, t));
	}
	in_use->many += field->table_count;
	return tables->entry;
}

static const uint32_t *cached_set(struct wcx_table_cache *cache, const struct wcx_field *field,
				  struct wcx_tables_in_use *in_use)
{
	const size_t key_bytes = field->table_count * sizeof *field->tables;
	struct wcx_cached_set *set;
	uint32_t i = 0;

	if (field->table_count > WCX_CONTEXTS_MAX)
		return cached_many(cache, field, in_use);
	while (i < WCX_CACHED_SETS &&
	       (cache->sets[i].count != field->table_count || cache->sets[i].is_coarse != field->has_escapes ||
		memcmp(cache->sets[i].freqs, field->tables, key_bytes) != 0))
		i++;
	if (i == WCX_CACHED_SETS) {
		if (in_use->sets == (1u << WCX_CACHED_SETS) - 1)
			return cached_many(cache, field, in_use);
		do {
			i = cache->next_set_victim;
			cache->next_set_victim = (i + 1) % WCX_CACHED_SETS;
		} while (in_use->sets >> i & 1);
		set = &cache->sets[i];
		set->count = field->table_count;
		set->is_coarse = field->has_escapes;
		memcpy(set->freqs, field->tables, key_bytes);
		for (uint32_t t = 0; t < set->count; t++)
			build(cache, field, &set->freqs[t], table_at(field, set->tables, t));
	}
	in_use->sets |= UINT64_C(1) << i;
	return cache->sets[i].tables->entry;
}

/* Looks at the last field first: comparing all tables of a field takes a while. */
static const uint32_t *find_set(struct wcx_table_cache *cache, const struct wcx_field *field,
				struct wcx_tables_in_use *in_use)
{
	const bool is_first = !in_use->sets && !in_use->many;
	const uint32_t *tables;

	if (is_first && cache->last == field) {
		in_use->sets = cache->last_in_use.sets;
		in_use->many = cache->last_in_use.many;
		return cache->last_tables;
	}
	tables = cached_set(cache, field, in_use);
	if (is_first) {
		cache->last = field;
		cache->last_tables = tables;
		cache->last_in_use = *in_use;
	}
	return tables;
}

void wcx_table_cache_get(struct wcx_table_cache *cache, const struct wcx_field *field, struct wcx_tables_in_use *in_use,
			 const uint32_t *tables_ret[WCX_FIELD_TABLES_MAX])
{
	const uint32_t *tables;

	if (!field->by_context) {
		for (uint32_t t = 0; t < field->table_count; t++)
			tables_ret[t] = cached_table(cache, field, t, &in_use->single);
		return;
	}
	tables = find_set(cache, field, in_use);
	for (uint32_t s = 0; s < 1u << field->set_bits; s++)
		tables_ret[s] = tables + s * wcx_set_tables(field) * table_slots(field);
}
