/* SPDX-License-Identifier: MIT */
/* Replaces the peer in builds without one. */
#include "tests/bench/gpu_peer.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

size_t gpu_peers_create(const uint8_t *original, size_t bytes, uint32_t repeats, uint32_t elem_bytes,
			struct gpu_peer *ret[GPU_PEERS_MAX])
{
	return 0;
}

void gpu_peer_free(struct gpu_peer *peer)
{
}

const char *gpu_peer_name(const struct gpu_peer *peer)
{
	return "";
}

uint64_t gpu_peer_bytes(const struct gpu_peer *peer)
{
	return 0;
}

double gpu_peer_ratio(const struct gpu_peer *peer)
{
	return 0;
}

bool gpu_peer_check(struct gpu_peer *peer)
{
	return false;
}

double gpu_peer_run(struct gpu_peer *peer)
{
	return 0;
}
