/* SPDX-License-Identifier: MIT */
/*
 * Differences from elements of a base, and their contexts (docs/format.md, section 3.6), for all elements of a word at once.
 *
 * `order` is the mask of the bits that T inverts in an element with a sign: wcx_order_mask.
 */
#ifndef WCX_ELEM_DIFFERENCE_CUH
#define WCX_ELEM_DIFFERENCE_CUH

#include "cuda/elem_word.cuh"

enum {
	WCX_CONTEXT_KEYS = 256,
	WCX_CONTEXTS_BYTES = WCX_CONTEXT_KEYS * 4, /* shared memory */
};

/* The lowest bit of every element of a word, and the highest. */
template <uint32_t elem_bytes>
static constexpr wcx_word<elem_bytes> wcx_ones = (wcx_word<elem_bytes>)(elem_bytes == 1   ? 0x01010101
									: elem_bytes == 2 ? 0x00010001
											  : 1);
template <uint32_t elem_bytes> static constexpr wcx_word<elem_bytes> wcx_tops = wcx_ones<elem_bytes> << (8 * elem_bytes - 1);

/* Sets all bits of each element to its highest bit. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_elem_signs(wcx_word<elem_bytes> word)
{
	if constexpr (elem_bytes == 1)
		return wcx_spread_signs(word);
	else if constexpr (elem_bytes == 2)
		return wcx_spread_half_signs(word);
	else
		return (wcx_word<elem_bytes>)((std::make_signed_t<wcx_word<elem_bytes>>)word >> (8 * elem_bytes - 1));
}

template <uint32_t elem_bytes> static __device__ __forceinline__ wcx_word<elem_bytes> wcx_order_mask(uint32_t difference)
{
	return difference == WCX_DIFFERENCE_FLOAT ? (wcx_word<elem_bytes>)~wcx_tops<elem_bytes> : 0;
}

/* T: the place of an element in the order of numbers, and the reverse. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_order(wcx_word<elem_bytes> word, wcx_word<elem_bytes> order)
{
	return word ^ (wcx_elem_signs<elem_bytes>(word) & order);
}

/* Sums without carries between elements. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_add_elems(wcx_word<elem_bytes> a, wcx_word<elem_bytes> b)
{
	constexpr wcx_word<elem_bytes> tops = wcx_tops<elem_bytes>;

	return elem_bytes >= 4 ? a + b : ((a & ~tops) + (b & ~tops)) ^ ((a ^ b) & tops);
}

/* The elements with these residuals. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes>
wcx_undo_difference(wcx_word<elem_bytes> base, wcx_word<elem_bytes> residuals, wcx_word<elem_bytes> order)
{
	constexpr wcx_word<elem_bytes> ones = wcx_ones<elem_bytes>, all = 2 * (wcx_tops<elem_bytes> / ones - 1) + 1;
	const wcx_word<elem_bytes> d =
		(residuals >> 1 & ~wcx_tops<elem_bytes>)^(wcx_word<elem_bytes>)((residuals & ones) * all);

	return wcx_order<elem_bytes>(wcx_add_elems<elem_bytes>(wcx_order<elem_bytes>(base, order), d), order);
}

/* The residuals of elements that are this far from the base, in the order of numbers. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_fold_distance(wcx_word<elem_bytes> d)
{
	return (wcx_word<elem_bytes>)((d & ~wcx_tops<elem_bytes>) << 1) ^ wcx_elem_signs<elem_bytes>(d);
}

/* The residuals of elements: the reverse. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes>
wcx_make_difference(wcx_word<elem_bytes> base, wcx_word<elem_bytes> elements, wcx_word<elem_bytes> order)
{
	constexpr wcx_word<elem_bytes> tops = wcx_tops<elem_bytes>;
	const wcx_word<elem_bytes> a = wcx_order<elem_bytes>(elements, order), b = wcx_order<elem_bytes>(base, order);
	const wcx_word<elem_bytes> d = elem_bytes >= 4 ? a - b : ((a | tops) - (b & ~tops)) ^ ((a ^ ~b) & tops);

	return wcx_fold_distance<elem_bytes>(d);
}

/* --- Contexts --- */

/* The magnitudes of a word's elements; wcx_key finds the key of one of them. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_key_word(uint32_t difference, wcx_word<elem_bytes> base)
{
	const wcx_word<elem_bytes> inverted = difference == WCX_DIFFERENCE_FLOAT ? 0 : wcx_elem_signs<elem_bytes>(base);

	return (base ^ inverted) & ~wcx_tops<elem_bytes>;
}

template <uint32_t elem_bytes> static __device__ __forceinline__ uint32_t wcx_key(wcx_word<elem_bytes> keys, uint32_t number)
{
	constexpr uint32_t shift = elem_bytes == 1 ? 0 : 8 * elem_bytes - 9;

	return (uint32_t)(keys >> (number * 8 * elem_bytes + shift)) & 0xFF;
}

/* Writes the shared address of the table of each key, with all threads of the block; the caller synchronises them. */
static __device__ void wcx_contexts_build(const struct wcx_batch_kind &kind, uint32_t first, uint32_t table_bytes,
					  uint32_t *contexts)
{
	for (uint32_t key = threadIdx.x; key < WCX_CONTEXT_KEYS; key += blockDim.x) {
		uint32_t context = 0;

		for (uint32_t t = 0; t < WCX_CONTEXTS_MAX - 1; t++)
			context += kind.thresholds[t] != 0 && key >= kind.thresholds[t];
		contexts[key] = first + context * table_bytes;
	}
}

#endif
