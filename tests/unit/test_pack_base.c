/* SPDX-License-Identifier: MIT */
/* Packing against a base: what comes back, what it costs, and when a tensor is packed alone. */
#include "fs/pack/pack.h"

#include <math.h>

#include "tests/fixtures/sample_files.h"
#include "tests/fixtures/sample_weights.h"

enum { ROWS = 300, COLS = 500, ELEMS = ROWS * COLS, TENSORS_MAX = 64 };

static char *dir, *base_path, *other_path, *src_path, *dst_path;
static struct wcx_tile_cache *cache;
static struct wcx_decoder *decoder;

/* --- files --- */

static struct sample_bytes make_file(const struct sample_tensor *tensors, size_t count)
{
	return sample_safetensors(tensors, count);
}

static uint8_t *data_of(struct sample_bytes file)
{
	return file.data + 8 + wcx_le64_read(file.data);
}

/* A file of one matrix. */
static struct sample_bytes make_matrix(const char *name, const char *dtype, size_t elem_bytes)
{
	const struct sample_tensor tensor = { name, dtype, "[300,500]", ELEMS * elem_bytes, SAMPLE_CONSTANT, 0 };

	return make_file(&tensor, 1);
}

/* Gaussian weights, and the same with Gaussian drift of `drift` of their deviation. */
static void draw_floats(const struct sample_float *format, double drift, uint8_t *base, uint8_t *src)
{
	struct sample_random random = { 11 };

	for (size_t i = 0; i < ELEMS; i++) {
		const double weight = 0.02 * sample_normal(&random), moved = weight + drift * 0.02 * sample_normal(&random);

		sample_put_element(base, sample_float_bytes(format), i, sample_float_make(format, weight));
		sample_put_element(src, sample_float_bytes(format), i, sample_float_make(format, moved));
	}
}

static void pack_alone(const char *from, const char *to, struct sample_bytes file)
{
	const struct wcx_pack_options options = { .job.thread_count = 2, .job.replace = true };
	struct wcx_pack_result result;
	struct wcx_error err = { "" };

	sample_write(from, file);
	sample_require(wcx_pack(from, to, &options, &result, &err) == 0, err.text);
	CHECK(result.base_count == 0 && result.based_bytes == 0);
}

static void open_base(struct wcx_pack_base *base, const char *path, const char *hint)
{
	struct wcx_error err = { "" };

	*base = (struct wcx_pack_base){ .hint = hint };
	sample_require(wcx_image_open(open(path, O_RDONLY | O_CLOEXEC), path, cache, decoder, &base->image, &err) == 0,
		       err.text);
	sample_require(wcx_image_header(base->image, &base->st, &err) == 0, err.text);
}

static void close_base(struct wcx_pack_base *base)
{
	wcx_safetensors_free(base->st);
	wcx_image_put(base->image);
}

/* --- decoding, tile by tile, with the originals of the bases in memory --- */

static bool decodes_to(const struct wcx_container *c, struct sample_bytes file, const struct sample_bytes *bases)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	static uint8_t packed[WCX_TILE_MAX_BYTES], decoded[WCX_TILE_MAX_BYTES];
	bool equal = true;

	sample_require(scratch != NULL, "scratch");
	for (size_t i = 1; i < wcx_container_superblock(c)->segment_count; i++) {
		const struct wcx_segment *seg = wcx_container_segment(c, i);

		for (uint64_t t = 0; t < seg->tile_count; t++) {
			struct wcx_tile_info tile;
			uint64_t offset;

			wcx_container_tile(c, seg, seg->first_tile + t, &tile);
			offset = wcx_tile_row_offset(seg, &tile, 0);
			struct wcx_tile_job job = {
				.dims = tile.dims,
				.mode = tile.mode,
				.constant = tile.constant,
				.recipe = &seg->recipe,
				.src = packed,
				.src_bytes = tile.packed_bytes,
				.base = seg->base ? bases[seg->base - 1].data + seg->base_offset + (offset - seg->offset)
						  : NULL,
				.dst = decoded,
				.dst_bytes = wcx_tile_dims_bytes(&tile.dims),
			};

			CHECK(wcx_tile_is_contiguous(seg, &tile));
			CHECK(pread(wcx_container_fd(c), packed, tile.packed_bytes, (off_t)tile.packed_offset) ==
			      (ssize_t)tile.packed_bytes);
			if (tile.mode == WCX_TILE_ZSTD)
				continue; /* as it is without a base */
			equal &= wcx_tile_decode(&job, scratch) == WCX_OK &&
				 memcmp(decoded, file.data + offset, job.dst_bytes) == 0;
		}
	}
	wcx_decode_scratch_free(scratch);
	return equal;
}

static uint32_t told; /* the bases that were told of as needed: a bit each */

/* Comes before the output has its name. */
static void tell(void *user, size_t base)
{
	CHECK(access(dst_path, F_OK) < 0);
	CHECK(user == &told && !(told & UINT32_C(1) << base));
	told |= UINT32_C(1) << base;
}

/* Packs a file against bases, and checks that it comes back; the caller frees the container. */
static struct wcx_container *pack_against(struct sample_bytes file, const struct wcx_pack_base *bases, size_t count,
					  const struct sample_bytes *originals, struct wcx_pack_result *result)
{
	const struct wcx_pack_options options = {
		.job.thread_count = 2, .bases = bases, .base_count = count, .needs = tell, .needs_user = &told
	};
	struct wcx_container *c = NULL;
	struct wcx_error err = { "" };

	sample_write(src_path, file);
	unlink(dst_path);
	told = 0;
	sample_require(wcx_pack(src_path, dst_path, &options, result, &err) == 0, err.text);
	CHECK((uint32_t)__builtin_popcount(told) == result->base_count);
	sample_require(wcx_container_open(open(dst_path, O_RDONLY | O_CLOEXEC), dst_path, &c, &err) == 0, err.text);
	CHECK(wcx_container_base_count(c) == result->base_count);
	CHECK(decodes_to(c, file, originals));
	return c;
}

/* Packs a base, and a file against it; the sizes of the file alone and against the base. */
static void weigh(struct sample_bytes base, struct sample_bytes file, uint64_t *alone_ret, struct wcx_pack_result *ret)
{
	struct wcx_pack_base packed;
	struct stat st;

	pack_alone(src_path, dst_path, file);
	sample_require(stat(dst_path, &st) == 0, dst_path);
	*alone_ret = (uint64_t)st.st_size;
	pack_alone(src_path, base_path, base);
	open_base(&packed, base_path, "base.wcx");
	wcx_container_free(pack_against(file, &packed, 1, &base, ret));
	close_base(&packed);
}

/* --- tests --- */

static void floats_of_every_dtype_are_smaller_against_their_base(void)
{
	for (int f = 0; f < SAMPLE_FLOATS; f++) {
		const struct sample_float *format = &sample_floats[f];
		const size_t elem_bytes = sample_float_bytes(format);
		struct sample_bytes base = make_matrix("w", format->dtype, elem_bytes);
		struct sample_bytes file = make_matrix("w", format->dtype, elem_bytes);
		struct wcx_pack_result result;
		uint64_t alone;

		draw_floats(format, 1e-3, data_of(base), data_of(file));
		weigh(base, file, &alone, &result);
		CHECK(result.based_bytes == ELEMS * elem_bytes && result.base_count == 1);
		/* The bits below the drift are as random as before. */
		if (elem_bytes > 2)
			CHECK((double)result.packed_bytes < (double)alone - 0.8 * ELEMS);
		else
			CHECK(result.packed_bytes * 2 < alone);
		free(base.data);
		free(file.data);
	}
}

static void integers_of_every_size_are_smaller_against_their_base(void)
{
	static const struct {
		const char *dtype;
		size_t bytes;
	} dtypes[] = { { "I8", 1 }, { "U8", 1 }, { "I16", 2 }, { "U32", 4 }, { "I64", 8 }, { "X9", 1 } };

	for (size_t d = 0; d < WCX_ARRAY_COUNT(dtypes); d++) {
		struct sample_bytes base = make_matrix("w", dtypes[d].dtype, dtypes[d].bytes);
		struct sample_bytes file = make_matrix("w", dtypes[d].dtype, dtypes[d].bytes);
		struct sample_random random = { d };
		struct wcx_pack_result result;
		uint64_t alone;

		for (size_t i = 0; i < ELEMS; i++) {
			const int64_t value = (int64_t)(20 * sample_normal(&random));

			sample_put_element(data_of(base), dtypes[d].bytes, i, (uint64_t)value);
			sample_put_element(data_of(file), dtypes[d].bytes, i,
					   (uint64_t)(value + (sample_below(&random, 20) == 0) * (1 + (int)(i % 3) * 400)));
		}
		weigh(base, file, &alone, &result);
		CHECK(result.base_count == 1 && result.packed_bytes * 3 < alone);
		free(base.data);
		free(file.data);
	}
}

/* The entropy of BF16 residuals given the exponent of the base, in bytes, computed without the codec. */
static double residual_entropy(const uint8_t *base, const uint8_t *src)
{
	static double counts[256][65536];
	double bits = 0;

	memset(counts, 0, sizeof counts);
	for (size_t i = 0; i < ELEMS; i++) {
		const int16_t b = (int16_t)wcx_le16_read(base + 2 * i), x = (int16_t)wcx_le16_read(src + 2 * i);
		const int place_b = b < 0 ? -(b & 0x7FFF) - 1 : b, place_x = x < 0 ? -(x & 0x7FFF) - 1 : x;

		counts[(b & 0x7FFF) >> 7][(uint16_t)(place_x - place_b)]++;
	}
	for (int e = 0; e < 256; e++) {
		double sum = 0;

		for (int d = 0; d < 65536; d++)
			sum += counts[e][d];
		for (int d = 0; d < 65536; d++)
			bits += counts[e][d] > 0 ? counts[e][d] * log2(sum / counts[e][d]) : 0;
	}
	return bits / 8;
}

static void bf16_takes_the_entropy_given_the_exponent_of_the_base(void)
{
	static const double drifts[] = { 1e-4, 1e-3, 1e-2, 1e-1 };

	for (size_t d = 0; d < WCX_ARRAY_COUNT(drifts); d++) {
		struct sample_bytes base = make_matrix("w", "BF16", 2), file = make_matrix("w", "BF16", 2);
		struct wcx_pack_result result;
		double entropy, overhead;
		uint64_t alone;

		draw_floats(&sample_floats[SAMPLE_BF16], drifts[d], data_of(base), data_of(file));
		entropy = residual_entropy(data_of(base), data_of(file));
		weigh(base, file, &alone, &result);
		/* Index and tables; of each tile an entry, header and half of the states. */
		overhead = 192 + 3000 + 10 * (8 + 30 + 64);
		CHECK((double)result.packed_bytes < 1.05 * entropy + overhead);
		free(base.data);
		free(file.data);
	}
}

/* Tiles that are those of the base take their entries, under the same name or another. */
static void equal_tensors_take_eight_bytes_a_tile(void)
{
	static const char *const names[] = { "w", "tied" };
	struct sample_bytes base = make_matrix("w", "BF16", 2);

	draw_floats(&sample_floats[SAMPLE_BF16], 0, data_of(base), data_of(base));
	for (size_t n = 0; n < WCX_ARRAY_COUNT(names); n++) {
		struct sample_bytes file = make_matrix(names[n], "BF16", 2);
		struct wcx_pack_result result;
		uint64_t alone;

		memcpy(data_of(file), data_of(base), (size_t)ELEMS * 2);
		weigh(base, file, &alone, &result);
		CHECK(result.base_count == 1 && result.based_bytes == (size_t)ELEMS * 2);
		CHECK(result.packed_bytes < 192 + 700 && alone > 100 * 1000);
		free(file.data);
	}
	free(base.data);
}

/* Against other weights a tensor is no smaller; the file is then what it is without a base. */
static void a_base_that_saves_nothing_is_not_named(void)
{
	struct sample_bytes base = make_matrix("w", "BF16", 2), file = make_matrix("w", "BF16", 2), packed, alone;
	struct wcx_pack_result result;
	struct wcx_pack_base opened;

	draw_floats(&sample_floats[SAMPLE_BF16], 0, data_of(base), data_of(base));
	sample_fill_weights(&sample_floats[SAMPLE_BF16], 99, data_of(file), ELEMS);
	pack_alone(src_path, base_path, base);
	pack_alone(src_path, other_path, file);
	open_base(&opened, base_path, "base.wcx");
	wcx_container_free(pack_against(file, &opened, 1, &base, &result));
	CHECK(result.base_count == 0 && result.based_bytes == 0);
	packed = sample_read(dst_path);
	alone = sample_read(other_path);
	CHECK(sample_equal(packed, alone));
	close_base(&opened);
	free(packed.data);
	free(alone.data);
	free(base.data);
	free(file.data);
}

/* A matrix with small tensors around it, of a name that begins with prefix. */
static struct sample_bytes make_layers(char names[TENSORS_MAX][16], const int *order, int count, char prefix)
{
	struct sample_tensor tensors[TENSORS_MAX];

	for (int i = 0; i < count; i++) {
		snprintf(names[i], sizeof names[i], "%c%d", prefix, order[i]);
		tensors[i] = (struct sample_tensor){ names[i], "F32", "[500]", 2000, SAMPLE_GAUSSIAN, 9 };
	}
	return make_file(tensors, (size_t)count);
}

/* Small tensors share a segment, which has one range of the base or none. */
static void small_tensors_need_their_order_in_the_base(void)
{
	static const int straight[] = { 0, 1, 2, 3, 4, 5, 6, 7 }, twisted[] = { 0, 1, 2, 3, 5, 4, 6, 7 };
	char names[TENSORS_MAX][16];
	struct sample_bytes base = make_layers(names, straight, 8, 'a');
	struct wcx_pack_result result;
	uint64_t alone;

	for (int twist = 0; twist < 2; twist++) {
		struct sample_bytes file = make_layers(names, twist ? twisted : straight, 8, 'a');

		weigh(base, file, &alone, &result);
		CHECK(result.based_bytes == (twist ? 0 : 16000u));
		free(file.data);
	}
	free(base.data);
}

/* A file whose tensors are spread over two bases, of which it names those that it needs. */
static void tensors_may_have_different_bases(void)
{
	const struct sample_tensor both[] = {
		{ "x", "I8", "[300,500]", ELEMS, SAMPLE_GAUSSIAN, 30 },
		{ "y", "I8", "[500,300]", ELEMS, SAMPLE_GAUSSIAN, 20 },
	};
	struct sample_bytes file = make_file(both, 2), bases[3];
	struct wcx_pack_base packed[3];
	struct wcx_pack_result result;
	struct wcx_container *c;

	bases[0] = make_matrix("y", "I8", 1); /* of another shape */
	bases[1] = make_file(&both[1], 1);
	bases[2] = make_matrix("x", "I8", 1);
	memcpy(data_of(bases[1]), data_of(file) + ELEMS, ELEMS);
	memcpy(data_of(bases[2]), data_of(file), ELEMS);
	for (int i = 0; i < 3; i++) {
		pack_alone(src_path, base_path, bases[i]);
		open_base(&packed[i], base_path, i == 1 ? "one.wcx" : "two.wcx");
	}
	/* They have their numbers by the first tensor that needs them. */
	c = pack_against(file, packed, 3, (struct sample_bytes[]){ bases[2], bases[1] }, &result);
	CHECK(result.base_count == 2);
	CHECK_TEXT(wcx_container_base(c, 1)->name, "two.wcx");
	CHECK_TEXT(wcx_container_base(c, 2)->name, "one.wcx");
	CHECK(memcmp(wcx_container_base(c, 2)->sha256,
		     wcx_container_superblock(wcx_image_container(packed[1].image))->sha256, WCX_SHA256_BYTES) == 0);
	wcx_container_free(c);
	for (int i = 0; i < 3; i++) {
		close_base(&packed[i]);
		free(bases[i].data);
	}
	free(file.data);
}

static void the_output_does_not_depend_on_the_number_of_threads(void)
{
	struct sample_bytes base = make_matrix("w", "F32", 4), file = make_matrix("w", "F32", 4), outputs[2];
	struct wcx_pack_base packed;

	draw_floats(&sample_floats[SAMPLE_F32], 1e-2, data_of(base), data_of(file));
	pack_alone(src_path, base_path, base);
	open_base(&packed, base_path, "base.wcx");
	sample_write(src_path, file);
	for (unsigned i = 0; i < 2; i++) {
		const struct wcx_pack_options options = {
			.job.thread_count = 1 + 4 * i, .job.replace = true, .bases = &packed, .base_count = 1
		};
		struct wcx_pack_result result;
		struct wcx_error err = { "" };

		sample_require(wcx_pack(src_path, dst_path, &options, &result, &err) == 0, err.text);
		outputs[i] = sample_read(dst_path);
	}
	CHECK(sample_equal(outputs[0], outputs[1]));
	close_base(&packed);
	for (int i = 0; i < 2; i++)
		free(outputs[i].data);
	free(base.data);
	free(file.data);
}

/*
 * Runs that moved by unequal amounts choose among sets of tables, which takes less space than one set for all.  Where each
 * run has elements that moved by either amount, there are no sets, nor their flag.
 */
static void runs_that_moved_unequally_choose_sets_of_tables(void)
{
	uint64_t bytes[2];

	for (unsigned unequal = 0; unequal < 2; unequal++) {
		struct sample_bytes base = make_matrix("w", "BF16", 2), file = make_matrix("w", "BF16", 2);
		const struct sample_float *bf16 = &sample_floats[SAMPLE_BF16];
		struct sample_random random = { 23 };
		struct wcx_pack_result result;
		struct wcx_pack_base packed;
		struct wcx_container *c;
		bool has_sets = false;

		for (size_t i = 0; i < ELEMS; i++) {
			const double drift = 3e-3 * pow(6, -(double)((unequal ? i / 256 : i) % 3));
			const double weight = 0.02 * sample_normal(&random);

			sample_put_element(data_of(base), 2, i, sample_float_make(bf16, weight));
			sample_put_element(data_of(file), 2, i,
					   sample_float_make(bf16, weight + 0.02 * drift * sample_normal(&random)));
		}
		pack_alone(src_path, base_path, base);
		open_base(&packed, base_path, "base.wcx");
		c = pack_against(file, &packed, 1, &base, &result);
		for (size_t i = 1; i < wcx_container_superblock(c)->segment_count; i++)
			for (uint32_t f = 0; f < wcx_container_segment(c, i)->recipe.field_count; f++)
				has_sets |= wcx_container_segment(c, i)->recipe.fields[f].set_bits != 0;
		CHECK(has_sets == unequal);
		CHECK(wcx_container_superblock(c)->features ==
		      (WCX_FEATURE_BASES | WCX_FEATURE_ESCAPES | (unequal ? WCX_FEATURE_SETS : 0)));
		bytes[unequal] = result.packed_bytes;
		wcx_container_free(c);
		close_base(&packed);
		free(base.data);
		free(file.data);
	}
	CHECK(bytes[1] < bytes[0] * 9 / 10);
}

/* INT8 that has moved by a step or two: two elements a symbol, for less than half a percent. */
static void small_steps_of_int8_are_coded_in_pairs(void)
{
	struct sample_bytes base = make_matrix("w", "I8", 1), file = make_matrix("w", "I8", 1);
	struct sample_random random = { 29 };
	struct wcx_pack_result result;
	struct wcx_pack_base packed;
	struct wcx_container *c;
	double entropy = 0;
	uint32_t counts[256] = { 0 };

	for (size_t i = 0; i < ELEMS; i++) {
		const int8_t from = (int8_t)sample_clip(30 * sample_normal(&random));
		const int step = (int)lrint(0.6 * sample_normal(&random));

		data_of(base)[i] = (uint8_t)from;
		data_of(file)[i] = (uint8_t)(from + step);
		counts[(uint8_t)step]++;
	}
	for (uint32_t s = 0; s < 256; s++)
		entropy -= counts[s] ? counts[s] * log2((double)counts[s] / ELEMS) : 0;
	pack_alone(src_path, base_path, base);
	open_base(&packed, base_path, "base.wcx");
	c = pack_against(file, &packed, 1, &base, &result);
	CHECK(wcx_container_superblock(c)->features == (WCX_FEATURE_BASES | WCX_FEATURE_DIFFERENCE_PAIRS));
	CHECK(wcx_container_segment(c, 1)->recipe.fields[0].is_pair);
	CHECK((double)result.packed_bytes < 1.03 * entropy / 8 + 2048);
	wcx_container_free(c);
	close_base(&packed);
	free(base.data);
	free(file.data);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(floats_of_every_dtype_are_smaller_against_their_base),
		CHECK_TEST(integers_of_every_size_are_smaller_against_their_base),
		CHECK_TEST(bf16_takes_the_entropy_given_the_exponent_of_the_base),
		CHECK_TEST(equal_tensors_take_eight_bytes_a_tile),
		CHECK_TEST(a_base_that_saves_nothing_is_not_named),
		CHECK_TEST(small_tensors_need_their_order_in_the_base),
		CHECK_TEST(tensors_may_have_different_bases),
		CHECK_TEST(runs_that_moved_unequally_choose_sets_of_tables),
		CHECK_TEST(small_steps_of_int8_are_coded_in_pairs),
		CHECK_TEST(the_output_does_not_depend_on_the_number_of_threads),
	};
	struct wcx_error err = { "" };
	int status;

	dir = sample_dir_create();
	base_path = sample_path(dir, "base.wcx");
	other_path = sample_path(dir, "other.wcx");
	src_path = sample_path(dir, "file.safetensors");
	dst_path = sample_path(dir, "file.wcx");
	cache = wcx_tile_cache_create(16 << 20);
	sample_require(cache && wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, &err) == 0, err.text);
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	free(base_path);
	free(other_path);
	free(src_path);
	free(dst_path);
	sample_dir_remove(dir);
	return status;
}
