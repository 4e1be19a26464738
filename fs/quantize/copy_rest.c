/* SPDX-License-Identifier: MIT */
/* Walks a model's directory and copies what is neither weights nor written anew. */
#include "fs/quantize/copy_rest.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/file_copy.h"
#include "fs/base/file_io.h"
#include "fs/base/walk.h"

struct walk {
	const char *source, *target;
	const struct wcx_model_files *files;
	const struct wcx_job_options *job;
	uint64_t bytes;
};

static bool matches_one_of(const char *name, const char *const *patterns, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fnmatch(patterns[i], name, 0) == 0)
			return true;
	return false;
}

static bool is_other_weights(const char *name, bool is_at_top)
{
	static const char *const anywhere[] = { "pytorch_model*.bin",
						"pytorch_model*.bin.index.json",
						"*.onnx",
						"*.onnx_data",
						"*.gguf",
						"*.h5",
						"*.msgpack",
						"*.ckpt",
						"*.ot",
						"consolidated*.pth",
						"openvino_model*" };
	static const char *const at_top[] = { "*.safetensors", "*.safetensors*.wcx", "*.safetensors.index.json" };

	return matches_one_of(name, anywhere, WCX_ARRAY_COUNT(anywhere)) ||
	       (is_at_top && matches_one_of(name, at_top, WCX_ARRAY_COUNT(at_top)));
}

/* Whether a file is to be copied; tells of weights that are left out. */
static bool is_rest(const struct walk *walk, const struct wcx_walk *entry)
{
	const bool is_at_top = entry->depth == 1;
	char text[PATH_MAX + 64];

	if (is_at_top && (strcmp(entry->name, "config.json") == 0 || strcmp(entry->name, WCX_MODEL_INDEX_NAME) == 0 ||
			  wcx_model_files_has(walk->files, entry->name)))
		return false;
	if (!is_other_weights(entry->name, is_at_top))
		return true;
	if (!walk->target && walk->job->warn) {
		snprintf(text, sizeof text, "%s: left out: weights that are not quantised", entry->path);
		walk->job->warn(walk->job->user, text);
	}
	return false;
}

static int fail_on(struct wcx_error *err, const char *path, int errnum)
{
	return wcx_fail(err, errnum, "%s: %s", path, strerror(errnum));
}

static int copy_file(const struct walk *walk, const char *path, const char *target, struct wcx_error *err)
{
	const struct wcx_output_options options = {
		.path = target,
		.source_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK),
		.warn = walk->job->warn,
		.user = walk->job->user,
	};
	int r;

	if (options.source_fd < 0)
		return fail_on(err, path, errno);
	r = wcx_file_copy(&options, WCX_COPY_DATA, walk->job->stop, err);
	close(options.source_fd);
	return r;
}

/* The names in a directory that was made. */
static int sync_directory(const char *path, struct wcx_error *err)
{
	const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const int r = fd < 0 ? -errno : wcx_sync_directory(fd);

	if (fd >= 0)
		close(fd);
	return r < 0 ? fail_on(err, path, -r) : 0;
}

static bool is_left_out(const struct wcx_walk *directory)
{
	return strcmp(directory->name, ".git") == 0 || strcmp(directory->name, ".cache") == 0;
}

/* Visits one entry; *skip_ret: do not go into this directory. */
static int visit(struct walk *walk, const struct wcx_walk *entry, bool *skip_ret, struct wcx_error *err)
{
	const char *below = entry->path + strlen(walk->source);
	char *target = NULL;
	int r = 0;

	*skip_ret = false;
	if (entry->depth == 0 && entry->kind != WCX_WALK_PROBLEM)
		return 0;
	if (walk->job->stop && *walk->job->stop)
		return wcx_fail(err, EINTR, "interrupted");
	if (walk->target && asprintf(&target, "%s/%s", walk->target, below) < 0)
		return fail_on(err, entry->path, ENOMEM);
	switch (entry->kind) {
	case WCX_WALK_DIRECTORY:
		*skip_ret = is_left_out(entry);
		if (!*skip_ret && target && mkdir(target, (entry->st.st_mode & 0777) | S_IRWXU) < 0)
			r = fail_on(err, target, errno);
		break;
	case WCX_WALK_FILE:
		if (!is_rest(walk, entry))
			break;
		walk->bytes += (uint64_t)entry->st.st_size;
		if (target)
			r = copy_file(walk, entry->path, target, err);
		break;
	case WCX_WALK_END:
		if (target)
			r = sync_directory(target, err);
		break;
	case WCX_WALK_LOOP:
		r = wcx_fail(err, ELOOP, "%s: a link to a directory that it is in", entry->path);
		break;
	case WCX_WALK_PROBLEM:
		r = fail_on(err, entry->path, entry->errnum);
		break;
	default:
		r = wcx_fail(err, EINVAL, "%s: neither a file nor a directory", entry->path);
	}
	free(target);
	return r;
}

int wcx_copy_rest(const char *source, const char *target, const struct wcx_model_files *files,
		  const struct wcx_job_options *job, uint64_t *bytes_ret, struct wcx_error *err)
{
	struct walk walk = { .source = source, .target = target, .files = files, .job = job };
	struct wcx_walk tree;
	bool skip;
	int r = 0;

	wcx_walk_begin(&tree, source, WCX_WALK_FOLLOW);
	while (r == 0 && wcx_walk_next(&tree)) {
		r = visit(&walk, &tree, &skip, err);
		if (skip)
			wcx_walk_skip(&tree);
	}
	wcx_walk_end(&tree);
	*bytes_ret = walk.bytes;
	return r;
}
