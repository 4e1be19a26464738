/* SPDX-License-Identifier: MIT */
/* Decides whether a GPU or a core decodes a batch. */
#include "fs/read/gpu_choice.h"

#include "codec/arith.h"

enum {
	/*
	 * A GPU that is shared with another program gets slices of some milliseconds, so that a batch waits for one to end:
	 * one in ten waited 1 to 8 ms beside matrix products, and the others found a gap.  Of many batches of our own at a
	 * time, the last waits for half a millisecond, and all together a tenth.
	 */
	LATE_NS = 400000,
	/* A single batch does not count for more than LATE_NS; a GPU that was shared is free after 16 batches in time. */
	LATE_MAX_NS = 3000000,
	PROBE_NS = 100000000, /* between batches that go to such a GPU to see whether it still is shared */
	WEIGHT = 7,           /* of the past in the average, and one of the new value */
	PAIR_UNIT = 64,
	PAIR_WEIGHT = 31, /* of the ratio of pairs so far, where later ones take longer, and one of theirs */
	MIB = 1 << 20,
};

/*
 * The fewest tiles n that take one + (n - 1) more <= n may_take, where `more' is what each further tile takes; SIZE_MAX if
 * no number does.
 */
static size_t break_even(int64_t one, int64_t all, size_t count, int64_t may_take)
{
	const int64_t more = WCX_MAX(all - one, 0) / (int64_t)(count - 1);

	if (one <= may_take)
		return 1;
	return more < may_take ? (size_t)((one - more + may_take - more - 1) / (may_take - more)) : SIZE_MAX;
}

void wcx_gpu_choice_init(struct wcx_gpu_choice *choice, const struct wcx_gpu_costs *costs)
{
	const int64_t count = (int64_t)costs->tile_count;
	const size_t by_core = break_even(costs->gpu_one.core, costs->gpu_all.core, costs->tile_count,
					  costs->cpu_all.core / count * 3 / 4),
		     by_wall = break_even(costs->gpu_one.wall, costs->gpu_all.wall, costs->tile_count,
					  costs->cpu_all.wall / count),
		     least = WCX_MAX(by_core, by_wall);
	const uint64_t more_bytes = (costs->tile_count - 1) * costs->tile_bytes;

	choice->least_bytes = least > costs->tile_count ? SIZE_MAX : least * costs->tile_bytes;
	choice->gpu_ns = (uint64_t)costs->gpu_one.wall;
	choice->gpu_ns_per_mib = (uint64_t)WCX_MAX(costs->gpu_all.wall - costs->gpu_one.wall, 0) * MIB / more_bytes;
	choice->late_ns = choice->probe_ns = choice->pair_ratio = 0;
}

bool wcx_gpu_choice_takes(struct wcx_gpu_choice *choice, size_t bytes, uint64_t now_ns)
{
	uint64_t probe_ns;

	if (bytes < choice->least_bytes)
		return false;
	if (atomic_load_explicit(&choice->late_ns, memory_order_relaxed) < LATE_NS)
		return true;
	probe_ns = atomic_load(&choice->probe_ns);
	return now_ns >= probe_ns && atomic_compare_exchange_strong(&choice->probe_ns, &probe_ns, now_ns + PROBE_NS);
}

static uint64_t time_alone(const struct wcx_gpu_choice *choice, size_t bytes)
{
	return choice->gpu_ns + bytes * choice->gpu_ns_per_mib / MIB;
}

/* Adds what a batch took, and should take, to the average.  Two threads at once may lose one of their values. */
static void note(struct wcx_gpu_choice *choice, uint64_t ns, uint64_t alone_ns)
{
	const uint64_t before = atomic_load_explicit(&choice->late_ns, memory_order_relaxed);
	const uint64_t late_ns = WCX_MIN(ns - WCX_MIN(ns, alone_ns), (uint64_t)LATE_MAX_NS);
	const uint64_t average_ns = (before * WEIGHT + late_ns) / (WEIGHT + 1);

	/* Most batches find a gap of the other program, so a few in time do not show that it has ended. */
	atomic_store_explicit(&choice->late_ns, before < LATE_NS && average_ns >= LATE_NS ? LATE_MAX_NS : average_ns,
			      memory_order_relaxed);
}

void wcx_gpu_choice_note(struct wcx_gpu_choice *choice, size_t bytes, uint64_t ns)
{
	note(choice, ns, time_alone(choice, bytes));
}

void wcx_gpu_choice_note_pairs(struct wcx_gpu_choice *choice, size_t bytes, uint64_t ns)
{
	const uint64_t before = atomic_load_explicit(&choice->pair_ratio, memory_order_relaxed);
	const uint64_t alone_ns = WCX_MAX(time_alone(choice, bytes), UINT64_C(1));
	const uint64_t ratio = WCX_MIN(ns, alone_ns + LATE_MAX_NS) * PAIR_UNIT / alone_ns + 1;
	const uint64_t least = before && before < ratio ? before : ratio;

	note(choice, ns, least * alone_ns / PAIR_UNIT);
	atomic_store_explicit(&choice->pair_ratio, least + (ratio - least + PAIR_WEIGHT) / (PAIR_WEIGHT + 1),
			      memory_order_relaxed);
}
