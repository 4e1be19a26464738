/* SPDX-License-Identifier: MIT */
/* Stands in for the GPU where the build has no CUDA. */
#include <stdio.h>

#include "cuda/gpu_bench.h"
#include "cuda/gpu_decode.h"

enum wcx_result wcx_gpu_open(struct wcx_gpu **ret, char name[WCX_GPU_NAME_BYTES])
{
	(void)ret;
	snprintf(name, WCX_GPU_NAME_BYTES, "built without CUDA");
	return WCX_NO_DEVICE;
}

void wcx_gpu_free(struct wcx_gpu *gpu)
{
	(void)gpu;
}

enum wcx_result wcx_gpu_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count)
{
	(void)gpu;
	for (size_t i = 0; i < job_count; i++)
		jobs[i].result = WCX_DEVICE_FAILED;
	return WCX_DEVICE_FAILED;
}

enum wcx_result wcx_gpu_time_decode(struct wcx_gpu *gpu, struct wcx_tile_job *jobs, size_t job_count, uint32_t repeats,
				    uint32_t rounds, double *ms_ret, uint64_t *bytes_ret)
{
	(void)gpu;
	(void)jobs;
	(void)job_count;
	(void)repeats;
	(void)rounds;
	(void)ms_ret;
	(void)bytes_ret;
	return WCX_NO_DEVICE;
}
