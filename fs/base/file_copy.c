/* SPDX-License-Identifier: MIT */
/* Copies files and links as they are. */
#include "fs/base/file_copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/file_io.h"
#include "fs/base/same_file.h"

enum { PART_BYTES = 4 << 20, NAME_TRIES = 100 };

bool wcx_same_version(const struct stat *a, const struct stat *b)
{
	return wcx_is_same_file(a, b) && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

bool wcx_has_time_of(const struct stat *copy, const struct stat *source)
{
	static const long kept_ns[] = { 1, 100, 1000, 1000 * 1000, 10 * 1000 * 1000, 1000 * 1000 * 1000 };
	const long ns = source->st_mtim.tv_nsec;
	bool same = false;

	for (size_t i = 0; i < WCX_ARRAY_COUNT(kept_ns) && copy->st_ctim.tv_nsec % kept_ns[i] == 0; i++)
		same |= copy->st_mtim.tv_nsec == ns - ns % kept_ns[i];
	return same && copy->st_mtim.tv_sec == source->st_mtim.tv_sec;
}

bool wcx_is_older(const struct stat *a, const struct stat *b)
{
	return a->st_mtim.tv_sec < b->st_mtim.tv_sec ||
	       (a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec < b->st_mtim.tv_nsec);
}

static int stopped(const atomic_bool *stop)
{
	return stop && *stop ? -EINTR : 0;
}

/* Copies a range through memory, where copy_file_range(2) cannot. */
static int copy_by_reading(int src_fd, int dst_fd, off_t from, off_t to, const atomic_bool *stop)
{
	uint8_t *part = malloc(PART_BYTES);
	int r = part ? 0 : -ENOMEM;

	while (r == 0 && from < to) {
		const size_t wanted = (size_t)WCX_MIN(to - from, (off_t)PART_BYTES);

		r = wcx_read_exact(src_fd, part, wanted, (uint64_t)from);
		if (r == -ENODATA)
			r = -EBUSY; /* it became shorter */
		if (r == 0)
			r = wcx_write_at(dst_fd, part, wanted, (uint64_t)from);
		if (r == 0)
			r = stopped(stop);
		from += (off_t)wanted;
	}
	free(part);
	return r;
}

static int copy_range(int src_fd, int dst_fd, off_t from, off_t to, const atomic_bool *stop)
{
	off_t at = from, out = from;

	while (at < to) {
		const ssize_t n = copy_file_range(src_fd, &at, dst_fd, &out, (size_t)WCX_MIN(to - at, (off_t)PART_BYTES), 0);

		if (n < 0 && errno == EINTR)
			continue;
		/* Some file systems cannot, or claim an empty file (as /proc's); a full disk comes up again. */
		if (n <= 0)
			return copy_by_reading(src_fd, dst_fd, at, to, stop);
		if (stopped(stop))
			return -EINTR;
	}
	return 0;
}

static int copy_data(int src_fd, int dst_fd, off_t bytes, const atomic_bool *stop)
{
	off_t from = 0, to;
	int r = ftruncate(dst_fd, bytes) < 0 ? -errno : 0;

	while (r == 0 && from < bytes) {
		from = lseek(src_fd, from, SEEK_DATA);
		if (from < 0 && errno == ENXIO)
			break; /* a hole up to the end */
		to = from < 0 ? -1 : lseek(src_fd, from, SEEK_HOLE);
		if (to < 0) { /* no such question here */
			from = WCX_MAX(from, 0);
			to = bytes;
		}
		to = WCX_MIN(to, bytes);
		r = copy_range(src_fd, dst_fd, from, to, stop);
		from = to;
	}
	return r;
}

int wcx_file_copy(const struct wcx_output_options *output, enum wcx_copy_kind kind, const atomic_bool *stop,
		  struct wcx_error *err)
{
	const char *path = output->shown_path ? output->shown_path : output->path;
	struct wcx_output_file file;
	struct stat before, after;
	int r = wcx_output_create(&file, output, err);

	if (r < 0)
		return r;
	if (fstat(output->source_fd, &before) < 0)
		r = -errno;
	else if (kind != WCX_COPY_REFLINK || ioctl(file.fd, FICLONE, output->source_fd) < 0)
		r = copy_data(output->source_fd, file.fd, before.st_size, stop);
	if (r == 0 && fstat(output->source_fd, &after) < 0)
		r = -errno;
	if (r == -EBUSY || (r == 0 && !wcx_same_version(&before, &after)))
		r = wcx_fail(err, EBUSY, "%s: the source changed while it was copied", path);
	else if (r < 0)
		wcx_fail(err, -r, "%s: %s", path, r == -EINTR ? "interrupted" : strerror(-r));
	if (r == 0)
		r = wcx_output_commit(&file, err);
	if (r < 0)
		wcx_output_discard(&file);
	return r;
}

/*
 * Makes something under a temporary name, by make, and moves it over dst_name.  Again if the name was another's, or if it
 * was taken for that of an abandoned output meanwhile: a link cannot be locked.
 */
static int make_and_move(int (*make)(const void *user, int directory_fd, const char *name), const void *user,
			 int directory_fd, const char *dst_name)
{
	char name[WCX_TEMPORARY_NAME_BYTES];
	int r = -EEXIST;

	for (int i = 0; i < NAME_TRIES && (r == -EEXIST || r == -ENOENT); i++) {
		wcx_make_temporary_name(name);
		r = make(user, directory_fd, name);
		if (r == 0 && renameat(directory_fd, name, directory_fd, dst_name) < 0)
			r = -errno;
	}
	if (r != -EEXIST) /* of two names of one file, rename removes none */
		unlinkat(directory_fd, name, 0);
	return r;
}

struct name {
	int directory_fd;
	const char *name;
};

static int make_hard_link(const void *user, int directory_fd, const char *name)
{
	const struct name *src = user;

	return linkat(src->directory_fd, src->name, directory_fd, name, 0) < 0 ? -errno : 0;
}

int wcx_file_link(int src_directory_fd, const char *src_name, int dst_directory_fd, const char *dst_name, bool replace)
{
	const struct name src = { src_directory_fd, src_name };

	if (!replace)
		return make_hard_link(&src, dst_directory_fd, dst_name);
	return make_and_move(make_hard_link, &src, dst_directory_fd, dst_name);
}

static int make_symlink(const void *user, int directory_fd, const char *name)
{
	return symlinkat(user, directory_fd, name) < 0 ? -errno : 0;
}

int wcx_symlink_copy(const char *text, const struct stat *st, bool replace, int directory_fd, const char *name)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	char there[PATH_MAX];
	struct stat now;
	ssize_t bytes;
	int r = 0;

	if (fstatat(directory_fd, name, &now, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!S_ISLNK(now.st_mode))
			return -EEXIST;
		bytes = readlinkat(directory_fd, name, there, sizeof there);
		if (bytes < 0 || (size_t)bytes != strlen(text) || memcmp(there, text, (size_t)bytes) != 0)
			r = !replace && !wcx_is_older(&now, st) ? -EEXIST
								: make_and_move(make_symlink, text, directory_fd, name);
	} else {
		r = symlinkat(text, directory_fd, name) < 0 ? -errno : 0;
	}
	if (r < 0)
		return r;
	if (fchownat(directory_fd, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
		errno = 0; /* a link gives nobody access */
	return utimensat(directory_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}
