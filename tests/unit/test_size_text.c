/* SPDX-License-Identifier: MIT */
/* Numbers of bytes with units: rounded, each in the unit that leaves one to three digits before the point. */
#include "fs/base/size_text.h"

#include "codec/arith.h"
#include "tests/unit/check.h"

static void sizes_have_decimal_and_memory_has_binary_units(void)
{
	static const struct {
		double bytes;
		const char *size, *memory;
	} cases[] = {
		{ 0, "0 B", "0 B" },
		{ 999, "999 B", "999 B" },
		{ 1000, "1.0 kB", "1.0 KiB" },
		{ 1024, "1.0 kB", "1.0 KiB" },
		{ 12345, "12.3 kB", "12.1 KiB" },
		{ 99940, "99.9 kB", "97.6 KiB" },
		{ 99960, "100 kB", "97.6 KiB" },
		{ 999499, "999 kB", "976 KiB" },
		{ 999500, "1.0 MB", "976 KiB" },
		{ 1023.0 * 1024, "1.0 MB", "1.0 MiB" },
		{ 64.0 * 1024 * 1024, "67.1 MB", "64.0 MiB" },
		{ 8.0 * 1024 * 1024 * 1024, "8.6 GB", "8.0 GiB" },
		{ 27.1e9, "27.1 GB", "25.2 GiB" },
		{ 1.5e12, "1.5 TB", "1.4 TiB" },
		{ 18446744073709551615.0, "18.4 EB", "16.0 EiB" },
		{ 1e24, "1000000 EB", "867362 EiB" },
	};
	char text[WCX_SIZE_TEXT_BYTES];

	for (size_t i = 0; i < WCX_ARRAY_COUNT(cases); i++) {
		CHECK_TEXT(wcx_size_text(cases[i].bytes, text), cases[i].size);
		CHECK_TEXT(wcx_memory_text(cases[i].bytes, text), cases[i].memory);
	}
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(sizes_have_decimal_and_memory_has_binary_units),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
