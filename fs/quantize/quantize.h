/* SPDX-License-Identifier: MIT */
/* Makes an INT8 model, in the form of compressed-tensors, of a model's directory with weights in F16, BF16 or F32. */
#ifndef WCX_QUANTIZE_H
#define WCX_QUANTIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"
#include "fs/base/job.h"
#include "fs/quantize/int8_rows.h"
#include "fs/quantize/shard.h"

struct wcx_quantize_options {
	struct wcx_job_options job;
	bool is_packed;     /* pack-quantized W8A16 instead of int-quantized W8A8 */
	bool is_per_tensor; /* one scale for a tensor instead of one for each output channel (row) */
	bool has_scales;    /* scales have the type `scales`; otherwise that of their weights */
	enum wcx_float_type scales;
	bool allows_unknown_types; /* decide by names and shapes alone where the model_type is not known */
	bool is_dry_run;           /* stop before anything is written */
	const char *const *ignore; /* modules that stay (fs/quantize/ignore_list.h) */
	size_t ignore_count;
	/* Told each tensor of the source, after its file is done or, in a dry run, planned; may be NULL. */
	void (*tensor)(void *user, const struct wcx_shard *shard, const struct wcx_shard_tensor *tensor);
	/*
	 * Keeps a file that is done: fd has its contents and its final metadata, but no name.  path is where it belongs, in
	 * a directory that nobody else sees yet.  NULL: it gets that name.
	 */
	int (*keep)(void *user, int fd, const char *path, struct wcx_error *err);
	/* Asked before the target takes the place of a directory, which stays unless this returns 0; NULL: it may go. */
	int (*replaces)(void *user, struct wcx_error *err);
};

struct wcx_quantize_result {
	uint64_t source_bytes, quantised_bytes;      /* of the safetensors files */
	uint64_t rest_bytes;                         /* of what is copied */
	size_t file_count, linear_count, kept_count; /* files; tensors */
	/* Of the weights that are quantised alone: before, and values with their scales. */
	uint64_t linear_source_bytes, linear_quantised_bytes;
	bool has_dtype[WCX_FLOAT_F32 + 1]; /* whether some of them have this type */
};

/*
 * wcx_quantize - quantise the model in `source` into the new directory `target`
 *
 * The target appears when it is complete; after a failure or signal there is nothing.  Memory is bounded for files of any
 * size, but for their headers.  The output does not depend on the number of threads.
 *
 * Returns 0 or -errno with err.  -EINVAL: what is not quantised and why, -EEXIST: target exists and job.replace is false or
 * it is no model, -ENOSPC before anything is written, -EINTR and others.  In a dry run target may be NULL.
 */
int wcx_quantize(const char *source, const char *target, const struct wcx_quantize_options *options,
		 struct wcx_quantize_result *ret, struct wcx_error *err);

#endif
