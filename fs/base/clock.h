/* SPDX-License-Identifier: MIT */
/* A clock that does not go back. */
#ifndef WCX_CLOCK_H
#define WCX_CLOCK_H

#include <stdint.h>
#include <time.h>

/* wcx_now_ms - milliseconds since some moment in the past; never 0 */
static inline uint64_t wcx_now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000 + 1;
}

#endif
