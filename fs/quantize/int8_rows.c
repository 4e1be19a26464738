/* SPDX-License-Identifier: MIT */
/* Scales of INT8 weights, and the choice of the loops that compute values. */
#include "fs/quantize/int8_rows.h"

#include <math.h>
#include <stdlib.h>

#include "codec/cpu_features.h"
#include "fs/quantize/float_bits.h"

#define STEPS_HALVED 127.5F /* half of the distance from -128 to 127 */
#define F16_MAX 65504.0F
#define F16_SUBNORMAL_STEP 0x1p-24F

/* Rounds a number from 0 to the largest of the type. */
static float round_to(enum wcx_float_type type, float value)
{
	switch (type) {
	case WCX_FLOAT_F16:
		if (value >= WCX_F16_TINY)
			return wcx_float_drop_bits(value, WCX_F16_DROPPED_BITS);
		return rintf(value / F16_SUBNORMAL_STEP) * F16_SUBNORMAL_STEP;
	case WCX_FLOAT_BF16:
		return wcx_float_drop_bits(value, WCX_BF16_DROPPED_BITS);
	case WCX_FLOAT_F32:
		break;
	}
	return value;
}

static float epsilon(enum wcx_float_type type)
{
	return type == WCX_FLOAT_F16 ? 0x1p-10F : type == WCX_FLOAT_BF16 ? 0x1p-7F : 0x1p-23F;
}

float wcx_int8_scale(struct wcx_int8_recipe recipe, float amax)
{
	float scale = amax / STEPS_HALVED;

	if (recipe.scales == WCX_FLOAT_F16 && scale > F16_MAX)
		scale = F16_MAX;
	scale = round_to(recipe.scales, scale);
	return scale == 0 ? epsilon(recipe.scales) : scale;
}

void wcx_int8_scale_write(struct wcx_int8_recipe recipe, float scale, void *dst)
{
	const uint32_t bits = wcx_float_bits(scale);
	uint8_t *bytes = dst;
	uint32_t stored = bits;

	if (recipe.scales == WCX_FLOAT_BF16)
		stored = bits >> WCX_BF16_DROPPED_BITS;
	else if (recipe.scales == WCX_FLOAT_F16 && scale < WCX_F16_TINY)
		stored = (uint32_t)(scale / F16_SUBNORMAL_STEP);
	else if (recipe.scales == WCX_FLOAT_F16)
		stored = (bits - (UINT32_C(112) << WCX_F32_MANTISSA_BITS)) >> WCX_F16_DROPPED_BITS;
	for (size_t i = 0; i < wcx_float_bytes(recipe.scales); i++)
		bytes[i] = (uint8_t)(stored >> 8 * i);
}

const struct wcx_int8_loops *wcx_int8_loops_choose(void)
{
#ifdef __x86_64__
	const char *name = getenv("WCX_CPU");

	if (wcx_cpu_has_avx2() && (!name || strcmp(name, wcx_int8_portable.name) != 0))
		return &wcx_int8_avx2;
#endif
	return &wcx_int8_portable;
}
