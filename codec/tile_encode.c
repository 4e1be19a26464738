/* SPDX-License-Identifier: MIT */
/* Packs tiles: decides field by field how it is coded, then writes the parts in their order. */
#include "codec/tile_layout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/element.h"
#include "codec/le.h"
#include "codec/rans.h"

enum {
	COST_SCALE = 32, /* costs of symbols are counted in 1/32 bit */
	COST_EXCEPTION = WCX_EXCEPTION_BITS * COST_SCALE,
	/* More than all symbols of a tile take that have a frequency, and as much as the widest field takes raw. */
	COST_IMPOSSIBLE = WCX_TILE_MAX_ELEMS * WCX_CODED_MAX_WIDTH * COST_SCALE,
	PIECE_ELEMS = 16384, /* of a run, for which counts have 16 bits and sums of costs 32 */
	CHOICES_MAX_BYTES = WCX_TILE_MAX_ELEMS / WCX_RUN_ELEMS * 2 / 8,
	CONSTANT_PROBE = 64, /* elements that are looked at first */
	/* A plane of 32 bits of the most elements; and the exceptions are smaller. */
	PART_MAX_BYTES = WCX_TILE_MAX_ELEMS * 4,
};

/* What encoding a field takes that depends on its tables alone. */
struct field_tables {
	struct wcx_freq_table freqs[WCX_FIELD_TABLES_MAX]; /* what the rest was made from: the tiles of a tensor share it */
	uint32_t count;
	int is_pair;
	uint32_t symbol_count; /* that the field can have; of pairs either half, of which the costs are, too */
	struct wcx_freq_table pairs[WCX_FIELD_TABLES_MAX]; /* what pairs are coded with */
	struct wcx_rans_encode_table encode[WCX_FIELD_TABLES_MAX];
	int16_t cost[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];    /* of a symbol; 0 without a frequency */
	int16_t missing[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT]; /* 1 without a frequency */
	uint8_t cheapest[WCX_FIELD_TABLES_MAX]; /* a symbol of the highest frequency, to stand for exceptions */
};

/* Elements whose value in the carrier has no symbol, or one without a frequency in the table chosen. */
struct exceptions {
	uint32_t count;
	uint16_t positions[WCX_TILE_MAX_ELEMS], values[WCX_TILE_MAX_ELEMS];
};

/* How a field of the tile at hand is coded. */
struct field_state {
	enum wcx_field_coding coding;
	uint32_t constant;
	uint32_t shift;
	uint8_t choices[CHOICES_MAX_BYTES];
	uint8_t symbols[WCX_TILE_MAX_ELEMS];
};

struct wcx_encode_scratch {
	struct field_tables tables[WCX_FIELDS_MAX];
	struct field_state fields[WCX_FIELDS_MAX];
	uint64_t elements[WCX_TILE_MAX_ELEMS]; /* of any size: transformed, or as residuals */
	uint32_t values[WCX_TILE_MAX_ELEMS];
	uint8_t part[PART_MAX_BYTES];
	uint8_t pairs[WCX_TILE_MAX_ELEMS / 2];
	uint16_t words[WCX_TILE_MAX_ELEMS];
	struct exceptions exceptions;
};

/* A tile on its way, and what is known of it. */
struct encoding {
	const struct wcx_recipe *recipe;
	const struct wcx_element_ops *ops;
	uint32_t elems;
	const uint8_t *plain;    /* elements, or residuals: of these raw planes are made */
	const void *transformed; /* of these symbols are taken */
	struct wcx_encode_scratch *scratch;
};

struct wcx_encode_scratch *wcx_encode_scratch_create(void)
{
	return calloc(1, sizeof(struct wcx_encode_scratch));
}

void wcx_encode_scratch_free(struct wcx_encode_scratch *scratch)
{
	free(scratch);
}

static int16_t symbol_cost(uint32_t freq)
{
	return (int16_t)((WCX_PROB_BITS - log2(freq)) * COST_SCALE + 0.5);
}

static const struct field_tables *field_tables(const struct wcx_field *field, uint32_t number,
					       struct wcx_encode_scratch *scratch)
{
	struct field_tables *tables = &scratch->tables[number];
	size_t bytes = field->table_count * sizeof *field->tables;

	tables->symbol_count = field->width < 8 ? 1u << field->width : WCX_SYMBOL_COUNT;
	if (tables->count == field->table_count && tables->is_pair == field->is_pair &&
	    memcmp(tables->freqs, field->tables, bytes) == 0)
		return tables;
	tables->count = field->table_count;
	tables->is_pair = field->is_pair;
	memcpy(tables->freqs, field->tables, bytes);
	for (uint32_t t = 0; t < field->table_count; t++) {
		wcx_rans_encode_table_build(wcx_field_table(field, t, &tables->pairs[t]), &tables->encode[t]);
		tables->cheapest[t] = 0;
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
			uint32_t freq = field->tables[t].freq[s];

			tables->cost[t][s] = freq ? symbol_cost(freq) : 0;
			tables->missing[t][s] = freq == 0;
			if (freq > field->tables[t].freq[tables->cheapest[t]])
				tables->cheapest[t] = (uint8_t)s;
		}
	}
	return tables;
}

/* Transforms and predicts; without either, the elements stay where they are. */
static void start_encoding(const struct wcx_tile_dims *dims, const uint8_t *src, const struct wcx_recipe *recipe,
			   struct wcx_encode_scratch *scratch, struct encoding *ret)
{
	*ret = (struct encoding){
		.recipe = recipe,
		.ops = wcx_element_ops(recipe->elem_bytes),
		.elems = dims->rows * dims->cols,
		.plain = src,
		.transformed = src,
		.scratch = scratch,
	};
	if (recipe->transform != WCX_TRANSFORM_NONE) {
		ret->ops->rotate(src, ret->elems, wcx_fold_bits(recipe), scratch->elements);
		ret->transformed = scratch->elements;
	} else if (recipe->predictor != WCX_PREDICT_NONE) {
		ret->ops->make_residuals((enum wcx_predictor)recipe->predictor, dims->rows, dims->cols, src,
					 scratch->elements);
		ret->plain = (const uint8_t *)scratch->elements;
		ret->transformed = scratch->elements;
	}
}

/* Whether all elements have the same bits from shift on. */
static int field_is_constant(const struct encoding *e, uint32_t shift, uint32_t width, uint32_t *value_ret)
{
	uint32_t *values = e->scratch->values, probe = e->elems < CONSTANT_PROBE ? e->elems : CONSTANT_PROBE;
	uint32_t last = 1;

	e->ops->get32(e->transformed, probe, shift, width, values);
	while (last < probe && values[last] == values[0])
		last++;
	if (last < probe)
		return 0;
	*value_ret = values[0];
	e->ops->get32(e->transformed, e->elems, shift, width, values);
	return memcmp(values, values + 1, (e->elems - 1) * sizeof *values) == 0;
}

/* A run of a field: its symbols, how often each occurs, and the table for them. */
struct run {
	uint32_t first, length, choice;
	uint32_t misfits; /* values that no symbol stands for */
	uint32_t missing; /* symbols that have no frequency in the table */
	uint32_t counts[WCX_SYMBOL_COUNT];
};

/*
 * How often each symbol occurs in a piece: four histograms, since equal symbols in a row would wait for each other's
 * increment.
 */
static void count_piece(const uint8_t *symbols, uint32_t count, uint32_t symbol_count, int16_t ret[WCX_SYMBOL_COUNT])
{
	uint16_t partial[4][WCX_SYMBOL_COUNT];
	uint32_t i = 0;

	for (uint32_t j = 0; j < 4; j++)
		memset(partial[j], 0, symbol_count * sizeof partial[j][0]);
	for (; i + 4 <= count; i += 4)
		for (uint32_t j = 0; j < 4; j++)
			partial[j][symbols[i + j]]++;
	for (; i < count; i++)
		partial[0][symbols[i]]++;
	for (uint32_t s = 0; s < symbol_count; s++)
		ret[s] = (int16_t)(partial[0][s] + partial[1][s] + partial[2][s] + partial[3][s]);
}

/* The sum of products: 16-bit factors and a 32-bit sum are one instruction for eight of them. */
static uint32_t dot_product(const int16_t *a, const int16_t *b, uint32_t count)
{
	int32_t sum = 0;

	for (uint32_t i = 0; i < count; i++)
		sum += a[i] * b[i];
	return (uint32_t)sum;
}

/*
 * Counts the symbols of a run and chooses the table that takes the fewest bits for them, where a symbol without a frequency
 * takes `price`; returns the bits, in units of 1 / COST_SCALE.
 */
static uint64_t weigh_run(const struct field_tables *tables, const uint8_t *symbols, uint32_t price, struct run *run)
{
	uint64_t cost[WCX_FIELD_TABLES_MAX] = { 0 }, least = UINT64_MAX;
	uint32_t missing[WCX_FIELD_TABLES_MAX] = { 0 }, symbol_count = tables->symbol_count;

	memset(run->counts, 0, sizeof run->counts);
	for (uint32_t first = 0; first < run->length; first += PIECE_ELEMS) {
		int16_t counts[WCX_SYMBOL_COUNT];

		count_piece(symbols + first, run->length - first < PIECE_ELEMS ? run->length - first : PIECE_ELEMS,
			    symbol_count, counts);
		for (uint32_t s = 0; s < symbol_count; s++)
			run->counts[s] += (uint16_t)counts[s];
		for (uint32_t t = 0; t < tables->count; t++) {
			cost[t] += dot_product(counts, tables->cost[t], symbol_count);
			missing[t] += dot_product(counts, tables->missing[t], symbol_count);
		}
	}
	/* What stands for misfits does not count. */
	run->counts[0] -= run->misfits;
	for (uint32_t t = 0; t < tables->count; t++) {
		uint64_t bits;

		cost[t] -= (uint64_t)run->misfits * (uint16_t)tables->cost[t][0];
		missing[t] -= run->misfits * (uint16_t)tables->missing[t][0];
		bits = cost[t] + (uint64_t)missing[t] * price;

		if (bits < least) {
			least = bits;
			run->choice = t;
			run->missing = missing[t];
		}
	}
	return least;
}

/* Goes on to the next run, or to the first where length is 0, and adds what it takes to *cost; false when there is none. */
static int next_run(const struct encoding *e, uint32_t number, const struct field_tables *tables, uint32_t price,
		    struct run *run, uint64_t *cost)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	struct field_state *state = &e->scratch->fields[number];
	uint32_t run_elems = field->table_count > 1 ? e->recipe->run : e->elems;

	run->first += run->length;
	if (run->first == e->elems)
		return 0;
	run->length = e->elems - run->first < run_elems ? e->elems - run->first : run_elems;
	run->misfits =
		wcx_symbols_take(e->ops, field, (const uint8_t *)e->transformed + (size_t)run->first * e->recipe->elem_bytes,
				 run->length, state->shift, e->scratch->values, state->symbols + run->first);
	*cost += weigh_run(tables, state->symbols + run->first, price, run) + (uint64_t)run->misfits * price;
	return 1;
}

/* Notes that an element is an exception, whose value is not that of its symbol. */
static void add_exception(struct exceptions *exceptions, uint32_t position, uint32_t value)
{
	exceptions->positions[exceptions->count] = (uint16_t)position;
	exceptions->values[exceptions->count++] = (uint16_t)value;
}

/* Moves the elements of a run that its table cannot code to the exceptions. */
static void move_exceptions(const struct encoding *e, uint32_t number, const struct field_tables *tables,
			    const struct run *run)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	uint8_t *symbols = e->scratch->fields[number].symbols + run->first;
	const uint16_t *values = (const uint16_t *)e->scratch->values; /* of the run, if the field is wide */

	for (uint32_t i = 0; i < run->length; i++) {
		uint32_t value = field->width <= 8 ? symbols[i] : values[i];

		if (tables->freqs[run->choice].freq[symbols[i]] && value == wcx_symbol_value(field, symbols[i]))
			continue;
		add_exception(&e->scratch->exceptions, run->first + i, value);
		symbols[i] = tables->cheapest[run->choice];
	}
}

/*
 * The same of pairs: the second half of one without a frequency, or the first, becomes the cheapest symbol, or both do.  A
 * run has an even number of elements unless the tile ends with it; then the cheapest symbol makes up the pair.
 */
static void move_pair_exceptions(const struct encoding *e, uint32_t number, const struct field_tables *tables,
				 const struct run *run)
{
	uint8_t *symbols = e->scratch->fields[number].symbols + run->first;
	const uint16_t *freq = tables->pairs[run->choice].freq;
	const uint8_t cheapest = tables->cheapest[run->choice];

	for (uint32_t i = 0; i < run->length; i += 2) {
		uint8_t a = symbols[i], b = i + 1 < run->length ? symbols[i + 1] : cheapest;
		int keeps_a, keeps_b;

		if (freq[a | b << WCX_PAIR_WIDTH])
			continue;
		keeps_a = freq[a | cheapest << WCX_PAIR_WIDTH] != 0;
		keeps_b = !keeps_a && freq[cheapest | b << WCX_PAIR_WIDTH];
		if (!keeps_a) {
			add_exception(&e->scratch->exceptions, run->first + i, a);
			symbols[i] = cheapest;
		}
		if (!keeps_b && i + 1 < run->length) {
			add_exception(&e->scratch->exceptions, run->first + i + 1, b);
			symbols[i + 1] = cheapest;
		}
	}
}

/*
 * Takes the symbols of a field and chooses a table for each run; whether coding them pays.  Only with may_except may there
 * be exceptions, which are noted.
 */
static int coding_pays(const struct encoding *e, uint32_t number, int may_except)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct field_tables *tables = field_tables(field, number, e->scratch);
	struct field_state *state = &e->scratch->fields[number];
	uint32_t overhead = WCX_RANS_STATES_BYTES - WCX_CARRIED_BYTES + wcx_choices_bytes(e->recipe, field, e->elems);
	uint32_t price = may_except ? COST_EXCEPTION : COST_IMPOSSIBLE, bit = 0;
	uint64_t cost = UINT64_C(8) * COST_SCALE * overhead, limit = (uint64_t)COST_SCALE * field->width * e->elems;
	struct run run = { 0 };

	memset(state->choices, 0, sizeof state->choices);
	for (; cost < limit && next_run(e, number, tables, price, &run, &cost); bit += wcx_choice_bits(field)) {
		state->choices[bit / 8] |= (uint8_t)(run.choice << bit % 8);
		if (field->is_pair)
			move_pair_exceptions(e, number, tables, &run);
		else if (may_except && run.misfits + run.missing)
			move_exceptions(e, number, tables, &run);
	}
	return cost < limit && (!may_except || e->scratch->exceptions.count <= WCX_EXCEPTIONS_MAX);
}

/* Decides how a field is coded.  With may_be_carrier, no higher field is coded. */
static void decide_field(const struct encoding *e, uint32_t number, uint32_t shift, int may_be_carrier)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	struct field_state *state = &e->scratch->fields[number];

	state->shift = shift;
	state->coding = WCX_FIELD_RAW;
	if (may_be_carrier)
		e->scratch->exceptions.count = 0;
	if (field_is_constant(e, shift, field->width, &state->constant))
		state->coding = WCX_FIELD_CONSTANT;
	else if (field->table_count && coding_pays(e, number, may_be_carrier))
		state->coding = WCX_FIELD_RANS;
}

/* Decides from the highest field down, since the highest one that is coded is the carrier; the carrier, or field_count. */
static uint32_t decide_fields(const struct encoding *e)
{
	uint32_t carrier = e->recipe->field_count, shift = 8u * e->recipe->elem_bytes;

	for (uint32_t f = e->recipe->field_count; f-- > 0;) {
		shift -= e->recipe->fields[f].width;
		decide_field(e, f, shift, carrier == e->recipe->field_count);
		if (e->scratch->fields[f].coding == WCX_FIELD_RANS && carrier == e->recipe->field_count)
			carrier = f;
	}
	return carrier;
}

/* What has been written of a packed tile. */
struct writer {
	uint8_t *dst;
	size_t used, room;
};

/* Room for the next part, with zeros up to where it starts; NULL when there is too little. */
static uint8_t *writer_take(struct writer *writer, size_t bytes)
{
	size_t offset = (writer->used + WCX_TILE_PART_ALIGN - 1) / WCX_TILE_PART_ALIGN * WCX_TILE_PART_ALIGN;

	if (offset + bytes > writer->room)
		return NULL;
	memset(writer->dst + writer->used, 0, offset - writer->used);
	writer->used = offset + bytes;
	return writer->dst + offset;
}

/* Adds the bits that mask shows of the words of a line to those of a unit; each goes where rotating them by so much puts it.
 */
static void add_line32(const uint8_t *src, uint32_t mask, uint32_t rotation, uint32_t *unit)
{
	for (uint32_t l = 0; l < WCX_LANES; l++) {
		uint32_t word;

		memcpy(&word, src + 4 * l, sizeof word);
		unit[l] |= wcx_rotate_left32(word & mask, rotation);
	}
}

static void add_line64(const uint8_t *src, uint64_t mask, uint32_t rotation, uint32_t *unit)
{
	for (uint32_t l = 0; l < WCX_LANES; l++) {
		uint64_t word;

		memcpy(&word, src + 8 * l, sizeof word);
		word &= mask;
		unit[l] |= wcx_rotate_left32((uint32_t)(word | word >> 32), rotation);
	}
}

/*
 * The raw plane of width bits from shift on of transformed elements, whole, in scratch->part; returns its size.  What FOLD
 * inverts is in the plane as it was before.
 */
static uint32_t make_plane(const struct encoding *e, uint32_t shift, uint32_t width)
{
	const uint32_t elem_bytes = e->recipe->elem_bytes, line_bytes = wcx_line_bytes(elem_bytes);
	const uint32_t lines = wcx_line_count(e->elems, elem_bytes), unit_lines = wcx_unit_lines(width, elem_bytes);
	const uint32_t bytes = wcx_plane_units(lines, width, elem_bytes) * WCX_PLANE_UNIT_BYTES;
	const uint64_t bits = ((UINT64_C(1) << width) - 1) << shift;
	const uint64_t mask = wcx_repeat(wcx_place_bits(e->recipe, bits), elem_bytes);
	const uint64_t folded = bits & wcx_fold_bits(e->recipe) ? mask : 0;
	uint32_t *units = (uint32_t *)(void *)e->scratch->part;

	memset(units, 0, bytes);
	for (uint32_t line = 0; line < lines; line++) {
		const uint8_t *src = e->plain + (size_t)line * line_bytes;
		uint32_t *unit = units + line / unit_lines * WCX_LANES, rotation = line % unit_lines * width;
		size_t left = (size_t)e->elems * elem_bytes - (size_t)line * line_bytes;
		uint8_t last[WCX_LANES * WCX_ELEM_MAX_BYTES] = { 0 };

		if (left < line_bytes || folded) {
			memcpy(last, src, left < line_bytes ? left : line_bytes);
			src = last;
		}
		if (folded)
			wcx_decode_variant_portable.fold(1, (uint32_t)folded, last);
		if (elem_bytes == 8)
			add_line64(src, mask, rotation, unit);
		else
			add_line32(src, (uint32_t)mask, rotation, unit);
	}
	return bytes;
}

/*
 * Writes the raw planes but for what the states carry, which goes to carried; false when there is no room.  *carries_ret is
 * set when they carry something.
 */
static int write_planes(const struct encoding *e, int has_carrier, struct writer *writer, uint8_t *carried, int *carries_ret)
{
	uint32_t left = 0;

	for (uint32_t f = 0; f < e->recipe->field_count; f++)
		if (e->scratch->fields[f].coding == WCX_FIELD_RAW)
			left += (uint32_t)__builtin_popcount(e->recipe->fields[f].width);
	for (uint32_t f = 0; f < e->recipe->field_count; f++) {
		uint32_t width = e->scratch->fields[f].coding == WCX_FIELD_RAW ? e->recipe->fields[f].width : 0;
		uint32_t shift = e->scratch->fields[f].shift;

		while (width) {
			uint32_t plane_width = wcx_plane_width(width), bytes = make_plane(e, shift, plane_width);
			uint8_t *part;

			if (--left == 0 && has_carrier) {
				bytes -= WCX_CARRIED_BYTES;
				*carries_ret = 1;
				memcpy(carried, e->scratch->part + bytes, WCX_CARRIED_BYTES);
			}
			part = writer_take(writer, bytes);
			if (!part)
				return 0;
			memcpy(part, e->scratch->part, bytes);
			shift += plane_width;
			width -= plane_width;
		}
	}
	return 1;
}

/*
 * Adds exceptions that are none until there are enough for the states to carry: those that are carried cost nothing, while
 * fewer would cost their bytes.
 */
static void fill_exceptions(const struct encoding *e, uint32_t carrier, uint32_t enough)
{
	const uint8_t *symbols = e->scratch->fields[carrier].symbols;
	struct exceptions *exceptions = &e->scratch->exceptions;

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

/* Lays the exceptions out in scratch->part; their size, made even. */
static uint32_t lay_out_exceptions(const struct encoding *e, uint32_t width)
{
	const struct exceptions *exceptions = &e->scratch->exceptions;
	uint32_t bytes = wcx_exceptions_bytes(exceptions->count, width);
	uint8_t *positions = e->scratch->part, *values = positions + 2 * exceptions->count;

	memset(positions, 0, bytes);
	for (uint32_t i = 0; i < exceptions->count; i++) {
		wcx_le16_write(positions + 2 * i, exceptions->positions[i]);
		if (wcx_exception_value_bytes(width) == 1)
			values[i] = (uint8_t)exceptions->values[i];
		else
			wcx_le16_write(values + 2 * i, exceptions->values[i]);
	}
	return bytes;
}

/* Writes the exceptions but for what the states carry, if they carry nothing yet; false when there is no room. */
static int write_exceptions(const struct encoding *e, uint32_t carrier, struct writer *writer, uint8_t *carried,
			    int *carries_ret)
{
	uint32_t width = e->recipe->fields[carrier].width, value_bytes = wcx_exception_value_bytes(width), bytes;
	uint32_t enough = (WCX_CARRIED_BYTES + value_bytes) / (2 + value_bytes); /* an odd byte is made even */
	uint8_t *part;

	if (!*carries_ret && e->scratch->exceptions.count > 1 && e->elems > enough)
		fill_exceptions(e, carrier, enough);
	bytes = lay_out_exceptions(e, width);
	if (bytes >= WCX_CARRIED_BYTES && !*carries_ret) {
		bytes -= WCX_CARRIED_BYTES;
		*carries_ret = 1;
		memcpy(carried, e->scratch->part + bytes, WCX_CARRIED_BYTES);
	}
	part = writer_take(writer, bytes);
	if (part)
		memcpy(part, e->scratch->part, bytes);
	return part != NULL;
}

/* The symbols of a field as they are coded: bytes, of pairs one for two elements. */
static const uint8_t *coded_symbols(const struct encoding *e, uint32_t number, const struct field_tables *tables)
{
	const struct field_state *state = &e->scratch->fields[number];
	uint8_t *pairs = e->scratch->pairs;

	if (!tables->is_pair)
		return state->symbols;
	for (uint32_t i = 0; i + 1 < e->elems; i += 2)
		pairs[i / 2] = (uint8_t)(state->symbols[i] | (uint32_t)state->symbols[i + 1] << WCX_PAIR_WIDTH);
	if (e->elems % 2) {
		uint32_t last = e->elems - 1, bit = e->recipe->run ? last / e->recipe->run * (tables->count >> 1) : 0;
		uint32_t choice = state->choices[bit / 8] >> bit % 8 & (tables->count - 1);

		pairs[last / 2] = (uint8_t)(state->symbols[last] | (uint32_t)tables->cheapest[choice] << WCX_PAIR_WIDTH);
	}
	return pairs;
}

/* Writes the choices, states and words of a field; returns the bytes, or 0 when they find no room. */
static uint32_t write_payload(const struct encoding *e, uint32_t number, const uint8_t *carried, struct writer *writer)
{
	const struct wcx_field *field = &e->recipe->fields[number];
	const struct field_tables *tables = field_tables(field, number, e->scratch);
	const struct field_state *state = &e->scratch->fields[number];
	const struct wcx_rans_encode_table *encode[WCX_FIELD_TABLES_MAX];
	const struct wcx_rans_source source = {
		.tables = encode,
		.choices = { state->choices, wcx_choice_bits(field),
			     e->recipe->run / wcx_line_elems(e->recipe->elem_bytes) },
		.symbols = coded_symbols(e, number, tables),
		.symbol_count = wcx_field_symbols(field, e->elems),
		.steps = wcx_field_steps(field, e->recipe->elem_bytes),
		.carried = carried,
	};
	uint32_t choices_bytes = wcx_choices_bytes(e->recipe, field, e->elems);
	uint8_t *start = writer_take(writer, choices_bytes);
	size_t bytes;

	if (!start)
		return 0;
	for (uint32_t t = 0; t < field->table_count; t++)
		encode[t] = &tables->encode[t];
	memcpy(start, state->choices, choices_bytes);
	bytes = wcx_rans_encode(&source, e->scratch->words, start + choices_bytes, writer->room - writer->used);
	writer->used += bytes;
	return bytes ? choices_bytes + (uint32_t)bytes : 0;
}

/* Numbers in the header: one for each field that is constant or coded, but for the carrier. */
static uint32_t count_numbers(const struct encoding *e, uint32_t carrier)
{
	uint32_t numbers = 0;

	for (uint32_t f = 0; f < e->recipe->field_count; f++)
		numbers += f != carrier && e->scratch->fields[f].coding != WCX_FIELD_RAW;
	return numbers;
}

/* Writes the tile as decided; 0 when it finds no room. */
static size_t write_tile(const struct encoding *e, uint32_t carrier, uint8_t *dst, size_t room)
{
	const uint32_t field_count = e->recipe->field_count;
	struct writer writer = { dst, 0, room };
	uint8_t carried[WCX_CARRIED_BYTES], *number = writer_take(&writer, 4 + 4 * count_numbers(e, carrier));
	uint32_t head = 0;
	int carries = 0;

	if (!number || !write_planes(e, carrier < field_count, &writer, carried, &carries))
		return 0;
	if (carrier < field_count) {
		if (!write_exceptions(e, carrier, &writer, carried, &carries))
			return 0;
		head = e->scratch->exceptions.count << 2 * WCX_FIELDS_MAX;
	}
	for (uint32_t f = 0; f < field_count; f++) {
		const struct field_state *state = &e->scratch->fields[f];
		uint32_t value = state->constant;

		head |= (uint32_t)state->coding << 2 * f;
		if (state->coding == WCX_FIELD_RANS) {
			value = write_payload(e, f, f == carrier && carries ? carried : NULL, &writer);
			if (!value)
				return 0;
		}
		if (f != carrier && state->coding != WCX_FIELD_RAW)
			wcx_le32_write(number += 4, value);
	}
	wcx_le32_write(dst, head);
	return writer.used;
}

/* The element, if all are the same and it is one that a tile entry can hold. */
static int tile_is_constant(const uint8_t *src, size_t tile_bytes, uint32_t elem_bytes, uint32_t *constant_ret)
{
	uint8_t element[WCX_ELEM_MAX_BYTES] = { 0 };

	if (memcmp(src, src + elem_bytes, tile_bytes - elem_bytes) != 0)
		return 0;
	memcpy(element, src, elem_bytes);
	*constant_ret = wcx_le32_read(element);
	return wcx_le32_read(element + 4) == 0;
}

enum wcx_result wcx_tile_encode(const struct wcx_tile_dims *dims, const uint8_t *src, const struct wcx_recipe *recipe,
				struct wcx_encode_scratch *scratch, uint8_t *dst, struct wcx_encoded_tile *ret)
{
	size_t tile_bytes = wcx_tile_dims_bytes(dims);
	struct encoding encoding;

	if (!tile_bytes || dims->elem_bytes != recipe->elem_bytes)
		return WCX_WRONG_SIZE;
	if (!wcx_recipe_is_known(recipe))
		return WCX_BAD_DATA;
	*ret = (struct wcx_encoded_tile){ .mode = WCX_TILE_CONSTANT };
	if (tile_is_constant(src, tile_bytes, dims->elem_bytes, &ret->constant))
		return WCX_OK;
	*ret = (struct wcx_encoded_tile){ .mode = WCX_TILE_CODED };
	start_encoding(dims, src, recipe, scratch, &encoding);
	ret->bytes = write_tile(&encoding, decide_fields(&encoding), dst, tile_bytes - 1);
	if (!ret->bytes) {
		*ret = (struct wcx_encoded_tile){ .mode = WCX_TILE_STORED, .bytes = tile_bytes };
		memcpy(dst, src, tile_bytes);
	}
	return WCX_OK;
}

enum wcx_result wcx_tile_count(const struct wcx_tile_dims *dims, const uint8_t *src, const struct wcx_recipe *recipe,
			       uint32_t field, struct wcx_encode_scratch *scratch,
			       uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], uint64_t *misfits_ret)
{
	const struct field_tables *tables;
	struct encoding encoding;
	struct run run = { 0 };
	uint64_t cost = 0;

	if (!wcx_recipe_is_known(recipe))
		return WCX_BAD_DATA;
	tables = field_tables(&recipe->fields[field], field, scratch);
	start_encoding(dims, src, recipe, scratch, &encoding);
	scratch->fields[field].shift = 0;
	for (uint32_t f = 0; f < field; f++)
		scratch->fields[field].shift += recipe->fields[f].width;
	while (next_run(&encoding, field, tables, COST_EXCEPTION, &run, &cost)) {
		*misfits_ret += run.misfits;
		for (uint32_t s = 0; s < tables->symbol_count; s++)
			count[run.choice][s] += run.counts[s];
	}
	return WCX_OK;
}
