/* SPDX-License-Identifier: MIT */
/* Decoders: lending batches, and tiles of mode ZSTD. */
#include "fs/read/decoder.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "tests/fixtures/sample_image.h"
#include "tests/unit/check.h"

/* --- lending --- */

enum { LENT_MAX = 3, BORROWERS = 12, BORROWINGS = 300 };

struct lending {
	struct wcx_decoder *decoder;
	atomic_uint lent, most, served;
};

static void *borrow_often(void *user)
{
	struct lending *lending = user;

	for (int i = 0; i < BORROWINGS; i++) {
		struct wcx_decode_batch *batch = wcx_decoder_borrow(lending->decoder);
		const unsigned lent = atomic_fetch_add(&lending->lent, 1) + 1;
		unsigned most = atomic_load(&lending->most);

		while (lent > most && !atomic_compare_exchange_weak(&lending->most, &most, lent))
			;
		memset(batch->packed, i, 1000); /* no other thread may see this */
		sched_yield();
		atomic_fetch_add(&lending->served, batch->packed[0] == (uint8_t)i && batch->packed[999] == (uint8_t)i);
		atomic_fetch_sub(&lending->lent, 1);
		wcx_decoder_return(lending->decoder, batch);
	}
	return NULL;
}

static void no_more_batches_are_lent_than_the_limit(void)
{
	struct lending lending = { .decoder = NULL };
	pthread_t threads[BORROWERS];

	sample_require(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &lending.decoder, NULL) == 0, "wcx_decoder_create");
	wcx_decoder_limit(lending.decoder, LENT_MAX);
	for (int i = 0; i < BORROWERS; i++)
		CHECK(pthread_create(&threads[i], NULL, borrow_often, &lending) == 0);
	for (int i = 0; i < BORROWERS; i++)
		pthread_join(threads[i], NULL);
	CHECK(lending.served == BORROWERS * BORROWINGS && lending.most <= LENT_MAX);
	wcx_decoder_free(lending.decoder);
}

/* --- tiles of mode ZSTD --- */

enum { ZSTD_TILE_BYTES = 3000 };

/* Decodes a frame as a tile of dst_bytes elements of one byte. */
static enum wcx_result decode_frame(const uint8_t *frame, size_t frame_bytes, uint8_t *dst, uint32_t dst_bytes)
{
	struct wcx_decoder *decoder = NULL;
	struct wcx_decode_batch *batch;
	uint8_t *copy = malloc(frame_bytes ? frame_bytes : 1),
		*tile = malloc(dst_bytes); /* allocated separately, so that sanitizers see the ends */
	enum wcx_result result;

	memcpy(copy, frame, frame_bytes);
	sample_require(wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, NULL) == 0, "wcx_decoder_create");
	batch = wcx_decoder_borrow(decoder);
	batch->jobs[0] = (struct wcx_tile_job){
		.dims = { 1, dst_bytes, 1 },
		.mode = WCX_TILE_ZSTD,
		.recipe = &sample_1_byte_plain,
		.src = copy,
		.src_bytes = frame_bytes,
		.dst = tile,
		.dst_bytes = dst_bytes,
	};
	wcx_decoder_run(decoder, batch, 1);
	result = batch->jobs[0].result;
	wcx_decoder_return(decoder, batch);
	wcx_decoder_free(decoder);
	memcpy(dst, tile, dst_bytes);
	free(tile);
	free(copy);
	return result;
}

/* Makes a tile and its frame, with space for more after it; returns the size of the frame. */
static size_t make_frame(uint8_t tile[ZSTD_TILE_BYTES], uint8_t frame[2 * ZSTD_TILE_BYTES])
{
	struct sample_random random = { 7 };

	sample_fill(&random, SAMPLE_GAUSSIAN, 3, tile, ZSTD_TILE_BYTES);
	return ZSTD_compress(frame, 2 * ZSTD_TILE_BYTES, tile, ZSTD_TILE_BYTES, 19);
}

static void zstd_tile_is_one_frame_of_its_size(void)
{
	uint8_t tile[ZSTD_TILE_BYTES], frame[2 * ZSTD_TILE_BYTES], decoded[ZSTD_TILE_BYTES + 1];
	static const uint8_t skipped[] = { 0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 9 };
	size_t bytes = make_frame(tile, frame);

	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_OK);
	CHECK(memcmp(decoded, tile, ZSTD_TILE_BYTES) == 0);
	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES - 1) == WCX_BAD_DATA);
	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES + 1) == WCX_BAD_DATA);
	for (size_t cut = 0; cut < bytes; cut++)
		CHECK(decode_frame(frame, cut, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
	frame[bytes] = 0;
	CHECK(decode_frame(frame, bytes + 1, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
	memcpy(frame + bytes, skipped, sizeof skipped);
	CHECK(decode_frame(frame, bytes + sizeof skipped, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
	CHECK(decode_frame(skipped, sizeof skipped, decoded, 1) == WCX_BAD_DATA);
	/* Two frames of half a tile each. */
	bytes = ZSTD_compress(frame, sizeof frame, tile, ZSTD_TILE_BYTES / 2, 19);
	bytes += ZSTD_compress(frame + bytes, sizeof frame - bytes, tile + ZSTD_TILE_BYTES / 2, ZSTD_TILE_BYTES / 2, 19);
	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA);
}

/*
 * Frames by RFC 8878: magic, descriptor, window of 2 GiB, size, and a block of one repeated byte; and one of the last format
 * before it, which libraries may still decode.
 */
static void zstd_frames_made_by_hand_are_understood(void)
{
	static const uint8_t large_window[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x40, 0xA8, 44, 0, 0x63, 0x09, 0, 0x5A };
	static const uint8_t without_size[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xA8, 0x23, 0x03, 0, 0x5A };
	static const uint8_t block_too_short[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x20, 100, 0x1B, 0x03, 0, 0x5A };
	static const uint8_t with_size[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x20, 100, 0x23, 0x03, 0, 0x5A };
	static const uint8_t with_dictionary[] = { 0x28, 0xB5, 0x2F, 0xFD, 0x21, 7, 100, 0x23, 0x03, 0, 0x5A };
	static const uint8_t version_7[] = { 0x27, 0xB5, 0x2F, 0xFD, 0x20, 100, 0x80, 0, 100, 0x5A, 0xC0, 0, 0 };
	uint8_t decoded[300], expected[300];

	memset(expected, 0x5A, sizeof expected);
	CHECK(decode_frame(large_window, sizeof large_window, decoded, 300) == WCX_OK);
	CHECK(memcmp(decoded, expected, 300) == 0);
	CHECK(decode_frame(without_size, sizeof without_size, decoded, 100) == WCX_BAD_DATA);
	CHECK(decode_frame(block_too_short, sizeof block_too_short, decoded, 100) == WCX_BAD_DATA);
	CHECK(decode_frame(with_size, sizeof with_size, decoded, 100) == WCX_OK);
	CHECK(memcmp(decoded, expected, 100) == 0);
	CHECK(decode_frame(with_dictionary, sizeof with_dictionary, decoded, 100) == WCX_BAD_DATA);
	CHECK(decode_frame(version_7, sizeof version_7, decoded, 100) == WCX_BAD_DATA);
}

static void damaged_zstd_frames_do_no_harm(void)
{
	uint8_t tile[ZSTD_TILE_BYTES], frame[2 * ZSTD_TILE_BYTES], decoded[ZSTD_TILE_BYTES];
	size_t bytes = make_frame(tile, frame);
	unsigned refused = 0;

	for (size_t bit = 0; bit < 8 * bytes; bit++) {
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
		refused += decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_BAD_DATA;
		frame[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	CHECK(refused > 0);
	CHECK(decode_frame(frame, bytes, decoded, ZSTD_TILE_BYTES) == WCX_OK);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(no_more_batches_are_lent_than_the_limit),
		CHECK_TEST(zstd_tile_is_one_frame_of_its_size),
		CHECK_TEST(zstd_frames_made_by_hand_are_understood),
		CHECK_TEST(damaged_zstd_frames_do_no_harm),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
