/* SPDX-License-Identifier: MIT */
/* Unaligned little-endian integers, as used throughout the format. */
#ifndef WCX_LE_H
#define WCX_LE_H

#include <stdint.h>

static inline uint32_t wcx_le16_read(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t wcx_le32_read(const uint8_t *p)
{
	return wcx_le16_read(p) | wcx_le16_read(p + 2) << 16;
}

static inline uint64_t wcx_le64_read(const uint8_t *p)
{
	return wcx_le32_read(p) | (uint64_t)wcx_le32_read(p + 4) << 32;
}

static inline void wcx_le16_write(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void wcx_le32_write(uint8_t *p, uint32_t v)
{
	wcx_le16_write(p, v);
	wcx_le16_write(p + 2, v >> 16);
}

static inline void wcx_le64_write(uint8_t *p, uint64_t v)
{
	wcx_le32_write(p, (uint32_t)v);
	wcx_le32_write(p + 4, (uint32_t)(v >> 32));
}

#endif
