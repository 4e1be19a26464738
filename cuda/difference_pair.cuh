/* SPDX-License-Identifier: MIT */
/*
 * Differences of two-byte floats with two coded fields, which a warp decodes at once.
 *
 * Both have a table for each context: too many for tables with an entry for each slot.  A compact table has the symbol of
 * each slot in a byte, and frequency and start of each symbol.
 */
#ifndef WCX_DIFFERENCE_PAIR_CUH
#define WCX_DIFFERENCE_PAIR_CUH

#include "cuda/difference_format.cuh"
#include "cuda/tile_tail.cuh"

enum {
	WCX_COMPACT_BYTES = WCX_PROB_SCALE + WCX_SYMBOL_COUNT * 8,
	WCX_COMPACT_ALL_BYTES = 2 * WCX_CONTEXTS_MAX * WCX_COMPACT_BYTES, /* of both fields */
};

struct wcx_two_differences : wcx_known_difference {
	static constexpr uint32_t elem_bytes = 2;
	static constexpr wcx_numbers numbers = wcx_numbers::SYMBOLS;
};

static __device__ __forceinline__ uint32_t wcx_shared_u8(uint32_t address)
{
	uint32_t value;

	asm volatile("ld.shared.u8 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
	return value;
}

/* Builds the tables of both fields for each context, with all threads of the block; staging has space for all of them. */
static __device__ void wcx_compact_build(const struct wcx_batch_kind &kind, const struct wcx_batch_table *tables,
					 struct wcx_batch_table *staging, uint8_t *compact)
{
	const uint32_t warp = threadIdx.x / WCX_LANES, warps = blockDim.x / WCX_LANES;
	const uint32_t table_words = sizeof *tables / sizeof(uint32_t);

	for (uint32_t i = threadIdx.x; i < 2 * WCX_CONTEXTS_MAX * table_words; i += blockDim.x) {
		const uint32_t number = i / table_words, context = number % WCX_CONTEXTS_MAX;
		const struct wcx_batch_field &field = kind.coded[number / WCX_CONTEXTS_MAX];
		const struct wcx_batch_table *from = tables + field.table + min(context, field.table_count - 1u);

		((uint32_t *)staging)[i] = __ldg((const uint32_t *)from + i % table_words);
	}
	__syncthreads();
	for (uint32_t i = warp; i < 2 * WCX_CONTEXTS_MAX * WCX_SYMBOL_COUNT; i += warps) {
		const uint32_t table = i / WCX_SYMBOL_COUNT, symbol = i % WCX_SYMBOL_COUNT;
		const uint32_t start = staging[table].start[symbol], end = staging[table].start[symbol + 1];
		uint8_t *to = compact + table * WCX_COMPACT_BYTES;

		for (uint32_t slot = start + wcx_lane(); slot < end; slot += WCX_LANES)
			to[slot] = (uint8_t)symbol;
		if (wcx_lane() == 0)
			((uint2 *)(to + WCX_PROB_SCALE))[symbol] = make_uint2(end - start, 0 - start);
	}
	__syncthreads();
}

/* A step as wcx_rans_step, with a compact table; returns the symbol. */
template <bool partial>
static __device__ __forceinline__ uint32_t wcx_compact_step(struct wcx_word_reader *reader, uint32_t table, bool active,
							    const struct wcx_factors &factors)
{
	const uint32_t slot = reader->state % WCX_PROB_SCALE;
	const uint32_t symbol = wcx_shared_u8(table + slot);
	const uint2 of = wcx_shared_u64(symbol * 8 + table + WCX_PROB_SCALE);
	const uint32_t state = of.x * wcx_multiply_high(reader->state, factors.k20) + (slot + of.y);

	wcx_take_word<partial>(reader, state, state < WCX_RANS_LOW, active, factors);
	return symbol;
}

/* Decodes lines [line, end), whole ones unless partial.  Line `end` may be beyond the tile. */
template <bool partial, uint32_t lines>
static __device__ __forceinline__ void wcx_two_lines(const struct wcx_warp &warp, const wcx_device_tile &tile, uint32_t line,
						     const uint32_t base[lines], struct wcx_payload payloads[2])
{
	constexpr uint32_t order = 0x7FFF7FFF;
	const struct wcx_factors factors = warp.batch.factors;
	const uint32_t shift = warp.kind.coded[1].shift, contexts = wcx_shared_address(warp.contexts);
	const uint32_t tables = wcx_shared_address(wcx_shared);

#pragma unroll
	for (uint32_t i = 0; i < lines; i++) {
		const uint32_t elems = partial ? wcx_word_elems_at<2>(tile.elems, line + i) : 2;
		const uint32_t keys = base[i] << 1;
		uint32_t residuals = 0;

#pragma unroll
		for (uint32_t k = 0; k < 2; k++) {
			const uint32_t key = __byte_perm(keys, 0, 0x4441 + 2 * k);
			const uint32_t table = tables + wcx_shared_u32(key * factors.k4 + contexts);
			const uint32_t low = wcx_compact_step<partial>(&payloads[0].reader, table, k < elems, factors);
			const uint32_t high = wcx_compact_step<partial>(
				&payloads[1].reader, table + WCX_CONTEXTS_MAX * WCX_COMPACT_BYTES, k < elems, factors);

			residuals |= (low | high << shift) << 16 * k;
		}
		wcx_store_word<2, false>(wcx_word_at<2>(tile.dst, line + i), elems,
					 wcx_undo_difference<2>(base[i], residuals, order));
	}
}

static __device__ __forceinline__ bool wcx_decode_two(const struct wcx_warp &warp, const wcx_device_tile &tile)
{
	constexpr uint32_t lines = WCX_BLOCK_STEPS / 2, line_elems = wcx_elems_of_line<2>;
	const uint32_t end = tile.elems / (lines * line_elems) * lines;
	const struct wcx_payload_place &other = warp.batch.places[tile.item.others];
	const struct wcx_warp second = { warp.batch, warp.kind, warp.ring + WCX_WARP_SHARED_BYTES, warp.contexts };
	struct wcx_payload payloads[2];
	uint32_t line = 0;

	wcx_payload_open(warp, tile, warp.kind.coded[0], other, &payloads[0]);
	wcx_payload_open(second, tile, warp.kind.coded[1], tile.item.carrier, &payloads[1]);
	wcx_base_ahead<lines> base(tile, end != 0);

	wcx_payload_start(warp, tile, warp.kind.coded[0], other, &payloads[0]);
	wcx_payload_start(second, tile, warp.kind.coded[1], tile.item.carrier, &payloads[1]);
	for (; line < end; line += lines) {
		uint32_t own[lines];

		base.take(own, line + lines < end);
		wcx_word_reader_refill(&payloads[0].reader);
		wcx_word_reader_refill(&payloads[1].reader);
		wcx_two_lines<false, lines>(warp, tile, line, own, payloads);
	}
	const struct wcx_tail tail = wcx_tail_load(warp.kind, tile);

	for (; line < tile.lines; line++) {
		const uint32_t own[1] = { wcx_base_word<2>(tile, line, wcx_word_elems_at<2>(tile.elems, line)) };

		wcx_word_reader_refill(&payloads[0].reader);
		wcx_word_reader_refill(&payloads[1].reader);
		wcx_two_lines<true, 1>(warp, tile, line, own, payloads);
	}
	const bool valid = wcx_word_reader_close(payloads[0].reader, false);

	return wcx_word_reader_close(payloads[1].reader, tile.item.exceptions_carried) && valid &&
	       wcx_store_exceptions<2, wcx_store::DIFFERENCES>(warp.kind, tile, tail, payloads[1].reader.state);
}

#endif
