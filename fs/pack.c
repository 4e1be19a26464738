/* SPDX-License-Identifier: MIT */
/*
 * Packs a file in two passes over groups of tensors: the first counts, the second encodes, while the group is still in the
 * page cache.  What is written does not depend on the number of threads.
 */
#include "fs/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/container.h"
#include "fs/export.h"
#include "fs/file_io.h"
#include "fs/output_file.h"
#include "fs/parallel.h"
#include "fs/safetensors.h"
#include "fs/tensor_plan.h"

enum {
	GROUP_BYTES = 256 << 20, /* of the original: small enough to be read from the page cache the second time */
	GROUP_TENSORS = 1024,    /* bounds the memory of the plans, 4 KiB each and up to 32 KiB while counting */
	UNIT_BYTES = 1 << 20,    /* what a thread takes at a time; a tile is never larger */
	UNIT_TILES = 32,
	TENSOR_TABLES_MAX_BYTES = WCX_PLANES_MAX * WCX_FREQ_TABLE_MAX_BYTES,
	VERIFY_CACHE_BYTES = 64 << 20,
};

/* Neighbouring tiles of one tensor, the item of the parallel loops: UNIT_BYTES and UNIT_TILES at most. */
struct unit {
	size_t plan; /* index in the group */
	uint64_t first_tile, tile_count;
	uint64_t offset, bytes; /* in the original */
};

/* One thread's memory. */
struct room {
	uint8_t *src; /* UNIT_BYTES */
	uint8_t *dst; /* the same for the packed tiles, and what aligns them */
	struct wcx_encode_scratch *scratch;
	struct wcx_tile_info tiles[UNIT_TILES];
	struct wcx_predictor_trial trial;
};

struct packer {
	const struct wcx_pack_options *options;
	const char *src_path;
	int src_fd;
	struct stat src_stat;
	struct wcx_output_file output;
	struct wcx_safetensors *st;
	struct room *rooms; /* thread_count of them */

	struct wcx_tensor_plan *plans; /* of the group */
	size_t plan_count;
	struct unit *units;
	size_t unit_count;
	pthread_mutex_t counts_lock; /* protects the counts of the group's plans */

	uint8_t *segments, *tables, *entries; /* the index as it grows; entries belong to the unit whose turn it is */
	size_t segment_count, table_count, table_bytes, tables_room, entries_room;
	uint64_t tile_count;
	uint64_t done_bytes, packed_bytes; /* of the original encoded; of the output. These too belong to the unit in turn */
	EVP_MD_CTX *digest;
};

static int fail_on(struct wcx_error *err, const char *path, int errnum)
{
	return wcx_fail(err, errnum, "%s: %s", path, strerror(errnum));
}

static int no_memory(const struct packer *packer, struct wcx_error *err)
{
	return fail_on(err, packer->src_path, ENOMEM);
}

static int read_source(const struct packer *packer, uint8_t *dst, uint64_t bytes, uint64_t offset, struct wcx_error *err)
{
	ssize_t n = wcx_read_at(packer->src_fd, dst, bytes, offset);

	if (n < 0)
		return fail_on(err, packer->src_path, (int)-n);
	if ((uint64_t)n < bytes)
		return wcx_fail(err, EIO, "%s: became shorter while it was packed, offset %llu", packer->src_path,
				(unsigned long long)(offset + (uint64_t)n));
	return 0;
}

/* Makes room for `more` bytes at the end of a growing array. */
static int reserve(uint8_t **array, size_t *room, size_t used, size_t more)
{
	size_t wanted = *room ? *room : 4096;
	uint8_t *larger;

	if (more <= *room - used)
		return 0;
	while (wanted - used < more)
		wanted *= 2;
	larger = realloc(*array, wanted);
	if (!larger)
		return -ENOMEM;
	*array = larger;
	*room = wanted;
	return 0;
}

/* --- the first pass --- */

static int choose_plan(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	struct room *room = &packer->rooms[worker];
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	unsigned count = wcx_tensor_plan_samples(&packer->plans[item], samples);

	(void)loop;
	memset(&room->trial, 0, sizeof room->trial);
	for (unsigned i = 0; i < count; i++) {
		int r = read_source(packer, room->src, wcx_tile_shape_bytes(&samples[i].shape), samples[i].offset, err);

		if (r < 0)
			return r;
		wcx_trial_add(&room->trial, &samples[i], room->src, room->scratch);
	}
	if (wcx_tensor_plan_choose(&packer->plans[item], &room->trial) != WCX_OK)
		return no_memory(packer, err);
	return 0;
}

static int count_unit(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	const struct unit *unit = &packer->units[item];
	struct wcx_tensor_plan *plan = &packer->plans[unit->plan];
	struct room *room = &packer->rooms[worker];
	uint64_t residuals[WCX_PLANES_MAX][WCX_SYMBOL_COUNT] = { { 0 } };
	uint64_t originals[WCX_PLANES_MAX][WCX_SYMBOL_COUNT] = { { 0 } };
	int r = read_source(packer, room->src, unit->bytes, unit->offset, err);

	(void)loop;
	if (r < 0)
		return r;
	for (uint64_t i = 0; i < unit->tile_count; i++) {
		struct wcx_tile_shape shape;
		uint64_t offset;

		wcx_tensor_plan_tile(plan, unit->first_tile + i, &shape, &offset);
		wcx_tensor_plan_count(plan, &shape, room->src + (offset - unit->offset), room->scratch, residuals,
				      originals);
	}
	pthread_mutex_lock(&packer->counts_lock);
	for (uint32_t p = 0; p < plan->segment.elem_bytes; p++) {
		for (int s = 0; s < WCX_SYMBOL_COUNT; s++) {
			plan->residuals[p][s] += residuals[p][s];
			plan->originals[p][s] += originals[p][s];
		}
	}
	pthread_mutex_unlock(&packer->counts_lock);
	return 0;
}

/* Ends the planning of a tensor: its tables and its segment go into the index. */
static int finish_plan(struct packer *packer, struct wcx_tensor_plan *plan, struct wcx_error *err)
{
	wcx_tensor_plan_finish(plan);
	if (reserve(&packer->tables, &packer->tables_room, packer->table_bytes, TENSOR_TABLES_MAX_BYTES) < 0)
		return no_memory(packer, err);
	plan->segment.first_table = plan->segment.table_mask ? (uint32_t)packer->table_count : 0;
	for (uint32_t p = 0; p < plan->segment.elem_bytes; p++) {
		if (plan->planes[p].coding != WCX_PLANE_RANS)
			continue;
		packer->table_bytes += wcx_freq_table_write(&plan->planes[p].table, packer->tables + packer->table_bytes);
		packer->table_count++;
	}
	wcx_segment_write(&plan->segment, packer->segments + packer->segment_count++ * WCX_SEGMENT_BYTES);
	return 0;
}

/* Tiles in a unit of this tensor. */
static uint64_t unit_tiles(const struct wcx_tensor_plan *plan)
{
	struct wcx_tile_shape shape;
	uint64_t offset, tiles;

	wcx_tensor_plan_tile(plan, 0, &shape, &offset);
	tiles = UNIT_BYTES / wcx_tile_shape_bytes(&shape);
	return tiles < UNIT_TILES ? tiles : UNIT_TILES;
}

static void make_unit(const struct packer *packer, size_t plan_index, uint64_t first_tile, struct unit *ret)
{
	const struct wcx_tensor_plan *plan = &packer->plans[plan_index];
	uint64_t tiles = plan->segment.tile_count - first_tile, most = unit_tiles(plan);
	uint64_t end = plan->segment.offset + plan->segment.bytes;
	struct wcx_tile_shape shape;

	*ret = (struct unit){ .plan = plan_index, .first_tile = first_tile, .tile_count = tiles < most ? tiles : most };
	wcx_tensor_plan_tile(plan, first_tile, &shape, &ret->offset);
	if (tiles > most)
		wcx_tensor_plan_tile(plan, first_tile + most, &shape, &end);
	ret->bytes = end - ret->offset;
}

/* Cuts the group's tensors into units. */
static int make_units(struct packer *packer, struct wcx_error *err)
{
	size_t count = 0;

	for (size_t i = 0; i < packer->plan_count; i++) {
		uint64_t most = unit_tiles(&packer->plans[i]);

		count += (packer->plans[i].segment.tile_count + most - 1) / most;
	}
	free(packer->units);
	packer->unit_count = 0;
	packer->units = calloc(count, sizeof *packer->units);
	if (!packer->units)
		return no_memory(packer, err);
	for (size_t i = 0; i < packer->plan_count; i++)
		for (uint64_t tile = 0; tile < packer->plans[i].segment.tile_count; tile += unit_tiles(&packer->plans[i]))
			make_unit(packer, i, tile, &packer->units[packer->unit_count++]);
	return 0;
}

/* --- the second pass --- */

/* Encodes a unit's tiles side by side into room->dst, with offsets counted from there; returns the bytes. */
static uint64_t encode_tiles(const struct wcx_tensor_plan *plan, const struct unit *unit, struct room *room)
{
	uint64_t used = 0;

	for (uint64_t i = 0; i < unit->tile_count; i++) {
		struct wcx_tile_info *tile = &room->tiles[i];
		uint64_t offset;
		size_t bytes;

		*tile = (struct wcx_tile_info){ .packed_offset = used };
		wcx_tensor_plan_tile(plan, unit->first_tile + i, &tile->shape, &offset);
		wcx_tile_encode(&tile->shape, room->src + (offset - unit->offset), plan->planes, room->scratch,
				room->dst + used, &tile->mode, &bytes, &tile->constant);
		tile->packed_bytes = (uint32_t)bytes;
		if (tile->mode != WCX_TILE_CONSTANT)
			tile->checksum = wcx_checksum32(room->dst + used, bytes);
		memset(room->dst + used + bytes, 0, wcx_tile_align_up(used + bytes) - (used + bytes));
		used = wcx_tile_align_up(used + bytes);
	}
	return used;
}

/* What has to happen in the order of the file: the digest, the place in the output, the entries in the index. */
static int place_unit(struct packer *packer, const struct unit *unit, struct room *room, uint64_t packed_bytes,
		      struct wcx_error *err)
{
	size_t used = packer->tile_count * WCX_TILE_ENTRY_BYTES, more = unit->tile_count * WCX_TILE_ENTRY_BYTES;

	if (reserve(&packer->entries, &packer->entries_room, used, more) < 0 ||
	    EVP_DigestUpdate(packer->digest, room->src, unit->bytes) != 1)
		return no_memory(packer, err);
	for (uint64_t i = 0; i < unit->tile_count; i++) {
		room->tiles[i].packed_offset += packer->packed_bytes;
		wcx_tile_entry_write(&room->tiles[i], packer->entries + used + i * WCX_TILE_ENTRY_BYTES);
	}
	packer->tile_count += unit->tile_count;
	packer->packed_bytes += packed_bytes;
	packer->done_bytes += unit->bytes;
	if (packer->options->progress)
		packer->options->progress(packer->options->user, "packing", packer->done_bytes, packer->st->file_bytes);
	return 0;
}

static int encode_unit(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	const struct unit *unit = &packer->units[item];
	struct room *room = &packer->rooms[worker];
	uint64_t packed_bytes, output_offset;
	int r = read_source(packer, room->src, unit->bytes, unit->offset, err);

	if (r < 0)
		return r;
	packed_bytes = encode_tiles(&packer->plans[unit->plan], unit, room);
	r = wcx_parallel_enter(loop, item);
	if (r < 0)
		return r;
	output_offset = packer->packed_bytes;
	r = place_unit(packer, unit, room, packed_bytes, err);
	if (r < 0)
		return r;
	wcx_parallel_leave(loop);
	return wcx_output_write(&packer->output, room->dst, packed_bytes, output_offset, err);
}

/* Both passes over the plans of a group. */
static int pack_group(struct packer *packer, struct wcx_error *err)
{
	unsigned threads = packer->options->thread_count;
	const volatile int *stop = packer->options->stop;
	int r = wcx_parallel_for(threads, packer->plan_count, choose_plan, packer, stop, err);

	if (r == 0)
		r = make_units(packer, err);
	if (r == 0)
		r = wcx_parallel_for(threads, packer->unit_count, count_unit, packer, stop, err);
	for (size_t i = 0; i < packer->plan_count && r == 0; i++)
		r = finish_plan(packer, &packer->plans[i], err);
	if (r == 0)
		r = wcx_parallel_for(threads, packer->unit_count, encode_unit, packer, stop, err);
	for (size_t i = 0; i < packer->plan_count; i++)
		wcx_tensor_plan_free(&packer->plans[i]);
	packer->plan_count = 0;
	return r;
}

static int pack_segments(struct packer *packer, struct wcx_error *err)
{
	uint64_t group_bytes = packer->st->header_bytes;
	int r = 0;

	wcx_tensor_plan_init(&packer->plans[packer->plan_count++], 0, packer->st->header_bytes, NULL);
	for (size_t i = 0; i < packer->st->tensor_count && r == 0; i++) {
		const struct wcx_tensor *tensor = &packer->st->tensors[i];

		if (!tensor->bytes)
			continue;
		if (packer->plan_count == GROUP_TENSORS || group_bytes >= GROUP_BYTES) {
			r = pack_group(packer, err);
			group_bytes = 0;
		}
		wcx_tensor_plan_init(&packer->plans[packer->plan_count++], tensor->offset, tensor->bytes, tensor);
		group_bytes += tensor->bytes;
	}
	return r < 0 ? r : pack_group(packer, err);
}

/* --- the file around it --- */

static int read_header(struct packer *packer, struct wcx_error *err)
{
	uint8_t first[WCX_SAFETENSORS_LENGTH_BYTES] = { 0 };
	uint64_t file_bytes = (uint64_t)packer->src_stat.st_size, json_bytes;
	uint8_t *json;
	int r = read_source(packer, first, file_bytes < sizeof first ? file_bytes : sizeof first, 0, err);

	if (r == 0)
		r = wcx_safetensors_json_bytes(packer->src_path, first, file_bytes, &json_bytes, err);
	if (r < 0)
		return r;
	json = malloc(json_bytes ? json_bytes : 1);
	if (!json)
		return no_memory(packer, err);
	r = read_source(packer, json, json_bytes, sizeof first, err);
	if (r == 0)
		r = wcx_safetensors_parse(packer->src_path, (const char *)json, json_bytes, file_bytes, &packer->st, err);
	free(json);
	return r;
}

static int open_source(struct packer *packer, struct wcx_error *err)
{
	packer->src_fd = open(packer->src_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (packer->src_fd < 0 || fstat(packer->src_fd, &packer->src_stat) < 0)
		return fail_on(err, packer->src_path, errno);
	if (!S_ISREG(packer->src_stat.st_mode))
		return wcx_fail(err, EINVAL, "%s: not a regular file", packer->src_path);
	return 0;
}

static int allocate(struct packer *packer, struct wcx_error *err)
{
	unsigned threads = packer->options->thread_count;

	packer->plans = calloc(GROUP_TENSORS, sizeof *packer->plans);
	packer->segments = malloc((packer->st->tensor_count + 1) * WCX_SEGMENT_BYTES);
	packer->rooms = calloc(threads, sizeof *packer->rooms);
	packer->digest = EVP_MD_CTX_new();
	if (!packer->plans || !packer->segments || !packer->rooms || !packer->digest ||
	    EVP_DigestInit_ex(packer->digest, EVP_sha256(), NULL) != 1)
		return no_memory(packer, err);
	for (unsigned i = 0; i < threads; i++) {
		struct room *room = &packer->rooms[i];

		room->src = malloc(UNIT_BYTES);
		room->dst = malloc(UNIT_BYTES + UNIT_TILES * WCX_TILE_ALIGN);
		room->scratch = wcx_encode_scratch_create();
		if (!room->src || !room->dst || !room->scratch)
			return no_memory(packer, err);
	}
	return 0;
}

static int write_index(struct packer *packer, struct wcx_error *err)
{
	size_t segments = packer->segment_count * WCX_SEGMENT_BYTES, entries = packer->tile_count * WCX_TILE_ENTRY_BYTES;
	struct wcx_superblock sb = {
		.original_bytes = packer->st->file_bytes,
		.index_offset = packer->packed_bytes,
		.index_bytes = segments + entries + packer->table_bytes,
		.segment_count = (uint32_t)packer->segment_count,
		.table_count = (uint32_t)packer->table_count,
		.tile_count = packer->tile_count,
		.table_bytes = packer->table_bytes,
	};
	uint8_t block[WCX_SUPERBLOCK_BYTES], *index;
	int r;

	if (sb.index_bytes > WCX_MAX_INDEX_BYTES)
		return wcx_fail(err, EFBIG, "%s: too large for one .wcx file", packer->src_path);
	index = malloc(sb.index_bytes);
	if (!index)
		return no_memory(packer, err);
	memcpy(index, packer->segments, segments);
	memcpy(index + segments, packer->entries, entries);
	memcpy(index + segments + entries, packer->tables, packer->table_bytes);
	sb.packed_bytes = sb.index_offset + sb.index_bytes;
	sb.index_checksum = wcx_checksum64(index, sb.index_bytes);
	EVP_DigestFinal_ex(packer->digest, sb.sha256, NULL);
	wcx_superblock_write(&sb, block);
	r = wcx_output_write(&packer->output, index, sb.index_bytes, sb.index_offset, err);
	if (r == 0)
		r = wcx_output_write(&packer->output, block, sizeof block, 0, err);
	free(index);
	packer->packed_bytes = sb.packed_bytes;
	return r;
}

static void report_verifying(void *user, uint64_t done, uint64_t total)
{
	struct packer *packer = user;

	if (packer->options->progress)
		packer->options->progress(packer->options->user, "verifying", done, total);
}

/* Reads all that was written back through the decoder; the digest tells whether it is the source. */
static int verify_output(struct packer *packer, struct wcx_error *err)
{
	static const struct wcx_export_ops ops = { .progress = report_verifying };
	struct wcx_tile_cache *cache = wcx_tile_cache_create(VERIFY_CACHE_BYTES);
	struct wcx_decoder *decoder = NULL;
	struct wcx_image *image = NULL;
	int fd = fcntl(packer->output.fd, F_DUPFD_CLOEXEC, 0);
	int r = 0;

	if (fd < 0)
		r = fail_on(err, packer->output.path, errno);
	else if (!cache)
		r = no_memory(packer, err);
	if (r == 0)
		r = wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &decoder, err);
	if (r == 0)
		r = wcx_image_open(fd, packer->output.path, cache, decoder, &image, err);
	if (r == 0)
		r = wcx_verify(image, packer->options->thread_count, &ops, packer, packer->options->stop, err);
	if (!image && fd >= 0)
		close(fd);
	wcx_image_put(image);
	wcx_decoder_free(decoder);
	wcx_tile_cache_free(cache);
	return r;
}

static int check_source_unchanged(const struct packer *packer, struct wcx_error *err)
{
	struct stat now;

	if (fstat(packer->src_fd, &now) < 0)
		return fail_on(err, packer->src_path, errno);
	if (now.st_size != packer->src_stat.st_size || now.st_mtim.tv_sec != packer->src_stat.st_mtim.tv_sec ||
	    now.st_mtim.tv_nsec != packer->src_stat.st_mtim.tv_nsec)
		return wcx_fail(err, EBUSY, "%s: changed while it was packed", packer->src_path);
	return 0;
}

static int make_output(struct packer *packer, struct wcx_error *err)
{
	int r = pack_segments(packer, err);

	if (r == 0)
		r = write_index(packer, err);
	if (r == 0)
		r = verify_output(packer, err);
	if (r == 0)
		r = check_source_unchanged(packer, err);
	return r == 0 ? wcx_output_commit(&packer->output, err) : r;
}

static void free_packer(struct packer *packer)
{
	for (unsigned i = 0; packer->rooms && i < packer->options->thread_count; i++) {
		free(packer->rooms[i].src);
		free(packer->rooms[i].dst);
		wcx_encode_scratch_free(packer->rooms[i].scratch);
	}
	free(packer->rooms);
	free(packer->plans);
	free(packer->units);
	free(packer->segments);
	free(packer->tables);
	free(packer->entries);
	EVP_MD_CTX_free(packer->digest);
	wcx_safetensors_free(packer->st);
	pthread_mutex_destroy(&packer->counts_lock);
	if (packer->src_fd >= 0)
		close(packer->src_fd);
}

int wcx_pack(const char *src_path, const char *dst_path, const struct wcx_pack_options *options, struct wcx_pack_result *ret,
	     struct wcx_error *err)
{
	struct packer packer = {
		.options = options, .src_path = src_path, .src_fd = -1, .packed_bytes = WCX_SUPERBLOCK_BYTES
	};
	int r;

	pthread_mutex_init(&packer.counts_lock, NULL);
	r = open_source(&packer, err);
	if (r == 0)
		r = read_header(&packer, err);
	if (r == 0)
		r = allocate(&packer, err);
	if (r == 0)
		r = wcx_output_create(&packer.output, dst_path, &packer.src_stat, options->replace, err);
	if (r == 0) {
		r = make_output(&packer, err);
		if (r < 0)
			wcx_output_discard(&packer.output);
	}
	if (r == 0)
		*ret = (struct wcx_pack_result){ .original_bytes = packer.st->file_bytes,
						 .packed_bytes = packer.packed_bytes };
	free_packer(&packer);
	return r;
}
