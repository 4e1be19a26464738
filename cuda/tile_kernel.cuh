/* SPDX-License-Identifier: MIT */
/*
 * The kernels that decode tiles: a warp a tile, lane l of the warp being lane l of the bitstream (docs/format.md,
 * section 3).
 *
 * The items have been checked by the host; what payloads and planes hold has not.  So every plane is read within its bytes
 * alone, and a payload is refused once it has taken more words than it has.  All loops end after a number of turns that the
 * item alone sets.  A warp stays together: what it branches on is the same in all lanes, unless the branch holds no
 * collective.
 *
 * Elements that have a predictor stay rotated until it is undone.
 */
#ifndef WCX_TILE_KERNEL_CUH
#define WCX_TILE_KERNEL_CUH

#include <cuda_runtime.h>
#include <type_traits>

extern "C" {
#include "codec/rans.h"
#include "cuda/tile_batch.h"
}

enum {
	WCX_BLOCK_MAX_THREADS = WCX_BLOCK_MAX_ITEMS * WCX_RANS_LANES,
	/*
	 * 48 warps on a multiprocessor, and 40 registers a thread.  As words are loaded well ahead, nothing that a warp waits
	 * for is far away, and more warps should not be needed.
	 */
	WCX_LARGE_BLOCKS_PER_SM = 2,
	WCX_RING_WORDS = 256,
	WCX_RING_CHUNK = 128, /* that are loaded at a time: two pairs a lane */
	WCX_RING_PAIRS = WCX_RING_WORDS / 2,
};

#define WCX_ALL_LANES 0xFFFFFFFFu

/* Where a batch lies on the device. */
struct wcx_batch_dev {
	const struct wcx_tile_item *items;
	const uint32_t *slots; /* numbers of items */
	const struct wcx_batch_table *tables;
	const uint8_t *src;
	uint8_t *dst;
	uint32_t *status; /* an enum wcx_result for each item */
};

static __device__ __forceinline__ uint32_t wcx_lane(void)
{
	return threadIdx.x % WCX_RANS_LANES;
}

static __device__ __forceinline__ uint32_t wcx_low_mask(uint32_t width)
{
	return 0xFFFFFFFFu >> (32 - width);
}

/*
 * Shared memory by addresses of 32 bits, and a choice between two numbers' bits: out of pointers and operators the compiler
 * makes one or two instructions more, the former in each step.
 */
static __device__ __forceinline__ uint32_t wcx_shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ uint32_t wcx_shared_u32(uint32_t address)
{
	uint32_t value;

	asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
	return value;
}

static __device__ __forceinline__ uint32_t wcx_shared_u16(uint32_t address)
{
	uint16_t value;

	asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
	return value;
}

static __device__ __forceinline__ uint32_t wcx_select_bits(uint32_t mask, uint32_t ones, uint32_t zeros)
{
	uint32_t value;

	asm("lop3.b32 %0, %1, %2, %3, 0xCA;" : "=r"(value) : "r"(mask), "r"(ones), "r"(zeros));
	return value;
}

/* --- Elements, and four neighbouring ones side by side in words, which are what a lane restores at a time --- */

template <typename elem>
static __device__ __forceinline__ elem wcx_rotate_right(elem value, uint32_t rotation)
{
	return rotation ? (elem)(value >> 1 | value << (8 * sizeof(elem) - 1)) : value;
}

template <typename elem> struct wcx_quad {
	using word = std::conditional_t<sizeof(elem) == 8, uint64_t, uint32_t>;
	static constexpr uint32_t elem_bits = 8 * sizeof(elem);
	static constexpr uint32_t word_elems = sizeof(word) / sizeof(elem), words = 4 / word_elems;
	word w[words];
};

/* The same element everywhere in a word. */
template <typename elem> static __device__ __forceinline__ typename wcx_quad<elem>::word wcx_repeat(elem value)
{
	using word = typename wcx_quad<elem>::word;

	return (word)(~(word)0 / (elem) ~(elem)0) * value;
}

template <typename elem> static __device__ __forceinline__ void wcx_quad_rotate_right(wcx_quad<elem> *quad)
{
	using quads = wcx_quad<elem>;
	constexpr uint32_t left = quads::elem_bits - 1;

#pragma unroll
	for (uint32_t i = 0; i < quads::words; i++) {
		if constexpr (quads::word_elems == 1)
			quad->w[i] = quad->w[i] >> 1 | quad->w[i] << left;
		else
			quad->w[i] = wcx_select_bits(wcx_repeat<elem>((elem)(1u << left)), quad->w[i] << left,
						     quad->w[i] >> 1);
	}
}

/* dst has the alignment of four elements, as tiles have more. */
template <typename elem> static __device__ __forceinline__ void wcx_quad_store(const wcx_quad<elem> &quad, elem *dst)
{
	if constexpr (sizeof(elem) == 1) {
		*(uint32_t *)dst = quad.w[0];
	} else if constexpr (sizeof(elem) == 2) {
		*(uint2 *)dst = make_uint2(quad.w[0], quad.w[1]);
	} else if constexpr (sizeof(elem) == 4) {
		*(uint4 *)dst = make_uint4(quad.w[0], quad.w[1], quad.w[2], quad.w[3]);
	} else {
		((ulonglong2 *)dst)[0] = make_ulonglong2(quad.w[0], quad.w[1]);
		((ulonglong2 *)dst)[1] = make_ulonglong2(quad.w[2], quad.w[3]);
	}
}

/* --- Symbols --- */

/* Finds a slot's symbol in tables of struct wcx_rans_decode_table's entries, in shared memory. */
struct wcx_fast_lookup {
	uint32_t tables, chosen; /* addresses */

	__device__ __forceinline__ void choose(uint32_t choice)
	{
		chosen = tables + choice * (uint32_t)sizeof(struct wcx_rans_decode_table);
	}

	__device__ __forceinline__ uint32_t entry(uint32_t state) const
	{
		return wcx_shared_u32(chosen + state % WCX_PROB_SCALE * 4);
	}
};

/* The same without such tables, by looking for the last start up to the slot: for coded fields other than the carrier. */
struct wcx_slow_lookup {
	const struct wcx_batch_table *tables, *table;

	__device__ __forceinline__ void choose(uint32_t choice)
	{
		table = tables + choice;
	}

	__device__ __forceinline__ uint32_t entry(uint32_t state) const
	{
		const uint32_t slot = state % WCX_PROB_SCALE;
		uint32_t symbol = 0;

		for (uint32_t step = WCX_SYMBOL_COUNT / 2; step > 0; step /= 2)
			symbol += __ldg(&table->start[symbol + step]) <= slot ? step : 0;
		const uint32_t start = __ldg(&table->start[symbol]), end = __ldg(&table->start[symbol + 1]);

		return (slot - start) << 20 | (end - start) << 8 | symbol;
	}
};

/* Which table a run of groups has. */
struct wcx_choices {
	const uint8_t *packed;
	uint32_t bits;

	__device__ __forceinline__ uint32_t of_run(uint32_t run) const
	{
		return bits ? __ldg(packed + run * bits / 8) >> run * bits % 8 & wcx_low_mask(bits) : 0;
	}
};

/*
 * Where a warp stands in a payload; what is not marked is the same in all lanes.
 *
 * Words come from a ring in shared memory, which is kept full: a word that each step had to get from the device's memory
 * would keep the warp waiting for most of the time.  A chunk is loaded into registers while the one before it is in use.
 * The ring is there twice, one copy behind the other, so that a group's words lie in a row wherever they start.
 */
struct wcx_rans_reader {
	uint32_t *ring;         /* the warp's own: 2 * WCX_RING_PAIRS */
	const uint32_t *source; /* of the lane's pairs of words in the chunk behind ahead's */
	uint32_t ahead[2];      /* the lane's pairs in the chunk that comes into the ring next */
	uint32_t word_count, position, staged; /* words of the payload, that are taken, that have come into the ring */
	uint32_t state;                        /* the lane's own */
	uint32_t lower_lanes;                  /* a bit for each; the lane's own */
};

static __device__ __forceinline__ void wcx_reader_load_ahead(struct wcx_rans_reader *reader)
{
	reader->ahead[0] = __ldg(reader->source);
	reader->ahead[1] = __ldg(reader->source + WCX_RANS_LANES);
	reader->source += WCX_RING_CHUNK / 2;
}

static __device__ __forceinline__ void wcx_reader_load_chunk(struct wcx_rans_reader *reader)
{
	uint32_t *pair = reader->ring + reader->staged / 2 % WCX_RING_PAIRS + wcx_lane();

	__syncwarp(); /* the words that make room have been read, by all lanes */
	pair[0] = pair[WCX_RING_PAIRS] = reader->ahead[0];
	pair[WCX_RANS_LANES] = pair[WCX_RING_PAIRS + WCX_RANS_LANES] = reader->ahead[1];
	wcx_reader_load_ahead(reader);
	reader->staged += WCX_RING_CHUNK;
	__syncwarp();
}

static __device__ __forceinline__ void wcx_reader_open(const uint8_t *payload, uint32_t payload_bytes, uint32_t *ring,
						       struct wcx_rans_reader *ret)
{
	ret->ring = ring;
	ret->state = __ldg((const uint32_t *)payload + wcx_lane());
	ret->source = (const uint32_t *)(payload + WCX_RANS_STATE_BYTES) + wcx_lane();
	ret->word_count = (payload_bytes - WCX_RANS_STATE_BYTES) / 2;
	ret->position = ret->staged = 0;
	ret->lower_lanes = (1u << wcx_lane()) - 1;
	wcx_reader_load_ahead(ret);
	wcx_reader_load_chunk(ret);
}

/*
 * Has the words of the next group in the ring; false if more have been taken than there are.  As that is asked before
 * anything is loaded, loads reach no further than a ring and a chunk behind the payload.
 */
static __device__ __forceinline__ bool wcx_reader_refill(struct wcx_rans_reader *reader)
{
	static_assert(2 * (WCX_RING_WORDS + WCX_RING_CHUNK) <= WCX_BATCH_SRC_SLACK, "loads stay in the batch");
	static_assert(WCX_RING_CHUNK == WCX_RANS_GROUP && WCX_RING_WORDS == 2 * WCX_RING_CHUNK, "one chunk is enough");
	if (reader->staged - reader->position > WCX_RING_WORDS - WCX_RING_CHUNK)
		return true;
	if (reader->position > reader->word_count)
		return false;
	wcx_reader_load_chunk(reader);
	return true;
}

/*
 * One step of all lanes, or with `some` of those that are active; the table's entry has the symbol in its low byte.  Words
 * that lanes want are handed out from address *next on by counting the votes of the lanes below.  All lanes read one, wanted
 * or not: that is cheaper than asking.
 */
template <bool some, typename lookup>
static __device__ __forceinline__ uint32_t wcx_rans_step(struct wcx_rans_reader *reader, const lookup &symbols, bool active,
							 uint32_t *next)
{
	const uint32_t entry = symbols.entry(reader->state);
	const uint32_t state = (entry >> 8 & 0xFFF) * (reader->state >> WCX_PROB_BITS) + (entry >> 20);
	const bool wanting = (!some || active) && state < WCX_RANS_LOW;
	const uint32_t votes = __ballot_sync(WCX_ALL_LANES, wanting);
	const uint32_t word = wcx_shared_u16(*next + 2 * __popc(votes & reader->lower_lanes));

	*next += 2 * __popc(votes);
	if (!some || active)
		reader->state = wanting ? state << 16 | word : state;
	return entry;
}

/*
 * A group of 128 symbols, of which the lane has the first `active` of its four; false if more words have been taken than
 * there are, which may be found out only later.
 */
template <bool some, typename lookup>
static __device__ __forceinline__ bool wcx_rans_group(struct wcx_rans_reader *reader, const lookup &symbols, uint32_t active,
						      uint32_t entry[WCX_RANS_LANE_SYMBOLS])
{
	if (!wcx_reader_refill(reader))
		return false;
	const uint32_t first = wcx_shared_address(reader->ring) + reader->position % WCX_RING_WORDS * 2;
	uint32_t next = first;

#pragma unroll
	for (uint32_t k = 0; k < WCX_RANS_LANE_SYMBOLS; k++)
		entry[k] = wcx_rans_step<some>(reader, symbols, k < active, &next);
	reader->position += (next - first) / 2;
	return true;
}

/* Whether a payload ended as it must: all words taken, and the low halves of the states 0 unless they carry bytes. */
static __device__ __forceinline__ bool wcx_reader_is_done(const struct wcx_rans_reader &reader, bool carrying)
{
	const bool fits = carrying ? reader.state >> 16 == 1 : reader.state == WCX_RANS_LOW;

	return __all_sync(WCX_ALL_LANES, fits) && reader.position == reader.word_count;
}

static __device__ __forceinline__ uint32_t wcx_entry_value(uint32_t entry, uint32_t base)
{
	const uint32_t symbol = entry & 0xFF;

	return symbol ? base + symbol : 0;
}

/* The four elements that have nothing but these symbols. */
template <typename elem>
static __device__ __forceinline__ wcx_quad<elem> wcx_quad_of_entries(const uint32_t entry[4], uint32_t base, uint32_t shift)
{
	wcx_quad<elem> quad;

	if constexpr (sizeof(elem) == 1) {
		quad.w[0] = __byte_perm(__byte_perm(entry[0], entry[1], 0x0040), __byte_perm(entry[2], entry[3], 0x0040),
					0x5410)
			    << shift;
	} else if constexpr (sizeof(elem) == 2) {
#pragma unroll
		for (uint32_t i = 0; i < 2; i++)
			quad.w[i] = (wcx_entry_value(entry[2 * i], base) | wcx_entry_value(entry[2 * i + 1], base) << 16)
				    << shift;
	} else {
#pragma unroll
		for (uint32_t i = 0; i < 4; i++)
			quad.w[i] = (typename wcx_quad<elem>::word)wcx_entry_value(entry[i], base) << shift;
	}
	return quad;
}

/* --- Raw planes --- */

/* What a plane has for four neighbouring elements, from the lowest bit on; high is for planes of 32 bits. */
struct wcx_quad_bits {
	uint64_t low, high;
};

static __device__ __forceinline__ uint64_t wcx_load_pair(const uint32_t *pair)
{
	return __ldg(pair) | (uint64_t)__ldg(pair + 1) << 32;
}

/* Of elements [4 quad_index, 4 quad_index + 4); all their bits must be in the plane, which is aligned to 4 bytes. */
template <uint32_t width>
static __device__ __forceinline__ wcx_quad_bits wcx_plane_load(const uint8_t *plane, uint32_t quad_index)
{
	const uint32_t *words = (const uint32_t *)plane;

	if constexpr (width == 1)
		return { (uint64_t)__ldg(plane + quad_index / 2) >> 4 * (quad_index % 2), 0 };
	else if constexpr (width == 2)
		return { __ldg(plane + quad_index), 0 };
	else if constexpr (width == 4)
		return { __ldg((const uint16_t *)plane + quad_index), 0 };
	else if constexpr (width == 8)
		return { __ldg(words + quad_index), 0 };
	else if constexpr (width == 16)
		return { wcx_load_pair(words + 2 * quad_index), 0 };
	return { wcx_load_pair(words + 4 * quad_index), wcx_load_pair(words + 4 * quad_index + 2) };
}

/* Gives the elements of one word their bits, which are the lowest; bits beyond those may be anything up to a byte's end. */
template <typename elem, uint32_t width>
static __device__ __forceinline__ typename wcx_quad<elem>::word wcx_spread(uint64_t bits)
{
	const uint32_t low = (uint32_t)bits;

	if constexpr (sizeof(elem) == 1) {
		const uint32_t pairs = (low | low << (16 - 2 * width)) & ((1u << 2 * width) - 1) * 0x00010001u;

		return (pairs | pairs << (8 - width)) & ((1u << width) - 1) * 0x01010101u;
	} else if constexpr (sizeof(elem) == 2 && width == 8) {
		return __byte_perm(low, 0, 0x4140);
	} else if constexpr (sizeof(elem) == 2) {
		return (low | low << (16 - width)) & ((1u << width) - 1) * 0x00010001u;
	}
	return low & wcx_low_mask(width);
}

template <typename elem, uint32_t width>
static __device__ __forceinline__ void wcx_plane_add(const wcx_quad_bits &bits, uint32_t shift, wcx_quad<elem> *quad)
{
	using quads = wcx_quad<elem>;
	constexpr uint32_t word_bits = quads::word_elems * width;

	static_assert(width < quads::elem_bits, "an element of nothing but raw bits is not coded");
#pragma unroll
	for (uint32_t i = 0; i < quads::words; i++) {
		const uint64_t part = i * word_bits < 64 ? bits.low >> i * word_bits % 64 : bits.high >> i * word_bits % 64;

		quad->w[i] |= wcx_spread<elem, width>(part) << shift;
	}
}

/* The planes of a raw field of so many bits below the carrier, which have known widths: see wcx_tile_item.low_bits. */
template <uint32_t low_bits> struct wcx_low_planes {
	static constexpr uint32_t width = low_bits >= 8 ? 8 : low_bits >= 4 ? 4 : low_bits >= 2 ? 2 : 1;
	static constexpr uint32_t symbol_shift = low_bits;
	const uint8_t *plane;
	wcx_quad_bits bits;
	wcx_low_planes<low_bits - width> upper;

	__device__ __forceinline__ void open(const uint8_t *src, const struct wcx_tile_item &item, uint32_t p = 0)
	{
		plane = src + item.layout.planes[p].offset;
		upper.open(src, item, p + 1);
	}

	__device__ __forceinline__ void load(uint32_t quad_index)
	{
		bits = wcx_plane_load<width>(plane, quad_index);
		upper.load(quad_index);
	}

	template <typename elem>
	__device__ __forceinline__ void add(uint32_t quad_index, wcx_quad<elem> *quad, uint32_t shift = 0) const
	{
		wcx_plane_add<elem, width>(bits, shift, quad);
		upper.add(quad_index, quad, shift + width);
	}
};

template <> struct wcx_low_planes<0> {
	static constexpr uint32_t symbol_shift = 0;

	__device__ __forceinline__ void open(const uint8_t *, const struct wcx_tile_item &, uint32_t = 0)
	{
	}

	__device__ __forceinline__ void load(uint32_t)
	{
	}

	template <typename elem> __device__ __forceinline__ void add(uint32_t, wcx_quad<elem> *, uint32_t = 0) const
	{
	}
};

/* Whatever planes, constant bits and place of the carrier an item has. */
struct wcx_any_planes {
	const uint8_t *src;
	const struct wcx_tile_layout *layout;
	uint32_t symbol_shift;

	__device__ __forceinline__ void open(const uint8_t *tile_src, const struct wcx_tile_item &item)
	{
		src = tile_src;
		layout = &item.layout;
		symbol_shift = layout->coded[layout->coded_count - 1].shift;
	}

	__device__ __forceinline__ void load(uint32_t)
	{
	}

	template <typename elem, uint32_t width>
	static __device__ __forceinline__ void add_plane(const uint8_t *plane, uint32_t shift, uint32_t quad_index,
							 wcx_quad<elem> *quad)
	{
		if constexpr (width < 8 * sizeof(elem))
			wcx_plane_add<elem, width>(wcx_plane_load<width>(plane, quad_index), shift, quad);
	}

	template <typename elem> __device__ __forceinline__ void add(uint32_t quad_index, wcx_quad<elem> *quad) const
	{
		const auto constant = wcx_repeat<elem>((elem)__ldg(&layout->constant_bits));

#pragma unroll
		for (uint32_t i = 0; i < quad->words; i++)
			quad->w[i] |= constant;
		for (uint32_t p = 0; p < layout->plane_count; p++) {
			const uint8_t *plane = src + layout->planes[p].offset;
			const uint32_t shift = layout->planes[p].shift;

			switch (layout->planes[p].width) {
			case 1:
				add_plane<elem, 1>(plane, shift, quad_index, quad);
				break;
			case 2:
				add_plane<elem, 2>(plane, shift, quad_index, quad);
				break;
			case 4:
				add_plane<elem, 4>(plane, shift, quad_index, quad);
				break;
			case 8:
				add_plane<elem, 8>(plane, shift, quad_index, quad);
				break;
			case 16:
				add_plane<elem, 16>(plane, shift, quad_index, quad);
				break;
			case 32:
				add_plane<elem, 32>(plane, shift, quad_index, quad);
				break;
			}
		}
	}
};

/* The bits of one element; 0 where they are not among the plane's bytes. */
static __device__ __forceinline__ uint32_t wcx_plane_value(const uint8_t *plane, uint32_t plane_bytes, uint32_t width,
							   uint32_t index)
{
	const uint32_t bit = index * width;

	if (bit / 8 >= plane_bytes)
		return 0;
	switch (width) {
	case 8:
		return __ldg(plane + index);
	case 16:
		return __ldg((const uint16_t *)plane + index);
	case 32:
		return __ldg((const uint32_t *)plane + index);
	}
	return __ldg(plane + bit / 8) >> bit % 8 & wcx_low_mask(width);
}

/* --- A tile's parts --- */

/* A tile in the making. */
template <typename elem> struct wcx_tile_view {
	const struct wcx_tile_item &item;
	const uint8_t *src;
	elem *dst;
	uint32_t count;
	uint32_t rotation; /* of what is stored: 0 or 1 */
};

/* The carrier's symbols and all else that is not coded, in the whole groups; false if the payload has too few words. */
template <typename elem, typename planes_type>
static __device__ __forceinline__ bool wcx_decode_groups(const wcx_tile_view<elem> &tile, const wcx_choices &choices,
							 wcx_fast_lookup *symbols, struct wcx_rans_reader *reader)
{
	const uint32_t group_count = tile.item.whole_groups, run_groups = tile.item.run_groups;
	const uint32_t base = tile.item.coded[tile.item.layout.coded_count - 1].base;
	const uint32_t rotation = tile.rotation;
	elem *const dst = tile.dst;
	planes_type planes;

	planes.open(tile.src, tile.item);
	for (uint32_t run = 0; run * run_groups < group_count; run++) {
		const uint32_t stop = min(group_count, (run + 1) * run_groups) * WCX_RANS_LANES;

		symbols->choose(choices.of_run(run));
		for (uint32_t i = run * run_groups * WCX_RANS_LANES + wcx_lane(); i < stop; i += WCX_RANS_LANES) {
			uint32_t entry[WCX_RANS_LANE_SYMBOLS];

			planes.load(i);
			if (!wcx_rans_group<false>(reader, *symbols, WCX_RANS_LANE_SYMBOLS, entry))
				return false;
			wcx_quad<elem> quad = wcx_quad_of_entries<elem>(entry, base, planes.symbol_shift);

			planes.add(i, &quad);
			if (rotation)
				wcx_quad_rotate_right(&quad);
			wcx_quad_store(quad, dst + 4 * i);
		}
	}
	return true;
}

/* The same with the loop that was made for the item's planes. */
template <typename elem, uint32_t low_bits, uint32_t low_bits_end>
static __device__ __forceinline__ bool wcx_decode_low_groups(const wcx_tile_view<elem> &tile, const wcx_choices &choices,
							     wcx_fast_lookup *symbols, struct wcx_rans_reader *reader)
{
	if constexpr (low_bits == low_bits_end) {
		return wcx_decode_groups<elem, wcx_any_planes>(tile, choices, symbols, reader);
	} else {
		if (tile.item.low_bits == low_bits)
			return wcx_decode_groups<elem, wcx_low_planes<low_bits>>(tile, choices, symbols, reader);
		return wcx_decode_low_groups<elem, low_bits + 1, low_bits_end>(tile, choices, symbols, reader);
	}
}

/* All that is not coded, from element `first` on. */
template <typename elem> static __device__ void wcx_put_raw(const wcx_tile_view<elem> &tile, uint32_t first)
{
	const struct wcx_tile_layout &layout = tile.item.layout;

	for (uint32_t i = first + wcx_lane(); i < tile.count; i += WCX_RANS_LANES) {
		elem value = (elem)layout.constant_bits;

		for (uint32_t p = 0; p < layout.plane_count; p++) {
			const struct wcx_raw_plane &plane = layout.planes[p];
			const uint32_t missing = p + 1 == layout.plane_count ? layout.plane_carried : 0;
			const uint32_t bytes = (tile.count * plane.width + 7) / 8 - missing;

			value |= (elem)wcx_plane_value(tile.src + plane.offset, bytes, plane.width, i) << plane.shift;
		}
		tile.dst[i] = wcx_rotate_right(value, tile.rotation);
	}
}

/* Adds the symbols of coded field c to elements that are there, from a group on; false if the payload has too few words. */
template <typename elem, typename lookup>
static __device__ bool wcx_add_symbols(const wcx_tile_view<elem> &tile, uint32_t c, uint32_t first_group,
				       const wcx_choices &choices, lookup symbols, struct wcx_rans_reader *reader)
{
	const uint32_t base = tile.item.coded[c].base, shift = tile.item.layout.coded[c].shift;

	__syncwarp(); /* other lanes have stored the elements */
	for (uint32_t group = first_group; group * WCX_RANS_GROUP < tile.count; group++) {
		const uint32_t first = group * WCX_RANS_GROUP + WCX_RANS_LANE_SYMBOLS * wcx_lane();
		const uint32_t active = first < tile.count ? tile.count - first : 0;
		uint32_t entry[WCX_RANS_LANE_SYMBOLS];

		symbols.choose(choices.of_run(group / tile.item.run_groups));
		if (!wcx_rans_group<true>(reader, symbols, active, entry))
			return false;
#pragma unroll
		for (uint32_t k = 0; k < WCX_RANS_LANE_SYMBOLS; k++)
			if (k < active)
				tile.dst[first + k] |= wcx_rotate_right(
					(elem)((elem)wcx_entry_value(entry[k], base) << shift), tile.rotation);
	}
	return true;
}

/* Adds the bits of the last plane that its final states carry: a lane takes every 32nd of the elements that have some. */
template <typename elem> static __device__ void wcx_add_carried(const wcx_tile_view<elem> &tile, uint32_t state)
{
	const struct wcx_raw_plane &plane = tile.item.layout.planes[tile.item.layout.plane_count - 1];
	const uint32_t plane_bits = (tile.count * plane.width + 7) / 8 * 8;
	const uint32_t first_bit = plane_bits - 8 * WCX_CARRIED_BYTES;

	__syncwarp(); /* other lanes have stored the elements */
	for (uint32_t first = first_bit / plane.width; first < tile.count; first += WCX_RANS_LANES) {
		const uint32_t i = first + wcx_lane(), bit = i * plane.width - first_bit;
		const uint32_t low = __shfl_sync(WCX_ALL_LANES, state & 0xFFFF, bit / 16);
		const uint32_t high = __shfl_sync(WCX_ALL_LANES, state & 0xFFFF, bit / 16 + 1);
		const uint32_t value = (high << 16 | low) >> bit % 16 & wcx_low_mask(plane.width);

		if (i < tile.count)
			tile.dst[i] |= wcx_rotate_right((elem)((elem)value << plane.shift), tile.rotation);
	}
}

/*
 * Puts the exceptions in the place of what the carrier's symbols have left, one a lane; false if they are not sound.  A half
 * is two bytes of theirs, of which the lanes' final states may have the last.
 */
template <typename elem>
static __device__ bool wcx_put_exceptions(const wcx_tile_view<elem> &tile, uint32_t carrier, uint32_t state)
{
	const struct wcx_tile_layout &layout = tile.item.layout;
	const uint32_t count = layout.exception_count, width = tile.item.coded[carrier].width;
	const uint32_t stored_halves = (layout.exception_bytes - layout.exception_carried) / 2;
	const uint16_t *halves = (const uint16_t *)(tile.src + layout.exception_offset);
	const auto half_of = [=](uint32_t number) -> uint32_t {
		const uint32_t carried = __shfl_sync(WCX_ALL_LANES, state & 0xFFFF, number - stored_halves);

		return number < stored_halves ? __ldg(halves + number) : carried;
	};
	const uint32_t shift = layout.coded[carrier].shift;
	const elem field = wcx_rotate_right((elem)((elem)wcx_low_mask(width) << shift), tile.rotation);
	uint32_t after = 0; /* the least that the first lane's position may be */

	__syncwarp(); /* other lanes have stored the elements */
	for (uint32_t first = 0; first < count; first += WCX_RANS_LANES) {
		const uint32_t i = first + wcx_lane(), position = half_of(i);
		const uint32_t half = half_of(width > 8 ? count + i : count + i / 2);
		const uint32_t value = width > 8 ? half : half >> 8 * (i % 2) & 0xFF;
		const uint32_t before = __shfl_up_sync(WCX_ALL_LANES, position, 1);
		const uint32_t least = wcx_lane() == 0 ? after : before + 1;
		const bool sound = position >= least && position < tile.count && value >> width == 0;

		if (!__all_sync(WCX_ALL_LANES, i >= count || sound))
			return false;
		if (i < count)
			tile.dst[position] = (tile.dst[position] & ~field) |
					     wcx_rotate_right((elem)((elem)value << shift), tile.rotation);
		after = __shfl_sync(WCX_ALL_LANES, position, WCX_RANS_LANES - 1) + 1;
	}
	return true;
}

/* --- Predictors --- */

/* The sum of the values in this lane and those below it. */
template <typename word> static __device__ __forceinline__ word wcx_warp_sum_upto(word value)
{
	for (uint32_t distance = 1; distance < WCX_RANS_LANES; distance *= 2) {
		const word below = __shfl_up_sync(WCX_ALL_LANES, value, distance);

		value += wcx_lane() >= distance ? below : 0;
	}
	return value;
}

/*
 * LEFT: sums along the rows, 32 elements at a time whatever the rows' length.  An element's sum begins at the last row that
 * starts in the 32 at or before it; where none does, it goes on from the 32 before.
 */
template <typename elem> static __device__ void wcx_undo_left(const wcx_tile_view<elem> &tile, uint32_t rotation)
{
	using word = typename wcx_quad<elem>::word;
	const uint32_t upto_lane = 0xFFFFFFFFu >> (WCX_RANS_LANES - 1 - wcx_lane());
	const uint32_t cols = tile.item.cols;
	uint32_t col = wcx_lane() % cols;
	word carry = 0;

	for (uint32_t start = 0; start < tile.count; start += WCX_RANS_LANES) {
		const uint32_t i = start + wcx_lane();
		const word residual = i < tile.count ? tile.dst[i] : 0;
		const word sum = wcx_warp_sum_upto(residual);
		const uint32_t row_starts = __ballot_sync(WCX_ALL_LANES, col == 0) & upto_lane;
		const uint32_t row_start = row_starts ? WCX_RANS_LANES - 1 - __clz(row_starts) : 0;
		const word before_row = __shfl_sync(WCX_ALL_LANES, (word)(sum - residual), row_start);
		const word value = sum + (row_starts ? 0 - before_row : carry);

		if (i < tile.count)
			tile.dst[i] = wcx_rotate_right((elem)value, rotation);
		carry = __shfl_sync(WCX_ALL_LANES, value, WCX_RANS_LANES - 1);
		col = (col + WCX_RANS_LANES) % cols;
	}
}

/* UP: sums down the columns, one a lane. */
template <typename elem> static __device__ void wcx_undo_up(const wcx_tile_view<elem> &tile, uint32_t rotation)
{
	const uint32_t cols = tile.item.cols;

	for (uint32_t col = wcx_lane(); col < cols; col += WCX_RANS_LANES) {
		elem value = 0;

		for (uint32_t i = col; i < tile.count; i += cols) {
			value += tile.dst[i];
			tile.dst[i] = wcx_rotate_right(value, rotation);
		}
	}
}

template <typename elem> static __device__ void wcx_undo_predictor(const wcx_tile_view<elem> &tile)
{
	const uint32_t rotation = tile.item.rotation;

	__syncwarp(); /* other lanes' residuals are read below */
	switch (tile.item.predictor) {
	case WCX_PREDICT_LEFT2:
		wcx_undo_left(tile, 0);
		__syncwarp();
		wcx_undo_left(tile, rotation);
		break;
	case WCX_PREDICT_LEFT:
		wcx_undo_left(tile, rotation);
		break;
	case WCX_PREDICT_UP:
		wcx_undo_up(tile, rotation);
		break;
	}
}

/* --- Tiles --- */

/* Elements of one and two bytes have loops for the numbers of low bits that the packer gives them. */
template <typename elem>
static __device__ __forceinline__ bool wcx_decode_whole_groups(const wcx_tile_view<elem> &tile, const wcx_choices &choices,
							       wcx_fast_lookup *symbols, struct wcx_rans_reader *reader)
{
	if constexpr (sizeof(elem) == 1)
		return wcx_decode_low_groups<elem, 0, 5>(tile, choices, symbols, reader);
	else if constexpr (sizeof(elem) == 2)
		return wcx_decode_low_groups<elem, 5, 12>(tile, choices, symbols, reader);
	return wcx_decode_groups<elem, wcx_any_planes>(tile, choices, symbols, reader);
}

template <typename elem>
static __device__ __forceinline__ wcx_choices wcx_payload_open(const wcx_tile_view<elem> &tile, uint32_t c, uint32_t *ring,
							       struct wcx_rans_reader *reader)
{
	const struct wcx_coded_field &coded = tile.item.layout.coded[c];
	const uint32_t bits = tile.item.coded[c].choice_bits;
	const uint32_t run_elems = tile.item.run_groups * WCX_RANS_GROUP;
	const uint32_t choices_bytes = ((tile.count + run_elems - 1) / run_elems * bits + 31) / 32 * 4;

	wcx_reader_open(tile.src + coded.offset, coded.bytes, ring, reader);
	return { tile.src + coded.offset - choices_bytes, bits };
}

/* A tile that has a carrier. */
template <typename elem>
static __device__ __forceinline__ bool wcx_decode_carrier(const wcx_tile_view<elem> &tile, const uint32_t *entries,
							  uint32_t *ring)
{
	const uint32_t carrier = tile.item.layout.coded_count - 1, whole_groups = tile.item.whole_groups;
	const struct wcx_tile_layout &layout = tile.item.layout;
	wcx_fast_lookup symbols = { wcx_shared_address(entries), 0 };
	struct wcx_rans_reader reader;
	const wcx_choices choices = wcx_payload_open(tile, carrier, ring, &reader);

	if (!wcx_decode_whole_groups(tile, choices, &symbols, &reader))
		return false;
	wcx_put_raw(tile, whole_groups * WCX_RANS_GROUP);
	if (!wcx_add_symbols(tile, carrier, whole_groups, choices, symbols, &reader))
		return false;
	if (!wcx_reader_is_done(reader, layout.plane_carried || layout.exception_carried))
		return false;
	if (layout.plane_carried)
		wcx_add_carried(tile, reader.state);
	return wcx_put_exceptions(tile, carrier, reader.state);
}

/* entries are the decoding tables of the carrier. */
template <typename elem>
static __device__ __forceinline__ bool wcx_decode_tile(const wcx_tile_view<elem> &tile, const struct wcx_batch_dev &batch,
						       const uint32_t *entries, uint32_t *ring)
{
	const uint32_t coded_count = tile.item.layout.coded_count;

	if (coded_count == 0)
		wcx_put_raw(tile, 0);
	else if (!wcx_decode_carrier(tile, entries, ring))
		return false;
	for (uint32_t c = 0; c + 1 < coded_count; c++) {
		const wcx_slow_lookup symbols = { batch.tables + tile.item.coded[c].table, nullptr };
		struct wcx_rans_reader reader;
		const wcx_choices choices = wcx_payload_open(tile, c, ring, &reader);

		if (!wcx_add_symbols(tile, c, 0, choices, symbols, &reader) || !wcx_reader_is_done(reader, false))
			return false;
	}
	wcx_undo_predictor(tile);
	return true;
}

/* Fills entries for tables with all threads of the block: the warps take turns at symbols, the lanes at a symbol's slots. */
static __device__ void wcx_entries_build(const struct wcx_batch_table *tables, uint32_t table_count, uint32_t *entries)
{
	const uint32_t warp = threadIdx.x / WCX_RANS_LANES, warp_count = blockDim.x / WCX_RANS_LANES;

	for (uint32_t i = warp; i < table_count * WCX_SYMBOL_COUNT; i += warp_count) {
		const uint32_t table = i / WCX_SYMBOL_COUNT, symbol = i % WCX_SYMBOL_COUNT;
		const uint32_t start = tables[table].start[symbol], freq = tables[table].start[symbol + 1] - start;

		for (uint32_t bias = wcx_lane(); bias < freq; bias += WCX_RANS_LANES)
			entries[table * WCX_PROB_SCALE + start + bias] = bias << 20 | freq << 8 | symbol;
	}
	__syncthreads();
}

/*
 * A launch of batch.slots, whose carriers all have table_count tables.  The items of a block have the same ones, those of
 * the first.  Shared memory: table_count decoding tables, and a ring for each warp.
 */
template <typename elem>
static __global__ void __launch_bounds__(WCX_BLOCK_MAX_THREADS, WCX_LARGE_BLOCKS_PER_SM)
	wcx_decode_tiles(struct wcx_batch_dev batch, uint32_t table_count)
{
	extern __shared__ uint32_t wcx_entries[];
	const uint32_t warp = threadIdx.x / WCX_RANS_LANES;
	const uint32_t first_slot = blockIdx.x * (blockDim.x / WCX_RANS_LANES);
	const struct wcx_tile_item &first = batch.items[batch.slots[first_slot]];
	const uint32_t number = batch.slots[first_slot + warp];

	if (first.layout.coded_count)
		wcx_entries_build(batch.tables + first.coded[first.layout.coded_count - 1].table, table_count, wcx_entries);
	if (number == WCX_NO_ITEM)
		return;
	const struct wcx_tile_item &item = batch.items[number];
	const uint32_t rotation = item.predictor == WCX_PREDICT_NONE ? item.rotation : 0;
	const wcx_tile_view<elem> tile = { item, batch.src + item.src_offset, (elem *)(batch.dst + item.dst_offset),
					   item.rows * item.cols, rotation };
	uint32_t *ring = wcx_entries + table_count * WCX_PROB_SCALE + warp * 2 * WCX_RING_PAIRS;
	const bool sound = wcx_decode_tile(tile, batch, wcx_entries, ring);

	if (wcx_lane() == 0)
		batch.status[number] = sound ? WCX_OK : WCX_BAD_DATA;
}

static inline const void *wcx_kernel_of(uint32_t elem_bytes)
{
	switch (elem_bytes) {
	case 1:
		return (const void *)wcx_decode_tiles<uint8_t>;
	case 2:
		return (const void *)wcx_decode_tiles<uint16_t>;
	case 4:
		return (const void *)wcx_decode_tiles<uint32_t>;
	}
	return (const void *)wcx_decode_tiles<uint64_t>;
}

static inline uint32_t wcx_shared_bytes(uint32_t table_count, uint32_t block_items)
{
	return (uint32_t)sizeof(uint32_t) * (table_count * WCX_PROB_SCALE + block_items * 2 * WCX_RING_PAIRS);
}

/* Starts the kernels on the launches' slots. */
static inline cudaError_t wcx_launch_decode(const struct wcx_batch_dev &batch, const struct wcx_batch_launch *launches,
					    uint32_t launch_count, cudaStream_t stream)
{
	cudaError_t error = cudaSuccess;

	for (uint32_t i = 0; i < launch_count && !error; i++) {
		const struct wcx_batch_launch &launch = launches[i];
		const void *kernel = wcx_kernel_of(launch.elem_bytes);
		const uint32_t block_items = wcx_block_items(launch.table_count);
		struct wcx_batch_dev part = batch;
		uint32_t table_count = launch.table_count;
		void *arguments[] = { &part, &table_count };

		part.slots += launch.first_slot;
		/* Always to the same: other threads launch too. */
		error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
					     (int)wcx_shared_bytes(WCX_FIELD_TABLES_MAX, WCX_BLOCK_MAX_ITEMS));
		if (!error)
			error = cudaLaunchKernel(kernel, dim3(launch.slots / block_items),
						 dim3(block_items * WCX_RANS_LANES), arguments,
						 wcx_shared_bytes(table_count, block_items), stream);
	}
	return error;
}

#endif
