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

/* A base, as a file names it. */
struct wcx_family_base {
	uint8_t sha256[WCX_SHA256_BYTES];
	uint64_t original_bytes;
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
	struct wcx_family_file *files; /* sorted by path */
	size_t count, capacity;
};

/*
 * wcx_family_scan - read the superblocks of all packed files below a directory, and of those that have bases the index
 *
 * Once *stop is true, ends with -EINTR.  Returns 0 or -errno; *family is to be freed in either case.
 */
int wcx_family_scan(struct wcx_family *family, const char *store, const atomic_bool *stop, struct wcx_error *err);
void wcx_family_free(struct wcx_family *family);

/* wcx_family_find - the first file with an original that may be a base; NULL: there is none */
const struct wcx_family_file *wcx_family_find(const struct wcx_family *family, const struct wcx_family_base *base);

/* wcx_family_depends - whether a file has the original of another as a base */
bool wcx_family_depends(const struct wcx_family_file *file, const struct wcx_family_file *base);

/*
 * wcx_family_dependent - look for a file that is packed against another
 *
 * sb and st are those of the base, which is not its own dependent.  Returns 0 with *path_ret NULL (there is none) or a path
 * that the caller frees; or -errno, also if a file cannot be read that may be one.
 */
int wcx_family_dependent(const char *store, const struct wcx_superblock *sb, const struct stat *st, const atomic_bool *stop,
			 char **path_ret, struct wcx_error *err);

/* wcx_family_hides - whether it is unknown what a file depends on, although it may be sound: it could not be read, or is a
 * directory that could not be listed */
bool wcx_family_hides(const struct wcx_family_file *file);

#endif
