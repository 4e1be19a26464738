/* SPDX-License-Identifier: MIT */
/* What packing must not overlook: a tile encoded wrongly, written wrongly, or a source that changes on the way. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "fs/base/file_io.h"
#include "fs/pack/digest_queue.h"
#include "fs/pack/pack.h"
#include "fs/pack/pack_worker.h"
#include "tests/fixtures/sample_files.h"
#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

/* The call, counted from 0, that gives a wrong result; -1: none. */
static long wrong_call = -1;
static atomic_long calls;

static bool is_wrong_call(void)
{
	return atomic_fetch_add(&calls, 1) == wrong_call;
}

static bool wrong_encoding, wrong_zstd, wrong_writing, wrong_reading;

/* Of weights: other tiles may be replaced by Zstandard frames.  A raw bit flips, which no check of the decoder finds. */
WRAPPED(enum wcx_result, wcx_tile_encode_against, const struct wcx_tile_dims *dims, const uint8_t *src, const uint8_t *base,
	const struct wcx_recipe *recipe, struct wcx_encode_scratch *scratch, uint8_t *dst, struct wcx_encoded_tile *ret)
{
	const enum wcx_result result = __real_wcx_tile_encode_against(dims, src, base, recipe, scratch, dst, ret);

	if (wrong_encoding && recipe->transform != WCX_TRANSFORM_NONE && ret->bytes && is_wrong_call())
		dst[ret->bytes / 4] ^= 0x10;
	return result;
}

/* Level 19 is that of the header, whose frames are smaller than coded tiles. */
WRAPPED(size_t, ZSTD_compressCCtx, void *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes, int level)
{
	const size_t bytes = __real_ZSTD_compressCCtx(context, dst, dst_bytes, src, src_bytes, level);

	if (wrong_zstd && level == 19 && is_wrong_call())
		((uint8_t *)dst)[bytes - 1] ^= 1;
	return bytes;
}

WRAPPED(int, wcx_write_at, int fd, const void *src, size_t bytes, uint64_t offset)
{
	uint8_t *copy = malloc(bytes + 1);
	int r;

	memcpy(copy, src, bytes);
	if (wrong_writing && bytes && is_wrong_call())
		copy[bytes / 2] ^= 1;
	r = __real_wcx_write_at(fd, copy, bytes, offset);
	free(copy);
	return r;
}

/* Calls are those that read the twin. */
static uint64_t twin_begin;

WRAPPED(int, wcx_read_exact, int fd, void *dst, size_t bytes, uint64_t offset)
{
	const int r = __real_wcx_read_exact(fd, dst, bytes, offset);

	if (wrong_reading && offset <= twin_begin && twin_begin < offset + bytes && bytes > 100000 && is_wrong_call())
		((uint8_t *)dst)[twin_begin - offset] ^= 1;
	return r;
}

static const struct sample_tensor tensors[] = {
	{ "a.weight", "I8", "[500,1000]", 500000, SAMPLE_GAUSSIAN, 20 },
	{ "b.weight", "BF16", "[100,1000]", 200000, SAMPLE_GAUSSIAN, 3 },
	{ "twin.0", "F16", "[100,1000]", 200000, SAMPLE_CONSTANT, 0 },
	{ "steps", "I64", "[2000]", 16000, SAMPLE_GAUSSIAN, 1 },
	{ "twin.1", "F16", "[100,1000]", 200000, SAMPLE_CONSTANT, 0 },
};
enum { TENSOR_COUNT = sizeof tensors / sizeof tensors[0] };

static char *dir, *src_path, *dst_path;
static struct sample_bytes original;

static int pack(unsigned threads, long wrong, struct wcx_error *err)
{
	const struct wcx_pack_options options = { .job.thread_count = threads };
	struct wcx_pack_result result;

	wrong_call = wrong;
	atomic_store(&calls, 0);
	return wcx_pack(src_path, dst_path, &options, &result, err);
}

/* Whichever call goes wrong, packing fails and leaves nothing; calls are spread over all that there are. */
static void check_found(const bool *what, const char *text)
{
	struct wcx_error err = { "" };
	long total;

	CHECK(pack(1, -1, &err) == 0);
	total = atomic_load(&calls);
	unlink(dst_path);
	CHECK(*what && total > 0);
	for (long i = 0; i < total; i += 1 + total / 24)
		for (unsigned threads = 1; threads <= 3; threads += 2) {
			err.text[0] = '\0';
			CHECK(pack(threads, i, &err) == -EBADMSG);
			CHECK(strstr(err.text, text) != NULL);
			CHECK(sample_dir_count(dir) == 1);
		}
}

static void tile_that_is_encoded_wrongly_is_found(void)
{
	wrong_encoding = true;
	check_found(&wrong_encoding, "does not decode to the original bytes");
	wrong_encoding = false;
}

static void frame_that_is_encoded_wrongly_is_found(void)
{
	wrong_zstd = true;
	check_found(&wrong_zstd, "");
	wrong_zstd = false;
}

static void bytes_that_are_written_wrongly_are_found(void)
{
	wrong_writing = true;
	check_found(&wrong_writing, "");
	wrong_writing = false;
}

/* The twin is not encoded again: it has to stay what it was when it was compared. */
static void twin_that_changes_is_found(void)
{
	struct wcx_error err = { "" };
	long total;

	wrong_reading = true;
	CHECK(pack(2, -1, &err) == 0);
	unlink(dst_path);
	total = atomic_load(&calls);
	CHECK(total >= 2);
	for (long i = 1; i < total; i++) {
		CHECK(pack(2, i, &err) < 0);
		CHECK(sample_dir_count(dir) == 1);
	}
	wrong_reading = false;
}

/* Of large tensors only a part is counted; only all bytes show whether two are the same. */
static void large_tensors_are_the_same_only_if_all_bytes_are(void)
{
	enum { BYTES = 17 << 20, NOT_COUNTED = (1 << 20) - 1 };
	const struct sample_tensor large[] = {
		{ "first", "I8", "[17408,1024]", BYTES, SAMPLE_GAUSSIAN, 20 },
		{ "twin", "I8", "[17408,1024]", BYTES, SAMPLE_CONSTANT, 0 },
		{ "other", "I8", "[17408,1024]", BYTES, SAMPLE_CONSTANT, 0 },
	};
	const struct wcx_pack_options options = { .job.thread_count = 2 };
	struct sample_bytes file = sample_safetensors(large, 3);
	uint8_t *first = file.data + file.bytes - 3 * (size_t)BYTES;
	char *path = sample_path(dir, "large.safetensors");
	struct wcx_pack_result one, two;
	struct wcx_error err;

	memcpy(first + BYTES, first, BYTES);
	memcpy(first + 2 * (size_t)BYTES, first, BYTES);
	sample_write(path, file);
	CHECK(wcx_pack(path, dst_path, &options, &one, &err) == 0);
	unlink(dst_path);
	first[2 * (size_t)BYTES + NOT_COUNTED] ^= 1;
	sample_write(path, file);
	CHECK(wcx_pack(path, dst_path, &options, &two, &err) == 0);
	CHECK(one.packed_bytes > BYTES / 2 && one.packed_bytes < BYTES);
	CHECK(two.packed_bytes > 2 * one.packed_bytes - 100000 && two.packed_bytes < 2 * one.packed_bytes);
	unlink(dst_path);
	unlink(path);
	free(path);
	free(file.data);
}

/* Blocks of many sizes, with a thread and without; the expected sum is that of the file in one piece. */
static void digest_is_that_of_the_blocks_in_order(void)
{
	uint8_t whole[WCX_SHA256_BYTES], blocks[WCX_SHA256_BYTES];
	struct wcx_digest_queue *queue = wcx_digest_queue_create(1, original.bytes);
	uint8_t *buffer = wcx_digest_queue_take(queue);

	memcpy(buffer, original.data, WCX_DIGEST_BLOCK_BYTES);
	wcx_digest_queue_put(queue, buffer, WCX_DIGEST_BLOCK_BYTES);
	CHECK(wcx_digest_queue_finish(queue, whole) == 0);
	wcx_digest_queue_free(queue);
	for (unsigned threads = 1; threads <= 4; threads++) {
		uint64_t at = 0;

		queue = wcx_digest_queue_create(threads, original.bytes);
		for (size_t bytes = 1; at < WCX_DIGEST_BLOCK_BYTES; at += bytes, bytes = bytes * 7 % 5003 + 1) {
			bytes = WCX_MIN(bytes, WCX_DIGEST_BLOCK_BYTES - at);
			wcx_digest_queue_return(queue, wcx_digest_queue_take(queue));
			buffer = wcx_digest_queue_take(queue);
			memcpy(buffer, original.data + at, bytes);
			wcx_digest_queue_put(queue, buffer, bytes);
		}
		CHECK(wcx_digest_queue_finish(queue, blocks) == 0);
		CHECK(memcmp(whole, blocks, sizeof whole) == 0);
		wcx_digest_queue_free(queue);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(tile_that_is_encoded_wrongly_is_found),
		CHECK_TEST(frame_that_is_encoded_wrongly_is_found),
		CHECK_TEST(bytes_that_are_written_wrongly_are_found),
		CHECK_TEST(twin_that_changes_is_found),
		CHECK_TEST(large_tensors_are_the_same_only_if_all_bytes_are),
		CHECK_TEST(digest_is_that_of_the_blocks_in_order),
	};
	int status;

	dir = sample_dir_create();
	src_path = sample_path(dir, "model.safetensors");
	dst_path = sample_path(dir, "model.wcx");
	original = sample_safetensors(tensors, TENSOR_COUNT);
	sample_write(src_path, original);
	twin_begin = original.bytes - 200000;
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	unlink(src_path);
	rmdir(dir);
	free(src_path);
	free(dst_path);
	free(dir);
	free(original.data);
	return status;
}
