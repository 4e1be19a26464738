/* SPDX-License-Identifier: MIT */
/* Launches the kernels that decode tiles (docs/gpu.md). */
#ifndef WCX_TILE_KERNEL_H
#define WCX_TILE_KERNEL_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "cuda/tile_batch.h"

enum { WCX_STATUS_MARK = 256 };

/* The abilities of a device. */
struct wcx_kernels {
	uint32_t blocks;         /* that run concurrently, for struct wcx_batch_limits */
	uint32_t shared_bytes;   /* dynamic shared memory of a block */
	uint32_t carrier_tables; /* for struct wcx_batch_limits */
	bool overlap;            /* launches may overlap: the kernels themselves then keep the stream's order */
};

/*
 * wcx_kernels_open - prepare the kernels for the thread's current device
 *
 * Returns the runtime's error if there is no driver, no device, or no code for it.  There is nothing to close.
 */
cudaError_t wcx_kernels_open(struct wcx_kernels *ret);

/*
 * wcx_kernels_fit - tell what kernels can use on a device that gives a block so many bytes of shared memory
 * wcx_kernels_least_warps - of all launches on such a device, the warps of that with the fewest
 *
 * Both need no device.  The first sets blocks to 0, and returns false where not even the smallest launches fit.
 */
bool wcx_kernels_fit(uint32_t shared_bytes, struct wcx_kernels *ret);
uint32_t wcx_kernels_least_warps(const struct wcx_kernels *kernels);

/* A batch to decode.  All pointers but layout are to device memory. */
struct wcx_kernel_job {
	const struct wcx_batch_layout *layout; /* needed only during the call */
	uint8_t *control;   /* from wcx_tile_batch_write, with this layout; used up: decoding again takes a new copy */
	const uint8_t *src; /* base of the items' src; WCX_BATCH_SRC_SLACK readable bytes follow the last tile */
	uint8_t *dst;       /* base of the items' dst */
	uint32_t *status;   /* gets mark | WCX_OK or mark | WCX_BAD_DATA for each item */
	uint32_t mark;      /* a multiple of WCX_STATUS_MARK, to tell new statuses from old memory */
};

/* wcx_kernels_decode - decode a batch in stream order.  May be called from any thread.  Returns launch errors. */
cudaError_t wcx_kernels_decode(const struct wcx_kernels *kernels, const struct wcx_kernel_job *job, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
