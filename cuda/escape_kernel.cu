/* SPDX-License-Identifier: MIT */
/* The kernels of differences with escapes whose bases are in memory. */
#define WCX_STEPS_OF_BLOCK 8
#define WCX_SAVES_REGISTERS 1
#include "cuda/fused_decode.cuh"

struct wcx_block_shape wcx_escape_shape(uint32_t table_count)
{
	if (table_count > WCX_CONTEXTS_MAX)
		return wcx_fused_shape_of<wcx_fused<wcx_memory_base, false, wcx_fused_escapes, true, true>>(0, table_count);
	return wcx_fused_shape_of<wcx_fused<wcx_memory_base, false, wcx_fused_escapes, true, false>>(0, table_count);
}
