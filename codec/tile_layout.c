/* SPDX-License-Identifier: MIT */
/* What a tile consists of: checks recipes and reads the headers of coded tiles. */
#include "codec/tile.h"

#include "codec/le.h"
#include "codec/rans.h"
#include "codec/raw_plane.h"

static int has_elem_bytes(uint32_t elem_bytes)
{
	return elem_bytes == 1 || elem_bytes == 2 || elem_bytes == 4 || elem_bytes == 8;
}

size_t wcx_tile_shape_bytes(const struct wcx_tile_shape *shape)
{
	uint64_t elems = (uint64_t)shape->rows * shape->cols;

	if (elems == 0 || elems > WCX_TILE_MAX_ELEMS || !has_elem_bytes(shape->elem_bytes))
		return 0;
	return (size_t)elems * shape->elem_bytes;
}

static const char *check_field(const struct wcx_field *field)
{
	if (field->width == 0 || field->width > WCX_FIELD_MAX_WIDTH)
		return "bad width of a field";
	if (field->table_count == 0)
		return field->base ? "base of a field without frequency tables" : NULL;
	if (field->table_count != 1 && field->table_count != 2 && field->table_count != 4)
		return "bad number of frequency tables of a field";
	if (field->width > WCX_CODED_MAX_WIDTH)
		return "frequency tables for a field that is too wide";
	if (field->width > 8)
		return field->base > (1u << field->width) - WCX_SYMBOL_COUNT ? "base of a field too large" : NULL;
	return field->base ? "base of a narrow field" : NULL;
}

const char *wcx_recipe_check_fields(const struct wcx_recipe *recipe)
{
	uint32_t width = 0, planes = 0, most_tables = 0;

	if (!has_elem_bytes(recipe->elem_bytes))
		return "bad element size";
	if (recipe->rotation > 1)
		return "bad rotation";
	if (recipe->predictor >= WCX_PREDICTOR_COUNT)
		return "unknown predictor";
	if (recipe->field_count == 0 || recipe->field_count > WCX_FIELDS_MAX)
		return "bad number of fields";
	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const char *wrong = check_field(&recipe->fields[f]);

		if (wrong)
			return wrong;
		width += recipe->fields[f].width;
		planes += (uint32_t)__builtin_popcount(recipe->fields[f].width);
		if (recipe->fields[f].table_count > most_tables)
			most_tables = recipe->fields[f].table_count;
	}
	if (width != 8u * recipe->elem_bytes)
		return "fields do not make up an element";
	if (planes > WCX_RAW_PLANES_MAX)
		return "fields of too many raw planes";
	if (most_tables > 1 ? recipe->run == 0 || recipe->run % WCX_RANS_GROUP || recipe->run > WCX_TILE_MAX_ELEMS
			    : recipe->run != 0)
		return "bad run";
	return NULL;
}

const char *wcx_recipe_check(const struct wcx_recipe *recipe)
{
	const char *wrong = wcx_recipe_check_fields(recipe);

	for (uint32_t f = 0; f < recipe->field_count && !wrong; f++)
		for (uint32_t t = 0; t < recipe->fields[f].table_count && !wrong; t++)
			wrong = wcx_field_check_table(&recipe->fields[f], wcx_freq_table_last(&recipe->fields[f].tables[t]));
	return wrong;
}

/* Takes the next part of a packed tile; its offset.  None is large enough for *end to wrap around. */
static uint32_t take_part(uint32_t *end, uint32_t bytes)
{
	uint32_t offset = (*end + WCX_TILE_PART_ALIGN - 1) / WCX_TILE_PART_ALIGN * WCX_TILE_PART_ALIGN;

	*end = offset + bytes;
	return offset;
}

/* Notes what a field header says; of raw fields only how many planes they have. */
static enum wcx_result parse_header(const struct wcx_field *field, uint32_t number, uint32_t shift, uint32_t header,
				    struct wcx_tile_layout *ret)
{
	switch (header & 3) {
	case WCX_FIELD_RAW:
		ret->plane_count += (uint32_t)__builtin_popcount(field->width);
		return header >> 2 == 0 ? WCX_OK : WCX_BAD_DATA;
	case WCX_FIELD_RANS:
		/* Only the last coded field has exceptions. */
		if (!field->table_count || ret->exception_count)
			return WCX_BAD_DATA;
		ret->exception_count = header >> 2 & WCX_EXCEPTIONS_MAX;
		ret->coded[ret->coded_count++] =
			(struct wcx_coded_field){ .bytes = header >> 14, .field = (uint8_t)number, .shift = (uint8_t)shift };
		return WCX_OK;
	case WCX_FIELD_CONSTANT:
		ret->constant_bits |= (uint64_t)(header >> 8) << shift;
		return (header >> 2 & 63) == 0 && header >> 8 < UINT64_C(1) << field->width ? WCX_OK : WCX_BAD_DATA;
	}
	return WCX_BAD_DATA;
}

/* Places the raw planes of one field. */
static void place_planes(uint32_t width, uint32_t shift, uint32_t elems, uint32_t plane_count, uint32_t *end,
			 struct wcx_tile_layout *ret, uint32_t *placed)
{
	while (width) {
		uint32_t plane_width = wcx_raw_plane_width(width);
		uint32_t bytes = wcx_raw_plane_bytes(elems, plane_width);
		int is_last = *placed + 1 == plane_count;

		if (is_last && ret->coded_count && bytes >= WCX_CARRIED_BYTES)
			ret->plane_carried = WCX_CARRIED_BYTES;
		bytes -= is_last ? ret->plane_carried : 0;
		ret->planes[(*placed)++] = (struct wcx_raw_plane){
			.offset = take_part(end, bytes),
			.width = (uint8_t)plane_width,
			.shift = (uint8_t)shift,
		};
		shift += plane_width;
		width -= plane_width;
	}
}

/* Places the exceptions; without any, no part is there for them. */
static void place_exceptions(const struct wcx_recipe *recipe, uint32_t *end, struct wcx_tile_layout *ret)
{
	uint32_t bytes;

	if (!ret->exception_count)
		return;
	bytes = wcx_exceptions_bytes(ret->exception_count, recipe->fields[ret->coded[ret->coded_count - 1].field].width);
	if (bytes >= WCX_CARRIED_BYTES && !ret->plane_carried)
		ret->exception_carried = WCX_CARRIED_BYTES;
	ret->exception_bytes = bytes;
	ret->exception_offset = take_part(end, bytes - ret->exception_carried);
}

/* Places the choices, states and words of a coded field. */
static enum wcx_result place_payload(const struct wcx_recipe *recipe, uint32_t elems, uint32_t *end,
				     struct wcx_coded_field *coded)
{
	uint32_t choices = wcx_choices_bytes(recipe, &recipe->fields[coded->field], elems);
	uint32_t offset = take_part(end, coded->bytes);

	if (coded->bytes < choices + WCX_RANS_STATE_BYTES || coded->bytes % 2)
		return WCX_BAD_DATA;
	coded->offset = offset + choices;
	coded->bytes -= choices;
	return WCX_OK;
}

enum wcx_result wcx_tile_parse(const struct wcx_tile_shape *shape, const struct wcx_recipe *recipe, const uint8_t *src,
			       size_t src_bytes, struct wcx_tile_layout *ret)
{
	size_t tile_bytes = wcx_tile_shape_bytes(shape);
	uint32_t elems = shape->rows * shape->cols, shift = 0, placed = 0, end = 4u * recipe->field_count;
	enum wcx_result result = WCX_OK;

	if (!tile_bytes || shape->elem_bytes != recipe->elem_bytes)
		return WCX_WRONG_SIZE;
	if (src_bytes >= tile_bytes || src_bytes < end)
		return WCX_BAD_DATA;
	*ret = (struct wcx_tile_layout){ .plane_count = 0 };
	for (uint32_t f = 0; f < recipe->field_count && result == WCX_OK; f++) {
		result = parse_header(&recipe->fields[f], f, shift, wcx_le32_read(src + 4 * f), ret);
		shift += recipe->fields[f].width;
	}
	if (result != WCX_OK)
		return result;
	shift = 0;
	for (uint32_t f = 0; f < recipe->field_count; f++) {
		if ((src[4 * f] & 3) == WCX_FIELD_RAW)
			place_planes(recipe->fields[f].width, shift, elems, ret->plane_count, &end, ret, &placed);
		shift += recipe->fields[f].width;
	}
	place_exceptions(recipe, &end, ret);
	for (uint32_t i = 0; i < ret->coded_count && result == WCX_OK; i++)
		result = place_payload(recipe, elems, &end, &ret->coded[i]);
	return result == WCX_OK && end != src_bytes ? WCX_BAD_DATA : result;
}
