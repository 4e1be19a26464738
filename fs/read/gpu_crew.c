/* SPDX-License-Identifier: MIT */
#include "fs/read/gpu_crew.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct wcx_gpu_crew {
	pthread_mutex_t lock;  /* protects everything below up to threads; never held while sleeping or finishing */
	pthread_cond_t wanted; /* signals that a thread may sleep for the first work, or that all should end */
	STAILQ_HEAD(, wcx_gpu_work) works; /* in the order in which they were added */
	bool has_sleeper, is_ending;
	unsigned thread_count;
	pthread_t threads[];
};

/* Takes the work that was added first, once the thread is the one to sleep for it; NULL at the end. */
static struct wcx_gpu_work *take_first(struct wcx_gpu_crew *crew)
{
	struct wcx_gpu_work *work;

	pthread_mutex_lock(&crew->lock);
	while (!crew->is_ending && (crew->has_sleeper || STAILQ_EMPTY(&crew->works)))
		pthread_cond_wait(&crew->wanted, &crew->lock);
	work = STAILQ_FIRST(&crew->works);
	if (work) {
		crew->has_sleeper = true;
		STAILQ_REMOVE_HEAD(&crew->works, link);
	}
	pthread_mutex_unlock(&crew->lock);
	return work;
}

static void let_others_sleep(struct wcx_gpu_crew *crew, bool wakes)
{
	pthread_mutex_lock(&crew->lock);
	crew->has_sleeper = false;
	if (wakes && !STAILQ_EMPTY(&crew->works))
		pthread_cond_signal(&crew->wanted);
	pthread_mutex_unlock(&crew->lock);
}

static void *finish_loop(void *user)
{
	struct wcx_gpu_crew *crew = user;
	struct wcx_gpu_work *work;

	while ((work = take_first(crew))) {
		const bool takes_long = work->sleep(work);

		if (takes_long)
			let_others_sleep(crew, true);
		work->finish(work);
		if (!takes_long) /* and looks for the next itself */
			let_others_sleep(crew, false);
	}
	return NULL;
}

struct wcx_gpu_crew *wcx_gpu_crew_create(unsigned threads)
{
	struct wcx_gpu_crew *crew = calloc(1, sizeof *crew + threads * sizeof crew->threads[0]);

	if (!crew)
		return NULL;
	STAILQ_INIT(&crew->works);
	pthread_mutex_init(&crew->lock, NULL);
	pthread_cond_init(&crew->wanted, NULL);
	while (crew->thread_count < threads &&
	       pthread_create(&crew->threads[crew->thread_count], NULL, finish_loop, crew) == 0)
		crew->thread_count++;
	if (crew->thread_count)
		return crew;
	wcx_gpu_crew_free(crew);
	return NULL;
}

void wcx_gpu_crew_free(struct wcx_gpu_crew *crew)
{
	if (!crew)
		return;
	pthread_mutex_lock(&crew->lock);
	crew->is_ending = true;
	pthread_cond_broadcast(&crew->wanted);
	pthread_mutex_unlock(&crew->lock);
	while (crew->thread_count)
		pthread_join(crew->threads[--crew->thread_count], NULL);
	pthread_cond_destroy(&crew->wanted);
	pthread_mutex_destroy(&crew->lock);
	free(crew);
}

void wcx_gpu_crew_add(struct wcx_gpu_crew *crew, struct wcx_gpu_work *work)
{
	bool wakes;

	pthread_mutex_lock(&crew->lock);
	STAILQ_INSERT_TAIL(&crew->works, work, link);
	wakes = !crew->has_sleeper;
	pthread_mutex_unlock(&crew->lock);
	if (wakes)
		pthread_cond_signal(&crew->wanted);
}
