/* SPDX-License-Identifier: MIT */
/* The encoder's choices: modes, codings, exceptions, tables of runs; sizes against entropies, and counts. */
#include "tests/fixtures/codec_samples.h"

/* However few bits the last plane has, it is a unit at least. */
static void last_plane_is_carried_whatever_its_size(void)
{
	for (uint32_t width = 1; width <= 8; width *= 2) {
		const uint32_t unit = 32 * 32 / width; /* elements */

		for (uint32_t elems = unit - 1; elems <= unit + 1; elems++) {
			const size_t whole = elems > unit ? 256 : 128;
			struct wcx_tile_layout layout;
			struct model model;
			struct tile tile;

			model_start(&model, 4, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
			model_add(&model, 16, 1, 1000, BELL, 0.7);
			model_add(&model, 16 - width, 0, 0, EQUAL, 0);
			model_add(&model, width, 0, 0, NOISE, 0);
			tile_alloc(&tile, &model, 1, elems);
			tile_draw(&tile, elems);
			model_learn(&model, &tile, 0);
			check_round_trip(&tile);
			layout = layout_of(&tile);
			CHECK(layout.plane_count == 1 && layout.coded_count == 1);
			CHECK(layout.planes[0].offset == 8 && layout.planes[0].width == width &&
			      layout.planes[0].shift == 32 - width);
			CHECK(layout.plane_carried == 64 && layout.exception_carried == 0);
			CHECK(layout.coded[0].offset == 8 + whole - 64);
			tile_free(&tile);
		}
	}
}

static void tile_that_does_not_pay_is_stored(void)
{
	struct model model;
	struct tile tile;

	model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	tile_alloc(&tile, &model, 64, 64);
	tile_draw(&tile, 31);
	model_learn(&model, &tile, 0);
	check_round_trip(&tile);
	CHECK(tile.mode == WCX_TILE_STORED);
	tile_free(&tile);
}

/* Whether what they are decoded from is right or of another size, or of a mode that is fs's to decode. */
static void tiles_that_are_not_coded_need_no_scratch(void)
{
	struct sample_random random = { 33 };
	uint8_t src[600], *dst = guarded_alloc(sizeof src);
	struct wcx_tile_job job = {
		.dims = { 10, 20, 3 },
		.src = src,
		.src_bytes = sizeof src,
		.dst = dst,
		.dst_bytes = sizeof src,
	};

	sample_fill(&random, SAMPLE_GAUSSIAN, 30, src, sizeof src);
	CHECK(wcx_tile_decode(&job, NULL) == WCX_WRONG_SIZE);
	job.dims = (struct wcx_tile_dims){ 6, 50, 2 };
	CHECK(wcx_tile_decode(&job, NULL) == WCX_OK && memcmp(dst, src, sizeof src) == 0);
	job.src_bytes--;
	CHECK(wcx_tile_decode(&job, NULL) == WCX_BAD_DATA);
	job.mode = WCX_TILE_ZSTD;
	CHECK(wcx_tile_decode(&job, NULL) == WCX_BAD_DATA);
	job.mode = WCX_TILE_CONSTANT;
	job.constant = 0xFEDC;
	CHECK(wcx_tile_decode(&job, NULL) == WCX_OK);
	for (size_t i = 0; i < sizeof src; i++)
		src[i] = i % 2 ? 0xFE : 0xDC;
	CHECK(memcmp(dst, src, sizeof src) == 0 && guards_are_whole(dst, sizeof src));
	guarded_free(dst);
}

static void field_that_does_not_pay_is_raw_beside_one_that_does(void)
{
	struct model model;
	struct tile tile;

	model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_UP, 0);
	model_add(&model, 8, 1, 0, NOISE, 0);
	model_add(&model, 8, 1, 0, BELL, 2);
	tile_alloc(&tile, &model, 20, 50);
	tile_draw(&tile, 32);
	model_learn(&model, &tile, 0);
	check_round_trip(&tile);
	CHECK(layout_of(&tile).plane_count == 1);
	CHECK(coding_of(&tile, 0) == WCX_FIELD_RAW && coding_of(&tile, 1) == WCX_FIELD_RANS);
	tile_free(&tile);
}

static void tile_of_equal_elements_is_constant_if_they_fit_in_its_entry(void)
{
	static const struct {
		uint64_t element;
		uint32_t elem_bytes;
		enum wcx_tile_mode mode;
	} cases[] = {
		{ 0, 1, WCX_TILE_CONSTANT },
		{ 0x81, 1, WCX_TILE_CONSTANT },
		{ 0xFEDC, 2, WCX_TILE_CONSTANT },
		{ 0xFEDCBA98, 4, WCX_TILE_CONSTANT },
		{ 0xFEDCBA98, 8, WCX_TILE_CONSTANT },
		{ UINT64_C(0x1FEDCBA98), 8, WCX_TILE_CODED },
		{ UINT64_C(0x8877665544332211), 8, WCX_TILE_CODED },
	};

	for (size_t c = 0; c < WCX_ARRAY_COUNT(cases); c++) {
		struct model model;
		struct tile tile;

		model_start(&model, cases[c].elem_bytes, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 0);
		for (uint32_t f = 0; f < cases[c].elem_bytes; f++)
			model_add(&model, 8, 0, 0, NOISE, 0);
		tile_alloc(&tile, &model, 5, 7);
		for (size_t i = 0; i < tile.bytes; i++)
			tile.data[i] = (uint8_t)(cases[c].element >> 8 * (i % cases[c].elem_bytes));
		check_round_trip(&tile);
		CHECK(tile.mode == cases[c].mode);
		if (tile.mode == WCX_TILE_CONSTANT)
			CHECK(tile.constant == cases[c].element);
		else
			CHECK(tile.packed_bytes == 36); /* a header with eight numbers */
		tile_free(&tile);
	}
}

/* Whether it has tables or not, and up to its highest bit; the numbers stand in the order of the fields. */
static void field_of_one_value_is_constant_whatever_it_is(void)
{
	static const uint32_t values[] = { 0, 0xFFFFFF, 0x1000000, 0x80000000, 0xFFFFFFFF };

	for (size_t v = 0; v < WCX_ARRAY_COUNT(values); v++) {
		struct model model;
		struct tile tile;

		model_start(&model, 8, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model_add(&model, 32, 0, 0, EQUAL, 0);
		model_add(&model, 16, 0, 0, NOISE, 0);
		model_add(&model, 8, 0, 0, EQUAL, 0);
		model_add(&model, 8, 1, 0, EQUAL, 0);
		tile_alloc(&tile, &model, 10, 10);
		tile_draw(&tile, v);
		model_learn(&model, &tile, 1);
		for (size_t i = 0; i < tile.n; i++)
			wcx_le32_write(tile.data + 8 * i, values[v]);
		check_round_trip(&tile);
		CHECK(tile.mode == WCX_TILE_CODED);
		CHECK(wcx_le32_read(tile.packed) ==
		      (WCX_FIELD_CONSTANT | WCX_FIELD_CONSTANT << 4 | WCX_FIELD_CONSTANT << 6));
		CHECK(wcx_le32_read(tile.packed + 4) == values[v]);
		CHECK(wcx_le32_read(tile.packed + 8) == 0xA5 && wcx_le32_read(tile.packed + 12) == 0xA5);
		CHECK(tile.packed_bytes == 16 + plain_plane_bytes(&model.recipe, 100, 16));
		tile_free(&tile);
	}
}

static void value_without_a_symbol_or_a_frequency_is_an_exception_of_the_carrier(void)
{
	/* No symbols: below the base, and beyond the last one; at it, if 0 is a symbol, and 0, if not.  700 and 50 are
	 * symbols that no table has. */
	static const struct {
		uint32_t field, value;
		int excepted[2]; /* without ZERO, and with it */
	} cases[] = {
		{ 0, 0, { 1, 0 } },   { 0, 1, { 1, 1 } },   { 0, 499, { 1, 1 } }, { 0, 500, { 0, 1 } },
		{ 0, 501, { 0, 0 } }, { 0, 755, { 1, 1 } }, { 0, 756, { 1, 1 } }, { 0, 1023, { 1, 1 } },
		{ 0, 700, { 1, 1 } }, { 1, 50, { 1, 1 } },  { 1, 63, { 1, 1 } },
	};

	for (uint32_t tables = 1; tables <= 4; tables *= 2) {
		for (size_t c = 0; c < 2 * WCX_ARRAY_COUNT(cases); c++) {
			uint32_t f = cases[c / 2].field, excepted = (uint32_t)cases[c / 2].excepted[c % 2];
			struct model model;
			struct tile tile;

			make_two_field_tile(&model, &tile, tables, c % 2);
			change_value(&tile, 2099, f, cases[c / 2].value);
			check_round_trip(&tile);
			/* Below the carrier, there are no exceptions: the field is raw. */
			CHECK(coding_of(&tile, 0) == (f || !excepted ? WCX_FIELD_RANS : WCX_FIELD_RAW));
			CHECK(coding_of(&tile, 1) == WCX_FIELD_RANS && layout_of(&tile).exception_count == (f & excepted));
			/* With the upper field constant, the lower one is the carrier. */
			for (size_t i = 0; i < tile.n && f == 0; i++)
				change_value(&tile, i, 1, 33);
			check_round_trip(&tile);
			CHECK(coding_of(&tile, 1) == (f ? WCX_FIELD_RANS : WCX_FIELD_CONSTANT));
			CHECK(coding_of(&tile, f) == WCX_FIELD_RANS && layout_of(&tile).exception_count == excepted);
			tile_free(&tile);
		}
	}
}

/* As few halves as possible are exceptions: their place is taken by a value that goes with the other half. */
static void half_of_a_pair_without_a_frequency_is_an_exception(void)
{
	static const struct {
		uint32_t halves[2];
		uint32_t count;
	} cases[] = {
		{ { 0, 1 }, 0 }, { { 1, 1 }, 0 }, { { 1, 3 }, 0 }, { { 3, 3 }, 0 }, { { 0, 2 }, 0 },  { { 2, 0 }, 0 },
		{ { 1, 2 }, 1 }, { { 2, 1 }, 1 }, { { 2, 2 }, 1 }, { { 2, 3 }, 1 }, { { 0, 4 }, 1 },  { { 4, 0 }, 1 },
		{ { 4, 1 }, 1 }, { { 2, 9 }, 1 }, { { 9, 2 }, 1 }, { { 4, 4 }, 2 }, { { 15, 9 }, 2 }, { { 5, 15 }, 2 },
	};
	/* In the first line, in one in the middle, in the last unit, and in a pair of which one half is missing. */
	static const size_t places[] = { 0, 6 * 128 + 78, 2100, 2200 };

	for (size_t c = 0; c < 8 * WCX_ARRAY_COUNT(cases); c++) {
		const size_t at = places[c % 4];
		const uint32_t *halves = cases[c / 8].halves, elem_bytes = 1 + c / 4 % 2, base = elem_bytes == 1 ? 0 : 107;
		uint32_t count = at == 2200 ? halves[0] > 3 : cases[c / 8].count;
		struct wcx_tile_layout layout;
		const uint8_t *exceptions;
		struct model model;
		struct tile tile;

		make_pair_tile(&model, &tile, elem_bytes, 2201);
		change_value(&tile, at, 1, base + halves[0]);
		if (at < 2200)
			change_value(&tile, at + 1, 1, base + halves[1]);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(coding_of(&tile, 1) == WCX_FIELD_RANS && layout.exception_count == count);
		exceptions = tile.packed + layout.exception_offset;
		for (uint32_t i = 0; i < layout.exception_count; i++) {
			uint32_t position = bits_at(exceptions, 16 * i, 16);

			CHECK(position == at || position == at + 1);
			CHECK(exceptions[2 * count + i] == base + halves[position - at]);
		}
		tile_free(&tile);
	}
}

/* The states carry 64 bytes of exceptions for nothing: two or more are made so many, if no raw plane is carried. */
static void exceptions_are_carried_where_no_plane_is(void)
{
	for (uint32_t narrow = 0; narrow < 2; narrow++) {
		const uint32_t each = narrow ? 3 : 4, enough = narrow ? 21 : 16;

		for (uint32_t count = 0; count <= 40; count++) {
			struct wcx_tile_layout layout;
			struct model model;
			struct tile tile;
			uint32_t made;

			make_two_field_tile(&model, &tile, 1, count % 2);
			for (size_t i = 0; i < tile.n && !narrow; i++)
				change_value(&tile, i, 1, 33);
			for (uint32_t i = 0; i < count; i++)
				change_value(&tile, i == 1 ? 3 : 50 * i, narrow, narrow ? 40 : 400);
			check_round_trip(&tile);
			layout = layout_of(&tile);
			made = count < 2 || count > enough ? count : enough;
			CHECK(layout.exception_count == made);
			CHECK(layout.exception_bytes == padded(made * each, 2));
			CHECK(layout.exception_carried == (made >= enough ? 64 : 0) && layout.plane_carried == 0);
			tile_free(&tile);
		}
	}
}

/* Beside a raw plane, which is carried, exceptions are no more than there must be, and all stored. */
static void exceptions_are_stored_where_a_plane_is_carried(void)
{
	for (uint32_t count = 1; count <= 40; count++) {
		struct wcx_tile_layout layout;
		struct model model;
		struct tile tile;

		make_pair_tile(&model, &tile, 1, 2000);
		for (uint32_t i = 0; i < count; i++)
			change_value(&tile, 50 * i, 1, 4 + i % 12);
		check_round_trip(&tile);
		layout = layout_of(&tile);
		CHECK(layout.exception_count == count && layout.exception_bytes == padded(3 * count, 2));
		CHECK(layout.exception_carried == 0 && layout.plane_carried == 64);
		CHECK(layout.exception_offset == 4 + 8 * 128 - 64);
		CHECK(layout.coded[0].offset == padded(layout.exception_offset + layout.exception_bytes, 4));
		tile_free(&tile);
	}
}

static void exceptions_are_4095_at_most(void)
{
	for (uint32_t count = 4095; count <= 4096; count++) {
		struct model model;
		struct tile tile;

		model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 0);
		model_add(&model, 8, 1, 0, BELL, 3);
		model_add(&model, 8, 1, 0, BELL, 3);
		tile_alloc(&tile, &model, 256, 256);
		tile_draw(&tile, 72);
		model_learn(&model, &tile, 0);
		for (size_t i = 0; i < count; i++)
			tile.data[2 * (65535 - 16 * i) + 1] = 111;
		tile.data[8] = 111;
		check_round_trip(&tile);
		/* Else the field is raw, and the one below it is the carrier. */
		CHECK(coding_of(&tile, 1) == (count == 4095 ? WCX_FIELD_RANS : WCX_FIELD_RAW));
		CHECK(coding_of(&tile, 0) == (count == 4095 ? WCX_FIELD_RAW : WCX_FIELD_RANS));
		CHECK(layout_of(&tile).exception_count == (count == 4095 ? count : 1));
		tile_free(&tile);

		make_pair_tile(&model, &tile, 1, 65536);
		for (uint32_t i = 0; i < count; i++)
			change_value(&tile, 65535 - 16 * i, 1, 4 + i % 12);
		check_round_trip(&tile);
		CHECK(tile.mode == (count == 4095 ? WCX_TILE_CODED : WCX_TILE_STORED));
		CHECK(count != 4095 || layout_of(&tile).exception_count == count);
		tile_free(&tile);
	}
}

/* Bits for a run with a table; for a symbol without a frequency, those of an exception and of the symbol in its place. */
static double plain_cost(const struct wcx_freq_table *table, const uint64_t count[WCX_SYMBOL_COUNT])
{
	double bits = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		bits += (double)count[s] * (table->freq[s] ? 12 - log2(table->freq[s]) : 30);
	return bits;
}

/* The table that takes the fewest bits; *margin_ret is by how many. */
static uint32_t plain_choice(const struct wcx_field *field, const uint64_t count[WCX_SYMBOL_COUNT], double *margin_ret)
{
	double least = INFINITY;
	uint32_t choice = 0;

	*margin_ret = INFINITY;
	for (uint32_t t = 0; t < field->table_count; t++) {
		double cost = plain_cost(&field->tables[t], count);

		*margin_ret = fmin(*margin_ret, fabs(cost - least));
		if (cost < least) {
			least = cost;
			choice = t;
		}
	}
	return choice;
}

/*
 * Runs of symbols 0 and 1, but two have one more, which only a table has that is bad for the others.  In the carrier that
 * symbol is an exception; in a field below, the run must take that table.
 */
static void run_below_the_carrier_takes_a_table_that_has_all_its_symbols(void)
{
	for (uint32_t tables = 2; tables <= 4; tables += 2) {
		for (uint32_t f = 0; f < 2; f++) {
			struct model model;
			struct tile tile;

			model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_NONE, 384);
			model_add(&model, 8, tables, 0, BELL, 0.3);
			model_add(&model, 8, tables, 0, BELL, 0.3);
			tile_alloc(&tile, &model, 1, 384 * 7 + 5);
			tile_draw(&tile, 81);
			for (size_t i = 0; i < tile.bytes; i++)
				tile.data[i] &= 1;
			model_learn(&model, &tile, 0);
			for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
				model.tables[f][tables - 1].freq[s] = 16;
			tile.data[2 * (384 * 3 + 11) + f] = 99;
			tile.data[2 * (tile.n - 1) + f] = 99;
			check_round_trip(&tile);
			CHECK(coding_of(&tile, 0) == WCX_FIELD_RANS && coding_of(&tile, 1) == WCX_FIELD_RANS);
			CHECK((layout_of(&tile).exception_count > 0) == f);
			for (size_t run = 0; run < 7; run++)
				CHECK((choice_of(&tile, f, run) == tables - 1) == (f == 0 && run == 3));
			tile_free(&tile);
		}
	}
}

/* Bits that a run takes with the table that its symbols choose; of a pair both halves must be there. */
static double run_bits(const struct tile *tile, uint32_t f, size_t first, size_t end)
{
	const struct wcx_field *field = &tile->model->fields[f];
	uint64_t count[WCX_SYMBOL_COUNT] = { 0 }, pair_count[WCX_SYMBOL_COUNT] = { 0 };
	struct wcx_freq_table pairs;
	double margin;
	uint32_t choice;

	count_plainly(tile, f, first, end, count);
	choice = plain_choice(field, count, &margin);
	if (!field->is_pair)
		return plain_cost(&field->tables[choice], count);
	for (size_t i = first; i + 1 < end; i += 2) {
		const int a = plain_symbol(field, value_at(tile, f, i)), b = plain_symbol(field, value_at(tile, f, i + 1));

		pair_count[a < 0 || b < 0 ? 255 : a + 16 * b]++; /* 255 has no frequency, which is what exceptions cost */
	}
	plain_pairs(&field->tables[choice], &pairs);
	return plain_cost(&pairs, pair_count);
}

/* Bytes that a tile must not exceed, all of whose fields with tables are coded and the others raw; *bits_ret: without
 * overhead. */
static double most_bytes(const struct tile *tile, double *bits_ret)
{
	const struct wcx_recipe *recipe = &tile->model->recipe;
	double overhead = 4.0 * recipe->field_count - (recipe->fields[0].table_count ? 0 : 64);
	double coded_bits = 0, raw_bits = 0, raw_bytes = 0;

	for (uint32_t f = 0; f < recipe->field_count; f++) {
		const struct wcx_field *field = &recipe->fields[f];
		size_t run = field->table_count > 1 ? recipe->run_elems : tile->n;

		raw_bits += field->table_count ? 0 : (double)tile->n * field->width;
		for (uint32_t w = 1; w <= field->width && !field->table_count; w *= 2)
			raw_bytes += field->width & w ? (double)plain_plane_bytes(recipe, tile->n, w) : 0;
		if (!field->table_count)
			continue;
		for (size_t first = 0; first < tile->n; first += run)
			coded_bits += run_bits(tile, f, first, first + run < tile->n ? first + run : tile->n);
		/* 16 bits of each state that are there at first, one in each where it carries something, widths, padding. */
		overhead += (double)plain_choices_bytes(recipe, field, tile->n) + 64 + 32 / 8 + 16 + 4;
	}
	*bits_ret = coded_bits + raw_bits;
	return coded_bits * 1.0001 / 8 + raw_bytes + overhead;
}

static void check_size(struct tile *tile)
{
	double bits, most = most_bytes(tile, &bits);

	check_round_trip(tile);
	CHECK(layout_of(tile).plane_carried == (layout_of(tile).plane_count ? 64 : 0));
	CHECK((double)tile->packed_bytes <= most);
	CHECK((double)tile->packed_bytes >= bits / 8);
}

static void drawn_tiles_take_what_their_tables_say(void)
{
	for (uint32_t weights = 0; weights < WEIGHTS_COUNT; weights++) {
		struct model model;
		struct tile tile;

		make_weight_model(&model, (enum weights)weights, WCX_PREDICT_NONE);
		tile_alloc(&tile, &model, 1, 50000);
		tile_draw(&tile, 101);
		model_learn(&model, &tile, 0);
		check_size(&tile);
		tile_free(&tile);
	}
}

/* Bits that a value of this probability adds to an entropy. */
static double entropy_part(double probability)
{
	return probability > 0 ? -probability * log2(probability) : 0;
}

/* Entropy of an INT8 weight: a normal distribution, rounded and clipped at 127. */
static double int8_entropy(double sigma)
{
	double bits = 0;

	for (int k = -127; k <= 127; k++) {
		double low = k == -127 ? -INFINITY : (k - 0.5) / (sigma * sqrt(2));
		double high = k == 127 ? INFINITY : (k + 0.5) / (sigma * sqrt(2));

		bits += entropy_part((erf(high) - erf(low)) / 2);
	}
	return bits;
}

/* Entropy of a weight in float format with so many bits of mantissa: a normal distribution, rounded towards zero. */
static double float_entropy(double sigma, int mantissa_bits)
{
	double bits = 1; /* the sign */

	for (int exponent = -60; exponent < 10; exponent++) {
		for (int m = 0; m < 1 << mantissa_bits; m++) {
			double low = ldexp(1 + ldexp(m, -mantissa_bits), exponent);
			double high = ldexp(1 + ldexp(m + 1, -mantissa_bits), exponent);

			bits += entropy_part(erf(high / (sigma * sqrt(2))) - erf(low / (sigma * sqrt(2))));
		}
	}
	return bits;
}

/* Gaussian weights: INT8 of sigma 33.6, and floats of sigma 0.02 cut off behind the sizes' bits. */
static void fill_weights(struct tile *tile, struct sample_random *random)
{
	if (tile->dims.elem_bytes == 1) {
		sample_fill(random, SAMPLE_GAUSSIAN, 33.6, tile->data, tile->bytes);
		return;
	}
	for (size_t i = 0; i < tile->n; i++) {
		float weight = (float)(0.02 * sample_normal(random));
		uint32_t bits;

		memcpy(&bits, &weight, sizeof bits);
		if (tile->dims.elem_bytes == 2)
			wcx_le16_write(tile->data + 2 * i, bits >> 16);
		else
			wcx_le32_write(tile->data + 4 * i, bits);
	}
}

/*
 * Tiles of 65536 weights take the entropy of what they were drawn from and 0.5 % more: 0.05 % are the overhead of one tile,
 * the rest is what bits cost that are kept though they are not quite random, and of pairs what rounding their frequencies
 * costs; exponents in pairs leave their mantissa raw.
 */
static void gaussian_weights_take_hardly_more_than_their_entropy(void)
{
	/* Exponents of such floats are below 127, and two bits of the mantissa are coded with them.  An FP32 mantissa has 16
	 * bits below those of BF16, and these are random. */
	const struct {
		uint32_t elem_bytes;
		enum wcx_transform transform;
		uint32_t raw, base;
		bool is_pair;
		double entropy, most; /* and the share over it that a tile may take */
	} kinds[] = {
		{ 1, WCX_TRANSFORM_NONE, 3, 0, false, int8_entropy(33.6), 0.005 },
		{ 1, WCX_TRANSFORM_NONE, 0, 0, false, int8_entropy(33.6), 0.005 },
		{ 1, WCX_TRANSFORM_FOLD, 4, 0, true, int8_entropy(33.6), 0.005 },
		{ 2, WCX_TRANSFORM_ROTATE, 6, 127 * 4 - 256, false, float_entropy(0.02, 7), 0.005 },
		{ 2, WCX_TRANSFORM_ROTATE, 8, 109, true, float_entropy(0.02, 7), 0.013 },
		{ 4, WCX_TRANSFORM_ROTATE, 22, 127 * 4 - 256, false, float_entropy(0.02, 7) + 16, 0.005 },
	};
	struct sample_random random = { 111 };

	for (size_t kind = 0; kind < WCX_ARRAY_COUNT(kinds); kind++) {
		struct model model;
		struct tile tile;
		double bits;

		model_start(&model, kinds[kind].elem_bytes, kinds[kind].transform, WCX_PREDICT_NONE, 0);
		if (kinds[kind].raw)
			model_add(&model, kinds[kind].raw, 0, 0, NOISE, 0);
		model_add(&model, 8 * kinds[kind].elem_bytes - kinds[kind].raw, 1, kinds[kind].base, BELL, 0)->is_pair =
			kinds[kind].is_pair;
		tile_alloc(&tile, &model, 1, 65536);
		fill_weights(&tile, &random);
		model_learn(&model, &tile, 0);
		check_size(&tile);
		bits = 8.0 * (double)tile.packed_bytes / (double)tile.n;
		if (!CHECK(bits < kinds[kind].entropy * (1 + kinds[kind].most) && bits > kinds[kind].entropy * 0.995))
			fprintf(stderr, "\tkind %zu: %f bits, entropy %f\n", kind, bits, kinds[kind].entropy);
		tile_free(&tile);
	}
}

/* Of pairs, both halves count as one symbol each. */
static void runs_take_the_table_that_takes_the_fewest_bits(void)
{
	for (uint32_t kind = 0; kind < 4; kind++) {
		const uint32_t tables = kind % 2 ? 4 : 2;
		unsigned chosen[WCX_FIELD_TABLES_MAX] = { 0 }, wrong = 0;
		struct model model;
		struct tile tile;

		if (kind < 2) {
			model_start(&model, 2, WCX_TRANSFORM_NONE, WCX_PREDICT_LEFT, 256);
			model_add(&model, 10, tables, 77, BELL, 5)->has_zero = 1;
			model_add(&model, 6, tables, 0, BELL, 2);
		} else {
			model_start(&model, 1, WCX_TRANSFORM_ROTATE, WCX_PREDICT_NONE, 256);
			model_add(&model, 4, tables, 0, BELL, 0.7);
			model_add(&model, 4, tables, 0, BELL, 0.7)->is_pair = 1;
		}
		tile_alloc(&tile, &model, 1, 256 * 40 + 77);
		tile_draw(&tile, 121);
		model_learn(&model, &tile, 1);
		check_round_trip(&tile);
		for (uint32_t f = 0; f < 2; f++) {
			for (size_t run = 0; run < 41; run++) {
				uint64_t count[WCX_SYMBOL_COUNT] = { 0 };
				size_t end = run < 40 ? 256 * (run + 1) : tile.n;
				double margin;
				uint32_t choice;

				count_plainly(&tile, f, 256 * run, end, count);
				choice = plain_choice(&model.fields[f], count, &margin);
				/* Costs are rounded to 1/32 bit: half of that for each symbol, in each of two tables. */
				wrong += choice_of(&tile, f, run) != choice && margin > 256.0 / 32;
				chosen[choice]++;
			}
		}
		CHECK(wrong == 0);
		for (uint32_t t = 0; t < tables; t++)
			CHECK(chosen[t] > 5);
		tile_free(&tile);
	}
}

/* Compares the counts of a field with plain ones, table by table where no choice is close; returns whether none was. */
static int check_counts(const struct tile *tile, uint32_t f, const struct wcx_encode_variant *variant)
{
	const struct wcx_field *field = &tile->model->fields[f];
	uint64_t count[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT], plain[WCX_FIELD_TABLES_MAX][WCX_SYMBOL_COUNT];
	struct wcx_field_counts counts[WCX_FIELDS_MAX] = { { 0 } };
	uint64_t misfits, plain_misfits = 1000;
	size_t run = field->table_count > 1 ? tile->model->recipe.run_elems : tile->n;
	int clear = 1, equal = 1;

	for (uint32_t t = 0; t < WCX_FIELD_TABLES_MAX; t++)
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			count[t][s] = plain[t][s] = UINT64_C(1) << 40; /* what was there is added to */
	wcx_encode_scratch_use(encode_scratch, variant);
	counts[f] = (struct wcx_field_counts){ count, 1000 };
	CHECK(wcx_tile_count(&tile->dims, tile->data, NULL, &tile->model->recipe, encode_scratch, counts) == WCX_OK);
	misfits = counts[f].misfits;
	for (size_t first = 0; first < tile->n; first += run) {
		uint64_t of_run[WCX_SYMBOL_COUNT] = { 0 };
		double margin;
		uint32_t choice;

		plain_misfits += count_plainly(tile, f, first, first + run < tile->n ? first + run : tile->n, of_run);
		choice = plain_choice(field, of_run, &margin);
		clear &= margin > (double)run / 32;
		for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
			plain[choice][s] += of_run[s];
	}
	CHECK(misfits == plain_misfits);
	if (clear) {
		CHECK(memcmp(count, plain, sizeof count) == 0);
		return 1;
	}
	for (uint32_t s = 0; s < WCX_SYMBOL_COUNT; s++)
		equal &= count[0][s] + count[1][s] + count[2][s] + count[3][s] ==
			 plain[0][s] + plain[1][s] + plain[2][s] + plain[3][s];
	CHECK(equal);
	return 0;
}

static void counts_are_plain_ones(void)
{
	unsigned clear[WCX_FIELD_TABLES_MAX + 1] = { 0 }, pairs = 0;
	struct sample_random random = { 131 };

	for (uint64_t round = 0; round < 300; round++) {
		uint32_t rows = 1 + (uint32_t)sample_below(&random, 20);
		struct model model;
		struct tile tile;

		draw_model(&model, &random);
		tile_alloc(&tile, &model, rows, 1 + (uint32_t)sample_below(&random, 5000) / rows);
		tile_draw(&tile, round);
		model_learn(&model, &tile, sample_below(&random, 2));
		/* Another tile has values that are no symbols, and symbols that some tables or all of them lack. */
		if (round % 2)
			tile_draw(&tile, round + 1000);
		if (round % 4 == 3)
			sample_fill(&random, SAMPLE_UNIFORM, 0, tile.data, tile.bytes / 2);
		for (uint32_t f = 0; f < model.recipe.field_count; f++)
			for (unsigned v = 0; model.fields[f].table_count && wcx_encode_variant_at(v); v++)
				clear[model.fields[f].table_count] +=
					(unsigned)check_counts(&tile, f, wcx_encode_variant_at(v)) & (v == 0);
		pairs += model.fields[model.recipe.field_count - 1].is_pair;
		tile_free(&tile);
	}
	CHECK(clear[1] > 50 && clear[2] > 50 && clear[4] > 20 && pairs > 20);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(last_plane_is_carried_whatever_its_size),
		CHECK_TEST(tile_that_does_not_pay_is_stored),
		CHECK_TEST(tiles_that_are_not_coded_need_no_scratch),
		CHECK_TEST(field_that_does_not_pay_is_raw_beside_one_that_does),
		CHECK_TEST(tile_of_equal_elements_is_constant_if_they_fit_in_its_entry),
		CHECK_TEST(field_of_one_value_is_constant_whatever_it_is),
		CHECK_TEST(value_without_a_symbol_or_a_frequency_is_an_exception_of_the_carrier),
		CHECK_TEST(half_of_a_pair_without_a_frequency_is_an_exception),
		CHECK_TEST(exceptions_are_carried_where_no_plane_is),
		CHECK_TEST(exceptions_are_stored_where_a_plane_is_carried),
		CHECK_TEST(exceptions_are_4095_at_most),
		CHECK_TEST(run_below_the_carrier_takes_a_table_that_has_all_its_symbols),
		CHECK_TEST(drawn_tiles_take_what_their_tables_say),
		CHECK_TEST(gaussian_weights_take_hardly_more_than_their_entropy),
		CHECK_TEST(runs_take_the_table_that_takes_the_fewest_bits),
		CHECK_TEST(counts_are_plain_ones),
	};

	return codec_samples_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
