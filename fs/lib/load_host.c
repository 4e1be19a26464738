/* SPDX-License-Identifier: MIT */
/* Executing a load into host memory: threads read, check and decode what the plan says, on the CPU. */
#include "fs/lib/load_host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/parallel.h"

struct host_load {
	struct wcx_image *image;
	const struct wcx_load_plan *plan;
	uint8_t **scratch; /* one for each worker; NULL until it needs one */
};

/* Tiles of a task that are decoded together. */
struct host_batch {
	size_t count, decoded_bytes;
	bool needs_scratch;
	struct wcx_tile_info info[WCX_BATCH_TILES];
	struct wcx_image_tile tiles[WCX_BATCH_TILES];
	bool is_direct[WCX_BATCH_TILES]; /* decoded at its target; otherwise in scratch */
};

/* Adds a tile, if any byte of it is wanted.  Returns false when the batch is full. */
static bool add_tile(const struct wcx_load_plan *plan, const struct wcx_segment *segment, uint64_t number,
		     struct host_batch *batch)
{
	struct wcx_tile_info *info = &batch->info[batch->count];
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;
	size_t bytes;

	if (batch->count == WCX_BATCH_TILES)
		return false;
	wcx_container_tile(plan->container, segment, number, info);
	bytes = wcx_tile_dims_bytes(&info->dims);
	if (batch->decoded_bytes + bytes > WCX_CPU_BATCH_BYTES)
		return false;
	wcx_load_walk_start(&walk, plan, segment, info);
	if (!wcx_load_walk_next(&walk, &copy))
		return true;
	batch->is_direct[batch->count] = copy.rows == 1 && copy.row_bytes == bytes;
	batch->tiles[batch->count] = (struct wcx_image_tile){
		.info = info,
		.segment = segment,
		.dst = batch->is_direct[batch->count] ? (uint8_t *)(uintptr_t)copy.dst : NULL,
	};
	batch->needs_scratch |= !batch->is_direct[batch->count];
	batch->decoded_bytes += bytes;
	batch->count++;
	return true;
}

/* Gives the tiles that are not direct their places in the worker's scratch buffer. */
static int place_tiles(const struct host_load *load, unsigned worker, struct host_batch *batch, struct wcx_error *err)
{
	if (!batch->needs_scratch)
		return 0;
	if (!load->scratch[worker])
		load->scratch[worker] = malloc(WCX_CPU_BATCH_BYTES);
	if (!load->scratch[worker])
		return wcx_fail(err, ENOMEM, "%s: no memory to decode with", wcx_container_path(load->plan->container));
	for (size_t i = 0, at = 0; i < batch->count; i++) {
		if (batch->is_direct[i])
			continue;
		batch->tiles[i].dst = load->scratch[worker] + at;
		at += wcx_tile_dims_bytes(&batch->info[i].dims);
	}
	return 0;
}

/* Copies the wanted bytes of a decoded tile from scratch to their targets. */
static void copy_out(const struct wcx_load_plan *plan, const struct wcx_image_tile *tile)
{
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	wcx_load_walk_start(&walk, plan, tile->segment, tile->info);
	while (wcx_load_walk_next(&walk, &copy))
		for (size_t row = 0; row < copy.rows; row++)
			memcpy((uint8_t *)(uintptr_t)copy.dst + row * copy.dst_pitch,
			       tile->dst + copy.src + row * copy.src_pitch, copy.row_bytes);
}

/* Reports a tile that failed, with the tensor of its first wanted byte. */
static int fail_tile(const struct host_load *load, const struct wcx_image_tile *tile, struct wcx_error *err)
{
	return wcx_image_fail_tile(load->image, tile->segment, tile->info,
				   wcx_load_first_wanted(load->plan, tile->segment, tile->info), tile->r, err);
}

static int do_batch(const struct host_load *load, unsigned worker, struct host_batch *batch, struct wcx_error *err)
{
	int r = place_tiles(load, worker, batch, err);

	if (r < 0)
		return r;
	wcx_image_decode_tiles(load->image, batch->tiles, batch->count);
	for (size_t i = 0; i < batch->count; i++) {
		if (batch->tiles[i].r < 0)
			return fail_tile(load, &batch->tiles[i], err);
		if (!batch->is_direct[i])
			copy_out(load->plan, &batch->tiles[i]);
	}
	return 0;
}

static int do_task(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct host_load *load = user;
	const struct wcx_load_task *task = &load->plan->tasks[item];
	int r = 0;

	(void)loop;
	for (uint64_t done = 0; done < task->tile_count && r == 0;) {
		struct host_batch batch = { .count = 0 };

		while (done < task->tile_count && add_tile(load->plan, task->segment, task->first_tile + done, &batch))
			done++;
		if (batch.count)
			r = do_batch(load, worker, &batch, err);
	}
	return r;
}

int wcx_load_host_execute(struct wcx_image *image, const struct wcx_load_plan *plan, unsigned thread_count,
			  struct wcx_error *err)
{
	struct host_load load = { image, plan, calloc(thread_count, sizeof *load.scratch) };
	int r;

	if (!load.scratch)
		return wcx_fail(err, ENOMEM, "%s: no memory to decode with", wcx_container_path(plan->container));
	r = wcx_parallel_for(thread_count, plan->task_count, do_task, &load, NULL, err);
	for (unsigned i = 0; i < thread_count; i++)
		free(load.scratch[i]);
	free(load.scratch);
	return r;
}
