/* SPDX-License-Identifier: MIT */
/* Steps of the work on a file that commands share. */
#include "tools/file_task.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/file_copy.h"
#include "fs/base/file_io.h"
#include "fs/base/same_file.h"
#include "fs/read/base_lock.h"
#include "tools/dependents.h"
#include "tools/task_guard.h"

enum {
	PART_BYTES = 1 << 20,
	BLOCK_BYTES = 512, /* of st_blocks */
};

const char *wcx_fd_path(int fd, const char *name, const char *shown, char path[WCX_FD_PATH_BYTES])
{
	snprintf(path, WCX_FD_PATH_BYTES, "/proc/self/fd/%d", fd);
	if (access(path, F_OK) < 0)
		return shown;
	snprintf(path, WCX_FD_PATH_BYTES, "/proc/self/fd/%d%s%s", fd, name ? "/" : "", name ? name : "");
	return path;
}

struct wcx_job_options wcx_task_job(struct wcx_file_task *task, bool replace, const char *shown_output)
{
	return (struct wcx_job_options){
		.thread_count = task->run->command->thread_count,
		.share = &task->run->share,
		.shown_dst = shown_output,
		.replace = replace,
		.is_tidy = !task->is_named,
		.stop = &wcx_command_stop,
		.progress = wcx_report_progress,
		.warn = wcx_report_warn,
		.user = &task->slot,
	};
}

uint64_t wcx_bytes_on_disk(const struct stat *st)
{
	return WCX_MIN((uint64_t)st->st_blocks * BLOCK_BYTES, (uint64_t)st->st_size);
}

int wcx_task_fail(const struct wcx_file_task *task, int errnum, struct wcx_error *err)
{
	return wcx_fail(err, errnum, "%s: %s", task->path, strerror(errnum));
}

int wcx_task_open_output(const struct wcx_file_task *task, const char *name, struct stat *st_ret)
{
	const int fd = openat(task->output_directory_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, st_ret) == 0 && S_ISREG(st_ret->st_mode))
		return fd;
	close(fd);
	return -EEXIST;
}

bool wcx_is_packed_name(const char *name)
{
	const size_t bytes = strlen(name), suffix_bytes = strlen(".wcx");

	return bytes > suffix_bytes && strcmp(name + bytes - suffix_bytes, ".wcx") == 0;
}

bool wcx_is_packed_file(int fd)
{
	char magic[WCX_MAGIC_BYTES];

	const int r = wcx_read_exact(fd, magic, sizeof magic, 0);

	return r == 0 ? memcmp(magic, WCX_MAGIC, sizeof magic) == 0 : r != -ENODATA;
}

int wcx_fail_without_packed(const char *path, struct wcx_error *err)
{
	const bool is_mount = lgetxattr(path, "user.wcx.status", NULL, 0) > 0;

	return wcx_fail(err, ENOENT, "%s: no packed file in it%s", path,
			is_mount ? ", since it is in a mount of wcxfs; name the store of that (wcx status shows it)" : "");
}

int wcx_explain_read_only(int directory_fd, int r, struct wcx_error *err)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", directory_fd); /* it may be open with O_PATH */
	if (r == -EROFS && getxattr(path, "user.wcx.status", NULL, 0) > 0) {
		const struct wcx_error read_only = *err;

		wcx_fail(err, EROFS, "%s: it is in a mount of wcxfs; write to the store of that (wcx status shows it)",
			 read_only.text);
	}
	return r;
}

int wcx_task_open_image(struct wcx_file_task *task, struct wcx_image **ret, struct wcx_error *err)
{
	struct command *command = task->run->command;
	const int fd = fcntl(task->fd, F_DUPFD_CLOEXEC, 0);
	int r = fd < 0 ? wcx_task_fail(task, errno, err)
		       : wcx_image_open(fd, task->path, command->cache, command->decoder, ret, err);

	if (r < 0 && fd >= 0)
		close(fd);
	if (r == 0)
		wcx_base_search_use(task->run->bases, *ret);
	return r;
}

/* Adds to the result what the file is packed against. */
static int add_bases(struct wcx_file_task *task, const struct wcx_container *c, struct wcx_error *err)
{
	struct wcx_file_result *result = &task->result;
	const uint32_t count = wcx_container_base_count(c);

	result->base_count = 0;
	result->based_bytes = 0;
	if (!count)
		return 0;
	for (size_t i = 0; i < wcx_container_superblock(c)->segment_count; i++)
		if (wcx_container_segment(c, i)->base)
			result->based_bytes += wcx_container_segment(c, i)->bytes;
	free(result->base);
	free(result->base_sha256);
	result->base = strdup(wcx_container_base(c, 1)->name);
	result->base_sha256 = calloc(count, sizeof *result->base_sha256);
	if (!result->base || !result->base_sha256)
		return wcx_task_fail(task, ENOMEM, err);
	for (uint32_t i = 0; i < count; i++)
		memcpy(result->base_sha256[i], wcx_container_base(c, i + 1)->sha256, WCX_SHA256_BYTES);
	result->base_count = count;
	return 0;
}

int wcx_task_add_dtypes(struct wcx_file_task *task, struct wcx_image *image, struct wcx_error *err)
{
	const struct wcx_superblock *sb = wcx_container_superblock(wcx_image_container(image));
	struct wcx_safetensors *st = NULL;
	int r = wcx_image_header(image, &st, err);

	if (r == 0)
		wcx_dtype_totals_add(&task->result.dtypes, wcx_image_container(image), st);
	wcx_safetensors_free(st);
	task->result.bytes = sb->original_bytes;
	task->result.packed_bytes = sb->packed_bytes;
	task->result.has_sha256 = true;
	memcpy(task->result.sha256, sb->sha256, sizeof sb->sha256);
	return r == 0 ? add_bases(task, wcx_image_container(image), err) : r;
}

bool wcx_is_beginning(int fd, int whole_fd)
{
	char *parts = malloc((size_t)2 * PART_BYTES);
	uint64_t offset = 0;
	ssize_t n = parts ? 1 : -ENOMEM;

	while (n > 0) {
		n = wcx_command_stop ? -EINTR : wcx_read_at(fd, parts, PART_BYTES, offset);
		if (n > 0 && (wcx_read_at(whole_fd, parts + PART_BYTES, (size_t)n, offset) != n ||
			      memcmp(parts, parts + PART_BYTES, (size_t)n) != 0))
			n = -EBADMSG;
		offset += n > 0 ? (uint64_t)n : 0;
	}
	free(parts);
	return n == 0;
}

int wcx_task_check_replaceable(const struct wcx_file_task *task, const char *path, const struct stat *there, bool same_size,
			       struct wcx_error *err)
{
	if (task->run->options.replace || wcx_is_older(there, &task->st) || (same_size && !wcx_is_older(&task->st, there)))
		return 0;
	return wcx_fail(err, EEXIST, "%s: exists already, and is not older than %s; --force replaces it", path, task->path);
}

/* Whether the copy is there: of the same size and time, or the same file, and with options.check of the same contents. */
static bool is_copied(const struct wcx_file_task *task)
{
	struct stat st;
	const int fd = wcx_task_open_output(task, task->output, &st);
	bool same;

	if (fd < 0)
		return false;
	same = st.st_size == task->st.st_size && wcx_has_time_of(&st, &task->st);
	if (same && task->run->options.check && !wcx_same_version(&st, &task->st))
		same = wcx_is_beginning(fd, task->fd);
	close(fd);
	return same;
}

static int copy(struct wcx_file_task *task, bool replace, struct wcx_error *err)
{
	char path[WCX_FD_PATH_BYTES];
	const struct wcx_output_options output = {
		.path = wcx_fd_path(task->output_directory_fd, task->output, task->output_path, path),
		.shown_path = task->output_path,
		.source_fd = task->fd,
		.replace = replace,
		.is_tidy = !task->is_named,
		.warn = wcx_report_warn,
		.user = &task->slot,
	};

	if (task->run->options.link &&
	    wcx_file_link(task->directory_fd, task->name, task->output_directory_fd, task->output, replace) == 0)
		return 0; /* otherwise a copy: as across file systems */
	return wcx_file_copy(&output, task->run->options.reflink ? WCX_COPY_REFLINK : WCX_COPY_DATA, &wcx_command_stop, err);
}

int wcx_task_copy(struct wcx_file_task *task, struct wcx_error *err)
{
	const struct wcx_output_source source = { .fd = task->fd };
	struct wcx_task_guard guard;
	struct stat there;
	bool is_there;
	int r = 0;

	task->result.output = strdup(task->output_path);
	task->result.outcome = WCX_OUTCOME_DONE;
	if (is_copied(task))
		return 0;
	task->result.outcome = WCX_OUTCOME_COPIED;
	is_there = fstatat(task->output_directory_fd, task->output, &there, AT_SYMLINK_NOFOLLOW) == 0;
	if (is_there)
		r = wcx_task_check_replaceable(task, task->output_path, &there, there.st_size == task->st.st_size, err);
	if (r < 0)
		return r;
	r = wcx_task_guard_begin(&guard, task, task->output, task->output_path, &source, err);
	if (r == 0)
		r = copy(task, is_there && guard.is_there, err);
	wcx_task_guard_end(&guard, task, task->output, r);
	return r;
}

/* Opens the output; whoever has written it, it and its name are on the disk then. */
static int open_synced(const struct wcx_file_task *task, const char *output, struct wcx_error *err)
{
	struct stat st;
	const int fd = wcx_task_open_output(task, output, &st);
	int r = fd < 0 ? fd : fsync(fd) < 0 ? -errno : 0;

	if (r == 0)
		r = wcx_sync_directory(task->output_directory_fd);
	if (r == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return wcx_fail(err, -r, "%s: kept, since its output cannot be synced: %s", task->path, strerror(-r));
}

static int check_source(const struct wcx_file_task *task, struct wcx_error *err)
{
	struct stat now;

	if (fstatat(task->directory_fd, task->name, &now, AT_SYMLINK_NOFOLLOW) < 0)
		return wcx_task_fail(task, errno, err);
	if (S_ISLNK(now.st_mode))
		return wcx_fail(err, EINVAL, "%s: kept, since it is a link to the file", task->path);
	if (!wcx_same_version(&now, &task->st))
		return wcx_fail(err, EBUSY, "%s: kept, since it changed while it was worked on", task->path);
	return 0;
}

/*
 * Of NAME and NAME.wcx one stays: whoever removes either has locked NAME.wcx, exclusively to remove that, and has then seen
 * that the other is there.  So two commands do not take each other's output for what lets them remove it.
 */
static int lock_packed(const struct wcx_file_task *task, const char *output, int output_fd, const struct stat *output_st,
		       struct wcx_error *err)
{
	const int r = task->change == WCX_NAME_UNPACKED ? wcx_task_lock_source(task, err) : wcx_base_lock(output_fd);
	struct stat now;

	if (task->change == WCX_NAME_UNPACKED && r < 0)
		return r;
	if (r >= 0 && fstatat(task->output_directory_fd, output, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
	    wcx_same_version(&now, output_st))
		return r;
	if (task->change == WCX_NAME_UNPACKED)
		wcx_dependents_close(task->run->dependents, r);
	return wcx_fail(err, EBUSY, "%s: kept, since another process removes or replaces its output", task->path);
}

int wcx_task_remove_source(struct wcx_file_task *task, const char *output, const struct stat *output_st,
			   struct wcx_error *err)
{
	const int output_fd = open_synced(task, output, err);
	int locked = -1, r = output_fd < 0 ? output_fd : check_source(task, err);

	if (r == 0)
		r = locked = lock_packed(task, output, output_fd, output_st, err);
	if (r >= 0)
		r = unlinkat(task->directory_fd, task->name, 0) < 0 ? wcx_task_fail(task, errno, err) : 0;
	if (task->change == WCX_NAME_UNPACKED)
		wcx_dependents_close(task->run->dependents, locked);
	if (output_fd >= 0)
		close(output_fd);
	task->result.is_removed = r == 0;
	return r;
}
