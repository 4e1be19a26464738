/* SPDX-License-Identifier: MIT */
/*
 * Prints the header of a safetensors file as we parse it, for safetensors_agree.py: "ok" and a line of JSON for each tensor,
 * or the error.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/format/safetensors.h"

static void print_string(const char *text, size_t bytes)
{
	putchar('"');
	for (size_t i = 0; i < bytes; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == '"' || c == '\\')
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static void print_tensor(const struct wcx_tensor *tensor)
{
	printf("{\"name\": ");
	print_string(tensor->name, tensor->name_bytes);
	printf(", \"dtype\": ");
	print_string(tensor->dtype, strlen(tensor->dtype));
	printf(", \"shape\": [");
	for (size_t i = 0; i < tensor->dim_count; i++)
		printf("%s%" PRIu64, i ? ", " : "", tensor->shape[i]);
	printf("], \"offset\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"elem_bytes\": %" PRIu32 "}\n", tensor->offset,
	       tensor->bytes, tensor->elem_bytes);
}

/* Reads the length and the JSON of fd, and parses it. */
static int read_header(const char *path, int fd, uint64_t file_bytes, struct wcx_safetensors **ret, struct wcx_error *err)
{
	uint8_t first[WCX_SAFETENSORS_LENGTH_BYTES];
	uint64_t json_bytes;
	char *json;
	int result;

	if (read(fd, first, sizeof(first)) < 0)
		return wcx_fail(err, errno, "%s: %s", path, strerror(errno));
	result = wcx_safetensors_json_bytes(path, first, file_bytes, &json_bytes, err);
	if (result)
		return result;
	json = malloc(json_bytes + 1);
	if (!json)
		return wcx_fail(err, ENOMEM, "%s: no memory", path);
	if (read(fd, json, json_bytes) == (ssize_t)json_bytes)
		result = wcx_safetensors_parse(path, json, json_bytes, file_bytes, ret, err);
	else
		result = wcx_fail(err, EIO, "%s: cannot read the header", path);
	free(json);
	return result;
}

int main(int argc, char **argv)
{
	struct wcx_safetensors *st = NULL;
	struct wcx_error err;
	struct stat info;
	int fd, result;

	if (argc != 2) {
		fprintf(stderr, "usage: %s FILE.safetensors\n", argv[0]);
		return 2;
	}
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &info) < 0) {
		perror(argv[1]);
		return 2;
	}
	result = read_header(argv[1], fd, (uint64_t)info.st_size, &st, &err);
	if (result) {
		printf("%s\n", err.text);
	} else {
		printf("ok\n");
		for (size_t i = 0; i < st->tensor_count; i++)
			print_tensor(&st->tensors[i]);
	}
	wcx_safetensors_free(st);
	close(fd);
	return result ? 1 : 0;
}
