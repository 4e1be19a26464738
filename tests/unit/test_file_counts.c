/* SPDX-License-Identifier: MIT */
/* Counters of files. */
#include "codec/arith.h"
#include "fs/mount/file_counts.h"
#include "tests/unit/check.h"

enum { MANY_FILES = 20000 };

static struct wcx_file_id id_of(unsigned number)
{
	return (struct wcx_file_id){ .dev = 1, .ino = number, .version = 7 };
}

static void a_file_is_found_by_all_of_its_identity(void)
{
	struct wcx_file_counts *counts = wcx_file_counts_create();
	struct wcx_file_id id = id_of(5), other = id_of(5);

	other.version++;
	CHECK(!wcx_file_counts_find(counts, &id));
	wcx_count(&wcx_file_counts_get(counts, &id)->requests, 3);
	wcx_count(&wcx_file_counts_get(counts, &id)->requests, 4);
	CHECK(wcx_count_get(&wcx_file_counts_find(counts, &id)->requests) == 7);
	CHECK(!wcx_file_counts_find(counts, &other));
	wcx_file_counts_free(counts);
	wcx_file_counts_free(NULL);
}

static void files_beyond_the_limit_count_together(void)
{
	struct wcx_file_counts *counts = wcx_file_counts_create();
	struct wcx_image_counts *last = NULL, *before = NULL;
	unsigned found = 0;

	for (unsigned i = 0; i < MANY_FILES; i++) {
		const struct wcx_file_id id = id_of(i);

		before = last;
		last = wcx_file_counts_get(counts, &id);
	}
	CHECK(last && last == before);
	for (unsigned i = 0; i < MANY_FILES; i++) {
		const struct wcx_file_id id = id_of(i);

		found += wcx_file_counts_find(counts, &id) != NULL;
	}
	CHECK(found == 16384);
	wcx_file_counts_free(counts);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_file_is_found_by_all_of_its_identity),
		CHECK_TEST(files_beyond_the_limit_count_together),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
