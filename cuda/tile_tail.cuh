/* SPDX-License-Identifier: MIT */
/* The end of a tile: bytes that the carrier's final states hold, and exceptions. */
#ifndef WCX_TILE_TAIL_CUH
#define WCX_TILE_TAIL_CUH

#include "cuda/tile_lines.cuh"

/* Loaded before the final states are known, because loads take long. */
struct wcx_tail {
	uint32_t unit;                      /* the lane's own word of the last unit of the last plane, as read */
	uint32_t stored;                    /* halves (two bytes) of the exceptions that the tile stores */
	uint32_t position_half, value_half; /* of exception number `lane`, if stored */
};

/* A half of the exceptions; 0 if it is not stored, because a final state carries it or it does not exist. */
static __device__ __forceinline__ uint32_t wcx_exception_half(const wcx_device_tile &tile, uint32_t stored, uint32_t number)
{
	return number < stored ? __ldg((const uint16_t *)(tile.src + tile.item.exceptions) + number) : 0;
}

static __device__ __forceinline__ struct wcx_tail wcx_tail_load(const struct wcx_batch_kind &kind,
								const wcx_device_tile &tile)
{
	const uint32_t count = tile.item.exception_count, width = kind.coded[kind.coded_count - 1].width;
	const uint32_t halves = (width > 8 ? count * 4 : count * 3 + 1) / 2;
	struct wcx_tail ret = { 0, halves - (tile.item.exceptions_carried ? WCX_CARRIED_BYTES / 2 : 0), 0, 0 };

	if (tile.item.plane_carried) {
		uint32_t units = 0;

		for (uint32_t p = 0; p < kind.plane_count; p++)
			units += wcx_units(kind.planes[p], tile.lines);
		ret.unit = __ldg((const uint32_t *)(tile.src + tile.item.planes) + (units - 1) * WCX_LANES + wcx_lane());
	}
	if (count) {
		ret.position_half = wcx_exception_half(tile, ret.stored, wcx_lane());
		ret.value_half = wcx_exception_half(tile, ret.stored, count + (width > 8 ? wcx_lane() : wcx_lane() / 2));
	}
	return ret;
}

/* Clears and then inverts bits of the residual of an element that is stored. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ void wcx_change_residual(const struct wcx_batch_kind &kind, const wcx_device_tile &tile,
							   uint32_t number, wcx_elem<elem_bytes> clear,
							   wcx_elem<elem_bytes> invert)
{
	const wcx_word<elem_bytes> order = wcx_order_mask<elem_bytes>(kind.difference);
	const wcx_word<elem_bytes> base = ((const wcx_elem<elem_bytes> *)tile.base)[number];
	wcx_elem<elem_bytes> *dst = (wcx_elem<elem_bytes> *)tile.dst + number;
	const wcx_word<elem_bytes> residual = wcx_make_difference<elem_bytes>(base, *dst, order);

	*dst = (wcx_elem<elem_bytes>)wcx_undo_difference<elem_bytes>(
		base, (residual & (wcx_word<elem_bytes>)~(wcx_word<elem_bytes>)clear) ^ invert, order);
}

/* How a word of the last plane's last unit differs, in lanes 16 to 31, from what was read in its place: two of the final
 * states make a word. */
static __device__ __forceinline__ uint32_t wcx_carried_difference(uint32_t unit, uint32_t state)
{
	const uint32_t low = __shfl_sync(WCX_ALL_LANES, state, wcx_lane() * 2);
	const uint32_t high = __shfl_sync(WCX_ALL_LANES, state, wcx_lane() * 2 + 1);

	return unit ^ __byte_perm(low, high, 0x5410);
}

/*
 * Corrects the elements of the last plane's last unit.  The tile lacks its upper half, so that other bytes were read in its
 * place; it is in the final states.
 */
template <uint32_t elem_bytes, wcx_store store>
static __device__ void wcx_add_carried(const struct wcx_batch_kind &kind, const wcx_device_tile &tile, uint32_t unit,
				       uint32_t state)
{
	const struct wcx_batch_plane &plane = kind.planes[kind.plane_count - 1];
	const uint32_t wrong = wcx_carried_difference(unit, state);

	if (wcx_lane() < WCX_LANES / 2)
		return;
	for (uint32_t line = (wcx_units(plane, tile.lines) - 1) << plane.unit_bits; line < tile.lines; line++) {
		const uint32_t elems = wcx_word_elems_at<elem_bytes>(tile.elems, line);
		const wcx_word<elem_bytes> bits = wcx_plane_word<elem_bytes>(plane, wrong, line);

		if constexpr (store == wcx_store::DIFFERENCES)
			for (uint32_t k = 0; k < elems; k++)
				wcx_change_residual<elem_bytes>(
					kind, tile, (line * WCX_LANES + wcx_lane()) * wcx_elems_of_word<elem_bytes> + k, 0,
					(wcx_elem<elem_bytes>)(bits >> k * 8 * elem_bytes % 32));
		else
			wcx_store_word<elem_bytes, true>(wcx_word_at<elem_bytes>(tile.dst, line), elems,
							 wcx_fold_word<elem_bytes>(kind, bits));
	}
}

/* Replaces the carrier's bits of all exceptions, a warp of them at a time; false if they are damaged. */
template <uint32_t elem_bytes, wcx_store store>
static __device__ bool wcx_store_exceptions(const struct wcx_batch_kind &kind, const wcx_device_tile &tile,
					    const struct wcx_tail &tail, uint32_t state)
{
	using elem = wcx_elem<elem_bytes>;
	const struct wcx_batch_field &field = kind.coded[kind.coded_count - 1];
	const uint32_t count = tile.item.exception_count, width = field.width;
	uint32_t position_half = tail.position_half, value_half = tail.value_half;
	const auto stored_or_carried = [&](uint32_t half, uint32_t number) -> uint32_t {
		const uint32_t carried = __shfl_sync(WCX_ALL_LANES, state & 0xFFFF, number - tail.stored);

		return number < tail.stored ? half : carried;
	};
	const auto place = [&](uint32_t bits) -> elem {
		return (elem)wcx_place_word<elem_bytes>(kind.transform, (wcx_word<elem_bytes>)bits << field.shift);
	};
	const elem mask = place((1u << width) - 1);
	elem *dst = (elem *)tile.dst;
	uint32_t after = 0; /* lower bound of the first lane's position */

	__syncwarp(); /* other lanes have stored the elements */
	for (uint32_t first = 0; first < count; first += WCX_LANES) {
		const uint32_t i = first + wcx_lane(), value_number = count + (width > 8 ? i : i / 2);
		const uint32_t position = stored_or_carried(position_half, i);
		const uint32_t half = stored_or_carried(value_half, value_number);
		const uint32_t value = width > 8 ? half : half >> 8 * (i % 2) & 0xFF;
		const uint32_t before = __shfl_up_sync(WCX_ALL_LANES, position, 1);
		const uint32_t least = wcx_lane() == 0 ? after : before + 1;
		const bool valid = position >= least && position < tile.elems && value >> width == 0;

		if (!__all_sync(WCX_ALL_LANES, i >= count || valid))
			return false;
		position_half = wcx_exception_half(tile, tail.stored, i + WCX_LANES);
		value_half = wcx_exception_half(tile, tail.stored, value_number + WCX_LANES / (width > 8 ? 1 : 2));
		if constexpr (store == wcx_store::DIFFERENCES) {
			if (i < count)
				wcx_change_residual<elem_bytes>(kind, tile, position, mask, place(value));
		} else if (i < count) {
			const elem old = dst[position];
			const elem sign = old & (elem)((elem)1 << (8 * elem_bytes - 1));
			const elem folded = sign ? (elem)kind.fold_mask : 0;

			dst[position] = (elem)((old & ~mask) | ((place(value) ^ folded) & mask));
		}
		after = __shfl_sync(WCX_ALL_LANES, position, WCX_LANES - 1) + 1;
	}
	return true;
}

#endif
