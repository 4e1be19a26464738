/* SPDX-License-Identifier: MIT */
/* The kernels of tiles that are differences from a base, but for those of bytes with one coded field. */

/* Eight tables leave little shared memory: with shorter rings, all 32 warps fit beside them. */
#define WCX_STEPS_OF_BLOCK 8
#include "cuda/tile_decode.cuh"

template <bool multi> static const void *wcx_difference_kernel_of(uint32_t number)
{
	static void (*const kernels[])(const struct wcx_batch_dev) = {
		/* in the order of enum wcx_tile_kernel */
		wcx_decode_tiles<wcx_any_difference<1>, true>,
		wcx_decode_tiles<wcx_any_difference<2>, true>,
		wcx_decode_tiles<wcx_any_difference<4>, true>,
		wcx_decode_tiles<wcx_any_difference<8>, true>,
		NULL, /* wcx_byte_difference_shape has these two */
		NULL,
		wcx_decode_tiles<wcx_half_differences<0>, multi>,
		wcx_decode_tiles<wcx_half_differences<2>, multi>,
		wcx_decode_tiles<wcx_half_differences<4>, multi>,
		wcx_decode_tiles<wcx_two_differences, true>,
		NULL, /* wcx_escape_shape has it */
	};

	static_assert(WCX_ARRAY_COUNT(kernels) == WCX_KERNEL_FUSED_FIRST - WCX_KERNEL_DIFFERENCE_FIRST, "one for each");
	return number < WCX_ARRAY_COUNT(kernels) ? (const void *)kernels[number] : NULL;
}

struct wcx_block_shape wcx_difference_shape(uint32_t kernel, uint32_t table_count)
{
	const uint32_t number = kernel - WCX_KERNEL_DIFFERENCE_FIRST;
	struct wcx_block_shape ret = { table_count > 1 ? wcx_difference_kernel_of<true>(number)
						       : wcx_difference_kernel_of<false>(number),
				       table_count * WCX_TABLE_BYTES + WCX_CONTEXTS_BYTES, WCX_WARP_SHARED_BYTES };

	if (kernel == WCX_KERNEL_DIFFERENCE_TWO) {
		ret.tables_bytes = WCX_COMPACT_ALL_BYTES + WCX_CONTEXTS_BYTES;
		ret.warp_bytes = 2 * WCX_WARP_SHARED_BYTES;
	}
	return ret;
}
