/* SPDX-License-Identifier: MIT */
/* Executing a load: threads, each with two GPU queues, read, check, decode and copy what the plan says. */
#include "fs/lib/load_execute.h"

#include <errno.h>

#include "codec/arith.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"

enum { READ_BYTES = 512 << 10 }; /* at a time: checksums are computed while these are in the core's cache */

struct load {
	struct wcx_loader *loader;
	struct wcx_image *image;
	struct wcx_decoder *decoder;
	const struct wcx_load_plan *plan;
};

/* --- errors --- */

/* Names the tensor of the first wanted byte of a tile, which has none if it was only read with its neighbours. */
static int fail_tile(const struct load *load, const struct wcx_load_batch *batch, const struct wcx_load_tile *tile,
		     int errnum, struct wcx_error *err)
{
	return wcx_image_fail_tile(load->image, batch->segment, &tile->info,
				   wcx_load_first_wanted(load->plan, batch->segment, &tile->info), errnum, err);
}

static int fail_file(const struct load *load, int errnum, const char *why, struct wcx_error *err)
{
	return wcx_fail(err, errnum, "%s: %s", wcx_container_path(load->plan->container), why);
}

static int check_gpu(const struct load *load, enum wcx_result result, struct wcx_error *err)
{
	return result == WCX_OK ? 0 : fail_file(load, EIO, "the GPU failed", err);
}

/* --- a batch: read, decode, copy --- */

/* Reads the packed tiles of a batch to the start of the buffer, and checks those that are wanted. */
static int read_tiles(const struct load *load, const struct wcx_load_batch *batch, uint8_t *buffer, struct wcx_error *err)
{
	const int fd = wcx_container_fd(load->plan->container);
	const uint64_t packed_offset = batch->tiles[0].info.packed_offset;
	size_t read_bytes = 0;

	for (uint32_t i = 0; i < batch->count; i++) {
		const struct wcx_load_tile *tile = &batch->tiles[i];
		const size_t start = (size_t)(tile->info.packed_offset - packed_offset),
			     end = start + tile->info.packed_bytes;

		while (read_bytes < end) {
			const size_t wanted = WCX_MIN(batch->packed_bytes - read_bytes, (size_t)READ_BYTES);
			const ssize_t n = wcx_read_at(fd, buffer + read_bytes, wanted, packed_offset + read_bytes);

			if (n <= 0) /* 0: the file has become shorter */
				return fail_tile(load, batch, tile, n < 0 ? (int)n : -EBADMSG, err);
			read_bytes += (size_t)n;
		}
		if (tile->way != WCX_LOAD_SKIP && tile->info.mode != WCX_TILE_CONSTANT &&
		    wcx_checksum32(buffer + start, tile->info.packed_bytes) != tile->info.checksum)
			return fail_tile(load, batch, tile, -EBADMSG, err);
	}
	return 0;
}

static struct wcx_tile_job make_job(const struct wcx_load_batch *batch, const struct wcx_tile_info *info,
				    const uint8_t *buffer)
{
	return (struct wcx_tile_job){
		.dims = info->dims,
		.mode = info->mode,
		.constant = info->constant,
		.recipe = &batch->segment->recipe,
		.src = buffer + (info->packed_offset - batch->tiles[0].info.packed_offset),
		.src_bytes = info->packed_bytes,
		.dst_bytes = wcx_tile_dims_bytes(&info->dims),
	};
}

/* Decodes a tile that is a difference from a base, which the image reads; it also reads the packed bytes once more. */
static int restore_difference(const struct load *load, const struct wcx_load_batch *batch, const struct wcx_load_tile *tile,
			      uint8_t *buffer, struct wcx_error *err)
{
	struct wcx_image_tile whole = { .info = &tile->info, .segment = batch->segment, .dst = buffer + tile->at };

	wcx_image_decode_tiles(load->image, &whole, 1);
	return whole.r ? fail_tile(load, batch, tile, whole.r, err) : 0;
}

static int restore_literal(const struct load *load, const struct wcx_load_batch *batch, const struct wcx_load_tile *tile,
			   uint8_t *buffer, struct wcx_error *err)
{
	struct wcx_decode_batch *lent = wcx_decoder_borrow(load->decoder);
	int r = -ENOMEM;

	if (lent) {
		lent->jobs[0] = make_job(batch, &tile->info, buffer);
		lent->jobs[0].dst = buffer + tile->at;
		wcx_decoder_run(load->decoder, lent, 1);
		r = wcx_result_errno(lent->jobs[0].result);
		wcx_decoder_return(load->decoder, lent);
	}
	return r ? fail_tile(load, batch, tile, r, err) : 0;
}

/* Adds a coded tile to the queue's batch; *added_ret is false when that is full. */
static int add_coded(const struct load *load, unsigned queue, const struct wcx_load_batch *batch,
		     const struct wcx_load_tile *tile, const uint8_t *buffer, bool *added_ret, struct wcx_error *err)
{
	struct wcx_gpu_loader *gpu = load->loader->gpu;
	const struct wcx_tile_job job = make_job(batch, &tile->info, buffer);
	enum wcx_result result;
	uint64_t dst = tile->whole;

	if (tile->way == WCX_LOAD_STAGED) {
		dst = wcx_gpu_load_stage(gpu, queue);
		if (!dst)
			return fail_file(load, ENOMEM, "no memory on the GPU for decoded tiles", err);
		dst += tile->at;
	}
	result = wcx_gpu_load_add(gpu, queue, &job, dst, added_ret);
	return result == WCX_OK ? 0 : fail_tile(load, batch, tile, wcx_result_errno(result), err);
}

/* Restores the literals and adds the coded tiles.  Cuts the batch short where the queue takes no more. */
static int add_tiles(const struct load *load, unsigned queue, struct wcx_load_batch *batch, uint8_t *buffer,
		     struct wcx_error *err)
{
	int r = 0;

	for (uint32_t i = 0; i < batch->count && r == 0; i++) {
		const struct wcx_load_tile *tile = &batch->tiles[i];
		bool added = true;

		if (tile->way == WCX_LOAD_LITERAL && wcx_tile_needs_base(batch->segment, &tile->info))
			r = restore_difference(load, batch, tile, buffer, err);
		else if (tile->way == WCX_LOAD_LITERAL)
			r = restore_literal(load, batch, tile, buffer, err);
		else if (tile->way == WCX_LOAD_DIRECT || tile->way == WCX_LOAD_STAGED)
			r = add_coded(load, queue, batch, tile, buffer, &added, err);
		if (!added)
			batch->count = i;
	}
	return r;
}

static enum wcx_result copy_tile(const struct load *load, unsigned queue, const struct wcx_load_batch *batch,
				 const struct wcx_load_tile *tile)
{
	enum wcx_result result = WCX_OK;
	struct wcx_load_walk walk;
	struct wcx_load_copy copy;

	wcx_load_walk_start(&walk, load->plan, batch->segment, &tile->info);
	while (result == WCX_OK && wcx_load_walk_next(&walk, &copy)) {
		copy.staged = tile->way == WCX_LOAD_STAGED;
		copy.src += tile->at;
		result = wcx_gpu_load_copy(load->loader->gpu, queue, &copy);
	}
	return result;
}

/* Queues the fills and copies of a batch, which follow its decoding. */
static int place_tiles(const struct load *load, unsigned queue, const struct wcx_load_batch *batch, struct wcx_error *err)
{
	enum wcx_result result = WCX_OK;

	for (uint32_t i = 0; i < batch->count && result == WCX_OK; i++) {
		const struct wcx_load_tile *tile = &batch->tiles[i];

		if (tile->way == WCX_LOAD_FILL)
			result = wcx_gpu_load_fill(load->loader->gpu, queue, tile->whole, (uint8_t)tile->info.constant,
						   wcx_tile_dims_bytes(&tile->info.dims));
		else if (tile->way != WCX_LOAD_DIRECT && tile->way != WCX_LOAD_SKIP)
			result = copy_tile(load, queue, batch, tile);
	}
	return check_gpu(load, result, err);
}

/* Returns coded tile number `coded` of a batch: the GPU counts only these, in the order of adding. */
static const struct wcx_load_tile *find_coded(const struct wcx_load_batch *batch, uint32_t coded)
{
	const struct wcx_load_tile *tile = batch->tiles;

	while ((tile->way != WCX_LOAD_DIRECT && tile->way != WCX_LOAD_STAGED) || coded-- > 0)
		tile++;
	return tile;
}

/* Waits for a queue's batch, if one is in flight, and names the first tile of it that did not decode. */
static int finish_queue(const struct load *load, unsigned queue, struct wcx_error *err)
{
	const struct wcx_load_batch *batch = &load->loader->batches[queue];
	uint32_t failed = 0;
	const enum wcx_result result = wcx_gpu_load_wait(load->loader->gpu, queue, &failed);

	if (result == WCX_BAD_DATA)
		return fail_tile(load, batch, find_coded(batch, failed), -EBADMSG, err);
	return check_gpu(load, result, err);
}

/* Submits one batch of a task, from its tile number *done on, and adds the tiles of the batch to *done. */
static int load_batch(const struct load *load, unsigned queue, const struct wcx_load_task *task, uint64_t *done,
		      struct wcx_error *err)
{
	struct wcx_gpu_loader *gpu = load->loader->gpu;
	struct wcx_load_batch *batch = &load->loader->batches[queue];
	uint8_t *buffer = wcx_gpu_load_buffer(gpu, queue);
	int r = finish_queue(load, queue, err);

	if (r < 0)
		return r;
	wcx_load_batch_fill(load->plan, task, *done, batch);
	r = read_tiles(load, batch, buffer, err);
	if (r == 0)
		r = add_tiles(load, queue, batch, buffer, err);
	if (r == 0)
		r = check_gpu(load, wcx_gpu_load_submit(gpu, queue, batch->buffer_bytes), err);
	if (r < 0)
		return r;
	*done += batch->count;
	return place_tiles(load, queue, batch, err);
}

/* --- threads --- */

static int do_task(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct load *load = user;
	const struct wcx_load_task *task = &load->plan->tasks[item];
	uint64_t done = 0;
	int r = 0;

	(void)loop;
	while (done < task->tile_count && r == 0) {
		const unsigned turn = load->loader->turns[worker]++ % WCX_LOADER_QUEUES;

		r = load_batch(load, WCX_LOADER_QUEUES * worker + turn, task, &done, err);
	}
	return r;
}

/* Waits for all queues.  Returns the first error, which is r if that is one. */
static int finish_queues(const struct load *load, int r, struct wcx_error *err)
{
	for (unsigned queue = 0; queue < WCX_LOADER_QUEUES * load->loader->thread_count; queue++) {
		const int queue_r = finish_queue(load, queue, r ? NULL : err);

		r = r ? r : queue_r;
	}
	return r;
}

int wcx_load_execute(struct wcx_loader *loader, struct wcx_image *image, struct wcx_decoder *decoder,
		     const struct wcx_load_plan *plan, void *stream, struct wcx_error *err)
{
	struct load load = { loader, image, decoder, plan };
	int r = check_gpu(&load, wcx_gpu_load_follow(loader->gpu, stream), err);

	if (r < 0)
		return r;
	r = wcx_parallel_for(loader->thread_count, plan->task_count, do_task, &load, NULL, err);
	return finish_queues(&load, r, err);
}
