/* SPDX-License-Identifier: MIT */
/*
 * Checks that the GPU computes the checksums of libxxhash, and refuses tiles whose checksum differs.  Prints the kernel's
 * rate.  Without a GPU the exit status is 77, which ctest counts as skipped.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "codec/arith.h"
#include "codec/trial_tile.h"
#include "cuda/gpu_checksum.h"
#include "cuda/gpu_decode.h"
#include "fs/format/container.h"
#include "tests/fixtures/sample_data.h"
#include "tests/fixtures/sample_files.h"
#include "tests/unit/check.h"

enum {
	EXIT_SKIPPED = 77,
	MANY_LENGTHS = 5000,
	SRC_BYTES = 1 << 20,
	LONGEST = WCX_TILE_MAX_BYTES,
	RATE_TILES = 4096,
	RATE_TILE_BYTES = 28 << 10, /* as of 32 KiB of weights */
	JOBS = 40,
};

static uint8_t *random_bytes(size_t bytes)
{
	struct sample_random random = { 0xC0FFEE };
	uint8_t *ret = malloc(bytes);

	sample_require(ret != NULL, "memory");
	for (size_t i = 0; i < bytes; i++)
		ret[i] = (uint8_t)sample_next(&random);
	return ret;
}

static void compare(const uint8_t *src, const struct wcx_gpu_part *parts, size_t count)
{
	uint64_t *hashes = calloc(count, sizeof *hashes);
	double ms;

	sample_require(hashes != NULL, "memory");
	CHECK(wcx_gpu_checksums(0, src, SRC_BYTES, parts, count, hashes, &ms) == WCX_OK);
	for (size_t i = 0; i < count; i++)
		if (!CHECK(hashes[i] == wcx_checksum64(src + parts[i].offset, parts[i].bytes)))
			fprintf(stderr, "\t%u bytes at %zu\n", parts[i].bytes, parts[i].offset);
	free(hashes);
}

/* Every length up to MANY_LENGTHS, at offsets of all remainders modulo 64; then tiles up to the largest. */
static void check_lengths(void)
{
	static struct wcx_gpu_part parts[MANY_LENGTHS + 2000];
	struct sample_random random = { 7 };
	uint8_t *src = random_bytes(SRC_BYTES);
	size_t count = 0;

	for (uint32_t bytes = 0; bytes <= MANY_LENGTHS; bytes++)
		parts[count++] = (struct wcx_gpu_part){ bytes * 37 % 4099, bytes };
	for (; count < WCX_ARRAY_COUNT(parts) - 34; count++)
		parts[count] =
			(struct wcx_gpu_part){ sample_below(&random, 1000), (uint32_t)sample_below(&random, LONGEST) };
	for (uint32_t i = 0; count < WCX_ARRAY_COUNT(parts); i++, count++) /* the largest, and the ends of src */
		parts[count] =
			i % 2 ? (struct wcx_gpu_part){ i, LONGEST } : (struct wcx_gpu_part){ SRC_BYTES - 20 * i, 20 * i };
	compare(src, parts, count);
	parts[0] = (struct wcx_gpu_part){ SRC_BYTES - 1, 2 };
	CHECK(wcx_gpu_checksums(0, src, SRC_BYTES, parts, 1, (uint64_t[1]){ 0 }, &(double){ 0 }) == WCX_WRONG_SIZE);
	free(src);
}

/* Tiles whose checksums differ fail, whether the host or the GPU writes to their place, and only these. */
static void check_tiles(struct wcx_gpu *gpu)
{
	struct wcx_trial_tile *tile = wcx_trial_tile_create();
	uint8_t *packed = wcx_gpu_alloc(gpu, WCX_GPU_PACKED_ROOM), *dst = wcx_gpu_alloc(gpu, JOBS * (32 << 10));
	struct wcx_tile_job jobs[JOBS];
	uint32_t checksums[JOBS];
	bool is_pinned[JOBS];

	sample_require(tile && packed && dst, "memory");
	for (size_t round = 0; round < 4; round++) {
		for (size_t i = 0; i < JOBS; i++) {
			jobs[i] = wcx_trial_tile_job(tile);
			memcpy(packed + i * (32 << 10), jobs[i].src, jobs[i].src_bytes);
			jobs[i].src = packed + i * (32 << 10);
			jobs[i].dst = dst + i * (32 << 10);
			checksums[i] = wcx_checksum32(jobs[i].src, jobs[i].src_bytes) ^ (i % 7 == round);
			is_pinned[i] = round < 2;
			if (i % 11 == round) /* the last byte of the payload */
				packed[i * (32 << 10) + jobs[i].src_bytes - 1] ^= 1;
		}
		CHECK(wcx_gpu_decode(gpu, &(struct wcx_gpu_batch){
						  .jobs = jobs,
						  .job_count = JOBS,
						  .dst_is_pinned = is_pinned,
						  .packed = round % 2 ? packed : NULL,
						  .checksums = checksums,
					  }) == WCX_OK);
		for (size_t i = 0; i < JOBS; i++)
			CHECK(jobs[i].result == (i % 7 == round || i % 11 == round ? WCX_BAD_DATA : WCX_OK));
	}
	wcx_gpu_dealloc(gpu, dst, JOBS * (32 << 10));
	wcx_gpu_dealloc(gpu, packed, WCX_GPU_PACKED_ROOM);
	wcx_trial_tile_free(tile);
}

static void print_rate(size_t count)
{
	static struct wcx_gpu_part parts[RATE_TILES];
	static uint64_t hashes[RATE_TILES];
	uint8_t *src = random_bytes(count * RATE_TILE_BYTES);
	double ms, best_ms = 1e9;

	for (size_t i = 0; i < count; i++)
		parts[i] = (struct wcx_gpu_part){ i * RATE_TILE_BYTES, RATE_TILE_BYTES - 4 * (uint32_t)(i % 16) };
	for (int round = 0; round < 5; round++) {
		CHECK(wcx_gpu_checksums(0, src, count * RATE_TILE_BYTES, parts, count, hashes, &ms) == WCX_OK);
		best_ms = WCX_MIN(ms, best_ms);
	}
	printf("%zu tiles of 28 KiB: %.1f us, %.0f GB/s\n", count, 1e3 * best_ms,
	       (double)(count * RATE_TILE_BYTES) / best_ms / 1e6);
	free(src);
}

int main(void)
{
	char name[WCX_GPU_NAME_BYTES];
	struct wcx_gpu *gpu = NULL;
	const enum wcx_result result = wcx_gpu_open(0, 1, &gpu, name);

	printf("%s: %s\n", result == WCX_NO_DEVICE ? "skipped" : "GPU", name);
	if (result == WCX_NO_DEVICE)
		return EXIT_SKIPPED;
	if (CHECK(result == WCX_OK)) {
		check_lengths();
		check_tiles(gpu);
		print_rate(1);
		print_rate(64);
		print_rate(RATE_TILES);
	}
	wcx_gpu_free(gpu);
	return check_report();
}
