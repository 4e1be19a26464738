/* SPDX-License-Identifier: MIT */
/* Which safetensors files a model's directory consists of, by the rules of transformers, and its index. */
#ifndef WCX_MODEL_FILES_H
#define WCX_MODEL_FILES_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

#define WCX_MODEL_INDEX_NAME "model.safetensors.index.json"

/* model.safetensors alone, or the files that the index names, in the order of their names. */
struct wcx_model_files {
	char **names; /* in the directory: without a slash */
	size_t count;
	json_t *index; /* NULL for a single file */
};

/*
 * wcx_model_files_find - returns 0 with *ret, which the caller frees; -ENOENT if there is neither; -EINVAL for an index that
 * is malformed, names nothing or leads out of the directory; or -errno
 */
int wcx_model_files_find(const char *directory, struct wcx_model_files *ret, struct wcx_error *err);
void wcx_model_files_free(struct wcx_model_files *files);

/* wcx_model_files_has - whether a name is one of the files */
bool wcx_model_files_has(const struct wcx_model_files *files, const char *name);

/* wcx_model_files_tensor_count - how many tensors the index has; 0 without one */
size_t wcx_model_files_tensor_count(const struct wcx_model_files *files);

/* wcx_model_files_shard_of - which file the index has a tensor in, or NULL */
const char *wcx_model_files_shard_of(const struct wcx_model_files *files, const char *tensor);

/*
 * The index of other tensors in the same files: started, given the tensors, and turned into text, which frees it.  The
 * metadata stay but for total_size.  Memory that is short shows at the end: text is NULL then.
 */
struct wcx_index_text {
	json_t *weight_map;
	uint64_t total_bytes;
};
void wcx_index_text_add(struct wcx_index_text *index, const char *tensor, uint64_t bytes, const char *file);
char *wcx_index_text_finish(struct wcx_index_text *index, const struct wcx_model_files *files);

#endif
