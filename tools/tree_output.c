/* SPDX-License-Identifier: MIT */
/* Makes the directories, links and further names of a run's destination. */
#include "tools/tree_output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/ancestors.h"
#include "fs/base/file_copy.h"
#include "fs/base/output_file.h"
#include "fs/base/parents.h"
#include "fs/base/same_file.h"
#include "tools/file_task.h"
#include "tools/task_guard.h"

/* Tells of a failure at an entry; in the destination or in the source. */
static void tell(struct wcx_tree_run *run, size_t entry, bool in_output, const char *what)
{
	char *path = wcx_tree_path(&run->tree, entry, in_output ? run->output_root_path : run->tree.root_path, "");
	struct wcx_error err;

	wcx_fail(&err, EIO, "%s: %s", path ? path : "", what);
	free(path);
	wcx_report_problem(&run->report, &err);
}

static bool is_directory(const struct wcx_tree_run *run, size_t entry)
{
	return S_ISDIR(run->tree.entries[entry].st.st_mode);
}

/* --- the root --- */

/* How many levels below the source's root a directory is; 0: it is that; -1: it is elsewhere. */
static int levels_below_source(const struct wcx_tree_run *run, int fd)
{
	return wcx_levels_above(fd, &run->tree.entries[0].st);
}

/* Of a root that was made, until it gets the source's: nobody makes a sticky directory for the user alone. */
enum { UNFINISHED_MODE = S_ISVTX | S_IRWXU };

/* Whether a run that was interrupted left the directory. */
static bool is_unfinished(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 07777 & ~(mode_t)S_ISGID) == UNFINISHED_MODE;
}

static int refuse_levels(const struct wcx_tree_run *run, int levels, struct wcx_error *err)
{
	if (levels == 0)
		return wcx_fail(err, EINVAL, "%s: is the source; --rm works in place", run->output_root_path);
	return wcx_fail(err, EINVAL, "%s: is inside the source %s", run->output_root_path, run->tree.root_path);
}

/* Makes the root and what is missing above it, unless that would be inside the source or something is there. */
static int make_root(struct wcx_tree_run *run, struct wcx_error *err)
{
	const char *path = run->output_root_path;
	const int fd = wcx_parents_nearest(path);
	int r = 0;

	if (fd < 0)
		return wcx_fail(err, -fd, "%s: %s", path, strerror(-fd));
	if (levels_below_source(run, fd) >= 0 && access(path, F_OK) < 0) {
		r = refuse_levels(run, 1, err);
	} else {
		r = wcx_parents_make(path, &run->made_above);
		if (r == 0 && mkdir(path, UNFINISHED_MODE) == 0)
			run->sets_root = run->made_root = true;
		else if (r == 0 && errno != EEXIST)
			r = -errno;
		if (r < 0)
			wcx_explain_read_only(fd, wcx_fail(err, -r, "%s: %s", path, strerror(-r)), err);
	}
	close(fd);
	return r;
}

void wcx_tree_output_remove_empty(const struct wcx_tree_run *run)
{
	if (run->made_root && rmdir(run->output_root_path) < 0)
		return;
	wcx_parents_remove(run->output_root_path, run->made_above);
}

/* Around the source, the outputs of a directory in it may be due in the source itself: of models/models, in models. */
static int check_apart(const struct wcx_tree_run *run, struct wcx_error *err)
{
	struct stat st;
	int r = 0;

	if (fstat(run->output_root_fd, &st) < 0 || wcx_levels_above(run->tree.root_fd, &st) < 0)
		return 0;
	for (size_t i = 1; i < run->tree.count && r == 0; i++) {
		const int fd = is_directory(run, i) ? wcx_tree_open_directory(&run->tree, i, run->output_root_fd) : -1;
		char *path;

		if (fd >= 0 && fstat(fd, &st) == 0 && wcx_is_same_file(&st, &run->tree.entries[0].st)) {
			path = wcx_tree_path(&run->tree, i, run->tree.root_path, "");
			r = wcx_fail(err, EINVAL, "%s: would get the outputs of %s into the source", run->output_root_path,
				     path ? path : "");
			free(path);
		}
		if (fd >= 0)
			close(fd);
	}
	return r;
}

int wcx_tree_output_open(struct wcx_tree_run *run, struct wcx_error *err)
{
	const char *path = run->output_root_path;
	int levels, r = make_root(run, err);

	if (r < 0)
		return r;
	run->output_root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (run->output_root_fd < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	levels = levels_below_source(run, run->output_root_fd);
	if (levels >= 0)
		return refuse_levels(run, levels, err);
	run->sets_root = run->sets_root || is_unfinished(run->output_root_fd);
	return check_apart(run, err);
}

/* The bytes of a name that it has packed and unpacked. */
static size_t stem_bytes(const char *name)
{
	const size_t bytes = strlen(name);

	return wcx_is_packed_name(name) ? bytes - strlen(".wcx") : bytes;
}

/* Puts entries next to each other that have one name but for case and ".wcx". */
static int compare_folded(const void *a, const void *b)
{
	const struct wcx_tree_entry *x = *(const struct wcx_tree_entry *const *)a;
	const struct wcx_tree_entry *y = *(const struct wcx_tree_entry *const *)b;
	const size_t x_bytes = stem_bytes(x->name), y_bytes = stem_bytes(y->name);
	const int order = x->directory != y->directory ? (x->directory > y->directory ? 1 : -1)
						       : strncasecmp(x->name, y->name, WCX_MIN(x_bytes, y_bytes));

	return order ? order : (x_bytes > y_bytes) - (x_bytes < y_bytes);
}

/* Whether the destination of a directory takes names for one that differ in case. */
static bool folds_case(const struct wcx_tree_run *run, size_t directory)
{
	const int fd = wcx_tree_open_directory(&run->tree, directory, run->output_root_fd);
	const bool ret = wcx_output_folds_case(fd < 0 ? run->output_root_fd : fd); /* it is made like the root */

	if (fd >= 0)
		close(fd);
	return ret;
}

int wcx_tree_output_check_names(struct wcx_tree_run *run, struct wcx_error *err)
{
	const struct wcx_tree *tree = &run->tree;
	const struct wcx_tree_entry **sorted = run->is_in_place ? NULL : calloc(tree->count, sizeof *sorted);
	int r = sorted || run->is_in_place ? 0 : wcx_fail(err, ENOMEM, "%s: no memory", run->output_root_path);

	for (size_t i = 0; sorted && i < tree->count; i++)
		sorted[i] = &tree->entries[i];
	if (sorted)
		qsort(sorted + 1, tree->count - 1, sizeof *sorted, compare_folded); /* behind the root */
	for (size_t i = 2; sorted && i < tree->count && r == 0; i++) {
		const char *name = sorted[i]->name, *before = sorted[i - 1]->name;
		char *path;

		if (compare_folded(&sorted[i - 1], &sorted[i]) != 0 || strncmp(name, before, stem_bytes(name)) == 0 ||
		    !folds_case(run, sorted[i]->directory))
			continue;
		path = wcx_tree_path(tree, (size_t)(sorted[i] - tree->entries), run->tree.root_path, "");
		r = wcx_fail(err, EEXIST, "%s: %s is beside it, and %s takes both names for one; nothing was written",
			     path ? path : name, before, run->output_root_path);
		free(path);
	}
	free(sorted);
	return r;
}

int wcx_tree_output_check_space(struct wcx_tree_run *run, struct wcx_error *err)
{
	uint64_t least = 0, most = 0, free_bytes;

	if (!run->ops->needs || run->is_in_place)
		return 0;
	for (size_t i = 0; i < run->item_count; i++) {
		const struct wcx_tree_entry *entry = &run->tree.entries[run->items[i]];
		const int src_fd = wcx_tree_open_directory(&run->tree, entry->directory, run->tree.root_fd);
		const int fd = wcx_tree_open_directory(&run->tree, entry->directory, run->output_root_fd);
		uint64_t entry_least = 0, entry_most = 0;

		run->ops->needs(run, src_fd, fd, entry->name, &entry->st, &entry_least, &entry_most);
		least += entry_least;
		most += entry_most;
		if (fd >= 0)
			close(fd);
		if (src_fd >= 0)
			close(src_fd);
	}
	free_bytes = wcx_free_bytes(run->output_root_fd);
	if (least > free_bytes)
		return wcx_fail(err, ENOSPC, "%s: needs %s%llu bytes, %llu are free; nothing was written",
				run->output_root_path, least < most ? "at least " : "", (unsigned long long)least,
				(unsigned long long)free_bytes);
	if (most > free_bytes) {
		struct wcx_report_slot slot = { &run->report, 0 };
		struct wcx_error text;

		wcx_fail(&text, 0, "%s: may need up to %llu bytes, %llu are free", run->output_root_path,
			 (unsigned long long)most, (unsigned long long)free_bytes);
		wcx_report_warn(&slot, text.text);
	}
	return 0;
}

/* --- directories --- */

static int make_directory(struct wcx_tree_run *run, size_t entry)
{
	const struct wcx_tree_entry *e = &run->tree.entries[entry];
	const int fd = wcx_tree_open_directory(&run->tree, e->directory, run->output_root_fd);
	struct stat st;
	int r = fd < 0 ? fd : 0;

	if (r == 0 && mkdirat(fd, e->name, S_IRWXU) < 0)
		r = -errno;
	if (r == -EEXIST && fstatat(fd, e->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		r = S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	if (fd >= 0)
		close(fd);
	return r;
}

void wcx_tree_output_make_directories(struct wcx_tree_run *run)
{
	for (size_t i = 1; i < run->tree.count && !wcx_command_stop; i++) {
		const int r = is_directory(run, i) ? make_directory(run, i) : 0;

		if (r < 0)
			tell(run, i, true, strerror(-r));
	}
}

void wcx_tree_output_tidy(const struct wcx_tree_run *run)
{
	for (size_t i = 0; i < run->tree.count && !wcx_command_stop; i++) {
		const int fd = is_directory(run, i) ? wcx_tree_open_directory(&run->tree, i, run->output_root_fd) : -1;

		if (fd < 0)
			continue;
		wcx_output_tidy(fd);
		close(fd);
	}
}

/* The times that the source's directory had when it was listed. */
static int restore_times(const struct wcx_tree_run *run, size_t entry)
{
	const struct stat *st = &run->tree.entries[entry].st;
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	const int fd = wcx_tree_open_directory(&run->tree, entry, run->output_root_fd);
	int r = fd < 0 ? fd : 0;

	if (r == 0 && futimens(fd, times) < 0)
		r = -errno;
	if (fd >= 0)
		close(fd);
	return r;
}

static int copy_metadata(struct wcx_tree_run *run, size_t entry)
{
	const int src_fd = wcx_tree_open_directory(&run->tree, entry, run->tree.root_fd);
	const int dst_fd = src_fd < 0 ? src_fd : wcx_tree_open_directory(&run->tree, entry, run->output_root_fd);
	char *path = wcx_tree_path(&run->tree, entry, run->output_root_path, "");
	struct wcx_report_slot slot = { &run->report, 0 };
	int r = dst_fd < 0 ? dst_fd : path ? 0 : -ENOMEM;

	if (r == 0)
		r = wcx_file_metadata_copy(src_fd, dst_fd, path, wcx_report_warn, &slot);
	if (dst_fd >= 0)
		close(dst_fd);
	if (src_fd >= 0)
		close(src_fd);
	free(path);
	return r;
}

void wcx_tree_output_finish(struct wcx_tree_run *run)
{
	/* From the deepest: entering a directory needs permission, and its own time changes with its entries. */
	for (size_t i = run->tree.count; i-- > 0;) {
		int r = 0;

		if (!is_directory(run, i))
			continue;
		if (i == 0 && !run->is_in_place && !run->sets_root) /* the user made it, with owner and permissions */
			r = restore_times(run, i) == -EPERM ? 0 : r;
		else if (!run->is_in_place)
			r = copy_metadata(run, i);
		else if (run->marks[i].is_touched)
			r = restore_times(run, i);
		if (r < 0)
			tell(run, i, !run->is_in_place, strerror(-r));
	}
}

/* --- links --- */

static int copy_link(struct wcx_tree_run *run, size_t entry)
{
	const struct wcx_tree_entry *e = &run->tree.entries[entry];
	const int src_fd = wcx_tree_open_directory(&run->tree, e->directory, run->tree.root_fd);
	const int dst_fd = src_fd < 0 ? src_fd : wcx_tree_open_directory(&run->tree, e->directory, run->output_root_fd);
	char text[PATH_MAX], name[NAME_MAX + 1];
	ssize_t bytes = 0;
	int r = dst_fd < 0 ? dst_fd : 0;

	snprintf(name, sizeof name, "%s", e->name);
	if (r == 0)
		bytes = readlinkat(src_fd, name, text, sizeof text);
	if (bytes < 0 || bytes == (ssize_t)sizeof text)
		r = bytes < 0 ? -errno : -ENAMETOOLONG;
	if (r == 0) {
		text[bytes] = '\0';
		if (run->ops->link)
			run->ops->link(src_fd, name, text);
		r = wcx_symlink_copy(text, &e->st, run->options.replace, dst_fd, name);
	}
	if (dst_fd >= 0)
		close(dst_fd);
	if (src_fd >= 0)
		close(src_fd);
	return r;
}

/* Of a special file, such as a FIFO or a socket, nothing is kept but this line. */
static void tell_special(struct wcx_tree_run *run, size_t entry)
{
	char *path = wcx_tree_path(&run->tree, entry, run->tree.root_path, "");
	struct wcx_file_result result = { .outcome = WCX_OUTCOME_LEFT, .path = path ? path : "" };
	struct wcx_report_slot slot = { &run->report, 0 };

	wcx_fail(&result.error, 0, "%s: a special file is left out", result.path);
	wcx_report_warn(&slot, result.error.text);
	wcx_report_file(&run->report, 0, &result);
	free(path);
}

void wcx_tree_output_copy_links(struct wcx_tree_run *run)
{
	for (size_t i = 1; i < run->tree.count && !wcx_command_stop; i++) {
		const mode_t mode = run->tree.entries[i].st.st_mode;
		int r = 0;

		if (S_ISLNK(mode) && !run->is_in_place)
			r = copy_link(run, i);
		else if (!S_ISLNK(mode) && !S_ISDIR(mode) && !S_ISREG(mode))
			tell_special(run, i);
		if (r < 0)
			tell(run, i, true, strerror(-r));
	}
}

/* --- further names --- */

/* The name that an entry has in the destination, where its file's name changed in this way. */
static char *changed_name(const struct wcx_tree_run *run, size_t entry, enum wcx_name_change change)
{
	const char *name = run->tree.entries[entry].name;
	const size_t bytes = strlen(name), suffix_bytes = strlen(".wcx");
	char *changed;

	if (change == WCX_NAME_KEPT || change == WCX_NAME_REPLACED)
		return strdup(name);
	if (change == WCX_NAME_PACKED)
		return asprintf(&changed, "%s.wcx", name) < 0 ? NULL : changed;
	return bytes > suffix_bytes && strcmp(name + bytes - suffix_bytes, ".wcx") == 0 ? strndup(name, bytes - suffix_bytes)
											: NULL;
}

/* Whether both names are of one file already. */
static bool is_linked(int fd, const char *name, int other_fd, const char *other_name)
{
	struct stat a, b;

	return fstatat(fd, name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(other_fd, other_name, &b, AT_SYMLINK_NOFOLLOW) == 0 && wcx_is_same_file(&a, &b);
}

/* Whether a name still has the file that was listed, which a link is to replace. */
static bool is_as_listed(int directory_fd, const struct wcx_tree_entry *entry)
{
	struct stat st;

	return fstatat(directory_fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && wcx_same_version(&st, &entry->st);
}

/* Whether a further name may become a link; one that may not is for the command to judge, as a file of its own. */
static bool may_link(const struct wcx_tree_run *run, const struct wcx_file_task *task, size_t entry, const char *to)
{
	const struct wcx_tree_entry *e = &run->tree.entries[entry];
	struct stat st;

	if (run->marks[run->marks[entry].leader].change == WCX_NAME_REPLACED)
		return is_as_listed(task->directory_fd, e);
	if (run->options.replace || fstatat(task->output_directory_fd, to, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return true;
	return !run->is_in_place && wcx_is_older(&st, &e->st);
}

static int replace_by_link(int leader_fd, const char *from, struct wcx_file_task *task, const char *to,
			   struct wcx_error *err)
{
	const struct wcx_output_source source = { .fd = openat(leader_fd, from,
							       O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) };
	struct wcx_task_guard guard;
	int r = wcx_task_guard_begin(&guard, task, to, task->output_path, &source, err);

	if (r == 0)
		r = wcx_file_link(leader_fd, from, task->output_directory_fd, to, guard.is_there);
	wcx_task_guard_end(&guard, task, to, r);
	if (source.fd >= 0)
		close(source.fd);
	return r;
}

/* Links the leader's output to a further name; in place, removes the source under that name. */
static int link_name(struct wcx_tree_run *run, size_t entry, struct wcx_file_task *task, struct wcx_error *err)
{
	const struct wcx_tree_entry *e = &run->tree.entries[entry];
	const size_t leader = run->marks[entry].leader;
	const enum wcx_name_change change = run->marks[leader].change;
	const bool removes = run->is_in_place && (change == WCX_NAME_PACKED || change == WCX_NAME_UNPACKED);
	const int leader_fd = wcx_tree_open_directory(&run->tree, run->tree.entries[leader].directory, run->output_root_fd);
	char *from = changed_name(run, leader, change);
	char *to = changed_name(run, entry, change);
	int r = from && to && leader_fd >= 0 && task->output_directory_fd >= 0 ? 0 : -EXDEV;
	struct stat st;

	/* Whatever has taken the place of the leader's output since has another time. */
	if (r == 0 && removes && (fstatat(leader_fd, from, &st, AT_SYMLINK_NOFOLLOW) < 0 || !wcx_has_time_of(&st, &e->st)))
		r = -EBUSY;
	if (r == 0 && !is_linked(leader_fd, from, task->output_directory_fd, to))
		r = !may_link(run, task, entry, to) ? -EEXIST : replace_by_link(leader_fd, from, task, to, err);
	if (r == 0 && removes) {
		task->name = e->name;
		task->st = e->st;
		task->change = change;
		r = wcx_task_remove_source(task, to, &st, err);
	}
	if (leader_fd >= 0)
		close(leader_fd);
	free(from);
	free(to);
	return r;
}

void wcx_tree_output_link_names(struct wcx_tree_run *run)
{
	for (size_t i = 1; i < run->tree.count && !wcx_command_stop; i++) {
		struct tree_mark *mark = &run->marks[i];
		const size_t directory = run->tree.entries[i].directory;
		struct wcx_file_task task = { .run = run, .slot = { &run->report, 0 }, .item = SIZE_MAX };
		char *path;

		if (!S_ISREG(run->tree.entries[i].st.st_mode) || mark->leader == i)
			continue;
		if (run->is_in_place && run->marks[mark->leader].change == WCX_NAME_KEPT &&
		    run->marks[mark->leader].is_finished)
			continue;
		path = wcx_tree_path(&run->tree, i, run->tree.root_path, "");
		task.path = task.result.path = path ? path : "";
		task.output_path = task.path;
		task.result.outcome = WCX_OUTCOME_LINKED;
		task.directory_fd = wcx_tree_open_directory(&run->tree, directory, run->tree.root_fd);
		task.output_directory_fd = wcx_tree_open_directory(&run->tree, directory, run->output_root_fd);
		if (!run->marks[mark->leader].is_finished || task.directory_fd < 0 ||
		    link_name(run, i, &task, &task.result.error) < 0)
			mark->leader = i;
		else
			wcx_report_file(&run->report, 0, &task.result);
		if (mark->leader != i && run->is_in_place)
			run->marks[directory].is_touched = true;
		if (task.directory_fd >= 0)
			close(task.directory_fd);
		if (task.output_directory_fd >= 0)
			close(task.output_directory_fd);
		free(path);
	}
}
