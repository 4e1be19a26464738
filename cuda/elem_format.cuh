/* SPDX-License-Identifier: MIT */
/*
 * Element formats with a kernel of their own: the carrier has the highest bits of an element, and all lower bits are raw.
 * Whole blocks of lines are decoded with widths and shifts that the compiler knows; docs/gpu.md explains the method.
 */
#ifndef WCX_ELEM_FORMAT_CUH
#define WCX_ELEM_FORMAT_CUH

#include "cuda/tile_lines.cuh"

/* The planes of a raw field of `bits` bits, for blocks of lines: one plane for each bit that is set in `bits`. */
template <uint32_t bits, uint32_t word_elems, uint32_t block_lines> struct wcx_low_planes {
	static constexpr uint32_t width = bits >= 16 ? 16 : bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
	static constexpr uint32_t unit_lines = 32 / (width * word_elems);
	static constexpr uint32_t unit_count = WCX_MAX(block_lines / unit_lines, 1);
	static_assert(unit_count * WCX_PLANE_UNIT_BYTES + WCX_CARRIED_BYTES <=
			      (int)WCX_BATCH_SRC_SLACK + (int)WCX_RANS_STATES_MIN_BYTES,
		      "loads behind the last block stay within the tile or the batch");
	const uint32_t *units; /* the lane's words of the units to be loaded next */
	uint32_t mask;
	uint32_t unit[unit_count], ahead[unit_count];
	wcx_low_planes<bits - width, word_elems, block_lines> upper;

	__device__ __forceinline__ void open(const struct wcx_batch_kind &kind, const wcx_device_tile &tile,
					     const uint8_t *planes, uint32_t p)
	{
		units = (const uint32_t *)planes + wcx_lane();
		mask = (uint32_t)kind.planes[p].mask;
		upper.open(kind, tile, planes + WCX_DIV_UP(tile.lines, unit_lines) * WCX_PLANE_UNIT_BYTES, p + 1);
	}

	/* Starts to load the units of the next block, whose first line is given. */
	__device__ __forceinline__ void load(uint32_t line)
	{
		load_own(line);
		upper.load(line);
	}

	/* Makes the loaded block the current one. */
	__device__ __forceinline__ void take(void)
	{
		take_own();
		upper.take();
	}

	/*
	 * Instead of both, where registers are scarce: begin() starts to load the first half of the first block.  half(0),
	 * when a line or more of a block have been decoded, loads its other half, and half(1), that long after the middle,
	 * the first half of the next block.
	 */
	__device__ __forceinline__ void begin(void)
	{
		half_of_units(0);
		upper.begin();
	}

	__device__ __forceinline__ void half(uint32_t number)
	{
		units += number ? unit_count * WCX_LANES : 0;
		half_of_units(1 - number);
		upper.half(number);
	}

	/* The raw bits of line i of the current block.  Bits outside masks() are undefined. */
	__device__ __forceinline__ uint32_t word(uint32_t i) const
	{
		const uint32_t own = wcx_rotate_right32(unit[i / unit_lines], i % unit_lines * width);

		return bits == width ? own : wcx_select_bits(mask, own, upper.word(i));
	}

	__device__ __forceinline__ uint32_t masks(void) const
	{
		return mask | upper.masks();
	}

      private:
	__device__ __forceinline__ void load_own(uint32_t line)
	{
#pragma unroll
		for (uint32_t i = 0; i < unit_count; i++)
			ahead[i] = __ldg(units + i * WCX_LANES);
		if (unit_lines <= block_lines) {
			units += unit_count * WCX_LANES;
		} else {
			ahead[0] = wcx_rotate_right32(ahead[0], line % unit_lines * width);
			units += (line + block_lines) % unit_lines ? 0 : WCX_LANES;
		}
	}

	__device__ __forceinline__ void half_of_units(uint32_t number)
	{
		static_assert(unit_count % 2 == 0, "no unit has bits of both halves");
#pragma unroll
		for (uint32_t i = number * unit_count / 2; i < (number + 1) * unit_count / 2; i++)
			unit[i] = __ldg(units + i * WCX_LANES);
	}

	__device__ __forceinline__ void take_own(void)
	{
#pragma unroll
		for (uint32_t i = 0; i < unit_count; i++)
			unit[i] = ahead[i];
	}
};

template <uint32_t word_elems, uint32_t block_lines> struct wcx_low_planes<0, word_elems, block_lines> {
	__device__ __forceinline__ void open(const struct wcx_batch_kind &, const wcx_device_tile &, const uint8_t *,
					     uint32_t)
	{
	}
	__device__ __forceinline__ void load(uint32_t)
	{
	}
	__device__ __forceinline__ void take(void)
	{
	}
	__device__ __forceinline__ void begin(void)
	{
	}
	__device__ __forceinline__ void half(uint32_t)
	{
	}
	__device__ __forceinline__ uint32_t word(uint32_t) const
	{
		return 0;
	}
	__device__ __forceinline__ uint32_t masks(void) const
	{
		return 0;
	}
};

/*
 * A format's word() combines the entries of a line.  Joining two entries leaves their symbols at bits 4 to 11 and 20 to 27,
 * with unrelated bits beside them.  word() clears these, except where raw bits replace them anyway.
 */
static __device__ __forceinline__ uint32_t wcx_join_entries(uint32_t first, uint32_t second)
{
	return __byte_perm(first, second, 0x6521);
}

/* Anything that the format of files allows. */
template <uint32_t bytes> struct wcx_any_format {
	static constexpr uint32_t elem_bytes = bytes;
	static constexpr wcx_store store = wcx_store::ELEMENTS;
	static constexpr bool is_any = true;
	static constexpr wcx_numbers numbers = wcx_numbers::SYMBOLS;
};

/* Any format with a kernel of its own. */
struct wcx_known_format {
	static constexpr wcx_store store = wcx_store::ELEMENTS;
	static constexpr bool is_any = false;
	static constexpr wcx_numbers numbers = wcx_numbers::SYMBOLS;
};

/* Bytes, folded: pairs of four bits above four raw bits. */
struct wcx_pairs_format : wcx_known_format {
	static constexpr uint32_t elem_bytes = 1, steps = 2, raw_bits = 4;
	static constexpr bool may_be_predicted = false;

	__device__ __forceinline__ wcx_pairs_format(const struct wcx_batch_kind &)
	{
	}

	/* All bits beside the symbols are raw. */
	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t raw) const
	{
		const uint32_t symbols = wcx_join_entries(entry[0], entry[1]), signs = wcx_spread_signs(raw);

		return wcx_select_bits(0x00FF00FF, symbols >> 1, symbols << 3) ^ signs;
	}
};

/* Bytes: one symbol above `raw` raw bits. */
template <uint32_t raw, bool folds> struct wcx_bytes_format : wcx_known_format {
	static constexpr uint32_t elem_bytes = 1, steps = 4, raw_bits = raw;
	static constexpr bool may_be_predicted = !folds;
	uint32_t right, left;

	__device__ __forceinline__ wcx_bytes_format(const struct wcx_batch_kind &kind)
	{
		const uint32_t shift = raw_bits - (kind.transform != WCX_TRANSFORM_NONE);

		right = 4 - shift;
		left = 4 + shift;
	}

	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t raw_word) const
	{
		const uint32_t even = wcx_join_entries(entry[0], entry[2]), odd = wcx_join_entries(entry[1], entry[3]);
		const uint32_t symbols = wcx_select_bits(0x00FF00FF, even >> right, odd << left);

		return folds ? symbols ^ wcx_spread_signs(raw_word) : symbols;
	}
};

/* Two bytes, rotated: one symbol above `raw` raw bits. */
template <uint32_t raw> struct wcx_halves_format : wcx_known_format {
	static constexpr uint32_t elem_bytes = 2, steps = 2, raw_bits = raw;
	static constexpr bool may_be_predicted = false;
	uint32_t factor, base;

	__device__ __forceinline__ wcx_halves_format(const struct wcx_batch_kind &kind)
	{
		const uint32_t shift = kind.coded[0].shift - 1;

		factor = 1u << (shift - 4);
		base = (uint32_t)kind.coded[0].base * 0x00010001u << shift;
	}

	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t) const
	{
		return (wcx_join_entries(entry[0], entry[1]) & 0x0FF00FF0) * factor + base;
	}
};

/* Two bytes, rotated: pairs of four bits, whose halves count from the base on, above `raw` raw bits. */
template <uint32_t raw> struct wcx_half_pairs_format : wcx_known_format {
	static constexpr uint32_t elem_bytes = 2, steps = 1, raw_bits = raw;
	static constexpr uint32_t shift = raw - 1;
	static constexpr bool may_be_predicted = false;
	uint32_t factor, base;

	__device__ __forceinline__ wcx_half_pairs_format(const struct wcx_batch_kind &kind)
	{
		factor = 1u << (kind.coded[0].shift - 1);
		wcx_keep(&factor);
		base = (uint32_t)kind.coded[0].base * 0x00010001u << shift;
	}

	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t) const
	{
		const uint32_t halves = wcx_select_bits(0x0000FFFF, entry[0] >> (WCX_PROB_BITS - shift), entry[0] * factor);

		return (halves & 0x000F000Fu << shift) + base;
	}
};

/* Four bytes, rotated: one symbol above `raw` raw bits. */
template <uint32_t raw> struct wcx_singles_format : wcx_known_format {
	static constexpr uint32_t elem_bytes = 4, steps = 1, raw_bits = raw;
	static constexpr uint32_t shift = raw - 1;
	static constexpr bool may_be_predicted = false;
	uint32_t base;

	__device__ __forceinline__ wcx_singles_format(const struct wcx_batch_kind &kind)
	{
		base = (uint32_t)kind.coded[0].base << shift;
	}

	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t) const
	{
		return ((entry[0] & 0xFFu << WCX_PROB_BITS) << (shift - WCX_PROB_BITS)) + base;
	}
};

/* Starts an opened payload and decodes the tile's whole blocks; returns the number of their lines. */
template <typename format_type, bool multi>
static __device__ __forceinline__ uint32_t wcx_store_blocks(const struct wcx_warp &warp, const wcx_device_tile &tile,
							    const struct wcx_batch_field &field, struct wcx_payload *payload)
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes;
	constexpr uint32_t lines = WCX_BLOCK_STEPS / format_type::steps, line_elems = wcx_elems_of_line<elem_bytes>;
	const uint32_t end = tile.elems / (lines * line_elems) * lines;
	const struct wcx_factors factors = warp.batch.factors;
	const format_type format(warp.kind);
	uint32_t *dst = (uint32_t *)tile.dst + wcx_lane();
	wcx_low_planes<format_type::raw_bits, wcx_elems_of_word<elem_bytes>, lines> planes;

	planes.open(warp.kind, tile, tile.src + tile.item.planes, 0);
	const uint32_t raw_mask = planes.masks();

	planes.load(0);
	wcx_payload_start(warp, tile, field, tile.item.carrier, payload);
	for (uint32_t line = 0; line < end; line += lines) {
		const uint32_t chosen = multi ? payload->choices.from(line * line_elems / WCX_RUN_ELEMS) : 0;

		planes.take();
		planes.load(line + lines);
		wcx_word_reader_refill(&payload->reader);
#pragma unroll
		for (uint32_t i = 0; i < lines; i++) {
			const uint32_t group = i * line_elems / WCX_RUN_ELEMS;
			const wcx_fast_table table = { multi ? (chosen >> 2 * group & 3) * WCX_PROB_SCALE : 0 };
			const uint32_t raw = planes.word(i);
			uint32_t entry[format_type::steps];

#pragma unroll
			for (uint32_t k = 0; k < format_type::steps; k++)
				entry[k] = wcx_rans_step<false>(&payload->reader, table, true, factors);
			dst[i * WCX_LANES] = wcx_select_bits(raw_mask, raw, format.word(entry, raw));
		}
		dst += lines * WCX_LANES;
	}
	return end;
}

#endif
