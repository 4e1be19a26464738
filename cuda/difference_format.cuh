/* SPDX-License-Identifier: MIT */
/*
 * Formats of differences with a kernel of their own: one symbol above raw bits that may be missing.  Whole blocks of lines
 * are decoded with the base's words, which are loaded a block ahead, and the difference is undone before they are stored.
 */
#ifndef WCX_DIFFERENCE_FORMAT_CUH
#define WCX_DIFFERENCE_FORMAT_CUH

#include "cuda/elem_format.cuh"

/* Anything that the format of files allows. */
template <uint32_t bytes> struct wcx_any_difference {
	static constexpr uint32_t elem_bytes = bytes;
	static constexpr wcx_store store = wcx_store::RESIDUALS;
	static constexpr bool is_any = true;
	static constexpr wcx_numbers numbers = wcx_numbers::SYMBOLS;
};

struct wcx_known_difference {
	static constexpr wcx_store store = wcx_store::DIFFERENCES;
	static constexpr bool is_any = false, may_be_predicted = false;
};

/* A decoding table by its shared address. */
struct wcx_table_at {
	uint32_t address, k4; /* k4: of struct wcx_factors */

	__device__ __forceinline__ uint32_t entry(uint32_t state) const
	{
		return wcx_shared_u32(state % WCX_PROB_SCALE * k4 + address);
	}
};

/* Bytes: one symbol.  In either order. */
struct wcx_byte_differences : wcx_known_difference {
	static constexpr uint32_t elem_bytes = 1, steps = 4, raw_bits = 0;
	static constexpr wcx_numbers numbers = wcx_numbers::DISTANCES;
	uint32_t order;

	__device__ __forceinline__ wcx_byte_differences(const struct wcx_batch_kind &kind)
	    : order(wcx_order_mask<1>(kind.difference))
	{
	}

	/* The key of an element in each byte. */
	__device__ __forceinline__ uint32_t keys(uint32_t base) const
	{
		return (base ^ (wcx_elem_signs<1>(base) & ~order)) & 0x7F7F7F7F;
	}

	__device__ __forceinline__ uint32_t key(uint32_t keys, uint32_t number) const
	{
		return __byte_perm(keys, 0, 0x4440 + number);
	}

	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t, uint32_t, uint32_t base,
						 const struct wcx_factors &) const
	{
		const uint32_t even = wcx_join_entries(entry[0], entry[2]), odd = wcx_join_entries(entry[1], entry[3]);
		const uint32_t d = wcx_select_bits(0x00FF00FF, even >> 4, odd << 4);

		return wcx_order<1>(wcx_add_elems<1>(wcx_order<1>(base, order), d), order);
	}
};

/* Bytes in the order of integers: pairs. */
struct wcx_byte_pair_differences : wcx_known_difference {
	static constexpr uint32_t elem_bytes = 1, steps = 2, raw_bits = 0;
	static constexpr wcx_numbers numbers = wcx_numbers::DISTANCE_PAIRS;

	__device__ __forceinline__ wcx_byte_pair_differences(const struct wcx_batch_kind &)
	{
	}

	/* There is one table. */
	__device__ __forceinline__ uint32_t keys(uint32_t) const
	{
		return 0;
	}

	__device__ __forceinline__ uint32_t key(uint32_t, uint32_t) const
	{
		return 0;
	}

	/*
	 * Adds to the even elements and to the odd ones apart.  The bytes between them are not 0, so that nothing is carried
	 * or borrowed beyond them.
	 */
	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t, uint32_t, uint32_t base,
						 const struct wcx_factors &) const
	{
		constexpr uint32_t even = 0x00FF00FF, halves = 0x000F000F, guards = 0x00800080;
		const uint32_t plus_8 = wcx_join_entries(entry[0], entry[1]);
		const uint32_t low = (base & even) + (plus_8 >> 4 & halves) + ((guards << 8) - 0x00080008);
		const uint32_t high = (base & ~even) + (plus_8 & halves << 8) + (guards - 0x08000800);

		return wcx_select_bits(even, low, high);
	}
};

/* Two bytes, in the order of floats: one symbol above `raw` raw bits. */
template <uint32_t raw> struct wcx_half_differences : wcx_known_difference {
	static constexpr uint32_t elem_bytes = 2, steps = 2, raw_bits = raw;
	static constexpr wcx_numbers numbers = raw == 0 ? wcx_numbers::DISTANCES : wcx_numbers::SYMBOLS;

	__device__ __forceinline__ wcx_half_differences(const struct wcx_batch_kind &)
	{
	}

	/* The key of an element in the second and the fourth byte. */
	__device__ __forceinline__ uint32_t keys(uint32_t base) const
	{
		return base << 1;
	}

	__device__ __forceinline__ uint32_t key(uint32_t keys, uint32_t number) const
	{
		return __byte_perm(keys, 0, 0x4441 + 2 * number);
	}

	/* A shift by a constant is a product, as those of a step. */
	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t raw_word, uint32_t raw_mask,
						 uint32_t base, const struct wcx_factors &factors) const
	{
		constexpr uint32_t order = 0x7FFF7FFF;

		if constexpr (raw == 0) {
			const uint32_t distances = wcx_signed_top_bytes(entry[0] * factors.k12, entry[1] * factors.k12);

			return wcx_order<2>(__vadd2(wcx_order<2>(base, order), distances), order);
		}
		const uint32_t symbols = wcx_join_entries(entry[0], entry[1]) & 0x0FF00FF0;
		const uint32_t residuals = raw < 4 ? symbols >> (4 - raw) : symbols << (raw - 4);

		return wcx_undo_difference<2>(base, wcx_select_bits(raw_mask, raw_word, residuals), order);
	}
};

/* The lane's words of a base in device memory, which are loaded a block of lines ahead. */
template <uint32_t lines> struct wcx_base_ahead {
	const uint32_t *from;
	uint32_t ahead[lines];

	/* Starts to load the first block, if there is one. */
	__device__ __forceinline__ wcx_base_ahead(const wcx_device_tile &tile, bool has_block)
	    : from((const uint32_t *)tile.base + wcx_lane()), ahead{}
	{
		if (has_block)
			load();
	}

	/* Takes the words of a block, and starts to load the next one if there is one. */
	__device__ __forceinline__ void take(uint32_t word[lines], bool has_next)
	{
#pragma unroll
		for (uint32_t i = 0; i < lines; i++)
			word[i] = ahead[i];
		from += lines * WCX_LANES;
		if (has_next)
			load();
	}

      private:
	__device__ __forceinline__ void load(void)
	{
#pragma unroll
		for (uint32_t i = 0; i < lines; i++)
			ahead[i] = from[i * WCX_LANES];
	}
};

/* Finds the tables of a word's symbols. */
template <typename format_type, bool multi>
static __device__ __forceinline__ void wcx_find_tables(const format_type &format, const struct wcx_warp &warp,
						       uint32_t contexts, uint32_t base,
						       wcx_table_at tables[format_type::steps])
{
	const uint32_t keys = multi ? format.keys(base) : 0, k4 = warp.batch.factors.k4;

#pragma unroll
	for (uint32_t k = 0; k < format_type::steps; k++)
		tables[k] = { multi ? wcx_shared_u32(format.key(keys, k) * k4 + contexts) : wcx_shared_address(wcx_shared),
			      k4 };
}

/* Starts an opened payload and decodes the tile's whole blocks; returns the number of their lines. */
template <typename format_type, bool multi>
static __device__ __forceinline__ uint32_t wcx_store_difference_blocks(const struct wcx_warp &warp,
								       const wcx_device_tile &tile,
								       const struct wcx_batch_field &field,
								       struct wcx_payload *payload)
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes, steps = format_type::steps;
	constexpr uint32_t lines = WCX_BLOCK_STEPS / steps, line_elems = wcx_elems_of_line<elem_bytes>;
	const uint32_t end = tile.elems / (lines * line_elems) * lines;
	const struct wcx_factors factors = warp.batch.factors;
	const uint32_t contexts = wcx_shared_address(warp.contexts);
	const format_type format(warp.kind);
	uint32_t *dst = (uint32_t *)tile.dst + wcx_lane();
	wcx_low_planes<format_type::raw_bits, wcx_elems_of_word<elem_bytes>, lines> planes;

	planes.open(warp.kind, tile, tile.src + tile.item.planes, 0);
	const uint32_t raw_mask = planes.masks();

	planes.load(0);
	wcx_base_ahead<lines> base(tile, end != 0);

	wcx_payload_start(warp, tile, field, tile.item.carrier, payload);
	for (uint32_t line = 0; line < end; line += lines) {
		uint32_t own[lines];
		wcx_table_at tables[2][steps];

		base.take(own, line + lines < end);
		wcx_find_tables<format_type, multi>(format, warp, contexts, own[0], tables[0]);
		planes.take();
		planes.load(line + lines);
		wcx_word_reader_refill(&payload->reader);
#pragma unroll
		for (uint32_t i = 0; i < lines; i++) {
			uint32_t entry[steps];

			if (i + 1 < lines) /* ahead of the steps, which depend on each other */
				wcx_find_tables<format_type, multi>(format, warp, contexts, own[i + 1], tables[(i + 1) % 2]);
#pragma unroll
			for (uint32_t k = 0; k < steps; k++)
				entry[k] = wcx_rans_step<false>(&payload->reader, tables[i % 2][k], true, factors);
			dst[i * WCX_LANES] = format.word(entry, planes.word(i), raw_mask, own[i], factors);
		}
		dst += lines * WCX_LANES;
	}
	return end;
}

#endif
