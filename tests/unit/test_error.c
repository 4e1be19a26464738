/* SPDX-License-Identifier: MIT */
/* Error messages with untrusted names, truncated messages, and the errno of each result. */
#include <errno.h>
#include <string.h>

#include "fs/base/error.h"
#include "tests/unit/check.h"

static void message_is_formatted_and_errno_negated(void)
{
	struct wcx_error err;

	CHECK(wcx_fail(&err, EBADMSG, "%s: tile %d", "x.wcx", 7) == -EBADMSG);
	CHECK_TEXT(err.text, "x.wcx: tile 7");
	CHECK(wcx_fail(NULL, ENOMEM, "%s", "nobody reads this") == -ENOMEM);
}

static void controls_and_malformed_bytes_become_question_marks(void)
{
	static const struct {
		const char *name, *shown;
	} cases[] = {
		{ "a\nb\tc\x1B[2J\x7F", "a?b?c?[2J?" },
		{ "\xC2\x9B"
		  "31m",
		  "??31m" }, /* U+009B, which some terminals read as ESC [ */
		{ "\xC2\xA0\xC3\xA9\xE5\x90\x8D\xF0\x9F\x98\x80", "\xC2\xA0\xC3\xA9\xE5\x90\x8D\xF0\x9F\x98\x80" },
		{ "\xFF\x80"
		  "a",
		  "??a" },
		{ "\xC3", "?" },
		{ "\xE5\x90"
		  "a",
		  "??a" },
		{ "\xC0\x80\xED\xA0\x80\xF4\x90\x80\x80", "?????????" }, /* overlong, a surrogate, above U+10FFFF */
	};
	struct wcx_error err;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		wcx_fail(&err, EINVAL, "%s", cases[i].name);
		CHECK_TEXT(err.text, cases[i].shown);
	}
}

/* shift moves the text, and so both cuts, through all bytes of a character of unit_bytes bytes. */
static void check_long_text(const char *unit, size_t shift)
{
	char name[2 * WCX_ERROR_TEXT_BYTES] = "";
	size_t unit_bytes = strlen(unit), bytes, begin, end;
	const char *dots;
	struct wcx_error err;

	memset(name, 'x', shift);
	for (size_t at = shift; at + unit_bytes < sizeof(name); at += unit_bytes)
		memcpy(name + at, unit, unit_bytes);
	wcx_fail(&err, EINVAL, "%s: the reason", name);
	bytes = strlen(err.text);
	CHECK(bytes + unit_bytes >= WCX_ERROR_TEXT_BYTES && bytes < WCX_ERROR_TEXT_BYTES);
	dots = strstr(err.text, "...");
	if (!CHECK(dots))
		return;
	begin = (size_t)(dots - err.text);
	CHECK(begin > 100 && (begin - shift) % unit_bytes == 0 && memcmp(err.text, name, begin) == 0);
	end = bytes - begin - strlen("...") - strlen(": the reason");
	CHECK(end > 300 && end % unit_bytes == 0 && memcmp(dots + 3, name + strlen(name) - end, end) == 0);
	CHECK_TEXT(err.text + bytes - strlen(": the reason"), ": the reason");
}

static void long_text_lacks_whole_characters_in_its_middle(void)
{
	for (size_t shift = 0; shift < 4; shift++) {
		check_long_text("y", shift);
		check_long_text("\xC3\xA9", shift);
		check_long_text("\xE5\x90\x8D", shift);
		check_long_text("\xF0\x9F\x98\x80", shift);
	}
}

static void text_that_just_fits_is_whole(void)
{
	char name[WCX_ERROR_TEXT_BYTES];
	struct wcx_error err;

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	wcx_fail(&err, EINVAL, "%s", name);
	CHECK_TEXT(err.text, name);
}

static void results_have_their_errno(void)
{
	CHECK(wcx_result_errno(WCX_OK) == 0);
	CHECK(wcx_result_errno(WCX_BAD_DATA) == -EBADMSG);
	CHECK(wcx_result_errno(WCX_WRONG_SIZE) == -EINVAL);
	CHECK(wcx_result_errno(WCX_NO_MEMORY) == -ENOMEM);
	CHECK(wcx_result_errno(WCX_NO_DEVICE) == -ENODEV);
	CHECK(wcx_result_errno(WCX_DEVICE_FAILED) == -EIO);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(message_is_formatted_and_errno_negated),
		CHECK_TEST(controls_and_malformed_bytes_become_question_marks),
		CHECK_TEST(long_text_lacks_whole_characters_in_its_middle),
		CHECK_TEST(text_that_just_fits_is_whole),
		CHECK_TEST(results_have_their_errno),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
