/* SPDX-License-Identifier: MIT */
/*
 * The arithmetic of quantising to INT8: symmetric, rounding to nearest, one scale for a row or a whole tensor.
 *
 * Scales and values are bit for bit what compressed-tensors 0.20 computes on a CPU (calculate_qparams, quantize), including
 * what its element type loses: for weights in F16 or BF16, and scales of the same type, each quotient is rounded to that
 * type before it is rounded to an integer.  Scales of another type than the weights are computed in F32 and then rounded, as
 * the package does for weights converted to F32 and a scale_dtype.
 *
 * A scale is amax / 127.5, since the package maps the range to the 255 steps from -128 to 127; so -amax becomes -128.  A
 * scale that rounds to zero becomes the epsilon of its type.
 *
 * Everything here is arithmetic on the caller's memory: nothing can fail, and all is safe from any number of threads.
 */
#ifndef WCX_INT8_ROWS_H
#define WCX_INT8_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum wcx_float_type { WCX_FLOAT_F16, WCX_FLOAT_BF16, WCX_FLOAT_F32 };

/* wcx_float_bytes - 2 or 4 */
static inline size_t wcx_float_bytes(enum wcx_float_type type)
{
	return type == WCX_FLOAT_F32 ? 4 : 2;
}

/* How a tensor is quantised. */
struct wcx_int8_recipe {
	enum wcx_float_type weights, scales;
};

/* wcx_int8_scale - the scale for a largest magnitude, which is finite; a number that the scales' type has */
float wcx_int8_scale(struct wcx_int8_recipe recipe, float amax);

/* wcx_int8_scale_write - write a scale in its type, little-endian, to wcx_float_bytes(recipe.scales) bytes */
void wcx_int8_scale_write(struct wcx_int8_recipe recipe, float scale, void *dst);

/* Sums of squares: of the weights, and of what quantising changed.  Added to, so that they start as zeros. */
struct wcx_int8_error {
	double signal, noise;
};

/* The loops over weights.  All variants compute the same, but for the last digits of sums. */
struct wcx_int8_loops {
	const char *name;
	/* Converts count floats, aligned for their type, to F32; exact. */
	void (*widen)(enum wcx_float_type type, const void *src, float *dst, size_t count);
	/* The largest magnitude as bits, 0 of nothing; WCX_FLOAT_INFINITE_BITS (float_bits.h) or more: not all are finite.
	 */
	uint32_t (*max_bits)(const float *values, size_t count);
	/*
	 * Quantises count finite weights, which have been widened, with one scale.  The noise is that of weight - scale *
	 * value, exactly; what a loader loses when it rounds this product is not in it.
	 */
	void (*quantize)(struct wcx_int8_recipe recipe, const float *weights, float scale, int8_t *dst, size_t count,
			 struct wcx_int8_error *error);
};

extern const struct wcx_int8_loops wcx_int8_portable;
#ifdef __x86_64__
extern const struct wcx_int8_loops wcx_int8_avx2; /* for CPUs with AVX2 */
#endif

/* wcx_int8_loops_choose - the fastest for this CPU; the portable ones if the environment variable WCX_CPU names these */
const struct wcx_int8_loops *wcx_int8_loops_choose(void);

#endif
