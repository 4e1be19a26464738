/* SPDX-License-Identifier: MIT */
/*
 * Codecs to compare with, on the same weights in blocks of 64 KiB: rANS 32x16 of order 0 from htscodecs, loaded if installed
 * (Debian's libhtscodecs2), and Zstandard at level 19.  Errors other than a missing library end the program.
 */
#ifndef WCX_PEER_CODECS_H
#define WCX_PEER_CODECS_H

#include <stdbool.h>

#include "tests/bench/weight_set.h"

enum { PEER_COUNT = 2 };

struct peer {
	const char *name;
	/* Both return the bytes written, or 0 on failure. */
	size_t (*pack)(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_capacity);
	size_t (*unpack)(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_capacity);
	void *pack_context, *unpack_context; /* both NULL if the codec is missing */
};

/* A weight set packed by a peer. */
struct peer_blocks {
	struct peer_block {
		const uint8_t *original;
		uint8_t *packed, *unpacked;
		size_t bytes, packed_bytes;
	} * blocks;
	size_t count, packed_bytes;
};

/* peers_open - prepare the peers, zstd only if wanted, for use by one thread; the caller closes them */
void peers_open(struct peer peers[PEER_COUNT], bool with_zstd);
void peers_close(struct peer peers[PEER_COUNT]);
bool peer_is_there(const struct peer *peer);

/* peer_blocks_pack - pack the tensors of a set in blocks, unpack and compare; the caller frees the blocks */
void peer_blocks_pack(struct peer_blocks *blocks, struct peer *peer, const struct weight_set *set);
void peer_blocks_free(struct peer_blocks *blocks);

/* peer_blocks_unpack - unpack all blocks */
void peer_blocks_unpack(const struct peer_blocks *blocks, struct peer *peer);

/* peer_blocks_check - compare the unpacked blocks with the original, then clear them */
void peer_blocks_check(const struct peer_blocks *blocks, const struct peer *peer);

#endif
