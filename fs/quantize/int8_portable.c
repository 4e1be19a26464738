/* SPDX-License-Identifier: MIT */
/* The loops over weights with the instructions that the compiler may use everywhere. */
#include "fs/quantize/int8_template.h"

const struct wcx_int8_loops wcx_int8_portable = { "portable", widen, max_bits, quantise };
