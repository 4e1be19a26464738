/* SPDX-License-Identifier: MIT */
/* Parses safetensors headers by the rules of the safetensors library, in its order of checks and with its messages. */
#include "fs/format/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/le.h"
#include "fs/base/utf8.h"
#include "fs/format/dtype.h"
#include "fs/format/json_reader.h"

enum { DTYPE_NAME_BYTES = 16 }; /* with the zero byte, of those that are known */

/* The header with the memory behind it: shapes lie one behind the other in dims, strings in text. */
struct header {
	struct wcx_safetensors st; /* first: the caller gets a pointer to it and passes that to wcx_safetensors_free */
	uint64_t *dims;
	char *text;
};

/*
 * A pass through the JSON.  The first pass only counts and checks the types; the second, which cannot fail, fills in a
 * header that was allocated by the counts.
 */
struct pass {
	struct wcx_json json;
	struct header *header;                      /* NULL in the first pass */
	size_t tensor_count, dim_count, text_bytes; /* so far; text with a zero byte behind each string */
	size_t name_at;                             /* where the name of the tensor at hand stands in the JSON; 0: none */
	bool has_metadata;
};

/* A name for messages: a NUL becomes another control character, which wcx_fail shows as '?'. */
static const char *show_name(const char *name, size_t name_bytes, char shown[WCX_ERROR_TEXT_BYTES])
{
	const size_t bytes = WCX_MIN(name_bytes, (size_t)WCX_ERROR_TEXT_BYTES - 1);

	for (size_t i = 0; i < bytes; i++)
		shown[i] = name[i] ? name[i] : '\1';
	shown[bytes] = '\0';
	return shown;
}

void wcx_safetensors_free(struct wcx_safetensors *st)
{
	struct header *header = (struct header *)st;

	if (!header)
		return;
	free(header->dims);
	free(header->text);
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

/* Reads a string into the header's text, with a zero byte behind it; returns it, or NULL in the first pass or after a fault.
 */
static const char *keep_string(struct pass *pass, size_t *bytes_ret)
{
	char *dst = pass->header ? pass->header->text + pass->text_bytes : NULL;

	if (!wcx_json_string(&pass->json, dst, dst ? SIZE_MAX : 0, bytes_ret))
		return NULL;
	if (dst)
		dst[*bytes_ret] = '\0';
	pass->text_bytes += *bytes_ret + 1;
	return dst;
}

/* null or a map of strings to strings: nothing that we need, but the library refuses anything else. */
static void read_metadata(struct pass *pass)
{
	struct wcx_json *json = &pass->json;
	size_t bytes;

	if (pass->has_metadata)
		wcx_json_fail(json, "`__metadata__` twice");
	pass->has_metadata = true;
	if (wcx_json_peek(json) == 'n') {
		wcx_json_skip(json);
		return;
	}
	if (wcx_json_peek(json) != '{')
		wcx_json_fail(json, "`__metadata__` is not a map");
	if (!wcx_json_enter(json, '{'))
		return;
	for (size_t i = 0; wcx_json_next(json, '{', i); i++) {
		if (!wcx_json_key(json, NULL, 0, &bytes))
			return;
		if (wcx_json_peek(json) != '"')
			wcx_json_fail(json, "a value of `__metadata__` is not a string");
		if (!wcx_json_string(json, NULL, 0, &bytes))
			return;
	}
}

/* A name or, as the library also takes it, {name: null}.  A NUL would cut the name short. */
static void read_dtype(struct pass *pass, struct wcx_tensor *tensor)
{
	static const char fault[] = "`dtype` is not a name";
	struct wcx_json *json = &pass->json;
	const bool is_map = wcx_json_peek(json) == '{';
	char name[DTYPE_NAME_BYTES];
	const struct wcx_dtype *dtype;
	size_t start, bytes;

	if (is_map && wcx_json_enter(json, '{') && !wcx_json_next(json, '{', 0))
		wcx_json_fail(json, fault);
	if (wcx_json_peek(json) != '"')
		wcx_json_fail(json, fault);
	start = json->at;
	if (!wcx_json_string(json, name, sizeof name - 1, &bytes))
		return;
	if (json->has_nul) {
		json->at = start;
		wcx_json_fail(json, fault);
	}
	name[WCX_MIN(bytes, sizeof name - 1)] = '\0';
	dtype = wcx_dtype_find(name);
	if (dtype) {
		tensor->dtype = dtype->name;
	} else {
		json->at = start;
		tensor->dtype = keep_string(pass, &bytes);
	}
	if (!is_map)
		return;
	if (!wcx_json_colon(json) || wcx_json_peek(json) != 'n' || !wcx_json_skip(json) || wcx_json_next(json, '{', 1))
		wcx_json_fail(json, fault);
}

/* Reads the next item of an array of sizes. */
static bool read_count(struct wcx_json *json, const char *fault, uint64_t *ret)
{
	const char c = wcx_json_peek(json);
	const size_t start = json->at;
	bool is_count = false;

	if ((c == '-' || (c >= '0' && c <= '9')) && wcx_json_number(json, &is_count, ret) && is_count)
		return true;
	if (!json->fault)
		json->at = start;
	return wcx_json_fail(json, fault);
}

static void read_shape(struct pass *pass, struct wcx_tensor *tensor)
{
	static const char fault[] = "`shape` is not a list of sizes";
	struct wcx_json *json = &pass->json;
	uint64_t *dims = pass->header ? pass->header->dims + pass->dim_count : NULL, dim;

	if (wcx_json_peek(json) != '[')
		wcx_json_fail(json, fault);
	if (!wcx_json_enter(json, '['))
		return;
	for (tensor->dim_count = 0; wcx_json_next(json, '[', tensor->dim_count); tensor->dim_count++) {
		if (!read_count(json, fault, &dim))
			return;
		if (dims)
			dims[tensor->dim_count] = dim;
	}
	tensor->shape = dims;
	pass->dim_count += tensor->dim_count;
}

/* The numbers are not looked at yet: offset and bytes of the tensor are start and end for now. */
static void read_offsets(struct pass *pass, struct wcx_tensor *tensor)
{
	static const char fault[] = "`data_offsets` is not a pair of offsets";
	struct wcx_json *json = &pass->json;

	if (wcx_json_peek(json) != '[')
		wcx_json_fail(json, fault);
	if (!wcx_json_enter(json, '['))
		return;
	if (!wcx_json_next(json, '[', 0) || !read_count(json, fault, &tensor->offset) || !wcx_json_next(json, '[', 1) ||
	    !read_count(json, fault, &tensor->bytes) || wcx_json_next(json, '[', 2))
		wcx_json_fail(json, fault);
}

static const struct {
	const char *name, *missing, *twice;
	void (*read)(struct pass *pass, struct wcx_tensor *tensor);
} fields[] = {
	{ "dtype", "missing field `dtype`", "`dtype` twice", read_dtype },
	{ "shape", "missing field `shape`", "`shape` twice", read_shape },
	{ "data_offsets", "missing field `data_offsets`", "`data_offsets` twice", read_offsets },
};

/* Reads a key; returns the number of the field it names, or that behind the last for any other. */
static size_t read_field_name(struct wcx_json *json)
{
	char name[sizeof "data_offsets"];
	size_t bytes, f = 0;

	if (!wcx_json_key(json, name, sizeof name, &bytes))
		return WCX_ARRAY_COUNT(fields);
	while (f < WCX_ARRAY_COUNT(fields) && (strlen(fields[f].name) != bytes || memcmp(fields[f].name, name, bytes) != 0))
		f++;
	return f;
}

/* Reads what describes a tensor: an object or, as the library also takes it, an array of its three fields. */
static void read_description(struct pass *pass, struct wcx_tensor *tensor)
{
	struct wcx_json *json = &pass->json;
	const char open = wcx_json_peek(json);
	bool seen[WCX_ARRAY_COUNT(fields)] = { false };

	if (open != '{' && open != '[')
		wcx_json_fail(json, "not a map");
	if (!wcx_json_enter(json, open))
		return;
	for (size_t i = 0; wcx_json_next(json, open, i); i++) {
		const size_t f = open == '{' ? read_field_name(json) : i;

		if (open == '[' && f == WCX_ARRAY_COUNT(fields)) {
			wcx_json_fail(json, "more than three fields");
		} else if (f == WCX_ARRAY_COUNT(fields)) {
			wcx_json_skip(json);
		} else if (seen[f]) {
			wcx_json_fail(json, fields[f].twice);
		} else {
			seen[f] = true;
			fields[f].read(pass, tensor);
		}
	}
	for (size_t f = 0; f < WCX_ARRAY_COUNT(fields); f++)
		if (!seen[f])
			wcx_json_fail(json, fields[f].missing);
}

static bool is_metadata(const struct wcx_json *json)
{
	static const char word[] = "__metadata__";
	struct wcx_json copy = *json;
	char name[sizeof word];
	size_t bytes;

	return wcx_json_string(&copy, name, sizeof name, &bytes) && bytes == strlen(word) && memcmp(name, word, bytes) == 0;
}

static void read_entry(struct pass *pass)
{
	struct wcx_json *json = &pass->json;
	const bool metadata = wcx_json_peek(json) == '"' && is_metadata(json);
	struct wcx_tensor tensor = { 0 };
	size_t bytes;

	if (metadata) {
		if (wcx_json_key(json, NULL, 0, &bytes))
			read_metadata(pass);
		return;
	}
	pass->name_at = json->at;
	tensor.name = keep_string(pass, &tensor.name_bytes);
	if (wcx_json_colon(json))
		read_description(pass, &tensor);
	if (json->fault)
		return;
	if (pass->header)
		pass->header->st.tensors[pass->tensor_count] = tensor;
	pass->tensor_count++;
	pass->name_at = 0;
}

static void run_pass(struct pass *pass)
{
	struct wcx_json *json = &pass->json;

	if (wcx_json_peek(json) != '{')
		wcx_json_fail(json, "not an object");
	if (!wcx_json_enter(json, '{'))
		return;
	for (size_t i = 0; wcx_json_next(json, '{', i); i++)
		read_entry(pass);
	wcx_json_end(json);
}

static int fail_json(const char *path, const struct pass *pass, struct wcx_error *err)
{
	const size_t offset = WCX_SAFETENSORS_LENGTH_BYTES + pass->json.at;
	struct wcx_json json = { .text = pass->json.text, .bytes = pass->json.bytes, .at = pass->name_at };
	char name[WCX_ERROR_TEXT_BYTES], shown[WCX_ERROR_TEXT_BYTES];
	size_t bytes;

	if (pass->name_at && wcx_json_string(&json, name, sizeof name, &bytes))
		return wcx_fail(err, EINVAL, "%s: invalid JSON in header: tensor `%s`: %s at offset %zu", path,
				show_name(name, WCX_MIN(bytes, sizeof name), shown), pass->json.fault, offset);
	return wcx_fail(err, EINVAL, "%s: invalid JSON in header: %s at offset %zu", path, pass->json.fault, offset);
}

/* Reads the JSON in two passes, so that everything is allocated once and by what there is. */
static int read_json(const char *path, const char *text, size_t text_bytes, struct header *header, struct wcx_error *err)
{
	struct pass count = { .json = { .text = text, .bytes = text_bytes } }, fill = count;

	run_pass(&count);
	if (count.json.fault)
		return fail_json(path, &count, err);
	/* One more of each, so that none is an allocation of nothing. */
	header->st.tensors = calloc(count.tensor_count + 1, sizeof *header->st.tensors);
	header->dims = calloc(count.dim_count + 1, sizeof *header->dims);
	header->text = malloc(count.text_bytes + 1);
	if (!header->st.tensors || !header->dims || !header->text)
		return wcx_fail(err, ENOMEM, "%s: no memory for the header", path);
	fill.header = header;
	run_pass(&fill);
	header->st.tensor_count = fill.tensor_count;
	return 0;
}

static int compare_strings(const struct wcx_tensor *a, const struct wcx_tensor *b)
{
	const int order = memcmp(a->name, b->name, WCX_MIN(a->name_bytes, b->name_bytes));

	return order ? order : (a->name_bytes > b->name_bytes) - (a->name_bytes < b->name_bytes);
}

/* By name; of equal names the later one first: strings lie in the header's text in the order of the JSON. */
static int compare_names(const void *left, const void *right)
{
	const struct wcx_tensor *a = left, *b = right;
	const int order = compare_strings(a, b);

	return order ? order : a->name > b->name ? -1 : 1;
}

/* Of tensors with the same name the last one counts. */
static void drop_replaced(struct wcx_safetensors *st)
{
	size_t kept = 0;

	qsort(st->tensors, st->tensor_count, sizeof *st->tensors, compare_names);
	for (size_t i = 0; i < st->tensor_count; i++)
		if (!kept || compare_strings(&st->tensors[i], &st->tensors[kept - 1]) != 0)
			st->tensors[kept++] = st->tensors[i];
	st->tensor_count = kept;
}

/* By start, then by end; the name makes the order total, for tensors without data share their offsets. */
static int compare_offsets(const void *left, const void *right)
{
	const struct wcx_tensor *a = left, *b = right;

	if (a->offset != b->offset)
		return a->offset < b->offset ? -1 : 1;
	if (a->bytes != b->bytes)
		return a->bytes < b->bytes ? -1 : 1;
	return compare_strings(a, b);
}

/* Why a tensor cannot have that many bytes, in the library's words, or NULL. */
static const char *size_fault(const struct wcx_tensor *tensor, const struct wcx_dtype *dtype, uint64_t bytes)
{
	static const char overflow[] = "overflow computing buffer size from shape and/or element type";
	uint64_t bits = 1;

	/* In this order, as the library multiplies: a zero at the end does not undo an overflow. */
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

/* Checks the next tensor, which must start at *data_at, and moves that to its end. */
static int check_tensor(const char *path, const struct wcx_safetensors *st, struct wcx_tensor *tensor, uint64_t *data_at,
			struct wcx_error *err)
{
	const struct wcx_dtype *dtype = wcx_dtype_find(tensor->dtype);
	uint64_t start = tensor->offset, end = tensor->bytes;
	char shown[WCX_ERROR_TEXT_BYTES];
	const char *fault;

	if (start != *data_at || end < start)
		return wcx_fail(err, EINVAL, "%s: invalid offset for tensor `%s`", path,
				show_name(tensor->name, tensor->name_bytes, shown));
	fault = dtype ? size_fault(tensor, dtype, end - start) : NULL;
	if (fault)
		return wcx_fail(err, EINVAL, "%s: %s (data_offsets [%" PRIu64 ", %" PRIu64 "] of tensor `%s`)", path, fault,
				start, end, show_name(tensor->name, tensor->name_bytes, shown));
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
	if (data_at > st->file_bytes - st->header_bytes)
		return wcx_fail(err, EINVAL,
				"%s: truncated: %" PRIu64 " of %" PRIu64
				" bytes (incomplete metadata, file not fully covered)",
				path, st->file_bytes, st->header_bytes + data_at);
	if (st->file_bytes < st->header_bytes || data_at != st->file_bytes - st->header_bytes)
		return wcx_fail(err, EINVAL, "%s: incomplete metadata, file not fully covered", path);
	return 0;
}

int wcx_safetensors_parse(const char *path, const char *json, size_t json_bytes, uint64_t file_bytes,
			  struct wcx_safetensors **ret, struct wcx_error *err)
{
	struct header *header = calloc(1, sizeof *header);
	int r;

	if (!header)
		return wcx_fail(err, ENOMEM, "%s: no memory for the header", path);
	header->st.header_bytes = WCX_SAFETENSORS_LENGTH_BYTES + json_bytes;
	header->st.file_bytes = file_bytes;
	r = check_utf8(path, json, json_bytes, err);
	if (r == 0)
		r = read_json(path, json, json_bytes, header, err);
	if (r == 0) {
		drop_replaced(&header->st);
		r = check_tensors(path, &header->st, err);
	}
	if (r == 0)
		*ret = &header->st;
	else
		wcx_safetensors_free(&header->st);
	return r;
}
