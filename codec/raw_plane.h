/* SPDX-License-Identifier: MIT */
/*
 * Raw planes: values of 1, 2, 4, 8, 16 or 32 bits, packed side by side (docs/format.md, section 3.1).  No function
 * allocates; all are safe from any number of threads.
 */
#ifndef WCX_RAW_PLANE_H
#define WCX_RAW_PLANE_H

#include <stddef.h>
#include <stdint.h>

/* wcx_raw_plane_bytes - what count values of width bits take */
static inline uint32_t wcx_raw_plane_bytes(uint32_t count, uint32_t width)
{
	return (uint32_t)(((uint64_t)count * width + 7) / 8);
}

/* wcx_raw_plane_width - the widest plane of a field of so many bits, at least 1 */
static inline uint32_t wcx_raw_plane_width(uint32_t field_width)
{
	uint32_t width = 32;

	while (width > field_width)
		width /= 2;
	return width;
}

/*
 * Values of 1, 2, 4 or 8 bits, a byte each, to a plane and back.  A value must have no bits beyond width.  What the last
 * byte of a plane has beyond the last value is written as zero.
 */
void wcx_raw_plane_pack(const uint8_t *values, size_t count, uint32_t width, uint8_t *dst);
void wcx_raw_plane_unpack(const uint8_t *src, size_t count, uint32_t width, uint8_t *values);

#endif
