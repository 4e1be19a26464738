/* SPDX-License-Identifier: MIT */
/* Files to test with: safetensors files made of samples, in a directory that is removed at the end. */
#ifndef WCX_SAMPLE_FILES_H
#define WCX_SAMPLE_FILES_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec/le.h"
#include "tests/check.h"
#include "tests/sample_data.h"

struct sample_tensor {
	const char *name, *dtype, *shape; /* the shape as JSON writes it */
	size_t bytes;
	enum sample_kind kind;
	double sigma;
};

/* Bytes in memory; the owner frees data. */
struct sample_bytes {
	uint8_t *data;
	size_t bytes;
};

static inline void sample_require(int holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	exit(2);
}

/* A new directory; sample_dir_remove removes it with the files in it. */
static inline char *sample_dir_create(void)
{
	const char *parent = getenv("TMPDIR");
	char *path;

	sample_require(asprintf(&path, "%s/wcx-test-XXXXXX", parent ? parent : "/tmp") > 0 && mkdtemp(path), "mkdtemp");
	return path;
}

static inline char *sample_path(const char *dir, const char *name)
{
	char *path;

	sample_require(asprintf(&path, "%s/%s", dir, name) > 0, "asprintf");
	return path;
}

/* How many files a directory holds, hidden ones included. */
static inline unsigned sample_dir_count(const char *path)
{
	DIR *dir = opendir(path);
	unsigned count = 0;

	sample_require(dir != NULL, path);
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(dir);
	return count;
}

static inline void sample_dir_remove(char *path)
{
	DIR *dir = opendir(path);

	sample_require(dir != NULL, path);
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
		unlinkat(dirfd(dir), entry->d_name, 0);
	closedir(dir);
	rmdir(path);
	free(path);
}

static inline void sample_write(const char *path, struct sample_bytes file)
{
	FILE *out = fopen(path, "wb");

	sample_require(out && fwrite(file.data, 1, file.bytes, out) == file.bytes && fclose(out) == 0, path);
}

static inline struct sample_bytes sample_read(const char *path)
{
	struct sample_bytes file = { 0 };
	FILE *in = fopen(path, "rb");
	struct stat st;

	sample_require(in && fstat(fileno(in), &st) == 0, path);
	file.bytes = (size_t)st.st_size;
	file.data = malloc(file.bytes ? file.bytes : 1);
	sample_require(fread(file.data, 1, file.bytes, in) == file.bytes, path);
	fclose(in);
	return file;
}

/* A regular file with these bytes that has no name; the caller closes it. */
static inline int sample_open(const uint8_t *data, size_t bytes)
{
	int fd = memfd_create("sample", MFD_CLOEXEC);

	sample_require(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes, "memfd_create");
	return fd;
}

static inline int sample_equal(struct sample_bytes a, struct sample_bytes b)
{
	return a.bytes == b.bytes && memcmp(a.data, b.data, a.bytes) == 0;
}

/* The JSON of a header, padded to a multiple of 8; the caller frees it. */
static inline char *sample_json(const struct sample_tensor *tensors, size_t count)
{
	size_t at = 0, json_bytes;
	char *json;
	FILE *out = open_memstream(&json, &json_bytes);

	fprintf(out, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (size_t i = 0; i < count; i++) {
		fprintf(out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}", tensors[i].name,
			tensors[i].dtype, tensors[i].shape, at, at + tensors[i].bytes);
		at += tensors[i].bytes;
	}
	fprintf(out, "}");
	fflush(out);
	fprintf(out, "%*s", (int)(-json_bytes & 7), "");
	sample_require(fclose(out) == 0, "open_memstream");
	return json;
}

/* A safetensors file with these tensors; the bytes depend on nothing else. */
static inline struct sample_bytes sample_safetensors(const struct sample_tensor *tensors, size_t count)
{
	char *json = sample_json(tensors, count);
	struct sample_random random = { 2026 };
	struct sample_bytes file;
	size_t at = 8 + strlen(json);

	file.bytes = at;
	for (size_t i = 0; i < count; i++)
		file.bytes += tensors[i].bytes;
	file.data = malloc(file.bytes);
	sample_require(file.data != NULL, "malloc");
	wcx_le64_write(file.data, strlen(json));
	memcpy(file.data + 8, json, strlen(json));
	for (size_t i = 0; i < count; at += tensors[i++].bytes)
		sample_fill(&random, tensors[i].kind, tensors[i].sigma, file.data + at, tensors[i].bytes);
	free(json);
	return file;
}

#endif
