/* SPDX-License-Identifier: MIT */
/* Times decoding on the GPU alone, from device memory to device memory.  For one thread at a time. */
#ifndef WCX_GPU_TIMING_H
#define WCX_GPU_TIMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cuda/gpu_decode.h"

struct wcx_gpu_timing;

/*
 * Coded tiles to decode as one batch, `repeats` times over.
 *
 * If some are differences, base has all elements of their bases, to which job->base points.  Other jobs whose dst is within
 * base decode these elements: on the device, before the differences.  Nothing is written to base on the host.
 */
struct wcx_gpu_timing_set {
	struct wcx_tile_job *jobs;
	size_t job_count;
	uint32_t repeats;
	const uint8_t *base;
	size_t base_bytes;
	bool fuses; /* a job that decodes the base of the next one does so for that alone: both may be decoded at once */
};

/*
 * wcx_gpu_timing_create - prepare to decode a set
 *
 * Allocates device memory for all copies of the packed and the decoded tiles; all packed copies must stay below 4 GiB. What
 * the set points to must outlive *ret, which the caller frees.  Returns WCX_OK, WCX_BAD_DATA (a tile's header is damaged),
 * WCX_WRONG_SIZE (a count is 0, a tile is not coded, or there are too many bytes or tiles), WCX_NO_MEMORY, WCX_NO_DEVICE or
 * WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_timing_create(struct wcx_gpu *gpu, const struct wcx_gpu_timing_set *set,
				      struct wcx_gpu_timing **ret);
void wcx_gpu_timing_free(struct wcx_gpu_timing *timing); /* NULL is fine */

/* wcx_gpu_timing_bytes - decoded bytes of one execution, without those of bases */
uint64_t wcx_gpu_timing_bytes(const struct wcx_gpu_timing *timing);

/* wcx_gpu_timing_run - decode everything as one batch; the time is from CUDA events.  WCX_OK or WCX_DEVICE_FAILED. */
enum wcx_result wcx_gpu_timing_run(struct wcx_gpu_timing *timing, double *ms_ret);

/*
 * wcx_gpu_timing_check - decode once more, over overwritten memory
 *
 * The jobs get results and bytes of the last repeat.  Returns WCX_OK, WCX_BAD_DATA (some tile failed) or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_timing_check(struct wcx_gpu_timing *timing);

#endif
