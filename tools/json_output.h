/* SPDX-License-Identifier: MIT */
/* What the commands' JSON has in common; docs/json.md describes it. */
#ifndef WCX_JSON_OUTPUT_H
#define WCX_JSON_OUTPUT_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* wcx_json_set_count - add a number that is not negative, such as of bytes */
void wcx_json_set_count(json_t *object, const char *key, uint64_t value);

/*
 * wcx_json_shape - the dimensions of a tensor
 *
 * jansson's integers are signed: a dimension above 2^63 - 1, as a tensor without bytes can have, becomes a real.
 */
json_t *wcx_json_shape(const uint64_t *shape, size_t dim_count);

/*
 * wcx_json_set_path - add a path
 *
 * JSON is UTF-8, a path may be anything: bytes that are no UTF-8 become U+FFFD, and KEY_hex has the path's bytes as well.
 */
void wcx_json_set_path(json_t *object, const char *key, const char *path);

/* wcx_json_print_line - print an object on a line of its own on standard output, and free it; safe from any thread */
void wcx_json_print_line(json_t *object);

#endif
