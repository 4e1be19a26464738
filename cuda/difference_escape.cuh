/* SPDX-License-Identifier: MIT */
/* Differences that a step or two of a fused kernel decodes: bytes, and two-byte floats with escapes (docs/gpu.md). */
#ifndef WCX_DIFFERENCE_ESCAPE_CUH
#define WCX_DIFFERENCE_ESCAPE_CUH

#include "cuda/difference_format.cuh"

enum {
	WCX_ESCAPE_LINES = 64, /* whose escapes are noted before their values are looked up */
	WCX_ESCAPE_BITS_BYTES = WCX_ESCAPE_LINES * 2 * 4,
	WCX_ESCAPE_NOTES_AT = WCX_ESCAPE_BITS_BYTES + WCX_LANES * 4,
	WCX_ESCAPES_BYTES = WCX_ESCAPE_NOTES_AT + 32, /* shared memory of a warp */
	WCX_COARSE_TABLE_BYTES = WCX_PROB_SCALE,      /* an entry of four bytes for four slots */
};

/* --- Differences --- */

/* Bytes in the order of integers: one symbol, or pairs. */
struct wcx_fused_bytes : wcx_byte_differences {
	static constexpr bool has_escapes = false, computes_tables = false;

	__device__ __forceinline__ wcx_fused_bytes(const struct wcx_batch_kind &kind) : wcx_byte_differences(kind)
	{
		order = 0;
	}
};

struct wcx_fused_byte_pairs : wcx_byte_pair_differences {
	static constexpr bool has_escapes = false, computes_tables = false;

	__device__ __forceinline__ wcx_fused_byte_pairs(const struct wcx_batch_kind &kind) : wcx_byte_pair_differences(kind)
	{
	}
};

/* Two-byte floats with escapes, whose tables are coarse and aligned to their size. */
struct wcx_fused_escapes : wcx_half_differences<0> {
	static constexpr bool has_escapes = true, computes_tables = false;

	__device__ __forceinline__ wcx_fused_escapes(const struct wcx_batch_kind &kind) : wcx_half_differences<0>(kind)
	{
	}
};

/*
 * The same where the thresholds are consecutive keys, so that the context is the key less the one before them, within
 * bounds.  That takes no load, for both elements of a word at once.
 */
struct wcx_fused_ladder : wcx_fused_escapes {
	static constexpr bool computes_tables = true;
	static constexpr uint32_t key_shift = 7;
	uint32_t before,
		last; /* less the key before the first threshold; the last context: in both halves, at the key's bits */

	__device__ __forceinline__ wcx_fused_ladder(const struct wcx_batch_kind &kind) : wcx_fused_escapes(kind)
	{
		const struct wcx_batch_field &field = kind.coded[0];

		before = (0x10000u - ((kind.thresholds[0] - 1u) << key_shift)) % 0x10000 * 0x00010001;
		last = (field.by_context ? field.table_count - 1u : 0) * (0x00010001u << key_shift);
	}

	__device__ __forceinline__ void find_tables(uint32_t tables, uint32_t base, const struct wcx_factors &factors,
						    uint32_t ret[2]) const
	{
		constexpr uint32_t shift = 16 + key_shift - 12; /* a table has 2^12 bytes */
		const uint32_t contexts = __viaddmin_s16x2_relu(base & 0x7F807F80, before, last);

		static_assert(WCX_COARSE_TABLE_BYTES == 1 << 12, "see shift");
		ret[0] = tables + (contexts * factors.k16 >> shift);
		ret[1] = tables + (contexts >> shift);
	}
};

/* --- Steps --- */

/* The entry of a state in a table, which is coarse if there are escapes. */
template <typename difference_type>
static __device__ __forceinline__ uint32_t wcx_fused_entry(uint32_t state, uint32_t table, const struct wcx_factors &factors)
{
	if constexpr (difference_type::has_escapes)
		return wcx_shared_u32(wcx_mask_or<WCX_COARSE_TABLE_BYTES - 4>(state, table));
	else
		return wcx_table_at{ table, factors.k4 }.entry(state);
}

/*
 * The state after a step, before words, from wcx_next_state.  With a coarse table, where frequencies, starts and the
 * correction for the first of four slots are multiples of four, that is too large by less than four, and the new state's
 * last two bits are the old one's.
 */
template <typename difference_type> static __device__ __forceinline__ uint32_t wcx_fused_state(uint32_t old, uint32_t sum)
{
	return difference_type::has_escapes ? wcx_select_bits(3, old, sum) : sum;
}

/* A step as wcx_rans_step. */
template <typename difference_type, bool partial>
static __device__ __forceinline__ uint32_t wcx_fused_step(struct wcx_word_reader *reader, uint32_t table, bool active,
							  const struct wcx_factors &factors)
{
	const uint32_t entry = wcx_fused_entry<difference_type>(reader->state, table, factors);
	const uint32_t sum = wcx_next_state(reader->state, entry, factors);

	wcx_take_word<partial>(reader, wcx_fused_state<difference_type>(reader->state, sum), sum < WCX_RANS_LOW, active,
			       factors);
	return entry;
}

/*
 * A step of the base and one of the difference, in phase: both load, both vote, both count.  So a warp waits once for both,
 * where the compiler lets it wait for each if one step follows the other.
 */
template <typename difference_type>
static __device__ __forceinline__ void
wcx_fused_two_steps(struct wcx_word_reader *base, const struct wcx_fast_table &base_table, uint32_t *base_entry_ret,
		    struct wcx_word_reader *reader, uint32_t table, uint32_t *entry_ret, const struct wcx_factors &factors)
{
	const uint32_t base_entry = base_table.entry(base->state);
	const uint32_t entry = wcx_fused_entry<difference_type>(reader->state, table, factors);
	const uint32_t base_sum = wcx_next_state(base->state, base_entry, factors);
	const uint32_t sum = wcx_next_state(reader->state, entry, factors);
	const bool base_is_low = base_sum < WCX_RANS_LOW, is_low = sum < WCX_RANS_LOW;
	const uint32_t base_votes = __ballot_sync(WCX_ALL_LANES, base_is_low);
	const uint32_t votes = __ballot_sync(WCX_ALL_LANES, is_low);
	const uint32_t base_word = wcx_voted_word(*base, base_votes), word = wcx_voted_word(*reader, votes);
	const uint32_t state = wcx_fused_state<difference_type>(reader->state, sum);

	base->next += 2 * __popc(base_votes);
	reader->next += 2 * __popc(votes);
	base->state = base_is_low ? base_sum * factors.k16 + base_word : base_sum;
	reader->state = is_low ? state * factors.k16 + word : state;
	*base_entry_ret = base_entry;
	*entry_ret = entry;
}

/* Builds coarse tables of signed distances; staging is shared memory for WCX_CARRIER_TABLES_MAX tables. */
static __device__ void wcx_coarse_entries_build(const struct wcx_batch_table *tables, uint32_t table_count,
						struct wcx_batch_table *staging, uint32_t *entries)
{
	constexpr uint32_t slots = WCX_TABLE_BYTES / WCX_COARSE_TABLE_BYTES;

	for (uint32_t first = 0; first < table_count; first += WCX_CARRIER_TABLES_MAX)
		wcx_entries_build<slots>(tables + first, min(table_count - first, (uint32_t)WCX_CARRIER_TABLES_MAX),
					 wcx_numbers::DISTANCES, staging, entries + first * WCX_COARSE_TABLE_BYTES / 4);
}

/* --- Escapes --- */

/*
 * The escapes of a tile.  Each is stored as an element that is 128 below the base's, and noted in shared memory: a bit for
 * each lane, in a word for each of the two elements of a line.  Then a list: the positions of those whose values are in the
 * final states.
 */
struct wcx_escapes {
	uint32_t bits; /* shared address */
};

/* What is needed seldom, in shared memory behind the list. */
struct wcx_escape_notes {
	const uint16_t *values; /* of the escapes that the tile stores */
	uint8_t *dst;           /* the tile's elements */
	uint32_t stored, count; /* escapes whose values the tile stores; those met before the noted ones */
};

static __device__ __forceinline__ uint8_t *wcx_shared_pointer(uint32_t address)
{
	return (uint8_t *)wcx_shared + (address - wcx_shared_address(wcx_shared));
}

/* Notes which lanes' elements of a line are escapes, by their entries.  All lanes store the same words. */
static __device__ __forceinline__ void wcx_note_escapes(uint32_t bits, uint32_t line, const uint32_t entry[2],
							const struct wcx_factors &factors)
{
	constexpr int32_t after = (int32_t)0x81000000; /* the signed number of symbol 255 is the least */
	const uint32_t first = __ballot_sync(WCX_ALL_LANES, (int32_t)(entry[0] * factors.k12) < after);
	const uint32_t second = __ballot_sync(WCX_ALL_LANES, (int32_t)(entry[1] * factors.k12) < after);

	wcx_shared_store_u64(bits + line % WCX_ESCAPE_LINES * 8, first, second);
}

/* Replaces the element of an escape by that with a residual. */
static __device__ __forceinline__ void wcx_replace_escape(uint8_t *dst, uint32_t at, uint32_t residual)
{
	uint16_t *elem = (uint16_t *)dst + at;
	const uint32_t base = wcx_undo_difference<2>(*elem, 256, 0x7FFF7FFF); /* the residual of 128 */

	*elem = (uint16_t)wcx_undo_difference<2>(base & 0xFFFF, residual, 0x7FFF7FFF);
}

/*
 * Stores the elements of the noted escapes in lines [line, end), or lists them.  line is a multiple of WCX_ESCAPE_LINES.
 * Not inlined: registers are scarce where it is called.
 */
static __device__ __noinline__ void wcx_flush_escapes(uint32_t bits, uint32_t line, uint32_t end_line)
{
	const uint4 *words = (const uint4 *)wcx_shared_pointer(bits);
	uint32_t *list = (uint32_t *)words + WCX_ESCAPE_BITS_BYTES / 4;
	struct wcx_escape_notes *notes = (struct wcx_escape_notes *)((uint8_t *)words + WCX_ESCAPE_NOTES_AT);
	const uint32_t lines =
		end_line - line > 2 * wcx_lane() ? end_line - line - 2 * wcx_lane() : 0; /* at most two matter */

	static_assert(WCX_ESCAPE_LINES == 2 * WCX_LANES, "each lane looks at two lines");
	__syncwarp(); /* other lanes have noted escapes and stored elements */
	uint4 own = words[wcx_lane()];
	if (lines < 2)
		own.z = own.w = 0;
	if (lines < 1)
		own.x = own.y = 0;
	const uint32_t own_count = __popc(own.x) + __popc(own.y) + __popc(own.z) + __popc(own.w);
	const uint32_t count = notes->count, stored = notes->stored;

	__syncwarp(); /* the words may be overwritten */
	if (!__any_sync(WCX_ALL_LANES, own_count))
		return;
	const uint32_t end = wcx_warp_prefix_sum(own_count);
	uint32_t number = count + end - own_count;

	if (wcx_lane() == WCX_LANES - 1)
		notes->count = count + end;
	for (uint32_t i = 0; i < 2; i++) {
		const uint32_t first = i ? own.z : own.x, second = i ? own.w : own.y;

		for (uint32_t left = first | second; left; left &= left - 1) {
			const uint32_t lane = __ffs(left) - 1, at = ((line + 2 * wcx_lane() + i) * WCX_LANES + lane) * 2;

			for (uint32_t k = 0; k < 2; k++) {
				if (!((k ? second : first) >> lane & 1))
					continue;
				if (number < stored)
					wcx_replace_escape(notes->dst, at + k, __ldg(notes->values + number));
				else if (number - stored < WCX_LANES)
					list[number - stored] = at + k;
				number++;
			}
		}
	}
	__syncwarp(); /* lanes have changed notes */
}

/* Starts to note the escapes of a tile. */
static __device__ __forceinline__ void wcx_open_escapes(const struct wcx_escapes &escapes, const wcx_device_tile &tile)
{
	const struct wcx_tile_item &item = tile.item;
	struct wcx_escape_notes *notes = (struct wcx_escape_notes *)wcx_shared_pointer(escapes.bits + WCX_ESCAPE_NOTES_AT);

	__syncwarp();
	if (wcx_lane() == 0)
		*notes = { (const uint16_t *)(tile.src + item.exceptions), tile.dst,
			   item.exception_count - (item.exceptions_carried ? (uint32_t)WCX_LANES : 0), 0 };
	__syncwarp();
}

/* Stores the elements of escapes that the final states have the values of; false if there were more or fewer in all. */
static __device__ __forceinline__ bool wcx_close_escapes(const struct wcx_escapes &escapes, const wcx_device_tile &tile,
							 uint32_t state)
{
	const uint32_t *list = (const uint32_t *)wcx_shared_pointer(escapes.bits + WCX_ESCAPE_BITS_BYTES);
	const struct wcx_escape_notes *notes =
		(const struct wcx_escape_notes *)wcx_shared_pointer(escapes.bits + WCX_ESCAPE_NOTES_AT);

	if (notes->count != tile.item.exception_count)
		return false;
	__syncwarp(); /* other lanes have written to the list and stored elements */
	if (tile.item.exceptions_carried)
		wcx_replace_escape(tile.dst, list[wcx_lane()], state & 0xFFFF);
	return true;
}

#endif
