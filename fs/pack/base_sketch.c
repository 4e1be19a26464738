/* SPDX-License-Identifier: MIT */
/* Drafts parts of a few tensors alone and against a base. */
#include "fs/pack/base_sketch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"

enum {
	PART_BYTES = 128 << 10, /* of a tensor */
	MIN_BYTES = 4 << 10,    /* smaller tensors tell little */
};

/* What is read, and memory. */
struct sketch {
	const struct wcx_sketched_file *base, *file;
	uint8_t *buffers[2];
	double alone, against; /* bits */
};

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

/* Drafts the middle of a tensor, against a range of the base or alone. */
static int draft(struct sketch *sketch, const struct wcx_tensor *tensor, const struct wcx_base_range *range,
		 double *bits_ret, struct wcx_error *err)
{
	const struct wcx_plan_reader reader = { read_source, read_base, sketch };
	const uint64_t bytes = WCX_MIN(tensor->bytes, PART_BYTES);
	const uint64_t skipped = (tensor->bytes - bytes) / 2 / tensor->elem_bytes * tensor->elem_bytes;
	struct wcx_tensor_plan plan;
	int r;

	wcx_tensor_plan_init(&plan, tensor->offset + skipped, bytes / tensor->elem_bytes * tensor->elem_bytes, tensor, true,
			     false);
	if (range)
		plan.base = (struct wcx_base_range){ .base = 1, .offset = range->offset + skipped };
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

/* Goes over the tensors that match, and adds one wherever their bytes pass another tensor_count-th of all. */
static int add_tensors(struct sketch *sketch, const struct wcx_base_matcher *matcher, const struct wcx_safetensors *st,
		       unsigned tensor_count, uint64_t matched_bytes, struct wcx_error *err)
{
	const uint64_t step = WCX_MAX(matched_bytes / tensor_count, 1);
	uint64_t passed = 0, next = step / 2;
	int r = 0;

	for (size_t i = 0; i < st->tensor_count && r == 0; i++) {
		const struct wcx_tensor *tensor = &st->tensors[i];
		struct wcx_base_range range;

		if (tensor->bytes < MIN_BYTES || !wcx_base_match_name(matcher, tensor, &range))
			continue;
		passed += tensor->bytes;
		if (passed <= next)
			continue;
		next = passed + step / 2;
		r = add_tensor(sketch, tensor, &range, err);
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
		r = add_tensors(&sketch, matcher, st, tensor_count, ret->matched_bytes, err);
	if (sketch.alone > 0)
		ret->gain = 1 - sketch.against / sketch.alone;
	free(sketch.buffers[0]);
	free(sketch.buffers[1]);
	wcx_base_matcher_free(matcher);
	return r;
}
