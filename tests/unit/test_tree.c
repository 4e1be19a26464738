/* SPDX-License-Identifier: MIT */
/* Listing trees, and opening their directories, without following links; tests/system/trees.bats has deep and odd trees. */
#include "fs/base/path.h"
#include "fs/base/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/base/file_copy.h"
#include "tests/fixtures/shell_tests.h"
#include "tests/unit/check.h"

static bool has_openat2 = true;

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

/* Only openat2 is called this way. */
long __wrap_syscall(long number, ...)
{
	long arguments[4];
	va_list list;

	va_start(list, number);
	for (size_t i = 0; i < 4; i++)
		arguments[i] = va_arg(list, long);
	va_end(list);
	if (has_openat2)
		return __real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3]);
	errno = ENOSYS;
	return -1;
}

static unsigned problems;

static void count_problem(void *user, const struct wcx_error *why)
{
	(void)user;
	(void)why;
	problems++;
}

static bool list(struct wcx_tree *tree, const char *path)
{
	struct wcx_error err = { "" };

	problems = 0;
	return CHECK(wcx_tree_list(tree, path, count_problem, NULL, NULL, &err) == 0);
}

/* The number of an entry by its name, which is unique; 0: there is none. */
static size_t find(const struct wcx_tree *tree, const char *name)
{
	for (size_t i = 1; i < tree->count; i++)
		if (strcmp(tree->entries[i].name, name) == 0)
			return i;
	return 0;
}

static void entries_come_after_their_directory_and_in_order(void)
{
	struct wcx_tree tree;

	if (!CHECK(shell("mkdir -p t/b/c t/a && touch t/b/c/f t/z t/a/1 t/a/2 t/.hidden "
			 "t/.wcx-tmp-abcdefghijklmnop && ln -s /etc t/etc")))
		return;
	if (list(&tree, "t")) {
		CHECK(tree.count == 10 && problems == 0); /* without an output that was not completed */
		for (size_t i = 1; i < tree.count; i++) {
			CHECK(tree.entries[i].directory < i);
			CHECK(tree.entries[i].depth == tree.entries[tree.entries[i].directory].depth + 1);
			if (i > 1 && tree.entries[i].directory == tree.entries[i - 1].directory)
				CHECK(strcmp(tree.entries[i - 1].name, tree.entries[i].name) < 0);
		}
		CHECK(S_ISLNK(tree.entries[find(&tree, "etc")].st.st_mode));
		CHECK(find(&tree, "passwd") == 0);
	}
	wcx_tree_free(&tree);
}

static void paths_are_put_together(void)
{
	struct wcx_tree tree;
	char *path;

	if (!CHECK(shell("mkdir -p t/b/c && touch t/b/c/f")) || !list(&tree, "t"))
		return;
	path = wcx_tree_path(&tree, find(&tree, "f"), "elsewhere", ".wcx");
	CHECK_TEXT(path, "elsewhere/b/c/f.wcx");
	free(path);
	path = wcx_tree_path(&tree, 0, "elsewhere", "");
	CHECK_TEXT(path, "elsewhere");
	free(path);
	wcx_tree_free(&tree);
}

static void a_directory_that_became_a_link_is_not_opened(void)
{
	struct wcx_tree tree;
	int fd;

	if (!CHECK(shell("mkdir -p t/a/b/c other/b/c")) || !list(&tree, "t"))
		return;
	fd = wcx_tree_open_directory(&tree, find(&tree, "c"), tree.root_fd);
	CHECK(fd >= 0);
	close(fd);
	CHECK(rename("t/a", "t/moved") == 0 && symlink("../other", "t/a") == 0);
	CHECK(wcx_tree_open_directory(&tree, find(&tree, "c"), tree.root_fd) == -ENOTDIR);
	CHECK(wcx_tree_open_directory(&tree, find(&tree, "a"), tree.root_fd) == -ENOTDIR);
	CHECK(unlink("t/a") == 0);
	CHECK(wcx_tree_open_directory(&tree, find(&tree, "c"), tree.root_fd) == -ENOENT);
	wcx_tree_free(&tree);
}

static int open_and_close(int directory_fd, const char *path, int flags)
{
	const int fd = wcx_open_without_links(directory_fd, path, flags);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static void a_path_is_opened_only_if_no_name_in_it_is_a_link(void)
{
	int fd;

	if (!CHECK(shell("mkdir -p t/a/b && touch t/a/b/f && ln -s a t/link && ln -s f t/a/b/link")))
		return;
	fd = open("t", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		has_openat2 = i == 0;
		CHECK(open_and_close(fd, ".", O_RDONLY | O_DIRECTORY) == 0);
		CHECK(open_and_close(fd, "a/b", O_RDONLY | O_DIRECTORY) == 0);
		CHECK(open_and_close(fd, "a/b/f", O_RDONLY | O_NONBLOCK | O_NOCTTY) == 0);
		CHECK(open_and_close(fd, "a/b/link", O_RDONLY) == -ELOOP);
		CHECK(open_and_close(fd, "a/b/link", O_PATH) == 0); /* the link itself, to look at */
		CHECK(open_and_close(fd, "link/b/f", O_RDONLY) == (has_openat2 ? -ELOOP : -ENOTDIR));
		CHECK(open_and_close(fd, "a/b/f/x", O_RDONLY) == -ENOTDIR);
		CHECK(open_and_close(fd, "a/c", O_RDONLY) == -ENOENT);
	}
	has_openat2 = true;
	close(fd);
}

static void what_cannot_be_listed_is_told_of(void)
{
	struct wcx_tree tree;
	struct wcx_error err;
	atomic_bool stop = true;

	if (!CHECK(shell("mkdir -p t/closed/x t/open && touch t/open/f t/file && chmod 0 t/closed")))
		return;
	if (list(&tree, "t"))
		CHECK(find(&tree, "f") && problems == (geteuid() == 0 ? 0 : 1));
	wcx_tree_free(&tree);
	CHECK(wcx_tree_list(&tree, "t/file", count_problem, NULL, NULL, &err) == -ENOTDIR);
	CHECK_TEXT(err.text, "t/file: Not a directory");
	wcx_tree_free(&tree);
	CHECK(wcx_tree_list(&tree, "t", count_problem, NULL, &stop, &err) == -EINTR);
	wcx_tree_free(&tree);
	CHECK(chmod("t/closed", 0700) == 0);
}

static void a_copy_is_made_once_whole_and_refused_when_the_source_changes(void)
{
	struct wcx_output_options output = { .path = "copy" };
	atomic_bool stop = true;
	struct wcx_error err;
	struct stat st;

	if (!CHECK(shell(
		    "head -c 9000000 /dev/zero | tr '\\0' x >source && touch -d 2001-02-03 source && chmod 640 source")))
		return;
	output.source_fd = open("source", O_RDONLY | O_CLOEXEC);
	CHECK(wcx_file_copy(&output, WCX_COPY_DATA, &stop, &err) == -EINTR && access("copy", F_OK) < 0);
	CHECK(wcx_file_copy(&output, WCX_COPY_REFLINK, NULL, &err) == 0);
	CHECK(stat("copy", &st) == 0 && (st.st_mode & 07777) == 0640 && st.st_size == 9000000);
	CHECK(system("cmp source copy && [ $(stat -c %Y source) = $(stat -c %Y copy) ]") == 0);
	CHECK(wcx_file_copy(&output, WCX_COPY_DATA, NULL, &err) == -EEXIST);
	close(output.source_fd);
}

static void links_are_made_and_replaced_but_nothing_else_is(void)
{
	const int fd = shell("touch file other && ln -s old link") ? open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	struct stat st, now;
	char text[8] = "";

	if (!CHECK(fd >= 0 && fstat(fd, &st) == 0))
		return;
	st.st_mtim = (struct timespec){ 1000000000, 5000 };
	CHECK(wcx_symlink_copy("new", &st, false, fd, "link") == -EEXIST); /* it is newer */
	CHECK(wcx_symlink_copy("new", &st, true, fd, "link") == 0 && readlink("link", text, sizeof text) == 3);
	CHECK(memcmp(text, "new", 3) == 0);
	CHECK(lstat("link", &now) == 0 && now.st_mtim.tv_sec == 1000000000 && now.st_mtim.tv_nsec == 5000);
	CHECK(wcx_symlink_copy("new", &st, false, fd, "link") == 0);
	st.st_mtim.tv_nsec++;
	CHECK(wcx_symlink_copy("newer", &st, false, fd, "link") == 0 && readlink("link", text, sizeof text) == 5);
	CHECK(wcx_symlink_copy("new", &st, true, fd, "file") == -EEXIST);
	CHECK(wcx_file_link(fd, "file", fd, "other", false) == -EEXIST &&
	      wcx_file_link(fd, "file", fd, "fresh", false) == 0);
	CHECK(stat("other", &now) == 0 && now.st_nlink == 1);
	CHECK(wcx_file_link(fd, "file", fd, "other", true) == 0 && wcx_file_link(fd, "file", fd, "other", true) == 0);
	CHECK(stat("file", &st) == 0 && stat("other", &now) == 0 && st.st_ino == now.st_ino && now.st_nlink == 3);
	CHECK(system("[ -z \"$(ls -A | grep wcx)\" ]") == 0); /* no temporary name is left */
	close(fd);
}

static void a_path_is_in_a_directory_by_whole_names(void)
{
	CHECK(wcx_path_is_in("/a/b", "/a") && wcx_path_is_in("/a", "/a") && wcx_path_is_in("/a", "/") &&
	      wcx_path_is_in("/", "/"));
	CHECK(!wcx_path_is_in("/ab", "/a") && !wcx_path_is_in("/a", "/a/b") && !wcx_path_is_in("/b/a", "/a"));
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(entries_come_after_their_directory_and_in_order),
		CHECK_TEST(paths_are_put_together),
		CHECK_TEST(a_path_is_in_a_directory_by_whole_names),
		CHECK_TEST(a_directory_that_became_a_link_is_not_opened),
		CHECK_TEST(a_path_is_opened_only_if_no_name_in_it_is_a_link),
		CHECK_TEST(what_cannot_be_listed_is_told_of),
		CHECK_TEST(a_copy_is_made_once_whole_and_refused_when_the_source_changes),
		CHECK_TEST(links_are_made_and_replaced_but_nothing_else_is),
	};

	return shell_tests_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
