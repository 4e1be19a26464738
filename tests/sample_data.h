/* SPDX-License-Identifier: MIT */
/* Data to test with: the same bytes for the same seed, on every machine. */
#ifndef WCX_SAMPLE_DATA_H
#define WCX_SAMPLE_DATA_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* What bytes are drawn from; the widths are those of INT8 weights with a scale a row. */
enum sample_kind { SAMPLE_GAUSSIAN, SAMPLE_STUDENT, SAMPLE_UNIFORM, SAMPLE_CONSTANT, SAMPLE_KIND_COUNT };

struct sample_random {
	uint64_t state; /* any seed */
};

/* SplitMix64 (G. Steele and others, OOPSLA 2014). */
static inline uint64_t sample_next(struct sample_random *random)
{
	uint64_t z = random->state += UINT64_C(0x9E3779B97F4A7C15);

	z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
	return z ^ z >> 31;
}

/* A number below `limit`, which is far below 2^64. */
static inline uint64_t sample_below(struct sample_random *random, uint64_t limit)
{
	return sample_next(random) % limit;
}

/* Above 0, at most 1. */
static inline double sample_unit(struct sample_random *random)
{
	return (double)((sample_next(random) >> 11) + 1) * 0x1p-53;
}

static inline double sample_normal(struct sample_random *random)
{
	double radius = sqrt(-2 * log(sample_unit(random)));

	return radius * cos(6.283185307179586 * sample_unit(random));
}

/* Student's t with 5 degrees of freedom: heavy tails. */
static inline double sample_student(struct sample_random *random)
{
	double normal = sample_normal(random), squares = 0;

	for (int i = 0; i < 5; i++) {
		double each = sample_normal(random);

		squares += each * each;
	}
	return normal / sqrt(squares / 5);
}

static inline uint8_t sample_clip(double value)
{
	return (uint8_t)(int8_t)lrint(fmax(-127, fmin(127, value)));
}

/* Bytes of every kind but SAMPLE_CONSTANT differ from one another; those are all 0x5A. */
static inline void sample_fill(struct sample_random *random, enum sample_kind kind, double sigma, uint8_t *dst, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		switch (kind) {
		case SAMPLE_GAUSSIAN:
			dst[i] = sample_clip(sigma * sample_normal(random));
			break;
		case SAMPLE_STUDENT:
			dst[i] = sample_clip(sigma * sample_student(random));
			break;
		case SAMPLE_UNIFORM:
			dst[i] = (uint8_t)(sample_next(random) >> 56);
			break;
		case SAMPLE_CONSTANT:
		case SAMPLE_KIND_COUNT:
			dst[i] = 0x5A;
			break;
		}
	}
}

#endif
