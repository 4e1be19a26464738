/* SPDX-License-Identifier: MIT */
/* Reads the packed bytes of tiles. */
#include "fs/read/packed_tiles.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

#include "codec/arith.h"
#include "fs/base/file_io.h"

enum {
	PAGE_BYTES = 4096,
	FETCH_BYTES = 128 << 10, /* the kernel fetches no more in a call than its read-ahead, by default that much */
};

/* Whether a byte of the packed file is in the page cache: POSIX_FADV_WILLNEED looks up every page even of cached ranges. */
static bool is_cached(const struct wcx_container *container, uint64_t packed_offset)
{
	uint8_t byte;
	const struct iovec iov = { &byte, 1 };

	return preadv2(wcx_container_fd(container), &iov, 1, (off_t)packed_offset, RWF_NOWAIT) == 1;
}

/*
 * The page before the first whole one is mostly there, because it ends what was read before.  A single pread of all would
 * fetch a piece, or two, at a time, and wait for each: on a network that is a round trip.
 */
void wcx_packed_fetch(const struct wcx_container *container, uint64_t start, uint64_t end)
{
	if (is_cached(container, WCX_MIN(WCX_ALIGN_UP(start, PAGE_BYTES), end - 1)) && is_cached(container, end - 1))
		return;
	for (; start < end; start += FETCH_BYTES)
		posix_fadvise(wcx_container_fd(container), (off_t)start, (off_t)WCX_MIN(end - start, FETCH_BYTES),
			      POSIX_FADV_WILLNEED);
}

/* Packed bytes of neighbouring tiles. */
struct packed_run {
	uint64_t start, end;
	size_t after; /* number of the first tile behind it */
};

/* The tiles from first on that are adjacent in the file, up to one that the caller has.  None if it has the first. */
static struct packed_run run_at(const struct wcx_image_tile *tiles, size_t first, size_t count)
{
	const uint64_t start = tiles[first].info->packed_offset;
	struct packed_run run = { .start = start, .end = start, .after = first };

	while (run.after < count && !tiles[run.after].is_read &&
	       tiles[run.after].info->packed_offset == wcx_tile_align_up(run.end)) {
		run.end = tiles[run.after].info->packed_offset + tiles[run.after].info->packed_bytes;
		run.after++;
	}
	return run;
}

void wcx_packed_fetch_tiles(const struct wcx_container *container, const struct wcx_image_tile *tiles, size_t count)
{
	for (size_t first = 0; first < count;) {
		const struct packed_run run = run_at(tiles, first, count);

		if (run.end - run.start > FETCH_BYTES)
			wcx_packed_fetch(container, run.start, run.end);
		first = WCX_MAX(run.after, first + 1);
	}
}

void wcx_packed_read_tiles(const struct wcx_container *container, struct wcx_image_tile *tiles, size_t count,
			   uint8_t *buffer)
{
	for (size_t first = 0; first < count;) {
		const struct packed_run run = run_at(tiles, first, count);
		int r;

		if (run.after == first) {
			tiles[first++].r = 0;
			continue;
		}
		r = wcx_read_exact(wcx_container_fd(container), buffer, (size_t)(run.end - run.start), run.start);
		for (; first < run.after; first++) {
			tiles[first].r = r == -ENODATA ? -EBADMSG : r; /* the file has been truncated */
			tiles[first].packed = buffer + (tiles[first].info->packed_offset - run.start);
		}
		buffer += wcx_tile_align_up(run.end - run.start);
	}
}
