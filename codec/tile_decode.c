/* SPDX-License-Identifier: MIT */
/* Decodes tiles on the CPU. */
#include "codec/tile_layout.h"

#include <stdlib.h>
#include <string.h>

#include "codec/difference.h"
#include "codec/element.h"
#include "codec/escapes.h"
#include "codec/le.h"
#include "codec/rans.h"
#include "codec/table_cache.h"

enum {
	TILE_HALF_LINES_MAX = WCX_TILE_MAX_ELEMS / 2 / WCX_LANES, /* of two-byte elements */
	BLOCK_LINES = 32, /* processed together: their elements stay in the L1 cache, and no plane has longer units */
};

struct coded_stream {
	struct wcx_rans_stream stream;
	struct wcx_rans_reader reader;
	struct wcx_symbol_place place;
	const uint32_t *tables[WCX_FIELD_TABLES_MAX];
};

/* What one tile needs. */
struct tile_scratch {
	struct coded_stream coded[WCX_FIELDS_MAX]; /* in the order of the layout; the carrier is the last */
	uint8_t carried[WCX_CARRIED_BYTES];
	uint32_t words[BLOCK_LINES * WCX_LANES];           /* symbols of a block, */
	uint32_t contexts[BLOCK_LINES * WCX_LANES];        /* and their contexts */
	uint8_t last_line[WCX_LANES * WCX_ELEM_MAX_BYTES]; /* the tile's last line, if it is a partial one, */
	uint8_t last_base[WCX_LANES * WCX_ELEM_MAX_BYTES]; /* and that of the base */
	uint8_t exceptions[WCX_EXCEPTIONS_MAX * 4];        /* stored and carried bytes joined */
	uint64_t escapes[TILE_HALF_LINES_MAX];             /* for each line, a bit for each element without a value */
	uint16_t escape_positions[WCX_EXCEPTIONS_MAX + WCX_ESCAPES_MARGIN];
	struct wcx_context_map map;
};

struct wcx_decode_scratch {
	const struct wcx_decode_variant *variant;
	struct wcx_table_cache tables;
	struct tile_scratch tiles[WCX_RANS_PARTS_MAX];
};

/* A tile that is being decoded; arrays of them are decoded together. */
struct decoding {
	const struct wcx_tile_job *job;
	const struct wcx_recipe *recipe;
	uint32_t elems, lines, whole_lines;
	bool has_contexts; /* of some coded field */
	struct wcx_tile_layout layout;
	const struct wcx_decode_variant *variant;
	struct tile_scratch *own;
	struct wcx_table_cache *tables;
};

struct wcx_decode_scratch *wcx_decode_scratch_create(const struct wcx_decode_variant *variant)
{
	struct wcx_decode_scratch *scratch = calloc(1, sizeof *scratch);

	if (scratch)
		scratch->variant = variant;
	return scratch;
}

void wcx_decode_scratch_free(struct wcx_decode_scratch *scratch)
{
	free(scratch);
}

/* --- blocks of lines: whole lines in dst, or the partial one in last_line --- */

static uint8_t *line_at(const struct decoding *d, uint32_t line)
{
	return line < d->whole_lines ? d->job->dst + (size_t)line * wcx_line_bytes(d->recipe->elem_bytes)
				     : d->own->last_line;
}

static const uint8_t *base_line_at(const struct decoding *d, uint32_t line)
{
	return line < d->whole_lines ? d->job->base + (size_t)line * wcx_line_bytes(d->recipe->elem_bytes)
				     : d->own->last_base;
}

static void put_constants(const struct decoding *d, uint32_t first, uint32_t end)
{
	const uint32_t elem_bytes = d->recipe->elem_bytes;

	d->variant->fill(end - first, wcx_repeat(wcx_place_bits(d->recipe, d->layout.constant_bits), elem_bytes), elem_bytes,
			 line_at(d, first));
}

/* The streams of a coded field of all tiles, which are decoded to their words. */
static void list_parts(const struct decoding *tiles, unsigned count, uint32_t coded, struct wcx_rans_part *parts)
{
	for (unsigned t = 0; t < count; t++) {
		struct coded_stream *stream = &tiles[t].own->coded[coded];

		parts[t] = (struct wcx_rans_part){ .stream = &stream->stream,
						   .reader = &stream->reader,
						   .words = tiles[t].own->words };
	}
}

/* The end of the block that starts with this line. */
static uint32_t block_end(const struct decoding *d, uint32_t line, uint32_t end)
{
	if (line < d->whole_lines)
		end = WCX_MIN(end, d->whole_lines);
	return WCX_MIN(end, line + BLOCK_LINES);
}

/* Whether tiles have lines that make_lines makes, and then how. */
static bool find_line_recipe(const struct decoding *d, struct wcx_line_recipe *ret)
{
	const struct wcx_tile_layout *layout = &d->layout;
	const struct wcx_recipe *recipe = d->recipe;
	const struct wcx_symbol_place *place = &d->own->coded[0].place;

	if (recipe->elem_bytes > 2 || layout->coded_count != 1 || layout->plane_count > WCX_LINE_PLANES_MAX ||
	    recipe->difference != WCX_DIFFERENCE_NONE || (recipe->elem_bytes == 1 && place->is_pair) ||
	    (place->rotate && place->shift == 0))
		return false;
	*ret = (struct wcx_line_recipe){
		.place = *place,
		.constant = (uint32_t)wcx_repeat(wcx_place_bits(recipe, layout->constant_bits), recipe->elem_bytes),
		.plane_count = layout->plane_count,
	};
	if (place->rotate) {
		/* The bit that changes sides is the lowest, and not a symbol's. */
		ret->place.shift--;
		ret->place.rotate = false;
	}
	if (recipe->transform == WCX_TRANSFORM_FOLD)
		ret->fold_mask = (uint32_t)wcx_repeat(wcx_place_bits(recipe, wcx_fold_bits(recipe)), 1);
	for (uint32_t i = 0; i < layout->plane_count; i++) {
		const struct wcx_raw_plane *plane = &layout->planes[i];
		const uint64_t bits = wcx_place_bits(recipe, wcx_bit_range(plane->shift, plane->width));

		ret->planes[i] = (struct wcx_line_plane){ d->job->src + plane->offset, plane->width,
							  (uint32_t)wcx_repeat(bits, recipe->elem_bytes) };
	}
	return true;
}

/* Whether some variants have a loop for such lines. */
static bool fits_half_sink(const struct decoding *d, const struct wcx_line_recipe *recipe)
{
	return d->variant->decode_halves && d->recipe->elem_bytes == 2 && !recipe->place.is_pair;
}

/* Decodes lines [line, end), none of whose raw bits are carried, with that loop; *line becomes the first one not decoded. */
static enum wcx_result make_halves(const struct decoding *tiles, unsigned count, uint32_t *line, uint32_t end,
				   const struct wcx_line_recipe *recipes)
{
	struct wcx_rans_part parts[WCX_RANS_PARTS_MAX];
	struct wcx_half_sink sinks[WCX_RANS_PARTS_MAX];
	const uint32_t first = *line;

	*line = WCX_MAX(first, WCX_MIN(end, tiles->whole_lines));
	list_parts(tiles, count, 0, parts);
	for (unsigned t = 0; t < count; t++) {
		sinks[t] = (struct wcx_half_sink){ &recipes[t], tiles[t].job->dst };
		parts[t].halves = &sinks[t];
	}
	return wcx_rans_decode_parts(tiles->variant, parts, count, first, *line);
}

/* The same as make_lines does it. */
static enum wcx_result make_blocks(const struct decoding *tiles, unsigned count, uint32_t line, uint32_t end,
				   const struct wcx_line_recipe *recipes)
{
	struct wcx_rans_part parts[WCX_RANS_PARTS_MAX];
	enum wcx_result result = WCX_OK;

	list_parts(tiles, count, 0, parts);
	for (uint32_t next; line < end && result == WCX_OK; line = next) {
		next = block_end(tiles, line, end);
		result = wcx_rans_decode_parts(tiles->variant, parts, count, line, next);
		for (unsigned t = 0; t < count && result == WCX_OK; t++)
			tiles->variant->make_lines(&recipes[t], parts[t].words, line, next - line, line_at(&tiles[t], line));
	}
	return result;
}

/* Whether the tile's only field has escapes. */
static bool has_escapes(const struct decoding *d)
{
	return d->layout.coded_count && d->recipe->fields[d->layout.coded[0].field].has_escapes;
}

static enum wcx_result put_symbols(const struct decoding *tiles, unsigned count, uint32_t first, uint32_t end)
{
	const struct wcx_decode_variant *variant = tiles->variant;
	struct wcx_rans_part parts[WCX_RANS_PARTS_MAX];

	for (unsigned t = 0; t < count && tiles->has_contexts; t++)
		variant->find_contexts(tiles[t].recipe, base_line_at(&tiles[t], first), end - first, tiles[t].own->contexts);
	for (uint32_t i = 0; i < tiles->layout.coded_count; i++) {
		enum wcx_result result;

		list_parts(tiles, count, i, parts);
		result = wcx_rans_decode_parts(variant, parts, count, first, end);
		if (result != WCX_OK)
			return result;
		for (unsigned t = 0; t < count; t++)
			variant->put_symbols(parts[t].words, end - first, &tiles[t].own->coded[i].place,
					     line_at(&tiles[t], first));
	}
	for (unsigned t = 0; t < count && has_escapes(tiles); t++)
		wcx_escapes_note(tiles[t].own->words, end - first, tiles[t].own->escapes + first);
	return WCX_OK;
}

/* Adds lines [first, end) of a raw plane to out; unit holds the first of them. */
static void put_plane_lines(const struct decoding *d, const struct wcx_raw_plane *plane, const uint8_t *unit, uint32_t first,
			    uint32_t end, void *out)
{
	const uint64_t bits = wcx_bit_range(plane->shift, plane->width);
	const uint64_t mask = wcx_repeat(wcx_place_bits(d->recipe, bits), d->recipe->elem_bytes);

	if (first < end)
		d->variant->put_plane(unit, first, end - first, plane->width, mask, d->recipe->elem_bytes, out);
}

/* The same for a plane whose last unit ends with the bytes carried, if it has any. */
static void put_plane(const struct decoding *d, const struct wcx_raw_plane *plane, bool carried, uint32_t first,
		      uint32_t end, uint8_t *out)
{
	const uint32_t elem_bytes = d->recipe->elem_bytes, unit_lines = wcx_unit_lines(plane->width, elem_bytes);
	const uint32_t stored_units = wcx_plane_units(d->lines, plane->width, elem_bytes) - carried;
	const uint32_t stored = WCX_MIN(stored_units * unit_lines, end);
	const uint8_t *units = d->job->src + plane->offset;
	uint8_t last[WCX_PLANE_UNIT_BYTES];

	put_plane_lines(d, plane, units + (size_t)(first / unit_lines) * WCX_PLANE_UNIT_BYTES, first, stored, out);
	if (stored == end)
		return;
	memcpy(last, units + (size_t)stored_units * WCX_PLANE_UNIT_BYTES, sizeof last - WCX_CARRIED_BYTES);
	memcpy(last + sizeof last - WCX_CARRIED_BYTES, d->own->carried, WCX_CARRIED_BYTES);
	if (first < stored)
		out += (size_t)(stored - first) * wcx_line_bytes(elem_bytes);
	put_plane_lines(d, plane, last, WCX_MAX(first, stored), end, out);
}

static void put_planes(const struct decoding *d, uint32_t first, uint32_t end)
{
	const uint32_t planes = d->layout.plane_count;

	for (uint32_t i = 0; i < planes; i++)
		put_plane(d, &d->layout.planes[i], i + 1 == planes && d->layout.plane_carried, first, end,
			  line_at(d, first));
}

static void fold(const struct decoding *d, uint32_t first, uint32_t end)
{
	const uint32_t mask = (uint32_t)wcx_repeat(wcx_place_bits(d->recipe, wcx_fold_bits(d->recipe)), 1);

	if (d->recipe->transform == WCX_TRANSFORM_FOLD)
		d->variant->fold(end - first, mask, line_at(d, first));
}

/*
 * Lines are decoded in two phases.  SYMBOLS writes constants and the symbols of all streams, RAW_BITS adds the raw planes
 * and then undoes the folding or the difference, which needs whole elements.  A block takes both phases while it is in the
 * L1 cache, unless some of its raw bits are carried: those are known only after all symbols.
 */
enum { SYMBOLS = 1, RAW_BITS = 2 };

static void put_raw_bits(const struct decoding *d, uint32_t first, uint32_t end)
{
	put_planes(d, first, end);
	fold(d, first, end);
	if (d->recipe->difference != WCX_DIFFERENCE_NONE)
		d->variant->undo_difference(d->recipe, base_line_at(d, first), end - first, line_at(d, first));
}

static enum wcx_result decode_blocks(const struct decoding *tiles, unsigned count, uint32_t line, uint32_t end,
				     unsigned phases)
{
	enum wcx_result result = WCX_OK;

	for (uint32_t next; line < end && result == WCX_OK; line = next) {
		next = block_end(tiles, line, end);
		if (phases & SYMBOLS) {
			for (unsigned t = 0; t < count; t++)
				put_constants(&tiles[t], line, next);
			result = put_symbols(tiles, count, line, next);
		}
		for (unsigned t = 0; t < count && phases & RAW_BITS; t++)
			put_raw_bits(&tiles[t], line, next);
	}
	return result;
}

/* --- parts of a tile --- */

static enum wcx_result open_coded(const struct decoding *d, const struct wcx_coded_field *layout, struct coded_stream *coded,
				  struct wcx_tables_in_use *in_use)
{
	const struct wcx_recipe *recipe = d->recipe;
	const struct wcx_field *field = &recipe->fields[layout->field];
	const uint8_t *src = d->job->src + layout->offset;

	wcx_table_cache_get(d->tables, field, in_use, coded->tables);
	coded->place = (struct wcx_symbol_place){
		.shift = layout->shift,
		.base = field->base,
		.elem_bytes = recipe->elem_bytes,
		.is_pair = field->is_pair,
		.has_zero = field->has_zero,
		.rotate = recipe->transform != WCX_TRANSFORM_NONE,
	};
	coded->stream = (struct wcx_rans_stream){
		.tables = coded->tables,
		.slot_shift = field->has_escapes ? WCX_COARSE_BITS : 0,
		.contexts = field->by_context ? d->own->contexts : NULL,
		.choices = { src - wcx_choices_bytes(recipe, field, d->elems), wcx_choice_bits(field),
			     recipe->run_elems / wcx_line_elems(recipe->elem_bytes) },
		.src = src,
		.src_bytes = layout->states_bytes + layout->words_bytes,
		.symbol_count = wcx_field_symbols(field, d->elems),
		.steps = wcx_field_steps(field, recipe->elem_bytes),
	};
	return wcx_rans_open(&coded->stream, &coded->reader);
}

static enum wcx_result open_streams(struct decoding *d)
{
	enum wcx_result result = WCX_OK;
	struct wcx_tables_in_use in_use = { 0 };

	for (uint32_t i = 0; i < d->layout.coded_count && result == WCX_OK; i++) {
		result = open_coded(d, &d->layout.coded[i], &d->own->coded[i], &in_use);
		d->has_contexts |= d->recipe->fields[d->layout.coded[i].field].by_context;
	}
	return result;
}

/* Closes the streams, which yields the carried bytes; only the carrier may have any. */
static enum wcx_result close_streams(const struct decoding *d)
{
	const uint32_t count = d->layout.coded_count;
	const bool carries = d->layout.plane_carried + d->layout.exception_carried != 0;

	for (uint32_t i = 0; i < count; i++)
		if (wcx_rans_close(&d->own->coded[i].reader, carries && i + 1 == count ? d->own->carried : NULL) != WCX_OK)
			return WCX_BAD_DATA;
	return WCX_OK;
}

/*
 * Whether elements consist of pairs above raw bits, four in folded bytes or eight in rotated elements of two bytes: some
 * variants take both phases of these in one loop.
 */
static bool fits_pair_sink(const struct decoding *d)
{
	const struct wcx_tile_layout *layout = &d->layout;
	const uint32_t elem_bytes = d->recipe->elem_bytes;

	return d->variant->decode_pairs && layout->plane_count == 1 && layout->coded_count == 1 &&
	       d->recipe->fields[layout->coded[0].field].is_pair && layout->planes[0].shift == 0 &&
	       layout->planes[0].width == WCX_PAIR_WIDTH * elem_bytes &&
	       layout->coded[0].shift == WCX_PAIR_WIDTH * elem_bytes &&
	       d->recipe->transform == (elem_bytes == 1 ? WCX_TRANSFORM_FOLD : WCX_TRANSFORM_ROTATE);
}

/* The number of leading lines whose raw bits are all stored: a carried part belongs to the last unit of the last plane. */
static uint32_t stored_lines(const struct decoding *d)
{
	const uint32_t elem_bytes = d->recipe->elem_bytes;
	uint32_t width;

	if (!d->layout.plane_carried)
		return d->lines;
	width = d->layout.planes[d->layout.plane_count - 1].width;
	return (wcx_plane_units(d->lines, width, elem_bytes) - 1) * wcx_unit_lines(width, elem_bytes);
}

/* Decodes lines [0, end) of pairs into the tiles. */
static enum wcx_result decode_pairs(const struct decoding *tiles, unsigned count, uint32_t end)
{
	struct wcx_rans_part parts[WCX_RANS_PARTS_MAX];
	struct wcx_pair_sink sinks[WCX_RANS_PARTS_MAX];

	list_parts(tiles, count, 0, parts);
	for (unsigned t = 0; t < count; t++) {
		const struct decoding *d = &tiles[t];
		const uint64_t base = (uint64_t)d->own->coded[0].place.base << d->layout.coded[0].shift;

		sinks[t] = (struct wcx_pair_sink){ d->job->src + d->layout.planes[0].offset, d->job->dst,
						   (uint32_t)wcx_repeat(wcx_place_bits(d->recipe, base),
									d->recipe->elem_bytes) };
		parts[t].sink = &sinks[t];
	}
	return wcx_rans_decode_parts(tiles->variant, parts, count, 0, end);
}

/* Whether elements of two bytes are a single coded field of residuals with escapes, for which some variants have a loop. */
static bool fits_differences(const struct decoding *d)
{
	return d->variant->decode_differences && has_escapes(d);
}

/* Decodes lines [0, end) of such residuals into the tiles, all with the same contexts. */
static enum wcx_result decode_differences(const struct decoding *tiles, unsigned count, uint32_t end)
{
	struct wcx_rans_part parts[WCX_RANS_PARTS_MAX];
	struct wcx_difference_sink sinks[WCX_RANS_PARTS_MAX];

	list_parts(tiles, count, 0, parts);
	wcx_context_map_make(tiles->recipe, tiles->recipe->fields[0].by_context, &tiles->own->map);
	for (unsigned t = 0; t < count; t++) {
		sinks[t] = (struct wcx_difference_sink){ &tiles->own->map, tiles[t].job->base, tiles[t].job->dst,
							 tiles[t].own->escapes };
		parts[t].differences = &sinks[t];
	}
	return wcx_rans_decode_parts(tiles->variant, parts, count, 0, end);
}

/* Everything but exceptions. */
static enum wcx_result decode_lines(struct decoding *tiles, unsigned count)
{
	const uint32_t stored = stored_lines(tiles), lines = tiles->lines;
	struct wcx_line_recipe recipes[WCX_RANS_PARTS_MAX];
	enum wcx_result result = WCX_OK;
	bool have_recipes = true;
	uint32_t line = 0;

	for (unsigned t = 0; t < count && result == WCX_OK; t++)
		result = open_streams(&tiles[t]);
	if (result == WCX_OK && fits_pair_sink(tiles)) {
		line = WCX_MIN(stored, tiles->whole_lines);
		result = decode_pairs(tiles, count, line);
	}
	if (result == WCX_OK && fits_differences(tiles)) {
		line = tiles->whole_lines;
		result = decode_differences(tiles, count, line);
	}
	for (unsigned t = 0; t < count && result == WCX_OK; t++)
		have_recipes = find_line_recipe(&tiles[t], &recipes[t]) && have_recipes;
	if (result == WCX_OK && have_recipes && fits_half_sink(tiles, recipes))
		result = make_halves(tiles, count, &line, stored, recipes);
	if (result == WCX_OK && have_recipes)
		result = make_blocks(tiles, count, line, stored, recipes);
	else if (result == WCX_OK)
		result = decode_blocks(tiles, count, line, stored, SYMBOLS | RAW_BITS);
	if (result == WCX_OK)
		result = decode_blocks(tiles, count, stored, lines, SYMBOLS);
	for (unsigned t = 0; t < count && result == WCX_OK; t++)
		result = close_streams(&tiles[t]);
	if (result == WCX_OK)
		result = decode_blocks(tiles, count, stored, lines, RAW_BITS);
	return result;
}

/*
 * Replaces the carrier's bits of an element.  A difference has been undone already, which is cheaper than undoing those of
 * the whole tile after the exceptions: the residual is made again.
 */
static void put_exception(const struct decoding *d, uint32_t position, uint64_t mask, uint64_t bits)
{
	const enum wcx_difference difference = (enum wcx_difference)d->recipe->difference;
	const uint32_t elem_bytes = d->recipe->elem_bytes;
	uint8_t *element = d->job->dst + (size_t)position * elem_bytes;
	const uint8_t *base = d->job->base;

	if (difference != WCX_DIFFERENCE_NONE) {
		base += (size_t)position * elem_bytes;
		wcx_difference_residuals(difference, elem_bytes, element, base, 1, element);
	}
	wcx_element_ops(elem_bytes)->replace(element, 0, mask, bits, d->recipe->transform == WCX_TRANSFORM_FOLD);
	if (difference != WCX_DIFFERENCE_NONE)
		wcx_difference_undo(difference, elem_bytes, base, 1, element);
}

/* Gives elements without a value theirs. */
static enum wcx_result put_escapes(const struct decoding *d, const uint8_t *values)
{
	if (!d->variant->list_escapes(d->own->escapes, d->lines, d->layout.exception_count, d->own->escape_positions))
		return WCX_BAD_DATA;
	wcx_difference_scatter16((enum wcx_difference)d->recipe->difference, values, d->own->escape_positions,
				 d->layout.exception_count, d->job->base, d->job->dst);
	return WCX_OK;
}

/* Replaces the carrier's bits of exceptional elements, whose positions must ascend. */
static enum wcx_result put_exceptions(const struct decoding *d)
{
	const struct wcx_tile_layout *layout = &d->layout;
	const struct wcx_coded_field *carrier = &layout->coded[layout->coded_count - 1];
	const uint32_t width = d->recipe->fields[carrier->field].width, count = layout->exception_count;
	const uint64_t mask = wcx_place_bits(d->recipe, wcx_bit_range(carrier->shift, width));
	const uint32_t stored = layout->exception_bytes - layout->exception_carried;
	const uint8_t *positions = d->job->src + layout->exception_offset, *values;
	uint32_t after = 0;

	if (layout->exception_carried) {
		memcpy(d->own->exceptions, positions, stored);
		memcpy(d->own->exceptions + stored, d->own->carried, WCX_CARRIED_BYTES);
		positions = d->own->exceptions;
	}
	if (has_escapes(d))
		return put_escapes(d, positions);
	values = positions + 2 * count;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t position = wcx_le16_read(positions + 2 * i);
		uint32_t value = width <= 8 ? values[i] : wcx_le16_read(values + 2 * i);

		if (position < after || position >= d->elems || value >> width)
			return WCX_BAD_DATA;
		put_exception(d, position, mask, wcx_place_bits(d->recipe, (uint64_t)value << carrier->shift));
		after = position + 1;
	}
	return WCX_OK;
}

/* Reads the header of a coded tile. */
static enum wcx_result begin_coded(const struct wcx_tile_job *job, struct wcx_decode_scratch *scratch,
				   struct tile_scratch *own, struct decoding *ret)
{
	const struct wcx_recipe *recipe = job->recipe;
	enum wcx_result result;
	size_t whole_bytes;

	*ret = (struct decoding){
		.job = job,
		.recipe = recipe,
		.elems = job->dims.rows * job->dims.cols,
		.variant = scratch->variant,
		.own = own,
		.tables = &scratch->tables,
	};
	result = wcx_tile_parse(&job->dims, recipe, job->src, job->src_bytes, &ret->layout);
	if (result != WCX_OK)
		return result;
	if (recipe->difference != WCX_DIFFERENCE_NONE && !job->base)
		return WCX_BAD_DATA;
	ret->lines = wcx_line_count(ret->elems, recipe->elem_bytes);
	ret->whole_lines = ret->elems / wcx_line_elems(recipe->elem_bytes);
	whole_bytes = (size_t)ret->whole_lines * wcx_line_bytes(recipe->elem_bytes);
	if (recipe->difference != WCX_DIFFERENCE_NONE) {
		memset(own->last_base, 0, sizeof own->last_base);
		memcpy(own->last_base, job->base + whole_bytes, job->dst_bytes - whole_bytes);
	}
	return WCX_OK;
}

/* What is left after all lines. */
static enum wcx_result end_coded(const struct decoding *d)
{
	const struct wcx_tile_job *job = d->job;
	const size_t whole_bytes = (size_t)d->whole_lines * wcx_line_bytes(d->recipe->elem_bytes);
	enum wcx_result result = WCX_OK;

	memcpy(job->dst + whole_bytes, d->own->last_line, job->dst_bytes - whole_bytes);
	if (d->layout.exception_count || has_escapes(d))
		result = put_exceptions(d);
	if (result == WCX_OK &&
	    !wcx_element_ops(d->recipe->elem_bytes)
		     ->undo_residuals((enum wcx_predictor)d->recipe->predictor, job->dims.rows, job->dims.cols, job->dst))
		result = WCX_BAD_DATA;
	return result;
}

static enum wcx_result decode_coded(const struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	struct decoding d;
	enum wcx_result result = begin_coded(job, scratch, &scratch->tiles[0], &d);

	if (result == WCX_OK)
		result = decode_lines(&d, 1);
	if (result == WCX_OK)
		result = end_coded(&d);
	return result;
}

/* --- several tiles together --- */

/*
 * Whether two jobs are coded tiles of one tensor and one size.  Differences are alike where the fields of residuals may all
 * be one: see fits_differences.
 */
static bool are_alike(const struct wcx_tile_job *a, const struct wcx_tile_job *b)
{
	return a->mode == WCX_TILE_CODED && b->mode == WCX_TILE_CODED && a->recipe == b->recipe &&
	       (a->recipe->difference == WCX_DIFFERENCE_NONE || (a->recipe->field_count == 1 && a->dims.elem_bytes == 2)) &&
	       memcmp(&a->dims, &b->dims, sizeof a->dims) == 0 && a->dst_bytes == wcx_tile_dims_bytes(&a->dims) &&
	       a->dst_bytes && b->dst_bytes == a->dst_bytes;
}

/* Whether two tiles have the same fields constant, with the same values, and the same planes. */
static bool have_like_planes(const struct wcx_tile_layout *a, const struct wcx_tile_layout *b)
{
	if (a->constant_bits != b->constant_bits || a->plane_count != b->plane_count)
		return false;
	for (uint32_t i = 0; i < a->plane_count; i++)
		if (a->planes[i].width != b->planes[i].width || a->planes[i].shift != b->planes[i].shift)
			return false;
	return true;
}

/*
 * Whether the lines of two tiles have the same fields coded, and their parts in the same phases.  The coding of fields
 * without tables is each tile's own too, and loops that finish elements take what is constant, and where planes are, of the
 * first tile.
 */
static bool have_like_lines(const struct decoding *a, const struct decoding *b)
{
	if (a->layout.coded_count != b->layout.coded_count || stored_lines(a) != stored_lines(b) ||
	    !have_like_planes(&a->layout, &b->layout) || fits_pair_sink(a) != fits_pair_sink(b) ||
	    (a->recipe->difference != WCX_DIFFERENCE_NONE && !fits_differences(a)))
		return false;
	for (uint32_t i = 0; i < a->layout.coded_count; i++)
		if (a->layout.coded[i].field != b->layout.coded[i].field)
			return false;
	return true;
}

/* Sets the results of jobs that are alike; false if they have to be decoded one by one, as when one of them is damaged. */
static bool decode_together(struct wcx_tile_job *jobs, unsigned count, struct wcx_decode_scratch *scratch)
{
	struct decoding tiles[WCX_RANS_PARTS_MAX];

	if (begin_coded(&jobs[0], scratch, &scratch->tiles[0], &tiles[0]) != WCX_OK)
		return false;
	for (unsigned t = 1; t < count; t++)
		if (begin_coded(&jobs[t], scratch, &scratch->tiles[t], &tiles[t]) != WCX_OK ||
		    !have_like_lines(&tiles[0], &tiles[t]))
			return false;
	if (decode_lines(tiles, count) != WCX_OK)
		return false;
	for (unsigned t = 0; t < count; t++)
		jobs[t].result = end_coded(&tiles[t]);
	return true;
}

/* How many of the jobs, at least one, are to be decoded together. */
static unsigned count_alike(const struct wcx_tile_job *jobs, size_t count, const struct wcx_decode_variant *variant)
{
	const bool is_difference = jobs->recipe && jobs->recipe->difference != WCX_DIFFERENCE_NONE;
	const bool may_choose = !is_difference && jobs->recipe && jobs->recipe->run_elems;
	const unsigned most = may_choose ? variant->parts_max_with_choices : variant->parts_max;
	unsigned alike = 1;

	while (alike < most && alike < count && are_alike(&jobs[0], &jobs[alike]))
		alike++;
	return alike;
}

void wcx_tiles_decode(struct wcx_tile_job *jobs, size_t count, struct wcx_decode_scratch *scratch)
{
	if (scratch)
		wcx_table_cache_forget(&scratch->tables);
	while (count) {
		unsigned done = count_alike(jobs, count, scratch->variant);

		if (done == 1 || !decode_together(jobs, done, scratch)) {
			wcx_tile_decode(jobs, scratch);
			done = 1;
		}
		jobs += done;
		count -= done;
	}
}

/* Every element, or the residual of every element, is the same. */
static enum wcx_result decode_constant(const struct wcx_tile_job *job)
{
	const uint32_t elem_bytes = job->dims.elem_bytes;
	const size_t elems = job->dst_bytes / elem_bytes;
	const enum wcx_difference difference =
		job->recipe ? (enum wcx_difference)job->recipe->difference : WCX_DIFFERENCE_NONE;

	if (difference != WCX_DIFFERENCE_NONE && (difference >= WCX_DIFFERENCE_COUNT || !job->base))
		return WCX_BAD_DATA;
	if (difference != WCX_DIFFERENCE_NONE && !job->constant) {
		memcpy(job->dst, job->base, job->dst_bytes);
		return WCX_OK;
	}
	wcx_element_ops(elem_bytes)->fill(job->dst, elems, job->constant);
	if (difference != WCX_DIFFERENCE_NONE)
		wcx_difference_undo(difference, elem_bytes, job->base, elems, job->dst);
	return WCX_OK;
}

enum wcx_result wcx_tile_decode(struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	size_t tile_bytes = wcx_tile_dims_bytes(&job->dims);

	if (scratch)
		wcx_table_cache_forget(&scratch->tables);
	job->result = WCX_BAD_DATA;
	if (!tile_bytes || job->dst_bytes != tile_bytes) {
		job->result = WCX_WRONG_SIZE;
		return job->result;
	}
	switch (job->mode) {
	case WCX_TILE_STORED:
		if (job->src_bytes == tile_bytes) {
			memcpy(job->dst, job->src, tile_bytes);
			job->result = WCX_OK;
		}
		break;
	case WCX_TILE_CODED:
		job->result = decode_coded(job, scratch);
		break;
	case WCX_TILE_CONSTANT:
		job->result = decode_constant(job);
		break;
	case WCX_TILE_ZSTD:
	case WCX_TILE_MODE_COUNT:
		break;
	}
	return job->result;
}
