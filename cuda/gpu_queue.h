/* SPDX-License-Identifier: MIT */
/*
 * A queue takes one batch of tiles at a time to the GPU: a stream, and buffers in pinned and in the device's memory.
 *
 * A queue is for one thread at a time, whose current device must be the one that it was opened on.
 */
#ifndef WCX_GPU_QUEUE_H
#define WCX_GPU_QUEUE_H

#include <cuda_runtime_api.h>

#include "codec/result.h"
#include "cuda/tile_batch.h"
#include "cuda/tile_kernel.h"

enum {
	WCX_QUEUE_ITEMS = 2048, /* of 4 MiB: tiles of 2 KiB or more */
	WCX_QUEUE_STATUS_BYTES = WCX_QUEUE_ITEMS * 4,
};

struct wcx_gpu_queue {
	const struct wcx_kernels *kernels;
	struct wcx_tile_batch *batch;
	const struct wcx_batch_layout *layout; /* of the batch under way; NULL without one */
	uint32_t mark;                         /* of the last batch's statuses */
	size_t src_bytes;                      /* that upload has room for, in front of slack and control */
	uint8_t *upload, *upload_dev;          /* pinned, and the device's */
	/* What comes back: statuses, and from WCX_QUEUE_STATUS_BYTES on, if there is room, decoded tiles. */
	uint8_t *download, *download_dev;
	cudaStream_t stream;
	cudaEvent_t done;
};

/*
 * wcx_gpu_queue_open - make a queue for batches of so many packed and, where they come back, decoded bytes
 *
 * *queue must be zero.  On failure, too, it has to be closed.  Returns WCX_OK, or WCX_NO_MEMORY or WCX_DEVICE_FAILED with
 * *error_ret set.
 */
enum wcx_result wcx_gpu_queue_open(struct wcx_gpu_queue *queue, const struct wcx_kernels *kernels, size_t src_bytes,
				   size_t dst_bytes, cudaError_t *error_ret);
void wcx_gpu_queue_close(struct wcx_gpu_queue *queue); /* must be idle; a zero queue is fine */

/*
 * wcx_gpu_queue_submit - send the batch on its way: upload, decoding, and the download of statuses and dst_bytes
 *
 * The first src_bytes of upload are the packed tiles, to which the batch's items refer; their dst counts from dst.  All
 * buffers are the device's until wcx_gpu_queue_wait.
 */
cudaError_t wcx_gpu_queue_submit(struct wcx_gpu_queue *queue, size_t src_bytes, uint8_t *dst, size_t dst_bytes);

/* wcx_gpu_queue_wait - wait, without spinning, for what was submitted and put into the stream since, and start a new batch
 */
cudaError_t wcx_gpu_queue_wait(struct wcx_gpu_queue *queue);

/*
 * wcx_gpu_queue_status - the result of an item, from wcx_gpu_queue_wait until the next batch is submitted
 *
 * WCX_OK or WCX_BAD_DATA; WCX_DEVICE_FAILED where the status is not one of this batch.
 */
static inline enum wcx_result wcx_gpu_queue_status(const struct wcx_gpu_queue *queue, uint32_t item)
{
	const uint32_t status = ((const uint32_t *)(const void *)queue->download)[item];

	return status / WCX_STATUS_MARK == queue->mark / WCX_STATUS_MARK ? (enum wcx_result)(status % WCX_STATUS_MARK)
									 : WCX_DEVICE_FAILED;
}

#endif
