/* SPDX-License-Identifier: MIT */
/*
 * A warp decodes a stream of symbols: lane l of the warp is lane l of the bitstream (docs/format.md, section 3.2).
 *
 * What payloads hold is untrusted.  A step reads shared memory within the warp's own ring and the tables whatever it
 * decodes, and device memory within the payload, or behind it by less than WCX_BATCH_SRC_SLACK; whether all words were
 * taken, and no more, is asked at the end.  What is not marked as a lane's own is the same in all lanes.
 *
 * The instructions of a step are what decoding takes its time for; docs/gpu.md counts them.
 */
#ifndef WCX_WARP_RANS_CUH
#define WCX_WARP_RANS_CUH

#include <cuda_runtime.h>

extern "C" {
#include "codec/rans.h"
#include "cuda/tile_batch.h"
}

enum {
	WCX_BLOCK_STEPS = 16, /* between which the ring is not looked at */
	/*
	 * Words come from a ring in shared memory: one that each step had to get from the device's memory would keep the
	 * warp waiting for most of the time.  It is filled by chunks, one of which is on its way while the next block's
	 * words are there.  What a block may take is there once more behind the end, so that its words lie in a row wherever
	 * they start.
	 */
	WCX_CHUNK_BYTES = WCX_BLOCK_STEPS * WCX_LANES * 2,
	WCX_RING_BYTES = 3 * WCX_CHUNK_BYTES,
	WCX_WARP_SHARED_BYTES = WCX_RING_BYTES + WCX_CHUNK_BYTES,
	WCX_COPY_BYTES = 16, /* that a lane copies at a time */
	WCX_TABLE_BYTES = WCX_PROB_SCALE * 4,
};

#define WCX_ALL_LANES 0xFFFFFFFFu

static __device__ __forceinline__ uint32_t wcx_lane(void)
{
	return threadIdx.x % WCX_LANES;
}

/*
 * Shared memory by addresses of 32 bits: out of pointers the compiler makes an instruction or two more in each step.
 */
static __device__ __forceinline__ uint32_t wcx_shared_address(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ __forceinline__ uint32_t wcx_shared_u16(uint32_t address)
{
	uint16_t value;

	asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
	return value;
}

/* Copies 16 bytes of device memory to shared memory, some time before wcx_copies_wait. */
static __device__ __forceinline__ void wcx_copy_start(uint32_t shared, const uint8_t *global)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}

static __device__ __forceinline__ void wcx_copies_wait(void)
{
	asm volatile("cp.async.wait_all;" ::: "memory");
	__syncwarp();
}

/* Keeps the compiler from making a value anew, out of what it was made of, wherever it is used. */
static __device__ __forceinline__ void wcx_keep(uint32_t *value)
{
	asm volatile("" : "+r"(*value));
}

/* --- Tables --- */

/*
 * What a slot decodes to:
 *
 *	 31         20 19      12 11         0
 *	| correction  |  symbol  | frequency  |
 *
 * The state x becomes frequency * (x >> 12) + slot - start, which is (frequency * x >> 12) + correction, a signed number:
 * one product then has a part that is shifted out for nothing, its high half of 64 bits.
 */
static __device__ __forceinline__ uint32_t wcx_entry(uint32_t slot, uint32_t symbol, uint32_t start, uint32_t freq)
{
	return (slot - start - (freq * slot >> WCX_PROB_BITS)) << 20 | symbol << WCX_PROB_BITS | freq;
}

static __device__ __forceinline__ uint32_t wcx_entry_symbol(uint32_t entry)
{
	return entry >> WCX_PROB_BITS & 0xFF;
}

/*
 * Makes the decoding tables, with all threads of the block: the warps take turns at symbols, the lanes at a symbol's slots.
 * room has space for the batch's tables.
 */
static __device__ void wcx_entries_build(const struct wcx_batch_table *tables, uint32_t table_count,
					 struct wcx_batch_table *room, uint32_t *entries)
{
	const uint32_t warp = threadIdx.x / WCX_LANES, warps = blockDim.x / WCX_LANES;
	const uint32_t *from = (const uint32_t *)tables;
	uint32_t *to = (uint32_t *)room;

	for (uint32_t i = threadIdx.x; i < table_count * sizeof *tables / sizeof *to; i += blockDim.x)
		to[i] = __ldg(from + i);
	__syncthreads();
	for (uint32_t i = warp; i < table_count * WCX_SYMBOL_COUNT; i += warps) {
		const uint32_t table = i / WCX_SYMBOL_COUNT, symbol = i % WCX_SYMBOL_COUNT;
		const uint32_t start = room[table].start[symbol], end = room[table].start[symbol + 1];

		for (uint32_t slot = start + wcx_lane(); slot < end; slot += WCX_LANES)
			entries[table * WCX_PROB_SCALE + slot] = wcx_entry(slot, symbol, start, end - start);
	}
	__syncthreads();
}

/* Finds a slot's entry in tables of them, which are the first thing in the block's shared memory. */
extern __shared__ uint4 wcx_shared[]; /* aligned as copies must be */
struct wcx_fast_table {
	uint32_t first; /* entry of the table */

	__device__ __forceinline__ uint32_t entry(uint32_t state) const
	{
		uint32_t number;

		asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(number) : "r"(state), "n"(WCX_PROB_SCALE - 1), "r"(first));
		return ((const volatile uint32_t *)wcx_shared)[number];
	}
};

/* The same without such a table, by looking for the last start up to the slot: for coded fields other than the carrier. */
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

/*
 * What a tile's groups of 128 elements have chosen: two bits each, of 16 groups in a lane, in the order of lanes.  That is
 * as many as a tile may have.
 */
struct wcx_choices {
	uint32_t own; /* the lane's; until they are spread, 32 bits of the packed ones */

	/* Starts to load them: one for each run, of 0, 1 or 2 bits. */
	__device__ __forceinline__ void load(const uint8_t *packed, uint32_t bits, uint32_t run_factor, uint32_t groups)
	{
		const uint32_t runs = ((groups - 1) * run_factor >> WCX_RUN_FACTOR_BITS) + 1;

		own = wcx_lane() * 32 < runs * bits ? __ldg((const uint32_t *)packed + wcx_lane()) : 0;
	}

	/* Gives each group that of its run; behind the tile's last one, anything. */
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

	/* Those of a group and the following, from the lowest bits on, as far as they are in the same lane. */
	__device__ __forceinline__ uint32_t from(uint32_t group) const
	{
		return __shfl_sync(WCX_ALL_LANES, own, group / 16) >> group % 16 * 2;
	}
};

/* --- Steps --- */

/*
 * Factors that stand for shifts.  They are arguments of the kernel, so that the compiler cannot know them: it would make
 * shifts of them, which are as many instructions but of a unit that has half as many lanes and is the busiest one.
 */
struct wcx_factors {
	uint32_t k20, k16; /* 2^20, 2^16 */
};

/* A payload, and where a warp stands in it. */
struct wcx_reader {
	uint32_t state;        /* the lane's own */
	uint32_t lower_lanes;  /* a bit for each; the lane's own */
	uint32_t ring;         /* shared address */
	uint32_t next;         /* of the next word, which may be in the copy behind the ring's end */
	uint32_t filled;       /* behind the last word that is there or on its way, as far behind next as that word is */
	const uint8_t *source; /* the lane's part of the next chunk */
	int32_t unread;        /* bytes from there to the payload's end; negative when it is behind that */
};

/* Starts to copy a chunk, as far as the payload has one. */
static __device__ __forceinline__ void wcx_reader_load_chunk(struct wcx_reader *reader)
{
	const uint32_t end = reader->ring + WCX_RING_BYTES;
	const uint32_t fill = reader->filled < end ? reader->filled : reader->filled - WCX_RING_BYTES;
	const uint32_t to = fill + wcx_lane() * WCX_COPY_BYTES;

#pragma unroll
	for (uint32_t at = 0; at < WCX_CHUNK_BYTES; at += WCX_LANES * WCX_COPY_BYTES)
		if (reader->unread > (int32_t)at)
			wcx_copy_start(to + at, reader->source + at);
	if (fill == reader->ring) {
#pragma unroll
		for (uint32_t at = 0; at < WCX_CHUNK_BYTES; at += WCX_LANES * WCX_COPY_BYTES)
			if (reader->unread > (int32_t)at)
				wcx_copy_start(to + at + WCX_RING_BYTES, reader->source + at);
	}
	reader->source += WCX_CHUNK_BYTES;
	reader->unread -= WCX_CHUNK_BYTES;
	reader->filled += WCX_CHUNK_BYTES;
}

/* The lane's start state: those of all lanes, but for the highest bit of each, stand in a row. */
static __device__ __forceinline__ uint32_t wcx_start_state(const uint8_t *states, uint32_t length)
{
	uint32_t end = length;

	for (uint32_t distance = 1; distance < WCX_LANES; distance *= 2) {
		const uint32_t before = __shfl_up_sync(WCX_ALL_LANES, end, distance);

		end += wcx_lane() >= distance ? before : 0;
	}
	const uint32_t *words = (const uint32_t *)states + (end - length) / 32;
	const uint32_t bits = __funnelshift_r(__ldg(words), __ldg(words + 1), (end - length) % 32);

	return (bits & ((1u << length) - 1)) | 1u << length;
}

/*
 * Opens a payload, ring being a warp's shared memory.  Up to 15 bytes before the words, which are the states', are copied
 * too, and as many behind them.  All that this loads is only on its way until wcx_reader_start.
 */
static __device__ __forceinline__ void wcx_reader_open(const uint8_t *states, const uint8_t *words, uint32_t words_bytes,
						       uint32_t ring, struct wcx_reader *ret)
{
	const uint32_t skew = (uint32_t)(uintptr_t)words % WCX_COPY_BYTES;

	static_assert((int)WCX_RANS_STATES_MIN_BYTES >= (int)WCX_COPY_BYTES, "what is copied before the words is states");
	static_assert((int)WCX_BATCH_SRC_SLACK >= (int)WCX_COPY_BYTES, "what is copied behind them is the batch's");
	static_assert(WCX_CHUNK_BYTES % (WCX_LANES * WCX_COPY_BYTES) == 0, "a chunk is so many copies a lane");
	ret->state = __ldg(states + wcx_lane() / 2); /* not yet the state, but how long it is */
	ret->ring = ring;
	ret->next = ring + skew;
	ret->filled = ring;
	ret->source = words - skew + wcx_lane() * WCX_COPY_BYTES;
	ret->unread = (int32_t)(words_bytes + skew - wcx_lane() * WCX_COPY_BYTES);
	for (uint32_t i = 0; i < WCX_RING_BYTES / WCX_CHUNK_BYTES; i++)
		wcx_reader_load_chunk(ret);
	ret->lower_lanes = (1u << wcx_lane()) - 1;
	wcx_keep(&ret->lower_lanes);
}

/* Has the states, and the first words in the ring. */
static __device__ __forceinline__ void wcx_reader_start(const uint8_t *states, struct wcx_reader *reader)
{
	const uint32_t length = 16 + (reader->state >> wcx_lane() % 2 * 4 & 15);

	reader->state = wcx_start_state(states + WCX_RANS_WIDTHS_BYTES, length);
	wcx_copies_wait();
}

/* Has the words of the next WCX_BLOCK_STEPS steps in the ring. */
static __device__ __forceinline__ void wcx_reader_refill(struct wcx_reader *reader)
{
	if (reader->next >= reader->ring + WCX_RING_BYTES) {
		reader->next -= WCX_RING_BYTES;
		reader->filled -= WCX_RING_BYTES;
	}
	if ((int32_t)(reader->filled - reader->next) <= WCX_RING_BYTES - WCX_CHUNK_BYTES) {
		wcx_copies_wait(); /* for what is needed next; and all lanes have read what is overwritten */
		wcx_reader_load_chunk(reader);
	}
}

/*
 * One step of all lanes, or with `some` of those that are active; its entry has the symbol.  Words that lanes want are
 * handed out by counting the votes of the lanes below.  All lanes read one, wanted or not: that is cheaper than asking.
 */
template <bool some, typename table>
static __device__ __forceinline__ uint32_t wcx_rans_step(struct wcx_reader *reader, const table &symbols, bool active,
							 const struct wcx_factors &factors)
{
	const uint32_t entry = symbols.entry(reader->state);
	uint32_t high;

	/* A product of 64 bits whose low half is dropped: the operator for the high half takes an instruction more. */
	asm volatile("{\n\t.reg .u32 low;\n\t.reg .u64 product;\n\t"
		     "mul.wide.u32 product, %1, %2;\n\tmov.b64 {low, %0}, product;\n\t}"
		     : "=r"(high)
		     : "r"(reader->state), "r"(entry * factors.k20));
	const uint32_t state = high + (uint32_t)((int32_t)entry >> 20);
	const bool wanting = state < WCX_RANS_LOW && (!some || active);
	const uint32_t votes = __ballot_sync(WCX_ALL_LANES, wanting);
	const uint32_t word = wcx_shared_u16(reader->next + 2 * __popc(votes & reader->lower_lanes));

	reader->next += 2 * __popc(votes);
	if (!some || active)
		reader->state = wanting ? state * factors.k16 + word : state;
	return entry;
}

/* Whether a payload ended as it must: all words taken, and the low halves of the states 0 unless they carry bytes. */
static __device__ __forceinline__ bool wcx_reader_close(const struct wcx_reader &reader, bool carrying)
{
	const bool fits = carrying ? reader.state >> 16 == 1 : reader.state == WCX_RANS_LOW;
	const uint32_t unread = (uint32_t)reader.unread + wcx_lane() * WCX_COPY_BYTES;

	wcx_copies_wait(); /* the ring can have other words now */
	return __all_sync(WCX_ALL_LANES, fits) && unread + (reader.filled - reader.next) == 0;
}

#endif
