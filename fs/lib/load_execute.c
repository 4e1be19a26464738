/* SPDX-License-Identifier: MIT */
/* Executing a load: threads, each with buffers and GPU queues, read, check, decode and copy what the plan says. */
#include "fs/lib/load_execute.h"

#include <errno.h>

#include "codec/arith.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"

enum {
	PINNED_THREADS = 4, /* enough to submit copies, which are the longer the fewer queues share the memory */
};

struct load {
	struct wcx_loader *loader;
	struct wcx_image *image;
	const struct wcx_load_plan *plan;
	const uint8_t *pinned; /* the packed file, or NULL */
	unsigned thread_count;
};

/* A piece that a thread fills, and the queue that gets it. */
struct filling {
	const struct load *load;
	unsigned queue, buffer;
	struct wcx_load_batch *batch;
	const struct wcx_load_piece *piece; /* the last of the batch */
	const uint8_t *packed;              /* of the piece */
	uint8_t *literals;                  /* where those of the piece go */
	size_t bases_end;                   /* in the queue's memory, of the base tiles that were read */
};

/* --- errors --- */

/* Names the tensor of the first wanted byte of a tile, which has none if it was only read with its neighbours. */
static int fail_tile(const struct load *load, const struct wcx_segment *segment, const struct wcx_load_tile *tile,
		     int errnum, struct wcx_error *err)
{
	return wcx_image_fail_tile(load->image, segment, &tile->info,
				   wcx_load_first_wanted(load->plan, segment, &tile->info), errnum, err);
}

static int fail_file(const struct load *load, int errnum, const char *why, struct wcx_error *err)
{
	return wcx_fail(err, errnum, "%s: %s", wcx_container_path(load->plan->container), why);
}

static int check_gpu(const struct load *load, enum wcx_result result, struct wcx_error *err)
{
	return result == WCX_OK ? 0 : fail_file(load, EIO, "the GPU failed", err);
}

/* --- a piece: read, restore, add, send --- */

/* Names the first tile of a piece that is not whole in its first `bytes`, as a read with result n got them. */
static int fail_read(const struct filling *filling, size_t bytes, ssize_t n, struct wcx_error *err)
{
	const struct wcx_load_piece *piece = filling->piece;
	const struct wcx_load_tile *tile = &filling->batch->tiles[piece->first];

	while (tile->info.packed_offset + tile->info.packed_bytes <= piece->packed_offset + bytes)
		tile++;
	return fail_tile(filling->load, piece->segment, tile, n < 0 ? (int)n : -EBADMSG, err);
}

/* Reads the packed tiles of a piece to the start of the buffer. */
static int read_tiles(const struct filling *filling, uint8_t *buffer, struct wcx_error *err)
{
	const struct wcx_load_piece *piece = filling->piece;
	const ssize_t n = wcx_read_at(wcx_container_fd(filling->load->plan->container), buffer, piece->packed_bytes,
				      piece->packed_offset);

	if (n < 0 || (size_t)n < piece->packed_bytes) /* the file has become shorter */
		return fail_read(filling, n < 0 ? 0 : (size_t)n, n, err);
	return 0;
}

static struct wcx_tile_job make_job(const struct wcx_segment *segment, const struct wcx_tile_info *info,
				    const uint8_t *packed)
{
	return (struct wcx_tile_job){
		.dims = info->dims,
		.mode = info->mode,
		.constant = info->constant,
		.recipe = &segment->recipe,
		.src = packed,
		.src_bytes = info->packed_bytes,
		.dst_bytes = wcx_tile_dims_bytes(&info->dims),
	};
}

/* The packed bytes of a tile, and where they are or will be in the queue's memory. */
static const uint8_t *packed_of(const struct filling *filling, const struct wcx_tile_info *info)
{
	return filling->packed + (info->packed_offset - filling->piece->packed_offset);
}

static size_t sent_at(const struct filling *filling, const struct wcx_tile_info *info)
{
	return filling->piece->at + (size_t)(info->packed_offset - filling->piece->packed_offset);
}

/* Restores a tile that was read.  The image checks it, and reads what it needs of a base. */
static int restore_literal(const struct filling *filling, const struct wcx_load_tile *tile, struct wcx_error *err)
{
	const struct wcx_segment *segment = filling->piece->segment;
	struct wcx_image_tile whole = {
		.info = &tile->info,
		.segment = segment,
		.dst = filling->literals + (tile->at - filling->piece->literals_at),
		.packed = packed_of(filling, &tile->info),
		.is_read = true,
	};

	wcx_image_decode_tiles(filling->load->image, &whole, 1);
	return whole.r ? fail_tile(filling->load, segment, tile, whole.r, err) : 0;
}

/*
 * Reads the base tile of a tile of the piece, unless that was done, and those behind it that are neighbours in both files.
 * If these cannot be read, only the first is.
 */
static int read_base(struct filling *filling, const struct wcx_load_tile *tile)
{
	const struct wcx_load_piece *piece = filling->piece;
	const struct wcx_load_tile *end = &filling->batch->tiles[piece->first + piece->count], *next = tile;
	const uint64_t from = tile->base.info.packed_offset;
	uint8_t *packed = filling->literals + (tile->base_at - piece->literals_at);
	const int fd = wcx_container_fd(piece->base);
	size_t bytes = 0;

	if (tile->base_at < filling->bases_end)
		return 0;
	for (; next < end && next->has_base; next++) {
		const size_t at = next->base_at - tile->base_at;

		if (next->base.info.packed_offset != from + at)
			break;
		bytes = at + next->base.info.packed_bytes;
	}
	if (wcx_read_exact(fd, packed, bytes, from) < 0) {
		bytes = tile->base.info.packed_bytes;
		if (wcx_read_exact(fd, packed, bytes, from) < 0)
			return -EIO;
	}
	filling->bases_end = tile->base_at + bytes;
	return 0;
}

/* Adds the base tile of a tile, whose packed bytes it reads and the GPU checks. */
static int add_base(struct filling *filling, const struct wcx_load_tile *tile, uint64_t stage, bool *added_ret,
		    struct wcx_error *err)
{
	const struct load *load = filling->load;
	const struct wcx_load_piece *piece = filling->piece;
	const struct wcx_tile_info *info = &tile->base.info;
	const struct wcx_load_places places = {
		.at = tile->base_at,
		.dst = tile->is_base ? tile->whole : stage + tile->base_staged_at,
	};
	uint8_t *packed = filling->literals + (tile->base_at - piece->literals_at);
	const struct wcx_tile_job job = make_job(tile->base.segment, info, packed);

	if (read_base(filling, tile) < 0 ||
	    wcx_gpu_load_add(load->loader->gpu, filling->queue, &job, &places, added_ret) != WCX_OK)
		return fail_tile(load, piece->segment, tile, -WCX_NO_BASE, err);
	if (*added_ret)
		wcx_gpu_load_check(load->loader->gpu, filling->queue, tile->base_at, info->packed_bytes, info->checksum);
	return 0;
}

/* Whether the GPU checks the packed bytes of a tile, which it decodes or copies. */
static bool is_checked_by_gpu(const struct load *load, const struct wcx_load_tile *tile)
{
	return !load->pinned && tile->info.mode != WCX_TILE_CONSTANT &&
	       (tile->way == WCX_LOAD_DIRECT || tile->way == WCX_LOAD_STAGED || tile->way == WCX_LOAD_STORED);
}

/* Adds a tile that the GPU decodes, and its base tile, to the queue's batch; *added_ret is false when that is full. */
static int add_coded(struct filling *filling, const struct wcx_load_tile *tile, bool *added_ret, struct wcx_error *err)
{
	const struct load *load = filling->load;
	const struct wcx_tile_job job = make_job(filling->piece->segment, &tile->info, packed_of(filling, &tile->info));
	const bool needs_stage = tile->way == WCX_LOAD_STAGED || (tile->has_base && !tile->is_base);
	const uint64_t stage = needs_stage ? wcx_gpu_load_stage(load->loader->gpu, filling->queue) : 0;
	const struct wcx_load_places places = {
		.at = sent_at(filling, &tile->info),
		.dst = tile->way == WCX_LOAD_STAGED ? stage + tile->at : tile->whole,
		.base = tile->has_base ? stage + tile->base_staged_at + tile->base.offset : 0,
		.takes_base = tile->has_base,
	};
	enum wcx_result result;
	int r = 0;

	if (needs_stage && !stage)
		return fail_file(load, ENOMEM, "no memory on the GPU for decoded tiles", err);
	if (tile->has_base)
		r = add_base(filling, tile, stage, added_ret, err);
	if (r < 0 || !*added_ret || tile->info.mode != WCX_TILE_CODED)
		return r;
	result = wcx_gpu_load_add(load->loader->gpu, filling->queue, &job, &places, added_ret);
	return result == WCX_OK ? 0 : fail_tile(load, filling->piece->segment, tile, wcx_result_errno(result), err);
}

/* Restores the literals and adds the coded tiles.  Cuts the piece, and sets *full_ret, where the queue takes no more. */
static int add_tiles(struct filling *filling, bool *full_ret, struct wcx_error *err)
{
	int r = 0;

	for (uint32_t i = 0; i < filling->piece->count && r == 0; i++) {
		const struct wcx_load_tile *tile = &filling->batch->tiles[filling->piece->first + i];
		bool added = true;

		if (tile->way == WCX_LOAD_LITERAL)
			r = restore_literal(filling, tile, err);
		else if (tile->way == WCX_LOAD_DIRECT || tile->way == WCX_LOAD_STAGED)
			r = add_coded(filling, tile, &added, err);
		if (!added) {
			wcx_load_batch_cut(filling->batch, i);
			*full_ret = true;
		} else if (is_checked_by_gpu(filling->load, tile)) {
			wcx_gpu_load_check(filling->load->loader->gpu, filling->queue, sent_at(filling, &tile->info),
					   tile->info.packed_bytes, tile->info.checksum);
		}
	}
	return r;
}

/* Sends what is in the buffer: all of the piece, or the literals beside packed bytes that are pinned. */
static enum wcx_result send_buffer(const struct filling *filling)
{
	const struct wcx_load_piece *piece = filling->piece;
	const size_t from = filling->load->pinned ? piece->literals_at : piece->at;

	if (piece->end_at == from)
		return WCX_OK;
	return wcx_gpu_load_send(filling->load->loader->gpu, filling->queue, filling->buffer, piece->end_at - from, from);
}

/* Sends packed bytes that are pinned at once: looking at their headers takes as long as some copies. */
static enum wcx_result send_pinned(const struct filling *filling)
{
	const struct wcx_load_piece *piece = filling->piece;

	if (!piece->packed_bytes)
		return WCX_OK;
	return wcx_gpu_load_send_pinned(filling->load->loader->gpu, filling->queue, filling->packed, piece->packed_bytes,
					piece->at);
}

/* Fills a piece and sends it.  Cuts it, and sets *full_ret, where the queue takes no more tiles. */
static int fill_piece(struct filling *filling, bool *full_ret, struct wcx_error *err)
{
	const struct load *load = filling->load;
	const struct wcx_load_piece *piece = filling->piece;
	uint8_t *buffer = NULL;
	int r = 0;

	if (piece->end_at > (load->pinned ? piece->literals_at : piece->at)) {
		buffer = wcx_gpu_load_buffer(load->loader->gpu, filling->buffer);
		if (!buffer)
			return check_gpu(load, WCX_DEVICE_FAILED, err);
	}
	if (load->pinned) {
		filling->packed = load->pinned + piece->packed_offset;
		filling->literals = buffer;
		r = check_gpu(load, send_pinned(filling), err);
	} else if (buffer) {
		filling->packed = buffer;
		filling->literals = buffer + (piece->literals_at - piece->at);
		r = read_tiles(filling, buffer, err);
	}
	if (r == 0)
		r = add_tiles(filling, full_ret, err);
	return r ? r : check_gpu(load, send_buffer(filling), err);
}

/* --- a batch: decode, copy --- */

static enum wcx_result copy_tile(const struct load *load, unsigned queue, const struct wcx_segment *segment,
				 const struct wcx_load_tile *tile)
{
	enum wcx_result result = WCX_OK;
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	wcx_load_walk_start(&walk, load->plan, segment, &tile->info);
	while (result == WCX_OK && wcx_load_walk_next(&walk, &copy)) {
		copy.staged = tile->way == WCX_LOAD_STAGED;
		copy.src += tile->at;
		result = wcx_gpu_load_copy(load->loader->gpu, queue, &copy);
	}
	return result;
}

/* Queues the fills and copies of a piece, which follow its decoding. */
static enum wcx_result place_tiles(const struct load *load, unsigned queue, const struct wcx_load_piece *piece)
{
	const struct wcx_load_tile *tiles = &load->loader->batches[queue].tiles[piece->first];
	enum wcx_result result = WCX_OK;

	for (uint32_t i = 0; i < piece->count && result == WCX_OK; i++) {
		const struct wcx_load_tile *tile = &tiles[i];

		if (tile->way == WCX_LOAD_FILL)
			result = wcx_gpu_load_fill(load->loader->gpu, queue, tile->whole, (uint8_t)tile->info.constant,
						   wcx_tile_dims_bytes(&tile->info.dims));
		else if (tile->way != WCX_LOAD_DIRECT && tile->way != WCX_LOAD_SKIP)
			result = copy_tile(load, queue, piece->segment, tile);
	}
	return result;
}

static unsigned queue_of(const struct load *load, unsigned worker)
{
	return worker * WCX_LOADER_QUEUES + load->loader->workers[worker].queue_turns % WCX_LOADER_QUEUES;
}

/* Submits the batch of a thread, if it has one. */
static int submit_batch(const struct load *load, unsigned worker, struct wcx_error *err)
{
	const unsigned queue = queue_of(load, worker);
	const struct wcx_load_batch *batch = &load->loader->batches[queue];
	enum wcx_result result;

	if (!load->loader->workers[worker].has_batch)
		return 0;
	load->loader->workers[worker].has_batch = false;
	result = wcx_gpu_load_submit(load->loader->gpu, queue);
	for (uint32_t i = 0; i < batch->piece_count && result == WCX_OK; i++)
		result = place_tiles(load, queue, &batch->pieces[i]);
	return check_gpu(load, result, err);
}

/* How many tiles the GPU decodes for a tile: it counts its base tile first. */
static uint32_t count_coded(const struct wcx_load_tile *tile)
{
	if (tile->way != WCX_LOAD_DIRECT && tile->way != WCX_LOAD_STAGED)
		return 0;
	return (tile->has_base ? 1u : 0u) + (tile->info.mode == WCX_TILE_CODED ? 1u : 0u);
}

/* How many tiles the GPU checks for a tile, in the same order. */
static uint32_t count_checked(const struct load *load, const struct wcx_load_tile *tile)
{
	return (tile->has_base ? 1u : 0u) + (is_checked_by_gpu(load, tile) ? 1u : 0u);
}

/*
 * Names a tile of a batch that failed.  The GPU counts coded tiles, or those that it checks, in the order of adding.  A base
 * tile may have been added last without its tile, which is in another batch then, and fails there.
 */
static int fail_on_gpu(const struct load *load, const struct wcx_load_batch *batch, const struct wcx_load_failure *failed,
		       struct wcx_error *err)
{
	const struct wcx_load_tile *tile = batch->tiles, *end = tile + batch->tile_count;
	const struct wcx_load_piece *piece = batch->pieces;
	uint32_t left = failed->number;

	for (; tile < end; tile++) {
		const uint32_t count = failed->is_check ? count_checked(load, tile) : count_coded(tile);

		if (left < count)
			break;
		left -= count;
	}
	if (tile == end)
		return 0;
	while (tile >= batch->tiles + piece->first + piece->count)
		piece++;
	return fail_tile(load, piece->segment, tile, tile->has_base && left == 0 ? -WCX_NO_BASE : -EBADMSG, err);
}

/* Waits for a queue's batch, if one is in flight, and names the first tile of it that did not decode. */
static int finish_queue(const struct load *load, unsigned queue, struct wcx_error *err)
{
	struct wcx_load_failure failed = { .number = 0 };
	const enum wcx_result result = wcx_gpu_load_wait(load->loader->gpu, queue, &failed);

	if (result == WCX_BAD_DATA)
		return fail_on_gpu(load, &load->loader->batches[queue], &failed, err);
	return check_gpu(load, result, err);
}

/* --- threads --- */

/* Gives a thread an empty batch, unless it has one to be continued. */
static int begin_batch(const struct load *load, unsigned worker, struct wcx_error *err)
{
	struct wcx_load_worker *its = &load->loader->workers[worker];
	int r;

	if (its->has_batch)
		return 0;
	its->queue_turns++;
	r = finish_queue(load, queue_of(load, worker), err);
	wcx_load_batch_clear(&load->loader->batches[queue_of(load, worker)]);
	its->has_batch = r == 0;
	return r;
}

/* Adds one piece of a task to the thread's batch, from tile *done on, which it moves.  Submits the batch if that is full. */
static int load_piece(const struct load *load, unsigned worker, const struct wcx_load_task *task, uint64_t *done,
		      struct wcx_error *err)
{
	struct wcx_load_worker *its = &load->loader->workers[worker];
	struct filling filling = { .load = load };
	bool is_full = false;
	int r = begin_batch(load, worker, err);

	if (r < 0)
		return r;
	filling.queue = queue_of(load, worker);
	filling.batch = &load->loader->batches[filling.queue];
	filling.piece = wcx_load_batch_extend(load->plan, task, *done, filling.batch);
	if (!filling.piece)
		return submit_batch(load, worker, err);
	filling.buffer = worker * WCX_LOADER_BUFFERS + its->buffer_turns++ % WCX_LOADER_BUFFERS;
	r = fill_piece(&filling, &is_full, err);
	if (r < 0)
		return r;
	*done += filling.piece->count;
	/* If another piece like this would not fit, do not wait for it. */
	is_full |= 2 * filling.piece->end_at - filling.piece->at > load->plan->queue_bytes;
	return is_full ? submit_batch(load, worker, err) : 0;
}

static int do_task(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct load *load = user;
	const struct wcx_load_task *task = &load->plan->tasks[item];
	uint64_t done = 0;
	int r = 0;

	(void)loop;
	while (done < task->tile_count && r == 0)
		r = load_piece(load, worker, task, &done, err);
	/* Most likely the thread's last task: the GPU need not wait until all threads have ended. */
	if (r == 0 && item + load->thread_count >= load->plan->task_count)
		r = submit_batch(load, worker, err);
	return r;
}

/* Submits what the threads left behind, unless there was an error, and waits for all.  Returns the first error or 0. */
static int finish_queues(const struct load *load, unsigned thread_count, int r, struct wcx_error *err)
{
	for (unsigned worker = 0; worker < thread_count; worker++) {
		if (r == 0)
			r = submit_batch(load, worker, err);
		load->loader->workers[worker].has_batch = false;
	}
	for (unsigned queue = 0; queue < WCX_LOADER_QUEUES * thread_count; queue++) {
		const int queue_r = finish_queue(load, queue, r ? NULL : err);

		r = r ? r : queue_r;
	}
	return r;
}

/* Base tiles are read, which takes more threads. */
static unsigned pinned_thread_count(const struct wcx_loader *loader, const struct wcx_container *container)
{
	const bool has_bases = wcx_container_base_count(container) > 0;

	return has_bases ? loader->thread_count : WCX_MIN(loader->thread_count, (unsigned)PINNED_THREADS);
}

size_t wcx_loader_pinned_bytes(const struct wcx_loader *loader, const struct wcx_container *container)
{
	return wcx_gpu_load_queue_bytes(loader->gpu, WCX_LOADER_QUEUES * pinned_thread_count(loader, container));
}

int wcx_load_execute(struct wcx_loader *loader, struct wcx_image *image, const struct wcx_load_plan *plan,
		     const uint8_t *pinned, void *stream, struct wcx_error *err)
{
	const unsigned thread_count = pinned ? pinned_thread_count(loader, plan->container) : loader->thread_count;
	struct load load = { loader, image, plan, pinned, thread_count };
	int r = check_gpu(&load, wcx_gpu_load_begin(loader->gpu, WCX_LOADER_QUEUES * thread_count, stream), err);

	if (r < 0)
		return r;
	r = wcx_parallel_for(thread_count, plan->task_count, do_task, &load, NULL, err);
	return finish_queues(&load, thread_count, r, err);
}
