/* SPDX-License-Identifier: MIT */
/* The kernels as what launches them sees them: each source of kernels has a function that tells their shapes. */
#ifndef WCX_BLOCK_SHAPE_H
#define WCX_BLOCK_SHAPE_H

#include <stdint.h>

enum { WCX_LEAST_WARPS = 4 }; /* of a block; the rings of so many can stage the tables */

/* A kernel, and the shared memory of its blocks: for tables and contexts, and for each warp. */
struct wcx_block_shape {
	const void *function; /* NULL for an unknown kernel */
	uint32_t tables_bytes, warp_bytes;
};

/* wcx_alone_shape - the shape for a launch of tiles that stand alone, with at most so many tables */
struct wcx_block_shape wcx_alone_shape(uint32_t kernel, uint32_t table_count);

/*
 * wcx_difference_shape, wcx_byte_difference_shape - the shape for a launch of differences with at most so many tables
 *
 * The second is for WCX_KERNEL_DIFFERENCE_BYTES and WCX_KERNEL_DIFFERENCE_BYTE_PAIRS, which have one table.
 */
struct wcx_block_shape wcx_difference_shape(uint32_t kernel, uint32_t table_count);
struct wcx_block_shape wcx_byte_difference_shape(uint32_t kernel, uint32_t table_count);

/* wcx_escape_shape - the same for differences with escapes from bases in memory */
struct wcx_block_shape wcx_escape_shape(uint32_t table_count);

/* wcx_fused_shape, wcx_fused_byte_shape - the same for a launch of bases with their differences; the second of bytes */
struct wcx_block_shape wcx_fused_shape(uint32_t kernel, uint32_t base_table_count, uint32_t table_count);
struct wcx_block_shape wcx_fused_byte_shape(uint32_t kernel, uint32_t base_table_count, uint32_t table_count);

#endif
