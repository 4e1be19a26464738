/* SPDX-License-Identifier: MIT */
/*
 * Other programs' codecs, on the same weights in blocks of 64 KiB: rANS 32x16 of order 0 of htscodecs, which is loaded if it
 * is installed (Debian's libhtscodecs2), and Zstandard at level 19.
 *
 * What goes wrong ends the program, but a library that is not there.
 */
#ifndef WCX_PEER_CODECS_H
#define WCX_PEER_CODECS_H

#include "tests/bench/weight_set.h"

enum { PEER_COUNT = 2 };

struct peer {
	const char *name;
	/* Both return the bytes written, or 0; room is that at dst. */
	size_t (*pack)(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t room);
	size_t (*unpack)(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t room);
	void *pack_context, *unpack_context; /* NULL, both, where the codec is not there */
};

/* A set, packed by a peer. */
struct peer_blocks {
	struct peer_block {
		const uint8_t *original;
		uint8_t *packed, *unpacked;
		size_t bytes, packed_bytes;
	} * blocks;
	size_t count, packed_bytes;
};

/* peers_open - make the peers ready, for one thread; the caller closes them */
void peers_open(struct peer peers[PEER_COUNT]);
void peers_close(struct peer peers[PEER_COUNT]);
int peer_is_there(const struct peer *peer);

/* peer_blocks_pack - pack the tensors of a set block by block, unpack them again and compare; the caller frees them */
void peer_blocks_pack(struct peer_blocks *blocks, struct peer *peer, const struct weight_set *set);
void peer_blocks_free(struct peer_blocks *blocks);

/* peer_blocks_unpack - unpack all blocks */
void peer_blocks_unpack(const struct peer_blocks *blocks, struct peer *peer);

/* peer_blocks_check - compare what was unpacked with the original, and wipe it */
void peer_blocks_check(const struct peer_blocks *blocks, const struct peer *peer);

#endif
