/* SPDX-License-Identifier: MIT */
/*
 * The loops of element.c for elements of ELEM_BITS bits, which the includer defines.  They are written so that a compiler
 * turns them into SIMD: no branch, no dependency from one element to the next.  Included several times on purpose.
 */
#define JOIN_TOKENS(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_TOKENS(a, b, c)
#define NAME(name) JOIN(name, _, ELEM_BITS)
#define ELEM NAME(elem)

/* At any address, and over memory of any type. */
typedef JOIN(uint, ELEM_BITS, _t) __attribute__((aligned(1), may_alias)) ELEM;

/* What is inverted is so by a mask of the lowest bit, where the sign is now. */
static void NAME(rotate)(const void *src, size_t count, uint64_t fold_bits, void *dst)
{
	const ELEM *from = src, fold = (ELEM)fold_bits;
	ELEM *to = dst;

	for (size_t i = 0; i < count; i++) {
		ELEM e = (ELEM)(from[i] << 1 | from[i] >> (ELEM_BITS - 1));

		to[i] = (ELEM)(e ^ (fold & (ELEM)(0 - (e & 1))));
	}
}

static void NAME(make_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const void *src, void *dst)
{
	const ELEM *u = src;
	ELEM *e = dst;

	for (uint32_t y = 0; y < rows; y++, u += cols, e += cols) {
		for (uint32_t x = 0; x < cols; x++) {
			ELEM left = x > 0 ? u[x - 1] : 0, before = x > 1 ? u[x - 2] : 0,
			     up = y > 0 ? u[(int64_t)x - cols] : 0;

			if (predictor == WCX_PREDICT_UP)
				e[x] = (ELEM)(u[x] - up);
			else if (predictor == WCX_PREDICT_LEFT)
				e[x] = (ELEM)(u[x] - left);
			else
				e[x] = (ELEM)(u[x] - left - left + before);
		}
	}
}

static void NAME(undo_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, void *elements)
{
	ELEM *u = elements;

	for (uint32_t y = 0; y < rows; y++, u += cols) {
		ELEM sum = 0, sum_of_sums = 0;

		if (predictor == WCX_PREDICT_UP) {
			for (uint32_t x = 0; y > 0 && x < cols; x++)
				u[x] = (ELEM)(u[x] + u[(int64_t)x - cols]);
			continue;
		}
		for (uint32_t x = 0; x < cols; x++) {
			sum = (ELEM)(sum + u[x]);
			sum_of_sums = (ELEM)(sum_of_sums + sum);
			u[x] = predictor == WCX_PREDICT_LEFT ? sum : sum_of_sums;
		}
	}
}

static void NAME(get8)(const void *elements, size_t count, uint32_t shift, uint32_t width, uint8_t *values)
{
	const ELEM *e = elements;
	const uint8_t mask = (uint8_t)((1u << width) - 1);
	size_t i = 0;

	for (; ELEM_BITS == 8 && i + EIGHT <= count; i += EIGHT)
		*(uint64_any *)(values + i) = *(const uint64_any *)(e + i) >> shift & mask * EIGHT_ONES;
	for (; i < count; i++)
		values[i] = (uint8_t)(e[i] >> shift) & mask;
}

static void NAME(get16)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values)
{
	const ELEM *e = elements;
	uint16_any *to = values;
	const uint16_t mask = (uint16_t)((1u << width) - 1);

	for (size_t i = 0; i < count; i++)
		to[i] = (uint16_t)(e[i] >> shift) & mask;
}

static void NAME(get32)(const void *elements, size_t count, uint32_t shift, uint32_t width, void *values)
{
	const ELEM *e = elements;
	uint32_any *to = values;
	const uint32_t mask = (uint32_t)((UINT64_C(1) << width) - 1);

	for (size_t i = 0; i < count; i++)
		to[i] = (uint32_t)(e[i] >> shift) & mask;
}

static void NAME(replace)(void *elements, size_t index, uint64_t mask, uint64_t bits, int signs)
{
	ELEM *e = (ELEM *)elements + index;

	if (signs && *e >> (ELEM_BITS - 1))
		bits ^= mask;
	*e = (ELEM)((*e & ~(ELEM)mask) | (ELEM)bits);
}

static void NAME(fill)(void *elements, size_t count, uint64_t element)
{
	ELEM *e = elements;

	for (size_t i = 0; i < count; i++)
		e[i] = (ELEM)element;
}

static const struct wcx_element_ops NAME(ops) = {
	.rotate = NAME(rotate),
	.make_residuals = NAME(make_residuals),
	.undo_residuals = NAME(undo_residuals),
	.get8 = NAME(get8),
	.get16 = NAME(get16),
	.get32 = NAME(get32),
	.replace = NAME(replace),
	.fill = NAME(fill),
};

#undef ELEM
#undef NAME
#undef JOIN
#undef JOIN_TOKENS
#undef ELEM_BITS
