/* SPDX-License-Identifier: MIT */
/* Runs a loop on several threads. */
#include "fs/base/parallel.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct wcx_parallel {
	wcx_parallel_fn *fn;
	void *user;
	uint64_t item_count;
	const atomic_bool *stop;
	pthread_mutex_t lock;  /* protects everything below */
	pthread_cond_t turned; /* signals a change of turn or first_error */
	uint64_t next_item;
	uint64_t turn;   /* the item that may enter */
	int first_error; /* -errno, after which no item starts or enters; or 0 */
	struct wcx_error error;
};

struct worker {
	struct wcx_parallel *loop;
	unsigned number;
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

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct wcx_parallel *loop = worker->loop;
	uint64_t item;

	while ((item = take_item(loop)) < loop->item_count) {
		struct wcx_error error = { "" };
		int r;

		if (loop->stop && *loop->stop)
			r = wcx_fail(&error, EINTR, "interrupted");
		else
			r = loop->fn(loop->user, loop, worker->number, item, &error);
		if (r < 0)
			fail_loop(loop, r, &error);
	}
	return NULL;
}

int wcx_parallel_for(unsigned thread_count, uint64_t item_count, wcx_parallel_fn *fn, void *user, const atomic_bool *stop,
		     struct wcx_error *err)
{
	struct wcx_parallel loop = { .fn = fn, .user = user, .item_count = item_count, .stop = stop };
	struct worker *workers;
	pthread_t *threads;
	unsigned started = 0;

	if (thread_count > item_count)
		thread_count = item_count ? (unsigned)item_count : 1;
	workers = calloc(thread_count, sizeof *workers);
	threads = calloc(thread_count, sizeof *threads);
	if (!workers || !threads) {
		free(workers);
		free(threads);
		return wcx_fail(err, ENOMEM, "no memory for threads");
	}
	pthread_mutex_init(&loop.lock, NULL);
	pthread_cond_init(&loop.turned, NULL);
	/* The calling thread is worker 0. */
	for (unsigned i = 0; i < thread_count; i++)
		workers[i] = (struct worker){ &loop, i };
	while (started + 1 < thread_count && pthread_create(&threads[started], NULL, work, &workers[started + 1]) == 0)
		started++;
	work(&workers[0]);
	while (started > 0)
		pthread_join(threads[--started], NULL);
	pthread_cond_destroy(&loop.turned);
	pthread_mutex_destroy(&loop.lock);
	free(workers);
	free(threads);
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
