/* SPDX-License-Identifier: MIT */
/*
 * The loops over weights, which compilers turn into the SIMD instructions that they may use for the including file.
 *
 * To be included once by a file that then defines a struct wcx_int8_loops with widen, max_bits and quantise.  Nothing here
 * depends on the order in which a compiler computes, but for the last digits of the sums of squares.
 */
#ifndef WCX_INT8_TEMPLATE_H
#define WCX_INT8_TEMPLATE_H

#include <math.h>
#include <string.h>

#include "fs/quantize/float_bits.h"
#include "fs/quantize/int8_rows.h"

enum {
	LANES = 16,          /* sums and maxima that a loop keeps */
	BLOCK = 1024,        /* weights that stay in the first cache, and whose squares are summed in F32 */
	QUANTISED_MAX = 127, /* and the least is -128 */
};

#define ROUNDER 12582912.0F /* 1.5 * 2^23: a sum with it has no bits for fractions, and is rounded to even */

/* --- to F32 --- */

/*
 * In two passes over a block, as a choice between floats that are computed on the way is no SIMD loop: first as if each half
 * were subnormal, a fraction without a leading one (put one there, and subtract it), then the others.
 */
static void widen_halves(const uint16_t *restrict halves, float *restrict dst, size_t count)
{
	const uint32_t rebias = UINT32_C(112) << WCX_F32_MANTISSA_BITS, tiny = wcx_float_bits(WCX_F16_TINY);

	for (size_t i = 0; i < count; i++)
		dst[i] = wcx_float_from_bits(((uint32_t)(halves[i] & 0x7FFF) << WCX_F16_DROPPED_BITS) + tiny) - WCX_F16_TINY;
	for (size_t i = 0; i < count; i++) {
		const uint32_t half = halves[i], exponent = half & 0x7C00, sign = (half & 0x8000) << 16;
		const uint32_t normal =
			((half & 0x7FFF) << WCX_F16_DROPPED_BITS) + (exponent == 0x7C00 ? 2 * rebias : rebias);

		dst[i] = wcx_float_from_bits(sign | (exponent == 0 ? wcx_float_bits(dst[i]) : normal));
	}
}

static void widen(enum wcx_float_type type, const void *src, float *dst, size_t count)
{
	const uint16_t *halves = src;

	switch (type) {
	case WCX_FLOAT_F16:
		for (size_t first = 0; first < count; first += BLOCK)
			widen_halves(halves + first, dst + first, count - first < BLOCK ? count - first : BLOCK);
		break;
	case WCX_FLOAT_BF16:
		for (size_t i = 0; i < count; i++)
			dst[i] = wcx_float_from_bits((uint32_t)halves[i] << 16);
		break;
	case WCX_FLOAT_F32:
		memcpy(dst, src, count * sizeof *dst);
		break;
	}
}

static uint32_t max_bits(const float *values, size_t count)
{
	int32_t lanes[LANES] = { 0 }, largest = 0; /* signed: more CPUs compare that */
	size_t i = 0;

	for (; i + LANES <= count; i += LANES)
		for (size_t lane = 0; lane < LANES; lane++) {
			const int32_t bits = (int32_t)(wcx_float_bits(values[i + lane]) & INT32_MAX);

			lanes[lane] = bits > lanes[lane] ? bits : lanes[lane];
		}
	for (size_t lane = 0; lane < LANES; lane++)
		largest = lanes[lane] > largest ? lanes[lane] : largest;
	for (; i < count; i++) {
		const int32_t bits = (int32_t)(wcx_float_bits(values[i]) & INT32_MAX);

		largest = bits > largest ? bits : largest;
	}
	return (uint32_t)largest;
}

/* The type that quotients are rounded to. */
static enum wcx_float_type quotient_type(struct wcx_int8_recipe recipe)
{
	return recipe.weights == recipe.scales ? recipe.weights : WCX_FLOAT_F32;
}

/* --- values --- */

/*
 * The integer for a quotient.  Quotients are rounded to their type first.  The range of exponents does not matter for that:
 * what is too large for F16 becomes 127 or -128 anyway, and what is too small 0.  All choices are between integers, which
 * compilers turn into SIMD instructions without being told that comparing floats cannot trap.
 */
static inline int32_t quantised(float quotient, enum wcx_float_type type)
{
	const float rounded = type == WCX_FLOAT_F16    ? wcx_float_drop_bits(quotient, WCX_F16_DROPPED_BITS)
			      : type == WCX_FLOAT_BF16 ? wcx_float_drop_bits(quotient, WCX_BF16_DROPPED_BITS)
						       : quotient;
	const int32_t bits = (int32_t)wcx_float_bits(rounded), largest = (int32_t)wcx_float_bits(QUANTISED_MAX + 1);
	const int32_t magnitude = (bits & INT32_MAX) < largest ? bits & INT32_MAX : largest;
	const float clamped = wcx_float_from_bits((uint32_t)(magnitude | (bits & INT32_MIN)));
	const int32_t value = (int32_t)wcx_float_bits(clamped + ROUNDER) - (int32_t)wcx_float_bits(ROUNDER);

	return value < QUANTISED_MAX ? value : QUANTISED_MAX;
}

/* What a block becomes on the way, in units of the scale. */
struct quotients {
	float weights[BLOCK], changes[BLOCK];
};

/* type is a constant where this is inlined */
static inline void quantise_block(enum wcx_float_type type, const float *restrict weights, float scale,
				  struct quotients *restrict quotients, int8_t *restrict dst, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const float quotient = weights[i] / scale;
		const int32_t value = quantised(quotient, type);

		quotients->weights[i] = quotient;
		quotients->changes[i] = quotient - (float)value;
		dst[i] = (int8_t)value;
	}
}

static float sum_squares(const float *restrict values, size_t count)
{
	float lanes[LANES] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + LANES <= count; i += LANES)
		for (size_t lane = 0; lane < LANES; lane++)
			lanes[lane] += values[i + lane] * values[i + lane];
	for (; i < count; i++)
		sum += values[i] * values[i];
	for (size_t lane = 0; lane < LANES; lane++)
		sum += lanes[lane];
	return sum;
}

/* The same sums where the squares are too large for F32: weights far above what their clamped scale can stand for. */
static void sum_exactly(const float *weights, float scale, const int8_t *values, size_t count, struct wcx_int8_error *error)
{
	for (size_t i = 0; i < count; i++) {
		const double weight = weights[i], noise = weight - (double)scale * values[i];

		error->signal += weight * weight;
		error->noise += noise * noise;
	}
}

static void quantise(struct wcx_int8_recipe recipe, const float *weights, float scale, int8_t *dst, size_t count,
		     struct wcx_int8_error *error)
{
	const enum wcx_float_type type = quotient_type(recipe);
	struct quotients quotients;

	for (size_t first = 0; first < count; first += BLOCK) {
		const size_t block = count - first < BLOCK ? count - first : BLOCK;
		const double square = (double)scale * scale;
		float signal, noise;

		if (type == WCX_FLOAT_F16)
			quantise_block(WCX_FLOAT_F16, weights + first, scale, &quotients, dst + first, block);
		else if (type == WCX_FLOAT_BF16)
			quantise_block(WCX_FLOAT_BF16, weights + first, scale, &quotients, dst + first, block);
		else
			quantise_block(WCX_FLOAT_F32, weights + first, scale, &quotients, dst + first, block);
		signal = sum_squares(quotients.weights, block);
		noise = sum_squares(quotients.changes, block);
		if (isfinite(signal) && isfinite(noise)) {
			error->signal += signal * square;
			error->noise += noise * square;
		} else {
			sum_exactly(weights + first, scale, dst + first, block, error);
		}
	}
}

#endif
