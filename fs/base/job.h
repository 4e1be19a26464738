/* SPDX-License-Identifier: MIT */
/* The options that packing and unpacking share. */
#ifndef WCX_JOB_H
#define WCX_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fs/base/file_metadata.h"
#include "fs/base/parallel.h"

struct wcx_job_options {
	unsigned thread_count;              /* at least 1 */
	const struct wcx_core_share *share; /* which other jobs have a part of; NULL: none */
	const char *shown_dst;              /* what messages call the output; NULL: its path */
	bool replace;                       /* replace an existing output, atomically, once the new one is complete */
	bool is_tidy;                       /* as that of wcx_output_options */
	const atomic_bool *stop; /* once true, the job ends with -EINTR; a signal handler may set it; may be NULL */
	/*
	 * Reports what is going on ("packing", "verifying"), and the bytes of the original done and in total.  Called from
	 * any thread, one call at a time; may be NULL.
	 */
	void (*progress)(void *user, const char *what, uint64_t done, uint64_t total);
	wcx_warn_fn *warn; /* what an output's file system cannot keep; may be NULL */
	void *user;
};

#endif
