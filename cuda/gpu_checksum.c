/* SPDX-License-Identifier: MIT */
/* Computes checksums on a GPU, alone. */
#include "cuda/gpu_checksum.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

#include "codec/arith.h"
#include "cuda/checksum_kernel.h"

/* Everything on the device. */
struct memory {
	uint8_t *src;
	struct wcx_tile_check *checks;
	uint64_t *hashes;
	cudaEvent_t start, stop;
};

static cudaError_t allocate(struct memory *memory, const uint8_t *src, size_t src_bytes, const struct wcx_tile_check *checks,
			    size_t count)
{
	cudaError_t error = cudaMalloc((void **)&memory->src, WCX_ALIGN_UP(src_bytes + 1, 4));

	if (!error)
		error = cudaMalloc((void **)&memory->checks, count * sizeof *checks);
	if (!error)
		error = cudaMalloc((void **)&memory->hashes, count * sizeof *memory->hashes);
	if (!error)
		error = cudaMemset(memory->src, 0, WCX_ALIGN_UP(src_bytes + 1, 4));
	if (!error)
		error = cudaMemcpy(memory->src, src, src_bytes, cudaMemcpyHostToDevice);
	if (!error)
		error = cudaMemcpy(memory->checks, checks, count * sizeof *checks, cudaMemcpyHostToDevice);
	if (!error)
		error = cudaEventCreate(&memory->start);
	if (!error)
		error = cudaEventCreate(&memory->stop);
	return error;
}

static void release(struct memory *memory)
{
	if (memory->start)
		cudaEventDestroy(memory->start);
	if (memory->stop)
		cudaEventDestroy(memory->stop);
	cudaFree(memory->src);
	cudaFree(memory->checks);
	cudaFree(memory->hashes);
	cudaGetLastError();
}

static cudaError_t compute(const struct memory *memory, size_t count, uint64_t *ret, double *ms_ret)
{
	const struct wcx_checksum_job job = {
		.checks = memory->checks, .count = (uint32_t)count, .src = memory->src, .hashes = memory->hashes
	};
	float ms = 0;
	cudaError_t error = cudaEventRecord(memory->start, NULL);

	if (!error)
		error = wcx_checksums_compute(&job, NULL);
	if (!error)
		error = cudaEventRecord(memory->stop, NULL);
	if (!error)
		error = cudaMemcpy(ret, memory->hashes, count * sizeof *ret, cudaMemcpyDeviceToHost);
	if (!error)
		error = cudaEventElapsedTime(&ms, memory->start, memory->stop);
	*ms_ret = (double)ms;
	return error;
}

enum wcx_result wcx_gpu_checksums(int device, const uint8_t *src, size_t src_bytes, const struct wcx_gpu_part *parts,
				  size_t part_count, uint64_t *ret, double *ms_ret)
{
	struct wcx_tile_check *checks;
	struct memory memory = { .src = NULL };
	cudaError_t error;

	for (size_t i = 0; i < part_count; i++)
		if (parts[i].offset > src_bytes || parts[i].bytes > src_bytes - parts[i].offset)
			return WCX_WRONG_SIZE;
	if (cudaSetDevice(device))
		return WCX_NO_DEVICE;
	checks = calloc(part_count ? part_count : 1, sizeof *checks);
	if (!checks)
		return WCX_NO_MEMORY;
	for (size_t i = 0; i < part_count; i++)
		checks[i] = (struct wcx_tile_check){ .src = parts[i].offset, .bytes = parts[i].bytes };
	error = allocate(&memory, src, src_bytes, checks, WCX_MAX(part_count, (size_t)1));
	if (!error)
		error = compute(&memory, part_count, ret, ms_ret);
	release(&memory);
	free(checks);
	if (error)
		return error == cudaErrorMemoryAllocation ? WCX_NO_MEMORY : WCX_DEVICE_FAILED;
	return WCX_OK;
}
