/* SPDX-License-Identifier: MIT */
/*
 * Decoding tiles on the GPU.  This header needs no CUDA; a build without CUDA links a stub whose wcx_gpu_open says
 * WCX_NO_DEVICE.
 */
#ifndef WCX_GPU_DECODE_H
#define WCX_GPU_DECODE_H

#include <stddef.h>

#include "codec/result.h"
#include "codec/tile.h"

enum { WCX_GPU_NAME_BYTES = 256 };

struct wcx_gpu;

/*
 * wcx_gpu_open - get hold of the first GPU
 *
 * Starts the CUDA runtime: not to be called before a fork.  On success *ret is the caller's to free, and name gets the
 * device's name; otherwise name gets the reason in one line.  Returns WCX_OK, WCX_NO_DEVICE, WCX_NO_MEMORY or
 * WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_open(struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES]);
void wcx_gpu_free(struct wcx_gpu *gpu); /* NULL is fine; no call may be under way */

/*
 * wcx_gpu_decode - decode tiles from host memory to host memory
 *
 * Safe from any number of threads, which overlap their copies and kernels.  Splits the batch so that the pinned buffers,
 * whose size is fixed at open, hold it.  Waits for the GPU, and for buffers that other calls are using.
 *
 * Returns WCX_OK when every job has a result: WCX_OK, WCX_BAD_DATA or WCX_WRONG_SIZE as wcx_tile_decode gives it.  Returns
 * WCX_DEVICE_FAILED (out of memory, lost device, failed launch) when jobs may be undone: their result is then
 * WCX_DEVICE_FAILED and their dst undefined.
 */
enum wcx_result wcx_gpu_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count);

#endif
