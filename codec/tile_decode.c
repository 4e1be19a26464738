/* SPDX-License-Identifier: MIT */
/* Restores tiles on the CPU. */
#include "codec/tile.h"

#include <stdlib.h>
#include <string.h>

#include "codec/element.h"
#include "codec/le.h"
#include "codec/rans.h"

enum { CACHED_TABLES = 8 }; /* WCX_FIELD_TABLES_MAX at least; neighbouring tiles mostly share theirs */

struct wcx_decode_scratch {
	const struct wcx_cpu *cpu;
	struct cached_table {
		struct wcx_freq_table freqs; /* what table was built from, */
		int is_pair;                 /* and how */
		struct wcx_rans_decode_table table;
	} cached[CACHED_TABLES];
	uint32_t next_victim;
	uint8_t carried[WCX_CARRIED_BYTES];
	uint32_t words[WCX_TILE_MAX_ELEMS];                /* symbols: a word each at most, with those that a line lacks */
	uint8_t last_line[WCX_LANES * WCX_ELEM_MAX_BYTES]; /* of the tile, if it is part of one */
	uint8_t part[WCX_EXCEPTIONS_MAX * 4];              /* that ends with what was carried */
};

/* A tile on its way. */
struct decoding {
	const struct wcx_tile_job *job;
	const struct wcx_recipe *recipe;
	uint32_t elems, lines, whole_lines;
	struct wcx_tile_layout layout;
	struct wcx_decode_scratch *scratch;
};

struct wcx_decode_scratch *wcx_decode_scratch_create(const struct wcx_cpu *cpu)
{
	struct wcx_decode_scratch *scratch = calloc(1, sizeof *scratch);

	if (scratch)
		scratch->cpu = cpu;
	return scratch;
}

void wcx_decode_scratch_free(struct wcx_decode_scratch *scratch)
{
	free(scratch);
}

/* The decoding table for one of a field's; those in use, a bit each, stay as they are. */
static const struct wcx_rans_decode_table *cached_table(struct wcx_decode_scratch *scratch, const struct wcx_field *field,
							uint32_t number, uint32_t *in_use)
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
	*in_use |= 1u << i;
	return &scratch->cached[i].table;
}

/* --- loops over the lines of a tile: whole ones in dst, and one that is not in last_line --- */

static uint8_t *line_at(const struct decoding *d, uint32_t line)
{
	return line < d->whole_lines ? d->job->dst + (size_t)line * wcx_line_bytes(d->recipe->elem_bytes)
				     : d->scratch->last_line;
}

/* Cuts [*line, end) to what lies in one piece; how many lines, the first of them at line_at. */
static uint32_t piece(const struct decoding *d, uint32_t line, uint32_t end)
{
	return (line < d->whole_lines && end > d->whole_lines ? d->whole_lines : end) - line;
}

static void fill_lines(const struct decoding *d, uint32_t first)
{
	const uint32_t elem_bytes = d->recipe->elem_bytes;
	const uint64_t constant = wcx_repeat(wcx_place_bits(d->recipe, d->layout.constant_bits), elem_bytes);

	for (uint32_t line = first, count; line < d->lines; line += count) {
		count = piece(d, line, d->lines);
		d->scratch->cpu->fill(count, constant, elem_bytes, line_at(d, line));
	}
}

/* Adds the symbols of lines from the first on, which are in words. */
static void put_symbols(const struct decoding *d, const struct wcx_coded_field *coded, uint32_t first)
{
	const struct wcx_field *field = &d->recipe->fields[coded->field];
	const struct wcx_symbol_place place = {
		.shift = coded->shift,
		.base = field->base,
		.elem_bytes = d->recipe->elem_bytes,
		.is_pair = field->is_pair,
		.has_zero = field->has_zero,
		.rotate = d->recipe->transform != WCX_TRANSFORM_NONE,
	};

	for (uint32_t line = first, count; line < d->lines; line += count) {
		count = piece(d, line, d->lines);
		d->scratch->cpu->put_symbols(d->scratch->words + (size_t)line * WCX_LANES, count, &place, line_at(d, line));
	}
}

/* Adds lines [first, end) of a raw plane; units is the one that has the first of them. */
static void put_plane_lines(const struct decoding *d, const struct wcx_raw_plane *plane, const uint8_t *units,
			    uint32_t first, uint32_t end)
{
	const uint32_t elem_bytes = d->recipe->elem_bytes, unit_lines = wcx_unit_lines(plane->width, elem_bytes);
	const uint64_t bits = ((UINT64_C(1) << plane->width) - 1) << plane->shift;
	const uint64_t mask = wcx_repeat(wcx_place_bits(d->recipe, bits), elem_bytes);

	for (uint32_t line = first, count; line < end; line += count) {
		const uint8_t *unit = units + (size_t)(line / unit_lines - first / unit_lines) * WCX_PLANE_UNIT_BYTES;

		count = piece(d, line, end);
		d->scratch->cpu->put_plane(unit, line, count, plane->width, mask, elem_bytes, line_at(d, line));
	}
}

/* Adds the lines of a raw plane from the first on; of the last unit's bytes the states may have the last. */
static void put_plane(const struct decoding *d, const struct wcx_raw_plane *plane, uint32_t carried, uint32_t first)
{
	const uint32_t unit_lines = wcx_unit_lines(plane->width, d->recipe->elem_bytes);
	const uint32_t stored_units = wcx_plane_units(d->lines, plane->width, d->recipe->elem_bytes) - (carried ? 1 : 0);
	const uint32_t stored = stored_units * unit_lines < d->lines ? stored_units * unit_lines : d->lines;
	const uint8_t *units = d->job->src + plane->offset;
	uint8_t last[WCX_PLANE_UNIT_BYTES];

	if (first < stored)
		put_plane_lines(d, plane, units + (size_t)(first / unit_lines) * WCX_PLANE_UNIT_BYTES, first, stored);
	if (stored == d->lines)
		return;
	memcpy(last, units + (size_t)stored_units * WCX_PLANE_UNIT_BYTES, sizeof last - WCX_CARRIED_BYTES);
	memcpy(last + sizeof last - WCX_CARRIED_BYTES, d->scratch->carried, WCX_CARRIED_BYTES);
	put_plane_lines(d, plane, last, first > stored ? first : stored, d->lines);
}

/* Inverts what is above the first field, where signs are set. */
static void fold_lines(const struct decoding *d, uint32_t first)
{
	const uint32_t mask = (uint32_t)wcx_repeat(wcx_place_bits(d->recipe, wcx_fold_bits(d->recipe)), 1);

	for (uint32_t line = first, count; line < d->lines; line += count) {
		count = piece(d, line, d->lines);
		d->scratch->cpu->fold(count, mask, line_at(d, line));
	}
}

/* --- parts of a tile --- */

/*
 * Whether the carrier's lines may be finished as they are decoded, and how: pairs above four raw bits, folded.  The lines of
 * the last unit have to wait for what the states carry.
 */
static int has_sink(const struct decoding *d, struct wcx_pair_sink *ret)
{
	const struct wcx_recipe *recipe = d->recipe;

	if (recipe->transform != WCX_TRANSFORM_FOLD || d->layout.plane_count != 1 || d->layout.coded_count != 1 ||
	    !recipe->fields[d->layout.coded[0].field].is_pair || d->layout.planes[0].width != WCX_PAIR_WIDTH ||
	    d->layout.planes[0].shift != 0)
		return 0;
	ret->nibbles = d->job->src + d->layout.planes[0].offset;
	ret->dst = d->job->dst;
	ret->lines = (d->lines - 1) / wcx_unit_lines(WCX_PAIR_WIDTH, 1) * wcx_unit_lines(WCX_PAIR_WIDTH, 1);
	return 1;
}

/* Decodes the symbols of a field into words, but for those of *sunk_ret lines, which are finished. */
static enum wcx_result decode_symbols(const struct decoding *d, const struct wcx_coded_field *coded,
				      const struct wcx_pair_sink *sink, uint32_t *sunk_ret, uint8_t *carried)
{
	const struct wcx_field *field = &d->recipe->fields[coded->field];
	const struct wcx_rans_decode_table *tables[WCX_FIELD_TABLES_MAX];
	const uint8_t *src = d->job->src + coded->offset;
	const struct wcx_rans_stream stream = {
		.tables = tables,
		.choices = { src - wcx_choices_bytes(d->recipe, field, d->elems), wcx_choice_bits(field),
			     d->recipe->run / wcx_line_elems(d->recipe->elem_bytes) },
		.src = src,
		.src_bytes = coded->states_bytes + coded->words_bytes,
		.symbol_count = wcx_field_symbols(field, d->elems),
		.steps = wcx_field_steps(field, d->recipe->elem_bytes),
	};
	uint32_t in_use = 0;

	for (uint32_t t = 0; t < field->table_count; t++)
		tables[t] = cached_table(d->scratch, field, t, &in_use);
	return wcx_rans_decode(d->scratch->cpu, &stream, d->scratch->words, sink, sunk_ret, carried);
}

/* All that is not an exception. */
static enum wcx_result decode_lines(const struct decoding *d)
{
	const struct wcx_tile_layout *layout = &d->layout;
	const struct wcx_coded_field *carrier = layout->coded_count ? &layout->coded[layout->coded_count - 1] : NULL;
	uint8_t *carried = layout->plane_carried + layout->exception_carried ? d->scratch->carried : NULL;
	struct wcx_pair_sink sink;
	int sinks = carrier && has_sink(d, &sink);
	uint32_t sunk = 0;
	enum wcx_result result = WCX_OK;

	if (sinks)
		result = decode_symbols(d, carrier, &sink, &sunk, carried);
	fill_lines(d, sunk);
	for (uint32_t i = 0; i < layout->coded_count && result == WCX_OK; i++) {
		int is_carrier = &layout->coded[i] == carrier;

		if (!sinks)
			result = decode_symbols(d, &layout->coded[i], NULL, NULL, is_carrier ? carried : NULL);
		if (result == WCX_OK)
			put_symbols(d, &layout->coded[i], sunk);
	}
	for (uint32_t i = 0; i < layout->plane_count && result == WCX_OK; i++)
		put_plane(d, &layout->planes[i], i + 1 == layout->plane_count ? layout->plane_carried : 0, sunk);
	if (result == WCX_OK && d->recipe->transform == WCX_TRANSFORM_FOLD)
		fold_lines(d, sunk);
	return result;
}

/* Puts the exceptions in the place of what the carrier's symbols have left; positions must ascend. */
static enum wcx_result put_exceptions(const struct decoding *d)
{
	const struct wcx_tile_layout *layout = &d->layout;
	const struct wcx_coded_field *carrier = &layout->coded[layout->coded_count - 1];
	const uint32_t width = d->recipe->fields[carrier->field].width, count = layout->exception_count;
	const uint64_t mask = wcx_place_bits(d->recipe, ((UINT64_C(1) << width) - 1) << carrier->shift);
	const uint32_t stored = layout->exception_bytes - layout->exception_carried;
	const uint8_t *positions = d->job->src + layout->exception_offset, *values;
	uint32_t after = 0;

	if (layout->exception_carried) {
		memcpy(d->scratch->part, positions, stored);
		memcpy(d->scratch->part + stored, d->scratch->carried, WCX_CARRIED_BYTES);
		positions = d->scratch->part;
	}
	values = positions + 2 * count;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t position = wcx_le16_read(positions + 2 * i);
		uint32_t value = width <= 8 ? values[i] : wcx_le16_read(values + 2 * i);

		if (position < after || position >= d->elems || value >> width)
			return WCX_BAD_DATA;
		wcx_element_ops(d->recipe->elem_bytes)
			->replace(d->job->dst, position, mask, wcx_place_bits(d->recipe, (uint64_t)value << carrier->shift),
				  d->recipe->transform == WCX_TRANSFORM_FOLD);
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
		.elems = job->shape.rows * job->shape.cols,
		.scratch = scratch,
	};
	enum wcx_result result = wcx_tile_parse(&job->shape, recipe, job->src, job->src_bytes, &d.layout);
	size_t whole_bytes;

	if (result != WCX_OK)
		return result;
	d.lines = wcx_line_count(d.elems, recipe->elem_bytes);
	d.whole_lines = d.elems / wcx_line_elems(recipe->elem_bytes);
	result = decode_lines(&d);
	if (result != WCX_OK)
		return result;
	whole_bytes = (size_t)d.whole_lines * wcx_line_bytes(recipe->elem_bytes);
	memcpy(job->dst + whole_bytes, scratch->last_line, job->dst_bytes - whole_bytes);
	if (d.layout.exception_count)
		result = put_exceptions(&d);
	if (result == WCX_OK && recipe->predictor != WCX_PREDICT_NONE)
		wcx_element_ops(recipe->elem_bytes)
			->undo_residuals((enum wcx_predictor)recipe->predictor, job->shape.rows, job->shape.cols, job->dst);
	return result;
}

enum wcx_result wcx_tile_decode(struct wcx_tile_job *job, struct wcx_decode_scratch *scratch)
{
	size_t tile_bytes = wcx_tile_shape_bytes(&job->shape);

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
		wcx_element_ops(job->shape.elem_bytes)->fill(job->dst, tile_bytes / job->shape.elem_bytes, job->constant);
		job->result = WCX_OK;
		break;
	case WCX_TILE_ZSTD:
	case WCX_TILE_MODE_COUNT:
		break;
	}
	return job->result;
}
