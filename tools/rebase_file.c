/* SPDX-License-Identifier: MIT */
/* Packs a file again without its bases: unpacks it, and packs the original alone. */
#include "tools/rebase_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/output_file.h"
#include "fs/base/same_file.h"
#include "fs/pack/pack.h"
#include "fs/read/base_lock.h"
#include "fs/read/unpack.h"

struct rebasing {
	struct command *command;
	const char *path;
	const struct stat *st; /* of the file that was looked at */
	struct wcx_job_options job;
};

static int fail_replaced(const struct rebasing *rebasing, struct wcx_error *err)
{
	return wcx_fail(err, EBUSY, "%s: was replaced meanwhile", rebasing->path);
}

static int open_image(const struct rebasing *rebasing, struct wcx_image **ret, struct wcx_error *err)
{
	const char *path = rebasing->path;
	struct stat now;
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC), r = 0;

	if (fd < 0 || fstat(fd, &now) < 0)
		r = wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	else if (!wcx_is_same_file(&now, rebasing->st))
		r = fail_replaced(rebasing, err);
	if (r == 0)
		r = wcx_image_open(fd, path, rebasing->command->cache, rebasing->command->decoder, ret, err);
	if (r < 0 && fd >= 0)
		close(fd);
	return r;
}

/* Packs the original, which has no name, in place of the file. */
static int pack(const struct rebasing *rebasing, const struct wcx_output_file *original, struct wcx_error *err)
{
	struct wcx_pack_options options = {
		.job = rebasing->job,
		.shown_src = rebasing->path,
		.for_speed = rebasing->command->for_speed,
	};
	struct wcx_pack_result result;
	struct stat now;
	char source[32];

	if (lstat(rebasing->path, &now) < 0 || !wcx_is_same_file(&now, rebasing->st))
		return fail_replaced(rebasing, err);
	snprintf(source, sizeof source, "/proc/self/fd/%d", original->fd);
	return wcx_pack(source, rebasing->path, &options, &result, err);
}

/* Unpacks to a file that goes with this process, and packs that. */
static int rebase(const struct rebasing *rebasing, struct wcx_image *image, struct wcx_error *err)
{
	const struct wcx_output_options options = {
		.path = rebasing->path,
		.source_fd = wcx_container_fd(wcx_image_container(image)),
		.replace = true,
		.replaces_source = true,
		.warn = rebasing->job.warn,
		.user = rebasing->job.user,
	};
	struct wcx_output_file original;
	int r = wcx_output_create(&original, &options, err);

	if (r < 0)
		return r;
	r = wcx_unpack_into(&original, image, &rebasing->job, err);
	if (r == 0) {
		r = wcx_file_metadata_copy(options.source_fd, original.fd, options.path, options.warn, options.user);
		r = r < 0 ? wcx_fail(err, -r, "%s: %s", options.path, strerror(-r)) : pack(rebasing, &original, err);
	}
	wcx_output_discard(&original);
	return r;
}

int wcx_rebase_file(struct command *command, const char *path, const struct stat *st, const char *store,
		    struct wcx_error *err)
{
	const struct rebasing rebasing = {
		.command = command,
		.path = path,
		.st = st,
		.job = { .thread_count = command->thread_count,
			 .shown_dst = path,
			 .replace = true,
			 .stop = &wcx_command_stop,
			 .progress = wcx_progress,
			 .warn = wcx_warn,
			 .user = command },
	};
	struct wcx_base_search *search = NULL;
	struct wcx_image *image = NULL;
	struct stat now;
	/* Locked, so that nobody replaces it meanwhile by a file that others are packed against. */
	const int lock = wcx_base_open_for_removal(AT_FDCWD, path, &now);
	int r;

	if (lock < 0)
		return wcx_fail(err, -lock, "%s: %s", path,
				lock == -EWOULDBLOCK ? "is being replaced or removed" : strerror(-lock));
	r = wcx_command_prepare(command, err);
	if (r == 0)
		r = open_image(&rebasing, &image, err);
	if (r == 0) {
		search = wcx_base_search_create(store, command->cache, command->decoder, &wcx_command_stop);
		r = search ? 0 : wcx_fail(err, ENOMEM, "%s: no memory", path);
	}
	if (r == 0) {
		wcx_base_search_use(search, image);
		r = rebase(&rebasing, image, err);
	}
	wcx_image_put(image);
	wcx_base_search_free(search);
	close(lock);
	wcx_progress_clear(command);
	return r;
}
