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

/* An exception of the base. */
struct wcx_base_exception {
	uint32_t position, value;

	__device__ __forceinline__ uint32_t packed(void) const
	{
		return position | value << 16;
	}
};

/* The base of a tile while its lines are decoded. */
template <typename format_type> struct wcx_fused_base {
	static constexpr uint32_t elem_bytes = format_type::elem_bytes;
	static constexpr uint32_t line_elems = wcx_elems_of_line<elem_bytes>;

	const format_type format;
	wcx_low_planes<format_type::raw_bits, wcx_elems_of_word<elem_bytes>, WCX_FUSED_LINES> planes;
	struct wcx_payload payload;
	uint32_t raw_mask;
	uint32_t loaded;        /* the lane's own of 32 exceptions, packed; among them is the next */
	uint32_t count;         /* of exceptions; 0 if they are damaged */
	uint32_t next, next_at; /* the exception that comes next, and its element; 0xFFFFFFFF without one */
	uint32_t wakes_at;      /* the element from which on blocks are not only decoded: next_at, or 0 if all are stored */
	bool valid;

	__device__ __forceinline__ wcx_fused_base(const struct wcx_batch_kind &kind) : format(kind)
	{
	}
};

static __device__ __forceinline__ uint32_t wcx_base_exception_at(const wcx_device_tile &tile, uint32_t number)
{
	return __ldg((const uint16_t *)(tile.src + tile.item.exceptions) + number);
}

/* Loads the lane's own of 32 exceptions from number `first` on, all of which are stored; clears *valid if they are damaged.
 */
static __device__ __forceinline__ wcx_base_exception wcx_load_base_exceptions(const struct wcx_warp &warp,
									      const wcx_device_tile &tile, uint32_t first,
									      bool *valid)
{
	const uint32_t i = first + wcx_lane(), count = tile.item.exception_count, width = warp.kind.coded[0].width;
	wcx_base_exception ret = { 0, 0 };
	bool good = true;

	if (i < count) {
		const uint32_t half = wcx_base_exception_at(tile, count + (width > 8 ? i : i / 2));

		ret = { wcx_base_exception_at(tile, i), width > 8 ? half : half >> 8 * (i % 2) & 0xFF };
		good = (i == 0 || ret.position > wcx_base_exception_at(tile, i - 1)) && ret.position < tile.elems &&
		       ret.value >> width == 0;
	}
	if (!__all_sync(WCX_ALL_LANES, good))
		*valid = false;
	return ret;
}

/* Takes one of the loaded exceptions as the next. */
template <typename format_type>
static __device__ __forceinline__ void wcx_fused_next_exception(struct wcx_fused_base<format_type> *base, uint32_t number)
{
	base->next = number;
	base->next_at =
		number < base->count ? __shfl_sync(WCX_ALL_LANES, base->loaded, number % WCX_LANES) & 0xFFFF : 0xFFFFFFFF;
}

/* Checks the exceptions, and finds the first. */
template <typename format_type>
static __device__ __forceinline__ void wcx_fused_open_exceptions(const struct wcx_warp &warp, const wcx_device_tile &tile,
								 bool keeps_base, struct wcx_fused_base<format_type> *base)
{
	base->valid = true;
	base->loaded = wcx_load_base_exceptions(warp, tile, 0, &base->valid).packed();
	for (uint32_t first = WCX_LANES; first < tile.item.exception_count; first += WCX_LANES)
		wcx_load_base_exceptions(warp, tile, first, &base->valid);
	base->count = base->valid ? tile.item.exception_count : 0;
	wcx_fused_next_exception(base, 0);
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
		const uint32_t value = __shfl_sync(WCX_ALL_LANES, base->loaded, base->next % WCX_LANES) >> 16;
		const uint32_t at = base->next_at, at_line = at / wcx_elems_of_line<elem_bytes> - line;
		const uint32_t shift = at % word_elems * 8 * elem_bytes;
		const uint32_t bits = wcx_place_word<elem_bytes>(kind.transform, value << field.shift);

		if (at / word_elems % WCX_LANES == wcx_lane()) {
#pragma unroll
			for (uint32_t w = 0; w < WCX_FUSED_LINES; w++) {
				const bool negative = word[w] >> (shift + 8 * elem_bytes - 1) & 1;
				const uint32_t folded = elem_bytes == 1 && negative ? kind.fold_mask & 0xFF : 0;

				if (at_line == w)
					word[w] = wcx_select_bits(mask << shift, (bits ^ folded) << shift, word[w]);
			}
		}
		if ((base->next + 1) % WCX_LANES == 0)
			base->loaded = wcx_load_base_exceptions(warp, tile, base->next + 1, &base->valid).packed();
		wcx_fused_next_exception(base, base->next + 1);
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
