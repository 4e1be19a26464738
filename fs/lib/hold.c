/* SPDX-License-Identifier: MIT */
/* Building what wcx.h calls a held part of a file: packed tiles in memory, to be decoded on a GPU whenever they are needed.
 */
#include "fs/lib/hold.h"

#include <errno.h>
#include <stdlib.h>

#include "codec/arith.h"
#include "codec/line.h"
#include "fs/base/array.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"

enum { REGION_ALIGN = 16 };

/* A tile of a task, and where its bytes are in the buffer: packed, or decoded if is_literal. */
struct hold_tile {
	struct wcx_tile_info info;
	uint64_t dst; /* offset from the base, if the whole tile goes to consecutive bytes */
	size_t at;
	bool is_wanted, is_whole, is_literal;
};

/* A task of the plan: its packed bytes are read to `at`, as they are in the file, and its literals follow. */
struct hold_task {
	struct hold_tile *tiles;
	size_t at, packed_bytes;
};

struct builder {
	struct wcx_held *held;
	const struct wcx_load_plan *plan;
	struct hold_task *tasks;
	size_t buffer_bytes;
};

static int fail_file(const struct builder *builder, enum wcx_result result, struct wcx_error *err)
{
	const char *path = wcx_container_path(builder->plan->container);

	if (result == WCX_NO_MEMORY)
		return wcx_fail(err, ENOMEM, "%s: no memory on the host or the GPU to hold it", path);
	return wcx_fail(err, EIO, "%s: the GPU failed", path);
}

static int fail_tile(const struct builder *builder, const struct wcx_segment *segment, const struct wcx_tile_info *info,
		     int r, struct wcx_error *err)
{
	return wcx_image_fail_tile(builder->held->image, segment, info, wcx_load_first_wanted(builder->plan, segment, info),
				   r, err);
}

/* --- layout of the buffer --- */

/* Decides how a tile is held, and where. */
static void place_tile(const struct builder *builder, const struct wcx_segment *segment, const struct hold_task *task,
		       struct hold_tile *tile, size_t *literal_bytes)
{
	const size_t bytes = wcx_tile_dims_bytes(&tile->info.dims);
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	wcx_load_walk_start(&walk, builder->plan, segment, &tile->info);
	tile->is_wanted = wcx_load_walk_next(&walk, &copy);
	tile->is_whole = tile->is_wanted && copy.rows == 1 && copy.row_bytes == bytes;
	tile->dst = copy.dst;
	tile->at = task->at + (size_t)(tile->info.packed_offset - task->tiles[0].info.packed_offset);
	if (tile->info.mode == WCX_TILE_CODED && !wcx_tile_needs_base(segment, &tile->info))
		tile->is_literal = !tile->is_whole || tile->dst % wcx_word_bytes(tile->info.dims.elem_bytes);
	else
		tile->is_literal = tile->info.mode != WCX_TILE_STORED;
	if (tile->is_wanted && tile->is_literal) {
		tile->at = *literal_bytes; /* for now counted from the first literal */
		*literal_bytes += WCX_ALIGN_UP(bytes, REGION_ALIGN);
	}
}

static int place_task(struct builder *builder, const struct wcx_load_task *task, struct hold_task *ret,
		      struct wcx_error *err)
{
	size_t literal_bytes = 0, literals_at;

	ret->tiles = calloc(task->tile_count, sizeof *ret->tiles);
	if (!ret->tiles)
		return fail_file(builder, WCX_NO_MEMORY, err);
	ret->at = builder->buffer_bytes;
	for (uint64_t i = 0; i < task->tile_count; i++) {
		struct hold_tile *tile = &ret->tiles[i];

		wcx_container_tile(builder->plan->container, task->segment, task->first_tile + i, &tile->info);
		ret->packed_bytes =
			(size_t)(tile->info.packed_offset - ret->tiles[0].info.packed_offset) + tile->info.packed_bytes;
		place_tile(builder, task->segment, ret, tile, &literal_bytes);
	}
	literals_at = ret->at + WCX_ALIGN_UP(ret->packed_bytes, REGION_ALIGN);
	for (uint64_t i = 0; i < task->tile_count; i++)
		if (ret->tiles[i].is_wanted && ret->tiles[i].is_literal)
			ret->tiles[i].at += literals_at;
	builder->buffer_bytes = literals_at + literal_bytes;
	return 0;
}

/* --- filling the buffer --- */

/* Restores a tile that was read.  The image reads what it needs of a base. */
static int restore_literal(const struct builder *builder, const struct wcx_segment *segment, const struct hold_tile *tile,
			   const uint8_t *packed, uint8_t *buffer, struct wcx_error *err)
{
	struct wcx_image_tile whole = {
		.info = &tile->info,
		.segment = segment,
		.dst = buffer + tile->at,
		.packed = packed,
		.is_read = true,
	};

	wcx_image_decode_tiles(builder->held->image, &whole, 1);
	return whole.r ? fail_tile(builder, segment, &tile->info, whole.r, err) : 0;
}

/* Reads the packed tiles of a task, checks those that are wanted, and restores the literals. */
static int fill_task(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct builder *builder = user;
	const struct wcx_load_task *plan_task = &builder->plan->tasks[item];
	const struct hold_task *task = &builder->tasks[item];
	const uint64_t packed_offset = task->tiles[0].info.packed_offset;
	uint8_t *buffer = wcx_gpu_hold_buffer(builder->held->gpu), *packed = buffer + task->at;
	int r = wcx_read_exact(wcx_container_fd(builder->plan->container), packed, task->packed_bytes, packed_offset);

	(void)loop;
	(void)worker;
	if (r < 0) /* -ENODATA: the file has become shorter */
		return fail_tile(builder, plan_task->segment, &task->tiles[0].info, r == -ENODATA ? -EBADMSG : r, err);
	for (uint64_t i = 0; i < plan_task->tile_count && r == 0; i++) {
		const struct hold_tile *tile = &task->tiles[i];
		const uint8_t *src = packed + (tile->info.packed_offset - packed_offset);

		if (!tile->is_wanted)
			continue;
		if (tile->info.mode != WCX_TILE_CONSTANT &&
		    wcx_checksum32(src, tile->info.packed_bytes) != tile->info.checksum)
			r = fail_tile(builder, plan_task->segment, &tile->info, -EBADMSG, err);
		else if (tile->is_literal)
			r = restore_literal(builder, plan_task->segment, tile, src, buffer, err);
	}
	return r;
}

/* --- giving the tiles to the GPU --- */

static int add_coded(struct builder *builder, const struct wcx_segment *segment, const struct hold_tile *tile,
		     struct wcx_error *err)
{
	struct wcx_held *held = builder->held;
	const struct wcx_tile_job job = {
		.dims = tile->info.dims,
		.mode = tile->info.mode,
		.recipe = &segment->recipe,
		.src = wcx_gpu_hold_buffer(held->gpu) + tile->at,
		.src_bytes = tile->info.packed_bytes,
		.dst_bytes = wcx_tile_dims_bytes(&tile->info.dims),
	};
	struct wcx_held_tile *coded =
		wcx_array_reserve(held->coded, &held->coded_capacity, held->coded_count + 1, sizeof *coded);
	enum wcx_result result;

	if (!coded)
		return fail_file(builder, WCX_NO_MEMORY, err);
	held->coded = coded;
	result = wcx_gpu_hold_add(held->gpu, &job, tile->dst);
	if (result == WCX_BAD_DATA || result == WCX_WRONG_SIZE)
		return fail_tile(builder, segment, &tile->info, -EBADMSG, err);
	if (result != WCX_OK)
		return fail_file(builder, result, err);
	coded[held->coded_count++] = (struct wcx_held_tile){ tile->info, segment };
	return 0;
}

/* Adds the copies that bring the bytes of a stored tile or a literal to their places. */
static int add_copies(struct builder *builder, const struct wcx_segment *segment, const struct hold_tile *tile,
		      struct wcx_error *err)
{
	enum wcx_result result = WCX_OK;
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	wcx_load_walk_start(&walk, builder->plan, segment, &tile->info);
	while (result == WCX_OK && wcx_load_walk_next(&walk, &copy)) {
		const struct wcx_hold_copy held_copy = {
			.dst = copy.dst,
			.src = tile->at + copy.src,
			.row_bytes = copy.row_bytes,
			.rows = copy.rows,
			.src_pitch = copy.src_pitch,
			.dst_pitch = copy.dst_pitch,
		};

		result = wcx_gpu_hold_copy(builder->held->gpu, &held_copy);
	}
	return result == WCX_OK ? 0 : fail_file(builder, result, err);
}

static int add_tiles(struct builder *builder, struct wcx_error *err)
{
	int r = 0;

	for (size_t t = 0; t < builder->plan->task_count; t++) {
		const struct wcx_load_task *task = &builder->plan->tasks[t];

		for (uint64_t i = 0; i < task->tile_count && r == 0; i++) {
			const struct hold_tile *tile = &builder->tasks[t].tiles[i];

			if (!tile->is_wanted)
				continue;
			if (tile->info.mode == WCX_TILE_CODED && !tile->is_literal)
				r = add_coded(builder, task->segment, tile, err);
			else
				r = add_copies(builder, task->segment, tile, err);
		}
	}
	return r;
}

/* --- all of it --- */

static int build(struct builder *builder, int device, bool on_device, unsigned thread_count, struct wcx_error *err)
{
	const struct wcx_load_plan *plan = builder->plan;
	enum wcx_result result;
	int r = 0;

	for (size_t t = 0; t < plan->task_count && r == 0; t++)
		r = place_task(builder, &plan->tasks[t], &builder->tasks[t], err);
	if (r == 0 && builder->buffer_bytes > UINT32_MAX)
		r = wcx_fail(err, EINVAL, "%s: more than 4 GiB, packed, to be held as one part",
			     wcx_container_path(plan->container));
	if (r < 0)
		return r;
	result = wcx_gpu_hold_open(device, builder->buffer_bytes, on_device, &builder->held->gpu);
	if (result != WCX_OK)
		return fail_file(builder, result, err);
	r = wcx_parallel_for(thread_count, plan->task_count, fill_task, builder, NULL, err);
	if (r == 0)
		r = add_tiles(builder, err);
	if (r < 0)
		return r;
	result = wcx_gpu_hold_seal(builder->held->gpu);
	return result == WCX_OK ? 0 : fail_file(builder, result, err);
}

int wcx_hold_build(struct wcx_held *held, int device, bool on_device, const struct wcx_load_plan *plan,
		   unsigned thread_count, struct wcx_error *err)
{
	struct builder builder = {
		.held = held,
		.plan = plan,
		.tasks = calloc(plan->task_count + 1, sizeof *builder.tasks),
	};
	int r;

	if (!builder.tasks)
		return fail_file(&builder, WCX_NO_MEMORY, err);
	r = build(&builder, device, on_device, thread_count, err);
	for (size_t t = 0; t < plan->task_count; t++)
		free(builder.tasks[t].tiles);
	free(builder.tasks);
	return r;
}

void wcx_hold_free(struct wcx_held *held)
{
	if (!held)
		return;
	wcx_gpu_hold_free(held->gpu);
	free(held->coded);
	free(held);
}
