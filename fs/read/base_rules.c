/* SPDX-License-Identifier: MIT */
/* The rules on who may be a base, and the arithmetic of hints. */
#include "fs/read/base_rules.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "codec/arith.h"

enum {
	SHOWN_DIGITS = 12, /* of the SHA-256, as Git shows them */
	SHOWN_HINT_BYTES = 120,
	READ_BITS = S_IRUSR | S_IRGRP | S_IROTH,
};

static void format_digits(const uint8_t sha256[WCX_SHA256_BYTES], char digits[SHOWN_DIGITS + 1])
{
	for (int i = 0; i < SHOWN_DIGITS / 2; i++)
		snprintf(digits + 2 * i, 3, "%02x", sha256[i]);
}

int wcx_base_kept_path(const char *path, const uint8_t sha256[WCX_SHA256_BYTES], char dst[PATH_MAX])
{
	static const char suffix[] = ".wcx";
	const size_t bytes = strlen(path), suffix_bytes = strlen(suffix);
	const bool has_suffix = bytes > suffix_bytes && strcmp(path + bytes - suffix_bytes, suffix) == 0;
	char digits[SHOWN_DIGITS + 1];

	format_digits(sha256, digits);
	if (bytes >= PATH_MAX || snprintf(dst, PATH_MAX, "%.*s.base-%s%s", (int)(bytes - (has_suffix ? suffix_bytes : 0)),
					  path, digits, suffix) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

void wcx_base_describe(const struct wcx_base *base, char text[WCX_BASE_TEXT_BYTES])
{
	const size_t bytes = strlen(base->name);
	char digits[SHOWN_DIGITS + 1];

	format_digits(base->sha256, digits);
	snprintf(text, WCX_BASE_TEXT_BYTES, "base %s (%s%s)", digits, bytes > SHOWN_HINT_BYTES ? "..." : "",
		 base->name + (bytes > SHOWN_HINT_BYTES ? bytes - SHOWN_HINT_BYTES : 0));
}

bool wcx_base_is_trusted(uid_t reader, const struct stat *dependent, const struct stat *base)
{
	return base->st_uid == 0 || base->st_uid == reader || base->st_uid == dependent->st_uid;
}

bool wcx_base_is_open(const struct stat *dependent, const struct stat *base, bool is_public)
{
	const bool is_alike = base->st_uid == dependent->st_uid && base->st_gid == dependent->st_gid;

	if (is_public && (base->st_mode & READ_BITS) == READ_BITS)
		return true;
	return is_alike && (dependent->st_mode & READ_BITS & ~base->st_mode) == 0;
}

bool wcx_base_suits(const struct stat *dependent, const struct stat *base, bool is_public)
{
	return wcx_base_is_trusted(dependent->st_uid, dependent, base) && wcx_base_is_open(dependent, base, is_public);
}

int wcx_base_hint_join(const char *dependent_path, const char *hint, char dst[PATH_MAX])
{
	const char *slash = strrchr(dependent_path, '/');

	if (!*hint || *hint == '/')
		return -ENOENT;
	if (snprintf(dst, PATH_MAX, "%.*s%s", slash ? (int)(slash - dependent_path) + 1 : 0, dependent_path, hint) >=
	    PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

/* Adds the names of a path to dst; a ".." takes away the name before it. */
static int append_names(const char *path, size_t path_bytes, char dst[PATH_MAX])
{
	const char *end = path + path_bytes;

	for (size_t bytes; path < end; path += bytes + 1) {
		const size_t dst_bytes = strlen(dst), left = (size_t)(end - path);

		bytes = WCX_MIN(strcspn(path, "/"), left);
		if (bytes == 2 && memcmp(path, "..", 2) == 0) {
			char *slash = strrchr(dst, '/');

			if (!dst_bytes)
				return -EXDEV;
			*(slash ? slash : dst) = '\0';
		} else if (bytes && !(bytes == 1 && *path == '.')) {
			if (dst_bytes + 1 + bytes >= PATH_MAX)
				return -ENAMETOOLONG;
			snprintf(dst + dst_bytes, PATH_MAX - dst_bytes, "%s%.*s", dst_bytes ? "/" : "", (int)bytes, path);
		}
	}
	return 0;
}

int wcx_base_hint_path(const char *dependent_path, const char *hint, char dst[PATH_MAX])
{
	const char *slash = strrchr(dependent_path, '/');
	int r;

	*dst = '\0';
	if (*hint == '/')
		return -EXDEV;
	r = append_names(dependent_path, slash ? (size_t)(slash - dependent_path) : 0, dst);
	if (r == 0)
		r = append_names(hint, strlen(hint), dst);
	return r == 0 && !*dst ? -EXDEV : r;
}
