/* SPDX-License-Identifier: MIT */
/* Finds the tensors of bases that tensors of a file may be coded against. */
#include "fs/pack/pack_base.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"

/* A tensor of a base. */
struct entry {
	const struct wcx_tensor *tensor;
	uint32_t base;     /* number, from 1 */
	uint64_t checksum; /* of its first bytes */
};

struct wcx_base_matcher {
	const struct wcx_pack_base *bases;
	size_t count;
	struct entry *by_name, *by_contents; /* of all tensors that are not empty; the latter NULL until it is needed */
};

static int compare_uints(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

/* Names may have zero bytes. */
static int compare_names(const struct wcx_tensor *a, const struct wcx_tensor *b)
{
	const int order = memcmp(a->name, b->name, WCX_MIN(a->name_bytes, b->name_bytes));

	return order ? order : compare_uints(a->name_bytes, b->name_bytes);
}

static int compare_by_name(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	const int order = compare_names(x->tensor, y->tensor);

	return order ? order : compare_uints(x->base, y->base);
}

static int compare_by_contents(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	int order = compare_uints(x->tensor->bytes, y->tensor->bytes);

	if (!order)
		order = strcmp(x->tensor->dtype, y->tensor->dtype);
	if (!order)
		order = compare_uints(x->checksum, y->checksum);
	if (!order)
		order = compare_uints(x->base, y->base);
	return order ? order : compare_uints(x->tensor->offset, y->tensor->offset);
}

struct wcx_base_matcher *wcx_base_matcher_create(const struct wcx_pack_base *bases, size_t base_count)
{
	struct wcx_base_matcher *matcher = calloc(1, sizeof *matcher);
	size_t most = 1;

	for (size_t b = 0; b < base_count; b++)
		most += bases[b].st->tensor_count;
	if (matcher)
		matcher->by_name = calloc(most, sizeof *matcher->by_name);
	if (!matcher || !matcher->by_name) {
		free(matcher);
		return NULL;
	}
	matcher->bases = bases;
	for (size_t b = 0; b < base_count; b++)
		for (size_t i = 0; i < bases[b].st->tensor_count; i++)
			if (bases[b].st->tensors[i].bytes)
				matcher->by_name[matcher->count++] =
					(struct entry){ .tensor = &bases[b].st->tensors[i], .base = (uint32_t)b + 1 };
	qsort(matcher->by_name, matcher->count, sizeof *matcher->by_name, compare_by_name);
	return matcher;
}

void wcx_base_matcher_free(struct wcx_base_matcher *matcher)
{
	if (!matcher)
		return;
	free(matcher->by_name);
	free(matcher->by_contents);
	free(matcher);
}

/* The first entry that is not before another one. */
static size_t find_first(const struct entry *entries, size_t count, const struct entry *wanted,
			 int (*compare)(const void *a, const void *b))
{
	size_t begin = 0;

	while (count) {
		const size_t half = count / 2;

		if (compare(&entries[begin + half], wanted) < 0) {
			begin += half + 1;
			count -= half + 1;
		} else {
			count = half;
		}
	}
	return begin;
}

/* The range of a tensor, with the tiles that it has in its base. */
static struct wcx_base_range range_of(const struct wcx_base_matcher *matcher, const struct entry *entry)
{
	struct wcx_image *image = matcher->bases[entry->base - 1].image;
	const struct wcx_tensor *tensor = entry->tensor;
	struct wcx_base_range ret = { .base = entry->base, .offset = tensor->offset };
	const struct wcx_container *c;
	const struct wcx_segment *seg;
	uint64_t tile_elems;

	if (!image)
		return ret;
	c = wcx_image_container(image);
	seg = wcx_container_segment(c, wcx_container_segment_at(c, tensor->offset));
	tile_elems = (uint64_t)seg->tile_rows * seg->tile_cols;
	if (seg->offset == tensor->offset && seg->recipe.elem_bytes == tensor->elem_bytes &&
	    (seg->tile_rows == 1 || seg->tile_cols == seg->cols) && tile_elems <= WCX_TILE_MAX_ELEMS)
		ret.tile_elems = (uint32_t)tile_elems;
	return ret;
}

static bool has_same_shape(const struct wcx_tensor *a, const struct wcx_tensor *b)
{
	if (strcmp(a->dtype, b->dtype) != 0 || a->bytes != b->bytes || a->dim_count != b->dim_count)
		return false;
	for (size_t i = 0; i < a->dim_count; i++)
		if (a->shape[i] != b->shape[i])
			return false;
	return true;
}

bool wcx_base_match_name(const struct wcx_base_matcher *matcher, const struct wcx_tensor *tensor, struct wcx_base_range *ret)
{
	const struct entry wanted = { .tensor = tensor };
	size_t i = find_first(matcher->by_name, matcher->count, &wanted, compare_by_name);

	for (; i < matcher->count && compare_names(matcher->by_name[i].tensor, tensor) == 0; i++)
		if (has_same_shape(matcher->by_name[i].tensor, tensor)) {
			*ret = range_of(matcher, &matcher->by_name[i]);
			return true;
		}
	return false;
}

/* Makes the index by contents. */
static int read_heads(struct wcx_base_matcher *matcher, struct wcx_error *err)
{
	struct entry *entries = calloc(matcher->count + 1, sizeof *entries);
	uint8_t head[WCX_MATCH_BYTES];

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < matcher->count; i++) {
		const struct wcx_tensor *tensor = matcher->by_name[i].tensor;
		const size_t bytes = (size_t)WCX_MIN(tensor->bytes, sizeof head);
		const ssize_t n =
			wcx_image_read(matcher->bases[matcher->by_name[i].base - 1].image, head, bytes, tensor->offset, err);

		if (n < 0) {
			free(entries);
			return (int)n;
		}
		entries[i] = matcher->by_name[i];
		entries[i].checksum = wcx_checksum64(head, bytes);
	}
	qsort(entries, matcher->count, sizeof *entries, compare_by_contents);
	matcher->by_contents = entries;
	return 0;
}

int wcx_base_match_contents(struct wcx_base_matcher *matcher, const struct wcx_tensor *tensor, const uint8_t *head,
			    struct wcx_base_range *ret, struct wcx_error *err)
{
	const struct wcx_tensor first = { .dtype = tensor->dtype, .bytes = tensor->bytes };
	const struct entry wanted = { .tensor = &first,
				      .checksum = wcx_checksum64(head, (size_t)WCX_MIN(tensor->bytes, WCX_MATCH_BYTES)) };
	const struct entry *found;
	int r = matcher->by_contents ? 0 : read_heads(matcher, err);
	size_t i;

	if (r < 0)
		return r;
	i = find_first(matcher->by_contents, matcher->count, &wanted, compare_by_contents);
	found = &matcher->by_contents[i];
	if (i == matcher->count || found->tensor->bytes != tensor->bytes ||
	    strcmp(found->tensor->dtype, tensor->dtype) != 0 || found->checksum != wanted.checksum)
		return 0;
	*ret = range_of(matcher, found);
	return 1;
}
