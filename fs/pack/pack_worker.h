/* SPDX-License-Identifier: MIT */
/* What a thread of the packer does with a unit, a few neighbouring tiles of one segment: read, count, encode. */
#ifndef WCX_PACK_WORKER_H
#define WCX_PACK_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "fs/pack/tensor_plan.h"

enum {
	WCX_UNIT_BYTES = 1 << 20, /* the most; a tile is never larger */
	WCX_UNIT_TILES = 32,
};

struct wcx_pack_unit {
	struct wcx_tensor_plan *plan;
	uint64_t first_tile, tile_count;
	uint64_t offset, bytes; /* in the original */
	uint64_t checksum;      /* of the original bytes, once counted */
};

/* Memory of one thread. */
struct wcx_pack_worker {
	uint8_t *src; /* WCX_SAMPLES_MAX_BYTES: a unit, or the samples of a plan */
	uint8_t *dst; /* the packed tiles of a unit, aligned */
	struct wcx_encode_scratch *scratch;
	struct ZSTD_CCtx_s *zstd;
	uint8_t *zstd_dst;                          /* WCX_UNIT_BYTES */
	struct wcx_tile_info tiles[WCX_UNIT_TILES]; /* of the unit encoded last, for the index */
	struct wcx_plan_counts counts;              /* of the unit counted last */
};

/* wcx_pack_worker_open - allocate; false if there is no memory.  close is needed in either case. */
bool wcx_pack_worker_open(struct wcx_pack_worker *worker);
void wcx_pack_worker_close(struct wcx_pack_worker *worker);

/* wcx_pack_unit_make - the unit that begins with a tile of a plan, as large as a unit may be */
struct wcx_pack_unit wcx_pack_unit_make(struct wcx_tensor_plan *plan, uint64_t first_tile);

/* wcx_pack_worker_read - read a unit to worker->src; returns 0 or what the reader returned */
int wcx_pack_worker_read(struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit,
			 const struct wcx_plan_reader *reader, struct wcx_error *err);

/*
 * wcx_pack_worker_count, wcx_pack_worker_encode - do that with the unit that was read
 *
 * count also sets the unit's checksum.  encode writes *bytes_ret bytes to worker->dst, and worker->tiles.  Both return
 * WCX_OK, or WCX_BAD_DATA for a plan that is not valid.
 */
enum wcx_result wcx_pack_worker_count(struct wcx_pack_worker *worker, struct wcx_pack_unit *unit);
enum wcx_result wcx_pack_worker_encode(struct wcx_pack_worker *worker, const struct wcx_pack_unit *unit,
				       uint64_t *bytes_ret);

#endif
