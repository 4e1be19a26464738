/* SPDX-License-Identifier: MIT */
/*
 * Reads files as model loaders do, and prints how fast it went.
 *
 *	reader MODE BLOCK_KIB FILE...
 *
 * One thread a file.  MODE is
 *
 *	mmap     one private mapping, read from front to back, as a framework copies out of it
 *	read     read(2), a block at a time
 *	direct   the same with O_DIRECT
 *	random   pread(2) of blocks at random places, a quarter as many as the file has
 *
 * Prints GB/s of all files together, the seconds, and the sum of all 64-bit words, by which equal contents are seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/bench/measure.h"

enum { PAGE_BYTES = 4096, EXIT_USAGE = 2 };

struct job {
	pthread_t thread;
	const struct mode *mode;
	const char *path;
	size_t block_bytes;
	uint64_t file_bytes, bytes, sum;
};

struct mode {
	const char *name;
	void (*read)(struct job *job, int fd);
	int open_flags;
};

static void fail(const char *path, const char *what)
{
	fprintf(stderr, "reader: %s: %s: %s\n", path, what, strerror(errno));
	exit(1);
}

/* Words that lie at multiples of 8 in the file, whatever the blocks; the last one is filled up with zeros. */
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

static void read_mapping(struct job *job, int fd)
{
	uint8_t *map = mmap(NULL, job->file_bytes, PROT_READ, MAP_PRIVATE, fd, 0);

	if (map == MAP_FAILED)
		fail(job->path, "mmap");
	job->sum = sum_words(map, job->file_bytes);
	job->bytes = job->file_bytes;
	munmap(map, job->file_bytes);
}

static void read_block(struct job *job, int fd, uint8_t *buffer, uint64_t block_index)
{
	uint64_t offset = block_index * job->block_bytes;
	size_t want = job->file_bytes - offset < job->block_bytes ? (size_t)(job->file_bytes - offset) : job->block_bytes;
	size_t done = 0;

	while (done < want) {
		/* The whole rest of the block, even behind the end of the file: O_DIRECT wants whole sectors. */
		ssize_t n = pread(fd, buffer + done, job->block_bytes - done, (off_t)(offset + done));

		if (n <= 0)
			fail(job->path, n < 0 ? "pread" : "ends early");
		done += (size_t)n;
	}
	job->sum += sum_words(buffer, done);
	job->bytes += done;
}

static uint8_t *block_alloc(const struct job *job)
{
	uint8_t *buffer = aligned_alloc(PAGE_BYTES, job->block_bytes);

	if (!buffer)
		fail(job->path, "memory");
	return buffer;
}

static uint64_t block_count(const struct job *job)
{
	return (job->file_bytes + job->block_bytes - 1) / job->block_bytes;
}

static void read_in_order(struct job *job, int fd)
{
	uint8_t *buffer = block_alloc(job);

	for (uint64_t i = 0; i < block_count(job); i++)
		read_block(job, fd, buffer, i);
	free(buffer);
}

static void read_random(struct job *job, int fd)
{
	uint8_t *buffer = block_alloc(job);
	uint64_t state = 88172645463325252;

	for (uint64_t i = 0; i < (block_count(job) + 3) / 4; i++) {
		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		read_block(job, fd, buffer, state % block_count(job));
	}
	free(buffer);
}

static const struct mode modes[] = {
	{ "mmap", read_mapping, 0 },
	{ "read", read_in_order, 0 },
	{ "direct", read_in_order, O_DIRECT },
	{ "random", read_random, 0 },
};

static const struct mode *mode_find(const char *name)
{
	for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
		if (strcmp(modes[i].name, name) == 0)
			return &modes[i];
	return NULL;
}

static void *job_run(void *argument)
{
	struct job *job = argument;
	int fd = open(job->path, O_RDONLY | O_CLOEXEC | job->mode->open_flags);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		fail(job->path, "open");
	job->file_bytes = (uint64_t)st.st_size;
	if (job->file_bytes > 0)
		job->mode->read(job, fd);
	close(fd);
	return NULL;
}

static void run(struct job *jobs, int job_count)
{
	uint64_t bytes = 0, sum = 0;
	double start = measure_now_s(), seconds;

	for (int i = 0; i < job_count; i++) {
		errno = pthread_create(&jobs[i].thread, NULL, job_run, &jobs[i]);
		if (errno)
			fail(jobs[i].path, "thread");
	}
	for (int i = 0; i < job_count; i++) {
		pthread_join(jobs[i].thread, NULL);
		bytes += jobs[i].bytes;
		sum += jobs[i].sum;
	}
	seconds = measure_now_s() - start;
	printf("%.3f GB/s  %.4f s  sum %016llx\n", (double)bytes / seconds * 1e-9, seconds, (unsigned long long)sum);
}

int main(int argc, char **argv)
{
	const struct mode *mode = argc > 3 ? mode_find(argv[1]) : NULL;
	size_t block_kib = argc > 3 ? strtoul(argv[2], NULL, 10) : 0;
	struct job *jobs;

	if (!mode || block_kib == 0 || block_kib % 4) {
		fprintf(stderr, "usage: reader mmap|read|direct|random BLOCK_KIB FILE...   (BLOCK_KIB: a multiple of 4)\n");
		return EXIT_USAGE;
	}
	jobs = calloc((size_t)argc - 3, sizeof *jobs);
	if (!jobs)
		fail(argv[3], "memory");
	for (int i = 0; i < argc - 3; i++)
		jobs[i] = (struct job){ .mode = mode, .path = argv[3 + i], .block_bytes = block_kib << 10 };
	run(jobs, argc - 3);
	free(jobs);
	return 0;
}
