/* SPDX-License-Identifier: MIT */
/* Runs a loop on several threads. */
#include "fs/base/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"

struct worker {
	struct wcx_parallel *loop;
	unsigned number;
};

struct wcx_parallel {
	const struct wcx_core_share *share;
	wcx_parallel_fn *fn;
	void *user;
	uint64_t item_count;
	const atomic_bool *stop;
	/* These are worker 0's, which is the calling thread. */
	struct worker *workers; /* thread_count of them */
	pthread_t *threads;     /* of the workers from 1 on, of which `started` run */
	unsigned thread_count, started;
	pthread_mutex_t lock;  /* protects everything below */
	pthread_cond_t turned; /* signals a change of turn or first_error */
	uint64_t next_item;
	uint64_t turn;   /* the item that may enter */
	int first_error; /* -errno, after which no item starts or enters; or 0 */
	struct wcx_error error;
};

/* Keeps the first error, and wakes items that wait for their turn. */
static void fail_loop(struct wcx_parallel *loop, int r, const struct wcx_error *error)
{
	pthread_mutex_lock(&loop->lock);
	if (!loop->first_error) {
		loop->first_error = r;
		loop->error = *error;
	}
	pthread_cond_broadcast(&loop->turned);
	pthread_mutex_unlock(&loop->lock);
}

/* The next item to start, or item_count when there is none. */
static uint64_t take_item(struct wcx_parallel *loop)
{
	uint64_t item = loop->item_count;

	pthread_mutex_lock(&loop->lock);
	if (!loop->first_error && loop->next_item < loop->item_count)
		item = loop->next_item++;
	pthread_mutex_unlock(&loop->lock);
	return item;
}

static void start_threads(struct wcx_parallel *loop);

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct wcx_parallel *loop = worker->loop;
	uint64_t item;

	while ((item = take_item(loop)) < loop->item_count) {
		struct wcx_error error = { "" };
		int r;

		if (worker->number == 0)
			start_threads(loop);
		if (loop->stop && *loop->stop)
			r = wcx_fail(&error, EINTR, "interrupted");
		else
			r = loop->fn(loop->user, loop, worker->number, item, &error);
		if (r < 0)
			fail_loop(loop, r, &error);
	}
	return NULL;
}

unsigned wcx_core_share_threads(const struct wcx_core_share *share, unsigned thread_count)
{
	return share ? WCX_MIN(WCX_DIV_UP(share->cores, WCX_MAX(share->workers, 1u)), thread_count) : thread_count;
}

/* Starts as many threads as the loop may have by now. */
static void start_threads(struct wcx_parallel *loop)
{
	const unsigned wanted = wcx_core_share_threads(loop->share, loop->thread_count);

	while (loop->started + 1 < wanted) {
		struct worker *worker = &loop->workers[loop->started + 1];

		if (pthread_create(&loop->threads[loop->started], NULL, work, worker) != 0) {
			loop->thread_count = loop->started + 1; /* tries no more */
			break;
		}
		loop->started++;
	}
}

int wcx_parallel_for(unsigned thread_count, uint64_t item_count, wcx_parallel_fn *fn, void *user, const atomic_bool *stop,
		     struct wcx_error *err)
{
	return wcx_parallel_for_shared(NULL, thread_count, item_count, fn, user, stop, err);
}

int wcx_parallel_for_shared(const struct wcx_core_share *share, unsigned thread_count, uint64_t item_count,
			    wcx_parallel_fn *fn, void *user, const atomic_bool *stop, struct wcx_error *err)
{
	struct wcx_parallel loop = { .share = share, .fn = fn, .user = user, .item_count = item_count, .stop = stop };

	loop.thread_count = thread_count > item_count ? (item_count ? (unsigned)item_count : 1) : thread_count;
	loop.workers = calloc(loop.thread_count, sizeof *loop.workers);
	loop.threads = calloc(loop.thread_count, sizeof *loop.threads);
	if (!loop.workers || !loop.threads) {
		free(loop.workers);
		free(loop.threads);
		return wcx_fail(err, ENOMEM, "no memory for threads");
	}
	pthread_mutex_init(&loop.lock, NULL);
	pthread_cond_init(&loop.turned, NULL);
	for (unsigned i = 0; i < loop.thread_count; i++)
		loop.workers[i] = (struct worker){ &loop, i };
	start_threads(&loop);
	work(&loop.workers[0]);
	while (loop.started > 0)
		pthread_join(loop.threads[--loop.started], NULL);
	pthread_cond_destroy(&loop.turned);
	pthread_mutex_destroy(&loop.lock);
	free(loop.workers);
	free(loop.threads);
	if (loop.first_error && err)
		*err = loop.error;
	return loop.first_error;
}

int wcx_parallel_enter(struct wcx_parallel *loop, uint64_t item)
{
	int r;

	pthread_mutex_lock(&loop->lock);
	while (loop->turn != item && !loop->first_error)
		pthread_cond_wait(&loop->turned, &loop->lock);
	r = loop->first_error ? -ECANCELED : 0;
	pthread_mutex_unlock(&loop->lock);
	return r;
}

void wcx_parallel_leave(struct wcx_parallel *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop->turn++;
	pthread_cond_broadcast(&loop->turned);
	pthread_mutex_unlock(&loop->lock);
}
