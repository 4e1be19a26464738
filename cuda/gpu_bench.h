/* SPDX-License-Identifier: MIT */
/* Times the GPU's decoding alone, from device memory to device memory. */
#ifndef WCX_GPU_BENCH_H
#define WCX_GPU_BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "cuda/gpu_decode.h"

/*
 * wcx_gpu_time_decode - time the kernel on the coded tiles of these jobs
 *
 * Uploads the tiles once, and decodes each of them `repeats` times in one launch, every time to a place of its own.
 * ms_ret[r] gets what launch r of `rounds` took, in milliseconds by the device's events; an untimed launch comes
 * before.  *bytes_ret gets the bytes that each launch decodes; packed and decoded bytes must each stay below 4 GiB.
 * For figures that the cache does not flatter, the packed bytes of the jobs must exceed it.
 *
 * Every status is checked after the last launch, and the jobs get their results and bytes from the last of the repeats.
 * Returns WCX_OK, WCX_BAD_DATA (some tile did not decode), WCX_WRONG_SIZE (a count is 0, no tile is coded, or there are
 * too many bytes), WCX_NO_MEMORY, WCX_NO_DEVICE or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_time_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count, uint32_t repeats,
				    uint32_t rounds, double *ms_ret, uint64_t *bytes_ret);

#endif
