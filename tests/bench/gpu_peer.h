/* SPDX-License-Identifier: MIT */
/* Decoders of a peer codec, one for each chunk size; none in builds without the peer. */
#ifndef WCX_GPU_PEER_H
#define WCX_GPU_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GPU_PEERS_MAX = 10 };

struct gpu_peer;

/*
 * gpu_peers_create - pack `repeats` copies of the bytes on the device
 *
 * Returns the number of peers, which the caller frees.  original must outlive them.
 */
size_t gpu_peers_create(const uint8_t *original, size_t bytes, uint32_t repeats, uint32_t elem_bytes,
			struct gpu_peer *ret[GPU_PEERS_MAX]);
void gpu_peer_free(struct gpu_peer *peer);

const char *gpu_peer_name(const struct gpu_peer *peer);
uint64_t gpu_peer_bytes(const struct gpu_peer *peer); /* decoded bytes of a run: whole chunks */
double gpu_peer_ratio(const struct gpu_peer *peer);

/* gpu_peer_check - decode over overwritten memory; whether all repeats are correct */
bool gpu_peer_check(struct gpu_peer *peer);

/* gpu_peer_run - decode everything; milliseconds between CUDA events */
double gpu_peer_run(struct gpu_peer *peer);

#endif
