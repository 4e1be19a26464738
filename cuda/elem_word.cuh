/* SPDX-License-Identifier: MIT */
/* Types of elements, and of the words that a lane holds of them (docs/format.md, section 3.1). */
#ifndef WCX_ELEM_WORD_CUH
#define WCX_ELEM_WORD_CUH

#include <type_traits>

#include "cuda/warp_rans.cuh"

template <uint32_t elem_bytes>
using wcx_elem = std::conditional_t<
	elem_bytes == 8, uint64_t,
	std::conditional_t<elem_bytes == 4, uint32_t, std::conditional_t<elem_bytes == 2, uint16_t, uint8_t>>>;
template <uint32_t elem_bytes> using wcx_word = std::conditional_t<elem_bytes == 8, uint64_t, uint32_t>;

template <uint32_t elem_bytes> static constexpr uint32_t wcx_elems_of_word = sizeof(wcx_word<elem_bytes>) / elem_bytes;
template <uint32_t elem_bytes> static constexpr uint32_t wcx_elems_of_line = WCX_LANES *wcx_elems_of_word<elem_bytes>;

#endif
