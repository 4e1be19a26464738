/* SPDX-License-Identifier: MIT */
/*
 * The kernel that decodes byte planes: a warp a plane, lane l of the warp being lane l of the bitstream
 * (docs/format.md, section 3).
 *
 * The items have been checked by the host; the payloads have not, so every read of one is held against its size.  All loops
 * end after a number of turns that the item alone sets.  A warp stays together: what it branches on is the same in
 * all lanes, unless the branch holds no collective.
 */
#ifndef WCX_TILE_KERNEL_CUH
#define WCX_TILE_KERNEL_CUH

#include <cuda_runtime.h>

extern "C" {
#include "codec/rans.h"
#include "cuda/tile_batch.h"
}

enum {
	WCX_BLOCK_THREADS = WCX_BLOCK_ITEMS * WCX_RANS_LANES,
	WCX_BLOCKS_PER_SM = 8, /* 64 warps, the most there are, keep the registers of a thread down to 32 */
	WCX_STATE_WORDS = WCX_RANS_STATE_BYTES / 2, /* what the states take, counted in words */
};

#define WCX_ALL_LANES 0xFFFFFFFFu

/* Where a batch lies on the device. */
struct wcx_batch_dev {
	const struct wcx_plane_item *items;
	const struct wcx_freq_table *tables;
	const uint8_t *src;
	uint8_t *dst;
	uint32_t *status; /* an enum wcx_result for each slot */
};

/* The bytes of one plane among the elements of a tile. */
struct wcx_plane_view {
	uint8_t *first;
	uint32_t stride, count;
};

static __device__ __forceinline__ uint32_t wcx_lane(void)
{
	return threadIdx.x % WCX_RANS_LANES;
}

static __device__ __forceinline__ uint8_t *wcx_plane_byte(struct wcx_plane_view plane, uint32_t index)
{
	return plane.first + (size_t)index * plane.stride;
}

/* Stores bytes [index, index + 4) of a plane; index is a multiple of 4, and tiles are aligned. */
static __device__ __forceinline__ void wcx_put_four(struct wcx_plane_view plane, uint32_t index, uint32_t bytes)
{
	if (plane.stride == 1) {
		*(uint32_t *)(plane.first + index) = bytes;
		return;
	}
	for (uint32_t k = 0; k < 4; k++)
		*wcx_plane_byte(plane, index + k) = (uint8_t)(bytes >> 8 * k);
}

/* The same where the plane may end before the four bytes do. */
static __device__ void wcx_put_some(struct wcx_plane_view plane, uint32_t index, uint32_t bytes)
{
	for (uint32_t k = 0; k < 4 && index + k < plane.count; k++)
		*wcx_plane_byte(plane, index + k) = (uint8_t)(bytes >> 8 * k);
}

/* The sum of the values in this lane and those below it. */
static __device__ uint32_t wcx_warp_sum_upto(uint32_t value)
{
	for (uint32_t distance = 1; distance < WCX_RANS_LANES; distance *= 2) {
		uint32_t below = __shfl_up_sync(WCX_ALL_LANES, value, distance);

		value += wcx_lane() >= distance ? below : 0;
	}
	return value;
}

/*
 * Builds the decoding table of struct wcx_rans_decode_table with all threads of the block.  Thread s adds up the
 * frequencies below symbol s; then the warps take turns at the symbols, and the lanes fill a symbol's slots side by
 * side.
 */
static __device__ void wcx_table_build(const struct wcx_freq_table *freqs, uint32_t *entry)
{
	__shared__ uint32_t freq[WCX_SYMBOL_COUNT], end[WCX_SYMBOL_COUNT], warp_sum[WCX_BLOCK_ITEMS];
	const uint32_t s = threadIdx.x, warp = threadIdx.x / WCX_RANS_LANES;

	static_assert(WCX_BLOCK_THREADS == WCX_SYMBOL_COUNT, "a thread a symbol");
	freq[s] = freqs->freq[s];
	end[s] = wcx_warp_sum_upto(freq[s]);
	if (wcx_lane() == WCX_RANS_LANES - 1)
		warp_sum[warp] = end[s];
	__syncthreads();
	for (uint32_t below = 0; below < warp; below++)
		end[s] += warp_sum[below];
	__syncthreads();
	for (uint32_t symbol = warp; symbol < WCX_SYMBOL_COUNT; symbol += WCX_BLOCK_ITEMS) {
		const uint32_t start = end[symbol] - freq[symbol], stop = min(end[symbol], (uint32_t)WCX_PROB_SCALE);

		for (uint32_t bias = wcx_lane(); start + bias < stop; bias += WCX_RANS_LANES)
			entry[start + bias] = bias << 20 | freq[symbol] << 8 | symbol;
	}
	__syncthreads();
}

/* Where a warp stands in a RANS payload; what is not marked is the same in all lanes. */
struct wcx_rans_reader {
	const uint16_t *words;
	uint32_t word_count, position;
	uint32_t state;       /* the lane's own */
	uint32_t lower_lanes; /* a bit for each; the lane's own */
};

/*
 * One step of all lanes: *entry_ret is the table's entry, with the symbol in its low byte.  Words that lanes want are
 * handed out by counting the votes of the lanes below.  A checked step can do with fewer lanes, and is false when words
 * are missing; one that is not needs WCX_RANS_LANES words ahead, for all lanes load one, wanted or not: that is cheaper
 * than asking.
 */
template <bool checked>
static __device__ __forceinline__ bool wcx_rans_step(struct wcx_rans_reader *reader, const uint32_t *table, bool active,
						     uint32_t *entry_ret)
{
	const uint32_t entry = table[reader->state % WCX_PROB_SCALE];
	const uint32_t next = (entry >> 8 & 0xFFF) * (reader->state >> WCX_PROB_BITS) + (entry >> 20);
	const bool wanting = (!checked || active) && next < WCX_RANS_LOW;
	const uint32_t votes = __ballot_sync(WCX_ALL_LANES, wanting);
	const uint32_t word_index = reader->position + __popc(votes & reader->lower_lanes);

	*entry_ret = entry;
	reader->position += __popc(votes);
	if (checked && reader->position > reader->word_count)
		return false;
	const uint32_t word = !checked || wanting ? __ldg(reader->words + word_index) : 0;

	if (!checked || active)
		reader->state = wanting ? next << 16 | word : next;
	return true;
}

/* A group of 128 symbols, of which lane l gets 4 l to 4 l + 3 in *symbols_ret; active is how many of its own a lane has. */
template <bool checked>
static __device__ __forceinline__ bool wcx_rans_group(struct wcx_rans_reader *reader, const uint32_t *table, uint32_t active,
						      uint32_t *symbols_ret)
{
	uint32_t entry[WCX_RANS_LANE_SYMBOLS];

#pragma unroll
	for (uint32_t k = 0; k < WCX_RANS_LANE_SYMBOLS; k++)
		if (!wcx_rans_step<checked>(reader, table, k < active, &entry[k]))
			return false;
	*symbols_ret = __byte_perm(__byte_perm(entry[0], entry[1], 0x0040), __byte_perm(entry[2], entry[3], 0x0040), 0x5410);
	return true;
}

/* Decodes a RANS payload to the plane's residuals; false if it is damaged. */
static __device__ bool wcx_rans_decode_plane(const uint8_t *src, uint32_t src_bytes, const uint32_t *table,
					     struct wcx_plane_view plane)
{
	struct wcx_rans_reader reader;
	uint32_t index = WCX_RANS_LANE_SYMBOLS * wcx_lane(), left = plane.count, symbols;

	reader.words = (const uint16_t *)(src + WCX_RANS_STATE_BYTES);
	reader.word_count = src_bytes / 2 - WCX_STATE_WORDS;
	reader.position = 0;
	reader.state = __ldg((const uint32_t *)src + wcx_lane());
	reader.lower_lanes = (1u << wcx_lane()) - 1;
	for (; left >= WCX_RANS_GROUP && reader.word_count - reader.position >= WCX_RANS_GROUP; left -= WCX_RANS_GROUP) {
		wcx_rans_group<false>(&reader, table, WCX_RANS_LANE_SYMBOLS, &symbols);
		wcx_put_four(plane, index, symbols);
		index += WCX_RANS_GROUP;
	}
	for (; left > 0; left -= min(left, (uint32_t)WCX_RANS_GROUP)) {
		uint32_t active = index < plane.count ? plane.count - index : 0;

		if (!wcx_rans_group<true>(&reader, table, active, &symbols))
			return false;
		wcx_put_some(plane, index, symbols);
		index += WCX_RANS_GROUP;
	}
	return __all_sync(WCX_ALL_LANES, reader.state == WCX_RANS_LOW) && reader.position == reader.word_count;
}

/*
 * LEFT: sums along the rows, 32 bytes of the plane at a time whatever the rows' length.  A byte's sum begins at the
 * last row that starts in the 32 at or before it; where none does, it goes on from the 32 before.
 */
static __device__ void wcx_undo_left(struct wcx_plane_view plane, uint32_t cols)
{
	const uint32_t upto_lane = 0xFFFFFFFFu >> (WCX_RANS_LANES - 1 - wcx_lane());
	uint32_t col = wcx_lane() % cols, carry = 0;

	for (uint32_t start = 0; start < plane.count; start += WCX_RANS_LANES) {
		const uint32_t index = start + wcx_lane();
		const uint32_t residual = index < plane.count ? *wcx_plane_byte(plane, index) : 0;
		const uint32_t sum = wcx_warp_sum_upto(residual);
		const uint32_t row_starts = __ballot_sync(WCX_ALL_LANES, col == 0) & upto_lane;
		const uint32_t row_start = row_starts ? WCX_RANS_LANES - 1 - __clz(row_starts) : 0;
		const uint32_t before_row = __shfl_sync(WCX_ALL_LANES, sum - residual, row_start);
		const uint32_t value = sum + (row_starts ? 0 - before_row : carry);

		if (index < plane.count)
			*wcx_plane_byte(plane, index) = (uint8_t)value;
		carry = __shfl_sync(WCX_ALL_LANES, value, WCX_RANS_LANES - 1);
		col = (col + WCX_RANS_LANES) % cols;
	}
}

/* UP: sums down the columns, one a lane. */
static __device__ void wcx_undo_up(struct wcx_plane_view plane, uint32_t rows, uint32_t cols)
{
	for (uint32_t col = wcx_lane(); col < cols; col += WCX_RANS_LANES) {
		uint32_t value = 0;

		for (uint32_t row = 0; row < rows; row++) {
			uint8_t *byte = wcx_plane_byte(plane, row * cols + col);

			value += *byte;
			*byte = (uint8_t)value;
		}
	}
}

/*
 * AVG: 32 rows at a time, one a lane, each a column behind the row above it, whose latest byte is then the one
 * overhead.  The first lane finds that in the tile, where the rows before have left it.
 */
static __device__ void wcx_undo_avg(struct wcx_plane_view plane, uint32_t rows, uint32_t cols)
{
	for (uint32_t first_row = 0; first_row < rows; first_row += WCX_RANS_LANES) {
		const uint32_t row = first_row + wcx_lane();
		int32_t value = 0;

		for (uint32_t turn = 0; turn < cols + WCX_RANS_LANES - 1; turn++) {
			const uint32_t col = turn - wcx_lane(); /* huge before the lane's first turn */
			int32_t up = __shfl_up_sync(WCX_ALL_LANES, value, 1);

			if (row >= rows || col >= cols)
				continue;
			if (wcx_lane() == 0)
				up = row ? (int8_t)*wcx_plane_byte(plane, (row - 1) * cols + col) : 0;
			uint8_t *byte = wcx_plane_byte(plane, row * cols + col);

			value = (int8_t)(*byte + ((value + up) >> 1));
			*byte = (uint8_t)value;
		}
		__syncwarp();
	}
}

static __device__ void wcx_undo_predictor(struct wcx_plane_view plane, const struct wcx_plane_item &item)
{
	__syncwarp(); /* other lanes' residuals are read below */
	switch (item.predictor) {
	case WCX_PREDICT_LEFT:
		wcx_undo_left(plane, item.cols);
		break;
	case WCX_PREDICT_UP:
		wcx_undo_up(plane, item.rows, item.cols);
		break;
	case WCX_PREDICT_AVG:
		wcx_undo_avg(plane, item.rows, item.cols);
		break;
	}
}

static __device__ void wcx_copy_plane(const uint8_t *src, struct wcx_plane_view plane)
{
	const uint32_t whole = plane.count / 4 * 4;

#pragma unroll 4
	for (uint32_t index = 4 * wcx_lane(); index < whole; index += 4 * WCX_RANS_LANES)
		wcx_put_four(plane, index, __ldg((const uint32_t *)(src + index)));
	if (whole + wcx_lane() < plane.count)
		*wcx_plane_byte(plane, whole + wcx_lane()) = __ldg(src + whole + wcx_lane());
}

static __device__ void wcx_fill_plane(uint8_t value, struct wcx_plane_view plane)
{
	for (uint32_t index = 4 * wcx_lane(); index < plane.count; index += 4 * WCX_RANS_LANES)
		wcx_put_some(plane, index, value * 0x01010101u);
}

static __device__ bool wcx_decode_plane(const struct wcx_plane_item &item, const struct wcx_batch_dev &batch,
					const uint32_t *table)
{
	const uint8_t *src = batch.src + item.src_offset;
	struct wcx_plane_view plane;
	bool sound = true;

	plane.first = batch.dst + item.dst_offset + item.plane;
	plane.stride = item.elem_bytes;
	plane.count = item.rows * item.cols;
	switch (item.coding) {
	case WCX_PLANE_STORED:
		wcx_copy_plane(src, plane);
		break;
	case WCX_PLANE_CONSTANT:
		wcx_fill_plane(__ldg(src), plane);
		break;
	case WCX_PLANE_RANS:
		sound = wcx_rans_decode_plane(src, item.src_bytes, table, plane);
		if (sound)
			wcx_undo_predictor(plane, item);
		break;
	}
	return sound;
}

/* A block takes WCX_BLOCK_ITEMS slots, whose items all have the table of the first. */
static __global__ void __launch_bounds__(WCX_BLOCK_THREADS, WCX_BLOCKS_PER_SM) wcx_decode_planes(struct wcx_batch_dev batch)
{
	__shared__ uint32_t table[WCX_PROB_SCALE];
	const uint32_t first_slot = blockIdx.x * WCX_BLOCK_ITEMS, slot = first_slot + threadIdx.x / WCX_RANS_LANES;
	const uint32_t table_number = batch.items[first_slot].table;
	const struct wcx_plane_item item = batch.items[slot];

	if (table_number != WCX_NO_TABLE)
		wcx_table_build(&batch.tables[table_number], table);
	if (item.rows == 0)
		return;
	const bool sound = wcx_decode_plane(item, batch, table);

	if (wcx_lane() == 0)
		batch.status[slot] = sound ? WCX_OK : WCX_BAD_DATA;
}

/* Starts the kernel on the batch's slots, of which there must be some. */
static inline cudaError_t wcx_launch_decode(struct wcx_batch_dev batch, uint32_t slots, cudaStream_t stream)
{
	void *arguments[] = { &batch };

	return cudaLaunchKernel(wcx_decode_planes, dim3(slots / WCX_BLOCK_ITEMS), dim3(WCX_BLOCK_THREADS), arguments, 0,
				stream);
}

#endif
