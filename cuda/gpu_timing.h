/* SPDX-License-Identifier: MIT */
/* Times the GPU's decoding alone, from device memory to device memory.  For one thread at a time. */
#ifndef WCX_GPU_TIMING_H
#define WCX_GPU_TIMING_H

#include <stddef.h>
#include <stdint.h>

#include "cuda/gpu_decode.h"

struct wcx_gpu_timing;

/*
 * wcx_gpu_timing_create - get ready to decode these jobs, all of them coded tiles
 *
 * Has the tiles in the device's memory `repeats` times, and room for what each of them decodes to; the packed bytes, with
 * all repeats, must stay below 4 GiB.  The jobs must outlive *ret, which the caller frees.  Returns WCX_OK, WCX_BAD_DATA (a
 * tile's header is damaged), WCX_WRONG_SIZE (a count is 0, a tile is not coded, or there are too many bytes or tiles),
 * WCX_NO_MEMORY, WCX_NO_DEVICE or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_timing_create(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count, uint32_t repeats,
				      struct wcx_gpu_timing **ret);
void wcx_gpu_timing_free(struct wcx_gpu_timing *timing); /* NULL is fine */

/* wcx_gpu_timing_bytes - what a run decodes */
uint64_t wcx_gpu_timing_bytes(const struct wcx_gpu_timing *timing);

/* wcx_gpu_timing_run - decode all of it, as one batch; milliseconds by the device's events.  WCX_OK or WCX_DEVICE_FAILED. */
enum wcx_result wcx_gpu_timing_run(struct wcx_gpu_timing *timing, double *ms_ret);

/*
 * wcx_gpu_timing_check - run once more, over overwritten memory
 *
 * The jobs get results and bytes from the last of the repeats.  Returns WCX_OK, WCX_BAD_DATA (some tile did not decode) or
 * WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_timing_check(struct wcx_gpu_timing *timing);

#endif
