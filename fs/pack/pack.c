/* SPDX-License-Identifier: MIT */
/*
 * Packs a file in groups of tensors, each in two passes: the first counts, the second encodes and verifies, while the group
 * is still in the page cache.  The output does not depend on the number of threads.
 */
#include "fs/pack/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/array.h"
#include "fs/base/file_io.h"
#include "fs/base/output_file.h"
#include "fs/base/parallel.h"
#include "fs/format/index_writer.h"
#include "fs/format/safetensors_file.h"
#include "fs/pack/digest_queue.h"
#include "fs/pack/pack_check.h"
#include "fs/pack/pack_index.h"
#include "fs/pack/pack_worker.h"

enum {
	GROUP_BYTES = 256 << 20,      /* of the original: small enough to stay in the page cache for the second pass */
	GROUP_PLANS = 256,            /* bounds the memory of the plans, some 140 KiB each while counting */
	POOL_MEMBER_BYTES = 32 << 10, /* tensors up to this size share segments */
	POOL_BYTES = 4 << 20,         /* the most they have in all */
	SAME_MIN_BYTES = 4 << 10,     /* segments from this size on are compared with earlier ones */
};

struct packer {
	const struct wcx_pack_options *options;
	const char *src_path;
	int src_fd;
	struct stat src_stat; /* when it was opened */
	struct wcx_safetensors *st;
	struct wcx_plan_reader reader; /* of the source */
	struct wcx_output_file output;
	struct wcx_pack_worker *workers; /* thread_count of them */

	/* The group. */
	struct wcx_tensor_plan *plans;
	size_t plan_count;
	struct wcx_pack_unit *units; /* in the order of the file; the items of the loops */
	size_t unit_count, unit_capacity;
	pthread_mutex_t counts_lock; /* protects the counts of the plans */

	struct wcx_base_matcher *matcher;     /* NULL: no bases */
	uint32_t base_numbers[WCX_BASES_MAX]; /* of options->bases, in the output; 0: not needed so far */
	uint32_t base_count;                  /* of these */
	uint64_t based_bytes;                 /* of the original, that are coded against bases */

	struct wcx_digest_queue
		*digest; /* what is put into it, in order, and what follows belong to the unit whose turn it is */
	struct wcx_pack_index index;
	uint64_t done_bytes, packed_bytes; /* of the original, encoded; of the output */
	uint8_t sha256[WCX_SHA256_BYTES];  /* of the original, at the end */
};

static int fail_on(struct wcx_error *err, const char *path, int errnum)
{
	return wcx_fail(err, errnum, "%s: %s", path, strerror(errnum));
}

static int no_memory(const struct packer *packer, struct wcx_error *err)
{
	return fail_on(err, packer->src_path, ENOMEM);
}

static int read_source(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const struct packer *packer = user;
	const int r = wcx_read_exact(packer->src_fd, dst, bytes, offset);

	if (r == -ENODATA)
		return wcx_fail(err, EIO, "%s: became shorter while it was packed, offset %llu", packer->src_path,
				(unsigned long long)offset);
	return r < 0 ? fail_on(err, packer->src_path, -r) : 0;
}

static int read_base(const void *user, uint32_t base, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const struct packer *packer = user;
	const ssize_t n = wcx_image_read_once(packer->options->bases[base - 1].image, dst, bytes, offset, err);

	return n < 0 ? (int)n : 0;
}

static int check_result(const struct packer *packer, enum wcx_result result, struct wcx_error *err)
{
	if (result == WCX_OK)
		return 0;
	return wcx_fail(err, -wcx_result_errno(result), "%s: the plan of a tensor is not valid", packer->src_path);
}

/* --- the first pass --- */

static int draft_plan(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	int r = wcx_tensor_plan_draft(&packer->plans[item], &packer->reader, packer->workers[worker].src,
				      packer->workers[worker].base, err);

	(void)loop;
	return r == -ENOMEM ? no_memory(packer, err) : r;
}

/* Cuts the tensors of the group into units. */
static int make_units(struct packer *packer, struct wcx_error *err)
{
	packer->unit_count = 0;
	for (size_t i = 0; i < packer->plan_count; i++) {
		struct wcx_tensor_plan *plan = &packer->plans[i];

		for (uint64_t tile = 0; tile < plan->segment.tile_count;) {
			struct wcx_pack_unit *grown = wcx_array_reserve(packer->units, &packer->unit_capacity,
									packer->unit_count + 1, sizeof *packer->units);

			if (!grown)
				return no_memory(packer, err);
			packer->units = grown;
			packer->units[packer->unit_count] = wcx_pack_unit_make(plan, tile);
			tile += packer->units[packer->unit_count++].tile_count;
		}
	}
	return 0;
}

static int count_unit(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	struct wcx_pack_unit part = wcx_pack_unit_counted(&packer->units[item]);
	uint8_t *src = packer->workers[worker].src;
	int r = wcx_pack_unit_read(&part, &packer->reader, src, err);

	(void)loop;
	if (r == 0)
		r = wcx_pack_unit_read_base(&part, &packer->reader, packer->workers[worker].base, err);
	if (r == 0)
		r = check_result(packer, wcx_pack_worker_count(&packer->workers[worker], &part, src), err);
	if (r < 0)
		return r;
	packer->units[item].checksum = part.checksum;
	pthread_mutex_lock(&packer->counts_lock);
	wcx_plan_counts_add(part.plan, &packer->workers[worker].counts);
	pthread_mutex_unlock(&packer->counts_lock);
	return 0;
}

/*
 * Whether all bytes of these units are also at same_offset, and not only those that were counted.  Sets the checksums of the
 * units to those of all their bytes.
 */
static int compare_units(struct packer *packer, struct wcx_pack_unit *units, size_t unit_count, uint64_t same_offset,
			 bool *equal_ret, struct wcx_error *err)
{
	uint8_t *bytes = packer->workers[0].src, *other = packer->workers[0].dst;

	*equal_ret = true;
	for (size_t u = 0; u < unit_count && *equal_ret; u++) {
		int r = read_source(packer, bytes, units[u].bytes, units[u].offset, err);

		if (r == 0)
			r = read_source(packer, other, units[u].bytes, same_offset + (units[u].offset - units->offset), err);
		if (r < 0)
			return r;
		units[u].checksum = wcx_checksum64(bytes, units[u].bytes);
		*equal_ret = memcmp(bytes, other, units[u].bytes) == 0;
	}
	return 0;
}

/*
 * Looks for an earlier segment with the content of these units, which are all of a plan.  If two checksums agree by chance,
 * wcx_pack_check fails, which compares all bytes of such a segment.
 */
static int find_same(struct packer *packer, struct wcx_pack_unit *units, size_t unit_count, struct wcx_error *err)
{
	struct wcx_segment *seg = &units->plan->segment;
	/* The units of the reference are no ranges: which bytes of the file they hold depends on the width of the matrix. */
	uint64_t chain[2] = { units->plan->is_reference ? seg->cols : 0 }, same_offset;
	bool equal = true;
	int r;

	if (seg->bytes < SAME_MIN_BYTES || seg->offset == 0)
		return 0;
	for (size_t u = 0; u < unit_count; u++) {
		chain[1] = units[u].checksum;
		chain[0] = wcx_checksum64(chain, sizeof chain);
	}
	r = wcx_pack_index_find_same(&packer->index, seg->offset, seg->bytes, chain[0], &seg->same_as, &same_offset);
	if (r < 0)
		return no_memory(packer, err);
	if (seg->same_as && wcx_tensor_plan_stride(units->plan) > 1)
		r = compare_units(packer, units, unit_count, same_offset, &equal, err);
	if (!equal)
		seg->same_as = 0;
	return r;
}

/* Names the base of a plan in the output's index, if the plan needs it. */
static int note_base(struct packer *packer, struct wcx_tensor_plan *plan, struct wcx_error *err)
{
	const struct wcx_pack_base *base = &packer->options->bases[plan->base.base - 1];
	uint32_t *number = &packer->base_numbers[plan->base.base - 1];
	const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(base->image));
	struct wcx_base entry = { .original_bytes = sb->original_bytes, .name = base->hint };

	if (!*number) {
		memcpy(entry.sha256, sb->sha256, sizeof entry.sha256);
		if (strlen(entry.name) > WCX_BASE_NAME_MAX_BYTES)
			entry.name = ""; /* found by its SHA-256 */
		if (wcx_pack_index_add_base(&packer->index, &entry) < 0)
			return no_memory(packer, err);
		*number = ++packer->base_count;
	}
	plan->segment.base = *number;
	plan->segment.base_offset = plan->base.offset;
	packer->based_bytes += plan->segment.bytes;
	return 0;
}

/* Finishes the plans of the group, whose segments enter the index. */
static int finish_plans(struct packer *packer, struct wcx_error *err)
{
	struct wcx_pack_unit *units = packer->units;
	int r = 0;

	for (size_t first = 0, after; first < packer->unit_count && r == 0; first = after) {
		for (after = first + 1; after < packer->unit_count && units[after].plan == units[first].plan;)
			after++;
		r = find_same(packer, units + first, after - first, err);
		if (r == 0 && wcx_tensor_plan_has_difference(units[first].plan) && !units[first].plan->segment.same_as)
			r = note_base(packer, units[first].plan, err);
		if (r == 0 && wcx_pack_index_add_segment(&packer->index, units[first].plan) < 0)
			r = no_memory(packer, err);
	}
	return r;
}

/* --- the second pass --- */

/* Adds a range of the source to the digest. */
static int digest_range(struct packer *packer, uint64_t offset, uint64_t bytes, struct wcx_error *err)
{
	while (bytes) {
		const size_t part = WCX_MIN(bytes, WCX_DIGEST_BLOCK_BYTES);
		uint8_t *buffer = wcx_digest_queue_take(packer->digest);
		int r = read_source(packer, buffer, part, offset, err);

		if (r < 0) {
			wcx_digest_queue_return(packer->digest, buffer);
			return r;
		}
		wcx_digest_queue_put(packer->digest, buffer, part);
		offset += part;
		bytes -= part;
	}
	return 0;
}

/*
 * The digest needs the bytes in order: of the reference, whose units are no ranges, it takes all with the first unit.  The
 * buffer src is the queue's afterwards.
 */
static int digest_unit(struct packer *packer, const struct wcx_pack_unit *unit, uint8_t *src, struct wcx_error *err)
{
	const struct wcx_segment *seg = &unit->plan->segment;

	if (!unit->plan->is_reference) {
		wcx_digest_queue_put(packer->digest, src, unit->bytes);
		return 0;
	}
	wcx_digest_queue_return(packer->digest, src);
	return unit->first_tile ? 0 : digest_range(packer, seg->offset, seg->bytes, err);
}

/*
 * Does what has to be done in the order of the file: the digest, which takes src, the place in the output, the entries of
 * the index.
 */
static int place_unit(struct packer *packer, const struct wcx_pack_unit *unit, const struct wcx_pack_worker *worker,
		      uint8_t *src, uint64_t packed_bytes, struct wcx_error *err)
{
	const struct wcx_job_options *job = &packer->options->job;
	int r = digest_unit(packer, unit, src, err);

	if (r < 0)
		return r;
	if (!unit->plan->segment.same_as && wcx_pack_index_add_tiles(&packer->index, worker->tiles, unit->tile_count) < 0)
		return no_memory(packer, err);
	packer->packed_bytes += packed_bytes;
	packer->done_bytes += unit->bytes;
	if (job->progress)
		job->progress(job->user, "packing", packer->done_bytes, packer->st->file_bytes);
	return 0;
}

/* Encodes a unit, and decodes it again: the bytes that the digest will get must come out. */
static int encode_verified(struct packer *packer, const struct wcx_pack_unit *unit, struct wcx_pack_worker *worker,
			   const uint8_t *src, uint64_t *packed_bytes_ret, struct wcx_error *err)
{
	struct wcx_tile_dims dims;
	uint64_t bad_tile, offset;
	int r = check_result(packer, wcx_pack_worker_encode(worker, unit, src, packed_bytes_ret), err);

	if (r < 0)
		return r;
	wcx_pack_worker_verify(worker, unit, src, &bad_tile);
	if (bad_tile == unit->tile_count)
		return 0;
	wcx_tensor_plan_tile(unit->plan, unit->first_tile + bad_tile, &dims, &offset);
	return wcx_fail(err, EBADMSG, "%s: offset %llu: the packed tile does not decode to the original bytes",
			packer->src_path, (unsigned long long)offset);
}

/* A unit that is not encoded must still be what was compared with an earlier segment. */
static int check_same(const struct packer *packer, const struct wcx_pack_unit *unit, const uint8_t *src,
		      struct wcx_error *err)
{
	if (wcx_checksum64(src, unit->bytes) == unit->checksum)
		return 0;
	return wcx_fail(err, EBUSY, "%s: changed while it was packed", packer->src_path);
}

static int encode_unit(void *user, struct wcx_parallel *loop, unsigned worker_index, uint64_t item, struct wcx_error *err)
{
	struct packer *packer = user;
	const struct wcx_pack_unit *unit = &packer->units[item];
	struct wcx_pack_worker *worker = &packer->workers[worker_index];
	uint8_t *src = wcx_digest_queue_take(packer->digest);
	uint64_t packed_bytes = 0, output_offset;
	int r = wcx_pack_unit_read(unit, &packer->reader, src, err);

	if (r == 0 && !unit->plan->segment.same_as)
		r = wcx_pack_unit_read_base(unit, &packer->reader, worker->base, err);
	if (r == 0)
		r = unit->plan->segment.same_as ? check_same(packer, unit, src, err)
						: encode_verified(packer, unit, worker, src, &packed_bytes, err);
	if (r == 0)
		r = wcx_parallel_enter(loop, item);
	if (r < 0) {
		wcx_digest_queue_return(packer->digest, src);
		return r;
	}
	output_offset = packer->packed_bytes;
	r = place_unit(packer, unit, worker, src, packed_bytes, err);
	if (r < 0)
		return r;
	wcx_parallel_leave(loop);
	r = wcx_output_write(&packer->output, worker->dst, packed_bytes, output_offset, err);
	wcx_output_start_sync(&packer->output, packed_bytes, output_offset);
	return r;
}

/* --- groups --- */

/* Both passes over the plans of the group, which is empty afterwards. */
static int pack_group(struct packer *packer, struct wcx_error *err)
{
	const struct wcx_core_share *share = packer->options->job.share;
	unsigned threads = packer->options->job.thread_count;
	const atomic_bool *stop = packer->options->job.stop;
	int r = wcx_parallel_for_shared(share, threads, packer->plan_count, draft_plan, packer, stop, err);

	if (r == 0)
		r = make_units(packer, err);
	if (r == 0)
		r = wcx_parallel_for_shared(share, threads, packer->unit_count, count_unit, packer, stop, err);
	if (r == 0)
		r = finish_plans(packer, err);
	if (r == 0)
		r = wcx_parallel_for_shared(share, threads, packer->unit_count, encode_unit, packer, stop, err);
	for (size_t i = 0; i < packer->plan_count; i++)
		wcx_tensor_plan_free(&packer->plans[i]);
	packer->plan_count = 0;
	return r;
}

/*
 * How many tensors from `first` on share a segment: small ones of one dtype, with empty ones between them.  *bytes_ret is
 * their size.
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

/*
 * Finds what the tensors of a segment may be coded against: the base's tensor of the same name, or one that begins with the
 * same bytes.  Tensors that share a segment must follow each other in the base as they do here.
 */
static int find_base(struct packer *packer, const struct wcx_tensor *tensors, size_t count, struct wcx_base_range *ret,
		     struct wcx_error *err)
{
	uint8_t head[WCX_MATCH_BYTES];
	bool found;
	int r;

	*ret = (struct wcx_base_range){ 0 };
	if (!packer->matcher)
		return 0;
	found = wcx_base_match_name(packer->matcher, tensors, ret);
	if (count == 1 && !found && tensors->bytes >= SAME_MIN_BYTES) {
		r = read_source(packer, head, sizeof head, tensors->offset, err);
		if (r == 0)
			r = wcx_base_match_contents(packer->matcher, tensors, head, ret, err);
		return r == -ENOMEM ? no_memory(packer, err) : WCX_MIN(r, 0);
	}
	for (size_t i = 1; i < count && found; i++) {
		struct wcx_base_range next;

		if (tensors[i].bytes)
			found = wcx_base_match_name(packer->matcher, &tensors[i], &next) && next.base == ret->base &&
				next.offset - ret->offset == tensors[i].offset - tensors->offset;
	}
	if (!found)
		ret->base = 0;
	return 0;
}

static int pack_segments(struct packer *packer, struct wcx_error *err)
{
	const bool is_reference = packer->options->is_reference;
	const struct wcx_safetensors *st = packer->st;
	uint64_t group_bytes = st->header_bytes, bytes;
	int r = 0;

	wcx_tensor_plan_init(&packer->plans[packer->plan_count++], 0, st->header_bytes, NULL, false, is_reference);
	for (size_t i = 0, length; i < st->tensor_count && r == 0; i += length) {
		const struct wcx_tensor *tensor = &st->tensors[i];

		length = 1;
		if (!tensor->bytes)
			continue;
		length = pool_length(packer, i, &bytes);
		if (packer->plan_count == GROUP_PLANS || group_bytes >= GROUP_BYTES) {
			r = pack_group(packer, err);
			group_bytes = 0;
		}
		wcx_tensor_plan_init(&packer->plans[packer->plan_count], tensor->offset, bytes, tensor,
				     tensor->bytes < bytes, is_reference);
		packer->plans[packer->plan_count].for_speed = packer->options->for_speed && !is_reference;
		if (r == 0)
			r = find_base(packer, tensor, length, &packer->plans[packer->plan_count].base, err);
		packer->plan_count++;
		group_bytes += bytes;
	}
	return r < 0 ? r : pack_group(packer, err);
}

/* --- the files around them --- */

static int open_source(struct packer *packer, const char *path, struct wcx_error *err)
{
	packer->src_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* must not wait for a FIFO */
	if (packer->src_fd < 0 || fstat(packer->src_fd, &packer->src_stat) < 0)
		return fail_on(err, packer->src_path, errno);
	if (!S_ISREG(packer->src_stat.st_mode))
		return wcx_fail(err, EINVAL, "%s: not a regular file", packer->src_path);
	return 0;
}

static int check_source_unchanged(const struct packer *packer, struct wcx_error *err)
{
	const struct stat *then = &packer->src_stat;
	struct stat now;

	if (fstat(packer->src_fd, &now) < 0)
		return fail_on(err, packer->src_path, errno);
	if (now.st_size != then->st_size || now.st_mtim.tv_sec != then->st_mtim.tv_sec ||
	    now.st_mtim.tv_nsec != then->st_mtim.tv_nsec)
		return wcx_fail(err, EBUSY, "%s: changed while it was packed", packer->src_path);
	return 0;
}

static int allocate(struct packer *packer, struct wcx_error *err)
{
	const struct wcx_pack_variants variants = wcx_pack_variants_choose();

	const struct wcx_pack_options *options = packer->options;
	const bool has_bases = options->base_count && !options->is_reference;

	packer->matcher = has_bases ? wcx_base_matcher_create(options->bases, options->base_count) : NULL;
	packer->plans = calloc(GROUP_PLANS, sizeof *packer->plans);
	packer->workers = calloc(packer->options->job.thread_count, sizeof *packer->workers);
	packer->digest = wcx_digest_queue_create(packer->options->job.thread_count, packer->st->file_bytes);
	if (!packer->plans || !packer->workers || !packer->digest || (has_bases && !packer->matcher))
		return no_memory(packer, err);
	for (unsigned i = 0; i < packer->options->job.thread_count; i++)
		if (!wcx_pack_worker_open(&packer->workers[i], &variants))
			return no_memory(packer, err);
	return 0;
}

static int write_index(struct packer *packer, struct wcx_error *err)
{
	struct wcx_superblock sb = {
		.original_bytes = packer->st->file_bytes,
		.index_offset = packer->packed_bytes,
	};
	uint8_t block[WCX_SUPERBLOCK_BYTES], *bytes = NULL;
	int r = wcx_pack_index_join(&packer->index, &sb, &bytes);

	if (r == -EFBIG)
		return wcx_fail(err, EFBIG, "%s: too large for one .wcx file", packer->src_path);
	if (r < 0)
		return no_memory(packer, err);
	r = wcx_digest_queue_finish(packer->digest, sb.sha256);
	if (r < 0) {
		free(bytes);
		return no_memory(packer, err);
	}
	wcx_superblock_write(&sb, block);
	r = wcx_output_write(&packer->output, bytes, sb.index_bytes, sb.index_offset, err);
	if (r == 0)
		r = wcx_output_write(&packer->output, block, sizeof block, 0, err);
	free(bytes);
	packer->packed_bytes = sb.packed_bytes;
	memcpy(packer->sha256, sb.sha256, sizeof packer->sha256);
	return r;
}

static const char *shown_output(const struct packer *packer)
{
	const char *shown = packer->options->job.shown_dst;

	return shown ? shown : packer->output.options.path;
}

/* Has the bases noted that the output needs: if the system crashes, none of them looks as if nothing did. */
static void tell_needs(const struct packer *packer)
{
	for (size_t i = 0; i < WCX_BASES_MAX && packer->options->needs; i++)
		if (packer->base_numbers[i])
			packer->options->needs(packer->options->needs_user, i);
}

static int make_output(struct packer *packer, struct wcx_error *err)
{
	int r = pack_segments(packer, err);

	if (r == 0)
		r = write_index(packer, err);
	if (r == 0)
		r = wcx_pack_check(packer->output.fd, shown_output(packer), &packer->reader, packer->options, err);
	if (r == 0)
		r = check_source_unchanged(packer, err);
	if (r < 0)
		return r;
	tell_needs(packer);
	return wcx_output_commit(&packer->output, err);
}

static void free_packer(struct packer *packer)
{
	for (unsigned i = 0; packer->workers && i < packer->options->job.thread_count; i++)
		wcx_pack_worker_close(&packer->workers[i]);
	free(packer->workers);
	free(packer->plans);
	free(packer->units);
	wcx_pack_index_free(&packer->index);
	wcx_base_matcher_free(packer->matcher);
	wcx_digest_queue_free(packer->digest);
	pthread_mutex_destroy(&packer->counts_lock);
	wcx_safetensors_free(packer->st);
	if (packer->src_fd >= 0)
		close(packer->src_fd);
}

static int create_output(struct packer *packer, const char *dst_path, struct wcx_error *err)
{
	const struct wcx_job_options *job = &packer->options->job;
	const struct wcx_output_options output = {
		.path = dst_path,
		.shown_path = job->shown_dst,
		.source_fd = packer->src_fd,
		.replace = job->replace,
		.is_tidy = job->is_tidy,
		.warn = job->warn,
		.user = job->user,
	};

	return wcx_output_create(&packer->output, &output, err);
}

int wcx_pack(const char *src_path, const char *dst_path, const struct wcx_pack_options *options, struct wcx_pack_result *ret,
	     struct wcx_error *err)
{
	struct packer packer = {
		.options = options,
		.src_path = options->shown_src ? options->shown_src : src_path,
		.src_fd = -1,
		.reader = { read_source, read_base, &packer },
		.packed_bytes = WCX_SUPERBLOCK_BYTES,
	};
	int r;

	pthread_mutex_init(&packer.counts_lock, NULL);
	r = open_source(&packer, src_path, err);
	if (r == 0)
		r = wcx_safetensors_read(packer.src_fd, packer.src_path, (uint64_t)packer.src_stat.st_size, &packer.st, err);
	if (r == 0)
		r = allocate(&packer, err);
	if (r == 0)
		r = create_output(&packer, dst_path, err);
	if (r == 0) {
		r = make_output(&packer, err);
		if (r < 0)
			wcx_output_discard(&packer.output);
	}
	if (r == 0) {
		*ret = (struct wcx_pack_result){ .original_bytes = packer.st->file_bytes,
						 .packed_bytes = packer.packed_bytes,
						 .based_bytes = packer.based_bytes,
						 .base_count = packer.base_count };
		memcpy(ret->sha256, packer.sha256, sizeof ret->sha256);
	}
	free_packer(&packer);
	return r;
}
