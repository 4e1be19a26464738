/* SPDX-License-Identifier: MIT */
/* Walks through a directory tree and tells of all that cannot be listed. */
#include "fs/base/walk.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/array.h"
#include "fs/base/same_file.h"

/* A directory that is being shown. */
struct wcx_walk_level {
	struct dirent **entries;
	int count, next;
	size_t path_bytes;
	struct stat st;
};

static int is_shown(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void leave(struct wcx_walk *walk)
{
	struct wcx_walk_level *level = &walk->levels[--walk->level_count];

	while (level->next < level->count)
		free(level->entries[level->next++]);
	free(level->entries);
}

/* Lists the directory that is the entry. */
static int enter(struct wcx_walk *walk)
{
	struct wcx_walk_level level = { .path_bytes = strlen(walk->path), .st = walk->st };
	struct wcx_walk_level *grown =
		wcx_array_reserve(walk->levels, &walk->level_capacity, walk->level_count + 1, sizeof *grown);

	if (!grown)
		return -ENOMEM;
	walk->levels = grown;
	level.count = scandir(walk->path, &level.entries, is_shown, compare_names);
	if (level.count < 0)
		return -errno;
	grown[walk->level_count++] = level;
	return 0;
}

static void fail(struct wcx_walk *walk, int errnum)
{
	walk->kind = WCX_WALK_PROBLEM;
	walk->errnum = errnum;
}

static bool is_within_itself(const struct wcx_walk *walk)
{
	for (size_t i = 0; i < walk->level_count; i++)
		if (wcx_is_same_file(&walk->levels[i].st, &walk->st))
			return true;
	return false;
}

/* Finds out what the entry is, of which a directory says the type. */
static void look(struct wcx_walk *walk, unsigned char type)
{
	const bool follows = walk->flags & WCX_WALK_FOLLOW;
	int r = 0;

	walk->errnum = 0;
	walk->st = (struct stat){ .st_mode = DTTOIF(type) };
	if (type == DT_UNKNOWN || type == DT_DIR || !(walk->flags & WCX_WALK_TYPES) || (type == DT_LNK && follows))
		r = follows ? stat(walk->path, &walk->st) : lstat(walk->path, &walk->st);
	if (r < 0 && follows && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
		r = lstat(walk->path, &walk->st);
	if (r < 0) {
		fail(walk, errno);
		return;
	}
	walk->kind = S_ISDIR(walk->st.st_mode)   ? WCX_WALK_DIRECTORY
		     : S_ISREG(walk->st.st_mode) ? WCX_WALK_FILE
		     : S_ISLNK(walk->st.st_mode) ? WCX_WALK_LINK
						 : WCX_WALK_OTHER;
	if (walk->kind != WCX_WALK_DIRECTORY)
		return;
	if (!walk->depth)
		walk->device = walk->st.st_dev;
	if (is_within_itself(walk))
		walk->kind = WCX_WALK_LOOP;
	else
		walk->enters = !(walk->flags & WCX_WALK_ONE_DEVICE) || walk->st.st_dev == walk->device;
}

/* Goes to a name in the directory at the top. */
static void show(struct wcx_walk *walk, const struct dirent *entry)
{
	const size_t at = walk->levels[walk->level_count - 1].path_bytes;
	const char *slash = at && walk->path[at - 1] == '/' ? "" : "/";

	walk->depth = (unsigned)walk->level_count;
	walk->name = walk->path + at + strlen(slash);
	if (snprintf(walk->path + at, sizeof walk->path - at, "%s%s", slash, entry->d_name) >= (int)(sizeof walk->path - at))
		fail(walk, ENAMETOOLONG);
	else
		look(walk, entry->d_type);
}

static void end_directory(struct wcx_walk *walk)
{
	const struct wcx_walk_level *level = &walk->levels[walk->level_count - 1];
	const char *slash;

	walk->path[level->path_bytes] = '\0';
	slash = strrchr(walk->path, '/');
	walk->name = slash ? slash + 1 : walk->path;
	walk->kind = WCX_WALK_END;
	walk->st = level->st;
	leave(walk);
	walk->depth = (unsigned)walk->level_count;
}

void wcx_walk_begin(struct wcx_walk *walk, const char *path, unsigned flags)
{
	*walk = (struct wcx_walk){ .flags = flags };
	walk->name = walk->path;
	if (snprintf(walk->path, sizeof walk->path, "%s", path) >= (int)sizeof walk->path)
		fail(walk, ENAMETOOLONG);
}

bool wcx_walk_next(struct wcx_walk *walk)
{
	int r = 0;

	if (!walk->has_begun) {
		walk->has_begun = true;
		if (!walk->errnum)
			look(walk, DT_UNKNOWN);
		return true;
	}
	if (walk->enters)
		r = enter(walk);
	walk->enters = false;
	if (r < 0 && (r != -ENOENT || !walk->depth)) {
		fail(walk, -r);
		return true;
	}
	while (walk->level_count) {
		struct wcx_walk_level *level = &walk->levels[walk->level_count - 1];
		struct dirent *entry;

		if (level->next == level->count) {
			end_directory(walk);
			return true;
		}
		entry = level->entries[level->next++];
		walk->path[level->path_bytes] = '\0';
		show(walk, entry);
		free(entry);
		if (walk->kind != WCX_WALK_PROBLEM || walk->errnum != ENOENT)
			return true;
	}
	return false;
}

void wcx_walk_skip(struct wcx_walk *walk)
{
	walk->enters = false;
}

void wcx_walk_end(struct wcx_walk *walk)
{
	while (walk->level_count)
		leave(walk);
	free(walk->levels);
	walk->levels = NULL;
}
