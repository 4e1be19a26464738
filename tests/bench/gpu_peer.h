/* SPDX-License-Identifier: MIT */
/* A peer's decoders, one for each chunk size that it is timed with; none where the build has no peer. */
#ifndef WCX_GPU_PEER_H
#define WCX_GPU_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GPU_PEERS_MAX = 8 };

struct gpu_peer;

/*
 * gpu_peers_create - pack the bytes, repeated, on the device; how many peers there are, each to be freed.  original must
 * outlive them.
 */
size_t gpu_peers_create(const uint8_t *original, size_t bytes, uint32_t repeats, uint32_t elem_bytes,
			struct gpu_peer *ret[GPU_PEERS_MAX]);
void gpu_peer_free(struct gpu_peer *peer);

const char *gpu_peer_name(const struct gpu_peer *peer);
uint64_t gpu_peer_bytes(const struct gpu_peer *peer); /* that a run decodes: whole chunks */
double gpu_peer_ratio(const struct gpu_peer *peer);

/* gpu_peer_check - decode over overwritten memory; whether the bytes, of all repeats, are right */
bool gpu_peer_check(struct gpu_peer *peer);

/* gpu_peer_run - decode all; milliseconds by the device's events */
double gpu_peer_run(struct gpu_peer *peer);

#endif
