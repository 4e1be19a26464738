/* SPDX-License-Identifier: MIT */
/*
 * Decides which batches of tiles a GPU decodes and which a core, by what both were measured to take.
 *
 * A core is worth more than a little time: the GPU gets a batch if that leaves at least a quarter of the core's time for
 * others, and if the batch is not ready later.  So small batches, whose cost is that of launching and waiting, stay on the
 * CPU.  A GPU on which batches wait for another program gets hardly any until it is free again: programs that share a GPU
 * have it in turn, so each batch also takes time from the other one, which cannot leave its work to a core.
 */
#ifndef WCX_GPU_CHOICE_H
#define WCX_GPU_CHOICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What decoding some tiles took, in nanoseconds: of the clock, and of the thread's core. */
struct wcx_decode_cost {
	int64_t wall, core;
};

/* Costs of the same tiles. */
struct wcx_gpu_costs {
	struct wcx_decode_cost cpu_all, gpu_one, gpu_all; /* on a core; of one tile on the GPU; of all */
	size_t tile_count, tile_bytes;                    /* at least 2 tiles */
};

struct wcx_gpu_choice {
	size_t least_bytes;              /* decoded, of a batch for the GPU; SIZE_MAX: none */
	uint64_t gpu_ns, gpu_ns_per_mib; /* what a batch takes on an idle GPU, by the clock */
	_Atomic uint64_t late_ns;  /* how much longer recent batches took, on average; the most when that became too much */
	_Atomic uint64_t probe_ns; /* when a GPU that others use gets a batch again */
	_Atomic uint64_t pair_ratio; /* what pairs take, in PAIR_UNITths of as many bytes of other tiles; 0: not seen yet */
};

/* wcx_gpu_choice_init - decide from which size on batches are the GPU's */
void wcx_gpu_choice_init(struct wcx_gpu_choice *choice, const struct wcx_gpu_costs *costs);

/*
 * wcx_gpu_choice_takes - whether the GPU gets a batch with so many bytes of coded tiles now.  Thread-safe, like the next.
 *
 * Ask for what will be decoded whatever else happens: a GPU that others use gets one batch in a while, and this may be it.
 */
bool wcx_gpu_choice_takes(struct wcx_gpu_choice *choice, size_t bytes, uint64_t now_ns);

/* wcx_gpu_choice_note - tell how long the GPU took for a batch, not counting how late its threads learned of that */
void wcx_gpu_choice_note(struct wcx_gpu_choice *choice, size_t bytes, uint64_t ns);

/*
 * wcx_gpu_choice_note_pairs - the same for differences and their bases, whose bytes both count
 *
 * What these take on an idle GPU is not measured beforehand, and differs from kernel to kernel.  The least of late is taken
 * for it, which follows slowly to what later ones take.
 */
void wcx_gpu_choice_note_pairs(struct wcx_gpu_choice *choice, size_t bytes, uint64_t ns);

#endif
