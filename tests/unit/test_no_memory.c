/* SPDX-License-Identifier: MIT */
/*
 * Makes every allocation fail in turn while a file is packed, unpacked, opened and read: each time there is an error,
 * nothing leaks and no file is left behind.  Also checks that packing larger files takes no more memory.
 *
 * The linker must --wrap each function that is WRAPPED below.
 */
#include <errno.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <search.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "fs/pack/pack.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"
#include "fs/read/unpack.h"
#include "tests/fixtures/sample_files.h"
#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

/* --- allocations that fail --- */

static atomic_long allocations;                 /* so far, including those that failed */
static atomic_long alive;                       /* allocated and not freed */
static atomic_long alive_bytes, peak_bytes;     /* of memory, rounded as malloc does */
static long failing_from = -1, failing_to = -1; /* which allocations fail, counted from 0; failing_to is exclusive */

static int fails(void)
{
	long number = atomic_fetch_add(&allocations, 1);

	return number >= failing_from && number < failing_to;
}

static void *counted(void *object)
{
	if (object)
		atomic_fetch_add(&alive, 1);
	return object;
}

static void add_bytes(long bytes)
{
	long now = atomic_fetch_add(&alive_bytes, bytes) + bytes, peak = atomic_load(&peak_bytes);

	while (now > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, now))
		;
}

static void *counted_memory(void *memory)
{
	if (memory)
		add_bytes((long)malloc_usable_size(memory));
	return counted(memory);
}

WRAPPED(void *, malloc, size_t bytes)
{
	return fails() ? NULL : counted_memory(__real_malloc(bytes));
}

WRAPPED(void *, calloc, size_t count, size_t bytes)
{
	return fails() ? NULL : counted_memory(__real_calloc(count, bytes));
}

WRAPPED(void *, aligned_alloc, size_t align, size_t bytes)
{
	return fails() ? NULL : counted_memory(__real_aligned_alloc(align, bytes));
}

WRAPPED(void *, realloc, void *old, size_t bytes)
{
	long old_bytes = old ? (long)malloc_usable_size(old) : 0;
	void *memory = fails() ? NULL : __real_realloc(old, bytes);

	if (memory)
		add_bytes((long)malloc_usable_size(memory) - old_bytes);
	return old ? memory : counted(memory);
}

WRAPPED(char *, strdup, const char *text)
{
	return fails() ? NULL : counted_memory(__real_strdup(text));
}

WRAPPED(void, free, void *memory)
{
	if (memory) {
		atomic_fetch_sub(&alive, 1);
		add_bytes(-(long)malloc_usable_size(memory));
	}
	__real_free(memory);
}

/* tdestroy frees the nodes inside the library, so they are not counted. */
WRAPPED(void *, tsearch, const void *key, void **root, int (*compare)(const void *, const void *))
{
	return fails() ? NULL : __real_tsearch(key, root, compare);
}

WRAPPED(EVP_MD_CTX *, EVP_MD_CTX_new, void)
{
	return fails() ? NULL : counted(__real_EVP_MD_CTX_new());
}

WRAPPED(void, EVP_MD_CTX_free, EVP_MD_CTX *digest)
{
	if (digest)
		atomic_fetch_sub(&alive, 1);
	__real_EVP_MD_CTX_free(digest);
}

WRAPPED(ZSTD_CCtx *, ZSTD_createCCtx, void)
{
	return fails() ? NULL : counted(__real_ZSTD_createCCtx());
}

WRAPPED(size_t, ZSTD_freeCCtx, ZSTD_CCtx *context)
{
	if (context)
		atomic_fetch_sub(&alive, 1);
	return __real_ZSTD_freeCCtx(context);
}

WRAPPED(ZSTD_DCtx *, ZSTD_createDCtx, void)
{
	return fails() ? NULL : counted(__real_ZSTD_createDCtx());
}

WRAPPED(size_t, ZSTD_freeDCtx, ZSTD_DCtx *context)
{
	if (context)
		atomic_fetch_sub(&alive, 1);
	return __real_ZSTD_freeDCtx(context);
}

WRAPPED(int, asprintf, char **ret, const char *format, ...)
{
	va_list args;
	int length;

	if (fails()) {
		*ret = (char *)1; /* undefined after a failure, according to the manual */
		return -1;
	}
	va_start(args, format);
	length = vasprintf(ret, format, args);
	va_end(args);
	counted_memory(*ret);
	return length;
}

/* A thread that cannot be created is no error: there are fewer threads then. */
static int threads_fail;

WRAPPED(int, pthread_create, pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	return threads_fail ? EAGAIN : __real_pthread_create(thread, attr, run, arg);
}

/* The allocations of choosing a decode variant, without which the portable one is taken. */
static long dispensable_from, dispensable_to;

WRAPPED(const struct wcx_decode_variant *, wcx_decode_variant_choose, void)
{
	const struct wcx_decode_variant *cpu;

	dispensable_from = atomic_load(&allocations);
	cpu = __real_wcx_decode_variant_choose();
	dispensable_to = atomic_load(&allocations);
	if (failing_from < dispensable_to && failing_to > dispensable_from)
		CHECK(cpu == &wcx_decode_variant_portable);
	return cpu;
}

/* --- attempts --- */

/* Coded, stored and constant tiles, pools, segments with the same content, and tables that outgrow their first buffer. */
static const struct sample_tensor tensors[] = {
	{ "coded", "I8", "[40,50]", 2000, SAMPLE_GAUSSIAN, 3 },
	{ "scale", "F16", "[]", 2, SAMPLE_UNIFORM, 0 },
	{ "empty", "F32", "[0,5]", 0, SAMPLE_CONSTANT, 0 },
	{ "wide", "F64", "[30,50]", 12000, SAMPLE_STUDENT, 2 },
	{ "constant", "U8", "[5000]", 5000, SAMPLE_CONSTANT, 0 },
	{ "integers", "I64", "[1000]", 8000, SAMPLE_GAUSSIAN, 9 },
	{ "twin", "U8", "[5000]", 5000, SAMPLE_CONSTANT, 0 },
	{ "pool.0", "BF16", "[3,50]", 300, SAMPLE_STUDENT, 2 },
	{ "pool.1", "BF16", "[3000]", 6000, SAMPLE_GAUSSIAN, 20 },
	{ "more", "F32", "[1000]", 4000, SAMPLE_GAUSSIAN, 20 },
	{ "tiny", "I8", "[5]", 5, SAMPLE_UNIFORM, 0 },
};

static char *dir, *src_path, *packed_path, *dst_path;
static struct sample_bytes original;

struct attempt {
	const char *name;
	/* Returns 0 or -errno; leaves no output and no memory. */
	int (*run)(unsigned thread_count, struct wcx_error *err);
};

static int try_pack(unsigned thread_count, struct wcx_error *err)
{
	struct wcx_pack_options options = { .job.thread_count = thread_count };
	struct wcx_pack_result result;
	int r = wcx_pack(src_path, dst_path, &options, &result, err);

	if (r == 0)
		unlink(dst_path);
	return r;
}

/* Opens an image of the packed file, with cache and decoder, and calls use. */
static int with_image(int (*use)(struct wcx_image *image, unsigned thread_count, struct wcx_error *err),
		      unsigned thread_count, struct wcx_error *err)
{
	struct wcx_tile_cache *cache = wcx_tile_cache_create(1 << 20);
	struct wcx_decoder *decoder = NULL;
	struct wcx_image *image = NULL;
	int fd = -1, r = cache ? 0 : wcx_fail(err, ENOMEM, "no memory");

	if (r == 0)
		r = wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, err);
	if (r == 0) {
		fd = open(packed_path, O_RDONLY | O_CLOEXEC);
		r = wcx_image_open(fd, packed_path, cache, decoder, &image, err);
	}
	if (r == 0)
		r = use(image, thread_count, err);
	else if (fd >= 0)
		close(fd);
	wcx_image_put(image);
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	return r;
}

static int unpack_image(struct wcx_image *image, unsigned thread_count, struct wcx_error *err)
{
	struct wcx_pack_options options = { .job.thread_count = thread_count };
	int r = wcx_unpack(image, dst_path, &options.job, err);

	if (r == 0)
		unlink(dst_path);
	return r;
}

static int read_image(struct wcx_image *image, unsigned thread_count, struct wcx_error *err)
{
	static uint8_t buffer[1 << 16];
	struct wcx_safetensors *st = NULL;
	int r = wcx_image_header(image, &st, err);

	(void)thread_count;
	wcx_safetensors_free(st);
	for (uint64_t at = 0; r == 0 && at < original.bytes; at += 1000) {
		ssize_t n = wcx_image_read(image, buffer, 1000, at, err);

		r = n < 0 ? (int)n : 0;
		if (n > 0)
			CHECK(memcmp(buffer, original.data + at, (size_t)n) == 0);
	}
	for (uint64_t t = 0; r == 0 && t < wcx_container_superblock(wcx_image_container(image))->tile_count; t++)
		r = wcx_image_check_tile(image, t, err);
	return r;
}

static int try_unpack(unsigned thread_count, struct wcx_error *err)
{
	return with_image(unpack_image, thread_count, err);
}

static int try_read(unsigned thread_count, struct wcx_error *err)
{
	return with_image(read_image, thread_count, err);
}

static unsigned open_descriptors(void)
{
	return sample_dir_count("/proc/self/fd");
}

/* Makes one attempt in which the allocations from `from` to before `to` fail; returns its result. */
static int run_failing(const struct attempt *attempt, unsigned thread_count, long from, long to)
{
	unsigned descriptors = open_descriptors();
	struct wcx_error err = { "" };
	long before;
	int r;

	before = alive;
	allocations = 0;
	failing_from = from;
	failing_to = to;
	r = attempt->run(thread_count, &err);
	failing_from = failing_to = -1;
	if (r < 0)
		CHECK(r == -ENOMEM && err.text[0]);
	if (!CHECK(alive == before) || !CHECK(sample_dir_count(dir) == 2) || !CHECK(open_descriptors() == descriptors))
		fprintf(stderr, "\t%s, %u threads, allocations %ld to %ld failing\n", attempt->name, thread_count, from, to);
	return r;
}

static void check_attempt(const struct attempt *attempt, unsigned thread_count)
{
	long total;

	CHECK(run_failing(attempt, thread_count, -1, -1) == 0);
	total = allocations;
	CHECK(total > 5);
	for (long i = 0; i < total; i++) {
		int one = run_failing(attempt, thread_count, i, i + 1);
		int all = run_failing(attempt, thread_count, i, INT32_MAX);

		int is_dispensable = i >= dispensable_from && i < dispensable_to;

		/* With several threads, the number of allocations varies. */
		if (thread_count == 1 && !(CHECK(one == (is_dispensable ? 0 : -ENOMEM)) && CHECK(all == -ENOMEM)))
			fprintf(stderr, "\t%s returned something else without allocation %ld\n", attempt->name, i);
	}
	CHECK(run_failing(attempt, thread_count, -1, -1) == 0);
}

static void every_failing_allocation_is_an_error_that_leaves_nothing(void)
{
	static const struct attempt attempts[] = { { "pack", try_pack }, { "unpack", try_unpack }, { "read", try_read } };

	for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
		check_attempt(&attempts[i], 1);
		check_attempt(&attempts[i], 3);
	}
}

/* Packs count tensors of this size, each a segment, with so many threads; returns the peak of allocated bytes. */
static long packing_peak(unsigned thread_count, size_t count, size_t bytes)
{
	struct sample_tensor *many = calloc(count, sizeof *many);
	char(*texts)[2][32] = calloc(count, sizeof *texts);
	struct wcx_pack_options options = { .job.thread_count = thread_count };
	char *path = sample_path(dir, "many.safetensors");
	struct wcx_pack_result result;
	struct sample_bytes file;
	struct wcx_error err = { "" };

	sample_require(many && texts, "calloc");
	for (size_t i = 0; i < count; i++) {
		snprintf(texts[i][0], sizeof texts[i][0], "tensor.%zu", i);
		snprintf(texts[i][1], sizeof texts[i][1], "[%zu]", bytes / 8);
		many[i] =
			(struct sample_tensor){ texts[i][0], i % 2 ? "F64" : "I64", texts[i][1], bytes, SAMPLE_CONSTANT, 0 };
	}
	file = sample_safetensors(many, count);
	sample_write(path, file);
	free(file.data);
	free(many);
	free(texts);
	atomic_store(&alive_bytes, 0);
	atomic_store(&peak_bytes, 0);
	sample_require(wcx_pack(path, dst_path, &options, &result, &err) == 0, err.text);
	unlink(path);
	unlink(dst_path);
	free(path);
	return atomic_load(&peak_bytes);
}

/*
 * Except for its share of index and header, and, where threads happen to meet, a batch of the decoder more or less: that has
 * room for packed bytes, and 2 MiB of decoding tables.
 */
static void packing_takes_no_more_memory_for_more_or_larger_tensors(void)
{
	enum { MIB = 1 << 20 };
	long some = packing_peak(1, 300, 64), many = packing_peak(1, 3000, 64);
	long small = packing_peak(2, 1, 66 * MIB), large = packing_peak(2, 1, 100 * MIB);

	CHECK(many < some + 2700 * 500);
	CHECK(large < small + WCX_BATCH_PACKED_BYTES + 3 * MIB);
	CHECK(many < 128 * MIB && large < 128 * MIB);
}

static void threads_that_cannot_be_had_are_done_without(void)
{
	struct wcx_error err;

	threads_fail = 1;
	CHECK(try_pack(5, &err) == 0);
	CHECK(try_unpack(5, &err) == 0);
	threads_fail = 0;
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(every_failing_allocation_is_an_error_that_leaves_nothing),
		CHECK_TEST(packing_takes_no_more_memory_for_more_or_larger_tensors),
		CHECK_TEST(threads_that_cannot_be_had_are_done_without),
	};
	struct wcx_pack_options options = { .job.thread_count = 1 };
	struct wcx_pack_result result;
	struct wcx_error err = { "" };
	int status;

	dir = sample_dir_create();
	src_path = sample_path(dir, "small.safetensors");
	packed_path = sample_path(dir, "small.wcx");
	dst_path = sample_path(dir, "output");
	original = sample_safetensors(tensors, sizeof tensors / sizeof tensors[0]);
	sample_write(src_path, original);
	sample_require(wcx_pack(src_path, packed_path, &options, &result, &err) == 0, err.text);
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	sample_dir_remove(dir);
	free(src_path);
	free(packed_path);
	free(dst_path);
	free(original.data);
	return status;
}
