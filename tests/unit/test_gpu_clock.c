/* SPDX-License-Identifier: MIT */
/* When a device reached an event, by the host's clock, from waits of which each may end late. */
#include "cuda/gpu_clock.h"

#include "tests/fixtures/sample_data.h"
#include "tests/unit/check.h"

enum { US = 1000, MS = 1000 * US, BASE_US = 90, EVENTS = 2000 };
static const int64_t start_ns = (int64_t)5000 * MS;

static void an_event_is_not_later_because_its_waiter_is(void)
{
	struct wcx_gpu_clock clock = { start_ns + BASE_US * US, start_ns + BASE_US * US }; /* waited for 90 us late */
	int64_t reached_ns;

	CHECK(wcx_gpu_clock_reached(&clock, 10 * MS, start_ns + 10 * MS + 20 * US) == start_ns + 10 * MS + 20 * US);
	reached_ns = wcx_gpu_clock_reached(&clock, 20 * MS, start_ns + 26 * MS);
	CHECK(reached_ns >= start_ns + 20 * MS && reached_ns < start_ns + 20 * MS + 30 * US);
}

/* Waits that end up to 8 ms late, one in ten at once: the error stays below what the shortest of some delays, and drift,
 * cause. */
static void drift_is_followed_in_both_directions(void)
{
	for (int64_t ppm = -80; ppm <= 80; ppm += 40) {
		struct wcx_gpu_clock clock = { start_ns, start_ns };
		struct sample_random random = { 7 };
		int64_t worst_ns = 0;

		for (int64_t i = 1; i <= EVENTS; i++) {
			const int64_t at_ns = start_ns + i * MS, since_base_ns = i * MS + i * MS / 1000000 * ppm;
			const int64_t late_ns = (int64_t)(i % 10 ? sample_below(&random, 8 * MS) : 10 * US);
			const int64_t error_ns = wcx_gpu_clock_reached(&clock, since_base_ns, at_ns + late_ns) - at_ns;

			CHECK(error_ns >= 0);
			worst_ns = error_ns > worst_ns ? error_ns : worst_ns;
		}
		CHECK(worst_ns < 15 * US);
	}
}

static void the_first_event_after_a_long_pause_may_be_as_late_as_its_waiter(void)
{
	struct wcx_gpu_clock clock = { start_ns, start_ns };
	const int64_t hour_ns = (int64_t)3600000 * MS;
	const int64_t reached_ns = wcx_gpu_clock_reached(&clock, hour_ns, start_ns + hour_ns + 40 * US);

	CHECK(reached_ns == start_ns + hour_ns + 40 * US);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(an_event_is_not_later_because_its_waiter_is),
		CHECK_TEST(drift_is_followed_in_both_directions),
		CHECK_TEST(the_first_event_after_a_long_pause_may_be_as_late_as_its_waiter),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
