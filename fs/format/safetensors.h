/* SPDX-License-Identifier: MIT */
/*
 * The header of a safetensors file: which tensors there are and where their bytes lie.
 *
 * Accepts what version 0.8 of the safetensors library accepts, and refuses what it refuses in the same words with the path
 * in front; only what stands behind "invalid JSON in header: " is worded otherwise.  One difference is meant: a dtype that
 * is not known is no error; such a tensor is a row of bytes, and the size that its shape asks for is not checked.
 *
 * Others come from the JSON library, jansson, in headers that no writer makes.  Two are refused as JSON: a NUL in a name,
 * and an integer from 2^63 on or below -2^63.  Two are taken that the library refuses: -0 for 0; and a key twice in an
 * object, of which the last counts, where the library wants it once (`__metadata__` and the fields of a tensor) or each
 * value valid.
 *
 * A header of the largest size, 100 MB, takes 8 GB of memory if it is made for that.  Up to version 2.15, jansson does not
 * notice when memory is refused for the text of a long string or number, and may then write out of bounds.
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
	const char *name;    /* UTF-8 */
	const char *dtype;   /* as the header writes it */
	uint32_t elem_bytes; /* bytes of an element as coding sees it: 1, 2, 4 or 8; 1 for unknown and sub-byte dtypes */
	const uint64_t *shape;
	size_t dim_count;
	uint64_t offset; /* of the data, from the start of the file */
	uint64_t bytes;
};

/* Tensors in the order of their data in the file (those without bytes included). */
struct wcx_safetensors {
	struct wcx_tensor *tensors;
	size_t tensor_count;
	uint64_t header_bytes; /* the length and the JSON: where the data begin */
	uint64_t file_bytes;
};

/*
 * wcx_safetensors_json_bytes - check the first bytes of a file before anything is allocated
 *
 * first holds min(8, file_bytes) bytes of the file.  *json_bytes_ret gets the length of the JSON.  Returns 0 or -EINVAL
 * ("header too small", "header too large", "invalid header length"), with err telling why after "path: ".
 */
int wcx_safetensors_json_bytes(const char *path, const uint8_t *first, uint64_t file_bytes, uint64_t *json_bytes_ret,
			       struct wcx_error *err);

/*
 * wcx_safetensors_parse - read a header
 *
 * json is untrusted and need not end with a zero byte.  Returns 0 with *ret, which the caller frees; -EINVAL for a header
 * that is refused, -ENOMEM; on failure *ret is not touched.
 */
int wcx_safetensors_parse(const char *path, const char *json, size_t json_bytes, uint64_t file_bytes,
			  struct wcx_safetensors **ret, struct wcx_error *err);

void wcx_safetensors_free(struct wcx_safetensors *st); /* NULL is fine */

#endif
