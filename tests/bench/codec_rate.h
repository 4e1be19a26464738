/* SPDX-License-Identifier: MIT */
/* What codec_rate measures: the rate of every operation on every set of weights in every round. */
#ifndef WCX_CODEC_RATE_H
#define WCX_CODEC_RATE_H

#include "codec/decode_variant.h"
#include "tests/bench/decode_crew.h"
#include "tests/bench/peer_codecs.h"
#include "tests/bench/weight_set.h"

enum {
	ROUNDS = 11,
	VARIANTS_MAX = 8,
	OPERATIONS_MAX = 4 + VARIANTS_MAX + PEER_COUNT,
};

/* What all operations use; constant once opened, but for the counts. */
struct tools {
	struct wcx_encode_scratch *encode;
	struct wcx_plan_counts counts;
	const struct wcx_decode_variant *variants[VARIANTS_MAX], *best; /* best: chosen for this CPU */
	struct wcx_decode_scratch *decode[VARIANTS_MAX];
	unsigned variant_count;
	struct peer peers[PEER_COUNT];
};

/* A set, its blocks as the peers pack them, and all rates, in GB/s of decoded bytes. */
struct subject {
	struct weight_set *set;
	struct peer_blocks blocks[PEER_COUNT];
	double rate[OPERATIONS_MAX][ROUNDS];
	double crew_rate[CREWS_MAX][ROUNDS];
	double crew_cost[CREWS_MAX][ROUNDS];    /* seconds of CPU time a GB */
	double machine_rate[CREWS_MAX][ROUNDS]; /* of the same threads in plain arithmetic */
};

/* The operations, as indices of rate: steps of packing, memcpy, then decoding by every variant, then by every peer. */
enum { CHOOSE, COUNT, ENCODE, COPY, DECODE };

static inline unsigned peer_operation(const struct tools *tools, unsigned peer)
{
	return DECODE + tools->variant_count + peer;
}

static inline unsigned operation_count(const struct tools *tools)
{
	return peer_operation(tools, PEER_COUNT);
}

/* codec_rate_print - print all rates as Markdown tables */
void codec_rate_print(const struct subject *subjects, size_t subject_count, const struct tools *tools);

#endif
