/* SPDX-License-Identifier: MIT */
/* Paths on the command line: files and trees, and where their outputs go. */
#include "tools/arguments.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/output_file.h"
#include "fs/base/path.h"

static bool is_directory(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The output's path: in a directory, or, with NULL, beside the file.  The caller frees it. */
static char *output_path(const char *path, const char *directory, char *(*output_name)(const char *name))
{
	const char *slash = strrchr(path, '/');
	const int beside_bytes = slash ? (int)(slash - path) + 1 : 0;
	char *name = output_name(path + beside_bytes), *output = NULL;
	int bytes;

	if (!name)
		return NULL;
	if (directory)
		bytes = asprintf(&output, "%s/%s", directory, name);
	else
		bytes = asprintf(&output, "%.*s%s", beside_bytes, path, name);
	free(name);
	return bytes < 0 ? NULL : output;
}

static int compare_paths(const void *a, const void *b)
{
	const char *x = *(const char *const *)a, *y = *(const char *const *)b;
	const int order = strcasecmp(x, y);

	return order ? order : strcmp(x, y);
}

/* Whether two paths that differ in case lead to one file, in a directory that is there. */
static bool is_one(const char *a, const char *b)
{
	char *directory = wcx_directory_of(a);
	const int fd = directory && strncmp(a, b, strlen(a) - strlen(wcx_last_name(a))) == 0
			       ? open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
			       : -1;
	const bool ret = fd >= 0 && wcx_output_folds_case(fd);

	if (fd >= 0)
		close(fd);
	free(directory);
	return ret;
}

/* Fails if two files would have one output, of which the second would replace the first with --force. */
static int check_outputs(char **outputs, size_t count, struct wcx_error *err)
{
	char **sorted = calloc(count, sizeof *sorted);
	int r = sorted ? 0 : wcx_fail(err, ENOMEM, "no memory");

	if (sorted)
		memcpy(sorted, outputs, count * sizeof *sorted);
	if (sorted)
		qsort(sorted, count, sizeof *sorted, compare_paths);
	for (size_t i = 1; i < count && r == 0; i++)
		if (strcmp(sorted[i - 1], sorted[i]) == 0 ||
		    (strcasecmp(sorted[i - 1], sorted[i]) == 0 && is_one(sorted[i - 1], sorted[i])))
			r = wcx_fail(err, EEXIST, "%s: would be the output of several files; nothing was done", sorted[i]);
	free(sorted);
	return r;
}

/* Works on named files, with outputs in a directory, beside them, or, of one, with a name. */
static int run_files(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
		     char **paths, size_t count, const char *directory, const char *name,
		     char *(*output_name)(const char *name))
{
	char **outputs = calloc(count, sizeof *outputs);
	bool complete = outputs != NULL;
	struct wcx_error err;
	int status;

	for (size_t i = 0; complete && i < count; i++) {
		outputs[i] = name ? strdup(name) : output_path(paths[i], directory, output_name);
		complete = outputs[i] != NULL;
	}
	if ((complete ? check_outputs(outputs, count, &err) : wcx_fail(&err, ENOMEM, "no memory")) < 0)
		status = wcx_command_failed(command, &err);
	else
		status = wcx_run_files(command, ops, options, paths, outputs, count);
	for (size_t i = 0; outputs && i < count; i++)
		free(outputs[i]);
	free(outputs);
	return status;
}

/*
 * Looks at all arguments before the first file is touched.  So a command line that is meant in another way, such as
 * --rm SOURCE NEW, does not do half of something.
 */
static int check_all(const struct command *command, char **paths, size_t count)
{
	int status = WCX_EXIT_OK;
	struct wcx_error err;
	struct stat st;

	for (size_t i = 0; i < count; i++) {
		if (stat(paths[i], &st) == 0)
			continue;
		wcx_fail(&err, errno, "%s: %s%s", paths[i], strerror(errno), count > 1 ? "; nothing was done" : "");
		status = wcx_command_failed(command, &err);
	}
	return status;
}

static int run_in_place(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
			char **paths, size_t count, char *(*output_name)(const char *name))
{
	int status = check_all(command, paths, count);

	if (status != WCX_EXIT_OK)
		return status;
	for (size_t i = 0; i < count && !wcx_command_stop; i++) {
		const int its = is_directory(paths[i])
					? wcx_run_tree(command, ops, options, paths[i], NULL)
					: run_files(command, ops, options, &paths[i], 1, NULL, NULL, output_name);

		status = wcx_command_worse(status, its);
	}
	return status;
}

int wcx_run_arguments(struct command *command, const struct wcx_tree_ops *ops, const struct wcx_tree_options *options,
		      char **paths, size_t count, char *(*output_name)(const char *name))
{
	const char *last = count ? paths[count - 1] : NULL;

	if (!count)
		return wcx_command_usage(command, "expected a file or directory");
	if (options->remove)
		return run_in_place(command, ops, options, paths, count, output_name);
	if (is_directory(paths[0]) && count != 2)
		return wcx_command_usage(command, count == 1 ? "expected a directory for the output, or --rm"
							     : "expected one tree and one output");
	if (is_directory(paths[0]))
		return wcx_run_tree(command, ops, options, paths[0], last);
	if (count == 1)
		return run_files(command, ops, options, paths, 1, NULL, NULL, output_name);
	if (is_directory(last))
		return run_files(command, ops, options, paths, count - 1, last, NULL, output_name);
	if (count == 2)
		return run_files(command, ops, options, paths, 1, NULL, last, output_name);
	return wcx_command_usage(command, "of several files, the output must be an existing directory");
}

int wcx_run_inputs(struct command *command, const struct wcx_tree_ops *ops, char **paths, size_t count, const char *missing)
{
	static const struct wcx_tree_options none;
	int status = WCX_EXIT_OK;

	if (!count)
		return wcx_command_usage(command, missing);
	if (ops->replaces)
		status = check_all(command, paths, count);
	if (status != WCX_EXIT_OK)
		return status;
	for (size_t i = 0, files; i < count && !wcx_command_stop; i += files) {
		int its;

		/* Files side by side as far as they follow each other. */
		for (files = 0; i + files < count && !is_directory(paths[i + files]);)
			files++;
		its = files ? wcx_run_files(command, ops, &none, paths + i, NULL, files)
			    : wcx_run_tree(command, ops, &none, paths[i], NULL);
		files = files ? files : 1;
		status = wcx_command_worse(status, its);
	}
	return wcx_command_stop ? WCX_EXIT_FAILED : status;
}
