/* SPDX-License-Identifier: MIT */
/*
 * The search for bases by a process that reads packed files for itself: the commands, and programs with libwcx.
 *
 * A base is looked for where the hint leads, from the directory of the file that needs it, and then, by SHA-256, in a
 * directory tree, the store; where the hint leads out of a store that was named, only after that.  Without a store it is
 * looked for in the directory of the file, and then around that, as far as struct wcx_store_walk climbs.  Wherever a file is
 * found, it must be one that the rules accept (base_rules.h).  What was found stays open for other files that need it.  All
 * functions but create and free are thread-safe; no lock is held while files are opened or read.
 */
#ifndef WCX_BASE_SEARCH_H
#define WCX_BASE_SEARCH_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "fs/read/image.h"

struct wcx_base_search;

/*
 * wcx_base_search_create - make a search
 *
 * store is the tree to look in; NULL: the directory that the dependent is in, with all below, and around it.  cache and
 * decoder, of the images, must outlive the search, and the search the images that use it.  stop may be NULL.  Returns NULL
 * when out of memory.
 */
struct wcx_base_search *wcx_base_search_create(const char *store, struct wcx_tile_cache *cache, struct wcx_decoder *decoder,
					       const atomic_bool *stop);
void wcx_base_search_free(struct wcx_base_search *search); /* NULL is fine */

/* wcx_base_search_advise - set what ends the message that a base was not found in a directory; before the search is used */
void wcx_base_search_advise(struct wcx_base_search *search, const char *advice);

/* wcx_base_search_use - have an image find its bases with a search */
void wcx_base_search_use(struct wcx_base_search *search, struct wcx_image *image);

/* What finders check of a file, and what they say if it will not do. */
struct wcx_base_check {
	const struct wcx_base *base;
	struct stat dependent;
	uid_t reader;
	bool for_others; /* what is read may get to others than the reader */
	/* Why the best file so far will not do; errnum 0: there is none. */
	int errnum;
	bool is_there; /* it will do, but cannot be opened */
	char why[256];
};

/*
 * wcx_base_check_file - check a regular file that may be the base
 *
 * is_public is as for wcx_base_is_open.  Returns whether it will do, with its superblock.
 */
bool wcx_base_check_file(struct wcx_base_check *check, int fd, const char *path, const struct stat *st, bool is_public,
			 struct wcx_superblock *sb_ret);

/* wcx_base_check_refuse - note that a file that will do could not be opened: r is -errno; the text, if any, names it */
void wcx_base_check_refuse(struct wcx_base_check *check, int r, const struct wcx_error *why);

/* wcx_base_check_fail - the error of a search that found nothing; where says where it looked */
int wcx_base_check_fail(const struct wcx_base_check *check, const char *where, struct wcx_error *err);

/*
 * wcx_base_open_hint - open a regular file by a path that somebody else has written
 *
 * A device is not even opened, and a FIFO not waited for.  Returns a descriptor or -errno.
 */
int wcx_base_open_hint(int directory_fd, const char *path, struct stat *st_ret);

/* wcx_has_acl - whether a file or directory has a POSIX ACL, which may keep out some whom its permission bits let in */
bool wcx_has_acl(int fd);

#endif
