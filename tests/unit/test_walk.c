/* SPDX-License-Identifier: MIT */
/* Walking through trees; tests/system/hub_safety.bats has directories that cannot be read to their end. */
#include "fs/base/walk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/fixtures/shell_tests.h"
#include "tests/unit/check.h"

/* What a walk shows, each entry as a letter for its kind, its depth and its path. */
static const char *shown(const char *path, unsigned flags, const char *skipped)
{
	static const char kinds[] = "deflorp"; /* as the enumeration; r: loop */
	static char text[4096];
	struct wcx_walk walk;
	size_t bytes = 0;

	text[0] = '\0';
	wcx_walk_begin(&walk, path, flags);
	while (wcx_walk_next(&walk)) {
		bytes += (size_t)snprintf(text + bytes, sizeof text - bytes, "%c%u %s\n", kinds[walk.kind], walk.depth,
					  walk.path);
		CHECK(strcmp(walk.path + strlen(walk.path) - strlen(walk.name), walk.name) == 0);
		if (skipped && strcmp(walk.name, skipped) == 0)
			wcx_walk_skip(&walk);
	}
	wcx_walk_end(&walk);
	return text;
}

static void entries_come_in_order_and_a_directory_before_and_after_what_is_in_it(void)
{
	CHECK(shell("mkdir -p t/b/c t/d && touch t/a t/b/c/x t/b-1 && ln -s a t/l && mkfifo t/p"));
	CHECK(strcmp(shown("t", 0, NULL), "d0 t\nf1 t/a\nd1 t/b\nd2 t/b/c\nf3 t/b/c/x\ne2 t/b/c\ne1 t/b\nf1 t/b-1\n"
					  "d1 t/d\ne1 t/d\nl1 t/l\no1 t/p\ne0 t\n") == 0);
	CHECK(strcmp(shown("t/", WCX_WALK_TYPES, "b"),
		     "d0 t/\nf1 t/a\nd1 t/b\nf1 t/b-1\nd1 t/d\ne1 t/d\nl1 t/l\no1 t/p\ne0 t/\n") == 0);
	CHECK(strcmp(shown("t/a", 0, NULL), "f0 t/a\n") == 0);
	CHECK(strcmp(shown("none", 0, NULL), "p0 none\n") == 0);
}

static void links_are_followed_on_request_but_not_in_circles(void)
{
	CHECK(shell("mkdir -p t/b && touch a t/b/x && ln -s ../a t/a && ln -s .. t/b/up && ln -s none t/c && ln -s b t/d"));
	CHECK(strcmp(shown("t", WCX_WALK_FOLLOW, NULL), "d0 t\nf1 t/a\nd1 t/b\nr2 t/b/up\nf2 t/b/x\ne1 t/b\nl1 t/c\n"
							"d1 t/d\nr2 t/d/up\nf2 t/d/x\ne1 t/d\ne0 t\n") == 0);
}

static void what_cannot_be_listed_is_a_problem(void)
{
	char path[PATH_MAX + 10];

	memset(path, 'x', sizeof path - 1);
	path[sizeof path - 1] = '\0';
	CHECK(strncmp(shown(path, 0, NULL), "p0 xxx", 6) == 0);
	if (geteuid() == 0) /* who may list everything */
		return;
	CHECK(shell("mkdir -p t/b t/c && chmod 0 t/b"));
	CHECK(strcmp(shown("t", 0, NULL), "d0 t\nd1 t/b\np1 t/b\nd1 t/c\ne1 t/c\ne0 t\n") == 0);
	CHECK(system("chmod 700 t/b") == 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(entries_come_in_order_and_a_directory_before_and_after_what_is_in_it),
		CHECK_TEST(links_are_followed_on_request_but_not_in_circles),
		CHECK_TEST(what_cannot_be_listed_is_a_problem),
	};

	return shell_tests_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
