/* SPDX-License-Identifier: MIT */
/* Tells whether two names or descriptors are of one file. */
#ifndef WCX_SAME_FILE_H
#define WCX_SAME_FILE_H

#include <stdbool.h>
#include <sys/stat.h>

/* wcx_is_same_file - whether two statuses are of one file, whatever has changed of it in between */
static inline bool wcx_is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

#endif
