/* SPDX-License-Identifier: MIT */
/* Finds what the files of a run are packed against. */
#include "tools/pack_bases.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/file_task.h"

/* Of a run. */
struct pack_bases {
	struct wcx_base_set given;
};

int wcx_pack_bases_begin(struct wcx_tree_run *run, struct wcx_error *err)
{
	struct pack_bases *bases = calloc(1, sizeof *bases);
	int r = bases ? 0 : wcx_fail(err, ENOMEM, "%s", strerror(ENOMEM));

	run->own = bases;
	for (size_t i = 0; i < run->options.base_path_count && r == 0; i++)
		r = wcx_base_set_add_path(&bases->given, run->command, run->options.base_paths[i], err);
	return r;
}

void wcx_pack_bases_end(struct wcx_tree_run *run)
{
	struct pack_bases *bases = run->own;

	if (bases)
		wcx_base_set_free(&bases->given);
	free(bases);
	run->own = NULL;
}

/* The absolute path of the directory that the output is in; the caller frees it.  NULL: unknown. */
static char *output_directory(const struct wcx_file_task *task)
{
	char link[64], *copy, *path;

	snprintf(link, sizeof link, "/proc/self/fd/%d", task->output_directory_fd);
	path = realpath(link, NULL);
	if (path)
		return path;
	copy = strdup(task->output_path);
	path = copy ? realpath(dirname(copy), NULL) : NULL;
	free(copy);
	return path;
}

int wcx_task_bases_find(struct wcx_task_bases *ret, struct wcx_file_task *task, const struct stat *replaced,
			struct wcx_error *err)
{
	const struct pack_bases *bases = task->run->own;
	char *directory;

	*ret = (struct wcx_task_bases){ 0 };
	if (replaced && wcx_base_set_holds(&bases->given, replaced))
		return wcx_fail(err, EINVAL, "%s: cannot be packed against what it would replace", task->path);
	if (!bases->given.count)
		return 0;
	directory = output_directory(task);
	ret->list = wcx_base_set_list(&bases->given, directory);
	ret->count = ret->list ? bases->given.count : 0;
	free(directory);
	return ret->list ? 0 : wcx_task_fail(task, ENOMEM, err);
}

void wcx_task_bases_free(struct wcx_task_bases *bases)
{
	wcx_base_list_free(bases->list, bases->count);
	wcx_base_set_free(&bases->found);
}
