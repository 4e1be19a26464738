/* SPDX-License-Identifier: MIT */
/* What a thread of the packer does with a unit, a few neighbouring tiles of one segment: read, count, encode, verify. */
#ifndef WCX_PACK_WORKER_H
#define WCX_PACK_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "codec/decode_variant.h"
#include "codec/encode_variant.h"
#include "fs/pack/digest_queue.h"
#include "fs/pack/tensor_plan.h"

enum {
	WCX_UNIT_BYTES = WCX_DIGEST_BLOCK_BYTES, /* the most; a tile is never larger */
	WCX_UNIT_TILES = 32,
};

struct wcx_pack_unit {
	struct wcx_tensor_plan *plan;
	uint64_t first_tile, tile_count;
	uint64_t offset, bytes; /* in the original */
	uint64_t checksum;      /* of the original bytes that were counted */
};

/* Memory of one thread. */
struct wcx_pack_worker {
	uint8_t *src;  /* WCX_SAMPLES_MAX_BYTES: a unit to count, or the samples of a plan */
	uint8_t *base; /* the same of the base */
	uint8_t *dst;  /* the packed tiles of a unit, aligned */
	struct wcx_encode_scratch *scratch;
	struct wcx_decode_scratch *decode_scratch;
	uint8_t *decoded; /* WCX_TILE_MAX_BYTES */
	struct ZSTD_CCtx_s *zstd;
	struct ZSTD_DCtx_s *unzstd;
	uint8_t *zstd_dst;                          /* WCX_UNIT_BYTES */
	struct wcx_tile_info tiles[WCX_UNIT_TILES]; /* of the unit encoded last, for the index */
	struct wcx_plan_counts counts;              /* of the unit counted last */
};

/* The variants of the codec's loops that workers use. */
struct wcx_pack_variants {
	const struct wcx_encode_variant *encoder;
	const struct wcx_decode_variant *decoder;
};

/* wcx_pack_variants_choose - those for this CPU, or the ones that the environment variable WCX_CPU names where there are */
struct wcx_pack_variants wcx_pack_variants_choose(void);

/* wcx_pack_worker_open - allocate; false if there is no memory.  close is needed in either case. */
bool wcx_pack_worker_open(struct wcx_pack_worker *worker, const struct wcx_pack_variants *variants);
void wcx_pack_worker_close(struct wcx_pack_worker *worker);

/* wcx_pack_unit_make - the unit that begins with a tile of a plan, as large as a unit may be */
struct wcx_pack_unit wcx_pack_unit_make(struct wcx_tensor_plan *plan, uint64_t first_tile);

/* wcx_pack_unit_counted - the part of a unit that is counted: its first tile, and more where fewer than all are enough */
struct wcx_pack_unit wcx_pack_unit_counted(const struct wcx_pack_unit *unit);

/* wcx_pack_unit_read - read a unit to src, which has WCX_UNIT_BYTES; returns 0 or what the reader returned */
int wcx_pack_unit_read(const struct wcx_pack_unit *unit, const struct wcx_plan_reader *reader, uint8_t *src,
		       struct wcx_error *err);

/*
 * wcx_pack_unit_read_base - read the bytes of the base for a unit to base, which has WCX_UNIT_BYTES
 *
 * Does nothing for a plan without a difference.  Returns 0 or what the reader returned.
 */
int wcx_pack_unit_read_base(const struct wcx_pack_unit *unit, const struct wcx_plan_reader *reader, uint8_t *base,
			    struct wcx_error *err);

/*
 * wcx_pack_worker_count, wcx_pack_worker_encode - do that with the bytes of a unit, and those of its base in worker->base
 *
 * count also sets the unit's checksum.  encode writes *bytes_ret bytes to worker->dst, and worker->tiles.  Both return
 * WCX_OK, or WCX_BAD_DATA for a plan that is not valid.
 */
enum wcx_result wcx_pack_worker_count(struct wcx_pack_worker *worker, struct wcx_pack_unit *unit, const uint8_t *src);
enum wcx_result wcx_pack_worker_encode(struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit, const uint8_t *src,
				       uint64_t *bytes_ret);

/*
 * wcx_pack_worker_verify - decode what was encoded last, and compare it with the bytes of the unit
 *
 * *bad_tile_ret is the first tile of the unit that differs, or tile_count.
 */
void wcx_pack_worker_verify(struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit, const uint8_t *src,
			    uint64_t *bad_tile_ret);

#endif
