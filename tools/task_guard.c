/* SPDX-License-Identifier: MIT */
/* Guards packed files that a run replaces, or removes since they are unpacked, against the loss of a base. */
#include "tools/task_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/file_copy.h"
#include "fs/base/path.h"
#include "fs/base/same_file.h"
#include "fs/pack/pack_done.h"
#include "fs/read/base_lock.h"
#include "fs/read/base_mark.h"
#include "fs/read/base_rules.h"
#include "tools/dependents.h"
#include "tools/file_task.h"

enum {
	AHEAD_MAX = 1024, /* items whose outputs or sources are locked at a time */
	AHEAD_SHARE = 4,  /* of the descriptors that the process may have */
};

/* --- locks ahead --- */

/* Locks what an item's output replaces, unless that has the source's time: then it is probably done. */
static void lock_output(const struct wcx_tree_run *run, int directory_fd, const char *name, const struct stat *source)
{
	struct stat there;

	if (fstatat(directory_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && !wcx_has_time_of(&there, source))
		wcx_dependents_lock_ahead(run->dependents, directory_fd, name);
}

static void lock_of_named(const struct wcx_tree_run *run, size_t item, bool of_source)
{
	const char *path = of_source ? run->paths[item] : run->outputs[item];
	char *directory = wcx_directory_of(path);
	const int fd = directory ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct stat st;

	if (fd >= 0 && of_source)
		wcx_dependents_lock_ahead(run->dependents, fd, wcx_last_name(path));
	else if (fd >= 0 && stat(run->paths[item], &st) == 0)
		lock_output(run, fd, wcx_last_name(path), &st);
	if (fd >= 0)
		close(fd);
	free(directory);
}

static void lock_of_entry(const struct wcx_tree_run *run, size_t item, bool of_source)
{
	const struct wcx_tree_entry *entry = &run->tree.entries[run->items[item]];
	const int root_fd = of_source ? run->tree.root_fd : run->output_root_fd;
	const int fd = wcx_tree_open_directory(&run->tree, entry->directory, root_fd);
	uint8_t sha256[WCX_SHA256_BYTES];
	char packed[NAME_MAX + sizeof ".wcx"];

	snprintf(packed, sizeof packed, "%s%s", entry->name, wcx_is_packed_name(entry->name) ? "" : ".wcx");
	if (fd >= 0 && of_source && wcx_is_packed_name(entry->name))
		wcx_dependents_lock_ahead(run->dependents, fd, entry->name);
	else if (fd >= 0 && !of_source && !wcx_name_sha256(entry->name, sha256)) /* such a one is done, whatever its time */
		lock_output(run, fd, packed, &entry->st);
	if (fd >= 0)
		close(fd);
}

/*
 * Locks what this item and the next ones will replace, or with of_source remove.  So one look tells what needs these, and
 * not each has to look at all names of the store again after the others have changed some.
 */
static void lock_ahead(const struct wcx_file_task *task, bool of_source)
{
	struct wcx_tree_run *run = task->run;
	struct rlimit fds;
	size_t most = AHEAD_MAX;

	if (task->item == SIZE_MAX)
		return;
	pthread_mutex_lock(&run->ahead_lock);
	if (task->item >= run->ahead_end) {
		if (getrlimit(RLIMIT_NOFILE, &fds) == 0)
			most = (size_t)WCX_MIN(most, fds.rlim_cur / AHEAD_SHARE);
		run->ahead_end = WCX_MIN(task->item + most, run->end_item);
		for (size_t i = task->item; i < run->ahead_end; i++)
			if (run->paths)
				lock_of_named(run, i, of_source);
			else
				lock_of_entry(run, i, of_source);
	}
	pthread_mutex_unlock(&run->ahead_lock);
}

/* --- outputs --- */

/* Where the search begins for an output: the tree that outputs go to, or the directory of a named one. */
static char *start_of(const struct wcx_file_task *task)
{
	return task->run->output_root_path ? strdup(task->run->output_root_path) : wcx_directory_of(task->output_path);
}

/* Whether an open file is a packed one that others may be packed against, with the original of what was there. */
static bool holds_original(const struct wcx_task_guard *guard, int fd)
{
	struct wcx_superblock sb;

	return fd >= 0 && wcx_superblock_read(fd, guard->path, &sb, NULL) == 0 && !sb.base_count &&
	       sb.original_bytes == guard->original_bytes && memcmp(sb.sha256, guard->sha256, sizeof sb.sha256) == 0;
}

/* Whether an output will hold the original of what is there. */
static bool will_hold_original(const struct wcx_task_guard *guard, const struct wcx_output_source *source)
{
	uint8_t sha256[WCX_SHA256_BYTES];
	struct wcx_error ignored;
	struct stat st;

	if (!source->packs)
		return holds_original(guard, source->fd);
	return fstat(source->fd, &st) == 0 && (uint64_t)st.st_size == guard->original_bytes &&
	       wcx_file_sha256(source->fd, guard->path, &wcx_command_stop, sha256, &ignored) == 0 &&
	       memcmp(sha256, guard->sha256, sizeof sha256) == 0;
}

/* Takes what has the second name already, if it holds the same; that file stays.  Returns 0 or -errno. */
static int use_kept(struct wcx_task_guard *guard, int directory_fd, const struct stat *st)
{
	struct stat now;
	const int fd = openat(directory_fd, guard->kept, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	int r = fd < 0 ? -errno : fstat(fd, &now) < 0 ? -errno : 0;

	guard->kept_fd = fd;
	if (r == 0 && wcx_is_same_file(&now, st)) {
		guard->made_kept = true; /* by an earlier run, which was killed */
	} else if (r == 0) {
		r = holds_original(guard, fd) ? wcx_base_lock(fd) : -EEXIST;
		if (r == 0)
			wcx_base_copy_marks(guard->fd, fd);
	}
	return r;
}

/* Gives what is there a second name, which its dependents follow from the first. */
static int keep(struct wcx_task_guard *guard, const struct wcx_file_task *task, const char *name, const struct stat *st,
		struct wcx_error *err)
{
	const int directory_fd = task->output_directory_fd;
	char kept[PATH_MAX];
	int r = 0;

	guard->kept = wcx_base_kept_path(name, guard->sha256, kept) == 0 ? strdup(kept) : NULL;
	if (!guard->kept)
		return wcx_fail(err, ENOMEM, "%s: no memory", guard->path);
	if (linkat(directory_fd, name, directory_fd, guard->kept, 0) == 0)
		guard->made_kept = true;
	else
		r = errno == EEXIST ? use_kept(guard, directory_fd, st) : -errno;
	guard->keeps = r == 0;
	return r == 0 ? 0
		      : wcx_fail(err, EBUSY, "%s: not replaced, since %s, and it cannot be kept as %s: %s", guard->path,
				 guard->why, guard->kept, strerror(-r));
}

/* Opens what is there, and locks it; returns 1 if it is a packed file that others may be packed against, 0 if not, or -errno
 * if that is unknown. */
static int open_base(struct wcx_task_guard *guard, const struct wcx_file_task *task, const char *name, struct stat *st,
		     struct wcx_superblock *sb)
{
	int fd = wcx_dependents_open(task->run->dependents, task->output_directory_fd, name, st), r;

	if (fd == -EWOULDBLOCK) {
		/* Others may lock what is no packed file for purposes of their own. */
		fd = wcx_task_open_output(task, name, st);
		if (fd >= 0 && wcx_is_packed_file(fd)) {
			close(fd);
			return -EWOULDBLOCK;
		}
	}
	r = fd < 0 ? fd : wcx_superblock_read(fd, name, sb, NULL);
	guard->is_there = fd != -ENOENT;
	guard->fd = fd >= 0 ? fd : -1;
	if (r == 0 && !sb->base_count) {
		guard->original_bytes = sb->original_bytes;
		memcpy(guard->sha256, sb->sha256, sizeof guard->sha256);
		return 1;
	}
	if (r == 0 || r == -ENOENT || r == -ELOOP || r == -EINVAL || r == -EEXIST || r == -EBADMSG ||
	    (fd >= 0 && r == -ENOTSUP && wcx_is_version3(fd, st)))
		return 0; /* nothing, no file of ours, or none that anybody can be packed against */
	return r;
}

int wcx_task_guard_begin(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, const char *path,
			 const struct wcx_output_source *source, struct wcx_error *err)
{
	struct wcx_superblock sb;
	struct wcx_packed_name file = { .directory_fd = task->output_directory_fd, .name = name, .sb = &sb };
	struct wcx_error why;
	struct stat st;
	char *start;
	int r;

	*guard = (struct wcx_task_guard){ .fd = -1, .kept_fd = -1, .path = strdup(path) };
	if (!guard->path)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	if (fstatat(task->output_directory_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		lock_ahead(task, false);
	r = open_base(guard, task, name, &st, &sb);
	if (r == -EWOULDBLOCK)
		return wcx_fail(err, EBUSY, "%s: not replaced, since another process packs against it, or replaces it",
				path);
	if (r < 0)
		return wcx_fail(err, -r, "%s: not replaced, since nobody can tell whether others need it: %s", path,
				strerror(-r));
	if (!r)
		return 0;
	file.fd = guard->fd;
	start = start_of(task);
	r = start ? wcx_dependents_find(task->run->dependents, start, &file, &guard->why, &why)
		  : wcx_fail(&why, ENOMEM, "no memory");
	free(start);
	if (r < 0)
		return wcx_fail(err, -r, "%s: not replaced, since %s", path, why.text);
	if (!guard->why)
		return 0;
	if (task->run->options.replace || will_hold_original(guard, source))
		return keep(guard, task, name, &st, err);
	return wcx_fail(err, EBUSY, "%s: not replaced, since %s; --force keeps it under another name", path, guard->why);
}

void wcx_task_guard_end(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, int r)
{
	struct wcx_error text;
	struct stat st;
	const int fd = guard->keeps && r == 0 ? wcx_task_open_output(task, name, &st) : -1;
	const bool is_same = holds_original(guard, fd);

	if (is_same)
		wcx_base_copy_marks(guard->fd, fd);
	if (guard->keeps && r == 0 && !is_same) {
		wcx_fail(&text, 0, "%s: what it was is kept as %s, since %s", guard->path, guard->kept, guard->why);
		wcx_report_warn(&task->slot, text.text);
	} else if (guard->made_kept) {
		unlinkat(task->output_directory_fd, guard->kept, 0);
	}
	if (fd >= 0)
		close(fd);
	wcx_dependents_close(task->run->dependents, guard->fd);
	if (guard->kept_fd >= 0)
		close(guard->kept_fd);
	free(guard->kept);
	free(guard->why);
	free(guard->path);
	*guard = (struct wcx_task_guard){ .fd = -1, .kept_fd = -1 };
}

/* --- sources --- */

int wcx_task_lock_source(const struct wcx_file_task *task, struct wcx_error *err)
{
	char *start = task->is_named ? wcx_directory_of(task->path) : strdup(task->run->tree.root_path);
	struct stat st;
	int r;

	lock_ahead(task, true);
	r = start ? wcx_dependents_lock(task->run->dependents, start, task->directory_fd, task->name, task->path,
					"unpacked, but kept", &st, err)
		  : wcx_task_fail(task, ENOMEM, err);

	free(start);
	if (r < 0 || wcx_same_version(&st, &task->st))
		return r == -ENOENT ? wcx_task_fail(task, ENOENT, err) : r;
	wcx_dependents_close(task->run->dependents, r);
	return wcx_fail(err, EBUSY, "%s: kept, since it changed while it was worked on", task->path);
}
