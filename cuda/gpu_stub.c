/* SPDX-License-Identifier: MIT */
/* Replaces the GPU in builds without CUDA. */
#include <stdio.h>

#include "cuda/gpu_checksum.h"
#include "cuda/gpu_decode.h"
#include "cuda/gpu_hold.h"
#include "cuda/gpu_load.h"
#include "cuda/gpu_timing.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

enum wcx_result wcx_gpu_open(int device, unsigned calls, struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES])
{
	snprintf(name, WCX_GPU_NAME_BYTES, "built without CUDA");
	return WCX_NO_DEVICE;
}

void wcx_gpu_free(struct wcx_gpu *gpu)
{
}

bool wcx_gpu_map(struct wcx_gpu *gpu, void *memory, size_t bytes)
{
	return false;
}

void wcx_gpu_unmap(struct wcx_gpu *gpu, void *memory, size_t bytes)
{
}

void *wcx_gpu_alloc(struct wcx_gpu *gpu, size_t bytes)
{
	return NULL;
}

void wcx_gpu_dealloc(struct wcx_gpu *gpu, void *memory, size_t bytes)
{
}

struct wcx_gpu_memory wcx_gpu_get_memory(struct wcx_gpu *gpu)
{
	return (struct wcx_gpu_memory){ 0, 0 };
}

void wcx_gpu_release_idle(struct wcx_gpu *gpu, uint64_t idle_ms)
{
}

bool wcx_gpu_takes(const struct wcx_gpu *gpu, const struct wcx_recipe *recipe)
{
	return false;
}

void wcx_gpu_start(struct wcx_gpu *gpu, const struct wcx_gpu_batch *batch, struct wcx_gpu_call *call)
{
	for (size_t i = 0; i < batch->job_count; i++)
		batch->jobs[i].result = WCX_DEVICE_FAILED;
}

bool wcx_gpu_wait(struct wcx_gpu *gpu, struct wcx_gpu_call *call)
{
	return false;
}

enum wcx_result wcx_gpu_finish(struct wcx_gpu *gpu, struct wcx_gpu_call *call)
{
	return WCX_DEVICE_FAILED;
}

enum wcx_result wcx_gpu_checksums(int device, const uint8_t *src, size_t src_bytes, const struct wcx_gpu_part *parts,
				  size_t part_count, uint64_t *ret, double *ms_ret)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_timing_create(struct wcx_gpu *gpu, const struct wcx_gpu_timing_set *set, struct wcx_gpu_timing **ret)
{
	return WCX_NO_DEVICE;
}

void wcx_gpu_timing_free(struct wcx_gpu_timing *timing)
{
}

uint64_t wcx_gpu_timing_bytes(const struct wcx_gpu_timing *timing)
{
	return 0;
}

enum wcx_result wcx_gpu_timing_run(struct wcx_gpu_timing *timing, double *ms_ret)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_timing_check(struct wcx_gpu_timing *timing)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_loader_open(int device, unsigned buffer_count, unsigned queue_count, struct wcx_gpu_loader **ret,
				    char reason[WCX_GPU_NAME_BYTES])
{
	snprintf(reason, WCX_GPU_NAME_BYTES, "built without CUDA");
	return WCX_NO_DEVICE;
}

void wcx_gpu_loader_free(struct wcx_gpu_loader *loader)
{
}

size_t wcx_gpu_load_queue_bytes(const struct wcx_gpu_loader *loader, unsigned queue_count)
{
	return 0;
}

enum wcx_result wcx_gpu_load_begin(struct wcx_gpu_loader *loader, unsigned queue_count, void *stream)
{
	return WCX_NO_DEVICE;
}

uint8_t *wcx_gpu_load_buffer(struct wcx_gpu_loader *loader, unsigned buffer)
{
	return NULL;
}

uint64_t wcx_gpu_load_stage(struct wcx_gpu_loader *loader, unsigned queue)
{
	return 0;
}

bool wcx_gpu_load_takes(const struct wcx_gpu_loader *loader, const struct wcx_recipe *recipe)
{
	return false;
}

enum wcx_result wcx_gpu_load_add(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_tile_job *job,
				 const struct wcx_load_places *places, bool *added_ret)
{
	*added_ret = false;
	return WCX_NO_DEVICE;
}

void wcx_gpu_load_check(struct wcx_gpu_loader *loader, unsigned queue, size_t at, size_t bytes, uint32_t checksum)
{
}

enum wcx_result wcx_gpu_load_send(struct wcx_gpu_loader *loader, unsigned queue, unsigned buffer, size_t bytes, size_t at)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_load_send_pinned(struct wcx_gpu_loader *loader, unsigned queue, const uint8_t *src, size_t bytes,
					 size_t at)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_load_submit(struct wcx_gpu_loader *loader, unsigned queue)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_load_copy(struct wcx_gpu_loader *loader, unsigned queue, const struct wcx_load_copy *copy)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_load_fill(struct wcx_gpu_loader *loader, unsigned queue, uint64_t dst, uint8_t value, size_t bytes)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_load_wait(struct wcx_gpu_loader *loader, unsigned queue, struct wcx_load_failure *failed_ret)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_pin(int device, void *memory, size_t bytes, char reason[WCX_GPU_NAME_BYTES])
{
	snprintf(reason, WCX_GPU_NAME_BYTES, "built without CUDA");
	return WCX_NO_DEVICE;
}

void wcx_gpu_unpin(int device, void *memory)
{
}

enum wcx_result wcx_gpu_hold_open(int device, size_t bytes, bool on_device, struct wcx_gpu_hold **ret)
{
	return WCX_NO_DEVICE;
}

void wcx_gpu_hold_free(struct wcx_gpu_hold *hold)
{
}

uint8_t *wcx_gpu_hold_buffer(struct wcx_gpu_hold *hold)
{
	return NULL;
}

enum wcx_result wcx_gpu_hold_add(struct wcx_gpu_hold *hold, const struct wcx_tile_job *job, uint64_t dst)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_hold_copy(struct wcx_gpu_hold *hold, const struct wcx_hold_copy *copy)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_hold_seal(struct wcx_gpu_hold *hold)
{
	return WCX_NO_DEVICE;
}

size_t wcx_gpu_hold_bytes(const struct wcx_gpu_hold *hold)
{
	return 0;
}

enum wcx_result wcx_gpu_hold_fetch(struct wcx_gpu_hold *hold, uint64_t place, void *stream)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_hold_decode(struct wcx_gpu_hold *hold, uint64_t place, uint64_t base, void *stream)
{
	return WCX_NO_DEVICE;
}

enum wcx_result wcx_gpu_hold_status(struct wcx_gpu_hold *hold, void *stream, uint32_t *failed_ret)
{
	return WCX_NO_DEVICE;
}
