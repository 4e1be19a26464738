/* SPDX-License-Identifier: MIT */
/* What files are that are not safetensors files, by their first bytes; tests/system/cli.bats has the common kinds. */
#include "fs/format/file_kind.h"

#include "tests/unit/check.h"

static const char *kind(const char *text, size_t bytes)
{
	const char *told = wcx_file_kind((const uint8_t *)text, bytes);

	return told ? told : "";
}

#define KIND(text) kind(text, sizeof text - 1)

static void text_may_end_within_a_character(void)
{
	char text[WCX_FILE_KIND_BYTES];

	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = '\xC3'; /* the first byte of two */
	CHECK_TEXT(kind(text, sizeof text), "looks like text");
	CHECK_TEXT(KIND("\xC3"), "");
}

static void json_may_start_with_white_space(void)
{
	CHECK_TEXT(KIND("\r\n\t [1, 2]"), "looks like JSON");
	CHECK_TEXT(KIND("  "), "looks like text");
}

static void bytes_that_are_no_text_are_unknown(void)
{
	CHECK_TEXT(KIND(""), "");
	CHECK_TEXT(KIND("\0"), "");
	CHECK_TEXT(KIND("abc\0def"), "");
	CHECK_TEXT(KIND("abc\x1B[2J"), "");
	CHECK_TEXT(KIND("abc\xFF"), "");
}

static void a_cut_zip_header_is_read_no_further_than_it_goes(void)
{
	static const char zip[] = "PK\3\4\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xFF\xFF\0\0data.pkl";

	CHECK_TEXT(KIND(zip), "looks like a PyTorch zip");
	CHECK_TEXT(kind(zip, 30), "looks like a zip archive");
	CHECK_TEXT(kind(zip, 29), "");
	CHECK_TEXT(kind(zip, 3), "");
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(text_may_end_within_a_character),
		CHECK_TEST(json_may_start_with_white_space),
		CHECK_TEST(bytes_that_are_no_text_are_unknown),
		CHECK_TEST(a_cut_zip_header_is_read_no_further_than_it_goes),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
