/* SPDX-License-Identifier: MIT */
/* Loading packed files into host memory: any ranges to any places, damage, and ranges that are refused. */
#include "fs/lib/wcx.h"

#include "tests/unit/load_samples.h"

/* Loads ranges; memory->bytes then holds what was there before, and the targets. */
static int load_to_host(const struct sample *sample, struct memory *memory, unsigned threads, char error[ERROR_BYTES])
{
	memcpy(memory->bytes, memory->before, memory->size);
	error[0] = '\0';
	return wcx_load_host(sample->file, memory->targets, memory->count, threads, error, ERROR_BYTES);
}

static bool host_loads_right(const struct sample *sample, const struct range *ranges, size_t count, unsigned threads,
			     struct sample_random *random)
{
	char error[ERROR_BYTES];
	struct memory memory;
	bool is_right;

	make_memory(&memory, sample, ranges, count, random);
	is_right = load_to_host(sample, &memory, threads, error) == 0 &&
		   memcmp(memory.bytes, memory.expected, memory.size) == 0;
	if (error[0])
		fprintf(stderr, "\t%s\n", error);
	free_memory(&memory);
	return is_right;
}

/* Loads what must fail, checks that only targets were written, and returns the result. */
static int host_failure_of(const struct sample *sample, const struct range *ranges, size_t count, unsigned threads,
			   char error[ERROR_BYTES])
{
	struct sample_random random = { seed };
	struct memory memory;
	int r;

	make_memory(&memory, sample, ranges, count, &random);
	r = load_to_host(sample, &memory, threads, error);
	CHECK(rest_is_untouched(&memory));
	free_memory(&memory);
	return r;
}

static void whole_files_are_loaded_by_any_number_of_threads(void)
{
	static const unsigned threads[] = { 0, 1, 2, 7 };
	struct sample_random random = { seed };

	for (int f = 0; f < FILES; f++)
		for (size_t i = 0; i < WCX_ARRAY_COUNT(threads); i++) {
			const struct range range = whole(&samples[f], (size_t)sample_below(&random, 8));

			CHECK(host_loads_right(&samples[f], &range, 1, threads[i], &random));
		}
}

static void all_tensors_are_scattered(void)
{
	struct sample_random random = { seed };
	struct range ranges[200];

	for (int f = 0; f < FILES; f++) {
		const size_t count = ranges_of_tensors(&samples[f], ranges, &random);

		CHECK(host_loads_right(&samples[f], ranges, count, 3, &random));
		for (size_t i = 0; i < count; i++)
			CHECK(host_loads_right(&samples[f], &ranges[i], 1, 2, &random));
	}
}

static void ranges_that_cut_elements_rows_and_tiles_are_loaded(void)
{
	struct sample_random random = { seed };

	for (int f = 0; f < FILES; f++)
		for (int i = 0; i < 40; i++) {
			const uint64_t total = samples[f].original.bytes;
			const uint64_t a = sample_below(&random, total), b = a + sample_below(&random, total - a + 1);
			const uint64_t c = b + sample_below(&random, total - b + 1);
			const struct range ranges[] = { { a, b - a, (size_t)sample_below(&random, 8) },
							{ c, total - c, 0 } };

			CHECK(host_loads_right(&samples[f], ranges, 2, 2, &random));
		}
}

static void empty_targets_and_no_targets_are_allowed(void)
{
	struct sample_random random = { seed };
	const struct range empty[] = { { 0, 0, 0 }, { samples[MIXED].original.bytes, 0, 0 } };

	CHECK(host_loads_right(&samples[MIXED], empty, 2, 0, &random));
	CHECK(wcx_load_host(samples[MIXED].file, NULL, 0, 0, NULL, 0) == 0);
}

static void check_host_refused(const struct range *ranges, size_t count, unsigned threads)
{
	struct sample_random random = { seed };
	char error[ERROR_BYTES];
	struct memory memory;

	make_memory(&memory, &samples[MIXED], ranges, count, &random);
	CHECK(load_to_host(&samples[MIXED], &memory, threads, error) == -EINVAL);
	CHECK(memcmp(memory.bytes, memory.before, memory.size) == 0);
	CHECK(error[0] && !strchr(error, '\n'));
	free_memory(&memory);
}

static void wrong_ranges_and_too_many_threads_are_refused(void)
{
	const uint64_t total = samples[MIXED].original.bytes;

	check_host_refused((struct range[]){ { 100, 50, 0 }, { 149, 50, 0 } }, 2, 0);
	check_host_refused((struct range[]){ { 0, total + 1, 0 } }, 1, 0);
	check_host_refused((struct range[]){ { UINT64_MAX, 1, 0 } }, 1, 2);
	check_host_refused((struct range[]){ { 0, 10, 0 } }, 1, 257);
}

/* A byte in the packed form of one tile is changed: loads that need the tile fail and name it, others are right. */
static void a_damaged_tile_fails_what_needs_it_and_nothing_else(void)
{
	const struct sample *sample = &samples[PACKED];
	struct sample_random random = { seed };
	char error[ERROR_BYTES], expected[ERROR_BYTES];

	for (size_t i = 0; i < sample->st->tensor_count; i++) {
		const struct wcx_tensor *tensor = &sample->st->tensors[i];
		const struct wcx_segment *seg = segment_of(sample, tensor->name);
		const struct range range = { tensor->offset, tensor->bytes, 0 };
		struct wcx_tile_info info;
		bool is_damaged = false;

		if (!tensor->bytes)
			continue;
		wcx_container_tile(sample->container, seg, wcx_segment_tile_at(seg, tensor->offset), &info);
		if (info.mode == WCX_TILE_CONSTANT)
			continue;
		change_byte(sample, info.packed_offset + info.packed_bytes / 2, 0x10);
		CHECK(host_failure_of(sample, &range, 1, 2, error) == -EBADMSG);
		tile_text(sample, tensor->name, seg, &info, "damaged", expected);
		CHECK_TEXT(error, expected);
		for (size_t other = 0; other < sample->st->tensor_count; other++) {
			const struct wcx_tensor *its = &sample->st->tensors[other];
			const struct range its_range = { its->offset, its->bytes, 0 };

			if (its->bytes && segment_of(sample, its->name)->first_tile != seg->first_tile)
				CHECK(host_loads_right(sample, &its_range, 1, 1, &random));
			else
				is_damaged = true;
		}
		CHECK(is_damaged);
		change_byte(sample, info.packed_offset + info.packed_bytes / 2, 0x10);
		CHECK(host_loads_right(sample, &range, 1, 2, &random));
	}
}

static void the_sha256_is_that_of_the_superblock(void)
{
	for (int f = 0; f < FILES; f++) {
		uint8_t sha256[32];

		wcx_file_sha256(samples[f].file, sha256);
		CHECK(memcmp(sha256, wcx_container_superblock(samples[f].container)->sha256, sizeof sha256) == 0);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(whole_files_are_loaded_by_any_number_of_threads),
		CHECK_TEST(all_tensors_are_scattered),
		CHECK_TEST(ranges_that_cut_elements_rows_and_tiles_are_loaded),
		CHECK_TEST(empty_targets_and_no_targets_are_allowed),
		CHECK_TEST(wrong_ranges_and_too_many_threads_are_refused),
		CHECK_TEST(a_damaged_tile_fails_what_needs_it_and_nothing_else),
		CHECK_TEST(the_sha256_is_that_of_the_superblock),
	};

	return load_tests_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
