/* SPDX-License-Identifier: MIT */
/*
 * Tells by the host's clock when a device reached an event.
 *
 * A thread that waits for an event may find out milliseconds later, if cores are busy.  So the event's time is that of a
 * base event, plus what the device says has passed between both.  The host's time of the base is known from such waits: none
 * ends before its event, so the earliest time that any of them allows is right but for the shortest delay.
 */
#ifndef WCX_GPU_CLOCK_H
#define WCX_GPU_CLOCK_H

#include <stdint.h>
#include <time.h>

enum {
	WCX_GPU_CLOCK_DRIFT = 10000, /* two clocks differ by less than this part of the time: 100 ppm */
};

/* base_ns: when the base was reached; seen_ns: when that was last looked at.  Both are the time after a wait for it at
 * first. */
struct wcx_gpu_clock {
	int64_t base_ns, seen_ns;
};

/* wcx_gpu_clock_now - the host's clock, in nanoseconds: one that nobody adjusts, as nobody adjusts the device's */
static inline int64_t wcx_gpu_clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* wcx_gpu_clock_reached - when the device reached an event, so long after the base, for which a thread has waited until now
 */
static inline int64_t wcx_gpu_clock_reached(struct wcx_gpu_clock *clock, int64_t since_base_ns, int64_t now_ns)
{
	const int64_t latest_ns = now_ns - since_base_ns;

	clock->base_ns += (now_ns - clock->seen_ns) / WCX_GPU_CLOCK_DRIFT;
	if (clock->base_ns > latest_ns)
		clock->base_ns = latest_ns;
	clock->seen_ns = now_ns;
	return clock->base_ns + since_base_ns;
}

#endif
