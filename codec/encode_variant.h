/* SPDX-License-Identifier: MIT */
/*
 * Variants of the encoder's inner loops for different CPU features.  All variants write the same bytes; the portable one is
 * the reference.
 */
#ifndef WCX_ENCODE_VARIANT_H
#define WCX_ENCODE_VARIANT_H

#include <stddef.h>
#include <stdint.h>

#include "codec/element.h"
#include "codec/rans.h"

/* Full lines of a stream that share a table, and where the encoder is: see encode_lines. */
struct wcx_rans_lines {
	const struct wcx_rans_encode_table *table;
	const uint8_t *symbols; /* of the first line */
	const uint16_t *keyed;  /* the same with their contexts above eight bits; NULL without contexts */
	uint32_t lines, steps;
	uint32_t *state; /* WCX_LANES */
	uint16_t *words;
	size_t left; /* words[left] is the word emitted last; words of earlier symbols go below it */
};

/*
 * wcx_rans_encode_symbol - encode one symbol of a lane, given its word of the table; returns the new left
 *
 * A state of at least frequency * 2^20 emits its low half first; that is computed without a branch.  With q = x / f, the new
 * state is (q << 12) + x % f + start.  The reciprocal is less than 1 below 2^32 / f and x is below 2^32, so that the product
 * gives q or q - 1; the remainder tells which.
 */
static inline size_t wcx_rans_encode_symbol(uint64_t entry, uint32_t *state, uint16_t *words, size_t left)
{
	const uint32_t freq = entry & 0xFFFF, start = (uint32_t)entry >> 16;
	uint32_t x = *state, emits = x >> 20 >= freq, quotient, rest;

	words[left - 1] = (uint16_t)x;
	left -= emits;
	x >>= emits << 4;
	quotient = (uint32_t)(x * (entry >> 32) >> 32);
	rest = x - quotient * freq;
	*state = (quotient << WCX_PROB_BITS) + rest + start + (rest >= freq ? WCX_PROB_SCALE - freq : 0);
	return left;
}

/* A raw plane: whole lines of elements, and the units that their bits go to. */
struct wcx_plane_lines {
	const uint8_t *src;
	uint32_t lines, elem_bytes, width;
	uint64_t mask, folded; /* of a word: the bits to take; those to invert in each byte whose highest bit is set */
	uint32_t *units;       /* zeroed */
};

/* Keyed symbols have their context above eight bits.  A value that no symbol stands for has a key of its own by context. */
enum {
	WCX_KEY_MISFIT = WCX_CONTEXTS_MAX * WCX_SYMBOL_COUNT,
	WCX_KEY_COUNT = WCX_KEY_MISFIT + WCX_CONTEXTS_MAX,
};

struct wcx_encode_variant {
	const char *name;
	const struct wcx_element_ops *elements[4]; /* for elements of 1, 2, 4 and 8 bytes */

	/*
	 * Encodes lines from the last to the first, and in each the steps, and in each the lanes.  A symbol emits at most
	 * one word, so left is at least the number of symbols still to be encoded.  Returns the new left.
	 */
	size_t (*encode_lines)(const struct wcx_rans_lines *lines);
	/* Counts symbols, all below symbol_count; ret has WCX_SYMBOL_COUNT counts, of which these are set. */
	void (*count)(const uint8_t *symbols, uint32_t count, uint32_t symbol_count, uint32_t *ret);
	/* The same for keyed symbols, of which ret has WCX_KEY_COUNT counts; those of contexts from context_count on stay.
	 */
	void (*count_keyed)(const uint16_t *keyed, uint32_t count, uint32_t context_count, uint32_t *ret);
	/* keyed[i] = symbols[i] | contexts[i] << 8 */
	void (*key_symbols)(const uint8_t *symbols, const uint8_t *contexts, size_t count, uint16_t *keyed);
	/* The same, but WCX_KEY_MISFIT | contexts[i] where values[i], of 16 bits, is not base + symbols[i] */
	void (*key_fitting)(const uint16_t *values, uint32_t base, const uint8_t *symbols, const uint8_t *contexts,
			    size_t count, uint16_t *keyed);
	/* pairs[i] = symbols[2 i] | symbols[2 i + 1] << 4, for pair_count pairs of symbols below 16 */
	void (*join_pairs)(const uint8_t *symbols, size_t pair_count, uint8_t *pairs);
	/* Adds the bits of whole lines to the units of a plane, from the first unit on. */
	void (*add_plane)(const struct wcx_plane_lines *plane);
};

extern const struct wcx_encode_variant wcx_encode_variant_portable;
#ifdef __x86_64__
extern const struct wcx_encode_variant wcx_encode_variant_avx2, wcx_encode_variant_avx512;
#endif

/*
 * wcx_encode_variant_at - enumerates the variants that this CPU can run, the portable one first; NULL past the last
 *
 * wcx_encode_variant_find: the variant of that name, or NULL if there is none or this CPU cannot run it.
 */
const struct wcx_encode_variant *wcx_encode_variant_at(unsigned i);
const struct wcx_encode_variant *wcx_encode_variant_find(const char *name);

/* wcx_encode_variant_choose - the variant for the most features that this CPU has */
const struct wcx_encode_variant *wcx_encode_variant_choose(void);

/* wcx_variant_elements - the loops of a variant for elements of elem_bytes: 1, 2, 4 or 8 */
static inline const struct wcx_element_ops *wcx_variant_elements(const struct wcx_encode_variant *variant,
								 uint32_t elem_bytes)
{
	return variant->elements[__builtin_ctz(elem_bytes)];
}

#endif
