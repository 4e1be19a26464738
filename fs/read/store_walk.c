/* SPDX-License-Identifier: MIT */
/* Lists the packed files of a store and around it, and later what has changed. */
#include "fs/read/store_walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/ancestors.h"
#include "fs/base/array.h"
#include "fs/base/path.h"
#include "fs/base/same_file.h"
#include "fs/read/packed_index.h"

enum {
	LEVELS_MAX = 4,     /* STORE/OWNER/MODEL/snapshots/REVISION */
	DEPTH_MAX = 512,    /* of the working directory above the start */
	NAMES_MAX = 100000, /* that are looked at on the way up: a second or less once they are in memory */
	SETTLED_S = 2, /* a change in the same tick of the file system's clock leaves the time as it is; FAT's take 2 s */
};

static const size_t unknown = SIZE_MAX;

struct wcx_store_directory {
	char *path;
	struct stat st;
	bool is_settled;    /* its times were old when it was listed: whatever changes later changes these */
	size_t was;         /* the directory in the walk before; unknown: it was not there */
	size_t entry_count; /* of all kinds */
	/* Its files and subdirectories are neighbours, sorted by path. */
	size_t first_name, end_name, first_directory, end_directory;
};

/* A walk on its way. */
struct pass {
	struct wcx_store_walk *walk;
	struct wcx_store_walk old; /* what the last one saw */
	const atomic_bool *stop;
	const struct stat *left_out; /* a directory that is not entered again; NULL: none */
	size_t names_left;
	int fd; /* of the directory that is being listed */
};

bool wcx_is_around(const char *path)
{
	return strncmp(path, "..", 2) == 0 && (!path[2] || path[2] == '/');
}

char *wcx_store_walk_shown(const struct wcx_store_walk *walk, const char *path)
{
	char up[3 * DEPTH_MAX + 1] = "", *joined, *ret;
	const bool is_here = strcmp(walk->start, ".") == 0;

	for (unsigned i = 0; !path && i < walk->level_count; i++)
		memcpy(up + (size_t)3 * i, "../", sizeof "../");
	if (asprintf(&joined, "%s%s%s", is_here ? "" : walk->start, is_here ? "" : "/", path ? path : up) < 0)
		return NULL;
	ret = wcx_plain_path(joined);
	free(joined);
	return ret;
}

/* --- names --- */

static int add_name(struct wcx_store_walk *walk, char *path, const struct stat *st, int errnum)
{
	struct wcx_store_name *grown =
		path ? wcx_array_reserve(walk->names, &walk->capacity, walk->count + 1, sizeof *grown) : NULL;

	if (!grown) {
		free(path);
		return -ENOMEM;
	}
	walk->names = grown;
	grown[walk->count++] = (struct wcx_store_name){ path, *st, errnum };
	return 0;
}

static int add_directory(struct wcx_store_walk *walk, char *path, size_t was)
{
	struct wcx_store_directory *grown = path ? wcx_array_reserve(walk->directories, &walk->directory_capacity,
								     walk->directory_count + 1, sizeof *grown)
						 : NULL;

	if (!grown) {
		free(path);
		return -ENOMEM;
	}
	walk->directories = grown;
	grown[walk->directory_count++] = (struct wcx_store_directory){ .path = path, .was = was };
	return 0;
}

static int see_file(void *user, const char *path)
{
	const struct pass *pass = user;
	struct stat st;

	if (fstatat(pass->fd, wcx_last_name(path), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : add_name(pass->walk, strdup(path), &st, errno);
	return add_name(pass->walk, strdup(path), &st, 0);
}

static int see_directory(void *user, const char *path)
{
	return add_directory(((const struct pass *)user)->walk, strdup(path), unknown);
}

/* What is lost and found has no names of a store, and is root's at the top of many file systems. */
static int see_unlisted(void *user, const char *path, int errnum)
{
	const struct stat st = { 0 };

	if (errnum == ENOENT || errnum == EXDEV || strcmp(wcx_last_name(path), "lost+found") == 0)
		return 0;
	return add_name(((const struct pass *)user)->walk, strdup(path), &st, errnum);
}

/* --- one directory --- */

static int compare_names(const void *a, const void *b)
{
	const struct wcx_store_name *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static int compare_directories(const void *a, const void *b)
{
	const struct wcx_store_directory *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static bool is_same_time(const struct timespec *a, const struct statx_timestamp *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == (long)b->tv_nsec;
}

/*
 * Whether a directory is as it was when it was listed.  It is not opened: that takes three times as long.  But a network
 * file system, which may remember times for a minute, is asked for them.
 */
static bool is_unchanged(const struct pass *pass, const struct wcx_store_directory *was, const char *path)
{
	struct statx now;

	return was->is_settled &&
	       statx(pass->walk->fd, path, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &now) == 0 &&
	       makedev(now.stx_dev_major, now.stx_dev_minor) == was->st.st_dev && now.stx_ino == was->st.st_ino &&
	       is_same_time(&was->st.st_mtim, &now.stx_mtime) && is_same_time(&was->st.st_ctim, &now.stx_ctime);
}

/* Takes over what an unchanged directory had. */
static int take_over(struct pass *pass, const struct wcx_store_directory *was)
{
	int r = was->entry_count > pass->names_left ? -E2BIG : 0;

	for (size_t i = was->first_name; i < was->end_name && r == 0; i++) {
		struct wcx_store_name *name = &pass->old.names[i];

		r = add_name(pass->walk, name->path, &name->st, name->errnum);
		name->path = NULL;
	}
	for (size_t i = was->first_directory; i < was->end_directory && r == 0; i++) {
		r = add_directory(pass->walk, pass->old.directories[i].path, i);
		pass->old.directories[i].path = NULL;
	}
	pass->names_left -= was->entry_count;
	return r;
}

/* Finds the subdirectories that were listed last, from first on, among those that their directory had; both are sorted. */
static void match(struct pass *pass, size_t first, const struct wcx_store_directory *was)
{
	size_t old = was->first_directory;

	for (size_t i = first; i < pass->walk->directory_count; i++) {
		struct wcx_store_directory *sub = &pass->walk->directories[i];

		while (old < was->end_directory && strcmp(pass->old.directories[old].path, sub->path) < 0)
			old++;
		if (old < was->end_directory && strcmp(pass->old.directories[old].path, sub->path) == 0)
			sub->was = old;
	}
}

/* Opens a directory that belongs to the walk: around its start, other file systems do not. */
static int open_directory(const struct pass *pass, const char *path, struct stat *st_ret)
{
	const struct wcx_store_walk *walk = pass->walk;
	const int fd = wcx_open_below((void *)(uintptr_t)&walk->fd, path, O_RDONLY | O_DIRECTORY, st_ret);

	if (fd < 0 || !wcx_is_around(path) ||
	    (st_ret->st_dev == walk->st.st_dev && !(pass->left_out && wcx_is_same_file(st_ret, pass->left_out))))
		return fd;
	close(fd);
	return -EXDEV;
}

/* Lists a directory that is new or has changed; was is what it was, or NULL. */
static int list(struct pass *pass, struct wcx_store_directory *directory, const struct wcx_store_directory *was)
{
	struct wcx_store_walk *walk = pass->walk;
	const struct wcx_packed_visitor visitor = { see_file, see_directory, see_unlisted, pass, &pass->names_left };
	const size_t first_name = walk->count, first_directory = walk->directory_count;
	struct timespec now = { 0 };
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	pass->fd = open_directory(pass, directory->path, &directory->st);
	if (pass->fd < 0)
		return see_unlisted(pass, directory->path, -pass->fd);
	directory->is_settled = directory->st.st_ctim.tv_sec + SETTLED_S < now.tv_sec;
	r = wcx_packed_list(pass->fd, directory->path, &visitor);
	if (walk->count > first_name)
		qsort(walk->names + first_name, walk->count - first_name, sizeof *walk->names, compare_names);
	if (walk->directory_count > first_directory)
		qsort(walk->directories + first_directory, walk->directory_count - first_directory,
		      sizeof *walk->directories, compare_directories);
	if (was && r == 0)
		match(pass, first_directory, was);
	return r;
}

static int look_at(struct pass *pass, size_t number)
{
	struct wcx_store_walk *walk = pass->walk;
	struct wcx_store_directory directory = walk->directories[number];
	const struct wcx_store_directory *was = directory.was == unknown ? NULL : &pass->old.directories[directory.was];
	const size_t names_left = pass->names_left;
	int r;

	if (pass->stop && *pass->stop)
		return -EINTR;
	directory.first_name = walk->count;
	directory.first_directory = walk->directory_count;
	if (was && is_unchanged(pass, was, directory.path)) {
		directory.st = was->st;
		directory.is_settled = true;
		r = take_over(pass, was);
	} else {
		r = list(pass, &directory, was);
	}
	directory.end_name = walk->count;
	directory.end_directory = walk->directory_count;
	directory.entry_count = names_left - pass->names_left;
	walk->directories[number] = directory;
	return r;
}

/* --- all of them --- */

static void free_from(struct wcx_store_walk *walk, size_t first_name, size_t first_directory)
{
	for (size_t i = first_name; i < walk->count; i++)
		free(walk->names[i].path);
	for (size_t i = first_directory; i < walk->directory_count; i++)
		free(walk->directories[i].path);
	walk->count = first_name;
	walk->directory_count = first_directory;
}

static void free_lists(struct wcx_store_walk *walk)
{
	free_from(walk, 0, 0);
	free(walk->names);
	free(walk->directories);
	walk->names = NULL;
	walk->directories = NULL;
	walk->capacity = walk->directory_capacity = 0;
}

/* Looks at a directory that no other leads to, and all below it. */
static int look_below(struct pass *pass, const char *path)
{
	struct wcx_store_walk *walk = pass->walk;
	const size_t first = walk->directory_count;
	size_t was = 0;
	int r;

	while (was < pass->old.directory_count &&
	       !(pass->old.directories[was].path && strcmp(pass->old.directories[was].path, path) == 0))
		was++;
	r = add_directory(walk, strdup(path), was < pass->old.directory_count ? was : unknown);
	for (size_t i = first; i < walk->directory_count && r == 0; i++)
		r = look_at(pass, i);
	return r;
}

/* Whether the way up ends below a directory. */
static bool is_barred(const struct stat *st, const struct stat *below)
{
	const char *home = getenv("HOME");
	struct stat other;

	return st->st_dev != below->st_dev || ((st->st_mode & S_ISVTX) && (st->st_mode & S_IWOTH)) ||
	       (stat("/", &other) == 0 && wcx_is_same_file(st, &other)) ||
	       (home && stat(home, &other) == 0 && (wcx_is_same_file(st, &other) || wcx_is_same_file(below, &other)));
}

/* How many levels above a directory are looked at. */
static unsigned levels_max(int fd)
{
	struct stat work;
	const int level = stat(".", &work) == 0 ? wcx_levels_above(fd, &work) : -1;

	return (unsigned)WCX_MIN(WCX_MAX(level, LEVELS_MAX), DEPTH_MAX);
}

static int climb(struct pass *pass)
{
	struct wcx_store_walk *walk = pass->walk;
	const unsigned levels = levels_max(walk->fd);
	struct wcx_ancestor at;
	char path[3 * DEPTH_MAX + 1] = "..";
	int r = 0;

	pass->names_left = NAMES_MAX;
	if (!wcx_ancestor_first(&at, walk->fd))
		return 0;
	while (walk->level_count < levels && r == 0) {
		const size_t count = walk->count, directory_count = walk->directory_count;
		const struct stat below = at.st;

		if (!wcx_ancestor_next(&at) || is_barred(&at.st, &below))
			break;
		pass->left_out = &below;
		r = look_below(pass, path);
		if (r < 0) {
			free_from(walk, count, directory_count);
			break;
		}
		walk->top = at.st;
		walk->level_count++;
		if (walk->level_count < levels)
			strcat(path, "/..");
	}
	wcx_ancestor_end(&at);
	return r == -E2BIG ? 0 : r;
}

bool wcx_store_walk_reaches(int fd, const char *path)
{
	char *directory = wcx_directory_of(path);
	const int own = directory ? open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	const unsigned levels = levels_max(fd);
	struct wcx_ancestor at;
	bool is_open = own >= 0 && wcx_ancestor_first(&at, fd), reaches = false;

	for (unsigned level = 0; is_open && !reaches && level <= levels; level++) {
		const struct stat below = at.st;

		reaches = wcx_levels_above(own, &below) >= 0;
		is_open = wcx_ancestor_next(&at);
		if (is_open && is_barred(&at.st, &below))
			break;
	}
	if (is_open)
		wcx_ancestor_end(&at);
	if (own >= 0)
		close(own);
	free(directory);
	return reaches;
}

int wcx_store_walk_refresh(struct wcx_store_walk *walk, const atomic_bool *stop)
{
	struct pass pass = { .walk = walk, .old = *walk, .stop = stop, .names_left = SIZE_MAX };
	int r;

	walk->names = NULL;
	walk->directories = NULL;
	walk->count = walk->capacity = walk->directory_count = walk->directory_capacity = 0;
	walk->level_count = 0;
	walk->top = walk->st;
	r = look_below(&pass, ".");
	if (r == 0 && walk->climbs)
		r = climb(&pass);
	free_lists(&pass.old);
	if (r < 0)
		free_lists(walk);
	return r;
}

int wcx_store_walk_open(struct wcx_store_walk *walk, const char *start, bool climbs)
{
	*walk = (struct wcx_store_walk){ .start = strdup(start),
					 .fd = open(start, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
					 .climbs = climbs };
	if (walk->fd < 0 || fstat(walk->fd, &walk->st) < 0)
		return -errno;
	return walk->start ? 0 : -ENOMEM;
}

void wcx_store_walk_free(struct wcx_store_walk *walk)
{
	free_lists(walk);
	free(walk->start);
	if (walk->fd >= 0)
		close(walk->fd);
	*walk = (struct wcx_store_walk){ .fd = -1 };
}
