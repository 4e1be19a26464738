/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: any bytes as a packed tile, behind eight that say what the index would (see struct request) and a frequency
 * table.  A tile that decodes is encoded and decoded again.
 *
 * clang -fsanitize=fuzzer,address,undefined -std=c11 -I. tests/fuzz_tile.c codec/[!t]*.c codec/tile_*.c -lm
 */
#include <stdlib.h>
#include <string.h>

#include "codec/le.h"
#include "codec/tile.h"

enum { REQUEST_BYTES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes);

static void require(int condition)
{
	if (!condition)
		abort();
}

struct request {
	struct wcx_tile_shape shape; /* may break the limits */
	enum wcx_tile_mode mode;
	uint32_t has_table;
	enum wcx_predictor predictor; /* to encode with */
};

static struct request read_request(const uint8_t *src)
{
	return (struct request){
		.shape = { wcx_le16_read(src), wcx_le16_read(src + 2), src[4] & 0x80 ? src[4] : 1u << (src[4] & 3) },
		.mode = (enum wcx_tile_mode)(src[5] % (WCX_TILE_CONSTANT + 1)),
		.has_table = src[6],
		.predictor = (enum wcx_predictor)(src[7] % WCX_PREDICTOR_COUNT),
	};
}

/* A table from the input, if there is one, else one that gives every symbol the same; returns the bytes it took. */
static size_t read_table(const uint8_t *src, size_t src_bytes, struct wcx_freq_table *table)
{
	size_t used;

	if (wcx_freq_table_parse(src, src_bytes, table, &used) == WCX_OK) {
		uint8_t written[WCX_FREQ_TABLE_MAX_BYTES];

		require(wcx_freq_table_write(table, written) == used && memcmp(written, src, used) == 0);
		return used;
	}
	for (int s = 0; s < WCX_SYMBOL_COUNT; s++)
		table->freq[s] = WCX_PROB_SCALE / WCX_SYMBOL_COUNT;
	return 0;
}

/* What was decoded, encoded and decoded again, must come out the same. */
static void check_round_trip(const struct request *request, const uint8_t *tile, size_t tile_bytes,
			     struct wcx_decode_scratch *decode)
{
	struct wcx_encode_scratch *encode = wcx_encode_scratch_create();
	struct wcx_plane_plan plan[WCX_PLANES_MAX];
	struct wcx_tile_job job = { .shape = request->shape };
	uint8_t *packed = malloc(tile_bytes), *again = malloc(tile_bytes);

	require(encode && packed && again);
	for (uint32_t p = 0; p < request->shape.elem_bytes; p++) {
		uint64_t count[WCX_SYMBOL_COUNT] = { 0 };

		plan[p].coding = WCX_PLANE_RANS;
		plan[p].predictor = request->predictor;
		wcx_tile_count_residuals(&request->shape, tile, p, request->predictor, encode, count);
		wcx_freq_table_build(count, &plan[p].table);
		job.tables[p] = &plan[p].table;
	}
	require(wcx_tile_encode(&request->shape, tile, plan, encode, packed, &job.mode, &job.src_bytes, &job.constant) ==
		WCX_OK);
	job.src = packed;
	job.dst = again;
	job.dst_bytes = tile_bytes;
	require(wcx_tile_decode(&job, decode) == WCX_OK && memcmp(tile, again, tile_bytes) == 0);
	wcx_encode_scratch_free(encode);
	free(packed);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_bytes)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create();
	struct wcx_freq_table table;
	struct request request;
	size_t used, tile_bytes;

	require(scratch != NULL);
	if (input_bytes >= REQUEST_BYTES) {
		request = read_request(input);
		used = REQUEST_BYTES + read_table(input + REQUEST_BYTES, input_bytes - REQUEST_BYTES, &table);
		tile_bytes = wcx_tile_shape_bytes(&request.shape);

		/* Allocated to the byte, so that the sanitizer sees one read or written too far. */
		struct wcx_tile_job job = {
			.shape = request.shape,
			.mode = request.mode,
			.src_bytes = input_bytes - used,
			.dst_bytes = tile_bytes,
		};
		uint8_t *src = malloc(job.src_bytes ? job.src_bytes : 1), *dst = malloc(tile_bytes ? tile_bytes : 1);
		enum wcx_result result;

		require(src && dst);
		memcpy(src, input + used, job.src_bytes);
		job.src = src;
		job.dst = dst;
		for (uint32_t p = 0; p < WCX_PLANES_MAX; p++)
			job.tables[p] = request.has_table >> p & 1 ? &table : NULL;
		result = wcx_tile_decode(&job, scratch);
		require(result == job.result && (result == WCX_WRONG_SIZE) == (tile_bytes == 0));
		require(result == WCX_OK || result == WCX_BAD_DATA || result == WCX_WRONG_SIZE);
		if (result == WCX_OK)
			check_round_trip(&request, dst, tile_bytes, scratch);
		free(src);
		free(dst);
	}
	wcx_decode_scratch_free(scratch);
	return 0;
}
