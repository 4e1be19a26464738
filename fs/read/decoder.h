/* SPDX-License-Identifier: MIT */
/* Decoding batches of tiles on the CPU, the GPU, or the one that is faster for a batch.  All functions are thread-safe. */
#ifndef WCX_DECODER_H
#define WCX_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "codec/tile.h"
#include "fs/base/error.h"

/* The last, plus a number below WCX_DECODER_DEVICES_MAX, is the GPU of that number; itself it is the first GPU. */
enum wcx_decoder_kind { WCX_DECODER_AUTO, WCX_DECODER_CPU, WCX_DECODER_CUDA };
enum { WCX_DECODER_DEVICES_MAX = 100 };

enum {
	/* Decoded, what a core gets at a time; and a GPU, where each batch costs a launch and a wait. */
	WCX_CPU_BATCH_BYTES = 4 * WCX_TILE_MAX_BYTES,
	WCX_BATCH_BYTES = 9 * WCX_TILE_MAX_BYTES,
	WCX_BATCH_TILES = 129, /* of 4 MiB, if these begin and end within tiles of 32 KiB */
	/* A tile is not larger when packed, but each may be aligned. */
	WCX_BATCH_PACKED_BYTES = WCX_BATCH_BYTES + 4 * WCX_BATCH_TILES,
};

struct wcx_decoder;

/* Receives a line for the user, such as "the GPU failed; decoding on the CPU from now on".  Must be thread-safe. */
typedef void wcx_notice_fn(void *user, const char *text);

/* wcx_decoder_kind_parse - parse "auto", "cpu", "cuda" or "cuda:N"; returns 0, or -EINVAL for anything else */
int wcx_decoder_kind_parse(const char *name, enum wcx_decoder_kind *ret);

/*
 * wcx_decoder_create - create a decoder
 *
 * WCX_DECODER_AUTO measures what a batch costs on the GPU and on the CPU, and gives each batch to the cheaper one; without a
 * GPU it sends a notice and uses the CPU.  WCX_DECODER_CUDA gives all batches to the GPU.  The CPU uses the fastest variant
 * of the decoding loops that it can run, or the one that the environment variable WCX_CPU names.  Must not be called before
 * a fork, which CUDA does not survive.  notice may be NULL.
 *
 * Returns 0; -EINVAL when WCX_CPU names no variant that this CPU can run, -ENODEV when WCX_DECODER_CUDA finds no GPU, or
 * -ENOMEM.
 */
int wcx_decoder_create(enum wcx_decoder_kind kind, wcx_notice_fn *notice, void *user, struct wcx_decoder **ret,
		       struct wcx_error *err);

/*
 * wcx_decoder_create_within - the same, with a budget for the pinned buffers of a GPU
 *
 * With a small budget, fewer threads have it decode at the same time; those of one are taken in any case.
 */
int wcx_decoder_create_within(enum wcx_decoder_kind kind, uint64_t buffers_max, wcx_notice_fn *notice, void *user,
			      struct wcx_decoder **ret, struct wcx_error *err);
void wcx_decoder_free(struct wcx_decoder *decoder); /* NULL is fine; all batches must have been returned */

/*
 * wcx_decoder_use_memory - tell where tiles are decoded to, so that a GPU writes them there itself
 *
 * A quarter of the memory, at least 64 MiB, is made resident on so many threads and pinned at once; more is pinned bit by
 * bit, as tiles in it are decoded, up to pinned_max bytes together with the GPU's buffers.  When that fails, the decoder
 * sends a notice, once, and copies.  To be called at most once, before any batch is lent; memory must outlive the decoder.
 */
void wcx_decoder_use_memory(struct wcx_decoder *decoder, void *memory, size_t bytes, uint64_t pinned_max, unsigned threads);

/*
 * wcx_decoder_start_crew - start the threads that finish what wcx_decoder_start hands over
 *
 * They decode what a GPU cannot, so they should have no more privileges than whoever reads.  To be called at most once,
 * before any batch is lent.
 */
void wcx_decoder_start_crew(struct wcx_decoder *decoder);

/* wcx_decoder_buffer_bytes - what the pinned buffers of a GPU take at most; 0 without one */
uint64_t wcx_decoder_buffer_bytes(const struct wcx_decoder *decoder);

/*
 * wcx_decoder_pin_ahead - pin what has been used of the memory, and as much behind it as at the start
 *
 * Does nothing while the GPU is busy, or after it has failed.
 * For a thread that does this now and then: pinning takes long, so while tiles are decoded next to none is pinned.
 */
void wcx_decoder_pin_ahead(struct wcx_decoder *decoder);

/*
 * wcx_decoder_release_idle - free memory of batches, and buffers of a GPU, that nobody has used for idle_ms
 *
 * It is allocated again when it is needed.
 */
void wcx_decoder_release_idle(struct wcx_decoder *decoder, uint64_t idle_ms);

/* wcx_decoder_batch_bytes - how many decoded bytes a batch should have at most: one of the two sizes above */
size_t wcx_decoder_batch_bytes(const struct wcx_decoder *decoder);

/* wcx_decoder_gpu_calls - how many batches a GPU has at a time, at most; 0 without one */
unsigned wcx_decoder_gpu_calls(const struct wcx_decoder *decoder);

/* wcx_decoder_name - what decodes, for the log, such as "cpu (avx2)"; valid as long as the decoder */
const char *wcx_decoder_name(const struct wcx_decoder *decoder);

/* A batch of tiles to decode, lent by the decoder with all memory that decoding takes. */
struct wcx_decode_batch {
	uint8_t *packed; /* WCX_BATCH_PACKED_BYTES, for the packed tiles */
	struct wcx_tile_job jobs[WCX_BATCH_TILES];
};

/*
 * wcx_decoder_piece_bytes - how many decoded bytes of a batch should be read and run at a time
 *
 * A core decodes packed bytes that it has just read, and reads the next to the same memory, so that they stay in its cache.
 */
size_t wcx_decoder_piece_bytes(const struct wcx_decoder *decoder, const struct wcx_decode_batch *batch);

/* What was decoded by one kind of processor.  ns: of all threads together, waiting for the GPU included. */
struct wcx_decoder_work {
	uint64_t bytes, batches, ns;
};

struct wcx_decoder_stats {
	struct wcx_decoder_work cpu, gpu;
	bool gpu_lost;
	uint64_t gpu_device_bytes, gpu_pinned_bytes; /* memory taken for the GPU, without that of CUDA itself */
};

/* wcx_decoder_get_stats - what was decoded so far; tiles that failed are not counted */
void wcx_decoder_get_stats(const struct wcx_decoder *decoder, struct wcx_decoder_stats *ret);

/*
 * wcx_decoder_limit - limit the number of batches that are lent at a time, each of which takes 2 to 3 MiB
 *
 * To be called before any is lent; by default there is no limit.
 */
void wcx_decoder_limit(struct wcx_decoder *decoder, unsigned batches);

/*
 * wcx_decoder_borrow - borrow a batch, which must be returned
 *
 * Waits while the limit is reached.  Hence a borrower must not wait for anything but the disk and the decoder.  Allocates
 * only when no returned batch is idle.  Returns NULL when there is no memory.
 */
struct wcx_decode_batch *wcx_decoder_borrow(struct wcx_decoder *decoder);
void wcx_decoder_return(struct wcx_decoder *decoder, struct wcx_decode_batch *batch);

/*
 * wcx_decoder_borrow_bytes - borrow WCX_BATCH_BYTES of memory, for what a batch needs of bases
 *
 * Waits while as many are lent as the limit on batches allows.  A borrower may read, which takes batches, and borrow a batch
 * afterwards, but must not borrow bytes twice.  Returns NULL when there is no memory.
 */
uint8_t *wcx_decoder_borrow_bytes(struct wcx_decoder *decoder);
void wcx_decoder_return_bytes(struct wcx_decoder *decoder, uint8_t *bytes);

/*
 * wcx_decoder_run - decode the first job_count jobs of a batch, with tiles of any mode
 *
 * checksums has those of the packed bytes of each job, of which only those of mode CODED are compared, by whoever decodes;
 * NULL: the caller has compared all.  Returns when every job has its result: WCX_OK, WCX_BAD_DATA (another checksum too) or
 * WCX_WRONG_SIZE.  The CPU has then decoded what the GPU could not, for whatever reason.
 */
void wcx_decoder_run(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count,
		     const uint32_t *checksums);

/* Tells that a batch has its results.  Must wait for nothing: no other batch gets its own meanwhile. */
typedef void wcx_decoded_fn(void *user);

/*
 * wcx_decoder_start - wcx_decoder_run that does not wait for a GPU
 *
 * Returns false if the batch has its results, as those that a core decodes have, and all without a crew.  Else a thread of
 * the crew calls decoded once it has, maybe before this returns; checksums must last until then.
 */
bool wcx_decoder_start(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count,
		       const uint32_t *checksums, wcx_decoded_fn *decoded, void *user);

/* wcx_decoder_has_kernel - whether there is a GPU that can decode differences of a recipe */
bool wcx_decoder_has_kernel(const struct wcx_decoder *decoder, const struct wcx_recipe *recipe);

/* wcx_decoder_takes_pairs - whether the GPU gets tiles that are differences and their base tiles, of so many bytes in all */
bool wcx_decoder_takes_pairs(struct wcx_decoder *decoder, size_t bytes);

/*
 * wcx_decoder_run_pairs - decode on the GPU coded tiles of a base, and after each the tile that is a difference from it
 *
 * bases is what wcx_decoder_borrow_bytes lent: of each base tile, dst lies there, in the first WCX_GPU_BASE_BYTES, and is
 * not written.  What the GPU cannot decode, for whatever reason, has another result than WCX_OK; the CPU does not try.
 */
void wcx_decoder_run_pairs(struct wcx_decoder *decoder, struct wcx_decode_batch *batch, size_t job_count,
			   const uint8_t *bases);

#endif
