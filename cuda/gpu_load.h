/* SPDX-License-Identifier: MIT */
/*
 * Decodes tiles from pinned memory into device memory.  This header needs no CUDA; a build without CUDA links a stub whose
 * wcx_gpu_loader_open returns WCX_NO_DEVICE.
 *
 * A loader has *buffers* in pinned memory, and *queues*, each with memory on the device for one batch of packed tiles.  Each
 * is for one thread at a time.  Several buffers feed one batch, because copies are best when a core's cache holds them, and
 * decodes when there are many tiles:
 *
 *	wait          until the queue's last batch, if any, is done
 *	buffer        wait until the last copy from a buffer is done: it may be filled again
 *	add, check    tiles whose packed bytes will be sent
 *	send          copy packed bytes to the queue's memory; returns at once
 *	submit        decode the tiles; returns at once
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
	WCX_LOAD_BUFFER_BYTES = 3 << 20, /* with more, packed bytes leave the core's cache before they are copied */
	WCX_LOAD_QUEUE_BYTES = 12 << 20, /* at least, on the device, for packed tiles */
	WCX_LOAD_STAGE_BYTES = 5 << 20,  /* of a queue, on the device, for tiles that are not decoded in place */
};

struct wcx_gpu_loader;

/*
 * wcx_gpu_loader_open - open a GPU, with buffers and queues
 *
 * Starts the CUDA runtime.  A buffer takes WCX_LOAD_BUFFER_BYTES of pinned memory; a queue less than 1 MiB of it, and
 * WCX_LOAD_QUEUE_BYTES and 1 MiB of device memory.  On success the caller frees *ret; otherwise reason gets one line.
 * Returns WCX_OK, WCX_NO_DEVICE, WCX_NO_MEMORY or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_loader_open(int device, unsigned buffer_count, unsigned queue_count, struct wcx_gpu_loader **ret,
				    char reason[WCX_GPU_NAME_BYTES]);
void wcx_gpu_loader_free(struct wcx_gpu_loader *loader); /* NULL is fine; no batch may be in flight */

/* wcx_gpu_load_queue_bytes - memory for packed tiles that each queue has if only the first queue_count are used */
size_t wcx_gpu_load_queue_bytes(const struct wcx_gpu_loader *loader, unsigned queue_count);

/*
 * wcx_gpu_load_begin - begin a load with the first queue_count queues, which share the memory of all
 *
 * They wait, on the device, for the work that is now in stream, a cudaStream_t of the loader's device.  No batch may be in
 * flight.  WCX_OK or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_load_begin(struct wcx_gpu_loader *loader, unsigned queue_count, void *stream);

/* wcx_gpu_load_buffer - wait for a buffer's last copy.  Returns its WCX_LOAD_BUFFER_BYTES; NULL if the device failed. */
uint8_t *wcx_gpu_load_buffer(struct wcx_gpu_loader *loader, unsigned buffer);

/* wcx_gpu_load_stage - device address of the queue's stage, allocated at the first call; 0 if out of memory */
uint64_t wcx_gpu_load_stage(struct wcx_gpu_loader *loader, unsigned queue);

/* wcx_gpu_load_takes - whether the GPU decodes coded tiles of a recipe that is a difference; all others it does */
bool wcx_gpu_load_takes(const struct wcx_gpu_loader *loader, const struct wcx_recipe *recipe);

/* Where a tile of a batch is: device addresses are aligned to 8 bytes for elements of 8 bytes and to 4 otherwise. */
struct wcx_load_places {
	size_t at;     /* in the queue's memory, of the packed bytes; a multiple of 4 */
	uint64_t dst;  /* device address */
	uint64_t base; /* the same of the base's elements, for a difference: another tile of the batch decodes them there */
	bool takes_base; /* that was added last, and decodes them for this tile alone: they need not be there afterwards */
};

/*
 * wcx_gpu_load_add - add a coded tile to the queue's batch
 *
 * job->src is where the packed bytes are now; they are, or will be, sent to places->at; job->base is not looked at.
 * *added_ret is false if the batch is full.  Returns WCX_OK or an error of wcx_tile_parse.
 */
enum wcx_result wcx_gpu_load_add(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_tile_job *job,
				 const struct wcx_load_places *places, bool *added_ret);

/*
 * wcx_gpu_load_check - have the checksum of packed bytes compared on the device
 *
 * They are, or will be, sent to offset `at` of the queue's memory; what is compared are the bytes that are decoded there.  A
 * batch may have 2048 checks.
 */
void wcx_gpu_load_check(struct wcx_gpu_loader *loader, unsigned queue, size_t at, size_t bytes, uint32_t checksum);

/*
 * wcx_gpu_load_send, wcx_gpu_load_send_pinned - start copying bytes to offset `at` of the queue's memory
 *
 * They come from the start of a buffer, or from memory that wcx_gpu_pin pinned.  WCX_OK or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_load_send(struct wcx_gpu_loader *loader, unsigned queue, unsigned buffer, size_t bytes, size_t at);
enum wcx_result wcx_gpu_load_send_pinned(struct wcx_gpu_loader *loader, unsigned queue, const uint8_t *src, size_t bytes,
					 size_t at);

/* wcx_gpu_load_submit - start decoding the batch, whose bytes have all been sent.  WCX_OK or WCX_DEVICE_FAILED. */
enum wcx_result wcx_gpu_load_submit(struct wcx_gpu_loader *loader, unsigned queue);

/*
 * wcx_gpu_load_copy - copy a part of what was sent or of the stage, on the device, after what was submitted
 *
 * Copies rows of row_bytes, whose starts are src_pitch and dst_pitch bytes apart.  WCX_OK or WCX_DEVICE_FAILED.
 */
struct wcx_load_copy {
	uint64_t dst; /* device address */
	bool staged;  /* src is an offset in the stage */
	size_t src;   /* otherwise in the queue's memory */
	size_t row_bytes, rows, src_pitch, dst_pitch;
};
enum wcx_result wcx_gpu_load_copy(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_load_copy *copy);

/* wcx_gpu_load_fill - set bytes of device memory, after what was submitted.  WCX_OK or WCX_DEVICE_FAILED. */
enum wcx_result wcx_gpu_load_fill(struct wcx_gpu_loader *loader, unsigned queue, uint64_t dst, uint8_t value, size_t bytes);

/*
 * wcx_gpu_load_wait - wait for the queue's batch, if any, and everything behind it
 *
 * Also ends a batch that was not submitted.  Returns WCX_OK; WCX_BAD_DATA with *failed_ret set to the first check that
 * failed or, if none did, to the first tile; or WCX_DEVICE_FAILED.  Then the device may still be working only if it is lost.
 */
struct wcx_load_failure {
	bool is_check;
	uint32_t number; /* of the check or the tile, in the order of adding */
};
enum wcx_result wcx_gpu_load_wait(struct wcx_gpu_loader *loader, unsigned queue, struct wcx_load_failure *failed_ret);

/*
 * wcx_gpu_pin - pin memory of the host, so that all GPUs can copy from it at full speed
 *
 * Starts the CUDA runtime on the device.  Returns WCX_OK, WCX_NO_DEVICE or WCX_NO_MEMORY, with one line in reason.
 */
enum wcx_result wcx_gpu_pin(int device, void *memory, size_t bytes, char reason[WCX_GPU_NAME_BYTES]);
void wcx_gpu_unpin(int device, void *memory); /* before it is freed; no load may be using it */

#endif
