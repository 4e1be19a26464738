/* SPDX-License-Identifier: MIT */
/*
 * Counts decoded bytes per requested byte, for tiles of several dims.
 *
 *	tile_geometry
 *
 * The tensors are 4096 x 14336 INT8, a matrix of a model with 7 billion weights.  All bytes of a tile are the same and
 * follow from its number, which keeps the file small.  Reads go through wcx_image_read; the cache counts its
 * misses.  Every read is compared with the expected bytes; exits with status 1 if it differs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/format/container.h"
#include "fs/format/index_writer.h"
#include "fs/read/decoder.h"
#include "fs/read/image.h"
#include "fs/read/tile_cache.h"
#include "tests/bench/measure.h"

enum {
	ROWS = 4096,
	COLS = 14336,
	TENSOR_BYTES = ROWS * COLS,
	TENSOR_COUNT = 16, /* one alone would fit into the cache */
	HEADER_BYTES = 96, /* shifts the tiles against the pages, as in real files */
	PAGE_BYTES = 4096,
	SEQUENTIAL_BYTES = 128 << 10, /* the kernel's read-ahead */
	RANDOM_BYTES = 64 << 10,
	RANDOM_READS = 4000,
	CACHE_BYTES = 64 << 20,
};

struct geometry {
	const char *name;
	uint64_t cols; /* of the matrix that is cut into tiles */
	uint32_t tile_rows, tile_cols;
};

static const struct geometry geometries[] = {
	{ "256 × 256", COLS, 256, 256 },
	{ "whole rows, 4 × 14336", COLS, 4, COLS },
	{ "whole rows, 2 × 14336", COLS, 2, COLS },
	{ "flat, 65,536", TENSOR_BYTES, 1, 65536 },
	{ "flat, 32,768", TENSOR_BYTES, 1, 32768 },
};

/* A packed file with one geometry, and the objects that read it. */
struct subject {
	const struct geometry *geometry;
	size_t tile_bytes;
	struct wcx_tile_cache *cache;
	struct wcx_decoder *decoder;
	struct wcx_image *image;
};

static void fail(const struct geometry *geometry, const char *what)
{
	fprintf(stderr, "tile_geometry: %s: %s\n", geometry->name, what);
	exit(1);
}

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A growing file in memory. */
struct output {
	FILE *file;
	uint8_t *bytes;
	size_t size;
};

/* The byte that fills tile number `tile` of the file. */
static uint8_t tile_byte(uint64_t tile)
{
	return (uint8_t)(tile * 0x9E3779B97F4A7C15 >> 56);
}

static void write_entry(FILE *out, uint64_t number)
{
	const struct wcx_tile_info tile = { .mode = WCX_TILE_CONSTANT, .constant = tile_byte(number) };
	uint8_t entry[WCX_TILE_ENTRY_BYTES];

	wcx_tile_entry_write(&tile, entry);
	fwrite(entry, 1, sizeof entry, out);
}

static void write_segment(FILE *out, uint64_t bytes, uint64_t cols, uint32_t tile_rows, uint32_t tile_cols)
{
	const struct wcx_segment segment = {
		.bytes = bytes,
		.cols = cols,
		.tile_rows = tile_rows,
		.tile_cols = tile_cols,
		.recipe = { .elem_bytes = 1, .field_count = 1 },
	};
	uint8_t entry[WCX_SEGMENT_BYTES];

	wcx_segment_write(&segment, entry);
	fwrite(entry, 1, sizeof entry, out);
}

/* The index of the file: a header and TENSOR_COUNT tensors. */
static struct output make_index(const struct subject *subject)
{
	static const struct wcx_field raw = { .width = 8 };
	const struct geometry *g = subject->geometry;
	uint64_t tiles = 1 + TENSOR_COUNT * (TENSOR_BYTES / subject->tile_bytes);
	uint8_t field[WCX_FIELD_BYTES];
	struct output index = { 0 };

	index.file = open_memstream((char **)&index.bytes, &index.size);
	if (!index.file)
		fail(g, "no memory");
	write_segment(index.file, HEADER_BYTES, HEADER_BYTES, 1, HEADER_BYTES);
	for (int i = 0; i < TENSOR_COUNT; i++)
		write_segment(index.file, TENSOR_BYTES, g->cols, g->tile_rows, g->tile_cols);
	wcx_field_write(&raw, 0, field);
	for (int i = 0; i < 1 + TENSOR_COUNT; i++)
		fwrite(field, 1, sizeof field, index.file);
	for (uint64_t i = 0; i < tiles; i++)
		write_entry(index.file, i);
	if (fclose(index.file) != 0)
		fail(g, "no memory");
	return index;
}

/* Makes the packed file, as an open file without a name.  Nothing here reads its SHA-256, which is left out. */
static int make_file(const struct subject *subject)
{
	struct output index = make_index(subject);
	struct wcx_superblock sb = {
		.original_bytes = HEADER_BYTES + (uint64_t)TENSOR_COUNT * TENSOR_BYTES,
		.index_offset = WCX_SUPERBLOCK_BYTES,
		.index_bytes = index.size,
		.segment_count = 1 + TENSOR_COUNT,
		.field_count = 1 + TENSOR_COUNT,
		.tile_count = 1 + TENSOR_COUNT * (TENSOR_BYTES / subject->tile_bytes),
		.index_checksum = wcx_checksum64(index.bytes, index.size),
	};
	uint8_t superblock[WCX_SUPERBLOCK_BYTES];
	int fd = memfd_create("tile_geometry", MFD_CLOEXEC);

	sb.packed_bytes = sb.index_offset + sb.index_bytes;
	wcx_superblock_write(&sb, superblock);
	if (fd < 0 || write(fd, superblock, sizeof superblock) != (ssize_t)sizeof superblock ||
	    write(fd, index.bytes, index.size) != (ssize_t)index.size)
		fail(subject->geometry, "the file was not written");
	free(index.bytes);
	return fd;
}

static void subject_open(struct subject *subject, const struct geometry *geometry, uint64_t cache_bytes)
{
	struct wcx_error err;

	subject->geometry = geometry;
	subject->tile_bytes = (size_t)geometry->tile_rows * geometry->tile_cols;
	subject->cache = wcx_tile_cache_create(cache_bytes);
	if (!subject->cache)
		fail(geometry, "no memory");
	if (wcx_decoder_create(WCX_DECODER_CPU, NULL, NULL, &subject->decoder, &err) < 0 ||
	    wcx_image_open(make_file(subject), geometry->name, subject->cache, subject->decoder, &subject->image, &err) < 0)
		fail(geometry, err.text);
}

static void subject_close(struct subject *subject)
{
	wcx_image_put(subject->image);
	wcx_decoder_free(subject->decoder);
	wcx_tile_cache_free(subject->cache);
}

/* The expected byte at an offset behind the header; the same until the end of the row of its tile, *left_ret bytes on. */
static uint8_t expected_at(const struct subject *subject, uint64_t offset, size_t *left_ret)
{
	const struct geometry *g = subject->geometry;
	uint64_t tensor = (offset - HEADER_BYTES) / TENSOR_BYTES, in_tensor = (offset - HEADER_BYTES) % TENSOR_BYTES;
	uint64_t row = in_tensor / g->cols, col = in_tensor % g->cols;

	*left_ret = g->tile_cols - col % g->tile_cols;
	return tile_byte(1 + tensor * (TENSOR_BYTES / subject->tile_bytes) + row / g->tile_rows * (g->cols / g->tile_cols) +
			 col / g->tile_cols);
}

static void read_checked(struct subject *subject, uint8_t *dst, size_t bytes, uint64_t offset)
{
	struct wcx_error err = { "too few bytes" };

	if (wcx_image_read(subject->image, dst, bytes, offset, &err) != (ssize_t)bytes)
		fail(subject->geometry, err.text);
	for (size_t i = 0, same; i < bytes; i += same) {
		uint8_t expected = expected_at(subject, offset + i, &same);

		same = WCX_MIN(same, bytes - i);
		if (dst[i] != expected || memcmp(dst + i, dst + i + 1, same - 1) != 0)
			fail(subject->geometry, "a read gave wrong bytes");
	}
}

/* Reads the first tensor from start to end, in requests of the kernel's read-ahead; returns the bytes requested. */
static uint64_t read_sequential(struct subject *subject, uint8_t *dst)
{
	uint64_t offset = SEQUENTIAL_BYTES; /* behind the header, whose tile has another size */

	for (; offset + SEQUENTIAL_BYTES <= HEADER_BYTES + TENSOR_BYTES; offset += SEQUENTIAL_BYTES)
		read_checked(subject, dst, SEQUENTIAL_BYTES, offset);
	return offset - SEQUENTIAL_BYTES;
}

/* Reads at random pages of the tensors; returns the bytes requested. */
static uint64_t read_random(struct subject *subject, uint8_t *dst)
{
	uint64_t pages = (wcx_image_bytes(subject->image) - RANDOM_BYTES) / PAGE_BYTES, state = 88172645463325252;

	for (int i = 0; i < RANDOM_READS; i++)
		read_checked(subject, dst, RANDOM_BYTES, (1 + random_next(&state) % pages) * PAGE_BYTES);
	return (uint64_t)RANDOM_READS * RANDOM_BYTES;
}

/* Decoded bytes per requested byte. */
static double measure_reads(const struct geometry *geometry, uint64_t cache_bytes,
			    uint64_t (*read)(struct subject *subject, uint8_t *dst))
{
	static uint8_t dst[SEQUENTIAL_BYTES];
	static struct subject subject;
	struct wcx_tile_cache_stats stats;
	uint64_t requested;

	subject_open(&subject, geometry, cache_bytes);
	requested = read(&subject, dst);
	wcx_tile_cache_get_stats(subject.cache, &stats);
	subject_close(&subject);
	return (double)(stats.misses * subject.tile_bytes) / (double)requested;
}

int main(int argc, char **argv)
{
	measure_print_origin(argc, argv);
	printf("Decoded bytes per requested byte; %d tensors of %d × %d INT8, random reads at pages.\n\n", TENSOR_COUNT,
	       ROWS, COLS);
	printf("| tiles | sequential 128 KiB, no cache | 64 MiB cache | random 64 KiB, no cache | 64 MiB cache |\n"
	       "|---|---|---|---|---|\n");
	for (size_t i = 0; i < WCX_ARRAY_COUNT(geometries); i++) {
		const struct geometry *g = &geometries[i];

		printf("| %s | %.2f | %.2f | %.2f | %.2f |\n", g->name, measure_reads(g, 0, read_sequential),
		       measure_reads(g, CACHE_BYTES, read_sequential), measure_reads(g, 0, read_random),
		       measure_reads(g, CACHE_BYTES, read_random));
	}
	return 0;
}
