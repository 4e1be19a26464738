/* SPDX-License-Identifier: MIT */
/* Makes and orders file ids. */
#include "fs/mount/file_id.h"

#include <stdint.h>

struct wcx_file_id wcx_file_id_of(const struct stat *st)
{
	struct wcx_file_id id = { .dev = st->st_dev, .ino = st->st_ino };

	if (!S_ISDIR(st->st_mode)) {
		id.mtime = st->st_mtim;
		id.size = st->st_size;
	}
	return id;
}

static int compare_u64(uint64_t a, uint64_t b)
{
	return (a > b) - (a < b);
}

int wcx_file_id_compare(const struct wcx_file_id *a, const struct wcx_file_id *b)
{
	int order = compare_u64(a->ino, b->ino);

	if (!order)
		order = compare_u64(a->dev, b->dev);
	if (!order)
		order = compare_u64((uint64_t)a->size, (uint64_t)b->size);
	if (!order)
		order = compare_u64((uint64_t)a->mtime.tv_sec, (uint64_t)b->mtime.tv_sec);
	if (!order)
		order = compare_u64((uint64_t)a->mtime.tv_nsec, (uint64_t)b->mtime.tv_nsec);
	return order;
}
