/* SPDX-License-Identifier: MIT */
/* What the jobs that write a whole file have in common: packing and unpacking. */
#ifndef WCX_JOB_H
#define WCX_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct wcx_job_options {
	unsigned thread_count;   /* at least 1 */
	bool replace;            /* replace an existing output, in one step, when the new one is complete */
	const atomic_bool *stop; /* ends the job with -EINTR once it is true; a signal handler may set it; may be NULL */
	/*
	 * What happens ("packing", "verifying"), with bytes of the original done and in total.  Called from any thread, but
	 * by one at a time; may be NULL.
	 */
	void (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
	void *user;
};

#endif
