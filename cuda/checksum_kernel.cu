/* SPDX-License-Identifier: MIT */
/*
 * XXH3-64 (seed 0) of packed tiles, a warp for each.
 *
 * XXH3 cuts its input into blocks of 16 stripes of 64 bytes, and has eight accumulators, one for each eight bytes of a
 * stripe.  All that the stripes of a block contribute to an accumulator is added up, so their order does not matter; only
 * the scrambling between blocks is sequential.  So four groups of eight threads sum four blocks at a time, each thread for
 * one accumulator.  Then all groups do the same four scramblings.
 */
#include "cuda/checksum_kernel.h"

#include "codec/result.h"
#include "cuda/ptx.cuh"

enum {
	THREADS = 128,
	WARP = 32,
	GROUP = 8, /* threads: one for each accumulator */
	GROUPS = WARP / GROUP,
	STRIPE_BYTES = 64,
	BLOCK_STRIPES = 16,
	BLOCK_BYTES = BLOCK_STRIPES * STRIPE_BYTES,
	SHORT_BYTES = 240, /* at most, for other formulas */
	/* Where the keys begin in the secret. */
	SCRAMBLE_KEY = 128,
	LAST_STRIPE_KEY = 121,
	MERGE_KEY = 11,
	SHORT_KEY_SHIFT = 3,
	SHORT_LAST_KEY = 119,
};

#define P32_1 0x9E3779B1u
#define P32_2 0x85EBCA77u
#define P32_3 0xC2B2AE3Du
#define P64_1 0x9E3779B185EBCA87ull
#define P64_2 0xC2B2AE3D27D4EB4Full
#define P64_3 0x165667B19E3779F9ull
#define P64_4 0x85EBCA77C2B2AE63ull
#define P64_5 0x27D4EB2F165667C5ull
#define P_MIX_1 0x165667919E3779F9ull
#define P_MIX_2 0x9FB21C651E98DF25ull

/* XXH3's default secret, in words of the host's and the device's byte order. */
static __device__ const uint32_t wcx_secret[48] = {
	0x396cfeb8, 0xbe4ba423, 0x2c81017c, 0x1cad21f7, 0xe96dd4de, 0xdb979083, 0xa4a44072, 0x1f67b3b7,
	0x4ee679cb, 0x78e5c0cc, 0x7dd05a82, 0x2172ffcc, 0x744608b8, 0x8e2443f7, 0xe69035e0, 0x4c263a81,
	0xbb52283c, 0xcb00c391, 0x8b65d088, 0xa32e531b, 0x97486471, 0x4ef90da2, 0x46ef1938, 0xd8acdea9,
	0x3f76faa8, 0x3f349ce3, 0xc7bbdcf9, 0x1d4f0bc7, 0x4be0518a, 0x3159b4cd, 0xc97e9fc8, 0x647378d9,
	0x83acc5ea, 0xc3ebd334, 0xffa081c5, 0xeb6313fa, 0x51dd0d17, 0x49daf0b7, 0x265516d3, 0x9e68d429,
	0x58be162b, 0xfca1477d, 0xd1b8f88f, 0xce31d07a, 0x8f3acb45, 0x28041695, 0xcafbd7af, 0x7e404bbb,
};

static __device__ const uint64_t wcx_starts[GROUP] = { P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1 };

/* Eight bytes at any address, from the aligned words that contain them. */
static __device__ __forceinline__ uint64_t wcx_read_64(const uint8_t *at)
{
	const uint32_t *words = (const uint32_t *)((uintptr_t)at & ~(uintptr_t)3);
	const uint32_t shift = 8 * (uint32_t)((uintptr_t)at & 3);
	const uint32_t low = __ldg(words), middle = __ldg(words + 1), high = shift ? __ldg(words + 2) : 0;

	return (uint64_t)__funnelshift_r(middle, high, shift) << 32 | __funnelshift_r(low, middle, shift);
}

static __device__ __forceinline__ uint32_t wcx_read_32(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static __device__ __forceinline__ uint64_t wcx_key(uint32_t offset)
{
	return wcx_read_64((const uint8_t *)wcx_secret + offset);
}

static __device__ __forceinline__ uint64_t wcx_fold_product(uint64_t a, uint64_t b)
{
	return a * b ^ __umul64hi(a, b);
}

static __device__ __forceinline__ uint64_t wcx_finish(uint64_t hash)
{
	hash = (hash ^ hash >> 37) * P_MIX_1;
	return hash ^ hash >> 32;
}

/* --- up to 240 bytes, by one thread --- */

static __device__ uint64_t wcx_finish_tiny(uint64_t hash)
{
	hash = (hash ^ hash >> 33) * P64_2;
	hash = (hash ^ hash >> 29) * P64_3;
	return hash ^ hash >> 32;
}

static __device__ uint64_t wcx_swap_bytes(uint64_t value)
{
	return (uint64_t)__byte_perm((uint32_t)value, 0, 0x0123) << 32 | __byte_perm((uint32_t)(value >> 32), 0, 0x0123);
}

/* Up to 16 bytes. */
static __device__ uint64_t wcx_hash_tiny(const uint8_t *src, uint32_t bytes)
{
	uint64_t low, high;

	if (bytes > 8) {
		low = wcx_read_64(src) ^ wcx_key(24) ^ wcx_key(32);
		high = wcx_read_64(src + bytes - 8) ^ wcx_key(40) ^ wcx_key(48);
		return wcx_finish(bytes + wcx_swap_bytes(low) + high + wcx_fold_product(low, high));
	}
	if (bytes >= 4) {
		low = wcx_read_32(src + bytes - 4) + ((uint64_t)wcx_read_32(src) << 32);
		low ^= wcx_key(8) ^ wcx_key(16);
		low ^= (low << 49 | low >> 15) ^ (low << 24 | low >> 40);
		low *= P_MIX_2;
		low ^= (low >> 35) + bytes;
		low *= P_MIX_2;
		return low ^ low >> 28;
	}
	if (bytes == 0)
		return wcx_finish_tiny(wcx_key(56) ^ wcx_key(64));
	low = (uint32_t)src[0] << 16 | (uint32_t)src[bytes >> 1] << 24 | src[bytes - 1] | bytes << 8;
	return wcx_finish_tiny(low ^ (wcx_secret[0] ^ wcx_secret[1]));
}

static __device__ uint64_t wcx_mix_16(const uint8_t *src, uint32_t key)
{
	return wcx_fold_product(wcx_read_64(src) ^ wcx_key(key), wcx_read_64(src + 8) ^ wcx_key(key + 8));
}

static __device__ uint64_t wcx_hash_short(const uint8_t *src, uint32_t bytes)
{
	uint64_t hash = bytes * P64_1;

	if (bytes <= 16)
		return wcx_hash_tiny(src, bytes);
	if (bytes <= 128) {
		/* From both ends towards the middle. */
		for (uint32_t i = 0; i < (bytes + 31) / 32; i++)
			hash += wcx_mix_16(src + 16 * i, 32 * i) + wcx_mix_16(src + bytes - 16 * (i + 1), 32 * i + 16);
		return wcx_finish(hash);
	}
	for (uint32_t i = 0; i < 8; i++)
		hash += wcx_mix_16(src + 16 * i, 16 * i);
	hash = wcx_finish(hash);
	for (uint32_t i = 8; i < bytes / 16; i++)
		hash += wcx_mix_16(src + 16 * i, 16 * (i - 8) + SHORT_KEY_SHIFT);
	return wcx_finish(hash + wcx_mix_16(src + bytes - 16, SHORT_LAST_KEY));
}

/* --- longer, by a warp --- */

/* What stripes contribute: products to the accumulator of their place, the data itself to its neighbour. */
struct wcx_stripe_sums {
	uint64_t products, data;
};

static __device__ __forceinline__ void wcx_add_stripe(uint64_t data, uint64_t key, struct wcx_stripe_sums *sums)
{
	key ^= data;
	sums->data += data;
	sums->products += (key & UINT32_MAX) * (key >> 32);
}

static __device__ __forceinline__ uint64_t wcx_shuffle_64(uint64_t value, uint32_t lane)
{
	return __shfl_sync(~0u, value, (int)lane);
}

static __device__ __forceinline__ uint64_t wcx_neighbour_64(uint64_t value, uint32_t distance)
{
	return __shfl_xor_sync(~0u, value, (int)distance);
}

/* The sum that a thread's accumulator gets from the stripes of its group. */
static __device__ __forceinline__ uint64_t wcx_sum(const struct wcx_stripe_sums &sums)
{
	return sums.products + wcx_neighbour_64(sums.data, 1);
}

static __device__ __forceinline__ uint64_t wcx_hash_long(const uint8_t *src, uint32_t bytes)
{
	const uint32_t lane = threadIdx.x % WARP, place = lane % GROUP, group = lane / GROUP;
	const uint32_t blocks = (bytes - 1) / BLOCK_BYTES, stripes = (bytes - 1) % BLOCK_BYTES / STRIPE_BYTES;
	const uint64_t scramble_key = wcx_key(SCRAMBLE_KEY + 8 * place);
	struct wcx_stripe_sums sums;
	uint64_t keys[BLOCK_STRIPES], accumulator = wcx_starts[place], sum;

#pragma unroll
	for (uint32_t i = 0; i < BLOCK_STRIPES; i++)
		keys[i] = wcx_key(8 * (i + place));
	src += 8 * place;
	for (uint32_t first = 0; first < blocks; first += GROUPS) {
		const uint8_t *at = src + (first + group) * BLOCK_BYTES;

		sums = { 0, 0 };
		if (first + group < blocks) {
			uint64_t data[BLOCK_STRIPES];

#pragma unroll
			for (uint32_t i = 0; i < BLOCK_STRIPES; i++)
				data[i] = wcx_read_64(at + i * STRIPE_BYTES);
#pragma unroll
			for (uint32_t i = 0; i < BLOCK_STRIPES; i++)
				wcx_add_stripe(data[i], keys[i], &sums);
		}
		sum = wcx_sum(sums);
#pragma unroll
		for (uint32_t i = 0; i < GROUPS; i++) {
			const uint64_t added = accumulator + wcx_shuffle_64(sum, i * GROUP + place);

			if (first + i < blocks)
				accumulator = (added ^ added >> 47 ^ scramble_key) * P32_1;
		}
	}
	sums = { 0, 0 };
	for (uint32_t i = group; i < stripes; i += GROUPS)
		wcx_add_stripe(wcx_read_64(src + blocks * BLOCK_BYTES + i * STRIPE_BYTES), wcx_key(8 * (i + place)), &sums);
	if (group == 0)
		wcx_add_stripe(wcx_read_64(src + bytes - STRIPE_BYTES), wcx_key(LAST_STRIPE_KEY + 8 * place), &sums);
	sum = wcx_sum(sums);
	sum += wcx_neighbour_64(sum, GROUP);
	sum += wcx_neighbour_64(sum, 2 * GROUP);
	accumulator = (accumulator + sum) ^ wcx_key(MERGE_KEY + 8 * place);
	sum = wcx_fold_product(accumulator, wcx_neighbour_64(accumulator, 1));
	sum += wcx_neighbour_64(sum, 2);
	sum += wcx_neighbour_64(sum, 4);
	return wcx_finish(bytes * P64_1 + sum);
}

static __global__ void __launch_bounds__(THREADS) wcx_check_tiles(const struct wcx_checksum_job job)
{
	const uint32_t number = blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;

	if (number < job.count) {
		const struct wcx_tile_check check = job.checks[number];
		const uint8_t *src = job.src + check.src;
		const bool is_short = check.bytes <= SHORT_BYTES;
		uint64_t hash = is_short ? 0 : wcx_hash_long(src, check.bytes);

		if (threadIdx.x % WARP == 0) {
			if (is_short)
				hash = wcx_hash_short(src, check.bytes);
			if (job.status)
				job.status[number] = job.mark | ((uint32_t)hash == check.checksum ? WCX_OK : WCX_BAD_DATA);
			if (job.hashes)
				job.hashes[number] = hash;
		}
	}
	/* As in the kernels that decode: when this launch has completed, so have those before it. */
	if (blockIdx.x == 0)
		wcx_wait_for_last_launch();
}

extern "C" cudaError_t wcx_checksums_compute(const struct wcx_checksum_job *job, cudaStream_t stream)
{
	struct wcx_checksum_job copy = *job;
	void *arguments[] = { &copy };
	cudaLaunchAttribute early;
	cudaLaunchConfig_t config = {};

	if (job->count == 0)
		return cudaSuccess;
	early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
	early.val.programmaticStreamSerializationAllowed = 1;
	config.stream = stream;
	config.attrs = &early;
	config.numAttrs = job->overlaps;
	config.gridDim = dim3((job->count + THREADS / WARP - 1) / (THREADS / WARP));
	config.blockDim = dim3(THREADS);
	return cudaLaunchKernelExC(&config, (const void *)wcx_check_tiles, arguments);
}
