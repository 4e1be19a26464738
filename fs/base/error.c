/* SPDX-License-Identifier: MIT */
/* Writes error messages that are safe to print, and translates results of codec and cuda. */
#include "fs/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/utf8.h"

enum {
	WHOLE_BYTES = 16 << 10, /* two of the longest paths, and what is said of them */
	BEGIN_BYTES = 200,      /* of a text that is shortened */
};

void wcx_clean_text(char *text)
{
	size_t left = strlen(text);

	while (left > 0) {
		int length = wcx_utf8_sequence(text, left);

		if (length <= 0 || wcx_utf8_is_control(text)) {
			*text = '?';
			length = 1;
		}
		text += length;
		left -= (size_t)length;
	}
}

static bool is_within_character(char c)
{
	return ((unsigned char)c & 0xC0) == 0x80;
}

/* Leaves out the middle of a text that is too long: the end says what is wrong, the beginning where. */
static void shorten(const char *whole, char text[WCX_ERROR_TEXT_BYTES])
{
	static const char dots[] = "...";
	const size_t bytes = strlen(whole);
	size_t begin = BEGIN_BYTES, end;

	if (bytes < WCX_ERROR_TEXT_BYTES) {
		memcpy(text, whole, bytes + 1);
		return;
	}
	while (is_within_character(whole[begin]))
		begin--;
	end = bytes - (WCX_ERROR_TEXT_BYTES - begin - sizeof dots);
	while (is_within_character(whole[end]))
		end++;
	memcpy(text, whole, begin);
	memcpy(text + begin, dots, sizeof dots - 1);
	memcpy(text + begin + sizeof dots - 1, whole + end, bytes - end + 1);
}

int wcx_fail(struct wcx_error *err, int errnum, const char *format, ...)
{
	char whole[WHOLE_BYTES];
	va_list args;

	if (!err)
		return -errnum;
	va_start(args, format);
	vsnprintf(whole, sizeof whole, format, args);
	va_end(args);
	wcx_clean_text(whole);
	shorten(whole, err->text);
	return -errnum;
}

int wcx_result_errno(enum wcx_result result)
{
	switch (result) {
	case WCX_OK:
		return 0;
	case WCX_BAD_DATA:
		return -EBADMSG;
	case WCX_WRONG_SIZE:
		return -EINVAL;
	case WCX_NO_MEMORY:
		return -ENOMEM;
	case WCX_NO_DEVICE:
		return -ENODEV;
	case WCX_DEVICE_FAILED:
		return -EIO;
	}
	return -EINVAL;
}
