/* SPDX-License-Identifier: MIT */
/* How many warps the thread blocks of a kernel have. */
#ifndef WCX_BLOCK_WARPS_H
#define WCX_BLOCK_WARPS_H

#include "cuda/tile_batch.h"

enum { WCX_FUSED_BLOCK_WARPS = 28 }; /* of the fused kernels for elements of two bytes, which take 72 registers */

/* wcx_block_warps_max - warps of the blocks of a launch, if the device has space for so many */
static inline uint32_t wcx_block_warps_max(uint32_t kernel, uint32_t table_count)
{
	if (table_count == 1 && (kernel == WCX_KERNEL_PAIRS_FOLD || kernel == WCX_KERNEL_DIFFERENCE_BYTES ||
				 kernel == WCX_KERNEL_DIFFERENCE_BYTE_PAIRS))
		return WCX_SLIM_BLOCK_WARPS;
	if (kernel > WCX_KERNEL_FUSED_BYTE_PAIRS)
		return WCX_FUSED_BLOCK_WARPS;
	return table_count > 2 || kernel >= WCX_KERNEL_DIFFERENCE_TWO ? WCX_LARGE_BLOCK_WARPS : WCX_BLOCK_WARPS;
}

/* wcx_block_fills_multiprocessor - whether no second block of a launch fits beside one */
static inline bool wcx_block_fills_multiprocessor(uint32_t kernel, uint32_t table_count)
{
	return wcx_block_warps_max(kernel, table_count) > WCX_SLIM_BLOCK_WARPS;
}

#endif
