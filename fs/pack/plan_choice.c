/* SPDX-License-Identifier: MIT */
/* Second step of a tensor plan: chooses predictor, fields, numbers of tables and tiles by what they cost on the samples. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "fs/pack/plan_steps.h"
#include "fs/pack/run_clusters.h"

enum {
	PREDICTOR_STRIDE = 4,   /* a quarter of the samples shows which predictor is best: they differ that much */
	TOP_MANTISSA_BITS = 3,  /* the most that are coded with the exponent */
	TABLE_SYMBOL_BYTES = 1, /* of a written table, about */
	FLAT_RUN = 256,         /* elements of a run where rows do not fit runs */
	TILE_ROWS_ALIGN = 1024, /* elements that leave no unit of a raw plane half empty, whatever its width */
	REFERENCE_SIDE = 256,
};

/* A predictor has to save this share of the bits: it costs decoding time, and less is within the noise of the samples. */
static const double PREDICTOR_MIN_GAIN = 0.005;
/* Two tables have to save this share over one, and four over two: they cost decoding time too. */
static const double TABLES_MIN_GAIN = 0.0005;
/* Zeros get a symbol if, as exceptions, they would take more than this share of the elements' bits. */
static const double ZEROS_MIN_SHARE = 0.0005;
/* Exponents in pairs may take this share more bits: they decode in half as many steps. */
static const double EXPONENT_PAIRS_MAX_LOSS = 0.02;
/* Part of a mantissa whose entropy is more than this share of its bits counts as random. */
static const double RANDOM_MIN_SHARE = 0.99, RANDOM_MIN_SHARE_BELOW_PAIRS = 0.9;

/* --- predictor --- */

/* The exponent of a float, or a byte of anything else. */
static uint32_t exponent_bits(enum wcx_elem_kind kind)
{
	switch (kind) {
	case WCX_KIND_FP16:
		return 5;
	case WCX_KIND_FP64:
		return 11;
	case WCX_KIND_BYTES:
	case WCX_KIND_INTEGER:
	case WCX_KIND_FP8:
	case WCX_KIND_BF16:
	case WCX_KIND_FP32:
		break;
	}
	return 8;
}

/* The entropy of the bits that show what a predictor gains: the exponent with the top of the mantissa, or all bytes. */
static double predicted_bits(struct wcx_study *study, enum wcx_predictor predictor)
{
	const struct wcx_tensor_plan *plan = study->plan;
	const uint32_t elem_bits = wcx_plan_elem_bits(plan);
	double bits = 0;

	wcx_study_predict(study, predictor, PREDICTOR_STRIDE);
	if (plan->kind != WCX_KIND_INTEGER) {
		uint32_t width = exponent_bits(plan->kind);

		if (elem_bits >= width + 2)
			width += 2;
		return wcx_study_entropy(study, elem_bits - width, width);
	}
	for (uint32_t shift = 0; shift < elem_bits; shift += CHAR_BIT)
		bits += wcx_study_entropy(study, shift, CHAR_BIT);
	return bits;
}

static void choose_predictor(struct wcx_study *study)
{
	static const enum wcx_predictor predictors[] = { WCX_PREDICT_LEFT, WCX_PREDICT_UP };
	enum wcx_predictor best = WCX_PREDICT_NONE;
	double least = -1, bits; /* of NONE, once another one may be used */

	for (size_t i = 0; i < WCX_ARRAY_COUNT(predictors); i++) {
		if (!wcx_study_may_predict(study, predictors[i]))
			continue;
		if (least < 0)
			least = predicted_bits(study, WCX_PREDICT_NONE) * (1 - PREDICTOR_MIN_GAIN);
		bits = predicted_bits(study, predictors[i]);
		if (bits < least) {
			least = bits;
			best = predictors[i];
		}
	}
	study->plan->segment.recipe.predictor = (uint8_t)best;
	wcx_study_predict(study, best, 1);
}

/* --- fields --- */

static void add_field(struct wcx_tensor_plan *plan, struct wcx_field field)
{
	plan->fields[plan->segment.recipe.field_count++] = field;
}

/* Whether the values in the histogram, of a field this wide, have so many zeros that these need a symbol. */
static bool needs_zero(const struct wcx_study *study, uint32_t width)
{
	const double zeros = (double)study->histogram[0];
	const double bits = (double)study->elems * wcx_plan_elem_bits(study->plan);

	return width > CHAR_BIT && zeros * WCX_EXCEPTION_BITS > ZEROS_MIN_SHARE * bits;
}

/*
 * The base that gives the most values in the histogram a symbol; *misfits_ret is how many get none.
 *
 * Takes the roundest base in the middle half of those that are equally good.  That leaves symbols for values that the
 * samples lack, and similar tensors get the same base and can share tables.
 */
static uint32_t choose_base(const struct wcx_study *study, const struct wcx_field *field, uint64_t *misfits_ret)
{
	const uint32_t has_zero = field->has_zero, symbols = wcx_field_symbols_max(field);
	uint32_t first = 0, last = 0, most = (1u << field->width) - symbols, quarter;
	uint64_t others = study->elems - (has_zero ? study->histogram[0] : 0), inside = 0, most_inside;

	*misfits_ret = 0;
	if (!wcx_field_is_wide(field))
		return 0;
	for (uint32_t v = has_zero; v < symbols; v++)
		inside += study->histogram[v];
	most_inside = inside;
	for (uint32_t base = 1; base <= most; base++) {
		inside += study->histogram[base + symbols - 1] - study->histogram[base - 1 + has_zero];
		if (inside > most_inside) {
			most_inside = inside;
			first = last = base;
		} else if (inside == most_inside && last + 1 == base) {
			last = base;
		}
	}
	*misfits_ret = others - most_inside;
	quarter = (last - first) / 4;
	first += quarter;
	last -= quarter;
	while (last && (last & (last - 1)) >= first)
		last &= last - 1;
	return last;
}

/* The bits that the values in the histogram take as symbols of a field, with their share of a table made for them. */
static double symbols_bits(const struct wcx_study *study, const struct wcx_field *field)
{
	uint64_t counts[WCX_SYMBOL_COUNT] = { 0 };
	struct wcx_freq_table table;
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
	double bits;

	for (uint32_t s = 0; s < wcx_field_symbols_max(field); s++)
		counts[s] = study->histogram[wcx_symbol_value(field, s)];
	counts[0] += wcx_counts_entropy(counts) == 0; /* a table needs a symbol even if all values are misfits */
	wcx_freq_table_build(counts, &table);
	bits = field->is_pair ? wcx_plan_pairs_bits(&table, counts) : wcx_freq_table_cost(&table, counts);
	return bits + CHAR_BIT * (double)wcx_freq_table_write(&table, written) / study->scale;
}

/* A top field of so many bits, whose histogram has been made, and in *bits_ret what all elements take with it. */
static struct wcx_field weigh_top(struct wcx_study *study, uint32_t width, bool is_pair, double *bits_ret)
{
	struct wcx_field field = { .width = (uint8_t)width, .table_count = 1, .is_pair = is_pair };
	const uint32_t below = wcx_plan_elem_bits(study->plan) - width;
	uint64_t misfits;

	field.has_zero = !is_pair && needs_zero(study, width);
	field.base = (uint16_t)choose_base(study, &field, &misfits);
	*bits_ret = symbols_bits(study, &field) + below * (double)study->elems + WCX_EXCEPTION_BITS * (double)misfits;
	return field;
}

/* What coding saves of the mantissa's parts below a top field of so many bits, where it saves enough. */
static double mantissa_savings(struct wcx_study *study, uint32_t top_width, double random_share)
{
	uint32_t left = wcx_plan_elem_bits(study->plan) - top_width - 1;
	double savings = 0;

	for (uint32_t shift = 1, part; left; shift += part, left -= part) {
		double bits, coded;

		part = WCX_MIN(left, CHAR_BIT);
		bits = part * (double)study->elems;
		coded = wcx_study_entropy(study, shift, part);
		savings += coded > random_share * bits ? 0 : bits - coded;
	}
	return savings;
}

/* Makes the histogram of a top field of so many bits from that of one with a bit more. */
static void halve_histogram(struct wcx_study *study, uint32_t width)
{
	for (size_t v = 0; v < (size_t)1 << width; v++)
		study->histogram[v] = study->histogram[2 * v] + study->histogram[2 * v + 1];
}

/* The top field of a float: the exponent with as many mantissa bits as pay, and the base of its symbols; or pairs. */
static struct wcx_field choose_top(struct wcx_study *study)
{
	const uint32_t elem_bits = wcx_plan_elem_bits(study->plan), exponent = exponent_bits(study->plan->kind);
	const uint32_t most = WCX_MIN(exponent + TOP_MANTISSA_BITS, elem_bits);
	struct wcx_field best = { 0 }, field;
	double least = INFINITY, bits;

	wcx_study_histogram(study, elem_bits - most, most);
	for (uint32_t width = most; width >= exponent; width--) {
		if (width < most)
			halve_histogram(study, width);
		field = weigh_top(study, width, false, &bits);
		if (bits <= least) {
			least = bits;
			best = field;
		}
	}
	if (!study->plan->for_speed || study->plan->segment.recipe.elem_bytes != 2)
		return best;
	field = weigh_top(study, exponent, true, &bits);
	least -= mantissa_savings(study, best.width, RANDOM_MIN_SHARE);
	bits -= mantissa_savings(study, exponent, RANDOM_MIN_SHARE_BELOW_PAIRS);
	return bits < least * (1 + EXPONENT_PAIRS_MAX_LOSS) ? field : best;
}

/* The bits below the top field: the sign, raw, and the mantissa in parts, any of which may turn out not to be random. */
static void add_mantissa(struct wcx_tensor_plan *plan, uint32_t width)
{
	add_field(plan, (struct wcx_field){ .width = 1 });
	for (uint32_t left = width - 1, part; left; left -= part) {
		part = WCX_MIN(left, CHAR_BIT);
		add_field(plan, (struct wcx_field){ .width = (uint8_t)part, .table_count = 1 });
	}
}

static void choose_fields(struct wcx_study *study)
{
	struct wcx_tensor_plan *plan = study->plan;
	struct wcx_field top;

	if (!wcx_plan_is_float(plan) || plan->kind == WCX_KIND_FP8) {
		for (uint32_t i = 0; i < plan->segment.recipe.elem_bytes; i++)
			add_field(plan, (struct wcx_field){ .width = CHAR_BIT, .table_count = 1 });
		return;
	}
	top = choose_top(study);
	add_mantissa(plan, wcx_plan_elem_bits(plan) - top.width);
	add_field(plan, top);
}

/* --- tables --- */

/* A run is a row where rows fit. */
static uint32_t choose_run(const struct wcx_tensor_plan *plan)
{
	if (plan->is_pool)
		return WCX_PLAN_POOL_RUN;
	return wcx_plan_has_rows(plan) && plan->matrix_cols % WCX_RUN_ELEMS == 0 ? (uint32_t)plan->matrix_cols : FLAT_RUN;
}

/* The entropy of clusters, each with a code of its own; *symbols_ret is how many symbols their tables will have in all. */
static double clusters_bits(uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], uint32_t count, uint32_t *symbols_ret)
{
	double bits = 0;

	*symbols_ret = 0;
	for (uint32_t t = 0; t < count; t++) {
		bits += wcx_counts_entropy(clusters[t]);
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			*symbols_ret += clusters[t][s] > 0;
	}
	return bits;
}

/* Makes the tables of a draft, in which every symbol has a frequency: the samples may lack some. */
static void draft_tables(uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], const struct wcx_field *field,
			 struct wcx_freq_table *tables)
{
	const uint32_t symbols = wcx_field_symbols_max(field);

	for (uint32_t t = 0; t < field->table_count; t++) {
		for (uint32_t s = 0; s < symbols; s++)
			clusters[t][s] = 64 * clusters[t][s] + 1;
		wcx_freq_table_build(clusters[t], &tables[t]);
	}
}

/* Whether the plan has exponents in pairs, which choose_top takes for speed. */
static bool has_wide_pairs(const struct wcx_tensor_plan *plan)
{
	return plan->segment.recipe.elem_bytes == 2 && plan->fields[plan->segment.recipe.field_count - 1].is_pair;
}

/* Chooses and drafts the tables of a field, up to most_tables, or none if it is random; shift is where its bits begin. */
static void choose_tables(struct wcx_study *study, uint32_t number, uint32_t shift, uint32_t run, uint32_t most_tables)
{
	struct wcx_tensor_plan *plan = study->plan;
	struct wcx_field *field = &plan->fields[number];
	uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], best[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	const double random_share = has_wide_pairs(plan) ? RANDOM_MIN_SHARE_BELOW_PAIRS : RANDOM_MIN_SHARE;
	double least = INFINITY, counted = 0, misfits;

	misfits = wcx_symbols_take(study->ops, field, study->current, (uint32_t)study->elems, shift, study->values,
				   study->symbols);
	wcx_run_counts_make(study->symbols, study->elems, most_tables > 1 ? run : (uint32_t)study->elems, study->runs);
	for (uint32_t count = 1; count <= most_tables; count *= 2) {
		uint32_t symbols;
		double bits;

		wcx_run_clusters_make(study->runs, count, clusters);
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT && count == 1; s++)
			counted += (double)clusters[0][s];
		bits = clusters_bits(clusters, count, &symbols) + (count >> 1) * counted / run;
		bits += CHAR_BIT * TABLE_SYMBOL_BYTES * symbols * counted / (double)wcx_plan_elems(plan);
		if (bits > least * (1 - TABLES_MIN_GAIN))
			break;
		least = bits;
		memcpy(best, clusters, count * sizeof *best);
		field->table_count = (uint8_t)count;
	}
	/* Of few samples, even random bits have an entropy a little below their width. */
	if (shift + field->width < wcx_plan_elem_bits(plan) && least > random_share * field->width * counted) {
		field->table_count = 0;
		return;
	}
	field->tables = plan->tables + (size_t)number * WCX_FIELD_TABLES_MAX;
	draft_tables(best, field, plan->tables + (size_t)number * WCX_FIELD_TABLES_MAX);
	plan->draft_bits += (least + WCX_EXCEPTION_BITS * misfits) * study->scale;
}

/* --- tiles --- */

/* The most rows, up to `most`, that fill all units of raw planes; or `most` if that would halve the tile. */
static uint32_t aligned_rows(uint32_t cols, uint32_t most)
{
	for (uint32_t rows = most; rows > most / 2; rows--)
		if ((uint64_t)rows * cols % TILE_ROWS_ALIGN == 0)
			return rows;
	return most;
}

void wcx_plan_flat_tiles(struct wcx_tensor_plan *plan, uint32_t tile_elems)
{
	struct wcx_segment *seg = &plan->segment;

	seg->cols = wcx_plan_elems(plan);
	seg->tile_cols = tile_elems;
	seg->tile_rows = 1;
	wcx_segment_grid(seg);
}

static void choose_tiles(struct wcx_tensor_plan *plan)
{
	struct wcx_segment *seg = &plan->segment;
	const bool has_row_runs =
		seg->recipe.run_elems && seg->recipe.run_elems == plan->matrix_cols && wcx_plan_has_rows(plan);
	const bool has_rows = has_row_runs || seg->recipe.predictor == WCX_PREDICT_UP;
	const uint32_t elems = wcx_plan_tile_elems(plan);

	if (!has_rows) {
		wcx_plan_flat_tiles(plan, elems);
		return;
	}
	seg->cols = plan->matrix_cols;
	seg->tile_cols = (uint32_t)seg->cols;
	seg->tile_rows = aligned_rows(seg->tile_cols, elems / seg->tile_cols);
	wcx_segment_grid(seg);
}

/* --- the whole plan --- */

static void choose_all(struct wcx_study *study, uint32_t most_tables)
{
	struct wcx_tensor_plan *plan = study->plan;
	const uint32_t run = choose_run(plan);
	uint32_t shift = 0;

	choose_predictor(study);
	choose_fields(study);
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++) {
		if (plan->fields[f].table_count)
			choose_tables(study, f, shift, run, most_tables);
		if (!plan->fields[f].table_count)
			plan->draft_bits += (double)wcx_plan_elems(plan) * plan->fields[f].width;
		shift += plan->fields[f].width;
	}
	wcx_plan_set_run(plan, run);
	choose_tiles(plan);
}

/* The reference's scheme: square tiles of bytes, LEFT applied twice, one table. */
static void choose_reference(struct wcx_study *study)
{
	struct wcx_segment *seg = &study->plan->segment;

	seg->recipe.predictor = WCX_PREDICT_LEFT2;
	add_field(study->plan, (struct wcx_field){ .width = CHAR_BIT, .table_count = 1 });
	seg->cols = study->plan->matrix_cols;
	seg->tile_rows = seg->tile_cols = REFERENCE_SIDE;
	wcx_segment_grid(seg);
	wcx_study_predict(study, WCX_PREDICT_LEFT2, 1);
	choose_tables(study, 0, 0, WCX_TILE_MAX_ELEMS, 1);
}

enum wcx_result wcx_plan_choose_with(struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned sample_count,
				     uint32_t most_tables)
{
	struct wcx_study study;
	const bool is_open = wcx_study_open(&study, plan, samples, sample_count);
	enum wcx_result result = WCX_NO_MEMORY;

	plan->tables = calloc(WCX_RECIPE_TABLES_MAX, sizeof *plan->tables);
	plan->counts = calloc(1, sizeof *plan->counts);
	plan->segment.recipe.fields = plan->fields;
	if (is_open && plan->tables && plan->counts) {
		if (plan->is_reference)
			choose_reference(&study);
		else
			choose_all(&study, most_tables);
		result = WCX_OK;
	}
	wcx_study_close(&study);
	return result;
}

enum wcx_result wcx_tensor_plan_choose(struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned sample_count)
{
	return wcx_plan_choose_with(plan, samples, sample_count, WCX_FIELD_TABLES_MAX);
}
