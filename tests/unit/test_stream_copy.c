/* SPDX-License-Identifier: MIT */
/* Copies past the caches: all lengths around a line, at all alignments. */
#include "codec/stream_copy.h"

#include "tests/unit/check.h"

static void copies_have_all_bytes_and_no_others(void)
{
	enum { MOST = 300, AROUND = 16 };
	_Alignas(64) uint8_t src[AROUND + MOST], dst[AROUND + MOST + AROUND];
	size_t wrong = 0;

	for (size_t i = 0; i < sizeof src; i++)
		src[i] = (uint8_t)(i * 7 + 1);
	for (size_t from = 0; from <= AROUND; from++) {
		for (size_t to = 0; to <= AROUND; to++) {
			for (size_t bytes = 0; bytes <= MOST - AROUND; bytes++) {
				memset(dst, 0, sizeof dst);
				wcx_stream_copy(dst + to, src + from, bytes);
				wrong += memcmp(dst + to, src + from, bytes) != 0;
				for (size_t i = 0; i < sizeof dst; i++)
					wrong += (i < to || i >= to + bytes) && dst[i];
			}
		}
	}
	CHECK(wrong == 0);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(copies_have_all_bytes_and_no_others),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
