/* SPDX-License-Identifier: MIT */
/*
 * Variants of the inner decoding loops for different CPU features.  All variants restore the same bytes; the portable one is
 * the reference.
 */
#ifndef WCX_DECODE_VARIANT_H
#define WCX_DECODE_VARIANT_H

#include <stdbool.h>
#include <stdint.h>

#include "codec/rans.h"
#include "codec/recipe.h"

enum { WCX_LINE_PLANES_MAX = 3 };

/*
 * How symbols become bits of elements: their values start at bit `shift` of the transformed element.  With rotate, elements
 * are then rotated right by one bit.
 */
struct wcx_symbol_place {
	uint32_t shift, base;
	uint8_t elem_bytes;
	bool is_pair, has_zero, rotate;
};

/* What lines with a single coded field, of elements of one or two bytes, consist of. */
struct wcx_line_recipe {
	struct wcx_symbol_place place; /* the shift is that of the element: without rotate */
	uint32_t constant;             /* of every word */
	uint32_t fold_mask;            /* as for fold; 0 without FOLD and for elements of two bytes */
	uint32_t plane_count;
	struct wcx_line_plane {
		const uint8_t *units;
		uint32_t width, mask; /* the mask selects the bits in a word */
	} planes[WCX_LINE_PLANES_MAX];
};

/*
 * One variant.  The loops over elements process `lines` whole lines at out, which may be unaligned; where line numbers
 * matter, they count from the start of the tile.
 */
struct wcx_decode_variant {
	const char *name;

	unsigned parts_max;              /* streams that are decoded at once: 1 or 2 */
	unsigned parts_max_with_choices; /* the same where runs choose among tables, which take more of the cache */
	/* Decodes full lines [line, end) while the readers have their reserve; returns the first line not decoded. */
	uint32_t (*decode_lines)(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end);
	/* The same of one stream with the contexts of these lines. */
	uint32_t (*decode_by_context)(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
				      uint32_t end, const uint32_t *contexts, uint32_t *words);
	/* decode_lines for pairs, into sinks.  NULL in a variant that gains nothing by it. */
	uint32_t (*decode_pairs)(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end);
	/* The same for elements of two bytes, without pairs.  NULL likewise. */
	uint32_t (*decode_halves)(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end);
	/* The same for residuals of two-byte elements, each with its context.  Alone in reading coarse tables, if not NULL.
	 */
	uint32_t (*decode_differences)(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end);

	/* Sets every word of out. */
	void (*fill)(uint32_t lines, uint64_t word, uint32_t elem_bytes, void *out);
	/* ORs the bits of symbols into out. */
	void (*put_symbols)(const uint32_t *words, uint32_t lines, const struct wcx_symbol_place *place, void *out);
	/* ORs the bits of a raw plane into out; mask selects them in a word.  units starts with the unit of first_line. */
	void (*put_plane)(const uint8_t *units, uint32_t first_line, uint32_t lines, uint32_t width, uint64_t mask,
			  uint32_t elem_bytes, void *out);
	/* Sets out to what the four of these make together; planes have the units of the whole tile. */
	void (*make_lines)(const struct wcx_line_recipe *recipe, const uint32_t *words, uint32_t first_line, uint32_t lines,
			   void *out);
	/* In each byte whose highest bit is set, inverts the bits that mask, a word, selects. */
	void (*fold)(uint32_t lines, uint32_t mask, void *out);
	/* The contexts of elements of the base, placed in words as symbols are. */
	void (*find_contexts)(const struct wcx_recipe *recipe, const void *base, uint32_t lines, uint32_t *contexts);
	/*
	 * Lists the positions of all elements with a bit in so many lines, for which there is room for count and
	 * WCX_ESCAPES_MARGIN more.  False if there are not as many as count.
	 */
	bool (*list_escapes)(const uint64_t *bits, uint32_t lines, uint32_t count, uint16_t *positions);
	/* Turns residuals in out into elements. */
	void (*undo_difference)(const struct wcx_recipe *recipe, const void *base, uint32_t lines, void *out);
};

/* Lines of [line, end) up to the end of the run of `line`, and their table. */
struct wcx_rans_run {
	const uint32_t *entry;
	uint32_t end;
};

static inline struct wcx_rans_run wcx_rans_run_at(const struct wcx_rans_stream *stream, uint32_t line, uint32_t end)
{
	const struct wcx_rans_choices *choices = &stream->choices;
	struct wcx_rans_run ret = { stream->tables[0], end };

	if (choices->bits) {
		const uint32_t run = line / choices->run_lines, run_end = (run + 1) * choices->run_lines;

		ret.entry = stream->tables[wcx_rans_choice(choices, run)];
		ret.end = run_end < end ? run_end : end;
	}
	return ret;
}

extern const struct wcx_decode_variant wcx_decode_variant_portable;
#ifdef __x86_64__
extern const struct wcx_decode_variant wcx_decode_variant_avx2, wcx_decode_variant_avx2_gather, wcx_decode_variant_avx512;
#endif

/*
 * wcx_decode_variant_find - the variant of that name, or NULL if there is none or this CPU cannot run it
 *
 * wcx_decode_variant_at enumerates those that this CPU can run, the portable one first; NULL past the last.
 */
const struct wcx_decode_variant *wcx_decode_variant_find(const char *name);
const struct wcx_decode_variant *wcx_decode_variant_at(unsigned i);

/*
 * wcx_decode_variant_choose - the fastest variant on this CPU
 *
 * Times the candidates for a millisecond or two, once per process: table gathers are fast on one CPU and slow on another
 * with the same features.  Allocates; returns the portable variant if there is no memory.
 */
const struct wcx_decode_variant *wcx_decode_variant_choose(void);

#endif
