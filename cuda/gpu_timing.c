/* SPDX-License-Identifier: MIT */
/* Times decoding on the GPU alone, from device memory to device memory. */
#include "cuda/gpu_timing.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "cuda/tile_batch.h"
#include "cuda/tile_kernel.h"

enum {
	SRC_ALIGN = 16,
	DST_ALIGN = 128,
};

/* One batch of all jobs and their repeats.  Each repeat has its own copy of packed and decoded bytes. */
struct wcx_gpu_timing {
	struct wcx_kernels kernels;
	struct wcx_tile_batch *batch;
	const struct wcx_batch_layout *layout;
	struct wcx_tile_job *jobs;
	size_t job_count;
	uint32_t repeats;
	size_t src_bytes, dst_bytes; /* of one repeat, with alignment */
	uint64_t decoded_bytes;      /* of all repeats, without alignment */
	uint8_t *src, *dst, *control;
	uint32_t *status;
	/* On the device.  Decoding uses up the control, so each run copies control_dev to used_dev. */
	uint8_t *src_dev, *dst_dev, *control_dev, *used_dev;
	uint32_t *status_dev;
	cudaEvent_t start, stop;
};

void wcx_gpu_timing_free(struct wcx_gpu_timing *timing)
{
	if (!timing)
		return;
	if (timing->start)
		cudaEventDestroy(timing->start);
	if (timing->stop)
		cudaEventDestroy(timing->stop);
	cudaFree(timing->src_dev);
	cudaFree(timing->dst_dev);
	cudaFree(timing->control_dev);
	cudaFree(timing->used_dev);
	cudaFree(timing->status_dev);
	wcx_tile_batch_free(timing->batch);
	free(timing->src);
	free(timing->dst);
	free(timing->control);
	free(timing->status);
	free(timing);
}

static enum wcx_result measure_jobs(struct wcx_gpu_timing *timing)
{
	for (size_t i = 0; i < timing->job_count; i++) {
		if (timing->jobs[i].mode != WCX_TILE_CODED)
			return WCX_WRONG_SIZE;
		timing->src_bytes += WCX_ALIGN_UP(timing->jobs[i].src_bytes, SRC_ALIGN);
		timing->dst_bytes += WCX_ALIGN_UP(timing->jobs[i].dst_bytes, DST_ALIGN);
		timing->decoded_bytes += timing->jobs[i].dst_bytes;
	}
	if (timing->decoded_bytes == 0 || timing->repeats == 0 || timing->src_bytes > UINT32_MAX / timing->repeats ||
	    timing->job_count > (1u << 22) / timing->repeats)
		return WCX_WRONG_SIZE;
	timing->decoded_bytes *= timing->repeats;
	return WCX_OK;
}

/* Allocates host memory and makes one batch of all jobs. */
static enum wcx_result fill_batch(struct wcx_gpu_timing *timing)
{
	const size_t items = timing->job_count * timing->repeats;
	const struct wcx_batch_limits limits = {
		.items = (uint32_t)items,
		.kinds = (uint32_t)timing->job_count + 1,
		.tables = (uint32_t)(timing->job_count + 1) * WCX_TILE_TABLES_MAX,
		.places = (uint32_t)(items + 1) * WCX_FIELDS_MAX,
		.blocks = timing->kernels.blocks,
	};
	size_t src = 0, dst = 0;

	timing->batch = wcx_tile_batch_create(&limits);
	timing->src = calloc(1, timing->src_bytes);
	timing->dst = malloc(timing->dst_bytes);
	timing->status = malloc(items * sizeof *timing->status);
	if (!timing->batch || !timing->src || !timing->dst || !timing->status)
		return WCX_NO_MEMORY;
	wcx_tile_batch_clear(timing->batch);
	for (size_t i = 0; i < items; i++) {
		const struct wcx_tile_job *job = &timing->jobs[i % timing->job_count];
		bool added;
		enum wcx_result result = wcx_tile_batch_add(timing->batch, job, (uint32_t)src, dst, &added);

		if (result != WCX_OK || !added)
			return result == WCX_OK ? WCX_WRONG_SIZE : result;
		if (i < timing->job_count)
			memcpy(timing->src + src, job->src, job->src_bytes);
		src += WCX_ALIGN_UP(job->src_bytes, SRC_ALIGN);
		dst += WCX_ALIGN_UP(job->dst_bytes, DST_ALIGN);
	}
	timing->layout = wcx_tile_batch_finish(timing->batch);
	timing->control = malloc(timing->layout->control_bytes);
	if (!timing->control)
		return WCX_NO_MEMORY;
	wcx_tile_batch_write(timing->batch, timing->control);
	return WCX_OK;
}

static cudaError_t allocate_on_device(struct wcx_gpu_timing *timing)
{
	const size_t control_bytes = timing->layout->control_bytes;
	const size_t src_bytes = timing->src_bytes * timing->repeats + WCX_BATCH_SRC_SLACK;
	cudaError_t error = cudaMalloc((void **)&timing->src_dev, src_bytes);

	if (!error)
		error = cudaMalloc((void **)&timing->dst_dev, timing->dst_bytes * timing->repeats);
	if (!error)
		error = cudaMalloc((void **)&timing->control_dev, control_bytes);
	if (!error)
		error = cudaMalloc((void **)&timing->used_dev, control_bytes);
	if (!error)
		error = cudaMalloc((void **)&timing->status_dev, timing->layout->items * sizeof *timing->status);
	if (!error)
		error = cudaEventCreate(&timing->start);
	if (!error)
		error = cudaEventCreate(&timing->stop);
	if (!error)
		error = cudaMemset(timing->src_dev, 0, src_bytes);
	return error;
}

static cudaError_t upload(struct wcx_gpu_timing *timing)
{
	cudaError_t error =
		cudaMemcpy(timing->control_dev, timing->control, timing->layout->control_bytes, cudaMemcpyHostToDevice);

	for (uint32_t r = 0; r < timing->repeats && !error; r++)
		error = cudaMemcpy(timing->src_dev + r * timing->src_bytes, r ? timing->src_dev : timing->src,
				   timing->src_bytes, cudaMemcpyDefault);
	return error;
}

static cudaError_t decode_once(struct wcx_gpu_timing *timing, float *ms_ret)
{
	const struct wcx_kernel_job job = {
		.layout = timing->layout,
		.control = timing->used_dev,
		.src = timing->src_dev,
		.dst = timing->dst_dev,
		.status = timing->status_dev,
	};
	cudaError_t error = cudaMemcpyAsync(timing->used_dev, timing->control_dev, timing->layout->control_bytes,
					    cudaMemcpyDeviceToDevice, NULL);

	if (!error)
		error = cudaEventRecord(timing->start, NULL);
	if (!error)
		error = wcx_kernels_decode(&timing->kernels, &job, NULL);
	if (!error)
		error = cudaEventRecord(timing->stop, NULL);
	if (!error)
		error = cudaEventSynchronize(timing->stop);
	return error ? error : cudaEventElapsedTime(ms_ret, timing->start, timing->stop);
}

static enum wcx_result device_result(cudaError_t error)
{
	if (!error)
		return WCX_OK;
	cudaGetLastError();
	return WCX_DEVICE_FAILED;
}

enum wcx_result wcx_gpu_timing_create(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count, uint32_t repeats,
				      struct wcx_gpu_timing **ret)
{
	struct wcx_gpu_timing *timing = calloc(1, sizeof *timing);
	enum wcx_result result = WCX_NO_MEMORY;

	(void)gpu; /* proves that there is a device */
	if (!timing)
		goto out;
	timing->jobs = jobs;
	timing->job_count = job_count;
	timing->repeats = repeats;
	result = measure_jobs(timing);
	if (result == WCX_OK)
		result = device_result(wcx_kernels_open(&timing->kernels));
	if (result == WCX_OK)
		result = fill_batch(timing);
	if (result == WCX_OK)
		result = device_result(allocate_on_device(timing));
	if (result == WCX_OK)
		result = device_result(upload(timing));
out:
	if (result == WCX_OK)
		*ret = timing;
	else
		wcx_gpu_timing_free(timing);
	return result;
}

uint64_t wcx_gpu_timing_bytes(const struct wcx_gpu_timing *timing)
{
	return timing->decoded_bytes;
}

enum wcx_result wcx_gpu_timing_run(struct wcx_gpu_timing *timing, double *ms_ret)
{
	float ms = 0;
	enum wcx_result result = device_result(decode_once(timing, &ms));

	*ms_ret = ms;
	return result;
}

/* Passes results and bytes of the last repeat on to the jobs. */
static enum wcx_result hand_out(struct wcx_gpu_timing *timing)
{
	const uint32_t items = timing->layout->items, first = items - (uint32_t)timing->job_count;
	const uint8_t *dst = timing->dst;
	enum wcx_result worst = WCX_OK;

	for (uint32_t i = 0; i < items; i++)
		if (timing->status[i] != WCX_OK)
			worst = WCX_BAD_DATA;
	for (size_t i = 0; i < timing->job_count; i++) {
		struct wcx_tile_job *job = &timing->jobs[i];

		job->result = (enum wcx_result)timing->status[first + i];
		if (job->result == WCX_OK)
			memcpy(job->dst, dst, job->dst_bytes);
		dst += WCX_ALIGN_UP(job->dst_bytes, DST_ALIGN);
	}
	return worst;
}

enum wcx_result wcx_gpu_timing_check(struct wcx_gpu_timing *timing)
{
	const size_t all_bytes = timing->repeats * timing->dst_bytes;
	float ms;
	cudaError_t error = cudaMemset(timing->dst_dev, 0xA5, all_bytes);

	if (!error)
		error = cudaMemset(timing->status_dev, 0xA5, timing->layout->items * sizeof *timing->status);
	if (!error)
		error = decode_once(timing, &ms);
	if (!error)
		error = cudaMemcpy(timing->status, timing->status_dev, timing->layout->items * sizeof *timing->status,
				   cudaMemcpyDeviceToHost);
	if (!error)
		error = cudaMemcpy(timing->dst, timing->dst_dev + all_bytes - timing->dst_bytes, timing->dst_bytes,
				   cudaMemcpyDeviceToHost);
	return error ? device_result(error) : hand_out(timing);
}
