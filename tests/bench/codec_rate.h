/* SPDX-License-Identifier: MIT */
/* What codec_rate measures and prints: sets of weights, and every operation's rate on them in every round. */
#ifndef WCX_CODEC_RATE_H
#define WCX_CODEC_RATE_H

#include "codec/decode_variant.h"
#include "tests/bench/decode_crew.h"
#include "tests/bench/peer_codecs.h"
#include "tests/bench/weight_set.h"

enum {
	ROUNDS = 7,
	VARIANTS_MAX = 8,
	OPERATIONS_MAX = 4 + VARIANTS_MAX + PEER_COUNT,
};

/* What all operations work with.  It does not change once there. */
struct tools {
	struct wcx_encode_scratch *encode;
	struct wcx_plan_counts counts;
	const struct wcx_decode_variant *variants[VARIANTS_MAX], *best; /* best is the one that this CPU gets */
	struct wcx_decode_scratch *decode[VARIANTS_MAX];
	unsigned variant_count;
	struct peer peers[PEER_COUNT];
};

/* A set, what peers make of it, and how fast everything was: GB/s of decoded bytes. */
struct subject {
	struct weight_set *set;
	struct peer_blocks blocks[PEER_COUNT];
	double rate[OPERATIONS_MAX][ROUNDS];
	double crew_rate[CREWS_MAX][ROUNDS];
	double machine_rate[CREWS_MAX][ROUNDS]; /* the same threads, doing nothing but arithmetic */
};

/* The operations in the order of their rates: those of packing, memcpy, the variants, the peers. */
enum { CHOOSE, COUNT, ENCODE, COPY, DECODE };

static inline unsigned peer_operation(const struct tools *tools, unsigned peer)
{
	return DECODE + tools->variant_count + peer;
}

static inline unsigned operation_count(const struct tools *tools)
{
	return peer_operation(tools, PEER_COUNT);
}

/* codec_rate_print - print what has been measured, in tables of Markdown */
void codec_rate_print(const struct subject *subjects, size_t subject_count, const struct tools *tools);

#endif
