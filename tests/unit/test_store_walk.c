/* SPDX-License-Identifier: MIT */
/*
 * The walk through a store: what it sees, and how little it looks at again.
 *
 * Must be linked with --wrap=wcx_packed_list, to count the directories that are listed, and --wrap=clock_gettime, so that
 * seconds pass when a test says so.
 */
#include "fs/read/store_walk.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <time.h>

#include "fs/read/packed_index.h"
#include "tests/fixtures/sample_files.h"
#include "tests/unit/check.h"

static time_t passed_s; /* what tests have added to the clock */
static unsigned listings;

int __real_clock_gettime(clockid_t clock, struct timespec *ret);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __real_wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor);
int __wrap_wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	const int r = __real_clock_gettime(clock, ret);

	ret->tv_sec += passed_s;
	return r;
}

int __wrap_wcx_packed_list(int fd, const char *path, const struct wcx_packed_visitor *visitor)
{
	listings++;
	return __real_wcx_packed_list(fd, path, visitor);
}

/* --- fixture --- */

static char *dir;
static int dir_fd;

static void make_directory(const char *path)
{
	sample_require(mkdirat(dir_fd, path, 0700) == 0, path);
}

static void make_file(const char *path)
{
	sample_require(close(openat(dir_fd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) == 0, path);
}

/* DIR/models/{a,b/c} */
static void make_tree(void)
{
	dir = sample_dir_create();
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	make_directory("models");
	make_directory("models/a");
	make_directory("models/b");
	make_directory("models/b/c");
	make_file("models/a/1.wcx");
	make_file("models/a/no");
	make_file("models/b/c/2.wcx");
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static void remove_tree(void)
{
	close(dir_fd);
	nftw(dir, remove_entry, 10, FTW_DEPTH | FTW_PHYS);
	free(dir);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Whether the next look finds these paths, with a space behind each, and lists so many directories. */
static bool finds(struct wcx_store_walk *walk, const char *expected, unsigned expected_listings)
{
	const char *paths[100];
	char found[4096] = "";

	listings = 0;
	if (!CHECK(wcx_store_walk_refresh(walk, NULL) == 0 && walk->count < WCX_ARRAY_COUNT(paths)))
		return false;
	for (size_t i = 0; i < walk->count; i++)
		paths[i] = walk->names[i].path;
	qsort(paths, walk->count, sizeof *paths, compare);
	for (size_t i = 0; i < walk->count; i++)
		strcat(strcat(found, paths[i]), " ");
	if (strcmp(found, expected) == 0 && listings == expected_listings)
		return true;
	fprintf(stderr, "found %s, %u listings\n", found, listings);
	return false;
}

/* --- tests --- */

static void only_directories_that_have_changed_are_listed_again(void)
{
	struct wcx_store_walk walk;
	char *start;

	make_tree();
	start = sample_path(dir, "models");
	CHECK(wcx_store_walk_open(&walk, start, false) == 0);
	passed_s = 10;
	CHECK(finds(&walk, "a/1.wcx b/c/2.wcx ", 4));
	CHECK(finds(&walk, "a/1.wcx b/c/2.wcx ", 0));
	passed_s = -10; /* directories that were changed just now, on a slow machine too, may change again without a sign */
	make_file("models/a/3.wcx");
	CHECK(finds(&walk, "a/1.wcx a/3.wcx b/c/2.wcx ", 1));
	CHECK(finds(&walk, "a/1.wcx a/3.wcx b/c/2.wcx ", 1));
	passed_s = 20;
	CHECK(finds(&walk, "a/1.wcx a/3.wcx b/c/2.wcx ", 1));
	CHECK(finds(&walk, "a/1.wcx a/3.wcx b/c/2.wcx ", 0));
	sample_require(renameat(dir_fd, "models/a/1.wcx", dir_fd, "models/b/c/2.wcx") == 0, "renameat");
	CHECK(finds(&walk, "a/3.wcx b/c/2.wcx ", 2));
	sample_require(renameat(dir_fd, "models/b/c", dir_fd, "models/a/c") == 0, "renameat");
	make_directory("models/d");
	make_file("models/d/4.wcx");
	CHECK(finds(&walk, "a/3.wcx a/c/2.wcx d/4.wcx ", 5)); /* ., a, a/c, b, d */
	CHECK(finds(&walk, "a/3.wcx a/c/2.wcx d/4.wcx ", 0));
	sample_require(unlinkat(dir_fd, "models/d/4.wcx", 0) == 0 && unlinkat(dir_fd, "models/d", AT_REMOVEDIR) == 0,
		       "unlinkat");
	CHECK(finds(&walk, "a/3.wcx a/c/2.wcx ", 1));
	wcx_store_walk_free(&walk);
	free(start);
	remove_tree();
}

static void directories_around_the_start_are_looked_at_each_once(void)
{
	struct wcx_store_walk walk;
	char *start, *shown;
	unsigned around;

	make_tree();
	start = sample_path(dir, "models/b/c");
	/* What is around the temporary directory is not of this test. */
	sample_require(setenv("HOME", dir, 1) == 0, "setenv");
	CHECK(wcx_store_walk_open(&walk, start, true) == 0);
	passed_s = 10;
	CHECK(finds(&walk, "../../a/1.wcx 2.wcx ", 4));
	around = walk.level_count;
	CHECK(around == 2);
	CHECK(finds(&walk, "../../a/1.wcx 2.wcx ", 0));
	shown = wcx_store_walk_shown(&walk, "../../a/1.wcx");
	CHECK(strncmp(shown, dir, strlen(dir)) == 0 && strcmp(shown + strlen(dir), "/models/a/1.wcx") == 0);
	free(shown);
	shown = wcx_store_walk_shown(&walk, NULL);
	CHECK(strncmp(shown, dir, strlen(dir)) == 0 && strcmp(shown + strlen(dir), "/models") == 0);
	free(shown);
	make_file("models/5.wcx");
	CHECK(finds(&walk, "../../5.wcx ../../a/1.wcx 2.wcx ", 1));
	wcx_store_walk_free(&walk);
	free(start);
	remove_tree();
}

static void a_walk_that_is_stopped_has_no_names(void)
{
	const atomic_bool stop = true;
	struct wcx_store_walk walk;

	make_tree();
	CHECK(wcx_store_walk_open(&walk, dir, false) == 0);
	passed_s = 10;
	CHECK(finds(&walk, "models/a/1.wcx models/b/c/2.wcx ", 5));
	CHECK(wcx_store_walk_refresh(&walk, &stop) == -EINTR && walk.count == 0);
	CHECK(finds(&walk, "models/a/1.wcx models/b/c/2.wcx ", 5));
	wcx_store_walk_free(&walk);
	remove_tree();
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(only_directories_that_have_changed_are_listed_again),
		CHECK_TEST(directories_around_the_start_are_looked_at_each_once),
		CHECK_TEST(a_walk_that_is_stopped_has_no_names),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
