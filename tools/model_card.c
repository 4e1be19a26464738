/* SPDX-License-Identifier: MIT */
/*
 * Reads base_model from the front matter of a model card.  No YAML parser: the two forms in use are a value on the line, and
 * a list of which the first item is on the next line; what is not understood is only a hint that is missing.
 */
#include "tools/model_card.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "fs/base/file_io.h"

enum { CARD_BYTES = 64 << 10 }; /* that are looked at */

/* The name at the end of "- owner/name" or "'owner/name'"; false if there is none. */
static bool take_name(const char *line, const char *end, char ret[WCX_CARD_NAME_BYTES])
{
	const char *slash;

	while (line < end && (isspace((unsigned char)*line) || strchr("-'\"[", *line)))
		line++;
	while (end > line && (isspace((unsigned char)end[-1]) || strchr("'\"]", end[-1])))
		end--;
	slash = memrchr(line, '/', (size_t)(end - line));
	if (slash)
		line = slash + 1;
	if (line == end || (size_t)(end - line) >= WCX_CARD_NAME_BYTES)
		return false;
	memcpy(ret, line, (size_t)(end - line));
	ret[end - line] = '\0';
	return true;
}

/* Finds the key in the front matter, which ends with a line of three hyphens. */
static bool find_base(const char *text, char ret[WCX_CARD_NAME_BYTES])
{
	const char *line, *end, *matter_end;

	if (strncmp(text, "---", 3) != 0)
		return false;
	matter_end = strstr(text + 3, "\n---");
	line = strstr(text, "\nbase_model:");
	if (!matter_end || !line || line > matter_end)
		return false;
	line += strlen("\nbase_model:");
	end = line + strcspn(line, "\n");
	return take_name(line, end, ret) || (*end && take_name(end + 1, end + 1 + strcspn(end + 1, "\n"), ret));
}

bool wcx_model_card_base(int directory_fd, char ret[WCX_CARD_NAME_BYTES])
{
	const int fd = openat(directory_fd, "README.md", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	char *text = fd < 0 ? NULL : calloc(1, CARD_BYTES + 1);
	const bool found = text && wcx_read_at(fd, text, CARD_BYTES, 0) > 0 && find_base(text, ret);

	free(text);
	if (fd >= 0)
		close(fd);
	return found;
}

bool wcx_model_card_names(const char *name, const char *path)
{
	const size_t bytes = strlen(name);

	for (const char *part = path, *end; *part; part = *end ? end + 1 : end) {
		end = part + strcspn(part, "/");
		if ((size_t)(end - part) < bytes || strncasecmp(end - bytes, name, bytes) != 0)
			continue;
		if (end - bytes == part || (end - bytes - part >= 2 && memcmp(end - bytes - 2, "--", 2) == 0))
			return true;
	}
	return false;
}
