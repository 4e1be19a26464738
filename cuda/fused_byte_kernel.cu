/* SPDX-License-Identifier: MIT */
/* The kernels that decode differences of bytes together with their bases. */
#define WCX_STEPS_OF_BLOCK 8
#define WCX_SAVES_REGISTERS 1
#define WCX_LINES_OF_BLOCK 4 /* with eight, some registers are spilled */
#include "cuda/fused_decode.cuh"

struct wcx_block_shape wcx_fused_byte_shape(uint32_t kernel, uint32_t base_table_count, uint32_t table_count)
{
	if (kernel == WCX_KERNEL_FUSED_BYTE_PAIRS)
		return wcx_fused_shape_from<wcx_pairs_format, wcx_fused_byte_pairs, false>(base_table_count, table_count);
	return wcx_fused_shape_from<wcx_pairs_format, wcx_fused_bytes, false>(base_table_count, table_count);
}
