/* SPDX-License-Identifier: MIT */
/*
 * What may be the base of a packed file, and where the hint of its name leads.
 *
 * The bytes of a base become bytes of the files that depend on it, so a base must be one that nobody has forged, and that
 * nobody gets to read who could not.  Nothing here reads a file; all functions are safe from any thread.
 */
#ifndef WCX_BASE_RULES_H
#define WCX_BASE_RULES_H

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "fs/format/container.h"

enum { WCX_BASE_TEXT_BYTES = 160 };

/* wcx_base_describe - write "base 0123456789ab (hint)": the first digits of its SHA-256, and of a long hint the end */
void wcx_base_describe(const struct wcx_base *base, char text[WCX_BASE_TEXT_BYTES]);

/*
 * wcx_base_is_trusted - whether a file that says that it is the base of another may be believed
 *
 * Its superblock may tell any SHA-256.  So it must belong to root, to the reader, or to the owner of the dependent, who
 * could have written other bytes there in the first place.
 */
bool wcx_base_is_trusted(uid_t reader, const struct stat *dependent, const struct stat *base);

/*
 * wcx_base_is_open - whether everybody who may read the dependent may read the base
 *
 * is_public: nothing but its permission bits keeps anybody from the base, neither a directory above it nor an ACL.
 */
bool wcx_base_is_open(const struct stat *dependent, const struct stat *base, bool is_public);

/* wcx_base_suits - both, for a mount that the owner of the dependent has: the directories above are not looked at */
bool wcx_base_suits(const struct stat *dependent, const struct stat *base, bool is_public);

/*
 * wcx_base_kept_path - the name that a base gets when another file takes its own, and the old one is needed
 *
 * NAME.wcx becomes NAME.base-0123456789ab.wcx, with the first digits of the SHA-256 of its original.  path may be a name or
 * a path.  Returns 0 or -ENAMETOOLONG.
 */
int wcx_base_kept_path(const char *path, const uint8_t sha256[WCX_SHA256_BYTES], char dst[PATH_MAX]);

/*
 * wcx_base_hint_join - the path that a hint leads to from the directory of a dependent, whatever that path is relative to
 *
 * Returns 0, -ENOENT (there is no hint, or it is absolute), or -ENAMETOOLONG.
 */
int wcx_base_hint_join(const char *dependent_path, const char *hint, char dst[PATH_MAX]);

/*
 * wcx_base_hint_path - the path beneath a store that a hint leads to
 *
 * The path of the dependent is relative to the store, as is the result, which has no "." or "..".  Returns 0, -EXDEV (the
 * hint is absolute or leads out), or -ENAMETOOLONG.
 */
int wcx_base_hint_path(const char *dependent_path, const char *hint, char dst[PATH_MAX]);

#endif
