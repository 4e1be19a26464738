/* SPDX-License-Identifier: MIT */
/*
 * Packs a file in two passes over groups of tensors: the first counts, the second encodes, while the group is still in the
 * page cache.  What is written does not depend on the number of threads.
 */
#include "fs/pack/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "fs/base/file_io.h"
#include "fs/base/output_file.h"
#include "fs/base/parallel.h"
#include "fs/format/container.h"
#include "fs/format/index_writer.h"
#include "fs/format/safetensors.h"
#include "fs/pack/tensor_plan.h"
#include "fs/read/export.h"

enum {
	GROUP_BYTES = 256 << 20, /* of the original: small enough to be read from the page cache the second time */
	GROUP_PLANS = 256,       /* bounds the memory of the plans, some 140 KiB each while counting */
	UNIT_BYTES = 1 << 20,    /* what a thread takes at a time; a tile is never larger */
	UNIT_TILES = 32,
	ROOM_SRC_BYTES = WCX_SAMPLES_MAX_BYTES,
	POOL_MEMBER_BYTES = 32 << 10, /* tensors up to this share segments */
	POOL_BYTES = 4 << 20,         /* what they add up to at most */
	TWIN_MIN_BYTES = 4 << 10,     /* segments from here on are compared with those before */
	ZSTD_HEADER_LEVEL = 19,       /* headers are small */
	ZSTD_TENSOR_LEVEL = 9,
	VERIFY_CACHE_BYTES = 64 << 20,
};

_Static_assert((int)ROOM_SRC_BYTES >= (int)UNIT_BYTES, "a room holds a unit");

/* Neighbouring tiles of one tensor, the item of the parallel loops: UNIT_BYTES and UNIT_TILES at most. */
struct unit {
	size_t plan; /* index in the group */
	uint64_t first_tile, tile_count;
	uint64_t offset, bytes; /* in the original */
	uint64_t checksum;
};

/* One thread's memory. */
struct room {
	uint8_t *src; /* ROOM_SRC_BYTES: a unit, or the samples of a plan */
	uint8_t *dst; /* UNIT_BYTES for the packed tiles, and what aligns them */
	struct wcx_encode_scratch *scratch;
	ZSTD_CCtx *zstd;
	uint8_t *zstd_dst; /* UNIT_BYTES */
	struct wcx_tile_info tiles[UNIT_TILES];
	struct wcx_plan_counts counts;
};

/* A segment's content, by which another one with the same is recognised. */
struct twin {
	uint64_t bytes, checksum;
	uint32_t segment;
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
	size_t plans_unit[GROUP_PLANS + 1]; /* the first unit of each plan, and where those of the last end */
	pthread_mutex_t counts_lock;        /* protects the counts of the group's plans */

	/* The index as it grows; entries belong to the unit whose turn it is. */
	uint8_t *segments, *fields, *tables, *entries;
	size_t segment_count, field_count, table_bytes, fields_room, tables_room, entries_room;
	struct wcx_table_library library;
	void *twins; /* a tree of struct twin */
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

static int read_unit(const struct packer *packer, const struct unit *unit, struct room *room, struct wcx_error *err)
{
	const struct wcx_tensor_plan *plan = &packer->plans[unit->plan];
	struct wcx_tile_dims dims;
	uint64_t offset;
	int r = 0;

	if (!plan->is_reference)
		return read_source(packer, room->src, unit->bytes, unit->offset, err);
	wcx_tensor_plan_tile(plan, unit->first_tile, &dims, &offset);
	for (uint32_t y = 0; y < dims.rows && r == 0; y++)
		r = read_source(packer, room->src + (size_t)y * dims.cols, dims.cols, offset + y * plan->segment.cols, err);
	return r;
}

/* --- the first pass --- */

static int choose_plan(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	struct wcx_sample samples[WCX_SAMPLES_MAX];
	unsigned count = wcx_tensor_plan_samples(&packer->plans[item], samples);
	uint8_t *src = packer->rooms[worker].src;

	(void)loop;
	for (unsigned i = 0; i < count; i++) {
		size_t bytes = wcx_tile_dims_bytes(&samples[i].dims);
		int r = read_source(packer, src, bytes, samples[i].offset, err);

		if (r < 0)
			return r;
		samples[i].src = src;
		src += bytes;
	}
	if (wcx_tensor_plan_choose(&packer->plans[item], samples, count) != WCX_OK)
		return no_memory(packer, err);
	return 0;
}

static int count_unit(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	struct unit *unit = &packer->units[item];
	struct wcx_tensor_plan *plan = &packer->plans[unit->plan];
	struct room *room = &packer->rooms[worker];
	int r = read_unit(packer, unit, room, err);

	(void)loop;
	if (r < 0)
		return r;
	memset(&room->counts, 0, sizeof room->counts);
	for (uint64_t i = 0; i < unit->tile_count; i++) {
		struct wcx_tile_dims dims;
		uint64_t offset;

		wcx_tensor_plan_tile(plan, unit->first_tile + i, &dims, &offset);
		wcx_tensor_plan_count(plan, &dims, room->src + (offset - unit->offset), room->scratch, &room->counts);
	}
	unit->checksum = wcx_checksum64(room->src, unit->bytes);
	pthread_mutex_lock(&packer->counts_lock);
	wcx_plan_counts_add(plan, &room->counts);
	pthread_mutex_unlock(&packer->counts_lock);
	return 0;
}

static int compare_twins(const void *a, const void *b)
{
	const struct twin *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? -1 : 1;
	return (x->checksum > y->checksum) - (x->checksum < y->checksum);
}

/*
 * Looks for an earlier segment with the same content; *same_as_ret gets its number, or 0 and this one is remembered.  Should
 * two checksums agree by chance, verifying the output finds it.
 */
static int find_twin(struct packer *packer, size_t plan_index, uint32_t *same_as_ret, struct wcx_error *err)
{
	const struct wcx_tensor_plan *plan = &packer->plans[plan_index];
	/* The reference's units are no ranges: which bytes of the file they are depends on the width of the matrix. */
	uint64_t chain[2] = { plan->is_reference ? plan->segment.cols : 0 };
	struct twin *twin, **found;

	*same_as_ret = 0;
	if (plan->segment.bytes < TWIN_MIN_BYTES || packer->segment_count == 0)
		return 0;
	for (size_t u = packer->plans_unit[plan_index]; u < packer->plans_unit[plan_index + 1]; u++) {
		chain[1] = packer->units[u].checksum;
		chain[0] = wcx_checksum64(chain, sizeof chain);
	}
	twin = malloc(sizeof *twin);
	if (!twin)
		return no_memory(packer, err);
	*twin = (struct twin){ plan->segment.bytes, chain[0], (uint32_t)packer->segment_count };
	found = tsearch(twin, &packer->twins, compare_twins);
	if (!found) {
		free(twin);
		return no_memory(packer, err);
	}
	if (*found != twin) {
		*same_as_ret = (*found)->segment;
		free(twin);
	}
	return 0;
}

/* Writes the recipe of a plan into the index, with the tables that are new. */
static int add_recipe(struct packer *packer, const struct wcx_tensor_plan *plan, const uint32_t first_table[WCX_FIELDS_MAX],
		      struct wcx_error *err)
{
	for (uint32_t f = 0; f < plan->segment.recipe.field_count; f++) {
		const struct wcx_field *field = &plan->fields[f];

		if (reserve(&packer->fields, &packer->fields_room, packer->field_count * WCX_FIELD_BYTES, WCX_FIELD_BYTES) <
			    0 ||
		    reserve(&packer->tables, &packer->tables_room, packer->table_bytes,
			    WCX_FIELD_TABLES_MAX * WCX_FREQ_TABLE_MAX_BYTES) < 0)
			return no_memory(packer, err);
		wcx_field_write(field, first_table[f], packer->fields + packer->field_count++ * WCX_FIELD_BYTES);
		if (!field->table_count || first_table[f] < packer->library.table_count)
			continue;
		for (uint32_t t = 0; t < field->table_count; t++)
			packer->table_bytes += wcx_freq_table_write(&field->tables[t], packer->tables + packer->table_bytes);
		wcx_table_library_add(&packer->library, field);
	}
	return 0;
}

/* Ends the planning of a tensor: its segment and what goes with it enter the index. */
static int finish_plan(struct packer *packer, size_t plan_index, struct wcx_error *err)
{
	struct wcx_tensor_plan *plan = &packer->plans[plan_index];
	uint32_t first_table[WCX_FIELDS_MAX];
	int r = find_twin(packer, plan_index, &plan->segment.same_as, err);

	if (r == 0 && !plan->segment.same_as) {
		wcx_tensor_plan_finish(plan, &packer->library, first_table);
		r = add_recipe(packer, plan, first_table, err);
	}
	if (r == 0)
		wcx_segment_write(&plan->segment, packer->segments + packer->segment_count++ * WCX_SEGMENT_BYTES);
	return r;
}

/* Tiles in a unit of this tensor.  The reference's are no ranges of bytes: they are taken one by one. */
static uint64_t unit_tiles(const struct wcx_tensor_plan *plan)
{
	struct wcx_tile_dims dims;
	uint64_t offset, tiles;

	if (plan->is_reference)
		return 1;
	wcx_tensor_plan_tile(plan, 0, &dims, &offset);
	tiles = UNIT_BYTES / wcx_tile_dims_bytes(&dims);
	return tiles < UNIT_TILES ? tiles : UNIT_TILES;
}

static void make_unit(const struct packer *packer, size_t plan_index, uint64_t first_tile, struct unit *ret)
{
	const struct wcx_tensor_plan *plan = &packer->plans[plan_index];
	uint64_t tiles = plan->segment.tile_count - first_tile, most = unit_tiles(plan);
	uint64_t end = plan->segment.offset + plan->segment.bytes;
	struct wcx_tile_dims dims;

	*ret = (struct unit){ .plan = plan_index, .first_tile = first_tile, .tile_count = tiles < most ? tiles : most };
	wcx_tensor_plan_tile(plan, first_tile, &dims, &ret->offset);
	if (tiles > most)
		wcx_tensor_plan_tile(plan, first_tile + most, &(struct wcx_tile_dims){ 0 }, &end);
	ret->bytes = plan->is_reference ? wcx_tile_dims_bytes(&dims) : end - ret->offset;
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
	for (size_t i = 0; i < packer->plan_count; i++) {
		packer->plans_unit[i] = packer->unit_count;
		for (uint64_t tile = 0; tile < packer->plans[i].segment.tile_count; tile += unit_tiles(&packer->plans[i]))
			make_unit(packer, i, tile, &packer->units[packer->unit_count++]);
	}
	packer->plans_unit[packer->plan_count] = packer->unit_count;
	return 0;
}

/* --- the second pass --- */

/* Compresses a tile with Zstandard where that is smaller than what it has been packed into. */
static void try_zstd(const struct wcx_tensor_plan *plan, const uint8_t *src, struct room *room, uint8_t *dst,
		     struct wcx_tile_info *tile)
{
	size_t tile_bytes = wcx_tile_dims_bytes(&tile->dims);
	uint8_t *frame = room->zstd_dst;
	int level = plan->segment.offset == 0 ? ZSTD_HEADER_LEVEL : ZSTD_TENSOR_LEVEL;
	size_t bytes = ZSTD_compressCCtx(room->zstd, frame, UNIT_BYTES, src, tile_bytes, level);

	if (ZSTD_isError(bytes) || bytes >= tile->packed_bytes)
		return;
	memcpy(dst, frame, bytes);
	tile->mode = WCX_TILE_ZSTD;
	tile->packed_bytes = (uint32_t)bytes;
}

/* Encodes a unit's tiles side by side into room->dst, with offsets counted from there; returns the bytes. */
static uint64_t encode_tiles(const struct wcx_tensor_plan *plan, const struct unit *unit, struct room *room)
{
	uint64_t used = 0;

	for (uint64_t i = 0; i < unit->tile_count; i++) {
		struct wcx_tile_info *tile = &room->tiles[i];
		uint8_t *dst = room->dst + used;
		struct wcx_encoded_tile encoded;
		uint64_t offset, end;

		*tile = (struct wcx_tile_info){ .packed_offset = used };
		wcx_tensor_plan_tile(plan, unit->first_tile + i, &tile->dims, &offset);
		wcx_tile_encode(&tile->dims, room->src + (offset - unit->offset), &plan->segment.recipe, room->scratch, dst,
				&encoded);
		tile->mode = encoded.mode;
		tile->constant = encoded.constant;
		tile->packed_bytes = (uint32_t)encoded.bytes;
		if (plan->tries_zstd && tile->mode != WCX_TILE_CONSTANT)
			try_zstd(plan, room->src + (offset - unit->offset), room, dst, tile);
		if (tile->mode != WCX_TILE_CONSTANT)
			tile->checksum = wcx_checksum32(dst, tile->packed_bytes);
		end = used + tile->packed_bytes;
		used = wcx_tile_align_up(end);
		memset(room->dst + end, 0, used - end);
	}
	return used;
}

/* Adds a range of the source to the digest, which wants it in order: for units that are not ranges. */
static int digest_range(struct packer *packer, uint64_t offset, uint64_t bytes, uint8_t *buffer, struct wcx_error *err)
{
	while (bytes) {
		size_t part = bytes < UNIT_BYTES ? (size_t)bytes : UNIT_BYTES;
		int r = read_source(packer, buffer, part, offset, err);

		if (r < 0)
			return r;
		if (EVP_DigestUpdate(packer->digest, buffer, part) != 1)
			return no_memory(packer, err);
		offset += part;
		bytes -= part;
	}
	return 0;
}

static int digest_unit(struct packer *packer, const struct unit *unit, struct room *room, struct wcx_error *err)
{
	const struct wcx_tensor_plan *plan = &packer->plans[unit->plan];

	if (plan->is_reference)
		return unit->first_tile ? 0
					: digest_range(packer, plan->segment.offset, plan->segment.bytes, room->src, err);
	return EVP_DigestUpdate(packer->digest, room->src, unit->bytes) == 1 ? 0 : no_memory(packer, err);
}

/* What has to happen in the order of the file: the digest, the place in the output, the entries in the index. */
static int place_unit(struct packer *packer, const struct unit *unit, struct room *room, uint64_t packed_bytes,
		      struct wcx_error *err)
{
	size_t used = packer->tile_count * WCX_TILE_ENTRY_BYTES, more = unit->tile_count * WCX_TILE_ENTRY_BYTES;
	int is_twin = packer->plans[unit->plan].segment.same_as != 0, r;

	r = digest_unit(packer, unit, room, err);
	if (r < 0)
		return r;
	if (!is_twin && reserve(&packer->entries, &packer->entries_room, used, more) < 0)
		return no_memory(packer, err);
	for (uint64_t i = 0; i < unit->tile_count && !is_twin; i++)
		wcx_tile_entry_write(&room->tiles[i], packer->entries + used + i * WCX_TILE_ENTRY_BYTES);
	packer->tile_count += is_twin ? 0 : unit->tile_count;
	packer->packed_bytes += packed_bytes;
	packer->done_bytes += unit->bytes;
	if (packer->options->job.progress)
		packer->options->job.progress(packer->options->job.user, "packing", packer->done_bytes,
					      packer->st->file_bytes);
	return 0;
}

static int encode_unit(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	const struct unit *unit = &packer->units[item];
	struct room *room = &packer->rooms[worker];
	uint64_t packed_bytes, output_offset;
	int r = read_unit(packer, unit, room, err);

	if (r < 0)
		return r;
	packed_bytes = packer->plans[unit->plan].segment.same_as ? 0 : encode_tiles(&packer->plans[unit->plan], unit, room);
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
	unsigned threads = packer->options->job.thread_count;
	const atomic_bool *stop = packer->options->job.stop;
	int r = wcx_parallel_for(threads, packer->plan_count, choose_plan, packer, stop, err);

	if (r == 0)
		r = make_units(packer, err);
	if (r == 0)
		r = wcx_parallel_for(threads, packer->unit_count, count_unit, packer, stop, err);
	for (size_t i = 0; i < packer->plan_count && r == 0; i++)
		r = finish_plan(packer, i, err);
	if (r == 0)
		r = wcx_parallel_for(threads, packer->unit_count, encode_unit, packer, stop, err);
	for (size_t i = 0; i < packer->plan_count; i++)
		wcx_tensor_plan_free(&packer->plans[i]);
	packer->plan_count = 0;
	return r;
}

/*
 * How many tensors from number first on share a segment: small ones of a dtype, with those between them that have no data.
 * *bytes_ret gets what they have together.
 */
static size_t pool_length(const struct packer *packer, size_t first, uint64_t *bytes_ret)
{
	const struct wcx_tensor *tensors = packer->st->tensors;
	size_t after = first;

	*bytes_ret = 0;
	do {
		*bytes_ret += tensors[after].bytes;
		after++;
	} while (!packer->options->is_reference && after < packer->st->tensor_count &&
		 tensors[first].bytes <= POOL_MEMBER_BYTES && tensors[after].bytes <= POOL_MEMBER_BYTES &&
		 *bytes_ret + tensors[after].bytes <= POOL_BYTES && strcmp(tensors[first].dtype, tensors[after].dtype) == 0);
	return after - first;
}

static int pack_segments(struct packer *packer, struct wcx_error *err)
{
	const struct wcx_tensor *tensors = packer->st->tensors;
	uint64_t group_bytes = packer->st->header_bytes, bytes;
	int r = 0;

	wcx_tensor_plan_init(&packer->plans[packer->plan_count++], 0, packer->st->header_bytes, NULL, 0,
			     packer->options->is_reference);
	for (size_t i = 0, length; i < packer->st->tensor_count && r == 0; i += length) {
		length = 1;
		if (!tensors[i].bytes)
			continue;
		length = pool_length(packer, i, &bytes);
		if (packer->plan_count == GROUP_PLANS || group_bytes >= GROUP_BYTES) {
			r = pack_group(packer, err);
			group_bytes = 0;
		}
		wcx_tensor_plan_init(&packer->plans[packer->plan_count++], tensors[i].offset, bytes, &tensors[i],
				     tensors[i].bytes < bytes, packer->options->is_reference);
		group_bytes += bytes;
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
	unsigned threads = packer->options->job.thread_count;

	packer->plans = calloc(GROUP_PLANS, sizeof *packer->plans);
	packer->segments = malloc((packer->st->tensor_count + 1) * WCX_SEGMENT_BYTES);
	packer->rooms = calloc(threads, sizeof *packer->rooms);
	packer->digest = EVP_MD_CTX_new();
	if (!packer->plans || !packer->segments || !packer->rooms || !packer->digest ||
	    EVP_DigestInit_ex(packer->digest, EVP_sha256(), NULL) != 1)
		return no_memory(packer, err);
	for (unsigned i = 0; i < threads; i++) {
		struct room *room = &packer->rooms[i];

		room->src = malloc(ROOM_SRC_BYTES);
		room->dst = malloc(UNIT_BYTES + UNIT_TILES * WCX_TILE_ALIGN);
		room->zstd_dst = malloc(UNIT_BYTES);
		room->zstd = ZSTD_createCCtx();
		room->scratch = wcx_encode_scratch_create();
		if (!room->src || !room->dst || !room->zstd_dst || !room->zstd || !room->scratch)
			return no_memory(packer, err);
	}
	return 0;
}

static int write_index(struct packer *packer, struct wcx_error *err)
{
	const struct {
		const uint8_t *src;
		size_t bytes;
	} parts[] = {
		{ packer->segments, packer->segment_count * WCX_SEGMENT_BYTES },
		{ packer->fields, packer->field_count * WCX_FIELD_BYTES },
		{ packer->entries, packer->tile_count * WCX_TILE_ENTRY_BYTES },
		{ packer->tables, packer->table_bytes },
	};
	struct wcx_superblock sb = {
		.original_bytes = packer->st->file_bytes,
		.index_offset = packer->packed_bytes,
		.segment_count = (uint32_t)packer->segment_count,
		.field_count = (uint32_t)packer->field_count,
		.table_count = packer->library.table_count,
		.tile_count = packer->tile_count,
		.table_bytes = packer->table_bytes,
	};
	uint8_t block[WCX_SUPERBLOCK_BYTES], *index, *end;
	int r;

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		sb.index_bytes += parts[i].bytes;
	if (sb.index_bytes > WCX_MAX_INDEX_BYTES)
		return wcx_fail(err, EFBIG, "%s: too large for one .wcx file", packer->src_path);
	index = end = malloc(sb.index_bytes);
	if (!index)
		return no_memory(packer, err);
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		if (parts[i].bytes)
			memcpy(end, parts[i].src, parts[i].bytes);
		end += parts[i].bytes;
	}
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

	if (packer->options->job.progress)
		packer->options->job.progress(packer->options->job.user, "verifying", done, total);
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
		r = wcx_verify(image, packer->options->job.thread_count, &ops, packer, packer->options->job.stop, err);
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
	for (unsigned i = 0; packer->rooms && i < packer->options->job.thread_count; i++) {
		free(packer->rooms[i].src);
		free(packer->rooms[i].dst);
		free(packer->rooms[i].zstd_dst);
		ZSTD_freeCCtx(packer->rooms[i].zstd);
		wcx_encode_scratch_free(packer->rooms[i].scratch);
	}
	free(packer->rooms);
	free(packer->plans);
	free(packer->units);
	tdestroy(packer->twins, free);
	free(packer->segments);
	free(packer->fields);
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
		r = wcx_output_create(&packer.output, dst_path, &packer.src_stat, options->job.replace, err);
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
