/* SPDX-License-Identifier: MIT */
/* Loading when calls fail: of the GPU, of the file system and of the allocator; and the limits of what a loader takes. */
#include "tests/unit/load_samples.h"

/* --- failures --- */

/* Tensors at odd and even addresses, so that a load makes every kind of call. */
static size_t ranges_with_all_calls(struct range ranges[SAMPLE_PARTS_MAX])
{
	const size_t count = ranges_of_tensors(&samples[MIXED], ranges, NULL);

	for (size_t i = 0; i < count; i++)
		ranges[i].shift = i % 3 ? 0 : i % 8;
	return count;
}

/*
 * Makes one call of a kind fail, from the first to the last.  Each time nothing leaks, and the loader stays usable.  How
 * often several threads make a call may differ from load to load.
 */
static void fail_in_turn(const struct sample *sample, enum call call, enum wcx_result result, int errnum, unsigned threads)
{
	struct wcx_loader *loader = open_loader(threads);
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];
	const size_t count = ranges_with_all_calls(ranges);
	char error[ERROR_BYTES];
	unsigned calls, step;
	long before;

	disarm();
	CHECK(loads_right(loader, sample, ranges, count, &random));
	calls = calls_of(call);
	rearm(CALL_ADD, 0, WCX_BAD_DATA, NULL); /* the first failure makes the image remember its header */
	CHECK(failure_of(loader, sample, ranges, count, &random, error) == -EBADMSG);
	disarm();
	before = atomic_load(&alive);
	CHECK(calls > 0);
	step = calls > 24 ? calls / 12 : 1;
	for (unsigned i = 0; i < calls; i += i < 6 || i + 4 >= calls ? 1 : step) {
		rearm(call, i, result, NULL);
		if (!CHECK(failure_of(loader, sample, ranges, count, &random, error) == errnum ||
			   (threads > 1 && calls_of(call) <= i)))
			fprintf(stderr, "\tcall %d failed, number %u of %u: %s\n", (int)call, i, calls, error);
		disarm();
		CHECK(loads_right(loader, sample, ranges, count, &random));
		CHECK(threads > 1 || atomic_load(&alive) == before); /* several threads may need more scratch than before */
	}
	wcx_loader_close(loader);
}

/* Of calls that a file makes, pinned or not. */
static void fail_calls_in_turn(const struct sample *sample, unsigned threads)
{
	fail_in_turn(sample, CALL_BEGIN, WCX_DEVICE_FAILED, -EIO, threads);
	fail_in_turn(sample, CALL_BUFFER, WCX_OK, -EIO, threads);
	fail_in_turn(sample, CALL_STAGE, WCX_OK, -ENOMEM, threads);
	fail_in_turn(sample, CALL_ADD, WCX_BAD_DATA, -EBADMSG, threads);
	fail_in_turn(sample, CALL_SEND, WCX_DEVICE_FAILED, -EIO, threads);
	fail_in_turn(sample, CALL_SUBMIT, WCX_DEVICE_FAILED, -EIO, threads);
	fail_in_turn(sample, CALL_COPY, WCX_DEVICE_FAILED, -EIO, threads);
	fail_in_turn(sample, CALL_FILL, WCX_DEVICE_FAILED, -EIO, threads);
	fail_in_turn(sample, CALL_WAIT, WCX_DEVICE_FAILED, -EIO, threads);
}

static void every_call_of_the_gpu_may_fail(void)
{
	gpu.items_max = 40; /* several batches */
	for (unsigned threads = 1; threads <= 3; threads += 2)
		fail_calls_in_turn(&samples[MIXED], threads);
	gpu.items_max = ITEMS_MAX;
}

static void every_call_of_the_gpu_for_a_pinned_file_may_fail(void)
{
	gpu.items_max = 40;
	for (unsigned threads = 1; threads <= 3; threads += 2) {
		struct wcx_loader *loader = open_loader(threads);
		struct sample pinned = open_pinned(&samples[MIXED], loader);

		fail_calls_in_turn(&pinned, threads);
		fail_in_turn(&pinned, CALL_SEND_PINNED, WCX_DEVICE_FAILED, -EIO, threads);
		wcx_file_close(pinned.file);
		wcx_loader_close(loader);
	}
	gpu.items_max = ITEMS_MAX;
}

/* Makes one call of a kind fail while a file is pinned, until none does. */
static void fail_pin_in_turn(enum call call, enum wcx_result result, int errnum, const char *text, unsigned threads)
{
	struct wcx_loader *loader = open_loader(threads);
	struct sample_random random = { seed };
	struct sample sample = samples[MIXED];
	const struct range range = whole(&sample, 0);
	unsigned failed = 0;
	int r = -1;

	CHECK(wcx_file_open(sample.path, &sample.file, NULL, 0) == 0);
	CHECK(loads_right(loader, &sample, &range, 1, &random));
	for (unsigned i = 0; r < 0 && i < 1000; i++) {
		const long before = atomic_load(&alive);
		char error[ERROR_BYTES] = "";

		rearm(call, i, result, NULL);
		r = wcx_file_pin(sample.file, loader, error, sizeof error);
		disarm();
		if (r == 0)
			break;
		failed++;
		if (!CHECK(r == errnum && strstr(error, text)))
			fprintf(stderr, "\tcall %d, number %u: %d, \"%s\"\n", (int)call, i, r, error);
		CHECK(pinned_memories() == 0);
		/* The first failures make the image remember its header. */
		CHECK(failed < 3 || atomic_load(&alive) == before);
		CHECK(loads_right(loader, &sample, &range, 1, &random));
	}
	CHECK(r == 0 && failed > 0 && pinned_memories() == 1);
	CHECK(loads_right(loader, &sample, &range, 1, &random));
	wcx_file_close(sample.file);
	wcx_loader_close(loader);
}

static void every_call_of_pinning_may_fail(void)
{
	for (unsigned threads = 1; threads <= 3; threads += 2) {
		fail_pin_in_turn(CALL_PIN, WCX_NO_MEMORY, -ENOMEM, ": made to fail", threads);
		fail_pin_in_turn(CALL_PIN, WCX_NO_DEVICE, -ENODEV, ": made to fail", threads);
		fail_pin_in_turn(CALL_MAP, WCX_OK, -ENOMEM, ": no memory for a pinned copy of ", threads);
		fail_pin_in_turn(CALL_READ, WCX_OK, -READ_ERRNO, ", tile ", threads);
		fail_pin_in_turn(CALL_ALLOCATE, WCX_OK, -ENOMEM, "no memory", threads);
	}
}

static void every_read_may_fail_and_its_errno_is_returned(void)
{
	fail_in_turn(&samples[MIXED], CALL_READ, WCX_OK, -READ_ERRNO, 1);
	fail_in_turn(&samples[MIXED], CALL_READ, WCX_OK, -READ_ERRNO, 3);
}

static void a_failed_read_is_named(void)
{
	const struct sample *sample = &samples[MIXED];
	const struct wcx_segment *seg = segment_of(sample, "folded");
	const struct range range = { seg->offset, seg->bytes, 0 };
	struct wcx_loader *loader = open_loader(1);
	struct sample_random random = { seed };
	char text[ERROR_BYTES], error[ERROR_BYTES];
	struct wcx_tile_info info;

	wcx_container_tile(sample->container, seg, seg->first_tile, &info);
	tile_text(sample, "folded", seg, &info, strerror(READ_ERRNO), text);
	rearm(CALL_READ, 0, WCX_OK, NULL);
	CHECK(failure_of(loader, sample, &range, 1, &random, error) == -READ_ERRNO);
	CHECK_TEXT(error, text);
	disarm();
	wcx_loader_close(loader);
}

static void every_allocation_of_a_load_may_fail(void)
{
	struct wcx_loader *loader = open_loader(3);
	struct sample_random random = { seed };
	struct range ranges[SAMPLE_PARTS_MAX];
	const size_t count = ranges_with_all_calls(ranges);
	struct memory memory;
	unsigned failed = 0;
	int r = -1;

	for (unsigned i = 0; r < 0 && i < 1000; i++) {
		char error[ERROR_BYTES] = "";

		make_memory(&memory, &samples[MIXED], ranges, count, &random);
		rearm(CALL_ALLOCATE, i, WCX_OK, NULL);
		r = load_into(loader, &samples[MIXED], &memory, error, sizeof error);
		disarm();
		if (r < 0)
			CHECK(rest_is_untouched(&memory));
		else
			CHECK(memcmp(memory.bytes, memory.expected, memory.size) == 0);
		free_memory(&memory);
		failed += r < 0;
		/* The text names the file that the memory was for; threads belong to none. */
		if (!CHECK(r == 0 || (r == -ENOMEM && (strstr(error, samples[MIXED].path) == error ||
						       strcmp(error, "no memory for threads") == 0))))
			fprintf(stderr, "\tallocation %u: \"%s\"\n", i, error);
	}
	CHECK(r == 0 && failed >= 4);
	wcx_loader_close(loader);
}

static void every_allocation_of_opening_may_fail(void)
{
	struct wcx_file *file = NULL;
	struct wcx_loader *loader = NULL;
	unsigned failed = 0;

	for (unsigned i = 0; !file && i < 1000; i++) {
		char error[ERROR_BYTES] = "";
		int r;

		rearm(CALL_ALLOCATE, i, WCX_OK, NULL);
		r = wcx_file_open(samples[SMALL].path, &file, error, sizeof error);
		disarm();
		CHECK(r == 0 ? file != NULL : r == -ENOMEM && !file && strlen(error) > 0);
		failed += r < 0;
	}
	CHECK(file && failed >= 4);
	wcx_file_close(file);
	for (unsigned i = 0; !loader && i < 1000; i++) {
		char error[ERROR_BYTES] = "";
		int r;

		rearm(CALL_ALLOCATE, i, WCX_OK, NULL);
		r = wcx_loader_open(0, 2, &loader, error, sizeof error);
		disarm();
		CHECK(r == 0 ? loader != NULL : r == -ENOMEM && !loader && strlen(error) > 0);
	}
	CHECK(loader != NULL);
	wcx_loader_close(loader);
}

static void opening_a_loader_fails_with_the_reason_of_the_gpu(void)
{
	static const struct {
		enum wcx_result result;
		int errnum;
	} cases[] = { { WCX_NO_DEVICE, -ENODEV }, { WCX_NO_MEMORY, -ENOMEM }, { WCX_DEVICE_FAILED, -EIO } };
	struct wcx_loader *loader = NULL;
	char error[ERROR_BYTES];

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		rearm(CALL_OPEN, 0, cases[i].result, NULL);
		CHECK(wcx_loader_open(3, 2, &loader, error, sizeof error) == cases[i].errnum && !loader);
		CHECK(strstr(error, "3") && strstr(error, "made to fail"));
		disarm();
	}
	CHECK(wcx_loader_open(-1, 2, &loader, NULL, 0) == -ENODEV && !loader);
	wcx_loader_close(NULL);
}

/* --- limits --- */

static void zero_threads_mean_one_per_core_up_to_16(void)
{
	static const struct {
		unsigned cores;
		unsigned threads;
	} cases[] = { { 1, 1 }, { 7, 7 }, { 15, 15 }, { 16, 16 }, { 17, 16 }, { 200, 16 } };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		struct wcx_loader *loader;

		made_up_cores = cases[i].cores;
		loader = open_loader(0);
		CHECK(atomic_load(&gpu.queue_count) == 2 * cases[i].threads);
		wcx_loader_close(loader);
	}
	made_up_cores = 2;
	for (unsigned threads = 0; threads <= 40; threads += 20) {
		struct wcx_loader *loader = open_loader(threads);
		struct sample_random random = { seed };
		struct range range = whole(&samples[MIXED], 0);

		CHECK(atomic_load(&gpu.queue_count) == (threads ? 2 * threads : 4));
		CHECK(loads_right(loader, &samples[MIXED], &range, 1, &random));
		wcx_loader_close(loader);
	}
	made_up_cores = 0;
}

static void more_than_256_threads_are_refused(void)
{
	static const unsigned counts[] = { 257, UINT_MAX / 2 + 1, UINT_MAX };
	struct wcx_loader *loader = NULL;
	char error[ERROR_BYTES];

	for (size_t i = 0; i < WCX_ARRAY_COUNT(counts); i++) {
		error[0] = '\0';
		CHECK(wcx_loader_open(0, counts[i], &loader, error, sizeof error) == -EINVAL && !loader);
		CHECK(strlen(error) > 0);
	}
}

/* Makes one of the functions fail with an error buffer of some size. */
static int fail_into(int way, struct wcx_loader *loader, char *error, size_t error_bytes)
{
	const struct wcx_target target = { samples[SMALL].original.bytes, 1, NULL };
	struct wcx_loader *none = NULL;
	struct wcx_file *file = NULL;
	uint8_t byte;
	int r;

	switch (way) {
	case 0:
		return wcx_load(loader, samples[SMALL].file, &target, 1, NULL, error, error_bytes);
	case 1:
		return wcx_file_open("/nowhere/is.wcx", &file, error, error_bytes);
	case 2:
		return wcx_loader_open(-1, 1, &none, error, error_bytes);
	}
	change_byte(&samples[SMALL], WCX_SUPERBLOCK_BYTES + 20, 1);
	r = (int)wcx_file_read(samples[SMALL].file, &byte, 1, 20, error, error_bytes);
	change_byte(&samples[SMALL], WCX_SUPERBLOCK_BYTES + 20, 1);
	return r;
}

static void errors_fit_buffers_of_any_size(void)
{
	static const int errnums[] = { -EINVAL, -ENOENT, -ENODEV, -EBADMSG };
	struct wcx_loader *loader = open_loader(1);

	for (int way = 0; way < 4; way++) {
		char text[ERROR_BYTES] = "", error[ERROR_BYTES];

		CHECK(fail_into(way, loader, text, sizeof text) == errnums[way] && strlen(text) > 20);
		CHECK(fail_into(way, loader, NULL, 0) == errnums[way]);
		CHECK(fail_into(way, loader, NULL, 100) == errnums[way]);
		for (size_t bytes = 0; bytes < 20; bytes++) {
			memset(error, 'x', sizeof error);
			CHECK(fail_into(way, loader, error, bytes) == errnums[way]);
			CHECK(error[bytes] == 'x' && (bytes == 0 || strlen(error) == bytes - 1));
			CHECK(bytes == 0 || strncmp(error, text, bytes - 1) == 0);
		}
	}
	wcx_loader_close(loader);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(every_call_of_the_gpu_may_fail),
		CHECK_TEST(every_call_of_the_gpu_for_a_pinned_file_may_fail),
		CHECK_TEST(every_call_of_pinning_may_fail),
		CHECK_TEST(every_read_may_fail_and_its_errno_is_returned),
		CHECK_TEST(a_failed_read_is_named),
		CHECK_TEST(every_allocation_of_a_load_may_fail),
		CHECK_TEST(every_allocation_of_opening_may_fail),
		CHECK_TEST(opening_a_loader_fails_with_the_reason_of_the_gpu),
		CHECK_TEST(zero_threads_mean_one_per_core_up_to_16),
		CHECK_TEST(more_than_256_threads_are_refused),
		CHECK_TEST(errors_fit_buffers_of_any_size),
	};

	return load_tests_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
