/* SPDX-License-Identifier: MIT */
/* Tells stored files apart: a packed file gets a new id when its content changes, a plain file keeps its id. */
#ifndef WCX_FILE_ID_H
#define WCX_FILE_ID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "codec/arith.h"
#include "codec/le.h"
#include "fs/format/container.h"

/*
 * version: for a packed file, a value made of its index checksum and SHA-256: a rewrite with the same size and times changes
 * it, a chmod does not.  Inode numbers are reused, so for a symlink, whose text never changes, the inode's change time, and
 * for anything else the time of its birth; 0 where the file system does not tell that, or may change it.
 */
struct wcx_file_id {
	dev_t dev;
	ino_t ino;
	uint64_t version;
};

/* wcx_file_id_of_packed - the id of a packed file with these attributes and this superblock */
static inline struct wcx_file_id wcx_file_id_of_packed(const struct stat *st, const struct wcx_superblock *sb)
{
	return (struct wcx_file_id){ st->st_dev, st->st_ino, sb->index_checksum ^ wcx_le64_read(sb->sha256) };
}

/* wcx_file_id_compare - order ids: negative, 0 for the same file, or positive */
static inline int wcx_file_id_compare(const struct wcx_file_id *a, const struct wcx_file_id *b)
{
	const uint64_t keys[][2] = { { a->ino, b->ino }, { a->dev, b->dev }, { a->version, b->version } };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(keys); i++)
		if (keys[i][0] != keys[i][1])
			return keys[i][0] < keys[i][1] ? -1 : 1;
	return 0;
}

/* wcx_file_is_unchanged - whether two looks at one file saw the same size and times, that of the inode's change included */
static inline bool wcx_file_is_unchanged(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

#endif
