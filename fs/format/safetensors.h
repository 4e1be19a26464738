/* SPDX-License-Identifier: MIT */
/*
 * Parsing the header of a safetensors file: which tensors it has and where their bytes are.
 *
 * Accepts and refuses the same headers as version 0.8 of the safetensors library, with the same messages after "path: ";
 * only the part after "invalid JSON in header: " is worded differently, and parentheses add details.  One difference is
 * deliberate: an unknown dtype is no error.  Such a tensor is treated as bytes, and its size is not checked against its
 * shape.
 *
 * Takes memory for the result alone: 64 bytes per tensor, 8 per dimension, and the names.
 *
 * No function keeps state: all are safe from any number of threads.
 *
 * Source: https://github.com/huggingface/safetensors (format and safetensors/src/tensor.rs).
 */
#ifndef WCX_SAFETENSORS_H
#define WCX_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "fs/base/error.h"

enum {
	WCX_SAFETENSORS_LENGTH_BYTES = 8,           /* the length in front of the JSON */
	WCX_SAFETENSORS_MAX_JSON_BYTES = 100000000, /* the library's limit */
};

struct wcx_tensor {
	const char *name;    /* UTF-8, with a zero byte after its name_bytes; may contain U+0000 */
	const char *dtype;   /* as the header writes it */
	uint32_t elem_bytes; /* of the dtype (fs/format/dtype.h), or 1 for an unknown one */
	const uint64_t *shape;
	size_t dim_count;
	uint64_t offset; /* of the data, from the start of the file */
	uint64_t bytes;
	size_t name_bytes;
};

/* All tensors, empty ones included, in the order of their data in the file. */
struct wcx_safetensors {
	struct wcx_tensor *tensors;
	size_t tensor_count;
	uint64_t header_bytes; /* length and JSON: the offset of the data */
	uint64_t file_bytes;
};

/*
 * wcx_safetensors_json_bytes - read the length of the JSON and check it, before anything is allocated
 *
 * first holds the first min(8, file_bytes) bytes of the file.  Returns 0 or -EINVAL ("header too small", "header too large",
 * "invalid header length").
 */
int wcx_safetensors_json_bytes(const char *path, const uint8_t *first, uint64_t file_bytes, uint64_t *json_bytes_ret,
			       struct wcx_error *err);

/*
 * wcx_safetensors_parse - read a header
 *
 * json is untrusted and need not end with a zero byte.  Returns 0 with *ret, which the caller frees; -EINVAL for a header
 * that is refused; or -ENOMEM.  On failure *ret is not touched.
 */
int wcx_safetensors_parse(const char *path, const char *json, size_t json_bytes, uint64_t file_bytes,
			  struct wcx_safetensors **ret, struct wcx_error *err);

void wcx_safetensors_free(struct wcx_safetensors *st); /* NULL is fine */

#endif
