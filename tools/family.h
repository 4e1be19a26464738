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
#include "tools/store_scope.h"

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
	char *store;
	int store_fd;
	struct stat store_st;
	struct wcx_family_file *files; /* sorted by path */
	size_t count, capacity;
	char *named;     /* the part of the store, relative to it, that the command line named; NULL: all of it */
	bool is_partial; /* something outside of that part could not be read */
};

/*
 * wcx_family_scan - read the superblocks of all packed files below a directory, and of those that have bases the index
 *
 * Once *stop is true, ends with -EINTR.  Returns 0 or -errno; *family is to be freed in either case.
 */
int wcx_family_scan(struct wcx_family *family, const char *store, const atomic_bool *stop, struct wcx_error *err);

/*
 * wcx_family_scan_scope - the same for the place where dependents are looked for
 *
 * Outside of what the command line named, other file systems are not entered, and what cannot be read is left out.
 */
int wcx_family_scan_scope(struct wcx_family *family, const struct wcx_store_scope *scope, const atomic_bool *stop,
			  struct wcx_error *err);
void wcx_family_free(struct wcx_family *family);

/* wcx_family_find - the first file with an original that may be a base; NULL: there is none */
const struct wcx_family_file *wcx_family_find(const struct wcx_family *family, const struct wcx_family_base *base);

/* wcx_family_depends - whether a file has the original of another as a base */
bool wcx_family_depends(const struct wcx_family_file *file, const struct wcx_family_file *base);

/*
 * wcx_family_needs - whether a file would lose its base if a file of that original, which st is of, went
 *
 * Not if it is that file itself; nor, outside of what the command line named, if its hint leads to another file with the
 * original: that is its base, such as in a copy of a store beside it.
 */
bool wcx_family_needs(const struct wcx_family *family, const struct wcx_family_file *file,
		      const struct wcx_family_file *base, const struct stat *st);

/* wcx_family_is_named - whether a file is in what the command line named */
bool wcx_family_is_named(const struct wcx_family *family, const struct wcx_family_file *file);

/* wcx_family_hides - whether it is unknown what a file depends on, although it may be sound: it could not be read, or is a
 * directory that could not be listed */
bool wcx_family_hides(const struct wcx_family_file *file);

/* wcx_is_version3 - whether an open file with that status is of version 3, which has no bases */
bool wcx_is_version3(int fd, const struct stat *st);

#endif
