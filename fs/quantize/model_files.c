/* SPDX-License-Identifier: MIT */
/* Reads and writes a model's index. */
#include "fs/quantize/model_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fs/base/array.h"
#include "fs/quantize/small_file.h"

enum { INDEX_MAX_BYTES = 256 << 20, INDENT = 2 };

static const char single_name[] = "model.safetensors";

static int no_memory(const char *directory, struct wcx_error *err)
{
	return wcx_fail(err, ENOMEM, "%s: no memory for its index", directory);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adds a name, which stays sorted. */
static int add_name(struct wcx_model_files *files, size_t *capacity, const char *name)
{
	char **grown;

	if (wcx_model_files_has(files, name))
		return 0;
	grown = wcx_array_reserve(files->names, capacity, files->count + 1, sizeof *files->names);
	if (!grown)
		return -ENOMEM;
	files->names = grown;
	files->names[files->count] = strdup(name);
	if (!files->names[files->count])
		return -ENOMEM;
	files->count++;
	qsort(files->names, files->count, sizeof *files->names, compare_names);
	return 0;
}

static int add_shards(const char *directory, struct wcx_model_files *files, struct wcx_error *err)
{
	json_t *map = json_object_get(files->index, "weight_map"), *file;
	size_t capacity = 0;
	const char *tensor;

	json_object_foreach(map, tensor, file) {
		const char *name = json_string_value(file);

		if (!name || !*name || strchr(name, '/') || *name == '.')
			return wcx_fail(err, EINVAL, "%s/%s: the file of tensor %s is not in this directory", directory,
					WCX_MODEL_INDEX_NAME, tensor);
		if (add_name(files, &capacity, name) < 0)
			return no_memory(directory, err);
	}
	return files->count ? 0 : wcx_fail(err, EINVAL, "%s/%s: names no file", directory, WCX_MODEL_INDEX_NAME);
}

static bool has_packed(const char *directory)
{
	char *path;
	bool is_there;

	if (asprintf(&path, "%s/%s.wcx", directory, single_name) < 0)
		return false;
	is_there = access(path, F_OK) == 0;
	free(path);
	return is_there;
}

static int read_index(const char *directory, struct wcx_model_files *files, struct wcx_error *err)
{
	json_error_t fault;
	size_t bytes;
	char *text;
	int r = wcx_small_file_read(directory, WCX_MODEL_INDEX_NAME, INDEX_MAX_BYTES, &text, &bytes, err);

	if (r == -ENOENT)
		return wcx_fail(err, ENOENT, "%s: has neither %s nor %s%s", directory, single_name, WCX_MODEL_INDEX_NAME,
				has_packed(directory) ? ", but a packed file: give the directory of a mount" : "");
	if (r < 0)
		return r;
	files->index = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &fault);
	free(text);
	if (!files->index)
		return wcx_fail(err, EINVAL, "%s/%s: %s, line %d", directory, WCX_MODEL_INDEX_NAME, fault.text, fault.line);
	return add_shards(directory, files, err);
}

int wcx_model_files_find(const char *directory, struct wcx_model_files *ret, struct wcx_error *err)
{
	struct wcx_model_files files = { 0 };
	size_t capacity = 0;
	char *path;
	int r;

	if (asprintf(&path, "%s/%s", directory, single_name) < 0)
		return no_memory(directory, err);
	if (access(path, F_OK) == 0)
		r = add_name(&files, &capacity, single_name) < 0 ? no_memory(directory, err) : 0;
	else
		r = read_index(directory, &files, err);
	free(path);
	if (r < 0)
		wcx_model_files_free(&files);
	else
		*ret = files;
	return r;
}

void wcx_model_files_free(struct wcx_model_files *files)
{
	for (size_t i = 0; i < files->count; i++)
		free(files->names[i]);
	free(files->names);
	json_decref(files->index);
	*files = (struct wcx_model_files){ 0 };
}

bool wcx_model_files_has(const struct wcx_model_files *files, const char *name)
{
	return files->count && bsearch(&name, files->names, files->count, sizeof *files->names, compare_names);
}

size_t wcx_model_files_tensor_count(const struct wcx_model_files *files)
{
	return json_object_size(json_object_get(files->index, "weight_map"));
}

const char *wcx_model_files_shard_of(const struct wcx_model_files *files, const char *tensor)
{
	return json_string_value(json_object_get(json_object_get(files->index, "weight_map"), tensor));
}

void wcx_index_text_add(struct wcx_index_text *index, const char *tensor, uint64_t bytes, const char *file)
{
	if (!index->weight_map)
		index->weight_map = json_object();
	json_object_set_new(index->weight_map, tensor, json_string(file));
	index->total_bytes += bytes;
}

char *wcx_index_text_finish(struct wcx_index_text *index, const struct wcx_model_files *files)
{
	json_t *root = json_deep_copy(files->index), *metadata = json_object_get(root, "metadata");
	char *text = NULL;

	if (!json_is_object(metadata)) {
		metadata = json_object();
		json_object_set_new(root, "metadata", metadata);
	}
	if (json_object_set_new(metadata, "total_size", json_integer((json_int_t)index->total_bytes)) == 0 &&
	    json_object_set(root, "weight_map", index->weight_map) == 0)
		text = json_dumps(root, JSON_INDENT(INDENT));
	json_decref(index->weight_map);
	json_decref(root);
	*index = (struct wcx_index_text){ 0 };
	return text;
}
