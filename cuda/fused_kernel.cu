/* SPDX-License-Identifier: MIT */
/* The kernels that decode differences together with their bases, but for those of bytes. */
#define WCX_STEPS_OF_BLOCK 8
#define WCX_SAVES_REGISTERS 1
#include "cuda/fused_decode.cuh"

struct wcx_block_shape wcx_fused_shape(uint32_t kernel, uint32_t base_table_count, uint32_t table_count)
{
	switch (kernel) {
	case WCX_KERNEL_FUSED_HALVES_PAIRS_8:
		return wcx_fused_shape_from<wcx_half_pairs_format<8>, wcx_fused_ladder, true>(base_table_count, table_count);
	}
	return { NULL, 0, 0 };
}
