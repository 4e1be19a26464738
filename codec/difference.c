/* SPDX-License-Identifier: MIT */
/* The portable loops over differences, as functions. */
#include "codec/difference_loops.h"

void wcx_difference_residuals(enum wcx_difference difference, uint32_t elem_bytes, const void *src, const void *base,
			      size_t count, void *dst)
{
	switch (elem_bytes) {
	case 1:
		make_differences_8(difference, src, base, count, dst);
		break;
	case 2:
		make_differences_16(difference, src, base, count, dst);
		break;
	case 4:
		make_differences_32(difference, src, base, count, dst);
		break;
	case 8:
		make_differences_64(difference, src, base, count, dst);
		break;
	}
}

void wcx_difference_undo(enum wcx_difference difference, uint32_t elem_bytes, const void *base, size_t count, void *elements)
{
	switch (elem_bytes) {
	case 1:
		undo_differences_8(difference, base, count, elements);
		break;
	case 2:
		undo_differences_16(difference, base, count, elements);
		break;
	case 4:
		undo_differences_32(difference, base, count, elements);
		break;
	case 8:
		undo_differences_64(difference, base, count, elements);
		break;
	}
}

void wcx_difference_scatter16(enum wcx_difference difference, const void *residuals, const uint16_t *positions, size_t count,
			      const void *base, void *elements)
{
	if (difference == WCX_DIFFERENCE_FLOAT)
		scatter_all_16(residuals, positions, count, base, true, elements);
	else
		scatter_all_16(residuals, positions, count, base, false, elements);
}

void wcx_difference_contexts(const struct wcx_recipe *recipe, const void *base, size_t count, uint8_t *contexts)
{
	switch (recipe->elem_bytes) {
	case 1:
		context_bytes_8(recipe, base, count, contexts);
		break;
	case 2:
		context_bytes_16(recipe, base, count, contexts);
		break;
	case 4:
		context_bytes_32(recipe, base, count, contexts);
		break;
	case 8:
		context_bytes_64(recipe, base, count, contexts);
		break;
	}
}

void wcx_difference_keys(enum wcx_difference difference, uint32_t elem_bytes, const void *base, size_t count, uint8_t *keys)
{
	switch (elem_bytes) {
	case 1:
		make_keys_8(difference, base, count, keys);
		break;
	case 2:
		make_keys_16(difference, base, count, keys);
		break;
	case 4:
		make_keys_32(difference, base, count, keys);
		break;
	case 8:
		make_keys_64(difference, base, count, keys);
		break;
	}
}

void wcx_context_map_make(const struct wcx_recipe *recipe, bool by_context, struct wcx_context_map *ret)
{
	const uint32_t thresholds = by_context ? recipe->context_count - 1u : 0;
	const uint32_t first = thresholds ? recipe->thresholds[0] - 1u : 0;
	const bool is_float = recipe->difference == WCX_DIFFERENCE_FLOAT;

	*ret = (struct wcx_context_map){
		.order = is_float ? 0x7FFF : 0,
		.first = (uint16_t)first,
		.has_table = !thresholds || recipe->thresholds[thresholds - 1] - first < WCX_CONTEXT_TABLE_KEYS,
	};
	for (uint32_t t = 0; t < WCX_CONTEXTS_MAX - 1; t++) {
		const uint32_t threshold = t < thresholds ? recipe->thresholds[t] : (uint32_t)WCX_CONTEXT_KEYS;

		ret->below[t] = (int16_t)(threshold - 1);
		for (uint32_t key = 0; key < WCX_CONTEXT_TABLE_KEYS; key++)
			ret->table[key] = (uint8_t)(ret->table[key] + (first + key >= threshold));
	}
}
