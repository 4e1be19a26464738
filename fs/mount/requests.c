/* SPDX-License-Identifier: MIT */
/* Requests under way and in the queue, and the thread that watches them. */
#include "fs/mount/requests.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "codec/arith.h"
#include "fs/base/clock.h"
#include "fs/mount/task_state.h"

enum {
	TICK_MS = 100,
	IDLE_TICKS = 20,    /* then the watcher sleeps until there is a request */
	CHECKS_MAX = 256,   /* readers looked at in a tick: some 4 ms */
	GIVE_UP_MS = 10000, /* how long the end of the session waits for the store at most */
};

TAILQ_HEAD(request_list, wcx_request);
STAILQ_HEAD(checked_list, wcx_request);

struct wcx_requests {
	struct wcx_request_options options;
	pthread_t watcher;

	/* Protects everything below, and the private members of all requests.  Never held while serving or replying. */
	pthread_mutex_t lock;
	pthread_cond_t wake; /* signalled when the watcher sleeps and a request arrives, and to stop */
	struct wcx_shares shares;
	struct request_list all; /* the one whose reader was looked at last comes last */
	bool is_asleep, is_stopping;
	uint64_t ended_ms; /* when the end of the session was seen; 0: not yet */
};

static struct wcx_request *request_of(struct wcx_ticket *ticket)
{
	return (struct wcx_request *)ticket; /* its first member */
}

/* Drops a reference, and unlocks. */
static void put_and_unlock(struct wcx_requests *requests, struct wcx_request *request)
{
	const bool is_last = --request->refs == 0;

	if (is_last)
		TAILQ_REMOVE(&requests->all, request, all);
	pthread_mutex_unlock(&requests->lock);
	if (is_last)
		requests->options.calls->free(requests->options.user, request);
}

/* Claims a request for an answer in place of its thread, if it has one, and puts it on a list of those to be failed. */
static void claim_early_locked(struct wcx_requests *requests, struct wcx_request *request, int r,
			       struct checked_list *failed)
{
	request->is_answered = true;
	request->r = r;
	if (request->is_queued) {
		request->is_queued = false; /* the queue's reference passes to the list */
	} else {
		requests->options.calls->retain(requests->options.user, request);
		request->refs++;
	}
	STAILQ_INSERT_TAIL(failed, request, checked);
}

static void fail_all(struct wcx_requests *requests, struct checked_list *failed)
{
	struct wcx_request *request;

	while ((request = STAILQ_FIRST(failed))) {
		STAILQ_REMOVE_HEAD(failed, checked);
		requests->options.calls->fail(requests->options.user, request, request->r);
		pthread_mutex_lock(&requests->lock);
		put_and_unlock(requests, request);
	}
}

/* --- serving --- */

void wcx_request_submit(struct wcx_requests *requests, struct wcx_request *request)
{
	const struct wcx_request_calls *calls = requests->options.calls;
	struct checked_list failed = STAILQ_HEAD_INITIALIZER(failed);
	enum wcx_share share;

	request->is_answered = request->is_queued = false;
	request->refs = 1;
	request->since_ms = wcx_now_ms();
	pthread_mutex_lock(&requests->lock);
	TAILQ_INSERT_TAIL(&requests->all, request, all);
	share = wcx_shares_arrive(&requests->shares, &request->ticket);
	request->is_queued = share != WCX_SHARE_SERVE;
	if (share == WCX_SHARE_REFUSE)
		claim_early_locked(requests, request, -EIO, &failed);
	if (requests->is_asleep)
		pthread_cond_signal(&requests->wake);
	pthread_mutex_unlock(&requests->lock);
	fail_all(requests, &failed);
	if (share != WCX_SHARE_SERVE)
		return;
	while (request) {
		struct wcx_ticket *next;

		calls->serve(requests->options.user, request);
		pthread_mutex_lock(&requests->lock);
		next = wcx_shares_leave(&requests->shares, &request->ticket);
		if (next) {
			request_of(next)->is_queued = false;
			request_of(next)->since_ms = wcx_now_ms();
		}
		put_and_unlock(requests, request);
		request = next ? request_of(next) : NULL;
	}
}

bool wcx_request_claim(struct wcx_requests *requests, struct wcx_request *request)
{
	bool was_answered;

	pthread_mutex_lock(&requests->lock);
	was_answered = request->is_answered;
	request->is_answered = true;
	pthread_mutex_unlock(&requests->lock);
	return !was_answered;
}

bool wcx_request_should_stop(struct wcx_requests *requests, struct wcx_request *request)
{
	bool should_stop;

	pthread_mutex_lock(&requests->lock);
	request->since_ms = wcx_now_ms();
	should_stop = request->is_answered;
	pthread_mutex_unlock(&requests->lock);
	return should_stop;
}

/* --- the watcher --- */

/* Finds requests that must not wait longer. */
static void find_overdue_locked(struct wcx_requests *requests, struct checked_list *failed)
{
	const unsigned timeout_ms = requests->options.timeout_ms;
	const uint64_t now_ms = wcx_now_ms();
	struct wcx_request *request;

	TAILQ_FOREACH(request, &requests->all, all)
	{
		if (!timeout_ms || now_ms - request->since_ms < timeout_ms || request->is_queued)
			continue;
		request->ticket.is_stuck = true;
		if (!request->is_answered)
			claim_early_locked(requests, request, -EIO, failed);
	}
}

static void take_refused_locked(struct wcx_requests *requests, struct checked_list *failed)
{
	struct wcx_ticket *ticket;

	while ((ticket = wcx_shares_take_refused(&requests->shares)))
		claim_early_locked(requests, request_of(ticket), -EIO, failed);
	if (requests->ended_ms)
		while ((ticket = wcx_shares_take_any(&requests->shares)))
			claim_early_locked(requests, request_of(ticket), -ENOTCONN, failed);
}

/* Holds requests whose readers are to be looked at.  Comes after all that claims any: a request is on one list at a time. */
static void hold_slow_locked(struct wcx_requests *requests, struct checked_list *checked)
{
	const uint64_t now_ms = wcx_now_ms();
	struct wcx_request *request;
	unsigned checks = 0;

	TAILQ_FOREACH(request, &requests->all, all)
	{
		if (request->is_answered || now_ms - request->since_ms < TICK_MS || !request->task || checks++ >= CHECKS_MAX)
			continue;
		request->refs++;
		STAILQ_INSERT_TAIL(checked, request, checked);
	}
}

/* Looks at readers without the lock, answers those of the dead, and lets go of all. */
static void check_readers(struct wcx_requests *requests, struct checked_list *checked)
{
	struct checked_list failed = STAILQ_HEAD_INITIALIZER(failed);
	struct wcx_request *request;

	while ((request = STAILQ_FIRST(checked))) {
		const bool is_dying = wcx_task_is_dying(request->task);

		STAILQ_REMOVE_HEAD(checked, checked);
		pthread_mutex_lock(&requests->lock);
		TAILQ_REMOVE(&requests->all, request, all);
		TAILQ_INSERT_TAIL(&requests->all, request, all);
		if (is_dying && !request->is_answered) {
			if (request->is_queued)
				wcx_shares_withdraw(&requests->shares, &request->ticket);
			claim_early_locked(requests, request, -EINTR, &failed);
		}
		put_and_unlock(requests, request);
	}
	fail_all(requests, &failed);
}

/* Whether the session is still not taken down long after its end. */
static bool hangs_at_end_locked(struct wcx_requests *requests)
{
	const unsigned timeout_ms = requests->options.timeout_ms,
		       wait_ms = timeout_ms ? WCX_MIN(timeout_ms, GIVE_UP_MS) : GIVE_UP_MS;

	if (!requests->ended_ms && requests->options.calls->has_ended(requests->options.user))
		requests->ended_ms = wcx_now_ms();
	return requests->ended_ms && wcx_now_ms() - requests->ended_ms > wait_ms;
}

static void tick(struct wcx_requests *requests)
{
	struct checked_list failed = STAILQ_HEAD_INITIALIZER(failed), checked = STAILQ_HEAD_INITIALIZER(checked);
	bool hangs_at_end;

	pthread_mutex_lock(&requests->lock);
	hangs_at_end = hangs_at_end_locked(requests);
	find_overdue_locked(requests, &failed);
	take_refused_locked(requests, &failed);
	hold_slow_locked(requests, &checked);
	pthread_mutex_unlock(&requests->lock);
	fail_all(requests, &failed);
	check_readers(requests, &checked);
	if (hangs_at_end)
		requests->options.calls->give_up(requests->options.user);
}

/* Sleeps for a tick, or, when there has been nothing to watch for a while, until there is. */
static bool sleep_locked(struct wcx_requests *requests, unsigned *idle_ticks)
{
	struct timespec until;

	*idle_ticks = TAILQ_EMPTY(&requests->all) ? *idle_ticks + 1 : 0;
	requests->is_asleep = *idle_ticks > IDLE_TICKS;
	while (requests->is_asleep && TAILQ_EMPTY(&requests->all) && !requests->ended_ms && !requests->is_stopping)
		pthread_cond_wait(&requests->wake, &requests->lock);
	requests->is_asleep = false;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (!requests->is_stopping && pthread_cond_timedwait(&requests->wake, &requests->lock, &until) == 0)
		;
	return !requests->is_stopping;
}

static void *watch(void *user)
{
	struct wcx_requests *requests = user;
	unsigned idle_ticks = 0;

	pthread_mutex_lock(&requests->lock);
	while (sleep_locked(requests, &idle_ticks)) {
		pthread_mutex_unlock(&requests->lock);
		tick(requests);
		pthread_mutex_lock(&requests->lock);
	}
	pthread_mutex_unlock(&requests->lock);
	return NULL;
}

struct wcx_requests *wcx_requests_create(const struct wcx_request_options *options)
{
	struct wcx_requests *requests = calloc(1, sizeof *requests);
	pthread_condattr_t monotonic;

	if (!requests)
		return NULL;
	requests->options = *options;
	wcx_shares_init(&requests->shares, options->threads);
	TAILQ_INIT(&requests->all);
	pthread_mutex_init(&requests->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&requests->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&requests->watcher, NULL, watch, requests) == 0)
		return requests;
	pthread_cond_destroy(&requests->wake);
	pthread_mutex_destroy(&requests->lock);
	free(requests);
	return NULL;
}

void wcx_requests_end(struct wcx_requests *requests)
{
	pthread_mutex_lock(&requests->lock);
	if (!requests->ended_ms)
		requests->ended_ms = wcx_now_ms();
	pthread_cond_signal(&requests->wake);
	pthread_mutex_unlock(&requests->lock);
}

void wcx_requests_free(struct wcx_requests *requests)
{
	if (!requests)
		return;
	pthread_mutex_lock(&requests->lock);
	requests->is_stopping = true;
	pthread_cond_signal(&requests->wake);
	pthread_mutex_unlock(&requests->lock);
	pthread_join(requests->watcher, NULL);
	pthread_cond_destroy(&requests->wake);
	pthread_mutex_destroy(&requests->lock);
	free(requests);
}
