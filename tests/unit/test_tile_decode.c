/* SPDX-License-Identifier: MIT */
/* Damaged tiles: refused, or decoded as docs/format.md says, without access outside of buffers. */
#include "tests/fixtures/codec_samples.h"

static void tile_cut_or_lengthened_is_refused(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind++) {
		struct model model;
		struct tile tile;
		uint8_t *decoded;

		make_mixed_tile(&model, &tile, kind);
		memset(tile.packed + tile.packed_bytes, 0, tile.bytes - tile.packed_bytes);
		decoded = malloc(tile.bytes);
		for (size_t bytes = 0; bytes <= tile.bytes; bytes++)
			if (bytes != tile.packed_bytes)
				CHECK(decode_exactly(&tile, tile.packed, bytes, decoded) == WCX_BAD_DATA);
		tile.mode = WCX_TILE_STORED;
		CHECK(decode_exactly(&tile, tile.data, tile.bytes - 1, decoded) == WCX_BAD_DATA);
		CHECK(decode_exactly(&tile, tile.data, tile.bytes, decoded) == WCX_OK);
		tile.mode = WCX_TILE_ZSTD;
		CHECK(decode_exactly(&tile, tile.data, tile.bytes, decoded) == WCX_BAD_DATA);
		free(decoded);
		tile_free(&tile);
	}
}

/* Without a carrier, which takes whatever is there, it is the header alone that says where the tile ends. */
static void tile_without_a_carrier_cut_or_lengthened_is_refused(void)
{
	struct model model;
	struct tile tile;
	uint8_t *decoded;

	model_start(&model, 2, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 0);
	model_add(&model, 3, 0, 0, NOISE, 0);
	model_add(&model, 13, 0, 0, EQUAL, 0);
	tile_alloc(&tile, &model, 20, 25);
	tile_draw(&tile, 42);
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == 8 + 2 * 128);
	memset(tile.packed + tile.packed_bytes, 0, tile.bytes - tile.packed_bytes);
	decoded = malloc(tile.bytes);
	for (size_t bytes = 0; bytes <= tile.bytes; bytes++)
		CHECK(decode_exactly(&tile, tile.packed, bytes, decoded) ==
		      (bytes == tile.packed_bytes ? WCX_OK : WCX_BAD_DATA));
	free(decoded);
	tile_free(&tile);
}

/* Two fields of four bits, of which none, the upper one or both are constant: sound but for the size where nothing is saved.
 */
static void coded_tile_that_saves_nothing_is_refused(void)
{
	for (uint32_t n = 1; n <= 300; n++) {
		for (uint32_t constants = 0; constants <= 2; constants++) {
			const struct wcx_tile_dims dims = { 1, n, 1 };
			const uint32_t units = (n + 255) / 256;
			const size_t bytes = 4 + 4 * constants + (2 - constants) * units * 128;
			uint8_t packed[4 + 4 * 128] = { 0 };
			struct wcx_tile_layout layout;
			struct model model;

			if (constants > 0)
				packed[0] |= WCX_FIELD_CONSTANT << 2;
			if (constants > 1)
				packed[0] |= WCX_FIELD_CONSTANT;
			model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
			model_add(&model, 4, 0, 0, NOISE, 0);
			model_add(&model, 4, 0, 0, NOISE, 0);
			CHECK((wcx_tile_parse(&dims, &model.recipe, packed, bytes, &layout) == WCX_OK) == (bytes < n));
		}
	}
}

static void damaged_bytes_are_refused_or_decode_as_the_format_says(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind++) {
		unsigned accepted = 0, refused = 0;
		struct model model;
		struct tile tile;
		uint8_t *decoded;

		make_mixed_tile(&model, &tile, kind);
		decoded = malloc(tile.bytes);
		for (size_t at = 0; at < tile.packed_bytes; at++) {
			for (unsigned change = 1; change < 256;
			     change += change < 128 ? change : 127) { /* each bit, and all */
				enum wcx_result result;

				tile.packed[at] ^= (uint8_t)change;
				result = decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded);
				tile.packed[at] ^= (uint8_t)change;
				accepted += result == WCX_OK;
				refused += result != WCX_OK;
			}
		}
		CHECK(accepted > 0 && refused > 0);
		free(decoded);
		tile_free(&tile);
	}
}

/* Bits that belong to no element, symbol or state: what is there is the same tile. */
static void what_is_written_as_zero_and_not_checked_may_be_anything(void)
{
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	size_t places[8], count = 0, state_bits = 0;
	uint8_t *decoded;

	make_mixed_tile(&model, &tile, 0);
	layout = layout_of(&tile);
	/* The unit of lines 16 to 18 shows bits 31 and 0 of each rotated by 0, 2 and 4: 31 and 0 to 4.  In that of bit 1,
	 * which lies at 1, 19 lines show 1 to 19. */
	places[count++] = 8 * (layout.planes[0].offset + 128) + 5;
	places[count++] = 8 * (layout.planes[0].offset + 128 + 4 * 31) + 30;
	places[count++] = 8 * layout.planes[1].offset + 20;
	/* Two elements of lane 24 and of those above are missing in the last line. */
	places[count++] = 8 * (layout.planes[0].offset + 128 + 4 * 24) + 4;
	/* Five choices have a bit each. */
	places[count++] = 8 * (layout.coded[0].offset - 4) + 5;
	places[count++] = 8 * (layout.coded[0].offset - 4) + 31;
	/* The last bit of the start states, if it is none. */
	for (uint32_t i = 0; i < 2; i++) {
		state_bits = 8 * 16;
		for (uint32_t l = 0; l < 32; l++)
			state_bits += 16 + bits_at(tile.packed + layout.coded[i].offset, 4 * l, 4);
		if (state_bits < 8 * layout.coded[i].states_bytes)
			places[count++] = 8 * (layout.coded[i].offset + layout.coded[i].states_bytes) - 1;
	}
	CHECK(count > 6);
	decoded = malloc(tile.bytes);
	for (size_t i = 0; i < count; i++) {
		CHECK(bits_at(tile.packed, places[i], 1) == 0);
		tile.packed[places[i] / 8] ^= (uint8_t)(1u << places[i] % 8);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
		tile.packed[places[i] / 8] ^= (uint8_t)(1u << places[i] % 8);
	}
	free(decoded);
	tile_free(&tile);

	/* The byte that makes three exceptions of three bytes even. */
	make_pair_tile(&model, &tile, 1, 2000);
	for (uint32_t i = 0; i < 3; i++)
		change_value(&tile, 600 * i, 1, 9);
	encode_tile(&tile);
	layout = layout_of(&tile);
	CHECK(layout.exception_count == 3 && layout.exception_bytes == 10);
	decoded = malloc(tile.bytes);
	tile.packed[layout.exception_offset + 9] ^= 0xFF;
	CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
	free(decoded);
	tile_free(&tile);
}

/* Damage of many bytes at once, and tiles of nothing but noise behind sound headers. */
static void noise_is_never_written_outside_the_tile(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind++) {
		struct sample_random random = { 51 };
		const size_t header = kind < 2 ? 16 : 4;
		struct model model;
		struct tile tile;
		uint8_t *decoded, *noise;

		make_mixed_tile(&model, &tile, kind);
		decoded = malloc(tile.bytes);
		noise = malloc(tile.packed_bytes);
		for (int round = 0; round < 1000; round++) {
			memcpy(noise, tile.packed, tile.packed_bytes);
			if (round % 2)
				sample_fill(&random, SAMPLE_UNIFORM, 0, noise + header, tile.packed_bytes - header);
			for (int i = 0; i < 8; i++)
				noise[sample_below(&random, tile.packed_bytes)] = (uint8_t)sample_next(&random);
			decode_exactly(&tile, noise, tile.packed_bytes, decoded);
		}
		free(noise);
		free(decoded);
		tile_free(&tile);
	}
}

/* Changes the header of a mixed tile, in turn, by bits of one of its words; each must be refused. */
struct header_change {
	uint32_t word, change;
	enum wcx_result parsed; /* what can be told before anything is decoded */
	const char *why;
};

static void check_header_changes(uint32_t kind, const struct header_change *changes, size_t count)
{
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	uint8_t *decoded;

	make_mixed_tile(&model, &tile, kind);
	decoded = malloc(tile.bytes);
	for (size_t i = 0; i < count; i++) {
		uint8_t *word = tile.packed + 4 * changes[i].word;
		uint32_t sound = wcx_le32_read(word);

		wcx_le32_write(word, sound ^ changes[i].change);
		if (!CHECK(wcx_tile_parse(&tile.dims, &model.recipe, tile.packed, tile.packed_bytes, &layout) ==
			   changes[i].parsed))
			fprintf(stderr, "\t%s\n", changes[i].why);
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		wcx_le32_write(word, sound);
	}
	/* Without any change it is sound. */
	CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
	free(decoded);
	tile_free(&tile);
}

static void headers_that_break_a_rule_are_refused(void)
{
	/* Fields 0 to 3 are raw, coded, constant and coded; a number has the bytes of 1, and another the value of 2. */
	static const struct header_change mixed[] = {
		{ 0, 3 << 0, WCX_BAD_DATA, "coding 3" },
		{ 0, 2 << 2, WCX_BAD_DATA, "coding 3" },
		{ 0, 1 << 4, WCX_BAD_DATA, "coding 3" },
		{ 0, 2 << 6, WCX_BAD_DATA, "coding 3" },
		{ 0, 1 << 8, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 2 << 8, WCX_BAD_DATA, "a constant field that there is not" },
		{ 0, 3 << 8, WCX_BAD_DATA, "coding 3 of a field that there is not" },
		{ 0, 1 << 14, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 1 << 18, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 2 << 18, WCX_BAD_DATA, "a constant field that there is not" },
		{ 0, 3 << 18, WCX_BAD_DATA, "coding 3 of a field that there is not" },
		{ 0, 1 << 0, WCX_BAD_DATA, "rANS without a table" },
		{ 0, 3 << 4, WCX_BAD_DATA, "rANS without a table" },
		{ 0, 1 << 6, WCX_BAD_DATA, "raw field where a payload was" },
		{ 0, 1 << 2, WCX_BAD_DATA, "raw field where a payload was" },
		{ 0, 2 << 4, WCX_BAD_DATA, "raw field where one was constant" },
		{ 0, 2 << 0, WCX_BAD_DATA, "constant field where one was raw" },
		{ 0, 1u << 31, WCX_BAD_DATA, "exceptions behind the end" },
		{ 1, 1, WCX_BAD_DATA, "odd payload" },
		{ 1, 2, WCX_OK, "payload that takes a word of the next" },
		{ 1, 4, WCX_OK, "payload that takes words of the next" },
		{ 1, 1u << 12, WCX_BAD_DATA, "payload behind the end" },
		{ 1, 1u << 31, WCX_BAD_DATA, "payload behind the end" },
		{ 2, 1 << 8, WCX_BAD_DATA, "constant beyond the field's width" },
		{ 2, 1u << 31, WCX_BAD_DATA, "constant beyond the field's width" },
	};
	/* Fields 0 and 1 are raw and coded, and there is no number. */
	static const struct header_change folded[] = {
		{ 0, 3 << 0, WCX_BAD_DATA, "coding 3" },
		{ 0, 2 << 2, WCX_BAD_DATA, "coding 3" },
		{ 0, 1 << 0, WCX_BAD_DATA, "rANS without a table" },
		{ 0, 2 << 0, WCX_BAD_DATA, "constant field where one was raw" },
		{ 0, 3 << 2, WCX_BAD_DATA, "constant field where pairs were" },
		{ 0, 1 << 2, WCX_BAD_DATA, "raw field where pairs were" },
		{ 0, 1 << 4, WCX_BAD_DATA, "a coded field that there is not" },
		{ 0, 1u << 31, WCX_BAD_DATA, "exceptions behind the end" },
	};

	check_header_changes(0, mixed, WCX_ARRAY_COUNT(mixed));
	check_header_changes(2, folded, WCX_ARRAY_COUNT(folded));
}

/* A tile of nothing but a constant and a payload without words, sound if the field of the payload has tables. */
static void coded_field_without_tables_is_refused(void)
{
	static const uint32_t table_counts[] = { 0, 1, 2, 4 };

	for (uint32_t i = 0; i < 8; i++) {
		const uint32_t f = i / 4, tables = table_counts[i % 4];
		uint8_t packed[8 + 4 + 80] = { 0 }, dst[400];
		const size_t bytes = 8 + (tables > 1 ? 4 : 0) + 80;
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;

		model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, tables > 1 ? 128 : 0);
		model_add(&model, 4, f == 0 ? tables : 0, 0, BELL, 0);
		model_add(&model, 4, f == 1 ? tables : 0, 0, BELL, 0);
		tile_alloc(&tile, &model, 1, sizeof dst);
		tile.mode = WCX_TILE_CODED;
		wcx_le32_write(packed, (uint32_t)WCX_FIELD_RANS << 2 * f | (uint32_t)WCX_FIELD_CONSTANT << 2 * (1 - f));
		CHECK(wcx_tile_parse(&tile.dims, &model.recipe, packed, bytes, &layout) == (tables ? WCX_OK : WCX_BAD_DATA));
		if (!tables)
			CHECK(decode_exactly(&tile, packed, bytes, dst) == WCX_BAD_DATA);
		tile_free(&tile);
	}
}

/* Any number of them, in a tile of a raw and a constant field that is sound without. */
static void exceptions_without_a_carrier_are_refused(void)
{
	const struct wcx_tile_dims dims = { 1, 1000, 1 };
	uint8_t packed[8 + 4 * 128] = { [0] = WCX_FIELD_CONSTANT << 2 };
	struct sample_random random = { 56 };
	struct wcx_tile_layout layout;
	struct model model;

	sample_fill(&random, SAMPLE_UNIFORM, 0, packed + 8, sizeof packed - 8);
	model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 1, 0, BELL, 0)->is_pair = 1;
	for (uint32_t exceptions = 0; exceptions <= WCX_EXCEPTIONS_MAX; exceptions++) {
		wcx_le32_write(packed, WCX_FIELD_CONSTANT << 2 | exceptions << 20);
		CHECK((wcx_tile_parse(&dims, &model.recipe, packed, sizeof packed, &layout) == WCX_OK) == (exceptions == 0));
	}
}

/* Exceptions of the tiles that store them, changed in turn. */
static void exceptions_that_break_a_rule_are_refused(void)
{
	for (uint32_t kind = 0; kind < MIXED_KINDS; kind += 2) {
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;
		uint8_t *decoded, *positions, *values;

		make_mixed_tile(&model, &tile, kind);
		decoded = malloc(tile.bytes);
		layout = layout_of(&tile);
		positions = tile.packed + layout.exception_offset;
		values = positions + 2 * layout.exception_count;
		for (uint32_t i = 0; i < layout.exception_count; i++) {
			uint32_t last = i + 1 == layout.exception_count, position = wcx_le16_read(positions + 2 * i);
			uint32_t next = last ? (uint32_t)tile.n : wcx_le16_read(positions + 2 * i + 2);
			uint8_t *value = kind ? values + i : values + 2 * i, before = *value;

			wcx_le16_write(positions + 2 * i, next);
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
			wcx_le16_write(positions + 2 * i, next - 1);
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
			wcx_le16_write(positions + 2 * i, 0xFFFF);
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
			wcx_le16_write(positions + 2 * i, position);
			/* In 16 bits, any value is one; in four, those up to 15. */
			*value = kind ? 15 : 0xFF;
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
			*value = 16;
			CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) ==
			      (kind ? WCX_BAD_DATA : WCX_OK));
			*value = before;
		}
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
		free(decoded);
		tile_free(&tile);
	}
}

/* Beyond the width of fields of 6 and 10 bits, whose one exception the tile has at the end of what precedes the payloads. */
static void exception_beyond_its_field_is_refused(void)
{
	for (uint32_t f = 0; f < 2; f++) {
		uint8_t *decoded, *value;
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;

		make_two_field_tile(&model, &tile, 1, 0);
		for (size_t i = 0; i < tile.n && f == 0; i++)
			change_value(&tile, i, 1, 33);
		change_value(&tile, 17, f, f ? 63 : 1023);
		encode_tile(&tile);
		layout = layout_of(&tile);
		CHECK(layout.exception_count == 1);
		decoded = malloc(tile.bytes);
		value = tile.packed + layout.exception_offset + 2;
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
		value[1 - f]++; /* 1023 + 256, 63 + 1 */
		CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		free(decoded);
		tile_free(&tile);
	}
}

/*
 * Payloads from nothing to more than the choices and states, which take 16 bytes and 16 to 31 bits each, as their widths
 * say; of the carrier, which ends the tile, and of a field before it, whose bytes the header has.
 */
static void payload_that_is_odd_or_too_short_for_its_states_is_refused(void)
{
	static const struct {
		uint32_t tables;
		uint8_t widths; /* a byte of them */
		uint32_t least;
	} cases[] = {
		{ 1, 0x00, 16 + 32 * 16 / 8 },
		{ 2, 0x00, 4 + 16 + 32 * 16 / 8 },
		{ 4, 0x00, 4 + 16 + 32 * 16 / 8 },
		{ 1, 0xFF, 16 + 32 * 31 / 8 },
		{ 2, 0xFF, 4 + 16 + 32 * 31 / 8 },
		{ 1, 0x01, 16 + (16 * 17 + 16 * 16) / 8 },
		{ 1, 0x80, 16 + (16 * 24 + 16 * 16) / 8 },
	};
	const struct wcx_tile_dims dims = { 1, 400, 2 };
	struct wcx_tile_layout layout;

	for (size_t c = 0; c < WCX_ARRAY_COUNT(cases); c++) {
		const uint32_t states_at = cases[c].tables > 1 ? 4 : 0, least = cases[c].least;

		for (uint32_t bytes = 0; bytes <= 160; bytes++) {
			uint8_t alone[8 + 160] = { 0 }, first[8 + 160 + 2 + 80] = { 0 };
			int sound = bytes >= least && bytes % 2 == 0;
			struct model model;

			model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, cases[c].tables > 1 ? 128 : 0);
			model_add(&model, 8, cases[c].tables, 0, BELL, 0);
			model_add(&model, 8, 1, 0, BELL, 0);
			memset(alone + 8 + states_at, cases[c].widths, bytes < 16 ? bytes : 16);
			wcx_le32_write(alone, WCX_FIELD_RANS | WCX_FIELD_CONSTANT << 2);
			CHECK((wcx_tile_parse(&dims, &model.recipe, alone, 8 + bytes, &layout) == WCX_OK) == sound);

			memset(first + 8 + states_at, cases[c].widths, bytes < 16 ? bytes : 16);
			wcx_le32_write(first, WCX_FIELD_RANS | WCX_FIELD_RANS << 2);
			wcx_le32_write(first + 4, bytes);
			/* The carrier's, of 80 bytes, starts at a multiple of 4. */
			memset(first + 8 + padded(bytes, 4), 0, 80);
			CHECK((wcx_tile_parse(&dims, &model.recipe, first, 8 + padded(bytes, 4) + 80, &layout) == WCX_OK) ==
			      sound);
		}
	}
}

static void dims_out_of_limits_and_wrong_sizes_are_refused(void)
{
	static const struct wcx_tile_dims bad[] = {
		{ 0, 1, 1 },
		{ 1, 0, 1 },
		{ 1, 1, 0 },
		{ 1, 1, 3 },
		{ 1, 1, 16 },
		{ 1, 65537, 1 },
		{ 257, 256, 1 },
		{ 1u << 31, 2, 1 },
		{ UINT32_MAX, UINT32_MAX, 8 },
		{ 1, 8, 2 } /* not the recipe's */,
	};
	uint8_t src[64] = { 0 }, dst[64];
	struct wcx_tile_layout layout;
	struct model model;

	model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&model, 8, 0, 0, NOISE, 0);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(bad); i++) {
		struct wcx_tile_job job = {
			.dims = bad[i],
			.mode = WCX_TILE_CODED,
			.recipe = &model.recipe,
			.src = src,
			.src_bytes = 16,
			.dst = dst,
			.dst_bytes = i + 1 < WCX_ARRAY_COUNT(bad) ? 64 : 16,
		};
		struct wcx_encoded_tile encoded;

		CHECK((wcx_tile_dims_bytes(&bad[i]) == 0) == (i + 1 < WCX_ARRAY_COUNT(bad)));
		for (unsigned v = 0; wcx_decode_variant_at(v); v++) {
			job.result = WCX_OK;
			CHECK(wcx_tile_decode(&job, decode_scratch[v]) == WCX_WRONG_SIZE && job.result == WCX_WRONG_SIZE);
		}
		CHECK(wcx_tile_parse(&bad[i], &model.recipe, src, 16, &layout) == WCX_WRONG_SIZE);
		CHECK(wcx_tile_encode(&bad[i], src, &model.recipe, encode_scratch, dst, &encoded) == WCX_WRONG_SIZE);
	}
	for (size_t dst_bytes = 0; dst_bytes < 64; dst_bytes++) {
		struct wcx_tile_job job = {
			.dims = { 4, 2, 8 },
			.mode = WCX_TILE_CONSTANT,
			.dst = dst,
			.dst_bytes = dst_bytes,
		};

		CHECK(wcx_tile_decode(&job, decode_scratch[0]) == WCX_WRONG_SIZE && job.result == WCX_WRONG_SIZE);
	}
	CHECK(wcx_tile_dims_bytes(&(struct wcx_tile_dims){ 256, 256, 8 }) == WCX_TILE_MAX_BYTES);
}

static void unknown_transforms_and_predictors_are_refused(void)
{
	static const struct {
		uint8_t transform, predictor;
	} cases[] = { { 3, 0 }, { 4, 0 }, { 128, 0 }, { 255, 0 }, { 0, 4 }, { 0, 5 }, { 0, 128 }, { 0, 255 }, { 3, 4 } };
	struct model model;
	struct tile tile;

	model_start(&model, 1, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 1, 0, BELL, 1);
	tile_alloc(&tile, &model, 64, 64);
	tile_draw(&tile, 20);
	model_learn(&model, &tile, 0);
	encode_tile(&tile);
	CHECK(tile.mode == WCX_TILE_CODED);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		uint8_t *decoded = guarded_alloc(tile.bytes), dst[64 * 64];
		uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT] = { { 0 } }, counted = 0;
		struct wcx_field_counts counts[WCX_FIELDS_MAX] = { [1] = { count, 0 } };
		struct wcx_encoded_tile encoded;
		struct wcx_tile_layout layout;

		model.recipe.transform = cases[i].transform;
		model.recipe.predictor = cases[i].predictor;
		for (unsigned v = 0; wcx_decode_variant_at(v); v++)
			CHECK(decode_with(v, &tile, tile.packed, tile.packed_bytes, decoded) == WCX_BAD_DATA);
		CHECK(wcx_tile_parse(&tile.dims, &model.recipe, tile.packed, tile.packed_bytes, &layout) == WCX_BAD_DATA);
		CHECK(wcx_tile_encode(&tile.dims, tile.data, &model.recipe, encode_scratch, dst, &encoded) == WCX_BAD_DATA);
		CHECK(wcx_tile_count(&tile.dims, tile.data, NULL, &model.recipe, encode_scratch, counts) == WCX_BAD_DATA);
		for (size_t t = 0; t < WCX_FIELD_TABLES_MAX; t++)
			for (size_t s = 0; s < WCX_SYMBOL_COUNT; s++)
				counted += count[t][s];
		CHECK(counted + counts[1].misfits == 0);
		guarded_free(decoded);
	}
	tile_free(&tile);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(tile_cut_or_lengthened_is_refused),
		CHECK_TEST(tile_without_a_carrier_cut_or_lengthened_is_refused),
		CHECK_TEST(coded_tile_that_saves_nothing_is_refused),
		CHECK_TEST(damaged_bytes_are_refused_or_decode_as_the_format_says),
		CHECK_TEST(what_is_written_as_zero_and_not_checked_may_be_anything),
		CHECK_TEST(noise_is_never_written_outside_the_tile),
		CHECK_TEST(headers_that_break_a_rule_are_refused),
		CHECK_TEST(coded_field_without_tables_is_refused),
		CHECK_TEST(exceptions_without_a_carrier_are_refused),
		CHECK_TEST(exceptions_that_break_a_rule_are_refused),
		CHECK_TEST(exception_beyond_its_field_is_refused),
		CHECK_TEST(payload_that_is_odd_or_too_short_for_its_states_is_refused),
		CHECK_TEST(dims_out_of_limits_and_wrong_sizes_are_refused),
		CHECK_TEST(unknown_transforms_and_predictors_are_refused),
	};

	return codec_samples_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
