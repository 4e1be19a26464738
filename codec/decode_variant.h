/* SPDX-License-Identifier: MIT */
/*
 * The inner loops of decoding, in variants for what a CPU can do.  All variants restore the same bytes; the portable one is
 * the reference.
 */
#ifndef WCX_DECODE_VARIANT_H
#define WCX_DECODE_VARIANT_H

#include <stdint.h>

#include "codec/rans.h"

/*
 * How symbols become bits of elements.  The bits of an element that symbols stand for start at shift; with rotate, elements
 * are rotated to the right by one bit afterwards.
 */
struct wcx_symbol_place {
	uint32_t shift, base;
	uint8_t elem_bytes, is_pair, has_zero, rotate;
};

/*
 * A variant.  Loops over elements take `lines` whole lines of out, which may lie at any address, and count lines from the
 * start of the tile where it matters.
 */
struct wcx_decode_variant {
	const char *name;

	/* Decodes full lines [line, end) as long as the reader has its reserve; returns the line that it has got to. */
	uint32_t (*decode_lines)(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				 uint32_t end, uint32_t *words);
	/* The same of pairs, into a sink.  NULL where that brings nothing. */
	uint32_t (*decode_pairs)(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				 uint32_t end, const struct wcx_pair_sink *sink);

	/* out = constant, a word */
	void (*fill)(uint32_t lines, uint64_t constant, uint32_t elem_bytes, void *out);
	/* out |= the bits of symbols */
	void (*put_symbols)(const uint32_t *words, uint32_t lines, const struct wcx_symbol_place *place, void *out);
	/* out |= the bits of a raw plane, which has those that mask, a word, shows.  units is that of the first line. */
	void (*put_plane)(const uint8_t *units, uint32_t first_line, uint32_t lines, uint32_t width, uint64_t mask,
			  uint32_t elem_bytes, void *out);
	/* Inverts the bits of mask, a word of bytes, in each byte whose highest bit is set. */
	void (*fold)(uint32_t lines, uint32_t mask, void *out);
};

/* A run of lines, of [line, end), that are coded with one table. */
struct wcx_rans_run {
	const uint32_t *entry;
	uint32_t end;
};

static inline struct wcx_rans_run wcx_rans_run_at(const struct wcx_rans_stream *stream, uint32_t line, uint32_t end)
{
	const struct wcx_rans_choices *choices = &stream->choices;
	uint32_t run, run_end;

	if (!choices->bits)
		return (struct wcx_rans_run){ stream->tables[0]->entry, end };
	run = line / choices->run_lines;
	run_end = (run + 1) * choices->run_lines;
	return (struct wcx_rans_run){ stream->tables[wcx_rans_choice(choices, run)]->entry, run_end < end ? run_end : end };
}

extern const struct wcx_decode_variant wcx_decode_variant_portable;
#ifdef __x86_64__
extern const struct wcx_decode_variant wcx_decode_variant_avx2, wcx_decode_variant_avx2_gather, wcx_decode_variant_avx512;
#endif

/*
 * wcx_decode_variant_find - the variant of that name, or NULL where there is none or this CPU cannot run it
 *
 * wcx_decode_variant_at lists those that it can run, the portable one first; NULL behind the last.
 */
const struct wcx_decode_variant *wcx_decode_variant_find(const char *name);
const struct wcx_decode_variant *wcx_decode_variant_at(unsigned i);

/*
 * wcx_decode_variant_choose - the fastest variant on this CPU
 *
 * Measures those that come into question, for a millisecond or two: gathering from a table is fast on one CPU and slow
 * on another that has the same features.  Does so once in a process.  Allocates, and takes the portable variant if there
 * is no memory.
 */
const struct wcx_decode_variant *wcx_decode_variant_choose(void);

#endif
