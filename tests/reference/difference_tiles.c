/* SPDX-License-Identifier: MIT */
/*
 * Prints tiles coded as differences from a base, for difference_agree.py to decode: a line for each, of words separated by
 * spaces.  These are elem_bytes, difference, thresholds, run, fields (width, flags as in the index, base; each of them ended
 * by a semicolon), mode, constant, and in hexadecimal digits the frequencies of all tables, the base, the
 * packed tile and the tile.  A word without digits is a hyphen.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/difference.h"
#include "codec/tile.h"
#include "tests/fixtures/sample_data.h"

enum { ELEMS_MAX = 3000, TABLES_BY_CONTEXT = 7, PAIRS = 1 << 3, SETS_UNIT = 1 << 5, ESCAPES = 1 << 7 };

static const struct kind {
	uint32_t elem_bytes;
	enum wcx_difference difference;
	uint32_t raw, coded[4]; /* widths, the lowest field first */
	uint32_t base;          /* of the last field */
	bool escapes, pairs;
} kinds[] = {
	{ 4, WCX_DIFFERENCE_FLOAT, 8, { 8, 8, 8 }, 0, false, false },
	{ 2, WCX_DIFFERENCE_FLOAT, 0, { 16 }, 0, false, false },
	{ 2, WCX_DIFFERENCE_FLOAT, 0, { 8, 8 }, 0, false, false },
	{ 4, WCX_DIFFERENCE_FLOAT, 8, { 8, 16 }, 0, false, false },
	{ 8, WCX_DIFFERENCE_FLOAT, 32, { 16, 16 }, 0, false, false },
	{ 1, WCX_DIFFERENCE_INTEGER, 0, { 8 }, 0, false, false },
	{ 1, WCX_DIFFERENCE_FLOAT, 2, { 6 }, 0, false, false },
	{ 4, WCX_DIFFERENCE_INTEGER, 3, { 5, 8, 16 }, 2, false, false },
	{ 8, WCX_DIFFERENCE_INTEGER, 32, { 8, 8, 16 }, 0, false, false },
	{ 2, WCX_DIFFERENCE_FLOAT, 0, { 16 }, 0, true, false },
	{ 2, WCX_DIFFERENCE_INTEGER, 0, { 16 }, 0, true, false },
	{ 1, WCX_DIFFERENCE_INTEGER, 0, { 8 }, 0, false, true },
	{ 1, WCX_DIFFERENCE_FLOAT, 0, { 8 }, 0, false, true },
};

static void print_hex(const void *bytes, size_t count)
{
	putchar(' ');
	for (size_t i = 0; i < count; i++)
		printf("%02x", ((const uint8_t *)bytes)[i]);
	if (!count)
		putchar('-');
}

/* A weight as a float or integer of so many bytes; of a float the highest ones. */
static uint64_t element_of(const struct kind *kind, double weight)
{
	const float narrow = (float)weight;
	uint64_t bits;
	uint32_t narrow_bits;

	if (kind->difference == WCX_DIFFERENCE_INTEGER)
		return (uint64_t)llrint(ldexp(weight, 8 * (int)WCX_MIN(kind->elem_bytes, 6)));
	memcpy(&bits, &weight, sizeof bits);
	memcpy(&narrow_bits, &narrow, sizeof narrow_bits);
	return kind->elem_bytes == 8 ? bits : narrow_bits >> (32 - 8 * kind->elem_bytes);
}

static void draw(const struct kind *kind, struct sample_random *random, double drift, uint32_t elems, uint8_t *base,
		 uint8_t *tile)
{
	for (uint32_t i = 0; i < elems; i++) {
		const double weight = 0.1 * sample_normal(random), tuned = weight + 0.1 * drift * sample_normal(random);
		const uint64_t b = element_of(kind, weight);
		const bool is_outlier = drift > 1e-3 && sample_below(random, 200) == 0;
		const uint64_t x = is_outlier ? sample_next(random) : element_of(kind, tuned);

		memcpy(base + (size_t)i * kind->elem_bytes, &b, kind->elem_bytes);
		memcpy(tile + (size_t)i * kind->elem_bytes, &x, kind->elem_bytes);
	}
}

/* Tables that suit the lowest symbols best, each in another degree. */
static void make_tables(const struct wcx_field *field, struct wcx_freq_table *tables)
{
	for (uint32_t t = 0; t < field->table_count; t++) {
		uint64_t counts[WCX_SYMBOL_COUNT] = { 0 };

		for (uint32_t s = 0; s < wcx_field_symbols_max(field); s++)
			counts[s] = (uint64_t)(1e6 * pow(0.6 + 0.37 * t / field->table_count, s)) + (t % 2);
		wcx_field_build_table(field, counts, &tables[t]);
	}
}

static void print_tile(const struct kind *kind, uint32_t context_count, uint32_t set_bits, uint32_t elems, double drift,
		       struct wcx_encode_scratch *scratch, struct sample_random *random)
{
	static uint8_t base[ELEMS_MAX * 8], tile[ELEMS_MAX * 8], packed[ELEMS_MAX * 8];
	static struct wcx_freq_table tables[WCX_RECIPE_TABLES_MAX];
	const struct wcx_tile_dims dims = { 1, elems, kind->elem_bytes };
	struct wcx_field fields[WCX_FIELDS_MAX];
	struct wcx_recipe recipe = { .elem_bytes = (uint8_t)kind->elem_bytes,
				     .fields = fields,
				     .difference = (uint8_t)kind->difference,
				     .context_count = (uint8_t)context_count };
	struct wcx_encoded_tile encoded;
	uint32_t table = 0;

	for (uint32_t t = 0; t + 1 < context_count; t++)
		recipe.thresholds[t] = (uint8_t)((kind->elem_bytes > 1 ? 117 : 8) + t);
	if (kind->raw)
		fields[recipe.field_count++] = (struct wcx_field){ .width = (uint8_t)kind->raw };
	for (uint32_t f = 0; f < 4 && kind->coded[f]; f++) {
		struct wcx_field *field = &fields[recipe.field_count++];
		const bool by_context = context_count && !kind->pairs && (f == 0 || kind->coded[f] == 16);
		const uint32_t most = kind->coded[2] ? 24 : 32; /* with those of the others 40 */
		const uint32_t bits = by_context && table + (context_count << set_bits) <= most ? set_bits : 0;

		*field = (struct wcx_field){ .width = (uint8_t)kind->coded[f],
					     .table_count = (uint8_t)(by_context ? context_count << bits : 1),
					     .set_bits = (uint8_t)bits,
					     .by_context = by_context,
					     .has_escapes = kind->escapes,
					     .is_pair = kind->pairs,
					     .base = (uint16_t)(kind->coded[f] > 8 ? kind->base : 0),
					     .tables = tables + table };
		make_tables(field, tables + table);
		recipe.run_elems = bits ? 128 * bits : recipe.run_elems;
		table += field->table_count;
	}
	draw(kind, random, drift, elems, base, tile);
	if (wcx_recipe_check(&recipe) ||
	    wcx_tile_encode_against(&dims, tile, base, &recipe, scratch, packed, &encoded) != WCX_OK)
		exit(1);
	printf("%u %u", kind->elem_bytes, kind->difference);
	print_hex(recipe.thresholds, context_count ? context_count - 1 : 0);
	printf(" %u ", recipe.run_elems);
	for (uint32_t f = 0; f < recipe.field_count; f++)
		printf("%u,%u,%u;", fields[f].width,
		       (fields[f].by_context ? (uint32_t)TABLES_BY_CONTEXT : fields[f].table_count) +
			       SETS_UNIT * fields[f].set_bits + (fields[f].has_escapes ? ESCAPES : 0u) +
			       (fields[f].is_pair ? PAIRS : 0u),
		       fields[f].base);
	printf(" %u %u", encoded.mode, encoded.constant);
	print_hex(tables, table * sizeof *tables);
	print_hex(base, wcx_tile_dims_bytes(&dims));
	print_hex(packed, encoded.bytes);
	print_hex(tile, wcx_tile_dims_bytes(&dims));
	putchar('\n');
}

int main(void)
{
	static const uint32_t context_counts[] = { 0, 2, 8 }, elems[] = { 1, 700, 1025, ELEMS_MAX };
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	struct sample_random random = { 1 };

	if (!scratch)
		return 1;
	for (size_t k = 0; k < WCX_ARRAY_COUNT(kinds); k++)
		for (size_t c = 0; c < WCX_ARRAY_COUNT(context_counts); c++)
			for (size_t e = 0; e < WCX_ARRAY_COUNT(elems); e++)
				for (uint32_t bits = 0; bits <= (context_counts[c] ? 2 : 0); bits++)
					print_tile(&kinds[k], context_counts[c], bits, elems[e], pow(10, -1.0 - (double)e),
						   scratch, &random);
	wcx_encode_scratch_free(scratch);
	return 0;
}
