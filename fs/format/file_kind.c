/* SPDX-License-Identifier: MIT */
/* Tells what a file is that is not a safetensors file, by its first bytes. */
#include "fs/format/file_kind.h"

#include <stdbool.h>
#include <string.h>

#include "codec/arith.h"
#include "codec/le.h"
#include "fs/base/utf8.h"
#include "fs/format/container.h"

/* Fixed bytes at the start of files.  The sources are the formats' own descriptions. */
static const struct {
	const char *magic;
	size_t bytes;
	const char *kind;
} magics[] = {
#define MAGIC(text, kind)                                                                                                   \
	{                                                                                                                   \
		text, sizeof text - 1, kind                                                                                 \
	}
	MAGIC(WCX_MAGIC, "packed already"),
	MAGIC("GGUF", "looks like GGUF"),
	MAGIC("lmgg", "looks like GGML"),
	MAGIC("tjgg", "looks like GGML"),
	MAGIC("version https://git-lfs.github.com/spec/", "looks like a Git LFS pointer; `git lfs pull' fetches the file"),
	MAGIC("\x89HDF\r\n\x1A\n", "looks like HDF5"),
	MAGIC("\x93NUMPY", "looks like NumPy"),
	MAGIC("\x1F\x8B", "looks like gzip"),
	MAGIC("\x28\xB5\x2F\xFD", "looks like zstd"),
	MAGIC("\xFD"
	      "7zXZ",
	      "looks like xz"),
	MAGIC("\x80\x02", "looks like a Python pickle, such as an old PyTorch file"),
	MAGIC("\x80\x03", "looks like a Python pickle"),
	MAGIC("\x80\x04", "looks like a Python pickle"),
	MAGIC("\x80\x05", "looks like a Python pickle"),
	MAGIC("<!DOCTYPE", "looks like HTML, such as an error page"),
	MAGIC("<!doctype", "looks like HTML, such as an error page"),
	MAGIC("<html", "looks like HTML, such as an error page"),
#undef MAGIC
};

static bool ends_with(const char *text, size_t bytes, const char *end)
{
	const size_t end_bytes = strlen(end);

	return bytes >= end_bytes && memcmp(text + bytes - end_bytes, end, end_bytes) == 0;
}

/* PyTorch and NumPy write zip archives, which the name of the first member tells apart. */
static const char *zip_kind(const uint8_t *src, size_t src_bytes)
{
	enum { NAME_BYTES_AT = 26, NAME_AT = 30 };
	const char *name = (const char *)src + NAME_AT;
	size_t name_bytes;

	if (src_bytes < NAME_AT || memcmp(src, "PK\3\4", 4) != 0)
		return NULL;
	name_bytes = WCX_MIN((size_t)(src[NAME_BYTES_AT] | src[NAME_BYTES_AT + 1] << 8), src_bytes - NAME_AT);
	if (ends_with(name, name_bytes, "data.pkl") || ends_with(name, name_bytes, "/byteorder"))
		return "looks like a PyTorch zip";
	if (ends_with(name, name_bytes, ".npy"))
		return "looks like a NumPy zip";
	return "looks like a zip archive";
}

/* A protobuf message that begins with ModelProto's version, as an integer, and its producer or graph. */
static bool is_onnx(const uint8_t *src, size_t src_bytes)
{
	return src_bytes >= 4 && src[0] == 0x08 && src[1] >= 1 && src[1] < 32 && (src[2] == 0x12 || src[2] == 0x3A);
}

static const char *text_kind(const char *text, size_t bytes)
{
	size_t at = 0;

	for (int length; at < bytes; at += (size_t)length) {
		length = wcx_utf8_sequence(text + at, bytes - at);
		if (length == 0 && at) /* the first bytes end within a character */
			break;
		if (length <= 0 || (wcx_utf8_is_control(text + at) && !strchr("\t\n\r\f", text[at])) || !text[at])
			return NULL;
	}
	at = strspn(text, " \t\n\r");
	return text[at] == '{' || text[at] == '[' ? "looks like JSON" : "looks like text";
}

const char *wcx_file_kind(const uint8_t *src, size_t src_bytes)
{
	char text[WCX_FILE_KIND_BYTES + 1] = { 0 };
	const char *kind = zip_kind(src, src_bytes);

	for (size_t i = 0; i < WCX_ARRAY_COUNT(magics) && !kind; i++)
		if (src_bytes >= magics[i].bytes && memcmp(src, magics[i].magic, magics[i].bytes) == 0)
			kind = magics[i].kind;
	if (kind)
		return kind;
	if (is_onnx(src, src_bytes))
		return "looks like ONNX";
	src_bytes = WCX_MIN(src_bytes, (size_t)WCX_FILE_KIND_BYTES);
	memcpy(text, src, src_bytes);
	return src_bytes ? text_kind(text, src_bytes) : NULL;
}
