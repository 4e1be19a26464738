/* SPDX-License-Identifier: MIT */
/* Reads which packed files of a store depend on which others. */
#include "tools/family.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/file_io.h"
#include "fs/format/version3.h"
#include "fs/read/packed_index.h"

struct scan {
	struct wcx_family *family;
	bool has_no_memory;
};

static int open_in_store(void *user, const char *path, int flags, struct stat *st_ret)
{
	const struct scan *scan = user;

	return wcx_open_below(&scan->family->store_fd, path, flags, st_ret);
}

static int read_bases(struct wcx_family_file *file, int fd, struct wcx_error *err)
{
	struct wcx_container *c = NULL;
	const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int r = copy < 0 ? wcx_fail(err, errno, "%s: %s", file->path, strerror(errno))
			 : wcx_container_open(copy, file->path, &c, err);

	if (r < 0) {
		if (copy >= 0)
			close(copy);
		return r;
	}
	file->bases = calloc(wcx_container_base_count(c), sizeof *file->bases);
	if (!file->bases)
		r = wcx_fail(err, ENOMEM, "%s: no memory", file->path);
	for (uint32_t i = 0; r == 0 && i < wcx_container_base_count(c); i++) {
		const struct wcx_base *base = wcx_container_base(c, i + 1);

		memcpy(file->bases[i].sha256, base->sha256, sizeof base->sha256);
		file->bases[i].original_bytes = base->original_bytes;
		file->base_count++;
	}
	wcx_container_free(c);
	return r;
}

/* Whether a file is of version 3, which has no bases. */
static bool is_version3(int fd, const struct stat *st)
{
	uint8_t block[WCX_VERSION3_SUPERBLOCK_BYTES];

	return wcx_read_exact(fd, block, sizeof block, 0) == 0 && wcx_version3_is(block, (uint64_t)st->st_size);
}

static int read_file(const struct scan *scan, struct wcx_family_file *file, struct wcx_error *err)
{
	const int fd = wcx_open_below(&scan->family->store_fd, file->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &file->st);
	struct wcx_superblock sb;
	int r;

	if (fd < 0)
		return wcx_fail(err, -fd, "%s: %s", file->path, strerror(-fd));
	r = S_ISREG(file->st.st_mode) ? wcx_superblock_read(fd, file->path, &sb, err)
				      : wcx_fail(err, EINVAL, "%s: not a regular file", file->path);
	if (r == 0) {
		memcpy(file->sha256, sb.sha256, sizeof file->sha256);
		file->original_bytes = sb.original_bytes;
	}
	if (r == 0 && sb.base_count)
		r = read_bases(file, fd, err);
	file->is_newer = r == -ENOTSUP && !is_version3(fd, &file->st);
	close(fd);
	return r;
}

static void free_file(struct wcx_family_file *file)
{
	free(file->path);
	free(file->bases);
	free(file->why);
}

/* Adds a file, even if it cannot be read; or, with errnum, a directory that cannot be listed. */
static int add(const struct scan *scan, const char *path, int errnum)
{
	struct wcx_family *family = scan->family;
	struct wcx_family_file file = { .path = strdup(path) }, *grown;
	struct wcx_error why = { "" };

	grown = wcx_array_reserve(family->files, &family->capacity, family->count + 1, sizeof *grown);
	family->files = grown ? grown : family->files;
	if (grown && file.path)
		file.r = errnum ? wcx_fail(&why, EIO, "%s: cannot be listed: %s", path, strerror(errnum))
				: read_file(scan, &file, &why);
	if (file.r < 0 && (file.why = malloc(sizeof *file.why)))
		*file.why = why;
	if (!grown || !file.path || (file.r < 0 && !file.why)) {
		free_file(&file);
		return -ENOMEM;
	}
	grown[family->count++] = file;
	return 0;
}

static int add_file(void *user, const char *path)
{
	return add(user, path, 0);
}

/* What is lost and found has no names of a store, and is root's at the top of many file systems. */
static void add_unlisted(void *user, const char *path, int errnum)
{
	struct scan *scan = user;

	if (errnum != ENOENT && strcmp(path, "lost+found") != 0)
		scan->has_no_memory |= add(scan, path, errnum) < 0;
}

static int compare_paths(const void *a, const void *b)
{
	const struct wcx_family_file *x = a, *y = b;

	return strcmp(x->path, y->path);
}

int wcx_family_scan(struct wcx_family *family, const char *store, const atomic_bool *stop, struct wcx_error *err)
{
	struct scan scan = { .family = family };
	const struct wcx_tree_access access = { open_in_store, &scan, add_unlisted };
	int r;

	*family = (struct wcx_family){ .store = strdup(store), .store_fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
	if (family->store_fd < 0)
		return wcx_fail(err, errno, "%s: %s", store, strerror(errno));
	r = family->store ? wcx_packed_paths(&access, stop, add_file, &scan) : -ENOMEM;
	if (r == 0 && scan.has_no_memory)
		r = -ENOMEM;
	if (family->count)
		qsort(family->files, family->count, sizeof *family->files, compare_paths);
	return r < 0 ? wcx_fail(err, -r, "%s: %s", store, r == -EINTR ? "interrupted" : strerror(-r)) : 0;
}

void wcx_family_free(struct wcx_family *family)
{
	for (size_t i = 0; i < family->count; i++)
		free_file(&family->files[i]);
	free(family->files);
	free(family->store);
	if (family->store_fd >= 0)
		close(family->store_fd);
	*family = (struct wcx_family){ .store_fd = -1 };
}

static bool is_base(const struct wcx_family_file *file, const struct wcx_family_base *base)
{
	return file->r == 0 && file->base_count == 0 && file->original_bytes == base->original_bytes &&
	       memcmp(file->sha256, base->sha256, sizeof file->sha256) == 0;
}

const struct wcx_family_file *wcx_family_find(const struct wcx_family *family, const struct wcx_family_base *base)
{
	for (size_t i = 0; i < family->count; i++)
		if (is_base(&family->files[i], base))
			return &family->files[i];
	return NULL;
}

bool wcx_family_depends(const struct wcx_family_file *file, const struct wcx_family_file *base)
{
	for (uint32_t i = 0; i < file->base_count; i++)
		if (is_base(base, &file->bases[i]))
			return true;
	return false;
}

bool wcx_family_hides(const struct wcx_family_file *file)
{
	return file->is_newer || file->r == -EACCES || file->r == -EPERM || file->r == -ENOMEM || file->r == -EIO;
}

int wcx_family_dependent(const char *store, const struct wcx_superblock *sb, const struct stat *st, const atomic_bool *stop,
			 char **path_ret, struct wcx_error *err)
{
	struct wcx_family_file base = { .original_bytes = sb->original_bytes };
	struct wcx_family family;
	int r = wcx_family_scan(&family, store, stop, err);

	memcpy(base.sha256, sb->sha256, sizeof base.sha256);
	*path_ret = NULL;
	for (size_t i = 0; r == 0 && i < family.count && !*path_ret; i++) {
		const struct wcx_family_file *file = &family.files[i];

		if (wcx_family_hides(file))
			r = wcx_fail(err, EACCES, "%s", file->why->text);
		else if ((file->st.st_dev != st->st_dev || file->st.st_ino != st->st_ino) &&
			 wcx_family_depends(file, &base) && asprintf(path_ret, "%s/%s", store, file->path) < 0)
			r = wcx_fail(err, ENOMEM, "%s: no memory", store);
	}
	wcx_family_free(&family);
	return r;
}
