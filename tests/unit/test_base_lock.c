/* SPDX-License-Identifier: MIT */
/*
 * Locks for removal: what is locked is what has the name.
 *
 * Must be linked with --wrap=flock, so that a file can be replaced just before it is locked.
 */
#include "fs/read/base_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "tests/fixtures/sample_files.h"
#include "tests/unit/check.h"

static char *dir;
static int dir_fd;
static unsigned replacements; /* that are still to come, each before a call of flock */

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);

int __wrap_flock(int fd, int operation)
{
	if (replacements) {
		replacements--;
		sample_require(close(openat(dir_fd, "next", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) == 0, "next");
		sample_require(renameat(dir_fd, "next", dir_fd, "file") == 0, "renameat");
	}
	return __real_flock(fd, operation);
}

static void make_file(void)
{
	sample_require(close(openat(dir_fd, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) == 0, "file");
}

static void a_file_that_is_replaced_before_it_is_locked_is_not_what_is_locked(void)
{
	struct stat st, now;
	int fd;

	make_file();
	replacements = 3;
	fd = wcx_base_open_for_removal(dir_fd, "file", &st);
	CHECK(fd >= 0 && replacements == 0);
	CHECK(fstatat(dir_fd, "file", &now, 0) == 0 && now.st_ino == st.st_ino);
	CHECK(fstat(fd, &now) == 0 && now.st_ino == st.st_ino);
	close(fd);
}

static void who_packs_against_a_file_keeps_it_and_the_other_way_round(void)
{
	int fd, removal;
	struct stat st;

	make_file();
	fd = openat(dir_fd, "file", O_RDONLY | O_CLOEXEC);
	CHECK(wcx_base_lock(fd) == 0);
	CHECK(wcx_base_open_for_removal(dir_fd, "file", &st) == -EWOULDBLOCK);
	close(fd);
	removal = wcx_base_open_for_removal(dir_fd, "file", &st);
	CHECK(removal >= 0);
	fd = openat(dir_fd, "file", O_RDONLY | O_CLOEXEC);
	CHECK(wcx_base_lock(fd) == -EWOULDBLOCK);
	CHECK(unlinkat(dir_fd, "file", 0) == 0);
	close(removal);
	CHECK(wcx_base_lock(fd) == -ENOENT);
	close(fd);
	CHECK(wcx_base_open_for_removal(dir_fd, "file", &st) == -ENOENT);
}

static void what_is_no_regular_file_is_not_opened(void)
{
	struct stat st;

	sample_require(symlinkat("file", dir_fd, "link") == 0 && mkfifoat(dir_fd, "fifo", 0600) == 0, "links");
	CHECK(wcx_base_open_for_removal(dir_fd, "link", &st) == -ELOOP);
	CHECK(wcx_base_open_for_removal(dir_fd, "fifo", &st) == -EINVAL);
	CHECK(wcx_base_open_for_removal(dir_fd, ".", &st) == -EINVAL);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_file_that_is_replaced_before_it_is_locked_is_not_what_is_locked),
		CHECK_TEST(who_packs_against_a_file_keeps_it_and_the_other_way_round),
		CHECK_TEST(what_is_no_regular_file_is_not_opened),
	};
	int status;

	dir = sample_dir_create();
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	close(dir_fd);
	sample_dir_remove(dir);
	return status;
}
