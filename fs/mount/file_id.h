/* SPDX-License-Identifier: MIT */
/* Tells the states of stored files apart: a file that is replaced or modified gets another id. */
#ifndef WCX_FILE_ID_H
#define WCX_FILE_ID_H

#include <sys/stat.h>
#include <sys/types.h>

/* mtime and size are 0 for a directory, which stays the same when files are added to it. */
struct wcx_file_id {
	dev_t dev;
	ino_t ino;
	struct timespec mtime;
	off_t size;
};

struct wcx_file_id wcx_file_id_of(const struct stat *st);

/* wcx_file_id_compare - order ids: negative, 0 for the same state of the same file, or positive */
int wcx_file_id_compare(const struct wcx_file_id *a, const struct wcx_file_id *b);

#endif
