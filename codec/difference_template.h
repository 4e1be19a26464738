/* SPDX-License-Identifier: MIT */
/*
 * Template of the loops over differences of elements of ELEM_BITS bits.  difference_loops.h defines ELEM_BITS and includes
 * this file, once for each size.  There are no branches in the loops and no dependencies between elements: compilers
 * vectorise them.
 */
#define JOIN_TOKENS(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_TOKENS(a, b, c)
#define NAME(name) JOIN(name, _, ELEM_BITS)
#define ELEM NAME(diff)
#define SIGNED NAME(signed)
#define CONTEXT NAME(context)

/* Unaligned, and may alias memory of any type. */
typedef JOIN(uint, ELEM_BITS, _t) __attribute__((aligned(1), may_alias)) ELEM;
typedef JOIN(int, ELEM_BITS, _t) SIGNED;
/* A context beside others in a word of 32 bits, of which elements of eight bytes have one too. */
#if ELEM_BITS == 64
typedef int32_t __attribute__((aligned(1), may_alias)) CONTEXT;
#else
typedef SIGNED __attribute__((aligned(1), may_alias)) CONTEXT;
#endif

/* All ones if the highest bit is set, else zero: the shift is arithmetic. */
LOOP ELEM NAME(sign)(ELEM x)
{
	return (ELEM)((SIGNED)x >> (ELEM_BITS - 1));
}

/* The place of an element in the order of numbers, and the reverse. */
LOOP ELEM NAME(order)(ELEM x, bool is_float)
{
	return is_float ? (ELEM)(x ^ (NAME(sign)(x) >> 1)) : x;
}

LOOP ELEM NAME(residual)(ELEM x, ELEM base, bool is_float)
{
	const ELEM d = (ELEM)(NAME(order)(x, is_float) - NAME(order)(base, is_float));

	return (ELEM)((ELEM)(d << 1) ^ NAME(sign)(d));
}

/* The highest eight bits of the magnitude below the sign, of a byte all seven. */
LOOP uint32_t NAME(key)(ELEM base, bool is_float)
{
	const ELEM magnitude = is_float ? (ELEM)(base & (ELEM)-1 >> 1) : (ELEM)(base ^ NAME(sign)(base));

	return (uint32_t)(magnitude >> (ELEM_BITS == 8 ? 0 : ELEM_BITS - 9));
}

LOOP void NAME(make_all)(const void *src, const void *base, size_t count, bool is_float, void *dst)
{
	const ELEM *x = src, *b = base;
	ELEM *e = dst;

	for (size_t i = 0; i < count; i++)
		e[i] = NAME(residual)(x[i], b[i], is_float);
}

LOOP void NAME(undo_all)(const void *base, size_t count, bool is_float, void *elements)
{
	const ELEM *b = base;
	ELEM *e = elements;

	for (size_t i = 0; i < count; i++) {
		const ELEM d = (ELEM)(e[i] >> 1 ^ (ELEM)(0 - (e[i] & 1)));

		e[i] = NAME(order)((ELEM)(NAME(order)(b[i], is_float) + d), is_float);
	}
}

LOOP void NAME(scatter_all)(const void *residuals, const uint16_t *positions, size_t count, const void *base, bool is_float,
			    void *elements)
{
	const ELEM *b = base, *e = residuals;
	ELEM *to = elements;

	for (size_t i = 0; i < count; i++) {
		const ELEM d = (ELEM)(e[i] >> 1 ^ (ELEM)(0 - (e[i] & 1)));

		to[positions[i]] = NAME(order)((ELEM)(NAME(order)(b[positions[i]], is_float) + d), is_float);
	}
}

/* Signed, because vectors are compared so with a single instruction; keys of a byte are below 128. */
LOOP CONTEXT NAME(context_of)(ELEM base, const CONTEXT below[WCX_CONTEXTS_MAX - 1], bool is_float)
{
	const CONTEXT key = (CONTEXT)NAME(key)(base, is_float);
	CONTEXT context = 0;

	for (uint32_t t = 0; t < WCX_CONTEXTS_MAX - 1; t++)
		context = (CONTEXT)(context + (key > below[t]));
	return context;
}

/* The contexts in bytes, or in words beside each other; only one of the two is not NULL. */
LOOP void NAME(classify_all)(const struct wcx_recipe *recipe, const void *base, size_t count, bool is_float, uint8_t *bytes,
			     void *words)
{
	const ELEM *b = base;
	CONTEXT *to = words, below[WCX_CONTEXTS_MAX - 1]; /* the highest key below each threshold */

	/* Thresholds that a recipe does not have are above every key. */
	for (uint32_t t = 0; t < WCX_CONTEXTS_MAX - 1; t++) {
		const uint32_t threshold =
			t + 1 < recipe->context_count ? recipe->thresholds[t] : (uint32_t)WCX_CONTEXT_KEYS;

		below[t] = (CONTEXT)(ELEM_BITS == 8 ? WCX_MIN(threshold - 1, INT8_MAX) : threshold - 1);
	}
	for (size_t i = 0; bytes && i < count; i++)
		bytes[i] = (uint8_t)NAME(context_of)(b[i], below, is_float);
	for (size_t i = 0; words && i < count; i++)
		to[i] = NAME(context_of)(b[i], below, is_float);
}

/* Copies of the loops for each order. */
static inline void NAME(make_differences)(enum wcx_difference difference, const void *src, const void *base, size_t count,
					  void *dst)
{
	if (difference == WCX_DIFFERENCE_FLOAT)
		NAME(make_all)(src, base, count, true, dst);
	else
		NAME(make_all)(src, base, count, false, dst);
}

static inline void NAME(undo_differences)(enum wcx_difference difference, const void *base, size_t count, void *elements)
{
	if (difference == WCX_DIFFERENCE_FLOAT)
		NAME(undo_all)(base, count, true, elements);
	else
		NAME(undo_all)(base, count, false, elements);
}

static inline void NAME(context_bytes)(const struct wcx_recipe *recipe, const void *base, size_t count, uint8_t *contexts)
{
	if (recipe->difference == WCX_DIFFERENCE_FLOAT)
		NAME(classify_all)(recipe, base, count, true, contexts, NULL);
	else
		NAME(classify_all)(recipe, base, count, false, contexts, NULL);
}

static inline void NAME(context_words)(const struct wcx_recipe *recipe, const void *base, size_t count, void *contexts)
{
	if (recipe->difference == WCX_DIFFERENCE_FLOAT)
		NAME(classify_all)(recipe, base, count, true, NULL, contexts);
	else
		NAME(classify_all)(recipe, base, count, false, NULL, contexts);
}

/* Adds an element to the statistics. */
static inline void NAME(make_keys)(enum wcx_difference difference, const void *base, size_t count, uint8_t *keys)
{
	const ELEM *b = base;

	if (difference == WCX_DIFFERENCE_FLOAT)
		for (size_t i = 0; i < count; i++)
			keys[i] = (uint8_t)NAME(key)(b[i], true);
	else
		for (size_t i = 0; i < count; i++)
			keys[i] = (uint8_t)NAME(key)(b[i], false);
}

#undef CONTEXT
#undef SIGNED
#undef ELEM
#undef NAME
#undef JOIN
#undef JOIN_TOKENS
#undef ELEM_BITS
