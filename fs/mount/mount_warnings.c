/* SPDX-License-Identifier: MIT */
/* Looks for what is probably a mistake: swapped directories, files that get hidden, a cache without memory. */
#include "fs/mount/mount_warnings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/clock.h"
#include "fs/base/walk.h"
#include "fs/format/container.h"
#include "fs/mount/shown_names.h"
#include "fs/read/base_rules.h"
#include "fs/read/packed_index.h"

enum {
	ENTRIES_MAX = 10000,
	PACKED_MAX = 500, /* packed files that are looked into */
	LOOK_MS = 1000,   /* for so long each time, since a mount waits for it: a store may be far away */
	TEXT_BYTES = 640,
};

enum content { HAS_PACKED, HAS_NONE, IS_UNKNOWN };

/* Whether a directory tree holds a file or link NAME.wcx. */
static enum content find_packed(const char *dir)
{
	const uint64_t until_ms = wcx_now_ms() + LOOK_MS;
	enum content content = HAS_NONE;
	struct wcx_walk walk;

	wcx_walk_begin(&walk, dir, WCX_WALK_ONE_DEVICE | WCX_WALK_TYPES);
	for (size_t count = 0; content == HAS_NONE && wcx_walk_next(&walk); count++) {
		if (walk.kind == WCX_WALK_FILE || walk.kind == WCX_WALK_LINK)
			content = wcx_stem_bytes(walk.name) ? HAS_PACKED : HAS_NONE;
		else if (walk.kind == WCX_WALK_PROBLEM)
			content = IS_UNKNOWN;
		if (content == HAS_NONE && (count == ENTRIES_MAX || wcx_now_ms() > until_ms))
			content = IS_UNKNOWN;
	}
	wcx_walk_end(&walk);
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

/* --- bases that are not in the store --- */

struct lost_bases {
	int store_fd;
	uint64_t until_ms;
	bool is_late; /* not all could be looked at, so a base that was not found may be there */
	struct wcx_packed_index *index;
	size_t packed_count, lost_count; /* files */
	char *path;                      /* of the first that lacks a base */
	char base[WCX_BASE_TEXT_BYTES];
};

static int open_in_time(void *user, const char *path, int flags, struct stat *st_ret)
{
	struct lost_bases *lost = user;

	lost->is_late |= wcx_now_ms() > lost->until_ms;
	return lost->is_late ? -ETIMEDOUT : wcx_open_below(&lost->store_fd, path, flags, st_ret);
}

static int count_packed(void *user, const char *path)
{
	struct lost_bases *lost = user;

	(void)path;
	return ++lost->packed_count > PACKED_MAX;
}

static bool is_any(void *user, const char *path)
{
	(void)user;
	(void)path;
	return true;
}

static void check_bases(struct lost_bases *lost, const char *path, const struct wcx_container *container)
{
	for (uint32_t number = 1; number <= wcx_container_base_count(container); number++) {
		const struct wcx_base *base = wcx_container_base(container, number);

		if (wcx_packed_index_find(lost->index, base->sha256, base->original_bytes, UINT64_MAX, is_any, NULL) !=
		    -ENOENT)
			continue;
		if (!lost->lost_count++) {
			lost->path = strdup(path);
			wcx_base_describe(base, lost->base);
		}
		return;
	}
}

static int check_packed(void *user, const char *path)
{
	struct lost_bases *lost = user;
	struct wcx_container *container;
	struct wcx_superblock sb;
	struct wcx_error ignored;
	struct stat st;
	int fd = open_in_time(lost, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &st);

	if (fd >= 0 && wcx_superblock_read(fd, path, &sb, &ignored) == 0 && sb.base_count &&
	    wcx_container_open(fd, path, &container, &ignored) == 0) {
		fd = -1; /* the container's */
		check_bases(lost, path, container);
		wcx_container_free(container);
	}
	if (fd >= 0)
		close(fd);
	return lost->is_late ? -ETIMEDOUT : 0;
}

/* Reading these files will give EIO; whether a base that is there may be used is not looked at. */
static void warn_of_lost_bases(const char *store, wcx_mount_warn_fn *warn, void *user)
{
	struct lost_bases lost = {
		.store_fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		.until_ms = wcx_now_ms() + LOOK_MS,
	};
	const struct wcx_tree_access access = { .open = open_in_time, .user = &lost };
	struct wcx_error text;

	if (lost.store_fd >= 0 && wcx_packed_paths(&access, NULL, count_packed, NULL, &lost) == 0)
		lost.index = wcx_packed_index_create(&access, NULL);
	if (lost.index)
		wcx_packed_paths(&access, NULL, check_packed, NULL, &lost);
	if (lost.lost_count && !lost.is_late) {
		wcx_fail(&text, 0, "store %.200s: %zu of its files cannot be read for lack of a base: %.160s needs %s",
			 store, lost.lost_count, lost.path ? lost.path : "one", lost.base);
		warn(user, text.text);
	}
	wcx_packed_index_free(lost.index);
	free(lost.path);
	if (lost.store_fd >= 0)
		close(lost.store_fd);
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
	if (!lacks_packed)
		warn_of_lost_bases(opts->store, warn, user);
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
