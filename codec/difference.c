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
