/* SPDX-License-Identifier: MIT */
/* Runs a command on the files of a tree, or on named files, several at a time. */
#include "tools/tree_run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/host_limits.h"
#include "fs/base/parallel.h"
#include "fs/base/path.h"
#include "fs/base/same_file.h"
#include "tools/dependents.h"
#include "tools/file_task.h"
#include "tools/tree_output.h"

/* What a file that is packed takes besides its threads' buffers: plans, and the cache that verifies it. */
static const uint64_t file_memory_bytes = UINT64_C(512) << 20;

/* --- one file --- */

static void close_task(struct wcx_file_task *task)
{
	const int fds[] = { task->fd, task->directory_fd, task->output_directory_fd };

	for (size_t i = 0; i < WCX_ARRAY_COUNT(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* Opens what was listed; directory_fd is open, or -errno. */
static int open_file(struct wcx_file_task *task, int flags, struct wcx_error *err)
{
	int errnum = 0;

	if (task->directory_fd < 0)
		errnum = -task->directory_fd;
	else if ((task->fd = openat(task->directory_fd, task->name, flags | O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0 ||
		 fstat(task->fd, &task->st) < 0)
		errnum = errno;
	if (errnum)
		return wcx_fail(err, errnum, "%s: %s", task->path, strerror(errnum));
	if (!S_ISREG(task->st.st_mode))
		return wcx_fail(err, EINVAL, "%s: not a regular file", task->path);
	task->result.bytes = (uint64_t)task->st.st_size;
	return 0;
}

static const char goes_on[] = "; the same command goes on from here";

/* Whether there are outputs already, with which the same run begins another time. */
static bool has_output(struct wcx_tree_run *run)
{
	static const enum wcx_outcome kept[] = { WCX_OUTCOME_PACKED, WCX_OUTCOME_UNPACKED, WCX_OUTCOME_CONVERTED,
						 WCX_OUTCOME_COPIED, WCX_OUTCOME_DONE };
	uint64_t count = 0;

	pthread_mutex_lock(&run->report.lock);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(kept); i++)
		count += run->report.counts[kept[i]];
	pthread_mutex_unlock(&run->report.lock);
	return count > 0;
}

/* What ends the run: the other files would fail in the same way. */
static bool ends_run(int r)
{
	return r == -ENOSPC || r == -EDQUOT || r == -EROFS || r == -EINTR;
}

static void free_result(struct wcx_file_result *result)
{
	free(result->output);
	free(result->base);
	free(result->base_found);
	free(result->base_sha256);
	result->output = result->base = result->base_found = NULL;
	result->base_sha256 = NULL;
}

/* Does the command's work on an open file, and reports it.  Returns 0, or an error that ends the run. */
static int do_file(struct wcx_file_task *task, int r, struct wcx_error *err)
{
	struct wcx_tree_run *run = task->run;

	if (r == 0)
		r = wcx_explain_read_only(task->output_directory_fd < 0 ? task->directory_fd : task->output_directory_fd,
					  run->ops->file(task, err), err);
	if (r == -EINTR) {
		free_result(&task->result);
		return r;
	}
	if (r < 0) {
		task->result.outcome = r == -EMEDIUMTYPE ? WCX_OUTCOME_OTHER_KIND : WCX_OUTCOME_FAILED;
		task->result.error = *err;
		task->result.packed_bytes = 0;
		task->result.base_count = 0;
		task->result.based_bytes = 0;
		task->result.dtypes.count = 0;
	}
	wcx_report_file(&run->report, task->slot.number, &task->result);
	free_result(&task->result);
	if (!ends_run(r) || run->item_count == 1)
		return 0;
	return wcx_fail(err, -r, "stopped, since other files would fail too%s", has_output(run) ? goes_on : "");
}

static int do_entry(struct wcx_tree_run *run, unsigned slot, size_t item, struct wcx_error *err)
{
	const struct wcx_tree *tree = &run->tree;
	const size_t entry = run->items[item];
	const size_t directory = tree->entries[entry].directory;
	char *path = wcx_tree_path(tree, entry, tree->root_path, "");
	char *output_path = wcx_tree_path(tree, entry, run->output_root_path ? run->output_root_path : tree->root_path, "");
	struct wcx_file_task task = {
		.run = run,
		.slot = { &run->report, slot },
		.item = item,
		.name = tree->entries[entry].name,
		.path = path ? path : tree->entries[entry].name,
		.directory_fd = wcx_tree_open_directory(tree, directory, tree->root_fd),
		.fd = -1,
		.output_directory_fd = -1,
		.output = tree->entries[entry].name,
		.output_path = output_path ? output_path : tree->entries[entry].name,
	};
	int r;

	task.result.path = task.path;
	r = open_file(&task, O_NOFOLLOW, err);
	if (r == 0 && run->output_root_path) {
		task.output_directory_fd = wcx_tree_open_directory(tree, directory, run->output_root_fd);
		if (task.output_directory_fd < 0)
			r = wcx_fail(err, -task.output_directory_fd, "%s: %s", task.output_path,
				     strerror(-task.output_directory_fd));
	}
	r = do_file(&task, r, err);
	run->marks[entry].change = task.change;
	/* What has taken its place since the tree was listed has not the contents of its further names. */
	run->marks[entry].is_finished =
		task.result.outcome != WCX_OUTCOME_FAILED && wcx_is_same_file(&task.st, &tree->entries[entry].st);
	if (task.result.is_removed || task.change == WCX_NAME_REPLACED)
		run->marks[directory].is_touched = true;
	close_task(&task);
	free(path);
	free(output_path);
	return r;
}

/* Opens the directory that a path is in; -errno. */
static int open_directory_of(const char *path)
{
	char *directory = wcx_directory_of(path);
	const int fd = directory ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	const int r = fd < 0 ? -errno : fd;

	free(directory);
	return r;
}

static int do_named(struct wcx_tree_run *run, unsigned slot, size_t item, struct wcx_error *err)
{
	const char *path = run->paths[item], *output = run->outputs ? run->outputs[item] : NULL;
	struct wcx_file_task task = {
		.run = run,
		.slot = { &run->report, slot },
		.item = item,
		.is_named = true,
		.name = wcx_last_name(path),
		.path = path,
		.directory_fd = open_directory_of(path),
		.fd = -1,
		.output_directory_fd = -1,
		.output = output ? wcx_last_name(output) : NULL,
		.output_path = output,
		.result = { .path = path },
	};
	/* A name such as /dev/stdin or an empty one is for open(2) to judge. */
	int r = *task.name ? open_file(&task, 0, err) : wcx_fail(err, EINVAL, "%s: not a regular file", path);

	if (r == 0 && output && !*task.output)
		r = wcx_fail(err, ENOENT, "%s: there is no such directory", output);
	if (r == 0 && output) {
		task.output_directory_fd = open_directory_of(output);
		if (task.output_directory_fd == -ENOENT)
			r = wcx_fail(err, ENOENT, "%s: output directory %.*s does not exist", output,
				     (int)(task.output - output - 1), output);
		else if (task.output_directory_fd < 0)
			r = wcx_fail(err, -task.output_directory_fd, "%s: %s", output, strerror(-task.output_directory_fd));
	}
	r = do_file(&task, r, err);
	close_task(&task);
	return r;
}

static int do_item(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct wcx_tree_run *run = user;
	const size_t number = run->first_item + (size_t)item, count = run->end_item - run->first_item;
	int r = run->paths ? do_named(run, worker, number, err) : do_entry(run, worker, number, err);
	const size_t finished = atomic_fetch_add(&run->finished, 1) + 1;

	(void)loop;
	/* Once no file is left to begin, the others get this one's cores. */
	if (count - finished < run->side_by_side)
		run->share.workers = (unsigned)WCX_MAX(count - finished, 1);
	return r;
}

/* How many files to work on at a time: enough for all cores, as far as memory allows. */
static void share_cores(struct wcx_tree_run *run)
{
	struct wcx_host_limits limits;
	/* What is shown is shown in the order of the tree. */
	uint64_t most = run->ops->shows ? 1 : WCX_MIN(run->command->thread_count, WCX_REPORT_SLOTS);

	wcx_host_limits_get(&limits);
	most = WCX_MIN(most, limits.memory_bytes / file_memory_bytes);
	most = WCX_MIN(most, run->end_item - run->first_item);
	run->side_by_side = (unsigned)WCX_MAX(most, 1);
	run->share.cores = run->command->thread_count;
	run->share.workers = run->side_by_side;
}

/* Does the items from `first` on up to `end`. */
static int do_range(struct wcx_tree_run *run, size_t first, size_t end, struct wcx_error *err)
{
	int r;

	run->first_item = first;
	run->end_item = end;
	run->ahead_end = first;
	share_cores(run);
	run->finished = 0;
	r = wcx_parallel_for(run->side_by_side, end - first, do_item, run, &wcx_command_stop, err);
	if (run->dependents)
		wcx_dependents_unlock_ahead(run->dependents); /* what was not replaced may be a base of those that follow */
	return r;
}

static int begin(struct wcx_tree_run *run, struct wcx_error *err)
{
	return run->ops->begin ? run->ops->begin(run, err) : 0;
}

static void end(struct wcx_tree_run *run)
{
	if (run->ops->end)
		run->ops->end(run);
	run->first_count = 0;
}

/* Between begin and end. */
static int do_begun_items(struct wcx_tree_run *run, struct wcx_error *err)
{
	int r = run->first_count ? do_range(run, 0, run->first_count, err) : 0;

	if (r == 0 && run->first_count < run->item_count)
		r = do_range(run, run->first_count, run->item_count, err);
	return r;
}

static int do_items(struct wcx_tree_run *run, struct wcx_error *err)
{
	int r = begin(run, err);

	if (r == 0)
		r = do_begun_items(run, err);
	end(run);
	return r;
}

/* --- trees --- */

struct by_size {
	size_t entry;
	off_t bytes;
};

static int compare_sizes(const void *a, const void *b)
{
	const struct by_size *x = a, *y = b;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

struct by_inode {
	dev_t device;
	ino_t inode;
	bool is_plain; /* not named NAME.wcx: unpack passes over it, so it does not stand for the others */
	size_t entry;
};

static int compare_inodes(const void *a, const void *b)
{
	const struct by_inode *x = a, *y = b;

	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	if (x->is_plain != y->is_plain)
		return x->is_plain ? 1 : -1;
	return x->entry < y->entry ? -1 : x->entry > y->entry;
}

/* Finds the files with several names in the tree. */
static int find_leaders(struct wcx_tree_run *run)
{
	struct by_inode *files = calloc(run->tree.count, sizeof *files);
	size_t count = 0;

	if (!files)
		return -ENOMEM;
	for (size_t i = 0; i < run->tree.count; i++) {
		const struct wcx_tree_entry *entry = &run->tree.entries[i];
		const struct stat *st = &entry->st;

		run->marks[i].leader = i;
		if (S_ISREG(st->st_mode) && st->st_nlink > 1)
			files[count++] = (struct by_inode){ st->st_dev, st->st_ino, !wcx_is_packed_name(entry->name), i };
	}
	qsort(files, count, sizeof *files, compare_inodes);
	for (size_t i = 1; i < count; i++)
		if (files[i].device == files[i - 1].device && files[i].inode == files[i - 1].inode)
			run->marks[files[i].entry].leader = run->marks[files[i - 1].entry].leader;
	free(files);
	return 0;
}

/* Lists the files to work on: those with further names once, where there are outputs that can have such names too. */
static int choose_items(struct wcx_tree_run *run)
{
	struct by_size *files = calloc(run->tree.count, sizeof *files);

	run->items = calloc(run->tree.count, sizeof *run->items);
	run->marks = calloc(run->tree.count, sizeof *run->marks);
	if (!files || !run->items || !run->marks || find_leaders(run) < 0) {
		free(files);
		return -ENOMEM;
	}
	run->item_count = 0;
	for (size_t i = 0; i < run->tree.count; i++) {
		const struct wcx_tree_entry *entry = &run->tree.entries[i];

		if (S_ISREG(entry->st.st_mode) && (run->marks[i].leader == i || !run->output_root_path))
			files[run->item_count++] = (struct by_size){ i, entry->st.st_size };
	}
	if (!run->ops->shows)
		qsort(files, run->item_count, sizeof *files, compare_sizes);
	for (size_t i = 0; i < run->item_count; i++) {
		run->items[i] = files[i].entry;
		run->report.total_bytes += (uint64_t)files[i].bytes;
	}
	run->report.total_files = run->item_count;
	free(files);
	return 0;
}

/* The names that could not be linked, as files of their own. */
static int do_unlinked(struct wcx_tree_run *run, const bool *was_leader, struct wcx_error *err)
{
	run->item_count = 0;
	for (size_t i = 0; i < run->tree.count; i++)
		if (S_ISREG(run->tree.entries[i].st.st_mode) && run->marks[i].leader == i && !was_leader[i])
			run->items[run->item_count++] = i;
	return run->item_count ? do_items(run, err) : 0;
}

/* Does the files that wait for none, and then the others; the order of either stays. */
static int do_items_in_turn(struct wcx_tree_run *run, struct wcx_error *err)
{
	const size_t count = run->item_count;
	size_t *late = run->ops->waits ? calloc(count, sizeof *late) : NULL, late_count = 0;
	int r;

	if (!late)
		return run->ops->waits && count ? wcx_fail(err, ENOMEM, "no memory") : do_begun_items(run, err);
	run->item_count = 0;
	for (size_t i = 0; i < count; i++) {
		const size_t entry = run->items[i];
		const int directory_fd =
			wcx_tree_open_directory(&run->tree, run->tree.entries[entry].directory, run->tree.root_fd);

		if (run->ops->waits(run, directory_fd, run->tree.entries[entry].name))
			late[late_count++] = entry;
		else
			run->items[run->item_count++] = entry;
		if (directory_fd >= 0)
			close(directory_fd);
	}
	r = run->item_count ? do_items(run, err) : 0;
	memcpy(run->items, late, late_count * sizeof *late);
	run->item_count = late_count;
	free(late);
	return r == 0 && late_count ? do_items(run, err) : r;
}

/* Makes the files of the output, once it is known that there is space for them, and what they are packed against. */
static int make_files(struct wcx_tree_run *run, struct wcx_error *err)
{
	int r = begin(run, err);

	if (r == 0) {
		wcx_tree_output_tidy(run);
		r = wcx_tree_output_check_names(run, err);
	}
	if (r == 0)
		r = wcx_tree_output_check_space(run, err);
	if (r == 0) {
		run->is_begun = true;
		if (!run->is_in_place)
			wcx_tree_output_make_directories(run);
		r = do_items_in_turn(run, err);
	}
	end(run);
	return r;
}

static int make_output(struct wcx_tree_run *run, struct wcx_error *err)
{
	bool *was_leader = calloc(run->tree.count, sizeof *was_leader);
	int r = was_leader ? 0 : wcx_fail(err, ENOMEM, "%s: %s", run->tree.root_path, strerror(ENOMEM));

	for (size_t i = 0; r == 0 && i < run->tree.count; i++)
		was_leader[i] = run->marks[i].leader == i;
	if (r == 0)
		r = make_files(run, err);
	if (r == 0)
		wcx_tree_output_link_names(run);
	if (r == 0)
		r = do_unlinked(run, was_leader, err);
	if (r == 0)
		wcx_tree_output_copy_links(run);
	if (run->is_begun)
		wcx_tree_output_finish(run);
	free(was_leader);
	return r;
}

static bool has_packed(const struct wcx_report *report)
{
	uint64_t count = 0;

	for (int i = 0; i < WCX_OUTCOMES; i++)
		count += i == WCX_OUTCOME_LEFT ? 0 : report->counts[i];
	return count > 0;
}

/* Makes what files are decoded with; tree is where their bases are unless the command line says so, or NULL. */
static int prepare(struct wcx_tree_run *run, const char *tree, struct wcx_error *err)
{
	struct command *command = run->command;
	const int r = wcx_command_prepare(command, err);

	if (r < 0)
		return r;
	run->store = command->store ? command->store : tree;
	run->bases = wcx_base_search_create(run->store, command->cache, command->decoder, &wcx_command_stop);
	if (run->bases && !command->store)
		wcx_base_search_advise(run->bases, WCX_COMMAND_STORE_ADVICE);
	run->dependents = wcx_dependents_create(command->store);
	return run->bases && run->dependents ? 0 : wcx_fail(err, ENOMEM, "no memory");
}

int wcx_run_tree(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
		 const char *path, const char *output)
{
	struct wcx_tree_run run = {
		.command = command,
		.ops = ops,
		.options = *options,
		.is_in_place = (ops->needs || ops->replaces) && !output,
		.output_root_path = (ops->needs || ops->replaces) && !output ? path : output,
		.output_root_fd = -1,
		.tree.root_fd = -1,
		.ahead_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	struct wcx_error err = { "" };
	int r;

	wcx_command_catch_signals();
	wcx_report_begin(&run.report, command, ops->what, true, 0, 0);
	run.report.shows = ops->shows;
	r = ops->decodes ? prepare(&run, path, &err) : 0;
	if (r == 0)
		r = wcx_tree_list(&run.tree, path, wcx_report_problem, &run.report, &wcx_command_stop, &err);
	if (r == 0) {
		r = choose_items(&run);
		if (r < 0)
			wcx_fail(&err, -r, "%s: %s", path, strerror(-r));
	}
	if (r == 0 && run.is_in_place)
		run.output_root_fd = fcntl(run.tree.root_fd, F_DUPFD_CLOEXEC, 0);
	else if (r == 0 && output)
		r = wcx_tree_output_open(&run, &err);
	if (r == 0)
		r = run.output_root_path ? make_output(&run, &err) : do_items(&run, &err);
	if (r == 0 && ops->wants_packed && !has_packed(&run.report))
		r = wcx_fail_without_packed(path, &err);
	if (r == -EINTR)
		wcx_fail(&err, EINTR, "interrupted%s", has_output(&run) ? goes_on : "");
	if (run.output_root_fd >= 0)
		close(run.output_root_fd);
	if ((r < 0 || run.report.counts[WCX_OUTCOME_FAILED]) && output)
		wcx_tree_output_remove_empty(&run);
	wcx_tree_free(&run.tree);
	free(run.items);
	free(run.marks);
	wcx_base_search_free(run.bases);
	wcx_dependents_free(run.dependents);
	return wcx_report_end(&run.report, r, &err);
}

int wcx_run_files(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
		  char **paths, char **outputs, size_t count)
{
	struct wcx_tree_run run = {
		.command = command,
		.ops = ops,
		.options = *options,
		.paths = paths,
		.outputs = outputs,
		.item_count = count,
		.tree.root_fd = -1,
		.ahead_lock = PTHREAD_MUTEX_INITIALIZER,
	};
	struct wcx_error err = { "" };
	uint64_t bytes = 0;
	struct stat st;
	int r;

	for (size_t i = 0; i < count; i++)
		bytes += stat(paths[i], &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	wcx_command_catch_signals();
	wcx_report_begin(&run.report, command, ops->what, false, count, bytes);
	r = ops->decodes ? prepare(&run, NULL, &err) : 0;
	if (r == 0)
		r = do_items(&run, &err);
	wcx_base_search_free(run.bases);
	wcx_dependents_free(run.dependents);
	return wcx_report_end(&run.report, r, &err);
}
