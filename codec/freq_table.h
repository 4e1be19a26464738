/* SPDX-License-Identifier: MIT */
/*
 * Frequency tables: symbol frequencies for rANS and their encoding in a container (docs/format.md, section 2.6).
 *
 * No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_FREQ_TABLE_H
#define WCX_FREQ_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/result.h"

enum {
	WCX_SYMBOL_COUNT = 256,
	WCX_PROB_BITS = 12, /* with more, decoding tables exceed the L1 cache and speed falls by a third */
	WCX_PROB_SCALE = 1 << WCX_PROB_BITS,
	WCX_COARSE_BITS = 2, /* frequencies of a coarse table are multiples of 2^2 */
	WCX_COARSE_SLOTS = WCX_PROB_SCALE >> WCX_COARSE_BITS,
	WCX_ESCAPE = WCX_SYMBOL_COUNT - 1, /* in a field with escapes: the symbol of a value that has none */
	WCX_FREQ_TABLE_MAX_BYTES = 2 * WCX_SYMBOL_COUNT,
	WCX_PAIR_SYMBOLS = 16, /* values of each half of a pair */
};

/* freq[s] is 0 to WCX_PROB_SCALE - 1; the sum is WCX_PROB_SCALE. */
struct wcx_freq_table {
	uint16_t freq[WCX_SYMBOL_COUNT];
};

/*
 * wcx_freq_table_build - scale symbol counts to the table with the least expected cost
 *
 * Every symbol with a count gets a frequency.  If only one has a count, another gets frequency 1, because a table needs two
 * symbols.  The sum of the counts must be at least 1 and below 2^56.
 */
void wcx_freq_table_build(const uint64_t count[WCX_SYMBOL_COUNT], struct wcx_freq_table *ret);

/*
 * wcx_freq_table_build_escapes - the same for a field with escapes: all frequencies are multiples of 2^WCX_COARSE_BITS
 *
 * Symbols that are too rare to be worth one get none, so they escape.  WCX_ESCAPE always has one.
 */
void wcx_freq_table_build_escapes(const uint64_t count[WCX_SYMBOL_COUNT], struct wcx_freq_table *ret);

/*
 * wcx_freq_table_pair - the table for pairs of independent symbols (docs/format.md, section 2.7)
 *
 * single has symbols 0 to 15.  Symbol a + 16 b of *ret is the pair of a and b; very rare pairs get no frequency.
 */
void wcx_freq_table_pair(const struct wcx_freq_table *single, struct wcx_freq_table *ret);

/* wcx_freq_table_cost - bits for coding symbols with these counts; infinity if one has no frequency */
double wcx_freq_table_cost(const struct wcx_freq_table *table, const uint64_t count[WCX_SYMBOL_COUNT]);

/* wcx_counts_entropy - order-0 entropy of symbols with these counts, in bits for all of them */
double wcx_counts_entropy(const uint64_t count[WCX_SYMBOL_COUNT]);

/* What fields may ask of a table. */
struct wcx_freq_table_facts {
	uint8_t last_symbol; /* the highest one with a frequency */
	bool is_coarse;      /* all frequencies are multiples of 2^WCX_COARSE_BITS */
};

/* wcx_freq_table_facts - find them */
struct wcx_freq_table_facts wcx_freq_table_facts(const struct wcx_freq_table *table);

/* wcx_freq_table_write - write the table to dst; returns the bytes written */
size_t wcx_freq_table_write(const struct wcx_freq_table *table, uint8_t dst[WCX_FREQ_TABLE_MAX_BYTES]);

/*
 * wcx_freq_table_parse - read one table from untrusted bytes
 *
 * Reads at most src_bytes from src; *used_ret receives the size of the table.  ret may be NULL to find only the table's end.
 * Returns WCX_OK or WCX_BAD_DATA; after an error *ret and *used_ret are undefined.
 */
enum wcx_result wcx_freq_table_parse(const uint8_t *src, size_t src_bytes, struct wcx_freq_table *ret, size_t *used_ret);

#endif
