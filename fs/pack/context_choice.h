/* SPDX-License-Identifier: MIT */
/*
 * Chooses contexts: classes of the base's elements, each of which gets frequency tables of its own for the residuals.
 *
 * Elements of the base have keys, 0 to 255, that ascend with their magnitude (docs/format.md, section 3).  A context is a
 * contiguous range of keys.  Keys are joined to bins first, so that the search is short.  Pure functions, for any thread.
 */
#ifndef WCX_CONTEXT_CHOICE_H
#define WCX_CONTEXT_CHOICE_H

#include <stdint.h>

#include "codec/difference.h"

enum { WCX_BINS_MAX = 16 }; /* of float weights, ten exponents are all but a thousandth */

/* Contiguous ranges of keys that together are all keys. */
struct wcx_key_bins {
	uint32_t count;              /* 1 to WCX_BINS_MAX */
	uint8_t first[WCX_BINS_MAX]; /* key of each bin, ascending from 0 */
	uint8_t of_key[WCX_CONTEXT_KEYS];
};

/* How often each symbol of a field occurs in each bin. */
struct wcx_bin_counts {
	uint32_t counts[WCX_BINS_MAX][WCX_SYMBOL_COUNT];
};

struct wcx_context_choice {
	double bits;                     /* of all symbols, with tables */
	uint32_t count;                  /* of contexts, 1 to WCX_CONTEXTS_MAX */
	uint8_t first[WCX_CONTEXTS_MAX]; /* bin of each context, ascending from 0 */
};

/* wcx_key_bins_make - join rare keys to their neighbours until there are at most max_count bins, 1 to WCX_BINS_MAX */
void wcx_key_bins_make(const uint32_t key_counts[WCX_CONTEXT_KEYS], uint32_t max_count, struct wcx_key_bins *ret);

/* wcx_symbols_bits - the order-0 entropy of symbols with these counts; *used_ret is how many occur.  Good to 0.1 % */
double wcx_symbols_bits(const uint32_t counts[WCX_SYMBOL_COUNT], uint32_t *used_ret);

/*
 * wcx_contexts_choose - the contexts for which symbols and tables of all fields take the fewest bits
 *
 * Every field has a table for each context, and each symbol that occurs in a context takes symbol_bits in the table there.
 * max_count is 1 to WCX_CONTEXTS_MAX.  Of equally good choices, takes the one with fewer contexts.  Where it costs at most
 * max_loss of the bits, as many contexts are taken whose thresholds are consecutive keys.
 */
void wcx_contexts_choose(const struct wcx_bin_counts *fields, uint32_t field_count, const struct wcx_key_bins *bins,
			 double symbol_bits, uint32_t max_count, double max_loss, struct wcx_context_choice *ret);

#endif
