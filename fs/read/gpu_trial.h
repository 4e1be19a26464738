/* SPDX-License-Identifier: MIT */
/* Measures what it costs to decode tiles on a GPU and on a core. */
#ifndef WCX_GPU_TRIAL_H
#define WCX_GPU_TRIAL_H

#include <stdbool.h>

#include "codec/decode_variant.h"
#include "cuda/gpu_decode.h"
#include "fs/read/gpu_choice.h"

/*
 * wcx_gpu_trial_run - decode 4 MiB of tiles on both, and one on the GPU, several times, and take the least of each
 *
 * All memory is pinned, as where a mount decodes to, and freed again.  Returns false without memory, or if the GPU fails.
 */
bool wcx_gpu_trial_run(struct wcx_gpu *gpu, const struct wcx_decode_variant *cpu, struct wcx_gpu_costs *ret);

#endif
