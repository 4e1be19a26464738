/* SPDX-License-Identifier: MIT */
/*
 * Reads files as model loaders do, and prints the speed.
 *
 *	reader MODE[:THREADS] BLOCK_KIB FILE...
 *
 * Each file has one thread, or THREADS threads that take its blocks in turn.  MODE is
 *
 *	mmap     a private mapping, read sequentially, as when a framework copies from it
 *	read     pread(2), a block at a time
 *	direct   the same with O_DIRECT
 *	random   pread(2) of blocks at random places, a quarter as many as the file has
 *
 * read:8 with blocks of 16 MiB corresponds to loaders that prefetch a file into the page cache.
 *
 * Prints GB/s of all files together, seconds, and the sum of all 64-bit words, which shows whether contents are equal.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/bench/measure.h"

enum { PAGE_BYTES = 4096, THREADS_MAX = 64, EXIT_USAGE = 2 };

/* A file and the threads that read it. */
struct source {
	const struct mode *mode;
	const char *path;
	int fd;
	size_t block_bytes;
	uint64_t file_bytes, block_count, turns; /* turns: the blocks to read */
	atomic_uint_fast64_t turn;
	const uint8_t *map;
};

struct job {
	pthread_t thread;
	struct source *source;
	uint8_t *buffer;
	uint64_t bytes, sum;
};

struct mode {
	const char *name;
	void (*read)(struct job *job, uint64_t turn);
	int open_flags;
	int is_mapped;
};

static void fail(const char *path, const char *what)
{
	fprintf(stderr, "reader: %s: %s: %s\n", path, what, strerror(errno));
	exit(1);
}

/* Sums the words at multiples of 8 in the file, for any block size; the last one is padded with zeros. */
static uint64_t sum_words(const uint8_t *src, size_t bytes)
{
	uint64_t sum = 0, word;

	for (; bytes >= sizeof word; src += sizeof word, bytes -= sizeof word) {
		memcpy(&word, src, sizeof word);
		sum += word;
	}
	word = 0;
	memcpy(&word, src, bytes);
	return sum + word;
}

static void read_mapped(struct job *job, uint64_t turn)
{
	const struct source *source = job->source;
	uint64_t offset = turn * source->block_bytes, left = source->file_bytes - offset;
	size_t bytes = left < source->block_bytes ? (size_t)left : source->block_bytes;

	job->sum += sum_words(source->map + offset, bytes);
	job->bytes += bytes;
}

static void read_block(struct job *job, uint64_t block_index)
{
	const struct source *source = job->source;
	uint64_t offset = block_index * source->block_bytes, left = source->file_bytes - offset;
	size_t want = left < source->block_bytes ? (size_t)left : source->block_bytes, done = 0;

	while (done < want) {
		/* Reads to the end of the block, even past the end of the file: O_DIRECT needs whole sectors. */
		ssize_t n = pread(source->fd, job->buffer + done, source->block_bytes - done, (off_t)(offset + done));

		if (n <= 0)
			fail(source->path, n < 0 ? "pread" : "ends early");
		done += (size_t)n;
	}
	job->sum += sum_words(job->buffer, done);
	job->bytes += done;
}

static void read_random(struct job *job, uint64_t turn)
{
	uint64_t mixed = (turn + 1) * UINT64_C(0x9E3779B97F4A7C15);

	mixed = (mixed ^ mixed >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94D049BB133111EB);
	read_block(job, (mixed ^ mixed >> 31) % job->source->block_count);
}

static const struct mode modes[] = {
	{ "mmap", read_mapped, 0, 1 },
	{ "read", read_block, 0, 0 },
	{ "direct", read_block, O_DIRECT, 0 },
	{ "random", read_random, 0, 0 },
};

/* Parses MODE or MODE:THREADS; returns NULL for anything else. */
static const struct mode *mode_parse(const char *text, unsigned *threads_ret)
{
	const char *colon = strchr(text, ':');
	const size_t chars = colon ? (size_t)(colon - text) : strlen(text);
	const unsigned long threads = colon ? strtoul(colon + 1, NULL, 10) : 1;

	if (threads < 1 || threads > THREADS_MAX)
		return NULL;
	*threads_ret = (unsigned)threads;
	for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
		if (strlen(modes[i].name) == chars && strncmp(modes[i].name, text, chars) == 0)
			return &modes[i];
	return NULL;
}

static void source_open(struct source *source)
{
	struct stat st;

	source->fd = open(source->path, O_RDONLY | O_CLOEXEC | source->mode->open_flags);
	if (source->fd < 0 || fstat(source->fd, &st) < 0)
		fail(source->path, "open");
	source->file_bytes = (uint64_t)st.st_size;
	source->block_count = (source->file_bytes + source->block_bytes - 1) / source->block_bytes;
	source->turns = source->mode->read == read_random ? (source->block_count + 3) / 4 : source->block_count;
	if (!source->mode->is_mapped || !source->file_bytes)
		return;
	source->map = mmap(NULL, source->file_bytes, PROT_READ, MAP_PRIVATE, source->fd, 0);
	if (source->map == MAP_FAILED)
		fail(source->path, "mmap");
}

static void source_close(struct source *source)
{
	if (source->map)
		munmap((void *)(uintptr_t)source->map, source->file_bytes);
	close(source->fd);
}

static void *job_run(void *argument)
{
	struct job *job = argument;
	struct source *source = job->source;
	uint64_t turn;

	job->buffer = aligned_alloc(PAGE_BYTES, source->block_bytes);
	if (!job->buffer)
		fail(source->path, "memory");
	while ((turn = atomic_fetch_add(&source->turn, 1)) < source->turns)
		source->mode->read(job, turn);
	free(job->buffer);
	return NULL;
}

/* Runs all jobs, and prints speed and sum. */
static void run(struct source *sources, size_t source_count, struct job *jobs, size_t job_count)
{
	uint64_t bytes = 0, sum = 0;
	double start = measure_now_s(), seconds;

	for (size_t i = 0; i < source_count; i++)
		source_open(&sources[i]);
	for (size_t i = 0; i < job_count; i++) {
		errno = pthread_create(&jobs[i].thread, NULL, job_run, &jobs[i]);
		if (errno)
			fail(jobs[i].source->path, "thread");
	}
	for (size_t i = 0; i < job_count; i++) {
		pthread_join(jobs[i].thread, NULL);
		bytes += jobs[i].bytes;
		sum += jobs[i].sum;
	}
	for (size_t i = 0; i < source_count; i++)
		source_close(&sources[i]);
	seconds = measure_now_s() - start;
	printf("%.3f GB/s  %.4f s  sum %016llx\n", (double)bytes / seconds * 1e-9, seconds, (unsigned long long)sum);
}

int main(int argc, char **argv)
{
	unsigned threads = 0;
	const struct mode *mode = argc > 3 ? mode_parse(argv[1], &threads) : NULL;
	size_t block_kib = argc > 3 ? strtoul(argv[2], NULL, 10) : 0, source_count, job_count;
	struct source *sources;
	struct job *jobs;

	if (!mode || block_kib == 0 || block_kib % 4) {
		fprintf(stderr, "usage: reader mmap|read|direct|random[:THREADS] BLOCK_KIB FILE...\n"
				"(BLOCK_KIB: a multiple of 4)\n");
		return EXIT_USAGE;
	}
	source_count = (size_t)argc - 3;
	job_count = source_count * threads;
	sources = calloc(source_count, sizeof *sources);
	jobs = calloc(job_count, sizeof *jobs);
	if (!sources || !jobs)
		fail(argv[3], "memory");
	for (size_t i = 0; i < source_count; i++) {
		sources[i].mode = mode;
		sources[i].path = argv[3 + i];
		sources[i].block_bytes = block_kib << 10;
	}
	for (size_t i = 0; i < job_count; i++)
		jobs[i].source = &sources[i / threads];
	run(sources, source_count, jobs, job_count);
	free(sources);
	free(jobs);
	return 0;
}
