/* SPDX-License-Identifier: MIT */
/*
 * How tensors are coded, as the packed files show it: which fields are coded, how many tables they have, and the sizes,
 * which are compared with the entropy of data of known distributions.
 */
#include "fs/pack/tensor_plan.h"

#include <math.h>

#include "fs/pack/pack.h"
#include "tests/fixtures/sample_files.h"
#include "tests/fixtures/sample_weights.h"

static char *dir, *src_path, *dst_path;

/* The matrices of floats. */
enum { FLOAT_ROWS = 400, FLOAT_COLS = 1000, FLOAT_ELEMS = FLOAT_ROWS * FLOAT_COLS };

/* --- files --- */

static uint8_t *data_of(struct sample_bytes file)
{
	return file.data + 8 + wcx_le64_read(file.data);
}

/* A file of one tensor, for the caller to fill. */
static struct sample_bytes one_matrix(const char *dtype, size_t elem_bytes, size_t rows, size_t cols)
{
	char shape[64];
	const struct sample_tensor tensor = { "weight", dtype, shape, rows * cols * elem_bytes, SAMPLE_CONSTANT, 0 };

	snprintf(shape, sizeof shape, "[%zu,%zu]", rows, cols);
	return sample_safetensors(&tensor, 1);
}

static struct sample_bytes one_float_matrix(const struct sample_float *format, uint64_t seed)
{
	struct sample_bytes file = one_matrix(format->dtype, sample_float_bytes(format), FLOAT_ROWS, FLOAT_COLS);

	sample_fill_weights(format, seed, data_of(file), FLOAT_ELEMS);
	return file;
}

/* Packs and frees a file; packing itself checks that it decodes to the same bytes.  The caller frees the container. */
static struct wcx_container *pack_for(bool for_speed, struct sample_bytes file)
{
	struct wcx_pack_options options = { .job.thread_count = 2, .job.replace = 1, .for_speed = for_speed };
	struct wcx_pack_result result;
	struct wcx_container *c = NULL;
	struct wcx_error err = { "" };

	sample_write(src_path, file);
	sample_require(wcx_pack(src_path, dst_path, &options, &result, &err) == 0, err.text);
	sample_require(wcx_container_open(open(dst_path, O_RDONLY | O_CLOEXEC), dst_path, &c, &err) == 0, err.text);
	free(file.data);
	return c;
}

static struct wcx_container *pack(struct sample_bytes file)
{
	return pack_for(false, file);
}

static uint64_t packed_bytes(const struct wcx_container *c)
{
	return wcx_container_superblock(c)->packed_bytes;
}

/* The bytes of the tiles of a segment, with their entries. */
static uint64_t tiles_cost(const struct wcx_container *c, size_t segment)
{
	const struct wcx_segment *seg = wcx_container_segment(c, segment);
	uint64_t bytes = seg->tile_count * WCX_TILE_ENTRY_BYTES;

	for (uint64_t t = 0; t < seg->tile_count; t++) {
		struct wcx_tile_info tile;

		wcx_container_tile(c, seg, seg->first_tile + t, &tile);
		bytes += wcx_tile_align_up(tile.packed_bytes);
	}
	return bytes;
}

/* The bytes of a segment in all: tiles, its own entry, fields and tables. */
static uint64_t segment_cost(const struct wcx_container *c, size_t segment)
{
	const struct wcx_recipe *recipe = &wcx_container_segment(c, segment)->recipe;
	uint64_t bytes = tiles_cost(c, segment) + WCX_SEGMENT_BYTES + (uint64_t)recipe->field_count * WCX_FIELD_BYTES;
	uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];

	for (uint32_t f = 0; f < recipe->field_count; f++)
		for (uint32_t t = 0; t < recipe->fields[f].table_count; t++)
			bytes += wcx_freq_table_write(&recipe->fields[f].tables[t], written);
	return bytes;
}

/* The most that tiles add to the coded data: entries, headers, widths of the states, and gaps. */
static double tiles_overhead(const struct wcx_container *c, size_t segment)
{
	return (WCX_TILE_ENTRY_BYTES + 4 + 16 + 4) * (double)wcx_container_segment(c, segment)->tile_count;
}

/* The number of exceptions of a segment, whose tiles are all coded, from their headers. */
static uint64_t count_exceptions(const struct wcx_container *c, size_t segment)
{
	const struct wcx_segment *seg = wcx_container_segment(c, segment);
	uint64_t count = 0;

	for (uint64_t t = 0; t < seg->tile_count; t++) {
		struct wcx_tile_info tile;
		uint8_t head[4];

		wcx_container_tile(c, seg, seg->first_tile + t, &tile);
		CHECK(tile.mode == WCX_TILE_CODED);
		CHECK(pread(wcx_container_fd(c), head, sizeof head, (off_t)tile.packed_offset) == (ssize_t)sizeof head);
		count += wcx_le32_read(head) >> 20;
	}
	return count;
}

/* --- entropies, in bytes, computed independently --- */

static double entropy_of_counts(const double *counts, size_t count)
{
	double sum = 0, bits = 0;

	for (size_t i = 0; i < count; i++)
		sum += counts[i];
	for (size_t i = 0; i < count; i++)
		if (counts[i] > 0)
			bits += counts[i] * log2(sum / counts[i]);
	return bits / 8;
}

/* The order-0 entropy of one byte of each element. */
static double byte_entropy(const uint8_t *data, size_t elems, size_t elem_bytes)
{
	double counts[256] = { 0 };

	for (size_t i = 0; i < elems; i++)
		counts[data[i * elem_bytes]]++;
	return entropy_of_counts(counts, 256);
}

/* The order-0 entropy of the `width` bits below the sign of each element. */
static double top_entropy(const struct sample_float *format, int width, const uint8_t *data, size_t elems)
{
	size_t elem_bytes = sample_float_bytes(format);
	double *counts = calloc((size_t)1 << width, sizeof *counts), bytes;

	sample_require(counts != NULL, "calloc");
	for (size_t i = 0; i < elems; i++) {
		uint64_t value = 0;

		memcpy(&value, data + i * elem_bytes, elem_bytes);
		counts[value >> (8 * elem_bytes - 1 - (size_t)width) & ((1u << width) - 1)]++;
	}
	bytes = entropy_of_counts(counts, (size_t)1 << width);
	free(counts);
	return bytes;
}

/* --- INT8 and packed INT4 --- */

enum { SIDE = 1024 };

/* A way to split bytes: raw low bits, and above them single symbols or pairs, folded or not. */
struct split {
	int folds, raw, pairs;
};

/* The reverse of docs/format.md, section 3.4. */
static uint8_t split_symbol(const struct split *split, uint8_t byte)
{
	if (split->folds) {
		byte = (uint8_t)(byte << 1 | byte >> 7);
		if (byte & 1)
			byte = (uint8_t)(byte ^ 0xFF << split->raw);
	}
	return (uint8_t)(byte >> split->raw);
}

/* The bytes of symbols coded with a table of 12 bits; symbols without a frequency are exceptions. */
static double table_cost(const struct wcx_freq_table *table, const uint64_t counts[WCX_SYMBOL_COUNT])
{
	double bits = 0;

	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		bits += (double)counts[s] * (table->freq[s] ? 12 - log2(table->freq[s]) : WCX_EXCEPTION_BITS);
	return bits / 8;
}

/* The size of bytes that are split.  Without raw bits, the states of the tiles have nothing to carry. */
static double split_cost(const struct split *split, const uint8_t *data, size_t elems, uint64_t tiles)
{
	uint64_t singles[WCX_SYMBOL_COUNT] = { 0 }, pairs[WCX_SYMBOL_COUNT] = { 0 };
	struct wcx_freq_table table, pair_table;

	for (size_t i = 0; i < elems; i += 2) {
		uint8_t a = split_symbol(split, data[i]), b = split_symbol(split, data[i + 1]);

		singles[a]++;
		singles[b]++;
		pairs[(uint8_t)(a + 16 * b)]++;
	}
	wcx_freq_table_build(singles, &table);
	if (split->pairs) {
		wcx_freq_table_pair(&table, &pair_table);
		return split->raw * (double)elems / 8 + table_cost(&pair_table, pairs);
	}
	return split->raw * (double)elems / 8 + table_cost(&table, singles) + (split->raw ? 0 : 64 * (double)tiles);
}

/* The least size with single symbols, or with pairs. */
static double cheapest_split(int pairs, const uint8_t *data, size_t elems, uint64_t tiles)
{
	double least = INFINITY;

	for (int folds = 0; folds <= 1; folds++)
		for (int raw = pairs ? 4 : folds; raw <= 4; raw++)
			least = fmin(least, split_cost(&(struct split){ folds, raw, pairs }, data, elems, tiles));
	return least;
}

/* How a segment of bytes is split. */
static struct split split_of(const struct wcx_recipe *recipe)
{
	const struct wcx_field *last = &recipe->fields[recipe->field_count - 1];

	CHECK(recipe->field_count == (last->width < 8 ? 2 : 1) && last->table_count);
	return (struct split){ recipe->transform == WCX_TRANSFORM_FOLD, 8 - last->width, last->is_pair };
}

static struct sample_bytes int8_of_sigma(enum sample_kind kind, double sigma)
{
	struct sample_bytes file = one_matrix("I8", 1, SIDE, SIDE);
	struct sample_random random = { 3 };

	sample_fill(&random, kind, sigma, data_of(file), SIDE * SIDE);
	return file;
}

/* With a margin on either side: the planner drops rare symbols, and estimates pairs from single symbols. */
static void bytes_are_folded_pairs_where_these_cost_0_2_percent_more_than_single_symbols_at_most(void)
{
	static const double sigmas[SAMPLE_KIND_COUNT][12] = {
		[SAMPLE_GAUSSIAN] = { 3, 6, 10, 16, 17, 26, 28, 36, 42, 45, 53, 60 },
		[SAMPLE_STUDENT] = { 7, 8, 10, 12, 16, 20, 24, 28, 33, 39, 46, 60 },
	};
	unsigned taken = 0, refused = 0, folded = 0, plain = 0;

	for (size_t i = 0; i < 24; i++) {
		enum sample_kind kind = i % 2 ? SAMPLE_STUDENT : SAMPLE_GAUSSIAN;
		struct sample_bytes file = int8_of_sigma(kind, sigmas[kind][i / 2]);
		const uint64_t tiles = SIDE * SIDE / (32 << 10);
		double single = cheapest_split(0, data_of(file), SIDE * SIDE, tiles);
		double loss = cheapest_split(1, data_of(file), SIDE * SIDE, tiles) / single - 1, cost;
		struct sample_bytes copy = { malloc(file.bytes), file.bytes };
		struct wcx_container *c;
		struct split split;

		memcpy(copy.data, file.data, file.bytes);
		c = pack(copy);
		split = split_of(&wcx_container_segment(c, 1)->recipe);
		cost = split_cost(&split, data_of(file), SIDE * SIDE, tiles);
		CHECK(loss < 0.0018 ? split.pairs : loss < 0.0021 || !split.pairs);
		CHECK(split.pairs ? split.folds && split.raw == 4 : cost < single * 1.0003);
		CHECK((double)segment_cost(c, 1) < cost * 1.0005 + tiles_overhead(c, 1));
		taken += loss < 0.0018;
		refused += loss > 0.0021;
		folded += split.folds && !split.pairs;
		plain += !split.folds;
		wcx_container_free(c);
		free(file.data);
	}
	CHECK(taken >= 4 && refused >= 10 && folded >= 4 && plain >= 4);
}

/* Packs a matrix of INT8 weights; the entropies are of order 0, with one code for all rows and with one per row. */
static struct wcx_container *pack_int8(sample_draw *draw, double spread, double *entropy_ret, double *rows_entropy_ret)
{
	struct sample_bytes file = one_matrix("I8", 1, SIDE, SIDE);
	uint8_t *data = data_of(file);

	sample_fill_int8(draw, spread, 1, SIDE, SIDE, data);
	*entropy_ret = byte_entropy(data, SIDE * SIDE, 1);
	*rows_entropy_ret = 0;
	for (size_t y = 0; y < SIDE; y++)
		*rows_entropy_ret += byte_entropy(data + y * SIDE, SIDE, 1);
	return pack(file);
}

static void gaussian_int8_with_one_scale_is_folded_pairs_above_four_raw_bits(void)
{
	double entropy, rows_entropy;
	struct wcx_container *c = pack_int8(sample_normal, 0, &entropy, &rows_entropy);
	const struct wcx_segment *seg = wcx_container_segment(c, 1);
	struct split split = split_of(&seg->recipe);

	CHECK(split.folds && split.raw == 4 && split.pairs);
	CHECK(seg->recipe.fields[0].table_count == 0 && seg->recipe.fields[1].table_count == 1 &&
	      seg->recipe.run_elems == 0);
	CHECK(seg->recipe.predictor == WCX_PREDICT_NONE && seg->rows == 1);
	CHECK((double)segment_cost(c, 1) < entropy * 1.0027 + tiles_overhead(c, 1));
	CHECK(seg->entropy_millibits == (uint32_t)(entropy * 8 * 1000 / (SIDE * SIDE)));
	wcx_container_free(c);
}

/* Each row has its own scale, so its largest magnitude is 127. */
static void gaussian_int8_with_a_scale_a_row_is_folded_pairs_above_four_raw_bits(void)
{
	struct sample_bytes file = one_matrix("I8", 1, SIDE, SIDE);
	const struct wcx_segment *seg;
	struct wcx_container *c;
	struct split split;
	double entropy;

	for (size_t y = 0; y < SIDE; y++)
		sample_fill_int8(sample_normal, 0, 1 + y, 1, SIDE, data_of(file) + y * SIDE);
	entropy = byte_entropy(data_of(file), SIDE * SIDE, 1);
	c = pack(file);
	seg = wcx_container_segment(c, 1);
	split = split_of(&seg->recipe);
	CHECK(split.folds && split.raw == 4 && split.pairs);
	CHECK(seg->recipe.fields[1].table_count > 1 && seg->recipe.run_elems == SIDE && seg->tile_cols == SIDE);
	CHECK((double)segment_cost(c, 1) < entropy * 1.001 + tiles_overhead(c, 1));
	wcx_container_free(c);
}

static void rows_of_different_widths_choose_tables_and_come_out_below_the_entropy(void)
{
	double entropy, rows_entropy;
	struct wcx_container *c = pack_int8(sample_normal, 0.5, &entropy, &rows_entropy);
	const struct wcx_segment *seg = wcx_container_segment(c, 1);

	CHECK(seg->recipe.fields[seg->recipe.field_count - 1].table_count == WCX_FIELD_TABLES_MAX);
	CHECK(seg->recipe.run_elems == SIDE && seg->cols == SIDE && seg->tile_cols == SIDE &&
	      seg->tile_rows == 32768 / SIDE);
	CHECK((double)segment_cost(c, 1) < entropy * 0.97);
	CHECK((double)segment_cost(c, 1) < rows_entropy * 1.025);
	wcx_container_free(c);
}

static void heavy_tails_stay_within_0_4_percent_of_the_entropy_and_32_bytes_a_tile(void)
{
	double entropy, rows_entropy;
	struct wcx_container *c = pack_int8(sample_student, 0, &entropy, &rows_entropy);
	const struct wcx_recipe *recipe = &wcx_container_segment(c, 1)->recipe;
	const struct wcx_field *field = &recipe->fields[recipe->field_count - 1];

	CHECK((double)segment_cost(c, 1) < entropy * 1.004 + tiles_overhead(c, 1));
	/* By the scale, the largest weight is 127 or -127.  It is too rare for a slot and hence an exception. */
	CHECK(recipe->transform == WCX_TRANSFORM_NONE && field->table_count == 1);
	CHECK(!field->tables->freq[127 >> (8 - field->width)] && !field->tables->freq[(uint8_t)-127 >> (8 - field->width)]);
	wcx_container_free(c);
}

/* Two weights per byte, each a rounded Gaussian from -8 to 7. */
static void skewed_int4_in_bytes_is_within_0_5_percent_of_its_entropy(void)
{
	struct sample_bytes file = one_matrix("U8", 1, SIDE, SIDE);
	struct sample_random random = { 11 };
	struct wcx_container *c;
	double entropy;

	for (size_t i = 0; i < SIDE * SIDE; i++) {
		double low = fmax(-8, fmin(7, 2 * sample_normal(&random)));
		double high = fmax(-8, fmin(7, 2 * sample_normal(&random)));

		data_of(file)[i] = (uint8_t)((lrint(low) + 8) | (lrint(high) + 8) << 4);
	}
	entropy = byte_entropy(data_of(file), SIDE * SIDE, 1);
	CHECK(entropy < 0.8 * SIDE * SIDE);
	c = pack(file);
	CHECK((double)segment_cost(c, 1) < entropy * 1.005);
	wcx_container_free(c);
}

/* The order-0 entropy of the halves of bytes, in bytes. */
static double nibble_entropy(const uint8_t *data, size_t bytes)
{
	double counts[16] = { 0 };

	for (size_t i = 0; i < bytes; i++) {
		counts[data[i] & 15]++;
		counts[data[i] >> 4]++;
	}
	return entropy_of_counts(counts, 16);
}

/*
 * Eight INT4 in each I32, the first one lowest, of a Gaussian matrix with a scale for each row, the largest magnitude / 7.5,
 * as compressed-tensors packs them.  Values of a row are raised by up to `offset`, as if rows had zero points.
 */
static struct sample_bytes packed_int4(const char *dtype, size_t rows, size_t cols, int offset)
{
	struct sample_bytes file = one_matrix(dtype, 4, rows, cols / 8);
	struct sample_random random = { 12 };
	double *row = malloc(cols * sizeof *row);

	sample_require(row != NULL, "malloc");
	memset(data_of(file), 0, rows * cols / 2);
	for (size_t y = 0; y < rows; y++) {
		const double zero = 8 + (offset ? (double)sample_below(&random, (uint64_t)offset + 1) : 0);
		double largest = 0;

		for (size_t x = 0; x < cols; x++) {
			row[x] = sample_normal(&random);
			largest = fmax(largest, fabs(row[x]));
		}
		for (size_t x = 0; x < cols; x++) {
			const double value = fmax(0, fmin(15, rint(row[x] / largest * 7.5) + zero));
			uint8_t *byte = data_of(file) + (y * cols + x) / 2;

			*byte = (uint8_t)(*byte | (unsigned)value << 4 * (x % 2));
		}
	}
	free(row);
	return file;
}

static void packed_int4_in_words_is_coded_by_byte_and_within_0_6_percent_of_its_nibbles_entropy(void)
{
	static const char *const dtypes[] = { "I32", "U32" };

	for (size_t i = 0; i < 2; i++) {
		struct sample_bytes file = packed_int4(dtypes[i], SIDE, 2 * SIDE, 0);
		const double entropy = nibble_entropy(data_of(file), SIDE * SIDE);
		struct wcx_container *c = pack(file);

		CHECK(entropy > 0.7 * SIDE * SIDE && entropy < 0.85 * SIDE * SIDE);
		CHECK(wcx_container_segment(c, 1)->recipe.elem_bytes == 1);
		CHECK((double)segment_cost(c, 1) < entropy * 1.006);
		wcx_container_free(c);
	}
}

/* As asymmetric quantisation makes them: each row has its own zero. */
static void packed_int4_with_zero_points_chooses_tables_by_row_and_comes_out_below_its_nibbles_entropy(void)
{
	struct sample_bytes file = packed_int4("I32", SIDE, 2 * SIDE, 3);
	const double entropy = nibble_entropy(data_of(file), SIDE * SIDE);
	struct wcx_container *c = pack(file);
	const struct wcx_segment *seg = wcx_container_segment(c, 1);

	CHECK(seg->recipe.elem_bytes == 1 && seg->recipe.field_count == 1);
	CHECK(seg->recipe.fields->table_count == WCX_FIELD_TABLES_MAX && seg->recipe.run_elems == SIDE);
	CHECK(seg->cols == SIDE && seg->tile_cols == SIDE && seg->tile_rows == 32768 / SIDE);
	CHECK((double)segment_cost(c, 1) < entropy * 0.96);
	wcx_container_free(c);
}

/* Also rows of less than a run, and rows that are too long for a tile of bytes or of words. */
static void packed_int4_of_any_width_is_coded_by_byte(void)
{
	static const size_t widths[] = { 8, 24, 104, 384, 520, 80000, 131072, 131136 };

	for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
		const size_t rows = widths[i] > 1000 ? 8 : 80000 / widths[i], bytes = rows * widths[i] / 2;
		struct sample_bytes file = packed_int4("I32", rows, widths[i], 0);
		const double entropy = nibble_entropy(data_of(file), bytes);
		struct wcx_container *c = pack(file);

		CHECK(wcx_container_segment(c, 1)->recipe.elem_bytes == 1);
		CHECK((double)segment_cost(c, 1) < entropy * 1.02 + 500);
		wcx_container_free(c);
	}
}

/* The period is odd, so that bytes are alike in all places of a word. */
static void packed_int4_that_repeats_is_zstandard_frames(void)
{
	enum { BYTES = 1 << 18, PERIOD_BYTES = 5001 };
	struct sample_bytes file = packed_int4("I32", 64, BYTES / 32, 0);
	struct wcx_container *c;

	for (size_t i = PERIOD_BYTES; i < BYTES; i++)
		data_of(file)[i] = data_of(file)[i - PERIOD_BYTES];
	c = pack(file);
	CHECK(wcx_container_segment(c, 1)->recipe.elem_bytes == 1);
	CHECK(segment_cost(c, 1) < BYTES / 5);
	wcx_container_free(c);
}

static void integers_whose_bytes_differ_stay_words(void)
{
	struct sample_random random = { 4 };

	for (size_t elem_bytes = 2; elem_bytes <= 8; elem_bytes *= 2) {
		struct sample_bytes file = one_matrix(elem_bytes == 2   ? "I16"
						      : elem_bytes == 4 ? "I32"
									: "I64",
						      elem_bytes, 100, 1000);
		struct wcx_container *c;

		for (size_t i = 0; i < 100000; i++)
			sample_put_element(data_of(file), elem_bytes, i, (uint64_t)llrint(300 * sample_normal(&random)));
		c = pack(file);
		CHECK(wcx_container_segment(c, 1)->recipe.elem_bytes == elem_bytes);
		wcx_container_free(c);
	}
}

/* --- tiles --- */

static void flat_tiles_have_32_kib_of_narrow_and_64_kib_of_wide_elements(void)
{
	static const struct {
		const char *dtype;
		size_t elem_bytes, tile_bytes;
	} cases[] = {
		{ "I8", 1, 32 << 10 },  { "F8_E4M3", 1, 32 << 10 }, { "F16", 2, 32 << 10 }, { "BF16", 2, 32 << 10 },
		{ "I16", 2, 32 << 10 }, { "F32", 4, 64 << 10 },     { "I32", 4, 64 << 10 }, { "C64", 4, 64 << 10 },
		{ "F64", 8, 64 << 10 }, { "U64", 8, 64 << 10 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct sample_tensor tensor = {
			"w", cases[i].dtype, "[50000]", 50000 * cases[i].elem_bytes, SAMPLE_UNIFORM, 0
		};
		struct sample_tensor complex = tensor;
		const struct wcx_segment *seg;
		struct wcx_container *c;

		complex.bytes *= 2;
		c = pack(sample_safetensors(strcmp(tensor.dtype, "C64") == 0 ? &complex : &tensor, 1));
		seg = wcx_container_segment(c, 1);
		CHECK(seg->rows == 1 && seg->tile_rows == 1 && seg->recipe.elem_bytes == cases[i].elem_bytes);
		CHECK(seg->tile_cols * cases[i].elem_bytes == cases[i].tile_bytes);
		wcx_container_free(c);
	}
}

/* The rows of a tile for rows of `cols` bytes that differ in width; checks that tiles are whole rows, of at most 32 KiB. */
static uint32_t rows_of_tiles(size_t cols)
{
	struct sample_bytes file = one_matrix("I8", 1, 600, cols);
	const struct wcx_segment *seg;
	struct wcx_container *c;
	uint32_t rows;

	sample_fill_int8(sample_normal, 0.5, 1, 600, cols, data_of(file));
	c = pack(file);
	seg = wcx_container_segment(c, 1);
	rows = seg->tile_rows;
	CHECK(seg->cols == cols && seg->tile_cols == cols && seg->recipe.run_elems == cols && rows * cols <= 32768);
	wcx_container_free(c);
	return rows;
}

/* As many as fit without a partly empty unit of a raw plane, unless that would halve the tile. */
static void tiles_of_whole_rows_have_a_multiple_of_1024_elements_where_that_is_possible(void)
{
	static const struct {
		size_t cols;
		uint32_t rows;
	} cases[] = {
		{ 128, 256 }, { 384, 80 }, { 640, 48 }, { 768, 40 }, { 1024, 32 }, { 1920, 16 }, { 4224, 7 }, { 12288, 2 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		CHECK(rows_of_tiles(cases[i].cols) == cases[i].rows);
}

/* --- floats --- */

static void fp8_is_rotated_and_within_0_3_percent_of_its_entropy(void)
{
	for (size_t i = SAMPLE_WIDE_FLOATS; i < SAMPLE_FLOATS; i++) {
		struct sample_bytes file = one_float_matrix(&sample_floats[i], i);
		double entropy = byte_entropy(data_of(file), FLOAT_ELEMS, 1);
		struct wcx_container *c = pack(file);

		CHECK(wcx_container_segment(c, 1)->recipe.transform == WCX_TRANSFORM_ROTATE);
		CHECK((double)segment_cost(c, 1) < entropy * 1.003);
		wcx_container_free(c);
	}
}

/* Compared with the best split: the entropy of some top bits, and the rest raw. */
static void wider_floats_have_exponent_and_top_mantissa_bits_coded_and_sign_and_rest_raw(void)
{
	for (size_t i = 0; i < SAMPLE_WIDE_FLOATS; i++) {
		const struct sample_float *format = &sample_floats[i];
		struct sample_bytes file = one_float_matrix(format, i);
		size_t elem_bytes = sample_float_bytes(format);
		double best = INFINITY, entropy = 0;
		const struct wcx_segment *seg;
		struct wcx_container *c;
		uint32_t last;

		for (int width = format->exponent; width <= format->exponent + 3; width++)
			best = fmin(best, top_entropy(format, width, data_of(file), FLOAT_ELEMS) +
						  FLOAT_ELEMS / 8.0 * (8 * (double)elem_bytes - width));
		for (size_t b = 0; b < elem_bytes; b++)
			entropy += byte_entropy(data_of(file) + b, FLOAT_ELEMS, elem_bytes);
		c = pack(file);
		seg = wcx_container_segment(c, 1);
		last = seg->recipe.field_count - 1u;
		CHECK(seg->recipe.transform == WCX_TRANSFORM_ROTATE && seg->recipe.predictor == WCX_PREDICT_NONE);
		CHECK(seg->recipe.fields[0].table_count == 0 && seg->recipe.fields[last].table_count == 1);
		CHECK(seg->recipe.fields[last].width >= format->exponent);
		CHECK(seg->recipe.fields[last].width <= format->exponent + 3);
		/* Rounding leaves a pattern in the lowest bits of F64, which may be coded. */
		CHECK(i == SAMPLE_F64 || seg->recipe.field_count == 2);
		CHECK((double)segment_cost(c, 1) < best * 1.0015 + tiles_overhead(c, 1));
		/* Estimated from a part of the elements where there is more than 1 MiB. */
		CHECK(fabs(seg->entropy_millibits - entropy * 8 * 1000 / FLOAT_ELEMS) <=
		      (seg->bytes > 1 << 20 ? entropy * 8 / FLOAT_ELEMS : 1));
		wcx_container_free(c);
	}
}

/* Half as many steps for two bytes in a hundred, and all bits below the exponent raw, as the GPU's kernels want it. */
static void floats_of_two_bytes_for_speed_have_exponents_in_pairs_above_raw_bits(void)
{
	for (size_t i = 0; i <= SAMPLE_BF16; i++) {
		const struct sample_float *format = &sample_floats[i];
		struct wcx_container *for_size = pack(one_float_matrix(format, i));
		struct wcx_container *for_speed = pack_for(true, one_float_matrix(format, i));
		const struct wcx_segment *seg = wcx_container_segment(for_speed, 1);

		CHECK(!wcx_container_segment(for_size, 1)->recipe.fields[1].is_pair);
		CHECK(seg->recipe.field_count == 2 && !seg->recipe.fields[0].table_count && seg->recipe.fields[1].is_pair);
		CHECK(seg->recipe.fields[1].width == format->exponent);
		CHECK((double)segment_cost(for_speed, 1) < 1.02 * (double)segment_cost(for_size, 1));
		wcx_container_free(for_size);
		wcx_container_free(for_speed);
	}
}

/* The lowest bit of a mantissa is set in one of twelve: leaving it raw would cost more than pairs may. */
static void what_is_not_random_is_coded_for_speed_too(void)
{
	for (size_t i = 0; i <= SAMPLE_BF16; i++) {
		struct wcx_container *packed[2];

		for (int for_speed = 0; for_speed < 2; for_speed++) {
			struct sample_bytes file = one_float_matrix(&sample_floats[i], i);
			struct sample_random random = { 8 };

			for (size_t e = 0; e < FLOAT_ELEMS; e++)
				data_of(file)[2 * e] =
					(uint8_t)((data_of(file)[2 * e] & 0xFE) | (sample_below(&random, 12) == 0));
			packed[for_speed] = pack_for(for_speed, file);
		}
		CHECK((double)segment_cost(packed[1], 1) < 1.02 * (double)segment_cost(packed[0], 1));
		wcx_container_free(packed[0]);
		wcx_container_free(packed[1]);
	}
}

/* F32 has no pairs, so both ways are the same: here the two lower bytes are worth coding, but not by a tenth. */
static void other_elements_are_packed_for_speed_as_for_size(void)
{
	uint64_t bytes[2];

	for (int for_speed = 0; for_speed < 2; for_speed++) {
		struct sample_bytes file = one_float_matrix(&sample_floats[SAMPLE_F32], 3);
		struct sample_random random = { 9 };
		struct wcx_container *c;

		for (size_t e = 0; e < FLOAT_ELEMS; e++)
			for (size_t b = 0; b < 2; b++)
				data_of(file)[4 * e + b] = (uint8_t)sample_below(&random, 160);
		c = pack_for(for_speed, file);
		bytes[for_speed] = segment_cost(c, 1);
		wcx_container_free(c);
	}
	CHECK(bytes[0] == bytes[1]);
}

/* Exponents from -20 to 20, all equally likely: most are outside of any window. */
static void exponents_of_many_values_stay_single_for_speed_too(void)
{
	struct sample_bytes file = one_float_matrix(&sample_floats[SAMPLE_BF16], 1);
	struct sample_random random = { 7 };
	struct wcx_container *c;

	for (size_t i = 0; i < FLOAT_ELEMS; i++)
		sample_put_element(data_of(file), 2, i,
				   sample_float_make(&sample_floats[SAMPLE_BF16],
						     ldexp(1 + sample_unit(&random), (int)sample_below(&random, 41) - 20)));
	c = pack_for(true, file);
	CHECK(!wcx_container_segment(c, 1)->recipe.fields[wcx_container_segment(c, 1)->recipe.field_count - 1].is_pair);
	wcx_container_free(c);
}

/* Rows are similar: as integers they would get UP. */
static void floats_are_rotated_and_not_predicted(void)
{
	for (size_t i = 0; i < SAMPLE_FLOATS; i++) {
		const struct sample_float *format = &sample_floats[i];
		struct sample_bytes file = one_float_matrix(format, i);
		size_t elem_bytes = sample_float_bytes(format), row_bytes = FLOAT_COLS * elem_bytes;
		struct sample_random random = { i };
		const struct wcx_recipe *recipe;
		struct wcx_container *c;

		for (size_t y = 1; y < FLOAT_ROWS; y++) {
			memcpy(data_of(file) + y * row_bytes, data_of(file) + (y - 1) * row_bytes, row_bytes);
			data_of(file)[y * row_bytes + sample_below(&random, row_bytes)] ^= 1;
		}
		c = pack(file);
		recipe = &wcx_container_segment(c, 1)->recipe;
		CHECK(recipe->transform == WCX_TRANSFORM_ROTATE && recipe->predictor == WCX_PREDICT_NONE);
		wcx_container_free(c);
	}
}

/* Weights of which about this share is zero; *zeros_ret is how many. */
static struct sample_bytes floats_with_zeros(const struct sample_float *format, double share, uint64_t *zeros_ret)
{
	struct sample_bytes file = one_float_matrix(format, 5);
	struct sample_random random = { 4 };

	*zeros_ret = 0;
	for (size_t i = 0; i < FLOAT_ELEMS; i++) {
		if (sample_unit(&random) > share)
			continue;
		sample_put_element(data_of(file), sample_float_bytes(format), i, 0);
		(*zeros_ret)++;
	}
	return file;
}

/* They are frequent if, as exceptions of 30 bits, they would take more than 0.05 % of the original size. */
static void zeros_are_a_symbol_where_they_are_frequent_and_exceptions_otherwise(void)
{
	static const size_t formats[] = { SAMPLE_BF16, SAMPLE_F32, SAMPLE_F64 };

	for (size_t i = 0; i < 6; i++) {
		const struct sample_float *format = &sample_floats[formats[i / 2]];
		double frequent = 0.0005 * 8 * (double)sample_float_bytes(format) / 30, most;
		uint64_t zeros, without;
		struct wcx_container *c = pack(floats_with_zeros(format, 0, &zeros));
		const struct wcx_recipe *recipe;
		uint64_t cost = segment_cost(c, 1);

		CHECK(zeros == 0);
		without = count_exceptions(c, 1);
		wcx_container_free(c);
		c = pack(floats_with_zeros(format, i % 2 ? 1.7 * frequent : 0.6 * frequent, &zeros));
		recipe = &wcx_container_segment(c, 1)->recipe;
		CHECK(recipe->fields[recipe->field_count - 1].has_zero == i % 2);
		CHECK(recipe->fields[recipe->field_count - 1].base > 0);
		if (i % 2)
			CHECK(count_exceptions(c, 1) < without + zeros / 10);
		else
			CHECK(count_exceptions(c, 1) > without + zeros * 9 / 10);
		/* An exception takes four bytes instead of a symbol, a zero with a symbol its share of the entropy. */
		most = (double)zeros * (i % 2 ? -log2(1.7 * frequent) / 8 : 4) + 64;
		CHECK((double)segment_cost(c, 1) < (double)cost + most);
		wcx_container_free(c);
	}
}

static void f32_that_holds_bf16_values_costs_no_more_than_bf16_and_1_percent(void)
{
	struct sample_bytes narrow = one_float_matrix(&sample_floats[SAMPLE_BF16], 5);
	struct sample_bytes wide = one_matrix("F32", 4, FLOAT_ROWS, FLOAT_COLS);
	struct wcx_container *narrow_c, *wide_c;

	memset(data_of(wide), 0, FLOAT_ELEMS * 4);
	for (size_t i = 0; i < FLOAT_ELEMS; i++)
		memcpy(data_of(wide) + 4 * i + 2, data_of(narrow) + 2 * i, 2);
	narrow_c = pack(narrow);
	wide_c = pack(wide);
	CHECK((double)segment_cost(wide_c, 1) < (double)segment_cost(narrow_c, 1) * 1.01);
	wcx_container_free(narrow_c);
	wcx_container_free(wide_c);
}

static void rows_with_zero_mantissa_tails_are_found_among_others(void)
{
	struct sample_bytes file = one_matrix("F32", 4, FLOAT_ROWS, SIDE), plain = one_matrix("F32", 4, FLOAT_ROWS, SIDE);
	struct sample_random random = { 9 };
	struct wcx_container *plain_c, *c;
	size_t zeros = 0;

	sample_fill_weights(&sample_floats[SAMPLE_F32], 5, data_of(plain), FLOAT_ROWS * SIDE);
	memcpy(data_of(file), data_of(plain), FLOAT_ROWS * SIDE * 4);
	for (size_t y = 0; y < FLOAT_ROWS; y++) {
		if (sample_below(&random, 20) > 0)
			continue;
		for (size_t x = 0; x < SIDE; x++, zeros += 2)
			memset(data_of(file) + 4 * (y * SIDE + x), 0, 2);
	}
	plain_c = pack(plain);
	c = pack(file);
	CHECK(zeros > FLOAT_ROWS * SIDE * 4 / 80);
	CHECK((double)(segment_cost(plain_c, 1) - segment_cost(c, 1)) > 0.85 * (double)zeros);
	wcx_container_free(plain_c);
	wcx_container_free(c);
}

/* In a row that is part of a sample, and in one that is not. */
static void an_outlier_costs_less_than_64_bytes(void)
{
	static const size_t places[] = { 0, 15 * FLOAT_COLS };
	static const double values[SAMPLE_WIDE_FLOATS] = { 6e4, 1e38, 1e38, 1e300 };

	for (size_t i = 0; i < SAMPLE_WIDE_FLOATS; i++) {
		struct wcx_container *c = pack(one_float_matrix(&sample_floats[i], i));
		uint64_t without = segment_cost(c, 1);

		wcx_container_free(c);
		for (size_t p = 0; p < 2; p++) {
			struct sample_bytes file = one_float_matrix(&sample_floats[i], i);

			sample_put_element(data_of(file), sample_float_bytes(&sample_floats[i]), places[p],
					   sample_float_make(&sample_floats[i], values[i]));
			c = pack(file);
			CHECK(segment_cost(c, 1) < without + 64);
			wcx_container_free(c);
		}
	}
}

/* --- every dtype --- */

static const struct dtype {
	const char *name;
	size_t bits;
} dtypes[] = {
	{ "BOOL", 8 },    { "F4", 4 },          { "F6_E2M3", 6 },     { "F6_E3M2", 6 }, { "U8", 8 },      { "I8", 8 },
	{ "F8_E5M2", 8 }, { "F8_E4M3", 8 },     { "F8_E8M0", 8 },     { "I16", 16 },    { "U16", 16 },    { "F16", 16 },
	{ "BF16", 16 },   { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 }, { "I32", 32 },    { "U32", 32 },    { "F32", 32 },
	{ "C64", 64 },    { "F64", 64 },        { "I64", 64 },        { "U64", 64 },    { "unknown", 8 },
};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* A file of one tensor with one dimension; bytes must be a multiple of 24. */
static struct sample_bytes one_vector(const struct dtype *dtype, size_t bytes, enum sample_kind kind)
{
	char shape[32];
	const struct sample_tensor tensor = { "vector", dtype->name, shape, bytes, kind, 0 };

	snprintf(shape, sizeof shape, "[%zu]", bytes * 8 / dtype->bits);
	return sample_safetensors(&tensor, 1);
}

static void random_bytes_of_any_dtype_take_0_1_percent_more_than_stored_at_most(void)
{
	for (size_t i = 0; i < DTYPES; i++) {
		struct sample_bytes file = one_vector(&dtypes[i], 24 << 15, SAMPLE_UNIFORM);
		size_t bytes = file.bytes;
		struct wcx_container *c = pack(file);

		CHECK((double)packed_bytes(c) < (double)bytes * 1.001);
		wcx_container_free(c);
	}
}

/* A large element of 8 bytes does not fit into an entry: then the tile is a header. */
static void all_equal_tensors_take_entries_only(void)
{
	for (size_t i = 0; i < DTYPES; i++) {
		struct wcx_container *c = pack(one_vector(&dtypes[i], 24 << 15, SAMPLE_CONSTANT));
		const struct wcx_segment *seg = wcx_container_segment(c, 1);

		if (seg->recipe.elem_bytes < 8)
			CHECK(tiles_cost(c, 1) == seg->tile_count * WCX_TILE_ENTRY_BYTES);
		CHECK(tiles_cost(c, 1) <= seg->tile_count * 64 && segment_cost(c, 1) < 64 * seg->tile_count + 300);
		wcx_container_free(c);
	}
}

static void few_elements_of_any_dtype_are_packed(void)
{
	static const size_t counts[] = { 8, 24, 120, 128, 136, 1000, 2048 };
	enum { COUNTS = sizeof counts / sizeof counts[0] };
	struct sample_tensor tensors[COUNTS * DTYPES];
	char names[COUNTS * DTYPES][16], shapes[COUNTS * DTYPES][16];
	struct wcx_container *c;

	for (size_t i = 0; i < COUNTS * DTYPES; i++) {
		const struct dtype *dtype = &dtypes[i % DTYPES];
		size_t count = counts[i / DTYPES];

		snprintf(names[i], sizeof names[i], "t%zu", i);
		snprintf(shapes[i], sizeof shapes[i], "[%zu]", count);
		tensors[i] = (struct sample_tensor){ names[i],        dtype->name,
						     shapes[i],       count * dtype->bits / 8,
						     SAMPLE_GAUSSIAN, 5 };
	}
	c = pack(sample_safetensors(tensors, COUNTS * DTYPES));
	CHECK(wcx_container_superblock(c)->segment_count == 1 + COUNTS * DTYPES);
	wcx_container_free(c);
}

/* --- integers --- */

static void integers_that_count_up_take_less_than_0_6_percent(void)
{
	static const struct dtype counters[] = { { "U16", 16 }, { "I32", 32 }, { "I64", 64 } };

	for (size_t i = 0; i < 3; i++) {
		struct sample_bytes file = one_vector(&counters[i], 24 << 15, SAMPLE_CONSTANT);
		size_t elem_bytes = counters[i].bits / 8;
		struct wcx_container *c;

		for (size_t j = 0; j < (24 << 15) / elem_bytes; j++)
			sample_put_element(data_of(file), elem_bytes, j, j);
		c = pack(file);
		CHECK(segment_cost(c, 1) < (24 << 15) * 6 / 1000);
		wcx_container_free(c);
	}
}

/* Random integers below 2^20 that repeat after 1,000. */
static void integers_that_repeat_are_zstandard_frames(void)
{
	enum { BYTES = 24 << 15, PERIOD_BYTES = 4000 };
	struct sample_bytes file = one_vector(&(struct dtype){ "I32", 32 }, BYTES, SAMPLE_CONSTANT);
	struct sample_random random = { 3 };
	const struct wcx_segment *seg;
	struct wcx_container *c;

	for (size_t i = 0; i < PERIOD_BYTES / 4; i++)
		sample_put_element(data_of(file), 4, i, sample_below(&random, 1 << 20));
	for (size_t i = PERIOD_BYTES; i < BYTES; i++)
		data_of(file)[i] = data_of(file)[i - PERIOD_BYTES];
	c = pack(file);
	seg = wcx_container_segment(c, 1);
	for (uint64_t t = 0; t < seg->tile_count; t++) {
		struct wcx_tile_info tile;

		wcx_container_tile(c, seg, seg->first_tile + t, &tile);
		CHECK(tile.mode == WCX_TILE_ZSTD && tile.packed_bytes < 2 * PERIOD_BYTES);
	}
	wcx_container_free(c);
}

/* --- several tensors --- */

static void twins_cost_one_segment_entry(void)
{
	static const struct sample_tensor tensors[] = {
		{ "first", "BF16", "[100,1000]", 200000, SAMPLE_GAUSSIAN, 5 },
		{ "other", "BF16", "[100,1000]", 200000, SAMPLE_GAUSSIAN, 5 },
		{ "twin", "BF16", "[100,1000]", 200000, SAMPLE_CONSTANT, 0 },
	};
	struct sample_bytes two = sample_safetensors(tensors, 2), three = sample_safetensors(tensors, 3);
	struct wcx_container *two_c, *c;

	memcpy(data_of(three) + 400000, data_of(three), 200000);
	two_c = pack(two);
	c = pack(three);
	CHECK(wcx_container_segment(c, 2)->same_as == 0 && wcx_container_segment(c, 3)->same_as == 1);
	CHECK(wcx_container_superblock(c)->tile_count == wcx_container_superblock(two_c)->tile_count);
	/* The header, a segment like others, is longer too. */
	CHECK(packed_bytes(c) - packed_bytes(two_c) == WCX_SEGMENT_BYTES + segment_cost(c, 0) - segment_cost(two_c, 0));
	wcx_container_free(two_c);
	wcx_container_free(c);
}

static void a_tensor_that_differs_in_one_byte_is_no_twin(void)
{
	static const struct sample_tensor tensors[] = {
		{ "first", "BF16", "[100,1000]", 200000, SAMPLE_GAUSSIAN, 5 },
		{ "second", "BF16", "[100,1000]", 200000, SAMPLE_CONSTANT, 0 },
	};
	static const size_t places[] = { 0, 131071, 131072, 199999 };

	for (size_t i = 0; i < 4; i++) {
		struct sample_bytes file = sample_safetensors(tensors, 2);
		struct wcx_container *c;

		memcpy(data_of(file) + 200000, data_of(file), 200000);
		data_of(file)[200000 + places[i]] ^= 1;
		c = pack(file);
		CHECK(wcx_container_segment(c, 2)->same_as == 0);
		wcx_container_free(c);
	}
}

/* Tensors of alternating dtypes, so that each is a segment, and more of them than a group has. */
static void twins_are_found_across_the_whole_file(void)
{
	enum { COUNT = 600 };
	struct sample_tensor tensors[COUNT];
	char names[COUNT][16];
	struct sample_bytes file;
	struct wcx_container *c;

	for (size_t i = 0; i < COUNT; i++) {
		int is_twin = i == 0 || i == COUNT - 1;

		snprintf(names[i], sizeof names[i], "t%zu", i);
		tensors[i] = (struct sample_tensor){
			names[i], i % 2 ? "I8" : "U8", is_twin ? "[5000]" : "[10]", is_twin ? 5000 : 10, SAMPLE_GAUSSIAN, 5
		};
	}
	file = sample_safetensors(tensors, COUNT);
	memcpy(file.data + file.bytes - 5000, data_of(file), 5000);
	c = pack(file);
	CHECK(wcx_container_superblock(c)->segment_count == 1 + COUNT);
	CHECK(wcx_container_segment(c, COUNT)->same_as == 1);
	wcx_container_free(c);
}

static void neighbouring_small_tensors_of_a_dtype_share_a_segment(void)
{
	static const struct sample_tensor tensors[] = {
		{ "a.norm", "BF16", "[1000]", 2000, SAMPLE_GAUSSIAN, 5 },
		{ "a.bias", "BF16", "[16384]", 32768, SAMPLE_GAUSSIAN, 5 },
		{ "nothing", "BF16", "[0]", 0, SAMPLE_CONSTANT, 0 },
		{ "b.norm", "BF16", "[20,50]", 2000, SAMPLE_GAUSSIAN, 5 },
		{ "large", "BF16", "[16385]", 32770, SAMPLE_GAUSSIAN, 5 },
		{ "c.norm", "BF16", "[1000]", 2000, SAMPLE_GAUSSIAN, 5 },
		{ "c.scale", "F16", "[1000]", 2000, SAMPLE_GAUSSIAN, 5 },
		{ "c.zero", "F16", "[10,10]", 200, SAMPLE_GAUSSIAN, 5 },
	};
	static const uint64_t bytes[] = { 2000 + 32768 + 2000, 32770, 2000, 2200 };
	struct wcx_container *c = pack(sample_safetensors(tensors, 8));

	if (CHECK(wcx_container_superblock(c)->segment_count == 5))
		for (size_t i = 0; i < 4; i++)
			CHECK(wcx_container_segment(c, 1 + i)->bytes == bytes[i]);
	wcx_container_free(c);
}

/* Norms between INT8 matrices, as in real files: all can use the tables of the first. */
static void small_segments_share_tables(void)
{
	enum { COUNT = 40 };
	struct sample_tensor tensors[COUNT];
	char names[COUNT][16];
	struct sample_bytes file;
	struct wcx_container *c;
	const struct wcx_recipe *first;

	for (size_t i = 0; i < COUNT; i++) {
		snprintf(names[i], sizeof names[i], "t%zu", i);
		tensors[i] = i % 2 ? (struct sample_tensor){ names[i], "U8", "[10]", 10, SAMPLE_UNIFORM, 0 }
				   : (struct sample_tensor){ names[i], "BF16", "[4000]", 8000, SAMPLE_CONSTANT, 0 };
	}
	file = sample_safetensors(tensors, COUNT);
	for (size_t i = 0; i < COUNT; i += 2)
		sample_fill_weights(&sample_floats[SAMPLE_BF16], i, data_of(file) + i / 2 * 8010, 4000);
	c = pack(file);
	first = &wcx_container_segment(c, 1)->recipe;
	for (size_t i = 3; i <= COUNT; i += 2) {
		const struct wcx_recipe *recipe = &wcx_container_segment(c, i)->recipe;

		CHECK(recipe->field_count == first->field_count);
		CHECK(recipe->fields[recipe->field_count - 1].tables == first->fields[first->field_count - 1].tables);
	}
	CHECK(wcx_container_superblock(c)->table_count <= 4);
	wcx_container_free(c);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(bytes_are_folded_pairs_where_these_cost_0_2_percent_more_than_single_symbols_at_most),
		CHECK_TEST(gaussian_int8_with_one_scale_is_folded_pairs_above_four_raw_bits),
		CHECK_TEST(gaussian_int8_with_a_scale_a_row_is_folded_pairs_above_four_raw_bits),
		CHECK_TEST(rows_of_different_widths_choose_tables_and_come_out_below_the_entropy),
		CHECK_TEST(heavy_tails_stay_within_0_4_percent_of_the_entropy_and_32_bytes_a_tile),
		CHECK_TEST(skewed_int4_in_bytes_is_within_0_5_percent_of_its_entropy),
		CHECK_TEST(packed_int4_in_words_is_coded_by_byte_and_within_0_6_percent_of_its_nibbles_entropy),
		CHECK_TEST(packed_int4_with_zero_points_chooses_tables_by_row_and_comes_out_below_its_nibbles_entropy),
		CHECK_TEST(packed_int4_of_any_width_is_coded_by_byte),
		CHECK_TEST(packed_int4_that_repeats_is_zstandard_frames),
		CHECK_TEST(integers_whose_bytes_differ_stay_words),

		CHECK_TEST(flat_tiles_have_32_kib_of_narrow_and_64_kib_of_wide_elements),
		CHECK_TEST(tiles_of_whole_rows_have_a_multiple_of_1024_elements_where_that_is_possible),

		CHECK_TEST(fp8_is_rotated_and_within_0_3_percent_of_its_entropy),
		CHECK_TEST(wider_floats_have_exponent_and_top_mantissa_bits_coded_and_sign_and_rest_raw),
		CHECK_TEST(floats_of_two_bytes_for_speed_have_exponents_in_pairs_above_raw_bits),
		CHECK_TEST(what_is_not_random_is_coded_for_speed_too),
		CHECK_TEST(other_elements_are_packed_for_speed_as_for_size),
		CHECK_TEST(exponents_of_many_values_stay_single_for_speed_too),
		CHECK_TEST(floats_are_rotated_and_not_predicted),
		CHECK_TEST(zeros_are_a_symbol_where_they_are_frequent_and_exceptions_otherwise),
		CHECK_TEST(f32_that_holds_bf16_values_costs_no_more_than_bf16_and_1_percent),
		CHECK_TEST(rows_with_zero_mantissa_tails_are_found_among_others),
		CHECK_TEST(an_outlier_costs_less_than_64_bytes),

		CHECK_TEST(random_bytes_of_any_dtype_take_0_1_percent_more_than_stored_at_most),
		CHECK_TEST(all_equal_tensors_take_entries_only),
		CHECK_TEST(few_elements_of_any_dtype_are_packed),
		CHECK_TEST(integers_that_count_up_take_less_than_0_6_percent),
		CHECK_TEST(integers_that_repeat_are_zstandard_frames),

		CHECK_TEST(twins_cost_one_segment_entry),
		CHECK_TEST(a_tensor_that_differs_in_one_byte_is_no_twin),
		CHECK_TEST(twins_are_found_across_the_whole_file),
		CHECK_TEST(neighbouring_small_tensors_of_a_dtype_share_a_segment),
		CHECK_TEST(small_segments_share_tables),
	};
	int status;

	dir = sample_dir_create();
	src_path = sample_path(dir, "model.safetensors");
	dst_path = sample_path(dir, "model.wcx");
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	sample_dir_remove(dir);
	free(src_path);
	free(dst_path);
	return status;
}
