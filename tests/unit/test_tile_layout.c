/* SPDX-License-Identifier: MIT */
/* Where the bits of a tile lie: known bytes, and positions computed from docs/format.md. */
#include "tests/fixtures/codec_samples.h"

/*
 * A tile of 200 weights of a byte: folded, four raw bits, and four coded as pairs, of which only 0 and 1 occur, alike often:
 * pairs have a frequency of 1024 each.  Made from the text of the format alone:
 *
 *	u = [(7 * i ^ i * i // 5) & 15 | (i * i // 3 & 1) << 4 for i in range(200)]
 *	el = [(x ^ 0xF0 * (x & 1)) >> 1 | (x & 1) << 7 for x in u]
 *	unit = [0] * 32
 *	for i in range(200):
 *		raw = (el[i] & 0x87) << 8 * (i % 4) << 4 * (i // 128)
 *		unit[i % 128 // 4] |= (raw | raw >> 32) & 0xFFFFFFFF
 *	plane = b"".join(x.to_bytes(4, "little") for x in unit)
 *	state = [0x10000 | int.from_bytes(plane[64 + 2 * l:66 + 2 * l], "little") for l in range(32)]
 *	for i in sorted(range(0, 200, 2), key=lambda i: (i // 128, i % 4, i), reverse=True):
 *		l = i % 128 // 4
 *		pair = (u[i] >> 4) + 2 * (u[i + 1] >> 4)
 *		state[l] = state[l] // 1024 << 12 | state[l] % 1024 + 1024 * pair
 *	widths = sum(x.bit_length() - 17 << 4 * l for l, x in enumerate(state)).to_bytes(16, "little")
 *	bits = "".join(f"{x:b}"[1:] for x in reversed(state))
 *	starts = int(bits, 2).to_bytes((len(bits) + 15) // 16 * 2, "little")
 *	tile = (1 << 2).to_bytes(4, "little") + plane[:64] + widths + starts
 */
static const uint8_t known_tile[] = {
	0x04, 0x00, 0x00, 0x00, 0x68, 0xB3, 0x5F, 0x62, 0x87, 0x13, 0xE6, 0x6C, 0x5A, 0xBF, 0x31, 0xA2, 0x24, 0x15,
	0x9A, 0x02, 0x91, 0x5F, 0x47, 0xAE, 0x0E, 0xD5, 0x7D, 0x04, 0xA5, 0x31, 0x80, 0x4E, 0x3C, 0xD9, 0x13, 0xC4,
	0x06, 0x37, 0xFC, 0x20, 0xF7, 0x39, 0x65, 0xC8, 0x2C, 0xF7, 0x1B, 0x26, 0xC3, 0x57, 0xA2, 0x28, 0x1E, 0xFB,
	0x75, 0xE6, 0x60, 0x51, 0xDE, 0x46, 0xD5, 0x1B, 0x03, 0xEA, 0x4A, 0x91, 0x39, 0x40, 0x88, 0x88, 0x88, 0x88,
	0x88, 0x88, 0x88, 0x88, 0x88, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0xE1, 0xF1, 0x75, 0xC4, 0x06, 0x0B,
	0x78, 0x5D, 0x9C, 0x57, 0xF0, 0x81, 0x02, 0x07, 0x03, 0x80, 0x5C, 0x04, 0x83, 0xF1, 0x05, 0x01, 0x04, 0x87,
	0x00, 0x5F, 0x80, 0x07, 0xF2, 0x01, 0x87, 0x07, 0x03, 0x86, 0x5C, 0x04, 0x02, 0xF3, 0x85, 0x01, 0x06, 0x83,
	0x04, 0x5D, 0x04, 0x82, 0xF2, 0x01, 0x81, 0x07, 0x07, 0x07, 0x5E, 0x84, 0x06, 0x71, 0x58, 0x40, 0x04, 0x85,
	0x1D, 0x00, 0x28, 0x07, 0x04, 0x05, 0x38, 0xC0, 0x85, 0x06, 0x73, 0x40, 0x48, 0x00, 0x87, 0x1D, 0x50, 0x00,
	0x83, 0x04, 0x47, 0x38, 0xE0, 0x05, 0x83, 0x73, 0x20, 0x48, 0x00, 0x00,
};

static void known_tile_decodes_to_known_elements_and_back(void)
{
	uint8_t *decoded;
	struct model model;
	struct tile tile;

	model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 1, 0, BELL, 0)->is_pair = 1;
	model.tables[1][0] = (struct wcx_freq_table){ .freq = { 2048, 2048 } };
	tile_alloc(&tile, &model, 8, 25);
	for (unsigned i = 0; i < 200; i++) {
		unsigned u = ((7 * i ^ i * i / 5) & 15) | (i * i / 3 & 1) << 4;

		u ^= u & 1 ? 0xF0 : 0;
		tile.data[i] = (uint8_t)(u >> 1 | (u & 1) << 7);
	}
	tile.mode = WCX_TILE_CODED;
	decoded = malloc(tile.bytes);
	CHECK(decode_exactly(&tile, known_tile, sizeof known_tile, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
	encode_tile(&tile);
	CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == sizeof known_tile);
	CHECK(memcmp(tile.packed, known_tile, sizeof known_tile) == 0);
	free(decoded);
	tile_free(&tile);
}

/* CRC-32 as in zlib, bit by bit. */
static uint32_t crc32_of(const uint8_t *src, size_t bytes)
{
	uint32_t crc = 0xFFFFFFFF;

	for (size_t i = 0; i < 8 * bytes; i++) {
		crc ^= (uint32_t)(src[i / 8] >> i % 8 & 1);
		crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
	}
	return ~crc;
}

/*
 * Tiles of 2500 elements of each size, too large to stand here: of each the size and the CRC-32.  Their lowest bits are raw
 * noise, and the symbols above are the numbers of heads of four or of ten coins, which change places every 256 elements, so
 * that of two tables each takes its turn.  Made from the text of the format alone, for each by known(elem_bytes, transform,
 * bits that are raw, base, ZERO, PAIRS), in half a minute:
 *
 *	import math, zlib
 *
 *	def number(values, widths):
 *	    bits = "".join(f"{v:0{w}b}" for v, w in reversed(list(zip(values, widths))))
 *	    return int(bits, 2), len(bits)
 *
 *	def pair_freqs(m):
 *	    q = [m[p % 16] * m[p // 16] for p in range(256)]
 *	    f = lambda k: [max(1, x * k >> 28) if x >= 256 else 0 for x in q]
 *	    freqs = f(max(k for k in range(2**18) if sum(f(k)) <= 4096))
 *	    freqs[q.index(max(q))] += 4096 - sum(freqs)
 *	    return freqs
 *
 *	def known(e, transform, raw, base, zero, pair):
 *	    bits, p, seed, u, symbols = 8 * e, max(4 // e, 1), e, [], []
 *	    for i in range(2500):
 *	        seed = seed + 0x9E3779B97F4A7C15 & 2**64 - 1
 *	        z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & 2**64 - 1
 *	        z = (z ^ z >> 27) * 0x94D049BB133111EB & 2**64 - 1
 *	        z ^= z >> 31
 *	        symbols.append(bin(z & (1023 if i // 256 % 2 else 15)).count("1"))
 *	        u.append(z >> 64 - raw | (0 if zero and not symbols[i] else base + symbols[i]) << raw)
 *	    planes, shift = [], 0
 *	    for w in (w for w in (32, 16, 8, 4, 2, 1) if raw & w):
 *	        lines = 32 // (w * p)
 *	        unit = [0] * (math.ceil(2500 / (32 * p * lines)) * 32)
 *	        for i, t, b in ((i, i % p, b) for i in range(2500) for b in range(shift, shift + w)):
 *	            line, x = i // (32 * p), b if transform == 0 else (b - 1) % bits
 *	            at = (bits * t + x + w * (line % lines)) % 32
 *	            unit[line // lines * 32 + i // p % 32] |= (u[i] >> b & 1) << at
 *	        planes.append(b"".join(x.to_bytes(4, "little") for x in unit))
 *	        shift += w
 *	    freqs = [[math.comb(c, s) << 12 - c for s in range(256)] for c in (4, 10)]
 *	    steps, run = p, 256
 *	    if pair:
 *	        symbols = [symbols[i] + 16 * symbols[i + 1] for i in range(0, 2500, 2)]
 *	        freqs, steps, run = [pair_freqs(m) for m in freqs], p // 2, 128
 *	    state = [0x10000 | int.from_bytes(planes[-1][2 * l - 64:][:2], "little") for l in range(32)]
 *	    words = b""
 *	    for j in sorted(range(len(symbols)), key=lambda j: (j // (32 * steps), j % steps, j))[::-1]:
 *	        f, l, s = freqs[j // run % 2], j // steps % 32, symbols[j]
 *	        if state[l] >= f[s] << 20:
 *	            words, state[l] = (state[l] & 0xFFFF).to_bytes(2, "little") + words, state[l] >> 16
 *	        state[l] = state[l] // f[s] << 12 | state[l] % f[s] + sum(f[:s])
 *	    k = [x.bit_length() - 1 for x in state]
 *	    widths, _ = number([w - 16 for w in k], [4] * 32)
 *	    starts, length = number([x - 2**w for x, w in zip(state, k)], k)
 *	    choices, _ = number([r % 2 for r in range(10)], [1] * 10)
 *	    tile = (1 << (2 if raw <= 32 else 4)).to_bytes(4, "little") + b"".join(planes)[:-64]
 *	    tile += choices.to_bytes(4, "little") + widths.to_bytes(16, "little")
 *	    tile += starts.to_bytes(math.ceil(length / 16) * 2, "little") + words
 *	    return len(tile), hex(zlib.crc32(tile))
 */
static void known_large_tiles_are_what_they_were(void)
{
	static const struct {
		uint32_t elem_bytes;
		enum wcx_transform transform;
		uint32_t raw, width, base, has_zero, is_pair;
		size_t bytes;
		uint32_t crc;
	} cases[] = {
		{ 1, WCX_TRANSFORM_FOLD, 4, 4, 0, 0, 1, 2042, 0xC836B3E5 },
		{ 2, WCX_TRANSFORM_ROTATE, 6, 10, 100, 1, 0, 2674, 0xE5CDF439 },
		{ 4, WCX_TRANSFORM_ROTATE, 22, 10, 500, 0, 0, 7804, 0xBE0B196D },
		{ 8, WCX_TRANSFORM_NONE, 51, 13, 3000, 1, 0, 17022, 0x6AFC4E55 },
	};
	static const struct wcx_freq_table coins[] = {
		{ { 256, 1024, 1536, 1024, 256 } },
		{ { 4, 40, 180, 480, 840, 1008, 840, 480, 180, 40, 4 } },
	};

	CHECK(crc32_of((const uint8_t *)"123456789", 9) == 0xCBF43926);
	for (size_t c = 0; c < WCX_ARRAY_COUNT(cases); c++) {
		struct sample_random random = { cases[c].elem_bytes };
		struct model model;
		struct tile tile;
		struct wcx_field *field;

		model_start(&model, cases[c].elem_bytes, cases[c].transform, WCX_PREDICT_NONE, 256);
		/* Fields have 32 bits at most; two neighbours have the planes of one. */
		if (cases[c].raw > 32)
			model_add(&model, 32, 0, 0, NOISE, 0);
		model_add(&model, cases[c].raw > 32 ? cases[c].raw - 32 : cases[c].raw, 0, 0, NOISE, 0);
		field = model_add(&model, cases[c].width, 2, cases[c].base, BELL, 0);
		field->has_zero = (uint8_t)cases[c].has_zero;
		field->is_pair = (uint8_t)cases[c].is_pair;
		memcpy(model.tables[model.recipe.field_count - 1], coins, sizeof coins);
		tile_alloc(&tile, &model, 1, 2500);
		for (uint32_t i = 0; i < 2500; i++) {
			uint64_t noise = sample_next(&random), u;
			uint32_t heads = (uint32_t)__builtin_popcountll(noise & (i / 256 % 2 ? 1023 : 15));

			u = plain_untransform(&model.recipe, noise >> (64 - cases[c].raw) |
								     (uint64_t)plain_value(field, heads) << cases[c].raw);
			for (uint32_t b = 0; b < cases[c].elem_bytes; b++)
				tile.data[i * cases[c].elem_bytes + b] = (uint8_t)(u >> 8 * b);
		}
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == cases[c].bytes);
		CHECK(crc32_of(tile.packed, tile.packed_bytes) == cases[c].crc);
		tile_free(&tile);
	}
}

/*
 * Nibbles 0 to 15 under a field of the one value 2, folded, by hand: an even one is positive, and the element is 16 and half
 * of it.  An odd one is negative: 2 becomes 0xD, and nibble 1 the element 0xD1 rotated to the right, which is 0xE8.
 */
static void folded_elements_are_known_ones(void)
{
	static const uint8_t expected[16] = { 0x10, 0xE8, 0x11, 0xE9, 0x12, 0xEA, 0x13, 0xEB,
					      0x14, 0xEC, 0x15, 0xED, 0x16, 0xEE, 0x17, 0xEF };
	struct sample_random random = { 95 };
	struct model model;
	struct tile tile;
	uint8_t *decoded, nibbles[256];

	model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
	model_add(&model, 4, 0, 0, NOISE, 0);
	model_add(&model, 4, 0, 0, EQUAL, 0);
	tile_alloc(&tile, &model, 1, 256);
	decoded = malloc(tile.bytes);
	memset(tile.packed, 0, tile.bytes);
	wcx_le32_write(tile.packed, WCX_FIELD_CONSTANT << 2);
	wcx_le32_write(tile.packed + 4, 2);
	for (uint32_t i = 0; i < 256; i++) {
		uint8_t *unit = tile.packed + 8 + i % 128 / 4 * 4;
		uint32_t n = nibbles[i] = (uint8_t)sample_below(&random, 16), first = 8 * (i % 4) + 4 * (i / 128);

		for (uint32_t b = 0; b < 4; b++)
			put_bits(unit, (first + (b ? b - 1 : 7)) % 32, 1, n >> b & 1);
		tile.data[i] = expected[n];
	}
	tile.mode = WCX_TILE_CODED;
	CHECK(decode_exactly(&tile, tile.packed, 8 + 128, decoded) == WCX_OK);
	CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
	for (uint32_t i = 0; i < 256; i++)
		CHECK(value_at(&tile, 0, i) == nibbles[i] && value_at(&tile, 1, i) == 2);
	check_round_trip(&tile);
	CHECK(tile.packed_bytes == 8 + 128);
	free(decoded);
	tile_free(&tile);
}

/*
 * The same where the upper field is the raw one: what is raw of it is a magnitude, too, in bits 3 to 6 of each byte, and so
 * is what is packed.  Under it, nibble 6 is positive with 3 in the three lowest bits, and 7 is negative with the same.
 */
static void raw_field_above_the_first_is_folded_too(void)
{
	for (uint32_t nibble = 6; nibble < 8; nibble++) {
		struct sample_random random = { 96 };
		struct model model;
		struct tile tile;
		uint8_t *decoded, *packed;

		model_start(&model, 1, WCX_TRANSFORM_FOLD, WCX_PREDICT_NONE, 0);
		model_add(&model, 4, 0, 0, EQUAL, 0);
		model_add(&model, 4, 1, 0, NOISE, 0)->is_pair = 1;
		model.tables[1][0] = (struct wcx_freq_table){ .freq = { 2048, 2048 } };
		tile_alloc(&tile, &model, 1, 256);
		decoded = malloc(tile.bytes);
		packed = calloc(1, 8 + 128);
		wcx_le32_write(packed, WCX_FIELD_CONSTANT);
		wcx_le32_write(packed + 4, nibble);
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t magnitude = (uint32_t)sample_below(&random, 16), at = 8 * (i % 4) + 3 + 4 * (i / 128);

			for (uint32_t b = 0; b < 4; b++)
				put_bits(packed + 8 + i % 128 / 4 * 4, (at + b) % 32, 1, magnitude >> b & 1);
			tile.data[i] = (uint8_t)(nibble == 6 ? magnitude << 3 | 3 : 0x80 | (15 - magnitude) << 3 | 3);
		}
		tile.mode = WCX_TILE_CODED;
		CHECK(decode_exactly(&tile, packed, 8 + 128, decoded) == WCX_OK);
		CHECK(memcmp(decoded, tile.data, tile.bytes) == 0);
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED && tile.packed_bytes == 8 + 128);
		CHECK(memcmp(tile.packed, packed, 8 + 128) == 0);
		free(decoded);
		free(packed);
		tile_free(&tile);
	}
}

/*
 * Where a bit of an element is in the plane of its field, by hand from section 3.1: its place in the word of the lane, and
 * so much to the left for each line that the unit has before.  Lines have 128, 64, 32 and 32 elements.
 */
static const struct raw_bit_case {
	uint32_t elem_bytes, rotates, shift, width; /* the field */
	uint32_t elems, element, bit;
	uint32_t byte, bit_of_byte;
} raw_bit_cases[] = {
	/* Two lines in a unit.  Element 131 is the last of lane 0 in the second: 24 + 2 + 4.  135 is that of lane 1:
	 * 24 + 6 + 4, less 32. */
	{ 1, 0, 0, 4, 600, 0, 0, 0, 0 },
	{ 1, 0, 0, 4, 600, 131, 2, 3, 6 },
	{ 1, 0, 4, 4, 600, 135, 6, 4, 2 },
	{ 1, 0, 4, 4, 600, 512, 7, 256, 7 },
	/* The sign is the lowest bit of what is rotated, and the highest where it lies: 7, and 7 + 4 in line 1. */
	{ 1, 1, 0, 4, 600, 0, 7, 0, 7 },
	{ 1, 1, 0, 4, 600, 128, 7, 1, 3 },
	{ 1, 1, 4, 4, 600, 1, 3, 1, 3 },
	/* Four lines: the third element of lane 31 in the last, 16 + 7 + 6; the next element starts a unit. */
	{ 1, 1, 0, 2, 600, 510, 7, 127, 5 },
	{ 1, 1, 0, 2, 600, 510, 0, 126, 6 },
	{ 1, 1, 0, 2, 600, 512, 0, 128, 0 },
	/* Eight lines: the second element of lane 0 in the last, 8 + 5 + 7. */
	{ 1, 0, 5, 1, 1100, 897, 5, 2, 4 },
	/* Two lines: the second element of lane 1 in the second, 16 + 7 + 8; and 16 + 15 + 8, less 32. */
	{ 2, 0, 0, 8, 200, 67, 7, 7, 7 },
	{ 2, 0, 8, 8, 200, 67, 15, 4, 7 },
	/* Four lines: the first element of lane 5 in the last, 15 + 12. */
	{ 2, 1, 0, 4, 300, 202, 15, 23, 3 },
	{ 2, 1, 0, 4, 300, 256, 1, 128, 1 },
	/* Two lines: lane 9 in the second, 31 + 16, less 32. */
	{ 4, 0, 16, 16, 100, 41, 31, 37, 7 },
	{ 4, 1, 15, 16, 100, 41, 14, 39, 6 },
	/* 32 lines: lane 30 in the last, 31 + 31, less 32. */
	{ 4, 1, 0, 1, 1100, 1022, 31, 123, 6 },
	{ 4, 1, 0, 1, 1100, 1024, 31, 131, 7 },
	/* One line: lane 1 in the second unit. */
	{ 8, 0, 32, 32, 100, 33, 63, 135, 7 },
	{ 8, 0, 32, 32, 100, 33, 32, 132, 0 },
	/* Four lines: lane 31 in the last, 63 + 24, less 64; and 6 + 24. */
	{ 8, 1, 0, 8, 200, 127, 63, 126, 7 },
	{ 8, 1, 0, 8, 200, 127, 6, 127, 6 },
	/* Bits of both halves of a word: lane 4 in the second line, 35 + 8, less 32; and 30 + 8, less 32. */
	{ 8, 0, 28, 8, 200, 36, 35, 17, 3 },
	{ 8, 0, 28, 8, 200, 36, 30, 16, 6 },
};

/* The bit of the tile decides over that bit of the element, and over no other. */
static void check_raw_bit(const struct raw_bit_case *c)
{
	const uint32_t elem_bytes = c->elem_bytes, above = 8 * elem_bytes - c->shift - c->width;
	const size_t at = c->element * elem_bytes + c->bit / 8;
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	uint8_t *decoded;

	model_start(&model, elem_bytes, c->rotates ? WCX_TRANSFORM_ROTATE : WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
	if (c->shift)
		model_add(&model, c->shift, 0, 0, EQUAL, 0);
	model_add(&model, c->width, 0, 0, NOISE, 0);
	if (above)
		model_add(&model, above < 32 ? above : above / 2, 0, 0, EQUAL, 0);
	if (above >= 32)
		model_add(&model, above - above / 2, 0, 0, EQUAL, 0);
	tile_alloc(&tile, &model, 1, c->elems);
	tile_draw(&tile, (uint64_t)(c - raw_bit_cases));
	check_round_trip(&tile);
	layout = layout_of(&tile);
	CHECK(layout.plane_count == 1 && layout.planes[0].offset == 4u + 4u * (model.recipe.field_count - 1u));
	decoded = malloc(tile.bytes);
	tile.packed[layout.planes[0].offset + c->byte] ^= (uint8_t)(1u << c->bit_of_byte);
	CHECK(decode_exactly(&tile, tile.packed, tile.packed_bytes, decoded) == WCX_OK);
	decoded[at] ^= (uint8_t)(1u << c->bit % 8);
	if (!CHECK(memcmp(decoded, tile.data, tile.bytes) == 0))
		fprintf(stderr, "\tcase %td\n", c - raw_bit_cases);
	free(decoded);
	tile_free(&tile);
}

static void raw_bits_lie_where_the_format_says(void)
{
	for (size_t i = 0; i < WCX_ARRAY_COUNT(raw_bit_cases); i++)
		check_raw_bit(&raw_bit_cases[i]);
}

static void fields_lie_where_the_format_says(void)
{
	for (uint32_t kind = 0; kind < 2; kind++) {
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;
		size_t at = kind ? 16 : 12;
		uint32_t exceptions;

		make_mixed_tile(&model, &tile, kind);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(layout.plane_count == (kind ? 0 : 2) && layout.coded_count == 2);
		CHECK(layout.plane_carried == (kind ? 0 : 64) && layout.exception_carried == (kind ? 64 : 0));
		CHECK(layout.constant_bits == (0xA5 << 8 | (kind ? 5 : 0)));
		CHECK(bits_at(tile.packed, 0, 20) == (kind ? 0x66 : 0x64)); /* 1, 2, 1, and raw or constant */
		CHECK(!kind || wcx_le32_read(tile.packed + 4) == 5);
		CHECK(wcx_le32_read(tile.packed + at - 4) == 0xA5);
		if (!kind) {
			/* 19 lines: 16 or 32 of them in a unit. */
			CHECK(layout.planes[0].offset == at && layout.planes[0].width == 2 && layout.planes[0].shift == 0);
			at += 2 * 128;
			CHECK(layout.planes[1].offset == at && layout.planes[1].width == 1 && layout.planes[1].shift == 2);
			at += 128 - 64;
		}
		exceptions = bits_at(tile.packed, 20, 12);
		CHECK(layout.exception_offset == at && layout.exception_bytes == 4 * exceptions);
		CHECK(layout.exception_count == exceptions && exceptions > 16);
		at += 4 * exceptions - layout.exception_carried;
		/* 4 bytes of choices for 5 runs. */
		CHECK(layout.coded[0].offset == at + 4 && layout.coded[0].field == 1 && layout.coded[0].shift == 3);
		CHECK(layout.coded[0].states_bytes == wcx_rans_states_bytes(tile.packed + at + 4, 140));
		CHECK(4 + layout.coded[0].states_bytes + layout.coded[0].words_bytes ==
		      wcx_le32_read(tile.packed + (kind ? 8 : 4)));
		at = padded(at + 4 + layout.coded[0].states_bytes + layout.coded[0].words_bytes, 4);
		CHECK(layout.coded[1].offset == at && layout.coded[1].field == 3 && layout.coded[1].shift == 16);
		CHECK(layout.coded[1].states_bytes == wcx_rans_states_bytes(tile.packed + at, 140));
		CHECK(at + layout.coded[1].states_bytes + layout.coded[1].words_bytes == tile.packed_bytes);
		tile_free(&tile);
	}
}

static void folded_weights_lie_where_the_format_says(void)
{
	struct wcx_tile_layout layout;
	struct model model;
	struct tile tile;
	uint32_t exceptions;
	size_t at;

	make_mixed_tile(&model, &tile, 2);
	check_round_trip(&tile);
	layout = layout_of(&tile);
	exceptions = bits_at(tile.packed, 20, 12);
	CHECK(layout.plane_count == 1 && layout.coded_count == 1 && layout.constant_bits == 0);
	CHECK(bits_at(tile.packed, 0, 20) == 0x4);
	/* 23 lines, two in a unit. */
	CHECK(layout.planes[0].offset == 4 && layout.planes[0].width == 4 && layout.planes[0].shift == 0);
	CHECK(layout.plane_carried == 64 && layout.exception_carried == 0);
	at = 4 + 12 * 128 - 64;
	CHECK(exceptions > 2 && layout.exception_count == exceptions && layout.exception_offset == at);
	CHECK(layout.exception_bytes == padded(3 * exceptions, 2));
	/* 4 bytes of choices for 8 runs; then more words than the fast loops leave to others. */
	at = padded(at + layout.exception_bytes, 4) + 4;
	CHECK(layout.coded[0].offset == at && layout.coded[0].field == 1 && layout.coded[0].shift == 4);
	CHECK(at + layout.coded[0].states_bytes + layout.coded[0].words_bytes == tile.packed_bytes);
	CHECK(layout.coded[0].words_bytes > 2 * 256);
	tile_free(&tile);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(known_tile_decodes_to_known_elements_and_back),
		CHECK_TEST(known_large_tiles_are_what_they_were),
		CHECK_TEST(folded_elements_are_known_ones),
		CHECK_TEST(raw_field_above_the_first_is_folded_too),
		CHECK_TEST(raw_bits_lie_where_the_format_says),
		CHECK_TEST(fields_lie_where_the_format_says),
		CHECK_TEST(folded_weights_lie_where_the_format_says),
	};

	return codec_samples_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
