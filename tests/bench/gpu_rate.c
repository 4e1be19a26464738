/* SPDX-License-Identifier: MIT */
/*
 * Times decoding on the GPU, and alternately a peer if the program was built with one.
 *
 *	gpu_rate [--mib N] [--latency] [--host] [--base BASE.wcx] FILE.wcx ...
 *
 * Takes a file's coded tiles of the most common element size (by bytes), repeats them to N MiB (default 1024), and decodes
 * them from device memory to device memory as one batch.  --latency instead decodes the first 64 KiB and the first 1 MiB
 * alone; --host decodes from host memory to host memory with 1 to 16 threads.  All bytes are compared with the CPU's before
 * anything is timed.
 *
 * --base takes the tiles that are differences from this base.  The coded tiles of the base are then decoded on the device,
 * too, in the same batch, and both are also timed alone.
 *
 * The peer is the ANS codec of nvCOMP, if CMake was given -DWCX_NVCOMP=DIR with DIR/include/nvcomp/ans.h and DIR/lib64.  It
 * codes the same bytes in chunks of several sizes, as float16 or float32 where elements have two or four bytes, and else as
 *char; of one byte as e4m3, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"
#include "codec/tile.h"
#include "cuda/gpu_timing.h"
#include "cuda/gpu_decode.h"
#include "fs/format/container.h"
#include "fs/read/image_bases.h"
#include "tests/bench/gpu_peer.h"
#include "tests/bench/measure.h"

enum {
	ROUNDS = 15,
	MAX_THREADS = 16,
	EXIT_SKIPPED = 77,
};

static _Noreturn void die(const char *path, const char *what)
{
	fprintf(stderr, "gpu_rate: %s: %s\n", path, what);
	exit(1);
}

static void *must_alloc(size_t bytes)
{
	void *memory = malloc(bytes ? bytes : 1);

	if (!memory)
		die("memory", strerror(ENOMEM));
	return memory;
}

/* The tiles of a file that are timed. */
struct tile_set {
	const char *path;
	struct wcx_container *container;
	uint32_t elem_bytes;
	size_t count, decoded_bytes, packed_bytes;
	struct wcx_tile_job *jobs;
	uint8_t *original, *decoded, *packed;
	const struct base *base; /* of differences, or NULL */
};

/* A base: its original bytes, and jobs that decode its coded tiles to there. */
struct base {
	const char *path;
	struct wcx_container *container;
	uint8_t *bytes, *packed;
	size_t byte_count, job_count;
	struct wcx_tile_job *jobs;
};

static struct wcx_container *open_file(const char *path)
{
	struct wcx_container *container = NULL;
	struct wcx_error err = { "" };
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die(path, strerror(errno));
	if (wcx_container_open(fd, path, &container, &err) < 0)
		die("file", err.text);
	return container;
}

/* Decodes the base but for tiles that Zstandard has packed, and keeps the jobs of coded tiles that are contiguous. */
static void base_load(struct base *base, const char *path)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());
	const struct wcx_superblock *sb;
	uint8_t *packed;

	*base = (struct base){ .path = path, .container = open_file(path) };
	sb = wcx_container_superblock(base->container);
	base->byte_count = (size_t)sb->original_bytes;
	base->bytes = must_alloc(base->byte_count);
	base->packed = packed = must_alloc((size_t)sb->packed_bytes);
	base->jobs = must_alloc((size_t)sb->tile_count * sizeof *base->jobs);
	if (!scratch ||
	    pread(wcx_container_fd(base->container), packed, (size_t)sb->packed_bytes, 0) < (ssize_t)sb->index_offset)
		die(path, "cannot read the base");
	for (size_t s = 0; s < sb->segment_count; s++) {
		const struct wcx_segment *segment = wcx_container_segment(base->container, s);

		for (uint64_t t = 0; t < segment->tile_count && !segment->same_as; t++) {
			struct wcx_tile_info info;
			struct wcx_tile_job *job = &base->jobs[base->job_count];

			wcx_container_tile(base->container, segment, segment->first_tile + t, &info);
			*job = (struct wcx_tile_job){
				.dims = info.dims,
				.mode = info.mode,
				.constant = info.constant,
				.recipe = &segment->recipe,
				.src = packed + info.packed_offset,
				.src_bytes = info.packed_bytes,
				.dst = base->bytes + wcx_tile_row_offset(segment, &info, 0),
				.dst_bytes = wcx_tile_dims_bytes(&info.dims),
			};
			if (info.mode == WCX_TILE_ZSTD || (info.dims.rows > 1 && info.dims.cols != segment->cols))
				continue;
			if (wcx_tile_decode(job, scratch) != WCX_OK)
				die(path, "a tile of the base does not decode");
			base->job_count += info.mode == WCX_TILE_CODED && (size_t)(job->dst - base->bytes) % 8 == 0;
		}
	}
	wcx_decode_scratch_free(scratch);
}

static void base_free(struct base *base)
{
	free(base->bytes);
	free(base->packed);
	free(base->jobs);
	wcx_container_free(base->container);
}

/* Calls fn for every coded tile with this element size that is, or is not, a difference. */
static void for_each_tile(struct tile_set *set, uint32_t elem_bytes,
			  void (*fn)(struct tile_set *, const struct wcx_segment *, const struct wcx_tile_info *))
{
	const struct wcx_container *container = set->container;
	struct wcx_tile_info info;

	for (size_t s = 0; s < wcx_container_superblock(container)->segment_count; s++) {
		const struct wcx_segment *segment = wcx_container_segment(container, s);

		for (uint64_t t = 0; t < segment->tile_count && !segment->same_as; t++) {
			wcx_container_tile(container, segment, segment->first_tile + t, &info);
			if (info.mode == WCX_TILE_CODED && info.dims.elem_bytes == elem_bytes &&
			    (segment->recipe.difference != WCX_DIFFERENCE_NONE) == (set->base != NULL))
				fn(set, segment, &info);
		}
	}
}

static void count_tile(struct tile_set *set, const struct wcx_segment *segment, const struct wcx_tile_info *info)
{
	(void)segment;
	set->count++;
	set->decoded_bytes += wcx_tile_dims_bytes(&info->dims);
	set->packed_bytes += info->packed_bytes;
}

/* Appends a tile: reads its packed bytes and makes a job. */
static void read_tile(struct tile_set *set, const struct wcx_segment *segment, const struct wcx_tile_info *info)
{
	struct wcx_tile_job *job = &set->jobs[set->count++];

	*job = (struct wcx_tile_job){
		.dims = info->dims,
		.mode = WCX_TILE_CODED,
		.recipe = &segment->recipe,
		.src = set->packed + set->packed_bytes,
		.src_bytes = info->packed_bytes,
		.dst = set->decoded + set->decoded_bytes,
		.dst_bytes = wcx_tile_dims_bytes(&info->dims),
		.base = set->base ? set->base->bytes + wcx_tile_base_offset(segment, info) : NULL,
	};
	if (pread(wcx_container_fd(set->container), set->packed + set->packed_bytes, info->packed_bytes,
		  (off_t)info->packed_offset) != info->packed_bytes)
		die(set->path, "cannot read a tile");
	set->packed_bytes += info->packed_bytes;
	set->decoded_bytes += job->dst_bytes;
}

/* Decodes the jobs on the CPU, for reference. */
static void decode_on_cpu(struct tile_set *set)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());

	for (size_t i = 0; i < set->count && scratch; i++)
		if (wcx_tile_decode(&set->jobs[i], scratch) != WCX_OK)
			die(set->path, "a tile does not decode");
	if (!scratch)
		die("memory", strerror(ENOMEM));
	wcx_decode_scratch_free(scratch);
	memcpy(set->original, set->decoded, set->decoded_bytes);
}

static void set_load(struct tile_set *set, const char *path, const struct base *base)
{
	size_t most = 0;

	*set = (struct tile_set){ .path = path, .container = open_file(path), .base = base };
	for (uint32_t elem_bytes = 1; elem_bytes <= WCX_ELEM_MAX_BYTES; elem_bytes *= 2) {
		set->count = set->decoded_bytes = set->packed_bytes = 0;
		for_each_tile(set, elem_bytes, count_tile);
		if (set->decoded_bytes > most) {
			most = set->decoded_bytes;
			set->elem_bytes = elem_bytes;
		}
	}
	if (!set->elem_bytes)
		die(path, "no coded tiles");
	set->count = set->decoded_bytes = set->packed_bytes = 0;
	for_each_tile(set, set->elem_bytes, count_tile);
	set->jobs = must_alloc(set->count * sizeof *set->jobs);
	set->original = must_alloc(set->decoded_bytes);
	set->decoded = must_alloc(set->decoded_bytes);
	set->packed = must_alloc(set->packed_bytes);
	set->count = set->decoded_bytes = set->packed_bytes = 0;
	for_each_tile(set, set->elem_bytes, read_tile);
	decode_on_cpu(set);
}

static void set_free(struct tile_set *set)
{
	free(set->jobs);
	free(set->original);
	free(set->decoded);
	free(set->packed);
	wcx_container_free(set->container);
}

static void check_bytes(struct tile_set *set, size_t bytes, enum wcx_result result, const char *who)
{
	if (result != WCX_OK || memcmp(set->decoded, set->original, bytes) != 0)
		die(set->path, who);
	memset(set->decoded, 0xA5, bytes);
}

static void print_rate(const char *what, double *seconds, double bytes, double ratio, double than)
{
	struct measure_spread spread = measure_spread_of(seconds, ROUNDS);

	printf("  %-26s %8.1f GB/s (%.1f to %.1f)", what, bytes / spread.median * 1e-9, bytes / spread.max * 1e-9,
	       bytes / spread.min * 1e-9);
	if (ratio > 0)
		printf("  ratio %.4f", ratio);
	if (than > 0)
		printf("  ours is %.2f x this", spread.median / than);
	printf("\n");
}

static struct wcx_gpu_timing *timing_open(struct wcx_gpu *gpu, struct tile_set *set, size_t count, uint32_t repeats)
{
	const struct wcx_gpu_timing_set what = {
		set->jobs, count, repeats, set->base ? set->base->bytes : NULL, set->base ? set->base->byte_count : 0, false
	};
	struct wcx_gpu_timing *timing = NULL;

	if (wcx_gpu_timing_create(gpu, &what, &timing) != WCX_OK)
		die(set->path, "cannot set up decoding");
	return timing;
}

/* Places each job of the base that is as large as the tile of a difference before that one; others come first. */
static void pair_jobs(const struct tile_set *set, struct wcx_tile_job *ret)
{
	bool *used = must_alloc(set->base->job_count * sizeof *used);
	size_t *base_of = must_alloc(set->count * sizeof *base_of), at = 0;

	memset(used, 0, set->base->job_count * sizeof *used);
	for (size_t i = 0; i < set->count; i++) {
		const struct wcx_tile_job *job = &set->jobs[i];
		size_t b = i < set->base->job_count ? i : 0;

		base_of[i] = SIZE_MAX;
		for (size_t k = 0; k < set->base->job_count; k++, b = (b + 1) % set->base->job_count)
			if (!used[b] && set->base->jobs[b].dst == job->base &&
			    set->base->jobs[b].dst_bytes == job->dst_bytes) {
				used[b] = true;
				base_of[i] = b;
				break;
			}
	}
	for (size_t b = 0; b < set->base->job_count; b++)
		if (!used[b])
			ret[at++] = set->base->jobs[b];
	for (size_t i = 0; i < set->count; i++) {
		if (base_of[i] != SIZE_MAX)
			ret[at++] = set->base->jobs[base_of[i]];
		ret[at++] = set->jobs[i];
	}
	free(used);
	free(base_of);
}

/* Times the set and its base as one batch, decoded one after the other and together, alternating with each of them alone. */
static void time_difference(struct wcx_gpu *gpu, struct tile_set *set, uint64_t bytes)
{
	enum { TOGETHER, BOTH, ALONE, BASE, COUNT };
	static const char *const names[] = { "base with differences", "base, then differences", "differences alone",
					     "base alone" };
	const uint32_t repeats = (uint32_t)WCX_DIV_UP(bytes, set->decoded_bytes);
	const size_t all = set->count + set->base->job_count;
	struct wcx_tile_job *jobs = must_alloc(all * sizeof *jobs), *only = must_alloc(all * sizeof *jobs);
	struct wcx_tile_job *pairs = must_alloc(all * sizeof *pairs);
	uint8_t *base_copy = must_alloc(set->base->byte_count);
	const struct wcx_gpu_timing_set sets[COUNT] = {
		{ pairs, all, repeats, set->base->bytes, set->base->byte_count, true },
		{ jobs, all, repeats, set->base->bytes, set->base->byte_count, false },
		{ set->jobs, set->count, repeats, set->base->bytes, set->base->byte_count, false },
		{ only, set->base->job_count, repeats, NULL, 0, false },
	};
	struct wcx_gpu_timing *timings[COUNT] = { NULL };
	double seconds[COUNT][ROUNDS];

	memcpy(jobs, set->base->jobs, set->base->job_count * sizeof *jobs);
	memcpy(jobs + set->base->job_count, set->jobs, set->count * sizeof *jobs);
	pair_jobs(set, pairs);
	memcpy(only, set->base->jobs, set->base->job_count * sizeof *jobs);
	for (size_t i = 0; i < set->base->job_count; i++)
		only[i].dst = base_copy + (only[i].dst - set->base->bytes);
	for (int i = 0; i < COUNT; i++) {
		if (wcx_gpu_timing_create(gpu, &sets[i], &timings[i]) != WCX_OK)
			die(set->path, "cannot set up decoding");
		if (i == BASE && wcx_gpu_timing_check(timings[i]) != WCX_OK)
			die(set->path, "the GPU fails at the base");
		if (i != BASE)
			check_bytes(set, set->decoded_bytes, wcx_gpu_timing_check(timings[i]), names[i]);
	}
	for (size_t round = 0; round < ROUNDS; round++)
		for (int i = 0; i < COUNT; i++) {
			if (wcx_gpu_timing_run(timings[i], &seconds[i][round]) != WCX_OK)
				die(set->path, "the GPU failed");
			seconds[i][round] *= 1e-3;
		}
	for (int i = 0; i < COUNT; i++) {
		print_rate(names[i], seconds[i], (double)wcx_gpu_timing_bytes(timings[i]),
			   i == ALONE ? (double)set->decoded_bytes / (double)set->packed_bytes : 0, 0);
		wcx_gpu_timing_free(timings[i]);
	}
	free(jobs);
	free(only);
	free(pairs);
	free(base_copy);
}

/* Times the whole set as one batch, alternating with the peers. */
static void time_batch(struct wcx_gpu *gpu, struct tile_set *set, uint64_t bytes)
{
	const uint32_t repeats = (uint32_t)WCX_DIV_UP(bytes, set->decoded_bytes);
	struct wcx_gpu_timing *timing = timing_open(gpu, set, set->count, repeats);
	struct gpu_peer *peers[GPU_PEERS_MAX];
	const size_t peer_count = gpu_peers_create(set->original, set->decoded_bytes, repeats, set->elem_bytes, peers);
	double seconds[1 + GPU_PEERS_MAX][ROUNDS];
	double ours;

	check_bytes(set, set->decoded_bytes, wcx_gpu_timing_check(timing), "the GPU decodes other bytes");
	for (size_t p = 0; p < peer_count; p++)
		if (!gpu_peer_check(peers[p]))
			die(set->path, "the peer decodes other bytes");
	for (size_t round = 0; round < ROUNDS; round++) {
		if (wcx_gpu_timing_run(timing, &seconds[0][round]) != WCX_OK)
			die(set->path, "the GPU failed");
		for (size_t p = 0; p < peer_count; p++)
			seconds[1 + p][round] = gpu_peer_run(peers[p]);
		for (size_t p = 0; p <= peer_count; p++)
			seconds[p][round] *= 1e-3;
	}
	print_rate("one batch", seconds[0], (double)wcx_gpu_timing_bytes(timing),
		   (double)set->decoded_bytes / (double)set->packed_bytes, 0);
	ours = measure_spread_of(seconds[0], ROUNDS).median / (double)wcx_gpu_timing_bytes(timing);
	for (size_t p = 0; p < peer_count; p++) {
		print_rate(gpu_peer_name(peers[p]), seconds[1 + p], (double)gpu_peer_bytes(peers[p]),
			   gpu_peer_ratio(peers[p]), ours * (double)gpu_peer_bytes(peers[p]));
		gpu_peer_free(peers[p]);
	}
	wcx_gpu_timing_free(timing);
}

/* Times the first tiles, of at least this many bytes, alone on the device. */
static void time_latency(struct wcx_gpu *gpu, struct tile_set *set, size_t bytes)
{
	struct wcx_gpu_timing *timing;
	struct measure_spread spread;
	double ms[ROUNDS];
	size_t count = 0, sum = 0;

	while (count < set->count && sum < bytes)
		sum += set->jobs[count++].dst_bytes;
	timing = timing_open(gpu, set, count, 1);
	check_bytes(set, sum, wcx_gpu_timing_check(timing), "the GPU decodes other bytes");
	for (size_t round = 0; round < ROUNDS; round++)
		if (wcx_gpu_timing_run(timing, &ms[round]) != WCX_OK)
			die(set->path, "the GPU failed");
	spread = measure_spread_of(ms, ROUNDS);
	printf("  %zu KiB alone, %zu tiles    %6.1f us (%.1f to %.1f)\n", sum >> 10, count, spread.median * 1e3,
	       spread.min * 1e3, spread.max * 1e3);
	wcx_gpu_timing_free(timing);
}

struct host_thread {
	pthread_t thread;
	struct wcx_gpu *gpu;
	struct wcx_tile_job *jobs;
	size_t count;
	enum wcx_result result;
};

static void *host_thread(void *argument)
{
	struct host_thread *self = argument;

	self->result = wcx_gpu_decode(self->gpu, &(struct wcx_gpu_batch){ .jobs = self->jobs, .job_count = self->count });
	return NULL;
}

/* Seconds that thread_count threads take for the set. */
static double host_pass(struct wcx_gpu *gpu, struct tile_set *set, size_t thread_count)
{
	struct host_thread threads[MAX_THREADS];
	double start = measure_now_s();

	for (size_t i = 0; i < thread_count; i++) {
		const size_t first = set->count * i / thread_count, end = set->count * (i + 1) / thread_count;

		threads[i] = (struct host_thread){ .gpu = gpu, .jobs = set->jobs + first, .count = end - first };
		if (pthread_create(&threads[i].thread, NULL, host_thread, &threads[i]))
			die("thread", strerror(EAGAIN));
	}
	for (size_t i = 0; i < thread_count; i++) {
		pthread_join(threads[i].thread, NULL);
		if (threads[i].result != WCX_OK)
			die(set->path, "the GPU failed");
	}
	return measure_now_s() - start;
}

static void time_host(struct wcx_gpu *gpu, struct tile_set *set)
{
	for (size_t threads = 1; threads <= MAX_THREADS; threads *= 2) {
		double seconds[ROUNDS];
		char what[64];

		host_pass(gpu, set, threads);
		check_bytes(set, set->decoded_bytes, WCX_OK, "the GPU decodes other bytes");
		for (size_t round = 0; round < ROUNDS; round++)
			seconds[round] = host_pass(gpu, set, threads);
		snprintf(what, sizeof what, "host to host, %zu thread%s", threads, threads > 1 ? "s" : "");
		print_rate(what, seconds, (double)set->decoded_bytes, 0, 0);
	}
}

int main(int argc, char **argv)
{
	char name[WCX_GPU_NAME_BYTES];
	bool latency = false, host = false;
	const char *base_path = NULL;
	struct base base = { NULL };
	struct wcx_gpu *gpu = NULL;
	uint64_t mib = 1024;
	int i;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		latency |= strcmp(argv[i], "--latency") == 0;
		host |= strcmp(argv[i], "--host") == 0;
		if (strcmp(argv[i], "--mib") == 0 && i + 1 < argc)
			mib = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--base") == 0 && i + 1 < argc)
			base_path = argv[++i];
	}
	if (i == argc || mib == 0) {
		fprintf(stderr, "usage: gpu_rate [--mib N] [--latency] [--host] [--base BASE.wcx] FILE.wcx ...\n");
		return 2;
	}
	measure_print_origin(argc, argv);
	if (wcx_gpu_open(0, WCX_GPU_CALLS_MAX, &gpu, name) != WCX_OK) {
		printf("skipped: %s\n", name);
		return EXIT_SKIPPED;
	}
	printf("%s, medians of %d rounds\n", name, ROUNDS);
	if (base_path)
		base_load(&base, base_path);
	for (; i < argc; i++) {
		struct tile_set set;

		set_load(&set, argv[i], base_path ? &base : NULL);
		printf("%s, %zu tiles of %u-byte elements, %.1f MB:\n",
		       strrchr(argv[i], '/') ? strrchr(argv[i], '/') + 1 : argv[i], set.count, set.elem_bytes,
		       (double)set.decoded_bytes * 1e-6);
		if (latency) {
			time_latency(gpu, &set, 64 << 10);
			time_latency(gpu, &set, 1 << 20);
		} else if (host) {
			time_host(gpu, &set);
		} else if (base_path) {
			time_difference(gpu, &set, mib << 20);
		} else {
			time_batch(gpu, &set, mib << 20);
		}
		set_free(&set);
	}
	if (base_path)
		base_free(&base);
	wcx_gpu_free(gpu);
	return 0;
}
