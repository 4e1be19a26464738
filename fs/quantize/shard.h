/* SPDX-License-Identifier: MIT */
/*
 * One safetensors file of a model and the quantised file that it becomes: which tensors the new one has and where (plan),
 * and the work of writing it on all threads (run).
 *
 * A shard is planned and run by one thread at a time.
 */
#ifndef WCX_SHARD_H
#define WCX_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "fs/base/error.h"
#include "fs/base/job.h"
#include "fs/format/safetensors.h"
#include "fs/quantize/int8_rows.h"
#include "fs/quantize/tensor_role.h"

enum { WCX_SHARD_ROW_MAX_BYTES = 64 << 20 }; /* of a tensor to quantise: a thread holds a row */

/* A tensor of the source, and what becomes of it. */
struct wcx_shard_tensor {
	const struct wcx_tensor *source;
	enum wcx_tensor_role role; /* WCX_ROLE_LINEAR: quantised */
	struct wcx_int8_recipe recipe;
	uint32_t max_bits; /* of the whole tensor, while one scale is looked for */
	struct wcx_int8_error error;
};

/* What a tensor of the new file holds. */
enum wcx_shard_part { WCX_PART_COPY, WCX_PART_VALUES, WCX_PART_SCALES, WCX_PART_SHAPE };

/* A tensor of the new file. */
struct wcx_shard_output {
	struct wcx_shard_tensor *tensor; /* from which it is made */
	enum wcx_shard_part part;
	const char *dtype;
	uint32_t elem_bytes;
	uint64_t shape[2]; /* of a quantised tensor's parts; a copy has its source's */
	size_t dim_count;
	uint64_t offset, bytes; /* in the file */
};

struct wcx_shard {
	char *path;       /* of the source */
	const char *name; /* in its directory; points into path */
	struct wcx_safetensors *st;
	struct stat file; /* of the source, when it was planned */
	bool is_packed, is_per_tensor;
	struct wcx_shard_tensor *tensors; /* one for each of st's, in their order */
	struct wcx_shard_output *outputs; /* in the order of their data: of wide elements first */
	size_t output_count;
	char *header; /* length and JSON of the new file */
	uint64_t header_bytes, output_bytes;
};

/* wcx_shard_open - read the header of directory/name; 0 with *ret to be freed, or -errno as wcx_safetensors_read */
int wcx_shard_open(const char *directory, const char *name, struct wcx_shard *ret, struct wcx_error *err);
void wcx_shard_free(struct wcx_shard *shard);

/*
 * wcx_shard_plan - lay out the new file; each tensor's role and recipe, and the shard's two choices, must be set
 *
 * Returns 0; -EINVAL for a tensor that cannot be quantised (a name with U+0000, a row that is too long); or -ENOMEM.
 */
int wcx_shard_plan(struct wcx_shard *shard, struct wcx_error *err);

/* wcx_shard_output_name - the name of an output's tensor, which the caller frees; NULL: no memory */
char *wcx_shard_output_name(const struct wcx_shard_output *output);

/*
 * wcx_shard_run - write the new file to dst_fd, an empty file
 *
 * src_fd is the source, open for reading.  Memory is some MiB a thread and a row of each.  *done_bytes is what of the source
 * is done, for job->progress, and total_bytes its end.  Returns 0 with the errors of all tensors set; -EINVAL for a weight
 * that is infinite or no number, with its place; -EINTR; or -errno.
 */
int wcx_shard_run(struct wcx_shard *shard, int src_fd, int dst_fd, const struct wcx_job_options *job, uint64_t *done_bytes,
		  uint64_t total_bytes, struct wcx_error *err);

#endif
