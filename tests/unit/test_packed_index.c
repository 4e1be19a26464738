/* SPDX-License-Identifier: MIT */
/*
 * The index of a tree: what it finds by SHA-256, and how seldom it looks.
 *
 * Must be linked with --wrap=clock_gettime, so that seconds pass when a test says so.
 */
#include "fs/read/packed_index.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "tests/fixtures/sample_family.h"
#include "tests/unit/check.h"

static time_t passed_s; /* what tests have added to the clock, which stands still else, however slow they are */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret)
{
	(void)clock;
	*ret = (struct timespec){ .tv_sec = passed_s };
	return 0;
}

/* --- fixture --- */

struct fixture {
	char *dir;
	int fd;
	unsigned opens; /* of directories */
	struct sample_family family;
	struct wcx_packed_index *index;
	const char *good; /* the path that a search is to end with; NULL: none will do */
	char seen[4096];  /* the paths that it has looked at, with a space behind each */
};

static int open_counted(void *user, const char *path, int flags, struct stat *st_ret)
{
	struct fixture *fixture = user;

	fixture->opens += (flags & O_DIRECTORY) != 0;
	return wcx_open_below(&fixture->fd, path, flags, st_ret);
}

static void open_fixture(struct fixture *fixture)
{
	struct wcx_tree_access access = { .open = open_counted, .user = fixture };

	*fixture = (struct fixture){ .dir = sample_dir_create(), .family = sample_family_make("") };
	fixture->fd = open(fixture->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fixture->index = wcx_packed_index_create(&access, NULL);
}

static void close_fixture(struct fixture *fixture)
{
	static const char *const directories[] = { "x/y", "x", "z.wcx" };

	wcx_packed_index_free(fixture->index);
	for (size_t i = 0; i < WCX_ARRAY_COUNT(directories); i++) {
		char *path = sample_path(fixture->dir, directories[i]);

		if (access(path, F_OK) == 0)
			sample_dir_remove(path);
		else
			free(path);
	}
	close(fixture->fd);
	sample_family_free(&fixture->family);
	sample_dir_remove(fixture->dir);
}

static void add(const struct fixture *fixture, const char *name, struct sample_bytes file)
{
	char *path = sample_path(fixture->dir, name);

	sample_write(path, file);
	free(path);
}

static bool look(void *user, const char *path)
{
	struct fixture *fixture = user;

	strcat(strcat(fixture->seen, path), " ");
	return fixture->good && strcmp(path, fixture->good) == 0;
}

static int search(struct fixture *fixture, const char *good)
{
	fixture->seen[0] = '\0';
	fixture->good = good;
	return wcx_packed_index_find(fixture->index, fixture->family.entry.sha256, fixture->family.entry.original_bytes,
				     WCX_INDEX_REFRESH_MS, look, fixture);
}

/* --- tests --- */

static void files_are_found_by_what_they_hold(void)
{
	const uint8_t other[WCX_SHA256_BYTES] = { 9 };
	struct fixture fixture;

	open_fixture(&fixture);
	sample_require(mkdirat(fixture.fd, "x", 0700) == 0 && mkdirat(fixture.fd, "x/y", 0700) == 0, "mkdirat");
	sample_require(mkdirat(fixture.fd, "z.wcx", 0700) == 0, "mkdirat");
	sample_require(mkfifoat(fixture.fd, "fifo.wcx", 0600) == 0, "mkfifoat");
	sample_require(symlinkat("x/y/base.wcx", fixture.fd, "link.wcx") == 0, "symlinkat");
	sample_require(symlinkat(".", fixture.fd, "loop") == 0, "symlinkat");
	add(&fixture, "x/y/base.wcx", fixture.family.base);
	add(&fixture, "z.wcx/renamed.wcx", fixture.family.base);
	add(&fixture, "x/a.wcx", fixture.family.base);
	add(&fixture, "x/no_suffix", fixture.family.base);
	add(&fixture, ".wcx-tmp-abcdefghijklmnop", fixture.family.base);
	add(&fixture, "short.wcx", (struct sample_bytes){ fixture.family.base.data, 100 });
	/* Neither a file with another original nor one that has bases itself. */
	sample_set_sha256(fixture.family.base, other);
	add(&fixture, "x/other.wcx", fixture.family.base);
	sample_set_sha256(fixture.family.tuned, fixture.family.entry.sha256);
	add(&fixture, "tuned.wcx", fixture.family.tuned);
	CHECK(search(&fixture, "x/y/base.wcx") == 0);
	CHECK_TEXT(fixture.seen, "x/a.wcx x/y/base.wcx ");
	CHECK(search(&fixture, "x/a.wcx") == 0);
	CHECK_TEXT(fixture.seen, "x/a.wcx ");
	CHECK(search(&fixture, NULL) == -ENOENT);
	CHECK(strncmp(fixture.seen, "x/a.wcx x/y/base.wcx z.wcx/renamed.wcx ", 39) == 0);
	fixture.family.entry.original_bytes++;
	CHECK(search(&fixture, "x/a.wcx") == -ENOENT && !*fixture.seen);
	close_fixture(&fixture);
}

static void the_tree_is_scanned_when_something_is_missing_and_seldom(void)
{
	struct fixture fixture;

	open_fixture(&fixture);
	for (int i = 0; i < 5; i++)
		CHECK(search(&fixture, "late.wcx") == -ENOENT);
	CHECK(fixture.opens == 1);
	add(&fixture, "late.wcx", fixture.family.base);
	CHECK(search(&fixture, "late.wcx") == -ENOENT);
	passed_s += 3;
	CHECK(search(&fixture, "late.wcx") == 0);
	CHECK(fixture.opens == 2);
	/* What is known is not looked for, however old the scan is. */
	passed_s += 100;
	CHECK(search(&fixture, "late.wcx") == 0);
	CHECK(fixture.opens == 2);
	unlinkat(fixture.fd, "late.wcx", 0);
	CHECK(search(&fixture, NULL) == -ENOENT);
	CHECK(fixture.opens == 3 && strcmp(fixture.seen, "late.wcx ") == 0); /* not after the scan */
	close_fixture(&fixture);
}

static int count_file(void *user, const char *path)
{
	(void)path;
	++*(unsigned *)user;
	return 0;
}

static int count_directory(void *user, const char *path)
{
	CHECK(strcmp(path, "x") == 0);
	*(unsigned *)user += 10;
	return 0;
}

static int list(const struct fixture *fixture, unsigned *seen, size_t *names_left)
{
	const struct wcx_packed_visitor visitor = { count_file, count_directory, NULL, seen, names_left };

	*seen = 0;
	return wcx_packed_list(openat(fixture->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ".", &visitor);
}

static void a_listing_ends_after_as_many_names_as_it_may_look_at(void)
{
	size_t names_left = 1000;
	struct fixture fixture;
	unsigned seen;

	open_fixture(&fixture);
	sample_require(mkdirat(fixture.fd, "x", 0700) == 0, "mkdirat");
	add(&fixture, "x/a.wcx", fixture.family.base);
	add(&fixture, "a.wcx", fixture.family.base);
	add(&fixture, "b", fixture.family.base);
	CHECK(list(&fixture, &seen, &names_left) == 0 && seen == 11);
	CHECK(names_left == 1000 - 5); /* with . and .. */
	names_left = 5;
	CHECK(list(&fixture, &seen, &names_left) == 0 && names_left == 0);
	names_left = 4;
	CHECK(list(&fixture, &seen, &names_left) == -E2BIG);
	close_fixture(&fixture);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(files_are_found_by_what_they_hold),
		CHECK_TEST(the_tree_is_scanned_when_something_is_missing_and_seldom),
		CHECK_TEST(a_listing_ends_after_as_many_names_as_it_may_look_at),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
