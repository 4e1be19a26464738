/* SPDX-License-Identifier: MIT */
/* Enumerates the variants of the decoding loops and finds the fastest. */
#include "codec/decode_variant.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec/arith.h"
#include "codec/cpu_features.h"
#include "codec/encode_variant.h"

enum {
	TRIAL_LINES = 128,
	TRIAL_STEPS = 2,
	TRIAL_SYMBOLS = TRIAL_LINES * WCX_LANES * TRIAL_STEPS,
	TRIAL_BYTES = 2 * TRIAL_SYMBOLS,
	TRIAL_ROUNDS = 20,
	VARIANTS_MAX = 8,
};

struct candidate {
	const struct wcx_decode_variant *variant;
	bool runs_here;
};

const struct wcx_decode_variant *wcx_decode_variant_at(unsigned i)
{
	const struct candidate candidates[] = {
		{ &wcx_decode_variant_portable, true },
#ifdef __x86_64__
		{ &wcx_decode_variant_avx2, wcx_cpu_has_avx2() },
		{ &wcx_decode_variant_avx2_gather, wcx_cpu_has_avx2() },
		{ &wcx_decode_variant_avx512, wcx_cpu_has_avx512() },
#endif
	};

	for (size_t c = 0; c < WCX_ARRAY_COUNT(candidates); c++)
		if (candidates[c].runs_here && i-- == 0)
			return candidates[c].variant;
	return NULL;
}

const struct wcx_decode_variant *wcx_decode_variant_find(const char *name)
{
	const struct wcx_decode_variant *variant = NULL;

	for (unsigned i = 0; (variant = wcx_decode_variant_at(i)) && strcmp(variant->name, name) != 0; i++)
		;
	return variant;
}

/* A stream of normally distributed symbols to time variants with, and space for what they decode. */
struct trial {
	struct wcx_rans_encode_table encode;
	struct wcx_rans_decode_table decode;
	uint8_t symbols[TRIAL_SYMBOLS], stream[TRIAL_BYTES];
	uint16_t encode_words[TRIAL_SYMBOLS];
	uint32_t words[WCX_RANS_PARTS_MAX][TRIAL_LINES * WCX_LANES];
	uint8_t nibbles[TRIAL_LINES / 2 * WCX_PLANE_UNIT_BYTES], dst[TRIAL_LINES * WCX_LANES * 4];
	size_t stream_bytes;
};

/* Symbols follow the number of ones among 56 random bits, which is nearly normal. */
static void make_trial(struct trial *trial)
{
	const struct wcx_rans_encode_table *encode = &trial->encode;
	const struct wcx_rans_source source = {
		.tables = &encode, .symbols = trial->symbols, .symbol_count = TRIAL_SYMBOLS, .steps = TRIAL_STEPS
	};
	uint64_t counts[WCX_SYMBOL_COUNT] = { 0 }, random = 1;
	struct wcx_freq_table freqs;

	for (uint32_t i = 0; i < TRIAL_SYMBOLS; i++) {
		random = random * 6364136223846793005u + 1442695040888963407u;
		trial->symbols[i] = (uint8_t)(4 * __builtin_popcountll(random >> 8) + (int)(random >> 60) % 4);
		counts[trial->symbols[i]]++;
	}
	wcx_freq_table_build(counts, &freqs);
	wcx_rans_encode_table_build(&freqs, &trial->encode);
	wcx_rans_decode_table_build(&freqs, &trial->decode);
	trial->stream_bytes =
		wcx_rans_encode(&wcx_encode_variant_portable, &source, trial->encode_words, trial->stream, TRIAL_BYTES);
}

/* Decodes the stream as pairs into a sink, or without one as symbols; as often as the variant does at once. */
static enum wcx_result run_trial(const struct wcx_decode_variant *variant, struct trial *trial,
				 const struct wcx_rans_stream *stream, const struct wcx_pair_sink *sink)
{
	struct wcx_rans_reader readers[WCX_RANS_PARTS_MAX];
	struct wcx_rans_part parts[WCX_RANS_PARTS_MAX];
	enum wcx_result result = WCX_OK;

	for (unsigned p = 0; p < variant->parts_max && result == WCX_OK; p++) {
		parts[p] = (struct wcx_rans_part){
			.stream = stream, .reader = &readers[p], .words = trial->words[p], .sink = sink
		};
		result = wcx_rans_open(stream, &readers[p]);
	}
	if (result != WCX_OK)
		return result;
	return wcx_rans_decode_parts(variant, parts, variant->parts_max, 0, TRIAL_LINES);
}

/* Nanoseconds that a variant takes for the stream. */
static int64_t time_trial(const struct wcx_decode_variant *variant, struct trial *trial, const struct wcx_pair_sink *sink)
{
	const uint32_t *table = trial->decode.entry;
	const struct wcx_rans_stream stream = {
		.tables = &table,
		.src = trial->stream,
		.src_bytes = trial->stream_bytes,
		.symbol_count = TRIAL_SYMBOLS,
		.steps = TRIAL_STEPS,
	};
	struct timespec start, end;

	clock_gettime(CLOCK_MONOTONIC, &start);
	if (run_trial(variant, trial, &stream, sink) != WCX_OK)
		return INT64_MAX / 2;
	clock_gettime(CLOCK_MONOTONIC, &end);
	return ((end.tv_sec - start.tv_sec) * INT64_C(1000000000) + (end.tv_nsec - start.tv_nsec)) / variant->parts_max;
}

/* Variants take turns, so that other load on the machine affects all alike.  Symbols and pairs count the same. */
static const struct wcx_decode_variant *fastest(struct trial *trial)
{
	const struct wcx_pair_sink sink = { trial->nibbles, trial->dst, 0 };
	int64_t symbols[VARIANTS_MAX], pairs[VARIANTS_MAX];
	const struct wcx_decode_variant *variant;
	unsigned best = 1;

	for (int round = 0; round < TRIAL_ROUNDS; round++)
		for (unsigned i = 1; i < VARIANTS_MAX && (variant = wcx_decode_variant_at(i)); i++) {
			const int64_t s = time_trial(variant, trial, NULL), p = time_trial(variant, trial, &sink);

			symbols[i] = round == 0 ? s : WCX_MIN(s, symbols[i]);
			pairs[i] = round == 0 ? p : WCX_MIN(p, pairs[i]);
		}
	for (unsigned i = 2; i < VARIANTS_MAX && wcx_decode_variant_at(i); i++)
		if (symbols[i] + pairs[i] < symbols[best] + pairs[best])
			best = i;
	return wcx_decode_variant_at(best);
}

const struct wcx_decode_variant *wcx_decode_variant_choose(void)
{
	static const struct wcx_decode_variant *_Atomic measured; /* once per process */
	const struct wcx_decode_variant *best = atomic_load(&measured);
	struct trial *trial;

	if (best)
		return best;
	if (!wcx_decode_variant_at(1))
		return &wcx_decode_variant_portable;
	trial = calloc(1, sizeof *trial);
	if (!trial)
		return &wcx_decode_variant_portable;
	make_trial(trial);
	best = fastest(trial);
	free(trial);
	atomic_store(&measured, best);
	return best;
}
