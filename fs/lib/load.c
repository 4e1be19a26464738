/* SPDX-License-Identifier: MIT */
/* Loads packed files straight into a GPU's memory: threads that each keep two lanes busy. */
#include "fs/lib/wcx.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/gpu_load.h"
#include "fs/base/file_io.h"
#include "fs/base/parallel.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"
#include "fs/read/tile_cache.h"

enum {
	THREADS_LIMIT = 256,
	MOST_THREADS = 16, /* by default: more than it takes to keep PCIe busy */
	WORK_BYTES =
		2 << 20, /* of decoded tiles, that a thread takes at a time, or one tile: more leave the cache on the way */
	BATCH_TILES = 1024,
	READ_BYTES = 512 << 10,
	STAGE_ALIGN = 128,
	LITERAL_ALIGN = 16,
};

struct wcx_file {
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_image *image;
	struct wcx_safetensors *st;
};

/* Where the bytes of a tile of a batch come from on the device. */
enum source {
	SOURCE_NONE,    /* none are wanted */
	SOURCE_DECODED, /* decoded in place */
	SOURCE_STAGE,   /* decoded to the stage, from `at` on */
	SOURCE_BUFFER,  /* as they are, in the buffer from `at` on */
	SOURCE_VALUE,   /* all bytes are the lowest one of the constant */
};

struct batch_tile {
	struct wcx_tile_info info;
	enum source source;
	uint64_t place; /* on the device, if all of it is to be in one piece there; 0 otherwise */
	size_t at;
};

/* What a lane has, in the making or under way. */
struct batch {
	const struct wcx_segment *segment;
	struct batch_tile tiles[BATCH_TILES];
	uint32_t count;
	uint32_t coded[BATCH_TILES]; /* tiles that are decoded, in the order of adding */
	uint32_t coded_count;
};

struct wcx_loader {
	struct wcx_gpu_loader *gpu;
	unsigned threads;
	struct batch *batches; /* two for each thread, like lanes */
	unsigned *turn;        /* of each thread's two lanes, the next one: its own thread's */
};

/* A target: bytes [from, to) of the original go to dst. */
struct span {
	uint64_t from, to, dst;
};

/* Tiles of a segment, which follow each other. */
struct work {
	const struct wcx_segment *segment;
	uint64_t first_tile, tile_count;
};

struct load {
	struct wcx_loader *loader;
	struct wcx_file *file;
	struct span *spans; /* in the order of the file */
	size_t span_count;
	struct work *works;
	size_t work_count, work_room;
};

/* --- files --- */

/* Hands an error's text to the caller. */
static int report(int r, const struct wcx_error *err, char *error, size_t error_bytes)
{
	if (r < 0 && error && error_bytes)
		snprintf(error, error_bytes, "%s", err->text);
	return r;
}

static int open_file(const char *path, struct wcx_file *file, struct wcx_error *err)
{
	int fd, r;

	file->cache = wcx_tile_cache_create(0);
	if (!file->cache)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	r = wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &file->decoder, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	r = wcx_image_open(fd, path, file->cache, file->decoder, &file->image, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	return wcx_image_header(file->image, &file->st, err);
}

int wcx_file_open(const char *path, struct wcx_file **ret, char *error, size_t error_bytes)
{
	struct wcx_file *file = calloc(1, sizeof *file);
	struct wcx_error err = { "" };
	int r = file ? open_file(path, file, &err) : wcx_fail(&err, ENOMEM, "%s: no memory", path);

	if (r == 0)
		*ret = file;
	else
		wcx_file_close(file);
	return report(r, &err, error, error_bytes);
}

void wcx_file_close(struct wcx_file *file)
{
	if (!file)
		return;
	wcx_safetensors_free(file->st);
	wcx_image_put(file->image);
	wcx_decoder_free(file->decoder);
	wcx_tile_cache_free(file->cache);
	free(file);
}

uint64_t wcx_file_bytes(const struct wcx_file *file)
{
	return wcx_image_bytes(file->image);
}

uint64_t wcx_file_header_bytes(const struct wcx_file *file)
{
	return file->st->header_bytes;
}

size_t wcx_file_tensor_count(const struct wcx_file *file)
{
	return file->st->tensor_count;
}

int wcx_file_tensor(const struct wcx_file *file, size_t index, struct wcx_tensor_info *ret)
{
	const struct wcx_tensor *tensor;

	if (index >= file->st->tensor_count)
		return -EINVAL;
	tensor = &file->st->tensors[index];
	*ret = (struct wcx_tensor_info){
		.name = tensor->name,
		.dtype = tensor->dtype,
		.shape = tensor->shape,
		.dim_count = tensor->dim_count,
		.offset = tensor->offset,
		.bytes = tensor->bytes,
	};
	return 0;
}

ssize_t wcx_file_read(struct wcx_file *file, void *dst, size_t bytes, uint64_t offset, char *error, size_t error_bytes)
{
	struct wcx_error err = { "" };
	ssize_t n = wcx_image_read(file->image, dst, bytes, offset, &err);

	report(n < 0 ? -1 : 0, &err, error, error_bytes);
	return n;
}

/* --- loaders --- */

static int open_loader(int device, struct wcx_loader *loader, struct wcx_error *err)
{
	char reason[WCX_GPU_NAME_BYTES];
	const unsigned lanes = 2 * loader->threads;
	enum wcx_result result;

	loader->batches = calloc(lanes, sizeof *loader->batches);
	loader->turn = calloc(loader->threads, sizeof *loader->turn);
	if (!loader->batches || !loader->turn)
		return wcx_fail(err, ENOMEM, "no memory for a loader");
	result = wcx_gpu_loader_open(device, lanes, &loader->gpu, reason);
	if (result != WCX_OK)
		return wcx_fail(err, -wcx_result_errno(result), "GPU number %d: %s", device, reason);
	return 0;
}

int wcx_loader_open(int device, unsigned threads, struct wcx_loader **ret, char *error, size_t error_bytes)
{
	struct wcx_loader *loader = calloc(1, sizeof *loader);
	struct wcx_error err = { "" };
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	int r;

	if (threads > THREADS_LIMIT) {
		wcx_fail(&err, EINVAL, "%u threads: more than %d", threads, THREADS_LIMIT);
		free(loader);
		return report(-EINVAL, &err, error, error_bytes);
	}
	if (!threads)
		threads = cores > 0 && cores < MOST_THREADS ? (unsigned)cores : MOST_THREADS;
	if (loader)
		loader->threads = threads;
	r = loader ? open_loader(device, loader, &err) : wcx_fail(&err, ENOMEM, "no memory for a loader");
	if (r == 0)
		*ret = loader;
	else
		wcx_loader_close(loader);
	return report(r, &err, error, error_bytes);
}

void wcx_loader_close(struct wcx_loader *loader)
{
	if (!loader)
		return;
	wcx_gpu_loader_free(loader->gpu);
	free(loader->batches);
	free(loader->turn);
	free(loader);
}

/* --- what there is to do --- */

static int compare_spans(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return (x->from > y->from) - (x->from < y->from);
}

/* Makes spans of the targets that have bytes. */
static int make_spans(struct load *load, const struct wcx_target *targets, size_t count, struct wcx_error *err)
{
	const uint64_t file_bytes = wcx_file_bytes(load->file);
	const char *path = wcx_container_path(wcx_image_container(load->file->image));

	load->spans = calloc(count ? count : 1, sizeof *load->spans);
	if (!load->spans)
		return wcx_fail(err, ENOMEM, "%s: no memory for %zu ranges", path, count);
	for (size_t i = 0; i < count; i++) {
		if (targets[i].offset > file_bytes || targets[i].bytes > file_bytes - targets[i].offset)
			return wcx_fail(err, EINVAL, "%s: offset %llu, %llu bytes: not within the file", path,
					(unsigned long long)targets[i].offset, (unsigned long long)targets[i].bytes);
		if (targets[i].bytes)
			load->spans[load->span_count++] = (struct span){
				.from = targets[i].offset,
				.to = targets[i].offset + targets[i].bytes,
				.dst = (uint64_t)(uintptr_t)targets[i].dst,
			};
	}
	qsort(load->spans, load->span_count, sizeof *load->spans, compare_spans);
	for (size_t i = 1; i < load->span_count; i++)
		if (load->spans[i].from < load->spans[i - 1].to)
			return wcx_fail(err, EINVAL, "%s: offset %llu: ranges overlap", path,
					(unsigned long long)load->spans[i].from);
	return 0;
}

/* The first span that ends behind an offset. */
static size_t first_span(const struct load *load, uint64_t offset)
{
	size_t low = 0, high = load->span_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (load->spans[middle].to > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Adds tiles [first, end) of a segment, in pieces that are not too large. */
static int add_works(struct load *load, const struct wcx_segment *segment, uint64_t first, uint64_t end)
{
	const uint64_t tile_bytes = (uint64_t)segment->tile_rows * segment->tile_cols * segment->recipe.elem_bytes;
	const uint64_t tiles = tile_bytes < WORK_BYTES ? WORK_BYTES / tile_bytes : 1;

	for (; first < end; first += tiles) {
		if (load->work_count == load->work_room) {
			size_t room = load->work_room ? 2 * load->work_room : 64;
			struct work *works = realloc(load->works, room * sizeof *works);

			if (!works)
				return -ENOMEM;
			load->works = works;
			load->work_room = room;
		}
		load->works[load->work_count++] = (struct work){ segment, first, end - first < tiles ? end - first : tiles };
	}
	return 0;
}

/*
 * The tiles of a segment that may have bytes of [from, to), which lies in it.  Of tiles that are one row of elements each,
 * exactly those; otherwise whole rows of tiles, for in one of these what follows in the file may lie further left.  So
 * neither *first nor *end is less for a range that lies further on.
 */
static void tiles_of_range(const struct wcx_segment *segment, uint64_t from, uint64_t to, uint64_t *first, uint64_t *end)
{
	const uint64_t elem_bytes = segment->recipe.elem_bytes;
	const uint64_t first_elem = (from - segment->offset) / elem_bytes,
		       last_elem = (to - 1 - segment->offset) / elem_bytes;
	const uint64_t first_row = first_elem / segment->cols, last_row = last_elem / segment->cols;

	*first = segment->first_tile + first_row / segment->tile_rows * segment->tiles_across;
	*end = segment->first_tile + last_row / segment->tile_rows * segment->tiles_across;
	if (segment->rows > 1 && segment->tile_rows > 1) {
		*end += segment->tiles_across;
		return;
	}
	*first += first_elem % segment->cols / segment->tile_cols;
	*end += last_elem % segment->cols / segment->tile_cols + 1;
}

/* Finds all tiles that have bytes of the spans; those with bytes of several are taken once. */
static int make_works(struct load *load, struct wcx_error *err)
{
	const struct wcx_container *container = wcx_image_container(load->file->image);
	const struct wcx_segment *segments_end =
		wcx_container_segment(container, 0) + wcx_container_superblock(container)->segment_count;
	const struct wcx_segment *last_segment = NULL;
	uint64_t done = 0; /* tiles of last_segment below this are taken */
	int r = 0;

	for (size_t i = 0; i < load->span_count && r == 0; i++) {
		const struct span *span = &load->spans[i];
		const struct wcx_segment *segment =
			wcx_container_segment(container, wcx_container_segment_at(container, span->from));

		for (; segment < segments_end && segment->offset < span->to && r == 0; segment++) {
			const uint64_t segment_end = segment->offset + segment->bytes;
			uint64_t first, end;

			tiles_of_range(segment, span->from > segment->offset ? span->from : segment->offset,
				       span->to < segment_end ? span->to : segment_end, &first, &end);
			if (segment == last_segment && first < done)
				first = done;
			if (first < end)
				r = add_works(load, segment, first, end);
			last_segment = segment;
			done = end;
		}
	}
	return r ? wcx_fail(err, ENOMEM, "%s: no memory for a list of tiles", wcx_container_path(container)) : 0;
}

/* --- tiles --- */

/* Where the tile is to be, if all of it is to be in one piece; 0 otherwise. */
static uint64_t place_of_whole(const struct load *load, const struct wcx_segment *segment, const struct wcx_tile_info *info)
{
	const uint64_t from = wcx_tile_row_offset(segment, info, 0), to = from + wcx_tile_dims_bytes(&info->dims);
	const size_t s = first_span(load, from);

	if (!wcx_tile_is_contiguous(segment, info) || s == load->span_count || load->spans[s].from > from ||
	    load->spans[s].to < to)
		return 0;
	return load->spans[s].dst + (from - load->spans[s].from);
}

static int is_touched(const struct load *load, const struct wcx_segment *segment, const struct wcx_tile_info *info)
{
	const uint64_t row_bytes = (uint64_t)info->dims.cols * info->dims.elem_bytes;

	for (uint32_t y = 0; y < info->dims.rows; y++) {
		const uint64_t from = wcx_tile_row_offset(segment, info, y);
		const uint64_t to =
			wcx_tile_is_contiguous(segment, info) ? from + info->dims.rows * row_bytes : from + row_bytes;
		const size_t s = first_span(load, from);

		if (s < load->span_count && load->spans[s].from < to)
			return 1;
		if (wcx_tile_is_contiguous(segment, info))
			break;
	}
	return 0;
}

/* Whether every byte of a constant tile is the same. */
static int has_one_value(const struct wcx_tile_info *info)
{
	const uint32_t value = info->constant & 0xFF, elem_bytes = info->dims.elem_bytes;

	if (elem_bytes == 8)
		return info->constant == 0;
	return info->constant == (value * 0x01010101u & (UINT32_MAX >> (32 - 8 * elem_bytes)));
}

/* What becomes of a tile. */
static enum source choose_source(const struct load *load, const struct wcx_segment *segment,
				 const struct wcx_tile_info *info, uint64_t place)
{
	if (!place && !is_touched(load, segment, info))
		return SOURCE_NONE;
	if (info->mode == WCX_TILE_CODED)
		return place && place % wcx_word_bytes(info->dims.elem_bytes) == 0 ? SOURCE_DECODED : SOURCE_STAGE;
	return info->mode == WCX_TILE_CONSTANT && place && has_one_value(info) ? SOURCE_VALUE : SOURCE_BUFFER;
}

/* Whether the host restores the tile in the buffer, behind the packed tiles. */
static int is_literal(const struct batch_tile *tile)
{
	return tile->source == SOURCE_BUFFER && tile->info.mode != WCX_TILE_STORED;
}

static size_t align_up(size_t bytes, size_t align)
{
	return (bytes + align - 1) / align * align;
}

/* Takes tiles into the batch as long as buffer and stage have room, and gives those their places that are not packed. */
static void choose_tiles(const struct load *load, const struct work *work, uint64_t done, struct batch *batch,
			 size_t *packed_ret, size_t *buffer_ret)
{
	const struct wcx_container *container = wcx_image_container(load->file->image);
	size_t packed = 0, literals = 0, stage = 0;

	batch->segment = work->segment;
	batch->count = batch->coded_count = 0;
	for (; done + batch->count < work->tile_count && batch->count < BATCH_TILES; batch->count++) {
		struct batch_tile *tile = &batch->tiles[batch->count];
		size_t tile_bytes, start;

		wcx_container_tile(container, work->segment, work->first_tile + done + batch->count, &tile->info);
		tile_bytes = wcx_tile_dims_bytes(&tile->info.dims);
		tile->place = place_of_whole(load, work->segment, &tile->info);
		tile->source = choose_source(load, work->segment, &tile->info, tile->place);
		start = (size_t)(tile->info.packed_offset - batch->tiles[0].info.packed_offset);
		if (start + tile->info.packed_bytes + literals + (is_literal(tile) ? tile_bytes + LITERAL_ALIGN : 0) >
			    WCX_LOAD_BUFFER_BYTES - LITERAL_ALIGN ||
		    (tile->source == SOURCE_STAGE && stage + tile_bytes > WCX_LOAD_STAGE_BYTES))
			break;
		packed = start + tile->info.packed_bytes;
		tile->at = tile->source == SOURCE_STAGE ? stage : start;
		if (tile->source == SOURCE_STAGE)
			stage = align_up(stage + tile_bytes, STAGE_ALIGN);
		if (is_literal(tile))
			literals += align_up(tile_bytes, LITERAL_ALIGN);
	}
	*packed_ret = packed;
	*buffer_ret = align_up(packed, LITERAL_ALIGN);
	for (uint32_t i = 0; i < batch->count; i++) {
		if (!is_literal(&batch->tiles[i]))
			continue;
		batch->tiles[i].at = *buffer_ret;
		*buffer_ret += align_up(wcx_tile_dims_bytes(&batch->tiles[i].info.dims), LITERAL_ALIGN);
	}
}

static int fail_tile(const struct load *load, const struct wcx_segment *segment, const struct wcx_tile_info *info,
		     int errnum, struct wcx_error *err)
{
	const uint64_t row_bytes = (uint64_t)info->dims.cols * info->dims.elem_bytes;
	uint64_t start = 0; /* what lies between wanted tiles is read too, and can fail */

	/* What is wanted of the tile, so that the tensor that is named is one of those asked for. */
	for (uint32_t y = 0; y < info->dims.rows; y++) {
		const uint64_t from = wcx_tile_row_offset(segment, info, y);
		const size_t s = first_span(load, from);

		if (s < load->span_count && load->spans[s].from < from + row_bytes) {
			start = load->spans[s].from;
			break;
		}
	}
	return wcx_image_fail_tile(load->file->image, segment, info, start, errnum, err);
}

static int fail_gpu(const struct load *load, struct wcx_error *err)
{
	return wcx_fail(err, EIO, "%s: the GPU failed", wcx_container_path(wcx_image_container(load->file->image)));
}

/*
 * Reads the packed bytes of the batch's tiles to the start of the buffer, and checks them while they are in the core's
 * cache: so there is no more read at a time than that holds.
 */
static int read_tiles(const struct load *load, const struct batch *batch, size_t packed, uint8_t *buffer,
		      struct wcx_error *err)
{
	const int fd = wcx_container_fd(wcx_image_container(load->file->image));
	const uint64_t packed_offset = batch->tiles[0].info.packed_offset;
	size_t there = 0;

	for (uint32_t i = 0; i < batch->count; i++) {
		const struct wcx_tile_info *info = &batch->tiles[i].info;
		const size_t start = (size_t)(info->packed_offset - packed_offset), end = start + info->packed_bytes;

		while (there < end) {
			const size_t wanted = packed - there < READ_BYTES ? packed - there : READ_BYTES;
			const ssize_t n = wcx_read_at(fd, buffer + there, wanted, packed_offset + there);

			if (n <= 0)
				return fail_tile(load, batch->segment, info, n < 0 ? (int)n : -EBADMSG, err);
			there += (size_t)n;
		}
		if (batch->tiles[i].source != SOURCE_NONE && info->mode != WCX_TILE_CONSTANT &&
		    wcx_checksum32(buffer + start, info->packed_bytes) != info->checksum)
			return fail_tile(load, batch->segment, info, -EBADMSG, err);
	}
	return 0;
}

static struct wcx_tile_job make_job(const struct batch *batch, const struct wcx_tile_info *info, const uint8_t *buffer)
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

/* Restores a tile that the GPU does not decode. */
static int restore_literal(const struct load *load, const struct batch *batch, const struct batch_tile *tile,
			   uint8_t *buffer, struct wcx_error *err)
{
	struct wcx_decode_batch *lent = wcx_decoder_borrow(load->file->decoder);
	int errnum = -ENOMEM;

	if (lent) {
		lent->jobs[0] = make_job(batch, &tile->info, buffer);
		lent->jobs[0].dst = buffer + tile->at;
		wcx_decoder_run(load->file->decoder, lent, 1);
		errnum = wcx_result_errno(lent->jobs[0].result);
		wcx_decoder_return(load->file->decoder, lent);
	}
	return errnum ? fail_tile(load, batch->segment, &tile->info, errnum, err) : 0;
}

/* Adds the coded tiles to the lane's batch, and restores literals.  Cuts the batch short when the lane takes no more. */
static int add_tiles(const struct load *load, unsigned lane, struct batch *batch, uint8_t *buffer, struct wcx_error *err)
{
	struct wcx_gpu_loader *gpu = load->loader->gpu;
	uint64_t stage = 0;
	int r = 0;

	for (uint32_t i = 0; i < batch->count && r == 0; i++) {
		const struct batch_tile *tile = &batch->tiles[i];
		struct wcx_tile_job job = make_job(batch, &tile->info, buffer);
		enum wcx_result result;
		uint64_t dst;
		int added;

		if (is_literal(tile))
			r = restore_literal(load, batch, tile, buffer, err);
		if (tile->source != SOURCE_DECODED && tile->source != SOURCE_STAGE)
			continue;
		if (tile->source == SOURCE_STAGE && !stage)
			stage = wcx_gpu_load_stage(gpu, lane);
		dst = tile->source == SOURCE_STAGE ? stage + tile->at : tile->place;
		if (tile->source == SOURCE_STAGE && !stage)
			return wcx_fail(err, ENOMEM, "%s: no memory on the GPU for decoded tiles",
					wcx_container_path(wcx_image_container(load->file->image)));
		result = wcx_gpu_load_add(gpu, lane, &job, dst, &added);
		if (result != WCX_OK)
			return fail_tile(load, batch->segment, &tile->info, wcx_result_errno(result), err);
		if (added)
			batch->coded[batch->coded_count++] = i;
		else
			batch->count = i; /* the others are the next batch's */
	}
	return r;
}

/* Has the parts of a tile that are wanted copied from where it is. */
static enum wcx_result copy_tile(const struct load *load, unsigned lane, const struct wcx_segment *segment,
				 const struct batch_tile *tile)
{
	const struct wcx_tile_info *info = &tile->info;
	const size_t row_bytes = (size_t)info->dims.cols * info->dims.elem_bytes;
	const int one_run = wcx_tile_is_contiguous(segment, info);
	const uint32_t runs = one_run ? 1 : info->dims.rows;
	const size_t run_bytes = one_run ? row_bytes * info->dims.rows : row_bytes;
	enum wcx_result result = WCX_OK;

	for (uint32_t y = 0; y < runs; y++) {
		const uint64_t from = wcx_tile_row_offset(segment, info, y), to = from + run_bytes;

		for (size_t s = first_span(load, from); s < load->span_count && load->spans[s].from < to && result == WCX_OK;
		     s++) {
			const struct span *span = &load->spans[s];
			const uint64_t start = span->from > from ? span->from : from;
			const struct wcx_load_copy copy = {
				.dst = span->dst + (start - span->from),
				.staged = tile->source == SOURCE_STAGE,
				.src = tile->at + y * row_bytes + (size_t)(start - from),
				.row_bytes = (size_t)((span->to < to ? span->to : to) - start),
				.rows = 1,
			};

			result = wcx_gpu_load_copy(load->loader->gpu, lane, &copy);
		}
	}
	return result;
}

/* The same for a tile of a matrix that is all wanted, and in one place: row below row. */
static enum wcx_result copy_matrix_tile(const struct load *load, unsigned lane, const struct wcx_segment *segment,
					const struct batch_tile *tile)
{
	const struct wcx_tile_info *info = &tile->info;
	const size_t row_bytes = (size_t)info->dims.cols * info->dims.elem_bytes;
	const uint64_t from = wcx_tile_row_offset(segment, info, 0);
	const uint64_t to = wcx_tile_row_offset(segment, info, info->dims.rows - 1) + row_bytes;
	const size_t s = first_span(load, from);
	struct wcx_load_copy copy = {
		.staged = tile->source == SOURCE_STAGE,
		.src = tile->at,
		.row_bytes = row_bytes,
		.rows = info->dims.rows,
		.src_pitch = row_bytes,
		.dst_pitch = segment->cols * info->dims.elem_bytes,
	};

	if (wcx_tile_is_contiguous(segment, info) || copy.dst_pitch > INT32_MAX || s == load->span_count ||
	    load->spans[s].from > from || load->spans[s].to < to)
		return copy_tile(load, lane, segment, tile);
	copy.dst = load->spans[s].dst + (from - load->spans[s].from);
	return wcx_gpu_load_copy(load->loader->gpu, lane, &copy);
}

/* Brings what was not decoded in place to where it is wanted. */
static int place_tiles(const struct load *load, unsigned lane, const struct batch *batch, struct wcx_error *err)
{
	enum wcx_result result = WCX_OK;

	for (uint32_t i = 0; i < batch->count && result == WCX_OK; i++) {
		const struct batch_tile *tile = &batch->tiles[i];

		if (tile->source == SOURCE_VALUE)
			result = wcx_gpu_load_fill(load->loader->gpu, lane, tile->place, (uint8_t)tile->info.constant,
						   wcx_tile_dims_bytes(&tile->info.dims));
		else if (tile->source == SOURCE_STAGE || tile->source == SOURCE_BUFFER)
			result = copy_matrix_tile(load, lane, batch->segment, tile);
	}
	return result == WCX_OK ? 0 : fail_gpu(load, err);
}

/* Waits for a lane's batch, and says which tile of it did not decode. */
static int finish_lane(const struct load *load, unsigned lane, struct wcx_error *err)
{
	const struct batch *batch = &load->loader->batches[lane];
	uint32_t failed = 0;
	enum wcx_result result = wcx_gpu_load_wait(load->loader->gpu, lane, &failed);

	if (result == WCX_BAD_DATA)
		return fail_tile(load, batch->segment, &batch->tiles[batch->coded[failed]].info, -EBADMSG, err);
	return result == WCX_OK ? 0 : fail_gpu(load, err);
}

/* Loads one batch of a piece of work, from tile number *done of it on. */
static int load_batch(const struct load *load, unsigned lane, const struct work *work, uint64_t *done, struct wcx_error *err)
{
	struct batch *batch = &load->loader->batches[lane];
	uint8_t *buffer = wcx_gpu_load_buffer(load->loader->gpu, lane);
	size_t packed, used;
	int r = finish_lane(load, lane, err);

	if (r < 0)
		return r;
	choose_tiles(load, work, *done, batch, &packed, &used);
	r = read_tiles(load, batch, packed, buffer, err);
	if (r == 0)
		r = add_tiles(load, lane, batch, buffer, err);
	if (r < 0)
		return r;
	if (wcx_gpu_load_submit(load->loader->gpu, lane, used) != WCX_OK)
		return fail_gpu(load, err);
	*done += batch->count;
	return place_tiles(load, lane, batch, err);
}

static int do_work(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	const struct load *load = user;
	const struct work *work = &load->works[item];
	uint64_t done = 0;
	int r = 0;

	(void)loop;
	while (done < work->tile_count && r == 0)
		r = load_batch(load, 2 * worker + (load->loader->turn[worker]++ & 1), work, &done, err);
	return r;
}

/* Waits for all lanes; after an error, without asking what became of their batches. */
static int finish_lanes(const struct load *load, int r, struct wcx_error *err)
{
	for (unsigned lane = 0; lane < 2 * load->loader->threads; lane++) {
		int errnum = finish_lane(load, lane, r ? NULL : err);

		r = r ? r : errnum;
	}
	return r;
}

int wcx_load(struct wcx_loader *loader, struct wcx_file *file, const struct wcx_target *targets, size_t target_count,
	     void *stream, char *error, size_t error_bytes)
{
	struct load load = { .loader = loader, .file = file };
	struct wcx_error err = { "" };
	int r = make_spans(&load, targets, target_count, &err);

	if (r == 0)
		r = make_works(&load, &err);
	if (r == 0 && wcx_gpu_load_follow(loader->gpu, stream) != WCX_OK)
		r = fail_gpu(&load, &err);
	if (r == 0) {
		r = wcx_parallel_for(loader->threads, load.work_count, do_work, &load, NULL, &err);
		r = finish_lanes(&load, r, &err);
	}
	free(load.spans);
	free(load.works);
	return report(r, &err, error, error_bytes);
}
