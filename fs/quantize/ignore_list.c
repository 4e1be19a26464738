/* SPDX-License-Identifier: MIT */
/* Entries of an ignore list, with PCRE2, whose expressions are those of Python but for rare ones. */
#include "fs/quantize/ignore_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

static const char prefix[] = "re:";

struct entry {
	const char *text;
	pcre2_code *code; /* NULL: a name */
	bool is_used;
};

struct wcx_ignore_list {
	pcre2_match_data *match;
	size_t count;
	struct entry entries[];
};

static int compile(struct entry *entry, struct wcx_error *err)
{
	const char *expression = entry->text + sizeof prefix - 1;
	PCRE2_UCHAR message[160];
	PCRE2_SIZE offset;
	int code;

	if (strncmp(entry->text, prefix, sizeof prefix - 1) != 0)
		return 0;
	entry->code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_UTF, &code,
				    &offset, NULL);
	if (entry->code)
		return 0;
	pcre2_get_error_message(code, message, sizeof message);
	return wcx_fail(err, EINVAL, "%s: %s, at character %zu of the expression", entry->text, (const char *)message,
			(size_t)offset);
}

int wcx_ignore_list_create(const char *const *entries, size_t count, struct wcx_ignore_list **ret, struct wcx_error *err)
{
	struct wcx_ignore_list *list = calloc(1, sizeof *list + count * sizeof *list->entries);
	int r = 0;

	if (list)
		list->match = pcre2_match_data_create(1, NULL);
	if (!list || !list->match)
		r = wcx_fail(err, ENOMEM, "no memory for a list of names");
	for (size_t i = 0; i < count && r == 0; i++) {
		list->entries[i].text = entries[i];
		list->count++;
		r = compile(&list->entries[i], err);
	}
	if (r == 0)
		*ret = list;
	else
		wcx_ignore_list_free(list);
	return r;
}

void wcx_ignore_list_free(struct wcx_ignore_list *list)
{
	if (!list)
		return;
	for (size_t i = 0; i < list->count; i++)
		pcre2_code_free(list->entries[i].code);
	pcre2_match_data_free(list->match);
	free(list);
}

bool wcx_ignore_list_has(struct wcx_ignore_list *list, const char *module, size_t module_bytes)
{
	bool has = false;

	for (size_t i = 0; i < list->count; i++) {
		struct entry *entry = &list->entries[i];
		const bool matches =
			entry->code
				? pcre2_match(entry->code, (PCRE2_SPTR)module, module_bytes, 0, 0, list->match, NULL) >= 0
				: strlen(entry->text) == module_bytes && memcmp(entry->text, module, module_bytes) == 0;

		entry->is_used |= matches;
		has |= matches;
	}
	return has;
}

const char *wcx_ignore_list_unused(const struct wcx_ignore_list *list, size_t *index)
{
	while (*index < list->count) {
		const struct entry *entry = &list->entries[(*index)++];

		if (!entry->is_used)
			return entry->text;
	}
	return NULL;
}
