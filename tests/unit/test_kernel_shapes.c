/* SPDX-License-Identifier: MIT */
/* Thread blocks of all kernels on devices with little shared memory.  Needs the code of the kernels, but no device. */
#include "cuda/tile_kernel.h"

#include "tests/unit/check.h"

enum { KIB = 1 << 10, LEAST_WARPS = 4 };

/* By compute capability: the most shared memory of a block, of which a KiB is the system's. */
static void blocks_fit_every_device(void)
{
	static const struct {
		uint32_t kib, carrier_tables;
	} devices[] = {
		{ 227, WCX_CARRIER_TABLES_MAX }, /* 9.0, 10.0 */
		{ 163, WCX_CARRIER_TABLES_MAX }, /* 8.0, 8.7 */
		{ 99, 5 },                       /* 8.6, 8.9, 12.0 */
	};

	for (size_t i = 0; i < WCX_ARRAY_COUNT(devices); i++) {
		struct wcx_kernels kernels;

		CHECK(wcx_kernels_fit(devices[i].kib * KIB, &kernels) &&
		      kernels.carrier_tables == devices[i].carrier_tables &&
		      wcx_kernels_least_warps(&kernels) >= LEAST_WARPS);
	}
}

static void a_device_without_space_for_any_block_is_refused(void)
{
	struct wcx_kernels kernels;

	CHECK(!wcx_kernels_fit(48 * KIB, &kernels));
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(blocks_fit_every_device),
		CHECK_TEST(a_device_without_space_for_any_block_is_refused),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
