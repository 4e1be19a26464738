/* SPDX-License-Identifier: MIT */
/* Finds what the files of a run are packed against. */
#include "tools/pack_bases.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/ancestors.h"
#include "fs/base/file_io.h"
#include "fs/base/path.h"
#include "fs/format/safetensors_file.h"
#include "fs/read/base_mark.h"
#include "tools/file_task.h"
#include "tools/model_card.h"
#include "tools/pack_order.h"
#include "tools/relatives.h"
#include "fs/read/store_walk.h"

/* Of a run. */
struct pack_bases {
	struct wcx_base_set given;
	struct wcx_relatives *relatives; /* NULL: no bases are looked for */
};

/* --- the run --- */

/* Prepares to look for bases in --store, or the tree or directory that outputs go to. */
static int begin_search(struct wcx_tree_run *run, struct pack_bases *bases)
{
	char *store = run->command->store ? strdup(run->command->store)
		      : run->paths        ? wcx_directory_of(run->outputs[0])
					  : strdup(run->output_root_path);
	int r = 0;

	bases->relatives = store ? wcx_relatives_create(run->command, store) : NULL;
	free(store);
	if (!bases->relatives)
		return -ENOMEM;
	if (!run->paths)
		r = wcx_pack_order(run);
	return r;
}

/* Warns of a base that is in no store together with the outputs, so that no mount will read both. */
static void warn_of_distant(struct wcx_tree_run *run, const struct wcx_base_set *set)
{
	const char *store = run->command->store;
	char *directory = run->paths ? wcx_directory_of(run->outputs[0]) : strdup(run->output_root_path);
	const int fd = directory ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct wcx_error text;
	bool reaches = true;

	for (size_t i = 0; i < set->count && reaches && fd >= 0; i++) {
		reaches = store ? wcx_is_below(set->files[i].path, store) : wcx_store_walk_reaches(fd, set->files[i].path);
		if (reaches)
			continue;
		wcx_fail(&text, 0, "%s is in no store with %s: a mount, and wcx verify of a tree, must be given both",
			 set->files[i].path, directory);
		wcx_warn(run->command, text.text);
	}
	if (fd >= 0)
		close(fd);
	free(directory);
}

int wcx_pack_bases_begin(struct wcx_tree_run *run, struct wcx_error *err)
{
	const enum wcx_base_choice choice = run->options.base_choice;
	const bool finds = choice == WCX_BASE_FIND || (choice == WCX_BASE_DEFAULT && !run->paths);
	struct pack_bases *bases = calloc(1, sizeof *bases);
	int r = bases ? 0 : -ENOMEM;

	run->own = bases;
	if (r == 0 && finds && !run->options.is_reference && run->item_count)
		r = begin_search(run, bases);
	if (r < 0)
		return wcx_fail(err, -r, "%s", r == -EINTR ? "interrupted" : strerror(-r));
	for (size_t i = 0; i < run->options.base_path_count && r == 0; i++)
		r = wcx_base_set_add_path(&bases->given, run->command, run->options.base_paths[i], err);
	if (r == 0 && !run->is_begun)
		warn_of_distant(run, &bases->given);
	return r;
}

void wcx_pack_bases_end(struct wcx_tree_run *run)
{
	struct pack_bases *bases = run->own;

	if (bases) {
		wcx_base_set_free(&bases->given);
		wcx_relatives_free(bases->relatives);
	}
	free(bases);
	run->own = NULL;
}

/* --- a file --- */

int wcx_task_check_given(const struct wcx_file_task *task, const struct stat *replaced, struct wcx_error *err)
{
	const struct pack_bases *bases = task->run->own;

	if (wcx_base_set_holds(&bases->given, replaced))
		return wcx_fail(err, EINVAL, "%s: cannot be packed against what it would replace", task->path);
	return 0;
}

/* The absolute path of the directory that the output is in; the caller frees it.  NULL: unknown. */
static char *output_directory(const struct wcx_file_task *task)
{
	char link[64], *directory, *path;

	snprintf(link, sizeof link, "/proc/self/fd/%d", task->output_directory_fd);
	path = realpath(link, NULL);
	if (path)
		return path;
	directory = wcx_directory_of(task->output_path);
	path = directory ? realpath(directory, NULL) : NULL;
	free(directory);
	return path;
}

static int read_source(const void *user, uint8_t *dst, size_t bytes, uint64_t offset, struct wcx_error *err)
{
	const struct wcx_file_task *task = user;
	const int r = wcx_read_exact(task->fd, dst, bytes, offset);

	return r < 0 ? wcx_task_fail(task, r == -ENODATA ? EIO : -r, err) : 0;
}

/* Looks for bases in the store. */
static int find_relatives(struct wcx_task_bases *ret, struct wcx_file_task *task, const struct stat *replaced,
			  struct wcx_relatives *relatives, struct wcx_error *err)
{
	struct wcx_based_file file = {
		.file.reader = { .read = read_source, .user = task },
		.stat = task->st,
		.replaced = replaced,
	};
	struct wcx_safetensors *st = NULL;
	char card[WCX_CARD_NAME_BYTES];
	int r = wcx_safetensors_read(task->fd, task->path, (uint64_t)task->st.st_size, &st, err);

	if (r < 0)
		return r;
	file.file.st = st;
	file.card_base = wcx_model_card_base(task->directory_fd, card) ? card : NULL;
	r = wcx_relatives_find(relatives, &file, &ret->found, err);
	wcx_safetensors_free(st);
	return r == -ENOMEM ? wcx_task_fail(task, ENOMEM, err) : r;
}

/* Warns of bases that a mount will not read for all who may read the output. */
static void warn_of_unsuited(struct wcx_file_task *task, const struct wcx_base_set *set)
{
	struct wcx_error text;

	for (size_t i = 0; i < set->count; i++) {
		if (wcx_base_file_suits(&set->files[i], &task->st))
			continue;
		wcx_fail(&text, 0,
			 "%s: a mount will not use %s as its base, since that has another owner, or fewer may read it",
			 task->path, set->files[i].path);
		wcx_report_warn(&task->slot, text.text);
	}
}

int wcx_task_bases_find(struct wcx_task_bases *ret, struct wcx_file_task *task, const struct stat *replaced,
			struct wcx_error *err)
{
	const struct pack_bases *bases = task->run->own;
	const struct wcx_base_set *set = &bases->given;
	char *directory;
	int r = 0;

	*ret = (struct wcx_task_bases){ .task = task };
	if (bases->relatives) {
		set = &ret->found;
		r = find_relatives(ret, task, replaced, bases->relatives, err);
	} else {
		warn_of_unsuited(task, set);
	}
	if (r < 0 || !set->count)
		return r;
	directory = output_directory(task);
	ret->list = wcx_base_set_list(set, directory);
	ret->count = ret->list ? set->count : 0;
	ret->set = set;
	free(directory);
	return ret->list ? 0 : wcx_task_fail(task, ENOMEM, err);
}

void wcx_task_check_gain(struct wcx_file_task *task)
{
	const struct wcx_file_result *result = &task->result;
	struct wcx_error text;

	if (task->run->options.base_choice != WCX_BASE_GIVEN || !result->base_count ||
	    (double)result->based_bytes >= WCX_BASE_MIN_GAIN * (double)result->bytes)
		return;
	wcx_fail(&text, 0, "%s: saves next to nothing against its base, which it needs now; --base=none packs it alone",
		 task->path);
	wcx_report_warn(&task->slot, text.text);
}

void wcx_task_bases_mark(void *user, size_t base)
{
	const struct wcx_task_bases *bases = user;
	const struct wcx_base_file *file = &bases->set->files[base];
	char *directory = wcx_directory_of(file->path);
	const int fd = directory ? open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

	wcx_base_mark(wcx_container_fd(wcx_image_container(file->image)), fd, bases->task->output_directory_fd);
	if (fd >= 0)
		close(fd);
	free(directory);
}

void wcx_task_bases_free(struct wcx_task_bases *bases)
{
	wcx_base_list_free(bases->list, bases->count);
	wcx_base_set_free(&bases->found);
	*bases = (struct wcx_task_bases){ 0 };
}

void wcx_task_bases_note(struct wcx_file_task *task, const char *output_path)
{
	const struct wcx_tree_run *run = task->run;
	const struct pack_bases *bases = run->own;
	struct wcx_safetensors *st = NULL;
	struct wcx_error ignored;

	/* Which of the files that are packed side by side is there first is left to chance, and must not matter. */
	if (!bases->relatives || !run->first_count || run->first_item || task->result.base_count)
		return;
	/* Without memory it is no base. */
	if (wcx_safetensors_read(task->fd, task->path, (uint64_t)task->st.st_size, &st, &ignored) == 0)
		wcx_relatives_add(bases->relatives, output_path, st);
	wcx_safetensors_free(st);
}
