/* SPDX-License-Identifier: MIT */
/*
 * Decodes tiles from pinned buffers into device memory.  This header needs no CUDA; a build without CUDA links a stub whose
 * wcx_gpu_loader_open returns WCX_NO_DEVICE.
 *
 * A loader has queues.  A queue takes one batch at a time and is for one thread at a time:
 *
 *	wait          until the queue's last batch, if any, is done: the buffer may be filled again
 *	add           tiles whose packed bytes are in the buffer
 *	submit        copy the buffer to the device and decode the tiles; returns at once
 *	copy, fill    device memory, after the batch
 */
#ifndef WCX_GPU_LOAD_H
#define WCX_GPU_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/result.h"
#include "codec/tile.h"
#include "cuda/gpu_decode.h"

enum {
	WCX_LOAD_BUFFER_BYTES = 5 << 20, /* of a queue; copies of 4 MiB come close to the full speed of PCIe */
	WCX_LOAD_STAGE_BYTES = 5 << 20,  /* of a queue, on the device, for tiles that are not decoded in place */
};

struct wcx_gpu_loader;

/*
 * wcx_gpu_loader_open - open a GPU and its queues
 *
 * Starts the CUDA runtime.  A queue takes about 6 MiB of pinned memory and twice that of device memory.  On success the
 * caller frees *ret; otherwise reason gets one line.  Returns WCX_OK, WCX_NO_DEVICE, WCX_NO_MEMORY or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_loader_open(int device, unsigned queue_count, struct wcx_gpu_loader **ret,
				    char reason[WCX_GPU_NAME_BYTES]);
void wcx_gpu_loader_free(struct wcx_gpu_loader *loader); /* NULL is fine; no batch may be in flight */

/*
 * wcx_gpu_load_follow - make all queues wait, on the device, for the work now in a stream
 *
 * stream is a cudaStream_t of the loader's device.  No batch may be in flight.  WCX_OK or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_load_follow(struct wcx_gpu_loader *loader, void *stream);

/* wcx_gpu_load_buffer - the queue's pinned buffer of WCX_LOAD_BUFFER_BYTES */
uint8_t *wcx_gpu_load_buffer(struct wcx_gpu_loader *loader, unsigned queue);

/* wcx_gpu_load_stage - device address of the queue's stage, allocated at the first call; 0 if out of memory */
uint64_t wcx_gpu_load_stage(struct wcx_gpu_loader *loader, unsigned queue);

/*
 * wcx_gpu_load_add - add a coded tile to the queue's batch
 *
 * job->src must be in the queue's buffer, already filled, at a multiple of 4.  dst is a device address, aligned to 8 bytes
 * for elements of 8 bytes and to 4 otherwise.  *added_ret is false if the batch is full.  Returns WCX_OK or an error of
 * wcx_tile_parse.
 */
enum wcx_result wcx_gpu_load_add(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_tile_job *job, uint64_t dst,
				 bool *added_ret);

/* wcx_gpu_load_submit - start the batch, with the first src_bytes of the buffer.  WCX_OK or WCX_DEVICE_FAILED. */
enum wcx_result wcx_gpu_load_submit(struct wcx_gpu_loader *loader, unsigned queue, size_t src_bytes);

/*
 * wcx_gpu_load_copy - copy a part of the submitted buffer or the stage, on the device, after what was submitted
 *
 * Copies rows of row_bytes, whose starts are src_pitch and dst_pitch bytes apart.  WCX_OK or WCX_DEVICE_FAILED.
 */
struct wcx_load_copy {
	uint64_t dst; /* device address */
	bool staged;  /* src is an offset in the stage */
	size_t src;   /* otherwise in the buffer */
	size_t row_bytes, rows, src_pitch, dst_pitch;
};
enum wcx_result wcx_gpu_load_copy(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_load_copy *copy);

/* wcx_gpu_load_fill - set bytes of device memory, after what was submitted.  WCX_OK or WCX_DEVICE_FAILED. */
enum wcx_result wcx_gpu_load_fill(struct wcx_gpu_loader *loader, unsigned queue, uint64_t dst, uint8_t value, size_t bytes);

/*
 * wcx_gpu_load_wait - wait for the queue's batch, if any, and everything behind it
 *
 * Returns WCX_OK; WCX_BAD_DATA with the number, in the order of adding, of the first tile that failed in *failed_ret; or
 * WCX_DEVICE_FAILED.  Then the device may still be working only if it is lost.
 */
enum wcx_result wcx_gpu_load_wait(struct wcx_gpu_loader *loader, unsigned queue, uint32_t *failed_ret);

#endif
