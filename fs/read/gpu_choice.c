/* SPDX-License-Identifier: MIT */
/* Decides whether a GPU or a core decodes a batch. */
#include "fs/read/gpu_choice.h"

#include "codec/arith.h"

enum {
	UNIT = 256, /* of slowness */
	/*
	 * A GPU that is shared with another program gets slices of some milliseconds.  A core decodes 1 MiB in about one, so
	 * from here on waiting for the GPU costs a reader more than it saves.
	 */
	SLOW = 4 * UNIT,
	PROBE_EVERY = 16, /* batches that go to a slow GPU to see whether it still is */
	WEIGHT = 8,       /* of the past in the average */
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
	const uint64_t all_bytes = costs->tile_count * costs->tile_bytes;

	choice->least_bytes = least > costs->tile_count ? SIZE_MAX : least * costs->tile_bytes;
	choice->cpu_ns_per_mib = WCX_MAX((uint64_t)costs->cpu_all.wall * MIB / all_bytes, 1);
	choice->slowness = choice->denied_count = 0;
}

bool wcx_gpu_choice_takes(struct wcx_gpu_choice *choice, size_t bytes)
{
	if (bytes < choice->least_bytes)
		return false;
	return atomic_load_explicit(&choice->slowness, memory_order_relaxed) < SLOW ||
	       atomic_fetch_add_explicit(&choice->denied_count, 1, memory_order_relaxed) % PROBE_EVERY == PROBE_EVERY - 1;
}

/* Two threads at once may lose one of their values, which an average can bear. */
void wcx_gpu_choice_note(struct wcx_gpu_choice *choice, size_t bytes, uint64_t ns)
{
	const uint64_t before = atomic_load_explicit(&choice->slowness, memory_order_relaxed);
	const uint64_t cpu_ns = WCX_MAX(bytes * choice->cpu_ns_per_mib / MIB, 1);
	const uint64_t now = WCX_MIN(ns * UNIT / cpu_ns, (uint64_t)64 * SLOW);

	atomic_store_explicit(&choice->slowness, (before * (WEIGHT - 1) + now) / WEIGHT, memory_order_relaxed);
}
