/* SPDX-License-Identifier: MIT */
/*
 * A decoder restores batches of tiles, on the CPU or on the GPU, or on the one that takes less time for a batch.  All
 * functions are safe from any number of threads.
 */
#ifndef WCX_DECODER_H
#define WCX_DECODER_H

#include <stddef.h>

#include "codec/tile.h"
#include "fs/base/error.h"

enum wcx_decoder_kind { WCX_DECODER_AUTO, WCX_DECODER_CPU, WCX_DECODER_CUDA };

enum {
	WCX_BATCH_TILES = 64,
	/* Decoded: 64 tiles of INT8; four of the largest tiles that there can be. */
	WCX_BATCH_BYTES = 4 * WCX_TILE_MAX_BYTES,
	/* No tile is larger packed, but each may be aligned. */
	WCX_BATCH_PACKED_BYTES = WCX_BATCH_BYTES + 4 * WCX_BATCH_TILES,
};

struct wcx_decoder;

/* Called with a line that a user should see once, such as "the GPU failed; using the CPU".  Must be safe from any thread. */
typedef void wcx_notice_fn(void *user, const char *text);

/* wcx_decoder_kind_parse - "auto", "cpu" or "cuda"; -EINVAL for anything else */
int wcx_decoder_kind_parse(const char *name, enum wcx_decoder_kind *ret);

/*
 * wcx_decoder_create - make a decoder
 *
 * WCX_DECODER_AUTO, where there is a GPU, measures what a batch costs on it and on the CPU, and gives each batch to the
 * cheaper one; otherwise it takes the CPU after a notice.  WCX_DECODER_CUDA gives all batches to the GPU, and fails with
 * -ENODEV where there is none.  On the CPU it is the fastest variant of the decoding loops that serves, or the one that the
 * environment variable WCX_CPU names.  Not to be called before a fork: a GPU does not survive one.  notice may be NULL.
 * Returns 0, -EINVAL when WCX_CPU names none that this CPU can run, -ENODEV or -ENOMEM.
 */
int wcx_decoder_create(enum wcx_decoder_kind kind, wcx_notice_fn *notice, void *user, struct wcx_decoder **ret,
		       struct wcx_error *err);
void wcx_decoder_free(struct wcx_decoder *decoder); /* NULL is fine; no call may be under way */

/* wcx_decoder_name - what decodes, for a log: "cpu (avx2)", for example; lives as long as the decoder */
const char *wcx_decoder_name(const struct wcx_decoder *decoder);

/* A batch of tiles on its way from a file to memory.  The working memory that decoding takes is lent with it. */
struct wcx_decode_batch {
	uint8_t *packed; /* WCX_BATCH_PACKED_BYTES, for the packed tiles */
	struct wcx_tile_job jobs[WCX_BATCH_TILES];
};

/*
 * wcx_decoder_limit - lend at most so many batches at a time, each of which takes 2 to 3 MiB; before any is lent
 *
 * Without, there is no limit.
 */
void wcx_decoder_limit(struct wcx_decoder *decoder, unsigned batches);

/*
 * wcx_decoder_borrow - get a batch, to be returned
 *
 * Waits where all are lent: so who has one must wait for nothing but the disk and the decoder.  Returns NULL when there is
 * no memory.  Allocates only when all that there are are lent out.
 */
struct wcx_decode_batch *wcx_decoder_borrow(struct wcx_decoder *decoder);
void wcx_decoder_return(struct wcx_decoder *decoder, struct wcx_decode_batch *batch);

/*
 * wcx_decoder_run - decode the first job_count jobs of a batch, tiles of any mode
 *
 * Blocks until every job has its result.  What the GPU could not do, for whatever reason, has been done on the CPU by
 * then, so a result is WCX_OK, WCX_BAD_DATA or WCX_WRONG_SIZE.
 */
void wcx_decoder_run(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count);

#endif
