/* SPDX-License-Identifier: MIT */
/*
 * Reads JSON from memory piece by piece, without building a tree: memory does not depend on the text.
 *
 * Accepts what serde_json accepts, which the safetensors library reads headers with (RFC 8259, no trailing commas, numbers
 * that fit a double, at most 127 arrays and objects inside each other).  The caller has checked that the text is UTF-8.
 * Strings may contain U+0000, so their lengths count.
 *
 * Functions that return bool return false after a fault; then json->fault says what is wrong at json->at, and every further
 * call returns false as well.  A reader belongs to one thread.
 */
#ifndef WCX_JSON_READER_H
#define WCX_JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WCX_JSON_DEPTH_MAX = 127 };

struct wcx_json {
	const char *text; /* untrusted; no zero byte at its end is needed */
	size_t bytes, at;
	unsigned depth;
	bool has_nul;      /* whether the string read last contains U+0000 */
	const char *fault; /* NULL as long as everything is well */
};

/* wcx_json_fail - note a fault at the current position unless there is one; returns false */
bool wcx_json_fail(struct wcx_json *json, const char *fault);

/* wcx_json_peek - skip white space and look at the next byte: 0 at the end of the text or after a fault */
char wcx_json_peek(struct wcx_json *json);

/*
 * wcx_json_enter, wcx_json_next - walk through an array ('[') or an object ('{')
 *
 *	if (wcx_json_enter(json, '['))
 *		for (size_t i = 0; wcx_json_next(json, '[', i); i++)
 *			read one value
 *
 * next returns false at the end, which it consumes, and after a fault.  In an object it stands in front of a key, which
 * wcx_json_key consumes together with the colon.
 */
bool wcx_json_enter(struct wcx_json *json, char open);
bool wcx_json_next(struct wcx_json *json, char open, size_t index);

/*
 * wcx_json_string, wcx_json_key - read a string, unescaped
 *
 * The string has *bytes_ret bytes, which may be more than the dst_bytes for which dst has space: the rest is not written.
 */
bool wcx_json_string(struct wcx_json *json, char *dst, size_t dst_bytes, size_t *bytes_ret);
bool wcx_json_key(struct wcx_json *json, char *dst, size_t dst_bytes, size_t *bytes_ret);
bool wcx_json_colon(struct wcx_json *json); /* for who reads a key as a string */

/* wcx_json_number - read a number; *is_count_ret: whether it is written as an integer from 0 to 2^64 - 1, *count_ret */
bool wcx_json_number(struct wcx_json *json, bool *is_count_ret, uint64_t *count_ret);

/* wcx_json_skip - read any value and forget it */
bool wcx_json_skip(struct wcx_json *json);

/* wcx_json_end - nothing but white space may follow */
bool wcx_json_end(struct wcx_json *json);

#endif
