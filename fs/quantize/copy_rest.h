/* SPDX-License-Identifier: MIT */
/* Copies what a model's directory has besides its weights. */
#ifndef WCX_COPY_REST_H
#define WCX_COPY_REST_H

#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/job.h"
#include "fs/quantize/model_files.h"

/*
 * wcx_copy_rest - copy all files below source but those that are made anew or would be old weights
 *
 * Left out are config.json, the index and the files of the model at the top, version control and download caches (.git,
 * .cache), and weights in other forms, of which job->warn is told.  Links are followed.  With target NULL nothing is copied.
 * *bytes_ret is the size of what is copied.  Returns 0 or -errno.
 */
int wcx_copy_rest(const char *source, const char *target, const struct wcx_model_files *files,
		  const struct wcx_job_options *job, uint64_t *bytes_ret, struct wcx_error *err);

#endif
