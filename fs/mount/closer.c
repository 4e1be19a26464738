/* SPDX-License-Identifier: MIT */
/* Closes what belongs to the store, one after the other. */
#include "fs/mount/closer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct wcx_closer {
	pthread_mutex_t lock; /* protects the rest; never held while something is closed */
	pthread_cond_t wake;  /* signals something to close, or the end */
	STAILQ_HEAD(, wcx_closing) waiting;
	pthread_t thread;
	bool has_thread, is_ending;
};

struct wcx_closer *wcx_closer_create(void)
{
	struct wcx_closer *closer = calloc(1, sizeof *closer);

	if (!closer)
		return NULL;
	pthread_mutex_init(&closer->lock, NULL);
	pthread_cond_init(&closer->wake, NULL);
	STAILQ_INIT(&closer->waiting);
	return closer;
}

static void *run(void *user)
{
	struct wcx_closer *closer = user;
	struct wcx_closing *closing;

	pthread_mutex_lock(&closer->lock);
	while ((closing = STAILQ_FIRST(&closer->waiting)) || !closer->is_ending) {
		if (!closing) {
			pthread_cond_wait(&closer->wake, &closer->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&closer->waiting, link);
		pthread_mutex_unlock(&closer->lock);
		closing->close(closing);
		pthread_mutex_lock(&closer->lock);
	}
	pthread_mutex_unlock(&closer->lock);
	return NULL;
}

/* The thread is created by whoever gives first: it has no more privileges than those who serve. */
void wcx_closer_give(struct wcx_closer *closer, struct wcx_closing *closing)
{
	bool has_thread;

	pthread_mutex_lock(&closer->lock);
	if (!closer->has_thread)
		closer->has_thread = pthread_create(&closer->thread, NULL, run, closer) == 0;
	has_thread = closer->has_thread;
	if (has_thread)
		STAILQ_INSERT_TAIL(&closer->waiting, closing, link);
	pthread_cond_signal(&closer->wake);
	pthread_mutex_unlock(&closer->lock);
	if (!has_thread)
		closing->close(closing);
}

void wcx_closer_free(struct wcx_closer *closer)
{
	if (!closer)
		return;
	pthread_mutex_lock(&closer->lock);
	closer->is_ending = true;
	pthread_cond_signal(&closer->wake);
	pthread_mutex_unlock(&closer->lock);
	if (closer->has_thread)
		pthread_join(closer->thread, NULL);
	pthread_cond_destroy(&closer->wake);
	pthread_mutex_destroy(&closer->lock);
	free(closer);
}
