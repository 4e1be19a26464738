/* SPDX-License-Identifier: MIT */
/*
 * Checks for the unit tests, and the main function that runs tests by name.
 *
 * A failed check prints its place, the running test and the condition, and the test goes on.  Each test program is one C
 * file with a table of its tests:
 *
 *	int main(int argc, char **argv)
 *	{
 *		static const struct check_test tests[] = {
 *			CHECK_TEST(reads_behind_the_end_are_empty),
 *			CHECK_TEST(header_lists_the_tensors),
 *		};
 *
 *		return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
 *	}
 *
 * A test may not depend on the tests before it.  What all of them share is made before check_main and freed after it.
 */
#ifndef WCX_CHECK_H
#define WCX_CHECK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "codec/arith.h"

/*
 * The step of loops over millions of like cases, which ordinary builds try all: sanitizers, which make them ten times
 * slower, look at each offset and each length, but not at all pairs of them.
 */
#if !defined(__SANITIZE_ADDRESS__) && defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* as gcc defines it */
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
enum { CHECK_STEP = 7 };
#else
enum { CHECK_STEP = 1 };
#endif

struct check_test {
	const char *name;
	void (*run)(void);
};

#define CHECK_TEST(function)                                                                                                \
	{                                                                                                                   \
#function, function                                                                                         \
	}

static atomic_uint check_count, check_failures;
static const char *check_running = "set-up"; /* written between tests only */

/* CHECK - the condition must hold; returns it, so that the caller can skip what depends on it.  Safe from any thread. */
#define CHECK(condition) check_true((condition) ? true : false, __FILE__, __LINE__, #condition)

/* CHECK_TEXT - two strings must be equal; prints both if not */
#define CHECK_TEXT(actual, expected) check_text((actual), (expected), __FILE__, __LINE__, #actual)

static inline bool check_true(bool holds, const char *file, int line, const char *expression)
{
	atomic_fetch_add(&check_count, 1);
	if (!holds) {
		atomic_fetch_add(&check_failures, 1);
		fprintf(stderr, "%s:%d: %s: not true: %s\n", file, line, check_running, expression);
	}
	return holds;
}

static inline bool check_text(const char *actual, const char *expected, const char *file, int line, const char *expression)
{
	bool equal = strcmp(actual, expected) == 0;

	check_true(equal, file, line, expression);
	if (!equal)
		fprintf(stderr, "\tis       \"%s\"\n\texpected \"%s\"\n", actual, expected);
	return equal;
}

/* check_report - print the totals; returns the exit status of the program: 1 after a failure or without a single check */
static inline int check_report(void)
{
	printf("%u checks, %u failures\n", atomic_load(&check_count), atomic_load(&check_failures));
	return check_count == 0 || check_failures != 0;
}

/* Whether the test's name contains one of the words; without words every test is chosen. */
static inline bool check_is_chosen(const struct check_test *test, char *const *words, int word_count)
{
	for (int i = 0; i < word_count; i++)
		if (strstr(test->name, words[i]))
			return true;
	return word_count == 0;
}

/* The first word that no test's name contains, or NULL. */
static inline const char *check_unknown(char *const *words, int word_count, const struct check_test *tests, size_t count)
{
	for (int i = 0; i < word_count; i++) {
		size_t t = 0;

		while (t < count && !strstr(tests[t].name, words[i]))
			t++;
		if (t == count)
			return words[i];
	}
	return NULL;
}

/*
 * check_main - run the tests that the arguments choose, and print the totals
 *
 * Arguments are parts of names: a test runs if its name contains one of them, and all run without arguments.  --list prints
 * the names instead.  Each name is printed before its test runs, so the last one printed is the test that crashed or hangs.
 *
 * Returns the exit status of the program: as check_report does, or 2 for an argument that fits no test.
 */
static inline int check_main(int argc, char **argv, const struct check_test *tests, size_t count)
{
	bool lists = argc == 2 && strcmp(argv[1], "--list") == 0;
	int word_count = lists ? 0 : argc - 1;
	const char *unknown = check_unknown(argv + 1, word_count, tests, count);

	if (unknown) {
		fprintf(stderr, "%s: no test is called %s (--list prints the names)\n", argv[0], unknown);
		return 2;
	}
	for (size_t i = 0; i < count; i++) {
		unsigned failures = atomic_load(&check_failures);

		if (!check_is_chosen(&tests[i], argv + 1, word_count))
			continue;
		puts(tests[i].name);
		fflush(stdout); /* also because a child of the test would print it again */
		if (lists)
			continue;
		check_running = tests[i].name;
		tests[i].run();
		if (atomic_load(&check_failures) != failures)
			printf("FAILED: %s\n", tests[i].name);
	}
	check_running = "clean-up";
	return lists ? 0 : check_report();
}

#endif
