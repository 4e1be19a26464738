/* SPDX-License-Identifier: MIT */
/*
 * Decodes tiles on the GPU, from host memory to host memory.  This header needs no CUDA; a build without CUDA links a stub
 * whose wcx_gpu_open returns WCX_NO_DEVICE.
 */
#ifndef WCX_GPU_DECODE_H
#define WCX_GPU_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/result.h"
#include "codec/tile.h"

enum {
	WCX_GPU_NAME_BYTES = 256,
	WCX_GPU_CALLS_MAX = 8, /* under way at a time */
	/* Packed tiles that the GPU reads from the caller's memory, and the size of that memory, which it also writes to. */
	WCX_GPU_PACKED_BYTES = (4 << 20) + (516 << 10),
	WCX_GPU_PACKED_ROOM = (4 << 20) + (640 << 10),
	WCX_GPU_CALL_BYTES = WCX_GPU_PACKED_BYTES + (16 << 10), /* pinned here for a call, when it needs all */
	WCX_GPU_BASE_BYTES = 2 << 20, /* of the tiles that the GPU decodes as bases of others in a batch */
};

struct wcx_gpu;

/*
 * wcx_gpu_open - open a GPU by its number
 *
 * calls: that need not wait for each other, at most WCX_GPU_CALLS_MAX and at least one.  Starts the CUDA
 * runtime, which does not survive a fork.  On success the caller frees *ret, and name gets the device's
 * name; otherwise name gets the reason in one line.  Returns WCX_OK, WCX_NO_DEVICE, WCX_NO_MEMORY or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_open(int device, unsigned calls, struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES]);
void wcx_gpu_free(struct wcx_gpu *gpu); /* NULL is fine; no call may be in progress */

/*
 * wcx_gpu_map - pin memory, which makes it resident, so that the GPU can write to it
 *
 * Returns whether it is pinned.  It must be unpinned before it and the GPU are freed.
 */
bool wcx_gpu_map(struct wcx_gpu *gpu, void *memory, size_t bytes);
void wcx_gpu_unmap(struct wcx_gpu *gpu, void *memory, size_t bytes);

/* wcx_gpu_alloc - allocate pinned memory of the host; NULL if there is none */
void *wcx_gpu_alloc(struct wcx_gpu *gpu, size_t bytes);
void wcx_gpu_dealloc(struct wcx_gpu *gpu, void *memory, size_t bytes); /* NULL is fine */

/* Memory that decoding takes, without that of CUDA itself; pinned memory of the host includes what wcx_gpu_map pinned. */
struct wcx_gpu_memory {
	uint64_t device_bytes, pinned_bytes;
};

struct wcx_gpu_memory wcx_gpu_get_memory(struct wcx_gpu *gpu);

/* wcx_gpu_release_idle - free pinned memory that no call has used for idle_ms; one that needs it again allocates it anew */
void wcx_gpu_release_idle(struct wcx_gpu *gpu, uint64_t idle_ms);

/* wcx_gpu_takes - whether the GPU decodes coded tiles of a recipe that is a difference; all others it does */
bool wcx_gpu_takes(const struct wcx_gpu *gpu, const struct wcx_recipe *recipe);

/* Tiles to decode. */
struct wcx_gpu_batch {
	struct wcx_tile_job *jobs;
	size_t job_count;
	const bool *dst_is_pinned; /* of each job, by wcx_gpu_map or wcx_gpu_alloc; NULL: of none */
	uint8_t *packed;           /* WCX_GPU_PACKED_ROOM of wcx_gpu_alloc, or NULL; src of all jobs is in its first
				      WCX_GPU_PACKED_BYTES, and what is behind the last of them is overwritten */
	/*
	 * Checksums of the jobs' packed bytes, which the GPU compares with the bytes that it decodes, or NULL: the caller
	 * has done so.  Only coded tiles are compared: the caller looks at others, and at jobs that get WCX_DEVICE_FAILED.
	 */
	const uint32_t *checksums;
	/*
	 * WCX_GPU_BASE_BYTES of memory, or NULL.  A job whose dst is there is decoded to memory of the GPU that stands for
	 * it, and the memory itself is not written; the next job, a difference, has its base in that dst.  Other
	 * differences bring their base along, and are WCX_BAD_DATA if packed is used, as those are whose base fails.
	 */
	const uint8_t *bases;
	/*
	 * NULL, or gets how long the device took, unless the call fails: from when work was first submitted until all was
	 * done.  What the call took beyond that, it waited for locks, cores or copies of the host.
	 */
	uint64_t *device_ns_ret;
};

/* wcx_gpu_is_among_bases - whether an address is in the batch's memory for bases */
static inline bool wcx_gpu_is_among_bases(const struct wcx_gpu_batch *batch, const uint8_t *at)
{
	return batch->bases && (uintptr_t)at - (uintptr_t)batch->bases < WCX_GPU_BASE_BYTES;
}

/* A batch that is being decoded.  All members are private. */
struct wcx_gpu_call {
	struct wcx_gpu_batch batch;
	size_t packed_bytes;           /* of the caller's memory: behind them there is space for the control */
	size_t next;                   /* the first job that is neither submitted nor has a result */
	int64_t submitted_ns, done_ns; /* the first and the last of its batches; 0: none */
	struct decode_queue *queue;    /* where the GPU works on it, or NULL */
	bool has_failed;
};

/*
 * wcx_gpu_start - start to decode tiles
 *
 * May be called from any number of threads, whose copies and kernels overlap.  Waits for buffers in use by other calls, but
 * not for the GPU: with a batch that fits the buffers, it has all of its work then.  The batch's memory belongs to the call
 * until wcx_gpu_finish, which must follow and may be called by another thread.
 */
void wcx_gpu_start(struct wcx_gpu *gpu, const struct wcx_gpu_batch *batch, struct wcx_gpu_call *call);

/* wcx_gpu_wait - wait until the GPU has done what a call has submitted; returns whether finishing it takes long: copies, say
 */
bool wcx_gpu_wait(struct wcx_gpu *gpu, struct wcx_gpu_call *call);

/*
 * wcx_gpu_finish - wait for the tiles of a call, and give them their results
 *
 * Splits jobs that do not fit the buffers into batches.  Tiles whose dst is pinned are written there by the GPU itself;
 * others are written to pinned memory, allocated when first needed, and copied by the host.
 *
 * Returns WCX_OK when every job has a result: WCX_OK, WCX_BAD_DATA or WCX_WRONG_SIZE, as from wcx_tile_decode, or
 * WCX_NO_MEMORY where none could be pinned; a tile with another checksum has WCX_BAD_DATA, although the CPU may be able to
 * decode it.  Returns WCX_DEVICE_FAILED (out of memory, lost device, failed launch) if jobs may be undone: these have the
 * result WCX_DEVICE_FAILED and an undefined dst.  In any case the GPU does not use the jobs' memory any more.
 */
enum wcx_result wcx_gpu_finish(struct wcx_gpu *gpu, struct wcx_gpu_call *call);

/* wcx_gpu_decode - decode tiles: both of the above */
static inline enum wcx_result wcx_gpu_decode(struct wcx_gpu *gpu, const struct wcx_gpu_batch *batch)
{
	struct wcx_gpu_call call;

	wcx_gpu_start(gpu, batch, &call);
	return wcx_gpu_finish(gpu, &call);
}

#endif
