/* SPDX-License-Identifier: MIT */
/* The escaping of Prometheus' labels, and what a daemon may tell of a mount. */
#include "codec/arith.h"
#include "tests/unit/check.h"
#include "tools/status_report.h"

static char label[64];

static const char *escape(const char *value, size_t dst_bytes)
{
	memset(label, 'x', sizeof label);
	CHECK(wcx_label_escape(value, label, dst_bytes) == strlen(label));
	return label;
}

static void backslashes_quotes_and_line_feeds_are_escaped(void)
{
	CHECK_TEXT(escape("", sizeof label), "");
	CHECK_TEXT(escape("/mnt/models", sizeof label), "/mnt/models");
	CHECK_TEXT(escape("a\\b\"c\nd", sizeof label), "a\\\\b\\\"c\\nd");
	CHECK_TEXT(escape("\t{}=,\xC3\xA4", sizeof label), "\t{}=,\xC3\xA4");
}

static void a_long_value_is_cut_between_characters(void)
{
	CHECK_TEXT(escape("abcdef", 4), "abc");
	CHECK_TEXT(escape("ab\"c", 4), "ab"); /* not in the middle of an escape */
	CHECK_TEXT(escape("a\xE2\x82\xAC", 5), "a\xE2\x82\xAC");
	CHECK_TEXT(escape("a\xE2\x82\xAC", 4), "a");
	CHECK_TEXT(escape("a\xE2\x82\xAC", 3), "a");
	CHECK_TEXT(escape("\xE2\x82\xAC", 1), "");
}

static void a_daemon_cannot_tell_where_it_is_mounted(void)
{
	json_t *told = json_pack("{s:s, s:s, s:b, s:i}", "mountpoint", "/other", "store", "/s", "up", 0, "pid", 7);
	json_t *object = wcx_status_object(told, "/mnt", "/store");

	CHECK_TEXT(json_string_value(json_object_get(object, "mountpoint")), "/mnt");
	CHECK_TEXT(json_string_value(json_object_get(object, "store")), "/store");
	CHECK(json_is_true(json_object_get(object, "up")));
	CHECK(json_integer_value(json_object_get(object, "pid")) == 7);
	json_decref(object);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(backslashes_quotes_and_line_feeds_are_escaped),
		CHECK_TEST(a_long_value_is_cut_between_characters),
		CHECK_TEST(a_daemon_cannot_tell_where_it_is_mounted),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
