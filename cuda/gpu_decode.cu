/* SPDX-License-Identifier: MIT */
/*
 * Decodes tiles from host memory to host memory: hands batches to the kernel through a fixed set of streams with pinned
 * buffers (docs/gpu.md).
 */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda/tile_kernel.cuh"

extern "C" {
#include "cuda/gpu_decode.h"
}

enum {
	/*
	 * Copying a lane's tiles to and from pinned memory takes a CPU core several times as long as the GPU needs for
	 * them: about 8 threads with a lane each keep a GPU busy.  From 4 MiB on, copies run at nearly the full speed
	 * of PCIe.
	 */
	WCX_GPU_LANES = 8,
	WCX_LANE_DST_BYTES = 4 << 20,
	WCX_LANE_SRC_BYTES = 4 << 20, /* a coded tile is smaller than its decoded one */
	WCX_LANE_ITEMS = 2048,        /* a full lane of tiles of 2 KiB or more */
	WCX_LANE_TABLES = 256,
};

/* A stream and what one batch needs on its way through it. */
struct wcx_gpu_lane {
	struct wcx_gpu_lane *next_free;
	bool taken;
	struct wcx_tile_batch *batch;
	struct wcx_batch_layout layout; /* of the batch under way */
	uint8_t *upload, *download;     /* pinned */
	uint8_t *upload_dev, *download_dev;
	cudaStream_t stream;
	cudaEvent_t done;
};

struct wcx_gpu {
	pthread_mutex_t lock; /* protects everything below but the lanes that are taken, which are their takers' */
	pthread_cond_t lane_freed;
	struct wcx_gpu_lane *free_lanes;
	bool failed;     /* for good: no further call gets to the device */
	long calls_left; /* until a failure is feigned; negative: none will be */
	struct wcx_gpu_lane lanes[WCX_GPU_LANES];
};

static void wcx_lane_close(struct wcx_gpu_lane *lane)
{
	if (lane->done)
		cudaEventDestroy(lane->done);
	if (lane->stream)
		cudaStreamDestroy(lane->stream);
	cudaFree(lane->upload_dev);
	cudaFree(lane->download_dev);
	cudaFreeHost(lane->upload);
	cudaFreeHost(lane->download);
	wcx_tile_batch_free(lane->batch);
}

/* A lane that is open in part is closed by wcx_gpu_free.  WCX_NO_MEMORY or WCX_DEVICE_FAILED with *error_ret set. */
static enum wcx_result wcx_lane_open(struct wcx_gpu_lane *lane, cudaError_t *error_ret)
{
	const struct wcx_batch_limits limits = { WCX_LANE_ITEMS, WCX_LANE_TABLES, WCX_LANE_SRC_BYTES, WCX_LANE_DST_BYTES };
	const struct wcx_batch_layout capacity = wcx_tile_batch_capacity(&limits);

	static_assert((int)WCX_LANE_TABLES >= WCX_TILE_TABLES_MAX && (int)WCX_LANE_SRC_BYTES >= WCX_TILE_MAX_BYTES &&
			      (int)WCX_LANE_DST_BYTES >= WCX_TILE_MAX_BYTES,
		      "any tile fits, so that every batch takes a job");
	lane->batch = wcx_tile_batch_create(&limits);
	*error_ret = lane->batch ? cudaSuccess : cudaErrorMemoryAllocation;
	if (!*error_ret)
		*error_ret = cudaMallocHost(&lane->upload, capacity.upload_bytes);
	if (!*error_ret)
		*error_ret = cudaMallocHost(&lane->download, capacity.download_bytes);
	if (*error_ret)
		return *error_ret == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
	*error_ret = cudaMalloc(&lane->upload_dev, capacity.upload_bytes);
	if (!*error_ret)
		*error_ret = cudaMalloc(&lane->download_dev, capacity.download_bytes);
	if (!*error_ret)
		*error_ret = cudaStreamCreateWithFlags(&lane->stream, cudaStreamNonBlocking);
	/*
	 * The gaps between tiles come back too: not with what somebody else left in the device's memory.  In the lane's stream,
	 * which waits for no other, so that this is over before the first batch.
	 */
	if (!*error_ret)
		*error_ret = cudaMemsetAsync(lane->download_dev, 0, capacity.download_bytes, lane->stream);
	if (!*error_ret)
		*error_ret = cudaEventCreateWithFlags(&lane->done, cudaEventBlockingSync | cudaEventDisableTiming);
	return *error_ret ? WCX_DEVICE_FAILED : WCX_OK;
}

/* Fails with the runtime's reason when there is no driver, no device, or none that the kernel was built for. */
static cudaError_t wcx_device_find(char name[WCX_GPU_NAME_BYTES])
{
	struct cudaDeviceProp device;
	struct cudaFuncAttributes kernel;
	int count;
	cudaError_t error = cudaGetDeviceCount(&count);

	if (!error)
		error = cudaGetDeviceProperties(&device, 0);
	if (!error)
		error = cudaFuncGetAttributes(&kernel, wcx_kernel_of(1));
	if (!error)
		snprintf(name, WCX_GPU_NAME_BYTES, "%s", device.name);
	return error;
}

/* The test hook of docs/gpu.md. */
static long wcx_calls_until_failure(void)
{
	const char *text = getenv("WCX_GPU_FAIL_AFTER");

	return text ? strtol(text, NULL, 10) : -1;
}

extern "C" enum wcx_result wcx_gpu_open(struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES])
{
	struct wcx_gpu *gpu = NULL;
	enum wcx_result result = WCX_NO_DEVICE;
	cudaError_t error = wcx_device_find(name);

	if (error)
		goto out;
	result = WCX_NO_MEMORY;
	error = cudaErrorMemoryAllocation;
	gpu = (struct wcx_gpu *)calloc(1, sizeof *gpu);
	if (!gpu)
		goto out;
	pthread_mutex_init(&gpu->lock, NULL);
	pthread_cond_init(&gpu->lane_freed, NULL);
	gpu->calls_left = wcx_calls_until_failure();
	for (struct wcx_gpu_lane &lane : gpu->lanes) {
		result = wcx_lane_open(&lane, &error);
		if (result != WCX_OK)
			goto out;
		lane.next_free = gpu->free_lanes;
		gpu->free_lanes = &lane;
	}
	*ret = gpu;
	return WCX_OK;
out:
	snprintf(name, WCX_GPU_NAME_BYTES, "%s", cudaGetErrorString(error));
	wcx_gpu_free(gpu);
	return result;
}

extern "C" void wcx_gpu_free(struct wcx_gpu *gpu)
{
	size_t taken = 0;

	if (!gpu)
		return;
	for (struct wcx_gpu_lane &lane : gpu->lanes) {
		taken += lane.taken;
		wcx_lane_close(&lane);
	}
	assert(taken == 0);
	pthread_cond_destroy(&gpu->lane_freed);
	pthread_mutex_destroy(&gpu->lock);
	free(gpu);
}

/* Counts a call, for the test hook. */
static void wcx_gpu_call_begin(struct wcx_gpu *gpu)
{
	pthread_mutex_lock(&gpu->lock);
	if (gpu->calls_left == 0)
		gpu->failed = true;
	else if (gpu->calls_left > 0)
		gpu->calls_left--;
	pthread_mutex_unlock(&gpu->lock);
}

/* NULL when the GPU has failed or, without wait, when all lanes are taken. */
static struct wcx_gpu_lane *wcx_gpu_take_lane(struct wcx_gpu *gpu, bool wait)
{
	struct wcx_gpu_lane *lane = NULL;

	pthread_mutex_lock(&gpu->lock);
	while (wait && !gpu->failed && !gpu->free_lanes)
		pthread_cond_wait(&gpu->lane_freed, &gpu->lock);
	if (!gpu->failed && gpu->free_lanes) {
		lane = gpu->free_lanes;
		gpu->free_lanes = lane->next_free;
		lane->taken = true;
	}
	pthread_mutex_unlock(&gpu->lock);
	return lane;
}

/*
 * Waits until the device leaves the lane's buffers alone, which after a failure it might not yet, and gives the lane
 * back.  An error that is still there once the stream is empty is one that the device does not recover from.
 */
static void wcx_gpu_give_lane(struct wcx_gpu *gpu, struct wcx_gpu_lane *lane)
{
	cudaError_t error;

	if (!lane)
		return;
	cudaGetLastError();
	error = cudaStreamSynchronize(lane->stream);
	pthread_mutex_lock(&gpu->lock);
	gpu->failed |= error != cudaSuccess;
	lane->next_free = gpu->free_lanes;
	lane->taken = false;
	gpu->free_lanes = lane;
	if (gpu->failed)
		pthread_cond_broadcast(&gpu->lane_freed);
	else
		pthread_cond_signal(&gpu->lane_freed);
	pthread_mutex_unlock(&gpu->lock);
}

/* Sends the lane's batch on its way.  Its buffers are the device's until wcx_lane_collect. */
static cudaError_t wcx_lane_submit(struct wcx_gpu_lane *lane)
{
	const struct wcx_batch_layout *layout = &lane->layout;
	struct wcx_batch_dev batch;
	cudaError_t error;

	batch.items = (const struct wcx_tile_item *)lane->upload_dev;
	batch.slots = (const uint32_t *)(lane->upload_dev + layout->slots_offset);
	batch.tables = (const struct wcx_batch_table *)(lane->upload_dev + layout->tables_offset);
	batch.src = lane->upload_dev + layout->src_offset;
	batch.status = (uint32_t *)lane->download_dev;
	batch.dst = lane->download_dev + layout->dst_offset;
	wcx_tile_batch_write(lane->batch, lane->upload);
	error = cudaMemcpyAsync(lane->upload_dev, lane->upload, layout->upload_bytes, cudaMemcpyHostToDevice, lane->stream);
	if (!error)
		error = wcx_launch_decode(batch, layout->launches, layout->launch_count, lane->stream);
	if (!error)
		error = cudaMemcpyAsync(lane->download, lane->download_dev, layout->download_bytes, cudaMemcpyDeviceToHost,
					lane->stream);
	if (!error)
		error = cudaEventRecord(lane->done, lane->stream);
	return error;
}

/* Waits, without spinning, for the batch of wcx_lane_submit and gives its jobs their results. */
static cudaError_t wcx_lane_collect(struct wcx_gpu_lane *lane)
{
	cudaError_t error = cudaEventSynchronize(lane->done);

	if (!error)
		wcx_tile_batch_finish(lane->batch, (const uint32_t *)lane->download,
				      lane->download + lane->layout.dst_offset);
	return error;
}

/*
 * Works through the jobs with one lane, or two where another is free: then one batch is copied in and out while the
 * other is on the device.  Takes no second lane by waiting, so callers cannot wait for each other in a circle.
 */
static cudaError_t wcx_gpu_run(struct wcx_gpu *gpu, struct wcx_gpu_lane *idle, struct wcx_tile_job *jobs, size_t job_count)
{
	struct wcx_gpu_lane *busy = NULL, *swap;
	size_t next = 0;
	cudaError_t error = cudaSuccess;

	while (!error && (next < job_count || busy)) {
		if (next < job_count && !idle)
			idle = wcx_gpu_take_lane(gpu, false);
		if (next < job_count && idle) {
			next += wcx_tile_batch_fill(idle->batch, jobs + next, job_count - next);
			idle->layout = wcx_tile_batch_layout(idle->batch);
			if (idle->layout.items == 0)
				continue;
			error = wcx_lane_submit(idle);
			swap = busy;
			busy = idle;
			idle = swap;
			if (!error && idle)
				error = wcx_lane_collect(idle);
		} else {
			error = wcx_lane_collect(busy);
			wcx_gpu_give_lane(gpu, idle);
			idle = busy;
			busy = NULL;
		}
	}
	wcx_gpu_give_lane(gpu, idle);
	wcx_gpu_give_lane(gpu, busy);
	return error;
}

extern "C" enum wcx_result wcx_gpu_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count)
{
	struct wcx_gpu_lane *lane;

	for (size_t i = 0; i < job_count; i++)
		jobs[i].result = WCX_DEVICE_FAILED;
	wcx_gpu_call_begin(gpu);
	lane = wcx_gpu_take_lane(gpu, true);
	if (!lane || wcx_gpu_run(gpu, lane, jobs, job_count))
		return WCX_DEVICE_FAILED;
	return WCX_OK;
}
