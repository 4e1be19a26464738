/* SPDX-License-Identifier: MIT */
/* One number means one file: by device, inode number and whether it is shown unpacked. */
#include <stdlib.h>
#include <sys/types.h>

#include "codec/arith.h"
#include "fs/mount/inode_numbers.h"
#include "tests/unit/check.h"

static const dev_t devices[] = { 0x801, 0x802, 0x10000801, ~(dev_t)0 };
static const ino_t inodes[] = { 0,
				1,
				2,
				3,
				(UINT64_C(1) << 32) + 1,
				(UINT64_C(1) << 48) - 1,
				UINT64_C(1) << 48,
				(UINT64_C(1) << 48) + 1,
				(UINT64_C(1) << 49) + 2,
				UINT64_C(1) << 63,
				(UINT64_C(1) << 63) + 1,
				UINT64_MAX };

enum { COUNT = WCX_ARRAY_COUNT(devices) * WCX_ARRAY_COUNT(inodes) * 2 };

static void fill(struct wcx_inode_numbers *numbers, uint64_t ret[COUNT])
{
	size_t at = 0;

	for (size_t d = 0; d < WCX_ARRAY_COUNT(devices); d++)
		for (size_t i = 0; i < WCX_ARRAY_COUNT(inodes); i++)
			for (int packed = 0; packed < 2; packed++)
				ret[at++] = wcx_inode_number(numbers, devices[d], inodes[i], packed);
}

static int compare(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void different_files_have_different_numbers(void)
{
	struct wcx_inode_numbers *numbers = wcx_inode_numbers_create();
	uint64_t found[COUNT];

	fill(numbers, found);
	qsort(found, COUNT, sizeof found[0], compare);
	CHECK(found[0] != 0); /* no file has it */
	for (size_t i = 1; i < COUNT; i++)
		CHECK(found[i] != found[i - 1]);
	wcx_inode_numbers_free(numbers);
}

static void a_file_keeps_its_number(void)
{
	struct wcx_inode_numbers *numbers = wcx_inode_numbers_create();
	uint64_t first[COUNT], again[COUNT];

	fill(numbers, first);
	fill(numbers, again);
	for (size_t i = 0; i < COUNT; i++)
		CHECK(first[i] == again[i]);
	wcx_inode_numbers_free(numbers);
}

/* There may be more file systems below a store than devices that fit. */
static void twenty_thousand_devices_have_different_numbers(void)
{
	enum { DEVICES = 20000 };
	struct wcx_inode_numbers *numbers = wcx_inode_numbers_create();
	uint64_t *found = malloc(DEVICES * sizeof *found);

	for (size_t i = 0; i < DEVICES; i++)
		found[i] = wcx_inode_number(numbers, i, 7, true);
	CHECK(wcx_inode_number(numbers, DEVICES - 1, 7, true) == found[DEVICES - 1]);
	qsort(found, DEVICES, sizeof found[0], compare);
	for (size_t i = 1; i < DEVICES; i++)
		CHECK(found[i] != found[i - 1]);
	free(found);
	wcx_inode_numbers_free(numbers);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(different_files_have_different_numbers),
		CHECK_TEST(a_file_keeps_its_number),
		CHECK_TEST(twenty_thousand_devices_have_different_numbers),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
