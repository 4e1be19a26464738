/* SPDX-License-Identifier: MIT */
/* Rates of several threads that check and decode: how a codec that has all cores to itself scales with their number. */
#ifndef WCX_DECODE_CREW_H
#define WCX_DECODE_CREW_H

#include "codec/decode_variant.h"
#include "tests/bench/weight_set.h"

enum { CREWS_MAX = 16 };

/* decode_crew_threads - threads of crew i: 2^i, the last crew one per core; 0 past the last crew */
unsigned decode_crew_threads(unsigned i);

/*
 * decode_crew_rate - GB/s of decoded bytes of all threads together
 *
 * Every tile is checked, by XXH3 of its packed bytes as in a mount, and decoded.  The set is decoded thread_count times, so
 * that each thread does the same amount of work whatever their number.  Without a variant the threads do arithmetic of a
 * fixed duration per tile: how that scales is a property of the machine.  Unless NULL, *cpu_s_per_gb_ret receives the CPU
 * time of the process.  Errors end the program.
 */
double decode_crew_rate(const struct weight_set *set, const struct wcx_decode_variant *variant, unsigned thread_count,
			double *cpu_s_per_gb_ret);

#endif
