/* SPDX-License-Identifier: MIT */
/* Checksums computed on a GPU, alone: for checks of the kernel and for its rate. */
#ifndef WCX_GPU_CHECKSUM_H
#define WCX_GPU_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "codec/result.h"

struct wcx_gpu_part {
	size_t offset;
	uint32_t bytes; /* may be 0 */
};

/*
 * wcx_gpu_checksums - compute XXH3-64, with seed 0, of parts of src
 *
 * Copies src to the device, and computes all parts in one launch, which *ms_ret tells the time of.  The parts may overlap.
 * Returns WCX_OK, WCX_WRONG_SIZE (a part is not within src), WCX_NO_MEMORY, WCX_NO_DEVICE or WCX_DEVICE_FAILED; after an
 * error ret is undefined.
 */
enum wcx_result wcx_gpu_checksums(int device, const uint8_t *src, size_t src_bytes, const struct wcx_gpu_part *parts,
				  size_t part_count, uint64_t *ret, double *ms_ret);

#endif
