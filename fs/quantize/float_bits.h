/* SPDX-License-Identifier: MIT */
/* Floats as their bits, and rounding their mantissas. */
#ifndef WCX_FLOAT_BITS_H
#define WCX_FLOAT_BITS_H

#include <stdint.h>
#include <string.h>

enum {
	WCX_F32_MANTISSA_BITS = 23,
	WCX_F16_DROPPED_BITS = 13, /* of an F32's mantissa */
	WCX_BF16_DROPPED_BITS = 16,
};

#define WCX_F16_TINY 0x1p-14F /* the smallest normal number */

/* Magnitudes from here on are infinite or no number, as bits of an F32. */
#define WCX_FLOAT_INFINITE_BITS UINT32_C(0x7F800000)

static inline float wcx_float_from_bits(uint32_t bits)
{
	float value;

	memcpy(&value, &bits, sizeof value);
	return value;
}

static inline uint32_t wcx_float_bits(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof bits);
	return bits;
}

/* wcx_float_drop_bits - round the mantissa, ties to even; the range of exponents stays that of F32 */
static inline float wcx_float_drop_bits(float value, unsigned dropped_bits)
{
	const uint32_t bits = wcx_float_bits(value), half = (UINT32_C(1) << (dropped_bits - 1)) - 1;

	return wcx_float_from_bits((bits + half + (bits >> dropped_bits & 1)) & ~((UINT32_C(1) << dropped_bits) - 1));
}

#endif
