/* SPDX-License-Identifier: MIT */
/* Reads the header of a safetensors file, or tells what else a file is. */
#include "fs/format/safetensors_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/le.h"
#include "fs/base/file_io.h"
#include "fs/format/file_kind.h"

static int fail_read(const char *path, int r, struct wcx_error *err)
{
	if (r == -ENODATA)
		return wcx_fail(err, EIO, "%s: became shorter while it was read", path);
	return wcx_fail(err, -r, "%s: %s", path, strerror(-r));
}

/*
 * Replaces the message about a header whose length is wrong: by what the file is instead, or by how much is missing where
 * the JSON begins as it should.
 */
static int explain_length(const char *path, const uint8_t *first, size_t first_bytes, uint64_t file_bytes,
			  struct wcx_error *err)
{
	const char *kind = wcx_file_kind(first, first_bytes);
	const char *fault = "header too small";
	uint64_t json_bytes = 0;

	if (kind)
		return wcx_fail(err, EMEDIUMTYPE, "%s: not a safetensors file: %s", path, kind);
	if (first_bytes >= WCX_SAFETENSORS_LENGTH_BYTES) {
		json_bytes = wcx_le64_read(first);
		fault = json_bytes > WCX_SAFETENSORS_MAX_JSON_BYTES ? "header too large" : "invalid header length";
	}
	if (json_bytes <= WCX_SAFETENSORS_MAX_JSON_BYTES && first_bytes > WCX_SAFETENSORS_LENGTH_BYTES &&
	    first[WCX_SAFETENSORS_LENGTH_BYTES] == '{')
		return wcx_fail(err, EINVAL, "%s: truncated: %llu of at least %llu bytes (%s)", path,
				(unsigned long long)file_bytes,
				(unsigned long long)(json_bytes + WCX_SAFETENSORS_LENGTH_BYTES), fault);
	return wcx_fail(err, EMEDIUMTYPE, "%s: not a safetensors file: %s", path, fault);
}

int wcx_safetensors_read(int fd, const char *path, uint64_t file_bytes, struct wcx_safetensors **ret, struct wcx_error *err)
{
	uint8_t first[WCX_FILE_KIND_BYTES] = { 0 };
	const size_t first_bytes = WCX_MIN(file_bytes, sizeof first);
	const char *kind;
	uint64_t json_bytes;
	char *json;
	int r = wcx_read_exact(fd, first, first_bytes, 0);

	if (r < 0)
		return fail_read(path, r, err);
	if (wcx_safetensors_json_bytes(path, first, file_bytes, &json_bytes, err) < 0)
		return explain_length(path, first, first_bytes, file_bytes, err);
	json = malloc(json_bytes ? json_bytes : 1);
	if (!json)
		return wcx_fail(err, ENOMEM, "%s: %s", path, strerror(ENOMEM));
	r = wcx_read_exact(fd, json, json_bytes, WCX_SAFETENSORS_LENGTH_BYTES);
	if (r < 0)
		r = fail_read(path, r, err);
	else
		r = wcx_safetensors_parse(path, json, json_bytes, file_bytes, ret, err);
	free(json);
	/* The first bytes of another kind can be a length by chance. */
	kind = r == -EINVAL && first[WCX_SAFETENSORS_LENGTH_BYTES] != '{' ? wcx_file_kind(first, first_bytes) : NULL;
	return kind ? wcx_fail(err, EMEDIUMTYPE, "%s: not a safetensors file: %s", path, kind) : r;
}
