/* SPDX-License-Identifier: MIT */
/* The frame around the steps of a tensor plan: what follows from the dtype, samples, tiles and counts. */
#include "fs/pack/tensor_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "fs/pack/plan_steps.h"

enum {
	MATRIX_MIN_COLS = 64, /* trailing dimensions are joined to one row until it has this many elements */
	SAMPLE_MIN_ELEMS = 32768,
	SAMPLE_MIN_ROWS = 96,
	SAMPLE_SHARE = 8,                    /* one of this many elements of a large tensor is studied */
	COUNTED_BYTES = 8 << 20,             /* of a large tensor, at least */
	COUNTED_AGAINST_BYTES = 1 << 20,     /* of one with a base: costs 0.05 % for 2 MiB of F32 in eight contexts */
	ENTROPY_STRIDE = 4,                  /* one element in so many of a large tensor counts for its entropy */
	ENTROPY_ALL_BYTES = 1 << 20,         /* with all elements of tensors up to this size, */
	ENTROPY_ALL_AGAINST_BYTES = 1 << 16, /* and of those with a base */
	SAMPLES_MIN = 8,                     /* of which half are enough for a difference, */
	HALVED_BYTES = 4 << 20,              /* in tensors up to this size */
	CHOICE_BITS_MAX = 2,                 /* of a run: to name one of WCX_FIELD_TABLES_MAX tables */
};

/* The length of a row: all elements divided by as many leading dimensions as leave it long enough. */
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

void wcx_tensor_plan_init(struct wcx_tensor_plan *plan, uint64_t offset, uint64_t bytes, const struct wcx_tensor *tensor,
			  bool is_pool, bool is_reference)
{
	static const struct wcx_dtype any_bytes = { .elem_bytes = 1, .kind = WCX_KIND_BYTES };
	const struct wcx_dtype *dtype = tensor && !is_reference ? wcx_dtype_find(tensor->dtype) : NULL;

	/* No known dtype gets past the header's parser with part of an element. */
	if (!dtype || bytes % dtype->elem_bytes)
		dtype = &any_bytes;
	*plan = (struct wcx_tensor_plan){
		.segment = { .offset = offset, .bytes = bytes, .recipe.elem_bytes = dtype->elem_bytes },
		.kind = dtype->kind,
		.is_pool = is_pool,
		.is_reference = is_reference && tensor,
		.tries_zstd = !tensor || dtype->kind == WCX_KIND_INTEGER,
	};
	plan->segment.recipe.transform = wcx_plan_is_float(plan) ? WCX_TRANSFORM_ROTATE : WCX_TRANSFORM_NONE;
	plan->matrix_cols = wcx_plan_elems(plan);
	plan->byte_cols = bytes;
	if (tensor && !is_pool) {
		plan->matrix_cols = matrix_cols(tensor, plan->matrix_cols);
		plan->byte_cols = matrix_cols(tensor, bytes);
	}
}

unsigned wcx_tensor_plan_samples(const struct wcx_tensor_plan *plan, struct wcx_sample samples[WCX_SAMPLES_MAX])
{
	const bool has_rows = wcx_plan_has_rows(plan);
	const uint32_t elem_bytes = plan->segment.recipe.elem_bytes;
	const uint64_t elems = wcx_plan_elems(plan);
	const uint64_t cols = has_rows ? plan->matrix_cols : WCX_MIN(elems, WCX_PLAN_POOL_RUN), rows = elems / cols;
	uint64_t wanted = WCX_MAX(elems / SAMPLE_SHARE / cols, SAMPLE_MIN_ELEMS / cols), sample_rows;
	unsigned count;

	if (has_rows)
		wanted = WCX_MAX(wanted, SAMPLE_MIN_ROWS);
	wanted = WCX_MIN(wanted, WCX_SAMPLES_MAX_BYTES / elem_bytes / cols);
	sample_rows = WCX_MAX(wanted / WCX_SAMPLES_MAX, 1);
	sample_rows = WCX_MIN(sample_rows, WCX_MIN(rows, wcx_plan_tile_elems(plan) / cols));
	count = (unsigned)WCX_MIN(rows / sample_rows, WCX_SAMPLES_MAX);
	for (unsigned i = 0; i < count; i++) {
		uint64_t first = count > 1 ? (rows - sample_rows) * i / (count - 1) : 0;

		samples[i] = (struct wcx_sample){
			.offset = plan->segment.offset + first * cols * elem_bytes,
			.dims = { (uint32_t)sample_rows, (uint32_t)cols, elem_bytes },
		};
		if (!has_rows) /* one row, not a column of short ones */
			samples[i].dims = (struct wcx_tile_dims){ 1, (uint32_t)(sample_rows * cols), elem_bytes };
	}
	return count;
}

/* Reads the bytes of the base for the samples. */
static int read_base_samples(const struct wcx_tensor_plan *plan, const struct wcx_plan_reader *reader,
			     const struct wcx_sample *samples, unsigned count, uint8_t *buffer, struct wcx_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < count && r == 0; i++) {
		const size_t bytes = wcx_tile_dims_bytes(&samples[i].dims);

		r = reader->read_base(reader->user, plan->base.base, buffer, bytes,
				      plan->base.offset + (samples[i].offset - plan->segment.offset), err);
		buffer += bytes;
	}
	return r;
}

/*
 * Chooses a difference if that is better than any plan alone can be, judged by one with a single table for each field.  Of
 * four tables, a run names one with two bits, so that an element takes less than two bits more where there is one.
 */
static enum wcx_result choose_clear_difference(struct wcx_tensor_plan *plan, struct wcx_sample *samples, unsigned count,
					       const uint8_t *base)
{
	enum wcx_result result = wcx_tensor_plan_choose_view(plan, samples, count);
	uint32_t coded = 0;

	if (result == WCX_OK)
		result = wcx_plan_choose_with(plan, samples, count, 1);
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++)
		coded += plan->fields[f].table_count > 0;
	plan->draft_bits -= CHOICE_BITS_MAX * coded * (double)wcx_plan_elems(plan);
	return result == WCX_OK ? wcx_tensor_plan_choose_base(plan, samples, count, base) : result;
}

/* Keeps one sample in two where there are enough and they are much of the tensor; returns how many. */
static unsigned halve_samples(const struct wcx_tensor_plan *plan, struct wcx_sample *samples, unsigned count)
{
	if (count < SAMPLES_MIN || plan->segment.bytes > HALVED_BYTES)
		return count;
	for (unsigned i = 1; 2 * i < count; i++)
		samples[i] = samples[2 * i];
	return (count + 1) / 2;
}

/* What a draft reads. */
struct draft_reader {
	const struct wcx_plan_reader *reader;
	uint8_t *buffer, *base_buffer;
	struct wcx_error *err;
};

static int read_samples(const struct wcx_tensor_plan *plan, const struct draft_reader *from, struct wcx_sample *samples,
			unsigned count, bool has_base)
{
	uint8_t *buffer = from->buffer;
	int r = 0;

	for (unsigned i = 0; i < count && r == 0; i++) {
		const size_t bytes = wcx_tile_dims_bytes(&samples[i].dims);

		r = from->reader->read(from->reader->user, buffer, bytes, samples[i].offset, from->err);
		samples[i].src = buffer;
		buffer += bytes;
	}
	if (r == 0 && has_base)
		r = read_base_samples(plan, from->reader, samples, count, from->base_buffer, from->err);
	return r;
}

/* Drafts a difference from half of the samples.  The plan stays as it is if that is not clearly the better way. */
static int draft_clear_difference(struct wcx_tensor_plan *plan, const struct draft_reader *from)
{
	const struct wcx_tensor_plan before = *plan;
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	const unsigned count = halve_samples(plan, samples, wcx_tensor_plan_samples(plan, samples));
	int r = read_samples(plan, from, samples, count, true);

	if (r == 0)
		r = wcx_result_errno(choose_clear_difference(plan, samples, count, from->base_buffer));
	if (r == 0 && wcx_tensor_plan_has_difference(plan))
		return 0;
	wcx_tensor_plan_free(plan);
	*plan = before;
	return r;
}

int wcx_tensor_plan_draft(struct wcx_tensor_plan *plan, const struct wcx_plan_reader *reader, uint8_t *buffer,
			  uint8_t *base_buffer, struct wcx_error *err)
{
	const bool has_base = plan->base.base && plan->segment.bytes >= WCX_BASED_SEGMENT_MIN_BYTES;
	const struct draft_reader from = { reader, buffer, base_buffer, err };
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	unsigned count;
	enum wcx_result result;
	int r = has_base ? draft_clear_difference(plan, &from) : 0;

	if (r < 0 || wcx_tensor_plan_has_difference(plan))
		return r;
	count = wcx_tensor_plan_samples(plan, samples);
	r = read_samples(plan, &from, samples, count, has_base);
	if (r < 0)
		return r;
	result = wcx_tensor_plan_choose_view(plan, samples, count);
	if (result == WCX_OK)
		result = wcx_tensor_plan_choose(plan, samples, count);
	if (result == WCX_OK && has_base)
		result = wcx_tensor_plan_choose_base(plan, samples, count, base_buffer);
	return wcx_result_errno(result);
}

void wcx_plan_set_run(struct wcx_tensor_plan *plan, uint32_t run)
{
	plan->segment.recipe.run_elems = 0;
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++)
		if (wcx_choice_bits(&plan->fields[f]))
			plan->segment.recipe.run_elems = run;
}

void wcx_tensor_plan_tile(const struct wcx_tensor_plan *plan, uint64_t tile, struct wcx_tile_dims *dims_ret,
			  uint64_t *offset_ret)
{
	struct wcx_tile_info place;

	wcx_segment_place(&plan->segment, tile, &place);
	*dims_ret = place.dims;
	*offset_ret = wcx_tile_row_offset(&plan->segment, &place, 0);
}

int wcx_tensor_plan_read_tile(const struct wcx_tensor_plan *plan, uint64_t tile, const struct wcx_plan_reader *reader,
			      uint8_t *dst, struct wcx_error *err)
{
	struct wcx_tile_info place;
	int r = 0;

	wcx_segment_place(&plan->segment, tile, &place);
	for (uint32_t y = 0; y < place.dims.rows && r == 0; y++) {
		const size_t bytes = (size_t)place.dims.cols * place.dims.elem_bytes;

		r = reader->read(reader->user, dst + y * bytes, bytes, wcx_tile_row_offset(&plan->segment, &place, y), err);
	}
	return r;
}

uint64_t wcx_tensor_plan_stride(const struct wcx_tensor_plan *plan)
{
	const uint32_t last = plan->segment.recipe.field_count - 1u;
	uint32_t coded = 0;

	for (uint32_t f = 0; f <= last; f++)
		coded += plan->fields[f].table_count > 0;
	if (wcx_tensor_plan_has_difference(plan))
		return WCX_MAX(plan->segment.bytes / COUNTED_AGAINST_BYTES, 1);
	if (coded != 1 || !plan->fields[last].table_count || plan->is_reference || plan->kind == WCX_KIND_INTEGER)
		return 1;
	return WCX_MAX(plan->segment.bytes / COUNTED_BYTES, 1);
}

/*
 * Counts the bytes of one element in `stride` for all of them.  Two histograms a byte, for elements in turn, because an
 * increment waits for an earlier one of the same counter.
 */
static void count_bytes(const uint8_t *src, size_t elems, uint32_t elem_bytes, size_t stride, struct wcx_plan_counts *counts)
{
	const size_t taken = WCX_DIV_UP(elems, stride), step = stride * elem_bytes;
	const size_t missing = taken * stride - elems; /* the last one stands for fewer */

	for (uint32_t b = 0; b < elem_bytes; b++) {
		uint32_t partial[2][WCX_SYMBOL_COUNT] = { { 0 } };
		const uint8_t *at = src + b;
		size_t i = 0;

		for (; i + 2 <= taken; i += 2, at += 2 * step) {
			partial[0][at[0]]++;
			partial[1][at[step]]++;
		}
		if (i < taken)
			partial[0][*at]++;
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			counts->bytes[b][s] += stride * (partial[0][s] + partial[1][s]);
		counts->bytes[b][src[(taken - 1) * step + b]] -= missing;
	}
}

enum wcx_result wcx_tensor_plan_count(const struct wcx_tensor_plan *plan, const struct wcx_tile_dims *dims,
				      const uint8_t *src, const uint8_t *base, struct wcx_encode_scratch *scratch,
				      struct wcx_plan_counts *counts)
{
	const struct wcx_recipe *recipe = &plan->segment.recipe;
	const uint64_t counted_whole = wcx_tensor_plan_has_difference(plan) ? ENTROPY_ALL_AGAINST_BYTES : ENTROPY_ALL_BYTES;
	struct wcx_field_counts fields[WCX_FIELDS_MAX] = { { 0 } };
	enum wcx_result result;

	for (uint32_t f = 0; f < recipe->field_count; f++)
		if (plan->fields[f].table_count)
			fields[f] = (struct wcx_field_counts){ counts->symbols + wcx_plan_first_table(plan, f), 0 };
	result = wcx_tile_count(dims, src, base, recipe, scratch, fields);
	for (uint32_t f = 0; f < recipe->field_count; f++)
		counts->misfits[f] += fields[f].misfits;
	counts->elems += (uint64_t)dims->rows * dims->cols;
	if (!wcx_plan_symbols_are_bytes(plan))
		count_bytes(src, (size_t)dims->rows * dims->cols, dims->elem_bytes,
			    plan->segment.bytes > counted_whole ? ENTROPY_STRIDE : 1, counts);
	return result;
}

void wcx_plan_counts_add(struct wcx_tensor_plan *plan, const struct wcx_plan_counts *counts)
{
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++) {
		const size_t first = wcx_plan_first_table(plan, f);
		const size_t symbols = (size_t)plan->fields[f].table_count * WCX_SYMBOL_COUNT;

		plan->counts->misfits[f] += counts->misfits[f];
		wcx_plan_add_all(plan->counts->symbols[first], counts->symbols[first], symbols);
	}
	wcx_plan_add_all(plan->counts->bytes[0], counts->bytes[0],
			 (size_t)plan->segment.recipe.elem_bytes * WCX_SYMBOL_COUNT);
	plan->counts->elems += counts->elems;
}

void wcx_tensor_plan_free(struct wcx_tensor_plan *plan)
{
	free(plan->tables);
	free(plan->counts);
	plan->tables = NULL;
	plan->counts = NULL;
}
