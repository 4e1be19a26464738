/* SPDX-License-Identifier: MIT */
/*
 * Decodes tiles on the GPU, from host memory to host memory.  This header needs no CUDA; a build without CUDA links a stub
 * whose wcx_gpu_open returns WCX_NO_DEVICE.
 */
#ifndef WCX_GPU_DECODE_H
#define WCX_GPU_DECODE_H

#include <stddef.h>

#include "codec/result.h"
#include "codec/tile.h"

enum { WCX_GPU_NAME_BYTES = 256 };

struct wcx_gpu;

/*
 * wcx_gpu_open - open the first GPU
 *
 * Starts the CUDA runtime, which does not survive a fork.  On success the caller frees *ret, and name gets the device's
 * name; otherwise name gets the reason in one line.  Returns WCX_OK, WCX_NO_DEVICE, WCX_NO_MEMORY or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_open(struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES]);
void wcx_gpu_free(struct wcx_gpu *gpu); /* NULL is fine; no call may be in progress */

/*
 * wcx_gpu_decode - decode tiles
 *
 * May be called from any number of threads, whose copies and kernels overlap.  Splits the jobs into batches that fit the
 * pinned buffers, which are allocated at open.  Waits for the GPU, and for buffers in use by other calls.
 *
 * Returns WCX_OK when every job has a result: WCX_OK, WCX_BAD_DATA or WCX_WRONG_SIZE, as from wcx_tile_decode.  Returns
 * WCX_DEVICE_FAILED (out of memory, lost device, failed launch) if jobs may be undone: these have the result
 * WCX_DEVICE_FAILED and an undefined dst.
 */
enum wcx_result wcx_gpu_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count);

#endif
