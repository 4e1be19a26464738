/* SPDX-License-Identifier: MIT */
/* Chooses how a tensor is coded by what the choices cost on the tensor at hand. */
#include "fs/pack/tensor_plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/element.h"
#include "codec/rans.h"
#include "fs/pack/run_clusters.h"

enum {
	MATRIX_MIN_COLS = 64, /* trailing dimensions are taken as one row until it is this long */
	/*
	 * A small read should not decode much more than it asks for, and a GPU wants many tiles, each of which takes it some
	 * time: 512 steps where a symbol is two weights of a byte, or one of two bytes.
	 */
	TILE_NARROW_BYTES = 32 << 10, /* where elements have one or two bytes */
	TILE_WIDE_BYTES = 64 << 10,
	TILE_ROWS_ALIGN = 1024, /* elements that leave no unit of a raw plane half empty, whatever its width */
	POOL_RUN = 128,         /* small tensors are short */
	FLAT_RUN = 256,         /* where rows do not fit runs */
	SAMPLE_MIN_ELEMS = 32768,
	PREDICTOR_STRIDE = 4, /* predictors differ so much that a part of the samples shows which is best */
	SAMPLE_MIN_ROWS = 96,
	SAMPLE_SHARE = 8, /* of the elements of a large tensor, one in so many is looked at */
	BYTE_BITS = 8,
	RAW_MOST_BITS = 4,         /* low bits of a byte that may be raw */
	TABLE_SYMBOL_BYTES = 1,    /* what a symbol takes in a written table, about */
	SHARE_MAX_BYTES = 8 << 20, /* segments up to this may share tables: beyond, their own always pay */
	REFERENCE_SIDE = 256,
};

/* Pairs may take so much more than single symbols do: they take half the time to decode. */
static const double PAIRS_MAX_LOSS = 0.002;
/* Zeros are a symbol where as exceptions they would take more than this share of the elements' bits. */
static const double ZEROS_MIN_SHARE = 0.0005;

/* A predictor has to save this share of the bits: it costs decoding time, and less is within the samples' noise. */
static const double PREDICTOR_MIN_GAIN = 0.005;
/* So much less have two tables to take than one, and four than two: they cost decoding time too. */
static const double TABLES_MIN_GAIN = 0.0005;
/* What an exception takes where the states have room for it. */
static const double CARRIED_EXCEPTION_BITS = 12;
/* A part of a mantissa that takes more of its bits than this is as good as random. */
static const double RANDOM_MIN_SHARE = 0.99;

static uint64_t elems_of(const struct wcx_tensor_plan *plan)
{
	return plan->segment.bytes / plan->segment.recipe.elem_bytes;
}

/* Elements of a tile at most. */
static uint32_t tile_elems(const struct wcx_tensor_plan *plan)
{
	const uint32_t elem_bytes = plan->segment.recipe.elem_bytes;

	return (elem_bytes <= 2 ? TILE_NARROW_BYTES : TILE_WIDE_BYTES) / elem_bytes;
}

/* The length of a row: the elements divided by as many leading dimensions as leave it long enough. */
static uint64_t matrix_cols(const struct wcx_tensor *tensor, uint64_t elems)
{
	uint64_t rows = 1, cols = elems;

	for (size_t i = 0; i + 1 < tensor->dim_count; i++) {
		uint64_t dim = tensor->shape[i];

		if (dim == 0 || cols % dim || cols / dim < MATRIX_MIN_COLS)
			break;
		rows *= dim;
		cols /= dim;
	}
	return elems / rows;
}

/* What is known of a dtype; a complex number is two floats. */
struct dtype {
	const char *name;
	enum wcx_elem_kind kind;
	uint8_t elem_bytes;
};

static const struct dtype *find_dtype(const char *name)
{
	static const struct dtype dtypes[] = {
		{ "F8_E4M3", WCX_KIND_FP8, 1 },     { "F8_E5M2", WCX_KIND_FP8, 1 }, { "F8_E4M3FNUZ", WCX_KIND_FP8, 1 },
		{ "F8_E5M2FNUZ", WCX_KIND_FP8, 1 }, { "F16", WCX_KIND_FP16, 2 },    { "BF16", WCX_KIND_BF16, 2 },
		{ "F32", WCX_KIND_FP32, 4 },        { "C64", WCX_KIND_FP32, 4 },    { "F64", WCX_KIND_FP64, 8 },
		{ "I16", WCX_KIND_INTEGER, 2 },     { "U16", WCX_KIND_INTEGER, 2 }, { "I32", WCX_KIND_INTEGER, 4 },
		{ "U32", WCX_KIND_INTEGER, 4 },     { "I64", WCX_KIND_INTEGER, 8 }, { "U64", WCX_KIND_INTEGER, 8 },
		{ "BOOL", WCX_KIND_INTEGER, 1 },
	};
	static const struct dtype bytes = { "", WCX_KIND_BYTES, 1 };

	for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
		if (strcmp(dtypes[i].name, name) == 0)
			return &dtypes[i];
	return &bytes;
}

static int is_float(enum wcx_elem_kind kind)
{
	return kind != WCX_KIND_BYTES && kind != WCX_KIND_INTEGER;
}

void wcx_tensor_plan_init(struct wcx_tensor_plan *plan, uint64_t offset, uint64_t bytes, const struct wcx_tensor *tensor,
			  int is_pool, int is_reference)
{
	const struct dtype *dtype = find_dtype(tensor && !is_reference ? tensor->dtype : "");

	/* The library lets no known dtype get here with part of an element. */
	if (bytes % dtype->elem_bytes)
		dtype = find_dtype("");
	memset(plan, 0, sizeof *plan);
	plan->segment.offset = offset;
	plan->segment.bytes = bytes;
	plan->segment.recipe.elem_bytes = dtype->elem_bytes;
	plan->segment.recipe.transform = is_float(dtype->kind) ? WCX_TRANSFORM_ROTATE : WCX_TRANSFORM_NONE;
	plan->kind = dtype->kind;
	plan->is_pool = is_pool;
	plan->is_reference = is_reference && tensor;
	plan->tries_zstd = !tensor || (dtype->kind == WCX_KIND_INTEGER && !is_reference);
	plan->matrix_cols = tensor && !is_pool ? matrix_cols(tensor, elems_of(plan)) : elems_of(plan);
}

/* Whether tiles can be whole rows. */
static int has_rows(const struct wcx_tensor_plan *plan)
{
	return plan->matrix_cols < elems_of(plan) && plan->matrix_cols <= tile_elems(plan);
}

unsigned wcx_tensor_plan_samples(const struct wcx_tensor_plan *plan, struct wcx_sample samples[WCX_SAMPLES_MAX])
{
	const uint32_t elem_bytes = plan->segment.recipe.elem_bytes;
	uint64_t elems = elems_of(plan), row = has_rows(plan) ? plan->matrix_cols : elems < POOL_RUN ? elems : POOL_RUN;
	uint64_t rows = elems / row, wanted = elems / SAMPLE_SHARE / row, sample_rows;
	unsigned count;

	if (wanted < SAMPLE_MIN_ELEMS / row)
		wanted = SAMPLE_MIN_ELEMS / row;
	if (has_rows(plan) && wanted < SAMPLE_MIN_ROWS)
		wanted = SAMPLE_MIN_ROWS;
	if (wanted > WCX_SAMPLES_MAX_BYTES / elem_bytes / row)
		wanted = WCX_SAMPLES_MAX_BYTES / elem_bytes / row;
	sample_rows = wanted / WCX_SAMPLES_MAX ? wanted / WCX_SAMPLES_MAX : 1;
	if (sample_rows > tile_elems(plan) / row)
		sample_rows = tile_elems(plan) / row;
	if (sample_rows > rows)
		sample_rows = rows;
	count = rows / sample_rows < WCX_SAMPLES_MAX ? (unsigned)(rows / sample_rows) : WCX_SAMPLES_MAX;
	for (unsigned i = 0; i < count; i++) {
		uint64_t first = count > 1 ? (rows - sample_rows) * i / (count - 1) : 0;

		samples[i] = (struct wcx_sample){
			.offset = plan->segment.offset + first * row * elem_bytes,
			.dims = { (uint32_t)sample_rows, (uint32_t)row, elem_bytes },
		};
		if (!has_rows(plan)) /* one flat run, not a column */
			samples[i].dims = (struct wcx_tile_dims){ 1, (uint32_t)(sample_rows * row), elem_bytes };
	}
	return count;
}

/* --- what the samples tell --- */

/* The samples of a tensor as the codec sees them: rotated and predicted.  Working memory of choosing. */
struct study {
	struct wcx_tensor_plan *plan;
	const struct wcx_sample *samples;
	unsigned sample_count;
	const struct wcx_element_ops *ops;
	uint8_t *elements[2];   /* rotated, as residuals: of all samples side by side */
	const uint8_t *current; /* one of these */
	size_t elems;
	double scale; /* elements of the tensor for each of these */
	uint16_t *values;
	uint8_t *symbols;
	uint64_t *histogram; /* of 2^16 values */
	struct wcx_run_counts *runs;
};

static void study_close(struct study *study)
{
	free(study->elements[0]);
	free(study->elements[1]);
	free(study->values);
	free(study->symbols);
	free(study->histogram);
	free(study->runs);
}

static int study_open(struct study *study, struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned count)
{
	const uint32_t elem_bytes = plan->segment.recipe.elem_bytes;

	*study = (struct study){
		.plan = plan, .samples = samples, .sample_count = count, .ops = wcx_element_ops(elem_bytes)
	};
	for (unsigned i = 0; i < count; i++)
		study->elems += (size_t)samples[i].dims.rows * samples[i].dims.cols;
	for (int i = 0; i < 2; i++)
		study->elements[i] = malloc(study->elems * elem_bytes);
	study->values = malloc(study->elems * sizeof *study->values);
	study->symbols = malloc(study->elems);
	study->histogram = malloc((1u << WCX_CODED_MAX_WIDTH) * sizeof *study->histogram);
	study->runs = malloc(sizeof *study->runs);
	return study->elements[0] && study->elements[1] && study->values && study->symbols && study->histogram &&
	       study->runs;
}

/* Looks at the samples under a predictor from now on, or at one of them in so many. */
static void study_predict(struct study *study, enum wcx_predictor predictor, unsigned stride)
{
	const uint32_t elem_bytes = study->plan->segment.recipe.elem_bytes;
	size_t at = 0;

	study->elems = 0;
	for (unsigned i = 0; i < study->sample_count; i += stride) {
		const struct wcx_tile_dims *dims = &study->samples[i].dims;
		size_t elems = (size_t)dims->rows * dims->cols;

		if (study->plan->segment.recipe.transform != WCX_TRANSFORM_NONE)
			study->ops->rotate(study->samples[i].src, elems, 0, study->elements[0] + at);
		else
			memcpy(study->elements[0] + at, study->samples[i].src, elems * elem_bytes);
		if (predictor != WCX_PREDICT_NONE)
			study->ops->make_residuals(predictor, dims->rows, dims->cols, study->elements[0] + at,
						   study->elements[1] + at);
		at += elems * elem_bytes;
		study->elems += elems;
	}
	study->scale = (double)elems_of(study->plan) / (double)study->elems;
	study->current = study->elements[predictor != WCX_PREDICT_NONE];
}

/* Makes the histogram of width bits from shift on. */
static void study_histogram(struct study *study, uint32_t shift, uint32_t width)
{
	memset(study->histogram, 0, ((size_t)1 << width) * sizeof *study->histogram);
	study->ops->get16(study->current, study->elems, shift, width, study->values);
	for (size_t i = 0; i < study->elems; i++)
		study->histogram[study->values[i]]++;
}

/* The bits that width bits from shift on take, coded one by one. */
static double study_entropy(struct study *study, uint32_t shift, uint32_t width)
{
	double bits = 0;

	study_histogram(study, shift, width);
	for (size_t v = 0; v < (size_t)1 << width; v++)
		if (study->histogram[v])
			bits += (double)study->histogram[v] * log2((double)study->elems / (double)study->histogram[v]);
	return bits;
}

/* --- predictor --- */

static uint32_t elem_bits(const struct wcx_tensor_plan *plan)
{
	return BYTE_BITS * plan->segment.recipe.elem_bytes;
}

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

/* What a predictor can do shows in the exponent with the top of the mantissa, or in bytes. */
static double predicted_bits(struct study *study, enum wcx_predictor predictor)
{
	const struct wcx_tensor_plan *plan = study->plan;
	double bits = 0;

	study_predict(study, predictor, PREDICTOR_STRIDE);
	if (plan->kind != WCX_KIND_INTEGER) {
		uint32_t width = exponent_bits(plan->kind);

		if (elem_bits(plan) >= width + 2)
			width += 2;
		return study_entropy(study, elem_bits(plan) - width, width);
	}
	for (uint32_t shift = 0; shift < elem_bits(plan); shift += BYTE_BITS)
		bits += study_entropy(study, shift, BYTE_BITS);
	return bits;
}

static void choose_predictor(struct study *study)
{
	struct wcx_recipe *recipe = &study->plan->segment.recipe;
	double least = predicted_bits(study, WCX_PREDICT_NONE) * (1 - PREDICTOR_MIN_GAIN);

	recipe->predictor = WCX_PREDICT_NONE;
	for (uint32_t predictor = WCX_PREDICT_LEFT; predictor <= WCX_PREDICT_UP; predictor++) {
		double bits;

		if (study->plan->is_pool || recipe->transform != WCX_TRANSFORM_NONE ||
		    (predictor == WCX_PREDICT_UP && study->samples[0].dims.rows < 2))
			continue;
		bits = predicted_bits(study, (enum wcx_predictor)predictor);
		if (bits < least) {
			least = bits;
			recipe->predictor = (uint8_t)predictor;
		}
	}
	study_predict(study, (enum wcx_predictor)recipe->predictor, 1);
}

/* --- fields --- */

static void add_field(struct wcx_tensor_plan *plan, uint32_t width, uint32_t table_count)
{
	plan->fields[plan->segment.recipe.field_count++] =
		(struct wcx_field){ .width = (uint8_t)width, .table_count = (uint8_t)table_count };
}

/* Whether the values in the histogram, of a field of so many bits, have so many zeros that these want a symbol. */
static int wants_zero(const struct study *study, uint32_t width)
{
	const double zeros = (double)study->histogram[0], bits = (double)study->elems * elem_bits(study->plan);

	return width > BYTE_BITS && zeros * WCX_EXCEPTION_BITS > ZEROS_MIN_SHARE * bits;
}

/*
 * The base of a field whose values are in the histogram, so that as many as can be are symbols; *misfits_ret is how many
 * then are none.  Of the bases that are as good it is the roundest of the middle half: with room for values that the samples
 * lack, and the same for tensors that are alike, which can share tables then.
 */
static uint32_t choose_base(const struct study *study, uint32_t width, uint32_t has_zero, uint64_t *misfits_ret)
{
	uint32_t first = 0, last = 0, most = (1u << width) - WCX_SYMBOL_COUNT, quarter;
	uint64_t others = study->elems - (has_zero ? study->histogram[0] : 0), inside = 0, most_inside;

	*misfits_ret = 0;
	if (width <= BYTE_BITS)
		return 0;
	for (uint32_t v = has_zero; v < WCX_SYMBOL_COUNT; v++)
		inside += study->histogram[v];
	most_inside = inside;
	for (uint32_t base = 1; base <= most; base++) {
		inside += study->histogram[base + WCX_SYMBOL_COUNT - 1] - study->histogram[base - 1 + has_zero];
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

/* What the values in the histogram take as symbols of a field, with the table that they would get. */
static double symbols_bits(const struct study *study, const struct wcx_field *field)
{
	uint64_t counts[WCX_SYMBOL_COUNT] = { 0 };
	struct wcx_freq_table table;
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT && wcx_symbol_value(field, s) < 1u << field->width; s++)
		counts[s] = study->histogram[wcx_symbol_value(field, s)];
	counts[0] += wcx_counts_entropy(counts) == 0; /* a table needs a symbol, even where all values are misfits */
	wcx_freq_table_build(counts, &table);
	return wcx_freq_table_cost(&table, counts) +
	       BYTE_BITS * (double)wcx_freq_table_write(&table, written) / study->scale;
}

/* Chooses how many bits of the mantissa are coded with the exponent, and what symbols are counted from. */
static struct wcx_field choose_top(struct study *study)
{
	const struct wcx_tensor_plan *plan = study->plan;
	const uint32_t exponent = exponent_bits(plan->kind);
	struct wcx_field best = { 0 };
	double least = INFINITY;

	for (uint32_t width = exponent; width <= exponent + 3 && width <= elem_bits(plan); width++) {
		struct wcx_field field = { .width = (uint8_t)width, .table_count = 1 };
		uint64_t misfits;
		double bits;

		study_histogram(study, elem_bits(plan) - width, width);
		field.has_zero = (uint8_t)wants_zero(study, width);
		field.base = (uint16_t)choose_base(study, width, field.has_zero, &misfits);
		bits = symbols_bits(study, &field) + (double)(elem_bits(plan) - width) * (double)study->elems;
		bits += WCX_EXCEPTION_BITS * (double)misfits;
		if (bits < least) {
			least = bits;
			best = field;
		}
	}
	return best;
}

/* The bits below the top field of a float: the sign, and the mantissa in parts that may turn out not to be random. */
static void add_mantissa(struct wcx_tensor_plan *plan, uint32_t width)
{
	add_field(plan, 1, 0);
	for (width--; width; width -= width < BYTE_BITS ? width : BYTE_BITS)
		add_field(plan, width < BYTE_BITS ? width : BYTE_BITS, 1);
}

static void choose_fields(struct study *study)
{
	struct wcx_tensor_plan *plan = study->plan;
	struct wcx_field top;

	if (!is_float(plan->kind) || plan->kind == WCX_KIND_FP8) {
		for (uint32_t i = 0; i < plan->segment.recipe.elem_bytes; i++)
			add_field(plan, BYTE_BITS, 1);
		return;
	}
	top = choose_top(study);
	add_mantissa(plan, elem_bits(plan) - top.width);
	plan->fields[plan->segment.recipe.field_count++] = top;
}

/* --- tables --- */

/* Elements that share a choice of table: a row, where rows fit. */
static uint32_t choose_run(const struct wcx_tensor_plan *plan)
{
	if (plan->is_pool)
		return POOL_RUN;
	return has_rows(plan) && plan->matrix_cols % WCX_RUN_ELEMS == 0 ? (uint32_t)plan->matrix_cols : FLAT_RUN;
}

/* What the symbols of clusters take, each in its own code; *symbols_ret is how many symbols their tables will have. */
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

/* The tables of a draft: every symbol has a frequency, for the samples may lack it. */
static void draft_tables(uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], const struct wcx_field *field,
			 struct wcx_freq_table *tables)
{
	uint32_t symbols = field->width < BYTE_BITS ? 1u << field->width : WCX_SYMBOL_COUNT;

	for (uint32_t t = 0; t < field->table_count; t++) {
		for (uint32_t s = 0; s < symbols; s++)
			clusters[t][s] = 64 * clusters[t][s] + 1;
		wcx_freq_table_build(clusters[t], &tables[t]);
	}
}

/* Chooses how many tables a field gets, up to most_tables, or none where it is random, and drafts them. */
static void choose_tables(struct study *study, uint32_t number, uint32_t shift, uint32_t run, uint32_t most_tables)
{
	struct wcx_tensor_plan *plan = study->plan;
	struct wcx_field *field = &plan->fields[number];
	uint64_t clusters[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], best[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	double least = INFINITY, counted = 0;

	wcx_symbols_take(study->ops, field, study->current, (uint32_t)study->elems, shift, study->values, study->symbols);
	wcx_run_counts_make(study->symbols, study->elems, run, study->runs);
	for (uint32_t count = 1; count <= most_tables; count *= 2) {
		uint32_t symbols;
		double bits;

		wcx_run_clusters_make(study->runs, count, clusters);
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT && count == 1; s++)
			counted += (double)clusters[0][s];
		bits = clusters_bits(clusters, count, &symbols) + (count >> 1) * counted / run;
		bits += BYTE_BITS * TABLE_SYMBOL_BYTES * symbols * counted / (double)elems_of(plan);
		if (bits > least * (1 - TABLES_MIN_GAIN))
			break;
		least = bits;
		memcpy(best, clusters, count * sizeof *best);
		field->table_count = (uint8_t)count;
	}
	/* Random, with no more than what narrow statistics make of it. */
	if (shift + field->width < elem_bits(plan) && least > RANDOM_MIN_SHARE * field->width * counted) {
		field->table_count = 0;
		return;
	}
	draft_tables(best, field, plan->tables[number]);
	field->tables = plan->tables[number];
}

/* --- tiles --- */

/* A run is needed as soon as a field has tables to choose from. */
static void set_run(struct wcx_tensor_plan *plan, uint32_t run)
{
	plan->segment.recipe.run = 0;
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++)
		if (plan->fields[f].table_count > 1)
			plan->segment.recipe.run = run;
}

/* The most rows up to so many that fill units of raw planes, or so many if there are none. */
static uint32_t aligned_rows(uint32_t cols, uint32_t most)
{
	for (uint32_t rows = most; rows > most / 2; rows--)
		if ((uint64_t)rows * cols % TILE_ROWS_ALIGN == 0)
			return rows;
	return most;
}

static void choose_tiles(struct wcx_tensor_plan *plan)
{
	struct wcx_segment *seg = &plan->segment;
	int has_row_runs = seg->recipe.run && seg->recipe.run == plan->matrix_cols && has_rows(plan);
	int rows = has_row_runs || seg->recipe.predictor == WCX_PREDICT_UP;

	seg->cols = rows ? plan->matrix_cols : elems_of(plan);
	seg->tile_cols = rows ? (uint32_t)seg->cols : tile_elems(plan);
	seg->tile_rows = rows ? aligned_rows(seg->tile_cols, tile_elems(plan) / seg->tile_cols) : 1;
	wcx_segment_grid(seg);
}

/* The reference's scheme: square tiles of bytes, LEFT and again the difference, one table. */
static void plan_reference(struct wcx_tensor_plan *plan)
{
	struct wcx_segment *seg = &plan->segment;

	seg->recipe.predictor = WCX_PREDICT_LEFT2;
	add_field(plan, BYTE_BITS, 1);
	seg->cols = plan->matrix_cols;
	seg->tile_rows = seg->tile_cols = REFERENCE_SIDE;
	wcx_segment_grid(seg);
}

enum wcx_result wcx_tensor_plan_choose(struct wcx_tensor_plan *plan, const struct wcx_sample *samples, unsigned sample_count)
{
	uint32_t run = choose_run(plan), shift = 0;
	struct study study;
	int opened = study_open(&study, plan, samples, sample_count);

	plan->tables = calloc(WCX_FIELDS_MAX, sizeof *plan->tables);
	plan->counts = calloc(1, sizeof *plan->counts);
	plan->segment.recipe.fields = plan->fields;
	if (!opened || !plan->tables || !plan->counts) {
		study_close(&study);
		return WCX_NO_MEMORY;
	}
	if (plan->is_reference) {
		plan_reference(plan);
		study_predict(&study, WCX_PREDICT_LEFT2, 1);
		choose_tables(&study, 0, 0, WCX_TILE_MAX_ELEMS, 1);
	} else {
		choose_predictor(&study);
		choose_fields(&study);
		for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++) {
			if (plan->fields[f].table_count)
				choose_tables(&study, f, shift, run, WCX_FIELD_TABLES_MAX);
			shift += plan->fields[f].width;
		}
		set_run(plan, run);
		choose_tiles(plan);
	}
	study_close(&study);
	return WCX_OK;
}

void wcx_tensor_plan_tile(const struct wcx_tensor_plan *plan, uint64_t tile, struct wcx_tile_dims *dims_ret,
			  uint64_t *offset_ret)
{
	const struct wcx_segment *seg = &plan->segment;
	struct wcx_tile_info place;

	wcx_segment_place(seg, tile, &place);
	*dims_ret = place.dims;
	*offset_ret = seg->offset + (place.row * seg->cols + place.col) * seg->recipe.elem_bytes;
}

/* --- counting --- */

static void count_bytes(const uint8_t *src, size_t elems, uint32_t elem_bytes, struct wcx_plan_counts *counts)
{
	for (size_t i = 0; i < elems; i++)
		for (uint32_t b = 0; b < elem_bytes; b++)
			counts->bytes[b][src[i * elem_bytes + b]]++;
}

/* Whether the bytes of elements are what the symbols of the draft are, so that they need not be counted too. */
static int symbols_are_bytes(const struct wcx_tensor_plan *plan)
{
	return plan->segment.recipe.elem_bytes == 1 && plan->segment.recipe.predictor == WCX_PREDICT_NONE;
}

void wcx_tensor_plan_count(const struct wcx_tensor_plan *plan, const struct wcx_tile_dims *dims, const uint8_t *src,
			   struct wcx_encode_scratch *scratch, struct wcx_plan_counts *counts)
{
	const struct wcx_recipe *recipe = &plan->segment.recipe;

	for (uint32_t f = 0; f < recipe->field_count; f++)
		if (plan->fields[f].table_count)
			wcx_tile_count(dims, src, recipe, f, scratch, counts->symbols[f], &counts->misfits[f]);
	if (!symbols_are_bytes(plan))
		count_bytes(src, (size_t)dims->rows * dims->cols, dims->elem_bytes, counts);
}

static void add_all(uint64_t *to, const uint64_t *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		to[i] += from[i];
}

void wcx_plan_counts_add(struct wcx_tensor_plan *plan, const struct wcx_plan_counts *counts)
{
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++) {
		if (!plan->fields[f].table_count)
			continue;
		plan->counts->misfits[f] += counts->misfits[f];
		add_all(plan->counts->symbols[f][0], counts->symbols[f][0],
			(size_t)plan->fields[f].table_count * WCX_SYMBOL_COUNT);
	}
	add_all(plan->counts->bytes[0], counts->bytes[0], (size_t)plan->segment.recipe.elem_bytes * WCX_SYMBOL_COUNT);
}

/* --- the final recipe --- */

static void set_entropy(struct wcx_tensor_plan *plan)
{
	double bits = 0;

	if (symbols_are_bytes(plan))
		for (uint32_t t = 0; t < plan->fields[0].table_count; t++)
			add_all(plan->counts->bytes[0], plan->counts->symbols[0][t], WCX_SYMBOL_COUNT);
	for (uint32_t b = 0; b < plan->segment.recipe.elem_bytes; b++)
		bits += wcx_counts_entropy(plan->counts->bytes[b]);
	plan->segment.entropy_millibits = (uint32_t)(bits * 1000 / (double)elems_of(plan));
}

/*
 * Takes symbols that are so rare that a slot of a table is worth more to the others: their elements become exceptions.  With
 * price, in bits, for one of these, it returns how many there are.
 */
static uint64_t drop_rare(uint64_t counts[WCX_SYMBOL_COUNT], double price)
{
	uint64_t sum = 0, dropped = 0;
	double worth;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		sum += counts[s];
	worth = (double)sum * log2(1 + 1.0 / WCX_PROB_SCALE);
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		if ((double)counts[s] * price >= worth)
			continue;
		dropped += counts[s];
		counts[s] = 0;
	}
	return dropped;
}

/* What symbols take with a table; those without a frequency are exceptions. */
static double table_bits(const struct wcx_freq_table *table, const uint64_t counts[WCX_SYMBOL_COUNT])
{
	uint64_t kept[WCX_SYMBOL_COUNT], exceptions = 0;

	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++) {
		kept[s] = table->freq[s] ? counts[s] : 0;
		exceptions += counts[s] - kept[s];
	}
	return wcx_freq_table_cost(table, kept) + WCX_EXCEPTION_BITS * (double)exceptions;
}

/* The same of symbols that are coded as pairs: as many of each as if neighbours were independent. */
static double pairs_bits(const struct wcx_freq_table *table, const uint64_t counts[WCX_SYMBOL_COUNT])
{
	struct wcx_freq_table pairs;
	double sum = 0, bits = 0;

	wcx_freq_table_pair(table, &pairs);
	for (uint32_t s = 0; s < WCX_PAIR_SYMBOLS; s++)
		sum += (double)counts[s];
	for (uint32_t p = 0; p < WCX_SYMBOL_COUNT && sum > 0; p++) {
		double occur = (double)counts[p % WCX_PAIR_SYMBOLS] * (double)counts[p / WCX_PAIR_SYMBOLS] / sum / 2;

		bits += occur * (pairs.freq[p] ? WCX_PROB_BITS - log2(pairs.freq[p]) : WCX_EXCEPTION_BITS);
	}
	return bits;
}

static double symbols_bits_with(const struct wcx_field *field, const struct wcx_freq_table *table,
				const uint64_t counts[WCX_SYMBOL_COUNT])
{
	return field->is_pair ? pairs_bits(table, counts) : table_bits(table, counts);
}

/*
 * Tables for the counts of a field, and the bits that symbols and tables take together.  A price that is not 0 lets rare
 * symbols be exceptions (of pairs, rare ones are so anyway); *exceptions_ret is how many.
 */
static double build_tables(const struct wcx_field *field, uint64_t counts[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT],
			   double price, struct wcx_freq_table *tables, uint64_t *exceptions_ret)
{
	uint64_t all[WCX_SYMBOL_COUNT] = { 0 };
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];
	double bits = 0;

	*exceptions_ret = 0;
	for (uint32_t t = 0; t < field->table_count; t++)
		add_all(all, counts[t], WCX_SYMBOL_COUNT);
	all[0] += wcx_counts_entropy(all) == 0; /* a table needs a symbol, even where all values are misfits */
	for (uint32_t t = 0; t < field->table_count; t++) {
		uint64_t kept[WCX_SYMBOL_COUNT], sum = 0;

		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			sum += counts[t][s];
		memcpy(kept, sum ? counts[t] : all, sizeof kept);
		if (price > 0 && !field->is_pair)
			*exceptions_ret += drop_rare(kept, price);
		wcx_freq_table_build(kept, &tables[t]);
		bits += symbols_bits_with(field, &tables[t], counts[t]);
		bits += BYTE_BITS * (double)wcx_freq_table_write(&tables[t], written);
	}
	return bits;
}

/*
 * What the states carry less than they could where there are no raw bits: only exceptions, and those only if a tile has more
 * than one.
 */
static double uncarried_bits(const struct wcx_tensor_plan *plan, uint64_t exceptions)
{
	double tiles = (double)plan->segment.tile_count, bytes = 3 * (double)exceptions / tiles;

	return BYTE_BITS * tiles * (bytes < 6 ? WCX_CARRIED_BYTES : fmax(0, WCX_CARRIED_BYTES - bytes));
}

/* How elements of a byte are split into raw low bits and coded high ones. */
struct byte_split {
	enum wcx_transform transform;
	uint32_t raw;
	int is_pair;
};

/* The symbol of a split for a byte that was transformed as the plan has it. */
static uint32_t split_symbol(const struct wcx_tensor_plan *plan, const struct byte_split *split, uint32_t byte)
{
	if (split->transform != plan->segment.recipe.transform) {
		byte = (byte << 1 | byte >> 7) & 0xFF;
		byte ^= byte & 1 ? 0xFFu << split->raw & 0xFF : 0;
	}
	return byte >> split->raw;
}

/* The bits that all elements take with a split; *field_ret is the coded field, and counts those of its symbols. */
static double split_bits(const struct wcx_tensor_plan *plan, const struct byte_split *split, struct wcx_field *field_ret,
			 uint64_t counts[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT])
{
	struct wcx_freq_table tables[WCX_FIELD_TABLES_MAX];
	uint64_t exceptions;
	double bits;

	*field_ret = (struct wcx_field){
		.width = (uint8_t)(BYTE_BITS - split->raw),
		.table_count = plan->fields[0].table_count,
		.is_pair = (uint8_t)split->is_pair,
	};
	memset(counts, 0, WCX_FIELD_TABLES_MAX * sizeof *counts);
	for (uint32_t t = 0; t < field_ret->table_count; t++)
		for (uint32_t byte = 0; byte < WCX_SYMBOL_COUNT; byte++)
			counts[t][split_symbol(plan, split, byte)] += plan->counts->symbols[0][t][byte];
	bits = build_tables(field_ret, counts, split->raw ? WCX_EXCEPTION_BITS : CARRIED_EXCEPTION_BITS, tables,
			    &exceptions);
	return bits + (split->raw ? (double)split->raw * (double)elems_of(plan) : uncarried_bits(plan, exceptions));
}

/* Goes on to the next way in which bytes may be split, from all zeros on; false when there is none. */
static int next_split(const struct wcx_tensor_plan *plan, struct byte_split *split)
{
	const struct wcx_recipe *recipe = &plan->segment.recipe;
	const int may_fold = recipe->transform == WCX_TRANSFORM_NONE && recipe->predictor == WCX_PREDICT_NONE;

	if (split->raw < RAW_MOST_BITS) {
		split->raw++;
	} else if (split->transform == recipe->transform && may_fold) {
		*split = (struct byte_split){ WCX_TRANSFORM_FOLD, split->is_pair ? RAW_MOST_BITS : 1, split->is_pair };
	} else if (!split->is_pair && may_fold) {
		*split = (struct byte_split){ recipe->transform, RAW_MOST_BITS, 1 };
	} else {
		return 0;
	}
	return 1;
}

/* Splits elements of a byte as it costs the least, but that pairs may cost a little more. */
static void split_byte(struct wcx_tensor_plan *plan)
{
	struct byte_split split = { .transform = plan->segment.recipe.transform }, best = split;
	uint64_t counts[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	struct wcx_field field;
	double least = INFINITY;

	do {
		double bits = split_bits(plan, &split, &field, counts);

		if (split.is_pair)
			bits /= 1 + PAIRS_MAX_LOSS;
		if (bits < least) {
			least = bits;
			best = split;
		}
	} while (next_split(plan, &split));
	if (!best.raw)
		return;
	split_bits(plan, &best, &field, counts);
	memcpy(plan->counts->symbols[1], counts, sizeof counts);
	field.tables = plan->tables[1];
	plan->fields[1] = field;
	plan->fields[0] = (struct wcx_field){ .width = (uint8_t)best.raw };
	plan->segment.recipe.transform = (uint8_t)best.transform;
	plan->segment.recipe.field_count = 2;
}

/* What the symbols of a field take with the tables of a set, each cluster with the best of them. */
static double shared_bits(const struct wcx_table_set *set, uint64_t counts[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT],
			  uint32_t table_count)
{
	double bits = 0;

	for (uint32_t t = 0; t < table_count; t++) {
		double least = INFINITY;

		for (uint32_t other = 0; other < set->field.table_count; other++)
			least = fmin(least, symbols_bits_with(&set->field, &set->tables[other], counts[t]));
		bits += least;
	}
	return bits;
}

/* The set that takes the fewest bits, if it takes fewer than *bits; NULL otherwise. */
static const struct wcx_table_set *find_shared(const struct wcx_table_library *library, const struct wcx_field *field,
					       uint64_t counts[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], double *bits)
{
	const struct wcx_table_set *best = NULL;

	for (uint32_t i = 0; i < library->set_count; i++) {
		const struct wcx_table_set *set = &library->sets[i];
		double set_bits;

		if (set->field.width != field->width || set->field.base != field->base ||
		    set->field.is_pair != field->is_pair || set->field.has_zero != field->has_zero ||
		    set->field.table_count != field->table_count)
			continue;
		set_bits = shared_bits(set, counts, field->table_count);
		if (set_bits < *bits) {
			*bits = set_bits;
			best = set;
		}
	}
	return best;
}

/* Gives a field its final tables, shared ones or new ones, or none where coding does not pay. */
static void finish_field(struct wcx_tensor_plan *plan, uint32_t number, const struct wcx_table_library *library,
			 uint32_t *new_tables, uint32_t *first_table)
{
	struct wcx_field *field = &plan->fields[number];
	uint64_t(*counts)[WCX_SYMBOL_COUNT] = plan->counts->symbols[number];
	/* Only the highest coded field has exceptions; and they are cheap where the states have nothing else to carry. */
	double price = number + 1u < plan->segment.recipe.field_count ? 0
		       : number                                       ? WCX_EXCEPTION_BITS
								      : CARRIED_EXCEPTION_BITS;
	uint64_t exceptions;
	double bits = build_tables(field, counts, price, plan->tables[number], &exceptions), overhead;
	const struct wcx_table_set *shared = NULL;

	if (library->table_count + *new_tables + field->table_count > WCX_MAX_TABLES)
		bits = INFINITY;
	if (!plan->is_reference && plan->segment.bytes <= SHARE_MAX_BYTES && number + 1u == plan->segment.recipe.field_count)
		shared = find_shared(library, field, counts, &bits);
	bits += WCX_EXCEPTION_BITS * (double)plan->counts->misfits[number];
	overhead = (WCX_RANS_STATES_BYTES - WCX_CARRIED_BYTES) * (double)plan->segment.tile_count * BYTE_BITS;
	if (field->table_count > 1)
		overhead += (field->table_count >> 1) * ((double)elems_of(plan) / plan->segment.recipe.run);
	if (bits + overhead >= (double)field->width * (double)elems_of(plan)) {
		*field = (struct wcx_field){ .width = field->width };
		return;
	}
	if (shared) {
		memcpy(plan->tables[number], shared->tables, sizeof shared->tables);
		*first_table = shared->first_table;
	} else {
		*first_table = library->table_count + *new_tables;
		*new_tables += field->table_count;
	}
}

/* Makes one field of neighbours that are never coded; the others move, and with them the numbers of their tables. */
static void settle_fields(struct wcx_tensor_plan *plan, uint32_t first_table[WCX_FIELDS_MAX])
{
	uint32_t from[WCX_FIELDS_MAX], kept = 0;

	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++)
		from[f] = first_table[f];
	memset(first_table, 0, WCX_FIELDS_MAX * sizeof *first_table);
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++) {
		struct wcx_field field = plan->fields[f];
		struct wcx_field *last = kept ? &plan->fields[kept - 1] : NULL;

		if (last && !last->table_count && !field.table_count && last->width + field.width <= WCX_FIELD_MAX_WIDTH) {
			last->width = (uint8_t)(last->width + field.width);
			continue;
		}
		first_table[kept] = from[f];
		plan->fields[kept++] = field;
	}
	plan->segment.recipe.field_count = (uint8_t)kept;
	if (plan->segment.recipe.transform == WCX_TRANSFORM_FOLD && kept == 1)
		plan->segment.recipe.transform = WCX_TRANSFORM_NONE; /* of raw bits alone */
}

void wcx_tensor_plan_finish(struct wcx_tensor_plan *plan, const struct wcx_table_library *library,
			    uint32_t first_table[WCX_FIELDS_MAX])
{
	uint32_t new_tables = 0, run = plan->segment.recipe.run;

	memset(first_table, 0, WCX_FIELDS_MAX * sizeof *first_table);
	set_entropy(plan);
	if (plan->segment.recipe.elem_bytes == 1 && !plan->is_reference)
		split_byte(plan);
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++)
		if (plan->fields[f].table_count)
			finish_field(plan, f, library, &new_tables, &first_table[f]);
	settle_fields(plan, first_table);
	set_run(plan, run);
	free(plan->counts);
	plan->counts = NULL;
}

void wcx_table_library_add(struct wcx_table_library *library, const struct wcx_field *field)
{
	struct wcx_table_set *set = &library->sets[library->next];

	set->field = *field;
	memcpy(set->tables, field->tables, field->table_count * sizeof *field->tables);
	set->field.tables = set->tables;
	set->first_table = library->table_count;
	library->table_count += field->table_count;
	library->next = (library->next + 1) % (sizeof library->sets / sizeof library->sets[0]);
	if (library->set_count < sizeof library->sets / sizeof library->sets[0])
		library->set_count++;
}

void wcx_tensor_plan_free(struct wcx_tensor_plan *plan)
{
	free(plan->tables);
	free(plan->counts);
	plan->tables = NULL;
	plan->counts = NULL;
}
