/* SPDX-License-Identifier: MIT */
/* Which bases a sketch takes for relatives, and what it reads of those that are none. */
#include "fs/pack/base_sketch.h"

#include "fs/format/safetensors_file.h"
#include "tests/fixtures/sample_files.h"
#include "tests/fixtures/sample_weights.h"

enum { ROWS = 300, COLS = 400, ELEMS = ROWS * COLS, TENSORS = 8 };

/* Least gain of what a tree is packed against. */
static const double MIN_GAIN = 0.05;

/* --- files --- */

/* A file in memory, with what was read of it. */
struct file {
	struct sample_bytes bytes;
	struct wcx_sketched_file sketched;
	unsigned reads;
};

static int read_file(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	struct file *file = (struct file *)(uintptr_t)user;

	(void)err;
	sample_require(offset + bytes <= file->bytes.bytes, "a read behind the end");
	memcpy(dst, file->bytes.data + offset, bytes);
	file->reads++;
	return 0;
}

/* Makes a file of like matrices, which the caller fills and frees. */
static void make_file(struct file *file, const char *dtype, size_t elem_bytes)
{
	static const char *const names[TENSORS] = { "a", "b", "c", "d", "e", "f", "g", "h" };
	struct sample_tensor tensors[TENSORS];
	struct wcx_safetensors *st = NULL;
	struct wcx_error err = { "" };
	int fd;

	for (size_t i = 0; i < TENSORS; i++)
		tensors[i] = (struct sample_tensor){ names[i], dtype, "[300,400]", ELEMS * elem_bytes, SAMPLE_CONSTANT, 0 };
	*file = (struct file){ .bytes = sample_safetensors(tensors, TENSORS) };
	fd = sample_open(file->bytes.data, file->bytes.bytes);
	sample_require(wcx_safetensors_read(fd, "", file->bytes.bytes, &st, &err) == 0, err.text);
	close(fd);
	file->sketched = (struct wcx_sketched_file){ .st = st, .reader = { .read = read_file, .user = file } };
}

static void free_file(struct file *file)
{
	wcx_safetensors_free((struct wcx_safetensors *)(uintptr_t)file->sketched.st);
	free(file->bytes.data);
}

static uint8_t *data_of(const struct file *file)
{
	return file->bytes.data + file->sketched.st->tensors[0].offset;
}

/* The weight of an element whose base has `weight`. */
typedef double tune_element(struct sample_random *random, size_t elem, double weight);

/* Makes base and file with Gaussian weights, and sketches them; the caller frees both. */
static double sketch(const struct sample_float *format, tune_element *tune, unsigned tensors, struct file *base,
		     struct file *file)
{
	const size_t elem_bytes = sample_float_bytes(format);
	struct sample_random random = { 11 };
	struct wcx_base_sketch ret;
	struct wcx_error err = { "" };

	make_file(base, format->dtype, elem_bytes);
	make_file(file, format->dtype, elem_bytes);
	for (size_t i = 0; i < (size_t)ELEMS * TENSORS; i++) {
		const double weight = 0.02 * sample_normal(&random);

		sample_put_element(data_of(base), elem_bytes, i, sample_float_make(format, weight));
		sample_put_element(data_of(file), elem_bytes, i, sample_float_make(format, tune(&random, i, weight)));
	}
	CHECK(wcx_base_sketch_make(&base->sketched, &file->sketched, tensors, &ret, &err) == 0);
	CHECK(ret.matched_bytes == ELEMS * TENSORS * elem_bytes);
	return ret.gain;
}

/* --- tests --- */

static double draw_anew(struct sample_random *random, size_t elem, double weight)
{
	(void)elem;
	(void)weight;
	return 0.02 * sample_normal(random);
}

static void unrelated_files_are_read_once_and_not_drafted(void)
{
	for (size_t f = 0; f < SAMPLE_FLOATS; f++) {
		struct file base, file;

		CHECK(sketch(&sample_floats[f], draw_anew, TENSORS, &base, &file) == 0);
		CHECK(base.reads > 0 && base.reads <= TENSORS);
		CHECK(file.reads == base.reads);
		free_file(&base);
		free_file(&file);
	}
}

static double drift(struct sample_random *random, size_t elem, double weight)
{
	(void)elem;
	return weight + 0.05 * 0.02 * sample_normal(random);
}

/* Every third row is the base's. */
static double keep_rows(struct sample_random *random, size_t elem, double weight)
{
	return elem / COLS % 3 ? 0.02 * sample_normal(random) : weight;
}

/* Every third element is the base's. */
static double keep_elements(struct sample_random *random, size_t elem, double weight)
{
	return elem % 3 ? 0.02 * sample_normal(random) : weight;
}

/* Only magnitudes have to do with the base. */
static double change_signs(struct sample_random *random, size_t elem, double weight)
{
	(void)elem;
	return sample_below(random, 2) ? weight : -weight;
}

/* The tensors in the middle are the base's. */
static double keep_tensors(struct sample_random *random, size_t elem, double weight)
{
	const size_t tensor = elem / ELEMS;

	return tensor == TENSORS / 2 || tensor == TENSORS / 2 - 1 ? weight : 0.02 * sample_normal(random);
}

static void all_kinds_of_relatives_are_found(void)
{
	static tune_element *const kinds[] = { drift, keep_rows, keep_elements, change_signs, keep_tensors };

	for (size_t k = 0; k < WCX_ARRAY_COUNT(kinds); k++)
		for (size_t f = 0; f < SAMPLE_WIDE_FLOATS; f++) {
			struct file base, file;

			CHECK(sketch(&sample_floats[f], kinds[k], TENSORS, &base, &file) >= MIN_GAIN);
			CHECK(base.reads > TENSORS);
			free_file(&base);
			free_file(&file);
		}
}

static void what_was_looked_at_is_not_read_again(void)
{
	static tune_element *const kinds[] = { draw_anew, drift };

	for (size_t k = 0; k < WCX_ARRAY_COUNT(kinds); k++) {
		struct wcx_looks looks[2] = { 0 };
		struct wcx_base_sketch kept = { 0 };
		struct wcx_error err = { "" };
		struct file base, file;
		const double gain = sketch(&sample_floats[SAMPLE_BF16], kinds[k], TENSORS, &base, &file);
		const unsigned reads = file.reads;

		file.sketched.looks = &looks[0];
		base.sketched.looks = &looks[1];
		for (int again = 0; again < 2; again++) {
			file.reads = base.reads = 0;
			CHECK(wcx_base_sketch_make(&base.sketched, &file.sketched, TENSORS, &kept, &err) == 0);
			CHECK(kept.gain == gain);
			/* Of relatives, the first look tells that they are; drafts read on their own. */
			CHECK(file.reads == reads - (again ? looks[0].count : 0));
		}
		CHECK((k > 0 || base.reads == 0) && looks[0].count == (k ? 1 : reads) && looks[1].count == looks[0].count);
		wcx_looks_free(&looks[0]);
		wcx_looks_free(&looks[1]);
		free_file(&base);
		free_file(&file);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(unrelated_files_are_read_once_and_not_drafted),
		CHECK_TEST(what_was_looked_at_is_not_read_again),
		CHECK_TEST(all_kinds_of_relatives_are_found),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
