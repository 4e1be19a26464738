/* SPDX-License-Identifier: MIT */
/* Parses safetensors headers by the rules of the safetensors library, in its order of checks and with its messages. */
#include "fs/format/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "codec/le.h"
#include "fs/base/utf8.h"
#include "fs/format/dtype.h"

enum { MAX_DEPTH = 127 }; /* the library's limit; jansson's own, 2048, bounds our recursion */

/* A header and the memory that it refers to: names and dtypes are in the JSON tree, all shapes in dims. */
struct header {
	struct wcx_safetensors st; /* first: wcx_safetensors_free casts a pointer to it back */
	json_t *root;
	uint64_t *dims;
};

/* The description of a tensor, of which only the JSON types are checked. */
struct description {
	const char *dtype;
	const json_t *shape;
	uint64_t start, end;
};

void wcx_safetensors_free(struct wcx_safetensors *st)
{
	struct header *header = (struct header *)st;

	if (!header)
		return;
	json_decref(header->root);
	free(header->dims);
	free(header->st.tensors);
	free(header);
}

int wcx_safetensors_json_bytes(const char *path, const uint8_t *first, uint64_t file_bytes, uint64_t *json_bytes_ret,
			       struct wcx_error *err)
{
	uint64_t json_bytes;

	if (file_bytes < WCX_SAFETENSORS_LENGTH_BYTES)
		return wcx_fail(err, EINVAL, "%s: header too small", path);
	json_bytes = wcx_le64_read(first);
	if (json_bytes > WCX_SAFETENSORS_MAX_JSON_BYTES)
		return wcx_fail(err, EINVAL, "%s: header too large", path);
	if (json_bytes > file_bytes - WCX_SAFETENSORS_LENGTH_BYTES)
		return wcx_fail(err, EINVAL, "%s: invalid header length", path);
	*json_bytes_ret = json_bytes;
	return 0;
}

/* Like the library, checks all bytes before the JSON, so that the same fault is reported. */
static int check_utf8(const char *path, const char *text, size_t text_bytes, struct wcx_error *err)
{
	static const char words[] = "invalid UTF-8 in header";

	for (size_t at = 0; at < text_bytes;) {
		int length = wcx_utf8_sequence(text + at, text_bytes - at);

		if (length == 0)
			return wcx_fail(err, EINVAL, "%s: %s: incomplete utf-8 byte sequence from index %zu", path, words,
					at);
		if (length < 0)
			return wcx_fail(err, EINVAL, "%s: %s: invalid utf-8 sequence of %d bytes from index %zu", path,
					words, -length, at);
		at += (size_t)length;
	}
	return 0;
}

/*
 * Whether jansson ran out of memory.  Up to version 2.15 it then gives neither a text nor a code; or, when it could not copy
 * a string, it reports a missing token or key, which it never does otherwise after a quotation mark.
 */
static bool is_out_of_memory(const json_error_t *error, const char *text)
{
	static const char no_token[] = "invalid token", no_key[] = "string or '}' expected";

	if (error->text[0] == '\0' || json_error_code(error) == json_error_out_of_memory)
		return true;
	return error->position > 0 && text[error->position - 1] == '"' &&
	       (strncmp(error->text, no_token, strlen(no_token)) == 0 || strncmp(error->text, no_key, strlen(no_key)) == 0);
}

/* Whether arrays and objects are nested more than depth levels deep. */
static bool is_deeper(json_t *tree, int depth)
{
	const char *key;
	json_t *item;
	size_t i;

	if (!json_is_object(tree) && !json_is_array(tree))
		return false;
	if (depth == 0)
		return true;
	json_object_foreach(tree, key, item)
		if (is_deeper(item, depth - 1))
			return true;
	json_array_foreach(tree, i, item)
		if (is_deeper(item, depth - 1))
			return true;
	return false;
}

static int load_json(const char *path, const char *text, size_t text_bytes, json_t **root_ret, struct wcx_error *err)
{
	json_error_t error;
	json_t *root = json_loadb(text, text_bytes, JSON_ALLOW_NUL, &error);
	const char *fault = NULL;

	if (!root && is_out_of_memory(&error, text))
		return wcx_fail(err, ENOMEM, "%s: no memory for the header", path);
	if (!root)
		return wcx_fail(err, EINVAL, "%s: invalid JSON in header: %s at line %d column %d", path, error.text,
				error.line, error.column);
	if (!json_is_object(root))
		fault = "not an object";
	else if (is_deeper(root, MAX_DEPTH))
		fault = "nested too deep";
	if (fault) {
		json_decref(root);
		return wcx_fail(err, EINVAL, "%s: invalid JSON in header: %s", path, fault);
	}
	*root_ret = root;
	return 0;
}

/* Metadata must be null or a map of strings to strings.  We do not use it, but the library refuses anything else. */
static int check_metadata(const char *path, json_t *metadata, struct wcx_error *err)
{
	const char *key;
	json_t *value;

	if (json_is_null(metadata))
		return 0;
	if (!json_is_object(metadata))
		return wcx_fail(err, EINVAL, "%s: invalid JSON in header: `__metadata__` is not a map", path);
	json_object_foreach(metadata, key, value)
		if (!json_is_string(value))
			return wcx_fail(err, EINVAL, "%s: invalid JSON in header: `__metadata__`: `%s` is not a string",
					path, key);
	return 0;
}

static bool is_count(const json_t *value)
{
	return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool is_shape(const json_t *shape)
{
	if (!json_is_array(shape))
		return false;
	for (size_t i = 0; i < json_array_size(shape); i++)
		if (!is_count(json_array_get(shape, i)))
			return false;
	return true;
}

/* The name in a string or, as the library also accepts, in {name: null}; NULL for all else and for a name with a NUL. */
static const char *dtype_name(json_t *dtype)
{
	void *only = json_object_size(dtype) == 1 ? json_object_iter(dtype) : NULL;

	if (only && json_is_null(json_object_iter_value(only)))
		return json_object_iter_key(only);
	if (!json_is_string(dtype) || strlen(json_string_value(dtype)) != json_string_length(dtype))
		return NULL;
	return json_string_value(dtype);
}

/* Reads a tensor's object or, as the library also accepts, an array of its fields.  Returns what is wrong, or NULL. */
static const char *read_description(const json_t *info, struct description *ret)
{
	static const char *const missing[] = { "missing field `dtype`", "missing field `shape`",
					       "missing field `data_offsets`" };
	json_t *fields[3];

	if (!json_is_object(info) && (!json_is_array(info) || json_array_size(info) > 3))
		return "not a map";
	fields[0] = json_is_object(info) ? json_object_get(info, "dtype") : json_array_get(info, 0);
	fields[1] = json_is_object(info) ? json_object_get(info, "shape") : json_array_get(info, 1);
	fields[2] = json_is_object(info) ? json_object_get(info, "data_offsets") : json_array_get(info, 2);
	for (int i = 0; i < 3; i++)
		if (!fields[i])
			return missing[i];
	ret->dtype = dtype_name(fields[0]);
	if (!ret->dtype)
		return "`dtype` is not a name";
	if (!is_shape(fields[1]))
		return "`shape` is not a list of sizes";
	if (!is_shape(fields[2]) || json_array_size(fields[2]) != 2)
		return "`data_offsets` is not a pair of offsets";
	ret->shape = fields[1];
	ret->start = (uint64_t)json_integer_value(json_array_get(fields[2], 0));
	ret->end = (uint64_t)json_integer_value(json_array_get(fields[2], 1));
	return NULL;
}

/*
 * Fills in the tensors from the tree.  The numbers are not checked yet; offset and bytes hold the two data_offsets until
 * check_tensor.  The dimensions of all shapes must fit in header->dims.
 */
static int read_tensors(const char *path, struct header *header, struct wcx_error *err)
{
	struct wcx_tensor *tensor = header->st.tensors;
	uint64_t *dims = header->dims;
	const char *name;
	json_t *info;

	json_object_foreach(header->root, name, info) {
		struct description description;
		const char *wrong;

		if (strcmp(name, "__metadata__") == 0)
			continue;
		wrong = read_description(info, &description);
		if (wrong)
			return wcx_fail(err, EINVAL, "%s: invalid JSON in header: tensor `%s`: %s", path, name, wrong);
		*tensor++ = (struct wcx_tensor){
			.name = name,
			.dtype = description.dtype,
			.shape = dims,
			.dim_count = json_array_size(description.shape),
			.offset = description.start,
			.bytes = description.end,
		};
		for (size_t i = 0; i < json_array_size(description.shape); i++)
			*dims++ = (uint64_t)json_integer_value(json_array_get(description.shape, i));
	}
	header->st.tensor_count = (size_t)(tensor - header->st.tensors);
	return 0;
}

/* Allocates the tensors, and dims for all shapes together. */
static int allocate(const char *path, struct header *header, struct wcx_error *err)
{
	size_t dim_count = 0;
	const char *name;
	json_t *info;

	json_object_foreach(header->root, name, info)
		dim_count +=
			json_array_size(json_is_object(info) ? json_object_get(info, "shape") : json_array_get(info, 1));
	/* One more of each, so that no allocation is empty. */
	header->dims = calloc(dim_count + 1, sizeof *header->dims);
	header->st.tensors = calloc(json_object_size(header->root) + 1, sizeof *header->st.tensors);
	if (!header->dims || !header->st.tensors)
		return wcx_fail(err, ENOMEM, "%s: no memory for the header", path);
	return 0;
}

/* By start, end and name: tensors without data may share their offsets. */
static int compare_offsets(const void *left, const void *right)
{
	const struct wcx_tensor *a = left, *b = right;

	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	if (a->bytes != b->bytes)
		return a->bytes < b->bytes ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* The library's message when a tensor cannot have that many bytes, or NULL. */
static const char *size_fault(const struct wcx_tensor *tensor, const struct wcx_dtype *dtype, uint64_t bytes)
{
	static const char overflow[] = "overflow computing buffer size from shape and/or element type";
	uint64_t bits = 1;

	/* In the library's order: a zero at the end does not undo an overflow. */
	for (size_t i = 0; i < tensor->dim_count; i++)
		if (__builtin_mul_overflow(bits, tensor->shape[i], &bits))
			return overflow;
	if (__builtin_mul_overflow(bits, dtype->bits, &bits))
		return overflow;
	if (bits % 8 != 0)
		return "The slice is slicing for subbytes dtypes, and the slice does not end up at a byte boundary, "
		       "this is invalid.";
	return bits / 8 == bytes ? NULL : "invalid shape, data type, or offset for tensor";
}

/* Checks a tensor, which must start at *data_at, and sets *data_at to its end. */
static int check_tensor(const char *path, const struct wcx_safetensors *st, struct wcx_tensor *tensor, uint64_t *data_at,
			struct wcx_error *err)
{
	const struct wcx_dtype *dtype = wcx_dtype_find(tensor->dtype);
	uint64_t start = tensor->offset, end = tensor->bytes;
	const char *fault;

	if (start != *data_at || end < start)
		return wcx_fail(err, EINVAL, "%s: invalid offset for tensor `%s`", path, tensor->name);
	fault = dtype ? size_fault(tensor, dtype, end - start) : NULL;
	if (fault)
		return wcx_fail(err, EINVAL, "%s: %s (data_offsets [%" PRIu64 ", %" PRIu64 "] of tensor `%s`)", path, fault,
				start, end, tensor->name);
	tensor->elem_bytes = dtype ? dtype->elem_bytes : 1;
	tensor->offset = st->header_bytes + start;
	tensor->bytes = end - start;
	*data_at = end;
	return 0;
}

static int check_tensors(const char *path, struct wcx_safetensors *st, struct wcx_error *err)
{
	uint64_t data_at = 0;

	qsort(st->tensors, st->tensor_count, sizeof *st->tensors, compare_offsets);
	for (size_t i = 0; i < st->tensor_count; i++) {
		int r = check_tensor(path, st, &st->tensors[i], &data_at, err);

		if (r < 0)
			return r;
	}
	if (st->file_bytes < st->header_bytes || data_at != st->file_bytes - st->header_bytes)
		return wcx_fail(err, EINVAL, "%s: incomplete metadata, file not fully covered", path);
	return 0;
}

int wcx_safetensors_parse(const char *path, const char *json, size_t json_bytes, uint64_t file_bytes,
			  struct wcx_safetensors **ret, struct wcx_error *err)
{
	struct header *header = calloc(1, sizeof *header);
	json_t *metadata;
	int r;

	if (!header)
		return wcx_fail(err, ENOMEM, "%s: no memory for the header", path);
	header->st.header_bytes = WCX_SAFETENSORS_LENGTH_BYTES + json_bytes;
	header->st.file_bytes = file_bytes;
	r = check_utf8(path, json, json_bytes, err);
	if (r == 0)
		r = load_json(path, json, json_bytes, &header->root, err);
	metadata = json_object_get(header->root, "__metadata__");
	if (r == 0 && metadata)
		r = check_metadata(path, metadata, err);
	if (r == 0)
		r = allocate(path, header, err);
	if (r == 0)
		r = read_tensors(path, header, err);
	if (r == 0)
		r = check_tensors(path, &header->st, err);
	if (r == 0)
		*ret = &header->st;
	else
		wcx_safetensors_free(&header->st);
	return r;
}
