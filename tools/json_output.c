/* SPDX-License-Identifier: MIT */
/* What the commands' JSON has in common. */
#include "tools/json_output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/base/utf8.h"

enum { REAL_DIGITS = 10 };

void wcx_json_set_count(json_t *object, const char *key, uint64_t value)
{
	json_object_set_new(object, key, json_integer((json_int_t)value));
}

json_t *wcx_json_shape(const uint64_t *shape, size_t dim_count)
{
	json_t *array = json_array();

	for (size_t i = 0; i < dim_count; i++)
		json_array_append_new(array, shape[i] > INT64_MAX ? json_real((double)shape[i])
								  : json_integer((json_int_t)shape[i]));
	return array;
}

/* The path with bytes that are no UTF-8 replaced; the caller frees it.  NULL: no memory. */
static char *replace_malformed(const char *path)
{
	static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */
	char *text = malloc(strlen(path) * strlen(replacement) + 1), *end = text;

	for (size_t left = strlen(path); text && left;) {
		const int length = wcx_utf8_sequence(path, left);
		const size_t used = length > 0 ? (size_t)length : 1;

		end = length > 0 ? mempcpy(end, path, used) : stpcpy(end, replacement);
		path += used;
		left -= used;
	}
	if (text)
		*end = '\0';
	return text;
}

static void set_hex(json_t *object, const char *key, const char *path)
{
	const size_t bytes = strlen(path);
	char name[64], *hex = malloc(2 * bytes + 1);

	for (size_t i = 0; hex && i < bytes; i++)
		snprintf(hex + 2 * i, 3, "%02x", (unsigned char)path[i]);
	snprintf(name, sizeof name, "%s_hex", key);
	if (hex)
		json_object_set_new(object, name, json_string(hex));
	free(hex);
}

void wcx_json_set_path(json_t *object, const char *key, const char *path)
{
	json_t *value = json_string(path);
	char *text;

	if (value) {
		json_object_set_new(object, key, value);
		return;
	}
	text = replace_malformed(path);
	json_object_set_new(object, key, text ? json_string(text) : json_null());
	set_hex(object, key, path);
	free(text);
}

void wcx_json_print_line(json_t *object)
{
	char *text = json_dumps(object, JSON_PRESERVE_ORDER | JSON_COMPACT | JSON_REAL_PRECISION(REAL_DIGITS));

	if (text)
		puts(text); /* one call: lines of several threads do not mix */
	free(text);
	json_decref(object);
}
