/* SPDX-License-Identifier: MIT */
/*
 * Lines of a tile, for any element format: words of elements put together from planes, constants and symbols.
 *
 * The parts of an element occupy different bits, and FOLD only inverts bits of the word it reads the sign from.  Parts are
 * therefore combined with exclusive or, in any order, and corrected the same way (tile_tail.cuh).
 */
#ifndef WCX_TILE_LINES_CUH
#define WCX_TILE_LINES_CUH

#include <type_traits>

#include "cuda/elem_difference.cuh"
#include "cuda/warp_rans.cuh"

/* A batch in device memory: the argument of the kernels. */
struct wcx_batch_dev {
	const struct wcx_tile_item *items;
	const struct wcx_payload_place *places;
	const struct wcx_batch_kind *kinds;
	const struct wcx_batch_table *tables;
	const uint32_t *blocks; /* the kind that each block begins with */
	int *left;              /* items of each kind that no warp has taken; may drop below 0 */
	const uint8_t *src;
	uint8_t *dst;
	uint32_t *status, mark;
	struct wcx_batch_launch launch;
	struct wcx_factors factors;
};

/* The context of a warp while its block works on one kind. */
struct wcx_warp {
	const struct wcx_batch_dev &batch;
	const struct wcx_batch_kind &kind;
	uint32_t ring;            /* shared address */
	const uint32_t *contexts; /* shared, of differences: the shared address of the table for each key */
};

struct wcx_device_tile {
	const struct wcx_tile_item &item;
	const uint8_t *src;
	uint8_t *dst;
	const uint8_t *base; /* of a difference */
	uint32_t elems, lines;
};

/* What decoding the lines of a tile stores. */
enum class wcx_store {
	ELEMENTS,    /* of tiles that stand alone, or residuals that a predictor is undone on */
	RESIDUALS,   /* of a difference, which is undone later */
	DIFFERENCES, /* of elements: the difference is undone at once */
};

/* --- Bits of a word --- */

static __device__ __forceinline__ uint32_t wcx_rotate_right32(uint32_t value, uint32_t bits)
{
	return __funnelshift_r(value, value, bits);
}

/* Rotates every element right by one bit. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_rotate_elems(wcx_word<elem_bytes> word)
{
	constexpr wcx_word<elem_bytes> tops = (wcx_word<elem_bytes>)(elem_bytes == 1   ? 0x80808080
								     : elem_bytes == 2 ? 0x80008000
								     : elem_bytes == 4 ? 0x80000000
										       : 0x8000000000000000);

	return (word >> 1 & ~tops) | (word << (8 * elem_bytes - 1) & tops);
}

/* Undoes the transform, except for FOLD's inversion. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_place_word(uint32_t transform, wcx_word<elem_bytes> word)
{
	return transform == WCX_TRANSFORM_NONE ? word : wcx_rotate_elems<elem_bytes>(word);
}

/* Undoes FOLD's inversion, which affects other bits than the signs. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_fold_word(const struct wcx_batch_kind &kind,
								     wcx_word<elem_bytes> word)
{
	if constexpr (elem_bytes == 1)
		word ^= wcx_spread_signs(word) & kind.fold_mask; /* 0 for other transforms */
	return word;
}

/* The bits of one line from the unit of a plane that contains them. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_plane_word(const struct wcx_batch_plane &plane, uint32_t unit,
								      uint32_t line)
{
	const uint32_t turn = line & ((1u << plane.unit_bits) - 1);
	const uint32_t bits = wcx_rotate_right32(unit, turn * plane.width);

	if constexpr (elem_bytes == 8)
		return ((uint64_t)bits << 32 | bits) & plane.mask;
	return bits & (uint32_t)plane.mask;
}

static __device__ __forceinline__ uint32_t wcx_units(const struct wcx_batch_plane &plane, uint32_t lines)
{
	return (lines + (1u << plane.unit_bits) - 1) >> plane.unit_bits;
}

/* The bits that constant fields contribute to a word. */
template <uint32_t elem_bytes>
static __device__ wcx_word<elem_bytes> wcx_constant_word(const struct wcx_batch_kind &kind, const uint8_t *src)
{
	const uint32_t *numbers = (const uint32_t *)src + 1;
	uint64_t bits = 0;

	for (uint32_t i = 0; i < kind.constant_count; i++)
		bits |= (uint64_t)__ldg(numbers + kind.constants[i].number) << kind.constants[i].shift;
	if constexpr (elem_bytes < 4)
		bits *= elem_bytes == 1 ? 0x01010101 : 0x00010001;
	return wcx_place_word<elem_bytes>(kind.transform, (wcx_word<elem_bytes>)bits);
}

enum { WCX_LINES_AT_A_TIME = 4 }; /* whose loads of raw bits overlap */

/* The bits that planes and constants contribute to the lane's words of some lines. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ void wcx_raw_words(const struct wcx_batch_kind &kind, const wcx_device_tile &tile,
						     wcx_word<elem_bytes> constant, uint32_t line,
						     wcx_word<elem_bytes> word[WCX_LINES_AT_A_TIME])
{
	const uint32_t *units = (const uint32_t *)(tile.src + tile.item.planes) + wcx_lane();

#pragma unroll
	for (uint32_t i = 0; i < WCX_LINES_AT_A_TIME; i++)
		word[i] = constant;
	for (uint32_t p = 0; p < kind.plane_count; p++) {
		const struct wcx_batch_plane &plane = kind.planes[p];

#pragma unroll
		for (uint32_t i = 0; i < WCX_LINES_AT_A_TIME; i++)
			if (line + i < tile.lines)
				word[i] |= wcx_plane_word<elem_bytes>(
					plane, __ldg(units + ((line + i) >> plane.unit_bits) * WCX_LANES), line + i);
		units += wcx_units(plane, tile.lines) * WCX_LANES;
	}
#pragma unroll
	for (uint32_t i = 0; i < WCX_LINES_AT_A_TIME; i++)
		word[i] = wcx_fold_word<elem_bytes>(kind, word[i]);
}

static __device__ __forceinline__ uint32_t wcx_symbol_bits(const struct wcx_batch_field &field, uint32_t entry)
{
	const uint32_t symbol = wcx_entry_symbol(entry);

	return field.has_zero && symbol == 0 ? 0 : field.base + symbol;
}

/* The bits that the lane's symbols of a line contribute to its word. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes>
wcx_symbol_word(const struct wcx_batch_field &field, uint32_t transform, const uint32_t entry[WCX_RANS_STEPS_MAX])
{
	wcx_word<elem_bytes> word = 0;

#pragma unroll
	for (uint32_t k = 0; k < wcx_elems_of_word<elem_bytes>; k++) {
		const uint32_t symbol = wcx_entry_symbol(entry[k]);

		if (elem_bytes == 1 && field.is_pair)
			word |= k < 2 ? (symbol % 16 | symbol / 16 << 8) << k * 16 : 0;
		else if (elem_bytes == 2 && field.is_pair)
			word |= k < 1 ? (symbol % 16 | symbol / 16 << 16) + field.base * 0x00010001u : 0;
		else
			word |= (wcx_word<elem_bytes>)wcx_symbol_bits(field, entry[k]) << k * 8 * elem_bytes % 32;
	}
	return wcx_place_word<elem_bytes>(transform, word << field.shift);
}

/* The residuals of a line whose entries have distances in place of symbols, or pairs of them. */
template <uint32_t elem_bytes, wcx_numbers numbers>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_distance_word(const uint32_t entry[WCX_RANS_STEPS_MAX])
{
	wcx_word<elem_bytes> word = 0;

#pragma unroll
	for (uint32_t k = 0; k < wcx_elems_of_word<elem_bytes>; k++) {
		const bool are_pairs = numbers == wcx_numbers::DISTANCE_PAIRS;
		const uint32_t number = wcx_entry_symbol(entry[are_pairs ? k / 2 : k]);
		const uint32_t distance = are_pairs ? (number >> 4 * (k % 2) & 15) - 8 : (uint32_t)(int8_t)number;

		word |= (wcx_word<elem_bytes>)(wcx_elem<elem_bytes>)distance << k * 8 * elem_bytes % 32;
	}
	return wcx_fold_distance<elem_bytes>(word);
}

/* --- Storing words --- */

/* Stores the first `count` elements of a word or, with `adds`, combines them with the stored ones. */
template <uint32_t elem_bytes, bool adds>
static __device__ __forceinline__ void wcx_store_word(uint8_t *dst, uint32_t count, wcx_word<elem_bytes> word)
{
	wcx_word<elem_bytes> *whole = (wcx_word<elem_bytes> *)dst;

	if (count == wcx_elems_of_word<elem_bytes>) {
		/* An atomic operation whose result is unused does not stall the warp. */
		if constexpr (adds && elem_bytes == 8)
			atomicXor((unsigned long long *)whole, word);
		else if constexpr (adds)
			atomicXor(whole, word);
		else
			*whole = word;
		return;
	}
	for (uint32_t k = 0; k < count; k++) {
		wcx_elem<elem_bytes> *elem = (wcx_elem<elem_bytes> *)dst + k;
		const wcx_elem<elem_bytes> bits = (wcx_elem<elem_bytes>)(word >> k * 8 * elem_bytes % 32);

		*elem = (wcx_elem<elem_bytes>)(adds ? *elem ^ bits : bits);
	}
}

/* The number of elements in the lane's word of a line: fewer, or none, at the end of the tile. */
template <uint32_t elem_bytes> static __device__ __forceinline__ uint32_t wcx_word_elems_at(uint32_t elems, uint32_t line)
{
	const uint32_t first = line * wcx_elems_of_line<elem_bytes> + wcx_lane() * wcx_elems_of_word<elem_bytes>;

	return first < elems ? min(elems - first, wcx_elems_of_word<elem_bytes>) : 0;
}

template <uint32_t elem_bytes> static __device__ __forceinline__ uint8_t *wcx_word_at(uint8_t *dst, uint32_t line)
{
	return dst + (line * WCX_LANES + wcx_lane()) * sizeof(wcx_word<elem_bytes>);
}

/* The lane's word of a line of the base, of which the tile has `count` elements. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_base_word(const wcx_device_tile &tile, uint32_t line,
								     uint32_t count)
{
	const uint8_t *base = tile.base + (line * WCX_LANES + wcx_lane()) * sizeof(wcx_word<elem_bytes>);
	wcx_word<elem_bytes> word = 0;

	if (count == wcx_elems_of_word<elem_bytes>)
		return *(const wcx_word<elem_bytes> *)base;
	for (uint32_t k = 0; k < count; k++)
		word |= (wcx_word<elem_bytes>)((const wcx_elem<elem_bytes> *)base)[k] << k * 8 * elem_bytes % 32;
	return word;
}

/* Undoes the difference of a tile whose residuals are stored. */
template <uint32_t elem_bytes>
static __device__ void wcx_undo_differences(const struct wcx_batch_kind &kind, const wcx_device_tile &tile)
{
	const wcx_word<elem_bytes> order = wcx_order_mask<elem_bytes>(kind.difference);

	__syncwarp(); /* other lanes have stored exceptions */
	for (uint32_t line = 0; line < tile.lines; line++) {
		const uint32_t elems = wcx_word_elems_at<elem_bytes>(tile.elems, line);
		const wcx_word<elem_bytes> base = wcx_base_word<elem_bytes>(tile, line, elems);
		uint8_t *dst = wcx_word_at<elem_bytes>(tile.dst, line);
		wcx_word<elem_bytes> residuals = 0;

		for (uint32_t k = 0; k < elems; k++)
			residuals |= (wcx_word<elem_bytes>)((const wcx_elem<elem_bytes> *)dst)[k] << k * 8 * elem_bytes % 32;
		wcx_store_word<elem_bytes, false>(dst, elems, wcx_undo_difference<elem_bytes>(base, residuals, order));
	}
}

/* Stores a tile without coded fields. */
template <uint32_t elem_bytes>
static __device__ void wcx_store_raw_lines(const struct wcx_batch_kind &kind, const wcx_device_tile &tile)
{
	const wcx_word<elem_bytes> constant = wcx_constant_word<elem_bytes>(kind, tile.src);

	for (uint32_t line = 0; line < tile.lines; line += WCX_LINES_AT_A_TIME) {
		wcx_word<elem_bytes> word[WCX_LINES_AT_A_TIME];

		wcx_raw_words<elem_bytes>(kind, tile, constant, line, word);
#pragma unroll
		for (uint32_t i = 0; i < WCX_LINES_AT_A_TIME; i++)
			wcx_store_word<elem_bytes, false>(wcx_word_at<elem_bytes>(tile.dst, line + i),
							  wcx_word_elems_at<elem_bytes>(tile.elems, line + i), word[i]);
	}
}

/* --- Coded fields --- */

/* A payload being decoded.  After wcx_payload_open its loads are in flight; wcx_payload_start waits for them. */
struct wcx_payload {
	struct wcx_word_reader reader;
	wcx_choices choices;
};

static __device__ __forceinline__ void wcx_payload_open(const struct wcx_warp &warp, const wcx_device_tile &tile,
							const struct wcx_batch_field &field,
							const struct wcx_payload_place &place, struct wcx_payload *ret)
{
	const uint32_t groups = WCX_DIV_UP(tile.elems, WCX_RUN_ELEMS);

	wcx_word_reader_open(tile.src + place.states, tile.src + place.words, place.words_bytes, warp.ring, &ret->reader);
	ret->choices.load(tile.src + place.choices, field.choice_bits, warp.kind.run_factor, groups);
}

static __device__ __forceinline__ void wcx_payload_start(const struct wcx_warp &warp, const wcx_device_tile &tile,
							 const struct wcx_batch_field &field,
							 const struct wcx_payload_place &place, struct wcx_payload *payload)
{
	wcx_word_reader_start(tile.src + place.states, &payload->reader);
	payload->choices.spread(field.choice_bits, warp.kind.run_factor);
}

/* The tables of a field: decoding tables in shared memory, or cumulative frequencies in device memory. */
struct wcx_fast_tables {
	uint32_t first; /* number in shared memory */

	__device__ __forceinline__ wcx_fast_table choose(uint32_t choice) const
	{
		return { (first + choice) * WCX_PROB_SCALE };
	}
};
struct wcx_slow_tables {
	const struct wcx_batch_table *tables;

	__device__ __forceinline__ wcx_slow_table choose(uint32_t choice) const
	{
		return { tables + choice };
	}
};

/* The tables of a carrier of which runs choose a set. */
struct wcx_slow_sets : wcx_slow_tables {
};

/*
 * Decodes a field from a line on.  For the carrier, this stores complete words with all that is not
 * coded; other fields are then added to them.
 */
template <uint32_t elem_bytes, wcx_store store, wcx_numbers numbers, typename tables_type>
static __device__ __forceinline__ void wcx_store_coded_lines(const struct wcx_warp &warp, const wcx_device_tile &tile,
							     const struct wcx_batch_field &field, const tables_type &tables,
							     struct wcx_payload *payload, uint32_t line)
{
	constexpr bool adds = std::is_same_v<tables_type, wcx_slow_tables>, differs = store != wcx_store::ELEMENTS;
	const wcx_word<elem_bytes> constant = adds ? 0 : wcx_constant_word<elem_bytes>(warp.kind, tile.src);
	const uint32_t step_elems = 1 + field.is_pair, set_tables = differs ? field.table_count >> field.choice_bits : 1;

	static_assert((int)WCX_RANS_STEPS_MAX <= (int)WCX_BLOCK_STEPS, "the ring holds the words of a line");
	for (; line < tile.lines; line += WCX_LINES_AT_A_TIME) {
		wcx_word<elem_bytes> word[WCX_LINES_AT_A_TIME] = {};

		if (!adds)
			wcx_raw_words<elem_bytes>(warp.kind, tile, constant, line, word);
#pragma unroll
		for (uint32_t i = 0; i < WCX_LINES_AT_A_TIME; i++) {
			const uint32_t elems = wcx_word_elems_at<elem_bytes>(tile.elems, line + i);
			const uint32_t group = (line + i) * wcx_elems_of_line<elem_bytes> / WCX_RUN_ELEMS;
			const uint32_t choice = payload->choices.from(group) & 3;
			const wcx_word<elem_bytes> base = differs ? wcx_base_word<elem_bytes>(tile, line + i, elems) : 0;
			const wcx_word<elem_bytes> keys = wcx_key_word<elem_bytes>(warp.kind.difference, base);
			uint32_t entry[WCX_RANS_STEPS_MAX] = {};

			wcx_word_reader_refill(&payload->reader);
#pragma unroll
			for (uint32_t k = 0; k < wcx_elems_of_word<elem_bytes>; k++) {
				if (k >= field.steps)
					continue;
				const uint32_t context =
					differs && field.by_context
						? (warp.contexts[wcx_key<elem_bytes>(keys, k)] - warp.contexts[0]) /
							  WCX_TABLE_BYTES
						: 0;
				const uint32_t own = choice * set_tables + context;

				entry[k] = wcx_rans_step<true>(&payload->reader, tables.choose(own), k * step_elems < elems,
							       warp.batch.factors);
			}
			word[i] ^= numbers == wcx_numbers::SYMBOLS
					   ? wcx_symbol_word<elem_bytes>(field, warp.kind.transform, entry)
					   : wcx_distance_word<elem_bytes, numbers>(entry);
			if (store == wcx_store::DIFFERENCES)
				word[i] = wcx_undo_difference<elem_bytes>(base, word[i],
									  wcx_order_mask<elem_bytes>(warp.kind.difference));
			wcx_store_word<elem_bytes, adds>(wcx_word_at<elem_bytes>(tile.dst, line + i), elems, word[i]);
		}
	}
}

#endif
