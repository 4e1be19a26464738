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
		CHECK_TEST(a_parent_that_is_not_there_is_named),
	};
	int status;

	if (!mkdtemp(parent))
		return 1;
	snprintf(path, sizeof path, "%s/tree", parent);
	status = check_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
	return rmdir(parent) < 0 ? 1 : status;
}
