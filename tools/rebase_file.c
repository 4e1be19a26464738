/* SPDX-License-Identifier: MIT */
/* Packs a file again without its bases: unpacks it, and packs the original alone. */
#include "tools/rebase_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/pack/pack.h"
#include "fs/read/base_lock.h"
#include "fs/read/unpack.h"

/* Unpacks to the given path; the image must be of the file that was looked at. */
static int unpack(struct command *command, const char *path, const struct stat *st, const char *store, const char *original,
		  const struct wcx_job_options *job, struct wcx_error *err)
{
	struct wcx_base_search *search;
	struct wcx_image *image = NULL;
	struct stat now;
	int fd, r = wcx_command_prepare(command, err);

	if (r < 0)
		return r;
	search = wcx_base_search_create(store, command->cache, command->decoder, &wcx_command_stop);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || !search || fstat(fd, &now) < 0)
		r = wcx_fail(err, search ? errno : ENOMEM, "%s: %s", path, strerror(search ? errno : ENOMEM));
	else if (now.st_dev != st->st_dev || now.st_ino != st->st_ino)
		r = wcx_fail(err, EBUSY, "%s: was replaced meanwhile", path);
	if (r == 0)
		r = wcx_image_open(fd, path, command->cache, command->decoder, &image, err);
	if (r == 0) {
		wcx_base_search_use(search, image);
		r = wcx_unpack(image, original, job, err);
	} else if (fd >= 0) {
		close(fd);
	}
	wcx_image_put(image);
	wcx_base_search_free(search);
	return r;
}

static int pack(struct command *command, const char *original, const char *path, const struct stat *st,
		const struct wcx_job_options *job, struct wcx_error *err)
{
	struct wcx_pack_options options = { .job = *job, .shown_src = path, .for_speed = command->for_speed };
	struct wcx_pack_result result;
	struct stat now;

	options.job.shown_dst = path;
	options.job.replace = true;
	if (lstat(path, &now) < 0 || now.st_dev != st->st_dev || now.st_ino != st->st_ino)
		return wcx_fail(err, EBUSY, "%s: was replaced meanwhile", path);
	return wcx_pack(original, path, &options, &result, err);
}

int wcx_rebase_file(struct command *command, const char *path, const struct stat *st, const char *store,
		    struct wcx_error *err)
{
	const struct wcx_job_options job = {
		.thread_count = command->thread_count,
		.shown_dst = path,
		.stop = &wcx_command_stop,
		.progress = wcx_progress,
		.warn = wcx_warn,
		.user = command,
	};
	const char *slash = strrchr(path, '/');
	char *directory = NULL, *original = NULL;
	struct stat now;
	/* Locked, so that nobody replaces it meanwhile by a file that others are packed against. */
	const int lock = wcx_base_open_for_removal(AT_FDCWD, path, &now);
	int r = 0;

	if (lock < 0)
		return wcx_fail(err, -lock, "%s: %s", path,
				lock == -EWOULDBLOCK ? "is being replaced or removed" : strerror(-lock));

	if (asprintf(&directory, "%.*s.rebase-XXXXXX", slash ? (int)(slash - path) + 1 : 0, path) < 0 ||
	    asprintf(&original, "%s/original", directory) < 0) {
		free(directory);
		close(lock);
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	}
	if (!mkdtemp(directory)) {
		r = wcx_fail(err, errno, "%s: %s", directory, strerror(errno));
		goto out;
	}
	memcpy(original, directory, strlen(directory));
	r = unpack(command, path, st, store, original, &job, err);
	if (r == 0)
		r = pack(command, original, path, st, &job, err);
	unlink(original);
	rmdir(directory);
	wcx_progress_clear(command);
out:
	close(lock);
	free(original);
	free(directory);
	return r;
}
