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
#include "fs/base/same_file.h"
#include "fs/format/version3.h"
#include "fs/read/packed_index.h"

struct scan {
	struct wcx_family *family;
	bool has_no_memory;
};

/* Whether a path of the store belongs to what the command line named. */
static bool is_named(const struct wcx_family *family, const char *path)
{
	const size_t bytes = family->named ? strlen(family->named) : 0;

	return !bytes || (strncmp(path, family->named, bytes) == 0 && (!path[bytes] || path[bytes] == '/'));
}

static int open_in_store(void *user, const char *path, int flags, struct stat *st_ret)
{
	const struct wcx_family *family = ((const struct scan *)user)->family;
	const int fd = wcx_open_below((void *)(uintptr_t)&family->store_fd, path, flags, st_ret);

	if (fd < 0 || !(flags & O_DIRECTORY) || st_ret->st_dev == family->store_st.st_dev || is_named(family, path))
		return fd;
	close(fd);
	return -EXDEV;
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
		file->bases[i].hint = strdup(base->name);
		if (!file->bases[i].hint)
			r = wcx_fail(err, ENOMEM, "%s: no memory", file->path);
		file->base_count++;
	}
	wcx_container_free(c);
	return r;
}

bool wcx_is_version3(int fd, const struct stat *st)
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
	file->is_newer = r == -ENOTSUP && !wcx_is_version3(fd, &file->st);
	close(fd);
	return r;
}

static void free_file(struct wcx_family_file *file)
{
	for (uint32_t i = 0; i < file->base_count; i++)
		free(file->bases[i].hint);
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
	if (grown && file.path && wcx_family_hides(&file) && !is_named(family, path)) {
		family->is_partial = true;
		free_file(&file);
		return 0;
	}
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

	if (errnum != ENOENT && errnum != EXDEV && strcmp(path, "lost+found") != 0)
		scan->has_no_memory |= add(scan, path, errnum) < 0;
}

static int compare_paths(const void *a, const void *b)
{
	const struct wcx_family_file *x = a, *y = b;

	return strcmp(x->path, y->path);
}

int wcx_family_scan(struct wcx_family *family, const char *store, const atomic_bool *stop, struct wcx_error *err)
{
	return wcx_family_scan_scope(family, &(struct wcx_store_scope){ .path = (char *)(uintptr_t)store }, stop, err);
}

int wcx_family_scan_scope(struct wcx_family *family, const struct wcx_store_scope *scope, const atomic_bool *stop,
			  struct wcx_error *err)
{
	struct scan scan = { .family = family };
	const struct wcx_tree_access access = { .open = open_in_store, .user = &scan, .skipped = add_unlisted };
	const char *store = scope->path;
	int r;

	*family = (struct wcx_family){ .store = strdup(store),
				       .store_fd = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
				       .named = scope->named ? strdup(scope->named) : NULL };
	if (family->store_fd < 0 || fstat(family->store_fd, &family->store_st) < 0)
		return wcx_fail(err, errno, "%s: %s", store, strerror(errno));
	r = family->store && (family->named || !scope->named) ? wcx_packed_paths(&access, stop, add_file, &scan) : -ENOMEM;
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
	free(family->named);
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

bool wcx_family_is_named(const struct wcx_family *family, const struct wcx_family_file *file)
{
	return is_named(family, file->path);
}

bool wcx_family_hides(const struct wcx_family_file *file)
{
	return file->is_newer || file->r == -EACCES || file->r == -EPERM || file->r == -ENOMEM || file->r == -EIO;
}

/* Whether a hint of a file leads to a packed file with its base's original that is not the one which st is of. */
static bool hint_leads_elsewhere(const struct wcx_family *family, const struct wcx_family_file *file,
				 const struct wcx_family_base *base, const struct stat *st)
{
	const char *slash = strrchr(file->path, '/');
	const int directory_bytes = slash ? (int)(slash - file->path) : 0;
	struct wcx_superblock sb;
	struct stat other;
	bool ret = false;
	char *path;
	int fd;

	if (asprintf(&path, "%.*s%s%s", directory_bytes, file->path, slash ? "/" : "", base->hint) < 0)
		return false;
	fd = *base->hint && *base->hint != '/' ? openat(family->store_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
					       : -1;
	if (fd >= 0 && fstat(fd, &other) == 0 && S_ISREG(other.st_mode) &&
	    (other.st_dev != st->st_dev || other.st_ino != st->st_ino) && wcx_superblock_read(fd, path, &sb, NULL) == 0)
		ret = !sb.base_count && sb.original_bytes == base->original_bytes &&
		      memcmp(sb.sha256, base->sha256, sizeof sb.sha256) == 0;
	if (fd >= 0)
		close(fd);
	free(path);
	return ret;
}

bool wcx_family_needs(const struct wcx_family *family, const struct wcx_family_file *file,
		      const struct wcx_family_file *base, const struct stat *st)
{
	const bool in_named = is_named(family, file->path);

	if (wcx_is_same_file(&file->st, st))
		return false;
	for (uint32_t i = 0; i < file->base_count; i++)
		if (is_base(base, &file->bases[i]) && (in_named || !hint_leads_elsewhere(family, file, &file->bases[i], st)))
			return true;
	return false;
}
