/* SPDX-License-Identifier: MIT */
/* Recognises well-formed UTF-8 (Unicode 15, table 3-7) and control characters. */
#ifndef WCX_UTF8_H
#define WCX_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/*
 * wcx_utf8_sequence - look at the UTF-8 sequence at the start of text
 *
 * bytes must be at least 1.  Returns the length of the sequence, 1 to 4; 0 when text ends within it; or, for one that is
 * malformed, minus the number of its bytes that could still have begun a sequence (-1 to -3, counting a bad first byte).
 */
static inline int wcx_utf8_sequence(const char *text, size_t bytes)
{
	unsigned char first = (unsigned char)text[0];
	/* The second byte's range is narrower where the sequence would be overlong, a surrogate or above U+10FFFF. */
	unsigned char low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
	unsigned char high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
	int length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;

	if ((first >= 0x80 && first < 0xC2) || first > 0xF4)
		return -1;
	for (int i = 1; i < length; i++) {
		unsigned char next;

		if ((size_t)i == bytes)
			return 0;
		next = (unsigned char)text[i];
		if (next < low || next > high)
			return -i;
		low = 0x80;
		high = 0xBF;
	}
	return length;
}

/* wcx_utf8_is_control - whether a sequence is a C0 or C1 control or DEL; text ends with a zero byte */
static inline bool wcx_utf8_is_control(const char *text)
{
	unsigned char first = (unsigned char)text[0];

	return first < 0x20 || first == 0x7F || (first == 0xC2 && (unsigned char)text[1] < 0xA0);
}

#endif
