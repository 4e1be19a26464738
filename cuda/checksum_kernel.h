/* SPDX-License-Identifier: MIT */
/* Launches the kernel that computes the checksums of packed tiles in device memory. */
#ifndef WCX_CHECKSUM_KERNEL_H
#define WCX_CHECKSUM_KERNEL_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes whose checksum is known: the low 32 bits of XXH3-64 with seed 0. */
struct wcx_tile_check {
	uint64_t src; /* offset from the job's src; any alignment */
	uint32_t bytes, checksum;
};

/* All pointers are to device memory, or to memory that the device can write to.  statuses or hashes may be NULL. */
struct wcx_checksum_job {
	const struct wcx_tile_check *checks;
	uint32_t count;
	const uint8_t *src; /* a multiple of 4; the kernel reads whole words, so up to 3 bytes beside those of a check */
	uint32_t *status;   /* gets mark | WCX_OK, or mark | WCX_BAD_DATA where the checksum differs, for each check */
	uint32_t mark;      /* as in struct wcx_kernel_job */
	uint64_t *hashes;   /* gets all 64 bits */
	bool overlaps;      /* the last launch in the stream lets this one start early; both may then run at a time */
};

/* wcx_checksums_compute - check tiles in stream order; from any thread.  Returns launch errors. */
cudaError_t wcx_checksums_compute(const struct wcx_checksum_job *job, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
