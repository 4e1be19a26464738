/* SPDX-License-Identifier: MIT */
/*
 * Template of the loops over elements of ELEM_BITS bits.  element_loops.h defines ELEM_BITS and includes this file, once for
 * each size.  There are no branches in the loops and, except in undone predictions, no dependencies between
 * elements: compilers vectorise them.
 */
#define JOIN_TOKENS(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_TOKENS(a, b, c)
#define NAME(name) JOIN(name, _, ELEM_BITS)
#define ELEM NAME(elem)

/* Unaligned, and may alias memory of any type. */
typedef JOIN(uint, ELEM_BITS, _t) __attribute__((aligned(1), may_alias)) ELEM;

/* The lowest bit, which now holds the sign, is widened into a mask of the bits to invert. */
static void NAME(rotate)(const void *src, size_t count, uint64_t fold_bits, void *dst)
{
	const ELEM *from = src, fold = (ELEM)fold_bits;
	ELEM *to = dst;

	for (size_t i = 0; i < count; i++) {
		ELEM e = (ELEM)(from[i] << 1 | from[i] >> (ELEM_BITS - 1));

		to[i] = (ELEM)(e ^ (fold & (ELEM)(0 - (e & 1))));
	}
}

/* One row u of transformed elements; up is the row above, or NULL. */
static bool NAME(make_row)(enum wcx_predictor predictor, size_t cols, const ELEM *u, const ELEM *up, ELEM *e)
{
	switch (predictor) {
	case WCX_PREDICT_NONE:
		memcpy(e, u, cols * sizeof *e);
		return true;
	case WCX_PREDICT_LEFT:
		e[0] = u[0];
		for (size_t x = 1; x < cols; x++)
			e[x] = (ELEM)(u[x] - u[x - 1]);
		return true;
	case WCX_PREDICT_UP:
		for (size_t x = 0; x < cols; x++)
			e[x] = (ELEM)(u[x] - (up ? up[x] : 0));
		return true;
	case WCX_PREDICT_LEFT2:
		for (size_t x = 0; x < WCX_MIN(cols, 2); x++)
			e[x] = (ELEM)(u[x] - (x ? 2 * u[0] : 0));
		for (size_t x = 2; x < cols; x++)
			e[x] = (ELEM)(u[x] - u[x - 1] - u[x - 1] + u[x - 2]);
		return true;
	case WCX_PREDICTOR_COUNT:
		break;
	}
	return false;
}

/*
 * The reverse in place.  LEFT is undone by a running sum, LEFT2 by a running sum of running sums; in whole registers, sums
 * of bytes do not wait for a merge with a register's upper bits.
 */
static bool NAME(undo_row)(enum wcx_predictor predictor, size_t cols, const ELEM *up, ELEM *u)
{
	uint64_t sum = 0, sum_of_sums = 0;

	switch (predictor) {
	case WCX_PREDICT_NONE:
		return true;
	case WCX_PREDICT_LEFT:
		for (size_t x = 0; x < cols; x++)
			u[x] = (ELEM)(sum += u[x]);
		return true;
	case WCX_PREDICT_UP:
		for (size_t x = 0; up && x < cols; x++)
			u[x] = (ELEM)(u[x] + up[x]);
		return true;
	case WCX_PREDICT_LEFT2:
		for (size_t x = 0; x < cols; x++) {
			sum += u[x];
			u[x] = (ELEM)(sum_of_sums += sum);
		}
		return true;
	case WCX_PREDICTOR_COUNT:
		break;
	}
	return false;
}

static bool NAME(make_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, const void *src, void *dst)
{
	const ELEM *u = src;
	ELEM *e = dst;
	bool known = true;

	for (uint32_t y = 0; y < rows && known; y++, u += cols, e += cols)
		known = NAME(make_row)(predictor, cols, u, y > 0 ? u - cols : NULL, e);
	return known;
}

static bool NAME(undo_residuals)(enum wcx_predictor predictor, uint32_t rows, uint32_t cols, void *elements)
{
	ELEM *u = elements;
	bool known = true;

	for (uint32_t y = 0; y < rows && known; y++, u += cols)
		known = NAME(undo_row)(predictor, cols, y > 0 ? u - cols : NULL, u);
	return known;
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

static void NAME(replace)(void *elements, size_t index, uint64_t mask, uint64_t bits, bool folded)
{
	ELEM *e = (ELEM *)elements + index;

	if (folded && *e >> (ELEM_BITS - 1))
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
	.make_differences = NAME(make_differences),
	.context_bytes = NAME(context_bytes),
	.get8 = NAME(get8),
	.get16 = NAME(get16),
	.get32 = NAME(get32),
	.map_symbols = map_symbols,
	.replace = NAME(replace),
	.fill = NAME(fill),
};

#undef ELEM
#undef NAME
#undef JOIN
#undef JOIN_TOKENS
#undef ELEM_BITS
