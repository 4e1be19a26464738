/* SPDX-License-Identifier: MIT */
/*
 * Copies to memory that is not read soon, past the caches.
 *
 * An ordinary copy first reads the lines that it overwrites, and leaves them in the caches in place of what is needed
 * sooner.
 */
#ifndef WCX_STREAM_COPY_H
#define WCX_STREAM_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

/* wcx_stream_copy - copy bytes, of any number and alignment, between places that do not overlap */
static inline void wcx_stream_copy(uint8_t *dst, const uint8_t *src, size_t bytes)
{
	size_t done = 0;

#ifdef __SSE2__
	enum { UNIT = sizeof(__m128i), UNITS = 4 }; /* a line of the cache */

	if ((uintptr_t)dst % UNIT == 0 && (uintptr_t)src % UNIT == 0) {
		for (; bytes - done >= UNIT * UNITS; done += UNIT * UNITS) {
			const __m128i *from = (const __m128i *)(const void *)(src + done);
			__m128i *to = (__m128i *)(void *)(dst + done);

			for (int i = 0; i < UNITS; i++)
				_mm_stream_si128(to + i, _mm_load_si128(from + i));
		}
		_mm_sfence(); /* before another thread is told */
	}
#endif
	memcpy(dst + done, src + done, bytes - done);
}

#endif
