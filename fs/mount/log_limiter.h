/* SPDX-License-Identifier: MIT */
/* Decides which lines are logged: each once, because a reader may retry a damaged file a thousand times. */
#ifndef WCX_LOG_LIMITER_H
#define WCX_LOG_LIMITER_H

#include <pthread.h>
#include <stddef.h>

enum { WCX_LOG_LINES_MAX = 1000 };

struct wcx_log_limiter {
	pthread_mutex_t lock; /* protects the rest */
	void *lines;          /* tsearch(3) tree of the lines admitted so far */
	size_t line_count;
};

void wcx_log_limiter_init(struct wcx_log_limiter *limiter);
void wcx_log_limiter_destroy(struct wcx_log_limiter *limiter);

/*
 * wcx_log_limiter_admit - ask whether to log a line; safe from any number of threads
 *
 * Returns 0 for a line that was admitted before, or that comes after WCX_LOG_LINES_MAX others; otherwise the number of
 * lines admitted so far, including this one.
 */
size_t wcx_log_limiter_admit(struct wcx_log_limiter *limiter, const char *line);

#endif
