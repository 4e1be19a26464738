/* SPDX-License-Identifier: MIT */
/*
 * rANS decoding by a warp: lane l of the warp is lane l of the bitstream (docs/format.md, section 3.2).
 *
 * Payloads are untrusted.  Whatever a step decodes, it reads shared memory only within the warp's own ring and the tables,
 * and device memory only within the payload or less than WCX_BATCH_SRC_SLACK bytes behind it.  wcx_word_reader_close checks
 * at the end that exactly all words were used.  Values are the same in all lanes unless marked as the lane's own.
 *
 * The instructions of a step bound the speed of decoding; docs/gpu.md explains them.
 */
#ifndef WCX_WARP_RANS_CUH
#define WCX_WARP_RANS_CUH

#include <cuda_runtime.h>

#include "cuda/ptx.cuh"

extern "C" {
#include "codec/arith.h"
#include "codec/rans.h"
#include "cuda/tile_batch.h"
}

/* A source may define less before it includes this. */
#ifndef WCX_STEPS_OF_BLOCK
#define WCX_STEPS_OF_BLOCK 16
#endif
/* A source whose kernels lack registers may define 1: then a reader keeps the end of its payload in shared memory. */
#ifndef WCX_SAVES_REGISTERS
#define WCX_SAVES_REGISTERS 0
#endif

enum {
	WCX_BLOCK_STEPS = WCX_STEPS_OF_BLOCK, /* steps between two checks of the ring */
	/*
	 * Words come from a ring in shared memory: fetching a word of each step from device memory would stall the warp
	 * most of the time.  The ring is filled in chunks, one of which is in flight while the words of the next block are
	 * already present.  The first chunk is repeated behind the end of the ring, so that the words of a block are
	 * contiguous wherever they start.
	 */
	WCX_CHUNK_BYTES = WCX_BLOCK_STEPS * WCX_LANES * 2,
	WCX_RING_BYTES = 3 * WCX_CHUNK_BYTES,
	WCX_WARP_SHARED_BYTES = WCX_RING_BYTES + WCX_CHUNK_BYTES + (WCX_SAVES_REGISTERS ? 16 : 0),
	WCX_COPY_BYTES = 16, /* bytes that a lane copies at a time */
	WCX_TABLE_BYTES = WCX_PROB_SCALE * 4,
};

#define WCX_ALL_LANES 0xFFFFFFFFu

static __device__ __forceinline__ uint32_t wcx_lane(void)
{
	return threadIdx.x % WCX_LANES;
}

/* The sum of the values of this lane and all lower ones. */
template <typename word> static __device__ __forceinline__ word wcx_warp_prefix_sum(word value)
{
	for (uint32_t distance = 1; distance < WCX_LANES; distance *= 2) {
		const word below = __shfl_up_sync(WCX_ALL_LANES, value, distance);

		value += wcx_lane() >= distance ? below : 0;
	}
	return value;
}

/* --- Tables --- */

/*
 * An entry describes what a slot decodes to:
 *
 *	 31         20 19      12 11         0
 *	| correction  |  symbol  | frequency  |
 *
 * The new state frequency * (x >> 12) + slot - start equals (frequency * x >> 12) + correction, which is signed.  The shift
 * comes for free: the product is scaled such that its upper 32 bits are frequency * x >> 12.
 */
static __device__ __forceinline__ uint32_t wcx_entry(uint32_t slot, uint32_t symbol, uint32_t start, uint32_t freq)
{
	return (slot - start - (freq * slot >> WCX_PROB_BITS)) << 20 | symbol << WCX_PROB_BITS | freq;
}

static __device__ __forceinline__ uint32_t wcx_entry_symbol(uint32_t entry)
{
	return entry >> WCX_PROB_BITS & 0xFF;
}

/* What the entries of a table have in place of the symbols 0, 1, 2, 3, 4, … */
enum class wcx_numbers {
	SYMBOLS,
	DISTANCES,     /* 0, -1, 1, -2, 2, …, modulo 256 */
	DISTANCE_PAIRS /* of each half, the same plus 8: 8, 7, 9, 6, 10, … */
};

static __device__ __forceinline__ uint32_t wcx_number(wcx_numbers numbers, uint32_t symbol)
{
	if (numbers == wcx_numbers::DISTANCES)
		return symbol >> 1 ^ (symbol % 2 ? 0xFF : 0);
	if (numbers == wcx_numbers::DISTANCE_PAIRS)
		return (symbol >> 1 & 0x77) ^ (symbol & 0x01 ? 0x07 : 0x08) ^ (symbol & 0x10 ? 0x70 : 0x80);
	return symbol;
}

/* The symbol of a slot: the last that starts at it or before. */
static __device__ __forceinline__ uint32_t wcx_symbol_at(const uint16_t *start, uint32_t slot)
{
	uint32_t symbol = 0;

#pragma unroll
	for (uint32_t step = WCX_SYMBOL_COUNT / 2; step > 0; step /= 2)
		symbol += start[symbol + step] <= slot ? step : 0;
	return symbol;
}

/*
 * Builds decoding tables, which have an entry for every `slots` slots, with all threads of the block; staging is shared
 * memory for as many tables.
 */
template <uint32_t slots>
static __device__ void wcx_entries_build(const struct wcx_batch_table *tables, uint32_t table_count, wcx_numbers numbers,
					 struct wcx_batch_table *staging, uint32_t *entries)
{
	constexpr uint32_t table_entries = WCX_PROB_SCALE / slots;
	const uint32_t *from = (const uint32_t *)tables;

	for (uint32_t i = threadIdx.x; i < table_count * sizeof *tables / sizeof *from; i += blockDim.x)
		((uint32_t *)staging)[i] = __ldg(from + i);
	__syncthreads();
	for (uint32_t i = threadIdx.x; i < table_count * table_entries; i += blockDim.x) {
		const uint16_t *start = staging[i / table_entries].start;
		const uint32_t slot = i % table_entries * slots, symbol = wcx_symbol_at(start, slot);

		entries[i] = wcx_entry(slot, wcx_number(numbers, symbol), start[symbol], start[symbol + 1] - start[symbol]);
	}
	__syncthreads();
}

/* A decoding table, one of those at the start of the block's shared memory. */
extern __shared__ uint4 wcx_shared[]; /* aligned for copies of 16 bytes */
struct wcx_fast_table {
	uint32_t first_entry;

	__device__ __forceinline__ uint32_t entry(uint32_t state) const
	{
		const uint32_t number = wcx_mask_or<WCX_PROB_SCALE - 1>(state, first_entry);

		return wcx_shared_u32(wcx_shared_address((const uint32_t *)wcx_shared + number));
	}
};

/* Coded fields other than the carrier have no decoding table: a binary search finds the last start up to the slot. */
struct wcx_slow_table {
	const struct wcx_batch_table *table;

	__device__ __forceinline__ uint32_t entry(uint32_t state) const
	{
		const uint32_t slot = state % WCX_PROB_SCALE;
		uint32_t symbol = 0;

		for (uint32_t step = WCX_SYMBOL_COUNT / 2; step > 0; step /= 2)
			symbol += __ldg(&table->start[symbol + step]) <= slot ? step : 0;
		const uint32_t start = __ldg(&table->start[symbol]), end = __ldg(&table->start[symbol + 1]);

		return wcx_entry(slot, symbol, start, end - start);
	}
};

/* --- The choice of tables --- */

/* The tables chosen by the groups of WCX_RUN_ELEMS elements of a tile: two bits each, 16 groups in a lane, in lane order. */
struct wcx_choices {
	uint32_t own; /* the lane's own; before spread(), 32 bits of the packed choices */

	/* Starts to load the packed choices: 0, 1 or 2 bits for each run. */
	__device__ __forceinline__ void load(const uint8_t *packed, uint32_t bits, uint32_t run_factor, uint32_t groups)
	{
		const uint32_t runs = ((groups - 1) * run_factor >> WCX_RUN_FACTOR_BITS) + 1;

		own = wcx_lane() * 32 < runs * bits ? __ldg((const uint32_t *)packed + wcx_lane()) : 0;
	}

	/* Gives each group the choice of its run.  Behind the last group of the tile, choices are undefined. */
	__device__ __forceinline__ void spread(uint32_t bits, uint32_t run_factor)
	{
		uint32_t spread = 0;

		if (bits == 0)
			return;
#pragma unroll
		for (uint32_t i = 0; i < 16; i++) {
			const uint32_t bit = ((wcx_lane() * 16 + i) * run_factor >> WCX_RUN_FACTOR_BITS) * bits;
			const uint32_t packed = __shfl_sync(WCX_ALL_LANES, own, bit / 32) >> bit % 32;

			spread |= (packed & ((1u << bits) - 1)) << 2 * i;
		}
		own = spread;
	}

	/* The choices of a group, in the lowest bits, and of the following groups in the same lane. */
	__device__ __forceinline__ uint32_t from(uint32_t group) const
	{
		return __shfl_sync(WCX_ALL_LANES, own, group / 16) >> group % 16 * 2;
	}
};

/* --- Steps --- */

/*
 * Factors that replace shifts.  They are kernel arguments to hide their values from the compiler, which would turn the
 * products back into shifts: as many instructions, but for the ALU, which has half the throughput and is the bottleneck.
 */
struct wcx_factors {
	uint32_t k20, k16, k12, k4; /* 2^20, 2^16, 2^12, 4 */
};

/* The position of a warp in a payload. */
struct wcx_word_reader {
	uint32_t state;       /* the lane's own */
	uint32_t lower_lanes; /* the lane's own: a bit for each lower lane */
	uint32_t ring;        /* shared address */
	uint32_t next;        /* shared address of the next word; may lie in the repeated chunk */
	uint32_t limit;       /* shared address of the end of the chunk that next is in, or was in a block ago */
#if !WCX_SAVES_REGISTERS
	const uint8_t *source; /* the lane's part of the next chunk */
#endif
	int32_t unread; /* bytes from source to the end of the payload; negative if source is behind that */
};

/* Where the lane's part of the next chunk is. */
static __device__ __forceinline__ const uint8_t *wcx_word_reader_source(const struct wcx_word_reader *reader)
{
#if WCX_SAVES_REGISTERS
	const uint2 end = wcx_shared_u64(reader->ring + WCX_RING_BYTES + WCX_CHUNK_BYTES);

	return (const uint8_t *)(((uint64_t)end.y << 32 | end.x) - (int64_t)reader->unread);
#else
	return reader->source;
#endif
}

/* Starts to copy the next chunk to a place in the ring, as far as the payload has one. */
static __device__ __forceinline__ void wcx_word_reader_load_chunk(struct wcx_word_reader *reader, uint32_t place)
{
	const uint32_t to = place + wcx_lane() * WCX_COPY_BYTES;
	const uint8_t *source = wcx_word_reader_source(reader);

#pragma unroll
	for (uint32_t at = 0; at < WCX_CHUNK_BYTES; at += WCX_LANES * WCX_COPY_BYTES)
		if (reader->unread > (int32_t)at)
			wcx_copy_start(to + at, source + at);
	if (place == reader->ring) {
#pragma unroll
		for (uint32_t at = 0; at < WCX_CHUNK_BYTES; at += WCX_LANES * WCX_COPY_BYTES)
			if (reader->unread > (int32_t)at)
				wcx_copy_start(to + at + WCX_RING_BYTES, source + at);
	}
#if !WCX_SAVES_REGISTERS
	reader->source += WCX_CHUNK_BYTES;
#endif
	reader->unread -= WCX_CHUNK_BYTES;
}

/* The lane's start state, of which `length` bits are stored.  The states of all lanes are packed in lane order. */
static __device__ __forceinline__ uint32_t wcx_start_state(const uint8_t *states, uint32_t length)
{
	const uint32_t end = wcx_warp_prefix_sum(length);
	const uint32_t *words = (const uint32_t *)states + (end - length) / 32;
	const uint32_t bits = __funnelshift_r(__ldg(words), __ldg(words + 1), (end - length) % 32);

	return (bits & ((1u << length) - 1)) | 1u << length; /* the highest bit is implied */
}

/*
 * Starts to load states and first words; ring is the warp's shared memory.  Nothing is available before
 * wcx_word_reader_start. Copies are aligned to WCX_COPY_BYTES: they include up to 15 bytes in front of the words, and as
 * many behind them.
 */
static __device__ __forceinline__ void wcx_word_reader_open(const uint8_t *states, const uint8_t *words,
							    uint32_t words_bytes, uint32_t ring, struct wcx_word_reader *ret)
{
	const uint32_t skew = (uint32_t)(uintptr_t)words % WCX_COPY_BYTES;

	static_assert((int)WCX_RANS_STATES_MIN_BYTES >= (int)WCX_COPY_BYTES,
		      "bytes copied in front of the words are states");
	static_assert((int)WCX_BATCH_SRC_SLACK >= (int)WCX_COPY_BYTES, "bytes copied behind the words belong to the batch");
	static_assert(WCX_CHUNK_BYTES % (WCX_LANES * WCX_COPY_BYTES) == 0, "lanes copy equal parts of a chunk");
	ret->state = __ldg(states + wcx_lane() / 2); /* for now, the length of the state */
	ret->ring = ring;
	ret->next = ring + skew;
	ret->limit = ring + WCX_CHUNK_BYTES;
#if WCX_SAVES_REGISTERS
	const uint64_t end = (uint64_t)(words + words_bytes);

	__syncwarp(); /* the last payload's end is no longer read */
	wcx_shared_store_u64(ring + WCX_RING_BYTES + WCX_CHUNK_BYTES, (uint32_t)end, (uint32_t)(end >> 32));
	__syncwarp();
#else
	ret->source = words - skew + wcx_lane() * WCX_COPY_BYTES;
#endif
	ret->unread = (int32_t)(words_bytes + skew - wcx_lane() * WCX_COPY_BYTES);
	for (uint32_t i = 0; i < WCX_RING_BYTES / WCX_CHUNK_BYTES; i++)
		wcx_word_reader_load_chunk(ret, ring + i * WCX_CHUNK_BYTES);
	ret->lower_lanes = (1u << wcx_lane()) - 1;
	wcx_keep(&ret->lower_lanes);
}

/* Loads the states and waits for the first words. */
static __device__ __forceinline__ void wcx_word_reader_start(const uint8_t *states, struct wcx_word_reader *reader)
{
	const uint32_t length = 16 + (reader->state >> wcx_lane() % 2 * 4 & 15);

	reader->state = wcx_start_state(states + WCX_RANS_WIDTHS_BYTES, length);
	wcx_copies_wait();
}

/*
 * Makes sure that the ring holds the words of the next WCX_BLOCK_STEPS steps, which take a chunk at most: the next one is
 * loaded in place of each that has been used.
 */
static __device__ __forceinline__ void wcx_word_reader_refill(struct wcx_word_reader *reader)
{
	if (reader->next < reader->limit)
		return;
	wcx_copies_wait(); /* also ensures that all lanes have read the words to be overwritten */
	wcx_word_reader_load_chunk(reader, reader->limit - WCX_CHUNK_BYTES);
	if (reader->limit == reader->ring + WCX_RING_BYTES) {
		reader->limit -= WCX_RING_BYTES;
		reader->next -= WCX_RING_BYTES;
	}
	reader->limit += WCX_CHUNK_BYTES;
}

/*
 * The lane's own word, if its bit is among the votes: the votes of the lower lanes are counted.  All lanes load a word: that
 * is cheaper than a branch.
 */
static __device__ __forceinline__ uint32_t wcx_voted_word(const struct wcx_word_reader &reader, uint32_t votes)
{
	return wcx_shared_u16(reader.next + 2 * __popc(votes & reader.lower_lanes));
}

/* Ends a step of all lanes or, with `partial`, of the active ones: makes `state` the lane's, which takes a word if is_low.
 */
template <bool partial>
static __device__ __forceinline__ void wcx_take_word(struct wcx_word_reader *reader, uint32_t state, bool is_low,
						     bool active, const struct wcx_factors &factors)
{
	const bool needs_word = is_low && (!partial || active);
	const uint32_t votes = __ballot_sync(WCX_ALL_LANES, needs_word);
	const uint32_t word = wcx_voted_word(*reader, votes);

	reader->next += 2 * __popc(votes);
	if (!partial || active)
		reader->state = needs_word ? state * factors.k16 + word : state;
}

/* The state after a symbol with this entry, before words. */
static __device__ __forceinline__ uint32_t wcx_next_state(uint32_t state, uint32_t entry, const struct wcx_factors &factors)
{
	return wcx_multiply_high(state, entry * factors.k20) + (uint32_t)((int32_t)entry >> 20);
}

/* One step of all lanes or, with `partial`, of the active ones; returns the entry, which has the symbol. */
template <bool partial, typename table_type>
static __device__ __forceinline__ uint32_t wcx_rans_step(struct wcx_word_reader *reader, const table_type &table,
							 bool active, const struct wcx_factors &factors)
{
	const uint32_t entry = table.entry(reader->state);
	const uint32_t state = wcx_next_state(reader->state, entry, factors);

	wcx_take_word<partial>(reader, state, state < WCX_RANS_LOW, active, factors);
	return entry;
}

/* Whether the payload ended as it must: all words used, and the low halves of the states 0 unless they carry bytes. */
static __device__ __forceinline__ bool wcx_word_reader_close(const struct wcx_word_reader &reader, bool carries)
{
	const bool fits = carries ? reader.state >> 16 == 1 : reader.state == WCX_RANS_LOW;
	const uint32_t unread = (uint32_t)reader.unread + wcx_lane() * WCX_COPY_BYTES;
	const uint32_t filled = reader.limit + WCX_RING_BYTES - WCX_CHUNK_BYTES;

	wcx_copies_wait(); /* the ring may now be reused */
	return __all_sync(WCX_ALL_LANES, fits) && unread + (filled - reader.next) == 0;
}

#endif
