/* SPDX-License-Identifier: MIT */
/*
 * Decodes a difference and the tile of its base at once, with one warp (docs/gpu.md, "Differences from a base").
 *
 * The words of the base stay in registers: blocks of lines of the base are decoded one ahead of those of the difference, and
 * the steps of both alternate, so that each hides the latency of the other.  The end of a tile that is not whole blocks goes
 * through the base's place in device memory.
 */
#ifndef WCX_FUSED_DECODE_CUH
#define WCX_FUSED_DECODE_CUH

#include "cuda/block_warps.h"
#include "cuda/difference_escape.cuh"
#include "cuda/fused_base.cuh"
#include "cuda/tile_decode.cuh"

/* --- Bases --- */

/* Elements of the base that are in memory. */
struct wcx_memory_base {
	static constexpr bool is_decoded = false;
	static constexpr uint32_t elem_bytes = 2;
};

/* A base that is decoded: any of the formats of tiles that stand alone. */
template <typename format_type> struct wcx_decoded_base : format_type {
	static constexpr bool is_decoded = true;

	__device__ __forceinline__ wcx_decoded_base(const struct wcx_batch_kind &kind) : format_type(kind)
	{
	}
};

/* What a kernel decodes.  multi: the difference has contexts; has_sets: runs choose among sets of tables. */
template <typename base_type_, bool base_multi_, typename difference_type_, bool multi_, bool has_sets_> struct wcx_fused {
	using base_type = base_type_;
	using difference_type = difference_type_;
	static constexpr uint32_t elem_bytes = difference_type::elem_bytes;
	static constexpr bool base_multi = base_multi_, multi = multi_, has_sets = has_sets_;
	static constexpr bool has_escapes = difference_type::has_escapes, has_base = base_type::is_decoded;
	static constexpr uint32_t warps =
		elem_bytes == 1 || !has_base ? (uint32_t)WCX_LARGE_BLOCK_WARPS : (uint32_t)WCX_FUSED_BLOCK_WARPS;
	static constexpr uint32_t rings = has_base ? 2 : 1;
	static constexpr uint32_t warp_bytes =
		rings * WCX_WARP_SHARED_BYTES + (has_escapes ? (uint32_t)WCX_ESCAPES_BYTES : 0);
	static constexpr uint32_t table_bytes = has_escapes ? (uint32_t)WCX_COARSE_TABLE_BYTES : (uint32_t)WCX_TABLE_BYTES;
	static constexpr uint32_t align_bytes = has_escapes ? table_bytes : 16;
	static constexpr uint32_t contexts_bytes = multi ? (has_sets ? 4 : 1) * WCX_CONTEXTS_BYTES : 0;
};

/* Both tiles of a fused item. */
struct wcx_fused_pair {
	const struct wcx_warp &of_base, &own;
	const wcx_device_tile &base, &tile; /* the same without a base to decode */
	uint32_t tables;                    /* shared address of the tables of the difference */
	bool keeps_base;                    /* the words of the base are stored, for exceptions of the difference */
};

/* Finds the tables of a word's symbols, in the set that its run has chosen. */
template <typename fused>
static __device__ __forceinline__ void wcx_fused_find_tables(const struct wcx_fused_pair &pair,
							     const typename fused::difference_type &difference, uint32_t set,
							     uint32_t base, uint32_t tables[fused::difference_type::steps])
{
	const struct wcx_factors factors = pair.own.batch.factors;

	if constexpr (fused::difference_type::computes_tables) {
		difference.find_tables(pair.tables, base, factors, tables);
	} else {
		const uint32_t keys = fused::multi ? difference.keys(base) : 0;
		const uint32_t contexts =
			wcx_shared_address(pair.own.contexts) + (fused::has_sets ? set * WCX_CONTEXTS_BYTES : 0);

#pragma unroll
		for (uint32_t k = 0; k < fused::difference_type::steps; k++)
			tables[k] =
				fused::multi ? wcx_shared_u32(difference.key(keys, k) * factors.k4 + contexts) : pair.tables;
	}
}

/* The difference of a tile while its lines are decoded. */
template <typename fused> struct wcx_fused_difference {
	const typename fused::difference_type format;
	struct wcx_payload payload;
	struct wcx_escapes escapes;

	__device__ __forceinline__ wcx_fused_difference(const struct wcx_batch_kind &kind) : format(kind)
	{
	}
};

template <typename fused> struct wcx_no_base {
	__device__ __forceinline__ wcx_no_base(const struct wcx_batch_kind &)
	{
	}
};
template <typename fused>
using wcx_fused_base_of = std::conditional_t<fused::has_base, wcx_fused_base<typename fused::base_type>, wcx_no_base<fused>>;

/* Whether raw planes are loaded by half a block, into the registers that they are used from; two lines ahead is too late. */
static constexpr bool wcx_loads_halves = WCX_SAVES_REGISTERS && WCX_FUSED_LINES > 4;

/*
 * Decodes a block: of the base if `has_base`, to ahead, and of the difference if `differs`, to dst, whose base is `own`.
 * Both may be the same words.
 */
template <typename fused, bool has_base, bool differs>
static __device__ __forceinline__ void wcx_fused_block(const struct wcx_fused_pair &pair, wcx_fused_base_of<fused> *base,
						       struct wcx_fused_difference<fused> *difference, uint32_t line,
						       uint32_t *dst, const uint32_t own[WCX_FUSED_LINES],
						       uint32_t ahead[WCX_FUSED_LINES])
{
	using base_type = typename fused::base_type;
	constexpr uint32_t steps = fused::difference_type::steps, line_elems = wcx_elems_of_line<fused::elem_bytes>;
	const struct wcx_factors factors = pair.own.batch.factors;
	const uint32_t base_line = line + (differs ? WCX_FUSED_LINES : 0);
	uint32_t tables[2][steps], entry[steps];
	uint32_t base_chosen = 0, chosen = 0;
	const uint32_t bits = difference->escapes.bits + line % WCX_ESCAPE_LINES * 8;

	if constexpr (differs) {
		if (fused::has_sets)
			chosen = difference->payload.choices.from(line * line_elems / WCX_RUN_ELEMS);
		wcx_fused_find_tables<fused>(pair, difference->format, chosen & 3, own[0], tables[0]);
	}
	if constexpr (has_base) {
		if (fused::base_multi)
			base_chosen = base->payload.choices.from(base_line * line_elems / WCX_RUN_ELEMS);
	}
#pragma unroll
	for (uint32_t i = 0; i < WCX_FUSED_LINES; i++) {
		const uint32_t group = i * line_elems / WCX_RUN_ELEMS, next_group = (i + 1) * line_elems / WCX_RUN_ELEMS;
		uint32_t next = 0;

		if constexpr (differs) {
			if (i % (WCX_BLOCK_STEPS / steps) == 0)
				wcx_word_reader_refill(&difference->payload.reader);
			if (i + 1 < WCX_FUSED_LINES)
				wcx_fused_find_tables<fused>(pair, difference->format, chosen >> 2 * next_group & 3,
							     own[i + 1], tables[(i + 1) % 2]);
		}
		if constexpr (has_base) {
			constexpr uint32_t base_steps = base_type::steps;
			const wcx_fast_table base_table = { fused::base_multi
								    ? (base_chosen >> 2 * group & 3) * WCX_PROB_SCALE
								    : 0 };
			uint32_t base_entry[base_steps];

			if (i % (WCX_BLOCK_STEPS / base_steps) == 0)
				wcx_word_reader_refill(&base->payload.reader);
			/* Not before: refills, and the words that are used first, would wait for these loads. */
			if (wcx_loads_halves && i % (WCX_FUSED_LINES / 2) == 1)
				base->planes.half(i / (WCX_FUSED_LINES / 2));
			if (!wcx_loads_halves && i == 0) {
				base->planes.take();
				base->planes.load(base_line);
			}
#pragma unroll
			for (uint32_t k = 0; k < WCX_MAX(base_steps, steps); k++) {
				if (differs && k < WCX_MIN(base_steps, steps)) {
					wcx_fused_two_steps<typename fused::difference_type>(
						&base->payload.reader, base_table, &base_entry[k],
						&difference->payload.reader, tables[i % 2][k], &entry[k], factors);
					continue;
				}
				if (k < base_steps)
					base_entry[k] =
						wcx_rans_step<false>(&base->payload.reader, base_table, true, factors);
				if (differs && k < steps)
					entry[k] = wcx_fused_step<typename fused::difference_type, false>(
						&difference->payload.reader, tables[i % 2][k], true, factors);
			}
			const uint32_t raw = base->planes.word(i);

			next = wcx_select_bits(base->raw_mask, raw, base->format.word(base_entry, raw));
		} else {
#pragma unroll
			for (uint32_t k = 0; k < steps; k++)
				entry[k] = wcx_fused_step<typename fused::difference_type, false>(
					&difference->payload.reader, tables[i % 2][k], true, factors);
		}
		if constexpr (differs) {
			dst[i * WCX_LANES] = difference->format.word(entry, 0, 0, own[i], factors);
			if constexpr (fused::has_escapes)
				wcx_note_escapes(bits, i, entry, factors);
		}
		if constexpr (has_base)
			ahead[i] = next;
	}
}

/* Looks up the escapes of the lines before this one, if they are as many as can be noted. */
template <typename fused>
static __device__ __forceinline__ void wcx_fused_flush(const struct wcx_fused_difference<fused> &difference, uint32_t line)
{
	if constexpr (fused::has_escapes)
		if (line % WCX_ESCAPE_LINES == 0)
			wcx_flush_escapes(difference.escapes.bits, line - WCX_ESCAPE_LINES, line);
}

/* Corrects and stores a block of the base, which few blocks need. */
template <typename format_type>
static __device__ __forceinline__ void wcx_fused_finish_base(const struct wcx_fused_pair &pair,
							     struct wcx_fused_base<format_type> *base, uint32_t line,
							     uint32_t word[WCX_FUSED_LINES])
{
	constexpr uint32_t line_elems = wcx_elems_of_line<format_type::elem_bytes>;

	if (base->wakes_at >= (line + WCX_FUSED_LINES) * line_elems)
		return;
	wcx_fused_correct_words(pair.of_base, pair.base, base, line, word);
	base->wakes_at = pair.keeps_base ? 0 : base->next_at;
	if (pair.keeps_base)
#pragma unroll
		for (uint32_t i = 0; i < WCX_FUSED_LINES; i++)
			((uint32_t *)pair.base.dst + wcx_lane())[(line + i) * WCX_LANES] = word[i];
}

/*
 * Where blocks from this line on have to stop: before the last one, before one of which the base has to be finished, and
 * where escapes are looked up.  So the loop over blocks does not ask, and what is needed between them takes none of its
 * registers.
 */
template <typename fused>
static __device__ __forceinline__ uint32_t wcx_fused_stop(const wcx_fused_base_of<fused> &base, uint32_t line, uint32_t end)
{
	const uint32_t flush = fused::has_escapes ? WCX_ALIGN_UP(line + 1, WCX_ESCAPE_LINES) : end;
	const uint32_t wake = base.wakes_at / (WCX_FUSED_LINES * wcx_elems_of_line<fused::elem_bytes>)*WCX_FUSED_LINES;
	uint32_t ret = min(min(end - WCX_FUSED_LINES, wake), flush);

	wcx_keep(&ret);
	return ret;
}

/* The number of lines that whole blocks cover: all of them, or fewer by those that share the base's last unit with the rest.
 */
template <uint32_t elem_bytes>
static __device__ __forceinline__ uint32_t wcx_fused_end(const struct wcx_batch_kind &base_kind, const wcx_device_tile &base)
{
	const struct wcx_batch_plane &plane = base_kind.planes[base_kind.plane_count - 1];
	const uint32_t whole = base.elems / (WCX_FUSED_LINES * wcx_elems_of_line<elem_bytes>)*WCX_FUSED_LINES;
	const uint32_t last_unit = (wcx_units(plane, base.lines) - 1) << plane.unit_bits;

	return whole * wcx_elems_of_line<elem_bytes> == base.elems
		       ? whole
		       : min(whole, last_unit / WCX_FUSED_LINES * WCX_FUSED_LINES);
}

/* Decodes the end of the base to device memory, from a line on; false if the tile is damaged. */
template <typename format_type>
static __device__ __forceinline__ bool wcx_fused_end_base(const struct wcx_warp &warp, const wcx_device_tile &tile,
							  struct wcx_fused_base<format_type> *base, uint32_t line)
{
	constexpr uint32_t elem_bytes = format_type::elem_bytes;
	using elem = wcx_elem<elem_bytes>;
	const struct wcx_batch_kind &kind = warp.kind;
	const struct wcx_batch_field &field = kind.coded[0];
	const struct wcx_tail tail = wcx_tail_load(kind, tile);
	const wcx_fast_tables tables = { 0 };
	const elem mask = (elem)wcx_place_word<elem_bytes>(kind.transform, ((1u << field.width) - 1) << field.shift);

	wcx_store_coded_lines<elem_bytes, wcx_store::ELEMENTS, wcx_numbers::SYMBOLS>(warp, tile, field, tables,
										     &base->payload, line);
	if (!wcx_word_reader_close(base->payload.reader, tile.item.plane_carried))
		return false;
	if (tile.item.plane_carried)
		wcx_add_carried<elem_bytes, wcx_store::ELEMENTS>(kind, tile, tail.unit, base->payload.reader.state);
	__syncwarp(); /* other lanes have stored the elements */
	for (uint32_t first = base->next; first < tile.item.exception_count && base->valid; first += WCX_LANES) {
		const struct wcx_base_exception own = wcx_load_base_exceptions(warp, tile, first, &base->valid);

		if (first + wcx_lane() < tile.item.exception_count) {
			elem *at = (elem *)tile.dst + own.position;
			const elem folded = *at >> (8 * elem_bytes - 1) ? (elem)kind.fold_mask : 0;
			const elem bits = (elem)wcx_place_word<elem_bytes>(kind.transform, own.value << field.shift);

			*at = (elem)((*at & ~mask) | ((bits ^ folded) & mask));
		}
	}
	return base->valid;
}

/* Decodes the end of the difference, from a line on, from the base in device memory. */
template <typename fused>
static __device__ __forceinline__ void
wcx_fused_end_difference(const struct wcx_fused_pair &pair, struct wcx_fused_difference<fused> *difference, uint32_t line)
{
	constexpr uint32_t elem_bytes = fused::elem_bytes, steps = fused::difference_type::steps;
	const struct wcx_factors factors = pair.own.batch.factors;

	__syncwarp(); /* other lanes have stored the elements of the base */
	for (; line < pair.tile.lines; line++) {
		const uint32_t elems = wcx_word_elems_at<elem_bytes>(pair.tile.elems, line);
		const uint32_t own = wcx_base_word<elem_bytes>(pair.tile, line, elems);
		const uint32_t group = line * wcx_elems_of_line<elem_bytes> / WCX_RUN_ELEMS;
		const uint32_t set = fused::has_sets ? difference->payload.choices.from(group) & 3 : 0;
		uint32_t tables[steps], entry[steps];
		constexpr uint32_t step_elems = wcx_elems_of_word<elem_bytes> / steps;

		wcx_fused_find_tables<fused>(pair, difference->format, set, own, tables);
		wcx_word_reader_refill(&difference->payload.reader);
#pragma unroll
		for (uint32_t k = 0; k < steps; k++)
			entry[k] = wcx_fused_step<typename fused::difference_type, true>(
				&difference->payload.reader, tables[k], k * step_elems < elems, factors);
		wcx_store_word<elem_bytes, false>(wcx_word_at<elem_bytes>(pair.tile.dst, line), elems,
						  difference->format.word(entry, 0, 0, own, factors));
		if constexpr (fused::has_escapes) {
			for (uint32_t k = elems; k < 2; k++)
				entry[k] = 0;
			wcx_note_escapes(difference->escapes.bits, line, entry, factors);
			wcx_fused_flush<fused>(*difference, line + 1);
		}
	}
	if constexpr (fused::has_escapes)
		wcx_flush_escapes(difference->escapes.bits, line / WCX_ESCAPE_LINES * WCX_ESCAPE_LINES, line);
}

/* Starts to load the payload of the difference. */
template <typename fused>
static __device__ __forceinline__ void wcx_fused_open(const struct wcx_fused_pair &pair,
						      struct wcx_fused_difference<fused> *ret)
{
	const struct wcx_tile_item &item = pair.tile.item;

	wcx_payload_open(pair.own, pair.tile, pair.own.kind.coded[0], item.carrier, &ret->payload);
	ret->escapes = { pair.own.ring + WCX_WARP_SHARED_BYTES };
	if (fused::has_escapes)
		wcx_open_escapes(ret->escapes, pair.tile);
}

/* Ends the difference, whose lines are all decoded. */
template <typename fused>
static __device__ __forceinline__ bool wcx_fused_close(const struct wcx_fused_pair &pair,
						       const struct wcx_fused_difference<fused> &difference,
						       const struct wcx_tail &tail)
{
	const bool valid = wcx_word_reader_close(difference.payload.reader, pair.tile.item.exceptions_carried);

	if constexpr (fused::has_escapes)
		return valid && wcx_close_escapes(difference.escapes, pair.tile, difference.payload.reader.state);
	else
		return valid && wcx_store_exceptions<fused::elem_bytes, wcx_store::DIFFERENCES>(
					pair.own.kind, pair.tile, tail, difference.payload.reader.state);
}

/* Decodes a difference whose base is in memory. */
template <typename fused> static __device__ __forceinline__ bool wcx_fused_decode_alone(const struct wcx_fused_pair &pair)
{
	const uint32_t end = pair.tile.elems / (WCX_FUSED_LINES * wcx_elems_of_line<fused::elem_bytes>)*WCX_FUSED_LINES;
	uint32_t *dst = (uint32_t *)pair.tile.dst + wcx_lane();
	struct wcx_fused_difference<fused> difference(pair.own.kind);
	wcx_no_base<fused> none(pair.own.kind);
	uint32_t own[WCX_FUSED_LINES], line = 0;

	wcx_fused_open(pair, &difference);
	wcx_base_ahead<WCX_FUSED_LINES> base(pair.tile, end != 0);

	wcx_payload_start(pair.own, pair.tile, pair.own.kind.coded[0], pair.tile.item.carrier, &difference.payload);
	for (; line < end; line += WCX_FUSED_LINES) {
		base.take(own, line + WCX_FUSED_LINES < end);
		wcx_fused_block<fused, false, true>(pair, &none, &difference, line, dst, own, NULL);
		dst += WCX_FUSED_LINES * WCX_LANES;
		wcx_fused_flush<fused>(difference, line + WCX_FUSED_LINES);
	}
	wcx_fused_end_difference(pair, &difference, line);
	return wcx_fused_close(pair, difference, {});
}

/* Decodes a base and its difference. */
template <typename fused>
static __device__ __forceinline__ bool wcx_fused_decode(const struct wcx_fused_pair &pair, bool *base_valid_ret)
{
	constexpr uint32_t elem_bytes = fused::elem_bytes;
	const struct wcx_batch_field &base_field = pair.of_base.kind.coded[0];
	const struct wcx_tile_item &base_item = pair.base.item;
	const uint32_t end = wcx_fused_end<elem_bytes>(pair.of_base.kind, pair.base);
	const bool is_whole = end * wcx_elems_of_line<elem_bytes> == pair.base.elems;
	struct wcx_fused_difference<fused> difference(pair.own.kind);
	wcx_fused_base_of<fused> base(pair.of_base.kind);
	uint32_t word[WCX_FUSED_LINES] = {}, line = 0;

	base.planes.open(pair.of_base.kind, pair.base, pair.base.src + base_item.planes, 0);
	base.raw_mask = base.planes.masks();
	if (wcx_loads_halves)
		base.planes.begin();
	else
		base.planes.load(0);
	wcx_payload_open(pair.of_base, pair.base, base_field, base_item.carrier, &base.payload);
	wcx_fused_open(pair, &difference);
	wcx_fused_open_exceptions(pair.of_base, pair.base, pair.keeps_base, &base);
	wcx_payload_start(pair.of_base, pair.base, base_field, base_item.carrier, &base.payload);
	wcx_payload_start(pair.own, pair.tile, pair.own.kind.coded[0], pair.tile.item.carrier, &difference.payload);
	if (end) {
		uint32_t *dst = (uint32_t *)pair.tile.dst + wcx_lane();

		wcx_fused_block<fused, true, false>(pair, &base, &difference, 0, dst, word, word);
		while (line + WCX_FUSED_LINES < end) {
			wcx_fused_finish_base(pair, &base, line, word);
			const uint32_t stop = wcx_fused_stop<fused>(base, line, end);

			do {
				wcx_fused_block<fused, true, true>(pair, &base, &difference, line, dst, word, word);
				line += WCX_FUSED_LINES;
				dst += WCX_FUSED_LINES * WCX_LANES;
			} while (line < stop);
			wcx_fused_flush<fused>(difference, line);
		}
		if (is_whole)
			wcx_fused_add_carried(pair.of_base, pair.base, base, line, word);
		wcx_fused_finish_base(pair, &base, line, word);
		wcx_fused_block<fused, false, true>(pair, &base, &difference, line, dst, word, word);
		line += WCX_FUSED_LINES;
		wcx_fused_flush<fused>(difference, line);
	}
	if (is_whole)
		*base_valid_ret = wcx_word_reader_close(base.payload.reader, base_item.plane_carried) && base.valid;
	else
		*base_valid_ret = wcx_fused_end_base(pair.of_base, pair.base, &base, line);
	const struct wcx_tail tail = fused::has_escapes ? wcx_tail{} : wcx_tail_load(pair.own.kind, pair.tile);

	if (!is_whole || fused::has_escapes)
		wcx_fused_end_difference(pair, &difference, line);
	return wcx_fused_close(pair, difference, tail);
}

/* --- Kernels --- */

/* Decodes the items of a kind, one by one, until none are left. */
template <typename fused>
static __device__ __forceinline__ void wcx_fused_decode_items(const struct wcx_warp &of_base, const struct wcx_warp &own,
							      uint32_t kind, uint32_t tables)
{
	const struct wcx_batch_dev &batch = own.batch;

	for (;;) {
		const int left = wcx_take_item(batch, kind);

		if (left <= 0)
			return;
		const struct wcx_tile_item &item = batch.items[own.kind.first_item + left - 1];
		const uint32_t lines = WCX_DIV_UP(item.elems, wcx_elems_of_line<fused::elem_bytes>);
		wcx_device_tile tile = { item, batch.src + item.src, batch.dst + item.dst, batch.dst + item.base, item.elems,
					 lines };
		bool valid;

		if constexpr (fused::has_base) {
			const struct wcx_tile_item &base_item = batch.items[item.base_item];
			const wcx_device_tile base = {
				base_item, batch.src + base_item.src, batch.dst + base_item.dst, NULL, item.elems, lines
			};
			bool base_valid;

			valid = wcx_fused_decode<fused>(
				{ of_base, own, base, tile, tables, !fused::has_escapes && item.exception_count != 0 },
				&base_valid);
			if (wcx_lane() == 0)
				batch.status[base_item.number] = batch.mark | (base_valid ? WCX_OK : WCX_BAD_DATA);
		} else {
			valid = wcx_fused_decode_alone<fused>({ of_base, own, tile, tile, tables, false });
		}
		if (wcx_lane() == 0)
			batch.status[item.number] = batch.mark | (valid ? WCX_OK : WCX_BAD_DATA);
	}
}

/* Gives all items of an unknown kind an error status, and their bases too. */
template <typename fused>
static __device__ __forceinline__ void wcx_fused_refuse_items(const struct wcx_warp &own, uint32_t kind)
{
	const struct wcx_batch_dev &batch = own.batch;

	for (int left = wcx_take_item(batch, kind); left > 0; left = wcx_take_item(batch, kind)) {
		const struct wcx_tile_item &item = batch.items[own.kind.first_item + left - 1];

		if (wcx_lane() == 0)
			batch.status[item.number] = batch.mark | WCX_BAD_DATA;
		if (fused::has_base && wcx_lane() == 0)
			batch.status[batch.items[item.base_item].number] = batch.mark | WCX_BAD_DATA;
	}
}

/* Writes the tables of the difference and its contexts, those of each set. */
template <typename fused>
static __device__ __forceinline__ void wcx_fused_build(const struct wcx_warp &own, uint32_t tables, uint32_t *contexts,
						       struct wcx_batch_table *staging)
{
	const struct wcx_batch_field &field = own.kind.coded[0];
	uint32_t *entries = (uint32_t *)((uint8_t *)wcx_shared + tables - wcx_shared_address(wcx_shared));

	for (uint32_t set = 0; fused::multi && set < (fused::has_sets ? 1u << field.choice_bits : 1u); set++)
		wcx_contexts_build(own.kind, tables + set * (field.table_count >> field.choice_bits) * fused::table_bytes,
				   field.by_context ? fused::table_bytes : 0, contexts + set * WCX_CONTEXT_KEYS);
	__syncthreads();
	if constexpr (fused::has_escapes)
		wcx_coarse_entries_build(own.batch.tables + field.table, field.table_count, staging, entries);
	else
		wcx_entries_build<1>(own.batch.tables + field.table, field.table_count, fused::difference_type::numbers,
				     staging, entries);
}

/*
 * One launch.  Dynamic shared memory: the decoding tables of the bases of the block's current kind, those of the
 * differences, contexts, then for each warp its rings and its list of escapes.
 */
template <typename fused>
static __global__ void __launch_bounds__(fused::warps *WCX_LANES, 1) wcx_decode_fused(const struct wcx_batch_dev batch)
{
	__shared__ struct wcx_batch_kind kind, base_kind;
	__shared__ uint32_t found;
	const uint32_t number = threadIdx.x / WCX_LANES, start = wcx_shared_address(wcx_shared);
	const uint32_t tables = WCX_ALIGN_UP(start + batch.launch.base_table_count * WCX_TABLE_BYTES, fused::align_bytes);
	const uint32_t contexts_at = tables - start + batch.launch.table_count * fused::table_bytes;
	const uint32_t rings_at = contexts_at + fused::contexts_bytes;
	uint32_t *entries = (uint32_t *)wcx_shared, *contexts = entries + contexts_at / 4;
	struct wcx_batch_table *staging = (struct wcx_batch_table *)(entries + rings_at / 4);
	struct wcx_warp of_base = { batch, base_kind, start, contexts };
	struct wcx_warp own = { batch, kind, start, contexts };
	uint32_t at = batch.blocks[blockIdx.x];

	wcx_let_next_launch_start();
	of_base.ring += rings_at + number * fused::warp_bytes;
	own.ring = of_base.ring + (fused::rings - 1) * WCX_WARP_SHARED_BYTES;
	while (wcx_load_next_kind(batch, &at, &found, &kind)) {
		if (fused::has_base)
			wcx_load_kind(batch, kind.base_kind, &base_kind);
		__syncthreads();
		if (fused::has_base)
			wcx_entries_build<1>(batch.tables + base_kind.coded[0].table, base_kind.coded[0].table_count,
					     wcx_numbers::SYMBOLS, staging, entries);
		wcx_fused_build<fused>(own, tables, contexts, staging);
		if (number >= batch.launch.block_warps)
			continue;
		if (wcx_kind_is_known(kind) && (!fused::has_base || wcx_kind_is_known(base_kind)))
			wcx_fused_decode_items<fused>(of_base, own, at, tables);
		else
			wcx_fused_refuse_items<fused>(own, at);
	}
	/* Launches of a batch overlap.  When the last one has completed, so have all, because one block of each waits. */
	if (blockIdx.x == 0)
		wcx_wait_for_last_launch();
}

/* The shape of a launch. */
template <typename fused> static struct wcx_block_shape wcx_fused_shape_of(uint32_t base_table_count, uint32_t table_count)
{
	return { (const void *)wcx_decode_fused<fused>,
		 base_table_count * WCX_TABLE_BYTES + table_count * fused::table_bytes + fused::contexts_bytes +
			 (fused::has_escapes ? fused::align_bytes : 0),
		 fused::warp_bytes };
}

/* The same for a kernel from its formats; there are two versions, for bases with one table and with several. */
template <typename format_type, typename difference_type, bool multi>
static struct wcx_block_shape wcx_fused_shape_from(uint32_t base_table_count, uint32_t table_count)
{
	using base_type = wcx_decoded_base<format_type>;

	if (base_table_count > 1)
		return wcx_fused_shape_of<wcx_fused<base_type, true, difference_type, multi, false>>(base_table_count,
												     table_count);
	return wcx_fused_shape_of<wcx_fused<base_type, false, difference_type, multi, false>>(base_table_count, table_count);
}

#endif
