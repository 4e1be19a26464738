/* SPDX-License-Identifier: MIT */
/* Opens packed files as bases, and says where they are from where an output will be. */
#include "tools/base_set.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/base/same_file.h"
#include "fs/base/tree.h"
#include "fs/read/base_lock.h"
#include "fs/read/base_rules.h"
#include "fs/read/base_search.h"
#include "tools/file_task.h"

static int fail_on(struct wcx_error *err, const char *path, int errnum)
{
	return wcx_fail(err, errnum, "%s: %s", path, strerror(errnum));
}

/* Locks an open file, which must still be there afterwards. */
static int lock_file(int fd, const char *path, struct stat *st_ret, struct wcx_error *err)
{
	const int r = wcx_base_lock(fd);
	struct stat now;

	if (r == -EWOULDBLOCK)
		return wcx_fail(err, EBUSY, "%s: is being removed or replaced", path);
	if (r < 0 || fstat(fd, st_ret) < 0 || stat(path, &now) < 0)
		return fail_on(err, path, r < 0 ? -r : errno);
	if (now.st_dev != st_ret->st_dev || now.st_ino != st_ret->st_ino)
		return wcx_fail(err, EBUSY, "%s: was replaced", path);
	return 0;
}

/* Opens a file; on failure the caller puts the image. */
static int open_file(struct wcx_base_file *file, const struct command *command, const char *path, struct wcx_error *err)
{
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	int r;

	if (fd < 0)
		return fail_on(err, path, errno);
	r = lock_file(fd, path, &file->stat, err);
	if (r == 0)
		r = wcx_image_open(fd, path, command->cache, command->decoder, &file->image, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	if (wcx_container_base_count(wcx_image_container(file->image)))
		return wcx_fail(err, EINVAL, "%s: is packed against a base itself (%s); name that one", path,
				wcx_container_base(wcx_image_container(file->image), 1)->name);
	return wcx_image_header(file->image, &file->st, err);
}

static void close_file(struct wcx_base_file *file)
{
	wcx_safetensors_free(file->st);
	wcx_image_put(file->image);
	free(file->path);
}

int wcx_base_set_add(struct wcx_base_set *set, const struct command *command, const char *path, struct wcx_error *err)
{
	struct wcx_base_file *grown = wcx_array_reserve(set->files, &set->capacity, set->count + 1, sizeof *set->files);
	struct wcx_base_file *file;
	int r;

	if (!grown)
		return fail_on(err, path, ENOMEM);
	set->files = grown;
	if (set->count == WCX_BASES_MAX)
		return wcx_fail(err, E2BIG, "%s: a file may have at most %d bases", path, WCX_BASES_MAX);
	file = &set->files[set->count];
	*file = (struct wcx_base_file){ .path = realpath(path, NULL) };
	r = file->path ? open_file(file, command, path, err) : fail_on(err, path, errno);
	if (r < 0)
		close_file(file);
	else
		set->count++;
	return r;
}

void wcx_base_set_drop_last(struct wcx_base_set *set)
{
	close_file(&set->files[--set->count]);
}

/* What a tree of bases has that is none. */
struct no_bases {
	struct wcx_error why; /* of the first that cannot be read; empty: there is none */
	bool has_relatives, has_originals;
};

/* What cannot be listed or read is told of if there is no base, and else warned of. */
static void note_problem(void *user, const struct wcx_error *why)
{
	struct no_bases *others = user;

	if (!*others->why.text)
		others->why = *why;
}

/* Whether a file of a tree is a packed one that refers to no base. */
static bool may_be_base(const char *path, struct no_bases *others)
{
	const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	struct wcx_superblock sb;
	struct wcx_error why;
	int r = fd < 0 ? fail_on(&why, path, errno) : wcx_superblock_read(fd, path, &sb, &why);

	if (fd >= 0)
		close(fd);
	if (r < 0)
		note_problem(others, &why);
	else if (sb.base_count)
		others->has_relatives = true;
	return r == 0 && !sb.base_count;
}

/* The error of a tree without a base, which names what is wrong with it; with one, what could not be read is a warning. */
static int judge_tree(const struct command *command, const char *path, bool has_base, const struct no_bases *others,
		      struct wcx_error *err)
{
	struct wcx_error text;

	if (has_base && *others->why.text) {
		wcx_fail(&text, 0, "--base: left out: %s", others->why.text);
		wcx_warn((void *)(uintptr_t)command, text.text);
	}
	if (has_base)
		return 0;
	if (*others->why.text)
		return wcx_fail(err, EIO, "%s: has no packed file that can be read as a base: %s", path, others->why.text);
	if (others->has_relatives)
		return wcx_fail(err, ENOENT, "%s: all its packed files are packed against bases themselves; name these",
				path);
	return wcx_fail(err, ENOENT, "%s: has no packed file%s", path,
			others->has_originals ? "; a base is packed first, without a base" : "");
}

static bool is_original_name(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && strcmp(dot, ".safetensors") == 0;
}

static int add_tree(struct wcx_base_set *set, const struct command *command, const char *path, struct wcx_error *err)
{
	const size_t before = set->count;
	struct wcx_tree tree = { .root_fd = -1 };
	struct no_bases others = { .why.text = "" };
	int r = wcx_tree_list(&tree, path, note_problem, &others, &wcx_command_stop, err);

	for (size_t i = 0; i < tree.count && r == 0; i++) {
		char *file;

		others.has_originals |= is_original_name(tree.entries[i].name);
		if (!S_ISREG(tree.entries[i].st.st_mode) || !wcx_is_packed_name(tree.entries[i].name))
			continue;
		file = wcx_tree_path(&tree, i, path, "");
		if (!file)
			r = fail_on(err, path, ENOMEM);
		else if (may_be_base(file, &others))
			r = wcx_base_set_add(set, command, file, err);
		free(file);
	}
	if (r == 0)
		r = judge_tree(command, path, set->count > before, &others, err);
	wcx_tree_free(&tree);
	return r;
}

int wcx_base_set_add_path(struct wcx_base_set *set, const struct command *command, const char *path, struct wcx_error *err)
{
	struct stat st;
	int r;

	if (stat(path, &st) < 0)
		return fail_on(err, path, errno);
	if (S_ISDIR(st.st_mode))
		return add_tree(set, command, path, err);
	r = wcx_base_set_add(set, command, path, err);
	if (r == -EBADMSG && !wcx_is_packed_name(path))
		r = wcx_fail(err, EBADMSG, "%s: not a .wcx file; a base is packed first, without a base", path);
	return r;
}

bool wcx_base_file_suits(const struct wcx_base_file *file, const struct stat *dependent)
{
	return wcx_base_suits(dependent, &file->stat, !wcx_has_acl(wcx_container_fd(wcx_image_container(file->image))));
}

bool wcx_base_set_holds(const struct wcx_base_set *set, const struct stat *st)
{
	for (size_t i = 0; i < set->count; i++)
		if (wcx_is_same_file(&set->files[i].stat, st))
			return true;
	return false;
}

/* The path from a directory to a file, both absolute and without links; the caller frees it. */
static char *path_between(const char *directory, const char *file)
{
	size_t same = 0; /* bytes that both begin with, up to and with a slash */
	unsigned ups = 0;
	char *ret, *end;

	for (size_t i = 0; directory[i] == file[i] || (!directory[i] && file[i] == '/'); i++) {
		if (file[i] == '/')
			same = i + 1;
		if (!directory[i])
			break;
	}
	for (const char *at = directory + same - (same > strlen(directory)); *at; at++)
		ups += *at != '/' && (at[1] == '/' || !at[1]);
	ret = malloc(3 * (size_t)ups + strlen(file + same) + 1);
	if (!ret)
		return NULL;
	for (end = ret; ups--; end += 3)
		memcpy(end, "../", 3);
	strcpy(end, file + same);
	return ret;
}

struct wcx_pack_base *wcx_base_set_list(const struct wcx_base_set *set, const char *directory)
{
	struct wcx_pack_base *list = calloc(set->count + 1, sizeof *list);

	for (size_t i = 0; list && i < set->count; i++) {
		char *hint = directory ? path_between(directory, set->files[i].path) : strdup("");

		list[i] = (struct wcx_pack_base){ set->files[i].image, set->files[i].st, hint };
		if (!hint) {
			wcx_base_list_free(list, set->count);
			return NULL;
		}
	}
	return list;
}

void wcx_base_list_free(struct wcx_pack_base *list, size_t count)
{
	for (size_t i = 0; list && i < count; i++)
		free((char *)(uintptr_t)list[i].hint);
	free(list);
}

void wcx_base_set_free(struct wcx_base_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		close_file(&set->files[i]);
	free(set->files);
	*set = (struct wcx_base_set){ 0 };
}
