/* SPDX-License-Identifier: MIT */
/* Decodes tiles on the CPU. */
#include "codec/tile_layout.h"

#include <stdlib.h>
#include <string.h>

#include "codec/difference.h"
#include "codec/element.h"
#include "codec/le.h"
#include "codec/rans.h"

enum {
	CACHED_TABLES = WCX_RECIPE_TABLES_MAX, /* a tile's most; neighbouring tiles mostly share tables */
	CACHED_SETS = WCX_FIELDS_MAX,          /* likewise of sets with a table for each context */
	BLOCK_LINES = 32, /* processed together: their elements stay in the L1 cache, and no plane has longer units */
};

struct coded_stream {
	struct wcx_rans_stream stream;
	struct wcx_rans_reader reader;
	struct wcx_symbol_place place;
	const struct wcx_rans_decode_table *tables[WCX_FIELD_TABLES_MAX];
};

struct wcx_decode_scratch {
	const struct wcx_decode_variant *variant;
	struct cached_table {
		struct wcx_freq_table freqs; /* key: the field's table and whether it is one of pairs */
		bool is_pair;
		struct wcx_rans_decode_table table;
	} cached[CACHED_TABLES];
	uint32_t next_victim;
	struct cached_set {
		struct wcx_freq_table freqs[WCX_CONTEXTS_MAX]; /* key, with their number */
		uint32_t count;
		struct wcx_rans_decode_table tables[WCX_CONTEXTS_MAX];
	} sets[CACHED_SETS];
	uint32_t next_set_victim;
	struct coded_stream coded[WCX_FIELDS_MAX]; /* in the order of the layout; the carrier is the last */
	uint8_t carried[WCX_CARRIED_BYTES];
	uint32_t words[BLOCK_LINES * WCX_LANES];           /* symbols of a block, */
	uint32_t contexts[BLOCK_LINES * WCX_LANES];        /* and their contexts */
	uint8_t last_line[WCX_LANES * WCX_ELEM_MAX_BYTES]; /* the tile's last line, if it is a partial one, */
	uint8_t last_base[WCX_LANES * WCX_ELEM_MAX_BYTES]; /* and that of the base */
	uint8_t exceptions[WCX_EXCEPTIONS_MAX * 4];        /* stored and carried bytes joined */
};

/* The tile being decoded. */
struct decoding {
	const struct wcx_tile_job *job;
	const struct wcx_recipe *recipe;
	uint32_t elems, lines, whole_lines;
	bool has_contexts; /* of some coded field */
	struct wcx_tile_layout layout;
	struct wcx_decode_scratch *scratch;
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

/* The decoding table for one of a field's tables.  Never evicts those in the bit set *in_use, to which it is added. */
static const struct wcx_rans_decode_table *cached_table(struct wcx_decode_scratch *scratch, const struct wcx_field *field,
							uint32_t number, uint64_t *in_use)
{
	const struct wcx_freq_table *freqs = &field->tables[number];
	struct wcx_freq_table pairs;
	uint32_t i = 0;

	while (i < CACHED_TABLES && (scratch->cached[i].is_pair != field->is_pair ||
				     memcmp(&scratch->cached[i].freqs, freqs, sizeof *freqs) != 0))
		i++;
	if (i == CACHED_TABLES) {
		do {
			i = scratch->next_victim;
			scratch->next_victim = (i + 1) % CACHED_TABLES;
		} while (*in_use >> i & 1);
		scratch->cached[i].freqs = *freqs;
		scratch->cached[i].is_pair = field->is_pair;
		wcx_rans_decode_table_build(wcx_field_table(field, number, &pairs), &scratch->cached[i].table);
	}
	*in_use |= UINT64_C(1) << i;
	return &scratch->cached[i].table;
}

/* The same for the tables of all contexts, which are neighbours in memory. */
static const struct wcx_rans_decode_table *cached_set(struct wcx_decode_scratch *scratch, const struct wcx_field *field,
						      uint64_t *in_use)
{
	const size_t key_bytes = field->table_count * sizeof *field->tables;
	struct cached_set *set;
	uint32_t i = 0;

	while (i < CACHED_SETS && (scratch->sets[i].count != field->table_count ||
				   memcmp(scratch->sets[i].freqs, field->tables, key_bytes) != 0))
		i++;
	if (i == CACHED_SETS) {
		do {
			i = scratch->next_set_victim;
			scratch->next_set_victim = (i + 1) % CACHED_SETS;
		} while (*in_use >> i & 1);
		set = &scratch->sets[i];
		set->count = field->table_count;
		memcpy(set->freqs, field->tables, key_bytes);
		for (uint32_t t = 0; t < set->count; t++)
			wcx_rans_decode_table_build(&set->freqs[t], &set->tables[t]);
	}
	*in_use |= UINT64_C(1) << i;
	return scratch->sets[i].tables;
}

/* --- blocks of lines: whole lines in dst, or the partial one in last_line --- */

static uint8_t *line_at(const struct decoding *d, uint32_t line)
{
	return line < d->whole_lines ? d->job->dst + (size_t)line * wcx_line_bytes(d->recipe->elem_bytes)
				     : d->scratch->last_line;
}

static const uint8_t *base_line_at(const struct decoding *d, uint32_t line)
{
	return line < d->whole_lines ? d->job->base + (size_t)line * wcx_line_bytes(d->recipe->elem_bytes)
				     : d->scratch->last_base;
}

static void put_constants(const struct decoding *d, uint32_t first, uint32_t end)
{
	const uint32_t elem_bytes = d->recipe->elem_bytes;

	d->scratch->variant->fill(end - first, wcx_repeat(wcx_place_bits(d->recipe, d->layout.constant_bits), elem_bytes),
				  elem_bytes, line_at(d, first));
}

static enum wcx_result put_symbols(const struct decoding *d, uint32_t first, uint32_t end)
{
	struct wcx_decode_scratch *scratch = d->scratch;

	if (d->has_contexts)
		scratch->variant->find_contexts(d->recipe, base_line_at(d, first), end - first, scratch->contexts);
	for (uint32_t i = 0; i < d->layout.coded_count; i++) {
		struct coded_stream *coded = &scratch->coded[i];
		enum wcx_result result =
			wcx_rans_decode_lines(scratch->variant, &coded->stream, &coded->reader, first, end, scratch->words);

		if (result != WCX_OK)
			return result;
		scratch->variant->put_symbols(scratch->words, end - first, &coded->place, line_at(d, first));
	}
	return WCX_OK;
}

/* Adds lines [first, end) of a raw plane to out; unit holds the first of them. */
static void put_plane_lines(const struct decoding *d, const struct wcx_raw_plane *plane, const uint8_t *unit, uint32_t first,
			    uint32_t end, void *out)
{
	const uint64_t bits = wcx_bit_range(plane->shift, plane->width);
	const uint64_t mask = wcx_repeat(wcx_place_bits(d->recipe, bits), d->recipe->elem_bytes);

	if (first < end)
		d->scratch->variant->put_plane(unit, first, end - first, plane->width, mask, d->recipe->elem_bytes, out);
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
	memcpy(last + sizeof last - WCX_CARRIED_BYTES, d->scratch->carried, WCX_CARRIED_BYTES);
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
		d->scratch->variant->fold(end - first, mask, line_at(d, first));
}

/* The end of the block that starts with this line. */
static uint32_t block_end(const struct decoding *d, uint32_t line, uint32_t end)
{
	if (line < d->whole_lines)
		end = WCX_MIN(end, d->whole_lines);
	return WCX_MIN(end, line + BLOCK_LINES);
}

/*
 * Lines are decoded in two phases.  SYMBOLS writes constants and the symbols of all streams, RAW_BITS adds the raw planes
 * and then undoes the folding or the difference, which needs whole elements.  A block takes both phases while it is in the
 * L1 cache, unless some of its raw bits are carried: those are known only after all symbols.
 */
enum { SYMBOLS = 1, RAW_BITS = 2 };

static enum wcx_result decode_blocks(const struct decoding *d, uint32_t line, uint32_t end, unsigned phases)
{
	enum wcx_result result = WCX_OK;

	for (uint32_t next; line < end && result == WCX_OK; line = next) {
		next = block_end(d, line, end);
		if (phases & SYMBOLS) {
			put_constants(d, line, next);
			result = put_symbols(d, line, next);
		}
		if (phases & RAW_BITS) {
			put_planes(d, line, next);
			fold(d, line, next);
			if (d->recipe->difference != WCX_DIFFERENCE_NONE)
				d->scratch->variant->undo_difference(d->recipe, base_line_at(d, line), next - line,
								     line_at(d, line));
		}
	}
	return result;
}

/* --- parts of a tile --- */

/* Sets of cached tables that are in use. */
struct tables_in_use {
	uint64_t single, sets;
};

static enum wcx_result open_coded(const struct decoding *d, const struct wcx_coded_field *layout, struct coded_stream *coded,
				  struct tables_in_use *in_use)
{
	const struct wcx_recipe *recipe = d->recipe;
	const struct wcx_field *field = &recipe->fields[layout->field];
	const uint8_t *src = d->job->src + layout->offset;

	if (field->by_context)
		coded->tables[0] = cached_set(d->scratch, field, &in_use->sets);
	for (uint32_t t = 0; t < field->table_count && !field->by_context; t++)
		coded->tables[t] = cached_table(d->scratch, field, t, &in_use->single);
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
		.contexts = field->by_context ? d->scratch->contexts : NULL,
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
	struct tables_in_use in_use = { 0 };

	for (uint32_t i = 0; i < d->layout.coded_count && result == WCX_OK; i++) {
		result = open_coded(d, &d->layout.coded[i], &d->scratch->coded[i], &in_use);
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
		if (wcx_rans_close(&d->scratch->coded[i].reader, carries && i + 1 == count ? d->scratch->carried : NULL) !=
		    WCX_OK)
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

	return d->scratch->variant->decode_pairs && layout->plane_count == 1 && layout->coded_count == 1 &&
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

/* Everything but exceptions. */
static enum wcx_result decode_lines(struct decoding *d)
{
	const uint32_t stored = stored_lines(d);
	uint32_t line = 0;
	enum wcx_result result = open_streams(d);

	if (result == WCX_OK && fits_pair_sink(d)) {
		const uint64_t base = (uint64_t)d->scratch->coded[0].place.base << d->layout.coded[0].shift;
		const struct wcx_pair_sink sink = { d->job->src + d->layout.planes[0].offset, d->job->dst,
						    (uint32_t)wcx_repeat(wcx_place_bits(d->recipe, base),
									 d->recipe->elem_bytes) };

		line = WCX_MIN(stored, d->whole_lines);
		result = wcx_rans_decode_pairs(d->scratch->variant, &d->scratch->coded[0].stream,
					       &d->scratch->coded[0].reader, 0, line, &sink);
	}
	if (result == WCX_OK)
		result = decode_blocks(d, line, stored, SYMBOLS | RAW_BITS);
	if (result == WCX_OK)
		result = decode_blocks(d, stored, d->lines, SYMBOLS);
	if (result == WCX_OK)
		result = close_streams(d);
	if (result == WCX_OK)
		result = decode_blocks(d, stored, d->lines, RAW_BITS);
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
		memcpy(d->scratch->exceptions, positions, stored);
		memcpy(d->scratch->exceptions + stored, d->scratch->carried, WCX_CARRIED_BYTES);
		positions = d->scratch->exceptions;
	}
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

static enum wcx_result decode_coded(const struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	const struct wcx_recipe *recipe = job->recipe;
	struct decoding d = {
		.job = job,
		.recipe = recipe,
		.elems = job->dims.rows * job->dims.cols,
		.scratch = scratch,
	};
	enum wcx_result result = wcx_tile_parse(&job->dims, recipe, job->src, job->src_bytes, &d.layout);
	size_t whole_bytes;

	if (result != WCX_OK)
		return result;
	if (recipe->difference != WCX_DIFFERENCE_NONE && !job->base)
		return WCX_BAD_DATA;
	d.lines = wcx_line_count(d.elems, recipe->elem_bytes);
	d.whole_lines = d.elems / wcx_line_elems(recipe->elem_bytes);
	whole_bytes = (size_t)d.whole_lines * wcx_line_bytes(recipe->elem_bytes);
	if (recipe->difference != WCX_DIFFERENCE_NONE) {
		memset(scratch->last_base, 0, sizeof scratch->last_base);
		memcpy(scratch->last_base, job->base + whole_bytes, job->dst_bytes - whole_bytes);
	}
	result = decode_lines(&d);
	if (result != WCX_OK)
		return result;
	memcpy(job->dst + whole_bytes, scratch->last_line, job->dst_bytes - whole_bytes);
	if (d.layout.exception_count)
		result = put_exceptions(&d);
	if (result == WCX_OK &&
	    !wcx_element_ops(recipe->elem_bytes)
		     ->undo_residuals((enum wcx_predictor)recipe->predictor, job->dims.rows, job->dims.cols, job->dst))
		result = WCX_BAD_DATA;
	return result;
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
