/* SPDX-License-Identifier: MIT */
/* Drafts parts of a few tensors alone and against a base, if the first look at any of them shows a relation. */
#include "fs/pack/base_sketch.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/difference.h"
#include "fs/pack/context_choice.h"
#include "fs/pack/plan_steps.h"

enum {
	PART_BYTES = 128 << 10, /* of a tensor */
	MIN_BYTES = 4 << 10,    /* smaller tensors tell little */
	LOOK_ELEMS = 4096,      /* of a part, to twice as many: their entropy is good to 0.02 bits an element */
};

/* Of 2^32: the high bits of its multiples are spread evenly. */
#define GOLDEN_RATIO UINT32_C(0x9E3779B1)

/*
 * Residuals that take less than this share fewer bits show no relation.  Entropies of bytes fall before a draft gains, as
 * that has to code what the elements alone do not need: where it gained 5 %, by 7 %; by 3.7 % where all signs had changed.
 */
static const double LOOK_MIN_GAIN = 0.01;

/* What is read, and memory. */
struct sketch {
	const struct wcx_sketched_file *base, *file;
	uint8_t *buffers[2];
	bool is_related;       /* a look has shown it */
	double alone, against; /* bits */
};

/* What is done with a tensor that file and base have. */
typedef int sketch_step(struct sketch *sketch, const struct wcx_tensor *tensor, const struct wcx_base_range *range,
			struct wcx_error *err);

static int read_source(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const struct sketch *sketch = user;

	return sketch->file->reader.read(sketch->file->reader.user, dst, bytes, offset, err);
}

static int read_base(const void *user, uint32_t base, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const struct sketch *sketch = user;

	(void)base;
	return sketch->base->reader.read(sketch->base->reader.user, dst, bytes, offset, err);
}

/* Begins a plan of the middle of a tensor, with a range of the base or alone. */
static void init_plan(struct wcx_tensor_plan *plan, const struct wcx_tensor *tensor, const struct wcx_base_range *range)
{
	const uint64_t bytes = WCX_MIN(tensor->bytes, PART_BYTES);
	const uint64_t skipped = (tensor->bytes - bytes) / 2 / tensor->elem_bytes * tensor->elem_bytes;

	wcx_tensor_plan_init(plan, tensor->offset + skipped, bytes / tensor->elem_bytes * tensor->elem_bytes, tensor, true,
			     false);
	if (range)
		plan->base = (struct wcx_base_range){ .base = 1, .offset = range->offset + skipped };
}

/* --- a look --- */

/* Keeps elements spread over the buffer, at steps that vary, so that they meet all columns; returns how many. */
static size_t thin_out(uint8_t *buffer, size_t elems, uint32_t elem_bytes)
{
	const size_t step = WCX_MAX(elems / LOOK_ELEMS, 1), count = elems / step;

	for (size_t i = 0; i < count; i++) {
		const size_t from = i * step + ((uint32_t)i * GOLDEN_RATIO >> 16) % step;

		memmove(buffer + i * elem_bytes, buffer + from * elem_bytes, elem_bytes);
	}
	return count;
}

/* The entropies of the elements' first bytes, second bytes and so on. */
static double byte_bits(const uint8_t *elements, size_t count, uint32_t elem_bytes)
{
	double bits = 0;

	for (uint32_t b = 0; b < elem_bytes; b++) {
		uint32_t counts[WCX_SYMBOL_COUNT] = { 0 }, used;

		for (size_t i = 0; i < count; i++)
			counts[elements[i * elem_bytes + b]]++;
		bits += wcx_symbols_bits(counts, &used);
	}
	return bits;
}

/* The same of residuals: of each element from the base's element `shift` places further, around the end. */
static double residual_bits(const struct wcx_tensor_plan *plan, const struct sketch *sketch, size_t count, size_t shift)
{
	const enum wcx_difference difference = wcx_plan_is_float(plan) ? WCX_DIFFERENCE_FLOAT : WCX_DIFFERENCE_INTEGER;
	const uint32_t elem_bytes = plan->segment.recipe.elem_bytes;
	const uint8_t *elements = sketch->buffers[0], *base = sketch->buffers[1];
	uint8_t *residuals = sketch->buffers[0] + PART_BYTES;
	const size_t first = (count - shift) * elem_bytes;

	wcx_difference_residuals(difference, elem_bytes, elements, base + shift * elem_bytes, count - shift, residuals);
	wcx_difference_residuals(difference, elem_bytes, elements + first, base, shift, residuals + first);
	return byte_bits(residuals, count, elem_bytes);
}

/*
 * Looks whether the elements of a tensor have to do with those of the base: their residuals take fewer bits than they do, or
 * than the residuals of elements that do not belong together.
 */
static int look_at_tensor(struct sketch *sketch, const struct wcx_tensor *tensor, const struct wcx_base_range *range,
			  struct wcx_error *err)
{
	const struct wcx_plan_reader *file = &sketch->file->reader, *base = &sketch->base->reader;
	struct wcx_tensor_plan plan;
	uint32_t elem_bytes;
	size_t count;
	int r;

	if (sketch->is_related)
		return 0;
	init_plan(&plan, tensor, range);
	r = file->read(file->user, sketch->buffers[0], plan.segment.bytes, plan.segment.offset, err);
	if (r == 0)
		r = base->read(base->user, sketch->buffers[1], plan.segment.bytes, plan.base.offset, err);
	if (r < 0)
		return r;
	elem_bytes = plan.segment.recipe.elem_bytes;
	count = thin_out(sketch->buffers[0], wcx_plan_elems(&plan), elem_bytes);
	thin_out(sketch->buffers[1], wcx_plan_elems(&plan), elem_bytes);
	sketch->is_related = residual_bits(&plan, sketch, count, 0) <
			     (1 - LOOK_MIN_GAIN) * fmax(byte_bits(sketch->buffers[0], count, elem_bytes),
							residual_bits(&plan, sketch, count, count / 2));
	return 0;
}

/* --- drafts --- */

/* Drafts the middle of a tensor, against a range of the base or alone. */
static int draft(struct sketch *sketch, const struct wcx_tensor *tensor, const struct wcx_base_range *range,
		 double *bits_ret, struct wcx_error *err)
{
	const struct wcx_plan_reader reader = { read_source, read_base, sketch };
	struct wcx_tensor_plan plan;
	int r;

	init_plan(&plan, tensor, range);
	r = wcx_tensor_plan_draft(&plan, &reader, sketch->buffers[0], sketch->buffers[1], err);
	*bits_ret = plan.draft_bits;
	wcx_tensor_plan_free(&plan);
	return r;
}

/* Adds a tensor to the sketch. */
static int add_tensor(struct sketch *sketch, const struct wcx_tensor *tensor, const struct wcx_base_range *range,
		      struct wcx_error *err)
{
	/* A tensor stands for as many bytes as it has. */
	const double weight = (double)tensor->bytes / (double)WCX_MIN(tensor->bytes, PART_BYTES);
	double alone = 0, against = 0;
	int r = draft(sketch, tensor, NULL, &alone, err);

	if (r == 0)
		r = draft(sketch, tensor, range, &against, err);
	sketch->alone += weight * alone;
	sketch->against += weight * WCX_MIN(alone, against);
	return r;
}

/* --- the whole --- */

/* Goes over the tensors that match, and takes a step wherever their bytes pass another tensor_count-th of all. */
static int go_over(struct sketch *sketch, const struct wcx_base_matcher *matcher, unsigned tensor_count,
		   uint64_t matched_bytes, sketch_step *step, struct wcx_error *err)
{
	const struct wcx_safetensors *st = sketch->file->st;
	const uint64_t part = WCX_MAX(matched_bytes / tensor_count, 1);
	uint64_t passed = 0, next = part / 2;
	int r = 0;

	for (size_t i = 0; i < st->tensor_count && r == 0; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];
		struct wcx_base_range range;

		if (tensor->bytes < MIN_BYTES || !wcx_base_match_name(matcher, tensor, &range))
			continue;
		passed += tensor->bytes;
		if (passed <= next)
			continue;
		next = passed + part / 2;
		r = step(sketch, tensor, &range, err);
	}
	return r;
}

static int read_image(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const ssize_t n = wcx_image_read((struct wcx_image *)(uintptr_t)user, dst, bytes, offset, err);

	return n < 0 ? (int)n : 0;
}

struct wcx_sketched_file wcx_sketched_image(struct wcx_image *image, const struct wcx_safetensors *st)
{
	return (struct wcx_sketched_file){ st, { .read = read_image, .user = image } };
}

int wcx_base_sketch_make(const struct wcx_sketched_file *base, const struct wcx_sketched_file *file, unsigned tensor_count,
			 struct wcx_base_sketch *ret, struct wcx_error *err)
{
	const struct wcx_pack_base matched = { .st = (struct wcx_safetensors *)(uintptr_t)base->st };
	struct wcx_base_matcher *matcher = wcx_base_matcher_create(&matched, 1);
	const struct wcx_safetensors *st = file->st;
	struct sketch sketch = { .base = base, .file = file };
	struct wcx_base_range range;
	int r = matcher ? 0 : -ENOMEM;

	*ret = (struct wcx_base_sketch){ 0 };
	for (size_t i = 0; i < st->tensor_count && r == 0; i++)
		if (st->tensors[i].bytes >= MIN_BYTES && wcx_base_match_name(matcher, &st->tensors[i], &range))
			ret->matched_bytes += st->tensors[i].bytes;
	for (int i = 0; i < 2; i++) {
		sketch.buffers[i] = malloc(WCX_SAMPLES_MAX_BYTES);
		if (!sketch.buffers[i])
			r = -ENOMEM;
	}
	if (r == 0)
		r = go_over(&sketch, matcher, tensor_count, ret->matched_bytes, look_at_tensor, err);
	if (r == 0 && sketch.is_related)
		r = go_over(&sketch, matcher, tensor_count, ret->matched_bytes, add_tensor, err);
	if (sketch.alone > 0)
		ret->gain = 1 - sketch.against / sketch.alone;
	free(sketch.buffers[0]);
	free(sketch.buffers[1]);
	wcx_base_matcher_free(matcher);
	return r;
}
