/* SPDX-License-Identifier: MIT */
/* Undoes prediction, in place, once all residuals of a tile are stored. */
#ifndef WCX_TILE_PREDICT_CUH
#define WCX_TILE_PREDICT_CUH

#include "cuda/tile_lines.cuh"

enum { WCX_LOADS = 8 }; /* loads of a lane in flight, to hide their latency */

/*
 * LEFT: sums along the rows, 32 elements at a time whatever the length of rows.  The sum of an element begins at the last
 * row start at or before it among the 32; without one, it continues from the previous 32.
 */
template <uint32_t elem_bytes> static __device__ void wcx_undo_left(const wcx_device_tile &tile)
{
	using word = wcx_word<elem_bytes>;
	wcx_elem<elem_bytes> *dst = (wcx_elem<elem_bytes> *)tile.dst;
	const uint32_t upto_lane = 0xFFFFFFFFu >> (WCX_LANES - 1 - wcx_lane());
	const uint32_t cols = tile.item.cols, cols_at_a_time = WCX_LANES % cols;
	uint32_t col = wcx_lane() % cols;
	word carry = 0;

	__syncwarp(); /* other lanes have stored the elements */
	for (uint32_t start = wcx_lane(); start - wcx_lane() < tile.elems; start += WCX_LOADS * WCX_LANES) {
		wcx_elem<elem_bytes> residual[WCX_LOADS];

#pragma unroll
		for (uint32_t i = 0; i < WCX_LOADS; i++)
			residual[i] = start + i * WCX_LANES < tile.elems ? dst[start + i * WCX_LANES] : 0;
#pragma unroll
		for (uint32_t i = 0; i < WCX_LOADS; i++) {
			const word sum = wcx_warp_prefix_sum((word)residual[i]);
			const uint32_t row_starts = __ballot_sync(WCX_ALL_LANES, col == 0) & upto_lane;
			const uint32_t row_start = row_starts ? WCX_LANES - 1 - __clz(row_starts) : 0;
			const word before_row = __shfl_sync(WCX_ALL_LANES, (word)(sum - residual[i]), row_start);
			const word value = sum + (row_starts ? 0 - before_row : carry);

			if (start + i * WCX_LANES < tile.elems)
				dst[start + i * WCX_LANES] = (wcx_elem<elem_bytes>)value;
			carry = __shfl_sync(WCX_ALL_LANES, value, WCX_LANES - 1);
			col += cols_at_a_time;
			col -= col >= cols ? cols : 0;
		}
	}
}

/* Several elements in a word, added without carries between them. */
template <uint32_t elem_bytes> struct wcx_packed {
	uint32_t word;
};
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_packed<elem_bytes> wcx_add(wcx_packed<elem_bytes> a, wcx_packed<elem_bytes> b)
{
	return { elem_bytes == 1 ? __vadd4(a.word, b.word) : __vadd2(a.word, b.word) };
}
template <typename elem> static __device__ __forceinline__ elem wcx_add(elem a, elem b)
{
	return (elem)(a + b);
}

/* Sums down the columns, one a lane; unit is an element or several packed ones, count and cols are in units. */
template <typename unit> static __device__ __forceinline__ void wcx_sum_columns(unit *dst, uint32_t count, uint32_t cols)
{
	for (uint32_t col = wcx_lane(); col < cols; col += WCX_LANES) {
		unit value = {};

		for (uint32_t start = col; start < count; start += WCX_LOADS * cols) {
			unit residual[WCX_LOADS];

#pragma unroll
			for (uint32_t i = 0; i < WCX_LOADS; i++)
				residual[i] = start + i * cols < count ? dst[start + i * cols] : unit{};
#pragma unroll
			for (uint32_t i = 0; i < WCX_LOADS; i++) {
				value = wcx_add(value, residual[i]);
				if (start + i * cols < count)
					dst[start + i * cols] = value;
			}
		}
	}
}

/* UP: sums down the columns. */
template <uint32_t elem_bytes> static __device__ void wcx_undo_up(const wcx_device_tile &tile)
{
	constexpr uint32_t word_elems = wcx_elems_of_word<elem_bytes>;
	const uint32_t cols = tile.item.cols;

	__syncwarp(); /* other lanes have stored the elements */
	if (word_elems > 1 && cols % word_elems == 0)
		wcx_sum_columns((wcx_packed<elem_bytes> *)tile.dst, tile.elems / word_elems, cols / word_elems);
	else
		wcx_sum_columns((wcx_elem<elem_bytes> *)tile.dst, tile.elems, cols);
}

template <uint32_t elem_bytes> static __device__ void wcx_undo_predictor(uint32_t predictor, const wcx_device_tile &tile)
{
	if (predictor == WCX_PREDICT_LEFT || predictor == WCX_PREDICT_LEFT2)
		wcx_undo_left<elem_bytes>(tile);
	if (predictor == WCX_PREDICT_LEFT2)
		wcx_undo_left<elem_bytes>(tile);
	if (predictor == WCX_PREDICT_UP)
		wcx_undo_up<elem_bytes>(tile);
}

#endif
