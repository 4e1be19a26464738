/* SPDX-License-Identifier: MIT */
/* Serving requests by many threads, and answering those that take too long in place of their threads. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/mount/requests.h"
#include "tests/unit/check.h"

enum { THREADS = 8, USER_MAX = 6, REQUESTS_MAX = 64, WAIT_S = 30, NOT_ANSWERED = 1 };

/* lock protects all but the first two members. */
struct fake {
	struct wcx_request request;
	bool is_quick;
	int answer;
	bool is_retained, is_freed;
	unsigned served_as; /* 1 for the first that was served; 0: not served */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct fake fakes[REQUESTS_MAX];
static pthread_t threads[REQUESTS_MAX];
static size_t fake_count;
static unsigned served_count, busy_count, busy_peak;
static bool may_go_on, has_session_ended, may_give_up, has_given_up; /* slow requests end */
static struct wcx_requests *requests;

static struct fake *fake_of(struct wcx_request *request)
{
	return (struct fake *)request;
}

/* Waits, with the lock, until a condition holds; fails the test after WAIT_S. */
#define WAIT_FOR(condition)                                                                                                 \
	do {                                                                                                                \
		struct timespec until;                                                                                      \
		clock_gettime(CLOCK_REALTIME, &until);                                                                      \
		until.tv_sec += WAIT_S;                                                                                     \
		pthread_mutex_lock(&lock);                                                                                  \
		while (!(condition) && pthread_cond_timedwait(&changed, &lock, &until) == 0)                                \
			;                                                                                                   \
		CHECK(condition);                                                                                           \
		pthread_mutex_unlock(&lock);                                                                                \
	} while (0)

static void answer(struct fake *fake, int r)
{
	pthread_mutex_lock(&lock);
	CHECK(fake->answer == NOT_ANSWERED);
	fake->answer = r;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void serve(void *user, struct wcx_request *request)
{
	struct fake *fake = fake_of(request);

	(void)user;
	pthread_mutex_lock(&lock);
	fake->served_as = ++served_count;
	busy_count++;
	busy_peak = WCX_MAX(busy_peak, busy_count);
	pthread_cond_broadcast(&changed);
	while (!fake->is_quick && !may_go_on)
		pthread_cond_wait(&changed, &lock);
	busy_count--;
	pthread_mutex_unlock(&lock);
	if (wcx_request_claim(requests, request))
		answer(fake, 0);
}

static void fail(void *user, struct wcx_request *request, int r)
{
	(void)user;
	answer(fake_of(request), r);
}

static void retain(void *user, struct wcx_request *request)
{
	(void)user;
	pthread_mutex_lock(&lock);
	fake_of(request)->is_retained = true;
	pthread_mutex_unlock(&lock);
}

static void free_fake(void *user, struct wcx_request *request)
{
	(void)user;
	pthread_mutex_lock(&lock);
	CHECK(!fake_of(request)->is_freed && fake_of(request)->answer != NOT_ANSWERED);
	fake_of(request)->is_freed = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static bool has_ended(void *user)
{
	bool has;

	(void)user;
	pthread_mutex_lock(&lock);
	has = has_session_ended;
	pthread_mutex_unlock(&lock);
	return has;
}

static void give_up(void *user)
{
	(void)user;
	pthread_mutex_lock(&lock);
	CHECK(may_give_up);
	has_given_up = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void set_up(unsigned timeout_ms)
{
	static const struct wcx_request_calls calls = { serve, fail, retain, free_fake, has_ended, give_up };
	const struct wcx_request_options options = { THREADS, timeout_ms, &calls, NULL };

	memset(fakes, 0, sizeof fakes);
	fake_count = 0;
	served_count = busy_count = busy_peak = 0;
	may_go_on = has_session_ended = may_give_up = has_given_up = false;
	requests = wcx_requests_create(&options);
}

static void *submit(void *fake)
{
	wcx_request_submit(requests, fake);
	return NULL;
}

/* Submits a request on a thread of its own, like one that has received it. */
static struct fake *start(uid_t user, uint64_t file, bool is_quick, pid_t task)
{
	struct fake *fake = &fakes[fake_count];

	fake->request.ticket.user = user;
	fake->request.ticket.file = file;
	fake->request.task = task;
	fake->is_quick = is_quick;
	fake->answer = NOT_ANSWERED;
	pthread_create(&threads[fake_count++], NULL, submit, fake);
	return fake;
}

static void set(bool *flag)
{
	pthread_mutex_lock(&lock);
	*flag = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void tear_down(void)
{
	set(&may_go_on);
	for (size_t i = 0; i < fake_count; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < fake_count; i++)
		WAIT_FOR(fakes[i].is_freed);
	wcx_requests_free(requests);
}

static void slow_requests_of_one_user_leave_threads_to_another(void)
{
	struct fake *other;

	set_up(0);
	for (int i = 0; i < 20; i++)
		start(1, 0, false, 0);
	WAIT_FOR(busy_count == USER_MAX);
	other = start(2, 0, true, 0);
	WAIT_FOR(other->is_freed && other->answer == 0); /* while all of the others are still being served */
	WAIT_FOR(busy_count == USER_MAX);
	tear_down();
	CHECK(busy_peak <= USER_MAX + 1 && served_count == 21);
}

static void the_store_that_does_not_answer_costs_eio_and_recovers(void)
{
	struct fake *slow, *same_file, *later;

	set_up(300);
	slow = start(1, 7, false, 0);
	WAIT_FOR(slow->answer == -EIO);
	WAIT_FOR(slow->is_retained && !slow->is_freed);
	same_file = start(2, 7, true, 0);
	WAIT_FOR(same_file->answer == -EIO && !same_file->served_as);
	set(&may_go_on);
	WAIT_FOR(slow->is_freed);
	later = start(1, 7, true, 0);
	WAIT_FOR(later->is_freed && later->answer == 0);
	tear_down();
}

/* Some of them while their readers are looked at, and some before: they arrive one after another. */
static void what_waits_for_stuck_threads_alone_fails(void)
{
	const struct timespec pause = { .tv_nsec = 20 * 1000000L };

	set_up(300);
	for (int i = 0; i < 20; i++) {
		start(1, 0, false, getpid());
		nanosleep(&pause, NULL);
	}
	for (int i = 0; i < 20; i++)
		WAIT_FOR(fakes[i].answer == -EIO);
	WAIT_FOR(served_count == USER_MAX);
	tear_down();
	CHECK(served_count == USER_MAX);
}

static void a_killed_reader_is_answered_at_once_in_the_queue_and_under_way(void)
{
	const pid_t dead = fork();
	siginfo_t info;

	if (dead == 0)
		_exit(0);
	waitid(P_PID, (id_t)dead, &info, WEXITED | WNOWAIT); /* it stays: exiting, and not gone */
	set_up(0);
	for (int i = 0; i < 20; i++)
		start(1, 0, false, dead);
	for (int i = 0; i < 20; i++)
		WAIT_FOR(fakes[i].answer == -EINTR);
	WAIT_FOR(served_count == USER_MAX);
	waitpid(dead, NULL, 0);
	tear_down();
}

static void on_quit(int number)
{
	(void)number;
}

/* A child that has got SIGQUIT and cannot take it, as a thread in the kernel: it is stopped. */
static pid_t fork_quitting(void (*handler)(int))
{
	pid_t child;

	signal(SIGQUIT, handler);
	child = fork();
	if (child == 0)
		for (;;)
			pause();
	signal(SIGQUIT, SIG_DFL);
	kill(child, SIGSTOP);
	waitpid(child, NULL, WUNTRACED);
	kill(child, SIGQUIT);
	return child;
}

static void end_child(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static void readers_that_live_or_handle_a_signal_are_waited_for(void)
{
	const pid_t handles = fork_quitting(on_quit), dies = fork_quitting(SIG_DFL);
	struct fake *slow, *interrupted, *dying;

	set_up(0);
	slow = start(1, 0, false, getpid());
	interrupted = start(1, 0, false, handles);
	WAIT_FOR(busy_count == 2);
	dying = start(1, 0, false, dies);
	WAIT_FOR(dying->answer == -EINTR); /* so the watcher has looked at all */
	WAIT_FOR(slow->answer == NOT_ANSWERED && interrupted->answer == NOT_ANSWERED);
	tear_down();
	end_child(handles);
	end_child(dies);
	CHECK(slow->answer == 0 && interrupted->answer == 0);
}

static void the_end_of_the_session_empties_the_queue(void)
{
	set_up(0);
	for (int i = 0; i < 20; i++)
		start(1, 0, false, 0);
	WAIT_FOR(busy_count == USER_MAX);
	set(&has_session_ended);
	for (int i = 0; i < 20; i++)
		WAIT_FOR(fakes[i].served_as || fakes[i].answer == -ENOTCONN);
	tear_down();
	CHECK(served_count == USER_MAX);
}

static void a_session_that_is_not_taken_down_in_time_is_given_up(void)
{
	set_up(300);
	set(&may_give_up);
	wcx_requests_end(requests); /* without any request, and while has_ended denies it */
	WAIT_FOR(has_given_up);
	tear_down();
}

int main(int argc, char **argv)
{
	static const struct check_test tests[] = {
		CHECK_TEST(slow_requests_of_one_user_leave_threads_to_another),
		CHECK_TEST(the_store_that_does_not_answer_costs_eio_and_recovers),
		CHECK_TEST(what_waits_for_stuck_threads_alone_fails),
		CHECK_TEST(a_killed_reader_is_answered_at_once_in_the_queue_and_under_way),
		CHECK_TEST(readers_that_live_or_handle_a_signal_are_waited_for),
		CHECK_TEST(the_end_of_the_session_empties_the_queue),
		CHECK_TEST(a_session_that_is_not_taken_down_in_time_is_given_up),
	};

	return check_main(argc, argv, tests, WCX_ARRAY_COUNT(tests));
}
