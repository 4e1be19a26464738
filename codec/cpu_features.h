/* SPDX-License-Identifier: MIT */
/* Which sets of instructions, as the variants of the loops need them, this CPU and its operating system have. */
#ifndef WCX_CPU_FEATURES_H
#define WCX_CPU_FEATURES_H

#include <stdbool.h>

#ifdef __x86_64__
static inline bool wcx_cpu_has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
	       __builtin_cpu_supports("popcnt");
}

static inline bool wcx_cpu_has_avx512(void)
{
	return wcx_cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

#endif
