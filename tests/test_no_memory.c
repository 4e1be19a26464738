/* SPDX-License-Identifier: MIT */
/*
 * Every allocation is made to fail in turn, while a file is packed, unpacked, opened and read: each time there is an error,
 * nothing leaks and no file is left behind.
 *
 * The linker has to be told to --wrap each function that is WRAPPED below.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fs/image.h"
#include "fs/pack.h"
#include "fs/unpack.h"
#include "tests/check.h"
#include "tests/sample_files.h"

/* --- allocations that fail --- */

static atomic_long allocations;                 /* so far; those that failed included */
static atomic_long alive;                       /* allocated and not freed */
static long failing_from = -1, failing_to = -1; /* the allocations that fail, counted from 0; to is exclusive */

static int fails(void)
{
	long number = atomic_fetch_add(&allocations, 1);

	return number >= failing_from && number < failing_to;
}

static void *counted(void *memory)
{
	if (memory)
		atomic_fetch_add(&alive, 1);
	return memory;
}

/* A declaration and the definition behind it, because nothing else declares what the linker makes. */
#define WRAPPED(type, name, ...)                                                                                            \
	type __real_##name(__VA_ARGS__);                                                                                    \
	type __wrap_##name(__VA_ARGS__);                                                                                    \
	type __wrap_##name(__VA_ARGS__)

WRAPPED(void *, malloc, size_t bytes)
{
	return fails() ? NULL : counted(__real_malloc(bytes));
}

WRAPPED(void *, calloc, size_t count, size_t bytes)
{
	return fails() ? NULL : counted(__real_calloc(count, bytes));
}

WRAPPED(void *, aligned_alloc, size_t align, size_t bytes)
{
	return fails() ? NULL : counted(__real_aligned_alloc(align, bytes));
}

WRAPPED(void *, realloc, void *old, size_t bytes)
{
	if (fails())
		return NULL;
	return old ? __real_realloc(old, bytes) : counted(__real_realloc(NULL, bytes));
}

WRAPPED(char *, strdup, const char *text)
{
	return fails() ? NULL : counted(__real_strdup(text));
}

WRAPPED(void, free, void *memory)
{
	if (memory)
		atomic_fetch_sub(&alive, 1);
	__real_free(memory);
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

WRAPPED(int, asprintf, char **ret, const char *format, ...)
{
	va_list args;
	int length;

	if (fails()) {
		*ret = (char *)1; /* undefined after a failure, says the manual */
		return -1;
	}
	va_start(args, format);
	length = vasprintf(ret, format, args);
	va_end(args);
	counted(*ret);
	return length;
}

/* A thread that cannot be had is no error: there are fewer then. */
static int threads_fail;

WRAPPED(int, pthread_create, pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	return threads_fail ? EAGAIN : __real_pthread_create(thread, attr, run, arg);
}

/* --- what is tried --- */

static char *dir, *src_path, *packed_path, *dst_path;
static struct sample_bytes original;

struct attempt {
	const char *name;
	/* Returns 0 or -errno; leaves no output and frees all that it had. */
	int (*run)(unsigned thread_count, struct wcx_error *err);
};

static int try_pack(unsigned thread_count, struct wcx_error *err)
{
	struct wcx_pack_options options = { .thread_count = thread_count };
	struct wcx_pack_result result;
	int r = wcx_pack(src_path, dst_path, &options, &result, err);

	if (r == 0)
		unlink(dst_path);
	return r;
}

/* Makes an image of the packed file with all that it stands on, and calls use. */
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
	struct wcx_pack_options options = { .thread_count = thread_count };
	int r = wcx_unpack(image, dst_path, &options, err);

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

/* One attempt with the allocations from..to failing; returns what it returned. */
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

		/* With several threads, how many allocations there are depends on how they run. */
		if (thread_count == 1 && !(CHECK(one == -ENOMEM) && CHECK(all == -ENOMEM)))
			fprintf(stderr, "\t%s went on without allocation %ld\n", attempt->name, i);
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

static void threads_that_cannot_be_had_are_done_without(void)
{
	struct wcx_error err;

	threads_fail = 1;
	CHECK(try_pack(5, &err) == 0);
	CHECK(try_unpack(5, &err) == 0);
	threads_fail = 0;
}

int main(void)
{
	struct wcx_pack_options options = { .thread_count = 1 };
	struct wcx_pack_result result;
	struct wcx_error err = { "" };

	dir = sample_dir_create();
	src_path = sample_path(dir, "small.safetensors");
	packed_path = sample_path(dir, "small.wcx");
	dst_path = sample_path(dir, "output");
	original = sample_safetensors(sample_small, SAMPLE_SMALL_COUNT);
	sample_write(src_path, original);
	sample_require(wcx_pack(src_path, packed_path, &options, &result, &err) == 0, err.text);

	every_failing_allocation_is_an_error_that_leaves_nothing();
	threads_that_cannot_be_had_are_done_without();

	sample_dir_remove(dir);
	free(src_path);
	free(packed_path);
	free(dst_path);
	free(original.data);
	return check_report();
}
