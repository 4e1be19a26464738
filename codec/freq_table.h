/* SPDX-License-Identifier: MIT */
/*
 * Frequency tables: what rANS needs to know of the symbols of a field, and how it is written into a container
 * (docs/format.md, section 2.6).  No function allocates; all are safe from any number of threads.
 */
#ifndef WCX_FREQ_TABLE_H
#define WCX_FREQ_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "codec/result.h"

enum {
	WCX_SYMBOL_COUNT = 256,
	WCX_PROB_BITS = 12, /* beyond 12, decoding tables leave the L1 cache and speed falls by a third */
	WCX_PROB_SCALE = 1 << WCX_PROB_BITS,
	WCX_FREQ_TABLE_MAX_BYTES = 2 * WCX_SYMBOL_COUNT,
	WCX_PAIR_SYMBOLS = 16, /* that either of a pair may be */
};

/* freq[s] is 0 to WCX_PROB_SCALE - 1; the sum is WCX_PROB_SCALE. */
struct wcx_freq_table {
	uint16_t freq[WCX_SYMBOL_COUNT];
};

/*
 * wcx_freq_table_build - scale counts of symbols to a table with the least expected cost
 *
 * Every symbol with a count gets a frequency.  With fewer than two different symbols, another gets frequency 1, for a
 * table needs two.  The counts' sum must be at least 1 and below 2^56.
 */
void wcx_freq_table_build(const uint64_t count[WCX_SYMBOL_COUNT], struct wcx_freq_table *ret);

/*
 * wcx_freq_table_pair - the table for pairs of symbols, which are independent
 *
 * single has symbols 0 to 15.  Symbol a + 16 b of *ret is the pair of a and b (docs/format.md, section 2.7); pairs that are
 * very rare have no frequency.
 */
void wcx_freq_table_pair(const struct wcx_freq_table *single, struct wcx_freq_table *ret);

/* wcx_freq_table_cost - bits that rANS takes for symbols with these counts; infinity if one has no frequency */
double wcx_freq_table_cost(const struct wcx_freq_table *table, const uint64_t count[WCX_SYMBOL_COUNT]);

/* wcx_counts_entropy - bits that symbols with these counts take at least, coded one by one (order 0) */
double wcx_counts_entropy(const uint64_t count[WCX_SYMBOL_COUNT]);

/* wcx_freq_table_last - the highest symbol that has a frequency */
uint32_t wcx_freq_table_last(const struct wcx_freq_table *table);

/* wcx_freq_table_write - write the table to dst; returns the bytes written */
size_t wcx_freq_table_write(const struct wcx_freq_table *table, uint8_t dst[WCX_FREQ_TABLE_MAX_BYTES]);

/*
 * wcx_freq_table_parse - read one table from untrusted bytes
 *
 * Reads at most src_bytes from src.  *used_ret gets the bytes that the table took.  Returns WCX_OK or WCX_BAD_DATA;
 * after an error *ret and *used_ret are undefined.  ret may be NULL, to find only the end of the table.
 */
enum wcx_result wcx_freq_table_parse(const uint8_t *src, size_t src_bytes, struct wcx_freq_table *ret, size_t *used_ret);

#endif
