/* SPDX-License-Identifier: MIT */
/*
 * The kernels that decode tiles, a warp a tile.
 *
 * The items have been checked by the host; what planes, payloads and exceptions hold has not.  All loops end after a number
 * of turns that the item alone sets.  A warp stays together: what it branches on is the same in all lanes, unless the branch
 * holds no collective.
 *
 * What a tile consists of is put together with exclusive ors, in any order: its bits are those of the planes, the constants
 * and the symbols, and FOLD, too, only adds the sign's bit to others.  So the few bytes that the final states carry, and
 * what is read in their place before, are put right at the end.
 */
#include "cuda/tile_kernel.h"

#include <type_traits>

#include "cuda/warp_rans.cuh"

/* A batch in the device's memory. */
struct wcx_batch_dev {
	const struct wcx_tile_item *items;
	const struct wcx_payload_place *places;
	const struct wcx_batch_kind *kinds;
	const struct wcx_batch_table *tables;
	const uint32_t *blocks; /* the kind that each begins with */
	int *left;              /* items of each kind that nobody has taken; may go below 0 */
	const uint8_t *src;
	uint8_t *dst;
	uint32_t *status, mark;
	struct wcx_batch_launch launch;
	struct wcx_factors factors;
};

enum : uint32_t { WCX_NO_KIND = 0xFFFFFFFF };

/* What a warp has at hand for all its tiles. */
struct wcx_warp {
	const struct wcx_batch_dev &batch;
	const struct wcx_batch_kind &kind;
	uint32_t ring; /* shared address */
};

struct wcx_tile_view {
	const struct wcx_tile_item &item;
	const uint8_t *src;
	uint8_t *dst;
	uint32_t elems, lines;
};

template <uint32_t elem_bytes>
using wcx_elem = std::conditional_t<
	elem_bytes == 8, uint64_t,
	std::conditional_t<elem_bytes == 4, uint32_t, std::conditional_t<elem_bytes == 2, uint16_t, uint8_t>>>;
template <uint32_t elem_bytes> using wcx_word = std::conditional_t<elem_bytes == 8, uint64_t, uint32_t>;

template <uint32_t elem_bytes> static constexpr uint32_t wcx_elems_of_word = sizeof(wcx_word<elem_bytes>) / elem_bytes;
template <uint32_t elem_bytes> static constexpr uint32_t wcx_elems_of_line = WCX_LANES *wcx_elems_of_word<elem_bytes>;

static __device__ __forceinline__ uint32_t wcx_rotate_right32(uint32_t value, uint32_t bits)
{
	return __funnelshift_r(value, value, bits);
}

static __device__ __forceinline__ uint32_t wcx_select_bits(uint32_t mask, uint32_t ones, uint32_t zeros)
{
	uint32_t value;

	asm("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(value) : "r"(mask), "r"(ones), "r"(zeros));
	return value;
}

/* The lowest bit of every element goes to its top, and the others one down. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_rotate_elems(wcx_word<elem_bytes> word)
{
	constexpr wcx_word<elem_bytes> tops = (wcx_word<elem_bytes>)(elem_bytes == 1   ? 0x80808080
								     : elem_bytes == 2 ? 0x80008000
								     : elem_bytes == 4 ? 0x80000000
										       : 0x8000000000000000);

	return (word >> 1 & ~tops) | (word << (8 * elem_bytes - 1) & tops);
}

/* Where bits of transformed elements are in the elements, but for FOLD's inversion. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_place_word(uint32_t transform, wcx_word<elem_bytes> word)
{
	return transform == WCX_TRANSFORM_NONE ? word : wcx_rotate_elems<elem_bytes>(word);
}

/* All bits of a byte become its highest one. */
static __device__ __forceinline__ uint32_t wcx_spread_signs(uint32_t word)
{
	uint32_t spread;

	asm("prmt.b32 %0, %1, %1, 0xBA98;" : "=r"(spread) : "r"(word)); /* __byte_perm has no such mode */
	return spread;
}

/* --- Lines of any format --- */

/* Does what FOLD does for the signs in a word, whose other bits it changes. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_word<elem_bytes> wcx_fold_word(const struct wcx_batch_kind &kind,
								     wcx_word<elem_bytes> word)
{
	if constexpr (elem_bytes == 1)
		word ^= wcx_spread_signs(word) & kind.fold_mask; /* 0 where nothing is folded */
	return word;
}

/* The bits of a plane for one line out of the unit that has them. */
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

/* What the constant fields give a word. */
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

enum { WCX_LINES_AT_A_TIME = 4 }; /* of any format, whose raw bits are on their way together */

/* What planes and constants give the lane's words of some lines. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ void wcx_raw_words(const struct wcx_batch_kind &kind, const wcx_tile_view &tile,
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

/* What the lane's symbols of a line give its word. */
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
		else
			word |= (wcx_word<elem_bytes>)wcx_symbol_bits(field, entry[k]) << k * 8 * elem_bytes % 32;
	}
	return wcx_place_word<elem_bytes>(transform, word << field.shift);
}

/* Sets the elements of a word that there are, or adds to them. */
template <uint32_t elem_bytes, bool adds>
static __device__ __forceinline__ void wcx_put_word(uint8_t *dst, uint32_t there, wcx_word<elem_bytes> word)
{
	wcx_word<elem_bytes> *whole = (wcx_word<elem_bytes> *)dst;

	if (there == wcx_elems_of_word<elem_bytes>) {
		/* An atomic one, whose result nobody wants, is not waited for. */
		if constexpr (adds && elem_bytes == 8)
			atomicXor((unsigned long long *)whole, word);
		else if constexpr (adds)
			atomicXor(whole, word);
		else
			*whole = word;
		return;
	}
	for (uint32_t k = 0; k < there; k++) {
		wcx_elem<elem_bytes> *elem = (wcx_elem<elem_bytes> *)dst + k;
		const wcx_elem<elem_bytes> bits = (wcx_elem<elem_bytes>)(word >> k * 8 * elem_bytes % 32);

		*elem = (wcx_elem<elem_bytes>)(adds ? *elem ^ bits : bits);
	}
}

/* How many elements there are in the lane's word of a line. */
template <uint32_t elem_bytes> static __device__ __forceinline__ uint32_t wcx_elems_there(uint32_t elems, uint32_t line)
{
	const uint32_t first = line * wcx_elems_of_line<elem_bytes> + wcx_lane() * wcx_elems_of_word<elem_bytes>;

	return first < elems ? min(elems - first, wcx_elems_of_word<elem_bytes>) : 0;
}

template <uint32_t elem_bytes> static __device__ __forceinline__ uint8_t *wcx_word_at(uint8_t *dst, uint32_t line)
{
	return dst + (line * WCX_LANES + wcx_lane()) * sizeof(wcx_word<elem_bytes>);
}

/* Elements that have no symbols. */
template <uint32_t elem_bytes>
static __device__ void wcx_put_raw_lines(const struct wcx_batch_kind &kind, const wcx_tile_view &tile)
{
	const wcx_word<elem_bytes> constant = wcx_constant_word<elem_bytes>(kind, tile.src);

	for (uint32_t line = 0; line < tile.lines; line += WCX_LINES_AT_A_TIME) {
		wcx_word<elem_bytes> word[WCX_LINES_AT_A_TIME];

		wcx_raw_words<elem_bytes>(kind, tile, constant, line, word);
#pragma unroll
		for (uint32_t i = 0; i < WCX_LINES_AT_A_TIME; i++)
			wcx_put_word<elem_bytes, false>(wcx_word_at<elem_bytes>(tile.dst, line + i),
							wcx_elems_there<elem_bytes>(tile.elems, line + i), word[i]);
	}
}

/* A payload on its way: what wcx_payload_start waits for. */
struct wcx_payload {
	struct wcx_reader reader;
	wcx_choices choices;
};

static __device__ __forceinline__ void wcx_payload_open(const struct wcx_warp &warp, const wcx_tile_view &tile,
							const struct wcx_batch_field &field,
							const struct wcx_payload_place &place, struct wcx_payload *ret)
{
	const uint32_t groups = (tile.elems + WCX_RUN_ELEMS - 1) / WCX_RUN_ELEMS;

	wcx_reader_open(tile.src + place.states, tile.src + place.words, place.words_bytes, warp.ring, &ret->reader);
	ret->choices.load(tile.src + place.choices, field.choice_bits, warp.kind.run_factor, groups);
}

static __device__ __forceinline__ void wcx_payload_start(const struct wcx_warp &warp, const wcx_tile_view &tile,
							 const struct wcx_batch_field &field,
							 const struct wcx_payload_place &place, struct wcx_payload *payload)
{
	wcx_reader_start(tile.src + place.states, &payload->reader);
	payload->choices.spread(field.choice_bits, warp.kind.run_factor);
}

/* Tables in shared memory, and such as are not. */
struct wcx_fast_tables {
	__device__ __forceinline__ wcx_fast_table choose(uint32_t choice) const
	{
		return { choice * WCX_PROB_SCALE };
	}
};
struct wcx_slow_tables {
	const struct wcx_batch_table *tables;

	__device__ __forceinline__ wcx_slow_table choose(uint32_t choice) const
	{
		return { tables + choice };
	}
};

/* The symbols of a coded field, which are those of the carrier if it has fast tables, from a line on.  Its lines get all
 * that is not coded, too; those of other fields are added to what is there. */
template <uint32_t elem_bytes, typename tables_type>
static __device__ __forceinline__ void wcx_put_coded_lines(const struct wcx_warp &warp, const wcx_tile_view &tile,
							   const struct wcx_batch_field &field, const tables_type &tables,
							   struct wcx_payload *payload, uint32_t line)
{
	constexpr bool adds = std::is_same_v<tables_type, wcx_slow_tables>;
	const wcx_word<elem_bytes> constant = adds ? 0 : wcx_constant_word<elem_bytes>(warp.kind, tile.src);
	const uint32_t step_elems = 1 + field.is_pair;

	static_assert((int)WCX_RANS_STEPS_MAX <= (int)WCX_BLOCK_STEPS, "the ring has the words of a line");
	for (; line < tile.lines; line += WCX_LINES_AT_A_TIME) {
		wcx_word<elem_bytes> word[WCX_LINES_AT_A_TIME] = {};

		if (!adds)
			wcx_raw_words<elem_bytes>(warp.kind, tile, constant, line, word);
#pragma unroll
		for (uint32_t i = 0; i < WCX_LINES_AT_A_TIME; i++) {
			const uint32_t there = wcx_elems_there<elem_bytes>(tile.elems, line + i);
			const uint32_t group = (line + i) * wcx_elems_of_line<elem_bytes> / WCX_RUN_ELEMS;
			const auto table = tables.choose(payload->choices.from(group) & 3);
			uint32_t entry[WCX_RANS_STEPS_MAX] = {};

			wcx_reader_refill(&payload->reader);
#pragma unroll
			for (uint32_t k = 0; k < wcx_elems_of_word<elem_bytes>; k++)
				if (k < field.steps)
					entry[k] = wcx_rans_step<true>(&payload->reader, table, k * step_elems < there,
								       warp.batch.factors);
			word[i] ^= wcx_symbol_word<elem_bytes>(field, warp.kind.transform, entry);
			wcx_put_word<elem_bytes, adds>(wcx_word_at<elem_bytes>(tile.dst, line + i), there, word[i]);
		}
	}
}

/* --- Lines of known formats: the carrier has the highest bits, and all below are raw --- */

/* The planes of a raw field of so many bits, for blocks of lines. */
template <uint32_t bits, uint32_t word_elems, uint32_t block_lines> struct wcx_low_planes {
	static constexpr uint32_t width = bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
	static constexpr uint32_t unit_lines = 32 / (width * word_elems);
	static constexpr uint32_t unit_count = block_lines > unit_lines ? block_lines / unit_lines : 1;
	static_assert(unit_count * WCX_PLANE_UNIT_BYTES + WCX_CARRIED_BYTES <=
			      (int)WCX_BATCH_SRC_SLACK + (int)WCX_RANS_STATES_MIN_BYTES,
		      "what is loaded behind the last block is the tile's or the batch's");
	const uint32_t *units; /* the lane's words, of the units that are loaded next */
	uint32_t mask;
	uint32_t unit[unit_count], ahead[unit_count];
	wcx_low_planes<bits - width, word_elems, block_lines> upper;

	__device__ __forceinline__ void open(const struct wcx_batch_kind &kind, const wcx_tile_view &tile,
					     const uint8_t *planes, uint32_t p = 0)
	{
		units = (const uint32_t *)planes + wcx_lane();
		mask = (uint32_t)kind.planes[p].mask;
		upper.open(kind, tile, planes + (tile.lines + unit_lines - 1) / unit_lines * WCX_PLANE_UNIT_BYTES, p + 1);
	}

	/* Starts to load what a block has, from a line on: the next ones each time. */
	__device__ __forceinline__ void load(uint32_t line)
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
		upper.load(line);
	}

	__device__ __forceinline__ void take(void)
	{
#pragma unroll
		for (uint32_t i = 0; i < unit_count; i++)
			unit[i] = ahead[i];
		upper.take();
	}

	/* The raw bits of line i of the block, and others. */
	__device__ __forceinline__ uint32_t word(uint32_t i) const
	{
		const uint32_t own = wcx_rotate_right32(unit[i / unit_lines], i % unit_lines * width);

		return bits == width ? own : wcx_select_bits(mask, own, upper.word(i));
	}

	__device__ __forceinline__ uint32_t masks(void) const
	{
		return mask | upper.masks();
	}
};

template <uint32_t word_elems, uint32_t block_lines> struct wcx_low_planes<0, word_elems, block_lines> {
	__device__ __forceinline__ void open(const struct wcx_batch_kind &, const wcx_tile_view &, const uint8_t *,
					     uint32_t = 0)
	{
	}
	__device__ __forceinline__ void load(uint32_t)
	{
	}
	__device__ __forceinline__ void take(void)
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
 * A format says how the entries of a line become a word.  Bits 8 to 23 of two entries side by side have the symbols' at 4 to
 * 11 and at 20 to 27, and other bits beside them, which have to go; those in the place of raw bits may stay.
 */
static __device__ __forceinline__ uint32_t wcx_join_entries(uint32_t first, uint32_t second)
{
	return __byte_perm(first, second, 0x6521);
}

/* Any format of elements of so many bytes. */
template <uint32_t bytes> struct wcx_any_format {
	static constexpr uint32_t elem_bytes = bytes;
};

/* Bytes, folded: pairs of four bits above four raw bits. */
struct wcx_pairs_format {
	static constexpr uint32_t elem_bytes = 1, steps = 2, raw_bits = 4;
	static constexpr bool may_be_predicted = false;

	__device__ __forceinline__ wcx_pairs_format(const struct wcx_batch_kind &)
	{
	}

	__device__ __forceinline__ uint32_t word(const uint32_t entry[steps], uint32_t raw) const
	{
		const uint32_t symbols = wcx_join_entries(entry[0], entry[1]), signs = wcx_spread_signs(raw);

		return (symbols << 3 & 0x78007800) ^ (symbols >> 1 & 0x00780078) ^ signs;
	}
};

/* Bytes: a symbol each above some raw bits. */
template <uint32_t raw, bool folds> struct wcx_bytes_format {
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

/* Two bytes, rotated: a symbol each above some raw bits. */
template <uint32_t raw> struct wcx_halves_format {
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

/* Starts a payload that was opened, and decodes the whole blocks of a tile of a known format; how many lines they have. */
template <typename format, bool multi>
static __device__ __forceinline__ uint32_t wcx_put_blocks(const struct wcx_warp &warp, const wcx_tile_view &tile,
							  const struct wcx_batch_field &field, struct wcx_payload *payload)
{
	constexpr uint32_t lines = WCX_BLOCK_STEPS / format::steps, line_elems = wcx_elems_of_line<format::elem_bytes>;
	const uint32_t end = tile.elems / (lines * line_elems) * lines;
	const struct wcx_factors factors = warp.batch.factors;
	const format elem_format(warp.kind);
	uint32_t *dst = (uint32_t *)tile.dst + wcx_lane();
	wcx_low_planes<format::raw_bits, wcx_elems_of_word<format::elem_bytes>, lines> planes;

	planes.open(warp.kind, tile, tile.src + tile.item.planes);
	const uint32_t raw_mask = planes.masks();

	planes.load(0);
	wcx_payload_start(warp, tile, field, tile.item.carrier, payload);
	for (uint32_t line = 0; line < end; line += lines) {
		const uint32_t chosen = multi ? payload->choices.from(line * line_elems / WCX_RUN_ELEMS) : 0;

		planes.take();
		planes.load(line + lines);
		wcx_reader_refill(&payload->reader);
#pragma unroll
		for (uint32_t i = 0; i < lines; i++) {
			const uint32_t group = i * line_elems / WCX_RUN_ELEMS;
			const wcx_fast_table table = { multi ? (chosen >> 2 * group & 3) * WCX_PROB_SCALE : 0 };
			const uint32_t raw = planes.word(i);
			uint32_t entry[format::steps];

#pragma unroll
			for (uint32_t k = 0; k < format::steps; k++)
				entry[k] = wcx_rans_step<false>(&payload->reader, table, true, factors);
			dst[i * WCX_LANES] = wcx_select_bits(raw_mask, raw, elem_format.word(entry, raw));
		}
		dst += lines * WCX_LANES;
	}
	return end;
}

/* --- What final states carry, and exceptions --- */

/* A half of the exceptions, two bytes, that is in the tile; of the last 32 the lanes' final states may be in its place. */
static __device__ __forceinline__ uint32_t wcx_exception_half(const wcx_tile_view &tile, uint32_t stored, uint32_t number)
{
	return number < stored ? __ldg((const uint16_t *)(tile.src + tile.item.exceptions) + number) : 0;
}

/* What is loaded before the states are at their end, since it takes a while. */
struct wcx_leftovers {
	uint32_t unit;                      /* the lane's, the last one of the last plane, as it was read */
	uint32_t stored;                    /* halves of the exceptions that are in the tile */
	uint32_t position_half, value_half; /* of exception number lane, as far as they are */
};

static __device__ __forceinline__ struct wcx_leftovers wcx_leftovers_load(const struct wcx_batch_kind &kind,
									  const wcx_tile_view &tile)
{
	const uint32_t count = tile.item.exception_count, width = kind.coded[kind.coded_count - 1].width;
	const uint32_t halves = (width > 8 ? count * 4 : count * 3 + 1) / 2;
	struct wcx_leftovers ret = { 0, halves - (tile.item.exceptions_carried ? WCX_CARRIED_BYTES / 2 : 0), 0, 0 };

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

/*
 * Puts the last half of the last plane's last unit in the place of what was read there, which is what follows in the tile:
 * a lane of the upper 16 gets the states of two others.
 */
template <uint32_t elem_bytes>
static __device__ void wcx_add_carried(const struct wcx_batch_kind &kind, const wcx_tile_view &tile, uint32_t unit,
				       uint32_t state)
{
	const struct wcx_batch_plane &plane = kind.planes[kind.plane_count - 1];
	const uint32_t low = __shfl_sync(WCX_ALL_LANES, state, wcx_lane() * 2);
	const uint32_t high = __shfl_sync(WCX_ALL_LANES, state, wcx_lane() * 2 + 1);
	const uint32_t wrong = unit ^ __byte_perm(low, high, 0x5410);

	if (wcx_lane() < WCX_LANES / 2)
		return;
	for (uint32_t line = (wcx_units(plane, tile.lines) - 1) << plane.unit_bits; line < tile.lines; line++)
		wcx_put_word<elem_bytes, true>(
			wcx_word_at<elem_bytes>(tile.dst, line), wcx_elems_there<elem_bytes>(tile.elems, line),
			wcx_fold_word<elem_bytes>(kind, wcx_plane_word<elem_bytes>(plane, wrong, line)));
}

/* Puts the exceptions in the place of what the carrier's symbols have left, one a lane; false if they are not sound. */
template <uint32_t elem_bytes>
static __device__ bool wcx_put_exceptions(const struct wcx_batch_kind &kind, const wcx_tile_view &tile,
					  const struct wcx_leftovers &leftovers, uint32_t state)
{
	using elem = wcx_elem<elem_bytes>;
	const struct wcx_batch_field &field = kind.coded[kind.coded_count - 1];
	const uint32_t count = tile.item.exception_count, width = field.width;
	uint32_t position_half = leftovers.position_half, value_half = leftovers.value_half;
	const auto carry = [&](uint32_t half, uint32_t number) -> uint32_t {
		const uint32_t carried = __shfl_sync(WCX_ALL_LANES, state & 0xFFFF, number - leftovers.stored);

		return number < leftovers.stored ? half : carried;
	};
	const auto place = [&](uint32_t bits) -> elem {
		return (elem)wcx_place_word<elem_bytes>(kind.transform, (wcx_word<elem_bytes>)bits << field.shift);
	};
	const elem mask = place((1u << width) - 1);
	elem *dst = (elem *)tile.dst;
	uint32_t after = 0; /* the least that the first lane's position may be */

	__syncwarp(); /* other lanes have stored the elements */
	for (uint32_t first = 0; first < count; first += WCX_LANES) {
		const uint32_t i = first + wcx_lane(), value_number = count + (width > 8 ? i : i / 2);
		const uint32_t position = carry(position_half, i), half = carry(value_half, value_number);
		const uint32_t value = width > 8 ? half : half >> 8 * (i % 2) & 0xFF;
		const uint32_t before = __shfl_up_sync(WCX_ALL_LANES, position, 1);
		const uint32_t least = wcx_lane() == 0 ? after : before + 1;
		const bool sound = position >= least && position < tile.elems && value >> width == 0;

		if (!__all_sync(WCX_ALL_LANES, i >= count || sound))
			return false;
		position_half = wcx_exception_half(tile, leftovers.stored, i + WCX_LANES);
		value_half = wcx_exception_half(tile, leftovers.stored, value_number + WCX_LANES / (width > 8 ? 1 : 2));
		if (i < count) {
			const elem old = dst[position];
			const elem sign = old & (elem)((elem)1 << (8 * elem_bytes - 1));
			const elem folded = sign ? (elem)kind.fold_mask : 0;

			dst[position] = (elem)((old & ~mask) | ((place(value) ^ folded) & mask));
		}
		after = __shfl_sync(WCX_ALL_LANES, position, WCX_LANES - 1) + 1;
	}
	return true;
}

/* --- Predictors --- */

/* The sum of the values in this lane and those below it. */
template <typename word> static __device__ __forceinline__ word wcx_warp_sum_upto(word value)
{
	for (uint32_t distance = 1; distance < WCX_LANES; distance *= 2) {
		const word below = __shfl_up_sync(WCX_ALL_LANES, value, distance);

		value += wcx_lane() >= distance ? below : 0;
	}
	return value;
}

enum { WCX_LOADS = 8 }; /* of elements, that are on their way at a time: each takes long */

/*
 * LEFT: sums along the rows, 32 elements at a time whatever the rows' length.  An element's sum begins at the last row that
 * starts in the 32 at or before it; where none does, it goes on from the 32 before.
 */
template <uint32_t elem_bytes> static __device__ void wcx_undo_left(const wcx_tile_view &tile)
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
			const word sum = wcx_warp_sum_upto((word)residual[i]);
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

static __device__ __forceinline__ uint8_t wcx_add(uint8_t a, uint8_t b)
{
	return (uint8_t)(a + b);
}
static __device__ __forceinline__ uint16_t wcx_add(uint16_t a, uint16_t b)
{
	return (uint16_t)(a + b);
}
static __device__ __forceinline__ uint32_t wcx_add(uint32_t a, uint32_t b)
{
	return a + b;
}
static __device__ __forceinline__ uint64_t wcx_add(uint64_t a, uint64_t b)
{
	return a + b;
}

/* Several elements in a word, which carry nothing from one to the next. */
template <uint32_t elem_bytes> struct wcx_packed {
	uint32_t word;
};
template <uint32_t elem_bytes>
static __device__ __forceinline__ wcx_packed<elem_bytes> wcx_add(wcx_packed<elem_bytes> a, wcx_packed<elem_bytes> b)
{
	return { elem_bytes == 1 ? __vadd4(a.word, b.word) : __vadd2(a.word, b.word) };
}

/* Sums down columns, one a lane, of count things in rows of so many. */
template <typename thing> static __device__ __forceinline__ void wcx_sum_columns(thing *dst, uint32_t count, uint32_t cols)
{
	for (uint32_t col = wcx_lane(); col < cols; col += WCX_LANES) {
		thing value = {};

		for (uint32_t start = col; start < count; start += WCX_LOADS * cols) {
			thing residual[WCX_LOADS];

#pragma unroll
			for (uint32_t i = 0; i < WCX_LOADS; i++)
				residual[i] = start + i * cols < count ? dst[start + i * cols] : thing{};
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
template <uint32_t elem_bytes> static __device__ void wcx_undo_up(const wcx_tile_view &tile)
{
	constexpr uint32_t word_elems = wcx_elems_of_word<elem_bytes>;
	const uint32_t cols = tile.item.cols;

	__syncwarp(); /* other lanes have stored the elements */
	if (word_elems > 1 && cols % word_elems == 0)
		wcx_sum_columns((wcx_packed<elem_bytes> *)tile.dst, tile.elems / word_elems, cols / word_elems);
	else
		wcx_sum_columns((wcx_elem<elem_bytes> *)tile.dst, tile.elems, cols);
}

template <uint32_t elem_bytes> static __device__ void wcx_undo_predictor(uint32_t predictor, const wcx_tile_view &tile)
{
	if (predictor == WCX_PREDICT_LEFT || predictor == WCX_PREDICT_LEFT2)
		wcx_undo_left<elem_bytes>(tile);
	if (predictor == WCX_PREDICT_LEFT2)
		wcx_undo_left<elem_bytes>(tile);
	if (predictor == WCX_PREDICT_UP)
		wcx_undo_up<elem_bytes>(tile);
}

/* --- Tiles --- */

/* A tile that has a carrier. */
template <typename format, bool multi>
static __device__ __forceinline__ bool wcx_decode_carrier(const struct wcx_warp &warp, const wcx_tile_view &tile)
{
	constexpr uint32_t elem_bytes = format::elem_bytes;
	const struct wcx_batch_field &field = warp.kind.coded[warp.kind.coded_count - 1];
	const wcx_fast_tables tables;
	struct wcx_leftovers leftovers;
	struct wcx_payload payload;
	uint32_t line = 0;

	wcx_payload_open(warp, tile, field, tile.item.carrier, &payload);
	if constexpr (std::is_same_v<format, wcx_any_format<elem_bytes>>)
		wcx_payload_start(warp, tile, field, tile.item.carrier, &payload);
	else
		line = wcx_put_blocks<format, multi>(warp, tile, field, &payload);
	leftovers = wcx_leftovers_load(warp.kind, tile);
	wcx_put_coded_lines<elem_bytes>(warp, tile, field, tables, &payload, line);
	if (!wcx_reader_close(payload.reader, tile.item.plane_carried || tile.item.exceptions_carried))
		return false;
	if (tile.item.plane_carried)
		wcx_add_carried<elem_bytes>(warp.kind, tile, leftovers.unit, payload.reader.state);
	return wcx_put_exceptions<elem_bytes>(warp.kind, tile, leftovers, payload.reader.state);
}

/* The coded fields other than the carrier. */
template <uint32_t elem_bytes>
static __device__ __forceinline__ bool wcx_decode_others(const struct wcx_warp &warp, const wcx_tile_view &tile)
{
	for (uint32_t c = 0; c + 1 < warp.kind.coded_count; c++) {
		const struct wcx_batch_field &field = warp.kind.coded[c];
		const struct wcx_payload_place &place = warp.batch.places[tile.item.others + c];
		const wcx_slow_tables tables = { warp.batch.tables + field.table };
		struct wcx_payload payload;

		__syncwarp(); /* exceptions have been stored by other lanes */
		wcx_payload_open(warp, tile, field, place, &payload);
		wcx_payload_start(warp, tile, field, place, &payload);
		wcx_put_coded_lines<elem_bytes>(warp, tile, field, tables, &payload, 0);
		if (!wcx_reader_close(payload.reader, false))
			return false;
	}
	return true;
}

template <typename format, bool multi>
static __device__ __forceinline__ bool wcx_decode_tile(const struct wcx_warp &warp, const struct wcx_tile_item &item)
{
	constexpr uint32_t elem_bytes = format::elem_bytes;
	const wcx_tile_view tile = { item, warp.batch.src + item.src, warp.batch.dst + item.dst, item.elems,
				     (item.elems + wcx_elems_of_line<elem_bytes> - 1) / wcx_elems_of_line<elem_bytes> };

	if constexpr (std::is_same_v<format, wcx_any_format<elem_bytes>>) {
		if (warp.kind.coded_count == 0)
			wcx_put_raw_lines<elem_bytes>(warp.kind, tile);
		else if (!wcx_decode_carrier<format, multi>(warp, tile) || !wcx_decode_others<elem_bytes>(warp, tile))
			return false;
		wcx_undo_predictor<elem_bytes>(warp.kind.predictor, tile);
		return true;
	} else {
		const bool sound = wcx_decode_carrier<format, multi>(warp, tile);

		if (sound && format::may_be_predicted)
			wcx_undo_predictor<elem_bytes>(warp.kind.predictor, tile);
		return sound;
	}
}

/*
 * Launches of a batch overlap: once all blocks of one have started, those of the next one may.  One of its blocks ends only
 * after the last launch, so that in the stream it is all of them that are over when the last one is.
 */
static __device__ __forceinline__ void wcx_let_next_launch_start(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
static __device__ __forceinline__ void wcx_wait_for_last_launch(void)
{
#if __CUDA_ARCH__ >= 900
	asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Decodes items of a kind until all are taken. */
template <typename format, bool multi>
static __device__ __forceinline__ void wcx_decode_items(const struct wcx_warp &warp, uint32_t kind)
{
	const struct wcx_batch_dev &batch = warp.batch;

	for (;;) {
		int left = 0;

		if (wcx_lane() == 0)
			left = atomicSub(batch.left + kind, 1);
		left = __shfl_sync(WCX_ALL_LANES, left, 0);
		if (left <= 0)
			return;
		const struct wcx_tile_item &item = batch.items[warp.kind.first_item + left - 1];
		const bool sound = wcx_decode_tile<format, multi>(warp, item);

		if (wcx_lane() == 0)
			batch.status[item.number] = batch.mark | (sound ? WCX_OK : WCX_BAD_DATA);
	}
}

/* The launch's next kind, from one on and around, that has items left; WCX_NO_KIND if none has.  For one warp. */
static __device__ uint32_t wcx_find_kind(const struct wcx_batch_dev &batch, uint32_t from)
{
	const struct wcx_batch_launch &launch = batch.launch;

	for (uint32_t i = 0; i < launch.kind_count; i += WCX_LANES) {
		const uint32_t number = from - launch.first_kind + i + wcx_lane();
		const uint32_t kind = launch.first_kind + number % launch.kind_count;
		const volatile int *left = batch.left + kind;
		const bool in_launch = i + wcx_lane() < launch.kind_count;
		const uint32_t having = __ballot_sync(WCX_ALL_LANES, in_launch && *left > 0);

		if (having)
			return __shfl_sync(WCX_ALL_LANES, kind, __ffs(having) - 1);
	}
	return WCX_NO_KIND;
}

/*
 * One launch.  Shared memory: the decoding tables of the kind that the block is at, and a ring for each warp.
 */
template <typename format, bool multi>
static __global__ void __launch_bounds__(WCX_LARGE_BLOCK_WARPS *WCX_LANES, 1)
	wcx_decode_tiles(const struct wcx_batch_dev batch)
{
	__shared__ struct wcx_batch_kind kind;
	__shared__ uint32_t found;
	const uint32_t number = threadIdx.x / WCX_LANES, table_bytes = batch.launch.table_count * WCX_TABLE_BYTES;
	uint32_t *entries = (uint32_t *)wcx_shared;
	struct wcx_warp warp = { batch, kind, wcx_shared_address(wcx_shared) };
	uint32_t at = batch.blocks[blockIdx.x];

	static_assert(WCX_WARP_SHARED_BYTES >= WCX_FIELD_TABLES_MAX * sizeof(struct wcx_batch_table),
		      "room in the first ring");
	wcx_let_next_launch_start();
	warp.ring += table_bytes + number * WCX_WARP_SHARED_BYTES;
	wcx_keep(&warp.ring);
	for (;;) {
		if (number == 0) {
			at = wcx_find_kind(batch, at);
			if (wcx_lane() == 0)
				found = at;
		}
		__syncthreads(); /* and all are done with the last kind */
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
		if (number < batch.launch.block_warps)
			wcx_decode_items<format, multi>(warp, at);
	}
	if (blockIdx.x == 0)
		wcx_wait_for_last_launch();
}

/* --- Launches --- */

template <bool multi> static const void *wcx_kernel_of(uint32_t kernel)
{
	switch (kernel) {
	case WCX_KERNEL_ANY_1:
		return (const void *)wcx_decode_tiles<wcx_any_format<1>, true>;
	case WCX_KERNEL_ANY_2:
		return (const void *)wcx_decode_tiles<wcx_any_format<2>, true>;
	case WCX_KERNEL_ANY_4:
		return (const void *)wcx_decode_tiles<wcx_any_format<4>, true>;
	case WCX_KERNEL_ANY_8:
		return (const void *)wcx_decode_tiles<wcx_any_format<8>, true>;
	case WCX_KERNEL_PAIRS_FOLD:
		return (const void *)wcx_decode_tiles<wcx_pairs_format, multi>;
	case WCX_KERNEL_BYTES_0:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<0, false>, multi>;
	case WCX_KERNEL_BYTES_1:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<1, false>, multi>;
	case WCX_KERNEL_BYTES_2:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<2, false>, multi>;
	case WCX_KERNEL_BYTES_3:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<3, false>, multi>;
	case WCX_KERNEL_BYTES_4:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<4, false>, multi>;
	case WCX_KERNEL_BYTES_FOLD_1:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<1, true>, multi>;
	case WCX_KERNEL_BYTES_FOLD_2:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<2, true>, multi>;
	case WCX_KERNEL_BYTES_FOLD_3:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<3, true>, multi>;
	case WCX_KERNEL_BYTES_FOLD_4:
		return (const void *)wcx_decode_tiles<wcx_bytes_format<4, true>, multi>;
	case WCX_KERNEL_HALVES_5:
		return (const void *)wcx_decode_tiles<wcx_halves_format<5>, multi>;
	case WCX_KERNEL_HALVES_6:
		return (const void *)wcx_decode_tiles<wcx_halves_format<6>, multi>;
	case WCX_KERNEL_HALVES_7:
		return (const void *)wcx_decode_tiles<wcx_halves_format<7>, multi>;
	case WCX_KERNEL_HALVES_8:
		return (const void *)wcx_decode_tiles<wcx_halves_format<8>, multi>;
	}
	return (const void *)wcx_decode_tiles<wcx_halves_format<9>, multi>;
}

static const void *wcx_kernel(uint32_t kernel, uint32_t table_count)
{
	return table_count > 1 ? wcx_kernel_of<true>(kernel) : wcx_kernel_of<false>(kernel);
}

static uint32_t wcx_block_warps(const struct wcx_kernels *kernels, uint32_t table_count)
{
	const uint32_t most = table_count > 2 ? WCX_LARGE_BLOCK_WARPS : WCX_BLOCK_WARPS;
	const uint32_t fit = (kernels->shared_bytes - table_count * WCX_TABLE_BYTES) / WCX_WARP_SHARED_BYTES;

	return fit < most ? fit : most;
}

static uint32_t wcx_block_shared_bytes(const struct wcx_kernels *kernels, uint32_t table_count)
{
	return table_count * WCX_TABLE_BYTES + wcx_block_warps(kernels, table_count) * WCX_WARP_SHARED_BYTES;
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
	/* As __CUDA_ARCH__ was when it was compiled, also where the driver did that for a newer device. */
	*ret = { 2 * (uint32_t)multiprocessors, (uint32_t)shared_bytes - static_bytes, attributes.ptxVersion >= 90 };
	for (uint32_t kernel = 0; kernel < WCX_KERNEL_COUNT && !error; kernel++)
		for (uint32_t table_count = 1; table_count <= WCX_FIELD_TABLES_MAX && !error; table_count *= 2)
			error = cudaFuncSetAttribute(
				wcx_kernel(kernel, table_count), cudaFuncAttributeMaxDynamicSharedMemorySize,
				(int)wcx_block_shared_bytes(ret, table_count > 1 ? WCX_FIELD_TABLES_MAX : 1));
	return error;
}

extern "C" cudaError_t wcx_kernels_decode(const struct wcx_kernels *kernels, uint8_t *control,
					  const struct wcx_batch_layout *layout, const uint8_t *src, uint8_t *dst,
					  uint32_t *status, uint32_t mark, cudaStream_t stream)
{
	struct wcx_batch_dev batch;
	cudaLaunchAttribute early;
	cudaLaunchConfig_t config = {};
	cudaError_t error = cudaSuccess;

	early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
	early.val.programmaticStreamSerializationAllowed = 1;
	config.stream = stream;
	config.attrs = &early;
	batch.items = (const struct wcx_tile_item *)control;
	batch.places = (const struct wcx_payload_place *)(control + layout->places_offset);
	batch.kinds = (const struct wcx_batch_kind *)(control + layout->kinds_offset);
	batch.tables = (const struct wcx_batch_table *)(control + layout->tables_offset);
	batch.left = (int *)(control + layout->left_offset);
	batch.src = src;
	batch.dst = dst;
	batch.status = status;
	batch.mark = mark;
	batch.factors = { 1u << 20, 1u << 16 };
	for (uint32_t i = 0; i < layout->launch_count && !error; i++) {
		const struct wcx_batch_launch &launch = layout->launches[i];
		const uint32_t table_count = launch.table_count;
		void *arguments[] = { &batch };

		batch.blocks = (const uint32_t *)(control + layout->blocks_offset) + launch.first_block;
		batch.launch = launch;
		config.gridDim = dim3(launch.block_count);
		config.blockDim = dim3(wcx_block_warps(kernels, table_count) * WCX_LANES);
		config.dynamicSmemBytes = wcx_block_shared_bytes(kernels, table_count);
		config.numAttrs = i > 0 && kernels->overlap;
		error = cudaLaunchKernelExC(&config, wcx_kernel(launch.kernel, table_count), arguments);
	}
	return error;
}
