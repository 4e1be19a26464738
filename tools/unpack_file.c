/* SPDX-License-Identifier: MIT */
/* What wcx unpack does with a file: unpacks it under its name without .wcx, or copies it. */
#include "tools/unpack_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/file_copy.h"
#include "fs/base/same_file.h"
#include "fs/pack/pack_done.h"
#include "fs/read/unpack.h"
#include "tools/file_task.h"
#include "tools/task_guard.h"

static const char suffix[] = ".wcx";

/* The bytes of a name in front of .wcx; 0: it has no such suffix, or nothing that can be a name before it. */
static size_t stem_bytes(const char *name)
{
	const size_t bytes = strlen(name), stem = bytes > strlen(suffix) ? bytes - strlen(suffix) : 0;

	if (!stem || strcmp(name + stem, suffix) != 0 || (stem <= 2 && strspn(name, ".") == stem))
		return 0;
	return stem;
}

/* The output of a task, by name and for messages; to be freed. */
struct target {
	char *name, *path;
};

static int find_target(const struct wcx_file_task *task, struct target *target, struct wcx_error *err)
{
	const size_t cut = task->is_named ? 0 : strlen(suffix);

	target->name = strndup(task->output, strlen(task->output) - cut);
	target->path = strndup(task->output_path, strlen(task->output_path) - cut);
	return target->name && target->path ? 0 : wcx_task_fail(task, ENOMEM, err);
}

/* Whether a file has the original's size and time, and with options.check its contents; or -errno.  Closes fd. */
static int is_original(const struct wcx_file_task *task, int fd, const char *path, const struct wcx_superblock *sb,
		       struct stat *st_ret, struct wcx_error *err)
{
	uint8_t sha256[WCX_SHA256_BYTES];
	int r;

	if (fd < 0)
		return 0;
	r = fstat(fd, st_ret) == 0 && S_ISREG(st_ret->st_mode) && (uint64_t)st_ret->st_size == sb->original_bytes &&
	    wcx_has_time_of(st_ret, &task->st);
	if (r && (task->run->options.check || task->run->options.remove)) {
		r = wcx_file_sha256(fd, path, &wcx_command_stop, sha256, err);
		if (r == 0)
			r = memcmp(sha256, sb->sha256, sizeof sha256) == 0;
	}
	close(fd);
	return r;
}

/* Whether the output is there. */
static int is_done(const struct wcx_file_task *task, const struct target *target, const struct wcx_superblock *sb,
		   struct stat *st_ret, struct wcx_error *err)
{
	if (task->is_named)
		return 0;
	return is_original(task, wcx_task_open_output(task, target->name, st_ret), target->path, sb, st_ret, err);
}

/* The name may be that of another file of the source, which is copied to it.  Returns 1 if that is the original. */
static int check_collision(const struct wcx_file_task *task, const struct target *target, const struct wcx_superblock *sb,
			   struct wcx_error *err)
{
	struct stat st;
	int fd, r;

	if (task->is_named || fstatat(task->directory_fd, target->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	fd = openat(task->directory_fd, target->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	r = is_original(task, fd, target->path, sb, &st, err);
	if (r)
		return r;
	return wcx_fail(
		err, EEXIST, "%s: not unpacked, since %s is beside it; wcx pack --rm %.*s leaves one, if they are the same",
		task->path, target->name, (int)(strlen(task->path) - strlen(task->name) + strlen(target->name)), task->path);
}

/* In another tree, what is older is replaced. */
static int check_replaceable(const struct wcx_file_task *task, const struct target *target, const struct wcx_superblock *sb,
			     struct wcx_error *err)
{
	struct stat st;

	if (task->run->is_in_place || fstatat(task->output_directory_fd, target->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (task->is_named)
		return task->run->options.replace || !S_ISREG(st.st_mode) || wcx_is_same_file(&st, &task->st)
			       ? 0
			       : wcx_fail(err, EEXIST, "%s: exists already; --force replaces it", target->path);
	return wcx_task_check_replaceable(task, target->path, &st, (uint64_t)st.st_size == sb->original_bytes, err);
}

static int unpack(struct wcx_file_task *task, struct wcx_image *image, const struct target *target, struct wcx_error *err)
{
	const bool replace = task->run->options.replace || (!task->is_named && !task->run->is_in_place);
	struct wcx_job_options job = wcx_task_job(task, replace, target->path);
	const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(image));
	char path[WCX_FD_PATH_BYTES];
	struct stat st;
	int r = is_done(task, target, sb, &st, err);

	task->result.outcome = WCX_OUTCOME_DONE;
	if (r == 0) {
		r = check_collision(task, target, sb, err);
		if (r > 0)
			return 0;
		task->result.outcome = WCX_OUTCOME_UNPACKED;
	}
	if (r == 0)
		r = check_replaceable(task, target, sb, err);
	if (r == 0) {
		const struct wcx_output_source original = { .fd = -1 };
		struct wcx_task_guard guard;

		r = wcx_task_guard_begin(&guard, task, target->name, target->path, &original, err);
		job.replace &= guard.is_there;
		if (r == 0)
			r = wcx_unpack(image, wcx_fd_path(task->output_directory_fd, target->name, target->path, path), &job,
				       err);
		wcx_task_guard_end(&guard, task, target->name, r);
		if (r == 0 && fstatat(task->output_directory_fd, target->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			r = wcx_fail(err, errno, "%s: %s", target->path, strerror(errno));
	}
	if (r < 0)
		return r;
	task->change = WCX_NAME_UNPACKED;
	return task->run->options.remove ? wcx_task_remove_source(task, target->name, &st, err) : 0;
}

static int do_file(struct wcx_file_task *task, struct wcx_error *err)
{
	struct target target = { 0 };
	struct wcx_image *image = NULL;
	int r;

	if (!task->is_named && (!stem_bytes(task->name) || !wcx_is_packed_file(task->fd))) {
		task->result.outcome = WCX_OUTCOME_LEFT;
		return task->run->is_in_place ? 0 : wcx_task_copy(task, err);
	}
	r = find_target(task, &target, err);
	if (r == 0)
		r = wcx_task_open_image(task, &image, err);
	if (r == 0)
		r = wcx_task_add_dtypes(task, image, err);
	if (r == 0)
		r = unpack(task, image, &target, err);
	wcx_image_put(image);
	free(target.name);
	if (task->change == WCX_NAME_UNPACKED)
		task->result.output = target.path;
	else
		free(target.path);
	return r;
}

/* What is packed takes what the superblock says; a copy takes what the file does, or nothing if it shares its blocks. */
static void needs(const struct wcx_tree_run *run, int directory_fd, int output_directory_fd, const char *name,
		  const struct stat *st, uint64_t *least_ret, uint64_t *most_ret)
{
	const int fd = openat(directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	const size_t stem = stem_bytes(name);
	struct wcx_superblock sb;
	struct wcx_error ignored;
	char output[NAME_MAX + 1];
	uint64_t most = wcx_bytes_on_disk(st), least = run->options.link || run->options.reflink ? 0 : most;

	snprintf(output, sizeof output, "%s", name);
	if (fd >= 0 && stem && wcx_superblock_read(fd, name, &sb, &ignored) == 0) {
		output[stem] = '\0';
		least = most = sb.original_bytes;
	}
	if (fd >= 0)
		close(fd);
	if (output_directory_fd >= 0 && faccessat(output_directory_fd, output, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return;
	*least_ret = least;
	*most_ret = most;
}

/* In place, what others may be packed against is unpacked after them, so that it can go. */
static bool waits(const struct wcx_tree_run *run, int directory_fd, const char *name)
{
	struct wcx_superblock sb;
	bool is_base = false;
	int fd;

	if (!run->options.remove || !stem_bytes(name))
		return false;
	fd = openat(directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	is_base = wcx_superblock_read(fd, name, &sb, NULL) == 0 && !sb.base_count;
	close(fd);
	return is_base;
}

/* A link to a packed file leads to the unpacked one; named NAME.wcx, it becomes NAME. */
static void change_link(int directory_fd, char *name, char *text)
{
	const size_t stem = stem_bytes(name);
	int fd;

	if (strlen(text) <= strlen(suffix) || strcmp(text + strlen(text) - strlen(suffix), suffix) != 0)
		return;
	fd = openat(directory_fd, text, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return;
	if (wcx_is_packed_file(fd)) {
		text[strlen(text) - strlen(suffix)] = '\0';
		if (stem)
			name[stem] = '\0';
	}
	close(fd);
}

const struct wcx_tree_ops wcx_unpack_ops = {
	.what = "unpacking",
	.decodes = true,
	.file = do_file,
	.needs = needs,
	.waits = waits,
	.link = change_link,
};
