/* SPDX-License-Identifier: MIT */
/* The kernels that decode differences together with their bases. */
#define WCX_STEPS_OF_BLOCK 8
#include "cuda/fused_decode.cuh"

template <typename format_type, typename difference_type, bool multi>
static struct wcx_block_shape wcx_shape_of(uint32_t base_table_count, uint32_t table_count)
{
	using base_type = wcx_decoded_base<format_type>;

	if (base_table_count > 1)
		return wcx_fused_shape_of<wcx_fused<base_type, true, difference_type, multi, false>>(base_table_count,
												     table_count);
	return wcx_fused_shape_of<wcx_fused<base_type, false, difference_type, multi, false>>(base_table_count, table_count);
}

struct wcx_block_shape wcx_fused_shape(uint32_t kernel, uint32_t base_table_count, uint32_t table_count)
{
	switch (kernel) {
	case WCX_KERNEL_FUSED_BYTES:
		return wcx_shape_of<wcx_pairs_format, wcx_fused_bytes, false>(base_table_count, table_count);
	case WCX_KERNEL_FUSED_BYTE_PAIRS:
		return wcx_shape_of<wcx_pairs_format, wcx_fused_byte_pairs, false>(base_table_count, table_count);
	case WCX_KERNEL_FUSED_HALVES_PAIRS_8:
		return wcx_shape_of<wcx_half_pairs_format<8>, wcx_fused_escapes, true>(base_table_count, table_count);
	}
	return { NULL, 0, 0 };
}
