/* SPDX-License-Identifier: MIT */
/* nvCOMP's ANS as a peer: batched, in chunks of several sizes, with its default validation. */
#include <cuda_runtime_api.h>
#include <nvcomp/ans.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "tests/bench/gpu_peer.h"

enum { ALIGN = 256 };

struct gpu_peer {
	char name[48];
	const uint8_t *original;
	size_t original_bytes, chunk, count, bytes;
	nvcompBatchedANSDecompressOpts_t options;
	uint64_t packed_bytes;
	size_t temp_bytes;
	/* on the device; the first three are tables of chunk addresses */
	void **original_chunks, **packed_chunks, **decoded_chunks;
	uint8_t *original_dev, *packed_dev, *decoded_dev, *temp;
	size_t *sizes, *packed_sizes, *decoded_sizes;
	nvcompStatus_t *statuses;
	cudaEvent_t start, stop;
};

static void must(int failed, const char *what)
{
	if (!failed)
		return;
	fprintf(stderr, "gpu_rate: nvCOMP: %s failed (%d)\n", what, failed);
	exit(1);
}

static void *device_alloc(size_t bytes)
{
	void *memory;

	must((int)cudaMalloc(&memory, bytes ? bytes : 1), "cudaMalloc");
	return memory;
}

/* A table, on the device, of equally spaced addresses. */
static void **device_places(uint8_t *first, size_t step, size_t count)
{
	void **places = malloc(count * sizeof *places), **ret = device_alloc(count * sizeof *places);

	must(!places, "malloc");
	for (size_t i = 0; i < count; i++)
		places[i] = first + i * step;
	must((int)cudaMemcpy(ret, places, count * sizeof *places, cudaMemcpyHostToDevice), "cudaMemcpy");
	free(places);
	return ret;
}

static size_t *device_sizes(size_t size, size_t count)
{
	size_t *sizes = malloc(count * sizeof *sizes), *ret = device_alloc(count * sizeof *sizes);

	must(!sizes, "malloc");
	for (size_t i = 0; i < count; i++)
		sizes[i] = size;
	must((int)cudaMemcpy(ret, sizes, count * sizeof *sizes, cudaMemcpyHostToDevice), "cudaMemcpy");
	free(sizes);
	return ret;
}

/* Packs all chunks. */
static void pack(struct gpu_peer *peer, nvcompType_t type)
{
	nvcompBatchedANSCompressOpts_t options = nvcompBatchedANSCompressDefaultOpts;
	size_t most, temp_bytes, *sizes;
	void *temp;

	options.data_type = type;
	must((int)nvcompBatchedANSCompressGetMaxOutputChunkSize(peer->chunk, options, &most), "GetMaxOutputChunkSize");
	most = (most + ALIGN - 1) / ALIGN * ALIGN;
	peer->packed_dev = device_alloc(peer->count * most);
	peer->packed_chunks = device_places(peer->packed_dev, most, peer->count);
	must((int)nvcompBatchedANSCompressGetTempSize(peer->count, peer->chunk, options, &temp_bytes, peer->bytes, 0),
	     "GetTempSize");
	temp = device_alloc(temp_bytes);
	must((int)nvcompBatchedANSCompressAsync((const void *const *)peer->original_chunks, peer->sizes, peer->chunk,
						peer->count, temp, temp_bytes, peer->packed_chunks, peer->packed_sizes,
						options, peer->statuses, 0),
	     "CompressAsync");
	must((int)cudaDeviceSynchronize(), "compressing");
	cudaFree(temp);
	sizes = malloc(peer->count * sizeof *sizes);
	must(!sizes, "malloc");
	must((int)cudaMemcpy(sizes, peer->packed_sizes, peer->count * sizeof *sizes, cudaMemcpyDeviceToHost), "cudaMemcpy");
	for (size_t i = 0; i < peer->count; i++)
		peer->packed_bytes += sizes[i];
	free(sizes);
}

/* A type of nvCOMP for elements of a size. */
struct peer_type {
	uint32_t elem_bytes;
	nvcompType_t type;
	const char *name;
};

static struct gpu_peer *create(const uint8_t *original, size_t bytes, uint32_t repeats, const struct peer_type *type,
			       size_t chunk)
{
	struct gpu_peer *peer = calloc(1, sizeof *peer);

	must(!peer, "calloc");
	snprintf(peer->name, sizeof peer->name, "nvCOMP ANS %s, %zu KiB", type->name, chunk >> 10);
	peer->original = original;
	peer->original_bytes = bytes;
	peer->chunk = chunk;
	peer->count = bytes * repeats / chunk;
	peer->bytes = peer->count * chunk;
	peer->options = nvcompBatchedANSDecompressDefaultOpts;
	peer->options.data_type = type->type;
	peer->original_dev = device_alloc(bytes * repeats);
	for (uint32_t r = 0; r < repeats; r++)
		must((int)cudaMemcpy(peer->original_dev + r * bytes, original, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
	peer->decoded_dev = device_alloc(peer->bytes);
	peer->original_chunks = device_places(peer->original_dev, chunk, peer->count);
	peer->decoded_chunks = device_places(peer->decoded_dev, chunk, peer->count);
	peer->sizes = device_sizes(chunk, peer->count);
	peer->packed_sizes = device_sizes(0, peer->count);
	peer->decoded_sizes = device_sizes(0, peer->count);
	peer->statuses = device_alloc(peer->count * sizeof *peer->statuses);
	pack(peer, type->type);
	must((int)nvcompBatchedANSDecompressGetTempSize(peer->count, chunk, peer->options, &peer->temp_bytes, peer->bytes,
							0),
	     "GetTempSize");
	peer->temp = device_alloc(peer->temp_bytes);
	cudaFree(peer->original_chunks);
	cudaFree(peer->original_dev);
	peer->original_chunks = NULL;
	peer->original_dev = NULL;
	must((int)cudaEventCreate(&peer->start), "cudaEventCreate");
	must((int)cudaEventCreate(&peer->stop), "cudaEventCreate");
	return peer;
}

size_t gpu_peers_create(const uint8_t *original, size_t bytes, uint32_t repeats, uint32_t elem_bytes,
			struct gpu_peer *ret[GPU_PEERS_MAX])
{
	static const struct peer_type types[] = {
		{ 1, NVCOMP_TYPE_CHAR, "char" },       { 1, NVCOMP_TYPE_FLOAT8_E4M3, "e4m3" },
		{ 2, NVCOMP_TYPE_FLOAT16, "float16" }, { 4, NVCOMP_TYPE_FLOAT32, "float32" },
		{ 8, NVCOMP_TYPE_CHAR, "char" },
	};
	static const size_t kib[] = { 32, 64, 128, 256, 1024 };
	size_t count = 0;

	for (size_t t = 0; t < WCX_ARRAY_COUNT(types); t++)
		for (size_t i = 0; i < WCX_ARRAY_COUNT(kib) && types[t].elem_bytes == elem_bytes; i++)
			ret[count++] = create(original, bytes, repeats, &types[t], kib[i] << 10);
	return count;
}

void gpu_peer_free(struct gpu_peer *peer)
{
	cudaEventDestroy(peer->start);
	cudaEventDestroy(peer->stop);
	cudaFree(peer->packed_chunks);
	cudaFree(peer->decoded_chunks);
	cudaFree(peer->packed_dev);
	cudaFree(peer->decoded_dev);
	cudaFree(peer->temp);
	cudaFree(peer->sizes);
	cudaFree(peer->packed_sizes);
	cudaFree(peer->decoded_sizes);
	cudaFree(peer->statuses);
	free(peer);
}

const char *gpu_peer_name(const struct gpu_peer *peer)
{
	return peer->name;
}

uint64_t gpu_peer_bytes(const struct gpu_peer *peer)
{
	return peer->bytes;
}

double gpu_peer_ratio(const struct gpu_peer *peer)
{
	return (double)peer->bytes / (double)peer->packed_bytes;
}

double gpu_peer_run(struct gpu_peer *peer)
{
	float ms;

	must((int)cudaEventRecord(peer->start, 0), "cudaEventRecord");
	must((int)nvcompBatchedANSDecompressAsync((const void *const *)peer->packed_chunks, peer->packed_sizes, peer->sizes,
						  peer->decoded_sizes, peer->count, peer->temp, peer->temp_bytes,
						  peer->decoded_chunks, peer->options, peer->statuses, 0),
	     "DecompressAsync");
	must((int)cudaEventRecord(peer->stop, 0), "cudaEventRecord");
	must((int)cudaEventSynchronize(peer->stop), "decompressing");
	must((int)cudaEventElapsedTime(&ms, peer->start, peer->stop), "cudaEventElapsedTime");
	return ms;
}

bool gpu_peer_check(struct gpu_peer *peer)
{
	uint8_t *decoded = malloc(peer->bytes);
	bool right = true;

	must(!decoded, "malloc");
	must((int)cudaMemset(peer->decoded_dev, 0xA5, peer->bytes), "cudaMemset");
	gpu_peer_run(peer);
	must((int)cudaMemcpy(decoded, peer->decoded_dev, peer->bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
	for (size_t at = 0; at < peer->bytes && right; at += peer->original_bytes) {
		size_t bytes = WCX_MIN(peer->bytes - at, peer->original_bytes);

		right = memcmp(decoded + at, peer->original, bytes) == 0;
	}
	free(decoded);
	return right;
}
