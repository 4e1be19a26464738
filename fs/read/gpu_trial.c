/* SPDX-License-Identifier: MIT */
/* Measures what it costs to decode tiles on a GPU and on a core. */
#include "fs/read/gpu_trial.h"

#include <string.h>
#include <time.h>

#include "codec/arith.h"
#include "codec/trial_tile.h"
#include "fs/base/clock.h"

enum {
	ROUNDS = 5,
	TILES = 128, /* 4 MiB */
	DST_BYTES = WCX_GPU_PACKED_BYTES,
};

struct trial {
	struct wcx_gpu *gpu;
	struct wcx_trial_tile *tile;
	struct wcx_decode_scratch *scratch;
	uint8_t *packed, *dst;
	struct wcx_tile_job jobs[TILES];
	bool is_pinned[TILES];
};

static int64_t core_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* What it costs to decode the first tiles: the least of several times.  False: failed. */
static bool time_tiles(struct trial *trial, bool on_gpu, size_t count, struct wcx_decode_cost *ret)
{
	const struct wcx_gpu_batch batch = {
		.jobs = trial->jobs,
		.job_count = count,
		.dst_is_pinned = trial->is_pinned,
		.packed = trial->packed,
	};
	bool ok = true;

	*ret = (struct wcx_decode_cost){ INT64_MAX, INT64_MAX };
	for (int round = 0; round < ROUNDS && ok; round++) {
		const int64_t core_start = core_ns(), start = (int64_t)wcx_now_ns();

		if (on_gpu)
			ok = wcx_gpu_decode(trial->gpu, &batch) == WCX_OK;
		else
			wcx_tiles_decode(trial->jobs, count, trial->scratch);
		ret->wall = WCX_MIN((int64_t)wcx_now_ns() - start, ret->wall);
		ret->core = WCX_MIN(core_ns() - core_start, ret->core);
		for (size_t i = 0; i < count; i++)
			ok &= trial->jobs[i].result == WCX_OK;
	}
	return ok;
}

static bool prepare(struct trial *trial, const struct wcx_decode_variant *cpu)
{
	size_t bytes = 0;

	trial->tile = wcx_trial_tile_create();
	trial->scratch = wcx_decode_scratch_create(cpu);
	trial->packed = wcx_gpu_alloc(trial->gpu, WCX_GPU_PACKED_ROOM);
	trial->dst = wcx_gpu_alloc(trial->gpu, DST_BYTES);
	if (!trial->tile || !trial->scratch || !trial->packed || !trial->dst)
		return false;
	for (size_t i = 0; i < TILES; i++) {
		struct wcx_tile_job *job = &trial->jobs[i];

		*job = wcx_trial_tile_job(trial->tile);
		memcpy(trial->packed + bytes, job->src, job->src_bytes);
		job->src = trial->packed + bytes;
		bytes += WCX_ALIGN_UP(job->src_bytes, 16);
		job->dst = trial->dst + i * job->dst_bytes % DST_BYTES;
		trial->is_pinned[i] = true;
	}
	return true;
}

bool wcx_gpu_trial_run(struct wcx_gpu *gpu, const struct wcx_decode_variant *cpu, struct wcx_gpu_costs *ret)
{
	struct trial trial = { .gpu = gpu };
	bool is_measured = prepare(&trial, cpu);

	if (is_measured) {
		ret->tile_count = TILES;
		ret->tile_bytes = trial.jobs[0].dst_bytes;
		is_measured = time_tiles(&trial, false, TILES, &ret->cpu_all) &&
			      time_tiles(&trial, true, TILES, &ret->gpu_all) &&
			      time_tiles(&trial, true, 1, &ret->gpu_one); /* overwrites the other tiles */
	}
	wcx_gpu_dealloc(gpu, trial.dst, DST_BYTES);
	wcx_gpu_dealloc(gpu, trial.packed, WCX_GPU_PACKED_ROOM);
	wcx_decode_scratch_free(trial.scratch);
	wcx_trial_tile_free(trial.tile);
	return is_measured;
}
