/* SPDX-License-Identifier: MIT */
/*
 * The base of a difference while one warp decodes both: its words are complete before the difference needs them, a block of
 * lines ahead.
 */
#ifndef WCX_FUSED_BASE_CUH
#define WCX_FUSED_BASE_CUH

#include "cuda/elem_format.cuh"
#include "cuda/tile_tail.cuh"

/* A source may define fewer before it includes this. */
#ifndef WCX_LINES_OF_BLOCK
#define WCX_LINES_OF_BLOCK 8
#endif

enum { WCX_FUSED_LINES = WCX_LINES_OF_BLOCK }; /* of a block */

/* The base of a tile while its lines are decoded. */
template <typename format_type> struct wcx_fused_base {
	static constexpr uint32_t elem_bytes = format_type::elem_bytes;
	static constexpr uint32_t line_elems = wcx_elems_of_line<elem_bytes>;

	const format_type format;
	wcx_low_planes<format_type::raw_bits, wcx_elems_of_word<elem_bytes>, WCX_FUSED_LINES> planes;
	struct wcx_payload payload;
	uint32_t raw_mask;
	uint32_t next, next_at; /* the exception that comes next, and its element; 0xFFFFFFFF without one */
	uint32_t wakes_at;      /* the element from which on blocks are not only decoded: next_at, or 0 if all are stored */
	bool valid;

	__device__ __forceinline__ wcx_fused_base(const struct wcx_batch_kind &kind) : format(kind)
	{
	}
};

/* An exception of the base. */
struct wcx_base_exception {
	uint32_t position, value;
};

static __device__ __forceinline__ uint32_t wcx_base_exception_at(const wcx_device_tile &tile, uint32_t number)
{
	return __ldg((const uint16_t *)(tile.src + tile.item.exceptions) + number);
}

/* Loads an exception, all of which are stored. */
static __device__ __forceinline__ wcx_base_exception wcx_load_base_exception(const struct wcx_warp &warp,
									     const wcx_device_tile &tile, uint32_t number)
{
	const uint32_t count = tile.item.exception_count, width = warp.kind.coded[0].width;
	const uint32_t half = wcx_base_exception_at(tile, count + (width > 8 ? number : number / 2));

	return { wcx_base_exception_at(tile, number), width > 8 ? half : half >> 8 * (number % 2) & 0xFF };
}

/* Loads the lane's own of 32 exceptions from number `first` on; clears *valid if they are damaged. */
static __device__ __forceinline__ wcx_base_exception wcx_load_base_exceptions(const struct wcx_warp &warp,
									      const wcx_device_tile &tile, uint32_t first,
									      bool *valid)
{
	const uint32_t i = first + wcx_lane();
	wcx_base_exception ret = { 0, 0 };
	bool good = true;

	if (i < tile.item.exception_count) {
		ret = wcx_load_base_exception(warp, tile, i);
		good = (i == 0 || ret.position > wcx_base_exception_at(tile, i - 1)) && ret.position < tile.elems &&
		       ret.value >> warp.kind.coded[0].width == 0;
	}
	if (!__all_sync(WCX_ALL_LANES, good))
		*valid = false;
	return ret;
}

/* Checks the exceptions, and finds the first. */
template <typename format_type>
static __device__ __forceinline__ void wcx_fused_open_exceptions(const struct wcx_warp &warp, const wcx_device_tile &tile,
								 bool keeps_base, struct wcx_fused_base<format_type> *base)
{
	base->valid = true;
	base->next = 0;
	for (uint32_t first = 0; first < tile.item.exception_count; first += WCX_LANES)
		wcx_load_base_exceptions(warp, tile, first, &base->valid);
	base->next_at = base->valid && tile.item.exception_count ? wcx_base_exception_at(tile, 0) : 0xFFFFFFFF;
	base->wakes_at = keeps_base ? 0 : base->next_at;
}

/* Corrects the words of a block that has exceptions, all of which are valid. */
template <typename format_type>
static __device__ __forceinline__ void wcx_fused_correct_words(const struct wcx_warp &warp, const wcx_device_tile &tile,
							       struct wcx_fused_base<format_type> *base, uint32_t line,
							       uint32_t word[WCX_FUSED_LINES])
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes, word_elems = wcx_elems_of_word<elem_bytes>;
	const struct wcx_batch_kind &kind = warp.kind;
	const struct wcx_batch_field &field = kind.coded[0];
	const uint32_t end = (line + WCX_FUSED_LINES) * wcx_elems_of_line<elem_bytes>;
	const uint32_t mask = wcx_place_word<elem_bytes>(kind.transform, ((1u << field.width) - 1) << field.shift);

	while (base->next_at < end) {
		const wcx_base_exception exception = wcx_load_base_exception(warp, tile, base->next);
		const uint32_t at = base->next_at, at_line = at / wcx_elems_of_line<elem_bytes> - line;
		const uint32_t shift = at % word_elems * 8 * elem_bytes;
		const uint32_t bits = wcx_place_word<elem_bytes>(kind.transform, exception.value << field.shift);

		if (at / word_elems % WCX_LANES == wcx_lane()) {
#pragma unroll
			for (uint32_t w = 0; w < WCX_FUSED_LINES; w++) {
				const bool negative = word[w] >> (shift + 8 * elem_bytes - 1) & 1;
				const uint32_t folded = elem_bytes == 1 && negative ? kind.fold_mask & 0xFF : 0;

				if (at_line == w)
					word[w] = wcx_select_bits(mask << shift, (bits ^ folded) << shift, word[w]);
			}
		}
		base->next++;
		base->next_at =
			base->next < tile.item.exception_count ? wcx_base_exception_at(tile, base->next) : 0xFFFFFFFF;
	}
}

/* What the last unit of the last plane of the base lacks, in the words of the last block, when the final states are known.
 */
template <typename format_type>
static __device__ __forceinline__ void wcx_fused_add_carried(const struct wcx_warp &warp, const wcx_device_tile &tile,
							     const struct wcx_fused_base<format_type> &base, uint32_t line,
							     uint32_t word[WCX_FUSED_LINES])
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes;
	const struct wcx_batch_plane &plane = warp.kind.planes[warp.kind.plane_count - 1];
	const struct wcx_tail tail = wcx_tail_load(warp.kind, tile);
	const uint32_t carried = wcx_carried_difference(tail.unit, base.payload.reader.state);
	const uint32_t wrong = wcx_lane() < WCX_LANES / 2 ? 0 : carried;
	const uint32_t first = (wcx_units(plane, tile.lines) - 1) << plane.unit_bits;

#pragma unroll
	for (uint32_t i = 0; i < WCX_FUSED_LINES; i++)
		if (line + i >= first)
			word[i] ^= wcx_fold_word<elem_bytes>(warp.kind, wcx_plane_word<elem_bytes>(plane, wrong, line + i));
}

#endif
