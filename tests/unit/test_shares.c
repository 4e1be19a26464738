/* SPDX-License-Identifier: MIT */
/* Which request is served next, by user and by file. */
#include "fs/mount/shares.h"
#include "tests/unit/check.h"

enum { THREADS = 16, USER_MAX = 12, FILE_MAX = 8, ALL_MAX = 15, ALICE = 1000, BOB, CAROL };

static struct wcx_shares shares;
static struct wcx_ticket tickets[256];
static size_t ticket_count;

static void set_up(void)
{
	wcx_shares_init(&shares, THREADS);
	ticket_count = 0;
}

static struct wcx_ticket *last(void)
{
	return &tickets[ticket_count - 1];
}

static enum wcx_share arrive(uid_t user, uint64_t file)
{
	struct wcx_ticket *ticket = &tickets[ticket_count++];

	*ticket = (struct wcx_ticket){ .user = user, .file = file };
	return wcx_shares_arrive(&shares, ticket);
}

/* How many of a number of requests are served at once. */
static unsigned served(uid_t user, uint64_t file, unsigned count)
{
	unsigned at_once = 0;

	for (unsigned i = 0; i < count; i++)
		at_once += arrive(user, file) == WCX_SHARE_SERVE;
	return at_once;
}

static void a_file_gets_half_of_the_threads_and_a_user_three_quarters(void)
{
	set_up();
	CHECK(served(ALICE, 1, 100) == FILE_MAX);
	CHECK(served(ALICE, 2, 100) == USER_MAX - FILE_MAX);
	set_up();
	CHECK(served(ALICE, 0, 100) == USER_MAX); /* of no file */
	set_up();
	CHECK(served(ALICE, 1, 4) == 4 && served(BOB, 1, 100) == FILE_MAX - 4);
}

static void one_thread_always_receives(void)
{
	set_up();
	CHECK(served(ALICE, 0, 100) + served(BOB, 0, 100) == ALL_MAX);
	CHECK(shares.count == THREADS - 1);
}

static void another_user_is_served_at_once_beside_one_with_many_requests(void)
{
	set_up();
	served(ALICE, 1, 100);
	served(ALICE, 2, 100);
	CHECK(arrive(BOB, 3) == WCX_SHARE_SERVE);
}

static void a_user_without_a_request_under_way_is_next(void)
{
	struct wcx_ticket *carols;

	set_up();
	served(ALICE, 0, 50);
	served(BOB, 0, 50);
	CHECK(arrive(CAROL, 0) == WCX_SHARE_WAIT);
	carols = last();
	CHECK(wcx_shares_leave(&shares, &tickets[0]) == carols);
}

static void requests_of_a_user_for_a_file_are_served_in_order_of_arrival(void)
{
	set_up();
	served(ALICE, 1, FILE_MAX + 3);
	for (int i = 0; i < 3; i++)
		CHECK(wcx_shares_leave(&shares, &tickets[i]) == &tickets[FILE_MAX + i]);
	CHECK(!wcx_shares_leave(&shares, &tickets[FILE_MAX]));
}

static void files_of_a_user_take_turns(void)
{
	unsigned of_file[3] = { 0 };
	struct wcx_ticket *next = &tickets[0];

	set_up();
	served(ALICE, 0, USER_MAX);
	for (int i = 0; i < 10; i++)
		served(ALICE, 1, 1);
	served(ALICE, 2, 2);
	for (int i = 0; i < 4; i++) {
		next = wcx_shares_leave(&shares, &tickets[i]);
		of_file[next->file]++;
	}
	CHECK(of_file[1] == 2 && of_file[2] == 2);
}

static void requests_leave_the_queue_from_any_place(void)
{
	set_up();
	served(ALICE, 0, USER_MAX + 4);
	served(ALICE, 5, 1);
	wcx_shares_withdraw(&shares, &tickets[USER_MAX + 1]);
	wcx_shares_withdraw(&shares, &tickets[USER_MAX + 3]);
	wcx_shares_withdraw(&shares, &tickets[USER_MAX]);
	wcx_shares_withdraw(&shares, &tickets[USER_MAX + 4]);
	CHECK(wcx_shares_take_any(&shares) == &tickets[USER_MAX + 2]);
	CHECK(!wcx_shares_take_any(&shares));
}

static void a_request_for_a_file_with_a_stuck_one_is_refused(void)
{
	set_up();
	served(ALICE, 1, FILE_MAX + 2);
	CHECK(!wcx_shares_take_refused(&shares));
	tickets[3].is_stuck = true;
	CHECK(wcx_shares_take_refused(&shares) == &tickets[FILE_MAX]);
	CHECK(wcx_shares_take_refused(&shares) == &tickets[FILE_MAX + 1]);
	CHECK(!wcx_shares_take_refused(&shares));
	CHECK(arrive(BOB, 1) == WCX_SHARE_REFUSE && arrive(BOB, 2) == WCX_SHARE_SERVE);
	wcx_shares_leave(&shares, &tickets[3]);
	CHECK(arrive(BOB, 1) == WCX_SHARE_SERVE);
}

static void a_user_whose_share_is_stuck_is_refused_and_others_are_not(void)
{
	set_up();
	served(ALICE, 0, USER_MAX + 1);
	for (int i = 0; i < USER_MAX - 1; i++)
		tickets[i].is_stuck = true;
	CHECK(!wcx_shares_take_refused(&shares));
	tickets[USER_MAX - 1].is_stuck = true;
	CHECK(wcx_shares_take_refused(&shares) == &tickets[USER_MAX]);
	CHECK(arrive(ALICE, 7) == WCX_SHARE_REFUSE && arrive(BOB, 0) == WCX_SHARE_SERVE);
}

static void everyone_is_refused_when_all_threads_are_stuck(void)
{
	set_up();
	served(ALICE, 0, USER_MAX);
	served(BOB, 0, ALL_MAX - USER_MAX);
	for (int i = 0; i < ALL_MAX; i++)
		tickets[i].is_stuck = true;
	CHECK(arrive(CAROL, 0) == WCX_SHARE_REFUSE);
	wcx_shares_leave(&shares, &tickets[2]);
	CHECK(arrive(CAROL, 0) == WCX_SHARE_SERVE);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(a_file_gets_half_of_the_threads_and_a_user_three_quarters),
		CHECK_TEST(one_thread_always_receives),
		CHECK_TEST(another_user_is_served_at_once_beside_one_with_many_requests),
		CHECK_TEST(a_user_without_a_request_under_way_is_next),
		CHECK_TEST(requests_of_a_user_for_a_file_are_served_in_order_of_arrival),
		CHECK_TEST(files_of_a_user_take_turns),
		CHECK_TEST(requests_leave_the_queue_from_any_place),
		CHECK_TEST(a_request_for_a_file_with_a_stuck_one_is_refused),
		CHECK_TEST(a_user_whose_share_is_stuck_is_refused_and_others_are_not),
		CHECK_TEST(everyone_is_refused_when_all_threads_are_stuck),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
