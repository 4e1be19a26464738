/* SPDX-License-Identifier: MIT */
/* Looks for what is probably a mistake: swapped directories, files that get hidden, a cache without memory. */
#include "fs/mount/mount_warnings.h"

#include <dirent.h>
#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/mount/shown_names.h"

enum { ENTRIES_MAX = 10000, TEXT_BYTES = 640 };

enum content { HAS_PACKED, HAS_NONE, IS_UNKNOWN };

/* Whether a directory tree holds a file or link NAME.wcx. */
static enum content find_packed(const char *dir)
{
	char *path = strdup(dir), *paths[] = { path, NULL };
	FTS *tree = path ? fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT | FTS_XDEV, NULL) : NULL;
	enum content content = tree ? HAS_NONE : IS_UNKNOWN;
	const FTSENT *entry;

	for (size_t count = 0; tree && content == HAS_NONE && (errno = 0, entry = fts_read(tree)); count++) {
		if (entry->fts_info == FTS_F || entry->fts_info == FTS_NSOK || entry->fts_info == FTS_SL)
			content = wcx_stem_bytes(entry->fts_name) ? HAS_PACKED : HAS_NONE;
		else if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
			content = IS_UNKNOWN;
		if (content == HAS_NONE && count == ENTRIES_MAX)
			content = IS_UNKNOWN;
	}
	if (tree)
		fts_close(tree);
	free(path);
	return content;
}

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	bool empty = true;

	while (dir && empty && (entry = readdir(dir)))
		empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
	if (dir)
		closedir(dir);
	return empty;
}

void wcx_mount_warn(const struct wcx_mount_options *opts, wcx_mount_warn_fn *warn, void *user)
{
	const bool is_above = opts->fuse_fd < 0 && strcmp(opts->store, opts->mountpoint) != 0;
	const bool lacks_packed = find_packed(opts->store) == HAS_NONE;
	char text[TEXT_BYTES];

	if (lacks_packed && is_above && find_packed(opts->mountpoint) == HAS_PACKED) {
		snprintf(
			text, sizeof text,
			"store %.200s: no packed file (NAME.wcx) is in it, but in the mount point %.200s: are they swapped?",
			opts->store, opts->mountpoint);
		warn(user, text);
	} else if (lacks_packed) {
		snprintf(text, sizeof text, "store %.500s: no packed file (NAME.wcx) is in it", opts->store);
		warn(user, text);
	}
	if (is_above && !is_empty(opts->mountpoint)) {
		snprintf(text, sizeof text,
			 "mount point %.500s: not empty; what is in it is hidden while the store is mounted",
			 opts->mountpoint);
		warn(user, text);
	}
	if (opts->cache_bytes > opts->host.memory_bytes) {
		snprintf(text, sizeof text,
			 "cache_size: %" PRIu64 " MiB are more than the %" PRIu64 " MiB of memory of this %s",
			 opts->cache_bytes >> 20, opts->host.memory_bytes >> 20,
			 opts->host.is_memory_limited ? "control group" : "machine");
		warn(user, text);
	}
}
