/* SPDX-License-Identifier: MIT */
/* Reads which packed files of a store depend on which others. */
#include "tools/family.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/file_copy.h"
#include "fs/base/file_io.h"
#include "fs/base/path.h"
#include "fs/base/same_file.h"
#include "fs/format/version3.h"
#include "fs/read/base_rules.h"
#include "fs/read/base_search.h"
#include "fs/read/packed_index.h"

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

static int read_file(const struct wcx_family *family, struct wcx_family_file *file, struct wcx_error *err)
{
	const int fd =
		wcx_open_below((void *)(uintptr_t)&family->walk.fd, file->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, &file->st);
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

static int compare_paths(const void *a, const void *b)
{
	const struct wcx_family_file *x = a, *y = b;

	return strcmp(x->path, y->path);
}

static void free_files(struct wcx_family_file *files, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free_file(&files[i]);
	free(files);
}

/* Whether a file that was read is still the same: its status has changed in no way. */
static bool is_current(const struct wcx_family_file *known, const struct wcx_store_name *name)
{
	return known->r == 0 && !name->errnum && wcx_same_version(&known->st, &name->st) &&
	       known->st.st_ctim.tv_sec == name->st.st_ctim.tv_sec && known->st.st_ctim.tv_nsec == name->st.st_ctim.tv_nsec;
}

/* Reads a file, or takes what is known of it; or notes a directory that cannot be listed. */
static int set_file(const struct wcx_family *family, struct wcx_family_file *file, const struct wcx_store_name *name)
{
	const struct wcx_family_file sought = { .path = name->path };
	struct wcx_family_file *known =
		family->count ? bsearch(&sought, family->files, family->count, sizeof *known, compare_paths) : NULL;
	struct wcx_error why = { "" };

	file->path = strdup(name->path);
	if (!file->path)
		return -ENOMEM;
	if (known && is_current(known, name)) {
		char *path = file->path;

		*file = *known;
		*known = (struct wcx_family_file){ .path = known->path, .r = -ENOENT };
		file->path = path;
		return 0;
	}
	file->r = name->errnum ? wcx_fail(&why, EIO, "%s: cannot be listed: %s", name->path, strerror(name->errnum))
			       : read_file(family, file, &why);
	if (file->r < 0) {
		file->why = malloc(sizeof *file->why);
		if (!file->why)
			return -ENOMEM;
		*file->why = why;
	}
	return 0;
}

int wcx_family_refresh(struct wcx_family *family, const atomic_bool *stop, struct wcx_error *err)
{
	int r = wcx_store_walk_refresh(&family->walk, stop);
	const size_t count = family->walk.count;
	struct wcx_family_file *files = r == 0 ? calloc(count + 1, sizeof *files) : NULL;

	if (r == 0 && !files)
		r = -ENOMEM;
	for (size_t i = 0; i < count && r == 0; i++)
		r = stop && *stop ? -EINTR : set_file(family, &files[i], &family->walk.names[i]);
	free_files(family->files, family->count);
	family->files = files;
	family->count = files ? count : 0;
	if (r < 0)
		return wcx_fail(err, -r, "%s: %s", family->walk.start, r == -EINTR ? "interrupted" : strerror(-r));
	qsort(files, count, sizeof *files, compare_paths);
	return 0;
}

int wcx_family_scan(struct wcx_family *family, const char *store, bool climbs, const atomic_bool *stop,
		    struct wcx_error *err)
{
	int r;

	*family = (struct wcx_family){ 0 };
	r = wcx_store_walk_open(&family->walk, store, climbs);
	return r < 0 ? wcx_fail(err, -r, "%s: %s", store, strerror(-r)) : wcx_family_refresh(family, stop, err);
}

void wcx_family_free(struct wcx_family *family)
{
	free_files(family->files, family->count);
	wcx_store_walk_free(&family->walk);
	*family = (struct wcx_family){ .walk.fd = -1 };
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

bool wcx_family_is_unknown(const struct wcx_family_file *file)
{
	return file->is_newer || file->r == -EACCES || file->r == -EPERM || file->r == -ENOMEM || file->r == -EIO;
}

bool wcx_family_hides(const struct wcx_family_file *file)
{
	return file->is_newer || (wcx_family_is_unknown(file) && !wcx_is_around(file->path));
}

/* Whether a path leads to a packed file with a base's original that the file may use. */
static bool leads_to_base(const struct wcx_family *family, const struct wcx_family_file *file,
			  const struct wcx_family_base *base, const char *path)
{
	struct wcx_superblock sb;
	struct stat st;
	const int fd = wcx_base_open_hint(family->walk.fd, path, &st);
	bool ret;

	if (fd < 0)
		return false;
	ret = wcx_superblock_read(fd, path, &sb, NULL) == 0 && !sb.base_count && sb.original_bytes == base->original_bytes &&
	      memcmp(sb.sha256, base->sha256, sizeof sb.sha256) == 0 && wcx_base_is_trusted(file->st.st_uid, &file->st, &st);
	close(fd);
	return ret;
}

static bool is_name(const struct wcx_family *family, const char *path, const struct wcx_packed_name *name)
{
	char *directory = wcx_directory_of(path);
	struct stat own, other;
	const bool ret = directory && fstat(name->directory_fd, &own) == 0 &&
			 fstatat(family->walk.fd, directory, &other, 0) == 0 && wcx_is_same_file(&own, &other) &&
			 strcmp(wcx_last_name(path), name->name) == 0;

	free(directory);
	return ret;
}

/* Whether the first place where a file looks for its base has it, under another name than that one. */
static bool has_other(const struct wcx_family *family, const struct wcx_family_file *file,
		      const struct wcx_family_base *base, const struct wcx_packed_name *name)
{
	char path[PATH_MAX], kept[PATH_MAX];

	if (wcx_is_around(file->path) ? wcx_base_hint_join(file->path, base->hint, path) < 0
				      : wcx_base_hint_path(file->path, base->hint, path) < 0)
		return false;
	if (leads_to_base(family, file, base, path))
		return !is_name(family, path, name);
	return wcx_base_kept_path(path, base->sha256, kept) == 0 && leads_to_base(family, file, base, kept) &&
	       !is_name(family, kept, name);
}

bool wcx_family_needs(const struct wcx_family *family, const struct wcx_family_file *file,
		      const struct wcx_packed_name *base)
{
	for (uint32_t i = 0; i < file->base_count; i++)
		if (file->bases[i].original_bytes == base->sb->original_bytes &&
		    memcmp(file->bases[i].sha256, base->sb->sha256, WCX_SHA256_BYTES) == 0 &&
		    !has_other(family, file, &file->bases[i], base))
			return true;
	return false;
}
