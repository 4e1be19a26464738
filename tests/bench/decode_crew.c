/* SPDX-License-Identifier: MIT */
/* Runs the threads in turns between barriers, which excludes the cost of starting them. */
#include "tests/bench/decode_crew.h"

#include <pthread.h>
#include <unistd.h>
#include <xxhash.h>

#include "codec/arith.h"
#include "tests/bench/measure.h"
#include "tests/bench/must.h"

unsigned decode_crew_threads(unsigned i)
{
	unsigned cores = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);

	if (i < CREWS_MAX && 1u << i < cores)
		return 1u << i;
	return i == 0 || (i < CREWS_MAX && 1u << (i - 1) < cores) ? cores : 0;
}

struct crew {
	const struct weight_set *set;
	const struct wcx_decode_variant *variant;
	unsigned thread_count;
	pthread_barrier_t turn; /* also waited for by the thread that measures */
};

struct crew_member {
	struct crew *crew;
	unsigned number;
	pthread_t thread;
};

enum {
	TILES_AT_ONCE = 8,
	IDLE_STEPS = 20000, /* of arithmetic, instead of decoding a tile */
};

/* A chain of dependent operations that does not access memory. */
static void do_arithmetic(void)
{
	uint64_t number = 1;

	for (int i = 0; i < IDLE_STEPS; i++) {
		number = number * 6364136223846793005u + 1442695040888963407u;
		__asm__ volatile("" : "+r"(number));
	}
}

static void decode_some(const struct crew *crew, size_t first, struct wcx_decode_scratch *scratch)
{
	const size_t end = WCX_MIN(first + TILES_AT_ONCE, crew->set->tile_count);
	uint64_t sum = 0;

	for (size_t i = first; i < end && scratch; i++)
		sum ^= XXH3_64bits(crew->set->tiles[i].job.src, crew->set->tiles[i].job.src_bytes);
	__asm__ volatile("" : : "r"(sum));
	if (scratch)
		weight_set_decode(crew->set, first, end, scratch);
	for (size_t i = first; i < end && !scratch; i++)
		do_arithmetic();
}

/* In each turn a thread takes every thread_count-th share of the tiles, others than in the turn before: none stays in its
 * caches.
 */
static void *crew_member_run(void *arg)
{
	struct crew_member *member = arg;
	struct crew *crew = member->crew;
	const size_t step = (size_t)crew->thread_count * TILES_AT_ONCE;
	struct wcx_decode_scratch *scratch = crew->variant ? wcx_decode_scratch_create(crew->variant) : NULL;

	if (crew->variant && !scratch)
		must_not("memory", strerror(ENOMEM));
	pthread_barrier_wait(&crew->turn);
	for (unsigned turn = 0; turn < crew->thread_count; turn++) {
		for (size_t i = (member->number + turn) % crew->thread_count * (size_t)TILES_AT_ONCE;
		     i < crew->set->tile_count; i += step)
			decode_some(crew, i, scratch);
		pthread_barrier_wait(&crew->turn);
	}
	wcx_decode_scratch_free(scratch);
	return NULL;
}

double decode_crew_rate(const struct weight_set *set, const struct wcx_decode_variant *variant, unsigned thread_count,
			double *cpu_s_per_gb_ret)
{
	struct crew crew = { .set = set, .variant = variant, .thread_count = thread_count };
	struct crew_member *members = must_alloc(thread_count * sizeof *members);
	double seconds, cpu;

	pthread_barrier_init(&crew.turn, NULL, thread_count + 1);
	for (unsigned i = 0; i < thread_count; i++) {
		members[i] = (struct crew_member){ .crew = &crew, .number = i };
		if (pthread_create(&members[i].thread, NULL, crew_member_run, &members[i]) != 0)
			must_not("threads", "too few");
	}
	pthread_barrier_wait(&crew.turn);
	cpu = -measure_cpu_s();
	seconds = -measure_now_s();
	for (unsigned turn = 0; turn < thread_count; turn++)
		pthread_barrier_wait(&crew.turn);
	seconds += measure_now_s();
	cpu += measure_cpu_s();
	for (unsigned i = 0; i < thread_count; i++)
		pthread_join(members[i].thread, NULL);
	pthread_barrier_destroy(&crew.turn);
	free(members);
	if (cpu_s_per_gb_ret)
		*cpu_s_per_gb_ret = cpu / ((double)set->bytes * thread_count * 1e-9);
	return (double)set->bytes * thread_count / seconds * 1e-9;
}
