/* SPDX-License-Identifier: MIT */
/* A clock that does not go back, in two units. */
#ifndef WCX_CLOCK_H
#define WCX_CLOCK_H

#include <stdint.h>
#include <time.h>

/* wcx_now_ns - nanoseconds since some moment in the past */
static inline uint64_t wcx_now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

/* wcx_now_ms - milliseconds since some moment in the past; never 0 */
static inline uint64_t wcx_now_ms(void)
{
	return wcx_now_ns() / 1000000 + 1;
}

#endif
