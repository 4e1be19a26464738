/* SPDX-License-Identifier: MIT */
/* Times the GPU's decoding alone, from device memory to device memory. */
#include <stdlib.h>
#include <string.h>

#include "cuda/tile_kernel.cuh"

extern "C" {
#include "cuda/gpu_bench.h"
}

/* One batch of all the jobs, and the device's copy with its items repeated. */
struct wcx_bench {
	struct wcx_tile_batch *batch;
	struct wcx_batch_layout layout;
	uint32_t repeats;
	size_t bytes;           /* decoded by one repeat, with the gaps that alignment leaves */
	uint64_t decoded_bytes; /* without, of all repeats */
	uint8_t *upload, *dst;
	/* Those of all repeats: items repeat by repeat, slots launch by launch. */
	struct wcx_tile_item *items, *items_dev;
	uint32_t *slots, *slots_dev, *status, *status_dev;
	struct wcx_batch_launch launches[WCX_BATCH_LAUNCHES_MAX];
	uint8_t *upload_dev, *dst_dev;
	cudaEvent_t start, stop;
};

static void wcx_bench_close(struct wcx_bench *bench)
{
	if (bench->start)
		cudaEventDestroy(bench->start);
	if (bench->stop)
		cudaEventDestroy(bench->stop);
	cudaFree(bench->items_dev);
	cudaFree(bench->slots_dev);
	cudaFree(bench->status_dev);
	cudaFree(bench->upload_dev);
	cudaFree(bench->dst_dev);
	wcx_tile_batch_free(bench->batch);
	free(bench->upload);
	free(bench->dst);
	free(bench->items);
	free(bench->slots);
	free(bench->status);
}

/* Puts all the jobs in one batch and sees to host memory. */
static enum wcx_result wcx_bench_fill(struct wcx_bench *bench, struct wcx_tile_job *jobs, size_t job_count, uint32_t repeats)
{
	struct wcx_batch_limits limits = { 0, 0, 0, 0 };
	uint64_t src_bytes = WCX_TILE_MAX_BYTES, dst_bytes = WCX_TILE_MAX_BYTES;

	for (size_t i = 0; i < job_count; i++) {
		src_bytes += jobs[i].src_bytes + WCX_BATCH_DST_ALIGN;
		dst_bytes += jobs[i].dst_bytes + WCX_BATCH_DST_ALIGN;
		bench->decoded_bytes += jobs[i].mode == WCX_TILE_CODED ? (uint64_t)repeats * jobs[i].dst_bytes : 0;
	}
	if (src_bytes > UINT32_MAX || repeats == 0 || dst_bytes > UINT32_MAX / repeats || bench->decoded_bytes == 0)
		return WCX_WRONG_SIZE;
	limits.items = (uint32_t)job_count + 1;
	limits.tables = (uint32_t)(job_count + 1) * WCX_TILE_TABLES_MAX;
	limits.src_bytes = (uint32_t)src_bytes;
	limits.dst_bytes = (uint32_t)dst_bytes;
	bench->batch = wcx_tile_batch_create(&limits);
	if (!bench->batch)
		return WCX_NO_MEMORY;
	if (wcx_tile_batch_fill(bench->batch, jobs, job_count) < job_count)
		return WCX_WRONG_SIZE;
	bench->layout = wcx_tile_batch_layout(bench->batch);
	if (bench->layout.items == 0)
		return WCX_WRONG_SIZE;
	bench->repeats = repeats;
	bench->bytes = bench->layout.download_bytes - bench->layout.dst_offset;
	bench->upload = (uint8_t *)malloc(bench->layout.upload_bytes);
	bench->dst = (uint8_t *)malloc(bench->bytes);
	bench->items = (struct wcx_tile_item *)malloc((size_t)repeats * bench->layout.items * sizeof *bench->items);
	bench->slots = (uint32_t *)malloc((size_t)repeats * bench->layout.slots * sizeof *bench->slots);
	bench->status = (uint32_t *)malloc((size_t)repeats * bench->layout.items * sizeof *bench->status);
	return bench->upload && bench->dst && bench->items && bench->slots && bench->status ? WCX_OK : WCX_NO_MEMORY;
}

/* Repeats what the image has, every time for places of its own. */
static void wcx_bench_repeat(struct wcx_bench *bench)
{
	const struct wcx_batch_layout *layout = &bench->layout;
	const struct wcx_tile_item *items = (const struct wcx_tile_item *)bench->upload;
	const uint32_t *slots = (const uint32_t *)(bench->upload + layout->slots_offset);
	uint32_t slot = 0;

	for (uint32_t i = 0; i < bench->repeats * layout->items; i++) {
		bench->items[i] = items[i % layout->items];
		bench->items[i].dst_offset += (uint32_t)(i / layout->items * bench->bytes);
	}
	for (uint32_t l = 0; l < layout->launch_count; l++) {
		const struct wcx_batch_launch &launch = layout->launches[l];

		bench->launches[l] = launch;
		bench->launches[l].first_slot = slot;
		bench->launches[l].slots = launch.slots * bench->repeats;
		for (uint32_t i = 0; i < launch.slots * bench->repeats; i++) {
			const uint32_t item = slots[launch.first_slot + i % launch.slots];
			const uint32_t first_item = i / launch.slots * layout->items;

			bench->slots[slot++] = item == WCX_NO_ITEM ? WCX_NO_ITEM : first_item + item;
		}
	}
}

static cudaError_t wcx_bench_upload(struct wcx_bench *bench)
{
	const size_t items = (size_t)bench->repeats * bench->layout.items;
	const size_t slots = (size_t)bench->repeats * bench->layout.slots;
	cudaError_t error;

	wcx_tile_batch_write(bench->batch, bench->upload);
	wcx_bench_repeat(bench);
	error = cudaMalloc(&bench->items_dev, items * sizeof *bench->items);
	if (!error)
		error = cudaMalloc(&bench->slots_dev, slots * sizeof *bench->slots);
	if (!error)
		error = cudaMalloc(&bench->status_dev, items * sizeof *bench->status);
	if (!error)
		error = cudaMalloc(&bench->upload_dev, bench->layout.upload_bytes);
	if (!error)
		error = cudaMalloc(&bench->dst_dev, bench->repeats * bench->bytes);
	if (!error)
		error = cudaEventCreate(&bench->start);
	if (!error)
		error = cudaEventCreate(&bench->stop);
	if (!error)
		error = cudaMemcpy(bench->items_dev, bench->items, items * sizeof *bench->items, cudaMemcpyHostToDevice);
	if (!error)
		error = cudaMemcpy(bench->slots_dev, bench->slots, slots * sizeof *bench->slots, cudaMemcpyHostToDevice);
	if (!error)
		error = cudaMemcpy(bench->upload_dev, bench->upload, bench->layout.upload_bytes, cudaMemcpyHostToDevice);
	return error;
}

static cudaError_t wcx_bench_launch(struct wcx_bench *bench, double *ms_ret)
{
	struct wcx_batch_dev batch;
	cudaError_t error;
	float ms = 0;

	batch.items = bench->items_dev;
	batch.slots = bench->slots_dev;
	batch.tables = (const struct wcx_batch_table *)(bench->upload_dev + bench->layout.tables_offset);
	batch.src = bench->upload_dev + bench->layout.src_offset;
	batch.dst = bench->dst_dev;
	batch.status = bench->status_dev;
	error = cudaEventRecord(bench->start, 0);
	if (!error)
		error = wcx_launch_decode(batch, bench->launches, bench->layout.launch_count, 0);
	if (!error)
		error = cudaEventRecord(bench->stop, 0);
	if (!error)
		error = cudaEventSynchronize(bench->stop);
	if (!error)
		error = cudaEventElapsedTime(&ms, bench->start, bench->stop);
	*ms_ret = ms;
	return error;
}

/* The items of the last repeat are the last ones. */
static cudaError_t wcx_bench_download(struct wcx_bench *bench)
{
	const uint32_t last = bench->repeats - 1;
	cudaError_t error;

	error = cudaMemcpy(bench->status, bench->status_dev,
			   (size_t)bench->repeats * bench->layout.items * sizeof *bench->status, cudaMemcpyDeviceToHost);
	if (!error)
		error = cudaMemcpy(bench->dst, bench->dst_dev + last * bench->bytes, bench->bytes, cudaMemcpyDeviceToHost);
	if (!error)
		wcx_tile_batch_finish(bench->batch, bench->status + last * bench->layout.items, bench->dst);
	return error;
}

extern "C" enum wcx_result wcx_gpu_time_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count,
					       uint32_t repeats, uint32_t rounds, double *ms_ret, uint64_t *bytes_ret)
{
	struct wcx_bench bench;
	enum wcx_result result;
	cudaError_t error;
	double untimed;

	(void)gpu; /* being open, it shows that there is a device */
	memset(&bench, 0, sizeof bench);
	result = wcx_bench_fill(&bench, jobs, job_count, repeats);
	if (result != WCX_OK)
		goto out;
	error = wcx_bench_upload(&bench);
	if (!error)
		error = wcx_bench_launch(&bench, &untimed);
	if (!error)
		error = cudaMemset(bench.dst_dev, 0xA5, repeats * bench.bytes);
	for (uint32_t round = 0; round < rounds && !error; round++)
		error = wcx_bench_launch(&bench, &ms_ret[round]);
	if (!error)
		error = wcx_bench_download(&bench);
	if (error) {
		cudaGetLastError();
		result = WCX_DEVICE_FAILED;
		goto out;
	}
	for (uint32_t i = 0; i < bench.repeats * bench.layout.items; i++)
		if (bench.status[i] != WCX_OK)
			result = WCX_BAD_DATA;
	*bytes_ret = bench.decoded_bytes;
out:
	wcx_bench_close(&bench);
	return result;
}
