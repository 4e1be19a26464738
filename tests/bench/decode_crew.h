/* SPDX-License-Identifier: MIT */
/* Several threads that decode tiles side by side: how a codec that has all cores to itself goes with their number. */
#ifndef WCX_DECODE_CREW_H
#define WCX_DECODE_CREW_H

#include "codec/decode_variant.h"
#include "tests/bench/weight_set.h"

enum { CREWS_MAX = 16 };

/* decode_crew_threads - crew number i has 2^i threads, the last one as many as there are cores; 0 behind the last */
unsigned decode_crew_threads(unsigned i);

/*
 * decode_crew_rate - GB/s of decoded bytes that so many threads make together
 *
 * They decode the set as many times as they are, so that each has the same to do whatever their number.  Without a cpu they
 * do nothing but arithmetic, as long for a tile whatever its size: how that goes with their number is the machine's doing.
 * What goes wrong ends the program.
 */
double decode_crew_rate(const struct weight_set *set, const struct wcx_decode_variant *cpu, unsigned thread_count);

#endif
