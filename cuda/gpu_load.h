/* SPDX-License-Identifier: MIT */
/*
 * Decodes tiles from pinned buffers straight into the device's memory.  This header needs no CUDA; a build without CUDA
 * links a stub whose wcx_gpu_loader_open says WCX_NO_DEVICE.
 *
 * A loader has queues.  A queue takes one batch at a time, and is for one thread at a time:
 *
 *	wait    for the queue's last batch, if there was one: its buffer can be filled again
 *	add     tiles whose packed bytes are in the buffer
 *	submit  the buffer is copied and the tiles are decoded, while the host does something else
 *	copy, fill	what comes behind that
 */
#ifndef WCX_GPU_LOAD_H
#define WCX_GPU_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "codec/result.h"
#include "codec/tile.h"
#include "cuda/gpu_decode.h"

enum {
	WCX_LOAD_BUFFER_BYTES = 5 << 20, /* of a queue; copies of 4 MiB run at nearly the full speed of PCIe */
	WCX_LOAD_STAGE_BYTES = 5 << 20,  /* on the device, for tiles that are not decoded in place */
};

struct wcx_gpu_loader;

/*
 * wcx_gpu_loader_open - get hold of a GPU and make queues
 *
 * Starts the CUDA runtime.  On success *ret is the caller's to free; otherwise reason gets one line.  A queue takes some 6
 * MiB of pinned memory and twice that of the device's.  Returns WCX_OK, WCX_NO_DEVICE, WCX_NO_MEMORY or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_loader_open(int device, unsigned queue_count, struct wcx_gpu_loader **ret,
				    char reason[WCX_GPU_NAME_BYTES]);
void wcx_gpu_loader_free(struct wcx_gpu_loader *loader); /* NULL is fine; no batch may be under way */

/*
 * wcx_gpu_load_follow - all queues wait on the device for what is in a stream by now
 *
 * stream is a cudaStream_t of the loader's device.  No batch may be under way.  WCX_OK or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_load_follow(struct wcx_gpu_loader *loader, void *stream);

/* wcx_gpu_load_buffer - the queue's pinned buffer, WCX_LOAD_BUFFER_BYTES */
uint8_t *wcx_gpu_load_buffer(struct wcx_gpu_loader *loader, unsigned queue);

/* wcx_gpu_load_stage - where the queue's stage is on the device; 0 when there is no memory for it */
uint64_t wcx_gpu_load_stage(struct wcx_gpu_loader *loader, unsigned queue);

/*
 * wcx_gpu_load_add - add a coded tile to the queue's batch
 *
 * job->src must lie in the queue's buffer, at a multiple of 4, and be there; dst is a device address, aligned to 8 bytes
 * where elements have 8 and else to 4.  *added_ret is 0 when the batch is full.  Returns WCX_OK, or what wcx_tile_parse
 * says.
 */
enum wcx_result wcx_gpu_load_add(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_tile_job *job, uint64_t dst,
				 int *added_ret);

/* wcx_gpu_load_submit - send the batch, and with it the first src_bytes of the buffer.  WCX_OK or WCX_DEVICE_FAILED. */
enum wcx_result wcx_gpu_load_submit(struct wcx_gpu_loader *loader, unsigned queue, size_t src_bytes);

/*
 * wcx_gpu_load_copy - have a part of the buffer, as it was submitted, or of the stage copied on the device
 *
 * rows of row_bytes each, which start src_pitch and dst_pitch bytes apart.  Goes on behind what is submitted.  WCX_OK or
 * WCX_DEVICE_FAILED.
 */
struct wcx_load_copy {
	uint64_t dst; /* device address */
	int staged;   /* whether src counts from the stage */
	size_t src;   /* otherwise from the buffer */
	size_t row_bytes, rows, src_pitch, dst_pitch;
};
enum wcx_result wcx_gpu_load_copy(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_load_copy *copy);

/* wcx_gpu_load_fill - the same for bytes that are all equal */
enum wcx_result wcx_gpu_load_fill(struct wcx_gpu_loader *loader, unsigned queue, uint64_t dst, uint8_t value, size_t bytes);

/*
 * wcx_gpu_load_wait - wait for the queue's batch and all behind it, if there is one
 *
 * Returns WCX_OK; WCX_BAD_DATA, with *failed_ret the number, in the order of adding, of the first tile that did not decode;
 * or WCX_DEVICE_FAILED, when the device may still be at work only if it is lost.
 */
enum wcx_result wcx_gpu_load_wait(struct wcx_gpu_loader *loader, unsigned queue, uint32_t *failed_ret);

#endif
