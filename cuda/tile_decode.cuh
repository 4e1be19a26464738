/* SPDX-License-Identifier: MIT */
/*
 * The kernel template that decodes tiles, one warp for each.
 *
 * The host has checked the items; planes, payloads and exceptions are untrusted.  Items alone determine how often every loop
 * runs.  A warp stays converged: branches depend on values that are the same in all lanes, unless they contain no collective
 * operation.
 */
#ifndef WCX_TILE_DECODE_CUH
#define WCX_TILE_DECODE_CUH

#include "cuda/block_shape.h"
#include "cuda/difference_format.cuh"
#include "cuda/difference_pair.cuh"
#include "cuda/elem_format.cuh"
#include "cuda/tile_lines.cuh"
#include "cuda/tile_predict.cuh"
#include "cuda/tile_tail.cuh"

enum : uint32_t { WCX_NO_KIND = 0xFFFFFFFF };

/* --- Tiles --- */

/* Decodes the carrier, and with it all that is not coded. */
template <typename format_type, bool multi>
static __device__ __forceinline__ bool wcx_decode_carrier(const struct wcx_warp &warp, const wcx_device_tile &tile)
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes;
	const struct wcx_batch_field &field = warp.kind.coded[warp.kind.coded_count - 1];
	const wcx_fast_tables tables = { 0 };
	struct wcx_tail tail;
	struct wcx_payload payload;
	uint32_t line = 0;

	wcx_payload_open(warp, tile, field, tile.item.carrier, &payload);
	if constexpr (format_type::is_any)
		wcx_payload_start(warp, tile, field, tile.item.carrier, &payload);
	else if constexpr (format_type::store == wcx_store::DIFFERENCES)
		line = wcx_store_difference_blocks<format_type, multi>(warp, tile, field, &payload);
	else
		line = wcx_store_blocks<format_type, multi>(warp, tile, field, &payload);
	tail = wcx_tail_load(warp.kind, tile);
	if (format_type::store == wcx_store::RESIDUALS && warp.kind.has_sets) {
		const wcx_slow_sets sets = { { warp.batch.tables + field.table } };

		wcx_store_coded_lines<elem_bytes, format_type::store, wcx_numbers::SYMBOLS>(warp, tile, field, sets,
											    &payload, line);
	} else {
		wcx_store_coded_lines<elem_bytes, format_type::store, format_type::numbers>(warp, tile, field, tables,
											    &payload, line);
	}
	if (!wcx_word_reader_close(payload.reader, tile.item.plane_carried || tile.item.exceptions_carried))
		return false;
	if (tile.item.plane_carried)
		wcx_add_carried<elem_bytes, format_type::store>(warp.kind, tile, tail.unit, payload.reader.state);
	return wcx_store_exceptions<elem_bytes, format_type::store>(warp.kind, tile, tail, payload.reader.state);
}

/* Decodes the coded fields other than the carrier. */
template <uint32_t elem_bytes, wcx_store store>
static __device__ __forceinline__ bool wcx_decode_others(const struct wcx_warp &warp, const wcx_device_tile &tile)
{
	for (uint32_t c = 0; c + 1 < warp.kind.coded_count; c++) {
		const struct wcx_batch_field &field = warp.kind.coded[c];
		const struct wcx_payload_place &place = warp.batch.places[tile.item.others + c];
		const wcx_slow_tables tables = { warp.batch.tables + field.table };
		struct wcx_payload payload;

		__syncwarp(); /* other lanes have stored exceptions */
		wcx_payload_open(warp, tile, field, place, &payload);
		wcx_payload_start(warp, tile, field, place, &payload);
		wcx_store_coded_lines<elem_bytes, store, wcx_numbers::SYMBOLS>(warp, tile, field, tables, &payload, 0);
		if (!wcx_word_reader_close(payload.reader, false))
			return false;
	}
	return true;
}

template <typename format_type, bool multi>
static __device__ __forceinline__ bool wcx_decode_tile(const struct wcx_warp &warp, const struct wcx_tile_item &item)
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes;
	const wcx_device_tile tile = { item,
				       warp.batch.src + item.src,
				       warp.batch.dst + item.dst,
				       warp.batch.dst + item.base,
				       item.elems,
				       WCX_DIV_UP(item.elems, wcx_elems_of_line<elem_bytes>) };

	if constexpr (std::is_same_v<format_type, wcx_two_differences>) {
		return wcx_decode_two(warp, tile);
	} else if constexpr (format_type::is_any) {
		if (warp.kind.coded_count == 0)
			wcx_store_raw_lines<elem_bytes>(warp.kind, tile);
		else if (!wcx_decode_carrier<format_type, multi>(warp, tile) ||
			 !wcx_decode_others<elem_bytes, format_type::store>(warp, tile))
			return false;
		if constexpr (format_type::store == wcx_store::RESIDUALS)
			wcx_undo_differences<elem_bytes>(warp.kind, tile);
		else
			wcx_undo_predictor<elem_bytes>(warp.kind.predictor, tile);
		return true;
	} else {
		const bool valid = wcx_decode_carrier<format_type, multi>(warp, tile);

		if (valid && format_type::may_be_predicted)
			wcx_undo_predictor<elem_bytes>(warp.kind.predictor, tile);
		return valid;
	}
}

/* --- Kernels --- */

/* Takes an item of a kind: its number in the kind, counted from 1, or less if all are taken. */
static __device__ __forceinline__ int wcx_take_item(const struct wcx_batch_dev &batch, uint32_t kind)
{
	int left = 0;

	if (wcx_lane() == 0)
		left = atomicSub(batch.left + kind, 1);
	return __shfl_sync(WCX_ALL_LANES, left, 0);
}

/* Decodes the items of a kind, one by one, until none are left. */
template <typename format_type, bool multi>
static __device__ __forceinline__ void wcx_decode_items(const struct wcx_warp &warp, uint32_t kind)
{
	const struct wcx_batch_dev &batch = warp.batch;

	for (;;) {
		const int left = wcx_take_item(batch, kind);

		if (left <= 0)
			return;
		const struct wcx_tile_item &item = batch.items[warp.kind.first_item + left - 1];
		const bool valid = wcx_decode_tile<format_type, multi>(warp, item);

		if (wcx_lane() == 0)
			batch.status[item.number] = batch.mark | (valid ? WCX_OK : WCX_BAD_DATA);
	}
}

/* Whether these kernels can undo what the kind has.  wcx_tile_parse has refused others before. */
static __device__ __forceinline__ bool wcx_kind_is_known(const struct wcx_batch_kind &kind)
{
	static_assert(WCX_TRANSFORM_COUNT == 3 && WCX_PREDICTOR_COUNT == 4 && WCX_DIFFERENCE_COUNT == 3,
		      "wcx_place_word, wcx_undo_predictor and wcx_order_mask have them");
	return kind.transform < WCX_TRANSFORM_COUNT && kind.predictor < WCX_PREDICTOR_COUNT &&
	       kind.difference < WCX_DIFFERENCE_COUNT;
}

/* Gives all items of an unknown kind an error status. */
static __device__ __forceinline__ void wcx_refuse_items(const struct wcx_warp &warp, uint32_t kind)
{
	const struct wcx_batch_dev &batch = warp.batch;

	for (int left = wcx_take_item(batch, kind); left > 0; left = wcx_take_item(batch, kind))
		if (wcx_lane() == 0)
			batch.status[batch.items[warp.kind.first_item + left - 1].number] = batch.mark | WCX_BAD_DATA;
}

/* With one warp: the first kind of the launch with items left, from `from` on and around; WCX_NO_KIND if all are taken. */
static __device__ uint32_t wcx_find_kind(const struct wcx_batch_dev &batch, uint32_t from)
{
	const struct wcx_batch_launch &launch = batch.launch;

	for (uint32_t i = 0; i < launch.kind_count; i += WCX_LANES) {
		const uint32_t number = from - launch.first_kind + i + wcx_lane();
		const uint32_t kind = launch.first_kind + number % launch.kind_count;
		const bool has_items = i + wcx_lane() < launch.kind_count && wcx_load_relaxed(batch.left + kind) > 0;
		const uint32_t votes = __ballot_sync(WCX_ALL_LANES, has_items);

		if (votes)
			return __shfl_sync(WCX_ALL_LANES, kind, __ffs(votes) - 1);
	}
	return WCX_NO_KIND;
}

/* Bounds of a launch, from which the compiler derives how many registers a thread may have: 48 or 64. */
template <typename format_type, bool multi>
static constexpr bool wcx_has_slim_blocks =
	!multi && (std::is_same_v<format_type, wcx_pairs_format> || std::is_same_v<format_type, wcx_byte_differences> ||
		   std::is_same_v<format_type, wcx_byte_pair_differences>);
template <typename format_type, bool multi>
static constexpr uint32_t wcx_most_warps =
	wcx_has_slim_blocks<format_type, multi> ? WCX_SLIM_BLOCK_WARPS : WCX_LARGE_BLOCK_WARPS;
template <typename format_type, bool multi>
static constexpr uint32_t wcx_least_blocks = wcx_has_slim_blocks<format_type, multi> ? 2 : 1;

/* Has all threads of the block load a kind. */
static __device__ __forceinline__ void wcx_load_kind(const struct wcx_batch_dev &batch, uint32_t number,
						     struct wcx_batch_kind *ret)
{
	for (uint32_t i = threadIdx.x; i < sizeof *ret / sizeof(uint32_t); i += blockDim.x)
		((uint32_t *)ret)[i] = __ldg((const uint32_t *)(batch.kinds + number) + i);
}

/*
 * Has all threads of the block, whose warps are done with the last kind, load the next with items left, from *at on; false
 * if there is none.  *found is shared.
 */
static __device__ __forceinline__ bool wcx_load_next_kind(const struct wcx_batch_dev &batch, uint32_t *at, uint32_t *found,
							  struct wcx_batch_kind *ret)
{
	if (threadIdx.x < WCX_LANES) {
		*at = wcx_find_kind(batch, *at);
		if (threadIdx.x == 0)
			*found = *at;
	}
	__syncthreads(); /* also: all warps are done with the last kind */
	*at = *found;
	if (*at == WCX_NO_KIND)
		return false;
	wcx_load_kind(batch, *at, ret);
	__syncthreads();
	return true;
}

/*
 * One launch.  Dynamic shared memory: the decoding tables of the block's current kind, contexts if there are any, then a
 * ring for each warp.
 */
template <typename format_type, bool multi>
static __global__ void __launch_bounds__(wcx_most_warps<format_type, multi> *WCX_LANES, wcx_least_blocks<format_type, multi>)
	wcx_decode_tiles(const struct wcx_batch_dev batch)
{
	__shared__ struct wcx_batch_kind kind;
	__shared__ uint32_t found;
	constexpr bool differs = format_type::store != wcx_store::ELEMENTS;
	constexpr bool is_two = std::is_same_v<format_type, wcx_two_differences>;
	const uint32_t number = threadIdx.x / WCX_LANES;
	const uint32_t table_bytes = is_two ? WCX_COMPACT_ALL_BYTES : batch.launch.table_count * WCX_TABLE_BYTES;
	const uint32_t rings_at = table_bytes + (differs ? WCX_CONTEXTS_BYTES : 0);
	uint32_t *entries = (uint32_t *)wcx_shared, *contexts = entries + table_bytes / 4;
	struct wcx_warp warp = { batch, kind, wcx_shared_address(wcx_shared), contexts };
	uint32_t at = batch.blocks[blockIdx.x];

	static_assert(WCX_LEAST_WARPS * WCX_WARP_SHARED_BYTES >= WCX_CARRIER_TABLES_MAX * sizeof(struct wcx_batch_table),
		      "the first rings can stage the tables");
	wcx_let_next_launch_start();
	warp.ring += rings_at + number * (is_two ? 2 : 1) * WCX_WARP_SHARED_BYTES;
	wcx_keep(&warp.ring);
	while (wcx_load_next_kind(batch, &at, &found, &kind)) {
		if constexpr (differs)
			wcx_contexts_build(kind, is_two ? 0 : wcx_shared_address(wcx_shared),
					   is_two ? WCX_COMPACT_BYTES : WCX_TABLE_BYTES, contexts);
		if constexpr (is_two)
			wcx_compact_build(kind, batch.tables, (struct wcx_batch_table *)(entries + rings_at / 4),
					  (uint8_t *)entries);
		else if (kind.coded_count && !kind.has_sets)
			wcx_entries_build<1>(batch.tables + kind.coded[kind.coded_count - 1].table,
					     kind.coded[kind.coded_count - 1].table_count, format_type::numbers,
					     (struct wcx_batch_table *)(entries + rings_at / 4), entries);
		else
			__syncthreads();
		if (number >= batch.launch.block_warps)
			continue;
		if (wcx_kind_is_known(kind))
			wcx_decode_items<format_type, multi>(warp, at);
		else
			wcx_refuse_items(warp, at);
	}
	/* Launches of a batch overlap.  When the last one has completed, so have all, because one block of each waits. */
	if (blockIdx.x == 0)
		wcx_wait_for_last_launch();
}

#endif
