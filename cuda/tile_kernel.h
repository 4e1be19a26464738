/* SPDX-License-Identifier: MIT */
/* Starts the kernels that decode tiles (docs/gpu.md). */
#ifndef WCX_TILE_KERNEL_H
#define WCX_TILE_KERNEL_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "cuda/tile_batch.h"

enum { WCX_STATUS_MARK = 256 };

/* What a device can do. */
struct wcx_kernels {
	uint32_t blocks;       /* that run at a time, for struct wcx_batch_limits */
	uint32_t shared_bytes; /* that a block can have */
	int overlap;           /* whether launches can overlap: the kernels then see to the order themselves */
};

/*
 * wcx_kernels_open - get the kernels ready on the thread's current device
 *
 * Fails with the runtime's reason where there is no driver, no device, or none that the kernels were built for.  Nothing has
 * to be closed.
 */
cudaError_t wcx_kernels_open(struct wcx_kernels *ret);

/*
 * wcx_kernels_decode - decode a batch, in stream order
 *
 * control is what wcx_tile_batch_write wrote, with this layout, and src what the tiles' src are counted from; both in the
 * device's memory, and src has WCX_BATCH_SRC_SLACK bytes behind the last tile.  dst is what the tiles' dst are counted from.
 * status gets mark | WCX_OK or mark | WCX_BAD_DATA for each item; mark is a multiple of WCX_STATUS_MARK that tells it from
 * what may be there.  Uses up the control: to decode the batch again, it has to be copied there again.  May be called from
 * any thread.
 */
cudaError_t wcx_kernels_decode(const struct wcx_kernels *kernels, uint8_t *control, const struct wcx_batch_layout *layout,
			       const uint8_t *src, uint8_t *dst, uint32_t *status, uint32_t mark, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
