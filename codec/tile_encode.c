/* SPDX-License-Identifier: MIT */
/* Writes the parts of a packed tile: header, raw planes, exceptions, payloads. */
#include <stdlib.h>
#include <string.h>

#include "codec/le.h"
#include "codec/tile_choose.h"

struct wcx_encode_scratch *wcx_encode_scratch_create(void)
{
	struct wcx_encode_scratch *scratch = calloc(1, sizeof *scratch);

	if (scratch)
		scratch->variant = wcx_encode_variant_choose();
	return scratch;
}

void wcx_encode_scratch_use(struct wcx_encode_scratch *scratch, const struct wcx_encode_variant *variant)
{
	scratch->variant = variant;
}

void wcx_encode_scratch_free(struct wcx_encode_scratch *scratch)
{
	free(scratch);
}

struct writer {
	uint8_t *dst;
	size_t used, capacity;
	bool carries;                       /* whether the final states carry the end of a part, */
	uint8_t carried[WCX_CARRIED_BYTES]; /* which is this */
};

/* Reserves space for the next part and zeroes the padding before it; NULL if it does not fit. */
static uint8_t *writer_take(struct writer *writer, size_t bytes)
{
	size_t offset = WCX_ALIGN_UP(writer->used, WCX_TILE_PART_ALIGN);

	if (offset + bytes > writer->capacity)
		return NULL;
	memset(writer->dst + writer->used, 0, offset - writer->used);
	writer->used = offset + bytes;
	return writer->dst + offset;
}

/* Writes a part, of which the states carry the end if `carries`; false if it does not fit. */
static bool writer_put(struct writer *writer, const uint8_t *part, uint32_t bytes, bool carries)
{
	uint8_t *dst;

	if (carries) {
		bytes -= WCX_CARRIED_BYTES;
		memcpy(writer->carried, part + bytes, WCX_CARRIED_BYTES);
		writer->carries = true;
	}
	dst = writer_take(writer, bytes);
	if (dst)
		memcpy(dst, part, bytes);
	return dst != NULL;
}

/* --- raw planes --- */

/*
 * Builds the plane of `width` bits from bit `shift` of transformed elements in scratch->part; returns its size.  Planes are
 * made from elements before the transform; bits that FOLD inverts are inverted here.
 */
static uint32_t make_plane(const struct wcx_encoding *e, uint32_t shift, uint32_t width)
{
	const uint32_t elem_bytes = e->recipe->elem_bytes, line_bytes = wcx_line_bytes(elem_bytes);
	const uint32_t lines = wcx_line_count(e->elems, elem_bytes), unit_lines = wcx_unit_lines(width, elem_bytes);
	const uint32_t bytes = wcx_plane_units(lines, width, elem_bytes) * WCX_PLANE_UNIT_BYTES;
	const uint64_t bits = wcx_bit_range(shift, width);
	const uint64_t mask = wcx_repeat(wcx_place_bits(e->recipe, bits), elem_bytes);
	uint32_t *units = (uint32_t *)(void *)e->scratch->part;
	struct wcx_plane_lines plane = {
		.src = e->plain,
		.lines = e->elems / wcx_line_elems(elem_bytes),
		.elem_bytes = elem_bytes,
		.width = width,
		.mask = mask,
		.folded = bits & wcx_fold_bits(e->recipe) ? mask : 0,
		.units = units,
	};
	uint8_t last[WCX_LANES * WCX_ELEM_MAX_BYTES] = { 0 };
	uint32_t first[WCX_LANES] = { 0 };

	memset(units, 0, bytes);
	e->scratch->variant->add_plane(&plane);
	if (plane.lines == lines)
		return bytes;
	/* The partial line is added as if it were the first of a unit, then rotated to its place. */
	memcpy(last, e->plain + (size_t)plane.lines * line_bytes, (size_t)e->elems * elem_bytes % line_bytes);
	plane = (struct wcx_plane_lines){ last, 1, elem_bytes, width, mask, plane.folded, first };
	e->scratch->variant->add_plane(&plane);
	for (uint32_t l = 0, *unit = units + (lines - 1) / unit_lines * WCX_LANES; l < WCX_LANES; l++)
		unit[l] |= wcx_rotate_left32(first[l], (lines - 1) % unit_lines * width);
	return bytes;
}

/* Writes the raw planes, the last of which ends in the states of the carrier if there is one. */
static bool write_planes(const struct wcx_encoding *e, bool has_carrier, struct writer *writer)
{
	const struct wcx_field_choice *choices = e->scratch->fields;
	uint32_t left = 0;

	for (uint32_t f = 0; f < e->recipe->field_count; f++)
		if (choices[f].coding == WCX_FIELD_RAW)
			left += (uint32_t)__builtin_popcount(e->recipe->fields[f].width);
	for (uint32_t f = 0; f < e->recipe->field_count; f++) {
		uint32_t width = choices[f].coding == WCX_FIELD_RAW ? e->recipe->fields[f].width : 0, plane_width;

		for (uint32_t shift = choices[f].shift; width; shift += plane_width, width -= plane_width) {
			plane_width = wcx_plane_width(width);
			if (!writer_put(writer, e->scratch->part, make_plane(e, shift, plane_width),
					--left == 0 && has_carrier))
				return false;
		}
	}
	return true;
}

/* --- exceptions --- */

/* Adds exceptions with unchanged values until there are `enough` to be carried: carried bytes cost nothing. */
static void pad_exceptions(const struct wcx_encoding *e, uint32_t carrier, uint32_t enough)
{
	const uint8_t *symbols = e->scratch->fields[carrier].symbols;
	struct wcx_exceptions *exceptions = &e->scratch->exceptions;

	for (uint32_t position = 0, before = 0; exceptions->count < enough; position++, before++) {
		uint32_t behind = exceptions->count - before;

		if (behind && exceptions->positions[before] == position)
			continue;
		memmove(exceptions->positions + before + 1, exceptions->positions + before, behind * sizeof(uint16_t));
		memmove(exceptions->values + before + 1, exceptions->values + before, behind * sizeof(uint16_t));
		exceptions->positions[before] = (uint16_t)position;
		exceptions->values[before] = (uint16_t)wcx_symbol_value(&e->recipe->fields[carrier], symbols[position]);
		exceptions->count++;
	}
}

/* Serialises the exceptions, or escapes, to scratch->part; returns their size, which is even. */
static uint32_t serialise_exceptions(const struct wcx_encoding *e, const struct wcx_field *field)
{
	const struct wcx_exceptions *exceptions = &e->scratch->exceptions;
	const uint32_t bytes = wcx_exceptions_bytes(exceptions->count, field), width = field->width;
	uint8_t *positions = e->scratch->part, *values = positions + (field->has_escapes ? 0 : 2 * exceptions->count);

	memset(positions, 0, bytes);
	for (uint32_t i = 0; i < exceptions->count; i++) {
		if (!field->has_escapes)
			wcx_le16_write(positions + 2 * i, exceptions->positions[i]);
		if (wcx_exception_value_bytes(width) == 1)
			values[i] = (uint8_t)exceptions->values[i];
		else
			wcx_le16_write(values + 2 * i, exceptions->values[i]);
	}
	return bytes;
}

/* Writes the exceptions, which end in the states if no plane does. */
static bool write_exceptions(const struct wcx_encoding *e, uint32_t carrier, struct writer *writer)
{
	const struct wcx_field *field = &e->recipe->fields[carrier];
	uint32_t value_bytes = wcx_exception_value_bytes(field->width), bytes;
	uint32_t enough = (WCX_CARRIED_BYTES + value_bytes) / (2 + value_bytes); /* counting the byte that makes them even */

	if (!field->has_escapes && !writer->carries && e->scratch->exceptions.count > 1 && e->elems > enough)
		pad_exceptions(e, carrier, enough);
	bytes = serialise_exceptions(e, field);
	return writer_put(writer, e->scratch->part, bytes, bytes >= WCX_CARRIED_BYTES && !writer->carries);
}

/* --- payloads --- */

/* The symbols of a field as they are coded: one per element or pair. */
static const uint8_t *coded_symbols(const struct wcx_encoding *e, uint32_t number)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct wcx_field_choice *choice = &e->scratch->fields[number];
	uint8_t *pairs = e->scratch->pairs;

	if (!field->is_pair)
		return choice->symbols;
	e->scratch->variant->join_pairs(choice->symbols, e->elems / 2, pairs);
	if (e->elems % 2) {
		uint32_t last = e->elems - 1, table = choice->runs[last / wcx_run_elems(e, field)].table;
		uint32_t cheapest = e->scratch->coders[number].cheapest[table];

		pairs[last / 2] = (uint8_t)(choice->symbols[last] | cheapest << WCX_PAIR_WIDTH);
	}
	return pairs;
}

/* The same with the context of each, or the number of its table in all sets. */
static const uint16_t *keyed_symbols(const struct wcx_encoding *e, uint32_t number)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const uint32_t run_elems = wcx_run_elems(e, field);
	struct wcx_encode_scratch *scratch = e->scratch;

	scratch->variant->key_symbols(scratch->fields[number].symbols, scratch->contexts, e->elems, scratch->keyed);
	for (uint32_t first = 0, r = 0; first < e->elems && field->set_bits; first += run_elems, r++) {
		const uint32_t end = WCX_MIN(e->elems, first + run_elems);
		const uint32_t tables = scratch->fields[number].runs[r].table * wcx_set_tables(field);

		for (uint32_t i = first; i < end; i++)
			scratch->keyed[i] = (uint16_t)(scratch->keyed[i] + (tables << 8));
	}
	return scratch->keyed;
}

/* Writes the choices, states and words of a field; returns their size, or 0 if they do not fit. */
static uint32_t write_payload(const struct wcx_encoding *e, uint32_t number, const uint8_t *carried, struct writer *writer)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const uint32_t choice_bits = wcx_choice_bits(field), runs = WCX_DIV_UP(e->elems, wcx_run_elems(e, field));
	const uint32_t choices_bytes = wcx_choices_bytes(e->recipe, field, e->elems);
	const struct wcx_rans_encode_table *tables[WCX_SET_TABLES_MAX];
	uint8_t *start = writer_take(writer, choices_bytes);
	const struct wcx_rans_source source = {
		.tables = tables,
		/* Keys have the choice of a set in them. */
		.choices = { start, field->by_context ? 0 : choice_bits,
			     e->recipe->run_elems / wcx_line_elems(e->recipe->elem_bytes) },
		.symbols = field->by_context ? NULL : coded_symbols(e, number),
		.keyed = field->by_context ? keyed_symbols(e, number) : NULL,
		.symbol_count = wcx_field_symbols(field, e->elems),
		.steps = wcx_field_steps(field, e->recipe->elem_bytes),
		.carried = carried,
	};
	size_t bytes;

	if (!start)
		return 0;
	for (uint32_t t = 0; t < field->table_count; t++)
		tables[t] = &e->scratch->coders[number].encode[t];
	memset(start, 0, choices_bytes);
	for (uint32_t r = 0, bit = 0; choice_bits && r < runs; r++, bit += choice_bits)
		start[bit / 8] |= (uint8_t)(e->scratch->fields[number].runs[r].table << bit % 8);
	bytes = wcx_rans_encode(e->scratch->variant, &source, e->scratch->words, start + choices_bytes,
				writer->capacity - writer->used);
	writer->used += bytes;
	return bytes ? choices_bytes + (uint32_t)bytes : 0;
}

/* --- the tile --- */

/* The header has a number for each field that is constant or coded, except the carrier. */
static uint32_t count_numbers(const struct wcx_encoding *e, uint32_t carrier)
{
	uint32_t numbers = 0;

	for (uint32_t f = 0; f < e->recipe->field_count; f++)
		numbers += f != carrier && e->scratch->fields[f].coding != WCX_FIELD_RAW;
	return numbers;
}

/* Writes the tile as chosen; returns its size, or 0 if it does not fit. */
static size_t write_tile(const struct wcx_encoding *e, uint32_t carrier, uint8_t *dst, size_t capacity)
{
	const uint32_t field_count = e->recipe->field_count;
	struct writer writer = { .dst = dst, .capacity = capacity };
	uint8_t *number = writer_take(&writer, 4 + 4 * count_numbers(e, carrier));
	uint32_t head = 0;

	if (!number || !write_planes(e, carrier < field_count, &writer))
		return 0;
	if (carrier < field_count) {
		if (!write_exceptions(e, carrier, &writer))
			return 0;
		head = e->scratch->exceptions.count << 2 * WCX_FIELDS_MAX;
	}
	for (uint32_t f = 0; f < field_count; f++) {
		const struct wcx_field_choice *choice = &e->scratch->fields[f];
		uint32_t value = choice->constant;

		head |= (uint32_t)choice->coding << 2 * f;
		if (choice->coding == WCX_FIELD_RANS) {
			value = write_payload(e, f, f == carrier && writer.carries ? writer.carried : NULL, &writer);
			if (!value)
				return 0;
		}
		if (f != carrier && choice->coding != WCX_FIELD_RAW)
			wcx_le32_write(number += 4, value);
	}
	wcx_le32_write(dst, head);
	return writer.used;
}

/* Whether all elements are the same and fit in a tile entry. */
static bool tile_is_constant(const uint8_t *src, size_t tile_bytes, uint32_t elem_bytes, uint32_t *constant_ret)
{
	uint8_t element[WCX_ELEM_MAX_BYTES] = { 0 };

	if (memcmp(src, src + elem_bytes, tile_bytes - elem_bytes) != 0)
		return false;
	memcpy(element, src, elem_bytes);
	*constant_ret = wcx_le32_read(element);
	return wcx_le32_read(element + 4) == 0;
}

enum wcx_result wcx_tile_encode(const struct wcx_tile_dims *dims, const uint8_t *src, const struct wcx_recipe *recipe,
				struct wcx_encode_scratch *scratch, uint8_t *dst, struct wcx_encoded_tile *ret)
{
	return wcx_tile_encode_against(dims, src, NULL, recipe, scratch, dst, ret);
}

enum wcx_result wcx_tile_encode_against(const struct wcx_tile_dims *dims, const uint8_t *src, const uint8_t *base,
					const struct wcx_recipe *recipe, struct wcx_encode_scratch *scratch, uint8_t *dst,
					struct wcx_encoded_tile *ret)
{
	const size_t tile_bytes = wcx_tile_dims_bytes(dims);
	const bool is_difference = recipe->difference != WCX_DIFFERENCE_NONE;
	struct wcx_encoding encoding;

	if (!tile_bytes || dims->elem_bytes != recipe->elem_bytes)
		return WCX_WRONG_SIZE;
	if (!wcx_recipe_is_known(recipe) || (is_difference && !base))
		return WCX_BAD_DATA;
	*ret = (struct wcx_encoded_tile){ .mode = WCX_TILE_CONSTANT };
	if (!is_difference && tile_is_constant(src, tile_bytes, dims->elem_bytes, &ret->constant))
		return WCX_OK;
	wcx_encoding_start(dims, src, base, recipe, scratch, &encoding);
	if (is_difference && tile_is_constant(encoding.plain, tile_bytes, dims->elem_bytes, &ret->constant))
		return WCX_OK;
	*ret = (struct wcx_encoded_tile){ .mode = WCX_TILE_CODED };
	ret->bytes = write_tile(&encoding, wcx_encoding_choose(&encoding), dst, tile_bytes - 1);
	if (!ret->bytes) {
		*ret = (struct wcx_encoded_tile){ .mode = WCX_TILE_STORED, .bytes = tile_bytes };
		memcpy(dst, src, tile_bytes);
	}
	return WCX_OK;
}
