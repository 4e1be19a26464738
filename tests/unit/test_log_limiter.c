/* SPDX-License-Identifier: MIT */
/* Which messages are logged, by file and by time. */
#include "codec/arith.h"
#include "fs/mount/log_limiter.h"
#include "tests/unit/check.h"

static struct wcx_log_limiter limiter;
static uint64_t now_ms, suppressed;

static void set_up(void)
{
	wcx_log_limiter_init(&limiter);
	now_ms = 1000000;
	suppressed = 0;
}

static bool admit(const char *file, const char *line)
{
	return wcx_log_limiter_admit(&limiter, file, line, now_ms, &suppressed);
}

/* Different lines about a file, so many at once; how many are admitted. */
static unsigned admit_many(const char *file, unsigned count)
{
	static unsigned number;
	unsigned admitted = 0;
	char line[64];

	for (unsigned i = 0; i < count; i++) {
		snprintf(line, sizeof line, "%s: line %u", file, number++);
		admitted += admit(file, line);
	}
	return admitted;
}

static void the_same_line_is_logged_once_an_hour(void)
{
	set_up();
	CHECK(admit("a", "a: damaged") && admit("b", "b: damaged"));
	for (int i = 0; i < 100; i++, now_ms += 30000)
		CHECK(!admit("a", "a: damaged"));
	now_ms += 700000;
	CHECK(admit("a", "a: damaged") && suppressed == 0);
	wcx_log_limiter_destroy(&limiter);
}

static void a_file_that_fails_in_many_ways_is_heard_of_at_times(void)
{
	set_up();
	CHECK(admit_many("growing.wcx", 1000) == WCX_LOG_LINES_PER_FILE);
	now_ms += 9999;
	CHECK(admit_many("growing.wcx", 5) == 0);
	now_ms += 1;
	CHECK(admit_many("growing.wcx", 5) == 1);
	CHECK(suppressed == 1000 - WCX_LOG_LINES_PER_FILE + 5);
	wcx_log_limiter_destroy(&limiter);
}

static void other_files_are_heard_of_beside_it(void)
{
	set_up();
	admit_many("growing.wcx", 5000);
	CHECK(admit("model.wcx", "model.wcx: damaged"));
	wcx_log_limiter_destroy(&limiter);
}

static void many_files_together_are_limited_and_never_silenced(void)
{
	unsigned admitted = 0;
	char name[32];

	set_up();
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "%u.wcx", i);
		admitted += admit_many(name, 1);
	}
	CHECK(admitted == WCX_LOG_LINES_MAX);
	now_ms += 1000;
	CHECK(admit_many("new.wcx", 5) == 5);
	CHECK(admit_many("newer.wcx", 1) == 0);
	wcx_log_limiter_destroy(&limiter);
}

static void a_file_not_heard_of_for_longest_is_forgotten(void)
{
	char name[32];

	set_up();
	CHECK(admit("first", "line"));
	for (unsigned i = 0; i < WCX_LOG_FILES_MAX - 1; i++, now_ms += 1000) {
		snprintf(name, sizeof name, "%u", i);
		CHECK(admit(name, "line"));
	}
	CHECK(!admit("first", "line"));
	CHECK(admit("one more", "line"));
	CHECK(!admit("first", "line") && admit("0", "line"));
	wcx_log_limiter_destroy(&limiter);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(the_same_line_is_logged_once_an_hour),
		CHECK_TEST(a_file_that_fails_in_many_ways_is_heard_of_at_times),
		CHECK_TEST(other_files_are_heard_of_beside_it),
		CHECK_TEST(many_files_together_are_limited_and_never_silenced),
		CHECK_TEST(a_file_not_heard_of_for_longest_is_forgotten),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
