/* SPDX-License-Identifier: MIT */
/*
 * The kernels that decode tiles, one warp for each, and their launches.
 *
 * The host has checked the items; planes, payloads and exceptions are untrusted.  Items alone determine how often every loop
 * runs.  A warp stays converged: branches depend on values that are the same in all lanes, unless they contain no collective
 * operation.
 */
#include "cuda/tile_kernel.h"

#include <type_traits>

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
	const wcx_fast_tables tables;
	struct wcx_tail tail;
	struct wcx_payload payload;
	uint32_t line = 0;

	wcx_payload_open(warp, tile, field, tile.item.carrier, &payload);
	if constexpr (std::is_same_v<format_type, wcx_any_format<elem_bytes>>)
		wcx_payload_start(warp, tile, field, tile.item.carrier, &payload);
	else
		line = wcx_store_blocks<format_type, multi>(warp, tile, field, &payload);
	tail = wcx_tail_load(warp.kind, tile);
	wcx_store_coded_lines<elem_bytes>(warp, tile, field, tables, &payload, line);
	if (!wcx_word_reader_close(payload.reader, tile.item.plane_carried || tile.item.exceptions_carried))
		return false;
	if (tile.item.plane_carried)
		wcx_add_carried<elem_bytes>(warp.kind, tile, tail.unit, payload.reader.state);
	return wcx_store_exceptions<elem_bytes>(warp.kind, tile, tail, payload.reader.state);
}

/* Decodes the coded fields other than the carrier. */
template <uint32_t elem_bytes>
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
		wcx_store_coded_lines<elem_bytes>(warp, tile, field, tables, &payload, 0);
		if (!wcx_word_reader_close(payload.reader, false))
			return false;
	}
	return true;
}

template <typename format_type, bool multi>
static __device__ __forceinline__ bool wcx_decode_tile(const struct wcx_warp &warp, const struct wcx_tile_item &item)
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes;
	const wcx_device_tile tile = { item, warp.batch.src + item.src, warp.batch.dst + item.dst, item.elems,
				       WCX_DIV_UP(item.elems, wcx_elems_of_line<elem_bytes>) };

	if constexpr (std::is_same_v<format_type, wcx_any_format<elem_bytes>>) {
		if (warp.kind.coded_count == 0)
			wcx_store_raw_lines<elem_bytes>(warp.kind, tile);
		else if (!wcx_decode_carrier<format_type, multi>(warp, tile) || !wcx_decode_others<elem_bytes>(warp, tile))
			return false;
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

/* Whether these kernels can undo the kind's transform and predictor.  wcx_tile_parse has refused others before. */
static __device__ __forceinline__ bool wcx_kind_is_known(const struct wcx_batch_kind &kind)
{
	static_assert(WCX_TRANSFORM_COUNT == 3 && WCX_PREDICTOR_COUNT == 4,
		      "wcx_place_word and wcx_undo_predictor have them");
	return kind.transform < WCX_TRANSFORM_COUNT && kind.predictor < WCX_PREDICTOR_COUNT;
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
static constexpr bool wcx_has_small_blocks = std::is_same_v<format_type, wcx_pairs_format> && !multi;
template <typename format_type, bool multi>
static constexpr uint32_t wcx_most_warps =
	wcx_has_small_blocks<format_type, multi> ? WCX_PAIRS_BLOCK_WARPS : WCX_LARGE_BLOCK_WARPS;
template <typename format_type, bool multi>
static constexpr uint32_t wcx_least_blocks = wcx_has_small_blocks<format_type, multi> ? 2 : 1;

/* One launch.  Dynamic shared memory: the decoding tables of the block's current kind, then a ring for each warp. */
template <typename format_type, bool multi>
static __global__ void __launch_bounds__(wcx_most_warps<format_type, multi> *WCX_LANES, wcx_least_blocks<format_type, multi>)
	wcx_decode_tiles(const struct wcx_batch_dev batch)
{
	__shared__ struct wcx_batch_kind kind;
	__shared__ uint32_t found;
	const uint32_t number = threadIdx.x / WCX_LANES, table_bytes = batch.launch.table_count * WCX_TABLE_BYTES;
	uint32_t *entries = (uint32_t *)wcx_shared;
	struct wcx_warp warp = { batch, kind, wcx_shared_address(wcx_shared) };
	uint32_t at = batch.blocks[blockIdx.x];

	static_assert(WCX_WARP_SHARED_BYTES >= WCX_FIELD_TABLES_MAX * sizeof(struct wcx_batch_table),
		      "the first ring can stage the tables");
	wcx_let_next_launch_start();
	warp.ring += table_bytes + number * WCX_WARP_SHARED_BYTES;
	wcx_keep(&warp.ring);
	for (;;) {
		if (number == 0) {
			at = wcx_find_kind(batch, at);
			if (wcx_lane() == 0)
				found = at;
		}
		__syncthreads(); /* also: all warps are done with the last kind */
		at = found;
		if (at == WCX_NO_KIND)
			break;
		for (uint32_t i = threadIdx.x; i < sizeof kind / sizeof(uint32_t); i += blockDim.x)
			((uint32_t *)&kind)[i] = __ldg((const uint32_t *)(batch.kinds + at) + i);
		__syncthreads();
		if (kind.coded_count)
			wcx_entries_build(batch.tables + kind.coded[kind.coded_count - 1].table,
					  1u << kind.coded[kind.coded_count - 1].choice_bits,
					  (struct wcx_batch_table *)(entries + table_bytes / 4), entries);
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

/* --- Launches --- */

/* NULL for an unknown kernel, which makes the CUDA runtime report an error. */
template <bool multi> static const void *wcx_kernel_of(uint32_t kernel)
{
	static void (*const kernels[])(const struct wcx_batch_dev) = {
		/* in the order of enum wcx_tile_kernel */
		wcx_decode_tiles<wcx_any_format<1>, true>,           wcx_decode_tiles<wcx_any_format<2>, true>,
		wcx_decode_tiles<wcx_any_format<4>, true>,           wcx_decode_tiles<wcx_any_format<8>, true>,
		wcx_decode_tiles<wcx_pairs_format, multi>,           wcx_decode_tiles<wcx_bytes_format<0, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<1, false>, multi>, wcx_decode_tiles<wcx_bytes_format<2, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<3, false>, multi>, wcx_decode_tiles<wcx_bytes_format<4, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<1, true>, multi>,  wcx_decode_tiles<wcx_bytes_format<2, true>, multi>,
		wcx_decode_tiles<wcx_bytes_format<3, true>, multi>,  wcx_decode_tiles<wcx_bytes_format<4, true>, multi>,
		wcx_decode_tiles<wcx_halves_format<5>, multi>,       wcx_decode_tiles<wcx_halves_format<6>, multi>,
		wcx_decode_tiles<wcx_halves_format<7>, multi>,       wcx_decode_tiles<wcx_halves_format<8>, multi>,
		wcx_decode_tiles<wcx_halves_format<9>, multi>,       wcx_decode_tiles<wcx_half_pairs_format<8>, multi>,
		wcx_decode_tiles<wcx_half_pairs_format<11>, multi>,
	};

	static_assert(WCX_ARRAY_COUNT(kernels) == WCX_KERNEL_COUNT, "one for each");
	return kernel < WCX_KERNEL_COUNT ? (const void *)kernels[kernel] : NULL;
}

static const void *wcx_kernel(uint32_t kernel, uint32_t table_count)
{
	return table_count > 1 ? wcx_kernel_of<true>(kernel) : wcx_kernel_of<false>(kernel);
}

static uint32_t wcx_block_warps(const struct wcx_kernels *kernels, uint32_t kernel, uint32_t table_count)
{
	const uint32_t most = wcx_block_warps_max(kernel, table_count);
	const uint32_t fit = (kernels->shared_bytes - table_count * WCX_TABLE_BYTES) / WCX_WARP_SHARED_BYTES;

	return WCX_MIN(fit, most);
}

static uint32_t wcx_block_shared_bytes(const struct wcx_kernels *kernels, uint32_t kernel, uint32_t table_count)
{
	return table_count * WCX_TABLE_BYTES + wcx_block_warps(kernels, kernel, table_count) * WCX_WARP_SHARED_BYTES;
}

extern "C" cudaError_t wcx_kernels_open(struct wcx_kernels *ret)
{
	const uint32_t static_bytes = sizeof(struct wcx_batch_kind) + sizeof(uint32_t);
	struct cudaFuncAttributes attributes;
	int device, multiprocessors, shared_bytes;
	cudaError_t error = cudaGetDevice(&device);

	if (!error)
		error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
	if (!error)
		error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
	if (error)
		return error;
	if ((uint32_t)shared_bytes < static_bytes + WCX_FIELD_TABLES_MAX * WCX_TABLE_BYTES + WCX_WARP_SHARED_BYTES)
		return cudaErrorNoKernelImageForDevice;
	error = cudaFuncGetAttributes(&attributes, wcx_kernel(0, 1));
	if (error)
		return error;
	/* ptxVersion is the __CUDA_ARCH__ of the code, even if the driver compiled it for a newer device. */
	*ret = { 2 * (uint32_t)multiprocessors, (uint32_t)shared_bytes - static_bytes, attributes.ptxVersion >= 90 };
	for (uint32_t kernel = 0; kernel < WCX_KERNEL_COUNT && !error; kernel++)
		for (uint32_t table_count = 1; table_count <= WCX_FIELD_TABLES_MAX && !error;
		     table_count *= WCX_FIELD_TABLES_MAX)
			error = cudaFuncSetAttribute(wcx_kernel(kernel, table_count),
						     cudaFuncAttributeMaxDynamicSharedMemorySize,
						     (int)wcx_block_shared_bytes(ret, kernel, table_count));
	return error;
}

extern "C" cudaError_t wcx_kernels_decode(const struct wcx_kernels *kernels, const struct wcx_kernel_job *job,
					  cudaStream_t stream)
{
	const struct wcx_batch_layout *layout = job->layout;
	struct wcx_batch_dev batch;
	cudaLaunchAttribute early;
	cudaLaunchConfig_t config = {};
	cudaError_t error = cudaSuccess;

	early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
	early.val.programmaticStreamSerializationAllowed = 1;
	config.stream = stream;
	config.attrs = &early;
	batch.items = (const struct wcx_tile_item *)job->control;
	batch.places = (const struct wcx_payload_place *)(job->control + layout->places_offset);
	batch.kinds = (const struct wcx_batch_kind *)(job->control + layout->kinds_offset);
	batch.tables = (const struct wcx_batch_table *)(job->control + layout->tables_offset);
	batch.left = (int *)(job->control + layout->left_offset);
	batch.src = job->src;
	batch.dst = job->dst;
	batch.status = job->status;
	batch.mark = job->mark;
	batch.factors = { 1u << 20, 1u << 16 };
	for (uint32_t i = 0; i < layout->launch_count && !error; i++) {
		const struct wcx_batch_launch &launch = layout->launches[i];
		const uint32_t table_count = launch.table_count;
		void *arguments[] = { &batch };

		batch.blocks = (const uint32_t *)(job->control + layout->blocks_offset) + launch.first_block;
		batch.launch = launch;
		config.gridDim = dim3(launch.block_count);
		config.blockDim = dim3(wcx_block_warps(kernels, launch.kernel, table_count) * WCX_LANES);
		config.dynamicSmemBytes = wcx_block_shared_bytes(kernels, launch.kernel, table_count);
		config.numAttrs = i > 0 && kernels->overlap;
		error = cudaLaunchKernelExC(&config, wcx_kernel(launch.kernel, table_count), arguments);
	}
	return error;
}
