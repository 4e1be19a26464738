/* SPDX-License-Identifier: MIT */
/*
 * Decides which messages about files are logged.
 *
 * A reader may retry a damaged file a thousand times, and a copy in progress fails in a new way at each look.  So the same
 * line is logged once an hour, about one file at most WCX_LOG_LINES_PER_FILE lines at once and then one
 * every ten seconds, and about
 * all files together at most WCX_LOG_LINES_MAX at once and then five a second.  Nothing is silenced for good.
 */
#ifndef WCX_LOG_LIMITER_H
#define WCX_LOG_LIMITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WCX_LOG_LINES_MAX = 300, WCX_LOG_LINES_PER_FILE = 10, WCX_LOG_FILES_MAX = 128, WCX_LOG_RECENT_LINES = 32 };

/* Lines that may be logged at once, in thousandths, and when that was last brought up to date. */
struct wcx_log_allowance {
	uint64_t millilines, updated_ms;
};

struct wcx_log_file {
	uint64_t file; /* hash of its name; 0: the place is free */
	uint64_t used_ms, suppressed;
	struct wcx_log_allowance allowance;
	struct {
		uint64_t line, logged_ms; /* hash; 0: none */
	} recent[WCX_LOG_RECENT_LINES];
	size_t next_recent;
};

struct wcx_log_limiter {
	pthread_mutex_t lock; /* protects the rest */
	struct wcx_log_allowance allowance;
	struct wcx_log_file files[WCX_LOG_FILES_MAX]; /* those that messages were about last */
};

void wcx_log_limiter_init(struct wcx_log_limiter *limiter);
void wcx_log_limiter_destroy(struct wcx_log_limiter *limiter);

/*
 * wcx_log_limiter_admit - whether to log a line about a file now; safe from any number of threads
 *
 * now_ms is the time of a clock that does not go back, from any start but 0.  If the line is admitted, *suppressed_ret is
 * how many different lines about this file were not, since the last that was.
 */
bool wcx_log_limiter_admit(struct wcx_log_limiter *limiter, const char *file, const char *line, uint64_t now_ms,
			   uint64_t *suppressed_ret);

#endif
