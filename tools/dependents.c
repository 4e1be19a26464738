/* SPDX-License-Identifier: MIT */
/* Tells whether a packed file may be replaced or removed. */
#include "tools/dependents.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/same_file.h"
#include "fs/base/tree.h"
#include "fs/read/base_lock.h"
#include "fs/read/base_mark.h"
#include "fs/read/base_rules.h"
#include "fs/read/packed_index.h"
#include "tools/family.h"
#include "tools/file_task.h"

char *wcx_directory_of(const char *path)
{
	char *copy = strdup(path), *ret = copy ? strdup(dirname(copy)) : NULL;

	free(copy);
	return ret;
}

/* --- the search --- */

int wcx_dependents_unknown(const struct wcx_store_scope *scope, const struct wcx_family *family,
			   const struct wcx_packed_name *file, char **why)
{
	enum wcx_base_marks marks;

	*why = NULL;
	if (scope->is_given)
		return 0;
	marks = wcx_base_marks(file->fd, file->directory_fd, &scope->top);
	if (marks == WCX_MARKS_NONE || (marks == WCX_MARKS_INSIDE && !family->is_partial))
		return 0;
	if (asprintf(why, "files were packed against it, none of which is found in %s%s", scope->path,
		     file->with_tree ? "" : "; --store=DIR says where else to look") < 0)
		return -ENOMEM;
	return 0;
}

/* Looks through a scope. */
static int find_in(const struct wcx_store_scope *scope, const struct wcx_packed_name *file, char **why,
		   struct wcx_error *err)
{
	struct wcx_family_file base = { .original_bytes = file->sb->original_bytes };
	const bool is_here = strcmp(scope->path, ".") == 0;
	struct wcx_family family;
	int r = wcx_family_scan_scope(&family, scope, &wcx_command_stop, err);

	memcpy(base.sha256, file->sb->sha256, sizeof base.sha256);
	for (size_t i = 0; r == 0 && i < family.count && !*why; i++) {
		const struct wcx_family_file *other = &family.files[i];

		if (file->with_tree && wcx_family_is_named(&family, other))
			continue;
		if (wcx_family_hides(other))
			r = wcx_fail(err, EACCES, "what is packed against it is not known: %s", other->why->text);
		else if (wcx_family_needs(&family, other, &base, &file->st) &&
			 asprintf(why, "%s%s%s is packed against it", is_here ? "" : scope->path, is_here ? "" : "/",
				  other->path) < 0)
			r = wcx_fail(err, ENOMEM, "no memory");
	}
	if (r == 0 && !*why && wcx_dependents_unknown(scope, &family, file, why) < 0)
		r = wcx_fail(err, ENOMEM, "no memory");
	wcx_family_free(&family);
	return r;
}

int wcx_dependents_find(const struct command *command, const char *start, const struct wcx_packed_name *file, char **why,
			struct wcx_error *err)
{
	struct wcx_store_scope scope;
	int r = wcx_store_scope_find(&scope, command->store, start, &wcx_command_stop);

	*why = NULL;
	if (r < 0)
		wcx_fail(err, -r, "%s: %s", start, r == -EINTR ? "interrupted" : strerror(-r));
	else
		r = find_in(&scope, file, why, err);
	wcx_store_scope_free(&scope);
	return r;
}

/* --- a whole directory --- */

struct tree_check {
	struct wcx_tree_guard *guard;
	const struct command *command;
	const char *path;
	int fd;
	struct wcx_error *err;
};

/* Looks for dependents of an open file of a directory. */
static int check_open(const struct tree_check *check, const char *path, const struct wcx_packed_name *file)
{
	char *why = NULL;
	struct wcx_error text;
	int r;

	if (wcx_base_lock_for_removal(file->fd) < 0)
		return wcx_fail(check->err, EBUSY, "%s/%s: not replaced, since a file is being packed against it",
				check->path, path);
	r = wcx_dependents_find(check->command, check->path, file, &why, &text);
	if (r < 0)
		wcx_fail(check->err, -r, "%s/%s: not replaced, since %s", check->path, path, text.text);
	else if (why)
		r = wcx_fail(check->err, EBUSY, "%s/%s: not replaced, since %s", check->path, path, why);
	free(why);
	return r;
}

static int check_in_tree(void *user, const char *path)
{
	const struct tree_check *check = user;
	struct wcx_tree_guard *guard = check->guard;
	struct wcx_superblock sb;
	struct wcx_packed_name file = { .sb = &sb, .with_tree = true };
	char *directory;
	int *grown, r = 0;

	file.fd = wcx_open_below((void *)(uintptr_t)&check->fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &file.st);
	if (file.fd < 0)
		return 0;
	grown = wcx_array_reserve(guard->fds, &guard->capacity, guard->count + 1, sizeof *grown);
	if (!grown) {
		close(file.fd);
		return wcx_fail(check->err, ENOMEM, "%s: no memory", check->path);
	}
	guard->fds = grown;
	grown[guard->count++] = file.fd;
	if (!S_ISREG(file.st.st_mode) || wcx_superblock_read(file.fd, path, &sb, NULL) < 0 || sb.base_count)
		return 0;
	directory = wcx_directory_of(path);
	file.directory_fd = directory ? wcx_open_without_links(check->fd, directory, O_RDONLY | O_DIRECTORY) : -ENOMEM;
	free(directory);
	r = file.directory_fd < 0
		    ? wcx_fail(check->err, -file.directory_fd, "%s/%s: %s", check->path, path, strerror(-file.directory_fd))
		    : check_open(check, path, &file);
	if (file.directory_fd >= 0)
		close(file.directory_fd);
	return r;
}

int wcx_tree_guard_begin(struct wcx_tree_guard *guard, const struct command *command, const char *path,
			 struct wcx_error *err)
{
	struct tree_check check = { guard, command, path, open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err };
	int r;

	*guard = (struct wcx_tree_guard){ 0 };
	*err = (struct wcx_error){ "" };
	if (check.fd < 0)
		return 0; /* whoever replaces it will say why not */
	r = wcx_packed_paths(&(struct wcx_tree_access){ .open = wcx_open_below, .user = &check.fd }, &wcx_command_stop,
			     check_in_tree, &check);
	close(check.fd);
	return r < 0 && !*err->text ? wcx_fail(err, -r, "%s: %s", path, r == -EINTR ? "interrupted" : strerror(-r)) : r;
}

void wcx_tree_guard_end(struct wcx_tree_guard *guard)
{
	for (size_t i = 0; i < guard->count; i++)
		close(guard->fds[i]);
	free(guard->fds);
	*guard = (struct wcx_tree_guard){ 0 };
}

/* --- the outputs of a run --- */

/* Where the way up begins for an output: the tree that outputs go to, or the directory of a named one. */
static char *start_of(const struct wcx_file_task *task)
{
	return task->run->output_root_path ? strdup(task->run->output_root_path) : wcx_directory_of(task->output_path);
}

/* Gives what is there a second name, which a scan of the store finds. */
static int keep(struct wcx_task_guard *guard, const struct wcx_file_task *task, const char *name, const struct stat *st,
		struct wcx_error *err)
{
	char kept[PATH_MAX];
	int errnum = EEXIST;
	struct stat now;

	guard->kept = wcx_base_kept_path(name, guard->sha256, kept) == 0 ? strdup(kept) : NULL;
	if (!guard->kept)
		return wcx_fail(err, ENOMEM, "%s: no memory", guard->path);
	if (linkat(task->output_directory_fd, name, task->output_directory_fd, guard->kept, 0) < 0 && errno != EEXIST)
		errnum = errno;
	else if (fstatat(task->output_directory_fd, guard->kept, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
		 wcx_is_same_file(&now, st))
		return 0; /* also if an earlier run was killed after it had made the name */
	wcx_fail(err, errnum, "%s: not replaced, since %s, and it cannot be kept as %s: %s", guard->path, guard->why,
		 guard->kept, strerror(errnum));
	free(guard->kept);
	guard->kept = NULL;
	return -EBUSY;
}

/* Opens what is there; returns 1 if it is a packed file that others may be packed against, 0 if not, or -errno if unknown.
 */
static int open_base(struct wcx_task_guard *guard, const struct wcx_file_task *task, const char *name, struct stat *st,
		     struct wcx_superblock *sb)
{
	const int fd = wcx_task_open_output(task, name, st);
	int r = fd < 0 ? fd : wcx_superblock_read(fd, name, sb, NULL);

	if (r == 0 && !sb->base_count) {
		guard->fd = fd;
		guard->original_bytes = sb->original_bytes;
		memcpy(guard->sha256, sb->sha256, sizeof guard->sha256);
		return 1;
	}
	if (r == -ENOENT || r == -ELOOP || r == -EEXIST || r == -EBADMSG ||
	    (fd >= 0 && r == -ENOTSUP && wcx_is_version3(fd, st)))
		r = 0; /* nothing, no file of ours, or none that anybody can be packed against */
	if (fd >= 0)
		close(fd);
	return r;
}

int wcx_task_guard_begin(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, const char *path,
			 struct wcx_error *err)
{
	struct wcx_superblock sb;
	struct wcx_packed_name file = { .directory_fd = task->output_directory_fd, .sb = &sb };
	struct wcx_error why;
	char *start;
	int r;

	*guard = (struct wcx_task_guard){ .fd = -1, .path = strdup(path) };
	if (!guard->path)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	r = open_base(guard, task, name, &file.st, &sb);
	if (r < 0)
		return wcx_fail(err, -r, "%s: not replaced, since nobody can tell whether others need it: %s", path,
				strerror(-r));
	if (!r)
		return 0;
	file.fd = guard->fd;
	if (wcx_base_lock_for_removal(guard->fd) < 0)
		return wcx_fail(err, EBUSY, "%s: not replaced, since a file is being packed against it", path);
	start = start_of(task);
	r = start ? wcx_dependents_find(task->run->command, start, &file, &guard->why, &why)
		  : wcx_fail(&why, ENOMEM, "no memory");
	free(start);
	if (r < 0)
		return wcx_fail(err, -r, "%s: not replaced, since %s", path, why.text);
	if (!guard->why)
		return 0;
	if (task->run->options.replace)
		return keep(guard, task, name, &file.st, err);
	return wcx_fail(err, EBUSY, "%s: not replaced, since %s; --force keeps it under another name", path, guard->why);
}

/* Whether the output is of the original that was there. */
static bool has_same_original(const struct wcx_task_guard *guard, int fd)
{
	struct wcx_superblock sb;

	return fd >= 0 && wcx_superblock_read(fd, guard->path, &sb, NULL) == 0 && !sb.base_count &&
	       sb.original_bytes == guard->original_bytes && memcmp(sb.sha256, guard->sha256, sizeof sb.sha256) == 0;
}

void wcx_task_guard_end(struct wcx_task_guard *guard, struct wcx_file_task *task, const char *name, int r)
{
	struct wcx_error text;
	struct stat st;
	const int fd = guard->kept && r == 0 ? wcx_task_open_output(task, name, &st) : -1;

	if (guard->kept && has_same_original(guard, fd)) {
		wcx_base_copy_marks(guard->fd, fd);
		unlinkat(task->output_directory_fd, guard->kept, 0);
	} else if (guard->kept && r == 0) {
		wcx_fail(&text, 0, "%s: what it was is kept as %s, since %s", guard->path, guard->kept, guard->why);
		wcx_report_warn(&task->slot, text.text);
	} else if (guard->kept) {
		unlinkat(task->output_directory_fd, guard->kept, 0);
	}
	if (fd >= 0)
		close(fd);
	if (guard->fd >= 0)
		close(guard->fd);
	free(guard->kept);
	free(guard->why);
	free(guard->path);
	*guard = (struct wcx_task_guard){ .fd = -1 };
}
