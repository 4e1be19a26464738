/* SPDX-License-Identifier: MIT */
/*
 * A queue runs one batch of tiles at a time on the GPU: a CUDA stream with buffers in pinned host memory and device memory.
 *
 * A queue is for one thread at a time, whose current device must be the one on which the queue was opened.
 */
#ifndef WCX_GPU_QUEUE_H
#define WCX_GPU_QUEUE_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "codec/result.h"
#include "cuda/checksum_kernel.h"
#include "cuda/gpu_clock.h"
#include "cuda/tile_batch.h"
#include "cuda/tile_kernel.h"

enum {
	WCX_QUEUE_ITEMS = 2048,                           /* fills 4 MiB with tiles of 2 KiB */
	WCX_QUEUE_STATUS_BYTES = 2 * WCX_QUEUE_ITEMS * 4, /* of items and of checks */
};

struct wcx_gpu_queue {
	const struct wcx_kernels *kernels;
	struct wcx_tile_batch *batch;
	struct wcx_tile_check *checks; /* of packed tiles of the batch: WCX_QUEUE_ITEMS at most */
	uint32_t check_count;
	uint32_t first_check;              /* place of its status among those of the latest batch: behind the items */
	bool is_used;                      /* something may be in flight */
	uint32_t mark;                     /* of the latest batch's statuses */
	size_t device_bytes, pinned_bytes; /* memory of the device, and of the host */
	size_t submitted_bytes;            /* of packed tiles, in the latest batch */
	size_t src_bytes;                  /* capacity of upload for packed tiles; slack and control follow them */
	uint8_t *upload, *upload_dev;      /* of the host, and on the device */
	uint8_t *src_dev;      /* packed tiles on the device: upload_dev, unless the owner has put them elsewhere */
	uint8_t *statuses;     /* results, on the host: of items, then of checks */
	uint8_t *statuses_dev; /* the same on the device, unless statuses_to_host */
	cudaStream_t stream;
	cudaEvent_t done, base; /* base: of the clock, if is_timed */
	struct wcx_gpu_clock clock;
	int64_t submitted_ns, done_ns; /* by the clock, if is_timed: of the latest batch */
	bool is_timed; /* set before opening: submit records done, nothing else uses the queue, and waiting is mostly sleep
			*/
	bool upload_is_pageable; /* else it is pinned; set before opening, where upload is hardly ever used */
	bool statuses_to_host;   /* the kernels write them straight to the host; set before opening */
};

/*
 * wcx_gpu_queue_open - allocate buffers for src_bytes of packed tiles
 *
 * src_bytes is 0 if the owner copies packed tiles to the device, in the queue's stream, from memory of its own; it then sets
 * src_dev and is_used.  *queue must be zero but for the members that are set before, and must be closed even after failure.
 * Returns WCX_OK, or WCX_NO_MEMORY or WCX_DEVICE_FAILED with *error_ret set.
 */
enum wcx_result wcx_gpu_queue_open(struct wcx_gpu_queue *queue, const struct wcx_kernels *kernels, size_t src_bytes,
				   cudaError_t *error_ret);
void wcx_gpu_queue_close(struct wcx_gpu_queue *queue); /* must be idle; a zero queue is fine */

/*
 * Packed tiles in other pinned memory than a queue's upload: those from offset first on are wanted.  The memory has so many
 * bytes in all; if there is space behind the tiles, the queue writes the control there, and one copy uploads both.
 */
struct wcx_packed_tiles {
	uint8_t *pinned;
	size_t first, bytes;
};

/* Decoded tiles that are copied to pinned memory of the host when the kernels are done. */
struct wcx_returned_tiles {
	uint8_t *host;
	const uint8_t *dev;
	size_t bytes; /* 0: none */
};

/*
 * wcx_gpu_queue_check - have the checksum of a packed tile computed on the device, from the bytes that are decoded there
 *
 * src is its offset, as that of an item.  A batch may have as many checks as items; they are counted on their own.
 */
static inline void wcx_gpu_queue_check(struct wcx_gpu_queue *queue, uint32_t src, uint32_t bytes, uint32_t checksum)
{
	queue->checks[queue->check_count++] = (struct wcx_tile_check){ src, bytes, checksum };
}

/*
 * wcx_gpu_queue_submit - start upload, decoding, and the download of statuses and of what is returned, which may be NULL
 *
 * upload, or packed->pinned if packed is not NULL, must hold src_bytes of packed tiles, as the items of queue->batch
 * describe them, with addresses for dst.  The device uses all buffers until wcx_gpu_queue_wait.
 */
cudaError_t wcx_gpu_queue_submit(struct wcx_gpu_queue *queue, const struct wcx_packed_tiles *packed, size_t src_bytes,
				 const struct wcx_returned_tiles *returned);

/* wcx_gpu_queue_sleep - sleep until the latest batch, which was submitted without an error, is done; only if is_timed */
cudaError_t wcx_gpu_queue_sleep(const struct wcx_gpu_queue *queue);

/* wcx_gpu_queue_wait - wait until the stream is empty, and start a new batch */
cudaError_t wcx_gpu_queue_wait(struct wcx_gpu_queue *queue);

/*
 * wcx_gpu_event_poll - wait for an event that should come soon
 *
 * Asks for it again and again, and after some time with pauses in between.  The event should not have cudaEventBlockingSync:
 * then it costs an interrupt, each time that the GPU gets there.
 */
cudaError_t wcx_gpu_event_poll(cudaEvent_t event);

/*
 * wcx_gpu_queue_status - the result of an item; valid between wcx_gpu_queue_wait and the next submit
 *
 * Returns WCX_OK or WCX_BAD_DATA, or WCX_DEVICE_FAILED if no kernel has written the status.
 */
static inline enum wcx_result wcx_gpu_queue_status(const struct wcx_gpu_queue *queue, uint32_t item)
{
	const uint32_t status = ((const uint32_t *)(const void *)queue->statuses)[item];

	return status / WCX_STATUS_MARK == queue->mark / WCX_STATUS_MARK ? (enum wcx_result)(status % WCX_STATUS_MARK)
									 : WCX_DEVICE_FAILED;
}

/* wcx_gpu_queue_check_status - the same for a check */
static inline enum wcx_result wcx_gpu_queue_check_status(const struct wcx_gpu_queue *queue, uint32_t check)
{
	return wcx_gpu_queue_status(queue, queue->first_check + check);
}

#endif
