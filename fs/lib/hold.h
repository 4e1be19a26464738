/* SPDX-License-Identifier: MIT */
/* Building what wcx.h calls a held part of a file: packed tiles in memory, to be decoded on a GPU whenever they are needed.
 */
#ifndef WCX_HOLD_H
#define WCX_HOLD_H

#include "cuda/gpu_hold.h"
#include "fs/lib/load_plan.h"
#include "fs/read/image.h"

/* What stays of the file for messages about tiles. */
struct wcx_held_tile {
	struct wcx_tile_info info;
	const struct wcx_segment *segment;
};

struct wcx_held {
	struct wcx_image *image; /* the file's, which outlives this */
	struct wcx_gpu_hold *gpu;
	struct wcx_held_tile *coded; /* in the order in which the GPU counts them */
	size_t coded_count, coded_capacity;
};

/*
 * wcx_hold_build - read and check the tiles of a plan, and give them to the GPU
 *
 * The dst of the plan's spans are offsets from a base.  thread_count threads read.  Tiles that the GPU cannot decode in
 * place (Zstandard, differences from a base, constants of several bytes, those of which a part is wanted, or that go to an
 * odd place) are decoded on the host, once, and held decoded.  Returns 0, -EBADMSG (a tile is damaged), -ENOMEM (of host or
 * GPU), -EIO (the GPU failed) or the errno of a failed read; *held is then still to be freed.
 */
int wcx_hold_build(struct wcx_held *held, int device, bool on_device, const struct wcx_load_plan *plan,
		   unsigned thread_count, struct wcx_error *err);
void wcx_hold_free(struct wcx_held *held); /* NULL is fine */

#endif
