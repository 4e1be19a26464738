/* SPDX-License-Identifier: MIT */
/* Times decoding on the GPU alone, from device memory to device memory. */
#include "cuda/gpu_timing.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
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
	struct wcx_gpu_timing_set set;
	size_t src_bytes, dst_bytes, base_bytes; /* of one repeat, with alignment */
	uint64_t decoded_bytes;                  /* of all repeats, without alignment */
	uint8_t *src, *dst, *base, *control;     /* base: without the elements that jobs decode */
	uint32_t *status;
	/* On the device; the bases follow the decoded tiles.  Decoding uses up the control, so each run copies control_dev
	 * to used_dev. */
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
	free(timing->base);
	free(timing->control);
	free(timing->status);
	free(timing);
}

/* Whether a job decodes elements of the base. */
static bool is_of_base(const struct wcx_gpu_timing *timing, const struct wcx_tile_job *job)
{
	return timing->set.base && job->dst >= timing->set.base && job->dst < timing->set.base + timing->set.base_bytes;
}

static enum wcx_result measure_jobs(struct wcx_gpu_timing *timing)
{
	const struct wcx_gpu_timing_set *set = &timing->set;

	for (size_t i = 0; i < set->job_count; i++) {
		const struct wcx_tile_job *job = &set->jobs[i];

		if (job->mode != WCX_TILE_CODED)
			return WCX_WRONG_SIZE;
		timing->src_bytes += WCX_ALIGN_UP(job->src_bytes, SRC_ALIGN);
		timing->dst_bytes += is_of_base(timing, job) ? 0 : WCX_ALIGN_UP(job->dst_bytes, DST_ALIGN);
		timing->decoded_bytes += is_of_base(timing, job) ? 0 : job->dst_bytes;
	}
	timing->base_bytes = WCX_ALIGN_UP(set->base_bytes, DST_ALIGN);
	if (timing->decoded_bytes == 0 || set->repeats == 0 || timing->src_bytes > UINT32_MAX / set->repeats ||
	    set->job_count > (1u << 22) / set->repeats)
		return WCX_WRONG_SIZE;
	timing->decoded_bytes *= set->repeats;
	return WCX_OK;
}

/* Adds the jobs of a repeat, whose packed tiles begin at *src. */
static enum wcx_result add_jobs(struct wcx_gpu_timing *timing, uint32_t repeat, size_t *src)
{
	const struct wcx_gpu_timing_set *set = &timing->set;
	const size_t base = timing->dst_bytes * set->repeats + timing->base_bytes * repeat;
	size_t dst = timing->dst_bytes * repeat;

	for (size_t i = 0; i < set->job_count; i++) {
		const struct wcx_tile_job *job = &set->jobs[i];
		const bool of_base = is_of_base(timing, job);
		const struct wcx_tile_places places = {
			.src = (uint32_t)*src,
			.dst = of_base ? base + (size_t)(job->dst - set->base) : dst,
			.base = job->base ? base + (size_t)(job->base - set->base) : 0,
			.takes_base = set->fuses && i > 0 && job->base == set->jobs[i - 1].dst,
		};
		bool added;
		enum wcx_result result = wcx_tile_batch_add(timing->batch, job, &places, &added);

		if (result != WCX_OK || !added)
			return result == WCX_OK ? WCX_WRONG_SIZE : result;
		if (repeat == 0)
			memcpy(timing->src + *src, job->src, job->src_bytes);
		if (repeat == 0 && of_base)
			memset(timing->base + (job->dst - set->base), 0xA5, job->dst_bytes);
		*src += WCX_ALIGN_UP(job->src_bytes, SRC_ALIGN);
		dst += of_base ? 0 : WCX_ALIGN_UP(job->dst_bytes, DST_ALIGN);
	}
	return WCX_OK;
}

/* Allocates host memory and makes one batch of all jobs. */
static enum wcx_result fill_batch(struct wcx_gpu_timing *timing)
{
	const struct wcx_gpu_timing_set *set = &timing->set;
	const size_t items = set->job_count * set->repeats;
	const struct wcx_batch_limits limits = {
		.items = (uint32_t)items,
		.kinds = (uint32_t)set->job_count + 1,
		.tables = (uint32_t)(set->job_count + 1) * WCX_TILE_TABLES_MAX,
		.places = (uint32_t)(items + 1) * WCX_FIELDS_MAX,
		.blocks = timing->kernels.blocks,
		.carrier_tables = timing->kernels.carrier_tables,
	};
	enum wcx_result result = WCX_OK;
	size_t src = 0;

	timing->batch = wcx_tile_batch_create(&limits);
	timing->src = calloc(1, timing->src_bytes);
	timing->dst = malloc(timing->dst_bytes);
	timing->base = malloc(timing->base_bytes + 1);
	timing->status = malloc(items * sizeof *timing->status);
	if (!timing->batch || !timing->src || !timing->dst || !timing->base || !timing->status)
		return WCX_NO_MEMORY;
	if (set->base)
		memcpy(timing->base, set->base, set->base_bytes);
	wcx_tile_batch_clear(timing->batch);
	for (uint32_t r = 0; r < set->repeats && result == WCX_OK; r++)
		result = add_jobs(timing, r, &src);
	if (result != WCX_OK)
		return result;
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
	const size_t src_bytes = timing->src_bytes * timing->set.repeats + WCX_BATCH_SRC_SLACK;
	cudaError_t error = cudaMalloc((void **)&timing->src_dev, src_bytes);

	if (!error)
		error = cudaMalloc((void **)&timing->dst_dev,
				   (timing->dst_bytes + timing->base_bytes) * timing->set.repeats);
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

	for (uint32_t r = 0; r < timing->set.repeats && !error; r++) {
		uint8_t *base_dev = timing->dst_dev + timing->dst_bytes * timing->set.repeats + r * timing->base_bytes;

		error = cudaMemcpy(timing->src_dev + r * timing->src_bytes, r ? timing->src_dev : timing->src,
				   timing->src_bytes, cudaMemcpyDefault);
		if (!error && timing->set.base)
			error = cudaMemcpy(base_dev, timing->base, timing->set.base_bytes, cudaMemcpyHostToDevice);
	}
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

enum wcx_result wcx_gpu_timing_create(struct wcx_gpu *gpu, const struct wcx_gpu_timing_set *set, struct wcx_gpu_timing **ret)
{
	struct wcx_gpu_timing *timing = calloc(1, sizeof *timing);
	enum wcx_result result = WCX_NO_MEMORY;

	(void)gpu; /* proves that there is a device */
	if (!timing)
		goto out;
	timing->set = *set;
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

/* Passes results and bytes of the last repeat on to the jobs, but not those of bases. */
static enum wcx_result hand_out(struct wcx_gpu_timing *timing)
{
	const uint32_t items = timing->layout->items, first = items - (uint32_t)timing->set.job_count;
	const uint8_t *dst = timing->dst;
	enum wcx_result worst = WCX_OK;

	for (uint32_t i = 0; i < items; i++)
		if (timing->status[i] != WCX_OK)
			worst = WCX_BAD_DATA;
	for (size_t i = 0; i < timing->set.job_count; i++) {
		struct wcx_tile_job *job = &timing->set.jobs[i];

		job->result = (enum wcx_result)timing->status[first + i];
		if (is_of_base(timing, job))
			continue;
		if (job->result == WCX_OK)
			memcpy(job->dst, dst, job->dst_bytes);
		dst += WCX_ALIGN_UP(job->dst_bytes, DST_ALIGN);
	}
	return worst;
}

enum wcx_result wcx_gpu_timing_check(struct wcx_gpu_timing *timing)
{
	const size_t all_bytes = timing->set.repeats * timing->dst_bytes;
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
