/* SPDX-License-Identifier: MIT */
/* Tells the states of stored files apart: a file that is replaced or modified gets another id. */
#ifndef WCX_FILE_ID_H
#define WCX_FILE_ID_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "codec/arith.h"

/* mtime and size are 0 for a directory, which stays the same when files are added to it. */
struct wcx_file_id {
	dev_t dev;
	ino_t ino;
	struct timespec mtime;
	off_t size;
};

static inline struct wcx_file_id wcx_file_id_of(const struct stat *st)
{
	struct wcx_file_id id = { .dev = st->st_dev, .ino = st->st_ino };

	if (!S_ISDIR(st->st_mode)) {
		id.mtime = st->st_mtim;
		id.size = st->st_size;
	}
	return id;
}

/* wcx_file_id_compare - order ids: negative, 0 for the same state of the same file, or positive */
static inline int wcx_file_id_compare(const struct wcx_file_id *a, const struct wcx_file_id *b)
{
	const uint64_t keys[][2] = {
		{ a->ino, b->ino },
		{ a->dev, b->dev },
		{ (uint64_t)a->size, (uint64_t)b->size },
		{ (uint64_t)a->mtime.tv_sec, (uint64_t)b->mtime.tv_sec },
		{ (uint64_t)a->mtime.tv_nsec, (uint64_t)b->mtime.tv_nsec },
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(keys); i++)
		if (keys[i][0] != keys[i][1])
			return keys[i][0] < keys[i][1] ? -1 : 1;
	return 0;
}

#endif
