/* SPDX-License-Identifier: MIT */
/* The kernels of differences of bytes with one coded field: apart, because blocks of 16 steps are faster for these. */
#include "cuda/tile_decode.cuh"

struct wcx_block_shape wcx_byte_difference_shape(uint32_t kernel, uint32_t table_count)
{
	return { kernel == WCX_KERNEL_DIFFERENCE_BYTE_PAIRS
			 ? (const void *)wcx_decode_tiles<wcx_byte_pair_differences, false>
		 : table_count > 1 ? (const void *)wcx_decode_tiles<wcx_byte_differences, true>
				   : (const void *)wcx_decode_tiles<wcx_byte_differences, false>,
		 table_count * WCX_TABLE_BYTES + WCX_CONTEXTS_BYTES, WCX_WARP_SHARED_BYTES };
}
