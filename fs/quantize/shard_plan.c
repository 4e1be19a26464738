/* SPDX-License-Identifier: MIT */
/* Opens a file of a model, and lays out what it becomes. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/arith.h"
#include "fs/base/file_io.h"
#include "fs/format/dtype.h"
#include "fs/format/json_reader.h"
#include "fs/format/safetensors_file.h"
#include "fs/quantize/shard.h"

enum { PARTS_MAX = 3, ALIGNMENT = 8, WORD_VALUES = 4 /* in a word of pack-quantized */ };

static int no_memory(const struct wcx_shard *shard, struct wcx_error *err)
{
	return wcx_fail(err, ENOMEM, "%s: no memory", shard->path);
}

/* --- opening --- */

/* Finds the text of "__metadata__" in the header's JSON, which has been checked; false where there is none. */
static bool find_metadata(const char *json, size_t bytes, size_t *begin_ret, size_t *end_ret)
{
	static const char wanted[] = "__metadata__";
	struct wcx_json reader = { .text = json, .bytes = bytes };
	bool found = false;
	char key[sizeof wanted];
	size_t key_bytes;

	if (wcx_json_enter(&reader, '{'))
		for (size_t i = 0; !found && wcx_json_next(&reader, '{', i); i++) {
			if (!wcx_json_key(&reader, key, sizeof key, &key_bytes))
				break;
			found = key_bytes == sizeof wanted - 1 && memcmp(key, wanted, key_bytes) == 0;
			wcx_json_peek(&reader); /* skips white space */
			*begin_ret = reader.at;
			if (!wcx_json_skip(&reader))
				return false;
			*end_ret = reader.at;
		}
	return found && json[*begin_ret] == '{';
}

/* Begins the new header with the metadata of the old one; shard->header is then an open object. */
static int take_metadata(struct wcx_shard *shard, int fd, struct wcx_error *err)
{
	const size_t json_bytes = (size_t)(shard->st->header_bytes - WCX_SAFETENSORS_LENGTH_BYTES);
	char *json = malloc(json_bytes + 1);
	size_t begin, end;
	int r;

	if (!json)
		return no_memory(shard, err);
	r = wcx_read_exact(fd, json, json_bytes, WCX_SAFETENSORS_LENGTH_BYTES);
	if (r < 0) {
		r = wcx_fail(err, -r, "%s: %s", shard->path, strerror(-r));
	} else if (find_metadata(json, json_bytes, &begin, &end)) {
		json[end] = '\0';
		r = asprintf(&shard->header, "{\"__metadata__\":%s", json + begin) < 0 ? -ENOMEM : 0;
	} else { /* loaders want to know the framework */
		shard->header = strdup("{\"__metadata__\":{\"format\":\"pt\"}");
		r = shard->header ? 0 : -ENOMEM;
	}
	free(json);
	return r == -ENOMEM ? no_memory(shard, err) : r;
}

static int read_header(struct wcx_shard *shard, int fd, struct wcx_error *err)
{
	int r;

	if (fstat(fd, &shard->file) < 0)
		return wcx_fail(err, errno, "%s: %s", shard->path, strerror(errno));
	if (!S_ISREG(shard->file.st_mode))
		return wcx_fail(err, EINVAL, "%s: not a regular file", shard->path);
	r = wcx_safetensors_read(fd, shard->path, (uint64_t)shard->file.st_size, &shard->st, err);
	if (r == 0)
		r = take_metadata(shard, fd, err);
	if (r < 0)
		return r;
	shard->tensors = calloc(shard->st->tensor_count + 1, sizeof *shard->tensors);
	if (!shard->tensors)
		return no_memory(shard, err);
	for (size_t i = 0; i < shard->st->tensor_count; i++)
		shard->tensors[i].source = &shard->st->tensors[i];
	return 0;
}

int wcx_shard_open(const char *directory, const char *name, struct wcx_shard *ret, struct wcx_error *err)
{
	struct wcx_shard shard = { 0 };
	int fd, r;

	if (asprintf(&shard.path, "%s/%s", directory, name) < 0)
		return wcx_fail(err, ENOMEM, "%s: no memory", name);
	shard.name = shard.path + strlen(directory) + 1;
	fd = open(shard.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	r = fd < 0 ? wcx_fail(err, errno, "%s: %s", shard.path, strerror(errno)) : read_header(&shard, fd, err);
	if (fd >= 0)
		close(fd);
	if (r < 0)
		wcx_shard_free(&shard);
	else
		*ret = shard;
	return r;
}

void wcx_shard_free(struct wcx_shard *shard)
{
	wcx_safetensors_free(shard->st);
	free(shard->tensors);
	free(shard->outputs);
	free(shard->header);
	free(shard->path);
	*shard = (struct wcx_shard){ 0 };
}

/* --- the tensors of the new file --- */

static const char *scale_dtype(enum wcx_float_type type)
{
	return type == WCX_FLOAT_F16 ? "F16" : type == WCX_FLOAT_BF16 ? "BF16" : "F32";
}

static void add_output(struct wcx_shard *shard, const struct wcx_shard_output *output)
{
	struct wcx_shard_output *added = &shard->outputs[shard->output_count++];

	*added = *output;
	added->bytes = added->elem_bytes;
	for (size_t i = 0; i < added->dim_count; i++)
		added->bytes *= added->shape[i];
}

static void add_quantised(struct wcx_shard *shard, struct wcx_shard_tensor *tensor)
{
	const uint64_t rows = tensor->source->shape[0], cols = tensor->source->shape[1];
	struct wcx_shard_output values = { tensor, WCX_PART_VALUES, "I8", 1, { rows, cols }, 2, 0, 0 };
	struct wcx_shard_output scales = { tensor, WCX_PART_SCALES, scale_dtype(tensor->recipe.scales), 0, { rows, 1 }, 2, 0,
					   0 };
	const struct wcx_shard_output shape = { tensor, WCX_PART_SHAPE, "I64", 8, { 2 }, 1, 0, 0 };

	scales.elem_bytes = (uint32_t)wcx_float_bytes(tensor->recipe.scales);
	if (shard->is_per_tensor) {
		scales.shape[0] = 1;
		scales.dim_count = 1;
	}
	if (shard->is_packed) {
		values.dtype = "I32";
		values.elem_bytes = WORD_VALUES;
		values.shape[1] = WCX_DIV_UP(cols, WORD_VALUES);
		add_output(shard, &shape);
	}
	add_output(shard, &values);
	add_output(shard, &scales);
}

static int check_quantised(const struct wcx_shard *shard, const struct wcx_tensor *tensor, struct wcx_error *err)
{
	if (tensor->shape[1] * tensor->elem_bytes > WCX_SHARD_ROW_MAX_BYTES)
		return wcx_fail(err, EINVAL, "%s: tensor %s: rows of more than %d MiB", shard->path, tensor->name,
				WCX_SHARD_ROW_MAX_BYTES >> 20);
	return 0;
}

static int list_outputs(struct wcx_shard *shard, struct wcx_error *err)
{
	shard->outputs = calloc(shard->st->tensor_count * PARTS_MAX + 1, sizeof *shard->outputs);
	if (!shard->outputs)
		return no_memory(shard, err);
	for (size_t i = 0; i < shard->st->tensor_count; i++) {
		struct wcx_shard_tensor *tensor = &shard->tensors[i];
		int r;

		if (strlen(tensor->source->name) != tensor->source->name_bytes)
			return wcx_fail(err, EINVAL, "%s: tensor %s: U+0000 in its name", shard->path, tensor->source->name);
		if (tensor->role == WCX_ROLE_LINEAR) {
			r = check_quantised(shard, tensor->source, err);
			if (r < 0)
				return r;
			add_quantised(shard, tensor);
		} else {
			shard->outputs[shard->output_count++] = (struct wcx_shard_output){
				.tensor = tensor,
				.dtype = tensor->source->dtype,
				.elem_bytes = tensor->source->elem_bytes,
				.bytes = tensor->source->bytes,
			};
		}
	}
	return 0;
}

/* Wide elements first, so that all tensors are aligned; otherwise as they are. */
static int compare_outputs(const void *a, const void *b)
{
	const struct wcx_shard_output *first = a, *second = b;

	if (first->elem_bytes != second->elem_bytes)
		return first->elem_bytes > second->elem_bytes ? -1 : 1;
	if (first->tensor != second->tensor)
		return first->tensor < second->tensor ? -1 : 1;
	return (int)first->part - (int)second->part;
}

/* --- its header --- */

/* Formats into a stream in memory. */
static void emit(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void emit(FILE *out, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(out, format, args);
	va_end(args);
}

static void emit_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			emit(out, "\\%c", *text);
		else if ((unsigned char)*text < ' ')
			emit(out, "\\u%04x", (unsigned)*text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

char *wcx_shard_output_name(const struct wcx_shard_output *output)
{
	const char *name = output->tensor->source->name, *suffix = "";
	char *ret;

	if (output->part == WCX_PART_SCALES)
		suffix = "_scale";
	else if (output->part == WCX_PART_SHAPE)
		suffix = "_shape";
	else if (output->part == WCX_PART_VALUES && output->elem_bytes == WORD_VALUES)
		suffix = "_packed";
	return asprintf(&ret, "%s%s", name, suffix) < 0 ? NULL : ret;
}

static int emit_output(FILE *out, const struct wcx_shard_output *output, uint64_t data_offset)
{
	const bool is_copy = output->part == WCX_PART_COPY;
	const uint64_t *shape = is_copy ? output->tensor->source->shape : output->shape;
	const size_t dim_count = is_copy ? output->tensor->source->dim_count : output->dim_count;
	char *name = wcx_shard_output_name(output);

	if (!name)
		return -ENOMEM;
	fputc(',', out);
	emit_string(out, name);
	free(name);
	emit(out, ":{\"dtype\":");
	emit_string(out, output->dtype);
	emit(out, ",\"shape\":[");
	for (size_t i = 0; i < dim_count; i++)
		emit(out, "%s%" PRIu64, i ? "," : "", shape[i]);
	emit(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", data_offset, data_offset + output->bytes);
	return 0;
}

/* Puts the length in front of the header and spaces behind it; frees json. */
static int frame_header(struct wcx_shard *shard, char *json, size_t json_bytes, struct wcx_error *err)
{
	const size_t padded = (json_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	char *framed = malloc(WCX_SAFETENSORS_LENGTH_BYTES + padded);

	if (framed) {
		for (size_t i = 0; i < WCX_SAFETENSORS_LENGTH_BYTES; i++)
			framed[i] = (char)(padded >> 8 * i);
		memset(mempcpy(framed + WCX_SAFETENSORS_LENGTH_BYTES, json, json_bytes), ' ', padded - json_bytes);
		free(shard->header);
		shard->header = framed;
		shard->header_bytes = WCX_SAFETENSORS_LENGTH_BYTES + padded;
	}
	free(json);
	if (padded > WCX_SAFETENSORS_MAX_JSON_BYTES)
		return wcx_fail(err, EINVAL, "%s: the new file's header would be too large", shard->path);
	return framed ? 0 : no_memory(shard, err);
}

static int make_header(struct wcx_shard *shard, struct wcx_error *err)
{
	uint64_t data_offset = 0;
	size_t json_bytes;
	char *json = NULL;
	FILE *out = open_memstream(&json, &json_bytes);
	int r = 0;

	if (!out)
		return no_memory(shard, err);
	fputs(shard->header, out);
	for (size_t i = 0; i < shard->output_count && r == 0; i++) {
		r = emit_output(out, &shard->outputs[i], data_offset);
		shard->outputs[i].offset = data_offset;
		data_offset += shard->outputs[i].bytes;
	}
	fputc('}', out);
	if (fclose(out) == EOF || r < 0) {
		free(json);
		return no_memory(shard, err);
	}
	r = frame_header(shard, json, json_bytes, err);
	for (size_t i = 0; i < shard->output_count && r == 0; i++)
		shard->outputs[i].offset += shard->header_bytes;
	shard->output_bytes = shard->header_bytes + data_offset;
	return r;
}

int wcx_shard_plan(struct wcx_shard *shard, struct wcx_error *err)
{
	int r = list_outputs(shard, err);

	if (r < 0)
		return r;
	qsort(shard->outputs, shard->output_count, sizeof *shard->outputs, compare_outputs);
	return make_header(shard, err);
}
