/* SPDX-License-Identifier: MIT */
/*
 * Marks of bases: which directory they name, and that they are on disk when the function returns.
 *
 * Must be linked with --wrap=fsync.
 */
#include "fs/read/base_mark.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>

#include "tests/fixtures/sample_files.h"
#include "tests/unit/check.h"

static char *dir;
static int dir_fd, base_fd;
static bool has_attributes;
static int synced_fd;
static ssize_t synced_bytes; /* of the names of the attributes at that time */

int __real_fsync(int fd);
int __wrap_fsync(int fd);

int __wrap_fsync(int fd)
{
	synced_fd = fd;
	synced_bytes = flistxattr(fd, NULL, 0);
	return __real_fsync(fd);
}

static int open_directory(const char *path)
{
	const int fd = openat(dir_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	sample_require(fd >= 0, path);
	return fd;
}

/* Marks the base, and checks that there are so many marks, one of them this. */
static void check_mark(int directory_fd, int dependent_fd, ino_t inode, size_t expected)
{
	bool is_there = false;
	ino_t *marks;
	size_t count;

	synced_fd = -1;
	wcx_base_mark(base_fd, directory_fd, dependent_fd);
	if (!has_attributes)
		return;
	CHECK(synced_fd == base_fd && synced_bytes == flistxattr(base_fd, NULL, 0));
	CHECK(wcx_base_marks(base_fd, &marks, &count) == 0 && count == expected);
	for (size_t i = 0; i < count; i++)
		is_there |= marks[i] == inode;
	CHECK(is_there);
	free(marks);
}

static void a_mark_names_the_nearest_directory_above_both_and_is_synced(void)
{
	const int x = open_directory("x"), y = open_directory("x/y"), z = open_directory("z"), proc = open("/proc", O_PATH);
	struct stat top, below;

	sample_require(fstat(dir_fd, &top) == 0 && fstat(x, &below) == 0, "fstat");
	check_mark(x, z, top.st_ino, 1);
	check_mark(x, y, below.st_ino, 2);
	check_mark(y, x, below.st_ino, 2);
	check_mark(x, x, below.st_ino, 2);
	check_mark(-1, x, 0, 3); /* it is not known where the base is */
	check_mark(x, proc, 0, 3);
	close(x);
	close(y);
	close(z);
	close(proc);
}

static void a_copy_of_marks_is_synced(void)
{
	const int fd = openat(dir_fd, "copy", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ino_t *marks;
	size_t count;

	CHECK(wcx_base_marks(fd, &marks, &count) == 0 && count == 0 && !marks);
	wcx_base_mark(base_fd, -1, -1);
	wcx_base_copy_marks(base_fd, fd);
	CHECK(synced_fd == fd);
	if (has_attributes) {
		CHECK(synced_bytes == flistxattr(fd, NULL, 0));
		CHECK(wcx_base_marks(fd, &marks, &count) == 0 && count > 0);
		free(marks);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_mark_names_the_nearest_directory_above_both_and_is_synced),
		CHECK_TEST(a_copy_of_marks_is_synced),
	};
	int status;

	dir = sample_dir_create();
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	sample_require(mkdirat(dir_fd, "x", 0700) == 0 && mkdirat(dir_fd, "x/y", 0700) == 0 &&
			       mkdirat(dir_fd, "z", 0700) == 0,
		       "mkdirat");
	base_fd = openat(dir_fd, "base", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	has_attributes = fsetxattr(base_fd, "user.test", "", 0, 0) == 0; /* tmpfs has none before Linux 6.6 */
	status = check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
	close(base_fd);
	unlinkat(dir_fd, "x/y", AT_REMOVEDIR);
	unlinkat(dir_fd, "x", AT_REMOVEDIR);
	unlinkat(dir_fd, "z", AT_REMOVEDIR);
	close(dir_fd);
	sample_dir_remove(dir);
	return status;
}
