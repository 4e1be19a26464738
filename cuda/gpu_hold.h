/* SPDX-License-Identifier: MIT */
/*
 * Keeps packed tiles in memory and decodes them on the GPU again and again, in the order of a stream and without waiting for
 * it.  This header needs no CUDA; a build without CUDA links a stub, and then no loader can be opened anyway.
 *
 * A hold is built once, by one thread:
 *
 *	open     memory for the packed bytes, which the caller fills
 *	add      tiles and copies, whose bytes are there
 *	seal     after which the bytes are where they stay: on the device, or in pinned memory of the host
 *
 * Then, for each use:
 *
 *	fetch    copies a hold in pinned memory to a place on the device
 *	decode   decodes and copies all, from there or from the device's own memory, to the base of the destinations
 *	status   waits, and tells whether all tiles were decoded
 *
 * All calls for a hold are for one thread at a time.  Destinations are offsets from the base that decode gets, which must be
 *a multiple of 256.
 */
#ifndef WCX_GPU_HOLD_H
#define WCX_GPU_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/result.h"
#include "codec/tile.h"

struct wcx_gpu_hold;

/*
 * wcx_gpu_hold_open - allocate memory for `bytes` packed bytes
 *
 * on_device says where they stay.  device is CUDA's number of the GPU.  On success the caller frees *ret.  Returns WCX_OK,
 * WCX_NO_MEMORY, WCX_NO_DEVICE or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_hold_open(int device, size_t bytes, bool on_device, struct wcx_gpu_hold **ret);

/* wcx_gpu_hold_free - free a hold whose decodes have ended; NULL is fine */
void wcx_gpu_hold_free(struct wcx_gpu_hold *hold);

/* wcx_gpu_hold_buffer - the host memory to fill, until the hold is sealed */
uint8_t *wcx_gpu_hold_buffer(struct wcx_gpu_hold *hold);

/*
 * wcx_gpu_hold_add - add a coded tile
 *
 * job->src must be in the buffer, already filled, at a multiple of 4; job->recipe must live until the hold is sealed.  dst
 * is a multiple of wcx_word_bytes of the element.  Returns WCX_OK, WCX_NO_MEMORY or an error of wcx_tile_parse.
 */
enum wcx_result wcx_gpu_hold_add(struct wcx_gpu_hold *hold, const struct wcx_tile_job *job, uint64_t dst);

/* Bytes that are copied or set after the tiles are decoded. */
struct wcx_hold_copy {
	uint64_t dst;
	bool is_fill; /* set rows * row_bytes consecutive bytes to value; src and pitches are not used */
	uint8_t value;
	size_t src; /* offset in the buffer */
	size_t row_bytes, rows, src_pitch, dst_pitch;
};

/* wcx_gpu_hold_copy - add a copy.  WCX_OK or WCX_NO_MEMORY. */
enum wcx_result wcx_gpu_hold_copy(struct wcx_gpu_hold *hold, const struct wcx_hold_copy *copy);

/* wcx_gpu_hold_seal - end the building; the buffer is gone if the hold is on the device.  Errors as of open. */
enum wcx_result wcx_gpu_hold_seal(struct wcx_gpu_hold *hold);

/* wcx_gpu_hold_bytes - memory that a sealed hold takes where it stays; also what fetch writes */
size_t wcx_gpu_hold_bytes(const struct wcx_gpu_hold *hold);

/*
 * wcx_gpu_hold_fetch - copy a sealed hold from pinned memory to wcx_gpu_hold_bytes at a device address, in stream order
 *
 * place is a multiple of 256.  Does nothing for a hold on the device.  WCX_OK or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_hold_fetch(struct wcx_gpu_hold *hold, uint64_t place, void *stream);

/*
 * wcx_gpu_hold_decode - decode all tiles and do all copies, in stream order
 *
 * place is where the hold was fetched to, which is used up: decoding again needs another fetch.  It is ignored for a hold on
 * the device, whose decodes must not overlap.  WCX_OK or WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_hold_decode(struct wcx_gpu_hold *hold, uint64_t place, uint64_t base, void *stream);

/*
 * wcx_gpu_hold_status - wait for the stream of the last decode, and check it
 *
 * Returns WCX_OK; WCX_BAD_DATA with the number, in the order of adding, of the first tile that failed in *failed_ret; or
 * WCX_DEVICE_FAILED.
 */
enum wcx_result wcx_gpu_hold_status(struct wcx_gpu_hold *hold, void *stream, uint32_t *failed_ret);

#endif
