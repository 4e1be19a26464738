/* SPDX-License-Identifier: MIT */
/*
 * Measures the encoder alone, on several threads.
 *
 *	encode_rate [THREADS [SECONDS]]
 *
 * Encodes generated weights with tables that are there already, again and again.  Prints for one thread and for THREADS (all
 * cores) a line per set: threads, GB/s of the original, GB per second of CPU time, name.  All tiles are decoded and compared
 *afterwards.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/bench/measure.h"
#include "tests/bench/must.h"
#include "tests/bench/weight_set.h"

struct run {
	struct weight_set *set;
	unsigned thread_count;
	atomic_bool stop;
	atomic_ullong bytes; /* encoded by all */
};

struct member {
	struct run *run;
	unsigned number;
	pthread_t thread;
};

/* A thread has the tiles whose number leaves its own: no two write the same. */
static void *encode_until_stopped(void *user)
{
	const struct member *member = user;
	struct run *run = member->run;
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();

	if (!scratch)
		must_not("memory", strerror(ENOMEM));
	for (size_t i = member->number; !run->stop; i += run->thread_count) {
		if (i >= run->set->tile_count)
			i = member->number;
		weight_set_encode(run->set, &run->set->tiles[i], scratch);
		run->bytes += run->set->tiles[i].job.dst_bytes;
	}
	wcx_encode_scratch_free(scratch);
	return NULL;
}

static double cpu_now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void print_rate(struct weight_set *set, unsigned thread_count, double seconds)
{
	struct run run = { .set = set, .thread_count = thread_count };
	struct member *members = must_alloc(thread_count * sizeof *members);
	const struct timespec pause = { .tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (time_t)seconds) * 1e9) };
	double taken = -measure_now_s(), cpu = -cpu_now_s();

	for (unsigned i = 0; i < thread_count; i++) {
		members[i] = (struct member){ .run = &run, .number = i };
		if (pthread_create(&members[i].thread, NULL, encode_until_stopped, &members[i]) != 0)
			must_not("threads", "too few");
	}
	nanosleep(&pause, NULL);
	run.stop = true;
	for (unsigned i = 0; i < thread_count; i++)
		pthread_join(members[i].thread, NULL);
	taken += measure_now_s();
	cpu += cpu_now_s();
	free(members);
	printf("%u\t%.3f\t%.3f\t%s\n", thread_count, (double)run.bytes / taken * 1e-9, (double)run.bytes / cpu * 1e-9,
	       set->name);
}

static void check(struct weight_set *set)
{
	struct wcx_decode_scratch *scratch = wcx_decode_scratch_create(wcx_decode_variant_choose());

	if (!scratch)
		must_not("memory", strerror(ENOMEM));
	weight_set_decode(set, 0, set->tile_count, scratch);
	weight_set_check(set, "encode_rate");
	wcx_decode_scratch_free(scratch);
}

int main(int argc, char **argv)
{
	const unsigned cores = argc > 1 ? (unsigned)atoi(argv[1]) : (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	const double seconds = argc > 2 ? atof(argv[2]) : 1;
	struct wcx_encode_scratch *scratch = wcx_encode_scratch_create();
	struct weight_sets sets = { 0 };

	if (!scratch || !cores || seconds <= 0)
		must_not("encode_rate", "usage: encode_rate [THREADS [SECONDS]]");
	weight_sets_generate(&sets);
	for (size_t s = 0; s < sets.count; s++) {
		for (size_t i = 0; i < sets.sets[s].tile_count; i++)
			weight_set_encode(&sets.sets[s], &sets.sets[s].tiles[i], scratch);
		print_rate(&sets.sets[s], 1, seconds);
		if (cores > 1)
			print_rate(&sets.sets[s], cores, seconds);
		check(&sets.sets[s]);
	}
	wcx_encode_scratch_free(scratch);
	weight_sets_free(&sets);
	return 0;
}
