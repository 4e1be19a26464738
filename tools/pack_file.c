/* SPDX-License-Identifier: MIT */
/* What wcx pack does with a file: tells what it is, and whether it is done, packs or copies it, and removes the source. */
#include "tools/pack_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/output_file.h"
#include "fs/format/safetensors_file.h"
#include "fs/pack/pack.h"
#include "fs/pack/pack_done.h"
#include "fs/read/export.h"
#include "tools/file_task.h"
#include "tools/pack_bases.h"
#include "tools/task_guard.h"

static const char suffix[] = ".wcx";

/* The output that a file is packed into, and what is there. */
struct target {
	char name[NAME_MAX + sizeof suffix];
	char *path;     /* for messages */
	int fd;         /* of what is there, if that is a regular file; -1 */
	struct stat st; /* of it, and later of what was packed */
	bool is_long;   /* no file can have the name, and so nothing else is set */
	bool is_there;  /* something of this name is */
	bool is_packed; /* it is a packed file, with this superblock */
	struct wcx_superblock sb;
};

/* Names the target and looks at what is there. */
static int find_target(struct wcx_file_task *task, struct target *target, struct wcx_error *err)
{
	struct wcx_error ignored;
	struct stat st;

	*target = (struct target){ .fd = -1 };
	target->is_long = strlen(task->output) + (task->is_named ? 0 : strlen(suffix)) > NAME_MAX;
	if (target->is_long)
		return 0;
	snprintf(target->name, sizeof target->name, "%s%s", task->output, task->is_named ? "" : suffix);
	if (asprintf(&target->path, "%s%s", task->output_path, task->is_named ? "" : suffix) < 0) {
		target->path = NULL;
		return wcx_task_fail(task, ENOMEM, err);
	}
	target->is_there = fstatat(task->output_directory_fd, target->name, &st, AT_SYMLINK_NOFOLLOW) == 0;
	if (!target->is_there)
		return 0;
	target->fd = wcx_task_open_output(task, target->name, &target->st);
	target->is_packed = target->fd >= 0 && wcx_superblock_read(target->fd, target->path, &target->sb, &ignored) == 0;
	return 0;
}

static void free_target(struct target *target)
{
	if (target->fd >= 0)
		close(target->fd);
	free(target->path);
}

/* Adds the dtypes and bases of a packed file to the result, and verifies it if asked to. */
static int look_into(struct wcx_file_task *task, int fd, const char *path, bool verifies, struct wcx_error *err)
{
	const struct wcx_export_ops ops = { .share = &task->run->share };
	struct command *command = task->run->command;
	const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	struct wcx_image *image = NULL;
	int r = copy < 0 ? wcx_fail(err, errno, "%s: %s", path, strerror(errno)) : 0;

	if (r == 0)
		r = wcx_image_open(copy, path, command->cache, command->decoder, &image, err);
	if (r < 0 && copy >= 0)
		close(copy);
	if (r == 0)
		wcx_base_search_use(task->run->bases, image);
	if (r == 0 && verifies)
		r = wcx_verify(image, command->thread_count, &ops, NULL, &wcx_command_stop, err);
	if (r == 0)
		r = wcx_task_add_dtypes(task, image, err);
	wcx_image_put(image);
	return r;
}

/* Whether the target decodes to the source's contents: 1 or 0, or -errno if the source cannot be read. */
static int has_contents(struct wcx_file_task *task, const struct target *target, struct wcx_error *err)
{
	uint8_t sha256[WCX_SHA256_BYTES];
	struct wcx_error damage;
	int r;

	if (target->sb.original_bytes != (uint64_t)task->st.st_size)
		return 0;
	r = wcx_file_sha256(task->fd, task->path, &wcx_command_stop, sha256, err);
	if (r < 0)
		return r;
	if (memcmp(sha256, target->sb.sha256, sizeof sha256) != 0)
		return 0;
	r = look_into(task, target->fd, target->path, true, &damage);
	if (r == -EINTR)
		return wcx_fail(err, EINTR, "interrupted");
	return r == 0;
}

/* Whether the target is the source's already.  Before a source is removed, its contents decide. */
static int is_done(struct wcx_file_task *task, const struct target *target, struct wcx_error *err)
{
	const struct wcx_tree_options *options = &task->run->options;

	if (!target->is_packed || (task->is_named && !options->remove))
		return 0;
	if (options->remove)
		return has_contents(task, target, err);
	if (!wcx_pack_is_current(task->name, &task->st, &target->st, &target->sb))
		return 0;
	return options->check ? has_contents(task, target, err) : look_into(task, target->fd, target->path, false, err) == 0;
}

/* Whether pack may replace what is there: older packed files in another tree, and everything with --force. */
static int check_replaceable(const struct wcx_file_task *task, const struct target *target, struct wcx_error *err)
{
	if (!target->is_there || task->run->options.replace)
		return 0;
	if (task->is_named && !task->run->options.remove)
		return wcx_fail(err, EEXIST, "%s: exists already; --force replaces it", target->path);
	if (task->run->options.remove)
		return wcx_fail(err, EEXIST, "%s: exists already, and does not hold %s; --force replaces it", target->path,
				task->path);
	if (target->is_packed)
		return wcx_task_check_replaceable(task, target->path, &target->st,
						  target->sb.original_bytes == (uint64_t)task->st.st_size, err);
	return wcx_fail(err, EEXIST, "%s: exists already, and is no packed file; --force replaces it", target->path);
}

/* A blob of a hub cache is named by its SHA-256. */
static void check_name(struct wcx_file_task *task)
{
	uint8_t sha256[WCX_SHA256_BYTES];
	struct wcx_error text;

	if (!wcx_name_sha256(task->name, sha256) || memcmp(sha256, task->result.sha256, sizeof sha256) == 0)
		return;
	wcx_fail(&text, 0, "%s: its contents are not those of the SHA-256 in its name; was the download complete?",
		 task->path);
	wcx_report_warn(&task->slot, text.text);
}

/* Hardly more than the source takes.  How much less, nobody knows before: F32 may hold BF16 values, or zeros. */
static void needs(const struct wcx_tree_run *run, int directory_fd, int output_directory_fd, const char *name,
		  const struct stat *st, uint64_t *least_ret, uint64_t *most_ret)
{
	char packed[NAME_MAX + sizeof suffix];

	(void)run;
	(void)directory_fd;
	(void)least_ret;
	snprintf(packed, sizeof packed, "%s%s", name, suffix);
	if (output_directory_fd < 0 || (faccessat(output_directory_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
					faccessat(output_directory_fd, packed, F_OK, AT_SYMLINK_NOFOLLOW) < 0))
		*most_ret = wcx_bytes_on_disk(st);
}

/* Of a named file; of a tree, its run tells. */
static void warn_of_space(struct wcx_file_task *task, const struct target *target)
{
	const uint64_t most = wcx_bytes_on_disk(&task->st), free_bytes = wcx_free_bytes(task->output_directory_fd);
	struct wcx_error text;

	if (!task->is_named || most <= free_bytes)
		return;
	wcx_fail(&text, 0, "%s: may need up to %llu bytes, %llu are free", target->path, (unsigned long long)most,
		 (unsigned long long)free_bytes);
	wcx_report_warn(&task->slot, text.text);
}

/* Packs against bases.  One that was found, and cannot be read after all, is done without. */
static int pack_against(struct wcx_file_task *task, const struct target *target, bool replace, struct wcx_task_bases *bases,
			struct wcx_pack_result *result, struct wcx_error *err)
{
	char src[WCX_FD_PATH_BYTES], dst[WCX_FD_PATH_BYTES];
	const char *from = wcx_fd_path(task->fd, NULL, task->path, src);
	const char *to = wcx_fd_path(task->output_directory_fd, target->name, target->path, dst);
	struct wcx_pack_options options = {
		.job = wcx_task_job(task, replace, target->path),
		.shown_src = task->path,
		.is_reference = task->run->options.is_reference,
		.for_speed = task->run->command->for_speed,
		.bases = bases->list,
		.base_count = bases->count,
		.needs = wcx_task_bases_mark,
		.needs_user = bases,
	};
	struct wcx_error text;
	int r;

	r = wcx_pack(from, to, &options, result, err);
	if ((r != -EBADMSG && r != -EIO) || !bases->found.count)
		return r;
	wcx_fail(&text, 0, "%s: packed without a base, since there was an error with it: %s", task->path, err->text);
	options.bases = NULL;
	options.base_count = 0;
	r = wcx_pack(from, to, &options, result, err);
	if (r == 0)
		wcx_report_warn(&task->slot, text.text);
	return r;
}

/* What takes the place of a base that others need is packed alone, or it would not be one. */
static int pack(struct wcx_file_task *task, struct target *target, const struct wcx_task_guard *guard, struct wcx_error *err)
{
	struct wcx_task_bases bases = { 0 };
	struct wcx_pack_result result;
	int fd, r = 0;

	if (!guard->keeps || task->run->options.replace)
		r = wcx_task_bases_find(&bases, task, target->fd >= 0 ? &target->st : NULL, err);
	if (r == 0)
		r = pack_against(task, target, guard->is_there, &bases, &result, err);
	if (r < 0) {
		wcx_task_bases_free(&bases);
		return r;
	}
	fd = wcx_task_open_output(task, target->name, &target->st);
	r = fd < 0 ? wcx_fail(err, -fd, "%s: %s", target->path, strerror(-fd))
		   : look_into(task, fd, target->path, false, err);
	if (r == 0 && memcmp(task->result.sha256, result.sha256, sizeof result.sha256) != 0)
		r = wcx_fail(err, EBUSY, "%s: was replaced by another process", target->path);
	if (fd >= 0)
		close(fd);
	wcx_task_bases_free(&bases);
	if (r == 0) {
		check_name(task);
		wcx_task_check_gain(task);
		wcx_task_bases_note(task, target->path);
	}
	return r;
}

/*
 * In another tree, NAME.wcx takes the place of a copy of NAME that an earlier run made when it was no safetensors file yet:
 * when its download had not ended.  Returns 1 if there is one, 0, or -EEXIST for something else, which --force removes.
 */
static int find_old_copy(const struct wcx_file_task *task, struct wcx_error *err)
{
	struct stat st;
	const int fd = task->run->is_in_place || task->is_named ? -1 : wcx_task_open_output(task, task->name, &st);
	int r = 0;

	if (fd < 0)
		return 0;
	if (!wcx_is_packed_file(fd))
		r = task->run->options.replace || wcx_is_beginning(fd, task->fd) ? 1 : -EEXIST;
	close(fd);
	return r < 0 ? wcx_fail(err, EEXIST, "%s: exists already, and is no copy of %s; --force removes it",
				task->output_path, task->path)
		     : r;
}

/*
 * The source tree may have NAME and NAME.wcx, both of which would be NAME.wcx in the destination.  Returns 1 if that is NAME
 * packed, as wcx pack NAME leaves it: it is copied.
 */
static int check_collision(struct wcx_file_task *task, const struct target *target, struct wcx_error *err)
{
	struct target beside = { .fd = -1, .path = target->path };
	struct wcx_error ignored;
	struct stat st;
	int r;

	if (task->is_named || task->run->is_in_place ||
	    fstatat(task->directory_fd, target->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	beside.fd = openat(task->directory_fd, target->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	r = beside.fd >= 0 && fstat(beside.fd, &st) == 0 &&
	    wcx_superblock_read(beside.fd, target->path, &beside.sb, &ignored) == 0 &&
	    wcx_pack_is_current(task->name, &task->st, &st, &beside.sb);
	if (r && task->run->options.check)
		r = has_contents(task, &beside, err);
	if (beside.fd >= 0)
		close(beside.fd);
	if (r)
		return r;
	return wcx_fail(err, EEXIST, "%s: not packed, since %s%s is beside it; wcx pack --rm %s removes it if that holds it",
			task->path, task->name, suffix, task->path);
}

/* Packs a safetensors file. */
static int pack_safetensors(struct wcx_file_task *task, struct target *target, struct wcx_error *err)
{
	const struct wcx_output_source source = { task->fd, task->run->options.base_choice != WCX_BASE_GIVEN };
	struct wcx_task_guard guard;
	int r = check_collision(task, target, err);

	task->result.outcome = WCX_OUTCOME_DONE;
	if (r > 0)
		return 0;
	if (r == 0)
		r = check_replaceable(task, target, err);
	if (r == 0 && target->is_packed)
		r = wcx_task_check_given(task, &target->st, err);
	if (r == 0)
		r = find_old_copy(task, err);
	if (r < 0)
		return r;
	warn_of_space(task, target);
	r = wcx_task_guard_begin(&guard, task, target->name, target->path, &source, err);
	if (r == 0)
		r = pack(task, target, &guard, err);
	wcx_task_guard_end(&guard, task, target->name, r);
	if (r == 0 && find_old_copy(task, err) > 0)
		unlinkat(task->output_directory_fd, task->name, 0);
	task->result.outcome = WCX_OUTCOME_PACKED;
	return r;
}

static bool ends_with(const char *name, const char *end)
{
	const size_t bytes = strlen(name), end_bytes = strlen(end);

	return bytes > end_bytes && strcmp(name + bytes - end_bytes, end) == 0;
}

/* A file of a tree that is no safetensors file: one with the name of such is told of, since something is amiss with it. */
static int keep(struct wcx_file_task *task, const struct wcx_error *fault, struct wcx_error *err)
{
	struct wcx_error text;

	if (ends_with(task->name, ".safetensors")) {
		wcx_fail(&text, 0, "%s; not packed", fault->text);
		wcx_report_warn(&task->slot, text.text);
	}
	if (!task->run->is_in_place)
		return wcx_task_copy(task, err);
	task->result.outcome = WCX_OUTCOME_LEFT;
	return 0;
}

/* Packs a file, or does with it what its kind asks for. */
static int pack_or_keep(struct wcx_file_task *task, struct target *target, struct wcx_error *err)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error fault;
	int r = wcx_safetensors_read(task->fd, task->path, (uint64_t)task->st.st_size, &st, &fault);

	wcx_safetensors_free(st);
	if (r == 0)
		return target->is_long ? wcx_task_fail(task, ENAMETOOLONG, err) : pack_safetensors(task, target, err);
	if ((r == -EMEDIUMTYPE || r == -EINVAL) && !task->is_named)
		return keep(task, &fault, err);
	*err = fault;
	return r;
}

static int do_file(struct wcx_file_task *task, struct wcx_error *err)
{
	struct target target;
	int r = find_target(task, &target, err);

	if (r == 0)
		r = is_done(task, &target, err);
	if (r > 0) {
		task->result.outcome = WCX_OUTCOME_DONE;
		r = 0;
	} else if (r == 0) {
		r = pack_or_keep(task, &target, err);
	}
	if (r == 0 && (task->result.outcome == WCX_OUTCOME_PACKED || task->result.outcome == WCX_OUTCOME_DONE) &&
	    task->result.packed_bytes)
		task->change = WCX_NAME_PACKED;
	if (r == 0 && task->change == WCX_NAME_PACKED && task->run->options.remove)
		r = wcx_task_remove_source(task, target.name, &target.st, err);
	if (task->change == WCX_NAME_PACKED) {
		task->result.output = target.path;
		target.path = NULL;
	}
	free_target(&target);
	return r;
}

const struct wcx_tree_ops wcx_pack_ops = { .what = "packing",
					   .decodes = true,
					   .file = do_file,
					   .needs = needs,
					   .begin = wcx_pack_bases_begin,
					   .end = wcx_pack_bases_end };
