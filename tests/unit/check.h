/* SPDX-License-Identifier: MIT */
/*
 * Checks for the unit tests: a failed one prints where it stands and what it says, is counted, and the test goes on.
 *
 * Each test program is one C file whose main ends with `return check_report();`.
 */
#ifndef WCX_CHECK_H
#define WCX_CHECK_H

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static atomic_uint check_count, check_failures;

/* CHECK - the condition must hold; gives it back, so that what depends on it can be skipped.  Safe from any thread. */
#define CHECK(condition) check_true((condition) ? 1 : 0, __FILE__, __LINE__, #condition)

/* CHECK_TEXT - two strings must be equal; prints both if not */
#define CHECK_TEXT(actual, expected) check_text((actual), (expected), __FILE__, __LINE__, #actual)

static inline int check_true(int holds, const char *file, int line, const char *expression)
{
	atomic_fetch_add(&check_count, 1);
	if (!holds) {
		atomic_fetch_add(&check_failures, 1);
		fprintf(stderr, "%s:%d: not true: %s\n", file, line, expression);
	}
	return holds;
}

static inline int check_text(const char *actual, const char *expected, const char *file, int line, const char *expression)
{
	int equal = strcmp(actual, expected) == 0;

	check_true(equal, file, line, expression);
	if (!equal)
		fprintf(stderr, "\tis       \"%s\"\n\texpected \"%s\"\n", actual, expected);
	return equal;
}

/* check_report - print the totals; returns the exit status of the program, which without a single check is a failure too */
static inline int check_report(void)
{
	printf("%u checks, %u failures\n", atomic_load(&check_count), atomic_load(&check_failures));
	return check_count == 0 || check_failures != 0;
}

#endif
