/* SPDX-License-Identifier: MIT */
/* Keeps packed tiles in memory and decodes them on the GPU again and again. */
#include "cuda/gpu_hold.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "cuda/tile_batch.h"
#include "cuda/tile_kernel.h"

enum {
	BATCH_ITEMS = 16384, /* 1 GiB of tiles of 64 KiB */
	BATCH_KINDS = 1024,
	BATCH_TABLES = 2048,
	CONTROL_ALIGN = 256,
};

/* Tiles that are decoded together; the control is in the hold's, at control_offset. */
struct hold_batch {
	struct wcx_batch_layout layout;
	size_t control_offset;
	uint32_t first_item;
};

struct wcx_gpu_hold {
	int device;
	bool on_device;
	struct wcx_kernels kernels;
	size_t bytes;         /* of the packed region, with slack; a multiple of CONTROL_ALIGN */
	size_t control_bytes; /* of all batches */
	uint8_t *region;      /* host: pinned, or until sealed; NULL after that */
	uint8_t *control;     /* host: pinned once sealed, or NULL */
	uint8_t *region_dev;  /* on_device: packed region, then the controls as they were written */
	uint8_t *control_dev; /* on_device: controls that a decode uses up */
	uint32_t *status_dev; /* one for each tile */
	uint32_t mark;        /* of the last decode's statuses */
	uint32_t item_count;  /* of all batches, and of the one being filled */
	struct wcx_tile_batch *filling;
	struct hold_batch *batches;
	size_t batch_count;
	struct wcx_hold_copy *copies;
	size_t copy_count, copy_capacity;
};

/* Makes the hold's device current for the thread; returns the device for leave() to restore. */
static int enter(const struct wcx_gpu_hold *hold)
{
	int before = hold->device;

	cudaGetDevice(&before);
	if (before != hold->device)
		cudaSetDevice(hold->device);
	return before;
}

static enum wcx_result leave(const struct wcx_gpu_hold *hold, int before, cudaError_t error)
{
	if (before != hold->device)
		cudaSetDevice(before);
	if (!error)
		return WCX_OK;
	cudaGetLastError();
	return error == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
}

enum wcx_result wcx_gpu_hold_open(int device, size_t bytes, bool on_device, struct wcx_gpu_hold **ret)
{
	struct wcx_gpu_hold *hold = calloc(1, sizeof *hold);
	enum wcx_result result;
	cudaError_t error;
	int before;

	if (!hold)
		return WCX_NO_MEMORY;
	hold->device = device;
	hold->on_device = on_device;
	hold->bytes = WCX_ALIGN_UP(bytes + WCX_BATCH_SRC_SLACK, CONTROL_ALIGN);
	before = enter(hold);
	error = wcx_kernels_open(&hold->kernels);
	if (!error && on_device) {
		hold->region = malloc(hold->bytes);
		error = hold->region ? cudaSuccess : cudaErrorMemoryAllocation;
	} else if (!error) {
		error = cudaMallocHost((void **)&hold->region, hold->bytes);
	}
	if (!error)
		memset(hold->region + bytes, 0, hold->bytes - bytes);
	result = leave(hold, before, error);
	if (result == WCX_OK)
		*ret = hold;
	else
		wcx_gpu_hold_free(hold);
	return result;
}

static void free_region(struct wcx_gpu_hold *hold)
{
	if (hold->on_device)
		free(hold->region);
	else
		cudaFreeHost(hold->region);
	hold->region = NULL;
}

void wcx_gpu_hold_free(struct wcx_gpu_hold *hold)
{
	int before;

	if (!hold)
		return;
	before = enter(hold);
	free_region(hold);
	cudaFreeHost(hold->control);
	cudaFree(hold->region_dev);
	cudaFree(hold->control_dev);
	cudaFree(hold->status_dev);
	leave(hold, before, cudaSuccess);
	wcx_tile_batch_free(hold->filling);
	free(hold->batches);
	free(hold->copies);
	free(hold);
}

uint8_t *wcx_gpu_hold_buffer(struct wcx_gpu_hold *hold)
{
	return hold->region;
}

/* Appends bytes for a control to the host's controls, which may move.  Returns them, or NULL when out of memory. */
static uint8_t *grow_control(struct wcx_gpu_hold *hold, size_t bytes)
{
	uint8_t *larger = NULL;

	if (cudaMallocHost((void **)&larger, hold->control_bytes + bytes))
		return NULL;
	if (hold->control_bytes)
		memcpy(larger, hold->control, hold->control_bytes);
	cudaFreeHost(hold->control);
	hold->control = larger;
	memset(larger + hold->control_bytes, 0, bytes);
	return larger + hold->control_bytes;
}

/* Ends the batch that is being filled, if it has tiles. */
static enum wcx_result finish_batch(struct wcx_gpu_hold *hold)
{
	struct hold_batch *batches = realloc(hold->batches, (hold->batch_count + 1) * sizeof *batches);
	struct hold_batch *batch;
	size_t bytes;
	uint8_t *control;

	if (!batches)
		return WCX_NO_MEMORY;
	hold->batches = batches;
	batch = &batches[hold->batch_count];
	*batch = (struct hold_batch){ .layout = *wcx_tile_batch_finish(hold->filling),
				      .control_offset = hold->control_bytes };
	bytes = WCX_ALIGN_UP(batch->layout.control_bytes, CONTROL_ALIGN);
	control = grow_control(hold, bytes);
	if (!control)
		return WCX_NO_MEMORY;
	wcx_tile_batch_write(hold->filling, control);
	wcx_tile_batch_clear(hold->filling);
	hold->control_bytes += bytes;
	batch->first_item = hold->item_count - batch->layout.items;
	hold->batch_count++;
	return WCX_OK;
}

enum wcx_result wcx_gpu_hold_add(struct wcx_gpu_hold *hold, const struct wcx_tile_job *job, uint64_t dst)
{
	const struct wcx_batch_limits limits = {
		.items = BATCH_ITEMS,
		.kinds = BATCH_KINDS,
		.tables = BATCH_TABLES,
		.places = 2 * BATCH_ITEMS,
		.blocks = hold->kernels.blocks,
		.carrier_tables = hold->kernels.carrier_tables,
	};
	const struct wcx_tile_places places = { .src = (uint32_t)(job->src - hold->region), .dst = dst };
	enum wcx_result result = WCX_OK;
	bool added = false;

	if (job->recipe->difference != WCX_DIFFERENCE_NONE)
		return WCX_BAD_DATA;
	if ((size_t)(job->src - hold->region) > UINT32_MAX)
		return WCX_WRONG_SIZE;
	if (!hold->filling) {
		hold->filling = wcx_tile_batch_create(&limits);
		if (!hold->filling)
			return WCX_NO_MEMORY;
		wcx_tile_batch_clear(hold->filling);
	}
	result = wcx_tile_batch_add(hold->filling, job, &places, &added);
	if (result == WCX_OK && !added) {
		result = finish_batch(hold);
		if (result == WCX_OK)
			result = wcx_tile_batch_add(hold->filling, job, &places, &added);
	}
	hold->item_count += result == WCX_OK;
	return result;
}

enum wcx_result wcx_gpu_hold_copy(struct wcx_gpu_hold *hold, const struct wcx_hold_copy *copy)
{
	if (hold->copy_count == hold->copy_capacity) {
		const size_t capacity = 2 * hold->copy_capacity + 16;
		struct wcx_hold_copy *copies = realloc(hold->copies, capacity * sizeof *copies);

		if (!copies)
			return WCX_NO_MEMORY;
		hold->copies = copies;
		hold->copy_capacity = capacity;
	}
	hold->copies[hold->copy_count++] = *copy;
	return WCX_OK;
}

/* Brings everything to the device.  The region ends with the controls, so that one more copy restores them. */
static cudaError_t upload(struct wcx_gpu_hold *hold)
{
	cudaError_t error = cudaMalloc((void **)&hold->region_dev, hold->bytes + hold->control_bytes);

	if (!error)
		error = cudaMalloc((void **)&hold->control_dev, WCX_MAX(hold->control_bytes, (size_t)CONTROL_ALIGN));
	if (!error)
		error = cudaMemcpy(hold->region_dev, hold->region, hold->bytes, cudaMemcpyHostToDevice);
	if (!error && hold->control_bytes)
		error = cudaMemcpy(hold->region_dev + hold->bytes, hold->control, hold->control_bytes,
				   cudaMemcpyHostToDevice);
	if (!error) {
		free_region(hold);
		cudaFreeHost(hold->control);
		hold->control = NULL;
	}
	return error;
}

enum wcx_result wcx_gpu_hold_seal(struct wcx_gpu_hold *hold)
{
	const int before = enter(hold);
	enum wcx_result result = WCX_OK;
	cudaError_t error = cudaSuccess;

	if (hold->filling) {
		result = finish_batch(hold);
		wcx_tile_batch_free(hold->filling);
		hold->filling = NULL;
	}
	if (result == WCX_OK)
		error = cudaMalloc((void **)&hold->status_dev, WCX_MAX(hold->item_count, 1u) * sizeof *hold->status_dev);
	if (result == WCX_OK && !error && hold->on_device)
		error = upload(hold);
	return result == WCX_OK ? leave(hold, before, error) : (leave(hold, before, cudaSuccess), result);
}

size_t wcx_gpu_hold_bytes(const struct wcx_gpu_hold *hold)
{
	return hold->bytes + hold->control_bytes;
}

static void *device_pointer(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

enum wcx_result wcx_gpu_hold_fetch(struct wcx_gpu_hold *hold, uint64_t place, void *stream)
{
	const int before = enter(hold);
	cudaError_t error = cudaSuccess;

	if (!hold->on_device) {
		error = cudaMemcpyAsync(device_pointer(place), hold->region, hold->bytes, cudaMemcpyHostToDevice,
					(cudaStream_t)stream);
		if (!error && hold->control_bytes)
			error = cudaMemcpyAsync(device_pointer(place + hold->bytes), hold->control, hold->control_bytes,
						cudaMemcpyHostToDevice, (cudaStream_t)stream);
	}
	return leave(hold, before, error);
}

static cudaError_t do_copy(const struct wcx_hold_copy *copy, const uint8_t *region, uint64_t base, cudaStream_t stream)
{
	void *dst = device_pointer(base + copy->dst);

	if (copy->is_fill)
		return cudaMemsetAsync(dst, copy->value, copy->rows * copy->row_bytes, stream);
	if (copy->rows == 1)
		return cudaMemcpyAsync(dst, region + copy->src, copy->row_bytes, cudaMemcpyDeviceToDevice, stream);
	return cudaMemcpy2DAsync(dst, copy->dst_pitch, region + copy->src, copy->src_pitch, copy->row_bytes, copy->rows,
				 cudaMemcpyDeviceToDevice, stream);
}

static cudaError_t decode(struct wcx_gpu_hold *hold, const uint8_t *region, uint8_t *control, uint64_t base,
			  cudaStream_t stream)
{
	cudaError_t error = cudaSuccess;

	for (size_t i = 0; i < hold->batch_count && !error; i++) {
		const struct hold_batch *batch = &hold->batches[i];
		const struct wcx_kernel_job job = {
			.layout = &batch->layout,
			.control = control + batch->control_offset,
			.src = region,
			.dst = device_pointer(base),
			.status = hold->status_dev + batch->first_item,
			.mark = hold->mark,
		};

		error = wcx_kernels_decode(&hold->kernels, &job, stream);
	}
	for (size_t i = 0; i < hold->copy_count && !error; i++)
		error = do_copy(&hold->copies[i], region, base, stream);
	return error;
}

enum wcx_result wcx_gpu_hold_decode(struct wcx_gpu_hold *hold, uint64_t place, uint64_t base, void *stream)
{
	const uint8_t *region = hold->on_device ? hold->region_dev : device_pointer(place);
	uint8_t *control = hold->on_device ? hold->control_dev : (uint8_t *)device_pointer(place) + hold->bytes;
	const int before = enter(hold);
	cudaError_t error = cudaSuccess;

	hold->mark += WCX_STATUS_MARK;
	/*
	 * Launches may overlap the kernel before them in the stream, and others' kernels may read the destinations.
	 * Something that is not a kernel keeps them apart.
	 */
	if (hold->item_count)
		error = cudaMemsetAsync(hold->status_dev, 0, hold->item_count * sizeof *hold->status_dev,
					(cudaStream_t)stream);
	if (!error && hold->on_device && hold->control_bytes)
		error = cudaMemcpyAsync(control, region + hold->bytes, hold->control_bytes, cudaMemcpyDeviceToDevice,
					(cudaStream_t)stream);
	if (!error)
		error = decode(hold, region, control, base, (cudaStream_t)stream);
	return leave(hold, before, error);
}

enum wcx_result wcx_gpu_hold_status(struct wcx_gpu_hold *hold, void *stream, uint32_t *failed_ret)
{
	uint32_t *status = malloc(WCX_MAX(hold->item_count, 1u) * sizeof *status);
	enum wcx_result result;
	cudaError_t error;
	int before;

	if (!status)
		return WCX_NO_MEMORY;
	before = enter(hold);
	error = cudaMemcpyAsync(status, hold->status_dev, hold->item_count * sizeof *status, cudaMemcpyDeviceToHost,
				(cudaStream_t)stream);
	if (!error)
		error = cudaStreamSynchronize((cudaStream_t)stream);
	result = leave(hold, before, error);
	for (uint32_t i = 0; i < hold->item_count && result == WCX_OK; i++) {
		*failed_ret = i;
		result = status[i] / WCX_STATUS_MARK == hold->mark / WCX_STATUS_MARK
				 ? (enum wcx_result)(status[i] % WCX_STATUS_MARK)
				 : WCX_DEVICE_FAILED;
	}
	free(status);
	return result;
}
