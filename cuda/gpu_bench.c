/* SPDX-License-Identifier: MIT */
/* Times the GPU's decoding alone, from device memory to device memory. */
#include "cuda/gpu_bench.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/tile_batch.h"
#include "cuda/tile_kernel.h"

enum {
	SRC_ALIGN = 16,
	DST_ALIGN = 128,
};

/* One batch of all the jobs, as often as they are repeated, each time with packed bytes and a place of their own. */
struct wcx_gpu_bench {
	struct wcx_kernels kernels;
	struct wcx_tile_batch *batch;
	const struct wcx_batch_layout *layout;
	struct wcx_tile_job *jobs;
	size_t job_count;
	uint32_t repeats;
	size_t src_bytes, dst_bytes; /* of one repeat, with the gaps that alignment leaves */
	uint64_t decoded_bytes;      /* without, of all repeats */
	uint8_t *src, *dst, *control;
	uint32_t *status;
	/* On the device.  Decoding uses up the control: it is copied from control_dev to used_dev each time. */
	uint8_t *src_dev, *dst_dev, *control_dev, *used_dev;
	uint32_t *status_dev;
	cudaEvent_t start, stop;
};

void wcx_gpu_bench_free(struct wcx_gpu_bench *bench)
{
	if (!bench)
		return;
	if (bench->start)
		cudaEventDestroy(bench->start);
	if (bench->stop)
		cudaEventDestroy(bench->stop);
	cudaFree(bench->src_dev);
	cudaFree(bench->dst_dev);
	cudaFree(bench->control_dev);
	cudaFree(bench->used_dev);
	cudaFree(bench->status_dev);
	wcx_tile_batch_free(bench->batch);
	free(bench->src);
	free(bench->dst);
	free(bench->control);
	free(bench->status);
	free(bench);
}

static size_t align_up(size_t bytes, size_t align)
{
	return (bytes + align - 1) / align * align;
}

static enum wcx_result measure_jobs(struct wcx_gpu_bench *bench)
{
	for (size_t i = 0; i < bench->job_count; i++) {
		if (bench->jobs[i].mode != WCX_TILE_CODED)
			return WCX_WRONG_SIZE;
		bench->src_bytes += align_up(bench->jobs[i].src_bytes, SRC_ALIGN);
		bench->dst_bytes += align_up(bench->jobs[i].dst_bytes, DST_ALIGN);
		bench->decoded_bytes += bench->jobs[i].dst_bytes;
	}
	if (bench->decoded_bytes == 0 || bench->repeats == 0 || bench->src_bytes > UINT32_MAX / bench->repeats ||
	    bench->job_count > (1u << 22) / bench->repeats)
		return WCX_WRONG_SIZE;
	bench->decoded_bytes *= bench->repeats;
	return WCX_OK;
}

/* Puts all the jobs in one batch and sees to host memory. */
static enum wcx_result fill_bench(struct wcx_gpu_bench *bench)
{
	const size_t items = bench->job_count * bench->repeats;
	const struct wcx_batch_limits limits = {
		.items = (uint32_t)items,
		.shapes = (uint32_t)bench->job_count + 1,
		.tables = (uint32_t)(bench->job_count + 1) * WCX_TILE_TABLES_MAX,
		.places = (uint32_t)(items + 1) * WCX_FIELDS_MAX,
		.blocks = bench->kernels.blocks,
	};
	size_t src = 0, dst = 0;

	bench->batch = wcx_tile_batch_create(&limits);
	bench->src = calloc(1, bench->src_bytes);
	bench->dst = malloc(bench->dst_bytes);
	bench->status = malloc(items * sizeof *bench->status);
	if (!bench->batch || !bench->src || !bench->dst || !bench->status)
		return WCX_NO_MEMORY;
	wcx_tile_batch_clear(bench->batch);
	for (size_t i = 0; i < items; i++) {
		const struct wcx_tile_job *job = &bench->jobs[i % bench->job_count];
		int added;
		enum wcx_result result = wcx_tile_batch_add(bench->batch, job, (uint32_t)src, dst, &added);

		if (result != WCX_OK || !added)
			return result == WCX_OK ? WCX_WRONG_SIZE : result;
		if (i < bench->job_count)
			memcpy(bench->src + src, job->src, job->src_bytes);
		src += align_up(job->src_bytes, SRC_ALIGN);
		dst += align_up(job->dst_bytes, DST_ALIGN);
	}
	bench->layout = wcx_tile_batch_finish(bench->batch);
	bench->control = malloc(bench->layout->control_bytes);
	if (!bench->control)
		return WCX_NO_MEMORY;
	wcx_tile_batch_write(bench->batch, bench->control);
	return WCX_OK;
}

static cudaError_t allocate_on_device(struct wcx_gpu_bench *bench)
{
	const size_t control_bytes = bench->layout->control_bytes;
	const size_t src_bytes = bench->src_bytes * bench->repeats + WCX_BATCH_SRC_SLACK;
	cudaError_t error = cudaMalloc((void **)&bench->src_dev, src_bytes);

	if (!error)
		error = cudaMalloc((void **)&bench->dst_dev, bench->dst_bytes * bench->repeats);
	if (!error)
		error = cudaMalloc((void **)&bench->control_dev, control_bytes);
	if (!error)
		error = cudaMalloc((void **)&bench->used_dev, control_bytes);
	if (!error)
		error = cudaMalloc((void **)&bench->status_dev, bench->layout->items * sizeof *bench->status);
	if (!error)
		error = cudaEventCreate(&bench->start);
	if (!error)
		error = cudaEventCreate(&bench->stop);
	if (!error)
		error = cudaMemset(bench->src_dev, 0, src_bytes);
	return error;
}

static cudaError_t upload_bench(struct wcx_gpu_bench *bench)
{
	cudaError_t error =
		cudaMemcpy(bench->control_dev, bench->control, bench->layout->control_bytes, cudaMemcpyHostToDevice);

	for (uint32_t r = 0; r < bench->repeats && !error; r++)
		error = cudaMemcpy(bench->src_dev + r * bench->src_bytes, r ? bench->src_dev : bench->src, bench->src_bytes,
				   cudaMemcpyDefault);
	return error;
}

static cudaError_t decode_once(struct wcx_gpu_bench *bench, float *ms_ret)
{
	cudaError_t error = cudaMemcpyAsync(bench->used_dev, bench->control_dev, bench->layout->control_bytes,
					    cudaMemcpyDeviceToDevice, NULL);

	if (!error)
		error = cudaEventRecord(bench->start, NULL);
	if (!error)
		error = wcx_kernels_decode(&bench->kernels, bench->used_dev, bench->layout, bench->src_dev, bench->dst_dev,
					   bench->status_dev, 0, NULL);
	if (!error)
		error = cudaEventRecord(bench->stop, NULL);
	if (!error)
		error = cudaEventSynchronize(bench->stop);
	return error ? error : cudaEventElapsedTime(ms_ret, bench->start, bench->stop);
}

static enum wcx_result device_result(cudaError_t error)
{
	if (!error)
		return WCX_OK;
	cudaGetLastError();
	return WCX_DEVICE_FAILED;
}

enum wcx_result wcx_gpu_bench_create(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count, uint32_t repeats,
				     struct wcx_gpu_bench **ret)
{
	struct wcx_gpu_bench *bench = calloc(1, sizeof *bench);
	enum wcx_result result = WCX_NO_MEMORY;

	(void)gpu; /* being open, it shows that there is a device */
	if (!bench)
		goto out;
	bench->jobs = jobs;
	bench->job_count = job_count;
	bench->repeats = repeats;
	result = measure_jobs(bench);
	if (result == WCX_OK)
		result = device_result(wcx_kernels_open(&bench->kernels));
	if (result == WCX_OK)
		result = fill_bench(bench);
	if (result == WCX_OK)
		result = device_result(allocate_on_device(bench));
	if (result == WCX_OK)
		result = device_result(upload_bench(bench));
out:
	if (result == WCX_OK)
		*ret = bench;
	else
		wcx_gpu_bench_free(bench);
	return result;
}

uint64_t wcx_gpu_bench_bytes(const struct wcx_gpu_bench *bench)
{
	return bench->decoded_bytes;
}

enum wcx_result wcx_gpu_bench_run(struct wcx_gpu_bench *bench, double *ms_ret)
{
	float ms = 0;
	enum wcx_result result = device_result(decode_once(bench, &ms));

	*ms_ret = ms;
	return result;
}

/* Gives the jobs their bytes and results from the last of the repeats. */
static enum wcx_result hand_out(struct wcx_gpu_bench *bench)
{
	const uint32_t items = bench->layout->items, first = items - (uint32_t)bench->job_count;
	const uint8_t *dst = bench->dst;
	enum wcx_result worst = WCX_OK;

	for (uint32_t i = 0; i < items; i++)
		if (bench->status[i] != WCX_OK)
			worst = WCX_BAD_DATA;
	for (size_t i = 0; i < bench->job_count; i++) {
		struct wcx_tile_job *job = &bench->jobs[i];

		job->result = (enum wcx_result)bench->status[first + i];
		if (job->result == WCX_OK)
			memcpy(job->dst, dst, job->dst_bytes);
		dst += align_up(job->dst_bytes, DST_ALIGN);
	}
	return worst;
}

enum wcx_result wcx_gpu_bench_check(struct wcx_gpu_bench *bench)
{
	const size_t all_bytes = bench->repeats * bench->dst_bytes;
	float ms;
	cudaError_t error = cudaMemset(bench->dst_dev, 0xA5, all_bytes);

	if (!error)
		error = cudaMemset(bench->status_dev, 0xA5, bench->layout->items * sizeof *bench->status);
	if (!error)
		error = decode_once(bench, &ms);
	if (!error)
		error = cudaMemcpy(bench->status, bench->status_dev, bench->layout->items * sizeof *bench->status,
				   cudaMemcpyDeviceToHost);
	if (!error)
		error = cudaMemcpy(bench->dst, bench->dst_dev + all_bytes - bench->dst_bytes, bench->dst_bytes,
				   cudaMemcpyDeviceToHost);
	return error ? device_result(error) : hand_out(bench);
}
