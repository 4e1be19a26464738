/* SPDX-License-Identifier: MIT */
/* Packs and unpacks with the codecs to compare with. */
#include "tests/bench/peer_codecs.h"

#include <dlfcn.h>
#include <zstd.h>

#include "codec/arith.h"
#include "tests/bench/must.h"

enum {
	BLOCK_BYTES = 64 << 10,
	PACKED_CAPACITY = BLOCK_BYTES * 5 / 4, /* more than either codec needs for random bytes */
	ZSTD_LEVEL = 19,
	RANS_X32_ORDER_0 = 4,
};

/* From htscodecs/rANS_static4x16.h: out_size is the capacity of out, and on return the bytes written. */
typedef unsigned char *rans_compress_fn(unsigned char *in, unsigned in_size, unsigned char *out, unsigned *out_size,
					int order);
typedef unsigned char *rans_uncompress_fn(unsigned char *in, unsigned in_size, unsigned char *out, unsigned *out_size);

struct rans_library {
	void *handle;
	rans_compress_fn *compress;
	rans_uncompress_fn *uncompress;
};

/* The library takes its input as non-const but does not write to it. */
static size_t rans_pack(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_capacity)
{
	const struct rans_library *library = peer->pack_context;
	unsigned bytes = (unsigned)dst_capacity;

	return library->compress((unsigned char *)src, (unsigned)src_bytes, dst, &bytes, RANS_X32_ORDER_0) ? bytes : 0;
}

static size_t rans_unpack(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_capacity)
{
	const struct rans_library *library = peer->unpack_context;
	unsigned bytes = (unsigned)dst_capacity;

	return library->uncompress((unsigned char *)src, (unsigned)src_bytes, dst, &bytes) ? bytes : 0;
}

static size_t zstd_pack(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_capacity)
{
	size_t bytes = ZSTD_compressCCtx(peer->pack_context, dst, dst_capacity, src, src_bytes, ZSTD_LEVEL);

	return ZSTD_isError(bytes) ? 0 : bytes;
}

static size_t zstd_unpack(struct peer *peer, const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_capacity)
{
	size_t bytes = ZSTD_decompressDCtx(peer->unpack_context, dst, dst_capacity, src, src_bytes);

	return ZSTD_isError(bytes) ? 0 : bytes;
}

/* C has no conversion from the object pointer that dlsym returns to a function pointer. */
static void find_function(void *handle, const char *name, void *function_ret)
{
	void *found = dlsym(handle, name);

	if (!found)
		must_not("libhtscodecs.so.2", dlerror());
	memcpy(function_ret, &found, sizeof found);
}

static struct rans_library *open_rans(void)
{
	void *handle = dlopen("libhtscodecs.so.2", RTLD_NOW);
	struct rans_library *library;

	if (!handle)
		return NULL;
	library = must_alloc(sizeof *library);
	library->handle = handle;
	find_function(handle, "rans_compress_to_4x16", &library->compress);
	find_function(handle, "rans_uncompress_to_4x16", &library->uncompress);
	return library;
}

void peers_open(struct peer peers[PEER_COUNT], bool with_zstd)
{
	struct rans_library *library = open_rans();

	peers[0] = (struct peer){ "rANS 32x16", rans_pack, rans_unpack, library, library };
	peers[1] = (struct peer){ "zstd -19", zstd_pack, zstd_unpack, NULL, NULL };
	if (!with_zstd)
		return;
	peers[1].pack_context = ZSTD_createCCtx();
	peers[1].unpack_context = ZSTD_createDCtx();
	if (!peers[1].pack_context || !peers[1].unpack_context)
		must_not("memory", strerror(ENOMEM));
}

void peers_close(struct peer peers[PEER_COUNT])
{
	struct rans_library *library = peers[0].pack_context;

	if (library)
		dlclose(library->handle);
	free(library);
	ZSTD_freeCCtx(peers[1].pack_context);
	ZSTD_freeDCtx(peers[1].unpack_context);
}

bool peer_is_there(const struct peer *peer)
{
	return peer->pack_context != NULL;
}

/* Cuts the tensors into blocks, each with its own buffers. */
static void cut_blocks(struct peer_blocks *blocks, const struct weight_set *set)
{
	*blocks = (struct peer_blocks){ 0 };
	for (size_t i = 0; i < set->tensor_count; i++)
		blocks->count += WCX_DIV_UP(set->tensors[i].bytes, BLOCK_BYTES);
	blocks->blocks = must_alloc(blocks->count * sizeof *blocks->blocks);
	for (size_t i = 0, b = 0; i < set->tensor_count; i++) {
		const struct wcx_tensor *tensor = &set->tensors[i];

		for (uint64_t at = 0; at < tensor->bytes; at += BLOCK_BYTES, b++) {
			size_t bytes = (size_t)WCX_MIN(tensor->bytes - at, BLOCK_BYTES);

			blocks->blocks[b] = (struct peer_block){
				.original = set->base + tensor->offset + at,
				.packed = must_alloc(PACKED_CAPACITY),
				.unpacked = must_alloc(bytes),
				.bytes = bytes,
			};
			memset(blocks->blocks[b].unpacked, 0, bytes);
		}
	}
}

void peer_blocks_pack(struct peer_blocks *blocks, struct peer *peer, const struct weight_set *set)
{
	cut_blocks(blocks, set);
	for (size_t i = 0; i < blocks->count; i++) {
		struct peer_block *block = &blocks->blocks[i];

		block->packed_bytes = peer->pack(peer, block->original, block->bytes, block->packed, PACKED_CAPACITY);
		if (!block->packed_bytes)
			must_not(peer->name, "a block was not packed");
		blocks->packed_bytes += block->packed_bytes;
	}
	peer_blocks_unpack(blocks, peer);
	peer_blocks_check(blocks, peer);
}

void peer_blocks_free(struct peer_blocks *blocks)
{
	for (size_t i = 0; i < blocks->count; i++) {
		free(blocks->blocks[i].packed);
		free(blocks->blocks[i].unpacked);
	}
	free(blocks->blocks);
}

void peer_blocks_unpack(const struct peer_blocks *blocks, struct peer *peer)
{
	for (size_t i = 0; i < blocks->count; i++) {
		const struct peer_block *block = &blocks->blocks[i];

		if (peer->unpack(peer, block->packed, block->packed_bytes, block->unpacked, block->bytes) != block->bytes)
			must_not(peer->name, "a block was not unpacked");
	}
}

void peer_blocks_check(const struct peer_blocks *blocks, const struct peer *peer)
{
	for (size_t i = 0; i < blocks->count; i++) {
		const struct peer_block *block = &blocks->blocks[i];

		if (memcmp(block->unpacked, block->original, block->bytes) != 0)
			must_not(peer->name, "a block was unpacked to other bytes");
		memset(block->unpacked, 0, block->bytes);
	}
}
