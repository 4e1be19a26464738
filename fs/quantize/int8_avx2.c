/* SPDX-License-Identifier: MIT */
/* The loops over weights with the instructions of AVX2. */
#include "fs/quantize/int8_template.h"

const struct wcx_int8_loops wcx_int8_avx2 = { "avx2", widen, max_bits, quantise };
