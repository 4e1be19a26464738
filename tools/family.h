/* SPDX-License-Identifier: MIT */
/* Which packed files of a store depend on which others. */
#ifndef WCX_FAMILY_H
#define WCX_FAMILY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/base/error.h"
#include "fs/format/container.h"
#include "fs/read/store_walk.h"

/* A base, as a file names it. */
struct wcx_family_base {
	uint8_t sha256[WCX_SHA256_BYTES];
	uint64_t original_bytes;
	char *hint; /* its path from the file's directory, as it was when that was packed */
};

/* A packed file. */
struct wcx_family_file {
	char *path; /* relative to the store */
	struct stat st;
	uint8_t sha256[WCX_SHA256_BYTES]; /* of the original */
	uint64_t original_bytes;
	struct wcx_family_base *bases;
	uint32_t base_count;
	int r;         /* 0; or why it could not be read whole, with a message.  Its bases are not known then */
	bool is_newer; /* it needs a version or features that this program does not have */
	struct wcx_error *why;
};

struct wcx_family {
	struct wcx_store_walk walk;
	struct wcx_family_file *files; /* sorted by path */
	size_t count;
};

/*
 * wcx_family_scan - read the superblocks of all packed files below a directory, and of those that have bases the index
 *
 * With climbs also around it, as far as struct wcx_store_walk says.  Once *stop is true, ends with -EINTR.  Returns 0 or
 * -errno; *family is to be freed in either case.
 */
int wcx_family_scan(struct wcx_family *family, const char *store, bool climbs, const atomic_bool *stop,
		    struct wcx_error *err);

/* wcx_family_refresh - the same again, with the time that it takes to find what has changed */
int wcx_family_refresh(struct wcx_family *family, const atomic_bool *stop, struct wcx_error *err);
void wcx_family_free(struct wcx_family *family);

/* wcx_family_find - the first file with an original that may be a base; NULL: there is none */
const struct wcx_family_file *wcx_family_find(const struct wcx_family *family, const struct wcx_family_base *base);

/* wcx_family_depends - whether a file has the original of another as a base */
bool wcx_family_depends(const struct wcx_family_file *file, const struct wcx_family_file *base);

/* A packed file that is to go, by its name in an open directory. */
struct wcx_packed_name {
	int directory_fd, fd;
	const char *name;
	const struct wcx_superblock *sb;
	const struct stat *tree; /* a directory that goes with it: dependents in that do not matter; NULL: none does */
};

/*
 * wcx_family_needs - whether a file would lose its base if that name went
 *
 * Not if its hint leads to another file with the original: that is its base then, such as in a copy of the store beside it.
 * What is in the store must find that in the store.
 */
bool wcx_family_needs(const struct wcx_family *family, const struct wcx_family_file *file,
		      const struct wcx_packed_name *base);

/* wcx_family_is_unknown - whether nobody can tell what a file depends on, although it may be sound; or it is a directory
 * that could not be listed */
bool wcx_family_is_unknown(const struct wcx_family_file *file);

/* wcx_family_hides - whether that is a reason to keep what it may depend on: around the store, only what is too new is */
bool wcx_family_hides(const struct wcx_family_file *file);

/* wcx_is_version3 - whether an open file with that status is of version 3, which has no bases */
bool wcx_is_version3(int fd, const struct stat *st);

#endif
