/* SPDX-License-Identifier: MIT */
/* The parallel loop: every item once, the ordered section in order, and the ways in which a loop ends early. */
#include "fs/base/parallel.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/check.h"

enum { ITEMS_MAX = 1000, THREADS_MAX = 16 };

static const unsigned thread_counts[] = { 1, 2, 5, THREADS_MAX };
enum { THREAD_COUNTS = sizeof thread_counts / sizeof thread_counts[0] };

struct record {
	unsigned thread_count;
	atomic_uint runs[ITEMS_MAX];
	atomic_uint busy[THREADS_MAX]; /* running items with this worker number */
	atomic_uint mistakes;
	unsigned order[ITEMS_MAX], entered; /* belong to the item that has entered */
	atomic_bool stop;
};

static int run_item(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct record *record = user;
	int r;

	(void)err;
	if (worker >= record->thread_count || atomic_fetch_add(&record->busy[worker], 1) != 0)
		atomic_fetch_add(&record->mistakes, 1);
	atomic_fetch_add(&record->runs[item], 1);
	r = wcx_parallel_enter(loop, item);
	if (r == 0) {
		record->order[record->entered++] = (unsigned)item;
		wcx_parallel_leave(loop);
	}
	atomic_fetch_sub(&record->busy[worker], 1);
	return r;
}

static void check_loop(unsigned thread_count, unsigned item_count)
{
	struct record record = { .thread_count = thread_count };
	struct wcx_error err = { "untouched" };

	CHECK(wcx_parallel_for(thread_count, item_count, run_item, &record, NULL, &err) == 0);
	CHECK_TEXT(err.text, "untouched");
	CHECK(record.mistakes == 0 && record.entered == item_count);
	for (unsigned i = 0; i < item_count; i++)
		CHECK(record.runs[i] == 1 && record.order[i] == i);
}

static void every_item_runs_once_and_enters_in_order(void)
{
	for (size_t t = 0; t < THREAD_COUNTS; t++) {
		check_loop(thread_counts[t], 0);
		check_loop(thread_counts[t], 1);
		check_loop(thread_counts[t], 7);
		check_loop(thread_counts[t], ITEMS_MAX);
	}
}

/* Item 5 fails after the items before it have left; no item after it may enter. */
static int fail_at_five(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct record *record = user;
	int r = wcx_parallel_enter(loop, item);

	(void)worker;
	if (r < 0)
		return r;
	record->order[record->entered++] = (unsigned)item;
	if (item == 5)
		return wcx_fail(err, ENOSPC, "item %d", 5);
	wcx_parallel_leave(loop);
	return 0;
}

static void error_ends_the_loop_for_items_that_wait_to_enter(void)
{
	for (size_t t = 0; t < THREAD_COUNTS; t++) {
		struct record record = { 0 };
		struct wcx_error err;

		CHECK(wcx_parallel_for(thread_counts[t], ITEMS_MAX, fail_at_five, &record, NULL, &err) == -ENOSPC);
		CHECK_TEXT(err.text, "item 5");
		CHECK(record.entered == 6 && record.order[5] == 5);
		record.entered = 0;
		CHECK(wcx_parallel_for(thread_counts[t], ITEMS_MAX, fail_at_five, &record, NULL, NULL) == -ENOSPC);
	}
}

/* Item 0 fails once item 1 is running; item 1, which learns of it only in wcx_parallel_enter, then fails too. */
static int fail_one_after_the_other(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item,
				    struct wcx_error *err)
{
	struct record *record = user;

	(void)worker;
	if (item == 0) {
		while (record->thread_count > 1 && !atomic_load(&record->runs[1]))
			;
		return wcx_fail(err, EIO, "first");
	}
	atomic_fetch_add(&record->runs[item], 1);
	CHECK(wcx_parallel_enter(loop, item) == -ECANCELED);
	return wcx_fail(err, ENOSPC, "second");
}

static void first_error_wins(void)
{
	for (size_t t = 0; t < THREAD_COUNTS; t++) {
		struct record record = { .thread_count = thread_counts[t] };
		struct wcx_error err;

		CHECK(wcx_parallel_for(thread_counts[t], 100, fail_one_after_the_other, &record, NULL, &err) == -EIO);
		CHECK_TEXT(err.text, "first");
		CHECK(record.runs[99] == 0);
	}
}

static int stop_at_ten(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct record *record = user;

	if (item == 10)
		record->stop = 1;
	return run_item(user, loop, worker, item, err);
}

static void stop_flag_ends_the_loop(void)
{
	for (size_t t = 0; t < THREAD_COUNTS; t++) {
		struct record record = { .thread_count = thread_counts[t] };
		struct wcx_error err;

		CHECK(wcx_parallel_for(thread_counts[t], ITEMS_MAX, stop_at_ten, &record, &record.stop, &err) == -EINTR);
		CHECK_TEXT(err.text, "interrupted");
		CHECK(record.runs[10] == 1 && record.runs[ITEMS_MAX - 1] == 0);
		if (thread_counts[t] == 1)
			CHECK(record.entered == 11 && record.runs[11] == 0);
	}
}

static void no_item_runs_when_the_stop_flag_is_set_before(void)
{
	struct record record = { .thread_count = 2, .stop = 1 };
	struct wcx_error err;

	CHECK(wcx_parallel_for(2, ITEMS_MAX, run_item, &record, &record.stop, &err) == -EINTR);
	CHECK(record.entered == 0);
	for (unsigned i = 0; i < ITEMS_MAX; i++)
		CHECK(record.runs[i] == 0);
}

struct sharing {
	struct wcx_core_share share;
	atomic_uint running, most;
	atomic_uint_least32_t workers; /* a bit each */
};

/* Halfway through, the other pieces of work end. */
static int run_shared(void *user, struct wcx_parallel *loop, unsigned worker, uint64_t item, struct wcx_error *err)
{
	struct sharing *sharing = user;
	const unsigned running = atomic_fetch_add(&sharing->running, 1) + 1;

	(void)err;
	if (running > sharing->most)
		sharing->most = running;
	atomic_fetch_or(&sharing->workers, UINT32_C(1) << worker);
	if (item < ITEMS_MAX / 2)
		CHECK(worker < 2);
	if (item == ITEMS_MAX / 2)
		sharing->share.workers = 1;
	(void)loop;
	atomic_fetch_sub(&sharing->running, 1);
	return 0;
}

static void a_loop_has_its_part_of_the_cores_until_the_others_end(void)
{
	struct sharing sharing = { .share = { .cores = 8, .workers = 4 } };
	struct wcx_error err;

	CHECK(wcx_core_share_threads(NULL, 5) == 5);
	CHECK(wcx_core_share_threads(&sharing.share, 5) == 2 && wcx_core_share_threads(&sharing.share, 1) == 1);
	sharing.share.workers = 3; /* 8 / 3, rounded up: all cores are busy */
	CHECK(wcx_core_share_threads(&sharing.share, 8) == 3);
	sharing.share.workers = 4;
	CHECK(wcx_parallel_for_shared(&sharing.share, 8, ITEMS_MAX, run_shared, &sharing, NULL, &err) == 0);
	CHECK(sharing.most <= 8);
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(every_item_runs_once_and_enters_in_order),
		CHECK_TEST(error_ends_the_loop_for_items_that_wait_to_enter),
		CHECK_TEST(first_error_wins),
		CHECK_TEST(stop_flag_ends_the_loop),
		CHECK_TEST(no_item_runs_when_the_stop_flag_is_set_before),
		CHECK_TEST(a_loop_has_its_part_of_the_cores_until_the_others_end),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
