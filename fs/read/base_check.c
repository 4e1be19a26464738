/* SPDX-License-Identifier: MIT */
/* Checks whether a file is the base that is looked for, and may be used. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/read/base_rules.h"
#include "fs/read/base_search.h"

bool wcx_has_acl(int fd)
{
	return fgetxattr(fd, "system.posix_acl_access", NULL, 0) > 0;
}

/* Remembers the first file that was refused for its owner or its permissions, or else one that is no longer the base. */
static bool refuse(struct wcx_base_check *check, int errnum, const char *path, const char *why)
{
	const size_t bytes = strlen(path), shown = 160;

	if (check->is_there || (check->errnum && (check->errnum != ENOENT || errnum == ENOENT)))
		return false;
	check->errnum = errnum;
	snprintf(check->why, sizeof check->why, "%s%s %s", bytes > shown ? "..." : "",
		 path + (bytes > shown ? bytes - shown : 0), why);
	return false;
}

bool wcx_base_check_file(struct wcx_base_check *check, int fd, const char *path, const struct stat *st, bool is_public,
			 struct wcx_superblock *sb_ret)
{
	if (!S_ISREG(st->st_mode) || wcx_superblock_read(fd, path, sb_ret, NULL) < 0)
		return refuse(check, ENOENT, path, "is there, but is no packed file that can be read");
	if (memcmp(sb_ret->sha256, check->base->sha256, sizeof sb_ret->sha256) != 0 ||
	    sb_ret->original_bytes != check->base->original_bytes)
		return refuse(check, ENOENT, path, "is there, but holds another file");
	if (sb_ret->base_count)
		return refuse(check, ENOENT, path, "holds it, but depends on a base itself");
	if (!wcx_base_is_trusted(check->reader, &check->dependent, st))
		return refuse(check, EACCES, path,
			      "says that it holds it, but belongs to neither root, the reader nor the owner");
	if (check->for_others && !wcx_base_is_open(&check->dependent, st, is_public))
		return refuse(check, EACCES, path, "is not for everybody to read who may read this file");
	return true;
}

void wcx_base_check_refuse(struct wcx_base_check *check, int r, const struct wcx_error *why)
{
	const char *text = *why->text ? why->text : strerror(-r);
	const size_t bytes = strlen(text), shown = sizeof check->why - sizeof "...";

	check->errnum = -r;
	check->is_there = true;
	snprintf(check->why, sizeof check->why, "%s%s", bytes > shown ? "..." : "",
		 text + (bytes > shown ? bytes - shown : 0));
}

int wcx_base_check_fail(const struct wcx_base_check *check, const char *where, struct wcx_error *err)
{
	char name[WCX_BASE_TEXT_BYTES];

	wcx_base_describe(check->base, name);
	if (check->errnum)
		return wcx_fail(err, check->errnum, "%s: %s: %s", name, check->is_there ? "cannot be opened" : "not found",
				check->why);
	return wcx_fail(err, ENOENT, "%s: not found in %s", name, where);
}
