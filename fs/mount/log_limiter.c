/* SPDX-License-Identifier: MIT */
/* Remembers logged lines. */
#include "fs/mount/log_limiter.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

static int compare_lines(const void *a, const void *b)
{
	return strcmp(a, b);
}

void wcx_log_limiter_init(struct wcx_log_limiter *limiter)
{
	*limiter = (struct wcx_log_limiter){ 0 };
	pthread_mutex_init(&limiter->lock, NULL);
}

void wcx_log_limiter_destroy(struct wcx_log_limiter *limiter)
{
	tdestroy(limiter->lines, free);
	pthread_mutex_destroy(&limiter->lock);
}

size_t wcx_log_limiter_admit(struct wcx_log_limiter *limiter, const char *line)
{
	size_t count = 0;
	char *copy;

	pthread_mutex_lock(&limiter->lock);
	if (limiter->line_count < WCX_LOG_LINES_MAX && !tfind(line, &limiter->lines, compare_lines)) {
		copy = strdup(line);
		if (copy && tsearch(copy, &limiter->lines, compare_lines))
			count = ++limiter->line_count;
		else
			free(copy);
	}
	pthread_mutex_unlock(&limiter->lock);
	return count;
}
