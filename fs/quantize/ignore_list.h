/* SPDX-License-Identifier: MIT */
/*
 * Names of modules that are not to be quantised, in the syntax of compressed-tensors: a name, or "re:" and a regular
 * expression that has to match from the start of the name, but need not match all of it (Python's re.match).
 */
#ifndef WCX_IGNORE_LIST_H
#define WCX_IGNORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "fs/base/error.h"

struct wcx_ignore_list;

/*
 * wcx_ignore_list_create - compile `count` entries, which the caller keeps
 *
 * Returns 0 with *ret, to be freed; -EINVAL for an expression that is wrong, with what and where; or -ENOMEM.
 */
int wcx_ignore_list_create(const char *const *entries, size_t count, struct wcx_ignore_list **ret, struct wcx_error *err);
void wcx_ignore_list_free(struct wcx_ignore_list *list); /* NULL is fine */

/* wcx_ignore_list_has - whether an entry names this module, which is noted in the entry; for one thread at a time */
bool wcx_ignore_list_has(struct wcx_ignore_list *list, const char *module, size_t module_bytes);

/* wcx_ignore_list_unused - an entry that has named nothing yet, the first from *index on, which moves behind it; NULL: none
 */
const char *wcx_ignore_list_unused(const struct wcx_ignore_list *list, size_t *index);

#endif
