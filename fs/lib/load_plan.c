/* SPDX-License-Identifier: MIT */
/* Planning of a load: spans, portions of work, and what becomes of each tile. */
#include "fs/lib/load_plan.h"

#include <errno.h>
#include <stdlib.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/base/search.h"
#include "fs/read/image_bases.h"

enum {
	TASK_BYTES = 4 << 20,       /* the most, decoded */
	SMALL_TASK_BYTES = 2 << 20, /* the same of a small load, which the threads should end together */
	SMALL_LOAD_BYTES = 256 << 20,
	PINNED_TASK_BYTES = 48 << 20,
	STAGE_ALIGN = 128,
	LITERAL_ALIGN = 16,
	PIECE_ALIGN = 256,
};

/* --- spans --- */

static int compare_spans(const void *a, const void *b)
{
	const struct wcx_load_span *x = a, *y = b;

	return (x->from > y->from) - (x->from < y->from);
}

/* Makes spans of the targets that have bytes. */
static int make_spans(struct wcx_load_plan *plan, const struct wcx_target *targets, size_t count, struct wcx_error *err)
{
	const uint64_t file_bytes = wcx_container_superblock(plan->container)->original_bytes;
	const char *path = wcx_container_path(plan->container);

	plan->spans = calloc(count ? count : 1, sizeof *plan->spans);
	if (!plan->spans)
		return wcx_fail(err, ENOMEM, "%s: no memory for %zu ranges", path, count);
	for (size_t i = 0; i < count; i++) {
		if (targets[i].offset > file_bytes || targets[i].bytes > file_bytes - targets[i].offset)
			return wcx_fail(err, EINVAL, "%s: offset %llu, %llu bytes: not within the file", path,
					(unsigned long long)targets[i].offset, (unsigned long long)targets[i].bytes);
		if (targets[i].bytes)
			plan->spans[plan->span_count++] = (struct wcx_load_span){
				.from = targets[i].offset,
				.to = targets[i].offset + targets[i].bytes,
				.dst = (uint64_t)(uintptr_t)targets[i].dst,
			};
	}
	qsort(plan->spans, plan->span_count, sizeof *plan->spans, compare_spans);
	for (size_t i = 1; i < plan->span_count; i++)
		if (plan->spans[i].from < plan->spans[i - 1].to)
			return wcx_fail(err, EINVAL, "%s: offset %llu: ranges overlap", path,
					(unsigned long long)plan->spans[i].from);
	return 0;
}

struct span_search {
	const struct wcx_load_span *spans;
	uint64_t offset;
};

static bool ends_before(const void *user, size_t i)
{
	const struct span_search *search = user;

	return search->spans[i].to <= search->offset;
}

/* --- tasks --- */

/*
 * The number of tiles in a task: as many as fill a buffer with packed bytes, or a queue's memory if they are pinned.  Short
 * copies waste the link's time: each costs as much as 200 KiB.
 */
static uint64_t count_portion(const struct wcx_load_plan *plan, const struct wcx_segment *segment)
{
	const uint64_t tile_bytes = (uint64_t)segment->tile_rows * segment->tile_cols * segment->recipe.elem_bytes;
	const uint64_t alone_bytes = plan->is_pinned ? PINNED_TASK_BYTES : plan->task_bytes;
	const uint64_t most_bytes = segment->base ? WCX_LOAD_BUFFER_BYTES : alone_bytes; /* a buffer has base tiles too */
	const uint64_t most_packed = (plan->is_pinned ? plan->queue_bytes : WCX_LOAD_BUFFER_BYTES) / 16 * 15;
	struct wcx_tile_info first, last;
	uint64_t packed_bytes;

	wcx_container_tile(plan->container, segment, segment->first_tile, &first);
	wcx_container_tile(plan->container, segment, segment->first_tile + segment->tile_count - 1, &last);
	packed_bytes = last.packed_offset + last.packed_bytes - first.packed_offset;
	return WCX_MAX(WCX_MIN(most_bytes / tile_bytes, most_packed * segment->tile_count / WCX_MAX(packed_bytes, 1u)), 1u);
}

/* Adds tiles [first, end) of a segment, in portions. */
static int add_tasks(struct wcx_load_plan *plan, const struct wcx_segment *segment, uint64_t first, uint64_t end)
{
	const uint64_t portion = first < end ? count_portion(plan, segment) : 1;

	for (; first < end; first += portion) {
		struct wcx_load_task *tasks =
			wcx_array_reserve(plan->tasks, &plan->task_capacity, plan->task_count + 1, sizeof *tasks);

		if (!tasks)
			return -ENOMEM;
		plan->tasks = tasks;
		tasks[plan->task_count++] = (struct wcx_load_task){ segment, first, WCX_MIN(end - first, portion), NULL };
	}
	return 0;
}

/*
 * Takes each tile that has bytes of the spans once, even if several spans have bytes of it.  The ends of what
 * wcx_segment_tiles finds never decrease from span to span, so one number says which tiles of a segment are taken.
 */
static int make_tasks(struct wcx_load_plan *plan, struct wcx_error *err)
{
	const struct wcx_segment *segments_end =
		wcx_container_segment(plan->container, 0) + wcx_container_superblock(plan->container)->segment_count;
	const struct wcx_segment *last_segment = NULL;
	uint64_t done = 0; /* tiles of last_segment below this are taken */
	int r = 0;

	for (size_t i = 0; i < plan->span_count && r == 0; i++) {
		const struct wcx_load_span *span = &plan->spans[i];
		const struct wcx_segment *segment =
			wcx_container_segment(plan->container, wcx_container_segment_at(plan->container, span->from));

		for (; segment < segments_end && segment->offset < span->to && r == 0; segment++) {
			uint64_t first, end;

			wcx_segment_tiles(segment, span->from, span->to, &first, &end);
			r = add_tasks(plan, segment, segment == last_segment ? WCX_MAX(first, done) : first, end);
			last_segment = segment;
			done = end;
		}
	}
	return r ? wcx_fail(err, ENOMEM, "%s: no memory for a list of tiles", wcx_container_path(plan->container)) : 0;
}

int wcx_load_plan_make(const struct wcx_container *container, size_t pinned_queue_bytes, const struct wcx_target *targets,
		       size_t target_count, struct wcx_load_plan *plan, struct wcx_error *err)
{
	uint64_t all_bytes = 0;
	int r;

	*plan = (struct wcx_load_plan){
		.container = container,
		.is_pinned = pinned_queue_bytes > 0,
		.queue_bytes = pinned_queue_bytes ? pinned_queue_bytes : WCX_LOAD_QUEUE_BYTES,
	};
	r = make_spans(plan, targets, target_count, err);
	for (size_t i = 0; i < plan->span_count; i++)
		all_bytes += plan->spans[i].to - plan->spans[i].from;
	plan->task_bytes = all_bytes < SMALL_LOAD_BYTES ? SMALL_TASK_BYTES : TASK_BYTES;
	return r ? r : make_tasks(plan, err);
}

/* A base of the file, which is looked for when it is first needed; NULL: not found. */
static const struct wcx_container *find_base(struct wcx_load_plan *plan, struct wcx_image *image, uint32_t number)
{
	struct wcx_image **base = &plan->bases[number - 1];

	if (!*base && wcx_image_bases_get(wcx_image_bases(image), number, base, NULL) < 0)
		return NULL;
	return wcx_image_container(*base);
}

int wcx_load_plan_use_bases(struct wcx_load_plan *plan, struct wcx_image *image, const struct wcx_gpu_loader *gpu,
			    struct wcx_error *err)
{
	const uint32_t base_count = wcx_container_base_count(plan->container);

	if (!base_count)
		return 0;
	plan->bases = calloc(base_count, sizeof *plan->bases);
	if (!plan->bases)
		return wcx_fail(err, ENOMEM, "%s: no memory for its bases", wcx_container_path(plan->container));
	for (size_t i = 0; i < plan->task_count; i++) {
		struct wcx_load_task *task = &plan->tasks[i];

		if (task->segment->base && wcx_gpu_load_takes(gpu, &task->segment->recipe))
			task->base = find_base(plan, image, task->segment->base);
	}
	return 0;
}

void wcx_load_plan_free(struct wcx_load_plan *plan)
{
	for (uint32_t i = 0; plan->bases && i < wcx_container_base_count(plan->container); i++)
		wcx_image_put(plan->bases[i]);
	free(plan->bases);
	free(plan->spans);
	free(plan->tasks);
}

/* --- tiles --- */

void wcx_load_walk_start(struct wcx_load_walk *walk, const struct wcx_load_plan *plan, const struct wcx_segment *segment,
			 const struct wcx_tile_info *tile)
{
	const struct span_search search = { plan->spans, wcx_tile_row_offset(segment, tile, 0) };

	*walk = (struct wcx_load_walk){
		.plan = plan,
		.segment = segment,
		.tile = tile,
		.span = wcx_count_before(plan->span_count, ends_before, &search),
		.next = search.offset,
	};
}

/* Returns how many rows of a tile one copy can take: they must lie whole in the span, of which the first ends at row_end. */
static uint32_t count_rows(const struct wcx_load_span *span, uint64_t row_end, uint64_t pitch, uint32_t rows_left)
{
	return pitch > INT32_MAX ? 1 : (uint32_t)WCX_MIN(1 + (span->to - row_end) / pitch, rows_left);
}

bool wcx_load_walk_next(struct wcx_load_walk *walk, struct wcx_load_copy *ret)
{
	const struct wcx_tile_dims *dims = &walk->tile->dims;
	const size_t row_bytes = (size_t)dims->cols * dims->elem_bytes, pitch = walk->segment->cols * dims->elem_bytes;
	const uint64_t tile_end = wcx_tile_row_offset(walk->segment, walk->tile, dims->rows - 1) + row_bytes;
	const struct wcx_load_span *span;
	struct wcx_extent extent;
	uint64_t extent_end;

	for (;; walk->span++) {
		span = &walk->plan->spans[walk->span];
		if (walk->span == walk->plan->span_count || span->from >= tile_end)
			return false;
		walk->next = WCX_MAX(walk->next, span->from);
		if (wcx_tile_extent(walk->segment, walk->tile, walk->next, span->to, &extent))
			break;
	}
	extent_end = extent.offset + extent.bytes;
	walk->from = extent.offset;
	*ret = (struct wcx_load_copy){
		.dst = span->dst + (extent.offset - span->from),
		.src = extent.tile_offset,
		.row_bytes = extent.bytes,
		.rows = 1,
		.src_pitch = row_bytes,
		.dst_pitch = pitch,
	};
	if (extent.bytes == row_bytes)
		ret->rows = count_rows(span, extent_end, pitch, dims->rows - (uint32_t)(extent.tile_offset / row_bytes));
	walk->next = extent_end + (ret->rows - 1) * pitch;
	return true;
}

uint64_t wcx_load_first_wanted(const struct wcx_load_plan *plan, const struct wcx_segment *segment,
			       const struct wcx_tile_info *tile)
{
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	wcx_load_walk_start(&walk, plan, segment, tile);
	return wcx_load_walk_next(&walk, &copy) ? walk.from : 0;
}

/* Whether every byte of a constant tile is the same. */
static bool has_one_value(const struct wcx_tile_info *info)
{
	const uint32_t value = info->constant & 0xFF, elem_bytes = info->dims.elem_bytes;

	if (elem_bytes == 8)
		return info->constant == 0;
	return info->constant == (value * 0x01010101u & (UINT32_MAX >> (32 - 8 * elem_bytes)));
}

static bool is_aligned(uint64_t address, uint32_t elem_bytes)
{
	return address && address % wcx_word_bytes(elem_bytes) == 0;
}

/* Sets the way of a tile that needs a base. */
static void plan_difference(const struct wcx_load_task *task, struct wcx_load_tile *tile)
{
	const struct wcx_tile_info *info = &tile->info;
	const bool is_coded = info->mode == WCX_TILE_CODED, is_same = !is_coded && info->constant == 0;

	tile->has_base =
		task->base && (is_coded || is_same) && wcx_tile_find_base(task->base, task->segment, info, &tile->base);
	if (!tile->has_base) {
		tile->way = WCX_LOAD_LITERAL;
		return;
	}
	tile->way = is_aligned(tile->whole, info->dims.elem_bytes) ? WCX_LOAD_DIRECT : WCX_LOAD_STAGED;
	tile->is_base = is_same && tile->way == WCX_LOAD_DIRECT &&
			wcx_tile_dims_bytes(&info->dims) == wcx_tile_dims_bytes(&tile->base.info.dims);
	if (is_same && !tile->is_base)
		tile->way = WCX_LOAD_STAGED;
}

static enum wcx_load_way choose_way(const struct wcx_tile_info *info, uint64_t whole)
{
	if (info->mode == WCX_TILE_CODED)
		return is_aligned(whole, info->dims.elem_bytes) ? WCX_LOAD_DIRECT : WCX_LOAD_STAGED;
	if (info->mode == WCX_TILE_STORED)
		return WCX_LOAD_STORED;
	return info->mode == WCX_TILE_CONSTANT && whole && has_one_value(info) ? WCX_LOAD_FILL : WCX_LOAD_LITERAL;
}

/* Sets all of a tile but its places in buffer or stage. */
static void plan_tile(const struct wcx_load_plan *plan, const struct wcx_load_task *task, struct wcx_load_tile *tile)
{
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	tile->way = WCX_LOAD_SKIP;
	tile->whole = 0;
	tile->has_base = tile->is_base = false;
	wcx_load_walk_start(&walk, plan, task->segment, &tile->info);
	if (!wcx_load_walk_next(&walk, &copy))
		return;
	if (copy.rows == 1 && copy.row_bytes == wcx_tile_dims_bytes(&tile->info.dims))
		tile->whole = copy.dst;
	if (wcx_tile_needs_base(task->segment, &tile->info))
		plan_difference(task, tile);
	else
		tile->way = choose_way(&tile->info, tile->whole);
}

/* Bytes that a piece uses: packed tiles, literals with base tiles, and decoded tiles in the stage. */
struct usage {
	size_t packed, literals, stage;
};

/* Places the base tile of a tile among the literals, counted from the first one, and in the stage. */
static void place_base(struct wcx_load_tile *tile, struct usage *used)
{
	tile->base_at = used->literals;
	used->literals += (size_t)wcx_tile_align_up(tile->base.info.packed_bytes); /* as in the base's file */
	tile->base_staged_at = used->stage;
	if (!tile->is_base)
		used->stage += WCX_ALIGN_UP(wcx_tile_dims_bytes(&tile->base.info.dims), STAGE_ALIGN);
}

/* Places a tile in the stage, among the literals (counted from the first one), or where its packed bytes will be. */
static void place_tile(struct wcx_load_tile *tile, const struct wcx_load_piece *piece, struct usage *used)
{
	const size_t packed_start = (size_t)(tile->info.packed_offset - piece->packed_offset);
	const size_t tile_bytes = wcx_tile_dims_bytes(&tile->info.dims);

	used->packed = packed_start + tile->info.packed_bytes;
	if (tile->has_base)
		place_base(tile, used);
	if (tile->has_base && tile->info.mode == WCX_TILE_CONSTANT) {
		tile->at = tile->base_staged_at + tile->base.offset;
	} else if (tile->way == WCX_LOAD_STAGED) {
		tile->at = used->stage;
		used->stage += WCX_ALIGN_UP(tile_bytes, STAGE_ALIGN);
	} else if (tile->way == WCX_LOAD_LITERAL) {
		tile->at = WCX_ALIGN_UP(used->literals, LITERAL_ALIGN);
		used->literals = tile->at + WCX_ALIGN_UP(tile_bytes, LITERAL_ALIGN);
	} else {
		tile->at = piece->at + packed_start;
	}
}

/* Whether a piece that uses this much fits into buffer, stage and queue. */
static bool is_within_limits(const struct wcx_load_plan *plan, const struct wcx_load_piece *piece, const struct usage *used)
{
	const size_t literals_at = WCX_ALIGN_UP(used->packed, LITERAL_ALIGN);
	const size_t buffer_bytes = used->literals + (plan->is_pinned ? 0 : literals_at);

	return buffer_bytes <= WCX_LOAD_BUFFER_BYTES && used->stage <= WCX_LOAD_STAGE_BYTES &&
	       piece->at + literals_at + used->literals <= plan->queue_bytes;
}

void wcx_load_batch_clear(struct wcx_load_batch *batch)
{
	batch->tile_count = batch->piece_count = 0;
	batch->sent_bytes = batch->stage_bytes = 0;
}

const struct wcx_load_piece *wcx_load_batch_extend(const struct wcx_load_plan *plan, const struct wcx_load_task *task,
						   uint64_t first, struct wcx_load_batch *batch)
{
	const uint32_t most = (uint32_t)WCX_MIN(task->tile_count - first, WCX_LOAD_BATCH_TILES - batch->tile_count);
	struct wcx_load_piece *piece = &batch->pieces[batch->piece_count];
	struct wcx_load_tile *tiles = &batch->tiles[batch->tile_count];
	struct usage used = { .stage = batch->stage_bytes };

	if (batch->piece_count == WCX_LOAD_BATCH_PIECES || most == 0)
		return NULL;
	*piece = (struct wcx_load_piece){
		.segment = task->segment,
		.base = task->base,
		.first = batch->tile_count,
		.at = WCX_ALIGN_UP(batch->sent_bytes, PIECE_ALIGN),
	};
	for (; piece->count < most; piece->count++) {
		struct wcx_load_tile *tile = &tiles[piece->count];
		struct usage with_tile = used;

		wcx_container_tile(plan->container, task->segment, task->first_tile + first + piece->count, &tile->info);
		if (piece->count == 0)
			piece->packed_offset = tile->info.packed_offset;
		plan_tile(plan, task, tile);
		place_tile(tile, piece, &with_tile);
		if (!is_within_limits(plan, piece, &with_tile))
			break;
		used = with_tile;
	}
	if (piece->count == 0)
		return NULL;
	piece->packed_bytes = used.packed;
	piece->literals_at = piece->at + WCX_ALIGN_UP(used.packed, LITERAL_ALIGN);
	piece->end_at = piece->literals_at + used.literals;
	for (uint32_t i = 0; i < piece->count; i++) {
		tiles[i].at += tiles[i].way == WCX_LOAD_LITERAL ? piece->literals_at : 0;
		tiles[i].base_at += tiles[i].has_base ? piece->literals_at : 0;
	}
	batch->tile_count += piece->count;
	batch->piece_count++;
	batch->sent_bytes = piece->end_at;
	batch->stage_bytes = used.stage;
	return piece;
}

void wcx_load_batch_cut(struct wcx_load_batch *batch, uint32_t count)
{
	struct wcx_load_piece *piece = &batch->pieces[batch->piece_count - 1];

	piece->count = count;
	batch->tile_count = piece->first + count;
	batch->piece_count -= count == 0;
}
