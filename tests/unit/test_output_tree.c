/* SPDX-License-Identifier: MIT */
/* A directory in the making that other processes of the same parent take for abandoned, just before it has its lock. */
#include "fs/base/output_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/fixtures/wrapped.h"
#include "tests/unit/check.h"

enum meddling { NONE, REMOVED, LOCKED, LOCKED_AND_REMOVED };

static char parent[] = "/tmp/wcx-output-XXXXXX", path[64];
static enum meddling meddling;
static int other_fd = -1; /* the lock of the other process */

/* What another process may do between the calls that make a directory and lock it. */
WRAPPED(int, mkdir, const char *name, mode_t mode)
{
	const int r = __real_mkdir(name, mode);

	if (r == 0 && (meddling == LOCKED || meddling == LOCKED_AND_REMOVED)) {
		other_fd = open(name, O_RDONLY | O_DIRECTORY);
		CHECK(flock(other_fd, LOCK_EX | LOCK_NB) == 0);
	}
	if (r == 0 && (meddling == REMOVED || meddling == LOCKED_AND_REMOVED))
		CHECK(rmdir(name) == 0);
	meddling = NONE;
	return r;
}

/* What was done, a letter each: P and T for a sync of the parent and of another directory, M for moving, R for removing. */
static char events[16];

static void note(char event)
{
	const size_t count = strlen(events);

	if (count + 1 < sizeof events && (!count || events[count - 1] != event))
		events[count] = event;
}

WRAPPED(int, fsync, int fd)
{
	struct stat synced, st;

	CHECK(fstat(fd, &synced) == 0 && stat(parent, &st) == 0);
	note(synced.st_ino == st.st_ino ? 'P' : 'T');
	return __real_fsync(fd);
}

static bool can_exchange = true;
static int renames_until_error; /* 0: none fails */

WRAPPED(int, rename, const char *from, const char *to)
{
	const int r = renames_until_error == 1 ? (errno = EIO, -1) : __real_rename(from, to);

	renames_until_error -= renames_until_error > 0;
	if (r == 0)
		note('M');
	return r;
}

WRAPPED(int, renameat2, int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	const int r = can_exchange ? __real_renameat2(from_fd, from, to_fd, to, flags) : (errno = EINVAL, -1);

	if (r == 0)
		note('M');
	return r;
}

WRAPPED(int, unlinkat, int directory_fd, const char *name, int flags)
{
	note('R');
	return __real_unlinkat(directory_fd, name, flags);
}

static size_t entries_of_parent(void)
{
	DIR *directory = opendir(parent);
	size_t count = 0;

	while (directory && readdir(directory))
		count++;
	if (directory)
		closedir(directory);
	return count - 2; /* . and .. */
}

static void a_tree_that_is_taken_for_abandoned_is_begun_again(void)
{
	for (enum meddling kind = NONE; kind <= LOCKED_AND_REMOVED; kind++) {
		struct wcx_output_tree tree;
		struct wcx_error err = { "" };
		struct stat by_name, by_fd;

		meddling = kind;
		if (!CHECK(wcx_output_tree_create(&tree, path, false, "mark", &err) == 0))
			continue;
		CHECK(stat(tree.temporary, &by_name) == 0 && fstat(tree.fd, &by_fd) == 0 && by_name.st_ino == by_fd.st_ino);
		CHECK(wcx_output_tree_commit(&tree, parent, &err) == 0);
		CHECK(rmdir(path) == 0);
		if (other_fd >= 0)
			close(other_fd);
		other_fd = -1;
	}
	CHECK(entries_of_parent() == 0); /* what the other process locked and left, the next tree has removed */
}

static void what_is_replaced_goes_when_the_new_one_is_on_the_disk(void)
{
	static const char *const expected[] = { "TMP", "TMPR" };
	char mark[96];

	for (int i = 0; i < 2; i++) {
		struct wcx_output_tree tree;
		struct wcx_error err = { "" };
		int fd;

		if (!CHECK(wcx_output_tree_create(&tree, path, i == 1, "mark", &err) == 0))
			return;
		snprintf(mark, sizeof mark, "%s/mark", tree.temporary);
		fd = open(mark, O_WRONLY | O_CREAT, 0600);
		CHECK(fd >= 0 && close(fd) == 0);
		memset(events, 0, sizeof events);
		CHECK(wcx_output_tree_commit(&tree, parent, &err) == 0);
		CHECK_TEXT(events, expected[i]);
	}
	CHECK(entries_of_parent() == 1);
	snprintf(mark, sizeof mark, "%s/mark", path);
	CHECK(unlink(mark) == 0 && rmdir(path) == 0);
}

/* Where two directories cannot be exchanged in one step: the first renaming tries without, the second moves the old one. */
static void what_is_not_replaced_after_all_keeps_its_name(void)
{
	struct wcx_output_tree tree;
	struct wcx_error err = { "" };
	char mark[96];

	snprintf(mark, sizeof mark, "%s/mark", path);
	CHECK(mkdir(path, 0700) == 0 && mkdir(mark, 0700) == 0);
	can_exchange = false;
	renames_until_error = 3;
	if (CHECK(wcx_output_tree_create(&tree, path, true, "mark", &err) == 0)) {
		CHECK(wcx_output_tree_commit(&tree, parent, &err) == -EIO);
		wcx_output_tree_discard(&tree);
	}
	CHECK(entries_of_parent() == 1 && access(mark, F_OK) == 0);
	if (CHECK(wcx_output_tree_create(&tree, path, true, "mark", &err) == 0))
		CHECK(wcx_output_tree_commit(&tree, parent, &err) == 0);
	can_exchange = true;
	CHECK(entries_of_parent() == 1 && access(mark, F_OK) < 0);
	CHECK(rmdir(path) == 0);
}

static void a_parent_that_is_not_there_is_named(void)
{
	struct wcx_output_tree tree;
	struct wcx_error err = { "" };
	char nowhere[96];

	snprintf(nowhere, sizeof nowhere, "%s/nowhere/x", parent);
	CHECK(wcx_output_tree_create(&tree, nowhere, false, "mark", &err) == -ENOENT);
	CHECK(strstr(err.text, "nowhere does not exist"));
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_tree_that_is_taken_for_abandoned_is_begun_again),
		CHECK_TEST(what_is_replaced_goes_when_the_new_one_is_on_the_disk),
		CHECK_TEST(what_is_not_replaced_after_all_keeps_its_name),
		CHECK_TEST(a_parent_that_is_not_there_is_named),
	};
	int status;

	if (!mkdtemp(parent))
		return 1;
	snprintf(path, sizeof path, "%s/tree", parent);
	status = check_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
	return rmdir(parent) < 0 ? 1 : status;
}
