/* SPDX-License-Identifier: MIT */
/* Reads the headers of coded tiles. */
#include "codec/tile_layout.h"

#include "codec/le.h"
#include "codec/rans.h"

size_t wcx_tile_dims_bytes(const struct wcx_tile_dims *dims)
{
	uint64_t elems = (uint64_t)dims->rows * dims->cols;

	if (elems == 0 || elems > WCX_TILE_MAX_ELEMS || !wcx_elem_bytes_are_known(dims->elem_bytes))
		return 0;
	return (size_t)elems * dims->elem_bytes;
}

struct parser {
	const struct wcx_recipe *recipe;
	const uint8_t *src;
	uint32_t src_bytes, elems;
	uint32_t end; /* of the parts placed so far; may lie beyond src_bytes in a truncated tile */
};

/* Places the next part; returns its offset.  Parts are too small for the end to wrap around. */
static uint32_t take_part(struct parser *parser, uint32_t bytes)
{
	uint32_t offset = WCX_ALIGN_UP(parser->end, WCX_TILE_PART_ALIGN);

	parser->end = offset + bytes;
	return offset;
}

/* Reads the next number of the header; false if the tile ends before it. */
static bool take_number(struct parser *parser, uint32_t *ret)
{
	uint32_t offset = take_part(parser, 4);

	if (parser->end > parser->src_bytes)
		return false;
	*ret = wcx_le32_read(parser->src + offset);
	return true;
}

/* Appends a coded field.  The carrier's payload_bytes is UINT32_MAX: it takes the rest of the tile. */
static enum wcx_result add_coded(const struct wcx_recipe *recipe, uint32_t number, uint32_t shift, uint32_t payload_bytes,
				 struct wcx_tile_layout *ret)
{
	if (!recipe->fields[number].table_count)
		return WCX_BAD_DATA;
	ret->coded[ret->coded_count++] =
		(struct wcx_coded_field){ .words_bytes = payload_bytes, .field = (uint8_t)number, .shift = (uint8_t)shift };
	return WCX_OK;
}

/* Reads the header: the coded fields, the constant bits and the number of raw planes. */
static enum wcx_result parse_header(struct parser *parser, uint32_t *head_ret, struct wcx_tile_layout *ret)
{
	const struct wcx_recipe *recipe = parser->recipe;
	uint32_t head, carrier = WCX_FIELDS_MAX, shift = 0, number = UINT32_MAX;
	enum wcx_result result = WCX_OK;

	if (!take_number(parser, &head))
		return WCX_BAD_DATA;
	for (uint32_t f = 0; f < WCX_FIELDS_MAX; f++) {
		if (wcx_tile_coding(head, f) > (f < recipe->field_count ? WCX_FIELD_CONSTANT : WCX_FIELD_RAW))
			return WCX_BAD_DATA;
		if (wcx_tile_coding(head, f) == WCX_FIELD_RANS)
			carrier = f;
	}
	ret->exception_count = head >> 2 * WCX_FIELDS_MAX;
	if (ret->exception_count && carrier == WCX_FIELDS_MAX)
		return WCX_BAD_DATA;
	for (uint32_t f = 0; f < recipe->field_count && result == WCX_OK; f++) {
		const uint32_t coding = wcx_tile_coding(head, f), width = recipe->fields[f].width;

		if (coding == WCX_FIELD_RAW)
			ret->plane_count += (uint32_t)__builtin_popcount(width);
		else if (f != carrier && !take_number(parser, &number))
			return WCX_BAD_DATA;
		if (coding == WCX_FIELD_RANS)
			result = add_coded(recipe, f, shift, f == carrier ? UINT32_MAX : number, ret);
		if (coding == WCX_FIELD_CONSTANT) {
			ret->constant_bits |= (uint64_t)number << shift;
			result = (uint64_t)number >> width ? WCX_BAD_DATA : WCX_OK;
		}
		shift += width;
	}
	*head_ret = head;
	return result;
}

/* Places the raw planes of one field. */
static void place_planes(struct parser *parser, uint32_t width, uint32_t shift, uint32_t plane_count, uint32_t *placed,
			 struct wcx_tile_layout *ret)
{
	const uint32_t elem_bytes = parser->recipe->elem_bytes, lines = wcx_line_count(parser->elems, elem_bytes);

	while (width) {
		uint32_t plane_width = wcx_plane_width(width);
		uint32_t bytes = wcx_plane_units(lines, plane_width, elem_bytes) * WCX_PLANE_UNIT_BYTES;

		if (*placed + 1 == plane_count && ret->coded_count)
			ret->plane_carried = WCX_CARRIED_BYTES;
		ret->planes[(*placed)++] = (struct wcx_raw_plane){
			.offset = take_part(parser, bytes - ret->plane_carried),
			.width = (uint8_t)plane_width,
			.shift = (uint8_t)shift,
		};
		shift += plane_width;
		width -= plane_width;
	}
}

/* Places the part for exceptions, which exists only if there are any. */
static void place_exceptions(struct parser *parser, struct wcx_tile_layout *ret)
{
	uint32_t bytes;

	if (!ret->exception_count)
		return;
	bytes = wcx_exceptions_bytes(ret->exception_count, &parser->recipe->fields[ret->coded[ret->coded_count - 1].field]);
	if (bytes >= WCX_CARRIED_BYTES && !ret->plane_carried)
		ret->exception_carried = WCX_CARRIED_BYTES;
	ret->exception_bytes = bytes;
	ret->exception_offset = take_part(parser, bytes - ret->exception_carried);
}

/* Places the choices, states and words of a coded field, whose words_bytes is still the size of all of them. */
static enum wcx_result place_payload(struct parser *parser, struct wcx_coded_field *coded)
{
	const uint32_t choices = wcx_choices_bytes(parser->recipe, &parser->recipe->fields[coded->field], parser->elems);
	uint32_t bytes = coded->words_bytes;

	coded->offset = take_part(parser, choices);
	if (parser->end > parser->src_bytes)
		return WCX_BAD_DATA;
	coded->offset += choices;
	if (bytes == UINT32_MAX)
		bytes = parser->src_bytes - coded->offset;
	else if (bytes < choices || bytes - choices > parser->src_bytes - coded->offset)
		return WCX_BAD_DATA;
	else
		bytes -= choices;
	coded->states_bytes = (uint32_t)wcx_rans_states_bytes(parser->src + coded->offset, bytes);
	if (!coded->states_bytes || bytes % 2)
		return WCX_BAD_DATA;
	coded->words_bytes = bytes - coded->states_bytes;
	parser->end = coded->offset + bytes;
	return WCX_OK;
}

enum wcx_result wcx_tile_parse(const struct wcx_tile_dims *dims, const struct wcx_recipe *recipe, const uint8_t *src,
			       size_t src_bytes, struct wcx_tile_layout *ret)
{
	const size_t tile_bytes = wcx_tile_dims_bytes(dims);
	struct parser parser = { .recipe = recipe, .src = src, .src_bytes = (uint32_t)src_bytes };
	uint32_t head, shift = 0, placed = 0;
	enum wcx_result result;

	if (!tile_bytes || dims->elem_bytes != recipe->elem_bytes)
		return WCX_WRONG_SIZE;
	if (src_bytes >= tile_bytes || !wcx_recipe_is_known(recipe))
		return WCX_BAD_DATA;
	parser.elems = dims->rows * dims->cols;
	*ret = (struct wcx_tile_layout){ .plane_count = 0 };
	result = parse_header(&parser, &head, ret);
	if (result != WCX_OK)
		return result;
	for (uint32_t f = 0; f < recipe->field_count; f++) {
		if (wcx_tile_coding(head, f) == WCX_FIELD_RAW)
			place_planes(&parser, recipe->fields[f].width, shift, ret->plane_count, &placed, ret);
		shift += recipe->fields[f].width;
	}
	place_exceptions(&parser, ret);
	for (uint32_t i = 0; i < ret->coded_count && result == WCX_OK; i++)
		result = place_payload(&parser, &ret->coded[i]);
	return result == WCX_OK && parser.end != src_bytes ? WCX_BAD_DATA : result;
}
