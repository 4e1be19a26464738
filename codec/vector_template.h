/* SPDX-License-Identifier: MIT */
/*
 * Template of the rANS decoding loops of a variant with SIMD registers.  Each variant includes this file once, after
 * defining with its instructions:
 *
 *	vector, VECTOR_LANES	a register and how many 32-bit words it holds
 *	load, store		unaligned
 *	find_slots		the slots of states
 *	find_coarse_slots	the offsets in bytes of their entries in a coarse table
 *	fetch			the table entries of slots, with symbols in bits 12 to 19
 *	fetch_coarse		the same of coarse tables, at offsets in bytes
 *	next_state		what follows a state by its entry and the next words; coarse tables have a slot of four
 *	place_contexts		the slots where tables begin whose numbers start at a given bit
 *	either			bitwise or
 *	place_symbols		the symbols of entries, moved to start at a given bit, and zeros beside them
 *	finish_pairs		words of elements from the entries of their two steps and their raw bits
 *	finish_half_pairs	the same of two-byte elements, which have one step, and the base of a word
 *	rotate_right		by 0, 4 or 8 bits
 *	struct map_vectors	a context map, which load_map loads
 *	struct two_bases	two elements of a base in each word: in order, and their contexts in bits 12 to 14 of both
 *				halves
 *	read_two_bases		makes them
 *	take_context		one of two contexts, where slots have it
 *	join_differences	two differences in the halves of words, from the entries of both steps
 *	find_escapes		a bit for each element of ESCAPE_REGISTERS registers that is an escape
 *	add_differences		two elements from those of the base in order
 *
 * Functions that take parts and their number are inlined for each number.
 */
#include <assert.h>

enum { REGISTERS = WCX_LANES / VECTOR_LANES, PREFETCH_BYTES = 2048, PARTS_MAX = WCX_RANS_PARTS_MAX };

/* The states of the parts that are decoded at once, and their next words. */
struct lanes {
	vector state[PARTS_MAX][REGISTERS];
	const uint8_t *word[PARTS_MAX];
};

INLINE void load_lanes(const struct wcx_rans_part *parts, unsigned count, struct lanes *lanes)
{
	for (unsigned p = 0; p < count; p++) {
		lanes->word[p] = parts[p].reader->word;
		for (int r = 0; r < REGISTERS; r++)
			lanes->state[p][r] = load(parts[p].reader->state + r * VECTOR_LANES);
	}
}

INLINE void store_lanes(const struct wcx_rans_part *parts, unsigned count, const struct lanes *lanes)
{
	for (unsigned p = 0; p < count; p++) {
		parts[p].reader->word = lanes->word[p];
		for (int r = 0; r < REGISTERS; r++)
			store(parts[p].reader->state + r * VECTOR_LANES, lanes->state[p][r]);
	}
}

INLINE bool have_reserves(const struct wcx_rans_part *parts, unsigned count, const struct lanes *lanes)
{
	bool have = true;

	for (unsigned p = 0; p < count; p++)
		have &= parts[p].reader->end - lanes->word[p] >= parts[p].reader->reserve;
	return have;
}

/*
 * Decodes one symbol of every lane; e receives the entries, and at, if not NULL, has the first slot of the table of each
 * lane. All entries are fetched first, which keeps the dependency chain through the words short; parts take turns to fill
 * the time that each waits.
 */
INLINE void step(const uint32_t *const entry[PARTS_MAX], const vector *at, unsigned count, struct lanes *lanes,
		 vector e[PARTS_MAX][REGISTERS], bool gather)
{
#pragma GCC unroll 4
	for (int r = 0; r < REGISTERS; r++)
#pragma GCC unroll 4
		for (unsigned p = 0; p < count; p++) {
			const vector slots = find_slots(lanes->state[p][r]);

			e[p][r] = fetch(entry[p], at ? either(slots, at[r]) : slots, gather);
		}
#pragma GCC unroll 4
	for (int r = 0; r < REGISTERS; r++)
#pragma GCC unroll 4
		for (unsigned p = 0; p < count; p++)
			lanes->state[p][r] = next_state(lanes->state[p][r], e[p][r], &lanes->word[p], false);
}

/* The same where contexts, of which each part has its own, choose among coarse tables. */
INLINE void step_in_contexts(const uint32_t *const entry[PARTS_MAX], const struct two_bases bases[PARTS_MAX][REGISTERS],
			     uint32_t shift, unsigned count, struct lanes *lanes, vector e[PARTS_MAX][REGISTERS],
			     bool gather)
{
#pragma GCC unroll 4
	for (int r = 0; r < REGISTERS; r++)
#pragma GCC unroll 4
		for (unsigned p = 0; p < count; p++)
			e[p][r] = fetch_coarse(
				entry[p],
				either(find_coarse_slots(lanes->state[p][r]), take_context(bases[p][r].contexts, shift)),
				gather);
#pragma GCC unroll 4
	for (int r = 0; r < REGISTERS; r++)
#pragma GCC unroll 4
		for (unsigned p = 0; p < count; p++)
			lanes->state[p][r] = next_state(lanes->state[p][r], e[p][r], &lanes->word[p], true);
}

/* The tables of the runs at a line, and the end of the runs, which is the same for all. */
INLINE uint32_t find_runs(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end,
			  const uint32_t *entry[PARTS_MAX])
{
	for (unsigned p = count; p-- > 0;) {
		const struct wcx_rans_run run = wcx_rans_run_at(parts[p].stream, line, end);

		entry[p] = run.entry;
		end = run.end;
	}
	return end;
}

INLINE void decode_line(const uint32_t *const entry[PARTS_MAX], unsigned count, struct lanes *lanes, uint32_t steps,
			const uint32_t *contexts, bool by_context, uint32_t *const words[PARTS_MAX], bool gather)
{
	vector w[PARTS_MAX][REGISTERS] = { 0 }, e[PARTS_MAX][REGISTERS], at[REGISTERS];

	for (unsigned p = 0; p < count; p++)
		__builtin_prefetch(lanes->word[p] + PREFETCH_BYTES);
#pragma GCC unroll 4
	for (uint32_t k = 0; k < steps; k++) {
		for (int r = 0; by_context && r < REGISTERS; r++)
			at[r] = place_contexts(load(contexts + r * VECTOR_LANES), 32 / steps * k);
		step(entry, by_context ? at : NULL, count, lanes, e, gather);
#pragma GCC unroll 4
		for (unsigned p = 0; p < count; p++)
#pragma GCC unroll 4
			for (int r = 0; r < REGISTERS; r++) {
				const vector symbols = place_symbols(e[p][r], 32 / steps * k);

				w[p][r] = k ? either(w[p][r], symbols) : symbols;
			}
	}
	for (unsigned p = 0; p < count; p++)
		for (int r = 0; r < REGISTERS; r++)
			store(words[p] + r * VECTOR_LANES, w[p][r]);
}

INLINE uint32_t decode_steps(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end, uint32_t steps,
			     bool gather)
{
	const uint32_t *entry[PARTS_MAX];
	uint32_t *words[PARTS_MAX];
	struct lanes lanes;

	load_lanes(parts, count, &lanes);
	for (unsigned p = 0; p < count; p++)
		words[p] = parts[p].words;
	while (line < end && have_reserves(parts, count, &lanes)) {
		const uint32_t run_end = find_runs(parts, count, line, end, entry);

		for (; line < run_end && have_reserves(parts, count, &lanes); line++) {
			decode_line(entry, count, &lanes, steps, NULL, false, words, gather);
			for (unsigned p = 0; p < count; p++)
				words[p] += WCX_LANES;
		}
	}
	store_lanes(parts, count, &lanes);
	return line;
}

INLINE uint32_t decode_counted_steps(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end,
				     uint32_t steps, bool gather)
{
	if (count == 1)
		return decode_steps(parts, 1, line, end, steps, gather);
	assert(count == PARTS_MAX);
	return decode_steps(parts, PARTS_MAX, line, end, steps, gather);
}

INLINE uint32_t decode_any_steps(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end, bool gather)
{
	if (parts[0].stream->steps == 4)
		return decode_counted_steps(parts, count, line, end, 4, gather);
	if (parts[0].stream->steps == 2)
		return decode_counted_steps(parts, count, line, end, 2, gather);
	assert(parts[0].stream->steps == 1);
	return decode_counted_steps(parts, count, line, end, 1, gather);
}

INLINE uint32_t decode_steps_by_context(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader, uint32_t line,
					uint32_t end, uint32_t steps, const uint32_t *contexts, uint32_t *words, bool gather)
{
	const struct wcx_rans_part part = { .stream = stream, .reader = reader, .words = words };
	const uint32_t *entry[PARTS_MAX];
	struct lanes lanes;

	load_lanes(&part, 1, &lanes);
	while (line < end && have_reserves(&part, 1, &lanes)) {
		const uint32_t run_end = find_runs(&part, 1, line, end, entry);

		for (; line < run_end && have_reserves(&part, 1, &lanes);
		     line++, contexts += WCX_LANES, words += WCX_LANES) {
			uint32_t *const at[PARTS_MAX] = { words };

			decode_line(entry, 1, &lanes, steps, contexts, true, at, gather);
		}
	}
	store_lanes(&part, 1, &lanes);
	return line;
}

INLINE uint32_t decode_any_steps_by_context(const struct wcx_rans_stream *stream, struct wcx_rans_reader *reader,
					    uint32_t line, uint32_t end, const uint32_t *contexts, uint32_t *words,
					    bool gather)
{
	if (stream->steps == 4)
		return decode_steps_by_context(stream, reader, line, end, 4, contexts, words, gather);
	if (stream->steps == 2)
		return decode_steps_by_context(stream, reader, line, end, 2, contexts, words, gather);
	assert(stream->steps == 1);
	return decode_steps_by_context(stream, reader, line, end, 1, contexts, words, gather);
}

/* A unit holds the raw bits of two lines; those of the second line are rotated by as many bits as an element has. */
INLINE void finish_pair_line(const struct wcx_pair_sink *sink, uint32_t line, const vector first[REGISTERS],
			     const vector second[REGISTERS], bool are_bytes)
{
	const uint8_t *unit = sink->raw + (size_t)line / 2 * WCX_PLANE_UNIT_BYTES;
	uint8_t *dst = sink->dst + (size_t)line * WCX_LANES * 4;
	const int rotation = line % 2 ? (are_bytes ? 4 : 8) : 0;

	/* Hardware prefetchers stop at page boundaries, which each of the three streams crosses every few lines. */
	__builtin_prefetch(unit + PREFETCH_BYTES);
	__builtin_prefetch(dst + PREFETCH_BYTES, 1);
	__builtin_prefetch(dst + PREFETCH_BYTES + 64, 1);
#pragma GCC unroll 4
	for (int r = 0; r < REGISTERS; r++) {
		const vector raw = rotate_right(load(unit + r * (int)sizeof(vector)), rotation);

		store(dst + r * (int)sizeof(vector),
		      are_bytes ? finish_pairs(first[r], second[r], raw) : finish_half_pairs(first[r], raw, sink->base));
	}
}

INLINE void decode_pair_line(const struct wcx_rans_part *parts, const uint32_t *const entry[PARTS_MAX], unsigned count,
			     struct lanes *lanes, uint32_t line, bool are_bytes, bool gather)
{
	vector first[PARTS_MAX][REGISTERS], second[PARTS_MAX][REGISTERS];

	for (unsigned p = 0; p < count; p++)
		__builtin_prefetch(lanes->word[p] + PREFETCH_BYTES);
	step(entry, NULL, count, lanes, first, gather);
	if (are_bytes)
		step(entry, NULL, count, lanes, second, gather);
#pragma GCC unroll 4
	for (unsigned p = 0; p < count; p++)
		finish_pair_line(parts[p].sink, line, first[p], second[p], are_bytes);
}

INLINE uint32_t decode_pair_lines(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end,
				  bool are_bytes, bool gather)
{
	const uint32_t *entry[PARTS_MAX];
	struct lanes lanes;

	load_lanes(parts, count, &lanes);
	while (line < end && have_reserves(parts, count, &lanes)) {
		const uint32_t run_end = find_runs(parts, count, line, end, entry);

		for (; line < run_end && have_reserves(parts, count, &lanes); line++)
			decode_pair_line(parts, entry, count, &lanes, line, are_bytes, gather);
	}
	store_lanes(parts, count, &lanes);
	return line;
}

INLINE uint32_t decode_counted_pairs(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end,
				     bool are_bytes, bool gather)
{
	if (count == 1)
		return decode_pair_lines(parts, 1, line, end, are_bytes, gather);
	assert(count == PARTS_MAX);
	return decode_pair_lines(parts, PARTS_MAX, line, end, are_bytes, gather);
}

INLINE uint32_t decode_any_pairs(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end, bool gather)
{
	if (parts[0].stream->steps == 2)
		return decode_counted_pairs(parts, count, line, end, true, gather);
	assert(parts[0].stream->steps == 1);
	return decode_counted_pairs(parts, count, line, end, false, gather);
}

INLINE void decode_difference_line(const struct wcx_rans_part *parts, const uint32_t *const entry[PARTS_MAX], unsigned count,
				   struct lanes *lanes, const struct map_vectors *map, uint32_t line, bool gather)
{
	const size_t at = (size_t)line * WCX_LANES * 4;
	vector first[PARTS_MAX][REGISTERS], second[PARTS_MAX][REGISTERS];
	struct two_bases bases[PARTS_MAX][REGISTERS];

#pragma GCC unroll 4
	for (unsigned p = 0; p < count; p++) {
		const uint8_t *base = parts[p].differences->base + at;

		__builtin_prefetch(lanes->word[p] + PREFETCH_BYTES);
		__builtin_prefetch(base + PREFETCH_BYTES);
		__builtin_prefetch(base + PREFETCH_BYTES + 64);
#pragma GCC unroll 4
		for (int r = 0; r < REGISTERS; r++)
			bases[p][r] = read_two_bases(map, load(base + r * (int)sizeof(vector)));
	}
	step_in_contexts(entry, bases, 0, count, lanes, first, gather);
	step_in_contexts(entry, bases, 16, count, lanes, second, gather);
#pragma GCC unroll 4
	for (unsigned p = 0; p < count; p++) {
		const struct wcx_difference_sink *sink = parts[p].differences;
		uint8_t *dst = sink->dst + at;
		uint64_t escapes = 0;

		__builtin_prefetch(dst + PREFETCH_BYTES, 1);
		__builtin_prefetch(dst + PREFETCH_BYTES + 64, 1);
#pragma GCC unroll 4
		for (int r = 0; r < REGISTERS; r++) {
			first[p][r] = join_differences(first[p][r], second[p][r]);
			store(dst + r * (int)sizeof(vector), add_differences(map, bases[p][r].ordered, first[p][r]));
		}
#pragma GCC unroll 4
		for (int r = 0; r < REGISTERS; r += ESCAPE_REGISTERS)
			escapes |= find_escapes(first[p] + r) << r * VECTOR_LANES * 2;
		sink->escapes[line] = escapes;
	}
}

INLINE uint32_t decode_difference_lines(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end,
					bool gather)
{
	const struct map_vectors map = load_map(parts[0].differences->map);
	const uint32_t *entry[PARTS_MAX];
	struct lanes lanes;

	load_lanes(parts, count, &lanes);
	while (line < end && have_reserves(parts, count, &lanes)) {
		const uint32_t run_end = find_runs(parts, count, line, end, entry);

		for (; line < run_end && have_reserves(parts, count, &lanes); line++)
			decode_difference_line(parts, entry, count, &lanes, &map, line, gather);
	}
	store_lanes(parts, count, &lanes);
	return line;
}

INLINE uint32_t decode_any_differences(const struct wcx_rans_part *parts, unsigned count, uint32_t line, uint32_t end,
				       bool gather)
{
	assert(parts[0].stream->steps == 2 && parts[0].stream->slot_shift == WCX_COARSE_BITS);
	if (count == 1)
		return decode_difference_lines(parts, 1, line, end, gather);
	assert(count == PARTS_MAX);
	return decode_difference_lines(parts, PARTS_MAX, line, end, gather);
}
