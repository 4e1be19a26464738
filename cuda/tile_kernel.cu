/* SPDX-License-Identifier: MIT */
/* The kernels of tiles that stand alone. */
#include "cuda/elem_format.cuh"
#include "cuda/tile_decode.cuh"

/* NULL for an unknown kernel, which makes the CUDA runtime report an error. */
template <bool multi> static const void *wcx_kernel_of(uint32_t kernel)
{
	static void (*const kernels[])(const struct wcx_batch_dev) = {
		/* in the order of enum wcx_tile_kernel */
		wcx_decode_tiles<wcx_any_format<1>, true>,           wcx_decode_tiles<wcx_any_format<2>, true>,
		wcx_decode_tiles<wcx_any_format<4>, true>,           wcx_decode_tiles<wcx_any_format<8>, true>,
		wcx_decode_tiles<wcx_pairs_format, multi>,           wcx_decode_tiles<wcx_bytes_format<0, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<1, false>, multi>, wcx_decode_tiles<wcx_bytes_format<2, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<3, false>, multi>, wcx_decode_tiles<wcx_bytes_format<4, false>, multi>,
		wcx_decode_tiles<wcx_bytes_format<1, true>, multi>,  wcx_decode_tiles<wcx_bytes_format<2, true>, multi>,
		wcx_decode_tiles<wcx_bytes_format<3, true>, multi>,  wcx_decode_tiles<wcx_bytes_format<4, true>, multi>,
		wcx_decode_tiles<wcx_halves_format<5>, multi>,       wcx_decode_tiles<wcx_halves_format<6>, multi>,
		wcx_decode_tiles<wcx_halves_format<7>, multi>,       wcx_decode_tiles<wcx_halves_format<8>, multi>,
		wcx_decode_tiles<wcx_halves_format<9>, multi>,       wcx_decode_tiles<wcx_half_pairs_format<8>, multi>,
		wcx_decode_tiles<wcx_half_pairs_format<11>, multi>,  wcx_decode_tiles<wcx_singles_format<20>, multi>,
		wcx_decode_tiles<wcx_singles_format<21>, multi>,     wcx_decode_tiles<wcx_singles_format<22>, multi>,
		wcx_decode_tiles<wcx_singles_format<23>, multi>,     wcx_decode_tiles<wcx_singles_format<24>, multi>,
	};

	static_assert(WCX_ARRAY_COUNT(kernels) == WCX_KERNEL_DIFFERENCE_FIRST, "one for each");
	return kernel < WCX_KERNEL_DIFFERENCE_FIRST ? (const void *)kernels[kernel] : NULL;
}

struct wcx_block_shape wcx_alone_shape(uint32_t kernel, uint32_t table_count)
{
	return { table_count > 1 ? wcx_kernel_of<true>(kernel) : wcx_kernel_of<false>(kernel), table_count * WCX_TABLE_BYTES,
		 WCX_WARP_SHARED_BYTES };
}
